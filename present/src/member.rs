//! Members, told apart by name, short node id and address.

use std::collections::HashMap;

use i2plan_ipc::member::Candidate;

use super::text::{clean, fit};

/// Characters of a short node id, as daemons log it.
const SHORT_ID: usize = 10;

/// Members that an error lists.
const MAX_CANDIDATES: usize = 5;

/// Columns of a name in an error.
const NAME_WIDTH: usize = 24;

/// The first characters of a node id, as daemons log it: to tell members apart, not to decide by.
#[must_use]
pub fn short(node_id: &str) -> &str {
    node_id.get(..SHORT_ID).unwrap_or(node_id)
}

/// A member's name with its short id, or the short id alone if the name is not known, as it is not when a node has
/// just started.
#[must_use]
pub fn label(name: &str, node_id: &str) -> String {
    match name {
        "" => short(node_id).to_owned(),
        name => format!("{name} ({})", short(node_id)),
    }
}

/// The names in a list, to tell members of one name apart.
#[derive(Debug)]
pub struct Names(HashMap<String, usize>);

impl Names {
    /// Those of a list.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut counts = HashMap::new();
        for name in names {
            *counts.entry(name.to_ascii_lowercase()).or_default() += 1;
        }
        Self(counts)
    }

    /// What a member is called in the list: its name, with its short id if others have the same.
    #[must_use]
    pub fn label(&self, name: &str, node_id: &str) -> String {
        if self.is_repeated(name) { label(name, node_id) } else { name.to_owned() }
    }

    /// Whether several members have this name.
    #[must_use]
    pub fn is_repeated(&self, name: &str) -> bool {
        self.0.get(&name.to_ascii_lowercase()).is_some_and(|count| *count > 1)
    }
}

/// A member's name, short id and first address.
#[must_use]
pub fn describe(member: &Candidate) -> String {
    let short = clean(short(&member.node_id)).into_owned();
    let name = fit(&clean(&member.name), NAME_WIDTH);
    match (name.as_str(), member.addresses.first()) {
        ("", None) => short,
        ("", Some(address)) => format!("{short} ({address})"),
        (name, None) => format!("{name} ({short})"),
        (name, Some(address)) => format!("{name} ({short}, {address})"),
    }
}

/// The first of several members that a name can mean, and how many more there are.
#[must_use]
pub fn candidates(members: &[Candidate]) -> String {
    let listed: Vec<_> = members.iter().take(MAX_CANDIDATES).map(describe).collect();
    let more = match members.len().saturating_sub(MAX_CANDIDATES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    listed.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_name_are_told_apart() {
        let names = Names::of(["web", "Web", "db"]);
        assert_eq!(names.label("web", "abcdefghijklm"), "web (abcdefghij)");
        assert_eq!(names.label("Web", "bcdefghijklmn"), "Web (bcdefghijk)");
        assert_eq!(names.label("db", "cdefghijklmno"), "db");
        assert_eq!(Names::of(["", ""]).label("", "abcdefghijklm"), "abcdefghij");
    }
}
