//! `i2planctl ban`.

use std::path::Path;

use serde_json::json;

use crate::args::BanAdd;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::ban::{label, render, until};

/// Bans a member on this node.
///
/// # Errors
/// If there is no such member, or the node refuses.
pub async fn add(socket: Option<&Path>, json: bool, args: &BanAdd) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let node_id = node.find_member(&args.node).await?.node_id;
    let ban = node.add_ban(node_id, args.reason.clone().unwrap_or_default(), args.duration).await?;
    if json {
        return output::json::print(&json!({ "ban": ban }));
    }
    output::print(&format!("banned {} {}\n", label(&ban), until(&ban)))
}

/// Lists the bans.
///
/// # Errors
/// If the node does not answer.
pub async fn list(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let bans = node.bans().await?;
    if json {
        return output::json::print(&json!({ "bans": bans }));
    }
    if bans.is_empty() {
        output::note("nobody is banned");
        return Ok(());
    }
    output::print(&render(&bans, output::terminal_width()))
}

/// Lifts a ban.
///
/// # Errors
/// If there is none, or the node does not answer.
pub async fn remove(socket: Option<&Path>, json: bool, name: &str) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let node_id = node.find_banned(name).await?;
    let ban = node.remove_ban(node_id).await?;
    if json {
        return output::json::print(&json!({ "ban": ban }));
    }
    output::print(&format!("{} is not banned any more\n", label(&ban)))
}
