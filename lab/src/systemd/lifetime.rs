//! From the installation to the purge.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::machine::{Machine, PACKAGES};
use super::{Check, DAEMONS, Systems, host, traffic};
use crate::Failure;

/// Most that `systemd-analyze security` may say of each daemon's unit, in tenths.
const EXPOSURE: [(&str, u32); 5] = [("keyd", 5), ("meshd", 10), ("tund", 15), ("rpcd", 10), ("routerd", 10)];

/// What other programs keep of what they did, which is not the package's to take back.
const OTHERS: &str = "/var/lib/dpkg /var/lib/apt /var/cache /var/log /var/lib/systemd /var/tmp /etc/.pwd.lock \
                      /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /packages";

/// What is on a machine: files, and users and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(BTreeSet<String>);

/// What is on a machine now.
///
/// # Errors
/// If it cannot be listed.
pub async fn files(machine: &Machine) -> Result<Files, Failure> {
    let prune: Vec<_> = OTHERS.split_whitespace().map(|path| format!("-path {path} -prune -o")).collect();
    let script = format!(
        "find / -xdev {} -print; sed 's/^/user /' /etc/passwd; sed 's/^/group /' /etc/group",
        prune.join(" ")
    );
    Ok(Files(machine.shell(&script).await?.lines().map(ToOwned::to_owned).collect()))
}

/// The built packages, looked at by lintian.
///
/// # Errors
/// If lintian cannot be run.
pub fn packages() -> Result<Vec<Check>, Failure> {
    let target = std::env::var_os(host::TARGET_VARIABLE).ok_or_else(|| Failure::new("no packages"))?;
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).env("LC_ALL", "C");
    let mut found = 0;
    for entry in std::fs::read_dir(Path::new(&target).join("package"))?.flatten() {
        if entry.path().extension().is_some_and(|end| end == "deb") {
            lintian.arg(entry.path());
            found += 1;
        }
    }
    let output = lintian.output().map_err(|error| Failure::new(format!("lintian: {error}")))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let seen = if said.trim().is_empty() { format!("{found} packages, nothing to say") } else { said };
    Ok(vec![Check::new("lintian has no error and no warning", output.status.success(), seen.trim())])
}

/// Installs the first package.
///
/// # Errors
/// If that fails.
pub async fn install(machine: &Machine) -> Result<Vec<Check>, Failure> {
    let name = &machine.name;
    apt(machine, &format!("install {PACKAGES}/i2plan_*-1_*.deb")).await?;
    let mut checks = Vec::new();
    let units = machine
        .shell("systemctl list-units --plain --no-legend --state=active 'i2plan*' | cut -d ' ' -f 1 | sort")
        .await?;
    let expected =
        "i2plan-keyd.socket\ni2plan-meshd.socket\ni2plan-rpcd.socket\ni2plan-tund.socket\ni2plan.target";
    checks.push(Check::new(
        format!("{name}: installing starts nothing but sockets"),
        units == expected,
        units.replace('\n', " "),
    ));
    let modes = machine.shell("stat -c '%a %U:%G %n' /run/i2plan/*.sock").await?;
    let expected = "660 i2plan-meshd:i2plan-tund /run/i2plan/keyd.sock\n\
                    660 root:i2plan /run/i2plan/meshd.sock\n\
                    660 root:i2plan /run/i2plan/rpc.sock\n\
                    600 i2plan-meshd:i2plan-meshd /run/i2plan/tund.sock";
    checks.push(Check::new(
        format!("{name}: who may reach which socket"),
        modes == expected,
        modes.replace('\n', ", "),
    ));
    for (daemon, most) in EXPOSURE {
        let unit = format!("i2plan-{daemon}.service");
        let output = machine
            .run(&["systemd-analyze", "security", "--no-pager", &format!("--threshold={most}"), &unit], "")
            .await?;
        let said = output.stdout.lines().last().unwrap_or_default().trim_start_matches("→ ").to_owned();
        checks.push(Check::new(
            format!("{name}: exposure of {daemon} at most {}.{}", most / 10, most % 10),
            output.status.success(),
            said,
        ));
    }
    // Manual pages are on no minimal system.
    let verify = machine.run(&["systemd-analyze", "verify", "--man=no", "i2plan.target"], "").await?;
    let said = format!("{}{}", verify.stdout, verify.stderr);
    checks.push(Check::new(
        format!("{name}: systemd-analyze verify has nothing to say"),
        verify.status.success() && said.trim().is_empty(),
        if said.trim().is_empty() { "nothing" } else { said.trim() },
    ));
    Ok(checks)
}

/// Runs apt-get without a question, and without what a machine without a network cannot have.
///
/// # Errors
/// If it fails.
pub async fn apt(machine: &Machine, what: &str) -> Result<String, Failure> {
    machine
        .shell(&format!("DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends {what} 2>&1"))
        .await
}

#[derive(Deserialize)]
struct Invite {
    invite: String,
}

/// Both machines come up by the first command that asks, and join.
///
/// # Errors
/// If they do not.
pub async fn join(systems: &Systems) -> Result<Vec<Check>, Failure> {
    let Systems { one, two, .. } = systems;
    let mut checks = Vec::new();
    for machine in [one, two] {
        machine.status().await?;
        machine.ready().await?;
        let active = machine
            .shell("systemctl is-active i2plan-keyd.service i2plan-meshd.service i2plan-tund.service || true")
            .await?;
        checks.push(Check::new(
            format!("{}: the first `i2planctl status` brings the node up", machine.name),
            active.lines().all(|state| state == "active"),
            DAEMONS
                .iter()
                .zip(active.lines())
                .map(|(daemon, state)| format!("{daemon} {state}"))
                .collect::<Vec<_>>()
                .join(", "),
        ));
    }
    let invite: Invite = one.ctl(&["invite", "create"], "").await?;
    let _: serde_json::Value = two.ctl(&["join"], &invite.invite).await?;
    traffic::reach(two, one.network().await?.ipv4).await?;
    checks.push(Check::new("two machines join by invite and talk", true, "a ping came back"));
    Ok(checks)
}

/// Removes the package, looks at what is left, purges it, and looks again.
///
/// # Errors
/// If apt fails.
pub async fn remove(machine: &Machine, before: &Files) -> Result<Vec<Check>, Failure> {
    let mut checks = Vec::new();
    let said = apt(machine, "remove i2plan").await?;
    let running =
        machine.shell("pgrep -u i2plan-keyd,i2plan-meshd,i2plan-tund,i2plan-rpc -l || true").await?;
    checks.push(Check::new(
        "removing stops all daemons",
        running.is_empty(),
        if running.is_empty() { "none runs" } else { &running },
    ));
    let interface = machine.shell("ip -brief link | cut -d ' ' -f 1").await?;
    checks.push(Check::new(
        "removing takes the interface away",
        !interface.contains("i2plan0"),
        interface.replace('\n', " "),
    ));
    let kept = machine.shell("ls /var/lib/i2plan/keyd /etc/i2plan").await?;
    checks.push(Check::new(
        "removing keeps keys and configuration, and says so",
        kept.contains("keys") && kept.contains("config.toml") && said.contains("stay in /var/lib/i2plan"),
        kept.replace('\n', " "),
    ));
    let said = apt(machine, "purge i2plan").await?;
    checks.push(Check::new(
        "purging says what it removes",
        said.contains("removing this node's private keys"),
        said.lines().filter(|line| line.starts_with("i2plan:")).collect::<Vec<_>>().join(" "),
    ));
    // What systemd has to forget.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (before, after) = (&before.0, files(machine).await?.0);
    let differs: Vec<_> = before
        .symmetric_difference(&after)
        .map(|what| format!("{}{what}", if before.contains(what) { '-' } else { '+' }))
        .collect();
    checks.push(Check::new(
        "purging leaves the machine as it was",
        differs.is_empty(),
        if differs.is_empty() { "the same files, users and groups".to_owned() } else { differs.join(" ") },
    ));
    Ok(checks)
}
