//! The I/O around the core: files, sockets, the other daemons, time.

mod containment;
mod control_path;
pub mod daemon;
pub mod event_log;
mod health;
mod host;
mod introductions;
mod observer;
mod pair_health;
mod renewal;
mod service;
mod session_health;
mod sessions;
mod sleep;
pub mod static_interface;
mod storage;
mod tunnel;
