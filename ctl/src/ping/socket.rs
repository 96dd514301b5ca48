//! A socket for echo requests: one that needs no privileges where the system lets its users have them, else a raw one,
//! which needs them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tokio::net::UdpSocket;

use super::echo::{self, Token};
use crate::failure::Failure;
use i2plan_ipc::ErrorKind;

/// A socket for echo requests to one address.
#[derive(Debug)]
pub struct EchoSocket {
    /// What tokio calls a UDP socket is any that sends datagrams to addresses.
    socket: UdpSocket,
    target: IpAddr,
    token: Token,
    raw: bool,
}

impl EchoSocket {
    /// Opens it.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if this user may have none, with what to do about it.
    pub fn open(target: IpAddr, token: Token) -> Result<Self, Failure> {
        let (family, protocol) = match target {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = |kind| socket_with(family, kind, flags, Some(protocol));
        let (socket, raw) = match open(SocketType::DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (open(SocketType::RAW).map_err(|error| explain(error.into()))?, true),
        };
        let socket = UdpSocket::from_std(socket.into())
            .map_err(|error| Failure::internal(format!("cannot use a socket for ICMP: {error}")))?;
        Ok(Self { socket, target, token, raw })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If there is no way to the target, say.
    pub async fn send(&self, sequence: u16) -> io::Result<()> {
        let request = echo::request(self.target, self.token, sequence);
        self.socket.send_to(&request, SocketAddr::new(self.target, 0)).await.map(drop)
    }

    /// The sequence number of the next reply.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn receive(&self) -> io::Result<u16> {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((len, _)) => {
                    if let Some(sequence) = echo::reply(&buffer[..len], self.target, self.token, self.raw) {
                        return Ok(sequence);
                    }
                }
                // An unreachable destination is reported on the socket; the next request may do better.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::HostUnreachable
                            | io::ErrorKind::NetworkUnreachable
                            | io::ErrorKind::ConnectionRefused
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn explain(error: io::Error) -> Failure {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Failure::internal(format!("cannot open a socket for ICMP: {error}"));
    }
    let hint = if cfg!(target_os = "linux") {
        let group = rustix::process::getegid().as_raw();
        format!(
            "use sudo, or let your group have such sockets: \
             `sudo sysctl net.ipv4.ping_group_range=\"{group} {group}\"` (most systems have \"0 2147483647\")"
        )
    } else {
        "use doas: this system gives such sockets to root alone".to_owned()
    };
    Failure::new(ErrorKind::Denied, "this user may not send echo requests").with_hint(hint)
}
