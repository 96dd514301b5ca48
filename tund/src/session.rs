//! The SAM session that datagrams go through: its id and its two descriptors.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund;
use i2plan_ipc::bridge::{Bridge, NotTheBridge};
use i2plan_proto::destination::Destination;
use i2plan_proto::sam::datagram;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::batch::Batch;

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
    destination: Destination,
    bridge: Bridge,
    /// Where the bridge takes datagrams, and where it sends them from.
    peer: SocketAddr,
    /// Where datagrams go out and come in; does not block. It was connected to the bridge when it came, but whoever has
    /// handed it over may still hold a duplicate, and connect it elsewhere.
    pub udp: UdpSocket,
    /// What it was bound to then.
    bound: Option<SocketAddr>,
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
    /// Takes over a session with this bridge from its description and descriptors.
    ///
    /// # Errors
    /// [`i2plan_ipc::ErrorKind::Invalid`] if they are not what they should be.
    pub fn adopt(session: tund::Session, fds: Vec<OwnedFd>, bridge: &Bridge) -> Result<Self, ApiError> {
        let id = SessionId::new(session.id)?;
        let [udp, control]: [OwnedFd; 2] = fds
            .try_into()
            .map_err(|_| ApiError::invalid("a session is a UDP socket and its control connection"))?;
        let refused = |which: &str, found: NotTheBridge| {
            ApiError::invalid(format!("the session's {which} descriptor is {found}"))
                .with_hint("start tund and the connector with the same SAM address")
        };
        let ip = match bridge.check_connection(control.as_fd()) {
            Ok(peer) => Some(peer.ip()),
            // One that the router has ended a moment ago: whoever uses it is told so.
            Err(NotTheBridge::Unconnected { .. }) => None,
            Err(found) => return Err(refused("second", found)),
        };
        let peer = bridge.check_datagrams(udp.as_fd(), ip).map_err(|found| refused("first", found))?;
        let udp = UdpSocket::from(udp);
        udp.set_nonblocking(true)
            .map_err(|error| ApiError::internal(format!("cannot use the session's UDP socket: {error}")))?;
        let bound = udp.local_addr().ok();
        Ok(Self { id, destination: session.destination, bridge: bridge.clone(), peer, udp, bound, control })
    }

    /// Checks that the UDP socket is still bound and connected as it was.
    ///
    /// # Errors
    /// What it is now.
    pub fn check_socket(&self) -> Result<(), String> {
        let found = match self.bridge.check_datagrams(self.udp.as_fd(), Some(self.peer.ip())) {
            Ok(peer) if peer != self.peer => format!("connected to {peer}, and was to {}", self.peer),
            Ok(_) if self.udp.local_addr().ok() == self.bound => return Ok(()),
            Ok(_) => "bound to another address than before".to_owned(),
            Err(found) => found.to_string(),
        };
        Err(format!("the session's UDP socket is {found}"))
    }

    /// Whether this is where the bridge sends datagrams from.
    #[must_use]
    pub fn is_bridge(&self, address: SocketAddr) -> bool {
        (address.ip(), address.port()) == (self.peer.ip(), self.peer.port())
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
        tund::Session { id: self.id.0.clone(), destination: self.destination }
    }

    /// The address of the bridge's host.
    #[must_use]
    pub fn bridge_ip(&self) -> IpAddr {
        self.peer.ip()
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

    /// Sends a datagram to the session's own destination.
    ///
    /// # Errors
    /// As [`Session::send`].
    pub fn send_to_itself(&self, payload: &[u8]) -> io::Result<()> {
        self.send(&datagram::encode(self.id.as_str(), &self.destination, payload))
    }

    /// Sends datagrams to the bridge, as [`Session::send`] does. Returns how many were lost.
    pub fn send_all(&self, batch: &mut Batch) -> usize {
        batch.send(&self.udp, self.peer, |datagram| self.send(datagram))
    }

    /// Sends a datagram to the bridge, wherever the socket is connected to.
    ///
    /// # Errors
    /// If the socket does not take it.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let send = || {
            if cfg!(target_os = "linux") {
                return self.udp.send_to(datagram, self.peer);
            }
            // Elsewhere a connected socket takes no address.
            self.check_socket().map_err(io::Error::other)?;
            self.udp.send(datagram)
        };
        // An ICMP error of an earlier datagram, as while the router restarts, is reported in the place of the sending,
        // once.
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        match send() {
            Err(error) if refused(&error) => send(),
            result => result,
        }
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;

    use i2plan_ipc::ErrorKind;

    use super::*;

    /// A bridge, and a session's sockets.
    struct Fixture {
        bridge: Bridge,
        listener: TcpListener,
        datagrams: UdpSocket,
        udp: UdpSocket,
        tcp: TcpStream,
    }

    fn fixture() -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, forwards) = (listener.local_addr().unwrap(), datagrams.local_addr().unwrap());
        let bridge = Bridge { address: address.into(), udp_port: Some(forwards.port()) };
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.connect(forwards).unwrap();
        Fixture { bridge, tcp: TcpStream::connect(address).unwrap(), listener, datagrams, udp }
    }

    fn session(id: &str) -> tund::Session {
        let destination = Destination { padding: [1; 32], signing_key: [2; 32] };
        tund::Session { id: id.to_owned(), destination }
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
        let Fixture { bridge, udp, tcp, .. } = fixture();
        let address = udp.local_addr().unwrap();
        let wanted = session("s");
        let taken = Session::adopt(wanted.clone(), vec![udp.into(), tcp.into()], &bridge).unwrap();
        let Shared { session: given, fds } = taken.share().unwrap();
        assert_eq!(given, wanted);
        let again = Session::adopt(given, fds, &bridge).unwrap();
        assert_eq!(again.udp.local_addr().unwrap(), address);
    }

    #[test]
    fn a_session_is_ended_by_a_word() {
        let Fixture { bridge, udp, tcp, listener, .. } = fixture();
        let (mut router, _) = listener.accept().unwrap();
        let session = Session::adopt(session("s"), vec![udp.into(), tcp.into()], &bridge).unwrap();
        session.quit();
        drop(session);
        let mut said = String::new();
        io::Read::read_to_string(&mut router, &mut said).unwrap();
        assert_eq!(said, "QUIT\n");
    }

    #[test]
    fn a_bridge_that_was_away_for_a_moment_gets_the_next_datagram() {
        let Fixture { bridge, udp, tcp, datagrams, .. } = fixture();
        let session = Session::adopt(session("s"), vec![udp.into(), tcp.into()], &bridge).unwrap();
        let there = datagrams.local_addr().unwrap();
        drop(datagrams);
        session.send(b"lost").unwrap();
        let datagrams = UdpSocket::bind(there).unwrap();
        session.send(b"sent").unwrap();
        let mut buffer = [0; 10];
        assert_eq!(datagrams.recv(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"sent");
    }

    #[test]
    fn other_descriptors_are_refused() {
        let Fixture { bridge, udp, tcp, listener, datagrams } = fixture();
        let refused = |fds: Vec<OwnedFd>| {
            let error = Session::adopt(session("s"), fds, &bridge).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            error.message
        };
        let (udp, tcp) = (OwnedFd::from(udp), OwnedFd::from(tcp));
        let (udp, tcp) = (|| udp.try_clone().unwrap(), || tcp.try_clone().unwrap());
        // The control connection is looked at first, because it shows the bridge's IP address.
        assert!(refused(vec![tcp(), udp()]).contains("second"));
        assert!(refused(vec![udp(), listener.into()]).contains("second"));
        assert!(refused(vec![UnixDatagram::unbound().unwrap().into(), tcp()]).contains("first"));
        assert!(refused(vec![udp()]).contains("control connection"));
        // Sockets that lead elsewhere, or to whoever sends first.
        let elsewhere = fixture();
        assert!(refused(vec![elsewhere.udp.into(), tcp()]).contains("first descriptor is one to"));
        assert!(refused(vec![udp(), elsewhere.tcp.into()]).contains("second descriptor is one to"));
        assert!(refused(vec![datagrams.into(), tcp()]).contains("not connected"));
    }
}
