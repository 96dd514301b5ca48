//! What is known of a node in words and rows, for commands, the terminal interface and whatever shows a node.
//!
//! Nothing here asks a node, prints, or draws.

pub mod member;
pub mod table;
pub mod text;
pub mod units;
