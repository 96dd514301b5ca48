//! i2plan's unprivileged daemon.
//!
//! * [`core`]: membership, invites and gossip, no I/O.
//! * [`shell`]: files, sockets and the other daemons around them.
//! * [`sandbox`]: what the process may do.

pub mod core;
pub mod sandbox;
pub mod shell;
