//! Large meshes in virtual time: the daemon's own core, the real policies of `keyd`, and a modelled I2P between them.
//!
//! All that happens follows from the seed. What is measured: how long news takes to reach the members, what that
//! costs, and who is wrongly held to be out of reach. What must always hold is checked after every event.
//!
//! * `options`: what is to be simulated.
//! * `world`: the nodes (`node`), the time that passes, and what goes between them; [`network`]: the model of I2P.
//! * `script`: what happens in each scenario, in steps (`step`).
//! * `liars`: what members do that lie; `puppets`: what they make up.
//! * `watch`: measures; `measured`: what it keeps; `invariants`: what must always hold.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Failure;

mod invariants;
mod liars;
mod measured;
pub mod network;
mod node;
mod options;
mod puppets;
mod script;
mod step;
mod watch;
mod world;

use measured::{NewsReport, Verdicts};
use options::{HEARTBEAT, LOOK, QUIET};
pub use options::{Options, Scenario};
use world::{SimEvent, Traffic, World};

/// How long members run before anything is measured: until all have said at their start what the others know.
const WARM_UP: Duration = Duration::from_secs(120);

/// What was measured. Bytes are with those that I2P adds to each datagram.
#[derive(Debug, Serialize)]
pub struct SimReport {
    options: Options,
    /// Virtual seconds after the warm-up.
    seconds: f64,
    events: u64,
    news: Vec<NewsReport>,
    /// Members that could be reached all the time and were held to be out of reach, for each node and hour.
    false_verdicts: f64,
    verdicts: Verdicts,
    /// What a node sends in a second on average, by kind of message.
    sent: BTreeMap<&'static str, Sent>,
    /// What of that is gossip, by kind, without what is around it.
    carried: BTreeMap<&'static str, Sent>,
    bytes_per_second: f64,
    /// Of a hundred nodes, the one that sends most but one.
    bytes_per_second_p99: f64,
    /// In the two minutes before anything happened.
    bytes_per_second_quiet: f64,
    /// In the busiest half minute.
    bytes_per_second_peak: f64,
    /// Of the whole process, by the number of nodes; it grows with their number, because each knows all.
    memory_per_node: u64,
    /// That the nodes' cores have used, for a virtual hour: of all, and of each.
    cpu_seconds_per_hour: f64,
    cpu_milliseconds_per_node_hour: f64,
    /// Of all datagrams, in their order.
    trace: String,
}

/// Messages of one kind, or what they carry of one kind, of one node in a second.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sent {
    count: f64,
    bytes: f64,
}

/// Runs a simulation.
///
/// # Errors
/// If something that must always hold does not; with the seed, the time and the node.
pub fn run(options: Options) -> Result<SimReport, Failure> {
    if !(2..=20_000).contains(&options.nodes) || !(0.0..=0.9).contains(&options.loss) {
        return Err(Failure::new("a simulation has 2 to 20000 nodes and loses 0 to 90 % of its datagrams"));
    }
    if !(1..=60).contains(&options.pause) {
        return Err(Failure::new("what happens in a simulation is given 1 to 60 minutes"));
    }
    if options.liars.is_some_and(|liars| liars == 0 || liars > options.nodes / 2) {
        return Err(Failure::new("from one to half of the nodes of a simulation can lie"));
    }
    let mut world = World::new(options)?;
    if options.scenario == Scenario::Collisions {
        world.expect_holders();
    }
    world.at(LOOK, SimEvent::Look);
    world.run_until(WARM_UP)?;
    world.measure();
    world.run_until(WARM_UP + QUIET)?;
    let quiet = world.sent();
    let end = world.script();
    world.run_until(end)?;
    // Each has a deadline, at which it fails.
    while world.is_waiting() {
        let next = world.now + HEARTBEAT;
        world.run_until(next)?;
    }
    world.check_all()?;
    Ok(report(&world, quiet))
}

fn report(world: &World, quiet: u64) -> SimReport {
    let seconds = (world.now - WARM_UP).as_secs_f64();
    let count = world.nodes.len() as f64;
    let hours = seconds / 3600.0;
    let mut sent: Vec<u64> = world.nodes.iter().map(|node| node.sent).collect();
    sent.sort_unstable();
    let cpu = world.cpu.as_secs_f64() / hours;
    let each = |total: u64| total as f64 / seconds / count;
    let kinds = |traffic: &BTreeMap<&'static str, Traffic>| {
        let sent = |traffic: &Traffic| Sent { count: each(traffic.count), bytes: each(traffic.bytes) };
        traffic.iter().map(|(kind, traffic)| (*kind, sent(traffic))).collect()
    };
    let measured = (WARM_UP.as_secs() / world::SPAN.as_secs()) as usize;
    let peak = world.spans.iter().skip(measured).max().copied().unwrap_or(0);
    SimReport {
        options: world.options,
        seconds,
        events: world.handled,
        news: world.news(),
        false_verdicts: world.watch.verdicts.wrong as f64 / count / hours,
        verdicts: world.watch.verdicts,
        sent: kinds(&world.traffic),
        carried: kinds(&world.carried),
        bytes_per_second: world.sent() as f64 / seconds / count,
        bytes_per_second_p99: sent.get(sent.len() * 99 / 100).copied().unwrap_or(0) as f64 / seconds,
        bytes_per_second_quiet: quiet as f64 / QUIET.as_secs_f64() / world.options.nodes as f64,
        bytes_per_second_peak: peak as f64 / world::SPAN.as_secs_f64() / count,
        memory_per_node: crate::node::resident(std::process::id()).unwrap_or(0) / world.nodes.len() as u64,
        cpu_seconds_per_hour: cpu,
        cpu_milliseconds_per_node_hour: cpu * 1000.0 / count,
        trace: format!("{:016x}", world.trace),
    }
}

/// Prints a report for people.
pub fn print(report: &SimReport, started: Instant) {
    let SimReport { options, seconds, verdicts, .. } = report;
    println!(
        "{} nodes, {} % loss, seed {}: {:.0} virtual minutes, {} events in {:.0} s",
        options.nodes,
        options.loss * 100.0,
        options.seed,
        seconds / 60.0,
        report.events,
        started.elapsed().as_secs_f64()
    );
    let time = |time: Option<f64>| time.map_or("never".to_owned(), |time| format!("{time:.0} s"));
    let rounds = |rounds: Option<f64>| rounds.map_or("-".to_owned(), |rounds| format!("{rounds:.1}"));
    println!(
        "\n{:<28} {:>7} {:>8} {:>8} {:>8}   rounds of gossip",
        "known to", "members", "50 %", "99 %", "all"
    );
    for news in &report.news {
        println!(
            "{:<28} {:>7} {:>8} {:>8} {:>8}   {} and {}",
            news.what,
            news.audience,
            time(news.half),
            time(news.most),
            time(news.all),
            rounds(news.most_rounds),
            rounds(news.all_rounds)
        );
    }
    println!("\nheld to be out of reach");
    println!(
        "  while it was there           {:.4} for each node and hour, for {:.0} s at most",
        report.false_verdicts, verdicts.longest_wrong
    );
    println!(
        "  after it was there again     {} times, for {:.0} s at most",
        verdicts.outdated, verdicts.longest_outdated
    );
    println!("\nsent by each node, with what I2P adds");
    println!(
        "  {:.0} bytes a second; 99 % of them less than {:.0}; {:.0} while nothing happened; {:.0} in the busiest \
         half minute",
        report.bytes_per_second,
        report.bytes_per_second_p99,
        report.bytes_per_second_quiet,
        report.bytes_per_second_peak
    );
    let print = |kinds: &BTreeMap<&str, Sent>, unit: &str| {
        for (kind, Sent { count, bytes }) in kinds {
            println!("  {kind:<14} {bytes:>7.1} bytes a second, {:>6.2} {unit} a minute", count * 60.0);
        }
    };
    print(&report.sent, "datagrams");
    println!("\nof that, what they tell each other, without what is around it");
    print(&report.carried, "pieces");
    println!(
        "\nmemory for each node         {} KiB (grows with their number: each knows all)",
        report.memory_per_node / 1024
    );
    println!(
        "CPU time for a virtual hour  {:.0} ms for each node, {:.0} s for all",
        report.cpu_milliseconds_per_node_hour, report.cpu_seconds_per_hour
    );
    println!("trace                        {}", report.trace);
}
