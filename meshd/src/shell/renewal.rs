//! When the session for data is replaced that is of no use.
//!
//! Both sides of a tunnel see that it carries nothing, and in the same second if they have begun together. If both
//! replaced their sessions then, neither would know for a while where the other is, and the first datagrams between the
//! new destinations would cross, after which some routers (emissary 0.4) never agree on a session. So no node replaces
//! it in the second in which it is seen, and a node to which one with a smaller id speaks leaves it to that one for a
//! moment.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// How long it is left to a node with a smaller id: until it has a session again and a handshake through it has
/// succeeded, on emissary and mostly on Java I2P. i2pd takes longer, and what crosses then costs speed and no more.
const YIELD: Duration = Duration::from_secs(8);

/// How much later than necessary it is done at most.
const JITTER: Duration = Duration::from_secs(2);

/// Decides when the session is replaced.
#[derive(Debug, Default)]
pub(super) struct DataRenewal {
    due: Option<Duration>,
    /// The session replaced one that was of no use, or is about to, and nothing has been heard through it.
    in_vain: bool,
    /// It is there.
    attached: bool,
}

impl DataRenewal {
    /// The session is of no use. This node `yields` if a member with a smaller id speaks to it.
    pub(super) fn handle_stall(&mut self, yields: bool, now: Duration, rng: &mut impl Rng) {
        let wait = JITTER.mul_f64(rng.random()) + if yields { YIELD } else { Duration::ZERO };
        self.due.get_or_insert(now + wait);
    }

    /// The session is of use, or nothing is expected from it.
    pub(super) fn cancel(&mut self) {
        self.due = None;
    }

    /// There is another session.
    pub(super) fn handle_session(&mut self) {
        self.cancel();
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
