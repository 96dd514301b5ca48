//! Quantiles, and numbers for people.

use std::time::Duration;

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

impl Times {
    /// The quantiles of these; none of nothing.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort();
        let at = |part: usize| times.get((times.len() - 1) * part / 10).map(|time| time.as_secs_f64() * 1e3);
        if times.is_empty() {
            return None;
        }
        Some(Self { min: at(0)?, median: at(5)?, p90: at(9)?, max: at(10)? })
    }
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
    fn quantiles_are_of_the_sorted_times() {
        let times = Times::of((0..=10).rev().map(Duration::from_millis).collect()).unwrap();
        assert_eq!(times, Times { min: 0.0, median: 5.0, p90: 9.0, max: 10.0 });
        assert_eq!(Times::of(vec![]), None);
        assert!(Times::of(vec![Duration::from_millis(3)]).is_some_and(|times| times.p90 > 2.9));
    }

    #[test]
    fn rates_are_in_megabits() {
        assert!((mbit(1_000_000, Duration::from_secs(1)) - 8.0).abs() < 1e-9);
    }
}
