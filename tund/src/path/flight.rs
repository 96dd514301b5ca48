//! What was sent to a peer, and what it has reported of that.

use std::collections::VecDeque;

use i2plan_proto::path_report::{PathReport, TICKS_PER_SECOND};

use super::report_credit;
use super::reporter::Content;

/// Datagrams that are remembered until they are reported: more than a path carries at any rate that a node reaches.
const MAX_SENT: usize = 1 << 15;

/// Runs of counters that are remembered: a new one with each session.
const MAX_RUNS: usize = 64;

/// Reports that are remembered.
const MAX_POINTS: usize = 1024;

/// Datagrams before the newest that may arrive after it: WireGuard's replay window in boringtun.
const REORDERED: u64 = 1024;

/// After so many seconds the peer's clock may have wrapped.
const CLOCK_WRAPS: f64 = 86_400.0;

/// A datagram.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: f64,
    /// Sum of bytes up to this one.
    bytes: u64,
    /// Sum of the time in which nothing waited to be sent.
    idle: f64,
    /// Sum of what the peer may send in reports for it.
    credit: f64,
}

/// Datagrams of one session whose counters have no gap.
#[derive(Debug, Clone, Copy)]
struct Run {
    index: u32,
    counter: u64,
    order: u64,
}

/// What the peer has reported.
#[derive(Debug, Clone, Copy)]
struct Point {
    reported: f64,
    /// By the peer's clock.
    arrival: f64,
    order: u64,
    sent: Sent,
    packets: u64,
    bytes: u64,
}

/// A part of what was sent, between two reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes that arrived a second.
    pub(super) delivery: f64,
    /// Bytes that were sent a second, of the same datagrams.
    pub(super) sending: f64,
    /// Share of the datagrams that did not arrive.
    pub(super) loss: f64,
    /// Share of the time in which nothing waited to be sent.
    pub(super) idle: f64,
}

/// What one report says.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub(super) round_trip: f64,
    /// The smallest forward delay, of clocks that differ.
    pub(super) delay: f64,
    /// The peer has begun to count, or its clock may have wrapped.
    pub(super) anew: bool,
}

#[derive(Debug)]
pub(super) struct Flight {
    sent: VecDeque<Sent>,
    /// Order of the first of `sent`; datagrams are numbered as they are sent.
    first: u64,
    runs: VecDeque<Run>,
    last: Sent,
    idle_since: Option<f64>,
    epoch: Option<u32>,
    /// What the peer may at most have counted for the first point of the epoch.
    slack: (u64, u64),
    points: VecDeque<Point>,
    /// The first of the epoch.
    origin: Option<Point>,
}

impl Flight {
    pub(super) fn new(now: f64) -> Self {
        Self {
            sent: VecDeque::new(),
            first: 0,
            runs: VecDeque::new(),
            last: Sent { at: now, bytes: 0, idle: 0.0, credit: 0.0 },
            idle_since: Some(now),
            epoch: None,
            slack: (0, 0),
            points: VecDeque::new(),
            origin: None,
        }
    }

    /// Notes whether anything waits to be sent.
    pub(super) fn set_backlog(&mut self, now: f64, waiting: bool) {
        if waiting {
            if let Some(since) = self.idle_since.take() {
                self.last.idle += now - since;
            }
        } else {
            self.idle_since.get_or_insert(now);
        }
    }

    pub(super) fn push(&mut self, now: f64, index: u32, counter: u64, len: usize, content: Content) {
        let order = self.next();
        let goes_on = self.runs.back().is_some_and(|run| {
            run.index == index && counter.checked_sub(run.counter) == Some(order - run.order)
        });
        if !goes_on {
            self.runs.push_back(Run { index, counter, order });
            if self.runs.len() > MAX_RUNS {
                self.runs.pop_front();
            }
        }
        let Sent { bytes, credit, idle, .. } = self.last;
        let added = if content == Content::Packet { report_credit(len) } else { 0.0 };
        self.last = Sent { at: now, bytes: bytes + len as u64, idle, credit: credit + added };
        self.sent.push_back(self.last);
        if self.sent.len() > MAX_SENT {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        self.sent.pop_front();
        self.first += 1;
        while self.runs.get(1).is_some_and(|next| next.order <= self.first) {
            self.runs.pop_front();
        }
    }

    /// Number of the next datagram.
    pub(super) fn next(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// Number of the newest datagram that has been reported.
    pub(super) fn reported(&self) -> Option<u64> {
        self.points.back().map(|point| point.order)
    }

    /// Bytes of the datagrams after that.
    pub(super) fn in_flight(&self) -> u64 {
        self.last.bytes - self.points.back().map_or(0, |point| point.sent.bytes)
    }

    /// Reports that the peer may have made of them.
    pub(super) fn reports_owed(&self) -> f64 {
        self.last.credit - self.points.back().map_or(0.0, |point| point.sent.credit)
    }

    /// When the datagram was sent after which the peer may have made so many.
    pub(super) fn owed_since(&self, reports: f64) -> Option<f64> {
        let due = self.last.credit - self.reports_owed() + reports;
        self.sent.get(self.sent.partition_point(|sent| sent.credit < due)).map(|sent| sent.at)
    }

    fn get(&self, order: u64) -> Option<Sent> {
        self.sent.get(usize::try_from(order.checked_sub(self.first)?).ok()?).copied()
    }

    fn order_of(&self, index: u32, counter: u64) -> Option<u64> {
        let mut end = self.next();
        for run in self.runs.iter().rev() {
            if run.index == index && counter >= run.counter {
                let order = run.order.checked_add(counter - run.counter)?;
                return (order < end).then_some(order);
            }
            end = run.order;
        }
        None
    }

    /// Takes a report. None if it is older than another, or says what cannot be.
    pub(super) fn accept(&mut self, now: f64, report: &PathReport) -> Option<News> {
        let order = self.order_of(report.index, report.counter)?;
        let sent = self.get(order)?;
        let held = seconds(report.held);
        let round_trip = now - sent.at - held;
        if round_trip < 0.0 {
            return None;
        }
        let before = self.points.back().copied();
        let before =
            before.filter(|before| self.epoch == Some(report.epoch) && now - before.reported < CLOCK_WRAPS);
        let mut arrival = seconds(report.arrival);
        if let Some(before) = before {
            let ticks = report.arrival.wrapping_sub(wrapped(before.arrival)) as i32;
            arrival = before.arrival + f64::from(ticks) / f64::from(TICKS_PER_SECOND);
            let origin = self.origin.unwrap_or(before);
            let packets = order - origin.order.min(order) + self.slack.0;
            let bytes = sent.bytes.saturating_sub(origin.sent.bytes) + self.slack.1;
            if order < before.order
                || ticks < 0
                || report.packets <= before.packets
                || report.bytes <= before.bytes
                || report.packets - origin.packets > packets
                || report.bytes - origin.bytes > bytes
            {
                return None;
            }
        } else if self.points.back().is_some_and(|last| order < last.order) {
            return None;
        }
        let point =
            Point { reported: now, arrival, order, sent, packets: report.packets, bytes: report.bytes };
        let mut delay = arrival - sent.at;
        for earlier in &report.earlier {
            let other = report.counter.checked_sub(earlier.distance.into());
            let other = other.and_then(|counter| self.get(self.order_of(report.index, counter)?));
            if let Some(other) = other {
                delay = delay.min(arrival - seconds(earlier.age) - other.at);
            }
        }
        if before.is_none() {
            self.points.clear();
            self.epoch = Some(report.epoch);
            self.origin = Some(point);
            // Datagrams before it may be counted later.
            let early = order.min(REORDERED);
            let bytes =
                self.get(order - early).map_or(sent.bytes, |sent_early| sent.bytes - sent_early.bytes);
            self.slack = (early, bytes);
        }
        self.points.push_back(point);
        if self.points.len() > MAX_POINTS {
            self.points.pop_front();
        }
        while self.first < order {
            self.forget_first();
        }
        Some(News { round_trip, delay, anew: before.is_none() })
    }

    /// Forgets the reports that are older than `span` seconds of arrivals.
    pub(super) fn forget(&mut self, span: f64) {
        let Some(last) = self.points.back().copied() else { return };
        while self.points.len() > 4 && self.points[1].arrival < last.arrival - span {
            self.points.pop_front();
        }
    }

    /// Begins samples anew.
    pub(super) fn restart(&mut self) {
        while self.points.len() > 1 {
            self.points.pop_front();
        }
    }

    /// Seconds between the first and the last report that are remembered, by the peer's clock.
    pub(super) fn span(&self) -> f64 {
        match (self.points.front(), self.points.back()) {
            (Some(first), Some(last)) => last.arrival - first.arrival,
            _ => 0.0,
        }
    }

    /// The last `span` seconds of arrivals, and at least so many datagrams.
    pub(super) fn sample(&self, span: f64, packets: u64) -> Option<Sample> {
        let last = self.points.back()?;
        let covers =
            |point: &&Point| point.arrival <= last.arrival - span && last.order - point.order >= packets;
        let from = self.points.iter().rev().find(covers).or_else(|| self.points.front())?;
        Self::sample_of(from, last, self.clock_factor())
    }

    /// Datagrams that the last report was the first to cover.
    pub(super) fn fresh(&self) -> f64 {
        let mut points = self.points.iter().rev().map(|point| point.order);
        let last = points.next().unwrap_or(0);
        (last - points.next().unwrap_or(last)) as f64
    }

    /// The datagrams from one number to another.
    pub(super) fn between(&self, from: u64, to: u64) -> Option<Sample> {
        let first = self.points.iter().find(|point| point.order >= from)?;
        let last = self.points.iter().rev().find(|point| point.order <= to)?;
        Self::sample_of(first, last, self.clock_factor())
    }

    /// By what the peer's clock runs too slowly. It cannot honestly differ much from this node's; one that does would
    /// make deliveries look faster than they are.
    fn clock_factor(&self) -> f64 {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return 1.0 };
        let (here, there) = (last.reported - first.reported, last.arrival - first.arrival);
        if here > 1.0 && there * 1.5 < here { here / there.max(1e-3) } else { 1.0 }
    }

    fn sample_of(from: &Point, to: &Point, clock_factor: f64) -> Option<Sample> {
        let span = (to.arrival - from.arrival) * clock_factor;
        let sent_in = to.sent.at - from.sent.at;
        let packets = to.order.checked_sub(from.order)?;
        if packets < 4 || span <= 0.0 || sent_in <= 0.0 {
            return None;
        }
        let packets = packets as f64;
        Some(Sample {
            delivery: (to.bytes - from.bytes) as f64 / span,
            sending: (to.sent.bytes - from.sent.bytes) as f64 / sent_in,
            loss: (1.0 - (to.packets - from.packets) as f64 / packets).max(0.0),
            idle: (to.sent.idle - from.sent.idle) / sent_in,
        })
    }
}

fn seconds(ticks: u32) -> f64 {
    f64::from(ticks) / f64::from(TICKS_PER_SECOND)
}

/// The counterpart of [`seconds`] for times that have been unwrapped.
fn wrapped(seconds: f64) -> u32 {
    // Truncation is meant: of a time far below 2^63 ticks.
    (seconds * f64::from(TICKS_PER_SECOND)).round() as i64 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred datagrams of 1000 bytes in a second.
    fn flight() -> Flight {
        let mut flight = Flight::new(0.0);
        for counter in 0..100 {
            flight.push(counter as f64 / 100.0, 7, counter, 1000, Content::Packet);
        }
        flight
    }

    /// All up to a datagram arrived, half a second after they were sent.
    fn report(counter: u64) -> PathReport {
        PathReport {
            epoch: 1,
            packets: counter + 1,
            bytes: (counter + 1) * 1000,
            index: 7,
            counter,
            arrival: u32::try_from((50 + counter) * 160).unwrap(),
            held: 0,
            earlier: Vec::new(),
        }
    }

    #[test]
    fn a_report_that_claims_more_than_was_sent_is_ignored() {
        let mut flight = flight();
        assert!(flight.accept(1.5, &report(49)).is_some());
        // Of the datagrams before the first report any number may have come later.
        let most = report(69).packets + 49;
        let wrong = [
            ("a datagram that was not sent", report(100)),
            ("another session", PathReport { index: 8, ..report(69) }),
            ("too many datagrams", PathReport { packets: most + 1, ..report(69) }),
            ("too many bytes", PathReport { bytes: most * 1000 + 1, ..report(69) }),
            ("fewer datagrams than before", PathReport { packets: 50, ..report(69) }),
            ("fewer bytes than before", PathReport { bytes: 50_000, ..report(69) }),
            ("an older datagram", PathReport { packets: 51, bytes: 51_000, ..report(48) }),
            ("an earlier time", PathReport { arrival: report(48).arrival, ..report(69) }),
            ("a report from before the datagram was sent", PathReport { held: 16_000, ..report(69) }),
        ];
        for (what, report) in wrong {
            assert!(flight.accept(1.6, &report).is_none(), "{what}");
        }
        assert!(
            flight.accept(1.6, &PathReport { packets: most, bytes: most * 1000, ..report(69) }).is_some()
        );
    }

    #[test]
    fn a_sample_says_what_was_sent_and_what_arrived() {
        let mut flight = flight();
        // Every tenth is lost.
        for counter in (9..100).step_by(10) {
            let packets = (counter + 1) * 9 / 10;
            let report = PathReport { packets, bytes: packets * 1000, ..report(counter) };
            assert!(flight.accept(1.0 + counter as f64 / 100.0, &report).is_some(), "{counter}");
        }
        let sample = flight.sample(0.5, 8).unwrap();
        assert!(
            (sample.sending - 100_000.0).abs() < 1.0 && (sample.delivery - 90_000.0).abs() < 1.0,
            "{sample:?}"
        );
        assert!((sample.loss - 0.1).abs() < 1e-9, "{sample:?}");
        assert_eq!(flight.in_flight(), 0);
    }
}
