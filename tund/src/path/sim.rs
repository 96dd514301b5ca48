//! A model of paths and of what goes over them, under virtual time: deterministic, and coarse on purpose.
//!
//! A path is a bottleneck with a drop-tail queue, then random or bursty loss, then delay with jitter that keeps order.
//! Flows are UDP at a rate, TCP with CUBIC or like BBR, and a ping. It is not I2P.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet, VecDeque};
use std::time::Duration;

use i2plan_proto::path_report::PathReport;

use super::controller::{CEILING, Controller};
use super::emulation::{Jitter, Losses, Random, Spec, Stalls};
use super::flow_queues::FlowQueues;
use super::node_limit::NodeLimit;
use super::reporter::{Content, Reporter};

/// Length of a packet of bulk data and of a ping, bytes.
const PACKET: usize = 1280;
const PING: usize = 84;

/// What a datagram has besides its packet, bytes.
const OVERHEAD: usize = 32;

/// Length of a datagram of bulk data, bytes.
pub(super) const DATAGRAM: f64 = (PACKET + OVERHEAD) as f64;

/// What an empty message has for a flow.
const PROBE: usize = usize::MAX;

/// How often the controller is called by the clock, seconds.
const TICK: f64 = 0.1;

/// How long a packet may wait, seconds.
const MAX_AGE: f64 = 30.0;

/// A place where that happens.
#[derive(Default)]
struct Stall {
    next: f64,
    until: f64,
}

impl Stall {
    /// When what comes at a time goes on.
    fn passes(&mut self, time: f64, stalls: Option<Stalls>, random: &mut Random) -> f64 {
        let Some(Stalls { every, last }) = stalls else { return time };
        while self.next <= time {
            self.until = self.next - last * (1.0 - random.uniform()).ln();
            self.next = self.until - every * (1.0 - random.uniform()).ln();
        }
        time.max(self.until)
    }
}

struct Path {
    spec: Spec,
    random: Random,
    queue: VecDeque<(Packet, f64)>,
    queued: f64,
    room: f64,
    forward: Jitter,
    backward: Jitter,
    forward_last: f64,
    backward_last: f64,
    /// At the bottleneck, at the receiver and on the way back.
    stalls: [Stall; 3],
    losses: Losses,
    /// Time of departure and delay of each packet.
    delays: Vec<(f64, f64)>,
}

impl Path {
    /// When what goes back now arrives, if it does.
    fn back(&mut self, now: f64) -> Option<f64> {
        if self.random.uniform() < self.spec.loss || (self.spec.outage)(now) {
            return None;
        }
        let jitter = self.backward.next(now, self.spec.jitter / 2.0, &mut self.random);
        let time = self.backward_last.max(now + self.spec.round_trip / 2.0 + jitter);
        self.backward_last = self.stalls[2].passes(time, self.spec.stalls, &mut self.random);
        Some(self.backward_last)
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    tunnel: usize,
    flow: usize,
    number: u64,
    /// When the flow sent it.
    at: f64,
    /// How long it waited before it was sent, and then in the path.
    waited: f64,
    counter: u64,
    /// Of the datagram, bytes.
    len: usize,
}

/// Both ends of a tunnel.
struct Tunnel {
    path: usize,
    controller: Controller,
    queues: FlowQueues,
    reporter: Reporter,
    /// Which call for the next datagram counts.
    timer: f64,
    next_counter: u64,
    reports: u64,
    /// Datagram bytes that arrived.
    delivered: usize,
    sent: Vec<f64>,
    /// What a dishonest receiver makes of its reports.
    lie: fn(PathReport) -> PathReport,
}

/// What a flow does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Udp,
    Cubic,
    Bbr,
    Ping,
}

struct Flow {
    kind: Kind,
    tunnel: usize,
    /// UDP: bits a second.
    rate: f64,
    stopped: bool,
    arrived: Vec<f64>,
    added: Vec<(f64, f64)>,
    tcp: Tcp,
}

/// A sender with selective acknowledgements and loss detection by time (RACK).
struct Tcp {
    window: f64,
    threshold: f64,
    /// Number, with times of sending and deliveries before.
    out: BTreeMap<u64, (f64, u64)>,
    /// The same by time.
    by_time: BTreeSet<(u64, u64)>,
    next: u64,
    repeat: BTreeSet<u64>,
    got: HashSet<u64>,
    recovery: Option<u64>,
    epoch: Option<f64>,
    largest: f64,
    reno: f64,
    k: f64,
    smoothed: Option<f64>,
    variance: f64,
    shortest: f64,
    backoff: i32,
    heard: f64,
    rates: VecDeque<(f64, f64)>,
    rate: f64,
    pace: f64,
    pacing: bool,
    cycle: usize,
    startup: bool,
    full: f64,
    still: u32,
    round_at: f64,
    delivered: u64,
}

impl Tcp {
    fn new() -> Self {
        Self {
            window: 10.0,
            threshold: 1e9,
            out: BTreeMap::new(),
            by_time: BTreeSet::new(),
            next: 0,
            repeat: BTreeSet::new(),
            got: HashSet::new(),
            recovery: None,
            epoch: None,
            largest: 0.0,
            reno: 0.0,
            k: 0.0,
            smoothed: None,
            variance: 0.0,
            shortest: 9.0,
            backoff: 0,
            heard: 0.0,
            rates: VecDeque::new(),
            rate: 0.0,
            pace: 0.0,
            pacing: false,
            cycle: 0,
            startup: true,
            full: 0.0,
            still: 0,
            round_at: 0.0,
            delivered: 0,
        }
    }

    fn gain(&self) -> f64 {
        const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        if self.startup { 2.77 } else { CYCLE[self.cycle % 8] }
    }

    fn forget(&mut self, number: u64) -> Option<(f64, u64)> {
        let sent = self.out.remove(&number)?;
        self.by_time.remove(&(nanos(sent.0), number));
        Some(sent)
    }

    /// Takes the acknowledgement of a packet that was sent `at`; true if more may go.
    fn acknowledge(&mut self, kind: Kind, number: u64, at: f64, now: f64) {
        let round_trip = now - at;
        self.heard = now;
        match &mut self.smoothed {
            None => (self.smoothed, self.variance) = (Some(round_trip), round_trip / 2.0),
            Some(smoothed) => {
                self.variance += ((*smoothed - round_trip).abs() - self.variance) / 4.0;
                *smoothed += (round_trip - *smoothed) / 8.0;
            }
        }
        let smoothed = self.smoothed.unwrap_or(1.0);
        self.shortest = self.shortest.min(round_trip);
        self.backoff = 0;
        let Some((sent, before)) = self.forget(number) else { return };
        self.delivered += 1;
        let late = nanos((at - self.shortest / 4.0).max(0.0));
        let lost: Vec<u64> = self.by_time.range(..(late, 0)).map(|(_, number)| *number).collect();
        if kind == Kind::Bbr {
            self.rates.push_back((now, (self.delivered - before) as f64 / (now - sent).max(1e-9)));
            while self.rates[0].0 < now - 10.0 * smoothed {
                self.rates.pop_front();
            }
            self.rate = self.rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
            if now - self.round_at > self.shortest {
                self.round_at = now;
                self.cycle += 1;
                if self.startup {
                    self.still = if self.rate < 1.25 * self.full { self.still + 1 } else { 0 };
                    self.full = self.full.max(self.rate);
                    self.startup = self.still < 3;
                }
            }
            self.window = (2.0 * self.rate * self.shortest).max(10.0);
        }
        for number in &lost {
            self.forget(*number);
            self.repeat.insert(*number);
        }
        if kind == Kind::Bbr {
            return;
        }
        if lost.is_empty() {
            self.grow(now, smoothed);
        } else if lost.iter().max() > self.recovery.as_ref() {
            self.recovery = Some(self.next);
            self.largest = self.window;
            self.window = (self.window * 0.7).max(2.0);
            (self.threshold, self.reno) = (self.window, self.window);
            self.epoch = Some(now);
            self.k = (self.largest * 0.3 / 0.4).cbrt();
        }
    }

    /// CUBIC (RFC 9438).
    fn grow(&mut self, now: f64, smoothed: f64) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        if self.epoch.is_none() {
            (self.epoch, self.largest, self.k, self.reno) = (Some(now), self.window, 0.0, self.window);
        }
        self.reno += 0.53 / self.window;
        let t = now - self.epoch.unwrap_or(now) + smoothed - self.k;
        let target = 0.4 * t * t * t + self.largest;
        let step = (target - self.window).min(0.5 * self.window).max(0.0);
        self.window = (self.window + step / self.window).max(self.reno);
    }

    /// The retransmission timeout; true if it has passed.
    fn times_out(&mut self, kind: Kind, now: f64) -> bool {
        let timeout = (self.smoothed.unwrap_or(1.0) + (4.0 * self.variance).max(0.2)).max(0.2);
        let timeout = timeout * f64::from(1 << self.backoff);
        let Some((sent, _)) = self.by_time.first() else { return false };
        if now - self.heard.max(*sent as f64 / 1e9) <= timeout {
            return false;
        }
        self.backoff = (self.backoff + 1).min(7);
        if self.backoff == 1 {
            self.threshold = (self.window * 0.7).max(2.0);
        }
        self.window = if kind == Kind::Bbr { 4.0 } else { 1.0 };
        self.repeat.extend(self.out.keys());
        self.out.clear();
        self.by_time.clear();
        self.recovery = Some(self.next);
        self.epoch = None;
        self.heard = now;
        true
    }
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[derive(Debug)]
enum Event {
    Depart(usize),
    Arrive(Packet),
    Report(usize, Box<PathReport>),
    MakeReport(usize),
    Send(usize),
    Tick(usize),
    Udp(usize),
    Ping(usize),
    Pump(usize),
    Timeout(usize),
    Ack { flow: usize, number: u64, at: f64 },
}

struct Scheduled(u64, u64, Event);

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Paths, tunnels over them, and flows through those.
pub(super) struct World {
    now: f64,
    events: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    paths: Vec<Path>,
    tunnels: Vec<Tunnel>,
    flows: Vec<Flow>,
    /// All tunnels belong to one node, with a limit over them.
    node: Option<Node>,
}

struct Node {
    limit: NodeLimit,
    /// Whose turn it is.
    turns: VecDeque<usize>,
}

fn at(now: f64) -> Duration {
    Duration::from_secs_f64(now)
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: 0.0,
            events: BinaryHeap::new(),
            number: 0,
            paths: Vec::new(),
            tunnels: Vec::new(),
            flows: Vec::new(),
            node: None,
        }
    }

    /// Has the tunnels belong to one node.
    pub(super) fn of_one_node(mut self) -> Self {
        self.node = Some(Node { limit: NodeLimit::default(), turns: VecDeque::new() });
        self
    }

    pub(super) fn add_path(&mut self, spec: Spec, seed: u64) -> usize {
        self.paths.push(Path {
            room: spec.queue * spec.most() / 8.0,
            spec,
            random: Random::new(seed),
            queue: VecDeque::new(),
            queued: 0.0,
            forward: Jitter::default(),
            backward: Jitter::default(),
            forward_last: 0.0,
            backward_last: 0.0,
            stalls: Default::default(),
            losses: Losses::default(),
            delays: Vec::new(),
        });
        self.paths.len() - 1
    }

    /// Adds a tunnel that adapts, or that sends at a fixed rate in bits a second.
    pub(super) fn add_tunnel(&mut self, path: usize, fixed: Option<f64>) -> usize {
        let round_trip = at(self.paths[path].spec.round_trip);
        let controller = match fixed {
            Some(rate) => Controller::without_reports(rate / 8.0, Duration::ZERO),
            None => Controller::new(Some(round_trip), CEILING, Duration::ZERO),
        };
        let mut reporter = Reporter::new(7);
        reporter.set_round_trip(round_trip);
        let number = self.tunnels.len();
        self.tunnels.push(Tunnel {
            path,
            controller,
            queues: FlowQueues::new(1),
            reporter,
            timer: f64::INFINITY,
            next_counter: 0,
            reports: 0,
            delivered: 0,
            sent: Vec::new(),
            lie: |report| report,
        });
        self.schedule(TICK, Event::Tick(number));
        if let Some(node) = &mut self.node {
            node.turns.push_back(number);
        }
        number
    }

    pub(super) fn set_lie(&mut self, tunnel: usize, lie: fn(PathReport) -> PathReport) {
        self.tunnels[tunnel].lie = lie;
    }

    pub(super) fn add_flow(&mut self, tunnel: usize, kind: Kind, rate: f64, start: f64) -> usize {
        let flow = self.flows.len();
        let (arrived, added, tcp) = (Vec::new(), Vec::new(), Tcp::new());
        self.flows.push(Flow { kind, tunnel, rate, stopped: false, arrived, added, tcp });
        match kind {
            Kind::Udp => self.schedule(start + 0.1, Event::Udp(flow)),
            Kind::Ping => self.schedule(start + 0.3, Event::Ping(flow)),
            Kind::Cubic | Kind::Bbr => {
                self.schedule(start, Event::Pump(flow));
                self.schedule(start + 0.2, Event::Timeout(flow));
            }
        }
        flow
    }

    /// Ends a flow of UDP or pings.
    pub(super) fn stop(&mut self, flow: usize) {
        self.flows[flow].stopped = true;
    }

    fn schedule(&mut self, time: f64, event: Event) {
        self.number += 1;
        self.events.push(Reverse(Scheduled(nanos(time.max(self.now)) + 1, self.number, event)));
    }

    pub(super) fn run(&mut self, end: f64) {
        while let Some(Reverse(Scheduled(time, _, event))) = self.events.pop() {
            if time > nanos(end) {
                self.events.push(Reverse(Scheduled(time, 0, event)));
                break;
            }
            self.now = time as f64 / 1e9;
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Depart(path) => self.depart(path),
            Event::Arrive(packet) => self.arrive(packet),
            Event::Report(tunnel, report) => {
                self.tunnels[tunnel].controller.on_report(&report, at(now));
                self.adapt(tunnel);
                self.send(tunnel);
            }
            Event::MakeReport(tunnel) => self.make_report(tunnel),
            Event::Send(tunnel) => {
                if self.tunnels[tunnel].timer <= now {
                    self.tunnels[tunnel].timer = f64::INFINITY;
                    self.send(tunnel);
                }
            }
            Event::Tick(tunnel) => {
                let state = &mut self.tunnels[tunnel];
                state.controller.on_tick(at(now));
                if state.controller.poll_probe(at(now)) {
                    let counter = state.next_counter;
                    let probe = Packet {
                        tunnel,
                        flow: PROBE,
                        number: 0,
                        at: now,
                        waited: 0.0,
                        counter,
                        len: OVERHEAD,
                    };
                    self.transmit(probe);
                }
                let state = &mut self.tunnels[tunnel];
                state.queues.expire(at(MAX_AGE), at(now));
                state.controller.set_backlog(state.queues.len(), at(now));
                self.adapt(tunnel);
                self.send(tunnel);
                self.schedule(now + TICK, Event::Tick(tunnel));
            }
            Event::Udp(flow) => {
                if self.flows[flow].stopped {
                    return;
                }
                self.push(flow, 0);
                let gap = DATAGRAM * 8.0 / self.flows[flow].rate;
                self.schedule(now + gap, Event::Udp(flow));
            }
            Event::Ping(flow) => {
                if self.flows[flow].stopped {
                    return;
                }
                self.push(flow, 0);
                self.schedule(now + 0.25, Event::Ping(flow));
            }
            Event::Pump(flow) => {
                self.flows[flow].tcp.pacing = false;
                self.pump(flow);
            }
            Event::Timeout(flow) => {
                let kind = self.flows[flow].kind;
                if self.flows[flow].tcp.times_out(kind, now) {
                    self.pump(flow);
                }
                self.schedule(now + 0.05, Event::Timeout(flow));
            }
            Event::Ack { flow, number, at } => {
                let kind = self.flows[flow].kind;
                self.flows[flow].tcp.acknowledge(kind, number, at, now);
                self.pump(flow);
            }
        }
    }

    /// Has queues and node follow the controller.
    fn adapt(&mut self, tunnel: usize) {
        let Tunnel { controller, queues, .. } = &mut self.tunnels[tunnel];
        queues.hold(controller.is_silent());
        if !controller.is_silent() {
            queues.adapt(controller.round_trip(), controller.rate(), controller.packet());
        }
        if let Some(node) = &mut self.node {
            let controllers = self.tunnels.iter().map(|tunnel| &tunnel.controller);
            node.limit.update((0..).zip(controllers), at(self.now));
        }
    }

    /// A flow sends a packet into its tunnel.
    fn push(&mut self, flow: usize, number: u64) {
        let now = self.now;
        let tunnel = self.flows[flow].tunnel;
        let is_ping = self.flows[flow].kind == Kind::Ping;
        let mut packet = vec![0; if is_ping { PING } else { PACKET }];
        packet[0] = 0x45;
        packet[9] = 17;
        packet[20..22].copy_from_slice(&(flow as u16).to_be_bytes());
        packet[28..36].copy_from_slice(&number.to_be_bytes());
        packet[36..44].copy_from_slice(&now.to_be_bytes());
        let state = &mut self.tunnels[tunnel];
        state.queues.push(packet, at(now));
        state.controller.set_backlog(state.queues.len(), at(now));
        self.send(tunnel);
    }

    /// Sends what may go.
    fn send(&mut self, tunnel: usize) {
        if self.node.is_some() {
            self.send_of_node();
        } else {
            while self.send_one(tunnel).is_some() {}
        }
    }

    /// Takes turns between the tunnels of a node, under its limit.
    fn send_of_node(&mut self) {
        let mut idle = 0;
        while let Some(node) = &mut self.node {
            if idle == node.turns.len() {
                return;
            }
            node.turns.rotate_left(1);
            let tunnel = node.turns[0];
            let ready = node.limit.ready_at(tunnel as u32, at(self.now));
            if ready > at(self.now) {
                self.wake(tunnel, ready.as_secs_f64() + 1e-9);
                idle += 1;
                continue;
            }
            let sent = self.send_one(tunnel);
            idle = if sent.is_some() { 0 } else { idle + 1 };
            if let (Some(len), Some(node)) = (sent, &mut self.node) {
                node.limit.on_sent(tunnel as u32, len, at(self.now));
            }
        }
    }

    fn wake(&mut self, tunnel: usize, time: f64) {
        if time < self.tunnels[tunnel].timer {
            self.tunnels[tunnel].timer = time;
            self.schedule(time, Event::Send(tunnel));
        }
    }

    /// Sends a packet of a tunnel if one may go; returns the length of its datagram.
    fn send_one(&mut self, tunnel: usize) -> Option<usize> {
        let now = self.now;
        let state = &mut self.tunnels[tunnel];
        if state.queues.is_empty() {
            return None;
        }
        match state.controller.ready_at(at(now)) {
            None => return None,
            Some(time) if time.as_secs_f64() > now + 1e-9 => {
                self.wake(tunnel, time.as_secs_f64() + 1e-9);
                return None;
            }
            Some(_) => {}
        }
        let bytes = state.queues.pop(at(now));
        let left = state.queues.len();
        let Some(bytes) = bytes else {
            state.controller.set_backlog(left, at(now));
            return None;
        };
        let field = |place: usize| <[u8; 8]>::try_from(&bytes[place..place + 8]).unwrap();
        let pushed = f64::from_be_bytes(field(36));
        let packet = Packet {
            tunnel,
            flow: usize::from(u16::from_be_bytes([bytes[20], bytes[21]])),
            number: u64::from_be_bytes(field(28)),
            at: pushed,
            waited: now - pushed,
            counter: state.next_counter,
            len: bytes.len() + OVERHEAD,
        };
        state.controller.set_backlog(left, at(now));
        state.sent.push(now);
        self.transmit(packet);
        Some(packet.len)
    }

    /// Sends a datagram into the path.
    fn transmit(&mut self, packet: Packet) {
        let now = self.now;
        let state = &mut self.tunnels[packet.tunnel];
        let content = if packet.flow == PROBE { Content::Nothing } else { Content::Packet };
        state.controller.on_sent(1, packet.counter, packet.len, content, at(now));
        state.next_counter += 1;
        let path = state.path;
        let Path { queue, queued, room, .. } = &mut self.paths[path];
        if *queued <= *room {
            *queued += packet.len as f64;
            queue.push_back((packet, now));
            if queue.len() == 1 {
                self.serve(path);
            }
        }
    }

    fn serve(&mut self, path: usize) {
        let Path { spec, queue, stalls, random, .. } = &mut self.paths[path];
        let Some((packet, _)) = queue.front() else { return };
        let time = packet.len as f64 * 8.0 / (spec.rate)(self.now);
        let begin = stalls[0].passes(self.now, spec.stalls, random);
        self.schedule(begin + time, Event::Depart(path));
    }

    fn depart(&mut self, number: usize) {
        let now = self.now;
        let path = &mut self.paths[number];
        let Some((mut packet, since)) = path.queue.pop_front() else { return };
        packet.waited += now - since;
        path.queued -= packet.len as f64;
        path.delays.push((now, now - since));
        let lost = path.losses.loses(now, &path.spec, &mut path.random);
        if !lost && !(path.spec.outage)(now) {
            let jitter = path.forward.next(now, path.spec.jitter / 2.0, &mut path.random);
            let time = now + path.spec.round_trip / 2.0 + (path.spec.longer)(now) + jitter;
            let time = path.forward_last.max(time);
            path.forward_last = path.stalls[1].passes(time, path.spec.stalls, &mut path.random);
            let time = path.forward_last;
            self.schedule(time, Event::Arrive(packet));
        }
        self.serve(number);
    }

    fn arrive(&mut self, packet: Packet) {
        let now = self.now;
        let state = &mut self.tunnels[packet.tunnel];
        state.delivered += packet.len;
        let content = if packet.flow == PROBE { Content::Nothing } else { Content::Packet };
        state.reporter.handle_datagram(1, packet.counter, packet.len, content, at(now));
        if let Some(time) = state.reporter.poll_timeout() {
            self.schedule(time.as_secs_f64(), Event::MakeReport(packet.tunnel));
        }
        let path = self.tunnels[packet.tunnel].path;
        let Some(flow) = self.flows.get_mut(packet.flow) else { return };
        match flow.kind {
            Kind::Udp => flow.arrived.push(now),
            Kind::Ping => {
                flow.arrived.push(now);
                flow.added.push((now, packet.waited));
            }
            Kind::Cubic | Kind::Bbr => {
                if flow.tcp.got.insert(packet.number) {
                    flow.arrived.push(now);
                }
                if let Some(time) = self.paths[path].back(now) {
                    let Packet { flow, number, at, .. } = packet;
                    self.schedule(time, Event::Ack { flow, number, at });
                }
            }
        }
    }

    fn make_report(&mut self, tunnel: usize) {
        let now = self.now;
        let state = &mut self.tunnels[tunnel];
        let Some(report) = state.reporter.poll_report(at(now)) else { return };
        state.reports += 1;
        let report = Box::new((state.lie)(report));
        let path = state.path;
        if let Some(time) = self.paths[path].back(now) {
            self.schedule(time, Event::Report(tunnel, report));
        }
    }

    /// A TCP sender sends what it may.
    fn pump(&mut self, flow: usize) {
        let now = self.now;
        loop {
            let Flow { kind, tcp, .. } = &mut self.flows[flow];
            if tcp.out.len() as f64 >= tcp.window.min(4000.0) {
                return;
            }
            if *kind == Kind::Bbr && tcp.rate > 0.0 {
                if now < tcp.pace - 1e-9 {
                    if !tcp.pacing {
                        tcp.pacing = true;
                        let time = tcp.pace;
                        self.schedule(time, Event::Pump(flow));
                    }
                    return;
                }
                tcp.pace = tcp.pace.max(now) + 1.0 / (tcp.gain() * tcp.rate);
            }
            while tcp.repeat.first().is_some_and(|number| tcp.got.contains(number)) {
                tcp.repeat.pop_first();
            }
            let number = tcp.repeat.pop_first().unwrap_or_else(|| {
                tcp.next += 1;
                tcp.next - 1
            });
            tcp.forget(number);
            tcp.out.insert(number, (now, tcp.delivered));
            tcp.by_time.insert((nanos(now), number));
            self.push(flow, number);
        }
    }

    /// Bits a second of a flow that arrived in a time.
    pub(super) fn goodput(&self, flow: usize, from: f64, to: f64) -> f64 {
        let Flow { kind, arrived, .. } = &self.flows[flow];
        let count = arrived.iter().filter(|time| (from..to).contains(*time)).count();
        let len = if *kind == Kind::Ping { PING + OVERHEAD } else { PACKET + OVERHEAD };
        (count * len) as f64 * 8.0 / (to - from)
    }

    /// The 90th percentile of the delay that was added to a ping, seconds.
    pub(super) fn added(&self, flow: usize, from: f64) -> f64 {
        let added = self.flows[flow].added.iter().filter(|(time, _)| *time >= from);
        quantile(added.map(|(_, added)| *added).collect(), 0.9)
    }

    /// When a path's queue causes less delay again.
    pub(super) fn drained(&self, path: usize, from: f64, delay: f64) -> f64 {
        let delays = &self.paths[path].delays;
        delays.iter().find(|(time, d)| *time >= from && *d < delay).map_or(f64::NAN, |(time, _)| *time)
    }

    /// Bits a second that a tunnel sent.
    pub(super) fn sending(&self, tunnel: usize, from: f64, to: f64) -> f64 {
        let sent = &self.tunnels[tunnel].sent;
        let count = sent.partition_point(|time| *time < to) - sent.partition_point(|time| *time < from);
        count as f64 * DATAGRAM * 8.0 / (to - from)
    }

    /// Report bytes for each datagram byte.
    pub(super) fn report_cost(&self, tunnel: usize) -> f64 {
        let Tunnel { reports, delivered, .. } = &self.tunnels[tunnel];
        *reports as f64 * super::REPORT_LEN / *delivered as f64
    }

    pub(super) fn controller(&self, tunnel: usize) -> &Controller {
        &self.tunnels[tunnel].controller
    }
}

pub(super) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

pub(super) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}
