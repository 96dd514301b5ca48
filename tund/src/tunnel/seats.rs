//! How many tunnels are kept at once, and whose.
//!
//! A tunnel costs memory, keepalives and the router's end-to-end sessions, so there is a limit (`mesh.max_peers`).
//! Every member stays reachable nevertheless:
//!
//! - As long as all members that are there have room, a tunnel with each is kept open.
//! - Beyond that, none is opened or kept alive unasked. Tunnels open when there is a packet, or a handshake comes, and
//!   end with their session, three minutes after the last handshake. Both sides see it so: none reopens what the other
//!   has let go of.
//! - If there is no room for another, the one gives way that has carried nothing for the longest time, if that is
//!   [`IDLE`]. If all are busy, those who wait stand in line, and the one gives way that has had its seat the longest,
//!   but nobody before [`TURN`] is over. So all get the same share.
//! - Whoever gives way is not cut off: its session goes on until it ends, unless too many do.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A tunnel that has carried nothing for so long gives way at once.
const IDLE: Duration = Duration::from_secs(30);

/// How long a busy tunnel stays when others wait. Much longer than a handshake takes, so that most of the time
/// tunnels are used and not opened.
const TURN: Duration = Duration::from_secs(60);

/// How long somebody stands in line who has nothing more to say: longer than a turn.
const WAIT: Duration = Duration::from_secs(90);

/// How many tunnels are kept until somebody says otherwise.
pub(super) const DEFAULT_LIMIT: usize = 50;

#[derive(Debug, Clone, Copy)]
struct Seat {
    since: Instant,
    used: Instant,
}

/// What [`Seats`] has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// This one, which stood in line, has a seat now.
    Seated(u32),
    /// This one had to give up its seat, and so many others have since that its tunnel ends now.
    Ended(u32),
}

/// Who has a seat, who waits for one, and who has had to give it up.
#[derive(Debug)]
pub(super) struct Seats {
    limit: usize,
    taken: HashMap<u32, Seat>,
    line: VecDeque<u32>,
    /// Since when each in line has not asked again.
    asked: HashMap<u32, Instant>,
    /// Oldest first; as many as there are seats at most.
    let_go: VecDeque<u32>,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            taken: HashMap::new(),
            line: VecDeque::new(),
            asked: HashMap::new(),
            let_go: VecDeque::new(),
        }
    }
}

impl Seats {
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn has(&self, peer: u32) -> bool {
        self.taken.contains_key(&peer)
    }

    /// Keeps so many from now on; one at least.
    pub(super) fn set_limit(&mut self, limit: usize, now: Instant, changes: &mut Vec<Change>) {
        self.limit = limit.max(1);
        while self.taken.len() > self.limit {
            let Some(first) = self.least(|seat| seat.used, Duration::ZERO, now) else { break };
            self.give_up(first, changes);
        }
        self.end_surplus(changes);
    }

    /// Asks for a seat because of a packet or a handshake; who does not get one stands in line.
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

    /// Takes a seat for a tunnel that is to be kept open, if one is free.
    pub(super) fn take_free(&mut self, peer: u32, now: Instant) -> bool {
        let free = self.taken.len() < self.limit && self.line.is_empty();
        if free && !self.has(peer) {
            self.seat(peer, now);
        }
        self.has(peer)
    }

    /// A packet of somebody went or came.
    pub(super) fn note_used(&mut self, peer: u32, now: Instant) {
        if let Some(seat) = self.taken.get_mut(&peer) {
            seat.used = now;
        }
    }

    /// Gives seats to those in line, first come, first served.
    pub(super) fn serve(&mut self, now: Instant, changes: &mut Vec<Change>) {
        while let Some(next) = self.line.front().copied() {
            let waits = self.asked.get(&next).is_some_and(|asked| now < *asked + WAIT);
            if waits && self.taken.len() >= self.limit {
                let idle = self.least(|seat| seat.used, IDLE, now);
                let Some(first) = idle.or_else(|| self.least(|seat| seat.since, TURN, now)) else { break };
                self.let_go.retain(|other| *other != next);
                self.give_up(first, changes);
            }
            self.line.pop_front();
            self.asked.remove(&next);
            if waits {
                self.seat(next, now);
                changes.push(Change::Seated(next));
            }
        }
    }

    /// A tunnel has ended. Who stands in line stays there.
    pub(super) fn end(&mut self, peer: u32) {
        self.taken.remove(&peer);
        self.let_go.retain(|other| *other != peer);
    }

    /// Forgets somebody.
    pub(super) fn forget(&mut self, peer: u32) {
        self.end(peer);
        if self.asked.remove(&peer).is_some() {
            self.line.retain(|other| *other != peer);
        }
    }

    fn seat(&mut self, peer: u32, now: Instant) {
        self.let_go.retain(|other| *other != peer);
        self.taken.insert(peer, Seat { since: now, used: now });
    }

    fn give_up(&mut self, peer: u32, changes: &mut Vec<Change>) {
        self.taken.remove(&peer);
        self.let_go.push_back(peer);
        self.end_surplus(changes);
    }

    fn end_surplus(&mut self, changes: &mut Vec<Change>) {
        while self.let_go.len() > self.limit {
            changes.extend(self.let_go.pop_front().map(Change::Ended));
        }
    }

    /// Whose seat comes first by a time that must be so long ago.
    fn least(&self, by: impl Fn(&Seat) -> Instant, age: Duration, now: Instant) -> Option<u32> {
        let first = self.taken.iter().min_by_key(|(peer, seat)| (by(seat), **peer))?;
        (now.saturating_duration_since(by(first.1)) >= age).then_some(*first.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seats(limit: usize) -> Seats {
        Seats { limit, ..Seats::default() }
    }

    /// Who asks; and who has a seat then.
    fn ask(seats: &mut Seats, peer: u32, now: Instant) -> bool {
        seats.ask(peer, now, &mut Vec::new())
    }

    fn seated(seats: &Seats) -> Vec<u32> {
        let mut seated: Vec<u32> = seats.taken.keys().copied().collect();
        seated.sort_unstable();
        seated
    }

    #[test]
    fn the_one_gives_way_that_is_idle_longest() {
        let (mut seats, now) = (seats(3), Instant::now());
        for peer in 1..=3 {
            assert!(ask(&mut seats, peer, now));
        }
        seats.note_used(1, now + IDLE);
        seats.note_used(3, now + IDLE / 2);
        assert!(ask(&mut seats, 4, now + IDLE));
        assert_eq!(seated(&seats), [1, 3, 4]);
        // The others have carried something lately.
        assert!(!ask(&mut seats, 5, now + IDLE));
        assert_eq!(seated(&seats), [1, 3, 4]);
        let mut changes = Vec::new();
        seats.serve(now + IDLE * 3 / 2, &mut changes);
        assert_eq!((seated(&seats), changes), (vec![1, 4, 5], vec![Change::Seated(5)]));
    }

    #[test]
    fn when_all_are_busy_all_get_the_same_share() {
        let (mut seats, start) = (seats(4), Instant::now());
        let mut time = HashMap::<u32, u32>::new();
        let mut changes = Vec::new();
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            for peer in 0..12 {
                if seats.ask(peer, now, &mut changes) {
                    *time.entry(peer).or_default() += 1;
                }
                seats.note_used(peer, now);
            }
            seats.serve(now, &mut changes);
        }
        let seatings = changes.iter().filter(|change| matches!(change, Change::Seated(_))).count();
        // A third of the time each, and no more handshakes than there are turns.
        assert_eq!(time.len(), 12);
        assert!(time.values().all(|seconds| (1080..=1320).contains(seconds)), "{time:?}");
        assert!(seatings <= 4 * 3600 / 60, "{seatings}");
    }

    #[test]
    fn nobody_waits_in_line_for_ever_or_is_overtaken() {
        let (mut seats, now) = (seats(1), Instant::now());
        assert!(ask(&mut seats, 1, now));
        assert!(!ask(&mut seats, 2, now));
        assert!(!ask(&mut seats, 3, now + IDLE / 2));
        assert!(!seats.take_free(4, now));
        // The second has not asked again: the third is next.
        seats.note_used(1, now + WAIT);
        seats.serve(now + WAIT, &mut Vec::new());
        assert_eq!(seated(&seats), [3]);
        assert!(seats.line.is_empty() && seats.asked.is_empty());
    }

    #[test]
    fn those_who_gave_way_go_on_but_not_too_many() {
        let (mut seats, mut now) = (seats(2), Instant::now());
        let mut changes = Vec::new();
        for peer in 0..10 {
            seats.ask(peer, now, &mut changes);
            now += IDLE;
        }
        let ended: Vec<_> = changes.iter().filter(|change| matches!(change, Change::Ended(_))).collect();
        assert_eq!(ended.len(), 10 - 2 - 2);
        assert_eq!(ended[0], &Change::Ended(0));
        // Who comes back in time has lost nothing.
        changes.clear();
        assert!(seats.ask(7, now, &mut changes));
        assert_eq!((changes, seats.let_go.len()), (vec![Change::Seated(7)], 2));
    }

    #[test]
    fn a_lower_limit_holds_at_once() {
        let (mut seats, now) = (seats(5), Instant::now());
        for peer in 0..5 {
            ask(&mut seats, peer, now + Duration::from_secs(peer.into()));
        }
        let mut changes = Vec::new();
        seats.set_limit(2, now, &mut changes);
        assert_eq!((seated(&seats), changes), (vec![3, 4], vec![Change::Ended(0)]));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Ask(u32),
        Take(u32),
        Use(u32),
        End(u32),
        Forget(u32),
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
            1 => (0usize..8).prop_map(Event::Limit),
            3 => (0u64..90).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_the_limit(events in prop::collection::vec(event(), 1..200)) {
            let (mut seats, mut now) = (seats(4), Instant::now());
            for event in events {
                let mut changes = Vec::new();
                match event {
                    Event::Ask(peer) => drop(seats.ask(peer, now, &mut changes)),
                    Event::Take(peer) => drop(seats.take_free(peer, now)),
                    Event::Use(peer) => seats.note_used(peer, now),
                    Event::End(peer) => seats.end(peer),
                    Event::Forget(peer) => seats.forget(peer),
                    Event::Limit(limit) => seats.set_limit(limit, now, &mut changes),
                    Event::Pass(seconds) => now += Duration::from_secs(seconds),
                }
                seats.serve(now, &mut changes);
                prop_assert!(seats.taken.len() <= seats.limit && seats.let_go.len() <= seats.limit);
                prop_assert_eq!(seats.line.len(), seats.asked.len());
                for peer in 0..20 {
                    let states = [seats.has(peer), seats.let_go.contains(&peer)];
                    prop_assert!(states != [true, true]);
                    prop_assert!(!(seats.has(peer) && seats.asked.contains_key(&peer)));
                    if changes.contains(&Change::Ended(peer)) {
                        prop_assert!(!seats.let_go.contains(&peer));
                    }
                }
                // Somebody waits only when there is no room.
                prop_assert!(seats.line.is_empty() || seats.taken.len() == seats.limit);
            }
        }
    }
}
