//! What members do that lie. A liar owns its identity and its destinations, makes up as many more as it likes, knows all
//! that is public, and sends anything to anyone. In each second it does one of [`KINDS`] things, another each time.

use i2plan_keyd::keys::Keys;
use i2plan_keyd::memory::Epoch;
use i2plan_meshd::core::state::Ending;
use i2plan_proto::address::{AddressRange, AddressRanges};
use i2plan_proto::destination::{Destination, DestinationRole, ProvenDestination};
use i2plan_proto::identity::{NodeId, SelfSigned, Signable as _, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteId, InviteSecret};
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest, Welcome};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{Chain, Charter, Delegation};
use i2plan_proto::message::{
    Content, Entry, Gossip, HEADER_LEN, Item, MAX_ENTRIES, Message, Position, Range,
};
use i2plan_proto::record::Record;
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use rand::RngExt as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::puppets::{Former, Puppet};
use super::world::{World, keys, proven};
use crate::Failure;
use crate::attack::readdress;

/// How many things a liar does in turn.
const KINDS: usize = 24;

/// Identities that a liar makes up at most, if it holds as many addresses.
const MOST_PUPPETS: usize = 64;

/// How many hear of a lie that is told to many.
const AUDIENCE: usize = 8;

/// Datagrams of a flood.
const FLOOD: usize = 150;

/// Signatures that belong to nothing.
const NO_SIGNATURE: Signature = Signature([7; 64]);

/// The year 9999, Unix time in seconds.
const YEAR_9999: u64 = 253_370_764_800;

/// What is sent: from where, to whom, what.
type Lies = Vec<(Destination, usize, Vec<u8>)>;

/// Signed by these keys, be they the signer's or not.
fn signed<T: SelfSigned>(value: T, keys: &Keys) -> Signed<T> {
    let signature = value.sign(&keys.identity());
    Signed { value, signature }
}

/// A chain and one certificate more, which its subject signs.
fn delegate(issuer: &Keys, chain: &Chain, grant: Delegation) -> Chain {
    let certificate = chain.certificate(grant);
    let signature = certificate.sign(&issuer.identity());
    chain.appended(&Signed { value: certificate, signature })
}

/// What a certificate says that nothing is wrong with.
fn grant(subject: NodeId, range: AddressRange, serial: u64, unix: u64) -> Delegation {
    let (invite, ranges) = (InviteId([0; 16]), AddressRanges::from(range));
    Delegation { subject, invite, ranges, serial, since: serial, replaces: false, issued_at: unix }
}

/// A record that nothing is wrong with.
fn draft(keys: &Keys, chain: &Chain, sequence: u64, unix: u64) -> Option<Record> {
    let (network, node) = (chain.network(), keys.node());
    let epoch = WireGuardCertificate::epoch_at(unix);
    let begins = WireGuardCertificate::begins_at(epoch);
    let certificate = WireGuardCertificate {
        network,
        node,
        key: keys.wireguard(&Epoch { network, number: epoch, salt: [0; 32], end: 0 }).proven(network, node),
        epoch,
        not_before: begins,
        not_after: begins + WireGuardCertificate::MAX_AGE,
    };
    Some(Record {
        node,
        sequence,
        issued_at: unix,
        name: "puppet".parse().ok()?,
        control: proven(keys, network, DestinationRole::Primary),
        primary: None,
        takes_reports: false,
        data: proven(keys, network, DestinationRole::Data),
        wireguard: signed(certificate, keys),
        chain: chain.clone(),
    })
}

fn item(record: Record, keys: &Keys) -> Item {
    Item::Record(Box::new(signed(record, keys)))
}

fn revocation(issuer: NodeId, target: Target, issued_at: u64, keys: &Keys) -> Item {
    Item::Revocation(Box::new(signed(Revocation { issuer, target, issued_at }, keys)))
}

impl World {
    /// Those who lie from now on get ready.
    pub(super) fn turn(&mut self) -> Result<(), Failure> {
        for liar in self.liars.clone() {
            let node = &self.nodes[liar];
            let data = node.signer.keys().ephemeral([1; 32]).public();
            self.ledger.lies(node.id);
            self.ledger.liar_has(node.control);
            self.ledger.liar_has(node.data);
            self.ledger.liar_has(data);
        }
        let keys = keys(&mut self.rng);
        self.lies.bystanders = vec![keys.control().public(), keys.ephemeral([3; 32]).public()];
        let founder = self.nodes[0].signer.keys().clone();
        let unix = self.unix();
        let charter = Charter { nonce: [9; 16], founded_at: unix - 1000, ..self.charter.clone() };
        let charter = signed(charter, &founder);
        let root = Chain::founder(&charter.value);
        let first = charter.value.subnet.range().first().to_bits();
        let mut former = Former { charter, chains: Vec::new(), endings: Vec::new() };
        for place in 1..self.nodes.len().min(100) {
            let range = AddressRange::of_size(first + 16 * u32::try_from(place).unwrap_or(1), 16);
            let range = range.ok_or_else(|| Failure::new("a range"))?;
            let chain = delegate(&founder, &root, grant(self.nodes[place].id, range, place as u64, unix));
            let target = Target::Certificate(chain.clone());
            let value = Revocation { issuer: self.nodes[0].id, target, issued_at: unix };
            former.endings.push(Ending::Revocation(Box::new(signed(value, &founder))));
            former.chains.push((place, chain));
        }
        self.lies.former = Some(former);
        Ok(())
    }

    /// All that lie do something.
    pub(super) fn lie(&mut self) -> Result<(), Failure> {
        self.lies.tick += 1;
        let mut liars: Vec<usize> = self.liars.iter().copied().collect();
        liars.sort_unstable();
        for (number, liar) in liars.into_iter().enumerate() {
            let lies = self.lies_of(liar, (number + self.lies.tick) % KINDS).unwrap_or_default();
            for (sender, target, bytes) in lies {
                let parcel = std::rc::Rc::new(self.parcel(liar, bytes));
                self.deliver(liar, sender, target, &parcel);
            }
        }
        Ok(())
    }

    /// Some that hear of a lie.
    fn audience(&mut self, also: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.nodes.len()).sample(&mut self.rng, AUDIENCE);
        all.push(also);
        all
    }

    /// News for some.
    fn tell(&mut self, sender: Destination, also: usize, items: &[Item]) -> Lies {
        let audience = self.audience(also);
        let to = |target: usize| (sender, target, self.news_for(target, items));
        audience.into_iter().map(to).collect()
    }

    fn news_for(&self, target: usize, items: &[Item]) -> Vec<u8> {
        Message::news(items.to_vec()).to_datagram(&self.nodes[target].control)
    }

    /// One more identity below a liar, in a range that it delegates; a new one if none is given.
    fn puppet(&mut self, liar: usize, chain: &Chain, range: AddressRange, serial: u64) -> Puppet {
        let (made_up, unix) = (keys(&mut self.rng), self.unix());
        let chain =
            delegate(self.nodes[liar].signer.keys(), chain, grant(made_up.node(), range, serial, unix));
        let puppet = Puppet { owner: liar, keys: made_up, chain, sequence: 1 };
        self.own(&puppet);
        puppet
    }

    /// A puppet's destinations lead to its owner.
    fn own(&mut self, puppet: &Puppet) {
        let control = puppet.keys.control().public();
        self.by_control.insert(control, puppet.owner);
        self.ledger.liar_has(control);
        self.ledger.liar_has(puppet.keys.ephemeral([1; 32]).public());
    }

    /// What a liar does.
    #[expect(clippy::too_many_lines, reason = "a list")]
    fn lies_of(&mut self, liar: usize, kind: usize) -> Option<Lies> {
        let count = self.nodes.len();
        let target = self.rng.random_range(0..count);
        let victim = if self.rng.random_ratio(1, 10) { 0 } else { self.rng.random_range(0..count) };
        // Of itself it can say what it likes.
        if victim == liar || target == liar {
            return None;
        }
        let unix = self.unix();
        let own = self.nodes[liar].signer.keys().clone();
        let (me, from) = (own.node(), own.control().public());
        let (them, there) = (self.nodes[victim].id, self.nodes[victim].control);
        let to = self.nodes[target].control;
        let chain = self.ledger.chain(&me)?.clone();
        let theirs = self.ledger.newest(&them)?.clone();
        let (network, subnet) = (self.charter.network(), self.charter.subnet);
        let held = *chain.ranges(&subnet).iter().next()?;
        let address = held.first().to_bits();
        let latest = self.nodes[target].mesh.sequence_of(&them);
        let mine: Vec<Puppet> =
            self.lies.puppets.iter().filter(|puppet| puppet.owner == liar).cloned().collect();
        let last = AddressRange::of_size(address + held.size() - 1, 1)?;
        let stranger = keys(&mut self.rng);
        let unknown = stranger.control().public();
        Some(match kind {
            // Replays, in its own name.
            0 => {
                let some = self.recorded.iter().sample(&mut self.rng, 3);
                let replay = |(_, parcel): &(usize, std::rc::Rc<super::world::Parcel>)| {
                    let mut replayed = parcel.bytes.clone();
                    readdress(&mut replayed, to.hash());
                    (from, target, replayed)
                };
                some.into_iter().map(replay).collect()
            }
            // Replays as it is what another has said to it, by the hundred.
            1 => {
                let (sender, parcel) = self.recorded.choose(&mut self.rng)?.clone();
                let sender = self.nodes[sender].control;
                std::iter::repeat_n((sender, target, parcel.bytes.clone()), FLOOD).collect()
            }
            // Forges, by a bit.
            2 => {
                let (_, parcel) = self.recorded.choose(&mut self.rng)?;
                let mut forged = parcel.bytes.clone();
                readdress(&mut forged, to.hash());
                let place = self.rng.random_range(0..forged.len());
                forged[place] ^= 1;
                vec![(from, target, forged)]
            }
            // Has another say that it goes away.
            3 => {
                let liveness_message = LivenessMessage {
                    network,
                    node: them,
                    sequence: latest.unwrap_or(0).saturating_add(1),
                    presence: Presence::Away,
                };
                self.tell(from, victim, &[Item::Liveness(signed(liveness_message, &own))])
            }
            // Says that another cannot be reached; of statements that it has not made too.
            4 => {
                let sequence = if self.rng.random() { latest.unwrap_or(u64::MAX) } else { u64::MAX };
                let suspicion =
                    Suspicion { network, confirmer: me, subject: them, sequence, issued_at: unix };
                self.tell(from, target, &[Item::Suspicion(signed(suspicion, &own))])
            }
            // Floods.
            5 => {
                let ping = Message::Ping(7, Gossip::default()).to_datagram(&to);
                std::iter::repeat_n((from, target, ping), FLOOD).collect()
            }
            // Certifies another as its subject, and revokes that; from an unknown destination too.
            6 => {
                let forged = delegate(&own, &chain, grant(them, last, u64::MAX, unix));
                let record = Record { chain: forged.clone(), sequence: u64::MAX, ..theirs.clone() };
                let items = [
                    revocation(me, Target::Certificate(forged), unix, &own),
                    Item::Record(Box::new(signed(record, &own))),
                ];
                let sender = if self.rng.random() { from } else { unknown };
                self.tell(sender, victim, &items)
            }
            // Numbers and times without measure, in what is its own and in what it claims.
            7 => {
                let numbers = [0, 1, u64::MAX - 1, u64::MAX];
                let times = [0, 1, unix, YEAR_9999, u64::MAX];
                let number = *numbers.choose(&mut self.rng)?;
                let time = *times.choose(&mut self.rng)?;
                let mut record = draft(&own, &chain, number, time.min(YEAR_9999))?;
                if self.rng.random() {
                    record.issued_at = unix;
                    record.wireguard.value.not_before = time;
                    record.wireguard.value.not_after = u64::MAX;
                    record.wireguard = signed(record.wireguard.value, &own);
                }
                let liveness_message =
                    LivenessMessage { network, node: me, sequence: number, presence: Presence::Present };
                let mut items = vec![item(record, &own), Item::Liveness(signed(liveness_message, &own))];
                if let Some(puppet) = mine.choose(&mut self.rng) {
                    items.push(item(draft(&puppet.keys, &puppet.chain, u64::MAX, unix)?, &puppet.keys));
                }
                let entry = |node, ended| Entry { node, record: number, liveness: numbers[3], ended };
                let entries = vec![entry(them, true), entry(me, true), entry(NodeId([0xff; 32]), false)];
                let mut lies = self.tell(from, victim, &items);
                let ranges = vec![
                    Range { end: Some(Position::member(them)), content: Content::Entries(entries.clone()) },
                    Range { end: None, content: Content::Fingerprint { count: u16::MAX, sum: [0xff; 16] } },
                ];
                // Ranges follow each other; an id of all ones ends in nothing.
                let gossip = Gossip { entries: entries.clone(), items: Vec::new() };
                for message in [
                    Message::Compare(ranges, gossip.clone()),
                    Message::Want(entries),
                    Message::Ping(u64::MAX, gossip.clone()),
                    Message::Ack(u64::MAX, gossip),
                ] {
                    lies.push((from, target, message.to_datagram(&to)));
                }
                lies
            }
            // Revokes by the dozen what it has made up.
            8 => {
                let mut lies = Lies::new();
                for _ in 0..8 {
                    let items: Vec<Item> = (0..4)
                        .filter_map(|_| {
                            let subject = NodeId(self.rng.random());
                            let first = address + self.rng.random_range(0..held.size());
                            let range = AddressRange::of_size(first, 1)?;
                            let made_up =
                                delegate(&own, &chain, grant(subject, range, self.rng.random(), unix));
                            let target = if self.rng.random() {
                                Target::Certificate(made_up)
                            } else {
                                Target::Invite(chain.clone(), InviteId(self.rng.random()))
                            };
                            Some(revocation(me, target, unix, &own))
                        })
                        .collect();
                    lies.push((from, target, self.news_for(target, &items)));
                }
                lies
            }
            // Gives addresses that it does not hold, its own, or those of others, earlier or in their place.
            9 => {
                let taken = AddressRange::of_size(theirs.ipv4(&self.charter).to_bits(), 1)?;
                let wider = taken.widened(8.max(subnet.prefix()));
                let mut lies = Lies::new();
                for (range, serial, replaces) in [
                    (taken, 0, false),
                    (taken, u64::MAX, true),
                    (wider, 0, true),
                    (AddressRange::of_size(address, 1)?, 0, true),
                    (last, 0, false),
                    (last, u64::MAX, true),
                ] {
                    let mut puppet = self.puppet(liar, &chain, range, serial);
                    let said = Delegation {
                        replaces,
                        issued_at: 1,
                        ..grant(puppet.keys.node(), range, serial, unix)
                    };
                    puppet.chain = delegate(&own, &chain, said);
                    // Also as if the founder or the other's inviter had given them.
                    if self.rng.random_ratio(1, 4)
                        && let Some(parent) = theirs.chain.parent()
                    {
                        let said = puppet.chain.last().map(|link| (**link).clone())?;
                        puppet.chain = delegate(&own, &parent, said);
                    }
                    let record = draft(&puppet.keys, &puppet.chain, 1, unix)?;
                    lies.push((from, target, self.news_for(target, &[item(record, &puppet.keys)])));
                }
                lies
            }
            // One identity more, up to all of its addresses and beyond.
            10 => {
                let most = (held.size() as usize).min(MOST_PUPPETS) + 2;
                let number = u32::try_from(mine.len()).ok()? + 1;
                let range = AddressRange::of_size(address.checked_add(number)?, 1)?;
                let puppet = self.puppet(liar, &chain, range, u64::from(number) + 1_000_000);
                let record = draft(&puppet.keys, &puppet.chain, 1, unix)?;
                let items = [item(record, &puppet.keys)];
                if mine.len() < most {
                    self.lies.puppets.push(puppet.clone());
                }
                self.tell(puppet.keys.control().public(), target, &items)
            }
            // Names destinations of others, which have not signed it, or have signed something else.
            11 => {
                let mut puppet = mine.choose(&mut self.rng)?.clone();
                puppet.sequence = self.rng.random_range(2..1_000_000);
                let mut record = draft(&puppet.keys, &puppet.chain, puppet.sequence, unix)?;
                let bystander = *self.lies.bystanders.choose(&mut self.rng)?;
                let own_proof = record.control.proof;
                let named = match self.rng.random_range(0..4) {
                    0 => ProvenDestination::unproven(bystander),
                    1 => ProvenDestination { destination: bystander, proof: own_proof },
                    2 => theirs.control,
                    _ => theirs.data,
                };
                match self.rng.random_range(0..3) {
                    0 => record.control = named,
                    1 => record.data = named,
                    _ => record.primary = Some(Box::new(named)),
                }
                self.tell(from, target, &[item(record, &puppet.keys)])
            }
            // Many identities, each just within its allowance.
            12 => {
                let ping = Message::Ping(1, Gossip::default()).to_datagram(&to);
                let each = |puppet: &Puppet| {
                    std::iter::repeat_n((puppet.keys.control().public(), target, ping.clone()), 20)
                };
                mine.iter().flat_map(each).collect()
            }
            // What is left of a network that the founder had before.
            13 => {
                let former = self.lies.former.clone()?;
                let (place, old) = former.chains.choose(&mut self.rng)?;
                let mut items = vec![former.endings.choose(&mut self.rng)?.item()];
                let old_keys = self.nodes[*place].signer.keys().clone();
                items.push(item(draft(&old_keys, old, u64::MAX, unix)?, &old_keys));
                // And what was said there as if it were of this network.
                let certificate = old.certificate_by(&self.charter.founder)?;
                let moved = Chain::founder(&self.charter).appended(&certificate);
                items.push(item(draft(&own, &moved, u64::MAX, unix)?, &own));
                let mut lies = self.tell(from, *place, &items);
                let welcome = Welcome { charter: former.charter, chain: old.clone(), records: Vec::new() };
                let reply = Message::JoinReply(JoinReply::Welcome(Box::new(welcome)));
                lies.push((from, target, reply.to_datagram(&to)));
                lies
            }
            // Takes the name of another, or its short id.
            14 => {
                let puppet = mine.choose(&mut self.rng)?.clone();
                let mut record =
                    draft(&puppet.keys, &puppet.chain, self.rng.random_range(2..1_000_000), unix)?;
                record.name = if self.rng.random() { theirs.name } else { them.short().parse().ok()? };
                self.tell(from, target, &[item(record, &puppet.keys)])
            }
            // A router says garbage, and forgeries, in another's name.
            15 => {
                let mut lies = Lies::new();
                for _ in 0..10 {
                    let mut garbage = Message::Ping(0, Gossip::default()).to_datagram(&to);
                    garbage.truncate(HEADER_LEN);
                    let len = self.rng.random_range(0..200);
                    garbage.extend((0..len).map(|_| self.rng.random::<u8>()));
                    lies.push((there, target, garbage));
                    let record = Record { sequence: theirs.sequence.saturating_add(1), ..theirs.clone() };
                    let target_chain = Target::Certificate(theirs.chain.clone());
                    let founder = self.charter.founder;
                    let items = [
                        Item::Record(Box::new(Signed { value: record, signature: NO_SIGNATURE })),
                        revocation(founder, target_chain, unix, &own),
                        Item::Liveness(Signed {
                            value: LivenessMessage {
                                network,
                                node: them,
                                sequence: u64::MAX,
                                presence: Presence::Away,
                            },
                            signature: NO_SIGNATURE,
                        }),
                    ];
                    lies.push((there, target, self.news_for(target, &items)));
                }
                lies
            }
            // What others said before.
            16 => {
                let old = self.ledger.earliest(&them)?.clone();
                let signer = self.nodes[victim].signer.keys();
                let items = [Item::Record(Box::new(signed(old, signer)))];
                self.tell(from, target, &items)
            }
            // The ends of memberships by those who cannot end them.
            17 => {
                let founder = self.charter.founder;
                let root = Chain::founder(&self.charter);
                let resign = |chain: &Chain| {
                    let value = Resignation { chain: chain.clone(), last_serial: 0, issued_at: unix };
                    Item::Resignation(Box::new(signed(value, &own)))
                };
                let link = theirs.chain.last().map(|link| link.invite);
                let invite = link.unwrap_or(InviteId([0; 16]));
                let parent = theirs.chain.parent().unwrap_or(root.clone());
                let target_chain = Target::Certificate(theirs.chain.clone());
                let items = [
                    resign(&theirs.chain),
                    resign(&root),
                    revocation(founder, target_chain.clone(), unix, &own),
                    revocation(me, target_chain, unix, &own),
                    revocation(me, Target::Invite(parent.clone(), invite), unix, &own),
                    revocation(*parent.subject(), Target::Invite(parent, invite), unix, &own),
                    revocation(me, Target::Invite(chain.clone(), invite), unix, &own),
                ];
                let mut lies = Lies::new();
                for part in items.chunks(3) {
                    lies.extend(self.tell(from, victim, part));
                }
                lies
            }
            // More addresses, or others, for one that it has not invited.
            18 => {
                let forged = delegate(&own, &chain, grant(them, held, u64::MAX, unix));
                let said = grant(them, subnet.range(), u64::MAX, unix);
                let parent = theirs.chain.parent()?;
                let grants = [forged, delegate(&own, &parent, said)];
                let to_them = |chain| (from, victim, Message::Grant(Box::new(chain)).to_datagram(&there));
                grants.into_iter().map(to_them).collect()
            }
            // Joins with invites that were used up, that never were, that are another's, or that have expired.
            19 => {
                let used = self.lies.codes.choose(&mut self.rng).cloned();
                // Before that it is a secret of those two.
                let used = used.and_then(|(inviter, code)| Some((inviter, code.parse::<Invite>().ok()?)));
                let used = used.filter(|(_, invite)| self.ledger.is_used(&invite.secret.key()));
                let (inviter, secret) = match used {
                    Some((inviter, invite)) if self.rng.random() => (inviter, invite.secret),
                    _ => (target, InviteSecret(self.rng.random())),
                };
                let body = JoinBody {
                    network,
                    inviter: self.nodes[inviter].id,
                    invite: secret.key(),
                    joiner: stranger.node(),
                    control: unknown.hash(),
                    issued_at: if self.rng.random() { unix } else { YEAR_9999 },
                };
                // Whoever asks is answered.
                self.by_control.insert(unknown, liar);
                self.ledger.liar_has(unknown);
                let proof = body.prove(&secret.signing_key());
                let request = JoinRequest { body: signed(body, &stranger), proof };
                let control = self.nodes[inviter].control;
                vec![(unknown, inviter, Message::JoinRequest(Box::new(request)).to_datagram(&control))]
            }
            // Leaves, and certifies others after that.
            20 => {
                if !liar.is_multiple_of(5) {
                    return None;
                }
                let value = Resignation { chain: chain.clone(), last_serial: 10, issued_at: unix };
                let resignation = Box::new(signed(value, &own));
                if self.lies.resigned.insert(liar) {
                    self.ledger.ending(Ending::Resignation(resignation.clone()));
                }
                let puppet = self.puppet(liar, &chain, last, 11);
                let record = draft(&puppet.keys, &puppet.chain, 1, unix)?;
                let items = [Item::Resignation(resignation), item(record, &puppet.keys)];
                self.tell(from, target, &items)
            }
            // Revokes those that it has invited, or could have.
            21 => {
                let below = self.nodes.iter().map(|node| node.id);
                let below = below.filter(|node| self.ledger.stands_above(&me, node)).choose(&mut self.rng)?;
                let target_chain = Target::Certificate(self.ledger.chain(&below)?.clone());
                self.tell(from, target, &[revocation(me, target_chain, unix, &own)])
            }
            // Asks for all, and has others ask third parties.
            22 => {
                let entry = |node: &NodeId| Entry { node: *node, record: 0, liveness: 0, ended: false };
                let all: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
                let wanted: Vec<Entry> =
                    all.iter().sample(&mut self.rng, MAX_ENTRIES).into_iter().map(entry).collect();
                let errand = Message::PingRequest(u64::MAX, them, Gossip::default());
                let mut lies = Lies::new();
                for _ in 0..20 {
                    lies.push((from, target, Message::Want(wanted.clone()).to_datagram(&to)));
                    lies.push((from, target, errand.to_datagram(&to)));
                    lies.push((unknown, target, errand.to_datagram(&to)));
                }
                self.by_control.insert(unknown, liar);
                lies
            }
            // Signs what no honest node signs, until it is banned.
            _ => {
                let mut record = draft(&own, &chain, 500, unix)?;
                record.control.proof = NO_SIGNATURE;
                record.sequence = theirs.sequence.saturating_add(1000);
                self.tell(from, target, &[item(record, &own)])
            }
        })
    }
}
