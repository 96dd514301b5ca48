//! Requests to `keyd` and what follows from its replies.

use std::ops::ControlFlow;
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, ExtendMember};
use i2plan_ipc::api::order::Order;
use i2plan_ipc::{ApiError, ErrorKind, warn_limited};
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NodeId, Signature, Signed};
use i2plan_proto::join::JoinBody;
use i2plan_proto::suspicion::Suspicion;
use tracing::warn;

use super::context::Context;
use super::error::MeshError;
use super::invites::InviteWish;
use super::local_member::LocalMember;
use super::publication::{LivenessReason, Refresh};
use super::situation::{Situation, Standing};
use super::{CommandId, Mesh, Now, Ticket};

/// Wait before `keyd` is asked again after it failed.
pub(super) const KEYD_RETRY: Duration = Duration::from_secs(5);

/// A request to `keyd` that is not answered yet.
#[derive(Debug)]
pub(super) enum Pending {
    /// The charter of the network that this node founds.
    Charter,
    /// An invite.
    Invite { wish: InviteWish, founded: bool },
    /// The certificate of the WireGuard key for the own record.
    WireGuard,
    /// The own record.
    Record,
    /// A liveness message.
    Liveness(LivenessReason),
    /// That another cannot be reached.
    Suspicion(Suspicion),
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
            Self::Invite { wish, .. } => Some(wish.command),
            Self::Extension(command, _) | Self::Recovery(command) | Self::Recovered(command) => {
                Some(*command)
            }
            Self::Charter
            | Self::WireGuard
            | Self::Pinned
            | Self::Record
            | Self::Liveness(_)
            | Self::Suspicion(_)
            | Self::Join(_)
            | Self::Note(_)
            | Self::Member { .. } => None,
        }
    }

    /// Whether a user is told if it fails.
    fn is_for_user(&self) -> bool {
        matches!(self, Self::Charter) || self.command().is_some()
    }

    /// What users are told is refused, if it is refused again and again.
    fn kind(&self) -> &'static str {
        match self {
            Self::Charter => "sign a charter",
            Self::Invite { .. } => "make an invite",
            Self::WireGuard => "certify the WireGuard key",
            Self::Record => "sign this node's record",
            Self::Liveness(_) => "sign a liveness message",
            Self::Suspicion(_) => "sign a suspicion",
            Self::Pinned => "tell its network",
            Self::Extension(..) => "certify more addresses",
            Self::Join(_) => "sign a join request",
            Self::Member { .. } => "certify a member",
            Self::Note(_) => "take note of a statement",
            Self::Recovery(_) | Self::Recovered(_) => "recover its memory",
        }
    }
}

/// The signature in a reply, where no other reply is expected.
fn signature(reply: Result<keyd::Reply, MeshError>) -> Result<Signature, MeshError> {
    match reply? {
        keyd::Reply::Signature(signature) => Ok(signature),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> MeshError {
    warn!("unexpected reply of keyd");
    MeshError::UnexpectedReply
}

impl Mesh {
    /// Takes the reply to an [`Action::Ask`](super::Action::Ask).
    pub fn handle_keyd_reply(&mut self, ticket: Ticket, reply: Result<keyd::Reply, ApiError>, now: Now) {
        let Some(pending) = self.cx.pending.remove(&ticket) else { return };
        match &reply {
            Ok(_) => self.cx.keys.answered(pending.kind()),
            // Whoever asked is told.
            Err(_) if pending.is_for_user() => {}
            Err(error) => self.cx.keys.refused(pending.kind(), error),
        }
        self.handle_reply(pending, reply.map_err(MeshError::Keyd), now);
    }

    /// Goes on after a request, in the situation that it is of. In any other it is of no use any more.
    pub(super) fn handle_reply(&mut self, pending: Pending, reply: Result<keyd::Reply, MeshError>, now: Now) {
        if let Err(error) = &reply {
            let reason = error.to_string();
            warn_limited!(self.cx.failures, now.monotonic, &reason, "request to keyd failed");
        }
        match (&mut self.situation, pending) {
            (Situation::Founding(_), Pending::Charter) => self.handle_charter(signature(reply), now),
            (Situation::Joining(joining), Pending::Join(body)) => match signature(reply) {
                Ok(signature) => {
                    joining.handle_signed(&mut self.cx, Signed { value: *body, signature }, now);
                }
                // Without another it is asked from the control destination as before.
                Err(error) if body.control == self.cx.inbox.hash && joining.is_for(&body) => {
                    self.give_up_joining(&error);
                }
                Err(_) => {}
            },
            (Situation::Member(member), pending) => {
                let standing = member.handle_reply(&mut self.cx, pending, reply, now);
                self.apply(standing, now);
            }
            _ => {}
        }
    }
}

impl LocalMember {
    fn handle_reply(
        &mut self,
        cx: &mut Context,
        pending: Pending,
        reply: Result<keyd::Reply, MeshError>,
        now: Now,
    ) -> Standing {
        match (pending, reply) {
            (pending, Err(error)) => self.handle_failure(cx, pending, error, now),
            (Pending::Invite { wish, founded }, Ok(keyd::Reply::Invite { code, grant })) => {
                self.add_invite(cx, wish.command, (code, grant), founded);
            }
            (Pending::WireGuard, Ok(keyd::Reply::WireGuardCertificate(certificate))) => {
                self.sign_record(cx, certificate);
            }
            (Pending::Record, Ok(keyd::Reply::Record(record))) => return self.publish(cx, *record, now),
            (Pending::Liveness(why), Ok(keyd::Reply::Liveness(liveness_message))) => {
                return self.handle_signed_liveness(cx, liveness_message, why, now);
            }
            (Pending::Suspicion(value), Ok(keyd::Reply::Signature(signature))) => {
                self.handle_signed_suspicion(cx, Signed { value, signature }, now);
            }
            (Pending::Pinned, Ok(keyd::Reply::Pinned(pinned))) => {
                if let Some(pinned) = pinned {
                    self.handle_pinned(cx, *pinned, now);
                }
            }
            (Pending::Note(number), Ok(keyd::Reply::Noted(noted))) => {
                self.handle_noted(cx, number, noted, now);
            }
            (Pending::Recovery(command), Ok(keyd::Reply::Recovered { .. })) => self.recover_next(cx, command),
            (Pending::Recovered(command), Ok(keyd::Reply::Recovered { known, complete })) => {
                self.handle_recovered(cx, command, known, complete);
            }
            (Pending::Extension(command, extend), Ok(keyd::Reply::NeedsOrder)) => {
                cx.propose(command, Order::Extend(extend), Vec::new(), false);
            }
            (Pending::Extension(command, _), Ok(keyd::Reply::Membership(certificate))) => {
                self.handle_extension(cx, certificate, command, now);
            }
            (Pending::Member { to, joiner }, Ok(keyd::Reply::Membership(certificate))) => {
                self.handle_certificate(cx, &to, certificate, &joiner, now);
            }
            (pending, Ok(_)) => self.handle_failure(cx, pending, unexpected(), now),
        }
        ControlFlow::Continue(())
    }

    fn handle_failure(&mut self, cx: &mut Context, pending: Pending, error: MeshError, now: Now) {
        match pending {
            Pending::Invite { wish, .. } => cx.answer(wish.command, Err(error)),
            Pending::WireGuard | Pending::Record => {
                if error.kind() == ErrorKind::Conflict {
                    cx.ask(Pending::Pinned, keyd::Request::Pinned);
                }
                self.publication.refresh = Refresh::Due(now.monotonic + KEYD_RETRY);
                if let Some(command) = self.publication.rotating.take() {
                    self.publication.rotate = false;
                    cx.answer(command, Err(error));
                }
            }
            Pending::Extension(command, _) => cx.answer(command, Err(error)),
            Pending::Recovery(command) | Pending::Recovered(command) => {
                self.recovering.clear();
                cx.answer(command, Err(error));
            }
            // Nobody is told, and they find out.
            Pending::Liveness(LivenessReason::ShuttingDown) => cx.shut_down = true,
            Pending::Note(number) => self.handle_note_failure(cx, number, &error, now),
            // The joiner asks again. If keyd remembers that another has the addresses, it is given others then.
            Pending::Member { joiner, .. } => {
                if error.kind() == ErrorKind::Denied && self.addresses.delegations.remove_unsigned_of(&joiner)
                {
                    cx.unsaved = true;
                }
            }
            // Of a situation before.
            Pending::Charter | Pending::Join(_) => {}
            // It is asked again when the record is refused again.
            Pending::Pinned => {}
            // If others go on saying so, it is refuted then.
            Pending::Liveness(LivenessReason::Suspected) => {}
            // Others say so, or the next probe does.
            Pending::Suspicion(_) => {}
        }
    }
}
