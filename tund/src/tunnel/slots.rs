//! Which peers have a tunnel at a time.
//!
//! A tunnel costs memory, keepalives and the router's end-to-end sessions, so there is a limit (`mesh.max_peers`).
//! Every member stays reachable nevertheless:
//!
//! - As long as there is a slot for each member that is there, a tunnel with each is kept open.
//! - Beyond that, none is opened or kept alive unasked. Tunnels open when there is a packet or a handshake, and end
//!   with their session, three minutes after the last handshake. Both sides see it so: neither reopens what the other
//!   has closed.
//! - Where no slot is free, the tunnel that has carried nothing for the longest time gives way, if that is [`IDLE`].
//! - If all are busy, slots are shared by address block ([`Ipv4Subnet::share_of`]), since a member can invent as many
//!   peers as its address range has addresses. The block with the most slots gives one to a block with at least two
//!   fewer, immediately. So all blocks that have use for them get the same number.
//! - Between blocks with the same number of slots, give or take one, and within a block, peers take turns: the one
//!   gives way that has had its slot the longest, but not before [`TURN`] is over. So all get the same time.
//! - A peer that gives way is not cut off: its session lasts until it ends, unless too many others have given way since.
//!
//! [`Ipv4Subnet::share_of`]: i2plan_proto::address::Ipv4Subnet::share_of

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a tunnel has carried nothing that gives way to any other.
const IDLE: Duration = Duration::from_secs(30);

/// How long a busy tunnel keeps its slot when others of its block wait. Much longer than a handshake takes, so that most
/// of the time tunnels are used and not opened.
const TURN: Duration = Duration::from_secs(60);

/// How long a peer waits in line that does not ask again: longer than a turn.
const WAIT: Duration = Duration::from_secs(90);

/// How long a block is behind others of its size that has gained a slot.
const GAIN_COUNTS: Duration = Duration::from_secs(3600);

/// The number of slots until [`TunnelSlots::set_limit`].
pub(super) const DEFAULT_LIMIT: usize = 50;

#[derive(Debug, Clone, Copy)]
struct Slot {
    since: Instant,
    used: Instant,
}

/// What [`TunnelSlots`] has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// This peer, which stood in line, has a slot.
    Granted(u32),
    /// This peer's tunnel ends: it gave up its slot, and too many others have since.
    Ended(u32),
}

/// The peers that have a slot, that wait for one, and that have given theirs up.
#[derive(Debug)]
pub(super) struct TunnelSlots {
    limit: usize,
    /// The address block of each peer. One that is not in it is in block 0.
    blocks: HashMap<u32, u32>,
    taken: HashMap<u32, Slot>,
    line: VecDeque<u32>,
    /// When each in line last asked.
    asked: HashMap<u32, Instant>,
    /// Oldest first; as many as there are slots at most.
    let_go: VecDeque<u32>,
    /// When each block last gained a slot while others waited, for [`GAIN_COUNTS`].
    gained: HashMap<u32, Instant>,
}

impl Default for TunnelSlots {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            blocks: HashMap::new(),
            taken: HashMap::new(),
            line: VecDeque::new(),
            asked: HashMap::new(),
            let_go: VecDeque::new(),
            gained: HashMap::new(),
        }
    }
}

impl TunnelSlots {
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn has(&self, peer: u32) -> bool {
        self.taken.contains_key(&peer)
    }

    /// Notes the address block of a peer.
    pub(super) fn set_block(&mut self, peer: u32, block: u32) {
        self.blocks.insert(peer, block);
    }

    /// Sets the number of slots; at least one.
    pub(super) fn set_limit(&mut self, limit: usize, now: Instant, changes: &mut Vec<Change>) {
        self.limit = limit.max(1);
        while self.taken.len() > self.limit {
            let counts = self.counts();
            let Some(most) = largest(&counts) else { break };
            let Some(first) = self.first(|block| block == most, |slot| slot.used, Duration::ZERO, now) else {
                break;
            };
            self.give_up(first, changes);
        }
        self.end_surplus(changes);
    }

    /// Asks for a slot because of a packet or a handshake. Returns whether the peer has one; else it stands in line.
    pub(super) fn ask(&mut self, peer: u32, now: Instant, changes: &mut Vec<Change>) -> bool {
        if self.has(peer) {
            return true;
        }
        if self.asked.insert(peer, now).is_none() {
            self.line.push_back(peer);
            self.serve(now, changes);
        }
        self.has(peer)
    }

    /// Takes a slot for a tunnel that is to be kept open, if one is free.
    pub(super) fn take_free(&mut self, peer: u32, now: Instant) -> bool {
        let free = self.taken.len() < self.limit && self.line.is_empty();
        if free && !self.has(peer) {
            self.grant(peer, now);
        }
        self.has(peer)
    }

    /// Notes that a packet went to a peer or came from it.
    pub(super) fn note_used(&mut self, peer: u32, now: Instant) {
        if let Some(slot) = self.taken.get_mut(&peer) {
            slot.used = now;
        }
    }

    /// Gives slots to those in line: blocks with fewer slots first, within a block first come, first served.
    pub(super) fn serve(&mut self, now: Instant, changes: &mut Vec<Change>) {
        self.asked.retain(|_, asked| now < *asked + WAIT);
        self.line.retain(|peer| self.asked.contains_key(peer));
        self.gained.retain(|_, gained| now < *gained + GAIN_COUNTS);
        while !self.line.is_empty() {
            let counts = self.counts();
            let Some((next, victim)) = self.next(&counts, now) else { break };
            self.let_go.retain(|other| *other != next);
            if let Some(victim) = victim {
                if self.block(victim) != self.block(next) {
                    self.gained.insert(self.block(next), now);
                }
                self.give_up(victim, changes);
            }
            self.line.retain(|other| *other != next);
            self.asked.remove(&next);
            self.grant(next, now);
            changes.push(Change::Granted(next));
        }
    }

    /// Frees the slot of a tunnel that has ended. A peer that stands in line stays there.
    pub(super) fn end(&mut self, peer: u32) {
        self.taken.remove(&peer);
        self.let_go.retain(|other| *other != peer);
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, peer: u32) {
        self.end(peer);
        self.blocks.remove(&peer);
        if self.asked.remove(&peer).is_some() {
            self.line.retain(|other| *other != peer);
        }
    }

    fn block(&self, peer: u32) -> u32 {
        self.blocks.get(&peer).copied().unwrap_or(0)
    }

    /// How many slots each block has that has any.
    fn counts(&self) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        for peer in self.taken.keys() {
            *counts.entry(self.block(*peer)).or_default() += 1;
        }
        counts
    }

    /// The peer in line that gets the next slot, and the one that gives way to it if none is free.
    fn next(&self, counts: &HashMap<u32, usize>, now: Instant) -> Option<(u32, Option<u32>)> {
        let slots_of = |block: u32| counts.get(&block).copied().unwrap_or(0);
        // The first in line of each block. Of blocks with the same number, the one comes first that gained a slot the
        // longest ago, so that a slot that cannot be divided among them goes round.
        let mut seen = HashSet::new();
        let mut heads: Vec<u32> =
            self.line.iter().copied().filter(|peer| seen.insert(self.block(*peer))).collect();
        heads.sort_by_key(|peer| {
            let block = self.block(*peer);
            (slots_of(block), self.gained.get(&block))
        });
        if self.taken.len() < self.limit {
            return heads.first().map(|first| (*first, None));
        }
        if let Some(idle) = self.first(|_| true, |slot| slot.used, IDLE, now) {
            return heads.first().map(|first| (*first, Some(idle)));
        }
        // What one block without a slot cannot have, no other can.
        heads.dedup_by_key(|peer| match slots_of(self.block(*peer)) {
            0 => None,
            _ => Some(*peer),
        });
        let most = largest(counts)?;
        heads.into_iter().find_map(|peer| {
            let block = self.block(peer);
            let mine = slots_of(block);
            let victim = if slots_of(most) > mine + 1 {
                self.first(|other| other == most, |slot| slot.since, Duration::ZERO, now)
            } else {
                // Not one of a block of equal size: it would be taken back immediately. And a block has what it gained
                // for a turn, whichever of its slots is older.
                let gained = |other| self.gained.get(&other).is_some_and(|gained| now < *gained + TURN);
                let may_give = |other| slots_of(other) > mine && !gained(other);
                let larger = self.first(may_give, |slot| slot.since, TURN, now);
                larger.or_else(|| self.first(|other| other == block, |slot| slot.since, TURN, now))
            };
            victim.map(|victim| (peer, Some(victim)))
        })
    }

    fn grant(&mut self, peer: u32, now: Instant) {
        self.let_go.retain(|other| *other != peer);
        self.taken.insert(peer, Slot { since: now, used: now });
    }

    fn give_up(&mut self, peer: u32, changes: &mut Vec<Change>) {
        self.taken.remove(&peer);
        self.let_go.push_back(peer);
        self.end_surplus(changes);
    }

    /// Ends the oldest tunnels of the block that most are of, as far as too many have given way.
    fn end_surplus(&mut self, changes: &mut Vec<Change>) {
        while self.let_go.len() > self.limit {
            let mut counts = HashMap::<u32, usize>::new();
            for peer in &self.let_go {
                *counts.entry(self.block(*peer)).or_default() += 1;
            }
            let most = counts.values().copied().max();
            let is_of_most = |peer: &u32| counts.get(&self.block(*peer)).copied() == most;
            let oldest = self.let_go.iter().position(is_of_most).unwrap_or(0);
            changes.extend(self.let_go.remove(oldest).map(Change::Ended));
        }
    }

    /// The peer whose slot comes first by a time that must be `age` ago, of the blocks that `of` says.
    fn first(
        &self,
        of: impl Fn(u32) -> bool,
        by: impl Fn(&Slot) -> Instant,
        age: Duration,
        now: Instant,
    ) -> Option<u32> {
        let slots = self.taken.iter().filter(|(peer, _)| of(self.block(**peer)));
        let (peer, slot) = slots.min_by_key(|(peer, slot)| (by(slot), **peer))?;
        (now.saturating_duration_since(by(slot)) >= age).then_some(*peer)
    }
}

/// The block with the most slots; of several, the first.
fn largest(counts: &HashMap<u32, usize>) -> Option<u32> {
    counts.iter().max_by_key(|(block, slots)| (**slots, Reverse(**block))).map(|(block, _)| *block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(limit: usize) -> TunnelSlots {
        TunnelSlots { limit, ..TunnelSlots::default() }
    }

    /// Asks for a peer. Returns whether it has a slot.
    fn ask(slots: &mut TunnelSlots, peer: u32, now: Instant) -> bool {
        slots.ask(peer, now, &mut Vec::new())
    }

    fn holders(slots: &TunnelSlots) -> Vec<u32> {
        let mut holders: Vec<u32> = slots.taken.keys().copied().collect();
        holders.sort_unstable();
        holders
    }

    #[test]
    fn the_one_gives_way_that_is_idle_longest() {
        let (mut slots, now) = (slots(3), Instant::now());
        for peer in 1..=3 {
            assert!(ask(&mut slots, peer, now));
        }
        slots.note_used(1, now + IDLE);
        slots.note_used(3, now + IDLE / 2);
        assert!(ask(&mut slots, 4, now + IDLE));
        assert_eq!(holders(&slots), [1, 3, 4]);
        // The others have carried something lately.
        assert!(!ask(&mut slots, 5, now + IDLE));
        assert_eq!(holders(&slots), [1, 3, 4]);
        let mut changes = Vec::new();
        slots.serve(now + IDLE * 3 / 2, &mut changes);
        assert_eq!((holders(&slots), changes), (vec![1, 4, 5], vec![Change::Granted(5)]));
    }

    #[test]
    fn when_all_are_busy_all_get_the_same_share() {
        let (mut slots, start) = (slots(4), Instant::now());
        let mut time = HashMap::<u32, u32>::new();
        let mut changes = Vec::new();
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            for peer in 0..12 {
                if slots.ask(peer, now, &mut changes) {
                    *time.entry(peer).or_default() += 1;
                }
                slots.note_used(peer, now);
            }
            slots.serve(now, &mut changes);
        }
        let granted = changes.iter().filter(|change| matches!(change, Change::Granted(_))).count();
        // A third of the time each, and no more handshakes than there are turns.
        assert_eq!(time.len(), 12);
        assert!(time.values().all(|seconds| (1080..=1320).contains(seconds)), "{time:?}");
        assert!(granted <= 4 * 3600 / 60, "{granted}");
    }

    #[test]
    fn peers_of_one_block_are_served_in_order_and_forgotten_when_silent() {
        let (mut slots, now) = (slots(1), Instant::now());
        assert!(ask(&mut slots, 1, now));
        assert!(!ask(&mut slots, 2, now));
        assert!(!ask(&mut slots, 3, now + IDLE / 2));
        assert!(!slots.take_free(4, now));
        // The second has not asked again: the third is next.
        slots.note_used(1, now + WAIT);
        slots.serve(now + WAIT, &mut Vec::new());
        assert_eq!(holders(&slots), [3]);
        assert!(slots.line.is_empty() && slots.asked.is_empty());
    }

    #[test]
    fn those_who_gave_way_go_on_but_not_too_many() {
        let (mut slots, mut now) = (slots(2), Instant::now());
        let mut changes = Vec::new();
        for peer in 0..10 {
            slots.ask(peer, now, &mut changes);
            now += IDLE;
        }
        let ended: Vec<_> = changes.iter().filter(|change| matches!(change, Change::Ended(_))).collect();
        assert_eq!(ended.len(), 10 - 2 - 2);
        assert_eq!(ended[0], &Change::Ended(0));
        // Who comes back in time has lost nothing.
        changes.clear();
        assert!(slots.ask(7, now, &mut changes));
        assert_eq!((changes, slots.let_go.len()), (vec![Change::Granted(7)], 2));
    }

    /// Gives each block of sixteen peers a block of addresses.
    fn in_blocks(slots: &mut TunnelSlots, peers: std::ops::Range<u32>) {
        peers.for_each(|peer| slots.set_block(peer, 100 + peer / 16));
    }

    fn of_block(slots: &TunnelSlots, block: u32) -> usize {
        slots.counts().get(&block).copied().unwrap_or(0)
    }

    #[test]
    fn a_peer_of_another_block_does_not_wait_for_a_busy_block() {
        let (mut slots, now) = (slots(8), Instant::now());
        in_blocks(&mut slots, 0..17);
        // Fifteen use all slots and stand in line.
        for peer in 0..16 {
            ask(&mut slots, peer, now);
        }
        assert_eq!((of_block(&slots, 100), slots.line.len()), (8, 8));
        assert!(ask(&mut slots, 16, now));
        assert_eq!((of_block(&slots, 100), of_block(&slots, 101)), (7, 1));
        // As long as it is in use the others cannot have it back.
        for second in 1..600 {
            let now = now + Duration::from_secs(second);
            for peer in 0..16 {
                ask(&mut slots, peer, now);
                slots.note_used(peer, now);
            }
            slots.note_used(16, now);
            slots.serve(now, &mut Vec::new());
            assert!(slots.has(16), "after {second} s");
        }
        // Out of use it is lent to them.
        slots.serve(now + Duration::from_secs(599) + IDLE, &mut Vec::new());
        assert_eq!(of_block(&slots, 100), 8);
    }

    /// 200 peers of one member keep all tunnels busy; two other members have use for as many as they can get.
    #[test]
    fn blocks_get_the_same_number_whatever_is_asked() {
        let (mut slots, start) = (slots(50), Instant::now());
        in_blocks(&mut slots, 0..240);
        let mut time = HashMap::<u32, u32>::new();
        let mut changes = Vec::new();
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            // The attacker's are of the first thirteen blocks; 208 to 223 are of another, and 224 of one more.
            let honest = if second < 300 { 0..0 } else { 208..225 };
            for peer in (0..200).chain(honest) {
                let granted = slots.ask(peer, now, &mut changes);
                *time.entry(peer).or_default() += u32::from(granted && second >= 600);
                slots.note_used(peer, now);
            }
            slots.serve(now, &mut changes);
            if second >= 300 {
                // An equal share of fifteen blocks, of which one has use for one slot only.
                assert!(of_block(&slots, 113) >= 3, "after {second} s: {:?}", slots.counts());
                assert!(slots.has(224), "after {second} s");
                assert!((0..13).all(|block| (3..=4).contains(&of_block(&slots, 100 + block))));
            }
        }
        let honest: u32 = (208..224).map(|peer| time[&peer]).sum();
        // 49 slots for 14 blocks.
        assert!((10_000..11_000).contains(&honest), "{honest} seconds");
        assert!((208..224).all(|peer| time[&peer] >= 500), "{time:?}");
        assert_eq!(time[&224], 3000);
        let granted = changes.iter().filter(|change| matches!(change, Change::Granted(_))).count();
        assert!(granted <= 50 * 3600 / 60 + 50, "{granted}");
    }

    #[test]
    fn peers_of_as_many_blocks_take_turns() {
        let (mut slots, start) = (slots(4), Instant::now());
        (0..12).for_each(|peer| slots.set_block(peer, 100 + peer));
        let mut time = HashMap::<u32, u32>::new();
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            for peer in 0..12 {
                *time.entry(peer).or_default() += u32::from(ask(&mut slots, peer, now));
                slots.note_used(peer, now);
            }
            slots.serve(now, &mut Vec::new());
        }
        assert!(time.values().all(|seconds| (1080..=1320).contains(seconds)), "{time:?}");
    }

    #[test]
    fn tunnels_that_gave_way_end_in_the_block_that_most_are_of() {
        let (mut slots, mut now) = (slots(3), Instant::now());
        in_blocks(&mut slots, 0..17);
        let mut changes = Vec::new();
        for peer in [16, 0, 1, 2, 3, 4, 5, 6, 7, 8] {
            slots.ask(peer, now, &mut changes);
            now += IDLE;
        }
        assert!(slots.let_go.contains(&16));
        assert!(!changes.contains(&Change::Ended(16)));
    }

    #[test]
    fn a_lower_limit_holds_immediately() {
        let (mut slots, now) = (slots(5), Instant::now());
        for peer in 0..5 {
            ask(&mut slots, peer, now + Duration::from_secs(peer.into()));
        }
        let mut changes = Vec::new();
        slots.set_limit(2, now, &mut changes);
        assert_eq!((holders(&slots), changes), (vec![3, 4], vec![Change::Ended(0)]));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Ask(u32),
        Take(u32),
        Use(u32),
        End(u32),
        Forget(u32),
        Block(u32, u32),
        Limit(usize),
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0u32..20).prop_map(Event::Ask),
            1 => (0u32..20).prop_map(Event::Take),
            2 => (0u32..20).prop_map(Event::Use),
            1 => (0u32..20).prop_map(Event::End),
            1 => (0u32..20).prop_map(Event::Forget),
            2 => (0u32..20, 0u32..4).prop_map(|(peer, block)| Event::Block(peer, block)),
            1 => (0usize..8).prop_map(Event::Limit),
            3 => (0u64..90).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_the_limit(events in prop::collection::vec(event(), 1..200)) {
            let (mut slots, mut now) = (slots(4), Instant::now());
            for event in events {
                let mut changes = Vec::new();
                match event {
                    Event::Ask(peer) => drop(slots.ask(peer, now, &mut changes)),
                    Event::Take(peer) => drop(slots.take_free(peer, now)),
                    Event::Use(peer) => slots.note_used(peer, now),
                    Event::End(peer) => slots.end(peer),
                    Event::Forget(peer) => slots.forget(peer),
                    Event::Block(peer, block) => slots.set_block(peer, block),
                    Event::Limit(limit) => slots.set_limit(limit, now, &mut changes),
                    Event::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                slots.serve(now, &mut changes);
                prop_assert!(slots.taken.len() <= slots.limit && slots.let_go.len() <= slots.limit);
                prop_assert_eq!(slots.line.len(), slots.asked.len());
                for peer in 0..20 {
                    let states = [slots.has(peer), slots.let_go.contains(&peer)];
                    prop_assert!(states != [true, true]);
                    prop_assert!(!(slots.has(peer) && slots.asked.contains_key(&peer)));
                    // It may have had another turn since its tunnel ended.
                    let of_peer = [Change::Granted(peer), Change::Ended(peer)];
                    if changes.iter().rfind(|change| of_peer.contains(change)) == Some(&of_peer[1]) {
                        prop_assert!(!slots.let_go.contains(&peer));
                    }
                }
                // Somebody waits only when there is no room.
                prop_assert!(slots.line.is_empty() || slots.taken.len() == slots.limit);
            }
        }
    }
}
