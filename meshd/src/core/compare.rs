//! Comparing what two members know, at a cost that follows the difference and not the size of the mesh.
//!
//! Range-based set reconciliation (Meyer, "Range-Based Set Reconciliation", 2022): what is known is ordered by node
//! id, and one side sends the sum over a range of ids. If the other side has another sum there, it answers with the
//! sums of the parts of the range, and so on until a part is small enough to be listed. Equal sums end it: two members
//! that know the same exchange one short datagram. No side keeps state between messages, so any of them may be lost.

use std::collections::BTreeMap;
use std::ops::Bound;

use i2plan_proto::codec::Codec as _;
use i2plan_proto::identity::NodeId;
use i2plan_proto::message::{Content, Entry, GOOD_LEN, MAX_RANGES, Range};
use sha2::{Digest as _, Sha256};

/// Into so many parts a range is split whose sum differs.
const PARTS: usize = 16;

/// A range with no more entries than this is listed instead of split.
const LISTED: usize = 12;

/// Everything that this node knows, entry by entry, with the hash of each.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeMap<NodeId, (Entry, u128)>);

/// What a comparison has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// To be sent back.
    pub(super) answer: Vec<Range>,
    /// What is to be asked for: what this node has of those of whom the other has more.
    pub(super) wanted: Vec<Entry>,
    /// Of whom this node has more, and what the other has.
    pub(super) offered: Vec<Entry>,
}

impl Index {
    /// What is known of one node.
    pub(super) fn get(&self, node: &NodeId) -> Option<Entry> {
        self.0.get(node).map(|(entry, _)| *entry)
    }

    pub(super) fn set(&mut self, entry: Entry) {
        self.0.insert(entry.node, (entry, hash(&entry)));
    }

    pub(super) fn remove(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.values().map(|(entry, _)| entry)
    }

    fn range(
        &self,
        from: Option<NodeId>,
        to: Option<NodeId>,
    ) -> impl Iterator<Item = &(Entry, u128)> + Clone {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range((from, to)).map(|(_, value)| value)
    }

    fn sum(&self, from: Option<NodeId>, to: Option<NodeId>) -> [u8; 16] {
        self.range(from, to).fold(0, |sum: u128, (_, hash)| sum.wrapping_add(*hash)).to_be_bytes()
    }

    /// What begins a comparison.
    pub(super) fn opening(&self) -> Vec<Range> {
        vec![Range { end: None, content: Content::Fingerprint(self.sum(None, None)) }]
    }

    /// What follows from the ranges that another member has sent. They follow each other, as decoding has checked.
    pub(super) fn compare(&self, ranges: &[Range]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut room = GOOD_LEN;
        let mut from = None;
        for range in ranges {
            match &range.content {
                Content::Skip => push(&mut outcome.answer, range.end, Content::Skip),
                Content::Fingerprint(sum) if *sum == self.sum(from, range.end) => {
                    push(&mut outcome.answer, range.end, Content::Skip);
                }
                Content::Fingerprint(_) => {
                    let parts = self.parts(from, range.end);
                    let len: usize = parts.iter().map(|part| part.to_bytes().len()).sum();
                    // What has no room now is found different again the next time.
                    if len > room || outcome.answer.len() + parts.len() >= MAX_RANGES {
                        push(&mut outcome.answer, range.end, Content::Skip);
                    } else {
                        room -= len;
                        outcome.answer.extend(parts);
                    }
                }
                Content::Entries(theirs) => {
                    self.compare_entries(theirs, from, range.end, &mut outcome);
                    push(&mut outcome.answer, range.end, Content::Skip);
                }
            }
            from = range.end;
        }
        if matches!(outcome.answer.last(), Some(Range { content: Content::Skip, .. })) {
            outcome.answer.pop();
        }
        outcome
    }

    fn compare_entries(
        &self,
        theirs: &[Entry],
        from: Option<NodeId>,
        to: Option<NodeId>,
        outcome: &mut Outcome,
    ) {
        let listed: BTreeMap<NodeId, &Entry> = theirs.iter().map(|entry| (entry.node, entry)).collect();
        for theirs in listed.values() {
            let mine = self.get(&theirs.node).unwrap_or(nothing(theirs.node));
            if has_more(theirs, &mine) {
                outcome.wanted.push(mine);
            }
        }
        for (mine, _) in self.range(from, to) {
            let theirs = listed.get(&mine.node).map_or(nothing(mine.node), |entry| **entry);
            if has_more(mine, &theirs) {
                outcome.offered.push(theirs);
            }
        }
    }

    /// A range in parts of equal size, or listed.
    fn parts(&self, from: Option<NodeId>, end: Option<NodeId>) -> Vec<Range> {
        let count = self.range(from, end).count();
        if count <= LISTED {
            let entries = self.range(from, end).map(|(entry, _)| *entry).collect();
            return vec![Range { end, content: Content::Entries(entries) }];
        }
        let size = count.div_ceil(PARTS);
        let mut parts = Vec::with_capacity(PARTS);
        let mut sum: u128 = 0;
        for (index, (entry, hash)) in self.range(from, end).enumerate() {
            if index > 0 && index % size == 0 {
                let content = Content::Fingerprint(sum.to_be_bytes());
                parts.push(Range { end: Some(entry.node), content });
                sum = 0;
            }
            sum = sum.wrapping_add(*hash);
        }
        parts.push(Range { end, content: Content::Fingerprint(sum.to_be_bytes()) });
        parts
    }
}

/// Adds a range; one of which nothing is said merges with one before of which nothing was said.
fn push(ranges: &mut Vec<Range>, end: Option<NodeId>, content: Content) {
    match ranges.last_mut() {
        Some(last) if content == Content::Skip && last.content == Content::Skip => last.end = end,
        _ => ranges.push(Range { end, content }),
    }
}

/// Nothing is known of the node.
pub(super) fn nothing(node: NodeId) -> Entry {
    Entry { node, record: 0, pulse: 0, revoked: false }
}

/// Whether who has `this` has something for who has `other`.
pub(super) fn has_more(this: &Entry, other: &Entry) -> bool {
    if this.revoked || other.revoked {
        return this.revoked && !other.revoked;
    }
    this.record > other.record || this.pulse > other.record.max(other.pulse)
}

fn hash(entry: &Entry) -> u128 {
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
        Entry { node: node(number), record, pulse: 0, revoked: false }
    }

    fn index(entries: impl IntoIterator<Item = Entry>) -> Index {
        let mut index = Index::default();
        entries.into_iter().for_each(|entry| index.set(entry));
        index
    }

    /// Gives one side what the other has of the nodes in `entries`.
    fn hand_over(from: &Index, to: &mut Index, entries: &[Entry]) {
        for entry in entries {
            if let Some(theirs) = from.get(&entry.node)
                && has_more(&theirs, &to.get(&entry.node).unwrap_or(nothing(entry.node)))
            {
                to.set(theirs);
            }
        }
    }

    /// Runs one comparison to its end; returns the datagrams and bytes it took.
    fn run(one: &mut Index, two: &mut Index) -> (usize, usize) {
        let mut ranges = one.opening();
        let (mut datagrams, mut bytes) = (0, 0);
        let mut at_two = true;
        while !ranges.is_empty() {
            datagrams += 1;
            bytes += ranges.iter().map(|range| range.to_bytes().len()).sum::<usize>();
            let (here, there) = if at_two { (&mut *two, &mut *one) } else { (&mut *one, &mut *two) };
            let outcome = here.compare(&ranges);
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
        assert!(bytes < 30, "{bytes}");
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

    #[test]
    fn a_revocation_outdoes_everything() {
        let revoked = Entry { revoked: true, ..entry(1, 0) };
        assert!(has_more(&revoked, &entry(1, 9)));
        assert!(!has_more(&entry(1, 9), &revoked));
        assert!(!has_more(&revoked, &revoked));
    }

    #[test]
    fn an_answer_never_outgrows_a_datagram() {
        // Every part of sixteen differs, and each would be split again.
        let one = index((0..5000).map(|number| entry(number, 1)));
        let two = index((0..5000).map(|number| entry(number, 2)));
        let first = two.compare(&one.opening()).answer;
        let second = one.compare(&first).answer;
        let len: usize = second.iter().map(|range| range.to_bytes().len()).sum();
        assert!(len <= GOOD_LEN + MAX_RANGES * 33, "{len}");
        assert!(second.len() <= MAX_RANGES);
    }

    proptest! {
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
            for _ in 0..60 {
                run(&mut first, &mut second);
            }
            let expected = all(&newest);
            prop_assert!(first.iter().eq(expected.iter()));
            prop_assert!(second.iter().eq(expected.iter()));
        }
    }
}
