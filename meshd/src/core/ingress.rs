//! Which control datagrams are looked at. Each sender has an allowance, and so has each kind of senders.
//!
//! This is decided before any signature is verified. The router vouches for a sender's destination, but destinations
//! cost nothing. So:
//!
//! - Strangers share an allowance. However many they are, they cannot use up that of members.
//! - Members share theirs by address ([`Shares`]): a member with many identities has them in its own address range. The
//!   rate is divided equally among the blocks that send more than is paid off, and within a block among its addresses.
//!   A datagram within its address's or its block's share is always admitted. What is unused is lent: other datagrams
//!   are admitted while all together send less than the rate. Since shares add up to the rate, and lending stops where
//!   all together reach it, members cannot cost this node more than that. A block that sends two datagrams a second is
//!   within its share while fewer than a hundred other blocks send as fast as they can.
//! - The inviter that this node has asked has an allowance of its own: strangers cannot delay its answer.
//!
//! Floods are dropped and lead to no ban: the local router can forge their senders.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::message::{self, Datagram};
use tracing::debug;

use super::shares::{AddressInBlock, Shares, Source};
use super::situation::Situation;
use super::{Mesh, Now};

/// Datagrams of one member address. An honest member sends a few in every heartbeat, and passes on what is news: a
/// hundred in a moment are a hundred members that joined within a moment.
const MEMBER: Quota = Quota::new(20, 100);

/// The time that one datagram takes of the rate of all members: 200 a second. Each datagram may hold four records of up
/// to ten signatures, at some 50 µs a signature: 2 ms at the worst.
const COST: Duration = Duration::from_millis(5);

/// Datagrams of all members.
const MEMBERS: Quota = Quota::every(COST, 1000);

/// The backlogs with which a member address and a block are within their shares: four and eight datagrams in a moment,
/// since routers deliver in bursts.
const TOLERANCES: (Duration, Duration) = (COST.saturating_mul(3), COST.saturating_mul(7));

/// Member addresses that are counted at a time.
const MAX_MEMBERS: usize = 4096;

/// Datagrams of one stranger. A joiner repeats its request after a second and a half at the earliest, and a member that is
/// not known yet has two or three to say until it is.
const STRANGER: Quota = Quota::new(1, 10);

/// Datagrams of all strangers.
const STRANGERS: Quota = Quota::new(50, 200);

/// Strangers whose datagrams are counted at a time. More than all of them together may begin in the time in which one
/// is forgotten.
const MAX_STRANGERS: usize = 1024;

/// Join requests whose signatures are verified, of all senders. Each that is right costs `keyd` a signature and this
/// node a write to its disk.
const JOINS: Quota = Quota::new(10, 50);

/// The sender of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A member with this address, in this block ([`i2plan_proto::address::Ipv4Subnet::share_of`]).
    Member { share: u32, address: u32 },
    /// The inviter that this node has asked to join.
    Asked,
    /// Any other destination.
    Stranger,
}

/// An allowance for each sender.
#[derive(Debug)]
pub(super) struct Senders<K = DestinationHash> {
    each: Quota,
    room: usize,
    buckets: HashMap<K, Bucket>,
}

impl<K: Copy + Eq + Hash> Senders<K> {
    /// `each` is the allowance of a sender; `room` is how many senders are counted at a time.
    pub(super) fn new(each: Quota, room: usize) -> Self {
        Self { each, room, buckets: HashMap::new() }
    }

    /// Whether this sender may have one more now.
    pub(super) fn may(&self, from: &K, now: Duration) -> bool {
        self.buckets.get(from).copied().unwrap_or_default().wait(self.each, now).is_zero()
    }

    fn take(&mut self, from: &K, now: Duration) {
        self.make_room(from, now);
        self.buckets.entry(*from).or_default().take(self.each, now);
    }

    /// Forgets senders that have been silent long enough to be as if never seen. If that is not enough, the sender goes
    /// that would be next: it gets a fresh allowance should it come again, but none of it beyond that of all.
    fn make_room(&mut self, newcomer: &K, now: Duration) {
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
struct Strangers {
    all: Quota,
    total: Bucket,
    senders: Senders,
}

impl Strangers {
    fn new(each: Quota, all: Quota, room: usize) -> Self {
        Self { all, total: Bucket::default(), senders: Senders::new(each, room) }
    }

    fn admit(&mut self, from: &DestinationHash, now: Duration) -> bool {
        // Both or none: what one sends too much is not at the others' expense.
        let admitted = self.senders.may(from, now) && self.total.try_take(self.all, now);
        if admitted {
            self.senders.take(from, now);
        }
        admitted
    }
}

/// The allowance of members, by address.
#[derive(Debug)]
struct Members {
    each: Senders<u32>,
    shares: Shares,
    total: Bucket,
}

impl Members {
    fn new() -> Self {
        Self {
            each: Senders::new(MEMBER, MAX_MEMBERS),
            shares: Shares::new(TOLERANCES, MAX_MEMBERS),
            total: Bucket::default(),
        }
    }

    fn admit(&mut self, place: AddressInBlock, now: Duration) -> bool {
        if !self.each.may(&place.address, now) {
            return false;
        }
        let from = self.shares.source(place, now);
        if from == Source::Others && !self.total.wait(MEMBERS, now).is_zero() {
            return false;
        }
        self.each.take(&place.address, now);
        self.shares.take(place, from, COST, now);
        // Also what is within a share counts, so that no more is lent than is left.
        self.total.take(MEMBERS, now);
        true
    }
}

/// Counts what comes in.
#[derive(Debug)]
pub(super) struct IngressLimits {
    members: Members,
    asked: Bucket,
    strangers: Strangers,
    joins: Bucket,
}

impl IngressLimits {
    pub(super) fn new() -> Self {
        Self {
            members: Members::new(),
            asked: Bucket::default(),
            strangers: Strangers::new(STRANGER, STRANGERS, MAX_STRANGERS),
            joins: Bucket::default(),
        }
    }

    /// Whether a datagram from this destination is looked at; it is counted then.
    pub(super) fn admit(&mut self, from: &DestinationHash, sender: Sender, now: Duration) -> bool {
        match sender {
            Sender::Member { share, address } => {
                self.members.admit(AddressInBlock { block: share, address }, now)
            }
            Sender::Asked => self.asked.try_take(MEMBER, now),
            Sender::Stranger => self.strangers.admit(from, now),
        }
    }

    /// Whether a join request is verified.
    pub(super) fn admit_join(&mut self, now: Duration) -> bool {
        self.joins.try_take(JOINS, now)
    }
}

impl Mesh {
    /// A datagram, if it is looked at.
    pub(super) fn admit_datagram(
        &mut self,
        from: &Destination,
        payload: &[u8],
        now: Now,
    ) -> Option<Datagram> {
        self.cx.counts.received += 1;
        if payload.len() > message::MAX_LEN {
            debug!(len = payload.len(), "dropped a control message that is too long");
            return None;
        }
        let sender = from.hash();
        if self.member().is_some_and(|member| member.is_shut_out(&sender)) {
            return None;
        }
        // Not the sender's doing, so not at its expense: somebody sends on what it has sent to another.
        if Datagram::addressee(payload).is_ok_and(|to| !self.cx.is_here(to)) {
            debug!(from = %sender.short(), "dropped a control message that is for another");
            return None;
        }
        // Dropped without a strike: the local router can forge senders.
        if !self.is_within_limits(&sender, now) {
            self.cx.counts.limited += 1;
            debug!(from = %sender.short(), "dropped a control message: too many are coming");
            return None;
        }
        match Datagram::from_bytes(payload) {
            Ok(datagram) => Some(datagram),
            Err(error) => {
                debug!(%error, from = %sender.short(), "dropped a control message");
                None
            }
        }
    }

    /// Whether a datagram from this destination is within the limits, and counts it.
    fn is_within_limits(&mut self, from: &DestinationHash, now: Now) -> bool {
        let (places, inviter) = match &self.situation {
            Situation::Outside | Situation::Founding(_) => (Vec::new(), None),
            Situation::Joining(joining) => (Vec::new(), Some(&joining.waiting)),
            Situation::Member(member) => (member.places_at(from), member.entering.as_ref()),
        };
        if places.is_empty() {
            let asked = inviter.is_some_and(|inviter| inviter.control == *from);
            let sender = if asked { Sender::Asked } else { Sender::Stranger };
            return self.cx.ingress.admit(from, sender, now.monotonic);
        }
        places.into_iter().any(|AddressInBlock { block, address }| {
            self.cx.ingress.admit(from, Sender::Member { share: block, address }, now.monotonic)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn destination(number: u32) -> DestinationHash {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        DestinationHash(hash)
    }

    fn admitted(limits: &mut IngressLimits, from: impl Iterator<Item = u32>, now: Duration) -> usize {
        from.filter(|number| limits.admit(&destination(*number), Sender::Stranger, now)).count()
    }

    /// Addresses count up through blocks of sixteen.
    fn admits(limits: &mut IngressLimits, address: u32, now: Duration) -> bool {
        limits.admit(&destination(address), Sender::Member { share: address & !15, address }, now)
    }

    #[test]
    fn one_stranger_has_little_and_takes_nothing_from_others() {
        let mut limits = IngressLimits::new();
        assert_eq!(admitted(&mut limits, std::iter::repeat_n(1, 10_000), SECOND), 10);
        assert_eq!(admitted(&mut limits, 2..100, SECOND), 98);
        assert_eq!(admitted(&mut limits, std::iter::repeat_n(1, 10), 4 * SECOND), 3);
    }

    #[test]
    fn ever_new_destinations_share_one_allowance_and_bounded_memory() {
        let mut limits = IngressLimits::new();
        let mut admitted_in_all = 0;
        for second in 0..60 {
            let new = second * 5_000..(second + 1) * 5_000;
            admitted_in_all += admitted(&mut limits, new, SECOND * second);
            assert!(limits.strangers.senders.buckets.len() <= MAX_STRANGERS);
        }
        assert_eq!(admitted_in_all, 200 + 59 * 50);
        // Members and the inviter that was asked have theirs.
        assert!(admits(&mut limits, 1, 60 * SECOND));
        assert!(limits.admit(&destination(1), Sender::Asked, 60 * SECOND));
    }

    #[test]
    fn the_inviter_that_was_asked_has_its_own_allowance() {
        let mut limits = IngressLimits::new();
        (0..10_000).for_each(|address| _ = admits(&mut limits, address, SECOND));
        let asked = (0..1000).filter(|_| limits.admit(&destination(1), Sender::Asked, SECOND)).count();
        assert_eq!(asked, 100);
    }

    #[test]
    fn one_address_has_less_than_all_and_what_is_unused_is_lent() {
        let mut limits = IngressLimits::new();
        assert_eq!((0..10_000).filter(|_| admits(&mut limits, 1, SECOND)).count(), 100);
        assert_eq!((0..10_000).filter(|_| admits(&mut limits, 1, 11 * SECOND)).count(), 100);
        // A block that is alone has the rate of all.
        let mut all = 0;
        for tick in 0..6000 {
            all += (16..32)
                .filter(|address| admits(&mut limits, *address, 20 * SECOND + SECOND / 100 * tick))
                .count();
        }
        assert!((12_900..=13_050).contains(&all), "{all}");
    }

    /// Lets these addresses send once in `every`, and one more, which comes last, once in `honest_every`. Each datagram
    /// of that one is admitted.
    fn besiege(attackers: &[u32], every: Duration, honest: u32, honest_every: Duration, seconds: u32) {
        let mut limits = IngressLimits::new();
        let (mut now, mut honest_at, mut all) = (SECOND, SECOND, 0);
        while now < (seconds + 1) * SECOND {
            for address in attackers {
                all += usize::from(admits(&mut limits, *address, now));
            }
            if now >= honest_at {
                honest_at += honest_every;
                assert!(admits(&mut limits, honest, now), "at {now:?}");
                all += 1;
            }
            now += every;
        }
        let blocks = attackers.len().div_ceil(16) + 1;
        let most = 200 * seconds as usize + 1000 + 8 * blocks + 4 * (attackers.len() + 1);
        assert!(all <= most, "{all} of {most}");
    }

    #[test]
    fn a_block_that_floods_takes_nothing_from_others() {
        let ten: Vec<u32> = (16..26).collect();
        besiege(&ten, SECOND / 25, 1, SECOND / 2, 3600);
        // Ten blocks of sixteen, at five times the rate of all members.
        let many: Vec<u32> = (16..176).collect();
        besiege(&many, SECOND / 7, 1, SECOND / 2, 600);
    }

    #[test]
    fn the_addresses_of_a_block_take_nothing_from_each_other() {
        // Alone, and while ten other blocks flood, too.
        let block: Vec<u32> = (1..16).collect();
        besiege(&block, SECOND / 20, 0, SECOND / 2, 600);
        let many: Vec<u32> = (1..176).collect();
        besiege(&many, SECOND / 7, 0, SECOND, 600);
    }

    /// Members that send now and then do not count as blocks in use all the time.
    #[test]
    fn many_modest_blocks_are_admitted_while_one_floods() {
        let mut limits = IngressLimits::new();
        for tick in 0..6000 {
            let now = SECOND + SECOND / 100 * tick;
            for address in 0..16 {
                admits(&mut limits, address, now);
            }
            // Each of a thousand once in ten seconds, and one twice a second.
            assert!(admits(&mut limits, 1000 + 16 * (tick % 1000), now), "at {now:?}");
            assert!(tick % 50 != 0 || admits(&mut limits, 500, now), "at {now:?}");
        }
    }

    #[test]
    fn the_number_of_members_counted_is_bounded() {
        let mut limits = IngressLimits::new();
        for address in 0..6_000 {
            admits(&mut limits, address, SECOND);
            assert!(limits.members.each.buckets.len() <= MAX_MEMBERS);
        }
    }

    #[test]
    fn a_full_table_forgets_the_sender_that_would_be_forgotten_next() {
        let mut strangers = Strangers::new(Quota::new(1, 10), Quota::new(1000, 1000), 3);
        for (number, times) in [(1, 3), (2, 2), (3, 3)] {
            for _ in 0..times {
                assert!(strangers.admit(&destination(number), SECOND));
            }
        }
        assert!(strangers.admit(&destination(4), SECOND));
        assert!(!strangers.senders.buckets.contains_key(&destination(2)));
        // All whose time has come go before any other.
        assert!(strangers.admit(&destination(5), 4 * SECOND));
        assert_eq!(strangers.senders.buckets.len(), 1);
    }

    #[test]
    fn join_requests_have_a_limit_of_their_own() {
        let mut limits = IngressLimits::new();
        assert_eq!((0..1000).filter(|_| limits.admit_join(SECOND)).count(), 50);
    }
}
