//! The other members: for each the newest word that it has given, and what is known of whether it is there.
//!
//! What of it readers of events are to be told is noted on the way ([`Members::take_events`]).
//!
//! Everything here merges: by its owner's sequence number, or as a set that only grows. So news may come in any order
//! and any number of times, and all members end up with the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use i2plan_ipc::api::meshd::{self, What};
use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::membership::Chain;
use i2plan_proto::message::{Entry, Item};
use i2plan_proto::pulse::{Life, Pulse};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::Revocation;
use rand::Rng;
use rand::seq::IteratorRandom as _;

use super::compare::{Index, has_more};

/// Members that are remembered at most.
pub(super) const MAX_MEMBERS: usize = 10_000;

/// Revocations that are remembered at most. Those of a member that is revoked itself are not needed any more.
const MAX_REVOCATIONS: usize = 4096;

/// Members that have left and whose word on that is remembered at most.
const MAX_GONE: usize = 4096;

/// So many members must have tried in vain before one is held to be out of reach, in a network of four or more.
const ACCUSERS: usize = 3;

/// Accusations of one member. One that is cut off itself accuses many.
const ACCUSATIONS: Quota = Quota::every(Duration::from_secs(10), 10);

/// Accusations of one member that were refuted. Beyond that it is not listened to: it lies, or its own way to the
/// others is bad.
const REFUTED: Quota = Quota::every(Duration::from_secs(600), 5);

/// How far a member's accusations are listened to.
#[derive(Debug, Clone, Copy, Default)]
struct Accuser {
    made: Bucket,
    refuted: Bucket,
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) record: Signed<Record>,
    /// Its last word on its own life, if that is newer than its record.
    pub(super) pulse: Option<Signed<Pulse>>,
    /// When this node learned of it, Unix time in seconds.
    pub(super) created: u64,
    /// When it was last known to be there, Unix time in seconds.
    pub(super) last_seen: Option<u64>,
    /// When its last control message came, on the monotonic clock.
    pub(super) last_heard: Option<Duration>,
    /// The member through which alone it answers.
    pub(super) via: Option<NodeId>,
    /// Round trip of the last ping that it answered itself.
    pub(super) rtt: Option<Duration>,
    /// This node could not reach it itself.
    pub(super) unreached: bool,
    /// Who said since its last word that it cannot be reached.
    accusations: BTreeMap<NodeId, Signed<Accusation>>,
    /// When it was last told of them.
    pub(super) told_at: Option<Duration>,
    /// When the last of them came, on the monotonic clock.
    accused_at: Option<Duration>,
    /// What readers of events were last told of whether it is there.
    told_life: meshd::Life,
}

impl Member {
    pub(super) fn node(&self) -> NodeId {
        self.record.value.node
    }

    /// The sequence number of its last word.
    pub(super) fn word(&self) -> u64 {
        self.pulse.as_ref().map_or(0, |pulse| pulse.value.sequence).max(self.record.value.sequence)
    }

    fn entry(&self) -> Entry {
        let pulse = self.pulse.as_ref().map_or(0, |pulse| pulse.value.sequence);
        Entry { node: self.node(), record: self.record.value.sequence, pulse, revoked: false }
    }

    pub(super) fn is_away(&self) -> bool {
        self.pulse.as_ref().is_some_and(|pulse| pulse.value.life == Life::Away)
    }

    pub(super) fn accusations(&self) -> impl Iterator<Item = &Signed<Accusation>> {
        self.accusations.values()
    }

    /// It has given a sign of life: what was said before does not hold any more. Returns who has said it.
    fn clear(&mut self) -> Vec<NodeId> {
        self.accused_at = None;
        self.unreached = false;
        std::mem::take(&mut self.accusations).into_keys().collect()
    }
}

/// What became of something that was to be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// It is newer than what was known.
    News,
    /// It is not.
    Known,
    /// It is of one that has left or was revoked.
    Over,
    /// There is no room, or it is of nobody that is known.
    Refused,
}

/// All other members.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_node: BTreeMap<NodeId, Member>,
    /// Who says that it takes control messages where. Several may say so of one place; that takes it from none.
    by_control: BTreeSet<(DestinationHash, NodeId)>,
    /// Who claims which address.
    by_address: BTreeSet<(Ipv4Addr, NodeId)>,
    /// Who has left, and by which word.
    gone: BTreeMap<NodeId, Signed<Pulse>>,
    revocations: BTreeMap<NodeId, Signed<Revocation>>,
    accusers: HashMap<NodeId, Accuser>,
    index: Index,
    /// When any of them was last heard, on the monotonic clock.
    last_heard: Option<Duration>,
    /// What readers of events have not been told yet.
    events: Vec<What>,
    /// Of whom they may have to be told whether it is there.
    unsettled: BTreeSet<NodeId>,
    /// Of whom time, or the number of members, may change that.
    accused: BTreeSet<NodeId>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_node.values()
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Member> {
        self.by_node.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Member> {
        self.by_node.get_mut(node)
    }

    pub(super) fn revocations(&self) -> impl Iterator<Item = &Signed<Revocation>> {
        self.revocations.values()
    }

    /// What is known, for comparisons. The own entry is in there too.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// This node's own last word, for comparisons.
    pub(super) fn set_own(&mut self, entry: Entry) {
        self.index.set(entry);
    }

    /// Whether this is news.
    pub(super) fn is_news(&self, item: &Item) -> bool {
        match item {
            Item::Record(record) => {
                let known = self.by_node.get(&record.value.node).map(|member| member.record.value.sequence);
                let gone = self.gone.get(&record.value.node).map(|pulse| pulse.value.sequence);
                known.max(gone) < Some(record.value.sequence) && !self.is_revoked(&record.value.chain)
            }
            Item::Pulse(pulse) => {
                self.word_of(&pulse.value.node).is_some_and(|word| word < pulse.value.sequence)
            }
            Item::Revocation(revocation) => !self.revocations.contains_key(revocation.value.subject()),
            Item::Accusation(accusation) => {
                let Accusation { accuser, subject, sequence, .. } = &accusation.value;
                let member = self.by_node.get(subject);
                member.is_some_and(|member| {
                    *sequence >= member.word()
                        && !member.accusations.contains_key(accuser)
                        && member.accusations.len() < ACCUSERS
                })
            }
        }
    }

    /// The sequence number of the last word of a node, also of one that has left.
    fn word_of(&self, node: &NodeId) -> Option<u64> {
        let gone = self.gone.get(node).map(|pulse| pulse.value.sequence);
        self.by_node.get(node).map(Member::word).max(gone)
    }

    /// Whether a node's own membership was revoked.
    pub(super) fn is_expelled(&self, node: &NodeId) -> bool {
        self.revocations.contains_key(node)
    }

    /// Whether a chain leads over a member that was revoked, or ends at one.
    pub(super) fn is_revoked(&self, chain: &Chain) -> bool {
        let mut all = chain.ancestors().chain([chain.subject()]);
        !self.revocations.is_empty() && all.any(|node| self.revocations.contains_key(node))
    }

    /// Takes in a record, which has been verified.
    pub(super) fn merge_record(&mut self, record: Signed<Record>, now: Duration, unix: u64) -> Merge {
        let node = record.value.node;
        if self.is_revoked(&record.value.chain) {
            return Merge::Over;
        }
        if self.gone.get(&node).is_some_and(|pulse| pulse.value.sequence >= record.value.sequence) {
            return Merge::Over;
        }
        let full = self.by_node.len() >= MAX_MEMBERS;
        let control = record.value.control.hash();
        let address = record.value.ipv4;
        let mut refuted = Vec::new();
        match self.by_node.get_mut(&node) {
            Some(member) if member.record.value.sequence >= record.value.sequence => return Merge::Known,
            Some(member) => {
                self.by_control.remove(&(member.record.value.control.hash(), node));
                self.by_address.remove(&(member.record.value.ipv4, node));
                if record.value.sequence > member.word() {
                    refuted = member.clear();
                    member.pulse = None;
                    self.unsettled.insert(node);
                }
                if shown(&member.record.value) != shown(&record.value) {
                    let name = record.value.name.to_string();
                    self.events.push(What::MemberChanged { node_id: node.to_string(), name });
                }
                member.record = record;
            }
            None if full => return Merge::Refused,
            None => {
                self.gone.remove(&node);
                let name = record.value.name.to_string();
                self.events.push(What::MemberAdded { node_id: node.to_string(), name });
                let member = Member {
                    record,
                    pulse: None,
                    created: unix,
                    last_seen: None,
                    last_heard: None,
                    via: None,
                    rtt: None,
                    unreached: false,
                    accusations: BTreeMap::new(),
                    told_at: None,
                    accused_at: None,
                    told_life: meshd::Life::Present,
                };
                self.by_node.insert(node, member);
            }
        }
        self.by_control.insert((control, node));
        self.by_address.insert((address, node));
        self.reindex(&node);
        self.note_refuted(&refuted, now);
        Merge::News
    }

    /// Takes in a pulse, whose signature has been verified.
    pub(super) fn merge_pulse(&mut self, pulse: Signed<Pulse>, now: Duration) -> Merge {
        let node = pulse.value.node;
        let Some(member) = self.by_node.get_mut(&node) else { return Merge::Refused };
        if member.word() >= pulse.value.sequence {
            return Merge::Known;
        }
        let refuted = member.clear();
        if pulse.value.life == Life::Present {
            self.note_refuted(&refuted, now);
        }
        let Some(member) = self.by_node.get_mut(&node) else { return Merge::Refused };
        if pulse.value.life == Life::Gone {
            self.remove(&node);
            if self.gone.len() >= MAX_GONE {
                self.gone.pop_first();
            }
            self.gone.insert(node, pulse);
        } else {
            member.pulse = Some(pulse);
            self.unsettled.insert(node);
            self.reindex(&node);
        }
        Merge::News
    }

    /// Takes in a revocation, which has been verified. Returns who is no member any more.
    pub(super) fn merge_revocation(&mut self, revocation: Signed<Revocation>) -> Option<Vec<NodeId>> {
        let subject = *revocation.value.subject();
        if self.revocations.contains_key(&subject) || self.is_revoked(&revocation.value.chain) {
            return None;
        }
        if self.revocations.len() >= MAX_REVOCATIONS {
            return None;
        }
        // Those of members that are out with this one hold no longer, and need not: whom they concern is out too.
        self.revocations.retain(|node, other| {
            let keep = !other.value.chain.is_ancestor(&subject);
            if !keep {
                self.index.remove(node);
            }
            keep
        });
        self.revocations.insert(subject, revocation);
        let over = |member: &&Member| {
            let chain = &member.record.value.chain;
            *chain.subject() == subject || chain.is_ancestor(&subject)
        };
        let out: Vec<NodeId> = self.by_node.values().filter(over).map(Member::node).collect();
        for node in &out {
            self.remove(node);
        }
        self.index.set(Entry { node: subject, record: 0, pulse: 0, revoked: true });
        Some(out)
    }

    /// Takes in an accusation, whose signature has been verified. False if it is of or against nobody that is known,
    /// too many come from this accuser, or it is out of date.
    pub(super) fn merge_accusation(
        &mut self,
        accusation: Signed<Accusation>,
        own: &NodeId,
        now: Duration,
    ) -> bool {
        let Accusation { accuser, subject, .. } = accusation.value;
        if !self.is_news(&Item::Accusation(accusation.clone())) {
            return false;
        }
        if accuser != *own {
            if !self.by_node.contains_key(&accuser) {
                return false;
            }
            let trust = self.accusers.entry(accuser).or_default();
            if !trust.refuted.wait(REFUTED, now).is_zero() || !trust.made.try_take(ACCUSATIONS, now) {
                return false;
            }
        }
        if let Some(member) = self.by_node.get_mut(&subject) {
            member.accusations.insert(accuser, accusation);
            member.accused_at = Some(now);
            self.unsettled.insert(subject);
        }
        true
    }

    /// These have accused one that was there.
    fn note_refuted(&mut self, accusers: &[NodeId], now: Duration) {
        for accuser in accusers {
            if let Some(trust) = self.accusers.get_mut(accuser) {
                // No more than the quota: even one that has accused half the network is listened to again in time.
                trust.refuted.try_take(REFUTED, now);
            }
        }
    }

    /// Forgets a member.
    pub(super) fn remove(&mut self, node: &NodeId) -> Option<Member> {
        let member = self.by_node.remove(node)?;
        self.by_control.remove(&(member.record.value.control.hash(), *node));
        self.by_address.remove(&(member.record.value.ipv4, *node));
        self.accusers.remove(node);
        self.index.remove(node);
        self.unsettled.remove(node);
        self.accused.remove(node);
        let name = member.record.value.name.to_string();
        self.events.push(What::MemberRemoved { node_id: node.to_string(), name });
        Some(member)
    }

    fn reindex(&mut self, node: &NodeId) {
        if let Some(member) = self.by_node.get(node) {
            self.index.set(member.entry());
        }
    }

    /// The word of one that has left.
    pub(super) fn gone(&self, node: &NodeId) -> Option<&Signed<Pulse>> {
        self.gone.get(node)
    }

    /// What there is for one who has no more than this.
    pub(super) fn items_beyond(&self, theirs: &Entry) -> Vec<Item> {
        if let Some(revocation) = self.revocations.get(&theirs.node) {
            return if theirs.revoked {
                Vec::new()
            } else {
                vec![Item::Revocation(Box::new(revocation.clone()))]
            };
        }
        if let Some(pulse) = self.gone.get(&theirs.node) {
            let behind = theirs.record.max(theirs.pulse) < pulse.value.sequence && theirs.record > 0;
            return if behind { vec![Item::Pulse(pulse.clone())] } else { Vec::new() };
        }
        let Some(member) = self.by_node.get(&theirs.node) else { return Vec::new() };
        let mine = member.entry();
        let mut items = Vec::new();
        if mine.record > theirs.record && !theirs.revoked {
            items.push(Item::Record(Box::new(member.record.clone())));
        }
        if let Some(pulse) = &member.pulse
            && has_more(&Entry { record: 0, ..mine }, theirs)
        {
            items.push(Item::Pulse(pulse.clone()));
        }
        items
    }

    /// A message came from this destination. Returns whose it is.
    pub(super) fn heard(&mut self, control: &DestinationHash, now: Duration, unix: u64) -> Vec<NodeId> {
        let nodes: Vec<NodeId> = self.by_control.range(at(control)).map(|(_, node)| *node).collect();
        for node in &nodes {
            if let Some(member) = self.by_node.get_mut(node) {
                self.last_heard = Some(now);
                if member.told_life != meshd::Life::Present {
                    self.unsettled.insert(*node);
                }
                member.last_heard = Some(now);
                member.last_seen = Some(unix);
                member.unreached = false;
                member.via = None;
            }
        }
        nodes
    }

    /// When any member last spoke to this node, on the monotonic clock.
    pub(super) fn last_heard(&self) -> Option<Duration> {
        self.last_heard
    }

    /// Whether a member takes its control messages there.
    pub(super) fn is_member(&self, control: &DestinationHash) -> bool {
        self.by_control.range(at(control)).next().is_some()
    }

    /// Who takes its control messages there.
    pub(super) fn at(&self, control: &DestinationHash) -> impl Iterator<Item = NodeId> {
        self.by_control.range(at(control)).map(|(_, node)| *node)
    }

    /// Who claims an address, best claim first: the oldest membership, then the smallest id. All members see it so,
    /// and newcomers give way, so that those whose address is in use keep it.
    pub(super) fn best_claim(&self, address: Ipv4Addr) -> Option<(u64, NodeId)> {
        let all = (address, NodeId([0; 32]))..=(address, NodeId([0xff; 32]));
        self.by_address.range(all).filter_map(|(_, node)| self.by_node.get(node)).map(claim).min()
    }

    /// Whether a member is there, as far as is known. `patience` is how long it may take to answer an accusation.
    pub(super) fn life(&self, member: &Member, now: Duration, patience: Duration) -> meshd::Life {
        if member.is_away() {
            return meshd::Life::Away;
        }
        let Some(accused_at) = member.accused_at else { return meshd::Life::Present };
        // Who has just spoken to this node is there, whatever others say.
        if member.last_heard.is_some_and(|heard| heard >= accused_at) {
            return meshd::Life::Present;
        }
        let enough = member.accusations.len() >= ACCUSERS.min(self.by_node.len().max(1));
        if enough && now >= accused_at + patience { meshd::Life::Unreachable } else { meshd::Life::Suspected }
    }

    /// Notes for readers of events whose life is another than they were told. Of those who are accused it is
    /// looked at if `all`.
    pub(super) fn settle_lives(&mut self, all: bool, now: Duration, patience: Duration) {
        let mut nodes = std::mem::take(&mut self.unsettled);
        if all {
            nodes.extend(std::mem::take(&mut self.accused));
        }
        for node in nodes {
            let Some(member) = self.by_node.get(&node) else { continue };
            let life = self.life(member, now, patience);
            if matches!(life, meshd::Life::Suspected | meshd::Life::Unreachable) {
                self.accused.insert(node);
            }
            if life != member.told_life {
                let name = member.record.value.name.to_string();
                self.events.push(What::MemberLife { node_id: node.to_string(), name, life });
            }
            if let Some(member) = self.by_node.get_mut(&node) {
                member.told_life = life;
            }
        }
    }

    /// What readers of events have not been told yet.
    pub(super) fn take_events(&mut self) -> Vec<What> {
        std::mem::take(&mut self.events)
    }

    /// Up to `count` members, drawn at random among those that pass.
    pub(super) fn sample(
        &self,
        count: usize,
        pass: impl Fn(&Member) -> bool,
        rng: &mut impl Rng,
    ) -> Vec<&Member> {
        self.by_node.values().filter(|member| pass(member)).sample(rng, count)
    }
}

/// What of a record users are shown, and so are told of when it changes.
fn shown(record: &Record) -> impl PartialEq {
    let Record { name, ipv4, wireguard, control, data, .. } = record;
    (name.clone(), *ipv4, wireguard.value.public_key, *control, *data)
}

/// How good a member's claim to its address is; the least is the best.
pub(super) fn claim(member: &Member) -> (u64, NodeId) {
    (member.record.value.chain.member_since(), member.node())
}

/// Everybody at one place.
fn at(control: &DestinationHash) -> RangeInclusive<(DestinationHash, NodeId)> {
    (*control, NodeId([0; 32]))..=(*control, NodeId([0xff; 32]))
}
