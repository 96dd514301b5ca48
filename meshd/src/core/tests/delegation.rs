//! Delegated addresses.

use i2plan_ipc::Remedy;
use i2plan_ipc::remedy::AskInviter;

use super::*;
use crate::core::addresses::delegations::Delegations;
use crate::core::members::Members;

fn status(world: &World, index: usize) -> meshd::Network {
    world.nodes[index].mesh.network_status(world.now()).unwrap()
}

#[test]
fn a_small_subnet_is_filled_to_its_last_address() {
    let mut world = World::in_subnet(8, "10.9.0.0/29".parse().unwrap());
    let code = world.invite_for(0, None, None).unwrap();
    let mut addresses = HashSet::from([world.nodes[0].mesh.local_address().unwrap()]);
    for index in 1..=5 {
        world.join(index, code.expose()).unwrap();
        addresses.insert(world.nodes[index].mesh.local_address().unwrap());
        assert_eq!(status(&world, 0).addresses_left, 5 - index as u64);
    }
    assert_eq!(addresses.len(), 6);
    let error = world.join(6, code.expose()).unwrap_err();
    assert!(error.message.contains("no addresses left"), "{error}");
    let error = world.invite_for(0, Some(1), None).unwrap_err();
    assert!(error.message.contains("more than this node has left"), "{error}");
    // One leaves: its address waits for 30 days, and for itself alone it does not.
    world.command(3, |mesh, _| mesh.leave(1)).unwrap();
    world.run(60);
    assert!(world.join(6, code.expose()).is_err());
    world.time += Duration::from_secs(31 * 86_400);
    world.run(200);
    let code = world.invite_for(0, Some(1), None).unwrap();
    world.join(6, code.expose()).unwrap();
    world.run(120);
    let record = world.nodes[0].mesh.record_of(&world.node(6)).unwrap().clone();
    assert!(record.value.chain.last().unwrap().replaces);
    assert_eq!(world.members(6), 6);
}

#[test]
fn a_member_with_one_address_cannot_invite_until_it_is_granted_more() {
    let mut world = World::new(3);
    let code = world.invite_for(0, None, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(30);
    let error = world.invite_for(1, Some(1), None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    let ask = AskInviter { inviter: "node-1".to_owned(), node: "node-2".to_owned(), addresses: 16 };
    assert_eq!(error.remedy, Some(Remedy::AskInviter(ask)));
    let before = world.nodes[1].mesh.local_address();
    let one = world.node(1).to_string();
    let error = world.command(2, |mesh, now| mesh.grant(1, &one, 16, now)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    // It is off just then, and is told when it is there again.
    world.down = vec![1];
    match world.command(0, |mesh, now| mesh.grant(1, &one, 16, now)) {
        Ok(meshd::Reply::Granted(grant)) => assert_eq!((grant.addresses, grant.ranges.len()), (17, 2)),
        other => panic!("{other:?}"),
    }
    world.run(60);
    world.down.clear();
    world.run(60);
    assert_eq!((world.nodes[1].mesh.local_address(), status(&world, 1).addresses), (before, 17));
    let code = world.invite_for(1, Some(1), None).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    assert_eq!([world.members(0), world.members(1), world.members(2)], [3; 3]);
    // Revoking it covers both of its certificates.
    world.command(0, |mesh, _| mesh.revoke(1, &one)).unwrap();
    world.run(60);
    assert_eq!(world.members(0), 1);
}

/// Its inviter knows of two certificates then, of which either revocation ends both.
#[test]
fn a_member_is_revoked_before_it_has_heard_of_its_grant() {
    let mut world = World::network(&[0]);
    let one = world.node(1).to_string();
    world.down = vec![1];
    world.command(0, |mesh, now| mesh.grant(1, &one, 16, now)).unwrap();
    match world.command(0, |mesh, _| mesh.revoke(1, &one)) {
        Ok(meshd::Reply::Revoked(out)) => assert_eq!(out, [one]),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.members(0), 1);
    world.down.clear();
    world.run(60);
    assert_eq!(world.nodes[1].mesh.network(), None);
}

#[test]
fn no_node_joins_below_itself() {
    let mut world = World::network(&[0]);
    world.command(0, |mesh, _| mesh.leave(1)).unwrap();
    world.run(30);
    let code = world.invite(1, Some(1)).unwrap();
    let error = world.join(0, code.expose()).unwrap_err();
    assert!(error.message.contains("cannot join below itself"), "{error}");
    // Neither an address nor a use is spent.
    assert_eq!(world.nodes[1].member().addresses.delegations.iter().count(), 0);
}

#[test]
fn an_invite_is_revoked_with_its_users() {
    let mut world = World::new(4);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    let other = world.invite(0, Some(1)).unwrap();
    world.join(3, other.expose()).unwrap();
    world.run(60);
    let id = code.expose().parse::<Invite>().unwrap().id().to_string();
    let revoked = world.command(0, |mesh, now| mesh.revoke_invite(1, &id, true, now));
    assert!(matches!(revoked, Ok(meshd::Reply::InviteRevoked(invite)) if invite.used_by.len() == 2));
    world.run(60);
    assert_eq!((world.members(0), world.members(3)), (2, 2));
    assert!(world.nodes[1].mesh.network().is_none() && world.nodes[2].mesh.network().is_none());
    assert!(world.join(1, code.expose()).is_err());
}

/// Node 0 goes on with the state that it had before it invited node 2. As node 1 knows of node 2, it learns of it
/// before it invites another.
#[test]
fn a_restored_inviter_compares_before_it_invites() {
    let mut world = World::new(4);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(60);
    let backup = world.nodes[0].disk.clone();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    world.nodes[0].disk = backup;
    world.down = vec![1, 2];
    world.restart(0);
    let now = world.now();
    world.nodes[3].mesh.join(0, code.expose(), now);
    world.settle(3);
    world.run(20);
    assert!(world.nodes[3].answers.is_empty(), "busy");
    world.down.clear();
    world.run(60);
    assert!(matches!(world.nodes[3].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
    let delegated = world.nodes[0].member().addresses.delegations.iter().count();
    assert_eq!((delegated, world.members(0)), (3, 4));
}

#[test]
fn one_that_nobody_answers_goes_on_alone() {
    let mut world = World::network(&[0]);
    world.down = vec![1];
    world.restart(0);
    assert!(!world.nodes[0].member().comparisons.since_start.is_done(world.time));
    world.run(130);
    assert!(world.nodes[0].member().comparisons.since_start.is_done(world.time));
}

/// Addresses that were delegated twice go to the earlier certificate, without strikes; the other learns that it has
/// to join again.
#[test]
fn double_delegation_is_told_neutrally_and_heals() {
    let mut world = World::new(4);
    let subnet = Ipv4Subnet::DEFAULT;
    let code = world.invite_for(0, None, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.join(3, code.expose()).unwrap();
    world.run(60);
    // The founder has forgotten node 1, and gives its address to node 2.
    let taken = world.nodes[1].mesh.local_address().unwrap();
    world.severed = vec![(0, 1), (0, 3)];
    let founder = world.nodes[0].member_mut();
    let delegated: Vec<_> = founder
        .addresses
        .delegations
        .iter()
        .filter(|other| other.ranges.address() != taken)
        .cloned()
        .collect();
    founder.addresses.delegations = Delegations::new(delegated);
    founder.members = Members::new(subnet, founder.membership.chain.clone());
    let code = world.invite_for(0, Some(1), Some(1)).unwrap();
    let holding = world.nodes[0].member().holding();
    let range = AddressRange::new(taken, 32).unwrap();
    let (joiner, invite) = (world.node(2), code.expose().parse::<Invite>().unwrap().id());
    let given = state::Delegated {
        subject: joiner,
        invite,
        ranges: range.into(),
        replaces: false,
        given_at: 0,
        ended_at: None,
        certificate: None,
    };
    let all = world.nodes[0].member().addresses.delegations.iter().cloned().chain([given]).collect();
    world.nodes[0].member_mut().addresses.delegations = Delegations::new(all);
    assert!(holding.ranges.cover(&range));
    world.join(2, code.expose()).unwrap();
    assert_eq!(world.nodes[2].mesh.local_address(), Some(taken));
    world.severed.clear();
    world.run(300);
    // The earlier one stands everywhere.
    for here in [0, 3] {
        assert!(world.has_peer(here, 1) && !world.has_peer(here, 2), "seen by {here}");
    }
    assert_eq!(status(&world, 2).displaced_by, Some(world.node(0).to_string()));
    assert_eq!(status(&world, 1).displaced_by, None);
    let conflicts: Vec<_> =
        [0, 1, 3].map(|index| status(&world, index).conflicts).into_iter().flatten().collect();
    assert!(conflicts.iter().any(|conflict| conflict.range == format!("{taken}/32")), "{conflicts:?}");
    assert!((0..4).all(|index| world.nodes[index].mesh.ban_reports().is_empty()));
    world.command(2, |mesh, _| mesh.leave(1)).unwrap();
    let code = world.invite_for(0, Some(1), Some(1)).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(120);
    assert!(world.has_peer(3, 2) && world.has_peer(0, 2) && world.has_peer(1, 2));
}

#[test]
fn a_clock_that_was_wrong_once_heals_when_it_is_right() {
    let mut world = World::network(&[0, 0]);
    // Node 1 signs a record while its clock is 90 days ahead.
    let later = Now { monotonic: world.time, unix: world.now().unix + Duration::from_secs(90 * 86_400) };
    let now = later;
    world.nodes[1].mesh.reconfigure(Settings { name: "ahead".parse().unwrap(), ..settings(2) }, now);
    world.nodes[1].mesh.handle_timeout(now);
    let ahead = world.nodes[1].mesh.poll_turn();
    for action in ahead.actions {
        if let Action::Ask(ticket, request) = action {
            let reply = sign(&world.nodes[1], *request, later);
            world.nodes[1].mesh.handle_keyd_reply(ticket, reply, later);
        }
    }
    for action in world.nodes[1].mesh.poll_turn().actions {
        if let Action::Ask(ticket, request) = action {
            let reply = sign(&world.nodes[1], *request, later);
            world.nodes[1].mesh.handle_keyd_reply(ticket, reply, later);
        }
    }
    world.settle(1);
    world.run(120);
    let reports = world.nodes[0].mesh.peer_reports(world.now());
    assert!(reports.iter().any(|(_, peer)| peer.name == "ahead"));
    assert!(world.has_peer(0, 1) && world.nodes[0].mesh.ban_reports().is_empty());
}

#[test]
fn a_node_that_was_removed_keeps_what_it_was() {
    let mut world = World::network(&[0, 0]);
    let one = world.node(1).to_string();
    world.command(0, |mesh, _| mesh.revoke(1, &one)).unwrap();
    world.deliver();
    assert!(world.nodes[1].mesh.network().is_none());
    assert!(world.nodes[1].set_aside);
    world.command(2, |mesh, _| mesh.leave(1)).unwrap();
    assert!(!world.nodes[2].set_aside, "it has wanted to leave");
}
