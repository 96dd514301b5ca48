//! What a run shows, and how it is printed.

use serde::Serialize;

use crate::Failure;
use crate::probe::Transfer;
use crate::stats::Pings;

/// Something that was to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub(super) name: String,
    /// Whether it did.
    pub(super) holds: bool,
    /// What was seen.
    pub(super) seen: String,
}

impl Check {
    /// A check with what was seen.
    pub(super) fn new(name: impl Into<String>, holds: bool, seen: impl Into<String>) -> Self {
        Self { name: name.into(), holds, seen: seen.into() }
    }
}

/// What a run showed.
#[derive(Debug, Default, Serialize)]
pub struct SystemdReport {
    pub(super) checks: Vec<Check>,
    pub(super) traffic: Vec<Row>,
}

/// What one case did.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub(super) case: String,
    pub(super) pings: Pings,
    /// Most that may be lost; any number where there is none.
    pub(super) most: Option<u32>,
    pub(super) transfer: Option<Transfer>,
}

impl Row {
    /// Told at once: what comes later may fail.
    pub(super) fn tell(&self) {
        let Self { case, pings, transfer, .. } = self;
        let transfer = transfer.map_or_else(String::new, |t| format!(", transfer in {:.1} s", t.seconds));
        eprintln!("          {case}: {} of {} pings lost{transfer}", self.lost(), pings.sent);
    }

    /// Pings without a reply.
    fn lost(&self) -> u32 {
        self.pings.sent.saturating_sub(self.pings.received)
    }

    /// Whether no more was lost than may be, and the transfer came through.
    fn holds(&self) -> bool {
        self.most.is_none_or(|most| self.lost() <= most)
            && self.transfer.is_none_or(|transfer| transfer.intact)
    }
}

/// Prints the table.
fn print_rows(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "{:<34} {:>6} {:>5} {:>8} {:>12}  {:<26}",
        "5 pings a second, and a transfer", "pings", "lost", "at most", "longest wait", "transfer"
    );
    for row in rows {
        let Row { case, pings, most, transfer } = row;
        let most = most.map_or_else(|| "-".to_owned(), |most| most.to_string());
        let transfer = transfer.map_or_else(
            || "none".to_owned(),
            |t| {
                let hash = if t.intact { "hash right" } else { "HASH WRONG" };
                format!("{:.2} MB, {:.1} s, {hash}", t.bytes as f64 / 1e6, t.seconds)
            },
        );
        let mark = if row.holds() { "" } else { "  FAIL" };
        let longest = pings.times.map_or(0.0, |times| times.max / 1e3);
        println!(
            "{case:<34} {:>6} {:>5} {most:>8} {longest:>10.1} s  {transfer:<26}{mark}",
            pings.sent,
            row.lost()
        );
    }
    println!();
}

/// Prints it.
///
/// # Errors
/// If something does not hold.
pub(super) fn print(report: &SystemdReport, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(report).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        print_rows(&report.traffic);
        for Check { name, holds, seen } in &report.checks {
            println!("{}  {name}: {seen}", if *holds { "ok  " } else { "FAIL" });
        }
    }
    let failed = report.checks.iter().filter(|check| !check.holds).count()
        + report.traffic.iter().filter(|row| !row.holds()).count();
    if failed == 0 { Ok(()) } else { Err(Failure::new(format!("{failed} of these do not hold"))) }
}
