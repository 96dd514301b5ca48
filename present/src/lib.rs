//! What is known of a node in words and rows, for commands, the terminal interface and web pages.
//!
//! Nothing here asks a node, prints, or draws.

pub mod ban;
pub mod doctor;
pub mod event;
pub mod finding;
pub mod invite;
pub mod join;
pub mod key;
pub mod look;
pub mod member;
pub mod order;
pub mod owner;
pub mod peer;
pub mod qr;
pub mod remedy;
pub mod route;
pub mod setting;
pub mod static_interface;
pub mod status;
pub mod table;
pub mod text;
pub mod tree;
pub mod units;
