//! Sends datagrams of a session that has just been opened to itself, until one comes back.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use i2plan_proto::sam::connection::Connection;
use i2plan_proto::sam::self_test::{DEADLINE, SelfTest};
use i2plan_proto::sam::session::Style;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, sleep_until};

use super::sessions::{MAX_DATAGRAM, Open, is_of_an_earlier_datagram, send};

/// How often the router is asked for a destination that it has not found.
const LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// After this a session is used in which nothing has come back, if the router finds its destination and another session
/// has shown that the bridge takes datagrams at the port. A router may hold on to the lease set that the destination had
/// before, whose key is gone (emissary 0.4): then a session never reaches itself, and reaches others well.
const UNPROVEN: Duration = Duration::from_secs(3);

/// Why a session cannot be used.
#[derive(Debug)]
pub(super) enum SelfTestError {
    /// Nothing takes datagrams at these ports of the bridge, or what it takes does not come back although the router
    /// finds the destination.
    Port {
        /// The bridge's connection.
        bridge: SocketAddr,
        /// The ports that were tried.
        ports: Vec<u16>,
    },
    /// Nothing comes back, and the router does not find the destination.
    Tunnels,
    /// A socket failed.
    Io(io::Error),
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { bridge, ports } => {
                let names: Vec<_> = ports.iter().map(ToString::to_string).collect();
                let set = if ports.len() > 1 { "set" } else { "correct" };
                write!(
                    f,
                    "the bridge at {bridge} answers on TCP, but its UDP port is not {}; {set} i2p.sam_udp_port, or let \
                     UDP through between this host and the bridge",
                    names.join(" or ")
                )
            }
            Self::Tunnels => write!(
                f,
                "nothing that the session sends to itself comes back within {} s: its I2P tunnels carry nothing yet",
                DEADLINE.as_secs()
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for SelfTestError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Tests a session through these UDP ports of its bridge, in this order, and leaves its socket connected to the one that
/// works, which is returned, with whether that was shown by this session. Other datagrams that come meanwhile go to
/// `other`. `proven` is the port through which a session of this bridge was last tested; 0 before.
///
/// Also looks the session's own destination up: i2pd drops datagrams to a destination that it does not know yet.
///
/// # Errors
/// [`SelfTestError`]; the session is of no use then.
pub(super) async fn run(
    stream: &mut TcpStream,
    session: &Open,
    style: Style,
    ports: &[u16],
    proven: &AtomicU16,
    mut other: impl FnMut(&[u8]),
) -> Result<(u16, bool), SelfTestError> {
    let bridge = stream.peer_addr()?;
    let socket = UdpSocket::from_std(StdUdpSocket::from(session.udp.try_clone()?))?;
    // Only Linux lets a process connect a socket again that may make none.
    let ports = if cfg!(target_os = "linux") { ports.to_vec() } else { vec![socket.peer_addr()?.port()] };
    let started = Instant::now();
    let mut test =
        SelfTest::new(style, &session.id, session.destination, rand::random(), &ports, Duration::ZERO);
    let own = session.destination.hash();
    let mut connection = Connection::default();
    connection.look_up(own);
    let (mut is_known, mut look_up_again) = (false, None);
    let mut is_back = false;
    let (mut line, mut datagram) = (vec![0; 2048], vec![0; MAX_DATAGRAM]);
    loop {
        while let Some(line) = connection.poll_output() {
            stream.write_all(line.as_bytes()).await?;
        }
        // What is read of the connection from here on is another's.
        if is_back && connection.is_idle() {
            return Ok((test.port(), true));
        }
        let now = started.elapsed();
        let is_proven = proven.load(Ordering::Relaxed) == test.port();
        if now >= UNPROVEN && is_known && is_proven && connection.is_idle() {
            return Ok((test.port(), false));
        }
        if !is_back {
            if socket.peer_addr()?.port() != test.port() {
                socket.connect(SocketAddr::new(bridge.ip(), test.port())).await?;
            }
            if let Some(probe) = test.poll_transmit(now) {
                match send(&socket, probe) {
                    Err(error) if !is_of_an_earlier_datagram(&error) => return Err(error.into()),
                    _ => {}
                }
            }
        }
        // When it is back, all that is left is the answer to the lookup, which routers bound themselves.
        let next = if is_back { DEADLINE } else { test.poll_timeout() };
        tokio::select! {
            count = stream.read(&mut line) => {
                let count = match count? {
                    0 => return Err(io::Error::other("the router closed the session").into()),
                    count => count,
                };
                for found in connection.receive(&line[..count]).map_err(io::Error::other)? {
                    is_known |= found.destination.is_ok();
                    look_up_again = (!is_known).then(|| Instant::now() + LOOKUP_RETRY);
                }
            }
            len = socket.recv(&mut datagram) => match len {
                Ok(len) if test.handle_datagram(&datagram[..len]) => is_back = true,
                Ok(len) => other(&datagram[..len]),
                Err(error) if is_of_an_earlier_datagram(&error) => test.handle_refusal(started.elapsed()),
                Err(error) => return Err(error.into()),
            },
            () = wait_for(look_up_again), if !is_back => {
                look_up_again = None;
                connection.look_up(own);
            }
            () = sleep(next.saturating_sub(now)) => {
                let in_time = if is_back { started.elapsed() < DEADLINE } else { test.handle_timeout(started.elapsed()) };
                if is_back && !in_time {
                    return Err(io::Error::other("the router does not answer a lookup").into());
                }
                if !in_time {
                    return Err(if is_known || test.is_refused() {
                        SelfTestError::Port { bridge, ports }
                    } else {
                        SelfTestError::Tunnels
                    });
                }
            }
        }
    }
}

/// Returns at this time, and never if there is none.
async fn wait_for(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
