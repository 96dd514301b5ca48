//! Requests to `keyd` and what follows from its replies.

use i2plan_ipc::api::keyd::{self, ExtendMember};
use i2plan_ipc::api::meshd::{self, What};
use i2plan_ipc::api::order::Order;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::join::JoinBody;
use i2plan_proto::membership::{Chain, Charter};
use tracing::warn;

use super::invites::InviteWish;
use super::own::LivenessReason;
use super::{Action, CommandId, KEYD_RETRY, Mesh, Now, Refresh, Ticket, orders};

/// A question to `keyd` that is not answered yet.
#[derive(Debug)]
pub(super) enum Pending {
    /// The charter of the network that this node founds, and the invite that it is founded for.
    Charter(Charter, InviteWish),
    /// An invite.
    Invite { wish: InviteWish, founded: bool },
    /// The certificate of the WireGuard key for the own record.
    WireGuard,
    /// The own record.
    Record,
    /// A word on this node's own life.
    Pulse(LivenessReason),
    /// That another cannot be reached.
    Accusation(Accusation),
    /// The network that `keyd` signs for, where it refuses this node's record.
    Pinned,
    /// That `keyd` takes note of a statement, with this number if it is in this node's name.
    Note(Option<u64>),
    /// That `keyd` takes in certificates that its memory has lost, for a user.
    Recovery(CommandId),
    /// Whether `keyd` takes its memory for complete, as the user says who has ordered it.
    Recovered(CommandId),
    /// More addresses for a member, for a user.
    Extension(CommandId, Box<ExtendMember>),
    /// The own request to join.
    Join(Box<JoinBody>),
    /// A joiner's certificate, to be sent to this destination.
    Member { to: Destination, joiner: NodeId },
}

impl Pending {
    /// The user's command that waits for it.
    pub(super) fn command(&self) -> Option<CommandId> {
        match self {
            Self::Charter(_, wish) | Self::Invite { wish, .. } => Some(wish.command),
            Self::Extension(command, _) | Self::Recovery(command) | Self::Recovered(command) => {
                Some(*command)
            }
            Self::WireGuard
            | Self::Pinned
            | Self::Record
            | Self::Pulse(_)
            | Self::Accusation(_)
            | Self::Join(_)
            | Self::Note(_)
            | Self::Member { .. } => None,
        }
    }

    /// What users are told is refused, if it is refused again and again.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Charter(..) => "sign a charter",
            Self::Invite { .. } => "make an invite",
            Self::WireGuard => "certify the WireGuard key",
            Self::Record => "sign this node's record",
            Self::Pulse(_) => "sign a sign of life",
            Self::Accusation(_) => "sign that a member is out of reach",
            Self::Pinned => "tell its network",
            Self::Extension(..) => "certify more addresses",
            Self::Join(_) => "sign a join request",
            Self::Member { .. } => "certify a member",
            Self::Note(_) => "take note of a statement",
            Self::Recovery(_) | Self::Recovered(_) => "recover its memory",
        }
    }
}

impl Mesh {
    /// `keyd` has answered.
    pub fn handle_keyd_reply(&mut self, ticket: Ticket, reply: Result<keyd::Reply, ApiError>, now: Now) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        match &reply {
            Ok(_) => self.keys.answered(pending.kind()),
            // Whoever asked is told.
            Err(_) if pending.command().is_some() => {}
            Err(error) => self.keys.refused(pending.kind(), error),
        }
        match (pending, reply) {
            (pending, Err(error)) => self.handle_keyd_failure(pending, error, now),
            (Pending::Charter(value, wish), Ok(keyd::Reply::Signature(signature))) => {
                let charter = Signed { value, signature };
                if charter.verify().is_err() {
                    return self
                        .answer(wish.command, Err(ApiError::internal("keyd signed with another identity")));
                }
                let chain = Chain::founder(&charter.value);
                self.become_member(charter, chain);
                self.ask_invite(wish, true);
            }
            (Pending::Invite { wish, founded }, Ok(keyd::Reply::Invite { code, grant })) => {
                let invite = orders::made(code, &grant.value, founded);
                self.events.push(What::InviteCreated { id: invite.id.clone() });
                self.invites.add(grant);
                self.unsaved = true;
                self.answer(wish.command, Ok(meshd::Reply::Invite(invite)));
            }
            (Pending::WireGuard, Ok(keyd::Reply::WireGuardCertificate(certificate))) => {
                self.sign_record(certificate);
            }
            (Pending::Record, Ok(keyd::Reply::Record(record))) => self.publish(*record, now),
            (Pending::Pulse(why), Ok(keyd::Reply::Pulse(pulse))) => {
                self.handle_liveness_message(pulse, why, now)
            }
            (Pending::Accusation(value), Ok(keyd::Reply::Signature(signature))) => {
                self.accuse(Signed { value, signature }, now);
            }
            (Pending::Pinned, Ok(keyd::Reply::Pinned(pinned))) => {
                if let Some(pinned) = pinned {
                    self.handle_pinned(*pinned, now);
                }
            }
            (Pending::Note(number), Ok(keyd::Reply::Noted(noted))) => self.handle_noted(number, noted, now),
            (Pending::Recovery(command), Ok(keyd::Reply::Recovered { .. })) => self.recover_next(command),
            (Pending::Recovered(command), Ok(keyd::Reply::Recovered { known, complete })) => {
                self.handle_recovered(command, known, complete);
            }
            (Pending::Extension(command, extend), Ok(keyd::Reply::NeedsOrder)) => {
                self.propose(command, Order::Extend(extend), Vec::new(), false);
            }
            (Pending::Extension(command, _), Ok(keyd::Reply::Membership(certificate))) => {
                self.handle_extension(certificate, command, now);
            }
            (Pending::Join(value), Ok(keyd::Reply::Signature(signature))) => {
                self.handle_signed_join(Signed { value: *value, signature }, now);
            }
            (Pending::Member { to, joiner }, Ok(keyd::Reply::Membership(certificate))) => {
                self.handle_certificate(&to, certificate, &joiner, now);
            }
            (pending, Ok(_)) => {
                let error = ApiError::internal("keyd gave an answer to another question");
                self.handle_keyd_failure(pending, error, now);
            }
        }
    }

    pub(super) fn handle_keyd_failure(&mut self, pending: Pending, error: ApiError, now: Now) {
        warn!(%error, "keyd has not done what was to be asked of it");
        match pending {
            Pending::Charter(_, wish) | Pending::Invite { wish, .. } => self.answer(wish.command, Err(error)),
            Pending::WireGuard | Pending::Record => {
                if error.kind == ErrorKind::Conflict {
                    self.ask(Pending::Pinned, keyd::Request::Pinned);
                }
                self.refresh = Refresh::Due(now.monotonic + KEYD_RETRY);
                if let Some(command) = self.rotating.take() {
                    self.rotate = false;
                    self.answer(command, Err(error));
                }
            }
            Pending::Join(body) => {
                // Without another it is asked from the control destination as before.
                let needed = body.control == self.inbox.hash;
                if needed && self.joining.as_ref().is_some_and(|joining| joining.is_for(&body)) {
                    self.end_join(Err(error));
                }
            }
            Pending::Extension(command, _) => self.answer(command, Err(error)),
            // It is asked again when the record is refused again.
            Pending::Pinned => {}
            Pending::Recovery(command) | Pending::Recovered(command) => {
                self.recovering.clear();
                self.answer(command, Err(error));
            }
            // Nobody is told, and they find out.
            Pending::Pulse(LivenessReason::ShuttingDown) => self.shut_down = true,
            // If others go on saying so, it is refuted then.
            Pending::Pulse(LivenessReason::Suspected) => {}
            Pending::Note(number) => self.handle_note_failure(number, &error, now),
            // Others say so, or the next probe does.
            Pending::Accusation(_) => {}
            // The joiner asks again. If keyd remembers that another has the addresses, it is given others then.
            Pending::Member { joiner, .. } => {
                if error.kind == ErrorKind::Denied && self.delegations.remove_unsigned_of(&joiner) {
                    self.unsaved = true;
                }
            }
        }
    }

    pub(super) fn ask(&mut self, pending: Pending, request: keyd::Request) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        self.actions.push_back(Action::Ask(ticket, Box::new(request)));
    }
}
