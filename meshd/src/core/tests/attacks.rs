//! What members can do to each other, tried.

use i2plan_proto::address::{AddressRange, AddressRanges};
use i2plan_proto::invite::InviteId;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::core::endings::Ending;

mod coalition;

fn chain_of(world: &World, index: usize) -> Chain {
    world.nodes[index].member().membership.chain.clone()
}

fn range(first: u32, size: u32) -> AddressRanges {
    AddressRange::of_size(first, size).unwrap().into()
}

/// A chain with a certificate more, by who holds this key.
fn certified(chain: &Chain, key: &SigningKey, subject: NodeId, ranges: AddressRanges, serial: u64) -> Chain {
    let invite = InviteId([0; 16]);
    let grant = Delegation { subject, invite, ranges, serial, since: serial, replaces: false, issued_at: 0 };
    chain.appended(&signed(chain.certificate(grant), key))
}

/// A certificate by a member for another node, with one of its own addresses.
fn certified_by(world: &World, issuer: usize, subject: NodeId, number: u32) -> Chain {
    let chain = chain_of(world, issuer);
    let first = chain.address(&Ipv4Subnet::DEFAULT).to_bits() + number;
    certified(&chain, &world.nodes[issuer].key, subject, range(first, 1), 1 + u64::from(number))
}

fn revocation(world: &World, issuer: usize, chain: Chain) -> Message {
    let issued_at = world.now().unix.as_secs();
    let target = Target::Certificate(chain);
    let revocation = Revocation { issuer: world.node(issuer), target, issued_at };
    Message::news(vec![Item::Revocation(Box::new(signed(revocation, &world.nodes[issuer].key)))])
}

fn key(number: u32) -> SigningKey {
    let mut seed = [0x44; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_bytes(&seed)
}

/// A record of an identity that a member has made up.
fn invented(world: &World, key: &SigningKey, chain: Chain, control: Destination) -> Signed<Record> {
    let (network, node) = (chain.network(), NodeId(key.verifying_key().to_bytes()));
    let unix = world.now().unix.as_secs();
    let epoch = WireGuardCertificate::epoch_at(unix);
    let not_before = WireGuardCertificate::begins_at(epoch);
    let not_after = not_before + WireGuardCertificate::MAX_AGE;
    let wireguard = wireguard_key(network, node, epoch);
    let certificate = WireGuardCertificate { network, node, key: wireguard, epoch, not_before, not_after };
    let record = Record {
        node,
        sequence: 7,
        issued_at: unix,
        name: "invented".parse().unwrap(),
        control: ProvenDestination::unproven(control),
        primary: None,
        takes_reports: false,
        data: ProvenDestination::unproven(destination(88, 89)),
        wireguard: signed(certificate, key),
        chain,
    };
    signed_record(record, key)
}

fn members(world: &World) -> Vec<u64> {
    (0..world.nodes.len()).map(|index| world.members(index)).collect()
}

#[test]
fn a_certificate_without_its_subjects_consent_revokes_no_one() {
    // 1 and 2 were invited by the founder, 3 by 1; 3 is the attacker, whom 1 has given addresses to delegate.
    let mut world = World::network(&[0, 0, 1]);
    for victim in [0, 1, 2] {
        let forged = revocation(&world, 3, certified_by(&world, 3, world.node(victim), 1 + victim as u32));
        for to in 0..3 {
            world.hand(3, to, &forged);
            // Nor from a destination that no one knows.
            world.give(&destination(77, 77), to, &forged);
            world.settle(to);
        }
    }
    world.run(120);
    assert_eq!(members(&world), [4; 4]);
}

#[test]
fn a_revoked_member_revokes_no_one() {
    let mut world = World::network(&[0, 0, 0]);
    let forged = revocation(&world, 3, certified_by(&world, 3, world.node(2), 1));
    let three = world.node(3).to_string();
    world.command(0, |mesh, _| mesh.revoke(1, &three)).unwrap();
    world.run(60);
    for to in 0..3 {
        world.give(&destination(77, 77), to, &forged);
        world.settle(to);
    }
    world.run(60);
    assert_eq!(members(&world)[..3], [3; 3]);
}

#[test]
fn the_greatest_numbers_are_no_panic() {
    let mut world = World::network(&[0, 0]);
    let mut record = world.nodes[1].member().publication.record.clone().unwrap();
    record.value.sequence = u64::MAX;
    record.value.chain = chain_of(&world, 1);
    world.hand(1, 0, &news(signed_record(record.value, &world.nodes[1].key.clone())));
    for number in [0, 1, u64::MAX - 1, u64::MAX] {
        for ended in [false, true] {
            let entry = |node| Entry { node, record: number, liveness: number, ended };
            let entries = vec![entry(world.node(1)), entry(world.node(0)), entry(world.node(2))];
            let range = Range { end: None, content: Content::Entries(entries.clone()) };
            let gossip = Gossip { entries: entries.clone(), items: Vec::new() };
            world.hand(1, 0, &Message::Compare(vec![range], gossip.clone()));
            world.hand(1, 0, &Message::Want(entries));
            world.hand(1, 0, &Message::Ping(number, gossip));
        }
    }
    world.restart(0);
    world.run(120);
    assert_eq!((world.members(0), world.members(2)), (3, 3));
}

#[test]
fn revocations_of_invented_identities_leave_room_for_others() {
    let mut world = World::network(&[0, 0]);
    for number in 0..4096 {
        // Node 1 holds 1024 addresses.
        let subject = NodeId(key(number).verifying_key().to_bytes());
        let message = revocation(&world, 1, certified_by(&world, 1, subject, 1 + number % 1023));
        world.time += Duration::from_millis(60);
        world.hand(1, 0, &message);
        world.in_flight.clear();
    }
    let known = world.nodes[0].member().members.endings().iter().count();
    assert!((1000..=1024).contains(&known), "{known}");
    let one = world.node(1).to_string();
    assert!(world.command(0, |mesh, _| mesh.revoke(1, &one)).is_ok());
    assert!(!world.has_peer(0, 1));
    // With it everything is gone that it has said.
    assert_eq!(world.nodes[0].member().members.endings().iter().count(), 1);
}

#[test]
fn a_revocation_that_is_not_accepted_is_an_error() {
    // Node 1 holds 16 addresses: so many memberships it can have ended, whatever it has invited before.
    let mut world = World::new(2);
    let code = world.invite_for(0, Some(1), Some(16)).unwrap();
    world.join(1, code.expose()).unwrap();
    for number in 0..16 {
        let invite = InviteId([u8::try_from(number).unwrap(); 16]);
        let target = Target::Invite(chain_of(&world, 1), invite);
        let revocation = Revocation { issuer: world.node(1), target, issued_at: 0 };
        let revocation = signed(revocation, &world.nodes[1].key);
        let now = world.now();
        let ending = Ending::Revocation(Box::new(revocation));
        world.nodes[1].act(|member, cx| member.end_memberships(cx, ending, now));
    }
    let code = world.invite_for(1, Some(1), Some(1)).unwrap();
    let id = code.expose().parse::<Invite>().unwrap().id().to_string();
    let accepted = world.command(1, |mesh, now| mesh.revoke_invite(1, &id, true, now));
    let known: Vec<_> = world.nodes[1].member().members.endings().iter().map(Ending::id).collect();
    assert_eq!(known.len(), 16);
    // The one with the greatest id has no room, whichever that is.
    if let Err(error) = accepted {
        assert!(error.message.contains("was not accepted"), "{error}");
    }
}

#[test]
fn no_one_can_have_anothers_address() {
    for victim in [0, 2] {
        let mut world = World::network(&[0, 0]);
        let addresses: Vec<_> = (0..3).map(|index| world.nodes[index].mesh.local_address()).collect();
        let address = addresses[victim].unwrap().to_bits();
        let own = chain_of(&world, 1);
        let thief = key(1);
        let id = NodeId(thief.verifying_key().to_bytes());
        let base = own.address(&Ipv4Subnet::DEFAULT).to_bits();
        // Out of a range that is not its own, wide or narrow, with the lowest serial; and its own address again.
        for (ranges, serial) in [
            (range(address, 1), 0),
            (range(address & !0xffff, 1 << 16), 0),
            (range(address & !0xff, 256), u64::MAX),
            (range(base, 1), 0),
            (range(base, 1024), 0),
        ] {
            let chain = certified(&own, &world.nodes[1].key, id, ranges, serial);
            let record = invented(&world, &thief, chain, destination(88, 88));
            (0..3).for_each(|to| world.hand(1, to, &news(record.clone())));
        }
        // A certificate of the founder that it has not signed.
        let founder = Chain::founder(world.nodes[0].member().charter());
        let chain = certified(&founder, &world.nodes[1].key, id, range(address, 1), 0);
        world.hand(1, 0, &news(invented(&world, &thief, chain, destination(88, 88))));
        world.run(60);
        assert_eq!(members(&world), [3; 3]);
        for here in 0..3 {
            assert_eq!(world.nodes[here].mesh.local_address(), addresses[here]);
            for peer in world.nodes[here].mesh.peers(world.now()) {
                let there = (0..3).find(|there| world.node(*there) == peer.node).unwrap();
                assert_eq!(Some(peer.ipv4()), addresses[there]);
            }
        }
    }
}

#[test]
fn one_member_invents_no_more_identities_than_it_holds_addresses() {
    let mut world = World::new(3);
    let code = world.invite_for(0, Some(1), Some(16)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(30);
    for number in 0..500 {
        let (fake, control) = (key(number), destination(88, 88));
        let subject = NodeId(fake.verifying_key().to_bytes());
        let chain = certified_by(&world, 1, subject, 1 + number % 15);
        let mut record = invented(&world, &fake, chain, control);
        // Keys that are valid for ever are valid for no one.
        if number >= 400 {
            record.value.wireguard.value.not_after = u64::MAX;
            record.value.wireguard = signed(record.value.wireguard.value, &fake);
            record = signed_record(record.value, &fake);
        }
        world.time += Duration::from_millis(60);
        world.hand(1, 0, &news(record));
        world.in_flight.clear();
    }
    assert_eq!(world.members(0), 2 + 15);
    // An honest joiner is known to all.
    let code = world.invite(0, Some(1)).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(120);
    assert!(world.has_peer(0, 2) && world.has_peer(1, 2) && world.has_peer(2, 0));
}

#[test]
fn gossip_does_not_go_to_a_destination_that_has_not_agreed() {
    let mut world = World::network(&[0; 9]);
    let third = Destination { padding: [99; 32], signing_key: key(99).verifying_key().to_bytes() };
    for number in 0..300 {
        let fake = key(number);
        let subject = NodeId(fake.verifying_key().to_bytes());
        let chain = certified_by(&world, 1, subject, 1 + number);
        let record = invented(&world, &fake, chain, third);
        world.time += Duration::from_millis(60);
        world.hand(1, 0, &news(record));
        world.in_flight.clear();
    }
    assert_eq!(world.members(0), 10);
    for _ in 0..600 {
        world.run(1);
        assert!(world.in_flight.iter().all(|(_, to, _)| *to != third));
    }
}

/// A key that is certified by two would be routed to one of them alone.
#[test]
fn no_one_can_claim_anothers_wireguard_key() {
    let mut world = World::network(&[0, 0]);
    let before = world.nodes[0].mesh.peers(world.now());
    let theirs = world.nodes[2].member().publication.record.as_ref().unwrap().value.wireguard.value.key;
    let fake = key(1);
    let subject = NodeId(fake.verifying_key().to_bytes());
    let mut record = invented(&world, &fake, certified_by(&world, 1, subject, 1), destination(88, 88)).value;
    record.wireguard.value.key = theirs;
    record.wireguard = signed(record.wireguard.value, &fake);
    world.hand(1, 0, &news(signed_record(record, &fake)));
    assert_eq!(world.nodes[0].mesh.peers(world.now()), before);
}

#[test]
fn identities_of_one_block_draw_no_more_gossip_than_their_block() {
    let mut world = World::network(&[0; 9]);
    let control = destination(88, 88);
    for number in 0..15 {
        let fake = key(number);
        let subject = NodeId(fake.verifying_key().to_bytes());
        let chain = certified_by(&world, 1, subject, 1 + number);
        world.hand(1, 0, &news(invented(&world, &fake, chain, control)));
    }
    assert_eq!(world.members(0), 25);
    let mut rng = StdRng::from_seed([1; 32]);
    let invented = (0..1000).filter(|_| {
        let drawn = world.nodes[0].member().members.sample(1, |_| true, &mut rng);
        *drawn[0].record.value.control == control
    });
    // With node 1 they are one of nine blocks.
    let count = invented.count();
    assert!((50..170).contains(&count), "{count}");
}

#[test]
fn nothing_of_a_former_network_counts_in_the_next_of_its_founder() {
    let mut world = World::network(&[0, 0]);
    let old = world.nodes[1].member().publication.record.clone().unwrap();
    let before = world.nodes[0].mesh.network();
    world.command(0, |mesh, _| mesh.leave(1)).unwrap();
    let code = world.invite(0, Some(1)).unwrap();
    assert_ne!(world.nodes[0].mesh.network(), before);
    world.hand(1, 0, &news(old));
    world.run(60);
    assert_eq!(world.members(0), 1);
    // Who is invited has to leave the old one first, and is a member of the new one then.
    assert_eq!(world.join(1, code.expose()).unwrap_err().kind, ErrorKind::Conflict);
    world.command(1, |mesh, _| mesh.leave(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(60);
    assert_eq!((world.members(0), world.members(1)), (2, 2));
}

#[test]
fn a_banned_member_does_not_speak_on_as_another_identity() {
    let mut world = World::network(&[0, 0]);
    let one = world.node(1).to_string();
    world.command(0, |mesh, now| mesh.add_ban(1, &one, String::new(), None, now)).unwrap();
    let from = world.nodes[1].identity.control;
    let fake = key(1);
    let chain = certified_by(&world, 1, NodeId(fake.verifying_key().to_bytes()), 1);
    let record = invented(&world, &fake, chain, from);
    world.give(&destination(60, 60), 0, &news(record));
    world.nodes[0].mesh.poll_turn();
    assert_eq!(world.nodes[0].member().members.at(&from.hash()).count(), 2);
    world.time += Duration::from_secs(5);
    world.give(&from, 0, &Message::Ping(1, Gossip::default()));
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
}

#[test]
fn whom_a_member_certifies_after_it_has_left_is_no_member() {
    let mut world = World::network(&[0, 0, 1]);
    let later = key(1);
    let chain = certified_by(&world, 1, NodeId(later.verifying_key().to_bytes()), 900);
    let record = invented(&world, &later, chain, destination(88, 88));
    world.command(1, |mesh, _| mesh.leave(1)).unwrap();
    world.run(60);
    // Node 3, which it has invited before, stays.
    assert_eq!((world.members(0), world.members(2), world.members(3)), (3, 3, 3));
    world.give(&destination(88, 88), 0, &news(record));
    world.run(10);
    assert_eq!(world.members(0), 3);
}
