//! `i2plan-keyd`.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_ipc::Role;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::bridge::{Bridge, BridgeAddress, parse_udp_port};
use i2plan_ipc::daemon::activation::into_tokio;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::{self, End, Parsed};
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::state_dir::StateDirError;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::daemon::{activation, descriptors, hardening, logging, users};
use i2plan_ipc::passphrase::{Passphrase, PassphraseError};
use i2plan_ipc::paths;
use i2plan_ipc::rate::Quota;
use i2plan_ipc::server::{ConnectionLimits, serve};
use i2plan_ipc::version::build;
use i2plan_keyd::keys::Keys;
use i2plan_keyd::policy::Signer;
use i2plan_keyd::sandbox;
use i2plan_keyd::seal::SealError;
use i2plan_keyd::service::{Keyd, Purpose};
use i2plan_keyd::session::{Login, MAX_TUNNEL_LENGTH};
use i2plan_keyd::store::{Seal, Store, StoreError, StoredKeys};
use i2plan_keyd::unlock::{self, Descriptor, SAM_PASSWORD, WIREGUARD_KEY};
use lexopt::ValueExt as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tracing::{info, warn};

const HELP: &str = "\
i2plan-keyd: holds the private keys of an i2plan node, and signs

Usage: i2plan-keyd [OPTIONS]

Started by a service manager or by `i2planctl up`, which hand it its listening sockets.

Options:
      --store DIR            directory of the keys (default: $STATE_DIRECTORY, or /var/lib/i2plan/keyd)
      --sam-address HOST:PORT
                             the only SAM bridge that sessions are opened at (default: 127.0.0.1:7656)
      --sam-udp-port PORT    where that bridge takes datagrams, or auto (default: auto)
      --sam-user USER        the user that a bridge with a password wants, or none (default: none)
      --tunnel-length HOPS   the fewest hops of I2P tunnels, 0 to 7, whatever meshd asks (default: 1)
      --meshd-user USER      name or number of the user that meshd runs as (default: i2plan-meshd)
      --tund-user USER       name or number of the user that tund runs as (default: i2plan-tund)
      --connector-user USER  name or number of the user that the connector runs as (default: i2plan-connector)
      --rpc-user USER        likewise of rpcd (default: i2plan-rpc), which may not send orders
      --rpc-orders BOOL      whether rpcd may send orders all the same (default: false)
      --refuse USER          another user who may not send orders; may be repeated
      --listen DIR           make the listening sockets in this directory (keyd-meshd.sock, keyd-tund.sock,
                             keyd-connector.sock), if none are handed over
      --listen-control PATH  make the listening socket for orders, if none is handed over
      --static               the keys are those of a static interface, and of no member of a mesh
      --passphrase-fd N      read the passphrase of the keys from this descriptor, up to the end of the line
  -h, --help
  -V, --version

A passphrase is else read from $CREDENTIALS_DIRECTORY/passphrase, if there is one, and else asked for, if
standard input is a terminal. New keys are sealed if there is a passphrase.

With --static a WireGuard private key, which the supervisor may pass as wireguard-key, is kept in the store in place of
the one that is there.

The password of --sam-user is read from the descriptor that its supervisor passes as sam-password, or else from
$CREDENTIALS_DIRECTORY/sam-password.

Maintenance, while no keyd uses the keys:
      --check                tell whether the keys can be read and are sealed; root can do this too, of a backup
      --change-passphrase    seal the keys with a new passphrase, sealed or not as they are
      --new-passphrase-fd N  read the new passphrase from this descriptor; else it is asked for
      --remove-passphrase    store the keys unsealed

Exit status: 1 failed; 2 the command line or the configuration is wrong; 3 the keys are sealed, and the passphrase
is missing or another one; 4 another keyd uses them.

Environment: I2PLAN_LOG (error, warn, info, debug, or target=level,...), I2PLAN_LOG_FORMAT (text, json, journal),
DEBUG_I2P, WARNFAIL_I2P, NO_COLOR.
";

/// Exit status for sealed keys that cannot be opened.
const LOCKED: u8 = 3;

/// Exit status for keys that another process holds.
const BUSY: u8 = 4;

/// What keyd grants to those who send orders: few connections, and requests below what the other sockets get. Evidence of
/// a thousand members is about 350 requests, and each takes keyd about a millisecond.
const ORDERS: ConnectionLimits = ConnectionLimits { shared: 8, reserved: 2, requests: Quota::new(40, 400) };

fn main() -> ExitCode {
    program::run(build!(), "i2plan-keyd", HELP, parse(), start)
}

fn not_unlocked(error: PassphraseError) -> End {
    let end = End::failed(&error);
    if matches!(error, PassphraseError::Interrupted) { end } else { end.with_status(LOCKED) }
}

fn not_opened(error: StoreError) -> End {
    match error {
        StoreError::Seal { source: SealError::Passphrase, .. } => End::failed(error).with_status(LOCKED),
        StoreError::Directory(StateDirError::InUse { .. }) => End::failed(error).with_status(BUSY),
        _ => End::failed(error),
    }
}

struct Args {
    store: PathBuf,
    sam: BridgeAddress,
    sam_udp_port: Option<u16>,
    sam_user: Option<String>,
    tunnel_length: u8,
    meshd: String,
    tund: String,
    connector: String,
    rpc: String,
    rpc_orders: bool,
    refused: Vec<String>,
    listen: Option<PathBuf>,
    listen_control: Option<PathBuf>,
    purpose: Purpose,
    passphrase_fd: Option<i32>,
    new_passphrase_fd: Option<i32>,
    maintenance: Option<Maintenance>,
}

/// What is done to the keys instead of serving them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maintenance {
    Check,
    ChangePassphrase,
    RemovePassphrase,
}

fn parse() -> Result<Parsed<Args>, lexopt::Error> {
    let args = Args {
        store: std::env::var_os("STATE_DIRECTORY")
            .map_or_else(|| Path::new(paths::STATE_DIR).join("keyd"), PathBuf::from),
        sam: BridgeAddress::DEFAULT,
        sam_udp_port: None,
        sam_user: None,
        tunnel_length: 1,
        meshd: "i2plan-meshd".to_owned(),
        tund: "i2plan-tund".to_owned(),
        connector: "i2plan-connector".to_owned(),
        rpc: "i2plan-rpc".to_owned(),
        rpc_orders: false,
        refused: ["i2plan-routerd", "i2plan-web", "i2plan-names"].map(str::to_owned).into(),
        listen: None,
        listen_control: None,
        purpose: Purpose::Mesh,
        passphrase_fd: None,
        new_passphrase_fd: None,
        maintenance: None,
    };
    let mut maintenance = Vec::new();
    let parsed = program::parse(std::env::args_os().skip(1), args, |args, name, parser| {
        match name {
            "store" => args.store = parser.value()?.into(),
            "sam-address" => args.sam = parser.value()?.parse()?,
            "sam-udp-port" => args.sam_udp_port = parser.value()?.parse_with(parse_udp_port)?,
            // Empty where the environment of a service does not say.
            "sam-user" => {
                let user = parser.value()?.string()?;
                args.sam_user = Some(user).filter(|user| !matches!(user.as_str(), "" | "none"));
            }
            "tunnel-length" => {
                args.tunnel_length = parser.value()?.parse()?;
                if args.tunnel_length > MAX_TUNNEL_LENGTH {
                    return Err(format!(
                        "--tunnel-length: {} is too many (0 to {MAX_TUNNEL_LENGTH} hops)",
                        args.tunnel_length
                    )
                    .into());
                }
            }
            "meshd-user" => args.meshd = parser.value()?.string()?,
            "tund-user" => args.tund = parser.value()?.string()?,
            "connector-user" => args.connector = parser.value()?.string()?,
            "rpc-user" => args.rpc = parser.value()?.string()?,
            // Empty where the environment of a service does not say.
            "rpc-orders" => {
                args.rpc_orders = match parser.value()?.string()?.as_str() {
                    "true" => true,
                    "false" | "" => false,
                    other => return Err(format!("--rpc-orders: {other:?} is neither true nor false").into()),
                };
            }
            "refuse" => args.refused.push(parser.value()?.string()?),
            "listen-control" => args.listen_control = Some(parser.value()?.into()),
            "listen" => args.listen = Some(parser.value()?.into()),
            "static" => args.purpose = Purpose::Static,
            "passphrase-fd" => args.passphrase_fd = Some(parser.value()?.parse()?),
            "new-passphrase-fd" => args.new_passphrase_fd = Some(parser.value()?.parse()?),
            "check" => maintenance.push(Maintenance::Check),
            "change-passphrase" => maintenance.push(Maintenance::ChangePassphrase),
            "remove-passphrase" => maintenance.push(Maintenance::RemovePassphrase),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut args = match parsed {
        Parsed::Run(args) => args,
        other => return Ok(other),
    };
    if maintenance.len() > 1 {
        return Err("--check, --change-passphrase and --remove-passphrase exclude each other".into());
    }
    args.maintenance = maintenance.pop();
    if args.new_passphrase_fd.is_some() && args.maintenance != Some(Maintenance::ChangePassphrase) {
        return Err("--new-passphrase-fd is for --change-passphrase".into());
    }
    if args.passphrase_fd.is_some() && args.passphrase_fd == args.new_passphrase_fd {
        return Err("the passphrase and the new one cannot come from the same descriptor".into());
    }
    Ok(Parsed::Run(args))
}

fn start(mut args: Args) -> Result<(), End> {
    // First of all: nothing else has been opened yet that could have these numbers.
    let take = |number: Option<i32>| number.map(Descriptor::take).transpose().map_err(End::usage);
    let (passphrase, new) = (take(args.passphrase_fd)?, take(args.new_passphrase_fd)?);
    hardening::harden()?;
    logging::init()?;
    if args.maintenance == Some(Maintenance::Check) && rustix::process::geteuid().is_root() {
        users::become_owner(&args.store)
            .map_err(|error| End::failed(format!("cannot use {}: {error}", args.store.display())))?;
        args.store = PathBuf::from(".");
    }
    program::refuse_root()?;
    let runtime = program::runtime()?;
    // Waited for from the start, so that one that comes while the terminal does not show what is typed does not leave it so.
    let signals = runtime.block_on(async { Signals::and(&[SignalKind::hangup(), SignalKind::quit()]) })?;
    match args.maintenance {
        None => serve_keys(args, PassphraseSource { runtime, signals, passphrase }),
        Some(what) => maintain(what, &args.store, PassphraseSource { runtime, signals, passphrase }, new),
    }
}

fn serve_keys(args: Args, mut source: PassphraseSource) -> Result<(), End> {
    let own = rustix::process::geteuid().as_raw();
    let meshd = users::user_id(&args.meshd).map_err(End::usage)?;
    let tund = users::user_id(&args.tund).map_err(End::usage)?;
    let connector = users::user_id(&args.connector).map_err(End::usage)?;
    if BTreeSet::from([own, meshd, tund, connector]).len() < 4 {
        return Err(End::usage("keyd, meshd, tund and the connector must run as four different users"));
    }
    // The users of services that are not installed need not exist.
    let refused = args.refused.iter().chain((!args.rpc_orders).then_some(&args.rpc));
    let refused = refused.filter_map(|user| users::user_id(user).ok()).chain([own, meshd, tund, connector]);
    let administrators = Who::AnyoneBut(refused.collect());
    let of_user =
        |name, role, user| (name, Access::new([(role, Who::User(user))]), ConnectionLimits::default());
    let accesses = [
        of_user("meshd socket", Role::Meshd, meshd),
        of_user("tund socket", Role::Tund, tund),
        of_user("connector socket", Role::Connector, connector),
        ("control socket", Access::new([(Role::Client, administrators)]), ORDERS),
    ];
    hardening::lock_memory();
    let supervisor = Supervisor::of_this_process();
    // Before the sandbox, which lets no socket be made. What is wrong with them is said when the keys are there.
    let made = |name: &str| args.listen.as_deref().map(|dir| dir.join(format!("keyd-{name}.sock")));
    let (listeners, [password, static_key]) = activation::listeners_and(
        [
            ("meshd", made("meshd")),
            ("tund", made("tund")),
            ("connector", made("connector")),
            ("control", args.listen_control.clone()),
        ],
        [SAM_PASSWORD, WIREGUARD_KEY],
    );
    // Only the connector passes any.
    for (listener, (name, ..)) in listeners.iter().flatten().zip(&accesses) {
        if *name != "connector socket" {
            descriptors::refuse(listener);
        }
    }
    // A directory that cannot be used is not waited for: what is mounted there later, only a later process of a service
    // sees. Its supervisor starts that.
    let store = Store::open(&args.store).map_err(not_opened)?;
    enter_sandbox(&args.store)?;
    let login = login(args.sam_user, password)?;
    let static_key = static_key.map(unlock::wireguard_key).transpose();
    let static_key = static_key.map_err(|error| End::usage(format!("{WIREGUARD_KEY}: {error}")))?;
    let Opened { mut keys, passphrase } = match store.load().map_err(End::failed)? {
        Some(stored) => source.open(&store, stored)?,
        None => {
            let passphrase = match source.given()? {
                Some(passphrase) => Some(passphrase),
                None => source.ask_new()?,
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            let keys = store.create(now, passphrase.as_ref().map(Seal::new)).map_err(End::failed)?;
            info!(node = %keys.node(), sealed = passphrase.is_some(), "made the keys of a new node");
            Opened { keys, passphrase }
        }
    };
    let sealed = passphrase.is_some();
    if static_key.is_some_and(|key| keys.import_static(&key)) {
        store.replace(&keys, passphrase.as_ref().map(Seal::new)).map_err(End::failed)?;
        info!(sealed, "imported a WireGuard private key");
    }
    drop(passphrase);
    let (memory, delegations, files) = store.open_memory(&keys.node()).map_err(End::failed)?;
    info!(node = %keys.node(), sealed, "ready");
    let listeners = listeners?;
    let PassphraseSource { runtime, mut signals, .. } = source;
    runtime.block_on(async {
        let listeners = listeners.into_iter().map(into_tokio).collect::<Result<Vec<_>, _>>()?;
        sandbox::before_serving()?;
        supervisor.ready();
        supervisor.status(&format!("holds the keys of node {}", keys.node()));
        let signer = Signer::new(keys, sealed, memory, delegations, Box::new(files));
        let bridge = Bridge { address: args.sam, udp_port: args.sam_udp_port };
        let service = Arc::new(Keyd::new(signer, bridge, args.tunnel_length, login, args.purpose));
        let mut tasks = Tasks::default();
        for (listener, (name, access, limits)) in listeners.into_iter().zip(accesses) {
            tasks.spawn(name, serve(listener, Arc::clone(&service), access, limits));
        }
        let mut watchdog = Watchdog::of_this_process();
        loop {
            tokio::select! {
                _ = signals.next() => break,
                ended = tasks.ended() => return Err(ended.into()),
                () = watchdog.due() => supervisor.alive(),
            }
        }
        supervisor.stopping(Duration::ZERO);
        Ok(())
    })
}

/// From here on nothing but the store can be opened, and the secrets that the service manager lends.
fn enter_sandbox(store: &Path) -> Result<(), End> {
    Ok(sandbox::before_the_store(store, credentials().as_deref())?)
}

fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// What the SAM bridge is told of this node, if it wants to know.
fn login(user: Option<String>, passed: Option<OwnedFd>) -> Result<Option<Login>, End> {
    let password = unlock::sam_password(passed, credentials().as_deref());
    let password = password.map_err(|error| End::usage(format!("password of the SAM bridge: {error}")))?;
    match (user, password) {
        (Some(user), Some(password)) => Login::new(user, password).map(Some).map_err(End::usage),
        (None, None) => Ok(None),
        (Some(_), None) => Err(End::usage(
            "there is a user for the SAM bridge and no password: set i2p.sam_password_file, or as a service the \
             credential sam-password",
        )),
        (None, Some(_)) => Err(End::usage(
            "there is a password for the SAM bridge and no user: set i2p.sam_user, or as a service I2PLAN_SAM_USER",
        )),
    }
}

fn maintain(
    what: Maintenance,
    path: &Path,
    mut source: PassphraseSource,
    new: Option<Descriptor>,
) -> Result<(), End> {
    hardening::lock_memory();
    let store = Store::open_existing(path).map_err(not_opened)?;
    enter_sandbox(path)?;
    let Some(stored) = store.load().map_err(End::failed)? else {
        return Err(End::failed(StoreError::Missing { path: path.to_owned() }));
    };
    let Opened { keys, passphrase } = source.open(&store, stored)?;
    let (node, sealed) = (keys.node(), passphrase.is_some());
    match what {
        Maintenance::Check => {
            println!("the keys of node {node} are {}", if sealed { "sealed" } else { "not sealed" });
        }
        Maintenance::ChangePassphrase => {
            let passphrase = match new {
                Some(new) => {
                    Some(new.read().map_err(|error| End::usage(format!("new passphrase: {error}")))?)
                }
                None => source.ask_new()?,
            };
            let passphrase = passphrase.ok_or_else(|| {
                End::usage("there is no new passphrase: name a descriptor by --new-passphrase-fd, or start in a terminal")
            })?;
            store.replace(&keys, Some(Seal::new(&passphrase))).map_err(End::failed)?;
            println!("the keys of node {node} are sealed with the new passphrase");
        }
        Maintenance::RemovePassphrase => {
            store.replace(&keys, None).map_err(End::failed)?;
            println!("the keys of node {node} are not sealed any more");
        }
    }
    Ok(())
}

/// Keys that were read from a store.
struct Opened {
    keys: Keys,
    /// The passphrase that was needed.
    passphrase: Option<Passphrase>,
}

/// Where a passphrase comes from.
struct PassphraseSource {
    runtime: Runtime,
    signals: Signals,
    passphrase: Option<Descriptor>,
}

impl PassphraseSource {
    /// The passphrase that whoever started this process has given.
    fn given(&mut self) -> Result<Option<Passphrase>, End> {
        match (self.passphrase.take(), std::env::var_os("CREDENTIALS_DIRECTORY")) {
            (Some(descriptor), _) => descriptor.read().map(Some),
            (None, Some(directory)) => unlock::credential(Path::new(&directory)),
            (None, None) => Ok(None),
        }
        .map_err(not_unlocked)
    }

    fn ask_new(&mut self) -> Result<Option<Passphrase>, End> {
        self.runtime.block_on(unlock::ask_new(self.signals.next())).map_err(not_unlocked)
    }

    fn open(&mut self, store: &Store, stored: StoredKeys) -> Result<Opened, End> {
        let given = self.given()?;
        match stored {
            StoredKeys::Plain(keys) => {
                if given.is_some() {
                    warn!(
                        "the keys are not sealed, though there is a passphrase: seal them by --change-passphrase"
                    );
                }
                Ok(Opened { keys, passphrase: None })
            }
            StoredKeys::Sealed(sealed) => {
                let passphrase = match given {
                    Some(passphrase) => Some(passphrase),
                    None => self.runtime.block_on(unlock::ask(self.signals.next())).map_err(not_unlocked)?,
                };
                let passphrase = passphrase.ok_or_else(|| {
                    End::failed(
                        "the keys are sealed and there is no passphrase: name a descriptor by --passphrase-fd, pass the \
                         systemd credential `passphrase`, or start in a terminal",
                    )
                    .with_status(LOCKED)
                })?;
                let keys = store.unseal(&sealed, &passphrase).map_err(not_opened)?;
                Ok(Opened { keys, passphrase: Some(passphrase) })
            }
        }
    }
}
