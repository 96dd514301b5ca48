//! The host's own networks beside those of the mesh.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::Failure;
use lab::netns;
use lab::node::{Lab, Node};
use lab::testing::sandboxed;
use serde_json::{Value, json};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// How long the host's networks may stay unseen, and a refusal go before it is tried again: half a minute each.
const SEEN: Duration = Duration::from_secs(90);

/// Connects to the gateway, whose resolver stands for all that a host needs it for.
fn reach_gateway(node: &Node) -> Result<(), Failure> {
    netns::within(&node.name, || {
        let resolver = SocketAddr::from((GATEWAY, 53));
        Ok(TcpStream::connect_timeout(&resolver, Duration::from_secs(5)).map(drop)?)
    })
}

async fn subnet(node: &Node) -> Result<Option<String>, Failure> {
    let status = node.control().await?.status().await.map_err(|error| node.failure(&error.to_string()))?;
    Ok(status.network.map(|network| network.subnet))
}

/// What `status` warns of.
async fn warnings(node: &Node) -> Result<String, Failure> {
    let status = node.ctl_json::<Value>(&["status"], "").await?;
    Ok(status.map_err(|error| node.failure(&error.message))?["warnings"].to_string())
}

async fn doctor(node: &Node) -> Result<String, Failure> {
    Ok(node.ctl(&["doctor"], "").await?.stdout)
}

/// A founder lays down the subnet that the joiner's gateway and resolver are in.
async fn the_gateway_is_not_taken_over(lab: &mut Lab) -> Result<String, Failure> {
    let [founder, joiner, gateway] = &lab.nodes[..] else { panic!("three nodes") };
    netns::link("lan", [(&joiner.name, [192, 168, 1, 17].into()), (&gateway.name, GATEWAY)], 24)?;
    let _resolver = netns::within(&gateway.name, || Ok(TcpListener::bind((GATEWAY, 53))?))?;
    reach_gateway(joiner)?;

    let code = founder.invite(&["--subnet", "192.168.1.0/29", "--uses", "1"]).await?;
    assert_eq!(subnet(founder).await?.unwrap(), "192.168.1.0/29");
    let overlap = "192.168.1.0/29 overlaps the address 192.168.1.17/24 of lan";
    let error = joiner.join(&code).await?.expect_err("the gateway is in that subnet");
    assert_eq!(error.kind, "conflict");
    assert!(error.message.contains(overlap), "{error:?}");
    assert!(error.hint.unwrap().contains("tun.allow_overlap"));
    // Nor by a program, which is not asked.
    let params = json!({ "invite_code": code }).to_string();
    let error = joiner.ctl_json::<Value>(&["rpc", "invite.accept", "-"], &params).await?.unwrap_err();
    assert!(error.message.contains(overlap), "{error:?}");
    assert_eq!(joiner.status().await?.network, None);
    let invites = founder.ctl_json::<Value>(&["invite", "list"], "").await?.unwrap();
    assert_eq!(invites["invites"][0]["used_by"], json!([]), "nothing was spent");
    reach_gateway(joiner)?;
    Ok(code)
}

/// Another founder, whose host uses the default subnet.
async fn another_subnet_is_found(founder: &mut Node, other: &Node) -> Result<(), Failure> {
    let ends = [(&*founder.name, [10, 42, 131, 1].into()), (&*other.name, [10, 42, 131, 2].into())];
    netns::link("cni0", ends, 24)?;
    let explicit = ["invite", "create", "--subnet", "10.42.0.0/16"];
    let error = founder.ctl_json::<Value>(&explicit, "").await?.unwrap_err();
    assert!(error.message.contains("the address 10.42.131.1/24 of cni0"), "{error:?}");
    assert_eq!(subnet(founder).await?, None);
    founder.invite(&[]).await?;
    assert_eq!(subnet(founder).await?.unwrap(), "10.43.0.0/16");
    founder
        .until("its interface is up", SEEN, async |node| Ok(node.status().await?.tunnel.interface.is_some()))
        .await?;
    assert!(!warnings(founder).await?.contains("overlaps"));

    // What comes later does not take the interface down, and is told.
    let ends = [(&*founder.name, [10, 43, 7, 1].into()), (&*other.name, [10, 43, 7, 2].into())];
    netns::link("late", ends, 24)?;
    let overlap = "10.43.0.0/16 overlaps the address 10.43.7.1/24 of late";
    founder
        .until("the overlap is told", SEEN, async |node| Ok(warnings(node).await?.contains(overlap)))
        .await?;
    let found = doctor(founder).await?;
    assert!(found.contains("PROBLEM") && found.contains(overlap), "{found}");
    // A new interface is not made over it, until it is gone.
    founder.stop_daemons().await?;
    founder.start_daemons()?;
    let refused = async |node: &Node| {
        let warnings = warnings(node).await?;
        Ok(warnings.contains(overlap) && warnings.contains("tun.allow_overlap"))
    };
    founder.until("tund refuses", SEEN, refused).await?;
    assert_eq!(founder.status().await?.tunnel.interface, None);
    netns::unlink(&founder.name, "late")?;
    founder
        .until("its interface is up", SEEN, async |node| Ok(node.status().await?.tunnel.interface.is_some()))
        .await
}

#[test]
fn the_hosts_networks_stay_the_hosts() {
    sandboxed(LAB, "the_hosts_networks_stay_the_hosts", async || {
        let mut lab = Lab::with_nodes(3).await?;
        let code = the_gateway_is_not_taken_over(&mut lab).await?;
        let mut other = lab.nodes.pop().unwrap();
        another_subnet_is_found(&mut other, &lab.nodes[0]).await?;
        lab.nodes.push(other);

        // What it accepts, its administrator says, and what it may take over too.
        let joiner = &mut lab.nodes[1];
        joiner.configure("[tun]\nallow_overlap = true\n[mesh]\naccept_subnets = \"10.0.0.0/8\"\n").await?;
        joiner.ready().await?;
        let error = joiner.join(&code).await?.expect_err("the subnet is not accepted");
        assert_eq!(error.kind, "denied");
        assert!(error.message.contains("mesh.accept_subnets"), "{error:?}");
        let config = std::fs::read_to_string(joiner.config())?;
        std::fs::write(joiner.config(), config.replace("10.0.0.0/8", "192.168.0.0/16"))?;
        joiner.configure("").await?;
        joiner.ready().await?;
        joiner.join(&code).await?.map_err(|error| joiner.failure(&error.message))?;
        joiner
            .until("its interface is up", SEEN, async |node| {
                Ok(node.status().await?.tunnel.interface.is_some())
            })
            .await?;
        assert!(!warnings(joiner).await?.contains("overlaps"), "it is meant to be so");
        lab.stop().await
    });
}
