//! One file for each command.

pub mod invite;
pub mod join;
pub mod key;
pub mod peers;
pub mod status;
pub mod up;
pub mod version;
