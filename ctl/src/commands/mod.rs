//! One file for each command.

#[cfg(target_os = "linux")]
pub mod change_passphrase;
pub mod doctor;
pub mod invite;
pub mod join;
pub mod key;
pub mod peers;
pub mod status;
#[cfg(target_os = "linux")]
pub mod up;
pub mod version;
