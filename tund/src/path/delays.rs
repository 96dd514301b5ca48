//! What the delays of datagrams say: the shortest, how far they vary, and what has been added lately.

use std::collections::VecDeque;

/// Values that are kept of each kind.
const MAX_VALUES: usize = 256;

/// The smallest value of a sliding window of time.
#[derive(Debug)]
pub(super) struct WindowedMin {
    window: f64,
    /// Time of the first value and smallest value of each part of the window.
    parts: VecDeque<(f64, f64)>,
}

impl WindowedMin {
    /// Over so many seconds.
    pub(super) fn new(window: f64) -> Self {
        Self { window, parts: VecDeque::new() }
    }

    pub(super) fn push(&mut self, now: f64, value: f64) {
        match self.parts.back_mut() {
            Some((since, min)) if now - *since < self.window / 64.0 => *min = min.min(value),
            _ => self.parts.push_back((now, value)),
        }
        while self.parts.front().is_some_and(|(since, _)| *since < now - self.window) {
            self.parts.pop_front();
        }
    }

    pub(super) fn min(&self) -> Option<f64> {
        self.parts.iter().map(|(_, min)| *min).reduce(f64::min)
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }
}

/// Forward one-way delays, whose clocks differ by an unknown constant.
#[derive(Debug)]
pub(super) struct Delays {
    base: WindowedMin,
    /// The smallest delay of each of the last reports.
    recent: VecDeque<(f64, f64)>,
    /// Minima over half a round trip, and whether more was sent than the path carries by estimate.
    minima: VecDeque<(f64, f64, bool)>,
    jitter: f64,
}

/// How long the shortest delay counts, seconds: minutes pass between changes of I2P tunnels, and clocks drift by less
/// than 2 ms in this time.
pub(super) const MEMORY: f64 = 30.0;

impl Delays {
    pub(super) fn new() -> Self {
        Self { base: WindowedMin::new(MEMORY), recent: VecDeque::new(), minima: VecDeque::new(), jitter: 0.0 }
    }

    /// Takes the smallest delay of a report.
    pub(super) fn push(&mut self, now: f64, delay: f64) {
        self.base.push(now, delay);
        self.recent.push_back((now, delay));
        if self.recent.len() > MAX_VALUES {
            self.recent.pop_front();
        }
    }

    /// The smallest delay of the last `span` seconds, above the base.
    pub(super) fn added(&self, now: f64, span: f64) -> f64 {
        match (self.lately(now, span), self.base.min()) {
            (Some(lately), Some(base)) => lately - base,
            _ => 0.0,
        }
    }

    fn lately(&self, now: f64, span: f64) -> Option<f64> {
        let recent = self.recent.iter().rev().take_while(|(at, _)| *at >= now - span);
        recent.map(|(_, delay)| *delay).reduce(f64::min)
    }

    /// How far minima over half a round trip lie above the smallest, at the median, seconds.
    pub(super) fn jitter(&self) -> f64 {
        self.jitter
    }

    /// Measures the jitter anew if half a round trip has passed; `raised` is whether more was sent than the path
    /// carries by estimate.
    pub(super) fn measure_jitter(&mut self, now: f64, round_trip: f64, raised: bool) {
        let memory = MEMORY.max(20.0 * round_trip);
        let span = (round_trip / 2.0).max(memory / MAX_VALUES as f64);
        if self.minima.back().is_some_and(|(at, ..)| now - at < span) {
            return;
        }
        let Some(lately) = self.lately(now, round_trip / 2.0) else { return };
        self.minima.push_back((now, lately, raised));
        while self.minima.front().is_some_and(|(at, ..)| *at < now - memory) {
            self.minima.pop_front();
        }
        let calm = self.minima.iter().filter(|(.., raised)| !raised);
        let mut calm: Vec<f64> = calm.map(|(_, delay, _)| *delay).collect();
        calm.sort_unstable_by(f64::total_cmp);
        self.jitter = match calm.first() {
            Some(smallest) if calm.len() > 3 => (calm[calm.len() / 2] - smallest).min(round_trip / 4.0),
            _ => 0.0,
        };
    }

    /// Takes the smallest delay of the last `span` seconds as the base: the path has become longer.
    pub(super) fn rebase(&mut self, now: f64, span: f64) {
        let lately = self.lately(now, span);
        self.forget();
        if let Some(delay) = lately {
            self.push(now, delay);
        }
    }

    /// Forgets all delays, but not how far they vary.
    pub(super) fn forget_base(&mut self) {
        self.base.clear();
        self.recent.clear();
    }

    /// Forgets all.
    pub(super) fn forget(&mut self) {
        self.forget_base();
        self.minima.clear();
        self.jitter = 0.0;
    }
}
