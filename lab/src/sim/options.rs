//! What is to be simulated.

use std::time::Duration;

use serde::Serialize;

/// How long nothing happens after that.
pub(super) const QUIET: Duration = Duration::from_secs(120);

/// How often it is looked who knows what.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Interval of a gossip round: the configuration's default heartbeat.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// One joins, one has another address, one leaves, one is revoked
    Calm,
    /// The same while a third of the nodes are killed and restarted
    Restarts,
    /// The same while one router in twenty is down at any time
    Outages,
    /// Half are cut off for ten minutes
    Partition,
    /// A fifth more join at once
    Joins,
    /// The same as calm while members forge, replay, flood and lie; what must hold for the others is checked
    Malicious,
    /// One joins while members lie, and nothing else happens
    Newcomer,
    /// A quarter have addresses that were given to another before, by inviters restored from backups
    Collisions,
    /// The same as calm after the founder has gone for good
    FounderGone,
}

/// What is to be simulated.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Options {
    /// Members at the beginning.
    pub nodes: usize,
    /// Everything follows from it.
    pub seed: u64,
    /// How likely a datagram is lost.
    pub loss: f64,
    /// What happens.
    pub scenario: Scenario,
    /// How many minutes each thing that happens is given.
    pub pause: u32,
    /// How many lie where members do; none for twenty, or a fifth of all if that is less.
    pub liars: Option<usize>,
}
