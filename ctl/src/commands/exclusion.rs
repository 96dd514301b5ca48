//! `i2planctl revoke` and `i2planctl leave`.

use std::path::Path;

use i2plan_ipc::api::meshd::{Leave, Revoke};
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::member::{Candidate, LookupError, is_node_id};
use serde_json::json;

use super::confirm::can_ask;
use super::orders;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::present::member::short;
use crate::present::order::consequences;
use crate::present::text::clean;
use crate::present::units;

/// Revokes a member's certificate.
///
/// # Errors
/// If there is no such member, this node may not, or it was not confirmed.
pub async fn revoke(socket: Option<&Path>, json: bool, name: &str, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let peers = node.peers().await?;
    let member = match node.find_among(&peers, name).await {
        // A node that this one has invited, and whose record it does not know.
        Err(LookupError::Unknown { .. }) if is_node_id(name) => {
            Candidate { node_id: name.to_ascii_lowercase(), name: String::new(), addresses: Vec::new() }
        }
        found => found?,
    };
    let called = if member.name.is_empty() { short(&member.node_id) } else { &member.name };
    can_ask(yes)?;
    let request = Revoke { node_id: member.node_id.clone() };
    let text = |target: &OrderTarget| Ok(consequences(&orders::meant(target, name)?, &peers));
    let nodes = orders::carry_out(&mut node, request, text, called, yes).await?.reply;
    let name = clean(called).into_owned();
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
        return Err(Failure::new(Kind::Conflict, "this node is in no network")
            .with_hint("if keyd still signs for one, `i2planctl key forget-network` has it forget that"));
    }
    let consequences = "this node will be out of its network, and forget it: invites, bans and members too; those that \
                        it has invited stay members; to come back it needs a new invite";
    can_ask(yes)?;
    let text = |_: &OrderTarget| Ok(consequences.to_owned());
    let network = orders::carry_out(&mut node, Leave, text, &status.name, yes).await?.reply;
    if json {
        return output::json::print(&json!({ "left": network }));
    }
    output::print(&format!("left network {}\n", clean(&network)))
}
