//! From the installation to the purge.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::machine::{Machine, PACKAGES};
use super::report::Check;
use super::systems::{DAEMONS, Systems};
use super::{host, traffic};
use crate::Failure;

/// Most that `systemd-analyze security` may say of each daemon's unit, in tenths.
const EXPOSURE: [(&str, u32); 9] = [
    ("keyd", 5),
    ("connector", 10),
    ("meshd", 5),
    ("tund", 15),
    ("rpcd", 10),
    ("webd", 10),
    ("named", 15),
    ("resolved", 12),
    ("routerd", 10),
];

/// The first version of systemd that knows `PrivateUsers=identity`, and the daemons of which an older one says
/// a tenth more because it does not.
const IDENTITY: (u32, [&str; 2]) = (257, ["rpcd", "webd"]);

/// What other programs keep of what they did, which is not the package's to take back.
const OTHERS: &str = "/var/lib/dpkg /var/lib/apt /var/lib/dnf /var/lib/rpm /var/lib/systemd /var/cache /var/log \
                      /var/tmp /etc/.pwd.lock \
                      /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /packages";

/// What the beginnings are of what a removal by rpm leaves.
const KEPT: [&str; 3] = ["+/var/lib/i2plan", "+user i2plan", "+group i2plan"];

/// How long it may take until a word is heard: that a member goes, for one, long before a silent one counts as
/// unreachable.
const TOLD: Duration = Duration::from_secs(10);

/// How long daemons may take to end: meshd tells the others, and tund sends what waits.
const STOPPED: Duration = Duration::from_secs(30);

/// Directories that belong to other packages where rpm is the package manager.
const OTHER_PACKAGES_OWN: [&str; 4] = [
    "+/usr/share/licenses",
    "+/usr/share/fish",
    "+/usr/share/fish/vendor_completions.d",
    "+/usr/share/zsh/site-functions",
];

/// Has rpm know that Debian has what the package asks for, as a script.
const WHAT_DEBIAN_HAS: &str = "\
    cd /root; { printf 'Name: debian\\nVersion: 1\\nRelease: 1\\nBuildArch: noarch\\n'; \
    printf 'Summary: .\\nLicense: .\\n'; \
    rpm --query --package --requires $package | grep -v -E '^(rpmlib|config|user|group)\\(' | sort -u | \
        sed -e 's/ >= / = /' -e 's/^/Provides: /'; \
    printf '%%description\\n.\\n%%files\\n'; } > debian.spec; \
    rpmbuild -bb --quiet debian.spec 2>&1; rpm --install rpmbuild/RPMS/noarch/debian-1-1.noarch.rpm";

/// What is on a machine: files, and users and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(BTreeSet<String>);

impl Files {
    /// What has come since, with a `+`, and what has gone, with a `-`.
    fn changes(&self, since: &Self) -> Vec<String> {
        let marked = |mark, what: &String| format!("{mark}{what}");
        let come = self.0.difference(&since.0).map(|what| marked('+', what));
        come.chain(since.0.difference(&self.0).map(|what| marked('-', what))).collect()
    }
}

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

/// What apt-get is to do to install the first package.
#[must_use]
pub fn first_package() -> String {
    format!("install {PACKAGES}/i2plan_*-1_*.deb")
}

/// Installs the first package.
///
/// # Errors
/// If that fails.
pub async fn install(machine: &Machine) -> Result<Vec<Check>, Failure> {
    let name = &machine.name;
    machine.apt(&first_package()).await?;
    let mut checks = Vec::new();
    let units = machine
        .shell("systemctl list-units --plain --no-legend --state=active 'i2plan*' | cut -d ' ' -f 1 | sort")
        .await?;
    let expected = "i2plan-keyd-connector.socket\ni2plan-keyd-control.socket\n\
                    i2plan-keyd-meshd.socket\ni2plan-keyd-tund.socket\n\
                    i2plan-meshd.socket\ni2plan-rpcd.socket\ni2plan-tund-wireguard.socket\n\
                    i2plan-tund.socket\ni2plan-webd.socket\ni2plan.target";
    checks.push(Check::new(
        format!("{name}: installing starts nothing but sockets"),
        units == expected,
        units.replace('\n', " "),
    ));
    let modes = machine.shell("stat -c '%a %U:%G %n' /run/i2plan/*.sock /run/wireguard/*.sock").await?;
    let expected = "600 i2plan-connector:i2plan-connector /run/i2plan/keyd-connector.sock\n\
                    660 root:i2plan /run/i2plan/keyd-control.sock\n\
                    600 i2plan-meshd:i2plan-meshd /run/i2plan/keyd-meshd.sock\n\
                    600 i2plan-tund:i2plan-tund /run/i2plan/keyd-tund.sock\n\
                    660 root:i2plan /run/i2plan/meshd.sock\n\
                    660 root:i2plan /run/i2plan/rpc.sock\n\
                    600 i2plan-meshd:i2plan-meshd /run/i2plan/tund.sock\n\
                    660 root:i2plan /run/i2plan/web.sock\n\
                    600 root:root /run/wireguard/i2plan0.sock";
    checks.push(Check::new(
        format!("{name}: who may reach which socket"),
        modes == expected,
        modes.replace('\n', ", "),
    ));
    let is_old = machine.systemd().await? < IDENTITY.0;
    for (daemon, most) in EXPOSURE {
        let most = most + u32::from(is_old && IDENTITY.1.contains(&daemon));
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
    let units = ["i2plan.target", "i2plan-routerd.service"];
    let verify = machine.run(&[&["systemd-analyze", "verify", "--man=no"][..], &units].concat(), "").await?;
    let said = format!("{}{}", verify.stdout, verify.stderr);
    checks.push(Check::new(
        format!("{name}: systemd-analyze verify has nothing to say"),
        verify.status.success() && said.trim().is_empty(),
        if said.trim().is_empty() { "nothing" } else { said.trim() },
    ));
    Ok(checks)
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
            .shell(
                "systemctl is-active i2plan-keyd.service i2plan-connector.service i2plan-meshd.service \
                 i2plan-tund.service || true",
            )
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
    join_by(two, one).await?;
    checks.push(Check::new("two machines join by invite and talk", true, "a ping came back"));
    Ok(checks)
}

/// Has a machine join by an invite of another, and waits for the first echo.
///
/// # Errors
/// If it does not get so far.
pub async fn join_by(machine: &Machine, inviter: &Machine) -> Result<(), Failure> {
    let invite: Invite = inviter.ctl(&["invite", "create"], "").await?;
    let _: serde_json::Value = machine.ctl(&["join", "--yes"], &invite.invite).await?;
    traffic::reach(machine, inviter.network().await?.ipv4).await
}

/// The processes of the daemons' users, a line each.
async fn processes(machine: &Machine) -> Result<String, Failure> {
    // Whose a process is stands in its status: the files of these processes are root's.
    machine
        .shell(
            "for user in keyd connector meshd tund rpc web names routerd; do uid=$(id -u i2plan-$user); \
             grep -l \"^Uid:[[:space:]]$uid[[:space:]]\" /proc/[0-9]*/status || true; done",
        )
        .await
}

/// Whether there is no process of a daemon's user, and no interface.
async fn nothing_runs(machine: &Machine, name: &str) -> Result<Check, Failure> {
    let running = processes(machine).await?;
    let interfaces = machine.shell("ip -brief link | cut -d ' ' -f 1").await?;
    let holds = running.is_empty() && !interfaces.contains("i2plan0");
    let running = if running.is_empty() { "none" } else { &running };
    Ok(Check::new(name, holds, format!("daemons: {running}; interfaces: {interfaces}").replace('\n', " ")))
}

/// Waits until all daemons have ended, and looks whether the interface is gone too.
///
/// # Errors
/// If they do not end.
pub async fn all_end(machine: &Machine, name: &str) -> Result<Check, Failure> {
    machine
        .until("all daemons have ended", STOPPED, async |machine| Ok(processes(machine).await?.is_empty()))
        .await?;
    nothing_runs(machine, name).await
}

/// Has a changed configuration read again.
///
/// # Errors
/// If systemd refuses to.
pub async fn reload(machine: &Machine) -> Result<Vec<Check>, Failure> {
    let unit = "i2plan-meshd.service";
    let before = machine.property(unit, "MainPID").await?;
    let reload = "systemctl reload i2plan-meshd.service";
    machine
        .shell(&format!(
            "cp -p /etc/i2plan/config.toml /root/; printf '[node]\\nname = \"renamed\"\\n' > /etc/i2plan/config.toml; \
             {reload}"
        ))
        .await?;
    let read = machine
        .until("the node has its new name", TOLD, async |machine| {
            Ok(machine.shell("i2planctl config get node.name").await?.contains("renamed"))
        })
        .await;
    let (active, after) =
        (machine.property(unit, "ActiveState").await?, machine.property(unit, "MainPID").await?);
    machine.shell(&format!("mv /root/config.toml /etc/i2plan/; {reload}")).await?;
    Ok(vec![Check::new(
        "`systemctl reload` has the configuration read again, by the same process",
        read.is_ok() && active == "active" && before == after,
        read.map_or_else(|failure| failure.to_string(), |()| format!("the node is renamed; {unit} {active}")),
    )])
}

/// Stops everything for good, looks what is left of it, and starts it again.
///
/// # Errors
/// If systemd does not do that, or the node does not come back.
pub async fn stop(systems: &Systems) -> Result<Vec<Check>, Failure> {
    let machine = &systems.one;
    let unit = "i2plan-tund.service";
    let kept = machine.property(unit, "NFileDescriptorStore").await?;
    let running = processes(machine).await?.lines().count();
    // It stops the others with it, and waits for none of them.
    machine.shell("systemctl stop i2plan.target").await?;
    let mut checks = vec![all_end(machine, "stopping stops all daemons and takes the interface away").await?];
    let left = machine.property(unit, "NFileDescriptorStore").await?;
    // The SAM bridge's port, 7656, in established connections.
    let open = machine.shell("grep -c ':1DE8 .* 01 ' /proc/net/tcp || true").await?;
    checks.push(Check::new(
        "stopping ends the I2P sessions that restarts keep",
        running >= DAEMONS.len() && kept != "0" && left == "0" && open == "0",
        format!(
            "{running} processes kept {kept} descriptors; then {left} are kept, and connections to the SAM bridge: \
             {open}"
        ),
    ));
    let told = systems
        .two
        .until("it knows that the other has gone", TOLD, async |machine| {
            let peers: serde_json::Value = machine.ctl(&["peers"], "").await?;
            Ok(peers["peers"][0]["life"] == "away")
        })
        .await;
    checks.push(Check::new(
        "stopping tells the other members",
        told.is_ok(),
        told.map_or_else(|failure| failure.to_string(), |()| "it is away".to_owned()),
    ));
    machine.shell("systemctl start i2plan.target").await?;
    machine.ready().await?;
    traffic::reach(machine, systems.two.network().await?.ipv4).await?;
    checks.push(Check::new("a member that is started again is back by itself", true, "a ping came back"));
    Ok(checks)
}

/// Runs dnf without a question, and without repositories.
async fn dnf(machine: &Machine, what: &str) -> Result<String, Failure> {
    machine.shell(&format!("dnf -y --disablerepo='*' {what} 2>&1")).await
}

/// Installs, upgrades and removes the package for rpm, on a machine that has that and dnf beside its own package
/// manager.
///
/// # Errors
/// If dnf fails.
pub async fn rpm(machine: &Machine) -> Result<Vec<Check>, Failure> {
    machine.shell(&format!("package=$(echo {PACKAGES}/i2plan-*-1.*.rpm); {WHAT_DEBIAN_HAS}")).await?;
    let before = files(machine).await?;
    dnf(machine, &format!("install {PACKAGES}/i2plan-*-1.*.rpm")).await?;
    let verified = machine.run(&["rpm", "--verify", "i2plan"], "").await?;
    let said = format!("{}{}", verified.stdout, verified.stderr);
    let mut checks = vec![Check::new(
        "dnf: installs, and rpm finds everything as it was packed",
        verified.status.success(),
        if said.is_empty() { "nothing to say".to_owned() } else { said.replace('\n', " ") },
    )];
    machine.shell("systemctl start i2plan.target; i2planctl status >/dev/null").await?;
    let running = async |before: &[String]| {
        let mut pids = Vec::new();
        machine
            .until("the daemons run", Duration::from_secs(60), async |machine| {
                for daemon in DAEMONS {
                    let pid = machine.property(&format!("i2plan-{daemon}.service"), "MainPID").await?;
                    if pid == "0" || before.contains(&pid) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await?;
        for daemon in DAEMONS {
            pids.push(machine.property(&format!("i2plan-{daemon}.service"), "MainPID").await?);
        }
        Ok::<_, Failure>(pids)
    };
    let first = running(&[]).await?;
    dnf(machine, &format!("upgrade {PACKAGES}/i2plan-*-2.*.rpm")).await?;
    let second = running(&first).await?;
    checks.push(Check::new(
        "dnf: an upgrade replaces the daemons",
        true,
        format!("{} became {}", first.join(", "), second.join(", ")),
    ));
    let said = dnf(machine, "remove i2plan").await?;
    checks.push(nothing_runs(machine, "dnf: removing stops all daemons and takes the interface away").await?);
    checks.push(Check::new(
        "dnf: removing keeps the keys and says so",
        said.contains("stay in /var/lib/i2plan")
            && machine.shell("ls /var/lib/i2plan/keyd").await? == "delegations\nkeys\nmemory",
        said.lines().find(|line| line.contains("/var/lib/i2plan")).unwrap_or(&said),
    ));
    let is_kept = |what: &String| {
        KEPT.iter().any(|own| what.starts_with(own)) || OTHER_PACKAGES_OWN.contains(&what.as_str())
    };
    let mut others = files(machine).await?.changes(&before);
    others.retain(|what| !is_kept(what));
    checks.push(Check::new(
        "dnf: removing leaves nothing but the keys, the membership and the users",
        others.is_empty(),
        if others.is_empty() { "nothing else".to_owned() } else { others.join(" ") },
    ));
    Ok(checks)
}

/// Removes the package, looks at what is left, purges it, and looks again.
///
/// # Errors
/// If apt fails.
pub async fn remove(machine: &Machine, before: &Files) -> Result<Vec<Check>, Failure> {
    let (mut checks, name) = (Vec::new(), &machine.name);
    let said = machine.apt("remove i2plan").await?;
    checks.push(
        nothing_runs(machine, &format!("{name}: removing stops all daemons and takes the interface away"))
            .await?,
    );
    let kept = machine.shell("ls /var/lib/i2plan/keyd /etc/i2plan").await?;
    checks.push(Check::new(
        format!("{name}: removing keeps keys and configuration, and says so"),
        kept.contains("keys") && kept.contains("config.toml") && said.contains("stay in /var/lib/i2plan"),
        kept.replace('\n', " "),
    ));
    // What an administrator has made is the administrator's to remove.
    machine
        .shell(
            "rm -rf /etc/i2plan/passphrase /etc/i2plan/seed /etc/i2plan/static /etc/credstore.encrypted/i2plan-passphrase \
             /etc/systemd/system/i2plan-keyd.service.d",
        )
        .await?;
    let said = machine.apt("purge i2plan").await?;
    checks.push(Check::new(
        format!("{name}: purging says what it removes"),
        said.contains("removing this node's private keys"),
        said.lines().filter(|line| line.starts_with("i2plan:")).collect::<Vec<_>>().join(" "),
    ));
    // What systemd has to forget.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let differs = files(machine).await?.changes(before);
    checks.push(Check::new(
        format!("{name}: purging leaves the machine as it was"),
        differs.is_empty(),
        if differs.is_empty() { "the same files, users and groups".to_owned() } else { differs.join(" ") },
    ));
    Ok(checks)
}
