//! Finding out who is there: the probing of SWIM (Das, Gupta and Motivala, 2002), for a network where an answer
//! takes seconds and every fifth datagram may be lost.
//!
//! In every period one member is pinged, all in turn in an order drawn anew for each lap, so that nobody waits longer
//! than two laps. One that does not answer is pinged again, then through others, then through more others; only after
//! two periods without any sign is it said to be out of reach. What is concluded from it is the confirmer's statement
//! only, which others check for themselves.
//!
//! What is said of a living member is told to all, and so is its answer, by each. The number of such mistakes grows with
//! that of the members, and what each costs every member does not shrink: they must be so rare that it does not matter.
//! At a loss of 20 % in each direction a ping goes unanswered 36 times of a hundred and one through another 59 times, so
//! that of five and twenty all do in fewer than one probe of five million.
//!
//! foca, the SWIM library for Rust, was considered and is not used: its updates are not signed by whom they concern,
//! a member that was declared down stays so until it takes on another identity, and so one lying member could remove
//! all others.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use rand::seq::SliceRandom as _;
use rand::{Rng, RngExt as _};

use super::budget::{Asker, block};

/// When in a probe, in quarters of the period, what is done.
const PLAN: [(u32, ProbeStep); 6] = [
    (0, ProbeStep::Ping { relays: 0, introduces: false }),
    (1, ProbeStep::Ping { relays: 0, introduces: true }),
    (2, ProbeStep::Ping { relays: 3, introduces: true }),
    (4, ProbeStep::Ping { relays: 5, introduces: false }),
    (6, ProbeStep::Ping { relays: 12, introduces: false }),
    (8, ProbeStep::GiveUp),
];

/// A probe that has no bytes is tried again after this part of the period.
const POSTPONED: u32 = 16;

/// Probes that may run at once: those in turn, and those of members that others could not reach.
const MAX_PROBES: usize = 64;

/// Of these so many are for those in turn: who has others suspected does not keep this node from looking for itself.
const IN_TURN: usize = 8;

/// Pings that are under way for others.
const MAX_ERRANDS: usize = 64;

/// What is to be done in a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbeStep {
    Ping { relays: usize, introduces: bool },
    GiveUp,
}

/// What the detector wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Ping the node, and have so many others ping it. If this node introduces itself it says in the ping who it is: to
    /// one that does not know it, and so does not answer, because one of them is new.
    Ping { node: NodeId, number: u64, relays: usize, introduces: bool },
    /// It does not answer, since this time on the monotonic clock.
    Unreached { node: NodeId, since: Duration },
}

/// What an acknowledgement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acked {
    /// The node is there; it answered itself, after this time.
    Directly { node: NodeId, rtt: Duration },
    /// The node is there; another has reached it.
    Through { node: NodeId },
    /// Somebody is to be told by an acknowledgement with this number.
    Errand { to: Destination, number: u64 },
    /// Nothing.
    Unknown,
}

#[derive(Debug)]
struct Probe {
    target: NodeId,
    /// Where it answers from.
    control: DestinationHash,
    /// Where relays answer from.
    relays: HashSet<DestinationHash>,
    begun: Duration,
    pinged: Duration,
    step: usize,
}

#[derive(Debug)]
struct Errand {
    control: DestinationHash,
    to: Destination,
    /// The address block of who asked.
    asker: Asker,
    number: u64,
    until: Duration,
}

/// Decides whom to probe, and what came of it.
#[derive(Debug)]
pub(super) struct Detector {
    period: Duration,
    next_probe: Duration,
    /// Who is still to come in this lap, by the places that members have.
    lap: Vec<u32>,
    probes: BTreeMap<u64, Probe>,
    errands: BTreeMap<u64, Errand>,
}

impl Detector {
    /// The first probe comes a period from now.
    pub(super) fn new(period: Duration, now: Duration) -> Self {
        Self {
            period,
            next_probe: now + period,
            lap: Vec::new(),
            probes: BTreeMap::new(),
            errands: BTreeMap::new(),
        }
    }

    pub(super) fn set_period(&mut self, period: Duration, now: Duration) {
        self.period = period;
        self.next_probe = self.next_probe.min(now + period);
    }

    pub(super) fn poll_timeout(&self) -> Duration {
        self.probes
            .values()
            .map(|probe| self.due(probe))
            .chain([self.next_probe])
            .min()
            .unwrap_or(self.next_probe)
    }

    fn due(&self, probe: &Probe) -> Duration {
        probe.begun + self.period / 4 * PLAN[probe.step].0
    }

    /// Puts off a probe that is due: there are no bytes for it yet.
    pub(super) fn postpone_probe(&mut self, now: Duration) {
        if now >= self.next_probe {
            self.next_probe = now + self.period / POSTPONED;
        }
    }

    /// Does what is due. `places` are those of all members, for the next lap; `member` tells who has a place now, if
    /// it is to be probed, and where it takes messages.
    pub(super) fn handle_timeout(
        &mut self,
        now: Duration,
        places: impl FnOnce() -> Vec<u32>,
        member: impl Fn(u32) -> Option<(NodeId, DestinationHash)>,
        rng: &mut impl Rng,
    ) -> Vec<Task> {
        if now >= self.next_probe {
            // A tenth up or down, so that members that started together do not probe together.
            self.next_probe = now + self.period.mul_f64(rng.random_range(0.9..1.1));
            self.errands.retain(|_, errand| errand.until > now);
            if self.lap.is_empty() {
                self.lap = places();
                self.lap.shuffle(rng);
            }
            while let Some(place) = self.lap.pop() {
                if let Some((node, control)) = member(place)
                    && self.probe(node, control, now, rng)
                {
                    break;
                }
            }
        }
        let mut tasks = Vec::new();
        let due: Vec<u64> = self
            .probes
            .iter()
            .filter(|(_, probe)| self.due(probe) <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            let Some(probe) = self.probes.get_mut(&number) else { continue };
            match PLAN[probe.step].1 {
                ProbeStep::Ping { relays, introduces } => {
                    probe.pinged = now;
                    probe.step += 1;
                    tasks.push(Task::Ping { node: probe.target, number, relays, introduces });
                }
                ProbeStep::GiveUp => {
                    tasks.push(Task::Unreached { node: probe.target, since: probe.begun });
                    self.probes.remove(&number);
                }
            }
        }
        tasks
    }

    /// Probes a node out of turn, unless that is going on or there is no room.
    pub(super) fn begin(
        &mut self,
        target: NodeId,
        control: DestinationHash,
        now: Duration,
        rng: &mut impl Rng,
    ) {
        if self.probes.len() < MAX_PROBES - IN_TURN {
            self.probe(target, control, now, rng);
        }
    }

    /// Probes a node. False if that is going on, or if there is no room.
    fn probe(&mut self, target: NodeId, control: DestinationHash, now: Duration, rng: &mut impl Rng) -> bool {
        let running = self.probes.values().any(|probe| probe.target == target);
        if running || self.probes.len() >= MAX_PROBES {
            return false;
        }
        let relays = HashSet::new();
        let probe = Probe { target, control, relays, begun: now, pinged: now, step: 0 };
        self.probes.insert(rng.random(), probe);
        true
    }

    /// A relay has been asked.
    pub(super) fn asked_relay(&mut self, number: u64, relay: DestinationHash) {
        if let Some(probe) = self.probes.get_mut(&number) {
            probe.relays.insert(relay);
        }
    }

    /// Another member wants this node to ping a third. Returns the number for the ping. Where there is no room the address
    /// block that has asked for most loses one, unless it is this member's own.
    pub(super) fn handle_ping_request(
        &mut self,
        control: DestinationHash,
        to: Destination,
        asker: Asker,
        number: u64,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Option<u64> {
        if self.errands.len() >= MAX_ERRANDS {
            self.errands.retain(|_, errand| errand.until > now);
        }
        if self.errands.len() >= MAX_ERRANDS {
            let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
            for errand in self.errands.values() {
                *counts.entry(block(&errand.asker)).or_default() += 1;
            }
            let own = counts.get(&block(&asker)).copied().unwrap_or(0);
            let (most, _) =
                counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > own + 1)?;
            let theirs = self.errands.iter().filter(|(_, errand)| block(&errand.asker) == most);
            let last = theirs.max_by_key(|(_, errand)| errand.until).map(|(number, _)| *number)?;
            self.errands.remove(&last);
        }
        let own = rng.random();
        self.errands.insert(own, Errand { control, to, asker, number, until: now + self.period });
        Some(own)
    }

    /// An acknowledgement came.
    pub(super) fn handle_ack(&mut self, from: &DestinationHash, number: u64, now: Duration) -> Acked {
        if let Some(probe) = self.probes.get(&number) {
            let (node, rtt) = (probe.target, now.saturating_sub(probe.pinged));
            if probe.control == *from {
                self.probes.remove(&number);
                return Acked::Directly { node, rtt };
            }
            if probe.relays.contains(from) {
                self.probes.remove(&number);
                return Acked::Through { node };
            }
        }
        match self.errands.get(&number) {
            Some(errand) if errand.control == *from => {
                let (to, number_there) = (errand.to, errand.number);
                self.errands.remove(&number);
                Acked::Errand { to, number: number_there }
            }
            _ => Acked::Unknown,
        }
    }

    /// A node was heard of by itself: whoever probes it need not.
    pub(super) fn heard(&mut self, node: &NodeId) {
        // The first ping measures the round trip; its answer is on its way.
        self.probes.retain(|_, probe| probe.target != *node || probe.step <= 1);
    }

    /// A node is no member any more.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.probes.retain(|_, probe| probe.target != *node);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::super::shares::AddressInBlock;
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn member(place: u32) -> Option<(NodeId, DestinationHash)> {
        let node = node(u8::try_from(place).unwrap());
        Some((node, DestinationHash(node.0)))
    }

    fn destination(number: u8) -> Destination {
        Destination { padding: [number; 32], signing_key: [number; 32] }
    }

    struct Run {
        detector: Detector,
        rng: StdRng,
        members: u8,
    }

    impl Run {
        fn new(members: u8) -> Self {
            let detector = Detector::new(PERIOD, Duration::ZERO);
            Self { detector, rng: StdRng::from_seed([3; 32]), members }
        }

        fn next(&mut self) -> (Duration, Vec<Task>) {
            let now = self.detector.poll_timeout();
            let places = || (0..self.members.into()).collect();
            (now, self.detector.handle_timeout(now, places, member, &mut self.rng))
        }
    }

    #[test]
    fn all_are_probed_within_two_laps() {
        let mut run = Run::new(10);
        let mut last_seen = [0; 10];
        for turn in 1..200 {
            let (now, tasks) = run.next();
            for task in tasks {
                let Task::Ping { node, number, .. } = task else { panic!("it answered") };
                last_seen[usize::from(node.0[0])] = turn;
                let acked = run.detector.handle_ack(&DestinationHash(node.0), number, now);
                assert_eq!(acked, Acked::Directly { node, rtt: Duration::ZERO });
            }
            assert!(last_seen.iter().all(|last| turn - last <= 20), "{last_seen:?} at {turn}");
        }
    }

    /// Where bytes were short at the instant at which it was due, a probe came a period later, or not even then.
    #[test]
    fn a_postponed_probe_comes_as_soon_as_there_are_bytes() {
        let mut run = Run::new(4);
        let due = run.detector.poll_timeout();
        let mut now = due;
        for _ in 0..POSTPONED {
            run.detector.postpone_probe(now);
            now = run.detector.poll_timeout();
        }
        assert!(now <= due + PERIOD, "{now:?}");
        assert_eq!(run.next().1.len(), 1);
        // There is one in a period all the same.
        assert!(run.detector.next_probe >= now + PERIOD * 9 / 10);
    }

    #[test]
    fn one_that_is_silent_is_given_up_after_two_periods_and_twenty_relays() {
        let mut run = Run::new(1);
        let mut relays = 0;
        let mut begun = None;
        loop {
            let (now, tasks) = run.next();
            for task in tasks {
                match task {
                    Task::Ping { relays: more, .. } => {
                        begun.get_or_insert(now);
                        relays += more;
                    }
                    Task::Unreached { since, .. } => {
                        assert_eq!((Some(since), now - since, relays), (begun, PERIOD * 2, 20));
                        return;
                    }
                }
            }
        }
    }

    #[test]
    fn only_whom_it_asked_can_answer_for_it() {
        let mut run = Run::new(1);
        let (now, tasks) = run.next();
        let [Task::Ping { node: target, number, .. }] = tasks[..] else { panic!("{tasks:?}") };
        let stranger = DestinationHash([99; 32]);
        assert_eq!(run.detector.handle_ack(&stranger, number, now), Acked::Unknown);
        assert_eq!(run.detector.handle_ack(&DestinationHash(target.0), number + 1, now), Acked::Unknown);
        run.detector.asked_relay(number, stranger);
        assert_eq!(run.detector.handle_ack(&stranger, number, now), Acked::Through { node: target });
        // And once only.
        assert_eq!(run.detector.handle_ack(&stranger, number, now), Acked::Unknown);
    }

    #[test]
    fn suspicions_leave_room_for_probes_in_turn() {
        let mut run = Run::new(4);
        for number in 100..=255 {
            run.detector.begin(
                NodeId([number; 32]),
                DestinationHash([number; 32]),
                Duration::ZERO,
                &mut run.rng,
            );
        }
        let mut probed = HashSet::new();
        while probed.len() < 4 {
            let (now, tasks) = run.next();
            for task in tasks {
                let (Task::Ping { node, .. } | Task::Unreached { node, .. }) = task;
                if node.0[0] >= 100 {
                    // There are always more.
                    run.detector.begin(node, DestinationHash(node.0), now, &mut run.rng);
                } else {
                    probed.insert(node);
                }
            }
            assert!(now < PERIOD * 6, "{probed:?}");
        }
    }

    #[test]
    fn errands_are_bounded_and_end() {
        let mut run = Run::new(1);
        let target = DestinationHash([1; 32]);
        let ask = |run: &mut Run, number, now| {
            run.detector.handle_ping_request(
                target,
                destination(7),
                Some(AddressInBlock { block: 1, address: 1 }),
                number,
                now,
                &mut run.rng,
            )
        };
        let first = ask(&mut run, 1, Duration::ZERO).unwrap();
        let accepted = (0..1000).filter(|number| ask(&mut run, *number, Duration::ZERO).is_some()).count();
        assert_eq!(accepted, MAX_ERRANDS - 1);
        // Those of others have their share.
        let other = run.detector.handle_ping_request(
            target,
            destination(8),
            Some(AddressInBlock { block: 2, address: 2 }),
            9,
            Duration::ZERO,
            &mut run.rng,
        );
        assert!(other.is_some());
        assert_eq!(run.detector.errands.len(), MAX_ERRANDS);
        let acked = run.detector.handle_ack(&target, first, Duration::ZERO);
        assert_eq!(acked, Acked::Errand { to: destination(7), number: 1 });
        assert!(ask(&mut run, 5, PERIOD).is_some());
    }
}
