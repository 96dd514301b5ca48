//! When a node speaks of its own accord, and whether it has compared what it knows since its start.

use std::time::Duration;

use i2plan_proto::message::Position;
use rand::{Rng, RngExt as _};

use crate::core::compare::Outcome;

/// After a change of the own record it is announced so often, at growing distances.
const ANNOUNCEMENTS: u32 = 5;

/// Distance of the first two announcements; each further one is twice as long.
const FIRST_DISTANCE: Duration = Duration::from_secs(2);

/// A comparison that showed a difference is followed by another after this. Any of the five messages that it takes to
/// find one difference among a thousand members may be lost. While differences show and no news comes, each further
/// one waits twice as long.
const COMPARE_AGAIN: Duration = Duration::from_secs(3);

/// Comparisons in a heartbeat, if nothing differs. At 20 % loss a third of them finds what they should, and whom all rumors
/// have missed waits for two or three that do.
const COMPARISONS: f64 = 2.0;

/// Decides when the own record is announced, and when notes are compared.
#[derive(Debug)]
pub(crate) struct Announcer {
    heartbeat: Duration,
    next_comparison: Duration,
    /// How often it was compared again since there was news, or since the last comparison of a round.
    again: u32,
    /// The comparison of this round is due then.
    next_round: Duration,
    announcements_left: u32,
    next_announcement: Duration,
}

impl Announcer {
    pub(crate) fn new(heartbeat: Duration, now: Duration) -> Self {
        Self {
            heartbeat,
            next_comparison: now + heartbeat,
            again: 0,
            next_round: now + heartbeat,
            announcements_left: 0,
            next_announcement: now,
        }
    }

    pub(crate) fn set_heartbeat(&mut self, heartbeat: Duration, now: Duration) {
        self.heartbeat = heartbeat;
        self.next_round = self.next_round.min(now + heartbeat);
        self.next_comparison = self.next_comparison.min(self.next_round);
    }

    /// The own record has changed.
    pub(crate) fn news(&mut self, now: Duration) {
        self.announcements_left = ANNOUNCEMENTS;
        self.next_announcement = now;
    }

    pub(crate) fn poll_timeout(&self) -> Duration {
        if self.announcements_left > 0 {
            self.next_announcement.min(self.next_comparison)
        } else {
            self.next_comparison
        }
    }

    /// Whether an announcement is due; then it is taken to be made.
    pub(super) fn poll_announcement(&mut self, now: Duration) -> bool {
        let due = self.announcements_left > 0 && self.next_announcement <= now;
        if due {
            let done = ANNOUNCEMENTS - self.announcements_left;
            self.announcements_left -= 1;
            self.next_announcement = now + FIRST_DISTANCE * 2u32.pow(done);
        }
        due
    }

    /// Whether a comparison is due; then it is taken to be made.
    pub(super) fn poll_comparison(&mut self, now: Duration, rng: &mut impl Rng) -> bool {
        let due = self.next_comparison <= now;
        if due {
            if self.next_round <= now {
                self.again = 0;
                // A quarter up or down, so that members that started together do not speak together.
                self.next_round = now + self.heartbeat.mul_f64(rng.random_range(0.75..1.25) / COMPARISONS);
            }
            self.next_comparison = self.next_round;
        }
        due
    }

    /// A comparison showed a difference.
    pub(super) fn compare_again(&mut self, now: Duration) {
        let at = now + COMPARE_AGAIN * 2u32.pow(self.again.min(4));
        if at < self.next_comparison {
            self.next_comparison = at;
            self.again += 1;
        }
    }

    /// There was news: there may be more.
    pub(super) fn compare_soon(&mut self, now: Duration) {
        self.again = 0;
        self.compare_again(now);
    }
}

/// A node that has been started again has compared what it knows with another member this long after their first
/// exchange, also if that has shown differences, or too few have shown that there are none.
const CAUGHT_UP_AFTER: Duration = Duration::from_secs(10);

/// A node that no member answers for so long after its start goes on with what it knows.
const ALONE_AFTER: Duration = Duration::from_secs(120);

/// So many laps of lists a node that was behind goes on to catch up. In each some lists are lost, or come to members that
/// do not answer.
const LAPS: u8 = 2;

/// Whether this node has compared what it knows with other members since its start. Until then it may have forgotten
/// what it has signed: its state may have been restored from a backup.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Not yet. It has said that it is there at this time on the monotonic clock.
    Waiting(Option<Duration>),
    /// The first exchange was at this time on the monotonic clock.
    Begun(Duration, Agreeing),
    /// It has, or there is no other member.
    #[default]
    Done,
}

/// What comparisons with other members have shown.
#[derive(Debug, Default)]
pub(crate) struct Comparisons {
    pub(crate) since_start: Comparison,
    /// The member that this node last compared with knows many more.
    pub(crate) is_behind: bool,
    /// Most of the parts that were compared last differ, so sums tell little.
    pub(crate) is_dense: bool,
    /// Where the next list of members that this node sends begins; none for the first of a lap.
    pub(crate) next_list: Option<Position>,
    /// How many laps are left since others knew many more.
    pub(crate) laps: u8,
    /// Whether others lately knew other ends of memberships. Members that lie can have ever new ones, so these are compared
    /// less often then.
    pub(crate) endings_differ: bool,
}

impl Comparisons {
    /// Notes what a comparison has shown of how much differs, and of the ends of memberships.
    pub(super) fn note(&mut self, outcome: &Outcome) {
        self.is_behind = outcome.is_behind.unwrap_or(self.is_behind);
        self.is_dense = outcome.is_dense.unwrap_or(self.is_dense);
        self.endings_differ = outcome.endings_differ.unwrap_or(self.endings_differ);
        if self.is_behind {
            self.laps = LAPS;
        }
    }
}

/// The address blocks of members that have shown that they know no more. One alone could be lying.
type Agreeing = [Option<u32>; 2];

impl Comparison {
    /// Notes of a comparison with a member of this address block whether it has shown that nothing is missing here.
    /// There are members in so many blocks.
    pub(super) fn compared(&mut self, block: u32, shows_all: bool, blocks: usize, now: Duration) {
        let (begun, mut agreeing) = match *self {
            Self::Waiting(_) => (now, Agreeing::default()),
            Self::Begun(begun, agreeing) => (begun, agreeing),
            Self::Done => return,
        };
        if shows_all && !agreeing.contains(&Some(block)) {
            let count = agreeing.iter().flatten().count() + 1;
            if count >= blocks.min(agreeing.len() + 1) {
                *self = Self::Done;
                return;
            }
            if let Some(place) = agreeing.iter_mut().find(|place| place.is_none()) {
                *place = Some(block);
            }
        }
        *self = Self::Begun(begun, agreeing);
    }

    pub(crate) fn is_done(self, now: Duration) -> bool {
        match self {
            Self::Waiting(announced) => announced.is_some_and(|at| now >= at + ALONE_AFTER),
            Self::Begun(begun, _) => now >= begun + CAUGHT_UP_AFTER,
            Self::Done => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn announcements_come_at_growing_distances_and_end() {
        let mut announcer = Announcer::new(Duration::from_secs(1000), Duration::ZERO);
        announcer.news(Duration::ZERO);
        let mut times = Vec::new();
        loop {
            let at = announcer.poll_timeout();
            if !announcer.poll_announcement(at) {
                break;
            }
            times.push(at.as_secs());
        }
        assert_eq!(times, [0, 2, 6, 14, 30]);
    }

    #[test]
    fn news_in_a_comparison_brings_the_next_forward() {
        let mut announcer = Announcer::new(Duration::from_secs(1000), Duration::ZERO);
        let mut rng = StdRng::from_seed([1; 32]);
        let mut times = Vec::new();
        announcer.compare_soon(Duration::from_secs(10));
        // As long as each shows a difference again.
        while times.len() < 6 {
            let at = announcer.poll_timeout();
            assert!(announcer.poll_comparison(at, &mut rng));
            announcer.compare_again(at);
            times.push(at.as_secs());
        }
        assert_eq!(times, [13, 19, 31, 55, 103, 151]);
        // News sets that back; without differences there is one in each round.
        announcer.compare_soon(Duration::from_secs(160));
        assert!(announcer.poll_comparison(Duration::from_secs(163), &mut rng));
        assert_eq!(announcer.poll_timeout(), Duration::from_secs(1000));
    }
}
