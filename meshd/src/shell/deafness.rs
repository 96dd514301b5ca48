//! Finding out that a session is of no use although it is open.
//!
//! A router may hold on to an end-to-end session that the other side cannot read, or have published a destination's
//! lease set where nobody finds it; it says nothing, and what is sent is lost for minutes. What helps is another
//! destination:
//!
//! - If members speak to this node over the control session but none shakes hands, the session for data is opened
//!   again, under a new destination.
//! - If no member answers over the control session, one under another destination takes its place for a while. So it
//!   goes where a node comes back to the destination under which its members' routers have just spoken to it.
//!
//! The same helps a node that is no member yet and whom an inviter does not answer; that is found out by the requests
//! that it sends (`core/joining.rs`).

use std::time::Duration;

/// How long at most.
const LAST_PATIENCE: Duration = Duration::from_secs(600);

/// What is seen of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    /// It is open, and there is reason to expect something from it.
    pub(super) expected: bool,
    /// It is of use.
    pub(super) works: bool,
}

/// Decides when something is to be done about a session.
#[derive(Debug)]
pub(super) struct Deafness {
    first_patience: Duration,
    patience: Duration,
    since: Option<Duration>,
}

impl Deafness {
    /// For a session that may be without use so long, the first time; each further time twice as long.
    pub(super) fn new(patience: Duration) -> Self {
        Self { first_patience: patience, patience, since: None }
    }

    /// Takes in what is seen; true if something is to be done.
    pub(super) fn observe(&mut self, signs: Signs, now: Duration) -> bool {
        if signs.works {
            *self = Self::new(self.first_patience);
        } else if !signs.expected {
            self.since = None;
        } else if now >= *self.since.get_or_insert(now) + self.patience {
            self.since = None;
            self.patience = (self.patience * 2).min(LAST_PATIENCE);
            return true;
        }
        false
    }

    /// When to look again at the latest.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.since.map(|since| since + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAF: Signs = Signs { expected: true, works: false };

    /// The seconds at which something is done.
    fn deeds(signs: impl Fn(u64) -> Signs) -> Vec<u64> {
        let mut deafness = Deafness::new(Duration::from_secs(20));
        (0..2000).filter(|second| deafness.observe(signs(*second), Duration::from_secs(*second))).collect()
    }

    #[test]
    fn it_is_done_ever_more_rarely() {
        assert_eq!(deeds(|_| DEAF), [20, 61, 142, 303, 624, 1225, 1826]);
    }

    #[test]
    fn what_works_is_left_alone() {
        assert!(deeds(|second| Signs { works: second > 10, ..DEAF }).is_empty());
        assert!(deeds(|_| Signs { expected: false, ..DEAF }).is_empty());
    }

    #[test]
    fn patience_is_short_again_after_it_worked() {
        let done = deeds(|second| Signs { works: second == 1300, ..DEAF });
        assert_eq!(done.iter().find(|second| **second > 1300), Some(&1321));
    }

    #[test]
    fn it_wakes_in_time() {
        let mut deafness = Deafness::new(Duration::from_secs(20));
        assert_eq!(deafness.wake_at(), None);
        assert!(!deafness.observe(DEAF, Duration::from_secs(5)));
        assert!(deafness.observe(DEAF, deafness.wake_at().unwrap()));
    }
}
