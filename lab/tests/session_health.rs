//! Sessions that stop carrying traffic, on real routers: how long until they carry it again. Each test prints that time.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use i2plan_ipc::api::meshd::SessionState;
use lab::i2p::sam;
use lab::netns::set_uplink;
use lab::node::{Lab, Node};
use lab::process::Spawn;
use lab::testing::{sandboxed, sandboxed_within};
use lab::traffic::{reach, until_flowing};
use lab::{Failure, firewall};
use tokio::time::sleep;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long a node may take to work again once its router can carry traffic, on emissary's routers.
const RECOVERY: Duration = Duration::from_secs(60);

/// The daemons that a sleep stops.
const DAEMONS: [&str; 4] = ["keyd", "connector", "meshd", "tund"];

async fn start_joined() -> Result<Lab, Failure> {
    let lab = Lab::with_nodes(2).await?;
    lab.nodes[1].join_by(&lab.nodes[0]).await?;
    for (from, to) in [(1, 0), (0, 1)] {
        reach(&lab.nodes[from], &lab.nodes[to]).await?;
    }
    Ok(lab)
}

/// Waits until packets go both ways, and prints how long that took.
async fn recovers(lab: &Lab, what: &str) -> Result<(), Failure> {
    let began = Instant::now();
    until_flowing([&lab.nodes[0], &lab.nodes[1]], RECOVERY).await?;
    println!("{what}: traffic flows again after {:.1} s", began.elapsed().as_secs_f64());
    // And gossip does: each has heard the other since.
    for node in &lab.nodes {
        let heard = async |node: &Node| hears(node, began.elapsed()).await;
        node.until("it hears the other over control", RECOVERY, heard).await?;
    }
    println!("{what}: both hear each other after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Whether a node has heard its only peer in this time.
async fn hears(node: &Node, within: Duration) -> Result<bool, Failure> {
    let peers = node.control().await?.peers().await.map_err(|error| node.failure(&error.to_string()))?;
    let heard = peers.iter().filter_map(|peer| peer.last_heard).min();
    // Whole seconds that have passed: less of them than that.
    Ok(heard.is_some_and(|heard| heard < within.as_secs()))
}

#[test]
fn a_router_that_hangs_and_goes_on() {
    sandboxed(LAB, "a_router_that_hangs_and_goes_on", async || {
        let mut lab = start_joined().await?;
        lab.router(1)?.pause()?;
        sleep(Duration::from_secs(60)).await;
        lab.router(1)?.resume()?;
        recovers(&lab, "a router that hung for 60 s").await?;
        lab.stop().await
    });
}

#[test]
fn a_router_that_loses_its_network() {
    sandboxed(LAB, "a_router_that_loses_its_network", async || {
        let lab = start_joined().await?;
        set_uplink(&lab.nodes[1].name, false).await?;
        sleep(Duration::from_secs(120)).await;
        set_uplink(&lab.nodes[1].name, true).await?;
        // The other routers' TCP waits for up to another 100 s before it sends again.
        let carried = lab.carried(1, 0).await?;
        println!("the router carries traffic again after {:.1} s", carried.as_secs_f64());
        recovers(&lab, "a router without a network for 120 s").await?;
        lab.stop().await
    });
}

#[test]
fn a_connection_to_the_bridge_that_somebody_ends() {
    sandboxed(LAB, "a_connection_to_the_bridge_that_somebody_ends", async || {
        let lab = start_joined().await?;
        // What `ss -K` does too: the kernel resets both ends of each session's control connection.
        let args = ["-K", "dst", "127.0.0.1", "dport", "=", "7656"].map(OsString::from);
        let ended = Spawn::new(Path::new("/usr/bin/ss"), args).namespace(Some(&lab.nodes[1].name));
        let ended = ended.output("").await?;
        assert!(ended.status.success() && ended.stdout.lines().count() >= 3, "{ended:?}");
        let log = lab.nodes[1].log();
        let closed = async |_: &Node| Ok(std::fs::read_to_string(&log)?.contains("a session is down"));
        lab.nodes[1].until("the ends are noticed", RECOVERY, closed).await?;
        // emissary 0.4 refuses the permanent destination for a minute and more then: another takes its place.
        recovers(&lab, "connections to the bridge that were reset").await?;
        lab.stop().await
    });
}

#[test]
fn a_node_that_was_asleep() {
    sandboxed(LAB, "a_node_that_was_asleep", async || sleeps(20).await);
}

#[test]
#[ignore = "takes five minutes: see CONTRIBUTING.md"]
fn a_node_that_was_asleep_for_longer_than_wireguard_sessions_last() {
    let name = "a_node_that_was_asleep_for_longer_than_wireguard_sessions_last";
    sandboxed(LAB, name, async || sleeps(200).await);
}

/// What a process sees of a host that sleeps: it does nothing for so many seconds, and the time since the boot has gone on.
async fn sleeps(seconds: u64) -> Result<(), Failure> {
    let lab = start_joined().await?;
    let asleep = lab.nodes[1].freeze(&DAEMONS).await?;
    sleep(Duration::from_secs(seconds)).await;
    asleep.thaw()?;
    recovers(&lab, &format!("daemons that were stopped for {seconds} s")).await?;
    lab.stop().await
}

/// As where a router goes on with end-to-end sessions that the others cannot read: the members are heard, and none hears what
/// comes from this node's control destination.
#[test]
fn a_node_that_hears_members_that_do_not_hear_it() {
    sandboxed(LAB, "a_node_that_hears_members_that_do_not_hear_it", async || {
        let lab = Lab::with_nodes(3).await?;
        for joiner in &lab.nodes[1..] {
            joiner.join_by(&lab.nodes[0]).await?;
            reach(joiner, &lab.nodes[0]).await?;
        }
        reach(&lab.nodes[2], &lab.nodes[1]).await?;
        let (node, port) = (&lab.nodes[2], sam::UDP.port());
        // What datagrams through its control session to the bridge begin with.
        let header: String = b"3.0 i2plan-contr".iter().map(|byte| format!("{byte:02x}")).collect();
        firewall::block(&node.name, &format!("udp dport {port} @th,64,128 0x{header}")).await?;
        let began = Instant::now();
        let opened = async |node: &Node| {
            let status = node.control().await?.status().await;
            let sam = status.map_err(|error| node.failure(&error.to_string()))?.sam;
            Ok(sam.fallback.is_some_and(|fallback| fallback.state == SessionState::Up))
        };
        node.until("it has a fallback session", RECOVERY * 2, opened).await?;
        println!(
            "a fallback session is open {:.1} s after nobody hears the node",
            began.elapsed().as_secs_f64()
        );
        let since = Instant::now();
        for other in &lab.nodes[..2] {
            let hears =
                async |other: &Node| Ok(heard_from(other, &node.name).await? < since.elapsed().as_secs());
            other.until("it hears the node again", RECOVERY, hears).await?;
        }
        println!("all hear it after {:.1} s", began.elapsed().as_secs_f64());
        lab.stop().await
    });
}

/// How many whole seconds ago a node heard one of its peers over control.
async fn heard_from(node: &Node, peer: &str) -> Result<u64, Failure> {
    let peers = node.control().await?.peers().await.map_err(|error| node.failure(&error.to_string()))?;
    let heard = peers.iter().find(|one| one.name == peer).and_then(|peer| peer.last_heard);
    Ok(heard.unwrap_or(u64::MAX))
}

#[test]
fn a_router_that_is_killed_and_started() {
    sandboxed(LAB, "a_router_that_is_killed_and_started", async || {
        let mut lab = start_joined().await?;
        lab.kill_router(1).await?;
        sleep(Duration::from_secs(30)).await;
        lab.restart_router(1).await?;
        recovers(&lab, "a router that was away for 30 s").await?;
        lab.stop().await
    });
}

#[test]
fn a_network_that_stops_as_a_whole() {
    sandboxed(LAB, "a_network_that_stops_as_a_whole", async || {
        let mut lab = start_joined().await?;
        for round in 1..=4 {
            for node in &mut lab.nodes {
                node.stop_daemons().await?;
            }
            for node in &mut lab.nodes {
                node.start_daemons()?;
            }
            lab.ready().await?;
            recovers(&lab, &format!("a network that stopped as a whole, time {round}")).await?;
        }
        lab.stop().await
    });
}

#[test]
#[ignore = "takes a quarter of an hour: see CONTRIBUTING.md"]
fn a_bridge_that_takes_ten_minutes_for_its_first_tunnel() {
    let name = "a_bridge_that_takes_ten_minutes_for_its_first_tunnel";
    sandboxed_within(LAB, name, Duration::from_secs(1800), async || {
        let mut lab = Lab::with_nodes(1).await?;
        lab.add_node().await?;
        set_uplink(&lab.nodes[1].name, false).await?;
        lab.kill_router(1).await?;
        lab.restart_router(1).await?;
        sleep(Duration::from_secs(600)).await;
        assert!(!lab.nodes[1].status().await?.sessions_are_open());
        set_uplink(&lab.nodes[1].name, true).await?;
        let carried = lab.carried(1, 0).await?;
        println!("the router carries traffic {:.1} s after it has a network", carried.as_secs_f64());
        let began = Instant::now();
        lab.nodes[1].ready().await?;
        println!("the node's sessions are open {:.1} s after that", began.elapsed().as_secs_f64());
        lab.ready().await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        lab.stop().await
    });
}
