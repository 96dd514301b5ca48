//! One file for each command.

pub mod doctor;
pub mod invite;
pub mod join;
pub mod key;
pub mod peers;
pub mod status;
#[cfg(target_os = "linux")]
pub mod up;
pub mod version;
