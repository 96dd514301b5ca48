//! What may be asked of `meshd`: the control API of a node.
//!
//! The structures serialize to JSON as `i2planctl --json` prints them; fields are added, not renamed.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Api;
use super::tund::Drops;
use crate::hello::{Landlock, Role};
use crate::secret::SecretText;
use crate::version::Version;

/// `meshd`.
#[derive(Debug)]
pub enum MeshdApi {}

/// A request to `meshd`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// The state of the node.
    Status,
    /// The other members, as far as this node knows them.
    Peers,
    /// The public half of the node's keys.
    Keys,
    /// Make an invite; the first one founds the network.
    CreateInvite {
        /// Seconds from now until it expires.
        expires_in: u64,
        /// How often it may be used; none for without limit, zero is refused.
        max_uses: Option<u32>,
    },
    /// Begin a new epoch of the WireGuard key. Answered when the new key is published.
    RotateKey,
    /// Join a network. Answered when the node is a member, or cannot become one.
    Join {
        /// The invite code.
        invite: SecretText,
    },
}

/// A reply of `meshd`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Peers`].
    Peers(Vec<Peer>),
    /// To [`Request::Keys`].
    Keys(Box<Keys>),
    /// To [`Request::CreateInvite`].
    Invite(Invite),
    /// To [`Request::RotateKey`].
    Rotated(WireGuardKey),
    /// To [`Request::Join`].
    Joined(Network),
}

/// The state of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub name: String,
    /// Its identity; none while `keyd` has not told it yet.
    pub node_id: Option<String>,
    /// Seconds since `meshd` started.
    pub uptime: u64,
    /// The network, if it is a member of one.
    pub network: Option<Network>,
    /// The way to the I2P router.
    pub sam: Sam,
    /// The tunnel interface.
    pub tunnel: Tunnel,
    /// The daemons of this node.
    pub daemons: Vec<Daemon>,
}

/// A network and this node's place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network's id.
    pub id: String,
    /// Whether this node founded it.
    pub founder: bool,
    /// The subnet of IPv4 addresses.
    pub subnet: String,
    /// This node's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// This node's IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Known members, this node included.
    pub members: u64,
}

/// State of a SAM session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Sam {
    /// The bridge's address.
    pub address: SocketAddr,
    /// The SAM version that it speaks, once it has answered.
    pub version: Option<String>,
    /// The session for control messages.
    pub control: Session,
    /// The session for WireGuard packets.
    pub data: Session,
}

/// One SAM session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whether it is open.
    pub state: SessionState,
    /// Its destination, `….b32.i2p`.
    pub destination: Option<String>,
    /// Why the last attempt failed, while it is not up.
    pub error: Option<String>,
}

/// The tunnel interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The interface's name, once it is up.
    pub interface: Option<String>,
    /// Bytes.
    pub mtu: u16,
    /// The node's WireGuard public key, base64.
    pub public_key: Option<String>,
    /// Packets that were dropped and belong to no peer.
    pub drops: Option<Drops>,
}

/// One of the node's daemons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// `keyd`, `meshd` or `tund`.
    pub name: String,
    /// Its process id, while it answers.
    pub pid: Option<u32>,
    /// Its build, while it answers.
    pub version: Option<Version>,
    /// How far it has restricted itself with Landlock, while it answers.
    pub landlock: Option<Landlock>,
    /// Why it does not answer.
    pub error: Option<String>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Invitations between the founder and it.
    pub depth: u64,
    /// Seconds since its last control message reached this node, if one has.
    pub last_heard: Option<u64>,
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

/// The public half of a node's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct ControlDestination {
    /// Its hash, `….b32.i2p`.
    pub b32: String,
    /// All of it, in I2P's base64.
    pub base64: String,
}

/// A WireGuard key and what its certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Invite {
    /// The code to give to the joiner; a secret.
    pub invite: SecretText,
    /// Names the invite without giving it away.
    pub id: String,
    /// Unix time in seconds.
    pub expires_at: u64,
    /// How often it may be used; none for without limit.
    pub max_uses: Option<u32>,
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
    // A thousand peers at some 600 bytes each, with room.
    const MAX_REPLY: usize = 2 * 1024 * 1024;

    fn allows(role: Role, _request: &Request) -> bool {
        role == Role::Client
    }

    fn deadline(request: &Request) -> Duration {
        match request {
            // The inviter has to be found and reached over I2P.
            Request::Join { .. } => Duration::from_secs(180),
            // Founding waits for the sessions, the interface does not.
            Request::CreateInvite { .. } | Request::RotateKey => Duration::from_secs(30),
            Request::Status | Request::Peers | Request::Keys => Duration::from_secs(10),
        }
    }
}
