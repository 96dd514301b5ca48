//! Every path that the controller is made for, under virtual time, and what no peer may make of it.

use std::time::Duration;

use i2plan_proto::path_report::{EarlierArrival, PathReport};
use proptest::prelude::*;

use super::controller::{CEILING, Controller, FLOOR};
use super::emulation::{FALL, RISE, Spec, bad, busy, good, lab, long_outage, outage, route, steps, usual};
use super::reporter::Content;
use super::sim::{Kind, World, median};

/// What goes over a tunnel: flows of a kind, UDP at a multiple of the path's rate.
#[derive(Clone, Copy)]
struct Load(Kind, usize, f64);

const UDP: Load = Load(Kind::Udp, 1, 2.0);
const CUBIC: Load = Load(Kind::Cubic, 1, 0.0);
const CUBIC_8: Load = Load(Kind::Cubic, 8, 0.0);
const BBR: Load = Load(Kind::Bbr, 1, 0.0);

/// A tunnel over a path, with a load and a ping; at a fixed rate a little below the path's if `oracle`.
fn run(spec: &Spec, load: Load, oracle: bool, seed: u64, end: f64) -> World {
    let mut world = World::new();
    let rate = (spec.rate)(0.0);
    let path = world.add_path(spec.clone(), seed);
    let tunnel = world.add_tunnel(path, oracle.then_some(0.97 * rate));
    let Load(kind, count, offered) = load;
    for n in 0..count {
        world.add_flow(tunnel, kind, offered * rate, 0.3 * n as f64);
    }
    world.add_flow(tunnel, Kind::Ping, 0.0, 0.0);
    world.run(end);
    world
}

/// What a run under a steady load shows: goodput as a share of the path's rate, and the 90th percentile of the delay
/// that is added to a ping, in round trips.
#[derive(Debug, Clone, Copy)]
struct Figures {
    goodput: f64,
    added: f64,
}

fn steady(spec: &Spec, load: Load, oracle: bool, seed: u64, warm: f64, end: f64) -> Figures {
    let world = run(spec, load, oracle, seed, end);
    let ping = load.1;
    let goodput: f64 = (0..=ping).map(|flow| world.goodput(flow, warm, end)).sum();
    if !oracle {
        assert!(world.report_cost(0) < 0.01, "reports cost {}", world.report_cost(0));
    }
    Figures { goodput: goodput / (spec.rate)(0.0), added: world.added(ping, warm) / spec.round_trip }
}

/// Medians over some seeds.
fn medians(spec: &Spec, load: Load, oracle: bool, seeds: u64, warm: f64, end: f64) -> Figures {
    let runs: Vec<_> = (1..=seeds).map(|seed| steady(spec, load, oracle, seed, warm, end)).collect();
    Figures {
        goodput: median(runs.iter().map(|run| run.goodput).collect()),
        added: median(runs.iter().map(|run| run.added).collect()),
    }
}

/// Round trips from a time on until the sending rate stays at or above `low` for some round trips and does not exceed
/// `high`, in bits a second.
fn settled(world: &World, from: f64, round_trip: f64, low: f64, high: f64) -> f64 {
    let holds = |start: f64| {
        let stays = (0..4).all(|n| {
            let begin = start + f64::from(n) * round_trip;
            world.sending(0, begin, begin + 2.0 * round_trip) >= low
        });
        stays && world.sending(0, start, start + round_trip) <= high
    };
    let quarters = (0..400).map(|n| f64::from(n) / 4.0);
    quarters.into_iter().find(|rounds| holds(from + rounds * round_trip)).unwrap_or(f64::NAN)
}

/// Round trips after an outage until 0.9 of the path's rate is delivered over three of them.
fn recovered(spec: &Spec, load: Load, oracle: bool, seed: u64, end: f64) -> f64 {
    let world = run(spec, load, oracle, seed, end + 70.0);
    let delivers = |rounds: &f64| {
        let begin = end + rounds * spec.round_trip;
        let sum: f64 =
            (0..load.1).map(|flow| world.goodput(flow, begin, begin + 3.0 * spec.round_trip)).sum();
        sum >= 0.9 * 0.97 * (spec.rate)(0.0)
    };
    (0..200).map(f64::from).find(delivers).unwrap_or(200.0)
}

/// Jain's index of two flows.
fn fairness(first: f64, second: f64) -> f64 {
    (first + second).powi(2) / (2.0 * (first * first + second * second))
}

/// The table of figures. What the first design had is from its own simulation, under the same models of paths and
/// flows.
#[derive(Default)]
struct Table {
    missed: Vec<String>,
}

use Target::{AtLeast, AtMost};

/// What a figure is to be.
#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Table {
    /// Prints a row: the figure, its target, and what the first design had.
    fn row(&mut self, what: &str, figure: f64, target: Target, first_design: &str) {
        let (sign, bound, met) = match target {
            AtLeast(bound) => (">=", bound, figure >= bound),
            AtMost(bound) => ("<=", bound, figure <= bound),
        };
        println!("{what:58} {figure:7.3}   {sign} {bound:<6} {first_design:>7}");
        if !met {
            self.missed.push(format!("{what}: {figure:.3}, not {sign} {bound}"));
        }
    }
}

#[test]
fn path_specs() {
    println!("{:58} {:>7}   {:9} {:>7}", "", "figure", "target", "first");
    let mut table = Table::default();
    loads(&mut table);
    laboratory(&mut table);
    changes(&mut table);
    pauses(&mut table);
    sharing(&mut table);
    outages(&mut table);
    let runs = (1..=3).map(|seed| steady(&route(), UDP, false, seed, 25.0, 180.0).goodput).collect();
    table.row("route, UDP x2: goodput / rate", median(runs), AtLeast(0.9), "0.926");
    assert!(table.missed.is_empty(), "{:#?}", table.missed);
}

fn loads(table: &mut Table) {
    // The first design was measured with pings of 1280 bytes, which beside eight flows on `bad` are over their share:
    // with such pings this one has 1.1 there too, and misses no other target.
    let paths = [
        ("good", good(), 3, 0.95, 0.4, 0.95, ["0.977", "0.987", "0.986", "0.92"], ["0.37", "0.18", "0.18"]),
        ("usual", usual(), 3, 0.92, 0.6, 0.95, ["0.964", "0.958", "0.965", "0.98"], ["0.63", "0.56", "0.60"]),
        ("bad", bad(), 5, 0.78, 0.6, 0.9, ["0.872", "0.852", "0.871", "0.93"], ["0.52", "1.03", "0.43"]),
    ];
    for (name, spec, seeds, goodput, added, oracle, first_goodput, first_added) in paths {
        for (n, (load, label)) in
            [(UDP, "UDP x2"), (CUBIC_8, "CUBIC x8"), (BBR, "BBR x1")].into_iter().enumerate()
        {
            let figures = medians(&spec, load, false, seeds, 25.0, 90.0);
            let row = format!("{name}, {label}: goodput / rate");
            table.row(&row, figures.goodput, AtLeast(goodput), first_goodput[n]);
            let row = format!("{name}, {label}: added p90 of a ping / round trip");
            table.row(&row, figures.added, AtMost(added), first_added[n]);
        }
        // Random losses make one flow's figure vary by a tenth.
        let runs =
            |oracle| (1..=20).map(|seed| steady(&spec, CUBIC, oracle, seed, 25.0, 90.0).goodput).sum::<f64>();
        let row = format!("{name}, CUBIC x1: goodput / with the oracle's rate");
        table.row(&row, runs(false) / runs(true), AtLeast(oracle), first_goodput[3]);
    }
}

fn laboratory(table: &mut Table) {
    let lab = |load, oracle| medians(&lab(), load, oracle, 3, 2.0, 6.0);
    let one = lab(Load(Kind::Udp, 1, 1.0), false).goodput;
    table.row("lab: UDP x2 / x1", lab(UDP, false).goodput / one, AtLeast(0.95), "1.00");
    table.row("lab: UDP x4 / x1", lab(Load(Kind::Udp, 1, 4.0), false).goodput / one, AtLeast(0.9), "1.00");
    for (load, label, first) in [(CUBIC_8, "CUBIC x8", "3.29"), (BBR, "BBR x1", "2.25")] {
        let figures = lab(load, false);
        table.row(&format!("lab, {label}: goodput / rate"), figures.goodput, AtLeast(0.95), "1.00");
        let row = format!("lab, {label}: ping p90 loaded / idle");
        table.row(&row, 1.0 + figures.added, AtMost(3.5), first);
    }
    // The oracle's rate is more than the processors let through, so that its queue is always full.
    let busy = |load, oracle| medians(&busy(), load, oracle, 5, 2.0, 8.0).goodput;
    for (load, label) in [(UDP, "UDP x2"), (CUBIC_8, "CUBIC x8"), (BBR, "BBR x1")] {
        let row = format!("lab, busy, {label}: goodput / with the oracle's rate");
        table.row(&row, busy(load, false) / busy(load, true), AtLeast(0.85), "-");
    }
}

fn changes(table: &mut Table) {
    let variants = [
        (0.3, 0.0, 1.0, 2.0, ["1.75", "7.4", "0.92", "18.2", "4.5"]),
        (0.3, 0.0, 0.2, 2.0, ["1.50", "5.2", "0.93", "15.0", "4.5"]),
        (0.8, 0.2, 1.0, 2.5, ["1.50", "6.7", "0.91", "10.5", "10.8"]),
        (0.8, 0.2, 0.2, 2.5, ["1.50", "3.3", "0.89", "9.8", "19.0"]),
    ];
    for (round_trip, jitter, queue, down, first) in variants {
        let spec = Spec { round_trip, jitter, queue, ..steps() };
        let runs: Vec<_> = (1..=5)
            .map(|seed| {
                let world = run(&spec, UDP, false, seed, 90.0);
                let drained = world.drained(0, FALL + 2.0 * round_trip, 0.5 * round_trip);
                [
                    settled(&world, FALL, round_trip, 0.0, 1.1e6),
                    (drained - FALL) / round_trip,
                    world.goodput(0, FALL + 2.0, RISE) / 1e6,
                    settled(&world, RISE, round_trip, 0.9 * 4e6, f64::INFINITY),
                    settled(&world, 0.3, round_trip, 0.9 * 4e6, f64::INFINITY),
                ]
            })
            .collect();
        let rows = [
            ("round trips down to 1.1 of the rate", AtMost(down)),
            ("round trips until the queue is below half a round trip", AtMost(8.0)),
            ("goodput while low", AtLeast(0.9)),
            ("round trips up to 0.9 of the rate", AtMost(20.0)),
            ("round trips to 0.9 of the rate at the start", AtMost(12.0)),
        ];
        println!("steps, UDP x2, round trip {round_trip} s, jitter {jitter} s, path queue {queue} s");
        for (n, (what, target)) in rows.into_iter().enumerate() {
            let figure = median(runs.iter().map(|run| run[n]).collect());
            table.row(&format!("  {what}"), figure, target, first[n]);
        }
    }
}

/// A load that begins when little has been sent for a while: what was known of the path is old then.
fn pauses(table: &mut Table) {
    for (what, outage, pings, quiet) in [
        ("12 s of nothing", false, 0.0, 12.0),
        ("pings for 12 s", false, 12.0, 0.0),
        ("pings for 70 s", false, 70.0, 0.0),
        ("an outage and pings for 70 s", true, 70.0, 0.0),
    ] {
        let begins = 60.0 + pings + quiet;
        let run = |seed| {
            let mut world = World::new();
            let spec = Spec { outage: |now| (59.9..61.0).contains(&now), ..good() };
            let path = world.add_path(if outage { spec } else { good() }, seed);
            let tunnel = world.add_tunnel(path, None);
            let load = world.add_flow(tunnel, Kind::Udp, 8e6, 0.0);
            let ping = world.add_flow(tunnel, Kind::Ping, 0.0, 0.0);
            world.run(60.0);
            world.stop(load);
            world.run(60.0 + pings);
            world.stop(ping);
            world.run(begins);
            world.add_flow(tunnel, Kind::Udp, 8e6, begins);
            world.run(begins + 30.0);
            settled(&world, begins, good().round_trip, 0.9 * 4e6, f64::INFINITY)
        };
        let row = format!("good, after {what}: round trips to 0.9 of the rate");
        table.row(&row, median((1..=5).map(run).collect()), AtMost(12.0), "-");
    }
}

fn sharing(table: &mut Table) {
    for (queue, first) in [(0.2, "0.980"), (1.0, "0.983")] {
        let spec = Spec { queue, ..good() };
        let index = |one_node: bool, seed| {
            let mut world = if one_node { World::new().of_one_node() } else { World::new() };
            let path = world.add_path(spec.clone(), seed);
            for n in 0..2 {
                let tunnel = world.add_tunnel(path, None);
                world.add_flow(tunnel, Kind::Udp, 8e6, if one_node { 0.0 } else { 20.0 * f64::from(n) });
            }
            world.run(120.0);
            fairness(world.goodput(0, 60.0, 120.0), world.goodput(1, 60.0, 120.0))
        };
        let indexes = |one_node| median((1..=9).map(|seed| index(one_node, seed)).collect());
        let row = format!("shared, one node, path queue {queue} s: Jain's index");
        table.row(&row, indexes(true), AtLeast(0.98), "-");
        let row = format!("shared, two nodes, path queue {queue} s: Jain's index");
        table.row(&row, indexes(false), AtLeast(0.95), first);
    }
    // A distant peer whose path is slow, beside one that is near.
    let near = |seed| {
        let mut world = World::new().of_one_node();
        for (spec, rate) in [(good(), 8e6), (bad(), 512e3)] {
            let path = world.add_path(spec, seed);
            let tunnel = world.add_tunnel(path, None);
            world.add_flow(tunnel, Kind::Udp, rate, 0.0);
        }
        world.run(90.0);
        world.goodput(0, 25.0, 90.0) / 4e6
    };
    let figure = median((1..=5).map(near).collect());
    table.row("good beside bad, one node: goodput / rate of good", figure, AtLeast(0.95), "-");
}

fn outages(table: &mut Table) {
    for (spec, end, label, first) in
        [(outage(), 42.0, "2 s", ["3", "-2"]), (long_outage(), 60.0, "20 s", ["3", "-4"])]
    {
        let median_of =
            |load, oracle| median((1..=5).map(|seed| recovered(&spec, load, oracle, seed, end)).collect());
        let row = format!("outage {label}, UDP x2: round trips to 0.9");
        table.row(&row, median_of(UDP, false), AtMost(5.0), first[0]);
        let row = format!("outage {label}, CUBIC x8: round trips beyond the oracle");
        table.row(&row, median_of(CUBIC_8, false) - median_of(CUBIC_8, true), AtMost(5.0), first[1]);
    }
}

/// What a dishonest receiver makes of its reports.
type Lie = fn(PathReport) -> PathReport;

#[test]
fn liars_harm_themselves_alone() {
    // With what is still delivered to the liar at least, as a share of the path's rate.
    let lies: [(&str, Lie, f64); 5] = [
        ("all arrived", |report| PathReport { packets: report.counter + 1, ..report }, 0.8),
        ("nothing arrived", |report| PathReport { packets: report.packets.min(50), ..report }, 0.0),
        ("a slow clock", |report| scaled(report, 0.5), 0.5),
        ("a fast clock", |report| scaled(report, 2.0), 0.0),
        ("no samples", |report| PathReport { earlier: Vec::new(), ..report }, 0.8),
    ];
    for (name, lie, least) in lies {
        let mut world = World::new().of_one_node();
        for seed in 1..=2 {
            let path = world.add_path(usual(), seed);
            let tunnel = world.add_tunnel(path, None);
            world.add_flow(tunnel, Kind::Udp, 2e6, 0.0);
        }
        world.set_lie(1, lie);
        world.run(90.0);
        let [honest, liar] = [0, 1].map(|flow| world.goodput(flow, 25.0, 90.0) / 1e6);
        let rate = world.controller(1).rate() * 8.0;
        println!("{name:18} honest {honest:.2} liar {liar:.2} rate {:.0} kbit/s", rate / 1e3);
        assert!(honest > 0.9, "{name}: the honest peer gets {honest:.2}");
        assert!(liar >= least, "{name}: the liar gets {liar:.2}");
        assert!(rate < 4e6, "{name}: {rate}");
    }
}

fn scaled(report: PathReport, factor: f64) -> PathReport {
    let scale = |ticks: u32| (f64::from(ticks) * factor) as u32;
    let earlier = report.earlier.iter().map(|other| EarlierArrival { age: scale(other.age), ..*other });
    PathReport {
        arrival: scale(report.arrival),
        held: scale(report.held),
        earlier: earlier.collect(),
        ..report
    }
}

#[test]
fn without_reports_the_ceiling_is_the_rate() {
    let mut controller = Controller::without_reports(125_000.0, Duration::ZERO);
    for n in 0..1000 {
        let now = Duration::from_millis(10 * n);
        assert_eq!(controller.ready_at(now), Some(now), "1250 bytes every 10 ms");
        controller.on_sent(1, n, 1250, Content::Packet, now);
        controller.on_tick(now);
    }
    assert!((controller.rate() - 125_000.0).abs() < 1e-6);
}

#[test]
fn a_raised_rate_takes_effect_immediately() {
    let ms = Duration::from_millis;
    let mut controller = Controller::new(Some(ms(1000)), CEILING, Duration::ZERO);
    // Silence: a few datagrams a round trip.
    let mut now = Duration::ZERO;
    let mut counter = 0;
    while !controller.is_silent() {
        now += ms(10);
        if controller.ready_at(now).is_some_and(|ready| ready <= now) {
            controller.on_sent(1, counter, 1312, Content::Packet, now);
            counter += 1;
        }
        controller.on_tick(now);
        assert!(now < ms(10_000), "a peer that never answers is silent");
    }
    let slow = controller.rate();
    let report = PathReport {
        epoch: 1,
        packets: counter,
        bytes: counter * 1312,
        index: 1,
        counter: counter - 1,
        arrival: 0,
        held: 0,
        earlier: Vec::new(),
    };
    controller.on_sent(1, counter, 1312, Content::Packet, now);
    assert!(controller.on_report(&report, now));
    let wait = controller.ready_at(now).unwrap() - now;
    assert!(controller.rate() > 2.0 * slow);
    assert!(wait.as_secs_f64() <= 1312.0 / controller.rate(), "{wait:?}");
}

/// What happens to a controller.
#[derive(Debug, Clone)]
enum Step {
    Send { len: usize, backlog: usize },
    Report { behind: u64, lost: u64, arrival: u32, held: u32, epoch: u32, samples: Vec<(u16, u32)> },
    Pass(u64),
}

fn steps_of_a_peer() -> impl Strategy<Value = Vec<Step>> {
    let samples = prop::collection::vec((any::<u16>(), any::<u32>()), 0..8);
    let report = (0u64..40, 0u64..40, any::<u32>(), 0u32..20_000, 0u32..2, samples).prop_map(
        |(behind, lost, arrival, held, epoch, samples)| Step::Report {
            behind,
            lost,
            arrival,
            held,
            epoch,
            samples,
        },
    );
    let step = prop_oneof![
        6 => (32usize..9032, 0usize..100).prop_map(|(len, backlog)| Step::Send { len, backlog }),
        3 => report,
        2 => (0u64..2_000_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// No sequence of reports makes a controller exceed its ceiling or stop permanently.
    #[test]
    fn no_reports_break_a_controller(steps in steps_of_a_peer(), ceiling in FLOOR..CEILING) {
        let mut now = Duration::from_secs(1);
        let mut controller = Controller::new(None, ceiling, now);
        let (mut counter, mut clock) = (0, 0u32);
        for step in steps {
            match step {
                Step::Send { len, backlog } => {
                    controller.set_backlog(backlog + 1, now);
                    controller.on_sent(1, counter, len, Content::Packet, now);
                    controller.set_backlog(backlog, now);
                    counter += 1;
                }
                Step::Report { behind, lost, arrival, held, epoch, samples } => {
                    // Near to what could be true, else it is ignored.
                    clock = clock.wrapping_add(arrival % 10_000);
                    let newest = counter.saturating_sub(behind);
                    let packets = (newest + 1).saturating_sub(lost);
                    let earlier = samples.into_iter().map(|(distance, age)| EarlierArrival { distance, age });
                    controller.on_report(&PathReport {
                        epoch,
                        packets,
                        bytes: packets.saturating_mul(1000),
                        index: 1,
                        counter: newest,
                        arrival: if arrival % 16 == 0 { arrival } else { clock },
                        held,
                        earlier: earlier.collect(),
                    }, now);
                }
                Step::Pass(micros) => now += Duration::from_micros(micros),
            }
            controller.on_tick(now);
            let rate = controller.rate();
            prop_assert!((FLOOR..=ceiling).contains(&rate), "rate {}", rate);
            prop_assert!(controller.window() >= 0.0);
        }
        // With nothing more from the peer, the floor is sent.
        let (mut sent, begin) = (0.0, now);
        while now < begin + Duration::from_secs(600) {
            now += Duration::from_millis(50);
            controller.on_tick(now);
            if controller.poll_probe(now) {
                controller.on_sent(1, counter, 32, Content::Packet, now);
                counter += 1;
            }
            if controller.ready_at(now).is_some_and(|ready| ready <= now) {
                controller.on_sent(1, counter, 1000, Content::Packet, now);
                counter += 1;
                sent += 1000.0;
            }
        }
        prop_assert!(sent > 300.0 * FLOOR, "{} bytes in ten minutes", sent);
    }
}
