//! The SAM sessions: opened with `keyd`'s help, watched, and opened again when they are lost.

use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use i2plan_ipc::api::keyd::{self, KeydApi, SessionKind};
use i2plan_ipc::api::meshd::SessionState;
use i2plan_ipc::bridge::{Bridge, Unfinished};
use i2plan_ipc::client::{ClientError, DaemonLink};
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::endpoint::AnyDestination;
use i2plan_proto::message;
use i2plan_proto::sam;
use i2plan_proto::sam::connection::{Found, Received};
use i2plan_proto::sam::self_test::loops_back;
use i2plan_proto::sam::session::{Style, Tunnels};
use i2plan_transport::control::{Control, Outgoing, quit};
use i2plan_transport::retry::{Cause, Release, Retry, jittered};
use i2plan_transport::self_test::{self, SelfTestError, Tested};
use i2plan_transport::udp::{self, MAX_DATAGRAM};
use rand::RngExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::control_path::{ControlPath, Path};

/// How long a session for data is kept open through which no UDP comes back, where control messages go over TCP: until
/// UDP works, if another would be no better.
const HELD: Duration = Duration::from_secs(15 * 60);

/// Datagrams that wait until a connection takes them.
const MAX_OUTGOING: usize = 64;

/// An open session, by what keeps and uses it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: String,
    /// Connected to the bridge, which forwards to it.
    pub(super) udp: OwnedFd,
    /// A duplicate of the control connection.
    pub(super) tcp: OwnedFd,
    pub(super) destination: Destination,
}

impl Open {
    /// A duplicate of its UDP socket.
    fn socket(&self) -> io::Result<UdpSocket> {
        self.udp.try_clone().map(StdUdpSocket::from).and_then(UdpSocket::from_std)
    }
}

/// How control messages go to the bridge.
#[derive(Debug, Clone)]
pub(super) enum ControlSender {
    Udp(Arc<UdpSocket>),
    Tcp(mpsc::Sender<Outgoing>),
}

impl ControlSender {
    pub(super) fn send(&self, session: &str, to: &Destination, message: &[u8]) {
        let sent = match self {
            Self::Udp(socket) => udp::send(socket, &sam::datagram::encode(session, to, message)),
            Self::Tcp(queue) => queue
                .try_send((to.to_base64(), message.to_vec()))
                .map_err(|_| io::ErrorKind::WouldBlock.into()),
        };
        if let Err(error) = sent {
            debug!(%error, "a control message was not sent");
        }
    }
}

/// A session that was opened or taken over.
struct Opened {
    stream: TcpStream,
    session: Open,
    /// Its connection, if that carries its datagrams.
    datagrams: Option<Control>,
}

/// What happens to the sessions.
#[derive(Debug)]
pub(super) enum Update {
    /// The router says that it has opened a session of this kind; with the bridge's version.
    Answered(SessionKind, String),
    /// Whether the router goes on with a permanent destination for a while when a session of it is closed.
    Lingers(bool),
    /// A session's state has changed.
    State { kind: SessionKind, state: SessionState, error: Option<String> },
    /// The session for data is open, or that of a static interface.
    Data(Arc<Open>),
    /// The session for data has this destination, and waits until UDP comes back from the bridge.
    Held(Destination),
    /// The control session, or the fallback session, is open, with what to send through.
    Control(SessionKind, Arc<Open>, ControlSender),
    /// A repliable datagram has come through the session of this kind.
    Datagram { kind: SessionKind, from: Destination, payload: Vec<u8> },
    /// A datagram of the session's own destination has come back through it.
    Echo,
    /// A lookup over the session of this kind is done.
    Found { kind: SessionKind, hash: DestinationHash, destination: Result<AnyDestination, String> },
}

/// What is wanted of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Open another session for data, for when it is wanted: until [`Renewal::Open`] or [`Renewal::Keep`] it is of no use.
    Prepare,
    /// Open another session in its place. One for data stays until the other is there.
    Open,
    /// Open another, under the destination of this kind, and let this one stay until it is there.
    Under(SessionKind),
    /// Keep it, if the other is not in its place yet.
    Keep,
    /// Give up the attempt to open it, and begin another: the router will not answer. Of no effect on one that is open.
    Retry,
}

/// What all sessions need.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The bridge that is configured.
    pub(super) bridge: Bridge,
    /// The UDP port of the bridge through which a session was last tested; 0 before.
    pub(super) udp_port: Arc<AtomicU16>,
    /// The same, if nothing has cast doubt on it since.
    pub(super) proven_port: Arc<AtomicU16>,
    /// How control messages go.
    pub(super) path: Arc<Mutex<ControlPath>>,
    /// What the tunnels of every session are to be.
    pub(super) tunnels: Tunnels,
    pub(super) keyd: Arc<DaemonLink<KeydApi>>,
    pub(super) updates: mpsc::Sender<Update>,
    /// The log's lines about sessions that are down, since `started`.
    pub(super) failures: Arc<Mutex<LogLimit>>,
    pub(super) started: Instant,
}

impl Context {
    pub(super) fn path(&self) -> MutexGuard<'_, ControlPath> {
        self.path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the line is one that is read, and so its end is worth another.
    fn log_failure(&self, kind: SessionKind, error: &str, wait: Duration) -> bool {
        let retry_ms = wait.as_millis();
        let mut limit = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let told = limit.admit(error, self.started.elapsed());
        if told {
            warn!(?kind, %error, retry_ms, "a session is down");
        } else {
            debug!(?kind, %error, retry_ms, "a session is down");
        }
        told
    }

    async fn state(&self, kind: SessionKind, state: SessionState, error: Option<String>) {
        let _ = self.updates.send(Update::State { kind, state, error }).await;
    }
}

/// How an open session has ended.
#[derive(Debug)]
enum Ended<S = Opened> {
    Lost(io::Error),
    /// Another is to be opened, for which the router must have let go of it.
    Renewed,
    /// Another is open.
    Replaced(Box<S>),
}

fn is_for_control(kind: SessionKind) -> bool {
    matches!(kind, SessionKind::Control | SessionKind::Fallback)
}

/// Whether all sessions of a kind have one destination. Those of other kinds each have a destination of their own.
fn has_permanent_destination(kind: SessionKind) -> bool {
    match kind {
        SessionKind::Control | SessionKind::StaticRaw | SessionKind::StaticRepliable => true,
        SessionKind::Data | SessionKind::Fallback => false,
    }
}

/// Keeps a session open, beginning with the one that `tund` has kept, if it has. `release` is for a permanent destination.
pub(super) async fn keep(
    context: Context,
    kind: SessionKind,
    mut release: Release,
    mut lookups: mpsc::Receiver<DestinationHash>,
    adopt: oneshot::Receiver<Open>,
    mut renewals: mpsc::Receiver<Renewal>,
) {
    let (mut retry, mut tells) = (Retry::default(), true);
    // Under which destination the next is opened.
    let mut under = kind;
    let mut next = adopt.await.ok().and_then(|session| take_over(session).ok());
    loop {
        let Opened { mut stream, session, datagrams } = match next.take() {
            Some(opened) => opened,
            None => loop {
                let begun = Instant::now();
                tokio::select! {
                    (opened, failed) = establish(&context, (kind, under), &mut retry, &mut release, true) => {
                        tells |= failed;
                        break opened;
                    }
                    () = wanted(&mut renewals, Renewal::Retry) => {
                        release.handle_answer(begun.elapsed());
                        release.handle_closed(context.started.elapsed());
                    }
                }
            },
        };
        let opened = Instant::now();
        if std::mem::take(&mut tells) {
            info!(?kind, session = session.id, over_tcp = datagrams.is_some(), "a session is open");
        } else {
            debug!(?kind, session = session.id, over_tcp = datagrams.is_some(), "a session is open");
        }
        // What was wanted of the session before.
        while renewals.try_recv().is_ok() {}
        let ended = {
            let attended = attend(&context, kind, &mut stream, session, datagrams, &mut lookups);
            let mut attended = std::pin::pin!(attended);
            loop {
                let is_wanted = tokio::select! {
                    error = &mut attended => break Ended::Lost(error),
                    Some(renewal) = renewals.recv() => match (renewal, kind) {
                        (Renewal::Keep | Renewal::Retry, _) => continue,
                        (Renewal::Prepare, _) => false,
                        (Renewal::Open, SessionKind::Data) => true,
                        (Renewal::Under(destination), _) => {
                            under = destination;
                            true
                        }
                        // A destination has one session at a time.
                        (Renewal::Open, _) => break Ended::Renewed,
                    }
                };
                retry.handle_open(opened.elapsed());
                let another = establish(&context, (kind, under), &mut retry, &mut release, false);
                let another = async { another.await.0 };
                let ended = beside(attended.as_mut(), another, &mut renewals, is_wanted).await;
                if let Some(ended) = ended {
                    break ended;
                }
            }
        };
        release.handle_closed(context.started.elapsed());
        match ended {
            Ended::Replaced(opened) => next = Some(*opened),
            Ended::Renewed => {
                under = kind;
                retry.handle_open(opened.elapsed());
                quit(&mut stream).await;
            }
            Ended::Lost(error) => {
                under = kind;
                let (error, wait) = (error.to_string(), retry.handle_failure(Cause::Other, opened.elapsed()));
                let wait = jittered(wait, rand::rng().random());
                tells |= context.log_failure(kind, &error, wait);
                context.state(kind, SessionState::Down, Some(error)).await;
                sleep(wait).await;
            }
        }
    }
}

/// Has another session opened beside the one in use, and kept as a spare until it is wanted. Returns how the one in use
/// has ended, or `None` if it is to be kept after all: the other one is given up then.
async fn beside<S>(
    mut in_use: Pin<&mut impl Future<Output = io::Error>>,
    another: impl Future<Output = S>,
    renewals: &mut mpsc::Receiver<Renewal>,
    mut is_wanted: bool,
) -> Option<Ended<S>> {
    let (mut another, mut spare) = (std::pin::pin!(another), None);
    loop {
        if let Some(opened) = spare.take_if(|_| is_wanted) {
            return Some(Ended::Replaced(Box::new(opened)));
        }
        tokio::select! {
            error = &mut in_use => {
                let Some(opened) = spare else { return Some(Ended::Lost(error)) };
                debug!(%error, "a session is lost: the spare one is used");
                return Some(Ended::Replaced(Box::new(opened)));
            }
            opened = &mut another, if spare.is_none() => spare = Some(opened),
            Some(renewal) = renewals.recv() => match renewal {
                Renewal::Keep => return None,
                Renewal::Open => is_wanted = true,
                Renewal::Prepare | Renewal::Under(_) | Renewal::Retry => {}
            }
        }
    }
}

/// Returns when this is wanted of a session that is being opened. What else is wanted, the attempt fulfils.
async fn wanted(renewals: &mut mpsc::Receiver<Renewal>, what: Renewal) {
    loop {
        match renewals.recv().await {
            Some(renewal) if renewal == what => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Opens a session of a kind under the destination of a kind, however many attempts that takes. Others are told how it is
/// done if `tells`: where there is one already, it is up. Also returns whether the log has a warning of an attempt.
async fn establish(
    context: &Context,
    (kind, under): (SessionKind, SessionKind),
    retry: &mut Retry,
    release: &mut Release,
    tells: bool,
) -> (Opened, bool) {
    let mut failed = false;
    loop {
        if has_permanent_destination(under) {
            sleep(release.wait(context.started.elapsed())).await;
            // Until it is known better: this process may end before the router answers.
            let _ = context.updates.send(Update::Lingers(true)).await;
        }
        if tells {
            context.state(kind, SessionState::Opening, None).await;
        }
        let error = match open(context, under, release, tells).await {
            Ok(opened) => return (opened, failed),
            Err(error) => error,
        };
        release.handle_closed(context.started.elapsed());
        let wait = retry.handle_failure(cause_of(&error), Duration::ZERO);
        let wait = jittered(wait, rand::rng().random());
        failed |= context.log_failure(kind, &error.message, wait);
        if tells {
            context.state(kind, SessionState::Down, Some(error.message)).await;
        }
        sleep(wait).await;
    }
}

/// Looks after an open session until it ends.
async fn attend(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    session: Open,
    datagrams: Option<Control>,
    lookups: &mut mpsc::Receiver<DestinationHash>,
) -> io::Error {
    let session = Arc::new(session);
    let updates = &context.updates;
    let (outgoing, mut queue) = mpsc::channel(MAX_OUTGOING);
    if let Some(control) = datagrams {
        let sender = ControlSender::Tcp(outgoing);
        let _ = updates.send(Update::Control(kind, Arc::clone(&session), sender)).await;
        context.state(kind, SessionState::Up, None).await;
        return watch(context, stream, (kind, &session.destination), control, lookups, &mut queue).await;
    }
    // Nothing else goes over the connection.
    drop(outgoing);
    let watched =
        watch(context, stream, (kind, &session.destination), Control::default(), lookups, &mut queue);
    match kind {
        SessionKind::Data | SessionKind::StaticRaw | SessionKind::StaticRepliable => {
            let _ = updates.send(Update::Data(Arc::clone(&session))).await;
            context.state(kind, SessionState::Up, None).await;
            watched.await
        }
        SessionKind::Control | SessionKind::Fallback => {
            let socket = match session.socket() {
                Ok(socket) => Arc::new(socket),
                Err(error) => return error,
            };
            let sender = ControlSender::Udp(Arc::clone(&socket));
            let _ = updates.send(Update::Control(kind, Arc::clone(&session), sender)).await;
            context.state(kind, SessionState::Up, None).await;
            tokio::select! {
                error = watched => error,
                error = receive(context, &socket, kind, &session.destination) => error,
            }
        }
    }
}

/// Takes over a session that `keyd` has opened, or `tund` has kept while this process was away.
fn take_over(session: Open) -> io::Result<Opened> {
    let stream = std::net::TcpStream::from(session.tcp.try_clone()?);
    stream.set_nonblocking(true)?;
    Ok(Opened { stream: TcpStream::from_std(stream)?, session, datagrams: None })
}

/// Has `keyd` open a session, and tests it.
async fn open(
    context: &Context,
    kind: SessionKind,
    release: &mut Release,
    tells: bool,
) -> Result<Opened, ApiError> {
    let is_fallback = kind == SessionKind::Fallback;
    if !is_for_control(kind) || context.path().next(is_fallback, context.started.elapsed()) == Path::Udp {
        return open_by(Path::Udp, context, kind, release, tells).await;
    }
    let opened = open_by(Path::Tcp, context, kind, release, tells).await;
    opened.map_err(|error| match cause_of(&error) {
        Cause::NoBridge | Cause::Duplicate => error,
        Cause::Other => {
            debug!(?kind, %error, "no session could be opened that does without UDP");
            // What is wrong is what was wrong with UDP.
            context.path().handle_tcp_failure().map_or(error, ApiError::unavailable)
        }
    })
}

async fn open_by(
    path: Path,
    context: &Context,
    kind: SessionKind,
    release: &mut Release,
    tells: bool,
) -> Result<Opened, ApiError> {
    let name = match kind {
        SessionKind::Control => "control",
        SessionKind::Data => "data",
        SessionKind::Fallback => "substitute",
        SessionKind::StaticRaw | SessionKind::StaticRepliable => "static",
    };
    // A session's id lingers in some routers after its end, so every attempt has its own.
    let id = format!("i2plan-{name}-{:016x}", rand::rng().random::<u64>());
    let request = keyd::OpenSession {
        kind,
        id: id.clone(),
        tunnel_length: context.tunnels.length,
        tunnel_length_variance: context.tunnels.length_variance,
        tunnel_quantity: context.tunnels.quantity,
        tunnel_backup_quantity: context.tunnels.backup_quantity,
        over_tcp: path == Path::Tcp,
    };
    // A connection of its own: this call takes as long as the router takes to build tunnels.
    let mut keyd = context.keyd.connect().await.map_err(ClientError::into_api)?;
    let asked = Instant::now();
    let (opened, [tcp, udp]) = keyd.call(request).await.map_err(ClientError::into_api)?;
    release.handle_answer(asked.elapsed());
    if has_permanent_destination(kind) {
        let _ = context.updates.send(Update::Lingers(release.lingers())).await;
    }
    let keyd::SessionOpened { destination, version, min_tunnel_length } = opened;
    let loops_back = loops_back(&version);
    context.path().handle_bridge(loops_back);
    let _ = context.updates.send(Update::Answered(kind, version)).await;
    let Opened { stream, session, .. } = take_over(Open { id, udp, tcp, destination })
        .map_err(|error| ApiError::internal(format!("cannot use the session's sockets: {error}")))?;
    let mut stream = Unfinished::new(stream);
    if context.bridge.check_connection(session.tcp.as_fd()).is_err() {
        warn!(bridge = ?stream.stream().peer_addr().ok(), configured = %context.bridge.address, "keyd is started with another SAM address than i2p.sam_address");
    }
    if min_tunnel_length != context.tunnels.length {
        warn!(
            min_tunnel_length,
            configured = context.tunnels.length,
            "keyd is started with another tunnel length than i2p.tunnel_length: set I2PLAN_TUNNEL_LENGTH for both"
        );
    }
    let datagrams = match path {
        Path::Udp => {
            test_until_held_for_long(context, kind, stream.stream(), &session, loops_back, tells).await?;
            None
        }
        Path::Tcp => Some(test_connection(context, kind, stream.stream(), &session, loops_back).await?),
    };
    Ok(Opened { stream: stream.finish(), session, datagrams })
}

/// Tests a session, and a session for data again where control messages go over TCP: another would hear no more by UDP, and
/// members may know this one's destination.
async fn test_until_held_for_long(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    open: &Open,
    loops_back: bool,
    tells: bool,
) -> Result<(), ApiError> {
    let began = Instant::now();
    loop {
        let is_held = kind == SessionKind::Data
            && loops_back
            && context.path().next(false, context.started.elapsed()) == Path::Tcp;
        if is_held && tells {
            let _ = context.updates.send(Update::Held(open.destination)).await;
        }
        match test(context, kind, stream, open, loops_back).await {
            Err(failed @ SelfTestError::Port { .. }) if is_held && began.elapsed() < HELD => {
                if tells {
                    context.state(kind, SessionState::Down, Some(with_remedy(&failed, true))).await;
                }
            }
            tested => return tested.map_err(|failed| ApiError::unavailable(with_remedy(&failed, is_held))),
        }
    }
}

/// Sends something through a session without UDP to itself.
async fn test_connection(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    open: &Open,
    loops_back: bool,
) -> Result<Control, ApiError> {
    let (id, destination) = (&open.id, open.destination.into());
    let tested = Tested { id, style: Style::Datagram, destination, loops_back };
    let pass_on = |datagram: &[u8]| {
        take_datagram(datagram, kind, &open.destination, &context.updates);
    };
    let tested = self_test::run_on_connection(stream, &tested, pass_on).await;
    let control = tested.map_err(|error| ApiError::unavailable(error.to_string()))?;
    warn!(
        ?kind,
        "no UDP comes back from the bridge: control messages go over the TCP connection to it, and no tunnel traffic passes"
    );
    Ok(control)
}

/// Sends something through a session to itself. It counts as open when that has come back.
async fn test(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    open: &Open,
    loops_back: bool,
) -> Result<(), SelfTestError> {
    let style = match kind {
        SessionKind::Data | SessionKind::StaticRaw => Style::Raw,
        SessionKind::Control | SessionKind::Fallback | SessionKind::StaticRepliable => Style::Datagram,
    };
    let mut ports = context.bridge.udp_ports();
    // First the one that has worked before.
    let last = context.udp_port.load(Ordering::Relaxed);
    ports.sort_by_key(|port| *port != last);
    let started = Instant::now();
    let socket = open.socket()?;
    let tested = Tested { id: &open.id, style, destination: open.destination.into(), loops_back };
    let pass_on = |datagram: &[u8]| {
        if is_for_control(kind) {
            take_datagram(datagram, kind, &open.destination, &context.updates);
        }
    };
    let now = context.started.elapsed();
    let trusts = match kind {
        SessionKind::Control | SessionKind::Fallback => context.path().trusts_port(now),
        SessionKind::Data => context.path().next(false, now) == Path::Udp,
        SessionKind::StaticRaw | SessionKind::StaticRepliable => true,
    };
    let proven = if trusts {
        &context.udp_port
    } else {
        context.proven_port.store(0, Ordering::Relaxed);
        &context.proven_port
    };
    let tested = self_test::run(stream, &socket, &tested, &ports, proven, pass_on).await;
    let now = context.started.elapsed();
    if let Err(failed @ SelfTestError::Port { .. }) = &tested
        && is_for_control(kind)
    {
        let began = now.saturating_sub(started.elapsed());
        context.path().handle_silence(with_remedy(failed, false), began, now);
    }
    let (port, is_back) = tested?;
    let after_ms = started.elapsed().as_millis();
    if is_back {
        context.path().handle_udp(now);
        context.proven_port.store(port, Ordering::Relaxed);
        info!(?kind, udp_port = port, after_ms, "the self-test of a session has passed");
    } else {
        info!(?kind, udp_port = port, after_ms, "a session does not reach itself, and is used all the same");
    }
    context.udp_port.store(port, Ordering::Relaxed);
    Ok(())
}

/// What it means for the next attempt that `keyd` has opened no session.
fn cause_of(error: &ApiError) -> Cause {
    match error.kind {
        ErrorKind::NotFound => Cause::NoBridge,
        ErrorKind::Conflict => Cause::Duplicate,
        _ => Cause::Other,
    }
}

/// Why a session cannot be used, and which setting to change.
fn with_remedy(error: &SelfTestError, over_tcp: bool) -> String {
    match error {
        SelfTestError::Port { ports, .. } => {
            let set = if ports.len() > 1 { "set" } else { "correct" };
            let over_tcp =
                if over_tcp { ": control messages go over TCP, and no tunnel traffic passes" } else { "" };
            format!(
                "{error}{over_tcp}; {set} i2p.sam_udp_port, or let UDP through between this host and the bridge"
            )
        }
        SelfTestError::Tunnels | SelfTestError::Io(_) => error.to_string(),
    }
}

/// Reads an open session's control connection until it ends.
async fn watch(
    context: &Context,
    stream: &mut TcpStream,
    (kind, local): (SessionKind, &Destination),
    mut control: Control,
    lookups: &mut mpsc::Receiver<DestinationHash>,
    outgoing: &mut mpsc::Receiver<Outgoing>,
) -> io::Error {
    loop {
        match control.next(stream, lookups, outgoing).await {
            Ok(Received::Found(Found { hash, destination })) => {
                let _ = context.updates.send(Update::Found { kind, hash, destination }).await;
            }
            Ok(Received::Datagram(datagram)) => {
                let is_of_another = take_datagram(&datagram, kind, local, &context.updates);
                if is_of_another && kind == SessionKind::Fallback {
                    context.path().handle_tcp(context.started.elapsed());
                }
            }
            Err(error) => return error,
        }
    }
}

/// Receives what the bridge forwards, until the socket fails.
async fn receive(context: &Context, socket: &UdpSocket, kind: SessionKind, local: &Destination) -> io::Error {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match udp::receive(socket, &mut buffer).await {
            Ok(len) => {
                context.path().handle_udp(context.started.elapsed());
                take_datagram(&buffer[..len], kind, local, &context.updates);
            }
            Err(error) => return error,
        }
    }
}

/// Takes a datagram that the bridge has forwarded to a control session, or a fallback session. Returns whether another node
/// has sent it.
fn take_datagram(
    datagram: &[u8],
    kind: SessionKind,
    local: &Destination,
    updates: &mpsc::Sender<Update>,
) -> bool {
    match sam::datagram::decode(datagram) {
        // Not worth a place in the queue.
        Ok(received) if received.payload.len() > message::MAX_LEN => {
            debug!(len = received.payload.len(), "dropped a control message that is too long");
            false
        }
        Ok(received) if received.from == *local => {
            let _ = updates.try_send(Update::Echo);
            false
        }
        Ok(received) => {
            let update = Update::Datagram { kind, from: received.from, payload: received.payload.to_vec() };
            // A full queue means that this node cannot keep up; gossip finds later what is lost now.
            if updates.try_send(update).is_err() {
                debug!("dropped a control datagram: too many are waiting");
            }
            true
        }
        Err(error) => {
            debug!(%error, "dropped a datagram");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keyd_says_of_a_failure_is_its_cause() {
        assert_eq!(cause_of(&ApiError::new(ErrorKind::NotFound, "no SAM bridge")), Cause::NoBridge);
        assert_eq!(cause_of(&ApiError::conflict("DUPLICATED_DEST")), Cause::Duplicate);
        assert_eq!(cause_of(&ApiError::unavailable("I2P_ERROR")), Cause::Other);
    }

    /// What becomes of a session in use, if another is or is not opened, these are wanted in turn, and it is or is not
    /// lost at last. `None` if nothing does.
    async fn becomes(
        is_wanted: bool,
        opens: bool,
        wanted: &[Renewal],
        is_lost: bool,
    ) -> Option<Option<Ended<&'static str>>> {
        let (sender, mut renewals) = mpsc::channel(8);
        let (lose, lost) = oneshot::channel();
        let in_use = std::pin::pin!(async move {
            let Ok(()) = lost.await else { std::future::pending().await };
            io::Error::other("lost")
        });
        let another = async move { if opens { "another" } else { std::future::pending().await } };
        let mut beside = std::pin::pin!(beside(in_use, another, &mut renewals, is_wanted));
        // One thing after the other: what is ready at the same time is taken in any order.
        let mut next =
            async || tokio::select! { biased; ended = &mut beside => Some(ended), () = settle() => None };
        for step in std::iter::once(None).chain(wanted.iter().copied().map(Some)) {
            if let Some(renewal) = step {
                sender.send(renewal).await.unwrap();
            }
            if let Some(ended) = next().await {
                return Some(ended);
            }
        }
        is_lost.then(|| lose.send(()).unwrap());
        next().await
    }

    /// Lets the others do what they can.
    async fn settle() {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_spare_session_is_used_when_it_is_wanted_and_not_before() {
        use Renewal::{Keep, Open, Prepare, Retry};
        let replaced = |ended| matches!(ended, Some(Some(Ended::Replaced(another))) if *another == "another");
        assert!(becomes(false, true, &[], false).await.is_none(), "it waits");
        assert!(
            becomes(false, true, &[Prepare, Retry], false).await.is_none(),
            "nor do these make it wanted"
        );
        assert!(replaced(becomes(false, true, &[Open], false).await));
        assert!(replaced(becomes(true, true, &[], false).await), "it was wanted from the beginning");
        assert!(
            becomes(true, false, &[Open], false).await.is_none(),
            "the one in use stays until it is open"
        );
        assert!(matches!(becomes(false, true, &[Keep], false).await, Some(None)));
        assert!(
            matches!(becomes(true, false, &[Keep], false).await, Some(None)),
            "it is not waited for either"
        );
        assert!(
            replaced(becomes(false, true, &[], true).await),
            "a spare one is there when the one in use is lost"
        );
        assert!(matches!(becomes(true, false, &[], true).await, Some(Some(Ended::Lost(_)))));
    }

    #[test]
    fn a_day_without_a_router_takes_few_lines() {
        let (mut limit, mut lines) = (LogLimit::default(), 0);
        let day = Duration::from_secs(24 * 3600);
        // Two sessions at one bridge; for an hour it is there and answers with errors.
        for _session in 0..2 {
            let (mut retry, mut now) = (Retry::default(), Duration::ZERO);
            let mut attempts = 0;
            while now < day {
                let broken = (10 * 3600..11 * 3600).contains(&now.as_secs());
                let (cause, reason) =
                    if broken { (Cause::Other, "I2P_ERROR") } else { (Cause::NoBridge, "no SAM bridge") };
                lines += usize::from(limit.admit(reason, now));
                attempts += 1;
                now += jittered(retry.handle_failure(cause, Duration::ZERO), 0.5);
            }
            assert!(attempts > 20_000, "it is tried every few seconds");
        }
        assert!((24..50).contains(&lines), "{lines} lines");
    }
}
