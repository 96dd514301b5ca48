//! The commands of users, each by the situation that the node is in.
//!
//! A command is answered by an [`Action::Answer`](super::Action::Answer) with its id, at the latest when the request to
//! `keyd` that it takes is answered, or when the attempt to join that it waits for has ended.

use i2plan_ipc::api::order::Executed;

use super::error::MeshError;
use super::invites::InviteWish;
use super::invites::joining::Joining;
use super::situation::Situation;
use super::{CommandId, Mesh, Now};

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
        let cx = &mut self.cx;
        cx.note_former_ending();
        let wish = match InviteWish::new(command, expires_in, max_uses, addresses, now) {
            Ok(wish) => wish,
            Err(error) => return cx.answer(command, Err(error)),
        };
        match &mut self.situation {
            Situation::Outside => self.found(wish, now),
            Situation::Founding(_) => cx.answer(command, Err(MeshError::Founding)),
            Situation::Joining(_) => cx.answer(command, Err(MeshError::Joining)),
            Situation::Member(member) => member.create_invite(cx, wish, now),
        }
    }

    /// A user wants to join a network. All who give the same code meanwhile wait for the same end.
    pub fn join(&mut self, command: CommandId, code: &str, now: Now) {
        let waiting = match &mut self.situation {
            Situation::Outside | Situation::Founding(_) => None,
            Situation::Joining(joining) => Some(&mut joining.waiting),
            Situation::Member(member) => member.entering.as_mut(),
        };
        if waiting.is_some_and(|waiting| waiting.attach(command, code)) {
            return;
        }
        let joining = match &self.situation {
            Situation::Outside => Joining::start(command, code, &self.cx.me, now),
            Situation::Founding(_) | Situation::Joining(_) => Err(MeshError::Entering),
            Situation::Member(member) => Err(MeshError::IsMember(member.network().short())),
        };
        match joining {
            Ok(joining) => self.begin_joining(joining),
            Err(error) => self.cx.answer(command, Err(error)),
        }
    }

    /// A user wants this node to leave its network.
    pub fn leave(&mut self, command: CommandId) {
        match &mut self.situation {
            Situation::Member(member) => member.leave(&mut self.cx, command),
            _ => self.cx.answer(command, Err(MeshError::NoNetwork)),
        }
    }

    /// `keyd` has carried out an order.
    pub fn enact(&mut self, command: CommandId, executed: Executed, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => {
                let standing = member.enact(&mut self.cx, command, executed, now);
                self.apply(standing, now);
            }
            _ => self.cx.answer(command, Err(MeshError::NoNetwork)),
        }
    }

    /// A user revokes a membership.
    pub fn revoke(&mut self, command: CommandId, node: &str) {
        match &mut self.situation {
            Situation::Member(member) => member.revoke(&mut self.cx, command, node),
            _ => self.answer_unknown(command, node),
        }
    }

    /// A user wants a member that this node has invited to hold more addresses.
    pub fn grant(&mut self, command: CommandId, node: &str, addresses: u32, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => member.grant(&mut self.cx, command, node, addresses, now),
            _ => self.answer_unknown(command, node),
        }
    }

    /// A user wants to know whether a member answers.
    pub fn ping(&mut self, command: CommandId, node: &str, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => member.ping_for_user(&mut self.cx, command, node, now),
            _ => self.answer_unknown(command, node),
        }
    }

    /// A user bans a member, for a number of seconds or without end.
    pub fn add_ban(
        &mut self,
        command: CommandId,
        node: &str,
        description: String,
        duration: Option<u64>,
        now: Now,
    ) {
        match &mut self.situation {
            Situation::Member(member) => {
                member.add_ban(&mut self.cx, command, node, description, duration, now);
            }
            _ => self.answer_unknown(command, node),
        }
    }

    /// A user ends a ban.
    pub fn remove_ban(&mut self, command: CommandId, node: &str) {
        match &mut self.situation {
            Situation::Member(member) => member.remove_ban(&mut self.cx, command, node),
            _ => self.cx.answer(command, Err(MeshError::UnknownBan)),
        }
    }

    /// A user revokes an invite; with the memberships of those that have used it, or without.
    pub fn revoke_invite(&mut self, command: CommandId, id: &str, with_members: bool, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => {
                member.revoke_invite(&mut self.cx, command, id, with_members, now);
            }
            _ => self.cx.answer(command, Err(MeshError::UnknownInvite)),
        }
    }

    /// A user lets the users of an invite join.
    pub fn allow_invite(&mut self, command: CommandId, id: &str) {
        match &mut self.situation {
            Situation::Member(member) => member.allow_invite(&mut self.cx, command, id),
            _ => self.cx.answer(command, Err(MeshError::UnknownInvite)),
        }
    }

    /// A user wants a new WireGuard key.
    pub fn rotate_key(&mut self, command: CommandId, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => member.rotate_key(&mut self.cx, command, now),
            _ => self.cx.answer(command, Err(MeshError::NoNetworkForKey)),
        }
    }

    /// A user has the memory of `keyd` completed, of what this node has delegated: `keyd` is told of all certificates, and
    /// the answer is the order.
    pub fn recover_keys(&mut self, command: CommandId, now: Now) {
        let cx = &mut self.cx;
        if cx.me.remembers {
            return cx.answer(command, Err(MeshError::NothingToRecover));
        }
        match &mut self.situation {
            Situation::Member(member) if member.publication.record.is_some() => {
                member.recover_keys(cx, command, now);
            }
            _ => cx.answer(command, Err(MeshError::NotPublished)),
        }
    }

    /// Tells others that this node shuts down. True if there is somebody to tell, and [`Mesh::is_shut_down`] will
    /// say when that is done.
    pub fn begin_shutdown(&mut self) -> bool {
        match &mut self.situation {
            Situation::Member(member) => member.begin_shutdown(&mut self.cx),
            _ => false,
        }
    }

    /// A command is about a member, and this node is in no network.
    fn answer_unknown(&mut self, command: CommandId, node: &str) {
        let known = self.cx.other_node(node).and_then(|id| Err(MeshError::UnknownMember(id.short())));
        self.cx.answer(command, known);
    }
}
