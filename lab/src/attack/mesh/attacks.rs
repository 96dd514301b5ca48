//! The attacks.

use std::time::Duration;

use i2plan_proto::address::{AddressRange, AddressRanges};
use i2plan_proto::destination::{Destination, DestinationRole};
use i2plan_proto::identity::{NodeId, Signable as _, Signature, Signed};
use i2plan_proto::invite::{Invite, InviteId};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::{Chain, Delegation};
use i2plan_proto::message::{Content, Entry, Gossip, Item, MAX_ENTRIES, Message, Range};
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::revocation::{Resignation, Target};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use nix::sys::signal::Signal;

use super::bridge;
use super::member::{Identity, KeyedDestination, Station, nonsense};
use super::world::{GOSSIP, Tried, World};
use crate::Failure;
use crate::attack::network::{node, now, random_key, signed};
use crate::process::signal;
use crate::traffic::reach;

/// Addresses of an attacker that invites.
const ADDRESSES: u32 = 16;

/// Revocations of invented identities.
const REVOCATIONS: u32 = 4096;

/// Bytes by which the state of a node may grow by these: one for each of the attacker's addresses.
const MAX_STATE: u64 = 64 * 1024;

/// Identities below one member.
const IDENTITIES: u32 = 600;

/// Members that flood, each a little less than a node takes from one.
const FLOODERS: u32 = 10;

/// How long they do.
const FLOOD: Duration = Duration::from_secs(15);

/// Datagrams of each in a second.
const FLOOD_RATE: u32 = 19;

/// Destinations that send what no honest node sends.
const DISGUISES: usize = 5;

/// Longest error line about an ambiguous name, characters.
const MAX_LINE: usize = 600;

/// Tries all of them, one after the other.
pub(super) async fn all(world: &mut World) -> Result<(), Failure> {
    revocations(world).await?;
    world.attempt("numbers: the highest and the lowest in every statement", numbers).await?;
    world.attempt("numbers: a restart after them", restart).await?;
    world.attempt("4,096 revocations of invented identities", invented_revocations).await?;
    world.attempt("addresses of others, outside of the attacker's ranges", addresses).await?;
    world.attempt("identities without end", identities).await?;
    world.attempt("WireGuard keys without end, and those of others", keys).await?;
    world.attempt("destinations of a third party", destinations).await?;
    world.attempt("ten identities, each just under its allowance", flood).await?;
    world.attempt("names that are another's id, address or name", names).await?;
    world.attempt("what does not decode or is forged, from many destinations", garbage).await?;
    world.attempt("a router that forges what members send", bridge::forging_router).await?;
    world.attempt("chains of the founder's former network", former_network).await
}

/// Certificates and revocations against each honest member: as a member, as a revoked member, as a stranger.
async fn revocations(world: &mut World) -> Result<(), Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let records = attacker.station.records(&world.honest[0].1, &world.ids()).await?;
    let statements = expulsions(world, &attacker.identity, &records)?;
    let places = world.places();
    // It stays a member for the next attempt.
    world.attackers.clear();
    world
        .attempt("revocations of all others by a member", async |world| {
            // Again, since datagrams are lost.
            let datagrams = attacker.station.tell(&places, &statements).await?;
            world.settle(&attacker.station, Some(attacker.identity.node())).await?;
            attacker.station.tell(&places, &statements).await?;
            let banned = world.settle(&attacker.station, Some(attacker.identity.node())).await?;
            Ok(Tried::new(format!(
                "{} statements in {datagrams} datagrams to each of {} nodes, twice; {banned} have banned the member",
                statements.len(),
                places.len()
            )))
        })
        .await?;
    world
        .attempt("revocations of all others by an unknown destination", async |world| {
            let stranger = Station::open().await?;
            let datagrams = stranger.tell(&places, &statements).await?;
            world.settle(&stranger, None).await?;
            Ok(Tried::new(format!("{} statements in {datagrams} datagrams", statements.len())))
        })
        .await?;
    world.expel(&attacker.identity.node()).await?;
    // One that no node has banned.
    let attacker = world.attacker(ADDRESSES).await?;
    let statements = expulsions(world, &attacker.identity, &records)?;
    world.expel(&attacker.identity.node()).await?;
    world
        .attempt("revocations of all others by a revoked member", async |world| {
            attacker.station.tell(&places, &statements).await?;
            world.settle(&attacker.station, None).await?;
            let stranger = Station::open().await?;
            let datagrams = stranger.tell(&places, &statements).await?;
            world.settle(&stranger, None).await?;
            Ok(Tried::new(format!(
                "{} statements in {datagrams} datagrams, from its own destination and from another",
                statements.len()
            )))
        })
        .await
}

/// Everything that the attacker can sign by which others could be expelled. First what is correct in itself; then what
/// no honest node signs.
fn expulsions(world: &World, attacker: &Identity, records: &[Signed<Record>]) -> Result<Vec<Item>, Failure> {
    let charter = world.charter()?;
    let (mut correct, mut wrong) = (Vec::new(), Vec::new());
    for Signed { value, .. } in records {
        let (own, victim) = (attacker.node(), value.node);
        // As if the attacker had invited the victim.
        let mine = attacker.certify(victim, attacker.spare(charter, 0), 1, false);
        let replacing = attacker.certify(victim, attacker.spare(charter, 1), u64::MAX, true);
        let theirs = attacker.certify(victim, value.chain.ranges(&charter.subnet), u64::MAX, true);
        for chain in [mine, replacing.clone()] {
            correct.push(attacker.revoke_as(own, Target::Certificate(chain)));
        }
        for chain in [theirs, value.chain.clone()] {
            wrong.push(attacker.revoke_as(own, Target::Certificate(chain)));
        }
        // The invite by which the victim has joined, as if it were the attacker's.
        if let Some(link) = value.chain.last() {
            correct.push(attacker.revoke_as(own, Target::Invite(attacker.chain.clone(), link.invite)));
        }
        // In the name of the founder, and of the victim itself: not the attacker's signature to give.
        correct.push(attacker.revoke_as(charter.founder, Target::Certificate(value.chain.clone())));
        for chain in [value.chain.clone(), replacing] {
            let resignation = Resignation { chain, last_serial: 0, issued_at: now() };
            correct.push(Item::Resignation(Box::new(signed(resignation, &attacker.key))));
        }
    }
    correct.extend(wrong);
    Ok(correct)
}

/// The highest and the lowest numbers in everything that has one.
async fn numbers(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let network = world.charter()?.network();
    let (ids, places) = (world.ids(), world.places());
    let (own, key) = (attacker.identity.node(), attacker.identity.key.clone());
    let second = world.invented(&attacker, 0, u64::MAX)?;
    let last = attacker.identity.record(&attacker.name, u64::MAX);
    let mut times = attacker.identity.record(&attacker.name, u64::MAX - 1);
    times.issued_at = u64::MAX;
    times.wireguard.value.epoch = u32::MAX;
    times.wireguard.value.not_before = u64::MAX;
    times.wireguard.value.not_after = u64::MAX;
    times.wireguard = signed(times.wireguard.value, &key);
    let mut early = second.record(&attacker.name, 0);
    early.issued_at = 0;
    let mut items = vec![
        attacker.identity.item(times),
        attacker.identity.item(last),
        second.item(early),
        second.item(second.record(&attacker.name, u64::MAX)),
    ];
    for (sequence, presence) in
        [(0, Presence::Away), (u64::MAX, Presence::Present), (u64::MAX, Presence::Away)]
    {
        items.push(Item::Liveness(signed(LivenessMessage { network, node: own, sequence, presence }, &key)));
    }
    for subject in ids.iter().copied().chain([own, second.node()]) {
        for (sequence, issued_at) in [(u64::MAX, now()), (0, now()), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
            let suspicion = Suspicion { network, confirmer: own, subject, sequence, issued_at };
            items.push(Item::Suspicion(signed(suspicion, &key)));
        }
    }
    let resignation = Resignation { chain: second.chain.clone(), last_serial: u64::MAX, issued_at: u64::MAX };
    items.push(Item::Resignation(Box::new(signed(resignation, &second.key))));
    let entry = |node, number, ended| Entry { node, record: number, liveness: number, ended };
    let mut entries = Vec::new();
    for id in ids.iter().copied().chain([own, second.node(), NodeId([0; 32]), NodeId([0xff; 32])]) {
        entries.extend([entry(id, u64::MAX, true), entry(id, u64::MAX, false), entry(id, 0, true)]);
    }
    entries.truncate(MAX_ENTRIES);
    let all = |content| vec![Range { end: None, content }];
    let gossip = Gossip { entries: entries.clone(), items: Vec::new() };
    let messages = [
        Message::Compare(all(Content::Entries(entries.clone())), gossip.clone()),
        Message::Compare(all(Content::Fingerprint { count: u16::MAX, sum: [0xff; 16] }), gossip.clone()),
        Message::Compare(all(Content::Fingerprint { count: 0, sum: [0; 16] }), Gossip::default()),
        Message::News(gossip.clone()),
        Message::Ping(u64::MAX, gossip.clone()),
        Message::Ack(u64::MAX, gossip.clone()),
        Message::PingRequest(u64::MAX, ids[0], gossip),
        Message::Want(entries),
    ];
    for _ in 0..2 {
        attacker.station.tell(&places, &items).await?;
        for message in &messages {
            for place in &places {
                attacker.station.send(place, message).await?;
            }
        }
        world.settle(&attacker.station, Some(own)).await?;
    }
    // An honest member suspected with such a number can still say that it is there: all know it as present.
    let mut effects = Vec::new();
    for node in world.nodes() {
        let present = node
            .until("it holds all honest members for present", GOSSIP, async |node| {
                let peers = node.control().await?.peers().await;
                let peers = peers.map_err(|error| node.failure(&error.to_string()))?;
                let mut honest =
                    peers.iter().filter(|peer| ids.iter().any(|id| id.to_string() == peer.node_id));
                Ok(honest.all(|peer| peer.liveness == i2plan_ipc::api::meshd::Liveness::Present))
            })
            .await;
        effects.extend(present.err().map(|failure| failure.to_string()));
    }
    let tried = Tried::new(format!("{} statements and {} messages, twice", items.len(), messages.len()));
    Ok(Tried { effects, ..tried })
}

/// A node that has taken in what came before starts again with it.
async fn restart(world: &mut World) -> Result<Tried, Failure> {
    let node = &world.lab.nodes[1];
    let before = node.daemon_pid("meshd").await?;
    signal(before, Signal::SIGTERM)?;
    node.until("meshd is back", GOSSIP, async |node| {
        Ok(node.daemon_pid("meshd").await? != before && node.status().await?.sessions_are_open())
    })
    .await?;
    let after = node.daemon_pid("meshd").await?;
    if let Some(view) = world.before.get_mut(1) {
        view.pids.insert("meshd".to_owned(), Some(after));
    }
    reach(&world.lab.nodes[0], &world.lab.nodes[1]).await?;
    let same = world.lab.nodes[1].daemon_pid("meshd").await? == after;
    Ok(Tried::new("meshd of one node restarted").check(same, "meshd ended again"))
}

/// The tables of revocations cannot be filled.
async fn invented_revocations(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let other = world.attacker(1).await?;
    let (own, charter) = (attacker.identity.node(), world.charter()?.clone());
    let state = world.lab.nodes[1].state("meshd").join("state");
    let before = std::fs::metadata(&state)?.len();
    let items: Vec<Item> = (0..REVOCATIONS)
        .map(|number| {
            let invented = NodeId(rand::random());
            let ranges = attacker.identity.spare(&charter, number % (ADDRESSES - 1));
            let chain = attacker.identity.certify(invented, ranges, number.into(), false);
            let target = if number % 4 == 0 {
                Target::Invite(attacker.identity.chain.clone(), InviteId(rand::random()))
            } else {
                Target::Certificate(chain)
            };
            attacker.identity.revoke_as(own, target)
        })
        .collect();
    let datagrams = attacker.station.tell(&[world.honest[1].1], &items).await?;
    let banned = world.settle(&attacker.station, Some(own)).await?;
    // Revocation works as before.
    let expelled = world.expel(&other.identity.node()).await;
    let after = std::fs::metadata(&state)?.len();
    let detail = format!(
        "{REVOCATIONS} revocations in {datagrams} datagrams, banned by {banned}; the state has {before} bytes before and {after} after"
    );
    let tried = Tried::new(detail).check(after < before + MAX_STATE, "the state has grown");
    Ok(match expelled {
        Ok(()) => tried,
        Err(failure) => tried.check(false, format!("the founder cannot revoke: {failure}")),
    })
}

/// The addresses of others: by certificates outside of the attacker's ranges, backdated, replacing, or forged.
async fn addresses(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let records = attacker.station.records(&world.honest[0].1, &world.ids()).await?;
    let charter = world.charter()?.clone();
    let range = |address: std::net::Ipv4Addr, prefix| {
        AddressRange::new(address, prefix).map(AddressRanges::from).ok_or_else(|| Failure::new("not a range"))
    };
    let mut wanted: Vec<AddressRanges> = vec![
        charter.subnet.range().into(),
        attacker.identity.ranges(&charter),
        range(attacker.identity.chain.address(&charter.subnet), 32)?,
        range(charter.subnet.range().first(), 32)?,
        range(charter.subnet.founder_address(), 32)?,
    ];
    for record in &records {
        wanted.push(range(record.value.chain.address(&charter.subnet), 32)?);
        wanted.push(record.value.chain.ranges(&charter.subnet));
    }
    let mut thieves = Vec::new();
    for ranges in wanted {
        for (serial, replaces) in [(0, false), (u64::MAX, true)] {
            let key = random_key();
            let chain = attacker.identity.certify(node(&key), ranges.clone(), serial, replaces);
            thieves.push(Identity::new(key, chain));
        }
        // As if the founder had signed it, before all others.
        let key = random_key();
        let founder = Chain::founder(&charter);
        let grant = Delegation {
            subject: node(&key),
            invite: InviteId([0; 16]),
            ranges,
            serial: 0,
            since: 0,
            replaces: false,
            issued_at: 0,
        };
        let forged = founder.appended(&signed(founder.certificate(grant), &attacker.identity.key));
        thieves.push(Identity::new(key, forged));
    }
    let items: Vec<Item> = thieves.iter().map(|thief| thief.item(thief.record(&attacker.name, 1))).collect();
    let places = world.places();
    for _ in 0..2 {
        attacker.station.tell(&places, &items).await?;
        world.settle(&attacker.station, Some(attacker.identity.node())).await?;
    }
    let known = world.known(&thieves.iter().map(Identity::node).collect::<Vec<_>>()).await?;
    let detail = format!("{} certificates for addresses of others, twice", thieves.len());
    Ok(Tried::new(detail).check(known.is_empty(), known.join(", ")))
}

/// One member lets ever new identities appear. No more are members than it has addresses, and an honest joiner becomes
/// one.
async fn identities(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let own = attacker.identity.node().to_string();
    let mut invented = Vec::new();
    for number in 0..IDENTITIES {
        // Each with a lower serial number, so that it would stand against the one before.
        invented.push(world.invented(&attacker, number % (ADDRESSES - 1), u64::from(IDENTITIES - number))?);
    }
    let items: Vec<Item> =
        invented.iter().map(|identity| identity.item(identity.record(&attacker.name, 1))).collect();
    attacker.station.tell(&world.places(), &items).await?;
    world.settle(&attacker.station, Some(attacker.identity.node())).await?;
    let mut most = 0;
    for node in world.nodes() {
        let peers = node.control().await?.peers().await.map_err(|error| node.failure(&error.to_string()))?;
        most = most.max(peers.iter().filter(|peer| peer.inviters.contains(&own)).count());
    }
    let detail = format!("{IDENTITIES} identities, of which a node has {most} for members");
    let tried = Tried::new(detail)
        .check(most < ADDRESSES as usize, format!("{most} members below one with {ADDRESSES} addresses"));
    let joiner = world.honest.len();
    if world.lab.nodes.len() > joiner {
        world.lab.nodes[joiner].join_by(&world.lab.nodes[0]).await?;
        if let Err(failure) = world.add_honest(joiner).await {
            return Ok(tried.check(false, format!("an honest joiner is not known to all: {failure}")));
        }
        reach(&world.lab.nodes[joiner], &world.lab.nodes[1]).await?;
        world.look().await?;
    }
    Ok(tried)
}

/// WireGuard keys that never expire, and keys of other members.
async fn keys(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let records = attacker.station.records(&world.honest[0].1, &world.ids()).await?;
    let mut invented = Vec::new();
    let mut items = Vec::new();
    for (number, (from, to)) in
        [(0, u64::MAX), (now(), u64::MAX), (now() - 60, now() + WireGuardCertificate::MAX_AGE)]
            .into_iter()
            .enumerate()
    {
        let identity = world.invented(&attacker, u32::try_from(number).unwrap_or(0), 1)?;
        let mut record = identity.record(&attacker.name, 1);
        record.wireguard.value.not_before = from;
        record.wireguard.value.not_after = to;
        record.wireguard = signed(record.wireguard.value, &identity.key);
        items.push(identity.item(record));
        invented.push(identity.node());
    }
    let endless = items.len();
    for (number, record) in (endless..).zip(&records) {
        let identity = world.invented(&attacker, u32::try_from(number).unwrap_or(0), 1)?;
        let mut stolen = identity.record(&attacker.name, 1);
        stolen.wireguard.value.key = record.value.wireguard.value.key;
        stolen.wireguard = signed(stolen.wireguard.value, &identity.key);
        items.push(identity.item(stolen));
        invented.push(identity.node());
    }
    for _ in 0..2 {
        attacker.station.tell(&world.places(), &items).await?;
        world.settle(&attacker.station, Some(attacker.identity.node())).await?;
    }
    let known = world.known(&invented).await?;
    let detail = format!("{endless} certificates without end, {} with the key of another", records.len());
    Ok(Tried::new(detail).check(known.is_empty(), known.join(", ")))
}

/// Records that name where another member takes messages and packets.
async fn destinations(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let records = attacker.station.records(&world.honest[0].1, &world.ids()).await?;
    let network = world.charter()?.network();
    let (mut items, mut thieves) = (Vec::new(), Vec::new());
    let mut number = 0;
    for Signed { value: victim, .. } in &records {
        for what in 0..5 {
            // Those of one round are about the same addresses; none of them must be taken.
            number = (number + 1) % (ADDRESSES - 1);
            let thief = world.invented(&attacker, number, 1)?;
            let mut record = thief.record(&attacker.name, 1);
            let prove = |destination: Destination, role| {
                // By the attacker's key and for the victim's destination.
                let mut proven = KeyedDestination::random().prove(network, thief.node(), role);
                proven.destination = destination;
                proven
            };
            match what {
                0 => record.control = victim.control,
                1 => record.data = victim.data,
                2 => record.control = prove(victim.control.destination, DestinationRole::Primary),
                3 => record.data = prove(victim.data.destination, DestinationRole::Data),
                _ => record.primary = Some(Box::new(victim.control)),
            }
            items.push(thief.item(record));
            thieves.push(thief.node());
        }
    }
    for _ in 0..2 {
        attacker.station.tell(&world.places(), &items).await?;
        world.settle(&attacker.station, Some(attacker.identity.node())).await?;
    }
    let known = world.known(&thieves).await?;
    let detail = format!("{} records that name another's destinations, twice", items.len());
    Ok(Tried::new(detail).check(known.is_empty(), known.join(", ")))
}

/// Ten members, all below one, that together send as much as a node takes from all members.
async fn flood(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let mut flooders = Vec::new();
    for number in 0..FLOODERS {
        let station = Station::open().await?;
        let mut identity = world.invented(&attacker, number, u64::from(number) + 1)?;
        identity.control = station.place.clone();
        let record = identity.item(identity.record(&attacker.name, 1));
        world.introduce(&attacker, &identity, record).await?;
        flooders.push(station);
    }
    // In another address block, and as modest as an honest member.
    let witness = world.attacker(1).await?;
    let target = world.honest[1].1;
    let started = std::time::Instant::now();
    let mut sent = 0u64;
    let mut interval = tokio::time::interval(Duration::from_secs(1) / (FLOOD_RATE * FLOODERS));
    let (mut answers, mut pings, mut asked) = (0, 0, 0u32);
    while started.elapsed() < FLOOD {
        interval.tick().await;
        let flooder = &flooders[usize::try_from(sent).unwrap_or(0) % flooders.len()];
        let items = Gossip::default();
        flooder.send(&target, &Message::Ping(sent, items)).await?;
        sent += 1;
        if sent.is_multiple_of(u64::from(FLOOD_RATE * FLOODERS)) {
            asked += 1;
            witness.station.send(&target, &Message::Ping(u64::MAX, Gossip::default())).await?;
        }
        if sent.is_multiple_of(u64::from(FLOOD_RATE * FLOODERS * 4)) {
            pings += 1;
            answers += u32::from(world.pings(0, 1).await?);
        }
    }
    let seconds = started.elapsed().as_secs();
    let node = &world.lab.nodes[1];
    let peers = node.control().await?.peers().await.map_err(|error| node.failure(&error.to_string()))?;
    let id = witness.identity.node().to_string();
    let heard = peers.iter().find(|peer| peer.node_id == id).and_then(|peer| peer.last_heard);
    let acknowledged = witness.station.acknowledgements(&target).await;
    let banned = world.has_banned(&world.lab.nodes[1], &witness.identity.node()).await?;
    Ok(Tried::new(format!(
        "{sent} datagrams in {seconds} s; another member was heard {heard:?} s before the end, and {acknowledged} of its {asked} pings were answered; {answers} of \
         {pings} times an echo came back over the tunnel"
    ))
    .check(heard.is_some_and(|heard| heard <= 3), "another member was not heard during the flood")
    .check(acknowledged > 0, "another member was not answered during the flood")
    .check(answers > 0, "no echo came back during the flood")
    .check(!banned, "the other member is banned"))
}

/// Names by which a person could take the attacker for another member.
async fn names(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let victim = world.honest[1].0;
    let (founder, address) = (&world.lab.nodes[0], world.lab.nodes[1].address().await?.to_string());
    let victims_name = world.lab.nodes[1].name.clone();
    let short = victim.short();
    let parse = |name: &str| name.parse::<NodeName>().map_err(|_| Failure::new("no node name"));
    // What a name may be: the beginning of another's id, and another's name, fourteen times.
    let mut identities = vec![(parse(&short)?, world.invented(&attacker, 0, 1)?)];
    for number in 1..ADDRESSES - 1 {
        identities.push((parse(&victims_name.to_ascii_uppercase())?, world.invented(&attacker, number, 1)?));
    }
    for (name, identity) in &identities {
        world.introduce(&attacker, identity, identity.item(identity.record(name, 1))).await?;
    }
    let (mut effects, mut longest) = (Vec::new(), 0);
    for text in [&short, &victims_name] {
        let output = founder.ctl(&["ban", "add", text, "--duration", "1h"], "").await?;
        longest = longest.max(output.stderr.lines().map(|line| line.chars().count()).max().unwrap_or(0));
        if output.status.success() {
            effects.push(format!("`ban add {text}` was accepted"));
        }
        if world.has_banned(founder, &victim).await? {
            effects.push(format!("`ban add {text}` has banned the innocent member"));
            founder.ctl(&["ban", "remove", &victim.to_string()], "").await?;
        }
    }
    // What no name may be: it is put into a record in place of another of the same length, with a signature that fits.
    let mut unnamed = Vec::new();
    for name in [victim.to_string(), address, "founder".to_owned(), "localhost".to_owned()] {
        let identity = Identity::new(random_key(), attacker.identity.chain.clone());
        let own = Identity { key: attacker.identity.key.clone(), ..identity };
        let placeholder = parse(&"x".repeat(name.len()))?;
        let record = own.record(&placeholder, 2);
        let (message, forged) = renamed(&own, record, placeholder.as_str(), &name, &world.honest[0].1)?;
        attacker.station.send_bytes(&world.honest[0].1, &message).await?;
        unnamed.push((name, forged));
    }
    let banned = world.settle(&attacker.station, Some(attacker.identity.node())).await?;
    for peer in founder.peers().await? {
        if unnamed.iter().any(|(name, _)| *name == peer.name) {
            effects.push(format!("a member is called {}", peer.name));
        }
    }
    let detail = format!(
        "{} members with names like another's id or name; the longest error line has {longest} characters; {banned} have banned the member",
        identities.len()
    );
    let tried = Tried { effects, ..Tried::new(detail) }
        .check(longest <= MAX_LINE, "an error line is long")
        .check(unnamed.iter().all(|(_, forged)| *forged), "a forged name was not put in place");
    Ok(tried)
}

/// A datagram with a record whose name is another than any that can be read. The second is whether the name is there.
fn renamed(
    own: &Identity,
    record: Record,
    placeholder: &str,
    name: &str,
    to: &Destination,
) -> Result<(Vec<u8>, bool), Failure> {
    use ed25519_dalek::Signer as _;

    let signed_bytes = replace(&record.signed_bytes(), placeholder, name);
    let true_signature = Signature(own.key.sign(&signed_bytes).to_bytes());
    let value = Signed { value: record, signature: true_signature };
    let datagram = Message::news(vec![Item::Record(Box::new(value))]).to_datagram(to);
    let forged = replace(&datagram, placeholder, name);
    Ok((forged.clone(), forged != datagram))
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes()) {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

/// What no honest node sends, in the name of honest members and in no name.
async fn garbage(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(1).await?;
    let records = attacker.station.records(&world.honest[0].1, &world.ids()).await?;
    let mut count = 0;
    for _ in 0..DISGUISES {
        let station = Station::open().await?;
        for place in world.places() {
            for payload in nonsense(&records, &place).into_iter().take(9) {
                station.send_bytes(&place, &payload).await?;
                count += 1;
            }
        }
        world.settle(&station, None).await?;
    }
    // The attacker has signed none of it.
    let mut effects = Vec::new();
    for node in world.nodes() {
        if world.has_banned(node, &attacker.identity.node()).await? {
            effects.push(format!("{} has banned a member that signed nothing wrong", node.name));
        }
    }
    Ok(Tried { effects, ..Tried::new(format!("{count} datagrams from {DISGUISES} destinations")) })
}
/// The founder leaves and founds anew. Who was a member before is none.
async fn former_network(world: &mut World) -> Result<Tried, Failure> {
    let attacker = world.attacker(ADDRESSES).await?;
    let old_invite = world.lab.nodes[0].invite(&[]).await?;
    let old: Invite = old_invite.parse().map_err(|_| Failure::new("the invite cannot be read"))?;
    let nodes = world.lab.nodes.len().min(2);
    for node in world.lab.nodes.iter().rev() {
        node.leave().await?;
    }
    world.honest.truncate(nodes);
    world.lab.nodes[1].join_by(&world.lab.nodes[0]).await?;
    reach(&world.lab.nodes[1], &world.lab.nodes[0]).await?;
    world.look().await?;
    let new = world.lab.nodes[0].network().await?;
    // What it has: its record and its chain, and an invite of the network before.
    let mut items = vec![attacker.identity.item(attacker.identity.record(&attacker.name, 2))];
    let invented = world.invented(&attacker, 0, 1)?;
    items.push(invented.item(invented.record(&attacker.name, 1)));
    let chain =
        attacker.identity.certify(world.honest[1].0, attacker.identity.spare(world.charter()?, 0), 1, false);
    items.push(attacker.identity.revoke_as(attacker.identity.node(), Target::Certificate(chain)));
    let places = world.places();
    for _ in 0..2 {
        attacker.station.tell(&places, &items).await?;
        for place in &places {
            let chain = Box::new(attacker.identity.chain.clone());
            attacker.station.send(place, &Message::Grant(chain)).await?;
        }
        // The founder's requests to join are of its new network.
        let network = new.id.parse().map_err(|_| Failure::new("the network's id cannot be read"))?;
        for (node, (id, place)) in world.nodes().iter().zip(&world.honest) {
            if !attacker.station.is_heard(network, *id, place, GOSSIP).await? {
                return Err(node.failure("it does not answer a stranger"));
            }
        }
    }
    let station = Station::open().await?;
    let joined =
        tokio::time::timeout(Duration::from_secs(6), station.join(&old, &world.honest[0].1, &random_key()))
            .await;
    let admitted = matches!(joined, Ok(Ok(Ok(_))));
    let known = world.known(&[attacker.identity.node(), invented.node()]).await?;
    let members = world.lab.nodes[0].network().await?.members;
    Ok(Tried::new(format!("the new network has {members} members"))
        .check(new.id != world.charter()?.network().to_string(), "the new network has the id of the old one")
        .check(!admitted, "an old invite has admitted the attacker")
        .check(known.is_empty(), known.join(", "))
        .check(members == 2, format!("the new network has {members} members")))
}
