//! The benchmark over an emulated path: what the tunnel makes of a path whose rate is known. It is not I2P.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum as _;
use i2plan_ipc::api::tund::DEFAULT_MTU;
use i2plan_tund::path::emulation::{self, FALL, OUTAGE, RISE, Spec};
use serde::Serialize;

use crate::Failure;
use crate::load::Arrived;
use crate::node::{Lab, Node};
use crate::path::link::{LossesOf, SLICE, Slice};
use crate::path::plot::{Drawn, svg};
use crate::path::{Path, Side};
use crate::progress::Progress;
use crate::stats::{Series, mbit, print_medians};
use crate::traffic::ping;

/// What a full packet consists of, bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Its WireGuard message.
    message: f64,
    /// The payload of a TCP segment over IPv4 with timestamps.
    tcp_payload: f64,
    /// That of a UDP datagram.
    udp_payload: u32,
}

impl Sizes {
    fn of(mtu: u16) -> Self {
        let message = f64::from(mtu.next_multiple_of(16) + 32);
        Self { message, tcp_payload: f64::from(mtu - 20 - 32), udp_payload: u32::from(mtu - 28) }
    }
}

const PORT: u16 = 5002;
const ECHO_PORT: u16 = 5003;

/// Between pings.
const PING_EVERY_MS: u64 = 250;

/// How long the idle tunnel is pinged.
const IDLE: u64 = 20;

/// How long a load is not counted at first, if that is less than a third of it, seconds.
const WARM: u64 = 25;

/// The ceiling of the run for reference, as a share of the path's rate.
const ORACLE: f64 = 0.97;

/// What is waited for between two loads.
const PAUSE: Duration = Duration::from_secs(4);

/// The names of the paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PathName {
    /// 60 Mbit/s, 2 ms, no loss, a queue of 0.1 s
    Lab,
    /// 4 Mbit/s, 300 ms, 0.5 % loss
    Good,
    /// 1 Mbit/s, 800 ± 200 ms, 2 % loss
    Usual,
    /// 256 kbit/s, 1.5 ± 0.5 s, 5 % loss in rows of 4
    Bad,
    /// 4 Mbit/s, 1 from second 40 to 60, then 4; 300 ms, 0.5 % loss
    Steps,
    /// 4 Mbit/s, 300 ms; nothing arrives for 2 s
    Outage,
    /// The same for 20 s
    LongOutage,
    /// 1 Mbit/s, 300 ms and 300 ms more every other 40 s, 1 % loss
    Route,
    /// As `good`; a node sends to two others at the same time
    Shared,
    /// As `good`; two nodes send to a third, one of them 20 s later
    SharedDistant,
}

impl PathName {
    fn spec(self) -> Spec {
        match self {
            Self::Lab => emulation::lab(),
            Self::Good | Self::Shared | Self::SharedDistant => emulation::good(),
            Self::Usual => emulation::usual(),
            Self::Bad => emulation::bad(),
            Self::Steps => emulation::steps(),
            Self::Outage => emulation::outage(),
            Self::LongOutage => emulation::long_outage(),
            Self::Route => emulation::route(),
        }
    }

    /// How long a load must last for what happens on the path, seconds.
    fn least(self) -> u64 {
        match self {
            Self::Lab | Self::Good | Self::Usual | Self::Bad => 0,
            Self::Steps => RISE as u64 + 30,
            Self::Outage => OUTAGE as u64 + 40,
            Self::LongOutage => OUTAGE as u64 + 60,
            Self::Route => 160,
            Self::Shared | Self::SharedDistant => 120,
        }
    }

    fn loads(self) -> &'static [Load] {
        match self {
            Self::Lab | Self::Good | Self::Usual | Self::Bad => &LOADS,
            // The load that shows the path's changes, and one that reacts to them.
            Self::Outage | Self::LongOutage => &CHANGES,
            Self::Steps | Self::Route => &CHANGES[..1],
            Self::Shared | Self::SharedDistant => &[],
        }
    }
}

/// What is sent over the tunnel.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// Flows with a congestion control of the kernel.
    Tcp(&'static str, usize),
    /// Datagrams at a multiple of the path's rate.
    Udp(u32),
}

const LOADS: [Load; 6] = [
    Load::Tcp("cubic", 1),
    Load::Tcp("cubic", 8),
    Load::Tcp("bbr", 1),
    Load::Udp(1),
    Load::Udp(2),
    Load::Udp(4),
];

const CHANGES: [Load; 2] = [Load::Udp(2), Load::Tcp("cubic", 8)];

impl Load {
    fn name(self) -> String {
        match self {
            Self::Tcp(congestion, flows) => format!("tcp_{congestion}_{flows}"),
            Self::Udp(times) => format!("udp_{times}x"),
        }
    }
}

/// The names of all loads.
#[must_use]
pub fn load_names() -> Vec<String> {
    LOADS.map(Load::name).into()
}

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// The path.
    pub path: PathName,
    /// How long each load lasts, seconds.
    pub seconds: u64,
    /// The queue of the path, seconds; none for that of the path's description.
    pub queue: Option<f64>,
    /// All chance on the path follows from it.
    pub seed: u64,
    /// The MTU of the interfaces, in place of the default. Losses are then those of I2P's messages.
    pub mtu: Option<u16>,
    /// How many seeds, that one first, the path is measured with.
    pub seeds: u32,
    /// The names of the loads that are measured; empty for all that the path has.
    pub loads: Vec<String>,
    /// Where a picture of what happened over time is written, as SVG.
    pub plot: Option<PathBuf>,
    /// Print the result for a program.
    pub json: bool,
}

impl Options {
    fn mtu(&self) -> u16 {
        self.mtu.unwrap_or(DEFAULT_MTU)
    }

    fn losses_of(&self) -> LossesOf {
        if self.mtu.is_some() { LossesOf::Messages } else { LossesOf::Datagrams }
    }
}

/// Quantiles of round-trip times, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    sent: usize,
    answered: usize,
}

impl Quantiles {
    fn of(times: &[Option<f64>]) -> Self {
        let mut answered: Vec<f64> = times.iter().copied().flatten().collect();
        answered.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (answered.len() as f64 * share) as usize;
            answered.get(index.min(answered.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), sent: times.len(), answered: answered.len() }
    }
}

/// What a load came to.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    /// Of the transport's payload.
    payload_mbit: f64,
    /// The same in datagrams: with the headers that a full packet has, in WireGuard messages.
    goodput_mbit: f64,
    ping_ms: Quantiles,
    /// Bytes of the tunnel's datagrams from near to far: how many were offered to the path, dropped by its full queue,
    /// and lost on it.
    offered: u64,
    queue_drops: u64,
    lost: u64,
    #[serde(skip)]
    slices: Vec<Slice>,
    /// The round-trip times of all pings, milliseconds.
    #[serde(skip)]
    times: Vec<Option<f64>>,
}

/// A load with what it is compared with.
#[derive(Debug, Serialize)]
struct Row {
    /// Whether the kernel has the congestion control; nothing was measured if not.
    available: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Measured>,
    /// The same with a tunnel that sends at 0.97 of the path's rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    oracle: Option<Measured>,
    /// What the path carried at most while that was measured.
    path_mbit: f64,
    ping_idle_ms: Quantiles,
    goodput_by_path: Option<f64>,
    goodput_by_oracle: Option<f64>,
    /// The 90th percentile of a ping less that of the idle tunnel, in round trips of the path.
    added_p90_by_round_trip: Option<f64>,
    oracle_added_p90_by_round_trip: Option<f64>,
}

/// How the tunnel follows a path that changes, in round trips of the path; none for never.
#[derive(Debug, Default, Serialize)]
struct Changes {
    start_to_0_9_of_rate: Option<f64>,
    down_to_1_1_of_new_rate: Option<f64>,
    queue_below_half_round_trip: Option<f64>,
    goodput_while_low_by_rate: Option<f64>,
    up_to_0_9_of_rate: Option<f64>,
    outage_to_0_9_of_rate_udp: Option<f64>,
    outage_to_0_9_of_rate_tcp_cubic_8: Option<f64>,
    outage_to_0_9_of_rate_tcp_cubic_8_oracle: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Description {
    name: PathName,
    rate_mbit: f64,
    round_trip_ms: f64,
    jitter_ms: f64,
    loss: f64,
    loss_burst: f64,
    queue_s: f64,
    seed: u64,
    mtu: u16,
    losses_of: LossesOf,
}

#[derive(Debug, Serialize)]
struct Report {
    what: &'static str,
    path: Description,
    seconds: u64,
    counted_from: u64,
    loads: BTreeMap<String, Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_2x_by_1x: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_4x_by_1x: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Changes>,
}

const WHAT: &str = "an emulated path between two nodes on one machine; not I2P";

/// Runs the benchmark in the sandbox.
///
/// # Errors
/// If anything does not work.
pub async fn run(options: Options) -> Result<(), Failure> {
    let spec = options.path.spec();
    let spec = Spec { queue: options.queue.unwrap_or(spec.queue), ..spec };
    let seconds = options.seconds.max(options.path.least());
    let warm = if options.path.least() > 0 { 2 } else { WARM.min(seconds / 3) };
    let is_wanted = |load: &Load| options.loads.is_empty() || options.loads.contains(&load.name());
    let loads: Vec<_> = options.path.loads().iter().copied().filter(is_wanted).collect();
    if loads.is_empty() && !options.loads.is_empty() {
        return Err(Failure::new(format!("that path has no {}", options.loads.join(", "))));
    }
    let progress = Progress::new();
    progress.step(format!("starting nodes on {WHAT}"));
    let path = Path::start(&spec, options.losses_of(), options.seed)?;
    let shared = Shared::of(options.path);
    let sides = shared.as_ref().map_or(vec![Side::Near, Side::Far], |shared| shared.sides.to_vec());
    let mut lab = Lab::on_path(&path, &sides).await?;
    if let Some(mtu) = options.mtu {
        for node in &mut lab.nodes {
            node.configure(&format!("[tun]\nmtu = {mtu}\n")).await?;
        }
        lab.ready().await?;
    }
    for node in &lab.nodes[1..] {
        node.join_by(&lab.nodes[0]).await?;
    }
    let target = lab.nodes[1].address().await?;
    let bench = Bench { spec, path, target, sizes: Sizes::of(options.mtu()), seconds, warm };
    let mut series = Series::default();
    for seed in (options.seed..).take(options.seeds as usize) {
        if seed != options.seed {
            progress.step(format!("the nodes start again, on the path of seed {seed}"));
            bench.path.reseed(seed).await?;
            restart(&mut lab, None).await?;
        }
        let description = describe(&options, seed, &bench.spec);
        if let Some(shared) = &shared {
            let shares = share(&lab, shared, description, seconds, &progress).await?;
            if !options.json {
                println!(
                    "{WHAT}, seed {seed}\n{:.2} and {:.2} of {:.2} Mbit/s in datagrams, Jain's index {:.3}",
                    shares.goodput_mbit[0], shares.goodput_mbit[1], shares.path_mbit, shares.jain_index
                );
            }
            series.push(&shares)?;
            continue;
        }
        let rows = bench.rows(&mut lab, &loads, &progress).await?;
        if let Some(file) = options.plot.as_ref().filter(|_| seed == options.seed) {
            std::fs::write(file, bench.plot(options.path, &rows))
                .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        }
        let report = bench.report(options.path, description, rows);
        if !options.json {
            print(&report);
        }
        series.push(&report)?;
    }
    progress.done();
    if options.json {
        println!("{}", series.to_json("seeds")?);
    } else if options.seeds > 1 {
        println!("\nmedians of {} seeds", options.seeds);
        let medians = series.medians();
        print_medians(&medians);
        print_medians(&medians["changes"]);
        for (name, row) in medians["loads"].as_object().into_iter().flatten() {
            println!("{name}");
            print_medians(row);
        }
    }
    lab.stop().await
}

/// Starts the daemons of all nodes again, to send at this rate in kbit/s to peers that report; none for what the path
/// carries.
async fn restart(lab: &mut Lab, sending_rate: Option<u32>) -> Result<(), Failure> {
    for node in &mut lab.nodes {
        node.stop_daemons().await?;
        node.sending_rate = sending_rate;
        node.start_daemons()?;
    }
    lab.ready().await
}

fn describe(options: &Options, seed: u64, spec: &Spec) -> Description {
    Description {
        name: options.path,
        rate_mbit: spec.most() / 1e6,
        round_trip_ms: spec.round_trip * 1000.0,
        jitter_ms: spec.jitter * 1000.0,
        loss: spec.loss,
        loss_burst: spec.burst,
        queue_s: spec.queue,
        seed,
        mtu: options.mtu(),
        losses_of: options.losses_of(),
    }
}

/// What two tunnels over one path get of it.
#[derive(Debug, Serialize)]
struct Shares {
    what: &'static str,
    path: Description,
    /// Of these the last 60 are counted.
    seconds: u64,
    path_mbit: f64,
    /// In datagrams.
    goodput_mbit: [f64; 2],
    goodput_by_path: f64,
    jain_index: f64,
}

/// How much of the end of a load that shares the path is counted, seconds.
const COUNTED: u64 = 60;

/// Which tunnels share a path.
struct Shared {
    sides: [Side; 3],
    /// From which node to which each goes.
    pairs: [(usize, usize); 2],
    /// How much later the second begins, seconds.
    later: u64,
}

impl Shared {
    fn of(path: PathName) -> Option<Self> {
        let (sides, pairs, later) = match path {
            PathName::Shared => ([Side::Near, Side::Far, Side::Far], [(0, 1), (0, 2)], 0),
            PathName::SharedDistant => ([Side::Near, Side::Near, Side::Far], [(0, 2), (1, 2)], 20),
            _ => return None,
        };
        Some(Self { sides, pairs, later })
    }
}

/// Two tunnels, of one node or of two, each of which is offered twice the path's rate.
async fn share(
    lab: &Lab,
    shared: &Shared,
    description: Description,
    seconds: u64,
    progress: &Progress,
) -> Result<Shares, Failure> {
    let Shared { pairs, later, .. } = *shared;
    for (from, to) in pairs {
        ping(&lab.nodes[from], lab.nodes[to].address().await?, 1, true).await?;
    }
    progress.step(format!("two tunnels for {seconds} s, each offered twice the path's rate"));
    let Sizes { message, udp_payload, .. } = Sizes::of(description.mtu);
    let rate = (2e6 * description.rate_mbit / (8.0 * message)) as u32;
    let one = async |number: usize, later: u64| {
        let (from, to) = pairs[number];
        let port = PORT + u16::try_from(number).unwrap_or(0);
        let target = SocketAddr::new(lab.nodes[to].address().await?, port).to_string();
        let lasts = seconds - later;
        let words = ["__udp-count", &target, &(lasts - COUNTED.min(lasts)).to_string(), &lasts.to_string()];
        let mut sink = lab.nodes[to].start_probe(&words.map(ToOwned::to_owned))?;
        sink.first_line().await?;
        tokio::time::sleep(Duration::from_secs(later)).await;
        let words = [
            "__udp-source",
            &target,
            &udp_payload.to_string(),
            &seconds.to_string(),
            "--rate",
            &rate.to_string(),
        ];
        let mut source = lab.nodes[from].start_probe(&words.map(ToOwned::to_owned))?;
        let arrived: Arrived = sink.next_json().await?;
        source.kill().await?;
        sink.kill().await?;
        let payload = mbit(arrived.bytes, Duration::from_secs_f64(arrived.seconds));
        Ok::<_, Failure>(payload * message / f64::from(udp_payload))
    };
    let (first, second) = tokio::try_join!(one(0, 0), one(1, later))?;
    Ok(Shares {
        what: WHAT,
        seconds,
        path_mbit: description.rate_mbit,
        goodput_mbit: [first, second],
        goodput_by_path: (first + second) / description.rate_mbit,
        jain_index: (first + second).powi(2) / (2.0 * (first * first + second * second)),
        path: description,
    })
}

/// A path with what is measured over it.
struct Bench {
    spec: Spec,
    path: Path,
    /// The far node.
    target: IpAddr,
    sizes: Sizes,
    seconds: u64,
    warm: u64,
}

impl Bench {
    /// Measures the loads, then once more with nodes that send at a share of the path's rate.
    async fn rows(
        &self,
        lab: &mut Lab,
        loads: &[Load],
        progress: &Progress,
    ) -> Result<BTreeMap<String, Row>, Failure> {
        ping(&lab.nodes[0], self.target, 1, true).await?;
        progress.step("round-trip time of the idle tunnel");
        let idle = self.idle(&lab.nodes).await?;
        let mut rows = BTreeMap::new();
        let seconds = self.seconds;
        for load in loads {
            let available = match load {
                Load::Tcp(congestion, _) => {
                    let words = ["__has-congestion-control", congestion].map(ToOwned::to_owned);
                    lab.nodes[0].probe(&words).await?
                }
                Load::Udp(_) => true,
            };
            let tunnel = if available {
                progress.step(format!("{} for {seconds} s", load.name()));
                Some(self.measure(&lab.nodes, *load).await?)
            } else {
                None
            };
            rows.insert(load.name(), self.row(available, tunnel, idle));
        }
        progress.step("the nodes start again, and send at 0.97 of the path's rate");
        restart(lab, Some((ORACLE * self.spec.most() / 1000.0) as u32)).await?;
        ping(&lab.nodes[0], self.target, 1, true).await?;
        for load in loads {
            if let Some(row) = rows.get_mut(&load.name()).filter(|row| row.available) {
                progress.step(format!("{} for {seconds} s, at 0.97 of the path's rate", load.name()));
                self.compare(row, self.measure(&lab.nodes, *load).await?);
            }
        }
        Ok(rows)
    }

    async fn pings(&self, near: &Node, seconds: u64) -> Result<Vec<Option<f64>>, Failure> {
        let target = SocketAddr::new(self.target, ECHO_PORT).to_string();
        let times = [PING_EVERY_MS, seconds].map(|number| number.to_string());
        near.probe(&[&["__udp-ping".to_owned(), target][..], &times].concat()).await
    }

    async fn idle(&self, nodes: &[Node]) -> Result<Quantiles, Failure> {
        let target = SocketAddr::new(self.target, ECHO_PORT).to_string();
        let mut echo = nodes[1].start_probe(&["__udp-echo".to_owned(), target])?;
        echo.first_line().await?;
        let times = self.pings(&nodes[0], IDLE).await?;
        echo.kill().await?;
        Ok(Quantiles::of(&times))
    }

    async fn measure(&self, nodes: &[Node], load: Load) -> Result<Measured, Failure> {
        let (near, far) = (&nodes[0], &nodes[1]);
        let [target, echo] = [PORT, ECHO_PORT].map(|port| SocketAddr::new(self.target, port).to_string());
        let [warm, seconds] = [self.warm, self.seconds].map(|number| number.to_string());
        let sink = if matches!(load, Load::Tcp(..)) { "__tcp-sink" } else { "__udp-count" };
        let mut sink = far.start_probe(&[sink.to_owned(), target.clone(), warm, seconds.clone()])?;
        sink.first_line().await?;
        let mut echo = far.start_probe(&["__udp-echo".to_owned(), echo])?;
        echo.first_line().await?;
        tokio::time::sleep(PAUSE).await;
        self.path.begin().await?;
        let (source, payload) = match load {
            Load::Tcp(congestion, flows) => {
                let words = ["__tcp-source", &target, &flows.to_string(), congestion, &seconds];
                (words.map(ToOwned::to_owned).to_vec(), self.sizes.tcp_payload)
            }
            Load::Udp(times) => {
                let rate = f64::from(times) * self.spec.most() / (8.0 * self.sizes.message);
                let (len, rate) = (self.sizes.udp_payload.to_string(), (rate.ceil() as u32).to_string());
                let words = ["__udp-source", &target, &len, &seconds, "--rate", &rate];
                (words.map(ToOwned::to_owned).to_vec(), f64::from(self.sizes.udp_payload))
            }
        };
        let mut source = near.start_probe(&source)?;
        let (arrived, times) = tokio::join!(sink.next_json::<Arrived>(), self.pings(near, self.seconds));
        let (arrived, times) = (arrived?, times?);
        for child in [&mut source, &mut sink, &mut echo] {
            child.kill().await?;
        }
        let [slices, _] = self.path.slices().await?;
        let counted = usize::try_from(self.warm * 1000 / PING_EVERY_MS).unwrap_or(0);
        let payload_mbit = mbit(arrived.bytes, Duration::from_secs_f64(arrived.seconds));
        let sum = |what: fn(&Slice) -> u64| slices.iter().map(what).sum();
        Ok(Measured {
            payload_mbit,
            goodput_mbit: payload_mbit * self.sizes.message / payload,
            ping_ms: Quantiles::of(times.get(counted..).unwrap_or_default()),
            offered: sum(|slice| slice.offered),
            queue_drops: sum(|slice| slice.queue_drops),
            lost: sum(|slice| slice.lost),
            slices,
            times,
        })
    }

    /// What happened over time with each load, drawn.
    fn plot(&self, path: PathName, rows: &BTreeMap<String, Row>) -> String {
        let loads = rows.iter().filter_map(|(name, row)| {
            let Measured { slices, times, .. } = row.tunnel.as_ref()?;
            Some(Drawn { name, slices, pings: times, ping_every: PING_EVERY_MS as f64 / 1000.0 })
        });
        let name = path.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        svg(&format!("{name}: {WHAT}"), &self.spec, self.seconds as f64, &loads.collect::<Vec<_>>())
    }

    /// The mean rate of the path while a load is counted, Mbit/s.
    fn path_mbit(&self) -> f64 {
        let times: Vec<u64> = (self.warm * 10..self.seconds * 10).collect();
        let rate = |tenths: &u64| {
            let time = *tenths as f64 / 10.0;
            if (self.spec.outage)(time) { 0.0 } else { (self.spec.rate)(time) }
        };
        times.iter().map(rate).sum::<f64>() / times.len().max(1) as f64 / 1e6
    }

    fn added(&self, measured: &Measured, idle: Quantiles) -> f64 {
        (measured.ping_ms.p90 - idle.p90) / 1000.0 / self.spec.round_trip
    }

    fn row(&self, available: bool, tunnel: Option<Measured>, idle: Quantiles) -> Row {
        let path_mbit = self.path_mbit();
        Row {
            available,
            goodput_by_path: tunnel.as_ref().map(|tunnel| tunnel.goodput_mbit / path_mbit),
            added_p90_by_round_trip: tunnel.as_ref().map(|tunnel| self.added(tunnel, idle)),
            tunnel,
            oracle: None,
            path_mbit,
            ping_idle_ms: idle,
            goodput_by_oracle: None,
            oracle_added_p90_by_round_trip: None,
        }
    }

    fn compare(&self, row: &mut Row, oracle: Measured) {
        row.goodput_by_oracle = row.tunnel.as_ref().map(|tunnel| tunnel.goodput_mbit / oracle.goodput_mbit);
        row.oracle_added_p90_by_round_trip = Some(self.added(&oracle, row.ping_idle_ms));
        row.oracle = Some(oracle);
    }

    fn report(&self, name: PathName, path: Description, loads: BTreeMap<String, Row>) -> Report {
        let goodput = |name: &str| Some(loads.get(name)?.tunnel.as_ref()?.goodput_mbit);
        let by_1x = |name: &str| Some(goodput(name)? / goodput("udp_1x")?);
        let slices = |name: &str, oracle: bool| {
            let row = loads.get(name)?;
            let measured = if oracle { &row.oracle } else { &row.tunnel };
            measured.as_ref().map(|measured| &measured.slices[..])
        };
        let changes = match name {
            PathName::Steps => slices("udp_2x", false).map(|slices| steps(slices, &self.spec)),
            PathName::Outage | PathName::LongOutage => {
                let end = OUTAGE + if name == PathName::Outage { 2.0 } else { 20.0 };
                let after = |slices: Option<&[Slice]>| recovered(slices?, &self.spec, end);
                Some(Changes {
                    outage_to_0_9_of_rate_udp: after(slices("udp_2x", false)),
                    outage_to_0_9_of_rate_tcp_cubic_8: after(slices("tcp_cubic_8", false)),
                    outage_to_0_9_of_rate_tcp_cubic_8_oracle: after(slices("tcp_cubic_8", true)),
                    ..Changes::default()
                })
            }
            _ => None,
        };
        let (udp_2x_by_1x, udp_4x_by_1x) = (by_1x("udp_2x"), by_1x("udp_4x"));
        Report {
            what: WHAT,
            path,
            seconds: self.seconds,
            counted_from: self.warm,
            loads,
            udp_2x_by_1x,
            udp_4x_by_1x,
            changes,
        }
    }
}

/// The mean of what the slices between two times count, bits a second.
fn rate(slices: &[Slice], from: f64, to: f64, what: fn(&Slice) -> u64) -> f64 {
    let index = |time: f64| ((time / SLICE).round() as usize).min(slices.len());
    let bytes: u64 = slices[index(from)..index(to)].iter().map(what).sum();
    bytes as f64 * 8.0 / (to - from)
}

/// Round trips from a time on until the sending rate stays at or above `low` for some round trips and does not exceed
/// `high`, bits a second.
fn settled(slices: &[Slice], from: f64, round_trip: f64, low: f64, high: f64) -> Option<f64> {
    let sending = |from: f64, to: f64| rate(slices, from, to, |slice| slice.offered);
    let holds = |start: f64| {
        let stays = (0..4).all(|n| {
            let begin = start + f64::from(n) * round_trip;
            sending(begin, begin + 2.0 * round_trip) >= low
        });
        stays && sending(start, start + round_trip) <= high
    };
    (0..400).map(|n| f64::from(n) / 4.0).find(|rounds| holds(from + rounds * round_trip))
}

/// Round trips after an outage until 0.9 of the oracle's rate is delivered over three of them.
fn recovered(slices: &[Slice], spec: &Spec, end: f64) -> Option<f64> {
    let delivers = |rounds: &f64| {
        let begin = end + rounds * spec.round_trip;
        let delivered = rate(slices, begin, begin + 3.0 * spec.round_trip, |slice| slice.delivered);
        delivered >= 0.9 * ORACLE * spec.most()
    };
    (0..200).map(f64::from).find(delivers)
}

fn steps(slices: &[Slice], spec: &Spec) -> Changes {
    let (most, low, round_trip) = (spec.most(), (spec.rate)(FALL), spec.round_trip);
    let begin = FALL + 2.0 * round_trip;
    // The queue of a second at the higher rate is not there any more when all of a round trip has less.
    let long = |slice: &Slice| slice.queue as f64 * 8.0 / low >= 0.5 * round_trip;
    let during = |from: f64, to: f64| {
        let index = |time: f64| ((time / SLICE) as usize).min(slices.len());
        &slices[index(from)..index(to)]
    };
    let tenths = ((RISE - begin) / SLICE) as u32;
    let drained = (0..tenths)
        .map(|n| begin + f64::from(n) * SLICE)
        .find(|time| !during(*time, time + round_trip).iter().any(long));
    Changes {
        start_to_0_9_of_rate: settled(slices, 0.0, round_trip, 0.9 * most, f64::INFINITY),
        down_to_1_1_of_new_rate: settled(slices, FALL, round_trip, 0.0, 1.1 * low),
        queue_below_half_round_trip: drained.map(|time| (time - FALL) / round_trip),
        goodput_while_low_by_rate: Some(rate(slices, FALL + 2.0, RISE, |slice| slice.delivered) / low),
        up_to_0_9_of_rate: settled(slices, RISE, round_trip, 0.9 * most, f64::INFINITY),
        ..Changes::default()
    }
}

fn print(report: &Report) {
    let Description { rate_mbit, round_trip_ms, jitter_ms, loss, queue_s, .. } = report.path;
    println!("{}", report.what);
    println!(
        "{rate_mbit} Mbit/s, {round_trip_ms} ± {jitter_ms} ms, {} % loss, queue {queue_s} s",
        loss * 100.0
    );
    println!(
        "\nMbit/s in datagrams  {:>7} {:>7} {:>7} {:>9} {:>9}",
        "tunnel", "path", "oracle", "/ path", "/ oracle"
    );
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    for (name, row) in &report.loads {
        let goodput = |measured: &Option<Measured>| number(measured.as_ref().map(|one| one.goodput_mbit));
        println!(
            "{name:<20} {:>7} {:>7.2} {:>7} {:>9} {:>9}{}",
            goodput(&row.tunnel),
            row.path_mbit,
            goodput(&row.oracle),
            number(row.goodput_by_path),
            number(row.goodput_by_oracle),
            if row.available { "" } else { "  the kernel does not have it" }
        );
    }
    println!(
        "\nping, ms             p50/p90/p99 idle, loaded, oracle; added p90 in round trips, with the oracle"
    );
    let quantiles = |one: &Quantiles| format!("{:.0}/{:.0}/{:.0}", one.p50, one.p90, one.p99);
    for (name, row) in &report.loads {
        let loaded = |measured: &Option<Measured>| {
            measured.as_ref().map_or("-".to_owned(), |measured| quantiles(&measured.ping_ms))
        };
        println!(
            "{name:<20} {:>16} {:>16} {:>16} {:>6} {:>6}",
            quantiles(&row.ping_idle_ms),
            loaded(&row.tunnel),
            loaded(&row.oracle),
            number(row.added_p90_by_round_trip),
            number(row.oracle_added_p90_by_round_trip)
        );
    }
    for (what, ratio) in [("UDP 2x / 1x", report.udp_2x_by_1x), ("UDP 4x / 1x", report.udp_4x_by_1x)] {
        if ratio.is_some() {
            println!("{what:<20} {:>7}", number(ratio));
        }
    }
    if let Some(changes) = &report.changes
        && let Ok(serde_json::Value::Object(changes)) = serde_json::to_value(changes)
    {
        println!();
        for (name, value) in changes.iter().filter(|(_, value)| !value.is_null()) {
            println!("{name:<42} {:>7}", number(value.as_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices of a path on which so many bits a second are sent and delivered.
    fn slices(seconds: f64, rate: impl Fn(f64) -> f64, queue: impl Fn(f64) -> f64) -> Vec<Slice> {
        let one = |n: u32| {
            let time = f64::from(n) * SLICE;
            let bytes = (rate(time) * SLICE / 8.0) as u64;
            let queue = (queue(time) / 8.0) as u64;
            Slice { offered: bytes, delivered: bytes, queue, ..Slice::default() }
        };
        (0..(seconds / SLICE) as u32).map(one).collect()
    }

    #[test]
    fn steps_are_told_from_what_was_sent() {
        let spec = emulation::steps();
        let sent = |time: f64| match time {
            0.0..3.0 => 1e6,
            time if (FALL + 0.6..RISE + 6.0).contains(&time) => 0.95e6,
            _ => 4e6,
        };
        let changes = steps(&slices(90.0, sent, |time| if time < FALL + 3.0 { 1e6 } else { 0.0 }), &spec);
        let near = |value: Option<f64>, expected: f64, name: &str| {
            assert!(value.is_some_and(|value| (value - expected).abs() <= 0.5), "{name}: {value:?}");
        };
        near(changes.start_to_0_9_of_rate, 10.0, "start");
        near(changes.down_to_1_1_of_new_rate, 2.0, "down");
        near(changes.queue_below_half_round_trip, 10.0, "queue");
        near(changes.up_to_0_9_of_rate, 20.0, "up");
        near(changes.goodput_while_low_by_rate.map(|share| share * 10.0), 9.5, "goodput");
        let never = steps(&slices(90.0, |_| 2e6, |_| 1e6), &spec);
        assert_eq!((never.down_to_1_1_of_new_rate, never.queue_below_half_round_trip), (None, None));
        assert_eq!(never.start_to_0_9_of_rate, None);
    }

    #[test]
    fn an_outage_is_over_when_three_round_trips_deliver() {
        let spec = emulation::outage();
        let end = OUTAGE + 2.0;
        let sent = |time: f64| if (OUTAGE..end + 1.5).contains(&time) { 0.0 } else { 3.9e6 };
        assert_eq!(recovered(&slices(80.0, sent, |_| 0.0), &spec, end), Some(5.0));
        assert_eq!(recovered(&slices(80.0, |_| 1e6, |_| 0.0), &spec, end), None);
    }

    #[test]
    fn quantiles_are_of_what_was_answered() {
        let times: Vec<_> = (0..100).map(|n| Some(f64::from(n))).chain([None; 20]).collect();
        let quantiles = Quantiles::of(&times);
        assert_eq!((quantiles.p50, quantiles.p90, quantiles.p99), (50.0, 90.0, 99.0));
        assert_eq!((quantiles.sent, quantiles.answered), (120, 100));
        assert!(Quantiles::of(&[]).p90.is_nan());
    }
}
