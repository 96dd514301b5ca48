//! The I/O around the core: files, sockets, the other daemons, time.

mod containment;
pub mod daemon;
mod health;
mod host;
mod observer;
pub mod row;
mod service;
mod sessions;
mod stall;
mod storage;
mod tunnel;
