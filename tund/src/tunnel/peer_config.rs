//! What the tunnel is told of a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use i2plan_ipc::secret::SecretKey;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::endpoint::AnyDestination;
use i2plan_proto::identity::NodeId;

use crate::host::prefix::Prefix;

/// Peers at once: all the members that `meshd` remembers at most. How many of them have a tunnel is another limit
/// ([`Tunnel::set_limit`](super::Tunnel::set_limit)).
pub const MAX_PEERS: usize = 10_000;

/// A peer with whom there may be a tunnel: a member, or a static peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The member; of a static peer, its WireGuard key.
    pub node: NodeId,
    /// Its WireGuard key; a member's is certified.
    pub public_key: [u8; 32],
    /// The key that both have besides, if they do (WireGuard, section 5.2).
    pub preshared_key: Option<Box<SecretKey>>,
    /// Where it takes packets. Without it a peer that is there already stays where it is.
    pub endpoint: Option<PeerDestination>,
    /// The addresses that it may use.
    pub allowed_ips: AllowedIps,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
    /// Whether it sends and takes path reports.
    pub takes_reports: bool,
}

/// The destination of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerDestination {
    /// A member's, which is in its record.
    Member(Destination),
    /// A static peer's, of whatever make.
    Static(AnyDestination),
}

impl PeerDestination {
    /// I2P's base64 of it.
    #[must_use]
    pub fn to_base64(&self) -> String {
        match self {
            Self::Member(destination) => destination.to_base64(),
            Self::Static(destination) => destination.to_base64(),
        }
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> DestinationHash {
        match self {
            Self::Member(destination) => destination.hash(),
            Self::Static(destination) => destination.hash(),
        }
    }
}

impl From<Destination> for PeerDestination {
    fn from(destination: Destination) -> Self {
        Self::Member(destination)
    }
}

/// The addresses that a peer may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedIps {
    /// A member's two, for packets to this node alone.
    Member(Ipv4Addr, Ipv6Addr),
    /// The networks behind a static peer, for packets to whatever is behind this node.
    Networks(Vec<Prefix>),
}

impl AllowedIps {
    /// As prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        let (hosts, networks) = match self {
            Self::Member(ipv4, ipv6) => (Some([IpAddr::V4(*ipv4), IpAddr::V6(*ipv6)]), None),
            Self::Networks(networks) => (None, Some(networks)),
        };
        let hosts = hosts.into_iter().flatten().map(Prefix::host);
        hosts.chain(networks.into_iter().flatten().copied())
    }

    /// Whether this address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Member(ipv4, ipv6) => address == *ipv4 || address == *ipv6,
            Self::Networks(networks) => {
                networks.iter().any(|network| network.overlaps(&Prefix::host(address)))
            }
        }
    }

    /// Whether they are those of a static peer.
    #[must_use]
    pub fn is_static(&self) -> bool {
        matches!(self, Self::Networks(_))
    }
}
