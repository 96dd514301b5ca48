//! Members as people name them: by name, address, node id, or the beginning of a node id.
//!
//! [`Node::find_member`](crate::Node::find_member) asks a node whom a text means; [`look_up`] is the rule.

use std::net::IpAddr;

use i2plan_proto::address::ipv6_of;
use i2plan_proto::identity::NodeId;
use thiserror::Error;

use crate::api::meshd::{Ban, Peer, Status};
use crate::api::order::OrderTarget;
use crate::client::ClientError;

/// A beginning of an id that is shorter counts only where no member has that name: a short name is the beginning of
/// some id in every large network.
const SHORTEST_PREFIX: usize = 4;

/// What of a member can be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its node id.
    pub node_id: String,
    /// What it calls itself; empty if that is not known.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Candidate {
    /// A banned node, which has addresses if it is one of these members.
    #[must_use]
    pub fn of_ban(ban: &Ban, members: &[Peer]) -> Self {
        let member = members.iter().find(|member| member.node_id == ban.node_id).map(Self::from);
        member.unwrap_or_else(|| Self {
            node_id: ban.node_id.clone(),
            name: ban.name.clone().unwrap_or_default(),
            addresses: Vec::new(),
        })
    }

    /// The member that an order is about, if it is about one, as `keyd` has verified it: its name is the one in its
    /// signed record, and not what `meshd` says.
    #[must_use]
    pub fn of_order(target: &OrderTarget) -> Option<Self> {
        let (node, name, address, network) = match target {
            OrderTarget::Member { node, name, address, network, .. } => {
                (node, name.as_ref().map(|(name, _)| name), address, network)
            }
            OrderTarget::Grant { node, address, network, .. } => (node, None, address, network),
            _ => return None,
        };
        Some(Self {
            node_id: node.to_string(),
            name: name.map(ToString::to_string).unwrap_or_default(),
            addresses: vec![(*address).into(), ipv6_of(network, *address).into()],
        })
    }
}

impl From<&Peer> for Candidate {
    fn from(peer: &Peer) -> Self {
        let addresses = vec![peer.ipv4.into(), peer.ipv6.into()];
        Self { node_id: peer.node_id.clone(), name: peer.name.clone(), addresses }
    }
}

/// The node itself.
impl From<&Status> for Candidate {
    fn from(status: &Status) -> Self {
        let network = status.network.as_ref();
        Self {
            node_id: status.node_id.clone().unwrap_or_default(),
            name: status.name.clone(),
            addresses: network
                .map(|network| vec![network.ipv4.into(), network.ipv6.into()])
                .unwrap_or_default(),
        }
    }
}

/// Why a text means no member.
#[derive(Debug, Error)]
pub enum LookupError {
    /// There is no such member.
    #[error("no member {text:?} is known")]
    Unknown {
        /// What was looked up.
        text: String,
    },
    /// It means several.
    #[error("{text:?} means several members")]
    Ambiguous {
        /// What was looked up.
        text: String,
        /// Those that it can mean, two at least.
        candidates: Vec<Candidate>,
    },
    /// It means the node that was asked, which is none of its members to itself.
    #[error("{text:?} is this node itself")]
    ThisNode {
        /// What was looked up.
        text: String,
    },
    /// The node does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Returns whether a text is a whole node id.
#[must_use]
pub fn is_node_id(text: &str) -> bool {
    text.parse::<NodeId>().is_ok()
}

/// Returns the candidate that a text means. A node id wins, then an address; names and beginnings of ids count alike, so
/// that no member can take the beginning of another's id as its name and be taken for it.
///
/// # Errors
/// [`LookupError::Unknown`] if there is none, [`LookupError::Ambiguous`] if there are several.
pub fn look_up(mut candidates: Vec<Candidate>, text: &str) -> Result<Candidate, LookupError> {
    let id = text.to_ascii_lowercase();
    let has_id = |member: &Candidate| !id.is_empty() && member.node_id == id;
    if is_node_id(text) || candidates.iter().any(has_id) {
        candidates.retain(has_id);
    } else if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        candidates.retain(|member| member.addresses.contains(&address));
    } else {
        let has_name = |member: &Candidate| !text.is_empty() && member.name.eq_ignore_ascii_case(text);
        let prefixes_count = id.len() >= SHORTEST_PREFIX || !candidates.iter().any(has_name);
        let begins = |member: &Candidate| !id.is_empty() && member.node_id.starts_with(&id);
        candidates.retain(|member| has_name(member) || prefixes_count && begins(member));
    }
    match candidates.len() {
        0 => Err(LookupError::Unknown { text: text.to_owned() }),
        1 => Ok(candidates.swap_remove(0)),
        _ => Err(LookupError::Ambiguous { text: text.to_owned(), candidates }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::meshd::BanReason;

    fn named(node_id: &str, name: &str, address: &str) -> Candidate {
        let addresses = vec![address.parse().unwrap()];
        Candidate { node_id: node_id.to_owned(), name: name.to_owned(), addresses }
    }

    fn members() -> Vec<Candidate> {
        vec![
            named("aaaa", "web", "10.42.0.1"),
            named("aabb", "db", "10.42.0.2"),
            named("cccc", "db", "10.42.0.3"),
            named("dddd", "aa", "10.42.0.4"),
        ]
    }

    fn is_unknown(result: &Result<Candidate, LookupError>) -> bool {
        matches!(result, Err(LookupError::Unknown { .. }))
    }

    #[test]
    fn a_member_is_named_in_several_ways() {
        for (text, node_id) in [
            ("web", "aaaa"),
            ("10.42.0.2", "aabb"),
            ("cccc", "cccc"),
            ("aab", "aabb"),
            ("c", "cccc"),
            ("aa", "dddd"),
        ] {
            assert_eq!(look_up(members(), text).unwrap().node_id, node_id, "{text}");
        }
    }

    #[test]
    fn what_means_several_or_none_is_refused() {
        match look_up(members(), "db") {
            Err(LookupError::Ambiguous { candidates, .. }) => assert_eq!(candidates, members()[1..3]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(look_up(members(), "a"), Err(LookupError::Ambiguous { .. })));
        for none in ["", "x", "10.42.0.9"] {
            assert!(is_unknown(&look_up(members(), none)), "{none}");
        }
    }

    /// Ids as nodes have them.
    fn id(number: u8) -> String {
        NodeId([number; 32]).to_string()
    }

    #[test]
    fn a_whole_id_and_an_address_win_over_names() {
        let members = || {
            vec![
                Candidate {
                    addresses: vec!["fd12::1".parse().unwrap()],
                    ..named(&id(1), "web", "10.42.0.1")
                },
                named(&id(2), &id(1), "10.42.0.2"),
                named(&id(3), "10.42.0.1", "10.42.0.3"),
                named(&id(4), "db", "10.42.0.1"),
            ]
        };
        let found = |text: &str| look_up(members(), text);
        let node_id = |text: &str| found(text).unwrap().node_id;
        assert_eq!(node_id(&id(1)), id(1));
        assert_eq!(node_id(&id(1).to_uppercase()), id(1));
        assert!(is_unknown(&found(&id(9))));
        assert_eq!(node_id("10.42.0.1"), id(4));
        assert_eq!(node_id("::ffff:10.42.0.3"), id(3));
        assert_eq!(node_id("FD12:0::0:1"), id(1));
        assert!(is_unknown(&found("fd12::2")));
        assert_eq!(node_id("WEB"), id(1));
    }

    #[test]
    fn a_name_that_is_the_beginning_of_another_id_is_ambiguous() {
        for len in [4, 8, 10, 20] {
            let prefix = &id(1)[..len];
            let members = vec![named(&id(1), "evil", "10.42.0.1"), named(&id(2), prefix, "10.42.0.2")];
            for text in [prefix, &prefix.to_uppercase()] {
                assert!(matches!(
                    look_up(members.clone(), text),
                    Err(LookupError::Ambiguous { candidates, .. }) if candidates == members
                ));
            }
            // One whose name begins its own id is one member.
            let one = vec![named(&id(1), prefix, "10.42.0.1"), named(&id(2), "web", "10.42.0.2")];
            assert_eq!(look_up(one, prefix).unwrap().node_id, id(1));
        }
    }

    #[test]
    fn a_banned_node_that_has_left_is_named_by_its_id_and_its_name() {
        let ban = |name: Option<&str>| Ban {
            node_id: id(1),
            name: name.map(str::to_owned),
            reason: BanReason::Manual,
            description: String::new(),
            created_at: 1,
            expires_at: None,
            strikes: 0,
        };
        let found = |name, text: &str| look_up(vec![Candidate::of_ban(&ban(name), &[])], text).is_ok();
        assert!(found(None, &id(1)) && found(None, &id(1)[..6]) && found(Some("web"), "web"));
        assert!(!found(None, "") && !found(None, "10.42.0.1"));
    }
}
