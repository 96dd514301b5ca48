//! Invites.

use i2plan_ipc::api::meshd::{Invite, InviteState, IssuedInvite};
use i2plan_ipc::version::utc;

use super::look::{Look, Times};
use super::table::{Column, Table};
use super::text::clean;
use super::units;

const COLUMNS: &[Column] = &[
    Column::text("ID"),
    Column::text("STATE"),
    Column::text("USES"),
    Column::number("ADDRESSES").dispensable(1),
    Column::text("EXPIRES"),
    Column::text("CREATED").dispensable(2),
];

/// What a list shows of an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Whether it can be used.
    pub state: &'static str,
    /// How often it was used, and may be.
    pub uses: String,
    /// Addresses for each of its users.
    pub addresses: String,
    /// When it expires.
    pub expires: String,
    /// When it was made.
    pub created: String,
}

impl Row {
    /// The row of an invite.
    #[must_use]
    pub fn new(invite: &IssuedInvite, times: Times) -> Self {
        Self {
            id: invite.id.clone(),
            state: state(invite),
            uses: uses(invite),
            addresses: invite.addresses.to_string(),
            expires: times.at(invite.expires_at),
            created: times.at(invite.created_at),
        }
    }
}

/// A table of invites.
#[must_use]
pub fn table(invites: &[IssuedInvite], look: &Look) -> String {
    let mut table = Table::new(COLUMNS);
    for invite in invites {
        let row = Row::new(invite, look.times);
        table.row([row.id, row.state.to_owned(), row.uses, row.addresses, row.expires, row.created]);
    }
    table.render(look).text
}

/// The nodes that have used an invite, by their number.
#[must_use]
pub fn users(used: u64) -> String {
    let have = if used == 1 { "has" } else { "have" };
    format!("the {} that {have} used it", units::counted(used, "node"))
}

/// What revoking an invite with its members leads to.
#[must_use]
pub fn consequences(invite: &IssuedInvite) -> String {
    let id = clean(&invite.id);
    match invite.used_by.len() as u64 {
        0 => format!(
            "no node has used invite {id} as far as this node remembers; one that has will be out of the network"
        ),
        used => format!(
            "invite {id}: {}, and the members below, will be out of the network; they can be invited again",
            users(used)
        ),
    }
}

/// Whether an invite can be used, in a word or two.
#[must_use]
pub fn state(invite: &IssuedInvite) -> &'static str {
    match invite.state {
        InviteState::Open => "open",
        InviteState::Expired => "expired",
        InviteState::UsedUp => "used up",
        InviteState::Revoked => "revoked",
    }
}

/// How often an invite was used, and may be.
#[must_use]
pub fn uses(invite: &IssuedInvite) -> String {
    let limit = invite.max_uses.map_or_else(|| "any number".to_owned(), |uses| uses.to_string());
    format!("{} of {limit}", invite.used_by.len())
}

/// All about an invite, as lines of labels and values.
#[must_use]
pub fn render(invite: &IssuedInvite) -> String {
    let mut text = format!(
        "invite     {}\nstate      {}\nuses       {}\naddresses  {}\ncreated    {}\nexpires    {}\n",
        clean(&invite.id),
        state(invite),
        uses(invite),
        each(invite.addresses, invite.max_uses),
        utc(invite.created_at),
        utc(invite.expires_at)
    );
    for node in &invite.used_by {
        text.push_str(&format!("used by    {}\n", clean(node)));
    }
    text
}

/// Addresses for each of an invite's users.
#[must_use]
pub fn each(addresses: u32, max_uses: Option<u32>) -> String {
    format!("{addresses}{}", if max_uses == Some(1) { "" } else { " for each node" })
}

/// What a new invite is good for.
#[must_use]
pub fn describe(invite: &Invite) -> String {
    let founded =
        if invite.founded { format!("founded network {}\n", invite.network) } else { String::new() };
    let uses = invite
        .max_uses
        .map_or_else(|| "any number of uses".to_owned(), |uses| units::counted(u64::from(uses), "use"));
    let each = if invite.max_uses == Some(1) { "" } else { " for each node" };
    format!(
        "{founded}invite {}: {uses}, {}{each}, expires {}\nkeep it secret: any node that has this code can join",
        invite.id,
        units::addresses(u64::from(invite.addresses)),
        utc(invite.expires_at)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_shows_who_used_it() {
        let invite = IssuedInvite {
            id: "id".to_owned(),
            state: InviteState::UsedUp,
            created_at: 1_800_000_000,
            expires_at: 1_800_003_600,
            max_uses: Some(1),
            addresses: 16,
            used_by: vec!["nodeid".to_owned()],
        };
        assert_eq!(
            render(&invite),
            "invite     id\nstate      used up\nuses       1 of 1\naddresses  16\n\
             created    2027-01-15T08:00:00Z\nexpires    2027-01-15T09:00:00Z\nused by    nodeid\n"
        );
        let open = IssuedInvite { max_uses: None, used_by: Vec::new(), ..invite };
        assert_eq!(uses(&open), "0 of any number");
        assert!(render(&open).contains("addresses  16 for each node\n"));
    }

    #[test]
    fn the_question_says_how_many_nodes_are_out() {
        let invite = |used: usize| IssuedInvite {
            id: "id".to_owned(),
            state: InviteState::Open,
            created_at: 0,
            expires_at: 0,
            max_uses: None,
            addresses: 1,
            used_by: vec!["node".to_owned(); used],
        };
        assert!(consequences(&invite(0)).starts_with("no node has used invite id "));
        assert!(consequences(&invite(1)).starts_with("invite id: the 1 node that has used it, and "));
        assert!(consequences(&invite(2)).starts_with("invite id: the 2 nodes that have used it, and "));
    }
}
