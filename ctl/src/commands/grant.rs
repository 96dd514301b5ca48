//! `i2planctl grant`.

use std::path::Path;

use serde_json::json;

use super::member::find;
use crate::args::Grant;
use crate::daemon;
use crate::failure::Failure;
use crate::output::{self, clean, units};

/// Delegates more addresses to a member that this node has invited.
///
/// # Errors
/// If there is no such member, this node has not invited it, or has too few addresses left.
pub async fn run(socket: Option<&Path>, json: bool, args: &Grant) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let member = find(&mut node, &args.node).await?;
    let grant = node.grant(member.node_id, args.addresses).await?;
    if json {
        return output::json::print(&json!({ "grant": grant }));
    }
    output::print(&format!(
        "{} holds {}: {}\n",
        clean(&member.name),
        units::addresses(grant.addresses),
        clean(&grant.ranges.join(", "))
    ))
}
