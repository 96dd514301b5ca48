//! What must always hold at every node, checked after every event at the node that it touched.
//!
//! The simulation knows what has really been signed, because it is what signs. A [`Ledger`] of that is compared with
//! what a node has come to believe. An event can change only what it speaks of: the sum over all that a node knows
//! shows that nothing else has changed, so each check takes no longer than the event.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::rc::Rc;

use i2plan_meshd::core::{Mesh, Now, VerifiedRecord, fingerprint};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteKey, Uses};
use i2plan_proto::message::Entry;
use i2plan_proto::pulse::{Life, Pulse};
use i2plan_proto::record::Record;

/// What a node believes.
pub(super) trait View {
    fn known(&self, node: &NodeId) -> Option<Entry>;
    fn fingerprint(&self) -> u128;
    fn record(&self, node: &NodeId) -> Option<&Signed<Record>>;
    fn address(&self, node: &NodeId) -> Option<Ipv4Addr>;
    fn own_address(&self) -> Option<Ipv4Addr>;
    fn accusations(&self, node: &NodeId) -> Vec<Accusation>;
    fn banned(&self) -> Vec<NodeId>;
    fn has_peer(&self, node: &NodeId, now: Now) -> bool;
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

    fn own_address(&self) -> Option<Ipv4Addr> {
        self.own_address()
    }

    fn accusations(&self, node: &NodeId) -> Vec<Accusation> {
        self.accusations_of(node).map(|accusation| accusation.value.clone()).collect()
    }

    fn banned(&self) -> Vec<NodeId> {
        self.banned().collect()
    }

    fn has_peer(&self, node: &NodeId, now: Now) -> bool {
        self.has_peer(node, now)
    }
}

/// What has really been signed, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: HashMap<(NodeId, u64), Rc<Record>>,
    newest: HashMap<NodeId, Rc<Record>>,
    pulses: HashSet<(NodeId, u64)>,
    /// By which word a node has left.
    gone: HashMap<NodeId, u64>,
    /// The newest number of each node's words.
    words: HashMap<NodeId, u64>,
    accusations: HashSet<(NodeId, NodeId, u64)>,
    /// Who has ever claimed an address.
    claims: HashMap<Ipv4Addr, Vec<NodeId>>,
    /// Who is out with each whose membership was revoked.
    below: HashMap<NodeId, Rc<[NodeId]>>,
    out: HashSet<NodeId>,
    invites: HashMap<InviteKey, HashSet<NodeId>>,
}

impl Ledger {
    pub(super) fn record(&mut self, record: &Record) {
        let shared = Rc::new(record.clone());
        self.records.insert((record.node, record.sequence), Rc::clone(&shared));
        self.newest.insert(record.node, shared);
        self.word(record.node, record.sequence);
        let claims = self.claims.entry(record.ipv4).or_default();
        if !claims.contains(&record.node) {
            claims.push(record.node);
        }
    }

    pub(super) fn pulse(&mut self, pulse: &Pulse) {
        self.pulses.insert((pulse.node, pulse.sequence));
        if pulse.life == Life::Gone {
            self.gone.insert(pulse.node, pulse.sequence);
        }
        self.word(pulse.node, pulse.sequence);
    }

    fn word(&mut self, node: NodeId, sequence: u64) {
        let word = self.words.entry(node).or_default();
        *word = (*word).max(sequence);
    }

    pub(super) fn accusation(&mut self, accusation: &Accusation) {
        self.accusations.insert((accusation.accuser, accusation.subject, accusation.sequence));
    }

    /// A membership is revoked; who else is out with it follows from the newest records.
    pub(super) fn revocation(&mut self, subject: NodeId) {
        let newest = self.words.keys().copied();
        let below = newest.filter(|node| {
            let chain = self.newest(node).map(|record| &record.chain);
            *node == subject || chain.is_some_and(|chain| chain.is_ancestor(&subject))
        });
        let below: Rc<[NodeId]> = below.collect();
        self.out.extend(below.iter().copied());
        self.below.insert(subject, below);
    }

    /// Whether the one was invited over the other.
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
        own: &NodeId,
        view: &impl View,
        now: Now,
    ) -> Result<(), String> {
        self.check_change(node, own, None, view.known(node).as_ref(), view, now)
    }

    /// A record of a node: all of them have the same chain.
    fn newest(&self, node: &NodeId) -> Option<&Record> {
        self.newest.get(node).map(|record| &**record)
    }

    /// Who is out because of the revocation of `subject`'s membership.
    pub(super) fn below(&self, subject: &NodeId) -> Rc<[NodeId]> {
        self.below.get(subject).cloned().unwrap_or_else(|| Rc::from([*subject]))
    }

    /// The newest words of all that are still members.
    pub(super) fn words(&self) -> impl Iterator<Item = (NodeId, u64)> {
        let over = |node: &NodeId, word: u64| self.out.contains(node) || self.gone.get(node) == Some(&word);
        let all = self.words.iter().filter(move |(node, word)| !over(node, **word));
        all.map(|(node, word)| (*node, *word))
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
                Err(format!("an invite for {limit} was used by {}", users.len()))
            }
            Uses::Limited(_) | Uses::Unlimited => Ok(()),
        }
    }

    /// What a node believes before an event that speaks of `mentioned`.
    pub(super) fn before(&self, view: &impl View, mentioned: Vec<NodeId>) -> Before {
        let entries = mentioned.iter().map(|node| view.known(node)).collect();
        Before { mentioned, entries, sum: view.fingerprint() }
    }

    /// Checks what a node believes after an event, of which `own` may be the node itself.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn check(
        &self,
        before: &Before,
        own: &NodeId,
        view: &impl View,
        now: Now,
    ) -> Result<(), String> {
        let value = |entry: &Option<Entry>| entry.as_ref().map_or(0, fingerprint);
        let mut expected = before.sum;
        for (node, old) in before.mentioned.iter().zip(&before.entries) {
            let new = view.known(node);
            expected = expected.wrapping_sub(value(old)).wrapping_add(value(&new));
            if new != *old || node != own {
                self.check_change(node, own, old.as_ref(), new.as_ref(), view, now)?;
            }
        }
        if view.fingerprint() != expected {
            return Err("what the event does not speak of has changed".to_owned());
        }
        if let Some(node) = view.banned().iter().find(|node| view.has_peer(node, now)) {
            return Err(format!("{node} is banned and a peer"));
        }
        Ok(())
    }

    fn check_change(
        &self,
        node: &NodeId,
        own: &NodeId,
        old: Option<&Entry>,
        new: Option<&Entry>,
        view: &impl View,
        now: Now,
    ) -> Result<(), String> {
        let gone = |word: u64| self.gone.get(node).is_some_and(|last| *last > word);
        match (old, new) {
            (_, None) => {
                if let Some(old) = old.filter(|old| !old.revoked && !self.out.contains(node) && node != own)
                    && !gone(old.record.max(old.pulse))
                {
                    return Err(format!("{node} is no member any more, without anybody's word"));
                }
            }
            (Some(old), Some(new)) if old.revoked && !new.revoked => {
                return Err(format!("the revocation of {node} is forgotten"));
            }
            (_, Some(new)) if new.revoked => {
                if !self.below.contains_key(node) {
                    return Err(format!("{node} was never revoked"));
                }
                let below = self.below(node);
                if let Some(other) = below.iter().find(|other| view.has_peer(other, now)) {
                    return Err(format!("{other} is revoked and a peer"));
                }
            }
            (old, Some(new)) => {
                let word = |entry: &Entry| entry.record.max(entry.pulse);
                if old.is_some_and(|old| word(old) > word(new) || old.record > new.record) {
                    return Err(format!("{node}'s word has gone back"));
                }
                self.check_words(node, own, new, view)?;
            }
        }
        for accusation in view.accusations(node) {
            let Accusation { accuser, subject, sequence, .. } = accusation;
            if !self.accusations.contains(&(accuser, subject, sequence)) {
                return Err(format!("{accuser} has never said that {subject} cannot be reached"));
            }
        }
        Ok(())
    }

    fn check_words(&self, node: &NodeId, own: &NodeId, new: &Entry, view: &impl View) -> Result<(), String> {
        let Some(record) = self.records.get(&(*node, new.record)) else {
            return Err(format!("{node} has never signed record {}", new.record));
        };
        if node != own && view.record(node).is_none_or(|known| known.value != **record) {
            return Err(format!("{node} has signed another record {}", new.record));
        }
        if new.pulse > 0 && !self.pulses.contains(&(*node, new.pulse)) {
            return Err(format!("{node} has never signed pulse {}", new.pulse));
        }
        let address = if node == own { view.own_address() } else { Some(record.ipv4) };
        let Some(address) = address else { return Ok(()) };
        let claims = self.claims.get(&address).map_or(&[][..], Vec::as_slice);
        let owners =
            claims.iter().filter(|other| *other != own && view.address(other) == Some(address)).count();
        if owners + usize::from(view.own_address() == Some(address)) > 1 {
            return Err(format!("{address} has more than one owner"));
        }
        Ok(())
    }
}

/// What a node believed before an event.
#[derive(Debug)]
pub(super) struct Before {
    mentioned: Vec<NodeId>,
    entries: Vec<Option<Entry>>,
    sum: u128,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use ed25519_dalek::SigningKey;
    use i2plan_proto::address::Ipv4Subnet;
    use i2plan_proto::destination::Destination;
    use i2plan_proto::identity::{NetworkId, Signable as _, Signature};
    use i2plan_proto::invite::{InviteId, InviteSecret};
    use i2plan_proto::membership::{Chain, Membership};
    use i2plan_proto::wireguard::WireGuardCertificate;

    use super::*;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn node(number: u8) -> NodeId {
        NodeId(key(number).verifying_key().to_bytes())
    }

    /// Node 1 has founded the network, and each was invited by the one before.
    fn chain(number: u8) -> Chain {
        (1..number).fold(Chain::founder(node(1)), |chain, issuer| {
            let (network, invite) = (NetworkId::of_founder(&node(1)), InviteId([0; 16]));
            let certificate =
                Membership { network, issuer: node(issuer), subject: node(issuer + 1), invite, issued_at: 1 };
            let signature = certificate.sign(&key(issuer));
            chain.extended(&Signed { value: certificate, signature }).unwrap()
        })
    }

    /// What a node may have published; nobody here looks at signatures.
    fn record(number: u8, sequence: u64) -> Record {
        let chain = chain(number);
        let destination = Destination { padding: [number; 32], signing_key: [number; 32] };
        let certificate = WireGuardCertificate {
            network: chain.network(),
            node: node(number),
            public_key: [number; 32],
            epoch: 1,
            not_before: 0,
            not_after: 1,
        };
        Record {
            node: node(number),
            sequence,
            issued_at: 1,
            name: "node".parse().unwrap(),
            control: destination,
            home: None,
            data: destination,
            ipv4: Ipv4Subnet::DEFAULT.address_of(&node(number), 0),
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
        accusations: Vec<Accusation>,
        banned: Vec<NodeId>,
        peers: Vec<NodeId>,
        own_address: Option<Ipv4Addr>,
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
            self.records.get(node).map(|record| record.value.ipv4)
        }

        fn own_address(&self) -> Option<Ipv4Addr> {
            self.own_address
        }

        fn accusations(&self, node: &NodeId) -> Vec<Accusation> {
            self.accusations.iter().filter(|accusation| accusation.subject == *node).cloned().collect()
        }

        fn banned(&self) -> Vec<NodeId> {
            self.banned.clone()
        }

        fn has_peer(&self, node: &NodeId, _: Now) -> bool {
            self.peers.contains(node)
        }
    }

    impl Gullible {
        fn believe(&mut self, record: Record) {
            let node = record.node;
            let entry = Entry { node, record: record.sequence, pulse: 0, revoked: false };
            self.known.insert(node, entry);
            self.records.insert(node, Signed { value: record, signature: Signature([0; 64]) });
            self.peers.push(node);
        }
    }

    /// A ledger, and a node 9 that rightly knows the members 1 to 3.
    fn start() -> (Ledger, Gullible) {
        let (mut ledger, mut view) = (Ledger::default(), Gullible::default());
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
    ) -> Result<(), String> {
        let mut view = view.clone();
        let mentioned = mentioned.iter().map(|number| node(*number)).collect();
        let before = ledger.before(&view, mentioned);
        change(&mut view);
        ledger.check(&before, &node(9), &view, NOW)
    }

    #[track_caller]
    fn finds(result: Result<(), String>, what: &str) {
        let error = result.expect_err(what);
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn what_is_right_is_not_complained_of() {
        let (mut ledger, view) = start();
        assert_eq!(found(&ledger, &view, &[1, 2, 3], |_| {}), Ok(()));
        let newer = record(2, 2);
        ledger.record(&newer);
        assert_eq!(found(&ledger, &view, &[2], |view| view.believe(newer)), Ok(()));
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
        let pulse = |view: &mut Gullible| {
            view.known.get_mut(&node(1)).unwrap().pulse = 77;
        };
        finds(found(&ledger, &view, &[1], pulse), "has never signed pulse");
        let accuse = |view: &mut Gullible| {
            let (accuser, subject) = (node(3), node(1));
            let network = NetworkId::of_founder(&node(1));
            view.accusations.push(Accusation { network, accuser, subject, sequence: 1, issued_at: 1 });
        };
        finds(found(&ledger, &view, &[1], accuse), "has never said");
        let remove = |view: &mut Gullible| {
            view.known.remove(&node(1));
        };
        finds(found(&ledger, &view, &[1], remove), "without anybody's word");
        let revoke = |view: &mut Gullible| view.known.get_mut(&node(1)).unwrap().revoked = true;
        finds(found(&ledger, &view, &[1], revoke), "was never revoked");
    }

    #[test]
    fn an_event_that_changes_what_it_does_not_speak_of_is_noticed() {
        let (mut ledger, view) = start();
        let newer = record(2, 2);
        ledger.record(&newer);
        finds(found(&ledger, &view, &[1], |view| view.believe(newer)), "does not speak of");
    }

    #[test]
    fn words_that_go_back_are_noticed() {
        let (mut ledger, mut view) = start();
        let newer = record(2, 2);
        ledger.record(&newer);
        view.believe(newer);
        finds(found(&ledger, &view, &[2], |view| view.believe(record(2, 1))), "has gone back");
    }

    #[test]
    fn two_owners_of_an_address_are_noticed() {
        let (mut ledger, view) = start();
        let thief = Record { ipv4: record(1, 1).ipv4, ..record(2, 2) };
        ledger.record(&thief);
        finds(found(&ledger, &view, &[2], |view| view.believe(thief.clone())), "more than one owner");
        // This node itself may be one of the two.
        let mut view = view;
        view.own_address = Some(record(3, 1).ipv4);
        finds(found(&ledger, &view, &[3], |_| {}), "more than one owner");
    }

    #[test]
    fn banned_and_revoked_peers_are_noticed() {
        let (mut ledger, mut view) = start();
        view.banned.push(node(1));
        finds(found(&ledger, &view, &[], |_| {}), "is banned and a peer");
        view.banned.clear();
        ledger.revocation(node(2));
        let revoke = |view: &mut Gullible| view.known.get_mut(&node(2)).unwrap().revoked = true;
        // Node 3 was invited over it.
        finds(found(&ledger, &view, &[2], revoke), "is revoked and a peer");
        view.peers.clear();
        assert_eq!(found(&ledger, &view, &[2], revoke), Ok(()));
        revoke(&mut view);
        finds(found(&ledger, &view, &[2], |view| view.believe(record(2, 1))), "is forgotten");
    }

    #[test]
    fn an_invite_that_is_used_too_often_is_noticed() {
        let mut ledger = Ledger::default();
        let (invite, once) = (InviteSecret([1; 32]).key(), Uses::Limited(NonZeroU32::MIN));
        assert_eq!(ledger.use_invite(invite, once, node(1)), Ok(()));
        // The same again, as when its answer was lost.
        assert_eq!(ledger.use_invite(invite, once, node(1)), Ok(()));
        finds(ledger.use_invite(invite, once, node(2)), "used by 2");
    }
}
