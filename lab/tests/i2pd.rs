//! Nodes on i2pd, the router that most of them have.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::{Duration, Instant};

use lab::Failure;
use lab::i2p::kind::Routers;
use lab::node::{Lab, Node};
use lab::testing::{sandboxed, skip};
use lab::traffic::{ping, reach, transfer, until_flowing};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Bytes of a transfer.
const BYTES: u64 = 1_000_000;

/// How long traffic may take to flow again once a router is back.
const RECOVERY: Duration = Duration::from_secs(120);

/// Runs a test, if i2pd is installed.
fn on_i2pd(name: &str, body: impl AsyncFnOnce() -> Result<(), Failure>) {
    match Routers::I2pd.check() {
        Ok(()) => sandboxed(LAB, name, body),
        Err(missing) => skip(name, &missing),
    }
}

/// Lets the second node join, and moves bytes both ways.
async fn join_and_talk([one, two]: [&Node; 2]) -> Result<(), Failure> {
    let started = Instant::now();
    two.join_by(one).await?;
    reach(two, one).await?;
    println!("join to ping: {:.1} s", started.elapsed().as_secs_f32());
    for (from, to) in [(one, two), (two, one)] {
        println!("{:?}", ping(from, to.address().await?, 10, false).await?);
        println!("{:?}", transfer(from, to, to.address().await?, BYTES).await?);
    }
    Ok(())
}

#[test]
fn on_i2pd_nodes_join_talk_and_come_back_after_their_router() {
    on_i2pd("on_i2pd_nodes_join_talk_and_come_back_after_their_router", async || {
        let mut lab = Lab::start_on(Routers::I2pd).await?;
        for _ in 0..2 {
            lab.add_node().await?;
        }
        lab.ready().await?;
        join_and_talk([&lab.nodes[0], &lab.nodes[1]]).await?;
        let before = lab.nodes[1].network().await?;
        lab.kill_router(1).await?;
        let lost = ping(&lab.nodes[0], before.ipv4.into(), 2, false).await?;
        assert_eq!(lost.received, 0);
        let started = Instant::now();
        lab.restart_router(1).await?;
        until_flowing([&lab.nodes[0], &lab.nodes[1]], RECOVERY).await?;
        println!("back after {:.1} s", started.elapsed().as_secs_f32());
        assert_eq!(lab.nodes[1].network().await?, before);
        lab.stop().await
    });
}

#[test]
fn on_i2pd_tunnels_may_have_no_hop_or_two() {
    on_i2pd("on_i2pd_tunnels_may_have_no_hop_or_two", async || {
        let mut lab = Lab::start_on(Routers::I2pd).await?;
        for length in [0, 2] {
            lab.tunnel_length = length;
            lab.add_node().await?;
        }
        lab.ready().await?;
        join_and_talk([&lab.nodes[0], &lab.nodes[1]]).await?;
        lab.stop().await
    });
}

#[test]
fn on_i2pd_two_nodes_share_a_router() {
    on_i2pd("on_i2pd_two_nodes_share_a_router", async || {
        let mut lab = Lab::start_on(Routers::I2pd).await?;
        lab.add_two_on_one_router().await?;
        lab.ready().await?;
        join_and_talk([&lab.nodes[0], &lab.nodes[1]]).await?;
        // Both at once, as when the host is started.
        for node in &mut lab.nodes {
            node.stop_daemons().await?;
        }
        let started = Instant::now();
        for node in &mut lab.nodes {
            node.start_daemons()?;
        }
        lab.ready().await?;
        until_flowing([&lab.nodes[0], &lab.nodes[1]], RECOVERY).await?;
        println!("back after {:.1} s", started.elapsed().as_secs_f32());
        lab.stop().await
    });
}
