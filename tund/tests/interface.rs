//! The daemon as it is run, with real interfaces in network namespaces that these tests make. Needs root.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::Permissions;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use caps::{CapSet, Capability};
use command_fds::{CommandFdExt as _, FdMapping};
use futures::TryStreamExt as _;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::keyd::{self, KeydApi, TrustAnchor, WireGuardLease};
use i2plan_ipc::api::tund::{
    AttachSession, CheckNetwork, Configure, Configured, FindSubnet, GetStats, GiveUp, InterfaceFault, Member,
    NewInterface, RemoveMembers, Session, StaticInterface, Stats, TakeSessions, Taken, TellMembers, TundApi,
};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::client::{ClientError, Endpoint};
use i2plan_ipc::notification::{self, Notification};
use i2plan_ipc::secret::SecretKey;
use i2plan_ipc::server::{Answer, ConnectionLimits, Service, serve};
use i2plan_ipc::{ApiError, Client, ErrorKind, Role};
use i2plan_proto::address::{AddressRange, Ipv4Subnet, ipv6_of};
use i2plan_proto::destination::{Destination, DestinationProof, DestinationRole, ProvenDestination};
use i2plan_proto::identity::Signable as _;
use i2plan_proto::membership::{Chain, Charter, Delegation};
use i2plan_proto::record::Record;
use i2plan_proto::wireguard::WireGuardCertificate;
use i2plan_testing as testing;
use i2plan_tund::device::Adopted;
use i2plan_tund::offload::ReadBuffer;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
use tempfile::TempDir;

/// The exit status that says that the next process shall go on.
const TO_BE_STARTED_AGAIN: i32 = i2plan_ipc::daemon::program::RESTART as i32;

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// A user that owns nothing.
const UID: u32 = 4711;

fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes network namespaces and interfaces: run it as root"
    );
}

/// A thread in a network namespace of its own. What is opened in there stays in there.
struct Namespace(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Namespace {
    fn new() -> Self {
        require_root();
        let (sender, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            make_tun_accessible();
            for job in jobs {
                job();
            }
        });
        Self(sender)
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.0.send(Box::new(move || done.send(job()).unwrap())).unwrap();
        result.recv().expect("what was to be done in the namespace failed")
    }
}

/// Gives `/dev/net/tun` the mode that udev gives it, in this mount namespace alone: not every machine that
/// tests run on has udev.
fn make_tun_accessible() {
    let (nothing, tun) = (None::<&str>, Path::new("/dev/net/tun"));
    let dir = tempfile::tempdir().unwrap();
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
    let node = dir.path().join("tun");
    mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).unwrap();
    std::fs::set_permissions(&node, Permissions::from_mode(0o666)).unwrap();
    mount(Some(&node), tun, nothing, MsFlags::MS_BIND, nothing)
        .expect("/dev/net/tun is needed; load the tun module");
    umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
}

/// Of a node: hands out its key. The node may be another later.
struct Keyd(Arc<Mutex<Node>>);

impl Service for Keyd {
    type Api = KeydApi;

    async fn call(
        &self,
        _: Role,
        request: keyd::Request,
        _: Vec<OwnedFd>,
    ) -> Result<Answer<keyd::Reply>, ApiError> {
        let node = *self.0.lock().unwrap();
        let (network, reply) = match request {
            keyd::Request::LeaseWireGuard { epoch, .. } if epoch != node.epoch => {
                return Err(ApiError::denied("this key is not in use"));
            }
            keyd::Request::LeaseWireGuard { network, .. } => {
                (network, keyd::Reply::WireGuardLease(Box::new(node.lease())))
            }
            keyd::Request::TrustAnchor(network) => {
                (network, keyd::Reply::TrustAnchor(Box::new(node.anchor())))
            }
            _ => panic!("tund asks for its keys and what it verifies by alone"),
        };
        if node.charter().network() != network {
            return Err(ApiError::conflict("this node is in another network"));
        }
        Ok(reply.into())
    }
}

/// A supervisor's fd store.
#[derive(Default)]
struct Store {
    stored: Vec<(String, OwnedFd)>,
    forgotten: Vec<String>,
}

impl Store {
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.stored.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Does what a daemon says at this socket, for as long as the test runs. What is returned gets a word when the
    /// daemon is ready.
    fn listen(socket: UnixDatagram, store: Arc<Mutex<Self>>) -> mpsc::Receiver<()> {
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let mut buffer = [0; 4096];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let parts = &mut [IoSliceMut::new(&mut buffer)];
                let received = recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
                let heard = Notification::parse(&buffer[..received.bytes]);
                if heard.ready {
                    let _ = sender.send(());
                }
                let mut store = store.lock().unwrap();
                match heard.store {
                    Some(notification::Store::Keep { name, .. }) => {
                        for message in control.drain() {
                            let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
                            store.stored.extend(fds.map(|fd| (name.clone(), fd)));
                        }
                    }
                    Some(notification::Store::Forget { name }) => {
                        store.stored.retain(|(stored, _)| *stored != name);
                        store.forgotten.push(name);
                    }
                    None => {}
                }
            }
        });
        ready
    }
}

/// A running daemon, killed when dropped.
struct Tund {
    child: Child,
    dir: TempDir,
    store: Arc<Mutex<Store>>,
    keyd: tokio::task::AbortHandle,
    /// Of which node its `keyd` is.
    node: Arc<Mutex<Node>>,
}

impl Drop for Tund {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.keyd.abort();
    }
}

impl Tund {
    /// Starts a daemon in a namespace, as a service unit would: with a user of its own and, unless it is to
    /// go without, `CAP_NET_ADMIN` as its only capability.
    fn start(namespace: &Namespace, node: Node, capable: bool) -> Self {
        let (tund, ready) = Self::start_with(namespace, node, capable, Store::default());
        ready.recv_timeout(READY).expect("it is ready");
        tund
    }

    /// The same with what a supervisor has kept. What is returned besides gets a word when it is ready.
    fn start_with(
        namespace: &Namespace,
        node: Node,
        capable: bool,
        store: Store,
    ) -> (Self, mpsc::Receiver<()>) {
        Self::start_at(Bridge::new(([127, 0, 0, 1], 7656).into()), namespace, node, capable, store, &[])
    }

    fn start_with_arguments(
        namespace: &Namespace,
        node: Node,
        capable: bool,
        store: Store,
        arguments: &[&str],
    ) -> (Self, mpsc::Receiver<()>) {
        let bridge = Bridge::new(([127, 0, 0, 1], 7656).into());
        Self::start_at(bridge, namespace, node, capable, store, arguments)
    }

    /// The same with another bridge than the usual one.
    fn start_at(
        bridge: Bridge,
        namespace: &Namespace,
        node: Node,
        capable: bool,
        store: Store,
        arguments: &[&str],
    ) -> (Self, mpsc::Receiver<()>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let node = Arc::new(Mutex::new(node));
        let keyd = start_keyd(dir.path(), Arc::clone(&node));
        let home = dir.path().join("tund");
        std::fs::create_dir(&home).unwrap();
        chown(&home, Some(UID), Some(UID)).unwrap();
        let ready = UnixDatagram::bind(dir.path().join("ready")).unwrap();
        open_to_all(&dir.path().join("ready"));

        let program = command(dir.path());
        // Who executes the program must know the process id that it has then.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(program.get_program());
        let names: Vec<_> = store.stored.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let mappings = (3..)
            .zip(&store.stored)
            .map(|(child_fd, (_, fd))| FdMapping { parent_fd: fd.try_clone().unwrap(), child_fd });
        command.fd_mappings(mappings.collect()).unwrap();
        let store = Arc::new(Mutex::new(store));
        let ready = Store::listen(ready, Arc::clone(&store));
        command
            .stdin(Stdio::null())
            .args(["--meshd-user", "0", "--sam-address", &bridge.address.to_string()])
            .args(["--sam-udp-port", &bridge.udp_ports()[0].to_string(), "--keyd-socket"])
            .arg(dir.path().join("keyd.sock"))
            .arg("--listen")
            .arg(home.join("tund.sock"))
            .args(arguments)
            .env("NOTIFY_SOCKET", dir.path().join("ready"))
            .uid(UID)
            .gid(UID);
        let child = namespace.run(move || {
            if capable {
                // The change of user must not take the capabilities along; executing then leaves the ambient.
                set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP).unwrap();
                caps::raise(None, CapSet::Inheritable, Capability::CAP_NET_ADMIN).unwrap();
                caps::raise(None, CapSet::Ambient, Capability::CAP_NET_ADMIN).unwrap();
            }
            let _lock = fork_lock();
            command.spawn().unwrap()
        });
        (Self { child, dir, store, keyd, node }, ready)
    }

    /// Kills it, and leaves what its supervisor has kept.
    fn kill(mut self) -> Store {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut *self.store.lock().unwrap())
    }

    /// Waits until the supervisor's store is so.
    fn until(&self, what: &str, condition: impl Fn(&Store) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition(&self.store.lock().unwrap()) {
            let store = self.store.lock().unwrap();
            assert!(Instant::now() < deadline, "not so: {what}: {:?} {:?}", store.names(), store.forgotten);
            drop(store);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn connect(&self) -> Client<TundApi> {
        let socket = self.dir.path().join("tund/tund.sock");
        Client::connect(Endpoint::of_users(&socket, [UID]), Role::Meshd).await.unwrap()
    }

    /// A line of its `/proc/…/status`.
    fn status(&self, key: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        line.unwrap().to_owned()
    }
}

/// Held while the program is copied and while processes are started: one that starts in between would inherit
/// the copy open for writing, and so keep it from being executed.
static FORK: Mutex<()> = Mutex::new(());

fn fork_lock() -> MutexGuard<'static, ()> {
    FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program, copied to where every user can execute it.
fn command(dir: &Path) -> Command {
    let _lock = fork_lock();
    let program = dir.join("i2plan-tund");
    std::fs::copy(env!("CARGO_BIN_EXE_i2plan-tund"), &program).unwrap();
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

fn start_keyd(dir: &Path, node: Arc<Mutex<Node>>) -> tokio::task::AbortHandle {
    let path = dir.join("keyd.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    open_to_all(&path);
    let access = Access::new([(Role::Tund, Who::User(UID))]);
    tokio::spawn(serve(listener, Arc::new(Keyd(node)), access, ConnectionLimits::default())).abort_handle()
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
}

/// A member of a network whose subnet is `subnet`, with the address of that number in it.
#[derive(Clone, Copy)]
struct Node {
    seed: u8,
    subnet: &'static str,
    /// The number of its key.
    epoch: u32,
    /// Until when that is certified.
    not_after: u64,
}

/// Members of the usual network.
fn node(seed: u8) -> Node {
    Node { seed, subnet: "10.42.0.0/16", epoch: 3, not_after: u64::MAX }
}

impl Node {
    fn charter(self) -> Charter {
        Charter { subnet: self.subnet.parse().unwrap(), ..testing::charter(0) }
    }

    /// Of one that the founder has certified with a single address.
    fn chain(self) -> Chain {
        let (founder, charter) = (Chain::founder(&self.charter()), self.charter());
        let first = charter.subnet.founder_address().to_bits() + u32::from(self.seed);
        let grant = Delegation {
            ranges: AddressRange::of_size(first, 1).unwrap().into(),
            ..testing::delegation(0, self.seed)
        };
        founder.extended(&testing::signed(founder.certificate(grant), 0)).unwrap()
    }

    fn lease(self) -> WireGuardLease {
        let private_key = SecretKey(*testing::wireguard_secret(self.seed).private_key());
        WireGuardLease { private_key, anchor: self.anchor() }
    }

    fn anchor(self) -> TrustAnchor {
        TrustAnchor {
            epoch: self.epoch,
            not_after: self.not_after,
            charter: self.charter(),
            chain: self.chain(),
            revoked: Vec::new(),
        }
    }

    fn public_key(self) -> [u8; 32] {
        testing::wireguard_certificate(self.seed).value.public_key()
    }

    fn data(self) -> Destination {
        testing::destination(self.seed.wrapping_add(100))
    }

    fn addresses(self) -> [String; 2] {
        let (charter, chain) = (self.charter(), self.chain());
        let ipv4 = chain.address(&charter.subnet);
        [ipv4.to_string(), ipv6_of(&charter.network(), ipv4).to_string()]
    }

    fn interface(self) -> NewInterface {
        NewInterface { name: "i2plan0".to_owned(), network: self.charter().network(), mtu: 1280 }
    }

    /// As `meshd` tells of it.
    fn member(self) -> Member {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let network = self.charter().network();
        let id = testing::node(self.seed);
        let proven = |destination: u8, role| {
            let destination_of = testing::destination(destination);
            let proof = DestinationProof { network, node: id, role, destination: destination_of };
            let proof = proof.sign(&testing::destination_key(destination));
            ProvenDestination { destination: destination_of, proof }
        };
        let certificate = WireGuardCertificate {
            network,
            node: id,
            key: testing::wireguard_secret(self.seed).proven(network, id),
            epoch: 3,
            not_before: now,
            not_after: now + 3600,
        };
        let record = Record {
            node: id,
            control: proven(self.seed, DestinationRole::Primary),
            data: proven(self.seed.wrapping_add(100), DestinationRole::Data),
            wireguard: testing::signed(certificate, self.seed),
            chain: self.chain(),
            ..testing::record(1).value
        };
        Member { record: Box::new(testing::signed(record, self.seed)), keepalive: 25 }
    }
}

async fn tell(client: &mut Client<TundApi>, node: Node) {
    assert_eq!(client.call(TellMembers(vec![node.member()])).await.unwrap(), Taken::default());
}

async fn configure(client: &mut Client<TundApi>, interface: NewInterface) -> Result<Configured, ApiError> {
    client.call(Configure(interface, 3)).await.map_err(|error| match error {
        ClientError::Api(error) => error,
        other => panic!("{other:?}"),
    })
}

async fn stats(client: &mut Client<TundApi>) -> Stats {
    client.call(GetStats).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_comes_up_and_every_privilege_goes() {
    let namespace = Namespace::new();
    let tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    assert_eq!(tund.status("CapEff"), "0000000000001000", "CAP_NET_ADMIN alone");

    let configured = configure(&mut client, node(1).interface()).await.unwrap();
    assert_eq!(
        configured,
        Configured { interface: "i2plan0".to_owned(), public_key: node(1).public_key(), epoch: 3 }
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(tund.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(tund.status("NoNewPrivs"), "1");
    assert_eq!(tund.status("Threads"), "1", "another thread would have kept its privileges");

    // Binding takes an address that is there and, for IPv6, not still being checked for duplicates.
    let mtus = namespace.run(|| {
        let (own, other) = (node(1).addresses(), node(2).addresses());
        [0, 1].map(|number: usize| {
            let address = &own[number];
            let socket = UdpSocket::bind((address.as_str(), 0)).unwrap();
            socket.connect((other[number].as_str(), 9)).unwrap();
            match address.parse().unwrap() {
                IpAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket).unwrap(),
                IpAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket).unwrap(),
            }
        })
    });
    assert_eq!(mtus, [1280, 1280]);
    let ipv6 = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
    assert_eq!(ipv6.lines().filter(|line| line.ends_with("i2plan0")).count(), 1, "no link-local one: {ipv6}");

    assert_eq!(configure(&mut client, node(1).interface()).await.unwrap(), configured);
    let error = configure(&mut Tund::start(&namespace, node(2), true).connect().await, node(1).interface())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains("an interface i2plan0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn for_another_interface_it_ends() {
    let namespace = Namespace::new();
    let mut tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    configure(&mut client, node(1).interface()).await.unwrap();
    // Its addresses are what keyd says, and that is another now.
    *tund.node.lock().unwrap() = node(9);
    let other = node(1).interface();
    let error = configure(&mut client, other).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("starts again"), "{error}");
    assert_eq!(tund.child.wait().unwrap().code(), Some(TO_BE_STARTED_AGAIN));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_network_that_the_node_has_left_nothing_is_kept() {
    let namespace = Namespace::new();
    let mut tund = Tund::start(&namespace, node(1), true);
    configure(&mut tund.connect().await, node(1).interface()).await.unwrap();
    tund.until("it is kept", |store| store.names() == ["state.1", "tun"]);
    // meshd says nothing of it.
    *tund.node.lock().unwrap() = Node { subnet: "10.43.0.0/16", ..node(1) };
    assert_eq!(tund.child.wait().unwrap().code(), Some(TO_BE_STARTED_AGAIN));
    tund.until("nothing is kept", |store| store.names().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_had_for_what_is_certified_alone() {
    let namespace = Namespace::new();
    let tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    let Err(ClientError::Api(error)) = client.call(TellMembers(vec![node(2).member()])).await else {
        panic!("there is no interface yet")
    };
    assert_eq!(error.kind, ErrorKind::Conflict);
    configure(&mut client, node(1).interface()).await.unwrap();
    let foreign = Node { subnet: "10.43.0.0/16", ..node(2) }.member();
    let mut forged = node(2).member();
    forged.record.value.chain = node(3).chain();
    let own = node(1).member();
    let mut taken = async |members: Vec<Member>| match client.call(TellMembers(members)).await {
        Ok(taken) => Ok(taken.refused.len()),
        Err(ClientError::Api(error)) => Err(error.kind),
        other => panic!("{other:?}"),
    };
    assert_eq!(taken(vec![foreign, forged, own, node(2).member()]).await, Ok(3));
    assert_eq!(taken(vec![node(2).member(); 65]).await, Err(ErrorKind::Invalid));
    assert_eq!(taken(vec![node(2).member(); 64]).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_own_key_is_over_by_the_clock_no_member_is_admitted_and_it_says_so() {
    let namespace = Namespace::new();
    let tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    configure(&mut client, node(1).interface()).await.unwrap();
    tell(&mut client, node(2)).await;
    assert_eq!(stats(&mut client).await.problem, None);
    *tund.node.lock().unwrap() = Node { not_after: 1, ..node(1) };
    configure(&mut client, node(1).interface()).await.unwrap();
    let Err(ClientError::Api(error)) = client.call(TellMembers(vec![node(3).member()])).await else {
        panic!("nobody is admitted")
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(stats(&mut client).await.problem.unwrap().message.contains("clock"));
    // Who is to go goes nevertheless.
    client.call(RemoveMembers(vec![testing::node(2)])).await.unwrap();
    *tund.node.lock().unwrap() = node(1);
    configure(&mut client, node(1).interface()).await.unwrap();
    tell(&mut client, node(3)).await;
    assert_eq!(stats(&mut client).await.problem, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_capability_it_says_so() {
    let namespace = Namespace::new();
    let tund = Tund::start(&namespace, node(1), false);
    let error = configure(&mut tund.connect().await, node(1).interface()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.hint().unwrap().contains("CAP_NET_ADMIN"));
}

/// Has a link `uplink` with this address made in the namespace, and with a default route through a gateway.
fn connect_to_network(namespace: &Namespace, address: &'static str, prefix: u8, gateway: Option<Ipv4Addr>) {
    netlink(namespace, move |handle| async move {
        handle.link().add(LinkVeth::new("uplink", "other-end").up().build()).execute().await.unwrap();
        let index = link_index(&handle, "uplink").await;
        handle.address().add(index, address.parse().unwrap(), prefix).execute().await.unwrap();
        if let Some(gateway) = gateway {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
            handle.route().add(route).execute().await.unwrap();
        }
    });
}

async fn link_index(handle: &Handle, name: &str) -> u32 {
    let link = handle.link().get().match_name(name.to_owned()).execute().try_next().await.unwrap();
    link.unwrap().header.index
}

fn netlink<F: Future<Output = ()>>(namespace: &Namespace, work: impl FnOnce(Handle) -> F + Send + 'static) {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            work(handle).await;
        });
    });
}

fn subnet(text: &str) -> Ipv4Subnet {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_the_host_is_not_taken_over() {
    let namespace = Namespace::new();
    connect_to_network(&namespace, "192.168.1.17", 24, Some([192, 168, 1, 1].into()));
    let tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    let taking = Node { subnet: "192.168.1.0/29", ..node(2) };
    *tund.node.lock().unwrap() = taking;
    let error = configure(&mut client, taking.interface()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let overlap = "192.168.1.0/29 overlaps the address 192.168.1.17/24 of uplink";
    assert!(error.message.contains(overlap), "{error}");
    assert!(error.hint().unwrap().contains("tun.allow_overlap"));
    let names = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert!(!names.contains("i2plan0"), "{names}");
    // It can still make another.
    *tund.node.lock().unwrap() = node(1);
    configure(&mut client, node(1).interface()).await.unwrap();

    let allowing = Namespace::new();
    connect_to_network(&allowing, "192.168.1.17", 24, Some([192, 168, 1, 1].into()));
    let arguments = ["--allow-overlap", "true"];
    let (tund, ready) = Tund::start_with_arguments(&allowing, taking, true, Store::default(), &arguments);
    ready.recv_timeout(READY).expect("it is ready");
    configure(&mut tund.connect().await, taking.interface()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_is_given_a_subnet_that_the_host_does_not_use() {
    let namespace = Namespace::new();
    connect_to_network(&namespace, "10.42.131.1", 24, None);
    let tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    let mut find = async |wanted: &str| client.call(FindSubnet(subnet(wanted))).await.unwrap().to_string();
    assert_eq!(find("10.42.0.0/16").await, "10.43.0.0/16");
    assert_eq!(find("10.9.0.0/16").await, "10.9.0.0/16");
    let check = CheckNetwork(subnet("10.42.0.0/16"), None);
    let Err(ClientError::Api(error)) = client.call(check).await else { panic!("it is in use") };
    assert!(error.message.contains("10.42.131.1/24 of uplink"), "{error}");
    // Its own interface is not in the way.
    let given = Node { subnet: "10.43.0.0/16", ..node(1) };
    *tund.node.lock().unwrap() = given;
    configure(&mut client, given.interface()).await.unwrap();
    let network = Some(given.charter().network());
    client.call(CheckNetwork(subnet("10.43.0.0/16"), network)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_that_comes_later_is_told_from_behind_the_sandbox() {
    let namespace = Namespace::new();
    let tund = Tund::start(&namespace, node(1), true);
    let mut client = tund.connect().await;
    configure(&mut client, node(1).interface()).await.unwrap();
    let before = stats(&mut client).await;
    assert_eq!((before.overlaps, before.without_ipv6), (Vec::new(), false));
    connect_to_network(&namespace, "10.42.131.1", 24, None);
    netlink(&namespace, |handle| async move {
        let index = link_index(&handle, "i2plan0").await;
        let mut addresses = handle.address().get().set_link_index_filter(index).execute();
        while let Some(address) = addresses.try_next().await.unwrap() {
            if address.header.family == AddressFamily::Inet6 {
                handle.address().del(address).execute().await.unwrap();
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let seen = loop {
        let stats = stats(&mut client).await;
        if !stats.overlaps.is_empty() && !stats.faults.is_empty() {
            break stats;
        }
        assert!(Instant::now() < deadline, "it is not told");
        std::thread::sleep(Duration::from_millis(100));
    };
    let told: Vec<_> = seen.overlaps.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.42.0.0/16 overlaps the address 10.42.131.1/24 of uplink"]);
    assert_eq!((seen.without_ipv6, seen.faults), (false, vec![InterfaceFault::NoIpv6]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_others_have_changed_is_told_of_and_not_taken_over() {
    let namespace = Namespace::new();
    let (tund, ready) = Tund::start_with(&namespace, node(1), true, Store::default());
    ready.recv_timeout(READY).expect("it is ready");
    let mut client = tund.connect().await;
    configure(&mut client, node(1).interface()).await.unwrap();
    tund.until("it is kept", |store| store.names() == ["state.1", "tun"]);
    assert_eq!(stats(&mut client).await.faults, []);
    netlink(&namespace, |handle| async move {
        let index = link_index(&handle, "i2plan0").await;
        let link = LinkUnspec::new_with_index(index).down().mtu(1400).build();
        handle.link().set(link).execute().await.unwrap();
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    while stats(&mut client).await.faults != [InterfaceFault::Down, InterfaceFault::Mtu { found: 1400 }] {
        assert!(Instant::now() < deadline, "it is not told");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Down and up again: the kernel has taken the IPv6 address.
    netlink(&namespace, |handle| async move {
        let index = link_index(&handle, "i2plan0").await;
        let link = LinkUnspec::new_with_index(index).up().mtu(1280).build();
        handle.link().set(link).execute().await.unwrap();
    });
    while stats(&mut client).await.faults != [InterfaceFault::NoIpv6] {
        assert!(Instant::now() < deadline, "it is not told");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The next process does not go on with it, and the one after that makes it anew.
    let (mut tund, _) = Tund::start_with(&namespace, node(1), true, tund.kill());
    assert_eq!(tund.child.wait().unwrap().code(), Some(1));
    tund.until("it is dropped", |store| !store.names().contains(&"tun"));
    let (tund, ready) = Tund::start_with(&namespace, node(1), true, tund.kill());
    ready.recv_timeout(READY).expect("it is ready");
    let mut client = tund.connect().await;
    configure(&mut client, node(1).interface()).await.unwrap();
    let found = stats(&mut client).await;
    assert_eq!((found.faults, found.without_ipv6), (Vec::new(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_interface_it_ends() {
    let namespace = Namespace::new();
    let mut tund = Tund::start(&namespace, node(1), true);
    configure(&mut tund.connect().await, node(1).interface()).await.unwrap();
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let socket = UdpSocket::bind("[::]:0").unwrap();
            let index = rustix::net::netdevice::name_to_index(&socket, "i2plan0").unwrap();
            handle.link().del(index).execute().await.unwrap();
        });
    });
    assert_eq!(tund.child.wait().unwrap().code(), Some(1));
}

/// As the connector does.
fn connect(bridge: &Bridge) -> (UdpSocket, TcpStream) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(("127.0.0.1", bridge.udp_ports()[0])).unwrap();
    (udp, TcpStream::connect(("127.0.0.1", bridge.address.port)).unwrap())
}

/// The bridge that takes connections and datagrams here.
fn at(connections: &TcpListener, datagrams: SocketAddr) -> Bridge {
    Bridge { address: connections.local_addr().unwrap().into(), udp_port: Some(datagrams.port()) }
}

fn index(namespace: &Namespace, name: &'static str) -> u32 {
    namespace.run(move || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        rustix::net::netdevice::name_to_index(&socket, name).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_with_what_was_kept_and_with_nothing_else() {
    let namespace = Namespace::new();
    let bridge = UdpSocket::bind("127.0.0.1:0").unwrap();
    let router = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = at(&router, bridge.local_addr().unwrap());
    let (tund, ready) = Tund::start_at(at.clone(), &namespace, node(1), true, Store::default(), &[]);
    ready.recv_timeout(READY).expect("it is ready");
    let mut client = tund.connect().await;
    configure(&mut client, node(1).interface()).await.unwrap();
    let (udp, tcp) = connect(&at);
    let _connection = router.accept().unwrap();
    let session = Session { id: "data-1".to_owned(), destination: node(1).data() };
    client.call_with_fds(AttachSession(session), &[udp.as_fd(), tcp.as_fd()]).await.unwrap();
    // Of the two, this one leaves it to the other to begin, as far as it is new.
    let other = (2..=255).map(node).find(|other| other.public_key() < node(1).public_key()).unwrap();
    tell(&mut client, other).await;
    tund.until("all is kept", |store| store.names() == ["state.3", "tcp.2", "tun", "udp.2"]);
    let index_before = index(&namespace, "i2plan0");
    drop((client, udp, tcp));
    let mut store = tund.kill();

    let file = || std::fs::File::open("/dev/null").unwrap();
    for name in ["evil", "state.999", "udp.77"] {
        store.stored.push((name.to_owned(), file().into()));
    }
    let (tund, ready) = Tund::start_at(at.clone(), &namespace, node(1), true, store, &[]);
    ready.recv_timeout(READY).expect("it is ready");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(tund.status(set), "0000000000000000", "{set}");
    }
    // A handshake, unasked: to go on, the peer needs a new session.
    let mut datagram = [0; 2000];
    let line = format!("3.0 data-1 {}\n", other.data().to_base64());
    bridge.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let len = loop {
        // What the first process has sent comes first.
        let len = bridge.recv(&mut datagram).unwrap();
        let mut client = tund.connect().await;
        if stats(&mut client).await.peers.iter().any(|peer| peer.tx_packets > 0) {
            break len;
        }
    };
    assert!(datagram.starts_with(line.as_bytes()));
    assert_eq!((datagram[line.len()], len), (1, line.len() + 148));
    let mut client = tund.connect().await;
    let seen = stats(&mut client).await;
    assert_eq!((seen.interface.as_deref(), seen.session.as_deref()), (Some("i2plan0"), Some("data-1")));
    assert_eq!(index(&namespace, "i2plan0"), index_before);
    tund.until("the rest is dropped", |store| store.names() == ["state.3", "tcp.2", "tun", "udp.2"]);
    let configured = configure(&mut client, node(1).interface()).await.unwrap();
    assert_eq!(configured.public_key, node(1).public_key());

    // To have no interface any more empties the store.
    client.call(GiveUp).await.unwrap();
    tund.until("nothing is kept", |store| store.names().is_empty());
}

/// While it is down meshd rotates the key, and nobody tells it of that: keyd does when it refuses the one before.
#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_with_a_key_that_was_rotated_meanwhile() {
    let namespace = Namespace::new();
    let tund = Tund::start(&namespace, node(1), true);
    configure(&mut tund.connect().await, node(1).interface()).await.unwrap();
    tund.until("it is kept", |store| store.names() == ["state.1", "tun"]);
    let rotated = Node { epoch: 4, ..node(1) };
    let (tund, ready) = Tund::start_with(&namespace, rotated, true, tund.kill());
    ready.recv_timeout(READY).expect("it is ready");
    tund.until("the number of the new key is kept", |store| store.names() == ["state.2", "tun"]);
    let mut client = tund.connect().await;
    assert_eq!(stats(&mut client).await.interface.as_deref(), Some("i2plan0"));
    // It has the new one: a question for that is answered without another rotation.
    assert_eq!(client.call(Configure(rotated.interface(), 4)).await.unwrap().epoch, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_interface_from_the_store_is_dropped() {
    let namespace = Namespace::new();
    let mut stores = Vec::new();
    for (seed, name) in [(1, "i2plan0"), (2, "foreign0")] {
        let node = match seed {
            1 => node(1),
            _ => Node { subnet: "10.43.0.0/16", ..node(seed) },
        };
        let arguments = ["--interface", name];
        let (tund, ready) = Tund::start_with_arguments(&namespace, node, true, Store::default(), &arguments);
        ready.recv_timeout(READY).expect("it is ready");
        let interface = NewInterface { name: name.to_owned(), ..node.interface() };
        configure(&mut tund.connect().await, interface).await.unwrap();
        tund.until("it is kept", |store| store.names() == ["state.1", "tun"]);
        stores.push(tund.kill());
    }
    let (mut foreign, mut store) = (stores.pop().unwrap(), stores.pop().unwrap());
    store.stored.retain(|(name, _)| name != "tun");
    foreign.stored.retain(|(name, _)| name == "tun");
    store.stored.append(&mut foreign.stored);

    // Its privileges are gone by then, so it ends for the next to have them.
    let (mut tund, _) = Tund::start_with(&namespace, node(1), true, store);
    assert_eq!(tund.child.wait().unwrap().code(), Some(1));
    tund.until("it is dropped", |store| store.names() == ["state.1"]);
    let store = tund.kill();
    let (tund, ready) = Tund::start_with(&namespace, node(1), true, store);
    ready.recv_timeout(READY).expect("it is ready");
    configure(&mut tund.connect().await, node(1).interface()).await.unwrap();
    tund.until("it is kept", |store| store.names() == ["state.2", "tun"]);

    // Its own, of a name that is not the configured one any more.
    let named = ["--interface", "mesh7"];
    let (mut tund, _) = Tund::start_with_arguments(&namespace, node(1), true, tund.kill(), &named);
    assert_eq!(tund.child.wait().unwrap().code(), Some(1));
    tund.until("it is dropped", |store| store.names() == ["state.2"]);
    let (tund, ready) = Tund::start_with_arguments(&namespace, node(1), true, tund.kill(), &named);
    ready.recv_timeout(READY).expect("it is ready");
    let mut client = tund.connect().await;
    let error = configure(&mut client, node(1).interface()).await.unwrap_err();
    assert!(error.message.contains("tund makes none but mesh7"), "{error}");
    configure(&mut client, NewInterface { name: "mesh7".to_owned(), ..node(1).interface() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_to_stop_leaves_what_is_kept_and_one_to_end_it_all_does_not() {
    for (signal, kept) in [(rustix::process::Signal::TERM, true), (rustix::process::Signal::INT, false)] {
        let namespace = Namespace::new();
        let mut tund = Tund::start(&namespace, node(1), true);
        configure(&mut tund.connect().await, node(1).interface()).await.unwrap();
        tund.until("it is kept", |store| store.names() == ["state.1", "tun"]);
        let pid = rustix::process::Pid::from_child(&tund.child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(tund.child.wait().unwrap().code(), Some(0));
        if kept {
            assert_eq!(tund.store.lock().unwrap().names(), ["state.1", "tun"]);
        } else {
            tund.until("nothing is kept", |store| store.names().is_empty());
        }
    }
}

#[test]
fn interfaces_with_headers_and_those_of_earlier_builds_are_gone_on_with() {
    for has_headers in [false, true] {
        Namespace::new().run(move || {
            let mut configuration = tun::configure();
            let address = (Ipv4Addr::new(10, 45, 0, 1), Ipv4Addr::new(255, 255, 255, 0));
            configuration.tun_name("old0").mtu(1280).address(address.0).netmask(address.1).up();
            configuration.platform_config(|platform| {
                platform.vnet_hdr(has_headers);
            });
            let made = tun::create(&configuration).unwrap();
            let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
            let fd = pidfd_getfd(&this, made.as_raw_fd(), PidfdGetfdFlags::empty()).unwrap();
            let interface = StaticInterface {
                name: "old0".to_owned(),
                addresses: Vec::new(),
                mtu: 1280,
                table: None,
                peers: Vec::new(),
            };
            let device = Adopted::new(&fd).unwrap().into_static(&interface).unwrap();
            let socket = UdpSocket::bind("10.45.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(b"hello", "10.45.0.2:9").unwrap();
            let (mut buffer, mut sent) = (ReadBuffer::default(), None);
            while sent.is_none() {
                device
                    .recv(&mut buffer, |packet| sent = (packet[0] == 0x45).then(|| packet.to_vec()))
                    .unwrap();
            }
            // Back to where it came from; the checksums stay right.
            let mut packet = sent.unwrap();
            assert_eq!((packet.len(), &packet[28..]), (33, &b"hello"[..]));
            packet[12..20].rotate_left(4);
            packet[20..24].rotate_left(2);
            device.send(&packet).unwrap();
            let mut received = [0; 10];
            assert_eq!(socket.recv(&mut received).unwrap(), 5);
        });
    }
}

/// Runs the program to its end: its exit code, and what it says on standard error.
fn complain(args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path());
    let _lock = fork_lock();
    let Output { status, stderr, .. } = command.args(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn root_is_refused() {
    require_root();
    let (code, stderr) = complain(&["--meshd-user", "0", "--listen", "/nonexistent/x"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("root") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn wrong_arguments_are_one_line_and_exit_code_2() {
    let (code, stderr) = complain(&["--nonsense"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--nonsense") && stderr.lines().count() == 1, "{stderr}");
}

/// Stands in for a router: forwards each datagram to the session of the destination that its first line names.
async fn forward(bridge: tokio::net::UdpSocket, sessions: Vec<(Destination, SocketAddr)>) {
    let mut datagram = vec![0; 32 * 1024];
    loop {
        let (len, _) = bridge.recv_from(&mut datagram).await.unwrap();
        let end = datagram[..len].iter().position(|byte| *byte == b'\n').unwrap();
        let line = str::from_utf8(&datagram[..end]).unwrap();
        let destination = line.rsplit(' ').next().unwrap();
        let (_, to) = sessions.iter().find(|(known, _)| known.to_base64() == destination).unwrap();
        bridge.send_to(&datagram[end + 1..len], to).await.unwrap();
    }
}

/// Sends `len` bytes from one end of a connection to the other and checks them.
fn transfer(mut from: TcpStream, mut to: TcpStream, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    let expected = bytes.clone();
    let sender = std::thread::spawn(move || from.write_all(&bytes).unwrap());
    let mut received = Vec::new();
    to.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert!(received == expected, "{} bytes came", received.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_crosses_between_two_nodes_while_keyd_and_meshd_are_gone() {
    let bridge = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let router = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = at(&router, bridge.local_addr().unwrap());
    let mut sessions = Vec::new();
    let mut nodes = Vec::new();
    for (seed, other) in [(1, 2), (2, 1)] {
        let namespace = Namespace::new();
        let (tund, ready) = Tund::start_at(at.clone(), &namespace, node(seed), true, Store::default(), &[]);
        ready.recv_timeout(READY).expect("it is ready");
        let mut client = tund.connect().await;
        configure(&mut client, node(seed).interface()).await.unwrap();
        let (udp, control) = connect(&at);
        sessions.push((node(seed).data(), udp.local_addr().unwrap()));
        let session = Session { id: format!("data-{seed}"), destination: node(seed).data() };
        client.call_with_fds(AttachSession(session), &[udp.as_fd(), control.as_fd()]).await.unwrap();
        tell(&mut client, node(other)).await;
        tund.keyd.abort();
        nodes.push((namespace, tund));
    }
    let forwarder = tokio::spawn(forward(bridge, sessions));

    let (one, two) = (&nodes[0].0, &nodes[1].0);
    for (address, len) in node(1).addresses().into_iter().zip([1_000_000, 300_000]) {
        let listener = one.run(move || TcpListener::bind((address.as_str(), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let stream = two.run(move || TcpStream::connect(to).unwrap());
        let (accepted, _) = listener.accept().unwrap();
        transfer(stream, accepted, len);
    }

    let (_, tund) = &nodes[0];
    let mut client = tund.connect().await;
    let stats = stats(&mut client).await;
    assert_eq!((stats.interface.as_deref(), stats.session.as_deref()), (Some("i2plan0"), Some("data-1")));
    assert!(stats.peers[0].last_handshake.is_some());
    assert!(stats.peers[0].rx_bytes > 1_300_000, "{stats:?}");
    assert_eq!(stats.peers[0].rx_drops, 0, "{stats:?}");

    // A restarted meshd finds the session and takes it back.
    let Ok([Some((session, _)), None]) = client.call(TakeSessions).await else {
        panic!("there is a session")
    };
    assert_eq!(session.id, "data-1");
    forwarder.abort();
}
