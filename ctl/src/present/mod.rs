//! What is known of a node in words and rows, for commands, the terminal interface and whatever shows a node.
//!
//! Nothing here asks a node, prints, or draws.

pub mod ban;
pub mod event;
pub mod finding;
pub mod invite;
pub mod join;
pub mod key;
pub mod member;
pub mod order;
pub mod peer;
pub mod ping;
pub mod remedy;
pub mod route;
pub mod setting;
pub mod static_interface;
pub mod status;
pub mod table;
pub mod text;
pub mod units;
