//! `i2planctl revoke` and `i2planctl leave`.

use std::path::Path;

use i2plan_ipc::api::meshd::{Leave, Peer, Revoke};
use i2plan_ipc::api::order::OrderTarget;
use i2plan_proto::identity::NodeId;
use serde_json::json;

use super::member::{Named, can_ask, find_among, short};
use super::orders;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output::{self, clean, units};

/// Members that a question lists.
const MAX_LISTED: usize = 20;

/// Revokes a member's certificate.
///
/// # Errors
/// If there is no such member, this node may not, or it was not confirmed.
pub async fn revoke(socket: Option<&Path>, json: bool, name: &str, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let peers = node.peers().await?;
    let member = match find_among(&mut node, &peers, name).await {
        // A node that this one has invited, and whose record it does not know.
        Err(failure) if failure.kind == Kind::NotFound && name.parse::<NodeId>().is_ok() => {
            Named { node_id: name.to_ascii_lowercase(), name: String::new(), addresses: Vec::new() }
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

/// What revoking a member leads to: the members below it are out too.
fn consequences(member: &Named, peers: &[Peer]) -> String {
    let below: Vec<_> = peers.iter().filter(|peer| peer.inviters.contains(&member.node_id)).collect();
    let mut text = match below.len() as u64 {
        0 => format!("{} will be out of the network", member.describe()),
        count => {
            let below_it = format!("{} below it", units::counted(count, "member"));
            format!("{} and the {below_it} will be out of the network:", member.describe())
        }
    };
    for peer in below.iter().take(MAX_LISTED) {
        text.push_str("\n  ");
        text.push_str(&Named::from(*peer).describe());
    }
    if let Some(more @ 1..) = below.len().checked_sub(MAX_LISTED) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text.push_str(
        "\nthe certificates are revoked for all members, and stay so; the nodes can be invited again",
    );
    text
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

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::Liveness;

    use super::*;

    fn peer(node_id: &str, inviters: &[&str]) -> Peer {
        Peer {
            node_id: node_id.to_owned(),
            name: node_id.to_owned(),
            ipv4: "10.42.0.2".parse().unwrap(),
            ipv6: "fd12::2".parse().unwrap(),
            public_key: String::new(),
            endpoint: String::new(),
            ranges: Vec::new(),
            depth: inviters.len() as u64,
            inviters: inviters.iter().map(|inviter| (*inviter).to_owned()).collect(),
            signed_at: 0,
            liveness: Liveness::Present,
            banned: false,
            last_heard: None,
            rtt: None,
            last_handshake: None,
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            queue_drops: 0,
            rx_drops: 0,
        }
    }

    #[test]
    fn the_question_lists_the_members_below() {
        let peers = [
            peer("founder", &[]),
            peer("web", &["founder"]),
            peer("db", &["founder", "web"]),
            peer("cache", &["founder", "web", "db"]),
            peer("other", &["founder"]),
        ];
        let question = |at: usize| consequences(&Named::from(&peers[at]), &peers);
        assert_eq!(
            question(1),
            "web (web, 10.42.0.2) and the 2 members below it will be out of the network:\n  \
             db (db, 10.42.0.2)\n  cache (cache, 10.42.0.2)\n\
             the certificates are revoked for all members, and stay so; the nodes can be invited again"
        );
        assert!(question(4).starts_with("other (other, 10.42.0.2) will be out of the network\n"));
    }

    #[test]
    fn a_long_list_is_cut() {
        let mut peers: Vec<_> = (0..25).map(|number| peer(&format!("n{number}"), &["web"])).collect();
        peers.push(peer("web", &[]));
        let text = consequences(&Named::from(&peers[25]), &peers);
        assert_eq!(text.lines().count(), 1 + MAX_LISTED + 2, "{text}");
        assert!(text.contains("the 25 members below it") && text.contains("\n  and 5 more\n"), "{text}");
    }
}
