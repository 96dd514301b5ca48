//! `meshd`'s mesh: one member of a network, among members, strangers and liars.
//!
//! The input is a list of things that happen. Some datagrams are arbitrary bytes; others are rightly signed, or
//! nearly so. Beside the mesh runs the simplest model of what it should know, and the two must agree.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ed25519_dalek::SigningKey;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, Life, What};
use i2plan_ipc::secret::SecretText;
use i2plan_meshd::core::state::{self, State};
use i2plan_meshd::core::{Action, CommandId, Mesh, Now, Settings, Ticket, Turn};
use i2plan_proto::accusation::Accusation;
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NetworkId, NodeId, Signable, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteGrant, InviteKey, InviteSecret};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Welcome};
use i2plan_proto::membership::{Chain, Charter, Membership};
use i2plan_proto::message::{self, Content, Datagram, Entry, Gossip, Item, Message, Range};
use i2plan_proto::pulse::{self, Pulse};
use i2plan_proto::record::Record;
use i2plan_proto::testing::{self, NOW};
use i2plan_proto::wireguard::WireGuardCertificate;

use crate::{Seeds, seed};

/// The number of the node whose mesh it is. Node 0 is the founder and has invited it.
const ME: u8 = 1;

/// Stands for the destination that may take its control destination's place.
const SUBSTITUTE: u8 = 210;

/// Members that can appear: up to 8 by a chain of that length, the others invited by the founder.
const MEMBERS: u8 = 40;

/// What one event may make the mesh do at once.
const MAX_ACTIONS: usize = 64;

/// Joiners that may wait for `keyd` at once.
const MAX_CERTIFYING: usize = 32;

/// Runs the target.
pub fn run(input: &[u8]) {
    play(input).check();
}

fn play(input: &[u8]) -> World {
    let mut choices = Unstructured::new(input);
    let start = choices.arbitrary::<u8>().unwrap_or(0);
    let mut world = World::new(start & 1 != 0, start & 2 == 0);
    // Ends with the input.
    while !choices.is_empty() && world.step(&mut choices).is_ok() {
        world.settle();
    }
    world
}

/// So many questions in a run are answered for sure.
const CERTAIN: usize = 20;

/// What `keyd` does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Honest,
    Failing,
    Silent,
}

/// What the mesh should know of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    sequence: u64,
    /// Of its last word, which may be a pulse.
    word: u64,
    control: Destination,
    home: Option<Destination>,
    data: Destination,
    ipv4: Ipv4Addr,
    /// After this, Unix time in seconds, it may be forgotten.
    not_after: u64,
}

impl Known {
    fn speaks_from(&self, from: &Destination) -> bool {
        self.control == *from || self.home == Some(*from)
    }
}

struct World {
    mesh: Mesh,
    now: Now,
    /// The latest that it has been by the clock that jumps.
    latest: Duration,
    mood: Mood,
    unanswered: Vec<(Ticket, keyd::Request)>,
    disk: Vec<u8>,
    old_disk: Vec<u8>,
    disk_full: bool,
    network: Option<NetworkId>,
    members: BTreeMap<NodeId, Known>,
    /// Every record that its node has signed and that is right in all its parts.
    genuine: HashSet<Vec<u8>>,
    last_sequence: u64,
    invites: Vec<Invite>,
    grants: BTreeMap<InviteKey, InviteGrant>,
    certified: BTreeMap<InviteKey, BTreeSet<NodeId>>,
    commands: BTreeSet<CommandId>,
    next_command: CommandId,
    /// Whose invites were tried.
    asked: BTreeSet<u8>,
    sent: Vec<(Destination, Vec<u8>)>,
    /// How often it was asked for something.
    questions: usize,
    /// Datagrams of each sender since none had been heard for long.
    said: HashMap<DestinationHash, u32>,
    /// The other members as one knows them who was told of them at the start and follows the events.
    followed: BTreeMap<String, (String, Life)>,
}

impl World {
    /// A node that is a member already or not yet, and has a session for data or not.
    fn new(is_member: bool, session: bool) -> Self {
        let me = node(ME);
        let mut state = State::new(me);
        if is_member {
            state.membership = Some(state::Membership {
                charter: charter().clone(),
                chain: member(ME).value.chain.clone(),
                ipv4: Ipv4Subnet::DEFAULT.address_of(&me, 0),
                last_sequence: 0,
                epoch: None,
            });
        }
        let now = Now { monotonic: Duration::from_secs(5), unix: Duration::from_secs(NOW) };
        let disk = state.to_bytes();
        let mut world = Self {
            mesh: mesh(state, session, now),
            now,
            latest: now.unix,
            mood: Mood::Honest,
            unanswered: Vec::new(),
            old_disk: disk.clone(),
            disk,
            disk_full: false,
            network: is_member.then(network),
            members: BTreeMap::new(),
            genuine: HashSet::new(),
            last_sequence: 0,
            invites: Vec::new(),
            grants: BTreeMap::new(),
            certified: BTreeMap::new(),
            commands: BTreeSet::new(),
            next_command: 0,
            asked: BTreeSet::new(),
            sent: Vec::new(),
            questions: 0,
            said: HashMap::new(),
            followed: BTreeMap::new(),
        };
        world.settle();
        world
    }

    /// Lets something happen.
    fn step(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        // A stranger that has used up its allowance is not heard, which is for the tests of the ingress limits to see.
        if self.said.values().any(|count| *count >= 8) || self.said.len() >= 100 {
            self.pass(Duration::from_secs(10));
            self.said.clear();
        }
        match choices.arbitrary::<u8>()? % 16 {
            0 => {
                let (from, len) = (any_destination(choices)?, choices.arbitrary::<u16>()?);
                let len = usize::from(len).min(choices.len());
                let payload = choices.bytes(len)?.to_vec();
                self.deliver(&from, &payload);
            }
            1 | 2 => {
                let from = any_destination(choices)?;
                let mut records = Vec::new();
                for _ in 0..=choices.arbitrary::<u8>()? % 4 {
                    records.push(self.any_record(choices)?);
                }
                let items = records.into_iter().map(|record| Item::Record(Box::new(record))).collect();
                self.deliver(&from, &to_me(&Message::news(items)));
            }
            3 => {
                let (from, kind) = (any_destination(choices)?, choices.arbitrary::<u8>()? % 6);
                let mut entries = Vec::new();
                for _ in 0..choices.arbitrary::<u8>()? % 8 {
                    entries.push(Entry {
                        node: node(choices.arbitrary::<u8>()? % MEMBERS),
                        record: any_sequence(choices)?,
                        pulse: 0,
                        revoked: false,
                    });
                }
                let number = choices.arbitrary::<u8>()?.into();
                let target = node(choices.arbitrary::<u8>()? % MEMBERS);
                let gossip = Gossip { entries: entries.clone(), items: Vec::new() };
                let message = match kind {
                    0 => {
                        let range = Range { end: None, content: Content::Entries(entries) };
                        Message::Compare(vec![range], gossip)
                    }
                    1 => {
                        let content = Content::Fingerprint { count: 5, sum: [1; 16] };
                        Message::Compare(vec![Range { end: None, content }], gossip)
                    }
                    2 => Message::Want(entries),
                    3 => Message::Ack(number, gossip),
                    4 => Message::PingRequest(number, target, gossip),
                    _ => Message::Ping(number, gossip),
                };
                self.deliver_question(&from, &message);
            }
            6 if choices.ratio(1, 2)? => {
                let from = any_destination(choices)?;
                let item = self.any_word(choices)?;
                self.deliver(&from, &to_me(&Message::news(vec![item])));
            }
            4 | 5 => self.ask_to_join(choices)?,
            6 => self.pass(Duration::from_millis(choices.arbitrary::<u16>()?.into())),
            7 => self.pass(Duration::from_secs(choices.arbitrary::<u16>()?.into())),
            8 => {
                let seconds = u64::from(choices.arbitrary::<u32>()?);
                self.now.unix = Duration::from_secs(seconds.saturating_mul(2));
                self.latest = self.latest.max(self.now.unix);
            }
            9 => {
                let (expires_in, uses) = (choices.arbitrary::<u16>()?, choices.arbitrary::<u8>()?);
                let command = self.command();
                let uses = (uses != 0xff).then_some(u32::from(uses));
                self.mesh.create_invite(command, expires_in.into(), uses, self.now);
            }
            10 => {
                let inviter = choices.arbitrary::<u8>()? % 3;
                self.asked.insert(inviter);
                let command = self.command();
                self.mesh.join(command, &testing::invite(inviter).to_code(), self.now);
            }
            11 => self.welcome(choices)?,
            12 => match choices.arbitrary::<u8>()? % 8 {
                0 => self.mesh.on_session(self.now),
                4 => self.mesh.on_substitute(None, self.now),
                5 => self.mesh.on_substitute(Some(testing::destination(SUBSTITUTE)), self.now),
                number => self.mesh.on_data_session(testing::destination(100 + number)),
            },
            13 => {
                self.mood = *choices.choose(&[Mood::Honest, Mood::Failing, Mood::Silent])?;
                if self.mood != Mood::Silent {
                    for (ticket, request) in std::mem::take(&mut self.unanswered) {
                        self.answer(ticket, request);
                    }
                }
            }
            14 => match choices.arbitrary::<u8>()? % 4 {
                0 => self.disk_full = true,
                1 => self.disk_full = false,
                2 => self.restart(self.disk.clone()),
                _ => self.restore_backup(),
            },
            _ => {
                // A datagram of the mesh's own comes back, from anybody and damaged or not.
                let (from, index, flip) =
                    (any_destination(choices)?, choices.arbitrary::<u8>()?, choices.arbitrary::<u16>()?);
                let Some((_, mut bytes)) =
                    self.sent.get(usize::from(index) % self.sent.len().max(1)).cloned()
                else {
                    return Ok(());
                };
                if let Some(byte) = bytes.get_mut(usize::from(flip)) {
                    *byte ^= 1;
                }
                self.deliver(&from, &bytes);
            }
        }
        Ok(())
    }

    fn command(&mut self) -> CommandId {
        self.next_command += 1;
        self.commands.insert(self.next_command);
        self.next_command
    }

    /// A record of any member, right or nearly so.
    fn any_record(&mut self, choices: &mut Unstructured<'_>) -> Result<Signed<Record>> {
        let number = choices.arbitrary::<u8>()? % MEMBERS;
        let mut record = member(number).clone();
        let value = &mut record.value;
        value.sequence = any_sequence(choices)?;
        let change = choices.arbitrary::<u8>()?;
        if change & 1 != 0 {
            value.control = any_destination(choices)?;
        }
        if change & 2 != 0 {
            value.ipv4 = choices.arbitrary::<[u8; 4]>()?.into();
        }
        if change & 4 != 0 {
            let other = choices.arbitrary::<u8>()? % MEMBERS;
            let mut certificate = value.wireguard.value.clone();
            certificate.public_key = [other; 32];
            certificate.not_before = choices.arbitrary()?;
            certificate.not_after = choices.arbitrary()?;
            value.wireguard = signed(certificate, number);
        }
        if change & 8 != 0 {
            value.home = Some(Box::new(any_destination(choices)?));
        }
        let right = match choices.arbitrary::<u8>()? % 8 {
            0 => {
                value.chain = member(number.wrapping_add(1) % MEMBERS).value.chain.clone();
                false
            }
            1 => {
                value.wireguard = testing::wireguard_certificate(number.wrapping_add(1));
                false
            }
            2 => {
                record = signed(record.value, number.wrapping_add(1));
                return Ok(record);
            }
            3 => {
                let mut bytes = signed(record.value.clone(), number).to_bytes();
                let at = usize::from(choices.arbitrary::<u16>()?) % bytes.len();
                bytes[at] ^= choices.arbitrary::<u8>()?.max(1);
                return Ok(Signed::from_bytes(&bytes).unwrap_or(record));
            }
            _ => true,
        };
        // This node's own records come from its own keyd alone.
        let signer = if number == ME { 0 } else { number };
        let record = signed(record.value, signer);
        if right && number != ME {
            self.genuine.insert(record.to_bytes());
        }
        Ok(record)
    }

    /// A pulse or an accusation, rightly signed or not. None says that its member is gone for good.
    fn any_word(&mut self, choices: &mut Unstructured<'_>) -> Result<Item> {
        let (number, other) = (choices.arbitrary::<u8>()? % MEMBERS, choices.arbitrary::<u8>()? % MEMBERS);
        let sequence = any_sequence(choices)?;
        let signer = if choices.ratio(1, 4)? { number.wrapping_add(1) } else { number };
        let signer = if signer == ME { 0 } else { signer };
        Ok(if choices.arbitrary()? {
            let life = if choices.arbitrary()? { pulse::Life::Present } else { pulse::Life::Away };
            Item::Pulse(signed(Pulse { network: network(), node: node(number), sequence, life }, signer))
        } else {
            let issued_at = self.now.unix.as_secs();
            let (accuser, subject) = (node(number), node(other));
            Item::Accusation(signed(
                Accusation { network: network(), accuser, subject, sequence, issued_at },
                signer,
            ))
        })
    }

    /// Whether nothing from there is looked at, since all who take messages there are banned.
    fn is_shut_out(&self, from: &Destination) -> bool {
        let bans = self.mesh.ban_reports();
        let mut owners = self.members.iter().filter(|(_, known)| known.speaks_from(from)).peekable();
        owners.peek().is_some()
            && owners.all(|(node, _)| bans.iter().any(|ban| ban.node_id == node.to_string()))
    }

    /// A datagram comes in. The model learns from it what it should.
    fn deliver(&mut self, from: &Destination, payload: &[u8]) {
        *self.said.entry(from.hash()).or_default() += 1;
        let was_member = self.mesh.network().is_some();
        if self.is_shut_out(from) {
            self.mesh.on_datagram(from, payload, self.now);
            return;
        }
        self.mesh.on_datagram(from, payload, self.now);
        let datagram =
            (payload.len() <= message::MAX_LEN).then(|| Datagram::from_bytes(payload).ok()).flatten();
        let here = testing::destination(ME).hash().into();
        match datagram.filter(|datagram| datagram.to == here).map(|datagram| datagram.message) {
            Some(
                Message::News(gossip)
                | Message::Ping(_, gossip)
                | Message::Ack(_, gossip)
                | Message::PingRequest(_, _, gossip)
                | Message::Compare(_, gossip),
            ) if was_member => {
                for item in gossip.items {
                    match item {
                        Item::Record(record) => self.learn(vec![*record]),
                        Item::Pulse(pulse) if pulse.verify().is_ok() => self.learn_pulse(&pulse.value),
                        _ => {}
                    }
                }
            }
            Some(Message::JoinReply(JoinReply::Welcome(welcome)))
                if !was_member && self.mesh.network().is_some() =>
            {
                let asked = self.asked.iter().any(|number| testing::destination(*number) == *from);
                assert!(asked, "somebody else than the inviter let this node in");
                self.learn(welcome.records);
            }
            _ => {}
        }
    }

    /// The newest record of each node counts, whoever brings it.
    fn learn(&mut self, records: Vec<Signed<Record>>) {
        if self.mesh.network() != Some(network()) {
            return;
        }
        for record in records {
            let value = &record.value;
            let known = self.members.get(&value.node).map(|known| known.sequence);
            let newer = known.is_none_or(|known| known < value.sequence);
            let mut own = (0..64).map(|attempt| Ipv4Subnet::DEFAULT.address_of(&value.node, attempt));
            let derived = own.any(|address| address == value.ipv4);
            if newer && value.node != node(ME) && derived && self.is_genuine(&record) {
                let word = self.members.get(&value.node).map_or(0, |known| known.word);
                let known = known_of(&record);
                self.members.insert(value.node, Known { word: word.max(known.word), ..known });
            }
        }
    }

    fn learn_pulse(&mut self, pulse: &Pulse) {
        if self.mesh.network() == Some(pulse.network)
            && let Some(known) = self.members.get_mut(&pulse.node)
        {
            known.word = known.word.max(pulse.sequence);
        }
    }

    fn is_genuine(&self, record: &Signed<Record>) -> bool {
        members().contains(record) || self.genuine.contains(&record.to_bytes())
    }

    /// A member that asks whether this node is there is answered, whatever others say of themselves; a stranger
    /// never is.
    fn deliver_question(&mut self, from: &Destination, message: &Message) {
        self.questions += 1;
        self.settle();
        let member = self.members.values().any(|known| known.speaks_from(from));
        let listens = self.mesh.published_key().is_some() && !self.is_shut_out(from) && !self.disk_full;
        let before = self.sent.len();
        self.deliver(from, &to_me(message));
        self.settle();
        let mut answers = self.sent[before..].iter().filter(|(to, _)| to == from);
        if !member {
            assert!(answers.next().is_none(), "a stranger was answered");
        } else if let Message::Ping(number, _) = message
            && listens
        {
            let acked = |bytes: &[u8]| {
                let datagram = Datagram::from_bytes(bytes).expect("it sends what can be read");
                matches!(datagram.message, Message::Ack(this, _) if this == *number)
            };
            // Of the first questions it is certain; later ones may be more than there is to be spent.
            let answered = answers.any(|(_, bytes)| acked(bytes));
            assert!(answered || self.questions > CERTAIN, "a member was not answered");
        }
    }

    /// Somebody asks to join, with an invite of this node or with none.
    fn ask_to_join(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let joiner = choices.arbitrary::<u8>()? % 200;
        let index = usize::from(choices.arbitrary::<u8>()?);
        let invite = match self.invites.get(index) {
            Some(invite) => invite.clone(),
            None => testing::invite(ME),
        };
        let mut body = JoinBody {
            network: invite.network,
            inviter: invite.inviter,
            invite: invite.secret.key(),
            joiner: node(joiner),
            control: testing::destination(joiner).hash(),
            issued_at: self.now.unix.as_secs(),
        };
        let mut from = testing::destination(joiner);
        let wrong = choices.arbitrary::<u8>()? % 8;
        match wrong {
            0 => from = testing::destination(joiner.wrapping_add(1)),
            1 => body.network = testing::charter(9).network(),
            2 => body.inviter = node(0),
            _ => {}
        }
        let signer = if wrong == 3 { joiner.wrapping_add(1) } else { joiner };
        let secret = if wrong == 4 { InviteSecret([0xee; 32]) } else { invite.secret.clone() };
        let proof = body.prove(&secret.signing_key());
        let request = JoinRequest { body: signed(body, signer), proof };
        self.deliver(&from, &to_me(&Message::JoinRequest(Box::new(request))));
        Ok(())
    }

    /// The founder lets this node in, or somebody pretends to.
    fn welcome(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let mut records = Vec::new();
        for _ in 0..choices.arbitrary::<u8>()? % 3 {
            records.push(self.any_record(choices)?);
        }
        let from = if choices.ratio(1, 4)? { any_destination(choices)? } else { testing::destination(0) };
        let welcome = Welcome {
            charter: if choices.ratio(1, 8)? { testing::signed_charter(1) } else { charter().clone() },
            chain: member(if choices.ratio(1, 8)? { 2 } else { ME }).value.chain.clone(),
            records,
        };
        self.deliver(&from, &to_me(&Message::JoinReply(JoinReply::Welcome(Box::new(welcome)))));
        Ok(())
    }

    /// Time passes, and the mesh is called as the daemon calls it.
    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix += time;
        self.latest = self.latest.max(self.now.unix);
        for _ in 0..8 {
            if self.mesh.wake_at().is_none_or(|at| at > self.now.monotonic) {
                return;
            }
            self.mesh.on_time(self.now);
            self.settle();
        }
        panic!("the mesh wants to be woken without end");
    }

    /// Carries out what the mesh wants, until it wants nothing more.
    fn settle(&mut self) {
        if self.network.is_some() {
            assert_eq!(self.mesh.network(), self.network, "a member changed its network");
        }
        self.network = self.mesh.network();
        for _ in 0..64 {
            let Turn { save, actions, events } = self.mesh.take_turn();
            self.follow(&events);
            assert!(actions.len() <= MAX_ACTIONS, "{} actions at once", actions.len());
            if save {
                if self.disk_full {
                    let error = ApiError::internal("the disk is full");
                    for (command, _) in self.mesh.on_save_failed(actions, &error, self.now) {
                        assert!(self.commands.remove(&command), "a command was answered twice");
                    }
                    return;
                }
                let state = self.mesh.state().to_bytes();
                let read = State::from_bytes(&state, &node(ME)).expect("what is saved can be read");
                assert_eq!(read.to_bytes(), state);
                self.disk = state;
            } else if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(action);
            }
        }
        panic!("the mesh does not come to rest");
    }

    /// Whoever follows the events knows what one knows who asks.
    fn follow(&mut self, events: &[What]) {
        for event in events.iter().cloned() {
            match event {
                What::NetworkLeft { .. } => self.followed.clear(),
                What::MemberAdded { node_id, name } => {
                    let before = self.followed.insert(node_id, (name, Life::Present));
                    assert!(before.is_none(), "added twice");
                }
                What::MemberChanged { node_id, name } => {
                    self.followed.get_mut(&node_id).expect("changed before it was added").0 = name;
                }
                What::MemberRemoved { node_id, .. } => {
                    assert!(self.followed.remove(&node_id).is_some(), "removed before it was added");
                    // One whose key has expired may be forgotten, and come back by a record from before.
                    let latest = self.latest.as_secs();
                    let kept = |node: &NodeId| node.to_string() != node_id;
                    self.members.retain(|node, known| kept(node) || known.not_after >= latest);
                }
                What::MemberLife { node_id, life, .. } => {
                    let known = self.followed.get_mut(&node_id).expect("a life before it was added");
                    assert_ne!(std::mem::replace(&mut known.1, life), life, "told twice");
                }
                _ => {}
            }
        }
        let asked = self.known();
        assert_eq!(self.followed.len(), asked.len());
        for (node, (name, life)) in asked {
            let (followed_name, followed_life) = &self.followed[&node];
            assert_eq!(*followed_name, name);
            // Whether those who suspect it are enough, and have waited long enough, is looked at now and then.
            let accused = |life| matches!(life, Life::Suspected | Life::Unreachable);
            assert!(
                accused(*followed_life) && accused(life) || *followed_life == life,
                "{followed_life:?} and not {life:?}"
            );
        }
    }

    fn known(&self) -> BTreeMap<String, (String, Life)> {
        let reports = self.mesh.peer_reports(self.now).into_iter();
        reports.map(|(_, peer)| (peer.node_id, (peer.name, peer.life))).collect()
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send { to, message, as_control } => {
                self.check_sent(&to, &message, as_control);
                self.sent.push((to, message));
            }
            Action::LookUp(hash) => {
                let found = (0..3).map(testing::destination).find(|known| known.hash() == hash);
                let found = found.ok_or_else(|| "KEY_NOT_FOUND".to_owned());
                self.mesh.on_found(hash, found, self.now);
            }
            Action::Ask(ticket, request) if self.mood == Mood::Silent => {
                self.unanswered.push((ticket, *request));
                let certifying = |(_, request): &&(Ticket, keyd::Request)| {
                    matches!(request, keyd::Request::CertifyMember(_))
                };
                assert!(self.unanswered.iter().filter(certifying).count() <= MAX_CERTIFYING);
            }
            Action::Ask(ticket, request) => self.answer(ticket, *request),
            Action::Answer(command, result) => {
                assert!(self.commands.remove(&command), "a command was answered twice");
                if let Ok(meshd::Reply::Invite(invite)) = *result {
                    self.invites.push(invite.invite.expose().parse().expect("a whole invite code"));
                }
            }
        }
    }

    /// Nothing goes out but what is in order, and no record but those that their nodes have signed.
    fn check_sent(&self, to: &Destination, bytes: &[u8], as_control: bool) {
        assert!(bytes.len() <= message::MAX_LEN, "{} bytes", bytes.len());
        let datagram = testing::decode_canonically::<Datagram>(bytes).expect("what is sent can be read");
        assert_eq!(datagram.to, to.hash().into(), "it is addressed to another");
        let message = datagram.message;
        let passed_on: Vec<Signed<Record>>;
        let records = match &message {
            Message::News(gossip)
            | Message::Ping(_, gossip)
            | Message::Ack(_, gossip)
            | Message::PingRequest(_, _, gossip)
            | Message::Compare(_, gossip) => {
                let record = |item: &Item| match item {
                    Item::Record(record) => Some((**record).clone()),
                    _ => None,
                };
                passed_on = gossip.items.iter().filter_map(record).collect();
                &passed_on
            }
            Message::JoinReply(JoinReply::Welcome(welcome)) => {
                let network = welcome.charter.value.network();
                assert_eq!(Some(network), self.mesh.network());
                assert_eq!(welcome.chain.verify(&network), Ok(()));
                let joiner = welcome.chain.subject();
                let asked = (0..200).find(|number| node(*number) == *joiner);
                assert_eq!(asked.map(testing::destination).as_ref(), Some(to), "a welcome for somebody else");
                &welcome.records
            }
            Message::JoinRequest(request) => {
                let place = if as_control { ME } else { SUBSTITUTE };
                let from = testing::destination(place).hash();
                assert_eq!(request.body.value.control, from, "it comes from elsewhere than it says");
                return;
            }
            _ => return,
        };
        for record in records {
            assert!(self.is_genuine(record), "passed on what nobody has signed: {record:?}");
        }
    }

    fn answer(&mut self, ticket: Ticket, request: keyd::Request) {
        let reply = if self.mood == Mood::Failing {
            Err(ApiError::unavailable("keyd is not there"))
        } else {
            self.sign(request)
        };
        self.mesh.on_keyd(ticket, reply, self.now);
    }

    /// What an honest `keyd` answers. It finds nothing to refuse.
    fn sign(&mut self, request: keyd::Request) -> std::result::Result<keyd::Reply, ApiError> {
        let (me, unix) = (node(ME), self.now.unix.as_secs());
        Ok(match request {
            keyd::Request::SignCharter(charter) => keyd::Reply::Signature(self.signature(&charter)),
            keyd::Request::SignJoin { body, control } => {
                assert_eq!((body.joiner, body.control), (me, control.hash()));
                assert!([ME, SUBSTITUTE].map(testing::destination).contains(&control));
                keyd::Reply::Signature(self.signature(&*body))
            }
            keyd::Request::SignRecord(record) => {
                assert_eq!(record.node, me);
                assert!(record.sequence > self.last_sequence, "a sequence number was used before");
                self.last_sequence = record.sequence;
                assert_eq!(Some(record.network()), self.mesh.network());
                let signature = self.signature(&*record);
                self.genuine.insert(Signed { value: *record, signature }.to_bytes());
                keyd::Reply::Signature(signature)
            }
            keyd::Request::SignPulse(pulse) => {
                assert_eq!((pulse.node, Some(pulse.network)), (me, self.mesh.network()));
                assert!(pulse.sequence > self.last_sequence, "a sequence number was used before");
                self.last_sequence = pulse.sequence;
                keyd::Reply::Signature(self.signature(&pulse))
            }
            keyd::Request::SignAccusation(accusation) => {
                assert_eq!((accusation.accuser, Some(accusation.network)), (me, self.mesh.network()));
                assert_ne!(accusation.subject, me);
                keyd::Reply::Signature(self.signature(&accusation))
            }
            keyd::Request::CreateInvite(keyd::CreateInvite { network, expires_at, uses }) => {
                let secret = InviteSecret([u8::try_from(self.grants.len()).unwrap_or(0xff); 32]);
                let control = testing::destination(ME).hash();
                let grant = InviteGrant {
                    network,
                    inviter: me,
                    key: secret.key(),
                    created_at: unix,
                    expires_at,
                    uses,
                };
                self.grants.insert(secret.key(), grant.clone());
                let code = Invite { network, inviter: me, control, secret, expires_at }.to_code();
                let code = SecretText::new(code.to_string());
                keyd::Reply::Invite { code, grant: signed(grant, ME) }
            }
            keyd::Request::CertifyMember(certify) => {
                let keyd::CertifyMember { grant, request } = *certify;
                let (key, joiner) = (grant.value.key, request.body.value.joiner);
                assert_eq!(self.grants.get(&key), Some(&grant.value), "an invite that this node never made");
                assert_eq!((request.verify(), request.body.value.invite), (Ok(()), key));
                let certified = self.certified.entry(key).or_default();
                certified.insert(joiner);
                let limit = grant.value.uses.limit().map_or(usize::MAX, |limit| limit as usize);
                assert!(certified.len() <= limit, "an invite was used too often");
                let membership = Membership {
                    network: grant.value.network,
                    issuer: me,
                    subject: joiner,
                    invite: key.id(),
                    issued_at: unix,
                };
                keyd::Reply::Membership(signed(membership, ME))
            }
            keyd::Request::CertifyWireGuard { network, epoch } => {
                let epoch = epoch.unwrap_or_else(|| WireGuardCertificate::epoch_at(unix));
                let not_before = WireGuardCertificate::begins_at(epoch);
                keyd::Reply::WireGuardCertificate(signed(
                    WireGuardCertificate {
                        network,
                        node: me,
                        public_key: [0xaa; 32],
                        epoch,
                        not_before,
                        not_after: not_before + WireGuardCertificate::MAX_AGE,
                    },
                    ME,
                ))
            }
            _ => panic!("meshd asked what it may not"),
        })
    }

    fn signature<T: Signable>(&self, value: &T) -> Signature {
        value.sign(key(ME))
    }

    /// The daemon starts anew with what is on the disk.
    fn restart(&mut self, disk: Vec<u8>) {
        let state = State::from_bytes(&disk, &node(ME)).expect("what was saved can be read");
        self.members = state
            .members
            .iter()
            .map(|member| {
                let known = known_of(&member.record);
                let word = member.pulse.as_ref().map_or(0, |pulse| pulse.value.sequence);
                (member.record.value.node, Known { word: word.max(known.word), ..known })
            })
            .collect();
        self.network = state.membership.as_ref().map(|membership| membership.charter.value.network());
        self.mesh = mesh(state, true, self.now);
        self.followed = self.known();
        // Their users have gone with the daemon.
        self.commands.clear();
        self.unanswered.clear();
        self.disk = disk;
    }

    /// An old state is put back. What was counted since is forgotten; that is the price.
    fn restore_backup(&mut self) {
        let disk = std::mem::replace(&mut self.old_disk, self.disk.clone());
        self.restart(disk);
        self.certified.clear();
        self.last_sequence = 0;
    }

    /// The mesh knows what the model knows, and gives `tund` nothing that it would refuse.
    fn check(&self) {
        let reports = self.mesh.peer_reports(self.now);
        // A member may be forgotten whose key has expired, and no other.
        for (node, known) in &self.members {
            let there = reports.iter().any(|(reported, _)| reported == node);
            assert!(there || known.not_after < self.latest.as_secs(), "a member was forgotten");
        }
        for (node, report) in &reports {
            let known = self.members.get(node).expect("a member that nobody has let in");
            assert_eq!((report.ipv4, &report.endpoint), (known.ipv4, &known.data.hash().b32()));
        }
        let status = self.mesh.network_status();
        assert_eq!(status.map_or(1, |status| status.members), reports.len() as u64 + 1);
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        keys.extend(self.mesh.published_key());
        addresses.extend(self.mesh.interface().map(|interface| interface.ipv4));
        let bans = self.mesh.ban_reports();
        for peer in self.mesh.peers(self.now) {
            assert!(!bans.iter().any(|ban| ban.node_id == peer.node.to_string()), "a banned peer");
            assert!(keys.insert(peer.public_key), "two peers with one key");
            assert!(peer.ipv4.is_none_or(|address| addresses.insert(address)), "two peers with one address");
        }
    }
}

fn mesh(state: State, session: bool, now: Now) -> Mesh {
    let identity = keyd::Identity { node: node(ME), control: testing::destination(ME), sealed: false };
    let settings = Settings {
        name: "fuzz".parse().expect("a name"),
        subnet: Ipv4Subnet::DEFAULT,
        heartbeat: Duration::from_secs(30),
        peer_timeout: Duration::from_secs(300),
        max_peers: 50,
        control_rate: 2000,
        interface: "i2plan0".to_owned(),
        mtu: 1280,
        keepalive: 25,
    };
    let mut mesh = Mesh::new(identity, settings, state, [7; 32], now);
    if session {
        mesh.on_data_session(testing::destination(100));
    }
    mesh
}

fn known_of(record: &Signed<Record>) -> Known {
    let Record { sequence, control, data, ipv4, .. } = record.value;
    let home = record.value.home.as_deref().copied();
    let not_after = record.value.wireguard.value.not_after;
    Known { sequence, word: sequence, control, home, data, ipv4, not_after }
}

/// A node's key, as in [`testing`], but made once: a sanitizer makes that slow.
fn key(number: u8) -> &'static SigningKey {
    static MADE: LazyLock<Vec<SigningKey>> = LazyLock::new(|| (0..=u8::MAX).map(testing::key).collect());
    &MADE[usize::from(number)]
}

fn node(number: u8) -> NodeId {
    NodeId(key(number).verifying_key().to_bytes())
}

fn signed<T: Signable>(value: T, number: u8) -> Signed<T> {
    let signature = value.sign(key(number));
    Signed { value, signature }
}

/// A record of each member, made once: to sign is slow.
fn members() -> &'static [Signed<Record>] {
    static MADE: LazyLock<Vec<Signed<Record>>> = LazyLock::new(|| {
        let by_founder = |number| {
            let mut record = testing::record(0).value;
            record.node = node(number);
            record.control = testing::destination(number);
            record.data = testing::destination(number + 100);
            record.ipv4 = Ipv4Subnet::DEFAULT.address_of(&record.node, 0);
            record.wireguard = testing::wireguard_certificate(number);
            let founder = Chain::founder(node(0));
            record.chain =
                founder.extended(&testing::membership(0, number)).expect("the founder's certificate");
            signed(record, number)
        };
        (0..MEMBERS)
            .map(|number| if number <= 8 { testing::record(number) } else { by_founder(number) })
            .collect()
    });
    &MADE
}

fn member(number: u8) -> &'static Signed<Record> {
    &members()[usize::from(number)]
}

/// The charter of the network that this node is in or comes into.
fn charter() -> &'static Signed<Charter> {
    static MADE: LazyLock<Signed<Charter>> = LazyLock::new(|| testing::signed_charter(0));
    &MADE
}

fn network() -> NetworkId {
    charter().value.network()
}

/// The datagram that takes it to the node.
fn to_me(message: &Message) -> Vec<u8> {
    message.to_datagram(&testing::destination(ME))
}

fn any_destination(choices: &mut Unstructured<'_>) -> Result<Destination> {
    Ok(testing::destination(choices.arbitrary::<u8>()? % (2 * MEMBERS)))
}

fn any_sequence(choices: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match choices.arbitrary::<u8>()? {
        0xff => u64::MAX,
        0xfe => 0,
        number => u64::from(number),
    })
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    const MEMBER: u8 = 1;
    // See `World::step` for what the numbers mean: 9 makes an invite, 4 asks to join, 1 brings records, and so on.
    let record = |number: u8, sequence: u8| [1, number, 0, number, sequence, 0, 7];
    let known: Vec<u8> = [0, 2, 3, 9, 10].iter().flat_map(|number| record(*number, 50)).collect();
    let script = |parts: &[&[u8]]| [&[MEMBER], parts.concat().as_slice()].concat();
    let digest: &[u8] = &[3, 2, 5, 1, 3, 60, 9, 4];
    let compare: &[u8] = &[3, 2, 0, 1, 3, 60, 9, 4];
    let word = |number: u8, other: u8, pulse: u8| [6, 0, 2, number, other, 60, 1, pulse, 0];
    let invite: &[u8] = &[9, 0xff, 0x0f, 2];
    let day: &[u8] = &[7, 0xff, 0xff];
    let items = vec![Item::Record(Box::new(testing::record(2)))];
    let raw = to_me(&Message::news(items));
    let len = u16::try_from(raw.len()).expect("shorter than a datagram").to_le_bytes();
    let many_joiners: Vec<u8> = (50..90).flat_map(|joiner| [4, joiner, 0, 7]).collect();
    vec![
        seed("alone", script(&[day])),
        seed("raw", script(&[&[0, 2], &len, &raw])),
        seed("records", script(&[&known, digest, day])),
        seed("compare", script(&[&known, compare, &[3, 2, 1, 0, 9, 4], &[3, 2, 2, 1, 3, 1, 9, 4], day])),
        seed("relay", script(&[&known, &[3, 2, 4, 0, 9, 3], &[3, 3, 3, 0, 9, 3]])),
        seed(
            "words",
            script(&[&known, &word(2, 3, 1), &word(3, 2, 0), &word(9, 2, 0), &word(10, 2, 0), day]),
        ),
        seed("newer", script(&[&known, &record(2, 51), &record(2, 49), digest])),
        seed("wrong-chain", script(&[&[1, 2, 0, 2, 50, 0, 0]])),
        seed("wrong-certificate", script(&[&[1, 2, 0, 2, 50, 0, 1]])),
        seed("wrong-signer", script(&[&[1, 2, 0, 2, 50, 0, 2]])),
        seed("flipped", script(&[&[1, 2, 0, 2, 50, 0, 3, 9, 0, 1]])),
        seed("own-record", script(&[&[1, 2, 0, 1, 0xff, 0, 7], digest])),
        seed("claims-control", script(&[&known, &[1, 3, 0, 3, 60, 1, 2, 7], &record(3, 61), digest])),
        seed("home", script(&[&known, &[1, 3, 0, 3, 60, 8, 70, 7], &[3, 70, 5, 1, 3, 60, 9, 4], digest])),
        seed("claims-address", script(&[&known, &[1, 3, 0, 3, 60, 2, 10, 42, 0, 9, 7]])),
        seed(
            "claims-key",
            script(&[
                &known,
                &[1, 3, 0, 3, 60, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127, 7],
            ]),
        ),
        seed("joiners", script(&[invite, &[4, 50, 0, 7, 4, 51, 0, 7, 4, 50, 0, 7, 4, 52, 0, 7]])),
        seed(
            "joiners-wrong",
            script(&[invite, &[4, 50, 0, 0, 4, 50, 0, 1, 4, 50, 0, 2, 4, 50, 0, 3, 4, 50, 0, 4]]),
        ),
        seed("joiners-many", script(&[&[9, 0xff, 0x0f, 0xff], &[13, 2], &many_joiners, &[13, 0]])),
        seed(
            "restart",
            script(&[invite, &[4, 50, 0, 7], &known, day, &[14, 2], &[4, 51, 0, 7, 4, 52, 0, 7]]),
        ),
        seed("backup", script(&[day, &[14, 3], day, &[15, 2, 0, 0xff, 0xff], digest])),
        seed("disk-full", script(&[&[14, 0], invite, day, &[14, 1], invite])),
        seed("clock", script(&[&[8, 0, 0, 0, 0], day, &[8, 255, 255, 255, 255], day])),
        seed("silent", script(&[&[13, 2], day, &[12, 1], &[12, 2], &[13, 1], day, &[13, 0], day])),
        seed("join", [&[0, 10, 0], &[11, 0, 7, 7, 7][..], day].concat()),
        seed(
            "join-substitute",
            [&[0, 10, 0, 12, 5][..], &[7, 15, 0, 12, 4, 12, 5], &[11, 0, 7, 7, 7], day, &[12, 4]].concat(),
        ),
        seed("join-unanswered", [&[0, 10, 0], day, &[10, 0]].concat()),
        seed("join-without-session", [&[2, 10, 0], &[11, 0, 7, 7, 7][..], day, &[12, 1]].concat()),
        seed("found", [&[0], invite, &[4, 50, 0, 7], day].concat()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(name: &str) -> World {
        let seeds = seeds();
        let (_, input) = seeds.iter().find(|(seed, _)| seed == name).expect("a seed");
        play(input)
    }

    /// Otherwise the target would prove nothing of members and joiners.
    #[test]
    fn seeds_get_where_they_should() {
        assert_eq!(after("records").members.len(), 5);
        for name in ["wrong-chain", "wrong-certificate", "wrong-signer", "flipped", "own-record"] {
            assert_eq!(after(name).members.len(), 0, "{name}");
        }
        let joiners = |name| after(name).certified.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!([joiners("joiners"), joiners("joiners-wrong"), joiners("joiners-many")], [2, 0, 32]);
        for name in ["join", "join-substitute"] {
            assert_eq!(after(name).network, Some(network()), "{name}");
        }
        assert!(after("found").network.is_some_and(|founded| founded != network()));
        assert!(after("join-without-session").commands.is_empty());
    }
}
