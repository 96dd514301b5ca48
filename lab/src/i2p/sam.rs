//! A SAM client for measuring bare datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use i2plan_proto::destination::{base64, hash_of};
use i2plan_proto::endpoint::AnyDestination;
pub use i2plan_proto::sam::session::Style;
use i2plan_proto::sam::session::{HELLO, NewSession, Tunnels, read_answer, read_greeting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::router::SAM;
use crate::{Failure, netns};

/// The bridge's UDP port.
pub const UDP: SocketAddr = SocketAddr::new(SAM.ip(), 7655);

/// In the place of a private key: the bridge makes one.
pub const TRANSIENT: &str = "TRANSIENT SIGNATURE_TYPE=7";

/// An open session under a destination made for it.
#[derive(Debug)]
pub struct Session {
    /// Held open: the session ends with it.
    control: TcpStream,
    id: String,
    socket: UdpSocket,
    /// Its destination, in base64.
    pub destination: String,
    /// The same with its private keys behind it, as the bridge has told them.
    pub private_key: String,
}

/// How long a bridge may take to answer what it need not answer at all.
const ANSWER: Duration = Duration::from_secs(1);

impl Session {
    /// Opens a session at the bridge of this network namespace.
    ///
    /// # Errors
    /// If the bridge refuses or is not there.
    pub async fn open(style: Style) -> Result<Self, Failure> {
        Self::open_under(style, TRANSIENT).await
    }

    /// The same under the destination with this private key, as SAM writes it.
    ///
    /// # Errors
    /// If the bridge refuses or is not there.
    pub async fn open_under(style: Style, key: &str) -> Result<Self, Failure> {
        let socket = UdpSocket::bind((SAM.ip(), 0)).await?;
        Self::create(TcpStream::connect(SAM).await?, socket, style, key).await
    }

    /// The same at the bridge of another network namespace.
    ///
    /// # Errors
    /// If the bridge refuses or is not there.
    pub async fn open_within(namespace: &str, style: Style, key: &str) -> Result<Self, Failure> {
        let (control, socket) = netns::within(namespace, || {
            let control = std::net::TcpStream::connect(SAM)?;
            let socket = std::net::UdpSocket::bind((SAM.ip(), 0))?;
            control.set_nonblocking(true)?;
            socket.set_nonblocking(true)?;
            Ok((control, socket))
        })?;
        Self::create(TcpStream::from_std(control)?, UdpSocket::from_std(socket)?, style, key).await
    }

    async fn create(
        mut control: TcpStream,
        socket: UdpSocket,
        style: Style,
        key: &str,
    ) -> Result<Self, Failure> {
        control.set_nodelay(true)?;
        let hello = ask(&mut control, HELLO).await?;
        read_greeting(hello.as_bytes()).map_err(|error| Failure::new(format!("{error}: {hello:?}")))?;
        let id = format!("lab-{:016x}", rand::random::<u64>());
        let session = NewSession {
            style,
            id: &id,
            forward_to: Some(socket.local_addr()?),
            tunnels: Tunnels { length: 1, length_variance: 0, quantity: 3, backup_quantity: 0 },
        };
        let status = ask(&mut control, &session.line(key)).await?;
        let key = status.split("DESTINATION=").nth(1).unwrap_or_default().trim();
        read_answer(status.as_bytes()).map_err(|error| Failure::new(error.to_string()))?;
        let destination =
            reencode(key).ok_or_else(|| Failure::new("the SAM bridge's destination is not base64"))?;
        Ok(Self { control, id, socket, destination, private_key: key.to_owned() })
    }

    /// The destination with this name, in base64; none if the router does not find it.
    ///
    /// # Errors
    /// If the bridge closes the connection.
    pub async fn look_up(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let reply = ask(&mut self.control, &format!("NAMING LOOKUP NAME={name}\n")).await?;
        Ok(reply.split_whitespace().find_map(|word| word.strip_prefix("VALUE=")).map(ToOwned::to_owned))
    }

    /// The host name of its destination.
    #[must_use]
    pub fn name(&self) -> String {
        hash_of(&base64().decode(self.destination.as_bytes()).unwrap_or_default()).b32()
    }

    /// Sends a line, and returns what comes for a while, or until the bridge closes the connection; nothing if it has.
    pub async fn say(&mut self, line: &str) -> Vec<u8> {
        let mut answer = Vec::new();
        if self.control.write_all(line.as_bytes()).await.is_ok() {
            let _ = tokio::time::timeout(ANSWER, self.control.read_to_end(&mut answer)).await;
        }
        answer
    }

    /// The header that addresses datagrams to a destination.
    #[must_use]
    pub fn header(&self, destination: &str) -> Vec<u8> {
        format!("3.0 {} {destination}\n", self.id).into_bytes()
    }

    /// Where its datagrams go out and come in.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends a datagram that starts with a [`Session::header`].
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn send(&self, datagram: &[u8]) -> Result<(), Failure> {
        self.socket.send_to(datagram, UDP).await?;
        Ok(())
    }

    /// Receives what the bridge forwards.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        Ok(self.socket.recv(buffer).await?)
    }
}

/// Binds the sockets at which a network namespace has its bridge, for one that takes a router's place.
///
/// # Errors
/// If there is no such namespace, or it has a bridge.
pub fn bind_bridge(namespace: &str) -> Result<(std::net::TcpListener, std::net::UdpSocket), Failure> {
    netns::within(namespace, || {
        let listener = std::net::TcpListener::bind(SAM)?;
        let socket = std::net::UdpSocket::bind(UDP)?;
        listener.set_nonblocking(true)?;
        socket.set_nonblocking(true)?;
        Ok((listener, socket))
    })
}

async fn ask(control: &mut TcpStream, line: &str) -> Result<String, Failure> {
    control.write_all(line.as_bytes()).await?;
    let mut reply = Vec::new();
    loop {
        let mut byte = [0];
        if control.read(&mut byte).await? == 0 {
            return Err(Failure::new("the SAM bridge closed the connection"));
        }
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&reply).into_owned());
        }
        reply.push(byte[0]);
    }
}

/// The destination in front of a private key, both in I2P's base64. Encoded anew, because its length need be no multiple of
/// three, so that its last symbol shares bits with what follows.
fn reencode(key: &str) -> Option<String> {
    let bytes = base64().decode(key.as_bytes()).ok()?;
    AnyDestination::split_from(&bytes).ok().map(|(destination, _)| destination.to_base64())
}
