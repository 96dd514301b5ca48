//! The joiner's side: from an invite code to a membership.

use std::collections::VecDeque;
use std::time::Duration;

use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, JoinStep, What};
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{Invite, InviteId};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::message::Message;
use tracing::{debug, info, warn};

use crate::core::gossip::{self, Comparison};
use crate::core::members::Members;
use crate::core::state::Membership;
use crate::core::verified::VerifiedRecord;
use crate::core::{Action, CommandId, Inbox, Mesh, Now, Pending};

/// How long an inviter is sought and asked.
const DEADLINE: Duration = Duration::from_secs(150);

/// First wait before a request is repeated; each further one is half as long again. Shorter than a slow round trip: the
/// first answer is the one that is lost most often, because the inviter's router does not know this node's
/// destination yet, and a repeated request costs nothing.
const FIRST_REPEAT: Duration = Duration::from_millis(1500);

/// Longest wait before a request is repeated.
const LAST_REPEAT: Duration = Duration::from_secs(15);

/// Requests in vain after which another destination is wanted to ask from: 12 s after the first. After each further
/// destination it takes twice as many.
const IN_VAIN: u32 = 5;

/// How many may wait for the end of one attempt.
const MAX_WAITING: usize = 32;

/// How far the joiner is.
#[derive(Debug)]
enum Stage {
    /// The router looks for the inviter's destination.
    Finding,
    /// The inviter is there, and the requests that `keyd` has signed are sent and repeated.
    Asking(Destination),
    /// The answer has come.
    Welcomed,
}

/// An attempt to join.
#[derive(Debug)]
pub(crate) struct Joining {
    /// Who waits for the end: the one that began, and those that gave the same code since, as a user does whose
    /// program was interrupted.
    commands: Vec<CommandId>,
    invite: Invite,
    stage: Stage,
    /// The same request from each of this node's destinations, the next one to be sent first. I2P keeps end-to-end
    /// sessions for each pair of destinations, so where that with the one is dead, the other may get through.
    requests: VecDeque<Box<JoinRequest>>,
    /// How many were sent since there was another destination to ask from.
    sent: u32,
    /// So many are in vain.
    in_vain: u32,
    deadline: Duration,
    repeat_at: Duration,
    repeat_after: Duration,
    /// Why the last lookup failed.
    lookup_error: Option<String>,
}

/// What time brings.
#[derive(Debug)]
pub(crate) enum Step {
    Wait,
    LookUp(DestinationHash),
    Send(Destination, Box<JoinRequest>),
    GiveUp(ApiError),
}

/// What a reply brings.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ignored,
    Refused(ApiError),
    Welcome(Box<Welcome>),
}

impl Joining {
    /// Checks the code and begins.
    pub(crate) fn start(
        command: CommandId,
        code: &str,
        me: &keyd::Identity,
        now: Now,
    ) -> Result<Self, ApiError> {
        let invite: Invite = code
            .parse()
            .map_err(|error: i2plan_proto::invite::InviteError| ApiError::invalid(error.to_string()))?;
        if invite.expires_at < now.unix.as_secs() {
            let expired = i2plan_ipc::version::utc(invite.expires_at);
            return Err(ApiError::invalid(format!("the invite expired at {expired}"))
                .with_hint("ask for a new one; if that is not past, this machine's clock is wrong"));
        }
        if invite.inviter == me.node {
            return Err(
                ApiError::invalid("this node made the invite itself").with_hint("use it on another node")
            );
        }
        Ok(Self {
            commands: vec![command],
            invite,
            stage: Stage::Finding,
            requests: VecDeque::new(),
            sent: 0,
            in_vain: IN_VAIN,
            deadline: now.monotonic + DEADLINE,
            repeat_at: now.monotonic + FIRST_REPEAT,
            repeat_after: FIRST_REPEAT,
            lookup_error: None,
        })
    }

    /// Those who wait for the end.
    pub(crate) fn commands(&self) -> &[CommandId] {
        &self.commands
    }

    /// Lets one more wait for the end of this attempt, if it is for the same code and not too many wait.
    pub(crate) fn attach(&mut self, command: CommandId, code: &str) -> bool {
        let same = code.parse::<Invite>().is_ok_and(|invite| invite.id() == self.invite.id());
        if same && self.commands.len() < MAX_WAITING {
            self.commands.push(command);
            return true;
        }
        false
    }

    pub(crate) fn invite_id(&self) -> InviteId {
        self.invite.id()
    }

    pub(crate) fn inviter(&self) -> &NodeId {
        &self.invite.inviter
    }

    /// Where the inviter takes control messages.
    pub(crate) fn control(&self) -> DestinationHash {
        self.invite.control
    }

    /// When there is something to do by the clock; once the answer has come, never.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        (!matches!(self.stage, Stage::Welcomed)).then(|| self.repeat_at.min(self.deadline))
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) -> Step {
        if matches!(self.stage, Stage::Welcomed) {
            return Step::Wait;
        }
        if now.monotonic >= self.deadline {
            return Step::GiveUp(self.timed_out());
        }
        if now.monotonic < self.repeat_at {
            return Step::Wait;
        }
        self.repeat_after = (self.repeat_after * 3 / 2).min(LAST_REPEAT);
        self.repeat_at = now.monotonic + self.repeat_after;
        match &self.stage {
            Stage::Finding => Step::LookUp(self.invite.control),
            Stage::Asking(to) => {
                let to = *to;
                self.next_request().map_or(Step::Wait, |request| Step::Send(to, request))
            }
            Stage::Welcomed => Step::Wait,
        }
    }

    fn next_request(&mut self) -> Option<Box<JoinRequest>> {
        let request = self.requests.front()?.clone();
        self.requests.rotate_left(1);
        self.sent += 1;
        Some(request)
    }

    /// Whether it is asked so long without an answer that another destination should be tried.
    pub(crate) fn needs_fallback(&self) -> bool {
        matches!(self.stage, Stage::Asking(_)) && self.sent >= self.in_vain
    }

    /// There is another destination to ask from.
    pub(crate) fn handle_fallback(&mut self) {
        if self.needs_fallback() {
            self.in_vain = self.in_vain.saturating_mul(2);
        }
        self.sent = 0;
    }

    /// It is asked from this destination alone.
    pub(crate) fn drop_all_but(&mut self, control: &DestinationHash) {
        self.requests.retain(|request| request.body.value.control == *control);
    }

    fn timed_out(&self) -> ApiError {
        let seconds = DEADLINE.as_secs();
        let message = match (&self.stage, &self.lookup_error) {
            (Stage::Finding, Some(error)) => {
                format!("the inviter was not found on I2P within {seconds} s ({error})")
            }
            (Stage::Finding, None) => format!("the I2P router did not find the inviter within {seconds} s"),
            _ => format!("the inviter did not answer within {seconds} s"),
        };
        ApiError::timeout(message)
            .with_hint("check that the inviter is running, then try again with the same invite")
    }

    /// The router has answered a lookup. True if `keyd` is to sign requests now.
    pub(crate) fn handle_lookup(
        &mut self,
        hash: DestinationHash,
        destination: Result<Destination, String>,
    ) -> bool {
        if hash != self.invite.control || !matches!(self.stage, Stage::Finding) {
            return false;
        }
        match destination {
            Err(error) => {
                debug!(%error, "the inviter's destination is not found yet");
                self.lookup_error = Some(error);
                false
            }
            Ok(destination) => {
                self.stage = Stage::Asking(destination);
                true
            }
        }
    }

    /// What `keyd` is to sign, for one of this node's destinations; none if it is not the time to ask.
    pub(crate) fn request(
        &self,
        control: DestinationHash,
        me: &keyd::Identity,
        now: Now,
    ) -> Option<JoinBody> {
        matches!(self.stage, Stage::Asking(_)).then(|| JoinBody {
            network: self.invite.network,
            inviter: self.invite.inviter,
            invite: self.invite.secret.key(),
            joiner: me.node,
            control,
            issued_at: now.unix.as_secs(),
        })
    }

    /// Whether a request belongs to this attempt.
    pub(crate) fn is_for(&self, body: &JoinBody) -> bool {
        body.invite == self.invite.secret.key()
    }

    /// `keyd` has signed. Returns what is to be sent, and whether it is the first.
    pub(crate) fn handle_signed(
        &mut self,
        body: Signed<JoinBody>,
        now: Now,
    ) -> Option<(Destination, Box<JoinRequest>, bool)> {
        let Stage::Asking(to) = &self.stage else { return None };
        let proof = body.value.prove(&self.invite.secret.signing_key());
        let (to, is_first) = (*to, self.requests.is_empty());
        self.requests.push_front(Box::new(JoinRequest { body, proof }));
        self.repeat_after = FIRST_REPEAT;
        self.repeat_at = now.monotonic + FIRST_REPEAT;
        self.next_request().map(|request| (to, request, is_first))
    }

    /// A reply has come from the inviter's destination.
    pub(crate) fn handle_reply(&mut self, reply: JoinReply, me: &keyd::Identity) -> Outcome {
        if !matches!(self.stage, Stage::Asking(_)) {
            return Outcome::Ignored;
        }
        match reply {
            JoinReply::Refused { invite, .. } if invite != self.invite.secret.key() => Outcome::Ignored,
            // It may do better when the request is repeated.
            JoinReply::Refused { refusal: Refusal::Busy, .. } => Outcome::Ignored,
            JoinReply::Refused { refusal, .. } => {
                let kind = match refusal {
                    Refusal::Unknown => ErrorKind::NotFound,
                    Refusal::Expired
                    | Refusal::UsedUp
                    | Refusal::TooDeep
                    | Refusal::Revoked
                    | Refusal::Above
                    | Refusal::NoAddresses => ErrorKind::Denied,
                    Refusal::Busy => ErrorKind::Unavailable,
                };
                Outcome::Refused(ApiError::new(kind, refusal.to_string()))
            }
            JoinReply::Welcome(welcome) => match self.check(&welcome, me) {
                Ok(()) => {
                    self.stage = Stage::Welcomed;
                    Outcome::Welcome(welcome)
                }
                Err(reason) => {
                    warn!(%reason, "the inviter's welcome is not valid");
                    Outcome::Ignored
                }
            },
        }
    }

    fn check(&self, welcome: &Welcome, me: &keyd::Identity) -> Result<(), String> {
        let charter = &welcome.charter.value;
        if charter.network() != self.invite.network {
            return Err("it is for another network".to_owned());
        }
        welcome.charter.verify().map_err(|error| error.to_string())?;
        if charter.subnet != self.invite.subnet {
            return Err("its subnet is not that of the invite".to_owned());
        }
        if welcome.chain.subject() != &me.node {
            return Err("it is for another node".to_owned());
        }
        let by_inviter =
            welcome.chain.issued().last().is_some_and(|(issuer, link)| {
                *issuer == self.invite.inviter && link.invite == self.invite.id()
            });
        if !by_inviter {
            return Err("its certificate is not by the inviter for this invite".to_owned());
        }
        welcome.chain.verify(charter).map_err(|error| error.to_string())
    }
}

impl Mesh {
    /// A user wants to join a network.
    pub fn join(&mut self, command: CommandId, code: &str, now: Now) {
        if self.joining.as_mut().is_some_and(|joining| joining.attach(command, code)) {
            return;
        }
        let founding = self.pending.values().any(|pending| matches!(pending, Pending::Charter(..)));
        let busy = self.membership.is_some() || self.joining.is_some() || founding;
        let checked = if let Some(network) = self.network() {
            let message = format!("this node is already a member of network {}", network.short());
            Err(ApiError::conflict(message)
                .with_hint("leave that first, with `i2planctl leave`: a node is a member of one network"))
        } else if busy {
            Err(ApiError::conflict("this node is joining or founding a network already")
                .with_hint("wait for it"))
        } else {
            Joining::start(command, code, &self.me, now)
        };
        match checked {
            Err(error) => self.answer(command, Err(error)),
            Ok(joining) => {
                self.note_former_ending();
                info!(invite = %joining.invite_id(), inviter = %joining.inviter().short(), "joining a network");
                self.events.push(What::JoinProgress { step: JoinStep::LookingUp });
                self.actions.push_back(Action::LookUp(joining.control()));
                self.joining = Some(joining);
            }
        }
    }

    /// A lookup is done.
    pub fn handle_lookup(
        &mut self,
        hash: DestinationHash,
        destination: Result<Destination, String>,
        now: Now,
    ) {
        let Some(joining) = &mut self.joining else { return };
        if joining.handle_lookup(hash, destination) {
            for inbox in self.inboxes().collect::<Vec<_>>() {
                self.sign_join(inbox, now);
            }
        }
    }

    /// Has a request to join signed, which is to come from here.
    pub(crate) fn sign_join(&mut self, from: Inbox, now: Now) {
        let request = |joining: &Joining| joining.request(from.hash, &self.me, now);
        let Some(body) = self.joining.as_ref().and_then(request).map(Box::new) else { return };
        let control = from.destination;
        self.ask(Pending::Join(body.clone()), keyd::Request::SignJoin { body, control });
    }

    /// Whether an inviter has been asked for so long without an answer that it should be asked from a new fallback.
    #[must_use]
    pub fn needs_fallback(&self) -> bool {
        self.joining.as_ref().is_some_and(Joining::needs_fallback)
    }

    /// The own request to join is signed.
    pub(crate) fn handle_signed_join(&mut self, body: Signed<JoinBody>, now: Now) {
        // Meanwhile another attempt may have begun, or a fallback may have gone.
        let is_here = self.inboxes().any(|inbox| inbox.hash == body.value.control);
        if let Some(joining) = &mut self.joining
            && joining.is_for(&body.value)
            && is_here
            && let Some((to, request, is_first)) = joining.handle_signed(body, now)
        {
            if is_first {
                self.events.push(What::JoinProgress { step: JoinStep::Asking });
            }
            self.send(&to, &Message::JoinRequest(request), now);
        }
    }

    pub(crate) fn handle_join_reply(&mut self, from: &Destination, reply: JoinReply, now: Now) {
        let Some(joining) = &mut self.joining else { return };
        if from.hash() != joining.control() {
            return;
        }
        match joining.handle_reply(reply, &self.me) {
            Outcome::Ignored => {}
            Outcome::Refused(error) => self.end_join(Err(error)),
            Outcome::Welcome(welcome) => self.enter(*welcome, now),
        }
    }

    /// Becomes a member. The charter, the chain and its subject have been checked.
    pub(crate) fn enter(&mut self, welcome: Welcome, now: Now) {
        let charter = welcome.charter.value.clone();
        let inviter = welcome.chain.ancestors().last().copied();
        self.events.push(What::JoinProgress { step: JoinStep::Admitted });
        self.become_member(welcome.charter, welcome.chain);
        for record in welcome.records {
            // Without its inviter's record a node whose clock is wrong would know no member when its clock is right.
            let is_wanted = Some(record.value.node) == inviter || gossip::is_timely(&record.value, now);
            if record.value.node != self.me.node
                && is_wanted
                && let Ok(record) = VerifiedRecord::new(record, &charter)
            {
                self.members.merge_record(record, now.monotonic, now.unix.as_secs());
            }
        }
        if self.members.len() > 0 {
            self.comparison_since_start = Comparison::Waiting(None);
        }
    }

    pub(crate) fn become_member(&mut self, charter: Signed<Charter>, chain: Chain) {
        let ipv4 = chain.address(&charter.value.subnet);
        info!(network = %charter.value.network().short(), %ipv4, "this node is a member");
        let network = charter.value.network().to_string();
        self.events.push(What::NetworkJoined { network, ipv4: ipv4.to_string() });
        self.members = Members::new(charter.value.subnet, chain.clone());
        self.membership = Some(Membership { charter, chain, epoch: None });
        self.former = None;
        self.former_ending = None;
        self.unsaved = true;
        self.peers_version += 1;
        self.start_refresh();
    }

    pub(crate) fn end_join(&mut self, result: Result<meshd::Network, ApiError>) {
        if let Some(joining) = self.joining.take() {
            let result = result.map(meshd::Reply::Joined);
            for command in joining.commands() {
                self.answer(*command, result.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_proto::invite::InviteSecret;
    use i2plan_testing as testing;

    use super::*;

    #[test]
    fn a_welcome_is_for_the_invite_that_was_used() {
        let me = keyd::Identity {
            node: testing::node(2),
            control: testing::destination(2),
            sealed: false,
            remembers: true,
        };
        let JoinReply::Welcome(welcome) = testing::welcome(2) else { panic!("a welcome") };
        let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(testing::NOW) };
        let check = |invite: Invite| {
            Joining::start(1, &invite.to_code(), &me, now).unwrap().check(&welcome, &me).is_ok()
        };
        assert!(check(testing::invite(1)));
        assert!(!check(Invite { secret: InviteSecret([9; 32]), ..testing::invite(1) }));
        assert!(!check(Invite { inviter: testing::node(0), ..testing::invite(1) }));
    }
}
