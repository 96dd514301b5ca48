//! The nodes, the time that passes, and what goes between them.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use i2plan_ipc::api::{keyd, meshd};
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_keyd::keys::Keys;
use i2plan_keyd::policy::Signer;
use i2plan_meshd::core::state::{Membership, Remembered, State};
use i2plan_meshd::core::{Action, Mesh, Now, Settings, Ticket, VerifiedRecord};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signable as _, Signed};
use i2plan_proto::invite::{InviteSecret, Uses};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest};
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::message::{Datagram, Gossip, Item, Message};
use i2plan_proto::record::Record;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

use super::invariants::Ledger;
use super::network::Net;
use super::script::Step;
use super::watch::Watch;
use super::{HEARTBEAT, LOOK, Options, Scenario};
use crate::Failure;

/// When the simulation begins, Unix time.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// `keyd` answers after this.
const KEYD: Duration = Duration::from_millis(1);

/// What a repliable datagram adds, bytes.
const ENVELOPE: usize = 455;

/// Members that the founder has invited, at most. Two in three of the others were invited by these, the rest by others,
/// so that chains have one to four links.
const INVITERS: usize = 30;

/// Messages that liars have to replay.
const RECORDED: usize = 2000;

/// For so long datagrams are added up to find the busiest time.
pub(super) const SPAN: Duration = Duration::from_secs(30);

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Vec<u8>,
    /// Of whom something in it speaks that might be news.
    mentioned: Vec<NodeId>,
}

pub(super) enum Event {
    Datagram { to: usize, from: usize, parcel: Rc<Parcel> },
    Wake(usize),
    Keyd { node: usize, life: u32, ticket: Ticket, request: Box<keyd::Request> },
    Found { node: usize, hash: DestinationHash },
    Look,
    Script(Step),
}

pub(super) struct Node {
    pub(super) mesh: Mesh,
    pub(super) id: NodeId,
    pub(super) signer: Signer,
    pub(super) control: Destination,
    pub(super) data: Destination,
    /// What it has saved last, if it will ever be restarted.
    pub(super) disk: Option<State>,
    wake: Duration,
    pub(super) up: bool,
    /// Grows with every restart: what is answered later is not for the new one.
    pub(super) life: u32,
    started: Duration,
    pub(super) sent: u64,
    pub(super) settings: Settings,
}

impl Node {
    pub(super) fn clock(&self, now: Duration) -> Now {
        Now { monotonic: now - self.started, unix: EPOCH + now }
    }
}

/// What was sent, of one kind: messages, or what they carry.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// What gossip consists of: of each part its kind and length.
fn contents(gossip: &Gossip) -> impl Iterator<Item = (&'static str, usize)> {
    let kind = |item: &Item| match item {
        Item::Record(_) => "record",
        Item::Pulse(_) => "pulse",
        Item::Accusation(_) => "accusation",
        Item::Revocation(_) => "revocation",
    };
    let entries = gossip.entries.iter().map(|entry| ("entry", entry.to_bytes().len()));
    entries.chain(gossip.items.iter().map(move |item| (kind(item), item.to_bytes().len())))
}

pub(super) struct World {
    pub(super) options: Options,
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    pub(super) by_id: HashMap<NodeId, usize>,
    by_control: HashMap<Destination, usize>,
    by_hash: HashMap<DestinationHash, Destination>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
    pub(super) handled: u64,
    pub(super) net: Net,
    pub(super) rng: StdRng,
    pub(super) watch: Watch,
    pub(super) ledger: Ledger,
    /// What the ledger has found broken while it was written.
    broken: Option<String>,
    /// By kind of message, with what I2P adds.
    pub(super) traffic: BTreeMap<&'static str, Traffic>,
    /// By kind of what messages carry, without what is around it.
    pub(super) carried: BTreeMap<&'static str, Traffic>,
    /// What all nodes have sent in each [`SPAN`], with what I2P adds, bytes.
    pub(super) spans: Vec<u64>,
    pub(super) measuring: bool,
    /// CPU time that the nodes' cores have used.
    pub(super) cpu: Duration,
    pub(super) trace: u64,
    pub(super) liars: HashSet<usize>,
    /// Who has left or was revoked.
    pub(super) out: Rc<RefCell<HashSet<NodeId>>>,
    /// What liars have got, and from whom.
    pub(super) recorded: Vec<(usize, Rc<Parcel>)>,
    pub(super) answers: Vec<Result<meshd::Reply, ApiError>>,
}

pub(super) fn signer(random: &mut StdRng) -> Signer {
    let mut bytes = Zeroizing::new([0; i2plan_keyd::keys::RANDOM_LEN]);
    random.fill(&mut bytes[..]);
    Signer::new(Keys::generate(&bytes, EPOCH.as_secs()))
}

fn refused(error: &ApiError) -> Failure {
    Failure::new(format!("keyd refused: {error}"))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The subnet: the default's size, or so small that addresses collide by the dozen.
fn subnet(options: &Options) -> Result<Ipv4Subnet, Failure> {
    let prefix = if options.scenario == Scenario::Collisions {
        let addresses = (options.nodes * 5 / 4 + 2).max(options.nodes * options.nodes / 96);
        u8::try_from(31 - addresses.ilog2()).unwrap_or(16).clamp(16, 29)
    } else {
        16
    };
    Ipv4Subnet::new([10, 42, 0, 0].into(), prefix).map_err(|error| Failure::new(error.to_string()))
}

/// The chains of invitations of all members, the founder's first.
fn chains(signers: &mut [Signer], rng: &mut StdRng) -> Result<Vec<Chain>, Failure> {
    let unix = EPOCH.as_secs();
    let mut chains = vec![Chain::founder(signers[0].keys().node())];
    for index in 1..signers.len() {
        let inviter = match index {
            1..=INVITERS => 0,
            _ if rng.random_ratio(2, 3) => rng.random_range(1..=INVITERS),
            _ => rng.random_range(1..index.min(4 * INVITERS)),
        };
        let secret = InviteSecret(rng.random());
        let network = chains[0].network();
        let wish = keyd::CreateInvite { network, expires_at: unix + 3600, uses: Uses::Unlimited };
        let (_, grant) = signers[inviter]
            .create_invite(&wish, InviteSecret(secret.0), unix)
            .map_err(|error| refused(&error))?;
        let control = signers[index].keys().control().public();
        let body = JoinBody {
            network,
            inviter: signers[inviter].keys().node(),
            invite: secret.key(),
            joiner: signers[index].keys().node(),
            control: control.hash(),
            issued_at: unix,
        };
        let signature = signers[index].sign_join(&body, &control, unix).map_err(|error| refused(&error))?;
        let proof = body.prove(&secret.signing_key());
        let request = JoinRequest { body: Signed { value: body, signature }, proof };
        let certify = keyd::CertifyMember { grant, request };
        let certificate = signers[inviter].certify_member(&certify, unix).map_err(|error| refused(&error))?;
        let chain =
            chains[inviter].extended(&certificate).map_err(|error| Failure::new(error.to_string()))?;
        chains.push(chain);
    }
    Ok(chains)
}

impl World {
    /// Members that know each other, as after a long calm life.
    pub(super) fn new(options: Options) -> Result<Self, Failure> {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let unix = EPOCH.as_secs();
        let subnet = subnet(&options)?;
        let mut signers: Vec<Signer> = (0..options.nodes).map(|_| signer(&mut rng)).collect();
        let charter = Charter { founder: signers[0].keys().node(), subnet, founded_at: unix };
        let signature = signers[0].sign_charter(&charter, unix).map_err(|error| refused(&error))?;
        let charter = Signed { value: charter, signature };
        let network = charter.value.network();
        let chains = chains(&mut signers, &mut rng)?;

        // Whoever has the better claim chooses first, as if it had come first.
        let mut order: Vec<usize> = (0..options.nodes).collect();
        order.sort_by_key(|index| (chains[*index].member_since(), *chains[*index].subject()));
        let mut addresses = HashMap::new();
        let mut taken = HashSet::new();
        for index in order {
            let node = signers[index].keys().node();
            let mut attempts = (0..64).map(|attempt| subnet.address_of(&node, attempt));
            let free = attempts.find(|ipv4| taken.insert(*ipv4) || options.scenario == Scenario::Collisions);
            addresses.insert(index, free.unwrap_or_else(|| subnet.address_of(&node, 0)));
        }

        let mut world = Self {
            options,
            now: Duration::ZERO,
            nodes: Vec::new(),
            by_id: HashMap::new(),
            by_control: HashMap::new(),
            by_hash: HashMap::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            handled: 0,
            net: Net::new(options.seed, options.loss),
            rng,
            watch: Watch::default(),
            ledger: Ledger::default(),
            broken: None,
            traffic: BTreeMap::new(),
            carried: BTreeMap::new(),
            spans: Vec::new(),
            measuring: false,
            cpu: Duration::ZERO,
            trace: 0xcbf2_9ce4_8422_2325,
            liars: HashSet::new(),
            out: Rc::default(),
            recorded: Vec::new(),
            answers: Vec::new(),
        };
        let mut known = Vec::new();
        for (index, signer) in signers.iter_mut().enumerate() {
            let wireguard = signer.certify_wireguard(network, None, unix).map_err(|error| refused(&error))?;
            // Just what the node will sign when it starts, so that it says nothing new then.
            let record = Record {
                node: signer.keys().node(),
                sequence: unix * 1000 + 1,
                issued_at: unix,
                name: format!("node-{index}").parse().map_err(|_| Failure::new("a name"))?,
                control: signer.keys().control().public(),
                home: None,
                data: signer.keys().ephemeral([1; 32]).public(),
                ipv4: addresses[&index],
                wireguard,
                chain: chains[index].clone(),
            };
            let signature = record.sign(&signer.keys().identity());
            world.ledger.record(&record);
            let record = VerifiedRecord::new(Signed { value: record, signature }, &network)
                .map_err(|error| Failure::new(error.to_string()))?;
            known.push(Remembered { record, pulse: None, created: unix, last_seen: Some(unix) });
        }
        for (index, signer) in signers.into_iter().enumerate() {
            let record = &known[index].record.value;
            let state = State {
                node: record.node,
                membership: Some(Membership {
                    charter: charter.clone(),
                    chain: chains[index].clone(),
                    ipv4: record.ipv4,
                    last_sequence: 0,
                    epoch: Some(record.wireguard.value.epoch),
                }),
                former: None,
                invites: Vec::new(),
                members: known.clone(),
                revocations: Vec::new(),
                bans: Vec::new(),
            };
            world.add(signer, state, subnet)?;
        }
        Ok(world)
    }

    pub(super) fn add(&mut self, signer: Signer, state: State, subnet: Ipv4Subnet) -> Result<usize, Failure> {
        let index = self.nodes.len();
        let control = signer.keys().control().public();
        let data = signer.keys().ephemeral([1; 32]).public();
        let settings = Settings {
            name: format!("node-{index}").parse().map_err(|_| Failure::new("a name"))?,
            subnet,
            heartbeat: HEARTBEAT,
            peer_timeout: Duration::from_secs(300),
            max_peers: 50,
            control_rate: 2000,
            interface: "i2plan0".to_owned(),
            mtu: 1280,
            keepalive: 25,
        };
        let id = signer.keys().node();
        let identity = keyd::Identity { node: id, control, sealed: false };
        let now = Now { monotonic: Duration::ZERO, unix: EPOCH + self.now };
        let mut mesh = Mesh::new(identity, settings.clone(), state, self.rng.random(), now);
        mesh.on_data_session(data);
        self.by_control.insert(control, index);
        self.by_id.insert(id, index);
        self.by_hash.insert(control.hash(), control);
        self.nodes.push(Node {
            mesh,
            id,
            signer,
            control,
            data,
            disk: None,
            wake: Duration::MAX,
            up: true,
            life: 0,
            started: self.now,
            sent: 0,
            settings,
        });
        self.settle(index);
        Ok(index)
    }

    /// A node will be restarted: from now on what it saves is kept.
    pub(super) fn keep_disk(&mut self, index: usize) {
        let state = self.nodes[index].mesh.state();
        self.nodes[index].disk = Some(state);
    }

    /// A node starts again from its disk.
    pub(super) fn restart(&mut self, index: usize) {
        let seed = self.rng.random();
        let node = &mut self.nodes[index];
        let state = node.disk.clone().unwrap_or_else(|| State::new(node.id));
        node.up = true;
        node.life += 1;
        node.started = self.now;
        node.wake = Duration::MAX;
        let identity = keyd::Identity { node: node.id, control: node.control, sealed: false };
        let now = Now { monotonic: Duration::ZERO, unix: EPOCH + self.now };
        node.mesh = Mesh::new(identity, node.settings.clone(), state, seed, now);
        node.mesh.on_data_session(node.data);
        self.settle(index);
    }

    pub(super) fn at(&mut self, after: Duration, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.sequence += 1;
        self.queue.push(Reverse((self.now + after, self.sequence, slot)));
    }

    pub(super) fn clock(&self, node: usize) -> Now {
        self.nodes[node].clock(self.now)
    }

    /// From now on what nodes send and use counts.
    pub(super) fn measure(&mut self) {
        self.measuring = true;
        self.cpu = Duration::ZERO;
    }

    /// What was sent since then, bytes.
    pub(super) fn sent(&self) -> u64 {
        self.traffic.values().map(|traffic| traffic.bytes).sum()
    }

    pub(super) fn unix(&self) -> u64 {
        (EPOCH + self.now).as_secs()
    }

    pub(super) fn failure(&self, place: usize, what: impl std::fmt::Display) -> Failure {
        let (seed, time) = (self.options.seed, self.now.as_secs_f64());
        Failure::new(format!("seed {seed}, {time:.1} s, node {place}: {what}"))
    }

    pub(super) fn run_until(&mut self, end: Duration) -> Result<(), Failure> {
        while let Some(Reverse((time, _, slot))) = self.queue.peek().copied() {
            if time > end {
                break;
            }
            self.queue.pop();
            self.now = time;
            self.free.push(slot);
            if let Some(event) = self.events[slot].take() {
                self.handled += 1;
                self.handle(event)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Datagram { to, from, parcel } => {
                if !self.nodes[to].up {
                    return Ok(());
                }
                let sender = self.nodes[from].control;
                let shut_out = self.nodes[to].mesh.banned().any(|node| node == self.nodes[from].id);
                let mentioned = if shut_out { &[][..] } else { &parcel.mentioned };
                self.observed(to, mentioned, |mesh, now| mesh.on_datagram(&sender, &parcel.bytes, now))
            }
            Event::Wake(index) => {
                // One that was set for later than another since is of no use any more.
                if self.nodes[index].wake != self.now || !self.nodes[index].up {
                    return Ok(());
                }
                self.nodes[index].wake = Duration::MAX;
                let now = self.clock(index);
                if self.nodes[index].mesh.wake_at().is_none_or(|at| at > now.monotonic) {
                    self.settle(index);
                    return Ok(());
                }
                self.observed(index, &[], Mesh::on_time)
            }
            Event::Keyd { node, life, ticket, request } => {
                if self.nodes[node].life != life || !self.nodes[node].up {
                    return Ok(());
                }
                let reply = self.sign(node, *request);
                let mentioned = match &reply {
                    Ok(keyd::Reply::Signature(_)) => self.watch.signed.take().unwrap_or_default(),
                    _ => Vec::new(),
                };
                self.observed(node, &mentioned, |mesh, now| mesh.on_keyd(ticket, reply, now))
            }
            Event::Found { node, hash } => {
                let found = self.by_hash.get(&hash).copied().ok_or_else(|| "KEY_NOT_FOUND".to_owned());
                self.observed(node, &[], |mesh, now| mesh.on_found(hash, found, now))
            }
            Event::Look => {
                self.look()?;
                self.at(LOOK, Event::Look);
                Ok(())
            }
            Event::Script(step) => self.step(step),
        }
    }

    /// Has a node see an event that speaks of some nodes, and checks what it has come to believe.
    fn observed(
        &mut self,
        index: usize,
        mentioned: &[NodeId],
        event: impl FnOnce(&mut Mesh, Now),
    ) -> Result<(), Failure> {
        let now = self.clock(index);
        let node = &mut self.nodes[index];
        let mut all = vec![node.id];
        all.extend(mentioned.iter().filter(|other| **other != node.id));
        all.sort_unstable();
        all.dedup();
        let before = self.ledger.before(&node.mesh, all);
        let begun = cpu_time();
        event(&mut node.mesh, now);
        self.cpu += cpu_time().saturating_sub(begun);
        let node = &self.nodes[index];
        // Whoever has left or was revoked has forgotten everything.
        if node.mesh.network().is_some() {
            let checked = self.ledger.check(&before, &node.id, &node.mesh, now);
            checked.map_err(|what| self.failure(index, what))?;
            if let Some(honest) = node.mesh.banned().find(|banned| !self.is_liar(banned)) {
                return Err(self.failure(index, format!("it has banned {honest}, an honest member")));
            }
        }
        self.settle(index);
        self.broken.take().map_or(Ok(()), |what| Err(self.failure(index, what)))
    }

    fn is_liar(&self, node: &NodeId) -> bool {
        self.by_id.get(node).is_some_and(|place| self.liars.contains(place))
    }

    /// Carries out what a node wants.
    pub(super) fn settle(&mut self, index: usize) {
        let turn = self.nodes[index].mesh.take_turn();
        if turn.save && self.nodes[index].disk.is_some() {
            self.keep_disk(index);
        }
        for action in turn.actions {
            match action {
                Action::Send { to, message, .. } => self.send(index, &to, message),
                Action::LookUp(hash) => {
                    let delay = self.net.delay();
                    self.at(delay, Event::Found { node: index, hash });
                }
                Action::Ask(ticket, request) => {
                    let life = self.nodes[index].life;
                    self.at(KEYD, Event::Keyd { node: index, life, ticket, request });
                }
                Action::Answer(_, result) => self.answers.push(*result),
            }
        }
        let started = self.nodes[index].started;
        if let Some(at) = self.nodes[index].mesh.wake_at() {
            let at = (started + at).max(self.now);
            if at < self.nodes[index].wake {
                self.nodes[index].wake = at;
                self.at(at - self.now, Event::Wake(index));
            }
        }
    }

    fn send(&mut self, from: usize, to: &Destination, bytes: Vec<u8>) {
        let parcel = Rc::new(self.parcel(from, bytes));
        if let Some(place) = self.by_control.get(to).copied() {
            if self.liars.contains(&place) && self.recorded.len() < RECORDED {
                self.recorded.push((from, Rc::clone(&parcel)));
            }
            self.deliver(from, place, &parcel);
        }
    }

    /// A datagram with what it speaks of; it is counted as sent.
    pub(super) fn parcel(&mut self, from: usize, bytes: Vec<u8>) -> Parcel {
        let Ok(Datagram { message, .. }) = Datagram::from_bytes(&bytes) else {
            return Parcel { bytes, mentioned: Vec::new() };
        };
        if self.measuring && !self.liars.contains(&from) {
            let traffic = self.traffic.entry(message.kind()).or_default();
            traffic.count += 1;
            traffic.bytes += (bytes.len() + ENVELOPE) as u64;
            self.nodes[from].sent += (bytes.len() + ENVELOPE) as u64;
            for (kind, len) in message.gossip().into_iter().flat_map(contents) {
                let carried = self.carried.entry(kind).or_default();
                carried.count += 1;
                carried.bytes += len as u64;
            }
        }
        let span = (self.now.as_secs() / SPAN.as_secs()) as usize;
        if self.spans.len() <= span {
            self.spans.resize(span + 1, 0);
        }
        self.spans[span] += (bytes.len() + ENVELOPE) as u64;
        let mentioned = match (&message, message.gossip()) {
            (_, Some(gossip)) => {
                let of = |item: &Item| match item {
                    Item::Record(record) => vec![record.value.node],
                    Item::Pulse(pulse) => vec![pulse.value.node],
                    Item::Accusation(accusation) => vec![accusation.value.subject],
                    Item::Revocation(revocation) => self.ledger.below(revocation.value.subject()).to_vec(),
                };
                gossip.items.iter().flat_map(of).collect()
            }
            (Message::JoinReply(JoinReply::Welcome(welcome)), _) => {
                welcome.records.iter().map(|record| record.value.node).collect()
            }
            _ => Vec::new(),
        };
        Parcel { bytes, mentioned }
    }

    /// Puts a datagram on its way.
    pub(super) fn deliver(&mut self, from: usize, to: usize, parcel: &Rc<Parcel>) {
        for byte in self.now.as_nanos().to_le_bytes().iter().chain(&parcel.bytes) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for delay in self.net.send(from, to) {
            self.at(delay, Event::Datagram { to, from, parcel: Rc::clone(parcel) });
        }
    }

    /// What `keyd` answers, by its own policies. Whom a signature concerns is left for the check of what follows.
    pub(super) fn sign(&mut self, index: usize, request: keyd::Request) -> Result<keyd::Reply, ApiError> {
        let unix = self.unix();
        let secret = InviteSecret(self.rng.random());
        let signer = &mut self.nodes[index].signer;
        self.watch.signed = None;
        Ok(match request {
            keyd::Request::SignCharter(charter) => {
                keyd::Reply::Signature(signer.sign_charter(&charter, unix)?)
            }
            keyd::Request::SignRecord(record) => {
                let signature = signer.sign_record(&record, unix)?;
                self.ledger.record(&record);
                keyd::Reply::Signature(signature)
            }
            keyd::Request::SignPulse(pulse) => {
                let signature = signer.sign_pulse(&pulse, unix)?;
                self.ledger.pulse(&pulse);
                keyd::Reply::Signature(signature)
            }
            keyd::Request::SignAccusation(accusation) => {
                let signature = signer.sign_accusation(&accusation, unix)?;
                self.ledger.accusation(&accusation);
                self.watch.signed = Some(vec![accusation.subject]);
                keyd::Reply::Signature(signature)
            }
            keyd::Request::SignRevocation(revocation) => {
                let signature = signer.sign_revocation(&revocation, unix)?;
                self.ledger.revocation(*revocation.subject());
                self.watch.signed = Some(self.ledger.below(revocation.subject()).to_vec());
                keyd::Reply::Signature(signature)
            }
            keyd::Request::SignJoin { body, control } => {
                keyd::Reply::Signature(signer.sign_join(&body, &control, unix)?)
            }
            keyd::Request::CreateInvite(wish) => {
                let (code, grant) = signer.create_invite(&wish, secret, unix)?;
                keyd::Reply::Invite { code, grant }
            }
            keyd::Request::CertifyMember(certify) => {
                let certificate = signer.certify_member(&certify, unix)?;
                let (grant, joiner) = (&certify.grant.value, certify.request.body.value.joiner);
                self.broken = self.ledger.use_invite(grant.key, grant.uses, joiner).err();
                keyd::Reply::Membership(certificate)
            }
            keyd::Request::CertifyWireGuard { network, epoch } => {
                keyd::Reply::WireGuardCertificate(signer.certify_wireguard(network, epoch, unix)?)
            }
            _ => return Err(ApiError::new(ErrorKind::Denied, "not for meshd")),
        })
    }

    /// Honest members that run, by their numbers.
    pub(super) fn honest(&self) -> Vec<usize> {
        let honest = |index: &usize| {
            self.nodes[*index].up
                && !self.liars.contains(index)
                && self.nodes[*index].mesh.network().is_some()
        };
        (0..self.nodes.len()).filter(honest).collect()
    }

    /// Whether a datagram could come from one node to the other, with luck.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        self.nodes[to].up && self.nodes[to].mesh.network().is_some() && !self.net.is_cut(from, to)
    }

    /// Checks everything that nodes believe: of all, or of a thousand of them.
    pub(super) fn check_all(&self) -> Result<(), Failure> {
        let honest = self.honest();
        for place in honest.iter().step_by(honest.len().div_ceil(1000).max(1)) {
            let (node, now) = (&self.nodes[*place], self.clock(*place));
            let (mut addresses, mut keys) = (HashSet::new(), HashSet::new());
            addresses.extend(node.mesh.own_address());
            for peer in node.mesh.peers(now) {
                self.ledger
                    .check_member(&peer.node, &node.id, &node.mesh, now)
                    .map_err(|what| self.failure(*place, what))?;
                if peer.ipv4.is_some_and(|address| !addresses.insert(address))
                    || !keys.insert(peer.public_key)
                {
                    return Err(self.failure(*place, format!("two have the address or key of {}", peer.node)));
                }
            }
        }
        Ok(())
    }
}
