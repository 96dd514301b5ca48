//! When a receiver reports what has come from a peer, and what.

use std::time::Duration;

use i2plan_proto::path_report::{EarlierArrival, MAX_EARLIER, MAX_TICKS, PathReport, TICKS_PER_SECOND};

use super::report_credit;

/// Between reports at least: more often than that says nothing more of a fast path.
const MIN_INTERVAL: Duration = Duration::from_millis(3);

/// Between reports at most, while datagrams come and there is credit.
const MAX_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time until a datagram is reported, if there is credit.
const MAX_DEADLINE: Duration = Duration::from_secs(1);

/// Reports that may be saved up.
const MAX_CREDIT: f64 = 8.0;

/// Reports that are kept for datagrams that wait at the end of their [deadline](Reporter::deadline): the last before a
/// pause, and the first after one.
const RESERVE: f64 = 4.0;

/// The round trip before one is known.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(400);

/// The receiver's part of one peer.
///
/// Reports cost at most one per 16 datagrams and 1 % of their bytes, besides a few at the beginning, and nothing while
/// nothing comes.
#[derive(Debug)]
pub struct Reporter {
    epoch: u32,
    packets: u64,
    bytes: u64,
    newest: Option<Newest>,
    /// Others since the last report, from early to late, as counter and time.
    earlier: Vec<(u64, Duration)>,
    /// Every so many datagrams are kept in `earlier`, so that they cover the time since the last report.
    stride: u32,
    skipped: u32,
    /// When the first datagram came that calls for a report.
    unreported: Option<Duration>,
    reported_at: Duration,
    credit: f64,
    round_trip: Duration,
}

/// What a data message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A packet.
    Packet,
    /// Nothing: a keepalive, or a probe of a peer that gets no reports.
    Nothing,
    /// A report, which calls for none.
    Report,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    index: u32,
    counter: u64,
    arrival: Duration,
}

impl Reporter {
    /// Begins to count, under a random epoch.
    #[must_use]
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            packets: 0,
            bytes: 0,
            newest: None,
            earlier: Vec::with_capacity(MAX_EARLIER),
            stride: 1,
            skipped: 0,
            unreported: None,
            reported_at: Duration::ZERO,
            credit: MAX_CREDIT,
            round_trip: UNKNOWN_ROUND_TRIP,
        }
    }

    /// Reports as often as a path with this round trip needs.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Takes an accepted WireGuard data message of `len` bytes. All count; only packets, and empty messages as long as
    /// there is much credit, call for a report.
    pub fn handle_datagram(&mut self, index: u32, counter: u64, len: usize, content: Content, now: Duration) {
        self.packets += 1;
        self.bytes += len as u64;
        let newer = self.newest.is_none_or(|newest| newest.index != index || newest.counter < counter);
        if newer {
            match self.newest.replace(Newest { index, counter, arrival: now }) {
                Some(before) if before.index == index => self.keep(before),
                // Distances are within one session.
                _ => self.earlier.clear(),
            }
        }
        if content == Content::Packet {
            self.credit = (self.credit + report_credit(len)).min(MAX_CREDIT);
        }
        if content == Content::Packet || content == Content::Nothing && self.credit >= RESERVE {
            self.unreported.get_or_insert(now);
        }
    }

    fn keep(&mut self, before: Newest) {
        self.skipped += 1;
        if self.skipped < self.stride {
            return;
        }
        self.skipped = 0;
        if self.earlier.len() == MAX_EARLIER {
            let mut at = 0;
            self.earlier.retain(|_| {
                at += 1;
                at % 2 == 0
            });
            self.stride *= 2;
        }
        self.earlier.push((before.counter, before.arrival));
    }

    /// When [`Self::poll_report`] wants to be called; none if it waits for datagrams.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let unreported = self.unreported?;
        let deadline = unreported + self.deadline();
        if self.credit >= RESERVE + 1.0 {
            let interval = (self.round_trip / 4).clamp(MIN_INTERVAL, MAX_INTERVAL);
            Some((self.reported_at + interval).max(unreported).min(deadline))
        } else if self.credit >= 1.0 {
            Some(deadline)
        } else {
            None
        }
    }

    /// How long a datagram may wait to be reported.
    fn deadline(&self) -> Duration {
        (self.round_trip / 2).clamp(MIN_INTERVAL, MAX_DEADLINE)
    }

    /// The report that is due.
    pub fn poll_report(&mut self, now: Duration) -> Option<PathReport> {
        if self.poll_timeout()? > now {
            return None;
        }
        let newest = self.newest?;
        self.credit -= 1.0;
        self.unreported = None;
        self.reported_at = now;
        self.stride = 1;
        self.skipped = 0;
        let near = |(counter, arrival): (u64, Duration)| {
            let distance = u16::try_from(newest.counter.checked_sub(counter)?).ok()?;
            let age = ticks(newest.arrival.saturating_sub(arrival));
            (distance > 0 && age <= MAX_TICKS).then_some(EarlierArrival { distance, age })
        };
        let earlier = self.earlier.drain(..).rev().filter_map(near).collect();
        Some(PathReport {
            epoch: self.epoch,
            packets: self.packets,
            bytes: self.bytes,
            index: newest.index,
            counter: newest.counter,
            arrival: ticks(newest.arrival),
            held: ticks(now.saturating_sub(newest.arrival)).min(MAX_TICKS),
            earlier,
        })
    }
}

/// In ticks, which wrap.
fn ticks(time: Duration) -> u32 {
    // Truncation is meant.
    (time.as_micros() * u128::from(TICKS_PER_SECOND) / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use i2plan_proto::codec::Codec;
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Takes datagrams of `len` bytes every `gap` and counts the reports.
    fn reports(
        reporter: &mut Reporter,
        first: u64,
        count: u64,
        len: usize,
        gap: Duration,
    ) -> Vec<PathReport> {
        let mut reports = Vec::new();
        for counter in first..first + count {
            let now = gap * u32::try_from(counter).unwrap();
            reports.extend(reporter.poll_report(now));
            reporter.handle_datagram(7, counter, len, Content::Packet, now);
        }
        reports
    }

    #[test]
    fn a_report_covers_all_since_the_last() {
        let mut reporter = Reporter::new(5);
        reporter.set_round_trip(ms(300));
        let all = reports(&mut reporter, 0, 1000, 1312, ms(3));
        for pair in all.windows(2) {
            assert!(pair[0].packets < pair[1].packets);
            let earliest = pair[1].earlier.last().unwrap();
            assert!(pair[1].counter - u64::from(earliest.distance) <= pair[0].counter + 4, "{pair:?}");
        }
        assert_eq!(all[3].bytes, all[3].packets * 1312);
    }

    #[test]
    fn reports_cost_little_and_nothing_when_idle() {
        for len in [80, 200, 1312, 9032] {
            let mut reporter = Reporter::new(5);
            reporter.set_round_trip(ms(2));
            let before = reports(&mut reporter, 0, 2000, len, ms(1)).len();
            let all = reports(&mut reporter, 2000, 10_000, len, ms(1));
            let cost: usize = all.iter().map(|report| report.to_packet().len() + 32).sum();
            assert!(before > 0 && all.len() <= 10_000 / 16 + 9, "{len}: {} reports", all.len());
            assert!(cost <= len * 100 + 9 * 166, "{len}: {cost} bytes");
            let end = ms(12_000 + 1000);
            reporter.poll_report(end);
            assert_eq!((reporter.poll_timeout(), reporter.poll_report(end + ms(60_000))), (None, None));
        }
    }

    #[test]
    fn the_first_and_the_last_datagrams_do_not_wait_for_sixteen() {
        let mut reporter = Reporter::new(5);
        reporter.set_round_trip(ms(800));
        // Fewer than 16 in an interval, so that what was saved up is spent.
        reports(&mut reporter, 0, 2000, 1312, ms(10));
        reporter.poll_report(ms(20_900));
        assert!(reporter.credit < RESERVE + 1.0);
        reporter.handle_datagram(7, 20_000, 1312, Content::Packet, ms(30_000));
        assert_eq!(reporter.poll_report(ms(30_399)), None);
        let report = reporter.poll_report(ms(30_400)).unwrap();
        assert_eq!((report.counter, report.held), (20_000, 400 * 16));
    }

    #[test]
    fn reports_call_for_none_and_keepalives_for_few() {
        let mut reporter = Reporter::new(5);
        for counter in 0..1000 {
            reporter.handle_datagram(7, counter, 166, Content::Report, ms(counter));
        }
        assert_eq!((reporter.poll_timeout(), reporter.packets), (None, 1000));
        let mut reports = 0;
        for counter in 1000..2000 {
            let now = ms(25_000 * counter);
            reporter.handle_datagram(7, counter, 32, Content::Nothing, now);
            reports += u32::from(reporter.poll_report(now + ms(1000)).is_some());
        }
        assert_eq!((reports, reporter.poll_timeout()), (5, None));
    }

    proptest! {
        #[test]
        fn what_is_reported_decodes(
            steps in prop::collection::vec((0u32..2, 0u64..100_000, 32usize..9000, 0usize..3, 0u64..40_000), 1..200),
        ) {
            let (mut reporter, mut now) = (Reporter::new(5), Duration::from_secs(268_434));
            for (index, counter, len, content, pause) in steps {
                let content = [Content::Packet, Content::Nothing, Content::Report][content];
                now += ms(pause);
                reporter.handle_datagram(index, counter, len, content, now);
                if let Some(report) = reporter.poll_report(now + ms(1)) {
                    prop_assert_eq!(PathReport::from_bytes(&report.to_bytes()), Ok(report));
                }
                prop_assert!(reporter.earlier.len() <= MAX_EARLIER);
            }
        }
    }
}
