//! How fast datagrams may go to the router.

use std::time::{Duration, Instant};

/// A leaky bucket, kept as the time at which it will be empty (GCRA, ITU-T I.371).
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    tolerance: Duration,
    empty_at: Option<Instant>,
}

impl Rate {
    /// At most `per_second` units a second, and `burst` (at least one) at once after a pause.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        // Rounded up, so that the rate is not exceeded.
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(per_second.into()));
        Self { interval, tolerance: interval * (burst - 1), empty_at: None }
    }

    /// From when on something may go; none if at any time.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.empty_at.and_then(|time| time.checked_sub(self.tolerance))
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.ready_at().is_none_or(|time| time <= now)
    }

    /// Notes that something of `units` goes now. More than one unit is made up for afterwards.
    pub(super) fn take(&mut self, units: u32, now: Instant) {
        let base = self.empty_at.map_or(now, |time| time.max(now));
        self.empty_at = Some(base + self.interval * units);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the attempts fall, no window holds more than the burst and what the rate allows in it.
        #[test]
        fn no_window_holds_more_than_the_rate(
            gaps in prop::collection::vec(0u64..5_000, 1..100),
            per_second in 1u32..5_000,
            burst in 1u32..50,
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut rate = Rate::new(per_second, burst);
            let mut sent = Vec::new();
            for gap in gaps {
                now += Duration::from_micros(gap);
                while rate.is_ready(now) {
                    rate.take(1, now);
                    sent.push(now.duration_since(start).as_secs_f64());
                }
            }
            for (i, from) in sent.iter().enumerate() {
                for (j, to) in sent.iter().enumerate().skip(i) {
                    let allowed = f64::from(burst) + (to - from) * f64::from(per_second) + 1e-6;
                    prop_assert!((j - i + 1) as f64 <= allowed);
                }
            }
        }
    }

    #[test]
    fn what_is_large_is_made_up_for() {
        let now = Instant::now();
        let mut rate = Rate::new(10, 1);
        rate.take(5, now);
        assert!(!rate.is_ready(now + Duration::from_millis(499)));
        assert!(rate.is_ready(now + Duration::from_millis(500)));
    }
}
