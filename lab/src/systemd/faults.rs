//! What is in the way of a daemon, what its unit says about it, and whether it comes back by itself.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::options::Options;
use super::report::Check;
use super::systems::Systems;
use super::traffic;
use crate::Failure;
use crate::progress::Progress;

/// How long a unit is watched for a storm of restarts.
const WATCHED: Duration = Duration::from_secs(15);

/// Most restarts until then, where each wait is longer than the one before; and of systemd before the version that
/// knows how to, one a second.
const STARTS: u32 = 8;
const STEPS: u32 = 254;
const STARTS_BEFORE: u32 = 16;

/// How long it may take until the unit says what is wrong.
const SAID: Duration = Duration::from_secs(60);

/// How long a node may take to come back once nothing is in the way: the longest wait between two starts, and some.
const BACK: Duration = Duration::from_secs(90);

/// Something in the way of a daemon.
#[derive(Debug)]
pub struct Fault<'a> {
    /// What it is.
    pub name: &'a str,
    /// The daemon's unit.
    pub unit: &'a str,
    /// Puts it in the way, as a script. It waits for no daemon, which may wait itself.
    pub cause: &'a str,
    /// What the unit's status must contain.
    pub says: &'a [&'a str],
    /// Takes it out of the way.
    pub cure: &'a str,
}

const FAULTS: [Fault<'static>; 5] = [
    Fault {
        name: "an error in the configuration",
        unit: "i2plan-meshd.service",
        cause: "cp /etc/i2plan/config.toml /root/; printf '[i2p]\\ntunnel_lenth = 1\\n' > /etc/i2plan/config.toml; \
                systemctl --no-block restart i2plan-meshd.service",
        says: &["/etc/i2plan/config.toml:2", "tunnel_lenth"],
        cure: "mv /root/config.toml /etc/i2plan/",
    },
    Fault {
        name: "sealed keys without their credential",
        unit: "i2plan-keyd.service",
        cause: "systemctl stop i2plan.target i2plan-keyd.service; \
                printf 'correct horse\\n' | i2planctl key change-passphrase --new-passphrase-fd 0 >/dev/null; \
                systemctl start i2plan.target; \
                systemctl --no-block start i2plan-meshd.service i2plan-keyd.service",
        says: &["the keys are sealed", "passphrase"],
        cure: "umask 077; printf 'correct horse\\n' > /etc/i2plan/passphrase; \
               mkdir -p /etc/systemd/system/i2plan-keyd.service.d; umask 022; \
               cp /usr/share/doc/i2plan/examples/passphrase.conf /etc/systemd/system/i2plan-keyd.service.d/; \
               systemctl daemon-reload",
    },
    Fault {
        name: "sealed keys whose passphrase is to come encrypted",
        unit: "i2plan-keyd.service",
        cause: "systemctl stop i2plan.target i2plan-keyd.service; \
                rm /etc/systemd/system/i2plan-keyd.service.d/passphrase.conf; systemctl daemon-reload; \
                systemctl start i2plan.target; \
                systemctl --no-block start i2plan-meshd.service i2plan-keyd.service",
        says: &["the keys are sealed", "passphrase"],
        cure: "mkdir -p /etc/credstore.encrypted; \
               systemd-creds encrypt --with-key=host --name=passphrase /etc/i2plan/passphrase \
                   /etc/credstore.encrypted/i2plan-passphrase; \
               rm /etc/i2plan/passphrase; \
               cp /usr/share/doc/i2plan/examples/passphrase-encrypted.conf \
                   /etc/systemd/system/i2plan-keyd.service.d/; \
               systemctl daemon-reload",
    },
    Fault {
        name: "no /dev/net/tun",
        unit: "i2plan-tund.service",
        cause: "systemctl stop i2plan-tund.service; umount /dev/net/tun || true; rm -f /dev/net/tun; \
                systemctl --no-block restart i2plan-tund.service",
        says: &["/dev/net/tun"],
        cure: "mknod -m 666 /dev/net/tun c 10 200",
    },
    Fault {
        name: "a state directory that is read-only",
        unit: "i2plan-keyd.service",
        cause: "systemctl stop i2plan.target i2plan-keyd.service; mv /var/lib/i2plan/keyd /root/; mkdir /var/lib/i2plan/keyd; \
                chown i2plan-keyd: /var/lib/i2plan/keyd; chmod 700 /var/lib/i2plan/keyd; \
                mount --bind /var/lib/i2plan/keyd /var/lib/i2plan/keyd; \
                mount -o remount,bind,ro /var/lib/i2plan/keyd; \
                systemctl start i2plan.target; systemctl --no-block start i2plan-keyd.service",
        says: &["/var/lib/i2plan/keyd", "Read-only"],
        cure: "umount /var/lib/i2plan/keyd; rmdir /var/lib/i2plan/keyd; mv /root/keyd /var/lib/i2plan/",
    },
];

/// Puts one thing after the other in the way of the first machine's daemons.
///
/// # Errors
/// If the machines are in no network.
pub async fn run(
    systems: &mut Systems,
    options: &Options,
    progress: &Progress,
    checks: &mut Vec<Check>,
) -> Result<(), Failure> {
    let other = systems.two.network().await?.ipv4;
    let others = ["a full disk", "no I2P router"];
    for name in FAULTS.iter().map(|fault| fault.name).chain(others).filter(|name| options.does_case(name)) {
        progress.step(format!("fault: {name}"));
        let outcome = match FAULTS.iter().find(|fault| fault.name == name) {
            Some(fault) => one(&systems.one, fault).await,
            None if name == others[0] => full_disk(&systems.one).await,
            None => no_router(systems).await,
        };
        checks.extend(outcome.unwrap_or_else(|failure| vec![Check::new(name, false, failure.to_string())]));
        checks.push(back(&systems.one, name, other).await);
    }
    Ok(())
}

/// What `systemctl status` shows of a unit as its status.
async fn status(machine: &Machine, unit: &str) -> Result<String, Failure> {
    machine.property(unit, "StatusText").await
}

/// Puts something in the way, looks at what the unit says, and takes it away.
///
/// # Errors
/// If that cannot be done.
pub async fn one(machine: &Machine, fault: &Fault<'_>) -> Result<Vec<Check>, Failure> {
    let Fault { name, unit, cause, says, cure } = fault;
    machine.shell(cause).await?;
    let started = Instant::now();
    let shown = RefCell::new(String::new());
    let said = machine
        .until(&format!("{unit} says what is wrong"), SAID, async |machine| {
            let status = status(machine, unit).await?;
            let all = says.iter().all(|what| status.contains(what));
            shown.replace(status);
            Ok(all)
        })
        .await;
    let shown = shown.into_inner();
    tokio::time::sleep(WATCHED).await;
    // Counted by systemd from the last start that somebody asked for: the cause's.
    let starts: u32 = machine.property(unit, "NRestarts").await?.parse().unwrap_or(u32::MAX);
    let most = if machine.systemd().await? < STEPS { STARTS_BEFORE } else { STARTS };
    let checks = vec![
        Check::new(format!("{name}: the unit says what is wrong"), said.is_ok(), shown),
        Check::new(
            format!("{name}: no storm of restarts"),
            starts <= most,
            format!("{starts} restarts in {:.0} s", started.elapsed().as_secs_f64()),
        ),
    ];
    machine.shell(cure).await?;
    Ok(checks)
}

/// Whether the node carries traffic again, without help.
async fn back(machine: &Machine, name: &str, other: std::net::Ipv4Addr) -> Check {
    let started = Instant::now();
    let back = machine
        .until("it is ready", BACK, async |machine| {
            let status = machine.status().await?;
            Ok(status.sam.data.state == "up" && status.tunnel.interface.is_some())
        })
        .await;
    let reached = match back {
        Ok(()) => traffic::reach(machine, other).await,
        failed => failed,
    };
    let seen = match &reached {
        Ok(()) => format!("after {:.1} s", started.elapsed().as_secs_f64()),
        Err(failure) => failure.to_string(),
    };
    Check::new(format!("{name}: the node comes back by itself"), reached.is_ok(), seen)
}

/// A disk that is full when a member's state is to be written: the command fails and says why, the node lives on.
async fn full_disk(machine: &Machine) -> Result<Vec<Check>, Failure> {
    machine
        .shell(
            "systemctl stop i2plan-meshd.socket i2plan-meshd.service; cd /var/lib/i2plan; mv meshd /root/; mkdir meshd; \
             mount -t tmpfs -o size=64k,mode=700 tmpfs meshd; cp -a /root/meshd/. meshd/; chown i2plan-meshd: meshd; \
             systemctl start i2plan-meshd.socket; i2planctl status >/dev/null; dd if=/dev/zero of=meshd/full bs=4k 2>/dev/null || true",
        )
        .await?;
    machine.ready().await?;
    let refused = machine.run(&["i2planctl", "invite", "create"], "").await?;
    let unit = "i2plan-meshd.service";
    let told = machine
        .until(&format!("{unit} says what is wrong"), SAID, async |machine| {
            Ok(status(machine, unit)
                .await?
                .contains("cannot save the state: cannot use /var/lib/i2plan/meshd/state: No space"))
        })
        .await;
    let active = machine.property(unit, "ActiveState").await?;
    machine.shell("rm /var/lib/i2plan/meshd/full").await?;
    let works = machine.run(&["i2planctl", "invite", "create"], "").await?;
    machine
        .shell(
            "systemctl stop i2plan-meshd.socket i2plan-meshd.service; cd /var/lib/i2plan; cp -a meshd/. /root/meshd/; \
             umount meshd; rmdir meshd; mv /root/meshd .; systemctl start i2plan-meshd.socket",
        )
        .await?;
    let said = refused.stderr.trim().replace('\n', " ");
    Ok(vec![Check::new(
        "a full disk: command and unit say so, the daemon lives on, and works once there is room",
        !refused.status.success()
            && said.contains("No space")
            && told.is_ok()
            && active == "active"
            && works.status.success(),
        format!("{said}; {active}; then {}", works.status),
    )])
}

async fn no_router(systems: &mut Systems) -> Result<Vec<Check>, Failure> {
    systems.routers[0].kill().await?;
    let machine = &systems.one;
    machine.shell("systemctl restart i2plan-meshd.service").await?;
    let unit = "i2plan-meshd.service";
    let said = machine
        .until("meshd says that there is no router", SAID, async |machine| {
            Ok(status(machine, unit).await?.contains("no SAM bridge at 127.0.0.1:7656"))
        })
        .await;
    let shown = status(machine, unit).await?;
    let active = machine.property(unit, "ActiveState").await?;
    systems.routers[0].start().await?;
    Ok(vec![Check::new(
        "no I2P router: the unit waits and says for what",
        said.is_ok() && active == "active",
        shown,
    )])
}
