//! What daemons have in common beside their sockets: their start, before their own work, and files that outlive them.

pub mod activation;
pub mod descriptors;
pub mod hardening;
pub mod logging;
pub mod notify;
pub mod panics;
pub mod program;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(target_os = "openbsd")]
#[path = "openbsd.rs"]
pub mod sandbox;
pub mod signals;
pub mod state_dir;
pub mod tasks;
mod text;
pub mod trusted;
pub mod users;
