//! The mesh: membership, invites and gossip as one state machine, without I/O.
//!
//! [`Mesh`] takes what happened (a datagram, an answer of `keyd`, a command of a user, the passing of time)
//! together with the time, and hands out in [`Mesh::take_turn`] what is to be done. Randomness comes from a
//! seed. So the code in the daemon is the code in a simulation.
//!
//! Durability is part of the contract: a turn says whether state must be saved, and its actions may only be
//! carried out once it is. An invite's use is counted on disk before the joiner hears of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd::{self, CertifyMember, CreateInvite};
use i2plan_ipc::api::{meshd, tund};
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet, ipv6_of};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NetworkId, NodeId, Signed};
use i2plan_proto::invite::Uses;
use i2plan_proto::join::{self, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::membership::{Chain, Charter, MAX_DEPTH};
use i2plan_proto::message::{self, Message};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::wireguard::WireGuardCertificate;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tracing::{debug, info, warn};

mod door;
mod gossip;
mod invites;
mod joining;
mod members;
pub mod state;

use door::Door;
use gossip::Announcer;
use invites::Verdict;
use joining::Joining;
use members::{Member, Members};
use state::{Membership, State};

/// How long an epoch of the WireGuard key lasts. Its certificate is good for longer
/// ([`WireGuardCertificate::MAX_AGE`]): for a node whose `meshd` is away meanwhile.
const ROTATE_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far ahead the beginning of the own epoch may be, as `keyd` has it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10 * 60);

/// How often the own record is signed anew, so that members can tell a living record from an old one.
const REFRESH_EVERY: Duration = Duration::from_secs(12 * 3600);

/// Wait before `keyd` is asked again after it failed.
const KEYD_RETRY: Duration = Duration::from_secs(5);

/// How long other members' records may be newer in memory than on disk. They can be had again by gossip.
const SAVE_RECORDS_AFTER: Duration = Duration::from_secs(5);

/// Join requests that may wait for `keyd` at once.
const MAX_CERTIFYING: usize = 32;

/// Most uses that a limited invite may have: each user is remembered.
const MAX_USES: u32 = 1000;

/// Longest life of an invite.
const MAX_EXPIRY: Duration = Duration::from_secs(366 * 24 * 3600);

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
    /// How often it compares notes with another member.
    pub heartbeat: Duration,
    /// Name of the tunnel interface.
    pub interface: String,
    /// MTU of the tunnel interface, bytes.
    pub mtu: u16,
    /// Seconds between WireGuard keepalives.
    pub keepalive: u16,
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
    /// The state to be saved before any action is carried out. If that fails, the actions must be dropped and
    /// [`Mesh::on_save_failed`] called.
    pub save: Option<Vec<u8>>,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
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
    /// The own request to join.
    Join,
    /// A joiner's certificate, to be sent to this destination.
    Member { to: Destination, joiner: NodeId },
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

/// The mesh as one node sees it.
pub struct Mesh {
    me: keyd::Identity,
    /// Where this node takes WireGuard packets, while it does.
    data: Option<Destination>,
    settings: Settings,
    membership: Option<Membership>,
    invites: invites::Invites,
    members: Members,
    door: Door,
    own: Option<Signed<Record>>,
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
    unsaved: bool,
    /// When other members' records must be on disk: news of them alone can wait a little.
    save_records_at: Option<Duration>,
    peers_version: u64,
}

impl Mesh {
    /// The mesh of the node `me`, as it was when its state was last saved.
    #[must_use]
    pub fn new(me: keyd::Identity, settings: Settings, state: State, seed: [u8; 32], now: Now) -> Self {
        let mut mesh = Self {
            me,
            data: None,
            announcer: Announcer::new(settings.heartbeat, now.monotonic),
            settings,
            membership: state.membership,
            invites: invites::Invites::new(state.invites),
            members: Members::default(),
            door: Door::new(),
            own: None,
            refresh: Refresh::Waiting,
            stale: false,
            rotate: false,
            rotating: None,
            joining: None,
            pending: HashMap::new(),
            next_ticket: 0,
            rng: StdRng::from_seed(seed),
            actions: VecDeque::new(),
            unsaved: false,
            save_records_at: None,
            peers_version: 0,
        };
        if let Some(network) = mesh.network() {
            for record in state.records {
                // The file is trusted no more than the network: what does not verify is left out.
                if record.value.node != mesh.me.node && record.verify_for(&network).is_ok() {
                    mesh.members.merge(record);
                }
            }
        }
        mesh
    }

    /// The network, once this node is a member.
    #[must_use]
    pub fn network(&self) -> Option<NetworkId> {
        self.membership.as_ref().map(|membership| membership.charter.value.network())
    }

    /// The network as users see it.
    #[must_use]
    pub fn network_status(&self) -> Option<meshd::Network> {
        let membership = self.membership.as_ref()?;
        let charter = &membership.charter.value;
        Some(meshd::Network {
            id: charter.network().to_string(),
            founder: charter.founder == self.me.node,
            subnet: charter.subnet.to_string(),
            ipv4: membership.ipv4,
            ipv6: ipv6_of(&charter.network(), &self.me.node),
            members: self.members.len() as u64 + 1,
        })
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

    /// The WireGuard peers that this node should have.
    #[must_use]
    pub fn peers(&self, now: Now) -> Vec<tund::Peer> {
        // A key belongs to one node. Who claims another's, this node's own included, has none; otherwise one
        // member could spoil the whole table for tund.
        let own = self.published_key();
        let mut keys: HashSet<[u8; 32]> = own.into_iter().collect();
        let members = self.members.iter().filter(|member| {
            let certificate = &member.record.value.wireguard.value;
            certificate.is_valid_at(now.unix.as_secs()) && keys.insert(certificate.public_key)
        });
        members
            .map(|member| {
                let record = &member.record.value;
                tund::Peer {
                    node: record.node,
                    public_key: record.wireguard.value.public_key,
                    endpoint: record.data,
                    ipv4: self.may_use(record).then_some(record.ipv4),
                    ipv6: record.ipv6(),
                    keepalive: self.settings.keepalive,
                }
            })
            .collect()
    }

    /// The other members as users see them, without what only `tund` knows.
    #[must_use]
    pub fn peer_reports(&self, now: Now) -> Vec<(NodeId, meshd::Peer)> {
        let report = |member: &Member| {
            let record = &member.record.value;
            let peer = meshd::Peer {
                node_id: record.node.to_string(),
                name: record.name.to_string(),
                ipv4: record.ipv4,
                ipv6: record.ipv6(),
                public_key: data_encoding::BASE64.encode(&record.wireguard.value.public_key),
                endpoint: record.data.hash().b32(),
                depth: record.chain.depth() as u64,
                last_heard: member.last_heard.map(|heard| now.monotonic.saturating_sub(heard).as_secs()),
                last_handshake: None,
                tx_packets: 0,
                tx_bytes: 0,
                rx_packets: 0,
                rx_bytes: 0,
                queue_drops: 0,
                rx_drops: 0,
            };
            (record.node, peer)
        };
        self.members.iter().map(report).collect()
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
        [joining, refresh, self.announcer.wake_at(), self.save_records_at].into_iter().flatten().min()
    }

    /// What is to be done. To be called after every event.
    pub fn take_turn(&mut self) -> Turn {
        let save = std::mem::take(&mut self.unsaved).then(|| self.state().to_bytes());
        if save.is_some() {
            self.save_records_at = None;
        }
        Turn { save, actions: self.actions.drain(..).collect() }
    }

    /// The state could not be saved, so the turn's actions were not carried out. Saving is tried again with the
    /// next turn. Returns the commands that must now be answered with the error.
    pub fn on_save_failed(&mut self, dropped: Vec<Action>, error: &ApiError, now: Now) -> Vec<CommandId> {
        self.unsaved = true;
        let mut failed = Vec::new();
        for action in dropped {
            match action {
                Action::Answer(command, _) => failed.push(command),
                // Never asked, so it will not be answered.
                Action::Ask(ticket, _) => {
                    if let Some(pending) = self.pending.remove(&ticket) {
                        self.on_keyd_failed(pending, error.clone(), now);
                    }
                }
                // Lost as a datagram can be lost.
                Action::Send { .. } | Action::LookUp(_) => {}
            }
        }
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Answer(command, _) => failed.push(command),
                other => self.actions.push_back(other),
            }
        }
        failed
    }

    fn state(&self) -> State {
        State {
            node: self.me.node,
            membership: self.membership.clone(),
            invites: self.invites.issued().to_vec(),
            records: self.members.iter().map(|member| member.record.clone()).collect(),
        }
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Now) {
        if let Some(joining) = &mut self.joining {
            match joining.on_time(now) {
                joining::Step::Wait => {}
                joining::Step::LookUp(hash) => self.actions.push_back(Action::LookUp(hash)),
                joining::Step::Send(to, request) => self.send(&to, &Message::JoinRequest(request)),
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
        if self.announcer.is_due(now.monotonic) {
            let announce = self.announcer.next_round(now.monotonic, &mut self.rng);
            self.gossip(announce);
        }
        if self.save_records_at.is_some_and(|at| at <= now.monotonic) || self.invites.remove_expired(now.unix)
        {
            self.unsaved = true;
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

    /// A user wants a new WireGuard key.
    pub fn rotate_key(&mut self, command: CommandId, now: Now) {
        let refused = if self.membership.is_none() {
            Some(ApiError::conflict("this node is in no network, and so has no WireGuard key"))
        } else if self.own.is_none() {
            Some(
                ApiError::unavailable("this node has not published its first WireGuard key yet")
                    .with_hint("see that its I2P sessions are up, then try again"),
            )
        } else if self.rotating.is_some() {
            Some(ApiError::conflict("the WireGuard key is being rotated already"))
        } else if self.epoch() >= Some(WireGuardCertificate::epoch_at(now.unix.as_secs())) {
            Some(
                ApiError::conflict("the WireGuard key was rotated less than a minute ago")
                    .with_hint("an epoch lasts a minute at least; try again after that"),
            )
        } else {
            None
        };
        if let Some(error) = refused {
            return self.answer(command, Err(error));
        }
        self.rotate = true;
        self.rotating = Some(command);
        match self.refresh {
            Refresh::Running => self.stale = true,
            Refresh::Due(_) | Refresh::Waiting => self.start_refresh(),
        }
    }

    /// A user wants to join a network.
    pub fn join(&mut self, command: CommandId, code: &str, now: Now) {
        let founding = self.pending.values().any(|pending| matches!(pending, Pending::Charter(..)));
        let busy = self.membership.is_some() || self.joining.is_some() || founding;
        let checked = if let Some(network) = self.network() {
            let message = format!("this node is already a member of network {}", network.short());
            Err(ApiError::conflict(message).with_hint("one node is a member of one network"))
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

    /// The control session is open, for the first time or again: others are told that this node is there.
    pub fn on_session(&mut self, now: Now) {
        if self.own.is_some() {
            self.announcer.news(now.monotonic);
        }
    }

    /// A lookup is done.
    pub fn on_found(&mut self, hash: DestinationHash, destination: Result<Destination, String>, now: Now) {
        let Some(joining) = &mut self.joining else { return };
        if let Some(body) = joining.on_found(hash, destination, &self.me, now) {
            self.ask(Pending::Join, keyd::Request::SignJoin(body));
        }
    }

    /// A datagram came in; the router vouches for the sender.
    pub fn on_datagram(&mut self, from: &Destination, payload: &[u8], now: Now) {
        if payload.len() > message::MAX_LEN {
            debug!(len = payload.len(), "dropped a control message that is too long");
            return;
        }
        let sender = from.hash();
        let asked = self.joining.as_ref().is_some_and(|joining| joining.control() == sender);
        if !self.door.admit(&sender, asked || self.members.is_member(&sender), now.monotonic) {
            debug!(from = %sender.short(), "dropped a control message: too many are coming");
            return;
        }
        let message = match Message::from_bytes(payload) {
            Ok(message) => message,
            Err(error) => {
                debug!(%error, from = %sender.short(), "dropped a control message");
                return;
            }
        };
        self.members.heard(&sender, now.monotonic);
        match message {
            Message::JoinRequest(request) => self.on_join_request(from, &request, now),
            Message::JoinReply(reply) => self.on_join_reply(from, reply),
            Message::Records(records) => self.on_records(from, records, now),
            Message::Digest(digest) => self.on_digest(from, &digest),
        }
    }

    fn on_join_request(&mut self, from: &Destination, request: &JoinRequest, now: Now) {
        let Some(membership) = &self.membership else { return };
        let body = &request.body.value;
        let meant_for_me = body.network == membership.charter.value.network() && body.inviter == self.me.node;
        if !meant_for_me || body.control != from.hash() {
            debug!("dropped a join request that is not for this node or not from its sender");
            return;
        }
        if !self.door.admit_join(now.monotonic) {
            debug!("dropped a join request: too many are coming");
            return;
        }
        if let Err(error) = request.verify() {
            debug!(%error, "dropped a join request");
            return;
        }
        let certifying = |pending: &&Pending| matches!(pending, Pending::Member { .. });
        let same =
            |pending: &Pending| matches!(pending, Pending::Member { joiner, .. } if *joiner == body.joiner);
        if self.pending.values().any(same) {
            return;
        }
        let verdict = if membership.chain.depth() >= MAX_DEPTH {
            Verdict::Refuse(Refusal::TooDeep)
        } else if self.own.is_none() || self.pending.values().filter(certifying).count() >= MAX_CERTIFYING {
            Verdict::Refuse(Refusal::Busy)
        } else {
            self.invites.use_by(&body.invite, body.joiner, now.unix)
        };
        match verdict {
            // Anybody can ask with an invite of their own making, and none of that need be in the log.
            Verdict::Refuse(Refusal::Unknown) => {
                debug!(invite = %body.invite.id(), "refused a joiner: there is no such invite");
                let refusal = Refusal::Unknown;
                self.send(from, &Message::JoinReply(JoinReply::Refused { invite: body.invite, refusal }));
            }
            Verdict::Refuse(refusal) => {
                info!(invite = %body.invite.id(), joiner = %body.joiner.short(), "refused a joiner: {refusal}");
                self.send(from, &Message::JoinReply(JoinReply::Refused { invite: body.invite, refusal }));
            }
            Verdict::Certify { grant, counted } => {
                if counted {
                    info!(invite = %body.invite.id(), joiner = %body.joiner.short(), "an invite is used");
                    // Saved before keyd is asked, hence before the joiner can learn of its certificate.
                    self.unsaved = true;
                }
                let certify = CertifyMember { grant, request: request.clone() };
                let pending = Pending::Member { to: *from, joiner: body.joiner };
                self.ask(pending, keyd::Request::CertifyMember(Box::new(certify)));
            }
        }
    }

    fn on_join_reply(&mut self, from: &Destination, reply: JoinReply) {
        let Some(joining) = &mut self.joining else { return };
        if from.hash() != joining.control() {
            return;
        }
        match joining.on_reply(reply, &self.me) {
            joining::Outcome::Ignored => {}
            joining::Outcome::Refused(error) => self.end_join(Err(error)),
            joining::Outcome::Welcome(welcome) => self.enter(*welcome),
        }
    }

    /// Becomes a member. The charter, the chain and its subject have been checked.
    fn enter(&mut self, welcome: Welcome) {
        let network = welcome.charter.value.network();
        for record in welcome.records {
            if record.value.node != self.me.node && record.verify_for(&network).is_ok() {
                self.members.merge(record);
            }
        }
        self.become_member(welcome.charter, welcome.chain);
    }

    fn become_member(&mut self, charter: Signed<Charter>, chain: Chain) {
        let subnet = charter.value.subnet;
        let taken = |address: Ipv4Addr| self.members.iter().any(|member| member.record.value.ipv4 == address);
        let candidates = (0..64).map(|attempt| subnet.address_of(&self.me.node, attempt));
        let ipv4 = candidates.into_iter().find(|address| !taken(*address));
        let ipv4 = ipv4.unwrap_or_else(|| subnet.address_of(&self.me.node, 0));
        info!(network = %charter.value.network().short(), %ipv4, "this node is a member");
        self.membership = Some(Membership { charter, chain, ipv4, last_sequence: 0, epoch: None });
        self.unsaved = true;
        self.peers_version += 1;
        self.start_refresh();
    }

    fn end_join(&mut self, result: Result<meshd::Network, ApiError>) {
        if let Some(joining) = self.joining.take() {
            self.answer(joining.command(), result.map(meshd::Reply::Joined));
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
            (Pending::Join, Ok(keyd::Reply::Signature(signature))) => {
                if let Some(joining) = &mut self.joining
                    && let Some((to, request)) = joining.on_signed(signature, now)
                {
                    self.send(&to, &Message::JoinRequest(request));
                }
            }
            (Pending::Member { to, joiner }, Ok(keyd::Reply::Membership(certificate))) => {
                self.welcome(&to, &certificate, &joiner);
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
            Pending::Join => self.end_join(Err(error)),
            // The joiner asks again.
            Pending::Member { .. } => {}
        }
    }

    /// Sends a joiner its certificate and what it needs to start.
    fn welcome(
        &mut self,
        to: &Destination,
        certificate: &Signed<i2plan_proto::membership::Membership>,
        joiner: &NodeId,
    ) {
        let (Some(membership), Some(own)) = (&self.membership, &self.own) else { return };
        let chain = match membership.chain.extended(certificate) {
            Ok(chain) => chain,
            Err(error) => {
                warn!(%error, "keyd's certificate does not continue this node's chain");
                return;
            }
        };
        let mut welcome = Welcome { charter: membership.charter.clone(), chain, records: vec![own.clone()] };
        let mut room = message::MAX_LEN.saturating_sub(2 + 1 + welcome.charter.to_bytes().len());
        room = room.saturating_sub(welcome.chain.to_bytes().len() + own.to_bytes().len());
        for record in self.members.sample(join::MAX_RECORDS - 1, &[*joiner], &mut self.rng) {
            let len = record.to_bytes().len();
            if len < room {
                room -= len;
                welcome.records.push(record.clone());
            }
        }
        self.send(to, &Message::JoinReply(JoinReply::Welcome(Box::new(welcome))));
    }

    /// Begins to renew the own record: first the certificate, then the record.
    fn start_refresh(&mut self) {
        let (Some(network), Some(_)) = (self.network(), self.data) else {
            self.refresh = Refresh::Waiting;
            return;
        };
        self.refresh = Refresh::Running;
        let epoch = self.epoch().filter(|_| !self.rotate);
        self.ask(Pending::WireGuard, keyd::Request::CertifyWireGuard { network, epoch });
    }

    fn sign_record(&mut self, wireguard: Signed<WireGuardCertificate>, now: Now) {
        let (Some(membership), Some(data)) = (&mut self.membership, self.data) else { return };
        let epoch = wireguard.value.epoch;
        if membership.epoch.replace(epoch) != Some(epoch) {
            info!(epoch, "a new epoch of the WireGuard key begins");
            self.rotate = false;
            // For tund, which goes on accepting the key before for a while.
            self.peers_version += 1;
        }
        // Milliseconds since 1970, so that a node that lost its state still outdates its older records.
        let millis = u64::try_from(now.unix.as_millis()).unwrap_or(u64::MAX);
        let sequence = millis.max(membership.last_sequence.saturating_add(1));
        membership.last_sequence = sequence;
        let record = Record {
            node: self.me.node,
            sequence,
            issued_at: now.unix.as_secs(),
            name: self.settings.name.clone(),
            control: self.me.control,
            data,
            ipv4: membership.ipv4,
            wireguard,
            chain: membership.chain.clone(),
        };
        // The sequence number and the epoch are on disk before anybody sees them.
        self.unsaved = true;
        self.ask(Pending::Record(Box::new(record.clone())), keyd::Request::SignRecord(Box::new(record)));
    }

    fn publish(&mut self, record: Signed<Record>, now: Now) {
        // At least a while, so that clocks that disagree do not make a busy loop.
        let next =
            until_rotation(record.value.wireguard.value.epoch, now).clamp(KEYD_RETRY * 12, REFRESH_EVERY);
        let next = if std::mem::take(&mut self.stale) { Duration::ZERO } else { next };
        self.refresh = Refresh::Due(now.monotonic + next);
        if !self.rotate
            && let Some(command) = self.rotating.take()
        {
            let key = describe_key(&record.value.wireguard.value);
            self.answer(command, Ok(meshd::Reply::Rotated(key)));
        }
        self.own = Some(record);
        self.announcer.news(now.monotonic);
        if self.joining.is_some()
            && let Some(network) = self.network_status()
        {
            self.end_join(Ok(network));
        }
        if self.announcer.is_due(now.monotonic) {
            let announce = self.announcer.next_round(now.monotonic, &mut self.rng);
            self.gossip(announce);
        }
    }

    /// Of several members that claim one address, the one with the smallest id has it.
    fn may_use(&self, record: &Record) -> bool {
        let Some(membership) = &self.membership else { return false };
        let mine = membership.ipv4 == record.ipv4;
        let better = |member: &Member| {
            member.record.value.ipv4 == record.ipv4 && member.record.value.node < record.node
        };
        membership.charter.value.subnet.is_host(record.ipv4) && !mine && !self.members.iter().any(better)
    }

    fn ask(&mut self, pending: Pending, request: keyd::Request) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.pending.insert(ticket, pending);
        self.actions.push_back(Action::Ask(ticket, Box::new(request)));
    }

    fn send(&mut self, to: &Destination, message: &Message) {
        self.actions.push_back(Action::Send { to: *to, message: message.to_bytes() });
    }

    fn answer(&mut self, command: CommandId, result: Result<meshd::Reply, ApiError>) {
        self.actions.push_back(Action::Answer(command, Box::new(result)));
    }
}

/// A WireGuard key and its certificate, for users.
#[must_use]
pub fn describe_key(certificate: &WireGuardCertificate) -> meshd::WireGuardKey {
    meshd::WireGuardKey {
        public_key: data_encoding::BASE64.encode(&certificate.public_key),
        epoch: certificate.epoch,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
    }
}

/// How long until an epoch is over; nothing for one that begins in the future, as after a clock was set back.
fn until_rotation(epoch: u32, now: Now) -> Duration {
    let began = Duration::from_secs(WireGuardCertificate::begins_at(epoch));
    if began > now.unix + CLOCK_TOLERANCE {
        return Duration::ZERO;
    }
    (began + ROTATE_EVERY).saturating_sub(now.unix)
}

#[cfg(test)]
mod tests;
