//! WireGuard keys are rotated under traffic.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::signal;
use lab::testing::sandboxed;
use lab::traffic::{ping, reach};
use nix::sys::signal::Signal;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// An epoch lasts a minute at least.
const MINUTE: Duration = Duration::from_secs(90);

/// How long gossip may take to reach a member.
const GOSSIP: Duration = Duration::from_secs(60);

/// Rotates a node's key.
async fn rotate(node: &Node) -> Result<String, Failure> {
    let rotated = node.ctl_json::<Value>(&["key", "rotate"], "").await?;
    let rotated = rotated.map_err(|error| node.failure(&error.message))?;
    Ok(rotated["wireguard"]["public_key"].as_str().unwrap_or_default().to_owned())
}

/// Waits until a node's key may be rotated again.
async fn may_rotate(node: &Node) -> Result<(), Failure> {
    node.until("its epoch is a minute old", MINUTE, async |node| {
        let status = node.ctl_json::<Value>(&["key", "status"], "").await?;
        let began = status.ok().and_then(|status| status["wireguard"]["not_before"].as_u64());
        let next = began.map(|began| UNIX_EPOCH + Duration::from_secs(began + 60));
        Ok(next.is_some_and(|next| next <= SystemTime::now()))
    })
    .await
}

/// The key that a node knows of its only peer.
async fn known(node: &Node) -> Result<String, Failure> {
    let peers = node.ctl_json::<Value>(&["peers"], "").await?;
    let peers = peers.map_err(|error| node.failure(&error.message))?;
    Ok(peers["peers"][0]["public_key"].as_str().unwrap_or_default().to_owned())
}

/// Two nodes in one network.
async fn start() -> Result<Lab, Failure> {
    let lab = Lab::with_nodes(2).await?;
    let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
    two.join_by(one).await?;
    reach(two, one).await?;
    Ok(lab)
}

#[test]
fn a_rotation_loses_no_packet() {
    sandboxed(LAB, "a_rotation_loses_no_packet", async || {
        let lab = start().await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        let target = one.address().await?;
        for (node, other) in [(one, two), (two, one)] {
            may_rotate(node).await?;
            let before = known(other).await?;
            let work = async {
                let key = rotate(node).await?;
                other
                    .until("it knows the new key", GOSSIP, async |other| Ok(known(other).await? == key))
                    .await?;
                // tund has it by now.
                node.until("the interface has it", GOSSIP, async |node| {
                    let status = node.ctl_json::<Value>(&["status"], "").await?;
                    Ok(status.is_ok_and(|status| status["tunnel"]["public_key"] == key.as_str()))
                })
                .await?;
                Ok::<_, Failure>(key)
            };
            let (pings, key) = tokio::try_join!(ping(two, target, 150, false), work)?;
            assert_ne!(key, before);
            assert_eq!(pings.received, pings.sent, "while {} rotated its key", node.name);
        }
        let pings = ping(two, target, 10, false).await?;
        assert_eq!(pings.received, pings.sent);
        lab.stop().await
    });
}

#[test]
fn a_node_that_slept_through_a_rotation_comes_back_by_itself() {
    sandboxed(LAB, "a_node_that_slept_through_a_rotation_comes_back_by_itself", async || {
        let lab = start().await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        let asleep = two.freeze(&["meshd", "tund"]).await?;
        may_rotate(one).await?;
        rotate(one).await?;
        // As if the time had passed in which the key before is accepted: a new tund has the new key alone.
        let killed = one.daemon_pid("tund").await?;
        signal(killed, Signal::SIGKILL)?;
        one.until("tund is back", GOSSIP, async |one| {
            Ok(one.daemon_pid("tund").await? != killed && one.status().await?.tunnel.interface.is_some())
        })
        .await?;
        asleep.thaw()?;
        reach(two, one).await?;
        lab.stop().await
    });
}
