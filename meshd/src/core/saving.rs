//! What is to be saved, and what follows if it cannot be.

use i2plan_ipc::api::meshd;
use i2plan_proto::message::Message;

use super::error::MeshError;
use super::members::Member;
use super::state::{Remembered, State};
use super::{Action, CommandId, Mesh, Now};

impl Mesh {
    /// What must be remembered over a restart.
    #[must_use]
    pub fn state(&self) -> State {
        let cx = &self.cx;
        let common = State {
            counter: cx.counter,
            former: cx.former.clone(),
            endings: cx.former_ending.iter().cloned().collect(),
            ..State::new(cx.me.node)
        };
        let Some(member) = self.member() else { return common };
        State {
            membership: Some(member.membership.clone()),
            invites: member.invites.issued().to_vec(),
            delegations: member.addresses.delegations.iter().cloned().collect(),
            members: member.members.iter().map(remembered).collect(),
            endings: member.members.endings().iter().cloned().collect(),
            bans: member.bans.iter().cloned().collect(),
            ..common
        }
    }

    /// The state could not be saved for this reason, so the turn's actions were not carried out. Saving is tried again with the
    /// next turn. Returns what is to be done nevertheless.
    pub fn handle_save_failure(&mut self, dropped: Vec<Action>, reason: &str, now: Now) -> WithoutSaving {
        self.cx.unsaved = true;
        let mut failed = Vec::new();
        let mut actions = Vec::new();
        for action in dropped {
            match action {
                Action::Answer(command, result) => failed.push((command, not_saved(*result, reason))),
                // Never asked, so it will not be answered.
                Action::Ask(ticket, _) => {
                    if let Some(pending) = self.cx.pending.remove(&ticket) {
                        let error = MeshError::NotSaved { reason: reason.to_owned(), may_be_in_force: false };
                        self.handle_reply(pending, Err(error), now);
                    }
                }
                // Lost as a datagram can be lost.
                Action::Send { message, .. } if Message::is_promise(&message) => {}
                // The node answers its members, and is not held to be away because its disk is full.
                Action::Send { .. } | Action::LookUp(_) => actions.push(action),
            }
        }
        for action in std::mem::take(&mut self.cx.actions) {
            match action {
                Action::Answer(command, result) => failed.push((command, not_saved(*result, reason))),
                other => self.cx.actions.push_back(other),
            }
        }
        WithoutSaving { failed, actions }
    }
}

/// What is done of a turn whose state could not be saved.
#[derive(Debug, Default)]
pub struct WithoutSaving {
    /// The commands that must be answered, and with what.
    pub failed: Vec<(CommandId, MeshError)>,
    /// What depends on nothing that would be forgotten: datagrams that promise nothing, and look-ups.
    pub actions: Vec<Action>,
}

/// The answer to a command whose effect could not be saved, for this reason.
fn not_saved(result: Result<meshd::Reply, MeshError>, reason: &str) -> MeshError {
    let reason = reason.to_owned();
    let done = match result {
        Err(error) => return error,
        // What keeps others out is not put off until there is room on the disk.
        Ok(meshd::Reply::BanAdded(_)) => "the ban is in force",
        Ok(meshd::Reply::BanRemoved(_)) => "the ban is lifted",
        Ok(meshd::Reply::InviteRevoked(_)) => "the invite is revoked",
        Ok(_) => return MeshError::NotSaved { reason, may_be_in_force: true },
    };
    MeshError::SavedLater { done, reason }
}

fn remembered(member: &Member) -> Remembered {
    Remembered {
        record: member.record.clone(),
        liveness_message: member.liveness_message.as_deref().cloned(),
        created: member.created,
        last_seen: member.last_seen(),
    }
}
