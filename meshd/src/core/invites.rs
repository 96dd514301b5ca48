//! The invites that this node has made.

use std::time::Duration;

use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteKey};
use i2plan_proto::join::Refusal;

use super::state::IssuedInvite;

/// Invites that may be open at once.
const MAX_INVITES: usize = 1000;

/// How long an invite is remembered after it expired: until then a joiner hears that it has.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The answer to a joiner.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It gets a certificate.
    Certify {
        /// To be shown to `keyd`.
        grant: Signed<InviteGrant>,
        /// This is its first request, and it has been counted.
        counted: bool,
    },
    /// It does not.
    Refuse(Refusal),
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
        self.0.push(IssuedInvite { grant, used_by: Vec::new() });
    }

    /// Decides on the holder of an invite, and counts the use. A repetition by the same node is not counted.
    pub(super) fn use_by(&mut self, key: &InviteKey, joiner: NodeId, unix: Duration) -> Verdict {
        let Some(invite) = self.0.iter_mut().find(|invite| invite.grant.value.key == *key) else {
            return Verdict::Refuse(Refusal::Unknown);
        };
        if invite.grant.value.expires_at < unix.as_secs() {
            return Verdict::Refuse(Refusal::Expired);
        }
        let grant = invite.grant.clone();
        // Users of an unlimited invite need no counting, and could not be remembered without end.
        let Some(limit) = grant.value.uses.limit() else { return Verdict::Certify { grant, counted: false } };
        if invite.used_by.contains(&joiner) {
            return Verdict::Certify { grant, counted: false };
        }
        if invite.used_by.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Verdict::Refuse(Refusal::UsedUp);
        }
        invite.used_by.push(joiner);
        Verdict::Certify { grant, counted: true }
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
