//! One file for each command.

pub mod ban;
#[cfg(target_os = "linux")]
pub mod change_passphrase;
pub mod completions;
pub mod config;
pub mod confirm;
pub mod doctor;
pub mod endpoint;
pub mod events;
pub mod grant;
pub mod invite;
pub mod join;
pub mod key;
pub mod leave;
pub mod metrics;
pub mod names;
#[cfg(target_os = "linux")]
pub mod new_keys;
pub mod orders;
#[cfg(target_os = "linux")]
pub mod peer;
pub mod peers;
pub mod ping;
pub mod revoke;
pub mod routes;
pub mod rpc;
#[cfg(target_os = "linux")]
mod static_routes;
pub mod status;
pub mod tree;
pub mod up;
pub mod version;
pub mod web;
pub mod wg;
pub mod whois;
