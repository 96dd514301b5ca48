//! Restarts that nobody notices: daemons end and come back under traffic.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::{Duration, Instant};

use lab::Failure;
use lab::node::{Lab, Node};
use lab::population::found;
use lab::process::signal;
use lab::testing::sandboxed;
use lab::traffic::{ping, reach, transfer_at};
use nix::sys::signal::Signal;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long daemons may take to be back.
const BACK: Duration = Duration::from_secs(60);

/// Bytes of a transfer for each ping, and how many of them a second: it goes on for most of a case.
const BYTES: u64 = 8_000;
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
async fn end(
    here: &Node,
    there: &Node,
    daemons: &[&str],
    how: Signal,
    load: Load,
) -> Result<[u32; 2], Failure> {
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
        let started = Instant::now();
        here.until("all daemons are back", BACK, async |node| {
            for (daemon, pid) in daemons.iter().zip(&ended) {
                if node.daemon_pid(daemon).await? == *pid {
                    return Ok(false);
                }
            }
            let status = node.status().await?;
            let all = node.peers().await?.len() == load.members;
            Ok(all && status.sessions_are_open() && status.tunnel.interface.is_some())
        })
        .await?;
        println!("back after {:.1} s", started.elapsed().as_secs_f32());
        Ok(())
    };
    let (to, from, _, ()) = tokio::try_join!(
        ping(there, own, load.pings, false),
        ping(here, other, load.pings, false),
        transfer_at(there, here, own, u64::from(load.pings) * BYTES, RATE),
        work
    )?;
    Ok([to, from].map(|pings| pings.sent - pings.received))
}

/// What goes on while daemons end.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Members that the node knows beside itself.
    members: usize,
    /// Pings in each direction, five a second.
    pings: u32,
}

/// Ends each of the daemons, and two at once, in both ways.
async fn end_each(lab: &Lab, load: Load) -> Result<(), Failure> {
    let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
    reach(there, here).await?;
    reach(here, there).await?;
    let before = lasting(here).await?;
    println!("ended          by        lost to  lost from  of {}", load.pings);
    for (daemons, most) in [
        (&["keyd"][..], 0),
        (&["connector"], 0),
        (&["meshd"], 0),
        (&["tund"], MOST),
        // Who comes back first finds nobody; the sessions are there for all that.
        (&["meshd", "tund"], MOST),
    ] {
        for how in [Signal::SIGKILL, Signal::SIGTERM] {
            let lost = end(here, there, daemons, how, load).await?;
            let names = daemons.join(", ");
            println!("{names:<14} {:<9} {:<8} {}", how.as_str(), lost[0], lost[1]);
            let most = most + lab.routers().losses();
            assert!(lost.iter().all(|lost| *lost <= most), "{names} by {how}: {lost:?}");
            assert_eq!(lasting(here).await?, before, "after {names} ended by {how}");
        }
    }
    Ok(())
}

#[test]
fn restarts_of_daemons_go_unnoticed() {
    sandboxed(LAB, "restarts_of_daemons_go_unnoticed", async || {
        let lab = Lab::with_nodes(2).await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        end_each(&lab, Load { members: 1, pings: 60 }).await?;
        lab.stop().await
    });
}

/// Records that the node holds, its own and its peer's among them: all that it takes.
const RECORDS: usize = 10_000;

#[test]
#[ignore = "takes ten minutes: see CONTRIBUTING.md"]
fn restarts_of_daemons_that_hold_ten_thousand_records_go_unnoticed() {
    sandboxed(LAB, "restarts_of_daemons_that_hold_ten_thousand_records_go_unnoticed", async || {
        let mut lab = Lab::with_nodes(2).await?;
        let here = &mut lab.nodes[0];
        here.stop_daemons().await?;
        found(here, RECORDS - 2)?;
        here.start_daemons()?;
        here.ready().await?;
        here.until("it knows them all", BACK, async |node| Ok(node.peers().await?.len() == RECORDS - 2))
            .await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        end_each(&lab, Load { members: RECORDS - 1, pings: 120 }).await?;
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
        let connector = lab.nodes[0].freeze(&["connector"]).await?;
        let pings = ping(&lab.nodes[1], lab.nodes[0].address().await?, 10, false).await?;
        assert!(pings.sent - pings.received <= lab.routers().losses(), "{pings:?}");

        lab.kill_router(0).await?;
        lab.restart_router(0).await?;
        lab.nodes[0]
            .until("the session's error names the connector", BACK, async |node| {
                Ok(session_error(node).await?.contains("the connector"))
            })
            .await?;
        connector.thaw()?;
        lab.ready().await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        lab.stop().await
    });
}
