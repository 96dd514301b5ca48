//! What `i2planctl up` adds to the supervisor: where its lines go, and what it tells a user.
//!
//! * [`event`]: what happens, as a line or as JSON.
//! * `failure`: the supervisor's errors, with advice that names options and commands.
//! * [`log`], [`stream`]: the log file, or a terminal in its place.

pub mod event;
mod failure;
pub mod log;
pub mod stream;

/// This program's name as a source of lines.
pub const NAME: &str = "i2planctl";
