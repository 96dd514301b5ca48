//! Who was invited by whom.

use std::collections::BTreeMap;

use i2plan_ipc::api::meshd::{Peer, Status};
use serde::Serialize;

use super::look::Look;
use super::member::{Names, short};
use super::peer::{DataPath, ranges, state_by};
use super::text::clean;

/// A member and those that it has invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// Its node id.
    pub node_id: String,
    /// What it calls itself; none if its record is not known.
    pub name: Option<String>,
    /// It is this node.
    pub this_node: bool,
    /// Those that it has invited.
    pub invited: Vec<Branch>,
    /// What a line says of it.
    #[serde(skip)]
    text: String,
}

/// The members below the founder, of a node that is in a network. Inviters whose records are not known are there too.
#[must_use]
pub fn grow(status: &Status, peers: &[Peer]) -> Vec<Branch> {
    let Some(network) = &status.network else { return Vec::new() };
    let path = DataPath::of(status);
    let own_id = status.node_id.clone().unwrap_or_default();
    let names = Names::of(peers.iter().map(|peer| peer.name.as_str()).chain([status.name.as_str()]));
    let mut known: BTreeMap<&str, (Option<&str>, String)> = BTreeMap::new();
    for peer in peers {
        let held = Some(ranges(&peer.ranges)).filter(|held| !held.is_empty());
        let parts = [Some(peer.ipv4.to_string()), held, Some(state_by(peer, path).to_owned())];
        let text = [Some(names.label(&peer.name, &peer.node_id))].into_iter().chain(parts).flatten();
        known.insert(&peer.node_id, (Some(&peer.name), text.collect::<Vec<_>>().join("  ")));
    }
    let label = names.label(&status.name, &own_id);
    known.insert(&own_id, (Some(&status.name), format!("{label}  {}  (this node)", network.ipv4)));
    let paths = peers.iter().map(|peer| (&peer.inviters, peer.node_id.as_str()));
    let mut below: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    for (inviters, node_id) in paths.chain([(&network.inviters, own_id.as_str())]) {
        let mut inviter = None;
        for member in inviters.iter().map(String::as_str).chain([node_id]) {
            let invited = below.entry(inviter).or_default();
            if !invited.contains(&member) {
                invited.push(member);
            }
            inviter = Some(member);
        }
    }
    let mut seen = Vec::new();
    branches(None, &below, &known, &own_id, &mut seen)
}

fn branches<'a>(
    inviter: Option<&str>,
    below: &BTreeMap<Option<&str>, Vec<&'a str>>,
    known: &BTreeMap<&str, (Option<&str>, String)>,
    own_id: &str,
    seen: &mut Vec<&'a str>,
) -> Vec<Branch> {
    let mut found = Vec::new();
    for node_id in below.get(&inviter).into_iter().flatten() {
        // No member is below itself; and a node that says so does not lead this astray.
        if seen.contains(node_id) {
            continue;
        }
        seen.push(node_id);
        let (name, text) = match known.get(node_id) {
            Some((name, text)) => (*name, text.clone()),
            None => (None, format!("{}  (not known here)", short(node_id))),
        };
        found.push(Branch {
            node_id: (*node_id).to_owned(),
            name: name.map(str::to_owned),
            this_node: *node_id == own_id,
            invited: branches(Some(node_id), below, known, own_id, seen),
            text,
        });
    }
    found.sort_by(|one, other| (&one.text, &one.node_id).cmp(&(&other.text, &other.node_id)));
    found
}

/// The branch of a member.
#[must_use]
pub fn find<'a>(tree: &'a [Branch], node_id: &str) -> Option<&'a Branch> {
    tree.iter().find_map(|branch| {
        if branch.node_id == node_id { Some(branch) } else { find(&branch.invited, node_id) }
    })
}

/// A line for each member, those that it has invited below it; at most `limit` lines, and one that says how many more.
#[must_use]
pub fn render(tree: &[Branch], look: &Look, limit: usize) -> String {
    let mut lines = Vec::new();
    for branch in tree {
        lines.push(clean(&branch.text).into_owned());
        draw(&branch.invited, look, "", &mut lines);
    }
    let more = lines.len().saturating_sub(limit);
    lines.truncate(limit);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn draw(branches: &[Branch], look: &Look, before: &str, lines: &mut Vec<String>) {
    for (number, branch) in branches.iter().enumerate() {
        let (here, below) = match (number + 1 < branches.len(), look.drawing) {
            (true, true) => ("├─ ", "│  "),
            (false, true) => ("└─ ", "   "),
            (true, false) => ("|- ", "|  "),
            (false, false) => ("`- ", "   "),
        };
        lines.push(format!("{before}{here}{}", clean(&branch.text)));
        draw(&branch.invited, look, &format!("{before}{below}"), lines);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::order::tests::peer;
    use crate::status::tests::status;

    /// A member with this inviters, the founder first.
    fn member(node_id: &str, inviters: &[&str], address: u8) -> Peer {
        Peer { ipv4: [10, 42, 0, address].into(), ..peer(node_id, inviters) }
    }

    fn joined(inviters: &[&str]) -> Status {
        let mut status = status();
        let network = status.network.as_mut().unwrap();
        network.inviters = inviters.iter().map(|&inviter| inviter.to_owned()).collect();
        status.sam.data.state = i2plan_ipc::api::meshd::SessionState::Up;
        status
    }

    #[test]
    fn members_stand_below_their_inviters() {
        let peers = [
            member("founder", &[], 1),
            member("web", &["founder"], 2),
            member("db", &["founder", "web"], 3),
            member("cache", &["founder", "web", "gone"], 4),
        ];
        let tree = grow(&joined(&["founder"]), &peers);
        let look = Look { drawing: true, ..Look::default() };
        assert_eq!(
            render(&tree, &look, 100),
            "\
founder  10.42.0.1  no tunnel
├─ alpha  10.42.7.9  (this node)
└─ web  10.42.0.2  no tunnel
   ├─ db  10.42.0.3  no tunnel
   └─ gone  (not known here)
      └─ cache  10.42.0.4  no tunnel
"
        );
        let web = find(&tree, "web").unwrap();
        assert_eq!(
            render(std::slice::from_ref(web), &Look::default(), 2),
            "web  10.42.0.2  no tunnel\n|- db  10.42.0.3  no tunnel\nand 2 more\n"
        );
        assert!(find(&tree, "nobody").is_none());
        assert!(find(&tree, "node").is_some_and(|branch| branch.this_node));
    }

    #[test]
    fn a_founder_is_at_the_top_and_circles_end() {
        let peers = [member("a", &["node", "b"], 2), member("b", &["node", "a"], 3)];
        let tree = grow(&joined(&[]), &peers);
        assert_eq!((tree.len(), tree[0].node_id.as_str()), (1, "node"));
        assert!(render(&tree, &Look::default(), 100).lines().count() <= 4);
        let mut outside = joined(&[]);
        outside.network = None;
        assert_eq!(grow(&outside, &peers), []);
    }
}
