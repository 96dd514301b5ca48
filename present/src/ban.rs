//! Bans.

use i2plan_ipc::api::meshd::{Ban, BanReason};
use i2plan_ipc::version::utc;

use super::look::{Look, Times};
use super::member::Names;
use super::table::{Column, Table};
use super::text::clean;
use super::units;

const COLUMNS: &[Column] = &[
    Column::text("NAME").shrinks_to(12),
    Column::text("NODE").shrinks_to(10),
    Column::text("REASON"),
    Column::text("UNTIL"),
    Column::text("SINCE").dispensable(2),
    Column::text("DESCRIPTION").shrinks_to(10).dispensable(1),
];

/// What a list shows of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The member's name, with its short node id if others have the same.
    pub name: String,
    /// Its node id.
    pub node_id: String,
    /// Why it is banned.
    pub reason: String,
    /// When the ban ends.
    pub until: String,
    /// When it was imposed.
    pub since: String,
    /// What the user has written as the reason.
    pub description: String,
}

impl Row {
    /// The row of a ban in a list with these names.
    #[must_use]
    pub fn new(ban: &Ban, names: &Names, times: Times) -> Self {
        Self {
            name: units::or_dash(ban.name.as_ref().map(|name| names.label(name, &ban.node_id))),
            node_id: ban.node_id.clone(),
            reason: reason(ban),
            until: ban.expires_at.map_or_else(|| "lifted".to_owned(), |end| times.at(end)),
            since: times.at(ban.created_at),
            description: ban.description.clone(),
        }
    }
}

/// A table of bans.
#[must_use]
pub fn render(bans: &[Ban], look: &Look) -> String {
    let names = names(bans);
    let mut table = Table::new(COLUMNS);
    for ban in bans {
        let row = Row::new(ban, &names, look.times);
        table.row([row.name, row.node_id, row.reason, row.until, row.since, row.description]);
    }
    table.render(look).text
}

/// The names of banned members.
#[must_use]
pub fn names(bans: &[Ban]) -> Names {
    Names::of(bans.iter().filter_map(|ban| ban.name.as_deref()))
}

/// A banned member, by name and node id.
#[must_use]
pub fn label(ban: &Ban) -> String {
    let name = ban.name.as_ref().map(|name| format!("{} ", clean(name))).unwrap_or_default();
    format!("{name}({})", clean(&ban.node_id))
}

/// When a ban ends.
#[must_use]
pub fn until(ban: &Ban) -> String {
    ban.expires_at.map_or_else(|| "until the ban is lifted".to_owned(), |end| format!("until {}", utc(end)))
}

/// Why a member is banned, in a word or two.
#[must_use]
pub fn reason(ban: &Ban) -> String {
    match ban.reason {
        BanReason::Manual => "by hand".to_owned(),
        BanReason::InvalidMessages => format!("invalid messages ({})", ban.strikes),
    }
}
