//! Whole meshes in memory: the real core, a network that delivers or loses, and a signer in place of `keyd`.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};

use ed25519_dalek::SigningKey;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::keyd::CreateInvite;
use i2plan_ipc::api::order::{Executed, Order};
use i2plan_ipc::secret::SecretText;
use i2plan_proto::accusation::Accusation;
use i2plan_proto::address::AddressRange;
use i2plan_proto::destination::{DestinationProof, ProvenDestination};
use i2plan_proto::identity::{Signable, Signature};
use i2plan_proto::invite::{Invite, InviteGrant, InviteSecret};
use i2plan_proto::membership::{Chain, Delegation};
use i2plan_proto::message::{Content, Entry, Gossip, Item, Position, Range};
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::wireguard::{ProvenKey, WireGuardCertificate, WireGuardSecret};
use zeroize::Zeroizing;

use super::invites::MAX_USES;
use super::own::LivenessReason;
use super::*;

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
    told: Vec<What>,
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
                    let error = ApiError::internal("the disk is full");
                    let now = self.clock(index);
                    for (_, error) in self.nodes[index].mesh.handle_save_failure(turn.actions, &error, now) {
                        self.nodes[index].answers.push(Err(error));
                    }
                    return;
                }
                self.nodes[index].disk = self.nodes[index].mesh.state().to_bytes();
            }
            for action in turn.actions {
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
                    Action::Answer(_, result) => self.nodes[index].answers.push(*result),
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
        let held = self.nodes[index].mesh.holding().map_or(1 << 16, |holding| holding.ranges.size());
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
    fn life(&self, here: usize, there: usize) -> Option<meshd::Life> {
        let reports = self.nodes[here].mesh.peer_reports(self.now());
        reports.into_iter().find(|(node, _)| *node == self.node(there)).map(|(_, peer)| peer.life)
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
            What::NetworkJoined { .. } => "joined".to_owned(),
            What::NetworkLeft { revoked, .. } => format!("left, revoked {revoked}"),
            What::MemberAdded { node_id, name } => format!("{} added: {name}", place(&node_id)),
            What::MemberChanged { node_id, name } => format!("{} changed: {name}", place(&node_id)),
            What::MemberRemoved { node_id, .. } => format!("{} removed", place(&node_id)),
            What::MemberLife { node_id, life, .. } => format!("{} {life:?}", place(&node_id)),
            What::InviteCreated { .. } => "invite".to_owned(),
            What::InviteUsed { node_id, .. } => format!("invite used by {}", place(&node_id)),
            What::InviteRevoked { .. } => "invite revoked".to_owned(),
            What::BanAdded { node_id, reason } => format!("{} banned: {reason:?}", place(&node_id)),
            What::BanRemoved { node_id } => format!("{} not banned", place(&node_id)),
            What::KeyRotated { .. } => "key rotated".to_owned(),
            What::ForeignNumber { .. } => "foreign number".to_owned(),
            What::AddressChanged { .. } => "address changed".to_owned(),
            What::JoinProgress { step } => format!("{step:?}"),
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
    fn accusation(&self, accuser: usize, subject: usize) -> Message {
        let accusation = Accusation {
            network: self.nodes[0].mesh.network().unwrap(),
            accuser: self.node(accuser),
            subject: self.node(subject),
            sequence: self.nodes[subject].mesh.local_sequence().unwrap(),
            // Whatever its clock says.
            issued_at: u64::MAX,
        };
        let signature = accusation.sign(&self.nodes[accuser].key);
        Message::news(vec![Item::Accusation(Signed { value: accusation, signature })])
    }

    fn members(&self, index: usize) -> u64 {
        self.nodes[index].mesh.network_status(self.now()).map_or(0, |network| network.members)
    }
}

impl Node {
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
                data: ProvenDestination::unproven(data),
                wireguard,
                chain,
            };
            let record = signed_record(record, &node.key);
            assert_eq!(record.verify_for(&charter), Ok(()));
            keyd::Reply::Record(Box::new(record))
        }
        keyd::Request::SignPulse { network, life } => {
            let pulse = Pulse { network, node: me, sequence: node.next_number(), life };
            keyd::Reply::Pulse(signed(pulse, &node.key))
        }
        keyd::Request::Note(statement) => keyd::Reply::Noted(match statement {
            keyd::Statement::Record(record) => node.note_number(record.value.sequence),
            keyd::Statement::Pulse(pulse) => node.note_number(pulse.value.sequence),
            keyd::Statement::Certificate(certificate) => node.note_number(certificate.value.grant.serial),
            keyd::Statement::Revocation(_) | keyd::Statement::Resignation(_) => keyd::Noted::Known,
        }),
        keyd::Request::Recover(certificates) => {
            let (known, complete) = node.recovered.get();
            let known = known + certificates.len();
            node.recovered.set((known, complete));
            keyd::Reply::Recovered { known: known as u64, complete }
        }
        keyd::Request::SignAccusation(accusation) => keyd::Reply::Signature(accusation.sign(&node.key)),
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
    let CreateInvite { network, subnet, expires_at, uses, addresses } = wish;
    let inviter = node.identity.node;
    let count = u8::try_from(node.mesh.invites.issued().len()).unwrap();
    let secret = InviteSecret([inviter.0[0] ^ count; 32]);
    let key = secret.key();
    let control = node.identity.control.hash();
    let code = Invite { network, subnet, inviter, control, secret, expires_at }.to_code();
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
            let chain = node.mesh.membership.as_ref().unwrap().chain.clone();
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

#[test]
fn followers_are_told_how_a_node_enters_and_leaves() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    assert_eq!(world.told(0), ["joined", "invite"]);
    world.join(1, code.expose()).unwrap();
    assert_eq!(world.told(1), ["LookingUp", "Asking", "Admitted", "joined", "0 added: node-1"]);
    world.run(60);
    assert_eq!(world.told(0), ["invite used by 1", "1 added: node-2"]);
    assert_eq!(world.told(1), [""; 0]);

    let id = world.nodes[0].mesh.invite_reports(world.now())[0].id.clone();
    for _ in 0..2 {
        world.command(0, |mesh, now| mesh.revoke_invite(0, &id, false, now)).unwrap();
    }
    world.command(0, |mesh, now| mesh.rotate_key(0, now)).unwrap();
    world.run(1);
    assert_eq!(world.told(0), ["invite revoked", "key rotated"]);
    world.restart(0);
    world.run(60);
    assert_eq!(world.told(0), [""; 0], "what was known before is no news");
    assert_eq!(world.told(1), ["0 changed: node-1"], "its new key, once");

    world.command(1, |mesh, _| mesh.leave(0)).unwrap();
    world.run(1);
    assert_eq!(world.told(0), ["1 removed"]);
    assert_eq!(world.told(1), ["left, revoked false"]);
}

#[test]
fn followers_are_told_of_members_and_bans() {
    let mut world = World::network(&[0, 0]);
    (0..3).for_each(|index| drop(world.told(index)));
    let now = world.now();
    world.nodes[1].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(2) }, now);
    world.run(60);
    assert_eq!(world.told(0), ["1 changed: renamed"]);

    world.down = vec![1];
    world.run(600);
    assert_eq!(world.told(0), ["1 Suspected", "1 Unreachable"]);
    world.down.clear();
    world.run(120);
    assert_eq!(world.told(0), ["1 Present"]);
    assert!(world.nodes[1].mesh.begin_shutdown());
    world.settle(1);
    world.run(1);
    assert_eq!(world.told(0), ["1 Away"]);

    let node = world.node(1).to_string();
    let ban = |mesh: &mut Mesh, now| mesh.add_ban(0, &node, String::new(), Some(30), now);
    world.command(0, ban).unwrap();
    world.command(0, |mesh, _| mesh.remove_ban(0, &node)).unwrap();
    world.command(0, ban).unwrap();
    world.run(60);
    let banned = ["1 banned: Manual", "1 not banned"];
    assert_eq!(world.told(0), [banned, banned].concat());
    world.command(0, |mesh, _| mesh.revoke(0, &node)).unwrap();
    world.run(60);
    assert_eq!(world.told(0), ["1 removed"]);
    assert_eq!(world.told(2).last().map(String::as_str), Some("1 removed"));
    assert_eq!(world.told(1).last().map(String::as_str), Some("left, revoked true"));
}

#[test]
fn the_first_invite_founds_and_the_joiner_becomes_a_member() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let network = world.join(1, code.expose()).unwrap();
    world.run(2);
    assert_eq!(network.id, world.nodes[0].mesh.network().unwrap().to_string());
    for (here, there) in [(0, 1), (1, 0)] {
        let peers = world.nodes[here].mesh.peers(world.now());
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].node, world.nodes[there].identity.node);
        assert_eq!(Some(peers[0].endpoint()), world.nodes[there].mesh.data);
        assert_eq!(peers[0].ipv4(), world.nodes[there].mesh.interface().unwrap().ipv4);
    }
}

#[test]
fn who_gives_the_same_code_again_waits_for_the_same_end() {
    let mut world = World::new(3);
    let code = world.invite(0, Some(1)).unwrap();
    let other = world.invite(2, Some(1)).unwrap();
    let now = world.now();
    world.nodes[1].mesh.join(1, code.expose(), now);
    world.settle(1);
    let error = world.join(1, other.expose()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let network = world.join(1, code.expose()).unwrap();
    let first = world.nodes[1].answers.pop();
    assert!(matches!(first, Some(Ok(meshd::Reply::Joined(joined))) if joined == network));
    assert!(world.nodes[1].answers.is_empty());
}

#[test]
fn who_joins_by_the_second_is_known_to_the_first_within_a_minute() {
    for lose_every in [0, 3] {
        let mut world = World::new(3);
        world.lose_every = lose_every;
        let code = world.invite(0, Some(1)).unwrap();
        world.join(1, code.expose()).unwrap();
        let code = world.invite(1, Some(1)).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(60);
        assert_eq!(
            [world.members(0), world.members(1), world.members(2)],
            [3; 3],
            "losing every {lose_every}th"
        );
    }
}

#[test]
fn uses_are_counted_and_repetitions_are_not() {
    let mut world = World::new(4);
    let code = world.invite(0, Some(2)).unwrap();
    // Some requests and some answers are lost, so requests are repeated.
    world.lose_every = 3;
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    world.lose_every = 0;
    let error = world.join(3, code.expose()).unwrap_err();
    assert_eq!((error.kind, error.message.contains("used as often")), (ErrorKind::Denied, true), "{error}");
    assert!(world.nodes[3].mesh.network().is_none());
}

#[test]
fn uses_survive_a_restart_of_the_inviter() {
    let mut world = World::new(3);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.restart(0);
    world.run(1);
    assert!(world.join(2, code.expose()).is_err());
    assert_eq!(world.members(0), 2);
}

#[test]
fn nobody_is_certified_before_the_use_is_on_disk() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let before = world.nodes[0].disk.clone();
    world.nodes[0].disk_full = true;
    let error = world.join(1, code.expose()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(world.nodes[0].disk, before);
    // The disk has room again: the same invite works, and for one only.
    world.nodes[0].disk_full = false;
    world.join(1, code.expose()).unwrap();
    assert_ne!(world.nodes[0].disk, before);
}

#[test]
fn an_unknown_invite_is_refused() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let mut invite: Invite = code.expose().parse().unwrap();
    invite.secret = InviteSecret([99; 32]);
    let error = world.join(1, &invite.to_code()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[test]
fn an_expired_invite_is_refused_on_both_sides() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.run(3601);
    let error = world.join(1, code.expose()).unwrap_err();
    assert!(error.message.contains("expired at"), "{error}");
    // A joiner whose clock is behind asks all the same.
    let mut invite: Invite = code.expose().parse().unwrap();
    invite.expires_at += 10_000;
    let error = world.join(1, &invite.to_code()).unwrap_err();
    assert!(error.message.contains("has expired"), "{error}");
}

#[test]
fn what_does_not_fit_the_state_is_refused() {
    let mut world = World::new(3);
    let first = world.invite(0, Some(1)).unwrap();
    let second = world.invite(1, Some(1)).unwrap();
    assert_eq!(world.join(0, second.expose()).unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(world.join(2, "nonsense").unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.invite(0, Some(0)).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.invite(0, Some(MAX_USES + 1)).unwrap_err().kind, ErrorKind::Invalid);
    assert!(world.join(2, first.expose()).is_ok());
}

#[test]
fn an_inviter_that_is_not_there_ends_the_join_in_time() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.lose_every = 1;
    let error = world.join(1, code.expose()).unwrap_err();
    assert_eq!((error.kind, error.message.contains("did not answer")), (ErrorKind::Timeout, true), "{error}");
    // And leaves the node free to try again.
    world.lose_every = 0;
    world.join(1, code.expose()).unwrap();
}

/// Begins to join; returns the seconds after which it was in vain, and lets a fallback come each time.
fn substitutes_of_a_join(world: &mut World, index: usize, code: &str) -> Vec<u64> {
    let (now, began) = (world.now(), world.time);
    world.nodes[index].mesh.join(0, code, now);
    world.settle(index);
    let mut in_vain = Vec::new();
    while world.nodes[index].answers.is_empty() {
        world.run(1);
        if world.nodes[index].mesh.needs_fallback() {
            in_vain.push((world.time - began).as_secs());
            let seed = u8::try_from(index + 1).unwrap();
            world.fallback(index, Some(destination(seed, 9 + u8::try_from(in_vain.len()).unwrap())));
        }
    }
    in_vain
}

#[test]
fn an_inviter_that_does_not_answer_is_asked_from_another_destination() {
    let mut world = World::new(3);
    world.invite(0, Some(1)).unwrap();
    let (inviter, joiner) = (world.nodes[0].identity.control, world.nodes[1].identity.control);
    // One way or the other.
    for dead in [(joiner, inviter), (inviter, joiner)] {
        let code = world.invite(0, Some(1)).unwrap();
        world.dead = vec![dead];
        assert_eq!(substitutes_of_a_join(&mut world, 1, code.expose()), [15]);
        assert!(matches!(world.nodes[1].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
        world.run(60);
        // That is where it is reached now.
        let control =
            |world: &World| world.nodes[0].mesh.record_of(&world.node(1)).map(|record| *record.value.control);
        assert_eq!(control(&world), world.nodes[1].fallback);
        assert_eq!((world.members(0), world.members(1)), (2, 2));
        world.dead.clear();
        world.fallback(1, None);
        world.run(60);
        assert_eq!(control(&world), Some(joiner));
        world.command(1, |mesh, _| mesh.leave(0)).unwrap();
        world.run(1);
        // It was one joiner, wherever it asked from.
        let invites = world.nodes[0].mesh.invite_reports(world.now());
        assert_eq!(invites[0].used_by, [world.node(1).to_string()]);
        assert!(world.join(2, code.expose()).unwrap_err().message.contains("used as often"));
        // And a member that has left does not come back by the same invite.
        assert!(world.join(1, code.expose()).unwrap_err().message.contains("used as often"));
    }
}

#[test]
fn substitutes_that_are_of_no_use_are_few() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.lose_every = 1;
    assert_eq!(substitutes_of_a_join(&mut world, 1, code.expose()), [15, 95]);
    assert!(matches!(&world.nodes[1].answers.pop(), Some(Err(error)) if error.kind == ErrorKind::Timeout));
    // One that is there already is asked from at once, and given up sooner.
    assert!(!world.nodes[1].mesh.needs_fallback());
    world.lose_every = 0;
    world.dead = vec![(world.nodes[1].identity.control, world.nodes[0].identity.control)];
    assert_eq!(substitutes_of_a_join(&mut world, 1, code.expose()), [0; 0]);
    assert!(matches!(world.nodes[1].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
}

#[test]
fn a_request_to_join_counts_from_where_it_says_alone() {
    let mut world = World::new(3);
    let code = world.invite(0, Some(1)).unwrap();
    let fallback = destination(2, 9);
    world.fallback(1, Some(fallback));
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    let requests: Vec<_> = world.in_flight.drain(..).collect();
    let control = world.nodes[1].identity.control;
    assert_eq!(requests.iter().map(|(from, ..)| *from).collect::<Vec<_>>(), [control, fallback]);
    // Somebody who sends one on, or sends it from the joiner's other destination, has nobody answered.
    let stranger = world.nodes[2].identity.control;
    for ((_, _, request), from) in
        requests.iter().flat_map(|request| [control, fallback, stranger].map(|from| (request, from)))
    {
        let now = world.now();
        world.nodes[0].mesh.handle_datagram(&from, request, now);
        let said = Datagram::from_bytes(request).unwrap().message;
        let Message::JoinRequest(said) = said else { panic!("another message") };
        let turn = world.nodes[0].mesh.poll_turn();
        assert_eq!(!turn.actions.is_empty(), said.body.value.control == from.hash());
        // keyd does not answer, so that the next is not held for a repetition.
        for action in turn.actions {
            if let Action::Ask(ticket, _) = action {
                world.nodes[0].mesh.handle_keyd_reply(ticket, Err(ApiError::unavailable("no keyd")), now);
            }
        }
    }
    assert_eq!(world.nodes[0].mesh.invite_reports(now)[0].used_by.len(), 1);
}

#[test]
fn a_substitute_that_has_gone_is_not_asked_from() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.lose_every = 1;
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    // keyd signs for it only when it has gone.
    let gone = destination(2, 9);
    world.nodes[1].mesh.handle_fallback(Some(gone), now);
    let asked = world.nodes[1].mesh.poll_turn().actions;
    world.nodes[1].mesh.handle_fallback(None, now);
    for action in asked {
        let Action::Ask(ticket, request) = action else { panic!("{action:?}") };
        let reply = sign(&world.nodes[1], *request, now);
        world.nodes[1].mesh.handle_keyd_reply(ticket, reply, now);
    }
    assert!(world.nodes[1].mesh.poll_turn().actions.is_empty());
    // One for which it does not sign ends nothing.
    world.nodes[1].mesh.handle_fallback(Some(gone), now);
    for action in world.nodes[1].mesh.poll_turn().actions {
        let Action::Ask(ticket, _) = action else { panic!("{action:?}") };
        world.nodes[1].mesh.handle_keyd_reply(ticket, Err(ApiError::denied("no")), now);
    }
    world.lose_every = 0;
    world.run(10);
    assert!(matches!(world.nodes[1].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
}

#[test]
fn a_restarted_node_is_the_same_and_knows_its_peers() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(10);
    let before = world.nodes[1].mesh.interface();
    world.restart(1);
    assert_eq!(world.nodes[1].mesh.interface(), before);
    assert_eq!(world.nodes[1].mesh.peers(world.now()).len(), 1);
    // Its new record outdoes the old one.
    let old = world.nodes[0]
        .mesh
        .members
        .index()
        .get(&Position::member(world.nodes[1].identity.node))
        .map(|entry| entry.record);
    world.run(5);
    assert!(
        world.nodes[0]
            .mesh
            .members
            .index()
            .get(&Position::member(world.nodes[1].identity.node))
            .map(|entry| entry.record)
            > old
    );
}

#[test]
fn a_new_data_session_moves_the_endpoint() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(5);
    world.nodes[1].mesh.handle_data_session(destination(2, 9));
    world.settle(1);
    world.run(5);
    assert_eq!(world.nodes[0].mesh.peers(world.now())[0].endpoint(), destination(2, 9));
}

#[test]
fn a_node_that_joins_with_a_wrong_clock_is_known_once_the_clock_is_right() {
    // Further ahead the invite has expired.
    for seconds in [-90 * 86_400, -3 * 86_400, -7200, 1800] {
        let mut world = World::new(2);
        let code = world.invite(0, Some(1)).unwrap();
        world.wrong.insert(1, seconds);
        world.join(1, code.expose()).unwrap();
        world.run(120);
        world.wrong.clear();
        world.run(120);
        assert_eq!((world.members(0), world.members(1)), (2, 2), "{seconds} s");
    }
}

#[test]
fn who_delegates_addresses_twice_all_the_time_hides_nobody_else_who_does() {
    let mut world = World::new(1);
    world.invite(0, None).unwrap();
    let now = world.now();
    let mesh = &mut world.nodes[0].mesh;
    let chain = mesh.membership.as_ref().unwrap().chain.clone();
    let range = |number: u8| AddressRange::new([10, 42, 7, number].into(), 32).unwrap();
    mesh.note_conflict(&chain, range(0), NodeId([1; 32]), now);
    for number in 1..100 {
        mesh.note_conflict(&chain, range(number), NodeId([2; 32]), now);
    }
    let issuers: Vec<NodeId> = mesh.conflicts.iter().map(|conflict| conflict.issuer).collect();
    assert_eq!(issuers, [NodeId([1; 32]), NodeId([2; 32]), NodeId([2; 32])]);
}

/// With each save the whole state is written: what a member may say every few seconds must not lead to that.
#[test]
fn words_of_others_on_their_lives_are_saved_rarely_and_records_soon() {
    let mut world = World::new(3);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(30);
    let disk = world.nodes[0].disk.clone();
    for _ in 0..20 {
        world.nodes[1].mesh.sign_pulse(i2plan_proto::pulse::Life::Present, LivenessReason::Suspected);
        world.settle(1);
        world.run(10);
    }
    let word = world.nodes[0].mesh.word_of(&world.nodes[1].identity.node);
    assert_eq!(word, world.nodes[1].mesh.local_sequence());
    assert_eq!(world.nodes[0].disk, disk);
    world.join(2, code.expose()).unwrap();
    world.run(10);
    let me = world.nodes[0].identity.node;
    let state = State::from_bytes(&world.nodes[0].disk, &me).unwrap();
    assert_eq!(state.members.len(), 2);
}

#[test]
fn without_a_data_session_nothing_is_published() {
    let mut world = World::new(2);
    world.nodes[0].mesh.data = None;
    let code = world.invite(0, Some(1)).unwrap();
    assert_eq!(world.join(1, code.expose()).unwrap_err().kind, ErrorKind::Timeout);
    world.nodes[0].mesh.handle_data_session(destination(1, 2));
    world.settle(0);
    world.join(1, code.expose()).unwrap();
}

#[test]
fn a_node_that_lost_its_state_outdoes_its_old_record() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    let saved = world.nodes[1].disk.clone();
    // A record with a number that neither it nor its keyd remembers is still about.
    let number = world.nodes[1].counter.replace(u64::MAX / 2);
    world.nodes[1].mesh.start_refresh();
    world.settle(1);
    world.run(5);
    world.nodes[1].disk = saved;
    world.nodes[1].counter.set(number);
    world.restart(1);
    world.run(90);
    let node = world.nodes[1].identity.node;
    assert_eq!(
        world.nodes[0].mesh.members.index().get(&Position::member(node)).map(|entry| entry.record),
        world.nodes[1].mesh.own.as_ref().map(|own| own.value.sequence)
    );
    let problems = world.nodes[1].mesh.keys_problems(world.now());
    assert!(matches!(problems[..], [meshd::KeysProblem::Foreign { .. }]), "{problems:?}");
}

/// Otherwise it would go on signing below what others know until it is started again.
#[test]
fn a_number_that_keyd_could_not_be_told_is_told_when_it_is_heard_again() {
    let mut world = World::new(1);
    world.invite(0, None).unwrap();
    let now = world.now();
    let pulse = Pulse {
        network: world.nodes[0].mesh.network().unwrap(),
        node: world.nodes[0].identity.node,
        sequence: 5000,
        life: i2plan_proto::pulse::Life::Present,
    };
    let signature = pulse.sign(&world.nodes[0].key);
    let pulse = Signed { value: pulse, signature };
    let mesh = &mut world.nodes[0].mesh;
    mesh.note_local_statement(5000, keyd::Statement::Pulse(pulse.clone()));
    for action in mesh.poll_turn().actions {
        if let Action::Ask(ticket, _) = action {
            mesh.handle_keyd_reply(ticket, Err(ApiError::unavailable("keyd is not there")), now);
        }
    }
    mesh.note_local_statement(5000, keyd::Statement::Pulse(pulse));
    world.settle(0);
    assert!(world.nodes[0].counter.get() >= 5000);
}

#[test]
fn strangers_get_no_digest_answered_and_forged_records_are_dropped() {
    let mut world = World::new(2);
    let _ = world.invite(0, Some(1)).unwrap();
    let stranger = world.nodes[1].identity.control;
    let digest = Message::Ping(1, Gossip::default());
    world.give(&stranger, 0, &digest);
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());

    let mut record = world.nodes[0].mesh.own.clone().unwrap();
    record.value.sequence += 1;
    record.value.control = ProvenDestination::unproven(stranger);
    record.signature = Signature([1; 64]);
    world.give(&stranger, 0, &news(record));
    let turn = world.nodes[0].mesh.poll_turn();
    assert!(turn.actions.is_empty() && !turn.save);
}

#[test]
fn a_claim_to_anothers_destination_takes_nothing_from_it() {
    let mut world = World::new(3);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    // One member says that it takes control messages where another does, and then no longer. The other has not agreed.
    let (honest, own) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    for control in [honest, own] {
        let mut record = world.nodes[2].mesh.own.clone().unwrap();
        record.value.sequence += 1_000_000 + u64::from(control == own);
        record.value.control.destination = control;
        record.signature = record.value.sign(&world.nodes[2].key);
        world.give(&own, 0, &news(record));
        world.nodes[0].mesh.poll_turn();
        assert_eq!(world.nodes[0].mesh.members.at(&honest.hash()).count(), 1);
    }
    let digest = Message::Ping(1, Gossip::default());
    world.give(&honest, 0, &digest);
    let answered = |action: &Action| matches!(action, Action::Send { to, .. } if *to == honest);
    assert!(world.nodes[0].mesh.poll_turn().actions.iter().any(answered));
}

#[test]
fn a_member_that_cannot_publish_yet_does_not_wake_without_end() {
    let mut world = World::new(2);
    world.nodes[1].mesh.data = None;
    let code = world.invite(0, Some(1)).unwrap();
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    world.run(300);
    assert!(world.nodes[1].mesh.network().is_some() && world.nodes[1].answers.is_empty());
    assert!(world.nodes[1].mesh.poll_timeout().is_none_or(|at| at > world.time));
    // The command is answered once it can.
    world.nodes[1].mesh.handle_data_session(destination(2, 2));
    world.settle(1);
    assert!(matches!(world.nodes[1].answers[..], [Ok(meshd::Reply::Joined(_))]));
}

#[test]
fn strangers_in_crowds_do_not_keep_members_from_being_heard() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(10);
    let digest = Message::Ping(1, Gossip::default());
    for padding in 0..=u8::MAX {
        for signing_key in 10..=u8::MAX {
            let stranger = destination(padding, signing_key);
            world.give(&stranger, 0, &digest);
        }
    }
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    let member = world.nodes[1].identity.control;
    world.give(&member, 0, &digest);
    assert_eq!(world.nodes[0].mesh.poll_turn().actions.len(), 1, "the member's digest is answered");
}

#[test]
fn one_invite_lets_no_more_in_however_many_come_at_once() {
    let mut world = World::new(12);
    let code = world.invite(0, Some(3)).unwrap();
    let now = world.now();
    for index in 1..12 {
        world.nodes[index].mesh.join(0, code.expose(), now);
        world.settle(index);
    }
    world.run(180);
    let (mut joined, mut refused) = (0, 0);
    for node in &world.nodes[1..] {
        match node.answers.first().expect("an answer") {
            Ok(meshd::Reply::Joined(_)) => joined += 1,
            Ok(_) => panic!("another answer"),
            Err(error) => {
                assert!(error.message.contains("used as often"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((joined, refused), (3, 8));
    assert_eq!(world.members(0), 4);
}

#[test]
fn a_member_that_is_off_is_found_out_and_welcomed_back() {
    for count in [1, 2, 5] {
        let mut world = World::network(&vec![0; count]);
        world.down = vec![count];
        world.run(400);
        for here in 0..count {
            assert_eq!(world.life(here, count), Some(meshd::Life::Unreachable), "of {count}, seen by {here}");
            // It stays a peer, so that a packet can wake it; it is only not called all the time.
            let peers = world.nodes[here].mesh.peers(world.now());
            let peer = peers.iter().find(|peer| peer.node == world.node(count)).unwrap();
            assert_eq!(peer.keepalive, 0);
        }
        world.down.clear();
        world.restart(count);
        world.run(60);
        for here in 0..count {
            assert_eq!(world.life(here, count), Some(meshd::Life::Present), "of {count}, seen by {here}");
        }
    }
}

#[test]
fn loss_alone_makes_nobody_unreachable() {
    let mut world = World::network(&[0, 0, 1, 1, 2]);
    world.lose_every = 4;
    for _ in 0..120 {
        world.run(30);
        for here in 0..6 {
            for there in 0..6 {
                assert_ne!(world.life(here, there), Some(meshd::Life::Unreachable));
            }
        }
    }
}

#[test]
fn whoever_is_cut_off_accuses_nobody() {
    let mut world = World::network(&[0, 0, 0]);
    world.severed = vec![(3, 0), (3, 1), (3, 2)];
    world.run(600);
    let mesh = &world.nodes[3].mesh;
    assert!(mesh.members.iter().all(|member| member.accusations().next().is_none()));
}

#[test]
fn one_that_some_cannot_reach_is_reached_through_others() {
    let mut world = World::network(&[0, 0, 0]);
    world.severed = vec![(0, 1)];
    world.run(600);
    assert_ne!(world.life(0, 1), Some(meshd::Life::Unreachable));
    let routes = world.nodes[0].mesh.routes(world.now());
    let route = routes.iter().find(|route| route.node_id == world.node(1).to_string()).unwrap();
    assert_eq!(route.hops, Some(2));
    assert!(route.via.is_some());
    // And its news comes through them.
    let now = world.now();
    world.nodes[1].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(2) }, now);
    world.run(60);
    let reports = world.nodes[0].mesh.peer_reports(world.now());
    assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"));
}

#[test]
fn settings_change_while_the_mesh_goes_on() {
    let mut world = World::network(&[0, 0, 0]);
    world.run(600);
    let sent_in = |world: &mut World, seconds| {
        let before = world.sent;
        world.run(seconds);
        world.sent - before
    };
    let change = |world: &mut World, change: fn(&mut Settings)| {
        for index in 0..4 {
            let mut settings = settings(u8::try_from(index + 1).unwrap());
            change(&mut settings);
            let now = world.now();
            world.nodes[index].mesh.reconfigure(settings, now);
        }
    };
    let usual = sent_in(&mut world, 600);
    change(&mut world, |settings| {
        settings.heartbeat = Duration::from_secs(5);
        settings.max_peers = 3;
    });
    assert_eq!(world.nodes[0].mesh.max_peers(), 3);
    let often = sent_in(&mut world, 600);
    assert!(often > usual * 4, "{often} after {usual}");
    // A short timeout: one that is off is found out sooner.
    change(&mut world, |settings| {
        settings.heartbeat = Duration::from_secs(5);
        settings.peer_timeout = Duration::from_secs(20);
    });
    world.down = vec![3];
    world.run(60);
    assert_eq!(world.life(0, 3), Some(meshd::Life::Unreachable));
    world.down.clear();
    world.run(60);
    assert_eq!(world.life(0, 3), Some(meshd::Life::Present));
    // With next to nothing to spend, what can wait does.
    change(&mut world, |settings| {
        settings.heartbeat = Duration::from_secs(5);
        settings.control_rate = 200;
    });
    let before = world.sent_bytes;
    world.run(600);
    let rate = (world.sent_bytes - before) / 600 / 4;
    // Beside the rate, what had been saved up.
    assert!((150..=220).contains(&rate), "{rate} bytes a second");
    assert_eq!(world.life(0, 3), Some(meshd::Life::Present));
}

#[test]
fn signs_of_life_are_told_once_and_of_the_living() {
    let mut world = World::network(&[0, 0]);
    world.nodes[0].mesh.poll_awake();
    world.down = vec![2];
    world.run(120);
    assert_eq!(world.nodes[0].mesh.poll_awake(), [world.node(1)].into());
    assert!(world.nodes[0].mesh.poll_awake().is_empty());
}

#[test]
fn lies_about_a_member_are_refuted() {
    let mut world = World::network(&[0, 0, 0, 0]);
    for round in 0..5 {
        for liar in [2, 3, 4] {
            let accusation = world.accusation(liar, 1);
            world.hand(liar, 0, &accusation);
        }
        for _ in 0..60 {
            world.run(1);
            assert_ne!(world.life(0, 1), Some(meshd::Life::Unreachable), "round {round}");
        }
        assert_eq!(world.life(0, 1), Some(meshd::Life::Present), "round {round}");
    }
}

/// Before it was answered like that of many, one liar had all members tell each other an answer to each of its lies.
#[test]
fn what_one_alone_says_of_a_member_is_not_worth_an_answer() {
    let mut world = World::network(&[0, 0, 0, 0]);
    world.run(60);
    let before = world.nodes[1].mesh.local_sequence();
    let accusation = world.accusation(4, 1);
    world.severed = vec![(0, 1)];
    world.time += Duration::from_secs(1);
    world.hand(4, 0, &accusation);
    world.run(20);
    assert_eq!(world.life(0, 1), Some(meshd::Life::Suspected));
    assert!(world.nodes[1].mesh.local_sequence() == before, "it has answered");
    // Nobody confirms it, and it is forgotten.
    world.run(640);
    assert_eq!(world.life(0, 1), Some(meshd::Life::Present));
    assert!(world.nodes[1].mesh.local_sequence() == before, "it has answered");
    // Nor is it when one joins in whom nobody knows; but when a second member does.
    let stranger = NodeId(SigningKey::from_bytes(&[99; 32]).verifying_key().to_bytes());
    let (first, second) = (world.node(4), world.node(2));
    let (now, word) = (world.time, before.unwrap());
    let members = &mut world.nodes[1].mesh.members;
    assert!(!members.accuse_own(first, word, word, now));
    assert!(!members.accuse_own(stranger, word, word, now));
    assert!(members.accuse_own(second, word, word, now));
}

/// Before members introduced themselves, those who did not know each other yet accused each other by the hundred when many
/// joined at once, and all had to tell each other the answers.
#[test]
fn one_that_does_not_know_who_asks_is_told() {
    let mut world = World::network(&[0, 0]);
    let (stranger, there) = (world.nodes[2].identity.control, world.node(2));
    world.nodes[1].mesh.members.remove(&there);
    let ping = Message::Ping(1, Gossip::default());
    world.give(&stranger, 1, &ping);
    assert!(world.nodes[1].mesh.poll_turn().actions.is_empty());
    let own = world.nodes[2].mesh.own.clone().unwrap();
    let gossip = Gossip { entries: Vec::new(), items: vec![Item::Record(Box::new(own))] };
    world.give(&stranger, 1, &Message::Ping(2, gossip));
    let acks = world.nodes[1].mesh.poll_turn().actions.into_iter().filter(|action| match action {
        Action::Send { to, message, .. } => {
            let message = Datagram::from_bytes(message).unwrap().message;
            *to == stranger && matches!(message, Message::Ack(2, _))
        }
        _ => false,
    });
    assert_eq!(acks.count(), 1);
    // And by one's own probe: the first ping goes unanswered.
    world.nodes[1].mesh.members.remove(&there);
    world.down = vec![0];
    world.run(120);
    assert_eq!(world.life(1, 2), Some(meshd::Life::Present));
}

#[test]
fn who_shuts_down_says_so_and_who_returns_is_there() {
    let mut world = World::network(&[0, 0]);
    assert!(world.nodes[2].mesh.begin_shutdown());
    world.settle(2);
    assert!(world.nodes[2].mesh.is_shut_down());
    world.down = vec![2];
    world.run(5);
    assert_eq!(world.life(0, 2), Some(meshd::Life::Away));
    assert_eq!(world.life(1, 2), Some(meshd::Life::Away));
    world.run(600);
    assert_eq!(world.life(0, 2), Some(meshd::Life::Away));
    world.down.clear();
    world.restart(2);
    world.run(10);
    assert_eq!(world.life(0, 2), Some(meshd::Life::Present));
}

#[test]
fn who_leaves_is_gone_for_all_and_can_join_again() {
    let mut world = World::network(&[0, 0, 1]);
    world.down = vec![3];
    let old = world.nodes[2].mesh.own.clone().unwrap();
    assert!(matches!(world.command(2, |mesh, _| mesh.leave(1)), Ok(meshd::Reply::Left(_))));
    assert!(world.nodes[2].mesh.network().is_none());
    world.run(60);
    assert_eq!([world.members(0), world.members(1)], [3, 3]);
    // One that was away and still has it hears of it too, and its old record brings nobody back.
    world.down.clear();
    world.run(120);
    assert_eq!([world.members(0), world.members(1), world.members(3)], [3, 3, 3]);
    let from = world.nodes[1].identity.control;
    world.give(&from, 0, &news(old));
    assert_eq!(world.members(0), 3);
    let code = world.invite(1, None).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    assert_eq!([world.members(0), world.members(1), world.members(2), world.members(3)], [4; 4]);
}

#[test]
fn lost_memory_of_keyd_is_complete_when_an_administrator_says_so() {
    let mut world = World::network(&[0, 0, 0]);
    world.restart(0);
    world.run(60);
    world.nodes[0].mesh.me.remembers = false;
    let lost = |world: &World| {
        world.nodes[0].mesh.keys_problems(world.now()).contains(&meshd::KeysProblem::MemoryLost)
    };
    // It is not ordered yet, whoever says that it was.
    let unordered = world.command(0, |mesh, now| mesh.enact(0, Executed::Recovered(3), now));
    assert_eq!(unordered.unwrap_err().kind, ErrorKind::Conflict);
    assert!(lost(&world));
    let recovered = world.command(0, |mesh, now| mesh.recover_keys(0, now));
    assert!(matches!(recovered, Ok(meshd::Reply::KeysRecovered { delegations: 3 })), "{recovered:?}");
    assert_eq!(world.nodes[0].recovered.get(), (3, true));
    assert!(!lost(&world));
}

#[test]
fn a_revocation_takes_out_a_member_and_all_below_it_for_good() {
    // 0 invites 1 and 2; 1 invites 3, and 3 invites 4.
    let mut world = World::network(&[0, 0, 1, 3]);
    let error = world.command(2, |mesh, _| mesh.revoke(1, &NodeId([0; 32]).to_string())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    let one = world.node(1).to_string();
    let error = world.command(2, |mesh, _| mesh.revoke(1, &one)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    world.down = vec![2];
    match world.command(0, |mesh, _| mesh.revoke(1, &one)) {
        Ok(meshd::Reply::Revoked(out)) => assert_eq!(out.len(), 3),
        other => panic!("{other:?}"),
    }
    world.run(60);
    assert_eq!(world.members(0), 2);
    for out in [1, 3, 4] {
        assert!(world.nodes[out].mesh.network().is_none(), "{out} knows that it is out");
    }
    // They know why, also after a restart, and keyd is told what has ended it until there is another membership.
    world.restart(4);
    assert!(world.nodes[4].mesh.former_ending.is_some());
    let former = |world: &World, index: usize| world.nodes[index].mesh.former_status();
    assert_eq!(former(&world, 1).map(|former| former.along_with), Some(None));
    let above = former(&world, 4).unwrap();
    assert_eq!((above.along_with.as_ref(), &above.revoked_by), (Some(&one), &world.node(0).to_string()));
    // It is remembered over a restart, and who was away learns of it.
    world.restart(0);
    world.down.clear();
    world.run(120);
    assert_eq!((world.members(0), world.members(2)), (2, 2));
    assert!(!world.has_peer(2, 1) && !world.has_peer(2, 3));
    // Who was below can be invited again by others, and so can who was revoked: with new certificates.
    let code = world.invite(2, None).unwrap();
    for (out, members) in [(4, 3), (1, 4)] {
        world.join(out, code.expose()).unwrap();
        world.run(60);
        assert_eq!((world.members(0), world.members(2), world.members(out)), (members, members, members));
        assert_eq!(former(&world, out), None);
        assert!(world.nodes[out].mesh.former_ending.is_none());
    }
}

#[test]
fn a_ban_cuts_everything_and_is_lifted() {
    let mut world = World::network(&[0, 0]);
    let node = world.node(1).to_string();
    let ban = |mesh: &mut Mesh, now: Now| mesh.add_ban(1, &node, "noise".to_owned(), Some(3600), now);
    assert!(matches!(world.command(0, ban), Ok(meshd::Reply::BanAdded(_))));
    assert!(!world.has_peer(0, 1) && world.has_peer(0, 2) && world.has_peer(2, 1));
    let from = world.nodes[1].identity.control;
    let ping = Message::Ping(1, Gossip::default());
    world.give(&from, 0, &ping);
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    world.restart(0);
    assert!(!world.has_peer(0, 1));
    // It ends by itself.
    world.run(3700);
    assert!(world.has_peer(0, 1));
    assert!(matches!(world.command(0, ban), Ok(meshd::Reply::BanAdded(_))));
    assert!(matches!(world.command(0, |mesh, _| mesh.remove_ban(1, &node)), Ok(meshd::Reply::BanRemoved(_))));
    assert!(world.has_peer(0, 1));
    let error = world.command(0, |mesh, _| mesh.remove_ban(1, &node)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[test]
fn a_ban_that_cannot_be_saved_is_in_force_and_saved_when_it_can_be() {
    let mut world = World::network(&[0]);
    let node = world.node(1).to_string();
    let ban = |mesh: &mut Mesh, now: Now| mesh.add_ban(1, &node, String::new(), None, now);
    let lift = |mesh: &mut Mesh, _: Now| mesh.remove_ban(1, &node);
    world.nodes[0].disk_full = true;
    let error = world.command(0, ban).unwrap_err();
    assert!(error.message.contains("the ban is in force until a restart only"), "{error}");
    assert!(!world.has_peer(0, 1));
    // As it says.
    world.restart(0);
    assert!(world.has_peer(0, 1));
    world.command(0, ban).unwrap_err();
    world.nodes[0].disk_full = false;
    world.run(60);
    world.restart(0);
    assert!(!world.has_peer(0, 1));

    world.nodes[0].disk_full = true;
    let error = world.command(0, lift).unwrap_err();
    assert!(error.message.contains("the ban is lifted until a restart only"), "{error}");
    // What is wrong with a command itself, it hears of all the same.
    assert_eq!(world.command(0, lift).unwrap_err().kind, ErrorKind::NotFound);
    assert!(world.has_peer(0, 1));
    world.restart(0);
    assert!(!world.has_peer(0, 1));
}

#[test]
fn who_signs_what_no_honest_member_signs_is_banned_in_time() {
    let mut world = World::network(&[0, 0]);
    let mut record = world.nodes[1].mesh.own.clone().unwrap();
    // The destination of another, which has not agreed.
    record.value.data.destination = world.nodes[2].mesh.data.unwrap();
    for number in 1..=5 {
        record.value.sequence += number;
        record.signature = record.value.sign(&world.nodes[1].key);
        assert_eq!(world.nodes[0].mesh.ban_reports().len(), 0);
        // Whoever passes it on.
        world.hand(2, 0, &news(record.clone()));
    }
    let bans = world.nodes[0].mesh.ban_reports();
    assert_eq!(bans.len(), 1);
    assert_eq!((bans[0].reason, bans[0].strikes), (meshd::BanReason::InvalidMessages, 5));
    assert!(!world.has_peer(0, 1) && world.has_peer(0, 2));
}

/// A node's own router can say what it likes in the name of any destination.
#[test]
fn what_the_router_says_in_a_members_name_leads_to_no_ban() {
    let mut world = World::network(&[0, 0]);
    let from = world.nodes[1].identity.control;
    let mut forged = world.nodes[1].mesh.own.clone().unwrap();
    forged.value.sequence += 1;
    forged.signature = Signature([1; 64]);
    for _ in 0..300 {
        let (to, now) = (world.nodes[0].identity.control, world.now());
        let whole = Message::Ping(1, Gossip::default()).to_datagram(&to);
        world.nodes[0].mesh.handle_datagram(&from, &whole[..whole.len() - 1], now);
        world.nodes[0].mesh.handle_datagram(&from, &[9, 1, 2], now);
        world.hand(1, 0, &news(forged.clone()));
    }
    assert_eq!(world.nodes[0].mesh.ban_reports().len(), 0);
    assert!(world.has_peer(0, 1));
}

#[test]
fn halves_that_were_cut_off_find_together_again() {
    let mut world = World::network(&[0, 0, 1, 1, 2]);
    for here in [0, 1, 2] {
        for there in [3, 4, 5] {
            world.severed.push((here, there));
        }
    }
    world.run(600);
    let now = world.now();
    world.nodes[5].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(6) }, now);
    world.settle(5);
    world.run(10);
    world.severed.clear();
    world.run(300);
    for here in 0..6 {
        for there in (0..6).filter(|there| *there != here) {
            assert_eq!(world.life(here, there), Some(meshd::Life::Present), "{there} seen by {here}");
        }
    }
    let reports = world.nodes[0].mesh.peer_reports(world.now());
    assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"));
}

#[test]
fn who_was_away_while_others_joined_and_one_was_revoked_catches_up_within_a_minute() {
    let mut world = World::new(7);
    let code = world.invite(0, None).unwrap();
    for index in 1..=3 {
        world.join(index, code.expose()).unwrap();
    }
    world.run(60);
    world.down = vec![2];
    for index in 4..7 {
        world.join(index, code.expose()).unwrap();
    }
    let revoked = world.node(3).to_string();
    assert!(world.command(0, |mesh, _| mesh.revoke(1, &revoked)).is_ok());
    world.run(60);
    world.down.clear();
    world.restart(2);
    world.run(60);
    assert_eq!(world.members(2), 6);
    assert!((4..7).all(|there| world.has_peer(2, there)) && !world.has_peer(2, 3));
}

#[test]
fn an_expired_key_is_no_peer() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(2);
    let mut later = world.now();
    later.unix += Duration::from_secs(31 * 86_400);
    // By this clock its own key is over too: it is the clock that is wrong.
    assert_eq!(world.nodes[0].mesh.peers(later).len(), 1);
    let own = world.nodes[0].mesh.own.as_mut().unwrap();
    own.value.wireguard.value.not_after += 7 * 86_400;
    assert!(world.nodes[0].mesh.peers(later).is_empty());
}

mod state_file {
    use proptest::prelude::*;

    use super::*;
    use crate::core::state::StateError;

    fn full_state() -> State {
        let mut world = World::new(3);
        let code = world.invite(0, Some(3)).unwrap();
        world.join(1, code.expose()).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(10);
        world.nodes[0].mesh.state()
    }

    #[test]
    fn states_read_back_and_know_their_node() {
        let state = full_state();
        assert_eq!((state.invites.len(), state.members.len()), (1, 2));
        assert_eq!(State::from_bytes(&state.to_bytes(), &state.node), Ok(state.clone()));
        let other = identity(9).1.node;
        assert!(matches!(State::from_bytes(&state.to_bytes(), &other), Err(StateError::OtherNode { .. })));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let state = full_state();
        let bytes = state.to_bytes();
        for len in 0..bytes.len() {
            assert!(State::from_bytes(&bytes[..len], &state.node).is_err(), "{len}");
        }
    }

    #[test]
    fn a_membership_that_does_not_verify_is_an_error() {
        let state = full_state();
        let mut forged = state.clone();
        forged.membership.as_mut().unwrap().charter.signature = Signature([1; 64]);
        assert!(matches!(State::from_bytes(&forged.to_bytes(), &state.node), Err(StateError::Damaged(_))));
    }

    #[test]
    fn an_earlier_version_says_what_to_do() {
        let state = full_state();
        let mut bytes = state.to_bytes();
        for version in [2, 3] {
            bytes[12] = version;
            let error = State::from_bytes(&bytes, &state.node).unwrap_err();
            assert_eq!(error, StateError::Outdated(version));
            assert!(error.to_string().contains("move it away"), "{error}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let state = full_state();
        let mut bytes = state.to_bytes();
        bytes[12] = 9;
        assert_eq!(State::from_bytes(&bytes, &state.node), Err(StateError::Version(9)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let node = identity(1).1.node;
            let _ = State::from_bytes(&bytes, &node);
        }
    }
}

mod robustness {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_datagrams_change_nothing(payload in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut world = World::new(2);
            let _ = world.invite(0, Some(1)).unwrap();
            let (from, now) = (world.nodes[1].identity.control, world.now());
            world.nodes[0].mesh.handle_datagram(&from, &payload, now);
            let turn = world.nodes[0].mesh.poll_turn();
            prop_assert!(turn.actions.is_empty() && !turn.save);
        }
    }
}

#[test]
fn a_rotated_key_is_saved_before_it_is_published_and_reaches_the_others() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(70);
    let before = world.nodes[0].mesh.published_certificate().cloned().unwrap();
    let now = world.now();
    world.nodes[0].mesh.rotate_key(77, now);
    world.settle(0);
    let after = world.nodes[0].mesh.published_certificate().cloned().unwrap();
    assert!(after.epoch > before.epoch && after.public_key() != before.public_key());
    assert!(
        matches!(world.nodes[0].answers.last(), Some(Ok(meshd::Reply::Rotated(key))) if key.epoch == after.epoch)
    );
    // Again at once is too early.
    world.nodes[0].mesh.rotate_key(78, now);
    world.settle(0);
    assert!(matches!(world.nodes[0].answers.last(), Some(Err(error)) if error.kind == ErrorKind::Conflict));
    world.run(60);
    assert_eq!(world.nodes[1].mesh.peers(world.now())[0].public_key(), after.public_key());
    // A restart goes on with it.
    world.restart(0);
    world.run(60);
    assert_eq!(world.nodes[0].mesh.epoch(), Some(after.epoch));
    assert_eq!(world.nodes[0].mesh.published_key(), Some(after.public_key()));
}

#[test]
fn keys_are_rotated_in_time() {
    let mut world = World::new(1);
    world.invite(0, Some(1)).unwrap();
    let first = world.nodes[0].mesh.epoch().unwrap();
    let begins = Duration::from_secs(WireGuardCertificate::begins_at(first));
    assert!(until_rotation(first, world.now()) <= own::ROTATE_EVERY);
    let later = |unix| Now { monotonic: Duration::ZERO, unix };
    assert_eq!(until_rotation(first, later(begins + own::ROTATE_EVERY)), Duration::ZERO);
    // The clock was ahead by a year when the epoch began.
    assert_eq!(until_rotation(first, later(begins - Duration::from_secs(366 * 86_400))), Duration::ZERO);
    // A node that was off for longer than a key lives begins a new one.
    world.time += Duration::from_secs(40 * 86_400);
    world.run(60);
    let next = world.nodes[0].mesh.published_certificate().unwrap();
    assert!(next.epoch > first && next.is_valid_at(world.now().unix.as_secs()));
}

#[test]
fn those_that_fell_silent_together_are_thought_to_be_back_together() {
    let mut world = World::network(&[0; 19]);
    let (here, there): (Vec<usize>, Vec<usize>) = ((0..10).collect(), (10..20).collect());
    for here in &here {
        world.severed.extend(there.iter().map(|there| (*here, *there)));
    }
    let silent = |world: &World| {
        there.iter().filter(|there| world.life(0, **there) == Some(meshd::Life::Unreachable)).count()
    };
    let noticed = (0..60).any(|_| {
        world.run(60);
        silent(&world) == 10
    });
    assert!(noticed);
    world.severed.clear();
    // One word of one of them, and of nobody it is claimed any more.
    let ping = Message::Ping(1, Gossip::default());
    world.hand(10, 0, &ping);
    assert_eq!(silent(&world), 0);
    // What is said of them elsewhere, from before, does not count here.
    let accusations = [world.accusation(1, 11), world.accusation(2, 11), world.accusation(3, 11)];
    for (accusation, accuser) in accusations.iter().zip(1..) {
        world.hand(accuser, 0, accusation);
    }
    world.run(100);
    assert_eq!(world.life(0, 11), Some(meshd::Life::Present));
}

#[test]
fn one_liar_makes_nobody_think_that_the_network_is_split() {
    let mut world = World::network(&[0; 12]);
    for subject in 2..13 {
        let accusation = world.accusation(1, subject);
        world.hand(1, 0, &accusation);
    }
    let mesh = &mut world.nodes[0].mesh;
    assert!(mesh.members.accused().count() >= 8);
    assert!(!mesh.members.is_split());
    let now = world.time;
    let subject = world.node(2);
    assert!(!world.nodes[0].mesh.members.doubt(&subject, now));
}

/// Each message by itself is answered, and each answer has its price. If these were paid with what the node has for its
/// own words, one member could silence all others.
#[test]
fn whoever_asks_without_end_silences_nobody() {
    let mut world = World::network(&[0; 9]);
    world.run(120);
    let before = world.nodes.iter().map(|node| node.mesh.local_sequence()).collect::<Vec<_>>();
    let mut sent = 0;
    let mut renamed = false;
    let compare = Message::Compare(world.nodes[1].mesh.members.index().opening(), Gossip::default());
    for second in 0..600u64 {
        for number in 0..15 {
            let gossip = Gossip::default();
            let from = world.nodes[1].identity.control;
            let message = if number < 14 { Message::Ping(number, gossip) } else { compare.clone() };
            world.give(&from, 0, &message);
        }
        for action in &world.nodes[0].mesh.actions {
            if let Action::Send { message, .. } = action {
                sent += message.len() + budget::ENVELOPE;
            }
        }
        world.settle(0);
        if second == 300 {
            let now = world.now();
            world.nodes[0]
                .mesh
                .reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(1) }, now);
            renamed = true;
        }
        world.run(1);
        if renamed && second == 360 {
            for here in 1..10 {
                let reports = world.nodes[here].mesh.peer_reports(world.now());
                assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"), "{here} was not told");
            }
        }
    }
    // What was saved up, and the rate.
    assert!(sent < 2000 * 30 + 2000 * 600, "{sent} bytes");
    assert_eq!(world.nodes[0].mesh.ban_reports().len(), 0);
    for here in 2..10 {
        assert_eq!(world.life(here, 0), Some(meshd::Life::Present));
    }
    // Nobody had cause to wonder whether it is there.
    for (node, before) in world.nodes.iter().zip(before).skip(1) {
        assert_eq!(node.mesh.local_sequence(), before);
    }
}

/// Members below one inviter have their identities in its address block, and one of them could have them all.
#[test]
fn many_identities_in_one_block_leave_answers_to_others() {
    let mut world = World::new(14);
    let code = world.invite_for(0, None, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    let code = world.invite_for(0, Some(1), Some(16)).unwrap();
    world.join(2, code.expose()).unwrap();
    let code = world.invite_for(2, None, Some(1)).unwrap();
    for index in 3..14 {
        world.join(index, code.expose()).unwrap();
    }
    world.run(120);
    let ping = |number| Message::Ping(number, Gossip::default());
    let honest = world.nodes[1].identity.control;
    let mut answers = 0;
    for second in 0..600u64 {
        world.time += Duration::from_secs(1);
        for index in 3..14 {
            let from = world.nodes[index].identity.control;
            for number in 0..15 {
                world.give(&from, 0, &ping(number));
            }
        }
        if second % 20 == 0 {
            world.give(&honest, 0, &ping(second));
        }
        let actions = world.nodes[0].mesh.poll_turn().actions;
        let is_answer = |action: &Action| matches!(action, Action::Send { to, .. } if *to == honest);
        answers += usize::from(second % 20 == 0 && actions.iter().any(is_answer));
    }
    assert!(answers >= 29, "{answers} of 30 were answered");
}

/// I2P lets whoever gets a datagram send it on as it is.
#[test]
fn what_was_meant_for_another_is_not_heard() {
    let mut world = World::network(&[0, 0]);
    let (from, other) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    let there = world.node(1);
    let heard = |world: &World| world.nodes[0].mesh.members.get(&there).unwrap().contact().last_heard;
    let before = heard(&world);
    world.time += Duration::from_secs(1);
    // By the hundred it would use up what the member may send; so it is not counted at all.
    let ping = Message::Ping(1, Gossip::default());
    for _ in 0..300 {
        let now = world.now();
        world.nodes[0].mesh.handle_datagram(&from, &ping.to_datagram(&other), now);
    }
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    assert_eq!((heard(&world), world.nodes[0].mesh.bans.iter().count()), (before, 0));
    // In its own name it is answered, and also under the fallback.
    let fallback = destination(1, 9);
    world.fallback(0, Some(fallback));
    for mine in [world.nodes[0].identity.control, fallback] {
        let now = world.now();
        world.nodes[0].mesh.handle_datagram(&from, &ping.to_datagram(&mine), now);
        assert!(!world.nodes[0].mesh.poll_turn().actions.is_empty());
    }
}

/// The local router can forge senders: what comes in a member's name must not have it banned, or silence others.
#[test]
fn a_flood_leads_to_no_ban_and_silences_no_other_member() {
    let mut world = World::network(&[0, 0]);
    let (flooder, other) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    let mine = world.nodes[0].identity.control;
    let there = world.node(2);
    let ping = Message::Ping(1, Gossip::default()).to_datagram(&mine);
    for _ in 0..120 {
        world.time += Duration::from_millis(500);
        let now = world.now();
        for _ in 0..500 {
            world.nodes[0].mesh.handle_datagram(&flooder, &ping, now);
        }
        world.nodes[0].mesh.handle_datagram(&other, &ping, now);
        let heard = world.nodes[0].mesh.members.get(&there).unwrap().contact().last_heard;
        assert_eq!(heard, Some(now.monotonic));
        world.nodes[0].mesh.poll_turn();
    }
    assert_eq!(world.nodes[0].mesh.bans.iter().count(), 0);
}

/// At 20 % loss rumors miss one in a hundred, who then waited for comparisons, of which every third finds what it should.
#[test]
fn whom_rumors_have_missed_finds_what_was_news_in_the_next_message() {
    let mut world = World::network(&[0, 0, 0]);
    // Of the joins, too.
    world.run(240);
    let gossip_in_answer = |world: &mut World, message: &Message| {
        let from = world.nodes[2].identity.control;
        world.give(&from, 0, message);
        let actions = world.nodes[0].mesh.poll_turn().actions;
        let messages = actions.into_iter().filter_map(|action| match action {
            Action::Send { to, message, .. } if to == from => Datagram::from_bytes(&message).ok(),
            _ => None,
        });
        // It is told besides that others have not reached it.
        let answer = messages.map(|datagram| datagram.message).find(|message| message.kind() != "news");
        answer.unwrap().gossip().cloned().unwrap()
    };
    let ping = Message::Ping(1, Gossip::default());
    assert_eq!(gossip_in_answer(&mut world, &ping), Gossip::default());
    world.down.push(2);
    let now = world.now();
    world.nodes[1].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(2) }, now);
    world.settle(1);
    world.command(3, |mesh, _| mesh.leave(1)).unwrap();
    world.run(120);
    // Nobody tells it any more.
    assert_eq!(world.nodes[0].mesh.rumors.poll_timeout(), None);
    let renamed = world.nodes[0].mesh.members.index().get(&Position::member(world.node(1))).unwrap();
    let different = Content::Fingerprint { count: 4, sum: [1; 16] };
    for message in
        [ping.clone(), Message::Compare(vec![Range { end: None, content: different }], Gossip::default())]
    {
        let gossip = gossip_in_answer(&mut world, &message);
        let ending = world.nodes[0].mesh.members.endings().iter().next().unwrap().id();
        let ending = world.nodes[0].mesh.members.index().get(&Position::ending(ending)).unwrap();
        assert_eq!((gossip.entries.len(), gossip.items.len()), (2, 0));
        assert!(gossip.entries.contains(&renamed) && gossip.entries.contains(&ending));
    }
    world.run(120);
    assert_eq!(gossip_in_answer(&mut world, &ping), Gossip::default());
}

/// Where a node thinks that another takes control messages.
fn control_of(world: &World, here: usize, there: usize) -> Option<Destination> {
    world.nodes[here].mesh.record_of(&world.node(there)).map(|record| *record.value.control)
}

#[test]
fn who_slept_while_a_substitute_ended_is_found_again() {
    for (restarts, others) in [(false, 0), (true, 0), (false, 2)] {
        let mut world = World::network(&vec![0; 1 + others]);
        let fallback = destination(2, 9);
        world.fallback(1, Some(fallback));
        world.run(60);
        assert_eq!(control_of(&world, 0, 1), Some(fallback));
        world.down = vec![0];
        world.run(900);
        world.fallback(1, None);
        world.run(900);
        world.down.clear();
        if restarts {
            world.restart(0);
        }
        world.run(60);
        assert_eq!(control_of(&world, 0, 1), Some(world.nodes[1].identity.control), "{others} others");
        for (here, there) in [(0, 1), (1, 0)] {
            assert_eq!(world.life(here, there), Some(meshd::Life::Present), "{there} seen by {here}");
        }
    }
}

#[test]
fn two_that_know_only_ended_substitutes_of_each_other_find_together_again() {
    for restarts in [false, true] {
        let mut world = World::network(&[0]);
        for index in [0, 1] {
            world.fallback(index, Some(destination(u8::try_from(index + 1).unwrap(), 9)));
            world.run(60);
        }
        world.severed = vec![(0, 1)];
        world.run(900);
        for index in [0, 1] {
            world.fallback(index, None);
            assert_eq!(
                control_of(&world, 1 - index, index),
                Some(destination(u8::try_from(index + 1).unwrap(), 9))
            );
        }
        world.run(900);
        world.severed.clear();
        if restarts {
            world.restart(0);
            world.restart(1);
        }
        world.run(120);
        for (here, there) in [(0, 1), (1, 0)] {
            assert_eq!(control_of(&world, here, there), Some(world.nodes[there].identity.control));
            assert_eq!(world.life(here, there), Some(meshd::Life::Present), "{there} seen by {here}");
        }
    }
}

/// What a member says of where else it is takes nothing from those who are there: they have not agreed.
#[test]
fn a_claim_to_anothers_primary_destination_is_not_believed() {
    let mut world = World::network(&[0, 0]);
    let honest = world.nodes[1].identity.control;
    let mut record = world.nodes[2].mesh.own.clone().unwrap();
    record.value.sequence += 1_000_000;
    record.value.primary = Some(Box::new(ProvenDestination { destination: honest, ..record.value.control }));
    record.signature = record.value.sign(&world.nodes[2].key);
    world.hand(2, 0, &news(record));
    assert_eq!(world.nodes[0].mesh.members.at(&honest.hash()).count(), 1);
}

/// What members can do to each other, tried.
mod attacks {
    use i2plan_proto::address::{AddressRange, AddressRanges};
    use i2plan_proto::invite::InviteId;

    use super::*;
    use crate::core::endings::Ending;

    mod coalition;

    fn chain_of(world: &World, index: usize) -> Chain {
        world.nodes[index].mesh.membership.as_ref().unwrap().chain.clone()
    }

    fn range(first: u32, size: u32) -> AddressRanges {
        AddressRange::of_size(first, size).unwrap().into()
    }

    /// A chain with a certificate more, by who holds this key.
    fn certified(
        chain: &Chain,
        key: &SigningKey,
        subject: NodeId,
        ranges: AddressRanges,
        serial: u64,
    ) -> Chain {
        let invite = InviteId([0; 16]);
        let grant =
            Delegation { subject, invite, ranges, serial, since: serial, replaces: false, issued_at: 0 };
        chain.appended(&signed(chain.certificate(grant), key))
    }

    /// A certificate by a member for another node, with one of its own addresses.
    fn certified_by(world: &World, issuer: usize, subject: NodeId, number: u32) -> Chain {
        let chain = chain_of(world, issuer);
        let first = chain.address(&Ipv4Subnet::DEFAULT).to_bits() + number;
        certified(&chain, &world.nodes[issuer].key, subject, range(first, 1), 1 + u64::from(number))
    }

    fn revocation(world: &World, issuer: usize, chain: Chain) -> Message {
        let issued_at = world.now().unix.as_secs();
        let target = Target::Certificate(chain);
        let revocation = Revocation { issuer: world.node(issuer), target, issued_at };
        Message::news(vec![Item::Revocation(Box::new(signed(revocation, &world.nodes[issuer].key)))])
    }

    fn key(number: u32) -> SigningKey {
        let mut seed = [0x44; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        SigningKey::from_bytes(&seed)
    }

    /// A record of an identity that a member has made up.
    fn invented(world: &World, key: &SigningKey, chain: Chain, control: Destination) -> Signed<Record> {
        let (network, node) = (chain.network(), NodeId(key.verifying_key().to_bytes()));
        let unix = world.now().unix.as_secs();
        let epoch = WireGuardCertificate::epoch_at(unix);
        let not_before = WireGuardCertificate::begins_at(epoch);
        let not_after = not_before + WireGuardCertificate::MAX_AGE;
        let wireguard = wireguard_key(network, node, epoch);
        let certificate =
            WireGuardCertificate { network, node, key: wireguard, epoch, not_before, not_after };
        let record = Record {
            node,
            sequence: 7,
            issued_at: unix,
            name: "invented".parse().unwrap(),
            control: ProvenDestination::unproven(control),
            primary: None,
            data: ProvenDestination::unproven(destination(88, 89)),
            wireguard: signed(certificate, key),
            chain,
        };
        signed_record(record, key)
    }

    fn members(world: &World) -> Vec<u64> {
        (0..world.nodes.len()).map(|index| world.members(index)).collect()
    }

    #[test]
    fn a_certificate_without_its_subjects_consent_revokes_no_one() {
        // 1 and 2 were invited by the founder, 3 by 1; 3 is the attacker, whom 1 has given addresses to delegate.
        let mut world = World::network(&[0, 0, 1]);
        for victim in [0, 1, 2] {
            let forged =
                revocation(&world, 3, certified_by(&world, 3, world.node(victim), 1 + victim as u32));
            for to in 0..3 {
                world.hand(3, to, &forged);
                // Nor from a destination that no one knows.
                world.give(&destination(77, 77), to, &forged);
                world.settle(to);
            }
        }
        world.run(120);
        assert_eq!(members(&world), [4; 4]);
    }

    #[test]
    fn a_revoked_member_revokes_no_one() {
        let mut world = World::network(&[0, 0, 0]);
        let forged = revocation(&world, 3, certified_by(&world, 3, world.node(2), 1));
        let three = world.node(3).to_string();
        world.command(0, |mesh, _| mesh.revoke(1, &three)).unwrap();
        world.run(60);
        for to in 0..3 {
            world.give(&destination(77, 77), to, &forged);
            world.settle(to);
        }
        world.run(60);
        assert_eq!(members(&world)[..3], [3; 3]);
    }

    #[test]
    fn the_greatest_numbers_are_no_panic() {
        let mut world = World::network(&[0, 0]);
        let mut record = world.nodes[1].mesh.own.clone().unwrap();
        record.value.sequence = u64::MAX;
        record.value.chain = chain_of(&world, 1);
        world.hand(1, 0, &news(signed_record(record.value, &world.nodes[1].key.clone())));
        for number in [0, 1, u64::MAX - 1, u64::MAX] {
            for ended in [false, true] {
                let entry = |node| Entry { node, record: number, pulse: number, ended };
                let entries = vec![entry(world.node(1)), entry(world.node(0)), entry(world.node(2))];
                let range = Range { end: None, content: Content::Entries(entries.clone()) };
                let gossip = Gossip { entries: entries.clone(), items: Vec::new() };
                world.hand(1, 0, &Message::Compare(vec![range], gossip.clone()));
                world.hand(1, 0, &Message::Want(entries));
                world.hand(1, 0, &Message::Ping(number, gossip));
            }
        }
        world.restart(0);
        world.run(120);
        assert_eq!((world.members(0), world.members(2)), (3, 3));
    }

    #[test]
    fn revocations_of_invented_identities_leave_room_for_others() {
        let mut world = World::network(&[0, 0]);
        for number in 0..4096 {
            // Node 1 holds 1024 addresses.
            let subject = NodeId(key(number).verifying_key().to_bytes());
            let message = revocation(&world, 1, certified_by(&world, 1, subject, 1 + number % 1023));
            world.time += Duration::from_millis(60);
            world.hand(1, 0, &message);
            world.in_flight.clear();
        }
        let known = world.nodes[0].mesh.members.endings().iter().count();
        assert!((1000..=1024).contains(&known), "{known}");
        let one = world.node(1).to_string();
        assert!(world.command(0, |mesh, _| mesh.revoke(1, &one)).is_ok());
        assert!(!world.has_peer(0, 1));
        // With it everything is gone that it has said.
        assert_eq!(world.nodes[0].mesh.members.endings().iter().count(), 1);
    }

    #[test]
    fn a_revocation_that_is_not_accepted_is_an_error() {
        // Node 1 holds 16 addresses: so many memberships it can have ended, whatever it has invited before.
        let mut world = World::new(2);
        let code = world.invite_for(0, Some(1), Some(16)).unwrap();
        world.join(1, code.expose()).unwrap();
        for number in 0..16 {
            let invite = InviteId([u8::try_from(number).unwrap(); 16]);
            let target = Target::Invite(chain_of(&world, 1), invite);
            let revocation = Revocation { issuer: world.node(1), target, issued_at: 0 };
            let revocation = signed(revocation, &world.nodes[1].key);
            let now = world.now();
            world.nodes[1].mesh.end_memberships(Ending::Revocation(Box::new(revocation)), now);
        }
        let code = world.invite_for(1, Some(1), Some(1)).unwrap();
        let id = code.expose().parse::<Invite>().unwrap().id().to_string();
        let accepted = world.command(1, |mesh, now| mesh.revoke_invite(1, &id, true, now));
        let known: Vec<_> = world.nodes[1].mesh.members.endings().iter().map(Ending::id).collect();
        assert_eq!(known.len(), 16);
        // The one with the greatest id has no room, whichever that is.
        if let Err(error) = accepted {
            assert!(error.message.contains("was not accepted"), "{error}");
        }
    }

    #[test]
    fn no_one_can_have_anothers_address() {
        for victim in [0, 2] {
            let mut world = World::network(&[0, 0]);
            let addresses: Vec<_> = (0..3).map(|index| world.nodes[index].mesh.local_address()).collect();
            let address = addresses[victim].unwrap().to_bits();
            let own = chain_of(&world, 1);
            let thief = key(1);
            let id = NodeId(thief.verifying_key().to_bytes());
            let base = own.address(&Ipv4Subnet::DEFAULT).to_bits();
            // Out of a range that is not its own, wide or narrow, with the lowest serial; and its own address again.
            for (ranges, serial) in [
                (range(address, 1), 0),
                (range(address & !0xffff, 1 << 16), 0),
                (range(address & !0xff, 256), u64::MAX),
                (range(base, 1), 0),
                (range(base, 1024), 0),
            ] {
                let chain = certified(&own, &world.nodes[1].key, id, ranges, serial);
                let record = invented(&world, &thief, chain, destination(88, 88));
                (0..3).for_each(|to| world.hand(1, to, &news(record.clone())));
            }
            // A certificate of the founder that it has not signed.
            let founder = Chain::founder(&world.nodes[0].mesh.charter().unwrap());
            let chain = certified(&founder, &world.nodes[1].key, id, range(address, 1), 0);
            world.hand(1, 0, &news(invented(&world, &thief, chain, destination(88, 88))));
            world.run(60);
            assert_eq!(members(&world), [3; 3]);
            for here in 0..3 {
                assert_eq!(world.nodes[here].mesh.local_address(), addresses[here]);
                for peer in world.nodes[here].mesh.peers(world.now()) {
                    let there = (0..3).find(|there| world.node(*there) == peer.node).unwrap();
                    assert_eq!(Some(peer.ipv4()), addresses[there]);
                }
            }
        }
    }

    #[test]
    fn one_member_invents_no_more_identities_than_it_holds_addresses() {
        let mut world = World::new(3);
        let code = world.invite_for(0, Some(1), Some(16)).unwrap();
        world.join(1, code.expose()).unwrap();
        world.run(30);
        for number in 0..500 {
            let (fake, control) = (key(number), destination(88, 88));
            let subject = NodeId(fake.verifying_key().to_bytes());
            let chain = certified_by(&world, 1, subject, 1 + number % 15);
            let mut record = invented(&world, &fake, chain, control);
            // Keys that are valid for ever are valid for no one.
            if number >= 400 {
                record.value.wireguard.value.not_after = u64::MAX;
                record.value.wireguard = signed(record.value.wireguard.value, &fake);
                record = signed_record(record.value, &fake);
            }
            world.time += Duration::from_millis(60);
            world.hand(1, 0, &news(record));
            world.in_flight.clear();
        }
        assert_eq!(world.members(0), 2 + 15);
        // An honest joiner is known to all.
        let code = world.invite(0, Some(1)).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(120);
        assert!(world.has_peer(0, 2) && world.has_peer(1, 2) && world.has_peer(2, 0));
    }

    #[test]
    fn gossip_does_not_go_to_a_destination_that_has_not_agreed() {
        let mut world = World::network(&[0; 9]);
        let third = Destination { padding: [99; 32], signing_key: key(99).verifying_key().to_bytes() };
        for number in 0..300 {
            let fake = key(number);
            let subject = NodeId(fake.verifying_key().to_bytes());
            let chain = certified_by(&world, 1, subject, 1 + number);
            let record = invented(&world, &fake, chain, third);
            world.time += Duration::from_millis(60);
            world.hand(1, 0, &news(record));
            world.in_flight.clear();
        }
        assert_eq!(world.members(0), 10);
        for _ in 0..600 {
            world.run(1);
            assert!(world.in_flight.iter().all(|(_, to, _)| *to != third));
        }
    }

    /// A key that is certified by two would be routed to one of them alone.
    #[test]
    fn no_one_can_claim_anothers_wireguard_key() {
        let mut world = World::network(&[0, 0]);
        let before = world.nodes[0].mesh.peers(world.now());
        let theirs = world.nodes[2].mesh.own.as_ref().unwrap().value.wireguard.value.key;
        let fake = key(1);
        let subject = NodeId(fake.verifying_key().to_bytes());
        let mut record =
            invented(&world, &fake, certified_by(&world, 1, subject, 1), destination(88, 88)).value;
        record.wireguard.value.key = theirs;
        record.wireguard = signed(record.wireguard.value, &fake);
        world.hand(1, 0, &news(signed_record(record, &fake)));
        assert_eq!(world.nodes[0].mesh.peers(world.now()), before);
    }

    #[test]
    fn identities_of_one_block_draw_no_more_gossip_than_their_block() {
        let mut world = World::network(&[0; 9]);
        let control = destination(88, 88);
        for number in 0..15 {
            let fake = key(number);
            let subject = NodeId(fake.verifying_key().to_bytes());
            let chain = certified_by(&world, 1, subject, 1 + number);
            world.hand(1, 0, &news(invented(&world, &fake, chain, control)));
        }
        assert_eq!(world.members(0), 25);
        let mut rng = StdRng::from_seed([1; 32]);
        let invented = (0..1000).filter(|_| {
            let drawn = world.nodes[0].mesh.members.sample(1, |_| true, &mut rng);
            *drawn[0].record.value.control == control
        });
        // With node 1 they are one of nine blocks.
        let count = invented.count();
        assert!((50..170).contains(&count), "{count}");
    }

    #[test]
    fn nothing_of_a_former_network_counts_in_the_next_of_its_founder() {
        let mut world = World::network(&[0, 0]);
        let old = world.nodes[1].mesh.own.clone().unwrap();
        let before = world.nodes[0].mesh.network();
        world.command(0, |mesh, _| mesh.leave(1)).unwrap();
        let code = world.invite(0, Some(1)).unwrap();
        assert_ne!(world.nodes[0].mesh.network(), before);
        world.hand(1, 0, &news(old));
        world.run(60);
        assert_eq!(world.members(0), 1);
        // Who is invited has to leave the old one first, and is a member of the new one then.
        assert_eq!(world.join(1, code.expose()).unwrap_err().kind, ErrorKind::Conflict);
        world.command(1, |mesh, _| mesh.leave(1)).unwrap();
        world.join(1, code.expose()).unwrap();
        world.run(60);
        assert_eq!((world.members(0), world.members(1)), (2, 2));
    }

    #[test]
    fn a_banned_member_does_not_speak_on_as_another_identity() {
        let mut world = World::network(&[0, 0]);
        let one = world.node(1).to_string();
        world.command(0, |mesh, now| mesh.add_ban(1, &one, String::new(), None, now)).unwrap();
        let from = world.nodes[1].identity.control;
        let fake = key(1);
        let chain = certified_by(&world, 1, NodeId(fake.verifying_key().to_bytes()), 1);
        let record = invented(&world, &fake, chain, from);
        world.give(&destination(60, 60), 0, &news(record));
        world.nodes[0].mesh.poll_turn();
        assert_eq!(world.nodes[0].mesh.members.at(&from.hash()).count(), 2);
        world.time += Duration::from_secs(5);
        world.give(&from, 0, &Message::Ping(1, Gossip::default()));
        assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    }

    #[test]
    fn whom_a_member_certifies_after_it_has_left_is_no_member() {
        let mut world = World::network(&[0, 0, 1]);
        let later = key(1);
        let chain = certified_by(&world, 1, NodeId(later.verifying_key().to_bytes()), 900);
        let record = invented(&world, &later, chain, destination(88, 88));
        world.command(1, |mesh, _| mesh.leave(1)).unwrap();
        world.run(60);
        // Node 3, which it has invited before, stays.
        assert_eq!((world.members(0), world.members(2), world.members(3)), (3, 3, 3));
        world.give(&destination(88, 88), 0, &news(record));
        world.run(10);
        assert_eq!(world.members(0), 3);
    }
}

mod delegation {
    use super::*;

    fn status(world: &World, index: usize) -> meshd::Network {
        world.nodes[index].mesh.network_status(world.now()).unwrap()
    }

    #[test]
    fn a_small_subnet_is_filled_to_its_last_address() {
        let mut world = World::in_subnet(8, "10.9.0.0/29".parse().unwrap());
        let code = world.invite_for(0, None, None).unwrap();
        let mut addresses = HashSet::from([world.nodes[0].mesh.local_address().unwrap()]);
        for index in 1..=5 {
            world.join(index, code.expose()).unwrap();
            addresses.insert(world.nodes[index].mesh.local_address().unwrap());
            assert_eq!(status(&world, 0).addresses_left, 5 - index as u64);
        }
        assert_eq!(addresses.len(), 6);
        let error = world.join(6, code.expose()).unwrap_err();
        assert!(error.message.contains("no addresses left"), "{error}");
        let error = world.invite_for(0, Some(1), None).unwrap_err();
        assert!(error.message.contains("more than this node has left"), "{error}");
        // One leaves: its address waits for 30 days, and for itself alone it does not.
        world.command(3, |mesh, _| mesh.leave(1)).unwrap();
        world.run(60);
        assert!(world.join(6, code.expose()).is_err());
        world.time += Duration::from_secs(31 * 86_400);
        world.run(200);
        let code = world.invite_for(0, Some(1), None).unwrap();
        world.join(6, code.expose()).unwrap();
        world.run(120);
        let record = world.nodes[0].mesh.record_of(&world.node(6)).unwrap().clone();
        assert!(record.value.chain.last().unwrap().replaces);
        assert_eq!(world.members(6), 6);
    }

    #[test]
    fn a_member_with_one_address_cannot_invite_until_it_is_granted_more() {
        let mut world = World::new(3);
        let code = world.invite_for(0, None, None).unwrap();
        world.join(1, code.expose()).unwrap();
        world.run(30);
        let error = world.invite_for(1, Some(1), None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.hint.unwrap().contains("ask node-1, who invited it, to run `i2planctl grant node-2"));
        let before = world.nodes[1].mesh.local_address();
        let one = world.node(1).to_string();
        let error = world.command(2, |mesh, now| mesh.grant(1, &one, 16, now)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
        // It is off just then, and is told when it is there again.
        world.down = vec![1];
        match world.command(0, |mesh, now| mesh.grant(1, &one, 16, now)) {
            Ok(meshd::Reply::Granted(grant)) => assert_eq!((grant.addresses, grant.ranges.len()), (17, 2)),
            other => panic!("{other:?}"),
        }
        world.run(60);
        world.down.clear();
        world.run(60);
        assert_eq!((world.nodes[1].mesh.local_address(), status(&world, 1).addresses), (before, 17));
        let code = world.invite_for(1, Some(1), None).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(60);
        assert_eq!([world.members(0), world.members(1), world.members(2)], [3; 3]);
        // Revoking it covers both of its certificates.
        world.command(0, |mesh, _| mesh.revoke(1, &one)).unwrap();
        world.run(60);
        assert_eq!(world.members(0), 1);
    }

    /// Its inviter knows of two certificates then, of which either revocation ends both.
    #[test]
    fn a_member_is_revoked_before_it_has_heard_of_its_grant() {
        let mut world = World::network(&[0]);
        let one = world.node(1).to_string();
        world.down = vec![1];
        world.command(0, |mesh, now| mesh.grant(1, &one, 16, now)).unwrap();
        match world.command(0, |mesh, _| mesh.revoke(1, &one)) {
            Ok(meshd::Reply::Revoked(out)) => assert_eq!(out, [one]),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.members(0), 1);
        world.down.clear();
        world.run(60);
        assert_eq!(world.nodes[1].mesh.network(), None);
    }

    #[test]
    fn no_node_joins_below_itself() {
        let mut world = World::network(&[0]);
        world.command(0, |mesh, _| mesh.leave(1)).unwrap();
        world.run(30);
        let code = world.invite(1, Some(1)).unwrap();
        let error = world.join(0, code.expose()).unwrap_err();
        assert!(error.message.contains("cannot join below itself"), "{error}");
        // Neither an address nor a use is spent.
        assert_eq!(world.nodes[1].mesh.delegations.iter().count(), 0);
    }

    #[test]
    fn an_invite_is_revoked_with_its_users() {
        let mut world = World::new(4);
        let code = world.invite(0, None).unwrap();
        world.join(1, code.expose()).unwrap();
        world.join(2, code.expose()).unwrap();
        let other = world.invite(0, Some(1)).unwrap();
        world.join(3, other.expose()).unwrap();
        world.run(60);
        let id = code.expose().parse::<Invite>().unwrap().id().to_string();
        let revoked = world.command(0, |mesh, now| mesh.revoke_invite(1, &id, true, now));
        assert!(matches!(revoked, Ok(meshd::Reply::InviteRevoked(invite)) if invite.used_by.len() == 2));
        world.run(60);
        assert_eq!((world.members(0), world.members(3)), (2, 2));
        assert!(world.nodes[1].mesh.network().is_none() && world.nodes[2].mesh.network().is_none());
        assert!(world.join(1, code.expose()).is_err());
    }

    /// Node 0 goes on with the state that it had before it invited node 2. As node 1 knows of node 2, it learns of it
    /// before it invites another.
    #[test]
    fn a_restored_inviter_compares_before_it_invites() {
        let mut world = World::new(4);
        let code = world.invite(0, None).unwrap();
        world.join(1, code.expose()).unwrap();
        world.run(60);
        let backup = world.nodes[0].disk.clone();
        world.join(2, code.expose()).unwrap();
        world.run(60);
        world.nodes[0].disk = backup;
        world.down = vec![1, 2];
        world.restart(0);
        let now = world.now();
        world.nodes[3].mesh.join(0, code.expose(), now);
        world.settle(3);
        world.run(20);
        assert!(world.nodes[3].answers.is_empty(), "busy");
        world.down.clear();
        world.run(60);
        assert!(matches!(world.nodes[3].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
        let delegated = world.nodes[0].mesh.delegations.iter().count();
        assert_eq!((delegated, world.members(0)), (3, 4));
    }

    #[test]
    fn one_that_nobody_answers_goes_on_alone() {
        let mut world = World::network(&[0]);
        world.down = vec![1];
        world.restart(0);
        assert!(!world.nodes[0].mesh.comparison_since_start.is_done(world.time));
        world.run(130);
        assert!(world.nodes[0].mesh.comparison_since_start.is_done(world.time));
    }

    /// Addresses that were delegated twice go to the earlier certificate, without strikes; the other learns that it has
    /// to join again.
    #[test]
    fn double_delegation_is_told_neutrally_and_heals() {
        let mut world = World::new(4);
        let subnet = Ipv4Subnet::DEFAULT;
        let code = world.invite_for(0, None, None).unwrap();
        world.join(1, code.expose()).unwrap();
        world.join(3, code.expose()).unwrap();
        world.run(60);
        // The founder has forgotten node 1, and gives its address to node 2.
        let taken = world.nodes[1].mesh.local_address().unwrap();
        world.severed = vec![(0, 1), (0, 3)];
        let founder = &mut world.nodes[0].mesh;
        let delegated: Vec<_> =
            founder.delegations.iter().filter(|other| other.ranges.address() != taken).cloned().collect();
        founder.delegations = Delegations::new(delegated);
        founder.members = Members::new(subnet, founder.membership.as_ref().unwrap().chain.clone());
        let code = world.invite_for(0, Some(1), Some(1)).unwrap();
        let holding = world.nodes[0].mesh.holding().unwrap();
        let range = AddressRange::new(taken, 32).unwrap();
        let (joiner, invite) = (world.node(2), code.expose().parse::<Invite>().unwrap().id());
        let given = state::Delegated {
            subject: joiner,
            invite,
            ranges: range.into(),
            replaces: false,
            given_at: 0,
            ended_at: None,
            certificate: None,
        };
        let all = world.nodes[0].mesh.delegations.iter().cloned().chain([given]).collect();
        world.nodes[0].mesh.delegations = Delegations::new(all);
        assert!(holding.ranges.cover(&range));
        world.join(2, code.expose()).unwrap();
        assert_eq!(world.nodes[2].mesh.local_address(), Some(taken));
        world.severed.clear();
        world.run(300);
        // The earlier one stands everywhere.
        for here in [0, 3] {
            assert!(world.has_peer(here, 1) && !world.has_peer(here, 2), "seen by {here}");
        }
        assert_eq!(status(&world, 2).displaced_by, Some(world.node(0).to_string()));
        assert_eq!(status(&world, 1).displaced_by, None);
        let conflicts: Vec<_> =
            [0, 1, 3].map(|index| status(&world, index).conflicts).into_iter().flatten().collect();
        assert!(conflicts.iter().any(|conflict| conflict.range == format!("{taken}/32")), "{conflicts:?}");
        assert!((0..4).all(|index| world.nodes[index].mesh.ban_reports().is_empty()));
        world.command(2, |mesh, _| mesh.leave(1)).unwrap();
        let code = world.invite_for(0, Some(1), Some(1)).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(120);
        assert!(world.has_peer(3, 2) && world.has_peer(0, 2) && world.has_peer(1, 2));
    }

    #[test]
    fn a_clock_that_was_wrong_once_heals_when_it_is_right() {
        let mut world = World::network(&[0, 0]);
        // Node 1 signs a record while its clock is 90 days ahead.
        let later = Now { monotonic: world.time, unix: world.now().unix + Duration::from_secs(90 * 86_400) };
        let now = later;
        world.nodes[1].mesh.reconfigure(Settings { name: "ahead".parse().unwrap(), ..settings(2) }, now);
        world.nodes[1].mesh.handle_timeout(now);
        let ahead = world.nodes[1].mesh.poll_turn();
        for action in ahead.actions {
            if let Action::Ask(ticket, request) = action {
                let reply = sign(&world.nodes[1], *request, later);
                world.nodes[1].mesh.handle_keyd_reply(ticket, reply, later);
            }
        }
        for action in world.nodes[1].mesh.poll_turn().actions {
            if let Action::Ask(ticket, request) = action {
                let reply = sign(&world.nodes[1], *request, later);
                world.nodes[1].mesh.handle_keyd_reply(ticket, reply, later);
            }
        }
        world.settle(1);
        world.run(120);
        let reports = world.nodes[0].mesh.peer_reports(world.now());
        assert!(reports.iter().any(|(_, peer)| peer.name == "ahead"));
        assert!(world.has_peer(0, 1) && world.nodes[0].mesh.ban_reports().is_empty());
    }

    #[test]
    fn a_node_that_was_removed_keeps_what_it_was() {
        let mut world = World::network(&[0, 0]);
        let one = world.node(1).to_string();
        world.command(0, |mesh, _| mesh.revoke(1, &one)).unwrap();
        world.deliver();
        assert!(world.nodes[1].mesh.network().is_none());
        assert!(world.nodes[1].set_aside);
        world.command(2, |mesh, _| mesh.leave(1)).unwrap();
        assert!(!world.nodes[2].set_aside, "it has wanted to leave");
    }
}
