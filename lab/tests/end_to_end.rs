//! Whole nodes on a private I2P network: real routers, real interfaces, real processes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::net::IpAddr;
use std::time::Duration;

use i2plan_ipc::api::tund::DEFAULT_MTU;
use i2plan_proto::invite::{Invite, InviteSecret};
use lab::Failure;
use lab::node::{CtlError, Lab, Node};
use lab::process::signal;
use lab::testing::sandboxed;
use lab::traffic::{packet_passes, ping, reach, transfer, until_flowing};
use nix::sys::signal::Signal;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long gossip may take to reach a member.
const GOSSIP: Duration = Duration::from_secs(60);

/// How long a node may take to work again after a router came back.
const RECOVERY: Duration = Duration::from_secs(120);

/// Nodes that are all in one network, and reach each other.
async fn start_joined(nodes: usize) -> Result<Lab, Failure> {
    let lab = Lab::with_nodes(nodes).await?;
    for joiner in &lab.nodes[1..] {
        joiner.join_by(&lab.nodes[0]).await?;
        reach(joiner, &lab.nodes[0]).await?;
    }
    Ok(lab)
}

/// Refusals must leave the joiner as it was.
async fn refused(joiner: &Node, code: &str) -> Result<CtlError, Failure> {
    let error = joiner.join(code).await?.expect_err("the invite must be refused");
    let status = joiner.status().await?;
    assert_eq!(status.network, None);
    assert_eq!(status.tunnel.interface, None);
    Ok(error)
}

#[test]
fn a_third_by_the_seconds_invite_reaches_the_first() {
    sandboxed(LAB, "a_third_by_the_seconds_invite_reaches_the_first", async || {
        let lab = Lab::with_nodes(3).await?;
        let [first, second, third] = &lab.nodes[..] else { panic!("three nodes") };
        second.join_by(first).await?;
        reach(second, first).await?;
        reach(first, second).await?;
        third.join_by(second).await?;
        for node in &lab.nodes {
            node.until("it knows all three", GOSSIP, async |node| Ok(node.network().await?.members == 3))
                .await?;
        }
        // All pairs, both families, both ways.
        for from in &lab.nodes {
            for to in lab.nodes.iter().filter(|to| to.name != from.name) {
                let network = to.network().await?;
                for target in [IpAddr::from(network.ipv4), network.ipv6.into()] {
                    ping(from, target, 1000, true).await?;
                }
            }
        }
        transfer(third, first, first.address().await?, 1_000_000).await?;
        transfer(first, third, third.address().await?, 1_000_000).await?;
        lab.stop().await
    });
}

#[test]
fn members_with_different_mtus_exchange_all_that_each_may_send() {
    sandboxed(LAB, "members_with_different_mtus_exchange_all_that_each_may_send", async || {
        let mut lab = Lab::with_nodes(2).await?;
        lab.nodes[1].configure("[tun]\nmtu = 7200\n").await?;
        lab.ready().await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        exchange(&lab, [DEFAULT_MTU, 7200]).await?;
        // The interface is made anew for another MTU.
        lab.nodes[0].configure("[tun]\nmtu = 1280\n").await?;
        until_flowing([&lab.nodes[0], &lab.nodes[1]], RECOVERY).await?;
        exchange(&lab, [1280, 7200]).await?;
        lab.stop().await
    });
}

/// Sends full packets and a megabyte both ways between two nodes with these MTUs, over IPv4 and IPv6.
async fn exchange(lab: &Lab, mtus: [u16; 2]) -> Result<(), Failure> {
    let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
    for (from, to, mtu) in [(one, two, mtus[0]), (two, one, mtus[1])] {
        assert_eq!(from.status().await?.tunnel.mtu, mtu);
        let (own, other) = (from.network().await?, to.network().await?);
        for (source, target) in
            [(IpAddr::from(own.ipv4), IpAddr::from(other.ipv4)), (own.ipv6.into(), other.ipv6.into())]
        {
            packet_passes((&from.name, source), (&to.name, target), mtu.into()).await?;
            transfer(from, to, target, 1_000_000).await?;
        }
    }
    Ok(())
}

#[test]
fn bad_invites_are_refused_each_with_its_reason() {
    sandboxed(LAB, "bad_invites_are_refused_each_with_its_reason", async || {
        let lab = Lab::with_nodes(3).await?;
        let [first, second, third] = &lab.nodes[..] else { panic!("three nodes") };
        let good = first.invite(&[]).await?;

        let error = refused(second, &good[..good.len() - 7]).await?;
        assert!(error.message.contains("truncated"), "{error:?}");

        let mut flipped = good.clone().into_bytes();
        flipped[60] ^= 1;
        let error = refused(second, &String::from_utf8_lossy(&flipped)).await?;
        assert!(error.message.contains("damaged"), "{error:?}");

        let short = first.invite(&["--expires", "1s"]).await?;
        let expires_at = short.parse::<Invite>().unwrap().expires_at;
        second
            .until("the invite has expired", Duration::from_secs(10), async |_| {
                Ok(std::time::UNIX_EPOCH.elapsed().is_ok_and(|now| now.as_secs() > expires_at))
            })
            .await?;
        let error = refused(second, &short).await?;
        assert!(error.message.contains("expired"), "{error:?}");

        // Rightly made out in the first node's name, but not by it.
        let mut foreign: Invite = good.parse().unwrap();
        foreign.secret = InviteSecret([7; 32]);
        let error = refused(second, &foreign.to_code()).await?;
        assert!(error.message.contains("does not know this invite"), "{error:?}");

        let error = refused(second, "https://example.org/join").await?;
        assert!(error.message.contains("not an invite"), "{error:?}");

        // None of that used the good one, which works once.
        assert_eq!(first.network().await?.members, 1);
        second.join(&good).await?.expect("the good invite works");
        first
            .until("it knows the second", GOSSIP, async |node| Ok(node.network().await?.members == 2))
            .await?;
        let error = refused(third, &good).await?;
        assert!(error.message.contains("used as often as it may"), "{error:?}");
        assert_eq!(first.network().await?.members, 2);

        // A member of one network does not join another.
        let other = third.invite(&[]).await?;
        let before = second.network().await?;
        let error = second.join(&other).await?.expect_err("the node is a member already");
        assert_eq!(error.kind, "conflict");
        assert!(error.message.contains("already a member"), "{error:?}");
        assert_eq!(second.network().await?.id, before.id);
        lab.stop().await
    });
}

#[test]
fn traffic_comes_back_when_a_killed_router_does() {
    sandboxed(LAB, "traffic_comes_back_when_a_killed_router_does", async || {
        let mut lab = start_joined(2).await?;
        let before = lab.nodes[1].network().await?;
        let target = lab.nodes[1].address().await?;
        lab.kill_router(1).await?;
        // Traffic goes on being sent into nothing.
        let lost = ping(&lab.nodes[0], target, 2, false).await?;
        assert_eq!(lost.received, 0);
        lab.restart_router(1).await?;
        until_flowing([&lab.nodes[0], &lab.nodes[1]], RECOVERY).await?;
        assert_eq!(lab.nodes[1].network().await?, before);
        lab.stop().await
    });
}

#[test]
fn a_killed_daemon_comes_back_as_the_same_node() {
    sandboxed(LAB, "a_killed_daemon_comes_back_as_the_same_node", async || {
        let lab = start_joined(2).await?;
        let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
        let target = there.address().await?;
        let (id, network) = (here.status().await?.node_id, here.network().await?);
        for daemon in ["keyd", "connector", "meshd", "tund"] {
            let killed = here.daemon_pid(daemon).await?;
            let (pings, ()) = tokio::try_join!(ping(here, target, 25, false), async {
                // After the first of the pings.
                tokio::time::sleep(Duration::from_millis(500)).await;
                signal(killed, Signal::SIGKILL)
            })?;
            if daemon != "tund" {
                let lost = pings.sent - pings.received;
                assert!(lost <= lab.routers().losses(), "traffic goes on without {daemon}: {lost} lost");
            }
            here.until("all daemons are back", GOSSIP, async |node| {
                let status = node.status().await?;
                let up = status.sessions_are_open();
                Ok(up && status.tunnel.interface.is_some() && node.daemon_pid(daemon).await? != killed)
            })
            .await?;
            assert_eq!(here.status().await?.node_id, id, "after {daemon} was killed");
            assert_eq!(here.network().await?, network, "after {daemon} was killed");
            for (from, to) in [(here, there), (there, here)] {
                reach(from, to).await?;
            }
        }
        // What needs all three: a new invite, used.
        let mut lab = lab;
        lab.add_node().await?.ready().await?;
        lab.nodes[2].join_by(&lab.nodes[0]).await?;
        reach(&lab.nodes[2], &lab.nodes[0]).await?;
        lab.stop().await
    });
}

#[test]
fn a_node_that_was_stopped_is_the_same_when_it_starts() {
    sandboxed(LAB, "a_node_that_was_stopped_is_the_same_when_it_starts", async || {
        let mut lab = start_joined(2).await?;
        let before = lab.nodes[1].network().await?;
        lab.nodes[1].stop_daemons().await?;
        lab.nodes[1].start_daemons()?;
        lab.nodes[1].ready().await?;
        assert_eq!(lab.nodes[1].network().await?, before);
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        lab.stop().await
    });
}
