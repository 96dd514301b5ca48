//! What is done to the nodes, and when: it follows from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

/// The daemons that are restarted and killed.
pub const DAEMONS: [&str; 5] = ["keyd", "connector", "meshd", "tund", "rpcd"];

/// Seconds of quiet before a fault. The shortest exceeds [`AFTERMATH`](super::outage::AFTERMATH), so that an outage
/// has one fault to be attributed to.
const QUIET_SECONDS: std::ops::Range<u64> = 35..50;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A daemon gets SIGTERM, and its supervisor starts it again.
    Restart(&'static str),
    /// A daemon gets SIGKILL.
    Kill(&'static str),
    /// A node's router gets SIGTERM, and is started again.
    RouterRestart,
    /// A node's router gets SIGKILL, and is started again.
    RouterKill,
    /// A node's router is stopped with SIGSTOP for a while.
    RouterHang,
    /// All of a node's processes are stopped with SIGSTOP for a while, its router among them.
    Sleep,
    /// What the router forwards to the node's sessions is dropped for a while.
    Deaf,
    /// A node's daemons are stopped and started.
    NodeRestart,
    /// The daemons of all nodes are stopped, then started.
    AllRestart,
    /// A further member joins.
    Join,
    /// A further member leaves.
    Leave,
    /// The laboratory itself got no processor time: not injected.
    Stall,
}

impl Cause {
    /// Whether the supervisor restarts this daemon because of it.
    #[must_use]
    pub fn ends(self, daemon: &str) -> bool {
        // A node that leaves its network gives up its interface, with which tund ends.
        matches!(self, Self::Restart(name) | Self::Kill(name) if name == daemon)
            || self == Self::Leave && daemon == "tund"
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Restart(daemon) => return write!(f, "{daemon}: restart"),
            Self::Kill(daemon) => return write!(f, "{daemon}: kill -9"),
            Self::RouterRestart => "router: restart",
            Self::RouterKill => "router: kill -9",
            Self::RouterHang => "router: hangs",
            Self::Sleep => "node: sleeps",
            Self::Deaf => "sessions: deaf",
            Self::NodeRestart => "node: stop, start",
            Self::AllRestart => "all nodes: stop, start",
            Self::Join => "member joins",
            Self::Leave => "member leaves",
            Self::Stall => "laboratory stalled",
        };
        f.write_str(name)
    }
}

impl Serialize for Cause {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A fault to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedFault {
    /// Quiet before it.
    pub quiet: Duration,
    /// What it is.
    pub cause: Cause,
    /// The node that it is done to, or, where it is a further member's, the node that invites.
    pub node: usize,
    /// How long it lasts; zero for what is over at once.
    pub lasts: Duration,
}

/// The faults of a run, without end: rounds of all kinds, each round in another order.
#[derive(Debug)]
pub struct Schedule {
    random: StdRng,
    nodes: usize,
    /// Kinds that can be injected on this machine.
    kinds: Vec<Cause>,
    /// What is left of this round.
    round: Vec<Cause>,
    /// Whether the further member is one.
    joined: bool,
}

impl Schedule {
    /// The faults that follow from this seed, on so many nodes; `deaf` if sessions can be made so here.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, deaf: bool) -> Self {
        let daemons = DAEMONS.into_iter().flat_map(|daemon| [Cause::Restart(daemon), Cause::Kill(daemon)]);
        let others = [
            Cause::RouterRestart,
            Cause::RouterKill,
            Cause::RouterHang,
            Cause::Sleep,
            Cause::NodeRestart,
            Cause::AllRestart,
            Cause::Join,
            Cause::Leave,
        ];
        let kinds = daemons.chain(others).chain(deaf.then_some(Cause::Deaf)).collect();
        Self { random: StdRng::seed_from_u64(seed), nodes, kinds, round: Vec::new(), joined: false }
    }
}

impl Iterator for Schedule {
    type Item = PlannedFault;

    fn next(&mut self) -> Option<PlannedFault> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.round.shuffle(&mut self.random);
        }
        let mut cause = self.round.pop()?;
        if matches!(cause, Cause::Join | Cause::Leave) {
            cause = if self.joined { Cause::Leave } else { Cause::Join };
            self.joined = !self.joined;
        }
        let seconds = match cause {
            Cause::RouterHang => self.random.random_range(5..60),
            Cause::Sleep => self.random.random_range(60..240),
            Cause::Deaf => self.random.random_range(20..150),
            _ => 0,
        };
        Some(PlannedFault {
            quiet: Duration::from_secs(self.random.random_range(QUIET_SECONDS)),
            cause,
            node: self.random.random_range(0..self.nodes),
            lasts: Duration::from_secs(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::outage::AFTERMATH;
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_another_seed_another() {
        let some = |seed| Schedule::new(seed, 4, true).take(100).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
    }

    #[test]
    fn a_round_has_every_kind_and_members_join_before_they_leave() {
        let round: Vec<_> = Schedule::new(3, 4, true).take(19).collect();
        let kinds: BTreeSet<_> = round.iter().map(|fault| fault.cause).collect();
        assert_eq!(kinds.len(), 19);
        let place = |cause| round.iter().position(|fault| fault.cause == cause);
        assert!(place(Cause::Join) < place(Cause::Leave));
        assert!(round.iter().all(|fault| fault.node < 4 && fault.quiet > AFTERMATH));
        assert!(Schedule::new(3, 4, false).take(100).all(|fault| fault.cause != Cause::Deaf));
    }
}
