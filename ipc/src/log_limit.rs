//! Lines about something that goes wrong again and again.
//!
//! Nothing here reads a clock: time is what has passed since some moment that the caller has fixed.

use std::time::Duration;

/// After this the same reason is worth another line.
const REPEAT: Duration = Duration::from_secs(3600);

/// Reasons that are told apart. Where there are more within [`REPEAT`], as when each names something else, the others have
/// to wait.
const MAX_REASONS: usize = 4;

/// Says which failures of something that is tried again and again are worth a line at `warn`: the first, one for another
/// reason, and one every hour. The rest belongs into the log at `debug`.
///
/// A success changes nothing: what fails every minute for the same reason is told every hour, whether or not it works in
/// between.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// Reasons with the times of their last lines.
    told: Vec<(String, Duration)>,
}

impl LogLimit {
    /// Notes a failure; whether it is worth a line.
    pub fn admit(&mut self, reason: &str, now: Duration) -> bool {
        self.told.retain(|(_, at)| now < at.saturating_add(REPEAT));
        if self.told.len() >= MAX_REASONS || self.told.iter().any(|(told, _)| told == reason) {
            return false;
        }
        self.told.push((reason.to_owned(), now));
        true
    }
}

/// Logs a failure at `warn` if the [`LogLimit`] admits its reason, and else at `debug`.
///
/// ```
/// # use std::time::Duration;
/// let (mut limit, now) = (i2plan_ipc::log_limit::LogLimit::default(), Duration::ZERO);
/// i2plan_ipc::warn_limited!(limit, now, "no bridge", retry_ms = 2000, "a session is down");
/// ```
#[macro_export]
macro_rules! warn_limited {
    ($limit:expr, $now:expr, $reason:expr, $($line:tt)+) => {
        if $limit.admit($reason, $now) {
            ::tracing::warn!(error = %$reason, $($line)+);
        } else {
            ::tracing::debug!(error = %$reason, $($line)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    fn lines(reason: impl Fn(u64) -> String, seconds: u64) -> Vec<u64> {
        let mut limit = LogLimit::default();
        (0..seconds).filter(|at| limit.admit(&reason(*at), Duration::from_secs(*at))).collect()
    }

    #[test]
    fn a_reason_is_told_every_hour() {
        assert_eq!(lines(|_| "refused".to_owned(), 2 * 60 * MINUTE + 1), [0, 60 * MINUTE, 2 * 60 * MINUTE]);
    }

    #[test]
    fn another_reason_is_told_when_it_comes() {
        let reason = |at| if at < 100 { "refused" } else { "no answer" }.to_owned();
        assert_eq!(lines(reason, 60 * MINUTE), [0, 100]);
        // Also if they alternate.
        assert_eq!(lines(|at| (at % 2).to_string(), 60 * MINUTE), [0, 1]);
    }

    #[test]
    fn reasons_without_end_are_bounded() {
        assert!(lines(|at| at.to_string(), 24 * 60 * MINUTE).len() <= 24 * MAX_REASONS);
    }
}
