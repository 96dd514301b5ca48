//! When a daemon that has ended is started again.
//!
//! Knows no process and no clock: it is told what happened and when.

use std::time::{Duration, Instant};

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(200);

/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// A daemon that ran so long was healthy: what went wrong then is a new story.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The same of one that ended as if it had been asked to: somebody wants it anew.
const HEALTHY_AFTER_IF_ORDERLY: Duration = Duration::from_secs(5);

/// The exit code of a daemon whose command line or configuration is wrong.
const CONFIGURATION_ERROR: i32 = 2;

/// The exit code of a daemon that asks to be started again.
const ASKS_FOR_IT: i32 = i2plan_ipc::daemon::program::RESTART as i32;

/// The exit code of `keyd` when its keys are sealed and the passphrase is missing or another one.
pub(crate) const LOCKED: i32 = 3;

/// What to do about a daemon that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start it again after this time.
    RestartAfter(Duration),
    /// It cannot work as it is configured; starting it again would not help.
    GiveUp,
}

/// The history of one daemon.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    started_at: Option<Instant>,
    starts: u64,
    /// Ends in a row without health between them.
    failures: u32,
}

impl Backoff {
    /// It is being started.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started_at = Some(now);
        self.starts += 1;
    }

    /// It has ended, with `code` if it exited by itself. `jitter` is random, from 0 to 1: daemons that died of
    /// the same cause shall not all come back at the same moment.
    pub(crate) fn ended(&mut self, code: Option<i32>, now: Instant, jitter: f64) -> Verdict {
        if self.starts <= 1 && matches!(code, Some(CONFIGURATION_ERROR | LOCKED)) {
            return Verdict::GiveUp;
        }
        let ran = self.started_at.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        if ran >= if matches!(code, Some(0 | ASKS_FOR_IT)) { HEALTHY_AFTER_IF_ORDERLY } else { HEALTHY_AFTER }
        {
            self.failures = 0;
        }
        let wait = SHORTEST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // From three quarters to five quarters of it.
        Verdict::RestartAfter(wait.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0)).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_JITTER: f64 = 0.5;

    /// The waits of a daemon that runs for `ran` and exits with `code`, over and over.
    fn waits(backoff: &mut Backoff, ran: Duration, code: Option<i32>, times: usize) -> Vec<Verdict> {
        let mut now = Instant::now();
        (0..times)
            .map(|_| {
                backoff.started(now);
                now += ran;
                backoff.ended(code, now, NO_JITTER)
            })
            .collect()
    }

    fn restart(millis: u64) -> Verdict {
        Verdict::RestartAfter(Duration::from_millis(millis))
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let seen = waits(&mut Backoff::default(), Duration::from_secs(1), Some(1), 100);
        assert_eq!(seen[..4], [restart(200), restart(400), restart(800), restart(1600)]);
        assert_eq!(seen[7..9], [restart(25_600), restart(30_000)]);
        assert_eq!(seen[99], restart(30_000));
    }

    #[test]
    fn health_makes_the_next_wait_short_again() {
        let mut backoff = Backoff::default();
        waits(&mut backoff, Duration::from_secs(1), None, 10);
        assert_eq!(waits(&mut backoff, HEALTHY_AFTER, None, 1), [restart(200)]);
        assert_eq!(waits(&mut backoff, Duration::from_secs(59), None, 1), [restart(400)]);
    }

    #[test]
    fn an_orderly_end_is_no_failure_unless_it_comes_at_once() {
        let mut backoff = Backoff::default();
        waits(&mut backoff, Duration::from_secs(1), None, 10);
        assert_eq!(waits(&mut backoff, HEALTHY_AFTER_IF_ORDERLY, Some(0), 2), [restart(200), restart(200)]);
        let seen = waits(&mut Backoff::default(), Duration::from_secs(4), Some(0), 3);
        assert_eq!(seen, [restart(200), restart(400), restart(800)]);
    }

    #[test]
    fn a_wrong_configuration_is_given_up_on_at_the_first_start_only() {
        for code in [CONFIGURATION_ERROR, LOCKED] {
            let mut backoff = Backoff::default();
            assert_eq!(waits(&mut backoff, Duration::ZERO, Some(code), 1), [Verdict::GiveUp]);
            // Later it has worked before: what it complains about may pass.
            assert_eq!(waits(&mut backoff, Duration::ZERO, Some(code), 1), [restart(200)]);
        }
        assert_eq!(waits(&mut Backoff::default(), Duration::ZERO, None, 1), [restart(200)]);
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        for (jitter, expected) in [(0.0, 150), (1.0, 250), (7.0, 250), (-7.0, 150)] {
            let mut backoff = Backoff::default();
            backoff.started(Instant::now());
            assert_eq!(backoff.ended(None, Instant::now(), jitter), restart(expected));
        }
        let mut backoff = Backoff::default();
        waits(&mut backoff, Duration::ZERO, None, 50);
        assert_eq!(backoff.ended(None, Instant::now(), 1.0), Verdict::RestartAfter(LONGEST));
    }
}
