//! What a supervisor gives back, looked at: what is not what it should be is dropped, and never trusted.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use i2plan_ipc::api::tund::StaticInterface;
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::daemon::activation::StoredFd;
use i2plan_ipc::daemon::notify::Supervisor;
use tracing::info;

use super::{FdStore, MAX_STATE, SOCKETS, STATE, SessionInfo, State, TUN, memory, names};
use crate::device::Adopted;
use crate::interface;
use crate::roster::StoredMembers;
use crate::service::{Resumable, Start};
use crate::session::Session;

/// The interface that a supervisor has kept, seen to be one by the kernel alone. Nothing has been parsed yet: if
/// there is one, this is the time to give up the privilege to make one.
pub fn take_device(stored: &mut Vec<StoredFd>, supervisor: &Supervisor) -> Option<Adopted> {
    let mut device = None;
    let (mut tuns, others): (Vec<_>, Vec<_>) = stored.drain(..).partition(|stored| stored.name == TUN);
    *stored = others;
    // The first was stored first; there is one only, unless somebody meddles.
    for stored in tuns.drain(..) {
        if device.is_some() {
            tracing::warn!("dropped another descriptor that is called {TUN}");
            continue;
        }
        match Adopted::new(&stored.fd) {
            Ok(adopted) => device = Some(adopted),
            Err(reason) => stored.refuse(supervisor, &reason),
        }
    }
    device
}

/// What the interface in the store is to be.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// A mesh's, of this name.
    Mesh(&'a str),
    /// This one.
    Static(&'a StaticInterface),
}

/// Looks at all the rest. The interface is to be the one that is wanted, and sockets are to lead to this bridge.
///
/// # Errors
/// Why the interface cannot be gone on with; it is dropped. What else is kept stays in the store.
pub fn sort(
    device: Option<Adopted>,
    stored: Vec<StoredFd>,
    supervisor: &'static Supervisor,
    wanted: Wanted<'_>,
    bridge: &Bridge,
) -> Result<Start, String> {
    let mut sockets = HashMap::new();
    let mut states = Vec::new();
    for stored in stored {
        if stored.name.starts_with(STATE) {
            states.push(stored);
        } else if SOCKETS.iter().any(|socket| stored.name.starts_with(socket)) {
            sockets.insert(stored.name.clone(), stored);
        } else {
            stored.refuse(supervisor, "it has a name that this daemon gives to nothing");
        }
    }
    let mut state = newest(states, supervisor).unwrap_or_else(State::empty);

    let (name, device, static_device) = match wanted {
        Wanted::Mesh(name) => (name, device, None),
        Wanted::Static(interface) => {
            let device = device.map(|device| device.into_static(interface)).transpose();
            (interface.name.as_str(), None, device.inspect_err(|_| supervisor.forget(TUN))?)
        }
    };
    let interface = device.map(|device| match &state.interface {
        Some((interface, _)) if interface.name != name => {
            Err(format!("it is {}, and another name is configured: {name}", interface.name))
        }
        Some((interface, epoch)) => interface::check(interface)
            .map_err(|error| error.message)
            .and_then(|()| device.into_device(interface))
            .map(|device| {
                let (interface, epoch, members) = (interface.clone(), *epoch, state.members.clone());
                Resumable { device, interface, epoch, members }
            }),
        None => Err("there is no word of what it should be".to_owned()),
    });
    let interface = match interface.transpose() {
        Ok(interface) => interface,
        Err(reason) => {
            supervisor.forget(TUN);
            return Err(reason);
        }
    };
    if interface.is_none() {
        state.interface = None;
        state.members = StoredMembers::default();
    }
    let data = session(&mut state.data, &mut sockets, supervisor, bridge);
    let control = session(&mut state.control, &mut sockets, supervisor, bridge);
    for stored in sockets.into_values() {
        stored.refuse(supervisor, "it belongs to no session of the stored state");
    }
    let static_device = static_device.map(|device| (device, state.destinations.clone()));
    Ok(Start {
        interface,
        static_device,
        data,
        control,
        fd_store: FdStore { supervisor, state: Mutex::new(state) },
    })
}

/// The newest of the states that are some.
fn newest(states: Vec<StoredFd>, supervisor: &Supervisor) -> Option<State> {
    let mut newest: Option<(StoredFd, State)> = None;
    for stored in states {
        let read = stored.fd.try_clone().map_err(|error| error.to_string());
        let state = read
            .and_then(|file| memory::read(file, MAX_STATE))
            .and_then(|bytes| State::decode(&bytes).map_err(|error| error.to_string()));
        match (state, &newest) {
            (Err(reason), _) => stored.refuse(supervisor, &reason),
            (Ok(state), _) if stored.name != super::state_name(state.number) => {
                stored.refuse(supervisor, "it is another state than its name says");
            }
            (Ok(state), Some((_, other))) if other.number >= state.number => {
                stored.refuse(supervisor, "there is a newer one");
            }
            (Ok(state), _) => {
                if let Some((older, _)) = newest.replace((stored, state)) {
                    older.refuse(supervisor, "there is a newer one");
                }
            }
        }
    }
    newest.map(|(_, state)| state)
}

/// A session whose descriptors are there and are what they should be.
fn session(
    kept: &mut Option<SessionInfo>,
    sockets: &mut HashMap<String, StoredFd>,
    supervisor: &Supervisor,
    bridge: &Bridge,
) -> Option<Session> {
    let wanted = kept.take()?;
    let [udp, tcp] = names(wanted.number).map(|name| sockets.remove(&name));
    let looked_at = look_at(&wanted, udp.as_ref(), tcp.as_ref(), bridge);
    match looked_at {
        Ok(session) => {
            info!(session = session.id.as_str(), "going on with a session from the fd store");
            *kept = Some(wanted);
            Some(session)
        }
        Err(reason) => {
            for stored in [udp, tcp].into_iter().flatten() {
                stored.refuse(supervisor, &reason);
            }
            None
        }
    }
}

fn look_at(
    wanted: &SessionInfo,
    udp: Option<&StoredFd>,
    tcp: Option<&StoredFd>,
    bridge: &Bridge,
) -> Result<Session, String> {
    let (Some(udp), Some(tcp)) = (udp, tcp) else {
        return Err("the session's other descriptor is gone".to_owned());
    };
    let clone = |stored: &StoredFd| OwnedFd::try_clone(&stored.fd).map_err(|error| error.to_string());
    let session = Session::adopt(wanted.session.clone(), vec![clone(udp)?, clone(tcp)?], bridge)
        .map_err(|error| error.message)?;
    if SessionInfo::new(&session, wanted.number).as_ref() != Some(wanted) {
        return Err("it is bound or connected to another address than the session's, or to none".to_owned());
    }
    session.check_alive()?;
    Ok(session)
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Write as _};
    use std::mem::MaybeUninit;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixDatagram;

    use i2plan_ipc::api::tund::{self, Interface};
    use i2plan_ipc::notification::{Notification, Store};
    use i2plan_proto::destination::Destination;
    use i2plan_proto::identity::NetworkId;
    use proptest::prelude::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::super::{FORMAT, SessionKind};
    use super::*;
    use crate::roster::tests::many;
    use crate::tunnel::MAX_PEERS;
    use i2plan_ipc::bridge::UDP_PORT;

    /// A supervisor's store.
    struct Fixture {
        supervisor: &'static Supervisor,
        receiver: UnixDatagram,
        stored: Vec<StoredFd>,
        router: TcpListener,
        /// Its ends of connections.
        routers: Vec<TcpStream>,
    }

    impl Fixture {
        fn new() -> Self {
            let (near, receiver) = UnixDatagram::pair().unwrap();
            receiver.set_nonblocking(true).unwrap();
            let supervisor = Box::leak(Box::new(Supervisor::hearing(Some(near))));
            let router = TcpListener::bind("127.0.0.1:0").unwrap();
            Self { supervisor, receiver, stored: Vec::new(), router, routers: Vec::new() }
        }

        /// Does the next thing that the supervisor was told, if there is one.
        fn hear(&mut self) -> Option<Store> {
            let mut buffer = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut buffer)];
            let received = recvmsg(&self.receiver, parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
            let told = Notification::parse(&buffer[..received.bytes]).store.unwrap();
            match &told {
                Store::Keep { name, .. } => {
                    for message in control.drain() {
                        let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
                        self.stored.extend(fds.map(|fd| StoredFd { name: name.clone(), fd }));
                    }
                }
                Store::Forget { name } => self.stored.retain(|stored| stored.name != *name),
            }
            Some(told)
        }

        /// Does all that the supervisor was told; what it was told to forget.
        fn listen(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.hear())
                .filter_map(|told| if let Store::Forget { name } = told { Some(name) } else { None })
                .collect()
        }

        fn names(&self) -> Vec<&str> {
            let mut names: Vec<_> = self.stored.iter().map(|stored| stored.name.as_str()).collect();
            names.sort_unstable();
            names
        }

        /// A session, and the router's end of its control connection.
        fn session(&self, id: &str) -> (Session, TcpStream) {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            udp.connect(("127.0.0.1", UDP_PORT)).unwrap();
            let tcp = TcpStream::connect(self.router.local_addr().unwrap()).unwrap();
            let session = tund::Session {
                id: id.to_owned(),
                destination: Destination { padding: [1; 32], signing_key: [2; 32] },
            };
            let session = Session::adopt(session, vec![udp.into(), tcp.into()], &self.bridge()).unwrap();
            (session, self.router.accept().unwrap().0)
        }

        fn bridge(&self) -> Bridge {
            Bridge::new(self.router.local_addr().unwrap())
        }

        fn fd_store(&self) -> FdStore {
            FdStore::new(self.supervisor)
        }

        /// As in the next process.
        fn found(&mut self) -> Start {
            self.listen();
            let stored = self
                .stored
                .iter()
                .map(|stored| StoredFd { name: stored.name.clone(), fd: stored.fd.try_clone().unwrap() });
            let stored = stored.collect();
            sort(None, stored, self.supervisor, Wanted::Mesh("i2plan0"), &self.bridge())
                .unwrap_or_else(|reason| panic!("{reason}"))
        }
    }

    fn interface() -> Interface {
        Interface {
            name: "i2plan0".to_owned(),
            network: NetworkId([1; 32]),
            ipv4: [10, 42, 3, 4].into(),
            ipv4_prefix: 16,
            ipv6: "fd12:3456:789a::1".parse().unwrap(),
            ipv6_prefix: 64,
            mtu: 1280,
        }
    }

    #[test]
    fn sessions_outlive_the_process() {
        let mut fixture = Fixture::new();
        let (data, _router) = fixture.session("data");
        let (control, _other_router) = fixture.session("control");
        let fd_store = fixture.fd_store();
        assert!(fd_store.session(SessionKind::Data, &data));
        assert!(fd_store.session(SessionKind::Control, &control));
        assert!(!fd_store.session(SessionKind::Data, &data), "it is kept already");
        let addresses = [&data, &control].map(|session| session.udp.local_addr().unwrap());
        drop((data, control, fd_store));

        let found = fixture.found();
        assert_eq!(fixture.names(), ["state.2", "tcp.1", "tcp.2", "udp.1", "udp.2"]);
        let (data, control) = (found.data.unwrap(), found.control.unwrap());
        assert_eq!((data.id.as_str(), control.id.as_str()), ("data", "control"));
        assert_eq!([&data, &control].map(|session| session.udp.local_addr().unwrap()), addresses);
        assert!(!found.fd_store.session(SessionKind::Data, &data), "it is kept still");
    }

    #[test]
    fn a_new_session_takes_the_place_of_the_one_before() {
        let mut fixture = Fixture::new();
        let fd_store = fixture.fd_store();
        let (first, mut router) = fixture.session("first");
        fd_store.session(SessionKind::Data, &first);
        let (second, _router) = fixture.session("second");
        fd_store.session(SessionKind::Data, &second);
        drop(first);
        fixture.listen();
        assert_eq!(fixture.names(), ["state.2", "tcp.2", "udp.2"]);
        // Nobody holds its connection any more.
        assert_eq!(std::io::Read::read(&mut router, &mut [0; 1]).unwrap(), 0);

        fd_store.nothing();
        fixture.listen();
        assert!(fixture.stored.is_empty());
    }

    #[test]
    fn whenever_the_process_ends_the_rest_fits_together() {
        let mut fixture = Fixture::new();
        let fd_store = fixture.fd_store();
        let (first, _first_router) = fixture.session("first");
        fd_store.session(SessionKind::Data, &first);
        fixture.listen();
        let (second, _second_router) = fixture.session("second");
        fd_store.session(SessionKind::Data, &second);
        // Message by message: at each of them the process may have ended.
        loop {
            let router = fixture.router.try_clone().unwrap();
            let mut kept = Fixture { stored: Vec::new(), router, ..Fixture::new() };
            kept.stored.extend(
                fixture
                    .stored
                    .iter()
                    .map(|stored| StoredFd { name: stored.name.clone(), fd: stored.fd.try_clone().unwrap() }),
            );
            let id = kept.found().data.map(|data| data.id.as_str().to_owned());
            assert!(matches!(id.as_deref(), Some("first" | "second")), "{id:?}");
            let names = kept.names().join(" ");
            kept.listen();
            assert_eq!(kept.names().len(), 3, "{names} came to {:?}", kept.names());
            if fixture.hear().is_none() {
                break;
            }
        }
        assert_eq!(fixture.names(), ["state.2", "tcp.2", "udp.2"]);
    }

    #[test]
    fn a_session_that_has_ended_or_is_another_is_dropped() {
        type Change = fn(&mut Fixture);
        let changes: [(&str, Change); 6] = [
            ("the router closed it", |fixture| fixture.routers.clear()),
            ("another connection", |fixture| {
                let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
                let other = TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
                fixture.routers.push(elsewhere.accept().unwrap().0);
                replace(fixture, "tcp.1", other);
            }),
            ("another UDP socket", |fixture| {
                let other = UdpSocket::bind("127.0.0.1:0").unwrap();
                other.connect(("127.0.0.1", UDP_PORT)).unwrap();
                replace(fixture, "udp.1", other);
            }),
            ("the same UDP socket, connected elsewhere", |fixture| {
                let stored = fixture.stored.iter().find(|stored| stored.name == "udp.1").unwrap();
                let socket = UdpSocket::from(stored.fd.try_clone().unwrap());
                socket.connect("127.0.0.1:9").unwrap();
            }),
            ("a file", |fixture| replace(fixture, "udp.1", std::fs::File::open("/dev/null").unwrap())),
            ("nothing", |fixture| fixture.stored.retain(|stored| stored.name != "udp.1")),
        ];
        for (what, change) in changes {
            let mut fixture = Fixture::new();
            let (data, router) = fixture.session("data");
            fixture.fd_store().session(SessionKind::Data, &data);
            drop(data);
            fixture.listen();
            fixture.routers.push(router);
            change(&mut fixture);
            assert!(fixture.found().data.is_none(), "{what}");
            fixture.listen();
            assert_eq!(fixture.names(), ["state.1"], "{what}");
        }
    }

    fn replace(fixture: &mut Fixture, name: &str, fd: impl Into<OwnedFd>) {
        let stored = fixture.stored.iter_mut().find(|stored| stored.name == name).unwrap();
        stored.fd = fd.into();
    }

    #[test]
    fn what_nobody_stored_is_dropped() {
        let mut fixture = Fixture::new();
        let file = || std::fs::File::open("/dev/null").unwrap();
        let state = State { number: 3, ..State::empty() }.encode().unwrap();
        let unsealed = rustix::fs::memfd_create(c"x", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        std::fs::File::from(unsealed.try_clone().unwrap()).write_all(&state).unwrap();
        for (name, fd) in [
            ("evil", OwnedFd::from(file())),
            ("state.1", file().into()),
            ("state.2", memory::sealed(b"nonsense").unwrap()),
            ("state.3", unsealed),
            ("state.4", memory::sealed(&state).unwrap()),
            ("udp.9", UdpSocket::bind("127.0.0.1:0").unwrap().into()),
        ] {
            fixture.stored.push(StoredFd { name: name.to_owned(), fd });
        }
        let found = fixture.found();
        assert!(found.data.is_none() && found.control.is_none() && found.interface.is_none());
        fixture.listen();
        assert!(fixture.stored.is_empty(), "{:?}", fixture.names());
    }

    #[test]
    fn a_device_that_is_no_interface_is_dropped() {
        let mut fixture = Fixture::new();
        let tun = |fd: OwnedFd| StoredFd { name: TUN.to_owned(), fd };
        let mut stored = vec![
            tun(std::fs::File::open("/dev/null").unwrap().into()),
            tun(UdpSocket::bind("127.0.0.1:0").unwrap().into()),
        ];
        assert!(take_device(&mut stored, fixture.supervisor).is_none());
        assert!(stored.is_empty());
        assert_eq!(fixture.listen(), [TUN, TUN]);
    }

    proptest! {
        #[test]
        fn states_read_back(number in any::<u64>(), epoch in any::<u32>(), members in 0..50usize) {
            let state = State {
                number,
                interface: Some((interface(), epoch)),
                members: many(members),
                ..State::empty()
            };
            prop_assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(state) = State::decode(&bytes) {
                prop_assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
            }
        }
    }

    #[test]
    fn all_members_that_there_can_be_are_kept() {
        let mut fixture = Fixture::new();
        let fd_store = fixture.fd_store();
        fd_store.members(many(MAX_PEERS));
        fixture.listen();
        let [state] = &fixture.stored[..] else { panic!("{:?}", fixture.names()) };
        let bytes = memory::read(state.fd.try_clone().unwrap(), MAX_STATE / 2).unwrap();
        assert_eq!(State::decode(&bytes).unwrap().members, many(MAX_PEERS));
    }

    #[test]
    fn a_state_of_another_version_is_refused() {
        let state = State { format: FORMAT + 1, ..State::empty() };
        assert!(State::decode(&state.encode().unwrap()).unwrap_err().to_string().contains("format is 5"));
    }
}
