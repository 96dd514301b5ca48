//! Which control datagrams are looked at: so many of each sender, and so many in all.
//!
//! The router vouches for a sender's destination, but anybody can make as many destinations as they like. So
//! strangers share an allowance of their own: however many there are, they cannot use up what members have. What
//! is decided here is decided before any signature is verified.

use std::collections::HashMap;
use std::time::Duration;

use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_proto::destination::DestinationHash;

/// Datagrams of one member. An honest one sends a few in every heartbeat, and passes on what is news: a hundred at
/// once is a hundred members that joined within a moment.
const MEMBER: Quota = Quota::new(20, 100);

/// Datagrams of all members. Each may hold four records of up to ten signatures, at some 50 µs a signature: 2 ms at
/// the worst.
const MEMBERS: Quota = Quota::new(200, 1000);

/// Members whose datagrams are counted at once.
const MAX_MEMBERS: usize = 4096;

/// Datagrams of one stranger. A joiner repeats its request after a second and a half at the earliest, and a member that is
/// not known yet has two or three to say until it is.
const STRANGER: Quota = Quota::new(1, 10);

/// Datagrams of all strangers.
const STRANGERS: Quota = Quota::new(50, 200);

/// Strangers whose datagrams are counted at once. More than all of them together may begin in the time in which one
/// is forgotten.
const MAX_STRANGERS: usize = 1024;

/// Join requests whose signatures are verified, of all senders. Each that is right costs `keyd` a signature and this
/// node a write to its disk.
const JOINS: Quota = Quota::new(10, 50);

/// An allowance for each sender.
#[derive(Debug)]
pub(super) struct Senders {
    each: Quota,
    room: usize,
    buckets: HashMap<DestinationHash, Bucket>,
}

impl Senders {
    /// `each` is what a sender has. So many senders are counted at once.
    pub(super) fn new(each: Quota, room: usize) -> Self {
        Self { each, room, buckets: HashMap::new() }
    }

    /// Whether this sender may have one more now.
    pub(super) fn may(&self, from: &DestinationHash, now: Duration) -> bool {
        self.buckets.get(from).copied().unwrap_or_default().wait(self.each, now).is_zero()
    }

    fn take(&mut self, from: &DestinationHash, now: Duration) {
        self.make_room(from, now);
        self.buckets.entry(*from).or_default().take(self.each, now);
    }

    /// Counts one more of this sender, if it may have one more now.
    pub(super) fn try_take(&mut self, from: &DestinationHash, now: Duration) -> bool {
        let may = self.may(from, now);
        if may {
            self.take(from, now);
        }
        may
    }

    /// Who has been silent long enough is as if never seen, and forgotten. If that is not enough, the one goes whom
    /// it would be next: it gets a fresh allowance should it come again, but none of it beyond that of all.
    fn make_room(&mut self, newcomer: &DestinationHash, now: Duration) {
        if self.buckets.len() < self.room || self.buckets.contains_key(newcomer) {
            return;
        }
        self.buckets.retain(|_, bucket| !bucket.is_empty(now));
        if self.buckets.len() >= self.room
            && let Some(first) = self.buckets.iter().min_by_key(|(_, bucket)| **bucket).map(|(from, _)| *from)
        {
            self.buckets.remove(&first);
        }
    }
}

/// One allowance for all and one for each.
#[derive(Debug)]
struct Tier {
    all: Quota,
    total: Bucket,
    senders: Senders,
}

impl Tier {
    fn new(each: Quota, all: Quota, room: usize) -> Self {
        Self { all, total: Bucket::default(), senders: Senders::new(each, room) }
    }

    fn admit(&mut self, from: &DestinationHash, now: Duration) -> bool {
        // Both or none: who sends too much does so at nobody else's expense.
        let admitted = self.senders.may(from, now) && self.total.try_take(self.all, now);
        if admitted {
            self.senders.take(from, now);
        }
        admitted
    }
}

/// Counts what comes in.
#[derive(Debug)]
pub(super) struct Door {
    members: Tier,
    strangers: Tier,
    joins: Bucket,
}

impl Door {
    pub(super) fn new() -> Self {
        Self {
            members: Tier::new(MEMBER, MEMBERS, MAX_MEMBERS),
            strangers: Tier::new(STRANGER, STRANGERS, MAX_STRANGERS),
            joins: Bucket::default(),
        }
    }

    /// Whether a datagram from this destination is looked at. Known are members, and whom this node has asked.
    pub(super) fn admit(&mut self, from: &DestinationHash, known: bool, now: Duration) -> bool {
        let tier = if known { &mut self.members } else { &mut self.strangers };
        tier.admit(from, now)
    }

    /// Whether a join request is verified.
    pub(super) fn admit_join(&mut self, now: Duration) -> bool {
        self.joins.try_take(JOINS, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(number: u32) -> DestinationHash {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        DestinationHash(hash)
    }

    fn admitted(door: &mut Door, from: impl Iterator<Item = u32>, known: bool, now: Duration) -> usize {
        from.filter(|number| door.admit(&sender(*number), known, now)).count()
    }

    #[test]
    fn one_stranger_has_little_and_takes_nothing_from_others() {
        let mut door = Door::new();
        let now = Duration::from_secs(1);
        assert_eq!(admitted(&mut door, std::iter::repeat_n(1, 10_000), false, now), 10);
        assert_eq!(admitted(&mut door, 2..100, false, now), 98);
        assert_eq!(admitted(&mut door, std::iter::repeat_n(1, 10), false, now + Duration::from_secs(3)), 3);
    }

    #[test]
    fn ever_new_destinations_share_one_allowance_and_bounded_memory() {
        let mut door = Door::new();
        let mut admitted_in_all = 0;
        for second in 0..60 {
            let new = second * 5_000..(second + 1) * 5_000;
            let now = Duration::from_secs(second.into());
            admitted_in_all += admitted(&mut door, new, false, now);
            assert!(door.strangers.senders.buckets.len() <= MAX_STRANGERS);
        }
        assert_eq!(admitted_in_all, 200 + 59 * 50);
        // Members have theirs.
        assert!(door.admit(&sender(1), true, Duration::from_secs(60)));
    }

    #[test]
    fn one_member_has_less_than_all_of_them() {
        let mut door = Door::new();
        let now = Duration::from_secs(1);
        assert_eq!(admitted(&mut door, std::iter::repeat_n(1, 10_000), true, now), 100);
        assert_eq!(admitted(&mut door, 2..10_000, true, now), 900);
    }

    #[test]
    fn a_full_table_forgets_who_would_be_forgotten_next() {
        let quota = Quota::new(1, 10);
        let mut tier = Tier::new(quota, Quota::new(1000, 1000), 3);
        let now = Duration::from_secs(1);
        for (number, times) in [(1, 3), (2, 2), (3, 3)] {
            for _ in 0..times {
                assert!(tier.admit(&sender(number), now));
            }
        }
        assert!(tier.admit(&sender(4), now));
        assert!(!tier.senders.buckets.contains_key(&sender(2)));
        // All whose time has come go before anybody else.
        let later = now + Duration::from_secs(3);
        assert!(tier.admit(&sender(5), later));
        assert_eq!(tier.senders.buckets.len(), 1);
    }

    #[test]
    fn join_requests_have_a_limit_of_their_own() {
        let mut door = Door::new();
        let now = Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| door.admit_join(now)).count(), 50);
    }
}
