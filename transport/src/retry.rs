//! When a session that is not open is tried again: by what is in its way.

use std::time::Duration;

/// A refused connection costs nothing, and the router may be there at any moment.
const NO_BRIDGE: Duration = Duration::from_secs(2);

/// A router that holds on to the session before lets go of it after seconds or minutes; that takes no longer for being
/// asked.
const DUPLICATE: Duration = Duration::from_secs(3);

/// First wait where the bridge has answered, but with an error, or a session has ended; each further is twice as long.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait.
const LAST: Duration = Duration::from_secs(30);

/// After this, an open session that ends is not one more failure of the same kind.
const STABLE: Duration = Duration::from_secs(60);

/// What is in the way of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing takes connections at the bridge's address.
    NoBridge,
    /// The router holds on to an earlier session under the same destination or id.
    Duplicate,
    /// Anything else: an error from the bridge, no answer, a session that has ended.
    Other,
}

/// The waits between the attempts at one session.
#[derive(Debug)]
pub struct Retry {
    next: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Retry {
    /// An attempt has failed, or the session has ended that was open for this time. Returns how long to wait, before
    /// [jitter](jittered).
    pub fn handle_failure(&mut self, cause: Cause, lasted: Duration) -> Duration {
        if lasted >= STABLE {
            self.next = FIRST;
        }
        match cause {
            Cause::NoBridge => NO_BRIDGE,
            Cause::Duplicate => DUPLICATE,
            Cause::Other => {
                let wait = self.next;
                self.next = (wait * 2).min(LAST);
                wait
            }
        }
    }
}

/// Up to a half more, so that nodes that lost one router do not all come back to it at once. `random` is from 0 to 1.
pub fn jittered(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(1.0 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits of so many failed attempts, in seconds.
    fn waits(retry: &mut Retry, cause: Cause, count: usize) -> Vec<u64> {
        (0..count).map(|_| retry.handle_failure(cause, Duration::ZERO).as_secs()).collect()
    }

    #[test]
    fn only_errors_of_the_bridge_make_the_waits_longer() {
        let mut retry = Retry::default();
        assert_eq!(waits(&mut retry, Cause::NoBridge, 3), [2, 2, 2]);
        assert_eq!(waits(&mut retry, Cause::Duplicate, 3), [3, 3, 3]);
        assert_eq!(waits(&mut retry, Cause::Other, 7), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits(&mut retry, Cause::NoBridge, 1), [2]);
    }

    #[test]
    fn a_session_that_lasted_is_opened_again_soon() {
        let mut retry = Retry::default();
        waits(&mut retry, Cause::Other, 7);
        assert_eq!(retry.handle_failure(Cause::Other, Duration::from_secs(5)).as_secs(), 30);
        assert_eq!(retry.handle_failure(Cause::Other, Duration::from_secs(100)).as_secs(), 1);
    }
}
