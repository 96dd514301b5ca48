//! The benchmark: what the tunnel makes of what the I2P routers can carry, in one run on one network.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use i2plan_ipc::api::tund::DEFAULT_MTU;
use serde::Serialize;

use crate::Failure;
use crate::node::{Lab, Node, Peer, process_of, processor_time};
use crate::probe::{Received, Sent};
use crate::process::{Child, Spawn};
use crate::progress::Progress;
use crate::stats::{Pings, Series, mbit, print_medians};
use crate::traffic::{ping, transfer};
use crate::udp_tunnels::UdpTunnels;

/// What WireGuard adds to a packet whose length is a multiple of 16, bytes.
pub(crate) const WIREGUARD: usize = 32;

/// Headers of IPv4 and UDP, and of IPv4 and TCP with timestamps, bytes.
const UDP_HEADERS: usize = 28;
pub(crate) const TCP_HEADERS: usize = 52;

/// The length of the datagrams that [`RATES`] counts, bytes.
const RATED: usize = 1312;

/// Offered loads, in datagrams a second. Of longer datagrams as many fewer are sent.
const RATES: [u32; 18] = [
    250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 4000, 6000, 8000, 12_000, 16_000, 24_000,
    32_000, 48_000,
];

/// Multiples of what the tunnel has carried that are offered to it.
const OVERLOADS: [u32; 3] = [1, 2, 4];

/// How long each load is offered.
const STEP: Duration = Duration::from_secs(4);

/// A load is carried if at least this part of it arrives.
const CARRIED: f64 = 0.98;

/// Bytes of the TCP transfer: it lasts as long as the pings meanwhile.
const TRANSFER: u64 = 100_000_000;

/// Pings of an idle tunnel and of one under load, five a second.
const PINGS: u32 = 40;

const PORT: u16 = 5002;

/// One offered load.
#[derive(Debug, Clone, Copy, Serialize)]
struct Load {
    offered_per_s: f64,
    delivered: f64,
    goodput_mbit: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Bare datagrams between the two routers.
    bare: Vec<Load>,
    /// The highest goodput of a load of which 98 % arrived.
    bare_capacity_mbit: f64,
    /// UDP through the tunnel.
    tunnel_udp: Vec<Load>,
    tunnel_udp_mbit: f64,
    tunnel_tcp_mbit: f64,
    /// Tunnel goodput by bare capacity.
    tcp_ratio: f64,
    udp_ratio: f64,
    /// The same in bytes of WireGuard's messages: what the headers of full packets take is not counted as lost.
    tcp_datagram_ratio: f64,
    udp_datagram_ratio: f64,
    /// The interfaces' MTU, bytes.
    mtu: u16,
    /// CPU time that the daemons of both nodes took for the TCP transfer, seconds for each GB of payload.
    cpu_per_gb: BTreeMap<&'static str, f64>,
    /// One, two and four times that.
    overload: Vec<Load>,
    /// Goodput at two and at four times by that at one time.
    udp_2x_ratio: f64,
    udp_4x_ratio: f64,
    idle_rtt: Pings,
    /// During the TCP transfer, against its direction.
    loaded_rtt: Pings,
    /// Ninetieth percentile of that by that of the idle tunnel.
    rtt_p90_ratio: Option<f64>,
    /// The same of bare datagrams between the two routers, beside the tunnel: what of it is not the tunnel's.
    bare_idle_rtt: Pings,
    bare_loaded_rtt: Pings,
    bare_rtt_p90_ratio: Option<f64>,
    /// After the overload, and TCP then by TCP before.
    rtt_after_overload: Pings,
    tcp_after_overload_ratio: f64,
    /// During the TCP transfer.
    tcp_losses: Losses,
    /// WireGuard over the routers' own UDP tunnels; none if they have none, or a program is missing.
    udp_tunnels: Option<UdpTunnelsReport>,
    /// During all loads of UDP together.
    udp_losses: Losses,
    bottleneck: String,
}

/// What wireguard-go carries over UDP tunnels of the routers, and the tunnel by it.
#[derive(Debug, Serialize)]
struct UdpTunnelsReport {
    tcp_mbit: f64,
    /// Offered what the tunnel has carried, and twice that.
    udp: Vec<Load>,
    /// Goodput of the tunnel by that over UDP tunnels.
    tcp_ratio: f64,
    udp_1x_ratio: f64,
    udp_2x_ratio: f64,
}

/// Where packets were lost on the way from the sender to the receiver.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Losses {
    /// WireGuard packets that the sender's tund handed to its router.
    sent: u64,
    /// Of these, those that the receiver's tund got.
    received: u64,
    /// Dropped by the sender's tund before they were sent.
    pub(crate) queue_drops: u64,
    /// Received and not accepted.
    rejected: u64,
}

impl Losses {
    /// Sent and not received.
    pub(crate) fn lost_on_the_way(&self) -> u64 {
        self.sent.saturating_sub(self.received + self.rejected)
    }
}

/// Runs the benchmark in the sandbox. Bare datagrams and the tunnel are measured `alternations` times, in turn.
///
/// # Errors
/// If anything does not work.
pub async fn run(mtu: Option<u16>, alternations: u32, json: bool) -> Result<(), Failure> {
    let progress = Progress::new();
    progress.step("starting a private I2P network and two nodes");
    let mut lab = Lab::with_nodes(2).await?;
    if let Some(mtu) = mtu {
        for node in &mut lab.nodes {
            node.configure(&format!("[tun]\nmtu = {mtu}\n")).await?;
        }
        lab.ready().await?;
    }
    let mtu = mtu.unwrap_or(DEFAULT_MTU);
    let mut series = Series::default();
    let mut reports = Vec::new();
    let udp_tunnels = match UdpTunnels::missing(&lab) {
        None => {
            progress.step("starting the routers again with a UDP tunnel, and WireGuard over it");
            Some(UdpTunnels::start(&mut lab, mtu).await?)
        }
        Some(missing) => {
            eprintln!("without WireGuard over UDP tunnels of the routers: {missing}");
            None
        }
    };
    for number in 0..alternations {
        let report = measure(&lab, mtu, udp_tunnels.as_ref(), number > 0, &progress).await?;
        series.push(&report)?;
        reports.push(report);
    }
    progress.done();
    if json {
        println!("{}", series.to_json("alternations")?);
        return lab.stop().await;
    }
    for (number, report) in (1..).zip(&reports) {
        if alternations > 1 {
            println!("\n{number} of {alternations}");
        }
        print(report);
    }
    if alternations > 1 {
        println!("\nmedians of {alternations}");
        print_medians(&series.medians());
    }
    lab.stop().await
}

/// Measures bare datagrams, then the tunnel. The nodes may have `joined` before.
async fn measure(
    lab: &Lab,
    mtu: u16,
    udp_tunnels: Option<&UdpTunnels>,
    joined: bool,
    progress: &Progress,
) -> Result<Report, Failure> {
    progress.step("bare RAW datagrams between the two routers, load raised until delivery falls below 98 %");
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    let message = usize::from(mtu).next_multiple_of(16) + WIREGUARD;
    let rates = RATES.map(|rate| rate * RATED as u32 / message as u32);
    let bare = bare(one, two, message, &rates).await?;
    let bare_capacity_mbit = capacity(&bare);

    if !joined {
        progress.step("joining the two nodes");
        two.join_by(one).await?;
    }
    let (near, far) = (one.network().await?, two.network().await?);
    ping(one, far.ipv4.into(), 1000, true).await?;
    progress.step("round-trip time of the idle tunnel");
    let idle_rtt = ping(two, near.ipv4.into(), PINGS, false).await?;
    let mut bare_pings = BarePings::start(one, two).await?;
    let bare_idle_rtt = bare_pings.ping().await?;

    progress.step("TCP through the tunnel");
    let before = Counters::read(one, two).await?;
    let cpu_before = cpu_seconds(one, two)?;
    let (moved, loaded_rtt, bare_loaded_rtt) = tokio::try_join!(
        transfer(one, two, far.ipv4.into(), TRANSFER),
        ping(two, near.ipv4.into(), PINGS, false),
        bare_pings.ping(),
    )?;
    bare_pings.stop().await?;
    let cpu_per_gb = per_gb(&cpu_before, &cpu_seconds(one, two)?, moved.bytes);
    let after = Counters::read(one, two).await?;
    let tcp_losses = after.since(&before);
    let tunnel_tcp_mbit = mbit(moved.bytes, Duration::from_secs_f64(moved.seconds));

    let payload = usize::from(mtu) - UDP_HEADERS;
    progress.step("UDP through the tunnel, load raised until delivery falls below 98 %");
    let tunnel_udp = udp(one, two, far.ipv4.into(), payload, &rates, FAILURES).await?;
    let udp_losses = Counters::read(one, two).await?.since(&after);
    let tunnel_udp_mbit = capacity(&tunnel_udp);

    progress.step("UDP through the tunnel, one, two and four times what it has carried");
    let carried = tunnel_udp.iter().filter(|load| load.delivered >= CARRIED).map(|load| load.offered_per_s);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate from `RATES`")]
    let carried = carried.fold(f64::from(rates[0]), f64::max).round() as u32;
    let overload =
        udp(one, two, far.ipv4.into(), payload, &OVERLOADS.map(|times| times * carried), usize::MAX).await?;
    let rtt_after_overload = ping(two, near.ipv4.into(), 10, false).await?;
    let again = transfer(one, two, far.ipv4.into(), TRANSFER).await?;

    let mut over_udp_tunnels = None;
    if let Some(udp_tunnels) = udp_tunnels {
        progress.step("WireGuard over UDP tunnels of the routers");
        let target = udp_tunnels.target();
        let theirs = transfer(one, two, target, TRANSFER).await?;
        let loads = udp(one, two, target, payload, &[carried, 2 * carried], usize::MAX).await?;
        over_udp_tunnels = Some(UdpTunnelsReport {
            tcp_mbit: mbit(theirs.bytes, Duration::from_secs_f64(theirs.seconds)),
            tcp_ratio: theirs.seconds / moved.seconds,
            udp_1x_ratio: overload[0].goodput_mbit / loads[0].goodput_mbit,
            udp_2x_ratio: overload[1].goodput_mbit / loads[1].goodput_mbit,
            udp: loads,
        });
    }

    let mut report = Report {
        bare,
        bare_capacity_mbit,
        tunnel_udp,
        tunnel_udp_mbit,
        tunnel_tcp_mbit,
        tcp_ratio: tunnel_tcp_mbit / bare_capacity_mbit,
        udp_ratio: tunnel_udp_mbit / bare_capacity_mbit,
        tcp_datagram_ratio: tunnel_tcp_mbit / bare_capacity_mbit
            * of_payload(message, usize::from(mtu) - TCP_HEADERS),
        udp_datagram_ratio: tunnel_udp_mbit / bare_capacity_mbit * of_payload(message, payload),
        mtu,
        cpu_per_gb,
        udp_2x_ratio: overload[1].goodput_mbit / overload[0].goodput_mbit,
        udp_4x_ratio: overload[2].goodput_mbit / overload[0].goodput_mbit,
        overload,
        rtt_p90_ratio: p90_ratio(&loaded_rtt, &idle_rtt),
        bare_rtt_p90_ratio: p90_ratio(&bare_loaded_rtt, &bare_idle_rtt),
        idle_rtt,
        loaded_rtt,
        bare_idle_rtt,
        bare_loaded_rtt,
        rtt_after_overload,
        tcp_after_overload_ratio: moved.seconds / again.seconds,
        tcp_losses,
        udp_tunnels: over_udp_tunnels,
        udp_losses,
        bottleneck: String::new(),
    };
    report.bottleneck = bottleneck(&report);
    Ok(report)
}

/// The ninetieth percentile of one by that of another.
fn p90_ratio(one: &Pings, other: &Pings) -> Option<f64> {
    Some(one.times?.p90 / other.times?.p90)
}

/// Bare datagrams there and back between the two routers.
struct BarePings {
    sink: Child,
    source: Child,
}

impl BarePings {
    async fn start(sink: &Node, source: &Node) -> Result<Self, Failure> {
        let mut sink = sink.start_probe(&["__raw-sink".to_owned()])?;
        let destination: String = sink.next_json().await?;
        let args = ["__raw-ping".to_owned(), destination].map(OsString::from);
        let mut source = Spawn::this_program(args).namespace(Some(&source.name)).reads().wait_for_line()?;
        source.first_line().await?;
        Ok(Self { sink, source })
    }

    async fn ping(&mut self) -> Result<Pings, Failure> {
        self.source.say(&PINGS.to_string()).await?;
        self.source.next_json().await
    }

    async fn stop(mut self) -> Result<(), Failure> {
        self.sink.kill().await?;
        self.source.kill().await
    }
}

/// The goodput of the highest load that was carried.
fn capacity(loads: &[Load]) -> f64 {
    loads.iter().filter(|load| load.delivered >= CARRIED).map(|load| load.goodput_mbit).fold(0.0, f64::max)
}

fn seconds(duration: Duration) -> String {
    duration.as_secs().to_string()
}

/// Offers load after load from a source to a sink until so many were not carried.
async fn loads(
    from: &Node,
    source: Vec<String>,
    sink: &mut Child,
    payload: usize,
    rates: &[u32],
    failures: usize,
) -> Result<Vec<Load>, Failure> {
    let mut source = source;
    source.extend(rates.iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
    let mut source = from.start_probe(&source)?;
    let mut loads = Vec::new();
    let mut received = Received::default();
    for step in 0..rates.len() {
        let sent: Sent = source.next_json().await?;
        // The sink reports a step when nothing more comes of it, which is before the source goes on. A step of
        // which nothing arrived is not reported at all.
        let wait = Duration::from_millis(200);
        while let Ok(result) = tokio::time::timeout(wait, sink.next_json::<Received>()).await {
            received = result?;
        }
        let arrived = if usize::try_from(received.step) == Ok(step) { received.datagrams } else { 0 };
        #[expect(clippy::cast_precision_loss, reason = "rates for people")]
        let (sent_count, arrived_count) = (sent.datagrams as f64, arrived as f64);
        let delivered = arrived_count / sent_count.max(1.0);
        loads.push(Load {
            offered_per_s: sent_count / sent.seconds,
            delivered,
            goodput_mbit: mbit(arrived * payload as u64, Duration::from_secs_f64(sent.seconds)),
        });
        if loads.iter().filter(|load| load.delivered < CARRIED).count() >= failures {
            break;
        }
    }
    source.kill().await?;
    sink.kill().await?;
    Ok(loads)
}

/// One load more than the first that is not carried, to show how it goes on.
const FAILURES: usize = 2;

/// Datagrams as long as a full WireGuard message.
async fn bare(from: &Node, to: &Node, len: usize, rates: &[u32]) -> Result<Vec<Load>, Failure> {
    let mut sink = to.start_probe(&["__raw-sink".to_owned()])?;
    let destination: String = sink.next_json().await?;
    let source = vec!["__raw-source".to_owned(), destination, len.to_string(), seconds(STEP)];
    loads(from, source, &mut sink, len, rates, FAILURES).await
}

async fn udp(
    from: &Node,
    to: &Node,
    address: IpAddr,
    payload: usize,
    rates: &[u32],
    failures: usize,
) -> Result<Vec<Load>, Failure> {
    let target = SocketAddr::new(address, PORT).to_string();
    let mut sink = to.start_probe(&["__udp-sink".to_owned(), target.clone()])?;
    sink.first_line().await?;
    let source = vec!["__udp-source".to_owned(), target, payload.to_string(), seconds(STEP)];
    loads(from, source, &mut sink, payload, rates, failures).await
}

#[expect(clippy::cast_precision_loss, reason = "sizes of packets")]
fn of_payload(message: usize, payload: usize) -> f64 {
    message as f64 / payload as f64
}

/// CPU time that daemons of both nodes have taken, seconds.
fn cpu_seconds(one: &Node, two: &Node) -> Result<BTreeMap<&'static str, f64>, Failure> {
    let mut taken = BTreeMap::new();
    for node in [one, two] {
        let [_, meshd, tund] = node.uids;
        for (daemon, uid) in [("meshd", meshd), ("tund", tund)] {
            *taken.entry(daemon).or_insert(0.0) += processor_time(&process_of(uid)?.to_string())?;
        }
    }
    Ok(taken)
}

#[expect(clippy::cast_precision_loss, reason = "gigabytes")]
fn per_gb(
    before: &BTreeMap<&'static str, f64>,
    after: &BTreeMap<&'static str, f64>,
    bytes: u64,
) -> BTreeMap<&'static str, f64> {
    let taken = |(daemon, after): (&&'static str, &f64)| {
        (*daemon, (after - before.get(daemon).copied().unwrap_or_default()) / (bytes as f64 / 1e9))
    };
    after.iter().map(taken).collect()
}

/// The counters of both ends.
pub(crate) struct Counters {
    near: Peer,
    far: Peer,
}

impl Counters {
    /// Reads them, which takes some seconds.
    ///
    /// # Errors
    /// If a node does not answer, or has no peer.
    pub(crate) async fn read(near: &Node, far: &Node) -> Result<Self, Failure> {
        // The daemons fetch counters once a second.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let first = async |node: &Node| {
            node.peers().await?.into_iter().next().ok_or_else(|| node.failure("it has no peer"))
        };
        Ok(Self { near: first(near).await?, far: first(far).await? })
    }

    pub(crate) fn since(&self, before: &Self) -> Losses {
        Losses {
            sent: self.near.tx_packets - before.near.tx_packets,
            received: self.far.rx_packets - before.far.rx_packets,
            queue_drops: self.near.queue_drops - before.near.queue_drops,
            rejected: self.far.rx_drops - before.far.rx_drops,
        }
    }
}

/// Names what holds the tunnel back, from what was measured.
fn bottleneck(report: &Report) -> String {
    let (tcp, udp) = (&report.tcp_losses, &report.udp_losses);
    if report.udp_ratio > 0.9 && report.tcp_ratio > 0.9 {
        return "the I2P routers: the tunnel carries what they carry".to_owned();
    }
    let (in_queue, in_i2p) =
        (tcp.queue_drops + udp.queue_drops, tcp.lost_on_the_way() + udp.lost_on_the_way());
    if in_i2p > in_queue {
        return format!("loss inside I2P: {in_i2p} packets that the sender's tund sent never arrived");
    }
    if in_queue > 0 {
        return format!(
            "the sender's pacing: {in_queue} packets were too many for it, {in_i2p} were lost inside I2P"
        );
    }
    "neither I2P nor the queue lost packets: the processors are busy, or TCP has not grown its window"
        .to_owned()
}

fn print(report: &Report) {
    let table = |title: &str, loads: &[Load]| {
        println!("{title:<28} {:>12} {:>10} {:>14}", "offered/s", "delivered", "goodput");
        for load in loads {
            println!(
                "{:<28} {:>12.0} {:>9.1}% {:>7.2} Mbit/s",
                "",
                load.offered_per_s,
                load.delivered * 100.0,
                load.goodput_mbit
            );
        }
    };
    table("bare RAW datagrams", &report.bare);
    table("UDP through the tunnel", &report.tunnel_udp);
    table("the same, 1, 2, 4 times", &report.overload);
    if let Some(udp_tunnels) = &report.udp_tunnels {
        table("UDP over UDP tunnels, 1, 2", &udp_tunnels.udp);
    }
    let times = |pings: &Pings| {
        let times = pings.times.map_or("-".to_owned(), |times| {
            format!("{:.1}/{:.1}/{:.1}/{:.1} ms", times.min, times.median, times.p90, times.max)
        });
        format!("{times}, {} of {} answered", pings.received, pings.sent)
    };
    println!("\nbare capacity (98 % delivered)  {:.2} Mbit/s", report.bare_capacity_mbit);
    println!(
        "tunnel UDP (98 % delivered)     {:.2} Mbit/s, {:.2} of bare capacity",
        report.tunnel_udp_mbit, report.udp_ratio
    );
    println!(
        "tunnel TCP                      {:.2} Mbit/s, {:.2} of bare capacity",
        report.tunnel_tcp_mbit, report.tcp_ratio
    );
    println!(
        "the same, WireGuard's messages  UDP {:.2}, TCP {:.2} of bare capacity, at an MTU of {}",
        report.udp_datagram_ratio, report.tcp_datagram_ratio, report.mtu
    );
    if let Some(UdpTunnelsReport { tcp_mbit, tcp_ratio, udp_1x_ratio, udp_2x_ratio, .. }) =
        &report.udp_tunnels
    {
        println!("WireGuard over UDP tunnels      TCP {tcp_mbit:.2} Mbit/s");
        println!(
            "the tunnel by that              TCP {tcp_ratio:.2}, UDP offered 1x {udp_1x_ratio:.2}, 2x {udp_2x_ratio:.2}"
        );
    }
    let cpu: Vec<_> =
        report.cpu_per_gb.iter().map(|(daemon, taken)| format!("{daemon} {taken:.1}")).collect();
    println!("CPU seconds for a GB of TCP     {}, both ends together", cpu.join(", "));
    println!("RTT idle, min/median/p90/max    {}", times(&report.idle_rtt));
    println!("RTT during TCP                  {}", times(&report.loaded_rtt));
    println!("the same of bare RAW, idle      {}", times(&report.bare_idle_rtt));
    println!("during TCP through the tunnel   {}", times(&report.bare_loaded_rtt));
    if let (Some(tunnel), Some(bare)) = (report.rtt_p90_ratio, report.bare_rtt_p90_ratio) {
        println!("p90 during TCP by idle          {tunnel:.1}; bare RAW {bare:.1}");
    }
    println!("RTT after the overload          {}", times(&report.rtt_after_overload));
    println!(
        "overload, by goodput at 1x      2x {:.2}, 4x {:.2}; TCP afterwards {:.2} of before",
        report.udp_2x_ratio, report.udp_4x_ratio, report.tcp_after_overload_ratio
    );
    for (what, losses) in [("TCP", &report.tcp_losses), ("UDP", &report.udp_losses)] {
        println!(
            "lost during {what}                 {} in the sender's queue, {} inside I2P, {} not accepted, of {} sent",
            losses.queue_drops,
            losses.lost_on_the_way(),
            losses.rejected,
            losses.sent
        );
    }
    println!("bottleneck                      {}", report.bottleneck);
    println!("(absolute figures are of this machine; ratios can be compared)");
}
