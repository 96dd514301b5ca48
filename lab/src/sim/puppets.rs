//! What members have made up that lie, and what they make it from.

use std::collections::HashSet;

use i2plan_keyd::keys::Keys;
use i2plan_meshd::core::state::Ending;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::Signed;
use i2plan_proto::membership::{Chain, Charter};

/// An identity that a liar has made up, with destinations of its own.
#[derive(Debug, Clone)]
pub(super) struct Puppet {
    pub(super) owner: usize,
    pub(super) keys: Keys,
    pub(super) chain: Chain,
    pub(super) sequence: u64,
}

/// What liars make up, and what they have to make it from.
#[derive(Debug, Default)]
pub(super) struct Liars {
    /// Where liars did something last.
    pub(super) tick: usize,
    pub(super) puppets: Vec<Puppet>,
    /// Liars that have signed that they leave, and go on.
    pub(super) resigned: HashSet<usize>,
    /// Invites, and whose they are. Liars know those that have been used.
    pub(super) codes: Vec<(usize, String)>,
    /// Members that have been given addresses of others, with those.
    pub(super) rivals: Vec<(usize, usize)>,
    /// A network that the founder founded and left before.
    pub(super) former: Option<Former>,
    /// Where nobody belongs to the network.
    pub(super) bystanders: Vec<Destination>,
}

/// What is left of a former network of the same founder.
#[derive(Debug, Clone)]
pub(super) struct Former {
    pub(super) charter: Signed<Charter>,
    pub(super) chains: Vec<(usize, Chain)>,
    pub(super) endings: Vec<Ending>,
}
