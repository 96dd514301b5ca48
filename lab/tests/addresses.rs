//! Addresses that members delegate: until none is left, and when a member gets more.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use i2plan_ipc::api::meshd::Network;
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::join::Refusal;
use lab::Failure;
use lab::attack::mesh::{ATTACKER, join_many};
use lab::node::{CtlError, Lab, Node};
use lab::testing::sandboxed;
use lab::traffic::reach;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long gossip may take to reach a member.
const GOSSIP: Duration = Duration::from_secs(60);

async fn network(node: &Node) -> Result<Network, Failure> {
    let status = node.control().await?.status().await.map_err(|error| node.failure(&error.to_string()))?;
    status.network.ok_or_else(|| node.failure("it is in no network"))
}

/// An invite that a node must not make.
async fn cannot_invite(node: &Node) -> Result<CtlError, Failure> {
    let invite = node.ctl_json::<Value>(&["invite", "create"], "").await?;
    Ok(invite.expect_err("the node has no address to delegate"))
}

/// Lets joiners in until the founder's subnet is used up. All get addresses of their own, and the next one is told why
/// it gets none.
async fn fill(lab: &mut Lab, subnet: &str, hosts: usize) -> Result<(), Failure> {
    let config = std::fs::read_to_string(lab.nodes[0].config())?;
    let before = config.split_once("\n[mesh]").map_or(&*config, |(before, _)| before);
    std::fs::write(lab.nodes[0].config(), before)?;
    lab.nodes[0].configure(&format!("[mesh]\ntunnel_subnet = \"{subnet}\"\n")).await?;
    lab.nodes[0].ready().await?;
    let (founder, late) = (&lab.nodes[0], &lab.nodes[1]);
    let code = founder.invite(&["--uses", "-1"]).await?;
    let joiners = join_many(founder, &code, hosts - 1).await?;
    assert_eq!(joiners.refusals, []);
    let subnet: Ipv4Subnet = subnet.parse().unwrap();
    let mut addresses: BTreeSet<Ipv4Addr> = joiners.addresses.iter().copied().collect();
    assert_eq!(addresses.len(), hosts - 1, "no two have one address");
    assert!(addresses.insert(subnet.founder_address()), "nor the founder's");
    assert!(addresses.iter().all(|address| subnet.is_host(*address)));
    assert_eq!(network(founder).await?.addresses_left, 0);
    assert_eq!(join_many(founder, &code, 1).await?.refusals, [Refusal::NoAddresses]);
    let error = late.join(&code).await?.expect_err("no address is left");
    assert!(error.message.contains("no addresses left"), "{error:?}");
    assert_eq!(late.status().await?.network, None);
    let error = cannot_invite(founder).await?;
    assert!(error.message.contains("left to delegate"), "{error:?}");
    assert!(error.hint.is_some_and(|hint| hint.contains("revoke members")));
    let left = founder.ctl_json::<Value>(&["leave", "--yes"], "").await?;
    left.map_err(|error| founder.failure(&error.message))?;
    Ok(())
}

#[test]
fn a_subnet_is_used_up_to_its_last_address() {
    sandboxed(LAB, "a_subnet_is_used_up_to_its_last_address", async || {
        let mut lab = Lab::with_nodes(2).await?;
        lab.add_stranger(ATTACKER).await?;
        fill(&mut lab, "10.9.0.0/29", 6).await?;
        fill(&mut lab, "10.9.1.0/24", 254).await?;
        lab.stop().await
    });
}

#[test]
fn a_member_invites_with_what_it_was_given() {
    sandboxed(LAB, "a_member_invites_with_what_it_was_given", async || {
        let lab = Lab::with_nodes(4).await?;
        let [founder, second, third, fourth] = &lab.nodes[..] else { panic!("four nodes") };
        second.join_by(founder).await?;
        let before = network(second).await?;
        assert_eq!((before.addresses, before.addresses_left), (16, 15));
        third.join_by(second).await?;
        reach(third, founder).await?;
        let thirds = network(third).await?;
        assert_eq!(thirds.addresses, 1);
        // With no address but its own it cannot, and says who can help.
        let error = cannot_invite(third).await?;
        assert!(error.message.contains("holds 1 address"), "{error:?}");
        let hint = error.hint.unwrap();
        assert!(hint.contains(&format!("ask {}", second.name)) && hint.contains("grant"), "{hint}");
        // Only its inviter can give it more.
        let foreign = founder.ctl_json::<Value>(&["grant", &third.name, "--addresses", "4"], "").await?;
        assert!(foreign.is_err(), "{foreign:?}");
        for (giver, member, more, after) in [(second, third, "4", 5), (founder, second, "64", 80)] {
            let granted = giver.ctl_json::<Value>(&["grant", &member.name, "--addresses", more], "").await?;
            granted.map_err(|error| giver.failure(&error.message))?;
            member
                .until("it holds more addresses", GOSSIP, async |node| {
                    Ok(network(node).await?.addresses == after)
                })
                .await?;
        }
        assert_eq!(network(second).await?.ipv4, before.ipv4);
        assert_eq!(network(third).await?.ipv4, thirds.ipv4);
        fourth.join_by(third).await?;
        for from in &lab.nodes {
            for to in lab.nodes.iter().filter(|to| to.name != from.name) {
                reach(from, to).await?;
            }
        }
        lab.stop().await
    });
}
