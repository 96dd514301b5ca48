//! Noticing that the host was asleep, or this process stopped.

use std::time::Duration;

use nix::time::ClockId;

/// How often the clock is to be looked at.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// A process that is at work looks at the clock within this time.
const AWAKE: Duration = Duration::from_secs(10);

/// The time since the host was started, sleep included.
pub(super) fn since_boot() -> Duration {
    // By the C library: rustix asks the kernel first, with a call that the sandbox does not let through.
    ClockId::CLOCK_BOOTTIME.now().map(Duration::from).unwrap_or_default()
}

/// Notices gaps in the time, which is that since the host was started: the monotonic clock stands still while a host
/// sleeps.
#[derive(Debug)]
pub(super) struct SleepDetector {
    last: Duration,
}

impl SleepDetector {
    pub(super) fn new(now: Duration) -> Self {
        Self { last: now }
    }

    /// To be called every [`EVERY`]. How long nothing was done, if that is longer than it may be.
    pub(super) fn handle_time(&mut self, now: Duration) -> Option<Duration> {
        let gap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        (gap >= AWAKE).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gaps_are_sleep() {
        let mut detector = SleepDetector::new(Duration::from_secs(100));
        assert_eq!(detector.handle_time(Duration::from_secs(102)), None);
        assert_eq!(detector.handle_time(Duration::from_secs(111)), None);
        assert_eq!(detector.handle_time(Duration::from_secs(3711)), Some(Duration::from_secs(3600)));
        assert_eq!(detector.handle_time(Duration::from_secs(3712)), None);
        // No clock of this kind goes back; if it did, nobody slept.
        assert_eq!(detector.handle_time(Duration::ZERO), None);
    }

    #[test]
    fn the_clock_goes_on() {
        let before = since_boot();
        assert!(!before.is_zero() && since_boot() >= before);
    }
}
