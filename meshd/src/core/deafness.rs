//! When to open the SAM sessions anew because a peer does not hear this node.
//!
//! A router that has lost its state, because it was restarted, cannot read what others send under the
//! end-to-end sessions from before. Some routers go on using such a session although the other side has begun
//! a new one, so that packets arrive in one direction only. The remedy within reach of an application is a new
//! SAM session of its own, for which its router begins everything anew.

use std::time::Duration;

/// So many answers to a peer's handshakes in a row must have gone unheard. One may be lost, and two.
const UNHEARD: u64 = 3;

/// Wait between the first two attempts; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(45);

/// Longest wait: a peer that pretends not to hear costs a second of traffic in that time, no more.
const LAST_WAIT: Duration = Duration::from_secs(15 * 60);

/// Decides when the sessions are opened anew.
#[derive(Debug, Default)]
pub struct Deafness {
    last: Option<Duration>,
    wait: Duration,
}

impl Deafness {
    /// Whether to open the sessions anew now, given the most answers in a row that any peer has not heard.
    pub fn check(&mut self, unheard: u64, now: Duration) -> bool {
        let since = self.last.map(|last| now.saturating_sub(last));
        if unheard < UNHEARD {
            // After a long quiet time it is a new case.
            if since.is_some_and(|since| since >= LAST_WAIT) {
                *self = Self::default();
            }
            return false;
        }
        if since.is_some_and(|since| since < self.wait) {
            return false;
        }
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LAST_WAIT);
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_no_deafness() {
        let mut deafness = Deafness::default();
        assert!((0..1000).all(|second| !deafness.check(2, Duration::from_secs(second))));
    }

    #[test]
    fn attempts_become_rare() {
        let mut deafness = Deafness::default();
        let attempts: Vec<_> =
            (0..7200).filter(|second| deafness.check(9, Duration::from_secs(*second))).collect();
        assert_eq!(attempts[..5], [0, 45, 135, 315, 675]);
        assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] <= LAST_WAIT.as_secs()));
        assert!(attempts.len() < 14, "{attempts:?}");
    }

    #[test]
    fn after_a_quiet_time_it_starts_again() {
        let mut deafness = Deafness::default();
        assert!(deafness.check(9, Duration::from_secs(0)));
        assert!(deafness.check(9, Duration::from_secs(45)));
        assert!(!deafness.check(0, Duration::from_secs(1000)));
        assert!(deafness.check(9, Duration::from_secs(1001)));
        assert!(deafness.check(9, Duration::from_secs(1046)));
    }
}
