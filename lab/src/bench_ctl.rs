//! The benchmark of the tool: how long `i2planctl` takes with a node that knows a thousand members.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Failure;
use crate::node::{Lab, Node};
use crate::population::found;
use crate::process::Spawn;
use crate::progress::Progress;
use crate::sandbox::bin;
use crate::stats::Times;

/// Members that the node knows beside itself.
const MEMBERS: usize = 1000;

/// How often each command is run.
const RUNS: usize = 40;

/// What is measured; the first, which asks no node, is what the others are compared with.
const COMMANDS: [&[&str]; 4] = [&["version"], &["status"], &["peers"], &["peers", "--json"]];

#[derive(Debug, Serialize)]
struct Row {
    command: String,
    times: Times,
    /// The median by that of `i2planctl version` in the same run.
    ratio: f64,
}

/// Runs the benchmark in the sandbox.
///
/// # Errors
/// If anything does not work.
pub async fn run(json: bool) -> Result<(), Failure> {
    let progress = Progress::new();
    progress.step("starting a private I2P network and a node");
    let mut lab = Lab::with_nodes(1).await?;
    progress.step(format!("making {MEMBERS} members, and the node their founder"));
    let node = &mut lab.nodes[0];
    node.stop_daemons().await?;
    found(node, MEMBERS)?;
    node.start_daemons()?;
    node.ready().await?;
    let known = async |node: &Node| Ok(node.peers().await?.len() == MEMBERS);
    node.until("it knows them all", Duration::from_secs(60), known).await?;
    progress.step(format!("each command {RUNS} times"));
    let mut rows: Vec<Row> = Vec::new();
    for command in COMMANDS {
        let times = measure(node, command).await?;
        let ratio = times.median / rows.first().map_or(times.median, |row| row.times.median);
        rows.push(Row { command: command.join(" "), times, ratio });
    }
    progress.done();
    if json {
        let text = serde_json::to_string_pretty(&rows).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        println!("with {MEMBERS} members, milliseconds from start to end of the program:");
        println!("{:<14} {:>8} {:>8} {:>8} {:>8}", "i2planctl", "median", "p90", "max", "ratio");
        for Row { command, times, ratio } in rows {
            let Times { median, p90, max, .. } = times;
            println!("{command:<14} {median:>8.1} {p90:>8.1} {max:>8.1} {ratio:>8.2}");
        }
    }
    lab.stop().await
}

async fn measure(node: &Node, command: &[&str]) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let socket = [OsString::from("--socket"), node.socket().into_os_string()];
        let args = socket.into_iter().chain(command.iter().map(OsString::from));
        let program = Spawn::new(&bin().join("i2planctl"), args);
        let started = Instant::now();
        let output = program.output("").await?;
        times.push(started.elapsed());
        if !output.status.success() {
            return Err(node.failure(&output.stderr));
        }
    }
    Times::of(times).ok_or_else(|| Failure::new("nothing was measured"))
}
