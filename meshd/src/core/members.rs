//! The other members: for each the newest statement that it has made, and what is known of whether it is there.
//!
//! What of it readers of events are to be told is noted on the way ([`Members::poll_events`]).
//!
//! Everything here merges: by its owner's sequence number, or as a set that only grows. So news may come in any order
//! and any number of times, and all members end up with the same.
//!
//! Members are drawn by address, not by identity ([`Members::sample`]): each address block in use is as likely as the
//! next, so that the many identities that one inviter can invent draw no more attention than their block.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::time::Duration;

use i2plan_ipc::api::meshd::{self, EventKind};
use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_proto::address::{AddressRange, Ipv4Subnet};
use i2plan_proto::certificates::{Certificates, Contest};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{CertificateId, Chain};
use i2plan_proto::message::{Entry, Item, Position};
use i2plan_proto::record::Record;
use i2plan_proto::suspicion::Suspicion;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{Rng, RngExt as _};

use super::addresses::{contest, is_uncontested};
use super::compare::{Entries, Index, KnownEntries, fingerprint, has_more, nothing, told};
use super::endings::{Added, Ending, Endings, place_of_signer};
use super::verified::VerifiedRecord;

/// Members that are remembered at most.
pub(super) const MAX_MEMBERS: usize = 10_000;

/// So many members must have tried in vain before one is held to be out of reach, in a network of four or more.
pub(super) const CONFIRMATIONS: usize = 3;

/// So many others at least, if there are as many, must suspect a member before it answers: one alone is not
/// enough, and could make all tell each other answers without end.
const FEWEST_ANSWERED: usize = 2;

/// After this what others say of a member is dropped unless enough do.
const LONE: Duration = Duration::from_secs(600);

/// Suspicions of one member. One that is cut off itself suspects many.
const SUSPICIONS: Quota = Quota::every(Duration::from_secs(10), 10);

/// Suspicions of one member that were refuted. Beyond that it is not listened to: it lies, or its own way to the
/// others is bad.
const REFUTED: Quota = Quota::every(Duration::from_secs(600), 5);

/// So many members at least, and one in sixteen of all, that fell silent together are not thought to have failed each by
/// itself: a part of the network was cut off, or this node was.
const SPLIT: usize = 8;

/// Those that were suspected within this time of each other fell silent together.
const TOGETHER: Duration = Duration::from_secs(600);

/// Between two looks at whether a part of the network was cut off: there may be ten thousand that are suspected.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// For so long after a part of the network has come back no member of it is suspected: until then what is said of it
/// may be from before.
const DOUBT: Duration = Duration::from_secs(300);

/// Members that are looked for at one destination. Honest ones have theirs for themselves; that many liars share one must
/// not make what comes from it cost more.
const MAX_AT: usize = 4;

/// How far a member's suspicions are listened to.
#[derive(Debug, Clone, Copy, Default)]
struct Confirmer {
    made: Bucket,
    refuted: Bucket,
}

/// One member. There may be ten thousand: what is known of few of them only is in [`Contact`].
#[derive(Debug)]
pub(super) struct Member {
    pub(super) record: VerifiedRecord,
    /// Its last liveness message, if that is newer than its record.
    pub(super) liveness_message: Option<Box<Signed<LivenessMessage>>>,
    /// When this node learned of it, Unix time in seconds.
    pub(super) created: u64,
    /// When it was last known to be there, Unix time in seconds.
    last_seen: Option<NonZeroU64>,
    contact: Option<Box<Contact>>,
}

/// What this node has to do with a member, and what others say of it.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// When its last control message came, on the monotonic clock.
    pub(super) last_heard: Option<Duration>,
    /// That came from its primary destination, though its record names a fallback.
    at_primary: bool,
    /// The member through which alone it answers.
    pub(super) via: Option<NodeId>,
    /// Round trip of the last ping that it answered itself.
    pub(super) rtt: Option<Duration>,
    /// This node could not reach it itself.
    pub(super) unreached: bool,
    /// Who said since its last statement that it cannot be reached.
    suspicions: BTreeMap<NodeId, Signed<Suspicion>>,
    /// When it was last told of them.
    pub(super) told_at: Option<Duration>,
    /// When the first of them came, on the monotonic clock.
    suspected_since: Option<Duration>,
    /// When the last of them came.
    suspected_at: Option<Duration>,
    /// When what was said of it was dropped, because others that fell silent with it are there again.
    doubted_at: Option<Duration>,
    /// What readers of events were last told of whether it is there, if that is not that it is.
    told_liveness: Option<meshd::Liveness>,
}

impl Member {
    pub(super) fn new(
        record: VerifiedRecord,
        liveness_message: Option<Signed<LivenessMessage>>,
        created: u64,
        last_seen: Option<u64>,
    ) -> Self {
        let last_seen = last_seen.and_then(NonZeroU64::new);
        Self { record, liveness_message: liveness_message.map(Box::new), created, last_seen, contact: None }
    }

    /// When it was last known to be there, Unix time in seconds.
    pub(super) fn last_seen(&self) -> Option<u64> {
        self.last_seen.map(NonZeroU64::get)
    }

    /// Whether it takes its control messages there.
    pub(super) fn is_at(&self, control: &DestinationHash) -> bool {
        self.record.controls().any(|own| own == *control)
    }

    /// It was there at this Unix time in seconds.
    pub(super) fn saw(&mut self, unix: u64) {
        self.last_seen = NonZeroU64::new(unix);
    }

    pub(super) fn node(&self) -> NodeId {
        self.record.value.node
    }

    /// The sequence number of its last statement, which is its incarnation number in SWIM.
    pub(super) fn sequence(&self) -> u64 {
        self.liveness_message
            .as_ref()
            .map_or(0, |message| message.value.sequence)
            .max(self.record.value.sequence)
    }

    pub(super) fn entry(&self) -> Entry {
        told(&self.record.value, self.liveness_message.as_ref().map(|message| &message.value))
    }

    fn fingerprint(&self) -> u128 {
        if self.liveness_message.is_some() { fingerprint(&self.entry()) } else { self.record.fingerprint() }
    }

    /// A destination at which it may be reached. If it has left the one in its record without this node's hearing of
    /// that, its primary destination is the only way.
    pub(super) fn way(&self, rng: &mut impl Rng) -> Destination {
        let (record, contact) = (&self.record.value, self.contact());
        let perhaps_primary = contact.unreached || contact.last_heard.is_none();
        match &record.primary {
            Some(primary) if contact.at_primary || perhaps_primary && rng.random() => primary.destination,
            _ => record.control.destination,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.liveness_message.as_ref().is_some_and(|message| message.value.presence == Presence::Away)
    }

    pub(super) fn contact(&self) -> &Contact {
        static NONE: LazyLock<Contact> = LazyLock::new(Contact::default);
        self.contact.as_deref().unwrap_or(&NONE)
    }

    pub(super) fn contact_mut(&mut self) -> &mut Contact {
        self.contact.get_or_insert_default()
    }

    pub(super) fn suspicions(&self) -> impl Iterator<Item = &Signed<Suspicion>> {
        self.contact().suspicions.values()
    }

    /// It has given a sign of life: what was said before does not hold any more. Returns who has said it.
    fn clear(&mut self) -> Vec<NodeId> {
        let Some(contact) = &mut self.contact else { return Vec::new() };
        contact.suspected_since = None;
        contact.suspected_at = None;
        contact.unreached = false;
        std::mem::take(&mut contact.suspicions).into_keys().collect()
    }
}

/// What became of something that was to be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// It is newer than what was known.
    News,
    /// It is not.
    Known,
    /// It is of a node that is not known.
    Refused,
}

/// What became of a record that was to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordMerge {
    /// It is newer than what was known.
    News {
        /// Certificates that do not stand against those of its chain.
        fallen: Vec<CertificateId>,
        /// Members that are out with them.
        out: Vec<NodeId>,
    },
    /// It is not.
    Known,
    /// Its chain contains a certificate that was revoked or resigned.
    Ended,
    /// Its chain contains a certificate against which another stands.
    Falls {
        /// Who holds the addresses.
        holder: NodeId,
        /// The addresses.
        range: AddressRange,
        /// Who has delegated them twice.
        issuer: NodeId,
    },
    /// There is no room, or the addresses have changed their holder a short time ago.
    Refused,
}

/// What became of the end of a membership that was to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndingMerge {
    /// It was not known, and ends these memberships.
    News(Vec<NodeId>),
    /// It says no more than what was known.
    Known,
    /// There is no room.
    Full,
}

/// A slot for what is known of one node.
#[derive(Debug)]
enum Slot {
    Member(Member),
    /// This node itself, or the end of a membership; none in a free slot.
    Entry(Option<Box<Entry>>),
}

#[derive(Debug, Default)]
struct Slots(Vec<Slot>);

impl Slots {
    fn member(&self, place: u32) -> Option<&Member> {
        match self.0.get(place as usize) {
            Some(Slot::Member(member)) => Some(member),
            _ => None,
        }
    }

    fn member_mut(&mut self, place: u32) -> Option<&mut Member> {
        match self.0.get_mut(place as usize) {
            Some(Slot::Member(member)) => Some(member),
            _ => None,
        }
    }
}

impl Entries for Slots {
    fn position(&self, place: u32) -> Position {
        match &self.0[place as usize] {
            Slot::Member(member) => Position::member(member.record.value.node),
            Slot::Entry(entry) => entry.as_deref().unwrap_or(&nothing(NodeId([0; 32]))).position(),
        }
    }

    fn entry(&self, place: u32) -> Entry {
        match &self.0[place as usize] {
            Slot::Member(member) => member.entry(),
            Slot::Entry(entry) => entry.as_deref().copied().unwrap_or(nothing(NodeId([0; 32]))),
        }
    }

    fn fingerprint(&self, place: u32) -> u128 {
        match &self.0[place as usize] {
            Slot::Member(member) => member.fingerprint(),
            Slot::Entry(entry) => entry.as_deref().map_or(0, fingerprint),
        }
    }
}

/// Slots in the order of a number that several of them may share.
#[derive(Debug, Default)]
struct Order(Vec<(u32, u32)>);

impl Order {
    fn insert(&mut self, number: u32, place: u32) {
        if let Err(at) = self.0.binary_search(&(number, place)) {
            self.0.insert(at, (number, place));
        }
    }

    fn remove(&mut self, number: u32, place: u32) {
        if let Ok(at) = self.0.binary_search(&(number, place)) {
            self.0.remove(at);
        }
    }

    /// The places with this number.
    fn of(&self, number: u32) -> impl Iterator<Item = u32> {
        let start = self.0.partition_point(|(other, _)| *other < number);
        self.0[start..].iter().take_while(move |(other, _)| *other == number).map(|(_, place)| *place)
    }
}

/// Members by the address block to which they belong.
#[derive(Debug, Default)]
struct Shares {
    blocks: Vec<(u32, Vec<u32>)>,
    index: HashMap<u32, usize>,
}

impl Shares {
    fn insert(&mut self, share: u32, place: u32) {
        let at = *self.index.entry(share).or_insert_with(|| {
            self.blocks.push((share, Vec::new()));
            self.blocks.len() - 1
        });
        self.blocks[at].1.push(place);
    }

    fn remove(&mut self, share: u32, place: u32) {
        let Some(at) = self.index.get(&share).copied() else { return };
        let places = &mut self.blocks[at].1;
        places.retain(|other| *other != place);
        if places.is_empty() {
            self.index.remove(&share);
            self.blocks.swap_remove(at);
            if let Some((moved, _)) = self.blocks.get(at) {
                self.index.insert(*moved, at);
            }
        }
    }

    /// How many members a block has.
    fn len(&self, share: u32) -> usize {
        self.index.get(&share).map_or(0, |at| self.blocks[*at].1.len())
    }

    /// The places of the block with the most members.
    fn fullest(&self) -> Option<&(u32, Vec<u32>)> {
        self.blocks.iter().max_by_key(|(share, places)| (places.len(), *share))
    }

    /// A member of a block, both drawn by lot.
    fn draw(&self, rng: &mut impl Rng) -> Option<u32> {
        let (_, places) = self.blocks.choose(rng)?;
        places.choose(rng).copied()
    }
}

/// All other members.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The network's subnet.
    subnet: Ipv4Subnet,
    slots: Slots,
    /// Slots that can be used again.
    free: Vec<u32>,
    /// How many of the places have a member.
    count: usize,
    /// All places by node id, or by that of the end of a membership.
    index: Index,
    /// Members by the beginnings of the hashes of where they take control messages. Several may say so of one place; that
    /// takes it from none.
    by_control: Order,
    shares: Shares,
    /// Members that were suspected since their last statement: time, or the number of members, may change their
    /// liveness.
    suspects: BTreeSet<NodeId>,
    /// How memberships have ended.
    endings: Endings,
    /// The certificates of the members' chains and of this node's own.
    certificates: Certificates,
    local_chain: Option<Chain>,
    confirmers: HashMap<NodeId, Confirmer>,
    /// When it is looked again at the earliest whether a part of the network was cut off.
    doubt_at: Duration,
    /// Who suspects this node, of which of its statements, and when that came.
    against_local: BTreeMap<NodeId, (u64, Duration)>,
    /// No member's WireGuard key has expired before, Unix time in seconds.
    first_end: u64,
    /// When any of them was last heard, on the monotonic clock.
    last_heard: Option<Duration>,
    /// What readers of events have not been told yet.
    events: Vec<EventKind>,
    /// Of whom they may have to be told whether it is there.
    unsettled: BTreeSet<NodeId>,
}

impl Members {
    /// No other members yet, of a network with this subnet.
    pub(super) fn new(subnet: Ipv4Subnet, local_chain: Chain) -> Self {
        let mut members = Self { subnet, first_end: u64::MAX, ..Self::default() };
        members.set_local_chain(local_chain);
        members
    }

    /// This node's own chain is another now.
    pub(super) fn set_local_chain(&mut self, chain: Chain) {
        self.certificates.add(&chain);
        if let Some(before) = self.local_chain.replace(chain) {
            self.certificates.remove(&before);
        }
    }

    /// Takes in a member as it was known before.
    pub(super) fn restore(&mut self, member: Member) {
        let node = member.node();
        let chain = &member.record.value.chain;
        if !is_uncontested(&self.certificates, chain)
            || self.endings.against(chain).is_some()
            || self.index.find(&self.slots, &Position::member(node)).is_some()
        {
            return;
        }
        if self.count < MAX_MEMBERS {
            if member.is_away() {
                self.unsettled.insert(node);
            }
            self.add(member);
        }
    }

    /// Takes in a member that was not known.
    fn add(&mut self, member: Member) -> u32 {
        let (controls, share): (Vec<DestinationHash>, u32) =
            (member.record.controls().collect(), self.share_of(&member));
        self.certificates.add(&member.record.value.chain);
        self.first_end = self.first_end.min(member.record.value.wireguard.value.not_after);
        let place = self.put(Slot::Member(member));
        self.count += 1;
        self.shares.insert(share, place);
        for control in controls {
            self.by_control.insert(start_of(&control), place);
        }
        place
    }

    /// In how many address blocks there are other members.
    pub(super) fn blocks(&self) -> usize {
        self.shares.blocks.len()
    }

    /// The address block to which a member belongs.
    pub(super) fn share_of(&self, member: &Member) -> u32 {
        self.subnet.share_of(member.record.ipv4())
    }

    /// The place of the signer of an ending; none for the founder.
    pub(super) fn place_of_signer(&self, ending: &Ending) -> Option<super::shares::AddressInBlock> {
        place_of_signer(ending, &self.subnet)
    }

    /// The address block of whoever has stated what there is about an entry; none for the founder's endings, and for what is
    /// not known.
    pub(super) fn block_about(&self, entry: &Entry) -> Option<u32> {
        match self.endings.get(&entry.node) {
            Some(ending) => self.place_of_signer(ending).map(|place| place.block),
            None => self.get(&entry.node).map(|member| self.share_of(member)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.index.places().filter_map(|place| self.slots.member(place))
    }

    fn find(&self, node: &NodeId) -> Option<u32> {
        self.index
            .find(&self.slots, &Position::member(*node))
            .filter(|place| self.slots.member(*place).is_some())
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&Member> {
        self.index.find(&self.slots, &Position::member(*node)).and_then(|place| self.slots.member(place))
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Member> {
        self.index.find(&self.slots, &Position::member(*node)).and_then(|place| self.slots.member_mut(place))
    }

    /// The places of all members, in no order that means anything: less to remember than their ids.
    pub(super) fn places(&self) -> Vec<u32> {
        (0..u32::try_from(self.slots.0.len()).unwrap_or(u32::MAX)).collect()
    }

    /// The member that has a place now.
    pub(super) fn at_place(&self, place: u32) -> Option<&Member> {
        self.slots.member(place)
    }

    /// Members that were suspected since their last statement.
    pub(super) fn suspects(&self) -> impl Iterator<Item = &Member> {
        self.suspects.iter().filter_map(|node| self.get(node))
    }

    /// Those whose WireGuard key expired before this, Unix time in seconds. Mostly none, and then it takes no time.
    pub(super) fn ended_before(&mut self, unix: u64) -> Vec<NodeId> {
        if self.first_end >= unix {
            return Vec::new();
        }
        let end = |member: &Member| member.record.value.wireguard.value.not_after;
        self.first_end = self.iter().map(end).min().unwrap_or(u64::MAX);
        self.iter().filter(|member| end(member) < unix).map(Member::node).collect()
    }

    /// Keeps something in a place of its own.
    fn put(&mut self, content: Slot) -> u32 {
        let place = if let Some(place) = self.free.pop() {
            self.slots.0[place as usize] = content;
            place
        } else {
            self.slots.0.push(content);
            u32::try_from(self.slots.0.len() - 1).expect("members are bounded")
        };
        self.index.insert(&self.slots, place);
        place
    }

    /// Sets what is known of a node that is no other member.
    fn set_entry(&mut self, entry: Entry) {
        match self.index.find(&self.slots, &entry.position()) {
            Some(place) => {
                let before = self.slots.fingerprint(place);
                self.slots.0[place as usize] = Slot::Entry(Some(Box::new(entry)));
                self.index.replaced(&self.slots, place, before);
            }
            None => {
                self.put(Slot::Entry(Some(Box::new(entry))));
            }
        }
    }

    /// Nothing is known any more of what is at a position.
    fn take(&mut self, at: &Position) -> Option<Slot> {
        let place = self.index.find(&self.slots, at)?;
        self.index.remove(&self.slots, place);
        self.free.push(place);
        self.slots.0.get_mut(place as usize).map(|content| std::mem::replace(content, Slot::Entry(None)))
    }

    /// How memberships have ended.
    pub(super) fn endings(&self) -> &Endings {
        &self.endings
    }

    /// The certificates of known chains.
    pub(super) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// What is known, for comparisons. The own entry is in there too.
    pub(super) fn index(&self) -> KnownEntries<'_, impl Entries> {
        KnownEntries { index: &self.index, entries: &self.slots }
    }

    /// This node's own last statement, for comparisons.
    pub(super) fn set_local(&mut self, entry: Entry) {
        self.set_entry(entry);
    }

    /// Whether a record is newer than what is known of its node.
    pub(super) fn is_newer(&self, record: &Record) -> bool {
        self.get(&record.node).map(|member| member.record.value.sequence) < Some(record.sequence)
    }

    /// Whether a liveness message is news, and of somebody who is known.
    pub(super) fn is_later(&self, liveness_message: &LivenessMessage) -> bool {
        self.get(&liveness_message.node)
            .map(Member::sequence)
            .is_some_and(|sequence| sequence < liveness_message.sequence)
    }

    /// Whether a suspicion is news, and needed.
    pub(super) fn is_suspicion_needed(&self, suspicion: &Suspicion, now: Duration) -> bool {
        self.get(&suspicion.subject).is_some_and(|member| {
            let suspicions = &member.contact().suspicions;
            suspicion.sequence >= member.sequence()
                && member.contact().doubted_at.is_none_or(|doubted| now >= doubted + DOUBT)
                && !suspicions.contains_key(&suspicion.confirmer)
                && suspicions.len() < CONFIRMATIONS
        })
    }

    /// Takes in a record.
    pub(super) fn merge_record(&mut self, record: VerifiedRecord, now: Duration, unix: u64) -> RecordMerge {
        let node = record.value.node;
        if !self.is_newer(&record.value) {
            return RecordMerge::Known;
        }
        if self.endings.against(&record.value.chain).is_some() {
            return RecordMerge::Ended;
        }
        let before = self.get(&node).map(|member| member.record.clone());
        let before = before.as_ref().map(|before| &before.value.chain);
        let (fallen, contested) = match contest(&mut self.certificates, &record.value.chain, before) {
            Contest::Stands { falls, contested } => (falls, contested),
            Contest::Falls { holder, range, issuer, .. } => {
                return RecordMerge::Falls { holder, range, issuer };
            }
        };
        if !self.certificates.may_change(&contested, now) {
            return RecordMerge::Refused;
        }
        let share = self.subnet.share_of(record.ipv4());
        if self.find(&node).is_none() && self.count >= MAX_MEMBERS && !self.make_room(share) {
            return RecordMerge::Refused;
        }
        let out = if fallen.is_empty() { Vec::new() } else { self.remove_below(&fallen, &node) };
        self.set_record(record, now, unix);
        RecordMerge::News { fallen, out }
    }

    /// Makes room for a member of an address block at the expense of a block with more.
    fn make_room(&mut self, share: u32) -> bool {
        let Some((_, places)) = self.shares.fullest() else { return false };
        if places.len() <= self.shares.len(share) + 1 {
            return false;
        }
        let members = places.iter().filter_map(|place| self.slots.member(*place));
        let last = members.max_by_key(|member| member.record.ipv4()).map(Member::node);
        last.inspect(|node| self.remove(node)).is_some()
    }

    /// Removes members, except one, whose chains contain one of these certificates. Returns them.
    fn remove_below(&mut self, certificates: &[CertificateId], except: &NodeId) -> Vec<NodeId> {
        let is_below = |member: &&Member| {
            member.node() != *except
                && member.record.value.chain.links().iter().any(|link| certificates.contains(link.id()))
        };
        let out: Vec<NodeId> = self.iter().filter(is_below).map(Member::node).collect();
        out.iter().for_each(|node| self.remove(node));
        out
    }

    /// Takes in a record that is newer than what is known of its node.
    fn set_record(&mut self, record: VerifiedRecord, now: Duration, unix: u64) {
        let node = record.value.node;
        let Some(place) = self.find(&node) else {
            let name = record.value.name.to_string();
            self.events.push(EventKind::MemberAdded { node_id: node.to_string(), name });
            self.add(Member::new(record, None, unix, None));
            return;
        };
        let before = self.slots.fingerprint(place);
        let share = self.subnet.share_of(record.ipv4());
        self.certificates.add(&record.value.chain);
        let Some(member) = self.slots.member_mut(place) else { return };
        let known = std::mem::replace(&mut member.record, record);
        self.certificates.remove(&known.value.chain);
        for control in known.controls() {
            self.by_control.remove(start_of(&control), place);
        }
        for control in member.record.controls() {
            self.by_control.insert(start_of(&control), place);
        }
        self.shares.remove(self.subnet.share_of(known.ipv4()), place);
        self.shares.insert(share, place);
        if shown(&known) != shown(&member.record) {
            let name = member.record.value.name.to_string();
            self.events.push(EventKind::MemberChanged { node_id: node.to_string(), name });
        }
        self.first_end = self.first_end.min(member.record.value.wireguard.value.not_after);
        if let Some(contact) = &mut member.contact {
            contact.at_primary = false;
        }
        let mut refuted = Vec::new();
        if member
            .liveness_message
            .as_ref()
            .is_none_or(|message| message.value.sequence < member.record.value.sequence)
        {
            refuted = member.clear();
            member.liveness_message = None;
            self.suspects.remove(&node);
            self.unsettled.insert(node);
        }
        self.index.replaced(&self.slots, place, before);
        self.note_refuted(&refuted, now);
    }

    /// Takes in a liveness message, whose signature has been verified.
    pub(super) fn merge_liveness_message(
        &mut self,
        liveness_message: Signed<LivenessMessage>,
        now: Duration,
    ) -> Merge {
        let node = liveness_message.value.node;
        let Some(place) = self.find(&node) else { return Merge::Refused };
        let before = self.slots.fingerprint(place);
        let Some(member) = self.slots.member_mut(place) else { return Merge::Refused };
        if member.sequence() >= liveness_message.value.sequence {
            return Merge::Known;
        }
        let refuted = member.clear();
        self.suspects.remove(&node);
        let presence = liveness_message.value.presence;
        member.liveness_message = Some(Box::new(liveness_message));
        self.index.replaced(&self.slots, place, before);
        self.unsettled.insert(node);
        if presence == Presence::Present {
            self.note_refuted(&refuted, now);
        }
        Merge::News
    }

    /// Takes in the end of a membership, which has been verified.
    pub(super) fn merge_ending(&mut self, ending: Ending) -> EndingMerge {
        let (id, displaced) = match self.endings.add(ending, &self.subnet) {
            Added::New { id, displaced } => (id, displaced),
            Added::Known => return EndingMerge::Known,
            Added::Full => return EndingMerge::Full,
        };
        for other in displaced {
            self.take(&Position::ending(other));
        }
        self.set_entry(Entry { node: id, record: 0, liveness: 0, ended: true });
        let Some(ending) = self.endings.get(&id) else { return EndingMerge::Full };
        let over = |member: &&Member| ending.voids(&member.record.value.chain).is_some();
        let out: Vec<NodeId> = self.iter().filter(over).map(Member::node).collect();
        out.iter().for_each(|node| self.remove(node));
        EndingMerge::News(out)
    }

    /// Takes in a suspicion, whose signature has been verified. False if it is of or against nobody that is known,
    /// too many come from this confirmer, or it is out of date.
    pub(super) fn merge_suspicion(
        &mut self,
        suspicion: Signed<Suspicion>,
        local: &NodeId,
        now: Duration,
    ) -> bool {
        let Suspicion { confirmer, subject, .. } = suspicion.value;
        if !self.is_suspicion_needed(&suspicion.value, now) {
            return false;
        }
        if confirmer != *local {
            if self.find(&confirmer).is_none() {
                return false;
            }
            let trust = self.confirmers.entry(confirmer).or_default();
            if !trust.refuted.wait(REFUTED, now).is_zero() || !trust.made.try_take(SUSPICIONS, now) {
                return false;
            }
        }
        if let Some(member) = self.get_mut(&subject) {
            let contact = member.contact_mut();
            contact.suspicions.insert(confirmer, suspicion);
            contact.suspected_since.get_or_insert(now);
            contact.suspected_at = Some(now);
            self.suspects.insert(subject);
            self.unsettled.insert(subject);
        }
        true
    }

    /// How many confirmers it takes until a member counts as unreachable.
    fn confirmers_needed(&self) -> usize {
        CONFIRMATIONS.min(self.count.max(1))
    }

    /// Whether a suspicion has enough confirmers.
    fn is_confirmed(&self, member: &Member) -> bool {
        member.contact().suspicions.len() >= self.confirmers_needed()
    }

    /// This node itself is suspected after its last statement, of which the sequence number is given, or a later one.
    /// Returns whether that is to be answered: before there are enough for a verdict.
    pub(super) fn suspect_local(
        &mut self,
        confirmer: NodeId,
        suspected: u64,
        sequence: u64,
        now: Duration,
    ) -> bool {
        if self.find(&confirmer).is_none() {
            return false;
        }
        // Others may have heard of it later, and drop it later.
        self.against_local.retain(|_, (of, since)| *of >= sequence && now < *since + 2 * LONE);
        self.against_local.insert(confirmer, (suspected, now));
        let answers = self.against_local.len() >= FEWEST_ANSWERED.min(self.confirmers_needed() - 1).max(1);
        if answers {
            self.against_local.clear();
        }
        answers
    }

    /// Drops what was said of a member. Returns who has said it.
    fn refute(&mut self, node: NodeId) -> Vec<NodeId> {
        self.suspects.remove(&node);
        self.unsettled.insert(node);
        self.get_mut(&node).map(Member::clear).unwrap_or_default()
    }

    /// Drops what too few have said of a member for a verdict, and nobody has confirmed since; not while a part of the
    /// network is cut off, of which not everybody hears everything.
    pub(super) fn drop_unconfirmed_suspicions(&mut self, now: Duration) {
        if self.is_split() {
            return;
        }
        let is_lone = |member: &&Member| {
            let suspected_at = member.contact().suspected_at;
            !self.is_confirmed(member) && suspected_at.is_some_and(|suspected| now >= suspected + LONE)
        };
        let lone: Vec<NodeId> = self.suspects().filter(is_lone).map(Member::node).collect();
        for node in lone {
            let confirmers = self.refute(node);
            self.note_refuted(&confirmers, now);
        }
    }

    /// Whether so many members are suspected, and by so many, that a part of the network must be cut off. A few liars
    /// could suspect all.
    fn are_cut_off<'a>(&self, suspected: impl Iterator<Item = &'a Member>) -> bool {
        let size = SPLIT.max(self.count / 16);
        let (mut members, mut confirmers) = (0, HashSet::<&NodeId>::new());
        for member in suspected {
            members += 1;
            confirmers.extend(member.contact().suspicions.keys());
            if members >= size && confirmers.len() >= size {
                return true;
            }
        }
        false
    }

    /// Whether a part of the network seems to be cut off.
    pub(super) fn is_split(&self) -> bool {
        self.are_cut_off(self.suspects())
    }

    /// A member was heard. If many fell silent together with it, they may be back together too, and that all of them say
    /// so to everybody would be more than a network bears: what was said of them is dropped. Returns whether it was.
    pub(super) fn doubt(&mut self, node: &NodeId, now: Duration) -> bool {
        let suspected_since = |member: &Member| member.contact().suspected_since;
        let Some(since) = self.get(node).and_then(suspected_since) else { return false };
        if now < self.doubt_at {
            return false;
        }
        let together = || {
            self.suspects().filter(|member| {
                suspected_since(member).is_some_and(|other| other.abs_diff(since) <= TOGETHER)
            })
        };
        if !self.are_cut_off(together()) {
            self.doubt_at = now + LOOK_AGAIN;
            return false;
        }
        let together: Vec<NodeId> = together().map(Member::node).collect();
        for node in together {
            self.refute(node);
            if let Some(member) = self.get_mut(&node) {
                member.contact_mut().doubted_at = Some(now);
            }
        }
        true
    }

    /// These have suspected one that was there.
    fn note_refuted(&mut self, confirmers: &[NodeId], now: Duration) {
        for confirmer in confirmers {
            if let Some(trust) = self.confirmers.get_mut(confirmer) {
                // No more than the quota: even one that has suspected half the network is listened to again in time.
                trust.refuted.try_take(REFUTED, now);
            }
        }
    }

    /// Forgets a member.
    pub(super) fn remove(&mut self, node: &NodeId) {
        let Some(place) = self.find(node) else { return };
        let Some(Slot::Member(member)) = self.take(&Position::member(*node)) else { return };
        self.count -= 1;
        for control in member.record.controls() {
            self.by_control.remove(start_of(&control), place);
        }
        self.shares.remove(self.share_of(&member), place);
        self.certificates.remove(&member.record.value.chain);
        self.confirmers.remove(node);
        self.suspects.remove(node);
        self.unsettled.remove(node);
        let name = member.record.value.name.to_string();
        self.events.push(EventKind::MemberRemoved { node_id: node.to_string(), name });
    }

    /// What there is for one who has no more than this.
    pub(super) fn items_beyond(&self, theirs: &Entry) -> Vec<Item> {
        if let Some(ending) = self.endings.get(&theirs.node) {
            return if theirs.ended { Vec::new() } else { vec![ending.item()] };
        }
        let Some(member) = self.get(&theirs.node) else { return Vec::new() };
        let mine = member.entry();
        let mut items = Vec::new();
        if mine.record > theirs.record && !theirs.ended {
            items.push(Item::Record(Box::new((*member.record).clone())));
        }
        if let Some(liveness_message) = &member.liveness_message
            && has_more(&Entry { record: 0, ..mine }, theirs)
        {
            items.push(Item::Liveness((**liveness_message).clone()));
        }
        items
    }

    /// A message came from this destination. Returns whose it is.
    pub(super) fn heard(&mut self, control: &DestinationHash, now: Duration, unix: u64) -> Vec<NodeId> {
        let nodes: Vec<NodeId> = self.at(control).collect();
        for node in &nodes {
            if let Some(member) = self.get_mut(node) {
                member.saw(unix);
                let at_primary = member.record.control() != control;
                let contact = member.contact_mut();
                contact.at_primary = at_primary;
                contact.last_heard = Some(now);
                contact.unreached = false;
                contact.via = None;
                if contact.told_liveness.is_some() {
                    self.unsettled.insert(*node);
                }
                self.last_heard = Some(now);
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
        self.at(control).next().is_some()
    }

    /// Who takes its control messages there; of many that say so only some.
    pub(super) fn at(&self, control: &DestinationHash) -> impl Iterator<Item = NodeId> {
        let there = self.by_control.of(start_of(control)).filter_map(|place| self.slots.member(place));
        there.filter(move |member| member.is_at(control)).map(Member::node).take(MAX_AT)
    }

    /// Whether a member is there, as far as is known. `suspicion_timeout` is how long it may take to answer a
    /// suspicion.
    pub(super) fn liveness(
        &self,
        member: &Member,
        now: Duration,
        suspicion_timeout: Duration,
    ) -> meshd::Liveness {
        if member.is_away() {
            return meshd::Liveness::Away;
        }
        let contact = member.contact();
        let Some(suspected_at) = contact.suspected_at else { return meshd::Liveness::Present };
        // Who has just spoken to this node is there, whatever others say.
        if contact.last_heard.is_some_and(|heard| heard >= suspected_at) {
            return meshd::Liveness::Present;
        }
        if self.is_confirmed(member) && now >= suspected_at + suspicion_timeout {
            meshd::Liveness::Unreachable
        } else {
            meshd::Liveness::Suspected
        }
    }

    /// Notes for readers of events whose liveness is another than they were told. Of those who are suspected it is
    /// looked at if `all`. Returns whether there is any.
    pub(super) fn update_liveness(
        &mut self,
        all: bool,
        now: Duration,
        suspicion_timeout: Duration,
    ) -> Option<u64> {
        let (mut changed, mut returns) = (false, 0);
        let mut nodes = std::mem::take(&mut self.unsettled);
        if all {
            nodes.extend(&self.suspects);
        }
        for node in nodes {
            let Some(member) = self.get(&node) else { continue };
            let liveness = self.liveness(member, now, suspicion_timeout);
            let told = member.contact().told_liveness.unwrap_or(meshd::Liveness::Present);
            if liveness == told {
                continue;
            }
            returns +=
                u64::from((told, liveness) == (meshd::Liveness::Unreachable, meshd::Liveness::Present));
            let name = member.record.value.name.to_string();
            self.events.push(EventKind::MemberLiveness { node_id: node.to_string(), name, liveness });
            if let Some(member) = self.get_mut(&node) {
                member.contact_mut().told_liveness =
                    Some(liveness).filter(|liveness| *liveness != meshd::Liveness::Present);
            }
            changed = true;
        }
        changed.then_some(returns)
    }

    /// What readers of events have not been told yet.
    pub(super) fn poll_events(&mut self) -> Vec<EventKind> {
        std::mem::take(&mut self.events)
    }

    /// Up to `count` members, drawn by lot among those that pass: each address block as often as the next.
    pub(super) fn sample(
        &self,
        count: usize,
        pass: impl Fn(&Member) -> bool,
        rng: &mut impl Rng,
    ) -> Vec<&Member> {
        // Mostly it takes few attempts, whatever the size of the network.
        let mut drawn: Vec<u32> = Vec::new();
        for _ in 0..8 * count {
            let Some(place) = self.shares.draw(rng).filter(|_| drawn.len() < count) else { break };
            if self.slots.member(place).is_some_and(&pass) && !drawn.contains(&place) {
                drawn.push(place);
            }
        }
        if drawn.len() == count {
            return drawn.into_iter().filter_map(|place| self.slots.member(place)).collect();
        }
        self.iter().filter(|member| pass(member)).sample(rng, count)
    }
}

/// What of a record users are shown, and so are told of when it changes.
fn shown(record: &VerifiedRecord) -> impl PartialEq {
    let Record { name, control, data, chain, .. } = &record.value;
    let ranges = chain.last().map(|link| link.ranges.clone());
    (name.clone(), record.ipv4(), ranges, record.wireguard_key(), **control, **data)
}

/// The beginning of a destination's hash.
fn start_of(control: &DestinationHash) -> u32 {
    u32::from_be_bytes(*control.0.first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use i2plan_proto::address::AddressRanges;
    use i2plan_proto::membership::Delegation;
    use i2plan_testing as testing;

    use super::*;

    /// The record of node 3, which another has invited that holds 10.42.3.0/24 by a certificate of the founder.
    fn invited_by(inviter: u8, serial: u64, sequence: u64) -> VerifiedRecord {
        let founder = testing::chain(0);
        let under = |chain: &Chain, issuer: u8, subject: u8, range: AddressRange, serial: u64| {
            let ranges = AddressRanges::from(range);
            let grant = Delegation { ranges, serial, since: serial, ..testing::delegation(issuer, subject) };
            chain.extended(&testing::signed(chain.certificate(grant), issuer)).unwrap()
        };
        let range = |last: u8, prefix: u8| AddressRange::new([10, 42, 3, last].into(), prefix).unwrap();
        let chain = under(&under(&founder, 0, inviter, range(0, 24), serial), inviter, 3, range(16, 28), 1);
        let record = Record { sequence, chain, ..testing::record(3).value };
        VerifiedRecord::new(testing::signed(record, 3), &testing::charter(0)).unwrap()
    }

    #[test]
    fn the_chain_that_a_member_had_before_contests_nothing() {
        for (before, after) in [(5, 9), (9, 5)] {
            let mut members = Members::new(Ipv4Subnet::DEFAULT, testing::chain(8));
            let mut merge = |record| members.merge_record(record, Duration::ZERO, testing::NOW);
            assert!(matches!(merge(invited_by(1, before, 1)), RecordMerge::News { .. }));
            let after = merge(invited_by(2, after, 2));
            assert_eq!(after, RecordMerge::News { fallen: Vec::new(), out: Vec::new() });
            assert_eq!(members.len(), 1);
            let told = members.poll_events();
            assert!(!told.iter().any(|event| matches!(event, EventKind::MemberRemoved { .. })), "{told:?}");
        }
    }
}
