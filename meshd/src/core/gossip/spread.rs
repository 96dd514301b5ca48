//! Spreading what is known: rumors are told, wants granted, comparisons begun and answered.

use std::collections::VecDeque;
use std::time::Duration;

use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::Destination;
use i2plan_proto::message::{
    Entry, GOOD_LEN, Gossip, Item, MAX_ENTRIES, MAX_ITEMS, Message, Position, Range,
};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::schedule::Comparison;
use crate::core::Now;
use crate::core::budget::block;
use crate::core::context::Context;
use crate::core::endings::Ending;
use crate::core::local_member::LocalMember;
use crate::core::members::Member;
use crate::core::rumors::{Due, FANOUT, Topic};

/// How many members hear of the own record at once.
const ANNOUNCED: usize = 3;

/// How long, or up to a quarter longer, it is left to a member with a smaller id to send first.
const YIELD: Duration = Duration::from_secs(1);

/// In a network of no more members than this, records are always told and not just that they exist.
const SMALL: usize = 24;

/// Nothing that is told takes fewer bytes.
const LEAST_NEWS: usize = 41;

/// What was news lately takes no more of a message than this, bytes: eight entries.
const RECENT_LEN: usize = 400;

/// How many members hear that this node leaves or shuts down.
const DEPARTURE_FANOUT: usize = 8;

impl LocalMember {
    /// Tells a few the own record and compares its state with theirs. They answer: from that this node sees that it can
    /// be reached.
    pub(super) fn announce(&mut self, cx: &mut Context, now: Now) {
        let Some(own) = self.publication.record.clone() else { return };
        let items = vec![Item::Record(Box::new(own))];
        let known = self.members.index();
        let opening = match self.comparisons.since_start {
            Comparison::Done => known.opening(),
            Comparison::Waiting(_) | Comparison::Begun(..) => known.opening_to_be_answered(),
        };
        let compare = self.comparison(cx, opening, now);
        for target in self.draw(cx, ANNOUNCED, |_| true) {
            // First datagrams that cross keep some routers (emissary 0.4) from agreeing on a session. Members that began
            // at the same instant would send theirs at the same instant.
            if self.members.at(&target.hash()).any(|node| node < cx.me.node) {
                let wait = YIELD.mul_f64(cx.rng.random_range(1.0..1.25));
                cx.first_contacts.yield_to(target.hash(), now.monotonic + wait);
            }
            let gossip = Gossip { entries: Vec::new(), items: items.clone() };
            let number = cx.rng.random();
            cx.asked = true;
            self.send(cx, &target, &Message::Ping(number, gossip), now);
            self.send(cx, &target, &compare, now);
        }
    }

    /// Asks a member for everything that is newer than these entries.
    pub(super) fn ask_for(&mut self, cx: &mut Context, from: &Destination, wanted: Vec<Entry>, now: Now) {
        // A question that is not sent is not open.
        let whom = self.asker(&from.hash());
        if !cx.budget.may_ask(&whom, now.monotonic) {
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
            cx.budget.charge_question(&whom, message.len(), now.monotonic);
            cx.queue_datagram(from, message, false, now);
        }
    }

    pub(crate) fn handle_want(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        entries: Vec<Entry>,
        now: Now,
    ) {
        if self.members.is_member(&from.hash()) {
            let asker = self.asker(&from.hash());
            for entry in entries {
                self.rumors.want(*from, asker, entry);
            }
            self.grant_wants(cx, now);
        }
    }

    pub(crate) fn handle_compare(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        ranges: &[Range],
        now: Now,
    ) {
        // Who is no member can neither learn anything nor make this node send much for little.
        if self.publication.record.is_none() || !self.members.is_member(&from.hash()) {
            return;
        }
        let lot = cx.rng.random();
        let mut outcome = self.members.index().compare(ranges, lot);
        self.comparisons.note(&outcome);
        if let Some(block) = block(&self.asker(&from.hash())) {
            let (shows_all, blocks) = (outcome.shows_all(), self.members.blocks());
            self.comparisons.since_start.compared(block, shows_all, blocks, now.monotonic);
        }
        if outcome.differs() {
            self.announcer.compare_again(now.monotonic);
        }
        // Where there is more than is taken up now, several members need not take up the same.
        outcome.wanted.shuffle(&mut cx.rng);
        outcome.offered.shuffle(&mut cx.rng);
        if !outcome.answer.is_empty() {
            let answer = self.comparison(cx, outcome.answer, now);
            self.reply(cx, from, &answer, now);
        }
        self.ask_for(cx, from, outcome.wanted, now);
        // One datagram more of each kind at most: what does not fit is found again the next time.
        let asker = self.asker(&from.hash());
        for theirs in outcome.offered.into_iter().take(2 * MAX_ENTRIES) {
            self.rumors.want(*from, asker, theirs);
        }
        self.grant_wants(cx, now);
    }

    /// Sends what others have asked for, as far as bytes allow: each in turn a datagram. What is of quiet address
    /// blocks has bytes of its own. Those come first whose blocks have got least of these: where many ask for
    /// everything, whoever asks for little, or has just joined, does not wait for all of them.
    fn grant_wants(&mut self, cx: &mut Context, now: Now) {
        self.rumors.sort_askers(|asker| cx.budget.backlog_of_quiet(asker, now.monotonic));
        let mut in_vain = 0;
        while in_vain < self.rumors.askers() {
            let Some((to, asker, mut wants)) = self.rumors.poll_wants() else { break };
            let of_quiet = cx.budget.may_answer_of_quiet(&asker, now.monotonic);
            let items = if of_quiet { self.some_items(cx, &mut wants, true, now) } else { Vec::new() };
            if !items.is_empty() {
                in_vain = 0;
                cx.answer_of_quiet(&asker, &to, &Message::news(items), now);
            } else if cx.budget.may_answer(&asker, now.monotonic) {
                in_vain = 0;
                let items = self.some_items(cx, &mut wants, false, now);
                if !items.is_empty() {
                    cx.answer_for(&asker, &to, &Message::news(items), now);
                }
            } else {
                in_vain += 1;
            }
            self.rumors.put_back(to, asker, wants);
        }
    }

    /// Takes as many wishes as a datagram can grant: first what is of address blocks of which least was told, so that
    /// those with much to say delay only each other; or only those for records and ends of memberships of quiet blocks.
    fn some_items(
        &mut self,
        cx: &mut Context,
        wants: &mut VecDeque<Entry>,
        only_quiet: bool,
        now: Now,
    ) -> Vec<Item> {
        self.rumors.advance(now.monotonic);
        let (members, rumors) = (&self.members, &self.rumors);
        wants
            .make_contiguous()
            .sort_by_cached_key(|theirs| rumors.grant_turn(members.block_about(theirs), now.monotonic));
        let (mut items, mut filled, mut passed) = (Vec::new(), 0, Vec::new());
        while let Some(theirs) = wants.pop_front() {
            if only_quiet && !self.is_long_of_quiet(&theirs) {
                passed.push(theirs);
                continue;
            }
            let more = self.items_beyond(cx, &theirs);
            let len: usize = more.iter().map(|item| item.to_bytes().len()).sum();
            if !items.is_empty() && (filled + len > GOOD_LEN || items.len() + more.len() > MAX_ITEMS) {
                wants.push_front(theirs);
                break;
            }
            filled += len;
            items.extend(more);
            self.rumors.granted(self.members.block_about(&theirs), len, now.monotonic);
        }
        passed.into_iter().rev().for_each(|theirs| wants.push_front(theirs));
        items
    }

    /// Whether one who has no more than this lacks a record, or the end of a membership, of a quiet block.
    fn is_long_of_quiet(&self, theirs: &Entry) -> bool {
        let has_record = |member: &Member| member.record.value.sequence <= theirs.record;
        self.rumors.is_quiet(self.members.block_about(theirs))
            && !self.members.get(&theirs.node).is_some_and(has_record)
    }

    /// What there is, also of this node itself, for one who has no more than this.
    pub(super) fn items_beyond(&self, cx: &Context, theirs: &Entry) -> Vec<Item> {
        if theirs.node != cx.me.node {
            return self.members.items_beyond(theirs);
        }
        let mut items = Vec::new();
        if let Some(own) = self.publication.record.as_ref().filter(|own| own.value.sequence > theirs.record) {
            items.push(Item::Record(Box::new(own.clone())));
        }
        let liveness_message = self.publication.liveness.as_ref();
        items.extend(
            liveness_message
                .filter(|liveness_message| {
                    liveness_message.value.sequence > theirs.record.max(theirs.liveness)
                })
                .cloned()
                .map(Item::Liveness),
        );
        items
    }

    /// Tells a few members what is news.
    pub(super) fn tell_rumors(&mut self, cx: &mut Context, now: Now) {
        self.grant_wants(cx, now);
        if !cx.budget.allows(now.monotonic) {
            self.rumors.poll_round(now.monotonic);
            return;
        }
        let (gossip, told) = self.fill(cx, GOOD_LEN, now);
        if told.is_empty() {
            return;
        }
        let mut targets = self.draw(cx, FANOUT, |member| !member.is_away());
        targets.truncate(FANOUT);
        self.have_told(told, targets.len(), now);
        for target in targets {
            self.send(cx, &target, &Message::News(gossip.clone()), now);
        }
    }

    /// News to go along with something else, and what was news lately.
    pub(super) fn some_gossip(&mut self, cx: &mut Context, room: usize, now: Now) -> Gossip {
        let mut gossip = Gossip::default();
        if self.rumors.poll_timeout().is_some() && cx.budget.allows(now.monotonic) {
            let told;
            (gossip, told) = self.fill(cx, room, now);
            self.have_told(told, 1, now);
        }
        self.add_recent(cx, &mut gossip, room, now);
        gossip
    }

    /// Ranges to be compared, and what was news lately: whoever has missed it asks for it at once.
    pub(super) fn comparison(&mut self, cx: &mut Context, ranges: Vec<Range>, now: Now) -> Message {
        let mut gossip = Gossip::default();
        let len: usize = ranges.iter().map(|range| range.to_bytes().len()).sum();
        self.add_recent(cx, &mut gossip, GOOD_LEN.saturating_sub(len), now);
        Message::Compare(ranges, gossip)
    }

    /// Adds what was news lately, up to a length of the whole.
    fn add_recent(&mut self, cx: &mut Context, gossip: &mut Gossip, room: usize, now: Now) {
        let mut room = room.saturating_sub(gossip.to_bytes().len()).min(RECENT_LEN);
        for topic in self.rumors.recent(now.monotonic, &mut cx.rng) {
            let position = match topic {
                Topic::Record(node) | Topic::Liveness(node) => Position::member(node),
                Topic::Ending(id) => Position::ending(id),
                Topic::Suspicion(..) => continue,
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
        let is_suspicion = |topic: &Topic| matches!(topic, Topic::Suspicion(..));
        let split = told.iter().any(|(topic, _)| is_suspicion(topic)) && self.members.is_split();
        for (topic, len) in told {
            // Where many are suspected together, it matters less that everybody hears of each.
            if split && is_suspicion(&topic) {
                self.rumors.drop_topic(&topic);
            } else {
                self.rumors.told(topic, len, to, members, now.monotonic);
            }
        }
    }

    /// News that fits, and what it is about with its length. Where bytes are short, only that of quiet address blocks:
    /// others do not use up what these need.
    fn fill(&mut self, cx: &mut Context, room: usize, now: Now) -> (Gossip, Vec<(Topic, usize)>) {
        let mut gossip = Gossip::default();
        let mut told = Vec::new();
        let mut len = 0;
        let is_small = self.members.len() <= SMALL;
        let is_short = !cx.budget.has_reserve(now.monotonic);
        for Due { topic, in_brief, is_quiet } in self.rumors.poll_round(now.monotonic) {
            if is_short && !is_quiet {
                continue;
            }
            if len + LEAST_NEWS > room && len > 0 {
                break;
            }
            let Some(item) = self.item(cx, &topic) else {
                self.rumors.drop_topic(&topic);
                continue;
            };
            let position = match topic {
                Topic::Record(node) if in_brief && !is_small => Some(Position::member(node)),
                Topic::Ending(id) if in_brief && !is_small => Some(Position::ending(id)),
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

    pub(super) fn item(&self, cx: &Context, topic: &Topic) -> Option<Item> {
        match topic {
            Topic::Ending(id) => self.members.endings().get(id).map(Ending::item),
            Topic::Liveness(node) if *node == cx.me.node => {
                self.publication.liveness.clone().map(Item::Liveness)
            }
            Topic::Liveness(node) => {
                let liveness_message =
                    self.members.get(node).and_then(|member| member.liveness_message.as_deref());
                liveness_message.cloned().map(Item::Liveness)
            }
            Topic::Suspicion(subject, confirmer) => {
                let member = self.members.get(subject)?;
                let suspicion =
                    member.suspicions().find(|suspicion| suspicion.value.confirmer == *confirmer)?;
                Some(Item::Suspicion(suspicion.clone()))
            }
            Topic::Record(node) => {
                let member = self.members.get(node)?;
                Some(Item::Record(Box::new((*member.record).clone())))
            }
        }
    }

    /// Tells some members that this node goes.
    pub(crate) fn announce_departure(&mut self, cx: &mut Context, item: &Item, now: Now) {
        for target in
            self.draw(cx, DEPARTURE_FANOUT, |member| !member.contact().unreached && !member.is_away())
        {
            cx.counts.departures_sent += 1;
            self.send_items(cx, &target, vec![item.clone()], now);
        }
    }
}
