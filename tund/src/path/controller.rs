//! How fast datagrams may be sent to a peer.
//!
//! The controller has a model of the path: what it carries (a quantile of what was delivered lately), and its shortest
//! delay and jitter. It sends what the path carries, tries a little more now and then, and believes that only if it has
//! been delivered. It sends less when datagrams arrive both later and further apart than they were sent: jitter alone
//! makes them late, but does not go on to stretch a train of them. Loss alone counts only where it stands out from the
//! path's own. Queueing is judged by forward one-way delay, never by round-trip time.

use std::collections::VecDeque;
use std::time::Duration;

use i2plan_proto::path_report::PathReport;

use super::delays::{Delays, MEMORY, WindowedMin};
use super::flight::{Flight, Sample};
use super::reporter::Content;

/// What is sent at least, bytes a second: 20 kbit/s.
pub const FLOOR: f64 = 2500.0;

/// Round trips of short paths count as so long, seconds: on a busy machine a process waits longer for a processor than a
/// datagram is under way, and what a shorter time shows is the machine's work.
const MIN_ROUND: f64 = 0.05;

/// Shortest time over which deliveries and delays are measured, seconds.
const MIN_SPAN: f64 = 0.1;

/// Added delay that is no sign of a queue, seconds.
const MIN_ADDED: f64 = 0.003;

/// Shortest round trip that pauses between tries are counted in, seconds. On a short path a try makes a queue that is
/// long beside the round trip; pings see few of them so.
const MIN_PAUSE: f64 = 0.3;

/// What is sent at most, bytes a second, unless less is configured: 10 Gbit/s, more than one processor encrypts.
pub const CEILING: f64 = 1.25e9;

/// Datagrams a round trip before the peer has answered (RFC 6928).
const FIRST_PACKETS: f64 = 10.0;

/// A window is not full before so many reports could have been made of what is in flight: one may be lost.
const WINDOW_REPORTS: f64 = 2.5;

/// A peer is silent only if it has not reported for as long as that takes after so many were due.
const SILENT_REPORTS: f64 = 2.0;

/// Datagrams a round trip while the peer says nothing.
const SILENT_PACKETS: f64 = 4.0;

/// Datagrams that may go at once after a pause.
const BURST_PACKETS: f64 = 2.0;

/// The same at high rates, seconds: longer than a timer is late.
const BURST_TIME: f64 = 0.004;

/// Length of a datagram before there is one, bytes.
const PACKET: f64 = 1312.0;

/// The round trip before one is known, seconds.
const UNKNOWN_ROUND_TRIP: f64 = 0.8;

/// Which part of the samples lies above the estimate: the largest are jitter.
const QUANTILE: f64 = 0.1;

/// Round trips for which a sample counts.
const SAMPLES_LAST: f64 = 10.0;

/// By how much the window is larger than what the path holds.
const WINDOW_GAIN: f64 = 1.25;

/// How much faster than the path it is sent at the start (2 / ln 2, as BBR does).
const START_GAIN: f64 = 2.77;

/// How much more than the estimate is tried first.
const PROBE_GAIN: f64 = 1.25;

/// How much of the estimate is sent to empty a queue that has grown.
const DRAIN_GAIN: f64 = 0.75;

/// The same for a queue at the end of the start.
const START_DRAIN_GAIN: f64 = 0.4;

/// The same for a queue that the path's slowing down has made, or that has not become shorter; and with much jitter,
/// which may be all that there is.
const FAST_DRAIN_GAIN: f64 = 0.5;
const JITTERY_DRAIN_GAIN: f64 = 0.7;

/// The same after that, until reports say that the queue is empty.
const HOLD_GAIN: f64 = 0.8;

/// Over how many datagrams the path's own loss is measured.
const LOSS_MEMORY: f64 = 1000.0;

/// Longest pause between tries, round trips.
const MAX_PAUSE: f64 = 6.0;

/// Share of the time without anything to send above which a sample says what was offered.
const OFFERED_LESS: f64 = 0.2;

/// For this long a rate counts as delivered, seconds.
const PROVEN_FOR: f64 = 10.0;

/// After so long without reports the path is explored anew, seconds.
const STALE_AFTER: f64 = 60.0;

/// The sender's part of one peer.
#[derive(Debug)]
pub struct Controller {
    ceiling: f64,
    /// Whether the peer reports.
    adapts: bool,
    flight: Flight,
    delays: Delays,
    round_trips: WindowedMin,
    smoothed: Option<f64>,
    /// Length of a datagram, bytes, smoothed.
    packet: f64,
    backlog: usize,
    /// Deliveries that count, by time.
    samples: VecDeque<(f64, f64)>,
    /// Largest delivery of the last while.
    proven: WindowedMin,
    /// What the path delivers, bytes a second; none before there is a sample.
    delivery: Option<f64>,
    /// Share of datagrams that the path loses by itself.
    loss: f64,
    phase: Phase,
    /// What `rate` is, as a multiple of what the path carries.
    gain: f64,
    /// When the phase began, and with which datagram.
    since: f64,
    first: u64,
    /// How much is tried next, and after how many round trips.
    probe_gain: f64,
    pause: f64,
    /// Before this time the path is not found slower again.
    cool: f64,
    /// When the peer last reported, and whether it has stopped.
    reported_at: f64,
    silent: bool,
    /// When the next empty message is due while it is.
    probe_at: f64,
    congested_at: Option<f64>,
    rate: f64,
    /// Whether that is less than the model says, because so much was not delivered lately.
    is_held: bool,
    window: f64,
    credit: f64,
    credited_at: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Finds out how much the path carries: `full` is the largest delivery so far, `rounds` how often it did not grow.
    Start { full: f64, rounds: u32 },
    /// Empties the queue: sends less than the path carries `until` then, and looks whether the delay has fallen from
    /// `added`.
    /// `again` if that has failed before.
    Drain { added: f64, until: f64, again: bool },
    /// Sends what the path carries.
    Cruise,
    /// Sends more, to see whether it arrives: `before` is what was delivered without, `last` the last datagram of it.
    Probe { before: f64, last: Option<u64> },
}

impl Controller {
    /// For a peer that reports. `round_trip` is that of the handshake, if it is known; the ceiling is in bytes a
    /// second.
    #[must_use]
    pub fn new(round_trip: Option<Duration>, ceiling: f64, now: Duration) -> Self {
        let now = now.as_secs_f64();
        let round_trip =
            round_trip.map_or(UNKNOWN_ROUND_TRIP, |round_trip| round_trip.as_secs_f64().max(0.01));
        let ceiling = ceiling.clamp(FLOOR, CEILING);
        let mut controller = Self {
            ceiling,
            adapts: true,
            flight: Flight::new(now),
            delays: Delays::new(),
            round_trips: WindowedMin::new(MEMORY),
            smoothed: None,
            packet: PACKET,
            backlog: 0,
            samples: VecDeque::new(),
            proven: WindowedMin::new(PROVEN_FOR),
            delivery: None,
            loss: 0.0,
            phase: Phase::Start { full: 0.0, rounds: 0 },
            gain: START_GAIN,
            since: now,
            first: 0,
            probe_gain: PROBE_GAIN,
            pause: 5.0,
            cool: now,
            reported_at: now,
            silent: false,
            probe_at: now,
            congested_at: None,
            rate: 0.0,
            is_held: false,
            window: 2.0 * FIRST_PACKETS * PACKET,
            credit: 0.0,
            credited_at: now,
        };
        controller.round_trips.push(now, round_trip);
        controller.set_rate(FIRST_PACKETS * PACKET / round_trip);
        controller
    }

    /// For a peer that does not report: the rate is the ceiling.
    #[must_use]
    pub fn without_reports(ceiling: f64, now: Duration) -> Self {
        let mut controller = Self::new(None, ceiling, now);
        controller.adapts = false;
        controller.rate = controller.ceiling;
        controller.window = f64::INFINITY;
        controller
    }

    /// What may be sent, bytes a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// What may be in flight, bytes.
    #[must_use]
    pub fn window(&self) -> f64 {
        self.window
    }

    /// Whether the peer does not report what was sent.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Length of the datagrams that are sent, bytes, smoothed.
    #[must_use]
    pub fn packet(&self) -> f64 {
        self.packet
    }

    /// The shortest round trip of the last while.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        Duration::from_secs_f64(self.shortest())
    }

    /// When the path last had a queue that this node's datagrams made.
    #[must_use]
    pub fn congested_at(&self) -> Option<Duration> {
        self.congested_at.map(Duration::from_secs_f64)
    }

    /// What the path carries, bytes a second: what is delivered, or where less is offered, what is known.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        if !self.adapts {
            return self.rate;
        }
        let sample = self.flight.sample(self.shortest(), 8);
        let full = sample.filter(|sample| sample.idle < OFFERED_LESS);
        full.map(|sample| sample.delivery).or(self.delivery).unwrap_or(FLOOR)
    }

    /// When a datagram may go; none if that takes a report or [`Self::on_tick`].
    #[must_use]
    pub fn ready_at(&self, now: Duration) -> Option<Duration> {
        if self.is_window_full() {
            return None;
        }
        let credit = self.credit_at(now.as_secs_f64());
        Some(now + Duration::from_secs_f64((-credit / self.rate).max(0.0)))
    }

    fn is_window_full(&self) -> bool {
        self.adapts
            && !self.silent
            && self.flight.in_flight() as f64 >= self.window
            && self.flight.reports_owed() >= WINDOW_REPORTS
    }

    fn credit_at(&self, now: f64) -> f64 {
        // What is owed for one datagram at most, so that a raised rate takes effect immediately.
        (self.credit + self.rate * (now - self.credited_at).max(0.0))
            .min((BURST_PACKETS * self.packet).max(BURST_TIME * self.rate))
    }

    /// Adds what the present rate has given so far, before it changes.
    fn settle(&mut self, now: f64) {
        self.credit = self.credit_at(now);
        self.credited_at = now;
    }

    /// Notes how many packets wait to be sent, whenever that changes.
    pub fn set_backlog(&mut self, packets: usize, now: Duration) {
        self.backlog = packets;
        self.flight.set_backlog(now.as_secs_f64(), packets > 0);
    }

    /// Notes a WireGuard data message that was sent. Only packets use up what may be sent, and call for reports.
    pub fn on_sent(&mut self, index: u32, counter: u64, len: usize, content: Content, now: Duration) {
        let now = now.as_secs_f64();
        self.settle(now);
        if content == Content::Packet {
            self.credit -= len as f64;
            // Weighted by length: what matters is how much of the bytes goes in datagrams of which length.
            self.packet += (len as f64 - self.packet) * (len as f64 / (16.0 * PACKET)).min(0.25);
        }
        if self.adapts {
            self.flight.push(now, index, counter, len, content);
        }
    }

    /// Takes a report. False if it is older than another, or says what cannot be.
    pub fn on_report(&mut self, report: &PathReport, now: Duration) -> bool {
        let at = now.as_secs_f64();
        if !self.adapts {
            return false;
        }
        let Some(news) = self.flight.accept(at, report) else { return false };
        self.settle(at);
        let stale = at - self.reported_at > STALE_AFTER;
        self.reported_at = at;
        self.round_trips.push(at, news.round_trip);
        let smoothed = self.smoothed.get_or_insert(news.round_trip);
        *smoothed += (news.round_trip - *smoothed) / 8.0;
        if news.anew {
            // Another clock.
            self.delays.forget();
        }
        self.delays.push(at, news.delay);
        if self.silent || stale || news.anew && self.delivery.is_some() {
            self.restart(at);
        } else {
            self.learn(at);
        }
        self.apply();
        true
    }

    /// Does what is due by the clock; at [`Self::poll_timeout`], or several times a round trip.
    pub fn on_tick(&mut self, now: Duration) {
        let now = now.as_secs_f64();
        if !self.silent && self.silent_at().is_some_and(|time| time <= now) {
            self.settle(now);
            self.silent = true;
            self.probe_at = now;
            self.set_rate(SILENT_PACKETS * self.packet / self.shortest().max(0.05));
        }
    }

    /// Whether an empty message is to be sent to a silent peer, so that its report ends the silence. Packets that could
    /// do this would be lost for it.
    pub fn poll_probe(&mut self, now: Duration) -> bool {
        let now = now.as_secs_f64();
        let due = self.silent && self.probe_at <= now;
        if due {
            self.probe_at = now + self.shortest().max(0.05) / SILENT_PACKETS;
        }
        due
    }

    /// When [`Self::on_tick`] and [`Self::poll_probe`] want to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let time = if self.silent { Some(self.probe_at) } else { self.silent_at() };
        time.map(Duration::from_secs_f64)
    }

    /// When a peer that does not report is taken to be silent.
    fn silent_at(&self) -> Option<f64> {
        let owed_since = self.flight.owed_since(SILENT_REPORTS)?;
        let patience = (1.5 * self.smoothed.unwrap_or(UNKNOWN_ROUND_TRIP) + 0.3).max(0.5);
        Some(self.reported_at.max(owed_since) + patience)
    }

    /// The shortest round trip, seconds.
    fn shortest(&self) -> f64 {
        self.round_trips.min().or(self.smoothed).unwrap_or(UNKNOWN_ROUND_TRIP)
    }

    /// Time between reports, seconds.
    fn report_interval(&self) -> f64 {
        let by_time = (self.shortest() / 4.0).clamp(0.003, 0.1);
        let by_count = self.delivery.map_or(0.0, |delivery| 16.0 * self.packet / delivery.max(FLOOR));
        by_time.max(by_count.min(self.shortest() / 2.0))
    }

    /// The round trip as far as it can be seen, seconds.
    fn round(&self) -> f64 {
        self.shortest().max(1.5 * (self.shortest() / 4.0).clamp(0.003, 0.1))
    }

    /// For how long a datagram is in flight at most if there is no queue, seconds.
    fn flight_time(&self) -> f64 {
        self.round().max(MIN_ROUND) + self.delays.jitter() + self.report_interval()
    }

    /// What may be sent before it is known that less is carried, bytes a second.
    fn first_rate(&self) -> f64 {
        FIRST_PACKETS * self.packet.max(PACKET) / self.round()
    }

    /// What must be sent for `delivery` to arrive.
    fn carried(&self, delivery: f64) -> f64 {
        delivery / (1.0 - self.loss.min(0.08))
    }

    /// Delay from which on there is a queue, seconds.
    fn threshold(&self) -> f64 {
        let packets = 4.0 * self.packet / self.delivery.unwrap_or(FLOOR).max(FLOOR);
        (0.12 * self.shortest()).max(1.3 * self.delays.jitter()).max(packets).max(MIN_ADDED)
    }

    fn enter(&mut self, phase: Phase, now: f64, gain: f64) {
        (self.phase, self.since, self.first, self.gain) = (phase, now, self.flight.next(), gain);
    }

    /// Sends less than the path carries for as long as the queue takes to empty that adds so much delay.
    fn drain(&mut self, now: f64, added: f64, gain: f64, again: bool) {
        self.gain = gain;
        let until = now + self.time_to_drain(added);
        self.enter(Phase::Drain { added, until, again }, now, gain);
    }

    fn time_to_drain(&self, added: f64) -> f64 {
        let queue = (added - self.delays.jitter()).max(0.25 * self.threshold());
        queue / (1.0 - self.gain).max(0.1)
    }

    /// The peer reports again.
    fn restart(&mut self, now: f64) {
        self.silent = false;
        self.flight.restart();
        self.delays.forget_base();
        self.samples.clear();
        self.delivery = self.delivery.map(|delivery| (delivery / 2.0).max(FLOOR));
        self.samples.extend(self.delivery.map(|half| (now, half)));
        self.enter(Phase::Start { full: 0.0, rounds: 0 }, now, START_GAIN);
    }

    /// Changes the model by what was reported.
    fn learn(&mut self, now: f64) {
        let round = self.round().max(MIN_ROUND);
        let jitter = self.delays.jitter();
        // A path is not found slower by one pause of a processor.
        let least = if round > MIN_SPAN { MIN_SPAN } else { 3.0 * MIN_SPAN };
        let span = (round / 2.0).max((8.0 * jitter).min(2.0 * round)).max(least);
        self.flight.forget(8.0 * round + 2.0);
        let (Some(long), Some(short)) =
            (self.flight.sample(round.max(MIN_SPAN), 8), self.flight.sample(span, 8))
        else {
            return;
        };
        self.estimate(now, round, &long);
        let Some(delivery) = self.delivery else { return };
        let added = self.delays.added(now, (round / 2.0).max(MIN_SPAN));
        let starts = matches!(self.phase, Phase::Start { .. });
        if !starts {
            self.delays.measure_jitter(now, round, matches!(self.phase, Phase::Probe { .. }));
        }
        let threshold = self.threshold();
        if self.phase == Phase::Cruise && added < threshold && long.idle < 0.5 {
            let weight = self.flight.fresh() / LOSS_MEMORY;
            self.loss += (long.loss.min(0.15) - self.loss) * weight.min(0.25);
        }
        let jitter = self.delays.jitter();
        // Above 1 if datagrams arrive further apart than they were sent.
        let stretch = short.sending * (1.0 - short.loss) / short.delivery.max(1.0);
        let slower = |sample: &Sample| sample.delivery < 0.85 * delivery && sample.idle < 0.4;
        let late = added > threshold && stretch > 1.12 + jitter / span && slower(&short);
        let expected = (long.sending * round / self.packet).max(8.0);
        let deviation = (8.0 * (self.loss + 0.02) / expected).sqrt();
        let lossy = long.loss > self.loss + (3.0 * deviation).max(0.12) && slower(&long);
        match self.phase {
            Phase::Start { full, mut rounds } => {
                if now - self.since > round && self.flight.reported() >= Some(self.first) {
                    let grows = delivery > 1.25 * full || long.idle > 0.3 || self.is_held;
                    rounds = if grows { 0 } else { rounds + 1 };
                    // Less than before if what was known has become too old.
                    self.phase = Phase::Start { full: delivery, rounds };
                    (self.since, self.first) = (now, self.flight.next());
                }
                let queue = added > (0.5 * round).max(2.0 * threshold) && stretch > 1.2;
                if rounds >= 2 || queue || long.loss > 0.3 && expected > 20.0 {
                    self.congested_at = Some(now);
                    self.drain(now, added, START_DRAIN_GAIN, false);
                }
            }
            Phase::Drain { .. } | Phase::Cruise | Phase::Probe { .. }
                if now > self.cool && (late || lossy) =>
            {
                let slow = if lossy { long.delivery } else { short.delivery };
                let least = if jitter < 0.1 * round { 0.25 } else { 0.5 };
                let slow = slow.max(least * delivery);
                self.delivery = Some(slow);
                self.samples.clear();
                self.samples.push_back((now, slow));
                self.congested_at = Some(now);
                let (gain, cool) =
                    if jitter < 0.1 * round { (FAST_DRAIN_GAIN, 1.5) } else { (JITTERY_DRAIN_GAIN, 2.5) };
                self.drain(now, added, gain, false);
                self.cool = now + cool * round;
                (self.probe_gain, self.pause) = (PROBE_GAIN, 2.0);
            }
            Phase::Drain { added: before, until, again } => {
                let lasts = now - self.since;
                if lasts < 1.2 * round && added > before {
                    // What was sent before is still arriving.
                    self.phase = Phase::Drain { added, until: self.since + self.time_to_drain(added), again };
                } else if now > until {
                    self.gain = self.gain.max(HOLD_GAIN);
                }
                let room = 1.1 * self.carried(delivery) * self.flight_time();
                if lasts > round / 2.0
                    && added < threshold
                    && (self.flight.in_flight() as f64) < room + 3.0 * self.packet
                {
                    self.enter(Phase::Cruise, now, 1.0);
                } else if now > until + 1.2 * round {
                    if again
                        && long.delivery > 0.95 * long.sending * (1.0 - long.loss)
                        && added > 0.8 * before
                    {
                        // Much less was sent than the path carries, all arrived, and the delay stays: it is a longer
                        // path.
                        self.delays.rebase(now, round);
                        let shortest = self.smoothed.unwrap_or(round);
                        self.round_trips.clear();
                        self.round_trips.push(now, shortest);
                        self.enter(Phase::Cruise, now, 1.0);
                    } else {
                        self.drain(now, added, FAST_DRAIN_GAIN, true);
                    }
                }
            }
            Phase::Cruise => {
                if added > 1.25 * threshold && now - self.since > round && long.idle < 0.4 {
                    self.congested_at = Some(now);
                    self.drain(now, added, DRAIN_GAIN, false);
                    self.pause = self.pause.max(2.0);
                } else if added < threshold
                    && self.backlog > 0
                    && self.carried(delivery) * round < FIRST_PACKETS * self.packet
                {
                    // Too little to learn anything from.
                    self.enter(Phase::Start { full: 0.0, rounds: 0 }, now, START_GAIN);
                } else if now - self.since > self.pause * round.max(MIN_PAUSE) && self.backlog > 2 {
                    let gain = self.probe_gain;
                    self.enter(Phase::Probe { before: delivery, last: None }, now, gain);
                }
            }
            Phase::Probe { before, last: None } => {
                if now - self.since > round {
                    self.gain = 1.0;
                    self.phase = Phase::Probe { before, last: Some(self.flight.next().saturating_sub(1)) };
                }
            }
            Phase::Probe { before, last: Some(last) } => {
                if self.flight.reported() >= Some(last) {
                    self.judge_probe(now, round, before, last, added);
                }
            }
        }
    }

    /// Believes in what was tried if it has been delivered.
    fn judge_probe(&mut self, now: f64, round: f64, before: f64, last: u64, added: f64) {
        let sample = self.flight.between(self.first, last);
        let growth =
            sample.map_or(0.0, |sample| if sample.idle < 0.3 { sample.delivery / before } else { 0.0 });
        if growth > 1.0 + 0.5 * (self.probe_gain - 1.0) {
            let delivery = growth.min(self.probe_gain) * before;
            self.samples.clear();
            self.samples.push_back((now, delivery));
            self.delivery = Some(delivery);
            let boldest = if self.delays.jitter() < 0.1 * round { 1.8 } else { 1.4 };
            self.probe_gain = (1.25 * self.probe_gain).min(boldest);
            self.pause = 1.0;
            self.enter(Phase::Probe { before: delivery, last: None }, now, self.probe_gain);
        } else {
            self.probe_gain = PROBE_GAIN;
            self.pause = (self.pause + 1.0).min(MAX_PAUSE);
            if added > self.threshold() {
                self.drain(now, added, DRAIN_GAIN, false);
            } else {
                self.enter(Phase::Cruise, now, 1.0);
            }
        }
    }

    /// Updates the estimate of what the path delivers.
    fn estimate(&mut self, now: f64, round: f64, sample: &Sample) {
        let starts = matches!(self.phase, Phase::Start { .. });
        // After a restart, a sample that covers little says less than what was known.
        if starts && self.delivery.is_some() && self.flight.span() < 0.7 * round {
            return;
        }
        // What was sent at less than the model's rate says only what was sent.
        let full = !self.is_held
            && sample.idle < OFFERED_LESS
            && (starts || sample.sending > 0.95 * self.rate / self.gain.max(0.1));
        if full || self.delivery.is_none_or(|delivery| sample.delivery > delivery) {
            self.samples.push_back((now, sample.delivery));
        }
        while self.samples.len() > 1 && self.samples[0].0 < now - SAMPLES_LAST * round
            || self.samples.len() > 512
        {
            self.samples.pop_front();
        }
        self.proven.push(now, -sample.delivery);
        let mut values: Vec<f64> = self.samples.iter().map(|(_, delivery)| *delivery).collect();
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        let at = if starts { 0 } else { (values.len() as f64 * QUANTILE) as usize };
        self.delivery = values.get(at).copied().or(self.delivery);
    }

    /// Sets rate and window by the model.
    fn apply(&mut self) {
        let starts = matches!(self.phase, Phase::Start { .. });
        let Some(delivery) = self.delivery else {
            self.set_rate(self.rate.max(self.first_rate()));
            return;
        };
        let carried = self.carried(delivery);
        self.set_rate((self.gain * carried).max(if starts { self.first_rate() } else { 0.0 }));
        let gain = WINDOW_GAIN.max(if matches!(self.phase, Phase::Probe { .. }) { self.gain } else { 0.0 });
        let held = gain * carried * self.flight_time();
        self.window = held * if starts { 2.0 } else { 1.0 } + 3.0 * self.packet;
    }

    fn set_rate(&mut self, rate: f64) {
        // A rate that was never delivered is not held, but for the first (RFC 7661, section 4.4).
        let proven = self.proven.min().map_or(f64::INFINITY, |most| (3.0 * -most).max(self.first_rate()));
        self.is_held = proven < rate;
        self.rate = rate.min(proven).clamp(FLOOR, self.ceiling);
    }
}
