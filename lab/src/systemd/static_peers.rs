//! An interface with static peers beside the node: the service of the package, set up as docs/static.md says.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::machine::Machine;
use super::report::Check;
use super::systems::Systems;
use crate::Failure;
use crate::progress::Progress;
use crate::stats::Pings;

const UNIT: &str = "i2plan-static@wg0.service";

/// How long the interface may take to be there with its session.
const UP: Duration = Duration::from_secs(180);

/// How long packets may take to pass after a start. An endpoint that stays the same has its price: the router of the other
/// end may go on for minutes with what it had agreed on with the session before (emissary 0.4).
const PASSES: Duration = Duration::from_secs(600);

/// Runs it.
///
/// # Errors
/// If the interface cannot be set up.
pub async fn run(systems: &mut Systems, progress: &Progress) -> Result<Vec<Check>, Failure> {
    progress.step("static peers: two machines by the documentation");
    let Systems { one, two, .. } = systems;
    let (first, second) = (make_key(one).await?, make_key(two).await?);
    configure(one, "10.9.0.1", "10.9.0.2", &second, "").await?;
    let endpoint = start(one).await?;
    configure(two, "10.9.0.2", "10.9.0.1", &first, &format!("Endpoint = {endpoint}")).await?;
    let permanent = start(two).await?;
    let mut checks = vec![passes(two, "the service of static peers makes a tunnel beside the node's").await?];

    progress.step("static peers: a restart of the service");
    two.shell(&format!("systemctl restart {UNIT}")).await?;
    let same = session(two).await? == permanent;
    let restarted =
        passes(two, "a restart of the service keeps the endpoint, and packets pass again").await?;
    checks.push(Check { holds: restarted.holds && same, ..restarted });

    progress.step("static peers: a reboot");
    two.reboot().await?;
    let same = session(two).await? == permanent;
    let rebooted = passes(two, "after a reboot the service is there by itself, with its endpoint").await?;
    checks.push(Check { holds: rebooted.holds && same, ..rebooted });

    two.shell(&format!("systemctl disable --now {UNIT}")).await?;
    let left = two
        .shell(
            "ls -d /sys/class/net/wg0 2>/dev/null || true; ip route show dev wg0 2>/dev/null || true; \
             pgrep -af '[i]2plan-static' || true",
        )
        .await?;
    checks.push(Check::new("stopping the service takes the interface away", left.is_empty(), left));
    // The other's is left to the removal of the package.
    Ok(checks)
}

/// Makes a private key where the documentation has it, and returns the public one.
async fn make_key(machine: &Machine) -> Result<String, Failure> {
    machine
        .shell(
            "mkdir -p -m 700 /etc/i2plan/static; umask 077; i2planctl wg genkey > /root/private.key; \
             i2planctl wg pubkey < /root/private.key",
        )
        .await
}

async fn configure(machine: &Machine, own: &str, peer: &str, key: &str, more: &str) -> Result<(), Failure> {
    let private = machine.shell("cat /root/private.key").await?;
    let text = format!(
        "[Interface]\nPrivateKey = {private}\nAddress = {own}/24\n\n\
         [Peer]\nPublicKey = {key}\nAllowedIPs = {peer}/32\n{more}\n"
    );
    machine.write("/etc/i2plan/static/wg0.conf", &text).await?;
    machine
        .shell(
            "rm /root/private.key; chmod 600 /etc/i2plan/static/wg0.conf; \
             i2planctl config check /etc/i2plan/static/wg0.conf",
        )
        .await
        .map(drop)
}

/// Starts the service, now and at each boot. Returns the endpoint.
async fn start(machine: &Machine) -> Result<String, Failure> {
    machine.shell(&format!("systemctl enable --now {UNIT}")).await?;
    session(machine).await
}

/// Waits until the session is open, and returns the endpoint.
async fn session(machine: &Machine) -> Result<String, Failure> {
    machine
        .until("the session of the static interface is open", UP, async |machine| {
            let status: Value = machine.ctl(&["--static", "wg0", "status"], "").await?;
            Ok(status["tunnel"]["interface"] == "wg0" && status["sam"]["data"]["state"] == "up")
        })
        .await?;
    machine.shell("i2planctl --static wg0 endpoint").await
}

/// Whether the first machine answers at its address.
async fn passes(machine: &Machine, name: &str) -> Result<Check, Failure> {
    let (started, limit) = (Instant::now(), PASSES.as_secs().to_string());
    let args = ["ping", "10.9.0.1", "-i", "0.2", "-W", "3", "-c", "1", "-w", &limit];
    let pings: Pings = machine.ctl(&args, "").await?;
    let detail = format!("the first answer after {:.1} s", started.elapsed().as_secs_f64());
    Ok(Check::new(name, pings.received > 0, detail))
}
