//! A whole network that stops and starts together, as after a power cut: nobody is there who knows how things are.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use lab::Failure;
use lab::node::{Lab, Node};
use lab::stats::Pings;
use lab::testing::sandboxed_within;
use lab::traffic::reach;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long it may take from the start of the daemons until all nodes reach each other, on emissary's routers.
const BOUND: Duration = Duration::from_secs(60);

/// How often the network stops and starts; `I2PLAN_LAB_CYCLES` names another number.
const CYCLES: u32 = 100;

/// How long a test may take in all.
const DEADLINE: Duration = Duration::from_secs(3 * 3600);

/// Waits until the node gets an echo from this address.
async fn answered(node: &Node, target: IpAddr, bound: Duration) -> Result<Option<Duration>, Failure> {
    let started = Instant::now();
    // Before, there is nothing that could take a packet.
    let is_up = node.until("the interface is up", BOUND, async |node| {
        Ok(node.status().await?.tunnel.interface.is_some())
    });
    if is_up.await.is_err() {
        return Ok(None);
    }
    let (target, left) = (target.to_string(), bound.saturating_sub(started.elapsed()).as_secs().max(1));
    let args = ["--json", "ping", &target, "-i", "0.2", "-W", "3", "-c", "1", "-w", &left.to_string()];
    let output = node.ctl(&args, "").await?;
    let pings: Pings = serde_json::from_str(&output.stdout)
        .map_err(|error| node.failure(&format!("`i2planctl ping` printed {:?} ({error})", output.stdout)))?;
    Ok((pings.received > 0).then(|| started.elapsed()))
}

/// The part of the node's log from there on.
fn log_from(node: &Node, from: usize) -> String {
    let log = std::fs::read(node.log()).unwrap_or_default();
    String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned()
}

/// Stops all nodes together and starts them together, many times, in every second time with their routers. Each time
/// all must reach each other again.
async fn stop_and_start(nodes: usize) -> Result<(), Failure> {
    let cycles = std::env::var("I2PLAN_LAB_CYCLES").map_or(CYCLES, |cycles| cycles.parse().unwrap());
    let mut lab = Lab::start().await?;
    for _ in 0..nodes {
        lab.add_node().await?;
    }
    lab.ready().await?;
    for joiner in &lab.nodes[1..] {
        joiner.join_by(&lab.nodes[0]).await?;
    }
    let mut addresses = Vec::new();
    for node in &lab.nodes {
        addresses.push(node.address().await?);
    }
    for from in &lab.nodes {
        for to in lab.nodes.iter().filter(|to| to.name != from.name) {
            reach(from, to).await?;
        }
    }
    let bound = BOUND * lab.routers().patience();
    let (mut times, mut failed) = (Vec::new(), 0);
    for cycle in 0..cycles {
        try_join_all(lab.nodes.iter_mut().map(Node::stop_daemons)).await?;
        let with_routers = cycle % 2 == 1;
        for index in (0..nodes).filter(|_| with_routers) {
            lab.kill_router(index).await?;
        }
        for index in (0..nodes).filter(|_| with_routers) {
            lab.restart_router(index).await?;
        }
        let logged = lab.nodes.iter().map(|node| log_from(node, 0).len()).collect::<Vec<_>>();
        for node in &mut lab.nodes {
            node.start_daemons()?;
        }
        let waits = lab.nodes.iter().enumerate().flat_map(|(index, node)| {
            let others = addresses.iter().enumerate().filter(move |(other, _)| *other != index);
            others.map(move |(_, address)| answered(node, *address, bound))
        });
        let answers = try_join_all(waits).await?;
        let restarted = if with_routers { "nodes and routers" } else { "nodes" };
        match answers.iter().copied().collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().max()) {
            Some(time) => {
                println!("{cycle:>3}: {restarted} back after {:.1} s", time.as_secs_f32());
                times.push(time);
            }
            None => {
                println!("{cycle:>3}: {restarted} not back after {} s: {answers:?}", bound.as_secs());
                failed += 1;
                for (node, logged) in lab.nodes.iter().zip(logged) {
                    println!("--- {}\n{}", node.name, log_from(node, logged));
                }
            }
        }
    }
    times.sort_unstable();
    let seconds = |time: Option<&Duration>| time.map_or(f32::NAN, Duration::as_secs_f32);
    println!(
        "{nodes} nodes on {}: {failed} of {cycles} times not back within {} s; else median {:.1} s, 90 % {:.1} s, \
         longest {:.1} s",
        lab.routers().name(),
        bound.as_secs(),
        seconds(times.get(times.len() / 2)),
        seconds(times.get(times.len() * 9 / 10)),
        seconds(times.last()),
    );
    assert_eq!(failed, 0);
    lab.stop().await
}

#[test]
#[ignore = "takes an hour: see CONTRIBUTING.md"]
fn two_that_stop_and_start_together_reach_each_other_within_a_minute() {
    let name = "two_that_stop_and_start_together_reach_each_other_within_a_minute";
    sandboxed_within(LAB, name, DEADLINE, async || stop_and_start(2).await);
}

#[test]
#[ignore = "takes an hour: see CONTRIBUTING.md"]
fn three_that_stop_and_start_together_reach_each_other_within_a_minute() {
    let name = "three_that_stop_and_start_together_reach_each_other_within_a_minute";
    sandboxed_within(LAB, name, DEADLINE, async || stop_and_start(3).await);
}
