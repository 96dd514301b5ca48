//! When a peer that does not answer is called again.

use std::time::{Duration, Instant};

/// Wait after the first handshake that was not answered (WireGuard, section 6.1: REKEY_TIMEOUT); each further wait
/// is twice as long.
const FIRST: Duration = Duration::from_secs(5);

/// Longest wait.
const LAST: Duration = Duration::from_secs(300);

/// The waits before that, towards a place that is new: its router's lease set may not be found for a moment, or the
/// peer may not know of this node yet. A slow path still has five seconds for each answer, because WireGuard takes
/// answers to the last two handshakes.
const NEW_PLACE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(3)];

/// The handshakes that a peer has not answered, and when the next may go.
#[derive(Debug, Clone)]
pub(super) struct Retry {
    /// Makes the waits of different pairs of nodes differ.
    salt: u64,
    new_place: bool,
    unanswered: u32,
    last: Option<Instant>,
}

impl Retry {
    /// Towards a place that is new.
    pub(super) fn new(salt: u64) -> Self {
        Self { salt, new_place: true, unanswered: 0, last: None }
    }

    /// Handshakes that were not answered.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether a handshake may go.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now >= last + self.wait())
    }

    /// A handshake went.
    pub(super) fn note_called(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.last = Some(now);
    }

    /// The peer has given a sign of life: it is called again soon.
    pub(super) fn note_alive(&mut self) {
        self.new_place = false;
        self.unanswered = self.unanswered.min(1);
    }

    /// The peer has answered.
    pub(super) fn note_answered(&mut self) {
        self.new_place = false;
        self.unanswered = 0;
    }

    /// After the last handshake.
    fn wait(&self) -> Duration {
        let mut attempt = self.unanswered.saturating_sub(1);
        if self.new_place {
            if let Some(wait) = NEW_PLACE.get(attempt as usize) {
                return *wait;
            }
            attempt -= NEW_PLACE.len() as u32;
        }
        // Beyond six doublings it is the longest anyway. Up to a quarter more, so that those that lost one peer
        // together do not call it together.
        let jitter = self.salt.wrapping_add(self.unanswered.into()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let wait = (FIRST * (1 << attempt.min(6))).min(LAST - LAST / 5);
        wait + wait * jitter as u32 / 4 / (1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after each handshake the next may go.
    fn waits(retry: &mut Retry, count: usize) -> Vec<Duration> {
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..count {
            retry.note_called(now);
            let called = now;
            while !retry.is_due(now) {
                now += Duration::from_millis(10);
            }
            waits.push(now - called);
        }
        waits
    }

    #[test]
    fn waits_double_from_five_seconds_to_five_minutes() {
        for salt in 0..50 {
            let mut retry = Retry::new(salt << 50);
            let all = waits(&mut retry, 12);
            assert_eq!(all[..2], NEW_PLACE);
            for (wait, least) in all[2..].iter().zip([5, 10, 20, 40, 80, 160, 240, 240]) {
                let least = Duration::from_secs(least);
                assert!(*wait >= least && *wait <= (least + least / 4 + FIRST / 100).min(LAST), "{wait:?}");
            }
        }
    }

    #[test]
    fn different_pairs_wait_differently() {
        let mut others: Vec<_> =
            (0..20).map(|salt| waits(&mut Retry::new(salt << 40), 8)[7].as_millis()).collect();
        others.sort_unstable();
        others.dedup();
        assert!(others.len() > 10, "{others:?}");
    }

    #[test]
    fn a_sign_of_life_makes_the_wait_short_again() {
        let mut retry = Retry::new(7);
        waits(&mut retry, 10);
        retry.note_alive();
        let next = waits(&mut retry, 2);
        assert!(next[0] < FIRST * 3 && next[1] < FIRST * 6, "{next:?}");
        // The last was long ago: the next may go at once.
        retry.note_called(Instant::now());
        retry.note_alive();
        assert!(retry.is_due(Instant::now() + FIRST * 2));
        retry.note_answered();
        assert!(retry.unanswered() == 0 && waits(&mut retry, 1)[0] < FIRST * 2);
    }
}
