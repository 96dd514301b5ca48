//! What is known of a node in words and rows, for commands, the terminal interface and web pages.
//!
//! Nothing here asks a node, prints, or draws.

pub mod ban;
pub mod event;
pub mod finding;
pub mod invite;
pub mod join;
pub mod key;
pub mod look;
pub mod member;
pub mod order;
pub mod peer;
pub mod qr;
pub mod remedy;
pub mod route;
pub mod setting;
pub mod status;
pub mod table;
pub mod text;
pub mod tree;
pub mod units;

#[cfg(test)]
pub(crate) mod tests {
    use i2plan_ipc::api::meshd::{Peer, Status};

    /// A member with these inviters, the founder first.
    pub(crate) fn peer(node_id: &str, inviters: &[&str]) -> Peer {
        super::order::tests::peer(node_id, inviters)
    }

    /// A node with a network that it has founded.
    pub(crate) fn status() -> Status {
        super::status::tests::status()
    }
}
