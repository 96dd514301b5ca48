//! The SAM sessions: opened with `keyd`'s help, watched, and opened again when they are lost.

use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, KeydApi, SessionKind};
use i2plan_ipc::api::meshd::SessionState;
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::client::DaemonLink;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::message;
use i2plan_proto::sam;
use i2plan_proto::sam::connection::{Connection, Found};
use i2plan_proto::sam::session::{Style, Tunnels};
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::self_test;

/// First wait before a lost session is opened again.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest wait before a lost session is opened again.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Largest datagram that the bridge forwards, bytes.
pub(super) const MAX_DATAGRAM: usize = 32 * 1024;

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

/// What happens to the sessions.
#[derive(Debug)]
pub(super) enum Update {
    /// The bridge has told its version.
    Version(String),
    /// A session's state has changed.
    State { kind: SessionKind, state: SessionState, error: Option<String> },
    /// The session for data is open.
    Data(Arc<Open>),
    /// The control session, or the fallback session, is open, with the socket to send through.
    Control(SessionKind, Arc<Open>, Arc<UdpSocket>),
    /// A repliable datagram has come.
    Datagram { from: Destination, payload: Vec<u8> },
    /// A lookup is done.
    Found { hash: DestinationHash, destination: Result<Destination, String> },
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
}

impl Context {
    async fn state(&self, kind: SessionKind, state: SessionState, error: Option<String>) {
        let _ = self.updates.send(Update::State { kind, state, error }).await;
    }
}

/// Grows with every failure, and starts again after a success.
struct Retry(Duration);

impl Retry {
    fn next(&mut self) -> Duration {
        // Up to a half more, so that nodes that lost one router do not all come back to it at once.
        let wait = self.0.mul_f64(rand::rng().random_range(1.0..1.5));
        self.0 = (self.0 * 2).min(LAST_RETRY);
        wait
    }
}

/// Keeps a session open, beginning with the one that `tund` has kept, if it has. Lookups go over the connection
/// of the session that is given them. When it is told to renew, it opens another.
pub(super) async fn keep(
    context: Context,
    kind: SessionKind,
    mut lookups: Option<mpsc::Receiver<DestinationHash>>,
    adopt: oneshot::Receiver<Open>,
    renew: Arc<Notify>,
) {
    let mut retry = Retry(FIRST_RETRY);
    let mut adopted = adopt.await.ok();
    loop {
        let opened = match adopted.take() {
            Some(session) => take_over(session),
            None => {
                context.state(kind, SessionState::Opening, None).await;
                open(&context, kind).await
            }
        };
        let error = match opened {
            Err(error) => error,
            Ok((mut stream, session)) => {
                retry = Retry(FIRST_RETRY);
                info!(?kind, "a session is open");
                tokio::select! {
                    error = attend(&context, kind, &mut stream, session, lookups.as_mut()) => error.to_string(),
                    () = renew.notified() => "no member can be reached through it".to_owned(),
                }
            }
        };
        let wait = retry.next();
        warn!(?kind, %error, retry_ms = wait.as_millis(), "a session is down");
        context.state(kind, SessionState::Down, Some(error)).await;
        sleep(wait).await;
    }
}

/// Looks after an open session until it ends.
async fn attend(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    session: Open,
    lookups: Option<&mut mpsc::Receiver<DestinationHash>>,
) -> io::Error {
    let session = Arc::new(session);
    let updates = &context.updates;
    match kind {
        SessionKind::Data => {
            let _ = updates.send(Update::Data(session)).await;
            context.state(kind, SessionState::Up, None).await;
            watch(stream, updates, lookups).await
        }
        SessionKind::Control | SessionKind::Fallback => {
            let socket = session.udp.try_clone().map(StdUdpSocket::from).and_then(UdpSocket::from_std);
            let socket = match socket {
                Ok(socket) => Arc::new(socket),
                Err(error) => return error,
            };
            let _ = updates.send(Update::Control(kind, Arc::clone(&session), Arc::clone(&socket))).await;
            context.state(kind, SessionState::Up, None).await;
            tokio::select! {
                error = watch(stream, updates, lookups) => error,
                error = receive(&socket, updates) => error,
            }
        }
    }
}

/// Takes over a session that `keyd` has opened, or `tund` has kept while this process was away.
fn take_over(session: Open) -> Result<(TcpStream, Open), String> {
    let clone = session.tcp.try_clone().map_err(|error| error.to_string())?;
    let stream = std::net::TcpStream::from(clone);
    stream.set_nonblocking(true).map_err(|error| error.to_string())?;
    let stream = TcpStream::from_std(stream).map_err(|error| error.to_string())?;
    Ok((stream, session))
}

/// Has `keyd` open a session.
async fn open(context: &Context, kind: SessionKind) -> Result<(TcpStream, Open), String> {
    let name = match kind {
        SessionKind::Control => "control",
        SessionKind::Data => "data",
        SessionKind::Fallback => "substitute",
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
    let mut keyd = context.keyd.connect().await.map_err(|error| error.to_string())?;
    let (opened, [tcp, udp]) = keyd.call(request).await.map_err(|error| error.to_string())?;
    let keyd::SessionOpened { destination, version, min_tunnel_length } = opened;
    let _ = context.updates.send(Update::Version(version)).await;
    let (mut stream, open) = take_over(Open { id, udp, tcp, destination })?;
    if context.bridge.check_connection(open.tcp.as_fd()).is_err() {
        warn!(bridge = ?stream.peer_addr().ok(), configured = %context.bridge.address, "keyd is started with another SAM address than i2p.sam_address");
    }
    if min_tunnel_length != context.tunnels.length {
        warn!(
            min_tunnel_length,
            configured = context.tunnels.length,
            "keyd is started with another tunnel length than i2p.tunnel_length: set I2PLAN_TUNNEL_LENGTH for both"
        );
    }
    test(context, kind, &mut stream, &open).await?;
    Ok((stream, open))
}

/// Sends something through a session to itself. It counts as open when that has come back.
async fn test(
    context: &Context,
    kind: SessionKind,
    stream: &mut TcpStream,
    open: &Open,
) -> Result<(), String> {
    let style = match kind {
        SessionKind::Data => Style::Raw,
        SessionKind::Control | SessionKind::Fallback => Style::Datagram,
    };
    let mut ports = context.bridge.udp_ports();
    // First the one that has worked before.
    let last = context.udp_port.load(Ordering::Relaxed);
    ports.sort_by_key(|port| *port != last);
    let started = Instant::now();
    let pass_on = |datagram: &[u8]| {
        if kind != SessionKind::Data {
            take_datagram(datagram, &context.updates);
        }
    };
    let tested = self_test::run(stream, open, style, &ports, pass_on).await;
    let port = match tested {
        Ok(port) => port,
        Err(error) => {
            // Some routers take minutes to notice that a connection was closed, and hold on to the destination.
            let _ = stream.try_write(b"QUIT\n");
            return Err(error.to_string());
        }
    };
    info!(
        ?kind,
        udp_port = port,
        after_ms = started.elapsed().as_millis(),
        "the self-test of a session has passed"
    );
    context.udp_port.store(port, Ordering::Relaxed);
    Ok(())
}

/// Reads an open session's control connection until it ends.
async fn watch(
    stream: &mut TcpStream,
    updates: &mpsc::Sender<Update>,
    mut lookups: Option<&mut mpsc::Receiver<DestinationHash>>,
) -> io::Error {
    let mut connection = Connection::default();
    let mut buffer = [0; 2048];
    loop {
        while let Some(line) = connection.poll_output() {
            if let Err(error) = stream.write_all(line.as_bytes()).await {
                return error;
            }
        }
        let next_lookup = async {
            match &mut lookups {
                Some(lookups) => lookups.recv().await,
                None => None,
            }
        };
        tokio::select! {
            count = stream.read(&mut buffer) => {
                let count = match count {
                    Ok(0) => return io::Error::other("the router closed the session"),
                    Ok(count) => count,
                    Err(error) => return error,
                };
                let found = match connection.receive(&buffer[..count]) {
                    Ok(found) => found,
                    Err(error) => return io::Error::other(error),
                };
                for Found { hash, destination } in found {
                    let _ = updates.send(Update::Found { hash, destination }).await;
                }
            }
            Some(hash) = next_lookup => {
                if !connection.look_up(hash) {
                    debug!("dropped a lookup: too many are waiting");
                }
            }
        }
    }
}

/// Receives what the bridge forwards, until the socket fails. It is connected to the bridge, so that the kernel drops
/// what others send.
async fn receive(socket: &UdpSocket, updates: &mpsc::Sender<Update>) -> io::Error {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let len = match socket.recv(&mut buffer).await {
            Ok(len) => len,
            Err(error) if is_of_an_earlier_datagram(&error) => continue,
            Err(error) => return error,
        };
        take_datagram(&buffer[..len], updates);
    }
}

/// Takes a datagram that the bridge has forwarded to a control session.
fn take_datagram(datagram: &[u8], updates: &mpsc::Sender<Update>) {
    match sam::datagram::decode(datagram) {
        // Not worth a place in the queue.
        Ok(received) if received.payload.len() > message::MAX_LEN => {
            debug!(len = received.payload.len(), "dropped a control message that is too long");
        }
        Ok(received) => {
            let update = Update::Datagram { from: received.from, payload: received.payload.to_vec() };
            // A full queue means that this node cannot keep up; gossip finds later what is lost now.
            if updates.try_send(update).is_err() {
                debug!("dropped a control datagram: too many are waiting");
            }
        }
        Err(error) => debug!(%error, "dropped a datagram"),
    }
}

/// Sends a datagram to the bridge. An error of an earlier one is reported in the place of this one's sending, once.
pub(super) fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<()> {
    match socket.try_send(datagram) {
        Err(error) if is_of_an_earlier_datagram(&error) => socket.try_send(datagram),
        result => result,
    }
    .map(drop)
}

/// Whether an error says that an earlier datagram did not reach the bridge (ICMP), as while the router restarts. The
/// session's end shows on its connection.
pub(super) fn is_of_an_earlier_datagram(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn bound() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    fn datagram(says: &str) -> Vec<u8> {
        let destination = Destination { padding: [3; 32], signing_key: [4; 32] };
        format!("{}\n{says}", destination.to_base64()).into_bytes()
    }

    #[tokio::test]
    async fn what_comes_from_another_port_than_the_bridges_is_not_heard() {
        let (socket, bridge, other) = (bound().await, bound().await, bound().await);
        socket.connect(bridge.local_addr().unwrap()).await.unwrap();
        let here = socket.local_addr().unwrap();
        for (from, says) in [(&other, "forged"), (&bridge, "right")] {
            from.send_to(&datagram(says), here).await.unwrap();
        }
        let (updates, mut received) = mpsc::channel(2);
        let update = tokio::select! {
            error = receive(&socket, &updates) => panic!("{error}"),
            update = received.recv() => update,
        };
        assert!(matches!(update, Some(Update::Datagram { payload, .. }) if payload == b"right"));
    }

    #[tokio::test]
    async fn a_bridge_that_is_away_for_a_moment_costs_the_datagrams_of_that_moment() {
        let (socket, bridge) = (bound().await, bound().await);
        let (here, there) = (socket.local_addr().unwrap(), bridge.local_addr().unwrap());
        socket.connect(there).await.unwrap();
        socket.writable().await.unwrap();
        drop(bridge);
        send(&socket, b"lost").unwrap();
        let bridge = UdpSocket::bind(there).await.unwrap();
        // The error of the first is there by now: loopback is synchronous.
        send(&socket, b"sent").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(bridge.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"sent");

        drop(bridge);
        send(&socket, b"lost").unwrap();
        let bridge = UdpSocket::bind(there).await.unwrap();
        bridge.send_to(&datagram("heard"), here).await.unwrap();
        let (updates, mut received) = mpsc::channel(2);
        let update = tokio::select! {
            error = receive(&socket, &updates) => panic!("{error}"),
            update = received.recv() => update,
        };
        assert!(matches!(update, Some(Update::Datagram { payload, .. }) if payload == b"heard"));
    }
}
