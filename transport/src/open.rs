//! Opens sessions.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU16;
use std::time::{Duration, Instant};

use i2plan_proto::sam::self_test::{loops_back, usual_ports};
use i2plan_proto::sam::session::{GreetingError, NewSession, SessionError, read_answer, read_greeting};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::debug;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::control::quit;
use crate::retry::Cause;
use crate::self_test::{self, SelfTestError, Tested};

/// How long the bridge may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the bridge may take to greet.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// How long the router may take to build the tunnels of a session.
const SESSION_DEADLINE: Duration = Duration::from_secs(180);

/// Longest line that is read, bytes. The answer to `SESSION CREATE` repeats the private keys.
const MAX_LINE: usize = 16 * 1024;

/// Why no session is open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Nothing takes connections at the bridge's address.
    #[error("no SAM bridge at {0}: {1}")]
    NoBridge(SocketAddr, io::Error),
    /// The connection to the bridge has failed.
    #[error("the connection to the SAM bridge failed: {0}")]
    Io(#[from] io::Error),
    /// The bridge does not answer.
    #[error("the SAM bridge does not answer {0} within {1} s")]
    Timeout(&'static str, u64),
    /// The bridge does not agree to SAM 3.0.
    #[error("the SAM bridge did not greet back: {0}")]
    Greeting(#[from] GreetingError),
    /// The router refuses.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The session carries nothing.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

impl OpenError {
    /// What it means for the next attempt.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoBridge(..) => Cause::NoBridge,
            Self::Session(SessionError::Refused(reason)) if reason.starts_with("DUPLICATE") => {
                Cause::Duplicate
            }
            _ => Cause::Other,
        }
    }
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) stream: TcpStream,
    /// Connected to the bridge, which forwards to it.
    pub(crate) socket: UdpSocket,
    pub(crate) udp_port: u16,
}

/// Opens a session, and tests it. `answered` is told how long the router has taken to answer, or how long it has not;
/// datagrams that come meanwhile go to `other`. `last` is the UDP port of the session before, and is tried first.
pub(crate) async fn open(
    config: &Config,
    last: Option<u16>,
    answered: impl FnOnce(Duration),
    other: impl FnMut(&[u8]),
) -> Result<Opened, OpenError> {
    let Config { bridge, udp_port, style, tunnels, keys, .. } = config;
    let mut ports = udp_port.map_or_else(|| usual_ports(bridge.port()), |port| vec![port]);
    ports.sort_by_key(|port| Some(*port) != last);
    let no_bridge = |error| OpenError::NoBridge(*bridge, error);
    let stream = timeout(CONNECT_DEADLINE, TcpStream::connect(*bridge)).await;
    let mut stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(no_bridge)?;
    stream.set_nodelay(true)?;
    let socket = UdpSocket::bind((stream.local_addr()?.ip(), 0)).await?;
    socket.connect((bridge.ip(), ports[0])).await?;

    let greeting = ask(&mut stream, config.hello(), "HELLO", GREETING_DEADLINE).await?;
    let version = read_greeting(&greeting)?;
    // A session's id lingers in some routers after its end, so every attempt has its own.
    let id = format!("i2plan-{:016x}", rand::random::<u64>());
    let forward_to = Some(socket.local_addr()?);
    let session = NewSession { style: *style, id: &id, forward_to, tunnels: *tunnels };
    let create = session.line(keys.expose());
    let asked = Instant::now();
    let answer = ask(&mut stream, &create, "SESSION CREATE", SESSION_DEADLINE).await;
    answered(asked.elapsed());
    read_answer(&answer?)?;
    debug!(session = id, %bridge, version, "a session is open, and is tested");

    let tested = Tested {
        id: &id,
        style: *style,
        destination: keys.destination().clone(),
        loops_back: loops_back(&version),
    };
    let proven = AtomicU16::new(last.unwrap_or_default());
    match self_test::run(&mut stream, &socket, &tested, &ports, &proven, other).await {
        Ok((udp_port, _)) => Ok(Opened { id, stream, socket, udp_port }),
        Err(error) => {
            // Some routers take minutes to notice that a connection was closed, and hold on to the destination.
            quit(&mut stream).await;
            Err(error.into())
        }
    }
}

/// Says a line. Returns the line that answers it, without its end.
async fn ask(
    stream: &mut TcpStream,
    line: &str,
    what: &'static str,
    deadline: Duration,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let exchange = async {
        stream.write_all(line.as_bytes()).await?;
        let mut answer = Zeroizing::new(Vec::with_capacity(MAX_LINE));
        // Byte by byte: what follows the line is for others to read.
        loop {
            match stream.read_u8().await {
                Ok(b'\n') => return Ok(answer),
                Ok(_) if answer.len() >= MAX_LINE => {
                    return Err(io::Error::other("it sends a line without end"));
                }
                Ok(byte) => answer.push(byte),
                // Some routers end the connection instead of the line.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(answer),
                Err(error) => return Err(error),
            }
        }
    };
    match timeout(deadline, exchange).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(OpenError::Timeout(what, deadline.as_secs())),
    }
}
