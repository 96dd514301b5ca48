//! What may be asked of `meshd`: the control API of a node.
//!
//! The structures serialize to JSON as `i2planctl --json` prints them; fields are added, not renamed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use i2plan_proto::identity::Signed;
use i2plan_proto::record::Record;
use serde::{Deserialize, Serialize};

use super::order::{Executed, Order};
use super::tund::{Drops, Handshakes, InterfaceFault, Overlap};
use super::{Api, DEADLINE, Terms};
use crate::hello::{Landlock, Role};
use crate::histogram::Histogram;
use crate::secret::SecretText;
use crate::version::Version;
use crate::{ApiError, Remedy};

/// `meshd`.
#[derive(Debug)]
pub enum MeshdApi {}

requests! {
    /// A request to `meshd`.
    MeshdApi => Reply, by Client, sorted;

    Query {
        /// The state of the node.
        Status as GetStatus -> Status { Reply::Status(status) => *status };
        /// The other members, as far as this node knows them.
        Peers as ListPeers -> Vec<Peer> { Reply::Peers(peers) => peers };
        /// The public half of the node's keys.
        Keys as GetKeys -> Keys { Reply::Keys(keys) => *keys };
        /// Say whether this node could join a network: whether the configuration accepts its subnet, and the host uses
        /// none of its addresses otherwise.
        // It waits for tund.
        CheckNetwork {
            /// The network's id.
            network: String,
            /// Its subnet.
            subnet: String,
        } -> () { Reply::Acceptable => () } within 30;
        /// The invites that this node has made and remembers.
        ListInvites -> Vec<IssuedInvite> { Reply::Invites(invites) => invites };
        /// The routing table.
        Routes as ListRoutes -> Vec<Route> { Reply::Routes(routes) => routes };
        /// The bans in force.
        ListBans -> Vec<Ban> { Reply::Bans(bans) => bans };
        /// The configuration in force.
        Config as GetConfig -> Vec<Setting> { Reply::Config(settings) => settings };
        /// Ask a member for an answer over I2P, as the node does itself to see whether it is there. Answered with how many
        /// milliseconds its answer took.
        // It waits for a first lookup, too.
        Ping as PingMember {
            /// The member's node id.
            node_id: String,
        } -> u64 { Reply::Pinged { milliseconds } => milliseconds } within 30;
        /// What was counted since `meshd` started.
        Counters as GetCounters -> Counters { Reply::Counters(counters) => *counters };
    }

    Command {
        /// Make an invite; the first one founds the network.
        // Founding waits for the sessions, the interface does not.
        CreateInvite {
            /// Seconds from now until it expires.
            expires_in: u64,
            /// How often it may be used; none for without limit, zero is refused.
            max_uses: Option<u32>,
            /// Addresses for each of its users, a power of two; none for as many as is usual.
            addresses: Option<u32>,
            /// The subnet of the network that it founds; none for the one that is configured, or else one of which the
            /// host uses no address.
            subnet: Option<String>,
            /// The name of the network that it founds; none for one made of the founder's.
            name: Option<String>,
        } -> Answered<Invite> {
            Reply::Invite(invite) => Answered::Done(invite),
            Reply::ToOrder(proposed) => Answered::ToOrder(proposed),
        } within 30;
        /// Let the users of an invite join, however many addresses were delegated today: answered with the order.
        AllowInvite {
            /// The invite's id.
            id: String,
        } -> Box<ToOrder> { Reply::ToOrder(proposed) => proposed };
        /// Revoke an invite.
        // keyd signs, and others are told, which takes no answer; so it is for the following.
        RevokeInvite {
            /// The invite's id.
            id: String,
            /// Revoke the memberships of the nodes that have used it, too: answered with the order.
            with_members: bool,
        } -> Answered<IssuedInvite> {
            Reply::InviteRevoked(invite) => Answered::Done(invite),
            Reply::ToOrder(proposed) => Answered::ToOrder(proposed),
        } within 30;
        /// Delegate more addresses to a member that this node has invited.
        Grant as GrantAddresses {
            /// The member's node id.
            node_id: String,
            /// How many more, a power of two.
            addresses: u32,
        } -> Answered<Grant> {
            Reply::Granted(grant) => Answered::Done(grant),
            Reply::ToOrder(proposed) => Answered::ToOrder(proposed),
        } within 30;
        /// Revoke a member's certificate: it and the members below it are out of the network. Only the founder and the
        /// member's other inviters can. Answered with the order.
        Revoke {
            /// The member's node id.
            node_id: String,
        } -> Answered<Vec<String>> {
            Reply::Revoked(nodes) => Answered::Done(nodes),
            Reply::ToOrder(proposed) => Answered::ToOrder(proposed),
        } within 30;
        /// Leave the network: the others are told, and everything about it is forgotten, invites and bans too. The node
        /// keeps its identity; members that it has invited stay members. Answered with the order.
        Leave -> Answered<String> {
            Reply::Left(network) => Answered::Done(network),
            Reply::ToOrder(proposed) => Answered::ToOrder(proposed),
        } within 30;
        /// Have `keyd` complete its memory of what this node has delegated, which was lost, from what other members
        /// know. Answered with how many delegations it remembers.
        RecoverKeys -> Answered<u64> {
            Reply::KeysRecovered { delegations } => Answered::Done(delegations),
            Reply::ToOrder(proposed) => Answered::ToOrder(proposed),
        } within 30;
        /// Distribute what `keyd` has signed by an order, and act on it. Answered as the request that has led to the
        /// order.
        Enact(executed: Box<Executed>) -> Reply {
            reply @ (Reply::Invite(_) | Reply::InviteRevoked(_) | Reply::Granted(_) | Reply::Revoked(_) | Reply::Left(_)
                | Reply::KeysRecovered { .. }) => reply
        } within 30;
        /// Ban a member on this node; a ban that there is already is replaced.
        AddBan {
            /// The member's node id.
            node_id: String,
            /// Why, for people; at most 200 characters.
            description: String,
            /// Seconds; none for without end.
            duration: Option<u64>,
        } -> Ban { Reply::BanAdded(ban) => ban };
        /// End a ban.
        RemoveBan {
            /// The member's node id.
            node_id: String,
        } -> Ban { Reply::BanRemoved(ban) => ban };
        /// Begin a new epoch of the WireGuard key. Answered when the new key is published.
        RotateKey -> WireGuardKey { Reply::Rotated(key) => key } within 30;
        /// Join a network. Answered when the node is a member, or cannot become one.
        // The inviter has to be found and reached over I2P.
        Join {
            /// The invite code.
            invite: SecretText,
        } -> Network { Reply::Joined(network) => network } within 660;
        /// Change a key of the configuration until `meshd` ends, if it can be changed at run time. Answered with what is
        /// different now.
        SetConfig {
            /// The key, `section.key`.
            key: String,
            /// The value, as it would stand in the environment.
            value: String,
        } -> Vec<ConfigChange> { Reply::ConfigChanged(changes) => changes };
        /// Read the configuration file again, as SIGHUP does. Answered with what is different now.
        Reload -> Vec<ConfigChange> { Reply::ConfigChanged(changes) => changes };
    }

    Poll {
        /// What happened after a cursor in the event log. Answered as soon as something has, with what else happens in
        /// the next twentieth of a second, or after `wait` milliseconds with what there is then; the caller asks again
        /// with the cursor that the answer gives. So nobody who reads slowly makes `meshd` keep anything for them: it
        /// keeps the last [`EVENTS_KEPT`] events for all.
        Events as PollEvents {
            /// Where the caller is; none to begin now, without what went before.
            after: Option<Cursor>,
            /// Longest wait, milliseconds, at most [`MAX_EVENT_WAIT`].
            wait: u64,
            /// Whether the answer is to have the traffic up to then.
            traffic: bool,
        } -> Events { Reply::Events(events) => *events } within MAX_EVENT_WAIT / 1000 + DEADLINE;
    }
}

/// The answer to a request that may take an order. That is to be taken to `keyd`'s control socket, and what is signed
/// there brought back ([`Enact`]).
#[derive(Debug)]
pub enum Answered<T> {
    /// It is done.
    Done(T),
    /// It takes this order.
    ToOrder(Box<ToOrder>),
}

/// Events that are kept for those who have not asked for them yet.
pub const EVENTS_KEPT: usize = 1024;

/// Longest wait for an event, milliseconds.
pub const MAX_EVENT_WAIT: u64 = 30_000;

/// How long an invite is good for, unless it is said.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of uses of an invite from what users write: -1 for any number, which is none.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is 0 or out of range.
pub fn max_uses(uses: i64) -> Result<Option<u32>, ApiError> {
    let hint = "choose how many nodes may join with it, or -1 for any number";
    match uses {
        -1 => Ok(None),
        0 => Err(ApiError::invalid("an invite with 0 uses invites nobody").with_hint(hint)),
        _ => u32::try_from(uses)
            .map(Some)
            .map_err(|_| ApiError::invalid(format!("{uses} is no number of uses")).with_hint(hint)),
    }
}

/// A reply of `meshd`. To which requests stands with these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// The state of the node.
    Status(Box<Status>),
    /// The other members.
    Peers(Vec<Peer>),
    /// The public half of the node's keys.
    Keys(Box<Keys>),
    /// This node could join the network.
    Acceptable,
    /// An invite was made.
    Invite(Invite),
    /// The invites that there are.
    Invites(Vec<IssuedInvite>),
    /// It takes an order ([`Answered::ToOrder`]).
    ToOrder(Box<ToOrder>),
    /// An invite was revoked.
    InviteRevoked(IssuedInvite),
    /// A member holds more addresses.
    Granted(Grant),
    /// The routing table.
    Routes(Vec<Route>),
    /// A member has answered.
    Pinged {
        /// How long that took.
        milliseconds: u64,
    },
    /// The bans in force.
    Bans(Vec<Ban>),
    /// A member is banned.
    BanAdded(Ban),
    /// A ban was lifted.
    BanRemoved(Ban),
    /// The nodes known here that are no members any more.
    Revoked(Vec<String>),
    /// The id of the network that this node has left.
    Left(String),
    /// The new WireGuard key.
    Rotated(WireGuardKey),
    /// `keyd` remembers what this node has delegated.
    KeysRecovered {
        /// How many delegations `keyd` remembers now.
        delegations: u64,
    },
    /// The network that this node is a member of now.
    Joined(Network),
    /// What happened.
    Events(Box<Events>),
    /// The configuration in force.
    Config(Vec<Setting>),
    /// What is different now.
    ConfigChanged(Vec<ConfigChange>),
    /// What was counted.
    Counters(Box<Counters>),
}

/// An order, as `meshd` proposes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToOrder {
    /// The order with its evidence.
    pub order: Order,
    /// Records of members below its target, as many as `keyd` counts.
    pub below: Vec<Signed<Record>>,
    /// Whether the network was founded just now, for the invite that is to be ordered.
    pub founded: bool,
}

/// A position in a node's event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cursor {
    /// Names the run of `meshd`: after a restart another log begins.
    pub run: u64,
    /// Events of that run before this position.
    pub number: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Events {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Where to go on.
    pub next: Cursor,
    /// Something happened that is not among them: more than are kept, or `meshd` was started again. What the caller
    /// knows may be out of date, and is to be asked for anew.
    pub lost: bool,
    /// The traffic, if it was asked for.
    pub traffic: Option<Traffic>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its number in this run of `meshd`, from 0.
    pub number: u64,
    /// Unix time in milliseconds.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What may happen. Texts and numbers only: what is tagged like this goes through a form in which serde does not know
/// MessagePack's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// This node is a member of a network now.
    NetworkJoined {
        /// The network's id.
        network: String,
        /// Its name.
        name: String,
        /// This node's address.
        ipv4: String,
    },
    /// This node is no member any more.
    NetworkLeft {
        /// The network's id.
        network: String,
        /// Its membership was taken back by others.
        revoked: bool,
    },
    /// This node's own IPv4 address has changed, because another member has the better claim to the one before.
    AddressChanged {
        /// The address now.
        ipv4: String,
    },
    /// The node's keys have signed a statement that this node has not made: another machine uses them, or the node's state
    /// was restored from a backup.
    ForeignNumber {
        /// The number of the statement.
        number: u64,
    },
    /// A member is known that was not before.
    MemberAdded {
        /// The member.
        node_id: String,
        /// What it calls itself.
        name: String,
    },
    /// A member says something new of itself: name, address, key or destination.
    MemberChanged {
        /// The member.
        node_id: String,
        /// What it calls itself.
        name: String,
    },
    /// A member has left, was revoked or is forgotten.
    MemberRemoved {
        /// The member.
        node_id: String,
        /// What it called itself.
        name: String,
    },
    /// A member is there, or is not, in another way than before.
    #[serde(rename = "member_life")]
    MemberLiveness {
        /// The member.
        node_id: String,
        /// What it calls itself.
        name: String,
        /// How it is now.
        #[serde(rename = "life")]
        liveness: Liveness,
    },
    /// A WireGuard session with a member has begun that was not there before.
    TunnelUp {
        /// The member.
        node_id: String,
        /// What it calls itself.
        name: String,
    },
    /// The WireGuard session with a member has run out.
    TunnelDown {
        /// The member.
        node_id: String,
        /// What it calls itself.
        name: String,
    },
    /// An invite was made.
    InviteCreated {
        /// Its id.
        id: String,
    },
    /// An invite was used.
    InviteUsed {
        /// Its id.
        id: String,
        /// By whom.
        node_id: String,
    },
    /// An invite was revoked.
    InviteRevoked {
        /// Its id.
        id: String,
    },
    /// A member is banned.
    BanAdded {
        /// The member.
        node_id: String,
        /// What it calls itself, if it is known.
        name: Option<String>,
        /// Why.
        reason: BanReason,
    },
    /// A ban is over, or was lifted.
    BanRemoved {
        /// The member.
        node_id: String,
        /// What it calls itself, if it is known.
        name: Option<String>,
    },
    /// A SAM session is in another state.
    Session {
        /// Which.
        session: SessionName,
        /// Its state now.
        state: SessionState,
        /// Why it is not up, if that is known.
        error: Option<String>,
    },
    /// A SAM session that is up carries traffic again, or does not, as far as is known.
    SessionHealth {
        /// Which; [`SessionName::Control`] also stands for the fallback session in its place.
        session: SessionName,
        /// What is found, and done.
        health: SessionHealth,
        /// Seconds for which an answer has been due.
        silent: u64,
        /// Whether another session was opened in the place of the silent one.
        replaced: bool,
    },
    /// A daemon answers and does what it should again.
    DaemonUp {
        /// `keyd` or `tund`.
        daemon: String,
    },
    /// A daemon does not answer, or cannot do what it should.
    DaemonDown {
        /// `keyd` or `tund`.
        daemon: String,
        /// Why.
        error: String,
    },
    /// The tunnel interface is up.
    InterfaceUp {
        /// Its name.
        interface: String,
    },
    /// The host uses addresses of the tunnel interface otherwise, or has stopped to.
    HostOverlap {
        /// What overlaps; empty if nothing does any more.
        overlaps: Vec<String>,
    },
    /// Another program has changed the tunnel interface, or it is as it should be again.
    InterfaceChanged {
        /// How it differs from what it should be; empty if it does not.
        faults: Vec<String>,
    },
    /// This node has published a new WireGuard key.
    KeyRotated {
        /// Its epoch.
        epoch: u32,
    },
    /// The configuration has changed.
    ConfigChanged {
        /// The key.
        key: String,
        /// Its value now.
        value: String,
    },
    /// A step on the way into a network.
    JoinProgress {
        /// How far it is.
        step: JoinStep,
    },
    /// A line of `meshd`'s log, of level info or above.
    Log {
        /// `error`, `warn` or `info`.
        level: String,
        /// Where it comes from.
        target: String,
        /// What it says, fields included.
        message: String,
    },
}

impl EventKind {
    /// Its name, as it is encoded.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NetworkJoined { .. } => "network_joined",
            Self::NetworkLeft { .. } => "network_left",
            Self::AddressChanged { .. } => "address_changed",
            Self::ForeignNumber { .. } => "foreign_number",
            Self::MemberAdded { .. } => "member_added",
            Self::MemberChanged { .. } => "member_changed",
            Self::MemberRemoved { .. } => "member_removed",
            Self::MemberLiveness { .. } => "member_life",
            Self::TunnelUp { .. } => "tunnel_up",
            Self::TunnelDown { .. } => "tunnel_down",
            Self::InviteCreated { .. } => "invite_created",
            Self::InviteUsed { .. } => "invite_used",
            Self::InviteRevoked { .. } => "invite_revoked",
            Self::BanAdded { .. } => "ban_added",
            Self::BanRemoved { .. } => "ban_removed",
            Self::Session { .. } => "session",
            Self::SessionHealth { .. } => "session_health",
            Self::DaemonUp { .. } => "daemon_up",
            Self::DaemonDown { .. } => "daemon_down",
            Self::InterfaceUp { .. } => "interface_up",
            Self::InterfaceChanged { .. } => "interface_changed",
            Self::HostOverlap { .. } => "host_overlap",
            Self::KeyRotated { .. } => "key_rotated",
            Self::ConfigChanged { .. } => "config_changed",
            Self::JoinProgress { .. } => "join_progress",
            Self::Log { .. } => "log",
        }
    }
}

/// How far a node is on its way into a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JoinStep {
    /// The inviter's destination is being looked for.
    LookingUp,
    /// The request was sent to the inviter; repeated until it answers.
    Asking,
    /// The inviter has admitted this node.
    Admitted,
    /// The interface is up, with this node's addresses.
    Addressed,
    /// The first WireGuard session with a member has begun.
    Connected,
}

/// Which SAM session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionName {
    /// For control messages.
    Control,
    /// For control messages, under a fallback destination, while the primary one does not work.
    #[serde(rename = "substitute")]
    Fallback,
    /// For WireGuard packets.
    Data,
}

/// The traffic of a node since `tund` started; about a second old at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Traffic {
    /// Milliseconds since `meshd` started, when this was read.
    pub at: u64,
    /// The peers that there has been traffic with.
    pub peers: Vec<PeerTraffic>,
}

/// The traffic with one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PeerTraffic {
    /// The member.
    pub node_id: String,
    /// Bytes of WireGuard packets sent to it.
    pub tx_bytes: u64,
    /// Bytes of WireGuard packets received from it.
    pub rx_bytes: u64,
    /// Seconds since the last WireGuard handshake, if there was one.
    pub last_handshake: Option<u64>,
    /// Milliseconds to its last answer to a control message, if there was one.
    pub rtt: Option<u64>,
}

/// What was counted since `meshd` started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Unix time in seconds at which `meshd` started.
    pub started_at: u64,
    /// Control messages.
    pub messages: MessageCounts,
    /// WireGuard handshakes, since `tund` started.
    pub handshakes: Handshakes,
    /// Writes of the state to the disk.
    pub state_writes: WriteCounts,
    /// From the decision on a round of gossip to when its messages were passed on.
    pub rounds: Histogram,
    /// Passing a control message on: to the system, or to a queue for its connection or a look-up.
    pub sends: Histogram,
    /// How often each kind of event happened, by its name.
    pub events: Vec<(String, u64)>,
}

/// Control messages, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// Sent.
    pub sent: u64,
    /// Received from the router.
    pub received: u64,
    /// Of these, dropped because too many came.
    pub limited: u64,
    /// Pings sent to members, to see whether they are there.
    pub pings: u64,
    /// Comparisons of all that is known, begun with a member.
    pub comparisons: u64,
    /// News received from members and taken in.
    pub news: u64,
    /// Rounds in which this node has said of itself that it is there.
    pub announcements: u64,
    /// Pings sent to members that count as unreachable.
    pub reconnections: u64,
    /// Members that counted as unreachable and are there again.
    pub returns: u64,
    /// Messages in which this node has said that it stops or leaves.
    pub departures_sent: u64,
    /// News that a member stops or has left.
    pub departures_received: u64,
}

/// Writes of the state, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCounts {
    /// Attempts.
    pub count: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Microseconds that they took together.
    pub micros: u64,
}

/// One key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// The variable that sets it.
    pub variable: String,
    /// The value in force; none where there is none by default.
    pub value: Option<String>,
    /// Where that comes from.
    pub source: Source,
    /// Whether it can be changed without a restart.
    pub live: bool,
    /// A value that the file or the environment has now and that counts only after a restart.
    pub pending: Option<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// Nobody has set it.
    Default,
    /// The file.
    File {
        /// Its path.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// The environment.
    Environment,
    /// [`Request::SetConfig`].
    Runtime,
}

/// A key that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigChange {
    /// The key.
    pub key: String,
    /// Its value before.
    pub before: Option<String>,
    /// Its value now, or after a restart.
    pub after: Option<String>,
    /// It counts only after a restart.
    pub restart: bool,
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// The node's name.
    pub name: String,
    /// Its identity; none while `keyd` has not told it yet.
    pub node_id: Option<String>,
    /// Seconds since `meshd` started.
    pub uptime: u64,
    /// The configuration file that it reads, if that is there.
    pub config: String,
    /// The network, if it is a member of one.
    pub network: Option<Network>,
    /// The network that it was a member of until others ended that, if it is in none since.
    #[serde(default)]
    pub former: Option<Former>,
    /// The way to the I2P router.
    pub sam: Sam,
    /// The tunnel interface.
    pub tunnel: Tunnel,
    /// The daemons of this node.
    pub daemons: Vec<Daemon>,
    /// What is wrong with this node's keys.
    #[serde(default)]
    pub keys: Vec<KeysProblem>,
    /// If this is a static interface, which is in no network: how it is.
    #[serde(default)]
    pub static_interface: Option<StaticStatus>,
}

/// An interface with static peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaticStatus {
    /// The style of its datagrams: `repliable` or `raw`.
    pub style: String,
    /// Its destination, in I2P's base64; none while `keyd` has not told it yet.
    pub destination: Option<String>,
    /// Its peers.
    pub peers: Vec<StaticPeer>,
}

/// A static peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaticPeer {
    /// Its WireGuard public key, base64.
    pub public_key: String,
    /// Where it takes WireGuard packets, `….b32.i2p`; none while that is not known.
    pub endpoint: Option<String>,
    /// Whether the router has found that destination.
    pub resolved: bool,
    /// The networks whose addresses it may use.
    pub allowed_ips: Vec<String>,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
    /// Whether there is a preshared key.
    pub preshared_key: bool,
    /// Seconds since the last WireGuard handshake, if there was one.
    pub last_handshake: Option<u64>,
    /// Handshakes that were begun and not answered since its last sign of life.
    pub unanswered: u32,
    /// WireGuard packets sent to it.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// WireGuard packets received from it.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets dropped before they were sent.
    pub queue_drops: u64,
    /// Packets received and not accepted.
    pub rx_drops: u64,
}

/// Something that is wrong with a node's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "problem", rename_all = "snake_case")]
pub enum KeysProblem {
    /// `keyd` does not remember which addresses this node has delegated, and certifies no new members.
    MemoryLost,
    /// The keys have signed a statement whose number this node's `keyd` has not given out.
    Foreign {
        /// The number.
        number: u64,
        /// Seconds since it was seen.
        seen: u64,
    },
    /// `keyd` refuses a request again and again.
    Refused {
        /// What it does not do.
        request: String,
        /// How often in a row.
        count: u64,
        /// Why.
        error: String,
        /// What to do about it, where that is known.
        #[serde(default)]
        remedy: Option<Remedy>,
    },
}

/// A network whose membership this node has lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Former {
    /// The network's id.
    pub network: String,
    /// The node id of the member that revoked the membership; this node's own if it had left before its state was
    /// restored from a backup.
    pub revoked_by: String,
    /// The node id of the inviter of this node whose membership was revoked; none if it was this node's own.
    pub along_with: Option<String>,
    /// When, Unix time in seconds, by the clock of the one who did it.
    pub revoked_at: u64,
}

/// A network and this node's place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Network {
    /// The network's id.
    pub id: String,
    /// What its founder calls it.
    pub name: String,
    /// Whether this node founded it.
    pub founder: bool,
    /// The node ids of this node's inviters, the founder first.
    pub inviters: Vec<String>,
    /// The subnet of IPv4 addresses.
    pub subnet: String,
    /// This node's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// This node's IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The address ranges that this node holds.
    pub ranges: Vec<String>,
    /// The number of their addresses.
    pub addresses: u64,
    /// How many of them this node can still delegate.
    pub addresses_left: u64,
    /// The node id of the member that has delegated this node's addresses to another member as well, which keeps them:
    /// this node has to join again.
    pub displaced_by: Option<String>,
    /// Addresses that were seen to be delegated twice.
    pub conflicts: Vec<Conflict>,
    /// Known members, this node included.
    pub members: u64,
}

/// Addresses that a member has delegated twice, perhaps because its state was restored from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Conflict {
    /// The member's node id.
    pub node_id: String,
    /// What it calls itself, if that is known.
    pub name: Option<String>,
    /// The addresses.
    pub range: String,
}

/// Addresses that a member holds after more were delegated to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Grant {
    /// The member.
    pub node_id: String,
    /// The address ranges that it holds.
    pub ranges: Vec<String>,
    /// The number of their addresses.
    pub addresses: u64,
}

/// State of a SAM session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Not there; the next attempt comes by itself.
    Down,
    /// The router is building its tunnels.
    Opening,
    /// Open.
    Up,
}

/// The way to the I2P router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sam {
    /// The bridge's address, as it is configured: `host:port`.
    pub address: String,
    /// The SAM version that it speaks, once it has answered.
    pub version: Option<String>,
    /// The session for control messages.
    pub control: Session,
    /// The session under a fallback destination, while members do not reach this node through that one.
    #[serde(rename = "substitute")]
    pub fallback: Option<Session>,
    /// The session for WireGuard packets.
    pub data: Session,
}

/// One SAM session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    /// Whether it is open.
    pub state: SessionState,
    /// Its destination, `….b32.i2p`.
    pub destination: Option<String>,
    /// Why the last attempt failed, while it is not up.
    pub error: Option<String>,
    /// Whether it carries traffic, while it is up.
    #[serde(default)]
    pub health: SessionHealth,
    /// Seconds for which an answer has been due through it, unless its health is fine.
    #[serde(default)]
    pub silent: Option<u64>,
    /// Whether its datagrams go over the TCP connection to the bridge, because none come back by UDP.
    #[serde(default)]
    pub over_tcp: bool,
}

/// Whether a session that is up carries traffic, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SessionHealth {
    /// Nothing is amiss.
    #[default]
    Fine,
    /// An answer is due, and the session is being tested.
    Testing,
    /// It did not pass: another is being opened in its place, or is open and has not been heard through yet.
    Replacing,
}

/// The tunnel interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tunnel {
    /// The interface's name, once it is up.
    pub interface: Option<String>,
    /// Bytes.
    pub mtu: u16,
    /// The node's WireGuard public key, base64.
    pub public_key: Option<String>,
    /// Packets that were dropped and belong to no peer.
    pub drops: Option<Drops>,
    /// What the host uses the interface's addresses for otherwise.
    #[serde(default)]
    pub overlaps: Vec<Overlap>,
    /// The interface has no IPv6 address, because IPv6 is switched off on the host.
    #[serde(default)]
    pub without_ipv6: bool,
    /// How the interface differs from what tund has made, as the kernel has it.
    #[serde(default)]
    pub faults: Vec<InterfaceFault>,
    /// The interface should be up, and has been missing for a few seconds at most: it is being made.
    #[serde(default)]
    pub making: bool,
}

/// One of the node's daemons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Daemon {
    /// `keyd`, `meshd` or `tund`.
    pub name: String,
    /// Its process id, while it answers.
    pub pid: Option<u32>,
    /// Its build, while it answers.
    pub version: Option<Version>,
    /// How far it has restricted itself with Landlock, while it answers.
    pub landlock: Option<Landlock>,
    /// Why it does not answer, or what it cannot do.
    pub error: Option<String>,
    /// What to do about that, where the daemon knows.
    #[serde(default)]
    pub hint: Option<String>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Peer {
    /// Its identity.
    pub node_id: String,
    /// What it calls itself.
    pub name: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Its WireGuard public key, base64.
    pub public_key: String,
    /// Where it takes WireGuard packets, `….b32.i2p`.
    pub endpoint: String,
    /// The address ranges that it holds.
    pub ranges: Vec<String>,
    /// Invitations between the founder and it.
    pub depth: u64,
    /// The node ids of its inviters, the founder first.
    pub inviters: Vec<String>,
    /// When its inviter certified it, Unix time in seconds by the inviter's clock; of the founder, when it founded the network.
    pub member_since: u64,
    /// When it signed what it says of itself, Unix time by its own clock. If that is still to come, this node's
    /// clock is behind its.
    pub signed_at: u64,
    /// Whether it is there, as far as is known.
    #[serde(rename = "life")]
    pub liveness: Liveness,
    /// It is banned here.
    pub banned: bool,
    /// Seconds since its last control message reached this node, if one has.
    pub last_heard: Option<u64>,
    /// Milliseconds from the last control message that asked whether it is there to its answer.
    pub rtt: Option<u64>,
    /// Seconds since the last WireGuard handshake, if there was one.
    pub last_handshake: Option<u64>,
    /// WireGuard packets sent to it.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// WireGuard packets received from it.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets dropped before they were sent.
    pub queue_drops: u64,
    /// Packets received and not accepted.
    pub rx_drops: u64,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// It answers, or nobody has found otherwise.
    Present,
    /// Some could not reach it; it has not said yet that it is there.
    Suspected,
    /// Several could not reach it, and it has not said otherwise in time.
    Unreachable,
    /// It has said that it shuts down.
    Away,
}

/// A line of the routing table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// The IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The address ranges that the member holds.
    pub ranges: Vec<String>,
    /// The member.
    pub node_id: String,
    /// What it calls itself.
    pub name: String,
    /// 0 for this node itself, 1 if control messages go to the member directly, 2 if they need another between; none
    /// while it cannot be reached.
    pub hops: Option<u8>,
    /// The node id of the member between.
    pub via: Option<String>,
    /// Unix time in seconds at which it was last heard of, directly or through another; none if never, and for this node.
    pub last_seen: Option<u64>,
    /// Unix time in seconds at which this node learned of it; of itself, at which it became a member.
    pub created: u64,
}

/// Why a member is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BanReason {
    /// A user wanted it.
    Manual,
    /// It has signed statements that no honest member signs.
    InvalidMessages,
}

/// A ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ban {
    /// The member.
    pub node_id: String,
    /// What it calls itself, if that is known.
    pub name: Option<String>,
    /// Why.
    pub reason: BanReason,
    /// Why, for people.
    pub description: String,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds; none for without end.
    pub expires_at: Option<u64>,
    /// Offences counted before the ban; 0 for one by hand.
    pub strikes: u32,
}

/// How an invite stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum InviteState {
    /// It can be used.
    Open,
    /// Its time is over.
    Expired,
    /// It has been used as often as it may.
    UsedUp,
    /// It was revoked.
    Revoked,
}

/// An invite that this node made, without its secret, which is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IssuedInvite {
    /// Names the invite without giving it away.
    pub id: String,
    /// How it stands.
    pub state: InviteState,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Unix time in seconds.
    pub expires_at: u64,
    /// How often it may be used; none for without limit.
    pub max_uses: Option<u32>,
    /// Addresses for each of its users.
    pub addresses: u32,
    /// The node ids of those who used it; of an invite without limit the last thousand.
    pub used_by: Vec<String>,
}

/// The public half of a node's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Keys {
    /// The node's identity.
    pub node_id: String,
    /// Whether the keys are sealed with a passphrase where they are stored.
    pub sealed: bool,
    /// The destination for control messages.
    pub control: ControlDestination,
    /// The network's id, if the node is a member of one.
    pub network: Option<String>,
    /// The WireGuard key that the node has published, once it has.
    pub wireguard: Option<WireGuardKey>,
}

/// An I2P destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ControlDestination {
    /// Its hash, `….b32.i2p`.
    pub b32: String,
    /// All of it, in I2P's base64.
    pub base64: String,
}

/// A WireGuard key and what its certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WireGuardKey {
    /// Base64.
    pub public_key: String,
    /// The minute since 1970 in which its epoch began.
    pub epoch: u32,
    /// Unix time in seconds from which it may be used.
    pub not_before: u64,
    /// Unix time in seconds after which it may not.
    pub not_after: u64,
}

/// An invite that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Invite {
    /// The code to give to the joiner; a secret.
    pub invite: SecretText,
    /// Names the invite without giving it away.
    pub id: String,
    /// Unix time in seconds.
    pub expires_at: u64,
    /// How often it may be used; none for without limit.
    pub max_uses: Option<u32>,
    /// Addresses for each of its users.
    pub addresses: u32,
    /// The network's id.
    pub network: String,
    /// Whether the network was founded with this invite.
    pub founded: bool,
}

impl Api for MeshdApi {
    type Request = Request;
    type Reply = Reply;
    const DAEMON: Role = Role::Meshd;
    const MAX_REQUEST: usize = 64 * 1024;
    // Ten thousand peers at some 600 bytes each, with room.
    const MAX_REPLY: usize = 8 * 1024 * 1024;

    fn terms(request: &Request) -> Terms {
        request.terms()
    }

    fn allows(role: Role, request: &Request) -> bool {
        match role {
            Role::Named => matches!(request, Request::Status | Request::Peers | Request::Events { .. }),
            _ => request.terms().role == role,
        }
    }
}
