//! Bans by this node, revocations, and leaving the network.

use i2plan_ipc::api::meshd::{self, BanReason, EventKind};
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::liveness::Presence;
use i2plan_proto::revocation::{Revocation, Target};
use tracing::{info, warn};

use super::bans::Ban;
use super::context::Context;
use super::endings::Ending;
use super::error::MeshError;
use super::local_member::LocalMember;
use super::members::EndingMerge;
use super::publication::LivenessReason;
use super::situation::Standing;
use super::{CommandId, Now};

impl LocalMember {
    /// A user bans a member.
    pub(super) fn add_ban(
        &mut self,
        cx: &mut Context,
        command: CommandId,
        node: &str,
        description: String,
        duration: Option<u64>,
        now: Now,
    ) {
        let result = self.known_node(cx, node).and_then(|node| {
            let unix = now.unix.as_secs();
            let ban = Ban {
                node,
                reason: BanReason::Manual,
                description,
                created_at: unix,
                expires_at: duration.map(|duration| unix.saturating_add(duration)),
                strikes: 0,
            };
            self.bans.add(ban.clone())?;
            Ok(ban)
        });
        let reply = result.map(|ban| {
            info!(node = %ban.node.short(), "a member is banned");
            self.note_bans_changed(cx);
            meshd::Reply::BanAdded(self.ban_report(&ban))
        });
        cx.answer(command, reply);
    }

    /// A user ends a ban.
    pub(super) fn remove_ban(&mut self, cx: &mut Context, command: CommandId, node: &str) {
        let node: Result<NodeId, _> = node.parse();
        let ban = node.ok().and_then(|node| self.bans.remove(&node));
        let reply = match ban {
            Some(ban) => {
                info!(node = %ban.node.short(), "a ban is lifted");
                self.note_bans_changed(cx);
                Ok(meshd::Reply::BanRemoved(self.ban_report(&ban)))
            }
            None => Err(MeshError::UnknownBan),
        };
        cx.answer(command, reply);
    }

    pub(super) fn note_bans_changed(&mut self, cx: &mut Context) {
        cx.unsaved = true;
        cx.peers_version += 1;
    }

    /// A member has signed what no honest one signs.
    pub(super) fn strike(&mut self, cx: &mut Context, node: &NodeId, now: Now) {
        if self.members.get(node).is_none() {
            return;
        }
        if let Some(ban) = self.bans.strike(*node, now) {
            warn!(node = %node.short(), reason = ?ban.reason, strikes = ban.strikes, "a member is banned");
            self.note_bans_changed(cx);
        }
    }

    /// Whether nothing that comes from a destination is looked at: a member that is banned uses it. It has signed that
    /// it does, so nobody can have another's destination shut out.
    pub(super) fn is_shut_out(&self, control: &DestinationHash) -> bool {
        // However many others use it too.
        let mut banned = self.bans.iter().filter_map(|ban| self.members.get(&ban.node));
        banned.any(|member| member.is_at(control))
    }

    /// The revocations that a user wanted are signed: of an invite, or of a member's certificates, of which it may have had
    /// several at a time.
    pub(super) fn handle_revocations(
        &mut self,
        cx: &mut Context,
        revocations: Vec<Signed<Revocation>>,
        command: CommandId,
        now: Now,
    ) -> Standing {
        let invite = revocations.iter().find_map(|revocation| match &revocation.value.target {
            Target::Invite(_, invite) => Some(invite.to_string()),
            Target::Certificate(_) => None,
        });
        let (mut ended, mut is_full) = (None, false);
        for revocation in revocations {
            match self.end_memberships(cx, Ending::Revocation(Box::new(revocation)), now) {
                EndingMerge::News(out) => ended.get_or_insert_with(Vec::new).extend(out),
                // What another of them says already.
                EndingMerge::Known => {}
                EndingMerge::Full => is_full = true,
            }
        }
        cx.unsaved = true;
        let result = match (invite, ended) {
            _ if is_full => Err(MeshError::TooManyRevocations),
            (Some(invite), _) => {
                self.invites.revoke(&invite, now.unix.as_secs()).map(meshd::Reply::InviteRevoked)
            }
            (None, Some(out)) => Ok(meshd::Reply::Revoked(out.iter().map(ToString::to_string).collect())),
            (None, None) => Err(MeshError::HasEnded),
        };
        let standing = self.gossip(cx, now);
        cx.answer(command, result);
        standing
    }

    /// What readers of events have not been told of bans yet.
    pub(super) fn poll_ban_events(&mut self) -> Vec<EventKind> {
        let changes = self.bans.poll_changes();
        let event = |(node, reason): (NodeId, Option<BanReason>)| {
            let (node_id, name) = (node.to_string(), self.name_of(&node));
            match reason {
                Some(reason) => EventKind::BanAdded { node_id, name, reason },
                None => EventKind::BanRemoved { node_id, name },
            }
        };
        changes.into_iter().map(event).collect()
    }

    /// Tells others that this node shuts down. True if there is somebody to tell.
    pub(super) fn begin_shutdown(&mut self, cx: &mut Context) -> bool {
        let tells = self.publication.record.is_some() && self.members.len() > 0;
        if tells {
            self.sign_liveness_message(cx, Presence::Away, LivenessReason::ShuttingDown);
        }
        tells
    }

    /// Another member by its node id.
    pub(super) fn known_node(&self, cx: &Context, node: &str) -> Result<NodeId, MeshError> {
        let id = cx.other_node(node)?;
        if self.members.get(&id).is_none() {
            return Err(MeshError::UnknownMember(id.short()));
        }
        Ok(id)
    }
}

impl Context {
    /// The id of another node, whether it is a member or not.
    pub(super) fn other_node(&self, node: &str) -> Result<NodeId, MeshError> {
        let id: NodeId = node.parse().map_err(|_| MeshError::UnknownMember(node.to_owned()))?;
        if id == self.me.node {
            return Err(MeshError::ThisNode);
        }
        Ok(id)
    }
}
