//! Quantiles, and numbers for people.

use std::time::Duration;

/// What pinging showed, and quantiles of measured times.
pub use i2planctl::ping::series::{Summary as Pings, Times};

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
