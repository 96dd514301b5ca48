//! `--json`.

use i2plan_ipc::escape::escape_json;
use serde::Serialize;

use crate::failure::Failure;

/// Prints a value as JSON.
///
/// # Errors
/// If it cannot be written.
pub fn print(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::internal(format!("cannot write JSON: {error}")))?;
    text.push('\n');
    super::print(&escape_json(&text))
}

/// Prints a value as JSON in one line, for those who read one value after the other.
///
/// # Errors
/// If it cannot be written.
pub fn print_line(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value)
        .map_err(|error| Failure::internal(format!("cannot write JSON: {error}")))?;
    text.push('\n');
    super::print(&escape_json(&text))
}
