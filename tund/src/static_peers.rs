//! The peers of a static interface: what the administrator says of them, and where they are.
//!
//! Who may be a peer comes from root: who starts `tund`, and who uses its WireGuard socket. `meshd` tells alone which destinations the router has found, and each
//! must be the one whose hash the administrator has named.

use std::collections::{BTreeMap, HashMap, HashSet};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{MAX_STATIC_PEERS, StaticPeer};
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::endpoint::{AnyDestination, Endpoint};
use i2plan_proto::identity::NodeId;
use i2plan_proto::prefix::Prefix;

use crate::fd_store::PeerPlace;
use crate::roster::Changes;
use crate::tunnel::{AllowedIps, PeerConfig, PeerDestination};
use crate::uapi::codec::Change;

/// Longest destination that is used, bytes: more than any that there is, and less than the line before a datagram has
/// room for.
const MAX_DESTINATION: usize = 1024;

/// Allowed IPs of all peers together, at most.
const MAX_ALLOWED_IPS: usize = 16_384;

/// Seconds between keepalives of a peer that is added without a word of them, as in a file of wg-quick.
const DEFAULT_KEEPALIVE: u16 = 25;

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
        let mut peers = Self::default();
        for peer in configured {
            if peers.peers.insert(peer.public_key, peer).is_some() {
                return Err(ApiError::invalid("two static peers have the same WireGuard key"));
            }
        }
        peers.check()?;
        Ok(peers)
    }

    /// Checks that the peers can be told apart, and are not too many.
    fn check(&self) -> Result<(), ApiError> {
        if self.peers.len() > MAX_STATIC_PEERS {
            let count = self.peers.len();
            return Err(ApiError::invalid(format!(
                "{count} static peers are too many: {MAX_STATIC_PEERS} at most"
            )));
        }
        for peer in self.peers.values() {
            if matches!(&peer.endpoint, Some(Endpoint::Destination(endpoint)) if is_too_long(endpoint)) {
                return Err(ApiError::invalid("the destination of a static peer is too long"));
            }
        }
        let mut all: Vec<_> = self
            .peers
            .values()
            .flat_map(|peer| peer.allowed_ips.iter().map(|prefix| (*prefix, &peer.public_key)))
            .collect();
        if all.len() > MAX_ALLOWED_IPS {
            return Err(ApiError::invalid(format!(
                "the static peers have {} allowed IPs, which are too many: {MAX_ALLOWED_IPS} at most",
                all.len()
            )));
        }
        // Those of one network one after the other, the wider before the narrower.
        all.sort_by_key(|(prefix, _)| (prefix.address().is_ipv6(), prefix.leading_bits(), prefix.length()));
        // The networks around the present one, the widest first. All are of one peer.
        let mut around: Vec<(Prefix, &[u8; 32])> = Vec::new();
        for (prefix, peer) in all {
            while around.last().is_some_and(|(outer, _)| !outer.overlaps(&prefix)) {
                around.pop();
            }
            if let Some((taken, _)) = around.last().filter(|(_, of)| *of != peer) {
                return Err(ApiError::invalid(format!(
                    "the allowed IPs {prefix} of a static peer overlap {taken} of another"
                )));
            }
            around.push((prefix, peer));
        }
        Ok(())
    }

    /// The peers of an interface with this public key after a change, and what changes with it. Endpoints stay where
    /// nothing is said of them: `wg` cannot express one. As in WireGuard, an allowed IP goes from the peer that has it to
    /// the one that it is given to.
    ///
    /// # Errors
    /// [`i2plan_ipc::ErrorKind::Invalid`] if the peers cannot be so.
    pub fn changed(&self, change: Change, own_key: &[u8; 32]) -> Result<(Self, Changes), ApiError> {
        let mut peers = if change.replace_peers { BTreeMap::new() } else { self.peers.clone() };
        for change in change.peers {
            let key = change.public_key;
            if change.remove {
                peers.remove(&key);
                continue;
            }
            if !peers.contains_key(&key) && (change.update_only || key == *own_key) {
                // WireGuard ignores a peer with the interface's own key.
                continue;
            }
            let given: HashSet<_> = change.allowed_ips.iter().copied().collect();
            for other in peers.values_mut().filter(|other| other.public_key != key) {
                other.allowed_ips.retain(|prefix| !given.contains(prefix));
            }
            let peer = peers.entry(key).or_insert_with(|| StaticPeer {
                public_key: key,
                preshared_key: None,
                endpoint: self.peers.get(&key).and_then(|before| before.endpoint.clone()),
                allowed_ips: Vec::new(),
                keepalive: DEFAULT_KEEPALIVE,
            });
            if let Some(preshared_key) = change.preshared_key {
                peer.preshared_key = Some(preshared_key).filter(|key| key.0 != [0; 32]);
            }
            peer.endpoint = change.endpoint.or(peer.endpoint.take());
            peer.keepalive = change.keepalive.unwrap_or(peer.keepalive);
            if change.replace_allowed_ips {
                peer.allowed_ips.clear();
            }
            peer.allowed_ips.retain(|prefix| !given.contains(prefix));
            peer.allowed_ips.extend(change.allowed_ips);
            peer.allowed_ips.dedup();
        }
        let next = Self { peers };
        next.check()?;
        let changes = self.changes_to(&next);
        Ok((next, changes))
    }

    fn changes_to(&self, next: &Self) -> Changes {
        let mut changes = Changes::default();
        for (key, before) in &self.peers {
            let is_gone = match next.peers.get(key) {
                None => true,
                // It is not known yet where it is: what there is of it is of the place before.
                Some(peer) => {
                    peer.endpoint != before.endpoint && matches!(peer.endpoint, Some(Endpoint::Hash(_)))
                }
            };
            changes.removed.extend(is_gone.then_some(NodeId(*key)));
        }
        for (key, peer) in &next.peers {
            match self.peers.get(key) {
                Some(before) if before == peer => {}
                // It may have moved since.
                Some(before) if before.endpoint == peer.endpoint => {
                    changes.set.push(PeerConfig { endpoint: None, ..config(peer, None) });
                }
                _ => changes.set.push(config(peer, None)),
            }
        }
        changes
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
    use crate::uapi::codec::PeerChange;

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
        let key = |number: usize| {
            std::array::from_fn(|index| number.to_le_bytes().get(index).copied().unwrap_or(1))
        };
        let many = (0..=MAX_STATIC_PEERS).map(|number| StaticPeer {
            public_key: key(number),
            allowed_ips: Vec::new(),
            ..peer(1, "::/64")
        });
        assert!(refused(many.collect()).contains("too many"));
    }

    fn change(seed: u8, allowed: &str) -> PeerChange {
        PeerChange {
            public_key: [seed; 32],
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: vec![allowed.parse().unwrap()],
        }
    }

    /// What becomes of two peers.
    fn changed(replace_peers: bool, peers: Vec<PeerChange>) -> Result<(StaticPeers, Changes), ApiError> {
        let before = StaticPeers::new(vec![peer(1, "10.0.1.0/24"), peer(2, "10.0.2.0/24")]).unwrap();
        before.changed(Change { private_key: None, replace_peers, peers }, &[9; 32])
    }

    fn allowed(peers: &StaticPeers) -> Vec<(u8, Vec<String>)> {
        let shown = |peer: &StaticPeer| {
            (peer.public_key[0], peer.allowed_ips.iter().map(ToString::to_string).collect())
        };
        peers.peers.values().map(shown).collect()
    }

    #[test]
    fn a_peer_is_added_changed_and_removed() {
        let (next, changes) = changed(false, vec![change(3, "10.0.3.0/24")]).unwrap();
        assert_eq!((changes.set.len(), changes.removed.len()), (1, 0));
        assert_eq!((changes.set[0].public_key, changes.set[0].keepalive), ([3; 32], DEFAULT_KEEPALIVE));
        assert_eq!(next.peers.len(), 3);
        // One that stays where it is keeps the place that it has moved to.
        let (_, changes) = changed(false, vec![change(2, "10.0.4.0/24")]).unwrap();
        assert_eq!((changes.set.len(), &changes.set[0].endpoint), (1, &None));
        let (_, changes) = changed(false, vec![PeerChange { remove: true, ..change(2, "::/0") }]).unwrap();
        assert_eq!((changes.set.len(), changes.removed), (0, vec![NodeId([2; 32])]));
        // What says nothing new, or is of no peer that there is, changes nothing.
        for same in [
            change(1, "10.0.1.0/24"),
            PeerChange { update_only: true, ..change(3, "10.0.3.0/24") },
            PeerChange { remove: true, ..change(3, "::/0") },
            change(9, "10.0.9.0/24"),
        ] {
            assert_eq!(changed(false, vec![same]).unwrap().1, Changes::default());
        }
    }

    #[test]
    fn an_address_goes_to_the_peer_that_it_is_given_to() {
        let (next, changes) = changed(false, vec![change(2, "10.0.1.0/24")]).unwrap();
        assert_eq!(
            allowed(&next),
            [(1, vec![]), (2, vec!["10.0.2.0/24".to_owned(), "10.0.1.0/24".to_owned()])]
        );
        assert_eq!(changes.set.len(), 2);
        // Of a part of what another has nobody can tell whose it is.
        let error = changed(false, vec![change(2, "10.0.1.128/25")]).unwrap_err();
        assert!(error.message.contains("10.0.1.128/25") && error.message.contains("10.0.1.0/24"), "{error}");
    }

    #[test]
    fn replaced_peers_keep_the_endpoints_that_wg_does_not_know() {
        let (next, changes) = changed(true, vec![change(1, "10.0.5.0/24")]).unwrap();
        assert_eq!(allowed(&next), [(1, vec!["10.0.5.0/24".to_owned()])]);
        assert_eq!(next.configured(&[1; 32]), Some(destination(1, 4).hash()));
        assert_eq!(changes.removed, [NodeId([2; 32])]);
    }

    #[test]
    fn a_peer_with_another_endpoint_is_sought_there() {
        let elsewhere = |endpoint| PeerChange { endpoint: Some(endpoint), ..change(1, "10.0.1.0/24") };
        let (_, changes) = changed(false, vec![elsewhere(Endpoint::Hash(destination(7, 4).hash()))]).unwrap();
        assert_eq!((changes.removed, changes.set[0].endpoint.clone()), (vec![NodeId([1; 32])], None));
        let (_, changes) = changed(false, vec![elsewhere(Endpoint::Destination(destination(7, 4)))]).unwrap();
        assert!(changes.removed.is_empty());
        assert_eq!(changes.set[0].endpoint, Some(PeerDestination::Static(destination(7, 4))));
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
