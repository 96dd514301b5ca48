//! No bulk before the first answer.
//!
//! Datagrams between two destinations whose routers have not agreed on a session yet are each encrypted like a first
//! one, at several times the cost, and i2pd takes no more than one of them in 200 ms for each destination (since 2.55).
//! A flow that begins with bulk loses nearly all of it, and keeps the routers from agreeing. So few datagrams go to a
//! peer until it has answered through the present SAM sessions of both.

use std::time::Duration;

use i2plan_ipc::rate::{Bucket, Quota};

/// Datagrams to a peer that has not answered yet: four a second, none of which comes within 200 ms of the one before
/// even if the path makes their distances differ by a quarter.
pub(super) const UNANSWERED: Quota = Quota::new(4, 1);

/// What a datagram to a peer that has not answered costs a router, in those to one that has.
pub(super) const FIRST_COST: u32 = 4;

/// How long it is left to the peer to send first where the sessions of both are new: longer than it takes both to learn
/// of that.
pub(in crate::tunnel) const YIELD_TO_FIRST: Duration = Duration::from_secs(2);

/// Whether a peer has answered through the present SAM sessions, and how much may go to it before.
#[derive(Debug, Default)]
pub(super) struct FirstAnswer {
    is_here: bool,
    has_sent: bool,
    sent: Bucket,
}

impl FirstAnswer {
    /// This node or the peer has another SAM session. Where both have, one of them `yields`, so that their first
    /// datagrams do not cross.
    pub(super) fn await_again(&mut self, yields: bool, now: Duration) {
        *self = Self::default();
        if yields {
            self.sent.take(Quota::every(YIELD_TO_FIRST, 1), now);
        }
    }

    pub(super) fn is_here(&self) -> bool {
        self.is_here
    }

    /// How long until a packet may go; zero if one may now.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        if self.is_here { Duration::ZERO } else { self.sent.wait(UNANSWERED, now) }
    }

    /// A datagram goes. Returns what it costs, in datagrams to a peer that has answered.
    pub(super) fn note_sent(&mut self, now: Duration) -> u32 {
        if self.is_here {
            return 1;
        }
        self.has_sent = true;
        self.sent.take(UNANSWERED, now);
        FIRST_COST
    }

    /// An authenticated message has come that is no beginning of a handshake. Returns whether it is the first answer.
    /// One that comes before anything was sent is none, but there is no need to yield any more.
    pub(super) fn note_received(&mut self) -> bool {
        if self.is_here {
            return false;
        }
        if self.has_sent {
            self.is_here = true;
        } else {
            self.sent = Bucket::default();
        }
        self.is_here
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_came_before_anything_was_sent_is_no_answer() {
        let mut first = FirstAnswer::default();
        assert!(!first.note_received() && !first.is_here());
        first.note_sent(Duration::ZERO);
        assert!(first.note_received() && first.is_here());
        assert!(!first.note_received(), "only the first is the first");
        first.await_again(false, Duration::ZERO);
        assert!(!first.is_here() && !first.note_received());
    }

    #[test]
    fn one_that_yields_waits_until_the_other_sends_but_not_for_ever() {
        let mut first = FirstAnswer::default();
        first.await_again(true, Duration::from_secs(1));
        assert_eq!(first.wait(Duration::from_secs(1)), Duration::from_secs(2));
        assert_eq!(first.wait(Duration::from_secs(3)), Duration::ZERO);
        first.note_received();
        assert_eq!(first.wait(Duration::from_secs(1)), Duration::ZERO);
    }

    proptest! {
        /// Whatever happens, no more goes before an answer than the bound allows, and something may go within its time.
        #[test]
        fn the_bound_holds_and_nothing_waits_for_ever(
            steps in prop::collection::vec((0u64..700, 0u8..8), 1..200),
        ) {
            let mut now = Duration::ZERO;
            let mut first = FirstAnswer::default();
            let mut last = None;
            for (pause, step) in steps {
                now += Duration::from_millis(pause);
                match step {
                    0 => first.await_again(false, now),
                    1 => first.await_again(true, now),
                    2 => _ = first.note_received(),
                    _ => {}
                }
                if step < 2 || first.is_here() {
                    last = None;
                }
                prop_assert!(first.wait(now) <= Duration::from_millis(2_000));
                if first.wait(now).is_zero() {
                    let spaced = last.is_none_or(|last| now - last >= Duration::from_millis(250));
                    prop_assert!(first.is_here() || spaced);
                    first.note_sent(now);
                    last = Some(now);
                }
            }
        }
    }
}
