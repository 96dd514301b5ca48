//! Lays siege to a daemon's socket: holds connections, floods, and sends what no client sends.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use i2plan_ipc::api::keyd::KeydApi;
use i2plan_ipc::api::meshd::MeshdApi;
use i2plan_ipc::api::tund::TundApi;
use i2plan_ipc::api::{Api, keyd, meshd, tund};
use i2plan_ipc::client::{Client, ClientError};
use i2plan_ipc::frame::{HEADER_LEN, MAX_FDS, decode_body, encode_body};
use i2plan_ipc::hello::{Hello, HelloReply, PROTOCOL, Request};
use i2plan_ipc::version::Version;
use i2plan_ipc::{ErrorKind, Role};
use rand::RngExt as _;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use serde::{Deserialize, Serialize};

use super::print;
use crate::Failure;

/// How long each attack goes on at least.
const PRESS: Duration = Duration::from_secs(3);

/// Connections that are tried to be held at once.
const HELD: usize = 500;

/// Connections in sequence.
const SEQUENCE: usize = 10_000;

/// Most descriptors of one message (`SCM_MAX_FD` of Linux).
const MAX_PASSED: usize = 253;

/// How long a daemon may take to say hello or to end a connection. Longer than it gives a frame.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Between the requests of one who only wants to know.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// An attack begins or has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttackStep {
    /// The attack.
    pub attack: String,
    /// How often, or on how many connections, once it has ended.
    pub count: Option<u64>,
}

/// An answer that somebody else got meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// From before connecting to the answer.
    pub milliseconds: u64,
    /// Why there was none.
    pub error: Option<String>,
}

/// Whom the siege is laid to, and as what.
struct Target {
    socket: PathBuf,
    daemon: Role,
    role: Role,
}

type Attack = fn(&Target) -> io::Result<u64>;

const ATTACKS: [(&str, Attack); 8] = [
    ("frames of 4 GB", Target::huge_frames),
    ("garbage", Target::garbage),
    ("no hello", Target::no_hello),
    ("half frames", Target::half_frames),
    ("connections at once", Target::hold),
    ("connections in sequence", Target::sequence),
    ("requests without end", Target::flood),
    ("descriptors", Target::descriptors),
];

/// How many attacks there are.
pub const COUNT: usize = ATTACKS.len();

/// Does all that, one after the other. Prints a [`AttackStep`] before and after each.
///
/// # Errors
/// If the daemon cannot be reached at all.
pub fn lay(run: &Path, daemon: Role, role: Role) -> Result<(), Failure> {
    let target = Target { socket: super::socket(run, daemon, role), daemon, role };
    for (name, attack) in ATTACKS {
        print(&AttackStep { attack: name.to_owned(), count: None })?;
        let count = attack(&target).map_err(|error| Failure::from(error).during(name))?;
        print(&AttackStep { attack: name.to_owned(), count: Some(count) })?;
    }
    Ok(())
}

fn frame(body: &impl Serialize, fds: u8) -> Vec<u8> {
    let body = encode_body(body).expect("it can be encoded");
    let len = u32::try_from(body.len()).expect("it is short");
    [&len.to_be_bytes()[..], &[fds], &body].concat()
}

impl Target {
    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }

    /// A connection on which the daemon has said hello; none if it wants no more.
    fn greeted(&self) -> io::Result<Option<UnixStream>> {
        let mut stream = self.connect()?;
        let hello = Hello { protocol: PROTOCOL, role: self.role, version: Version::current() };
        // It may have refused already.
        let _ = stream.write_all(&frame(&hello, 0));
        let mut header = [0; HEADER_LEN];
        stream.read_exact(&mut header)?;
        let mut body = vec![0; u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize];
        stream.read_exact(&mut body)?;
        let reply: HelloReply = decode_body(&body).map_err(io::Error::other)?;
        Ok(reply.refused.is_none().then_some(stream))
    }

    /// Something that this daemon answers.
    fn request(&self) -> Vec<u8> {
        let id = 1;
        match self.daemon {
            Role::Keyd => frame(&Request { id, body: keyd::Request::Identity }, 0),
            Role::Tund => frame(&Request { id, body: tund::Request::Stats }, 0),
            Role::Meshd | Role::Client | Role::Connector | Role::Webd | Role::Named => {
                frame(&Request { id, body: meshd::Request::Status }, 0)
            }
        }
    }

    /// Does it again and again for a while.
    fn press(mut attack: impl FnMut() -> io::Result<()>) -> io::Result<u64> {
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < PRESS {
            attack()?;
            count += 1;
        }
        Ok(count)
    }

    fn huge_frames(&self) -> io::Result<u64> {
        Self::press(|| {
            for stream in [Some(self.connect()?), self.greeted()?].into_iter().flatten() {
                self.expect_end(stream, &[0xff, 0xff, 0xff, 0xff, 0]);
            }
            Ok(())
        })
    }

    fn garbage(&self) -> io::Result<u64> {
        let mut rng = rand::rng();
        Self::press(|| {
            for stream in [Some(self.connect()?), self.greeted()?].into_iter().flatten() {
                let mut bytes = vec![0; rng.random_range(HEADER_LEN..5000)];
                rng.fill(&mut bytes[..]);
                // A frame that is short enough, too, so that its body is looked at.
                if rng.random() {
                    let len = u16::try_from(bytes.len() - HEADER_LEN).unwrap_or(0);
                    bytes[..HEADER_LEN].copy_from_slice(&[0, 0, (len >> 8) as u8, (len & 0xff) as u8, 0]);
                }
                let _ = (&stream).write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = (&stream).read_to_end(&mut Vec::new());
            }
            Ok(())
        })
    }

    /// Sends this and waits until the daemon ends the connection.
    fn expect_end(&self, mut stream: UnixStream, bytes: &[u8]) {
        let _ = stream.write_all(bytes);
        // A reset is as good an end as any.
        let _ = stream.read_to_end(&mut Vec::new());
    }

    fn no_hello(&self) -> io::Result<u64> {
        let held = (0..HELD).map(|_| self.connect()).collect::<io::Result<Vec<_>>>()?;
        std::thread::sleep(PRESS);
        Ok(held.len() as u64)
    }

    /// All connections that the daemon grants.
    fn all(&self) -> io::Result<Vec<UnixStream>> {
        let all = (0..HELD).map(|_| self.greeted()).collect::<io::Result<Vec<_>>>()?;
        Ok(all.into_iter().flatten().collect())
    }

    fn half_frames(&self) -> io::Result<u64> {
        let held = self.all()?;
        for mut stream in &held {
            stream.write_all(&[0, 0, 1])?;
        }
        std::thread::sleep(PRESS);
        Ok(held.len() as u64)
    }

    fn hold(&self) -> io::Result<u64> {
        let held = self.all()?;
        std::thread::sleep(PRESS);
        Ok(held.len() as u64)
    }

    fn sequence(&self) -> io::Result<u64> {
        for _ in 0..SEQUENCE {
            drop(self.connect()?);
        }
        Ok(SEQUENCE as u64)
    }

    /// Asks on a few connections as fast as they take it; on every second of them nobody reads the answers.
    fn flood(&self) -> io::Result<u64> {
        let mut threads = Vec::new();
        for number in 0..8 {
            let Some(stream) = self.greeted()? else { continue };
            if number % 2 == 0 {
                let mut answers = stream.try_clone()?;
                threads.push(std::thread::spawn(move || {
                    let mut buffer = [0; 65_536];
                    let mut count = 0;
                    while let Ok(read @ 1..) = answers.read(&mut buffer) {
                        count += read as u64;
                    }
                    count
                }));
            }
            let request = self.request();
            threads.push(std::thread::spawn(move || {
                let started = Instant::now();
                let _ = stream.set_write_timeout(Some(PRESS));
                let mut count = 0;
                while started.elapsed() < PRESS && (&stream).write_all(&request).is_ok() {
                    count += 1;
                }
                let _ = stream.shutdown(std::net::Shutdown::Both);
                count
            }));
        }
        // Of the readers the bytes, of the writers the requests.
        Ok(threads.into_iter().filter_map(|thread| thread.join().ok()).sum())
    }

    /// Passes descriptors that nobody asked for: many at once, with frames that never end, and sockets that
    /// whoever closes them last would have to wait for.
    fn descriptors(&self) -> io::Result<u64> {
        let null = std::fs::File::open("/dev/null")?;
        let mut count = 0;
        // Held with unfinished frames.
        let held = self.all()?;
        for stream in &held {
            count += u64::from(pass(stream, &[0, 0, 1], &[null.as_fd(); MAX_FDS]).is_ok());
        }
        drop(held);
        let _unread = [self.lingering(1)?, self.lingering(MAX_FDS)?, self.lingering(2 * MAX_FDS)?];
        count += Self::press(|| {
            for stream in [Some(self.connect()?), self.greeted()?].into_iter().flatten() {
                let _ = pass(&stream, &self.request(), &[null.as_fd(); MAX_PASSED]);
            }
            if let Some(stream) = self.greeted()? {
                let mut request = self.request();
                request[HEADER_LEN - 1] = 2;
                // What was refused is not answered either.
                if pass(&stream, &request, &[null.as_fd(); 2]).is_ok() {
                    let _ = (&stream).read(&mut [0; 100]);
                }
            }
            Ok(())
        })?;
        Ok(count)
    }
}

impl Target {
    /// Passes sockets whose last owner has to wait for what nobody does, and lets go of them. Without the listener,
    /// which is returned, nobody would have to wait any more.
    fn lingering(&self, number: usize) -> io::Result<TcpListener> {
        // The listener's kernel takes the connections, and nobody reads.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let unread = || {
            let mut socket = TcpStream::connect(listener.local_addr()?)?;
            socket.set_nonblocking(true)?;
            while socket.write(&[0; 65_536]).is_ok() {}
            sockopt::set_socket_linger(&socket, Some(Duration::from_secs(600)))?;
            Ok::<_, io::Error>(socket)
        };
        let sockets: Vec<TcpStream> = (0..number).map(|_| unread()).collect::<io::Result<_>>()?;
        let fds: Vec<_> = sockets.iter().map(TcpStream::as_fd).collect();
        // Again, should there be no place left yet.
        let stream = loop {
            let stream = self.connect()?;
            match pass(&stream, &[0], &fds) {
                Ok(()) => break stream,
                // It takes no descriptors. This process must not be the one that waits.
                Err(Errno::PERM) => {
                    for socket in &sockets {
                        sockopt::set_socket_linger(socket, None)?;
                    }
                    return Ok(listener);
                }
                Err(_) => {}
            }
        };
        // From here on the daemon's, or those on their way to it, are the last.
        drop(sockets);
        drop(stream);
        Ok(listener)
    }
}

/// Sends bytes with descriptors.
///
/// # Errors
/// If the other side is not there to take them, or takes none ([`Errno::PERM`]).
fn pass(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)), "there is room for them");
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Asks again and again, each time on a new connection, and prints an [`Answer`] each time.
///
/// # Errors
/// If it cannot be printed.
pub async fn watch(run: &Path, daemon: Role, role: Role) -> Result<(), Failure> {
    let socket = super::socket(run, daemon, role);
    loop {
        let started = Instant::now();
        let error = match daemon {
            Role::Keyd => ask::<KeydApi>(&socket, role, keyd::Request::Identity).await,
            Role::Tund => ask::<TundApi>(&socket, role, tund::Request::Stats).await,
            Role::Meshd | Role::Client | Role::Connector | Role::Webd | Role::Named => {
                ask::<MeshdApi>(&socket, role, meshd::Request::Status).await
            }
        };
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        print(&Answer { milliseconds, error })?;
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Why there is no answer. That it may not be asked by this role is one.
async fn ask<A: Api>(socket: &Path, role: Role, request: A::Request) -> Option<String> {
    let mut client = match Client::<A>::connect(socket, role).await {
        Ok(client) => client,
        Err(ClientError::Api(error)) if error.kind == ErrorKind::Denied => return None,
        Err(error) => return Some(error.to_string()),
    };
    match client.call(request).await {
        Ok(_) | Err(ClientError::Api(_)) => None,
        Err(error) => Some(error.to_string()),
    }
}
