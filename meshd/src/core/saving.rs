//! What is to be saved, and what follows if it cannot be.

use i2plan_ipc::ApiError;
use i2plan_ipc::api::meshd;

use super::members::Member;
use super::state::{Remembered, State};
use super::{Action, CommandId, Mesh, Now};

/// What to do where the state cannot be saved.
const SEE_DISK: &str = "see that the state directory is writable and the disk is not full";

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

    /// The state could not be saved, so the turn's actions were not carried out. Saving is tried again with the
    /// next turn. Returns the commands that must now be answered, and with what.
    pub fn handle_save_failure(
        &mut self,
        dropped: Vec<Action>,
        error: &ApiError,
        now: Now,
    ) -> Vec<(CommandId, ApiError)> {
        self.cx.unsaved = true;
        let mut failed = Vec::new();
        for action in dropped {
            match action {
                Action::Answer(command, result) => failed.push((command, not_saved(*result, error))),
                // Never asked, so it will not be answered.
                Action::Ask(ticket, _) => {
                    if let Some(pending) = self.cx.pending.remove(&ticket) {
                        let hint = format!("{SEE_DISK}, then try again");
                        self.handle_reply(pending, Err(error.clone().with_hint(hint)), now);
                    }
                }
                // Lost as a datagram can be lost.
                Action::Send { .. } | Action::LookUp(_) => {}
            }
        }
        for action in std::mem::take(&mut self.cx.actions) {
            match action {
                Action::Answer(command, result) => failed.push((command, not_saved(*result, error))),
                other => self.cx.actions.push_back(other),
            }
        }
        failed
    }
}

/// The answer to a command whose effect could not be saved, for this reason.
fn not_saved(result: Result<meshd::Reply, ApiError>, error: &ApiError) -> ApiError {
    let now = match result {
        Err(error) => return error,
        // What keeps others out is not put off until there is room on the disk.
        Ok(meshd::Reply::BanAdded(_)) => "the ban is in force",
        Ok(meshd::Reply::BanRemoved(_)) => "the ban is lifted",
        Ok(meshd::Reply::InviteRevoked(_)) => "the invite is revoked",
        Ok(_) => {
            let hint = format!("{SEE_DISK}, then try again; what was asked may be in force until a restart");
            return error.clone().with_hint(hint);
        }
    };
    ApiError::new(error.kind, format!("{now} until a restart only: {}", error.message))
        .with_hint(format!("{SEE_DISK}; as soon as the state can be saved, it lasts"))
}

fn remembered(member: &Member) -> Remembered {
    Remembered {
        record: member.record.clone(),
        liveness_message: member.liveness_message.as_deref().cloned(),
        created: member.created,
        last_seen: member.last_seen(),
    }
}
