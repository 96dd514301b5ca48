//! A node, and its clock.

use std::time::Duration;

use i2plan_keyd::policy::Signer;
use i2plan_meshd::core::state::State;
use i2plan_meshd::core::{Mesh, Now, Settings};
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::NodeId;

/// When the simulation begins, Unix time.
pub(super) const EPOCH: Duration = Duration::from_secs(1_800_000_000);

pub(super) struct Node {
    pub(super) mesh: Mesh,
    pub(super) id: NodeId,
    pub(super) signer: Signer,
    pub(super) control: Destination,
    pub(super) data: Destination,
    /// What it has saved last, if it will ever be restarted.
    pub(super) disk: Option<State>,
    pub(super) wake: Duration,
    pub(super) up: bool,
    /// Grows with every restart: what is answered later is not for the new one.
    pub(super) run: u32,
    pub(super) started: Duration,
    pub(super) sent: u64,
    pub(super) settings: Settings,
}

impl Node {
    pub(super) fn clock(&self, now: Duration) -> Now {
        Now { monotonic: now - self.started, unix: EPOCH + now }
    }
}
