//! Logging of a daemon: text on standard error, which systemd and the supervisor collect.

use std::io::IsTerminal as _;

use thiserror::Error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The filter's variable.
pub const VARIABLE: &str = "I2PLAN_LOG";

/// A filter that cannot be read.
#[derive(Debug, Error)]
#[error(
    "{VARIABLE}={value:?} is not a log filter: {reason}; write a level (error, warn, info, debug) or target=level, …"
)]
pub struct FilterError {
    value: String,
    reason: String,
}

/// The filter without the variable. boringtun's own messages do not say which peer they are about, and call it
/// an error when one is away; i2plan tells of peers itself.
const DEFAULT: &str = "info,boringtun=off";

/// Starts logging, filtered by `I2PLAN_LOG`.
///
/// # Errors
/// [`FilterError`] if the variable holds no filter.
pub fn init() -> Result<(), FilterError> {
    let value = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
    let filter: Targets = value.parse().map_err(|error: tracing_subscriber::filter::ParseError| {
        FilterError { value, reason: error.to_string() }
    })?;
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    );
    tracing_subscriber::registry().with(filter).with(format).init();
    Ok(())
}
