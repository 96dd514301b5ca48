//! The demo: nodes on a private I2P network, one invite each, and traffic between all of them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use serde::Serialize;

use crate::Failure;
use crate::i2p::kind::{RouterKind, Routers};
use crate::node::{Lab, Node, credentials};
use crate::progress::Progress;
use crate::sandbox::{self, bin};
use crate::stats::{Pings, Times, mbit};
use crate::traffic::{ping, reach, transfer};

/// Bytes of each transfer.
const TRANSFER: u64 = 10_000_000;

/// Echo requests from each node to each other one, of each family.
const PINGS: u32 = 10;

/// What the user wants.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many nodes.
    pub nodes: u8,
    /// Hops of their tunnels.
    pub tunnel_length: u8,
    /// Leave it running at the end.
    pub keep: bool,
    /// Print the result for a program.
    pub json: bool,
}

/// What the demo has shown.
#[derive(Debug, Serialize)]
struct Report {
    /// The routers of the network.
    router: Routers,
    /// From the start of the last node until the sessions of all were open.
    sessions_s: f64,
    nodes: Vec<NodeReport>,
    pings: Vec<PingReport>,
    transfers: Vec<TransferReport>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    name: String,
    router: Option<RouterKind>,
    node_id: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    /// From accepting the invite to the first echo over the tunnel; none for the first node.
    join_to_ping_s: Option<f64>,
    daemons: Vec<DaemonReport>,
}

#[derive(Debug, Serialize)]
struct DaemonReport {
    name: String,
    pid: u32,
    uid: u32,
    /// The union of all its capability sets.
    capabilities: u64,
}

#[derive(Debug, Serialize)]
struct PingReport {
    from: String,
    to: String,
    ipv4: Pings,
    ipv6: Pings,
}

#[derive(Debug, Serialize)]
struct TransferReport {
    from: String,
    to: String,
    bytes: u64,
    seconds: f64,
    goodput_mbit: f64,
}

/// Runs the demo in the sandbox.
///
/// # Errors
/// If anything does not work.
pub async fn run(options: Options) -> Result<(), Failure> {
    let progress = Progress::new();
    let routers = Routers::from_env()?;
    progress.step(format!("starting a private I2P network of routers of {}", routers.name()));
    let mut lab = Lab::start_on(routers).await?;
    lab.tunnel_length = options.tunnel_length;
    for _ in 0..options.nodes {
        progress.step(format!(
            "starting node {} of {}: I2P router, keyd, connector, meshd, tund",
            lab.nodes.len() + 1,
            options.nodes
        ));
        lab.add_node().await?;
    }
    progress.step("waiting for the nodes' I2P sessions");
    let started = Instant::now();
    lab.ready().await?;
    let sessions_s = started.elapsed().as_secs_f64();
    let mut joined = Vec::new();
    for index in 1..lab.nodes.len() {
        let (first, joiner) = (&lab.nodes[0], &lab.nodes[index]);
        progress.step(format!("{} invites, {} joins", first.name, joiner.name));
        let started = Instant::now();
        joiner.join_by(first).await?;
        reach(joiner, first).await?;
        joined.push(started.elapsed().as_secs_f64());
    }
    let report = measure(&lab, sessions_s, joined, &progress).await?;
    progress.done();
    if options.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
    } else {
        print(&report);
    }
    if options.keep {
        explain(&lab);
        std::future::pending::<()>().await;
    }
    let progress = Progress::new();
    progress.step("taking everything down");
    lab.stop().await?;
    progress.done();
    Ok(())
}

async fn measure(
    lab: &Lab,
    sessions_s: f64,
    joined: Vec<f64>,
    progress: &Progress,
) -> Result<Report, Failure> {
    let mut joined = joined.into_iter();
    let mut nodes = Vec::new();
    for (index, node) in lab.nodes.iter().enumerate() {
        progress.step(format!("looking at the daemons of {}", node.name));
        let network = node.network().await?;
        let status = node.status().await?;
        let join_to_ping_s = if index == 0 { None } else { joined.next() };
        nodes.push(NodeReport {
            name: node.name.clone(),
            router: node.router_kind(),
            node_id: status.node_id.unwrap_or_default(),
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            join_to_ping_s,
            daemons: daemons(node).await?,
        });
    }
    let mut pings = Vec::new();
    for (from, node) in lab.nodes.iter().enumerate() {
        for to in (0..nodes.len()).filter(|to| *to != from) {
            progress.step(format!("{} pings {} over the tunnel", node.name, nodes[to].name));
            // The first packet between two nodes waits for gossip and a handshake; what follows is measured.
            ping(node, nodes[to].ipv4.into(), 1000, true).await?;
            let ipv4 = ping(node, nodes[to].ipv4.into(), PINGS, false).await?;
            let ipv6 = ping(node, nodes[to].ipv6.into(), PINGS, false).await?;
            for pings in [&ipv4, &ipv6] {
                if pings.received == 0 {
                    return Err(node.failure(&format!("no ping of {} was answered", nodes[to].name)));
                }
            }
            pings.push(PingReport { from: node.name.clone(), to: nodes[to].name.clone(), ipv4, ipv6 });
        }
    }
    let mut transfers = Vec::new();
    for index in 1..lab.nodes.len() {
        let (from, to) = (&lab.nodes[index], &lab.nodes[0]);
        progress.step(format!("{} sends {} MB to {} over TCP", from.name, TRANSFER / 1_000_000, to.name));
        let transfer = transfer(from, to, nodes[0].ipv4.into(), TRANSFER).await?;
        transfers.push(TransferReport {
            from: from.name.clone(),
            to: to.name.clone(),
            bytes: transfer.bytes,
            seconds: transfer.seconds,
            goodput_mbit: mbit(transfer.bytes, std::time::Duration::from_secs_f64(transfer.seconds)),
        });
    }
    Ok(Report { router: lab.routers(), sessions_s, nodes, pings, transfers })
}

/// Every daemon has a user of its own and no capability left.
async fn daemons(node: &Node) -> Result<Vec<DaemonReport>, Failure> {
    let mut daemons = Vec::new();
    let [keyd, meshd, tund] = node.uids;
    let users = [("keyd", keyd), ("connector", node.connector_uid), ("meshd", meshd), ("tund", tund)];
    for (name, expected) in users {
        let pid = node.daemon_pid(name).await?;
        let (uid, capabilities) = credentials(pid)?;
        if uid != expected || capabilities != 0 {
            return Err(node.failure(&format!(
                "{name} runs as user {uid} with capabilities {capabilities:#x}; user {expected} without any was expected"
            )));
        }
        daemons.push(DaemonReport { name: name.to_owned(), pid, uid, capabilities });
    }
    Ok(daemons)
}

fn print(report: &Report) {
    println!("routers: {}; sessions up after {:.1} s\n", report.router.name(), report.sessions_s);
    println!("{:<6} {:<12} {:<16} {:<40} {:>12}", "node", "id", "IPv4", "IPv6", "join→ping");
    for node in &report.nodes {
        let join = node.join_to_ping_s.map_or("founder".to_owned(), |seconds| format!("{seconds:.2} s"));
        let id: String = node.node_id.chars().take(10).collect();
        println!("{:<6} {:<12} {:<16} {:<40} {:>12}", node.name, id, node.ipv4, node.ipv6, join);
    }
    println!(
        "\n{:<12} {:>9} {:>28} {:>9} {:>28}",
        "ping", "IPv4", "min/median/p90 ms", "IPv6", "min/median/p90 ms"
    );
    for ping in &report.pings {
        println!(
            "{:<12} {:>9} {:>28} {:>9} {:>28}",
            format!("{} → {}", ping.from, ping.to),
            format!("{}/{}", ping.ipv4.received, ping.ipv4.sent),
            times(ping.ipv4.times),
            format!("{}/{}", ping.ipv6.received, ping.ipv6.sent),
            times(ping.ipv6.times),
        );
    }
    println!("\n{:<12} {:>9} {:>9} {:>14}  SHA-256", "TCP", "MB", "seconds", "goodput");
    for transfer in &report.transfers {
        println!(
            "{:<12} {:>9} {:>9.1} {:>14}  right",
            format!("{} → {}", transfer.from, transfer.to),
            transfer.bytes / 1_000_000,
            transfer.seconds,
            format!("{:.1} Mbit/s", transfer.goodput_mbit),
        );
    }
    println!("\n{:<6} {:<10} {:>8} {:>8}  capabilities", "node", "daemon", "pid", "user");
    for node in &report.nodes {
        for daemon in &node.daemons {
            println!("{:<6} {:<10} {:>8} {:>8}  none", node.name, daemon.name, daemon.pid, daemon.uid);
        }
    }
    println!(
        "\nIt worked: {} nodes joined one network by invite, and all packets between them went through I2P.",
        report.nodes.len()
    );
}

fn times(times: Option<Times>) -> String {
    times.map_or("-".to_owned(), |times| format!("{:.1}/{:.1}/{:.1}", times.min, times.median, times.p90))
}

/// How to look at what is left running.
fn explain(lab: &Lab) {
    let enter = sandbox::entrance();
    eprintln!("\nLeft running; Ctrl-C takes it down. From another terminal, as the same user:");
    for node in &lab.nodes {
        eprintln!(
            "  {enter} {} --socket {} status",
            bin().join("i2planctl").display(),
            node.socket().display()
        );
    }
    eprintln!("  {enter} less {}", lab.nodes.first().map(Node::log).unwrap_or_default().display());
}
