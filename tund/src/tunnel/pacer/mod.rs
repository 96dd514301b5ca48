//! Sends no faster than the router bears, and fairly.
//!
//! A SAM bridge gives no back-pressure: an I2P router drops without a word what is too much, and past about
//! twice its capacity nearly everything. So the queue is kept here, where it can be controlled: one for each
//! peer, deficit round robin between them (RFC 8290, section 4). Peers that report what arrives each have a rate of their
//! own, which follows the path; the others share a common one. Peers that have not answered yet get little of that
//! (`first_answer`).

mod first_answer;
mod path_state;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use first_answer::FirstAnswer;
pub(super) use first_answer::YIELD_TO_FIRST;
use i2plan_ipc::api::tund::Handshakes;
use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_proto::path_report::PathReport;
use path_state::PathState;

use super::message::{data_counter, is_initiation, is_response};
use super::peer_config::MAX_PEERS;
use crate::path::flow_queues::{FlowQueues, MAX_HELD};
use crate::path::node_limit::NodeLimit;
use crate::path::reporter::Content;

/// Datagrams a second to all peers together that do not report what arrives, or have not answered. Private routers on two cores deliver all of 4000 datagrams of 1300 bytes a second once
/// they have agreed on a session, and more. Routers that have not, and so encrypt each datagram as if it were
/// the first, bear 700 to 1500; there TCP finds its rate by loss, as on every path that is narrower than its
/// first hop.
const RATE: u32 = 4000;

/// Datagrams that may go at once after a pause: some 10 ms' worth, more than a timer is late.
const BURST: u32 = 16;

const PACE: Quota = Quota::new(RATE, BURST);

/// Length of the datagrams for which [`RATE`] holds, bytes. Longer ones count as several: routers cut them
/// into more tunnel messages.
const UNIT_LEN: usize = 1400;

/// What a peer may send in one turn, bytes (RFC 8290, section 4.1: about one packet).
const QUANTUM: i64 = 1500;

/// What all queues together may occupy, bytes.
const MAX_TOTAL: usize = 16 * 1024 * 1024;

/// After which a packet that cannot be sent is worth nothing any more. It is the time after which WireGuard repeats a
/// handshake: what a first handshake has not carried off by then, its sender repeats.
const MAX_AGE: Duration = Duration::from_secs(5);

/// For which path the queues of a peer are that does not report: CoDel's interval is about the longest usual round trip
/// (RFC 8289, section 4.3), and 256 KiB may wait.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(500);
const UNKNOWN_RATE: f64 = 220_000.0;

/// Buffers that are kept to be used again.
const MAX_SPARE: usize = 256;

/// Handshakes and keepalives that may wait. Enough for a handshake with every peer.
const MAX_CONTROL: usize = MAX_PEERS;

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A WireGuard message, as it is.
    Control(u32, Vec<u8>),
    /// An IP packet, to be encrypted now: not before, so that a drop leaves no gap in WireGuard's counters.
    Data(u32, Vec<u8>),
    /// The packet of a path report, or nothing for an empty message; to be encrypted now.
    Own(u32, Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Pacer {
    started: Instant,
    sent: Bucket,
    /// Goes before all data: few, small, and everything else waits for them.
    control: VecDeque<(u32, Vec<u8>)>,
    control_dropped: HashMap<u32, u64>,
    /// The handshakes of all peers, whose messages all pass here.
    handshakes: Handshakes,
    flows: HashMap<u32, Flow>,
    /// Whose turn it is under the common rate; each of them is marked active.
    turns: VecDeque<u32>,
    /// Whose turn it is of those with a rate of their own; they are active too.
    paced: VecDeque<u32>,
    /// Who reports, and so has a [`PathState`].
    reporting: Vec<u32>,
    /// What those may be sent together.
    limit: NodeLimit,
    /// What each of them is sent whatever it reports, bytes a second.
    fixed_rate: Option<f64>,
    /// When one of them may have something to be done.
    due: Duration,
    spare: Vec<Vec<u8>>,
    /// Random.
    seed: u64,
    /// Who waits, and until when, for packets may go only now and then before the first answer. They are active too.
    delayed: BTreeSet<(Instant, u32)>,
    total: usize,
}

#[derive(Debug)]
struct Flow {
    queue: FlowQueues,
    /// There is a WireGuard session to send through.
    open: bool,
    /// It is among the turns, or delayed.
    active: bool,
    deficit: i64,
    answer: FirstAnswer,
    /// What a handshake took.
    round_trip: Option<Duration>,
    /// There while it is open and the peer reports.
    path: Option<Box<PathState>>,
}

impl Flow {
    fn new(seed: u64) -> Self {
        let mut queue = FlowQueues::new(seed);
        queue.adapt(UNKNOWN_ROUND_TRIP, UNKNOWN_RATE, UNIT_LEN as f64);
        Self {
            queue,
            open: false,
            active: false,
            deficit: 0,
            answer: FirstAnswer::default(),
            round_trip: None,
            path: None,
        }
    }

    /// Its path, if its packets go at the rate of that.
    fn paced(&mut self) -> Option<&mut PathState> {
        self.path.as_deref_mut().filter(|_| self.answer.is_here())
    }

    /// Has its queue follow its path.
    fn adapt(&mut self) {
        if let Some(path) = &mut self.path {
            path.adapt(&mut self.queue, self.answer.is_here());
        }
    }

    /// Tells its path what waits. What waits for an answer says nothing of the path.
    fn note_backlog(&mut self, now: Duration) {
        let packets = self.queue.len();
        if let Some(path) = self.paced() {
            path.controller.set_backlog(packets, now);
        }
    }
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            sent: Bucket::default(),
            control: VecDeque::new(),
            control_dropped: HashMap::new(),
            handshakes: Handshakes::default(),
            flows: HashMap::new(),
            turns: VecDeque::new(),
            paced: VecDeque::new(),
            reporting: Vec::new(),
            limit: NodeLimit::default(),
            fixed_rate: None,
            due: Duration::MAX,
            spare: Vec::new(),
            seed: RandomState::new().build_hasher().finish(),
            delayed: BTreeSet::new(),
            total: 0,
        }
    }

    /// Has each peer that reports sent at a rate that does not follow its path, in bytes a second; peers that are open
    /// keep theirs.
    pub(super) fn set_fixed_rate(&mut self, rate: Option<f64>) {
        self.fixed_rate = rate;
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    fn flow(&mut self, peer: u32) -> &mut Flow {
        self.flows.entry(peer).or_insert_with(|| Flow::new(self.seed))
    }

    /// Queues a handshake message or keepalive.
    pub(super) fn push_control(&mut self, peer: u32, message: Vec<u8>) {
        if self.control.len() < MAX_CONTROL {
            self.handshakes.initiated += u64::from(is_initiation(&message));
            self.handshakes.received += u64::from(is_response(&message));
            self.control.push_back((peer, message));
        } else {
            *self.control_dropped.entry(peer).or_default() += 1;
        }
    }

    /// Queues an IP packet.
    pub(super) fn push(&mut self, peer: u32, packet: &[u8], now: Instant) {
        let since = self.since(now);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        let flow = self.flow(peer);
        let before = flow.queue.bytes();
        flow.queue.push(buffer, since);
        flow.note_backlog(since);
        let after = flow.queue.bytes();
        self.total = self.total - before + after;
        self.activate(peer);
        while self.total > MAX_TOTAL {
            self.drop_from_longest();
        }
    }

    /// Takes a buffer of [`Next::Data`] back, to be used again.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(buffer);
        }
    }

    /// Lets a peer's packets go.
    pub(super) fn open(&mut self, peer: u32) {
        self.flow(peer).open = true;
        self.activate(peer);
    }

    /// Keeps a peer's packets back until it is opened again.
    pub(super) fn hold(&mut self, peer: u32) {
        self.set_reports(peer, false, self.started);
        self.flow(peer).open = false;
        self.deactivate(peer);
    }

    /// Whether a peer, which is open, reports what arrives.
    pub(super) fn set_reports(&mut self, peer: u32, reports: bool, now: Instant) {
        let (since, fixed_rate) = (self.since(now), self.fixed_rate);
        let flow = self.flow(peer);
        if flow.path.is_some() == reports {
            return;
        }
        if reports {
            let epoch = RandomState::new().build_hasher().finish() as u32;
            flow.path = Some(Box::new(PathState::new(flow.round_trip, fixed_rate, epoch, since)));
            flow.adapt();
            flow.note_backlog(since);
            self.reporting.push(peer);
            self.due = Duration::ZERO;
        } else {
            flow.path = None;
            flow.queue.hold(false);
            flow.queue.adapt(UNKNOWN_ROUND_TRIP, UNKNOWN_RATE, UNIT_LEN as f64);
            self.reporting.retain(|reporting| *reporting != peer);
        }
        self.look_anew(peer);
    }

    /// Notes how long a handshake with a peer took.
    pub(super) fn handshakes(&self) -> Handshakes {
        self.handshakes
    }

    /// A handshake was not completed before this node began another.
    pub(super) fn note_failed_handshake(&mut self) {
        self.handshakes.failed += 1;
    }

    /// A handshake is completed.
    pub(super) fn note_handshake(&mut self) {
        self.handshakes.succeeded += 1;
    }

    /// How long the answer to a handshake took.
    pub(super) fn note_round_trip(&mut self, peer: u32, round_trip: Duration) {
        self.handshakes.durations.observe(round_trip);
        let flow = self.flow(peer);
        flow.round_trip = Some(round_trip);
        if let Some(path) = &mut flow.path {
            path.reporter.set_round_trip(round_trip.min(path.controller.round_trip()));
        }
    }

    /// The peer has to answer again, because this node or the peer has another SAM session. If the sessions of both are
    /// new, one of the two `yields`: it lets the other send first.
    pub(super) fn await_answer(&mut self, peer: u32, yields: bool, now: Instant) {
        let since = self.since(now);
        if let Some(flow) = self.flows.get_mut(&peer) {
            if let Some(path) = &mut flow.path {
                path.controller.set_backlog(0, since);
            }
            flow.answer.await_again(yields, since);
            flow.adapt();
            self.look_anew(peer);
        }
    }

    /// Whether the peer has answered through the present sessions.
    pub(super) fn has_answered(&self, peer: u32) -> bool {
        self.flows.get(&peer).is_some_and(|flow| flow.answer.is_here())
    }

    /// A message of a peer has been authenticated, which is no beginning of a handshake. Returns whether that is the
    /// first answer.
    pub(super) fn note_received(&mut self, peer: u32) -> bool {
        let Some(flow) = self.flows.get_mut(&peer) else { return false };
        if flow.answer.is_here() {
            return false;
        }
        let is_first = flow.answer.note_received();
        flow.adapt();
        self.look_anew(peer);
        is_first
    }

    /// Counts a message that has come from a peer, if it is one that is reported.
    pub(super) fn handle_message(&mut self, peer: u32, message: &[u8], content: Content, now: Instant) {
        let since = self.since(now);
        let Some((index, counter)) = data_counter(message) else { return };
        let Some(path) = self.flows.get_mut(&peer).and_then(|flow| flow.path.as_mut()) else { return };
        path.reporter.handle_datagram(index, counter, message.len(), content, since);
        self.due = path.reporter.poll_timeout().map_or(self.due, |time| time.min(self.due));
    }

    /// Takes what a peer reports.
    pub(super) fn handle_report(&mut self, peer: u32, report: &PathReport, now: Instant) {
        let since = self.since(now);
        let Some(flow) = self.flows.get_mut(&peer) else { return };
        let Some(path) = &mut flow.path else { return };
        if path.controller.on_report(report, since) {
            path.reporter.set_round_trip(path.controller.round_trip());
            flow.adapt();
            self.update_limit(since);
        }
    }

    fn update_limit(&mut self, now: Duration) {
        let flows = &self.flows;
        let controllers = self
            .reporting
            .iter()
            .filter_map(|peer| Some((*peer, &flows.get(peer)?.path.as_ref()?.controller)));
        self.limit.update(controllers, now);
    }

    /// Notes what has become of [`Self::pop`]: a message that goes to a peer now.
    pub(super) fn note_sent(&mut self, peer: u32, message: &[u8], content: Content, now: Instant) {
        let since = self.since(now);
        let Some((index, counter)) = data_counter(message) else { return };
        let Some(path) = self.flows.get_mut(&peer).and_then(|flow| flow.path.as_mut()) else { return };
        path.controller.on_sent(index, counter, message.len(), content, since);
        if content == Content::Packet {
            self.limit.on_sent(peer, message.len(), since);
        }
    }

    /// Has it looked at anew whether a peer's packets may go, and by which rate.
    fn look_anew(&mut self, peer: u32) {
        self.deactivate(peer);
        self.activate(peer);
    }

    /// Forgets a peer and everything that waits for it.
    pub(super) fn remove(&mut self, peer: u32) {
        self.deactivate(peer);
        if let Some(flow) = self.flows.remove(&peer) {
            self.total -= flow.queue.bytes();
        }
        self.reporting.retain(|reporting| *reporting != peer);
        self.control.retain(|(to, _)| *to != peer);
        self.control_dropped.remove(&peer);
    }

    /// What has been dropped of what was for a peer.
    pub(super) fn dropped(&self, peer: u32) -> u64 {
        let data = self.flows.get(&peer).map_or(0, |flow| flow.queue.dropped());
        data + self.control_dropped.get(&peer).copied().unwrap_or(0)
    }

    /// Does what is due now and then: drops what has waited too long, and has rates follow what is not reported.
    pub(super) fn tick(&mut self, now: Instant) {
        let since = self.since(now);
        for flow in self.flows.values_mut() {
            let before = flow.queue.bytes();
            if let Some(path) = &mut flow.path {
                path.controller.on_tick(since);
            }
            flow.adapt();
            let age = if flow.open && flow.paced().is_some() { MAX_HELD } else { MAX_AGE };
            flow.queue.expire(age, since);
            flow.note_backlog(since);
            self.total = self.total - before + flow.queue.bytes();
        }
        if !self.reporting.is_empty() {
            self.update_limit(since);
            self.due = Duration::ZERO;
        }
    }

    /// Whether nothing waits, nor may go once there is a session.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.total == 0
    }

    /// When [`Pacer::pop`] may have something again; none if it waits for other events.
    pub(super) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let since = self.since(now);
        let common = now + self.sent.wait(PACE, since);
        if !self.control.is_empty() {
            return Some(common);
        }
        let common = if self.turns.is_empty() {
            self.delayed.first().map(|(until, _)| common.max(*until))
        } else {
            Some(common)
        };
        let paced = self.paced.iter().filter_map(|peer| {
            let flow = self.flows.get(peer)?;
            let path = flow.path.as_ref().filter(|_| !flow.queue.is_empty());
            path.map_or(Some(since), |path| {
                Some(path.ready_at(since)?.max(self.limit.ready_at(*peer, since)))
            })
        });
        let due = (!self.reporting.is_empty() && self.due < Duration::MAX).then_some(self.due);
        let own = paced.chain(due).min().map(|time| now + time.saturating_sub(since));
        common.into_iter().chain(own).min()
    }

    /// What may go now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Next> {
        let since = self.since(now);
        let may = self.sent.wait(PACE, since).is_zero();
        if !may && !self.control.is_empty() {
            return None;
        }
        let next = if let Some((peer, message)) = self.control.pop_front() {
            Next::Control(peer, message)
        } else if let Some((peer, packet)) = self.pop_own(since) {
            Next::Own(peer, packet)
        } else if may && let Some((peer, packet)) = self.pop_data(now) {
            Next::Data(peer, packet)
        } else {
            return self.pop_paced(since).map(|(peer, packet)| Next::Data(peer, packet));
        };
        let (Next::Control(peer, bytes) | Next::Data(peer, bytes) | Next::Own(peer, bytes)) = &next;
        let cost = self.flow(*peer).answer.note_sent(since);
        self.sent.take_n(PACE, units(bytes.len()).saturating_mul(cost), since);
        Some(next)
    }

    /// A report that is due, or an empty message to a silent peer.
    fn pop_own(&mut self, now: Duration) -> Option<(u32, Vec<u8>)> {
        if now < self.due {
            return None;
        }
        let mut due = Duration::MAX;
        for peer in &self.reporting {
            let Some(flow) = self.flows.get_mut(peer) else { continue };
            let Some(path) = &mut flow.path else { continue };
            let wait = flow.answer.wait(now);
            if !wait.is_zero() {
                due = due.min(now + wait);
                continue;
            }
            // Before it has answered, packets ask for that, and few may go.
            let has_answered = flow.answer.is_here();
            if has_answered && !path.controller.is_silent() {
                path.controller.on_tick(now);
                if path.controller.is_silent() {
                    path.adapt(&mut flow.queue, true);
                }
            }
            if has_answered && path.controller.poll_probe(now) {
                return Some((*peer, Vec::new()));
            }
            if let Some(report) = path.reporter.poll_report(now) {
                return Some((*peer, report.to_packet()));
            }
            let controller = path.controller.poll_timeout().filter(|_| has_answered);
            let times = [controller, path.reporter.poll_timeout()];
            due = times.into_iter().flatten().fold(due, Duration::min);
        }
        self.due = due.max(now + Duration::from_millis(1));
        None
    }

    /// A packet of a peer with a rate of its own.
    fn pop_paced(&mut self, now: Duration) -> Option<(u32, Vec<u8>)> {
        let mut waiting = 0;
        while waiting < self.paced.len() {
            let peer = self.paced[0];
            let flow = self.flows.get_mut(&peer)?;
            let Some(path) = flow.path.as_mut().filter(|_| !flow.queue.is_empty()) else {
                flow.active = false;
                self.paced.pop_front();
                continue;
            };
            let ready_at = path.ready_at(now).map(|time| time.max(self.limit.ready_at(peer, now)));
            if ready_at.is_none_or(|time| time > now) {
                self.paced.rotate_left(1);
                waiting += 1;
                continue;
            }
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.paced.rotate_left(1);
                waiting = 0;
                continue;
            }
            let before = flow.queue.bytes();
            let packet = flow.queue.pop(now);
            self.total = self.total - before + flow.queue.bytes();
            path.controller.set_backlog(flow.queue.len(), now);
            if let Some(packet) = packet {
                flow.deficit -= i64::try_from(packet.len()).unwrap_or(i64::MAX);
                return Some((peer, packet));
            }
            path.note_stalled(now);
        }
        None
    }

    fn pop_data(&mut self, now: Instant) -> Option<(u32, Vec<u8>)> {
        while let Some((_, peer)) = self.delayed.first().copied().filter(|(until, _)| *until <= now) {
            self.delayed.pop_first();
            self.turns.push_back(peer);
        }
        loop {
            let peer = *self.turns.front()?;
            let Some(flow) = self.flows.get_mut(&peer) else {
                self.turns.pop_front();
                continue;
            };
            if !flow.open || flow.queue.is_empty() {
                flow.active = false;
                self.turns.pop_front();
                continue;
            }
            let wait = flow.answer.wait(now.saturating_duration_since(self.started));
            if !wait.is_zero() {
                self.turns.pop_front();
                self.delayed.insert((now + wait, peer));
                continue;
            }
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            let before = flow.queue.bytes();
            let packet = flow.queue.pop(now.saturating_duration_since(self.started));
            self.total = self.total - before + flow.queue.bytes();
            if let Some(packet) = packet {
                flow.deficit -= i64::try_from(packet.len()).unwrap_or(i64::MAX);
                return Some((peer, packet));
            }
            debug_assert!(flow.queue.is_empty(), "packets of a peer that is to answer are not held back");
        }
    }

    fn activate(&mut self, peer: u32) {
        let Some(flow) = self.flows.get_mut(&peer) else { return };
        if flow.open && !flow.active && !flow.queue.is_empty() {
            flow.active = true;
            flow.deficit = QUANTUM;
            if flow.paced().is_some() { &mut self.paced } else { &mut self.turns }.push_back(peer);
        }
    }

    fn deactivate(&mut self, peer: u32) {
        if let Some(flow) = self.flows.get_mut(&peer).filter(|flow| flow.active) {
            flow.active = false;
            self.turns.retain(|turn| *turn != peer);
            self.paced.retain(|turn| *turn != peer);
            self.delayed.retain(|(_, delayed)| *delayed != peer);
        }
    }

    fn drop_from_longest(&mut self) {
        let Some(flow) = self.flows.values_mut().max_by_key(|flow| flow.queue.bytes()) else { return };
        let before = flow.queue.bytes();
        flow.queue.drop_from_longest();
        self.total = self.total - before + flow.queue.bytes();
    }
}

fn units(len: usize) -> u32 {
    u32::try_from(len.div_ceil(UNIT_LEN)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets a peer's packets go that has answered.
    fn open_answered(pacer: &mut Pacer, peer: u32) {
        pacer.open(peer);
        pacer.flow(peer).answer.note_sent(Duration::ZERO);
        assert!(pacer.note_received(peer));
    }

    /// Sends for `seconds` with all `backlogged` peers' queues kept full, and counts bytes by peer.
    fn share(backlogged: &[(u32, usize)], seconds: u64) -> HashMap<u32, usize> {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        let mut sent = HashMap::new();
        for (peer, _) in backlogged {
            open_answered(&mut pacer, *peer);
        }
        let mut now = start;
        while now < start + Duration::from_secs(seconds) {
            // More than the rate takes, of each.
            for (peer, len) in backlogged {
                for _ in 0..4 {
                    pacer.push(*peer, &vec![0; *len], now);
                }
            }
            while let Some(next) = pacer.pop(now) {
                let Next::Data(peer, packet) = next else { panic!("no control message was queued") };
                *sent.entry(peer).or_default() += packet.len();
            }
            now += Duration::from_micros(500);
        }
        sent
    }

    #[test]
    fn backlogged_peers_share_by_bytes() {
        let sent = share(&[(1, 1280), (2, 640)], 5);
        let (one, two) = (sent[&1] as f64, sent[&2] as f64);
        assert!((one / two - 1.0).abs() < 0.05, "{one} {two}");
    }

    #[test]
    fn one_peer_gets_all_that_there_is() {
        let sent = share(&[(1, 1280)], 5);
        let packets = sent[&1] / 1280;
        let rate = RATE as usize;
        assert!((rate * 49 / 10..=rate * 5 + BURST as usize).contains(&packets), "{packets}");
    }

    #[test]
    fn long_packets_cost_as_many_short_ones() {
        let packets = share(&[(1, 7 * UNIT_LEN)], 5)[&1] / (7 * UNIT_LEN);
        assert!(packets <= (RATE as usize * 5) / 7 + BURST as usize, "{packets}");
    }

    #[test]
    fn control_goes_first_and_held_peers_not_at_all() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.push(1, b"held", now);
        pacer.open(2);
        pacer.push(2, b"data", now);
        pacer.push_control(3, b"handshake".to_vec());
        assert_eq!(pacer.pop(now), Some(Next::Control(3, b"handshake".to_vec())));
        assert_eq!(pacer.pop(now), Some(Next::Data(2, b"data".to_vec())));
        assert_eq!(pacer.pop(now), None);
        assert_eq!(pacer.ready_at(now), None, "nothing to wake up for");
        pacer.open(1);
        assert_eq!(pacer.pop(now), Some(Next::Data(1, b"held".to_vec())));
    }

    #[test]
    fn a_removed_peer_leaves_nothing() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        pacer.open(1);
        pacer.push(1, b"data", now);
        pacer.push_control(1, b"handshake".to_vec());
        pacer.remove(1);
        assert_eq!((pacer.pop(now), pacer.total), (None, 0));
    }

    #[test]
    fn memory_is_bounded_over_all_peers() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        for peer in 0..200 {
            for _ in 0..200 {
                pacer.push(peer, &[0; 1280], now);
            }
        }
        assert!(pacer.total <= MAX_TOTAL);
        assert!((0..200).all(|peer| pacer.flows[&peer].queue.bytes() > MAX_TOTAL / 200 - 4 * 1344));
    }

    proptest! {
        #[test]
        fn accounts_stay_right_and_nothing_hangs(
            steps in prop::collection::vec((0u8..8, 0u32..4, 0usize..3_000, 0u64..2_000), 0..400),
        ) {
            let mut now = Instant::now();
            let mut pacer = Pacer::new(now);
            for (kind, peer, len, pause) in steps {
                now += Duration::from_micros(pause);
                match kind {
                    0 | 1 => pacer.push(peer, &vec![0; len], now),
                    2 => pacer.open(peer),
                    3 => pacer.hold(peer),
                    4 if len < 300 => pacer.remove(peer),
                    5 => pacer.await_answer(peer, len < 1_000, now),
                    6 => _ = pacer.note_received(peer),
                    _ => while pacer.pop(now).is_some() {},
                }
                let held: usize = pacer.flows.values().map(|flow| flow.queue.bytes()).sum();
                prop_assert_eq!(pacer.total, held);
                for (peer, flow) in &pacer.flows {
                    let turns = pacer.turns.iter().filter(|turn| *turn == peer).count();
                    let turns = turns + pacer.paced.iter().filter(|turn| *turn == peer).count();
                    let delays = pacer.delayed.iter().filter(|(_, delayed)| delayed == peer).count();
                    prop_assert_eq!(usize::from(flow.active), turns + delays);
                    prop_assert!(!flow.open || flow.queue.is_empty() || flow.active);
                }
            }
            for peer in 0..4 {
                pacer.open(peer);
            }
            let mut left = pacer.total;
            while let Some(at) = pacer.ready_at(now) {
                // The longest wait is that of one that yields.
                prop_assert!(at <= now + Duration::from_secs(2));
                now = at;
                while pacer.pop(now).is_some() {}
                prop_assert!(pacer.total < left || pacer.ready_at(now).is_none_or(|next| next > now));
                left = pacer.total;
            }
            prop_assert_eq!(pacer.total, 0);
        }

        /// However many packets come when, no more of a peer's datagrams go in a time than may before its answer, and
        /// some go in every second.
        #[test]
        fn little_goes_before_the_first_answer_but_always_some(
            gaps in prop::collection::vec(0u64..20, 500..2_000), len in 20usize..1_400, yields in any::<bool>(),
        ) {
            let start = Instant::now();
            let mut pacer = Pacer::new(start);
            pacer.await_answer(1, yields, start);
            pacer.open(1);
            let mut now = start;
            let mut sent = Vec::new();
            for gap in gaps {
                let next = now + Duration::from_millis(gap);
                while let Some(at) = pacer.ready_at(now).filter(|at| *at <= next) {
                    now = now.max(at);
                    if pacer.pop(now).is_some() {
                        sent.push(now);
                    }
                }
                now = next;
                pacer.push(1, &vec![0; len], now);
            }
            for pair in sent.windows(2) {
                prop_assert!(pair[1] - pair[0] >= Duration::from_millis(250));
            }
            let seconds = usize::try_from((now - start).as_secs()).unwrap();
            prop_assert!(sent.len() + usize::from(yields) * 8 >= 3 * seconds, "{} in {seconds} s", sent.len());
            // With the answer the flow is as fast as any.
            prop_assert!(sent.is_empty() || pacer.note_received(1));
            if !sent.is_empty() {
                now += Duration::from_millis(10);
                prop_assert!(pacer.pop(now).is_none() == (pacer.total == 0));
            }
        }
    }

    /// The bytes of a WireGuard message that carries data.
    fn message(counter: u64, len: usize) -> Vec<u8> {
        let mut message = vec![0; len];
        message[0] = 4;
        message[8..16].copy_from_slice(&counter.to_le_bytes());
        message
    }

    #[test]
    fn what_was_held_back_for_a_silent_peer_goes_through_a_new_session() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        open_answered(&mut pacer, 1);
        pacer.set_reports(1, true, start);
        let (mut now, mut counter) = (start, 0);
        while !pacer.flows[&1].path.as_ref().unwrap().controller.is_silent() {
            pacer.push(1, &[0; 1000], now);
            while let Some(next) = pacer.pop(now) {
                counter += 1;
                if let Next::Data(peer, packet) = next {
                    pacer.note_sent(peer, &message(counter, packet.len() + 32), Content::Packet, now);
                }
            }
            now += Duration::from_millis(250);
            pacer.tick(now);
            assert!(now < start + Duration::from_secs(60), "nothing is reported");
        }
        pacer.push(1, b"held", now);
        pacer.await_answer(1, false, now);
        let mut sent = false;
        for _ in 0..8 {
            pacer.tick(now);
            while let Some(next) = pacer.pop(now) {
                sent |= matches!(next, Next::Data(..));
            }
            now += Duration::from_millis(250);
        }
        assert!(sent, "a few go before the answer");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Accounts stay right and nothing hangs for peers that report, whatever they say or do not say.
        #[test]
        fn nothing_hangs_for_peers_that_report(
            steps in prop::collection::vec((0u8..10, 0u32..3, 32usize..1_500, 0u64..200_000), 0..100),
        ) {
            let mut now = Instant::now();
            let mut pacer = Pacer::new(now);
            let mut counter = 0;
            let mut send = |pacer: &mut Pacer, now| {
                let mut count = 0;
                while let Some(next) = pacer.pop(now) {
                    let (peer, len, content) = match next {
                        Next::Control(peer, packet) => (peer, packet.len(), Content::Nothing),
                        Next::Data(peer, packet) => (peer, packet.len(), Content::Packet),
                        Next::Own(peer, packet) if packet.is_empty() => (peer, 0, Content::Nothing),
                        Next::Own(peer, packet) => (peer, packet.len(), Content::Report),
                    };
                    counter += 1;
                    pacer.note_sent(peer, &message(counter, len + 32), content, now);
                    count += 1;
                }
                count
            };
            for peer in 0..3 {
                pacer.open(peer);
                pacer.set_reports(peer, true, now);
            }
            for (kind, peer, len, pause) in steps {
                now += Duration::from_micros(pause);
                let number = u64::from(pause as u32 % 50);
                match kind {
                    0..=3 => (0..len / 100).for_each(|_| pacer.push(peer, &vec![0; len], now)),
                    4 => pacer.handle_message(peer, &[4; 100], Content::Packet, now),
                    5 => pacer.await_answer(peer, len < 1_000, now),
                    6 => _ = pacer.note_received(peer),
                    7 => pacer.tick(now),
                    8 => pacer.handle_report(
                        peer,
                        &PathReport {
                            epoch: 1,
                            packets: number + 1,
                            bytes: (number + 1) * len as u64,
                            index: 0,
                            counter: number,
                            arrival: pause as u32,
                            held: 0,
                            earlier: Vec::new(),
                        },
                        now,
                    ),
                    // Silence.
                    _ => now += Duration::from_micros(pause * 50),
                }
                prop_assert!(send(&mut pacer, now) < 1_000);
                prop_assert!(pacer.ready_at(now).is_none_or(|time| time > now), "it would run without end");
                let held: usize = pacer.flows.values().map(|flow| flow.queue.bytes()).sum();
                prop_assert_eq!(pacer.total, held);
                for (peer, flow) in &pacer.flows {
                    let turns = pacer.turns.iter().chain(&pacer.paced).filter(|turn| *turn == peer).count();
                    let delays = pacer.delayed.iter().filter(|(_, delayed)| delayed == peer).count();
                    prop_assert_eq!(usize::from(flow.active), turns + delays);
                    prop_assert!(flow.queue.is_empty() || flow.active);
                }
            }
            let until = now + Duration::from_secs(45);
            let mut tick = now;
            while now < until {
                if tick <= now {
                    pacer.tick(now);
                    tick = now + Duration::from_millis(250);
                }
                send(&mut pacer, now);
                now = pacer.ready_at(now).map_or(tick, |time| time.min(tick));
            }
            prop_assert_eq!(pacer.total, 0);
        }
    }
}
