//! A machine as README has it: Debian's i2pd, the package, and two commands.

use std::time::{Duration, Instant};

use super::lifetime;
use super::machine::Machine;
use super::options::Options;
use super::report::Check;
use super::systems::Systems;
use crate::Failure;
use crate::i2p::PORT;
use crate::i2p::router::NETWORK;
use crate::progress::Progress;

/// The machine, and its place in the "Internet".
const NAME: &str = "debian";
const NUMBER: u8 = 5;

/// How long a fresh i2pd may take to have tunnels.
const READY: Duration = Duration::from_secs(300);

/// Runs it.
///
/// # Errors
/// If the machine does not get so far.
pub async fn run(systems: &Systems, options: &Options, progress: &Progress) -> Result<Vec<Check>, Failure> {
    progress.step("Debian's i2pd, the package and two commands");
    let address = systems.network.add_node(NAME, NUMBER).await?;
    let mut machine = Machine::boot(NAME, address, &options.suite).await?;
    // That this is a network of its own is all that its i2pd is told: on its command line, so that the configuration is
    // Debian's.
    let network = format!(
        "--netid={NETWORK} --nat=false --host={address} --address4={address} --port={PORT} --ipv6=false \
         --reservedrange=false --notransit --ntcp2.port={PORT} --ssu2.enabled=false --ssu2.published=false \
         --reseed.threshold=0"
    );
    machine.write("/etc/systemd/system/i2pd.service.d/network.conf", "").await?;
    machine.apt("install i2pd").await?;
    machine
        .shell(&format!(
            "start=$(systemctl cat i2pd | sed -n 's/^ExecStart=//p' | head -n 1); \
             printf '[Service]\\nExecStart=\\nExecStart=%s {network}\\n' \"$start\" \
                 > /etc/systemd/system/i2pd.service.d/network.conf; \
             systemctl daemon-reload; systemctl stop i2pd; rm -rf /var/lib/i2pd/netDb /var/lib/i2pd/router.*"
        ))
        .await?;
    systems.i2p.fill_i2pd(&machine.path("/var/lib/i2pd"))?;
    machine.shell("chown -R i2pd: /var/lib/i2pd/netDb; systemctl start i2pd").await?;

    let started = Instant::now();
    machine.apt(&lifetime::first_package()).await?;
    let installed = started.elapsed();
    machine.shell("i2planctl status").await?;
    machine
        .until("its SAM sessions are open", READY, async |machine| {
            Ok(machine.status().await?.sessions_are_open())
        })
        .await?;
    let ready = started.elapsed();
    let joining = Instant::now();
    lifetime::join_by(&machine, &systems.one).await?;
    let detail = format!(
        "installed after {:.1} s, sessions open after {:.1} s, a ping came back {:.1} s after `join`",
        installed.as_secs_f64(),
        ready.as_secs_f64(),
        joining.elapsed().as_secs_f64()
    );
    let mut checks = vec![Check::new(
        "Debian's i2pd, the package and two commands make a member that talks",
        true,
        detail,
    )];
    let report = machine.run(&["i2planctl", "doctor"], "").await?.stdout;
    let problem = report.lines().find(|line| line.contains("PROBLEM"));
    checks.push(Check::new(
        "Debian's i2pd: doctor sees no problem",
        problem.is_none(),
        problem.unwrap_or("none").trim(),
    ));
    machine.off().await?;
    Ok(checks)
}
