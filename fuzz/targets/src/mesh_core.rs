//! `meshd`'s mesh: one member of a network, among members, strangers and liars.
//!
//! The input is a list of things that happen. Some datagrams are arbitrary bytes; others are rightly signed, or
//! nearly so. Beside the mesh runs the simplest model of what it should know, and the two must agree:
//!
//! * Of each member the newest record counts, whose chain says what the member's addresses are.
//! * A record is over if and only if an ending that is known voids its chain.
//! * Two chains conflict where they part, if the certificates there delegate common addresses; the lower serial number
//!   stands, or the later certificate if it replaces the earlier. Addresses change their holder so once an hour.
//! * This node delegates no address to two members, and gives no number to two statements.
//! * A member is banned for statements that it has signed itself, and for nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ed25519_dalek::SigningKey;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, EventKind, Liveness};
use i2plan_ipc::api::order::{Executed, Order};
use i2plan_ipc::secret::SecretText;
use i2plan_meshd::core::state::{self, Ending, State};
use i2plan_meshd::core::{Action, CommandId, Mesh, Now, Settings, Ticket, Turn};
use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{
    Destination, DestinationHash, DestinationProof, DestinationRole, ProvenDestination,
};
use i2plan_proto::identity::{NetworkId, NodeId, Signable, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteGrant, InviteId, InviteKey, InviteSecret};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::liveness::{self, LivenessMessage};
use i2plan_proto::membership::{CertificateId, Chain, ChainLink, Charter, Delegation, Membership};
use i2plan_proto::message::{self, Content, Datagram, Entry, Gossip, Item, Message, Range};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use i2plan_testing::{self as testing, NOW};

use crate::{Seeds, seed};

/// The number of the node whose mesh it is. Node 0 is the founder and has invited it.
const ME: u8 = 1;

/// Stands for the destination that may take its control destination's place.
const FALLBACK: u8 = 210;

/// Members that can appear: up to 8 by a chain of that length, the others invited by the founder.
const MEMBERS: u8 = 40;

/// Chains that a member can have: the first, that of a new membership, one with more addresses, one by another member.
const VARIANTS: u8 = 4;

/// Offences within an hour that lead to a ban.
const STRIKES: u32 = 5;

/// Contested addresses change their holder once in this time.
const SETTLED: Duration = Duration::from_secs(3600);

/// Addresses that were in use are not given to another member for this time, seconds.
const WAIT: u64 = 30 * 24 * 3600;

/// Records of members whose keys have expired for longer than this are not taken, seconds.
const FORGET_AFTER: u64 = 7 * 24 * 3600;

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
    let counter = if start & 4 == 0 { 0 } else { u64::MAX - 2 };
    let mut world = World::new(start & 1 != 0, start & 2 == 0, counter);
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
#[derive(Debug, Clone)]
struct Known {
    record: Record,
    /// The number of its last statement, which may be a liveness message.
    sequence: u64,
}

impl Known {
    fn speaks_from(&self, from: &Destination) -> bool {
        let primary = self.record.primary.as_ref().map(|primary| primary.destination);
        self.record.control.destination == *from || primary == Some(*from)
    }

    /// After this, Unix time in seconds, it may be forgotten.
    fn not_after(&self) -> u64 {
        self.record.wireguard.value.not_after
    }
}

/// What this node has delegated, or has been seen to have delegated.
#[derive(Debug, Clone)]
struct Issued {
    chain: Chain,
    ended_at: Option<u64>,
}

impl Issued {
    fn last(&self) -> &ChainLink {
        self.chain.last().expect("the founder is delegated nothing")
    }
}

/// What a user waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Revoke(NodeId),
    Other,
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
    charter: Option<Charter>,
    /// This node's own chain, while it is a member.
    chain: Option<Chain>,
    members: BTreeMap<NodeId, Known>,
    endings: Vec<Ending>,
    /// When contested addresses have changed their holder.
    changes: Vec<(AddressRange, Duration)>,
    issued: Vec<Issued>,
    /// Statements that no honest node signs, by who has signed them.
    offences: BTreeMap<NodeId, u32>,
    /// It has been started again, and no member has compared its state with it since.
    must_compare: bool,
    /// Every record that its node has signed and that is right in all its parts.
    genuine: HashSet<Vec<u8>>,
    /// The highest number that this node has given to a statement.
    last_number: u64,
    invites: Vec<Invite>,
    grants: BTreeMap<InviteKey, InviteGrant>,
    certified: BTreeMap<InviteKey, BTreeSet<NodeId>>,
    commands: BTreeMap<CommandId, Command>,
    revoked_invites: BTreeSet<InviteId>,
    next_command: CommandId,
    /// Whose invites were tried.
    asked: BTreeSet<u8>,
    sent: Vec<(Destination, Vec<u8>)>,
    /// How often it was asked for something.
    questions: usize,
    /// `keyd` has failed, so that uses and addresses may be taken for which there is no certificate.
    has_failed: bool,
    /// It has begun to compare notes with others since it was started again.
    is_catching_up: bool,
    /// Datagrams of each sender since none had been heard for long.
    said: HashMap<DestinationHash, u32>,
    /// The other members as one knows them who was told of them at the start and follows the events.
    followed: BTreeMap<String, (String, Liveness)>,
}

impl World {
    /// A node that is a member already or not yet, and has a session for data or not.
    fn new(is_member: bool, session: bool, counter: u64) -> Self {
        let mut state = State::new(node(ME));
        state.counter = counter;
        if is_member {
            let (charter, chain) = (charter().clone(), chain(ME, 0).clone());
            state.membership = Some(state::Membership { charter, chain, epoch: None });
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
            charter: is_member.then(|| charter().value.clone()),
            chain: is_member.then(|| chain(ME, 0).clone()),
            members: BTreeMap::new(),
            endings: Vec::new(),
            changes: Vec::new(),
            issued: Vec::new(),
            offences: BTreeMap::new(),
            must_compare: false,
            genuine: HashSet::new(),
            last_number: counter,
            invites: Vec::new(),
            grants: BTreeMap::new(),
            certified: BTreeMap::new(),
            commands: BTreeMap::new(),
            revoked_invites: BTreeSet::new(),
            next_command: 0,
            asked: BTreeSet::new(),
            sent: Vec::new(),
            questions: 0,
            has_failed: false,
            is_catching_up: false,
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
        let kind = choices.arbitrary::<u8>()?;
        if kind >= 0xc0 {
            return self.step_of_membership(kind, choices);
        }
        match kind % 16 {
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
                        record: any_number(choices)?,
                        liveness: 0,
                        ended: choices.ratio(1, 8)?,
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
                let seconds = match choices.arbitrary::<u32>()? {
                    // The end of the year 9999.
                    u32::MAX => 253_402_300_799,
                    seconds => u64::from(seconds).saturating_mul(2),
                };
                self.now.unix = Duration::from_secs(seconds);
                self.latest = self.latest.max(self.now.unix);
            }
            9 => {
                let (expires_in, uses) = (choices.arbitrary::<u16>()?, choices.arbitrary::<u8>()?);
                let command = self.command(Command::Other);
                let uses = (uses != 0xff).then_some(u32::from(uses));
                let addresses = match choices.arbitrary::<u8>()? {
                    number @ 1..=20 => Some(1 << number),
                    0xff => Some(choices.arbitrary()?),
                    _ => None,
                };
                self.mesh.create_invite(command, expires_in.into(), uses, addresses, self.now);
            }
            10 => {
                let inviter = choices.arbitrary::<u8>()? % 3;
                self.asked.insert(inviter);
                let command = self.command(Command::Other);
                self.mesh.join(command, &testing::invite(inviter).to_code(), self.now);
            }
            11 => self.welcome(choices)?,
            12 => match choices.arbitrary::<u8>()? % 8 {
                0 => self.mesh.handle_control_session(self.now),
                4 => self.mesh.handle_fallback(None, self.now),
                5 => self.mesh.handle_fallback(Some(testing::destination(FALLBACK)), self.now),
                number => self.mesh.handle_data_session(testing::destination(100 + number)),
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

    /// What users do with memberships, and what members say of theirs.
    fn step_of_membership(&mut self, kind: u8, choices: &mut Unstructured<'_>) -> Result<()> {
        let any_id = |choices: &mut Unstructured<'_>| Ok(node(choices.arbitrary::<u8>()? % 60).to_string());
        match kind % 16 {
            0..=3 => {
                let from = any_destination(choices)?;
                let mut items = Vec::new();
                for _ in 0..=choices.arbitrary::<u8>()? % 3 {
                    items.push(self.any_ending(choices)?);
                }
                self.deliver(&from, &to_me(&Message::news(items)));
            }
            4 | 5 => self.publish_of_joiner(choices)?,
            6 => {
                let from = any_destination(choices)?;
                let chain = self.any_grant(choices)?;
                self.deliver(&from, &to_me(&Message::Grant(Box::new(chain))));
            }
            7 | 8 => {
                let number = choices.arbitrary::<u8>()? % 200;
                let command = self.command(Command::Revoke(node(number)));
                self.mesh.revoke(command, &node(number).to_string());
            }
            9 => {
                let index = usize::from(choices.arbitrary::<u8>()?);
                let with_members = choices.arbitrary()?;
                let Some(id) = self.invites.get(index % self.invites.len().max(1)).map(Invite::id) else {
                    return Ok(());
                };
                self.revoked_invites.insert(id);
                let command = self.command(Command::Other);
                self.mesh.revoke_invite(command, &id.to_string(), with_members, self.now);
            }
            10 => {
                let (number, size) = (choices.arbitrary::<u8>()? % 200, choices.arbitrary::<u8>()?);
                let command = self.command(Command::Other);
                let addresses = if size == 0xff { choices.arbitrary()? } else { 1 << (size % 20) };
                self.mesh.grant(command, &node(number).to_string(), addresses, self.now);
            }
            11 => {
                let (id, seconds) = (any_id(choices)?, choices.arbitrary::<u16>()?);
                let command = self.command(Command::Other);
                let duration = (seconds != 0).then_some(u64::from(seconds));
                self.mesh.add_ban(command, &id, "a reason".to_owned(), duration, self.now);
            }
            12 => {
                let id = any_id(choices)?;
                let command = self.command(Command::Other);
                self.mesh.remove_ban(command, &id);
            }
            13 if choices.ratio(1, 4)? => {
                let command = self.command(Command::Other);
                self.mesh.leave(command);
            }
            13 => {
                let command = self.command(Command::Other);
                self.mesh.rotate_key(command, self.now);
            }
            _ => {
                // A month, in which addresses become free again.
                self.pass(Duration::from_secs(WAIT));
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> CommandId {
        self.next_command += 1;
        self.commands.insert(self.next_command, command);
        self.next_command
    }

    /// A record of any member, right or nearly so.
    fn any_record(&mut self, choices: &mut Unstructured<'_>) -> Result<Signed<Record>> {
        let number = choices.arbitrary::<u8>()? % MEMBERS;
        let mut value = member(number).value.clone();
        value.sequence = any_number(choices)?;
        let change = choices.arbitrary::<u8>()?;
        if change & 1 != 0 {
            value.control =
                proven(&network(), any_number_of_destination(choices)?, number, DestinationRole::Primary);
        }
        if change & 2 != 0 {
            value.chain = chain(number, choices.arbitrary::<u8>()? % VARIANTS).clone();
        }
        if change & 4 != 0 {
            let other = choices.arbitrary::<u8>()? % MEMBERS;
            let mut certificate = value.wireguard.value.clone();
            certificate.key = member(other).value.wireguard.value.key;
            certificate.not_before = choices.arbitrary()?;
            certificate.not_after = choices.arbitrary()?;
            value.wireguard = signed(certificate, number);
        }
        if change & 8 != 0 {
            let (primary, fallback) =
                (any_number_of_destination(choices)?, any_number_of_destination(choices)?);
            value.primary = Some(Box::new(proven(&network(), primary, number, DestinationRole::Primary)));
            value.control = proven(&network(), fallback, number, DestinationRole::Fallback);
        }
        if change & 16 != 0 {
            value.issued_at = *choices.choose(&[0, self.now.unix.as_secs(), u64::MAX])?;
        }
        // This node's own records come from its own keyd alone.
        let signer = if number == ME { 0 } else { number };
        let next = number.wrapping_add(1) % MEMBERS;
        match choices.arbitrary::<u8>()? % 9 {
            0 => value.chain = member(next).value.chain.clone(),
            1 => value.wireguard = testing::wireguard_certificate(next),
            2 => return Ok(signed(value, number.wrapping_add(1))),
            3 => {
                let record = signed(value, signer);
                let mut bytes = record.to_bytes();
                let at = usize::from(choices.arbitrary::<u16>()?) % bytes.len();
                bytes[at] ^= choices.arbitrary::<u8>()?.max(1);
                return Ok(Signed::from_bytes(&bytes)
                    .unwrap_or_else(|_| signed(record.value, number.wrapping_add(1))));
            }
            8 => value.data = proven(&network(), number.wrapping_add(100), next, DestinationRole::Data),
            _ => {
                let is_right =
                    value.wireguard.value.not_after.saturating_sub(value.wireguard.value.not_before)
                        <= WireGuardCertificate::MAX_AGE;
                let record = signed(value, signer);
                if !is_right {
                    self.note_offence(signer);
                } else if number != ME {
                    self.genuine.insert(record.to_bytes());
                }
                return Ok(record);
            }
        }
        self.note_offence(signer);
        Ok(signed(value, signer))
    }

    /// A node has signed what no honest node signs.
    fn note_offence(&mut self, number: u8) {
        *self.offences.entry(node(number)).or_default() += 1;
    }

    /// The end of a membership, rightly signed by one who may, or nearly so.
    fn any_ending(&mut self, choices: &mut Unstructured<'_>) -> Result<Item> {
        let number = choices.arbitrary::<u8>()? % MEMBERS;
        let variant = choices.arbitrary::<u8>()? % VARIANTS;
        let ended = match &self.chain {
            Some(own) if number == ME && own.network() == network() => own.clone(),
            _ => chain(number, variant).clone(),
        };
        let issued_at = *choices.choose(&[0, NOW, u64::MAX])?;
        let place = usize::from(choices.arbitrary::<u8>()?) % ended.depth().max(1);
        let above =
            ended.ancestors().nth(place).and_then(number_of).filter(|above| *above != ME).unwrap_or(0);
        let wrong = choices.arbitrary::<u8>()?;
        Ok(match choices.arbitrary::<u8>()? % 8 {
            0 | 1 if number != ME || wrong == 7 => {
                let signer = if number == ME { 0 } else { number };
                let last_serial = last_serial(number);
                let resignation = Resignation { chain: ended, last_serial, issued_at };
                Item::Resignation(Box::new(signed(resignation, signer)))
            }
            2 => {
                let (issuer, target) =
                    (node(above), Target::Invite(chain(above, 0).clone(), testing::invite(number).id()));
                Item::Revocation(Box::new(signed(Revocation { issuer, target, issued_at }, above)))
            }
            3 => {
                // One who is not above signs it.
                let other = if wrong % MEMBERS == ME { 0 } else { wrong % MEMBERS };
                if !ended.is_ancestor(&node(other)) {
                    self.note_offence(other);
                }
                let revocation =
                    Revocation { issuer: node(other), target: Target::Certificate(ended), issued_at };
                Item::Revocation(Box::new(signed(revocation, other)))
            }
            kind => {
                let target = Target::Certificate(ended);
                let issuer = node(above);
                if !target.chain().is_ancestor(&issuer) {
                    self.note_offence(above);
                }
                let signer = if kind == 4 { above.wrapping_add(1) } else { above };
                let signer = if signer == ME { 2 } else { signer };
                Item::Revocation(Box::new(signed(Revocation { issuer, target, issued_at }, signer)))
            }
        })
    }

    /// A chain with which the founder delegates more addresses to this node, or nearly so.
    fn any_grant(&mut self, choices: &mut Unstructured<'_>) -> Result<Chain> {
        let (wrong, more) = (choices.arbitrary::<u8>()?, choices.arbitrary::<u8>()? % 16);
        let serial = 20 + u64::from(choices.arbitrary::<u8>()?);
        let mut ranges: Vec<AddressRange> = testing::ranges(ME).iter().copied().collect();
        if wrong == 1 {
            ranges.clear();
        }
        ranges.push(AddressRange::of_size(0x0a2a_7000 + u32::from(more) * 256, 256).expect("aligned"));
        let ranges = AddressRanges::new(ranges).expect("ranges that lie apart");
        let grant = Delegation { ranges, serial, ..testing::delegation(0, ME) };
        let founder = Chain::founder(&charter().value);
        let signer = if wrong == 2 { 3 } else { 0 };
        Ok(founder.appended(&signed(founder.certificate(grant), signer)))
    }

    /// A node that this node has admitted publishes its record.
    fn publish_of_joiner(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let (index, sequence) = (usize::from(choices.arbitrary::<u8>()?), any_number(choices)?);
        let Some(issued) = self.issued.get(index % self.issued.len().max(1)) else { return Ok(()) };
        let Some(number) = number_of(issued.chain.subject()).filter(|number| *number != ME) else {
            return Ok(());
        };
        let record = signed(Record { sequence, ..record_of(number, issued.chain.clone()) }, number);
        self.genuine.insert(record.to_bytes());
        let items = vec![Item::Record(Box::new(record))];
        self.deliver(&testing::destination(number), &to_me(&Message::news(items)));
        Ok(())
    }

    /// A liveness message or a suspicion, rightly signed or not. None says that its member is gone for good.
    fn any_word(&mut self, choices: &mut Unstructured<'_>) -> Result<Item> {
        let (number, other) = (choices.arbitrary::<u8>()? % MEMBERS, choices.arbitrary::<u8>()? % MEMBERS);
        let sequence = any_number(choices)?;
        let signer = if choices.ratio(1, 4)? { number.wrapping_add(1) } else { number };
        let signer = if signer == ME { 0 } else { signer };
        Ok(if choices.arbitrary()? {
            let presence =
                if choices.arbitrary()? { liveness::Presence::Present } else { liveness::Presence::Away };
            Item::Liveness(signed(
                LivenessMessage { network: network(), node: node(number), sequence, presence },
                signer,
            ))
        } else {
            let issued_at = self.now.unix.as_secs();
            let (confirmer, subject) = (node(number), node(other));
            Item::Suspicion(signed(
                Suspicion { network: network(), confirmer, subject, sequence, issued_at },
                signer,
            ))
        })
    }

    /// Whether nothing from there is looked at, since a member that takes messages there is banned.
    fn is_shut_out(&self, from: &Destination) -> bool {
        let bans = self.mesh.ban_reports();
        let mut owners = self.members.iter().filter(|(_, known)| known.speaks_from(from));
        owners.any(|(node, _)| bans.iter().any(|ban| ban.node_id == node.to_string()))
    }

    /// A datagram comes in. The model learns from it what it should.
    fn deliver(&mut self, from: &Destination, payload: &[u8]) {
        *self.said.entry(from.hash()).or_default() += 1;
        let was_member = self.mesh.network().is_some();
        let counter = self.mesh.state().counter;
        let (is_shut_out, speaks) = (self.is_shut_out(from), self.mesh.published_key().is_some());
        self.mesh.handle_datagram(from, payload, self.now);
        if is_shut_out {
            return;
        }
        let datagram =
            (payload.len() <= message::MAX_LEN).then(|| Datagram::from_bytes(payload).ok()).flatten();
        let here = testing::destination(ME).hash().into();
        let Some(message) = datagram.filter(|datagram| datagram.to == here).map(|datagram| datagram.message)
        else {
            return;
        };
        if let Message::Compare(..) = message {
            let is_member = self.members.values().any(|known| known.speaks_from(from));
            if is_member && speaks && self.must_compare {
                (self.must_compare, self.is_catching_up) = (false, true);
            }
        }
        match message {
            Message::News(gossip)
            | Message::Ping(_, gossip)
            | Message::Ack(_, gossip)
            | Message::PingRequest(_, _, gossip)
            | Message::Compare(_, gossip)
                if was_member =>
            {
                for item in gossip.items {
                    match item {
                        Item::Record(record) if record.value.node == node(ME) => {
                            self.learn_own(&record, counter);
                        }
                        Item::Record(record) => self.learn(*record, true),
                        Item::Liveness(liveness_message) if liveness_message.verify().is_ok() => {
                            self.learn_liveness_message(&liveness_message.value);
                        }
                        Item::Revocation(revocation) => self.end(Ending::Revocation(revocation)),
                        Item::Resignation(resignation) => self.end(Ending::Resignation(resignation)),
                        _ => {}
                    }
                }
            }
            Message::JoinReply(JoinReply::Welcome(welcome))
                if !was_member && self.mesh.network().is_some() =>
            {
                let asked = self.asked.iter().any(|number| testing::destination(*number) == *from);
                assert!(asked, "somebody else than the inviter let this node in");
                assert_eq!(welcome.chain.verify(&welcome.charter.value), Ok(()));
                assert_eq!(*welcome.chain.subject(), node(ME));
                (self.charter, self.chain) = (Some(welcome.charter.value), Some(welcome.chain));
                welcome.records.into_iter().for_each(|record| self.learn(record, false));
                self.must_compare = !self.members.is_empty();
            }
            Message::Grant(chain) if was_member => self.learn_grant(*chain),
            _ => {}
        }
    }

    /// The newest record of each node counts, whoever brings it, unless its membership is over or its addresses are
    /// another's.
    fn learn(&mut self, record: Signed<Record>, checks_time: bool) {
        let value = &record.value;
        let is_newer =
            self.members.get(&value.node).is_none_or(|known| known.record.sequence < value.sequence);
        let is_here = self.charter.as_ref().map(Charter::network) == Some(value.network());
        if !is_newer || !is_here || value.node == node(ME) || !self.is_genuine(&record) {
            return;
        }
        if checks_time && !self.is_timely(value) {
            return;
        }
        if checks_time {
            self.learn_issued(&value.chain);
        }
        if self.endings.iter().any(|ending| ending.voids(&value.chain).is_some()) {
            return;
        }
        // Its own record before does not conflict with it.
        let others = self.members.values().map(|known| &known.record);
        let others =
            others.filter(|other| other.node != value.node).map(|other| &other.chain).chain(&self.chain);
        let others: Vec<&Chain> = others.collect();
        let conflicts: Vec<(&ChainLink, &ChainLink)> =
            others.iter().filter_map(|other| conflict(&value.chain, other)).collect();
        if conflicts.iter().any(|(mine, theirs)| !stands(mine, theirs)) {
            return;
        }
        let is_known = |link: &ChainLink| {
            others.iter().any(|chain| chain.links().contains(link))
                || self
                    .members
                    .get(&value.node)
                    .is_some_and(|known| known.record.chain.links().contains(link))
        };
        let contested: Vec<AddressRange> = conflicts
            .iter()
            .filter(|(mine, theirs)| !(is_known(mine) || mine.replaces && theirs.since < mine.since))
            .flat_map(|(mine, theirs)| {
                mine.ranges.iter().filter(|range| theirs.ranges.iter().any(|other| range.overlaps(other)))
            })
            .copied()
            .collect();
        let now = self.now.monotonic;
        self.changes.retain(|(_, at)| now < *at + SETTLED);
        if contested.iter().any(|range| self.changes.iter().any(|(other, _)| other.overlaps(range))) {
            return;
        }
        let fallen: Vec<ChainLink> = conflicts.iter().map(|(_, theirs)| (*theirs).clone()).collect();
        self.changes.extend(contested.into_iter().map(|range| (range, now)));
        let node = value.node;
        self.members.retain(|other, known| {
            *other == node || !known.record.chain.links().iter().any(|link| fallen.contains(link))
        });
        let sequence = self.members.get(&node).map_or(0, |known| known.sequence).max(value.sequence);
        self.members.insert(node, Known { record: record.value, sequence });
    }

    /// Not from the future, and with a key that has begun and has not been over for long.
    fn is_timely(&self, record: &Record) -> bool {
        let unix = self.now.unix.as_secs();
        let latest = unix.saturating_add(WireGuardCertificate::CLOCK_TOLERANCE);
        let certificate = &record.wireguard.value;
        record.issued_at.max(certificate.not_before) <= latest
            && unix <= certificate.not_after.saturating_add(FORGET_AFTER)
    }

    /// What this node has delegated is found in the chains of others.
    fn learn_issued(&mut self, chain: &Chain) {
        let Some(place) = chain.ancestors().position(|issuer| *issuer == node(ME)) else { return };
        let mut chain = chain.clone();
        while chain.depth() > place + 1 {
            chain = chain.parent().expect("a chain with links");
        }
        let is_ended = self.endings.iter().any(|ending| ending.voids(&chain).is_some());
        if !is_ended && !self.issued.iter().any(|issued| issued.chain == chain) {
            self.issued.push(Issued { chain, ended_at: None });
        }
    }

    /// A record of this node that it has forgotten says which is its chain.
    fn learn_own(&mut self, record: &Signed<Record>, counter: u64) {
        let is_here = self.charter.as_ref().map(Charter::network) == Some(record.value.network());
        let is_over = self.endings.iter().any(|ending| ending.voids(&record.value.chain).is_some());
        if is_here
            && counter < record.value.sequence
            && !is_over
            && self.is_genuine(record)
            && self.is_timely(&record.value)
        {
            self.chain = Some(record.value.chain.clone());
        }
    }

    /// The inviter has delegated more addresses to this node.
    fn learn_grant(&mut self, chain: Chain) {
        let (Some(charter), Some(own)) = (&self.charter, &self.chain) else { return };
        let (Some((inviter, before)), Some((issuer, after))) = (own.issued().last(), chain.issued().last())
        else {
            return;
        };
        let is_more = issuer == inviter
            && before.serial < after.serial
            && before.ranges.address() == after.ranges.address()
            && before.ranges.iter().all(|range| after.ranges.cover(range));
        let is_over = self.endings.iter().any(|ending| ending.voids(&chain).is_some());
        if *chain.subject() == node(ME) && is_more && !is_over && chain.verify(charter).is_ok() {
            self.chain = Some(chain);
        }
    }

    /// The end of a membership ends every record whose chain it voids, and this node's own membership.
    fn end(&mut self, ending: Ending) {
        let (Some(charter), Some(own)) = (&self.charter, &self.chain) else { return };
        if ending.verify(charter).is_err() || self.is_moot(&ending) {
            return;
        }
        if ending.voids(own).is_some() {
            (self.charter, self.chain) = (None, None);
            return;
        }
        self.members.retain(|_, known| ending.voids(&known.record.chain).is_none());
        let unix = self.now.unix.as_secs();
        for issued in self.issued.iter_mut().filter(|issued| issued.ended_at.is_none()) {
            issued.ended_at = ending.voids(&issued.chain).map(|_| unix);
        }
        self.endings.push(ending);
    }

    /// Whether the signer of an ending was no member any more.
    fn is_moot(&self, ending: &Ending) -> bool {
        let is_certificate = match ending {
            Ending::Revocation(revocation) => matches!(revocation.value.target, Target::Certificate(_)),
            Ending::Resignation(_) => true,
        };
        let standing = ending.chain().depth().saturating_sub(usize::from(is_certificate));
        self.endings.iter().any(|other| other.voids(ending.chain()).is_some_and(|at| at < standing))
    }

    fn learn_liveness_message(&mut self, liveness_message: &LivenessMessage) {
        if self.charter.as_ref().map(Charter::network) == Some(liveness_message.network)
            && let Some(known) = self.members.get_mut(&liveness_message.node)
        {
            known.sequence = known.sequence.max(liveness_message.sequence);
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
            chain: chain(if choices.ratio(1, 8)? { 2 } else { ME }, 0).clone(),
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
            if self.mesh.poll_timeout().is_none_or(|at| at > self.now.monotonic) {
                return;
            }
            self.mesh.handle_timeout(self.now);
            self.settle();
        }
        panic!("the mesh wants to be woken without end");
    }

    /// Carries out what the mesh wants, until it wants nothing more.
    fn settle(&mut self) {
        for _ in 0..64 {
            let Turn { save, actions, events, .. } = self.mesh.poll_turn();
            if let (Some(before), Some(after)) = (self.network, self.mesh.network())
                && !events.iter().any(|event| matches!(event, EventKind::NetworkLeft { .. }))
            {
                assert_eq!(before, after, "a member changed its network");
            }
            self.network = self.mesh.network();
            self.follow(&events);
            assert!(actions.len() <= MAX_ACTIONS, "{} actions at once", actions.len());
            if save {
                if self.disk_full {
                    self.has_failed = true;
                    let rest = self.mesh.handle_save_failure(actions, "the disk is full", self.now);
                    for (command, _) in rest.failed {
                        assert!(self.commands.remove(&command).is_some(), "a command was answered twice");
                    }
                    for action in rest.actions {
                        self.carry_out(action);
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
    fn follow(&mut self, events: &[EventKind]) {
        for event in events.iter().cloned() {
            match event {
                EventKind::NetworkLeft { .. } => {
                    self.followed.clear();
                    self.leave();
                }
                EventKind::NetworkJoined { .. } => {
                    let state = self.mesh.state();
                    let membership = state.membership.expect("it is a member");
                    self.charter.get_or_insert(membership.charter.value);
                    self.chain.get_or_insert(membership.chain);
                }
                EventKind::BanAdded { node_id, reason: meshd::BanReason::InvalidMessages, .. } => {
                    let is_offender =
                        |(node, count): (&NodeId, &u32)| node.to_string() == node_id && *count >= STRIKES;
                    assert!(
                        self.offences.iter().any(is_offender),
                        "a ban of one that has signed nothing wrong"
                    );
                }
                EventKind::MemberAdded { node_id, name } => {
                    let before = self.followed.insert(node_id, (name, Liveness::Present));
                    assert!(before.is_none(), "added twice");
                }
                EventKind::MemberChanged { node_id, name } => {
                    self.followed.get_mut(&node_id).expect("changed before it was added").0 = name;
                }
                EventKind::MemberRemoved { node_id, .. } => {
                    assert!(self.followed.remove(&node_id).is_some(), "removed before it was added");
                    // One whose key has expired may be forgotten, and come back by a record from before.
                    let latest = self.latest.as_secs();
                    let kept = |node: &NodeId| node.to_string() != node_id;
                    self.members.retain(|node, known| kept(node) || known.not_after() >= latest);
                }
                EventKind::MemberLiveness { node_id, liveness, .. } => {
                    let known = self.followed.get_mut(&node_id).expect("a life before it was added");
                    assert_ne!(std::mem::replace(&mut known.1, liveness), liveness, "told twice");
                }
                _ => {}
            }
        }
        let asked = self.known();
        assert_eq!(self.followed.len(), asked.len());
        for (node, (name, liveness)) in asked {
            let (followed_name, followed_liveness) = &self.followed[&node];
            assert_eq!(*followed_name, name);
            // Whether those who suspect it are enough, and have waited long enough, is looked at now and then.
            let suspected = |liveness| matches!(liveness, Liveness::Suspected | Liveness::Unreachable);
            assert!(
                suspected(*followed_liveness) && suspected(liveness) || *followed_liveness == liveness,
                "{followed_liveness:?} and not {liveness:?}"
            );
        }
    }

    /// This node is in no network any more.
    fn leave(&mut self) {
        (self.charter, self.chain) = (None, None);
        self.members.clear();
        self.endings.clear();
        self.changes.clear();
        self.issued.clear();
        self.unanswered.clear();
        self.must_compare = false;
    }

    fn known(&self) -> BTreeMap<String, (String, Liveness)> {
        let reports = self.mesh.peer_reports(self.now).into_iter();
        reports.map(|(_, peer)| (peer.node_id, (peer.name, peer.liveness))).collect()
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
                self.mesh.handle_lookup(hash, found, self.now);
            }
            Action::Ask(ticket, request) if self.mood == Mood::Silent => {
                self.check_asked(&request);
                self.has_failed = true;
                self.unanswered.push((ticket, *request));
                let certifying = |(_, request): &&(Ticket, keyd::Request)| {
                    matches!(request, keyd::Request::CertifyMember(_))
                };
                assert!(self.unanswered.iter().filter(certifying).count() <= MAX_CERTIFYING);
            }
            Action::Ask(ticket, request) => {
                self.check_asked(&request);
                self.answer(ticket, *request);
            }
            Action::Answer(number, result) => {
                let command = self.commands.remove(&number).expect("a command was answered twice");
                match (command, *result) {
                    (_, Ok(meshd::Reply::ToOrder(proposed))) => self.order(number, command, proposed.order),
                    (_, Ok(meshd::Reply::Invite(invite))) => {
                        self.invites.push(invite.invite.expose().parse().expect("a whole invite code"));
                    }
                    (Command::Revoke(node), Ok(meshd::Reply::Revoked(_))) => {
                        assert!(!self.members.contains_key(&node), "it is said to be revoked and is not");
                        assert!(self.mesh.record_of(&node).is_none(), "it is said to be revoked and is not");
                        let state = self.mesh.state();
                        let mut by_me =
                            state.endings.iter().filter(|ending| *ending.signer() == self::node(ME));
                        assert!(
                            by_me.any(|ending| *ending.chain().subject() == node),
                            "others cannot learn of it"
                        );
                    }
                    _ => {}
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
                assert_eq!(Some(welcome.charter.value.network()), self.mesh.network());
                assert_eq!(welcome.chain.verify(&welcome.charter.value), Ok(()));
                assert_eq!(welcome.chain.parent(), self.chain, "a certificate that others do not take");
                let joiner = welcome.chain.subject();
                let asked = (0..200).find(|number| node(*number) == *joiner);
                assert_eq!(asked.map(testing::destination).as_ref(), Some(to), "a welcome for somebody else");
                &welcome.records
            }
            Message::JoinRequest(request) => {
                let place = if as_control { ME } else { FALLBACK };
                let from = testing::destination(place).hash();
                assert_eq!(request.body.value.control, from, "it comes from elsewhere than it says");
                return;
            }
            Message::JoinReply(JoinReply::Refused { invite, refusal }) => {
                return self.check_refused(invite, *refusal);
            }
            Message::Grant(chain) => {
                assert_eq!(Some(chain.verify(self.charter.as_ref().expect("a member"))), Some(Ok(())));
                assert_eq!(chain.parent(), self.chain, "a certificate that others do not take");
                let known = self.members.get(chain.subject()).expect("it is a member");
                assert!(known.speaks_from(to), "more addresses for somebody else");
                return;
            }
            _ => return,
        };
        for record in records {
            assert!(self.is_genuine(record), "passed on what nobody has signed: {record:?}");
        }
    }

    /// A joiner is refused for the reason that it is told.
    fn check_refused(&self, invite: &InviteKey, refusal: Refusal) {
        let grant = self.grants.get(invite);
        let certified = self.certified.get(invite).map_or(0, BTreeSet::len);
        let is_reason = match refusal {
            Refusal::Unknown => true,
            Refusal::Expired => grant.is_some_and(|grant| grant.expires_at < self.now.unix.as_secs()),
            Refusal::UsedUp => {
                let is_ended = |issued: &Issued| issued.last().invite == invite.id();
                let is_used = |limit| certified >= limit as usize || self.has_failed;
                grant.is_some_and(|grant| {
                    grant.uses.limit().is_some_and(is_used)
                        || self.issued.iter().any(is_ended)
                        || self.has_failed
                })
            }
            Refusal::TooDeep => false,
            // Who has asked is not told here.
            Refusal::Above => self.chain.as_ref().is_some_and(|chain| chain.depth() > 0),
            Refusal::Busy => {
                let waiting = self.unanswered.iter();
                let waiting =
                    waiting.filter(|(_, request)| matches!(request, keyd::Request::CertifyMember(_)));
                self.must_compare
                    || self.is_catching_up
                    || self.mesh.published_key().is_none()
                    || waiting.count() >= MAX_CERTIFYING
            }
            Refusal::Revoked => self.revoked_invites.contains(&invite.id()),
            // The addresses of joiners that keyd has refused to certify are reserved too.
            Refusal::NoAddresses => grant.is_some(),
        };
        assert!(is_reason, "refused without a reason: {refusal:?}");
    }

    fn answer(&mut self, ticket: Ticket, request: keyd::Request) {
        if self.mood == Mood::Failing {
            self.has_failed = true;
            let error = ApiError::unavailable("keyd is not there");
            return self.mesh.handle_keyd_reply(ticket, Err(error), self.now);
        }
        let reply = self.sign(request);
        self.mesh.handle_keyd_reply(ticket, reply, self.now);
    }

    /// An administrator gives an order.
    fn order(&mut self, command: CommandId, kind: Command, order: Order) {
        let unix = self.now.unix.as_secs();
        let charter = self.charter.clone().expect("a member");
        let revoke = |target| {
            let revocation = signed(Revocation { issuer: node(ME), target, issued_at: unix }, ME);
            assert_eq!(revocation.verify_for(&charter), Ok(()));
            revocation
        };
        let executed = match order {
            Order::Revoke { chains, record } => {
                assert!(record.is_none_or(|record| chains.contains(&record.value.chain)));
                Executed::Revocations(chains.into_iter().map(Target::Certificate).map(revoke).collect())
            }
            Order::RevokeInvite(invite) => {
                let chain = self.chain.clone().expect("a member");
                Executed::Revocations(vec![revoke(Target::Invite(chain, invite))])
            }
            Order::Leave(chain, charter) => {
                assert_eq!(*chain.subject(), node(ME));
                let resignation =
                    Resignation { chain: *chain, last_serial: self.last_number, issued_at: unix };
                let resignation = signed(resignation, ME);
                assert_eq!(resignation.verify_for(&charter), Ok(()));
                Executed::Resignation(Box::new(resignation))
            }
            Order::CreateInvite(create) => {
                let (code, grant) = self.make_invite(create);
                Executed::Invite { code, grant }
            }
            Order::Forget | Order::AllowInvite(_) | Order::Extend(_) | Order::Recover => {
                panic!("nobody has asked for that")
            }
        };
        self.commands.insert(command, kind);
        let revocations = match &executed {
            Executed::Revocations(revocations) => revocations.clone(),
            _ => Vec::new(),
        };
        self.mesh.enact(command, executed, self.now);
        for revocation in revocations {
            self.end(Ending::Revocation(Box::new(revocation)));
        }
    }

    fn make_invite(&mut self, create: keyd::CreateInvite) -> (SecretText, Signed<InviteGrant>) {
        let keyd::CreateInvite { network, name, subnet, expires_at, uses, addresses } = create;
        assert!(addresses.is_power_of_two());
        let (inviter, created_at) = (node(ME), self.now.unix.as_secs());
        let secret = InviteSecret([u8::try_from(self.grants.len()).unwrap_or(0xff); 32]);
        let control = testing::destination(ME).hash();
        let key = secret.key();
        let grant = InviteGrant { network, inviter, key, created_at, expires_at, uses, addresses };
        self.grants.insert(key, grant.clone());
        let code = Invite { network, name, subnet, inviter, control, secret, expires_at }.to_code();
        (SecretText::new(code.to_string()), signed(grant, ME))
    }

    /// The number of this node's next statement, as long as there is one.
    fn next_number(&mut self) -> u64 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }

    /// What `keyd` makes of a statement in this node's name.
    fn note_number(&mut self, signer: NodeId, number: u64) -> keyd::Reply {
        assert_eq!(signer, node(ME));
        let is_foreign = number > self.last_number;
        self.last_number = self.last_number.max(number);
        keyd::Reply::Noted(if is_foreign { keyd::Noted::Foreign } else { keyd::Noted::Known })
    }

    /// Addresses are chosen when `keyd` is asked. What is found in the chains of others later was forgotten.
    fn check_asked(&self, request: &keyd::Request) {
        match request {
            keyd::Request::CertifyMember(certify) => {
                let subject = &certify.request.body.value.joiner;
                self.check_delegated(subject, &certify.ranges, certify.replaces);
            }
            keyd::Request::ExtendMember(extend) => {
                let before = &extend.certificate.value.grant;
                self.check_delegated(&before.subject, &extend.ranges, before.replaces);
            }
            _ => {}
        }
    }

    /// What this node delegates is its own to delegate, and not delegated to another.
    fn check_delegated(&self, subject: &NodeId, ranges: &AddressRanges, replaces: bool) {
        let (charter, chain) =
            (self.charter.as_ref().expect("a member"), self.chain.as_ref().expect("a member"));
        let unix = self.now.unix.as_secs();
        let held = chain.ranges(&charter.subnet);
        for range in ranges.iter() {
            assert!(held.cover(range), "{range} is not this node's");
            assert!(!range.contains(chain.address(&charter.subnet)), "{range} has this node's own address");
        }
        assert!(charter.subnet.is_host(ranges.address()));
        let others = self.issued.iter().filter(|issued| issued.chain.subject() != subject);
        for other in others.filter(|other| other.last().ranges.overlap(ranges)) {
            let is_free = other.ended_at.is_some_and(|at| unix >= at.saturating_add(WAIT));
            assert!(is_free, "addresses of {other:?} are delegated again");
            assert!(replaces, "an earlier certificate for addresses is not replaced");
        }
    }

    /// What an honest `keyd` answers. It finds nothing to refuse.
    fn sign(&mut self, request: keyd::Request) -> std::result::Result<keyd::Reply, ApiError> {
        let (me, unix) = (node(ME), self.now.unix.as_secs());
        Ok(match request {
            keyd::Request::SignCharter(charter) => keyd::Reply::Signature(self.signature(&charter)),
            keyd::Request::SignJoin { body, control } => {
                assert_eq!((body.joiner, body.control), (me, control.hash()));
                assert!([ME, FALLBACK].map(testing::destination).contains(&control));
                keyd::Reply::Signature(self.signature(&*body))
            }
            keyd::Request::SignRecord(new) => {
                let keyd::NewRecord { charter, chain, name, control, data, wireguard } = *new;
                let own = testing::destination(ME);
                let record = Record {
                    node: me,
                    sequence: self.next_number(),
                    issued_at: unix,
                    name,
                    control: ProvenDestination::unproven(control),
                    primary: (control != own).then(|| Box::new(ProvenDestination::unproven(own))),
                    takes_reports: false,
                    data: ProvenDestination::unproven(data),
                    wireguard,
                    chain,
                };
                assert_eq!(Some(record.network()), self.mesh.network());
                let record = signed(with_proofs(record), ME);
                assert_eq!(record.verify_for(&charter), Ok(()));
                self.genuine.insert(record.to_bytes());
                keyd::Reply::Record(Box::new(record))
            }
            keyd::Request::SignPulse { network, life: presence } => {
                assert_eq!(Some(network), self.mesh.network());
                let liveness_message =
                    LivenessMessage { network, node: me, sequence: self.next_number(), presence };
                keyd::Reply::Liveness(signed(liveness_message, ME))
            }
            keyd::Request::Note(statement) => match statement {
                keyd::Statement::Record(record) => self.note_number(record.value.node, record.value.sequence),
                keyd::Statement::Liveness(liveness_message) => {
                    self.note_number(liveness_message.value.node, liveness_message.value.sequence)
                }
                keyd::Statement::Certificate(certificate) => {
                    self.note_number(certificate.value.issuer, certificate.value.grant.serial)
                }
                keyd::Statement::Revocation(_) | keyd::Statement::Resignation(_) => {
                    keyd::Reply::Noted(keyd::Noted::Known)
                }
            },
            keyd::Request::SignAccusation(suspicion) => {
                assert_eq!((suspicion.confirmer, Some(suspicion.network)), (me, self.mesh.network()));
                assert_ne!(suspicion.subject, me);
                keyd::Reply::Signature(self.signature(&suspicion))
            }
            keyd::Request::CreateInvite(create) => {
                assert!(!Order::is_needed_for_invite(create.uses, create.addresses));
                let (code, grant) = self.make_invite(create);
                keyd::Reply::Invite { code, grant }
            }
            keyd::Request::CertifyMember(certify) => {
                let keyd::CertifyMember { grant, request, parent, ranges, replaces } = *certify;
                let (key, subject) = (grant.value.key, request.body.value.joiner);
                assert_eq!(self.grants.get(&key), Some(&grant.value), "an invite that this node never made");
                assert_eq!((request.verify(), request.body.value.invite), (Ok(()), key));
                assert!(!self.must_compare, "a joiner was admitted before notes were compared");
                let serial = self.next_number();
                assert_eq!(ranges.size(), u64::from(grant.value.addresses));
                let certified = self.certified.entry(key).or_default();
                certified.insert(subject);
                let limit = grant.value.uses.limit().map_or(usize::MAX, |limit| limit as usize);
                assert!(certified.len() <= limit, "an invite was used too often");
                let delegation = Delegation {
                    subject,
                    invite: key.id(),
                    ranges,
                    serial,
                    since: serial,
                    replaces,
                    issued_at: unix,
                };
                keyd::Reply::Membership(self.certify(parent, delegation))
            }
            keyd::Request::ExtendMember(extend) => {
                let keyd::ExtendMember { certificate, parent, ranges } = *extend;
                assert_eq!((certificate.verify(), certificate.value.issuer), (Ok(()), me));
                let before = certificate.value.grant;
                let serial = self.next_number();
                assert_eq!(before.ranges.address(), ranges.address());
                assert!(before.ranges.iter().all(|range| ranges.cover(range)));
                keyd::Reply::Membership(
                    self.certify(parent, Delegation { ranges, serial, issued_at: unix, ..before }),
                )
            }
            keyd::Request::CertifyWireGuard { network, rotate } => {
                let has_begun = |epoch: &u32| {
                    WireGuardCertificate::begins_at(*epoch) <= unix + WireGuardCertificate::CLOCK_TOLERANCE
                };
                let epoch = self.mesh.epoch().filter(has_begun).filter(|_| !rotate);
                let epoch = epoch.unwrap_or_else(|| WireGuardCertificate::epoch_at(unix));
                let not_before = WireGuardCertificate::begins_at(epoch);
                keyd::Reply::WireGuardCertificate(signed(
                    WireGuardCertificate {
                        network,
                        node: me,
                        key: testing::wireguard_secret(ME).proven(network, me),
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

    /// This node delegates addresses.
    fn certify(&mut self, parent: CertificateId, delegation: Delegation) -> Signed<Membership> {
        let own = self.chain.as_ref().expect("a member");
        if parent != own.id() {
            // It was asked for under a chain that is another meanwhile. The joiner asks again.
            let certificate = own.certificate(delegation);
            return signed(Membership { parent, ..certificate }, ME);
        }
        // Those that had them before have had their time.
        let (subject, ranges) = (delegation.subject, delegation.ranges.clone());
        self.issued.retain(|other| {
            *other.chain.subject() == subject
                || other.ended_at.is_none()
                || !other.last().ranges.overlap(&ranges)
        });
        let certificate = signed(own.certificate(delegation), ME);
        let chain = own.appended(&certificate);
        self.issued.push(Issued { chain, ended_at: None });
        certificate
    }

    fn signature<T: Signable>(&self, value: &T) -> Signature {
        value.sign(key(ME))
    }

    /// The daemon starts anew with what is on the disk.
    fn restart(&mut self, disk: Vec<u8>) {
        let state = State::from_bytes(&disk, &node(ME)).expect("what was saved can be read");
        self.network = state.membership.as_ref().map(|membership| membership.charter.value.network());
        self.charter = state.membership.as_ref().map(|membership| membership.charter.value.clone());
        self.chain = state.membership.as_ref().map(|membership| membership.chain.clone());
        // What has ended a former membership is kept for keyd alone.
        self.endings = state.membership.as_ref().map(|_| state.endings.clone()).unwrap_or_default();
        self.members = state
            .members
            .iter()
            .map(|member| {
                let record = member.record.value.clone();
                let sequence = member
                    .liveness_message
                    .as_ref()
                    .map_or(0, |message| message.value.sequence)
                    .max(record.sequence);
                (record.node, Known { record, sequence })
            })
            .collect();
        // Those to whom this node's addresses were delegated as well have to come again.
        let own = self.chain.clone();
        self.members
            .retain(|_, known| own.as_ref().and_then(|own| conflict(own, &known.record.chain)).is_none());
        self.must_compare = !self.members.is_empty();
        self.is_catching_up = false;
        self.changes.clear();
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
        self.issued.clear();
        self.revoked_invites.clear();
        self.has_failed = true;
        self.last_number = 0;
    }

    /// The mesh knows what the model knows, and gives `tund` nothing that it would refuse.
    fn check(&self) {
        let reports = self.mesh.peer_reports(self.now);
        assert_eq!(self.chain.is_some(), self.mesh.network().is_some(), "a membership that is over");
        // A member may be forgotten whose key has expired, and no other.
        for (node, known) in &self.members {
            let there = reports.iter().any(|(reported, _)| reported == node);
            assert!(there || known.not_after() < self.latest.as_secs(), "a member was forgotten: {known:?}");
        }
        for (node, report) in &reports {
            let Known { record, .. } = self.members.get(node).expect("a member that nobody has let in");
            let address =
                record.chain.last().map_or(Ipv4Addr::new(10, 42, 0, 1), |link| link.ranges.address());
            assert_eq!((report.ipv4, &report.endpoint), (address, &record.data.hash().b32()));
            assert_eq!(report.ipv6.octets()[12..], address.octets());
            assert_eq!(report.inviters.len(), record.chain.depth());
            assert!(
                !self.endings.iter().any(|ending| ending.voids(&record.chain).is_some()),
                "a membership is over"
            );
        }
        if let (Some(charter), Some(chain), Some(status)) =
            (&self.charter, &self.chain, self.mesh.network_status(self.now))
        {
            let ranges: Vec<String> = chain.ranges(&charter.subnet).iter().map(ToString::to_string).collect();
            assert_eq!((status.ipv4, &status.ranges), (chain.address(&charter.subnet), &ranges));
            assert!(status.addresses_left < status.addresses);
            assert_eq!(status.members, reports.len() as u64 + 1);
        }
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        keys.extend(self.mesh.published_key());
        addresses.extend(self.mesh.interface().map(|interface| interface.ipv4));
        let bans = self.mesh.ban_reports();
        for peer in self.mesh.peers(self.now) {
            assert!(!bans.iter().any(|ban| ban.node_id == peer.node.to_string()), "a banned peer");
            assert!(keys.insert(peer.public_key()), "two peers with one key");
            assert!(addresses.insert(peer.ipv4()), "two peers with one address");
        }
    }
}

/// The certificates with which two chains part, if they delegate common addresses.
fn conflict<'a>(one: &'a Chain, other: &'a Chain) -> Option<(&'a ChainLink, &'a ChainLink)> {
    let mut pairs = one.links().iter().zip(other.links());
    let (mine, theirs) = pairs.find(|(mine, theirs)| mine.subject != theirs.subject)?;
    mine.ranges.overlap(&theirs.ranges).then_some((mine, theirs))
}

/// Whether a certificate stands against another of its issuer.
fn stands(one: &ChainLink, other: &ChainLink) -> bool {
    let is_later = (one.since, one.subject) > (other.since, other.subject);
    let later = if is_later { one } else { other };
    let replaces = later.replaces && one.since != other.since;
    is_later == replaces
}

fn mesh(state: State, session: bool, now: Now) -> Mesh {
    let identity =
        keyd::Identity { node: node(ME), control: testing::destination(ME), sealed: false, remembers: true };
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
        mesh.handle_data_session(testing::destination(100));
    }
    mesh
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

/// The number of a node.
fn number_of(node: &NodeId) -> Option<u8> {
    static MADE: LazyLock<HashMap<NodeId, u8>> =
        LazyLock::new(|| (0..=u8::MAX).map(|number| (self::node(number), number)).collect());
    MADE.get(node).copied()
}

/// A destination that has agreed to be used by a node, in any network.
fn proven(network: &NetworkId, destination: u8, node: u8, role: DestinationRole) -> ProvenDestination {
    let (network, node, destination_key) =
        (*network, self::node(node), testing::destination_key(destination));
    let destination = testing::destination(destination);
    let proof = DestinationProof { network, node, role, destination };
    ProvenDestination { destination, proof: proof.sign(&destination_key) }
}

/// A record of this node, with the agreement of the destinations that it names.
fn with_proofs(mut record: Record) -> Record {
    let network = record.network();
    let prove = |(named, role): (&ProvenDestination, DestinationRole)| {
        // The number of a destination is in all bytes of its padding.
        let proven = proven(&network, named.padding[0], ME, role);
        assert_eq!(proven.destination, named.destination, "a destination that is not this node's");
        proven
    };
    let all: Vec<ProvenDestination> = record.destinations().map(prove).collect();
    (record.control, record.data, record.primary) = (all[0], all[1], all.get(2).copied().map(Box::new));
    record
}

/// A record of a node with this chain, of the network of the chain.
fn record_of(number: u8, chain: Chain) -> Record {
    let network = chain.network();
    let certificate = testing::wireguard_certificate(number).value;
    Record {
        node: node(number),
        control: proven(&network, number, number, DestinationRole::Primary),
        data: proven(&network, number.wrapping_add(100), number, DestinationRole::Data),
        wireguard: signed(WireGuardCertificate { network, ..certificate }, number),
        chain,
        ..testing::record(0).value
    }
}

/// A record of each member, made once: to sign is slow.
fn members() -> &'static [Signed<Record>] {
    static MADE: LazyLock<Vec<Signed<Record>>> = LazyLock::new(|| {
        (0..MEMBERS)
            .map(|number| match number {
                0..=8 => testing::record(number),
                _ => signed(record_of(number, chain(number, 0).clone()), number),
            })
            .collect()
    });
    &MADE
}

/// A chain of a member, made once. Those of the first nine lead from each to the next. The others hold addresses of the
/// founder: those from 30 on hold addresses of those from 20 on.
fn chain(number: u8, variant: u8) -> &'static Chain {
    static MADE: LazyLock<Vec<Chain>> = LazyLock::new(|| {
        let first: Vec<Chain> = (0..MEMBERS).map(first_chain).collect();
        let all = (0..MEMBERS).flat_map(|number| (0..VARIANTS).map(move |variant| (number, variant)));
        all.map(|(number, variant)| chain_of(&first, number, variant)).collect()
    });
    &MADE[usize::from(number) * usize::from(VARIANTS) + usize::from(variant)]
}

/// Addresses of the founder.
fn range(third: u8, fourth: u8, prefix: u8) -> AddressRange {
    AddressRange::new(Ipv4Addr::new(10, 42, third, fourth), prefix).expect("an aligned range")
}

/// A chain and one certificate more.
fn certified(chain: &Chain, subject: u8, ranges: Vec<AddressRange>, serial: u64, invite: u8) -> Chain {
    let issuer = number_of(chain.subject()).expect("a node with a number");
    let delegation = Delegation {
        subject: node(subject),
        invite: testing::invite(invite).id(),
        ranges: AddressRanges::new(ranges).expect("ranges that lie apart"),
        serial,
        since: serial,
        replaces: subject >= 30 && subject.is_multiple_of(3),
        issued_at: NOW,
    };
    chain.appended(&signed(chain.certificate(delegation), issuer))
}

fn first_chain(number: u8) -> Chain {
    let founder = Chain::founder(&charter().value);
    match number {
        0..=8 => testing::chain(number),
        9..30 => certified(&founder, number, vec![range(number, 0, 24)], 100 + u64::from(number), number),
        _ => certified(&founder, number, vec![range(number - 10, 0, 25)], 200 + u64::from(number), number),
    }
}

fn chain_of(first: &[Chain], number: u8, variant: u8) -> Chain {
    let founder = &first[0];
    let own = &first[usize::from(number)];
    let serial = 100 * u64::from(variant) + 200 + u64::from(number);
    match variant {
        1 if number > ME => certified(
            founder,
            number,
            vec![range(64 + number, 0, 26), range(64 + number, 128, 26)],
            serial,
            100 + number,
        ),
        2 if (9..20).contains(&number) => {
            let ranges = own.last().expect("a chain with links").ranges.iter().copied();
            certified(founder, number, ranges.chain([range(104, number * 8, 29)]).collect(), serial, number)
        }
        3 if number >= 9 && number + 1 < MEMBERS => {
            let above = &first[usize::from(number) + 1];
            let first = above.last().expect("a chain with links").ranges.address().octets();
            certified(above, number, vec![range(first[2], 64, 26)], 7, number + 1)
        }
        _ => own.clone(),
    }
}

/// The last certificate that a member that leaves owns to have issued.
fn last_serial(number: u8) -> u64 {
    [100, 0, 6, u64::MAX][usize::from(number % 4)]
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
    any_number_of_destination(choices).map(testing::destination)
}

fn any_number_of_destination(choices: &mut Unstructured<'_>) -> Result<u8> {
    Ok(choices.arbitrary::<u8>()? % (2 * MEMBERS))
}

fn any_number(choices: &mut Unstructured<'_>) -> Result<u64> {
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
    let chain = |number: u8, sequence: u8, variant: u8| [1, number, 0, number, sequence, 2, variant, 7];
    let ending =
        |number: u8, variant: u8, above: u8, kind: u8| [0xc0, 2, 0, number, variant, 0, above, 9, kind];
    let joined = |index: u8, sequence: u8| [0xc4, index, sequence];
    let offences: Vec<u8> = (0..3).flat_map(|number| [1, 9, 0, 2, 70 + number, 0, 0]).collect();
    let digest: &[u8] = &[3, 2, 5, 1, 3, 60, 1, 9, 4];
    let compare: &[u8] = &[3, 2, 0, 1, 3, 60, 1, 9, 4];
    let word =
        |number: u8, other: u8, liveness_message: u8| [6, 0, 2, number, other, 60, 1, liveness_message, 0];
    let invite: &[u8] = &[9, 0xff, 0x0f, 2, 0];
    let day: &[u8] = &[7, 0xff, 0xff];
    let items = vec![Item::Record(Box::new(testing::record(2)))];
    let raw = to_me(&Message::news(items));
    let len = u16::try_from(raw.len()).expect("shorter than a datagram").to_le_bytes();
    let many_joiners: Vec<u8> = (50..90).flat_map(|joiner| [4, joiner, 0, 7]).collect();
    vec![
        seed("alone", script(&[day])),
        seed("raw", script(&[&[0, 2], &len, &raw])),
        seed("records", script(&[&known, digest, day])),
        seed("compare", script(&[&known, compare, &[3, 2, 1, 0, 9, 4], &[3, 2, 2, 1, 3, 1, 1, 9, 4], day])),
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
        seed(
            "primary",
            script(&[&known, &[1, 3, 0, 3, 60, 8, 70, 71, 7], &[3, 70, 5, 1, 3, 60, 1, 9, 4], digest]),
        ),
        seed(
            "invited-again",
            script(&[&known, &chain(3, 60, 1), &chain(9, 60, 2), &chain(10, 60, 3), digest, day]),
        ),
        seed("conflict-earlier", script(&[&chain(31, 50, 0), &chain(21, 50, 0), &chain(31, 51, 0), day])),
        seed("conflict-later", script(&[&chain(21, 50, 0), &chain(31, 50, 0), digest])),
        seed("conflict-replaced", script(&[&chain(20, 50, 0), &chain(30, 50, 0), &chain(20, 51, 0), digest])),
        seed(
            "conflict-below",
            script(&[&chain(21, 50, 0), &chain(20, 50, 3), &chain(31, 50, 0), &chain(20, 51, 0)]),
        ),
        seed(
            "conflict-often",
            script(&[
                &chain(31, 50, 0),
                &chain(21, 50, 0),
                &chain(30, 50, 3),
                &[7, 16, 14],
                &chain(30, 51, 3),
            ]),
        ),
        seed("unproven", script(&[&[1, 2, 0, 2, 50, 0, 8]])),
        seed(
            "offences",
            script(&[
                &known,
                &[1, 2, 0, 2, 60, 0, 0],
                &[1, 2, 0, 2, 61, 0, 1],
                &[1, 2, 0, 2, 62, 0, 8],
                &offences,
                digest,
            ]),
        ),
        seed(
            "revoked",
            script(&[&known, &ending(3, 0, 0, 5), &record(3, 51), &chain(3, 60, 1), digest, day]),
        ),
        seed(
            "revoked-with-all-below",
            script(&[&known, &record(4, 50), &ending(2, 0, 0, 5), &record(4, 51), digest]),
        ),
        seed("revoked-by-inviter", script(&[&known, &ending(3, 0, 2, 5), &record(3, 51)])),
        seed(
            "revoked-by-another",
            script(&[&known, &[0xc0, 2, 0, 3, 0, 0, 0, 9, 3], &[0xc0, 2, 0, 3, 0, 0, 0, 9, 4]]),
        ),
        seed("revoked-invite", script(&[&known, &ending(9, 0, 0, 2), &record(9, 51)])),
        seed("revoked-itself", script(&[&known, &ending(1, 0, 0, 5), day, &[10, 0], &[11, 0, 7, 7, 7]])),
        seed(
            "resigned",
            script(&[&known, &ending(2, 0, 0, 0), &record(3, 51), &ending(9, 0, 0, 1), &chain(9, 60, 1)]),
        ),
        seed(
            "grant-to-itself",
            script(&[
                &[0xc6, 0, 0, 3, 9],
                &[0xc6, 0, 0, 4, 8],
                &[0xc6, 0, 1, 5, 10],
                &[0xc6, 0, 2, 5, 10],
                day,
            ]),
        ),
        seed(
            "joined",
            script(&[
                invite,
                &[4, 50, 0, 7],
                &joined(0, 50),
                digest,
                &[0xca, 50, 3],
                &joined(1, 60),
                &[0xc7, 50],
                day,
            ]),
        ),
        seed(
            "joined-again",
            script(&[
                invite,
                &[4, 50, 0, 7],
                &joined(0, 50),
                &[0xc7, 50],
                &[4, 50, 0, 7],
                &[9, 0xff, 0x0f, 2, 0],
                &[4, 50, 1, 7, 4, 51, 1, 7],
                &joined(1, 60),
                &[0xce],
            ]),
        ),
        seed(
            "joined-found",
            [
                &[0],
                invite,
                &[4, 50, 0, 7, 4, 51, 0, 7][..],
                &joined(0, 50),
                &joined(1, 50),
                &[0xc7, 50],
                &[0xc9, 0, 1],
                day,
            ]
            .concat(),
        ),
        seed(
            "no-addresses",
            script(&[&[9, 0xff, 0x0f, 0xff, 15], &[4, 50, 0, 7, 4, 51, 0, 7, 4, 52, 0, 7], &[0xca, 50, 14]]),
        ),
        seed("revoked-in-vain", script(&[&known, &[0xc7, 3, 0xc7, 0, 0xc7, 9, 0xc7, 1], digest])),
        seed("banned", script(&[&known, &[0xcb, 3, 0, 0], digest, &[0xcc, 3], digest, &[0xcd, 1, 0xdd, 0]])),
        seed(
            "busy-after-restart",
            script(&[invite, &known, day, &[14, 2], &[4, 50, 0, 7], compare, &[7, 20, 0], &[4, 50, 0, 7]]),
        ),
        seed("numbers", [&[5], invite, &[4, 50, 0, 7][..], &joined(0, 0xff), &[0xdd, 1], day, day].concat()),
        seed("times", script(&[&[8, 255, 255, 255, 255], &known, day, &[8, 0, 0, 0, 0], &known, day])),
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
        seed("joiners-many", script(&[&[9, 0xff, 0x0f, 0xff, 0], &[13, 2], &many_joiners, &[13, 0]])),
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
        for name in ["wrong-chain", "wrong-certificate", "wrong-signer", "flipped", "own-record", "unproven"]
        {
            assert_eq!(after(name).members.len(), 0, "{name}");
        }
        let joiners = |name| after(name).certified.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!([joiners("joiners"), joiners("joiners-wrong"), joiners("joiners-many")], [2, 0, 32]);
        for name in ["join", "join-substitute"] {
            assert_eq!(after(name).network, Some(network()), "{name}");
        }
        let members = |name| {
            let world = after(name);
            let numbers: BTreeSet<u8> = world.members.keys().filter_map(number_of).collect();
            (numbers.into_iter().collect::<Vec<u8>>(), world.endings.len())
        };
        let all = vec![0, 2, 3, 9, 10];
        assert_eq!(members("invited-again"), (all.clone(), 0));
        assert_eq!(members("conflict-earlier"), (vec![21], 0));
        assert_eq!(members("conflict-later"), (vec![21], 0));
        assert_eq!(members("conflict-replaced"), (vec![30], 0));
        assert_eq!(members("revoked"), (all.clone(), 1));
        assert_eq!(members("revoked-with-all-below"), (vec![0, 9, 10], 1));
        assert_eq!(members("revoked-by-another"), (all.clone(), 0));
        assert_eq!(members("revoked-invite"), (vec![0, 2, 3, 10], 1));
        assert_eq!(members("revoked-in-vain").0, [0, 2, 9, 10], "it revokes whom it has invited");
        assert_eq!(after("offences").mesh.ban_reports().len(), 1);
        assert_eq!(after("revoked-by-another").mesh.ban_reports().len(), 0);
        assert!(after("joined").members.is_empty() && after("joined").issued[0].ended_at.is_some());
        assert!(after("found").network.is_some_and(|founded| founded != network()));
        assert!(after("join-without-session").commands.is_empty());
    }
}
