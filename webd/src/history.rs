//! What happened lately, and how much traffic there was.

use std::collections::{HashMap, VecDeque};

use i2plan_ipc::api::meshd::{Event, Traffic};

/// Events that are kept.
pub const MAX_EVENTS: usize = 200;

/// Rates that are kept.
pub const MAX_RATES: usize = 120;

/// The traffic between two reports, bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// Bytes received and sent, by node id.
type Totals = HashMap<String, (u64, u64)>;

/// The last events and rates.
#[derive(Debug, Default)]
pub struct History {
    events: VecDeque<Event>,
    rates: VecDeque<Rate>,
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
                if self.rates.len() >= MAX_RATES {
                    self.rates.pop_front();
                }
                self.rates.push_back(Rate { received, sent });
            }
        }
        self.last = Some((traffic.at, totals));
    }

    /// The events, the newest first.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// The rates, the oldest first.
    pub fn rates(&self) -> impl Iterator<Item = Rate> + '_ {
        self.rates.iter().copied()
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
            rtt: None,
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
        let rates: Vec<_> = history.rates().collect();
        assert_eq!(rates, [Rate { received: 1500, sent: 2000 }, Rate { received: 50, sent: 0 }]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut history = History::default();
        for number in 0..1000 {
            history.push(Event { number, at: 0, kind: EventKind::KeyRotated { epoch: 1 } });
            history.note(&traffic(number * 1000, &[("a", number, number)]));
        }
        assert_eq!((history.events().count(), history.rates().count()), (MAX_EVENTS, MAX_RATES));
        assert_eq!(history.events().next().map(|event| event.number), Some(999));
    }
}
