//! What comes in from strangers, floods and liars.

use super::*;

#[test]
fn strangers_get_no_digest_answered_and_forged_records_are_dropped() {
    let mut world = World::new(2);
    let _ = world.invite(0, Some(1)).unwrap();
    let stranger = world.nodes[1].identity.control;
    let digest = Message::Ping(1, Gossip::default());
    world.give(&stranger, 0, &digest);
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());

    let mut record = world.nodes[0].member().publication.record.clone().unwrap();
    record.value.sequence += 1;
    record.value.control = ProvenDestination::unproven(stranger);
    record.signature = Signature([1; 64]);
    world.give(&stranger, 0, &news(record));
    let turn = world.nodes[0].mesh.poll_turn();
    assert!(turn.actions.is_empty() && !turn.save);
}

#[test]
fn a_claim_to_anothers_destination_takes_nothing_from_it() {
    let mut world = World::new(3);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    // One member says that it takes control messages where another does, and then no longer. The other has not agreed.
    let (honest, own) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    for control in [honest, own] {
        let mut record = world.nodes[2].member().publication.record.clone().unwrap();
        record.value.sequence += 1_000_000 + u64::from(control == own);
        record.value.control.destination = control;
        record.signature = record.value.sign(&world.nodes[2].key);
        world.give(&own, 0, &news(record));
        world.nodes[0].mesh.poll_turn();
        assert_eq!(world.nodes[0].member().members.at(&honest.hash()).count(), 1);
    }
    let digest = Message::Ping(1, Gossip::default());
    world.give(&honest, 0, &digest);
    let answered = |action: &Action| matches!(action, Action::Send { to, .. } if *to == honest);
    assert!(world.nodes[0].mesh.poll_turn().actions.iter().any(answered));
}

#[test]
fn strangers_in_crowds_do_not_keep_members_from_being_heard() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(10);
    let digest = Message::Ping(1, Gossip::default());
    for padding in 0..=u8::MAX {
        for signing_key in 10..=u8::MAX {
            let stranger = destination(padding, signing_key);
            world.give(&stranger, 0, &digest);
        }
    }
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    let member = world.nodes[1].identity.control;
    world.give(&member, 0, &digest);
    assert_eq!(world.nodes[0].mesh.poll_turn().actions.len(), 1, "the member's digest is answered");
}

/// Each message by itself is answered, and each answer has its price. If these were paid with what the node has for its
/// own statements, one member could silence all others.
#[test]
fn whoever_asks_without_end_silences_nobody() {
    let mut world = World::network(&[0; 9]);
    world.run(120);
    let before = world.nodes.iter().map(|node| node.member().local_sequence()).collect::<Vec<_>>();
    let mut sent = 0;
    let mut renamed = false;
    let compare = Message::Compare(world.nodes[1].member().members.index().opening(), Gossip::default());
    for second in 0..600u64 {
        for number in 0..15 {
            let gossip = Gossip::default();
            let from = world.nodes[1].identity.control;
            let message = if number < 14 { Message::Ping(number, gossip) } else { compare.clone() };
            world.give(&from, 0, &message);
        }
        for action in &world.nodes[0].mesh.cx.actions {
            if let Action::Send { message, .. } = action {
                sent += message.len() + budget::ENVELOPE;
            }
        }
        world.settle(0);
        if second == 300 {
            let now = world.now();
            world.nodes[0]
                .mesh
                .reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(1) }, now);
            renamed = true;
        }
        world.run(1);
        if renamed && second == 360 {
            for here in 1..10 {
                let reports = world.nodes[here].mesh.peer_reports(world.now());
                assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"), "{here} was not told");
            }
        }
    }
    // What was saved up, and the rate.
    assert!(sent < 2000 * 30 + 2000 * 600, "{sent} bytes");
    assert_eq!(world.nodes[0].mesh.ban_reports().len(), 0);
    for here in 2..10 {
        assert_eq!(world.liveness(here, 0), Some(meshd::Liveness::Present));
    }
    // Nobody had cause to wonder whether it is there.
    for (node, before) in world.nodes.iter().zip(before).skip(1) {
        assert_eq!(node.member().local_sequence(), before);
    }
}

/// Members below one inviter have their identities in its address block, and one of them could have them all.
#[test]
fn many_identities_in_one_block_leave_answers_to_others() {
    let mut world = World::new(14);
    let code = world.invite_for(0, None, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    let code = world.invite_for(0, Some(1), Some(16)).unwrap();
    world.join(2, code.expose()).unwrap();
    let code = world.invite_for(2, None, Some(1)).unwrap();
    for index in 3..14 {
        world.join(index, code.expose()).unwrap();
    }
    world.run(120);
    let ping = |number| Message::Ping(number, Gossip::default());
    let honest = world.nodes[1].identity.control;
    let mut answers = 0;
    for second in 0..600u64 {
        world.time += Duration::from_secs(1);
        for index in 3..14 {
            let from = world.nodes[index].identity.control;
            for number in 0..15 {
                world.give(&from, 0, &ping(number));
            }
        }
        if second % 20 == 0 {
            world.give(&honest, 0, &ping(second));
        }
        let actions = world.nodes[0].mesh.poll_turn().actions;
        let is_answer = |action: &Action| matches!(action, Action::Send { to, .. } if *to == honest);
        answers += usize::from(second % 20 == 0 && actions.iter().any(is_answer));
    }
    assert!(answers >= 29, "{answers} of 30 were answered");
}

/// I2P lets whoever gets a datagram send it on as it is.
#[test]
fn what_was_meant_for_another_is_not_heard() {
    let mut world = World::network(&[0, 0]);
    let (from, other) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    let there = world.node(1);
    let heard = |world: &World| world.nodes[0].member().members.get(&there).unwrap().contact().last_heard;
    let before = heard(&world);
    world.time += Duration::from_secs(1);
    // By the hundred it would use up what the member may send; so it is not counted at all.
    let ping = Message::Ping(1, Gossip::default());
    for _ in 0..300 {
        let now = world.now();
        world.nodes[0].mesh.handle_datagram(&from, &ping.to_datagram(&other), now);
    }
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    assert_eq!((heard(&world), world.nodes[0].member().bans.iter().count()), (before, 0));
    // In its own name it is answered, and also under the fallback.
    let fallback = destination(1, 9);
    world.fallback(0, Some(fallback));
    for mine in [world.nodes[0].identity.control, fallback] {
        let now = world.now();
        world.nodes[0].mesh.handle_datagram(&from, &ping.to_datagram(&mine), now);
        assert!(!world.nodes[0].mesh.poll_turn().actions.is_empty());
    }
}

/// The local router can forge senders: what comes in a member's name must not have it banned, or silence others.
#[test]
fn a_flood_leads_to_no_ban_and_silences_no_other_member() {
    let mut world = World::network(&[0, 0]);
    let (flooder, other) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    let mine = world.nodes[0].identity.control;
    let there = world.node(2);
    let ping = Message::Ping(1, Gossip::default()).to_datagram(&mine);
    for _ in 0..120 {
        world.time += Duration::from_millis(500);
        let now = world.now();
        for _ in 0..500 {
            world.nodes[0].mesh.handle_datagram(&flooder, &ping, now);
        }
        world.nodes[0].mesh.handle_datagram(&other, &ping, now);
        let heard = world.nodes[0].member().members.get(&there).unwrap().contact().last_heard;
        assert_eq!(heard, Some(now.monotonic));
        world.nodes[0].mesh.poll_turn();
    }
    assert_eq!(world.nodes[0].member().bans.iter().count(), 0);
}
