//! Whole meshes in memory: the real core, a network that delivers or loses, and a signer in place of `keyd`.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};

use ed25519_dalek::SigningKey;
use i2plan_ipc::api::keyd::CreateInvite;
use i2plan_ipc::api::order::{Executed, Order};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::address::AddressRange;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{DestinationProof, ProvenDestination};
use i2plan_proto::identity::{NetworkId, Signable, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteGrant, InviteSecret};
use i2plan_proto::liveness::LivenessMessage;
use i2plan_proto::membership::{Chain, Delegation};
use i2plan_proto::message::{self, Content, Datagram, Entry, Gossip, Item, Position, Range};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::{ProvenKey, WireGuardCertificate, WireGuardSecret};
use zeroize::Zeroizing;

use super::*;
use crate::core::invites::MAX_USES;
use crate::core::publication::LivenessReason;

mod attacks;
mod delegation;
mod exclusion;
mod fallback;
mod following;
mod ingress;
mod joining;
mod liveness;
mod publication;
mod robustness;
mod spread;
mod state_file;

const START: Duration = Duration::from_secs(1_800_000_000);

/// A node: its core, and what its `keyd` would hold.
struct Node {
    mesh: Mesh,
    key: SigningKey,
    identity: keyd::Identity,
    /// The last number that its `keyd` has given out.
    counter: Cell<u64>,
    /// Certificates that its `keyd` was told of to recover its memory, and whether an administrator has said that these are
    /// all.
    recovered: Cell<(usize, bool)>,
    /// In place of its control destination.
    fallback: Option<Destination>,
    disk: Vec<u8>,
    disk_full: bool,
    answers: Vec<Result<meshd::Reply, ApiError>>,
    /// What its followers were told.
    told: Vec<EventKind>,
    /// Its state was to be kept beside the next one.
    set_aside: bool,
}

/// Nodes and the datagrams between them.
struct World {
    nodes: Vec<Node>,
    time: Duration,
    in_flight: VecDeque<(Destination, Destination, Vec<u8>)>,
    /// Every so many-th datagram is lost; none if zero.
    lose_every: usize,
    sent: usize,
    /// By how many seconds nodes' clocks are wrong.
    wrong: HashMap<usize, i64>,
    sent_bytes: usize,
    /// Nodes that are switched off.
    down: Vec<usize>,
    /// Pairs of nodes between which nothing passes.
    severed: Vec<(usize, usize)>,
    /// From which destination to which nothing passes, as where a router holds on to a dead session.
    dead: Vec<(Destination, Destination)>,
}

fn destination(seed: u8, purpose: u8) -> Destination {
    let signing_key = destination_key(purpose).verifying_key().to_bytes();
    Destination { padding: [seed; 32], signing_key }
}

/// The key of a destination for this purpose, whose ever it is.
fn destination_key(purpose: u8) -> SigningKey {
    SigningKey::from_bytes(&[purpose; 32])
}

/// Has the destinations of a record sign that its node uses them, as far as their keys are known here, and the node sign
/// the record.
fn signed_record(mut record: Record, key: &SigningKey) -> Signed<Record> {
    let (network, node) = (record.network(), record.node);
    let proven: Vec<ProvenDestination> = record
        .destinations()
        .map(|(named, role)| {
            let destination = named.destination;
            let keys = (0..=u8::MAX).map(destination_key);
            let key = keys.into_iter().find(|key| key.verifying_key().to_bytes() == destination.signing_key);
            let proof = DestinationProof { network, node, role, destination };
            let proof = key.map_or(Signature([0; 64]), |key| proof.sign(&key));
            ProvenDestination { destination, proof }
        })
        .collect();
    record.control = proven[0];
    record.data = proven[1];
    record.primary = proven.get(2).copied().map(Box::new);
    let signature = record.sign(key);
    Signed { value: record, signature }
}

fn identity(seed: u8) -> (SigningKey, keyd::Identity) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let node = NodeId(key.verifying_key().to_bytes());
    (key, keyd::Identity { node, control: destination(seed, 1), sealed: false, remembers: true })
}

fn settings(seed: u8) -> Settings {
    Settings {
        name: format!("node-{seed}").parse().unwrap(),
        subnet: Ipv4Subnet::DEFAULT,
        heartbeat: Duration::from_secs(30),
        peer_timeout: Duration::from_secs(300),
        max_peers: 50,
        control_rate: 2000,
        interface: "i2plan0".to_owned(),
        mtu: 1280,
        keepalive: 25,
    }
}

impl World {
    fn new(count: u8) -> Self {
        Self::in_subnet(count, Ipv4Subnet::DEFAULT)
    }

    fn in_subnet(count: u8, subnet: Ipv4Subnet) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            time: Duration::ZERO,
            in_flight: VecDeque::new(),
            lose_every: 0,
            sent: 0,
            sent_bytes: 0,
            wrong: HashMap::new(),
            down: Vec::new(),
            severed: Vec::new(),
            dead: Vec::new(),
        };
        for seed in 1..=count {
            let (key, me) = identity(seed);
            let mut mesh = Mesh::new(
                me,
                Settings { subnet, ..settings(seed) },
                State::new(me.node),
                [seed; 32],
                world.now(),
            );
            mesh.handle_data_session(destination(seed, 2));
            let (disk, answers, told) = (Vec::new(), Vec::new(), Vec::new());
            let (fallback, disk_full) = (None, false);
            let set_aside = false;
            world.nodes.push(Node {
                mesh,
                key,
                identity: me,
                counter: Cell::new(0),
                recovered: Cell::new((0, false)),
                fallback,
                disk,
                disk_full,
                answers,
                told,
                set_aside,
            });
        }
        world
    }

    fn now(&self) -> Now {
        Now { monotonic: self.time, unix: START + self.time }
    }

    /// What a node's clock says.
    fn clock(&self, index: usize) -> Now {
        let wrong = self.wrong.get(&index).copied().unwrap_or(0);
        let unix = self.now().unix.as_secs().checked_add_signed(wrong).unwrap();
        Now { unix: Duration::from_secs(unix), ..self.now() }
    }

    /// Carries out what a node wants done, until it wants nothing more.
    fn settle(&mut self, index: usize) {
        loop {
            let turn = self.nodes[index].mesh.poll_turn();
            self.nodes[index].told.extend(turn.events);
            self.nodes[index].set_aside |= turn.set_aside;
            if !turn.save && turn.actions.is_empty() {
                return;
            }
            if turn.save {
                if self.nodes[index].disk_full {
                    let (now, reason) = (self.clock(index), "the disk is full");
                    let rest = self.nodes[index].mesh.handle_save_failure(turn.actions, reason, now);
                    for (_, error) in rest.failed {
                        self.nodes[index].answers.push(Err(error.into()));
                    }
                    return self.carry_out(index, rest.actions);
                }
                self.nodes[index].disk = self.nodes[index].mesh.state().to_bytes();
            }
            self.carry_out(index, turn.actions);
        }
    }

    fn carry_out(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            let now = self.clock(index);
            match action {
                Action::Send { to, message, as_control } => {
                    assert!(message.len() <= message::MAX_LEN, "{} bytes", message.len());
                    self.sent += 1;
                    self.sent_bytes += message.len() + budget::ENVELOPE;
                    if self.lose_every == 0 || !self.sent.is_multiple_of(self.lose_every) {
                        let Node { identity, fallback, .. } = &self.nodes[index];
                        let from = fallback.filter(|_| !as_control).unwrap_or(identity.control);
                        self.in_flight.push_back((from, to, message));
                    }
                }
                Action::LookUp(hash) => {
                    let found = self
                        .nodes
                        .iter()
                        .map(|node| node.identity.control)
                        .find(|control| control.hash() == hash);
                    self.nodes[index].mesh.handle_lookup(
                        hash,
                        found.ok_or_else(|| "KEY_NOT_FOUND".to_owned()),
                        now,
                    );
                }
                Action::Ask(ticket, request) => {
                    let reply = sign(&self.nodes[index], *request, now);
                    self.nodes[index].mesh.handle_keyd_reply(ticket, reply, now);
                }
                Action::Answer(_, result) => {
                    self.nodes[index].answers.push(result.map_err(ApiError::from));
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, message)) = self.in_flight.pop_front() {
            if self.dead.contains(&(from, to)) {
                continue;
            }
            let place = |control| {
                let takes = |node: &Node| node.identity.control == control || node.fallback == Some(control);
                self.nodes.iter().position(takes)
            };
            let (source, target) = (place(from), place(to));
            let cut = |index: usize| {
                self.down.contains(&index)
                    || source.is_some_and(|source| {
                        self.severed.contains(&(source, index)) || self.severed.contains(&(index, source))
                    })
            };
            if let Some(index) = target.filter(|index| !cut(*index)) {
                let now = self.clock(index);
                self.nodes[index].mesh.handle_datagram(&from, &message, now);
                self.settle(index);
            }
        }
    }

    /// Lets time pass, second by second.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.deliver();
            self.time += Duration::from_secs(1);
            for index in 0..self.nodes.len() {
                if !self.down.contains(&index)
                    && self.nodes[index].mesh.poll_timeout().is_some_and(|at| at <= self.time)
                {
                    let now = self.clock(index);
                    self.nodes[index].mesh.handle_timeout(now);
                    self.settle(index);
                }
            }
        }
        self.deliver();
    }

    /// An invite for so many addresses that its users can invite others too, if there are as many.
    fn invite(&mut self, index: usize, uses: Option<u32>) -> Result<SecretText, ApiError> {
        let held = self.nodes[index]
            .mesh
            .member()
            .map(LocalMember::holding)
            .map_or(1 << 16, |holding| holding.ranges.size());
        self.invite_for(index, uses, Some(u32::try_from(held / 64).unwrap().max(1)))
    }

    fn invite_for(
        &mut self,
        index: usize,
        uses: Option<u32>,
        addresses: Option<u32>,
    ) -> Result<SecretText, ApiError> {
        let now = self.clock(index);
        self.nodes[index].mesh.create_invite(0, 3600, uses, addresses, now);
        self.settle(index);
        match self.ordered(index) {
            Ok(meshd::Reply::Invite(invite)) => Ok(invite.invite),
            Ok(_) => panic!("another answer"),
            Err(error) => Err(error),
        }
    }

    fn join(&mut self, index: usize, code: &str) -> Result<meshd::Network, ApiError> {
        let now = self.clock(index);
        self.nodes[index].mesh.join(0, code, now);
        self.settle(index);
        for _ in 0..200 {
            if let Some(answer) = self.nodes[index].answers.pop() {
                return match answer {
                    Ok(meshd::Reply::Joined(network)) => Ok(network),
                    Ok(_) => panic!("another answer"),
                    Err(error) => Err(error),
                };
            }
            self.run(1);
        }
        panic!("no answer");
    }

    /// A network of which the first node is the founder, and each other was invited by the one at this place.
    fn network(inviters: &[usize]) -> Self {
        let mut world = Self::new(u8::try_from(inviters.len() + 1).unwrap());
        for (index, inviter) in inviters.iter().enumerate() {
            let code = world.invite(*inviter, None).unwrap();
            world.join(index + 1, code.expose()).unwrap();
        }
        world.run(60);
        for index in 0..world.nodes.len() {
            assert_eq!(world.members(index), world.nodes.len() as u64);
        }
        world
    }

    fn node(&self, index: usize) -> NodeId {
        self.nodes[index].identity.node
    }

    /// How a node sees another.
    fn liveness(&self, here: usize, there: usize) -> Option<meshd::Liveness> {
        let reports = self.nodes[here].mesh.peer_reports(self.now());
        reports.into_iter().find(|(node, _)| *node == self.node(there)).map(|(_, peer)| peer.liveness)
    }

    /// Runs a user's command and returns its answer, which comes at once.
    fn command(&mut self, index: usize, run: impl FnOnce(&mut Mesh, Now)) -> Result<meshd::Reply, ApiError> {
        let now = self.now();
        run(&mut self.nodes[index].mesh, now);
        self.settle(index);
        self.ordered(index)
    }

    /// The answer to a command, which comes at once. If it is an order, an administrator gives it.
    fn ordered(&mut self, index: usize) -> Result<meshd::Reply, ApiError> {
        match self.nodes[index].answers.pop().expect("an answer at once") {
            Ok(meshd::Reply::ToOrder(proposed)) => {
                let now = self.clock(index);
                let executed = execute(&self.nodes[index], proposed.order, now);
                self.nodes[index].mesh.enact(0, executed, now);
                self.settle(index);
                self.nodes[index].answers.pop().expect("an answer at once")
            }
            answer => answer,
        }
    }

    fn has_peer(&self, here: usize, there: usize) -> bool {
        self.nodes[here].mesh.peers(self.now()).iter().any(|peer| peer.node == self.node(there))
    }

    /// A node forgets all but its disk and its keys.
    fn restart(&mut self, index: usize) {
        let node = &self.nodes[index];
        let state = State::from_bytes(&node.disk, &node.identity.node).unwrap();
        let seed = u8::try_from(index + 1).unwrap();
        let mut mesh = Mesh::new(node.identity, settings(seed), state, [seed; 32], self.now());
        mesh.handle_data_session(destination(seed, 2));
        self.nodes[index].mesh = mesh;
        self.nodes[index].fallback = None;
        self.settle(index);
    }

    /// A session is open in place of a node's control session, or it has ended.
    fn fallback(&mut self, index: usize, destination: Option<Destination>) {
        let now = self.now();
        self.nodes[index].fallback = destination;
        self.nodes[index].mesh.handle_fallback(destination, now);
        self.settle(index);
    }

    /// What a node's followers were told since they were last asked, in words; members by their place.
    fn told(&mut self, index: usize) -> Vec<String> {
        let told = std::mem::take(&mut self.nodes[index].told);
        let place = |id: &str| {
            let place = self.nodes.iter().position(|node| node.identity.node.to_string() == id);
            place.expect("a node of this world")
        };
        let describe = |what| match what {
            EventKind::NetworkJoined { .. } => "joined".to_owned(),
            EventKind::NetworkLeft { revoked, .. } => format!("left, revoked {revoked}"),
            EventKind::MemberAdded { node_id, name } => format!("{} added: {name}", place(&node_id)),
            EventKind::MemberChanged { node_id, name } => format!("{} changed: {name}", place(&node_id)),
            EventKind::MemberRemoved { node_id, .. } => format!("{} removed", place(&node_id)),
            EventKind::MemberLiveness { node_id, liveness, .. } => {
                format!("{} {liveness:?}", place(&node_id))
            }
            EventKind::InviteCreated { .. } => "invite".to_owned(),
            EventKind::InviteUsed { node_id, .. } => format!("invite used by {}", place(&node_id)),
            EventKind::InviteRevoked { .. } => "invite revoked".to_owned(),
            EventKind::BanAdded { node_id, name, reason } => {
                format!("{} banned: {reason:?} {}", place(&node_id), name.unwrap_or_default())
            }
            EventKind::BanRemoved { node_id, name } => {
                format!("{} not banned {}", place(&node_id), name.unwrap_or_default())
            }
            EventKind::KeyRotated { .. } => "key rotated".to_owned(),
            EventKind::ForeignNumber { .. } => "foreign number".to_owned(),
            EventKind::AddressChanged { .. } => "address changed".to_owned(),
            EventKind::JoinProgress { step } => format!("{step:?}"),
            other => panic!("not of the mesh: {other:?}"),
        };
        told.into_iter().map(describe).collect()
    }

    /// A node gets a message.
    fn give(&mut self, from: &Destination, to: usize, message: &Message) {
        let now = self.now();
        let Node { mesh, identity, .. } = &mut self.nodes[to];
        mesh.handle_datagram(from, &message.to_datagram(&identity.control), now);
    }

    /// A node gets a message from another, and does what follows.
    fn hand(&mut self, from: usize, to: usize, message: &Message) {
        let from = self.nodes[from].identity.control;
        self.give(&from, to, message);
        self.settle(to);
    }

    /// What a member says of another: that it could not reach it, of all that it knows of it.
    fn suspicion(&self, confirmer: usize, subject: usize) -> Message {
        let suspicion = Suspicion {
            network: self.nodes[0].mesh.network().unwrap(),
            confirmer: self.node(confirmer),
            subject: self.node(subject),
            sequence: self.nodes[subject].member().local_sequence().unwrap(),
            // Whatever its clock says.
            issued_at: u64::MAX,
        };
        let signature = suspicion.sign(&self.nodes[confirmer].key);
        Message::news(vec![Item::Suspicion(Signed { value: suspicion, signature })])
    }

    fn members(&self, index: usize) -> u64 {
        self.nodes[index].mesh.network_status(self.now()).map_or(0, |network| network.members)
    }
}

impl Node {
    /// The network, as it sees that as a member.
    fn member(&self) -> &LocalMember {
        self.mesh.member().unwrap()
    }

    fn member_mut(&mut self) -> &mut LocalMember {
        match &mut self.mesh.situation {
            Situation::Member(member) => member,
            _ => panic!("it is no member"),
        }
    }

    /// Has it do something as a member.
    fn act<T>(&mut self, act: impl FnOnce(&mut LocalMember, &mut Context) -> T) -> T {
        match &mut self.mesh.situation {
            Situation::Member(member) => act(member, &mut self.mesh.cx),
            _ => panic!("it is no member"),
        }
    }

    /// The next number of its `keyd`.
    fn next_number(&self) -> u64 {
        self.counter.set(self.counter.get().saturating_add(1));
        self.counter.get()
    }

    /// Others know a statement of this node with this number.
    fn note_number(&self, number: u64) -> keyd::Noted {
        if number <= self.counter.get() {
            return keyd::Noted::Known;
        }
        self.counter.set(number);
        keyd::Noted::Foreign
    }
}

/// A WireGuard key for each node and epoch.
fn wireguard_key(network: NetworkId, node: NodeId, epoch: u32) -> ProvenKey {
    let mut seed = Zeroizing::new(node.0);
    seed[..4].copy_from_slice(&epoch.to_be_bytes());
    WireGuardSecret::new(&seed).proven(network, node)
}

/// A message that tells a record.
fn news(record: Signed<Record>) -> Message {
    Message::news(vec![Item::Record(Box::new(record))])
}

fn signed<T: Signable>(value: T, key: &SigningKey) -> Signed<T> {
    let signature = value.sign(key);
    Signed { value, signature }
}

/// What an honest `keyd` answers.
fn sign(node: &Node, request: keyd::Request, now: Now) -> Result<keyd::Reply, ApiError> {
    let unix = now.unix.as_secs();
    let me = node.identity.node;
    Ok(match request {
        keyd::Request::SignCharter(charter) => keyd::Reply::Signature(charter.sign(&node.key)),
        keyd::Request::SignRecord(new) => {
            let keyd::NewRecord { charter, chain, name, control, data, wireguard } = *new;
            let own = node.identity.control;
            let record = Record {
                node: me,
                sequence: node.next_number(),
                issued_at: unix,
                name,
                control: ProvenDestination::unproven(control),
                primary: (control != own).then(|| Box::new(ProvenDestination::unproven(own))),
                takes_reports: false,
                data: ProvenDestination::unproven(data),
                wireguard,
                chain,
            };
            let record = signed_record(record, &node.key);
            assert_eq!(record.verify_for(&charter), Ok(()));
            keyd::Reply::Record(Box::new(record))
        }
        keyd::Request::SignPulse { network, life: presence } => {
            let liveness_message =
                LivenessMessage { network, node: me, sequence: node.next_number(), presence };
            keyd::Reply::Liveness(signed(liveness_message, &node.key))
        }
        keyd::Request::Note(statement) => keyd::Reply::Noted(match statement {
            keyd::Statement::Record(record) => node.note_number(record.value.sequence),
            keyd::Statement::Liveness(liveness_message) => node.note_number(liveness_message.value.sequence),
            keyd::Statement::Certificate(certificate) => node.note_number(certificate.value.grant.serial),
            keyd::Statement::Revocation(_) | keyd::Statement::Resignation(_) => keyd::Noted::Known,
        }),
        keyd::Request::Recover(certificates) => {
            let (known, complete) = node.recovered.get();
            let known = known + certificates.len();
            node.recovered.set((known, complete));
            keyd::Reply::Recovered { known: known as u64, complete }
        }
        keyd::Request::SignAccusation(suspicion) => keyd::Reply::Signature(suspicion.sign(&node.key)),
        keyd::Request::SignJoin { body, control } => {
            assert_eq!(body.control, control.hash());
            keyd::Reply::Signature(body.sign(&node.key))
        }
        keyd::Request::CreateInvite(wish) => {
            assert!(!Order::is_needed_for_invite(wish.uses, wish.addresses));
            let (code, grant) = make_invite(node, wish, unix);
            keyd::Reply::Invite { code, grant }
        }
        keyd::Request::CertifyMember(certify) => {
            let serial = node.next_number();
            let membership = i2plan_proto::membership::Membership {
                network: certify.grant.value.network,
                parent: certify.parent,
                issuer: me,
                grant: Delegation {
                    subject: certify.request.body.value.joiner,
                    invite: certify.grant.value.key.id(),
                    ranges: certify.ranges,
                    serial,
                    since: serial,
                    replaces: certify.replaces,
                    issued_at: unix,
                },
            };
            keyd::Reply::Membership(signed(membership, &node.key))
        }
        keyd::Request::ExtendMember(extend) => {
            let mut membership = extend.certificate.value;
            membership.parent = extend.parent;
            membership.grant = Delegation {
                ranges: extend.ranges,
                serial: node.next_number(),
                issued_at: unix,
                ..membership.grant
            };
            keyd::Reply::Membership(signed(membership, &node.key))
        }
        keyd::Request::CertifyWireGuard { network, rotate } => {
            let epoch = node.mesh.epoch().filter(|_| !rotate);
            let epoch = epoch.unwrap_or_else(|| WireGuardCertificate::epoch_at(unix));
            let not_before = WireGuardCertificate::begins_at(epoch);
            let not_after = not_before + WireGuardCertificate::MAX_AGE;
            let key = wireguard_key(network, me, epoch);
            let certificate = WireGuardCertificate { network, node: me, key, epoch, not_before, not_after };
            keyd::Reply::WireGuardCertificate(signed(certificate, &node.key))
        }
        _ => return Err(ApiError::denied("not for meshd")),
    })
}

fn make_invite(node: &Node, wish: CreateInvite, unix: u64) -> (SecretText, Signed<InviteGrant>) {
    let CreateInvite { network, name, subnet, expires_at, uses, addresses } = wish;
    let inviter = node.identity.node;
    let count = u8::try_from(node.member().invites.issued().len()).unwrap();
    let secret = InviteSecret([inviter.0[0] ^ count; 32]);
    let key = secret.key();
    let control = node.identity.control.hash();
    let code = Invite { network, name, subnet, inviter, control, secret, expires_at }.to_code();
    let grant = InviteGrant { network, inviter, key, created_at: unix, expires_at, uses, addresses };
    (SecretText::new(code.to_string()), signed(grant, &node.key))
}

/// What `keyd` signs when an administrator confirms an order.
fn execute(node: &Node, order: Order, now: Now) -> Executed {
    let (issuer, issued_at) = (node.identity.node, now.unix.as_secs());
    let revoke = |target| signed(Revocation { issuer, target, issued_at }, &node.key);
    match order {
        Order::Revoke { chains, .. } => {
            Executed::Revocations(chains.into_iter().map(Target::Certificate).map(revoke).collect())
        }
        Order::RevokeInvite(invite) => {
            let chain = node.member().membership.chain.clone();
            Executed::Revocations(vec![revoke(Target::Invite(chain, invite))])
        }
        Order::Leave(chain, _) => {
            let resignation = Resignation { chain: *chain, last_serial: node.counter.get(), issued_at };
            Executed::Resignation(Box::new(signed(resignation, &node.key)))
        }
        Order::CreateInvite(wish) => {
            let (code, grant) = make_invite(node, wish, issued_at);
            Executed::Invite { code, grant }
        }
        Order::Recover => {
            let (known, _) = node.recovered.get();
            node.recovered.set((known, true));
            Executed::Recovered(known as u64)
        }
        Order::Forget | Order::AllowInvite(_) | Order::Extend(_) => panic!("an order that no test gives"),
    }
}
