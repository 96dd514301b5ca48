//! What the process may do, and when: one file for each system, all with the same functions.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(target_os = "openbsd")]
pub use openbsd::*;
