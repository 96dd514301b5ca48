//! Attacks over I2P on nodes that run and carry traffic: a stranger with a router of its own sends to their
//! control destinations and to those for data.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lab::Failure;
use lab::attack::network::{ControlOrder, ControlReport, DataOrder, DataReport};
use lab::node::{Lab, Node, Peer, resident};
use lab::process::{Output, Spawn};
use lab::testing::sandboxed;
use lab::traffic::{ping, reach};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// The namespace of the stranger.
const STRANGER: &str = "stranger";

/// Memory by which a daemon may have grown after an attack, bytes. Full queues: 256 control datagrams of 4 KB, the
/// tables of senders, the paced queues; and what the allocator keeps.
const MAX_GROWTH: u64 = 32 * 1024 * 1024;

/// How long nodes may take to carry all packets again. Routers have to work off what the flood has left.
const RECOVERY: Duration = Duration::from_secs(120);

/// Datagrams a second at the data destination. Many more would test the routers, which drop what is too much.
const DATA_RATE: u32 = 300;

/// How long each kind of them is sent, seconds.
const DATA_SECONDS: u64 = 6;

/// Why nodes drop what the stranger sends, as they log it.
const REASONS: [&str; 6] = [
    "dropped a control message: too many are coming",
    "dropped a control message that is too long",
    "dropped a control message error=",
    "dropped a record error=",
    "dropped a join request that is not for this node or not from its sender",
    // By the first node, whose invite it is.
    "dropped a join request error=",
];

const DAEMONS: [&str; 3] = ["keyd", "meshd", "tund"];

/// Two nodes in one network that reach each other, and a stranger's router.
async fn start() -> Result<Lab, Failure> {
    let mut lab = Lab::start().await?;
    lab.log_filter =
        Some("info,boringtun=off,i2plan_meshd::core=debug,i2plan_meshd::shell::sessions=debug".to_owned());
    for _ in 0..2 {
        lab.add_node().await?;
    }
    lab.ready().await?;
    lab.add_stranger(STRANGER).await?;
    let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
    second.join_by(first).await?;
    reach(second, first).await?;
    Ok(lab)
}

/// What must be the same after an attack as before.
#[derive(Debug, PartialEq)]
struct Constant {
    pids: Vec<u32>,
    members: u64,
    /// Identity, name, address, WireGuard key, endpoint.
    peers: Vec<[String; 5]>,
}

async fn constant(node: &Node) -> Result<Constant, Failure> {
    let mut pids = Vec::new();
    for daemon in DAEMONS {
        pids.push(node.daemon_pid(daemon).await?);
    }
    let facts = |peer: Peer| [peer.node_id, peer.name, peer.ipv4.to_string(), peer.public_key, peer.endpoint];
    let peers = node.peers().await?.into_iter().map(facts).collect();
    Ok(Constant { pids, members: node.network().await?.members, peers })
}

/// Attacks while the nodes ping each other, and checks that nothing has come of it.
async fn under(lab: &Lab, attack: impl Future<Output = Result<Output, Failure>>) -> Result<Output, Failure> {
    let mut before = Vec::new();
    for node in &lab.nodes {
        let constant = constant(node).await?;
        let memory = constant.pids.iter().map(|pid| resident(*pid)).collect::<Result<Vec<_>, _>>()?;
        before.push((constant, memory));
    }
    let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
    let target = second.address().await?;
    let mut attack = std::pin::pin!(attack);
    let (mut sent, mut received) = (0, 0);
    let output = loop {
        tokio::select! {
            output = &mut attack => break output?,
            pings = ping(first, target, 5, false) => {
                let pings = pings?;
                sent += pings.sent;
                received += pings.received;
            }
        }
    };
    if !output.status.success() {
        return Err(first.failure(&format!("the attacker: {}", output.stderr)));
    }
    println!("pings under attack: {received} of {sent}");
    assert!(received > 0, "no ping came through during the attack");
    for (from, to) in [(first, second), (second, first)] {
        let target = to.address().await?;
        from.until("all pings come back", RECOVERY, async |node| {
            let pings = ping(node, target, 5, false).await?;
            Ok(pings.received == pings.sent)
        })
        .await?;
    }
    for (node, (constant_before, memory)) in lab.nodes.iter().zip(before) {
        let after = constant(node).await?;
        for ((daemon, pid), before) in DAEMONS.iter().zip(&after.pids).zip(memory) {
            let grown = resident(*pid)?.saturating_sub(before);
            println!("{}: {daemon}: {} KiB, {} KiB more after", node.name, before / 1024, grown / 1024);
            assert!(grown <= MAX_GROWTH, "{daemon} has grown by {grown} bytes");
        }
        assert_eq!(after, constant_before, "{}", node.name);
    }
    Ok(output)
}

fn stranger(what: &str) -> Spawn {
    Spawn::this_program([what.into()]).namespace(Some(STRANGER))
}

#[test]
fn what_a_stranger_sends_to_the_control_destination_has_no_effect() {
    sandboxed(LAB, "what_a_stranger_sends_to_the_control_destination_has_no_effect", async || {
        let lab = start().await?;
        // Two may come by it: an honest joiner, and one of the many. Neither says anything of itself.
        let invite = lab.nodes[0].invite(&["--uses", "2"]).await?;
        let order = serde_json::to_string(&ControlOrder { invite }).unwrap();
        let output = under(&lab, stranger("__attack-control").output(&order)).await?;
        let report: ControlReport = serde_json::from_str(&output.stdout).unwrap();
        println!("{report:?}");
        assert_eq!((report.welcomed, report.used_up), (1, 7));
        assert_eq!(report.known, 2, "the attack had both nodes' records");
        assert_eq!(report.sent.len(), 9);
        // It has arrived, and each was dropped for what was wrong with it.
        for (node, reasons) in lab.nodes.iter().zip([&REASONS[..], &REASONS[..5]]) {
            let log = std::fs::read_to_string(node.log())?;
            for reason in reasons {
                let count = log.lines().filter(|line| line.contains(reason)).count();
                println!("{}: {count} times: {reason}", node.name);
                assert!(count > 0, "{} never wrote {reason:?}", node.name);
            }
        }
        lab.stop().await
    });
}

#[test]
fn a_flood_at_the_data_destination_leaves_sessions_alone() {
    sandboxed(LAB, "a_flood_at_the_data_destination_leaves_sessions_alone", async || {
        let lab = start().await?;
        let [first, second] = &lab.nodes[..] else { panic!("two nodes") };
        // What every member knows of the first.
        let peer = second.peers().await?.remove(0);
        let order = DataOrder {
            endpoint: peer.endpoint,
            public_key: peer.public_key,
            rate: DATA_RATE,
            seconds: DATA_SECONDS,
        };
        let order = serde_json::to_string(&order).unwrap();
        let before = drops(first).await?;
        let output = under(&lab, stranger("__attack-data").output(&order)).await?;
        let report: DataReport = serde_json::from_str(&output.stdout).unwrap();
        let after = drops(first).await?;
        println!("{report:?}: drops {before:?} before, {after:?} after");
        // Some have arrived at least, however many the routers have lost.
        assert!(after > before + 100);
        // The session that there was is the one that there is.
        assert_eq!(first.peers().await?.len(), 1);
        lab.stop().await
    });
}

/// Datagrams dropped that belong to no peer, or are handshakes over the limit.
async fn drops(node: &Node) -> Result<u64, Failure> {
    let drops = node.status().await?.tunnel.drops.ok_or_else(|| node.failure("it counts nothing"))?;
    let count = |name: &str| drops[name].as_u64().unwrap();
    Ok(count("unknown") + count("rate_limited"))
}
