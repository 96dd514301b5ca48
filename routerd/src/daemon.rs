//! The process around the router.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emissary_core::events::{Event, EventSubscriber};
use emissary_core::runtime::Storage;
use emissary_core::{BandwidthConfig, Config, Ntcp2Config, Profile, SamConfig, Ssu2Config, TransitConfig};
use i2plan_ipc::bridge::BridgeAddress;
use i2plan_ipc::daemon::hardening;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::sandbox::SandboxError;
use i2plan_ipc::daemon::signals::Signals;
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::identity::Identity;
use crate::known::KnownRouters;
use crate::router;
use crate::runtime::broken;
use crate::sandbox;
use crate::seed::{self, SeedError, fetch};
use crate::store::{Store, StoreError};
use crate::{EVENTS_EVERY, PUBLIC_NETWORK};

/// Others' tunnels that are carried at once, if any are.
const MAX_TRANSIT_TUNNELS: usize = 500;

/// What of the bandwidth others' tunnels may take.
const TRANSIT_SHARE: f64 = 0.5;

/// The longest datagrams that are sent to other routers, bytes with their headers: what gets through PPPoE and most
/// tunnels in one piece.
const SSU2_MTU: usize = 1400;

/// How often it is looked how the router does.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// With fewer fresh routers than this, reseed servers are asked.
const FEW: usize = 25;

/// The option that makes the program fetch a seed and print it.
pub const FETCH: &str = "--fetch-seed";

/// How long that may take, and how long it is until the next attempt.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);
const FETCH_RETRY: Duration = Duration::from_secs(60);

/// What the router is to be.
#[derive(Debug)]
pub struct Options {
    /// Its directory.
    pub state: PathBuf,
    /// The network's id.
    pub network: u8,
    /// Where its SAM bridge listens, an address of this host only.
    pub sam: SocketAddr,
    /// That bridge's UDP port.
    pub sam_udp_port: u16,
    /// Its port, TCP and UDP; 0 for one that is free.
    pub port: u16,
    /// The address at which others reach it; none to find out.
    pub address: Option<Ipv4Addr>,
    /// A file or directory of routers to begin with.
    pub seed: Option<PathBuf>,
    /// Whether reseed servers are asked if few routers are known.
    pub reseed: bool,
    /// Bytes a second, in each direction.
    pub bandwidth: u32,
    /// Whether it carries others' tunnels.
    pub transit: bool,
}

/// Why the router ends other than by request.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The seed is of no use.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// There is nobody to speak with.
    #[error(
        "no other router is known: name a seed (router.seed), or let reseed servers be asked (router.reseed)"
    )]
    Alone,
    /// A port is taken.
    #[error("cannot listen on {transport} {address} ({key}): {source}; does another I2P router run here?")]
    Port {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// Where.
        address: SocketAddr,
        /// The configuration's key for it.
        key: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The SAM bridge would be open to others.
    #[error(
        "i2p.sam_address is {0}, and the router's SAM bridge is for this host alone: 127.0.0.1:7656 for example"
    )]
    SamAddress(BridgeAddress),
    /// emissary does not start it.
    #[error("the router does not start: {0}")]
    Router(String),
    /// It has ended by itself.
    #[error("the router has ended")]
    Ended,
    /// A part of it is missing.
    #[error("a part of the router has panicked")]
    Broken,
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The system refuses something basic.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

impl From<DaemonError> for End {
    fn from(error: DaemonError) -> Self {
        match error {
            // Starting again would not help until somebody changes the configuration.
            DaemonError::Seed(_) | DaemonError::Alone | DaemonError::SamAddress(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// Where the router's SAM bridge listens, if the node is configured with this one.
///
/// # Errors
/// [`DaemonError::SamAddress`] if that is not 127.0.0.0/8.
pub fn sam(address: &BridgeAddress) -> Result<SocketAddr, DaemonError> {
    let own = address.host.known().into_iter().flatten().find(|ip| ip.is_ipv4() && ip.is_loopback());
    own.map(|ip| SocketAddr::new(ip, address.port)).ok_or_else(|| DaemonError::SamAddress(address.clone()))
}

/// Runs until the process is asked to stop.
///
/// # Errors
/// [`DaemonError`].
pub async fn run(options: Options) -> Result<(), DaemonError> {
    let mut signals = Signals::new()?;
    let supervisor = Supervisor::of_this_process();
    if options.network != PUBLIC_NETWORK {
        warn!(
            network = options.network,
            "this router is one of a private network for tests: it gives no anonymity"
        );
    }
    hardening::lock_memory();
    let store = Store::open(&options.state)?;
    let identity = store.identity()?;
    let keeper = Arc::new(Keeper::new(store, options.network)?);
    read_seed(&keeper, &options)?;
    let fetched = tokio::select! {
        fetched = fetch_if_needed(&options, &keeper, supervisor) => fetched?,
        _ = signals.next() => return Ok(()),
    };
    sandbox::before_the_network(&options.state, [options.port, options.sam.port()])?;

    if let Some(printed) = fetched {
        let count = keeper.change(|known| fetch::learn(&printed, known));
        info!(routers = count, "learnt from reseed servers");
    }
    if keeper.len() == 0 {
        return Err(DaemonError::Alone);
    }
    if keeper.fresh() == 0 {
        warn!(
            "no router that is known has spoken within two weeks: they may all be gone; a new seed would help"
        );
    }
    check_ports(&options)?;
    let (routers, profiles) = lock(&keeper.known).for_the_router();
    let config = configuration(&options, &identity, routers, profiles);
    let started = router::start(config, Some(Arc::clone(&keeper) as Arc<dyn Storage>)).await;
    let (mut router, events, _) = started.map_err(|error| DaemonError::Router(error.to_string()))?;
    info!(sam = %options.sam, known = keeper.len(), "the router is up");
    supervisor.ready();

    let mut status = Status { events, connected: None };
    let mut look = interval(STATUS_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut broken = pin!(broken());
    let mut watchdog = Watchdog::of_this_process();
    loop {
        tokio::select! {
            // Sessions with other routers are not ended in an orderly way: that takes emissary ten minutes, for tunnels
            // of others, which come to terms with a router that is gone.
            _ = signals.next() => break,
            () = &mut router => return Err(DaemonError::Ended),
            () = &mut broken => return Err(DaemonError::Broken),
            () = watchdog.due() => supervisor.alive(),
            _ = look.tick() => {
                keeper.save_again();
                supervisor.status(&status.look(&keeper, options.sam));
            }
        }
    }
    supervisor.stopping(Duration::ZERO);
    Ok(())
}

/// What the seed knows is on disk then: the next start needs no seed.
fn read_seed(keeper: &Keeper, options: &Options) -> Result<(), DaemonError> {
    let Some(seed) = &options.seed else { return Ok(()) };
    match keeper.change(|known| seed::read(seed, known, now())) {
        Ok(count) => info!(seed = %seed.display(), routers = count, "read the seed"),
        // It has served its purpose.
        Err(error) if keeper.len() > 0 => warn!(%error, "going on with the routers that are known"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// What reseed servers give, if too few routers are known. Waits until some give it, if none at all are known.
async fn fetch_if_needed(
    options: &Options,
    keeper: &Keeper,
    supervisor: &Supervisor,
) -> Result<Option<Vec<u8>>, DaemonError> {
    if !options.reseed || options.network != PUBLIC_NETWORK || keeper.fresh() >= FEW {
        return Ok(None);
    }
    loop {
        supervisor.waiting("asking reseed servers for routers to begin with", FETCH_DEADLINE);
        let error = match fetch().await? {
            Ok(printed) => return Ok(Some(printed)),
            Err(error) => error,
        };
        if keeper.len() > 0 {
            warn!(error, known = keeper.len(), "going on with the routers that are known");
            return Ok(None);
        }
        warn!(error, "no seed yet; trying again");
        supervisor.waiting(&format!("no seed yet: {error}"), FETCH_RETRY);
        sleep(FETCH_RETRY).await;
    }
}

/// Runs the program that asks reseed servers. What it prints, or how it ended.
async fn fetch() -> io::Result<Result<Vec<u8>, String>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(FETCH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .env_remove("NOTIFY_SOCKET")
        .kill_on_drop(true)
        .spawn()?;
    let mut printed = Vec::new();
    let work = async {
        if let Some(output) = child.stdout.take() {
            output.take(fetch::MAX_OUTPUT as u64).read_to_end(&mut printed).await?;
        }
        child.wait().await
    };
    Ok(match timeout(FETCH_DEADLINE, work).await {
        Err(_) => Err(format!("reseed servers take longer than {} s", FETCH_DEADLINE.as_secs())),
        Ok(status) => match status? {
            status if status.success() => Ok(printed),
            status => {
                Err(format!("the program that asks reseed servers says why above, and ended with {status}"))
            }
        },
    })
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// emissary does not say which port it is that it cannot have.
fn check_ports(options: &Options) -> Result<(), DaemonError> {
    let own = SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.port));
    let sam_udp = SocketAddr::new(options.sam.ip(), options.sam_udp_port);
    for (address, key) in [(own, "router.port"), (options.sam, "i2p.sam_address")] {
        std::net::TcpListener::bind(address).map_err(|source| DaemonError::Port {
            transport: "TCP",
            address,
            key,
            source,
        })?;
    }
    for (address, key) in [(own, "router.port"), (sam_udp, "i2p.sam_udp_port")] {
        std::net::UdpSocket::bind(address).map_err(|source| DaemonError::Port {
            transport: "UDP",
            address,
            key,
            source,
        })?;
    }
    Ok(())
}

fn configuration(
    options: &Options,
    identity: &Identity,
    routers: Vec<Vec<u8>>,
    profiles: Vec<(String, Profile)>,
) -> Config {
    let private = options.network != PUBLIC_NETWORK;
    Config {
        net_id: Some(options.network),
        // Tests run a network on addresses that are nobody's, with fewer routers than safe tunnels take.
        allow_local: private,
        insecure_tunnels: private,
        bandwidth: Some(BandwidthConfig {
            bandwidth: usize::try_from(options.bandwidth).unwrap_or(usize::MAX),
            share_ratio: TRANSIT_SHARE,
        }),
        transit: options.transit.then_some(TransitConfig { max_tunnels: Some(MAX_TRANSIT_TUNNELS) }),
        router_info: Some(identity.public.clone()),
        static_key: Some(identity.encryption),
        signing_key: Some(identity.signing),
        ntcp2: Some(Ntcp2Config {
            ipv4: true,
            ipv4_host: options.address,
            ipv6: false,
            ipv6_host: None,
            iv: identity.ntcp2_iv,
            key: identity.ntcp2,
            port: options.port,
            publish: true,
            ml_kem: None,
            disable_pq: private,
        }),
        ssu2: Some(Ssu2Config {
            ipv4: true,
            ipv4_host: options.address,
            ipv4_mtu: Some(SSU2_MTU),
            ipv6: false,
            ipv6_host: None,
            ipv6_mtu: None,
            intro_key: identity.ssu2_intro,
            static_key: identity.ssu2,
            port: options.port,
            publish: true,
            ml_kem: None,
            disable_pq: private,
        }),
        refresh_interval: Some(EVENTS_EVERY),
        samv3_config: Some(SamConfig {
            tcp_port: options.sam.port(),
            udp_port: options.sam_udp_port,
            host: options.sam.ip().to_string(),
        }),
        routers,
        profiles,
        ..Config::default()
    }
}

/// Keeps what the router learns of others.
struct Keeper {
    store: Store,
    known: Mutex<KnownRouters>,
    /// Why what is known is not on disk.
    unsaved: Mutex<Option<StoreError>>,
}

impl Keeper {
    fn new(store: Store, network: u8) -> Result<Self, StoreError> {
        let known = Mutex::new(store.known(network)?);
        Ok(Self { store, known, unsaved: Mutex::default() })
    }

    fn len(&self) -> usize {
        lock(&self.known).len()
    }

    fn fresh(&self) -> usize {
        lock(&self.known).fresh(now())
    }

    /// Changes what is known, and saves it. A disk that does not take it is no reason to do without it.
    fn change<T>(&self, change: impl FnOnce(&mut KnownRouters) -> T) -> T {
        let mut known = lock(&self.known);
        let changed = change(&mut known);
        known.forget();
        self.save(&known);
        changed
    }

    fn save(&self, known: &KnownRouters) {
        let failed = self.store.save(known).err();
        let mut unsaved = lock(&self.unsaved);
        match &failed {
            Some(error) if unsaved.is_none() => {
                warn!(%error, "the known routers are not saved; trying again");
            }
            None if unsaved.is_some() => info!("the known routers are saved"),
            _ => {}
        }
        *unsaved = failed;
    }

    /// What is wrong, if something is.
    fn complaint(&self) -> Option<String> {
        lock(&self.unsaved).as_ref().map(|error| format!("after a restart fewer routers are known: {error}"))
    }

    /// Saves what could not be saved before.
    fn save_again(&self) {
        if lock(&self.unsaved).is_some() {
            self.save(&lock(&self.known));
        }
    }
}

impl Storage for Keeper {
    fn save_to_disk(&self, routers: Vec<(String, Option<Vec<u8>>, Profile)>) {
        self.change(|known| known.update(routers));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the router does, in words.
struct Status {
    events: EventSubscriber,
    /// None before emissary has said it first.
    connected: Option<usize>,
}

impl Status {
    fn look(&mut self, keeper: &Keeper, sam: SocketAddr) -> String {
        while let Some(event) = self.events.router_status() {
            if let Event::RouterStatus { transport, .. } = event {
                self.connected = Some(transport.num_connected_routers);
            }
        }
        let state = describe(self.connected, keeper.len(), sam);
        match keeper.complaint() {
            Some(complaint) => format!("{complaint}; {state}"),
            None => state,
        }
    }
}

fn describe(connected: Option<usize>, known: usize, sam: SocketAddr) -> String {
    match connected {
        None => format!("SAM at {sam}; {known} routers known"),
        Some(0) => format!(
            "SAM at {sam}; connected with no other router: is the network up, and the seed (router.seed) not too old?"
        ),
        Some(count) => format!("SAM at {sam}; connected with {count} routers; {known} known"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::{NETWORK, info};

    fn options() -> Options {
        Options {
            state: PathBuf::new(),
            network: 99,
            sam: "127.0.0.1:0".parse().unwrap(),
            sam_udp_port: 0,
            port: 0,
            address: None,
            seed: None,
            reseed: false,
            bandwidth: 50_000,
            transit: false,
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_key() {
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = here.local_addr().unwrap();
        for (options, key) in [
            (Options { sam: taken, ..options() }, "i2p.sam_address"),
            (Options { port: taken.port(), ..options() }, "router.port"),
        ] {
            let error = check_ports(&options).unwrap_err().to_string();
            assert!(error.contains("TCP") && error.contains(key), "{error}");
            assert!(error.contains("another I2P router"), "{error}");
        }
        let here = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sam_udp_port = here.local_addr().unwrap().port();
        let error = check_ports(&Options { sam_udp_port, ..options() }).unwrap_err().to_string();
        assert!(error.contains("UDP") && error.contains("i2p.sam_udp_port"), "{error}");
    }

    #[test]
    fn only_a_private_network_is_an_insecure_one() {
        let identity = Identity::generate().unwrap();
        for (network, private) in [(PUBLIC_NETWORK, false), (99, true)] {
            let options = Options { network, transit: true, ..options() };
            let config = configuration(&options, &identity, Vec::new(), Vec::new());
            assert_eq!((config.insecure_tunnels, config.allow_local), (private, private));
            assert_eq!(config.net_id, Some(network));
            assert!(!config.floodfill && config.i2cp_config.is_none() && config.metrics.is_none());
            assert!(config.transit.is_some_and(|transit| transit.max_tunnels.is_some()));
            assert_eq!(config.samv3_config.unwrap().host, "127.0.0.1");
        }
    }

    #[test]
    fn what_cannot_be_saved_is_told_and_saved_later() {
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        let keeper = Keeper::new(Store::open(dir.path()).unwrap(), NETWORK).unwrap();
        // No file can be put in the place of a directory.
        let netdb = dir.path().join("netdb");
        std::fs::create_dir(&netdb).unwrap();
        keeper.change(|known| known.learn(&info(1, NETWORK, 5))).unwrap();
        let said = keeper.complaint().unwrap();
        assert!(said.contains(netdb.to_str().unwrap()), "{said}");
        assert_eq!(keeper.len(), 1);
        std::fs::remove_dir(&netdb).unwrap();
        keeper.save_again();
        assert_eq!(keeper.complaint(), None);
        drop(keeper);
        assert_eq!(Keeper::new(Store::open(dir.path()).unwrap(), NETWORK).unwrap().len(), 1);
    }

    #[test]
    fn a_status_says_what_is_wrong() {
        let sam = options().sam;
        let says = |connected| describe(connected, 7, sam);
        assert!(says(None).ends_with("; 7 routers known"));
        assert!(says(Some(0)).contains("is the network up"));
        assert!(says(Some(3)).contains("connected with 3 routers; 7 known"));
    }
}
