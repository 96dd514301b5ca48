//! Echo requests and replies in words.

use std::io;
use std::time::Duration;

use i2plan_present::units;

use super::series::{Summary, Times};

/// The system's word for an error, without its number.
#[must_use]
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A time in milliseconds.
#[must_use]
pub fn millis(time: Duration) -> String {
    milliseconds(time.as_secs_f64() * 1e3)
}

fn milliseconds(count: f64) -> String {
    if count < 10.0 { format!("{count:.2} ms") } else { format!("{count:.0} ms") }
}

/// The summary of a series: loss, and quantiles of the round-trip times.
#[must_use]
pub fn render(title: &str, summary: &Summary, took: Duration) -> String {
    let Summary { sent, received, times } = summary;
    let lost = f64::from(sent.saturating_sub(*received)) * 100.0 / f64::from((*sent).max(1));
    let mut text = format!(
        "--- {title} ---\n{} sent, {received} received, {lost:.0}% lost, in {}\n",
        units::counted(u64::from(*sent), "request"),
        units::duration(took.as_secs())
    );
    if let Some(Times { min, median, p90, p99, max }) = times {
        let quantiles = [("min", min), ("median", median), ("p90", p90), ("p99", p99), ("max", max)]
            .map(|(name, time)| format!("{name} {}", milliseconds(*time)));
        text.push_str(&format!("round trip: {}\n", quantiles.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_loss_and_quantiles() {
        let times = Times { min: 0.5, median: 700.4, p90: 800.0, p99: 900.0, max: 1000.0 };
        let summary = Summary { sent: 10, received: 9, times: Some(times) };
        assert_eq!(
            render("web (10.42.0.1)", &summary, Duration::from_secs(70)),
            "--- web (10.42.0.1) ---\n10 requests sent, 9 received, 10% lost, in 1m 10s\n\
             round trip: min 0.50 ms, median 700 ms, p90 800 ms, p99 900 ms, max 1000 ms\n"
        );
        let nothing = render("x", &Summary { sent: 0, received: 0, times: None }, Duration::ZERO);
        assert_eq!(nothing, "--- x ---\n0 requests sent, 0 received, 0% lost, in 0s\n");
    }

    #[test]
    fn errors_are_in_the_systems_words() {
        assert_eq!(
            reason(&io::Error::from_raw_os_error(rustix::io::Errno::NETUNREACH.raw_os_error())),
            "network is unreachable"
        );
    }
}
