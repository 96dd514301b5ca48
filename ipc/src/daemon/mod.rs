//! What every daemon does at its start, before its own work.

pub mod activation;
pub mod hardening;
pub mod logging;
pub mod notify;
pub mod program;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(target_os = "openbsd")]
#[path = "openbsd.rs"]
pub mod sandbox;
pub mod users;
