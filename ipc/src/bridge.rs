//! The SAM bridge that a node is configured with, and what a descriptor must be to lead there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername, getsockname};
use thiserror::Error;

/// The address of a bridge, unless the router is configured with another.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7656);

/// The UDP port of a bridge, unless the router is configured with another.
pub const UDP_PORT: u16 = 7655;

/// A SAM bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    /// Where it takes connections (TCP).
    pub address: SocketAddr,
    /// Where it takes datagrams (UDP), and from where it forwards them.
    pub datagrams: SocketAddr,
}

/// A descriptor that does not lead to the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotTheBridge {
    /// It is no socket of the kind that is expected.
    #[error("something else than a {expected}")]
    Kind {
        /// What is expected.
        expected: &'static str,
    },
    /// It is not connected, or not any more.
    #[error("a {expected} that is not connected")]
    Unconnected {
        /// What is expected.
        expected: &'static str,
    },
    /// It leads to another address.
    #[error("one to {peer} where {bridge} is expected")]
    Elsewhere {
        /// Where it leads.
        peer: SocketAddr,
        /// Where it should.
        bridge: SocketAddr,
    },
    /// Its two ends are one.
    #[error("a {expected} that is connected to itself")]
    Itself {
        /// What is expected.
        expected: &'static str,
    },
}

impl Bridge {
    /// The bridge at this address, with the usual UDP port.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, datagrams: SocketAddr::new(address.ip(), UDP_PORT) }
    }

    /// Checks that a descriptor is a TCP connection to the bridge.
    ///
    /// # Errors
    /// [`NotTheBridge`].
    pub fn check_connection(&self, fd: BorrowedFd<'_>) -> Result<(), NotTheBridge> {
        check(fd, SocketType::STREAM, "TCP connection", self.address)
    }

    /// Checks that a descriptor is a UDP socket that is connected to the bridge.
    ///
    /// # Errors
    /// [`NotTheBridge`].
    pub fn check_datagrams(&self, fd: BorrowedFd<'_>) -> Result<(), NotTheBridge> {
        check(fd, SocketType::DGRAM, "UDP socket", self.datagrams)
    }
}

fn check(
    fd: BorrowedFd<'_>,
    kind: SocketType,
    expected: &'static str,
    bridge: SocketAddr,
) -> Result<(), NotTheBridge> {
    let family = if bridge.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fits = socket_type(fd) == Ok(kind)
        && socket_domain(fd) == Ok(family)
        && (kind != SocketType::STREAM || socket_acceptconn(fd) == Ok(false));
    if !fits {
        return Err(NotTheBridge::Kind { expected });
    }
    let unconnected = NotTheBridge::Unconnected { expected };
    let peer = getpeername(fd).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or_else(|| unconnected.clone())?;
    if (peer.ip(), peer.port()) != (bridge.ip(), bridge.port()) {
        return Err(NotTheBridge::Elsewhere { peer, bridge });
    }
    // A socket that is bound to the bridge's address can be connected to itself; then nobody is at the other end but
    // those who hold it.
    let local = getsockname(fd).ok().and_then(|local| SocketAddr::try_from(local).ok());
    match local {
        Some(local) if local == peer => Err(NotTheBridge::Itself { expected }),
        Some(_) => Ok(()),
        None => Err(unconnected),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::net::{SocketFlags, bind, connect, socket_with};

    use super::*;

    struct Fixture {
        bridge: Bridge,
        listener: TcpListener,
        _datagrams: UdpSocket,
    }

    fn fixture() -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bridge =
            Bridge { address: listener.local_addr().unwrap(), datagrams: datagrams.local_addr().unwrap() };
        Fixture { bridge, listener, _datagrams: datagrams }
    }

    fn udp(to: Option<SocketAddr>) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Some(to) = to {
            socket.connect(to).unwrap();
        }
        socket
    }

    #[test]
    fn what_leads_to_the_bridge_is_accepted() {
        let fixture = fixture();
        let bridge = fixture.bridge;
        let stream = TcpStream::connect(bridge.address).unwrap();
        assert_eq!(bridge.check_connection(stream.as_fd()), Ok(()));
        assert_eq!(bridge.check_datagrams(udp(Some(bridge.datagrams)).as_fd()), Ok(()));
    }

    #[test]
    fn other_kinds_of_descriptors_are_refused() {
        let Fixture { bridge, listener, _datagrams } = fixture();
        let stream = TcpStream::connect(bridge.address).unwrap();
        let datagrams = udp(Some(bridge.datagrams));
        let (unix, _other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for fd in [datagrams.as_fd(), listener.as_fd(), unix.as_fd(), file.as_fd()] {
            assert!(matches!(bridge.check_connection(fd), Err(NotTheBridge::Kind { .. })));
        }
        let (unix, _other) = UnixDatagram::pair().unwrap();
        for fd in [stream.as_fd(), unix.as_fd(), file.as_fd()] {
            assert!(matches!(bridge.check_datagrams(fd), Err(NotTheBridge::Kind { .. })));
        }
    }

    #[test]
    fn sockets_that_lead_elsewhere_are_refused() {
        let (bridge, other) = (fixture().bridge, fixture());
        let stream = TcpStream::connect(other.bridge.address).unwrap();
        let refused = bridge.check_connection(stream.as_fd());
        assert!(matches!(refused, Err(NotTheBridge::Elsewhere { .. })), "{refused:?}");
        let refused = bridge.check_datagrams(udp(Some(other.bridge.datagrams)).as_fd());
        assert!(matches!(refused, Err(NotTheBridge::Elsewhere { .. })), "{refused:?}");
        let refused = bridge.check_datagrams(udp(None).as_fd());
        assert!(matches!(refused, Err(NotTheBridge::Unconnected { .. })), "{refused:?}");
    }

    #[test]
    fn sockets_that_are_connected_to_themselves_are_refused() {
        for (kind, expected) in [(SocketType::STREAM, "TCP connection"), (SocketType::DGRAM, "UDP socket")] {
            let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
            bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let own = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
            connect(&socket, &own).unwrap();
            let bridge = Bridge { address: own, datagrams: own };
            let refused = match kind {
                SocketType::STREAM => bridge.check_connection(socket.as_fd()),
                _ => bridge.check_datagrams(socket.as_fd()),
            };
            assert_eq!(refused, Err(NotTheBridge::Itself { expected }));
        }
    }
}
