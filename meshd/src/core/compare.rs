//! Comparing what two members know, at a cost that follows the difference and not the size of the mesh.
//!
//! Range-based set reconciliation (Meyer, "Range-Based Set Reconciliation", 2022): what is known is ordered by node
//! id, and one side sends the sum over a range of ids. If the other side has another sum there, it answers with the
//! sums of the parts of the range, and so on until a part is small enough to be listed. Equal sums end it: two members
//! that know the same exchange one short datagram. No side keeps state between messages, so any of them may be lost.

use std::collections::BTreeMap;

use i2plan_proto::codec::Codec as _;
use i2plan_proto::identity::NodeId;
use i2plan_proto::liveness::LivenessMessage;
use i2plan_proto::message::{Content, Entry, GOOD_LEN, MAX_ENTRIES, MAX_RANGES, Position, Range};
use i2plan_proto::record::Record;
use sha2::{Digest as _, Sha256};

/// Into so many parts a range is split whose sum differs.
const PARTS: usize = 16;

/// A range with no more entries than this is listed instead of split.
const LISTED: usize = 12;

/// Of one that lacks more than every so many-th entry of a range, what it has there is listed instead of split.
const DENSE: usize = 4;

/// One that lacks more than every so many-th entry of all that the other speaks of is behind.
const BEHIND: usize = 8;

/// Sums over fewer parts do not show how much differs.
const MANY_PARTS: usize = PARTS / 2;

/// Of fewer entries nothing is concluded.
const MANY: usize = 4 * LISTED;

/// What an entry takes in a list, bytes.
const ENTRY_LEN: usize = 49;

/// With less room than this no further range is split, bytes.
const LEAST_ROOM: usize = 128;

/// A part of the index with more entries than this is split in two.
const CHUNK: usize = 128;

/// Where the entries of an [`Index`] are kept, each in a place with a number.
pub(super) trait Entries {
    /// Where the entry is among all.
    fn position(&self, place: u32) -> Position;
    /// The entry.
    fn entry(&self, place: u32) -> Entry;
    /// What [`fingerprint`] says of the entry.
    fn fingerprint(&self, place: u32) -> u128;
}

/// The order of entries by node id, with sums over parts of it, so that neither finding one nor adding up a range
/// takes a walk over all of them. The entries themselves are elsewhere.
#[derive(Debug, Default)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    len: usize,
    sum: u128,
}

#[derive(Debug)]
struct Chunk {
    /// No entry in it is before this, and none in the one before is after it.
    from: Position,
    sum: u128,
    /// The beginning of each position, so that most need not be looked up, and its place.
    places: Vec<(u32, u32)>,
}

/// Before all others.
const FIRST: Position = Position::member(NodeId([0; 32]));

/// What orders most positions: the kind and the first bits of the id.
fn beginning(position: &Position) -> u32 {
    let id = u32::from_be_bytes(*position.node.0.first_chunk().expect("an id has 32 bytes"));
    u32::from(position.ended) << 31 | id >> 1
}

impl Index {
    /// The chunk where a node is or would be, and where in it.
    fn locate(&self, entries: &impl Entries, at: &Position) -> (usize, Result<usize, usize>) {
        let chunk = self.chunks.partition_point(|chunk| chunk.from <= *at).saturating_sub(1);
        let Some(places) = self.chunks.get(chunk).map(|chunk| &chunk.places) else { return (0, Err(0)) };
        let start = beginning(at);
        let found = places.binary_search_by(|(beginning, place)| {
            beginning.cmp(&start).then_with(|| entries.position(*place).cmp(at))
        });
        (chunk, found)
    }

    /// The place of the entry at a position.
    pub(super) fn find(&self, entries: &impl Entries, at: &Position) -> Option<u32> {
        let (chunk, found) = self.locate(entries, at);
        found.ok().map(|at| self.chunks[chunk].places[at].1)
    }

    /// Takes in the entry at a place, of a node that has none yet.
    pub(super) fn insert(&mut self, entries: &impl Entries, place: u32) {
        let (start, hash) = (entries.position(place), entries.fingerprint(place));
        let (at, found) = self.locate(entries, &start);
        let Err(position) = found else { return };
        if self.chunks.is_empty() {
            self.chunks.push(Chunk { from: FIRST, sum: 0, places: Vec::new() });
        }
        let chunk = &mut self.chunks[at];
        chunk.places.insert(position, (beginning(&start), place));
        chunk.sum = chunk.sum.wrapping_add(hash);
        self.sum = self.sum.wrapping_add(hash);
        self.len += 1;
        if chunk.places.len() > CHUNK {
            let places = chunk.places.split_off(CHUNK / 2);
            chunk.places.shrink_to_fit();
            let sum =
                places.iter().fold(0, |sum: u128, (_, place)| sum.wrapping_add(entries.fingerprint(*place)));
            chunk.sum = chunk.sum.wrapping_sub(sum);
            let from = entries.position(places[0].1);
            self.chunks.insert(at + 1, Chunk { from, sum, places });
        }
    }

    /// Takes out the entry at a place, which is still there.
    pub(super) fn remove(&mut self, entries: &impl Entries, place: u32) {
        let (at, found) = self.locate(entries, &entries.position(place));
        let Ok(position) = found else { return };
        let hash = entries.fingerprint(place);
        let chunk = &mut self.chunks[at];
        chunk.places.remove(position);
        chunk.sum = chunk.sum.wrapping_sub(hash);
        self.sum = self.sum.wrapping_sub(hash);
        self.len -= 1;
        if chunk.places.is_empty() {
            self.chunks.remove(at);
            if let Some(first) = self.chunks.first_mut() {
                first.from = FIRST;
            }
        }
    }

    /// The entry at a place was another, with this fingerprint.
    pub(super) fn replaced(&mut self, entries: &impl Entries, place: u32, before: u128) {
        let change = entries.fingerprint(place).wrapping_sub(before);
        let (at, _) = self.locate(entries, &entries.position(place));
        if let Some(chunk) = self.chunks.get_mut(at) {
            chunk.sum = chunk.sum.wrapping_add(change);
            self.sum = self.sum.wrapping_add(change);
        }
    }

    /// All places, in the order of their nodes' ids.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().flat_map(|chunk| chunk.places.iter().map(|(_, place)| *place))
    }
}

/// An index and its entries: everything that this node knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownEntries<'a, E> {
    pub(super) index: &'a Index,
    pub(super) entries: &'a E,
}

/// What a comparison has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// To be sent back.
    pub(super) answer: Vec<Range>,
    /// What is to be asked for: what this node has of those of whom the other has more.
    pub(super) wanted: Vec<Entry>,
    /// Of whom this node has more, and what the other has.
    pub(super) offered: Vec<Entry>,
    /// Whether the other has so much more that much is missing here; none if it did not say how much it has.
    pub(super) is_behind: Option<bool>,
    /// Whether the sums of most parts of the members differ, so that these tell little; none if there were few parts.
    pub(super) is_dense: Option<bool>,
    /// Whether the other knows other ends of memberships; none if it did not speak of all of them.
    pub(super) endings_differ: Option<bool>,
}

impl Outcome {
    /// Whether it has shown everything that the other has, and there is nothing of it that is missing here.
    pub(super) fn shows_all(&self) -> bool {
        self.wanted.is_empty() && self.answer.iter().all(|range| range.content == Content::Skip)
    }

    /// Whether there is anything that one side has and the other has not, or where that is still to be found.
    pub(super) fn differs(&self) -> bool {
        !(self.answer.is_empty() && self.wanted.is_empty() && self.offered.is_empty())
    }
}

/// How [`KnownEntries::compare`] goes on where there is no room for everything. It is drawn anew each time, so that
/// different members need not come upon the same differences.
pub(super) type Lot = u32;

impl<E: Entries> KnownEntries<'_, E> {
    /// What is known at a position.
    pub(super) fn get(&self, at: &Position) -> Option<Entry> {
        self.index.find(self.entries, at).map(|place| self.entries.entry(place))
    }

    /// The sum of everything.
    pub(super) fn sum(&self) -> u128 {
        self.index.sum
    }

    /// Where a range begins: the number of entries before it, with the chunk and the position in it.
    fn start(&self, bound: Option<Position>, otherwise: (usize, usize)) -> (usize, usize) {
        bound.map_or(otherwise, |at| {
            let (chunk, found) = self.index.locate(self.entries, &at);
            (chunk, found.unwrap_or_else(|at| at))
        })
    }

    /// The whole and partial chunks that a range is made of; of each its sum if it is whole.
    fn spans(
        &self,
        from: Option<Position>,
        to: Option<Position>,
    ) -> impl Iterator<Item = (&[(u32, u32)], Option<u128>)> {
        let (first, start) = self.start(from, (0, 0));
        let (last, end) = self.start(to, (self.index.chunks.len(), 0));
        let chunks = self.index.chunks.iter().enumerate().take(last + 1).skip(first);
        chunks.map(move |(number, chunk)| {
            let places = if number == last { &chunk.places[..end] } else { &chunk.places[..] };
            let places = if number == first { places.get(start..).unwrap_or(&[]) } else { places };
            (places, (places.len() == chunk.places.len()).then_some(chunk.sum))
        })
    }

    fn range(&self, from: Option<Position>, to: Option<Position>) -> impl Iterator<Item = Entry> {
        self.spans(from, to).flat_map(|(places, _)| places).map(|(_, place)| self.entries.entry(*place))
    }

    fn count(&self, from: Option<Position>, to: Option<Position>) -> usize {
        self.spans(from, to).map(|(places, _)| places.len()).sum()
    }

    fn sum_of(&self, places: &[(u32, u32)]) -> u128 {
        places.iter().fold(0, |sum: u128, (_, place)| sum.wrapping_add(self.entries.fingerprint(*place)))
    }

    fn sum_between(&self, from: Option<Position>, to: Option<Position>) -> [u8; 16] {
        if from.is_none() && to.is_none() {
            return self.index.sum.to_be_bytes();
        }
        let add = |sum: u128, (places, whole): (&[(u32, u32)], Option<u128>)| {
            sum.wrapping_add(whole.unwrap_or_else(|| self.sum_of(places)))
        };
        self.spans(from, to).fold(0, add).to_be_bytes()
    }

    /// What begins a comparison.
    pub(super) fn opening(&self) -> Vec<Range> {
        let boundary = Some(Position::ENDINGS);
        vec![self.summary(None, boundary), self.summary(boundary, None)]
    }

    /// What begins a comparison of members only.
    pub(super) fn opening_of_members(&self) -> Vec<Range> {
        vec![self.summary(None, Some(Position::ENDINGS))]
    }

    /// What begins a comparison that is answered also if the other knows the same: with a sum that is wrong.
    pub(super) fn opening_to_be_answered(&self) -> Vec<Range> {
        let mut opening = self.opening();
        for range in &mut opening {
            if let Content::Fingerprint { sum, .. } = &mut range.content {
                sum.iter_mut().for_each(|byte| *byte ^= 0xff);
            }
        }
        opening
    }

    /// What begins a comparison where much differs: a list of the members from a position on, none for the first, and
    /// the sums of those before and after. Also returns where the next list begins, so that all together are a lap over
    /// all members; none for the next lap.
    pub(super) fn opening_with_list(&self, at: Option<Position>) -> (Vec<Range>, Option<Position>) {
        let boundary = Some(Position::ENDINGS);
        let before = at.map_or(0, |at| self.count(None, Some(at)));
        // The last of them may be gone.
        let before = if before < self.count(None, boundary) { before } else { 0 };
        let mut ranges = self.window(None, boundary, before, GOOD_LEN);
        let (mut from, mut next) = (None, None);
        for range in &mut ranges {
            if range.content == Content::Skip {
                *range = self.summary(from, range.end);
            } else {
                next = range.end.filter(|end| *end < Position::ENDINGS);
            }
            from = range.end;
        }
        (ranges, next)
    }

    fn summary(&self, from: Option<Position>, end: Option<Position>) -> Range {
        let content =
            Content::Fingerprint { count: saturate(self.count(from, end)), sum: self.sum_between(from, end) };
        Range { end, content }
    }

    /// What follows from the ranges that another member has sent. They follow each other, as decoding has checked.
    pub(super) fn compare(&self, ranges: &[Range], lot: Lot) -> Outcome {
        let mut outcome = Outcome::default();
        let mut split = self.split(ranges, lot);
        let mut from = None;
        let (mut mine, mut theirs) = (0, 0);
        let (mut sums, mut different) = (0, 0);
        for (number, range) in ranges.iter().enumerate() {
            match &range.content {
                Content::Skip => push(&mut outcome.answer, range.clone()),
                Content::Fingerprint { count, sum } => {
                    if from.is_none_or(|from| from < Position::ENDINGS) {
                        theirs += usize::from(*count);
                        mine += self.count(from, range.end);
                        sums += 1;
                        different += usize::from(*sum != self.sum_between(from, range.end));
                    } else if from == Some(Position::ENDINGS) && range.end.is_none() {
                        outcome.endings_differ = Some(*sum != self.sum_between(from, None));
                    }
                    match split.remove(&number) {
                        Some(parts) => parts.into_iter().for_each(|part| push(&mut outcome.answer, part)),
                        None => push(&mut outcome.answer, Range { end: range.end, content: Content::Skip }),
                    }
                }
                Content::Entries(theirs) => {
                    self.compare_entries(theirs, from, range.end, &mut outcome);
                    push(&mut outcome.answer, Range { end: range.end, content: Content::Skip });
                }
            }
            from = range.end;
        }
        outcome.is_dense = (sums >= MANY_PARTS).then_some(2 * different > sums);
        outcome.is_behind = (theirs > 0).then(|| theirs >= MANY && lacks(mine, theirs, BEHIND));
        if matches!(outcome.answer.last(), Some(Range { content: Content::Skip, .. })) {
            outcome.answer.pop();
        }
        outcome
    }

    /// The parts of ranges that differ, by their numbers, as far as there is room for them. What has no room now is
    /// found different again the next time.
    fn split(&self, ranges: &[Range], lot: Lot) -> BTreeMap<usize, Vec<Range>> {
        let mut split = BTreeMap::new();
        let mut room = GOOD_LEN;
        // Those that are not split take up one place each at most.
        let mut places = MAX_RANGES.saturating_sub(ranges.len());
        // The first more often: in an opening that is the members.
        let first = (lot as usize % (ranges.len() + 2)).saturating_sub(2);
        for number in (first..ranges.len()).chain(0..first) {
            let from = number.checked_sub(1).and_then(|before| ranges[before].end);
            if room < LEAST_ROOM {
                break;
            }
            let Range { end, content: Content::Fingerprint { count, sum } } = &ranges[number] else {
                continue;
            };
            if *sum == self.sum_between(from, *end) {
                continue;
            }
            let mine = self.count(from, *end);
            let parts = if mine > LISTED && lacks(mine, (*count).into(), DENSE) {
                let others = mine.saturating_sub(most_listed(room));
                self.window(from, *end, lot as usize % (others + 1), room)
            } else {
                self.parts(from, *end)
            };
            let len: usize = parts.iter().map(|part| part.to_bytes().len()).sum();
            if len <= room && parts.len() <= places + 1 {
                room -= len;
                places -= parts.len() - 1;
                split.insert(number, parts);
            }
        }
        split
    }

    fn compare_entries(
        &self,
        theirs: &[Entry],
        from: Option<Position>,
        to: Option<Position>,
        outcome: &mut Outcome,
    ) {
        let listed: BTreeMap<Position, &Entry> =
            theirs.iter().map(|entry| (entry.position(), entry)).collect();
        for theirs in listed.values() {
            let mine = self.get(&theirs.position()).unwrap_or(nothing(theirs.node));
            if has_more(theirs, &mine) {
                outcome.wanted.push(mine);
            }
        }
        for mine in self.range(from, to) {
            let theirs = listed.get(&mine.position()).map_or(nothing(mine.node), |entry| **entry);
            if has_more(&mine, &theirs) {
                outcome.offered.push(theirs);
            }
        }
    }

    /// As much of a range as there is room for, listed, without so many entries before.
    fn window(
        &self,
        from: Option<Position>,
        end: Option<Position>,
        before: usize,
        room: usize,
    ) -> Vec<Range> {
        let mut rest = self.range(from, end).skip(before);
        let entries: Vec<Entry> = rest.by_ref().take(most_listed(room)).collect();
        let mut ranges = Vec::with_capacity(3);
        if before > 0
            && let Some(first) = entries.first()
        {
            ranges.push(Range { end: Some(first.position()), content: Content::Skip });
        }
        let next = rest.next().map(|entry| entry.position());
        ranges.push(Range { end: next.or(end), content: Content::Entries(entries) });
        if next.is_some() {
            ranges.push(Range { end, content: Content::Skip });
        }
        ranges
    }

    /// A range in parts of equal size, or listed. Members are kept apart from the ends of memberships.
    fn parts(&self, from: Option<Position>, end: Option<Position>) -> Vec<Range> {
        let count = self.count(from, end);
        let divides = from.is_none_or(|from| from < Position::ENDINGS)
            && end.is_none_or(|end| Position::ENDINGS < end)
            && self.count(Some(Position::ENDINGS), end) > 0;
        if divides && count > LISTED {
            let boundary = Some(Position::ENDINGS);
            return vec![self.summary(from, boundary), self.summary(boundary, end)];
        }
        if count <= LISTED {
            let entries = self.range(from, end).collect();
            return vec![Range { end, content: Content::Entries(entries) }];
        }
        let size = count.div_ceil(PARTS);
        let mut parts = Vec::with_capacity(PARTS);
        let part = |end, filled, sum: u128| {
            let content = Content::Fingerprint { count: saturate(filled), sum: sum.to_be_bytes() };
            Range { end, content }
        };
        let (mut sum, mut filled): (u128, usize) = (0, 0);
        for (mut places, whole) in self.spans(from, end) {
            let mut whole = whole;
            while !places.is_empty() {
                if filled == size {
                    parts.push(part(Some(self.entries.position(places[0].1)), filled, sum));
                    (sum, filled) = (0, 0);
                }
                let (here, rest) = places.split_at(places.len().min(size - filled));
                let added = whole.filter(|_| rest.is_empty()).unwrap_or_else(|| self.sum_of(here));
                whole = None;
                sum = sum.wrapping_add(added);
                filled += here.len();
                places = rest;
            }
        }
        parts.push(part(end, filled, sum));
        parts
    }
}

/// How many entries there is room for in a list, beside up to three ranges' ends.
fn most_listed(room: usize) -> usize {
    (room.saturating_sub(LEAST_ROOM) / ENTRY_LEN).clamp(1, MAX_ENTRIES)
}

/// Whether one with so many has so few of what another has that it lacks more than every so many-th of them.
fn lacks(mine: usize, theirs: usize, every: usize) -> bool {
    theirs.saturating_sub(mine) * every > theirs
}

fn saturate(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Adds a range; one of which nothing is said merges with one before of which nothing was said.
fn push(ranges: &mut Vec<Range>, range: Range) {
    match ranges.last_mut() {
        Some(last) if range.content == Content::Skip && last.content == Content::Skip => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Nothing is known of the node.
pub(super) fn nothing(node: NodeId) -> Entry {
    Entry { node, record: 0, liveness: 0, ended: false }
}

/// Whether who has `this` has something for who has `other`.
pub(super) fn has_more(this: &Entry, other: &Entry) -> bool {
    if this.ended || other.ended {
        return this.ended && !other.ended;
    }
    this.record > other.record || this.liveness > other.record.max(other.liveness)
}

/// What a member's own statements amount to.
pub(super) fn told(record: &Record, liveness_message: Option<&LivenessMessage>) -> Entry {
    let liveness = liveness_message.map_or(0, |message| message.sequence);
    Entry { node: record.node, record: record.sequence, liveness, ended: false }
}

/// What an entry adds to the sum of a range.
#[must_use]
pub fn fingerprint(entry: &Entry) -> u128 {
    let digest = Sha256::digest(entry.to_bytes());
    u128::from_be_bytes(*digest.first_chunk().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId(Sha256::digest(number.to_be_bytes()).into())
    }

    fn entry(number: u16, record: u64) -> Entry {
        Entry { node: node(number), record, liveness: 0, ended: false }
    }

    impl Entries for Vec<Entry> {
        fn position(&self, place: u32) -> Position {
            self[place as usize].position()
        }

        fn entry(&self, place: u32) -> Entry {
            self[place as usize]
        }

        fn fingerprint(&self, place: u32) -> u128 {
            fingerprint(&self.entry(place))
        }
    }

    #[derive(Default)]
    struct Side {
        index: Index,
        entries: Vec<Entry>,
    }

    impl Side {
        fn known(&self) -> KnownEntries<'_, Vec<Entry>> {
            KnownEntries { index: &self.index, entries: &self.entries }
        }

        fn get(&self, node: &NodeId) -> Option<Entry> {
            self.known().get(&Position::member(*node))
        }

        fn set(&mut self, entry: Entry) {
            if let Some(place) = self.index.find(&self.entries, &entry.position()) {
                let before = fingerprint(&std::mem::replace(&mut self.entries[place as usize], entry));
                self.index.replaced(&self.entries, place, before);
            } else {
                self.entries.push(entry);
                self.index.insert(&self.entries, u32::try_from(self.entries.len() - 1).unwrap());
            }
        }

        fn iter(&self) -> impl Iterator<Item = Entry> {
            self.index.places().map(|place| self.entries[place as usize])
        }
    }

    fn index(entries: impl IntoIterator<Item = Entry>) -> Side {
        let mut side = Side::default();
        entries.into_iter().for_each(|entry| side.set(entry));
        side
    }

    /// Gives one side what the other has of the nodes in `entries`.
    fn hand_over(from: &Side, to: &mut Side, entries: &[Entry]) {
        for entry in entries {
            if let Some(theirs) = from.get(&entry.node)
                && has_more(&theirs, &to.get(&entry.node).unwrap_or(nothing(entry.node)))
            {
                to.set(theirs);
            }
        }
    }

    /// Runs one comparison to its end; returns the datagrams and bytes it took.
    fn run(one: &mut Side, two: &mut Side) -> (usize, usize) {
        let opening = one.known().opening();
        run_from(opening, one, two, 0)
    }

    fn run_from(mut ranges: Vec<Range>, one: &mut Side, two: &mut Side, lot: Lot) -> (usize, usize) {
        let (mut datagrams, mut bytes) = (0, 0);
        let mut at_two = true;
        while !ranges.is_empty() {
            datagrams += 1;
            bytes += ranges.iter().map(|range| range.to_bytes().len()).sum::<usize>();
            let (here, there) = if at_two { (&mut *two, &mut *one) } else { (&mut *one, &mut *two) };
            let outcome = here.known().compare(&ranges, lot.wrapping_add(u32::try_from(datagrams).unwrap()));
            hand_over(here, there, &outcome.offered);
            hand_over(there, here, &outcome.wanted);
            ranges = outcome.answer;
            at_two = !at_two;
        }
        (datagrams, bytes)
    }

    #[test]
    fn equals_exchange_one_short_datagram() {
        let mut one = index((0..1000).map(|number| entry(number, 7)));
        let mut two = index((0..1000).map(|number| entry(number, 7)));
        let (datagrams, bytes) = run(&mut one, &mut two);
        assert_eq!(datagrams, 1);
        assert!(bytes < 80, "{bytes}");
    }

    #[test]
    fn one_difference_among_thousands_costs_little() {
        for count in [100, 1000, 10_000] {
            let mut one = index((0..count).map(|number| entry(number, 7)));
            let mut two = index((0..count).map(|number| entry(number, if number == 77 { 8 } else { 7 })));
            let (datagrams, bytes) = run(&mut one, &mut two);
            assert_eq!(one.get(&node(77)), two.get(&node(77)));
            assert!(datagrams <= 6 && bytes < 5000, "{count}: {datagrams} datagrams, {bytes} bytes");
        }
    }

    /// In the middle one knows some hundreds and lacks as many: there sums tell little.
    #[test]
    fn one_that_is_behind_gets_much_in_each_datagram() {
        let all = index((0..1000).map(|number| entry(number, 7)));
        let mut new = index((0..600).map(|number| entry(number, 7)));
        let outcome = new.known().compare(&all.known().opening(), 5);
        assert_eq!(outcome.is_behind, Some(true));
        assert_eq!(all.known().compare(&new.known().opening(), 5).is_behind, Some(false));
        let middle = new.iter().nth(300).map(|entry| entry.position());
        let (opening, next) = new.known().opening_with_list(middle);
        assert_eq!(next, new.iter().nth(325).map(|entry| entry.position()));
        assert!(opening.iter().map(|range| range.to_bytes().len()).sum::<usize>() <= GOOD_LEN);
        let outcome = all.known().compare(&opening, 7);
        assert!(outcome.offered.len() >= 12, "{}", outcome.offered.len());
        // And what the answer asks for leads to as much again.
        let list = new.known().compare(&outcome.answer, 9);
        assert_eq!(list.is_behind, Some(true));
        let more = all.known().compare(&list.answer, 9).offered;
        assert!(more.len() >= 12, "{}", more.len());
        hand_over(&all, &mut new, &[outcome.offered, more].concat());
        // In the end few are missing, and sums tell where.
        let nearly = index((0..950).map(|number| entry(number, 7)));
        assert_eq!(nearly.known().compare(&all.known().opening(), 5).is_behind, Some(false));
    }

    /// Members that state something all the time make all sums differ. What a node lacked among them it came upon by
    /// chance, and of a thousand members some not within hours.
    #[test]
    fn a_lap_of_lists_finds_all_that_is_missing_among_many_differences() {
        let all = index((0..1000).map(|number| entry(number, if number % 3 == 0 { 8 } else { 7 })));
        let mut new = index((0..1000).filter(|number| number % 25 != 1).map(|number| entry(number, 7)));
        let parts = all.known().parts(None, Some(Position::ENDINGS));
        assert_eq!(new.known().compare(&parts, 5).is_dense, Some(true));
        let (mut at, mut lists) = (None, 0);
        loop {
            let (opening, next) = new.known().opening_with_list(at);
            assert!(opening.iter().map(|range| range.to_bytes().len()).sum::<usize>() <= GOOD_LEN);
            let offered = all.known().compare(&opening, 7).offered;
            // What only changed is not taken in.
            let missing: Vec<Entry> = offered.into_iter().filter(|entry| entry.record == 0).collect();
            hand_over(&all, &mut new, &missing);
            lists += 1;
            at = next;
            if at.is_none() {
                break;
            }
        }
        assert_eq!((new.iter().count(), lists), (1000, 39));
        // Where little differs, sums tell where.
        let nearly =
            index((0..1000).map(|number| entry(number, if number % 3 == 0 && number != 9 { 8 } else { 7 })));
        assert_eq!(nearly.known().compare(&parts, 5).is_dense, Some(false));
        // A list begins anew if those after it are gone.
        let (opening, _) = new.known().opening_with_list(Some(Position::member(NodeId([0xff; 32]))));
        assert!(matches!(&opening[0].content, Content::Entries(entries) if !entries.is_empty()));
    }

    #[test]
    fn a_revocation_outdoes_everything() {
        let ended = Entry { ended: true, ..entry(1, 0) };
        assert!(has_more(&ended, &entry(1, 9)));
        assert!(!has_more(&entry(1, 9), &ended));
        assert!(!has_more(&ended, &ended));
    }

    #[test]
    fn an_answer_never_outgrows_a_datagram() {
        // Every part of sixteen differs, and each would be split again.
        let one = index((0..5000).map(|number| entry(number, 1)));
        let two = index((0..5000).map(|number| entry(number, 2)));
        let first = two.known().compare(&one.known().opening(), 0).answer;
        let second = one.known().compare(&first, 0).answer;
        let len: usize = second.iter().map(|range| range.to_bytes().len()).sum();
        assert!(len <= GOOD_LEN + MAX_RANGES * 33, "{len}");
        assert!(second.len() <= MAX_RANGES);
    }

    proptest! {
        /// However entries come and go, the order and the sums are those of the entries that are there.
        #[test]
        fn sums_are_those_of_what_is_there(
            steps in prop::collection::vec((0u16..600, 1u64..4, any::<bool>()), 0..900),
            bounds in prop::collection::vec(0u16..600, 2),
        ) {
            let mut side = Side::default();
            let mut model = BTreeMap::new();
            let entry = |number: u16, record| Entry { ended: number.is_multiple_of(4), ..entry(number, record) };
            let position = |number: u16| entry(number, 1).position();
            for (number, record, there) in steps {
                if there {
                    side.set(entry(number, record));
                    model.insert(position(number), entry(number, record));
                } else if let Some(place) = side.index.find(&side.entries, &position(number)) {
                    side.index.remove(&side.entries, place);
                    model.remove(&position(number));
                }
            }
            prop_assert!(side.iter().eq(model.values().copied()));
            let sorted: Vec<Entry> = model.values().copied().collect();
            let found = |entry: &Entry| side.known().get(&entry.position());
            prop_assert!(sorted.iter().all(|entry| found(entry) == Some(*entry)));
            prop_assert_eq!(side.index.len, model.len());
            let sum = |entries: &mut dyn Iterator<Item = &Entry>| {
                entries.fold(0, |sum: u128, entry| sum.wrapping_add(fingerprint(entry)))
            };
            prop_assert_eq!(side.known().sum(), sum(&mut model.values()));
            let (from, to) = (position(bounds[0]).min(position(bounds[1])), position(bounds[0]).max(position(bounds[1])));
            let expected = sum(&mut model.range(from..to).map(|(_, entry)| entry));
            prop_assert_eq!(side.known().sum_between(Some(from), Some(to)), expected.to_be_bytes());
            prop_assert_eq!(side.known().count(Some(from), Some(to)), model.range(from..to).count());
            // The parts of the whole are the whole, and no part has members and ends.
            let boundary = Some(Position::ENDINGS);
            for parts in [
                side.known().opening(),
                side.known().parts(None, None),
                [side.known().parts(None, boundary), side.known().parts(boundary, None)].concat(),
            ] {
                let sums = parts.iter().map(|part| match &part.content {
                    Content::Fingerprint { sum, .. } => u128::from_be_bytes(*sum),
                    Content::Entries(entries) => sum(&mut entries.iter()),
                    Content::Skip => 0,
                });
                prop_assert_eq!(sums.fold(0, u128::wrapping_add), side.known().sum());
                let apart = parts.iter().any(|part| part.end == boundary);
                prop_assert!(apart || model.len() <= LISTED || !model.keys().any(|at| at.ended));
            }
        }

        /// Whatever two members know, repeated comparisons make them equal, and to the newest of both.
        #[test]
        fn comparisons_converge(
            one in prop::collection::btree_map(0u16..400, 1u64..4, 0..300),
            two in prop::collection::btree_map(0u16..400, 1u64..4, 0..300),
        ) {
            let mut newest = one.clone();
            for (number, record) in &two {
                let known = newest.entry(*number).or_insert(*record);
                *known = (*known).max(*record);
            }
            let all = |map: &BTreeMap<u16, u64>| index(map.iter().map(|(number, record)| entry(*number, *record)));
            let (mut first, mut second) = (all(&one), all(&two));
            let mut at = None;
            for turn in 0..80u32 {
                let lot = turn.wrapping_mul(0x9e37_79b9);
                let opening = if turn % 3 == 0 {
                    let (opening, next) = first.known().opening_with_list(at);
                    at = next;
                    opening
                } else {
                    first.known().opening()
                };
                run_from(opening, &mut first, &mut second, lot);
            }
            let expected = all(&newest);
            prop_assert!(first.iter().eq(expected.iter()));
            prop_assert!(second.iter().eq(expected.iter()));
        }
    }
}
