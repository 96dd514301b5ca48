//! Answers meshd.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use boringtun::x25519::{PublicKey, StaticSecret};
#[cfg(target_os = "linux")]
use i2plan_ipc::api::keyd::LeaseStaticKey;
use i2plan_ipc::api::keyd::{GetTrustAnchor, KeydApi, LeaseWireGuard, TrustAnchor, WireGuardLease};
use i2plan_ipc::api::tund::{
    Configured, Ending, Interface, InterfaceFault, Limits, MAX_BATCH, Member, NewInterface, Overlap, Reply,
    Request, StaticPeerReport, Stats, TEST_TIMEOUT, Taken, TundApi,
};
#[cfg(target_os = "linux")]
use i2plan_ipc::api::tund::{MAX_STATIC_PEERS, StaticInterface};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::client::{DaemonLink, Endpoint};
use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::version::{Version, utc};
use i2plan_ipc::{ApiError, ErrorKind, Role, warn_limited};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::endpoint::Endpoint as PeerEndpoint;
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::wireguard::WireGuardCertificate;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::device::Device;
use crate::end_reason::EndReason;
use crate::fd_store::{FdStore, PeerPlace, SessionKind};
use crate::host::prefix::{HostNetwork, overlaps};
use crate::host::{self, Host};
use crate::interface::Subnets;
use crate::io::{Counted, DataPath, DataPathCommand, Turns};
use crate::roster::{Changes, Roster, SLICE, StoredMembers};
use crate::session::{Session, SessionId, Shared};
use crate::static_peers::StaticPeers;
use crate::tunnel::Tunnel;
use crate::uapi::Peers;
use crate::uapi::codec::{Change, PeerStatus};
use crate::{device, interface, privileges, sandbox};

/// How long packets that wait may still be sent at the end, as long as meshd has not said.
const DRAIN: Duration = Duration::from_secs(10);

/// The longest that meshd may have that take: what `mesh.drain_timeout` can be.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

/// What is wrong if this node's own key is not valid by the clock.
const CLOCK: &str = "the host's clock is wrong, or the WireGuard key has not been replaced in time: by the clock this \
                     node's own key may not be used, so no member is admitted";

/// Commands that may wait for the data path.
const MAX_COMMANDS: usize = 16;

/// Wait before `keyd` is asked again for the key of an interface that is there.
const LEASE_RETRY: Duration = Duration::from_millis(200);

/// The same if it has refused: it will until `meshd` asks for another epoch's, or the clock is set right.
const LEASE_REFUSED_RETRY: Duration = Duration::from_secs(5);

/// How often `keyd` is asked in which network this node is, and what it has revoked.
const TRUST_POLL: Duration = Duration::from_secs(60);

/// How often the members are kept, if they have changed. Until then a new process has to be told of new ones.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Wait before it is noted again where static peers are.
const KEEP_STATIC_EVERY: Duration = Duration::from_secs(1);

/// How long it may take until `keyd` has signed the record of a node that has just come into a network. The key is
/// certified before.
const FIRST_RECORD: Duration = Duration::from_secs(2);

/// How often the host's networks are compared with the interface's, if the system tells of no change.
const HOST_POLL: Duration = Duration::from_secs(30);

/// How long changes are gathered before they are looked at: they come in many messages.
const HOST_SETTLES: Duration = Duration::from_millis(500);

/// For how many times as long as a look takes, there is no other because something has changed.
const HOST_SHARE: u32 = 20;

/// How long an interface may differ from what it should be, before a new process puts it right.
const REPAIR_AFTER: Duration = Duration::from_secs(10);

/// How long a process lets the interface be at first: who changes it again and again does not keep packets from their way.
const REPAIR_PAUSE: Duration = Duration::from_secs(300);

/// The daemon's state.
pub struct Tund {
    supervisor: &'static Supervisor,
    host: Host,
    /// What was seen of the host when it was looked at last.
    seen: Mutex<Seen>,
    started: Instant,
    /// The session for data that was there when the process started.
    early_session: Option<SessionId>,
    keyd: DaemonLink<KeydApi>,
    /// The name of the interface.
    name: String,
    /// The address of the bridge's host, going by the last session.
    bridge_ip: std::sync::Mutex<Option<IpAddr>>,
    /// Where the sessions' sockets may lead.
    bridge: Bridge,
    /// An interface that was there when the process started, and waits for its key.
    resumable: Mutex<Option<Resumable>>,
    fd_store: FdStore,
    running: Mutex<Option<Running>>,
    /// The members, as long as the interface is up.
    roster: Mutex<Option<Roster>>,
    /// The members have changed since they were kept.
    unkept: AtomicBool,
    /// The peers of a static interface; none in a mesh.
    static_peers: Option<Mutex<StaticPeers>>,
    /// Told when one of them has moved.
    moved: Arc<Notify>,
    /// Why no member is admitted, or there is no interface with static peers.
    problem: std::sync::Mutex<Option<ApiError>>,
    /// A session for data that came before the interface.
    waiting: Mutex<Option<Session>>,
    /// The session for control messages, which is only kept here.
    control: Mutex<Option<Session>>,
    /// What peers that report are sent whatever they report, bytes a second.
    fixed_rate: Option<f64>,
    /// What meshd has told, if it has: the data path may come later.
    limits: Mutex<Option<Limits>>,
    fatal: mpsc::Sender<EndReason>,
}

/// The interface is up.
struct Running {
    /// A mesh's; none with static peers.
    interface: Option<Interface>,
    mtu: u16,
    configured: Configured,
    commands: mpsc::Sender<DataPathCommand>,
    turns: Turns,
    /// When it was last asked whether the data path works.
    seen: u64,
}

/// What the host does to the interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    overlaps: Vec<Overlap>,
    without_ipv6: bool,
    faults: Vec<InterfaceFault>,
    /// Since when there are faults.
    faulty_since: Option<Instant>,
}

/// An interface that is up but has no data path yet.
pub struct Resumable {
    /// The interface itself.
    pub device: Device,
    /// As it was asked for.
    pub interface: Interface,
    /// The epoch of the WireGuard key.
    pub epoch: u32,
    /// The members.
    pub members: StoredMembers,
}

/// What a daemon begins with.
pub struct Start {
    /// The interface of a member.
    pub interface: Option<Resumable>,
    /// An interface with static peers, and where they were.
    pub static_device: Option<(Device, Vec<PeerPlace>)>,
    /// The session for data.
    pub data: Option<Session>,
    /// The session for control messages.
    pub control: Option<Session>,
    /// Has all that kept.
    pub fd_store: FdStore,
}

impl Start {
    /// With nothing.
    #[must_use]
    pub fn fresh(supervisor: &'static Supervisor) -> Self {
        Self {
            interface: None,
            static_device: None,
            data: None,
            control: None,
            fd_store: FdStore::new(supervisor),
        }
    }
}

impl Tund {
    /// A daemon whose interface has this name, with static peers or for a mesh. `fatal` gets the reason why the process must end, should there come one.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is something else that the process is started with")]
    pub fn new(
        keyd: &Path,
        name: String,
        static_peers: Option<StaticPeers>,
        bridge: Bridge,
        supervisor: &'static Supervisor,
        host: Host,
        start: Start,
        fatal: mpsc::Sender<EndReason>,
    ) -> Self {
        Self {
            supervisor,
            host,
            seen: Mutex::new(Seen::default()),
            started: Instant::now(),
            early_session: start.data.as_ref().map(|session| session.id.clone()),
            keyd: DaemonLink::new(Endpoint::resolved(keyd, Role::Keyd), Role::Tund),
            name,
            bridge_ip: std::sync::Mutex::new(start.data.as_ref().map(Session::bridge_ip)),
            bridge,
            resumable: Mutex::new(start.interface),
            fd_store: start.fd_store,
            fixed_rate: None,
            running: Mutex::new(None),
            roster: Mutex::new(None),
            unkept: AtomicBool::new(false),
            static_peers: static_peers.map(Mutex::new),
            moved: Arc::default(),
            problem: std::sync::Mutex::new(None),
            waiting: Mutex::new(start.data),
            control: Mutex::new(start.control),
            limits: Mutex::new(None),
            fatal,
        }
    }

    /// Has it send at a rate that does not follow the paths, in bytes a second.
    #[must_use]
    pub fn with_fixed_rate(mut self, rate: Option<f64>) -> Self {
        self.fixed_rate = rate;
        self
    }

    /// Goes on with the interface that was there at the start, if there was one: as soon as `keyd` leases its key, and
    /// without a word of `meshd`.
    pub async fn resume(&self) {
        let (mut limit, started) = (LogLimit::default(), Instant::now());
        loop {
            let wanted =
                self.resumable.lock().await.as_ref().map(|kept| (kept.interface.clone(), kept.epoch));
            let Some((interface, epoch)) = wanted else { return };
            let name = interface.name.clone();
            let Err(error) = self.configure(interface.to_new(), epoch).await else { return };
            if error.kind == ErrorKind::Conflict {
                warn!(%error, "the interface is of a network that this node is not in");
                return self.give_up();
            }
            warn_limited!(limit, started.elapsed(), &error.message, "cannot go on with the interface yet");
            if error.kind == ErrorKind::Denied {
                self.find_epoch(interface.network).await;
            }
            self.supervisor.status(&format!("{name} is up, but carries nothing yet: {error}"));
            let away = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout);
            sleep(if away { LEASE_RETRY } else { LEASE_REFUSED_RETRY }).await;
        }
    }

    /// The key of the interface may have been rotated while nobody could tell: it goes on with the newest.
    async fn find_epoch(&self, network: NetworkId) {
        if let Ok(anchor) = self.anchor(network).await
            && let Some(kept) = &mut *self.resumable.lock().await
        {
            kept.epoch = anchor.epoch;
        }
    }

    /// Whether the data path, if there is one, has done something since this was asked last.
    pub async fn works(&self) -> bool {
        // Whoever holds it is at work, under a deadline.
        let Ok(mut running) = self.running.try_lock() else { return true };
        running.as_mut().is_none_or(|running| {
            let before = std::mem::replace(&mut running.seen, running.turns.count());
            before != running.seen
        })
    }

    async fn configure(&self, wanted: NewInterface, epoch: u32) -> Result<Configured, ApiError> {
        interface::check_new(&wanted)?;
        if wanted.name != self.name {
            return Err(ApiError::invalid(format!(
                "an interface {} is asked for, and tund makes none but {}",
                wanted.name, self.name
            ))
            .with_hint(
                "start meshd and tund with the same name: tun.interface, for services I2PLAN_INTERFACE in \
                 /etc/i2plan/environment",
            ));
        }
        // Nothing is held meanwhile: keyd may be slow or away.
        let lease = match self.first_lease(&wanted, epoch).await {
            Ok(lease) => lease,
            Err(error) => {
                let away = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout);
                return match &*self.running.lock().await {
                    // It was leased before.
                    Some(Running { interface: Some(interface), configured, .. })
                        if away && interface.to_new() == wanted && configured.epoch == epoch =>
                    {
                        Ok(configured.clone())
                    }
                    _ => Err(error),
                };
            }
        };
        let interface = wanted.of_member(&lease.anchor.charter, &lease.anchor.chain);
        interface::check(&interface)?;
        if let Some(Running { interface: Some(present), .. }) = &*self.running.lock().await {
            self.compare(present, &interface)?;
        }
        if let Some(resumable) = &*self.resumable.lock().await {
            self.compare(&resumable.interface, &interface)?;
        }
        // One that is there already keeps carrying packets, whatever else the host does.
        if self.local_interface().await.is_none() {
            // One of this name that is not its own is in the way in another way, which is said when it is made.
            self.check(&host::prefixes_of(&interface), Some(&interface.name)).await.inspect_err(|error| {
                self.supervisor.status(&format!("there is no interface: {error}"));
            })?;
        }
        // Held until all is done, so that there is one interface.
        let mut running = self.running.lock().await;
        if let Some(present) = &mut *running {
            if let Some(present) = &present.interface {
                self.compare(present, &interface)?;
            }
            // Another may have been asked for meanwhile; keyd leases none that is older than the newest.
            if present.configured.epoch < epoch {
                self.rotate(present, &lease).await?;
            }
            let configured = present.configured.clone();
            drop(running);
            if configured.epoch == epoch {
                self.trust(&lease.anchor).await?;
            }
            return Ok(configured);
        }
        let mut resumable = self.resumable.lock().await;
        let mut waiting = self.waiting.lock().await;
        let (device, members) = if let Some(kept) = resumable.take() {
            self.fd_store.epoch(epoch);
            (kept.device, kept.members)
        } else {
            (self.create(&interface, epoch).await?, StoredMembers::default())
        };

        let mut roster = Roster::new(&lease.anchor, members, unix_now());
        let key = StaticSecret::from(lease.private_key.0);
        let configured = Configured {
            interface: device.name().to_owned(),
            public_key: PublicKey::from(&key).to_bytes(),
            epoch,
        };
        let now = Instant::now();
        let mut tunnel = Tunnel::new(key, Some(Subnets::of(&interface)), now);
        tunnel.set_fixed_rate(self.fixed_rate);
        if let Some(limits) = *self.limits.lock().await {
            tunnel.set_limit(usize::try_from(limits.tunnels).unwrap_or(usize::MAX), now);
        }
        let Changes { set, removed } = roster.take_changes();
        tunnel.change_peers(set, &removed, now);
        tunnel.begin_all(now);
        // Peers know this session, and not that this node has lost what it had with them.
        if waiting.as_ref().is_some_and(|session| Some(&session.id) == self.early_session.as_ref()) {
            tunnel.begin_with_newcomers(now);
        }
        let (commands, turns) = self.start_path(device, tunnel, waiting.take())?;
        info!(
            interface = configured.interface,
            ipv4 = %interface.ipv4,
            ipv6 = %interface.ipv6,
            mtu = interface.mtu,
            epoch,
            "the interface is up and all privileges are given up"
        );
        self.supervisor.status(&format!("carrying packets on {}", configured.interface));
        let (mtu, interface) = (interface.mtu, Some(interface));
        *running = Some(Running { interface, mtu, configured: configured.clone(), commands, turns, seen: 0 });
        drop((running, resumable, waiting));
        *self.roster.lock().await = Some(roster);
        self.look_at_host().await;
        Ok(configured)
    }

    /// Starts the data path, with the session that there may be.
    fn start_path(
        &self,
        device: Device,
        tunnel: Tunnel,
        session: Option<Session>,
    ) -> Result<(mpsc::Sender<DataPathCommand>, Turns), ApiError> {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let path = DataPath::new(device, tunnel, receiver, Arc::clone(&self.moved))
            .map_err(|error| ApiError::internal(format!("cannot wait for the interface: {error}")))?;
        let turns = path.turns();
        let fatal = self.fatal.clone();
        tokio::spawn(async move {
            if let Err(error) = path.run().await {
                end(&fatal, EndReason::Interface(error));
            }
        });
        if let Some(session) = session {
            let (done, _) = oneshot::channel();
            // There is room: nobody else has the sender yet.
            let _ = commands.try_send(DataPathCommand::Attach(session, done));
        }
        Ok((commands, turns))
    }

    /// Brings an interface with static peers up as soon as `keyd` leases its key, and without a word of `meshd`: with the
    /// device that was there at the start, if there was one, and with peers where they were then.
    #[cfg(target_os = "linux")]
    pub async fn run_static(&self, interface: StaticInterface, mut device: Option<(Device, Vec<PeerPlace>)>) {
        let (mut limit, started) = (LogLimit::default(), Instant::now());
        while let Err(error) = self.try_static(&interface, &mut device).await {
            warn_limited!(limit, started.elapsed(), &error.message, "there is no interface yet");
            self.supervisor.status(&format!("there is no interface {} yet: {error}", interface.name));
            let away = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout);
            self.set_problem(Some(error));
            sleep(if away { LEASE_RETRY } else { LEASE_REFUSED_RETRY }).await;
        }
        self.set_problem(None);
    }

    #[cfg(target_os = "linux")]
    async fn try_static(
        &self,
        interface: &StaticInterface,
        device: &mut Option<(Device, Vec<PeerPlace>)>,
    ) -> Result<(), ApiError> {
        let StaticInterface { name, mtu, .. } = interface;
        let mtu = *mtu;
        let key = self.keyd.call(LeaseStaticKey).await.map_err(|error| {
            let mut error = error.into_api();
            error.message = format!("no WireGuard key from keyd: {}", error.message);
            error
        })?;
        let resumed = device.is_some();
        let (device, places) = match device.take() {
            Some(resumed) => resumed,
            None => {
                let device = device::create_static(interface).await?;
                self.give_up_privileges()?;
                self.fd_store.static_interface(device.as_fd());
                (device, Vec::new())
            }
        };
        let (key, now) = (StaticSecret::from(key.0), Instant::now());
        let (public_key, interface) = (PublicKey::from(&key).to_bytes(), name.clone());
        let mut tunnel = Tunnel::new(key, None, now);
        tunnel.set_limit(MAX_STATIC_PEERS, now);
        let Changes { set, removed } = match &self.static_peers {
            Some(peers) => peers.lock().await.all(places),
            None => Changes::default(),
        };
        tunnel.change_peers(set, &removed, now);
        if resumed {
            tunnel.begin_all(now);
        }
        let mut running = self.running.lock().await;
        let session = self.waiting.lock().await.take();
        let (commands, turns) = self.start_path(device, tunnel, session)?;
        info!(interface, mtu, resumed, "the interface is up and all privileges are given up");
        self.supervisor.status(&format!("carrying packets on {interface}"));
        let configured = Configured { interface, public_key, epoch: 0 };
        *running = Some(Running { interface: None, mtu, configured, commands, turns, seen: 0 });
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn set_problem(&self, problem: Option<ApiError>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// The static peers; those that are looked up by their hash have it.
    async fn static_reports(&self) -> Result<Vec<StaticPeerReport>, ApiError> {
        let mut reports = self.ask(DataPathCommand::StaticPeers).await?.unwrap_or_default();
        if let Some(peers) = &self.static_peers {
            let peers = peers.lock().await;
            for report in &mut reports {
                let wanted = || peers.configured(&report.stats.node.0).map(|hash| (hash, false));
                report.endpoint = report.endpoint.or_else(wanted);
            }
        }
        Ok(reports)
    }

    /// The router has found a destination.
    async fn note_destination(&self, endpoint: PeerEndpoint) -> Result<(), ApiError> {
        let PeerEndpoint::Destination(destination) = endpoint else {
            return Err(ApiError::invalid("a destination is expected, not its hash"));
        };
        // Held until it is done: they may be changed meanwhile.
        let peers = self.static_peers.as_ref().ok_or_else(not_static)?.lock().await;
        let changes = peers.handle_found(&destination);
        if changes != Changes::default() {
            self.ask(|done| DataPathCommand::ChangePeers(changes, done)).await?.ok_or_else(not_configured)?;
        }
        Ok(())
    }

    /// Looks from time to time what the host does to the interface. Never returns.
    pub async fn watch_host(&self) {
        let mut pause = HOST_SETTLES;
        loop {
            let poll = if self.seen.lock().await.faults.is_empty() { HOST_POLL } else { REPAIR_AFTER / 2 };
            if timeout(poll, self.host.changed()).await.is_ok() {
                sleep(pause).await;
            }
            let begun = Instant::now();
            self.look_at_host().await;
            // A router's host has a million routes, of which some change all the time.
            pause = HOST_SETTLES.max(begun.elapsed() * HOST_SHARE);
        }
    }

    /// Compares the host's networks with the interface, if it is up.
    async fn look_at_host(&self) {
        let up = self.running.lock().await.as_ref().and_then(|running| {
            let Running { interface, configured, .. } = running;
            Some((configured.interface.clone(), interface.clone()?))
        });
        let Some((name, interface)) = up else { return };
        let host = match self.read_host().await {
            Ok(host) => host,
            Err(error) => {
                debug!(%error, "the host's networks are not known");
                return;
            }
        };
        let found = if self.host.allows_overlap() {
            Vec::new()
        } else {
            overlaps(&host::prefixes_of(&interface), Some(&name), &host.networks)
        };
        let link = host.links.get(&name);
        let faults = host::faults(&interface, &name, &host);
        let mut before = self.seen.lock().await;
        let faulty_since = (!faults.is_empty()).then(|| before.faulty_since.unwrap_or_else(Instant::now));
        let without_ipv6 = match link {
            Some(link) => link.is_up && !link.has_ipv6,
            None => !host.has_address(&name, interface.ipv6.into()),
        };
        let seen = Seen { overlaps: found, without_ipv6, faults, faulty_since };
        for fault in seen.faults.iter().filter(|fault| !before.faults.contains(fault)) {
            warn!(interface = name, %fault, "another program has changed the interface");
        }
        for overlap in seen.overlaps.iter().filter(|overlap| !before.overlaps.contains(overlap)) {
            warn!(%overlap, "the host uses addresses of the mesh otherwise");
        }
        *before = seen;
        let is_due = faulty_since.is_some_and(|since| since.elapsed() >= REPAIR_AFTER);
        if is_due && self.started.elapsed() >= REPAIR_PAUSE && self.supervisor.is_there() {
            end(&self.fatal, EndReason::Changed);
        }
    }

    /// The name of the interface, if there is one.
    async fn local_interface(&self) -> Option<String> {
        let running = self.running.lock().await.as_ref().map(|running| running.configured.interface.clone());
        match running {
            Some(name) => Some(name),
            None => self.resumable.lock().await.as_ref().map(|kept| kept.device.name().to_owned()),
        }
    }

    async fn host_networks(&self) -> Result<Vec<HostNetwork>, ApiError> {
        Ok(self.read_host().await?.networks)
    }

    async fn read_host(&self) -> Result<host::Found, ApiError> {
        let found = *self.bridge_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let bridge = self.bridge.address.host.known().unwrap_or_else(|| found.into_iter().collect());
        self.host.read(&bridge).await
    }

    /// Checks that the host does not use these prefixes, or that the administrator does not mind.
    async fn check(
        &self,
        prefixes: &[host::prefix::Prefix],
        interface: Option<&str>,
    ) -> Result<(), ApiError> {
        if self.host.allows_overlap() {
            return Ok(());
        }
        Ok(host::check(prefixes, interface, &self.host_networks().await?)?)
    }

    /// Finds a subnet for a network that is to be founded.
    async fn find_subnet(&self, wanted: Ipv4Subnet) -> Result<Ipv4Subnet, ApiError> {
        if self.host.allows_overlap() {
            return Ok(wanted);
        }
        let (name, networks) = (self.local_interface().await, self.host_networks().await?);
        let check =
            |subnet| host::check(&host::prefixes_of_network(subnet, None), name.as_deref(), &networks);
        let Err(error) = check(wanted) else { return Ok(wanted) };
        wanted.alternatives().find(|subnet| check(*subnet).is_ok()).ok_or_else(|| error.into())
    }

    /// Makes the interface, and gives up all that this took.
    async fn create(&self, interface: &Interface, epoch: u32) -> Result<Device, ApiError> {
        let device = device::create(interface).await.inspect_err(|error| {
            let hint = error.hint().unwrap_or_default();
            self.supervisor.status(&format!("there is no interface: {error}; {hint}"));
        })?;
        self.give_up_privileges()?;
        self.fd_store.interface(interface, epoch, device.as_fd());
        Ok(device)
    }

    /// Gives up all that an interface took to make. If that fails, the process ends.
    fn give_up_privileges(&self) -> Result<(), ApiError> {
        privileges::drop_all().map_err(|error| {
            let answer = ApiError::internal(error.to_string());
            end(&self.fatal, EndReason::Privileges(error));
            answer
        })?;
        sandbox::before_packets().map_err(|error| {
            let answer = ApiError::internal(error.to_string());
            end(&self.fatal, EndReason::Sandbox(error));
            answer
        })
    }

    /// Ends the process if another interface is wanted than there is.
    fn compare(&self, present: &Interface, wanted: &Interface) -> Result<(), ApiError> {
        if present == wanted {
            return Ok(());
        }
        self.give_up();
        Err(ApiError::unavailable(format!(
            "the interface {} is up with another configuration; tund starts again for this one",
            present.name
        )))
    }

    /// Ends the process, with nothing kept, for the next to make another interface or none.
    fn give_up(&self) {
        self.fd_store.nothing();
        end(&self.fatal, EndReason::AnotherInterface);
    }

    /// Goes on with the key of another epoch.
    async fn rotate(&self, running: &mut Running, lease: &WireGuardLease) -> Result<(), ApiError> {
        let epoch = lease.anchor.epoch;
        let public_key = PublicKey::from(&StaticSecret::from(lease.private_key.0)).to_bytes();
        let (done, answer) = oneshot::channel();
        let gone = || ApiError::unavailable("the data path has broken down; tund is about to restart");
        running
            .commands
            .send(DataPathCommand::Rotate(lease.private_key.clone(), done))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?;
        let valid_from = utc(WireGuardCertificate::begins_at(epoch));
        info!(valid_from, "a new WireGuard key is in use");
        running.configured.public_key = public_key;
        running.configured.epoch = epoch;
        self.fd_store.epoch(epoch);
        Ok(())
    }

    async fn lease(&self, network: NetworkId, epoch: u32) -> Result<WireGuardLease, ApiError> {
        match self.keyd.call(LeaseWireGuard { network, epoch }).await {
            Ok(lease) if lease.anchor.epoch == epoch && lease.anchor.charter.network() == network => {
                Ok(lease)
            }
            Ok(_) => Err(ApiError::internal("keyd leased the key of another network or epoch")),
            Err(error) => {
                let mut error = error.into_api();
                error.message = format!("no WireGuard key from keyd: {}", error.message);
                Err(error)
            }
        }
    }

    /// What `keyd` says of the network that this node is in.
    async fn anchor(&self, network: NetworkId) -> Result<TrustAnchor, ApiError> {
        match self.keyd.call(GetTrustAnchor(network)).await {
            Ok(anchor) if anchor.charter.network() == network => Ok(anchor),
            Ok(_) => Err(ApiError::internal("keyd gave the trust anchor of another network")),
            Err(error) => Err(error.into_api()),
        }
    }

    /// A lease for a node that may just be coming into the network.
    async fn first_lease(&self, wanted: &NewInterface, epoch: u32) -> Result<WireGuardLease, ApiError> {
        let until = Instant::now() + FIRST_RECORD;
        loop {
            match self.lease(wanted.network, epoch).await {
                Err(error) if error.kind == ErrorKind::Conflict && Instant::now() < until => {
                    sleep(LEASE_RETRY).await;
                }
                result => return result,
            }
        }
    }

    /// Asks `keyd` from time to time in which network this node is, and looks where the session's socket leads. Never
    /// returns.
    pub async fn watch_trust(&self) {
        loop {
            sleep(TRUST_POLL).await;
            self.look_at_trust().await;
            // meshd hears of what is found from the statistics, and the log has it.
            let _ = self.ask(DataPathCommand::CheckSession).await;
        }
    }

    /// Goes by what `keyd` says. If this node is in another network or in none, or has another address, the process ends,
    /// and the interface, the peers and the keys with it.
    async fn look_at_trust(&self) {
        let up = self.running.lock().await.as_ref().and_then(|running| running.interface.clone());
        let Some(interface) = up else { return };
        let result = match self.anchor(interface.network).await {
            Ok(anchor) => {
                let wanted = interface.to_new().of_member(&anchor.charter, &anchor.chain);
                match self.compare(&interface, &wanted) {
                    Ok(()) => self.trust(&anchor).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) if error.kind == ErrorKind::Conflict => {
                warn!(%error, "this node is not in the network of its interface");
                self.give_up();
                Err(error)
            }
            Err(error) => {
                // No epoch of its key is in force, or the clock says so.
                self.check_clock().await;
                Err(error)
            }
        };
        if let Err(error) = result {
            debug!(%error, "keyd does not confirm the network");
        }
    }

    async fn trust(&self, anchor: &TrustAnchor) -> Result<(), ApiError> {
        if let Some(roster) = &mut *self.roster.lock().await {
            roster.trust(anchor, unix_now());
            self.apply(roster).await?;
        }
        self.check_clock().await;
        Ok(())
    }

    /// Whether members may be admitted, as far as the clock is concerned.
    async fn check_clock(&self) -> bool {
        let roster = self.roster.lock().await;
        let suspect = roster.as_ref().is_some_and(|roster| roster.is_clock_suspect(unix_now()));
        drop(roster);
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if suspect && problem.is_none() {
            warn!("by the clock this node's own WireGuard key may not be used: no member is admitted");
        }
        *problem = suspect.then(|| clock_problem(CLOCK));
        !suspect
    }

    /// Has all members do what is said, one slice at a time, so that packets have their turns.
    async fn apply(&self, roster: &mut Roster) -> Result<(), ApiError> {
        for slice in roster.to_sweep().chunks(SLICE) {
            roster.sweep(slice);
            yield_now().await;
        }
        let changes = roster.take_changes();
        if changes == Changes::default() {
            return Ok(());
        }
        // Who is banned or revoked is not to come back with a restart.
        let urgent = !changes.removed.is_empty();
        self.ask(|done| DataPathCommand::ChangePeers(changes, done)).await?.ok_or_else(not_configured)?;
        self.unkept.store(true, Ordering::Relaxed);
        if urgent {
            self.keep(roster);
        }
        Ok(())
    }

    /// Has the roster told something, and the data path what follows from that.
    async fn tell(&self, tell: impl FnOnce(&mut Roster)) -> Result<Reply, ApiError> {
        let mut roster = self.roster.lock().await;
        let roster = roster.as_mut().ok_or_else(not_configured)?;
        tell(roster);
        self.apply(roster).await?;
        Ok(Reply::Done)
    }

    /// Has the members kept if they have changed, once all are known.
    fn keep(&self, roster: &Roster) {
        if !roster.is_syncing() && self.unkept.swap(false, Ordering::Relaxed) && self.supervisor.is_there() {
            self.fd_store.members(roster.to_stored());
        }
    }

    /// Has the members kept from time to time: to write thousands of them takes longer than a packet should wait. Where
    /// static peers are, who are few, is kept as soon as they move: nobody tells the next process if the file does not.
    /// Never returns.
    pub async fn watch_members(&self) {
        loop {
            if self.static_peers.is_some() {
                self.moved.notified().await;
                self.keep_members().await;
                sleep(KEEP_STATIC_EVERY).await;
            } else {
                sleep(KEEP_EVERY).await;
                self.keep_members().await;
            }
        }
    }

    async fn keep_members(&self) {
        if self.static_peers.is_some()
            && self.supervisor.is_there()
            && let Ok(Some(places)) = self.ask(DataPathCommand::StaticPlaces).await
        {
            self.fd_store.destinations(places);
        }
        if let Some(roster) = &*self.roster.lock().await {
            self.keep(roster);
        }
    }

    async fn take_endings(&self, endings: &[Ending]) -> Result<Reply, ApiError> {
        check_batch(endings)?;
        let mut roster = self.roster.lock().await;
        let roster = roster.as_mut().ok_or_else(not_configured)?;
        let mut taken = Taken::default();
        for ending in endings {
            if let Err(error) = roster.take_ending(ending) {
                taken.reason.get_or_insert(error.to_string());
                taken.refused.push(signer(ending));
            }
            yield_now().await;
        }
        // At a start, endings come in many batches before the members: it is enough to look once after all.
        if !roster.is_syncing() {
            self.apply(roster).await?;
        }
        Ok(Reply::Taken(taken))
    }

    async fn take_members(&self, members: &[Member]) -> Result<Reply, ApiError> {
        check_batch(members)?;
        if !self.check_clock().await {
            return Err(clock_problem(CLOCK));
        }
        let mut roster = self.roster.lock().await;
        let roster = roster.as_mut().ok_or_else(not_configured)?;
        let mut taken = Taken::default();
        for member in members {
            if let Err(error) = roster.take_member(member, unix_now()) {
                let node = member.record.value.node;
                debug!(node = node.short(), %error, "a member is not admitted");
                taken.reason.get_or_insert(error.to_string());
                taken.refused.push(node);
            }
            yield_now().await;
        }
        self.apply(roster).await?;
        Ok(Reply::Taken(taken))
    }

    /// Has the data path do something; none if there is no interface.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> DataPathCommand,
    ) -> Result<Option<T>, ApiError> {
        let commands = self.running.lock().await.as_ref().map(|running| running.commands.clone());
        let Some(commands) = commands else { return Ok(None) };
        let (done, answer) = oneshot::channel();
        let gone = || ApiError::unavailable("the data path has broken down; tund is about to restart");
        commands.send(command(done)).await.map_err(|_| gone())?;
        answer.await.map(Some).map_err(|_| gone())
    }

    async fn attach(&self, session: Session) -> Result<(), ApiError> {
        if !self.fd_store.session(SessionKind::Data, &session) {
            // A meshd that has taken it back, or has found this process again.
            return Ok(());
        }
        let running = self.running.lock().await;
        if running.is_none() {
            *self.waiting.lock().await = Some(session);
            return Ok(());
        }
        drop(running);
        self.ask(|done| DataPathCommand::Attach(session, done)).await?.ok_or_else(not_configured)?
    }

    /// Tests the session; whether a datagram to its own destination has come back.
    async fn test_session(&self, nodes: Vec<NodeId>) -> Result<Reply, ApiError> {
        check_batch(&nodes)?;
        let test = self.ask(|done| DataPathCommand::Test(nodes, done));
        // Without a session, or where another test has begun, it has not.
        Ok(Reply::Tested(matches!(timeout(TEST_TIMEOUT, test).await, Ok(Ok(Some(()))))))
    }

    /// The sessions for data and for control messages, as they can be handed out.
    async fn sessions(&self) -> Result<(Option<Shared>, Option<Shared>), ApiError> {
        let failed = |error| ApiError::internal(format!("cannot duplicate a session's descriptors: {error}"));
        let data = match self.ask(DataPathCommand::Take).await? {
            Some(attached) => attached.transpose(),
            None => self.waiting.lock().await.as_ref().map(Session::share).transpose(),
        };
        let control = self.control.lock().await.as_ref().map(Session::share).transpose();
        Ok((data.map_err(failed)?, control.map_err(failed)?))
    }

    /// Sends what waits to be sent.
    pub async fn drain(&self) {
        self.keep_members().await;
        let time = self.limits.lock().await.map_or(DRAIN, |limits| limits.drain);
        if let Ok(Some(false)) = self.ask(|done| DataPathCommand::Drain(time, done)).await {
            info!("not all that waited to be sent could be sent in time");
        }
    }

    /// Sends what waits to be sent and ends the sessions, because the node stops.
    pub async fn quit(&self) {
        self.drain().await;
        self.fd_store.nothing();
        let Ok((data, control)) = self.sessions().await else { return };
        for Shared { session, fds } in data.into_iter().chain(control) {
            if let Ok(session) = Session::adopt(session, fds, &self.bridge) {
                session.quit();
            }
        }
    }

    async fn stats(&self) -> Result<Stats, ApiError> {
        let counted = self.ask(DataPathCommand::Stats).await?;
        let up = self.running.lock().await.as_ref().map(|running| {
            let Running { configured, mtu, .. } = running;
            (configured.interface.clone(), *mtu, configured.public_key)
        });
        let Counted { session, heard, unanswered, peers, drops, handshakes, diverted } =
            counted.unwrap_or_default();
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let (heard, unanswered) = (heard.map(millis), unanswered.map(millis));
        let Seen { overlaps, without_ipv6, faults, .. } = self.seen.lock().await.clone();
        let version = Version::current();
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let problem = problem.or_else(|| diverted.map(diverted_problem));
        Ok(Stats {
            version,
            interface: up.as_ref().map(|(interface, ..)| interface.clone()),
            mtu: up.as_ref().map(|(_, mtu, _)| *mtu),
            public_key: up.map(|(.., public_key)| public_key),
            session,
            heard,
            unanswered,
            peers,
            drops,
            handshakes,
            overlaps,
            without_ipv6,
            faults,
            problem,
        })
    }
}

/// Unix time in seconds.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn check_batch<T>(batch: &[T]) -> Result<(), ApiError> {
    if batch.len() <= MAX_BATCH {
        return Ok(());
    }
    Err(ApiError::invalid(format!("{} are more than fit in one request: {MAX_BATCH}", batch.len())))
}

fn signer(ending: &Ending) -> NodeId {
    match ending {
        Ending::Revocation(revocation) => revocation.value.issuer,
        Ending::Resignation(resignation) => *resignation.value.chain.subject(),
    }
}

fn end(fatal: &mpsc::Sender<EndReason>, reason: EndReason) {
    // Full means that a reason is there already.
    let _ = fatal.try_send(reason);
}

fn clock_problem(problem: impl Into<String>) -> ApiError {
    ApiError::unavailable(problem).with_hint("set the host's clock right")
}

fn diverted_problem(found: String) -> ApiError {
    ApiError::unavailable(format!("the I2P session was given up: {found}")).with_hint(
        "another process has changed a socket of tund's: see the daemons' logs, and restart the node; if it comes again, \
         meshd, keyd or the connector may have been broken into",
    )
}

fn not_static() -> ApiError {
    ApiError::conflict("this is no static interface")
}

fn not_configured() -> ApiError {
    ApiError::conflict("there is no interface yet").with_hint("configure it first")
}

impl Peers for Tund {
    async fn peers(&self) -> Result<Option<Vec<PeerStatus>>, ApiError> {
        self.ask(DataPathCommand::Peers).await
    }

    async fn change(&self, change: Change) -> Result<(), ApiError> {
        let peers = self.static_peers.as_ref();
        let peers = peers.ok_or_else(|| ApiError::conflict("the peers of a mesh are its members"))?;
        let no_interface = || ApiError::unavailable("there is no interface yet");
        let own_key = self.running.lock().await.as_ref().map(|running| running.configured.public_key);
        let own_key = own_key.ok_or_else(no_interface)?;
        let wanted = change.private_key.as_ref().map(|key| StaticSecret::from(key.0));
        if wanted.is_some_and(|wanted| PublicKey::from(&wanted).to_bytes() != own_key) {
            return Err(ApiError::conflict(
                "the private key is keyd's, which another file gives it at a start",
            ));
        }
        let mut peers = peers.lock().await;
        let (next, changes) = peers.changed(change, &own_key)?;
        let (set, removed) = (changes.set.len(), changes.removed.len());
        if changes != Changes::default() {
            self.ask(|done| DataPathCommand::ChangePeers(changes, done)).await?.ok_or_else(no_interface)?;
            info!(set, removed, "static peers were changed at run time");
        }
        *peers = next;
        Ok(())
    }
}

impl Service for Tund {
    type Api = TundApi;

    async fn call(&self, _: Role, request: Request, fds: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        match request {
            Request::StaticPeers => Ok(Reply::StaticPeers(self.static_reports().await?).into()),
            Request::Found(destination) => {
                self.note_destination(destination).await?;
                Ok(Reply::Done.into())
            }
            Request::Configure(..) | Request::GiveUp if self.static_peers.is_some() => {
                Err(ApiError::conflict("this interface has static peers, and is in no mesh"))
            }
            Request::Configure(interface, epoch) => {
                self.configure(interface, epoch).await.map(|configured| Reply::Configured(configured).into())
            }
            Request::AttachSession(session) => {
                let session = Session::adopt(session, fds, &self.bridge)?;
                *self.bridge_ip.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.bridge_ip());
                self.attach(session).await?;
                Ok(Reply::Done.into())
            }
            Request::KeepControl(session) => {
                let session = Session::adopt(session, fds, &self.bridge)?;
                if self.fd_store.session(SessionKind::Control, &session) {
                    *self.control.lock().await = Some(session);
                }
                Ok(Reply::Done.into())
            }
            Request::TakeSessions => {
                let (data, control) = self.sessions().await?;
                let mut all = Vec::new();
                let mut take = |shared: Option<Shared>| {
                    shared.map(|Shared { session, fds }| {
                        all.extend(fds);
                        session
                    })
                };
                let reply = Reply::Sessions { data: take(data), control: take(control) };
                Ok(Answer { reply, fds: all })
            }
            Request::GiveUp => {
                let resumable = self.resumable.lock().await.is_some();
                if resumable || self.running.lock().await.is_some() {
                    self.give_up();
                }
                Ok(Reply::Done.into())
            }
            Request::BeginSync => Ok(self.tell(Roster::begin_sync).await?.into()),
            Request::EndSync => Ok(self.tell(Roster::end_sync).await?.into()),
            Request::Endings(endings) => Ok(self.take_endings(&endings).await?.into()),
            Request::Members(members) => Ok(self.take_members(&members).await?.into()),
            Request::Remove(nodes) => Ok(self.tell(|roster| roster.remove(&nodes)).await?.into()),
            Request::Keepalives(all) => {
                let set = |roster: &mut Roster| {
                    all.iter().for_each(|(node, keepalive)| roster.set_keepalive(node, *keepalive));
                };
                Ok(self.tell(set).await?.into())
            }
            Request::Limits(limits) => {
                if limits.drain > LONGEST_DRAIN {
                    let most = LONGEST_DRAIN.as_secs();
                    return Err(ApiError::invalid(format!("packets may wait {most} s at most for the end")));
                }
                *self.limits.lock().await = Some(limits);
                self.ask(|done| DataPathCommand::SetLimit(limits.tunnels, done)).await?;
                Ok(Reply::Done.into())
            }
            Request::Alive(nodes) => {
                self.ask(|done| DataPathCommand::NoteAlive(nodes, done)).await?;
                Ok(Reply::Done.into())
            }
            Request::CheckNetwork(subnet, network) => {
                let name = self.local_interface().await;
                self.check(&host::prefixes_of_network(subnet, network), name.as_deref()).await?;
                Ok(Reply::Done.into())
            }
            Request::FindSubnet(wanted) => Ok(Reply::Subnet(self.find_subnet(wanted).await?).into()),
            Request::TestSession(nodes) => Ok(self.test_session(nodes).await?.into()),
            Request::Stats => Ok(Reply::Stats(Box::new(self.stats().await?)).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::ErrorKind;
    use i2plan_ipc::api::tund::Session as SessionInfo;
    use i2plan_proto::destination::Destination;

    use super::*;
    use i2plan_ipc::bridge::UDP_PORT;

    fn tund() -> Tund {
        start(mpsc::channel(1).0)
    }

    fn start(fatal: mpsc::Sender<EndReason>) -> Tund {
        start_with(Bridge::new(([127, 0, 0, 1], 7656).into()), fatal)
    }

    fn start_with(bridge: Bridge, fatal: mpsc::Sender<EndReason>) -> Tund {
        let nobody = Box::leak(Box::new(Supervisor::hearing(None)));
        let (keyd, host) = (Path::new("/nonexistent/keyd.sock"), Host::open(false).unwrap());
        Tund::new(keyd, "i2plan0".to_owned(), None, bridge, nobody, host, Start::fresh(nobody), fatal)
    }

    fn interface() -> NewInterface {
        NewInterface { name: "i2plan0".to_owned(), network: NetworkId([0; 32]), mtu: 1280 }
    }

    async fn refused(request: Request) -> ApiError {
        tund().call(Role::Meshd, request, Vec::new()).await.unwrap_err()
    }

    #[tokio::test]
    async fn without_an_interface_there_is_nothing_to_command() {
        assert_eq!(refused(Request::BeginSync).await.kind, ErrorKind::Conflict);
        let taken = tund().call(Role::Meshd, Request::TakeSessions, Vec::new()).await.unwrap();
        assert!(matches!(taken.reply, Reply::Sessions { data: None, control: None }));
        let stats = tund().call(Role::Meshd, Request::Stats, Vec::new()).await.unwrap();
        let Reply::Stats(stats) = stats.reply else { panic!("statistics were asked for") };
        assert_eq!((stats.interface, stats.session), (None, None));
    }

    #[tokio::test]
    async fn sessions_are_kept_before_there_is_an_interface() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bridge = Bridge::new(listener.local_addr().unwrap());
        let tund = start_with(bridge, mpsc::channel(1).0);
        let mut routers = Vec::new();
        for (id, attach) in [("data", true), ("control", false)] {
            let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            udp.connect(("127.0.0.1", UDP_PORT)).unwrap();
            let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            routers.push(listener.accept().unwrap().0);
            let session = SessionInfo {
                id: id.to_owned(),
                destination: Destination { padding: [1; 32], signing_key: [2; 32] },
            };
            let request =
                if attach { Request::AttachSession(session) } else { Request::KeepControl(session) };
            tund.call(Role::Meshd, request, vec![udp.into(), tcp.into()]).await.unwrap();
        }
        let taken = tund.call(Role::Meshd, Request::TakeSessions, Vec::new()).await.unwrap();
        let Reply::Sessions { data: Some(data), control: Some(control) } = taken.reply else {
            panic!("both")
        };
        assert_eq!((data.id.as_str(), control.id.as_str(), taken.fds.len()), ("data", "control", 4));
        drop(taken.fds);
        tund.quit().await;
        drop(tund);
        for mut router in routers {
            let mut said = String::new();
            std::io::Read::read_to_string(&mut router, &mut said).unwrap();
            assert_eq!(said, "QUIT\n");
        }
    }

    #[tokio::test]
    async fn the_end_cannot_be_put_off_for_ever() {
        for drain in [LONGEST_DRAIN + Duration::from_nanos(1), Duration::MAX] {
            assert_eq!(refused(Request::Limits(Limits { tunnels: 1, drain })).await.kind, ErrorKind::Invalid);
        }
        let limits = Limits { tunnels: 1, drain: LONGEST_DRAIN };
        assert!(tund().call(Role::Meshd, Request::Limits(limits), Vec::new()).await.is_ok());
    }

    #[tokio::test]
    async fn meshd_has_no_say_in_the_peers_of_a_static_interface() {
        let (fatal, mut reason) = mpsc::channel(1);
        let mut tund = start(fatal);
        tund.static_peers = Some(Mutex::new(StaticPeers::default()));
        for request in [Request::Configure(interface(), 1), Request::GiveUp, Request::BeginSync] {
            let error = tund.call(Role::Meshd, request, Vec::new()).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Conflict);
        }
        let hash = Destination { padding: [1; 32], signing_key: [2; 32] }.hash();
        let found = Request::Found(PeerEndpoint::Hash(hash));
        let error = tund.call(Role::Meshd, found, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(reason.try_recv().is_err());
    }

    #[tokio::test]
    async fn without_an_interface_there_is_none_to_give_up() {
        let (fatal, mut reason) = mpsc::channel(1);
        let tund = start(fatal);
        assert!(tund.call(Role::Meshd, Request::GiveUp, Vec::new()).await.is_ok());
        assert!(reason.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_wrong_interface_is_refused_before_a_key_is_fetched() {
        let refused = async |name: &str| {
            let error =
                refused(Request::Configure(NewInterface { name: name.to_owned(), ..interface() }, 1)).await;
            assert_eq!(error.kind, ErrorKind::Invalid);
            error.message
        };
        assert!(refused("a/b").await.contains("is no name"));
        // Not one that other programs may take for theirs, either.
        assert_eq!(refused("wg0").await, "an interface wg0 is asked for, and tund makes none but i2plan0");
    }

    #[tokio::test]
    async fn without_keyd_there_is_no_interface() {
        let error = refused(Request::Configure(interface(), 1)).await;
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("keyd.sock"), "{}", error.message);
    }
}
