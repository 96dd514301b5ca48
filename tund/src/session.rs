//! The SAM session that datagrams go through: its id and its two descriptors.

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund;
use i2plan_proto::destination::Destination;
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

/// Longest session id, bytes.
const MAX_ID: usize = 64;

/// A session's id: letters, digits and hyphens, so that it cannot be taken for more than one word of SAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId(String);

impl SessionId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`i2plan_ipc::ErrorKind::Invalid`].
    pub fn new(id: String) -> Result<Self, ApiError> {
        let sane = (1..=MAX_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if sane {
            return Ok(Self(id));
        }
        Err(ApiError::invalid(format!("a session id is 1 to {MAX_ID} letters, digits or hyphens")))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Where datagrams go.
    pub bridge: SocketAddr,
    destination: Destination,
    /// Where they go out and come in; does not block.
    pub udp: UdpSocket,
    /// Keeps the session alive by being open. Nothing is read from it here.
    control: OwnedFd,
}

/// A session for another process.
#[derive(Debug)]
pub struct Shared {
    /// Its description.
    pub session: tund::Session,
    /// Duplicates of its descriptors, in the order in which [`Session::adopt`] takes them.
    pub fds: Vec<OwnedFd>,
}

impl Session {
    /// Takes over a session from its description and descriptors.
    ///
    /// # Errors
    /// [`i2plan_ipc::ErrorKind::Invalid`] if they are not what they should be.
    pub fn adopt(session: tund::Session, fds: Vec<OwnedFd>) -> Result<Self, ApiError> {
        let id = SessionId::new(session.id)?;
        let [udp, control]: [OwnedFd; 2] = fds
            .try_into()
            .map_err(|_| ApiError::invalid("a session is a UDP socket and its control connection"))?;
        let bridge = session.bridge;
        if bridge.port() == 0 || bridge.ip().is_unspecified() || bridge.ip().is_multicast() {
            return Err(ApiError::invalid(format!("{bridge} is not where a SAM bridge can be")));
        }
        let family = if bridge.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        if !is_socket(udp.as_fd(), SocketType::DGRAM, &[family]) {
            return Err(ApiError::invalid(format!(
                "the session's first descriptor is no UDP socket that can send to {bridge}"
            )));
        }
        let connected =
            is_socket(control.as_fd(), SocketType::STREAM, &[AddressFamily::INET, AddressFamily::INET6])
                && !socket_acceptconn(&control).unwrap_or(true);
        if !connected {
            return Err(ApiError::invalid("the session's second descriptor is no TCP connection"));
        }
        let udp = UdpSocket::from(udp);
        udp.set_nonblocking(true)
            .map_err(|error| ApiError::internal(format!("cannot use the session's UDP socket: {error}")))?;
        Ok(Self { id, bridge, destination: session.destination, udp, control })
    }

    /// Its description, and duplicates of its descriptors.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn share(&self) -> io::Result<Shared> {
        let udp = self.udp.as_fd().try_clone_to_owned()?;
        let control = self.control.try_clone()?;
        Ok(Shared { session: self.describe(), fds: vec![udp, control] })
    }

    /// Its description.
    #[must_use]
    pub fn describe(&self) -> tund::Session {
        tund::Session { id: self.id.0.clone(), bridge: self.bridge, destination: self.destination }
    }

    /// Its control connection.
    #[must_use]
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Where its control connection leads; none if it has ended.
    #[must_use]
    pub fn connected_to(&self) -> Option<SocketAddr> {
        TcpStream::from(self.control.try_clone().ok()?).peer_addr().ok()
    }

    /// Whether the router has not ended the session yet, as far as can be seen without asking it.
    ///
    /// # Errors
    /// How it has ended.
    pub fn check_alive(&self) -> Result<(), String> {
        let mut next = [0; 1];
        match rustix::net::recv(&self.control, &mut next[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err("the router has closed the session".to_owned()),
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(format!("the connection to the router is lost: {error}")),
        }
    }

    /// Tells the router that the session is over, so that its destination can be used again at once; some take
    /// minutes to notice that a connection was closed. Does not wait: what cannot be said now is left unsaid.
    pub fn quit(&self) {
        let _ = rustix::net::send(&self.control, b"QUIT\n", SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Whether a datagram from there is one of the bridge's: i2pd, Java I2P and emissary forward from the port at which
    /// they take datagrams, and at any other every user of the host can.
    #[must_use]
    pub fn is_bridge(&self, from: SocketAddr) -> bool {
        (from.ip(), from.port()) == (self.bridge.ip(), self.bridge.port())
    }
}

fn is_socket(fd: BorrowedFd<'_>, kind: SocketType, families: &[AddressFamily]) -> bool {
    socket_type(fd) == Ok(kind) && socket_domain(fd).is_ok_and(|domain| families.contains(&domain))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;

    use i2plan_ipc::ErrorKind;

    use super::*;

    struct Fixture {
        listener: TcpListener,
        udp: UdpSocket,
        tcp: TcpStream,
    }

    fn fixture() -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Fixture { listener, udp: UdpSocket::bind("127.0.0.1:0").unwrap(), tcp }
    }

    fn session(id: &str, bridge: &str) -> tund::Session {
        let destination = Destination { padding: [1; 32], signing_key: [2; 32] };
        tund::Session { id: id.to_owned(), bridge: bridge.parse().unwrap(), destination }
    }

    #[test]
    fn ids_are_one_word() {
        for id in ["a", "i2plan-Data-7", &"x".repeat(64)] {
            assert!(SessionId::new(id.to_owned()).is_ok(), "{id}");
        }
        for id in ["", "a b", "a\n", "ä", "a=b", &"x".repeat(65)] {
            assert!(SessionId::new(id.to_owned()).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_session_comes_and_goes_with_its_descriptors() {
        let Fixture { udp, tcp, .. } = fixture();
        let address = udp.local_addr().unwrap();
        let wanted = session("s", "127.0.0.1:7655");
        let taken = Session::adopt(wanted.clone(), vec![udp.into(), tcp.into()]).unwrap();
        let Shared { session: given, fds } = taken.share().unwrap();
        assert_eq!(given, wanted);
        let again = Session::adopt(given, fds).unwrap();
        assert_eq!(again.udp.local_addr().unwrap(), address);
        assert!(again.is_bridge("127.0.0.1:7655".parse().unwrap()));
        assert!(!again.is_bridge("127.0.0.1:1".parse().unwrap()));
        assert!(!again.is_bridge("127.0.0.2:7655".parse().unwrap()));
    }

    #[test]
    fn a_session_is_ended_by_a_word() {
        let Fixture { udp, tcp, listener } = fixture();
        let (mut router, _) = listener.accept().unwrap();
        let session = Session::adopt(session("s", "127.0.0.1:7655"), vec![udp.into(), tcp.into()]).unwrap();
        session.quit();
        drop(session);
        let mut said = String::new();
        io::Read::read_to_string(&mut router, &mut said).unwrap();
        assert_eq!(said, "QUIT\n");
    }

    #[test]
    fn other_descriptors_are_refused() {
        let refused = |session, fds: Vec<OwnedFd>| {
            let error = Session::adopt(session, fds).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            error.message
        };
        let usual = || session("s", "127.0.0.1:7655");

        let Fixture { udp, tcp, listener } = fixture();
        let swapped =
            refused(usual(), vec![tcp.try_clone().unwrap().into(), udp.try_clone().unwrap().into()]);
        assert!(swapped.contains("first"), "{swapped}");
        let listening = refused(usual(), vec![udp.try_clone().unwrap().into(), listener.into()]);
        assert!(listening.contains("second"), "{listening}");
        let unix = UnixDatagram::unbound().unwrap();
        assert!(refused(usual(), vec![unix.into(), tcp.try_clone().unwrap().into()]).contains("first"));
        assert!(refused(usual(), vec![udp.try_clone().unwrap().into()]).contains("control connection"));
        let other_family = session("s", "[::1]:7655");
        assert!(
            refused(other_family, vec![udp.try_clone().unwrap().into(), tcp.try_clone().unwrap().into()])
                .contains("first")
        );
        assert!(refused(session("s", "127.0.0.1:0"), vec![udp.into(), tcp.into()]).contains("127.0.0.1:0"));
    }
}
