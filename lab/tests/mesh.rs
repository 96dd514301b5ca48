//! Members that die, leave, are banned and revoked: whole nodes on a private I2P network.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lab::Failure;
use lab::node::{Lab, Node};
use lab::testing::sandboxed;
use lab::traffic::{ping, reach};
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long gossip may take to reach a member.
const GOSSIP: Duration = Duration::from_secs(60);

async fn knows(node: &Node, members: u64) -> Result<(), Failure> {
    let what = format!("it knows {members} members");
    node.until(&what, GOSSIP, async |node| Ok(node.network().await?.members == members)).await
}

/// Runs a command that must work.
async fn ctl(node: &Node, args: &[&str]) -> Result<Value, Failure> {
    node.ctl_json::<Value>(args, "").await?.map_err(|error| node.failure(&error.message))
}

#[test]
fn five_in_a_chain_go_on_without_the_middle_and_have_it_back() {
    sandboxed(LAB, "five_in_a_chain_go_on_without_the_middle_and_have_it_back", async || {
        let mut lab = Lab::with_nodes(5).await?;
        // Each gets addresses enough for those behind it.
        for (index, addresses) in (1..5).zip(["64", "16", "4", "1"]) {
            let options = ["--addresses", addresses];
            lab.nodes[index].join_with(&lab.nodes[index - 1], &options).await?;
            reach(&lab.nodes[index], &lab.nodes[index - 1]).await?;
        }
        for node in &lab.nodes {
            knows(node, 5).await?;
        }
        let before = lab.nodes[2].network().await?;
        // The whole machine: a router on its own would hold on to the sessions for a while.
        lab.nodes[2].kill_daemons().await?;
        lab.kill_router(2).await?;
        for (from, to) in [(0, 1), (0, 3), (0, 4), (1, 4), (3, 1), (4, 0)] {
            reach(&lab.nodes[from], &lab.nodes[to]).await?;
        }
        lab.restart_router(2).await?;
        lab.nodes[2].start_daemons()?;
        lab.nodes[2].ready().await?;
        let after = lab.nodes[2].network().await?;
        assert_eq!((after.ipv4, after.ipv6), (before.ipv4, before.ipv6));
        reach(&lab.nodes[2], &lab.nodes[0]).await?;
        reach(&lab.nodes[4], &lab.nodes[2]).await?;
        // Whatever destination it is reached at now, it invites as before.
        lab.add_node().await?.ready().await?;
        lab.nodes[5].join_by(&lab.nodes[2]).await?;
        reach(&lab.nodes[5], &lab.nodes[2]).await?;
        lab.stop().await
    });
}

#[test]
fn a_ban_cuts_a_running_ping_within_seconds() {
    sandboxed(LAB, "a_ban_cuts_a_running_ping_within_seconds", async || {
        let lab = Lab::with_nodes(2).await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        two.join_by(one).await?;
        reach(two, one).await?;
        let target = one.address().await?;
        let cut = async {
            ctl(one, &["ban", "add", &two.name, "--reason", "noise", "--duration", "1h"]).await?;
            one.until("the tunnel is cut", Duration::from_secs(5), async |_| {
                Ok(ping(two, target, 1, false).await?.received == 0)
            })
            .await
        };
        // Five a second; without the ban none would be lost.
        let (running, cut) = tokio::join!(ping(two, target, 60, false), cut);
        cut?;
        assert!(running?.received < 50, "the ping went on");
        assert_eq!(ctl(one, &["ban", "list"]).await?["bans"][0]["name"], two.name.as_str());
        ctl(one, &["ban", "remove", &two.name]).await?;
        reach(two, one).await?;
        lab.stop().await
    });
}

#[test]
fn without_its_founder_the_network_grows_on() {
    sandboxed(LAB, "without_its_founder_the_network_grows_on", async || {
        let lab = Lab::with_nodes(4).await?;
        let [founder, second, third, fourth] = &lab.nodes[..] else { panic!("four nodes") };
        second.join_by(founder).await?;
        reach(second, founder).await?;
        third.join_with(second, &["--addresses", "8"]).await?;
        for node in [founder, second, third] {
            knows(node, 3).await?;
        }
        ctl(founder, &["leave", "--yes"]).await?;
        assert_eq!(founder.status().await?.network, None);
        for node in [second, third] {
            knows(node, 2).await?;
        }
        fourth.join_by(third).await?;
        reach(fourth, second).await?;
        reach(third, fourth).await?;
        // Who has left has no interface any more.
        founder
            .until("its interface is gone", GOSSIP, async |founder| {
                Ok(founder.status().await?.tunnel.interface.is_none())
            })
            .await?;
        lab.stop().await
    });
}

#[test]
fn who_was_out_joins_again_after_the_inviters_machine_was_restarted() {
    sandboxed(LAB, "who_was_out_joins_again_after_the_inviters_machine_was_restarted", async || {
        let mut lab = Lab::with_nodes(2).await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        ctl(&lab.nodes[1], &["leave", "--yes"]).await?;
        // The whole machine, and so the joiner's router, which goes on, holds a dead session with the inviter's control
        // destination, to which invites lead.
        lab.nodes[0].kill_daemons().await?;
        lab.kill_router(0).await?;
        lab.restart_router(0).await?;
        lab.nodes[0].start_daemons()?;
        lab.nodes[0].ready().await?;
        let begun = Instant::now();
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        println!("it joined after {:?}", begun.elapsed());
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        reach(&lab.nodes[0], &lab.nodes[1]).await?;
        // One joiner, wherever it asked from.
        let used_by = &ctl(&lab.nodes[0], &["invite", "list"]).await?["invites"][0]["used_by"];
        assert_eq!(used_by.as_array().map(Vec::len), Some(1));
        lab.stop().await
    });
}

#[test]
fn who_was_down_catches_up_within_a_minute() {
    sandboxed(LAB, "who_was_down_catches_up_within_a_minute", async || {
        let mut lab = Lab::with_nodes(6).await?;
        for index in [1, 2] {
            lab.nodes[index].join_by(&lab.nodes[0]).await?;
            reach(&lab.nodes[index], &lab.nodes[0]).await?;
        }
        knows(&lab.nodes[1], 3).await?;
        lab.nodes[1].stop_daemons().await?;
        for index in 3..6 {
            lab.nodes[index].join_by(&lab.nodes[0]).await?;
            reach(&lab.nodes[index], &lab.nodes[0]).await?;
        }
        let revoked = lab.nodes[2].name.clone();
        let out = ctl(&lab.nodes[0], &["revoke", &revoked, "--yes"]).await?;
        assert_eq!(out["revoked"].as_array().map(Vec::len), Some(1));
        lab.nodes[1].start_daemons()?;
        lab.nodes[1].ready().await?;
        let names = async |node: &Node| {
            let peers = node.peers().await?;
            Ok::<_, Failure>(peers.into_iter().map(|peer| peer.name).collect::<BTreeSet<_>>())
        };
        let expected: BTreeSet<_> = [0, 3, 4, 5].map(|index| lab.nodes[index].name.clone()).into();
        lab.nodes[1]
            .until("it knows who joined and not who is out", GOSSIP, async |node| {
                Ok(names(node).await? == expected)
            })
            .await?;
        for index in 3..6 {
            reach(&lab.nodes[1], &lab.nodes[index]).await?;
        }
        // Who is out knows it.
        let out = &lab.nodes[2];
        out.until("it is out", GOSSIP, async |out| Ok(out.status().await?.network.is_none())).await?;
        lab.stop().await
    });
}
