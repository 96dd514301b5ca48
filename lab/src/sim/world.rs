//! The nodes, the time that passes, and what goes between them.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::order::{Executed, Order};
use i2plan_ipc::api::{keyd, meshd};
use i2plan_keyd::keys::Keys;
use i2plan_keyd::memory::{Delegations, Memory, MemoryChange, Pinned};
use i2plan_keyd::policy::Signer;
use i2plan_meshd::core::state::{Delegated, Ending, Membership, Remembered, State};
use i2plan_meshd::core::{Action, Mesh, Now, Settings, Ticket, VerifiedRecord};
use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{
    Destination, DestinationHash, DestinationProof, DestinationRole, ProvenDestination,
};
use i2plan_proto::identity::{NetworkId, NodeId, Signable as _, Signed};
use i2plan_proto::invite::InviteSecret;
use i2plan_proto::join::JoinReply;
use i2plan_proto::membership::{self, Chain, Charter, Delegation, NetworkName};
use i2plan_proto::message::{Datagram, Gossip, Item, Message};
use i2plan_proto::record::{NodeName, Record};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

use super::invariants::{Before, Ledger, MAX_STATE_ENTRY, MAX_STATE_REST};
use super::measured::Watch;
use super::network::Net;
use super::node::{EPOCH, Node};
use super::options::{HEARTBEAT, LOOK, Options, Scenario};
use super::puppets::Liars;
use super::step::ScenarioStep;
use crate::Failure;

/// `keyd` answers after this.
const KEYD: Duration = Duration::from_millis(1);

/// What a repliable datagram adds, bytes.
const ENVELOPE: usize = 455;

/// Members that the founder has invited, at most. Two in three of the others were invited by these, the rest by others,
/// so that chains have one to four links.
const INVITERS: usize = 30;

/// Messages that liars have to replay.
const RECORDED: usize = 2000;

/// The largest network that is in a /16. Larger ones have a /8.
const SMALL: usize = 1000;

/// Actions that one event may lead to, beside one for each member that it removes.
const MAX_ACTIONS: usize = 300;

/// Members that a node may remember, itself included.
const MAX_MEMBERS: usize = 10_001;

/// Nodes whose tables are checked as a whole each time that knowledge is looked at.
const TABLES_CHECKED: usize = 10;

/// For so long datagrams are added up to find the busiest time.
pub(super) const SPAN: Duration = Duration::from_secs(30);

/// A datagram on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) bytes: Vec<u8>,
    /// Of whom something in it speaks that might be news.
    mentioned: Vec<NodeId>,
}

pub(super) enum SimEvent {
    Datagram { to: usize, sender: Destination, parcel: Rc<Parcel> },
    Wake(usize),
    Keyd { node: usize, run: u32, ticket: Ticket, request: Box<keyd::Request> },
    Order { node: usize, run: u32, order: Box<Order> },
    Found { node: usize, hash: DestinationHash },
    Look,
    Script(ScenarioStep),
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
        Item::Liveness(_) => "liveness",
        Item::Suspicion(_) => "suspicion",
        Item::Revocation(_) => "revocation",
        Item::Resignation(_) => "resignation",
    };
    let entries = gossip.entries.iter().map(|entry| ("entry", entry.to_bytes().len()));
    entries.chain(gossip.items.iter().map(move |item| (kind(item), item.to_bytes().len())))
}

pub(super) struct World {
    pub(super) options: Options,
    pub(super) now: Duration,
    pub(super) nodes: Vec<Node>,
    pub(super) by_id: HashMap<NodeId, usize>,
    /// Who takes control messages there.
    pub(super) by_control: HashMap<Destination, usize>,
    by_hash: HashMap<DestinationHash, Destination>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<SimEvent>>,
    free: Vec<usize>,
    sequence: u64,
    pub(super) handled: u64,
    pub(super) net: Net,
    pub(super) rng: StdRng,
    pub(super) watch: Watch,
    pub(super) ledger: Ledger,
    /// What was found broken while something was carried out.
    pub(super) broken: Option<String>,
    /// Of each node, which of the others it has known: a bit for each.
    met: Vec<Vec<u64>>,
    /// The node whose table is checked as a whole next.
    next_table: usize,
    /// The charter of the network.
    pub(super) charter: Charter,
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
    /// What they make up.
    pub(super) lies: Liars,
    /// Who has left or was revoked.
    pub(super) out: Rc<RefCell<HashSet<NodeId>>>,
    /// What liars have got, and from whom.
    pub(super) recorded: Vec<(usize, Rc<Parcel>)>,
    pub(super) answers: Vec<Result<meshd::Reply, ApiError>>,
}

/// Keys of nobody else.
pub(super) fn keys(random: &mut StdRng) -> Keys {
    let mut bytes = Zeroizing::new([0; i2plan_keyd::keys::RANDOM_LEN]);
    random.fill(&mut bytes[..]);
    Keys::generate(&bytes, EPOCH.as_secs())
}

pub(super) fn signer(random: &mut StdRng) -> Signer {
    Signer::volatile(keys(random), (Memory::new(), Delegations::default()))
}

fn refused(error: &ApiError) -> Failure {
    Failure::new(format!("keyd refused: {error}"))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The subnet: the default's size, or one for ten thousand members.
fn subnet(options: &Options) -> Result<Ipv4Subnet, Failure> {
    let (network, prefix) = if options.nodes > SMALL { ([10, 0, 0, 0], 8) } else { ([10, 42, 0, 0], 16) };
    Ipv4Subnet::new(network.into(), prefix).map_err(|error| Failure::new(error.to_string()))
}

/// Some range of so many addresses that an issuer holds and has not delegated; none if there is none.
fn free_range(
    subnet: &Ipv4Subnet,
    chain: &Chain,
    delegated: &[Delegated],
    size: u32,
    rng: &mut StdRng,
) -> Option<AddressRange> {
    let holding = *chain.ranges(subnet).iter().next()?;
    // The first place of each size has the issuer's own address.
    let places = holding.size() / size;
    let start = rng.random_range(0..places.max(1));
    let place = |number: u32| {
        let place = (start + number) % places;
        AddressRange::of_size(holding.first().to_bits() + place * size, size).filter(|_| place > 0)
    };
    (0..places).filter_map(place).find(|range| {
        let is_taken = delegated.iter().any(|other| other.ranges.iter().any(|other| other.overlaps(range)));
        subnet.is_host(range.first()) && !is_taken
    })
}

/// A member of a network that is ready.
struct ReadyMember {
    chain: Chain,
    delegated: Vec<Delegated>,
    /// The highest number that it has used.
    counter: u64,
    /// A second chain with which its addresses are another's, who has them by right.
    rival: Option<usize>,
}

/// How many addresses the member with a number gets of an inviter with so many.
fn size_for(index: usize, held: u64) -> u32 {
    let part = match index {
        1..=INVITERS => 64,
        _ if index < 4 * INVITERS => 16,
        _ => 256,
    };
    let size = (held / part).max(1);
    let most = if index < 4 * INVITERS { u64::from(u32::MAX) } else { 16 };
    u32::try_from(size.min(most)).map_or(1, |size| 1 << size.ilog2())
}

/// The memberships of all, the founder's first.
fn memberships(
    signers: &[Signer],
    charter: &Charter,
    options: &Options,
    rng: &mut StdRng,
) -> Result<Vec<ReadyMember>, Failure> {
    let unix = EPOCH.as_secs();
    let subnet = charter.subnet;
    let founder =
        ReadyMember { chain: Chain::founder(charter), delegated: Vec::new(), counter: 0, rival: None };
    let mut all = vec![founder];
    for index in 1..signers.len() {
        let mut found = None;
        for attempt in 0..1000 {
            let inviter = match index {
                1..=INVITERS => 0,
                _ if attempt > 10 || rng.random_ratio(2, 3) => rng.random_range(1..=INVITERS),
                _ => rng.random_range(1..index.min(4 * INVITERS)),
            };
            let ReadyMember { chain, delegated, rival, .. } = &all[inviter];
            if rival.is_some() {
                continue;
            }
            let size = size_for(index, chain.ranges(&subnet).size());
            if let Some(range) = free_range(&subnet, chain, delegated, size, rng) {
                found = Some((inviter, AddressRanges::from(range)));
                break;
            }
        }
        let (inviter, mut ranges) =
            found.ok_or_else(|| Failure::new("there are no addresses for so many nodes"))?;
        // An inviter whose state was restored from a backup delegates what it has delegated before.
        let mut rival = None;
        if options.scenario == Scenario::Collisions
            && index % 4 == 3
            && let Some(other) = all[inviter].delegated.last()
        {
            rival = signers.iter().position(|signer| signer.keys().node() == other.subject);
            ranges = other.ranges.clone();
        }
        let invite = InviteSecret(rng.random()).key().id();
        let subject = signers[index].keys().node();
        let ReadyMember { chain, delegated, counter, .. } = &mut all[inviter];
        *counter += 1;
        let (serial, since) = (*counter, *counter);
        let grant = Delegation {
            subject,
            invite,
            ranges: ranges.clone(),
            serial,
            since,
            replaces: false,
            issued_at: unix,
        };
        let certificate = chain.certificate(grant);
        let signature = certificate.sign(&signers[inviter].keys().identity());
        let certificate = Signed { value: certificate, signature };
        let extended = chain.extended(&certificate).map_err(|error| Failure::new(error.to_string()))?;
        if rival.is_none() {
            delegated.push(Delegated {
                subject,
                invite,
                ranges,
                replaces: false,
                given_at: unix,
                ended_at: None,
                certificate: Some(certificate),
            });
        }
        all.push(ReadyMember { chain: extended, delegated: Vec::new(), counter: 0, rival });
    }
    Ok(all)
}

/// A destination with the proof that a node uses it.
pub(super) fn proven(keys: &Keys, network: NetworkId, role: DestinationRole) -> ProvenDestination {
    let destination =
        if role == DestinationRole::Data { keys.ephemeral([1; 32]) } else { keys.control().clone() };
    let proof = DestinationProof { network, node: keys.node(), role, destination: destination.public() };
    ProvenDestination { destination: destination.public(), proof: destination.prove(&proof) }
}

impl World {
    /// Members that know each other, as after a long calm life.
    pub(super) fn new(options: Options) -> Result<Self, Failure> {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let unix = EPOCH.as_secs();
        let subnet = subnet(&options)?;
        let mut signers: Vec<Signer> = (0..options.nodes).map(|_| signer(&mut rng)).collect();
        let charter = Charter {
            founder: signers[0].keys().node(),
            name: NetworkName::of_founder(&NodeName::of_host("lab")),
            subnet,
            founded_at: unix,
            nonce: rng.random(),
        };
        let signature = signers[0].sign_charter(&charter, unix).map_err(|error| refused(&error))?;
        let charter = Signed { value: charter, signature };
        let network = charter.value.network();
        let places = memberships(&signers, &charter.value, &options, &mut rng)?;

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
            ledger: Ledger::new(charter.value.clone()),
            broken: None,
            met: Vec::new(),
            next_table: 0,
            charter: charter.value.clone(),
            traffic: BTreeMap::new(),
            carried: BTreeMap::new(),
            spans: Vec::new(),
            measuring: false,
            cpu: Duration::ZERO,
            trace: 0xcbf2_9ce4_8422_2325,
            liars: HashSet::new(),
            lies: Liars::default(),
            out: Rc::default(),
            recorded: Vec::new(),
            answers: Vec::new(),
        };
        let mut known = Vec::new();
        for (index, signer) in signers.iter_mut().enumerate() {
            let wireguard =
                signer.certify_wireguard(network, false, [7; 32], unix).map_err(|error| refused(&error))?;
            let ReadyMember { chain, counter, rival, .. } = &places[index];
            let keys = signer.keys();
            // Just what the node will sign when it starts, so that it says nothing new then.
            let record = Record {
                node: keys.node(),
                sequence: counter + 1,
                issued_at: unix,
                name: format!("node-{index}").parse().map_err(|_| Failure::new("a name"))?,
                control: proven(keys, network, DestinationRole::Primary),
                primary: None,
                takes_reports: true,
                data: proven(keys, network, DestinationRole::Data),
                wireguard,
                chain: chain.clone(),
            };
            let signature = record.sign(&keys.identity());
            if rival.is_some() {
                world.ledger.expose(record.node);
            }
            world.ledger.record(&record);
            let record = VerifiedRecord::new(Signed { value: record, signature }, &charter.value)
                .map_err(|error| Failure::new(error.to_string()))?;
            known.push(Remembered { record, liveness_message: None, created: unix, last_seen: Some(unix) });
        }
        // Of two that have the same addresses each node knows one.
        let rivals: Vec<(usize, usize)> =
            places.iter().enumerate().filter_map(|(index, place)| Some((index, place.rival?))).collect();
        for (index, (signer, place)) in signers.into_iter().zip(places).enumerate() {
            let record = &known[index].record.value;
            // What keyd would remember, had it signed all this.
            let (mut memory, mut delegations) = signer.remembered();
            memory.reserved = place.counter;
            memory.pinned = Some(Pinned { charter: charter.value.clone(), chain: place.chain.clone() });
            for certificate in place.delegated.iter().filter_map(|delegated| delegated.certificate.as_ref()) {
                let membership::Membership { parent, grant, .. } = certificate.value.clone();
                delegations.apply(&MemoryChange::Delegated(parent, grant));
            }
            let signer = Signer::volatile(signer.keys().clone(), (memory, delegations));
            let unknown: HashSet<usize> =
                rivals.iter().map(|(late, early)| if world.rng.random() { *late } else { *early }).collect();
            let members = if unknown.is_empty() {
                known.clone()
            } else {
                let mut members = known.iter().enumerate().filter(|(other, _)| !unknown.contains(other));
                members.by_ref().map(|(_, member)| member.clone()).collect()
            };
            let state = State {
                node: record.node,
                counter: place.counter,
                membership: Some(Membership {
                    charter: charter.clone(),
                    chain: place.chain,
                    epoch: Some(record.wireguard.value.epoch),
                }),
                former: None,
                invites: Vec::new(),
                delegations: place.delegated,
                members,
                endings: Vec::new(),
                bans: Vec::new(),
            };
            world.add(signer, state, subnet)?;
        }
        world.lies.rivals = rivals;
        for index in 0..world.nodes.len() {
            world.meet(index);
        }
        Ok(world)
    }

    /// Notes whom a node knows, whomever it has known before.
    fn meet(&mut self, index: usize) {
        let mesh = &self.nodes[index].mesh;
        let mut met = vec![0; self.nodes.len().div_ceil(64)];
        for (place, node) in self.nodes.iter().enumerate() {
            if mesh.record_of(&node.id).is_some() {
                met[place / 64] |= 1 << (place % 64);
            }
        }
        if self.met.len() <= index {
            self.met.resize(index + 1, Vec::new());
        }
        self.met[index] = met;
    }

    /// A node knows another, or not; returns whether it did before.
    fn now_knows(&mut self, index: usize, other: usize, knows: bool) -> bool {
        if self.met.len() <= index {
            self.met.resize(index + 1, Vec::new());
        }
        let met = &mut self.met[index];
        if met.len() <= other / 64 {
            met.resize(other / 64 + 1, 0);
        }
        let (bits, bit) = (&mut met[other / 64], 1 << (other % 64));
        let before = *bits & bit != 0;
        *bits = if knows { *bits | bit } else { *bits & !bit };
        before
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
        let identity = keyd::Identity { node: id, control, sealed: false, remembers: true };
        let now = Now { monotonic: Duration::ZERO, unix: EPOCH + self.now };
        let mut mesh = Mesh::new(identity, settings.clone(), state, self.rng.random(), now);
        mesh.handle_data_session(data);
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
            run: 0,
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
        node.run += 1;
        node.started = self.now;
        node.wake = Duration::MAX;
        let identity =
            keyd::Identity { node: node.id, control: node.control, sealed: false, remembers: true };
        let now = Now { monotonic: Duration::ZERO, unix: EPOCH + self.now };
        node.mesh = Mesh::new(identity, node.settings.clone(), state, seed, now);
        node.mesh.handle_data_session(node.data);
        self.settle(index);
        self.meet(index);
    }

    pub(super) fn at(&mut self, after: Duration, event: SimEvent) {
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

    fn handle(&mut self, event: SimEvent) -> Result<(), Failure> {
        match event {
            SimEvent::Datagram { to, sender, parcel } => {
                if !self.nodes[to].up {
                    return Ok(());
                }
                let mentioned = &parcel.mentioned;
                self.observed(to, mentioned, |mesh, now| mesh.handle_datagram(&sender, &parcel.bytes, now))
            }
            SimEvent::Wake(index) => {
                // One that was set for later than another since is of no use any more.
                if self.nodes[index].wake != self.now || !self.nodes[index].up {
                    return Ok(());
                }
                self.nodes[index].wake = Duration::MAX;
                let now = self.clock(index);
                if self.nodes[index].mesh.poll_timeout().is_none_or(|at| at > now.monotonic) {
                    self.settle(index);
                    return Ok(());
                }
                self.observed(index, &[], Mesh::handle_timeout)
            }
            SimEvent::Keyd { node, run, ticket, request } => {
                if self.nodes[node].run != run || !self.nodes[node].up {
                    return Ok(());
                }
                let reply = self.sign(node, *request);
                let mentioned = match &reply {
                    Ok(keyd::Reply::Signature(_) | keyd::Reply::Record(_)) => {
                        self.watch.signed.take().unwrap_or_default()
                    }
                    _ => Vec::new(),
                };
                self.observed(node, &mentioned, |mesh, now| mesh.handle_keyd_reply(ticket, reply, now))
            }
            SimEvent::Order { node, run, order } => {
                if self.nodes[node].run != run || !self.nodes[node].up {
                    return Ok(());
                }
                // An administrator confirms it.
                let random = self.rng.random();
                let unix = self.unix();
                let executed = match self.nodes[node].signer.execute(&order, random, unix) {
                    Ok(executed) => executed,
                    Err(error) => {
                        self.answers.push(Err(error));
                        return Ok(());
                    }
                };
                let endings: Vec<Ending> = match &executed {
                    Executed::Revocations(revocations) => {
                        revocations.iter().cloned().map(Box::new).map(Ending::Revocation).collect()
                    }
                    Executed::Resignation(resignation) => vec![Ending::Resignation(resignation.clone())],
                    _ => Vec::new(),
                };
                let mentioned: Vec<NodeId> = endings.iter().map(Ending::id).collect();
                endings.into_iter().for_each(|ending| self.ledger.ending(ending));
                self.observed(node, &mentioned, |mesh, now| mesh.enact(1, executed, now))
            }
            SimEvent::Found { node, hash } => {
                let found = self.by_hash.get(&hash).copied().ok_or_else(|| "KEY_NOT_FOUND".to_owned());
                self.observed(node, &[], |mesh, now| mesh.handle_lookup(hash, found, now))
            }
            SimEvent::Look => {
                self.look()?;
                self.at(LOOK, SimEvent::Look);
                Ok(())
            }
            SimEvent::Script(step) => self.step(step),
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
        let (size, was_member) = (node.mesh.size(), node.mesh.network().is_some());
        let begun = cpu_time();
        let outcome = catch_unwind(AssertUnwindSafe(|| event(&mut node.mesh, now)));
        self.cpu += cpu_time().saturating_sub(begun);
        if outcome.is_err() {
            return Err(self.failure(index, "property 3: it has panicked"));
        }
        let actions = self.settle(index);
        if self.liars.contains(&index) {
            self.broken = None;
            return Ok(());
        }
        self.check(index, &before, was_member)?;
        let removed = size.saturating_sub(self.nodes[index].mesh.size());
        if actions > MAX_ACTIONS + removed {
            return Err(self.failure(index, format!("property 3: an event has led to {actions} actions")));
        }
        self.broken.take().map_or(Ok(()), |what| Err(self.failure(index, what)))
    }

    /// Checks what an honest node has come to believe.
    fn check(&mut self, index: usize, before: &Before, was_member: bool) -> Result<(), Failure> {
        let (node, now) = (&self.nodes[index], self.clock(index));
        if node.mesh.network().is_none() {
            let legitimate = self.ledger.is_out(&node.id) || !self.ledger.is_protected(&node.id);
            if was_member && !legitimate {
                return Err(self.failure(index, "property 1: it is no member any more"));
            }
            return Ok(());
        }
        let explained =
            self.ledger.check(before, &node.id, &node.mesh, now).map_err(|what| self.failure(index, what))?;
        if self.ledger.is_protected(&node.id) && node.mesh.local_address() != self.ledger.address(&node.id) {
            return Err(self.failure(index, "property 2: its own address has changed"));
        }
        if let Some(honest) = node.mesh.banned().find(|banned| !self.is_liar(banned)) {
            return Err(self.failure(index, format!("property 4: it has banned {honest}, an honest member")));
        }
        if node.mesh.size() > MAX_MEMBERS {
            return Err(self.failure(index, "property 3: it remembers too many members"));
        }
        if explained {
            for other in before.mentioned() {
                if let Some(place) = self.by_id.get(other).copied() {
                    self.check_known(index, place)?;
                }
            }
            return Ok(());
        }
        for place in 0..self.nodes.len() {
            self.check_known(index, place)?;
        }
        Ok(())
    }

    /// Checks that a node has not forgotten another that is a member.
    fn check_known(&mut self, index: usize, place: usize) -> Result<(), Failure> {
        if index == place {
            return Ok(());
        }
        let other = self.nodes[place].id;
        let knows = self.nodes[index].mesh.record_of(&other).is_some();
        let knew = self.now_knows(index, place, knows);
        if knew && !knows && self.ledger.is_protected(&other) && !self.ledger.is_out(&other) {
            let what = format!("property 1: to it node {place} ({other}) is no member any more");
            return Err(self.failure(index, what));
        }
        Ok(())
    }

    /// Whether nothing is expected of a node: it lies, or was made up.
    fn is_liar(&self, node: &NodeId) -> bool {
        self.by_id.get(node).is_none_or(|place| self.liars.contains(place))
    }

    /// Checks the whole tables of some nodes, of others each time.
    pub(super) fn check_tables(&mut self) -> Result<(), Failure> {
        let honest = self.honest();
        for number in 0..TABLES_CHECKED.min(honest.len()) {
            let place = honest[(self.next_table + number) % honest.len()];
            self.check_table(place)?;
        }
        if let Some(place) = honest.get(self.next_table % honest.len().max(1)).copied() {
            self.check_state(place)?;
        }
        self.next_table += TABLES_CHECKED;
        Ok(())
    }

    /// Checks the size of what a node saves.
    fn check_state(&self, place: usize) -> Result<(), Failure> {
        let state = self.nodes[place].mesh.state();
        let entries =
            state.members.len() + state.endings.len() + state.delegations.len() + state.invites.len();
        let (len, most) = (state.to_bytes().len(), entries * MAX_STATE_ENTRY + MAX_STATE_REST);
        let by_founder =
            state.endings.iter().filter(|ending| *ending.signer() == self.charter.founder).count();
        if state.endings.len() > MAX_MEMBERS + by_founder || len > most {
            let (members, endings) = (state.members.len(), state.endings.len());
            let what =
                format!("property 3: its state has {len} bytes with {members} members and {endings} endings");
            return Err(self.failure(place, what));
        }
        Ok(())
    }

    /// Checks to whom a node sends the packets for each member that it knows.
    fn check_table(&self, place: usize) -> Result<(), Failure> {
        let (node, now) = (&self.nodes[place], self.clock(place));
        let (mut addresses, mut keys) = (HashMap::new(), HashSet::new());
        for peer in node.mesh.peers(now) {
            self.ledger
                .check_member(&peer.node, &node.id, &node.mesh, now)
                .map_err(|what| self.failure(place, what))?;
            let same = addresses.insert(peer.ipv4(), (peer.node, peer.public_key()));
            if same.is_some() || !keys.insert(peer.public_key()) {
                let what = format!("property 2: two have the address or key of {}", peer.node);
                return Err(self.failure(place, what));
            }
        }
        for other in self.nodes.iter().filter(|other| other.id != node.id) {
            let Some(record) = node.mesh.record_of(&other.id) else { continue };
            let is_banned = node.mesh.banned().any(|banned| banned == other.id);
            // Who has lost its own address still has it itself.
            let is_own = node.mesh.local_address() == self.ledger.address(&other.id);
            if !self.ledger.is_protected(&other.id) || self.ledger.is_out(&other.id) || is_banned || is_own {
                continue;
            }
            let key = self.ledger.wireguard_key(&record.value);
            let address = self.ledger.address(&other.id);
            let routed = address.and_then(|address| addresses.get(&address));
            if routed != Some(&(other.id, key)) {
                let what = format!("property 2: it does not route {address:?} to {}", other.id);
                return Err(self.failure(place, what));
            }
        }
        Ok(())
    }

    /// Carries out what a node wants. Returns how many things that are.
    pub(super) fn settle(&mut self, index: usize) -> usize {
        let turn = self.nodes[index].mesh.poll_turn();
        if turn.save && self.nodes[index].disk.is_some() {
            self.keep_disk(index);
        }
        let count = turn.actions.len();
        for action in turn.actions {
            match action {
                Action::Send { to, message, .. } => self.send(index, &to, message),
                Action::LookUp(hash) => {
                    let delay = self.net.delay();
                    self.at(delay, SimEvent::Found { node: index, hash });
                }
                Action::Ask(ticket, request) => {
                    let run = self.nodes[index].run;
                    self.at(KEYD, SimEvent::Keyd { node: index, run, ticket, request });
                }
                Action::Answer(_, result) => match *result {
                    Ok(meshd::Reply::ToOrder(proposed)) => {
                        let run = self.nodes[index].run;
                        let order = Box::new(proposed.order);
                        self.at(KEYD, SimEvent::Order { node: index, run, order });
                    }
                    result => self.answers.push(result.map_err(ApiError::from)),
                },
            }
        }
        let started = self.nodes[index].started;
        if let Some(at) = self.nodes[index].mesh.poll_timeout() {
            let at = (started + at).max(self.now);
            if at < self.nodes[index].wake {
                self.nodes[index].wake = at;
                self.at(at - self.now, SimEvent::Wake(index));
            }
        }
        count
    }

    fn send(&mut self, from: usize, to: &Destination, bytes: Vec<u8>) {
        let parcel = Rc::new(self.parcel(from, bytes));
        let Some(place) = self.by_control.get(to).copied() else {
            let what = || format!("property 6: it sends to {}, which no member has proven", to.hash().b32());
            self.broken.get_or_insert_with(what);
            return;
        };
        if self.liars.contains(&place) && !self.liars.contains(&from) && self.recorded.len() < RECORDED {
            self.recorded.push((from, Rc::clone(&parcel)));
        }
        self.deliver(from, self.nodes[from].control, place, &parcel);
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
        if self.liars.contains(&from) {
            return Parcel { mentioned: self.mentioned(&message), bytes };
        }
        let span = (self.now.as_secs() / SPAN.as_secs()) as usize;
        if self.spans.len() <= span {
            self.spans.resize(span + 1, 0);
        }
        self.spans[span] += (bytes.len() + ENVELOPE) as u64;
        Parcel { mentioned: self.mentioned(&message), bytes }
    }

    /// Of whom a message speaks.
    fn mentioned(&self, message: &Message) -> Vec<NodeId> {
        match (message, message.gossip()) {
            (_, Some(gossip)) => {
                let of = |item: &Item| match item {
                    Item::Record(record) => record.value.node,
                    Item::Liveness(liveness_message) => liveness_message.value.node,
                    Item::Suspicion(suspicion) => suspicion.value.subject,
                    Item::Revocation(revocation) => Ending::Revocation(revocation.clone()).id(),
                    Item::Resignation(resignation) => Ending::Resignation(resignation.clone()).id(),
                };
                gossip.items.iter().map(of).collect()
            }
            (Message::JoinReply(JoinReply::Welcome(welcome)), _) => {
                welcome.records.iter().map(|record| record.value.node).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Puts a datagram on its way.
    pub(super) fn deliver(&mut self, from: usize, sender: Destination, to: usize, parcel: &Rc<Parcel>) {
        for byte in self.now.as_nanos().to_le_bytes().iter().chain(&parcel.bytes) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for delay in self.net.send(from, to) {
            self.at(delay, SimEvent::Datagram { to, sender, parcel: Rc::clone(parcel) });
        }
    }

    /// What `keyd` answers, by its own policies. Whom a signature concerns is left for the check of what follows.
    pub(super) fn sign(&mut self, index: usize, request: keyd::Request) -> Result<keyd::Reply, ApiError> {
        let unix = self.unix();
        let random = self.rng.random();
        let asked = request.clone();
        if let keyd::Request::CertifyMember(certify) = &asked {
            // More join in a day than keyd lets in without an order.
            let allow = Order::AllowInvite(certify.grant.clone());
            self.nodes[index].signer.execute(&allow, random, unix)?;
        }
        let reply = self.nodes[index].signer.answer(request, random, unix)?;
        self.watch.signed = None;
        match (&asked, &reply) {
            (_, keyd::Reply::Record(record)) => self.ledger.record(&record.value),
            (_, keyd::Reply::Liveness(liveness_message)) => {
                self.ledger.liveness_message(&liveness_message.value);
            }
            (keyd::Request::SignAccusation(suspicion), _) => {
                self.ledger.suspicion(suspicion);
                self.watch.signed = Some(vec![suspicion.subject]);
            }
            (keyd::Request::CertifyMember(certify), _) => {
                let (grant, joiner) = (&certify.grant.value, certify.request.body.value.joiner);
                self.broken = self.ledger.use_invite(grant.key, grant.uses, joiner).err();
            }
            _ => {}
        }
        Ok(reply)
    }

    /// Honest members that run, and whose inviters are all honest, by their numbers.
    pub(super) fn honest(&self) -> Vec<usize> {
        let honest = |index: &usize| {
            let node = &self.nodes[*index];
            node.up
                && !self.liars.contains(index)
                && node.mesh.network().is_some()
                && (self.liars.is_empty() || self.ledger.is_protected(&node.id))
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
            self.check_table(*place)?;
            self.check_state(*place)?;
        }
        Ok(())
    }
}
