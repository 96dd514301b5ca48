//! When the session for data is replaced that is of no use.
//!
//! Both sides of a tunnel see that it carries nothing, and in the same second if they have begun together. If both
//! replaced their sessions then, neither would know for a while where the other is, and the first datagrams between the
//! new destinations would cross, after which some routers (emissary 0.4) never agree on a session. So no node replaces
//! it in the second in which it is seen, and a node to which one with a smaller id speaks leaves it to that one for a
//! moment.
//!
//! After a sleep another session is opened before it is known whether it is needed, which a router may take a minute for,
//! and closed again if it is not.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// How long it is left to a node with a smaller id: until it has a session again and a handshake through it has
/// succeeded, on emissary and mostly on Java I2P. i2pd takes longer, and what crosses then costs speed and no more.
const YIELD: Duration = Duration::from_secs(8);

/// How much later than necessary it is done at most.
const JITTER: Duration = Duration::from_secs(2);

/// How long a session is kept that is not in use, where it stays open whether it is needed.
const SPARE: Duration = Duration::from_secs(120);

/// Decides when the session is replaced.
#[derive(Debug, Default)]
pub(super) struct DataRenewal {
    due: Option<Duration>,
    /// Another is being opened, or is there and not in use, since then.
    another: Option<Duration>,
    /// That is to be used.
    wanted: bool,
    /// The session replaced one that was of no use, or is about to, and nothing has been heard through it.
    in_vain: bool,
    /// It is there.
    attached: bool,
}

impl DataRenewal {
    /// The session is of no use. This node `yields` if a member with a smaller id speaks to it.
    pub(super) fn handle_stall(&mut self, yields: bool, now: Duration, rng: &mut impl Rng) {
        // Until that is there it says nothing of it.
        if self.replacing().is_none() {
            let wait = JITTER.mul_f64(rng.random()) + if yields { YIELD } else { Duration::ZERO };
            self.due.get_or_insert(now + wait);
        }
    }

    /// Another session is opened, or kept from an earlier sleep, which may be needed.
    pub(super) fn handle_prepared(&mut self, now: Duration) {
        if self.replacing().is_none() {
            self.another = Some(now);
        }
    }

    /// The session is of use: it is not to be replaced, unless that has begun.
    pub(super) fn cancel(&mut self) {
        self.due = None;
    }

    /// Whether another session that there may be is not needed: the present one `is_fine`, in each tunnel, or nothing was found
    /// out for long. Then it is taken to be closed.
    pub(super) fn poll_unneeded(&mut self, is_fine: bool, now: Duration) -> bool {
        if is_fine {
            self.due = None;
        }
        let is_old = |since: Duration| !self.wanted && self.due.is_none() && now >= since + SPARE;
        let unneeded = self.another.is_some_and(|since| is_fine || is_old(since));
        if unneeded {
            // Nothing has replaced what is heard.
            self.in_vain &= !self.wanted;
            (self.another, self.wanted) = (None, false);
            self.attached = true;
        }
        unneeded
    }

    /// Since when another session is being opened that is to be used.
    pub(super) fn replacing(&self) -> Option<Duration> {
        self.another.filter(|_| self.wanted)
    }

    /// There is another session.
    pub(super) fn handle_session(&mut self) {
        self.cancel();
        // One that is not in use may still be there.
        self.another = self.another.filter(|_| !std::mem::take(&mut self.wanted));
        self.attached = true;
    }

    /// Something was heard through the session.
    pub(super) fn handle_heard(&mut self) {
        self.in_vain &= !self.attached;
    }

    /// When to ask [`DataRenewal::poll_due`] again.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.due
    }

    /// Whether the session is to be replaced; then it is taken to be, and whether the last replacement was in vain is
    /// returned: the members speak to this node, and do not learn where its session is.
    pub(super) fn poll_due(&mut self, now: Duration) -> Option<bool> {
        self.due.take_if(|due| *due <= now)?;
        self.attached = false;
        self.another.get_or_insert(now);
        self.wanted = true;
        Some(std::mem::replace(&mut self.in_vain, true))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn due(yields: bool, seed: u8) -> Duration {
        let mut renewal = DataRenewal::default();
        renewal.handle_stall(yields, NOW, &mut StdRng::from_seed([seed; 32]));
        renewal.poll_timeout().unwrap()
    }

    #[test]
    fn of_two_that_see_it_together_one_is_done_before_the_other_begins() {
        for seed in 0..100 {
            assert!(due(true, seed) >= due(false, seed.wrapping_add(1)) + YIELD - JITTER);
            assert!(due(true, seed) <= NOW + YIELD + JITTER, "but it does not wait for ever");
        }
        assert_ne!(due(false, 1), due(false, 2));
    }

    #[test]
    fn it_is_done_once_and_not_if_the_session_works_again() {
        let mut renewal = DataRenewal::default();
        let mut rng = StdRng::from_seed([1; 32]);
        renewal.handle_stall(false, NOW, &mut rng);
        let due = renewal.poll_timeout().unwrap();
        renewal.handle_stall(false, NOW + JITTER, &mut rng);
        assert_eq!(renewal.poll_timeout(), Some(due), "it is not put off");
        assert_eq!(renewal.poll_due(due - Duration::from_nanos(1)), None);
        assert_eq!((renewal.poll_due(due), renewal.poll_due(due)), (Some(false), None));
        renewal.handle_stall(true, NOW, &mut rng);
        renewal.cancel();
        assert_eq!(renewal.poll_due(NOW * 2), None);
    }

    #[test]
    fn another_session_is_closed_if_it_turns_out_not_to_be_needed() {
        let mut rng = StdRng::from_seed([1; 32]);
        let mut renewal = DataRenewal::default();
        assert!(!renewal.poll_unneeded(true, NOW), "there is none");
        renewal.handle_prepared(NOW);
        assert!(!renewal.poll_unneeded(false, NOW) && renewal.replacing().is_none());
        assert!(renewal.poll_unneeded(true, NOW) && !renewal.poll_unneeded(true, NOW));
        renewal.handle_prepared(NOW);
        assert!(renewal.poll_unneeded(false, NOW + SPARE), "nor is it kept for ever");
        // The host has slept again: it is kept as long as after the first time.
        renewal.handle_prepared(NOW);
        renewal.handle_prepared(NOW + SPARE / 2);
        assert!(!renewal.poll_unneeded(false, NOW + SPARE));
        assert!(renewal.poll_unneeded(false, NOW + SPARE * 3 / 2));
        // One that is to be used is, unless the one before is well again.
        renewal.handle_prepared(NOW);
        renewal.handle_stall(false, NOW, &mut rng);
        assert_eq!(renewal.poll_due(NOW + JITTER), Some(false));
        renewal.handle_stall(false, NOW + JITTER, &mut rng);
        assert_eq!(renewal.poll_timeout(), None, "it is not there yet");
        assert!(renewal.replacing() == Some(NOW) && !renewal.poll_unneeded(false, NOW + SPARE));
        assert!(renewal.poll_unneeded(true, NOW + SPARE) && renewal.replacing().is_none());
        renewal.handle_prepared(NOW);
        renewal.handle_stall(false, NOW, &mut rng);
        assert!(renewal.poll_due(NOW + JITTER).is_some());
        renewal.handle_session();
        assert!(!renewal.poll_unneeded(true, NOW), "it is in use");
    }

    #[test]
    fn a_replacement_was_in_vain_if_nothing_is_heard_through_it() {
        let mut renewal = DataRenewal::default();
        let mut replace = |hears: bool| {
            // What was heard through the session before counts for nothing.
            renewal.handle_heard();
            renewal.handle_session();
            if hears {
                renewal.handle_heard();
            }
            renewal.handle_stall(false, NOW, &mut StdRng::from_seed([1; 32]));
            renewal.poll_due(NOW * 2)
        };
        // The first replaced nothing.
        assert_eq!(replace(false), Some(false));
        assert_eq!(replace(false), Some(true));
        assert_eq!((replace(true), replace(false)), (Some(false), Some(true)));
    }
}
