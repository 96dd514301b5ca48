//! The table of peers, by address, key and number.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use i2plan_ipc::ApiError;
use i2plan_proto::identity::NodeId;

use super::pacer::Pacer;
use super::peer::{Keys, Peer};
use super::peer_config::{AllowedIps, MAX_PEERS, PeerConfig};
use super::slots::{Change, TunnelSlots};
use crate::host::prefix::Prefix;
use crate::interface::Subnets;

/// All peers.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Option<Box<Peer>>>,
    by_address: HashMap<IpAddr, u32>,
    /// The networks of static peers that have more than one address. No two have an address in common.
    networks: Vec<(Prefix, u32)>,
    by_key: HashMap<[u8; 32], u32>,
    by_node: HashMap<NodeId, u32>,
    /// Which of them have a tunnel.
    tunnels: TunnelSlots,
}

/// Whose tunnels a change of the peers concerns, by their numbers.
pub(super) struct Changed {
    pub(super) gone: Vec<u32>,
    /// They take packets elsewhere.
    pub(super) moved: Vec<u32>,
}

impl Peers {
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Peer> {
        self.slots.get_mut(usize::try_from(number).ok()?)?.as_deref_mut()
    }

    pub(super) fn by_address(&self, address: IpAddr) -> Option<u32> {
        let of_network = || {
            let network = self.networks.iter().find(|(network, _)| network.overlaps(&Prefix::host(address)));
            network.map(|(_, number)| *number)
        };
        self.by_address.get(&address).copied().or_else(of_network)
    }

    pub(super) fn by_key(&self, key: &[u8; 32]) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten().map(|peer| &**peer)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut().flatten().map(|peer| &mut **peer)
    }

    pub(super) fn by_node(&mut self, node: &NodeId) -> Option<&mut Peer> {
        let number = self.by_node.get(node).copied()?;
        self.get_mut(number)
    }

    /// Keeps so many tunnels from now on.
    pub(super) fn set_limit(&mut self, limit: usize, keys: &Keys, pacer: &mut Pacer, now: Instant) {
        let mut changes = Vec::new();
        self.tunnels.set_limit(limit, now, &mut changes);
        self.apply(changes, keys, pacer, now);
        self.decide_kept();
    }

    /// Keeps tunnels with all that are there open, if that is within the limit.
    fn decide_kept(&mut self) {
        let there = |peer: &Peer| peer.config.keepalive > 0;
        let room = self.iter().filter(|peer| there(peer)).count() <= self.tunnels.limit();
        for peer in self.iter_mut() {
            peer.kept = room && there(peer);
        }
    }

    /// Asks for a tunnel with a peer, for a packet or a handshake. False if it has to wait for one.
    pub(super) fn claim_slot(&mut self, number: u32, keys: &Keys, pacer: &mut Pacer, now: Instant) -> bool {
        let mut changes = Vec::new();
        let granted = self.tunnels.ask(number, now, &mut changes);
        self.apply(changes, keys, pacer, now);
        granted
    }

    /// A packet went to a peer or came from it.
    pub(super) fn note_used(&mut self, number: u32, now: Instant) {
        self.tunnels.note_used(number, now);
    }

    fn apply(&mut self, changes: Vec<Change>, keys: &Keys, pacer: &mut Pacer, now: Instant) {
        for change in changes {
            match change {
                Change::Granted(number) => {
                    if let Some(peer) = self.get_mut(number) {
                        peer.link(keys, now);
                        peer.want_session(pacer, now);
                    }
                }
                Change::Ended(number) => {
                    if let Some(peer) = self.get_mut(number) {
                        peer.unlink(pacer);
                    }
                }
            }
        }
    }

    /// Does what is due by the clock; `attached` is whether there is a SAM session.
    pub(super) fn tick(&mut self, attached: bool, keys: &Keys, pacer: &mut Pacer, now: Instant) {
        let mut changes = Vec::new();
        self.tunnels.serve(now, &mut changes);
        self.apply(changes, keys, pacer, now);
        for peer in self.slots.iter_mut().flatten() {
            let has_slot =
                self.tunnels.has(peer.number) || peer.kept && self.tunnels.take_free(peer.number, now);
            if peer.kept && has_slot {
                peer.link(keys, now);
            }
            peer.tick(attached, has_slot, pacer, now);
            if peer.is_linked() && !peer.needs_link(has_slot, now) {
                peer.unlink(pacer);
                self.tunnels.end(peer.number);
            }
        }
    }

    /// All but these.
    pub(super) fn all_except(&self, wanted: &[PeerConfig]) -> Vec<NodeId> {
        let wanted: HashSet<NodeId> = wanted.iter().map(|peer| peer.node).collect();
        self.by_node.keys().filter(|node| !wanted.contains(node)).copied().collect()
    }

    /// Removes peers, and has these, new or different; all together would pass [`check`]. Returns the numbers of those
    /// that are gone or elsewhere.
    pub(super) fn change(
        &mut self,
        set: Vec<PeerConfig>,
        removed: &[NodeId],
        subnets: Option<&Subnets>,
        keys: &Keys,
        attached: bool,
        now: Instant,
    ) -> Changed {
        let mut moved = Vec::new();
        let gone: Vec<u32> = removed.iter().filter_map(|node| self.by_node.remove(node)).collect();
        for number in &gone {
            self.tunnels.forget(*number);
            self.slots[*number as usize] = None;
        }
        let mut free = 0;
        for mut config in set {
            let share = match (&config.allowed_ips, subnets) {
                (AllowedIps::Member(ipv4, _), Some(subnets)) => subnets.share_of(*ipv4),
                _ => 0,
            };
            let number = if let Some(peer) = self.by_node(&config.node) {
                config.endpoint = config.endpoint.or_else(|| peer.config.endpoint.clone());
                let is_elsewhere = peer.config.endpoint != config.endpoint;
                peer.reconfigure(config, keys, now);
                if is_elsewhere {
                    peer.attach(attached);
                    peer.start_over(keys, now);
                    moved.push(peer.number);
                }
                peer.number
            } else {
                // The first number from there that nobody has.
                free += self.slots[free..].iter().take_while(|slot| slot.is_some()).count();
                let number = u32::try_from(free).expect("there are no more than MAX_PEERS");
                let mut peer = Box::new(Peer::new(number, config, keys, now));
                peer.attach(attached);
                if free == self.slots.len() {
                    self.slots.push(None);
                }
                self.slots[free] = Some(peer);
                number
            };
            self.tunnels.set_block(number, share);
        }
        self.index();
        self.decide_kept();
        Changed { gone, moved }
    }

    /// Finds all anew by what they are known by.
    pub(super) fn index(&mut self) {
        self.by_address.clear();
        self.networks.clear();
        self.by_key.clear();
        self.by_node.clear();
        // A key that one had before is another's now, if that other says so today.
        for peer in self.slots.iter().flatten() {
            self.by_key.extend(peer.previous_key().map(|key| (key, peer.number)));
        }
        for peer in self.slots.iter().flatten() {
            self.by_key.insert(peer.config.public_key, peer.number);
            self.by_node.insert(peer.config.node, peer.number);
            for prefix in peer.config.allowed_ips.prefixes() {
                if prefix == Prefix::host(prefix.address()) {
                    self.by_address.insert(prefix.address(), peer.number);
                } else {
                    self.networks.push((prefix, peer.number));
                }
            }
        }
    }
}

/// Whether peers can be told apart and stay within the mesh's subnets.
///
/// # Errors
/// [`i2plan_ipc::ErrorKind::Invalid`], naming the first peer that is wrong.
pub(super) fn check(wanted: &[PeerConfig], subnets: &Subnets) -> Result<(), ApiError> {
    if wanted.len() > MAX_PEERS {
        return Err(ApiError::invalid(format!("{} peers are over the limit of {MAX_PEERS}", wanted.len())));
    }
    let mut nodes = HashSet::new();
    let mut keys = HashSet::new();
    let mut taken = HashSet::new();
    for peer in wanted {
        let name = peer.node.short();
        if !nodes.insert(peer.node) {
            return Err(ApiError::invalid(format!("duplicate peer {name}")));
        }
        if !keys.insert(peer.public_key) {
            return Err(ApiError::invalid(format!("peer {name} has the WireGuard key of another")));
        }
        for address in peer.allowed_ips.prefixes().map(|prefix| prefix.address()) {
            if !subnets.may_be_peer(address) {
                return Err(ApiError::invalid(format!(
                    "peer {name} cannot have {address}: it is this node's own or outside its subnets"
                )));
            }
            if !taken.insert(address) {
                return Err(ApiError::invalid(format!("peer {name} has the address of another, {address}")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{keys, member, peer, session, subnets};
    use super::*;

    fn header(peer: &PeerConfig) -> String {
        format!("3.0 s {}\n", peer.endpoint.as_ref().unwrap().to_base64())
    }

    #[test]
    fn peers_that_cannot_be_told_apart_are_refused() {
        let wrong = |change: &dyn Fn(&mut PeerConfig)| {
            let mut second = peer(2);
            change(&mut second);
            check(&[peer(1), second], &subnets(9)).map_err(|error| error.message)
        };
        assert_eq!(wrong(&|_| {}), Ok(()));
        assert!(wrong(&|second| second.node = peer(1).node).unwrap_err().contains("duplicate peer"));
        assert!(
            wrong(&|second| second.public_key = peer(1).public_key).unwrap_err().contains("key of another")
        );
        let outside = |second: &mut PeerConfig| {
            second.allowed_ips = AllowedIps::Member(member(2).0, "2001:db8::1".parse().unwrap());
        };
        let ipv4_of = |second: &mut PeerConfig, other| {
            second.allowed_ips = AllowedIps::Member(member(other).0, member(2).1);
        };
        let ipv6_of = |second: &mut PeerConfig, other| {
            second.allowed_ips = AllowedIps::Member(member(2).0, member(other).1);
        };
        assert!(wrong(&|second| ipv4_of(second, 1)).unwrap_err().contains("10.42.0.1"));
        assert!(wrong(&|second| ipv6_of(second, 1)).unwrap_err().contains("fd00::1"));
        assert!(wrong(&|second| ipv4_of(second, 9)).unwrap_err().contains("own"));
        assert!(wrong(&outside).unwrap_err().contains("outside"));
    }

    #[test]
    fn the_number_of_peers_is_bounded() {
        let many: Vec<_> = std::iter::repeat_n(peer(1), MAX_PEERS + 1).collect();
        assert!(check(&many, &subnets(9)).unwrap_err().message.contains("limit"));
    }

    #[test]
    fn what_stays_the_same_is_not_touched() {
        let keys = keys(9);
        let session = session();
        let mut peers = Peers::default();
        let set = |peers: &mut Peers, wanted: Vec<_>| {
            let gone = peers.all_except(&wanted);
            let Changed { mut gone, moved } =
                peers.change(wanted, &gone, Some(&subnets(9)), &keys, true, Instant::now());
            gone.sort_unstable();
            (gone, moved)
        };
        assert_eq!(set(&mut peers, vec![peer(1), peer(2)]), (vec![], vec![]));

        let mut moved = peer(1);
        moved.endpoint = peer(7).endpoint;
        moved.allowed_ips = AllowedIps::Member(member(7).0, member(1).1);
        moved.keepalive = 11;
        assert_eq!(set(&mut peers, vec![peer(2), moved.clone()]), (vec![], vec![0]));
        assert_eq!(peers.get_mut(0).unwrap().header(&session), header(&moved).as_bytes());
        assert_eq!(peers.by_address("10.42.0.7".parse().unwrap()), Some(0));
        assert_eq!(peers.by_address("10.42.0.1".parse().unwrap()), None);

        let mut rekeyed = peer(2);
        rekeyed.public_key = peer(7).public_key;
        assert_eq!(set(&mut peers, vec![moved, rekeyed]), (vec![], vec![]));
        assert_eq!(peers.by_key(&peer(2).public_key), None);
        assert_eq!(peers.by_key(&peer(7).public_key), Some(1));

        assert_eq!(set(&mut peers, vec![peer(3)]), (vec![0, 1], vec![]));
        assert_eq!(peers.iter().count(), 1);
    }
}
