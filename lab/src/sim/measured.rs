//! What is measured, while it is and at the end.

use std::collections::HashMap;
use std::time::Duration;

use i2plan_meshd::core::Now;
use i2plan_proto::identity::NodeId;
use serde::Serialize;

use super::node::Node;

/// Whether a node knows it; with the node's number.
type Known = Box<dyn FnMut(usize, &Node, Now) -> bool>;

/// What is waited for.
pub(super) struct News {
    pub(super) what: &'static str,
    pub(super) since: Duration,
    pub(super) known: Known,
    /// Who should know it and does not yet.
    pub(super) waiting: Vec<usize>,
    pub(super) times: Vec<f64>,
}

/// How some news spread.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NewsReport {
    pub(super) what: &'static str,
    /// Who should know it, and still can; without those whose router came back in the last two rounds.
    pub(super) audience: usize,
    /// Seconds until 50, 99 and 100 % of those did; none if they never did.
    pub(super) half: Option<f64>,
    pub(super) most: Option<f64>,
    pub(super) all: Option<f64>,
    /// The last two in rounds of gossip.
    pub(super) most_rounds: Option<f64>,
    pub(super) all_rounds: Option<f64>,
}

/// One node holds another to be out of reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) node: NodeId,
    /// Since when the other could be reached nevertheless, if it can.
    pub(super) wrong_since: Option<Duration>,
    /// It could be reached when this began.
    pub(super) from_the_start: bool,
}

/// Verdicts on nodes that could be reached.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Verdicts {
    /// Nodes that could be reached all the time and were held to be out of reach by one other.
    pub(super) wrong: u64,
    /// For how long at most, seconds.
    pub(super) longest_wrong: f64,
    /// Nodes that could be reached again and were still held to be out of reach, by one other.
    pub(super) outdated: u64,
    /// For how long after their return at most, seconds.
    pub(super) longest_outdated: f64,
}

/// What is being measured.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) news: Vec<News>,
    pub(super) held: HashMap<usize, Vec<Held>>,
    pub(super) verdicts: Verdicts,
    pub(super) next_verdicts: Duration,
    /// When nodes whose router was down could hear again.
    pub(super) back: HashMap<usize, Duration>,
    /// Whom the last signature concerns beside its signer.
    pub(super) signed: Option<Vec<NodeId>>,
}
