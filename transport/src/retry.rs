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

/// How long i2pd goes on with a destination whose session was closed, and a second more. It stops the destination then,
/// also when another session of it has been opened meanwhile: that one is never answered, or carries nothing from then on
/// (i2pd 2.45.1 and 2.58, `SAMBridge::CloseSession`).
const RELEASE: Duration = Duration::from_secs(6);

/// i2pd takes longer than that to answer that a session is open: it looks every 3 s whether it is, 2.45.1 every 20 s.
const AT_ONCE: Duration = Duration::from_millis(2500);

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
    /// A session has been open for this time: what failed before a long one says nothing of the next attempt.
    pub fn handle_open(&mut self, lasted: Duration) {
        if lasted >= STABLE {
            self.next = FIRST;
        }
    }

    /// An attempt has failed, or the session has ended that was open for this time. Returns how long to wait, before
    /// [jitter](jittered).
    pub fn handle_failure(&mut self, cause: Cause, lasted: Duration) -> Duration {
        self.handle_open(lasted);
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

/// When a session may be opened under the destination of one that was closed: at once on most routers, after a few
/// seconds on i2pd. Which of the two a router is, is seen by how long it takes to open a session; as long as nothing is
/// known, it is at once. Time is any monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Release {
    lingers: bool,
    /// Answers in a row that came at once.
    quick: u8,
    until: Option<Duration>,
}

impl Release {
    /// `lingers`: the router, as far as is known, goes on with a destination, and a session may have been closed just
    /// before.
    pub fn new(lingers: bool, now: Duration) -> Self {
        Self { lingers, quick: 0, until: lingers.then(|| now + RELEASE) }
    }

    /// The router has opened a session, or has not answered, within this time.
    pub fn handle_answer(&mut self, took: Duration) {
        if took >= AT_ONCE {
            (self.lingers, self.quick) = (true, 0);
        } else {
            // One is no proof: i2pd too answers at once that a session is open whose destination it is about to stop.
            self.quick = self.quick.saturating_add(1);
            self.lingers &= self.quick < 2;
        }
    }

    /// A session was closed, or is not waited for any more.
    pub fn handle_closed(&mut self, now: Duration) {
        self.until = self.lingers.then(|| now + RELEASE);
    }

    /// How long to wait before another is opened.
    pub fn wait(&self, now: Duration) -> Duration {
        self.until.map(|until| until.saturating_sub(now)).unwrap_or_default()
    }

    /// Whether the router goes on with a destination whose session is closed.
    pub fn lingers(&self) -> bool {
        self.lingers
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
    fn the_destination_of_a_closed_session_is_left_alone_on_a_router_that_lingers() {
        let at = Duration::from_secs;
        let mut release = Release::new(false, at(0));
        release.handle_answer(Duration::from_millis(300));
        release.handle_closed(at(5));
        assert_eq!(release.wait(at(5)), Duration::ZERO);
        release.handle_answer(Duration::from_secs(3));
        release.handle_closed(at(10));
        assert_eq!([10, 14, 16, 99].map(|now| release.wait(at(now)).as_secs()), [6, 2, 0, 0]);
        // What is answered at once may be a destination that is about to be stopped.
        for lingers in [true, false] {
            release.handle_answer(Duration::from_millis(300));
            assert_eq!(release.lingers(), lingers);
        }
        // One that was closed before this process began.
        assert_eq!(Release::new(true, at(0)).wait(at(1)).as_secs(), 5);
    }

    #[test]
    fn a_session_that_lasted_is_opened_again_soon() {
        let mut retry = Retry::default();
        waits(&mut retry, Cause::Other, 7);
        assert_eq!(retry.handle_failure(Cause::Other, Duration::from_secs(5)).as_secs(), 30);
        assert_eq!(retry.handle_failure(Cause::Other, Duration::from_secs(100)).as_secs(), 1);
        // Also where another is opened beside it, whose first attempt fails.
        waits(&mut retry, Cause::Other, 7);
        retry.handle_open(Duration::from_secs(5));
        assert_eq!(waits(&mut retry, Cause::Other, 1), [30]);
        retry.handle_open(Duration::from_secs(100));
        assert_eq!(waits(&mut retry, Cause::Other, 2), [1, 2]);
    }
}
