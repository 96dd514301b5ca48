//! Nodes: a namespace, an I2P router, and the daemons under their supervisor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::i2p::kind::{RouterKind, Routers};
use crate::i2p::router::{NETWORK, SAM, SamBridge};
use crate::i2p::sam::{Session as Witness, Style, TRANSIENT};
use crate::i2p::{PORT, PrivateNetwork, Router};
use crate::netns::Network;
use crate::path::{Path as EmulatedPath, Side};
use crate::process::{Child, Output, Spawn, current_program, signal};
use crate::sandbox::{DIRECTORY, bin};
use crate::{Failure, tail, wait};

/// Tells the inner process where the programs were built, as JSON.
pub const PROGRAMS_VARIABLE: &str = "I2PLAN_LAB_PROGRAMS";

/// First of the users that daemons run under; every node has its own six.
pub(crate) const FIRST_UID: u32 = 20_000;

/// Addresses for the routers that carry tunnels.
const INTERNET_ADDRESSES: u8 = 8;

/// How long a node may take until its sessions are open. Some routers let a session wait for tunnels for a minute and
/// then give it up; after that it is asked for again.
const READY_DEADLINE: Duration = Duration::from_secs(150);

/// How long it may take until an open session is found.
const FOUND_DEADLINE: Duration = Duration::from_secs(20);

/// How long a datagram may take before it is sent again.
const RESEND: Duration = Duration::from_secs(1);

/// How often sessions that are not found are opened again.
const ATTEMPTS: u8 = 4;

/// How often a node is to join at most while its router keeps it from that, as the node tells its user to.
const JOINS: u8 = 3;

/// What the node says then.
const ROUTERS_FAULT: [&str; 2] = ["found no lease set", "has had no I2P session"];

/// How long a daemon may take to be known after its start.
const DAEMON_DEADLINE: Duration = Duration::from_secs(20);

/// A private I2P network and nodes on it.
#[derive(Debug)]
pub struct Lab {
    network: Network,
    i2p: PrivateNetwork,
    /// The nodes, the first of them first.
    pub nodes: Vec<Node>,
    /// What daemons that are started from now on log (`I2PLAN_LOG`); none for what they log anyway.
    pub log_filter: Option<String>,
    /// Hops of the tunnels of nodes that are added from now on; 1 at first.
    pub tunnel_length: u8,
    /// Where the routers of nodes that are added from now on have their SAM bridges.
    pub bridge: SamBridge,
    /// `i2p.sam_address` of these nodes.
    pub sam_address: String,
    /// Routers without a node.
    strangers: Vec<Router>,
}

impl Lab {
    /// Starts the network, without nodes, of the routers that the environment names.
    ///
    /// # Errors
    /// If the network cannot be made or the routers do not start.
    pub async fn start() -> Result<Self, Failure> {
        Self::start_on(Routers::from_env()?).await
    }

    /// The same of these routers.
    ///
    /// # Errors
    /// If the network cannot be made or the routers do not start.
    pub async fn start_on(routers: Routers) -> Result<Self, Failure> {
        install_programs()?;
        let network = Network::create(INTERNET_ADDRESSES).await?;
        let i2p = PrivateNetwork::start(Path::new(DIRECTORY), &network, routers).await?;
        Ok(Self::new(network, i2p))
    }

    /// Starts nodes on an emulated path, with no routers, and waits until their sessions are open.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn on_path(path: &EmulatedPath, sides: &[Side]) -> Result<Self, Failure> {
        Self::on_bridges(sides.len(), |node, name| path.attach(name, sides[node])).await
    }

    /// Starts nodes without routers, and waits until their sessions are open. `attach` gives each, by number from
    /// 0 and namespace, its SAM bridge.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn on_bridges(
        nodes: usize,
        attach: impl Fn(usize, &str) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        install_programs()?;
        let network = Network::create(INTERNET_ADDRESSES).await?;
        let mut lab = Self::new(network, PrivateNetwork::none(Path::new(DIRECTORY)));
        for node in 0..nodes {
            let number = lab.next_number()?;
            let name = format!("n{number}");
            let address = lab.network.add_node(&name, number).await?;
            attach(node, &name)?;
            let node = Node::new(name, number, address, None, &lab)?;
            lab.start_node(node)?;
        }
        lab.ready().await?;
        Ok(lab)
    }

    fn new(network: Network, i2p: PrivateNetwork) -> Self {
        let (nodes, strangers) = (Vec::new(), Vec::new());
        Self {
            network,
            i2p,
            nodes,
            log_filter: std::env::var("I2PLAN_LOG").ok(),
            tunnel_length: 1,
            bridge: SamBridge::USUAL,
            sam_address: SAM.to_string(),
            strangers,
        }
    }

    /// The routers of the network.
    #[must_use]
    pub fn routers(&self) -> Routers {
        self.i2p.routers()
    }

    /// Starts a network with so many nodes, and waits until their sessions are open.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn with_nodes(count: usize) -> Result<Self, Failure> {
        let mut lab = Self::start().await?;
        for _ in 0..count {
            lab.add_node().await?;
        }
        lab.ready().await?;
        Ok(lab)
    }

    /// Waits until the sessions of all nodes are open and, on networks with i2pd, can be found.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let i2pd = |router: &Router| router.kind() == RouterKind::I2pd && router.has_usual_bridge();
        let i2pd = self.nodes.iter().rfind(|node| node.router.as_ref().is_some_and(i2pd));
        let Some(name) = i2pd.map(|node| node.name.clone()) else { return self.open().await };
        let witness = Witness::open_within(&name, Style::Raw, TRANSIENT);
        let (mut witness, ()) = tokio::try_join!(witness, self.open())?;
        // i2pd 2.45.1 publishes a lease set when a new inbound tunnel is there, if it has an outbound one by then. One in
        // five to twenty new sessions has none yet, and is not found for minutes. Others are sooner there. A router often
        // does not find its own destinations, so one node is not examined.
        for node in self.nodes.iter_mut().filter(|node| node.name != name) {
            for _ in 0..ATTEMPTS {
                if node.is_found_by(&mut witness).await? {
                    break;
                }
                eprintln!("{} is not found: its sessions are opened again", node.name);
                node.stop_daemons().await?;
                node.start_daemons()?;
                node.ready().await?;
            }
        }
        Ok(())
    }

    /// Waits until the router of one node carries datagrams to that of another and back, between sessions that are opened
    /// for that: until then nothing that the node does helps. Says how long that took.
    ///
    /// # Errors
    /// If it takes too long.
    pub async fn carried(&self, one: usize, other: usize) -> Result<Duration, Failure> {
        let began = Instant::now();
        let carried = async {
            let open = |node: usize| Witness::open_within(&self.nodes[node].name, Style::Raw, TRANSIENT);
            let (mut one, mut other) = tokio::try_join!(open(one), open(other))?;
            carries(&mut one, &mut other).await?;
            carries(&mut other, &mut one).await
        };
        let carried = tokio::time::timeout(READY_DEADLINE, carried).await;
        carried.map_err(|_| {
            let seconds = READY_DEADLINE.as_secs();
            Failure::new(format!(
                "not within {seconds} s: the router of {} carries traffic",
                self.nodes[one].name
            ))
        })??;
        Ok(began.elapsed())
    }

    async fn open(&self) -> Result<(), Failure> {
        for node in &self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    /// Starts a node more: its router, then its daemons.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn add_node(&mut self) -> Result<&mut Node, Failure> {
        let number = self.next_number()?;
        let name = format!("n{number}");
        let address = self.network.add_node(&name, number).await?;
        let router = self.i2p.start_edge(&name, address, self.routers().kind(number), self.bridge).await?;
        let least = router.kind().least_tunnel_length();
        if self.tunnel_length < least {
            let length = self.tunnel_length;
            return Err(Failure::new(format!(
                "tunnel length {length}: the router of {name} takes {least} or more"
            )));
        }
        self.start_node(Node::new(name, number, address, Some(router), self)?)
    }

    fn next_number(&self) -> Result<u8, Failure> {
        u8::try_from(self.nodes.len() + self.strangers.len() + 1).map_err(|_| Failure::new("too many nodes"))
    }

    /// Starts a node more, whose only router is its own `routerd`, started by its supervisor and seeded from a
    /// directory of the node's. Others can reach it if it is `published`.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn add_node_with_routerd(&mut self, published: bool) -> Result<&mut Node, Failure> {
        let number = self.next_number()?;
        let name = format!("n{number}");
        let address = self.network.add_node(&name, number).await?;
        let node = Node::new(name, number, address, None, self)?;
        self.i2p.copy_seed(Path::new(&node.seed()))?;
        let reachable =
            if published { format!("port = {PORT}\naddress = \"{address}\"\n") } else { String::new() };
        node.add_to_config(&format!(
            "[router]\nenabled = true\nreseed = false\nseed = {:?}\ntransit = false\n{reachable}",
            node.seed()
        ))?;
        self.start_node(node)
    }

    /// Starts a node more that is no member of a mesh but an interface, `wg0`, with static peers: a file of wg-quick with
    /// this text says which.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn add_static_node(&mut self, file: &str, style: &'static str) -> Result<&mut Node, Failure> {
        self.add_described_node(async |node| node.set_static(file, style)).await
    }

    /// Starts a node more that is no member of a mesh but an interface, `wg0`, with static peers, as it is described here.
    ///
    /// # Errors
    /// If it cannot be described, or something does not start.
    pub async fn add_described_node(
        &mut self,
        describe: impl AsyncFnOnce(&mut Node) -> Result<(), Failure>,
    ) -> Result<&mut Node, Failure> {
        let number = self.next_number()?;
        let name = format!("n{number}");
        let address = self.network.add_node(&name, number).await?;
        let router = self.i2p.start_edge(&name, address, self.routers().kind(number), self.bridge).await?;
        let mut node = Node::new(name, number, address, Some(router), self)?;
        describe(&mut node).await?;
        self.start_node(node)
    }

    /// Starts two nodes more that share the router of the first, like two containers on one host.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn add_two_on_one_router(&mut self) -> Result<(), Failure> {
        let usual = (self.bridge, self.sam_address.clone());
        self.bridge.address.set_ip(Ipv4Addr::UNSPECIFIED.into());
        let address = self.add_node().await?.address;
        self.sam_address = SocketAddr::new(address.into(), self.bridge.address.port()).to_string();
        let number = self.next_number()?;
        let name = format!("n{number}");
        let address = self.network.add_node(&name, number).await?;
        let node = Node::new(name, number, address, None, self)?;
        self.start_node(node)?;
        (self.bridge, self.sam_address) = usual;
        Ok(())
    }

    fn start_node(&mut self, mut node: Node) -> Result<&mut Node, Failure> {
        node.start_daemons()?;
        self.nodes.push(node);
        self.nodes.last_mut().ok_or_else(|| Failure::new("no node"))
    }

    /// Starts a router without a node: for a stranger, in a namespace of its own with this name.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn add_stranger(&mut self, name: &str) -> Result<&Router, Failure> {
        let number = self.next_number()?;
        let address = self.network.add_node(name, number).await?;
        let kind = self.routers().kind(number);
        self.strangers.push(self.i2p.start_edge(name, address, kind, SamBridge::USUAL).await?);
        self.strangers.last().ok_or_else(|| Failure::new("no router"))
    }

    /// The router of a node.
    ///
    /// # Errors
    /// If the node's router is its own.
    pub fn router(&mut self, node: usize) -> Result<&mut Router, Failure> {
        self.nodes[node].router.as_mut().ok_or_else(|| Failure::new("the node's router is its own"))
    }

    /// Kills a node's router.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill_router(&mut self, node: usize) -> Result<(), Failure> {
        self.router(node)?.kill().await
    }

    /// Starts a node's router again, with the keys that it had.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart_router(&mut self, node: usize) -> Result<(), Failure> {
        self.router(node)?.start().await
    }

    /// Stops everything, in order.
    ///
    /// # Errors
    /// If a supervisor does not end well.
    pub async fn stop(mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            node.stop_daemons().await?;
        }
        Ok(())
    }
}

/// Makes the programs available to all users of the run, wherever they were built.
fn install_programs() -> Result<(), Failure> {
    let programs =
        std::env::var(PROGRAMS_VARIABLE).map_err(|_| Failure::new("the programs are not built"))?;
    let programs: BTreeMap<String, PathBuf> = serde_json::from_str(&programs)
        .map_err(|error| Failure::new(format!("{PROGRAMS_VARIABLE}: {error}")))?;
    let directory = bin();
    std::fs::create_dir_all(&directory)?;
    // By its path: the link in /proc leads to a mount outside of this namespace.
    let own = ("lab".to_owned(), std::fs::canonicalize(current_program())?);
    for (name, path) in programs.iter().chain([&own].map(|(name, path)| (name, path))) {
        let target = directory.join(name);
        File::create(&target)?;
        let none: Option<&str> = None;
        mount(Some(path), &target, none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}

/// Sends datagrams from one session to another until one comes.
async fn carries(from: &mut Witness, to: &mut Witness) -> Result<(), Failure> {
    let name = to.name();
    while from.look_up(&name).await?.is_none() {
        tokio::time::sleep(wait::POLL).await;
    }
    let datagram = [&from.header(&to.destination), &b"anybody there?"[..]].concat();
    loop {
        from.send(&datagram).await?;
        if tokio::time::timeout(RESEND, to.receive(&mut [0; 64])).await.is_ok() {
            return Ok(());
        }
    }
}

/// Daemons that hang.
#[derive(Debug)]
#[must_use = "they hang until they are told to go on"]
pub struct Frozen(Vec<u32>);

impl Frozen {
    /// Lets them go on.
    ///
    /// # Errors
    /// If one has ended.
    pub fn thaw(self) -> Result<(), Failure> {
        // The supervisor last: by then they can be heard.
        self.0.iter().rev().try_for_each(|pid| signal(*pid, Signal::SIGCONT))
    }
}

/// What `i2planctl --json status` prints, as far as the laboratory reads it.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The node's identity.
    pub node_id: Option<String>,
    /// Its network.
    pub network: Option<NetworkStatus>,
    /// Its SAM sessions.
    pub sam: Sam,
    /// Its interface.
    pub tunnel: Tunnel,
    /// Its daemons.
    pub daemons: Vec<Daemon>,
}

impl Status {
    /// Whether both SAM sessions are open.
    #[must_use]
    pub fn sessions_are_open(&self) -> bool {
        [&self.sam.control, &self.sam.data].iter().all(|session| session.state == "up")
    }
}

/// The network part of [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network's id.
    pub id: String,
    /// What its founder calls it.
    pub name: String,
    /// The node's address.
    pub ipv4: Ipv4Addr,
    /// The node's address.
    pub ipv6: Ipv6Addr,
    /// Known members.
    pub members: u64,
}

/// The SAM part of [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct Sam {
    /// The control session.
    pub control: Session,
    /// The data session.
    pub data: Session,
}

/// One session.
#[derive(Debug, Clone, Deserialize)]
pub struct Session {
    /// `up` when it is.
    pub state: String,
    /// Where it takes datagrams.
    pub destination: Option<String>,
    /// Why it is not up.
    pub error: Option<String>,
    /// Whether no UDP comes back from the bridge.
    pub over_tcp: bool,
}

/// The tunnel part of [`Status`].
#[derive(Debug, Clone, Deserialize)]
pub struct Tunnel {
    /// The interface, once it is up.
    pub interface: Option<String>,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// Packets dropped that belong to no peer.
    pub drops: Option<serde_json::Value>,
}

/// One daemon.
#[derive(Debug, Clone, Deserialize)]
pub struct Daemon {
    /// Its name.
    pub name: String,
    /// Its process id.
    pub pid: Option<u32>,
}

/// What `i2planctl --json peers` prints, as far as the laboratory reads it.
#[derive(Debug, Clone, Deserialize)]
pub struct Peer {
    /// Its identity.
    pub node_id: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its WireGuard public key, base64.
    pub public_key: String,
    /// Where it takes WireGuard packets.
    pub endpoint: String,
    /// WireGuard packets to it.
    pub tx_packets: u64,
    /// WireGuard packets from it.
    pub rx_packets: u64,
    /// Packets for it that were dropped before they were sent.
    pub queue_drops: u64,
    /// Packets from it that were not accepted.
    pub rx_drops: u64,
    /// Seconds since the last handshake.
    pub last_handshake: Option<u64>,
}

#[derive(Deserialize)]
struct Peers {
    peers: Vec<Peer>,
}

#[derive(Deserialize)]
struct Joined {
    network: NetworkStatus,
}

#[derive(Deserialize)]
struct Invite {
    invite: String,
}

/// An error that `i2planctl --json` printed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CtlError {
    /// The sort of error.
    pub kind: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

#[derive(Deserialize)]
struct ErrorDocument {
    error: CtlError,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name, which is its namespace's too.
    pub name: String,
    /// Its address in the "Internet".
    pub address: Ipv4Addr,
    /// Its users: `keyd`'s, `meshd`'s and `tund`'s.
    pub uids: [u32; 3],
    /// The user of `rpcd`.
    pub rpc_uid: u32,
    /// The user of `webd`.
    pub web_uid: u32,
    /// The user of `named`.
    pub names_uid: u32,
    /// The user of `routerd`.
    pub router_uid: u32,
    /// The user of the connector.
    pub connector_uid: u32,
    /// The group that may control it.
    pub group: u32,
    log_filter: Option<String>,
    /// What it sends to peers that report, kbit/s, for daemons that are started from now on; none for what the path
    /// carries.
    pub sending_rate: Option<u32>,
    /// A file with the passphrase of its keys, for daemons that are started from now on.
    pub passphrase: Option<PathBuf>,
    /// Arguments of `up` that describe its interface, if it has static peers that `config.toml` does not describe.
    pub static_args: Vec<OsString>,
    directory: PathBuf,
    /// The laboratory's router for it; none if it has its own.
    router: Option<Router>,
    routers: Routers,
    supervisor: Option<Child>,
}

impl Node {
    fn new(
        name: String,
        number: u8,
        address: Ipv4Addr,
        router: Option<Router>,
        lab: &Lab,
    ) -> Result<Self, Failure> {
        let directory = Path::new(DIRECTORY).join(&name);
        std::fs::create_dir_all(directory.join("etc"))?;
        let config = format!(
            "[node]\nname = \"{name}\"\n\n[i2p]\nsam_address = \"{}\"\ntunnel_length = {}\n",
            lab.sam_address, lab.tunnel_length
        );
        std::fs::write(directory.join("etc/config.toml"), config)?;
        let first = FIRST_UID + u32::from(number) * 10;
        let (uids, group, rpc_uid) = ([1, 2, 3].map(|daemon| first + daemon), first + 4, first + 5);
        let (router_uid, connector_uid, web_uid, names_uid) = (first + 6, first + 7, first + 8, first + 9);
        let (log_filter, routers) = (lab.log_filter.clone(), lab.routers());
        let (sending_rate, passphrase, static_args, supervisor) = (None, None, Vec::new(), None);
        Ok(Self {
            name,
            address,
            uids,
            rpc_uid,
            web_uid,
            names_uid,
            router_uid,
            connector_uid,
            group,
            log_filter,
            sending_rate,
            passphrase,
            static_args,
            directory,
            router,
            routers,
            supervisor,
        })
    }

    /// A file of this node's.
    #[must_use]
    pub fn path(&self, name: &str) -> OsString {
        self.directory.join(name).into_os_string()
    }

    /// The socket of the node's control API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/meshd.sock")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("etc/config.toml")
    }

    /// The directory of the daemons' sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The directory of a daemon's state.
    #[must_use]
    pub fn state(&self, daemon: &str) -> PathBuf {
        self.directory.join("state").join(daemon)
    }

    /// The routers that its own router learns of at first.
    #[must_use]
    pub fn seed(&self) -> PathBuf {
        self.directory.join("seed")
    }

    /// What the node's daemons have logged.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("daemons.log")
    }

    /// Starts the node's daemons under their supervisor.
    ///
    /// # Errors
    /// If the supervisor cannot be started.
    pub fn start_daemons(&mut self) -> Result<(), Failure> {
        let [keyd, meshd, tund] = self.uids.map(|uid| OsString::from(uid.to_string()));
        let [connector, rpc, web, names, router, group] =
            [self.connector_uid, self.rpc_uid, self.web_uid, self.names_uid, self.router_uid, self.group]
                .map(|id| OsString::from(id.to_string()));
        let mut args: Vec<OsString> = vec![
            "up".into(),
            "--config".into(),
            self.config().into_os_string(),
            "--data-dir".into(),
            self.path("state"),
            "--runtime-dir".into(),
            self.path("run"),
            "--wireguard-dir".into(),
            self.path("wireguard"),
            "--keyd-user".into(),
            keyd,
            "--meshd-user".into(),
            meshd,
            "--tund-user".into(),
            tund,
            "--connector-user".into(),
            connector,
            "--rpc-user".into(),
            rpc,
            "--web-user".into(),
            web,
            "--names-user".into(),
            names,
            "--router-user".into(),
            router,
            "--group".into(),
            group,
        ];
        if self.passphrase.is_some() {
            args.extend(["--passphrase-fd".into(), "8".into()]);
        }
        args.extend(self.static_args.iter().cloned());
        let mut supervisor = self.with_passphrase(args).namespace(Some(&self.name)).log(&self.log());
        if self.router.is_none() {
            supervisor = supervisor.variable("I2PLAN_LAB_ROUTER_NETWORK", &NETWORK.to_string());
        }
        if let Some(filter) = &self.log_filter {
            supervisor = supervisor.variable("I2PLAN_LOG", filter);
        }
        if let Some(rate) = self.sending_rate {
            supervisor = supervisor.variable(i2plan_tund::options::RATE_VARIABLE, &rate.to_string());
        }
        self.supervisor = Some(supervisor.start()?);
        Ok(())
    }

    /// The file that says what the node's static peers are.
    #[must_use]
    pub fn static_file(&self) -> PathBuf {
        self.directory.join("etc/wg0.conf")
    }

    /// Has other static peers, by a file of wg-quick with this text, when its daemons start the next time.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_static(&mut self, file: &str, style: &'static str) -> Result<(), Failure> {
        let path = self.static_file();
        std::fs::write(&path, file)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        self.static_args = vec!["--wg".into(), path.into_os_string(), "--style".into(), style.into()];
        Ok(())
    }

    /// `i2planctl` with these arguments, and with the passphrase, if there is one, as descriptor 8.
    fn with_passphrase(&self, args: Vec<OsString>) -> Spawn {
        let program = bin().join("i2planctl");
        let Some(file) = &self.passphrase else { return Spawn::new(&program, args) };
        let script = ["-c".into(), "exec 8<\"$0\"; exec \"$@\"".into()];
        let words = [file.clone().into_os_string(), program.into_os_string()];
        Spawn::new(Path::new("/bin/sh"), script.into_iter().chain(words).chain(args))
    }

    /// Seals the keys of the node, which is stopped, with the passphrase.
    ///
    /// # Errors
    /// If that fails.
    pub async fn seal(&self) -> Result<Output, Failure> {
        let args = [
            "key".into(),
            "change-passphrase".into(),
            "--config".into(),
            self.config().into_os_string(),
            "--data-dir".into(),
            self.path("state"),
            "--keyd-user".into(),
            self.uids[0].to_string().into(),
            "--new-passphrase-fd".into(),
            "8".into(),
        ];
        let output = self.with_passphrase(args.into()).namespace(Some(&self.name)).output("").await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(self.failure(&format!("its keys cannot be sealed: {}", output.stderr)))
    }

    /// Stops the node's daemons.
    ///
    /// # Errors
    /// If the supervisor does not end well.
    pub async fn stop_daemons(&mut self) -> Result<(), Failure> {
        let Some(mut supervisor) = self.supervisor.take() else { return Ok(()) };
        let status = supervisor.stop().await?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure(&format!("i2planctl up ended with {status}")))
    }

    /// Lets daemons hang (SIGSTOP), until [`Frozen::thaw`]. The supervisor, which would kill them for that, hangs too.
    ///
    /// # Errors
    /// If they do not run.
    pub async fn freeze(&self, daemons: &[&str]) -> Result<Frozen, Failure> {
        let mut pids: Vec<_> = self.supervisor_pid().into_iter().collect();
        for daemon in daemons {
            pids.push(self.daemon_pid(daemon).await?);
        }
        pids.iter().try_for_each(|pid| signal(*pid, Signal::SIGSTOP))?;
        Ok(Frozen(pids))
    }

    /// The process id of the supervisor, if it was started.
    pub(crate) fn supervisor_pid(&self) -> Option<u32> {
        self.supervisor.as_ref().map(Child::pid)
    }

    /// Kills the node's daemons, with no chance to say that it leaves.
    ///
    /// # Errors
    /// If they cannot be killed.
    pub async fn kill_daemons(&mut self) -> Result<(), Failure> {
        // The daemons end with their supervisor.
        match self.supervisor.take() {
            Some(mut supervisor) => supervisor.kill().await,
            None => Ok(()),
        }
    }

    /// Adds to the node's configuration and starts its daemons again.
    ///
    /// # Errors
    /// If they do not stop or start.
    pub async fn configure(&mut self, more: &str) -> Result<(), Failure> {
        self.stop_daemons().await?;
        self.add_to_config(more)?;
        self.start_daemons()
    }

    fn add_to_config(&self, more: &str) -> Result<(), Failure> {
        let path = self.config();
        let text = std::fs::read_to_string(&path)?;
        Ok(std::fs::write(&path, format!("{text}\n{more}"))?)
    }

    /// Starts the node's daemons again with nothing of what they knew, keys included.
    ///
    /// # Errors
    /// If they do not stop or start.
    pub async fn forget(&mut self) -> Result<(), Failure> {
        self.stop_daemons().await?;
        std::fs::remove_dir_all(self.directory.join("state"))?;
        self.start_daemons()
    }

    /// A failure of this node, with the end of its log.
    #[must_use]
    pub fn failure(&self, what: &str) -> Failure {
        Failure::new(format!("node {}: {what}; its log ends:\n{}", self.name, tail(&self.log())))
    }

    /// Connects to the node's control API.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn control(&self) -> Result<i2plan_ipc::Node, Failure> {
        let connected = i2plan_ipc::Node::connect(&self.socket()).await;
        connected.map_err(|error| self.failure(&format!("its control API: {error}")))
    }

    /// Runs `i2planctl` against this node.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn ctl(&self, args: &[&str], input: &str) -> Result<Output, Failure> {
        let socket = self.socket().into_os_string();
        let args = [OsString::from("--socket"), socket].into_iter().chain(args.iter().map(OsString::from));
        Spawn::new(&bin().join("i2planctl"), args).namespace(Some(&self.name)).output(input).await
    }

    /// Starts `i2planctl` against this node, to read its lines; what it writes on standard error goes to the log.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_ctl(&self, args: &[&str], log: &Path) -> Result<Child, Failure> {
        let socket = self.socket().into_os_string();
        let args = [OsString::from("--socket"), socket].into_iter().chain(args.iter().map(OsString::from));
        Spawn::new(&bin().join("i2planctl"), args).namespace(Some(&self.name)).log(log).wait_for_line()
    }

    /// Runs `i2planctl --json` and reads what it prints.
    ///
    /// # Errors
    /// What it says is wrong, in the inner result; that it cannot be run or understood, in the outer.
    pub async fn ctl_json<T: DeserializeOwned>(
        &self,
        args: &[&str],
        input: &str,
    ) -> Result<Result<T, CtlError>, Failure> {
        let args: Vec<_> = ["--json"].into_iter().chain(args.iter().copied()).collect();
        let output = self.ctl(&args, input).await?;
        let unreadable = |error: serde_json::Error| {
            self.failure(&format!(
                "`i2planctl {}` printed {:?} {:?} ({error})",
                args.join(" "),
                output.stdout,
                output.stderr
            ))
        };
        if output.status.success() {
            return serde_json::from_str(&output.stdout).map(Ok).map_err(unreadable);
        }
        let document: ErrorDocument = serde_json::from_str(&output.stdout).map_err(unreadable)?;
        Ok(Err(document.error))
    }

    async fn ctl_ok<T: DeserializeOwned>(&self, args: &[&str], input: &str) -> Result<T, Failure> {
        let result = self.ctl_json(args, input).await?;
        result.map_err(|error: CtlError| {
            self.failure(&format!("`i2planctl {}`: {}", args.join(" "), error.message))
        })
    }

    /// The node's state.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn status(&self) -> Result<Status, Failure> {
        self.ctl_ok(&["status"], "").await
    }

    /// The node's peers.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn peers(&self) -> Result<Vec<Peer>, Failure> {
        self.ctl_ok::<Peers>(&["peers"], "").await.map(|document| document.peers)
    }

    /// Makes an invite.
    ///
    /// # Errors
    /// If the node refuses.
    pub async fn invite(&self, options: &[&str]) -> Result<String, Failure> {
        let args: Vec<_> = ["invite", "create", "--yes"].into_iter().chain(options.iter().copied()).collect();
        self.ctl_ok::<Invite>(&args, "").await.map(|document| document.invite)
    }

    /// Revokes a member.
    ///
    /// # Errors
    /// If the node does not answer, or refuses.
    pub async fn revoke(&self, member: &str) -> Result<(), Failure> {
        self.ctl_ok::<serde_json::Value>(&["revoke", member, "--yes"], "").await.map(drop)
    }

    /// Leaves its network.
    ///
    /// # Errors
    /// If the node does not answer, or refuses.
    pub async fn leave(&self) -> Result<(), Failure> {
        self.ctl_ok::<serde_json::Value>(&["leave", "--yes"], "").await.map(drop)
    }

    /// Joins a network. Tries again if the node's router kept it from that.
    ///
    /// # Errors
    /// Why the node cannot, in the inner result.
    pub async fn join(&self, code: &str) -> Result<Result<NetworkStatus, CtlError>, Failure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let joined = self.ctl_json::<Joined>(&["join", "--yes"], code).await?;
            match joined {
                // On a busy machine nothing reaches an emissary router now and then for a minute and more after its start,
                // answers of the network's database neither.
                Err(error)
                    if attempts < JOINS && ROUTERS_FAULT.iter().any(|it| error.message.contains(it)) =>
                {
                    eprintln!("{}: {}; it tries again", self.name, error.message);
                }
                joined => return Ok(joined.map(|document| document.network)),
            }
        }
    }

    /// Joins a network by a new invite of one of its members.
    ///
    /// # Errors
    /// If the one cannot invite or the other cannot join.
    pub async fn join_by(&self, inviter: &Self) -> Result<NetworkStatus, Failure> {
        self.join_with(inviter, &[]).await
    }

    /// The same by an invite with these options.
    ///
    /// # Errors
    /// If the one cannot invite or the other cannot join.
    pub async fn join_with(&self, inviter: &Self, options: &[&str]) -> Result<NetworkStatus, Failure> {
        let code = inviter.invite(options).await?;
        let joined = self.join(&code).await?;
        joined.map_err(|error| self.failure(&format!("it cannot join: {}", error.message)))
    }

    /// The node's place in its network.
    ///
    /// # Errors
    /// If it is in none.
    pub async fn network(&self) -> Result<NetworkStatus, Failure> {
        self.status().await?.network.ok_or_else(|| self.failure("it is in no network"))
    }

    /// The node's IPv4 address in its network.
    ///
    /// # Errors
    /// If it is in none.
    pub async fn address(&self) -> Result<IpAddr, Failure> {
        Ok(self.network().await?.ipv4.into())
    }

    /// Process id of a daemon, once the node knows it.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn daemon_pid(&self, name: &str) -> Result<u32, Failure> {
        let pid = async |node: &Self| {
            let status = node.status().await?;
            Ok::<_, Failure>(
                status.daemons.iter().find(|daemon| daemon.name == name).and_then(|daemon| daemon.pid),
            )
        };
        self.until(&format!("{name} runs"), DAEMON_DEADLINE, async |node| Ok(pid(node).await?.is_some()))
            .await?;
        pid(self).await?.ok_or_else(|| self.failure(&format!("{name} does not run")))
    }

    /// The processes of its daemons and their supervisor.
    ///
    /// # Errors
    /// If they cannot be looked for.
    pub fn processes(&self) -> Result<Vec<u32>, Failure> {
        let [keyd, meshd, tund] = self.uids;
        let (rpc, web, names) = (self.rpc_uid, self.web_uid, self.names_uid);
        let uids = [keyd, meshd, tund, rpc, web, names, self.router_uid, self.connector_uid];
        let mut pids: Vec<u32> = self.supervisor_pid().into_iter().collect();
        for entry in std::fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            pids.extend(pid.filter(|pid| credentials(*pid).is_ok_and(|(user, _)| uids.contains(&user))));
        }
        Ok(pids)
    }

    /// The index that the kernel has given the node's interface.
    ///
    /// # Errors
    /// If there is none.
    pub async fn interface_index(&self) -> Result<u32, Failure> {
        let args = [OsString::from("/proc/net/if_inet6")];
        let output = Spawn::new(Path::new("/bin/cat"), args).namespace(Some(&self.name)).output("").await?;
        let line = output.stdout.lines().find(|line| line.ends_with(" i2plan0"));
        let index = line.and_then(|line| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok());
        index.ok_or_else(|| self.failure("it has no interface"))
    }

    /// Waits until the node's sessions are open.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn ready(&self) -> Result<(), Failure> {
        self.until("its SAM sessions are open", READY_DEADLINE, async |node| {
            Ok(node.status().await?.sessions_are_open())
        })
        .await
    }

    /// What the laboratory's router for it is; none if it has its own.
    #[must_use]
    pub fn router_kind(&self) -> Option<RouterKind> {
        self.router.as_ref().map(Router::kind)
    }

    /// The routers of the network that it is on.
    #[must_use]
    pub fn routers(&self) -> Routers {
        self.routers
    }

    /// Whether a session of another router soon finds both of the node's destinations.
    async fn is_found_by(&self, witness: &mut Witness) -> Result<bool, Failure> {
        let sam = self.status().await?.sam;
        for name in [sam.control.destination, sam.data.destination].into_iter().flatten() {
            let deadline = Instant::now() + FOUND_DEADLINE;
            while witness.look_up(&name).await?.is_none() {
                if Instant::now() > deadline {
                    return Ok(false);
                }
                tokio::time::sleep(wait::POLL).await;
            }
        }
        Ok(true)
    }

    /// Waits until something is so. The deadline is for emissary's routers; on others it is [longer](Routers::patience).
    ///
    /// # Errors
    /// If it does not become so in time; with why the last look at it failed, if it did.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl AsyncFn(&Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let outcome =
            wait::until(what, deadline * self.routers.patience(), async || condition(self).await).await;
        outcome.map_err(|failure| self.failure(&failure.to_string()))
    }

    /// Runs one of the laboratory's probes in the node's namespace and reads what it measured.
    ///
    /// # Errors
    /// If the probe fails.
    pub async fn probe<T: DeserializeOwned>(&self, args: &[String]) -> Result<T, Failure> {
        let output = Spawn::this_program(args.iter().map(OsString::from))
            .namespace(Some(&self.name))
            .output("")
            .await?;
        if !output.status.success() {
            return Err(Failure::new(format!("node {}: {}", self.name, output.stderr.trim())));
        }
        serde_json::from_str(&output.stdout)
            .map_err(|error| Failure::new(format!("a probe printed no result: {error}")))
    }

    /// Starts one of the laboratory's probes in the node's namespace, to read its lines.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_probe(&self, args: &[String]) -> Result<Child, Failure> {
        Spawn::this_program(args.iter().map(OsString::from)).namespace(Some(&self.name)).wait_for_line()
    }
}

/// Memory of a process that is in use, bytes (`VmRSS` of proc(5)).
///
/// # Errors
/// If there is no such process.
pub fn resident(pid: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map(|count| count * 1024).ok_or_else(|| Failure::new(format!("process {pid} has no memory")))
}

/// Processor time that a process, or a thread as `PID/task/TID`, has taken, seconds.
///
/// # Errors
/// If there is no such process.
pub fn processor_time(process: &str) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program, in brackets, may have spaces in it; times are the 14th and the 15th field.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS)
}

/// Ticks of a second in /proc, on every architecture that Rust's standard library has been ported to.
const TICKS: f64 = 100.0;

/// Open descriptors of a process.
///
/// # Errors
/// If there is no such process, or this one may not see them.
pub fn descriptors(pid: u32) -> Result<usize, Failure> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// The process of a user that has only one.
///
/// # Errors
/// If there is none, or this one may not look.
pub fn process_of(uid: u32) -> Result<u32, Failure> {
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && credentials(pid).is_ok_and(|(user, _)| user == uid)
        {
            return Ok(pid);
        }
    }
    Err(Failure::new(format!("user {uid} has no process")))
}

/// User and effective capabilities of a process.
///
/// # Errors
/// If there is no such process.
pub fn credentials(pid: u32) -> Result<(u32, u64), Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()).map(ToOwned::to_owned)
    };
    let uid = field("Uid").and_then(|uid| uid.parse().ok());
    let capabilities = ["CapPrm", "CapEff", "CapInh", "CapAmb"]
        .map(|name| field(name).and_then(|set| u64::from_str_radix(&set, 16).ok()));
    let capabilities = capabilities.into_iter().try_fold(0, |all, set| set.map(|set| all | set));
    uid.zip(capabilities).ok_or_else(|| Failure::new(format!("cannot read the credentials of process {pid}")))
}
