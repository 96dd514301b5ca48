//! Questions that a process may not ask, asked over the daemons' sockets.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use ed25519_dalek::SigningKey;
use i2plan_ipc::api::Api;
use i2plan_ipc::api::keyd::{
    CertifyMember, CertifyWireGuard, Connector, CreateInvite, DialError, ExtendMember, GetIdentity,
    GetPinned, Identity, KeydApi, NewRecord, NotConnected, OpenSession, PinnedNetwork, Request, SessionKind,
    SignRecord, Statement,
};
use i2plan_ipc::api::meshd::{self, MeshdApi};
use i2plan_ipc::api::order::{Order, OrderToken};
use i2plan_ipc::api::tund::{self, TundApi};
use i2plan_ipc::client::ClientError;
use i2plan_ipc::hello::Landlock;
use i2plan_ipc::version::Version;
use i2plan_ipc::{Client, Role};
use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationProof, DestinationRole, ProvenDestination};
use i2plan_proto::identity::{NetworkId, NodeId, Signable, Signature, Signed};
use i2plan_proto::invite::{InviteGrant, InviteId, InviteSecret, Uses};
use i2plan_proto::join::{JoinBody, JoinRequest};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{Chain, Charter, Delegation, NetworkName};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::{ProvenKey, WireGuardCertificate, WireGuardSecret};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use zeroize::Zeroizing;

use super::{Attempt, print, socket};
use crate::i2p::router::SAM;
use crate::i2p::sam;
use crate::{Failure, netns};

const ROLES: [Role; 5] = [Role::Keyd, Role::Meshd, Role::Tund, Role::Connector, Role::Client];

/// The roles that `keyd` has a socket for.
const AT_KEYD: [Role; 4] = [Role::Meshd, Role::Tund, Role::Connector, Role::Client];

/// Sockets of another network namespace with the address of the node's SAM bridge at both ends: what is written to them
/// comes back.
#[derive(Debug)]
pub struct ToItself {
    stream: OwnedFd,
    datagrams: OwnedFd,
}

impl ToItself {
    /// Makes them. For root, before it becomes the intruder.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new() -> Result<Self, Failure> {
        netns::apart(|| {
            let to_itself = |kind, address: SocketAddr| {
                let socket = socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
                bind(&socket, &address)?;
                connect(&socket, &address)?;
                Ok::<_, io::Error>(socket)
            };
            let stream = to_itself(SocketType::STREAM, SAM)?;
            Ok(Self { stream, datagrams: to_itself(SocketType::DGRAM, sam::UDP)? })
        })
    }

    fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.stream.as_fd(), self.datagrams.as_fd()]
    }
}

fn failed(error: impl Display) -> Failure {
    Failure::new(error.to_string())
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

/// Connects to each socket in each role and asks something harmless. Prints an [`Attempt`] for each.
///
/// # Errors
/// If it cannot be printed.
pub async fn knock(run: &Path) -> Result<(), Failure> {
    let mut attempts = Vec::new();
    for role in ROLES {
        for name in AT_KEYD {
            // What each may ask, and what does nothing.
            let request = match name {
                Role::Connector => {
                    Request::NotConnected(NotConnected { order: 0, reason: DialError::TimedOut })
                }
                // Without a confirmation.
                Role::Client => Request::PrepareOrder(Box::new(Order::Forget)),
                _ => Request::Identity,
            };
            attempts.push(knock_at::<KeydApi>(&socket(run, Role::Keyd, name), role, request).await);
        }
        let meshd = socket(run, Role::Meshd, role);
        attempts.push(knock_at::<MeshdApi>(&meshd, role, meshd::Request::Status).await);
        attempts.push(knock_at::<TundApi>(&socket(run, Role::Tund, role), role, tund::Request::Stats).await);
    }
    print(&attempts)
}

async fn knock_at<A: Api>(socket: &Path, role: Role, request: A::Request) -> Attempt {
    let refusal = match Client::<A>::connect(socket, role).await {
        Ok(mut client) => client.call(request).await.err(),
        Err(error) => Some(error),
    };
    let because = String::new();
    Attempt {
        what: format!("{} as {role}", socket.file_stem().unwrap_or_default().display()),
        because,
        refusal: refusal.map(|error| error.to_string()),
    }
}

/// A request that must be refused.
struct Wish {
    what: &'static str,
    because: &'static str,
    request: Request,
}

impl Wish {
    fn new(what: &'static str, because: &'static str, request: Request) -> Self {
        Self { what, because, request }
    }

    fn attempt(&self) -> Attempt {
        Attempt { what: self.what.to_owned(), because: self.because.to_owned(), refusal: None }
    }
}

async fn wish(client: &mut Client<KeydApi>, wish: Wish, fds: &[BorrowedFd<'_>]) -> Attempt {
    let attempt = wish.attempt();
    let result = client.call_with_fds(wish.request, fds).await;
    Attempt { refusal: result.err().map(|error| error.to_string()), ..attempt }
}

/// What a process is told to whom the system refuses to pass descriptors.
const REFUSED: &str = "Operation not permitted";

/// As [`wish`], on a connection of its own with descriptors that this daemon never takes: where the system can, it refuses
/// to pass them.
async fn wish_with(socket: &Path, role: Role, wish: Wish, fds: &[BorrowedFd<'_>]) -> Attempt {
    let mut keyd = match Client::<KeydApi>::connect(socket, role).await {
        Ok(keyd) => keyd,
        Err(error) => return Attempt { refusal: Some(error.to_string()), ..wish.attempt() },
    };
    let mut attempt = self::wish(&mut keyd, wish, fds).await;
    if attempt.refusal.as_ref().is_some_and(|refusal| refusal.contains(REFUSED)) {
        attempt.because = REFUSED.to_owned();
    }
    attempt
}

async fn connect_as(socket: &Path, role: Role, what: &str) -> Attempt {
    let refusal = Client::<KeydApi>::connect(socket, role).await.err().map(|error| error.to_string());
    Attempt { what: what.to_owned(), because: format!("may not connect here as {role}"), refusal }
}

/// In `meshd`'s place: wants secrets of `keyd`, and signatures that `meshd` has no right to. Prints an
/// [`Attempt`] for each.
///
/// # Errors
/// If `keyd` does not answer what it should.
pub async fn ask_keyd_as_meshd(run: &Path, to_itself: &ToItself) -> Result<(), Failure> {
    let socket = socket(run, Role::Keyd, Role::Meshd);
    let mut keyd = Client::<KeydApi>::connect(&socket, Role::Meshd).await.map_err(failed)?;
    let me = keyd.call(GetIdentity).await.map_err(failed)?;
    let Some(pinned) = keyd.call(GetPinned).await.map_err(failed)? else {
        return Err(Failure::new("this node is in no network"));
    };
    let PinnedNetwork { charter, chain } = *pinned;
    let network = charter.network();
    let wireguard = keyd.call(CertifyWireGuard { network, rotate: false }).await.map_err(failed)?;
    let (_, grant) = keyd.call(create_invite(&charter)).await.map_err(failed)?;

    let mut attempts = vec![
        connect_as(&socket, Role::Tund, "to be taken for tund").await,
        connect_as(&socket, Role::Connector, "to be taken for the connector").await,
        connect_as(&socket, Role::Client, "to be taken for a user").await,
    ];
    let wishes = [
        Wish::new("the WireGuard key", "may not ask this", Request::LeaseWireGuard { network, epoch: 1 }),
        Wish::new(
            "a charter in another's name",
            "names another founder",
            Request::SignCharter(self::charter(intruder())),
        ),
        Wish::new(
            "a charter for another time",
            "time is not now",
            Request::SignCharter(Charter { founded_at: 1, ..charter.clone() }),
        ),
        Wish::new("an invite without end", "366 days", {
            Request::CreateInvite(CreateInvite { expires_at: u64::MAX, ..create_invite(&charter) })
        }),
    ];
    let others = records(&me, &charter, &wireguard)
        .into_iter()
        .chain(words(&me, &charter))
        .chain(joins(&me, &charter, &grant));
    for each in wishes.into_iter().chain(others).chain(leaving(&me, &charter, &chain)) {
        attempts.push(wish(&mut keyd, each, &[]).await);
    }
    attempts.extend(sessions(&socket, Role::Meshd, &mut keyd, to_itself).await);
    print(&attempts)
}

fn intruder_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn intruder() -> NodeId {
    NodeId(intruder_key().verifying_key().to_bytes())
}

fn signed<T: Signable>(value: T) -> Signed<T> {
    let signature = value.sign(&intruder_key());
    Signed { value, signature }
}

/// The charter of a network that a node could found now.
fn charter(founder: NodeId) -> Charter {
    Charter {
        founder,
        name: NetworkName::of_founder(&NodeName::of_host("lab")),
        subnet: Ipv4Subnet::DEFAULT,
        founded_at: now(),
        nonce: [7; 16],
    }
}

fn create_invite(charter: &Charter) -> CreateInvite {
    CreateInvite {
        network: charter.network(),
        name: charter.name.clone(),
        subnet: charter.subnet,
        expires_at: now() + 3600,
        uses: Uses::Limited(NonZeroU32::MIN),
        addresses: 1,
    }
}

fn unlimited(charter: &Charter) -> CreateInvite {
    CreateInvite { uses: Uses::Unlimited, ..create_invite(charter) }
}

/// A WireGuard key of the intruder's, as if it were a node's.
fn key_of(node: NodeId, charter: &Charter) -> ProvenKey {
    let secret = WireGuardSecret::new(&Zeroizing::new([9; 32]));
    secret.proven(charter.network(), node)
}

/// Addresses of the default subnet: one, or more of them.
fn addresses(prefix: u8) -> AddressRanges {
    AddressRange::new([10, 42, 3, 16].into(), prefix).expect("it is aligned").into()
}

fn elsewhere() -> Destination {
    Destination { padding: [7; 32], signing_key: intruder().0 }
}

/// Records that are not this node's, or say of it what is not so.
fn records(me: &Identity, charter: &Charter, wireguard: &Signed<WireGuardCertificate>) -> Vec<Wish> {
    let theirs = self::charter(intruder());
    let right = NewRecord {
        charter: charter.clone(),
        chain: Chain::founder(charter),
        name: "n".parse().expect("a node name"),
        control: me.control,
        data: elsewhere(),
        wireguard: wireguard.clone(),
    };
    let foreign = NewRecord { charter: theirs.clone(), chain: Chain::founder(&theirs), ..right.clone() };
    let record = |what, because, record| Wish::new(what, because, Request::SignRecord(Box::new(record)));
    vec![
        record("a record in another's name", "another node", foreign),
        record(
            "a record that moves the control destination",
            "control destination is not this node's",
            NewRecord { control: elsewhere(), ..right.clone() },
        ),
        record("a record that moves the data destination", "data destination is not this node's", right),
    ]
}

/// Statements by which members would leave, be suspected or be expelled, and which this node may not make.
fn words(me: &Identity, charter: &Charter) -> Vec<Wish> {
    let (network, sequence) = (charter.network(), 1);
    let liveness_message = LivenessMessage { network, node: intruder(), sequence, presence: Presence::Away };
    let suspicion =
        Suspicion { network, confirmer: intruder(), subject: me.node, sequence, issued_at: now() };
    let against_itself = Suspicion { confirmer: me.node, ..suspicion.clone() };
    // A chain that the intruder has put together, as if this node had invited it.
    let grant = Delegation {
        subject: intruder(),
        invite: InviteSecret([5; 32]).key().id(),
        ranges: addresses(28),
        serial: 1,
        since: 1,
        replaces: false,
        issued_at: now(),
    };
    let theirs = self::charter(intruder());
    let chain = Chain::founder(&theirs);
    let order = |what, order| Wish::new(what, "may not ask this", Request::PrepareOrder(Box::new(order)));
    let last = LivenessMessage { network, node: me.node, sequence: u64::MAX, presence: Presence::Present };
    let forged_word = Signed { value: last, signature: liveness_message.sign(&intruder_key()) };
    let certificate = Chain::founder(&theirs).certificate(grant);
    vec![
        Wish::new(
            "that another's word is taken for this node's",
            "another node",
            Request::Note(Statement::Liveness(signed(liveness_message))),
        ),
        Wish::new(
            "that the last number of all is taken for used",
            "not its signer's",
            Request::Note(Statement::Liveness(forged_word)),
        ),
        Wish::new(
            "that another's certificate is taken for this node's",
            "by another node",
            Request::Recover(vec![signed(certificate)]),
        ),
        Wish::new("a suspicion in another's name", "another's", Request::SignAccusation(suspicion)),
        Wish::new(
            "a suspicion against itself",
            "against this node itself",
            Request::SignAccusation(against_itself),
        ),
        order("the end of a membership", Order::Revoke { chains: vec![chain.clone()], record: None }),
        order("the end of an invite's memberships", Order::RevokeInvite(InviteSecret([5; 32]).key().id())),
        order("this node's resignation", Order::Leave(Box::new(chain), theirs)),
        order("another network for this node", Order::Forget),
        order("that lost memory is complete", Order::Recover),
        order("an unlimited invite", Order::CreateInvite(unlimited(charter))),
        Wish::new("an order's confirmation", "may not ask this", Request::ConfirmOrder(OrderToken([0; 16]))),
    ]
}

/// What would end this node's membership, take it to another network, or let in more than an administrator has ordered.
fn leaving(me: &Identity, charter: &Charter, chain: &Chain) -> Vec<Wish> {
    let other = self::charter(me.node);
    let body = JoinBody {
        network: other.network(),
        inviter: intruder(),
        invite: InviteSecret([5; 32]).key(),
        joiner: me.node,
        control: me.control.hash(),
        issued_at: now(),
    };
    let resignation = signed(Resignation { chain: chain.clone(), last_serial: 0, issued_at: now() });
    let target = Target::Invite(chain.clone(), InviteSecret([5; 32]).key().id());
    let revocation = signed(Revocation { issuer: intruder(), target, issued_at: now() });
    let pinned = "leaves it by an order only";
    let note = |what, statement| Wish::new(what, "not signed by one who may", Request::Note(statement));
    vec![
        Wish::new("to found another network", pinned, Request::SignCharter(other.clone())),
        Wish::new(
            "to join another network",
            pinned,
            Request::SignJoin { body: Box::new(body), control: me.control },
        ),
        Wish::new("an invite to another network", pinned, Request::CreateInvite(create_invite(&other))),
        Wish::new("a WireGuard key for another network", pinned, {
            Request::CertifyWireGuard { network: other.network(), rotate: false }
        }),
        Wish::new("an unlimited invite", "needs an order", Request::CreateInvite(unlimited(charter))),
        Wish::new("an invite for many", "needs an order", {
            Request::CreateInvite(CreateInvite { addresses: 512, ..create_invite(charter) })
        }),
        note("a forged resignation", Statement::Resignation(Box::new(resignation))),
        note("a revocation by one below", Statement::Revocation(Box::new(revocation))),
    ]
}

/// Requests to join, and certificates, to which the intruder has no right. It has an invite of the node and its grant.
fn joins(me: &Identity, charter: &Charter, own_grant: &Signed<InviteGrant>) -> Vec<Wish> {
    let network = charter.network();
    let secret = InviteSecret([5; 32]);
    let body = JoinBody {
        network,
        inviter: me.node,
        invite: secret.key(),
        joiner: intruder(),
        control: elsewhere().hash(),
        issued_at: now(),
    };
    let request = |body: &JoinBody, proof| JoinRequest { body: signed(body.clone()), proof };
    let proven = request(&body, body.prove(&secret.signing_key()));
    let grant = InviteGrant {
        network,
        inviter: me.node,
        key: secret.key(),
        created_at: now(),
        expires_at: now() + 3600,
        uses: Uses::Unlimited,
        addresses: 1,
    };
    let certificate = |grant, request| CertifyMember {
        grant,
        request,
        parent: network.into(),
        ranges: addresses(32),
        replaces: false,
    };
    let certify = |what, because, grant, request| {
        Wish::new(what, because, Request::CertifyMember(Box::new(certificate(grant, request))))
    };
    let for_own = JoinBody { invite: own_grant.value.key, ..body.clone() };
    let grant_of_intruder = Delegation {
        subject: me.node,
        invite: secret.key().id(),
        ranges: addresses(32),
        serial: 1,
        since: 1,
        replaces: false,
        issued_at: now(),
    };
    let certificate_of_intruder =
        signed(Chain::founder(&self::charter(intruder())).certificate(grant_of_intruder));
    vec![
        Wish::new(
            "a request to join in another's name",
            "another node",
            Request::SignJoin { body: Box::new(body.clone()), control: elsewhere() },
        ),
        Wish::new(
            "a request to join from elsewhere",
            "destination is not this node's",
            Request::SignJoin {
                body: Box::new(JoinBody { joiner: me.node, inviter: intruder(), ..body.clone() }),
                control: elsewhere(),
            },
        ),
        certify(
            "a certificate for an invite that the intruder has signed",
            "made by another node",
            signed(InviteGrant { inviter: intruder(), ..grant.clone() }),
            proven.clone(),
        ),
        certify(
            "a certificate for an invite that nobody has signed",
            "not its signer's",
            Signed { value: grant, signature: Signature([1; 64]) },
            proven.clone(),
        ),
        certify("a certificate for another invite's holder", "another invite", own_grant.clone(), proven),
        certify(
            "a certificate without the invite's proof",
            "proof of holding",
            own_grant.clone(),
            request(&for_own, Signature([2; 64])),
        ),
        Wish::new(
            "more addresses for a member that another has certified",
            "by another node",
            Request::ExtendMember(Box::new(ExtendMember {
                certificate: certificate_of_intruder,
                parent: network.into(),
                ranges: addresses(28),
            })),
        ),
    ]
}

fn open_session() -> Request {
    Request::OpenSession(OpenSession {
        kind: SessionKind::Control,
        id: "intruder".to_owned(),
        tunnel_length: 1,
        tunnel_length_variance: 0,
        tunnel_quantity: 1,
        tunnel_backup_quantity: 0,
        over_tcp: false,
    })
}

/// Wants a destination's private key written where the intruder reads it.
async fn sessions(
    socket: &Path,
    role: Role,
    keyd: &mut Client<KeydApi>,
    to_itself: &ToItself,
) -> Vec<Attempt> {
    let [stream, datagrams] = to_itself.fds();
    let denied = "may not ask this";
    let version = Version::current();
    let connector = Connector { pid: 1, version, landlock: Landlock::Full };
    vec![
        wish_with(
            socket,
            role,
            Wish::new("a session on a connection to itself", "0 file descriptors", open_session()),
            &[stream],
        )
        .await,
        wish(keyd, Wish::new("the connector's orders", denied, Request::AwaitOrder(connector)), &[]).await,
        wish_with(
            socket,
            role,
            Wish::new("a connection to itself in the connector's place", denied, Request::Connected(1)),
            &[stream, datagrams],
        )
        .await,
    ]
}

/// In the connector's place: passes what does not lead to the bridge, and wants what only others may ask. Prints an
/// [`Attempt`] for each.
///
/// # Errors
/// If `keyd` does not let it in as the connector.
pub async fn ask_keyd_as_connector(run: &Path, to_itself: &ToItself) -> Result<(), Failure> {
    let socket = socket(run, Role::Keyd, Role::Connector);
    let mut keyd = Client::<KeydApi>::connect(&socket, Role::Connector).await.map_err(failed)?;
    let [to_self, datagrams] = to_itself.fds();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let elsewhere = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (unix, _far) = UnixStream::pair()?;
    let mut attempts = vec![
        connect_as(&socket, Role::Meshd, "to be taken for meshd").await,
        connect_as(&socket, Role::Tund, "to be taken for tund").await,
    ];
    for (what, because, fds) in [
        ("a connection to itself", "connected to itself", [to_self, datagrams]),
        ("a connection to the intruder", "passed one to", [elsewhere.as_fd(), datagrams]),
        ("a unix socket", "something else than a TCP connection", [unix.as_fd(), datagrams]),
        ("no UDP socket", "something else than a TCP connection", [datagrams, datagrams]),
    ] {
        attempts.push(wish(&mut keyd, Wish::new(what, because, Request::Connected(0)), &fds).await);
    }
    let because = "may not ask this";
    let charter = charter(intruder());
    let network = charter.network();
    for (what, request) in [
        ("the identity", Request::Identity),
        ("a session", open_session()),
        ("a charter", Request::SignCharter(charter.clone())),
        ("an invite", Request::CreateInvite(create_invite(&charter))),
        ("the WireGuard key", Request::LeaseWireGuard { network, epoch: 1 }),
    ] {
        attempts.push(wish(&mut keyd, Wish::new(what, because, request), &[]).await);
    }
    print(&attempts)
}

/// In `meshd`'s place of a node that is in no network, in league with the founder of one: has `keyd` sign for a membership
/// and for a newer one in its place, and replays the older one and its end, so that `keyd` would be free for another network.
/// Prints an [`Attempt`] for each.
///
/// # Errors
/// If `keyd` does not do what it should, or is not free when the newer membership has ended.
pub async fn replay_to_keyd(run: &Path) -> Result<(), Failure> {
    let mut keyd = Client::<KeydApi>::connect(&socket(run, Role::Keyd, Role::Meshd), Role::Meshd)
        .await
        .map_err(failed)?;
    let me = keyd.call(GetIdentity).await.map_err(failed)?;
    let open = OpenSession {
        kind: SessionKind::Data,
        id: "replay".to_owned(),
        tunnel_length: 1,
        tunnel_length_variance: 0,
        tunnel_quantity: 1,
        tunnel_backup_quantity: 0,
        over_tcp: false,
    };
    let (opened, _open) = keyd.call(open).await.map_err(failed)?;
    let charter = charter(intruder());
    let network = charter.network();
    // The same address both times, and more of them the second time.
    let member = |serial, prefix| {
        let founder = Chain::founder(&charter);
        let grant = Delegation {
            subject: me.node,
            invite: InviteSecret([5; 32]).key().id(),
            ranges: addresses(prefix),
            serial,
            since: 1,
            replaces: false,
            issued_at: now(),
        };
        founder.appended(&signed(founder.certificate(grant)))
    };
    let (old, new) = (member(1, 32), member(2, 28));
    let wireguard = keyd.call(CertifyWireGuard { network, rotate: false }).await.map_err(failed)?;
    let record = |chain: &Chain| {
        SignRecord(Box::new(NewRecord {
            charter: charter.clone(),
            chain: chain.clone(),
            name: "n".parse().expect("a node name"),
            control: me.control,
            data: opened.destination,
            wireguard: wireguard.clone(),
        }))
    };
    let mut records = Vec::new();
    for chain in [&old, &new] {
        records.push(keyd.call(record(chain)).await.map_err(failed)?);
    }
    let end = |chain: &Chain| {
        let target = Target::Certificate(chain.clone());
        let revocation = Revocation { issuer: intruder(), target, issued_at: now() };
        Request::Note(Statement::Revocation(Box::new(signed(revocation))))
    };
    let replays = [
        ("an old chain for the newer one", record(&old).into()),
        ("an old record for the newer one", Request::Note(Statement::Record(records.remove(0)))),
        ("the end of a membership before", end(&old)),
        ("an old chain whose end is known", record(&old).into()),
    ];
    let other = self::charter(me.node);
    let mut attempts = Vec::new();
    for (what, replay) in replays {
        // Whether it is answered does not matter, only what comes of it.
        let _ = keyd.call(replay).await;
        let because = "keyd stays with the newer chain";
        let is_same = pinned(&mut keyd).await?.is_some_and(|chain| chain == new);
        let refusal = is_same.then(|| because.to_owned());
        attempts.push(Attempt { what: what.to_owned(), because: because.to_owned(), refusal });
        let found = Request::SignCharter(other.clone());
        attempts.push(wish(&mut keyd, Wish::new(what, "leaves it by an order only", found), &[]).await);
    }
    // The same statement about the newer one is another matter.
    keyd.call(end(&new)).await.map_err(failed)?;
    if pinned(&mut keyd).await?.is_some() {
        return Err(Failure::new("keyd does not see that its membership has ended"));
    }
    print(&attempts)
}

/// The chain that `keyd` is pinned to.
async fn pinned(keyd: &mut Client<KeydApi>) -> Result<Option<Chain>, Failure> {
    Ok(keyd.call(GetPinned).await.map_err(failed)?.map(|pinned| pinned.chain))
}

/// In `tund`'s place: wants of `keyd` what only `meshd` may ask. Prints an [`Attempt`] for each.
///
/// # Errors
/// If `keyd` does not let it in as `tund`.
pub async fn ask_keyd_as_tund(run: &Path, to_itself: &ToItself) -> Result<(), Failure> {
    let socket = socket(run, Role::Keyd, Role::Tund);
    let mut keyd = Client::<KeydApi>::connect(&socket, Role::Tund).await.map_err(failed)?;
    let charter = charter(intruder());
    let network = charter.network();
    let invite = create_invite(&charter);
    let secret = InviteSecret([5; 32]);
    let me = Identity { node: intruder(), control: elsewhere(), sealed: false, remembers: true };
    let certificate = signed(WireGuardCertificate {
        network,
        node: intruder(),
        key: key_of(intruder(), &charter),
        epoch: 1,
        not_before: now(),
        not_after: now() + 3600,
    });
    let grant = signed(InviteGrant {
        network,
        inviter: intruder(),
        key: secret.key(),
        created_at: now(),
        expires_at: now() + 3600,
        uses: Uses::Unlimited,
        addresses: 1,
    });
    let because = "may not ask this";
    let wishes = [
        Wish::new("the identity", because, Request::Identity),
        Wish::new("a charter", because, Request::SignCharter(charter.clone())),
        Wish::new("an invite", because, Request::CreateInvite(invite)),
        Wish::new("a WireGuard certificate", because, Request::CertifyWireGuard { network, rotate: false }),
    ];
    let others = records(&me, &charter, &certificate)
        .into_iter()
        .chain(words(&me, &charter))
        .chain(joins(&me, &charter, &grant));
    let mut attempts = vec![connect_as(&socket, Role::Meshd, "to be taken for meshd").await];
    for each in wishes.into_iter().chain(others.map(|wish| Wish { because, ..wish })) {
        attempts.push(wish(&mut keyd, each, &[]).await);
    }
    attempts.extend(sessions(&socket, Role::Tund, &mut keyd, to_itself).await.into_iter().map(|attempt| {
        if attempt.because == REFUSED { attempt } else { Attempt { because: because.to_owned(), ..attempt } }
    }));
    print(&attempts)
}

/// In `meshd`'s place: wants traffic to be encrypted for keys that nobody who may has certified for their addresses. Prints
/// an [`Attempt`] for each. The node has founded `network` and is alone in it.
///
/// # Errors
/// If a daemon does not let it in as `meshd`, or `tund` has a peer afterwards.
pub async fn ask_tund_as_meshd(run: &Path, network: &str, to_itself: &ToItself) -> Result<(), Failure> {
    let mut keyd = Client::<KeydApi>::connect(&socket(run, Role::Keyd, Role::Meshd), Role::Meshd)
        .await
        .map_err(failed)?;
    let me = keyd.call(GetIdentity).await.map_err(failed)?;
    let mut tund = Client::<TundApi>::connect(&socket(run, Role::Tund, Role::Meshd), Role::Meshd)
        .await
        .map_err(failed)?;
    let network: NetworkId = network.parse().map_err(failed)?;
    // The founder's chain: network, founder and no certificate.
    let founder = Chain::from_bytes(&[network.0.as_slice(), &me.node.0, &[0]].concat()).map_err(failed)?;
    let theirs = charter(intruder());
    let grant = Delegation {
        subject: intruder(),
        invite: InviteId([7; 16]),
        ranges: addresses(32),
        serial: 1,
        since: 1,
        replaces: true,
        issued_at: now(),
    };
    // By the intruder in the founder's place: there is nobody else to sign it.
    let forged = founder.appended(&signed(founder.certificate(grant)));
    let records = [
        ("a member whom the founder has not certified", "not its signer's", forged.clone()),
        ("the founder's own address", "belongs to another node", founder.clone()),
        ("a member of another network", "not its signer's", Chain::founder(&theirs)),
    ];
    let mut attempts = Vec::new();
    for (what, because, chain) in records {
        let record = record(chain, intruder());
        let taken = tund.call(tund::TellMembers(vec![tund::Member { record, keepalive: 1 }])).await;
        attempts.push(not_taken(what, because, taken));
    }
    // In this node's name, so that its packets to itself go out.
    let own = tund::Member { record: record(founder.clone(), me.node), keepalive: 1 };
    attempts.push(not_taken("this node itself", "own", tund.call(tund::TellMembers(vec![own])).await));
    let revocation =
        signed(Revocation { issuer: intruder(), target: Target::Certificate(forged), issued_at: now() });
    let ending = tund::Ending::Revocation(Box::new(revocation));
    let taken = tund.call(tund::TellEndings(vec![ending])).await;
    attempts.push(not_taken("the end of a membership", "only the network's founder", taken));

    let mut ask = async |what: &str, because: &str, request, fds: &[BorrowedFd<'_>]| {
        let refusal = tund.call_with_fds(request, fds).await.err().map(|error| error.to_string());
        attempts.push(Attempt { what: what.to_owned(), because: because.to_owned(), refusal });
    };
    let other = tund::NewInterface { name: "i2plan0".to_owned(), network: theirs.network(), mtu: 1280 };
    let because = "has not signed a record for this network";
    ask("an interface in another network", because, tund::Request::Configure(other, 1), &[]).await;
    let named = tund::NewInterface { name: "wg0".to_owned(), network: theirs.network(), mtu: 1280 };
    let because = "tund makes none but i2plan0";
    ask("an interface of another name", because, tund::Request::Configure(named, 1), &[]).await;
    let session = tund::Session { id: "intruder".to_owned(), destination: elsewhere() };
    let [stream, datagrams] = to_itself.fds();
    let request = tund::Request::AttachSession(session);
    ask("what it sends", "connected to itself", request.clone(), &[datagrams, stream]).await;
    let listening = std::net::UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    // The connection is looked at first, and the intruder has none to the bridge.
    ask("what it sends, elsewhere", "connected to itself", request, &[listening.as_fd(), stream]).await;

    let stats = tund.call(tund::GetStats).await.map_err(failed)?;
    if !stats.peers.is_empty() || stats.interface.is_none() {
        return Err(Failure::new(format!("tund has been talked into something: {stats:?}")));
    }
    print(&attempts)
}

/// The intruder's record, with its own keys, as that of a node.
fn record(chain: Chain, node: NodeId) -> Box<Signed<Record>> {
    let network = chain.network();
    let certificate = WireGuardCertificate {
        network,
        node,
        key: WireGuardSecret::new(&Zeroizing::new([9; 32])).proven(network, node),
        epoch: 1,
        not_before: now(),
        not_after: now() + 3600,
    };
    let proven = |role| {
        let proof = DestinationProof { network, node, role, destination: elsewhere() };
        ProvenDestination { destination: elsewhere(), proof: proof.sign(&intruder_key()) }
    };
    Box::new(signed(Record {
        node,
        sequence: u64::MAX,
        issued_at: now(),
        name: "intruder".parse().expect("a name"),
        control: proven(DestinationRole::Primary),
        primary: None,
        takes_reports: false,
        data: proven(DestinationRole::Data),
        wireguard: signed(certificate),
        chain,
    }))
}

fn not_taken(what: &str, because: &str, result: Result<tund::Taken, ClientError>) -> Attempt {
    let refusal = match result {
        Ok(taken) => taken.reason,
        Err(error) => Some(error.to_string()),
    };
    Attempt { what: what.to_owned(), because: because.to_owned(), refusal }
}
