//! What many identities, or many statements of few, can do to others.

use i2plan_proto::join::{JoinBody, JoinRequest};
use i2plan_proto::liveness::Presence;

use super::*;
use crate::core::rumors::Rumors;
use crate::core::shares::AddressInBlock;

/// A resignation by who holds this key.
fn resignation(chain: Chain, key: &SigningKey) -> Message {
    let resignation = Resignation { chain, last_serial: 0, issued_at: 0 };
    Message::news(vec![Item::Resignation(Box::new(signed(resignation, key)))])
}

fn id(key: &SigningKey) -> NodeId {
    NodeId(key.verifying_key().to_bytes())
}

/// What one datagram costs did grow with the number of those that share the sender's destination.
#[test]
fn a_destination_that_many_share_counts_for_few() {
    let mut world = World::network(&[0, 0]);
    let control = destination(88, 88);
    for number in 0..200 {
        let fake = key(number);
        let chain = certified_by(&world, 1, id(&fake), 1 + number);
        world.time += Duration::from_millis(60);
        world.hand(1, 0, &news(invented(&world, &fake, chain, control)));
        world.in_flight.clear();
    }
    assert_eq!(world.members(0), 203);
    let members = &world.nodes[0].member().members;
    assert!(members.at(&control.hash()).count() <= 4);
    assert!(members.is_member(&control.hash()));
}

/// A member that invents identities one after the other, each of which leaves, has no bound but the room of all.
#[test]
fn those_that_come_and_go_at_one_address_do_not_bring_back_who_was_revoked() {
    let mut endings = endings::Endings::with_room(100);
    let subnet = Ipv4Subnet::DEFAULT;
    let world = World::network(&[0]);
    let (founder, founder_key) = (chain_of(&world, 0), &world.nodes[0].key);
    let first = u32::from_be_bytes([10, 42, 3, 16]);
    // Both are of one block: the honest one has eight addresses, the other eight.
    let (honest, liar) = (key(1), key(2));
    let honest_chain = certified(&founder, founder_key, id(&honest), range(first, 8), 1);
    let liar_chain = certified(&founder, founder_key, id(&liar), range(first + 8, 8), 2);
    let revoked: Vec<Chain> = (0..4)
        .map(|number| {
            let subject = id(&key(10 + number));
            certified(&honest_chain, &honest, subject, range(first + 1 + number, 1), 1)
        })
        .collect();
    for chain in &revoked {
        let target = Target::Certificate(chain.clone());
        let revocation = Revocation { issuer: id(&honest), target, issued_at: 0 };
        endings.add(Ending::Revocation(Box::new(signed(revocation, &honest))), &subnet);
    }
    for number in 0..500 {
        let fake = key(1000 + number);
        let address = first + 9 + number % 7;
        let chain = certified(&liar_chain, &liar, id(&fake), range(address, 1), u64::from(number));
        let resignation = Resignation { chain, last_serial: 0, issued_at: 0 };
        endings.add(Ending::Resignation(Box::new(signed(resignation, &fake))), &subnet);
    }
    for chain in &revoked {
        assert!(endings.against(chain).is_some());
    }
}

/// Others can invite it and it can leave them as often as they like.
#[test]
fn one_that_leaves_many_inviters_does_not_come_back_to_the_first() {
    let mut world = World::network(&[0, 0, 0]);
    let former = key(1);
    let own = certified_by(&world, 2, id(&former), 1);
    let record = invented(&world, &former, own.clone(), destination(88, 88));
    world.hand(1, 0, &resignation(own, &former));
    for number in 0..40 {
        // Inviters that member 1 has made up.
        let inviter = key(100 + number);
        let chain = chain_of(&world, 1);
        let first = chain.address(&Ipv4Subnet::DEFAULT).to_bits() + 2 + 2 * number;
        let chain = certified(&chain, &world.nodes[1].key, id(&inviter), range(first, 2), 1);
        let chain = certified(&chain, &inviter, id(&former), range(first + 1, 1), 1);
        world.time += Duration::from_millis(60);
        world.hand(1, 0, &resignation(chain, &former));
    }
    world.time += Duration::from_secs(5);
    world.hand(1, 0, &news(record));
    assert_eq!(world.members(0), 4);
}

/// To a stranger the answer to a request to join is no more owed than to a member that to a ping.
#[test]
fn requests_to_join_silence_nobody() {
    let mut world = World::network(&[0; 9]);
    world.run(120);
    let network = world.nodes[0].mesh.network().unwrap();
    let mut sent = 0;
    for second in 0..420u64 {
        for number in 0..10u8 {
            let from = destination(number, 66);
            let secret = InviteSecret([number; 32]);
            let joiner = key(7);
            let body = JoinBody {
                network,
                inviter: world.node(0),
                invite: secret.key(),
                joiner: id(&joiner),
                control: from.hash(),
                issued_at: world.now().unix.as_secs(),
            };
            let proof = body.prove(&secret.signing_key());
            let request = JoinRequest { body: signed(body, &joiner), proof };
            world.give(&from, 0, &Message::JoinRequest(Box::new(request)));
        }
        for action in &world.nodes[0].mesh.cx.actions {
            if let Action::Send { message, .. } = action {
                sent += message.len() + budget::ENVELOPE;
            }
        }
        world.settle(0);
        if second == 300 {
            let now = world.now();
            let settings = Settings { name: "renamed".parse().unwrap(), ..settings(1) };
            world.nodes[0].mesh.reconfigure(settings, now);
        }
        world.run(1);
        if second == 360 {
            for here in 1..10 {
                let reports = world.nodes[here].mesh.peer_reports(world.now());
                assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"), "{here} was not told");
            }
        }
    }
    assert!(sent < 2000 * 30 + 2000 * 420, "{sent} bytes");
    assert!(
        world.nodes[0].mesh.cx.budget.allows(world.time),
        "it has nothing left for what it says by itself"
    );
}

/// Two liars had a member sign, save and tell all an answer to each pair of lies.
#[test]
fn two_that_lie_without_end_make_a_member_say_little() {
    let mut world = World::network(&[0, 0, 0]);
    let before = world.nodes[1].member().local_sequence().unwrap();
    for _ in 0..6000 {
        world.time += Duration::from_millis(100);
        for liar in [2, 3] {
            let suspicion = world.suspicion(liar, 1);
            world.hand(liar, 1, &suspicion);
        }
        world.in_flight.clear();
    }
    let said = world.nodes[1].member().local_sequence().unwrap() - before;
    assert!(said <= 60, "{said} answers in ten minutes");
}

/// What members want waits for bytes; so many wishes wait at most.
#[test]
fn wishes_of_many_identities_leave_room_for_those_of_others() {
    let mut rumors = Rumors::new();
    let entry = |number: u32| Entry { node: id(&key(number)), record: 0, liveness: 0, ended: false };
    for number in 0..=255 {
        let block = 16 * (u32::from(number) % 8);
        rumors.want(destination(number, 5), Some(AddressInBlock { block, address: block }), entry(1));
    }
    rumors.want(destination(7, 6), Some(AddressInBlock { block: 4096, address: 4096 }), entry(2));
    let mut granted = Vec::new();
    while let Some((to, ..)) = rumors.poll_wants() {
        granted.push(to);
    }
    assert!(granted.contains(&destination(7, 6)));
}

/// One liar had a restored inviter give out at once what it has forgotten that it gave to others.
#[test]
fn one_liar_does_not_tell_a_restored_node_that_it_knows_all() {
    let mut world = World::network(&[0, 0, 0, 0]);
    world.restart(0);
    for _ in 0..3 {
        world.hand(1, 0, &Message::Compare(Vec::new(), Gossip::default()));
    }
    assert!(!world.nodes[0].member().comparisons.since_start.is_done(world.time));
    world.run(15);
    assert!(world.nodes[0].member().comparisons.since_start.is_done(world.time));
}

/// Who was invited twice was back with its other certificate at once.
#[test]
fn whom_its_inviter_revokes_does_not_come_back_by_another_invite_of_it() {
    let mut world = World::network(&[0, 0]);
    let code = world.invite_for(0, Some(1), Some(1)).unwrap();
    let first = chain_of(&world, 1);
    let state = State::new(world.node(1));
    let (me, now) = (world.nodes[1].identity, world.now());
    world.nodes[1].mesh = Mesh::new(me, settings(2), state, [2; 32], now);
    world.nodes[1].mesh.handle_data_session(destination(2, 2));
    world.join(1, code.expose()).unwrap();
    world.run(60);
    assert_ne!(chain_of(&world, 1).id(), first.id());
    let mut record = world.nodes[1].member().publication.record.clone().unwrap().value;
    let one = world.node(1).to_string();
    world.command(0, |mesh, _| mesh.revoke(1, &one)).unwrap();
    world.run(60);
    for chain in [first, record.chain.clone()] {
        record.sequence += 100;
        record.chain = chain;
        let record = signed_record(record.clone(), &world.nodes[1].key);
        for to in [0, 2] {
            world.give(&destination(77, 77), to, &news(record.clone()));
            world.settle(to);
        }
    }
    world.run(60);
    assert_eq!((world.members(0), world.members(2)), (2, 2));
}

/// Two liars in different blocks always claim to have what is newest of a member, so that nobody else is asked for it.
#[test]
fn claims_to_have_what_is_newest_keep_nobody_from_hearing_it() {
    let mut world = World::network(&[0; 31]);
    // Node 3 hears of 4 from others alone.
    world.severed = vec![(3, 4)];
    let named = |world: &World, name: &str| {
        let reports = world.nodes[3].mesh.peer_reports(world.now());
        reports.iter().any(|(_, peer)| peer.name == name)
    };
    for round in 0..20 {
        let name = format!("renamed-{round}");
        let settings = Settings { name: name.parse().unwrap(), ..settings(5) };
        let now = world.now();
        world.nodes[4].mesh.reconfigure(settings, now);
        let mut waited = 0;
        while !named(&world, &name) {
            for liar in [1, 2] {
                let entry = Entry { node: world.node(4), record: u64::MAX, liveness: u64::MAX, ended: false };
                let gossip = Gossip { entries: vec![entry], items: Vec::new() };
                world.hand(liar, 3, &Message::News(gossip));
            }
            world.run(1);
            waited += 1;
            assert!(waited < 120, "round {round}");
        }
        world.run(30);
    }
}
/// Each sign of life had all WireGuard keys derived again, which takes tens of microseconds for each member.
#[test]
fn signs_of_life_do_not_have_the_peers_looked_at_again() {
    let mut world = World::network(&[0, 0, 0]);
    let (network, node) = (world.nodes[0].mesh.network().unwrap(), world.node(1));
    let said = |world: &mut World, presence| {
        world.time += Duration::from_millis(60);
        let sequence = world.nodes[0].member().members.get(&node).unwrap().sequence() + 1;
        let liveness_message =
            signed(LivenessMessage { network, node, sequence, presence }, &world.nodes[1].key);
        let before = world.nodes[0].mesh.peers_version();
        world.hand(1, 0, &Message::news(vec![Item::Liveness(liveness_message)]));
        world.nodes[0].mesh.peers_version() > before
    };
    let lives = [Presence::Present, Presence::Present, Presence::Away, Presence::Away, Presence::Present]
        .map(|presence| said(&mut world, presence));
    assert_eq!(lives, [false, false, true, false, true]);
}
