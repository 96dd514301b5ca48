//! What the tunnel is told of a peer.

use std::net::{Ipv4Addr, Ipv6Addr};

use i2plan_proto::destination::Destination;
use i2plan_proto::identity::NodeId;

/// Peers at once: all the members that `meshd` remembers at most. How many of them have a tunnel is another limit
/// ([`Tunnel::set_limit`](super::Tunnel::set_limit)).
pub const MAX_PEERS: usize = 10_000;

/// A member with whom there may be a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The member.
    pub node: NodeId,
    /// Its certified WireGuard key.
    pub public_key: [u8; 32],
    /// Where it takes packets.
    pub endpoint: Destination,
    /// The IPv4 address that it may use.
    pub ipv4: Ipv4Addr,
    /// The IPv6 address that it may use.
    pub ipv6: Ipv6Addr,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
    /// Whether it sends and takes path reports.
    pub takes_reports: bool,
}
