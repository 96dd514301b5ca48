//! `i2planctl ban`.

use std::path::Path;
use std::time::Duration;

use i2plan_ipc::api::meshd::{Ban, BanReason};
use i2plan_ipc::version::utc;
use serde_json::json;

use crate::args::{BanAdd, HOW_LONG};
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::member::Names;
use crate::present::table::{Column, Table};
use crate::present::text::clean;

const COLUMNS: &[Column] = &[
    Column::text("NAME").shrinks_to(12),
    Column::text("NODE").shrinks_to(10),
    Column::text("REASON"),
    Column::text("UNTIL"),
    Column::text("SINCE").dispensable(2),
    Column::text("DESCRIPTION").shrinks_to(10).dispensable(1),
];

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
    let names = names(&bans);
    let mut table = Table::new(COLUMNS);
    for ban in &bans {
        table.row([
            name(ban, &names),
            ban.node_id.clone(),
            reason(ban),
            ban.expires_at.map_or_else(|| "lifted".to_owned(), utc),
            utc(ban.created_at),
            ban.description.clone(),
        ]);
    }
    output::print(&table.render(output::terminal_width()).text)
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

/// The names of banned members.
pub(crate) fn names(bans: &[Ban]) -> Names {
    Names::of(bans.iter().filter_map(|ban| ban.name.as_deref()))
}

/// What a banned member is called in a list of bans.
pub(crate) fn name(ban: &Ban, names: &Names) -> String {
    ban.name.as_ref().map_or_else(|| "-".to_owned(), |name| names.label(name, &ban.node_id))
}

fn label(ban: &Ban) -> String {
    let name = ban.name.as_ref().map(|name| format!("{} ", clean(name))).unwrap_or_default();
    format!("{name}({})", clean(&ban.node_id))
}

fn until(ban: &Ban) -> String {
    ban.expires_at.map_or_else(|| "until the ban is lifted".to_owned(), |end| format!("until {}", utc(end)))
}

pub(crate) fn reason(ban: &Ban) -> String {
    match ban.reason {
        BanReason::Manual => "by hand".to_owned(),
        BanReason::InvalidMessages => format!("invalid messages ({})", ban.strikes),
    }
}

/// A duration on the command line.
///
/// # Errors
/// What to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match i2plan_config::parse_duration(text) {
        Some(Duration::ZERO) => Err("a ban that is over bans nobody".to_owned()),
        Some(duration) => Ok(duration),
        None => Err(HOW_LONG.to_owned()),
    }
}
