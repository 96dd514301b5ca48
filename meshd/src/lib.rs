//! i2plan's unprivileged daemon.
//!
//! * [`core`]: membership, invites and gossip, no I/O.
//! * [`sam`]: the router's application protocol, no I/O.
//! * [`shell`]: files, sockets and the other daemons around them.
//! * [`walls`]: what the process may do.

pub mod core;
pub mod sam;
pub mod shell;
pub mod walls;
