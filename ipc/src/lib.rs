//! How i2plan's processes speak to each other.
//!
//! Each daemon listens on unix stream sockets: `keyd` on one for each role, the others on one. What may be asked of it, by whom, and what it answers is
//! one file each: [`api::keyd`], [`api::meshd`], [`api::tund`]; what `keyd` signs only for an administrator is [`api::order`]. Requests and replies are MessagePack in
//! length-delimited [`frame`]s; the first frame of a connection says version and role ([`hello`]). Who may
//! claim which role is decided by the peer credentials of the socket ([`access`]).
//!
//! What leads to the I2P router's SAM bridge, and what does not, is [`bridge`]'s to tell.
//!
//! [`administrator`] takes orders to `keyd`; [`node`] is for programs that use a running node, and [`member`] says whom
//! they mean by a name; [`names`] says what members are called in the DNS.

pub mod access;
pub mod administrator;
pub mod api;
pub mod bridge;
pub mod client;
pub mod connection_quota;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod error;
pub mod escape;
#[cfg(feature = "fixtures")]
pub mod fixtures;
pub mod frame;
pub mod hello;
pub mod histogram;
pub mod log_limit;
pub mod member;
pub mod names;
pub mod node;
pub mod notification;
pub mod passphrase;
pub mod paths;
pub mod rate;
pub mod remedy;
pub mod secret;
pub mod server;
mod socket;
pub mod terminal;
pub mod version;

pub use client::Client;
pub use error::{ApiError, ErrorKind};
pub use hello::Role;
pub use node::Node;
pub use remedy::Remedy;
pub use socket::ByteSocket;
