//! Restarts that nobody notices: daemons end and come back under traffic.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::signal;
use lab::testing::sandboxed;
use lab::traffic::{ping, reach, transfer_at};
use nix::sys::signal::Signal;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long daemons may take to be back.
const BACK: Duration = Duration::from_secs(60);

/// Pings of a case, five a second.
const PINGS: u32 = 60;

/// Bytes of a transfer, and how many of them a second: it goes on for most of a case.
const BYTES: u64 = 500_000;
const RATE: u32 = 50_000;

/// Pings that may be lost when `tund` ends: a second's.
const MOST: u32 = 5;

/// What must be the same after a restart.
#[derive(Debug, PartialEq, Eq)]
struct Lasting {
    node: Option<String>,
    index: u32,
    control: Option<String>,
    data: Option<String>,
}

async fn lasting(node: &Node) -> Result<Lasting, Failure> {
    let status = node.status().await?;
    Ok(Lasting {
        node: status.node_id,
        index: node.interface_index().await?,
        control: status.sam.control.destination,
        data: status.sam.data.destination,
    })
}

/// Ends these daemons of a node while there is traffic in both directions: how many pings to it and from it were lost.
async fn end(here: &Node, there: &Node, daemons: &[&str], how: Signal) -> Result<[u32; 2], Failure> {
    let (own, other) = (here.address().await?, there.address().await?);
    let mut ended = Vec::new();
    for daemon in daemons {
        ended.push(here.daemon_pid(daemon).await?);
    }
    let work = async {
        // With traffic before, and enough of it afterwards.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for pid in &ended {
            signal(*pid, how)?;
        }
        here.until("all daemons are back", BACK, async |node| {
            for (daemon, pid) in daemons.iter().zip(&ended) {
                if node.daemon_pid(daemon).await? == *pid {
                    return Ok(false);
                }
            }
            let status = node.status().await?;
            Ok(status.sessions_are_open() && status.tunnel.interface.is_some())
        })
        .await
    };
    let (to, from, _, ()) = tokio::try_join!(
        ping(there, own, PINGS, false),
        ping(here, other, PINGS, false),
        transfer_at(there, here, own, BYTES, RATE),
        work
    )?;
    Ok([to, from].map(|pings| pings.sent - pings.received))
}

#[test]
fn restarts_of_daemons_go_unnoticed() {
    sandboxed(LAB, "restarts_of_daemons_go_unnoticed", async || {
        let lab = Lab::with_nodes(2).await?;
        let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
        there.join_by(here).await?;
        reach(there, here).await?;
        reach(here, there).await?;
        let before = lasting(here).await?;
        println!("ended          by        lost to  lost from  of {PINGS}");
        for (daemons, most) in [
            (&["keyd"][..], 0),
            (&["connector"], 0),
            (&["meshd"], 0),
            (&["tund"], MOST),
            // Who comes back first finds nobody; the sessions are there for all that.
            (&["meshd", "tund"], MOST),
        ] {
            for how in [Signal::SIGKILL, Signal::SIGTERM] {
                let lost = end(here, there, daemons, how).await?;
                let names = daemons.join(", ");
                println!("{names:<14} {:<9} {:<8} {}", how.as_str(), lost[0], lost[1]);
                assert!(lost.iter().all(|lost| *lost <= most), "{names} by {how}: {lost:?}");
                assert_eq!(lasting(here).await?, before, "after {names} ended by {how}");
            }
        }
        lab.stop().await
    });
}

/// What `i2planctl --json status` says is wrong with the control session.
async fn session_error(node: &Node) -> Result<String, Failure> {
    let status = node.ctl(&["--json", "status"], "").await?;
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    Ok(status["sam"]["control"]["error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn without_the_connector_sessions_live_on_and_new_ones_say_what_is_missing() {
    sandboxed(LAB, "without_the_connector_sessions_live_on_and_new_ones_say_what_is_missing", async || {
        let mut lab = Lab::with_nodes(2).await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        // It hangs, so that its supervisor does not help.
        let connector = lab.nodes[0].daemon_pid("connector").await?;
        signal(connector, Signal::SIGSTOP)?;
        let pings = ping(&lab.nodes[1], lab.nodes[0].address().await?, 10, false).await?;
        assert_eq!(pings.received, pings.sent);

        lab.kill_router(0).await?;
        lab.restart_router(0).await?;
        lab.nodes[0]
            .until("the session's error names the connector", BACK, async |node| {
                Ok(session_error(node).await?.contains("the connector"))
            })
            .await?;
        signal(connector, Signal::SIGCONT)?;
        lab.ready().await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        lab.stop().await
    });
}
