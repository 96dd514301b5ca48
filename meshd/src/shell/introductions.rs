//! Look-ups before the first datagram to a destination.
//!
//! A router that does not know a destination's lease set drops what is sent there until it has found it (i2pd), or keeps
//! it for that long (others). A look-up on the same session before makes that the first datagram arrives: it is held until
//! the router has answered, for a moment at most.

use std::collections::HashMap;
use std::time::Duration;

use i2plan_proto::destination::{Destination, DestinationHash};

/// How long a datagram is held at most. Where a router takes longer it may be right to send all the same.
const HOLD: Duration = Duration::from_secs(2);

/// For so long after something was sent there a router knows a lease set, which lasts ten minutes.
const KNOWN: Duration = Duration::from_secs(5 * 60);

/// After a look-up in vain the next one waits as long, and nothing is held meanwhile.
const UNKNOWN: Duration = Duration::from_secs(30);

/// Destinations that are remembered.
const MAX_KNOWN: usize = 4096;

/// Datagrams that are held in all.
const MAX_HELD: usize = 64;

/// What is to be done with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it.
    Send,
    /// It is held, and the destination is to be looked up.
    LookUp,
    /// It is held.
    Held,
}

/// What one session's router knows, as far as is known here.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    /// Until when a destination needs no look-up.
    known: HashMap<DestinationHash, Duration>,
    /// Until when what is sent to a destination is held.
    waiting: HashMap<DestinationHash, Duration>,
    held: Vec<(Destination, Vec<u8>)>,
}

impl Introductions {
    /// A datagram is to be sent, and is held unless it is to be sent now.
    pub(super) fn handle_send(&mut self, to: &Destination, datagram: &[u8], now: Duration) -> Verdict {
        let hash = to.hash();
        if self.held.len() >= MAX_HELD && !self.waiting.contains_key(&hash) {
            return Verdict::Send;
        }
        let verdict = self.handle_need(hash, now);
        if verdict != Verdict::Send {
            if self.held.len() >= MAX_HELD {
                return Verdict::Send;
            }
            self.held.push((*to, datagram.to_vec()));
        }
        verdict
    }

    /// A destination is about to be used.
    pub(super) fn handle_need(&mut self, hash: DestinationHash, now: Duration) -> Verdict {
        if self.waiting.contains_key(&hash) {
            return Verdict::Held;
        }
        if let Some(until) = self.known.get_mut(&hash).filter(|until| now < **until) {
            // One that is not found is not known for being used.
            if until.saturating_sub(now) > UNKNOWN {
                *until = now + KNOWN;
            }
            return Verdict::Send;
        }
        self.waiting.insert(hash, now + HOLD);
        Verdict::LookUp
    }

    /// A look-up is done. Returns what was held for it.
    pub(super) fn handle_found(
        &mut self,
        hash: &DestinationHash,
        found: bool,
        now: Duration,
    ) -> Vec<(Destination, Vec<u8>)> {
        if self.known.len() >= MAX_KNOWN {
            self.known.retain(|_, until| now < *until);
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
        }
        self.known.insert(*hash, now + if found { KNOWN } else { UNKNOWN });
        self.waiting.remove(hash);
        self.held.extract_if(.., |(to, _)| to.hash() == *hash).collect()
    }

    /// When [`Introductions::handle_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.values().min().copied()
    }

    /// Returns what has been held for long enough.
    pub(super) fn handle_timeout(&mut self, now: Duration) -> Vec<(Destination, Vec<u8>)> {
        let late: Vec<_> =
            self.waiting.iter().filter(|(_, until)| **until <= now).map(|(hash, _)| *hash).collect();
        late.iter().flat_map(|hash| self.handle_found(hash, false, now)).collect()
    }

    /// Whether nothing is waited for.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(seed: u8) -> Destination {
        Destination { padding: [seed; 32], signing_key: [1; 32] }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_sent_first_waits_for_the_look_up() {
        let (mut known, one, two) = (Introductions::default(), destination(1), destination(2));
        assert_eq!(known.handle_send(&one, b"a", seconds(0)), Verdict::LookUp);
        assert_eq!(known.handle_send(&one, b"b", seconds(0)), Verdict::Held);
        assert_eq!(known.handle_send(&two, b"c", seconds(0)), Verdict::LookUp);
        let sent = known.handle_found(&one.hash(), true, seconds(1));
        assert_eq!(sent, [(one, b"a".to_vec()), (one, b"b".to_vec())]);
        assert_eq!(known.handle_send(&one, b"d", seconds(1)), Verdict::Send);
        assert!(!known.is_done());
    }

    #[test]
    fn nothing_waits_for_long() {
        let (mut known, one) = (Introductions::default(), destination(1));
        known.handle_send(&one, b"a", seconds(10));
        assert_eq!(known.poll_timeout(), Some(seconds(12)));
        assert!(known.handle_timeout(seconds(11)).is_empty());
        assert_eq!(known.handle_timeout(seconds(12)), [(one, b"a".to_vec())]);
        assert!(known.poll_timeout().is_none() && known.is_done());
        // And is not held again as long as it cannot be expected to be found.
        assert_eq!(known.handle_send(&one, b"b", seconds(41)), Verdict::Send);
        assert_eq!(known.handle_send(&one, b"c", seconds(42)), Verdict::LookUp);
        // The answer may come late.
        assert_eq!(known.handle_found(&one.hash(), true, seconds(43)).len(), 1);
        assert!(known.handle_found(&one.hash(), true, seconds(44)).is_empty());
    }

    #[test]
    fn what_is_in_use_stays_known() {
        let (mut known, one) = (Introductions::default(), destination(1));
        known.handle_found(&one.hash(), true, seconds(0));
        for minute in 1..100 {
            assert_eq!(known.handle_send(&one, b"a", seconds(60 * minute)), Verdict::Send);
        }
        assert_eq!(known.handle_send(&one, b"a", seconds(60 * 200)), Verdict::LookUp);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Introductions::default();
        for seed in 0..=255 {
            known.handle_send(&destination(seed), b"a", seconds(0));
            known.handle_send(&destination(0), b"a", seconds(0));
        }
        assert!(known.held.len() <= MAX_HELD && known.waiting.len() <= MAX_HELD);
        for number in 0..3 * MAX_KNOWN as u64 {
            let mut hash = destination(0).hash();
            hash.0[..8].copy_from_slice(&number.to_be_bytes());
            known.handle_found(&hash, true, seconds(0));
        }
        assert!(known.known.len() <= MAX_KNOWN);
    }
}
