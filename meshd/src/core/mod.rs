//! The mesh: membership, invites and gossip as one state machine, without I/O.
//!
//! [`Mesh`] takes what happened (a datagram, an answer of `keyd`, a command of a user, the passing of time)
//! together with the time, and hands out in [`Mesh::take_turn`] what is to be done. Randomness comes from a
//! seed. So the code in the daemon is the code in a simulation.
//!
//! Durability is part of the contract: a turn says whether state must be saved, and its actions may only be
//! carried out once it is. An invite's use is counted on disk before the joiner hears of it.
//!
//! * `own`: this node's own word: its record, its key, its pulses.
//! * `members`: everybody else's, merged by their numbers.
//! * `gossip`: what comes in is checked, taken in and passed on; `rumors`: what is still to be told, and the bytes
//!   that this may take; `compare`: finding what was missed; `detector`: finding who is there.
//! * `joining`, `admission`, `invites`: becoming a member, from both sides.
//! * `exclusion`, `bans`: who is out, for this node or for all; leaving.
//! * `ingress`: which control datagrams are looked at; `shares`: rates that are shared by address.
//! * `report`: what users see. [`state`]: what is remembered over a restart.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd::{self, CreateInvite};
use i2plan_ipc::api::meshd::{JoinStep, What};
use i2plan_ipc::api::{meshd, tund};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet, ipv6_of};
use i2plan_proto::codec::{Codec as _, DecodeError};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::invite::Uses;
use i2plan_proto::join::{JoinBody, JoinReply, Refusal, Welcome};
use i2plan_proto::membership::{Chain, Charter, MAX_DEPTH};
use i2plan_proto::message::{self, Addressee, Datagram, Message};
use i2plan_proto::pulse::Pulse;
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::Revocation;
use i2plan_proto::wireguard::WireGuardCertificate;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tracing::{debug, info, warn};

mod admission;
mod bans;
mod compare;
mod detector;
mod exclusion;
mod gossip;
mod ingress;
mod invites;
mod joining;
mod members;
mod own;
mod report;
mod rumors;
mod shares;
pub mod state;
mod verified;

use bans::{Bans, Offence};
use detector::Detector;
use gossip::{Announcer, MAX_ADDRESSES, claims_own_address};
use ingress::{IngressLimits, Sender};
use joining::Joining;
use members::{Member, Members, claim};
use own::{Farewell, until_rotation};
use rumors::{Budget, Rumors};
use shares::Place;
use state::{Former, Membership, Remembered, State};

pub use compare::fingerprint;
pub use own::describe_key;
pub use verified::VerifiedRecord;

/// How far ahead the beginning of the own epoch may be, as `keyd` has it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10 * 60);

/// Wait before `keyd` is asked again after it failed.
const KEYD_RETRY: Duration = Duration::from_secs(5);

/// How long other members' records may be newer in memory than on disk. They can be had again by gossip.
const SAVE_RECORDS_AFTER: Duration = Duration::from_secs(5);

/// How often it is looked for what has expired.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// How long nothing must have come from it meanwhile.
const FORGET_SILENT: Duration = Duration::from_secs(24 * 3600);

/// How long after its WireGuard key has expired a member is forgotten that has not published another.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most uses that a limited invite may have: each user is remembered.
const MAX_USES: u32 = 1000;

/// Longest life of an invite.
const MAX_EXPIRY: Duration = Duration::from_secs(366 * 24 * 3600);

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
    fn patience(&self) -> Duration {
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
        /// From the control destination, even if there is a substitute for it: this answers what came there, or
        /// names it.
        as_control: bool,
    },
    /// Find the destination with this hash and report it by [`Mesh::on_found`].
    LookUp(DestinationHash),
    /// Ask `keyd` and report the answer by [`Mesh::on_keyd`].
    Ask(Ticket, Box<keyd::Request>),
    /// Answer a user's command.
    Answer(CommandId, Box<Result<meshd::Reply, ApiError>>),
}

/// What one or more events lead to.
#[derive(Debug, Default)]
pub struct Turn {
    /// [`Mesh::state`] is to be saved before any action is carried out. If that fails, the actions must be dropped
    /// and [`Mesh::on_save_failed`] called.
    pub save: bool,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What users who follow the node are told. It has happened whether or not the state could be saved.
    pub events: Vec<What>,
}

/// A question to `keyd` that is not answered yet.
#[derive(Debug)]
enum Pending {
    /// The charter of the network that this node founds, and the invite that it is founded for.
    Charter(Charter, InviteWish),
    /// An invite.
    Invite { wish: InviteWish, founded: bool },
    /// The certificate of the WireGuard key for the own record.
    WireGuard,
    /// The own record.
    Record(Box<Record>),
    /// A word on this node's own life.
    Pulse(Pulse, Farewell),
    /// That another cannot be reached.
    Accusation(Accusation),
    /// The end of another's membership, for a user.
    Revocation(Box<Revocation>, CommandId),
    /// The own request to join.
    Join(Box<JoinBody>),
    /// A joiner's certificate, to be sent to this destination.
    Member { to: Destination, joiner: NodeId },
}

impl Pending {
    /// The user's command that waits for it.
    fn command(&self) -> Option<CommandId> {
        match self {
            Self::Charter(_, wish) | Self::Invite { wish, .. } => Some(wish.command),
            Self::Pulse(_, Farewell::Leave(command)) | Self::Revocation(_, command) => Some(*command),
            Self::WireGuard
            | Self::Record(_)
            | Self::Pulse(..)
            | Self::Accusation(_)
            | Self::Join(_)
            | Self::Member { .. } => None,
        }
    }
}

/// The invite that a user asked for.
#[derive(Debug, Clone)]
struct InviteWish {
    command: CommandId,
    expires_at: u64,
    uses: Uses,
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
    substitute: Option<Inbox>,
    /// The member that this node last compared notes with knows many more.
    is_behind: bool,
    settings: Settings,
    membership: Option<Membership>,
    former: Option<Former>,
    invites: invites::Invites,
    members: Members,
    bans: Bans,
    ingress: IngressLimits,
    detector: Detector,
    rumors: Rumors,
    budget: Budget,
    own: Option<Signed<Record>>,
    /// The own last word, if that is newer than the record.
    own_pulse: Option<Signed<Pulse>>,
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
            substitute: None,
            is_behind: false,
            announcer: Announcer::new(settings.heartbeat, now.monotonic),
            detector: Detector::new(settings.heartbeat, now.monotonic),
            rumors: Rumors::new(),
            budget: Budget::new(settings.control_rate),
            bans: Bans::new(state.bans),
            settings,
            membership: state.membership,
            former: state.former,
            invites: invites::Invites::new(state.invites),
            members: Members::default(),
            ingress: IngressLimits::new(),
            own: None,
            own_pulse: None,
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
            shut_down: false,
            awake: BTreeSet::new(),
        };
        if let Some(network) = mesh.network() {
            mesh.remember(&network, state.members, state.revocations);
            // What was known before is no news.
            mesh.settle_lives(true, now);
            mesh.members.take_events();
        }
        mesh
    }

    /// Takes in what was known before. The file is trusted no more than the network: what does not verify is left
    /// out, as records were when it was read.
    fn remember(
        &mut self,
        network: &NetworkId,
        members: Vec<Remembered>,
        revocations: Vec<Signed<Revocation>>,
    ) {
        let known = members.into_iter().filter(|known| {
            known.record.value.node != self.me.node && known.record.value.network() == *network
        });
        let mut pulses = Vec::new();
        let known = known.map(|Remembered { record, pulse, created, last_seen }| {
            pulses.extend(pulse);
            Member::new(record, None, created, last_seen)
        });
        self.members = Members::restored(known);
        for pulse in pulses {
            if pulse.value.network == *network && pulse.verify().is_ok() {
                self.members.merge_pulse(pulse, Duration::ZERO);
            }
        }
        for revocation in revocations {
            if revocation.verify_for(network).is_ok() {
                self.members.merge_revocation(revocation);
            }
        }
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
        Some(tund::Interface {
            name: self.settings.interface.clone(),
            network: charter.network(),
            ipv4: membership.ipv4,
            ipv4_prefix: charter.subnet.prefix(),
            ipv6: ipv6_of(&charter.network(), &self.me.node),
            ipv6_prefix: IPV6_PREFIX,
            mtu: self.settings.mtu,
        })
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
        self.own.as_ref().map(|record| record.value.wireguard.value.public_key)
    }

    /// Grows whenever [`Mesh::peers`] may have changed.
    #[must_use]
    pub fn peers_version(&self) -> u64 {
        self.peers_version
    }

    /// Whether this node has something to do with a member, and it has a key.
    fn is_peer(&self, member: &Member, now: Now) -> bool {
        let certificate = &member.record.value.wireguard.value;
        !self.bans.is_banned(&member.node()) && certificate.is_valid_at(now.unix.as_secs())
    }

    /// Whether a node is among the [`Mesh::peers`], unless it claims a key that is another's.
    #[must_use]
    pub fn has_peer(&self, node: &NodeId, now: Now) -> bool {
        self.members.get(node).is_some_and(|member| self.is_peer(member, now))
    }

    /// The WireGuard peers that this node should have.
    #[must_use]
    pub fn peers(&self, now: Now) -> Vec<tund::Peer> {
        // A key belongs to one node. Who claims another's, this node's own included, has none; otherwise one
        // member could spoil the whole table for tund.
        let own = self.published_key();
        let mut keys: HashSet<[u8; 32]> = own.into_iter().collect();
        let members = self.members.iter().filter(|member| {
            self.is_peer(member, now) && keys.insert(member.record.value.wireguard.value.public_key)
        });
        members
            .map(|member| {
                let record = &member.record.value;
                // Who is not there is not called all the time; a packet for it still calls it.
                let there = matches!(
                    self.members.life(member, now.monotonic, self.settings.patience()),
                    meshd::Life::Present | meshd::Life::Suspected
                );
                tund::Peer {
                    node: record.node,
                    public_key: record.wireguard.value.public_key,
                    endpoint: record.data,
                    ipv4: self.may_use(record).then_some(record.ipv4),
                    ipv6: record.ipv6(),
                    keepalive: if there { self.settings.keepalive } else { 0 },
                }
            })
            .collect()
    }

    /// With how many peers there are tunnels at once.
    #[must_use]
    pub fn max_peers(&self) -> u32 {
        self.settings.max_peers
    }

    /// Who has given a sign of life since this was asked last: those whose tunnels are down are worth another
    /// attempt.
    pub fn take_awake(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.awake)
    }

    /// When [`Mesh::on_time`] is to be called next, on the monotonic clock.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let joining = self.joining.as_ref().and_then(Joining::wake_at);
        if self.membership.is_none() {
            return joining;
        }
        let refresh = match self.refresh {
            Refresh::Due(at) => Some(at),
            Refresh::Running | Refresh::Waiting => None,
        };
        // Without a record of its own it has nothing to say.
        let gossip = self.own.as_ref().map(|_| {
            let rumors = self.rumors.wake_at();
            let times = [self.announcer.wake_at(), self.detector.wake_at()].into_iter().chain(rumors);
            times.min().unwrap_or_default()
        });
        [joining, refresh, gossip, self.save_records_at, self.housekeeping_at].into_iter().flatten().min()
    }

    /// What is to be done. To be called after every event.
    pub fn take_turn(&mut self) -> Turn {
        let save = std::mem::take(&mut self.unsaved);
        if save {
            self.save_records_at = None;
        }
        let mut events = std::mem::take(&mut self.events);
        events.extend(self.members.take_events());
        events.extend(self.bans.take_events());
        Turn { save, actions: self.actions.drain(..).collect(), events }
    }

    fn settle_lives(&mut self, all: bool, now: Now) {
        self.members.settle_lives(all, now.monotonic, self.settings.patience());
    }

    /// The state could not be saved, so the turn's actions were not carried out. Saving is tried again with the
    /// next turn. Returns the commands that must now be answered, and with what.
    pub fn on_save_failed(
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
                        self.on_keyd_failed(pending, error.clone().with_hint(hint), now);
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
            membership: self.membership.clone(),
            former: self.former.clone(),
            invites: self.invites.issued().to_vec(),
            members: self.members.iter().map(remembered).collect(),
            revocations: self.members.revocations().cloned().collect(),
            bans: self.bans.iter().cloned().collect(),
        }
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Now) {
        if let Some(joining) = &mut self.joining {
            match joining.on_time(now) {
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
        self.settle_lives(false, now);
        if self.housekeeping_at.is_some_and(|at| at <= now.monotonic) {
            self.keep_house(now);
        }
        if self.save_records_at.is_some_and(|at| at <= now.monotonic) {
            self.unsaved = true;
        }
    }

    /// Lets go of what has expired.
    fn keep_house(&mut self, now: Now) {
        self.housekeeping_at = Some(now.monotonic + HOUSEKEEPING);
        self.settle_lives(true, now);
        let unix = now.unix.as_secs();
        if self.invites.remove_expired(now.unix) {
            self.unsaved = true;
        }
        if self.bans.expire(unix) {
            info!("a ban has ended");
            self.on_bans_changed();
        }
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

    /// A user wants an invite. The first one founds the network.
    pub fn create_invite(&mut self, command: CommandId, expires_in: u64, max_uses: Option<u32>, now: Now) {
        match self.check_wish(command, expires_in, max_uses, now) {
            Err(error) => self.answer(command, Err(error)),
            Ok(wish) if self.membership.is_some() => self.ask_invite(wish, false),
            Ok(wish) => {
                let charter = Charter {
                    founder: self.me.node,
                    subnet: self.settings.subnet,
                    founded_at: now.unix.as_secs(),
                };
                self.ask(Pending::Charter(charter.clone(), wish), keyd::Request::SignCharter(charter));
            }
        }
    }

    fn check_wish(
        &self,
        command: CommandId,
        expires_in: u64,
        max_uses: Option<u32>,
        now: Now,
    ) -> Result<InviteWish, ApiError> {
        if expires_in == 0 || expires_in > MAX_EXPIRY.as_secs() {
            return Err(ApiError::invalid("an invite's life must be from one second to 366 days"));
        }
        let uses = match max_uses.map(NonZeroU32::new) {
            None => Uses::Unlimited,
            Some(Some(uses)) if uses.get() <= MAX_USES => Uses::Limited(uses),
            Some(Some(_)) => {
                return Err(ApiError::invalid(format!("an invite can have at most {MAX_USES} uses"))
                    .with_hint("make it unlimited if that is what you mean"));
            }
            Some(None) => {
                return Err(
                    ApiError::invalid("an invite with no uses is of no use").with_hint("give it one or more")
                );
            }
        };
        if self.invites.is_full() {
            return Err(
                ApiError::conflict("too many invites are open").with_hint("wait until some have expired")
            );
        }
        if self.joining.is_some() {
            return Err(ApiError::conflict("this node is joining a network")
                .with_hint("wait until that has succeeded or failed, then try again"));
        }
        let founding = self.pending.values().any(|pending| matches!(pending, Pending::Charter(..)));
        if self.membership.is_none() && founding {
            return Err(
                ApiError::conflict("this node is founding its network already").with_hint("try again")
            );
        }
        let depth = self.membership.as_ref().map_or(0, |membership| membership.chain.depth());
        if depth >= MAX_DEPTH {
            return Err(ApiError::denied(Refusal::TooDeep.to_string()));
        }
        Ok(InviteWish { command, expires_at: now.unix.as_secs().saturating_add(expires_in), uses })
    }

    fn ask_invite(&mut self, wish: InviteWish, founded: bool) {
        let Some(network) = self.network() else { return };
        let request = CreateInvite { network, expires_at: wish.expires_at, uses: wish.uses };
        self.ask(Pending::Invite { wish, founded }, keyd::Request::CreateInvite(request));
    }

    /// A user wants an invite to be good for nothing any more.
    pub fn revoke_invite(&mut self, command: CommandId, id: &str, now: Now) {
        let was_revoked = self.invites.is_revoked(id);
        let result = self.invites.revoke(id, now.unix.as_secs());
        if result.is_ok() && !was_revoked {
            self.events.push(What::InviteRevoked { id: id.to_owned() });
            info!(invite = id, "an invite is revoked");
            self.unsaved = true;
        }
        self.answer(command, result.map(meshd::Reply::InviteRevoked));
    }

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
                info!(invite = %joining.invite_id(), inviter = %joining.inviter().short(), "joining a network");
                self.events.push(What::JoinProgress { step: JoinStep::LookingUp });
                self.actions.push_back(Action::LookUp(joining.control()));
                self.joining = Some(joining);
            }
        }
    }

    /// The session for data is open under this destination.
    pub fn on_data_session(&mut self, destination: Destination) {
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
    pub fn on_substitute(&mut self, destination: Option<Destination>, now: Now) {
        if self.substitute.map(|substitute| substitute.destination) == destination {
            return;
        }
        self.substitute = destination.map(Inbox::from);
        if let Some(joining) = &mut self.joining {
            joining.drop_all_but(&self.inbox.hash);
            if let Some(substitute) = self.substitute {
                joining.on_substitute();
                self.sign_join(substitute, now);
            }
        }
        match self.refresh {
            Refresh::Running => self.stale = true,
            Refresh::Due(_) | Refresh::Waiting => self.start_refresh(),
        }
    }

    /// Where members reach this node.
    fn control(&self) -> Destination {
        self.substitute.unwrap_or(self.inbox).destination
    }

    /// Where this node takes control messages.
    fn inboxes(&self) -> impl Iterator<Item = Inbox> {
        [self.inbox].into_iter().chain(self.substitute)
    }

    /// Whether there is anybody who could speak to this node.
    #[must_use]
    pub fn has_company(&self) -> bool {
        self.own.is_some() && self.members.iter().any(|member| !member.is_away())
    }

    /// The control session is open, for the first time or again: others are told that this node is there.
    pub fn on_session(&mut self, now: Now) {
        if self.own.is_some() {
            self.announcer.news(now.monotonic);
        }
    }

    /// A lookup is done.
    pub fn on_found(&mut self, hash: DestinationHash, destination: Result<Destination, String>, now: Now) {
        let Some(joining) = &mut self.joining else { return };
        if joining.on_found(hash, destination) {
            for inbox in self.inboxes().collect::<Vec<_>>() {
                self.sign_join(inbox, now);
            }
        }
    }

    /// Has a request to join signed, which is to come from here.
    fn sign_join(&mut self, from: Inbox, now: Now) {
        let request = |joining: &Joining| joining.request(from.hash, &self.me, now);
        let Some(body) = self.joining.as_ref().and_then(request).map(Box::new) else { return };
        let control = from.destination;
        self.ask(Pending::Join(body.clone()), keyd::Request::SignJoin { body, control });
    }

    /// Whether an inviter has been asked for so long without an answer that it should be asked from a new substitute.
    #[must_use]
    pub fn asks_in_vain(&self) -> bool {
        self.joining.as_ref().is_some_and(Joining::is_in_vain)
    }

    /// A datagram came in; the router vouches for the sender.
    pub fn on_datagram(&mut self, from: &Destination, payload: &[u8], now: Now) {
        self.take_datagram(from, payload, now);
        self.settle_lives(false, now);
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
            Err(error @ DecodeError::Version { .. }) => {
                debug!(%error, from = %sender.short(), "dropped a control message");
                return;
            }
            Err(error) => {
                debug!(%error, from = %sender.short(), "dropped a control message");
                return self.strike(from, Offence::InvalidMessage, now);
            }
        };
        self.heard(&sender, now);
        match message {
            Message::JoinRequest(request) => self.on_join_request(from, &request, now),
            Message::JoinReply(reply) => self.on_join_reply(from, reply, now),
            Message::News(gossip) => self.on_gossip(from, gossip, now),
            Message::Ping(number, gossip) => {
                // It may say that the sender is a member.
                self.on_gossip(from, gossip, now);
                self.on_ping(from, number, now);
            }
            Message::Ack(number, gossip) => {
                self.on_ack(from, number, now);
                self.on_gossip(from, gossip, now);
            }
            Message::PingRequest(number, node, gossip) => {
                self.on_ping_request(from, number, &node, now);
                self.on_gossip(from, gossip, now);
            }
            Message::Compare(ranges, gossip) => {
                self.on_compare(from, &ranges, now);
                self.on_gossip(from, gossip, now);
            }
            Message::Want(entries) => self.on_want(from, entries, now),
        }
    }

    /// The addresses of the members that say that a control destination is theirs. It is not proven to be, so there may
    /// be several; what is refused at the expense of one must be tried at that of the next.
    fn places_at(&self, control: &DestinationHash) -> Vec<Place> {
        let Some(membership) = &self.membership else { return Vec::new() };
        let subnet = membership.charter.value.subnet;
        let members = self.members.at(control).filter_map(|node| self.members.get(&node));
        let addresses = members.map(|member| member.record.value.ipv4);
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

    /// The own request to join is signed.
    fn on_join_signed(&mut self, body: Signed<JoinBody>, now: Now) {
        // Meanwhile another attempt may have begun, or a substitute may have gone.
        let is_here = self.inboxes().any(|inbox| inbox.hash == body.value.control);
        if let Some(joining) = &mut self.joining
            && joining.is_for(&body.value)
            && is_here
            && let Some((to, request, is_first)) = joining.on_signed(body, now)
        {
            if is_first {
                self.events.push(What::JoinProgress { step: JoinStep::Asking });
            }
            self.send(&to, &Message::JoinRequest(request), now);
        }
    }

    fn on_join_reply(&mut self, from: &Destination, reply: JoinReply, now: Now) {
        let Some(joining) = &mut self.joining else { return };
        if from.hash() != joining.control() {
            return;
        }
        match joining.on_reply(reply, &self.me) {
            joining::Outcome::Ignored => {}
            joining::Outcome::Refused(error) => self.end_join(Err(error)),
            joining::Outcome::Welcome(welcome) => self.enter(*welcome, now),
        }
    }

    /// Becomes a member. The charter, the chain and its subject have been checked.
    fn enter(&mut self, welcome: Welcome, now: Now) {
        let Charter { subnet, .. } = welcome.charter.value;
        let network = welcome.charter.value.network();
        for record in welcome.records {
            if record.value.node != self.me.node
                && claims_own_address(&record.value, &subnet)
                && let Ok(record) = VerifiedRecord::new(record, &network)
            {
                self.members.merge_record(record, now.monotonic, now.unix.as_secs());
            }
        }
        self.events.push(What::JoinProgress { step: JoinStep::Admitted });
        self.become_member(welcome.charter, welcome.chain);
    }

    fn become_member(&mut self, charter: Signed<Charter>, chain: Chain) {
        let subnet = charter.value.subnet;
        let ipv4 = self.choose_address(&subnet, chain.member_since());
        info!(network = %charter.value.network().short(), %ipv4, "this node is a member");
        let network = charter.value.network().to_string();
        self.events.push(What::NetworkJoined { network, ipv4: ipv4.to_string() });
        self.membership = Some(Membership { charter, chain, ipv4, last_sequence: 0, epoch: None });
        self.former = None;
        self.unsaved = true;
        self.peers_version += 1;
        self.start_refresh();
    }

    fn end_join(&mut self, result: Result<meshd::Network, ApiError>) {
        if let Some(joining) = self.joining.take() {
            let result = result.map(meshd::Reply::Joined);
            for command in joining.commands() {
                self.answer(*command, result.clone());
            }
        }
    }

    /// `keyd` has answered.
    pub fn on_keyd(&mut self, ticket: Ticket, reply: Result<keyd::Reply, ApiError>, now: Now) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        match (pending, reply) {
            (pending, Err(error)) => self.on_keyd_failed(pending, error, now),
            (Pending::Charter(value, wish), Ok(keyd::Reply::Signature(signature))) => {
                let charter = Signed { value, signature };
                if charter.verify().is_err() {
                    return self
                        .answer(wish.command, Err(ApiError::internal("keyd signed with another identity")));
                }
                self.become_member(charter, Chain::founder(self.me.node));
                self.ask_invite(wish, true);
            }
            (Pending::Invite { wish, founded }, Ok(keyd::Reply::Invite { code, grant })) => {
                info!(invite = %grant.value.key.id(), expires_at = grant.value.expires_at, uses = grant.value.uses.limit(), "made an invite");
                let invite = meshd::Invite {
                    invite: code,
                    id: grant.value.key.id().to_string(),
                    expires_at: grant.value.expires_at,
                    max_uses: grant.value.uses.limit(),
                    network: grant.value.network.to_string(),
                    founded,
                };
                self.events.push(What::InviteCreated { id: invite.id.clone() });
                self.invites.add(grant);
                self.unsaved = true;
                self.answer(wish.command, Ok(meshd::Reply::Invite(invite)));
            }
            (Pending::WireGuard, Ok(keyd::Reply::WireGuardCertificate(certificate))) => {
                self.sign_record(certificate, now);
            }
            (Pending::Record(value), Ok(keyd::Reply::Signature(signature))) => {
                self.publish(Signed { value: *value, signature }, now);
            }
            (Pending::Pulse(value, why), Ok(keyd::Reply::Signature(signature))) => {
                self.on_pulse(Signed { value, signature }, why, now);
            }
            (Pending::Accusation(value), Ok(keyd::Reply::Signature(signature))) => {
                self.accuse(Signed { value, signature }, now);
            }
            (Pending::Revocation(value, command), Ok(keyd::Reply::Signature(signature))) => {
                self.on_revocation(Signed { value: *value, signature }, command, now);
            }
            (Pending::Join(value), Ok(keyd::Reply::Signature(signature))) => {
                self.on_join_signed(Signed { value: *value, signature }, now);
            }
            (Pending::Member { to, joiner }, Ok(keyd::Reply::Membership(certificate))) => {
                self.welcome(&to, &certificate, &joiner, now);
            }
            (pending, Ok(_)) => {
                let error = ApiError::internal("keyd gave an answer to another question");
                self.on_keyd_failed(pending, error, now);
            }
        }
    }

    fn on_keyd_failed(&mut self, pending: Pending, error: ApiError, now: Now) {
        warn!(%error, "keyd has not done what was to be asked of it");
        match pending {
            Pending::Charter(_, wish) | Pending::Invite { wish, .. } => self.answer(wish.command, Err(error)),
            Pending::WireGuard | Pending::Record(_) => {
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
            Pending::Pulse(_, Farewell::Leave(command)) | Pending::Revocation(_, command) => {
                self.answer(command, Err(error));
            }
            // Nobody is told, and they find out.
            Pending::Pulse(_, Farewell::ShutDown) => self.shut_down = true,
            // If others go on saying so, it is refuted then.
            Pending::Pulse(_, Farewell::No) => {}
            // Others say so, or the next probe does.
            Pending::Accusation(_) => {}
            // The joiner asks again.
            Pending::Member { .. } => {}
        }
    }

    /// Whether a member has the best claim to its address, which is a host's and not this node's own.
    fn may_use(&self, record: &Record) -> bool {
        let Some(membership) = &self.membership else { return false };
        let best = self.members.best_claim(record.ipv4).map(|(_, node)| node);
        let mine = membership.ipv4 == record.ipv4;
        let own = (membership.chain.member_since(), self.me.node);
        let loses = mine && self.members.get(&record.node).is_some_and(|member| own < claim(member));
        membership.charter.value.subnet.is_host(record.ipv4) && best == Some(record.node) && !loses
    }

    /// The first of this node's addresses to which nobody has a better claim.
    fn choose_address(&self, subnet: &Ipv4Subnet, member_since: u64) -> Ipv4Addr {
        let own = (member_since, self.me.node);
        let free = |address: &Ipv4Addr| self.members.best_claim(*address).is_none_or(|other| own < other);
        let mut candidates = (0..MAX_ADDRESSES).map(|attempt| subnet.address_of(&self.me.node, attempt));
        candidates.find(free).unwrap_or_else(|| subnet.address_of(&self.me.node, 0))
    }

    fn ask(&mut self, pending: Pending, request: keyd::Request) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        self.actions.push_back(Action::Ask(ticket, Box::new(request)));
    }

    fn send(&mut self, to: &Destination, message: &Message, now: Now) {
        let as_control = match message {
            Message::JoinReply(_) => true,
            Message::JoinRequest(request) => request.body.value.control == self.inbox.hash,
            _ => false,
        };
        let message = message.to_datagram(to);
        self.budget.charge(message.len(), now.monotonic);
        self.actions.push_back(Action::Send { to: *to, message, as_control });
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
