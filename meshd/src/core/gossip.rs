//! How news spreads: what comes in is checked, taken in and passed on; regular comparisons find what was missed; and
//! members find out of each other whether they are there.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, Statement};
use i2plan_ipc::api::meshd::{self, What};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{BadSignature, NodeId, Signable as _, Signed};
use i2plan_proto::membership::Chain;
use i2plan_proto::message::{
    Entry, GOOD_LEN, Gossip, Item, MAX_ENTRIES, MAX_ITEMS, Message, Position, Range,
};
use i2plan_proto::pulse::{Life, Pulse};
use i2plan_proto::record::{Record, RecordError};
use i2plan_proto::wireguard::WireGuardCertificate;
use rand::seq::{IteratorRandom as _, SliceRandom as _};
use rand::{Rng, RngExt as _};
use tracing::{debug, info, warn};

use super::budget::{Asker, block};
use super::compare::{has_more, nothing};
use super::detector::{Acked, Task};
use super::endings::Ending;
use super::members::{ACCUSERS, EndingMerge, Member, Merge, RecordMerge};
use super::rumors::{FANOUT, Topic};
use super::shares::Place;
use super::verified::VerifiedRecord;
use super::{Action, FORGET_AFTER, Mesh, Now, Pending, SAVE_PULSES_AFTER, SAVE_RECORDS_AFTER};

/// How many members hear of the own record at once.
const ANNOUNCED: usize = 3;

/// After a change of the own record it is announced so often, at growing distances.
const ANNOUNCEMENTS: u32 = 5;

/// Distance of the first two announcements; each further one is twice as long.
const FIRST_DISTANCE: Duration = Duration::from_secs(2);

/// A comparison that showed a difference is followed by another after this. Any of the five messages that it takes to
/// find one difference among a thousand members may be lost. While differences show and no news comes, each further
/// one waits twice as long.
const COMPARE_AGAIN: Duration = Duration::from_secs(3);

/// Comparisons in a heartbeat, if nothing differs. At 20 % loss a third of them finds what they should, and whom all rumors
/// have missed waits for two or three that do.
const COMPARISONS: f64 = 2.0;

/// Through how many others a member is pinged that has not answered for long.
const FEW_RELAYS: usize = 3;

/// In a network of no more members than this, records are always told and not just that they exist.
const SMALL: usize = 24;

/// So many of all members check an accusation for themselves.
const JURY: u64 = 6;

/// Nothing that is told takes fewer bytes.
const LEAST_NEWS: usize = 41;

/// What was news lately takes no more of a message than this, bytes: eight entries.
const RECENT_LEN: usize = 400;

/// How many members hear that this node leaves or shuts down.
const FAREWELLS: usize = 8;

/// A node that has been started again has compared what it knows with another member this long after their first
/// exchange, also if that has shown differences, or too few have shown that there are none.
const CAUGHT_UP_AFTER: Duration = Duration::from_secs(10);

/// A node that was started again leaves because its membership has ended after this at the earliest, if no member has
/// told it of a newer one until then.
const LEAVE_AFTER: Duration = Duration::from_secs(45);

/// A node that no member answers for so long after its start goes on with what it knows.
const ALONE_AFTER: Duration = Duration::from_secs(120);

/// A member is told again of what others say of it after this at the earliest.
const TELL_ACCUSED: Duration = Duration::from_secs(10);

/// Members of which it is noted at once that they have given a sign of life. They do so again.
const MAX_AWAKE: usize = 64;

/// Decides when the own record is announced, and when notes are compared.
#[derive(Debug)]
pub(super) struct Announcer {
    heartbeat: Duration,
    next_comparison: Duration,
    /// How often it was compared again since there was news, or since the last comparison of a round.
    again: u32,
    /// The comparison of this round is due then.
    next_round: Duration,
    announcements_left: u32,
    next_announcement: Duration,
}

impl Announcer {
    pub(super) fn new(heartbeat: Duration, now: Duration) -> Self {
        Self {
            heartbeat,
            next_comparison: now + heartbeat,
            again: 0,
            next_round: now + heartbeat,
            announcements_left: 0,
            next_announcement: now,
        }
    }

    pub(super) fn set_heartbeat(&mut self, heartbeat: Duration, now: Duration) {
        self.heartbeat = heartbeat;
        self.next_round = self.next_round.min(now + heartbeat);
        self.next_comparison = self.next_comparison.min(self.next_round);
    }

    /// The own record has changed.
    pub(super) fn news(&mut self, now: Duration) {
        self.announcements_left = ANNOUNCEMENTS;
        self.next_announcement = now;
    }

    pub(super) fn poll_timeout(&self) -> Duration {
        if self.announcements_left > 0 {
            self.next_announcement.min(self.next_comparison)
        } else {
            self.next_comparison
        }
    }

    /// Whether an announcement is due; then it is taken to be made.
    fn announces(&mut self, now: Duration) -> bool {
        let due = self.announcements_left > 0 && self.next_announcement <= now;
        if due {
            let done = ANNOUNCEMENTS - self.announcements_left;
            self.announcements_left -= 1;
            self.next_announcement = now + FIRST_DISTANCE * 2u32.pow(done);
        }
        due
    }

    /// Whether a comparison is due; then it is taken to be made.
    fn compares(&mut self, now: Duration, rng: &mut impl Rng) -> bool {
        let due = self.next_comparison <= now;
        if due {
            if self.next_round <= now {
                self.again = 0;
                // A quarter up or down, so that members that started together do not speak together.
                self.next_round = now + self.heartbeat.mul_f64(rng.random_range(0.75..1.25) / COMPARISONS);
            }
            self.next_comparison = self.next_round;
        }
        due
    }

    /// A comparison showed a difference.
    fn compare_again(&mut self, now: Duration) {
        let at = now + COMPARE_AGAIN * 2u32.pow(self.again.min(4));
        if at < self.next_comparison {
            self.next_comparison = at;
            self.again += 1;
        }
    }

    /// There was news: there may be more.
    fn compare_soon(&mut self, now: Duration) {
        self.again = 0;
        self.compare_again(now);
    }
}

/// Whether this node has compared what it knows with other members since its start. Until then it may have forgotten
/// what it has signed: its state may have been restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Not yet. It has said that it is there at this time on the monotonic clock.
    Waiting(Option<Duration>),
    /// The first exchange was at this time on the monotonic clock.
    Begun(Duration, Agreeing),
    /// It has, or there is no other member.
    Done,
}

/// The address blocks of members that have shown that they know no more. One alone could be lying.
type Agreeing = [Option<u32>; 2];

impl Comparison {
    /// Notes of a comparison with a member of this address block whether it has shown that nothing is missing here.
    /// There are members in so many blocks.
    fn compared(&mut self, block: u32, shows_all: bool, blocks: usize, now: Duration) {
        let (begun, mut agreeing) = match *self {
            Self::Waiting(_) => (now, Agreeing::default()),
            Self::Begun(begun, agreeing) => (begun, agreeing),
            Self::Done => return,
        };
        if shows_all && !agreeing.contains(&Some(block)) {
            let count = agreeing.iter().flatten().count() + 1;
            if count >= blocks.min(agreeing.len() + 1) {
                *self = Self::Done;
                return;
            }
            if let Some(place) = agreeing.iter_mut().find(|place| place.is_none()) {
                *place = Some(block);
            }
        }
        *self = Self::Begun(begun, agreeing);
    }

    pub(super) fn is_done(self, now: Duration) -> bool {
        match self {
            Self::Waiting(announced) => announced.is_some_and(|at| now >= at + ALONE_AFTER),
            Self::Begun(begun, _) => now >= begun + CAUGHT_UP_AFTER,
            Self::Done => true,
        }
    }
}

impl Mesh {
    /// Says and asks what is due.
    pub(super) fn gossip(&mut self, now: Now) {
        if self.own.is_none() {
            return;
        }
        if let Comparison::Waiting(announced) = &mut self.comparison_since_start {
            announced.get_or_insert(now.monotonic);
        }
        if self.leave_if_ended(now) {
            return;
        }
        self.refute(now);
        if self.announcer.announces(now.monotonic) {
            self.announce(now);
        }
        if self.announcer.compares(now.monotonic, &mut self.rng)
            && self.budget.may_compare(self.is_behind, now.monotonic)
        {
            // Whoever was not reached lately too: so the halves of a network find together again.
            if let Some(target) = self.draw(1, |_| true).pop() {
                let known = self.members.index();
                let opening = if self.is_behind {
                    known.opening_behind(self.rng.random())
                } else if self.endings_differ && self.rng.random_ratio(3, 4) {
                    known.opening_of_members()
                } else {
                    known.opening()
                };
                let compare = self.comparison(opening, now);
                self.send(&target, &compare, now);
            }
            self.members.drop_lone_accusations(now.monotonic);
            self.ping_unreachable(now);
        }
        self.detect(now);
        if self.rumors.is_due(now.monotonic) {
            self.tell_rumors(now);
        }
    }

    /// Tells a few the own record and compares notes with them. They answer: from that this node sees that it can be
    /// reached.
    fn announce(&mut self, now: Now) {
        let Some(own) = self.own.clone() else { return };
        let items = vec![Item::Record(Box::new(own))];
        let known = self.members.index();
        let opening = match self.comparison_since_start {
            Comparison::Done => known.opening(),
            Comparison::Waiting(_) | Comparison::Begun(..) => known.opening_to_be_answered(),
        };
        let compare = self.comparison(opening, now);
        for target in self.draw(ANNOUNCED, |_| true) {
            let gossip = Gossip { entries: Vec::new(), items: items.clone() };
            let number = self.rng.random();
            self.send(&target, &Message::Ping(number, gossip), now);
            self.send(&target, &compare, now);
        }
    }

    /// Where some members that pass, and that this node has not banned, take messages.
    fn draw(&mut self, count: usize, pass: impl Fn(&Member) -> bool) -> Vec<Destination> {
        let bans = &self.bans;
        let pass = |member: &Member| !bans.is_banned(&member.node()) && pass(member);
        let drawn = self.members.sample(count, pass, &mut self.rng);
        drawn.into_iter().map(|member| member.way(&mut self.rng)).collect()
    }

    fn detect(&mut self, now: Now) {
        if !self.budget.allows(now.monotonic) {
            self.detector.skip_probe(now.monotonic);
        }
        let (members, bans) = (&self.members, &self.bans);
        let member = |place| {
            let member = members.at_place(place).filter(|member| !bans.is_banned(&member.node()))?;
            Some((member.node(), *member.record.control()))
        };
        for task in self.detector.handle_timeout(now.monotonic, || members.places(), member, &mut self.rng) {
            match task {
                Task::Ping { node, number, relays, introduces } => {
                    self.ping(node, number, relays, introduces, now);
                }
                Task::Unreached { node, since } => self.handle_unreached(node, since, now),
            }
        }
    }

    /// Looks whether one that is held to be out of reach is there again. It may not know what is said of it, and until it is
    /// probed in turn can take hours.
    fn ping_unreachable(&mut self, now: Now) {
        let suspicion_timeout = self.settings.suspicion_timeout();
        let unreachable = |member: &&Member| {
            self.members.life(member, now.monotonic, suspicion_timeout) == meshd::Life::Unreachable
                && !self.bans.is_banned(&member.node())
        };
        let one = self.members.accused().filter(unreachable).choose(&mut self.rng);
        let Some(control) = one.map(|member| member.way(&mut self.rng)) else { return };
        let number = self.rng.random();
        self.send(&control, &Message::Ping(number, Gossip::default()), now);
    }

    fn ping(&mut self, node: NodeId, number: u64, relays: usize, introduces: bool, now: Now) {
        let Some(member) = self.members.get(&node) else { return };
        let control = member.way(&mut self.rng);
        // That it does not answer is known, and most that do not are down.
        let relays = if member.contact().unreached { relays.min(FEW_RELAYS) } else { relays };
        let mut gossip = self.some_gossip(GOOD_LEN / 2, now);
        if let Some(own) = self.own.clone().filter(|_| introduces && gossip.items.len() < MAX_ITEMS) {
            gossip.items.push(Item::Record(Box::new(own)));
        }
        self.send(&control, &Message::Ping(number, gossip), now);
        let reachable =
            |member: &Member| member.node() != node && !member.contact().unreached && !member.is_away();
        for relay in self.draw(relays, reachable) {
            self.detector.asked_relay(number, relay.hash());
            self.send(&relay, &Message::PingRequest(number, node, Gossip::default()), now);
        }
    }

    /// A probe has failed.
    fn handle_unreached(&mut self, node: NodeId, since: Duration, now: Now) {
        let alone = self.members.len() < 2;
        // Who has not heard of anybody meanwhile is cut off itself, and says nothing of others.
        let cut_off = self.members.last_heard().is_none_or(|heard| heard <= since);
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.is_away() || member.contact().last_heard.is_some_and(|heard| heard > since) {
            return;
        }
        if !std::mem::replace(&mut member.contact_mut().unreached, true) {
            info!(node = %node.short(), name = %member.record.value.name, "a member does not answer");
        }
        if cut_off && !alone {
            debug!("nobody answers: this node is cut off itself");
            return;
        }
        let sequence = member.word();
        let accusers: Vec<NodeId> = member.accusations().map(|accusation| accusation.value.accuser).collect();
        let asked =
            |pending: &Pending| matches!(pending, Pending::Accusation(value) if value.subject == node);
        let Some(network) = self.network() else { return };
        if accusers.contains(&self.me.node) || accusers.len() >= ACCUSERS {
            // Some may have missed what was said of it.
            for accuser in accusers {
                let block = self.block_of(&accuser);
                self.rumors.add(Topic::Accusation(node, accuser), block, now.monotonic);
            }
            return;
        }
        if self.pending.values().any(asked) {
            return;
        }
        let accusation = Accusation {
            network,
            accuser: self.me.node,
            subject: node,
            sequence,
            issued_at: now.unix.as_secs(),
        };
        self.ask(Pending::Accusation(accusation.clone()), keyd::Request::SignAccusation(accusation));
    }

    /// The own accusation is signed.
    pub(super) fn accuse(&mut self, accusation: Signed<Accusation>, now: Now) {
        let topic = Topic::Accusation(accusation.value.subject, accusation.value.accuser);
        if self.members.merge_accusation(accusation, &self.me.node, now.monotonic) {
            self.rumors.add(topic, None, now.monotonic);
            self.update_liveness(false, now);
        }
    }

    pub(super) fn handle_ping(&mut self, from: &Destination, number: u64, now: Now) {
        // Strangers learn nothing.
        if self.own.is_some() && self.members.is_member(&from.hash()) {
            let asker = self.asker(&from.hash());
            if self.budget.may_answer(&asker, now.monotonic) {
                let gossip = self.some_gossip(GOOD_LEN / 2, now);
                self.reply(from, &Message::Ack(number, gossip), now);
            } else {
                let message = Message::Ack(number, Gossip::default()).to_datagram(from);
                if self.budget.acknowledges(&asker, message.len(), now.monotonic) {
                    self.actions.push_back(Action::Send { to: *from, message, as_control: false });
                }
            }
        }
    }

    pub(super) fn handle_ping_request(&mut self, from: &Destination, number: u64, node: &NodeId, now: Now) {
        if !self.members.is_member(&from.hash()) || self.bans.is_banned(node) {
            return;
        }
        let Some(member) = self.members.get(node) else { return };
        let (control, hash) = (member.way(&mut self.rng), *member.record.control());
        let asker = self.asker(&from.hash());
        if self.budget.may_answer(&asker, now.monotonic)
            && let Some(own) =
                self.detector.handle_ping_request(hash, *from, asker, number, now.monotonic, &mut self.rng)
        {
            self.answer_for(&asker, &control, &Message::Ping(own, Gossip::default()), now);
        }
    }

    pub(super) fn handle_ack(&mut self, from: &Destination, number: u64, now: Now) {
        // A member may answer from another of its destinations than it was asked at.
        let from = from.hash();
        let there = self.members.at(&from).filter_map(|node| self.members.get(&node));
        let controls = [from].into_iter().chain(there.flat_map(|member| member.record.controls()));
        let acked = controls
            .map(|control| self.detector.handle_ack(&control, number, now.monotonic))
            .find(|acked| !matches!(acked, Acked::Unknown));
        match acked.unwrap_or(Acked::Unknown) {
            Acked::Directly { node, rtt } => {
                if let Some(member) = self.members.get_mut(&node) {
                    member.contact_mut().rtt = Some(rtt);
                }
            }
            Acked::Through { node } => {
                let relay = self.members.at(&from).next();
                if let Some(member) = self.members.get_mut(&node) {
                    debug!(node = %node.short(), "a member is reached through another only");
                    member.saw(now.unix.as_secs());
                    let contact = member.contact_mut();
                    contact.via = relay;
                    contact.unreached = false;
                }
            }
            Acked::Errand { to, number } => {
                self.reply(&to, &Message::Ack(number, Gossip::default()), now);
            }
            Acked::Unknown => {}
        }
    }

    pub(super) fn handle_gossip(&mut self, from: &Destination, gossip: Gossip, now: Now) {
        for item in gossip.items {
            self.take(item, from, now);
        }
        let wanted = gossip.entries.iter().filter_map(|theirs| {
            let mine = self.members.index().get(&theirs.position()).unwrap_or(nothing(theirs.node));
            has_more(theirs, &mine).then_some(mine)
        });
        let wanted: Vec<_> = wanted.collect();
        self.ask_for(from, wanted, now);
    }

    /// Asks a member for everything that is newer than these entries.
    fn ask_for(&mut self, from: &Destination, wanted: Vec<Entry>, now: Now) {
        // A question that is not sent is not open.
        let whom = self.asker(&from.hash());
        if !self.budget.may_ask(&whom, now.monotonic) {
            return;
        }
        let places = self.places_at(&from.hash());
        let mut entries = Vec::new();
        for mine in wanted {
            let mut ask = || places.iter().any(|of| self.rumors.should_ask(*of, mine.node, now.monotonic));
            if entries.len() < MAX_ENTRIES && ask() {
                entries.push(mine);
            }
        }
        if !entries.is_empty() {
            let message = Message::Want(entries).to_datagram(from);
            self.budget.charge_question(&whom, message.len(), now.monotonic);
            self.actions.push_back(Action::Send { to: *from, message, as_control: false });
        }
    }

    pub(super) fn handle_want(&mut self, from: &Destination, entries: Vec<Entry>, now: Now) {
        if self.members.is_member(&from.hash()) {
            let asker = self.asker(&from.hash());
            for entry in entries {
                self.rumors.want(*from, asker, entry);
            }
            self.grant_wants(now);
        }
    }

    pub(super) fn handle_compare(&mut self, from: &Destination, ranges: &[Range], now: Now) {
        // Who is no member can neither learn anything nor make this node send much for little.
        if self.own.is_none() || !self.members.is_member(&from.hash()) {
            return;
        }
        let lot = self.rng.random();
        let mut outcome = self.members.index().compare(ranges, lot);
        self.is_behind = outcome.is_behind.unwrap_or(self.is_behind);
        self.endings_differ = outcome.endings_differ.unwrap_or(self.endings_differ);
        if let Some(block) = block(&self.asker(&from.hash())) {
            let (shows_all, blocks) = (outcome.shows_all(), self.members.blocks());
            self.comparison_since_start.compared(block, shows_all, blocks, now.monotonic);
        }
        if outcome.differs() {
            self.announcer.compare_again(now.monotonic);
        }
        // Where there is more than is taken up now, several members need not take up the same.
        outcome.wanted.shuffle(&mut self.rng);
        outcome.offered.shuffle(&mut self.rng);
        if !outcome.answer.is_empty() {
            let answer = self.comparison(outcome.answer, now);
            self.reply(from, &answer, now);
        }
        self.ask_for(from, outcome.wanted, now);
        // One datagram more of each kind at most: what does not fit is found again the next time.
        let asker = self.asker(&from.hash());
        for theirs in outcome.offered.into_iter().take(2 * MAX_ENTRIES) {
            self.rumors.want(*from, asker, theirs);
        }
        self.grant_wants(now);
    }

    /// Takes in something that a member has sent.
    fn take(&mut self, item: Item, from: &Destination, now: Now) {
        match item {
            Item::Record(record) => self.take_record(*record, from, now),
            Item::Pulse(pulse) => self.take_pulse(pulse, now),
            Item::Accusation(accusation) => self.take_accusation(accusation, now),
            Item::Revocation(revocation) => self.take_ending(Ending::Revocation(revocation), now),
            Item::Resignation(resignation) => self.take_ending(Ending::Resignation(resignation), now),
        }
    }

    fn take_record(&mut self, record: Signed<Record>, from: &Destination, now: Now) {
        let Some(membership) = &self.membership else { return };
        let charter = &membership.charter.value;
        let value = &record.value;
        let node = value.node;
        let own = node == self.me.node;
        // Most records are known already; only news costs a verification.
        let news = if own { self.counter < value.sequence } else { self.members.is_newer(value) };
        if !news || value.network() != charter.network() || !is_timely(value, now) {
            return;
        }
        let before = self.members.get(&node).map(|member| &member.record);
        let certificates = self.members.certificates();
        let is_known = |id: &_, signature: &_| certificates.is_known(id, signature);
        let record = match VerifiedRecord::new_except(record, charter, before, is_known) {
            Ok(record) => record,
            Err(error) => {
                debug!(%error, node = %node.short(), "dropped a record");
                let forged = RecordError::BadSignature(BadSignature { what: Record::WHAT });
                return self.strike_signer(error != forged, &node, now);
            }
        };
        self.rumors.answered(&node);
        if own {
            return self.handle_local_record(&record);
        }
        let value = &record.value;
        let (name, sequence, chain) = (value.name.clone(), value.sequence, value.chain.clone());
        let ipv4 = record.ipv4();
        let is_new = self.members.get(&node).is_none();
        let share = charter.subnet.share_of(ipv4);
        match self.members.merge_record(record, now.monotonic, now.unix.as_secs()) {
            RecordMerge::Known => {}
            RecordMerge::Refused => debug!(node = %node.short(), "dropped a record: no room, or too soon"),
            RecordMerge::Ended => {
                // It is not known where this comes from that the membership has ended.
                if let Some((_, ending)) = self.members.endings().against(&chain) {
                    let news = Message::news(vec![ending.item()]);
                    self.reply(from, &news, now);
                }
            }
            RecordMerge::Falls { holder, range, issuer } => {
                self.note_conflict(&chain, range, issuer, now);
                // Who sends it learns who has the addresses.
                let items = self.items_beyond(&nothing(holder));
                if !items.is_empty() {
                    self.reply(from, &Message::news(items), now);
                }
            }
            RecordMerge::News { fallen, out } => {
                if is_new {
                    info!(node = %node.short(), %name, %ipv4, "learned of a member");
                    self.announcer.compare_soon(now.monotonic);
                    let members = self.members.len();
                    self.rumors.add_newcomer(node, share, members, now.monotonic, &mut self.rng);
                } else {
                    debug!(node = %node.short(), sequence, "learned a newer record");
                    let place = Place { block: share, address: ipv4.to_bits() };
                    if self.rumors.is_record_passed_on(place, now.monotonic) {
                        self.rumors.add(Topic::Record(node), Some(share), now.monotonic);
                    }
                }
                for other in &out {
                    warn!(
                        node = %other.short(), holder = %node.short(), %ipv4,
                        "a member has lost its addresses: they were delegated twice"
                    );
                    self.forget(other);
                }
                self.note_fallen(&fallen, &chain);
                self.heard(&from.hash(), now);
                self.note_awake(node);
                self.save_by(now.monotonic + SAVE_RECORDS_AFTER);
                self.peers_version += 1;
            }
        }
        self.learn_delegation(&chain, now);
    }

    fn take_pulse(&mut self, pulse: Signed<Pulse>, now: Now) {
        let Some(membership) = &self.membership else { return };
        let node = pulse.value.node;
        let own = node == self.me.node;
        let news =
            if own { self.counter < pulse.value.sequence } else { self.members.is_later(&pulse.value) };
        if !news || pulse.value.network != membership.charter.value.network() {
            return;
        }
        if let Err(error) = pulse.verify() {
            debug!(%error, node = %node.short(), "dropped a pulse");
            return;
        }
        self.rumors.answered(&node);
        if own {
            return self.note_local_statement(pulse.value.sequence, Statement::Pulse(pulse));
        }
        let life = pulse.value.life;
        if self.members.merge_pulse(pulse, now.monotonic) == Merge::News {
            if let Some(member) = self.members.get_mut(&node) {
                member.saw(now.unix.as_secs());
                debug!(node = %node.short(), name = %member.record.value.name, ?life, "a member gave a sign");
            }
            if life == Life::Present {
                self.note_awake(node);
            }
            self.save_by(now.monotonic + SAVE_PULSES_AFTER);
            let share = self.block_of(&node);
            let address = self.members.get(&node).map(|member| member.record.ipv4().to_bits());
            let place = share.zip(address).map(|(block, address)| Place { block, address });
            if place.is_some_and(|place| self.rumors.is_pulse_passed_on(place, now.monotonic)) {
                self.rumors.add(Topic::Pulse(node), share, now.monotonic);
            }
        }
    }

    /// The address block of a member; none if it is not known.
    fn block_of(&self, node: &NodeId) -> Option<u32> {
        self.members.get(node).map(|member| self.members.share_of(member))
    }

    /// A member has given a sign of life.
    fn note_awake(&mut self, node: NodeId) {
        if self.awake.len() < MAX_AWAKE {
            self.awake.insert(node);
        }
    }

    fn take_accusation(&mut self, accusation: Signed<Accusation>, now: Now) {
        let Some(membership) = &self.membership else { return };
        // Its time is information: the clock at fault may be the accuser's or this node's.
        let Accusation { network, accuser, subject, sequence, issued_at: _ } = accusation.value;
        if network != membership.charter.value.network() {
            return;
        }
        let against_me = subject == self.me.node;
        let news = if against_me {
            self.local_sequence().is_some_and(|word| sequence >= word)
        } else {
            accuser != self.me.node && self.members.is_accusable(&accusation.value, now.monotonic)
        };
        if !news {
            return;
        }
        if let Err(error) = accusation.verify() {
            debug!(%error, node = %accuser.short(), "dropped an accusation");
            return;
        }
        if against_me {
            return self.handle_suspicion(accuser, sequence, now);
        }
        if !self.members.merge_accusation(accusation, &self.me.node, now.monotonic) {
            return;
        }
        let block = self.block_of(&accuser);
        self.rumors.add(Topic::Accusation(subject, accuser), block, now.monotonic);
        if self.is_on_jury(&subject, sequence)
            && let Some(member) = self.members.get(&subject)
        {
            let control = *member.record.control();
            self.detector.begin(subject, control, now.monotonic, &mut self.rng);
        }
    }

    /// Whether this node is one of those who check a member that others could not reach. By lot, and a lot that is
    /// cast anew for each word of the member.
    fn is_on_jury(&self, subject: &NodeId, sequence: u64) -> bool {
        let members = self.members.len() as u64 + 1;
        let lot = |id: &NodeId| u64::from_be_bytes(*id.0.first_chunk().expect("an id has 32 bytes"));
        let draw = (lot(&self.me.node) ^ lot(subject)).wrapping_add(sequence);
        draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (JURY << 32) / members
    }

    fn take_ending(&mut self, ending: Ending, now: Now) {
        let Some(membership) = &self.membership else { return };
        let charter = &membership.charter.value;
        if ending.chain().network() != charter.network() || self.members.endings().get(&ending.id()).is_some()
        {
            return;
        }
        if let Err(error) = ending.verify(charter) {
            debug!(%error, node = %ending.signer().short(), "dropped the end of a membership");
            return self.strike_signer(ending.is_signed(), &ending.signer().clone(), now);
        }
        self.rumors.answered(&ending.id());
        let chain = ending.chain().clone();
        self.end_memberships(ending, now);
        self.learn_delegation(&chain, now);
        self.leave_if_ended(now);
    }

    /// Takes in how memberships have ended. Whether this node's own is among them is left to [`Mesh::leave_if_ended`].
    pub(super) fn end_memberships(&mut self, ending: Ending, now: Now) -> EndingMerge {
        let (id, issuer) = (ending.id(), *ending.signer());
        // Nobody speaks to those that are out any more, so some tell them while they know where.
        let tells = issuer == self.me.node || self.is_on_jury(&id, 0);
        let is_out = |member: &&Member| tells && ending.voids(&member.record.value.chain).is_some();
        let places: HashMap<NodeId, Destination> = self
            .members
            .iter()
            .filter(is_out)
            .map(|member| (member.node(), *member.record.value.control))
            .collect();
        let signer = self.members.place_of_signer(&ending);
        let merged = self.members.merge_ending(ending.clone());
        match &merged {
            EndingMerge::Known => {}
            EndingMerge::Full => debug!(node = %issuer.short(), "no room for the end of a membership"),
            EndingMerge::News(out) => {
                match &ending {
                    Ending::Revocation(_) => {
                        info!(node = %issuer.short(), members = out.len(), "a membership was revoked");
                    }
                    Ending::Resignation(_) => info!(node = %issuer.short(), "a member has left the network"),
                }
                for node in out {
                    self.forget(node);
                    if let Some(to) = places.get(node).filter(|_| *node != issuer) {
                        self.send_items(to, vec![ending.item()], now);
                    }
                }
                if signer.is_none_or(|signer| self.rumors.is_ending_passed_on(signer, now.monotonic)) {
                    self.rumors.add(Topic::Ending(id), block(&signer), now.monotonic);
                }
                self.end_delegations(now);
                self.note_if_delegated(&ending);
                // Others can tell it again.
                self.save_by(now.monotonic + SAVE_RECORDS_AFTER);
                self.peers_version += 1;
            }
        }
        merged
    }

    /// Leaves the network if this node's membership has ended. That is decided by the chain in its own newest record,
    /// to which it has consented, and by that alone; so a node that may have forgotten a newer one asks others first.
    fn leave_if_ended(&mut self, now: Now) -> bool {
        let Some(membership) = &self.membership else { return false };
        let may_be_old = match self.comparison_since_start {
            Comparison::Waiting(announced) => announced.is_none_or(|at| now.monotonic < at + LEAVE_AFTER),
            other => !other.is_done(now.monotonic),
        };
        if may_be_old {
            return false;
        }
        let ending = self.members.endings().against(&membership.chain).map(|(_, ending)| ending.clone());
        if let Some(ending) = &ending {
            self.handle_local_ending(ending, now);
        }
        ending.is_some()
    }

    /// A node is no member any more.
    fn forget(&mut self, node: &NodeId) {
        self.detector.forget(node);
        self.rumors.drop_topic(&Topic::Record(*node));
    }

    /// A record of this node that it does not remember: the chain of its newest record is its own.
    fn handle_local_record(&mut self, record: &VerifiedRecord) {
        let chain = &record.value.chain;
        if self.members.endings().against(chain).is_none() {
            self.adopt(chain);
        }
        self.note_local_statement(record.value.sequence, Statement::Record(Box::new((**record).clone())));
    }

    /// This node has consented to a chain that it does not remember, and goes on with that. True if it
    /// had another.
    pub(super) fn adopt(&mut self, chain: &Chain) -> bool {
        if let Some(membership) = &mut self.membership
            && membership.chain != *chain
        {
            warn!(
                "this node's state is older than its newest record: it goes on with the membership of that"
            );
            let subnet = membership.charter.value.subnet;
            let ipv4 = chain.address(&subnet);
            let moves = membership.chain.address(&subnet) != ipv4;
            membership.chain = chain.clone();
            self.members.set_own_chain(chain.clone());
            if moves {
                self.events.push(What::AddressChanged { ipv4: ipv4.to_string() });
            }
            self.displaced = None;
            self.peers_version += 1;
            return true;
        }
        false
    }

    /// A statement that no honest node signs is an offence of its signer, if that has really signed it.
    fn strike_signer(&mut self, is_signed: bool, node: &NodeId, now: Now) {
        if is_signed {
            self.strike(node, now);
        }
    }

    /// A control message came from a destination.
    pub(super) fn heard(&mut self, control: &DestinationHash, now: Now) {
        for node in self.members.heard(control, now.monotonic, now.unix.as_secs()) {
            self.detector.heard(&node);
            self.note_awake(node);
            self.repeat_grant(&node, now);
            if self.members.doubt(&node, now.monotonic) {
                info!("a part of the network that did not answer is there again");
                continue;
            }
            // What others say of it is told to it, so that it can answer.
            let Some(member) = self.members.get_mut(&node) else { continue };
            if member.contact().told_at.is_some_and(|told| now.monotonic < told + TELL_ACCUSED) {
                continue;
            }
            let items: Vec<Item> = member.accusations().cloned().map(Item::Accusation).collect();
            if !items.is_empty() {
                member.contact_mut().told_at = Some(now.monotonic);
                let to = *member.record.value.control;
                self.send_items(&to, items, now);
            }
        }
    }

    /// Sends what others have asked for, as far as bytes allow: each in turn a datagram.
    fn grant_wants(&mut self, now: Now) {
        let mut in_vain = 0;
        while in_vain < self.rumors.askers() {
            let Some((to, asker, mut wants)) = self.rumors.next_wants() else { break };
            if self.budget.may_answer(&asker, now.monotonic) {
                in_vain = 0;
                let items = self.some_items(&mut wants, now);
                if !items.is_empty() {
                    self.answer_for(&asker, &to, &Message::news(items), now);
                }
            } else {
                in_vain += 1;
            }
            self.rumors.put_back(to, asker, wants);
        }
    }

    /// Takes as many wishes as a datagram can grant: first what is of address blocks of which least was told, so that
    /// those with much to say delay only each other.
    fn some_items(&mut self, wants: &mut VecDeque<Entry>, now: Now) -> Vec<Item> {
        let (members, rumors) = (&self.members, &self.rumors);
        wants
            .make_contiguous()
            .sort_by_cached_key(|theirs| rumors.grant_turn(members.block_about(theirs), now.monotonic));
        let (mut items, mut filled) = (Vec::new(), 0);
        while let Some(theirs) = wants.pop_front() {
            let more = self.items_beyond(&theirs);
            let len: usize = more.iter().map(|item| item.to_bytes().len()).sum();
            if !items.is_empty() && (filled + len > GOOD_LEN || items.len() + more.len() > MAX_ITEMS) {
                wants.push_front(theirs);
                break;
            }
            filled += len;
            items.extend(more);
            self.rumors.granted(self.members.block_about(&theirs), len, now.monotonic);
        }
        items
    }

    /// What there is, also of this node itself, for one who has no more than this.
    fn items_beyond(&self, theirs: &Entry) -> Vec<Item> {
        if theirs.node != self.me.node {
            return self.members.items_beyond(theirs);
        }
        let mut items = Vec::new();
        if let Some(own) = self.own.as_ref().filter(|own| own.value.sequence > theirs.record) {
            items.push(Item::Record(Box::new(own.clone())));
        }
        let pulse = self.own_pulse.as_ref();
        items.extend(
            pulse
                .filter(|pulse| pulse.value.sequence > theirs.record.max(theirs.pulse))
                .cloned()
                .map(Item::Pulse),
        );
        items
    }

    /// Answers somebody, if it has not asked for too much.
    fn reply(&mut self, to: &Destination, message: &Message, now: Now) {
        let asker = self.asker(&to.hash());
        self.answer_for(&asker, to, message, now);
    }

    /// At whose expense a destination is answered.
    pub(super) fn asker(&self, from: &DestinationHash) -> Asker {
        self.places_at(from).first().copied()
    }

    /// Sends what somebody has asked for, if it has not asked for too much.
    pub(super) fn answer_for(&mut self, asker: &Asker, to: &Destination, message: &Message, now: Now) {
        let as_control = self.is_as_control(message);
        let compares = matches!(message, Message::Compare(..));
        let message = message.to_datagram(to);
        if self.budget.answers(asker, compares, message.len(), now.monotonic) {
            self.actions.push_back(Action::Send { to: *to, message, as_control });
        } else {
            debug!(?asker, "no answer: more is asked than may be said");
        }
    }

    pub(super) fn send_items(&mut self, to: &Destination, items: Vec<Item>, now: Now) {
        self.send(to, &Message::news(items), now);
    }

    /// Tells a few members what is news.
    fn tell_rumors(&mut self, now: Now) {
        self.grant_wants(now);
        if !self.budget.allows(now.monotonic) {
            self.rumors.round(now.monotonic);
            return;
        }
        let (gossip, told) = self.fill(GOOD_LEN, now);
        if told.is_empty() {
            return;
        }
        let mut targets = self.draw(FANOUT, |member| !member.is_away());
        targets.truncate(FANOUT);
        self.have_told(told, targets.len(), now);
        for target in targets {
            self.send(&target, &Message::News(gossip.clone()), now);
        }
    }

    /// News to go along with something else, and what was news lately.
    fn some_gossip(&mut self, room: usize, now: Now) -> Gossip {
        let mut gossip = Gossip::default();
        if self.rumors.poll_timeout().is_some() && self.budget.allows(now.monotonic) {
            let told;
            (gossip, told) = self.fill(room, now);
            self.have_told(told, 1, now);
        }
        self.add_recent(&mut gossip, room, now);
        gossip
    }

    /// Ranges to be compared, and what was news lately: whoever has missed it asks for it at once.
    fn comparison(&mut self, ranges: Vec<Range>, now: Now) -> Message {
        let mut gossip = Gossip::default();
        let len: usize = ranges.iter().map(|range| range.to_bytes().len()).sum();
        self.add_recent(&mut gossip, GOOD_LEN.saturating_sub(len), now);
        Message::Compare(ranges, gossip)
    }

    /// Adds what was news lately, up to a length of the whole.
    fn add_recent(&mut self, gossip: &mut Gossip, room: usize, now: Now) {
        let mut room = room.saturating_sub(gossip.to_bytes().len()).min(RECENT_LEN);
        for topic in self.rumors.recent(now.monotonic, &mut self.rng) {
            let position = match topic {
                Topic::Record(node) | Topic::Pulse(node) => Position::member(node),
                Topic::Ending(id) => Position::ending(id),
                Topic::Accusation(..) => continue,
            };
            if let Some(entry) = self.members.index().get(&position) {
                let len = entry.to_bytes().len();
                if len <= room && gossip.entries.len() < MAX_ENTRIES && !gossip.entries.contains(&entry) {
                    room -= len;
                    gossip.entries.push(entry);
                }
            }
        }
    }

    /// News of these lengths was told to so many.
    fn have_told(&mut self, told: Vec<(Topic, usize)>, to: usize, now: Now) {
        let members = self.members.len();
        let is_accusation = |topic: &Topic| matches!(topic, Topic::Accusation(..));
        let split = told.iter().any(|(topic, _)| is_accusation(topic)) && self.members.is_split();
        for (topic, len) in told {
            // Where many are accused together, it matters less that everybody hears of each.
            if split && is_accusation(&topic) {
                self.rumors.drop_topic(&topic);
            } else {
                self.rumors.told(topic, len, to, members, now.monotonic);
            }
        }
    }

    /// News that fits, and what it is about with its length.
    fn fill(&mut self, room: usize, now: Now) -> (Gossip, Vec<(Topic, usize)>) {
        let mut gossip = Gossip::default();
        let mut told = Vec::new();
        let mut len = 0;
        let many = self.rumors.has_much_that_is_long() && self.members.len() > SMALL;
        for (topic, times) in self.rumors.round(now.monotonic) {
            if len + LEAST_NEWS > room && len > 0 {
                break;
            }
            let Some(item) = self.item(&topic) else {
                self.rumors.drop_topic(&topic);
                continue;
            };
            // Of a record in a large network mostly only that it exists; of how a membership has ended where there is much.
            let position = match topic {
                Topic::Record(node) if many || times > 0 && self.members.len() > SMALL => {
                    Some(Position::member(node))
                }
                Topic::Ending(id) if many => Some(Position::ending(id)),
                _ => None,
            };
            let entry = position.and_then(|position| self.members.index().get(&position));
            let size = entry.map_or_else(|| item.to_bytes().len(), |entry| entry.to_bytes().len());
            let fits = len + size <= room || len == 0;
            if !fits || gossip.items.len() >= MAX_ITEMS || gossip.entries.len() >= MAX_ENTRIES {
                continue;
            }
            len += size;
            match entry {
                Some(entry) => gossip.entries.push(entry),
                None => gossip.items.push(item),
            }
            told.push((topic, size));
        }
        (gossip, told)
    }

    fn item(&self, topic: &Topic) -> Option<Item> {
        match topic {
            Topic::Ending(id) => self.members.endings().get(id).map(Ending::item),
            Topic::Pulse(node) if *node == self.me.node => self.own_pulse.clone().map(Item::Pulse),
            Topic::Pulse(node) => {
                let pulse = self.members.get(node).and_then(|member| member.pulse.as_deref());
                pulse.cloned().map(Item::Pulse)
            }
            Topic::Accusation(subject, accuser) => {
                let member = self.members.get(subject)?;
                let accusation =
                    member.accusations().find(|accusation| accusation.value.accuser == *accuser)?;
                Some(Item::Accusation(accusation.clone()))
            }
            Topic::Record(node) => {
                let member = self.members.get(node)?;
                Some(Item::Record(Box::new((*member.record).clone())))
            }
        }
    }

    /// Tells some members that this node goes.
    pub(super) fn bid_farewell(&mut self, item: &Item, now: Now) {
        for target in self.draw(FAREWELLS, |member| !member.contact().unreached && !member.is_away()) {
            self.send_items(&target, vec![item.clone()], now);
        }
    }
}

/// Whether a record is of a time that can be: not signed in the future, with a WireGuard key that has begun and is not
/// over for long. If not, this node's clock may be at fault, so it is no offence.
pub(super) fn is_timely(record: &Record, now: Now) -> bool {
    let unix = now.unix.as_secs();
    let certificate = &record.wireguard.value;
    let latest = unix.saturating_add(WireGuardCertificate::CLOCK_TOLERANCE);
    record.issued_at <= latest
        && certificate.not_before <= latest
        && unix <= certificate.not_after.saturating_add(FORGET_AFTER.as_secs())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn announcements_come_at_growing_distances_and_end() {
        let mut announcer = Announcer::new(Duration::from_secs(1000), Duration::ZERO);
        announcer.news(Duration::ZERO);
        let mut times = Vec::new();
        loop {
            let at = announcer.poll_timeout();
            if !announcer.announces(at) {
                break;
            }
            times.push(at.as_secs());
        }
        assert_eq!(times, [0, 2, 6, 14, 30]);
    }

    #[test]
    fn news_in_a_comparison_brings_the_next_forward() {
        let mut announcer = Announcer::new(Duration::from_secs(1000), Duration::ZERO);
        let mut rng = StdRng::from_seed([1; 32]);
        let mut times = Vec::new();
        announcer.compare_soon(Duration::from_secs(10));
        // As long as each shows a difference again.
        while times.len() < 6 {
            let at = announcer.poll_timeout();
            assert!(announcer.compares(at, &mut rng));
            announcer.compare_again(at);
            times.push(at.as_secs());
        }
        assert_eq!(times, [13, 19, 31, 55, 103, 151]);
        // News sets that back; without differences there is one in each round.
        announcer.compare_soon(Duration::from_secs(160));
        assert!(announcer.compares(Duration::from_secs(163), &mut rng));
        assert_eq!(announcer.poll_timeout(), Duration::from_secs(1000));
    }
}
