//! States that are older than what their nodes have done since, and states that two nodes share.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use i2plan_proto::join::Refusal;
use lab::Failure;
use lab::attack::mesh::{ATTACKER, join_many};
use lab::node::{Lab, NetworkStatus, Node};
use lab::process::Spawn;
use lab::testing::sandboxed;
use lab::traffic::reach;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long gossip may take to reach a member.
const GOSSIP: Duration = Duration::from_secs(60);

/// How long a node may take to be reached at its own destinations again after another has used them: a router that has
/// looked up the other's lease set may use it until its leases end, ten minutes after they began.
const RECOVERY: Duration = Duration::from_secs(660);

async fn run(program: &str, args: &[OsString]) -> Result<(), Failure> {
    let output = Spawn::new(Path::new(program), args.to_vec()).output("").await?;
    if output.status.success() { Ok(()) } else { Err(Failure::new(output.stderr)) }
}

/// Copies the state of a node's daemons, owners included.
async fn copy(from: OsString, to: OsString) -> Result<(), Failure> {
    run("/bin/rm", &["-rf".into(), to.clone()]).await?;
    run("/bin/cp", &["-a".into(), from, to]).await
}

/// While the node runs: its files are replaced as a whole.
async fn back_up(node: &Node) -> Result<(), Failure> {
    copy(node.path("state"), node.path("backup")).await
}

async fn restore(node: &mut Node) -> Result<(), Failure> {
    node.stop_daemons().await?;
    copy(node.path("backup"), node.path("state")).await?;
    node.start_daemons()
}

async fn all_reach(nodes: &[Node]) -> Result<(), Failure> {
    for from in nodes {
        for to in nodes.iter().filter(|to| to.name != from.name) {
            // Routers hold on to dead sessions with destinations of before.
            from.until("it reaches the others", RECOVERY, async |from| Ok(reach(from, to).await.is_ok()))
                .await?;
        }
    }
    Ok(())
}

/// Nodes that miss each other soon.
async fn nodes(count: usize, more: &str) -> Result<Lab, Failure> {
    let mut lab = Lab::with_nodes(count).await?;
    for node in &mut lab.nodes {
        node.configure(&format!("[mesh]\nheartbeat_interval = \"5s\"\n{more}")).await?;
    }
    lab.ready().await?;
    Ok(lab)
}

async fn networks(nodes: &[Node]) -> Result<Vec<(String, Ipv4Addr)>, Failure> {
    let mut networks = Vec::new();
    for node in nodes {
        let NetworkStatus { id, ipv4, .. } = node.network().await?;
        networks.push((id, ipv4));
    }
    Ok(networks)
}

/// How many addresses a node can still delegate.
async fn left(node: &Node) -> Result<usize, Failure> {
    let status = node.control().await?.status().await.map_err(|error| node.failure(&error.to_string()))?;
    let network = status.network.ok_or_else(|| node.failure("it is in no network"))?;
    Ok(usize::try_from(network.addresses_left).unwrap())
}

/// What a node can still delegate goes to joiners; none gets an address that a member has.
async fn give_all(inviter: &Node, members: &[(String, Ipv4Addr)], left: usize) -> Result<(), Failure> {
    // A node that was started again is busy until it has compared what it knows with another member.
    let code = inviter.invite(&["--uses", "-1"]).await?;
    let joiners = join_many(inviter, &code, left).await?;
    assert_eq!(joiners.refusals, [], "{} has {left} addresses left", inviter.name);
    let given: BTreeSet<Ipv4Addr> = joiners.addresses.into_iter().collect();
    assert_eq!(given.len(), left);
    let taken = members.iter().find(|(_, address)| given.contains(address));
    assert_eq!(taken, None, "{} gave it to another", inviter.name);
    assert_eq!(join_many(inviter, &code, 1).await?.refusals, [Refusal::NoAddresses]);
    Ok(())
}

#[test]
fn restored_backups_cost_no_member_its_address() {
    sandboxed(LAB, "restored_backups_cost_no_member_its_address", async || {
        let mut lab = nodes(5, "tunnel_subnet = \"10.9.0.0/28\"\n").await?;
        lab.add_stranger(ATTACKER).await?;
        lab.nodes[1].join_with(&lab.nodes[0], &["--addresses", "8"]).await?;
        lab.nodes[2].join_with(&lab.nodes[0], &["--addresses", "1"]).await?;
        all_reach(&lab.nodes[..3]).await?;
        // One that is revoked can be invited again, by another too.
        let revoked = lab.nodes[0].ctl_json::<Value>(&["revoke", &lab.nodes[2].name, "--yes"], "").await?;
        revoked.map_err(|error| lab.nodes[0].failure(&error.message))?;
        let out = async |node: &Node| Ok(node.status().await?.network.is_none());
        lab.nodes[2].until("it is no member", GOSSIP, out).await?;
        lab.nodes[2].join_by(&lab.nodes[1]).await?;
        all_reach(&lab.nodes[..3]).await?;

        for node in &lab.nodes[..3] {
            back_up(node).await?;
        }
        // What the states do not know of: a member by the inviter and one by the founder, and all that was signed since.
        lab.nodes[3].join_by(&lab.nodes[1]).await?;
        lab.nodes[4].join_with(&lab.nodes[0], &["--addresses", "1"]).await?;
        all_reach(&lab.nodes).await?;
        let before = networks(&lab.nodes).await?;
        for index in 0..3 {
            restore(&mut lab.nodes[index]).await?;
            lab.nodes[index].ready().await?;
            // It has a new destination for data, which others learn by a record with a higher number than they know.
            all_reach(&lab.nodes).await?;
            assert_eq!(networks(&lab.nodes).await?, before);
        }
        // The inviter's eight: its own, two members, and the last of the subnet, which is no host's. Of the founder's other
        // seven hosts' addresses one is its own, one was in use before and one is a member's.
        for index in 0..2 {
            assert_eq!(left(&lab.nodes[index]).await?, 4);
            give_all(&lab.nodes[index], &before, 4).await?;
        }
        assert_eq!(networks(&lab.nodes).await?, before);
        lab.stop().await
    });
}

#[test]
fn a_copied_identity_leaves_others_a_consistent_view() {
    sandboxed(LAB, "a_copied_identity_leaves_others_a_consistent_view", async || {
        let mut lab = nodes(4, "").await?;
        for index in 1..3 {
            lab.nodes[index].join_by(&lab.nodes[0]).await?;
        }
        all_reach(&lab.nodes[..3]).await?;
        let (original, before) =
            (lab.nodes[1].status().await?.node_id.unwrap(), networks(&lab.nodes[..3]).await?);
        // The fourth machine gets the second's state, as it is while that runs.
        lab.nodes[3].stop_daemons().await?;
        copy(lab.nodes[1].path("state"), lab.nodes[3].path("state")).await?;
        let Node { uids: [keyd, meshd, tund], rpc_uid, .. } = lab.nodes[3];
        for (daemon, uid) in [("keyd", keyd), ("meshd", meshd), ("tund", tund), ("rpc", rpc_uid)] {
            let directory = lab.nodes[3].state(daemon);
            if directory.exists() {
                run("/bin/chown", &["-R".into(), format!("{uid}:{uid}").into(), directory.into()]).await?;
            }
        }
        let pids = async |node: &Node| {
            Ok::<_, Failure>([
                node.daemon_pid("keyd").await?,
                node.daemon_pid("meshd").await?,
                node.daemon_pid("tund").await?,
            ])
        };
        let running = pids(&lab.nodes[1]).await?;
        lab.nodes[3].start_daemons()?;
        lab.nodes[3].ready().await?;
        assert_eq!(lab.nodes[3].status().await?.node_id.as_deref(), Some(&*original));
        assert_eq!(lab.nodes[3].network().await?.ipv4, before[1].1);
        // The copy says where it is, and the others believe the newest record.
        let copied = pids(&lab.nodes[3]).await?;
        let endpoint = lab.nodes[3].status().await?.sam.data.destination;
        lab.nodes[0]
            .until("it has heard of the copy", GOSSIP, async |node| {
                let peers = node.peers().await?;
                Ok(peers
                    .iter()
                    .any(|peer| peer.node_id == original && Some(&peer.endpoint) == endpoint.as_ref()))
            })
            .await?;
        for node in [&lab.nodes[0], &lab.nodes[2]] {
            let peers = node.peers().await?;
            let of_original: Vec<_> = peers.iter().filter(|peer| peer.node_id == original).collect();
            assert_eq!(of_original.len(), 1);
            assert_eq!((peers.len(), of_original[0].ipv4), (2, before[1].1));
        }
        reach(&lab.nodes[2], &lab.nodes[0]).await?;
        assert_eq!(pids(&lab.nodes[3]).await?, copied, "the copy's daemons run on");
        assert_eq!(pids(&lab.nodes[1]).await?, running, "the original's daemons run on");
        lab.nodes[3].stop_daemons().await?;
        lab.nodes[0]
            .until("the original is reached again", RECOVERY, async |node| {
                Ok(reach(node, &lab.nodes[1]).await.is_ok())
            })
            .await?;
        reach(&lab.nodes[1], &lab.nodes[2]).await?;
        assert_eq!(networks(&lab.nodes[..3]).await?, before);
        lab.stop().await
    });
}

#[test]
fn a_lost_memory_of_keyd_is_completed_when_an_administrator_says_so() {
    sandboxed(LAB, "a_lost_memory_of_keyd_is_completed_when_an_administrator_says_so", async || {
        let mut lab = nodes(2, "").await?;
        lab.nodes[1].join_by(&lab.nodes[0]).await?;
        let founder = &mut lab.nodes[0];
        founder.stop_daemons().await?;
        std::fs::remove_file(founder.state("keyd").join("delegations"))?;
        founder.start_daemons()?;
        founder.ready().await?;
        let recover = async |node: &Node, args: &[&str]| {
            let args: Vec<_> = ["key", "recover"].into_iter().chain(args.iter().copied()).collect();
            node.ctl_json::<Value>(&args, "").await
        };
        // Once it has compared what it knows with the other: meshd hands over what there is, and nobody says that it is all.
        founder
            .until("it may be recovered", RECOVERY, async |node| {
                let refused = recover(node, &[]).await?.unwrap_err();
                Ok(refused.message.contains("no terminal to ask on"))
            })
            .await?;
        let recovered =
            recover(founder, &["--yes"]).await?.map_err(|error| founder.failure(&error.message))?;
        assert_eq!(recovered["delegations"], 1, "{recovered}");
        assert_eq!(recover(founder, &["--yes"]).await?.unwrap_err().kind, "conflict");
        lab.stop().await
    });
}
