//! What a node has whether or not it is in a network, and what it wants done.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use i2plan_ipc::api::meshd::EventKind;
use i2plan_ipc::api::{keyd, meshd};
use i2plan_ipc::log_limit::LogLimit;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use i2plan_proto::membership::NetworkName;
use i2plan_proto::message::{Addressee, Message};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tracing::debug;

use super::budget::{Asker, Budget};
use super::error::MeshError;
use super::first_contacts::FirstContacts;
use super::ingress::IngressLimits;
use super::notes::KeysHealth;
use super::requests::Pending;
use super::state::{self, Former};
use super::{Action, CommandId, Now, Settings, Ticket};

/// A destination at which this node takes control messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inbox {
    pub(super) destination: Destination,
    pub(super) hash: DestinationHash,
}

impl From<Destination> for Inbox {
    fn from(destination: Destination) -> Self {
        Self { destination, hash: destination.hash() }
    }
}

/// The control session is not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outage {
    /// On the monotonic clock.
    pub(super) since: Duration,
    /// When the attempt began that is under way.
    pub(super) opening: Option<Duration>,
    /// Why the last attempt failed.
    pub(super) reason: Option<String>,
}

/// A user waits for a member's answer.
#[derive(Debug)]
pub(super) struct PingForUser {
    pub(super) command: CommandId,
    pub(super) node: NodeId,
    /// On the monotonic clock.
    pub(super) sent: Duration,
}

/// For how long after a ping its acknowledgement counts as an answer. A member can keep it back no longer.
const QUESTION_LASTS: Duration = Duration::from_secs(60);

/// Pings that are remembered at most.
const MAX_QUESTIONS: usize = 256;

/// How long an answer to a user's ping is waited for.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What outlives a membership. Every situation is handed it with each event.
pub(super) struct Context {
    pub(super) me: keyd::Identity,
    /// The control destination.
    pub(super) inbox: Inbox,
    /// Where this node takes WireGuard packets, while it does.
    pub(super) data: Option<Destination>,
    /// Where members reach it in place of its control destination, while they do.
    pub(super) fallback: Option<Inbox>,
    pub(super) settings: Settings,
    /// What a network that this node founds is to be called, if that is chosen.
    pub(super) network_name: Option<NetworkName>,
    /// The membership that others have ended, if there is none since.
    pub(super) former: Option<Former>,
    /// What has ended it, as `keyd` is to know.
    pub(super) former_ending: Option<state::Ending>,
    /// Since when this node is in no network, or since it was started, on the monotonic clock.
    pub(super) outside_since: Duration,
    /// The highest number of a record, a liveness message or a certificate of this node that is known here. `keyd`
    /// gives them out.
    pub(super) counter: u64,
    pub(super) keys: KeysHealth,
    pub(super) ingress: IngressLimits,
    pub(super) budget: Budget,
    /// The log's lines about requests to `keyd` that failed.
    pub(super) failures: LogLimit,
    pub(super) first_contacts: FirstContacts,
    /// Requests to `keyd` that are not answered yet.
    pub(super) pending: HashMap<Ticket, Pending>,
    /// Pings for users that are not answered yet, by their numbers.
    pub(super) pings: HashMap<u64, PingForUser>,
    next_ticket: Ticket,
    pub(super) rng: StdRng,
    /// What is to be done next.
    pub(super) actions: VecDeque<Action>,
    pub(super) events: Vec<EventKind>,
    /// The control session is not up, and since when that is so.
    pub(super) outage: Option<Outage>,
    /// A member was asked for an answer, and is there as far as is known.
    pub(super) asked: bool,
    /// The numbers of the pings that were sent of late and have no answer, with when; the oldest first.
    questions: VecDeque<(u64, Duration)>,
    /// When a member last answered what this node had asked, on the monotonic clock.
    pub(super) last_answered: Option<Duration>,
    /// The state is to be saved first.
    pub(super) unsaved: bool,
    /// The state as it was saved last is to be kept.
    pub(super) set_aside: bool,
    /// Grows whenever the peers may have changed.
    pub(super) peers_version: u64,
    /// Others have been told that this node shuts down.
    pub(super) shut_down: bool,
    pub(super) counts: meshd::MessageCounts,
}

impl Context {
    pub(super) fn new(
        me: keyd::Identity,
        settings: Settings,
        (counter, former): (u64, Option<Former>),
        seed: [u8; 32],
        now: Now,
    ) -> Self {
        Self {
            inbox: me.control.into(),
            me,
            data: None,
            fallback: None,
            budget: Budget::new(settings.control_rate),
            first_contacts: FirstContacts::default(),
            settings,
            network_name: None,
            former,
            former_ending: None,
            outside_since: now.monotonic,
            counter,
            keys: KeysHealth::default(),
            ingress: IngressLimits::new(),
            failures: LogLimit::default(),
            pending: HashMap::new(),
            pings: HashMap::new(),
            next_ticket: 0,
            rng: StdRng::from_seed(seed),
            actions: VecDeque::new(),
            events: Vec::new(),
            outage: None,
            asked: false,
            questions: VecDeque::new(),
            last_answered: None,
            unsaved: false,
            set_aside: false,
            peers_version: 0,
            shut_down: false,
            counts: meshd::MessageCounts::default(),
        }
    }

    /// Where members reach this node.
    pub(super) fn control(&self) -> Destination {
        self.fallback.unwrap_or(self.inbox).destination
    }

    /// Where this node takes control messages.
    pub(super) fn inboxes(&self) -> impl Iterator<Item = Inbox> + use<> {
        [self.inbox].into_iter().chain(self.fallback)
    }

    /// Whether this node takes what is addressed so.
    pub(super) fn is_here(&self, to: Addressee) -> bool {
        self.inboxes().any(|inbox| Addressee::from(inbox.hash) == to)
    }

    /// When the next of the users' pings is given up.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.pings.values().map(|ping| ping.sent + PING_TIMEOUT).min()
    }

    /// Gives up the users' pings that were not answered.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        let silent = self.pings.extract_if(|_, ping| now.monotonic >= ping.sent + PING_TIMEOUT);
        for (_, ping) in silent.collect::<Vec<_>>() {
            self.answer(ping.command, Err(MeshError::NoAnswer(PING_TIMEOUT.as_secs())));
        }
    }

    /// Asks `keyd`.
    pub(super) fn ask(&mut self, pending: Pending, request: keyd::Request) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        self.actions.push_back(Action::Ask(ticket, Box::new(request)));
    }

    /// Answers a user's command.
    pub(super) fn answer(&mut self, command: CommandId, result: Result<meshd::Reply, MeshError>) {
        self.actions.push_back(Action::Answer(command, Box::new(result)));
    }

    /// Whether a message comes from the control destination, even if there is a fallback.
    fn is_as_control(&self, message: &Message) -> bool {
        match message {
            Message::JoinReply(_) => true,
            Message::JoinRequest(request) => request.body.value.control == self.inbox.hash,
            _ => false,
        }
    }

    /// Whether this is the number of a ping of this node that was sent of late, and had no answer. A member may acknowledge
    /// what it was not asked: then it has not heard this node.
    pub(super) fn take_question(&mut self, number: u64, now: Now) -> bool {
        self.questions.retain(|(_, sent)| now.monotonic < *sent + QUESTION_LASTS);
        let place = self.questions.iter().position(|(asked, _)| *asked == number);
        place.and_then(|place| self.questions.remove(place)).is_some()
    }

    /// Sends a message that nobody has asked for.
    pub(super) fn send(&mut self, to: &Destination, message: &Message, now: Now) {
        let as_control = self.is_as_control(message);
        let datagram = message.to_datagram(to);
        match message {
            Message::Compare(..) => {
                self.counts.comparisons += 1;
                self.budget.charge_comparison(datagram.len(), now.monotonic);
            }
            Message::Ping(number, _) => {
                if self.questions.len() >= MAX_QUESTIONS {
                    self.questions.pop_front();
                }
                self.questions.push_back((*number, now.monotonic));
                self.counts.pings += 1;
                self.budget.charge(datagram.len(), now.monotonic);
            }
            _ => self.budget.charge(datagram.len(), now.monotonic),
        }
        self.queue_datagram(to, datagram, as_control, now);
    }

    /// Sends a datagram that has been paid for, as soon as one more may go there.
    pub(super) fn queue_datagram(&mut self, to: &Destination, message: Vec<u8>, as_control: bool, now: Now) {
        self.counts.sent += 1;
        let action = Action::Send { to: *to, message, as_control };
        self.actions.extend(self.first_contacts.send(to.hash(), action, now.monotonic));
    }

    /// Sends what somebody has asked for of quiet address blocks, if it has not asked for too much.
    pub(super) fn answer_of_quiet(&mut self, asker: &Asker, to: &Destination, message: &Message, now: Now) {
        let message = message.to_datagram(to);
        if self.budget.answers_of_quiet(asker, message.len(), now.monotonic) {
            self.counts.sent += 1;
            self.actions.push_back(Action::Send { to: *to, message, as_control: false });
        }
    }

    /// Sends what somebody has asked for, if it has not asked for too much.
    pub(super) fn answer_for(&mut self, asker: &Asker, to: &Destination, message: &Message, now: Now) {
        let as_control = self.is_as_control(message);
        let compares = matches!(message, Message::Compare(..));
        let message = message.to_datagram(to);
        if self.budget.answers(asker, compares, message.len(), now.monotonic) {
            self.queue_datagram(to, message, as_control, now);
        } else {
            debug!(?asker, "no answer: more is asked than may be said");
        }
    }
}
