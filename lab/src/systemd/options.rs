//! What is asked of a run.

/// What a run does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Debian's release on the machines
    #[arg(long, default_value = "trixie")]
    pub(super) suite: String,
    /// Take the packages that are there
    #[arg(long)]
    pub(super) no_build: bool,
    /// Do these parts alone
    #[arg(long, value_enum)]
    pub(super) only: Vec<Part>,
    /// Of traffic and faults, do those alone whose name contains this
    #[arg(long)]
    pub(super) case: Vec<String>,
    /// Print the result for a program
    #[arg(long)]
    pub(super) json: bool,
}

impl Options {
    pub(super) fn does_case(&self, name: &str) -> bool {
        self.case.is_empty() || self.case.iter().any(|part| name.contains(part.as_str()))
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Part {
    /// Restarts, upgrades and a reboot under traffic
    Traffic,
    /// Faults, and what the units say about them
    Faults,
    /// Stopping, removing and purging
    Removal,
    /// A machine whose only I2P router is its own, from the installation to the purge
    Router,
    /// Two machines with Debian's i2pd, the package and two commands each, as README has it
    Debian,
    /// Members' names where systemd-resolved runs
    Names,
    /// The service of an interface with static peers, beside the node
    Static,
    /// The package for rpm, from the installation to the removal
    Rpm,
}
