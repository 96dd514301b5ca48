//! Starts with the privilege to make an interface and nothing else, and gives that up too. One file for each
//! system, all with the same `start` and `drop_all`.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "linux")]
pub use linux::{PrivilegeError, drop_all, start};
#[cfg(target_os = "openbsd")]
pub(crate) use openbsd::as_root;
#[cfg(target_os = "openbsd")]
pub use openbsd::{PrivilegeError, drop_all, start};
