//! The packets that wait for one peer: FlowQueue-CoDel (RFC 8290).

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::ecn;

/// What a flow may send in one turn, bytes (RFC 8290, section 4.1: about one packet).
const QUANTUM: i64 = 1500;

/// Queues among which flows are spread (RFC 8290, section 4.1.2).
const QUEUES: u64 = 256;

/// What a packet occupies besides its own bytes, so that tiny ones are bounded too.
const OVERHEAD: usize = 64;

/// Time for which packets may wait in any case, seconds, by the rate at which they go.
const MIN_TIME: f64 = 0.25;

/// Bytes that may wait in any case: some packets, however slow the path.
const MIN_BYTES: usize = 32 * 1024;

/// Bytes that may wait at most, however fast the path.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// CoDel's times for short paths, on which packets wait for processors and timers too (RFC 8289, sections 4.3 and 4.4).
const MIN_TARGET: Duration = Duration::from_millis(5);
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// How long the last packet of a flow is kept for a silent peer.
pub const MAX_HELD: Duration = Duration::from_secs(30);

/// Until there is a measurement: CoDel's times for a round trip of 800 ms.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(800);

/// Queues of one peer.
#[derive(Debug)]
pub struct FlowQueues {
    /// Makes it unknown to others which flows share a queue.
    seed: u64,
    flows: BTreeMap<u64, Flow>,
    /// Flows that have not used up their first quantum, and the others.
    fresh: VecDeque<u64>,
    old: VecDeque<u64>,
    bytes: usize,
    packets: usize,
    max_bytes: usize,
    times: Times,
    held: bool,
    dropped: u64,
    marked: u64,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    target: Duration,
    interval: Duration,
}

#[derive(Debug, Default)]
struct Flow {
    packets: VecDeque<Waiting>,
    bytes: usize,
    deficit: i64,
    codel: CoDel,
}

#[derive(Debug)]
struct Waiting {
    since: Duration,
    packet: Vec<u8>,
}

#[derive(Debug, Default)]
struct CoDel {
    /// When the delay will have been above target for an interval.
    first_above: Option<Duration>,
    /// When to signal next; none while not signalling.
    next: Option<Duration>,
    /// When signalling ended last, or would have gone on.
    last_next: Option<Duration>,
    count: u32,
    last_count: u32,
}

impl FlowQueues {
    /// Without packets; `seed` is random.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut queues = Self {
            seed,
            flows: BTreeMap::new(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
            bytes: 0,
            packets: 0,
            max_bytes: MIN_BYTES,
            times: Times { target: Duration::ZERO, interval: Duration::ZERO },
            held: false,
            dropped: 0,
            marked: 0,
        };
        queues.adapt(UNKNOWN_ROUND_TRIP, 0.0, 1312.0);
        queues
    }

    /// Queues as a path of this round trip and rate (bytes a second) needs, for packets of this length in bytes.
    pub fn adapt(&mut self, round_trip: Duration, rate: f64, packet: f64) {
        let two_packets = if rate > 0.0 { 2.0 * packet / rate } else { 0.0 };
        let target = (round_trip / 10).max(Duration::from_secs_f64(two_packets.min(2.0)));
        let target = target.max(MIN_TARGET);
        // Beside a path whose own control reacts within a round trip, CoDel must not be faster.
        let interval = (round_trip * 12 / 10).max(target * 2).max(MIN_INTERVAL);
        self.times = Times { target, interval };
        let time = (2.0 * interval.as_secs_f64()).max(MIN_TIME);
        self.max_bytes = ((rate * time) as usize).clamp(MIN_BYTES, MAX_BYTES);
    }

    /// Whether packets are held back because the peer is silent. Their delay is no sign of a queue then; and the last
    /// packet of each flow is kept, because a sender that waits for an answer goes on when that has arrived.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Packets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets
    }

    /// What they occupy, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Packets marked so far.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.marked
    }

    /// Appends a packet, in place of others if there is no room.
    pub fn push(&mut self, packet: Vec<u8>, now: Duration) {
        let key = self.key(&packet);
        let size = packet.len() + OVERHEAD;
        let flow = self.flows.entry(key).or_insert_with(|| {
            self.fresh.push_back(key);
            Flow { deficit: QUANTUM, ..Flow::default() }
        });
        flow.packets.push_back(Waiting { since: now, packet });
        flow.bytes += size;
        self.bytes += size;
        self.packets += 1;
        while self.bytes > self.max_bytes {
            self.drop_from_longest();
        }
    }

    /// Drops the first packet of the flow that occupies most.
    pub fn drop_from_longest(&mut self) {
        let longest = self.flows.values_mut().max_by_key(|flow| flow.bytes);
        if let Some(size) = longest.and_then(Flow::take).map(|waiting| waiting.packet.len() + OVERHEAD) {
            self.bytes -= size;
            self.packets -= 1;
            self.dropped += 1;
        }
    }

    /// Drops what has waited longer than `age`.
    pub fn expire(&mut self, age: Duration, now: Duration) {
        for flow in self.flows.values_mut() {
            while flow.packets.front().is_some_and(|waiting| now.saturating_sub(waiting.since) > age) {
                let size = flow.take().map_or(0, |waiting| waiting.packet.len() + OVERHEAD);
                self.bytes -= size;
                self.packets -= 1;
                self.dropped += 1;
            }
        }
    }

    /// The next packet to send (RFC 8290, section 4.2).
    pub fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.held {
            return self.pop_held(now);
        }
        loop {
            let is_fresh = !self.fresh.is_empty();
            let key = *self.fresh.front().or(self.old.front())?;
            let flow = self.flows.get_mut(&key).expect("a flow in a list has a queue");
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.take_turn(is_fresh);
                self.old.push_back(key);
                continue;
            }
            let before = (flow.packets.len(), flow.bytes);
            let (packet, dropped, marked) = flow.pop(self.times, now);
            self.packets -= before.0 - flow.packets.len();
            self.bytes -= before.1 - flow.bytes;
            self.dropped += dropped;
            self.marked += marked;
            if let Some(packet) = packet {
                flow.deficit -= packet.len() as i64;
                return Some(packet);
            }
            self.take_turn(is_fresh);
            // So that a flow does not stay ahead of others by pausing.
            if is_fresh && !self.old.is_empty() {
                self.old.push_back(key);
            } else {
                self.flows.remove(&key);
            }
        }
    }

    /// The next packet to send to a silent peer: of the longest flow, but not its last.
    fn pop_held(&mut self, now: Duration) -> Option<Vec<u8>> {
        let is_last = |flow: &Flow| {
            flow.packets.len() == 1
                && flow.packets.front().is_some_and(|waiting| now.saturating_sub(waiting.since) < MAX_HELD)
        };
        let flows = self.flows.values_mut().filter(|flow| !is_last(flow));
        let packet = flows.max_by_key(|flow| flow.packets.len())?.take()?.packet;
        self.packets -= 1;
        self.bytes -= packet.len() + OVERHEAD;
        Some(packet)
    }

    fn take_turn(&mut self, is_fresh: bool) {
        if is_fresh {
            self.fresh.pop_front()
        } else {
            self.old.pop_front()
        };
    }

    /// Which queue a packet belongs to.
    fn key(&self, packet: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() >= 20 => {
                packet[9].hash(&mut hasher);
                packet[12..20].hash(&mut hasher);
                let is_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
                if !is_fragment {
                    ports(packet[9], packet.get(usize::from(packet[0] & 0x0f) * 4..)).hash(&mut hasher);
                }
            }
            Some(6) if packet.len() >= 40 => {
                packet[6].hash(&mut hasher);
                packet[8..40].hash(&mut hasher);
                ports(packet[6], packet.get(40..)).hash(&mut hasher);
            }
            _ => {}
        }
        hasher.finish() % QUEUES
    }
}

/// The ports of TCP (6) and UDP (17).
fn ports(protocol: u8, transport: Option<&[u8]>) -> Option<&[u8]> {
    if matches!(protocol, 6 | 17) { transport?.get(..4) } else { None }
}

impl Flow {
    fn take(&mut self) -> Option<Waiting> {
        let waiting = self.packets.pop_front()?;
        self.bytes -= waiting.packet.len() + OVERHEAD;
        Some(waiting)
    }

    /// The next packet under controlled delay (RFC 8289, section 5.5), and how many were dropped and marked.
    fn pop(&mut self, times: Times, now: Duration) -> (Option<Vec<u8>>, u64, u64) {
        let mut dropped = 0;
        loop {
            let Some(Waiting { since, mut packet }) = self.take() else {
                self.codel.first_above = None;
                self.codel.leave();
                return (None, dropped, 0);
            };
            let delay = now.saturating_sub(since);
            // One waiting packet is no standing queue, however slow the turns of this flow come.
            let late = delay >= times.target && !self.packets.is_empty();
            if !self.codel.signals(late, times, now) {
                return (Some(packet), dropped, 0);
            }
            // A sender that does not react to marks is not spared.
            if delay <= 2 * times.target && ecn::mark(&mut packet) {
                return (Some(packet), dropped, 1);
            }
            dropped += 1;
        }
    }
}

impl CoDel {
    /// Whether the sender of this packet is to learn of a standing queue.
    fn signals(&mut self, late: bool, times: Times, now: Duration) -> bool {
        if !late {
            self.first_above = None;
            self.leave();
            return false;
        }
        let first_above = *self.first_above.get_or_insert(now + times.interval);
        match self.next {
            Some(next) if now >= next => {
                self.count = self.count.saturating_add(1);
                self.next = Some(next + self.pause(times));
                true
            }
            None if now >= first_above => {
                self.enter(times, now);
                true
            }
            _ => false,
        }
    }

    /// Starts to signal; soon after the last time, at the rate that it took then.
    fn enter(&mut self, times: Times, now: Duration) {
        let delta = self.count.saturating_sub(self.last_count);
        let recent = self.last_next.is_some_and(|time| now.saturating_sub(time) < 16 * times.interval);
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.next = Some(now + self.pause(times));
    }

    fn leave(&mut self) {
        if let Some(time) = self.next.take() {
            self.last_next = Some(time);
        }
    }

    /// The control law: ever shorter pauses between signals.
    fn pause(&self, times: Times) -> Duration {
        times.interval.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A UDP packet of a flow.
    fn packet(flow: u16, len: usize, ecn: u8) -> Vec<u8> {
        let mut packet = vec![0; len.max(28)];
        packet[..2].copy_from_slice(&[0x45, ecn]);
        packet[9] = 17;
        packet[20..22].copy_from_slice(&flow.to_be_bytes());
        packet
    }

    fn flow_of(packet: &[u8]) -> u16 {
        u16::from_be_bytes([packet[20], packet[21]])
    }

    #[test]
    fn a_sparse_flow_does_not_wait_behind_bulk() {
        let mut queues = FlowQueues::new(1);
        queues.adapt(ms(300), 500_000.0, 1312.0);
        for _ in 0..100 {
            queues.push(packet(1, 1280, 0), ms(0));
        }
        assert_eq!(queues.pop(ms(1)).map(|packet| flow_of(&packet)), Some(1));
        queues.push(packet(2, 100, 0), ms(1));
        assert_eq!(queues.pop(ms(1)).map(|packet| flow_of(&packet)), Some(1), "the rest of its turn");
        assert_eq!(queues.pop(ms(1)).map(|packet| flow_of(&packet)), Some(2));
    }

    #[test]
    fn flows_share_by_bytes() {
        let mut queues = FlowQueues::new(1);
        queues.adapt(ms(300), 500_000.0, 1312.0);
        let mut sent = [0, 0];
        for step in 0..5000 {
            queues.push(packet(1, 1280, 0), ms(step));
            queues.push(packet(2, 320, 0), ms(step));
            queues.push(packet(2, 320, 0), ms(step));
            if step % 3 == 0 {
                let packet = queues.pop(ms(step)).unwrap();
                sent[usize::from(flow_of(&packet)) - 1] += packet.len();
            }
        }
        let ratio = f64::from(sent[0] as u32) / f64::from(sent[1] as u32);
        assert!((0.9..1.1).contains(&ratio), "{sent:?}");
    }

    /// Offers more than goes, of packets with this ECN field: `extra` percent. Returns what was dropped and marked, and
    /// the longest wait.
    fn overload(ecn: u8, extra: u64) -> (u64, u64, Duration) {
        let mut queues = FlowQueues::new(1);
        queues.adapt(ms(300), 640_000.0, 1312.0);
        let mut longest = ms(0);
        for step in 0..20_000 {
            let now = ms(step);
            let pushes = if step % 2 == 0 { 1 } else { u64::from(step % 200 < 2 * extra) };
            for _ in 0..pushes {
                let mut packet = packet(1, 1280, ecn);
                packet[28..36].copy_from_slice(&step.to_be_bytes());
                queues.push(packet, now);
            }
            if step % 2 == 0
                && let Some(packet) = queues.pop(now)
            {
                let since = u64::from_be_bytes(packet[28..36].try_into().unwrap());
                longest = longest.max(now - ms(since));
            }
        }
        (queues.dropped(), queues.marked(), longest)
    }

    #[test]
    fn a_standing_queue_is_signalled_by_marks_then_by_drops() {
        let (dropped, marked, longest) = overload(0, 100);
        assert!(dropped > 1000 && marked == 0, "{dropped} {marked}");
        assert!(longest < ms(800), "time is bounded: {longest:?}");
        let (dropped, marked, _) = overload(2, 3);
        assert!(marked > 0, "{dropped} {marked}");
        let (dropped_later, marked, longest) = overload(2, 100);
        assert!(dropped_later > 1000 && longest < ms(800), "{dropped_later} {marked} {longest:?}");
    }

    #[test]
    fn a_short_burst_loses_nothing() {
        let mut queues = FlowQueues::new(1);
        queues.adapt(ms(300), 500_000.0, 1312.0);
        for _ in 0..50 {
            queues.push(packet(1, 1280, 0), ms(0));
        }
        for n in 0..50 {
            assert!(queues.pop(ms(3 * n)).is_some());
        }
        assert_eq!((queues.dropped(), queues.marked(), queues.pop(ms(151))), (0, 0, None));
    }

    #[test]
    fn what_is_held_is_not_late_and_its_last_stays() {
        let mut queues = FlowQueues::new(1);
        queues.adapt(ms(300), 500_000.0, 1312.0);
        queues.hold(true);
        for n in 0..20 {
            queues.push(packet(1, 1280, 0), ms(n));
        }
        for n in 0..19 {
            assert!(queues.pop(ms(1000 * n)).is_some());
        }
        assert_eq!((queues.dropped(), queues.pop(ms(20_000))), (0, None), "the last is kept");
        queues.hold(false);
        assert!(queues.pop(ms(20_000)).is_some());
        queues.hold(true);
        queues.push(packet(1, 1280, 0), ms(21_000));
        assert!(queues.pop(ms(21_000) + MAX_HELD).is_some(), "but not for ever");
    }

    #[test]
    fn fragments_stay_with_their_first() {
        let queues = FlowQueues::new(1);
        let mut first = packet(1, 1280, 0);
        first[6] = 0x20;
        let mut second = packet(9, 1280, 0);
        second[7] = 0xb9;
        assert_eq!(queues.key(&first), queues.key(&second));
        assert_ne!(queues.key(&packet(1, 100, 0)), queues.key(&packet(2, 100, 0)));
        assert_eq!(queues.key(&[]), queues.key(&[0x45]));
    }

    proptest! {
        #[test]
        fn accounts_stay_right_and_nothing_hangs(
            steps in prop::collection::vec((0u8..8, 0u16..6, 0usize..3000, 0u64..200), 0..500),
        ) {
            let mut now = Duration::ZERO;
            let mut queues = FlowQueues::new(3);
            let (mut pushed, mut popped) = (0, 0);
            for (kind, flow, len, pause) in steps {
                now += ms(pause);
                match kind {
                    0..4 => {
                        queues.push(packet(flow, len, (flow % 4) as u8), now);
                        pushed += 1;
                    }
                    4 => queues.adapt(ms(pause * 10), len as f64 * 1000.0, 1312.0),
                    5 => queues.expire(ms(len as u64), now),
                    6 => queues.hold(flow == 0),
                    _ => popped += u64::from(queues.pop(now).is_some()),
                }
                let held = queues.flows.values().flat_map(|flow| &flow.packets);
                prop_assert_eq!(queues.bytes(), held.map(|held| held.packet.len() + OVERHEAD).sum::<usize>());
                prop_assert!(queues.bytes() <= MAX_BYTES);
                prop_assert_eq!(queues.flows.len(), queues.fresh.len() + queues.old.len());
            }
            queues.hold(false);
            while queues.pop(now).is_some() {
                popped += 1;
            }
            prop_assert_eq!((queues.len(), queues.bytes(), queues.flows.len()), (0, 0, 0));
            prop_assert_eq!(pushed, popped + queues.dropped());
        }
    }
}
