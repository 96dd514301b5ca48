//! Sends datagrams of a session that has just been opened to itself, until one comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use i2plan_proto::endpoint::AnyDestination;
use i2plan_proto::sam::connection::Connection;
use i2plan_proto::sam::self_test::{DEADLINE, SelfTest};
use i2plan_proto::sam::session::Style;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep};

use crate::control::wait_for;
use crate::udp::{MAX_DATAGRAM, is_of_an_earlier_datagram, send};

/// How often the router is asked for a destination that it has not found.
const LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// A session to be tested.
#[derive(Debug)]
pub struct Tested<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it sends.
    pub style: Style,
    /// Its destination.
    pub destination: AnyDestination,
}

/// Why a session cannot be used.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// Nothing takes datagrams at these ports of the bridge, or what it takes does not come back although the router
    /// finds the destination.
    #[error("the bridge at {bridge} answers on TCP, but its UDP port is not {}", either(ports))]
    Port {
        /// The bridge's connection.
        bridge: SocketAddr,
        /// The ports that were tried.
        ports: Vec<u16>,
    },
    /// Nothing comes back, and the router does not find the destination.
    #[error(
        "nothing that the session sends to itself comes back within {} s: its I2P tunnels carry nothing yet",
        DEADLINE.as_secs()
    )]
    Tunnels,
    /// A socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn either(ports: &[u16]) -> String {
    let names: Vec<_> = ports.iter().map(ToString::to_string).collect();
    names.join(" or ")
}

/// Tests a session through these UDP ports of its bridge, in this order, and leaves its socket connected to the one that
/// works, which is returned. Other datagrams that come meanwhile go to `other`. On other systems than Linux only the
/// port is tried that the socket is connected to.
///
/// Also looks the session's own destination up: i2pd drops datagrams to a destination that it does not know yet.
///
/// # Errors
/// [`SelfTestError`]; the session is of no use then.
pub async fn run(
    stream: &mut TcpStream,
    socket: &UdpSocket,
    session: &Tested<'_>,
    ports: &[u16],
    mut other: impl FnMut(&[u8]),
) -> Result<u16, SelfTestError> {
    let bridge = stream.peer_addr()?;
    // Only Linux lets a process connect a socket again that may make none.
    let ports = if cfg!(target_os = "linux") { ports.to_vec() } else { vec![socket.peer_addr()?.port()] };
    let started = Instant::now();
    let Tested { id, style, destination } = session;
    let mut test = SelfTest::new(*style, id, destination.clone(), rand::random(), &ports, Duration::ZERO);
    let own = destination.hash();
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
            return Ok(test.port());
        }
        let now = started.elapsed();
        if !is_back {
            if socket.peer_addr()?.port() != test.port() {
                socket.connect(SocketAddr::new(bridge.ip(), test.port())).await?;
            }
            if let Some(probe) = test.poll_transmit(now) {
                match send(socket, probe) {
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
