//! The steps of a scenario.

use std::time::Duration;

/// Something that happens.
#[derive(Debug, Clone)]
pub(super) enum ScenarioStep {
    /// So many join at once, by invites of members.
    Join(usize),
    /// Somebody tries an invite that has been used up.
    Rival {
        code: String,
    },
    /// One takes WireGuard packets elsewhere from now on.
    Move,
    /// One changes its name.
    Rename,
    Leave,
    Revoke,
    /// A third of the nodes restart at random within this time.
    Restarts(Duration),
    Stop(usize),
    Start(usize),
    Cut,
    Heal,
    /// Routers fail now and then, so that about one in twenty is down at any time.
    Outages,
    RouterFails(usize),
    RouterRecovers(usize),
    FounderGoes,
    /// Some begin to lie.
    Turn,
    Lie,
    /// One that lies is revoked.
    Expel,
}
