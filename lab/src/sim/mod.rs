//! Large meshes in virtual time: the daemon's own core, the real policies of `keyd`, and a modelled I2P between them.
//!
//! All that happens follows from the seed. What is measured: how long news takes to reach the members, what that
//! costs, and who is wrongly held to be out of reach. What must always hold is checked while it runs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use i2plan_ipc::api::{keyd, meshd};
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_keyd::keys::Keys;
use i2plan_keyd::policy::Signer;
use i2plan_meshd::core::state::{Membership, Remembered, State};
use i2plan_meshd::core::{Action, Mesh, Now, Settings, Ticket};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteSecret, Uses};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest};
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::message::{Gossip, Item, Message};
use i2plan_proto::record::Record;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::Failure;

pub mod network;

use network::Net;

/// When the simulation begins, Unix time.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// How long members run before anything is measured.
const WARM_UP: Duration = Duration::from_secs(120);

/// How often news is looked for, and how often verdicts and one node's whole table are checked.
const LOOK: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(30);

/// `keyd` answers after this.
const KEYD: Duration = Duration::from_millis(1);

/// What a repliable datagram adds, bytes.
const ENVELOPE: usize = 455;

/// Interval of a gossip round: the configuration's default heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Members that a node of the first generation has invited, at most: it keeps chains short.
const INVITERS: usize = 30;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// One joins, one changes its name, one leaves, one is revoked
    Calm,
    /// The same while a third of the nodes restart
    Restarts,
    /// Half are cut off for ten minutes
    Partition,
    /// A fifth more join at once
    Joins,
    /// Twenty members forge, replay, flood and lie
    Malicious,
    /// Addresses collide by the dozen
    Collisions,
    /// The same as calm, without the founder
    FounderGone,
}

/// What is to be simulated.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Options {
    /// Members at the beginning.
    pub nodes: usize,
    /// Everything follows from it.
    pub seed: u64,
    /// How likely a datagram is lost.
    pub loss: f64,
    /// What happens.
    pub scenario: Scenario,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    options: Options,
    /// Virtual seconds after the warm-up.
    seconds: f64,
    news: Vec<NewsReport>,
    /// Pairs of nodes, looked at every half minute, of which one held the other, which was there, to be out of reach;
    /// for each node and hour.
    false_verdicts: f64,
    /// Bytes that a node has sent in a second, by kind of message, without and with what I2P adds.
    bytes_per_second: BTreeMap<&'static str, f64>,
    bytes_per_second_total: f64,
    bytes_per_second_i2p: f64,
    bytes_per_second_i2p_p99: f64,
    /// Of the whole process, by the number of nodes; bytes.
    memory_per_node: u64,
    cpu_seconds_per_hour: f64,
    /// Of all datagrams, in their order.
    trace: String,
}

/// How some news spread.
#[derive(Debug, Clone, Serialize)]
struct NewsReport {
    what: &'static str,
    /// Seconds until 50, 99 and 100 % of those who should know it did; none if they never did.
    half: Option<f64>,
    most: Option<f64>,
    all: Option<f64>,
    /// The same in rounds of gossip.
    all_rounds: Option<f64>,
}

enum Event {
    Datagram { to: usize, from: Destination, bytes: Vec<u8> },
    Wake(usize),
    Keyd { node: usize, life: u32, ticket: Ticket, request: Box<keyd::Request> },
    Found { node: usize, hash: DestinationHash },
    Look,
    Sweep,
    Script(usize),
}

struct Node {
    mesh: Mesh,
    signer: Signer,
    control: Destination,
    data: Destination,
    disk: Vec<u8>,
    wake: Duration,
    up: bool,
    /// Grows with every restart: what is answered later is not for the new one.
    life: u32,
    started: Duration,
    sent: u64,
    settings: Settings,
}

/// Whether a node knows it.
type Known = Box<dyn Fn(&Node, Now) -> bool>;

/// What is waited for.
struct News {
    what: &'static str,
    since: Duration,
    known: Known,
    /// Who should know it.
    audience: HashSet<usize>,
    told: HashSet<usize>,
    times: Vec<f64>,
}

struct World {
    options: Options,
    now: Duration,
    nodes: Vec<Node>,
    places: HashMap<Destination, usize>,
    by_hash: HashMap<DestinationHash, Destination>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    sequence: u64,
    net: Net,
    rng: StdRng,
    news: Vec<News>,
    /// What each identity has really signed: the newest sequence number of its words.
    signed: HashMap<NodeId, u64>,
    welcomes: HashMap<[u8; 32], HashSet<NodeId>>,
    bytes: BTreeMap<&'static str, u64>,
    measuring: Option<Duration>,
    verdicts: u64,
    looks: u64,
    trace: u64,
    liars: HashSet<usize>,
    recorded: Vec<Vec<u8>>,
    out: HashSet<NodeId>,
    answers: Vec<Result<meshd::Reply, ApiError>>,
}

/// Runs a simulation.
///
/// # Errors
/// If something that must always hold does not; with the seed, the time and the node.
pub fn run(options: Options) -> Result<Report, Failure> {
    let mut world = World::new(options)?;
    if options.scenario == Scenario::Collisions {
        world.step(10)?;
    }
    world.at(LOOK, Event::Look);
    world.at(SWEEP, Event::Sweep);
    world.run_until(WARM_UP)?;
    let cpu = cpu_time();
    world.measuring = Some(world.now);
    for node in &mut world.nodes {
        node.sent = 0;
    }
    let end = world.script();
    world.run_until(end)?;
    world.check_all()?;
    Ok(world.report(cpu_time().saturating_sub(cpu)))
}

fn signer(random: &mut StdRng) -> Signer {
    let mut bytes = Zeroizing::new([0; i2plan_keyd::keys::RANDOM_LEN]);
    random.fill(&mut bytes[..]);
    Signer::new(Keys::generate(&bytes, EPOCH.as_secs()))
}

fn refused(error: &ApiError) -> Failure {
    Failure::new(format!("keyd refused: {error}"))
}

impl World {
    /// Members that know each other, as after a long calm life.
    fn new(options: Options) -> Result<Self, Failure> {
        if !(2..=20_000).contains(&options.nodes) || !(0.0..=0.9).contains(&options.loss) {
            return Err(Failure::new(
                "a simulation has 2 to 20000 nodes and loses 0 to 90 % of its datagrams",
            ));
        }
        let mut rng = StdRng::seed_from_u64(options.seed);
        let unix = EPOCH.as_secs();
        // A quarter more addresses than members make collisions by the dozen.
        let prefix = if options.scenario == Scenario::Collisions {
            u8::try_from(31 - (options.nodes * 5 / 4 + 2).ilog2()).unwrap_or(16).clamp(16, 29)
        } else {
            16
        };
        let subnet = Ipv4Subnet::new([10, 42, 0, 0].into(), prefix)
            .map_err(|error| Failure::new(error.to_string()))?;
        let mut signers: Vec<Signer> = (0..options.nodes).map(|_| signer(&mut rng)).collect();
        let charter = Charter { founder: signers[0].keys().node(), subnet, founded_at: unix };
        let signature = signers[0].sign_charter(&charter, unix).map_err(|error| refused(&error))?;
        let charter = Signed { value: charter, signature };
        let network = charter.value.network();

        let mut chains = vec![Chain::founder(charter.value.founder)];
        for index in 1..options.nodes {
            let inviter = if index <= INVITERS { 0 } else { 1 + rng.random_range(0..INVITERS) };
            let secret = InviteSecret(rng.random());
            let wish = keyd::CreateInvite { network, expires_at: unix + 3600, uses: Uses::Unlimited };
            let (_, grant) = signers[inviter]
                .create_invite(&wish, InviteSecret(secret.0), unix)
                .map_err(|error| refused(&error))?;
            let body = JoinBody {
                network,
                inviter: signers[inviter].keys().node(),
                invite: secret.key(),
                joiner: signers[index].keys().node(),
                control: signers[index].keys().control().public().hash(),
                issued_at: unix,
            };
            let signature = signers[index].sign_join(&body, unix).map_err(|error| refused(&error))?;
            let proof = body.prove(&secret.signing_key());
            let request = JoinRequest { body: Signed { value: body, signature }, proof };
            let certify = keyd::CertifyMember { grant, request };
            let certificate =
                signers[inviter].certify_member(&certify, unix).map_err(|error| refused(&error))?;
            chains.push(
                chains[inviter].extended(&certificate).map_err(|error| Failure::new(error.to_string()))?,
            );
        }
        let mut records = Vec::new();
        for (index, signer) in signers.iter_mut().enumerate() {
            let wireguard = signer.certify_wireguard(network, None, unix).map_err(|error| refused(&error))?;
            let data = signer.keys().ephemeral([1; 32]).public();
            let record = Record {
                node: signer.keys().node(),
                sequence: unix * 1000,
                issued_at: unix,
                name: format!("node-{index}").parse().map_err(|_| Failure::new("a name"))?,
                control: signer.keys().control().public(),
                data,
                ipv4: subnet.address_of(&signer.keys().node(), 0),
                wireguard,
                chain: chains[index].clone(),
            };
            let signature = signer.sign_record(&record, unix).map_err(|error| refused(&error))?;
            records.push(Signed { value: record, signature });
        }
        let known: Vec<Remembered> = records
            .iter()
            .map(|record| Remembered {
                record: record.clone(),
                pulse: None,
                created: unix,
                last_seen: Some(unix),
            })
            .collect();
        let states = records.iter().enumerate().map(|(index, record)| State {
            node: record.value.node,
            membership: Some(Membership {
                charter: charter.clone(),
                chain: chains[index].clone(),
                ipv4: record.value.ipv4,
                last_sequence: record.value.sequence,
                epoch: Some(record.value.wireguard.value.epoch),
            }),
            former: None,
            invites: Vec::new(),
            members: known.clone(),
            revocations: Vec::new(),
            bans: Vec::new(),
        });
        let signed = records.iter().map(|record| (record.value.node, record.value.sequence)).collect();
        let mut world = Self {
            options,
            now: Duration::ZERO,
            nodes: Vec::new(),
            places: HashMap::new(),
            by_hash: HashMap::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            net: Net::new(options.seed, options.loss),
            rng,
            news: Vec::new(),
            signed,
            welcomes: HashMap::new(),
            bytes: BTreeMap::new(),
            measuring: None,
            verdicts: 0,
            looks: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            liars: HashSet::new(),
            recorded: Vec::new(),
            out: HashSet::new(),
            answers: Vec::new(),
        };
        for (signer, state) in signers.into_iter().zip(states) {
            world.add(signer, state, subnet)?;
        }
        Ok(world)
    }

    fn add(&mut self, signer: Signer, state: State, subnet: Ipv4Subnet) -> Result<usize, Failure> {
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
        let disk = state.to_bytes();
        let identity = keyd::Identity { node: signer.keys().node(), control, sealed: false };
        let now = Now { monotonic: Duration::ZERO, unix: EPOCH + self.now };
        let mut mesh = Mesh::new(identity, settings.clone(), state, self.rng.random(), now);
        mesh.on_data_session(data);
        self.places.insert(control, index);
        self.by_hash.insert(control.hash(), control);
        let started = self.now;
        let wake = Duration::MAX;
        let (up, life, sent) = (true, 0, 0);
        self.nodes.push(Node { mesh, signer, control, data, disk, wake, up, life, started, sent, settings });
        self.settle(index);
        Ok(index)
    }

    fn at(&mut self, after: Duration, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.sequence += 1;
        self.queue.push(Reverse((self.now + after, self.sequence, slot)));
    }

    fn clock(&self, node: usize) -> Now {
        Now { monotonic: self.now - self.nodes[node].started, unix: EPOCH + self.now }
    }

    fn run_until(&mut self, end: Duration) -> Result<(), Failure> {
        while let Some(Reverse((time, _, slot))) = self.queue.peek().copied() {
            if time > end {
                break;
            }
            self.queue.pop();
            self.now = time;
            self.free.push(slot);
            if let Some(event) = self.events[slot].take() {
                self.handle(event)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Datagram { to, from, bytes } => {
                if self.nodes[to].up {
                    let now = self.clock(to);
                    self.nodes[to].mesh.on_datagram(&from, &bytes, now);
                    self.settle(to);
                }
            }
            Event::Wake(index) => {
                let now = self.clock(index);
                let node = &mut self.nodes[index];
                node.wake = Duration::MAX;
                if node.up && node.mesh.wake_at().is_some_and(|at| at <= now.monotonic) {
                    node.mesh.on_time(now);
                }
                if node.up {
                    self.settle(index);
                }
            }
            Event::Keyd { node, life, ticket, request } => {
                if self.nodes[node].life == life && self.nodes[node].up {
                    let reply = self.sign(node, *request);
                    let now = self.clock(node);
                    self.nodes[node].mesh.on_keyd(ticket, reply, now);
                    self.settle(node);
                }
            }
            Event::Found { node, hash } => {
                let found = self.by_hash.get(&hash).copied().ok_or_else(|| "KEY_NOT_FOUND".to_owned());
                let now = self.clock(node);
                self.nodes[node].mesh.on_found(hash, found, now);
                self.settle(node);
            }
            Event::Look => {
                self.look();
                self.at(LOOK, Event::Look);
            }
            Event::Sweep => {
                self.sweep()?;
                self.at(SWEEP, Event::Sweep);
            }
            Event::Script(step) => self.step(step)?,
        }
        Ok(())
    }

    /// Carries out what a node wants.
    fn settle(&mut self, index: usize) {
        let turn = self.nodes[index].mesh.take_turn();
        if let Some(state) = turn.save {
            self.nodes[index].disk = state;
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
        if self.measuring.is_some()
            && let Ok(message) = Message::from_bytes(&bytes)
        {
            *self.bytes.entry(message.kind()).or_default() += bytes.len() as u64;
            self.nodes[from].sent += (bytes.len() + ENVELOPE) as u64;
        }
        if let Ok(Message::JoinReply(JoinReply::Welcome(welcome))) = Message::from_bytes(&bytes) {
            let inviter = self.nodes[from].control.hash().0;
            self.welcomes.entry(inviter).or_default().insert(*welcome.chain.subject());
        }
        if !self.liars.is_empty() && self.recorded.len() < 2000 {
            self.recorded.push(bytes.clone());
        }
        let Some(place) = self.places.get(to).copied() else { return };
        for byte in self.now.as_nanos().to_le_bytes().iter().chain(&bytes) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let sender = self.nodes[from].control;
        for delay in self.net.send(from, place) {
            self.at(delay, Event::Datagram { to: place, from: sender, bytes: bytes.clone() });
        }
    }

    /// What `keyd` answers, by its own policies.
    fn sign(&mut self, index: usize, request: keyd::Request) -> Result<keyd::Reply, ApiError> {
        let unix = (EPOCH + self.now).as_secs();
        let secret = InviteSecret(self.rng.random());
        let signer = &mut self.nodes[index].signer;
        let node = signer.keys().node();
        let word = match &request {
            keyd::Request::SignRecord(record) => Some(record.sequence),
            keyd::Request::SignPulse(pulse) => Some(pulse.sequence),
            _ => None,
        };
        let reply = match request {
            keyd::Request::SignCharter(charter) => {
                keyd::Reply::Signature(signer.sign_charter(&charter, unix)?)
            }
            keyd::Request::SignRecord(record) => keyd::Reply::Signature(signer.sign_record(&record, unix)?),
            keyd::Request::SignPulse(pulse) => keyd::Reply::Signature(signer.sign_pulse(&pulse, unix)?),
            keyd::Request::SignAccusation(accusation) => {
                keyd::Reply::Signature(signer.sign_accusation(&accusation, unix)?)
            }
            keyd::Request::SignRevocation(revocation) => {
                keyd::Reply::Signature(signer.sign_revocation(&revocation, unix)?)
            }
            keyd::Request::SignJoin(body) => keyd::Reply::Signature(signer.sign_join(&body, unix)?),
            keyd::Request::CreateInvite(wish) => {
                let (code, grant) = signer.create_invite(&wish, secret, unix)?;
                keyd::Reply::Invite { code, grant }
            }
            keyd::Request::CertifyMember(certify) => {
                keyd::Reply::Membership(signer.certify_member(&certify, unix)?)
            }
            keyd::Request::CertifyWireGuard { network, epoch } => {
                keyd::Reply::WireGuardCertificate(signer.certify_wireguard(network, epoch, unix)?)
            }
            _ => return Err(ApiError::new(ErrorKind::Denied, "not for meshd")),
        };
        if let Some(word) = word {
            self.signed.insert(node, word);
        }
        Ok(reply)
    }

    fn up(&self) -> HashSet<usize> {
        let honest = |index: &usize| {
            self.nodes[*index].up
                && !self.liars.contains(index)
                && self.nodes[*index].mesh.network().is_some()
        };
        (0..self.nodes.len()).filter(honest).collect()
    }

    fn expect(&mut self, what: &'static str, except: &[usize], known: impl Fn(&Node, Now) -> bool + 'static) {
        let mut audience = self.up();
        for index in except {
            audience.remove(index);
        }
        let since = self.now;
        let (told, times) = (HashSet::new(), Vec::new());
        self.news.push(News { what, since, known: Box::new(known), audience, told, times });
    }

    fn look(&mut self) {
        for index in 0..self.news.len() {
            let news = &self.news[index];
            let waiting: Vec<usize> = news.audience.difference(&news.told).copied().collect();
            for place in waiting {
                let (node, now) = (&self.nodes[place], self.clock(place));
                let news = &self.news[index];
                if node.up && (news.known)(node, now) {
                    let after = (self.now - news.since).as_secs_f64();
                    let news = &mut self.news[index];
                    news.told.insert(place);
                    news.times.push(after);
                }
            }
        }
    }

    /// Verdicts of all nodes, and the whole table of one.
    fn sweep(&mut self) -> Result<(), Failure> {
        let present: HashMap<NodeId, usize> =
            self.nodes.iter().enumerate().map(|(index, node)| (node.signer.keys().node(), index)).collect();
        if self.measuring.is_some() {
            self.looks += 1;
            for here in self.up() {
                for node in self.nodes[here].mesh.unreachable(self.clock(here)) {
                    let there = present.get(&node).copied().unwrap_or(usize::MAX);
                    let reachable = self.nodes.get(there).is_some_and(|node| node.up)
                        && self.net.island.contains(&here) == self.net.island.contains(&there);
                    self.verdicts += u64::from(reachable);
                }
            }
        }
        // One node's whole table at a time: all of them after every event would take longer than the events.
        if let Some(place) = self.some(1).pop() {
            self.check(place)?;
        }
        Ok(())
    }

    /// What must always hold at a node.
    fn check(&self, place: usize) -> Result<(), Failure> {
        let node = &self.nodes[place];
        let now = self.clock(place);
        let broken = |what: String| {
            Failure::new(format!(
                "seed {}, {:.1} s, node {place}: {what}",
                self.options.seed,
                self.now.as_secs_f64()
            ))
        };
        let (mut addresses, mut keys) = (HashSet::new(), HashSet::new());
        addresses.extend(node.mesh.interface().map(|interface| interface.ipv4));
        for peer in node.mesh.peers(now) {
            if peer.ipv4.is_some_and(|address| !addresses.insert(address)) {
                return Err(broken(format!("two have the address of {}", peer.node)));
            }
            if !keys.insert(peer.public_key) {
                return Err(broken(format!("two have the key of {}", peer.node)));
            }
            let word = node.mesh.word_of(&peer.node).unwrap_or(0);
            if self.signed.get(&peer.node).is_none_or(|signed| *signed < word) {
                return Err(broken(format!("{} has never signed word {word}", peer.node)));
            }
        }
        for ban in node.mesh.ban_reports() {
            if node.mesh.peers(now).iter().any(|peer| peer.node.to_string() == ban.node_id) {
                return Err(broken(format!("{} is banned and a peer", ban.node_id)));
            }
        }
        Ok(())
    }

    fn check_all(&self) -> Result<(), Failure> {
        let mut up: Vec<_> = self.up().into_iter().collect();
        up.sort_unstable();
        for place in up {
            self.check(place)?;
        }
        Ok(())
    }

    /// Sets up what happens; returns when it is over.
    fn script(&mut self) -> Duration {
        let minute = Duration::from_secs(60);
        let (steps, end): (Vec<(u32, usize)>, u32) = match self.options.scenario {
            Scenario::Calm => (vec![(0, 0), (8, 1), (16, 2), (24, 3)], 32),
            Scenario::FounderGone => (vec![(0, 9), (2, 0), (10, 1), (18, 2)], 26),
            Scenario::Restarts => (vec![(0, 4), (2, 0), (10, 1), (18, 2), (26, 3)], 34),
            Scenario::Partition => (vec![(0, 5), (5, 1), (10, 6)], 20),
            Scenario::Joins => (vec![(0, 7)], 20),
            Scenario::Malicious => (vec![(0, 8), (2, 0), (10, 1), (18, 2)], 26),
            Scenario::Collisions => (Vec::new(), 10),
        };
        for (at, step) in steps {
            self.at(minute * at, Event::Script(step));
        }
        self.now + minute * end
    }

    fn some(&mut self, count: usize) -> Vec<usize> {
        let mut up: Vec<usize> = self.up().into_iter().filter(|index| *index != 0).collect();
        up.sort_unstable();
        let mut some = up.into_iter().sample(&mut self.rng, count);
        some.sort_unstable();
        some
    }

    fn step(&mut self, step: usize) -> Result<(), Failure> {
        match step {
            0 => self.join(1)?,
            1 => {
                let Some(place) = self.some(1).pop() else { return Ok(()) };
                let now = self.clock(place);
                let name = "renamed".parse().map_err(|_| Failure::new("a name"))?;
                let settings = Settings { name, ..self.nodes[place].settings.clone() };
                self.nodes[place].mesh.reconfigure(settings, now);
                self.settle(place);
                let node = self.nodes[place].signer.keys().node();
                self.expect("change", &[place], move |other, now| {
                    other.mesh.peer_report(&node, now).is_some_and(|peer| peer.name == "renamed")
                });
            }
            2 => {
                let Some(place) = self.some(1).pop() else { return Ok(()) };
                let now = self.clock(place);
                self.nodes[place].mesh.leave(1, now);
                self.settle(place);
                let node = self.nodes[place].signer.keys().node();
                self.expect("leave", &[place], move |other, now| {
                    other.mesh.peer_report(&node, now).is_none()
                });
            }
            3 => {
                let Some(place) = self.some(20).pop() else {
                    return Ok(());
                };
                let node = self.nodes[place].signer.keys().node();
                let now = self.clock(0);
                self.nodes[0].mesh.revoke(1, &node.to_string(), now);
                self.settle(0);
                self.out.insert(node);
                self.expect("revocation", &[place], move |other, now| {
                    other.mesh.peer_report(&node, now).is_none()
                });
            }
            4 => {
                for place in self.some(self.nodes.len() / 3) {
                    let after = Duration::from_secs(self.rng.random_range(0..1500));
                    self.at(after, Event::Script(1000 + 2 * place));
                }
            }
            5 => {
                let half = self.some(self.nodes.len() / 2);
                self.net.island = half.into_iter().collect();
            }
            6 => {
                self.net.island.clear();
                let nodes: Vec<NodeId> = self.nodes.iter().map(|node| node.signer.keys().node()).collect();
                self.expect("agreement after the partition", &[], move |node, now| {
                    let known = nodes.iter().filter(|id| node.mesh.peer_report(id, now).is_some()).count();
                    known + 1 >= nodes.len() && node.mesh.unreachable(now).is_empty()
                });
            }
            7 => self.join(self.nodes.len() / 5)?,
            8 => {
                let count = 20.min(self.nodes.len() / 5);
                self.liars = self.some(count).into_iter().collect();
                self.at(Duration::from_secs(1), Event::Script(999));
            }
            9 => self.nodes[0].up = false,
            10 => {
                self.expect("addresses of their own", &[], |node, now| {
                    let own = node.mesh.interface().map(|interface| interface.ipv4);
                    let peers = node.mesh.peers(now);
                    peers.iter().all(|peer| peer.ipv4.is_some() && peer.ipv4 != own)
                });
            }
            999 => {
                self.lie();
                self.at(Duration::from_secs(1), Event::Script(999));
            }
            step => {
                let place = (step - 1000) / 2;
                if step.is_multiple_of(2) {
                    self.nodes[place].up = false;
                    let away = Duration::from_secs(self.rng.random_range(5..120));
                    self.at(away, Event::Script(step + 1));
                } else {
                    self.restart(place)?;
                }
            }
        }
        Ok(())
    }

    /// Members forge, replay, flood and lie, once a second each.
    fn lie(&mut self) {
        let mut liars: Vec<usize> = self.liars.iter().copied().collect();
        liars.sort_unstable();
        for liar in liars {
            let target = self.rng.random_range(0..self.nodes.len());
            let victim = self.rng.random_range(0..self.nodes.len());
            let victim_id = self.nodes[victim].signer.keys().node();
            let unix = (EPOCH + self.now).as_secs();
            let mut messages = Vec::new();
            match self.rng.random_range(0..4) {
                0 => messages.extend(self.recorded.iter().sample(&mut self.rng, 3).into_iter().cloned()),
                1 => {
                    let index = self.rng.random_range(0..self.recorded.len().max(1));
                    if let Some(mut forged) = self.recorded.get(index).cloned() {
                        let place = self.rng.random_range(0..forged.len());
                        forged[place] ^= 1;
                        messages.push(forged);
                    }
                }
                2 => {
                    let Some(network) = self.nodes[liar].mesh.network() else { continue };
                    let accusation = i2plan_proto::accusation::Accusation {
                        network,
                        accuser: self.nodes[liar].signer.keys().node(),
                        subject: victim_id,
                        sequence: self.nodes[target].mesh.word_of(&victim_id).unwrap_or(u64::MAX),
                        issued_at: unix,
                    };
                    if let Ok(signature) = self.nodes[liar].signer.sign_accusation(&accusation, unix) {
                        let items = vec![Item::Accusation(Signed { value: accusation, signature })];
                        messages.push(Message::News(Gossip { entries: Vec::new(), items }).to_bytes());
                    }
                }
                _ => {
                    let ping = Message::Ping(7, Gossip::default()).to_bytes();
                    messages.extend(std::iter::repeat_n(ping, 50));
                }
            }
            let from = self.nodes[liar].control;
            for bytes in messages {
                for delay in self.net.send(liar, target) {
                    self.at(delay, Event::Datagram { to: target, from, bytes: bytes.clone() });
                }
            }
        }
    }

    /// So many join at once, by invites of members.
    fn join(&mut self, count: usize) -> Result<(), Failure> {
        let subnet = self.nodes[1].settings.subnet;
        let mut joiners = Vec::new();
        for number in 0..count {
            let inviter = 1 + number % INVITERS.min(self.nodes.len() - 1);
            let inviter = if self.nodes[inviter].up && !self.liars.contains(&inviter) { inviter } else { 1 };
            self.answers.clear();
            let now = self.clock(inviter);
            self.nodes[inviter].mesh.create_invite(1, 3600, Some(1), now);
            // keyd's answer is taken at once: what is measured is the mesh.
            let turn = self.nodes[inviter].mesh.take_turn();
            for action in turn.actions {
                if let Action::Ask(ticket, request) = action {
                    let reply = self.sign(inviter, *request);
                    self.nodes[inviter].mesh.on_keyd(ticket, reply, now);
                }
            }
            self.settle(inviter);
            let Some(Ok(meshd::Reply::Invite(invite))) = self.answers.pop() else {
                return Err(Failure::new("a member makes no invite"));
            };
            let fresh = signer(&mut self.rng);
            let state = State::new(fresh.keys().node());
            let joiner = self.add(fresh, state, subnet)?;
            let now = self.clock(joiner);
            self.nodes[joiner].mesh.join(1, invite.invite.expose(), now);
            self.settle(joiner);
            joiners.push(joiner);
        }
        let ids: Vec<NodeId> =
            joiners.iter().map(|joiner| self.nodes[*joiner].signer.keys().node()).collect();
        let what = if count == 1 { "join" } else { "many joins" };
        self.expect(what, &joiners, move |node, now| {
            ids.iter().all(|id| node.mesh.peer_report(id, now).is_some())
        });
        Ok(())
    }

    /// A node starts again from its disk.
    fn restart(&mut self, place: usize) -> Result<(), Failure> {
        let seed = self.rng.random();
        let node = &mut self.nodes[place];
        let id = node.signer.keys().node();
        let state = State::from_bytes(&node.disk, &id).map_err(|error| Failure::new(error.to_string()))?;
        node.up = true;
        node.life += 1;
        node.started = self.now;
        node.wake = Duration::MAX;
        let identity = keyd::Identity { node: id, control: node.control, sealed: false };
        let now = Now { monotonic: Duration::ZERO, unix: EPOCH + self.now };
        node.mesh = Mesh::new(identity, node.settings.clone(), state, seed, now);
        node.mesh.on_data_session(node.data);
        self.settle(place);
        Ok(())
    }

    fn report(self, cpu: Duration) -> Report {
        let since = self.measuring.unwrap_or_default();
        let seconds = (self.now - since).as_secs_f64();
        let count = self.nodes.len() as f64;
        let news = self.news.iter().map(|news| {
            let mut times = news.times.clone();
            times.sort_by(f64::total_cmp);
            // Those that went down meanwhile cannot know.
            let audience = news
                .audience
                .iter()
                .filter(|place| self.nodes[**place].up && self.nodes[**place].mesh.network().is_some());
            let audience = audience.count();
            let part = |part: f64| {
                let needed = (audience as f64 * part).ceil() as usize;
                times.get(needed.saturating_sub(1)).copied()
            };
            let all = part(1.0);
            NewsReport {
                what: news.what,
                half: part(0.5),
                most: part(0.99),
                all,
                all_rounds: all.map(|all| all / HEARTBEAT.as_secs_f64()),
            }
        });
        let per_second = |bytes: u64| bytes as f64 / seconds / count;
        let mut sent: Vec<u64> = self.nodes.iter().map(|node| node.sent).collect();
        sent.sort_unstable();
        let total: u64 = self.bytes.values().sum();
        let percentile = sent.get(sent.len() * 99 / 100).copied().unwrap_or(0);
        Report {
            options: self.options,
            seconds,
            news: news.collect(),
            false_verdicts: self.verdicts as f64 / count / (seconds / 3600.0),
            bytes_per_second: self.bytes.iter().map(|(kind, bytes)| (*kind, per_second(*bytes))).collect(),
            bytes_per_second_total: per_second(total),
            bytes_per_second_i2p: per_second(sent.iter().sum()),
            bytes_per_second_i2p_p99: percentile as f64 / seconds,
            memory_per_node: crate::node::resident(std::process::id()).unwrap_or(0) / self.nodes.len() as u64,
            cpu_seconds_per_hour: cpu.as_secs_f64() / (seconds / 3600.0),
            trace: format!("{:016x}", self.trace),
        }
    }
}

/// CPU time that this process has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Prints a report for people.
pub fn print(report: &Report, started: Instant) {
    let Report { options, seconds, .. } = report;
    println!(
        "{} nodes, {} % loss, seed {}: {:.0} virtual minutes in {:.0} s",
        options.nodes,
        options.loss * 100.0,
        options.seed,
        seconds / 60.0,
        started.elapsed().as_secs_f64()
    );
    let time = |time: Option<f64>| time.map_or("never".to_owned(), |time| format!("{time:.0} s"));
    println!("\n{:<32} {:>8} {:>8} {:>8} {:>8}", "known to", "50 %", "99 %", "all", "rounds");
    for news in &report.news {
        let rounds = news.all_rounds.map_or("-".to_owned(), |rounds| format!("{rounds:.1}"));
        println!(
            "{:<32} {:>8} {:>8} {:>8} {:>8}",
            news.what,
            time(news.half),
            time(news.most),
            time(news.all),
            rounds
        );
    }
    println!("\nfalse verdicts for each node and hour   {:.3}", report.false_verdicts);
    println!(
        "bytes a second sent by each node        {:.0}, with what I2P adds {:.0} (99 % send less than {:.0})",
        report.bytes_per_second_total, report.bytes_per_second_i2p, report.bytes_per_second_i2p_p99
    );
    for (kind, bytes) in &report.bytes_per_second {
        println!("  {kind:<38}{bytes:.1}");
    }
    println!("memory for each node                    {} KiB", report.memory_per_node / 1024);
    println!("CPU time for a virtual hour             {:.0} s", report.cpu_seconds_per_hour);
    println!("trace                                   {}", report.trace);
}
