//! `i2planctl ban`.

use std::path::Path;
use std::time::Duration;

use clap_complete::engine::ArgValueCandidates;
use i2plan_present::ban::{label, render, until};
use serde_json::json;

use super::completions;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::values::parse_ban_duration;

/// `i2planctl ban …`
#[derive(Debug, clap::Subcommand)]
pub enum BanCommand {
    /// Ban a member
    Add(BanAdd),

    /// List the bans
    List,

    /// Lift a ban
    Remove {
        /// The member: name, address, node id or the beginning of one
        #[arg(add = ArgValueCandidates::new(completions::banned))]
        node: String,
    },
}

/// `i2planctl ban add`
#[derive(Debug, clap::Args)]
pub struct BanAdd {
    /// The member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: String,

    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// For how long: 90s, 30m, 24h, 7d or plain seconds [default: until it is lifted]
    #[arg(long, value_name = "DURATION", value_parser = parse_ban_duration)]
    pub duration: Option<Duration>,
}

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
pub async fn list(socket: Option<&Path>, json: bool, dates: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let bans = node.bans().await?;
    if json {
        return output::json::print(&json!({ "bans": bans }));
    }
    if bans.is_empty() {
        output::note("nobody is banned");
        return Ok(());
    }
    output::print_as_it_is(&render(&bans, &output::look(dates)))
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
