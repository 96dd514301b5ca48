//! Quantiles, and numbers for people.

use std::time::Duration;

/// What pinging showed, as `i2planctl --json ping` prints it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Pings {
    /// Echo requests sent.
    pub sent: u32,
    /// Replies that came in time.
    pub received: u32,
    /// Round-trip times of those.
    pub times: Option<Times>,
}

/// Quantiles of measured times.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Times {
    /// Milliseconds.
    pub min: f64,
    /// Milliseconds.
    pub median: f64,
    /// Milliseconds.
    pub p90: f64,
    /// Milliseconds.
    pub max: f64,
}

/// Megabits per second.
#[must_use]
pub fn mbit(bytes: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let bits = bytes as f64 * 8.0;
    bits / time.as_secs_f64().max(1e-9) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_megabits() {
        assert!((mbit(1_000_000, Duration::from_secs(1)) - 8.0).abs() < 1e-9);
    }
}
