//! The SAM sessions: opened with `keyd`'s help, watched, and opened again when they are lost.

use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use i2plan_proto::sam::connection::Found;
use i2plan_proto::sam::self_test::loops_back;
use i2plan_proto::sam::session::{Style, Tunnels};
use i2plan_transport::control::{Control, quit};
use i2plan_transport::retry::{Cause, Release, Retry, jittered};
use i2plan_transport::self_test::{self, SelfTestError, Tested};
use i2plan_transport::udp::{self, MAX_DATAGRAM};
use rand::RngExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, info, warn};

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
    /// The control session, or the fallback session, is open, with the socket to send through.
    Control(SessionKind, Arc<Open>, Arc<UdpSocket>),
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
    /// Open another session in its place. One for data stays until the other is there.
    Open,
    /// Open another, under the destination of this kind, and let this one stay until it is there.
    Under(SessionKind),
    /// Keep it, if the other is not there yet.
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
    /// What the tunnels of every session are to be.
    pub(super) tunnels: Tunnels,
    pub(super) keyd: Arc<DaemonLink<KeydApi>>,
    pub(super) updates: mpsc::Sender<Update>,
    /// The log's lines about sessions that are down, since `started`.
    pub(super) failures: Arc<Mutex<LogLimit>>,
    pub(super) started: Instant,
}

impl Context {
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
enum Ended {
    Lost(io::Error),
    /// Another is to be opened, for which the router must have let go of it.
    Renewed,
    /// Another is open.
    Replaced(TcpStream, Open),
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
        let (mut stream, session) = match next.take() {
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
            info!(?kind, session = session.id, "a session is open");
        } else {
            debug!(?kind, session = session.id, "a session is open");
        }
        // What was wanted of the session before.
        while renewals.try_recv().is_ok() {}
        let ended = {
            let mut attended = std::pin::pin!(attend(&context, kind, &mut stream, session, &mut lookups));
            loop {
                tokio::select! {
                    error = &mut attended => break Ended::Lost(error),
                    Some(renewal) = renewals.recv() => match (renewal, kind) {
                        (Renewal::Keep | Renewal::Retry, _) => continue,
                        (Renewal::Open, SessionKind::Data) => {}
                        (Renewal::Under(destination), _) => under = destination,
                        // A destination has one session at a time.
                        (Renewal::Open, _) => break Ended::Renewed,
                    }
                }
                tokio::select! {
                    error = &mut attended => break Ended::Lost(error),
                    ((stream, session), _) = establish(&context, (kind, under), &mut retry, &mut release, false) => {
                        break Ended::Replaced(stream, session);
                    }
                    () = wanted(&mut renewals, Renewal::Keep) => {}
                }
            }
        };
        release.handle_closed(context.started.elapsed());
        match ended {
            Ended::Replaced(stream, session) => next = Some((stream, session)),
            Ended::Renewed => {
                under = kind;
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
) -> ((TcpStream, Open), bool) {
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
        let error = match open(context, under, release).await {
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
    lookups: &mut mpsc::Receiver<DestinationHash>,
) -> io::Error {
    let session = Arc::new(session);
    let updates = &context.updates;
    match kind {
        SessionKind::Data | SessionKind::StaticRaw | SessionKind::StaticRepliable => {
            let _ = updates.send(Update::Data(session)).await;
            context.state(kind, SessionState::Up, None).await;
            watch(stream, kind, updates, lookups).await
        }
        SessionKind::Control | SessionKind::Fallback => {
            let socket = match session.socket() {
                Ok(socket) => Arc::new(socket),
                Err(error) => return error,
            };
            let _ = updates.send(Update::Control(kind, Arc::clone(&session), Arc::clone(&socket))).await;
            context.state(kind, SessionState::Up, None).await;
            tokio::select! {
                error = watch(stream, kind, updates, lookups) => error,
                error = receive(&socket, kind, &session.destination, updates) => error,
            }
        }
    }
}

/// Takes over a session that `keyd` has opened, or `tund` has kept while this process was away.
fn take_over(session: Open) -> io::Result<(TcpStream, Open)> {
    let stream = std::net::TcpStream::from(session.tcp.try_clone()?);
    stream.set_nonblocking(true)?;
    Ok((TcpStream::from_std(stream)?, session))
}

/// Has `keyd` open a session.
async fn open(
    context: &Context,
    kind: SessionKind,
    release: &mut Release,
) -> Result<(TcpStream, Open), ApiError> {
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
    let _ = context.updates.send(Update::Answered(kind, version)).await;
    let (stream, open) = take_over(Open { id, udp, tcp, destination })
        .map_err(|error| ApiError::internal(format!("cannot use the session's sockets: {error}")))?;
    let mut stream = Unfinished::new(stream);
    if context.bridge.check_connection(open.tcp.as_fd()).is_err() {
        warn!(bridge = ?stream.stream().peer_addr().ok(), configured = %context.bridge.address, "keyd is started with another SAM address than i2p.sam_address");
    }
    if min_tunnel_length != context.tunnels.length {
        warn!(
            min_tunnel_length,
            configured = context.tunnels.length,
            "keyd is started with another tunnel length than i2p.tunnel_length: set I2PLAN_TUNNEL_LENGTH for both"
        );
    }
    test(context, kind, stream.stream(), &open, loops_back).await?;
    Ok((stream.finish(), open))
}

/// Sends something through a session to itself. It counts as open when that has come back.
async fn test(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    open: &Open,
    loops_back: bool,
) -> Result<(), ApiError> {
    let style = match kind {
        SessionKind::Data | SessionKind::StaticRaw => Style::Raw,
        SessionKind::Control | SessionKind::Fallback | SessionKind::StaticRepliable => Style::Datagram,
    };
    let mut ports = context.bridge.udp_ports();
    // First the one that has worked before.
    let last = context.udp_port.load(Ordering::Relaxed);
    ports.sort_by_key(|port| *port != last);
    let started = Instant::now();
    let socket = open
        .socket()
        .map_err(|error| ApiError::internal(format!("cannot use the session's sockets: {error}")))?;
    let tested = Tested { id: &open.id, style, destination: open.destination.into(), loops_back };
    let pass_on = |datagram: &[u8]| {
        if matches!(kind, SessionKind::Control | SessionKind::Fallback) {
            take_datagram(datagram, kind, &open.destination, &context.updates);
        }
    };
    let tested = self_test::run(stream, &socket, &tested, &ports, &context.udp_port, pass_on).await;
    let (port, is_back) = tested.map_err(|error| ApiError::unavailable(with_remedy(&error)))?;
    let after_ms = started.elapsed().as_millis();
    if is_back {
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
fn with_remedy(error: &SelfTestError) -> String {
    match error {
        SelfTestError::Port { ports, .. } => {
            let set = if ports.len() > 1 { "set" } else { "correct" };
            format!("{error}; {set} i2p.sam_udp_port, or let UDP through between this host and the bridge")
        }
        SelfTestError::Tunnels | SelfTestError::Io(_) => error.to_string(),
    }
}

/// Reads an open session's control connection until it ends.
async fn watch(
    stream: &mut TcpStream,
    kind: SessionKind,
    updates: &mpsc::Sender<Update>,
    lookups: &mut mpsc::Receiver<DestinationHash>,
) -> io::Error {
    let mut control = Control::default();
    loop {
        let found = match control.next(stream, lookups).await {
            Ok(found) => found,
            Err(error) => return error,
        };
        let Found { hash, destination } = found;
        let _ = updates.send(Update::Found { kind, hash, destination }).await;
    }
}

/// Receives what the bridge forwards, until the socket fails.
async fn receive(
    socket: &UdpSocket,
    kind: SessionKind,
    local: &Destination,
    updates: &mpsc::Sender<Update>,
) -> io::Error {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        match udp::receive(socket, &mut buffer).await {
            Ok(len) => take_datagram(&buffer[..len], kind, local, updates),
            Err(error) => return error,
        }
    }
}

/// Takes a datagram that the bridge has forwarded to a control session, or a fallback session.
fn take_datagram(datagram: &[u8], kind: SessionKind, local: &Destination, updates: &mpsc::Sender<Update>) {
    match sam::datagram::decode(datagram) {
        // Not worth a place in the queue.
        Ok(received) if received.payload.len() > message::MAX_LEN => {
            debug!(len = received.payload.len(), "dropped a control message that is too long");
        }
        Ok(received) if received.from == *local => drop(updates.try_send(Update::Echo)),
        Ok(received) => {
            let update = Update::Datagram { kind, from: received.from, payload: received.payload.to_vec() };
            // A full queue means that this node cannot keep up; gossip finds later what is lost now.
            if updates.try_send(update).is_err() {
                debug!("dropped a control datagram: too many are waiting");
            }
        }
        Err(error) => debug!(%error, "dropped a datagram"),
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
