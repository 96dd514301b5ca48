//! The mesh: membership, invites and gossip as one state machine, without I/O.
//!
//! [`Mesh`] takes what happened (a datagram, an answer of `keyd`, a command of a user, the passing of time)
//! together with the time, and hands out in [`Mesh::poll_turn`] what is to be done. Randomness comes from a
//! seed. So the code in the daemon is the code in a simulation.
//!
//! Durability is part of the contract: a turn says whether state must be saved, and its actions may only be
//! carried out once it is. An invite's use is counted on disk before the joiner hears of it.
//!
//! * `own`: this node's own record, key and pulses; `notes`: what `keyd` is told of what others say in its name.
//! * `members`: those of the others, merged by their numbers; `endings`: how memberships have ended.
//! * `gossip`: what comes in is checked, taken in and passed on; `rumors`: what is still to be told; `budget`: the bytes
//!   that all this may take; `compare`: finding what was missed; `detector`: finding who is there.
//! * `joining`, `admission`, `invites`: becoming a member, from both sides; `delegations`: the addresses that this node has
//!   delegated.
//! * `exclusion`, `bans`: bans by this node, and how others' memberships and its own end; `orders`: what an administrator
//!   has `keyd` sign for that.
//! * `ingress`: which control datagrams are looked at; `shares`: rates that are shared by address.
//! * `report`: what users see. [`state`]: what is remembered over a restart.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::What;
use i2plan_ipc::api::{meshd, tund};
use i2plan_ipc::rate::Bucket;
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::message::{self, Addressee, Datagram, Message};
use i2plan_proto::pulse::Pulse;
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::wireguard::WireGuardCertificate;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tracing::{debug, info};

mod addresses;
mod bans;
mod budget;
mod compare;
mod detector;
mod endings;
mod exclusion;
mod gossip;
mod ingress;
mod invites;
mod members;
mod notes;
mod orders;
mod own;
mod report;
mod requests;
mod rumors;
mod shares;
pub mod state;
mod verified;

use addresses::delegations::Delegations;
use addresses::{CONFLICT_LASTS, Conflict};
use bans::Bans;
use budget::{Budget, COMPARISON, OFFER};
use detector::Detector;
use gossip::{Announcer, Comparison};
use ingress::{IngressLimits, Sender};
use invites::joining::{self, Joining};
use members::{Member, Members};
use notes::KeysHealth;
use own::until_rotation;
use requests::Pending;
use rumors::Rumors;
use shares::Place;
use state::{Former, Membership, Remembered, State};

pub use compare::fingerprint;
pub use own::describe_key;
pub use verified::{Peer, VerifiedRecord};

/// How far ahead the beginning of the own epoch may be, as `keyd` has it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10 * 60);

/// Wait before `keyd` is asked again after it failed.
const KEYD_RETRY: Duration = Duration::from_secs(5);

/// How long other members' records may be newer in memory than on disk. They can be had again by gossip.
const SAVE_RECORDS_AFTER: Duration = Duration::from_secs(5);

/// How long only their last words may be. With each the whole state is written.
const SAVE_PULSES_AFTER: Duration = Duration::from_secs(10 * 60);

/// How often it is looked for what has expired.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// How long nothing must have come from it meanwhile.
const FORGET_SILENT: Duration = Duration::from_secs(24 * 3600);

/// How long after its WireGuard key has expired a member is forgotten that has not published another.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long addresses that were reserved for a joiner are kept for it if its certificate was never signed.
const KEEP_RESERVED: Duration = Duration::from_secs(3600);

/// What to do where the state cannot be saved.
const SEE_DISK: &str = "see that the state directory is writable and the disk is not full";

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment; never goes back.
    pub monotonic: Duration,
    /// Since 1970; may jump.
    pub unix: Duration,
}

/// What the mesh is told about this node at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name.
    pub name: NodeName,
    /// The subnet of a network that this node founds.
    pub subnet: Ipv4Subnet,
    /// How often it compares notes with another member, and asks one whether it is there.
    pub heartbeat: Duration,
    /// How long after its last sign a member is held to be out of reach at the earliest.
    pub peer_timeout: Duration,
    /// With how many members there are tunnels at once.
    pub max_peers: u32,
    /// Bytes of control messages that it sends in a second on average, with what I2P adds to each.
    pub control_rate: u32,
    /// Name of the tunnel interface.
    pub interface: String,
    /// MTU of the tunnel interface, bytes.
    pub mtu: u16,
    /// Seconds between WireGuard keepalives.
    pub keepalive: u16,
}

impl Settings {
    /// How long one that several could not reach may take to say that it is there. What goes before, from its last
    /// sign to the last of the accusations, takes about as long again.
    fn suspicion_timeout(&self) -> Duration {
        self.peer_timeout / 4
    }
}

/// Links a question to `keyd` to its answer.
pub type Ticket = u64;

/// Links a user's command to its answer.
pub type CommandId = u64;

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    /// Send a control datagram.
    Send {
        /// To this destination.
        to: Destination,
        /// These bytes.
        message: Vec<u8>,
        /// From the control destination, even if there is a fallback for it: this answers what came there, or
        /// names it.
        as_control: bool,
    },
    /// Find the destination with this hash and report it by [`Mesh::handle_lookup`].
    LookUp(DestinationHash),
    /// Ask `keyd` and report the answer by [`Mesh::handle_keyd_reply`].
    Ask(Ticket, Box<keyd::Request>),
    /// Answer a user's command.
    Answer(CommandId, Box<Result<meshd::Reply, ApiError>>),
}

/// What one or more events lead to.
#[derive(Debug, Default)]
pub struct Turn {
    /// [`Mesh::state`] is to be saved before any action is carried out. If that fails, the actions must be dropped
    /// and [`Mesh::handle_save_failure`] called.
    pub save: bool,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What users who follow the node are told. It has happened whether or not the state could be saved.
    pub events: Vec<What>,
    /// The state as it was saved before is to be kept beside the new one: this node's membership was ended by others.
    pub set_aside: bool,
}

/// The own record on its way through `keyd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresh {
    /// Due at this monotonic time.
    Due(Duration),
    /// Due when the session for data is open.
    Waiting,
    /// `keyd` is at it.
    Running,
}

/// A destination at which this node takes control messages.
#[derive(Debug, Clone, Copy)]
struct Inbox {
    destination: Destination,
    hash: DestinationHash,
}

impl From<Destination> for Inbox {
    fn from(destination: Destination) -> Self {
        Self { destination, hash: destination.hash() }
    }
}

/// The mesh as one node sees it.
pub struct Mesh {
    me: keyd::Identity,
    /// The control destination.
    inbox: Inbox,
    /// Where this node takes WireGuard packets, while it does.
    data: Option<Destination>,
    /// Where members reach it in place of its control destination, while they do.
    fallback: Option<Inbox>,
    /// The member that this node last compared notes with knows many more.
    is_behind: bool,
    /// Whether others lately knew other ends of memberships. Members that lie can have ever new ones, so these are compared
    /// less often then.
    endings_differ: bool,
    settings: Settings,
    membership: Option<Membership>,
    former: Option<Former>,
    /// What has ended the former membership, as `keyd` is to know.
    former_ending: Option<state::Ending>,
    invites: invites::Invites,
    /// The addresses that this node has delegated.
    delegations: Delegations,
    /// The highest number of a record, a pulse or a certificate of this node that is known here. `keyd` gives them out.
    counter: u64,
    keys: KeysHealth,
    /// Certificates that `keyd` is still to be told, in parts.
    recovering: Vec<Vec<Signed<i2plan_proto::membership::Membership>>>,
    comparison_since_start: Comparison,
    /// Who has delegated this node's addresses to another member as well, against which this node's chain does not stand.
    displaced: Option<NodeId>,
    /// Addresses that were seen to be delegated twice.
    conflicts: VecDeque<Conflict>,
    /// Members whose records do not have the certificate that this node has issued for them last, and when they are told
    /// of it again.
    open_grants: HashMap<NodeId, Duration>,
    members: Members,
    bans: Bans,
    ingress: IngressLimits,
    detector: Detector,
    rumors: Rumors,
    budget: Budget,
    own: Option<Signed<Record>>,
    /// The own last word, if that is newer than the record.
    own_pulse: Option<Signed<Pulse>>,
    /// Enough say that this node is not there, and it has not answered yet.
    is_suspected: bool,
    /// How often it has.
    answers: Bucket,
    refresh: Refresh,
    /// The record that `keyd` is signing is out of date already.
    stale: bool,
    /// The next certificate is to begin a new epoch of the WireGuard key.
    rotate: bool,
    /// Who has asked for that, and is answered when it is published.
    rotating: Option<CommandId>,
    joining: Option<Joining>,
    announcer: Announcer,
    pending: HashMap<Ticket, Pending>,
    next_ticket: Ticket,
    rng: StdRng,
    actions: VecDeque<Action>,
    events: Vec<What>,
    unsaved: bool,
    /// When it is looked for what has expired.
    housekeeping_at: Option<Duration>,
    /// When other members' records must be on disk: news of them alone can wait a little.
    save_records_at: Option<Duration>,
    peers_version: u64,
    /// The state as it was saved last is to be kept.
    set_aside: bool,
    /// Others have been told that this node shuts down.
    shut_down: bool,
    /// Who has given a sign of life and has not been told of yet.
    awake: BTreeSet<NodeId>,
}

impl Mesh {
    /// The mesh of the node `me`, as it was when its state was last saved.
    #[must_use]
    pub fn new(me: keyd::Identity, settings: Settings, state: State, seed: [u8; 32], now: Now) -> Self {
        let mut mesh = Self {
            inbox: me.control.into(),
            me,
            data: None,
            fallback: None,
            is_behind: false,
            endings_differ: false,
            announcer: Announcer::new(settings.heartbeat, now.monotonic),
            detector: Detector::new(settings.heartbeat, now.monotonic),
            rumors: Rumors::new(),
            budget: Budget::new(settings.control_rate),
            bans: Bans::new(state.bans),
            settings,
            membership: state.membership,
            former: state.former,
            former_ending: None,
            invites: invites::Invites::new(state.invites),
            delegations: Delegations::new(state.delegations),
            counter: state.counter,
            keys: KeysHealth::default(),
            recovering: Vec::new(),
            comparison_since_start: Comparison::Done,
            displaced: None,
            conflicts: VecDeque::new(),
            open_grants: HashMap::new(),
            members: Members::default(),
            ingress: IngressLimits::new(),
            own: None,
            own_pulse: None,
            is_suspected: false,
            answers: Bucket::default(),
            refresh: Refresh::Waiting,
            stale: false,
            rotate: false,
            rotating: None,
            joining: None,
            pending: HashMap::new(),
            next_ticket: 0,
            rng: StdRng::from_seed(seed),
            actions: VecDeque::new(),
            events: Vec::new(),
            unsaved: false,
            save_records_at: None,
            housekeeping_at: Some(now.monotonic),
            peers_version: 0,
            set_aside: false,
            shut_down: false,
            awake: BTreeSet::new(),
        };
        if mesh.membership.is_none()
            && let Some(ending) = state.endings.first()
        {
            mesh.former_ending = Some(ending.clone());
            mesh.note_ending(ending);
        }
        mesh.remember(state.members, state.endings);
        // What was known before is no news.
        mesh.update_liveness(true, now);
        mesh.members.poll_events();
        mesh
    }

    /// Takes in what was known before. The file is trusted no more than the network: what does not verify was left
    /// out when it was read.
    fn remember(&mut self, members: Vec<Remembered>, endings: Vec<state::Ending>) {
        let Some(membership) = &self.membership else { return };
        let network = membership.charter.value.network();
        self.members = Members::new(membership.charter.value.subnet, membership.chain.clone());
        for ending in endings {
            self.members.merge_ending(ending);
        }
        for Remembered { record, pulse, created, last_seen } in members {
            if record.value.node != self.me.node && record.value.network() == network {
                self.members.restore(Member::new(record, None, created, last_seen));
                if let Some(pulse) = pulse.filter(|pulse| pulse.value.network == network)
                    && pulse.verify().is_ok()
                {
                    self.members.merge_pulse(pulse, Duration::ZERO);
                }
            }
        }
        if self.members.len() > 0 {
            self.comparison_since_start = Comparison::Waiting(None);
        }
        let waits = |delegated: &state::Delegated| {
            let member = self.members.get(&delegated.subject)?;
            let has = member.record.value.chain.last().map_or(0, |link| link.serial);
            (has < delegated.serial()).then_some((delegated.subject, Duration::ZERO))
        };
        self.open_grants = self.delegations.iter().filter_map(waits).collect();
    }

    /// The network, once this node is a member.
    #[must_use]
    pub fn network(&self) -> Option<NetworkId> {
        self.membership.as_ref().map(|membership| membership.charter.value.network())
    }

    /// The tunnel interface that this node should have, once it is a member.
    #[must_use]
    pub fn interface(&self) -> Option<tund::Interface> {
        let membership = self.membership.as_ref()?;
        let charter = &membership.charter.value;
        let network = charter.network();
        let new =
            tund::NewInterface { name: self.settings.interface.clone(), network, mtu: self.settings.mtu };
        Some(new.of_member(charter, &membership.chain))
    }

    /// The epoch of the WireGuard key that `tund` should use, once there is one. It is published right after.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        self.membership.as_ref().and_then(|membership| membership.epoch)
    }

    /// The certificate of the WireGuard key that this node has published, once it has.
    #[must_use]
    pub fn published_certificate(&self) -> Option<&WireGuardCertificate> {
        self.own.as_ref().map(|record| &record.value.wireguard.value)
    }

    /// The WireGuard key that this node has published, once it has.
    #[must_use]
    pub fn published_key(&self) -> Option<[u8; 32]> {
        self.own.as_ref().map(|record| record.value.wireguard.value.public_key())
    }

    /// Grows whenever [`Mesh::peers`] may have changed.
    #[must_use]
    pub fn peers_version(&self) -> u64 {
        self.peers_version
    }

    /// How memberships have ended, by id.
    #[must_use]
    pub fn endings(&self) -> Vec<(NodeId, Arc<state::Ending>)> {
        self.members.endings().shared()
    }

    /// With how many peers there are tunnels at once.
    #[must_use]
    pub fn max_peers(&self) -> u32 {
        self.settings.max_peers
    }

    /// Who has given a sign of life since this was asked last: those whose tunnels are down are worth another
    /// attempt.
    pub fn poll_awake(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.awake)
    }

    /// When [`Mesh::handle_timeout`] is to be called next, on the monotonic clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let joining = self.joining.as_ref().and_then(Joining::poll_timeout);
        if self.membership.is_none() {
            return joining;
        }
        let refresh = match self.refresh {
            Refresh::Due(at) => Some(at),
            Refresh::Running | Refresh::Waiting => None,
        };
        // Without a record of its own it has nothing to say.
        let gossip = self.own.as_ref().map(|_| {
            let rumors = self.rumors.poll_timeout();
            let times =
                [self.announcer.poll_timeout(), self.detector.poll_timeout()].into_iter().chain(rumors);
            times.min().unwrap_or_default()
        });
        [joining, refresh, gossip, self.save_records_at, self.housekeeping_at].into_iter().flatten().min()
    }

    /// What is to be done. To be called after every event.
    pub fn poll_turn(&mut self) -> Turn {
        let save = std::mem::take(&mut self.unsaved);
        if save {
            self.save_records_at = None;
        }
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.members.poll_events());
        events.extend(self.bans.poll_events());
        let set_aside = std::mem::take(&mut self.set_aside);
        Turn { save, actions: self.actions.drain(..).collect(), events, set_aside }
    }

    fn update_liveness(&mut self, all: bool, now: Now) {
        if self.members.update_liveness(all, now.monotonic, self.settings.suspicion_timeout()) {
            self.peers_version += 1;
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
        self.unsaved = true;
        let mut failed = Vec::new();
        for action in dropped {
            match action {
                Action::Answer(command, result) => failed.push((command, not_saved(*result, error))),
                // Never asked, so it will not be answered.
                Action::Ask(ticket, _) => {
                    if let Some(pending) = self.pending.remove(&ticket) {
                        let hint = format!("{SEE_DISK}, then try again");
                        self.handle_keyd_failure(pending, error.clone().with_hint(hint), now);
                    }
                }
                // Lost as a datagram can be lost.
                Action::Send { .. } | Action::LookUp(_) => {}
            }
        }
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Answer(command, result) => failed.push((command, not_saved(*result, error))),
                other => self.actions.push_back(other),
            }
        }
        failed
    }

    /// What must be remembered over a restart.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            node: self.me.node,
            counter: self.counter,
            membership: self.membership.clone(),
            former: self.former.clone(),
            invites: self.invites.issued().to_vec(),
            delegations: self.delegations.iter().cloned().collect(),
            members: self.members.iter().map(remembered).collect(),
            endings: self.members.endings().iter().chain(&self.former_ending).cloned().collect(),
            bans: self.bans.iter().cloned().collect(),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Some(joining) = &mut self.joining {
            match joining.handle_timeout(now) {
                joining::Step::Wait => {}
                joining::Step::LookUp(hash) => self.actions.push_back(Action::LookUp(hash)),
                joining::Step::Send(to, request) => self.send(&to, &Message::JoinRequest(request), now),
                joining::Step::GiveUp(error) => self.end_join(Err(error)),
            }
        }
        if self.membership.is_none() {
            return;
        }
        if let Refresh::Due(at) = self.refresh
            && at <= now.monotonic
        {
            self.rotate |= self.epoch().is_some_and(|epoch| until_rotation(epoch, now).is_zero());
            self.start_refresh();
        }
        self.gossip(now);
        self.update_liveness(false, now);
        if self.housekeeping_at.is_some_and(|at| at <= now.monotonic) {
            self.expire(now);
        }
        if self.save_records_at.is_some_and(|at| at <= now.monotonic) {
            self.unsaved = true;
        }
    }

    /// Lets go of what has expired.
    fn expire(&mut self, now: Now) {
        self.housekeeping_at = Some(now.monotonic + HOUSEKEEPING);
        self.update_liveness(true, now);
        let unix = now.unix.as_secs();
        // The clock was wrong when the own record was signed: others drop what is of a time to come.
        if let Some(own) = &self.own
            && let Refresh::Due(_) = self.refresh
            && own::is_of_another_time(&own.value, now)
        {
            info!("this node's clock was wrong when it signed its record: it signs another");
            self.refresh = Refresh::Due(now.monotonic);
        }
        if self.invites.remove_expired(now.unix) {
            self.unsaved = true;
        }
        if self.bans.expire(unix) {
            info!("a ban has ended");
            self.note_bans_changed();
        }
        if self.delegations.remove_unsigned(unix.saturating_sub(KEEP_RESERVED.as_secs())) {
            self.unsaved = true;
        }
        self.conflicts.retain(|conflict| now.monotonic < conflict.seen_at + CONFLICT_LASTS);
        // A member that is never heard of again is forgotten with its key, a month after its last record.
        // For a day by the clock that does not jump nothing is forgotten by the one that may.
        let mut over = self.members.ended_before(unix.saturating_sub(FORGET_AFTER.as_secs()));
        over.retain(|node| {
            let heard = self.members.get(node).and_then(|member| member.contact().last_heard);
            now.monotonic >= heard.unwrap_or_default().saturating_add(FORGET_SILENT)
        });
        for node in over {
            info!(node = %node.short(), "a member has not been heard of for long: it is forgotten");
            self.members.remove(&node);
            self.detector.forget(&node);
            self.unsaved = true;
            self.peers_version += 1;
        }
    }

    /// Goes on with other settings.
    pub fn reconfigure(&mut self, settings: Settings, now: Now) {
        if self.settings.heartbeat != settings.heartbeat {
            self.announcer.set_heartbeat(settings.heartbeat, now.monotonic);
            self.detector.set_period(settings.heartbeat, now.monotonic);
        }
        self.budget.set_rate(settings.control_rate);
        let renamed = self.settings.name != settings.name;
        self.settings = settings;
        self.peers_version += 1;
        if renamed {
            match self.refresh {
                Refresh::Running => self.stale = true,
                Refresh::Due(_) => self.refresh = Refresh::Due(now.monotonic),
                Refresh::Waiting => {}
            }
        }
    }

    /// The subnet of the network, if this node is in one.
    #[must_use]
    pub fn subnet(&self) -> Option<Ipv4Subnet> {
        self.membership.as_ref().map(|membership| membership.charter.value.subnet)
    }

    /// A network that is founded from now on gets this subnet.
    pub fn prefer_subnet(&mut self, subnet: Ipv4Subnet) {
        self.settings.subnet = subnet;
    }

    /// What others have said is on disk at this time at the latest, on the monotonic clock.
    fn save_by(&mut self, at: Duration) {
        self.save_records_at = Some(self.save_records_at.map_or(at, |before| before.min(at)));
    }

    /// The session for data is open under this destination.
    pub fn handle_data_session(&mut self, destination: Destination) {
        if self.data.replace(destination) == Some(destination) {
            return;
        }
        match self.refresh {
            // What is being signed names the destination before; it is done again right after.
            Refresh::Running => self.stale = true,
            Refresh::Due(_) | Refresh::Waiting => self.start_refresh(),
        }
    }

    /// There is a destination in place of the control destination, which nobody seems to reach, or there is no more.
    /// Members learn of it by the record; an inviter is asked from both; invites go on naming the control destination.
    pub fn handle_fallback(&mut self, destination: Option<Destination>, now: Now) {
        if self.fallback.map(|fallback| fallback.destination) == destination {
            return;
        }
        self.fallback = destination.map(Inbox::from);
        if let Some(joining) = &mut self.joining {
            joining.drop_all_but(&self.inbox.hash);
            if let Some(fallback) = self.fallback {
                joining.handle_fallback();
                self.sign_join(fallback, now);
            }
        }
        match self.refresh {
            Refresh::Running => self.stale = true,
            Refresh::Due(_) | Refresh::Waiting => self.start_refresh(),
        }
    }

    /// Where members reach this node.
    fn control(&self) -> Destination {
        self.fallback.unwrap_or(self.inbox).destination
    }

    /// Where this node takes control messages.
    fn inboxes(&self) -> impl Iterator<Item = Inbox> {
        [self.inbox].into_iter().chain(self.fallback)
    }

    /// Whether there is anybody who could speak to this node.
    #[must_use]
    pub fn has_reachable_members(&self) -> bool {
        self.own.is_some() && self.members.iter().any(|member| !member.is_away())
    }

    /// The control session is open, for the first time or again: others are told that this node is there.
    pub fn handle_control_session(&mut self, now: Now) {
        if self.own.is_some() {
            self.announcer.news(now.monotonic);
        }
    }

    /// A datagram came in; the router vouches for the sender.
    pub fn handle_datagram(&mut self, from: &Destination, payload: &[u8], now: Now) {
        self.take_datagram(from, payload, now);
        self.update_liveness(false, now);
    }

    fn take_datagram(&mut self, from: &Destination, payload: &[u8], now: Now) {
        if payload.len() > message::MAX_LEN {
            debug!(len = payload.len(), "dropped a control message that is too long");
            return;
        }
        let sender = from.hash();
        if self.is_shut_out(&sender) {
            return;
        }
        // Not the sender's doing, so not at its expense: somebody sends on what it has sent to another.
        if Datagram::addressee(payload).is_ok_and(|to| !self.is_here(to)) {
            debug!(from = %sender.short(), "dropped a control message that is for another");
            return;
        }
        // Dropped without a strike: the local router can forge senders.
        if !self.admits(&sender, now) {
            debug!(from = %sender.short(), "dropped a control message: too many are coming");
            return;
        }
        let message = match Datagram::from_bytes(payload) {
            Ok(datagram) => datagram.message,
            Err(error) => {
                debug!(%error, from = %sender.short(), "dropped a control message");
                return;
            }
        };
        self.heard(&sender, now);
        match message {
            Message::JoinRequest(request) => self.handle_join_request(from, &request, now),
            Message::JoinReply(reply) => self.handle_join_reply(from, reply, now),
            Message::News(gossip) => self.handle_gossip(from, gossip, now),
            Message::Ping(number, gossip) => {
                // It may say that the sender is a member.
                self.handle_gossip(from, gossip, now);
                self.handle_ping(from, number, now);
            }
            Message::Ack(number, gossip) => {
                self.handle_ack(from, number, now);
                self.handle_gossip(from, gossip, now);
            }
            Message::PingRequest(number, node, gossip) => {
                self.handle_ping_request(from, number, &node, now);
                self.handle_gossip(from, gossip, now);
            }
            Message::Compare(ranges, gossip) => {
                self.handle_compare(from, &ranges, now);
                self.handle_gossip(from, gossip, now);
            }
            Message::Want(entries) => self.handle_want(from, entries, now),
            Message::Grant(chain) => self.handle_grant(*chain, now),
        }
    }

    /// The addresses of the members that take control messages at a destination. Several may share one; what is refused at the expense of one must be tried at that of the next.
    fn places_at(&self, control: &DestinationHash) -> Vec<Place> {
        let Some(membership) = &self.membership else { return Vec::new() };
        let subnet = membership.charter.value.subnet;
        let members = self.members.at(control).filter_map(|node| self.members.get(&node));
        let addresses = members.map(|member| member.record.ipv4());
        addresses.map(|ipv4| Place { block: subnet.share_of(ipv4), address: ipv4.to_bits() }).collect()
    }

    /// Whether a datagram from this destination is looked at.
    fn admits(&mut self, from: &DestinationHash, now: Now) -> bool {
        let places = self.places_at(from);
        if places.is_empty() {
            let asked = self.joining.as_ref().is_some_and(|joining| joining.control() == *from);
            let sender = if asked { Sender::Asked } else { Sender::Stranger };
            return self.ingress.admit(from, sender, now.monotonic);
        }
        places.into_iter().any(|Place { block, address }| {
            self.ingress.admit(from, Sender::Member { share: block, address }, now.monotonic)
        })
    }

    /// Whether this node takes what is addressed so.
    fn is_here(&self, to: Addressee) -> bool {
        self.inboxes().any(|inbox| Addressee::from(inbox.hash) == to)
    }

    /// Whether a message comes from the control destination, even if there is a fallback.
    fn is_as_control(&self, message: &Message) -> bool {
        match message {
            Message::JoinReply(_) => true,
            Message::JoinRequest(request) => request.body.value.control == self.inbox.hash,
            _ => false,
        }
    }

    fn send(&mut self, to: &Destination, message: &Message, now: Now) {
        let as_control = self.is_as_control(message);
        let datagram = message.to_datagram(to);
        match message {
            Message::Compare(..) => self.budget.charge_comparison(datagram.len(), now.monotonic),
            _ => self.budget.charge(datagram.len(), now.monotonic),
        }
        // Whoever hears of what there is may ask for it.
        let follow = match message {
            Message::Compare(..) => COMPARISON,
            Message::News(gossip) | Message::Ping(_, gossip) if !gossip.entries.is_empty() => OFFER,
            _ => 0,
        };
        if follow > 0 {
            self.budget.begin_exchange(&self.asker(&to.hash()), follow, now.monotonic);
        }
        self.actions.push_back(Action::Send { to: *to, message: datagram, as_control });
    }

    fn answer(&mut self, command: CommandId, result: Result<meshd::Reply, ApiError>) {
        self.actions.push_back(Action::Answer(command, Box::new(result)));
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
        pulse: member.pulse.as_deref().cloned(),
        created: member.created,
        last_seen: member.last_seen(),
    }
}

#[cfg(test)]
mod tests;
