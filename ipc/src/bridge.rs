//! The SAM bridge that a node is configured with, and what a descriptor must be to lead there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::str::FromStr;

pub use i2plan_proto::sam::self_test::UDP_PORT;
use i2plan_proto::sam::self_test::usual_ports;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername, getsockname};
use thiserror::Error;
use tokio::net::TcpStream;

/// What stands for a UDP port that is to be found out.
pub const AUTO: &str = "auto";

/// Longest host name, bytes (RFC 1035).
const MAX_NAME: usize = 253;

/// Longest label of a host name, bytes.
const MAX_LABEL: usize = 63;

/// The connection of a session that is not in use yet. If it is dropped, the router is told that the session is over: some
/// hold on to its destination for a minute after the connection was closed, or while they still build tunnels for it.
#[derive(Debug)]
pub struct Unfinished(Option<TcpStream>);

impl Unfinished {
    /// The connection of a session that has been, or is about to be, asked for.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self(Some(stream))
    }

    /// The connection.
    ///
    /// # Panics
    /// Never: there is one until [`Unfinished::finish`].
    pub fn stream(&mut self) -> &mut TcpStream {
        self.0.as_mut().expect("there is one until it is finished")
    }

    /// The session is in use.
    ///
    /// # Panics
    /// Never, as [`Unfinished::stream`].
    #[must_use]
    pub fn finish(mut self) -> TcpStream {
        self.0.take().expect("there is one until it is finished")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            // It does not wait: what cannot be said now is left unsaid.
            let _ = stream.try_write(b"QUIT\n");
        }
    }
}

/// The host of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A host name, which the connector resolves.
    Name(String),
}

impl Host {
    /// The addresses that are known without asking: an IP address is its own, and `localhost` is this host
    /// (RFC 6761, section 6.3), IPv4 first. None of any other name.
    #[must_use]
    pub fn known(&self) -> Option<Vec<IpAddr>> {
        match self {
            Self::Ip(ip) => Some(vec![*ip]),
            Self::Name(name) if is_localhost(name) => {
                Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
            Self::Name(_) => None,
        }
    }

    /// Whether the host can have this address, as far as that is known without asking.
    #[must_use]
    pub fn permits(&self, ip: IpAddr) -> bool {
        self.known().is_none_or(|known| known.contains(&ip))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Where a bridge takes connections (TCP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeAddress {
    /// Its host.
    pub host: Host,
    /// Its TCP port.
    pub port: u16,
}

impl BridgeAddress {
    /// The address of a bridge, unless the router is configured with another.
    pub const DEFAULT: Self = Self { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 7656 };
}

impl fmt::Display for BridgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<SocketAddr> for BridgeAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

/// What is no address of a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no host and port: 127.0.0.1:7656, [::1]:7656 or localhost:7656 for example")]
pub struct BridgeAddressError(String);

impl FromStr for BridgeAddress {
    type Err = BridgeAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || BridgeAddressError(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(error()) } else { Ok(address.into()) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = port.filter(|port| *port > 0).ok_or_else(error)?;
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // What ends in a number is an address that is written wrong, and some resolvers take it for one.
        let numeric =
            name.rsplit('.').next().is_none_or(|last| last.starts_with(|c: char| c.is_ascii_digit()));
        let label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if numeric || name.len() > MAX_NAME || !name.split('.').all(label) {
            return Err(error());
        }
        Ok(Self { host: Host::Name(name), port })
    }
}

/// Reads a bridge's UDP port: a number, or [`AUTO`] for one that is to be found out.
///
/// # Errors
/// If it is neither.
pub fn parse_udp_port(text: &str) -> Result<Option<u16>, String> {
    match text.parse() {
        _ if text == AUTO => Ok(None),
        Ok(port @ 1..) => Ok(Some(port)),
        _ => Err(format!("a port from 1 to 65535, or {AUTO}, is expected")),
    }
}

/// A SAM bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Where it takes connections (TCP).
    pub address: BridgeAddress,
    /// The UDP port where it takes datagrams, and from which it forwards them; none if that is to be found out.
    pub udp_port: Option<u16>,
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
        bridge: String,
    },
    /// Its two ends are one.
    #[error("a {expected} that is connected to itself")]
    Itself {
        /// What is expected.
        expected: &'static str,
    },
}

impl Bridge {
    /// The bridge at this address, whose UDP port is to be found out.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address: address.into(), udp_port: None }
    }

    /// The UDP ports that it may have, in the order in which they are tried: the one that is configured, or else
    /// the [usual ones](usual_ports).
    #[must_use]
    pub fn udp_ports(&self) -> Vec<u16> {
        match self.udp_port {
            Some(port) => vec![port],
            None => usual_ports(self.address.port),
        }
    }

    /// Checks that a descriptor is a TCP connection to the bridge. Returns where it leads.
    ///
    /// # Errors
    /// [`NotTheBridge`].
    pub fn check_connection(&self, fd: BorrowedFd<'_>) -> Result<SocketAddr, NotTheBridge> {
        let peer = peer(fd, SocketType::STREAM, "TCP connection")?;
        if peer.port() == self.address.port && self.address.host.permits(peer.ip()) {
            return Ok(peer);
        }
        Err(NotTheBridge::Elsewhere { peer, bridge: self.address.to_string() })
    }

    /// Checks that a descriptor is a UDP socket that is connected to one of the ports that the bridge may have. `ip` is
    /// the bridge's address where a connection has shown it. Returns where the socket leads.
    ///
    /// # Errors
    /// [`NotTheBridge`].
    pub fn check_datagrams(
        &self,
        fd: BorrowedFd<'_>,
        ip: Option<IpAddr>,
    ) -> Result<SocketAddr, NotTheBridge> {
        let peer = peer(fd, SocketType::DGRAM, "UDP socket")?;
        let right = ip.is_none_or(|ip| peer.ip() == ip) && self.address.host.permits(peer.ip());
        if right && self.udp_ports().contains(&peer.port()) {
            return Ok(peer);
        }
        let ports: Vec<_> = self.udp_ports().iter().map(ToString::to_string).collect();
        let host = ip.map_or_else(|| self.address.host.clone(), Host::Ip);
        Err(NotTheBridge::Elsewhere { peer, bridge: format!("{host}:{}", ports.join(" or ")) })
    }
}

/// Where a connected socket leads.
fn peer(fd: BorrowedFd<'_>, kind: SocketType, expected: &'static str) -> Result<SocketAddr, NotTheBridge> {
    let internet =
        socket_domain(fd).is_ok_and(|family| [AddressFamily::INET, AddressFamily::INET6].contains(&family));
    let fits = internet
        && socket_type(fd) == Ok(kind)
        && (kind != SocketType::STREAM || socket_acceptconn(fd) == Ok(false));
    if !fits {
        return Err(NotTheBridge::Kind { expected });
    }
    let unconnected = NotTheBridge::Unconnected { expected };
    let peer = getpeername(fd).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or_else(|| unconnected.clone())?;
    // A socket that is bound to the bridge's address can be connected to itself; then nobody is at the other end but
    // those who hold it.
    let local = getsockname(fd).ok().and_then(|local| SocketAddr::try_from(local).ok());
    match local {
        Some(local) if local == peer => Err(NotTheBridge::Itself { expected }),
        Some(_) => Ok(peer),
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
        datagrams: UdpSocket,
    }

    impl Fixture {
        fn connect(&self) -> (TcpStream, UdpSocket) {
            let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            (stream, udp(Some(self.datagrams.local_addr().unwrap())))
        }
    }

    fn fixture() -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_port = Some(datagrams.local_addr().unwrap().port());
        let bridge = Bridge { address: listener.local_addr().unwrap().into(), udp_port };
        Fixture { bridge, listener, datagrams }
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
        let (stream, datagrams) = fixture.connect();
        for bridge in [fixture.bridge.clone(), named(&fixture, "localhost"), named(&fixture, "i2pd.example")]
        {
            let peer = bridge.check_connection(stream.as_fd()).unwrap();
            assert_eq!(peer, fixture.listener.local_addr().unwrap());
            let peer = bridge.check_datagrams(datagrams.as_fd(), Some(peer.ip()));
            assert_eq!(peer, Ok(fixture.datagrams.local_addr().unwrap()));
        }
    }

    fn named(fixture: &Fixture, name: &str) -> Bridge {
        let host = Host::Name(name.to_owned());
        Bridge {
            address: BridgeAddress { host, ..fixture.bridge.address },
            udp_port: fixture.bridge.udp_port,
        }
    }

    #[test]
    fn addresses_are_ip_addresses_or_names() {
        for text in ["127.0.0.1:7656", "[::1]:7656", "localhost:1", "i2pd:65535", "a_b.c-d.example:7656"] {
            assert_eq!(text.parse::<BridgeAddress>().unwrap().to_string(), text);
        }
        assert_eq!("I2PD.Example.:7".parse::<BridgeAddress>().unwrap().to_string(), "i2pd.example:7");
        let long = format!("{}:7656", "a.".repeat(130));
        for text in [
            "",
            ":7656",
            "localhost",
            "localhost:0",
            "localhost:65536",
            "localhost:+1",
            "127.0.0.1:0",
            "127.1:7656",
            "::1:7656",
            "256.0.0.1:7656",
            "a b:7656",
            "a..b:7656",
            "-a:7656",
            "a-:7656",
            "ä:7656",
            "a\nb:7656",
            &long,
        ] {
            let error = text.parse::<BridgeAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn udp_ports_are_the_configured_one_or_those_that_routers_use() {
        let ports = |address: &str, port: &str| {
            let address = address.parse().unwrap();
            Bridge { address, udp_port: parse_udp_port(port).unwrap() }.udp_ports()
        };
        assert_eq!(ports("127.0.0.1:7656", "auto"), [7655]);
        assert_eq!(ports("127.0.0.1:7666", "auto"), [7655, 7665]);
        assert_eq!(ports("127.0.0.1:1", "auto"), [7655]);
        assert_eq!(ports("127.0.0.1:7666", "9"), [9]);
        for text in ["0", "65536", "", "Auto", "127.0.0.1:7655"] {
            assert!(parse_udp_port(text).unwrap_err().contains("auto"), "{text}");
        }
    }

    #[test]
    fn a_socket_to_any_port_of_the_bridge_is_accepted_and_to_no_other() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let udp = udp(Some(receiver));
        let bridge = |port| Bridge::new(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(bridge(receiver.port() + 1).check_datagrams(udp.as_fd(), None), Ok(receiver));
        let refused = bridge(receiver.port() + 2).check_datagrams(udp.as_fd(), None);
        assert!(matches!(refused, Err(NotTheBridge::Elsewhere { .. })), "{refused:?}");
    }

    #[test]
    fn other_kinds_of_descriptors_are_refused() {
        let fixture = fixture();
        let (stream, datagrams) = fixture.connect();
        let Fixture { bridge, listener, .. } = fixture;
        let (unix, _other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for fd in [datagrams.as_fd(), listener.as_fd(), unix.as_fd(), file.as_fd()] {
            assert!(matches!(bridge.check_connection(fd), Err(NotTheBridge::Kind { .. })));
        }
        let (unix, _other) = UnixDatagram::pair().unwrap();
        for fd in [stream.as_fd(), unix.as_fd(), file.as_fd()] {
            assert!(matches!(bridge.check_datagrams(fd, None), Err(NotTheBridge::Kind { .. })));
        }
    }

    #[test]
    fn sockets_that_lead_elsewhere_are_refused() {
        let (own, other) = (fixture(), fixture());
        let (stream, datagrams) = other.connect();
        for bridge in [&own.bridge, &named(&own, "localhost"), &named(&own, "i2pd.example")] {
            let refused = bridge.check_connection(stream.as_fd());
            assert!(matches!(refused, Err(NotTheBridge::Elsewhere { .. })), "{refused:?}");
            let refused = bridge.check_datagrams(datagrams.as_fd(), None);
            assert!(matches!(refused, Err(NotTheBridge::Elsewhere { .. })), "{refused:?}");
            let refused = bridge.check_datagrams(udp(None).as_fd(), None);
            assert!(matches!(refused, Err(NotTheBridge::Unconnected { .. })), "{refused:?}");
        }
        // Another address than that of the connection.
        let (_, datagrams) = own.connect();
        let elsewhere = Some(IpAddr::from([127, 0, 0, 2]));
        for bridge in [&own.bridge, &named(&own, "i2pd.example")] {
            let refused = bridge.check_datagrams(datagrams.as_fd(), elsewhere);
            assert!(matches!(refused, Err(NotTheBridge::Elsewhere { .. })), "{refused:?}");
        }
        // `localhost` always is this host.
        let host = Host::Name("bridge.localhost".to_owned());
        assert!(host.permits([127, 0, 0, 1].into()) && !host.permits([192, 0, 2, 1].into()));
    }

    #[test]
    fn sockets_that_are_connected_to_themselves_are_refused() {
        for (kind, expected) in [(SocketType::STREAM, "TCP connection"), (SocketType::DGRAM, "UDP socket")] {
            let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).unwrap();
            bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let own = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
            connect(&socket, &own).unwrap();
            let bridge = Bridge { address: own.into(), udp_port: Some(own.port()) };
            let refused = match kind {
                SocketType::STREAM => bridge.check_connection(socket.as_fd()),
                _ => bridge.check_datagrams(socket.as_fd(), None),
            };
            assert_eq!(refused, Err(NotTheBridge::Itself { expected }));
        }
    }
}
