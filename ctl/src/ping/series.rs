//! A series of echo requests: what is sent when, what is lost, and the figures in the end.
//!
//! Knows no socket and no clock: it is told what comes and when, as time since the series began.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Replies of which the times are kept, the last ones: a series may go on for days.
const KEPT: usize = 100_000;

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How many requests; none for without end. With a deadline, how many replies.
    pub count: Option<u32>,
    /// Between requests.
    pub interval: Duration,
    /// How long a reply may take.
    pub timeout: Duration,
    /// When the series ends at the latest.
    pub deadline: Option<Duration>,
}

/// What time brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingAction {
    /// The request with this number is to be sent.
    Send(u32),
    /// The request with this number was not answered in time.
    Lost(u32),
}

/// The state of a series.
#[derive(Debug)]
pub struct Series {
    plan: Plan,
    sent: u32,
    received: u32,
    /// When the requests that wait for a reply were sent.
    outstanding: BTreeMap<u32, Duration>,
    times: VecDeque<Duration>,
}

/// What a series came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that were sent.
    pub sent: u32,
    /// Requests that were answered in time.
    pub received: u32,
    /// Quantiles of their round-trip times.
    pub times: Option<Times>,
}

/// Quantiles, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The least.
    pub min: f64,
    /// Half of them are no longer.
    pub median: f64,
    /// Nine tenths of them are no longer.
    pub p90: f64,
    /// Ninety-nine in a hundred are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Series {
    /// A series that begins.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, sent: 0, received: 0, outstanding: BTreeMap::new(), times: VecDeque::new() }
    }

    /// What there is to do now. To be called again when it is done, until there is nothing.
    pub fn on_time(&mut self, now: Duration) -> Option<PingAction> {
        if let Some((&number, &at)) = self.outstanding.first_key_value()
            && now >= at.saturating_add(self.plan.timeout)
        {
            self.outstanding.remove(&number);
            return Some(PingAction::Lost(number));
        }
        if self.next_send().is_some_and(|at| now >= at) && !self.is_done(now) {
            let number = self.sent;
            self.sent += 1;
            self.outstanding.insert(number, now);
            return Some(PingAction::Send(number));
        }
        None
    }

    /// When there is something to do.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let expiry = self.outstanding.first_key_value().map(|(_, at)| at.saturating_add(self.plan.timeout));
        [self.next_send(), expiry, self.plan.deadline].into_iter().flatten().min()
    }

    /// A request could not be sent.
    pub fn on_failed(&mut self, number: u32) {
        self.outstanding.remove(&number);
    }

    /// A reply has come. Returns the number of the request and how long it took, if that was still waited for.
    pub fn on_reply(&mut self, sequence: u16, now: Duration) -> Option<(u32, Duration)> {
        let same = |number: &u32| wire(*number) == sequence;
        let number = *self.outstanding.keys().find(|number| same(number))?;
        let time = now.saturating_sub(self.outstanding.remove(&number)?);
        self.received += 1;
        if self.times.len() == KEPT {
            self.times.pop_front();
        }
        self.times.push_back(time);
        Some((number, time))
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_done(&self, now: Duration) -> bool {
        match (self.plan.deadline, self.plan.count) {
            (Some(deadline), _) if now >= deadline => true,
            (Some(_), Some(count)) => self.received >= count,
            (None, Some(count)) => self.sent >= count && self.outstanding.is_empty(),
            (_, None) => false,
        }
    }

    /// The figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let times = self.times.iter().copied().collect();
        Summary { sent: self.sent, received: self.received, times: Times::of(times) }
    }

    fn next_send(&self) -> Option<Duration> {
        let more = match self.plan {
            Plan { count: Some(count), deadline: None, .. } => self.sent < count,
            _ => self.sent < u32::MAX,
        };
        more.then(|| self.plan.interval.saturating_mul(self.sent))
    }
}

/// The number as it stands in a request.
#[must_use]
pub fn wire(number: u32) -> u16 {
    (number & 0xffff) as u16
}

impl Times {
    /// The quantiles of these; none of nothing.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort();
        // The nearest rank: of a few times, the high quantiles are the longest.
        let rank = |percent: usize| (times.len() * percent).div_ceil(100).max(1);
        let at = |percent: usize| times.get(rank(percent) - 1).map(|time| time.as_secs_f64() * 1e3);
        Some(Self { min: at(0)?, median: at(50)?, p90: at(90)?, p99: at(99)?, max: at(100)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { count: Some(2), interval: ms(1000), timeout: ms(3000), deadline: None };

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn summary(series: &Series) -> (u32, u32) {
        let Summary { sent, received, .. } = series.summary();
        (sent, received)
    }

    #[test]
    fn requests_go_out_in_time_and_replies_end_the_series() {
        let mut series = Series::new(PLAN);
        assert_eq!(series.on_time(ms(0)), Some(PingAction::Send(0)));
        assert_eq!(series.on_time(ms(0)), None);
        assert_eq!(series.wake_at(), Some(ms(1000)));
        assert_eq!(series.on_reply(0, ms(700)), Some((0, ms(700))));
        // A second reply to the same is none.
        assert_eq!(series.on_reply(0, ms(800)), None);
        assert_eq!(series.on_time(ms(1000)), Some(PingAction::Send(1)));
        assert!(!series.is_done(ms(1000)));
        assert_eq!(series.on_reply(1, ms(1900)), Some((1, ms(900))));
        assert!(series.is_done(ms(1900)));
        assert_eq!(summary(&series), (2, 2));
    }

    #[test]
    fn what_is_not_answered_in_time_is_lost() {
        let mut series = Series::new(Plan { count: Some(1), ..PLAN });
        series.on_time(ms(0));
        assert_eq!(series.wake_at(), Some(ms(3000)));
        assert_eq!(series.on_time(ms(2999)), None);
        assert_eq!(series.on_time(ms(3000)), Some(PingAction::Lost(0)));
        assert!(series.is_done(ms(3000)));
        assert_eq!(series.on_reply(0, ms(3001)), None);
        assert_eq!(series.summary(), Summary { sent: 1, received: 0, times: None });
    }

    #[test]
    fn with_a_deadline_the_count_is_of_replies() {
        let plan = Plan { count: Some(1), deadline: Some(ms(10_000)), ..PLAN };
        let mut series = Series::new(plan);
        for second in 0..5 {
            assert!(
                (0..9).any(|_| series.on_time(ms(second * 1000)) == Some(PingAction::Send(second as u32)))
            );
        }
        assert!(!series.is_done(ms(4000)));
        assert!(series.on_reply(3, ms(4500)).is_some());
        assert!(series.is_done(ms(4500)));

        let mut series = Series::new(plan);
        series.on_time(ms(0));
        series.on_failed(0);
        assert!(series.is_done(ms(10_000)));
        assert_eq!(series.on_time(ms(10_000)), None);
        assert_eq!(summary(&series), (1, 0));
    }

    #[test]
    fn numbers_go_on_when_those_of_the_wire_begin_again() {
        let mut series = Series::new(Plan { count: None, interval: ms(10), ..PLAN });
        for number in 0..=65_536 {
            assert_eq!(series.on_time(ms(number * 10)), Some(PingAction::Send(number as u32)));
            if number < 65_536 {
                assert!(series.on_reply(wire(number as u32), ms(number * 10)).is_some());
            }
        }
        assert_eq!(series.on_reply(0, ms(655_400)), Some((65_536, ms(40))));
    }

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times = Times::of((0..=100).rev().map(ms).collect());
        assert_eq!(times, Some(Times { min: 0.0, median: 50.0, p90: 90.0, p99: 99.0, max: 100.0 }));
        assert_eq!(Times::of(vec![]), None);
        let of_three = Times::of([1, 2, 9].map(ms).into());
        assert_eq!(of_three, Some(Times { min: 1.0, median: 2.0, p90: 9.0, p99: 9.0, max: 9.0 }));
    }
}
