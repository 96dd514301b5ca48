//! Leaving, revocations and bans.

use super::*;

#[test]
fn who_leaves_is_gone_for_all_and_can_join_again() {
    let mut world = World::network(&[0, 0, 1]);
    world.down = vec![3];
    let old = world.nodes[2].member().publication.record.clone().unwrap();
    assert!(matches!(world.command(2, |mesh, _| mesh.leave(1)), Ok(meshd::Reply::Left(_))));
    assert!(world.nodes[2].mesh.network().is_none());
    world.run(60);
    assert_eq!([world.members(0), world.members(1)], [3, 3]);
    // One that was away and still has it hears of it too, and its old record brings nobody back.
    world.down.clear();
    world.run(120);
    assert_eq!([world.members(0), world.members(1), world.members(3)], [3, 3, 3]);
    let from = world.nodes[1].identity.control;
    world.give(&from, 0, &news(old));
    assert_eq!(world.members(0), 3);
    let code = world.invite(1, None).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    assert_eq!([world.members(0), world.members(1), world.members(2), world.members(3)], [4; 4]);
}

#[test]
fn lost_memory_of_keyd_is_complete_when_an_administrator_says_so() {
    let mut world = World::network(&[0, 0, 0]);
    world.restart(0);
    world.run(60);
    world.nodes[0].mesh.cx.me.remembers = false;
    let lost = |world: &World| {
        world.nodes[0].mesh.keys_problems(world.now()).contains(&meshd::KeysProblem::MemoryLost)
    };
    // It is not ordered yet, whoever says that it was.
    let unordered = world.command(0, |mesh, now| mesh.enact(0, Executed::Recovered(3), now));
    assert_eq!(unordered.unwrap_err().kind, ErrorKind::Conflict);
    assert!(lost(&world));
    let recovered = world.command(0, |mesh, now| mesh.recover_keys(0, now));
    assert!(matches!(recovered, Ok(meshd::Reply::KeysRecovered { delegations: 3 })), "{recovered:?}");
    assert_eq!(world.nodes[0].recovered.get(), (3, true));
    assert!(!lost(&world));
}

#[test]
fn a_revocation_takes_out_a_member_and_all_below_it_for_good() {
    // 0 invites 1 and 2; 1 invites 3, and 3 invites 4.
    let mut world = World::network(&[0, 0, 1, 3]);
    let error = world.command(2, |mesh, _| mesh.revoke(1, &NodeId([0; 32]).to_string())).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    let one = world.node(1).to_string();
    let error = world.command(2, |mesh, _| mesh.revoke(1, &one)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    world.down = vec![2];
    match world.command(0, |mesh, _| mesh.revoke(1, &one)) {
        Ok(meshd::Reply::Revoked(out)) => assert_eq!(out.len(), 3),
        other => panic!("{other:?}"),
    }
    world.run(60);
    assert_eq!(world.members(0), 2);
    for out in [1, 3, 4] {
        assert!(world.nodes[out].mesh.network().is_none(), "{out} knows that it is out");
    }
    // They know why, also after a restart, and keyd is told what has ended it until there is another membership.
    world.restart(4);
    assert!(world.nodes[4].mesh.cx.former_ending.is_some());
    let former = |world: &World, index: usize| world.nodes[index].mesh.former_status();
    assert_eq!(former(&world, 1).map(|former| former.along_with), Some(None));
    let above = former(&world, 4).unwrap();
    assert_eq!((above.along_with.as_ref(), &above.revoked_by), (Some(&one), &world.node(0).to_string()));
    // It is remembered over a restart, and who was away learns of it.
    world.restart(0);
    world.down.clear();
    world.run(120);
    assert_eq!((world.members(0), world.members(2)), (2, 2));
    assert!(!world.has_peer(2, 1) && !world.has_peer(2, 3));
    // Who was below can be invited again by others, and so can who was revoked: with new certificates.
    let code = world.invite(2, None).unwrap();
    for (out, members) in [(4, 3), (1, 4)] {
        world.join(out, code.expose()).unwrap();
        world.run(60);
        assert_eq!((world.members(0), world.members(2), world.members(out)), (members, members, members));
        assert_eq!(former(&world, out), None);
        assert!(world.nodes[out].mesh.cx.former_ending.is_none());
    }
}

#[test]
fn a_ban_cuts_everything_and_is_lifted() {
    let mut world = World::network(&[0, 0]);
    let node = world.node(1).to_string();
    let ban = |mesh: &mut Mesh, now: Now| mesh.add_ban(1, &node, "noise".to_owned(), Some(3600), now);
    assert!(matches!(world.command(0, ban), Ok(meshd::Reply::BanAdded(_))));
    assert!(!world.has_peer(0, 1) && world.has_peer(0, 2) && world.has_peer(2, 1));
    let from = world.nodes[1].identity.control;
    let ping = Message::Ping(1, Gossip::default());
    world.give(&from, 0, &ping);
    assert!(world.nodes[0].mesh.poll_turn().actions.is_empty());
    world.restart(0);
    assert!(!world.has_peer(0, 1));
    // It ends by itself.
    world.run(3700);
    assert!(world.has_peer(0, 1));
    assert!(matches!(world.command(0, ban), Ok(meshd::Reply::BanAdded(_))));
    assert!(matches!(world.command(0, |mesh, _| mesh.remove_ban(1, &node)), Ok(meshd::Reply::BanRemoved(_))));
    assert!(world.has_peer(0, 1));
    let error = world.command(0, |mesh, _| mesh.remove_ban(1, &node)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[test]
fn a_banned_member_has_no_route() {
    let mut world = World::network(&[0]);
    world.run(60);
    let hops = |world: &World| world.nodes[0].mesh.routes(world.now())[1].hops;
    assert_eq!(hops(&world), Some(1));
    let node = world.node(1).to_string();
    world.command(0, |mesh, now| mesh.add_ban(1, &node, String::new(), None, now)).unwrap();
    assert_eq!(hops(&world), None);
}

#[test]
fn a_ban_that_cannot_be_saved_is_in_force_and_saved_when_it_can_be() {
    let mut world = World::network(&[0]);
    let node = world.node(1).to_string();
    let ban = |mesh: &mut Mesh, now: Now| mesh.add_ban(1, &node, String::new(), None, now);
    let lift = |mesh: &mut Mesh, _: Now| mesh.remove_ban(1, &node);
    world.nodes[0].disk_full = true;
    let error = world.command(0, ban).unwrap_err();
    assert!(error.message.contains("the ban is in force until a restart only"), "{error}");
    assert!(!world.has_peer(0, 1));
    // As it says.
    world.restart(0);
    assert!(world.has_peer(0, 1));
    world.command(0, ban).unwrap_err();
    world.nodes[0].disk_full = false;
    world.run(60);
    world.restart(0);
    assert!(!world.has_peer(0, 1));

    world.nodes[0].disk_full = true;
    let error = world.command(0, lift).unwrap_err();
    assert!(error.message.contains("the ban is lifted until a restart only"), "{error}");
    // What is wrong with a command itself, it hears of all the same.
    assert_eq!(world.command(0, lift).unwrap_err().kind, ErrorKind::NotFound);
    assert!(world.has_peer(0, 1));
    world.restart(0);
    assert!(!world.has_peer(0, 1));
}

#[test]
fn who_signs_what_no_honest_member_signs_is_banned_in_time() {
    let mut world = World::network(&[0, 0]);
    let mut record = world.nodes[1].member().publication.record.clone().unwrap();
    // The destination of another, which has not agreed.
    record.value.data.destination = world.nodes[2].mesh.cx.data.unwrap();
    for number in 1..=5 {
        record.value.sequence += number;
        record.signature = record.value.sign(&world.nodes[1].key);
        assert_eq!(world.nodes[0].mesh.ban_reports().len(), 0);
        // Whoever passes it on.
        world.hand(2, 0, &news(record.clone()));
    }
    let bans = world.nodes[0].mesh.ban_reports();
    assert_eq!(bans.len(), 1);
    assert_eq!((bans[0].reason, bans[0].strikes), (meshd::BanReason::InvalidMessages, 5));
    assert!(!world.has_peer(0, 1) && world.has_peer(0, 2));
}

/// A node's own router can say what it likes in the name of any destination.
#[test]
fn what_the_router_says_in_a_members_name_leads_to_no_ban() {
    let mut world = World::network(&[0, 0]);
    let from = world.nodes[1].identity.control;
    let mut forged = world.nodes[1].member().publication.record.clone().unwrap();
    forged.value.sequence += 1;
    forged.signature = Signature([1; 64]);
    for _ in 0..300 {
        let (to, now) = (world.nodes[0].identity.control, world.now());
        let whole = Message::Ping(1, Gossip::default()).to_datagram(&to);
        world.nodes[0].mesh.handle_datagram(&from, &whole[..whole.len() - 1], now);
        world.nodes[0].mesh.handle_datagram(&from, &[9, 1, 2], now);
        world.hand(1, 0, &news(forged.clone()));
    }
    assert_eq!(world.nodes[0].mesh.ban_reports().len(), 0);
    assert!(world.has_peer(0, 1));
}
