//! Finding out that the session for data is of no use although it is open.
//!
//! A router may hold on to an end-to-end session that the other side cannot read, or have published a destination's
//! lease set where nobody finds it; it says nothing, and what is sent is lost for minutes. If members speak to this
//! node over the control session but none shakes hands, the session is opened again, under a new destination.

use std::time::Duration;

/// How long members may speak without shaking hands, the first time; each further time twice as long.
const FIRST_PATIENCE: Duration = Duration::from_secs(20);

/// How long at most.
const LAST_PATIENCE: Duration = Duration::from_secs(600);

/// What is seen of the sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    /// The session for data is open.
    pub(super) open: bool,
    /// A member has spoken over the control session lately.
    pub(super) heard: bool,
    /// There is a WireGuard session with a member.
    pub(super) connected: bool,
}

/// Decides when to open the session for data again.
#[derive(Debug)]
pub(super) struct Deafness {
    since: Option<Duration>,
    patience: Duration,
}

impl Deafness {
    pub(super) fn new() -> Self {
        Self { since: None, patience: FIRST_PATIENCE }
    }

    /// Takes in what is seen; true if the session is to be opened again.
    pub(super) fn observe(&mut self, signs: Signs, now: Duration) -> bool {
        if signs.connected {
            *self = Self::new();
        } else if !signs.open || !signs.heard {
            self.since = None;
        } else if now >= *self.since.get_or_insert(now) + self.patience {
            self.since = None;
            self.patience = (self.patience * 2).min(LAST_PATIENCE);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAF: Signs = Signs { open: true, heard: true, connected: false };

    /// The seconds at which the session is opened again.
    fn renewals(signs: impl Fn(u64) -> Signs) -> Vec<u64> {
        let mut deafness = Deafness::new();
        (0..2000).filter(|second| deafness.observe(signs(*second), Duration::from_secs(*second))).collect()
    }

    #[test]
    fn it_is_opened_again_ever_more_rarely() {
        assert_eq!(renewals(|_| DEAF), [20, 61, 142, 303, 624, 1225, 1826]);
    }

    #[test]
    fn one_connection_is_enough_to_leave_it() {
        assert_eq!(renewals(|second| Signs { connected: second > 10, ..DEAF }), []);
        assert_eq!(renewals(|_| Signs { open: false, ..DEAF }), []);
        assert_eq!(renewals(|_| Signs { heard: false, ..DEAF }), []);
    }

    #[test]
    fn patience_is_short_again_after_a_connection() {
        let renewed = renewals(|second| Signs { connected: second == 1300, ..DEAF });
        assert_eq!(renewed.iter().find(|second| **second > 1300), Some(&1321));
    }
}
