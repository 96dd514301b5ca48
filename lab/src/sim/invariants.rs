//! What must always hold at every node, checked after every event at the node that it touched.
//!
//! The simulation knows what honest nodes have really signed, because it is what signs. A [`Ledger`] of that is compared
//! with what a node has come to believe. An event changes mostly only what it speaks of: the sum over all that a node
//! knows shows whether anything else has changed. If not, the check takes no longer than the event; else all is checked.
//!
//! What must hold is numbered:
//!
//! 1. An honest member stays a member, unless it leaves or one of its inviters revokes it. "Honest" means here that its
//!    inviters up to the founder are honest too; others are at the mercy of their inviters.
//! 2. It keeps its address, and every honest node that knows it routes the address to it.
//! 3. No event leads to a panic or to more actions than are stated, and what a node remembers is bounded.
//! 4. No honest node bans it.
//! 5. News of it reaches all within the stated rounds.
//! 6. What is sent goes to destinations that members have proven to be theirs, and to no others.
//! 7. Members whose membership has ended are no peers of a node that has heard of that.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::rc::Rc;

use i2plan_meshd::core::state::Ending;
use i2plan_meshd::core::{Mesh, Now, VerifiedRecord, fingerprint};
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteKey, Uses};
use i2plan_proto::liveness::LivenessMessage;
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::message::Entry;
use i2plan_proto::record::Record;
use i2plan_proto::suspicion::Suspicion;

/// Bytes that a member, an ending, a delegation or an invite may take in a node's state.
pub(super) const MAX_STATE_ENTRY: usize = 3000;

/// Bytes that all else may take there: bans, and the node's own membership.
pub(super) const MAX_STATE_REST: usize = 1 << 20;

/// What a node believes.
pub(super) trait View {
    fn known(&self, node: &NodeId) -> Option<Entry>;
    fn fingerprint(&self) -> u128;
    fn record(&self, node: &NodeId) -> Option<&Signed<Record>>;
    fn address(&self, node: &NodeId) -> Option<Ipv4Addr>;
    fn suspicions(&self, node: &NodeId) -> Vec<Suspicion>;
    fn banned(&self) -> Vec<NodeId>;
    fn has_peer(&self, node: &NodeId, now: Now) -> bool;
    /// Whether packets for a member go to it.
    fn routes(&self, node: &NodeId, now: Now) -> bool;
}

impl View for Mesh {
    fn known(&self, node: &NodeId) -> Option<Entry> {
        self.known(node)
    }

    fn fingerprint(&self) -> u128 {
        self.fingerprint()
    }

    fn record(&self, node: &NodeId) -> Option<&Signed<Record>> {
        self.record_of(node).map(|record: &VerifiedRecord| &**record)
    }

    fn address(&self, node: &NodeId) -> Option<Ipv4Addr> {
        self.address_of(node)
    }

    fn suspicions(&self, node: &NodeId) -> Vec<Suspicion> {
        self.suspicions_of(node).map(|suspicion| suspicion.value.clone()).collect()
    }

    fn banned(&self) -> Vec<NodeId> {
        self.banned().collect()
    }

    fn has_peer(&self, node: &NodeId, now: Now) -> bool {
        self.has_peer(node, now)
    }

    fn routes(&self, node: &NodeId, now: Now) -> bool {
        self.peers(now).iter().any(|peer| peer.node == *node)
    }
}

/// What honest nodes have really signed, and what follows from it.
#[derive(Debug)]
pub(super) struct Ledger {
    charter: Charter,
    records: HashMap<(NodeId, u64), Rc<Record>>,
    newest: HashMap<NodeId, Rc<Record>>,
    liveness_messages: HashSet<(NodeId, u64)>,
    /// The newest sequence number of each node.
    sequences: HashMap<NodeId, u64>,
    suspicions: HashSet<(NodeId, NodeId, u64)>,
    /// Who has an address by right, and who a WireGuard key.
    owners: HashMap<Ipv4Addr, NodeId>,
    keys: HashMap<[u8; 32], NodeId>,
    /// WireGuard keys by what they are derived from: that takes longer than most events.
    derived: RefCell<HashMap<[u8; 32], [u8; 32]>>,
    /// How memberships have really ended, and whose.
    endings: Vec<Ending>,
    out: HashSet<NodeId>,
    invites: HashMap<InviteKey, HashSet<NodeId>>,
    /// Who lies.
    liars: HashSet<NodeId>,
    /// Who has lost its addresses to another by a fault of its inviter.
    exposed: HashSet<NodeId>,
    /// Destinations of which liars have the keys.
    liars_destinations: HashSet<Destination>,
}

impl Ledger {
    pub(super) fn new(charter: Charter) -> Self {
        Self {
            charter,
            records: HashMap::new(),
            newest: HashMap::new(),
            liveness_messages: HashSet::new(),
            sequences: HashMap::new(),
            suspicions: HashSet::new(),
            owners: HashMap::new(),
            keys: HashMap::new(),
            derived: RefCell::default(),
            endings: Vec::new(),
            out: HashSet::new(),
            invites: HashMap::new(),
            liars: HashSet::new(),
            exposed: HashSet::new(),
            liars_destinations: HashSet::new(),
        }
    }

    pub(super) fn record(&mut self, record: &Record) {
        let shared = Rc::new(record.clone());
        self.records.insert((record.node, record.sequence), Rc::clone(&shared));
        self.newest.insert(record.node, shared);
        self.note_sequence(record.node, record.sequence);
        if !self.exposed.contains(&record.node) {
            self.owners.insert(record.ipv4(&self.charter), record.node);
        }
        self.keys.insert(self.wireguard_key(record), record.node);
    }

    pub(super) fn liveness_message(&mut self, liveness_message: &LivenessMessage) {
        self.liveness_messages.insert((liveness_message.node, liveness_message.sequence));
        self.note_sequence(liveness_message.node, liveness_message.sequence);
    }

    fn note_sequence(&mut self, node: NodeId, sequence: u64) {
        let latest = self.sequences.entry(node).or_default();
        *latest = (*latest).max(sequence);
    }

    pub(super) fn suspicion(&mut self, suspicion: &Suspicion) {
        self.suspicions.insert((suspicion.confirmer, suspicion.subject, suspicion.sequence));
    }

    /// A membership ends; who else is out with it follows from the newest records.
    pub(super) fn ending(&mut self, ending: Ending) {
        let over = |record: &&Rc<Record>| ending.voids(&record.chain).is_some();
        self.out.extend(self.newest.values().filter(over).map(|record| record.node));
        self.endings.push(ending);
    }

    /// A node lies from now on, and what it has signed is its own affair.
    pub(super) fn lies(&mut self, node: NodeId) {
        self.liars.insert(node);
    }

    /// A node may lose its address.
    pub(super) fn expose(&mut self, node: NodeId) {
        self.exposed.insert(node);
    }

    /// A liar has the keys of a destination.
    pub(super) fn liar_has(&mut self, destination: Destination) {
        self.liars_destinations.insert(destination);
    }

    /// Whether a node is honest, and its inviters up to the founder are.
    pub(super) fn is_protected(&self, node: &NodeId) -> bool {
        self.newest(node).is_some_and(|record| {
            let mut all = record.chain.ancestors().chain([node]);
            all.all(|node| !self.liars.contains(node)) && !self.exposed.contains(node)
        })
    }

    /// Whether a node has left, or was revoked with another or alone.
    pub(super) fn is_out(&self, node: &NodeId) -> bool {
        self.out.contains(node)
    }

    /// The address of a node by its newest record.
    pub(super) fn address(&self, node: &NodeId) -> Option<Ipv4Addr> {
        self.newest(node).map(|record| record.ipv4(&self.charter))
    }

    /// The chain of a node by its newest record.
    pub(super) fn chain(&self, node: &NodeId) -> Option<&Chain> {
        self.newest(node).map(|record| &record.chain)
    }

    /// Whether one invited the other, directly or through others.
    pub(super) fn stands_above(&self, node: &NodeId, other: &NodeId) -> bool {
        self.newest(other).is_some_and(|record| record.chain.is_ancestor(node))
    }

    /// Checks what a node believes of a member, whatever it believed before.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn check_member(
        &self,
        node: &NodeId,
        local: &NodeId,
        view: &impl View,
        now: Now,
    ) -> Result<(), String> {
        self.check_change(node, local, None, view.known(node).as_ref(), view, now)
    }

    /// The newest record of a node.
    pub(super) fn newest(&self, node: &NodeId) -> Option<&Record> {
        self.newest.get(node).map(|record| &**record)
    }

    /// The WireGuard key in a record.
    pub(super) fn wireguard_key(&self, record: &Record) -> [u8; 32] {
        let key = &record.wireguard.value.key;
        *self.derived.borrow_mut().entry(key.signing_key).or_insert_with(|| key.public_key())
    }

    /// The first record of a node.
    pub(super) fn earliest(&self, node: &NodeId) -> Option<&Record> {
        let all = self.records.iter().filter(|((of, _), _)| of == node);
        all.min_by_key(|((_, sequence), _)| *sequence).map(|(_, record)| &**record)
    }

    /// The newest sequence numbers of all that are still members.
    pub(super) fn sequences(&self) -> impl Iterator<Item = (NodeId, u64)> {
        let all = self.sequences.iter().filter(move |(node, _)| !self.out.contains(*node));
        all.map(|(node, sequence)| (*node, *sequence))
    }

    /// An invite is used to become a member.
    ///
    /// # Errors
    /// If it was used as often as it may be.
    pub(super) fn use_invite(&mut self, invite: InviteKey, uses: Uses, joiner: NodeId) -> Result<(), String> {
        let users = self.invites.entry(invite).or_default();
        users.insert(joiner);
        match uses {
            Uses::Limited(limit) if users.len() > limit.get() as usize => {
                Err(format!("property 7: an invite for {limit} was used by {}", users.len()))
            }
            Uses::Limited(_) | Uses::Unlimited => Ok(()),
        }
    }

    /// Whether an invite was used.
    pub(super) fn is_used(&self, invite: &InviteKey) -> bool {
        self.invites.contains_key(invite)
    }

    /// What a node believes before an event that speaks of `mentioned`.
    pub(super) fn before(&self, view: &impl View, mentioned: Vec<NodeId>) -> Before {
        let entries = mentioned.iter().map(|node| view.known(node)).collect();
        Before { mentioned, entries, sum: view.fingerprint() }
    }

    /// Checks what a node believes after an event, of which `local` may be the node itself. Returns whether nothing has
    /// changed but what the event speaks of.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn check(
        &self,
        before: &Before,
        local: &NodeId,
        view: &impl View,
        now: Now,
    ) -> Result<bool, String> {
        let value = |entry: &Option<Entry>| entry.as_ref().map_or(0, fingerprint);
        let mut expected = before.sum;
        for (node, old) in before.mentioned.iter().zip(&before.entries) {
            let new = view.known(node);
            expected = expected.wrapping_sub(value(old)).wrapping_add(value(&new));
            if new != *old || node != local {
                self.check_change(node, local, old.as_ref(), new.as_ref(), view, now)?;
            }
        }
        if let Some(node) = view.banned().iter().find(|node| view.has_peer(node, now)) {
            return Err(format!("{node} is banned and a peer"));
        }
        let explained = view.fingerprint() == expected;
        if !explained {
            for (node, record) in &self.newest {
                if node != local && self.endings.iter().any(|ending| ending.voids(&record.chain).is_some()) {
                    self.check_ended(node, view, now)?;
                }
            }
        }
        Ok(explained)
    }

    fn check_change(
        &self,
        node: &NodeId,
        local: &NodeId,
        old: Option<&Entry>,
        new: Option<&Entry>,
        view: &impl View,
        now: Now,
    ) -> Result<(), String> {
        let Some(new) = new.filter(|new| !new.ended) else { return Ok(()) };
        let sequence = |entry: &Entry| entry.record.max(entry.liveness);
        if old.is_some_and(|old| sequence(old) > sequence(new) || old.record > new.record)
            && !self.is_suspect(node)
        {
            return Err(format!("property 1: {node}'s sequence number has gone back"));
        }
        if self.is_suspect(node) {
            self.check_suspect(node, local, view, now)?;
        } else {
            self.check_statements(node, local, new, view)?;
        }
        if node != local {
            self.check_ended(node, view, now)?;
        }
        for suspicion in view.suspicions(node) {
            let Suspicion { confirmer, subject, sequence, .. } = suspicion;
            if !self.is_suspect(&confirmer) && !self.suspicions.contains(&(confirmer, subject, sequence)) {
                return Err(format!("{confirmer} has never said that {subject} cannot be reached"));
            }
        }
        Ok(())
    }

    /// Whether a node lies, or was made up by one that does.
    fn is_suspect(&self, node: &NodeId) -> bool {
        self.liars.contains(node) || !self.newest.contains_key(node)
    }

    fn check_statements(
        &self,
        node: &NodeId,
        local: &NodeId,
        new: &Entry,
        view: &impl View,
    ) -> Result<(), String> {
        let Some(record) = self.records.get(&(*node, new.record)) else {
            return Err(format!("property 1: {node} has never signed record {}", new.record));
        };
        if node != local && view.record(node).is_none_or(|known| known.value != **record) {
            return Err(format!("property 1: {node} has signed another record {}", new.record));
        }
        if new.liveness > 0 && !self.liveness_messages.contains(&(*node, new.liveness)) {
            return Err(format!("property 1: {node} has never signed liveness message {}", new.liveness));
        }
        if node != local && view.address(node) != Some(record.ipv4(&self.charter)) {
            return Err(format!("property 2: {node} is thought to have the address of another"));
        }
        Ok(())
    }

    /// Checks what a node believes of one that lies, or that was made up.
    fn check_suspect(&self, node: &NodeId, local: &NodeId, view: &impl View, now: Now) -> Result<(), String> {
        let Some(record) = view.record(node).map(|record| &record.value) else { return Ok(()) };
        for (destination, role) in record.destinations() {
            if !self.liars_destinations.contains(&destination.destination) {
                let whose = destination.hash().b32();
                return Err(format!(
                    "property 6: {whose} is thought to be where {node} is reached ({role:?})"
                ));
            }
        }
        let owner = view.address(node).and_then(|address| self.owners.get(&address));
        if let Some(owner) = owner.filter(|owner| *owner != node && self.is_protected(owner))
            && (owner == local || view.record(owner).is_some())
        {
            return Err(format!("property 2: {node} is thought to have the address of {owner}"));
        }
        let owner = self.keys.get(&self.wireguard_key(record)).filter(|owner| *owner != node);
        if let Some(owner) = owner.filter(|owner| *owner != local && self.is_protected(owner))
            && view.has_peer(owner, now)
            && !view.routes(owner, now)
        {
            return Err(format!("property 2: with the key of {owner}, {node} takes its place"));
        }
        Ok(())
    }

    /// Checks that a node is no peer of one that knows how its membership has ended.
    fn check_ended(&self, node: &NodeId, view: &impl View, now: Now) -> Result<(), String> {
        if self.endings.is_empty() || !view.has_peer(node, now) {
            return Ok(());
        }
        let Some(record) = view.record(node) else { return Ok(()) };
        let over = |ending: &&Ending| {
            ending.voids(&record.value.chain).is_some()
                && view.known(&ending.id()).is_some_and(|known| known.ended)
        };
        match self.endings.iter().find(over) {
            Some(ending) => {
                Err(format!("property 7: {node} is out by {}'s statement, and a peer", ending.signer()))
            }
            None => Ok(()),
        }
    }
}

/// What a node believed before an event.
#[derive(Debug)]
pub(super) struct Before {
    mentioned: Vec<NodeId>,
    entries: Vec<Option<Entry>>,
    sum: u128,
}

impl Before {
    /// Of whom the event speaks.
    pub(super) fn mentioned(&self) -> &[NodeId] {
        &self.mentioned
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use ed25519_dalek::SigningKey;
    use i2plan_proto::address::{AddressRange, Ipv4Subnet};
    use i2plan_proto::destination::ProvenDestination;
    use i2plan_proto::identity::{Signable as _, Signature};
    use i2plan_proto::invite::{InviteId, InviteSecret};
    use i2plan_proto::liveness::Presence;
    use i2plan_proto::membership::{Delegation, NetworkName};
    use i2plan_proto::record::NodeName;
    use i2plan_proto::revocation::{Revocation, Target};
    use i2plan_proto::wireguard::WireGuardCertificate;

    use i2plan_proto::wireguard::{ProvenKey, WireGuardSecret};
    use zeroize::Zeroizing;

    use super::*;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn node(number: u8) -> NodeId {
        NodeId(key(number).verifying_key().to_bytes())
    }

    fn charter() -> Charter {
        Charter {
            founder: node(1),
            name: NetworkName::of_founder(&NodeName::of_host("lab")),
            subnet: Ipv4Subnet::DEFAULT,
            founded_at: 1,
            nonce: [0; 16],
        }
    }

    /// Node 1 has founded the network, and each was invited by the one before.
    fn chain(number: u8) -> Chain {
        (1..number).fold(Chain::founder(&charter()), |chain, issuer| {
            let size = 1 << (16 - issuer);
            let first = chain.ranges(&Ipv4Subnet::DEFAULT).address().to_bits() + size;
            let grant = Delegation {
                subject: node(issuer + 1),
                invite: InviteId([0; 16]),
                ranges: AddressRange::of_size(first, size).unwrap().into(),
                serial: 1,
                since: 1,
                replaces: false,
                issued_at: 1,
            };
            let certificate = chain.certificate(grant);
            let signature = certificate.sign(&key(issuer));
            chain.extended(&Signed { value: certificate, signature }).unwrap()
        })
    }

    fn wireguard_key(number: u8) -> ProvenKey {
        WireGuardSecret::new(&Zeroizing::new([number; 32])).proven(charter().network(), node(number))
    }

    fn destination(number: u8) -> Destination {
        Destination { padding: [number; 32], signing_key: [number; 32] }
    }

    /// What a node may have published; nobody here looks at signatures.
    fn record(number: u8, sequence: u64) -> Record {
        let chain = chain(number);
        let named = ProvenDestination::unproven(destination(number));
        let certificate = WireGuardCertificate {
            network: chain.network(),
            node: node(number),
            key: wireguard_key(number),
            epoch: 1,
            not_before: 0,
            not_after: 1,
        };
        Record {
            node: node(number),
            sequence,
            issued_at: 1,
            name: "node".parse().unwrap(),
            control: named,
            primary: None,
            takes_reports: false,
            data: named,
            wireguard: Signed { value: certificate, signature: Signature([0; 64]) },
            chain,
        }
    }

    const NOW: Now = Now { monotonic: Duration::ZERO, unix: Duration::ZERO };

    /// A node that believes whatever it is told to.
    #[derive(Default, Clone)]
    struct Gullible {
        known: BTreeMap<NodeId, Entry>,
        records: BTreeMap<NodeId, Signed<Record>>,
        /// Where these differ from those of the records.
        addresses: BTreeMap<NodeId, Ipv4Addr>,
        suspicions: Vec<Suspicion>,
        banned: Vec<NodeId>,
        peers: Vec<NodeId>,
        unrouted: Vec<NodeId>,
    }

    impl View for Gullible {
        fn known(&self, node: &NodeId) -> Option<Entry> {
            self.known.get(node).copied()
        }

        fn fingerprint(&self) -> u128 {
            self.known.values().fold(0, |sum: u128, entry| sum.wrapping_add(fingerprint(entry)))
        }

        fn record(&self, node: &NodeId) -> Option<&Signed<Record>> {
            self.records.get(node)
        }

        fn address(&self, node: &NodeId) -> Option<Ipv4Addr> {
            let by_record = self.records.get(node).map(|record| record.value.ipv4(&charter()));
            self.addresses.get(node).copied().or(by_record)
        }

        fn suspicions(&self, node: &NodeId) -> Vec<Suspicion> {
            self.suspicions.iter().filter(|suspicion| suspicion.subject == *node).cloned().collect()
        }

        fn banned(&self) -> Vec<NodeId> {
            self.banned.clone()
        }

        fn has_peer(&self, node: &NodeId, _: Now) -> bool {
            self.peers.contains(node)
        }

        fn routes(&self, node: &NodeId, _: Now) -> bool {
            self.peers.contains(node) && !self.unrouted.contains(node)
        }
    }

    impl Gullible {
        fn believe(&mut self, record: Record) {
            let node = record.node;
            let entry = Entry { node, record: record.sequence, liveness: 0, ended: false };
            self.known.insert(node, entry);
            self.records.insert(node, Signed { value: record, signature: Signature([0; 64]) });
            self.peers.push(node);
        }
    }

    /// A ledger, and a node 8 that rightly knows the members 1 to 3.
    fn start() -> (Ledger, Gullible) {
        let (mut ledger, mut view) = (Ledger::new(charter()), Gullible::default());
        for number in 1..=3 {
            ledger.record(&record(number, 1));
            view.believe(record(number, 1));
        }
        (ledger, view)
    }

    /// What is found when an event that speaks of some members leads to what `change` does.
    fn found(
        ledger: &Ledger,
        view: &Gullible,
        mentioned: &[u8],
        change: impl FnOnce(&mut Gullible),
    ) -> Result<bool, String> {
        let mut view = view.clone();
        let mentioned = mentioned.iter().map(|number| node(*number)).collect();
        let before = ledger.before(&view, mentioned);
        change(&mut view);
        ledger.check(&before, &node(8), &view, NOW)
    }

    #[track_caller]
    fn finds(result: Result<impl std::fmt::Debug, String>, what: &str) {
        let error = result.expect_err(what);
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn what_is_right_is_not_complained_of() {
        let (mut ledger, view) = start();
        assert_eq!(found(&ledger, &view, &[1, 2, 3], |_| {}), Ok(true));
        let newer = record(2, 2);
        ledger.record(&newer);
        assert_eq!(found(&ledger, &view, &[2], |view| view.believe(newer)), Ok(true));
    }

    #[test]
    fn what_nobody_signed_is_noticed() {
        let (mut ledger, view) = start();
        let newer = record(2, 2);
        finds(found(&ledger, &view, &[2], |view| view.believe(newer.clone())), "has never signed record");
        let mut other = newer.clone();
        other.issued_at += 1;
        ledger.record(&other);
        finds(found(&ledger, &view, &[2], |view| view.believe(newer)), "has signed another record");
        let liveness_message = |view: &mut Gullible| {
            view.known.get_mut(&node(1)).unwrap().liveness = 77;
        };
        finds(found(&ledger, &view, &[1], liveness_message), "has never signed liveness message");
        let suspect = |view: &mut Gullible| {
            let (confirmer, subject, network) = (node(3), node(1), charter().network());
            view.suspicions.push(Suspicion { network, confirmer, subject, sequence: 1, issued_at: 1 });
        };
        finds(found(&ledger, &view, &[1], suspect), "has never said");
        // What a liar says is its own affair.
        ledger.lies(node(3));
        assert_eq!(found(&ledger, &view, &[1], suspect), Ok(true));
    }

    #[test]
    fn an_event_that_changes_what_it_does_not_speak_of_is_noticed() {
        let (mut ledger, view) = start();
        let newer = record(2, 2);
        ledger.record(&newer);
        assert_eq!(found(&ledger, &view, &[1], |view| view.believe(newer)), Ok(false));
    }

    #[test]
    fn words_that_go_back_are_noticed() {
        let (mut ledger, mut view) = start();
        let newer = record(2, 2);
        ledger.record(&newer);
        view.believe(newer);
        finds(found(&ledger, &view, &[2], |view| view.believe(record(2, 1))), "has gone back");
        ledger.liveness_message(&LivenessMessage {
            network: charter().network(),
            node: node(2),
            sequence: 5,
            presence: Presence::Away,
        });
        assert_eq!(ledger.sequences().find(|(of, _)| *of == node(2)), Some((node(2), 5)));
    }

    #[test]
    fn thieves_of_addresses_and_keys_are_noticed() {
        let (mut ledger, view) = start();
        let elsewhere = |view: &mut Gullible| {
            view.addresses.insert(node(2), [10, 42, 9, 9].into());
        };
        finds(found(&ledger, &view, &[2], elsewhere), "thought to have the address of another");
        ledger.liar_has(destination(4));
        let thief = |view: &mut Gullible| {
            view.believe(record(4, 1));
            view.addresses.insert(node(4), record(2, 1).ipv4(&charter()));
        };
        finds(found(&ledger, &view, &[4], thief), "thought to have the address of");
        let mut record = record(4, 1);
        record.wireguard.value.key = wireguard_key(2);
        let mimic = |view: &mut Gullible| view.believe(record.clone());
        assert_eq!(found(&ledger, &view, &[4], mimic), Ok(true));
        let stolen = |view: &mut Gullible| {
            mimic(view);
            view.unrouted.push(node(2));
        };
        finds(found(&ledger, &view, &[4], stolen), "takes its place");
    }

    #[test]
    fn destinations_of_third_parties_are_noticed() {
        let (mut ledger, view) = start();
        let puppet = |view: &mut Gullible| view.believe(record(4, 1));
        finds(found(&ledger, &view, &[4], puppet), "is thought to be where");
        ledger.liar_has(destination(4));
        assert_eq!(found(&ledger, &view, &[4], puppet), Ok(true));
    }

    #[test]
    fn banned_and_revoked_peers_are_noticed() {
        let (mut ledger, mut view) = start();
        view.banned.push(node(1));
        finds(found(&ledger, &view, &[], |_| {}), "is banned and a peer");
        view.banned.clear();
        let target = Target::Certificate(chain(2));
        let value = Revocation { issuer: node(1), target, issued_at: 1 };
        let signature = value.sign(&key(1));
        let ending = Ending::Revocation(Box::new(Signed { value, signature }));
        let id = ending.id();
        ledger.ending(ending);
        assert!(ledger.is_out(&node(2)) && ledger.is_out(&node(3)) && !ledger.is_out(&node(1)));
        let revoke = |view: &mut Gullible| {
            view.known.insert(id, Entry { node: id, record: 0, liveness: 0, ended: true });
        };
        // Who has not heard of it may have them as peers; who has may have neither, also if the event names one.
        assert_eq!(found(&ledger, &view, &[2], |_| {}), Ok(true));
        finds(found(&ledger, &view, &[], revoke), "property 7");
        view.peers.retain(|peer| *peer != node(2));
        finds(found(&ledger, &view, &[], revoke), "property 7");
        view.peers.retain(|peer| *peer != node(3));
        assert_eq!(found(&ledger, &view, &[], revoke), Ok(false));
    }

    #[test]
    fn who_is_below_a_liar_is_not_protected() {
        let (mut ledger, _) = start();
        assert!([1, 2, 3].iter().all(|number| ledger.is_protected(&node(*number))));
        ledger.lies(node(2));
        assert_eq!([1, 2, 3].map(|number| ledger.is_protected(&node(number))), [true, false, false]);
    }

    #[test]
    fn an_invite_that_is_used_too_often_is_noticed() {
        let mut ledger = Ledger::new(charter());
        let (invite, once) = (InviteSecret([1; 32]).key(), Uses::Limited(NonZeroU32::MIN));
        assert_eq!(ledger.use_invite(invite, once, node(1)), Ok(()));
        // The same again, as when its answer was lost.
        assert_eq!(ledger.use_invite(invite, once, node(1)), Ok(()));
        finds(ledger.use_invite(invite, once, node(2)), "used by 2");
    }
}
