//! What happened lately, and how much traffic there was.

use std::collections::{HashMap, VecDeque};

use i2plan_ipc::api::meshd::{Event, Traffic};

/// Events that are kept.
pub const MAX_EVENTS: usize = 500;

/// Samples that are kept: half an hour of them.
pub const MAX_SAMPLES: usize = 360;

/// Members whose round trips are kept, as many as can have a tunnel at a time. Each takes about 850 bytes: 43 kB for the
/// 50 of the default, 8.5 MB for all.
pub const MAX_MEMBERS: usize = 10_000;

/// Stands for a round trip that was not measured, in one of a member.
const UNMEASURED: u16 = u16::MAX;

/// What was measured between two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Bytes received in a second.
    pub received: u64,
    /// Bytes sent in a second.
    pub sent: u64,
    /// Milliseconds of a round trip, the median of the members; none if none was measured.
    pub rtt: Option<u64>,
}

/// Bytes received and sent, by node id.
type Totals = HashMap<String, (u64, u64)>;

/// The last events and samples.
#[derive(Debug, Default)]
pub struct History {
    events: VecDeque<Event>,
    samples: VecDeque<Sample>,
    /// Milliseconds of the round trips to members, by node id: one for each sample since the first that was measured.
    /// A member without any in the time of the samples has no entry.
    round_trips: HashMap<String, VecDeque<u16>>,
    /// The last report: when it was made, and the totals in it.
    last: Option<(u64, Totals)>,
}

impl History {
    /// Something happened.
    pub fn push(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The traffic up to now.
    pub fn note(&mut self, traffic: &Traffic) {
        let totals: Totals =
            traffic.peers.iter().map(|peer| (peer.node_id.clone(), (peer.rx_bytes, peer.tx_bytes))).collect();
        if let Some((at, before)) = &self.last {
            let elapsed = traffic.at.saturating_sub(*at);
            // Of a member that begins again at 0, or is new, all that there is has come since.
            let (mut received, mut sent) = (0, 0);
            for (node, (rx, tx)) in &totals {
                let (rx_before, tx_before) = before.get(node).copied().unwrap_or_default();
                received += rx.checked_sub(rx_before).unwrap_or(*rx);
                sent += tx.checked_sub(tx_before).unwrap_or(*tx);
            }
            // Another run of meshd has another clock.
            if let (Some(received), Some(sent)) = (per_second(received, elapsed), per_second(sent, elapsed)) {
                if self.samples.len() >= MAX_SAMPLES {
                    self.samples.pop_front();
                }
                let mut rtts: Vec<_> = traffic.peers.iter().filter_map(|peer| peer.rtt).collect();
                rtts.sort_unstable();
                self.samples.push_back(Sample { received, sent, rtt: rtts.get(rtts.len() / 2).copied() });
                self.note_round_trips(traffic);
            }
        }
        self.last = Some((traffic.at, totals));
    }

    fn note_round_trips(&mut self, traffic: &Traffic) {
        let measured =
            traffic.peers.iter().filter_map(|peer| peer.rtt.map(|rtt| (peer.node_id.as_str(), rtt)));
        let measured: HashMap<_, _> = measured.take(MAX_MEMBERS).collect();
        self.round_trips.retain(|node, trips| {
            if trips.len() >= MAX_SAMPLES {
                trips.pop_front();
            }
            trips.push_back(measured.get(node.as_str()).map_or(UNMEASURED, |rtt| in_a_sample(*rtt)));
            trips.iter().any(|trip| *trip != UNMEASURED)
        });
        for (node, rtt) in measured {
            if self.round_trips.len() < MAX_MEMBERS && !self.round_trips.contains_key(node) {
                let mut trips = VecDeque::with_capacity(MAX_SAMPLES);
                trips.push_back(in_a_sample(rtt));
                self.round_trips.insert(node.to_owned(), trips);
            }
        }
    }

    /// The events, the newest first.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// The last `most` samples, the oldest first.
    pub fn samples(&self, most: usize) -> impl Iterator<Item = Sample> + '_ {
        self.samples.iter().skip(self.samples.len().saturating_sub(most)).copied()
    }

    /// The last `most` round trips to a member, the oldest first, in milliseconds: 65,534 for all that are longer, and none
    /// where none was measured.
    pub fn round_trips(&self, node: &str, most: usize) -> impl Iterator<Item = Option<u64>> + '_ {
        let trips = self.round_trips.get(node).into_iter().flatten().copied();
        let count = self.round_trips.get(node).map_or(0, VecDeque::len);
        trips.skip(count.saturating_sub(most)).map(|trip| (trip != UNMEASURED).then_some(trip.into()))
    }
}

fn in_a_sample(milliseconds: u64) -> u16 {
    u16::try_from(milliseconds).unwrap_or(UNMEASURED).min(UNMEASURED - 1)
}

fn per_second(bytes: u64, millis: u64) -> Option<u64> {
    bytes.saturating_mul(1000).checked_div(millis)
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::{EventKind, PeerTraffic};

    use super::*;

    fn traffic(at: u64, peers: &[(&str, u64, u64)]) -> Traffic {
        let peers = peers.iter().map(|(node, rx_bytes, tx_bytes)| PeerTraffic {
            node_id: (*node).to_owned(),
            tx_bytes: *tx_bytes,
            rx_bytes: *rx_bytes,
            last_handshake: None,
            rtt: Some(7),
        });
        Traffic { at, peers: peers.collect() }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let mut history = History::default();
        history.note(&traffic(1000, &[("a", 100, 0)]));
        history.note(&traffic(3000, &[("a", 2100, 4000), ("b", 1000, 0)]));
        // tund has started again, and the member that left takes nothing away.
        history.note(&traffic(4000, &[("a", 50, 0)]));
        // So has meshd.
        history.note(&traffic(500, &[("a", 60, 0)]));
        let samples: Vec<_> = history.samples(MAX_SAMPLES).collect();
        let sample = |received, sent, rtt| Sample { received, sent, rtt };
        assert_eq!(samples, [sample(1500, 2000, Some(7)), sample(50, 0, Some(7))]);
        assert_eq!(history.samples(1).collect::<Vec<_>>(), [sample(50, 0, Some(7))]);
    }

    /// A report every five seconds, with the round trips that were measured.
    fn report(history: &mut History, second: u64, rtts: &[(&str, Option<u64>)]) {
        let mut traffic =
            traffic(second * 5000, &rtts.iter().map(|(node, _)| (*node, 0, 0)).collect::<Vec<_>>());
        traffic.peers.iter_mut().zip(rtts).for_each(|(peer, (_, rtt))| peer.rtt = *rtt);
        history.note(&traffic);
    }

    #[test]
    fn round_trips_are_kept_of_members_that_have_answered() {
        let mut history = History::default();
        report(&mut history, 0, &[]);
        report(&mut history, 1, &[("a", Some(40)), ("silent", None)]);
        report(&mut history, 2, &[("a", None), ("b", Some(100_000))]);
        report(&mut history, 3, &[("b", Some(7))]);
        let trips = |history: &History, node: &str, most| history.round_trips(node, most).collect::<Vec<_>>();
        assert_eq!(trips(&history, "a", 10), [Some(40), None, None]);
        assert_eq!(trips(&history, "b", 10), [Some(65_534), Some(7)]);
        assert_eq!(trips(&history, "b", 1), [Some(7)]);
        assert!(trips(&history, "silent", 10).is_empty() && history.round_trips.len() == 2);
        // A member that is not heard of for as long as the graphs reach back is forgotten.
        for second in 4..4 + MAX_SAMPLES as u64 {
            report(&mut history, second, &[("b", Some(8))]);
        }
        assert!(trips(&history, "a", 10).is_empty());
        assert_eq!((history.round_trips.len(), trips(&history, "b", 1000).len()), (1, MAX_SAMPLES));
    }

    #[test]
    fn round_trips_of_a_bounded_number_of_members_are_kept() {
        let mut history = History::default();
        for second in 0..4 {
            let nodes: Vec<_> =
                (0..MAX_MEMBERS as u64).map(|node| (second * 7000 + node).to_string()).collect();
            let rtts: Vec<_> = nodes.iter().map(|node| (node.as_str(), Some(1))).collect();
            report(&mut history, second, &rtts);
        }
        assert_eq!(history.round_trips.len(), MAX_MEMBERS);
        assert!(history.round_trips.values().all(|trips| trips.capacity() == MAX_SAMPLES));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut history = History::default();
        for number in 0..1000 {
            history.push(Event { number, at: 0, kind: EventKind::KeyRotated { epoch: 1 } });
            history.note(&traffic(number * 1000, &[("a", number, number)]));
        }
        assert_eq!((history.events().count(), history.samples(1000).count()), (MAX_EVENTS, MAX_SAMPLES));
        assert_eq!(history.events().next().map(|event| event.number), Some(999));
    }
}
