//! Orders: what `keyd` signs only if an administrator confirms it.
//!
//! An order ends a membership, or delegates more than [`ADDRESSES_A_DAY`]. `meshd` cannot give one. It hands out the
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
        /// What it calls itself in its record, if that was presented.
        name: Option<NodeName>,
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
    Own {
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

/// What `keyd` has signed by an order.
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
}
