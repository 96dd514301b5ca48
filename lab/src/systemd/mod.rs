//! The packages on real systems: Debian under systemd, on the private I2P network.
//!
//! * [`host`]: what a run needs of the machine that it runs on.
//! * [`machine`]: one system in a container.
//! * [`traffic`]: what a restart, an upgrade or a reboot does to pings and a transfer.
//! * [`faults`]: what is in the way of a daemon, what its unit says about it, and whether it comes back by itself.
//! * [`router`]: a machine whose only I2P router is its own.
//! * [`lifetime`]: from the installation to the purge.

use std::path::Path;

use serde::Serialize;

use crate::Failure;
use crate::i2p::PrivateNetwork;
use crate::netns::Network;
use crate::process::Child;
use crate::progress::Progress;
use crate::sandbox::DIRECTORY;

pub mod faults;
pub mod host;
pub mod lifetime;
pub mod machine;
pub mod router;
pub mod traffic;

use machine::Machine;

/// Addresses for the routers that carry tunnels.
const INTERNET_ADDRESSES: u8 = 8;

/// The daemons.
const DAEMONS: [&str; 4] = ["keyd", "connector", "meshd", "tund"];

/// What a run does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Debian's release on the machines
    #[arg(long, default_value = "trixie")]
    suite: String,
    /// Take the packages that are there
    #[arg(long)]
    no_build: bool,
    /// Do these parts alone
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Of traffic and faults, do those alone whose name contains this
    #[arg(long)]
    case: Vec<String>,
    /// Print the result for a program
    #[arg(long)]
    json: bool,
}

impl Options {
    fn does_case(&self, name: &str) -> bool {
        self.case.is_empty() || self.case.iter().any(|part| name.contains(part.as_str()))
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Restarts, upgrades and a reboot under traffic
    Traffic,
    /// Faults, and what the units say about them
    Faults,
    /// Stopping, removing and purging
    Removal,
    /// A machine whose only I2P router is its own, from the installation to the purge
    Router,
    /// The package for rpm, from the installation to the removal
    Rpm,
}

/// Something that was to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    name: String,
    /// Whether it did.
    holds: bool,
    /// What was seen.
    seen: String,
}

impl Check {
    /// A check with what was seen.
    fn new(name: impl Into<String>, holds: bool, seen: impl Into<String>) -> Self {
        Self { name: name.into(), holds, seen: seen.into() }
    }
}

/// What a run showed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    checks: Vec<Check>,
    traffic: Vec<traffic::Row>,
}

/// The machines and the network under them.
#[derive(Debug)]
pub struct Systems {
    network: Network,
    i2p: PrivateNetwork,
    routers: [Child; 2],
    /// The machine that things happen to.
    one: Machine,
    /// The other.
    two: Machine,
}

impl Systems {
    async fn boot(suite: &str) -> Result<Self, Failure> {
        let network = Network::create(INTERNET_ADDRESSES).await?;
        let i2p = PrivateNetwork::start(Path::new(DIRECTORY), &network).await?;
        let addresses = [network.add_node("one", 1).await?, network.add_node("two", 2).await?];
        let routers =
            [i2p.start_edge("one", addresses[0]).await?, i2p.start_edge("two", addresses[1]).await?];
        let (one, two) = tokio::try_join!(
            Machine::boot("one", addresses[0], suite),
            Machine::boot("two", addresses[1], suite)
        )?;
        Ok(Self { network, i2p, routers, one, two })
    }
}

/// Does it, in the sandbox.
///
/// # Errors
/// If something cannot be done, or does not hold. What was seen until then is printed.
pub async fn run(options: Options) -> Result<(), Failure> {
    let progress = Progress::new();
    let mut report = Report::default();
    let outcome = fill(&mut report, &options, &progress).await;
    progress.done();
    let all_hold = print(&report, options.json);
    outcome.and(all_hold)
}

async fn fill(report: &mut Report, options: &Options, progress: &Progress) -> Result<(), Failure> {
    let does = |part| options.only.is_empty() || options.only.contains(&part);
    progress.step(format!("starting an I2P network and two machines with Debian {}", options.suite));
    let mut systems = Systems::boot(&options.suite).await?;
    let before = lifetime::files(&systems.one).await?;
    report.checks.extend(lifetime::packages()?);
    if does(Part::Rpm) {
        progress.step("the package for rpm, on a third machine");
        let address = systems.network.add_node("three", 3).await?;
        let mut machine = Machine::boot("three", address, &options.suite).await?;
        match lifetime::rpm(&machine).await {
            Ok(checks) => report.checks.extend(checks),
            Err(failure) => report.checks.push(Check::new("the package for rpm", false, failure.to_string())),
        }
        machine.off().await?;
    }
    progress.step("installing the package");
    report.checks.extend(lifetime::install(&systems.one).await?);
    report.checks.extend(lifetime::install(&systems.two).await?);
    progress.step("joining by invite");
    report.checks.extend(lifetime::join(&systems).await?);
    if does(Part::Removal) {
        progress.step("reloading, stopping, and starting again");
        report.checks.extend(lifetime::reload(&systems.one).await?);
        report.checks.extend(lifetime::stop(&systems).await?);
    }
    if does(Part::Router)
        && let Err(failure) = router::run(&systems, options, progress, report).await
    {
        report.checks.push(Check::new("a router of its own", false, failure.to_string()));
    }
    if does(Part::Traffic) {
        traffic::run(&mut systems, options, progress, report).await?;
    }
    if does(Part::Faults) {
        faults::run(&mut systems, options, progress, &mut report.checks).await?;
    }
    if does(Part::Removal) {
        progress.step("removing and purging");
        report.checks.extend(lifetime::remove(&systems.one, &before).await?);
    }
    Ok(())
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(report).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        traffic::print(&report.traffic);
        for Check { name, holds, seen } in &report.checks {
            println!("{}  {name}: {seen}", if *holds { "ok  " } else { "FAIL" });
        }
    }
    let failed = report.checks.iter().filter(|check| !check.holds).count()
        + report.traffic.iter().filter(|row| !row.holds()).count();
    if failed == 0 { Ok(()) } else { Err(Failure::new(format!("{failed} of these do not hold"))) }
}
