//! Handshakes that come before this node has been told of their sender.
//!
//! Two members that learn of each other do so at slightly different times, and the one that is first begins. WireGuard
//! would repeat what is dropped here only after seconds (WireGuard, section 6.1: REKEY_TIMEOUT).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long an initiation is worth keeping: after that its sender has sent another, unless it sends few by now.
const KEPT: Duration = Duration::from_secs(10);

/// Strangers whose initiations are kept. Who sends more only displaces other strangers'.
const MAX_STRANGERS: usize = 16;

/// The newest initiation of each of a few strangers, oldest first.
#[derive(Debug, Default)]
pub(super) struct EarlyHandshakes(VecDeque<(Instant, [u8; 32], Vec<u8>)>);

impl EarlyHandshakes {
    /// An initiation with this static key came; its first check has been passed.
    pub(super) fn put(&mut self, key: [u8; 32], message: &[u8], now: Instant) {
        self.0.retain(|(_, other, _)| *other != key);
        if self.0.len() >= MAX_STRANGERS {
            self.0.pop_front();
        }
        self.0.push_back((now, key, message.to_vec()));
    }

    /// Those of keys that are known now.
    pub(super) fn take(&mut self, now: Instant, known: impl Fn(&[u8; 32]) -> bool) -> Vec<Vec<u8>> {
        self.0.retain(|(came, ..)| now < *came + KEPT);
        let (found, rest) = std::mem::take(&mut self.0).into_iter().partition(|(_, key, _)| known(key));
        self.0 = rest;
        let found: VecDeque<_> = found;
        found.into_iter().map(|(.., message)| message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_is_kept_for_a_while() {
        let mut early = EarlyHandshakes::default();
        let now = Instant::now();
        early.put([1; 32], b"old", now);
        early.put([1; 32], b"new", now);
        early.put([2; 32], b"other", now);
        assert_eq!(early.take(now, |key| *key == [1; 32]), [b"new"]);
        assert!(early.take(now, |key| *key == [1; 32]).is_empty());
        assert!(early.take(now + KEPT, |_| true).is_empty());
    }

    #[test]
    fn strangers_displace_strangers_only_up_to_the_bound() {
        let mut early = EarlyHandshakes::default();
        let now = Instant::now();
        for number in 0..100 {
            early.put([number; 32], &[number], now);
            assert!(early.0.len() <= MAX_STRANGERS);
        }
        assert_eq!(early.take(now, |_| true).len(), MAX_STRANGERS);
    }
}
