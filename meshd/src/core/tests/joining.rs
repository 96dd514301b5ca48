//! Invites and joining.

use super::*;

#[test]
fn the_first_invite_founds_and_the_joiner_becomes_a_member() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let network = world.join(1, code.expose()).unwrap();
    world.run(2);
    assert_eq!(network.id, world.nodes[0].mesh.network().unwrap().to_string());
    for (here, there) in [(0, 1), (1, 0)] {
        let peers = world.nodes[here].mesh.peers(world.now());
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].node, world.nodes[there].identity.node);
        assert_eq!(Some(peers[0].endpoint()), world.nodes[there].mesh.cx.data);
        assert_eq!(peers[0].ipv4(), world.nodes[there].mesh.interface().unwrap().ipv4);
    }
}

#[test]
fn who_gives_the_same_code_again_waits_for_the_same_end() {
    let mut world = World::new(3);
    let code = world.invite(0, Some(1)).unwrap();
    let other = world.invite(2, Some(1)).unwrap();
    let now = world.now();
    world.nodes[1].mesh.join(1, code.expose(), now);
    world.settle(1);
    let error = world.join(1, other.expose()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let network = world.join(1, code.expose()).unwrap();
    let first = world.nodes[1].answers.pop();
    assert!(matches!(first, Some(Ok(meshd::Reply::Joined(joined))) if joined == network));
    assert!(world.nodes[1].answers.is_empty());
}

#[test]
fn who_joins_by_the_second_is_known_to_the_first_within_a_minute() {
    for lose_every in [0, 3] {
        let mut world = World::new(3);
        world.lose_every = lose_every;
        let code = world.invite(0, Some(1)).unwrap();
        world.join(1, code.expose()).unwrap();
        let code = world.invite(1, Some(1)).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(60);
        assert_eq!(
            [world.members(0), world.members(1), world.members(2)],
            [3; 3],
            "losing every {lose_every}th"
        );
    }
}

#[test]
fn uses_are_counted_and_repetitions_are_not() {
    let mut world = World::new(4);
    let code = world.invite(0, Some(2)).unwrap();
    // Some requests and some answers are lost, so requests are repeated.
    world.lose_every = 3;
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    world.lose_every = 0;
    let error = world.join(3, code.expose()).unwrap_err();
    assert_eq!((error.kind, error.message.contains("used as often")), (ErrorKind::Denied, true), "{error}");
    assert!(world.nodes[3].mesh.network().is_none());
}

#[test]
fn uses_survive_a_restart_of_the_inviter() {
    let mut world = World::new(3);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.restart(0);
    world.run(1);
    assert!(world.join(2, code.expose()).is_err());
    assert_eq!(world.members(0), 2);
}

#[test]
fn nobody_is_certified_before_the_use_is_on_disk() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let before = world.nodes[0].disk.clone();
    world.nodes[0].disk_full = true;
    let error = world.join(1, code.expose()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(world.nodes[0].disk, before);
    // The disk has room again: the same invite works, and for one only.
    world.nodes[0].disk_full = false;
    world.join(1, code.expose()).unwrap();
    assert_ne!(world.nodes[0].disk, before);
}

#[test]
fn an_unknown_invite_is_refused() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let mut invite: Invite = code.expose().parse().unwrap();
    invite.secret = InviteSecret([99; 32]);
    let error = world.join(1, &invite.to_code()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[test]
fn an_expired_invite_is_refused_on_both_sides() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.run(3601);
    let error = world.join(1, code.expose()).unwrap_err();
    assert!(error.message.contains("expired at"), "{error}");
    // A joiner whose clock is behind asks all the same.
    let mut invite: Invite = code.expose().parse().unwrap();
    invite.expires_at += 10_000;
    let error = world.join(1, &invite.to_code()).unwrap_err();
    assert!(error.message.contains("has expired"), "{error}");
}

#[test]
fn what_does_not_fit_the_state_is_refused() {
    let mut world = World::new(3);
    let first = world.invite(0, Some(1)).unwrap();
    let second = world.invite(1, Some(1)).unwrap();
    assert_eq!(world.join(0, second.expose()).unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(world.join(2, "nonsense").unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.invite(0, Some(0)).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(world.invite(0, Some(MAX_USES + 1)).unwrap_err().kind, ErrorKind::Invalid);
    assert!(world.join(2, first.expose()).is_ok());
}

#[test]
fn an_inviter_that_is_not_there_ends_the_join_in_time() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.lose_every = 1;
    let error = world.join(1, code.expose()).unwrap_err();
    assert_eq!((error.kind, error.message.contains("did not answer")), (ErrorKind::Timeout, true), "{error}");
    // And leaves the node free to try again.
    world.lose_every = 0;
    world.join(1, code.expose()).unwrap();
}

/// Begins to join while the control session goes through these states; when it ended, in seconds, and why.
fn join_without_session(
    states: &[(u64, meshd::SessionState, Option<&str>)],
    attempts: bool,
) -> (u64, ApiError) {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    let (now, began) = (world.now(), world.time);
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.lose_every = 1;
    world.settle(1);
    while world.nodes[1].answers.is_empty() {
        let second = (world.time - began).as_secs();
        let now = world.now();
        for (at, state, reason) in states {
            if *at == second {
                world.nodes[1].mesh.handle_control_state(*state, *reason, now);
            }
        }
        if attempts && second % 2 == 1 {
            let mesh = &mut world.nodes[1].mesh;
            mesh.handle_control_state(meshd::SessionState::Opening, None, now);
            mesh.handle_control_state(meshd::SessionState::Down, Some("no SAM bridge"), now);
        }
        world.run(1);
    }
    ((world.time - began).as_secs(), world.nodes[1].answers.pop().unwrap().unwrap_err())
}

#[test]
fn what_keeps_a_joiner_from_its_inviter_is_told_apart() {
    use meshd::SessionState::{Down, Opening, Up};

    // Its router is not there.
    let (ended, error) = join_without_session(&[(0, Down, Some("no SAM bridge"))], true);
    assert!((60..=62).contains(&ended) && error.message.contains("no SAM bridge"), "{ended}: {error}");
    assert_eq!((error.kind, error.remedy), (ErrorKind::Unavailable, Some(i2plan_ipc::Remedy::Diagnose)));
    // Its router is at work, and has no tunnels yet.
    let (ended, error) = join_without_session(&[(0, Opening, None)], false);
    assert!((300..=302).contains(&ended) && error.message.contains("built no tunnels"), "{ended}: {error}");
    // It has them after a while: that time does not count.
    let (ended, error) = join_without_session(&[(0, Opening, None), (200, Up, None)], false);
    assert!((350..=352).contains(&ended) && error.message.contains("is on I2P"), "{ended}: {error}");
    // It never finds the inviter.
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.nodes[0].identity.control = destination(7, 7);
    let began = world.time;
    let error = world.join(1, code.expose()).unwrap_err();
    assert!(error.message.contains("no lease set of the inviter within 90 s"), "{error}");
    assert!((world.time - began).as_secs() <= 92);
    // And all are no reason to ask for another invite.
    assert!(error.remedy.is_some_and(|remedy| remedy.to_string().contains("the same invite")));
}

/// Begins to join; returns the seconds after which it was in vain, and lets a fallback come each time.
fn fallbacks_of_a_join(world: &mut World, index: usize, code: &str) -> Vec<u64> {
    let (now, began) = (world.now(), world.time);
    world.nodes[index].mesh.join(0, code, now);
    world.settle(index);
    let mut in_vain = Vec::new();
    while world.nodes[index].answers.is_empty() {
        world.run(1);
        if world.nodes[index].mesh.needs_fallback() {
            in_vain.push((world.time - began).as_secs());
            let seed = u8::try_from(index + 1).unwrap();
            world.fallback(index, Some(destination(seed, 9 + u8::try_from(in_vain.len()).unwrap())));
        }
    }
    in_vain
}

#[test]
fn an_inviter_that_does_not_answer_is_asked_from_another_destination() {
    let mut world = World::new(3);
    world.invite(0, Some(1)).unwrap();
    let (inviter, joiner) = (world.nodes[0].identity.control, world.nodes[1].identity.control);
    // One way or the other.
    for dead in [(joiner, inviter), (inviter, joiner)] {
        let code = world.invite(0, Some(1)).unwrap();
        world.dead = vec![dead];
        assert_eq!(fallbacks_of_a_join(&mut world, 1, code.expose()), [15]);
        assert!(matches!(world.nodes[1].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
        world.run(60);
        // That is where it is reached now.
        let control =
            |world: &World| world.nodes[0].mesh.record_of(&world.node(1)).map(|record| *record.value.control);
        assert_eq!(control(&world), world.nodes[1].fallback);
        assert_eq!((world.members(0), world.members(1)), (2, 2));
        world.dead.clear();
        world.fallback(1, None);
        world.run(60);
        assert_eq!(control(&world), Some(joiner));
        world.command(1, |mesh, _| mesh.leave(0)).unwrap();
        world.run(1);
        // It was one joiner, wherever it asked from.
        let invites = world.nodes[0].mesh.invite_reports(world.now());
        assert_eq!(invites[0].used_by, [world.node(1).to_string()]);
        assert!(world.join(2, code.expose()).unwrap_err().message.contains("used as often"));
        // And a member that has left does not come back by the same invite.
        assert!(world.join(1, code.expose()).unwrap_err().message.contains("used as often"));
    }
}

#[test]
fn fallbacks_that_are_of_no_use_are_few() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.lose_every = 1;
    assert_eq!(fallbacks_of_a_join(&mut world, 1, code.expose()), [15, 95]);
    assert!(matches!(&world.nodes[1].answers.pop(), Some(Err(error)) if error.kind == ErrorKind::Timeout));
    // One that is there already is asked from at once, and given up sooner.
    assert!(!world.nodes[1].mesh.needs_fallback());
    world.lose_every = 0;
    world.dead = vec![(world.nodes[1].identity.control, world.nodes[0].identity.control)];
    assert_eq!(fallbacks_of_a_join(&mut world, 1, code.expose()), [0; 0]);
    assert!(matches!(world.nodes[1].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
}

#[test]
fn a_request_to_join_counts_from_where_it_says_alone() {
    let mut world = World::new(3);
    let code = world.invite(0, Some(1)).unwrap();
    let fallback = destination(2, 9);
    world.fallback(1, Some(fallback));
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    let requests: Vec<_> = world.in_flight.drain(..).collect();
    let control = world.nodes[1].identity.control;
    assert_eq!(requests.iter().map(|(from, ..)| *from).collect::<Vec<_>>(), [control, fallback]);
    // Somebody who sends one on, or sends it from the joiner's other destination, has nobody answered.
    let stranger = world.nodes[2].identity.control;
    for ((_, _, request), from) in
        requests.iter().flat_map(|request| [control, fallback, stranger].map(|from| (request, from)))
    {
        let now = world.now();
        world.nodes[0].mesh.handle_datagram(&from, request, now);
        let said = Datagram::from_bytes(request).unwrap().message;
        let Message::JoinRequest(said) = said else { panic!("another message") };
        let turn = world.nodes[0].mesh.poll_turn();
        assert_eq!(!turn.actions.is_empty(), said.body.value.control == from.hash());
        // keyd does not answer, so that the next is not held for a repetition.
        for action in turn.actions {
            if let Action::Ask(ticket, _) = action {
                world.nodes[0].mesh.handle_keyd_reply(ticket, Err(ApiError::unavailable("no keyd")), now);
            }
        }
    }
    assert_eq!(world.nodes[0].mesh.invite_reports(now)[0].used_by.len(), 1);
}

#[test]
fn a_fallback_that_has_gone_is_not_asked_from() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.lose_every = 1;
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    // keyd signs for it only when it has gone.
    let gone = destination(2, 9);
    world.nodes[1].mesh.handle_fallback(Some(gone), now);
    let asked = world.nodes[1].mesh.poll_turn().actions;
    world.nodes[1].mesh.handle_fallback(None, now);
    for action in asked {
        let Action::Ask(ticket, request) = action else { panic!("{action:?}") };
        let reply = sign(&world.nodes[1], *request, now);
        world.nodes[1].mesh.handle_keyd_reply(ticket, reply, now);
    }
    assert!(world.nodes[1].mesh.poll_turn().actions.is_empty());
    // One for which it does not sign ends nothing.
    world.nodes[1].mesh.handle_fallback(Some(gone), now);
    for action in world.nodes[1].mesh.poll_turn().actions {
        let Action::Ask(ticket, _) = action else { panic!("{action:?}") };
        world.nodes[1].mesh.handle_keyd_reply(ticket, Err(ApiError::denied("no")), now);
    }
    world.lose_every = 0;
    world.run(10);
    assert!(matches!(world.nodes[1].answers.pop(), Some(Ok(meshd::Reply::Joined(_)))));
}

#[test]
fn a_node_that_joins_with_a_wrong_clock_is_known_once_the_clock_is_right() {
    // Further ahead the invite has expired.
    for seconds in [-90 * 86_400, -3 * 86_400, -7200, 1800] {
        let mut world = World::new(2);
        let code = world.invite(0, Some(1)).unwrap();
        world.wrong.insert(1, seconds);
        world.join(1, code.expose()).unwrap();
        world.run(120);
        world.wrong.clear();
        world.run(120);
        assert_eq!((world.members(0), world.members(1)), (2, 2), "{seconds} s");
    }
}

#[test]
fn one_invite_lets_no_more_in_however_many_come_at_once() {
    let mut world = World::new(12);
    let code = world.invite(0, Some(3)).unwrap();
    let now = world.now();
    for index in 1..12 {
        world.nodes[index].mesh.join(0, code.expose(), now);
        world.settle(index);
    }
    world.run(180);
    let (mut joined, mut refused) = (0, 0);
    for node in &world.nodes[1..] {
        match node.answers.first().expect("an answer") {
            Ok(meshd::Reply::Joined(_)) => joined += 1,
            Ok(_) => panic!("another answer"),
            Err(error) => {
                assert!(error.message.contains("used as often"), "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!((joined, refused), (3, 8));
    assert_eq!(world.members(0), 4);
}

/// As where its session for data does not open, so that it has no record.
#[test]
fn who_waits_for_a_join_is_answered_if_the_membership_ends_first() {
    let mut world = World::new(2);
    let code = world.invite(0, None).unwrap();
    world.nodes[1].mesh.cx.data = None;
    let now = world.now();
    world.nodes[1].mesh.join(1, code.expose(), now);
    world.settle(1);
    world.run(10);
    assert!(world.nodes[1].mesh.network().is_some() && world.nodes[1].answers.is_empty());
    let refused = world.invite(1, None).unwrap_err();
    assert!(refused.message.contains("joining"), "{refused:?}");
    let left = world.command(1, |mesh, _| mesh.leave(2));
    assert!(matches!(left, Ok(meshd::Reply::Left(_))));
    let waited = world.nodes[1].answers.pop().unwrap().unwrap_err();
    assert_eq!(waited.kind, ErrorKind::Conflict);
    assert!(world.nodes[1].answers.is_empty());
    // And it can join again.
    world.nodes[1].mesh.handle_data_session(destination(2, 2));
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
}
