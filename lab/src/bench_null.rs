//! The benchmark without a path: two nodes over a bridge that only copies, beside a tunnel that only copies and other
//! WireGuard programs. It says what tund costs and how much it carries at most on this machine, and nothing of I2P.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use i2plan_ipc::api::tund::DEFAULT_MTU;
use i2plan_tund::path::controller::CEILING;
use serde::Serialize;

use crate::bench::{Counters, Losses, TCP_HEADERS, WIREGUARD};
use crate::load::Arrived;
use crate::node::{Lab, Node, process_of, processor_time};
use crate::null_bridge::NullBridge;
use crate::process::Spawn;
use crate::progress::Progress;
use crate::stats::{Series, mbit};
use crate::traffic::ping;
use crate::wireguard::{self, End, Implementation, Interface, PORT as WIREGUARD_PORT};
use crate::{Failure, netns};

const WHAT: &str = "two nodes over a bridge that only copies, on one machine; not I2P";

/// Of the TCP connection. The kernel's default differs between systems.
const CONGESTION: &str = "cubic";

/// What of a connection is not counted, seconds: TCP and tund find their rates.
const WARM: u64 = 2;

/// What is waited for between two connections.
const PAUSE: Duration = Duration::from_secs(1);

const PORT: u16 = 5004;

/// Addresses of the stand-in's interfaces, of other WireGuard interfaces and of the links between these.
const COPY: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 97, 0, 1), Ipv4Addr::new(10, 97, 0, 2)];
const TUNNEL: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 98, 0, 2)];
const LINK: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(10, 99, 0, 2)];

/// Of links and of the stand-in's interfaces.
const LINK_NAME: &str = "wire";
const COPY_NAME: &str = "copy0";

/// What WireGuard over UDP and IPv4 adds to a packet, bytes, rounded up.
const AROUND: u16 = 80;

/// The usual MTU of a link.
const LINK_MTU: u16 = 1500;

/// What is measured, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The MTU of all interfaces; none for the default.
    pub mtu: Option<u16>,
    /// How long each connection is counted, seconds.
    pub seconds: u64,
    /// How often each tunnel is measured.
    pub alternations: u32,
    /// Print the result for a program.
    pub json: bool,
}

/// What one tunnel did with a connection.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Row {
    Missing {
        /// False.
        available: bool,
        /// What installs it.
        install: &'static str,
    },
    Measured {
        /// True.
        available: bool,
        #[serde(flatten)]
        measured: Measured,
    },
}

#[derive(Debug, Clone, Serialize)]
struct Measured {
    /// Of TCP's payload.
    goodput_mbit: f64,
    /// Processor time of the tunnel's processes at both ends for a GB of payload, seconds; of i2plan, tund's.
    cpu_s_per_gb: f64,
    /// The same of all daemons of both nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemons_cpu_s_per_gb: Option<f64>,
    /// The same of the bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge_cpu_s_per_gb: Option<f64>,
    /// How much of one processor the busier of both ends took.
    busier_end: f64,
    /// How much of all processors was in use, by whatever.
    machine: f64,
    /// Where packets were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    losses: Option<Losses>,
}

/// One alternation.
#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    mtu: u16,
    seconds: u64,
    congestion: &'static str,
    /// What tund sends at most, as TCP payload in full packets.
    ceiling_mbit: f64,
    tunnels: BTreeMap<&'static str, Row>,
    goodput_by_copy: Option<f64>,
    boringtun_goodput_by_copy: Option<f64>,
    wireguard_go_goodput_by_copy: Option<f64>,
    goodput_by_boringtun: Option<f64>,
    goodput_by_wireguard_go: Option<f64>,
    cpu_by_copy: Option<f64>,
    cpu_by_boringtun: Option<f64>,
    cpu_by_wireguard_go: Option<f64>,
    daemons_cpu_by_boringtun: Option<f64>,
    bottleneck: String,
}

/// A tunnel between two namespaces, or what is missing for it.
enum Tunnel {
    Missing(&'static str),
    There {
        /// The namespaces of both ends.
        ends: [String; 2],
        /// The far end's address in it.
        target: IpAddr,
        /// The process at each end.
        processes: [u32; 2],
        /// What ends the processes when it is dropped.
        _held: Vec<Box<dyn Any>>,
    },
}

/// Runs the benchmark in the sandbox.
///
/// # Errors
/// If anything but a missing program is in the way.
pub async fn run(options: Options) -> Result<(), Failure> {
    let mtu = options.mtu.unwrap_or(DEFAULT_MTU);
    let progress = Progress::new();
    progress.step(format!("starting {WHAT}"));
    let bridge = NullBridge::default();
    let mut lab = Lab::on_bridges(2, |_, name| bridge.attach(name)).await?;
    if options.mtu.is_some() {
        for node in &mut lab.nodes {
            node.configure(&format!("[tun]\nmtu = {mtu}\n")).await?;
        }
        lab.ready().await?;
    }
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    let available: bool = one.probe(&["__has-congestion-control".to_owned(), CONGESTION.to_owned()]).await?;
    if !available {
        return Err(Failure::new(format!("the kernel has no TCP_CONGESTION {CONGESTION}: load its module")));
    }
    two.join_by(one).await?;
    let target = two.address().await?;
    ping(one, target, 1, true).await?;
    progress.step("starting the other tunnels");
    let nodes = [one, two];
    let ends = nodes.map(|node| node.name.clone());
    let [near, far] = nodes.map(|node| process_of(node.uids[2]));
    let tund = Tunnel::There { ends, target, processes: [near?, far?], _held: Vec::new() };
    let tunnels = [
        ("tund", tund),
        ("copy", copy(nodes, mtu).await?),
        ("boringtun", other(Implementation::Boringtun, ["b1", "b2"], mtu).await?),
        ("wireguard_go", other(Implementation::Go, ["g1", "g2"], mtu).await?),
    ];

    let mut series = Series::default();
    for number in 1..=options.alternations {
        let mut rows = BTreeMap::new();
        for (name, tunnel) in &tunnels {
            let row = match tunnel {
                Tunnel::Missing(install) => Row::Missing { available: false, install },
                Tunnel::There { ends, target, processes, .. } => {
                    let seconds = options.seconds;
                    progress.step(format!("{name} for {seconds} s, {number} of {}", options.alternations));
                    let bench = Bench { nodes, bridge: &bridge, seconds };
                    let measured = match *name {
                        "tund" => bench.measure_nodes(ends, *target, *processes).await,
                        _ => bench.measure(ends, *target, *processes).await,
                    };
                    Row::Measured { available: true, measured: measured? }
                }
            };
            rows.insert(*name, row);
        }
        series.push(&Report::new(&options, mtu, rows))?;
    }
    progress.done();
    if options.json {
        println!("{}", series.to_json("alternations")?);
    } else {
        print(&series.medians(), options.alternations);
    }
    lab.stop().await
}

/// Starts the stand-in at both nodes, beside their daemons.
async fn copy(nodes: [&Node; 2], mtu: u16) -> Result<Tunnel, Failure> {
    let mut children = Vec::new();
    let mut destinations = Vec::new();
    for (node, address) in nodes.into_iter().zip(COPY) {
        let args = ["__copy-tunnel", COPY_NAME, &address.to_string(), &mtu.to_string()].map(OsString::from);
        let mut child = Spawn::this_program(args).namespace(Some(&node.name)).reads().wait_for_line()?;
        destinations.push(child.next_json::<String>().await?);
        children.push(child);
    }
    destinations.reverse();
    let mut held = Vec::new();
    let mut pids = Vec::new();
    for (mut child, other) in children.into_iter().zip(destinations) {
        child.say(&other).await?;
        child.first_line().await?;
        pids.push(child.pid());
        held.push(Box::new(child) as Box<dyn Any>);
    }
    let ends = nodes.map(|node| node.name.clone());
    Ok(Tunnel::There { ends, target: COPY[1].into(), processes: [pids[0], pids[1]], _held: held })
}

/// Starts another WireGuard program at both ends of a link.
async fn other(implementation: Implementation, ends: [&'static str; 2], mtu: u16) -> Result<Tunnel, Failure> {
    if let Some(install) = implementation.missing() {
        return Ok(Tunnel::Missing(install));
    }
    for end in ends {
        netns::create(end)?;
    }
    netns::link(LINK_NAME, [(ends[0], LINK[0]), (ends[1], LINK[1])], 24)?;
    let names = ends.map(|end| format!("wg-{end}"));
    let end = |number: usize| End {
        namespace: ends[number],
        interface: &names[number],
        address: TUNNEL[number],
        endpoint: Some((LINK[number], WIREGUARD_PORT).into()),
    };
    let interfaces = wireguard::pair(implementation, [end(0), end(1)], mtu).await?;
    let link_mtu = (mtu + AROUND).max(LINK_MTU).to_string();
    for (interface, link) in interfaces.iter().zip([LINK_NAME.to_owned(), format!("{LINK_NAME}-far")]) {
        interface.run("ip", &["link", "set", &link, "mtu", &link_mtu]).await?;
    }
    let pids = interfaces.each_ref().map(Interface::pid);
    let held = interfaces.map(|interface| Box::new(interface) as Box<dyn Any>).into();
    let ends = ends.map(ToOwned::to_owned);
    Ok(Tunnel::There { ends, target: TUNNEL[1].into(), processes: pids, _held: held })
}

struct Bench<'a> {
    nodes: [&'a Node; 2],
    bridge: &'a NullBridge,
    seconds: u64,
}

/// Processor time taken until a moment, seconds.
struct Taken {
    at: Instant,
    /// Of the processes of the tunnel, by end.
    ends: [f64; 2],
    /// Of all daemons of both nodes.
    daemons: f64,
    bridge: f64,
    /// Of all processors: in use, and in all.
    machine: [f64; 2],
}

impl Bench<'_> {
    /// The same as [`Self::measure`], and what the nodes count.
    async fn measure_nodes(
        &self,
        ends: &[String; 2],
        target: IpAddr,
        processes: [u32; 2],
    ) -> Result<Measured, Failure> {
        let [near, far] = self.nodes;
        let before = Counters::read(near, far).await?;
        let measured = self.measure(ends, target, processes).await?;
        let losses = Counters::read(near, far).await?.since(&before);
        Ok(Measured { losses: Some(losses), ..measured })
    }

    /// Sends over one TCP connection from one end of a tunnel to the other, and counts after a while.
    async fn measure(
        &self,
        ends: &[String; 2],
        target: IpAddr,
        processes: [u32; 2],
    ) -> Result<Measured, Failure> {
        let probe = |end: &str, words: &[&str]| {
            Spawn::this_program(words.iter().map(OsString::from)).namespace(Some(end)).wait_for_line()
        };
        tokio::time::sleep(PAUSE).await;
        let target = SocketAddr::new(target, PORT).to_string();
        let (warm, end) = (WARM.to_string(), (WARM + self.seconds).to_string());
        let longer = (WARM + self.seconds + 1).to_string();
        let mut sink = probe(&ends[1], &["__tcp-sink", &target, &warm, &end])?;
        sink.first_line().await?;
        let mut source = probe(&ends[0], &["__tcp-source", &target, "1", CONGESTION, &longer])?;
        tokio::time::sleep(Duration::from_secs(WARM)).await;
        let before = self.taken(processes)?;
        let arrived: Arrived = sink.next_json().await?;
        let after = self.taken(processes)?;
        source.kill().await?;
        sink.kill().await?;

        let bytes_per_s = arrived.bytes as f64 / arrived.seconds;
        let elapsed = after.at.duration_since(before.at).as_secs_f64();
        // Both are rates, since the sink counts by its own clock.
        let per_gb = |taken: f64| taken / elapsed / (bytes_per_s / 1e9);
        let by_end = [0, 1].map(|end| after.ends[end] - before.ends[end]);
        let of_nodes = ends[0] == self.nodes[0].name;
        let is_tund = processes[0] == process_of(self.nodes[0].uids[2])?;
        let [used, all] = [0, 1].map(|part| after.machine[part] - before.machine[part]);
        Ok(Measured {
            goodput_mbit: mbit(arrived.bytes, Duration::from_secs_f64(arrived.seconds)),
            cpu_s_per_gb: per_gb(by_end.iter().sum()),
            daemons_cpu_s_per_gb: is_tund.then(|| per_gb(after.daemons - before.daemons)),
            bridge_cpu_s_per_gb: of_nodes.then(|| per_gb(after.bridge - before.bridge)),
            busier_end: by_end[0].max(by_end[1]) / elapsed,
            machine: used / all,
            losses: None,
        })
    }

    fn taken(&self, processes: [u32; 2]) -> Result<Taken, Failure> {
        let [near, far] = processes.map(|process| processor_time(&process.to_string()));
        let mut daemons = 0.0;
        for node in self.nodes {
            // One that has ended meanwhile was not a daemon.
            daemons += node
                .processes()?
                .iter()
                .filter_map(|process| processor_time(&process.to_string()).ok())
                .sum::<f64>();
        }
        let bridge = self.bridge.processor_time()?;
        Ok(Taken { at: Instant::now(), ends: [near?, far?], daemons, bridge, machine: machine()? })
    }
}

/// How long all processors together have been in use, and how long they were there, in ticks (proc(5)).
fn machine() -> Result<[f64; 2], Failure> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    // User, nice, system, idle, waiting for input and output, interrupts, others' use of the processors. What guests
    // took is in the first two.
    let times: Vec<f64> =
        line.split_whitespace().skip(1).take(8).filter_map(|time| time.parse().ok()).collect();
    let all = times.iter().sum::<f64>();
    let idle = times.get(3..5).map_or(0.0, |idle| idle.iter().sum());
    Ok([all - idle, all])
}

impl Report {
    fn new(options: &Options, mtu: u16, tunnels: BTreeMap<&'static str, Row>) -> Self {
        let measured = |name: &str| match tunnels.get(name) {
            Some(Row::Measured { measured, .. }) => Some(measured),
            _ => None,
        };
        let goodput =
            |one: &str, other: &str| Some(measured(one)?.goodput_mbit / measured(other)?.goodput_mbit);
        let cpu = |other: &str| Some(measured("tund")?.cpu_s_per_gb / measured(other)?.cpu_s_per_gb);
        let daemons_cpu =
            |other: &str| Some(measured("tund")?.daemons_cpu_s_per_gb? / measured(other)?.cpu_s_per_gb);
        let payload = f64::from(mtu) - TCP_HEADERS as f64;
        let ceiling_mbit = CEILING * 8.0 / 1e6 * payload / (f64::from(mtu) + WIREGUARD as f64);
        Self {
            what: WHAT,
            mtu,
            seconds: options.seconds,
            congestion: CONGESTION,
            ceiling_mbit,
            goodput_by_copy: goodput("tund", "copy"),
            boringtun_goodput_by_copy: goodput("boringtun", "copy"),
            wireguard_go_goodput_by_copy: goodput("wireguard_go", "copy"),
            goodput_by_boringtun: goodput("tund", "boringtun"),
            goodput_by_wireguard_go: goodput("tund", "wireguard_go"),
            cpu_by_copy: cpu("copy"),
            cpu_by_boringtun: cpu("boringtun"),
            cpu_by_wireguard_go: cpu("wireguard_go"),
            daemons_cpu_by_boringtun: daemons_cpu("boringtun"),
            bottleneck: measured("tund").map_or_else(String::new, |tund| bottleneck(tund, ceiling_mbit)),
            tunnels,
        }
    }
}

/// A processor, or all, of which so much is in use is busy.
const BUSY: f64 = 0.93;

/// Names what holds i2plan's tunnel back, from what was measured.
fn bottleneck(tund: &Measured, ceiling_mbit: f64) -> String {
    if tund.goodput_mbit > 0.9 * ceiling_mbit {
        return "tund's own ceiling".to_owned();
    }
    if tund.busier_end > BUSY {
        return "the one thread of tund, at one end, which has a processor to itself".to_owned();
    }
    if tund.machine > BUSY {
        return "all processors are busy, with both ends, the bridge, TCP and whatever else runs here"
            .to_owned();
    }
    let losses = tund.losses.unwrap_or_default();
    if losses.queue_drops > losses.lost_on_the_way() {
        return "the rate at which tund sends, which drops packets in its queue".to_owned();
    }
    if losses.lost_on_the_way() > 0 {
        return "datagrams that full sockets lose, after which TCP and tund send less".to_owned();
    }
    "neither processors nor losses: the rate that tund has found, or TCP's window".to_owned()
}

fn print(medians: &serde_json::Value, alternations: u32) {
    println!("{WHAT}; medians of {alternations} alternations");
    println!("TCP ({CONGESTION}), MTU {}\n", medians["mtu"]);
    let number = |value: &serde_json::Value, digits: usize| {
        value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    println!(
        "{:<14} {:>8} {:>14} {:>14} {:>12} {:>12} {:>9}",
        "", "Mbit/s", "CPU s per GB", "all daemons", "bridge", "busier end", "machine"
    );
    for name in ["tund", "copy", "boringtun", "wireguard_go"] {
        let row = &medians["tunnels"][name];
        if let Some(install) = row["install"].as_str() {
            println!("{name:<14} is missing: {install}");
            continue;
        }
        println!(
            "{name:<14} {:>8} {:>14} {:>14} {:>12} {:>12} {:>9}",
            number(&row["goodput_mbit"], 0),
            number(&row["cpu_s_per_gb"], 2),
            number(&row["daemons_cpu_s_per_gb"], 2),
            number(&row["bridge_cpu_s_per_gb"], 2),
            number(&row["busier_end"], 2),
            number(&row["machine"], 2),
        );
    }
    println!();
    for (text, key) in [
        ("goodput by the copy-only stand-in", "goodput_by_copy"),
        ("the same of boringtun", "boringtun_goodput_by_copy"),
        ("the same of wireguard-go", "wireguard_go_goodput_by_copy"),
        ("CPU time by the stand-in", "cpu_by_copy"),
        ("CPU time by boringtun", "cpu_by_boringtun"),
        ("CPU time of all daemons by it", "daemons_cpu_by_boringtun"),
        ("CPU time by wireguard-go", "cpu_by_wireguard_go"),
    ] {
        println!("{text:<36} {:>6}", number(&medians[key], 2));
    }
    println!("bottleneck: {}", medians["bottleneck"].as_str().unwrap_or("-"));
}
