//! What `keyd` signs for an administrator, and what that leads to.

use i2plan_ipc::api::meshd::Peer;
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::member::Candidate;
use i2plan_ipc::version::utc;

use super::look::Look;
use super::member;
use super::text::clean;
use super::tree::{Branch, find, render};
use super::units;

/// Members that a question lists.
const MAX_LISTED: usize = 20;

/// What `keyd` has verified and will sign.
#[must_use]
pub fn describe(target: &OrderTarget) -> String {
    match target {
        OrderTarget::Member { network, node, name, address, below } => {
            // An earlier record may have another name; meshd chooses which one keyd is shown.
            let called = name.as_ref().map_or_else(String::new, |(name, signed_at)| {
                format!(" which called itself {} on {},", clean(name.as_str()), utc(*signed_at))
            });
            format!(
                "keyd will revoke node {node},{called} {address}, in network {}; {} below it, as far as meshd shows their \
                 records",
                network.short(),
                units::counted(*below, "member")
            )
        }
        OrderTarget::Invite { network, invite, members, below } => format!(
            "keyd will revoke the {} that it has certified for invite {invite}, in network {}; {} below, as far as meshd shows \
             their records",
            units::counted(*members, "member"),
            network.short(),
            units::counted(*below, "member")
        ),
        OrderTarget::LocalMembership { network, address, invited } => format!(
            "keyd will sign that this node, {address}, leaves network {network}; it has invited {}",
            units::counted(*invited, "member")
        ),
        OrderTarget::Pinned { network, address } => {
            format!("keyd will forget network {network}, in which this node is {address}")
        }
        OrderTarget::NewInvite { network, invite, uses, addresses, expires_at } => {
            let what = invite.map_or_else(|| "an invite".to_owned(), |invite| format!("invite {invite}"));
            let each = u64::from(*addresses);
            let (nodes, total) = match uses.limit() {
                Some(uses) => (
                    units::counted(uses.into(), "node"),
                    format!("{} in all, on whatever day", units::addresses(u64::from(uses) * each)),
                ),
                None => (
                    "any number of nodes".to_owned(),
                    "without a limit: whoever has its code or breaks into meshd can add as many members as this node has \
                     addresses"
                        .to_owned(),
                ),
            };
            format!(
                "keyd will let {nodes} join network {} with {what}, each with {}, until {}; {total}",
                network.short(),
                units::addresses(each),
                utc(*expires_at)
            )
        }
        OrderTarget::Memory { network, members, addresses } => format!(
            "keyd will take the {} that it remembers, with {}, for all that it has certified in network {}",
            units::counted(*members, "member"),
            units::addresses(*addresses),
            network.short()
        ),
        OrderTarget::Grant { network, node, address, before, after } => format!(
            "keyd will certify node {node}, {address}, in network {} for {} in place of {}",
            network.short(),
            units::addresses(*after),
            units::addresses(*before)
        ),
    }
}

/// What revoking a member leads to: the members below it are out too. `tree` shows who has invited them.
#[must_use]
pub fn consequences(member: &Candidate, peers: &[Peer], tree: &[Branch], look: &Look) -> String {
    let below: Vec<_> = peers.iter().filter(|peer| peer.inviters.contains(&member.node_id)).collect();
    let mut text = match below.len() as u64 {
        0 => format!("{} will be out of the network", member::describe(member)),
        count => {
            let below_it = format!("{} below it", units::counted(count, "member"));
            format!("{} and the {below_it} will be out of the network:", member::describe(member))
        }
    };
    if let Some(branch) = find(tree, &member.node_id).filter(|_| !below.is_empty()) {
        for line in render(std::slice::from_ref(branch), look, MAX_LISTED + 1).lines() {
            text.push_str("\n  ");
            text.push_str(line);
        }
    }
    text.push_str(
        "\nthe certificates are revoked for all members, and stay so; the nodes can be invited again",
    );
    text
}

#[cfg(test)]
pub(super) mod tests {
    use i2plan_ipc::fixtures;
    use i2plan_proto::identity::{NetworkId, NodeId};
    use i2plan_proto::invite::Uses;

    use super::*;
    use crate::status::tests::status;
    use crate::tree::grow;

    #[test]
    fn a_revocation_says_when_the_member_called_itself_so() {
        let text = describe(&OrderTarget::Member {
            network: NetworkId([1; 32]),
            node: NodeId([2; 32]),
            name: Some(("web".parse().unwrap(), 1_800_000_000)),
            address: [10, 42, 0, 3].into(),
            below: 0,
        });
        assert!(text.contains("which called itself web on 2027-01-15T08:00:00Z, 10.42.0.3"), "{text}");
    }

    #[test]
    fn an_order_for_an_invite_says_what_it_lets_in() {
        let text = |uses| {
            let network = NetworkId([1; 32]);
            describe(&OrderTarget::NewInvite {
                network,
                invite: None,
                uses,
                addresses: 512,
                expires_at: 1_800_000_000,
            })
        };
        let limited = text(Uses::Limited(3.try_into().unwrap()));
        assert!(
            limited.contains("let 3 nodes join") && limited.contains("1536 addresses in all"),
            "{limited}"
        );
        let unlimited = text(Uses::Unlimited);
        assert!(
            unlimited.contains("any number of nodes") && unlimited.contains("without a limit"),
            "{unlimited}"
        );
    }

    pub(crate) fn peer(node_id: &str, inviters: &[&str]) -> Peer {
        Peer {
            depth: inviters.len() as u64,
            inviters: inviters.iter().map(|inviter| (*inviter).to_owned()).collect(),
            ..fixtures::peer(node_id, node_id)
        }
    }

    #[test]
    fn the_question_shows_who_has_invited_the_members_below() {
        let peers = [
            peer("founder", &[]),
            peer("web", &["founder"]),
            peer("db", &["founder", "web"]),
            peer("cache", &["founder", "web", "db"]),
            peer("other", &["founder"]),
        ];
        let tree = grow(&status(), &peers);
        let question =
            |at: usize| consequences(&Candidate::from(&peers[at]), &peers, &tree, &Look::default());
        assert_eq!(
            question(1),
            "web (web, 10.42.0.2) and the 2 members below it will be out of the network:\n  \
             web  10.42.0.2  ?\n  `- db  10.42.0.2  ?\n     `- cache  10.42.0.2  ?\n\
             the certificates are revoked for all members, and stay so; the nodes can be invited again"
        );
        assert!(question(4).starts_with("other (other, 10.42.0.2) will be out of the network\n"));
    }

    #[test]
    fn a_long_list_is_cut() {
        let mut peers: Vec<_> = (0..25).map(|number| peer(&format!("n{number}"), &["web"])).collect();
        peers.push(peer("web", &[]));
        let tree = grow(&status(), &peers);
        let text = consequences(&Candidate::from(&peers[25]), &peers, &tree, &Look::default());
        assert_eq!(text.lines().count(), 1 + 1 + MAX_LISTED + 2, "{text}");
        assert!(text.contains("the 25 members below it") && text.contains("\n  and 5 more\n"), "{text}");
    }
}
