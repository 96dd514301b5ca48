//! The SAM sessions: opened with `keyd`'s help, watched, and opened again when they are lost.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, KeydApi, SessionKind};
use i2plan_ipc::api::meshd::SessionState;
use i2plan_ipc::client::Link;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::message;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::sam;
use crate::sam::connection::{Connection, Event};

/// How long the bridge may take to accept a connection and greet.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// First wait before a lost session is opened again.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest wait before a lost session is opened again.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Parallel tunnels in each direction.
const TUNNEL_QUANTITY: u8 = 3;

/// Largest datagram that the bridge forwards, bytes.
const MAX_DATAGRAM: usize = 32 * 1024;

/// An open session, by what keeps and uses it.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: String,
    /// The bridge's UDP port.
    pub(super) bridge: SocketAddr,
    /// Where the bridge forwards to.
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
    /// The session for control, or the one in its place, is open, with the socket to send through.
    Control(SessionKind, Arc<Open>, Arc<UdpSocket>),
    /// A repliable datagram has come.
    Datagram { from: Destination, payload: Vec<u8> },
    /// A lookup is done.
    Found { hash: DestinationHash, destination: Result<Destination, String> },
}

/// What all sessions need.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) bridge: SocketAddr,
    pub(super) tunnel_length: u8,
    pub(super) keyd: Arc<Link<KeydApi>>,
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
        SessionKind::Control | SessionKind::Substitute => {
            let socket = session.udp.try_clone().map(StdUdpSocket::from).and_then(UdpSocket::from_std);
            let socket = match socket {
                Ok(socket) => Arc::new(socket),
                Err(error) => return error,
            };
            let _ = updates.send(Update::Control(kind, Arc::clone(&session), Arc::clone(&socket))).await;
            context.state(kind, SessionState::Up, None).await;
            tokio::select! {
                error = watch(stream, updates, lookups) => error,
                error = receive(&socket, session.bridge, updates) => error,
            }
        }
    }
}

/// Watches over a session that `tund` has kept while this process was away.
fn take_over(session: Open) -> Result<(TcpStream, Open), String> {
    let clone = session.tcp.try_clone().map_err(|error| error.to_string())?;
    let stream = std::net::TcpStream::from(clone);
    stream.set_nonblocking(true).map_err(|error| error.to_string())?;
    let stream = TcpStream::from_std(stream).map_err(|error| error.to_string())?;
    Ok((stream, session))
}

/// Connects to the bridge, greets, and has `keyd` open the session.
async fn open(context: &Context, kind: SessionKind) -> Result<(TcpStream, Open), String> {
    let greeting = async {
        let mut stream = TcpStream::connect(context.bridge).await.map_err(|error| {
            format!(
                "no SAM bridge at {} ({error}); start the I2P router or set i2p.sam_address",
                context.bridge
            )
        })?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let version = greet(&mut stream).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((stream, version))
    };
    let (stream, version) = timeout(GREETING_DEADLINE, greeting)
        .await
        .map_err(|_| format!("the SAM bridge at {} does not answer", context.bridge))??;
    let _ = context.updates.send(Update::Version(version)).await;

    let local = stream.local_addr().map_err(|error| error.to_string())?.ip();
    let udp = StdUdpSocket::bind((local, 0)).map_err(|error| error.to_string())?;
    udp.set_nonblocking(true).map_err(|error| error.to_string())?;
    let port = udp.local_addr().map_err(|error| error.to_string())?.port();
    let name = match kind {
        SessionKind::Control => "control",
        SessionKind::Data => "data",
        SessionKind::Substitute => "substitute",
    };
    // A session's id lingers in some routers after its end, so every attempt has its own.
    let id = format!("i2plan-{name}-{:016x}", rand::rng().random::<u64>());
    let request = keyd::OpenSession {
        kind,
        id: id.clone(),
        port,
        tunnel_length: context.tunnel_length,
        tunnel_quantity: TUNNEL_QUANTITY,
    };
    // A connection of its own: this call takes as long as the router takes to build tunnels.
    let mut keyd = context.keyd.connect().await.map_err(|error| error.to_string())?;
    let opened = keyd.call_with_fds(keyd::Request::OpenSession(request), &[stream.as_fd()]).await;
    match opened {
        Ok((keyd::Reply::SessionOpened(destination), _)) => {
            let tcp = stream.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
            let bridge = SocketAddr::new(context.bridge.ip(), sam::UDP_PORT);
            Ok((stream, Open { id, bridge, udp: udp.into(), tcp, destination }))
        }
        Ok(_) => Err("keyd gave an answer to another question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn greet(stream: &mut TcpStream) -> io::Result<String> {
    let mut connection = Connection::new();
    let mut buffer = [0; 512];
    loop {
        while let Some(line) = connection.poll_output() {
            stream.write_all(line.as_bytes()).await?;
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::Error::other("the SAM bridge closed the connection at the handshake"));
        }
        for event in connection.receive(&buffer[..count]).map_err(io::Error::other)? {
            if let Event::Greeted(version) = event {
                return Ok(version);
            }
        }
    }
}

/// Reads an open session's control connection until it ends.
async fn watch(
    stream: &mut TcpStream,
    updates: &mpsc::Sender<Update>,
    mut lookups: Option<&mut mpsc::Receiver<DestinationHash>>,
) -> io::Error {
    let mut connection = Connection::opened();
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
                let events = match connection.receive(&buffer[..count]) {
                    Ok(events) => events,
                    Err(error) => return io::Error::other(error),
                };
                for event in events {
                    if let Event::Found { hash, destination } = event {
                        let _ = updates.send(Update::Found { hash, destination }).await;
                    }
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

/// Receives what the bridge forwards, until the socket fails.
async fn receive(socket: &UdpSocket, bridge: SocketAddr, updates: &mpsc::Sender<Update>) -> io::Error {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (len, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier send met a closed port; the session's end shows on its connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return error,
        };
        // i2pd, Java I2P and emissary forward from the port at which they take datagrams; at any other every user of the
        // host can name any sender.
        if source != bridge {
            continue;
        }
        match sam::datagram::decode(&buffer[..len]) {
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
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn what_comes_from_another_port_than_the_bridges_is_not_heard() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (socket, bridge, other) = (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
        let here = socket.local_addr().unwrap();
        let destination = Destination { padding: [3; 32], signing_key: [4; 32] };
        for (from, says) in [(&other, "forged"), (&bridge, "right")] {
            let datagram = format!("{}\n{says}", destination.to_base64());
            from.send_to(datagram.as_bytes(), here).await.unwrap();
        }
        let (updates, mut received) = mpsc::channel(2);
        let update = tokio::select! {
            error = receive(&socket, bridge.local_addr().unwrap(), &updates) => panic!("{error}"),
            update = received.recv() => update,
        };
        assert!(matches!(update, Some(Update::Datagram { payload, .. }) if payload == b"right"));
    }
}
