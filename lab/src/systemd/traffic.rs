//! What a restart, an upgrade or a reboot of one machine does to pings and a transfer between two.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::machine::{Machine, PACKAGES};
use super::options::Options;
use super::report::{Check, Row, SystemdReport};
use super::systems::{DAEMONS, Systems};
use crate::Failure;
use crate::probe::Transfer;
use crate::process::Spawn;
use crate::progress::Progress;
use crate::stats::Pings;

/// TCP port of the transfers.
const PORT: u16 = 5001;

/// Bytes that a transfer sends in a second: it leaves room, so that nothing is lost while nothing happens.
const RATE: u32 = 50_000;

/// How many seconds before the last ping a transfer has sent its last byte, if nothing holds it up.
const REST: u32 = 5;

/// How long there is traffic before something happens, and after it is over.
const CALM: Duration = Duration::from_secs(2);

/// How long a daemon may take to come back.
const BACK: Duration = Duration::from_secs(120);

/// How much longer a transfer may take: more than a new handshake and the pauses of TCP after it.
const TRANSFER: Duration = Duration::from_secs(180);

/// How late a reply may be, in seconds: what waited while a daemon was away is not lost.
const LATE: &str = "30";

/// Where the process id of a ping is.
const PING: &str = "/run/ping.pid";

/// Most pings that a restart of `tund` may cost.
const TUND: u32 = 5;

/// Waits for the first echo.
///
/// # Errors
/// If there is none within five minutes: a member that was away may have to open its sessions under other destinations.
pub async fn reach(from: &Machine, target: Ipv4Addr) -> Result<(), Failure> {
    let target = target.to_string();
    let pings: Pings =
        from.ctl(&["ping", &target, "-i", "0.2", "-W", "3", "-c", "1", "-w", "300"], "").await?;
    if pings.received > 0 {
        Ok(())
    } else {
        Err(from.failure("a ping found no answer within five minutes").await)
    }
}

/// Where an echo or a transfer starts, and where it goes.
struct Way<'a> {
    from: &'a Machine,
    to: &'a str,
    address: Ipv4Addr,
}

/// Has something happen while there is traffic from one machine to another.
async fn under_traffic(
    case: &Case,
    way: &Way<'_>,
    with_transfer: bool,
    event: impl Future<Output = Result<(), Failure>>,
) -> Result<Row, Failure> {
    let Case { name: case, seconds, most, .. } = case;
    let seconds = *seconds;
    // With its process id, so that it can be told when it is enough.
    let ping = format!(
        "echo $$ > {PING}; exec i2planctl --json ping {} -i 0.2 -W {LATE} -c {}",
        way.address,
        seconds * 5
    );
    let pinging = async {
        let text = way.from.shell(&ping).await?;
        serde_json::from_str::<Pings>(&text).map_err(|error| Failure::new(format!("{case}: {text}: {error}")))
    };
    let target = SocketAddr::new(IpAddr::V4(way.address), PORT).to_string();
    let mut server = Spawn::this_program(["__serve-tcp".into(), target.clone().into()])
        .namespace(Some(way.to))
        .wait_for_line()?;
    server.first_line().await?;
    let transfer = async {
        if !with_transfer {
            return Ok(None);
        }
        let (bytes, limit) = ((seconds - REST) * RATE, Duration::from_secs(seconds.into()) + TRANSFER);
        let args = ["__send-tcp", &target, &bytes.to_string(), "--rate", &RATE.to_string()];
        let sending = Spawn::this_program(args.map(OsString::from)).namespace(Some(&way.from.name));
        let output = tokio::time::timeout(limit, sending.output("")).await.map_err(|_| {
            Failure::new(format!("{case}: the transfer is not done after {} s", limit.as_secs()))
        })??;
        serde_json::from_str::<Transfer>(&output.stdout)
            .map(Some)
            .map_err(|_| Failure::new(format!("{case}: the transfer failed: {}", output.stderr.trim())))
    };
    let started = Instant::now();
    let happening = async {
        tokio::time::sleep(CALM).await;
        event.await?;
        let took = started.elapsed() + CALM;
        if took > Duration::from_secs(seconds.into()) {
            return Err(Failure::new(format!("{case}: it took {} s, longer than the pings", took.as_secs())));
        }
        if most.is_none() {
            tokio::time::sleep(CALM).await;
            way.from.shell(&format!("kill -INT $(cat {PING})")).await?;
        }
        Ok(())
    };
    let (pings, transfer, ()) = tokio::try_join!(pinging, transfer, happening)?;
    server.kill().await?;
    Ok(Row { case: case.clone(), pings, most: *most, transfer })
}

/// Runs all cases. Things happen to the first machine, which is the one that pings, except where it is booted again. A
/// case that cannot be brought to its end is no reason to leave out the others.
///
/// # Errors
/// If the machines are in no network.
pub async fn run(
    systems: &mut Systems,
    options: &Options,
    progress: &Progress,
    report: &mut SystemdReport,
) -> Result<(), Failure> {
    let (first, second) = (systems.one.network().await?.ipv4, systems.two.network().await?.ipv4);
    for case in cases().filter(|case| options.does_case(&case.name)) {
        progress.step(format!("traffic: {}", case.name));
        match one(systems, &case, first, second).await {
            Ok(row) => {
                row.tell();
                report.traffic.push(row);
            }
            Err(failure) => {
                eprintln!("          {}: {failure}", case.name);
                report.checks.push(Check::new(case.name, false, failure.to_string()));
            }
        }
    }
    Ok(())
}

/// Runs what can happen to the router of a machine whose only one it is.
///
/// # Errors
/// If the machine does not come back.
pub async fn of_router(machine: &Machine, other: Ipv4Addr) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (what, signal) in [("restart", None), ("kill -9", Some("KILL"))] {
        let case = Case {
            name: format!("routerd: {what}"),
            event: Event::Replace("routerd", signal),
            seconds: 360,
            most: None,
        };
        reach(machine, other).await?;
        let way = Way { from: machine, to: "one", address: other };
        let event = async {
            replace(machine, "routerd", signal).await?;
            reach(machine, other).await
        };
        let row = under_traffic(&case, &way, false, event).await?;
        row.tell();
        rows.push(row);
    }
    Ok(rows)
}

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    /// A daemon is replaced: by a restart, or by what systemd does after this signal.
    Replace(&'static str, Option<&'static str>),
    Upgrade,
    Reboot,
}

/// Something that happens under traffic.
#[derive(Debug)]
struct Case {
    name: String,
    event: Event,
    /// How long there are pings; at the longest, where any number may be lost.
    seconds: u32,
    /// Most that may be lost.
    most: Option<u32>,
}

fn cases() -> impl Iterator<Item = Case> {
    let nothing =
        Case { name: "nothing happens".to_owned(), event: Event::Nothing, seconds: 20, most: Some(0) };
    let ends = [
        ("restart", None, 20),
        ("kill -9", Some("KILL"), 20),
        ("hangs until the watchdog", Some("STOP"), 60),
    ];
    let replacements = ends.into_iter().flat_map(|(what, signal, seconds)| {
        DAEMONS.map(|daemon| Case {
            name: format!("{daemon}: {what}"),
            event: Event::Replace(daemon, signal),
            seconds,
            most: Some(if daemon == "tund" { TUND } else { 0 }),
        })
    });
    let rest = [
        ("upgrade of the package", Event::Upgrade, 60, Some(TUND)),
        ("reboot (pinged by the other)", Event::Reboot, 360, None),
    ]
    .map(|(name, event, seconds, most)| Case { name: name.to_owned(), event, seconds, most });
    std::iter::once(nothing).chain(replacements).chain(rest)
}

async fn one(systems: &mut Systems, case: &Case, first: Ipv4Addr, second: Ipv4Addr) -> Result<Row, Failure> {
    settled(systems, second).await?;
    let Systems { one, two, .. } = systems;
    let way = Way { from: one, to: "two", address: second };
    match case.event {
        Event::Nothing => under_traffic(case, &way, true, async { Ok(()) }).await,
        Event::Replace(daemon, signal) => under_traffic(case, &way, true, replace(one, daemon, signal)).await,
        Event::Upgrade => under_traffic(case, &way, true, upgrade(one)).await,
        Event::Reboot => {
            let way = Way { from: two, to: "one", address: first };
            let event = async {
                one.reboot().await?;
                // By itself: nobody asks for anything here.
                one.until("it is up again", BACK, async |machine| {
                    Ok(machine.property("i2plan-meshd.service", "ActiveState").await? == "active")
                })
                .await?;
                reach(two, first).await
            };
            under_traffic(case, &way, false, event).await
        }
    }
}

/// Waits until nothing of what happened before is going on.
async fn settled(systems: &Systems, second: Ipv4Addr) -> Result<(), Failure> {
    systems.one.ready().await?;
    systems.two.ready().await?;
    reach(&systems.one, second).await
}

async fn pid(machine: &Machine, daemon: &str) -> Result<String, Failure> {
    machine.property(&format!("i2plan-{daemon}.service"), "MainPID").await
}

/// Has a daemon replaced by a new process: by a restart, or by what systemd does after this signal.
async fn replace(machine: &Machine, daemon: &str, signal: Option<&str>) -> Result<(), Failure> {
    let unit = format!("i2plan-{daemon}.service");
    let before = pid(machine, daemon).await?;
    let command = match signal {
        None => format!("systemctl restart {unit}"),
        Some(signal) => format!("systemctl kill --signal={signal} {unit}"),
    };
    machine.shell(&command).await?;
    machine
        .until(&format!("{daemon} is another process"), BACK, async |machine| {
            let now = pid(machine, daemon).await?;
            Ok(now != before && now != "0" && machine.property(&unit, "ActiveState").await? == "active")
        })
        .await
}

async fn upgrade(machine: &Machine) -> Result<(), Failure> {
    let mut before = Vec::new();
    for daemon in DAEMONS {
        before.push(pid(machine, daemon).await?);
    }
    machine.apt(&format!("install {PACKAGES}/i2plan_*-2_*.deb")).await?;
    for (daemon, before) in DAEMONS.iter().zip(before) {
        let now = pid(machine, daemon).await?;
        if now == before || now == "0" {
            return Err(machine.failure(&format!("the upgrade did not restart {daemon}")).await);
        }
    }
    Ok(())
}
