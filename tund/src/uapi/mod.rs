//! WireGuard's cross-platform configuration socket, by which `wg` asks about the interface and changes static peers.
//!
//! The socket is `/var/run/wireguard/NAME.sock`, where `wg` looks for interfaces that are not the kernel's. It
//! belongs to root; the supervisor or systemd makes it and passes it on. The peers of a mesh are its members, so `set=1`
//! is refused there. On Linux alone: on OpenBSD nothing passes the socket.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use i2plan_ipc::daemon::activation::into_tokio;
use i2plan_ipc::server::accept;
use i2plan_ipc::{ApiError, ErrorKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use codec::{Change, Decoder, PeerStatus, Request, set_errno, write_end, write_interface, write_peer};

pub mod codec;

/// The name by which a supervisor passes the socket (`FileDescriptorName=`).
pub const SOCKET_NAME: &str = "wireguard";

/// Connections at once. Those over that are told that the interface is busy.
const MAX_CONNECTIONS: usize = 8;

/// How long a request may take to arrive, and each part of an answer to be taken.
const DEADLINE: Duration = Duration::from_secs(10);

/// Peers that are written before packets have their turn.
const SLICE: usize = 64;

/// Where the peers of the interface are known.
pub trait Peers: Send + Sync + 'static {
    /// All peers; none if there is no interface.
    fn peers(&self) -> impl Future<Output = Result<Option<Vec<PeerStatus>>, ApiError>> + Send;

    /// Changes peers: all that is asked for, or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if they cannot be changed in this way, [`ErrorKind::Unavailable`] if there is no interface,
    /// [`ErrorKind::Invalid`] if they cannot be as they are wanted.
    fn change(&self, change: Change) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// The listening socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// `wg` takes the interface's name from the socket's path: it may be another than the interface has.
    is_of_interface: bool,
}

impl Socket {
    /// Takes over the socket that a supervisor has passed for the interface of this name.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(listener: std::os::unix::net::UnixListener, interface: &str) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let path = address.as_pathname();
        let is_of_interface = is_socket_of(path, interface);
        if !is_of_interface {
            let socket = path.unwrap_or(Path::new("")).display();
            warn!(%socket, interface, "`wg show` finds no interface: its socket is for one of another name");
        }
        Ok(Self { listener: into_tokio(listener)?, is_of_interface })
    }

    /// Serves connections of this user for as long as the process lives.
    pub async fn serve(self, peers: Arc<impl Peers>, user: u32) {
        if self.is_of_interface {
            serve(self.listener, peers, user).await;
        } else {
            serve(self.listener, Arc::new(NoInterface), user).await;
        }
    }
}

fn is_socket_of(path: Option<&Path>, interface: &str) -> bool {
    path.and_then(Path::file_name).is_some_and(|name| *name == *format!("{interface}.sock"))
}

/// What a socket of another name leads to.
struct NoInterface;

impl Peers for NoInterface {
    async fn peers(&self) -> Result<Option<Vec<PeerStatus>>, ApiError> {
        Ok(None)
    }

    async fn change(&self, _: Change) -> Result<(), ApiError> {
        Err(ApiError::conflict("the socket is for an interface of another name"))
    }
}

async fn serve(listener: UnixListener, peers: Arc<impl Peers>, user: u32) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = accept(|| listener.accept()).await;
        let refusal = match stream.peer_cred() {
            Ok(peer) if peer.uid() == user => libc::EBUSY,
            _ => libc::EACCES,
        };
        let permit = Arc::clone(&permits).try_acquire_owned();
        let (Ok(permit), libc::EBUSY) = (permit, refusal) else {
            let mut answer = String::new();
            write_end(&mut answer, refusal);
            // Without waiting, if there is room; it is for the client's comfort.
            let _ = stream.try_write(answer.as_bytes());
            continue;
        };
        let peers = Arc::clone(&peers);
        tokio::spawn(async move {
            if converse(stream, &*peers).await.is_none() {
                debug!("dropped a connection of the WireGuard socket: it was silent or slow");
            }
            drop(permit);
        });
    }
}

/// Answers requests until the client has gone; none if it was too slow.
async fn converse(mut stream: UnixStream, peers: &impl Peers) -> Option<()> {
    let mut decoder = Decoder::default();
    // It may hold a key.
    let mut buffer = Zeroizing::new([0; 4096]);
    loop {
        // As a whole, so that a byte now and then does not hold a place.
        let request = timeout(DEADLINE, async {
            loop {
                let len = stream.read(&mut buffer[..]).await.ok().filter(|len| *len > 0)?;
                let mut input = &buffer[..len];
                if let Some(request) = decoder.handle_bytes(&mut input) {
                    // Nobody sends a request before the answer to the one before.
                    return Some((request, input.is_empty()));
                }
            }
        });
        let Some((request, more)) = request.await.ok()? else { return Some(()) };
        let mut out = String::new();
        match request {
            Ok(Request::Get) => tell(&mut stream, peers, &mut out).await?,
            Ok(Request::Set(change)) => {
                let result = peers.change(change).await;
                if let Err(error) = &result {
                    info!(%error, "refused to change peers");
                }
                write_end(&mut out, set_errno(result.err().map_or(0, |error| errno_of(&error))));
            }
            Err(error) => {
                info!(%error, "refused a request on the WireGuard socket");
                write_end(&mut out, error.errno());
            }
        }
        send(&mut stream, &mut out).await?;
        if !more {
            return Some(());
        }
    }
}

fn errno_of(error: &ApiError) -> i32 {
    match error.kind {
        ErrorKind::Invalid => libc::EINVAL,
        ErrorKind::Conflict => libc::EOPNOTSUPP,
        ErrorKind::Unavailable => libc::ENODEV,
        _ => libc::EIO,
    }
}

/// Tells the interface and its peers, all but the last part of which is sent.
async fn tell(stream: &mut UnixStream, peers: &impl Peers, out: &mut String) -> Option<()> {
    let peers = match peers.peers().await {
        Ok(Some(peers)) => peers,
        Ok(None) => {
            write_end(out, libc::ENODEV);
            return Some(());
        }
        Err(error) => {
            debug!(%error, "the peers are not known");
            write_end(out, libc::EIO);
            return Some(());
        }
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    write_interface(out);
    for slice in peers.chunks(SLICE) {
        for peer in slice {
            write_peer(out, peer, now);
        }
        send(stream, out).await?;
        yield_now().await;
    }
    write_end(out, 0);
    Some(())
}

async fn send(stream: &mut UnixStream, out: &mut String) -> Option<()> {
    timeout(DEADLINE, stream.write_all(out.as_bytes())).await.ok()?.ok()?;
    out.clear();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface with so many peers, or none.
    struct Fixed(Option<usize>);

    impl Peers for Fixed {
        async fn peers(&self) -> Result<Option<Vec<PeerStatus>>, ApiError> {
            let peer = PeerStatus {
                public_key: [7; 32],
                allowed_ips: Vec::new(),
                keepalive: 0,
                last_handshake: None,
                rx_bytes: 0,
                tx_bytes: 0,
            };
            Ok(self.0.map(|count| vec![peer; count]))
        }

        async fn change(&self, change: Change) -> Result<(), ApiError> {
            match change.peers.len() {
                1 => Ok(()),
                2 => Err(ApiError::invalid("two")),
                _ => Err(ApiError::conflict("none")),
            }
        }
    }

    struct Fixture {
        path: std::path::PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new(peers: Option<usize>) -> Self {
            Self::for_user(peers, rustix::process::geteuid().as_raw())
        }

        fn for_user(peers: Option<usize>, user: u32) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("wg.sock");
            let listener = UnixListener::bind(&path).unwrap();
            tokio::spawn(serve(listener, Arc::new(Fixed(peers)), user));
            Self { path, _directory: directory }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(&self.path).await.unwrap()
        }

        /// What is answered to one request.
        async fn ask(&self, request: &str) -> String {
            let mut stream = self.connect().await;
            ask(&mut stream, request).await
        }
    }

    async fn ask(stream: &mut UnixStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\n\n") {
            let mut part = [0; 4096];
            let len = stream.read(&mut part).await.unwrap();
            assert!(len > 0, "the connection was closed after {answer:?}");
            answer += std::str::from_utf8(&part[..len]).unwrap();
        }
        answer
    }

    #[tokio::test]
    async fn all_peers_are_told_however_many() {
        for count in [0, 1, SLICE, 1000] {
            let answer = Fixture::new(Some(count)).ask("get=1\n\n").await;
            assert!(answer.starts_with("listen_port=0\n") && answer.ends_with("\nerrno=0\n\n"));
            assert_eq!(answer.matches("public_key=").count(), count);
            assert!(!answer.contains("private_key"));
        }
    }

    #[tokio::test]
    async fn without_an_interface_there_is_no_such_device() {
        assert_eq!(Fixture::new(None).ask("get=1\n\n").await, format!("errno={}\n\n", libc::ENODEV));
    }

    #[tokio::test]
    async fn a_change_is_answered_and_the_connection_goes_on() {
        let fixture = Fixture::new(Some(1));
        let mut stream = fixture.connect().await;
        let change = format!("public_key={}\nremove=true\n", "07".repeat(32));
        assert_eq!(ask(&mut stream, &format!("set=1\n{change}\n")).await, "errno=0\n\n");
        let twice = format!("set=1\n{change}{change}\n");
        assert_eq!(ask(&mut stream, &twice).await, format!("errno=-{}\n\n", libc::EINVAL));
        assert_eq!(ask(&mut stream, "set=1\n\n").await, format!("errno=-{}\n\n", libc::EOPNOTSUPP));
        assert_eq!(ask(&mut stream, "set=2\n\n").await, format!("errno={}\n\n", libc::EINVAL));
        assert!(ask(&mut stream, "get=1\n\n").await.ends_with("errno=0\n\n"));
    }

    #[tokio::test]
    async fn another_user_is_refused() {
        let fixture = Fixture::for_user(Some(1), u32::MAX - 1);
        let mut answer = String::new();
        fixture.connect().await.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, format!("errno={}\n\n", libc::EACCES));
    }

    #[tokio::test(start_paused = true)]
    async fn silent_clients_are_bounded_and_make_room() {
        let fixture = Fixture::new(Some(1));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(fixture.connect().await);
        }
        let mut answer = String::new();
        fixture.connect().await.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, format!("errno={}\n\n", libc::EBUSY));
        // Time passes when nothing else can happen: all are dropped.
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
        assert!(fixture.ask("get=1\n\n").await.ends_with("errno=0\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_does_not_take_its_answer_is_dropped() {
        let fixture = Fixture::new(Some(10_000));
        let mut stream = fixture.connect().await;
        stream.write_all(b"get=1\n\n").await.unwrap();
        tokio::time::sleep(2 * DEADLINE).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.ends_with("\n\n"), "{} bytes have waited", answer.len());
    }

    #[test]
    fn a_socket_is_of_the_interface_that_its_path_names() {
        assert!(is_socket_of(Some(Path::new("/run/wireguard/i2plan0.sock")), "i2plan0"));
        assert!(!is_socket_of(Some(Path::new("/run/wireguard/i2plan0.sock")), "mesh7"));
        assert!(!is_socket_of(None, "i2plan0"));
    }
}
