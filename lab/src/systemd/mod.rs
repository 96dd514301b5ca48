//! The packages on real systems: Debian under systemd, on the private I2P network.
//!
//! * [`host`]: what a run needs of the machine that it runs on.
//! * [`machine`]: one system in a container; `systems`: those of a run.
//! * `options`: what is asked of a run; `report`: what it shows.
//! * [`traffic`]: what a restart, an upgrade or a reboot does to pings and a transfer.
//! * [`faults`]: what is in the way of a daemon, what its unit says about it, and whether it comes back by itself.
//! * [`router`]: a machine whose only I2P router is its own.
//! * [`debian_router`]: two machines as README has it, with Debian's i2pd.
//! * [`names`]: members' names where systemd-resolved runs.
//! * [`static_peers`]: the service of an interface without a mesh.
//! * [`lifetime`]: from the installation to the purge.

use crate::Failure;
use crate::progress::Progress;

pub mod debian_router;
pub mod faults;
pub mod host;
pub mod lifetime;
pub mod machine;
pub mod names;
mod options;
mod report;
pub mod router;
pub mod static_peers;
mod systems;
pub mod traffic;

use machine::Machine;
pub use options::Options;
use options::Part;
pub use report::{Check, SystemdReport};
pub use systems::Systems;

/// Does it, in the sandbox.
///
/// # Errors
/// If something cannot be done, or does not hold. What was seen until then is printed.
pub async fn run(options: Options) -> Result<(), Failure> {
    let progress = Progress::new();
    let mut report = SystemdReport::default();
    let outcome = fill(&mut report, &options, &progress).await;
    progress.done();
    let all_hold = report::print(&report, options.json);
    outcome.and(all_hold)
}

async fn fill(report: &mut SystemdReport, options: &Options, progress: &Progress) -> Result<(), Failure> {
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
    if does(Part::Names) {
        match names::run(&systems, progress).await {
            Ok(checks) => report.checks.extend(checks),
            Err(failure) => report.checks.push(Check::new("names", false, failure.to_string())),
        }
    }
    if does(Part::Static) {
        match static_peers::run(&mut systems, progress).await {
            Ok(checks) => report.checks.extend(checks),
            Err(failure) => report.checks.push(Check::new("static peers", false, failure.to_string())),
        }
    }
    if does(Part::Removal) {
        progress.step("removing and purging");
        report.checks.extend(lifetime::remove(&systems.one, &before).await?);
    }
    if does(Part::Debian) {
        match debian_router::run(systems, options, progress).await {
            Ok(checks) => report.checks.extend(checks),
            Err(failure) => report.checks.push(Check::new("Debian's i2pd", false, failure.to_string())),
        }
    }
    Ok(())
}
