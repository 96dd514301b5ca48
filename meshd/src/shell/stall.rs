//! Finding out that a session is of no use although it is open.
//!
//! A router may hold on to an end-to-end session that the other side cannot read, or have published a destination's
//! lease set where nobody finds it; it says nothing, and what is sent is lost for minutes. What helps is another
//! destination:
//!
//! - If members speak to this node over the control session but none shakes hands, the session for data is opened
//!   again, under a new destination.
//! - If no member answers over the control session, one under a fallback destination takes its place for a while. So it
//!   goes where a node comes back to the destination under which its members' routers have just spoken to it.
//!
//! The same helps a node that is no member yet and whom an inviter does not answer; that is found out by the requests
//! that it sends (`core/invites/joining.rs`).

use std::time::Duration;

/// How long at most.
const LAST_TIMEOUT: Duration = Duration::from_secs(600);

/// What is seen of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    /// It is open, and there is reason to expect something from it.
    pub(super) expected: bool,
    /// It is of use.
    pub(super) works: bool,
}

/// Decides when something is to be done about a session.
#[derive(Debug)]
pub(super) struct StallDetector {
    first_timeout: Duration,
    timeout: Duration,
    since: Option<Duration>,
}

impl StallDetector {
    /// For a session that may be without use so long, the first time; each further time twice as long.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { first_timeout: timeout, timeout, since: None }
    }

    /// Takes in what is seen; true if something is to be done.
    pub(super) fn handle_health(&mut self, health: Health, now: Duration) -> bool {
        if health.works {
            *self = Self::new(self.first_timeout);
        } else if !health.expected {
            self.since = None;
        } else if now >= *self.since.get_or_insert(now) + self.timeout {
            self.since = None;
            self.timeout = (self.timeout * 2).min(LAST_TIMEOUT);
            return true;
        }
        false
    }

    /// When to look again at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.since.map(|since| since + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALLED: Health = Health { expected: true, works: false };

    /// The seconds at which something is done.
    fn deeds(health: impl Fn(u64) -> Health) -> Vec<u64> {
        let mut detector = StallDetector::new(Duration::from_secs(20));
        (0..2000)
            .filter(|second| detector.handle_health(health(*second), Duration::from_secs(*second)))
            .collect()
    }

    #[test]
    fn it_is_done_ever_more_rarely() {
        assert_eq!(deeds(|_| STALLED), [20, 61, 142, 303, 624, 1225, 1826]);
    }

    #[test]
    fn what_works_is_left_alone() {
        assert!(deeds(|second| Health { works: second > 10, ..STALLED }).is_empty());
        assert!(deeds(|_| Health { expected: false, ..STALLED }).is_empty());
    }

    #[test]
    fn the_timeout_is_short_again_after_it_worked() {
        let done = deeds(|second| Health { works: second == 1300, ..STALLED });
        assert_eq!(done.iter().find(|second| **second > 1300), Some(&1321));
    }

    #[test]
    fn it_wakes_in_time() {
        let mut detector = StallDetector::new(Duration::from_secs(20));
        assert_eq!(detector.poll_timeout(), None);
        assert!(!detector.handle_health(STALLED, Duration::from_secs(5)));
        assert!(detector.handle_health(STALLED, detector.poll_timeout().unwrap()));
    }
}
