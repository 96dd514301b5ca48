//! What a node may send to all peers together, where they share a bottleneck.

use std::collections::BTreeSet;
use std::time::Duration;

use super::controller::{CEILING, Controller};

/// How long a limit holds after the last sign of a shared bottleneck.
const HOLD: Duration = Duration::from_secs(30);

/// How much more may be sent after each second without a sign.
const GROWTH: f64 = 1.05;

/// Datagram bytes that may go at once.
const BURST: f64 = 3000.0;

/// The same at high rates, seconds: longer than a timer is late.
const BURST_TIME: f64 = 0.004;

/// A limit over the controllers of several peers.
///
/// Behind one router, the controllers of several peers would find their shares by chance. When two or more see a queue
/// within one round trip, the node sends them no more than what their paths carry together, and its turns between peers
/// make the shares equal. A peer whose own path is slow is limited by its own controller, and slows no other.
#[derive(Debug)]
pub struct NodeLimit {
    /// The peers that share a bottleneck, by number.
    members: BTreeSet<u32>,
    rate: f64,
    held_until: Duration,
    updated: Duration,
    handled: Duration,
    credit: f64,
    credited_at: Duration,
}

impl Default for NodeLimit {
    fn default() -> Self {
        Self {
            members: BTreeSet::new(),
            rate: CEILING,
            held_until: Duration::ZERO,
            updated: Duration::ZERO,
            handled: Duration::ZERO,
            credit: 0.0,
            credited_at: Duration::ZERO,
        }
    }
}

impl NodeLimit {
    /// Looks at the controllers of all peers, by number, after reports or ticks.
    pub fn update<'a>(
        &mut self,
        controllers: impl Iterator<Item = (u32, &'a Controller)> + Clone,
        now: Duration,
    ) {
        self.settle(now);
        let round =
            controllers.clone().map(|(_, controller)| controller.round_trip()).max().unwrap_or_default();
        let congested = |controller: &Controller| {
            controller.congested_at().is_some_and(|at| at > self.handled && at + round >= now)
        };
        let congested: Vec<u32> = controllers
            .clone()
            .filter_map(|(number, controller)| congested(controller).then_some(number))
            .collect();
        if congested.len() >= 2 {
            self.handled = now;
            self.held_until = now + HOLD;
            self.members.extend(congested);
            let members = controllers.filter(|(number, _)| self.members.contains(number));
            self.rate = members.map(|(_, controller)| controller.capacity()).sum();
        } else if now >= self.held_until {
            self.members.clear();
            self.rate = CEILING;
        } else {
            self.rate *= GROWTH.powf(now.saturating_sub(self.updated).as_secs_f64());
        }
        self.rate = self.rate.clamp(BURST, CEILING);
        self.updated = now;
    }

    /// When the next datagram to a peer may go.
    #[must_use]
    pub fn ready_at(&self, peer: u32, now: Duration) -> Duration {
        let credit = self.credit_at(now);
        let waits = credit < -1e-6 && self.members.contains(&peer);
        if waits { now + Duration::from_secs_f64(-credit / self.rate) } else { now }
    }

    /// Notes a datagram of `len` bytes to a peer.
    pub fn on_sent(&mut self, peer: u32, len: usize, now: Duration) {
        if self.members.contains(&peer) {
            self.settle(now);
            self.credit -= len as f64;
        }
    }

    fn credit_at(&self, now: Duration) -> f64 {
        (self.credit + self.rate * now.saturating_sub(self.credited_at).as_secs_f64())
            .min(BURST.max(BURST_TIME * self.rate))
    }

    fn settle(&mut self, now: Duration) {
        self.credit = self.credit_at(now);
        self.credited_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_sign_there_is_no_limit() {
        let mut limit = NodeLimit::default();
        let controllers = [None, None].map(|round_trip| Controller::new(round_trip, CEILING, Duration::ZERO));
        let now = Duration::from_secs(1);
        limit.update((0..).zip(&controllers), now);
        limit.on_sent(0, 1_000_000, now);
        assert_eq!(limit.ready_at(0, now), now);
    }

    #[test]
    fn a_limit_paces_its_members_grows_and_ends() {
        let members = BTreeSet::from([1, 2]);
        let mut limit = NodeLimit { members, rate: 10_000.0, held_until: HOLD, ..NodeLimit::default() };
        let now = Duration::from_secs(1);
        limit.on_sent(1, 5000, now);
        let ready = limit.ready_at(2, now);
        assert!((ready - now).as_secs_f64() > 0.19, "{ready:?}");
        assert_eq!((limit.ready_at(2, ready), limit.ready_at(3, now)), (ready, now));
        for second in 1..30 {
            limit.update([].into_iter(), Duration::from_secs(second));
        }
        assert!((20_000.0..50_000.0).contains(&limit.rate), "{}", limit.rate);
        limit.update([].into_iter(), HOLD);
        limit.on_sent(1, 1_000_000, HOLD);
        assert_eq!(limit.ready_at(1, HOLD), HOLD);
    }
}
