//! The other members, each by the newest record that is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::record::Record;
use rand::Rng;
use rand::seq::IteratorRandom as _;

/// Members that are remembered at most.
pub(super) const MAX_MEMBERS: usize = 10_000;

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) record: Signed<Record>,
    /// When its last control message came, on the monotonic clock.
    pub(super) last_heard: Option<Duration>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// It is newer than what was known.
    News,
    /// It is not.
    Known,
    /// There is no room for another member.
    Full,
}

/// All other members.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_node: BTreeMap<NodeId, Member>,
    /// Who says that it takes control messages where. Several may say so of one place; that takes it from none.
    by_control: BTreeSet<(DestinationHash, NodeId)>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_node.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_node.values()
    }

    /// The sequence number of the newest record of a member.
    pub(super) fn sequence(&self, node: &NodeId) -> Option<u64> {
        self.by_node.get(node).map(|member| member.record.value.sequence)
    }

    pub(super) fn record(&self, node: &NodeId) -> Option<&Signed<Record>> {
        self.by_node.get(node).map(|member| &member.record)
    }

    /// Takes in a record, which has been verified.
    pub(super) fn merge(&mut self, record: Signed<Record>) -> Merge {
        let node = record.value.node;
        let control = record.value.control.hash();
        let full = self.by_node.len() >= MAX_MEMBERS;
        match self.by_node.get_mut(&node) {
            Some(member) if member.record.value.sequence >= record.value.sequence => return Merge::Known,
            Some(member) => {
                self.by_control.remove(&(member.record.value.control.hash(), node));
                member.record = record;
            }
            None if full => return Merge::Full,
            None => {
                self.by_node.insert(node, Member { record, last_heard: None });
            }
        }
        self.by_control.insert((control, node));
        Merge::News
    }

    /// A message came from this destination.
    pub(super) fn heard(&mut self, control: &DestinationHash, now: Duration) {
        for (_, node) in self.by_control.range(at(control)) {
            if let Some(member) = self.by_node.get_mut(node) {
                member.last_heard = Some(now);
            }
        }
    }

    /// Whether a member takes its control messages there.
    pub(super) fn is_member(&self, control: &DestinationHash) -> bool {
        self.by_control.range(at(control)).next().is_some()
    }

    /// Up to `count` records, drawn at random, none of the nodes in `except`.
    pub(super) fn sample(&self, count: usize, except: &[NodeId], rng: &mut impl Rng) -> Vec<&Signed<Record>> {
        let others = self.by_node.values().filter(|member| !except.contains(&member.record.value.node));
        others.map(|member| &member.record).sample(rng, count)
    }
}

/// Everybody at one place.
fn at(control: &DestinationHash) -> RangeInclusive<(DestinationHash, NodeId)> {
    (*control, NodeId([0; 32]))..=(*control, NodeId([0xff; 32]))
}
