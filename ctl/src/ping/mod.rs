//! Echo requests over ICMP: what is sent, and what the answers say.
//!
//! * [`echo`]: requests and replies as bytes.
//! * [`series`]: what is sent when, what is lost, and the figures in the end.
//! * [`socket`]: the socket, with or without privileges.
//! * [`summary`]: the figures in words.

pub mod echo;
pub mod series;
pub mod socket;
pub mod summary;
