//! What the mesh guarantees its members, whatever a coalition of members, former members and outsiders does.
//!
//! Each case draws an invitation tree, a history of honest nodes (joins, leaves, revocations, grants, restored backups,
//! wrong clocks, restarts) and a coalition that sends anything to anyone in any order. The cores are real, and so is the
//! policy of `keyd`. For every honest member whose inviters up to the founder are honest it is checked after every step:
//!
//! 1. It stays a member, and the founder stays the founder.
//! 2. It keeps its address, and every honest node that knows it routes that address to it alone.
//! 3. No node panics, and what it remembers is bounded.
//! 4. No honest node bans it.
//! 5. At the end of a history, while the coalition goes on, honest members know each other within [`ROUNDS`].
//! 6. No honest node sends anything to a destination whose owner has not agreed to that.
//! 7. At the end of a history no honest node routes anything to one that honest members have invited and whose membership
//!    has ended, as long as one of them remembers that.
//!
//! `I2PLAN_TRUST_SECONDS` is how long cases are drawn, `I2PLAN_TRUST_SEED` the first of them: with the seed that a failure
//! names, and one second, it is repeated.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::order::Order;
use i2plan_ipc::api::{keyd, meshd};
use i2plan_keyd::keys::Keys;
use i2plan_keyd::memory::{Delegations, Epoch, Memory};
use i2plan_keyd::policy::Signer;
use i2plan_meshd::core::state::State;
use i2plan_meshd::core::{Action, Mesh, Now, Peer, Settings};
use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationProof, DestinationRole, ProvenDestination};
use i2plan_proto::identity::{NetworkId, NodeId, Signable, Signed};
use i2plan_proto::invite::{Invite, InviteId};
use i2plan_proto::join::{JoinBody, JoinRequest};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{CertificateId, Chain, Charter, Delegation, Membership};
use i2plan_proto::message::{self, Content, Datagram, Entry, Gossip, Item, Message, Range};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use zeroize::Zeroizing;

const START: Duration = Duration::from_secs(1_800_000_000);

/// How long cases are drawn if nobody says otherwise, seconds.
const BUDGET: u64 = 45;

/// Heartbeats within which honest members know each other after a history has ended.
const ROUNDS: u32 = 40;

const HEARTBEAT: Duration = Duration::from_secs(30);

/// Actions that one datagram may lead to.
const MAX_ACTIONS: usize = 200;

/// A clock that is wrong by no more than this does no harm, seconds.
const TOLERANCE: i64 = 12 * 3600;

struct Node {
    keys: Keys,
    signer: Signer,
    mesh: Mesh,
    disk: State,
    backups: Vec<State>,
    up: bool,
    /// By how much its clock is wrong, seconds.
    offset: i64,
    honest: bool,
    answer: Option<Result<meshd::Reply, ApiError>>,
    /// The chain by which it is a member, as far as it and honest inviters have agreed to it.
    member: Option<Chain>,
}

/// A certificate that an honest node has signed.
struct Certified {
    issuer: NodeId,
    subject: NodeId,
    ranges: AddressRanges,
    serial: u64,
}

struct World {
    rng: StdRng,
    time: Duration,
    nodes: Vec<Node>,
    flight: VecDeque<(Destination, Destination, Vec<u8>)>,
    charter: Option<Charter>,
    certified: Vec<Certified>,
    /// Last certificates of honest nodes whose memberships have ended.
    ended: HashSet<CertificateId>,
    /// What the coalition has seen.
    chains: Vec<Chain>,
    records: Vec<Signed<Record>>,
    datagrams: Vec<Vec<u8>>,
    invites: Vec<Invite>,
    /// Keys of identities that the coalition has made up.
    sybils: Vec<Keys>,
    /// Destinations of somebody outside the network.
    strangers: Vec<Destination>,
    /// Where honest nodes may send something: destinations of nodes and of the coalition.
    agreed: HashSet<Destination>,
    steps: u64,
    /// Tells what honest nodes do, for whoever repeats a failed case.
    tells: bool,
}

fn keys(number: u64, kind: u8) -> Keys {
    let mut random = Zeroizing::new([kind; 128]);
    for (index, byte) in random.iter_mut().enumerate() {
        *byte ^= number.to_be_bytes()[index % 8].wrapping_mul(31).wrapping_add(u8::try_from(index).unwrap());
    }
    Keys::generate(&random, START.as_secs())
}

fn settings(number: usize, subnet: Ipv4Subnet) -> Settings {
    Settings {
        name: format!("node-{number}").parse().unwrap(),
        subnet,
        heartbeat: HEARTBEAT,
        peer_timeout: Duration::from_secs(300),
        max_peers: 50,
        control_rate: 4000,
        interface: "i2plan0".to_owned(),
        mtu: 1280,
        keepalive: 25,
    }
}

fn signed<T: Signable>(value: T, keys: &Keys) -> Signed<T> {
    let signature = value.sign(&keys.identity());
    Signed { value, signature }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let subnet: Ipv4Subnet = ["10.42.0.0/16", "10.42.0.0/16", "10.0.0.0/8", "10.42.0.0/22"]
            .choose(&mut rng)
            .unwrap()
            .parse()
            .unwrap();
        let count = rng.random_range(5..=9);
        let mut world = Self {
            time: Duration::from_secs(10),
            nodes: Vec::new(),
            flight: VecDeque::new(),
            charter: None,
            certified: Vec::new(),
            ended: HashSet::new(),
            chains: Vec::new(),
            records: Vec::new(),
            datagrams: Vec::new(),
            invites: Vec::new(),
            sybils: (0..4).map(|number| keys(seed << 8 | number, 0x77)).collect(),
            strangers: (0..2).map(|number| keys(seed << 8 | number, 0x99).control().public()).collect(),
            agreed: HashSet::new(),
            steps: 0,
            tells: std::env::var_os("I2PLAN_TRUST_TRACE").is_some(),
            rng,
        };
        for number in 0..count {
            // The founder is honest; of the others any part may be in the coalition.
            let honest = number == 0 || world.rng.random_bool(0.6);
            world.add_node(number, seed, honest, subnet);
        }
        world.agreed.extend(world.sybils.iter().map(|keys| keys.control().public()));
        world
    }

    fn add_node(&mut self, number: usize, seed: u64, honest: bool, subnet: Ipv4Subnet) {
        let keys = keys(seed << 8 | number as u64, 0x55);
        self.agreed.insert(keys.control().public());
        let disk = State::new(keys.node());
        let me = keyd::Identity {
            node: keys.node(),
            control: keys.control().public(),
            sealed: false,
            remembers: true,
        };
        let mesh = Mesh::new(me, settings(number, subnet), disk.clone(), [7; 32], self.now(0));
        self.nodes.push(Node {
            signer: Signer::volatile(keys.clone(), (Memory::new(), Delegations::default())),
            keys,
            mesh,
            disk,
            backups: Vec::new(),
            up: true,
            offset: 0,
            honest,
            answer: None,
            member: None,
        });
        self.open_data(number);
    }

    fn open_data(&mut self, index: usize) {
        let data = self.nodes[index].keys.ephemeral(self.rng.random()).public();
        self.agreed.insert(data);
        self.nodes[index].mesh.handle_data_session(data);
        self.settle(index);
    }

    fn now(&self, offset: i64) -> Now {
        let unix = (START + self.time).as_secs().saturating_add_signed(offset);
        Now { monotonic: self.time, unix: Duration::from_secs(unix) }
    }

    fn clock(&self, index: usize) -> Now {
        self.now(self.nodes[index].offset)
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("step {} at {} s: {}", self.steps, self.time.as_secs(), what());
        }
    }

    fn id(&self, index: usize) -> NodeId {
        self.nodes[index].keys.node()
    }

    fn settle(&mut self, index: usize) {
        loop {
            let turn = self.nodes[index].mesh.poll_turn();
            assert!(turn.actions.len() <= MAX_ACTIONS * 10, "{} actions", turn.actions.len());
            if turn.save {
                self.nodes[index].disk = self.nodes[index].mesh.state();
            } else if turn.actions.is_empty() {
                return;
            }
            for action in turn.actions {
                let now = self.clock(index);
                match action {
                    Action::Send { to, message, .. } => {
                        assert!(message.len() <= message::MAX_LEN);
                        if self.nodes[index].honest {
                            assert!(
                                self.agreed.contains(&to),
                                "node {index} sends to a destination that has not agreed"
                            );
                        }
                        self.watch(&message);
                        self.flight.push_back((self.nodes[index].keys.control().public(), to, message));
                    }
                    Action::LookUp(hash) => {
                        let found =
                            self.agreed.iter().find(|destination| destination.hash() == hash).copied();
                        self.nodes[index].mesh.handle_lookup(hash, found.ok_or_else(String::new), now);
                    }
                    Action::Ask(ticket, request) => {
                        let reply = self.sign(index, *request, now.unix.as_secs());
                        self.nodes[index].mesh.handle_keyd_reply(ticket, reply, now);
                    }
                    Action::Answer(_, result) => {
                        self.nodes[index].answer = Some(result.map_err(ApiError::from));
                    }
                }
            }
        }
    }

    /// The coalition reads everything: more than it could.
    fn watch(&mut self, datagram: &[u8]) {
        fn keep<T>(rng: &mut StdRng, pool: &mut Vec<T>, value: T) {
            if pool.len() < 60 {
                pool.push(value);
            } else {
                let at = rng.random_range(0..pool.len());
                pool[at] = value;
            }
        }
        let Ok(Datagram { message, .. }) = Datagram::from_bytes(datagram) else { return };
        keep(&mut self.rng, &mut self.datagrams, message.to_bytes());
        for item in message.gossip().map(|gossip| gossip.items.clone()).unwrap_or_default() {
            match item {
                Item::Record(record) => {
                    keep(&mut self.rng, &mut self.chains, record.value.chain.clone());
                    keep(&mut self.rng, &mut self.records, *record);
                }
                Item::Revocation(revocation) => {
                    keep(&mut self.rng, &mut self.chains, revocation.value.target.chain().clone());
                }
                _ => {}
            }
        }
    }

    fn sign(&mut self, index: usize, request: keyd::Request, unix: u64) -> Result<keyd::Reply, ApiError> {
        let random = self.rng.random();
        if let keyd::Request::CertifyMember(certify) = &request {
            // All of this is within a day.
            let allow = Order::AllowInvite(certify.grant.clone());
            self.nodes[index].signer.execute(&allow, random, unix)?;
        }
        let reply = self.nodes[index].signer.answer(request, random, unix)?;
        if let keyd::Reply::Membership(certificate) = &reply {
            self.note_certified(&certificate.value);
        }
        Ok(reply)
    }

    fn note_certified(&mut self, certificate: &Membership) {
        let Delegation { subject, ranges, serial, .. } = certificate.grant.clone();
        self.certified.push(Certified { issuer: certificate.issuer, subject, ranges, serial });
    }

    /// A node gets a datagram; the router vouches for this sender.
    fn give(&mut self, from: Destination, index: usize, bytes: &[u8]) {
        if !self.nodes[index].up {
            return;
        }
        let now = self.clock(index);
        self.nodes[index].mesh.handle_datagram(&from, bytes, now);
        self.settle(index);
    }

    fn deliver(&mut self) {
        for _ in 0..20_000 {
            let Some((from, to, bytes)) = self.flight.pop_front() else { return };
            let target = self.nodes.iter().position(|node| node.keys.control().public() == to);
            if let Some(index) = target {
                self.give(from, index, &bytes);
            }
        }
        panic!("messages lead to messages without end");
    }

    fn run(&mut self, time: Duration) {
        let end = self.time + time;
        while self.time < end {
            self.deliver();
            let next =
                self.nodes.iter().filter(|node| node.up).filter_map(|node| node.mesh.poll_timeout()).min();
            // At least a little, so that one that is due again immediately does not stop the time.
            let next = next.unwrap_or(end).max(self.time + Duration::from_millis(200));
            self.time = next.min(end);
            for index in 0..self.nodes.len() {
                if self.nodes[index].up
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

    fn command(
        &mut self,
        index: usize,
        run: impl FnOnce(&mut Mesh, Now),
    ) -> Option<Result<meshd::Reply, ApiError>> {
        let now = self.clock(index);
        self.nodes[index].answer = None;
        run(&mut self.nodes[index].mesh, now);
        self.settle(index);
        match self.nodes[index].answer.take() {
            // An administrator gives the order.
            Some(Ok(meshd::Reply::ToOrder(proposed))) => {
                let random = self.rng.random();
                let executed = self.nodes[index].signer.execute(&proposed.order, random, now.unix.as_secs());
                match executed {
                    Ok(executed) => {
                        self.nodes[index].mesh.enact(1, executed, now);
                        self.settle(index);
                        self.nodes[index].answer.take()
                    }
                    Err(error) => Some(Err(error)),
                }
            }
            answer => answer,
        }
    }

    fn local_chain(&self, index: usize) -> Option<Chain> {
        self.nodes[index].mesh.state().membership.map(|membership| membership.chain)
    }

    fn pick(&mut self, pass: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.nodes.len()).filter(|index| pass(self, *index)).collect();
        all.choose(&mut self.rng).copied()
    }

    // ------------------------------------------------------------------------------------------ honest history

    fn step(&mut self) {
        self.steps += 1;
        match self.rng.random_range(0..20) {
            0..=5 => self.join(),
            6 => self.leave(),
            7 => self.revoke(),
            8 => self.grant(),
            9 => self.back_up(),
            10 => self.restore(),
            11 => self.set_clock(),
            12 => self.restart(),
            13 => self.reboot(),
            _ => {}
        }
        for _ in 0..self.rng.random_range(0..8) {
            self.attack();
        }
        let pause = Duration::from_millis(self.rng.random_range(1..40_000));
        self.run(pause);
        self.check();
    }

    /// A node invites another, which joins; the first invite founds the network.
    fn join(&mut self) {
        let founded = self.charter.is_some();
        let inviter = if founded {
            self.pick(|world, index| world.nodes[index].up && world.nodes[index].mesh.network().is_some())
        } else {
            Some(0)
        };
        let Some(inviter) = inviter else { return };
        let uses = *[Some(1), Some(1), Some(3), None].choose(&mut self.rng).unwrap();
        let addresses = *[None, None, Some(1), Some(64), Some(16)].choose(&mut self.rng).unwrap();
        let made = self.command(inviter, |mesh, now| mesh.create_invite(1, 24 * 3600, uses, addresses, now));
        let Some(Ok(meshd::Reply::Invite(invite))) = made else { return };
        if !founded {
            let founder = self.nodes[0].mesh.state().membership.unwrap();
            self.charter = Some(founder.charter.value);
            self.nodes[0].member = Some(founder.chain);
        }
        let code: Invite = invite.invite.expose().parse().unwrap();
        if !self.nodes[inviter].honest || self.rng.random_bool(0.1) {
            // It is passed on, or lost.
            self.invites.push(code.clone());
        }
        let joiner = self.pick(|world, index| {
            let node = &world.nodes[index];
            index != 0 && index != inviter && node.up && node.mesh.network().is_none()
        });
        let Some(joiner) = joiner else { return };
        let now = self.clock(joiner);
        self.nodes[joiner].answer = None;
        self.nodes[joiner].mesh.join(1, &code.to_code(), now);
        self.settle(joiner);
        for _ in 0..12 {
            if self.nodes[joiner].answer.is_some() {
                break;
            }
            self.run(Duration::from_secs(5));
        }
        if self.nodes[joiner].mesh.network().is_some() {
            self.nodes[joiner].member = self.local_chain(joiner);
        }
        self.tell(|| format!("{joiner} joins by {inviter}: {:?}", self.nodes[joiner].member.is_some()));
    }

    fn leave(&mut self) {
        let leaver = self.pick(|world, index| {
            index != 0 && world.nodes[index].up && world.nodes[index].mesh.network().is_some()
        });
        let Some(leaver) = leaver else { return };
        let chain = self.local_chain(leaver);
        if let Some(Ok(_)) = self.command(leaver, |mesh, _| mesh.leave(1)) {
            self.ended.extend(chain.map(|chain| chain.id()));
            self.nodes[leaver].member = None;
            self.tell(|| format!("{leaver} leaves"));
        }
    }

    fn revoke(&mut self) {
        let revoker = self.pick(|world, index| {
            world.nodes[index].honest && world.nodes[index].up && world.nodes[index].mesh.network().is_some()
        });
        let Some(revoker) = revoker else { return };
        let known: Vec<NodeId> = self.nodes.iter().map(|node| node.keys.node()).collect();
        let Some(target) = known.choose(&mut self.rng).copied() else { return };
        let text = target.to_string();
        let known = self.nodes[revoker].mesh.record_of(&target).map(|record| record.value.chain.clone());
        // Of one whose clock is wrong there may be no record; its inviter can revoke it all the same.
        let own =
            self.nodes.iter().find(|node| node.keys.node() == target).and_then(|node| node.member.clone());
        // Of one that it has granted more addresses its inviter revokes both certificates.
        let granted = |chain: &Chain| {
            chain.parent().is_some_and(|parent| *parent.subject() == self.id(revoker))
                && known.as_ref().is_some_and(|known| known.parent() == chain.parent())
        };
        let both = own.clone().filter(granted);
        let revoked: Vec<Chain> = known.clone().or(own).into_iter().chain(both).collect();
        if let Some(Ok(meshd::Reply::Revoked(_))) = self.command(revoker, |mesh, _| mesh.revoke(1, &text)) {
            self.tell(|| format!("{revoker} revokes {}", target.short()));
            for revoked in revoked {
                assert!(revoked.is_ancestor(&self.id(revoker)));
                self.end_below(&revoked);
            }
        }
    }

    /// The memberships of all whose chains contain the last certificate of this one have ended.
    fn end_below(&mut self, revoked: &Chain) {
        // A revocation covers the earlier certificates of the issuer for these addresses too.
        let (issuer, last) = revoked.issued().last().map(|(issuer, link)| (*issuer, link.clone())).unwrap();
        for node in &mut self.nodes {
            let is_out = node.member.as_ref().is_some_and(|chain| {
                chain.issued().any(|(by, link)| {
                    *by == issuer && link.serial <= last.serial && link.ranges.overlap(&last.ranges)
                })
            });
            if is_out {
                self.ended.extend(node.member.take().map(|chain| chain.id()));
            }
        }
    }

    fn grant(&mut self) {
        let inviter =
            self.pick(|world, index| world.nodes[index].up && world.nodes[index].mesh.network().is_some());
        let Some(inviter) = inviter else { return };
        let Some(node) = (0..self.nodes.len()).collect::<Vec<_>>().choose(&mut self.rng).copied() else {
            return;
        };
        let text = self.id(node).to_string();
        let granted = self.command(inviter, |mesh, now| mesh.grant(1, &text, 4, now));
        self.tell(|| {
            format!("{inviter} grants {node} more: {}", granted.is_some_and(|granted| granted.is_ok()))
        });
        self.run(Duration::from_secs(2));
        self.learn_chains();
    }

    /// A member that was granted more addresses has another chain, by which it is a member as before.
    fn learn_chains(&mut self) {
        for index in 0..self.nodes.len() {
            let chain = self.local_chain(index);
            let node = &mut self.nodes[index];
            if let (Some(before), Some(chain)) = (&node.member, chain)
                && before.parent() == chain.parent()
                && before.subject() == chain.subject()
            {
                node.member = Some(chain);
            }
        }
    }

    fn back_up(&mut self) {
        let Some(index) = self.pick(|world, index| world.nodes[index].mesh.network().is_some()) else {
            return;
        };
        let disk = self.nodes[index].disk.clone();
        self.nodes[index].backups.push(disk);
    }

    /// A node goes on with an older state, on the same machine or another.
    fn restore(&mut self) {
        let Some(index) = self.pick(|world, index| !world.nodes[index].backups.is_empty()) else { return };
        let backup = self.nodes[index].backups.choose(&mut self.rng).unwrap().clone();
        let backed_up = backup.membership.as_ref().map(|membership| membership.chain.clone());
        self.nodes[index].disk = backup;
        self.start(index);
        let node = &mut self.nodes[index];
        // Of a membership that it had before, or has none of now, nothing is promised.
        let ended = &self.ended;
        let same = |chain: &Chain| {
            let is_same = |backup: &Chain| backup.parent() == chain.parent() && !ended.contains(&backup.id());
            backed_up.as_ref().is_some_and(is_same)
        };
        if !node.member.as_ref().is_some_and(same) {
            node.member = None;
        }
        self.tell(|| format!("{index} is restored from a backup"));
    }

    fn set_clock(&mut self) {
        let Some(index) = self.pick(|_, _| true) else { return };
        let wrong = [0, 0, 0, 3600, -3600, 90 * 86_400, -90 * 86_400, 3 * 86_400, 2 * 3600];
        let offset = *wrong.choose(&mut self.rng).unwrap();
        self.nodes[index].offset = offset;
        if self.rng.random_bool(0.1) {
            self.nodes[index].offset = -i64::try_from(START.as_secs()).unwrap();
        }
        self.tell(|| format!("the clock of {index} is wrong by {} s", self.nodes[index].offset));
    }

    fn restart(&mut self) {
        let Some(index) = self.pick(|_, _| true) else { return };
        self.tell(|| format!("{index} restarts"));
        self.start(index);
    }

    fn reboot(&mut self) {
        let Some(index) = self.pick(|_, index| index != 0) else { return };
        if self.nodes[index].up {
            self.nodes[index].up = false;
            self.tell(|| format!("{index} stops"));
        } else {
            self.start(index);
        }
    }

    /// A node starts from its disk, as does its `keyd`.
    fn start(&mut self, index: usize) {
        let (now, seed) = (self.clock(index), self.rng.random());
        let node = &mut self.nodes[index];
        let bytes = node.disk.to_bytes();
        let state = State::from_bytes(&bytes, &node.keys.node()).unwrap();
        let me = keyd::Identity {
            node: node.keys.node(),
            control: node.keys.control().public(),
            sealed: false,
            remembers: true,
        };
        node.mesh = Mesh::new(me, settings(index, Ipv4Subnet::DEFAULT), state, seed, now);
        node.signer = Signer::volatile(node.keys.clone(), node.signer.remembered());
        node.up = true;
        self.open_data(index);
    }

    // ------------------------------------------------------------------------------------------ the coalition

    fn number(&mut self) -> u64 {
        match self.rng.random_range(0..6) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => u64::MAX - 1,
            4 => self.rng.random_range(0..200),
            _ => self.rng.random(),
        }
    }

    fn moment(&mut self) -> u64 {
        let now = self.now(0).unix.as_secs();
        *[0, 1, now, now, now, now - 1000, now + 3600, 253_402_300_799, u64::MAX]
            .choose(&mut self.rng)
            .unwrap()
    }

    /// Keys of the coalition: of a member, a former one, an outsider, or of nobody.
    fn culprit(&mut self) -> Keys {
        let mut all: Vec<&Keys> =
            self.nodes.iter().filter(|node| !node.honest).map(|node| &node.keys).collect();
        all.extend(&self.sybils);
        (*all.choose(&mut self.rng).unwrap()).clone()
    }

    fn any_id(&mut self) -> NodeId {
        let mut all: Vec<NodeId> = self.nodes.iter().map(|node| node.keys.node()).collect();
        all.extend(self.sybils.iter().map(Keys::node));
        *all.choose(&mut self.rng).unwrap()
    }

    fn any_chain(&mut self) -> Option<Chain> {
        let own: Vec<Chain> = (0..self.nodes.len())
            .filter(|index| !self.nodes[*index].honest)
            .filter_map(|index| self.local_chain(index))
            .collect();
        if self.rng.random_bool(0.5) && !own.is_empty() {
            return own.choose(&mut self.rng).cloned();
        }
        self.chains.choose(&mut self.rng).cloned()
    }

    /// Addresses that the subject of a chain may delegate, if it holds any.
    fn delegable(&mut self, chain: &Chain) -> Option<AddressRanges> {
        let subnet = self.charter.as_ref()?.subnet;
        let (held, own) = (chain.ranges(&subnet), chain.address(&subnet));
        let held: Vec<AddressRange> = held.iter().copied().collect();
        (0..20).find_map(|_| {
            let range = held.choose(&mut self.rng)?;
            let part = self.part_of(*range);
            (!part.contains(own)).then_some(part.into())
        })
    }

    fn part_of(&mut self, range: AddressRange) -> AddressRange {
        let prefix = self.rng.random_range(range.prefix()..=32);
        let offset = if range.size() > 1 { self.rng.random_range(0..range.size()) } else { 0 };
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        AddressRange::new(((range.first().to_bits() + offset) & mask).into(), prefix).unwrap_or(range)
    }

    fn any_ranges(&mut self) -> AddressRanges {
        let subnet = self.charter.as_ref().map_or(Ipv4Subnet::DEFAULT, |charter| charter.subnet);
        let mut all: Vec<AddressRange> = vec![subnet.range()];
        all.extend(
            self.chains.iter().flat_map(|chain| chain.ranges(&subnet).iter().copied().collect::<Vec<_>>()),
        );
        let range = *all.choose(&mut self.rng).unwrap();
        if self.rng.random_bool(0.3) {
            return range.into();
        }
        self.part_of(range).into()
    }

    /// A chain that the coalition has put together: rarely a valid one, sometimes one that is almost.
    fn forged_chain(&mut self, subject: Option<NodeId>) -> Option<Chain> {
        let mut chain = self.any_chain()?;
        for _ in 0..*[1, 1, 1, 2].choose(&mut self.rng).unwrap() {
            let issuer = self.culprit();
            if chain.depth() >= 8 {
                return Some(chain);
            }
            // Mostly below one of its own members.
            if self.rng.random_bool(0.7) {
                let own = (0..self.nodes.len()).find(|index| self.id(*index) == issuer.node());
                if let Some(own) = own.and_then(|own| self.local_chain(own)) {
                    chain = own;
                }
            }
            let good = if self.rng.random_bool(0.7) { self.delegable(&chain) } else { None };
            let grant = Delegation {
                subject: subject.unwrap_or(self.any_id()),
                invite: InviteId(self.rng.random()),
                ranges: good.unwrap_or_else(|| self.any_ranges()),
                serial: self.number(),
                since: self.number(),
                replaces: self.rng.random(),
                issued_at: self.moment(),
            };
            let mut certificate = chain.certificate(grant);
            if self.rng.random_bool(0.1) {
                certificate.parent = CertificateId(self.rng.random());
            }
            certificate.issuer = issuer.node();
            chain = chain.appended(&signed(certificate, &issuer));
        }
        Some(chain)
    }

    fn forged_destination(&mut self, keys: &Keys, network: NetworkId) -> ProvenDestination {
        let honest: Vec<ProvenDestination> =
            self.records.iter().flat_map(|record| [record.value.control, record.value.data]).collect();
        match self.rng.random_range(0..6) {
            0 => ProvenDestination::unproven(*self.strangers.choose(&mut self.rng).unwrap()),
            1 if !honest.is_empty() => *honest.choose(&mut self.rng).unwrap(),
            _ => {
                let own = keys.control();
                let roles = [DestinationRole::Primary, DestinationRole::Data];
                let role = *roles.choose(&mut self.rng).unwrap();
                let proof = DestinationProof { network, node: keys.node(), role, destination: own.public() };
                ProvenDestination { destination: own.public(), proof: own.prove(&proof) }
            }
        }
    }

    fn forged_record(&mut self) -> Option<Signed<Record>> {
        let keys = self.culprit();
        let chain = match self.rng.random_range(0..3) {
            0 => self.any_chain()?,
            _ => self.forged_chain(Some(keys.node()))?,
        };
        let network = chain.network();
        let not_before = self.moment();
        let not_after = if self.rng.random_bool(0.6) {
            not_before.saturating_add(WireGuardCertificate::MAX_AGE)
        } else {
            self.moment()
        };
        let node = if self.rng.random_bool(0.9) { keys.node() } else { self.any_id() };
        let epoch = WireGuardCertificate::epoch_at(not_before);
        let salted = Epoch { network, number: epoch, salt: [0; 32], end: not_after };
        let mut key = keys.wireguard(&salted).proven(network, node);
        if self.rng.random_bool(0.3) {
            key = self.records.choose(&mut self.rng).map_or(key, |record| record.value.wireguard.value.key);
        }
        let certificate = WireGuardCertificate { network, node, key, epoch, not_before, not_after };
        let names = ["node-1", "node-2", "thief"];
        let record = Record {
            node,
            sequence: self.number(),
            issued_at: self.moment(),
            name: names.choose(&mut self.rng).unwrap().parse().unwrap(),
            control: self.forged_destination(&keys, network),
            primary: None,
            takes_reports: false,
            data: self.forged_destination(&keys, network),
            wireguard: signed(certificate, &keys),
            chain,
        };
        Some(signed(record, &keys))
    }

    fn forged_item(&mut self) -> Option<Item> {
        let keys = self.culprit();
        let network = self.charter.as_ref()?.network();
        Some(match self.rng.random_range(0..8) {
            0 | 1 => Item::Record(Box::new(self.forged_record()?)),
            2 | 3 => {
                let chain =
                    if self.rng.random_bool(0.5) { self.forged_chain(None)? } else { self.any_chain()? };
                let target = if self.rng.random_bool(0.8) {
                    Target::Certificate(chain)
                } else {
                    let invite = chain.last().map_or(InviteId([0; 16]), |link| link.invite);
                    Target::Invite(chain, invite)
                };
                let issuer = if self.rng.random_bool(0.8) { keys.node() } else { self.any_id() };
                Item::Revocation(Box::new(signed(
                    Revocation { issuer, target, issued_at: self.moment() },
                    &keys,
                )))
            }
            4 => {
                let chain = if self.rng.random_bool(0.5) {
                    self.forged_chain(Some(keys.node()))?
                } else {
                    self.any_chain()?
                };
                let (last_serial, issued_at) = (self.number(), self.moment());
                Item::Resignation(Box::new(signed(Resignation { chain, last_serial, issued_at }, &keys)))
            }
            5 => {
                let presence = if self.rng.random() { Presence::Away } else { Presence::Present };
                let node = if self.rng.random_bool(0.8) { keys.node() } else { self.any_id() };
                Item::Liveness(signed(
                    LivenessMessage { network, node, sequence: self.number(), presence },
                    &keys,
                ))
            }
            6 => {
                let (subject, sequence, issued_at) = (self.any_id(), self.number(), self.moment());
                let confirmer = keys.node();
                let suspicion = Suspicion { network, confirmer, subject, sequence, issued_at };
                Item::Suspicion(signed(suspicion, &keys))
            }
            _ => Item::Record(Box::new(self.records.choose(&mut self.rng).cloned()?)),
        })
    }

    fn forged_entries(&mut self) -> Vec<Entry> {
        let count = self.rng.random_range(0..6);
        let entry = |world: &mut Self| Entry {
            node: if world.rng.random_bool(0.8) { world.any_id() } else { NodeId(world.rng.random()) },
            record: world.number(),
            liveness: world.number(),
            ended: world.rng.random_bool(0.3),
        };
        (0..count).map(|_| entry(self)).collect()
    }

    fn forged_message(&mut self) -> Option<Message> {
        let items = (0..self.rng.random_range(0..3)).filter_map(|_| self.forged_item()).collect();
        let gossip = Gossip { entries: self.forged_entries(), items };
        let number = self.number();
        Some(match self.rng.random_range(0..9) {
            0 => Message::Ping(number, gossip),
            1 => Message::Ack(number, gossip),
            2 => Message::PingRequest(number, self.any_id(), gossip),
            3 => {
                let content = if self.rng.random() {
                    Content::Entries(self.forged_entries())
                } else {
                    Content::Fingerprint { count: self.rng.random(), sum: self.rng.random() }
                };
                Message::Compare(vec![Range { end: None, content }], gossip)
            }
            4 => Message::Want(self.forged_entries()),
            5 => {
                let subject = self.any_id();
                Message::Grant(Box::new(self.forged_chain(Some(subject))?))
            }
            6 => {
                let (keys, invite) = (self.culprit(), self.invites.choose(&mut self.rng)?.clone());
                let body = JoinBody {
                    network: invite.network,
                    inviter: invite.inviter,
                    invite: invite.secret.key(),
                    joiner: keys.node(),
                    control: keys.control().public().hash(),
                    issued_at: self.moment(),
                };
                let proof = body.prove(&invite.secret.signing_key());
                Message::JoinRequest(Box::new(JoinRequest { body: signed(body, &keys), proof }))
            }
            _ => Message::News(gossip),
        })
    }

    /// The coalition sends one datagram.
    fn attack(&mut self) {
        let Some(victim) = self.pick(|world, index| world.nodes[index].honest && world.nodes[index].up)
        else {
            return;
        };
        let to = self.nodes[victim].keys.control().public();
        let mut from = self.culprit().control().public();
        let bytes = match self.rng.random_range(0..12) {
            // Garbage in anyone's name: the victim's own router says it.
            0 => {
                let all: Vec<Destination> = self.agreed.iter().copied().collect();
                from = *all.iter().max_by_key(|_| self.rng.random::<u32>()).unwrap();
                let mut bytes = Message::Ping(1, Gossip::default()).to_datagram(&to);
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
                bytes.truncate(self.rng.random_range(0..=bytes.len()));
                bytes
            }
            // Something that was said before.
            1 | 2 => {
                let Some(message) = self.datagrams.choose(&mut self.rng).cloned() else { return };
                let header = Message::Want(Vec::new()).to_datagram(&to);
                [&header[..message::HEADER_LEN], &message].concat()
            }
            _ => {
                let Some(message) = self.forged_message() else { return };
                message.to_datagram(&to)
            }
        };
        if bytes.len() <= message::MAX_LEN {
            self.give(from, victim, &bytes);
        }
    }

    // ------------------------------------------------------------------------------------------ what must hold

    /// Honest members whose inviters are honest, and whose addresses no honest issuer has delegated twice.
    fn protected(&self) -> Vec<usize> {
        let honest: HashSet<NodeId> =
            self.nodes.iter().filter(|node| node.honest).map(|node| node.keys.node()).collect();
        let twice = |chain: &Chain| {
            chain.issued().any(|(issuer, link)| {
                self.certified.iter().any(|other| {
                    other.issuer == *issuer
                        && other.subject != link.subject
                        && other.ranges.overlap(&link.ranges)
                        && other.serial != link.serial
                        && other.serial != link.since
                })
            })
        };
        // Who has left and goes on with a backup is no member, and neither is whom it lets in then.
        let left = |chain: &Chain| {
            std::iter::successors(chain.parent(), Chain::parent).any(|above| self.ended.contains(&above.id()))
        };
        let is_protected = |index: &usize| {
            let node = &self.nodes[*index];
            let Some(chain) = &node.member else { return false };
            node.honest
                && node.up
                && chain.ancestors().all(|inviter| honest.contains(inviter))
                && !left(chain)
                && !twice(chain)
        };
        (0..self.nodes.len()).filter(is_protected).collect()
    }

    fn is_sane(&self, index: usize) -> bool {
        self.nodes[index].offset.abs() <= TOLERANCE
    }

    fn check(&mut self) {
        self.learn_chains();
        let Some(charter) = self.charter.clone() else { return };
        let protected = self.protected();
        for index in &protected {
            let node = &self.nodes[*index];
            let chain = node.member.as_ref().unwrap();
            let network = node.mesh.network();
            assert_eq!(network, Some(charter.network()), "node {index} stays a member:\n{}", self.describe());
            assert_eq!(node.mesh.local_address(), Some(chain.address(&charter.subnet)), "of node {index}");
        }
        for here in (0..self.nodes.len()).filter(|index| self.nodes[*index].honest && self.nodes[*index].up) {
            let node = &self.nodes[here];
            let state = node.mesh.state();
            assert!(state.members.len() <= 10_000 && state.endings.len() <= 20_000);
            let banned: BTreeSet<NodeId> = node.mesh.banned().collect();
            let routes: HashMap<_, _> =
                node.mesh.peers(self.clock(here)).into_iter().map(|peer| (peer.node, peer)).collect();
            for there in &protected {
                let (id, other) = (self.id(*there), &self.nodes[*there]);
                assert!(!banned.contains(&id), "node {here} bans node {there}");
                let Some(address) = other.mesh.local_address() else { continue };
                for (holder, peer) in &routes {
                    let is_others = peer.ipv4() == address && *holder != id;
                    // Of the network that it is in.
                    let same = node.mesh.network() == Some(charter.network()) && here != *there;
                    assert!(!is_others || !same, "node {here} routes {address} of node {there} to {holder}");
                }
                // What a node knows of an earlier membership is replaced in time.
                let knows = node.mesh.record_of(&id).is_some_and(|record| {
                    let is_valid = record.value.wireguard.value.is_valid_at(self.clock(here).unix.as_secs());
                    is_valid && Some(&record.value.chain) == other.member.as_ref()
                });
                if knows && self.is_sane(here) && self.is_sane(*there) {
                    let peer = routes.get(&id);
                    assert!(peer.is_some(), "node {here} has no route to node {there}");
                    assert_eq!(peer.map(Peer::ipv4), Some(address), "{here} to {there}");
                }
            }
        }
    }

    /// The nodes, for a failure.
    fn describe(&self) -> String {
        let line = |index: usize| {
            let node = &self.nodes[index];
            let state = node.mesh.state();
            let known: Vec<usize> = (0..self.nodes.len())
                .filter(|there| node.mesh.record_of(&self.id(*there)).is_some())
                .collect();
            let serials: Vec<_> = self
                .local_chain(index)
                .map(|chain| {
                    chain
                        .issued()
                        .map(|(issuer, link)| (issuer.short(), link.serial, link.ranges.clone()))
                        .collect()
                })
                .unwrap_or_default();
            let network = node.mesh.network_status(self.clock(index));
            format!(
                "{index} {}: honest {}, member {}, in network {}, knows {known:?}, {} endings, counter {}, chain {serials:?}, displaced {:?}, conflicts {:?}, keys {:?}",
                self.id(index).short(),
                node.honest,
                node.member.is_some(),
                network.is_some(),
                state.endings.len(),
                state.counter,
                network.as_ref().and_then(|network| network.displaced_by.clone()),
                network.map(|network| network.conflicts.len()),
                node.mesh.keys_problems(self.clock(index)),
            )
        };
        (0..self.nodes.len()).map(line).collect::<Vec<_>>().join("\n")
    }

    /// Lets a history end: all are up with clocks that are right, and the coalition goes on. Then all that must spread
    /// has spread.
    fn finish(&mut self) {
        for index in 0..self.nodes.len() {
            self.nodes[index].offset = 0;
            if !self.nodes[index].up {
                self.start(index);
            }
        }
        for _ in 0..ROUNDS {
            for _ in 0..6 {
                self.attack();
            }
            self.run(HEARTBEAT);
        }
        self.check();
        let protected = self.protected();
        // What all have forgotten, because their states were restored, nobody can know.
        let honest: HashSet<NodeId> =
            self.nodes.iter().filter(|node| node.honest).map(|node| node.keys.node()).collect();
        let endings: Vec<_> =
            protected.iter().flat_map(|index| self.nodes[*index].mesh.state().endings).collect();
        for here in &protected {
            for there in protected.iter().filter(|there| *there != here) {
                let known = self.nodes[*here].mesh.record_of(&self.id(*there));
                let is_current = known
                    .is_some_and(|record| Some(record.ipv4()) == self.nodes[*there].mesh.local_address());
                assert!(
                    is_current,
                    "node {here} does not know node {there} after {ROUNDS} rounds:\n{}",
                    self.describe()
                );
            }
            for peer in self.nodes[*here].mesh.peers(self.clock(*here)) {
                let chain = &self.nodes[*here].mesh.record_of(&peer.node).unwrap().value.chain;
                // Whom the coalition has invited it can invite again.
                if !chain.ancestors().all(|inviter| honest.contains(inviter)) {
                    continue;
                }
                let is_over = endings.iter().any(|ending| ending.voids(chain).is_some());
                assert!(
                    !is_over,
                    "node {here} routes to one whose membership has ended:\n{}",
                    self.describe()
                );
            }
        }
    }
}

fn play(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let steps = world.rng.random_range(20..60);
    for _ in 0..steps {
        world.step();
    }
    world.finish();
    world.steps
}

#[test]
fn members_keep_what_is_theirs() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let budget = Duration::from_secs(variable("I2PLAN_TRUST_SECONDS").unwrap_or(BUDGET));
    let first = variable("I2PLAN_TRUST_SEED").unwrap_or(1);
    let (began, mut steps, mut cases) = (Instant::now(), 0, 0);
    for seed in first.. {
        match catch_unwind(AssertUnwindSafe(|| play(seed))) {
            Ok(more) => steps += more,
            Err(panic) => {
                eprintln!("to repeat this case: I2PLAN_TRUST_SEED={seed} I2PLAN_TRUST_SECONDS=1");
                resume_unwind(panic);
            }
        }
        cases += 1;
        if began.elapsed() >= budget {
            break;
        }
    }
    println!("{cases} histories with {steps} steps");
}

/// Three members, of which each has invited the next.
fn row_of_three() -> World {
    let mut world = World::new(7);
    world.nodes.truncate(3);
    world.nodes.iter_mut().for_each(|node| node.honest = true);
    for (joiner, addresses) in [(1, 64), (2, 1)] {
        let made = world
            .command(joiner - 1, |mesh, now| mesh.create_invite(1, 24 * 3600, Some(1), Some(addresses), now));
        let Some(Ok(meshd::Reply::Invite(invite))) = made else { panic!("no invite: {made:?}") };
        let now = world.clock(joiner);
        world.nodes[joiner].answer = None;
        world.nodes[joiner].mesh.join(1, invite.invite.expose(), now);
        world.settle(joiner);
        world.run(HEARTBEAT * 4);
        assert!(world.nodes[joiner].mesh.network().is_some());
    }
    world.run(HEARTBEAT * 4);
    world
}

/// All know each other by records and keys that hold, and keyd leases each its key.
fn agree(world: &World) -> Result<(), String> {
    for here in 0..world.nodes.len() {
        let (node, now) = (&world.nodes[here], world.clock(here));
        let unix = now.unix.as_secs();
        let peers: HashSet<NodeId> = node.mesh.peers(now).into_iter().map(|peer| peer.node).collect();
        for there in (0..world.nodes.len()).filter(|there| *there != here) {
            if !peers.contains(&world.id(there)) {
                return Err(format!("{there} is no peer of {here}"));
            }
            let own = world.nodes[there].mesh.published_key();
            let known = node.mesh.record_of(&world.id(there)).map(|record| &record.value.wireguard.value);
            if known.map(WireGuardCertificate::public_key) != own {
                return Err(format!("{here} knows another key of {there}"));
            }
        }
        let (network, epoch) = (node.mesh.network().unwrap(), node.mesh.epoch().unwrap());
        node.signer.lease_wireguard(&network, epoch, unix).map_err(|error| format!("{here}: {error}"))?;
        let problems = node.mesh.keys_problems(now);
        if !problems.is_empty() {
            return Err(format!("{here}: {problems:?}"));
        }
    }
    Ok(())
}

/// The clock of one of three is wrong for a while, its key is rotated meanwhile or not, and then the clock is right: at
/// once, when the node has started again, or when all have.
#[test]
fn a_clock_that_was_wrong_does_no_lasting_harm() {
    const HOUR: i64 = 3600;
    let wrong = [2 * HOUR, -2 * HOUR, 72 * HOUR, -72 * HOUR, 8760 * HOUR, -8760 * HOUR, -1_800_000_000];
    for (node, offset) in (0..3).flat_map(|node| wrong.map(|offset| (node, offset))) {
        for (rotates, starts) in [(false, 0), (false, 1), (true, 0), (true, 1), (true, 3)] {
            let mut world = row_of_three();
            agree(&world).unwrap();
            world.nodes[node].offset = offset;
            if starts > 0 {
                world.start(node);
            }
            world.run(HEARTBEAT * 4);
            if rotates {
                let now = world.clock(node);
                world.nodes[node].mesh.rotate_key(1, now);
                world.settle(node);
                world.run(HEARTBEAT * 4);
            }
            world.nodes[node].offset = 0;
            let start = if starts == 3 { 0..3 } else { node..node + starts };
            start.for_each(|index| world.start(index));
            let mut last = Ok(());
            let heals = (0..ROUNDS).any(|_| {
                world.run(HEARTBEAT);
                last = agree(&world);
                last.is_ok()
            });
            assert!(
                heals,
                "node {node}, {offset} s, rotates {rotates}, {starts} start: {last:?}\n{}",
                world.describe()
            );
        }
    }
}
