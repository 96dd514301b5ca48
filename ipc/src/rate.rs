//! How often something may happen.
//!
//! Nothing here reads a clock: time is what has passed since some moment that the caller has fixed.

use std::time::Duration;

/// A rate, and how far it may be exceeded for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    interval: Duration,
    tolerance: Duration,
}

impl Quota {
    /// So many a second in the long run, and `burst` (at least one) at once after a pause.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        // Rounded up, so that the rate is not exceeded.
        let interval = 1_000_000_000_u64.div_ceil(per_second as u64);
        Self::every(Duration::from_nanos(interval), burst)
    }

    /// One in each interval in the long run, and `burst` (at least one) at once after a pause.
    #[must_use]
    pub const fn every(interval: Duration, burst: u32) -> Self {
        Self { interval, tolerance: interval.saturating_mul(burst.saturating_sub(1)) }
    }
}

/// A leaky bucket under a [`Quota`], kept as the time at which it will be empty (GCRA, ITU-T I.371). Buckets are
/// ordered by that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    empty_at: Duration,
}

impl Bucket {
    /// How long until one more may happen; zero if it may now.
    #[must_use]
    pub fn wait(&self, quota: Quota, now: Duration) -> Duration {
        self.empty_at.saturating_sub(quota.tolerance).saturating_sub(now)
    }

    /// Notes that one happens now.
    pub fn take(&mut self, quota: Quota, now: Duration) {
        self.take_n(quota, 1, now);
    }

    /// Notes that something happens now that counts as `n`. It may exceed the burst: the wait after it is longer then.
    pub fn take_n(&mut self, quota: Quota, n: u32, now: Duration) {
        self.empty_at = self.empty_at.max(now).saturating_add(quota.interval.saturating_mul(n));
    }

    /// Takes one if it may happen now.
    pub fn try_take(&mut self, quota: Quota, now: Duration) -> bool {
        let may = self.wait(quota, now).is_zero();
        if may {
            self.take(quota, now);
        }
        may
    }

    /// Whether it is as if it had never been used.
    #[must_use]
    pub fn is_empty(&self, now: Duration) -> bool {
        self.empty_at <= now
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
            gaps in prop::collection::vec(0u64..200_000, 1..100),
            per_second in 1u32..1_000,
            burst in 1u32..50,
        ) {
            let quota = Quota::new(per_second, burst);
            let mut now = Duration::ZERO;
            let mut bucket = Bucket::default();
            let mut taken = Vec::new();
            for gap in gaps {
                now += Duration::from_micros(gap);
                while bucket.try_take(quota, now) {
                    taken.push(now.as_secs_f64());
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (j, to) in taken.iter().enumerate().skip(i) {
                    let allowed = f64::from(burst) + (to - from) * f64::from(per_second) + 1e-6;
                    prop_assert!((j - i + 1) as f64 <= allowed);
                }
            }
        }
    }

    #[test]
    fn a_full_bucket_says_how_long_to_wait() {
        let quota = Quota::new(10, 2);
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(1);
        assert!(bucket.try_take(quota, now) && bucket.try_take(quota, now));
        assert!(!bucket.try_take(quota, now));
        assert_eq!(bucket.wait(quota, now), Duration::from_millis(100));
        assert!(!bucket.is_empty(now + Duration::from_millis(199)));
        assert!(bucket.is_empty(now + Duration::from_millis(200)));
    }

    #[test]
    fn what_is_large_is_made_up_for() {
        let quota = Quota::new(10, 1);
        let mut bucket = Bucket::default();
        bucket.take_n(quota, 5, Duration::ZERO);
        assert!(!bucket.wait(quota, Duration::from_millis(499)).is_zero());
        assert!(bucket.wait(quota, Duration::from_millis(500)).is_zero());
    }
}
