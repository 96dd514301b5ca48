//! The daemon of an interface with static peers, in which no mesh runs: it keeps the SAM session open, has the router look
//! up where the peers are, and answers users. Who the peers are it does not decide.

use std::collections::HashMap;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use i2plan_config::live::Live;
use i2plan_ipc::api::keyd::{self, SessionKind};
use i2plan_ipc::api::meshd::{
    self, EventKind, PeerTraffic, Query, Reply, SessionHealth, SessionName, SessionState, StaticPeer,
    StaticStatus, Status, Traffic,
};
use i2plan_ipc::api::tund::{
    DEFAULT_STATIC_MTU, GetStaticPeers, Limits, MAX_BATCH, MAX_STATIC_PEERS, NoteDestination,
    StaticPeerReport, TestSession, TundApi,
};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::client::DaemonLink;
use i2plan_ipc::daemon::activation::into_tokio;
use i2plan_ipc::daemon::descriptors;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::state_dir::StateDir;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::histogram::Histogram;
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::server::{ConnectionLimits, serve};
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::endpoint::{AnyDestination, Endpoint};
use i2plan_proto::identity::NodeId;
use i2plan_proto::sam::session::{Style, Tunnels};
use i2plan_transport::retry::Release;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{interval, sleep};
use tracing::{debug, info, warn};

use super::daemon::Options;
use super::daemon::control::SessionStatus;
use super::daemon::keyd_link::{KeydReport, watch_keyd};
use super::daemon::status::{daemons, handshakes, millis, started_at};
use super::health;
use super::observer::Observer;
use super::service::{Control, LoopRequest, access};
use super::sessions::{self, Context, Renewal, Update};
use super::storage;
use super::tunnel;
use crate::sandbox;

/// How often `tund` is asked about the peers, and what is due is done.
const TICK: Duration = Duration::from_secs(1);

/// Wait before the router is asked again for a destination that it has not found.
const LOOKUP_RETRY: Duration = Duration::from_secs(15);

/// Wait before the router is asked again for a destination that it has found, if `tund` does not know it: one that was
/// killed may not have kept what it was told last. Longer than `tund` takes to say what it knows.
const TOLD: Duration = Duration::from_secs(3);

/// Lookups that wait for the router.
const MAX_LOOKUPS: usize = 64;

/// Runs until the process is asked to stop.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(options: Options, style: Style, listener: StdListener) -> Result<(), End> {
    let mut signals = Signals::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let supervisor = Supervisor::of_this_process();
    descriptors::refuse(&listener);
    let listener = into_tokio(listener)?;
    let state = StateDir::open_or_make(&options.state).map_err(End::failed)?;
    sandbox::before_serving(&options.state, options.config.path())?;
    supervisor.ready();

    let mut tasks = Tasks::default();
    let (commands, mut requests) = mpsc::channel(64);
    let access = access(options.named);
    let control = Arc::new(Control::new(commands, Arc::clone(&options.event_log)));
    tasks.spawn("control socket", serve(listener, control, access, ConnectionLimits::default()));
    let udp_port = Arc::new(AtomicU16::new(read_port(&state)));
    let session = SessionStart { udp_port: Arc::clone(&udp_port), lingers: storage::router_lingers(&state) };
    let (mut daemon, mut inputs) = StaticInterface::start(options, style, session, &mut tasks);
    let mut watchdog = Watchdog::of_this_process();
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            Some(me) = inputs.identity.recv() => daemon.me = Some(me),
            Some(update) = inputs.updates.recv() => {
                match update {
                    Update::Data(_) => save_port(&state, udp_port.load(Ordering::Relaxed)),
                    Update::Lingers(lingers) => {
                        if let Err(error) = storage::note_router_lingers(&state, lingers) {
                            debug!(%error, "cannot note how the router closes sessions");
                        }
                    }
                    _ => {}
                }
                daemon.on_update(update);
            }
            Some(request) = requests.recv() => daemon.on_request(request),
            Some(came) = inputs.tested.recv() => daemon.check.handle_result(came),
            Ok(()) = daemon.peers.changed() => daemon.look_up(),
            Ok(()) = daemon.tunnel_report.changed() => daemon.on_tunnel_report(),
            Ok(()) = daemon.keyd_report.changed() => daemon.on_keyd_report(),
            Some(()) = hangup.recv() => info!("what is configured of a static interface counts at its start"),
            ended = tasks.ended() => return Err(ended.into()),
            () = watchdog.due() => supervisor.alive(),
            _ = tick.tick() => {
                daemon.watch_session();
                if supervisor.is_there() {
                    supervisor.status(&health::static_line(&daemon.status()));
                }
            }
            _ = signals.next() => {
                // The session is left to tund, which ends it if it stops too.
                supervisor.stopping(Duration::ZERO);
                return Ok(());
            }
        }
    }
}

/// The file with the bridge's UDP port through which a session was last tested, as text. With it a session is used that
/// does not reach itself, as one under a destination that the router has known before may not for minutes (emissary 0.4).
const PORT_FILE: &str = "udp-port";

/// The port; 0 if none is known.
fn read_port(state: &StateDir) -> u16 {
    let text = state.read(PORT_FILE, 8).ok().flatten();
    text.and_then(|text| str::from_utf8(&text).ok()?.trim().parse().ok()).unwrap_or(0)
}

fn save_port(state: &StateDir, port: u16) {
    if read_port(state) != port
        && let Err(error) = state.replace(PORT_FILE, port.to_string().as_bytes())
    {
        warn!(%error, "the bridge's UDP port is not remembered");
    }
}

/// What an earlier process has found out of the router.
struct SessionStart {
    /// 0 if it is not known.
    udp_port: Arc<AtomicU16>,
    /// It goes on for a while with the destination of a session that is closed.
    lingers: bool,
}

/// What comes from the tasks.
struct Inputs {
    identity: mpsc::Receiver<keyd::Identity>,
    updates: mpsc::Receiver<Update>,
    tested: mpsc::Receiver<bool>,
}

struct StaticInterface {
    config: Live,
    style: Style,
    started: Instant,
    event_log: Arc<super::event_log::EventLog>,
    observer: Observer,
    me: Option<keyd::Identity>,
    keyd_report: watch::Receiver<KeydReport>,
    bridge: String,
    sam_version: Option<String>,
    session: SessionStatus,
    /// That of the session.
    destination: Option<DestinationHash>,
    check: SessionCheck,
    renew: mpsc::Sender<Renewal>,
    lookups: mpsc::Sender<DestinationHash>,
    asked: Lookups,
    tund: Arc<DaemonLink<TundApi>>,
    tunnel: watch::Sender<tunnel::Desired>,
    tunnel_report: watch::Receiver<tunnel::TundReport>,
    peers: watch::Receiver<Vec<StaticPeerReport>>,
    tested: mpsc::Sender<bool>,
}

impl StaticInterface {
    fn start(options: Options, style: Style, known: SessionStart, tasks: &mut Tasks) -> (Self, Inputs) {
        let config = options.config;
        let keyd = Arc::new(DaemonLink::new(options.keyd.clone(), Role::Meshd));
        let tund = Arc::new(DaemonLink::new(options.tund, Role::Meshd));
        let (updates_sender, updates) = mpsc::channel(256);
        let (lookups, lookup_queue) = mpsc::channel(MAX_LOOKUPS);
        let (renew, renewals) = mpsc::channel(4);
        let (identity_sender, identity) = mpsc::channel(1);
        let (tested, results) = mpsc::channel(4);
        let (adopt_data, adopted) = oneshot::channel();
        let limits = Limits {
            tunnels: u32::try_from(MAX_STATIC_PEERS).unwrap_or(u32::MAX),
            drain: config.drain_timeout,
        };
        let (tunnel, desired) =
            watch::channel(tunnel::Desired { limits: Some(limits), ..tunnel::Desired::default() });
        let (report, tunnel_report) = watch::channel(tunnel::TundReport::default());
        let (peers_sender, peers) = watch::channel(Vec::new());
        let (keyd_sender, keyd_report) =
            watch::channel(KeydReport { daemon: Err("not reached yet".to_owned()), connector: None });
        let context = Context {
            bridge: Bridge { address: config.sam_address.clone(), udp_port: config.sam_udp_port },
            udp_port: known.udp_port,
            proven_port: Arc::default(),
            path: Arc::default(),
            tunnels: Tunnels {
                length: config.tunnel_length,
                length_variance: config.tunnel_length_variance,
                quantity: config.tunnel_quantity,
                backup_quantity: config.tunnel_backup_quantity,
            },
            keyd,
            updates: updates_sender,
            failures: Arc::new(Mutex::new(LogLimit::default())),
            started: Instant::now(),
        };
        let kind = match style {
            Style::Raw => SessionKind::StaticRaw,
            Style::Datagram => SessionKind::StaticRepliable,
        };
        tasks.spawn("keyd watch", watch_keyd(options.keyd, keyd_sender, identity_sender));
        let release = Release::new(known.lingers, context.started.elapsed());
        tasks.spawn("session", sessions::keep(context, kind, release, lookup_queue, adopted, renewals));
        let input = tunnel::TundInput { desired, awakened: mpsc::channel(1).1 };
        let adopt = tunnel::Adopt { data: adopt_data, control: oneshot::channel().0 };
        tasks.spawn("tunnel", tunnel::keep(Arc::clone(&tund), input, report, adopt));
        tasks.spawn("peer watch", watch_peers(Arc::clone(&tund), peers_sender));
        let daemon = Self {
            bridge: config.sam_address.to_string(),
            config: Live::new(config),
            style,
            started: Instant::now(),
            event_log: options.event_log,
            observer: Observer::default(),
            me: None,
            keyd_report,
            sam_version: None,
            session: SessionStatus { state: SessionState::Down, error: None },
            destination: None,
            check: SessionCheck::default(),
            renew,
            lookups,
            asked: Lookups::default(),
            tund,
            tunnel,
            tunnel_report,
            peers,
            tested,
        };
        (daemon, Inputs { identity, updates, tested: results })
    }

    fn on_update(&mut self, update: Update) {
        match update {
            Update::Answered(_, version) => self.sam_version = Some(version),
            Update::State { state, error, .. } => {
                // The reason of the last failure is of use until the session is up again.
                let error = match state {
                    SessionState::Opening => error.or(self.session.error.take()),
                    _ => error,
                };
                let status = SessionStatus { state, error };
                if self.session != status {
                    let (session, error) = (SessionName::Data, status.error.clone());
                    self.event_log.push(EventKind::Session { session, state, error });
                }
                self.session = status;
            }
            Update::Data(session) => {
                self.asked = Lookups::default();
                self.check.handle_session(self.started.elapsed());
                self.destination = Some(session.destination.hash());
                self.tunnel.send_modify(|desired| desired.session = Some(session));
                self.look_up();
            }
            Update::Found { hash, destination, .. } => self.on_found(hash, destination),
            // Of a mesh's sessions.
            Update::Held(_)
            | Update::Control(..)
            | Update::Datagram { .. }
            | Update::Echo
            | Update::Lingers(_) => {}
        }
    }

    /// Has the router look up where the peers are, through each session once: also those whose destination is known,
    /// because i2pd drops datagrams to one that it has not looked up.
    fn look_up(&mut self) {
        if self.session.state != SessionState::Up && self.tunnel.borrow().session.is_none() {
            return;
        }
        let now = self.started.elapsed();
        for (hash, is_known) in self.peers.borrow().iter().filter_map(|peer| peer.endpoint) {
            if self.asked.is_due(&hash, is_known, now) && self.lookups.try_send(hash).is_ok() {
                self.asked.note_asked(hash, now);
            }
        }
    }

    fn on_found(&mut self, hash: DestinationHash, destination: Result<AnyDestination, String>) {
        let destination = match destination {
            Ok(destination) => destination,
            Err(reason) => {
                debug!(endpoint = hash.b32(), reason, "the router does not find a peer's destination");
                return;
            }
        };
        self.asked.note_found(&hash, self.started.elapsed());
        let tund = Arc::clone(&self.tund);
        tokio::spawn(async move {
            if let Err(error) = tund.call(NoteDestination(Endpoint::Destination(destination))).await {
                debug!(%error, "tund was not told of a destination");
            }
        });
    }

    fn on_tunnel_report(&mut self) {
        let report = self.tunnel_report.borrow_and_update();
        let name = |peer: &NodeId| Some(BASE64.encode(&peer.0));
        for what in self.observer.handle_tund_report(&report, None, name) {
            self.event_log.push(what);
        }
    }

    fn on_keyd_report(&mut self) {
        let report = self.keyd_report.borrow_and_update();
        let state = report.daemon.as_ref().map(|_| ()).map_err(String::as_str);
        self.observer.handle_keyd_state(state).into_iter().for_each(|what| self.event_log.push(what));
    }

    /// Has a session tested in which nothing is answered, and opened again if it does not even reach itself.
    fn watch_session(&mut self) {
        let stats = self.tunnel_report.borrow().stats.clone();
        let unanswered = stats.as_ref().filter(|stats| stats.session.is_some());
        let unanswered = unanswered.and_then(|stats| stats.unanswered).map(Duration::from_millis);
        let is_heard = stats.as_ref().is_some_and(|stats| stats.heard.is_some());
        // Of a session that was taken over, the node's own destination may be known later.
        let place = match (self.style, &self.me, self.destination) {
            (Style::Raw, ..) => Place::Fixed,
            (Style::Datagram, Some(me), Some(own)) if me.control.hash() != own => Place::Fallback,
            (Style::Datagram, ..) => Place::Permanent,
        };
        match self.check.handle_time(place, is_heard, unanswered, self.started.elapsed()) {
            Some(CheckAction::Test) => {
                let peers = self.peers.borrow();
                let silent = peers.iter().filter(|peer| peer.stats.unanswered > 0);
                let silent: Vec<_> = silent.map(|peer| peer.stats.node).take(MAX_BATCH).collect();
                let (tund, tested) = (Arc::clone(&self.tund), self.tested.clone());
                tokio::spawn(async move {
                    // A tund that is away is told of otherwise.
                    if let Ok(came) = tund.call(TestSession(silent)).await {
                        let _ = tested.send(came).await;
                    }
                });
            }
            Some(CheckAction::Renew) => {
                info!("nothing is answered through the session: it is opened again");
                let _ = self.renew.try_send(Renewal::Open);
            }
            Some(CheckAction::Fallback) => {
                info!(
                    "nothing is answered through the session: another is opened, under a fallback destination"
                );
                let _ = self.renew.try_send(Renewal::Under(SessionKind::Fallback));
            }
            Some(CheckAction::Return) => {
                info!("a session is opened under the permanent destination again");
                let _ = self.renew.try_send(Renewal::Under(SessionKind::StaticRepliable));
            }
            None => {}
        }
    }

    fn on_request(&mut self, request: LoopRequest) {
        // A caller that has gone does not want its answer.
        match request {
            LoopRequest::Traffic(answer) => drop(answer.send(self.traffic())),
            LoopRequest::Command(_, answer) => drop(answer.send(Err(no_mesh()))),
            LoopRequest::Query(query, answer) => drop(answer.send(match query {
                Query::Status => Ok(Reply::Status(Box::new(self.status()))),
                Query::Peers => Ok(Reply::Peers(Vec::new())),
                Query::Config => Ok(Reply::Config(self.config.settings())),
                Query::Counters => Ok(Reply::Counters(Box::new(meshd::Counters {
                    started_at: started_at(self.started),
                    messages: meshd::MessageCounts::default(),
                    handshakes: handshakes(&self.tunnel_report.borrow()),
                    state_writes: meshd::WriteCounts::default(),
                    rounds: Histogram::default(),
                    sends: Histogram::default(),
                    events: self.event_log.counts(),
                }))),
                _ => Err(no_mesh()),
            })),
        }
    }

    fn traffic(&self) -> Traffic {
        let peers = self.peers.borrow();
        let peers = peers.iter().map(|peer| PeerTraffic {
            node_id: BASE64.encode(&peer.stats.node.0),
            tx_bytes: peer.stats.tx_bytes,
            rx_bytes: peer.stats.rx_bytes,
            last_handshake: peer.stats.last_handshake,
            rtt: None,
        });
        Traffic { at: millis(self.started.elapsed()), peers: peers.collect() }
    }

    fn status(&self) -> Status {
        let tunnel = self.tunnel_report.borrow();
        let stats = tunnel.stats.as_ref();
        let session = |state, destination: Option<String>, error| meshd::Session {
            state,
            destination,
            error,
            health: SessionHealth::Fine,
            silent: None,
            over_tcp: false,
        };
        let destination = self.me.as_ref().map(|me| me.control);
        let (keyd, error) = (self.keyd_report.borrow(), (tunnel.error.clone(), tunnel.hint.clone()));
        Status {
            name: stats
                .and_then(|stats| stats.interface.clone())
                .unwrap_or_else(|| self.config.current().interface.clone()),
            node_id: None,
            uptime: self.started.elapsed().as_secs(),
            config: self.config.current().path().to_string_lossy().into_owned(),
            network: None,
            former: None,
            keys: Vec::new(),
            sam: meshd::Sam {
                address: self.bridge.clone(),
                version: self.sam_version.clone(),
                // There is none.
                control: session(SessionState::Down, None, None),
                fallback: None,
                data: session(
                    self.session.state,
                    self.destination.or(destination.map(|own| own.hash())).map(|hash| hash.b32()),
                    self.session.error.clone(),
                ),
            },
            tunnel: meshd::Tunnel {
                interface: stats.and_then(|stats| stats.interface.clone()),
                mtu: stats.and_then(|stats| stats.mtu).unwrap_or(DEFAULT_STATIC_MTU),
                public_key: stats.and_then(|stats| stats.public_key).map(|key| BASE64.encode(&key)),
                drops: stats.map(|stats| stats.drops),
                overlaps: Vec::new(),
                without_ipv6: false,
                faults: Vec::new(),
                making: false,
            },
            daemons: daemons(&keyd, None, tunnel.daemon.as_ref(), error),
            static_interface: Some(StaticStatus {
                style: self.style.to_string(),
                destination: destination.map(|destination| destination.to_base64()),
                peers: self.peers.borrow().iter().map(describe).collect(),
            }),
        }
    }
}

/// The destinations that the router was asked for through the present session: since when each waits for what comes next,
/// and whether the router has found it.
#[derive(Debug, Default)]
struct Lookups(HashMap<DestinationHash, (Duration, bool)>);

impl Lookups {
    /// Whether the router is to be asked for one, which `tund` knows or not.
    fn is_due(&self, hash: &DestinationHash, is_known: bool, now: Duration) -> bool {
        match self.0.get(hash) {
            None => true,
            Some((since, false)) => now >= *since + LOOKUP_RETRY,
            Some((since, true)) => !is_known && now >= *since + TOLD,
        }
    }

    fn note_asked(&mut self, hash: DestinationHash, now: Duration) {
        self.0.insert(hash, (now, false));
    }

    fn note_found(&mut self, hash: &DestinationHash, now: Duration) {
        if let Some(asked) = self.0.get_mut(hash) {
            *asked = (now, true);
        }
    }
}

fn no_mesh() -> ApiError {
    ApiError::conflict("this is an interface with static peers, and no member of a mesh")
}

fn describe(peer: &StaticPeerReport) -> StaticPeer {
    let StaticPeerReport { endpoint, allowed_ips, keepalive, has_preshared_key, stats } = peer;
    StaticPeer {
        public_key: BASE64.encode(&stats.node.0),
        endpoint: endpoint.map(|(hash, _)| hash.b32()),
        resolved: endpoint.is_some_and(|(_, is_known)| is_known),
        allowed_ips: allowed_ips.iter().map(ToString::to_string).collect(),
        keepalive: *keepalive,
        preshared_key: *has_preshared_key,
        last_handshake: stats.last_handshake,
        unanswered: stats.unanswered,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        queue_drops: stats.queue_drops,
        rx_drops: stats.rx_drops,
    }
}

/// Asks `tund` about the peers. Never returns.
async fn watch_peers(tund: Arc<DaemonLink<TundApi>>, peers: watch::Sender<Vec<StaticPeerReport>>) {
    loop {
        // That it is away others find out.
        if let Ok(found) = tund.call(GetStaticPeers).await {
            peers.send_replace(found);
        }
        sleep(TICK).await;
    }
}

/// How long what was sent may be unanswered before the session is tested.
const QUIET: Duration = Duration::from_secs(15);

/// Wait between tests of a session in which nothing is answered.
const TEST_EVERY: Duration = Duration::from_secs(30);

/// Tests that fail one after the other before the session is opened again.
const FAILURES: u32 = 2;

/// How long nobody may answer before the session is opened again, although it reaches itself; each further time twice as
/// long, up to the second.
const PATIENCE: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(600)];

/// How long peers are talked to from a fallback destination before the permanent one is tried again: longer than routers
/// go on with what they had agreed on with it (emissary 0.4: ten minutes).
const FALLBACK: Duration = Duration::from_secs(900);

/// What is to be done about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckAction {
    /// Send a datagram to the session's own destination.
    Test,
    /// Open it again.
    Renew,
    /// Open another under a fallback destination.
    Fallback,
    /// Open another under the permanent destination.
    Return,
}

/// Under which destination a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The permanent one, and peers follow to no other.
    Fixed,
    /// The permanent one.
    Permanent,
    /// A fallback destination.
    Fallback,
}

/// Decides when a session is tested and opened again. A session that has reached itself and does not any more is of no
/// use. One in which nobody answers may be: a router goes on with what it has agreed on with that of a peer, which may
/// have been restarted (emissary 0.4). Where peers follow who sends to them, they are called from a fallback destination
/// then, once: who calls this interface finds it at the permanent one. Or the peers are away, and so it is opened again
/// ever more rarely.
#[derive(Debug, Default)]
struct SessionCheck {
    /// A datagram to itself has come back.
    echoes: bool,
    failures: u32,
    next: Option<Duration>,
    /// How often it was opened again since a peer was heard.
    renewals: u32,
    /// A fallback destination was tried since a peer was heard.
    tried: bool,
    /// When it was opened, or the permanent destination was last tried since then.
    since: Duration,
}

impl SessionCheck {
    /// Another session is open.
    fn handle_session(&mut self, now: Duration) {
        *self = Self { renewals: self.renewals, tried: self.tried, since: now, ..Self::default() };
    }

    /// A peer was heard through the session or not; the first thing that calls for an answer was sent so long ago, if it
    /// was not answered.
    fn handle_time(
        &mut self,
        place: Place,
        is_heard: bool,
        unanswered: Option<Duration>,
        now: Duration,
    ) -> Option<CheckAction> {
        if is_heard {
            (self.renewals, self.tried) = (0, false);
        }
        if place == Place::Fallback && now >= self.since + FALLBACK {
            // Asked for again if the router takes so long.
            self.since = now;
            return Some(CheckAction::Return);
        }
        let unanswered = unanswered?;
        let [first, longest] = PATIENCE;
        let patience = first.saturating_mul(1 << self.renewals.min(16)).min(longest);
        let is_broken = self.failures >= FAILURES;
        if unanswered >= patience || is_broken {
            self.failures = 0;
            self.renewals += 1;
            return Some(match place {
                Place::Fallback => CheckAction::Return,
                Place::Permanent if !is_broken && !std::mem::replace(&mut self.tried, true) => {
                    CheckAction::Fallback
                }
                Place::Permanent | Place::Fixed => CheckAction::Renew,
            });
        }
        if unanswered < QUIET || self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + TEST_EVERY);
        Some(CheckAction::Test)
    }

    fn handle_result(&mut self, came: bool) {
        self.echoes |= came;
        self.failures = if came || !self.echoes { 0 } else { self.failures + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// When the session is opened again within an hour in which nothing is answered, by sessions that come a second later;
    /// a test comes back as `came` says of its time.
    fn renewed(came: impl Fn(u64) -> bool) -> Vec<u64> {
        let (mut check, mut since, mut renewed) = (SessionCheck::default(), 0, Vec::new());
        for now in 0..3600 {
            let unanswered = (now > since).then(|| seconds(now - since));
            match check.handle_time(Place::Fixed, false, unanswered, seconds(now)) {
                Some(CheckAction::Test) => check.handle_result(came(now)),
                Some(CheckAction::Renew) => {
                    renewed.push(now);
                    since = now + 1;
                    check.handle_session(seconds(since));
                }
                other => assert_eq!(other, None),
            }
        }
        renewed
    }

    #[test]
    fn destinations_are_looked_up_until_tund_knows_them() {
        let (mut lookups, hash) = (Lookups::default(), DestinationHash([1; 32]));
        assert!(lookups.is_due(&hash, true, seconds(0)), "through each session once, also what is known");
        lookups.note_asked(hash, seconds(0));
        assert!((1..15).all(|now| !lookups.is_due(&hash, false, seconds(now))));
        assert!(lookups.is_due(&hash, false, seconds(15)));
        lookups.note_asked(hash, seconds(15));
        lookups.note_found(&hash, seconds(17));
        assert!(!lookups.is_due(&hash, false, seconds(18)), "it is just being told");
        assert!((18..600).all(|now| !lookups.is_due(&hash, true, seconds(now))));
        assert!(lookups.is_due(&hash, false, seconds(600)), "another tund knows nothing of it");
    }

    #[test]
    fn a_session_in_which_nobody_answers_is_opened_again_ever_more_rarely() {
        assert_eq!(renewed(|_| true), [20, 61, 142, 303, 624, 1225, 1826, 2427, 3028]);
    }

    #[test]
    fn one_that_has_ceased_to_reach_itself_is_opened_again_at_once() {
        // After the test at 15 s of the session from 304 s on.
        let at = renewed(|now| now < 325);
        assert_eq!(at[..4], [20, 61, 142, 303]);
        assert!(at[4] < 400, "{at:?}");
        // One lost datagram says nothing, and some routers do not carry a session's datagrams to itself.
        assert_eq!(renewed(|_| false), renewed(|_| true));
    }

    #[test]
    fn one_that_is_answered_is_left_alone() {
        let mut check = SessionCheck::default();
        assert!((0..600).all(|now| {
            check.handle_time(Place::Permanent, true, Some(seconds(now % 14)), seconds(now)).is_none()
        }));
        assert!(check.handle_time(Place::Permanent, true, None, seconds(600)).is_none());
        // What was heard counts for the next time.
        check.renewals = 7;
        assert!(check.handle_time(Place::Permanent, true, None, seconds(601)).is_none());
        assert_eq!(
            check.handle_time(Place::Fixed, false, Some(seconds(20)), seconds(700)),
            Some(CheckAction::Renew)
        );
    }

    #[test]
    fn peers_that_do_not_answer_are_called_from_a_fallback_destination_once() {
        let mut check = SessionCheck::default();
        let unanswered = |check: &mut SessionCheck, place: Place, long: u64, now: u64| {
            check.handle_time(place, false, Some(seconds(long)), seconds(now))
        };
        assert_eq!(unanswered(&mut check, Place::Permanent, 20, 20), Some(CheckAction::Fallback));
        check.handle_session(seconds(22));
        // Nobody answers there either: the permanent one is where others look.
        assert_eq!(unanswered(&mut check, Place::Fallback, 40, 62), Some(CheckAction::Return));
        check.handle_session(seconds(64));
        assert_eq!(unanswered(&mut check, Place::Permanent, 80, 144), Some(CheckAction::Renew));
        check.handle_session(seconds(145));
        // One that has answered is looked for anew.
        assert_eq!(check.handle_time(Place::Permanent, true, None, seconds(150)), None);
        assert_eq!(unanswered(&mut check, Place::Permanent, 20, 180), Some(CheckAction::Fallback));
        check.handle_session(seconds(182));
        let mut heard = |now: u64| check.handle_time(Place::Fallback, true, None, seconds(now));
        assert!((183..1082).all(|now| heard(now).is_none()));
        assert_eq!(heard(1082), Some(CheckAction::Return));
        assert_eq!(heard(1083), None, "it is being opened");
    }
}
