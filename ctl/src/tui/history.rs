//! What the graphs are drawn from: one sample a second.

use std::collections::VecDeque;

/// One second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Bytes received in a second.
    pub(super) rx: u64,
    /// Bytes sent in a second.
    pub(super) tx: u64,
    /// Milliseconds of a round trip, if one was measured.
    pub(super) rtt: Option<u64>,
}

/// Seconds without a sample that count as late, not as missing.
const LATE: u64 = 3;

/// The latest samples, oldest first; none for seconds in which the node did not answer.
#[derive(Debug)]
pub(super) struct History {
    samples: VecDeque<Option<Sample>>,
    capacity: usize,
    /// The second of the last of them.
    newest: u64,
}

impl History {
    /// An empty one, that keeps so many seconds.
    pub(super) fn new(capacity: usize) -> Self {
        Self { samples: VecDeque::new(), capacity, newest: 0 }
    }

    /// Takes in the sample of a second.
    pub(super) fn push(&mut self, second: u64, sample: Sample) {
        if self.samples.is_empty() {
            self.newest = second.saturating_sub(1);
        }
        let missing = second.saturating_sub(self.newest);
        let fill = if missing <= LATE { Some(sample) } else { None };
        // No more than are kept, however long it was.
        for _ in 1..missing.min(self.capacity as u64) {
            self.append(fill);
        }
        if missing > 0 {
            self.append(Some(sample));
        } else if let Some(last) = self.samples.back_mut() {
            *last = Some(sample);
        }
        self.newest = self.newest.max(second);
    }

    fn append(&mut self, sample: Option<Sample>) {
        if self.samples.len() == self.capacity {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The last sample.
    pub(super) fn latest(&self) -> Option<Sample> {
        self.samples.back().copied().flatten()
    }

    /// How many seconds each of `columns` stands for.
    pub(super) fn each(columns: usize, seconds: u64) -> u64 {
        seconds.div_ceil(columns.max(1) as u64).max(1)
    }

    /// One value for each of `columns`, which stand for `seconds` up to `now` together. A column is the mean of
    /// what it stands for, and begins at a multiple of its length, so that it does not change once it is over.
    pub(super) fn columns(
        &self,
        columns: usize,
        seconds: u64,
        now: u64,
        value: impl Fn(&Sample) -> Option<u64>,
    ) -> Vec<Option<u64>> {
        let each = Self::each(columns, seconds);
        let last = now / each;
        (0..columns as u64)
            .rev()
            .map(|back| {
                let first = last.checked_sub(back)? * each;
                let values: Vec<_> =
                    (first..first + each).filter_map(|second| value(&self.at(second)?)).collect();
                let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
                u64::try_from(sum.checked_div(values.len() as u128)?).ok()
            })
            .collect()
    }

    fn at(&self, second: u64) -> Option<Sample> {
        let back = usize::try_from(self.newest.checked_sub(second)?).ok()?;
        self.samples.get(self.samples.len().checked_sub(back + 1)?).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rx: u64) -> Sample {
        Sample { rx, tx: 0, rtt: None }
    }

    fn rx(sample: &Sample) -> Option<u64> {
        Some(sample.rx)
    }

    #[test]
    fn late_samples_leave_no_gap_and_missing_ones_do() {
        let mut history = History::new(10);
        for (second, value) in [(100, 1), (101, 2), (103, 4), (108, 9)] {
            history.push(second, sample(value));
        }
        let expected = [None, Some(1), Some(2), Some(4), Some(4), None, None, None, None, Some(9)];
        assert_eq!(history.columns(10, 10, 108, rx), expected);
        assert_eq!(history.columns(3, 3, 109, rx), [None, Some(9), None]);
    }

    #[test]
    fn a_column_that_is_over_stays_as_it_is() {
        let mut history = History::new(100);
        for second in 0..=10 {
            history.push(second, sample(second));
        }
        assert_eq!(history.columns(2, 10, 10, rx), [Some(7), Some(10)]);
        history.push(11, sample(20));
        assert_eq!(history.columns(2, 10, 11, rx), [Some(7), Some(15)]);
    }

    #[test]
    fn no_more_is_kept_than_the_capacity() {
        let mut history = History::new(4);
        for second in [0, 1, 2, 3, 4, u64::MAX] {
            history.push(second, sample(1));
        }
        assert_eq!(history.samples.len(), 4);
        assert_eq!(history.columns(0, 10, 4, rx), []);
    }
}
