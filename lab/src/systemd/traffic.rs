//! What a restart, an upgrade or a reboot of one machine does to pings and a transfer between two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::lifetime::apt;
use super::machine::{Machine, PACKAGES};
use super::{DAEMONS, Systems};
use crate::Failure;
use crate::probe::Transfer;
use crate::process::Spawn;
use crate::progress::Progress;
use crate::stats::Pings;

/// TCP port of the transfers.
const PORT: u16 = 5001;

/// Bytes of a transfer.
const BYTES: u64 = 10_000_000;

/// How long there is traffic before something happens, and after it is over.
const CALM: Duration = Duration::from_secs(2);

/// How long a daemon may take to come back.
const BACK: Duration = Duration::from_secs(120);

/// How long a transfer may take: more than a new handshake and the pauses of TCP after it.
const TRANSFER: Duration = Duration::from_secs(240);

/// How late a reply may be, in seconds: what waited while a daemon was away is not lost.
const LATE: &str = "30";

/// Most pings that a restart of `tund` may cost.
const TUND: u32 = 5;

/// What one case did.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    case: String,
    pings: Pings,
    /// Most that may be lost; any number where there is none.
    most: Option<u32>,
    transfer: Option<Transfer>,
}

impl Row {
    /// Told at once: what comes later may fail.
    fn tell(&self) {
        let Self { case, pings, transfer, .. } = self;
        let transfer = transfer.map_or_else(String::new, |t| format!(", transfer in {:.1} s", t.seconds));
        eprintln!("          {case}: {} of {} pings lost{transfer}", self.lost(), pings.sent);
    }

    /// Pings without a reply.
    fn lost(&self) -> u32 {
        self.pings.sent.saturating_sub(self.pings.received)
    }

    /// Whether no more was lost than may be, and the transfer came through.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.most.is_none_or(|most| self.lost() <= most)
            && self.transfer.is_none_or(|transfer| transfer.intact)
    }
}

/// Prints the table.
pub fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "{:<34} {:>6} {:>5} {:>8} {:>12}  {:<22}",
        "5 pings a second, and a transfer", "pings", "lost", "at most", "longest wait", "transfer"
    );
    for row in rows {
        let Row { case, pings, most, transfer } = row;
        let most = most.map_or_else(|| "-".to_owned(), |most| most.to_string());
        let transfer = transfer.map_or_else(
            || "none".to_owned(),
            |t| format!("{:.1} s, {}", t.seconds, if t.intact { "hash right" } else { "HASH WRONG" }),
        );
        let mark = if row.holds() { "" } else { "  FAIL" };
        let longest = pings.times.map_or(0.0, |times| times.max / 1e3);
        println!(
            "{case:<34} {:>6} {:>5} {most:>8} {longest:>10.1} s  {transfer:<22}{mark}",
            pings.sent,
            row.lost()
        );
    }
    println!();
}

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

/// Does something while there is traffic from one machine to another.
async fn under_traffic(
    case: &str,
    most: Option<u32>,
    seconds: u32,
    way: &Way<'_>,
    with_transfer: bool,
    event: impl Future<Output = Result<(), Failure>>,
) -> Result<Row, Failure> {
    let (address, count) = (way.address.to_string(), (seconds * 5).to_string());
    let ping = ["ping", &address, "-i", "0.2", "-W", LATE, "-c", &count];
    let pinging = async { way.from.ctl::<Pings>(&ping, "").await };
    let target = SocketAddr::new(IpAddr::V4(way.address), PORT).to_string();
    let mut server = Spawn::this_program(["__serve-tcp".into(), target.clone().into()])
        .namespace(Some(way.to))
        .wait_for_line()?;
    server.first_line().await?;
    let transfer = async {
        if !with_transfer {
            return Ok(None);
        }
        let args = ["__send-tcp".into(), target.into(), BYTES.to_string().into()];
        let sending = Spawn::this_program(args).namespace(Some(&way.from.name)).output("");
        let output = tokio::time::timeout(TRANSFER, sending).await.map_err(|_| {
            Failure::new(format!("{case}: the transfer is not done after {} s", TRANSFER.as_secs()))
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
        Ok(())
    };
    let (pings, transfer, ()) = tokio::try_join!(pinging, transfer, happening)?;
    server.kill().await?;
    let row = Row { case: case.to_owned(), pings, most, transfer };
    row.tell();
    Ok(row)
}

/// Runs all cases. Things happen to the first machine, which is the one that pings, except where it is booted again.
///
/// # Errors
/// If a daemon does not come back, or a transfer fails.
pub async fn run(systems: &mut Systems, progress: &Progress, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let (first, second) = (systems.one.network().await?.ipv4, systems.two.network().await?.ipv4);
    let machine = &systems.one;
    let way = Way { from: machine, to: "two", address: second };
    progress.step("traffic: nothing happens");
    rows.push(under_traffic("nothing happens", Some(0), 15, &way, true, async { Ok(()) }).await?);
    let events = [
        ("restart", None, 20),
        ("kill -9", Some("KILL"), 20),
        ("hangs until the watchdog", Some("STOP"), 60),
    ];
    for (what, signal, seconds) in events {
        for daemon in DAEMONS {
            let case = format!("{daemon}: {what}");
            progress.step(format!("traffic: {case}"));
            settled(systems).await?;
            let most = if daemon == "tund" { TUND } else { 0 };
            let event = replace(machine, daemon, signal);
            rows.push(under_traffic(&case, Some(most), seconds, &way, true, event).await?);
        }
    }
    progress.step("traffic: upgrade of the package");
    settled(systems).await?;
    rows.push(under_traffic("upgrade of the package", Some(TUND), 60, &way, true, upgrade(machine)).await?);
    progress.step("traffic: reboot");
    settled(systems).await?;
    let Systems { one, two, .. } = systems;
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
    rows.push(under_traffic("reboot (pinged by the other)", None, 360, &way, false, event).await?);
    Ok(())
}

/// Waits until nothing of what happened before is going on.
async fn settled(systems: &Systems) -> Result<(), Failure> {
    let Systems { one, two, .. } = systems;
    one.ready().await?;
    two.ready().await?;
    reach(one, two.network().await?.ipv4).await
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
    apt(machine, &format!("install {PACKAGES}/i2plan_*-2_*.deb")).await?;
    for (daemon, before) in DAEMONS.iter().zip(before) {
        let now = pid(machine, daemon).await?;
        if now == before || now == "0" {
            return Err(machine.failure(&format!("the upgrade did not restart {daemon}")).await);
        }
    }
    Ok(())
}
