//! Why a command was not carried out.

use i2plan_ipc::remedy::{AskInviter, OrderWanted};
use i2plan_ipc::{ApiError, ErrorKind, Remedy};
use i2plan_proto::invite::InviteError;
use i2plan_proto::join::Refusal;
use thiserror::Error;

use super::bans::MAX_DESCRIPTION;
use super::invites::MAX_USES;

/// Why a command was not carried out.
///
/// [`kind`](Self::kind) and [`remedy`](Self::remedy) are for programs. As an [`ApiError`] it is what crosses a socket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeshError {
    /// `keyd` refuses, or cannot be asked.
    #[error(transparent)]
    Keyd(#[from] ApiError),
    /// `keyd` has replied to something else.
    #[error("unexpected reply of keyd")]
    UnexpectedReply,
    /// `keyd` has signed with another key than this node's.
    #[error("keyd signed with another identity")]
    OtherIdentity,
    /// The state could not be saved, and nothing was done that depends on it.
    #[error("cannot save the state: {reason}")]
    NotSaved {
        /// Why not.
        reason: String,
        /// Whether what was asked may still be in force until a restart.
        may_be_in_force: bool,
    },
    /// The state could not be saved, and what was done is lost with a restart.
    #[error("{done} until a restart only: cannot save the state: {reason}")]
    SavedLater {
        /// What was done.
        done: &'static str,
        /// Why it could not be saved.
        reason: String,
    },

    /// The node is in no network.
    #[error("this node is in no network")]
    NoNetwork,
    /// The node is in no network and has no key to rotate.
    #[error("this node is in no network, and so has no WireGuard key")]
    NoNetworkForKey,
    /// The node has left its network meanwhile.
    #[error("this node has left its network")]
    HasLeft,
    /// The node is founding a network.
    #[error("this node is founding its network already")]
    Founding,
    /// The node is founding a network, or joins one by another invite.
    #[error("this node is joining or founding a network already")]
    Entering,
    /// The node is joining a network.
    #[error("this node is joining a network")]
    Joining,
    /// The node is a member of this network, whose id begins so.
    #[error("this node is already a member of network {0}")]
    IsMember(String),
    /// The node has not published its record.
    #[error("this node has not published its record yet")]
    NotPublished,

    /// No member has this node id.
    #[error("no member with the node id {0} is known")]
    UnknownMember(String),
    /// The member is banned on this node, which sends it nothing.
    #[error("this node has banned the member")]
    Banned,
    /// The member did not answer within this time, in seconds.
    #[error("the member did not answer within {0} s")]
    NoAnswer(u64),
    /// The command is for other members only.
    #[error("this is the node itself")]
    ThisNode,
    /// A node does not revoke its own membership.
    #[error("this is the node itself")]
    RevokesItself,
    /// The node is not above the member.
    #[error("only the network's founder and a member's inviters can revoke its membership")]
    MayNotRevoke,
    /// The membership has ended.
    #[error("this membership has ended already")]
    HasEnded,
    /// The node has signed as many revocations as members keep of it.
    #[error("the revocation was not accepted: this node has signed as many as it holds addresses")]
    TooManyRevocations,

    /// The node has not banned that member.
    #[error("this node has banned no such member")]
    UnknownBan,
    /// The node has banned as many members as it can.
    #[error("too many members are banned")]
    TooManyBans,
    /// A ban's description is too long.
    #[error("a ban's description can have at most {MAX_DESCRIPTION} characters")]
    LongDescription,
    /// A ban's description cannot be shown.
    #[error("a ban's description cannot have line breaks or control characters")]
    BadDescription,

    /// The node has made no such invite.
    #[error("this node has made no invite with this id")]
    UnknownInvite,
    /// As many invites are open as there can be.
    #[error("too many invites are open")]
    TooManyInvites,
    /// An invite would be valid too long, or not at all.
    #[error("an invite's life must be from one second to 366 days")]
    InviteLife,
    /// An invite for more nodes than may join with one.
    #[error("an invite can have at most {MAX_USES} uses")]
    TooManyUses,
    /// An invite for no node.
    #[error("uses must be at least 1")]
    NoUses,
    /// A number of addresses that cannot be delegated.
    #[error("addresses: {0} is not a power of two")]
    NotPowerOfTwo(u32),
    /// The node has no addresses to delegate.
    #[error("this node holds 1 address and cannot invite")]
    OneAddress(Option<AskInviter>),
    /// The node has fewer addresses left than an invite is for.
    #[error(
        "{uses} times {size} addresses are more than this node has left to delegate: {left}, in {free} ranges of {size}"
    )]
    TooFewAddresses {
        /// Nodes that were to be invited.
        uses: u64,
        /// Addresses that each of them was to have.
        size: u32,
        /// Addresses that are left.
        left: u64,
        /// Ranges of that size that are left.
        free: u64,
        /// Who can grant the node more.
        ask: Option<AskInviter>,
    },

    /// What is not an invite's code.
    #[error(transparent)]
    BadInvite(#[from] InviteError),
    /// The invite is not valid any more, since this Unix time in seconds.
    #[error("the invite expired at {}", i2plan_ipc::version::utc(*.0))]
    InviteExpired(u64),
    /// The node has made the invite itself.
    #[error("this node made the invite itself")]
    LocalInvite,
    /// The inviter refuses, or would have to.
    #[error("{0}")]
    Refused(Refusal),
    /// This node's control session was not up within this time, in seconds, for this reason.
    #[error("this node has had no I2P session for {0} s: {1}")]
    NoSession(u64, String),
    /// The router has not opened the control session within this time, in seconds.
    #[error("this node's I2P router has built no tunnels within {0} s")]
    NoTunnels(u64),
    /// The router has not answered in this time, in seconds, whether it finds the inviter.
    #[error("this node's I2P router did not say within {0} s whether it finds the inviter")]
    InviterNotFound(u64),
    /// The router does not find the inviter's lease set, in this time, in seconds, and says this of it.
    #[error("this node's I2P router found no lease set of the inviter within {0} s ({1})")]
    InviterLookup(u64, String),
    /// The inviter did not answer in this time, in seconds.
    #[error("the inviter is on I2P, but did not answer within {0} s")]
    InviterSilent(u64),

    /// Another member has invited the node that was to get more addresses; what that member calls itself, or the beginning
    /// of its id.
    #[error("only the member that has invited a node can grant it addresses")]
    MayNotGrant(Option<String>),
    /// Addresses are being granted already.
    #[error("another grant is under way")]
    Granting,
    /// The node has no such range left to grant.
    #[error(
        "this node has no range of {0} addresses left that was never in use, or the member has four ranges already"
    )]
    NoRange(u32),

    /// The node has no WireGuard key to rotate.
    #[error("this node has not published its first WireGuard key yet")]
    NoKey,
    /// The key is being rotated.
    #[error("the WireGuard key is being rotated already")]
    Rotating,
    /// The key's epoch has just begun.
    #[error("the WireGuard key was rotated less than a minute ago")]
    RotatedJustNow,

    /// `keyd`'s memory is complete.
    #[error("keyd remembers all that this node has delegated: there is nothing to recover")]
    NothingToRecover,
    /// The node may not know all that it has delegated.
    #[error("this node has completed no comparison with a member since its start")]
    NotCompared,
    /// `keyd` was not ordered to take its memory for complete.
    #[error("keyd does not take its memory for complete")]
    NotRecovered,

    /// What was carried out is not signed by this node, or not for its network.
    #[error("not this node's: {0}")]
    Foreign(String),
    /// What was carried out concerns this node alone.
    #[error("there is nothing to distribute")]
    NothingToDistribute,
    /// What was carried out is more than one order.
    #[error("one to four revocations are expected")]
    RevocationCount,
    /// The resignation is from a membership before.
    #[error("it is of a membership that ended before")]
    EarlierMembership,
    /// The invite is not a new one.
    #[error("the invite is known, or of another network")]
    KnownInvite,
    /// The certificate is for another network.
    #[error("it is of another network")]
    OtherNetwork,
}

impl MeshError {
    /// What sort of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Keyd(error) => error.kind,
            Self::UnexpectedReply | Self::OtherIdentity | Self::NotSaved { .. } | Self::SavedLater { .. } => {
                ErrorKind::Internal
            }
            Self::NoNetwork
            | Self::NoNetworkForKey
            | Self::HasLeft
            | Self::Founding
            | Self::Entering
            | Self::Joining
            | Self::IsMember(_)
            | Self::NotPublished
            | Self::HasEnded
            | Self::Banned
            | Self::TooManyRevocations
            | Self::TooManyBans
            | Self::TooManyInvites
            | Self::TooFewAddresses { .. }
            | Self::Granting
            | Self::NoRange(_)
            | Self::Rotating
            | Self::RotatedJustNow
            | Self::NothingToRecover
            | Self::NotRecovered
            | Self::EarlierMembership
            | Self::KnownInvite
            | Self::OtherNetwork => ErrorKind::Conflict,
            Self::UnknownMember(_) | Self::UnknownBan | Self::UnknownInvite => ErrorKind::NotFound,
            Self::ThisNode
            | Self::RevokesItself
            | Self::LongDescription
            | Self::BadDescription
            | Self::InviteLife
            | Self::TooManyUses
            | Self::NoUses
            | Self::NotPowerOfTwo(_)
            | Self::BadInvite(_)
            | Self::InviteExpired(_)
            | Self::LocalInvite
            | Self::Foreign(_)
            | Self::NothingToDistribute
            | Self::RevocationCount => ErrorKind::Invalid,
            Self::MayNotRevoke | Self::OneAddress(_) | Self::MayNotGrant(_) => ErrorKind::Denied,
            Self::NoSession(..) => ErrorKind::Unavailable,
            Self::NoTunnels(_)
            | Self::InviterNotFound(_)
            | Self::InviterLookup(..)
            | Self::InviterSilent(_)
            | Self::NoAnswer(_) => ErrorKind::Timeout,
            Self::NoKey | Self::NotCompared => ErrorKind::Unavailable,
            Self::Refused(refusal) => match refusal {
                Refusal::Unknown => ErrorKind::NotFound,
                Refusal::Expired
                | Refusal::UsedUp
                | Refusal::TooDeep
                | Refusal::Revoked
                | Refusal::Above
                | Refusal::NoAddresses => ErrorKind::Denied,
                Refusal::Busy => ErrorKind::Unavailable,
            },
        }
    }

    /// What can be done about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        let advice = match self {
            Self::Keyd(error) => return error.remedy.clone(),
            Self::IsMember(_) => return Some(Remedy::LeaveFirst),
            Self::UnknownMember(_) => return Some(Remedy::ListMembers),
            Self::RevokesItself => return Some(Remedy::Leave),
            Self::MayNotRevoke => return Some(Remedy::AddBan),
            Self::UnknownBan | Self::Banned => return Some(Remedy::ListBans),
            Self::TooManyBans => return Some(Remedy::RemoveBan),
            Self::UnknownInvite => return Some(Remedy::ListInvites),
            Self::OneAddress(ask) => return ask.clone().map(Remedy::AskInviter),
            Self::TooFewAddresses { ask, .. } => {
                return Some(ask.clone().map_or(Remedy::GiveFewer, Remedy::GiveFewerOrAsk));
            }
            Self::MayNotGrant(inviter) => {
                return inviter.clone().map(|inviter| Remedy::AskThere { inviter });
            }
            Self::NoRange(_) => return Some(Remedy::GrantFewer),
            Self::NotRecovered => return Some(Remedy::GiveOrder { order: OrderWanted::RecoverKeys }),
            Self::NotPowerOfTwo(size) => {
                let (less, more) = (1u64 << (*size).max(1).ilog2(), u64::from(*size).next_power_of_two());
                return Some(Remedy::advice(format!("use {less} or {more}")));
            }
            Self::NotSaved { may_be_in_force: false, .. } => {
                "see that the state directory is writable and the disk is not full, then try again"
            }
            Self::NotSaved { may_be_in_force: true, .. } => {
                "see that the state directory is writable and the disk is not full, then try again; what was asked may \
                 be in force until a restart"
            }
            Self::SavedLater { .. } => {
                "see that the state directory is writable and the disk is not full; as soon as the state can be saved, \
                 it lasts"
            }
            Self::Founding | Self::Granting => "try again",
            Self::NoAnswer(_) => "a datagram may have been lost: try again; else it is off, or its router is",
            Self::Entering => "wait for it",
            Self::Joining => "wait until that has succeeded or failed, then try again",
            Self::NotPublished => "join a network, or see that its I2P sessions are up; then try again",
            Self::TooManyRevocations => {
                "ask the founder, or a member that holds more addresses, to revoke it"
            }
            Self::TooManyInvites => "wait until some have expired",
            Self::TooManyUses => "make it unlimited if that is what you mean",
            Self::InviteExpired(_) => "ask for a new one; if that is not past, this machine's clock is wrong",
            Self::LocalInvite => "use it on another node",
            Self::NoSession(..) => return Some(Remedy::Diagnose),
            Self::NoTunnels(_) => {
                "a router that has just started can take ten minutes: see in its console that it knows other routers and \
                 builds tunnels, and that the host's clock is right; then try again with the same invite"
            }
            Self::InviterNotFound(_) => {
                "see that this node's router is connected to others, then try again with the same invite"
            }
            Self::InviterLookup(..) => {
                "check that the inviter's node and router are running: a node that has just started is found after a \
                 minute; then try again with the same invite"
            }
            Self::InviterSilent(_) => {
                "check that i2plan is running at the inviter, and what its node says of its sessions; then try again with \
                 the same invite"
            }
            Self::NoKey => "see that its I2P sessions are up, then try again",
            Self::RotatedJustNow => "an epoch lasts a minute at least; try again after that",
            Self::NotCompared => "see that a member is reachable, then try again",
            Self::UnexpectedReply
            | Self::OtherIdentity
            | Self::NoNetwork
            | Self::NoNetworkForKey
            | Self::HasLeft
            | Self::ThisNode
            | Self::HasEnded
            | Self::LongDescription
            | Self::BadDescription
            | Self::InviteLife
            | Self::NoUses
            | Self::BadInvite(_)
            | Self::Refused(_)
            | Self::Rotating
            | Self::NothingToRecover
            | Self::Foreign(_)
            | Self::NothingToDistribute
            | Self::RevocationCount
            | Self::EarlierMembership
            | Self::KnownInvite
            | Self::OtherNetwork => return None,
        };
        Some(Remedy::advice(advice))
    }
}

impl From<MeshError> for ApiError {
    fn from(error: MeshError) -> Self {
        match error {
            MeshError::Keyd(error) => error,
            error => Self { kind: error.kind(), message: error.to_string(), remedy: error.remedy() },
        }
    }
}
