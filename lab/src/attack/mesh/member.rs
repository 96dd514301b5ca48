//! A member whose keys the attacker has: it signs what it likes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use i2plan_proto::address::{AddressRange, AddressRanges};
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, DestinationProof, DestinationRole, ProvenDestination, base64};
use i2plan_proto::identity::{NetworkId, NodeId, Signable as _, Signed};
use i2plan_proto::invite::{Invite, InviteId, InviteSecret};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::membership::{Chain, Charter, Delegation};
use i2plan_proto::message::{Content, Datagram, Gossip, Item, Message, Range};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::{Revocation, Target};
use i2plan_proto::wireguard::{WireGuardCertificate, WireGuardSecret};
use rand::RngExt as _;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::Failure;
use crate::attack::network::{node, now, random_key, signed};
use crate::i2p::sam::{Session, Style};

/// The namespace of the attacker's router.
pub const ATTACKER: &str = "attacker";

/// How long an answer may take, repetitions included: nothing reaches a router for a minute and more now and then.
const TIMEOUT: Duration = Duration::from_secs(240);

/// How long a node is given before a request is repeated.
const REPEAT: Duration = Duration::from_secs(2);

/// What one datagram is filled to, bytes.
const FULL: usize = 3500;

/// An I2P destination and its key.
#[derive(Debug, Clone)]
pub(super) struct KeyedDestination {
    key: SigningKey,
    pub(super) destination: Destination,
}

impl KeyedDestination {
    pub(super) fn random() -> Self {
        let key = random_key();
        let destination = Destination { padding: rand::random(), signing_key: node(&key).0 };
        Self { key, destination }
    }

    /// The private key as SAM writes it: destination, encryption key (out of use), seed of the signing key.
    fn private_key(&self) -> String {
        base64().encode(&[&self.destination.to_i2p()[..], &[1; 256], self.key.as_bytes()].concat())
    }

    /// With the proof that a member uses it.
    pub(super) fn prove(&self, network: NetworkId, node: NodeId, role: DestinationRole) -> ProvenDestination {
        let proof = DestinationProof { network, node, role, destination: self.destination };
        ProvenDestination { destination: self.destination, proof: proof.sign(&self.key) }
    }
}

/// An open session for control messages.
pub(super) struct Station {
    session: Arc<Session>,
    pub(super) place: KeyedDestination,
    incoming: Mutex<mpsc::UnboundedReceiver<(Destination, Message)>>,
    task: JoinHandle<()>,
}

impl Drop for Station {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Station {
    pub(super) async fn open() -> Result<Self, Failure> {
        let place = KeyedDestination::random();
        let session = Session::open_within(ATTACKER, Style::Datagram, &place.private_key()).await?;
        let session = Arc::new(session);
        let (found, incoming) = mpsc::unbounded_channel();
        let task = tokio::spawn(serve(Arc::clone(&session), found));
        Ok(Self { session, place, incoming: Mutex::new(incoming), task })
    }

    pub(super) async fn send(&self, to: &Destination, message: &Message) -> Result<(), Failure> {
        self.send_bytes(to, &message.to_datagram(to)).await
    }

    pub(super) async fn send_bytes(&self, to: &Destination, payload: &[u8]) -> Result<(), Failure> {
        send(&self.session, to, payload).await
    }

    /// Sends these to each of some nodes, in as few datagrams as hold them, no faster than a node takes from a member.
    pub(super) async fn tell(&self, to: &[Destination], items: &[Item]) -> Result<usize, Failure> {
        let packed = pack(items);
        let mut interval = tokio::time::interval(Duration::from_secs(1) / 19);
        for items in &packed {
            interval.tick().await;
            for to in to {
                self.send(to, &Message::news(items.clone())).await?;
            }
        }
        Ok(packed.len())
    }

    /// What comes from a destination next, if anything does in time.
    async fn next_from(&self, from: &Destination, wait: Duration) -> Option<Message> {
        let mut incoming = self.incoming.lock().await;
        let next = async {
            loop {
                match incoming.recv().await {
                    Some((sender, message)) if sender == *from => return Some(message),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        tokio::time::timeout(wait, next).await.ok().flatten()
    }

    /// How many acknowledgements have come from a destination, until none comes any more.
    pub(super) async fn acknowledgements(&self, from: &Destination) -> u32 {
        let mut count = 0;
        while let Some(message) = self.next_from(from, REPEAT).await {
            count += u32::from(matches!(message, Message::Ack(..)));
        }
        count
    }

    /// A request to join by an invite, as an honest joiner would make it.
    fn request(
        &self,
        (network, inviter): (NetworkId, NodeId),
        secret: &InviteSecret,
        key: &SigningKey,
    ) -> Message {
        let body = JoinBody {
            network,
            inviter,
            invite: secret.key(),
            joiner: node(key),
            control: self.place.destination.hash(),
            issued_at: now(),
        };
        let proof = body.prove(&secret.signing_key());
        Message::JoinRequest(Box::new(JoinRequest { body: signed(body, key), proof }))
    }

    /// Joins by an invite, with this key. The inner result is what the inviter says.
    pub(super) async fn join(
        &self,
        invite: &Invite,
        to: &Destination,
        key: &SigningKey,
    ) -> Result<Result<Welcome, Refusal>, Failure> {
        let request = self.request((invite.network, invite.inviter), &invite.secret, key);
        let (joiner, used) = (node(key), invite.secret.key());
        let started = Instant::now();
        while started.elapsed() < TIMEOUT {
            self.send(to, &request).await?;
            let repeat = Instant::now();
            while let Some(left) = REPEAT.checked_sub(repeat.elapsed()) {
                match self.next_from(to, left).await {
                    // A slow inviter answers the repeated requests of those that joined here before, too.
                    Some(Message::JoinReply(JoinReply::Welcome(welcome)))
                        if *welcome.chain.subject() == joiner =>
                    {
                        return Ok(Ok(*welcome));
                    }
                    Some(Message::JoinReply(JoinReply::Refused { invite, refusal }))
                        if invite == used && refusal != Refusal::Busy =>
                    {
                        return Ok(Err(refusal));
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        }
        Err(Failure::new("the attacker's request to join is not answered"))
    }

    /// Waits until a node has got through all that was sent to it before: it refuses a joiner with an invite of the
    /// attacker's making. False if it does not answer this destination, as it does not if it has banned a member there.
    pub(super) async fn is_heard(
        &self,
        network: NetworkId,
        node: NodeId,
        at: &Destination,
        wait: Duration,
    ) -> Result<bool, Failure> {
        let secret = InviteSecret(rand::random());
        let request = self.request((network, node), &secret, &random_key());
        let started = Instant::now();
        while started.elapsed() < wait {
            self.send(at, &request).await?;
            let repeat = Instant::now();
            while let Some(left) = REPEAT.checked_sub(repeat.elapsed()) {
                match self.next_from(at, left).await {
                    Some(Message::JoinReply(JoinReply::Refused { invite, .. })) if invite == secret.key() => {
                        return Ok(true);
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        }
        Ok(false)
    }

    /// The records that a node has of these members.
    pub(super) async fn records(
        &self,
        at: &Destination,
        of: &[NodeId],
    ) -> Result<Vec<Signed<Record>>, Failure> {
        let mut found: Vec<Signed<Record>> = Vec::new();
        let started = Instant::now();
        while started.elapsed() < TIMEOUT {
            let all = vec![Range { end: None, content: Content::Entries(Vec::new()) }];
            self.send(at, &Message::Compare(all, Gossip::default())).await?;
            while let Some(message) = self.next_from(at, REPEAT).await {
                for item in message.gossip().map(|gossip| gossip.items.clone()).unwrap_or_default() {
                    if let Item::Record(record) = item
                        && of.contains(&record.value.node)
                    {
                        found.retain(|known| known.value.node != record.value.node);
                        found.push(*record);
                    }
                }
                if found.len() == of.len() {
                    return Ok(found);
                }
            }
        }
        Err(Failure::new(format!("the attacker got {} of {} records", found.len(), of.len())))
    }
}

/// As many of them in each datagram as it holds.
fn pack(items: &[Item]) -> Vec<Vec<Item>> {
    let (mut packed, mut len) = (Vec::<Vec<Item>>::new(), FULL);
    for item in items {
        let more = item.to_bytes().len();
        len += more;
        match packed.last_mut() {
            Some(last) if len <= FULL && last.len() < 20 => last.push(item.clone()),
            _ => {
                packed.push(vec![item.clone()]);
                len = more;
            }
        }
    }
    packed
}

async fn send(session: &Session, to: &Destination, payload: &[u8]) -> Result<(), Failure> {
    let mut datagram = session.header(&to.to_base64());
    datagram.extend_from_slice(payload);
    session.send(&datagram).await
}

/// Answers pings, as a member does, and hands on what came.
async fn serve(session: Arc<Session>, found: mpsc::UnboundedSender<(Destination, Message)>) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(len) = session.receive(&mut buffer).await {
        let Some((from, message)) = read(&buffer[..len]) else { continue };
        if let Message::Ping(number, _) = &message {
            let ack = Message::Ack(*number, Gossip::default()).to_datagram(&from);
            if send(&session, &from, &ack).await.is_err() {
                return;
            }
        }
        if found.send((from, message)).is_err() {
            return;
        }
    }
}

/// Control datagrams that do not decode, or carry forged statements in the name of the members with these records.
pub(super) fn nonsense(records: &[Signed<Record>], to: &Destination) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for record in records {
        let whole = Message::news(vec![Item::Record(Box::new(record.clone()))]).to_datagram(to);
        let mut forged = record.clone();
        forged.value.sequence += 1;
        all.push(Message::news(vec![Item::Record(Box::new(forged))]).to_datagram(to));
        all.push(whole[..whole.len() / 2].to_vec());
        let mut flipped = whole;
        let at = flipped.len() - 10;
        flipped[at] ^= 1;
        flipped[40] ^= 1;
        all.push(flipped);
    }
    let header = Message::news(Vec::new()).to_datagram(to);
    for _ in 0..6 {
        let mut garbage = header.clone();
        let len: usize = rand::rng().random_range(20..800);
        garbage.extend((0..len).map(|_| rand::random::<u8>()));
        all.push(garbage);
    }
    all
}

/// A datagram as a bridge forwards it.
fn read(datagram: &[u8]) -> Option<(Destination, Message)> {
    let end = datagram.iter().position(|byte| *byte == b'\n')?;
    let sender = datagram[..end].split(|byte| *byte == b' ').next()?;
    let from = Destination::from_i2p(&base64().decode(sender).ok()?).ok()?;
    Some((from, Datagram::from_bytes(&datagram[end + 1..]).ok()?.message))
}

/// A membership with the keys that belong to it.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) key: SigningKey,
    pub(super) chain: Chain,
    pub(super) control: KeyedDestination,
    pub(super) data: KeyedDestination,
}

impl Identity {
    /// A new one for this chain, at destinations of its own.
    pub(super) fn new(key: SigningKey, chain: Chain) -> Self {
        Self { key, chain, control: KeyedDestination::random(), data: KeyedDestination::random() }
    }

    pub(super) fn node(&self) -> NodeId {
        node(&self.key)
    }

    /// The addresses that it holds.
    pub(super) fn ranges(&self, charter: &Charter) -> AddressRanges {
        self.chain.ranges(&charter.subnet)
    }

    /// One of the addresses that it may delegate.
    pub(super) fn spare(&self, charter: &Charter, number: u32) -> AddressRanges {
        let first = self.chain.address(&charter.subnet).to_bits();
        AddressRange::of_size(first + 1 + number, 1).expect("every address is a range").into()
    }

    /// What it says of itself.
    pub(super) fn record(&self, name: &NodeName, sequence: u64) -> Record {
        let (network, node) = (self.chain.network(), self.node());
        let epoch = WireGuardCertificate::epoch_at(now());
        let begins = WireGuardCertificate::begins_at(epoch);
        let secret = WireGuardSecret::new(&Zeroizing::new(rand::random()));
        let key = secret.proven(network, node);
        let wireguard = WireGuardCertificate {
            network,
            node,
            key,
            epoch,
            not_before: begins,
            not_after: begins + WireGuardCertificate::MAX_AGE,
        };
        Record {
            node,
            sequence,
            issued_at: now(),
            name: name.clone(),
            control: self.control.prove(network, node, DestinationRole::Primary),
            primary: None,
            takes_reports: false,
            data: self.data.prove(network, node, DestinationRole::Data),
            wireguard: signed(wireguard, &self.key),
            chain: self.chain.clone(),
        }
    }

    /// Its record, signed, to be told.
    pub(super) fn item(&self, record: Record) -> Item {
        Item::Record(Box::new(signed(record, &self.key)))
    }

    /// The chain of a node that this one certifies, whether it may or not.
    pub(super) fn certify(
        &self,
        subject: NodeId,
        ranges: AddressRanges,
        serial: u64,
        replaces: bool,
    ) -> Chain {
        let invite = InviteId(rand::random());
        let grant = Delegation { subject, invite, ranges, serial, since: serial, replaces, issued_at: now() };
        self.chain.appended(&signed(self.chain.certificate(grant), &self.key))
    }

    /// A statement that something is revoked, in the name of `issuer`.
    pub(super) fn revoke_as(&self, issuer: NodeId, target: Target) -> Item {
        Item::Revocation(Box::new(signed(Revocation { issuer, target, issued_at: now() }, &self.key)))
    }
}
