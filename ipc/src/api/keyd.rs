//! What may be asked of `keyd`, and by whom.

use std::os::fd::OwnedFd;
use std::time::Duration;

use i2plan_proto::address::{AddressRanges, Ipv4Subnet};
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NetworkId, NodeId, Signature, Signed};
use i2plan_proto::invite::{InviteGrant, Uses};
use i2plan_proto::join::{JoinBody, JoinRequest};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{CertificateId, Chain, Charter, Membership, NetworkName};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::{Resignation, Revocation, Revoked};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use serde::{Deserialize, Serialize};

use super::order::{Executed, Order, OrderToken, PreparedOrder};
use super::{Api, DEADLINE, Terms, take};
use crate::hello::{Landlock, Role};
use crate::secret::{SecretKey, SecretText};
use crate::version::Version;

/// How long `keyd` lets the connector wait for a dial request before it says that there is none.
pub const ORDER_WAIT: Duration = Duration::from_secs(30);

/// `keyd`.
#[derive(Debug)]
pub enum KeydApi {}

requests! {
    /// A request to `keyd`.
    KeydApi => Reply, by Meshd;

    Query {
        /// Who this node is.
        Identity as GetIdentity -> Identity { Reply::Identity(identity) => identity };
        /// Who the connector is; none if it is not connected.
        Connector as GetConnector -> Option<Connector> { Reply::Connector(connector) => connector };
        /// The network that this node is pinned to, and its chain there; none if it is in no network as far as keyd
        /// knows.
        Pinned as GetPinned -> Option<Box<PinnedNetwork>> { Reply::Pinned(pinned) => pinned };
        /// What `tund` verifies by, for a network, which must be the one that this node is in.
        TrustAnchor as GetTrustAnchor(network: NetworkId) -> TrustAnchor {
            Reply::TrustAnchor(anchor) => *anchor
        } by Tund;
        /// Hand out the WireGuard key of an epoch for a network, which must be the one that this node is in: of the
        /// newest epoch in force, or of the one before it for ten minutes. It is the one secret that leaves keyd, and
        /// `tund` the one process that may have it.
        LeaseWireGuard {
            /// The network.
            network: NetworkId,
            /// The epoch.
            epoch: u32,
        } -> WireGuardLease { Reply::WireGuardLease(lease) => *lease } by Tund;
        /// Hand out the WireGuard key of the static interface that this keyd is for.
        LeaseStatic as LeaseStaticKey -> SecretKey { Reply::StaticKey(key) => key } by Tund;
    }

    Command {
        /// By the connector: the dial request with this number is carried out. The TCP connection and the UDP socket
        /// come with this message, in this order.
        Connected(order: u64) -> () { Reply::Done => () } by Connector passes 2;
        /// By the connector: a dial request cannot be carried out.
        NotConnected for NotConnected(failure: NotConnected) -> () { Reply::Done => () } by Connector;
        /// Sign the charter of a network that this node founds.
        SignCharter(charter: Charter) -> Signature { Reply::Signature(signature) => signature };
        /// Make and sign this node's record, and prove the destinations that it names.
        SignRecord(record: Box<NewRecord>) -> Box<Signed<Record>> { Reply::Record(record) => record };
        /// Make and sign a liveness message of this node.
        SignPulse as SignLivenessMessage {
            /// The network.
            network: NetworkId,
            /// What it says.
            life: Presence,
        } -> Signed<LivenessMessage> { Reply::Liveness(message) => message };
        /// Sign that this node cannot reach another.
        SignAccusation as SignSuspicion(suspicion: Suspicion) -> Signature { Reply::Signature(signature) => signature };
        /// Sign a request to join a network.
        SignJoin {
            /// The request.
            body: Box<JoinBody>,
            /// The destination that it names.
            control: Destination,
        } -> Signature { Reply::Signature(signature) => signature };
        /// Make an invite: its code, and the grant to present when somebody uses it.
        CreateInvite for CreateInvite(invite: CreateInvite) -> (SecretText, Signed<InviteGrant>) {
            Reply::Invite { code, grant } => (code, grant)
        };
        /// Certify the holder of an invite that this node made.
        CertifyMember for CertifyMember(certify: Box<CertifyMember>) -> Signed<Membership> {
            Reply::Membership(certificate) => certificate
        };
        /// Certify a member again, which this node has certified, with more addresses; none if it takes an order.
        ExtendMember for ExtendMember(extend: Box<ExtendMember>) -> Option<Signed<Membership>> {
            Reply::Membership(certificate) => Some(certificate),
            Reply::NeedsOrder => None,
        };
        /// Take note of a signed statement that others have told: one in this node's name, or the end of a membership.
        Note(statement: Statement) -> Noted { Reply::Noted(noted) => noted };
        /// Take note of certificates by this node that others hold, as many as fit, because keyd's memory of them was
        /// lost. That no more follow says an order ([`Order::Recover`]). Answered with how many certificates keyd
        /// remembers, and whether these are all.
        Recover(certificates: Vec<Signed<Membership>>) -> (u64, bool) {
            Reply::Recovered { known, complete } => (known, complete)
        };
        /// By an administrator: verify an order, and say what it will sign. It takes the place of one that waits on
        /// this connection.
        PrepareOrder(order: Box<Order>) -> PreparedOrder { Reply::OrderPrepared(order) => *order } by Client;
        /// By an administrator: records of members below the target of the order that waits on this connection.
        CountBelow(records: Vec<Signed<Record>>) -> PreparedOrder {
            Reply::OrderPrepared(order) => *order
        } by Client;
        /// By an administrator: sign what the order with this token is about.
        ConfirmOrder(token: OrderToken) -> Executed { Reply::OrderExecuted(executed) => *executed } by Client;
        /// Certify a WireGuard key for a network.
        CertifyWireGuard {
            /// The network.
            network: NetworkId,
            /// Begin a new epoch, with a new key. Without it the newest key that is in force is certified again.
            rotate: bool,
        } -> Signed<WireGuardCertificate> { Reply::WireGuardCertificate(certificate) => certificate };
    }

    Poll {
        /// Open a SAM session under one of the node's destinations, on a connection that the connector makes. The TCP
        /// connection and the UDP socket come with the reply, in this order.
        ///
        /// The kind of the error says what is in the way: [`NotFound`](crate::ErrorKind::NotFound), nothing takes connections
        /// at the bridge's address; [`Conflict`](crate::ErrorKind::Conflict), the router holds on to an earlier session under
        /// the destination or the id.
        // A router builds tunnels before it answers. i2pd has been seen to take over 20 s, and one that has just begun can
        // take ten minutes: to ask again before that throws away what it has begun.
        OpenSession for OpenSession(open: OpenSession) -> (SessionOpened, [OwnedFd; 2]) {
            Reply::SessionOpened(opened) => (opened, take(fds)?)
        } returns fds within 1200;
        /// By the connector: wait for a dial request, to connect to the SAM bridge. Answered with its number, or none
        /// if there is none within [`ORDER_WAIT`].
        AwaitOrder(connector: Connector) -> Option<u64> {
            Reply::Order(order) => Some(order),
            Reply::Done => None,
        } by Connector within ORDER_WAIT.as_secs() + DEADLINE;
    }
}

/// A reply of `keyd`. To which requests stands with these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Who this node is.
    Identity(Identity),
    /// A session is open.
    SessionOpened(SessionOpened),
    /// Who the connector is; none if it is not connected.
    Connector(Option<Connector>),
    /// A dial request to the connector: to connect to the SAM bridge, and say so with this number.
    Order(u64),
    /// It is done, or there is no dial request.
    Done,
    /// A record, with its number and the proofs of its destinations.
    Record(Box<Signed<Record>>),
    /// A liveness message of this node, with its number.
    #[serde(rename = "Pulse")]
    Liveness(Signed<LivenessMessage>),
    /// The signature of what was to be signed.
    Signature(Signature),
    /// An invite.
    Invite {
        /// The invite code.
        code: SecretText,
        /// The grant to present when somebody uses it.
        grant: Signed<InviteGrant>,
    },
    /// A certificate.
    Membership(Signed<Membership>),
    /// It takes an order.
    NeedsOrder,
    /// The network that this node is in, if it is in one as far as keyd knows.
    Pinned(Option<Box<PinnedNetwork>>),
    /// An order waits to be confirmed.
    OrderPrepared(Box<PreparedOrder>),
    /// What was done by an order.
    OrderExecuted(Box<Executed>),
    /// What became of a statement.
    Noted(Noted),
    /// Certificates were noted.
    Recovered {
        /// How many certificates keyd remembers now.
        known: u64,
        /// Whether these are all of them ([`Identity::remembers`]).
        complete: bool,
    },
    /// The certificate of a WireGuard key.
    WireGuardCertificate(Signed<WireGuardCertificate>),
    /// What `tund` verifies by.
    TrustAnchor(Box<TrustAnchor>),
    /// A WireGuard key.
    WireGuardLease(Box<WireGuardLease>),
    /// The WireGuard key of a static interface.
    StaticKey(SecretKey),
}

/// The public half of a node's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The identity key.
    pub node: NodeId,
    /// The destination for control messages.
    pub control: Destination,
    /// Whether the keys are sealed with a passphrase where they are stored.
    pub sealed: bool,
    /// Whether keyd remembers which addresses this node has delegated. If not, its memory was lost or damaged, and it
    /// certifies no new members until that is completed ([`Order::Recover`]).
    pub remembers: bool,
}

/// The network that keyd signs for, and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedNetwork {
    /// Its charter.
    pub charter: Charter,
    /// This node's chain.
    pub chain: Chain,
}

/// A record to be made. Its number and time come from keyd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRecord {
    /// The network.
    pub charter: Charter,
    /// The node's chain.
    pub chain: Chain,
    /// The node's name.
    pub name: NodeName,
    /// Where it takes control messages: its control destination, or one in place of that.
    pub control: Destination,
    /// Where it takes WireGuard packets.
    pub data: Destination,
    /// The certificate of its WireGuard key.
    pub wireguard: Signed<WireGuardCertificate>,
}

/// A signed statement that others have told this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statement {
    /// A record of this node.
    Record(Box<Signed<Record>>),
    /// A liveness message of this node.
    #[serde(rename = "Pulse")]
    Liveness(Signed<LivenessMessage>),
    /// A certificate by this node.
    Certificate(Box<Signed<Membership>>),
    /// The end of a membership below or above this node.
    Revocation(Box<Signed<Revocation>>),
    /// The end of a membership below or above this node, or of its own.
    Resignation(Box<Signed<Resignation>>),
}

/// What keyd makes of a [`Statement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Noted {
    /// It is known, or changes nothing.
    Known,
    /// It was taken in.
    News,
    /// This node's keys have signed it, but this keyd has not given out its number: its memory was restored from a
    /// backup, or another machine uses the same keys. keyd goes on above that number.
    Foreign,
}

/// Which of the node's destinations a session is for; it decides the session's style.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// `STYLE=DATAGRAM`: repliable, the router authenticates the sender. Under the node's one control
    /// destination.
    Control,
    /// `STYLE=RAW`: WireGuard authenticates its packets itself. Under a new destination every time: some routers
    /// hold on to what they know of an old one, be it another's end-to-end session or their own client, for
    /// minutes after it has ended.
    Data,
    /// As `Control`, but under a new, fallback destination while others, or rather their routers, cannot reach the
    /// primary one, or answer what comes from there. Also for a static interface.
    #[serde(rename = "substitute")]
    Fallback,
    /// `STYLE=RAW`, for a static interface, under its permanent destination: the primary one of this key store, which has
    /// no mesh.
    StaticRaw,
    /// The same with `STYLE=DATAGRAM`.
    StaticRepliable,
}

/// A SAM session to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Which destination.
    pub kind: SessionKind,
    /// The session's id: 1 to 64 letters, digits or hyphens, new for every attempt.
    pub id: String,
    /// Hops of the tunnels in each direction that are wanted, 0 to 7. They get no fewer than `keyd` is configured with.
    pub tunnel_length: u8,
    /// How many hops more a tunnel may have at random, -2 to 2: if negative, as many more or fewer. `keyd` does not let it
    /// fall below the length that it is configured with.
    pub tunnel_length_variance: i8,
    /// Parallel tunnels in each direction, 1 to 16.
    pub tunnel_quantity: u8,
    /// Tunnels in reserve in each direction, 0 to 16.
    pub tunnel_backup_quantity: u8,
    /// Have datagrams come on the TCP connection: the bridge forwards none by UDP.
    pub over_tcp: bool,
}

/// A SAM session that is open, as long as its TCP connection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The destination that it is under.
    pub destination: Destination,
    /// The version of SAM that the bridge speaks.
    pub version: String,
    /// Hops that the tunnels of every session have at least, as `keyd` is configured.
    pub min_tunnel_length: u8,
}

/// What the connector says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connector {
    /// Its process id.
    pub pid: u32,
    /// Its build.
    pub version: Version,
    /// The part of its sandbox that the kernel does not report.
    pub landlock: Landlock,
}

/// A dial request that the connector cannot carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotConnected {
    /// The dial request's number.
    pub order: u64,
    /// Why not.
    pub reason: DialError,
}

/// Why the connector has no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialError {
    /// An error of the system, by its number (errno(3)).
    System(i32),
    /// The bridge did not answer in time.
    TimedOut,
    /// The host name of the bridge has no address.
    Unresolved,
}

/// An invite to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateInvite {
    /// The network.
    pub network: NetworkId,
    /// Its name.
    pub name: NetworkName,
    /// Its subnet.
    pub subnet: Ipv4Subnet,
    /// Unix time in seconds.
    pub expires_at: u64,
    /// How often it may be used.
    pub uses: Uses,
    /// Addresses for each of its users, a power of two.
    pub addresses: u32,
}

/// A request to join, the grant of the invite that it uses, and what the certificate is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifyMember {
    /// The grant that was made with the invite.
    pub grant: Signed<InviteGrant>,
    /// The joiner's request.
    pub request: JoinRequest,
    /// This node's own certificate.
    pub parent: CertificateId,
    /// The addresses to delegate.
    pub ranges: AddressRanges,
    /// Earlier certificates for these addresses are void, also those that keyd does not remember.
    pub replaces: bool,
}

/// More addresses for a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendMember {
    /// Its certificate until now, by this node.
    pub certificate: Signed<Membership>,
    /// This node's own certificate.
    pub parent: CertificateId,
    /// The addresses to delegate, those that it has before among them.
    pub ranges: AddressRanges,
}

/// A WireGuard private key, for `tund` alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuardLease {
    /// The X25519 private key.
    pub private_key: SecretKey,
    /// What `tund` verifies by, with the epoch of this key.
    pub anchor: TrustAnchor,
}

/// What `tund` holds against what it is told of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnchor {
    /// The newest epoch of this node's WireGuard key that is in force.
    pub epoch: u32,
    /// Until when its certificate is valid, Unix time in seconds.
    pub not_after: u64,
    /// The charter of the network that this node is in.
    pub charter: Charter,
    /// The chain of this node's newest record.
    pub chain: Chain,
    /// What this node has revoked, as far as `keyd` remembers it.
    pub revoked: Vec<Revoked>,
}

impl Api for KeydApi {
    type Request = Request;
    type Reply = Reply;
    const DAEMON: Role = Role::Keyd;
    const MAX_REQUEST: usize = 16 * 1024;
    // A lease with a thousand revocations of up to 64 bytes.
    const MAX_REPLY: usize = 96 * 1024;

    fn terms(request: &Request) -> Terms {
        request.terms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tund_gets_the_wireguard_key() {
        let lease = Request::LeaseWireGuard { network: NetworkId([0; 32]), epoch: 1 };
        assert!(KeydApi::allows(Role::Tund, &lease));
        for role in [Role::Meshd, Role::Client, Role::Keyd, Role::Connector] {
            assert!(!KeydApi::allows(role, &lease), "{role}");
        }
        assert!(!KeydApi::allows(Role::Tund, &Request::Identity));
        for role in [Role::Meshd, Role::Client, Role::Keyd, Role::Connector] {
            assert!(!KeydApi::allows(role, &Request::LeaseStatic), "{role}");
        }
    }

    #[test]
    fn orders_are_for_administrators_who_may_ask_nothing_else() {
        for request in [
            Request::PrepareOrder(Box::new(Order::Forget)),
            Request::CountBelow(Vec::new()),
            Request::ConfirmOrder(OrderToken([0; 16])),
        ] {
            assert!(KeydApi::allows(Role::Client, &request));
            for role in [Role::Meshd, Role::Tund, Role::Keyd, Role::Connector] {
                assert!(!KeydApi::allows(role, &request), "{role}");
            }
        }
        assert!(!KeydApi::allows(Role::Client, &Request::Identity));
        assert!(!KeydApi::allows(Role::Client, &Request::Pinned));
    }

    #[test]
    fn only_the_connector_passes_connections() {
        let open = Request::OpenSession(OpenSession {
            kind: SessionKind::Data,
            id: "x".to_owned(),
            tunnel_length: 1,
            tunnel_length_variance: 0,
            tunnel_quantity: 1,
            tunnel_backup_quantity: 0,
            over_tcp: false,
        });
        let connected = Request::Connected(1);
        for role in [Role::Meshd, Role::Tund, Role::Client, Role::Keyd] {
            assert!(!KeydApi::allows(role, &connected), "{role}");
        }
        assert!(KeydApi::allows(Role::Connector, &connected));
        for request in [open, Request::Identity, Request::Connector] {
            assert!(!KeydApi::allows(Role::Connector, &request));
            assert_eq!(request.terms().fds, 0);
        }
    }
}
