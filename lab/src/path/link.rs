//! One direction of a path, without input, output or clock.

use std::collections::VecDeque;
use std::time::Duration;

use i2plan_tund::path::emulation::{Jitter, Losses, Random, Spec};
use serde::Serialize;

/// Length of a [`Slice`], seconds.
pub const SLICE: f64 = 0.1;

/// Slices that are kept: more than three hours.
const MAX_SLICES: usize = 120_000;

/// What happened within a tenth of a second. Bytes are those of counted datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Slice {
    /// Came to the bottleneck.
    pub offered: u64,
    /// Arrived at the other end.
    pub delivered: u64,
    /// Dropped because the queue was full.
    pub queue_drops: u64,
    /// Lost at random or in an outage.
    pub lost: u64,
    /// Bytes in the queue, at most.
    pub queue: u64,
}

/// What a tunnel message of I2P carries of a datagram (I2P's tunnel message specification), and what a datagram has in
/// addition to a WireGuard message, about: layers of encryption and instructions for delivery. Bytes.
const MESSAGE: usize = 1003;
const ADDED: usize = 160;

/// What is lost at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossesOf {
    /// Datagrams, whatever their length.
    Datagrams,
    /// The messages that I2P cuts datagrams into; a datagram of which one is lost does not arrive. They are lost so
    /// often that datagrams of two messages, as full ones are at the default MTU, are lost as the path says.
    Messages,
}

/// A datagram on its way.
#[derive(Debug)]
struct Item<T> {
    len: usize,
    /// Whether it belongs into the [`Slice`]s.
    counts: bool,
    value: T,
}

/// A bottleneck with a drop-tail queue, then loss, then delay.
#[derive(Debug)]
pub struct Link<T> {
    spec: Spec,
    /// Whether it has the changes of delay that the path has.
    forward: bool,
    random: Random,
    jitter: Jitter,
    losses: Losses,
    losses_of: LossesOf,
    queue: VecDeque<Item<T>>,
    /// Bytes in the queue.
    queued: usize,
    /// When the first of the queue has passed the bottleneck.
    departs: f64,
    /// With the times of arrival, which do not decrease.
    under_way: VecDeque<(f64, Item<T>)>,
    last_due: f64,
    /// The beginning of the path's time; before it is time 0.
    began: f64,
    slices: Vec<Slice>,
}

impl<T> Link<T> {
    /// A link that is empty. All chance follows from the seed.
    #[must_use]
    pub fn new(mut spec: Spec, losses_of: LossesOf, forward: bool, seed: u64) -> Self {
        if losses_of == LossesOf::Messages {
            spec.loss = 1.0 - (1.0 - spec.loss).sqrt();
        }
        Self {
            spec,
            forward,
            random: Random::new(seed),
            jitter: Jitter::default(),
            losses: Losses::default(),
            losses_of,
            queue: VecDeque::new(),
            queued: 0,
            departs: 0.0,
            under_way: VecDeque::new(),
            last_due: 0.0,
            began: f64::INFINITY,
            slices: Vec::new(),
        }
    }

    /// The path's time begins: rates and outages change by it, and slices are of it.
    pub fn begin(&mut self, now: Duration) {
        self.handle_timeout(now);
        self.began = now.as_secs_f64();
        self.slices.clear();
    }

    /// What happened since the path's time began.
    #[must_use]
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// Takes a datagram in.
    pub fn handle_datagram(&mut self, len: usize, counts: bool, value: T, now: Duration) {
        self.handle_timeout(now);
        let now = now.as_secs_f64();
        let bytes = if counts { len as u64 } else { 0 };
        self.count(now, |slice| slice.offered += bytes);
        if self.queued as f64 > self.spec.queue * self.spec.most() / 8.0 {
            self.count(now, |slice| slice.queue_drops += bytes);
            return;
        }
        if self.queue.is_empty() {
            self.departs = now + self.service(len, now);
        }
        self.queued += len;
        self.queue.push_back(Item { len, counts, value });
        let queued = self.queued as u64;
        self.count(now, |slice| slice.queue = slice.queue.max(queued));
    }

    /// Lets what has passed the bottleneck go on.
    pub fn handle_timeout(&mut self, now: Duration) {
        while self.departs <= now.as_secs_f64()
            && let Some(item) = self.queue.pop_front()
        {
            let at = self.departs;
            self.queued -= item.len;
            let queued = self.queued as u64;
            self.count(at, |slice| slice.queue = slice.queue.max(queued));
            if let Some(next) = self.queue.front() {
                self.departs = at + self.service(next.len, at);
            }
            let time = self.time(at);
            let parts = match self.losses_of {
                LossesOf::Datagrams => 1,
                LossesOf::Messages => (item.len + ADDED).div_ceil(MESSAGE),
            };
            let lost_parts =
                (0..parts).filter(|_| self.losses.loses(at, &self.spec, &mut self.random)).count();
            let lost = lost_parts > 0 || (self.spec.outage)(time);
            if lost {
                let bytes = if item.counts { item.len as u64 } else { 0 };
                self.count(at, |slice| slice.lost += bytes);
                continue;
            }
            let jitter = self.jitter.next(at, self.spec.jitter / 2.0, &mut self.random);
            let longer = if self.forward { (self.spec.longer)(time) } else { 0.0 };
            self.last_due = self.last_due.max(at + self.spec.round_trip / 2.0 + longer + jitter);
            self.under_way.push_back((self.last_due, item));
        }
    }

    /// Returns the next datagram that has arrived.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<T> {
        self.under_way.front().filter(|(due, _)| *due <= now.as_secs_f64())?;
        let (due, item) = self.under_way.pop_front()?;
        let bytes = if item.counts { item.len as u64 } else { 0 };
        self.count(due, |slice| slice.delivered += bytes);
        Some(item.value)
    }

    /// When something happens next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let departs = self.queue.front().map(|_| self.departs);
        let due = self.under_way.front().map(|(due, _)| *due);
        // Rounded up, so that it has happened by then.
        let next = [departs, due].into_iter().flatten().reduce(f64::min)?;
        Some(Duration::from_secs_f64(next) + Duration::from_nanos(1))
    }

    fn time(&self, at: f64) -> f64 {
        (at - self.began).max(0.0)
    }

    /// How long the bottleneck takes for a datagram.
    fn service(&self, len: usize, at: f64) -> f64 {
        len as f64 * 8.0 / (self.spec.rate)(self.time(at))
    }

    fn count(&mut self, at: f64, change: impl FnOnce(&mut Slice)) {
        if at < self.began {
            return;
        }
        let index = ((at - self.began) / SLICE) as usize;
        if index < MAX_SLICES {
            if index >= self.slices.len() {
                self.slices.resize(index + 1, Slice::default());
            }
            change(&mut self.slices[index]);
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_tund::path::emulation::{FALL, OUTAGE, bad, good, outage, steps, usual};

    use super::*;

    const LEN: usize = 1250;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Offers datagrams at a rate in bits a second for so many seconds, and returns which arrive when.
    fn offer(link: &mut Link<u32>, rate: f64, seconds: f64) -> Vec<(u32, f64)> {
        offer_of(LEN, link, rate, seconds)
    }

    fn offer_of(len: usize, link: &mut Link<u32>, rate: f64, seconds: f64) -> Vec<(u32, f64)> {
        let gap = len as f64 * 8.0 / rate;
        let (mut arrived, mut next, mut sent) = (Vec::new(), 0.0, 0);
        link.begin(Duration::ZERO);
        loop {
            let sends = next < seconds;
            let timeout = link.poll_timeout().map_or(f64::INFINITY, |time| time.as_secs_f64());
            if !sends && timeout.is_infinite() {
                return arrived;
            }
            let now = if sends { timeout.min(next) } else { timeout };
            link.handle_timeout(at(now));
            while let Some(value) = link.poll_transmit(at(now)) {
                arrived.push((value, now));
            }
            if sends && now >= next {
                link.handle_datagram(len, true, sent, at(now));
                sent += 1;
                next += gap;
            }
        }
    }

    #[test]
    fn a_datagram_takes_the_time_of_the_bottleneck_and_half_a_round_trip() {
        let mut link = Link::new(Spec { loss: 0.0, ..good() }, LossesOf::Datagrams, true, 1);
        link.handle_datagram(LEN, true, 7, at(1.0));
        let expected = 1.0 + 0.15 + LEN as f64 * 8.0 / 4e6;
        while link.poll_transmit(at(expected - 0.000_01)).is_none()
            && let Some(next) = link.poll_timeout()
            && next < at(expected - 0.000_01)
        {
            link.handle_timeout(next);
        }
        link.handle_timeout(at(expected - 0.000_01));
        assert_eq!(link.poll_transmit(at(expected - 0.000_01)), None);
        assert_eq!(link.poll_transmit(at(expected + 0.000_01)), Some(7));
        assert_eq!(link.poll_timeout(), None);
    }

    #[test]
    fn the_rate_and_the_queue_are_bounds() {
        let mut link = Link::new(Spec { loss: 0.0, ..good() }, LossesOf::Datagrams, true, 1);
        let arrived = offer(&mut link, 8e6, 20.0);
        let during = arrived.iter().filter(|(_, time)| (5.0..15.0).contains(time)).count();
        assert!((during as f64 * LEN as f64 * 8.0 / 10.0 / 4e6 - 1.0).abs() < 0.01, "{during}");
        // What came when the queue was full waited one second.
        let (number, time) = arrived[arrived.len() - 1];
        let waited = time - f64::from(number) * LEN as f64 * 8.0 / 8e6 - 0.15;
        assert!((waited - 1.0).abs() < 0.02, "{waited}");
        let slices = link.slices();
        let sum = |what: fn(&Slice) -> u64| slices.iter().map(what).sum::<u64>();
        assert_eq!(sum(|slice| slice.offered), sum(|slice| slice.delivered + slice.queue_drops + slice.lost));
    }

    #[test]
    fn loss_is_as_specified_and_order_is_kept() {
        for (spec, loss) in [(good(), 0.005), (usual(), 0.02), (bad(), 0.05)] {
            let rate = spec.most();
            let mut link = Link::new(spec, LossesOf::Datagrams, true, 3);
            let arrived = offer(&mut link, rate * 0.5, 2000.0);
            assert!(arrived.is_sorted(), "jitter keeps the order");
            let sent = 2000.0 * rate * 0.5 / (LEN as f64 * 8.0);
            let lost = 1.0 - arrived.len() as f64 / sent;
            assert!((lost / loss - 1.0).abs() < 0.25, "{lost} for {loss}");
        }
    }

    #[test]
    fn a_longer_datagram_is_lost_with_any_of_its_messages() {
        for (len, messages) in [(200, 1), (1312, 2), (2832, 3), (7232, 8)] {
            let mut link = Link::new(usual(), LossesOf::Messages, true, 3);
            let arrived = offer_of(len, &mut link, 0.5e6, 10_000.0);
            let sent = 10_000.0 * 0.5e6 / (len as f64 * 8.0);
            let (lost, expected) =
                (1.0 - arrived.len() as f64 / sent, 1.0 - 0.98f64.powf(messages as f64 / 2.0));
            assert!((lost / expected - 1.0).abs() < 0.1, "{len}: {lost} for {expected}");
        }
    }

    #[test]
    fn rates_and_outages_come_at_their_times() {
        let mut link = Link::new(Spec { loss: 0.0, ..steps() }, LossesOf::Datagrams, true, 1);
        let arrived = offer(&mut link, 6e6, FALL + 15.0);
        let rate = |from: f64, to: f64| {
            let count = arrived.iter().filter(|(_, time)| (from..to).contains(time)).count();
            count as f64 * LEN as f64 * 8.0 / (to - from) / 1e6
        };
        assert!((rate(10.0, FALL) - 4.0).abs() < 0.1);
        assert!((rate(FALL + 1.0, FALL + 11.0) - 1.0).abs() < 0.1);
        let mut link = Link::new(outage(), LossesOf::Datagrams, true, 1);
        let arrived = offer(&mut link, 1e6, OUTAGE + 10.0);
        let silent = arrived.iter().filter(|(_, time)| (OUTAGE + 0.2..OUTAGE + 2.1).contains(time)).count();
        assert_eq!(silent, 0);
        assert!(arrived.last().is_some_and(|(_, time)| *time > OUTAGE + 9.0));
    }
}
