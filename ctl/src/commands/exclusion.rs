//! `i2planctl revoke` and `i2planctl leave`.

use std::path::Path;

use serde_json::json;

use super::member::{confirm, find};
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output::{self, clean, units};

/// Takes a member's membership back.
///
/// # Errors
/// If there is no such member, this node may not, or it was not confirmed.
pub async fn revoke(socket: Option<&Path>, json: bool, name: &str, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let member = find(&mut node, name).await?;
    let name = clean(&member.name).into_owned();
    let consequences = format!(
        "{name} ({}) and all who were invited over it will be out of the network, for good and for all members",
        clean(&member.node_id)
    );
    confirm(&consequences, &member.name, yes)?;
    let nodes = node.revoke(member.node_id).await?;
    if json {
        return output::json::print(&json!({ "revoked": nodes }));
    }
    let mut text = format!("{name} is revoked: {} out\n", units::counted(nodes.len() as u64, "member"));
    for node in nodes {
        text.push_str(&clean(&node));
        text.push('\n');
    }
    output::print(&text)
}

/// Leaves the network.
///
/// # Errors
/// If the node is in none, or it was not confirmed.
pub async fn leave(socket: Option<&Path>, json: bool, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let status = node.status().await?;
    if status.network.is_none() {
        return Err(Failure::new(Kind::Conflict, "this node is in no network"));
    }
    let consequences = "this node will be out of its network, and forget it: invites, bans and members too; to come \
                        back it needs a new invite";
    confirm(consequences, &status.name, yes)?;
    let network = node.leave().await?;
    if json {
        return output::json::print(&json!({ "left": network }));
    }
    output::print(&format!("left network {}\n", clean(&network)))
}
