//! The life of an invite, and where it is validated.
//!
//! * This file: a user makes an invite, what can be asked for ([`InviteWish`]); whether a node may use it
//!   ([`Invites::grant`]); a user revokes it.
//! * `joining`: the joiner's side. The code is checked ([`joining::Joining::start`]), the inviter asked, its welcome checked.
//! * `admission`: the inviter's side. A request to join is checked and answered.

use std::num::NonZeroU32;
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, CreateInvite};
use i2plan_ipc::api::meshd::{self, EventKind, InviteState};
use i2plan_ipc::api::order::Order;
use i2plan_ipc::remedy::AskInviter;
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::version::utc;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteKey, Uses};
use i2plan_proto::join::Refusal;
use i2plan_proto::membership::MAX_DEPTH;
use i2plan_proto::record::NodeName;
use tracing::info;

use super::addresses::delegations::{Delegations, Holding};

use super::context::Context;
use super::error::MeshError;
use super::local_member::LocalMember;
use super::requests::Pending;
use super::state::IssuedInvite;
use super::{CommandId, Now};

mod admission;
pub(super) mod joining;

/// Longest life of an invite.
const MAX_EXPIRY: Duration = Duration::from_secs(366 * 24 * 3600);

/// Most uses that a limited invite may have: each user is remembered.
pub(super) const MAX_USES: u32 = 1000;

/// Invites that may be open at once.
const MAX_INVITES: usize = 1000;

/// How long an invite is remembered after it expired: until then a joiner hears that it has.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Users of an unlimited invite that are remembered.
const MAX_USERS: usize = 1000;

/// The invite that a user asked for.
#[derive(Debug, Clone)]
pub(super) struct InviteWish {
    pub(super) command: CommandId,
    pub(super) expires_at: u64,
    pub(super) uses: Uses,
    /// Addresses for each of its users; none for as many as is usual.
    pub(super) addresses: Option<u32>,
}

/// All invites of this node.
#[derive(Debug)]
pub(super) struct Invites(Vec<IssuedInvite>);

impl Invites {
    pub(super) fn new(issued: Vec<IssuedInvite>) -> Self {
        Self(issued)
    }

    pub(super) fn issued(&self) -> &[IssuedInvite] {
        &self.0
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_INVITES
    }

    pub(super) fn add(&mut self, grant: Signed<InviteGrant>) {
        self.0.push(IssuedInvite { grant, used_by: Vec::new(), revoked: false });
    }

    /// The grant of an invite, if a node may use it.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn grant(
        &self,
        key: &InviteKey,
        joiner: &NodeId,
        unix: Duration,
    ) -> Result<&Signed<InviteGrant>, Refusal> {
        let invite = self.0.iter().find(|invite| invite.grant.value.key == *key);
        let invite = invite.ok_or(Refusal::Unknown)?;
        if invite.revoked {
            return Err(Refusal::Revoked);
        }
        if invite.grant.value.expires_at < unix.as_secs() {
            return Err(Refusal::Expired);
        }
        let limit = invite.grant.value.uses.limit().and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| invite.used_by.len() >= limit) && !invite.used_by.contains(joiner) {
            return Err(Refusal::UsedUp);
        }
        Ok(&invite.grant)
    }

    /// Counts a use. A repetition by the same node is not counted. Returns whether it was.
    pub(super) fn count(&mut self, key: &InviteKey, joiner: NodeId) -> bool {
        let Some(invite) = self.0.iter_mut().find(|invite| invite.grant.value.key == *key) else {
            return false;
        };
        if invite.used_by.contains(&joiner) {
            return false;
        }
        // Nothing depends on the users of an unlimited invite; the last of them are kept for people to see.
        if invite.grant.value.uses.limit().is_none() && invite.used_by.len() >= MAX_USERS {
            invite.used_by.remove(0);
        }
        invite.used_by.push(joiner);
        true
    }

    /// All that are remembered, the newest first.
    pub(super) fn list(&self, unix: u64) -> Vec<meshd::IssuedInvite> {
        self.0.iter().rev().map(|invite| report(invite, unix)).collect()
    }

    /// Makes an invite good for nothing. Doing so again changes nothing.
    ///
    /// # Errors
    /// [`MeshError::UnknownInvite`].
    pub(super) fn revoke(&mut self, id: &str, unix: u64) -> Result<meshd::IssuedInvite, MeshError> {
        let invite = self.0.iter_mut().find(|invite| invite.grant.value.key.id().to_string() == id);
        let invite = invite.ok_or(MeshError::UnknownInvite)?;
        invite.revoked = true;
        Ok(report(invite, unix))
    }

    /// Whether there is such an invite and it has been revoked.
    pub(super) fn is_revoked(&self, id: &str) -> bool {
        self.0.iter().any(|invite| invite.revoked && invite.grant.value.key.id().to_string() == id)
    }

    /// Forgets what expired long ago; true if there was any.
    pub(super) fn remove_expired(&mut self, unix: Duration) -> bool {
        let before = self.0.len();
        self.0.retain(|invite| {
            invite.grant.value.expires_at.saturating_add(REMEMBER.as_secs()) >= unix.as_secs()
        });
        self.0.len() != before
    }
}

fn report(invite: &IssuedInvite, unix: u64) -> meshd::IssuedInvite {
    let grant = &invite.grant.value;
    let max_uses = grant.uses.limit();
    let used_up =
        max_uses.is_some_and(|max| invite.used_by.len() >= usize::try_from(max).unwrap_or(usize::MAX));
    let state = match invite {
        _ if invite.revoked => InviteState::Revoked,
        _ if grant.expires_at < unix => InviteState::Expired,
        _ if used_up => InviteState::UsedUp,
        _ => InviteState::Open,
    };
    meshd::IssuedInvite {
        id: grant.key.id().to_string(),
        state,
        created_at: grant.created_at,
        expires_at: grant.expires_at,
        max_uses,
        addresses: grant.addresses,
        used_by: invite.used_by.iter().map(ToString::to_string).collect(),
    }
}

/// An invite, for users.
fn describe(code: SecretText, grant: &InviteGrant, founded: bool) -> meshd::Invite {
    let expires = utc(grant.expires_at);
    info!(invite = %grant.key.id(), expires, uses = grant.uses.limit(), "made an invite");
    meshd::Invite {
        invite: code,
        id: grant.key.id().to_string(),
        expires_at: grant.expires_at,
        max_uses: grant.uses.limit(),
        addresses: grant.addresses,
        network: grant.network.to_string(),
        founded,
    }
}

impl InviteWish {
    /// An invite for a user, if there may be such a one.
    ///
    /// # Errors
    /// If its life or its uses are out of bounds.
    pub(super) fn new(
        command: CommandId,
        expires_in: u64,
        max_uses: Option<u32>,
        addresses: Option<u32>,
        now: Now,
    ) -> Result<Self, MeshError> {
        if expires_in == 0 || expires_in > MAX_EXPIRY.as_secs() {
            return Err(MeshError::InviteLife);
        }
        let uses = match max_uses.map(NonZeroU32::new) {
            None => Uses::Unlimited,
            Some(Some(uses)) if uses.get() <= MAX_USES => Uses::Limited(uses),
            Some(Some(_)) => return Err(MeshError::TooManyUses),
            Some(None) => return Err(MeshError::NoUses),
        };
        let expires_at = now.unix.as_secs().saturating_add(expires_in);
        Ok(Self { command, expires_at, uses, addresses })
    }

    /// Addresses for each of its users.
    fn size(&self, holding: &Holding) -> u32 {
        let usual = if self.uses.limit() == Some(1) { holding.default_size() } else { 1 };
        self.addresses.unwrap_or(usual)
    }

    /// Checks that there are addresses for all its users among those that this node, which calls itself `name`, holds and
    /// has not delegated. `inviter` is what the member that has invited this node calls itself, if there is one.
    ///
    /// # Errors
    /// [`MeshError`], with what to ask for instead.
    pub(super) fn check_addresses(
        &self,
        holding: &Holding,
        delegations: &Delegations,
        (name, inviter): (&NodeName, Option<String>),
        now: Now,
    ) -> Result<(), MeshError> {
        let size = self.size(holding);
        if !size.is_power_of_two() {
            return Err(MeshError::NotPowerOfTwo(size));
        }
        let ask =
            |addresses| inviter.map(|inviter| AskInviter { inviter, node: name.to_string(), addresses });
        if holding.ranges.size() == 1 {
            return Err(MeshError::OneAddress(ask(16)));
        }
        let free = delegations.free(holding, size, now.unix.as_secs());
        let uses = u64::from(self.uses.limit().unwrap_or(1));
        if uses > free {
            let left = delegations.free(holding, 1, now.unix.as_secs());
            return Err(MeshError::TooFewAddresses { uses, size, left, free, ask: ask(size) });
        }
        Ok(())
    }
}

impl LocalMember {
    /// A user wants an invite.
    pub(super) fn create_invite(&mut self, cx: &mut Context, wish: InviteWish, now: Now) {
        match self.check_wish(cx, &wish, now) {
            Err(error) => cx.answer(wish.command, Err(error)),
            Ok(()) => self.ask_invite(cx, wish, false),
        }
    }

    fn check_wish(&self, cx: &Context, wish: &InviteWish, now: Now) -> Result<(), MeshError> {
        if self.invites.is_full() {
            return Err(MeshError::TooManyInvites);
        }
        if self.entering.is_some() {
            return Err(MeshError::Joining);
        }
        if self.membership.chain.depth() >= MAX_DEPTH {
            return Err(MeshError::Refused(Refusal::TooDeep));
        }
        let names = (&cx.settings.name, self.inviter_name());
        wish.check_addresses(&self.holding(), &self.addresses.delegations, names, now)
    }

    /// The name of the member that has invited this node, or the beginning of its id.
    fn inviter_name(&self) -> Option<String> {
        let inviter = *self.membership.chain.ancestors().last()?;
        Some(self.name_of(&inviter).unwrap_or_else(|| inviter.short()))
    }

    /// Has an invite signed. If the network was founded for it, whoever it is answered to is told so.
    pub(super) fn ask_invite(&mut self, cx: &mut Context, wish: InviteWish, founded: bool) {
        let (network, name, subnet) = (self.network(), self.charter().name.clone(), self.charter().subnet);
        let addresses = wish.size(&self.holding());
        let InviteWish { expires_at, uses, .. } = wish;
        let request = CreateInvite { network, name, subnet, expires_at, uses, addresses };
        if Order::is_needed_for_invite(uses, addresses) {
            return cx.propose(wish.command, Order::CreateInvite(request), Vec::new(), founded);
        }
        cx.ask(Pending::Invite { wish, founded }, keyd::Request::CreateInvite(request));
    }

    /// An invite is signed.
    pub(super) fn add_invite(
        &mut self,
        cx: &mut Context,
        command: CommandId,
        (code, grant): (SecretText, Signed<InviteGrant>),
        founded: bool,
    ) {
        let invite = describe(code, &grant.value, founded);
        cx.events.push(EventKind::InviteCreated { id: invite.id.clone() });
        self.invites.add(grant);
        cx.unsaved = true;
        cx.answer(command, Ok(meshd::Reply::Invite(invite)));
    }

    /// A user revokes an invite; with the memberships of those that have used it, or without.
    pub(super) fn revoke_invite(
        &mut self,
        cx: &mut Context,
        command: CommandId,
        id: &str,
        with_members: bool,
        now: Now,
    ) {
        let was_revoked = self.invites.is_revoked(id);
        let result = self.invites.revoke(id, now.unix.as_secs());
        if result.is_ok() && !was_revoked {
            cx.events.push(EventKind::InviteRevoked { id: id.to_owned() });
            info!(invite = id, "an invite is revoked");
            cx.unsaved = true;
        }
        if with_members
            && result.is_ok()
            && let Ok(invite) = id.parse()
        {
            return self.propose_revoking_users(cx, command, invite);
        }
        cx.answer(command, result.map(meshd::Reply::InviteRevoked));
    }
}
