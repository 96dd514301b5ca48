//! The I/O around the core: files, sockets, the other daemons, time.

mod containment;
pub mod daemon;
pub mod event_log;
mod health;
mod host;
mod observer;
mod renewal;
mod service;
mod sessions;
mod stall;
mod storage;
mod tunnel;
