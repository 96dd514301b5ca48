//! The commands of users, each by the situation that the node is in.
//!
//! A command is answered by an [`Action::Answer`](super::Action::Answer) with its id, at the latest when the request to
//! `keyd` that it takes is answered, or when the attempt to join that it waits for has ended.

use i2plan_ipc::ApiError;
use i2plan_ipc::api::order::Executed;

use super::exclusion::{unknown, unknown_ban};
use super::invites::joining::{Joining, is_joining};
use super::invites::{InviteWish, unknown_invite};
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
            Situation::Founding(_) => {
                let error = ApiError::conflict("this node is founding its network already");
                cx.answer(command, Err(error.with_hint("try again")));
            }
            Situation::Joining(_) => cx.answer(command, Err(is_joining())),
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
            Situation::Founding(_) | Situation::Joining(_) => {
                let error = ApiError::conflict("this node is joining or founding a network already");
                Err(error.with_hint("wait for it"))
            }
            Situation::Member(member) => {
                let network = member.network().short();
                let error = ApiError::conflict(format!("this node is already a member of network {network}"));
                let hint = "leave that first, with `i2planctl leave`: a node is a member of one network";
                Err(error.with_hint(hint))
            }
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
            _ => self.cx.answer(command, Err(in_no_network())),
        }
    }

    /// `keyd` has carried out an order.
    pub fn enact(&mut self, command: CommandId, executed: Executed, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => {
                let standing = member.enact(&mut self.cx, command, executed, now);
                self.apply(standing, now);
            }
            _ => self.cx.answer(command, Err(in_no_network())),
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
            _ => self.cx.answer(command, Err(unknown_ban())),
        }
    }

    /// A user revokes an invite; with the memberships of those that have used it, or without.
    pub fn revoke_invite(&mut self, command: CommandId, id: &str, with_members: bool, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => {
                member.revoke_invite(&mut self.cx, command, id, with_members, now);
            }
            _ => self.cx.answer(command, Err(unknown_invite())),
        }
    }

    /// A user lets the users of an invite join.
    pub fn allow_invite(&mut self, command: CommandId, id: &str) {
        match &mut self.situation {
            Situation::Member(member) => member.allow_invite(&mut self.cx, command, id),
            _ => self.cx.answer(command, Err(unknown_invite())),
        }
    }

    /// A user wants a new WireGuard key.
    pub fn rotate_key(&mut self, command: CommandId, now: Now) {
        match &mut self.situation {
            Situation::Member(member) => member.rotate_key(&mut self.cx, command, now),
            _ => {
                let error = "this node is in no network, and so has no WireGuard key";
                self.cx.answer(command, Err(ApiError::conflict(error)));
            }
        }
    }

    /// A user has the memory of `keyd` completed, of what this node has delegated: `keyd` is told of all certificates, and
    /// the answer is the order.
    pub fn recover_keys(&mut self, command: CommandId, now: Now) {
        let cx = &mut self.cx;
        if cx.me.remembers {
            let error = "keyd remembers all that this node has delegated: there is nothing to recover";
            return cx.answer(command, Err(ApiError::conflict(error)));
        }
        match &mut self.situation {
            Situation::Member(member) if member.publication.record.is_some() => {
                member.recover_keys(cx, command, now);
            }
            _ => {
                let error = ApiError::conflict("this node has not published its record yet");
                let hint = "join a network, or see that its I2P sessions are up; then try again";
                cx.answer(command, Err(error.with_hint(hint)));
            }
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
        let known = self.cx.other_node(node).and_then(|id| Err(unknown(&id.short())));
        self.cx.answer(command, known);
    }
}

fn in_no_network() -> ApiError {
    ApiError::conflict("this node is in no network")
}
