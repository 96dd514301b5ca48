//! Times, counted by length, as Prometheus takes them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets.
pub const BOUNDS: [Duration; 11] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Times, counted by length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many there are in each bucket that are in none before it.
    pub buckets: [u64; BOUNDS.len()],
    /// How many there are, those that are longer than all bounds among them.
    pub count: u64,
    /// Microseconds that they took together.
    pub micros: u64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, time: Duration) {
        if let Some(bucket) = BOUNDS.iter().position(|bound| time <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros = self.micros.saturating_add(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it_or_in_none() {
        let mut histogram = Histogram::default();
        for millis in [1, 2, 100_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!((histogram.buckets[..3].to_vec(), histogram.count), (vec![1, 1, 0], 3));
        assert_eq!(histogram.micros, 100_003_000);
    }
}
