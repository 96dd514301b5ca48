//! The daemon's loop: carries events to the core and does what it says.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use i2plan_config::live::Live;
use i2plan_config::{Config, ConfigError};
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::keyd::{self, KeydApi, SessionKind};
use i2plan_ipc::api::meshd::{self, ConfigChange, SessionName, SessionState, What};
use i2plan_ipc::api::tund::{self, TundApi};
use i2plan_ipc::client::{Client, ClientError, Endpoint, Link};
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::sandbox::SandboxError;
use i2plan_ipc::daemon::tasks::{TaskEnded, Tasks};
use i2plan_ipc::hello::{HelloReply, Landlock};
use i2plan_ipc::server::{Limits, serve};
use i2plan_ipc::version::Version;
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use i2plan_proto::sam;
use thiserror::Error;
use tokio::net::{UdpSocket, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::containment::DatagramContainment;
use super::deafness::{Deafness, Signs};
use super::health;
use super::host::{self, Checked};
use super::observer::{self, Observer};
use super::row::Row;
use super::service::{Command, Control};
use super::sessions::{self, Context, Open, Update};
use super::storage::{Storage, StorageError};
use super::tunnel;
use crate::core::{Action, CommandId, Mesh, Now, Settings, Ticket, Turn, describe_key};
use crate::walls;

/// MTU of the tunnel interface, bytes: the least that IPv6 allows. A WireGuard packet of it is 1312 bytes.
const MTU: u16 = 1280;

/// Seconds between WireGuard keepalives.
const KEEPALIVE: u16 = 25;

/// How long after a control message a member counts as speaking.
const HEARD_LATELY: Duration = Duration::from_secs(60);

/// How often `keyd` is asked whether it is there.
const KEYD_POLL: Duration = Duration::from_secs(2);

/// How often `keyd` is asked about the connector while that is missing: `status` and `doctor` must not report it as missing
/// once it is there.
const CONNECTOR_POLL: Duration = Duration::from_millis(200);

/// Attempts at a question to a daemon while it cannot be reached, as it is for a moment when it restarts.
pub(super) const DAEMON_ATTEMPTS: u32 = 10;

/// Wait before a question to a daemon is asked again.
pub(super) const DAEMON_RETRY: Duration = Duration::from_millis(500);

/// How often peers are looked at anew, because their certificates may have run out.
const PEERS_EVERY: Duration = Duration::from_secs(60);

/// How often the peers are looked at, at most, however often something changes: there may be ten thousand.
const PEERS_AT_MOST_EVERY: Duration = Duration::from_millis(250);

/// How long members may speak without shaking hands, the first time.
const DATA_PATIENCE: Duration = Duration::from_secs(20);

/// How long members may leave this node without an answer after the control session was opened, the first time: a few
/// round trips of a slow path.
const CONTROL_PATIENCE: Duration = Duration::from_secs(15);

/// For how long there is another session in place of the control session. By then the members' routers have forgotten
/// what they knew of that (ECIES-X25519: after 8 to 10 minutes; emissary 0.4 looks every other minute).
const SUBSTITUTE_LASTS: Duration = Duration::from_secs(15 * 60);

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
    /// Where what happens is noted for those who follow the node.
    pub row: Arc<Row>,
}

/// Why the daemon ends other than by request.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The state cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The walls do not stand.
    #[error(transparent)]
    Walls(#[from] SandboxError),
    /// The operating system refuses something basic.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
    /// A part of the daemon is gone.
    #[error(transparent)]
    Task(#[from] TaskEnded),
}

/// Runs until the process is asked to stop.
///
/// # Errors
/// [`DaemonError`].
pub async fn run(options: Options, listener: StdListener) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let supervisor = Supervisor::of_this_process();
    // Not waited for: what is mounted there later, only a later process of a service sees. Its supervisor starts that.
    let storage = Storage::open(&options.state)?;
    walls::before_serving(&options.state, options.config.path())?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;

    let (commands, command_queue) = mpsc::channel(64);
    // The mode and group of the socket file say who may control this node.
    let access = Access::new([(Role::Client, Who::Anyone)]);
    let control = Arc::new(Control { commands, row: Arc::clone(&options.row) });
    let mut tasks = Tasks::default();
    tasks.spawn("control socket", serve(listener, control, access, Limits::default()));
    supervisor.ready();

    let daemon = Daemon::start(options, storage, command_queue, tasks);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // The sessions are left to tund, which ends them if it stops too.
    daemon.run(stop, hangup).await
}

/// What is known of one SAM session.
#[derive(Clone, PartialEq, Eq)]
struct SessionStatus {
    state: SessionState,
    error: Option<String>,
}

/// An open session for control messages.
struct ControlSession {
    open: Arc<Open>,
    socket: Arc<UdpSocket>,
}

impl ControlSession {
    fn send(&self, to: &Destination, message: &[u8]) {
        let datagram = sam::datagram::encode(&self.open.id, to, message);
        if let Err(error) = sessions::send(&self.socket, &datagram) {
            debug!(%error, "a control message was not sent");
        }
    }
}

/// The session in place of the control session, which ends with this.
struct Substitute {
    task: JoinHandle<()>,
    until: Duration,
    status: SessionStatus,
    session: Option<ControlSession>,
}

impl Drop for Substitute {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Daemon {
    tasks: Tasks,
    config: Live,
    storage: Storage,
    row: Arc<Row>,
    observer: Observer,
    containment: DatagramContainment,
    started: Instant,
    me: Option<keyd::Identity>,
    mesh: Option<Mesh>,
    keyd: Arc<Link<KeydApi>>,
    keyd_report: watch::Receiver<KeydReport>,
    identity: mpsc::Receiver<keyd::Identity>,
    commands: mpsc::Receiver<Command>,
    tund: Arc<Link<TundApi>>,
    checked: mpsc::Receiver<Checked>,
    checked_sender: mpsc::Sender<Checked>,
    waiting: HashMap<CommandId, oneshot::Sender<Result<meshd::Reply, ApiError>>>,
    next_command: CommandId,
    updates: mpsc::Receiver<Update>,
    lookups: mpsc::Sender<DestinationHash>,
    answers: mpsc::Receiver<(Ticket, Result<keyd::Reply, ApiError>)>,
    answer_sender: mpsc::Sender<(Ticket, Result<keyd::Reply, ApiError>)>,
    sessions: Context,
    control: Option<ControlSession>,
    control_since: Duration,
    control_deafness: Deafness,
    substitute: Option<Substitute>,
    control_status: SessionStatus,
    data_status: SessionStatus,
    sam_version: Option<String>,
    tunnel: watch::Sender<tunnel::Desired>,
    tunnel_report: watch::Receiver<tunnel::Report>,
    /// Members that tund calls and that have just given a sign of life.
    awake: mpsc::Sender<Vec<NodeId>>,
    peers_version: Option<u64>,
    peers_at: Instant,
    data_destination: Option<Destination>,
    data_deafness: Deafness,
    renew_data: Arc<Notify>,
    /// Why the state could not be saved, the last time that it was to be.
    unsaved: Option<String>,
    /// The state as it was saved last is to be kept beside the next one.
    set_aside: bool,
}

impl Daemon {
    fn start(
        options: Options,
        storage: Storage,
        commands: mpsc::Receiver<Command>,
        mut tasks: Tasks,
    ) -> Self {
        let keyd = Arc::new(Link::new(options.keyd.clone(), Role::Meshd));
        let (updates_sender, updates) = mpsc::channel(256);
        let (lookups, lookup_queue) = mpsc::channel(64);
        let (answer_sender, answers) = mpsc::channel(64);
        let (tunnel, desired) = watch::channel(tunnel::Desired::default());
        let (report, tunnel_report) = watch::channel(tunnel::Report::default());
        let (adopt_data, adopted_data) = oneshot::channel();
        let (adopt_control, adopted_control) = oneshot::channel();
        let adopt = tunnel::Adopt { data: adopt_data, control: adopt_control };
        let (identity_sender, identity) = mpsc::channel(1);
        let (keyd_sender, keyd_report) =
            watch::channel(KeydReport { daemon: Err("not reached yet".to_owned()), connector: None });

        let context = Context {
            bridge: options.config.sam_address,
            tunnel_length: options.config.tunnel_length,
            keyd: Arc::clone(&keyd),
            updates: updates_sender,
        };
        tasks.spawn("keyd watch", watch_keyd(options.keyd, keyd_sender, identity_sender));
        let (control, data) = (SessionKind::Control, SessionKind::Data);
        // The control session stays as it is, whoever reaches it: invites name it.
        let never = Arc::new(Notify::new());
        let renew_data = Arc::new(Notify::new());
        tasks.spawn(
            "control session",
            sessions::keep(context.clone(), control, Some(lookup_queue), adopted_control, never),
        );
        tasks.spawn(
            "data session",
            sessions::keep(context.clone(), data, None, adopted_data, Arc::clone(&renew_data)),
        );
        let (awake, awakened) = mpsc::channel(4);
        let told = tunnel::Told { desired, awakened };
        let tund = Arc::new(Link::new(options.tund, Role::Meshd));
        tasks.spawn("tunnel", tunnel::keep(Arc::clone(&tund), told, report, adopt));
        let (checked_sender, checked) = mpsc::channel(4);

        let now = Instant::now();
        let down = || SessionStatus { state: SessionState::Down, error: None };
        Self {
            tasks,
            config: Live::new(options.config),
            storage,
            row: options.row,
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
            answers,
            answer_sender,
            sessions: context,
            control: None,
            control_since: Duration::ZERO,
            control_deafness: Deafness::new(CONTROL_PATIENCE),
            substitute: None,
            control_status: down(),
            data_status: down(),
            sam_version: None,
            tunnel,
            tunnel_report,
            awake,
            peers_version: None,
            peers_at: now,
            data_destination: None,
            data_deafness: Deafness::new(DATA_PATIENCE),
            renew_data,
            unsaved: None,
            set_aside: false,
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.started.elapsed(),
            unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Runs until it is asked to stop and has told others so.
    async fn run(mut self, stop: impl Future<Output = ()>, mut hangup: Signal) -> Result<(), DaemonError> {
        tokio::pin!(stop);
        let mut stop_by: Option<tokio::time::Instant> = None;
        let supervisor = Supervisor::of_this_process();
        let mut watchdog = Watchdog::of_this_process();
        let mut health = interval(HEALTH_EVERY);
        loop {
            let times = [
                self.mesh.as_ref().and_then(Mesh::wake_at),
                self.data_deafness.wake_at(),
                self.control_deafness.wake_at(),
                self.substitute.as_ref().map(|substitute| substitute.until),
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
                        mesh.on_keyd(ticket, reply, now);
                    }
                }
                Ok(()) = self.tunnel_report.changed() => self.on_tunnel_report(),
                Ok(()) = self.keyd_report.changed() => {
                    let report = self.keyd_report.borrow_and_update();
                    let state = report.daemon.as_ref().map(|_| ()).map_err(String::as_str);
                    self.observer.on_keyd(state).into_iter().for_each(|what| self.row.push(what));
                }
                Some(command) = self.commands.recv(), if stop_by.is_none() => self.on_command(command),
                Some(checked) = self.checked.recv(), if stop_by.is_none() => self.on_checked(checked),
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
                () = &mut stop, if stop_by.is_none() => {
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
            let now = self.now();
            if let Some(mesh) = &mut self.mesh {
                if mesh.wake_at().is_some_and(|at| at <= now.monotonic) {
                    mesh.on_time(now);
                }
                let turn = mesh.take_turn();
                let stopped = mesh.is_shut_down();
                self.carry_out(turn);
                if stopped {
                    return Ok(());
                }
            }
            self.adjust_tunnel();
            self.listen();
        }
    }

    /// Does something about sessions through which nobody can be reached.
    fn listen(&mut self) {
        self.listen_for_handshakes();
        self.listen_for_members();
    }

    fn listen_for_members(&mut self) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else { return };
        if self.substitute.as_ref().is_some_and(|substitute| substitute.until <= now.monotonic) {
            info!("the control session takes its place again");
            self.substitute = None;
            let (session, state) = (SessionName::Substitute, SessionState::Down);
            self.row.push(What::Session { session, state, error: None });
            self.control_since = now.monotonic;
            mesh.on_substitute(None, now);
            mesh.on_session(now);
        }
        let signs = Signs {
            expected: self.control.is_some() && self.substitute.is_none() && mesh.has_company(),
            works: mesh.last_heard().is_some_and(|heard| heard > self.control_since),
        };
        if self.control_deafness.observe(signs, now.monotonic) {
            warn!("no member answers: a session under another destination takes the control session's place");
            self.open_substitute(now);
            return;
        }
        // One that is there already may be of no more use to whom this node asks now.
        let is_opening = self.substitute.as_ref().is_some_and(|substitute| substitute.session.is_none());
        if mesh.asks_in_vain() && self.control.is_some() && !is_opening {
            warn!("the inviter does not answer: it is to be asked from another destination too");
            mesh.on_substitute(None, now);
            self.open_substitute(now);
        }
    }

    /// Has a session opened under a new destination, in place of the one that there may be.
    fn open_substitute(&mut self, now: Now) {
        let (kind, adopt) = (SessionKind::Substitute, oneshot::channel().1);
        let keep = sessions::keep(self.sessions.clone(), kind, None, adopt, Arc::new(Notify::new()));
        self.substitute = Some(Substitute {
            task: tokio::spawn(keep),
            until: now.monotonic + SUBSTITUTE_LASTS,
            status: SessionStatus { state: SessionState::Down, error: None },
            session: None,
        });
    }

    /// Opens the session for data again if nobody shakes hands through it.
    fn listen_for_handshakes(&mut self) {
        let Some(mesh) = &self.mesh else { return };
        let now = self.now();
        let tunnel = self.tunnel_report.borrow();
        // In a large network nobody shakes hands unasked.
        let unasked = || {
            let there = self.tunnel.borrow().peers.iter().filter(|peer| peer.keepalive > 0).count();
            u32::try_from(there).is_ok_and(|there| there <= mesh.max_peers())
        };
        let called = || tunnel.stats.iter().flat_map(|stats| &stats.peers).any(|peer| peer.unanswered > 0);
        let signs = Signs {
            expected: self.data_status.state == SessionState::Up
                && tunnel.configured.is_some()
                && (unasked() || called())
                && mesh.last_heard().is_some_and(|heard| now.monotonic < heard + HEARD_LATELY),
            works: observer::sessions(tunnel.stats.as_ref()).next().is_some(),
        };
        if self.data_deafness.observe(signs, now.monotonic) {
            warn!("members speak to this node, but none shakes hands: the session for data is opened again");
            self.renew_data.notify_one();
        }
    }

    fn on_identity(&mut self, me: keyd::Identity) -> Result<(), DaemonError> {
        match self.me {
            Some(known) if (known.node, known.control) == (me.node, me.control) => {
                // Keys may be sealed while keyd is away.
                self.me = Some(me);
                return Ok(());
            }
            Some(_) => {
                // Not to be mended by going on: what this process knows belongs to the other identity.
                error!("keyd has come back with another identity");
                return Err(std::io::Error::other("keyd has come back with another identity").into());
            }
            None => {}
        }
        let state = self.storage.load(&me.node)?;
        let settings = settings(self.config.current());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        info!(node = %me.node, control = %me.control.hash().b32(), "this node is known to keyd");
        self.me = Some(me);
        let mut mesh = Mesh::new(me, settings, state, seed, self.now());
        if let Some(destination) = self.data_destination {
            mesh.on_data_session(destination);
        }
        self.mesh = Some(mesh);
        Ok(())
    }

    fn on_update(&mut self, update: Update) {
        let now = self.now();
        match update {
            Update::Version(version) => self.sam_version = Some(version),
            Update::State { kind, state, error } => {
                let status = match (kind, &mut self.substitute) {
                    (SessionKind::Control, _) => &mut self.control_status,
                    (SessionKind::Data, _) => &mut self.data_status,
                    (SessionKind::Substitute, Some(substitute)) => &mut substitute.status,
                    // From a task that has been ended.
                    (SessionKind::Substitute, None) => return,
                };
                // The reason of the last failure is of use until the session is up again.
                let error =
                    if state == SessionState::Opening { error.or(status.error.take()) } else { error };
                let before = std::mem::replace(status, SessionStatus { state, error });
                if before != *status {
                    let session = match kind {
                        SessionKind::Control => SessionName::Control,
                        SessionKind::Substitute => SessionName::Substitute,
                        SessionKind::Data => SessionName::Data,
                    };
                    self.row.push(What::Session { session, state, error: status.error.clone() });
                }
                match (kind, state, &mut self.substitute) {
                    (_, SessionState::Up, _) => {}
                    (SessionKind::Control, ..) => self.control = None,
                    (SessionKind::Substitute, _, Some(substitute)) => substitute.session = None,
                    _ => {}
                }
            }
            Update::Control(SessionKind::Substitute, open, socket) => {
                let destination = open.destination;
                if let (Some(substitute), Some(mesh)) = (&mut self.substitute, &mut self.mesh) {
                    substitute.session = Some(ControlSession { open, socket });
                    mesh.on_substitute(Some(destination), now);
                }
            }
            Update::Control(_, open, socket) => {
                self.tunnel.send_modify(|desired| desired.control = Some(Arc::clone(&open)));
                self.control = Some(ControlSession { open, socket });
                self.control_since = now.monotonic;
                if let Some(mesh) = &mut self.mesh {
                    mesh.on_session(now);
                }
            }
            Update::Data(session) => {
                self.data_destination = Some(session.destination);
                if let Some(mesh) = &mut self.mesh {
                    mesh.on_data_session(session.destination);
                }
                self.tunnel.send_modify(|desired| desired.session = Some(session));
            }
            Update::Datagram { from, payload } => {
                if let Some(mesh) = &mut self.mesh {
                    let work = || mesh.on_datagram(&from, &payload, now);
                    self.containment.handle(|| from.hash(), now.monotonic, work);
                }
            }
            Update::Found { hash, destination } => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.on_found(hash, destination, now);
                }
            }
        }
    }

    /// A user changes a key.
    fn set_config(&mut self, key: &str, value: &str) -> Result<Vec<ConfigChange>, ApiError> {
        let changes = self.config.set(key, value)?;
        self.on_config_changed(&changes);
        Ok(changes)
    }

    /// Reads the configuration again; what is wrong with it leaves everything as it is.
    fn reload(&mut self) -> Result<Vec<ConfigChange>, ApiError> {
        match self.config.reload() {
            Ok(changes) => {
                info!(changes = changes.len(), "the configuration was read again");
                self.on_config_changed(&changes);
                Ok(changes)
            }
            Err(error) => {
                error!(%error, "the configuration cannot be used; the one before stays in force");
                let hint = match error {
                    ConfigError::Read { .. } => {
                        "see that meshd's user may read it; if its directory was made after meshd started, restart meshd"
                    }
                    _ => "the configuration before stays in force; correct the file and try again",
                };
                Err(ApiError::invalid(error.to_string()).with_hint(hint))
            }
        }
    }

    fn on_config_changed(&mut self, changes: &[ConfigChange]) {
        for ConfigChange { key, before, after, restart } in changes {
            let (before, after) = (before.as_deref().unwrap_or("none"), after.as_deref().unwrap_or("none"));
            if *restart {
                warn!(key, before, after, "a key has another value, which counts only after a restart");
            } else {
                info!(key, before, after, "a key of the configuration has changed");
                self.row.push(What::ConfigChanged { key: key.clone(), value: after.to_owned() });
            }
        }
        let now = self.now();
        if changes.iter().any(|change| !change.restart)
            && let Some(mesh) = &mut self.mesh
        {
            mesh.reconfigure(settings(self.config.current()), now);
        }
    }

    fn on_tunnel_report(&mut self) {
        let report = self.tunnel_report.borrow_and_update();
        let wanted = self.mesh.as_ref().and_then(Mesh::interface);
        let name = |node: &_| self.mesh.as_ref().and_then(|mesh| mesh.name_of(node));
        for what in self.observer.on_tund(&report, wanted.as_ref(), name) {
            self.row.push(what);
        }
    }

    fn on_command(&mut self, command: Command) {
        let (request, answer) = match command {
            Command::Request(request, answer) => (request, answer),
            Command::Traffic(answer) => {
                let _ = answer.send(self.traffic());
                return;
            }
        };
        // A caller that has gone does not want its answer.
        match request {
            meshd::Request::Status => {
                let _ = answer.send(Ok(meshd::Reply::Status(Box::new(self.status()))));
                return;
            }
            meshd::Request::Peers => {
                let _ = answer.send(Ok(meshd::Reply::Peers(self.peers())));
                return;
            }
            meshd::Request::Config => {
                let _ = answer.send(Ok(meshd::Reply::Config(self.config.settings())));
                return;
            }
            meshd::Request::SetConfig { key, value } => {
                let result = self.set_config(&key, &value);
                let _ = answer.send(result.map(meshd::Reply::ConfigChanged));
                return;
            }
            meshd::Request::Reload => {
                let _ = answer.send(self.reload().map(meshd::Reply::ConfigChanged));
                return;
            }
            _ => {}
        }
        let member_of = self.mesh.as_ref().and_then(Mesh::subnet);
        match host::question(&request, self.config.current(), member_of) {
            Ok(None) => self.have_mesh_do(request, answer),
            Ok(Some(question)) => {
                let (tund, checked) = (Arc::clone(&self.tund), self.checked_sender.clone());
                tokio::spawn(host::ask(tund, question, request, answer, checked));
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// The host has room for the network that a request is about, or has not.
    fn on_checked(&mut self, checked: Checked) {
        let Checked { request, answer, subnet } = checked;
        match (subnet, &request) {
            (Err(error), _) => {
                let _ = answer.send(Err(error));
            }
            (Ok(_), meshd::Request::CheckNetwork { .. }) => {
                let _ = answer.send(Ok(meshd::Reply::Acceptable));
            }
            (Ok(subnet), _) => {
                if let (Some(mesh), meshd::Request::CreateInvite { .. }) = (&mut self.mesh, &request) {
                    mesh.prefer_subnet(subnet);
                }
                self.have_mesh_do(request, answer);
            }
        }
    }

    /// Carries out a request that is about the mesh.
    fn have_mesh_do(
        &mut self,
        request: meshd::Request,
        answer: oneshot::Sender<Result<meshd::Reply, ApiError>>,
    ) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else {
            let error =
                ApiError::unavailable("keyd is not reachable, so this node does not know its own identity")
                    .with_hint("see that i2plan-keyd runs, and its log");
            let _ = answer.send(Err(error));
            return;
        };
        let report = match (&request, &self.me) {
            (meshd::Request::Keys, Some(me)) => Some(meshd::Reply::Keys(Box::new(public_keys(me, mesh)))),
            (meshd::Request::Routes, _) => Some(meshd::Reply::Routes(mesh.routes(now))),
            (meshd::Request::ListBans, _) => Some(meshd::Reply::Bans(mesh.ban_reports())),
            (meshd::Request::ListInvites, _) => Some(meshd::Reply::Invites(mesh.invite_reports(now))),
            _ => None,
        };
        if let Some(report) = report {
            let _ = answer.send(Ok(report));
            return;
        }
        let id = self.next_command;
        self.next_command += 1;
        self.waiting.insert(id, answer);
        match request {
            // Its subnet has been seen to.
            meshd::Request::CreateInvite { expires_in, max_uses, addresses, subnet: _ } => {
                mesh.create_invite(id, expires_in, max_uses, addresses, now);
            }
            meshd::Request::RotateKey => mesh.rotate_key(id, now),
            meshd::Request::RecoverKeys => mesh.recover_keys(id, now),
            meshd::Request::Join { invite } => mesh.join(id, invite.expose(), now),
            meshd::Request::RevokeInvite { id: invite, with_members } => {
                mesh.revoke_invite(id, &invite, with_members, now);
            }
            meshd::Request::Grant { node_id, addresses } => mesh.grant(id, &node_id, addresses, now),
            meshd::Request::AddBan { node_id, description, duration } => {
                mesh.add_ban(id, &node_id, description, duration, now);
            }
            meshd::Request::RemoveBan { node_id } => mesh.remove_ban(id, &node_id),
            meshd::Request::AllowInvite { id: invite } => mesh.allow_invite(id, &invite),
            meshd::Request::Enact(executed) => mesh.enact(id, *executed, now),
            meshd::Request::Revoke { node_id } => mesh.revoke(id, &node_id),
            meshd::Request::Leave => mesh.leave(id),
            // Answered above, or where they are received.
            meshd::Request::Events { .. }
            | meshd::Request::CheckNetwork { .. }
            | meshd::Request::Status
            | meshd::Request::Peers
            | meshd::Request::Config
            | meshd::Request::SetConfig { .. }
            | meshd::Request::Reload
            | meshd::Request::Keys
            | meshd::Request::Routes
            | meshd::Request::ListBans
            | meshd::Request::ListInvites => {}
        }
    }

    /// Saves, and only then acts.
    fn carry_out(&mut self, turn: Turn) {
        for what in turn.events {
            self.observer.on_mesh(&what);
            self.row.push(what);
        }
        let state = self.mesh.as_ref().filter(|_| turn.save).map(Mesh::state);
        self.set_aside |= turn.set_aside;
        let saved = state.map(|state| {
            if self.set_aside {
                self.storage.set_aside()?;
                self.set_aside = false;
            }
            self.storage.save(&state.to_bytes())
        });
        if matches!(saved, Some(Ok(()))) {
            self.unsaved = None;
        }
        if let Some(Err(error)) = saved {
            // It is tried several times a second.
            if self.unsaved.replace(error.to_string()).is_none() {
                error!(%error, "cannot save the state; nothing is done that depends on it");
            }
            let error = ApiError::internal(format!("cannot save the state: {error}"));
            let now = self.now();
            let failed = self.mesh.as_mut().map(|mesh| mesh.on_save_failed(turn.actions, &error, now));
            for (command, error) in failed.into_iter().flatten() {
                self.answer(command, Err(error));
            }
            return;
        }
        for action in turn.actions {
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
                Action::Answer(command, result) => self.answer(command, *result),
            }
        }
    }

    fn answer(&mut self, command: CommandId, result: Result<meshd::Reply, ApiError>) {
        if let Some(waiting) = self.waiting.remove(&command) {
            let _ = waiting.send(result);
        }
    }

    fn send(&self, to: &Destination, message: &[u8], as_control: bool) {
        let substitute = self.substitute.as_ref().and_then(|substitute| substitute.session.as_ref());
        match substitute.filter(|_| !as_control).or(self.control.as_ref()) {
            Some(session) => session.send(to, message),
            None => debug!("a control message was not sent: the session is down"),
        }
    }

    /// When the peers are to be looked at next.
    fn until_peers(&self) -> Duration {
        let Some(mesh) = &self.mesh else { return PEERS_EVERY };
        let is_new = self.peers_version != Some(mesh.peers_version());
        let every = if is_new { PEERS_AT_MOST_EVERY } else { PEERS_EVERY };
        every.saturating_sub(self.peers_at.elapsed())
    }

    fn adjust_tunnel(&mut self) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else { return };
        let awake = mesh.take_awake();
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
        let limits = tund::Limits { tunnels: mesh.max_peers(), drain: self.config.current().drain_timeout };
        self.peers_version = Some(mesh.peers_version());
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

    fn status(&self) -> meshd::Status {
        let tunnel = self.tunnel_report.borrow();
        let session = |status: &SessionStatus, destination: Option<DestinationHash>| meshd::Session {
            state: status.state,
            destination: destination.map(|hash| hash.b32()),
            error: status.error.clone(),
        };
        let published = self.mesh.as_ref().and_then(Mesh::published_key);
        let mut tunnel_error = tunnel.error.clone();
        if let (Some(configured), Some(published)) = (&tunnel.configured, published)
            && configured.public_key != published
        {
            tunnel_error =
                Some("tund uses another WireGuard key than this node has published; restart it".to_owned());
        }
        let tunnel_hint = tunnel.hint.clone().filter(|_| tunnel_error == tunnel.error);
        let keyd = self.keyd_report.borrow();
        let daemon = |role: Role, hello: Option<&HelloReply>, error: Option<String>| meshd::Daemon {
            name: role.to_string(),
            pid: hello.map(|hello| hello.pid),
            version: hello.map(|hello| hello.version.clone()),
            landlock: hello.map(|hello| hello.landlock),
            error,
            hint: None,
        };
        meshd::Status {
            name: self.config.current().name.to_string(),
            node_id: self.me.map(|me| me.node.to_string()),
            uptime: self.started.elapsed().as_secs(),
            network: self.mesh.as_ref().and_then(|mesh| mesh.network_status(self.now())),
            former: self.mesh.as_ref().and_then(Mesh::former_status),
            keys: self.mesh.as_ref().map(|mesh| mesh.keys_problems(self.now())).unwrap_or_default(),
            sam: meshd::Sam {
                address: self.sessions.bridge,
                version: self.sam_version.clone(),
                control: session(&self.control_status, self.me.map(|me| me.control.hash())),
                substitute: self.substitute.as_ref().map(|substitute| {
                    let open = substitute.session.as_ref().map(|session| session.open.destination.hash());
                    session(&substitute.status, open)
                }),
                data: session(&self.data_status, self.data_destination.map(|data| data.hash())),
            },
            tunnel: meshd::Tunnel {
                interface: tunnel.configured.as_ref().map(|configured| configured.interface.clone()),
                mtu: MTU,
                public_key: tunnel
                    .configured
                    .as_ref()
                    .map(|configured| data_encoding::BASE64.encode(&configured.public_key)),
                drops: tunnel.stats.as_ref().map(|stats| stats.drops),
                overlaps: tunnel.stats.as_ref().map(|stats| stats.overlaps.clone()).unwrap_or_default(),
                without_ipv6: tunnel.stats.as_ref().is_some_and(|stats| stats.without_ipv6),
            },
            daemons: vec![
                daemon(Role::Keyd, keyd.daemon.as_ref().ok(), keyd.daemon.as_ref().err().cloned()),
                meshd::Daemon {
                    name: Role::Connector.to_string(),
                    pid: keyd.connector.as_ref().map(|connector| connector.pid),
                    version: keyd.connector.as_ref().map(|connector| connector.version.clone()),
                    landlock: keyd.connector.as_ref().map(|connector| connector.landlock),
                    // Without keyd nobody knows.
                    error: (keyd.daemon.is_ok() && keyd.connector.is_none())
                        .then(|| "it is not connected to keyd".to_owned()),
                    hint: None,
                },
                meshd::Daemon {
                    name: Role::Meshd.to_string(),
                    pid: Some(std::process::id()),
                    version: Some(Version::current()),
                    landlock: Some(Landlock::of_this_process()),
                    error: self.unsaved.as_ref().map(|error| format!("cannot save the state: {error}")),
                    hint: None,
                },
                meshd::Daemon {
                    hint: tunnel_hint,
                    ..daemon(Role::Tund, tunnel.daemon.as_ref(), tunnel_error)
                },
            ],
        }
    }

    fn traffic(&self) -> meshd::Traffic {
        let tunnel = self.tunnel_report.borrow();
        let stats = tunnel.stats.iter().flat_map(|stats| &stats.peers);
        let peers = stats.filter(|peer| peer.tx_packets > 0 || peer.rx_packets > 0);
        let peers = peers.map(|peer| meshd::PeerTraffic {
            node_id: peer.node.to_string(),
            tx_bytes: peer.tx_bytes,
            rx_bytes: peer.rx_bytes,
            last_handshake: peer.last_handshake,
            rtt: self.mesh.as_ref().and_then(|mesh| mesh.rtt_of(&peer.node)).map(millis),
        });
        meshd::Traffic { at: millis(self.started.elapsed()), peers: peers.collect() }
    }

    fn peers(&self) -> Vec<meshd::Peer> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let tunnel = self.tunnel_report.borrow();
        let stats = tunnel.stats.iter().flat_map(|stats| &stats.peers);
        let stats: HashMap<_, _> = stats.map(|peer| (peer.node, peer)).collect();
        let reports = mesh.peer_reports(self.now()).into_iter();
        reports
            .map(|(node, mut peer)| {
                if let Some(stats) = stats.get(&node) {
                    peer.last_handshake = stats.last_handshake;
                    peer.tx_packets = stats.tx_packets;
                    peer.tx_bytes = stats.tx_bytes;
                    peer.rx_packets = stats.rx_packets;
                    peer.rx_bytes = stats.rx_bytes;
                    peer.queue_drops = stats.queue_drops;
                    peer.rx_drops = stats.rx_drops;
                }
                peer
            })
            .collect()
    }
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
        mtu: MTU,
        keepalive: KEEPALIVE,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The public half of the node's keys.
fn public_keys(me: &keyd::Identity, mesh: &Mesh) -> meshd::Keys {
    meshd::Keys {
        node_id: me.node.to_string(),
        sealed: me.sealed,
        control: meshd::ControlDestination { b32: me.control.hash().b32(), base64: me.control.to_base64() },
        network: mesh.network().map(|network| network.to_string()),
        wireguard: mesh.published_certificate().map(describe_key),
    }
}

/// Asks `keyd`, again while it cannot be reached: all that is asked of it may be asked twice.
async fn ask(
    keyd: Arc<Link<KeydApi>>,
    ticket: Ticket,
    request: keyd::Request,
    answers: mpsc::Sender<(Ticket, Result<keyd::Reply, ApiError>)>,
) {
    let mut attempt = 1;
    let reply = loop {
        match keyd.call(request.clone()).await {
            Ok(reply) => break Ok(reply),
            Err(ClientError::Api(error)) => break Err(error),
            Err(error) if attempt >= DAEMON_ATTEMPTS => break Err(error.into_api()),
            Err(error) => {
                debug!(%error, "keyd is not there; asking again");
                attempt += 1;
                sleep(DAEMON_RETRY).await;
            }
        }
    };
    let _ = answers.send((ticket, reply)).await;
}

/// What is known of `keyd`, and by it of the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeydReport {
    /// Why it is not there, if it is not.
    daemon: Result<HelloReply, String>,
    connector: Option<keyd::Connector>,
}

/// Looks after `keyd`: tells who the node is, and whether it is there.
async fn watch_keyd(
    keyd: Endpoint,
    report: watch::Sender<KeydReport>,
    identity: mpsc::Sender<keyd::Identity>,
) {
    loop {
        let error = match watch_connection(&keyd, &report, &identity).await {
            Err(error) => error,
            Ok(never) => match never {},
        };
        let error = error.to_string();
        if report.borrow().daemon.as_ref().err() != Some(&error) {
            warn!(%error, "keyd is not there");
        }
        let _ = report.send_replace(KeydReport { daemon: Err(error), connector: None });
        sleep(DAEMON_RETRY).await;
    }
}

async fn watch_connection(
    keyd: &Endpoint,
    report: &watch::Sender<KeydReport>,
    identity: &mpsc::Sender<keyd::Identity>,
) -> Result<Infallible, ClientError> {
    let mut client = Client::<KeydApi>::connect(keyd.clone(), Role::Meshd).await?;
    loop {
        if let keyd::Reply::Identity(me) = client.call(keyd::Request::Identity).await? {
            let _ = identity.send(me).await;
        }
        let connector = match client.call(keyd::Request::Connector).await? {
            keyd::Reply::Connector(connector) => connector,
            _ => None,
        };
        let pause = if connector.is_some() { KEYD_POLL } else { CONNECTOR_POLL };
        let found = KeydReport { daemon: Ok(client.daemon().clone()), connector };
        report.send_if_modified(|report| {
            let changed = *report != found;
            *report = found;
            changed
        });
        sleep(pause).await;
    }
}
