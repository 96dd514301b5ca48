//! i2plan's unprivileged daemon.
//!
//! * [`core`]: membership, invites and gossip, no I/O.
//! * [`shell`]: files, sockets and the other daemons around them.
//! * [`walls`]: what the process may do.

pub mod core;
pub mod shell;
pub mod walls;
