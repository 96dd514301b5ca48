//! What can be done about an error, for each program to say in its own words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::order::Order;

/// What can be done about an error.
///
/// As text it names no program's command. `i2planctl` says it with its own commands, and another program can offer what it
/// has for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Remedy {
    /// Something outside of the node's API, in words.
    Advice {
        /// The words.
        text: String,
    },
    /// Leave the present network first.
    LeaveFirst,
    /// Leave the network, where this node was to revoke its own membership.
    Leave,
    /// Look at the members.
    ListMembers,
    /// Look at the bans.
    ListBans,
    /// Lift a ban.
    RemoveBan,
    /// Ban the member on this node.
    AddBan,
    /// Look at the invites that this node has made.
    ListInvites,
    /// Let the users of an invite join.
    AllowInvite {
        /// The invite's id.
        invite: String,
    },
    /// Have the member that invited a node grant it addresses.
    AskInviter(AskInviter),
    /// Give each user of an invite fewer addresses, or have the member that invited this node grant it some.
    GiveFewerOrAsk(AskInviter),
    /// Give each user of an invite fewer addresses, or revoke members that are gone.
    GiveFewer,
    /// Ask the same at the member that invited the node.
    AskThere {
        /// What that member calls itself, or the beginning of its id.
        inviter: String,
    },
    /// Look at the addresses that are left, and grant fewer.
    GrantFewer,
    /// Complete `keyd`'s memory from the mesh.
    RecoverKeys,
    /// Have `keyd` forget its network.
    ForgetNetwork,
    /// Leave the network; if `meshd` has lost it, have `keyd` forget it.
    LeaveOrForget,
    /// Look at the keys of the configuration.
    ListSettings,
    /// See what is wrong with this node and its I2P router.
    Diagnose,
    /// Give this order, as an administrator.
    GiveOrder {
        /// The order.
        order: OrderWanted,
    },
}

/// Whom to ask for addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AskInviter {
    /// What the member that has invited the node calls itself, or the beginning of its id.
    pub inviter: String,
    /// What the node calls itself.
    pub node: String,
    /// Addresses to ask for.
    pub addresses: u32,
}

/// An [`Order`], as far as a person needs to know to give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum OrderWanted {
    /// [`Order::Revoke`].
    Revoke {
        /// The member's node id.
        node: String,
    },
    /// [`Order::RevokeInvite`].
    RevokeInvite {
        /// The invite's id.
        invite: String,
    },
    /// [`Order::Leave`].
    Leave,
    /// [`Order::Forget`].
    ForgetNetwork,
    /// [`Order::CreateInvite`].
    CreateInvite {
        /// How many nodes may join with it; none if any number may.
        uses: Option<u32>,
        /// Addresses for each of them.
        addresses: u32,
    },
    /// [`Order::AllowInvite`].
    AllowInvite {
        /// The invite's id.
        invite: String,
    },
    /// [`Order::Recover`].
    RecoverKeys,
    /// [`Order::Extend`].
    Grant {
        /// The member's node id.
        node: String,
        /// How many addresses more.
        addresses: u64,
    },
}

impl Remedy {
    /// What to do, in words.
    #[must_use]
    pub fn advice(text: impl Into<String>) -> Self {
        Self::Advice { text: text.into() }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Advice { text } => f.write_str(text),
            Self::LeaveFirst => f.write_str("leave that first: a node is a member of one network"),
            Self::Leave => f.write_str("have it leave its network"),
            Self::ListMembers => f.write_str("see which members there are"),
            Self::ListBans => f.write_str("see whom this node has banned"),
            Self::RemoveBan => f.write_str("lift a ban"),
            Self::AddBan => f.write_str("ban it: this node then drops everything that comes from it"),
            Self::ListInvites => f.write_str("see which invites this node has made"),
            Self::AllowInvite { invite } => write!(f, "allow the users of the invite {invite} to join"),
            Self::AskInviter(AskInviter { inviter, node, addresses }) => {
                write!(f, "ask {inviter}, who invited it, to grant {node} {addresses} addresses")
            }
            Self::GiveFewerOrAsk(AskInviter { inviter, node, addresses }) => write!(
                f,
                "give each fewer addresses, or ask {inviter}, who invited this node, to grant {node} {addresses}"
            ),
            Self::GiveFewer => f.write_str(
                "give each fewer addresses, or revoke members that are gone: their addresses can be delegated again \
                 after 30 days",
            ),
            Self::AskThere { inviter } => write!(f, "do this on {inviter}"),
            Self::GrantFewer => f.write_str("see how many addresses are left, and try a smaller number"),
            Self::RecoverKeys => f.write_str("complete its memory from the mesh"),
            Self::ForgetNetwork => f.write_str("have keyd forget its network"),
            Self::LeaveOrForget => {
                f.write_str("leave the network, or have keyd forget it if meshd has lost it")
            }
            Self::ListSettings => f.write_str("see which keys there are"),
            Self::Diagnose => f.write_str("see what is wrong with this node and its I2P router"),
            Self::GiveOrder { .. } => f.write_str("give this order on the node itself, as its administrator"),
        }
    }
}

impl From<&Order> for OrderWanted {
    fn from(order: &Order) -> Self {
        match order {
            Order::Revoke { chains, .. } => {
                let node = chains.first().map(|chain| chain.subject().to_string());
                Self::Revoke { node: node.unwrap_or_default() }
            }
            Order::RevokeInvite(invite) => Self::RevokeInvite { invite: invite.to_string() },
            Order::Leave(..) => Self::Leave,
            Order::Forget => Self::ForgetNetwork,
            Order::CreateInvite(wish) => {
                Self::CreateInvite { uses: wish.uses.limit(), addresses: wish.addresses }
            }
            Order::AllowInvite(grant) => Self::AllowInvite { invite: grant.value.key.id().to_string() },
            Order::Recover => Self::RecoverKeys,
            Order::Extend(extend) => {
                let before = &extend.certificate.value.grant;
                let addresses = extend.ranges.size().saturating_sub(before.ranges.size());
                Self::Grant { node: before.subject.to_string(), addresses }
            }
        }
    }
}
