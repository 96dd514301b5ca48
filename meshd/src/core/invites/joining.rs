//! The joiner's side: from an invite code to a membership.

use std::collections::VecDeque;
use std::time::Duration;

use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{EventKind, JoinStep};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{Invite, InviteId};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::message::Message;
use tracing::{debug, warn};

use crate::core::context::{Context, Inbox, Outage};
use crate::core::error::MeshError;
use crate::core::requests::Pending;
use crate::core::{Action, CommandId, Now};

/// How long the inviter is looked for, while the control session is up.
const FIND: Duration = Duration::from_secs(90);

/// How long it is looked for and asked, while the control session is up.
const DEADLINE: Duration = Duration::from_secs(150);

/// How long this node may be without a control session, where attempts at one fail.
const NO_SESSION: Duration = Duration::from_secs(60);

/// How long the router may take to open it: until its first tunnels are there.
const NO_TUNNELS: Duration = Duration::from_secs(300);

/// An attempt that lasts as long is one at which the router is at work.
const AT_WORK: Duration = Duration::from_secs(10);

/// How long an attempt to join may take in all. Whoever asked for it is still waiting then.
const LONGEST: Duration = Duration::from_secs(600);

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
}

/// Who waits for the end of an attempt to join: the user that began it, and those that gave the same code since, as one
/// does whose program was interrupted.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) invite: InviteId,
    /// Where the inviter takes control messages.
    pub(crate) control: DestinationHash,
    pub(crate) commands: Vec<CommandId>,
}

impl Waiting {
    /// Lets one more wait, if it is for the same code and not too many wait.
    pub(crate) fn attach(&mut self, command: CommandId, code: &str) -> bool {
        let same = code.parse::<Invite>().is_ok_and(|invite| invite.id() == self.invite);
        if same && self.commands.len() < MAX_WAITING {
            self.commands.push(command);
            return true;
        }
        false
    }
}

/// An attempt to join: an inviter is looked for and asked. It ends with a membership, a refusal, or after a while.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) waiting: Waiting,
    invite: Invite,
    stage: Stage,
    /// The same request from each of this node's destinations, the next one to be sent first. I2P keeps end-to-end
    /// sessions for each pair of destinations, so where that with the one is dead, the other may get through.
    requests: VecDeque<Box<JoinRequest>>,
    /// How many were sent since there was another destination to ask from.
    sent: u32,
    /// So many are in vain.
    in_vain: u32,
    started: Duration,
    /// When the search for the inviter is over, and when the whole attempt.
    find_by: Duration,
    deadline: Duration,
    repeat_at: Duration,
    repeat_after: Duration,
    /// Why the last lookup failed.
    lookup_error: Option<String>,
}

/// What a reply brings.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ignored,
    Refused(Refusal),
    Welcome(Box<Welcome>),
}

impl Joining {
    /// Checks the code and begins.
    pub(crate) fn start(
        command: CommandId,
        code: &str,
        me: &keyd::Identity,
        now: Now,
    ) -> Result<Self, MeshError> {
        let invite: Invite = code.parse()?;
        if invite.expires_at < now.unix.as_secs() {
            return Err(MeshError::InviteExpired(invite.expires_at));
        }
        if invite.inviter == me.node {
            return Err(MeshError::LocalInvite);
        }
        Ok(Self {
            waiting: Waiting { invite: invite.id(), control: invite.control, commands: vec![command] },
            invite,
            stage: Stage::Finding,
            requests: VecDeque::new(),
            sent: 0,
            in_vain: IN_VAIN,
            started: now.monotonic,
            find_by: now.monotonic + FIND,
            deadline: now.monotonic + DEADLINE,
            repeat_at: now.monotonic + FIRST_REPEAT,
            repeat_after: FIRST_REPEAT,
            lookup_error: None,
        })
    }

    pub(crate) fn inviter(&self) -> &NodeId {
        &self.invite.inviter
    }

    /// When [`Joining::handle_timeout`] is to be called next, on the monotonic clock.
    pub(crate) fn poll_timeout(&self, cx: &Context) -> Duration {
        match &cx.outage {
            Some(outage) => self.outage_ends(outage).0,
            None => self.repeat_at.min(self.ends()),
        }
    }

    /// When this attempt is over, if nothing happens.
    fn ends(&self) -> Duration {
        let stage = if let Stage::Finding = self.stage { self.find_by } else { self.deadline };
        stage.min(self.started + LONGEST)
    }

    /// When it is over because there is no control session, and what is said then.
    fn outage_ends(&self, outage: &Outage) -> (Duration, MeshError) {
        let since = outage.since.max(self.started);
        let given_up = since + NO_SESSION;
        let begun = outage.opening.map(|opening| opening.max(self.started));
        let (at, error) = match (begun, &outage.reason) {
            (Some(begun), reason) if reason.is_none() || begun + AT_WORK <= given_up => {
                (begun + NO_TUNNELS, MeshError::NoTunnels(NO_TUNNELS.as_secs()))
            }
            (_, reason) => {
                let reason = reason.as_deref().unwrap_or("it is not opened").to_owned();
                // An attempt that has just begun may be one at which the router is at work.
                let at = begun.map_or(given_up, |begun| given_up.max(begun + AT_WORK));
                (at, MeshError::NoSession(NO_SESSION.as_secs(), reason))
            }
        };
        (at.min(self.started + LONGEST), error)
    }

    /// There is a control session again: the time without one does not count.
    pub(crate) fn handle_control_up(&mut self, outage: &Outage, now: Duration) {
        let lasted = now.saturating_sub(outage.since.max(self.started));
        self.find_by += lasted;
        self.deadline += lasted;
        (self.repeat_after, self.repeat_at) = (FIRST_REPEAT, now);
    }

    /// Looks for the inviter again, or asks it again, if that is due.
    ///
    /// # Errors
    /// The attempt is over: the inviter was not found, or has not answered.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context, now: Now) -> Result<(), MeshError> {
        if let Some(outage) = &cx.outage {
            let (at, error) = self.outage_ends(outage);
            return if now.monotonic < at { Ok(()) } else { Err(error) };
        }
        if now.monotonic >= self.ends() {
            return Err(self.timed_out());
        }
        if now.monotonic < self.repeat_at {
            return Ok(());
        }
        self.repeat_after = (self.repeat_after * 3 / 2).min(LAST_REPEAT);
        self.repeat_at = now.monotonic + self.repeat_after;
        match self.stage {
            Stage::Finding => cx.actions.push_back(Action::LookUp(self.invite.control)),
            Stage::Asking(to) => {
                if let Some(request) = self.next_request() {
                    cx.send(&to, &Message::JoinRequest(request), now);
                }
            }
        }
        Ok(())
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

    /// There is another fallback destination to ask from, or none any more.
    pub(crate) fn handle_fallback(&mut self, cx: &mut Context, now: Now) {
        self.requests.retain(|request| request.body.value.control == cx.inbox.hash);
        if let Some(fallback) = cx.fallback {
            if self.needs_fallback() {
                self.in_vain = self.in_vain.saturating_mul(2);
            }
            self.sent = 0;
            self.sign(cx, fallback, now);
        }
    }

    fn timed_out(&self) -> MeshError {
        match (&self.stage, &self.lookup_error) {
            (Stage::Finding, Some(error)) => MeshError::InviterLookup(FIND.as_secs(), error.clone()),
            (Stage::Finding, None) => MeshError::InviterNotFound(FIND.as_secs()),
            (Stage::Asking(_), _) => MeshError::InviterSilent(DEADLINE.as_secs()),
        }
    }

    /// The router has answered a lookup. If it has found the inviter, `keyd` is to sign requests.
    pub(crate) fn handle_lookup(
        &mut self,
        cx: &mut Context,
        hash: DestinationHash,
        destination: Result<Destination, String>,
        now: Now,
    ) {
        if hash != self.invite.control || !matches!(self.stage, Stage::Finding) {
            return;
        }
        match destination {
            Err(error) => {
                debug!(%error, "the inviter's destination is not found yet");
                self.lookup_error = Some(error);
            }
            Ok(destination) => {
                self.stage = Stage::Asking(destination);
                for inbox in cx.inboxes() {
                    self.sign(cx, inbox, now);
                }
            }
        }
    }

    /// Has a request signed, which is to come from one of this node's destinations, if it is the time to ask.
    fn sign(&self, cx: &mut Context, from: Inbox, now: Now) {
        if let Stage::Finding = self.stage {
            return;
        }
        let body = Box::new(JoinBody {
            network: self.invite.network,
            inviter: self.invite.inviter,
            invite: self.invite.secret.key(),
            joiner: cx.me.node,
            control: from.hash,
            issued_at: now.unix.as_secs(),
        });
        cx.ask(Pending::Join(body.clone()), keyd::Request::SignJoin { body, control: from.destination });
    }

    /// Whether a request belongs to this attempt.
    pub(crate) fn is_for(&self, body: &JoinBody) -> bool {
        body.invite == self.invite.secret.key()
    }

    /// `keyd` has signed a request, which is sent now.
    pub(crate) fn handle_signed(&mut self, cx: &mut Context, body: Signed<JoinBody>, now: Now) {
        // Meanwhile another attempt may have begun, or a fallback may have gone.
        let is_here = cx.inboxes().any(|inbox| inbox.hash == body.value.control);
        let Stage::Asking(to) = self.stage else { return };
        if !is_here || !self.is_for(&body.value) {
            return;
        }
        if self.requests.is_empty() {
            cx.events.push(EventKind::JoinProgress { step: JoinStep::Asking });
        }
        let proof = body.value.prove(&self.invite.secret.signing_key());
        self.requests.push_front(Box::new(JoinRequest { body, proof }));
        self.repeat_after = FIRST_REPEAT;
        self.repeat_at = now.monotonic + FIRST_REPEAT;
        if let Some(request) = self.next_request() {
            cx.send(&to, &Message::JoinRequest(request), now);
        }
    }

    /// A reply has come.
    pub(crate) fn handle_reply(&self, from: &Destination, reply: JoinReply, me: &keyd::Identity) -> Outcome {
        if from.hash() != self.invite.control || !matches!(self.stage, Stage::Asking(_)) {
            return Outcome::Ignored;
        }
        match reply {
            JoinReply::Refused { invite, .. } if invite != self.invite.secret.key() => Outcome::Ignored,
            // It may do better when the request is repeated.
            JoinReply::Refused { refusal: Refusal::Busy, .. } => Outcome::Ignored,
            JoinReply::Refused { refusal, .. } => Outcome::Refused(refusal),
            JoinReply::Welcome(welcome) => match self.check(&welcome, me) {
                Ok(()) => Outcome::Welcome(welcome),
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
        if charter.name != self.invite.name {
            return Err("its name is not that of the invite".to_owned());
        }
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
        assert!(!check(Invite { name: "other".parse().unwrap(), ..testing::invite(1) }));
    }
}
