//! The invites that this node has made.

use std::time::Duration;

use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteKey};
use i2plan_proto::join::Refusal;

use super::state::IssuedInvite;
use i2plan_ipc::api::meshd::{self, InviteState};
use i2plan_ipc::{ApiError, ErrorKind};

/// Invites that may be open at once.
const MAX_INVITES: usize = 1000;

/// How long an invite is remembered after it expired: until then a joiner hears that it has.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Users of an unlimited invite that are remembered.
const MAX_USERS: usize = 1000;

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
