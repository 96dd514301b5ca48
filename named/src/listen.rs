//! The sockets: UDP and TCP, at the node's addresses in the mesh.
//!
//! Only programs of this host are heard: what a host sends to its own address comes from the same address. `tund` takes
//! a member's packets from the member's addresses alone; and whoever else sends with that source gets nothing, because
//! the answer stays on the host. A filter of each UDP socket drops all else before it is queued, so that a member fills
//! no queue; TCP connections from elsewhere are closed, because a filter of theirs takes a privilege.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::rate::{Bucket, Quota};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::server::PORT;
use crate::zone::Zone;

/// Longest datagram that is read, bytes; a longer one is cut, and so is no query.
const MAX_DATAGRAM: usize = 4096;

/// Datagrams that are answered at each socket.
const DATAGRAMS: Quota = Quota::new(1000, 1000);

/// TCP connections at each socket. One more ends the oldest.
const CONNECTIONS: usize = 16;

/// How long a connection lasts at most.
const LIFETIME: Duration = Duration::from_secs(10);

/// Queries over one connection.
const QUERIES: usize = 64;

/// How long a socket is left alone after an error of the system.
const PAUSE: Duration = Duration::from_millis(100);

// A program's operations (linux/filter.h): loading a word at a fixed place, comparing it, and ending.
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What is answered; none before the members are known.
pub type Answers = watch::Receiver<Option<Arc<Zone>>>;

/// The sockets of both addresses.
#[derive(Debug)]
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Opens them, also before the interface has the addresses.
    ///
    /// # Errors
    /// The address, and what the system says.
    pub fn open(addresses: [IpAddr; 2]) -> Result<Self, (IpAddr, io::Error)> {
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        for address in addresses {
            let at = SocketAddr::new(address, PORT);
            sockets.udp.push(open_udp(at).map_err(|error| (address, error))?);
            sockets.tcp.push(open_tcp(at).map_err(|error| (address, error))?);
        }
        Ok(sockets)
    }

    /// Answers at them, for as long as the process lives.
    pub fn serve(self, tasks: &mut Tasks, answers: &Answers) {
        for socket in self.udp {
            tasks.spawn("UDP", serve_udp(socket, answers.clone()));
        }
        for listener in self.tcp {
            tasks.spawn("TCP", serve_tcp(listener, answers.clone()));
        }
    }
}

fn open_udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(at, Type::DGRAM, Protocol::UDP)?;
    socket.attach_filter(&only_from(at.ip()))?;
    socket.bind(&at.into())?;
    UdpSocket::from_std(socket.into())
}

fn open_tcp(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(at, Type::STREAM, Protocol::TCP)?;
    // Connections of the process before may not be over yet.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(i32::try_from(CONNECTIONS).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// A socket that is not bound yet, and may be where there is no interface.
fn open(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    match at {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    Ok(socket)
}

/// A program of the kernel's packet filter (BPF, as in packet(7)) that takes packets with this source alone.
fn only_from(source: IpAddr) -> Vec<SockFilter> {
    /// Where the IP header is, for a program whose packet begins behind it.
    const HEADER: u32 = libc::SKF_NET_OFF.cast_unsigned();
    let operation = |code, jf, k| SockFilter::new(code, 0, jf, k);
    let (offset, bytes) = match source {
        IpAddr::V4(address) => (12, address.octets().to_vec()),
        IpAddr::V6(address) => (8, address.octets().to_vec()),
    };
    let (words, _) = bytes.as_chunks::<4>();
    let mut program = Vec::new();
    for (index, word) in (0u8..).zip(words) {
        let left = u8::try_from(words.len()).unwrap_or(u8::MAX) - index - 1;
        program.push(operation(LOAD_WORD, 0, HEADER + offset + 4 * u32::from(index)));
        // Otherwise over the words that are left, and over the end that takes the packet.
        program.push(operation(JUMP_IF_EQUAL, 2 * left + 1, u32::from_be_bytes(*word)));
    }
    program.push(operation(RETURN, 0, u32::MAX));
    program.push(operation(RETURN, 0, 0));
    program
}

fn answer(answers: &Answers, request: &[u8]) -> Option<Vec<u8>> {
    let zone = answers.borrow().clone();
    zone?.answer(request)
}

async fn serve_udp(socket: UdpSocket, answers: Answers) {
    let mut buffer = [0; MAX_DATAGRAM];
    let (started, mut bucket) = (Instant::now(), Bucket::default());
    loop {
        let (len, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "no query");
                sleep(PAUSE).await;
                continue;
            }
        };
        if !bucket.try_take(DATAGRAMS, started.elapsed()) {
            continue;
        }
        if let Some(answer) = answer(&answers, &buffer[..len])
            && let Err(error) = socket.try_send_to(&answer, source)
        {
            debug!(%error, "an answer was not sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, answers: Answers) {
    let mut connections = JoinSet::new();
    let mut oldest = VecDeque::new();
    loop {
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "no connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        if stream.local_addr().map(|own| own.ip()).ok() != Some(source.ip()) {
            continue;
        }
        while connections.try_join_next().is_some() {}
        oldest.retain(|connection: &tokio::task::AbortHandle| !connection.is_finished());
        if oldest.len() >= CONNECTIONS
            && let Some(connection) = oldest.pop_front()
        {
            connection.abort();
        }
        let answers = answers.clone();
        oldest.push_back(connections.spawn(async move {
            let _ = timeout(LIFETIME, converse(stream, &answers)).await;
        }));
    }
}

/// Answers what comes over a connection, until it closes, has asked enough, or says what gets no answer.
async fn converse(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut request = Vec::new();
    for _ in 0..QUERIES {
        let len = stream.read_u16().await?;
        request.resize(len.into(), 0);
        stream.read_exact(&mut request).await?;
        let Some(answer) = answer(answers, &request) else { return Ok(()) };
        let mut framed = u16::try_from(answer.len()).unwrap_or_default().to_be_bytes().to_vec();
        framed.extend(answer);
        stream.write_all(&framed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Client;

    use tokio::net::TcpSocket;

    use super::*;

    /// What comes from another address is dropped: it is not there when what was sent after it is.
    #[tokio::test]
    async fn only_the_own_address_is_heard() {
        let socket = open_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = socket.local_addr().unwrap();
        Client::bind("127.0.0.2:0").unwrap().send_to(b"other", at).unwrap();
        Client::bind("127.0.0.1:0").unwrap().send_to(b"own", at).unwrap();
        let mut buffer = [0; 16];
        let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"own");

        let listener = open_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let (_zone, answers) = watch::channel(None);
        tokio::spawn(serve_tcp(listener, answers));
        let client = TcpSocket::new_v4().unwrap();
        client.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = client.connect(at).await.unwrap();
        assert_eq!(other.read(&mut buffer).await.unwrap(), 0, "it is closed");
    }

    #[tokio::test]
    async fn the_own_ipv6_address_is_heard() {
        let socket = open_udp("[::1]:0".parse().unwrap()).unwrap();
        Client::bind("[::1]:0").unwrap().send_to(b"own", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 16]).await.unwrap().0, 3);
    }
}
