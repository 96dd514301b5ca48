//! Waits for what comes about by itself.

use std::time::{Duration, Instant};

use crate::Failure;

/// How often a condition is looked at again.
pub const POLL: Duration = Duration::from_millis(100);

/// Waits until something is so.
///
/// # Errors
/// If it does not become so in time; with why the last look at it failed, if it did.
pub async fn until(
    what: &str,
    deadline: Duration,
    condition: impl AsyncFn() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let result = condition().await;
        if result == Ok(true) {
            return Ok(());
        }
        if started.elapsed() > deadline {
            let reason = result.err().map(|failure| format!(" ({failure})")).unwrap_or_default();
            return Err(Failure::new(format!("not within {} s: {what}{reason}", deadline.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
}
