//! The peers of a static interface: what the administrator says of them, and where they are.
//!
//! Who may be a peer comes from who starts `tund`. `meshd` tells alone which destinations the router has found, and each
//! must be the one whose hash the administrator has named.

use std::collections::{BTreeMap, HashMap};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{MAX_STATIC_PEERS, StaticPeer};
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::endpoint::{AnyDestination, Endpoint};
use i2plan_proto::identity::NodeId;

use crate::fd_store::PeerPlace;
use crate::roster::Changes;
use crate::tunnel::{AllowedIps, PeerConfig, PeerDestination};

/// Longest destination that is used, bytes: more than any that there is, and less than the line before a datagram has
/// room for.
const MAX_DESTINATION: usize = 1024;

/// The peers, by their WireGuard keys.
#[derive(Debug, Default)]
pub struct StaticPeers {
    peers: BTreeMap<[u8; 32], StaticPeer>,
}

impl StaticPeers {
    /// Takes what is configured.
    ///
    /// # Errors
    /// [`i2plan_ipc::ErrorKind::Invalid`] if the peers cannot be told apart, or are too many.
    pub fn new(configured: Vec<StaticPeer>) -> Result<Self, ApiError> {
        if configured.len() > MAX_STATIC_PEERS {
            let count = configured.len();
            return Err(ApiError::invalid(format!(
                "{count} static peers are too many: {MAX_STATIC_PEERS} at most"
            )));
        }
        let mut peers = Self::default();
        for peer in configured {
            peers.check(&peer)?;
            if peers.peers.insert(peer.public_key, peer).is_some() {
                return Err(ApiError::invalid("two static peers have the same WireGuard key"));
            }
        }
        Ok(peers)
    }

    /// Checks that a peer has no address in common with another.
    fn check(&self, peer: &StaticPeer) -> Result<(), ApiError> {
        if matches!(&peer.endpoint, Some(Endpoint::Destination(endpoint)) if is_too_long(endpoint)) {
            return Err(ApiError::invalid("the destination of a static peer is too long"));
        }
        let others = self.peers.values().filter(|other| other.public_key != peer.public_key);
        let mut taken = others.flat_map(|other| &other.allowed_ips);
        let overlap = taken.find_map(|taken| {
            Some((taken, peer.allowed_ips.iter().find(|network| network.overlaps(taken))?))
        });
        match overlap {
            Some((taken, network)) => Err(ApiError::invalid(format!(
                "the allowed IPs {network} of a static peer overlap {taken} of another"
            ))),
            None => Ok(()),
        }
    }

    /// All of them, for a tunnel that has none yet: at these places, as far as they were elsewhere before.
    #[must_use]
    pub fn all(&self, places: Vec<PeerPlace>) -> Changes {
        let places: HashMap<_, _> = places.into_iter().collect();
        let set = self.peers.values().map(|peer| match places.get(&NodeId(peer.public_key)) {
            Some(Endpoint::Destination(place)) if !is_too_long(place) => config(peer, Some(place)),
            _ => config(peer, None),
        });
        Changes { set: set.collect(), removed: Vec::new() }
    }

    /// Where a peer is said to be.
    #[must_use]
    pub fn configured(&self, public_key: &[u8; 32]) -> Option<DestinationHash> {
        self.peers.get(public_key)?.endpoint.as_ref().map(Endpoint::hash)
    }

    /// The router has found a destination. Returns what changes for those who are said to be there by its hash.
    #[must_use]
    pub fn handle_found(&self, destination: &AnyDestination) -> Changes {
        let wanted = Endpoint::Hash(destination.hash());
        let found = self.peers.values().filter(|peer| peer.endpoint.as_ref() == Some(&wanted));
        let found = found.filter(|_| !is_too_long(destination));
        Changes { set: found.map(|peer| config(peer, Some(destination))).collect(), removed: Vec::new() }
    }
}

fn is_too_long(destination: &AnyDestination) -> bool {
    destination.as_i2p().len() > MAX_DESTINATION
}

/// What the tunnel is told of a peer, at this destination or where it is said to be.
fn config(peer: &StaticPeer, found: Option<&AnyDestination>) -> PeerConfig {
    let configured = match &peer.endpoint {
        Some(Endpoint::Destination(destination)) => Some(destination),
        _ => None,
    };
    PeerConfig {
        node: NodeId(peer.public_key),
        public_key: peer.public_key,
        preshared_key: peer.preshared_key.clone().map(Box::new),
        endpoint: found.or(configured).cloned().map(PeerDestination::Static),
        allowed_ips: AllowedIps::Networks(peer.allowed_ips.clone()),
        keepalive: peer.keepalive,
        // It may be another implementation.
        takes_reports: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(seed: u8, len: usize) -> AnyDestination {
        let certificate = [5, u8::try_from(len >> 8).unwrap(), u8::try_from(len & 255).unwrap(), 0, 7, 0, 0];
        AnyDestination::from_i2p(&[&[seed; 384][..], &certificate, &vec![0; len - 4]].concat()).unwrap()
    }

    fn peer(seed: u8, allowed: &str) -> StaticPeer {
        StaticPeer {
            public_key: [seed; 32],
            preshared_key: None,
            endpoint: Some(Endpoint::Hash(destination(seed, 4).hash())),
            allowed_ips: vec![allowed.parse().unwrap()],
            keepalive: 25,
        }
    }

    #[test]
    fn peers_that_cannot_be_told_apart_are_refused() {
        let refused = |peers: Vec<StaticPeer>| StaticPeers::new(peers).unwrap_err().message;
        assert!(StaticPeers::new(vec![peer(1, "10.0.1.0/24"), peer(2, "10.0.2.0/24")]).is_ok());
        assert!(refused(vec![peer(1, "10.0.1.0/24"), peer(2, "10.0.0.0/16")]).contains("overlap"));
        assert!(refused(vec![peer(1, "10.0.1.0/24"), peer(1, "10.0.2.0/24")]).contains("same WireGuard key"));
        let long =
            StaticPeer { endpoint: Some(Endpoint::Destination(destination(1, 900))), ..peer(1, "::/64") };
        assert!(refused(vec![long]).contains("too long"));
        let many = (0..=MAX_STATIC_PEERS).map(|_| StaticPeer { allowed_ips: Vec::new(), ..peer(1, "::/64") });
        assert!(refused(many.collect()).contains("too many"));
    }

    #[test]
    fn only_the_destination_that_was_named_is_used() {
        let peers = StaticPeers::new(vec![peer(1, "10.0.1.0/24"), peer(2, "10.0.2.0/24")]).unwrap();
        assert!(peers.all(Vec::new()).set.iter().all(|peer| peer.endpoint.is_none()));
        // One that was seen elsewhere before is sought there.
        let places = vec![(NodeId([2; 32]), Endpoint::Destination(destination(9, 4)))];
        let endpoints: Vec<_> = peers.all(places).set.into_iter().map(|peer| peer.endpoint).collect();
        assert_eq!(endpoints, [None, Some(PeerDestination::Static(destination(9, 4)))]);
        assert_eq!(peers.handle_found(&destination(3, 4)), Changes::default());
        let found = peers.handle_found(&destination(2, 4)).set;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].endpoint, Some(PeerDestination::Static(destination(2, 4))));
        assert_eq!(found[0].public_key, [2; 32]);
    }
}
