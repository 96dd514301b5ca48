//! How records spread: news at once to a few, and a regular comparison of notes that finds what was lost.

use std::cmp::Ordering;
use std::time::Duration;

use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::message::{self, Digest, DigestEntry, Message};
use i2plan_proto::record::Record;
use rand::{Rng, RngExt as _};
use tracing::{debug, info};

use super::members::Merge;
use super::{Mesh, Now, Refresh, SAVE_RECORDS_AFTER};

/// How many members hear of news at once.
const FANOUT: usize = 3;

/// After a change of the own record it is announced so often, at growing distances.
const ANNOUNCEMENTS: u32 = 5;

/// Distance of the first two announcements; each further one is twice as long.
const FIRST_DISTANCE: Duration = Duration::from_secs(2);

/// What one round of gossip consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// Tell a few members the own record, and compare notes with them.
    Announce,
    /// Compare notes with one member.
    Heartbeat,
}

/// Decides when there is a round of gossip.
#[derive(Debug)]
pub(super) struct Announcer {
    heartbeat: Duration,
    next_heartbeat: Duration,
    announcements_left: u32,
    next_announcement: Duration,
}

impl Announcer {
    pub(super) fn new(heartbeat: Duration, now: Duration) -> Self {
        Self { heartbeat, next_heartbeat: now + heartbeat, announcements_left: 0, next_announcement: now }
    }

    /// The own record has changed.
    pub(super) fn news(&mut self, now: Duration) {
        self.announcements_left = ANNOUNCEMENTS;
        self.next_announcement = now;
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        let announcement = (self.announcements_left > 0).then_some(self.next_announcement);
        announcement.into_iter().chain([self.next_heartbeat]).min()
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.wake_at().is_some_and(|at| at <= now)
    }

    /// The round that is due, and the time of the next.
    pub(super) fn next_round(&mut self, now: Duration, rng: &mut impl Rng) -> Round {
        // A quarter up or down, so that members that started together do not speak together.
        self.next_heartbeat = now + self.heartbeat.mul_f64(rng.random_range(0.75..1.25));
        if self.announcements_left > 0 && self.next_announcement <= now {
            let done = ANNOUNCEMENTS - self.announcements_left;
            self.announcements_left -= 1;
            self.next_announcement = now + FIRST_DISTANCE * 2u32.pow(done);
            return Round::Announce;
        }
        Round::Heartbeat
    }
}

impl Mesh {
    pub(super) fn gossip(&mut self, round: Round) {
        let Some(own) = self.own.clone() else { return };
        let count = if round == Round::Announce { FANOUT } else { 1 };
        let targets = self.draw_targets(count, &[]);
        let digest = Message::Digest(self.digest());
        for target in targets {
            if round == Round::Announce {
                self.send(&target, &Message::Records(vec![own.clone()]));
            }
            self.send(&target, &digest);
        }
    }

    fn draw_targets(&mut self, count: usize, except: &[NodeId]) -> Vec<Destination> {
        let drawn = self.members.sample(count, except, &mut self.rng);
        drawn.iter().map(|record| record.value.control).collect()
    }

    /// What this node has: everything, or as much as fits, drawn at random.
    fn digest(&mut self) -> Digest {
        let entry = |record: &Signed<Record>| DigestEntry {
            node: record.value.node,
            sequence: record.value.sequence,
        };
        let mut entries: Vec<_> = self.own.iter().map(entry).collect();
        entries
            .extend(self.members.sample(message::MAX_DIGEST - 1, &[], &mut self.rng).into_iter().map(entry));
        Digest { complete: self.members.len() < message::MAX_DIGEST, entries }
    }

    pub(super) fn on_records(&mut self, from: &Destination, records: Vec<Signed<Record>>, now: Now) {
        let Some(network) = self.network() else { return };
        for record in records {
            let node = record.value.node;
            let known = if node == self.me.node { self.own_sequence() } else { self.members.sequence(&node) };
            // Most records are known already; only news costs a verification.
            if known.is_some_and(|known| known >= record.value.sequence) {
                continue;
            }
            if let Err(error) = record.verify_for(&network) {
                debug!(%error, from = %from.hash().short(), "dropped a record");
                continue;
            }
            if node == self.me.node {
                self.on_own_record(&record, now);
                continue;
            }
            match self.members.merge(record.clone()) {
                Merge::Known => {}
                Merge::Full => debug!("dropped a record: no room for another member"),
                Merge::News => {
                    if known.is_none() {
                        let value = &record.value;
                        info!(node = %node.short(), name = %value.name, ipv4 = %value.ipv4, "learned of a member");
                    }
                    self.members.heard(&from.hash(), now.monotonic);
                    self.save_records_at.get_or_insert(now.monotonic + SAVE_RECORDS_AFTER);
                    self.peers_version += 1;
                    self.spread(&record, from);
                }
            }
        }
    }

    fn own_sequence(&self) -> Option<u64> {
        self.membership.as_ref().map(|membership| membership.last_sequence)
    }

    /// A record of this node that it does not remember, because its state was lost or put back: it is outdone.
    fn on_own_record(&mut self, record: &Signed<Record>, now: Now) {
        if let Some(membership) = &mut self.membership {
            membership.last_sequence = record.value.sequence;
            self.unsaved = true;
            if matches!(self.refresh, Refresh::Due(_)) {
                self.refresh = Refresh::Due(now.monotonic);
            }
        }
    }

    /// Passes news on. It ends by itself: who knows it already does not pass it on.
    fn spread(&mut self, record: &Signed<Record>, from: &Destination) {
        let message = Message::Records(vec![record.clone()]);
        for target in self.draw_targets(FANOUT, &[record.value.node]) {
            if target != *from {
                self.send(&target, &message);
            }
        }
    }

    pub(super) fn on_digest(&mut self, from: &Destination, digest: &Digest) {
        // Strangers learn nothing; and who is no member cannot make this node send much for little.
        if !self.members.is_member(&from.hash()) {
            return;
        }
        let Some(own) = &self.own else { return };
        let mut newer_here = Vec::new();
        let mut newer_there = Vec::new();
        for entry in &digest.entries {
            let here = if entry.node == self.me.node {
                Some(own.value.sequence)
            } else {
                self.members.sequence(&entry.node)
            };
            // What is not known counts as older than everything; so nobody asks for what neither side has.
            let here = here.unwrap_or(0);
            match here.cmp(&entry.sequence) {
                Ordering::Greater => newer_here.push(entry.node),
                Ordering::Equal => {}
                Ordering::Less => newer_there.push(DigestEntry { node: entry.node, sequence: here }),
            }
        }
        if digest.complete {
            let listed = |node: &NodeId| digest.entries.iter().any(|entry| entry.node == *node);
            let unlisted =
                self.members.iter().map(|member| member.record.value.node).filter(|node| !listed(node));
            // What does not fit now is found missing again the next time.
            newer_here.extend(unlisted.take(4 * message::MAX_RECORDS));
            if !listed(&self.me.node) {
                newer_here.push(self.me.node);
            }
        }
        self.send_records(from, &newer_here);
        if !newer_there.is_empty() {
            // Asks for what is newer there: the other side answers a digest that is behind with its records.
            self.send(from, &Message::Digest(Digest { complete: false, entries: newer_there }));
        }
    }

    /// Sends the records of these nodes, in as few messages as hold them.
    fn send_records(&mut self, to: &Destination, nodes: &[NodeId]) {
        let mut batch = Vec::new();
        let mut len = 0;
        let records: Vec<_> = nodes.iter().filter_map(|node| self.known_record(node).cloned()).collect();
        for record in records {
            let size = record.to_bytes().len();
            if batch.len() >= message::MAX_RECORDS || len + size > message::MAX_LEN - 3 {
                self.send(to, &Message::Records(std::mem::take(&mut batch)));
                len = 0;
            }
            len += size;
            batch.push(record);
        }
        if !batch.is_empty() {
            self.send(to, &Message::Records(batch));
        }
    }

    fn known_record(&self, node: &NodeId) -> Option<&Signed<Record>> {
        if *node == self.me.node { self.own.as_ref() } else { self.members.record(node) }
    }
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
        let mut rng = StdRng::from_seed([1; 32]);
        let mut times = Vec::new();
        loop {
            let at = announcer.wake_at().unwrap();
            if announcer.next_round(at, &mut rng) == Round::Heartbeat {
                break;
            }
            times.push(at.as_secs());
        }
        assert_eq!(times, [0, 2, 6, 14, 30]);
    }
}
