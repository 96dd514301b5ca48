//! What a run has shown: made of what was observed, without I/O, then printed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::Options;
use super::outage::{
    AFTERMATH, Attribution, Gap, InjectedFault, OUTAGE, Openings, attribute, grows_steadily, median, quarters,
};
use super::probes::Flow;
use super::schedule::Cause;
use super::watch::{Exit, WatchedNode, clock};
use crate::Failure;
use crate::i2p::kind::Routers;

/// Longest outage that may remain once its fault is over.
const LONGEST: Duration = Duration::from_secs(15);

/// Growth is judged in runs of at least this many seconds: what a daemon uses for the first time is no leak.
const JUDGED_AFTER: f64 = 1800.0;

/// Growth below this is none: bytes of memory, descriptors.
const LEAST_MEMORY: u64 = 2 << 20;
const LEAST_DESCRIPTORS: u64 = 6;

/// How long after a fault its daemon may end.
const END_AFTER: Duration = Duration::from_secs(15);

/// Most outages that are listed: the longest.
const MAX_LISTED: usize = 2000;

/// The cause of an outage that no fault explains.
const NONE: &str = "none injected";

/// Everything that was observed.
pub struct Observed {
    /// What was asked for.
    pub options: Options,
    /// The routers.
    pub routers: Routers,
    /// When the run began.
    pub started_at: SystemTime,
    /// How long it was, seconds.
    pub seconds: f64,
    /// Why it ended before its time, if it did.
    pub ended_early: Option<String>,
    /// The nodes' names.
    pub names: Vec<String>,
    /// The probes.
    pub flows: Vec<Flow>,
    /// Those that were lost.
    pub gaps: Vec<Gap>,
    /// When the nodes' routers were opening sessions.
    pub openings: Vec<Openings>,
    /// The faults.
    pub faults: Vec<InjectedFault>,
    /// The nodes' processes and logs.
    pub watched: Vec<WatchedNode>,
    /// The transfers.
    pub transfers: Vec<TransferRun>,
    /// Log lines around outages.
    pub excerpts: Vec<Excerpt>,
}

/// A transfer.
#[derive(Debug)]
pub struct TransferRun {
    /// The sending node.
    pub from: usize,
    /// The receiving node.
    pub to: usize,
    /// When it began.
    pub begins: Duration,
    /// When it was over.
    pub ends: Duration,
    /// Whether the hash was right, unless it failed.
    pub intact: bool,
    /// Why it failed.
    pub failure: Option<String>,
}

/// The log lines of both nodes around an outage.
#[derive(Debug)]
pub struct Excerpt {
    /// The outage.
    pub gap: Gap,
    /// The lines.
    pub lines: Vec<String>,
}

/// What a run has shown.
#[derive(Debug, Serialize)]
pub struct Outcome {
    router: Routers,
    seed: u64,
    nodes: u8,
    /// Seconds since 1970.
    started_at: u64,
    seconds: f64,
    ended_early: Option<String>,
    probes: ProbeReport,
    causes: Vec<CauseReport>,
    faults: Vec<FaultReport>,
    outages: Vec<OutageReport>,
    transfers: TransferReport,
    usage: Vec<UsageReport>,
    logs: Vec<LogReport>,
    exits: Vec<EventReport>,
    panics: Vec<EventReport>,
    bounds: Vec<BoundReport>,
}

impl Outcome {
    /// Whether the run did not end before its time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended_early.is_none()
    }
}

#[derive(Debug, Serialize)]
struct ProbeReport {
    sent: u64,
    lost: u64,
    /// Answered after more than a second.
    late: u64,
}

/// All faults of one kind.
#[derive(Debug, Default, Serialize)]
struct CauseReport {
    cause: String,
    faults: usize,
    /// Faults that could not be injected, or whose end failed, such as a join.
    failed: usize,
    lost: u64,
    /// Outages between two nodes, in one direction, one of which the fault was done to.
    outages: usize,
    median_s: f64,
    longest_s: f64,
    /// The part of an outage after the fault was over, median and longest.
    median_after_s: f64,
    longest_after_s: f64,
    /// The same without what routers took to open sessions.
    median_own_s: f64,
    longest_own_s: f64,
    /// Outages at that time between other nodes.
    elsewhere: usize,
    /// From the router's start until its bridge accepted a session.
    bridge_median_s: Option<f64>,
    bridge_longest_s: Option<f64>,
    /// From a join's begin to the first echo.
    join_median_s: Option<f64>,
    join_longest_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct FaultReport {
    cause: Cause,
    nodes: Vec<String>,
    clock: String,
    at_s: f64,
    /// None if the run ended before it was over.
    over_s: Option<f64>,
    bridge_s: Option<f64>,
    join_s: Option<f64>,
    failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct OutageReport {
    from: String,
    to: String,
    clock: String,
    at_s: f64,
    seconds: f64,
    /// Its part after the fault was over, and what of that the routers took to open sessions.
    after_s: f64,
    router_s: f64,
    lost: u64,
    cause: String,
    /// A fault of other nodes at that time.
    elsewhere: Option<String>,
    log: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TransferReport {
    intact: usize,
    wrong: usize,
    median_s: f64,
    longest_s: f64,
    failed: Vec<EventReport>,
}

/// What a process used, median of the first and of the last quarter of the run.
#[derive(Debug, Serialize)]
struct UsageReport {
    node: String,
    process: String,
    what: &'static str,
    first: u64,
    last: u64,
    grows: bool,
}

#[derive(Debug, Serialize)]
struct LogReport {
    node: String,
    daemon: String,
    lines: u64,
    lines_per_hour: f64,
    warnings: u64,
    errors: u64,
}

#[derive(Debug, Serialize)]
struct EventReport {
    node: String,
    clock: String,
    what: String,
    /// The last fault before it, if that was recent.
    during: String,
}

#[derive(Debug, Serialize)]
struct BoundReport {
    bound: String,
    holds: bool,
    seen: String,
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}

fn sum(flows: &[Flow], count: impl Fn(&Flow) -> u64) -> u64 {
    flows.iter().map(count).sum()
}

/// Makes the outcome.
#[must_use]
pub fn outcome(observed: &Observed) -> Outcome {
    let Observed { options, routers, started_at, flows, .. } = observed;
    let outages = outages(observed);
    let usage = usage(observed);
    let (exits, panics) = events(observed);
    let transfers = transfers(observed);
    let bounds = bounds(&outages, &usage, &exits, &panics, &transfers);
    Outcome {
        router: *routers,
        seed: options.seed,
        nodes: options.nodes,
        started_at: started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        seconds: observed.seconds,
        ended_early: observed.ended_early.clone(),
        probes: ProbeReport {
            sent: sum(flows, |flow| flow.sent),
            lost: sum(flows, |flow| flow.lost),
            late: sum(flows, |flow| flow.late),
        },
        causes: causes(&observed.faults, &observed.gaps, &observed.openings),
        faults: faults(observed),
        outages,
        transfers,
        usage,
        logs: logs(observed),
        exits,
        panics,
        bounds,
    }
}

/// What the faults of each kind did, the kinds in order, what no fault explains last.
fn causes(faults: &[InjectedFault], gaps: &[Gap], openings: &[Openings]) -> Vec<CauseReport> {
    let mut kinds: Vec<_> = faults.iter().map(|fault| fault.cause).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let attributed: Vec<_> = gaps.iter().map(|gap| (gap, attribute(gap, faults))).collect();
    let report = |cause: Option<Cause>| {
        let of_kind: Vec<_> = faults.iter().filter(|fault| Some(fault.cause) == cause).collect();
        let own = attributed.iter().filter(|(_, attribution)| match attribution {
            Attribution::Fault(fault) => Some(fault.cause) == cause,
            Attribution::Elsewhere(_) | Attribution::None => cause.is_none(),
        });
        let attributed_here: Vec<_> = own.collect();
        let lost = attributed_here.iter().map(|(gap, _)| gap.lost).sum();
        let outages: Vec<_> = attributed_here.iter().filter(|(gap, _)| gap.is_outage()).collect();
        let lengths: Vec<_> = outages.iter().map(|(gap, _)| gap.length()).collect();
        let after: Vec<_> = outages.iter().map(|(gap, owed)| owed.unexcused(gap)).collect();
        let by_routers = outages.iter().map(|(gap, owed)| owed.by_routers(gap, openings));
        let own: Vec<_> = after.iter().zip(by_routers).map(|(after, by)| after.saturating_sub(by)).collect();
        let longest = |times: &[Duration]| seconds(times.iter().max().copied().unwrap_or_default());
        let elsewhere = attributed.iter().filter(|(gap, attribution)| {
            gap.is_outage()
                && matches!(attribution, Attribution::Elsewhere(fault) if Some(fault.cause) == cause)
        });
        let times = |time: fn(&InjectedFault) -> Option<Duration>| {
            let times: Vec<_> = of_kind.iter().filter_map(|fault| time(fault)).collect();
            (times.iter().max().copied().map(seconds), (!times.is_empty()).then(|| seconds(median(times))))
        };
        let (bridge_longest_s, bridge_median_s) = times(|fault| fault.bridge);
        let (join_longest_s, join_median_s) = times(|fault| fault.join);
        CauseReport {
            cause: cause.map_or_else(|| NONE.to_owned(), |cause| cause.to_string()),
            faults: of_kind.len(),
            failed: of_kind.iter().filter(|fault| fault.failure.is_some()).count(),
            lost,
            outages: outages.len(),
            longest_s: longest(&lengths),
            longest_after_s: longest(&after),
            longest_own_s: longest(&own),
            median_s: seconds(median(lengths)),
            median_after_s: seconds(median(after)),
            median_own_s: seconds(median(own)),
            elsewhere: elsewhere.count(),
            bridge_median_s,
            bridge_longest_s,
            join_median_s,
            join_longest_s,
        }
    };
    kinds.into_iter().map(Some).chain([None]).map(report).collect()
}

fn faults(observed: &Observed) -> Vec<FaultReport> {
    let report = |fault: &InjectedFault| FaultReport {
        cause: fault.cause,
        nodes: fault.nodes.iter().map(|node| observed.names[*node].clone()).collect(),
        clock: clock(observed.started_at, fault.begins),
        at_s: seconds(fault.begins),
        over_s: fault.over.map(seconds),
        bridge_s: fault.bridge.map(seconds),
        join_s: fault.join.map(seconds),
        failure: fault.failure.clone(),
    };
    observed.faults.iter().map(report).collect()
}

/// The outages, in the order in which they began.
fn outages(observed: &Observed) -> Vec<OutageReport> {
    let mut outages: Vec<_> = observed.gaps.iter().filter(|gap| gap.is_outage()).collect();
    outages.sort_unstable_by_key(|gap| std::cmp::Reverse(gap.length()));
    outages.truncate(MAX_LISTED);
    outages.sort_unstable_by_key(|gap| gap.begins);
    let report = |gap: &Gap| {
        let attribution = attribute(gap, &observed.faults);
        let (cause, elsewhere) = match attribution {
            Attribution::Fault(fault) => (fault.cause.to_string(), None),
            Attribution::Elsewhere(fault) => (NONE.to_owned(), Some(fault.cause.to_string())),
            Attribution::None => (NONE.to_owned(), None),
        };
        let excerpt = observed.excerpts.iter().find(|excerpt| excerpt.gap == *gap);
        OutageReport {
            from: observed.names[gap.from].clone(),
            to: observed.names[gap.to].clone(),
            clock: clock(observed.started_at, gap.begins),
            at_s: seconds(gap.begins),
            seconds: seconds(gap.length()),
            after_s: seconds(attribution.unexcused(gap)),
            router_s: seconds(attribution.by_routers(gap, &observed.openings)),
            lost: gap.lost,
            cause,
            elsewhere,
            log: excerpt.map(|excerpt| excerpt.lines.clone()).unwrap_or_default(),
        }
    };
    outages.into_iter().map(report).collect()
}

/// The last fault before a time, if that was recent.
fn during(observed: &Observed, begins: Duration, ends: Duration) -> String {
    let recent = |fault: &&InjectedFault| {
        fault.begins <= ends && fault.over.is_none_or(|over| begins <= over + AFTERMATH)
    };
    let fault = observed.faults.iter().rev().find(recent);
    fault.map_or_else(
        || NONE.to_owned(),
        |fault| {
            let names: Vec<_> = fault.nodes.iter().map(|node| observed.names[*node].as_str()).collect();
            format!("{}, {}", fault.cause, names.join(" "))
        },
    )
}

fn transfers(observed: &Observed) -> TransferReport {
    let done: Vec<_> = observed.transfers.iter().filter(|run| run.failure.is_none()).collect();
    let lengths: Vec<_> = done.iter().map(|run| run.ends.saturating_sub(run.begins)).collect();
    let failed = observed.transfers.iter().filter_map(|run| {
        let failure = run.failure.as_ref()?.lines().next().unwrap_or_default();
        Some(EventReport {
            node: observed.names[run.from].clone(),
            clock: clock(observed.started_at, run.begins),
            what: format!("to {}: {failure}", observed.names[run.to]),
            during: during(observed, run.begins, run.ends),
        })
    });
    TransferReport {
        intact: done.iter().filter(|run| run.intact).count(),
        wrong: done.iter().filter(|run| !run.intact).count(),
        longest_s: seconds(lengths.iter().max().copied().unwrap_or_default()),
        median_s: seconds(median(lengths)),
        failed: failed.collect(),
    }
}

fn usage(observed: &Observed) -> Vec<UsageReport> {
    let judged = observed.seconds >= JUDGED_AFTER;
    let mut reports = Vec::new();
    for node in &observed.watched {
        for (process, usage) in &node.usage {
            for (what, series, least) in [
                ("memory", &usage.memory, Some(LEAST_MEMORY)),
                ("descriptors", &usage.descriptors, Some(LEAST_DESCRIPTORS)),
                ("state files", &usage.files, None),
                ("state bytes", &usage.bytes, None),
            ] {
                let Some(quarters) = quarters(series) else { continue };
                // Routers are not i2plan's, and state grows with the members that have been.
                let least = least.filter(|_| judged && *process != "router");
                reports.push(UsageReport {
                    node: node.name.clone(),
                    process: (*process).to_owned(),
                    what,
                    first: quarters[0],
                    last: quarters[3],
                    grows: least.is_some_and(|least| grows_steadily(quarters, least)),
                });
            }
        }
    }
    reports
}

fn logs(observed: &Observed) -> Vec<LogReport> {
    let of_node = |node: &WatchedNode| {
        let name = node.name.clone();
        let reports = node.counts.iter().map(move |(daemon, count)| LogReport {
            node: name.clone(),
            daemon: daemon.clone(),
            lines: count.lines,
            lines_per_hour: (count.lines as f64 / observed.seconds.max(1.0) * 3600.0).round(),
            warnings: count.warnings,
            errors: count.errors,
        });
        reports.collect::<Vec<_>>()
    };
    observed.watched.iter().flat_map(of_node).collect()
}

/// Ends of daemons that no fault explains, and panics.
fn events(observed: &Observed) -> (Vec<EventReport>, Vec<EventReport>) {
    let (mut exits, mut panics) = (Vec::new(), Vec::new());
    for (index, node) in observed.watched.iter().enumerate() {
        let report = |at: Duration, what: &str| EventReport {
            node: node.name.clone(),
            clock: clock(observed.started_at, at),
            what: what.to_owned(),
            during: during(observed, at, at),
        };
        let unexplained = unexplained(&node.exits, index, &observed.faults);
        exits.extend(unexplained.into_iter().map(|exit| report(exit.at, &exit.line)));
        panics.extend(node.panics.iter().map(|(at, line)| report(*at, line)));
    }
    (exits, panics)
}

/// The ends of a node's daemons that no fault explains. Each fault explains one.
fn unexplained<'a>(exits: &'a [Exit], node: usize, faults: &[InjectedFault]) -> Vec<&'a Exit> {
    let mut faults: Vec<_> = faults.iter().filter(|fault| fault.nodes.contains(&node)).collect();
    let unexplained = exits.iter().filter(|exit| {
        let explains = |fault: &&InjectedFault| {
            fault.cause.ends(&exit.daemon) && (fault.begins..fault.begins + END_AFTER).contains(&exit.at)
        };
        let explained = faults.iter().position(explains);
        explained.map(|fault| faults.remove(fault)).is_none()
    });
    unexplained.collect()
}

fn bounds(
    outages: &[OutageReport],
    usage: &[UsageReport],
    exits: &[EventReport],
    panics: &[EventReport],
    transfers: &TransferReport,
) -> Vec<BoundReport> {
    let own = |outage: &OutageReport| outage.after_s - outage.router_s;
    let longest = outages.iter().max_by(|a, b| own(a).total_cmp(&own(b)));
    let grown = |what: &str| {
        let grown = usage.iter().filter(|usage| usage.what == what && usage.grows);
        let grown: Vec<_> = grown
            .map(|usage| format!("{} {}: {} to {}", usage.node, usage.process, usage.first, usage.last))
            .collect();
        BoundReport {
            bound: format!("{what} of a process of i2plan that grow steadily: none"),
            holds: grown.is_empty(),
            seen: if grown.is_empty() { "none".to_owned() } else { grown.join("; ") },
        }
    };
    let none = |bound: &str, count: usize| BoundReport {
        bound: format!("{bound}: none"),
        holds: count == 0,
        seen: count.to_string(),
    };
    vec![
        BoundReport {
            bound: format!(
                "outage after its fault is over, but for the time that routers take to open sessions: at most {} s",
                LONGEST.as_secs()
            ),
            holds: longest.is_none_or(|outage| own(outage) <= LONGEST.as_secs_f64()),
            seen: longest.map_or_else(
                || "none".to_owned(),
                |longest| {
                    let OutageReport { from, to, clock, cause, .. } = longest;
                    format!("{:.1} s, {from} to {to}, {clock}, {cause}", own(longest))
                },
            ),
        },
        grown("memory"),
        grown("descriptors"),
        none("daemons that end by themselves", exits.len()),
        none("panics", panics.len()),
        none("transfers with a wrong hash", transfers.wrong),
    ]
}

/// Prints it.
///
/// # Errors
/// If a bound is broken, or the run ended before its time.
pub fn print(outcome: &Outcome, json: bool) -> Result<(), Failure> {
    if json {
        let text = serde_json::to_string_pretty(outcome).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        print_causes(outcome);
        print_outages(outcome);
        print_usage(outcome);
        print_events(outcome);
    }
    if let Some(why) = &outcome.ended_early {
        return Err(Failure::new(why));
    }
    match outcome.bounds.iter().filter(|bound| !bound.holds).count() {
        0 => Ok(()),
        broken => Err(Failure::new(format!("{broken} bounds are broken"))),
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn print_causes(outcome: &Outcome) {
    let Outcome { router, seed, nodes, seconds, probes, .. } = outcome;
    println!(
        "routers of {}, {nodes} nodes, seed {seed}, {:.0} minutes; {} of {} probes lost, {} late",
        router.name(),
        seconds / 60.0,
        probes.lost,
        probes.sent,
        probes.late
    );
    println!("An outage: no probe from one node to another answered for {:.0} s.\n", OUTAGE.as_secs_f64());
    println!(
        "{:<24} {:>6} {:>6} {:>6} {:>8} {:>8} {:>9} {:>15} {:>15} {:>9} {:>15} {:>15}",
        "cause",
        "faults",
        "failed",
        "lost",
        "outages",
        "median",
        "longest",
        "after med/max",
        "i2plan's med/max",
        "elsewhere",
        "bridge med/max",
        "join med/max"
    );
    for row in &outcome.causes {
        let pair = |one, other| format!("{}/{}", optional(one), optional(other));
        println!(
            "{:<24} {:>6} {:>6} {:>6} {:>8} {:>8.1} {:>9.1} {:>15} {:>15} {:>9} {:>15} {:>15}",
            row.cause,
            row.faults,
            row.failed,
            row.lost,
            row.outages,
            row.median_s,
            row.longest_s,
            pair(Some(row.median_after_s), Some(row.longest_after_s)),
            pair(Some(row.median_own_s), Some(row.longest_own_s)),
            row.elsewhere,
            pair(row.bridge_median_s, row.bridge_longest_s),
            pair(row.join_median_s, row.join_longest_s),
        );
    }
}

fn print_outages(outcome: &Outcome) {
    println!("\nOutages that no fault of their nodes explains, or of more than 5 s after it was over:");
    for outage in &outcome.outages {
        if outage.cause != NONE && outage.after_s <= 5.0 {
            continue;
        }
        let elsewhere =
            outage.elsewhere.as_ref().map_or_else(String::new, |what| format!(" (elsewhere: {what})"));
        println!(
            "{} {} to {}: {:.1} s, {:.1} s after its fault, {:.1} s of that for the router: {}{elsewhere}",
            outage.clock,
            outage.from,
            outage.to,
            outage.seconds,
            outage.after_s,
            outage.router_s,
            outage.cause
        );
    }
}

/// Of each process and use the node in which it grew most, and of each daemon the node that logged most; `--json` has
/// them all.
fn print_usage(outcome: &Outcome) {
    let most_grown: BTreeMap<_, _> =
        sorted_by(&outcome.usage, |usage| i128::from(usage.last) - i128::from(usage.first))
            .map(|usage| ((&usage.process, usage.what), usage))
            .collect();
    println!("\n{:<11} {:<12} {:>14} {:>14}  on", "process", "use", "first quarter", "last quarter");
    for ((process, what), UsageReport { node, first, last, grows, .. }) in most_grown {
        let mark = if *grows { "  GROWS" } else { "" };
        println!("{process:<11} {what:<12} {first:>14} {last:>14}  {node}{mark}");
    }
    let most_logged: BTreeMap<_, _> =
        sorted_by(&outcome.logs, |log| i128::from(log.lines)).map(|log| (&log.daemon, log)).collect();
    println!("\n{:<11} {:>14} {:>9} {:>7}  on", "logged by", "lines per hour", "warnings", "errors");
    for (daemon, LogReport { node, lines_per_hour, warnings, errors, .. }) in most_logged {
        println!("{daemon:<11} {lines_per_hour:>14.0} {warnings:>9} {errors:>7}  {node}");
    }
}

fn sorted_by<T>(values: &[T], key: impl Fn(&T) -> i128) -> impl Iterator<Item = &T> {
    let mut values: Vec<_> = values.iter().collect();
    values.sort_by_key(|value| key(value));
    values.into_iter()
}

fn print_events(outcome: &Outcome) {
    let TransferReport { intact, wrong, median_s, longest_s, failed } = &outcome.transfers;
    println!(
        "\nTCP transfers: {intact} with the right hash, {wrong} with a wrong one, {} failed; median {median_s:.1} s, \
         longest {longest_s:.1} s",
        failed.len()
    );
    let failures = outcome.faults.iter().filter_map(|fault| {
        let failure = fault.failure.as_ref()?.lines().next().unwrap_or_default().to_owned();
        let (node, during) = (fault.nodes.join(" "), fault.cause.to_string());
        Some(EventReport { node, clock: fault.clock.clone(), what: failure, during })
    });
    let failures: Vec<_> = failures.collect();
    for (title, events) in [
        ("failed transfers", failed),
        ("failed faults", &failures),
        ("daemons that ended by themselves", &outcome.exits),
        ("panics", &outcome.panics),
    ] {
        if !events.is_empty() {
            println!("\n{title}:");
        }
        for EventReport { node, clock, what, during } in events {
            println!("{clock} {node}: {what} ({during})");
        }
    }
    println!();
    for BoundReport { bound, holds, seen } in &outcome.bounds {
        println!("{}  {bound}: {seen}", if *holds { "ok  " } else { "FAIL" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fault(cause: Cause, node: usize, begins: u64) -> InjectedFault {
        let (begins, over) = (at(begins), Some(at(begins + 10)));
        InjectedFault {
            cause,
            nodes: vec![node],
            begins,
            over,
            bridge: Some(at(8)),
            join: None,
            failure: None,
        }
    }

    #[test]
    fn outages_are_counted_with_their_cause() {
        let faults = [fault(Cause::RouterKill, 0, 100), fault(Cause::RouterKill, 1, 200)];
        let gap = |from, to, begins, ends, lost| Gap { from, to, begins: at(begins), ends: at(ends), lost };
        let gaps = [
            gap(0, 1, 100, 112, 40),
            gap(2, 1, 200, 230, 99),
            // Too short for an outage; between other nodes; long after all.
            Gap { ends: at(200) + at(1) / 2, ..gap(1, 2, 200, 200, 1) },
            gap(2, 3, 101, 103, 7),
            gap(0, 1, 400, 404, 16),
        ];
        let mut openings = vec![Openings::default(); 4];
        openings[1].handle_seen(at(205), at(222));
        let [killed, none] = &causes(&faults, &gaps, &openings)[..] else { panic!("two causes") };
        assert_eq!((killed.faults, killed.lost, killed.outages, killed.elsewhere), (2, 140, 2, 1));
        assert_eq!(
            (killed.longest_s, killed.longest_after_s, killed.bridge_median_s),
            (30.0, 20.0, Some(8.0))
        );
        assert_eq!(killed.longest_own_s, 8.0);
        assert_eq!((none.cause.as_str(), none.lost, none.outages, none.longest_s), (NONE, 23, 2, 4.0));
        assert_eq!(none.longest_after_s, 4.0);
    }

    #[test]
    fn a_fault_explains_one_end_of_its_daemon() {
        let exit =
            |daemon: &str, seconds| Exit { at: at(seconds), daemon: daemon.to_owned(), line: String::new() };
        let exits = [exit("tund", 101), exit("tund", 102), exit("keyd", 103), exit("tund", 300)];
        let faults = [fault(Cause::Kill("tund"), 0, 100), fault(Cause::Kill("keyd"), 1, 103)];
        let found: Vec<_> = unexplained(&exits, 0, &faults).iter().map(|exit| exit.at).collect();
        assert_eq!(found, [at(102), at(103), at(300)]);
    }
}
