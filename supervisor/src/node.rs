//! A node: what its daemons are told.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caps::Capability;
use i2plan_config::Config;
use i2plan_ipc::api::tund::{STATIC_INTERFACE, StaticInterface, StaticPeer};
use i2plan_ipc::bridge::{AUTO, BridgeAddress};
use i2plan_ipc::passphrase::Passphrase;
use i2plan_ipc::paths;
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::sam::session::Style;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::daemon::{Daemon, Piped, encode_static};
use crate::error::StartError;
use crate::layout::{Directories, NotifySocket, Socket, Sockets};
use crate::notify_receiver::NotifyReceiver;
use crate::programs::Programs;
use crate::sam_login::SamLogin;
use crate::users::{Account, Accounts};

/// The name of the descriptor with the password of the SAM bridge, for `keyd`.
const SAM_PASSWORD: &str = "sam-password";

/// The name of the descriptor with the WireGuard private key of a static interface, for `keyd`.
const WIREGUARD_KEY: &str = "wireguard-key";

/// A node to run.
#[derive(Debug)]
pub struct Node {
    /// The configuration file, for `meshd`, `rpcd`, `webd`, `named` and `routerd`.
    pub config: Option<PathBuf>,
    /// Where the daemons keep their state.
    pub data: PathBuf,
    /// Where their sockets are.
    pub run: PathBuf,
    /// Their executables, and that which becomes them.
    pub programs: Programs,
    /// Whom they run as.
    pub accounts: Accounts,
    /// The group that may control the node, 0 for root alone.
    pub group: u32,
    /// The router's SAM bridge.
    pub sam_address: BridgeAddress,
    /// That bridge's UDP port; none to find it out.
    pub sam_udp_port: Option<u16>,
    /// What that bridge is told, if it wants a user and a password: [`SamLogin::read`].
    pub sam_login: Option<SamLogin>,
    /// Hops of its tunnels, in each direction.
    pub tunnel_length: u8,
    /// The name of the interface.
    pub interface: String,
    /// The directory where `wg` looks for the interface's socket. Without it the node runs, and `wg show` does not find
    /// the interface.
    pub wireguard: PathBuf,
    /// Whether the interface may have addresses that the host uses otherwise.
    pub allow_overlap: bool,
    /// Whether `rpcd` may give orders.
    pub rpc_orders: bool,
    /// Where `rpcd` listens, if it runs; a relative path is below `run`.
    pub rpc_socket: PathBuf,
    /// The unix socket of `web.listen`, if that is one.
    pub web_socket: Option<PathBuf>,
    /// The passphrase of `keyd`'s keys.
    pub passphrase: Option<Passphrase>,
    /// How the daemons' log lines look, if the environment does not say.
    pub log_format: Option<&'static str>,
    /// How long `meshd` may take to tell others that the node stops.
    pub shutdown_timeout: Duration,
    /// How long `tund` may take after that to send the packets that wait.
    pub drain_timeout: Duration,
    /// In place of a mesh, an interface with static peers. Its name is that of [`Node::interface`].
    pub static_interface: Option<StaticNode>,
}

/// An interface with static peers. The daemons are those of a mesh; `meshd` runs none, and `keyd` signs nothing.
#[derive(Debug)]
pub struct StaticNode {
    /// What `tund` is told.
    pub interface: StaticInterface,
    /// The peers that it has when `tund` is started again: they may have changed since. Without it they are the same.
    pub peers: Option<PeerSource>,
    /// Its WireGuard private key, which `keyd` keeps from then on; none for the one that `keyd` has.
    pub private_key: Option<SecretKey>,
    /// The style of its datagrams, which is that of its one SAM session.
    pub style: Style,
}

/// Reads the peers of a static interface anew; none if that fails.
#[derive(Clone)]
pub struct PeerSource(pub Arc<dyn Fn() -> Option<Vec<StaticPeer>> + Send + Sync>);

impl fmt::Debug for PeerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerSource")
    }
}

impl Node {
    /// A node with this configuration, whose state and sockets are where those of a service would be, which root alone
    /// may control, and whose keys are not sealed.
    #[must_use]
    pub fn new(config: &Config, accounts: Accounts, programs: Programs) -> Self {
        Self {
            // meshd is another user, with another home.
            config: config.path().exists().then(|| config.path().to_owned()),
            data: config.data_dir.clone(),
            run: paths::RUN_DIR.into(),
            programs,
            accounts,
            group: 0,
            sam_address: config.sam_address.clone(),
            sam_udp_port: config.sam_udp_port,
            sam_login: None,
            tunnel_length: config.tunnel_length,
            interface: config.interface.clone(),
            wireguard: paths::WIREGUARD_DIR.into(),
            allow_overlap: config.allow_overlap,
            rpc_orders: config.rpc_orders,
            rpc_socket: config.rpc_socket.clone(),
            web_socket: config.web_listen.socket().map(Path::to_owned),
            passphrase: None,
            log_format: None,
            shutdown_timeout: config.shutdown_timeout,
            drain_timeout: config.drain_timeout,
            static_interface: None,
        }
    }
}

/// The daemons, in the order of their start: who is asked starts before who asks.
pub(crate) fn daemons(
    node: &Node,
    directories: &Directories,
    sockets: &Sockets,
    hangup: &watch::Sender<()>,
) -> Result<Vec<Daemon>, StartError> {
    let Accounts { keyd, meshd, tund, connector, rpc, web, names, router } = node.accounts;
    let meshd_uid = meshd.uid.to_string();
    let sam_address = node.sam_address.to_string();
    let sam_udp_port = node.sam_udp_port.map_or_else(|| AUTO.to_owned(), |port| port.to_string());
    let mut for_keyd = words(&[
        (&"--store", &directories.data.join("keyd")),
        (&"--sam-address", &sam_address),
        (&"--sam-udp-port", &sam_udp_port),
        (&"--tunnel-length", &node.tunnel_length.to_string()),
        (&"--meshd-user", &meshd_uid),
        (&"--tund-user", &tund.uid.to_string()),
        (&"--connector-user", &connector.uid.to_string()),
    ]);
    if let Some(rpc) = rpc {
        for_keyd.extend(words(&[(&"--rpc-user", &rpc.uid.to_string())]));
    }
    for refused in [web, names, router].into_iter().flatten() {
        for_keyd.extend(words(&[(&"--refuse", &refused.uid.to_string())]));
    }
    if node.rpc_orders {
        for_keyd.extend(words(&[(&"--rpc-orders", &"true")]));
    }
    if let Some(login) = &node.sam_login {
        for_keyd.extend(words(&[(&"--sam-user", &login.user)]));
    }
    if node.passphrase.is_some() {
        for_keyd.extend(words(&[(&"--passphrase-fd", &"0")]));
    }
    let for_connector = words(&[
        (&"--sam-address", &sam_address),
        (&"--sam-udp-port", &sam_udp_port),
        (&"--keyd-socket", &sockets.keyd_connector.path),
    ]);
    let mut for_tund = words(&[
        (&"--keyd-socket", &sockets.keyd_tund.path),
        (&"--meshd-user", &meshd_uid),
        (&"--sam-address", &sam_address),
        (&"--sam-udp-port", &sam_udp_port),
        (&"--interface", &node.interface),
    ]);
    if node.allow_overlap {
        for_tund.extend(words(&[(&"--allow-overlap", &"true")]));
    }
    let mut for_meshd = words(&[
        (&"--state", &directories.data.join("meshd")),
        (&"--keyd-socket", &sockets.keyd_meshd.path),
        (&"--tund-socket", &sockets.tund.path),
    ]);
    let mut for_rpcd =
        words(&[(&"--state", &directories.data.join("rpc")), (&"--meshd-socket", &sockets.meshd.path)]);
    for_rpcd.extend(words(&[(&"--keyd-socket", &sockets.keyd_control.path)]));
    if let Some(names) = names {
        for_meshd.extend(words(&[(&"--named-user", &names.uid.to_string())]));
    }
    let mut for_webd = words(&[(&"--meshd-socket", &sockets.meshd.path)]);
    let mut for_named = for_webd.clone();
    let mut for_routerd = words(&[(&"--state", &directories.data.join("routerd"))]);
    if let Some(config) = &node.config {
        // A daemon works in the root directory.
        let config = std::path::absolute(config)
            .map_err(|source| StartError::Config { path: config.clone(), source })?;
        for_meshd.extend(words(&[(&"--config", &config)]));
        for_rpcd.extend(words(&[(&"--config", &config)]));
        for_webd.extend(words(&[(&"--config", &config)]));
        for_named.extend(words(&[(&"--config", &config)]));
        for_routerd.extend(words(&[(&"--config", &config)]));
    }
    let (mut of_keyd_piped, mut of_tund_piped) = (Vec::new(), Vec::new());
    if let Some(login) = &node.sam_login {
        let password = Zeroizing::new(login.password.expose().to_vec());
        of_keyd_piped.push((SAM_PASSWORD, Piped::Fixed(password)));
    }
    if let Some(StaticNode { interface, peers, private_key, style }) = &node.static_interface {
        for_keyd.push("--static".into());
        for_meshd.extend(words(&[(&"--static", &style.to_string())]));
        if let Some(key) = private_key {
            of_keyd_piped.push((WIREGUARD_KEY, Piped::Fixed(Zeroizing::new(key.0.to_vec()))));
        }
        encode_static(interface)?;
        of_tund_piped.push((STATIC_INTERFACE, Piped::Static(interface.clone(), peers.clone())));
    }
    let daemon = |name, user, sockets: &[(&'static str, &Socket)], arguments| {
        let share = |(name, socket): &(_, &Socket)| socket.share().map(|fd| (*name, fd));
        Ok::<_, StartError>(Daemon {
            name,
            program: node.programs.find(name)?,
            arguments,
            user,
            capability: match name {
                "tund" => Some(Capability::CAP_NET_ADMIN),
                "named" => Some(Capability::CAP_NET_BIND_SERVICE),
                _ => None,
            },
            sockets: sockets.iter().map(share).collect::<Result<_, _>>().map_err(StartError::Share)?,
            notify: NotifyReceiver::new(NotifySocket::bind(
                directories.run.join(format!("{name}.notify")),
                user,
            )?),
            // For tund any other end is a restart, before which it leaves open what it has kept.
            stop_signal: if name == "tund" { Signal::SIGINT } else { Signal::SIGTERM },
            log_format: node.log_format,
            passphrase: node.passphrase.clone().filter(|_| name == "keyd"),
            piped: match name {
                "keyd" => of_keyd_piped.clone(),
                "tund" => of_tund_piped.clone(),
                _ => Vec::new(),
            },
            last_work: match name {
                "meshd" => node.shutdown_timeout,
                "tund" => node.drain_timeout,
                _ => Duration::ZERO,
            },
            launcher: node.programs.launcher.clone(),
            hangup: matches!(name, "meshd" | "webd").then(|| hangup.subscribe()),
        })
    };
    let mut daemons = Vec::new();
    if let Some(router) = router {
        daemons.push(daemon("routerd", router, &[], for_routerd)?);
    }
    let mut of_tund = vec![("listener", &sockets.tund)];
    of_tund.extend(sockets.wireguard.as_ref().map(|socket| ("wireguard", socket)));
    let of_keyd = [
        ("meshd", &sockets.keyd_meshd),
        ("tund", &sockets.keyd_tund),
        ("connector", &sockets.keyd_connector),
        ("control", &sockets.keyd_control),
    ];
    daemons.extend([
        daemon("keyd", keyd, &of_keyd, for_keyd)?,
        daemon("connector", connector, &[], for_connector)?,
        daemon("tund", tund, &of_tund, for_tund)?,
        daemon("meshd", meshd, &[("listener", &sockets.meshd)], for_meshd)?,
    ]);
    // As members of the control group, which is how they get in at meshd.
    let in_group = |user: Account| Account {
        gid: if node.group == 0 { node.accounts.clients_gid().unwrap_or(user.gid) } else { node.group },
        ..user
    };
    if let (Some(rpc), Some(socket)) = (rpc, &sockets.rpc) {
        // Without that group it gets in as the owner.
        let rpc = if node.group == 0 { rpc } else { in_group(rpc) };
        daemons.push(daemon("rpcd", rpc, &[("listener", socket)], for_rpcd)?);
    }
    if let (Some(web), Some(socket)) = (web, &sockets.web) {
        let mut of_webd = vec![("listener", socket)];
        of_webd.extend(sockets.web_pages.as_ref().map(|socket| ("http", socket)));
        daemons.push(daemon("webd", in_group(web), &of_webd, for_webd)?);
    }
    if let Some(names) = names {
        daemons.push(daemon("named", in_group(names), &[], for_named)?);
    }
    Ok(daemons)
}

/// Options and their values as arguments.
fn words(options: &[(&dyn AsRef<OsStr>, &dyn AsRef<OsStr>)]) -> Vec<OsString> {
    options
        .iter()
        .flat_map(|(option, value)| [option.as_ref().to_owned(), value.as_ref().to_owned()])
        .collect()
}
