//! What a stranger sends to a node over I2P: to its control destination, and to the one for data.
//!
//! The stranger's instructions come as JSON on standard input, because an invite code is a secret.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use ed25519_dalek::SigningKey;
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, ProvenDestination, base64, hash_of};
use i2plan_proto::identity::{NodeId, Signable, Signature, Signed};
use i2plan_proto::invite::Invite;
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{Chain, Charter, NetworkName};
use i2plan_proto::message::{
    Content, Datagram, Entry, Gossip, HEADER_LEN, Item, MAX_ENTRIES, MAX_LEN, Message, Range,
};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::suspicion::Suspicion;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{print, readdress};
use crate::Failure;
use crate::i2p::sam::{Session, Style};

/// How long an answer may take, repetitions included.
const TIMEOUT: Duration = Duration::from_secs(90);

/// How long a node is given before a request is repeated.
const REPEAT: Duration = Duration::from_secs(2);

/// Control datagrams a second, of all kinds.
const CONTROL_RATE: u32 = 400;

/// Joiners that come with one invite.
const JOINERS: usize = 8;

/// Destinations under which the stranger comes with each kind of message. A node looks at ten datagrams of a
/// destination that it does not know, and then at one a second.
const DISGUISES: usize = 4;

/// Largest payload of a datagram, bytes.
const LARGEST: usize = 31 * 1024;

/// What [`control`] is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlOrder {
    /// An invite of the node under attack. Two uses.
    pub invite: String,
}

/// What [`control`] has met with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReport {
    /// Joiners that got a certificate by the invite, the first and honest one not counted.
    pub welcomed: usize,
    /// Joiners that were told that it is used up.
    pub used_up: usize,
    /// Nodes whose records came with the certificate.
    pub known: usize,
    /// Datagrams sent, by kind.
    pub sent: BTreeMap<String, u64>,
}

/// What [`data`] is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataOrder {
    /// Where the node takes WireGuard packets, `….b32.i2p`.
    pub endpoint: String,
    /// Its WireGuard public key, base64.
    pub public_key: String,
    /// Datagrams a second.
    pub rate: u32,
    /// How long each kind is sent.
    pub seconds: u64,
}

/// What [`data`] has sent, by kind.
pub type DataReport = BTreeMap<String, u64>;

/// Makes a datagram for the holder of a key.
type Make = fn(&PublicKey) -> Vec<u8>;

fn order<T: DeserializeOwned>() -> Result<T, Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(|error| Failure::new(error.to_string()))
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

pub(super) fn random_key() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

pub(super) fn node(key: &SigningKey) -> NodeId {
    NodeId(key.verifying_key().to_bytes())
}

pub(super) fn signed<T: Signable>(value: T, key: &SigningKey) -> Signed<T> {
    let signature = value.sign(key);
    Signed { value, signature }
}

/// A stranger at a destination of the kind that nodes have: others are dropped before anything is looked at.
struct Stranger {
    session: Session,
    own: Destination,
}

impl Stranger {
    async fn new() -> Result<Self, Failure> {
        let key = random_key();
        let own = Destination { padding: rand::random(), signing_key: node(&key).0 };
        // Destination, encryption key (out of use), seed of the signing key.
        let private = [&own.to_i2p()[..], &[1; 256], key.as_bytes()].concat();
        let session = Session::open_under(Style::Datagram, &base64().encode(&private)).await?;
        Ok(Self { session, own })
    }

    /// Sends a control datagram, addressed anew.
    async fn send(&self, to: &str, payload: &[u8]) -> Result<(), Failure> {
        let mut datagram = self.session.header(to);
        let start = datagram.len();
        datagram.extend_from_slice(payload);
        if let Ok(destination) = base64().decode(to.as_bytes()) {
            readdress(&mut datagram[start..], hash_of(&destination));
        }
        self.session.send(&datagram).await
    }

    /// What comes from a destination, for as long as it takes.
    async fn receive(&self, from: &str) -> Result<Message, Failure> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let len = self.session.receive(&mut buffer).await?;
            let Some(end) = buffer[..len].iter().position(|byte| *byte == b'\n') else { continue };
            if buffer[..end].starts_with(from.as_bytes())
                && let Ok(Datagram { message, .. }) = Datagram::from_bytes(&buffer[end + 1..len])
            {
                return Ok(message);
            }
        }
    }

    /// A request to join by an invite, as an honest joiner would make it.
    fn request(&self, invite: &Invite, joiner: &SigningKey) -> JoinRequest {
        let body = JoinBody {
            network: invite.network,
            inviter: invite.inviter,
            invite: invite.secret.key(),
            joiner: node(joiner),
            control: self.own.hash(),
            issued_at: now(),
        };
        let proof = body.prove(&invite.secret.signing_key());
        JoinRequest { body: signed(body, joiner), proof }
    }
}

/// Who only wants to be answered, to see that the node does.
struct Canary {
    stranger: Stranger,
    joiner: SigningKey,
}

impl Canary {
    /// Joins, or is answered again.
    async fn ask(&self, target: &str, invite: &Invite) -> Result<Welcome, Failure> {
        let request = Message::JoinRequest(Box::new(self.stranger.request(invite, &self.joiner)));
        let started = Instant::now();
        while started.elapsed() < TIMEOUT {
            self.stranger.send(target, &unaddressed(&request)).await?;
            let reply = tokio::time::timeout(REPEAT, self.stranger.receive(target)).await;
            match reply.map_or(Ok(None), |reply| reply.map(Some))? {
                Some(Message::JoinReply(JoinReply::Welcome(welcome))) => return Ok(*welcome),
                Some(Message::JoinReply(JoinReply::Refused { refusal, .. })) if refusal != Refusal::Busy => {
                    return Err(Failure::new(format!("an honest joiner was refused: {refusal}")));
                }
                _ => {}
            }
        }
        Err(Failure::new("an honest joiner is not answered"))
    }
}

/// Attacks a node's control destination with everything that a stranger with an invite can come by. Prints a
/// [`ControlReport`].
///
/// # Errors
/// If the node stops answering an honest joiner, or a session ends.
pub async fn control() -> Result<(), Failure> {
    let order: ControlOrder = order()?;
    let invite: Invite =
        order.invite.parse().map_err(|_| Failure::new("the order's invite cannot be read"))?;
    let mut canary = Canary { stranger: Stranger::new().await?, joiner: random_key() };
    let target = find(&mut canary.stranger.session, &invite.control.b32()).await?;
    let welcome = canary.ask(&target, &invite).await?;

    let stranger = Stranger::new().await?;
    let (welcomed, used_up) = crowd(&stranger, &target, &invite).await?;
    let mut report = ControlReport { welcomed, used_up, ..ControlReport::default() };
    report.known = welcome.records.len();

    let targets: Vec<String> =
        welcome.records.iter().map(|record| record.value.control.to_base64()).collect();
    for (kind, mut messages) in messages(&stranger, &invite, &canary, &welcome) {
        // So that what a node still looks at is some of everything.
        messages.shuffle(&mut rand::rng());
        for part in messages.chunks(messages.len().div_ceil(DISGUISES)) {
            shower(&Stranger::new().await?, &targets, part).await?;
        }
        report.sent.insert(kind.to_owned(), messages.len() as u64);
        // The node has got through all that, or lost it: it answers.
        canary.ask(&target, &invite).await?;
    }
    // These name the destination that they come from.
    let mut count = 0;
    for _ in 0..DISGUISES {
        let disguise = Stranger::new().await?;
        let unproven = unproven(&disguise, &invite);
        shower(&disguise, &targets, &unproven).await?;
        count += unproven.len() as u64;
    }
    report.sent.insert("join requests without proof".to_owned(), count);
    canary.ask(&target, &invite).await?;
    print(&report)
}

async fn find(session: &mut Session, name: &str) -> Result<String, Failure> {
    let started = Instant::now();
    while started.elapsed() < TIMEOUT {
        if let Some(destination) = session.look_up(name).await? {
            return Ok(destination);
        }
    }
    Err(Failure::new("the router does not find the destination"))
}

/// Many joiners with one invite at once. How many are let in, and how many hear that it is used up.
async fn crowd(stranger: &Stranger, target: &str, invite: &Invite) -> Result<(usize, usize), Failure> {
    let mut waiting: BTreeMap<NodeId, Vec<u8>> = (0..JOINERS)
        .map(|_| {
            let joiner = random_key();
            let request = Message::JoinRequest(Box::new(stranger.request(invite, &joiner)));
            (node(&joiner), unaddressed(&request))
        })
        .collect();
    let (mut welcomed, mut used_up) = (0, 0);
    let started = Instant::now();
    // A refusal does not say whom it is for, so joiners are told apart by asking one by one after the first rush.
    for request in waiting.values() {
        stranger.send(target, request).await?;
    }
    while let Ok(message) = tokio::time::timeout(REPEAT, stranger.receive(target)).await {
        if let Message::JoinReply(JoinReply::Welcome(welcome)) = message? {
            welcomed += usize::from(waiting.remove(welcome.chain.subject()).is_some());
        }
    }
    while let Some((joiner, request)) = waiting.pop_first() {
        if started.elapsed() > TIMEOUT {
            return Err(Failure::new("joiners with a used invite are not answered"));
        }
        stranger.send(target, &request).await?;
        match tokio::time::timeout(REPEAT, stranger.receive(target)).await {
            Ok(message) => match message? {
                Message::JoinReply(JoinReply::Welcome(welcome)) if *welcome.chain.subject() == joiner => {
                    welcomed += 1;
                }
                Message::JoinReply(JoinReply::Refused { refusal: Refusal::UsedUp, .. }) => used_up += 1,
                _ => {
                    waiting.insert(joiner, request);
                }
            },
            Err(_) => {
                waiting.insert(joiner, request);
            }
        }
    }
    Ok((welcomed, used_up))
}

/// Sends all of them, to each target in turn.
async fn shower(stranger: &Stranger, targets: &[String], messages: &[Vec<u8>]) -> Result<(), Failure> {
    let mut interval = tokio::time::interval(Duration::from_secs(1) / CONTROL_RATE);
    for (message, target) in messages.iter().zip(targets.iter().cycle()) {
        interval.tick().await;
        stranger.send(target, message).await?;
    }
    Ok(())
}

/// Join requests whose proof is none.
fn unproven(stranger: &Stranger, invite: &Invite) -> Vec<Vec<u8>> {
    let request = |_| {
        let mut request = stranger.request(invite, &random_key());
        request.proof = Signature([9; 64]);
        unaddressed(&Message::JoinRequest(Box::new(request)))
    };
    (0..200).map(request).collect()
}

/// Everything that a stranger could make of what it has, by kind. None of it may have any effect.
fn messages(
    stranger: &Stranger,
    invite: &Invite,
    canary: &Canary,
    welcome: &Welcome,
) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut rng = rand::rng();
    let key = random_key();
    let recorded = vec![
        unaddressed(&Message::JoinReply(JoinReply::Welcome(Box::new(welcome.clone())))),
        // Another's request, from here.
        unaddressed(&Message::JoinRequest(Box::new(canary.stranger.request(invite, &canary.joiner)))),
        news(welcome.records.iter().cloned().map(record).collect()),
    ];
    let replayed: Vec<_> = recorded.iter().rev().chain(&recorded).cycle().take(60).cloned().collect();

    let records = news(welcome.records.iter().cloned().map(record).collect());
    let truncated =
        recorded.iter().flat_map(|whole| (0..whole.len()).step_by(9).map(|len| whole[..len].to_vec()));
    let mut flip = |whole: &Vec<u8>| {
        let mut flipped = whole.clone();
        let at = rng.random_range(0..flipped.len());
        flipped[at] ^= 1 << rng.random_range(0..8);
        flipped
    };
    let flipped = (0..150).flat_map(|_| recorded.clone()).map(|whole| flip(&whole)).collect();
    let oversized = [MAX_LEN + 1, 8 * 1024, 16 * 1024, LARGEST].into_iter().cycle().take(60);
    let oversized = oversized.map(|len| {
        let mut padded = records.clone();
        padded.resize(len.max(padded.len()), 0);
        padded
    });
    let garbage = (0..300).map(|_| {
        let mut bytes = vec![0; rand::rng().random_range(0..2000)];
        rand::rng().fill(&mut bytes[..]);
        // Half of them get past the header.
        if bytes.len() > HEADER_LEN && rand::rng().random() {
            bytes[0] = records[0];
            bytes[HEADER_LEN] %= 10;
        }
        bytes
    });
    vec![
        ("replayed and reordered", replayed),
        ("truncated", truncated.collect()),
        ("with a flipped bit", flipped),
        ("oversized", oversized.collect()),
        ("garbage", garbage.collect()),
        ("records in others' names", foreign_records(&welcome.records, &key)),
        ("words in others' names", foreign_words(&welcome.records, &key)),
        ("other people's messages", foreign_messages(stranger, invite, welcome, &key)),
    ]
}

/// Records of members, with what suits the stranger: newer, older, with its own destinations and key.
fn foreign_records(records: &[Signed<Record>], key: &SigningKey) -> Vec<Vec<u8>> {
    let elsewhere = ProvenDestination::unproven(Destination { padding: [7; 32], signing_key: [7; 32] });
    let own = Chain::founder(&charter(key));
    let mut messages = Vec::new();
    for Signed { value, signature } in records {
        let newer = Record { sequence: value.sequence + 1_000_000, data: elsewhere, ..value.clone() };
        let older = Record { sequence: value.sequence.saturating_sub(1), data: elsewhere, ..value.clone() };
        let mut rekeyed = newer.clone();
        rekeyed.wireguard.value.key.signing_key = node(key).0;
        rekeyed.wireguard = signed(rekeyed.wireguard.value, key);
        let other_member = Record { node: node(key), ..newer.clone() };
        let other_network = Record { node: node(key), chain: own.clone(), ..newer.clone() };
        for forged in [newer, older, rekeyed, other_member, other_network] {
            // With the signature of the true one, and with the stranger's own.
            messages.push(Signed { value: forged.clone(), signature: *signature });
            messages.push(signed(forged, key));
        }
    }
    let messages: Vec<_> = messages.into_iter().map(|forged| news(vec![record(forged)])).collect();
    let count = messages.len() * 20;
    messages.into_iter().cycle().take(count).collect()
}

/// The charter of a network that the stranger could found.
fn charter(key: &SigningKey) -> Charter {
    Charter {
        founder: node(key),
        name: NetworkName::of_founder(&NodeName::of_host("lab")),
        subnet: Ipv4Subnet::DEFAULT,
        founded_at: now(),
        nonce: [7; 16],
    }
}

/// A datagram that is for nobody yet: [`Stranger::send`] addresses it.
fn unaddressed(message: &Message) -> Vec<u8> {
    message.to_datagram(&Destination { padding: [0; 32], signing_key: [0; 32] })
}

/// News of these things.
fn news(items: Vec<Item>) -> Vec<u8> {
    unaddressed(&Message::news(items))
}

fn record(record: Signed<Record>) -> Item {
    Item::Record(Box::new(record))
}

/// What would make members leave, be suspected or be expelled, with the stranger's signature.
fn foreign_words(records: &[Signed<Record>], key: &SigningKey) -> Vec<Vec<u8>> {
    let mut items = Vec::new();
    for Signed { value, .. } in records {
        let (network, node) = (value.network(), value.node);
        let sequence = value.sequence + 1_000_000;
        for presence in [Presence::Present, Presence::Away] {
            items.push(Item::Liveness(signed(LivenessMessage { network, node, sequence, presence }, key)));
        }
        for confirmer in records.iter().map(|record| record.value.node).chain([self::node(key)]) {
            let suspicion = Suspicion { network, confirmer, subject: node, sequence, issued_at: now() };
            items.push(Item::Suspicion(signed(suspicion, key)));
        }
        for issuer in records.iter().map(|record| record.value.node).chain([self::node(key)]) {
            let target = Target::Certificate(value.chain.clone());
            let revocation = Revocation { issuer, target, issued_at: now() };
            items.push(Item::Revocation(Box::new(signed(revocation, key))));
        }
        let resignation = Resignation { chain: value.chain.clone(), last_serial: 0, issued_at: now() };
        items.push(Item::Resignation(Box::new(signed(resignation, key))));
    }
    let messages: Vec<_> = items.into_iter().map(|item| news(vec![item])).collect();
    let count = messages.len() * 10;
    messages.into_iter().cycle().take(count).collect()
}

/// Messages that only somebody else may send, or that nobody has asked for.
fn foreign_messages(
    stranger: &Stranger,
    invite: &Invite,
    welcome: &Welcome,
    key: &SigningKey,
) -> Vec<Vec<u8>> {
    // Rightly signed by an invite's holder, for an answer to another destination than it comes from.
    let mut body = stranger.request(invite, key).body.value;
    body.control = Destination { padding: [8; 32], signing_key: [8; 32] }.hash();
    let proof = body.prove(&invite.secret.signing_key());
    let diverted = JoinRequest { body: signed(body, key), proof };
    // A network of the stranger's own, to which nobody here wants to belong.
    let charter = charter(key);
    let chain = Chain::founder(&charter);
    let own = Welcome { charter: signed(charter, key), chain: chain.clone(), records: vec![] };
    let refused = JoinReply::Refused { invite: invite.secret.key(), refusal: Refusal::Expired };
    let known = welcome.records.iter().map(|record| record.value.node);
    let ahead = known.map(|node| Entry { node, record: u64::MAX, liveness: u64::MAX, ended: true });
    let ahead: Vec<_> = ahead.cycle().take(MAX_ENTRIES).collect();
    let all = |content| vec![Range { end: None, content }];
    let member = welcome.chain.ancestors().next().copied().unwrap_or(node(key));
    let messages = [
        Message::JoinRequest(Box::new(diverted)),
        Message::JoinReply(JoinReply::Welcome(Box::new(own))),
        Message::JoinReply(refused),
        Message::Compare(all(Content::Fingerprint { count: 5, sum: [7; 16] }), Gossip::default()),
        Message::Compare(all(Content::Entries(Vec::new())), Gossip::default()),
        Message::Compare(all(Content::Entries(ahead.clone())), Gossip::default()),
        Message::Want(
            ahead.iter().map(|entry| Entry { record: 0, liveness: 0, ended: false, ..*entry }).collect(),
        ),
        Message::Ping(1, Gossip { entries: ahead, items: Vec::new() }),
        Message::Ack(1, Gossip::default()),
        Message::PingRequest(1, member, Gossip::default()),
        Message::Grant(Box::new(welcome.chain.clone())),
        Message::Grant(Box::new(chain)),
    ];
    messages.iter().map(unaddressed).cycle().take(300).collect()
}

/// Floods a node's destination for data. Prints a [`DataReport`].
///
/// # Errors
/// If the destination is not found, or the session ends.
pub async fn data() -> Result<(), Failure> {
    let order: DataOrder = order()?;
    let key = data_encoding_key(&order.public_key)?;
    let mut session = Session::open(Style::Raw).await?;
    let target = find(&mut session, &order.endpoint).await?;
    let header = session.header(&target);
    let kinds: [(&str, Make); 4] = [
        ("garbage", |_| garbage()),
        ("initiations with unknown keys", initiation),
        ("initiations that are spoiled", |key| spoil(initiation(key))),
        ("messages for guessed sessions", |_| guess()),
    ];
    let mut report = DataReport::new();
    for (kind, make) in kinds {
        let mut interval = tokio::time::interval(Duration::from_secs(1) / order.rate);
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < Duration::from_secs(order.seconds) {
            interval.tick().await;
            let datagram = [&header, &make(&key)[..]].concat();
            session.send(&datagram).await?;
            count += 1;
        }
        report.insert(kind.to_owned(), count);
    }
    print(&report)
}

fn data_encoding_key(text: &str) -> Result<PublicKey, Failure> {
    // The dialect of I2P differs in two symbols.
    let bytes = base64().decode(text.replace('+', "-").replace('/', "~").as_bytes()).ok();
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(PublicKey::from).ok_or_else(|| Failure::new("the order's key cannot be read"))
}

fn garbage() -> Vec<u8> {
    let mut bytes = vec![0; rand::rng().random_range(0..1500)];
    rand::rng().fill(&mut bytes[..]);
    if let Some(kind) = bytes.first_mut() {
        *kind %= 6;
    }
    bytes
}

/// The first message of a handshake, right in everything but that nobody knows whose it is.
fn initiation(to: &PublicKey) -> Vec<u8> {
    let own = StaticSecret::from(rand::random::<[u8; 32]>());
    let mut tunnel = Tunn::new(own, *to, None, None, rand::random::<u32>() >> 8, None);
    let mut buffer = [0; 148];
    match tunnel.format_handshake_initiation(&mut buffer, false) {
        TunnResult::WriteToNetwork(message) => message.to_vec(),
        _ => Vec::new(),
    }
}

/// A bit of what is encrypted is wrong; so is the MAC then.
fn spoil(mut message: Vec<u8>) -> Vec<u8> {
    if let Some(byte) = message.get_mut(50) {
        *byte ^= 1;
    }
    message
}

/// A message for a session that there may be: response, cookie, data.
fn guess() -> Vec<u8> {
    let kind: u8 = rand::rng().random_range(2..5);
    let len = [0, 0, 92, 64, rand::rng().random_range(32..1312)][usize::from(kind)];
    let mut message = vec![0; len];
    rand::rng().fill(&mut message[..]);
    let (peer, session): (u32, u32) = (rand::rng().random_range(0..2), rand::rng().random_range(0..8));
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let receiver = if kind == 2 { 8 } else { 4 };
    message[receiver..receiver + 4].copy_from_slice(&(peer << 8 | session).to_le_bytes());
    message
}
