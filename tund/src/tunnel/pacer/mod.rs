//! Sends no faster than the router bears, and fairly.
//!
//! A SAM bridge gives no back-pressure: an I2P router drops without a word what is too much, and past about
//! twice its capacity nearly everything. So the queue is kept here, where it can be controlled: one for each
//! peer, deficit round robin between them (RFC 8290, section 4), under a common rate. Peers that have not answered yet
//! get little of it (`first_answer`).

mod first_answer;
mod queue;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use first_answer::FirstAnswer;
pub(super) use first_answer::YIELD_TO_FIRST;
use i2plan_ipc::rate::{Bucket, Quota};
use queue::Queue;

use super::peer_config::MAX_PEERS;

/// Datagrams a second. Private routers on two cores deliver all of 4000 datagrams of 1300 bytes a second once
/// they have agreed on a session, and more. Routers that have not, and so encrypt each datagram as if it were
/// the first, bear 700 to 1500; there TCP finds its rate by loss, as on every path that is narrower than its
/// first hop.
const RATE: u32 = 4000;

/// Datagrams that may go at once after a pause: some 10 ms' worth, more than a timer is late.
const BURST: u32 = 16;

const PACE: Quota = Quota::new(RATE, BURST);

/// Length of the datagrams for which [`RATE`] holds, bytes. Longer ones count as several: routers cut them
/// into more tunnel messages.
const UNIT_LEN: usize = 1400;

/// What a peer may send in one turn, bytes (RFC 8290, section 4.1: about one packet).
const QUANTUM: i64 = 1500;

/// What all queues together may occupy, bytes.
const MAX_TOTAL: usize = 16 * 1024 * 1024;

/// Handshakes and keepalives that may wait. Enough for a handshake with every peer.
const MAX_CONTROL: usize = MAX_PEERS;

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A WireGuard message, as it is.
    Control(u32, Vec<u8>),
    /// An IP packet, to be encrypted now: not before, so that a drop leaves no gap in WireGuard's counters.
    Data(u32, Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Pacer {
    started: Instant,
    sent: Bucket,
    /// Goes before all data: few, small, and everything else waits for them.
    control: VecDeque<(u32, Vec<u8>)>,
    control_dropped: HashMap<u32, u64>,
    flows: HashMap<u32, Flow>,
    /// Whose turn it is; each of them is marked active.
    turns: VecDeque<u32>,
    /// Who waits, and until when, for packets may go only now and then before the first answer. They are active too.
    delayed: BTreeSet<(Instant, u32)>,
    total: usize,
}

#[derive(Debug, Default)]
struct Flow {
    queue: Queue,
    /// There is a WireGuard session to send through.
    open: bool,
    /// It is among the turns, or delayed.
    active: bool,
    deficit: i64,
    answer: FirstAnswer,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            sent: Bucket::default(),
            control: VecDeque::new(),
            control_dropped: HashMap::new(),
            flows: HashMap::new(),
            turns: VecDeque::new(),
            delayed: BTreeSet::new(),
            total: 0,
        }
    }

    /// Queues a handshake message or keepalive.
    pub(super) fn push_control(&mut self, peer: u32, message: Vec<u8>) {
        if self.control.len() < MAX_CONTROL {
            self.control.push_back((peer, message));
        } else {
            *self.control_dropped.entry(peer).or_default() += 1;
        }
    }

    /// Queues an IP packet.
    pub(super) fn push(&mut self, peer: u32, packet: &[u8], now: Instant) {
        let flow = self.flows.entry(peer).or_default();
        let before = flow.queue.bytes();
        flow.queue.push(packet.to_vec(), now);
        self.total = self.total - before + flow.queue.bytes();
        Self::activate(&mut self.turns, peer, flow);
        while self.total > MAX_TOTAL {
            self.drop_from_longest();
        }
    }

    /// Lets a peer's packets go.
    pub(super) fn open(&mut self, peer: u32) {
        let flow = self.flows.entry(peer).or_default();
        flow.open = true;
        Self::activate(&mut self.turns, peer, flow);
    }

    /// Keeps a peer's packets back until it is opened again.
    pub(super) fn hold(&mut self, peer: u32) {
        self.flows.entry(peer).or_default().open = false;
    }

    /// The peer has to answer again, because this node or the peer has another SAM session. If the sessions of both are
    /// new, one of the two `yields`: it lets the other send first.
    pub(super) fn await_answer(&mut self, peer: u32, yields: bool, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&peer) {
            flow.answer.await_again(yields, now.saturating_duration_since(self.started));
            self.end_delay(peer);
        }
    }

    /// Whether the peer has answered through the present sessions.
    pub(super) fn has_answered(&self, peer: u32) -> bool {
        self.flows.get(&peer).is_some_and(|flow| flow.answer.is_here())
    }

    /// A message of a peer has been authenticated, which is no beginning of a handshake. Returns whether that is the
    /// first answer.
    pub(super) fn note_received(&mut self, peer: u32) -> bool {
        let Some(flow) = self.flows.get_mut(&peer) else { return false };
        if flow.answer.is_here() {
            return false;
        }
        let is_first = flow.answer.note_received();
        self.end_delay(peer);
        is_first
    }

    /// Has it looked at anew whether a peer's packets may go.
    fn end_delay(&mut self, peer: u32) {
        let before = self.delayed.len();
        self.delayed.retain(|(_, delayed)| *delayed != peer);
        if self.delayed.len() < before {
            self.turns.push_back(peer);
        }
    }

    /// Forgets a peer and everything that waits for it.
    pub(super) fn remove(&mut self, peer: u32) {
        if let Some(flow) = self.flows.remove(&peer) {
            self.total -= flow.queue.bytes();
        }
        self.turns.retain(|turn| *turn != peer);
        self.delayed.retain(|(_, delayed)| *delayed != peer);
        self.control.retain(|(to, _)| *to != peer);
        self.control_dropped.remove(&peer);
    }

    /// What has been dropped of what was for a peer.
    pub(super) fn dropped(&self, peer: u32) -> u64 {
        let data = self.flows.get(&peer).map_or(0, |flow| flow.queue.dropped());
        data + self.control_dropped.get(&peer).copied().unwrap_or(0)
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        for flow in self.flows.values_mut() {
            let before = flow.queue.bytes();
            flow.queue.expire(now);
            self.total = self.total - before + flow.queue.bytes();
        }
    }

    /// Whether nothing waits, nor may go once there is a session.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.total == 0
    }

    /// When [`Pacer::pop`] may have something again; none if it waits for other events.
    pub(super) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let paced = now + self.sent.wait(PACE, now.saturating_duration_since(self.started));
        if !self.control.is_empty() || !self.turns.is_empty() {
            return Some(paced);
        }
        self.delayed.first().map(|(until, _)| paced.max(*until))
    }

    /// What may go now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Next> {
        let since = now.saturating_duration_since(self.started);
        if !self.sent.wait(PACE, since).is_zero() {
            return None;
        }
        let next = match self.control.pop_front() {
            Some((peer, message)) => Next::Control(peer, message),
            None => self.pop_data(now).map(|(peer, packet)| Next::Data(peer, packet))?,
        };
        let (Next::Control(peer, bytes) | Next::Data(peer, bytes)) = &next;
        let cost = self.flows.entry(*peer).or_default().answer.note_sent(since);
        self.sent.take_n(PACE, units(bytes.len()).saturating_mul(cost), since);
        Some(next)
    }

    fn pop_data(&mut self, now: Instant) -> Option<(u32, Vec<u8>)> {
        while let Some((_, peer)) = self.delayed.first().copied().filter(|(until, _)| *until <= now) {
            self.delayed.pop_first();
            self.turns.push_back(peer);
        }
        loop {
            let peer = *self.turns.front()?;
            let Some(flow) = self.flows.get_mut(&peer) else {
                self.turns.pop_front();
                continue;
            };
            if !flow.open || flow.queue.is_empty() {
                flow.active = false;
                self.turns.pop_front();
                continue;
            }
            let wait = flow.answer.wait(now.saturating_duration_since(self.started));
            if !wait.is_zero() {
                self.turns.pop_front();
                self.delayed.insert((now + wait, peer));
                continue;
            }
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            let before = flow.queue.bytes();
            let packet = flow.queue.pop(now);
            self.total = self.total - before + flow.queue.bytes();
            if let Some(packet) = packet {
                flow.deficit -= i64::try_from(packet.len()).unwrap_or(i64::MAX);
                return Some((peer, packet));
            }
        }
    }

    fn activate(turns: &mut VecDeque<u32>, peer: u32, flow: &mut Flow) {
        if flow.open && !flow.active && !flow.queue.is_empty() {
            flow.active = true;
            flow.deficit = QUANTUM;
            turns.push_back(peer);
        }
    }

    fn drop_from_longest(&mut self) {
        let Some(flow) = self.flows.values_mut().max_by_key(|flow| flow.queue.bytes()) else { return };
        let before = flow.queue.bytes();
        flow.queue.drop_head();
        self.total = self.total - before + flow.queue.bytes();
    }
}

fn units(len: usize) -> u32 {
    u32::try_from(len.div_ceil(UNIT_LEN)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Lets a peer's packets go that has answered.
    fn open_answered(pacer: &mut Pacer, peer: u32) {
        pacer.open(peer);
        pacer.flows.entry(peer).or_default().answer.note_sent(Duration::ZERO);
        assert!(pacer.note_received(peer));
    }

    /// Sends for `seconds` with all `backlogged` peers' queues kept full, and counts bytes by peer.
    fn share(backlogged: &[(u32, usize)], seconds: u64) -> HashMap<u32, usize> {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        let mut sent = HashMap::new();
        for (peer, _) in backlogged {
            open_answered(&mut pacer, *peer);
        }
        let mut now = start;
        while now < start + Duration::from_secs(seconds) {
            // More than the rate takes, of each.
            for (peer, len) in backlogged {
                for _ in 0..4 {
                    pacer.push(*peer, &vec![0; *len], now);
                }
            }
            while let Some(next) = pacer.pop(now) {
                let Next::Data(peer, packet) = next else { panic!("no control message was queued") };
                *sent.entry(peer).or_default() += packet.len();
            }
            now += Duration::from_micros(500);
        }
        sent
    }

    #[test]
    fn backlogged_peers_share_by_bytes() {
        let sent = share(&[(1, 1280), (2, 640)], 5);
        let (one, two) = (sent[&1] as f64, sent[&2] as f64);
        assert!((one / two - 1.0).abs() < 0.05, "{one} {two}");
    }

    #[test]
    fn one_peer_gets_all_that_there_is() {
        let sent = share(&[(1, 1280)], 5);
        let packets = sent[&1] / 1280;
        let rate = RATE as usize;
        assert!((rate * 49 / 10..=rate * 5 + BURST as usize).contains(&packets), "{packets}");
    }

    #[test]
    fn long_packets_cost_as_many_short_ones() {
        let packets = share(&[(1, 7 * UNIT_LEN)], 5)[&1] / (7 * UNIT_LEN);
        assert!(packets <= (RATE as usize * 5) / 7 + BURST as usize, "{packets}");
    }

    #[test]
    fn control_goes_first_and_held_peers_not_at_all() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.push(1, b"held", now);
        pacer.open(2);
        pacer.push(2, b"data", now);
        pacer.push_control(3, b"handshake".to_vec());
        assert_eq!(pacer.pop(now), Some(Next::Control(3, b"handshake".to_vec())));
        assert_eq!(pacer.pop(now), Some(Next::Data(2, b"data".to_vec())));
        assert_eq!(pacer.pop(now), None);
        assert_eq!(pacer.ready_at(now), None, "nothing to wake up for");
        pacer.open(1);
        assert_eq!(pacer.pop(now), Some(Next::Data(1, b"held".to_vec())));
    }

    #[test]
    fn a_removed_peer_leaves_nothing() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.open(1);
        pacer.push(1, b"data", now);
        pacer.push_control(1, b"handshake".to_vec());
        pacer.remove(1);
        assert_eq!((pacer.pop(now), pacer.total), (None, 0));
    }

    #[test]
    fn memory_is_bounded_over_all_peers() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        for peer in 0..200 {
            for _ in 0..200 {
                pacer.push(peer, &[0; 1280], now);
            }
        }
        assert!(pacer.total <= MAX_TOTAL);
        assert!((0..200).all(|peer| pacer.flows[&peer].queue.bytes() > MAX_TOTAL / 200 - 4 * 1344));
    }

    proptest! {
        #[test]
        fn accounts_stay_right_and_nothing_hangs(
            steps in prop::collection::vec((0u8..8, 0u32..4, 0usize..3_000, 0u64..2_000), 0..400),
        ) {
            let mut now = Instant::now();
            let mut pacer = Pacer::new(now);
            for (kind, peer, len, pause) in steps {
                now += Duration::from_micros(pause);
                match kind {
                    0 | 1 => pacer.push(peer, &vec![0; len], now),
                    2 => pacer.open(peer),
                    3 => pacer.hold(peer),
                    4 if len < 300 => pacer.remove(peer),
                    5 => pacer.await_answer(peer, len < 1_000, now),
                    6 => _ = pacer.note_received(peer),
                    _ => while pacer.pop(now).is_some() {},
                }
                let held: usize = pacer.flows.values().map(|flow| flow.queue.bytes()).sum();
                prop_assert_eq!(pacer.total, held);
                for (peer, flow) in &pacer.flows {
                    let turns = pacer.turns.iter().filter(|turn| *turn == peer).count();
                    let delays = pacer.delayed.iter().filter(|(_, delayed)| delayed == peer).count();
                    prop_assert_eq!(usize::from(flow.active), turns + delays);
                    prop_assert!(!flow.open || flow.queue.is_empty() || flow.active);
                }
            }
            for peer in 0..4 {
                pacer.open(peer);
            }
            let mut left = pacer.total;
            while let Some(at) = pacer.ready_at(now) {
                // The longest wait is that of one that yields.
                prop_assert!(at <= now + Duration::from_secs(2));
                now = at;
                while pacer.pop(now).is_some() {}
                prop_assert!(pacer.total < left || pacer.ready_at(now).is_none_or(|next| next > now));
                left = pacer.total;
            }
            prop_assert_eq!(pacer.total, 0);
        }

        /// However many packets come when, no more of a peer's datagrams go in a time than may before its answer, and
        /// some go in every second.
        #[test]
        fn little_goes_before_the_first_answer_but_always_some(
            gaps in prop::collection::vec(0u64..20, 500..2_000), len in 20usize..1_400, yields in any::<bool>(),
        ) {
            let start = Instant::now();
            let mut pacer = Pacer::new(start);
            pacer.await_answer(1, yields, start);
            pacer.open(1);
            let mut now = start;
            let mut sent = Vec::new();
            for gap in gaps {
                let next = now + Duration::from_millis(gap);
                while let Some(at) = pacer.ready_at(now).filter(|at| *at <= next) {
                    now = now.max(at);
                    if pacer.pop(now).is_some() {
                        sent.push(now);
                    }
                }
                now = next;
                pacer.push(1, &vec![0; len], now);
            }
            for pair in sent.windows(2) {
                prop_assert!(pair[1] - pair[0] >= Duration::from_millis(250));
            }
            let seconds = usize::try_from((now - start).as_secs()).unwrap();
            prop_assert!(sent.len() + usize::from(yields) * 8 >= 3 * seconds, "{} in {seconds} s", sent.len());
            // With the answer the flow is as fast as any.
            prop_assert!(sent.is_empty() || pacer.note_received(1));
            if !sent.is_empty() {
                now += Duration::from_millis(10);
                prop_assert!(pacer.pop(now).is_none() == (pacer.total == 0));
            }
        }
    }
}
