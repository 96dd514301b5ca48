//! The life of an invite, and where it is validated.
//!
//! * This file: a user makes an invite, what can be asked for ([`Mesh::create_invite`]); whether a node may use it
//!   ([`Invites::grant`]); a user revokes it.
//! * `joining`: the joiner's side. The code is checked ([`joining::Joining::start`]), the inviter asked, its welcome checked.
//! * `admission`: the inviter's side. A request to join is checked and answered.

use std::num::NonZeroU32;
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, CreateInvite};
use i2plan_ipc::api::meshd::{self, InviteState, What};
use i2plan_ipc::api::order::Order;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteKey, Uses};
use i2plan_proto::join::Refusal;
use i2plan_proto::membership::{Charter, MAX_DEPTH};
use rand::RngExt as _;
use tracing::info;

use super::state::IssuedInvite;
use super::{CommandId, Mesh, Now, Pending};

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
    /// [`ErrorKind::NotFound`] if there is none with this id.
    pub(super) fn revoke(&mut self, id: &str, unix: u64) -> Result<meshd::IssuedInvite, ApiError> {
        let invite = self.0.iter_mut().find(|invite| invite.grant.value.key.id().to_string() == id);
        let invite = invite.ok_or_else(|| {
            ApiError::new(ErrorKind::NotFound, "this node has made no invite with this id")
                .with_hint("`i2planctl invite list` shows those that it has made")
        })?;
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

impl Mesh {
    /// A user wants an invite. The first one founds the network.
    pub fn create_invite(
        &mut self,
        command: CommandId,
        expires_in: u64,
        max_uses: Option<u32>,
        addresses: Option<u32>,
        now: Now,
    ) {
        self.note_former_ending();
        match self.check_wish(command, expires_in, max_uses, addresses, now) {
            Err(error) => self.answer(command, Err(error)),
            Ok(wish) if self.membership.is_some() => self.ask_invite(wish, false),
            Ok(wish) => {
                let charter = Charter {
                    founder: self.me.node,
                    subnet: self.settings.subnet,
                    founded_at: now.unix.as_secs(),
                    nonce: self.rng.random(),
                };
                self.ask(Pending::Charter(charter.clone(), wish), keyd::Request::SignCharter(charter));
            }
        }
    }

    pub(super) fn check_wish(
        &self,
        command: CommandId,
        expires_in: u64,
        max_uses: Option<u32>,
        addresses: Option<u32>,
        now: Now,
    ) -> Result<InviteWish, ApiError> {
        if expires_in == 0 || expires_in > MAX_EXPIRY.as_secs() {
            return Err(ApiError::invalid("an invite's life must be from one second to 366 days"));
        }
        let uses = match max_uses.map(NonZeroU32::new) {
            None => Uses::Unlimited,
            Some(Some(uses)) if uses.get() <= MAX_USES => Uses::Limited(uses),
            Some(Some(_)) => {
                return Err(ApiError::invalid(format!("an invite can have at most {MAX_USES} uses"))
                    .with_hint("make it unlimited if that is what you mean"));
            }
            Some(None) => return Err(ApiError::invalid("uses must be at least 1")),
        };
        if self.invites.is_full() {
            return Err(
                ApiError::conflict("too many invites are open").with_hint("wait until some have expired")
            );
        }
        if self.joining.is_some() {
            return Err(ApiError::conflict("this node is joining a network")
                .with_hint("wait until that has succeeded or failed, then try again"));
        }
        let founding = self.pending.values().any(|pending| matches!(pending, Pending::Charter(..)));
        if self.membership.is_none() && founding {
            return Err(
                ApiError::conflict("this node is founding its network already").with_hint("try again")
            );
        }
        let depth = self.membership.as_ref().map_or(0, |membership| membership.chain.depth());
        if depth >= MAX_DEPTH {
            return Err(ApiError::denied(Refusal::TooDeep.to_string()));
        }
        let expires_at = now.unix.as_secs().saturating_add(expires_in);
        let wish = InviteWish { command, expires_at, uses, addresses };
        self.check_addresses(&wish, now)?;
        Ok(wish)
    }

    /// The name of the member that has invited this node, or the beginning of its id.
    pub(super) fn inviter_name(&self) -> Option<String> {
        let inviter = *self.membership.as_ref()?.chain.ancestors().last()?;
        Some(self.name_of(&inviter).unwrap_or_else(|| inviter.short()))
    }

    pub(super) fn ask_invite(&mut self, wish: InviteWish, founded: bool) {
        let Some(charter) = self.charter() else { return };
        let (network, subnet) = (charter.network(), charter.subnet);
        let addresses = self.addresses_for(&wish);
        let InviteWish { expires_at, uses, .. } = wish;
        let request = CreateInvite { network, subnet, expires_at, uses, addresses };
        if Order::is_needed_for_invite(uses, addresses) {
            return self.propose(wish.command, Order::CreateInvite(request), Vec::new(), founded);
        }
        self.ask(Pending::Invite { wish, founded }, keyd::Request::CreateInvite(request));
    }

    /// The network's charter.
    pub(super) fn charter(&self) -> Option<Charter> {
        self.membership.as_ref().map(|membership| membership.charter.value.clone())
    }

    /// A user revokes an invite; with the memberships of those that have used it, or without.
    pub fn revoke_invite(&mut self, command: CommandId, id: &str, with_members: bool, now: Now) {
        let was_revoked = self.invites.is_revoked(id);
        let result = self.invites.revoke(id, now.unix.as_secs());
        if result.is_ok() && !was_revoked {
            self.events.push(What::InviteRevoked { id: id.to_owned() });
            info!(invite = id, "an invite is revoked");
            self.unsaved = true;
        }
        if with_members
            && result.is_ok()
            && let Ok(invite) = id.parse()
        {
            return self.propose_revoking_users(command, invite);
        }
        self.answer(command, result.map(meshd::Reply::InviteRevoked));
    }
}
