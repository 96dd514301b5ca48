//! I2P as a simulation sees it: datagrams that take seconds, get lost, overtake each other and come twice.
//!
//! All of it is assumed, and none of it measured: a one-way delay of 0.3 to 3 s, drawn from a log-normal distribution cut
//! to that range, is what users of I2P report of the Internet. The project's own routers are on one machine, where a
//! datagram takes a millisecond and is lost only if more are sent than the router can carry (`lab bench`).

use std::collections::HashSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Median of the one-way delay, seconds.
const MEDIAN: f64 = 0.8;

/// Spread of its logarithm.
const SPREAD: f64 = 0.6;

/// Least and greatest one-way delay, seconds.
const RANGE: (f64, f64) = (0.3, 3.0);

/// One datagram in so many comes twice.
const DUPLICATED: f64 = 0.005;

/// The network between the nodes, by their numbers.
#[derive(Debug)]
pub struct Net {
    rng: StdRng,
    /// How likely a datagram is lost.
    pub loss: f64,
    /// Nodes whose datagrams reach only each other.
    pub island: HashSet<usize>,
    /// Nodes whose router is down.
    pub down: HashSet<usize>,
}

impl Net {
    /// A network that loses this part of its datagrams.
    #[must_use]
    pub fn new(seed: u64, loss: f64) -> Self {
        let rng = StdRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b21);
        Self { rng, loss, island: HashSet::new(), down: HashSet::new() }
    }

    /// After which times a datagram arrives: never, once, or twice.
    pub fn send(&mut self, from: usize, to: usize) -> Vec<Duration> {
        let cut = self.is_cut(from, to);
        // Drawn in any case, so that a cut changes nothing for the others.
        let lost = self.rng.random_bool(self.loss);
        let copies = if self.rng.random_bool(DUPLICATED) { 2 } else { 1 };
        let delays: Vec<_> = (0..copies).map(|_| self.delay()).collect();
        if cut || lost { Vec::new() } else { delays }
    }

    /// Whether no datagram gets from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        let apart = self.island.contains(&from) != self.island.contains(&to);
        apart || self.down.contains(&from) || self.down.contains(&to)
    }

    /// One way.
    pub fn delay(&mut self) -> Duration {
        // Box and Muller's transform.
        let (u, v): (f64, f64) = (self.rng.random_range(f64::EPSILON..1.0), self.rng.random());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        Duration::from_secs_f64((MEDIAN * (SPREAD * normal).exp()).clamp(RANGE.0, RANGE.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_and_losses_are_as_documented() {
        let mut net = Net::new(1, 0.2);
        let mut delays = Vec::new();
        let (mut lost, mut twice) = (0, 0);
        for _ in 0..20_000 {
            let arrivals = net.send(0, 1);
            lost += usize::from(arrivals.is_empty());
            twice += usize::from(arrivals.len() == 2);
            delays.extend(arrivals);
        }
        delays.sort();
        let median = delays[delays.len() / 2].as_secs_f64();
        assert!((0.75..0.85).contains(&median), "{median}");
        assert!(delays[0].as_secs_f64() >= 0.3 && delays[delays.len() - 1].as_secs_f64() <= 3.0);
        assert!((3_700..4_300).contains(&lost) && (40..140).contains(&twice), "{lost} lost, {twice} twice");
    }

    #[test]
    fn an_island_reaches_only_itself() {
        let mut net = Net::new(1, 0.0);
        net.island = [1, 2].into();
        assert!(net.send(0, 1).is_empty() && net.send(2, 0).is_empty());
        assert!(!net.send(1, 2).is_empty() && !net.send(0, 3).is_empty());
    }
}
