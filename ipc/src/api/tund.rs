//! What may be asked of `tund`. Only `meshd` may.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet, ipv6_of};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::endpoint::Endpoint;
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::prefix::Prefix;
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation};
use serde::{Deserialize, Serialize};

use super::{Api, Terms, take};
use crate::error::ApiError;
use crate::hello::Role;
use crate::histogram::Histogram;
use crate::secret::SecretKey;
use crate::version::Version;

/// What an interface may have for an MTU, bytes: from what IPv6 asks of a link (RFC 8200, section 5). SAM takes datagrams
/// of 31 KB, but emissary 0.4 cuts off what a program sends it beyond 8,192 bytes, with up to 600 of SAM's header line and
/// 32 of WireGuard among them.
pub const MTU: RangeInclusive<u16> = 1280..=7200;

/// What an MTU has to be, in words.
pub const MTU_EXPECTED: &str = "number of bytes from 1280 to 7200";

/// The MTU unless another is configured, bytes. A WireGuard message of it has 2832, which with what I2P adds fill three of
/// its messages of about 1 KB: one of 1280 would leave a quarter of two empty, and a longer one is lost with any of more.
pub const DEFAULT_MTU: u16 = 2800;

/// The same of an interface with static peers, whose other side may be a program that takes no longer ones.
pub const DEFAULT_STATIC_MTU: u16 = 1280;

/// Name of the tunnel interface, unless another is configured.
pub const INTERFACE: &str = "i2plan0";

/// Longest name of an interface, bytes (`IFNAMSIZ` and a NUL).
const MAX_INTERFACE_NAME: usize = 15;

/// Checks the name of a tunnel interface.
///
/// # Errors
/// What is expected.
pub fn check_interface_name(name: &str) -> Result<(), String> {
    let sane = (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if sane {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name for an interface: 1 to {MAX_INTERFACE_NAME} letters, digits, '-', '_' or '.' are expected"
    ))
}

/// `tund`.
#[derive(Debug)]
pub enum TundApi {}

requests! {
    /// A request to `tund`.
    TundApi => Reply, by Meshd;

    Query {
        /// Say whether a network with this subnet and id can have an interface on this host: whether the host uses none
        /// of its addresses otherwise. What the host uses is told of an overlap alone, so that `meshd` does not learn
        /// the host's addresses.
        CheckNetwork(subnet: Ipv4Subnet, network: Option<NetworkId>) -> () { Reply::Done => () };
        /// Find a subnet for a new network: this one, or the first of its [`Ipv4Subnet::alternatives`] of which the host
        /// uses no address.
        FindSubnet(wanted: Ipv4Subnet) -> Ipv4Subnet { Reply::Subnet(subnet) => subnet };
        /// Counters and states.
        Stats as GetStats -> Stats { Reply::Stats(stats) => *stats };
        /// Test the session for data: send a datagram to its own destination, and begin handshakes with these members, at
        /// most [`MAX_BATCH`]. Answered with whether the datagram has come back, after [`TEST_TIMEOUT`] at the latest; what
        /// members answer, the [`Stats`] tell.
        TestSession(members: Vec<NodeId>) -> bool { Reply::Tested(came) => came };
        /// The peers of a static interface.
        StaticPeers as GetStaticPeers -> Vec<StaticPeerReport> { Reply::StaticPeers(peers) => peers };
        /// Give duplicates of both sessions' descriptors back, so that a restarted `meshd` can go on with them: of the
        /// session for data, and of that for control messages.
        TakeSessions -> [Option<StoredSession>; 2] {
            Reply::Sessions { data, control } => [stored(data, fds)?, stored(control, fds)?]
        } returns fds;
    }

    Command {
        /// Bring up the interface, with the WireGuard key that `keyd` leases for the network and this epoch. Once done,
        /// repeating it changes nothing, with another epoch it changes the key, and for another interface the process
        /// ends, to be asked again when it has started again: the privilege to make one is gone.
        ///
        /// Its addresses follow from the charter and the chain that `keyd` gives with the key.
        Configure(interface: NewInterface, epoch: u32) -> Configured { Reply::Configured(configured) => configured };
        /// Send and receive through this SAM session: its UDP socket, which is connected to the SAM bridge, and a
        /// duplicate of its control connection come with the request, in this order. Replaces the session before, unless
        /// it is that one. Before the interface is up it is kept.
        AttachSession(session: Session) -> () { Reply::Done => () } passes 2;
        /// Keep the session for control messages open, by the same descriptors, for a `meshd` that restarts.
        KeepControl(session: Session) -> () { Reply::Done => () } passes 2;
        /// Have no interface any more: the node has left its network. The process ends, and the next has none.
        GiveUp -> () { Reply::Done => () };
        /// All members and endings are told from the start: those that are not told again before [`Request::EndSync`] go
        /// then.
        BeginSync -> () { Reply::Done => () };
        /// How memberships have ended, at most [`MAX_BATCH`].
        Endings as TellEndings(endings: Vec<Ending>) -> Taken { Reply::Taken(taken) => taken };
        /// The records of members, at most [`MAX_BATCH`]. `tund` verifies each before it uses anything of it. A tunnel
        /// with a member whose key and destination stay the same goes on.
        Members as TellMembers(members: Vec<Member>) -> Taken { Reply::Taken(taken) => taken };
        /// Other keepalives for members that are known already, seconds, 0 for none.
        Keepalives as SetKeepalives(keepalives: Vec<(NodeId, u16)>) -> () { Reply::Done => () };
        /// Remove these members.
        Remove as RemoveMembers(members: Vec<NodeId>) -> () { Reply::Done => () };
        /// All has been told that there is.
        EndSync -> () { Reply::Done => () };
        /// Keep to these limits. Before, `tund` keeps to its own.
        Limits for Limits(limits: Limits) -> () { Reply::Done => () };
        /// These members have given a sign of life: those that do not answer are called again soon.
        Alive as NoteAlive(members: Vec<NodeId>) -> () { Reply::Done => () };
        /// The router has found this destination, for static peers of which only its hash is known.
        Found as NoteDestination(destination: Endpoint) -> () { Reply::Done => () };
    }
}

/// A session that comes with its UDP socket and its control connection.
pub type StoredSession = (Session, [OwnedFd; 2]);

/// Gives a session its descriptors; none if there are too few.
fn stored(session: Option<Session>, fds: &mut Vec<OwnedFd>) -> Option<Option<StoredSession>> {
    match session {
        Some(session) => Some(Some((session, take(fds)?))),
        None => Some(None),
    }
}

/// A reply of `tund`. To which requests stands with these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The interface is up.
    Configured(Configured),
    /// It is done, or nothing is in the way.
    Done,
    /// What became of what was told.
    Taken(Taken),
    /// A subnet of which the host uses no address.
    Subnet(Ipv4Subnet),
    /// The sessions that there are. Their descriptors come with the reply, in the order of [`Request::AttachSession`] and
    /// first those for data.
    Sessions {
        /// The session for data.
        data: Option<Session>,
        /// The session for control messages.
        control: Option<Session>,
    },
    /// Counters and states.
    Stats(Box<Stats>),
    /// Whether the datagram of a test has come back.
    Tested(bool),
    /// The peers of a static interface.
    StaticPeers(Vec<StaticPeerReport>),
}

/// The name of the descriptor from which `tund` reads a [`StaticInterface`] (`LISTEN_FDNAMES`).
pub const STATIC_INTERFACE: &str = "static-interface";

/// Longest encoding of a [`StaticInterface`], bytes.
pub const MAX_STATIC_INTERFACE: usize = 1024 * 1024;

/// Peers of a static interface at most.
pub const MAX_STATIC_PEERS: usize = 1000;

/// An interface with static peers, as an administrator configures it. `tund` gets it from who starts it, and not from
/// `meshd`, which so cannot add a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticInterface {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its addresses, with the prefixes of their networks.
    pub addresses: Vec<Prefix>,
    /// Bytes.
    pub mtu: u16,
    /// The routing table that routes to the allowed IPs of its peers go to; none for no routes.
    pub table: Option<u32>,
    /// Its peers, at most [`MAX_STATIC_PEERS`].
    pub peers: Vec<StaticPeer>,
}

/// A peer that is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPeer {
    /// Its WireGuard key.
    pub public_key: [u8; 32],
    /// The preshared key, if there is one.
    pub preshared_key: Option<SecretKey>,
    /// Where it takes packets; none if that shows when it sends some.
    pub endpoint: Option<Endpoint>,
    /// The networks whose addresses it may use.
    pub allowed_ips: Vec<Prefix>,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
}

/// What `tund` knows of a static peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPeerReport {
    /// Where it takes packets, and whether the destination is known or is to be looked up by this hash.
    pub endpoint: Option<(DestinationHash, bool)>,
    /// The networks whose addresses it may use.
    pub allowed_ips: Vec<Prefix>,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
    /// Whether there is a preshared key.
    pub has_preshared_key: bool,
    /// Its counters; its WireGuard key stands in the place of a member's identity.
    pub stats: PeerStats,
}

/// The TUN interface that a node should have, without what follows from its membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewInterface {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The network, for which `keyd` leases the WireGuard key.
    pub network: NetworkId,
    /// Bytes.
    pub mtu: u16,
}

/// The TUN interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// The network, for which `keyd` leases the WireGuard key.
    pub network: NetworkId,
    /// IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Prefix length of the IPv4 subnet.
    pub ipv4_prefix: u8,
    /// IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Prefix length of the IPv6 network.
    pub ipv6_prefix: u8,
    /// Bytes.
    pub mtu: u16,
}

impl NewInterface {
    /// The interface of a member of the network of `charter` with this chain.
    #[must_use]
    pub fn of_member(self, charter: &Charter, chain: &Chain) -> Interface {
        let Self { name, network, mtu } = self;
        let ipv4 = chain.address(&charter.subnet);
        Interface {
            name,
            network,
            ipv4,
            ipv4_prefix: charter.subnet.prefix(),
            ipv6: ipv6_of(&network, ipv4),
            ipv6_prefix: IPV6_PREFIX,
            mtu,
        }
    }
}

impl Interface {
    /// What of it does not follow from the node's membership.
    #[must_use]
    pub fn to_new(&self) -> NewInterface {
        NewInterface { name: self.name.clone(), network: self.network, mtu: self.mtu }
    }
}

/// The interface is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The interface's name.
    pub interface: String,
    /// The public half of the leased WireGuard key.
    pub public_key: [u8; 32],
    /// The key's epoch.
    pub epoch: u32,
}

/// An open SAM session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id.
    pub id: String,
    /// Its destination, for a restarted `meshd` to know.
    pub destination: Destination,
}

/// How long a datagram to the session's own destination may take.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Members or endings in one request at most.
pub const MAX_BATCH: usize = 64;

/// A member, and what `meshd` decides about it. Key, addresses and destination are in its record, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its newest record.
    pub record: Box<Signed<Record>>,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
}

/// The end of a membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// By the founder or an inviter.
    Revocation(Box<Signed<Revocation>>),
    /// By the member.
    Resignation(Box<Signed<Resignation>>),
}

/// What became of what was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Members that were not admitted, to be told again later, and signers of endings that were not taken in.
    pub refused: Vec<NodeId>,
    /// Why, of the first of them.
    pub reason: Option<String>,
}

/// What `tund` keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `mesh.max_peers`: with how many peers there are tunnels at once.
    pub tunnels: u32,
    /// `mesh.drain_timeout`: how long packets that wait may still be sent when the process is to stop.
    pub drain: Duration,
}

/// What `tund` has seen since it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Its build.
    pub version: Version,
    /// The interface, if it is up.
    pub interface: Option<String>,
    /// Its MTU, bytes.
    pub mtu: Option<u16>,
    /// The public half of its WireGuard key.
    pub public_key: Option<[u8; 32]>,
    /// The id of the attached session.
    pub session: Option<String>,
    /// Milliseconds since a peer was last heard through that session. A handshake that it begins does not count: it says
    /// nothing of what was sent to it.
    pub heard: Option<u64>,
    /// Milliseconds since the first message that was sent after that and calls for an answer: a handshake, or a packet.
    pub unanswered: Option<u64>,
    /// Each peer that there is anything to tell of.
    pub peers: Vec<PeerStats>,
    /// What was dropped that belongs to no peer.
    pub drops: Drops,
    /// The handshakes with all peers.
    pub handshakes: Handshakes,
    /// What of the host overlaps the interface's prefixes; at most eight.
    pub overlaps: Vec<Overlap>,
    /// The interface has no IPv6 address, because IPv6 is switched off on the host.
    pub without_ipv6: bool,
    /// How the interface differs from what tund has made, as the kernel has it.
    pub faults: Vec<InterfaceFault>,
    /// Why no member is admitted, although those that were go on; or why the session was given up.
    pub problem: Option<ApiError>,
}

/// What another program has made of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum InterfaceFault {
    /// It is down.
    Down,
    /// It has another MTU.
    Mtu {
        /// Bytes.
        found: u32,
    },
    /// It has lost its IPv4 address.
    NoIpv4,
    /// It has lost its IPv6 address, and IPv6 is on.
    NoIpv6,
}

impl fmt::Display for InterfaceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("it is down"),
            Self::Mtu { found } => write!(f, "its MTU is {found}"),
            Self::NoIpv4 => f.write_str("it has lost its IPv4 address"),
            Self::NoIpv6 => f.write_str("it has lost its IPv6 address"),
        }
    }
}

/// A prefix of a mesh that has addresses in common with a network of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Overlap {
    /// The mesh's prefix.
    pub prefix: String,
    /// What the host uses the addresses for.
    pub kind: HostUse,
    /// The host's prefix.
    pub host_prefix: String,
    /// The host's interface; none where there is none, or it is not known.
    pub interface: Option<String>,
}

/// What a host uses addresses for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HostUse {
    /// An address of an interface, with its prefix.
    Address,
    /// A gateway.
    Gateway,
    /// A name server (resolv.conf(5)).
    Resolver,
    /// The SAM bridge.
    SamBridge,
    /// The destination of a route.
    Route,
    /// The destination of a route that drops packets: blackhole, unreachable or prohibit.
    NullRoute,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, kind, host_prefix, interface } = self;
        let interface = interface.as_deref().unwrap_or("an unknown interface");
        write!(f, "{prefix} overlaps ")?;
        match kind {
            HostUse::Address => write!(f, "the address {host_prefix} of {interface}"),
            HostUse::Gateway => write!(f, "the gateway {host_prefix} on {interface}"),
            HostUse::Resolver => write!(f, "the name server {host_prefix}"),
            HostUse::SamBridge => write!(f, "the SAM bridge {host_prefix}"),
            HostUse::Route => write!(f, "the route to {host_prefix} through {interface}"),
            HostUse::NullRoute => write!(f, "the route that drops packets to {host_prefix}"),
        }
    }
}

/// One peer's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStats {
    /// The member.
    pub node: NodeId,
    /// Seconds since the last completed handshake.
    pub last_handshake: Option<u64>,
    /// WireGuard packets sent, handshakes included.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Valid WireGuard packets received, handshakes included.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that waited too long or found the queue full and were dropped before they were sent.
    pub queue_drops: u64,
    /// Packets that came from the peer and were not accepted: failed decryption, replayed, or from an address
    /// that is not the peer's.
    pub rx_drops: u64,
    /// Handshakes that were begun and not answered since its last sign of life.
    pub unanswered: u32,
}

/// WireGuard handshakes, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshakes {
    /// Begun by this node.
    pub initiated: u64,
    /// Begun by peers, and answered.
    pub received: u64,
    /// Completed, whoever has begun them.
    pub succeeded: u64,
    /// Not completed before this node began another with the peer.
    pub failed: u64,
    /// From a message of this node to the answer: the response, or the packet that confirms that.
    pub durations: Histogram,
}

/// Packets dropped that belong to no peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drops {
    /// From the interface: to an address that no peer has, or from one that is not this node's.
    pub no_route: u64,
    /// From the interface: no session is attached.
    pub no_session: u64,
    /// To the bridge: the socket would not take it.
    pub send_failed: u64,
    /// From the bridge: not WireGuard, or for no peer of ours.
    pub unknown: u64,
    /// From the bridge: a handshake over the rate limit.
    pub rate_limited: u64,
    /// From the bridge: a handshake of a peer that has to wait for a tunnel.
    pub no_tunnel: u64,
    /// To the interface: it would not take it.
    pub interface_full: u64,
}

impl Api for TundApi {
    type Request = Request;
    type Reply = Reply;
    const DAEMON: Role = Role::Tund;
    // A batch of the largest records, of 3 KB each.
    const MAX_REQUEST: usize = 256 * 1024;
    // The statistics of ten thousand peers.
    const MAX_REPLY: usize = 4 * 1024 * 1024;

    fn terms(request: &Request) -> Terms {
        request.terms()
    }
}
