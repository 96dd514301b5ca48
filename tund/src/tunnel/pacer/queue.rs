//! The packets that wait for one peer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Delay that a standing queue may cause (RFC 8289, section 4.3: 5 to 10 % of [`INTERVAL`]).
const TARGET: Duration = Duration::from_millis(50);

/// Over which time a queue must drain to be no standing one (RFC 8289, section 4.3: about the longest usual
/// round trip, which through I2P tunnels is some hundred milliseconds).
const INTERVAL: Duration = Duration::from_millis(500);

/// After which a packet is worth nothing any more, whatever it waits for. It is the time after which
/// WireGuard repeats a handshake: what a first handshake has not carried off by then, its sender repeats.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Bytes that may wait for one peer, about 140 ms at full rate.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// What a packet occupies besides its own bytes, so that tiny ones are bounded too.
const OVERHEAD: usize = 64;

/// A queue under controlled delay (CoDel, RFC 8289): short bursts pass, a standing queue is signalled to its
/// senders by drops at the head.
#[derive(Debug, Default)]
pub(super) struct Queue {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    dropped: u64,
    codel: CoDel,
}

#[derive(Debug, Default)]
struct CoDel {
    /// When the delay will have been above target for an interval.
    first_above: Option<Instant>,
    /// When to drop next; none while not dropping.
    drop_next: Option<Instant>,
    /// When dropping ended last, or would have gone on.
    last_drop_next: Option<Instant>,
    count: u32,
    last_count: u32,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// What it occupies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Appends a packet, in place of older ones if the queue is full.
    pub(super) fn push(&mut self, packet: Vec<u8>, now: Instant) {
        self.bytes += packet.len() + OVERHEAD;
        self.packets.push_back((now, packet));
        while self.bytes > MAX_BYTES {
            self.drop_head();
        }
    }

    /// Drops the oldest packet.
    pub(super) fn drop_head(&mut self) {
        if self.take_head().is_some() {
            self.dropped += 1;
        }
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.packets.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) > MAX_AGE) {
            self.drop_head();
        }
    }

    /// The next packet to send: `deque()` of RFC 8289, section 5.5.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.expire(now);
        let (mut packet, mut late) = self.dequeue(now)?;
        if let Some(mut drop_next) = self.codel.drop_next {
            while late && now >= drop_next {
                self.dropped += 1;
                self.codel.count = self.codel.count.saturating_add(1);
                drop_next += self.codel.pause();
                self.codel.drop_next = Some(drop_next);
                (packet, late) = self.dequeue(now)?;
            }
            if !late {
                self.codel.leave();
            }
        } else if late {
            self.dropped += 1;
            self.codel.enter(now);
            (packet, _) = self.dequeue(now)?;
        }
        Some(packet)
    }

    /// `dodequeue()` of RFC 8289, section 5.6: the head, and whether it may be dropped.
    fn dequeue(&mut self, now: Instant) -> Option<(Vec<u8>, bool)> {
        let Some((since, packet)) = self.take_head() else {
            self.codel.first_above = None;
            self.codel.leave();
            return None;
        };
        // One waiting packet is no standing queue, however slow the turns of this peer come.
        if now.saturating_duration_since(since) < TARGET || self.bytes <= packet.len() + OVERHEAD {
            self.codel.first_above = None;
            return Some((packet, false));
        }
        let first_above = *self.codel.first_above.get_or_insert(now + INTERVAL);
        Some((packet, now >= first_above))
    }

    fn take_head(&mut self) -> Option<(Instant, Vec<u8>)> {
        let (since, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len() + OVERHEAD;
        Some((since, packet))
    }
}

impl CoDel {
    /// Starts dropping; soon after the last time, at the rate that it took then.
    fn enter(&mut self, now: Instant) {
        let delta = self.count.saturating_sub(self.last_count);
        let recent =
            self.last_drop_next.is_some_and(|time| now.saturating_duration_since(time) < 16 * INTERVAL);
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = Some(now + self.pause());
    }

    fn leave(&mut self) {
        if let Some(time) = self.drop_next.take() {
            self.last_drop_next = Some(time);
        }
    }

    /// The control law: ever shorter pauses between drops.
    fn pause(&self) -> Duration {
        INTERVAL.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_that_drains_loses_nothing() {
        let start = Instant::now();
        let mut queue = Queue::default();
        for n in 0..100u8 {
            queue.push(vec![n], start);
        }
        for n in 0..100u8 {
            assert_eq!(queue.pop(start + ms(4 * u64::from(n))), Some(vec![n]));
        }
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_standing_queue_is_cut_at_the_head() {
        let start = Instant::now();
        let mut queue = Queue::default();
        // Twice as much comes as goes.
        let mut sent = Vec::new();
        for step in 0..4_000u64 {
            let now = start + ms(step);
            queue.push(step.to_be_bytes().to_vec(), now);
            if step % 2 == 0 {
                sent.extend(queue.pop(now));
            }
        }
        // n drops take about 2 * sqrt(n) intervals; this goes on for some seven after the first.
        assert!((8..20).contains(&queue.dropped()), "{}", queue.dropped());
        assert!(sent.is_sorted(), "drops do not reorder");
        assert_eq!(queue.dropped() + (sent.len() + queue.packets.len()) as u64, 4_000);
    }

    #[test]
    fn one_slow_packet_is_not_late() {
        let start = Instant::now();
        let mut queue = Queue::default();
        for step in 0..100u64 {
            let now = start + ms(step * 200);
            queue.push(vec![1], now);
            assert!(queue.pop(now + ms(150)).is_some());
        }
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn old_packets_go_first_by_age_and_by_size() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.push(vec![1], start);
        queue.push(vec![2], start + ms(10_000));
        queue.expire(start + ms(10_000));
        assert_eq!((queue.dropped(), queue.packets.len()), (1, 1));

        queue.push(vec![3; MAX_BYTES - OVERHEAD], start + ms(10_000));
        assert_eq!((queue.dropped(), queue.packets.len()), (2, 1));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_accounted(
            steps in prop::collection::vec((0usize..9_000, 0u64..100, any::<bool>()), 0..300),
        ) {
            let mut now = Instant::now();
            let mut queue = Queue::default();
            for (len, pause, pop) in steps {
                now += ms(pause);
                queue.push(vec![0; len], now);
                if pop {
                    queue.pop(now);
                }
                prop_assert!(queue.bytes() <= MAX_BYTES);
                let held: usize = queue.packets.iter().map(|(_, packet)| packet.len() + OVERHEAD).sum();
                prop_assert_eq!(queue.bytes(), held);
            }
            while queue.pop(now).is_some() {}
            prop_assert_eq!(queue.bytes(), 0);
        }
    }
}
