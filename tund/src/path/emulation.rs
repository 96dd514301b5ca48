//! Paths that the controller is made for, and the processes that they consist of. The unit tests drive the controller
//! over them in virtual time, and the laboratory emulates them between real nodes. It is not I2P.
//!
//! A path is a bottleneck with a drop-tail queue, then random or bursty loss, then delay with jitter that keeps order.

/// Pseudorandom numbers (SplitMix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0 to 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Returns a number of the standard normal distribution.
    pub fn gauss(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// What a path is like. Rates are in bits a second, times in seconds.
#[derive(Debug, Clone)]
pub struct Spec {
    /// At a time.
    pub rate: fn(f64) -> f64,
    /// Without jitter and queue.
    pub round_trip: f64,
    /// Both directions together.
    pub jitter: f64,
    /// Share of datagrams lost at random, in each direction.
    pub loss: f64,
    /// Mean length of a row of losses.
    pub burst: f64,
    /// Drop-tail, in time at the largest rate.
    pub queue: f64,
    /// Whether everything is lost at a time.
    pub outage: fn(f64) -> bool,
    /// What is added to the delay at a time.
    pub longer: fn(f64) -> f64,
    /// In the simulation alone.
    pub stalls: Option<Stalls>,
}

impl Spec {
    /// A path with a queue of one second and nothing else.
    #[must_use]
    pub fn new(rate: fn(f64) -> f64, round_trip: f64, loss: f64) -> Self {
        Self {
            rate,
            round_trip,
            jitter: 0.0,
            loss,
            burst: 1.0,
            queue: 1.0,
            outage: |_| false,
            longer: |_| 0.0,
            stalls: None,
        }
    }

    /// The largest rate.
    #[must_use]
    pub fn most(&self) -> f64 {
        [0.0, 30.0, 50.0].into_iter().map(self.rate).fold(0.0, f64::max)
    }
}

/// Nothing moves now and then, as on machines that are busy with other work: exponentially distributed pauses at
/// exponentially distributed distances. Means, seconds.
#[derive(Debug, Clone, Copy)]
pub struct Stalls {
    /// Distance.
    pub every: f64,
    /// Length.
    pub last: f64,
}

/// A correlated process (Ornstein-Uhlenbeck, 2 s), within bounds.
#[derive(Debug, Default)]
pub struct Jitter {
    value: f64,
    at: f64,
}

impl Jitter {
    /// Returns the delay that is added to what is sent now.
    pub fn next(&mut self, now: f64, bound: f64, random: &mut Random) -> f64 {
        if bound == 0.0 {
            return 0.0;
        }
        let keep = (-(now - self.at) / 2.0).exp();
        self.at = now;
        self.value = self.value * keep + random.gauss() * bound / 1.6 * (1.0 - keep * keep).max(0.0).sqrt();
        self.value.clamp(-bound, bound)
    }
}

/// Random losses, one by one or in rows.
#[derive(Debug, Default)]
pub struct Losses {
    losing: bool,
    lost_at: f64,
}

impl Losses {
    /// Whether what is sent now is lost.
    pub fn loses(&mut self, now: f64, spec: &Spec, random: &mut Random) -> bool {
        let Spec { loss, burst, .. } = *spec;
        let random = random.uniform();
        // A row of losses does not wait for packets.
        self.losing &= now - self.lost_at < 1.0;
        self.lost_at = now;
        if burst <= 1.0 {
            return random < loss;
        }
        self.losing =
            if self.losing { random >= 1.0 / burst } else { random < loss / (burst * (1.0 - loss)) };
        self.losing
    }
}

/// A private network on one machine.
#[must_use]
pub fn lab() -> Spec {
    Spec { queue: 0.1, ..Spec::new(|_| 60e6, 0.002, 0.0) }
}

/// The same while the routers and everything else share the processors, of which it gets three quarters.
#[must_use]
pub fn busy() -> Spec {
    Spec { queue: 0.3, stalls: Some(Stalls { every: 0.03, last: 0.01 }), ..lab() }
}

/// 4 Mbit/s, 300 ms, 0.5 % loss.
#[must_use]
pub fn good() -> Spec {
    Spec::new(|_| 4e6, 0.3, 0.005)
}

/// 1 Mbit/s, 800 ± 200 ms, 2 % loss.
#[must_use]
pub fn usual() -> Spec {
    Spec { jitter: 0.2, ..Spec::new(|_| 1e6, 0.8, 0.02) }
}

/// 256 kbit/s, 1.5 ± 0.5 s, 5 % loss in rows of four.
#[must_use]
pub fn bad() -> Spec {
    Spec { jitter: 0.5, burst: 4.0, ..Spec::new(|_| 256e3, 1.5, 0.05) }
}

/// When the rate of [`steps`] falls, and when it rises again, seconds.
pub const FALL: f64 = 40.0;
/// See [`FALL`].
pub const RISE: f64 = 60.0;

/// As [`good`], at a quarter of the rate for a while.
#[must_use]
pub fn steps() -> Spec {
    Spec::new(|now| if (FALL..RISE).contains(&now) { 1e6 } else { 4e6 }, 0.3, 0.005)
}

/// 1 Mbit/s, 300 ms, and 300 ms more every other 40 s.
#[must_use]
pub fn route() -> Spec {
    let longer = |now: f64| if (now / 40.0) as u64 % 2 == 1 { 0.3 } else { 0.0 };
    Spec { longer, ..Spec::new(|_| 1e6, 0.3, 0.01) }
}

/// As [`good`], with an outage of two seconds.
#[must_use]
pub fn outage() -> Spec {
    Spec { outage: |now| (OUTAGE..OUTAGE + 2.0).contains(&now), ..good() }
}

/// As [`good`], with an outage of 20 seconds.
#[must_use]
pub fn long_outage() -> Spec {
    Spec { outage: |now| (OUTAGE..OUTAGE + 20.0).contains(&now), ..good() }
}

/// When the outages begin, seconds.
pub const OUTAGE: f64 = 40.0;
