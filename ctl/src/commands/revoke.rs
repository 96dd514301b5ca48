//! `i2planctl revoke`.

use std::path::Path;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::api::meshd;
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::member::{Candidate, LookupError, is_node_id};
use i2plan_present::member::short;
use i2plan_present::order::consequences;
use i2plan_present::text::clean;
use i2plan_present::tree::grow;
use i2plan_present::units;
use serde_json::json;

use super::completions;
use super::confirm::can_ask;
use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Only the network's founder and the member's other inviters can. The members below it, which it has invited directly or \
not, are out with it. What is revoked is the certificate, not the identity: any member can invite the node again. Its \
addresses are not delegated to another node for 30 days.";

/// `i2planctl revoke`
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Revokes a member's certificate.
///
/// # Errors
/// If there is no such member, this node may not, or it was not confirmed.
pub async fn run(socket: Option<&Path>, json: bool, args: &Revoke) -> Result<(), Failure> {
    let Revoke { node: name, yes } = args;
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
    can_ask(*yes)?;
    let request = meshd::Revoke { node_id: member.node_id.clone() };
    let tree = grow(&node.status().await?, &peers);
    let look = output::look(false);
    let text = |target: &OrderTarget| Ok(consequences(&orders::meant(target, name)?, &peers, &tree, &look));
    let nodes = orders::carry_out(&mut node, request, text, called, *yes).await?.reply;
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
