//! How a rate is shared by address: equally among the address blocks in use, then among the addresses of a block.
//!
//! An inviter hands out parts of its own address range, so a member can invent only as many identities as its range has
//! addresses. A share for each identity would give it as many shares; a share for each block
//! ([`Ipv4Subnet::share_of`]) does not.
//!
//! [`Clock`] is the virtual clock of generalized processor sharing (Parekh and Gallager, "A generalized processor
//! sharing approach to flow control in integrated services networks", 1993). Each user has a backlog: what it has taken
//! and its share of the rate has not paid off yet. All that have one are paid off at the same rate, and a user without
//! a backlog has no share, so the others have it. Users are blocks; and in each block, at the rate at which the block
//! is paid off, its addresses. A user with a small backlog is within its share, however large those of others are.
//!
//! [`Ipv4Subnet::share_of`]: i2plan_proto::address::Ipv4Subnet::share_of

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// A member's address, and the block that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AddressInBlock {
    /// The block, as [`i2plan_proto::address::Ipv4Subnet::share_of`] names it.
    pub(super) block: u32,
    /// The bits of the address.
    pub(super) address: u32,
}

/// Pays off the backlogs of users, all at the same rate. Amounts are times that the whole rate takes for them.
#[derive(Debug)]
pub(super) struct Clock {
    /// Up to when the rate has been used.
    driven_to: Duration,
    /// How much each user with a backlog has been paid off since the beginning.
    paid: Duration,
    /// The value of `paid` at which the backlog of each user ends.
    ends: HashMap<u32, Duration>,
    order: BTreeSet<(Duration, u32)>,
}

impl Clock {
    pub(super) fn new(driven_to: Duration) -> Self {
        Self { driven_to, paid: Duration::ZERO, ends: HashMap::new(), order: BTreeSet::new() }
    }

    /// Pays off what the rate allows up to then. `ended` is called for each user whose backlog ends.
    pub(super) fn advance(&mut self, to: Duration, mut ended: impl FnMut(u32)) {
        let mut left = to.saturating_sub(self.driven_to);
        self.driven_to = self.driven_to.max(to);
        while let Some((end, first)) = self.order.first().copied() {
            let users = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
            let needed = (end - self.paid).saturating_mul(users);
            if needed > left {
                self.paid += left / users;
                return;
            }
            left -= needed;
            self.paid = end;
            self.forget(first);
            ended(first);
        }
        self.paid += left;
    }

    /// What is not paid off yet, as of the last advance.
    pub(super) fn backlog(&self, user: u32) -> Duration {
        self.ends.get(&user).map_or(Duration::ZERO, |end| *end - self.paid)
    }

    /// How many users have a backlog.
    pub(super) fn users(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn charge(&mut self, user: u32, cost: Duration) {
        let end = self.paid + self.backlog(user) + cost;
        self.forget(user);
        self.ends.insert(user, end);
        self.order.insert((end, user));
    }

    fn forget(&mut self, user: u32) {
        if let Some(end) = self.ends.remove(&user) {
            self.order.remove(&(end, user));
        }
    }
}

/// What one more is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The address's own share.
    Address,
    /// What the other addresses of its block leave.
    Block,
    /// What other blocks leave, if anything.
    Others,
}

/// Shares of a rate, by block and address.
#[derive(Debug)]
pub(super) struct Shares {
    /// The largest backlogs with which an address and a block are within their shares.
    tolerances: (Duration, Duration),
    /// How many addresses with a backlog are remembered.
    room: usize,
    count: usize,
    blocks: Clock,
    /// The addresses of each block with a backlog; driven by what the block is paid off.
    addresses: HashMap<u32, Clock>,
}

impl Shares {
    pub(super) fn new(tolerances: (Duration, Duration), room: usize) -> Self {
        Self { tolerances, room, count: 0, blocks: Clock::new(Duration::ZERO), addresses: HashMap::new() }
    }

    /// Pays off what the rate allows up to `now`.
    fn advance(&mut self, now: Duration) {
        let Self { blocks, addresses, count, .. } = self;
        // A block's backlog is at least that of its addresses together: theirs have ended, too.
        blocks.advance(now, |block| {
            *count -= addresses.remove(&block).map_or(0, |clock| clock.ends.len());
        });
    }

    /// How much a block has taken that its share has not paid off yet.
    pub(super) fn backlog(&mut self, block: u32, now: Duration) -> Duration {
        self.advance(now);
        self.blocks.backlog(block)
    }

    /// What one more would be taken from.
    pub(super) fn source(&mut self, place: AddressInBlock, now: Duration) -> Source {
        self.advance(now);
        let Self { blocks, addresses, count, tolerances, .. } = self;
        let own = addresses.get_mut(&place.block).map_or(Duration::ZERO, |clock| {
            clock.advance(blocks.paid, |_| *count -= 1);
            clock.backlog(place.address)
        });
        if own <= tolerances.0 {
            Source::Address
        } else if blocks.backlog(place.block) <= tolerances.1 {
            Source::Block
        } else {
            Source::Others
        }
    }

    /// Takes one from there. Its cost is the time that the whole rate takes for it. What is taken from others is not
    /// counted here: a block that used what they left owes them nothing later.
    pub(super) fn take(&mut self, place: AddressInBlock, from: Source, cost: Duration, now: Duration) {
        self.advance(now);
        if from == Source::Others {
            return;
        }
        self.blocks.charge(place.block, cost);
        if from == Source::Address {
            let Self { blocks, addresses, count, .. } = self;
            let clock = addresses.entry(place.block).or_insert_with(|| Clock::new(blocks.paid));
            clock.advance(blocks.paid, |_| *count -= 1);
            *count += usize::from(!clock.ends.contains_key(&place.address));
            clock.charge(place.address, cost);
            self.make_room();
        }
    }

    /// Where there are too many addresses, one of the block with the most is forgotten: it gets a fresh share should it
    /// come again, but nothing beyond its block's.
    fn make_room(&mut self) {
        if self.count <= self.room {
            return;
        }
        let Self { blocks, addresses, count, .. } = self;
        for clock in addresses.values_mut() {
            clock.advance(blocks.paid, |_| *count -= 1);
        }
        while self.count > self.room {
            let most = self.addresses.iter_mut().max_by_key(|(block, clock)| (clock.ends.len(), **block));
            let Some((block, clock)) = most else { return };
            let Some((_, address)) = clock.order.first().copied() else { return };
            clock.forget(address);
            self.count -= 1;
            if clock.ends.is_empty() {
                let block = *block;
                self.addresses.remove(&block);
                self.blocks.forget(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COST: Duration = Duration::from_millis(5);

    fn shares(room: usize) -> Shares {
        Shares::new((3 * COST, 7 * COST), room)
    }

    /// Tries to take one `times` times. Returns how many were within a share.
    fn take(shares: &mut Shares, place: AddressInBlock, times: usize, now: Duration) -> usize {
        let taken = (0..times).filter(|_| {
            let from = shares.source(place, now);
            shares.take(place, from, COST, now);
            from != Source::Others
        });
        taken.count()
    }

    #[test]
    fn backlogs_are_paid_off_at_the_same_rate() {
        let mut clock = Clock::new(Duration::ZERO);
        let second = Duration::from_secs(1);
        clock.charge(1, 3 * second);
        clock.charge(2, second);
        let mut ended = Vec::new();
        clock.advance(second, |user| ended.push(user));
        assert_eq!((clock.backlog(1), clock.backlog(2)), (second * 5 / 2, second / 2));
        clock.advance(3 * second, |user| ended.push(user));
        assert_eq!((clock.backlog(1), clock.backlog(2)), (second, Duration::ZERO));
        clock.advance(9 * second, |user| ended.push(user));
        assert_eq!((ended, clock.paid), (vec![2, 1], 8 * second));
    }

    #[test]
    fn blocks_have_equal_shares_and_so_have_the_addresses_of_one() {
        let mut shares = shares(4096);
        let mut taken = HashMap::<AddressInBlock, usize>::new();
        for tick in 0..6000 {
            let now = Duration::from_millis(10) * tick;
            for place in (0..4)
                .map(|address| AddressInBlock { block: 1, address })
                .chain([AddressInBlock { block: 2, address: 9 }])
            {
                *taken.entry(place).or_default() += take(&mut shares, place, 3, now);
            }
        }
        let of = |block, address| taken[&AddressInBlock { block, address }];
        // Of 12,000 in a minute.
        assert!((5990..=6020).contains(&of(2, 9)), "{taken:?}");
        for address in 0..4 {
            assert!((1400..=1600).contains(&of(1, address)), "{taken:?}");
        }
    }

    #[test]
    fn a_full_table_forgets_an_address_of_the_block_with_the_most() {
        let mut shares = shares(5);
        let now = Duration::from_secs(1);
        take(&mut shares, AddressInBlock { block: 1, address: 1 }, 100, now);
        for address in 0..50 {
            take(&mut shares, AddressInBlock { block: 2, address }, 1, now);
        }
        assert_eq!((shares.count, shares.addresses[&1].ends.len()), (5, 1));
        assert_eq!(take(&mut shares, AddressInBlock { block: 1, address: 1 }, 1, now), 0);
        for block in 10..50 {
            take(&mut shares, AddressInBlock { block, address: block }, 1, now);
            assert!(shares.count <= 5 && shares.blocks.ends.len() <= 6);
        }
        shares.advance(now * 10);
        assert_eq!((shares.count, shares.addresses.len(), shares.blocks.ends.len()), (0, 0, 0));
    }

    proptest! {
        /// However it is asked, no window gives more than the rate and what each block may have in advance.
        #[test]
        fn all_shares_together_are_no_more_than_the_rate(
            asked in prop::collection::vec((0u64..30, 0u32..4, 0u32..3, 1usize..20), 1..300),
        ) {
            let (mut few, mut shares, mut now, mut all) = (shares(5), shares(12), Duration::ZERO, 0);
            for (gap, block, address, times) in asked {
                now += Duration::from_millis(gap);
                let place = AddressInBlock { block, address: 10 * block + address };
                all += take(&mut shares, place, times, now);
                take(&mut few, place, times, now);
                for (shares, room) in [(&shares, 12), (&few, 5)] {
                    let addresses: usize = shares.addresses.values().map(|clock| clock.ends.len()).sum();
                    prop_assert!(addresses == shares.count && addresses <= room);
                }
            }
            // Four blocks, eight each at first, and four more for each of three addresses.
            let most = now.as_nanos() / COST.as_nanos() + 4 * (8 + 3 * 4);
            prop_assert!(all as u128 <= most, "{all} of {most}");
        }
    }
}
