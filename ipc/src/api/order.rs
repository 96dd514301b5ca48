//! Orders: what `keyd` signs only if an administrator confirms it.
//!
//! An order ends a membership, delegates more than [`ADDRESSES_A_DAY`], or says that what was lost of `keyd`'s memory is
//! complete again. `meshd` cannot give one. It hands out the
//! [`Order`] with its evidence, the administrator's program takes that to `keyd`'s control socket, `keyd` verifies it and
//! answers with the [`OrderTarget`] as it will be signed and a token, and signs when the token comes back
//! ([`Executed`]). `meshd` distributes what was signed.

use std::net::Ipv4Addr;

use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteId, Uses};
use i2plan_proto::membership::{Chain, Charter, Membership};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::{Resignation, Revocation};
use serde::{Deserialize, Serialize};

use super::keyd::{CreateInvite, ExtendMember};
use super::meshd::Request;
use crate::secret::SecretText;

/// Addresses that a node delegates in a day without an order.
pub const ADDRESSES_A_DAY: u64 = 256;

/// Certificates of one member that an order revokes at most.
pub const MAX_CHAINS: usize = 4;

/// Members below a target that `keyd` counts at most.
pub const MAX_COUNTED: usize = 1000;

/// Records in one request that presents members below a target, at most.
pub const RECORDS_AT_ONCE: usize = 3;

/// An order with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Revoke a member.
    Revoke {
        /// The chains by which it is a member, as many as [`MAX_CHAINS`].
        chains: Vec<Chain>,
        /// Its record, which says its name; none if that is not known.
        record: Option<Box<Signed<Record>>>,
    },
    /// Revoke the memberships of all nodes that have used an invite of this node.
    RevokeInvite(InviteId),
    /// Leave the network of this charter, in which this is the node's chain.
    Leave(Box<Chain>, Charter),
    /// Forget the network that this node is a member of, without a word to its members.
    Forget,
    /// Make an invite that is unlimited, or for more than [`ADDRESSES_A_DAY`].
    CreateInvite(CreateInvite),
    /// Let users of an invite join, however many addresses were delegated today.
    AllowInvite(Signed<InviteGrant>),
    /// Delegate more addresses to a member than are left today.
    Extend(Box<ExtendMember>),
    /// Take what `keyd` remembers of its delegations for all of them, because its memory of them was lost.
    Recover,
}

impl Order {
    /// Whether an invite needs an order.
    #[must_use]
    pub fn is_needed_for_invite(uses: Uses, addresses: u32) -> bool {
        uses.limit().is_none_or(|uses| u64::from(uses) * u64::from(addresses) > ADDRESSES_A_DAY)
    }
}

/// What an order is about, as `keyd` has verified it and will sign it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderTarget {
    /// The end of a membership.
    Member {
        /// The network.
        network: NetworkId,
        /// The member.
        node: NodeId,
        /// What it calls itself in its record, if that was presented, and when it signed that, Unix time in seconds.
        name: Option<(NodeName, u64)>,
        /// Its address.
        address: Ipv4Addr,
        /// Members below it whose records were presented, as many as [`MAX_COUNTED`].
        below: u64,
    },
    /// The end of the memberships of an invite's users.
    Invite {
        /// The network.
        network: NetworkId,
        /// The invite.
        invite: InviteId,
        /// Members that `keyd` has certified for it.
        members: u64,
        /// Members below them whose records were presented, as many as [`MAX_COUNTED`].
        below: u64,
    },
    /// The end of this node's own membership.
    #[serde(rename = "Own")]
    LocalMembership {
        /// The network.
        network: NetworkId,
        /// This node's address.
        address: Ipv4Addr,
        /// Members that it has invited.
        invited: u64,
    },
    /// The network that is forgotten.
    Pinned {
        /// The network.
        network: NetworkId,
        /// This node's address in it.
        address: Ipv4Addr,
    },
    /// An invite to be made, or whose users may join.
    NewInvite {
        /// The network.
        network: NetworkId,
        /// The invite, if it is there.
        invite: Option<InviteId>,
        /// How often it may be used.
        uses: Uses,
        /// Addresses for each of its users.
        addresses: u32,
        /// Unix time in seconds.
        expires_at: u64,
    },
    /// More addresses for a member.
    Grant {
        /// The network.
        network: NetworkId,
        /// The member.
        node: NodeId,
        /// Its address.
        address: Ipv4Addr,
        /// Addresses that it holds until now.
        before: u64,
        /// Addresses that it will hold.
        after: u64,
    },
    /// What `keyd` remembers of its delegations, and takes for all of them.
    Memory {
        /// The network.
        network: NetworkId,
        /// Members that it has certified, as far as it remembers.
        members: u64,
        /// Addresses that these hold.
        addresses: u64,
    },
}

impl OrderTarget {
    /// Whether this may be what `meshd` was asked for with a request, which is given as it was made: `meshd` chooses the
    /// order, and could choose another. `now` is Unix time in seconds.
    #[must_use]
    pub fn is_asked_for_by(&self, request: &Request, now: u64) -> bool {
        match (request, self) {
            (Request::Revoke { node_id }, Self::Member { node, .. }) => is_named(node, node_id),
            (Request::RevokeInvite { id, with_members: true }, Self::Invite { invite, .. })
            | (Request::AllowInvite { id }, Self::NewInvite { invite: Some(invite), .. }) => {
                is_named(invite, id)
            }
            (Request::Leave, Self::LocalMembership { .. }) | (Request::RecoverKeys, Self::Memory { .. }) => {
                true
            }
            (
                Request::CreateInvite { expires_in, max_uses, addresses, .. },
                Self::NewInvite { invite: None, uses, addresses: each, expires_at, .. },
            ) => {
                let latest = now.saturating_add(*expires_in).saturating_add(CLOCKS_DIFFER);
                uses.limit() == *max_uses
                    && *expires_at <= latest
                    // The usual number for many users; with a single user it takes no order.
                    && *each == addresses.unwrap_or(1)
            }
            (Request::Grant { node_id, addresses }, Self::Grant { node, before, after, .. }) => {
                is_named(node, node_id) && *after <= before.saturating_add((*addresses).into())
            }
            _ => false,
        }
    }
}

/// For how long the time may pass between a request and what comes of it, seconds.
const CLOCKS_DIFFER: u64 = 300;

fn is_named(id: &impl ToString, text: &str) -> bool {
    id.to_string().eq_ignore_ascii_case(text)
}

/// Names an order that waits to be confirmed. Good for one confirmation on the connection that it was given on, for
/// a few minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderToken(pub [u8; 16]);

/// An order that waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedOrder {
    /// Confirms it.
    pub token: OrderToken,
    /// What will be signed.
    pub target: OrderTarget,
}

/// What `keyd` has done by an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Executed {
    /// To [`Order::Revoke`] and [`Order::RevokeInvite`].
    Revocations(Vec<Signed<Revocation>>),
    /// To [`Order::Leave`].
    Resignation(Box<Signed<Resignation>>),
    /// To [`Order::Forget`].
    Forgotten(NetworkId),
    /// To [`Order::CreateInvite`].
    Invite {
        /// The invite code.
        code: SecretText,
        /// The grant to present when it is used.
        grant: Signed<InviteGrant>,
    },
    /// To [`Order::AllowInvite`].
    Allowed(InviteId),
    /// To [`Order::Extend`].
    Membership(Signed<Membership>),
    /// To [`Order::Recover`]: how many delegations `keyd` remembers.
    Recovered(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    /// The targets that `keyd` may have verified, each with the request that it is the answer to.
    fn pairs() -> Vec<(Request, OrderTarget)> {
        let (network, node, invite) = (NetworkId([1; 32]), NodeId([2; 32]), InviteId([3; 16]));
        let address = Ipv4Addr::new(10, 42, 0, 16);
        let (node_id, id) = (node.to_string(), invite.to_string());
        let (uses, expires_at) = (Uses::Unlimited, NOW + 3600);
        let create = Request::CreateInvite {
            expires_in: 3600,
            max_uses: None,
            addresses: Some(4),
            subnet: None,
            name: None,
        };
        let own = |invite| OrderTarget::NewInvite { network, invite, uses, addresses: 4, expires_at };
        vec![
            (
                Request::Revoke { node_id: node_id.clone() },
                OrderTarget::Member { network, node, name: None, address, below: 0 },
            ),
            (
                Request::RevokeInvite { id: id.clone(), with_members: true },
                OrderTarget::Invite { network, invite, members: 1, below: 0 },
            ),
            (Request::AllowInvite { id }, own(Some(invite))),
            (Request::Leave, OrderTarget::LocalMembership { network, address, invited: 0 }),
            (create, own(None)),
            (Request::RecoverKeys, OrderTarget::Memory { network, members: 1, addresses: 16 }),
            (
                Request::Grant { node_id, addresses: 512 },
                OrderTarget::Grant { network, node, address, before: 16, after: 528 },
            ),
        ]
    }

    #[test]
    fn each_request_is_answered_by_its_order_only() {
        let pairs = pairs();
        for (at, (request, _)) in pairs.iter().enumerate() {
            for (other, (_, target)) in pairs.iter().enumerate() {
                assert_eq!(target.is_asked_for_by(request, NOW), at == other, "{request:?}: {target:?}");
            }
            let forget =
                OrderTarget::Pinned { network: NetworkId([1; 32]), address: Ipv4Addr::new(10, 42, 0, 1) };
            assert!(!forget.is_asked_for_by(request, NOW));
        }
        for request in [Request::Status, Request::Routes, Request::RotateKey] {
            assert!(pairs.iter().all(|(_, target)| !target.is_asked_for_by(&request, NOW)), "{request:?}");
        }
    }

    #[test]
    fn an_order_for_another_or_for_more_is_refused() {
        let pairs = pairs();
        let mut bad = Vec::new();
        for (request, target) in &pairs {
            match target.clone() {
                OrderTarget::Member { network, address, .. } => {
                    let node = NodeId([9; 32]);
                    bad.push((request, OrderTarget::Member { network, node, name: None, address, below: 0 }));
                }
                OrderTarget::Invite { network, members, below, .. } => {
                    let invite = InviteId([9; 16]);
                    bad.push((request, OrderTarget::Invite { network, invite, members, below }));
                }
                OrderTarget::NewInvite { network, invite: None, uses, addresses, expires_at } => {
                    let limited = Uses::Limited(9.try_into().unwrap());
                    let (more, later) = (2 * addresses, expires_at + 86_400);
                    for (uses, addresses, expires_at) in
                        [(limited, addresses, expires_at), (uses, more, expires_at), (uses, addresses, later)]
                    {
                        let invite = None;
                        let target = OrderTarget::NewInvite { network, invite, uses, addresses, expires_at };
                        bad.push((request, target));
                    }
                }
                OrderTarget::Grant { network, node, address, before, after } => {
                    let after = 2 * after;
                    bad.push((request, OrderTarget::Grant { network, node, address, before, after }));
                }
                _ => {}
            }
        }
        assert_eq!(bad.len(), 6);
        for (request, target) in bad {
            assert!(!target.is_asked_for_by(request, NOW), "{request:?}: {target:?}");
        }
        // Where it is not said how many addresses, each user gets one.
        let unsaid = Request::CreateInvite {
            expires_in: 3600,
            max_uses: None,
            addresses: None,
            subnet: None,
            name: None,
        };
        let OrderTarget::NewInvite { network, invite, uses, expires_at, .. } = pairs[4].1.clone() else {
            panic!("another target")
        };
        for (addresses, is_asked_for) in [(1, true), (2, false), (256, false)] {
            let target = OrderTarget::NewInvite { network, invite, uses, addresses, expires_at };
            assert_eq!(target.is_asked_for_by(&unsaid, NOW), is_asked_for, "{addresses}");
        }
    }
}
