//! Sends datagrams of a session that has just been opened to itself, until one comes back.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use i2plan_proto::endpoint::AnyDestination;
use i2plan_proto::sam::connection::{Connection, Received};
use i2plan_proto::sam::self_test::{DEADLINE, SelfTest};
use i2plan_proto::sam::session::Style;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep};

use crate::control::{Control, wait_for};
use crate::udp::{MAX_DATAGRAM, is_of_an_earlier_datagram, send};

/// How often the router is asked for a destination that it has not found.
const LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// After this a session is used in which nothing has come back, if the router finds its destination and another session
/// has shown that the bridge takes datagrams at the port. A router may hold on to the lease set that the destination had
/// before, whose key is gone (emissary 0.4): then a session never reaches itself, and reaches others well.
const UNPROVEN: Duration = Duration::from_secs(3);

/// After this a session is used in which nothing has come back, if the router finds its destination and brings nothing
/// back where all is well. By then the usual ports have been probed.
const SILENT: Duration = Duration::from_secs(5);

/// A session to be tested.
#[derive(Debug)]
pub struct Tested<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it sends.
    pub style: Style,
    /// Its destination.
    pub destination: AnyDestination,
    /// Whether the router brings back what a session sends to itself.
    pub loops_back: bool,
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
/// works, which is returned, with whether that was shown by this session. Other datagrams that come meanwhile go to
/// `other`. `proven` is the port through which a session of this bridge was last tested; 0 before. On other systems than
/// Linux only the port is tried that the socket is connected to.
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
    proven: &AtomicU16,
    mut other: impl FnMut(&[u8]),
) -> Result<(u16, bool), SelfTestError> {
    let bridge = stream.peer_addr()?;
    // Before it is known to be, it takes nothing.
    socket.writable().await?;
    // Only Linux lets a process connect a socket again that may make none.
    let ports = if cfg!(target_os = "linux") { ports.to_vec() } else { vec![socket.peer_addr()?.port()] };
    let started = Instant::now();
    let Tested { id, style, destination, loops_back } = session;
    let mut test = SelfTest::new(*style, id, destination.clone(), rand::random(), &ports, Duration::ZERO);
    let own = destination.hash();
    let mut connection = Connection::default();
    connection.look_up(own);
    let (mut is_known, mut look_up_again) = (false, None);
    let mut is_back = false;
    let (mut line, mut datagram) = (vec![0; 2048], vec![0; MAX_DATAGRAM]);
    loop {
        while let Some(output) = connection.poll_output(started.elapsed()) {
            stream.write_all(&output).await?;
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
        if !loops_back
            && now >= SILENT
            && is_known
            && connection.is_idle()
            && let Some(port) = test.silent_port()
        {
            if socket.peer_addr()?.port() != port {
                socket.connect(SocketAddr::new(bridge.ip(), port)).await?;
            }
            return Ok((port, false));
        }
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
                for received in connection.receive(&line[..count]).map_err(io::Error::other)? {
                    is_known |= matches!(received, Received::Found(found) if found.destination.is_ok());
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

/// Tests a session without UDP, whose datagrams go and come on its connection. Other datagrams that come meanwhile go to `other`, in the form in which a bridge forwards them.
///
/// # Errors
/// [`SelfTestError`]; the session is of no use then.
pub async fn run_on_connection(
    stream: &mut TcpStream,
    session: &Tested<'_>,
    mut other: impl FnMut(&[u8]),
) -> Result<Control, SelfTestError> {
    let started = Instant::now();
    let Tested { id, style, destination, loops_back } = session;
    // No port takes anything: it says when a probe is due, and what that is.
    let mut test = SelfTest::new(*style, id, destination.clone(), rand::random(), &[0], Duration::ZERO);
    let mut connection = Connection::with_datagrams();
    connection.look_up(destination.hash());
    let (mut is_known, mut line) = (false, vec![0; 2048]);
    loop {
        let now = started.elapsed();
        if !loops_back && is_known && now >= SILENT {
            return Ok(Control::new(connection, started));
        }
        if test.poll_transmit(now).is_some() && connection.is_ready() {
            connection.send(&destination.to_base64(), test.payload());
        }
        while let Some(output) = connection.poll_output(now) {
            stream.write_all(&output).await?;
        }
        let next = connection.poll_timeout().map_or(test.poll_timeout(), |at| at.min(test.poll_timeout()));
        tokio::select! {
            count = stream.read(&mut line) => {
                let count = match count? {
                    0 => return Err(io::Error::other("the router closed the session").into()),
                    count => count,
                };
                let mut is_back = false;
                for received in connection.receive(&line[..count]).map_err(io::Error::other)? {
                    match received {
                        Received::Found(found) => is_known |= found.destination.is_ok(),
                        Received::Datagram(datagram) if test.handle_datagram(&datagram) => is_back = true,
                        Received::Datagram(datagram) => other(&datagram),
                    }
                }
                if is_back {
                    return Ok(Control::new(connection, started));
                }
            }
            () = sleep(next.saturating_sub(now)) => {
                if !test.handle_timeout(started.elapsed()) {
                    return Err(SelfTestError::Tunnels);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket as StdUdpSocket};

    use i2plan_proto::destination::Destination;
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// Tests a session at a bridge that finds its destination and carries nothing to it, where another session was last
    /// tested through `proven`.
    async fn test_in_vain(loops_back: bool, proven: impl Fn(u16) -> u16) -> Option<(u16, bool)> {
        let destination = Destination { padding: [3; 32], signing_key: [4; 32] };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (bridge, _) = listener.accept().await.unwrap();
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let udp = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        udp.set_nonblocking(true).unwrap();
        udp.connect(datagrams.local_addr().unwrap()).unwrap();
        let socket = UdpSocket::from_std(udp).unwrap();
        let session =
            Tested { id: "s-1", style: Style::Datagram, destination: destination.into(), loops_back };
        let answers = async move {
            let mut bridge = BufReader::new(bridge);
            let mut line = String::new();
            while bridge.read_line(&mut line).await.is_ok_and(|len| len > 0) {
                let name = line.trim_end().rsplit_once("NAME=").unwrap().1.to_owned();
                let found = format!("NAMING REPLY RESULT=OK NAME={name} VALUE={}\n", destination.to_base64());
                bridge.get_mut().write_all(found.as_bytes()).await.unwrap();
                line.clear();
            }
        };
        let port = datagrams.local_addr().unwrap().port();
        let (ports, proven) = ([port], AtomicU16::new(proven(port)));
        let tested = run(&mut stream, &socket, &session, &ports, &proven, |_| {});
        tokio::select! {
            tested = tested => Some(tested.unwrap()),
            () = answers => None,
            () = sleep(SILENT + Duration::from_secs(1)) => None,
        }
    }

    #[tokio::test]
    async fn a_session_that_does_not_reach_itself_is_used_if_the_port_is_known_to_be_right() {
        let (known, unknown) = tokio::join!(test_in_vain(true, |port| port), test_in_vain(true, |_| 0));
        assert!(matches!(known, Some((_, false))));
        assert_eq!(unknown, None, "the port may be wrong");
        let java = test_in_vain(false, |_| 0).await;
        assert!(matches!(java, Some((_, false))), "no more can be known");
    }
}
