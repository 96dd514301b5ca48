//! A machine whose only I2P router is its own, `i2plan-routerd`.

use std::time::Duration;

use super::faults::{Fault, one as fault};
use super::machine::Machine;
use super::options::Options;
use super::report::{Check, SystemdReport};
use super::systems::Systems;
use super::{lifetime, traffic};
use crate::Failure;
use crate::i2p::router::NETWORK;
use crate::progress::Progress;

/// The machine, and its place in the "Internet".
const NAME: &str = "own";
const NUMBER: u8 = 4;

/// Its unit.
const UNIT: &str = "i2plan-routerd.service";

/// Where the seed is put first.
const SEED: &str = "/root/seed";

/// How long the router may take to come back once nothing is in the way: the longest wait between two starts,
/// and some.
const BACK: Duration = Duration::from_secs(90);

/// How soon the node says that its router is gone.
const NOTICED: Duration = Duration::from_secs(60);

const BAD_SEED: Fault<'static> = Fault {
    name: "a seed without a router",
    unit: UNIT,
    cause: "mkdir /etc/i2plan/seed; echo 'not a router' > /etc/i2plan/seed/routerInfo.dat; \
            systemctl enable i2plan-routerd; systemctl start --no-block i2plan-routerd",
    says: &["no router of this network in the seed /etc/i2plan/seed (router.seed)", "1 files were looked at"],
    cure: "rm -r /etc/i2plan/seed; mv /root/seed /etc/i2plan/",
};

const FULL_DISK: Fault<'static> = Fault {
    name: "a full disk under the router",
    unit: UNIT,
    cause: "systemctl stop i2plan-routerd; cd /var/lib/i2plan; mv routerd /root/; mkdir routerd; \
            mount -t tmpfs -o size=64k,mode=700 tmpfs routerd; cp -a /root/routerd/. routerd/; \
            chown i2plan-routerd: routerd; dd if=/dev/zero of=routerd/full bs=4k 2>/dev/null || true; systemctl start i2plan-routerd",
    says: &["/var/lib/i2plan/routerd/netdb: No space left", "SAM at 127.0.0.1:7656; "],
    cure: "rm /var/lib/i2plan/routerd/full",
};

/// From the installation on a machine without a router to the purge.
///
/// # Errors
/// If the machine does not get so far.
pub async fn run(
    systems: &Systems,
    options: &Options,
    progress: &Progress,
    report: &mut SystemdReport,
) -> Result<(), Failure> {
    progress.step("a router of its own, on a machine without one");
    let address = systems.network.add_node(NAME, NUMBER).await?;
    let mut machine = Machine::boot(NAME, address, &options.suite).await?;
    let before = lifetime::files(&machine).await?;
    report.checks.extend(switch_on(systems, &machine).await?);
    let other = systems.one.network().await?.ipv4;
    for row in traffic::of_router(&machine, other).await? {
        report.traffic.push(row);
    }
    progress.step("the router is stopped, and its disk is full");
    report.checks.extend(fault(&machine, &FULL_DISK).await?);
    report.checks.push(saves_again(&machine).await?);
    report.checks.extend(stop(&machine, other).await?);
    report.checks.extend(lifetime::remove(&machine, &before).await?);
    machine.off().await
}

/// Installs the package, switches the router on, at first with a seed that is of no use, and joins.
async fn switch_on(systems: &Systems, machine: &Machine) -> Result<Vec<Check>, Failure> {
    machine.apt(&lifetime::first_package()).await?;
    let off = machine
        .shell(&format!("systemctl is-enabled {UNIT} || true; systemctl is-active {UNIT} || true"))
        .await?;
    let mut checks =
        vec![Check::new("routerd is off by default", off == "disabled\ninactive", off.replace('\n', ", "))];
    systems.i2p.copy_seed(&machine.path(SEED))?;
    machine
        .shell(&format!(
            "printf 'I2PLAN_LAB_ROUTER_NETWORK={NETWORK}\\n' >> /etc/i2plan/environment; \
             printf '[router]\\nseed = \"/etc/i2plan/seed\"\\ntransit = false\\n' > /etc/i2plan/config.toml"
        ))
        .await?;
    checks.extend(fault(machine, &BAD_SEED).await?);
    let up = machine.until("the router is up", BACK, async |machine| is_up(machine).await).await;
    checks.push(Check::new(
        format!("{}: the router comes up by itself", BAD_SEED.name),
        up.is_ok(),
        machine.property(UNIT, "StatusText").await?,
    ));
    up?;
    machine.status().await?;
    machine.ready().await?;
    lifetime::join_by(machine, &systems.one).await?;
    let report = machine.run(&["i2planctl", "doctor"], "").await?.stdout;
    let found = report.lines().find(|line| line.contains("of i2plan-routerd (pid "));
    let problem = report.lines().find(|line| line.contains("PROBLEM"));
    checks.push(Check::new(
        "a machine whose only router is its own joins and talks, and doctor sees no problem",
        found.is_some() && problem.is_none(),
        problem.or(found).unwrap_or(&report).trim(),
    ));
    Ok(checks)
}

async fn is_up(machine: &Machine) -> Result<bool, Failure> {
    Ok(machine.property(UNIT, "ActiveState").await? == "active")
}

/// Whether the unit's status has nothing to complain about once there is room.
async fn saves_again(machine: &Machine) -> Result<Check, Failure> {
    let saved = machine
        .until("what the router knows is saved", NOTICED, async |machine| {
            Ok(machine.property(UNIT, "StatusText").await?.starts_with("SAM at"))
        })
        .await;
    let status = machine.property(UNIT, "StatusText").await?;
    machine
        .shell(
            "systemctl stop i2plan-routerd; cd /var/lib/i2plan; cp -a routerd/. /root/routerd/; umount routerd; \
             rmdir routerd; mv /root/routerd .; systemctl start i2plan-routerd",
        )
        .await?;
    Ok(Check::new(format!("{}: saved once there is room", FULL_DISK.name), saved.is_ok(), status))
}

/// Stops the router alone, then everything, and starts both again.
async fn stop(machine: &Machine, other: std::net::Ipv4Addr) -> Result<Vec<Check>, Failure> {
    let meshd = "i2plan-meshd.service";
    machine.shell("systemctl stop i2plan-routerd").await?;
    let said = machine
        .until("meshd says that there is no router", NOTICED, async |machine| {
            Ok(machine.property(meshd, "StatusText").await?.contains("no SAM bridge at 127.0.0.1:7656"))
        })
        .await;
    let mut checks = vec![Check::new(
        "stopping the router stops nothing else, and the node says what it lacks",
        said.is_ok() && machine.property(meshd, "ActiveState").await? == "active",
        machine.property(meshd, "StatusText").await?,
    )];
    machine.shell("systemctl start i2plan-routerd").await?;
    traffic::reach(machine, other).await?;
    machine.shell("systemctl stop i2plan.target").await?;
    checks.push(lifetime::all_end(machine, "own: stopping the target stops the router too").await?);
    machine.shell("systemctl start i2plan.target").await?;
    traffic::reach(machine, other).await?;
    checks.push(Check::new(
        "starting the target starts the router too, and the node is back",
        is_up(machine).await?,
        "a ping came back",
    ));
    Ok(checks)
}
