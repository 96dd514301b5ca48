//! What happened lately, and how much traffic there was.

use std::collections::{HashMap, VecDeque};

use i2plan_ipc::api::meshd::{Event, Traffic};

/// Events that are kept.
pub const MAX_EVENTS: usize = 500;

/// Samples that are kept: half an hour of them.
pub const MAX_SAMPLES: usize = 360;

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
            }
        }
        self.last = Some((traffic.at, totals));
    }

    /// The events, the newest first.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// The last samples, so many at most, the oldest first.
    pub fn samples(&self, most: usize) -> impl Iterator<Item = Sample> + '_ {
        self.samples.iter().skip(self.samples.len().saturating_sub(most)).copied()
    }
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
