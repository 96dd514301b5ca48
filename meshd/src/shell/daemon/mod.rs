//! The daemon's loop: carries events to the core and does what it says.

use std::collections::HashMap;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use i2plan_config::Config;
use i2plan_config::live::Live;
use i2plan_ipc::api::keyd::{self, KeydApi, SessionKind};
use i2plan_ipc::api::meshd::{self, SessionState};
use i2plan_ipc::api::tund::{self, TundApi};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::client::{DaemonLink, Endpoint};
use i2plan_ipc::daemon::activation::into_tokio;
use i2plan_ipc::daemon::descriptors;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::histogram::Histogram;
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::server::{ConnectionLimits, serve};
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use i2plan_proto::sam::session::Tunnels;
use i2plan_transport::retry::Release;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{interval, sleep_until};
use tracing::{debug, error, info};

use self::commands::Checked;
use self::control::{
    CONTROL_PATIENCE, ControlSession, DATA_PATIENCE, FallbackSession, SessionStatus, ToldHealth,
};
use self::keyd_link::{KeydReport, ask, watch_keyd};
use super::containment::DatagramContainment;
use super::event_log::EventLog;
use super::health;
use super::introductions::Introductions;
use super::observer::Observer;
use super::pair_health::PairHealth;
use super::renewal::DataRenewal;
use super::service::{Control, LoopRequest, ReplySender, access};
use super::session_health::{IdleTest, OneWayTest, SessionHealth};
use super::sessions::{self, Context, Open, Renewal, Update};
use super::sleep::{self, SleepDetector};
use super::storage::Storage;
use super::tunnel;
use crate::core::{Action, CommandId, Mesh, Now, Settings, Ticket, Turn};
use crate::sandbox;

mod commands;
pub(super) mod control;
pub(super) mod keyd_link;
pub(super) mod status;

/// Seconds between WireGuard keepalives.
const KEEPALIVE: u16 = 25;

/// Attempts at a question to a daemon while it cannot be reached, as it is for a moment when it restarts.
pub(super) const DAEMON_ATTEMPTS: u32 = 10;

/// Wait before a question to a daemon is asked again.
pub(super) const DAEMON_RETRY: Duration = Duration::from_millis(500);

/// How long an answer takes to its reader.
const ANSWERED: Duration = Duration::from_millis(200);

/// How often peers are looked at anew, because their certificates may have run out.
const PEERS_EVERY: Duration = Duration::from_secs(60);

/// How often the peers are looked at, at most, however often something changes: there may be ten thousand.
const PEERS_AT_MOST_EVERY: Duration = Duration::from_millis(250);

/// How often the supervisor is told how the node does, if that has changed.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// What the command line gives.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// The directory of this daemon's state.
    pub state: PathBuf,
    /// `keyd`'s socket.
    pub keyd: Endpoint,
    /// `tund`'s socket.
    pub tund: Endpoint,
    /// The user of `named`, if there is one.
    pub named: Option<u32>,
    /// Where what happens is noted for those who follow the node.
    pub event_log: Arc<EventLog>,
}

/// Runs until the process is asked to stop.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(options: Options, listener: StdListener) -> Result<(), End> {
    let signals = Signals::new()?;
    let hangup = signal(SignalKind::hangup())?;
    let supervisor = Supervisor::of_this_process();
    descriptors::refuse(&listener);
    let listener = into_tokio(listener)?;
    // Not waited for: what is mounted there later, only a later process of a service sees. Its supervisor starts that.
    let storage = Storage::open(&options.state)?;
    // The first look at this clock opens files.
    let sleep = SleepDetector::new(sleep::since_boot());
    sandbox::before_serving(&options.state, options.config.path())?;
    supervisor.ready();

    let (commands, command_queue) = mpsc::channel(64);
    let access = access(options.named);
    let control = Arc::new(Control::new(commands, Arc::clone(&options.event_log)));
    let mut tasks = Tasks::default();
    tasks.spawn("control socket", serve(listener, control, access, ConnectionLimits::default()));
    let daemon = Daemon::start(options, storage, sleep, command_queue, tasks);
    // The sessions are left to tund, which ends them if it stops too.
    daemon.run(signals, hangup).await
}

struct Daemon {
    tasks: Tasks,
    config: Live,
    storage: Storage,
    event_log: Arc<EventLog>,
    observer: Observer,
    containment: DatagramContainment,
    started: Instant,
    me: Option<keyd::Identity>,
    mesh: Option<Mesh>,
    keyd: Arc<DaemonLink<KeydApi>>,
    keyd_report: watch::Receiver<KeydReport>,
    identity: mpsc::Receiver<keyd::Identity>,
    commands: mpsc::Receiver<LoopRequest>,
    tund: Arc<DaemonLink<TundApi>>,
    checked: mpsc::Receiver<Checked>,
    checked_sender: mpsc::Sender<Checked>,
    waiting: HashMap<CommandId, ReplySender>,
    next_command: CommandId,
    updates: mpsc::Receiver<Update>,
    lookups: mpsc::Sender<DestinationHash>,
    data_lookups: mpsc::Sender<DestinationHash>,
    data_introductions: Introductions,
    /// The session for data that `tund` is about to get.
    attaching: Option<Arc<Open>>,
    /// Peers were left out that `tund` is about to get.
    introducing: bool,
    answers: mpsc::Receiver<(Ticket, Result<keyd::Reply, ApiError>)>,
    answer_sender: mpsc::Sender<(Ticket, Result<keyd::Reply, ApiError>)>,
    sessions: Context,
    control: Option<ControlSession>,
    /// Of the session that control messages are sent through, be it the fallback session.
    control_health: SessionHealth,
    /// Whether members hear what is sent through that.
    one_way_test: OneWayTest,
    renew_control: mpsc::Sender<Renewal>,
    fallback: Option<FallbackSession>,
    /// Since when the control session alone does not open, although members could be reached through one.
    control_missing: Option<Duration>,
    /// Since when the router has opened another session, while it is asked for the control session.
    control_unanswered: Option<Duration>,
    idle_test: IdleTest,
    control_status: SessionStatus,
    data_status: SessionStatus,
    sam_version: Option<String>,
    tunnel: watch::Sender<tunnel::Desired>,
    tunnel_report: watch::Receiver<tunnel::TundReport>,
    /// Members that tund calls and that have just given a sign of life.
    awake: mpsc::Sender<Vec<NodeId>>,
    peers_version: Option<u64>,
    peers_at: Instant,
    data_destination: Option<Destination>,
    data_health: SessionHealth,
    data_renewal: DataRenewal,
    pair_health: PairHealth,
    /// The session that `tund` is known to use.
    data_session: Option<String>,
    renew_data: mpsc::Sender<Renewal>,
    /// What comes of tests of the session for data.
    tested: mpsc::Receiver<bool>,
    tested_sender: mpsc::Sender<bool>,
    /// What users were last told of both sessions.
    told_health: [ToldHealth; 2],
    silence_limit: LogLimit,
    sleep: SleepDetector,
    /// When the host last woke up, or this process went on.
    slept_until: Option<Duration>,
    /// Why the state could not be saved, the last time that it was to be.
    unsaved: Option<String>,
    state_writes: meshd::WriteCounts,
    /// How long rounds of gossip took, and how many of them there are in [`Mesh::message_counts`].
    rounds: Histogram,
    rounds_observed: u64,
    sends: Histogram,
    /// Since when the interface that should be up has been missing.
    interface_missing: Option<Instant>,
    /// The state as it was saved last is to be kept beside the next one.
    set_aside: bool,
    /// The directory of the configuration was there when the sandbox was set up, so that it can be read again.
    sees_config: bool,
    /// The next process can read the configuration, and this one cannot.
    must_restart: bool,
}

impl Daemon {
    fn start(
        options: Options,
        storage: Storage,
        sleep: SleepDetector,
        commands: mpsc::Receiver<LoopRequest>,
        mut tasks: Tasks,
    ) -> Self {
        let keyd = Arc::new(DaemonLink::new(options.keyd.clone(), Role::Meshd));
        let (updates_sender, updates) = mpsc::channel(256);
        let (lookups, lookup_queue) = mpsc::channel(64);
        let (data_lookups, data_lookup_queue) = mpsc::channel(64);
        let (answer_sender, answers) = mpsc::channel(64);
        let (tunnel, desired) = watch::channel(tunnel::Desired::default());
        let (report, tunnel_report) = watch::channel(tunnel::TundReport::default());
        let (adopt_data, adopted_data) = oneshot::channel();
        let (adopt_control, adopted_control) = oneshot::channel();
        let adopt = tunnel::Adopt { data: adopt_data, control: adopt_control };
        let (identity_sender, identity) = mpsc::channel(1);
        let (keyd_sender, keyd_report) =
            watch::channel(KeydReport { daemon: Err("not reached yet".to_owned()), connector: None });

        let context = Context {
            bridge: Bridge {
                address: options.config.sam_address.clone(),
                udp_port: options.config.sam_udp_port,
            },
            udp_port: Arc::default(),
            proven_port: Arc::default(),
            path: Arc::default(),
            tunnels: Tunnels {
                length: options.config.tunnel_length,
                length_variance: options.config.tunnel_length_variance,
                quantity: options.config.tunnel_quantity,
                backup_quantity: options.config.tunnel_backup_quantity,
            },
            keyd: Arc::clone(&keyd),
            updates: updates_sender,
            failures: Arc::new(Mutex::new(LogLimit::default())),
            started: Instant::now(),
        };
        tasks.spawn("keyd watch", watch_keyd(options.keyd, keyd_sender, identity_sender));
        let (control, data) = (SessionKind::Control, SessionKind::Data);
        let release = Release::new(storage.router_lingers(), context.started.elapsed());
        let no_release = Release::default();
        let ((renew_control, control_renewals), (renew_data, data_renewals)) =
            (mpsc::channel(4), mpsc::channel(4));
        tasks.spawn(
            "control session",
            sessions::keep(
                context.clone(),
                control,
                release,
                lookup_queue,
                adopted_control,
                control_renewals,
            ),
        );
        tasks.spawn(
            "data session",
            sessions::keep(context.clone(), data, no_release, data_lookup_queue, adopted_data, data_renewals),
        );
        let (awake, awakened) = mpsc::channel(4);
        let input = tunnel::TundInput { desired, awakened };
        let tund = Arc::new(DaemonLink::new(options.tund, Role::Meshd));
        tasks.spawn("tunnel", tunnel::keep(Arc::clone(&tund), input, report, adopt));
        let (checked_sender, checked) = mpsc::channel(4);
        let (tested_sender, tested) = mpsc::channel(4);

        let sees_config = has_directory(options.config.path());
        let now = Instant::now();
        let down = || SessionStatus { state: SessionState::Down, error: None };
        Self {
            tasks,
            config: Live::new(options.config),
            storage,
            event_log: options.event_log,
            observer: Observer::default(),
            containment: DatagramContainment::default(),
            started: now,
            me: None,
            mesh: None,
            keyd,
            keyd_report,
            identity,
            commands,
            tund,
            checked,
            checked_sender,
            waiting: HashMap::new(),
            next_command: 0,
            updates,
            lookups,
            data_lookups,
            data_introductions: Introductions::default(),
            attaching: None,
            introducing: false,
            answers,
            answer_sender,
            sessions: context,
            control: None,
            control_health: SessionHealth::new(CONTROL_PATIENCE.jittered(rand::random())),
            one_way_test: OneWayTest::default(),
            renew_control,
            fallback: None,
            control_missing: None,
            control_unanswered: None,
            idle_test: IdleTest::default(),
            control_status: down(),
            data_status: down(),
            sam_version: None,
            tunnel,
            tunnel_report,
            awake,
            peers_version: None,
            peers_at: now,
            data_destination: None,
            data_health: SessionHealth::new(DATA_PATIENCE.jittered(rand::random())),
            data_renewal: DataRenewal::default(),
            pair_health: PairHealth::default(),
            data_session: None,
            renew_data,
            tested,
            tested_sender,
            told_health: [ToldHealth::default(); 2],
            silence_limit: LogLimit::default(),
            sleep,
            slept_until: None,
            unsaved: None,
            state_writes: meshd::WriteCounts::default(),
            rounds: Histogram::default(),
            rounds_observed: 0,
            sends: Histogram::default(),
            interface_missing: None,
            set_aside: false,
            sees_config,
            must_restart: false,
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.started.elapsed(),
            unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Runs until it is asked to stop and has told others so.
    async fn run(mut self, mut signals: Signals, mut hangup: Signal) -> Result<(), End> {
        let mut stop_by: Option<tokio::time::Instant> = None;
        let supervisor = Supervisor::of_this_process();
        let mut watchdog = Watchdog::of_this_process();
        let mut health = interval(HEALTH_EVERY);
        loop {
            let times = [
                self.mesh.as_ref().and_then(Mesh::poll_timeout),
                self.data_health.poll_timeout(),
                self.data_renewal.poll_timeout(),
                self.control_health.poll_timeout(),
                self.fallback.as_ref().map(|fallback| fallback.until),
                Some(self.started.elapsed() + sleep::EVERY),
                self.data_introductions.poll_timeout(),
                self.control.as_ref().and_then(ControlSession::poll_timeout),
                self.fallback.as_ref().and_then(|fallback| fallback.session.as_ref()?.poll_timeout()),
            ];
            let soonest = self.started.elapsed() + self.until_peers();
            let wake = times.into_iter().flatten().min().map_or(soonest, |at| at.min(soonest));
            let wake = tokio::time::Instant::from_std(self.started + wake.max(self.started.elapsed()));
            tokio::select! {
                Some(me) = self.identity.recv() => self.on_identity(me)?,
                Some(update) = self.updates.recv() => self.on_update(update),
                Some((ticket, reply)) = self.answers.recv() => {
                    let now = self.now();
                    if let Some(mesh) = &mut self.mesh {
                        mesh.handle_keyd_reply(ticket, reply, now);
                    }
                }
                Ok(()) = self.tunnel_report.changed() => self.on_tunnel_report(),
                Some(came) = self.tested.recv() => {
                    let now = self.now().monotonic;
                    self.data_health.handle_test_result(came, now);
                }
                Ok(()) = self.keyd_report.changed() => {
                    let report = self.keyd_report.borrow_and_update();
                    let state = report.daemon.as_ref().map(|_| ()).map_err(String::as_str);
                    self.observer.handle_keyd_state(state).into_iter().for_each(|what| self.event_log.push(what));
                }
                Some(request) = self.commands.recv(), if stop_by.is_none() => self.on_request(request),
                Some(checked) = self.checked.recv(), if stop_by.is_none() => checked(&mut self),
                Some(()) = hangup.recv() => {
                    supervisor.reloading();
                    // What came of it stands in the log.
                    let _ = self.reload();
                    supervisor.ready();
                }
                ended = self.tasks.ended() => return Err(ended.into()),
                () = watchdog.due() => supervisor.alive(),
                _ = health.tick(), if supervisor.is_there() && stop_by.is_none() => {
                    supervisor.status(&health::line(&self.status()));
                }
                _ = signals.next(), if stop_by.is_none() => {
                    supervisor.stopping(self.config.current().shutdown_timeout);
                    if !self.mesh.as_mut().is_some_and(Mesh::begin_shutdown) {
                        return Ok(());
                    }
                    stop_by = Some(tokio::time::Instant::now() + self.config.current().shutdown_timeout);
                }
                () = sleep_until(stop_by.unwrap_or(wake)), if stop_by.is_some() => {
                    info!("others could not be told in time that this node stops");
                    return Ok(());
                }
                () = sleep_until(wake) => {}
            }
            let (now, began) = (self.now(), Instant::now());
            if let Some(mesh) = &mut self.mesh {
                if mesh.poll_timeout().is_some_and(|at| at <= now.monotonic) {
                    mesh.handle_timeout(now);
                }
                let turn = mesh.poll_turn();
                let stopped = mesh.is_shut_down();
                let rounds = mesh.message_counts().announcements;
                let missing = mesh.network().is_some() && self.tunnel_report.borrow().configured.is_none();
                self.interface_missing = missing.then(|| self.interface_missing.unwrap_or(began));
                self.carry_out(turn);
                if stopped {
                    return Ok(());
                }
                if std::mem::replace(&mut self.rounds_observed, rounds) != rounds {
                    self.rounds.observe(began.elapsed());
                }
            }
            self.adjust_tunnel();
            self.watch_sessions();
            if self.must_restart {
                // Whoever has asked for it gets the answer.
                tokio::time::sleep(ANSWERED).await;
                return Err(End::failed(
                    "the directory of the configuration has come: starting again to read it",
                ));
            }
        }
    }

    fn on_tunnel_report(&mut self) {
        let report = self.tunnel_report.borrow_and_update();
        let wanted = self.mesh.as_ref().and_then(Mesh::interface);
        let name = |node: &_| self.mesh.as_ref().and_then(|mesh| mesh.name_of(node));
        for what in self.observer.handle_tund_report(&report, wanted.as_ref(), name) {
            self.event_log.push(what);
        }
        drop(report);
        self.watch_pairs();
    }

    /// Saves, and only then acts.
    fn carry_out(&mut self, turn: Turn) {
        for what in turn.events {
            self.observer.handle_mesh_event(&what);
            self.event_log.push(what);
        }
        let state = self.mesh.as_ref().filter(|_| turn.save).map(Mesh::state);
        self.set_aside |= turn.set_aside;
        let saved = state.map(|state| {
            if self.set_aside {
                self.storage.set_aside()?;
                self.set_aside = false;
            }
            let started = Instant::now();
            let saved = self.storage.save(&state.to_bytes());
            self.state_writes.count += 1;
            self.state_writes.failed += u64::from(saved.is_err());
            let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.state_writes.micros = self.state_writes.micros.saturating_add(took);
            saved
        });
        if matches!(saved, Some(Ok(()))) {
            self.unsaved = None;
        }
        if let Some(Err(error)) = saved {
            // It is tried several times a second.
            if self.unsaved.replace(error.to_string()).is_none() {
                error!(%error, "cannot save the state; nothing is done that depends on it");
            }
            let (now, reason) = (self.now(), error.to_string());
            let Some(mesh) = &mut self.mesh else { return };
            let rest = mesh.handle_save_failure(turn.actions, &reason, now);
            for (command, error) in rest.failed {
                self.answer(command, Err(error.into()));
            }
            return self.do_all(rest.actions);
        }
        self.do_all(turn.actions);
    }

    fn do_all(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, message, as_control } => self.send(&to, &message, as_control),
                Action::LookUp(hash) => {
                    if self.lookups.try_send(hash).is_err() {
                        debug!("dropped a lookup: too many are waiting");
                    }
                }
                Action::Ask(ticket, request) => {
                    tokio::spawn(ask(Arc::clone(&self.keyd), ticket, *request, self.answer_sender.clone()));
                }
                Action::Answer(command, result) => self.answer(command, result.map_err(ApiError::from)),
            }
        }
    }

    fn answer(&mut self, command: CommandId, result: Result<meshd::Reply, ApiError>) {
        if let Some(waiting) = self.waiting.remove(&command) {
            let _ = waiting.send(result);
        }
    }

    /// When the peers are to be looked at next.
    fn until_peers(&self) -> Duration {
        let Some(mesh) = &self.mesh else { return PEERS_EVERY };
        let is_new = self.peers_version != Some(mesh.peers_version()) || self.introducing;
        let every = if is_new { PEERS_AT_MOST_EVERY } else { PEERS_EVERY };
        every.saturating_sub(self.peers_at.elapsed())
    }

    fn adjust_tunnel(&mut self) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else { return };
        let awake = mesh.poll_awake();
        if !awake.is_empty() {
            let report = self.tunnel_report.borrow();
            let stats = report.stats.iter().flat_map(|stats| &stats.peers);
            let called = stats.filter(|peer| peer.unanswered > 0 && awake.contains(&peer.node));
            let called: Vec<_> = called.map(|peer| peer.node).collect();
            if !called.is_empty() {
                // If others wait to be told, it is told with the next sign.
                let _ = self.awake.try_send(called);
            }
        }
        if !self.until_peers().is_zero() {
            return;
        }
        let Some(mesh) = &self.mesh else { return };
        let (interface, peers) = (mesh.interface().zip(mesh.epoch()), mesh.peers(now));
        let endings = mesh.endings();
        let version = mesh.peers_version();
        let limits = tund::Limits { tunnels: mesh.max_peers(), drain: self.config.current().drain_timeout };
        let peers = self.introduce(peers, now);
        self.peers_version = Some(version);
        self.peers_at = Instant::now();
        self.tunnel.send_if_modified(|desired| {
            let limited = desired.limits != Some(limits);
            let ids = |(id, _): &(_, _)| *id;
            let (peers_changed, endings_changed) =
                (*desired.peers != peers, !desired.endings.iter().map(ids).eq(endings.iter().map(ids)));
            if peers_changed {
                desired.peers = Arc::new(peers);
            }
            if endings_changed {
                desired.endings = Arc::new(endings);
            }
            let changed = limited || desired.interface != interface || peers_changed || endings_changed;
            desired.limits = Some(limits);
            desired.interface = interface;
            changed
        });
    }
}

/// Whether the directory is there in which the configuration is, or would be.
pub(super) fn has_directory(config: &Path) -> bool {
    config.parent().is_some_and(Path::is_dir)
}

/// What the mesh is to know of the configuration.
fn settings(config: &Config) -> Settings {
    Settings {
        name: config.name.clone(),
        subnet: config.tunnel_subnet,
        heartbeat: config.heartbeat_interval,
        peer_timeout: config.peer_timeout,
        max_peers: config.max_peers,
        control_rate: config.control_rate,
        interface: config.interface.clone(),
        mtu: config.mtu,
        keepalive: KEEPALIVE,
    }
}
