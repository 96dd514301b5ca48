//! Destinations in place of the control destination.

use super::*;

/// Where a node thinks that another takes control messages.
fn control_of(world: &World, here: usize, there: usize) -> Option<Destination> {
    world.nodes[here].mesh.record_of(&world.node(there)).map(|record| *record.value.control)
}

#[test]
fn who_slept_while_a_fallback_ended_is_found_again() {
    for (restarts, others) in [(false, 0), (true, 0), (false, 2)] {
        let mut world = World::network(&vec![0; 1 + others]);
        let fallback = destination(2, 9);
        world.fallback(1, Some(fallback));
        world.run(60);
        assert_eq!(control_of(&world, 0, 1), Some(fallback));
        world.down = vec![0];
        world.run(900);
        world.fallback(1, None);
        world.run(900);
        world.down.clear();
        if restarts {
            world.restart(0);
        }
        world.run(60);
        assert_eq!(control_of(&world, 0, 1), Some(world.nodes[1].identity.control), "{others} others");
        for (here, there) in [(0, 1), (1, 0)] {
            assert_eq!(world.liveness(here, there), Some(meshd::Liveness::Present), "{there} seen by {here}");
        }
    }
}

#[test]
fn two_that_know_only_ended_fallbacks_of_each_other_find_together_again() {
    for restarts in [false, true] {
        let mut world = World::network(&[0]);
        for index in [0, 1] {
            world.fallback(index, Some(destination(u8::try_from(index + 1).unwrap(), 9)));
            world.run(60);
        }
        world.severed = vec![(0, 1)];
        world.run(900);
        for index in [0, 1] {
            world.fallback(index, None);
            assert_eq!(
                control_of(&world, 1 - index, index),
                Some(destination(u8::try_from(index + 1).unwrap(), 9))
            );
        }
        world.run(900);
        world.severed.clear();
        if restarts {
            world.restart(0);
            world.restart(1);
        }
        world.run(120);
        for (here, there) in [(0, 1), (1, 0)] {
            assert_eq!(control_of(&world, here, there), Some(world.nodes[there].identity.control));
            assert_eq!(world.liveness(here, there), Some(meshd::Liveness::Present), "{there} seen by {here}");
        }
    }
}

/// While nobody reached anybody, one went on to another destination, of which the others know nothing. It answers from there.
#[test]
fn who_went_elsewhere_while_it_was_cut_off_says_so_when_it_is_asked() {
    let mut world = World::network(&[0]);
    world.run(60);
    world.severed = vec![(0, 1)];
    for number in 9..12 {
        world.run(60);
        world.fallback(0, Some(destination(1, number)));
    }
    world.run(60);
    world.severed.clear();
    let (began, asked) = (world.now().monotonic, world.now());
    // As the shell does when the session is tested.
    world.nodes[1].mesh.ask_members(asked);
    world.settle(1);
    world.deliver();
    let recognized = |at: Option<Duration>| at.is_some_and(|at| at >= began);
    assert!(recognized(world.nodes[1].mesh.last_heard()), "its answer is recognized");
    assert!(recognized(world.nodes[1].mesh.last_answered()), "as an answer");
    assert_eq!(control_of(&world, 1, 0), Some(destination(1, 11)));
}

/// It hears the others all the time. Only an answer tells that they hear it.
#[test]
fn one_that_hears_members_that_do_not_hear_it_has_no_answer() {
    let mut world = World::network(&[0, 0]);
    world.run(120);
    let control = |world: &World, index: usize| world.nodes[index].identity.control;
    world.dead = [0, 1].map(|there| (control(&world, 2), control(&world, there))).into();
    let began = world.time;
    world.run(240);
    let mesh = &world.nodes[2].mesh;
    assert!(mesh.last_heard().is_some_and(|heard| heard > began + Duration::from_secs(120)));
    assert!(mesh.last_answered().is_some_and(|answered| answered <= began));
    world.fallback(2, Some(destination(3, 9)));
    world.run(60);
    assert!(world.nodes[2].mesh.last_answered().is_some_and(|answered| answered > began));
}

/// With an acknowledgement that is made up or kept back, a member could keep a node from noticing that nobody hears it.
#[test]
fn what_a_member_acknowledges_unasked_is_no_answer() {
    let mut world = World::network(&[0, 0]);
    world.run(120);
    let liar = world.nodes[1].identity.control;
    let (began, now) = (world.now().monotonic, world.now());
    let answered = |world: &World| world.nodes[2].mesh.last_answered().is_some_and(|at| at >= began);
    world.give(&liar, 2, &Message::Ack(7, Gossip::default()));
    assert!(!answered(&world));
    world.nodes[2].mesh.ask_members(now);
    let asked: Vec<_> = world.nodes[2].mesh.poll_turn().actions.into_iter().collect();
    let mut numbers = asked.iter().filter_map(|action| match action {
        Action::Send { to, message, .. } if *to == liar => {
            match Datagram::from_bytes(message).unwrap().message {
                Message::Ping(number, _) => Some(number),
                _ => None,
            }
        }
        _ => None,
    });
    let number = numbers.next_back().unwrap();
    world.time += Duration::from_secs(61);
    world.give(&liar, 2, &Message::Ack(number, Gossip::default()));
    assert!(!answered(&world), "it was kept back");
    let now = world.now();
    world.nodes[2].mesh.ask_members(now);
    world.settle(2);
    world.deliver();
    assert!(answered(&world));
}

/// What a member says of where else it is takes nothing from those who are there: they have not agreed.
#[test]
fn a_claim_to_anothers_primary_destination_is_not_believed() {
    let mut world = World::network(&[0, 0]);
    let honest = world.nodes[1].identity.control;
    let mut record = world.nodes[2].member().publication.record.clone().unwrap();
    record.value.sequence += 1_000_000;
    record.value.primary = Some(Box::new(ProvenDestination { destination: honest, ..record.value.control }));
    record.signature = record.value.sign(&world.nodes[2].key);
    world.hand(2, 0, &news(record));
    assert_eq!(world.nodes[0].member().members.at(&honest.hash()).count(), 1);
}

/// Both say that they stop, and both begin again from what they have saved: that the other is away. From one of them
/// nothing comes through to the other's control destination, where its router holds on to a dead session.
#[test]
fn a_network_that_stopped_as_a_whole_comes_back() {
    for dead in [vec![(1, 0)], vec![(0, 1)], vec![(0, 1), (1, 0)]] {
        let mut world = World::network(&[0]);
        // At the same time: what they say crosses.
        for index in [0, 1] {
            world.nodes[index].mesh.begin_shutdown();
            world.settle(index);
        }
        world.run(60);
        assert_eq!(world.liveness(0, 1), Some(meshd::Liveness::Away));
        let control = |world: &World, index: usize| world.nodes[index].identity.control;
        world.dead = dead.iter().map(|(from, to)| (control(&world, *from), control(&world, *to))).collect();
        world.run(600);
        let began = world.time;
        for index in [0, 1] {
            world.restart(index);
            let now = world.now();
            world.nodes[index].mesh.handle_control_session(now);
            world.settle(index);
        }
        for _ in 0..60 {
            world.run(1);
            for index in [0, 1] {
                let Node { mesh, fallback, .. } = &world.nodes[index];
                // As the shell does with a session through which nothing comes.
                if mesh.last_heard().is_none()
                    && fallback.is_none()
                    && mesh.has_reachable_members(world.now())
                    && world.time - began >= Duration::from_secs(15)
                {
                    world.fallback(index, Some(destination(u8::try_from(index + 1).unwrap(), 9)));
                }
            }
        }
        for (here, there) in [(0, 1), (1, 0)] {
            assert!(world.nodes[here].mesh.last_heard().is_some(), "{here} hears, {dead:?}");
            assert_eq!(world.liveness(here, there), Some(meshd::Liveness::Present), "{there} seen by {here}");
        }
    }
}

#[test]
fn who_is_away_is_not_waited_for() {
    let mut world = World::network(&[0, 0]);
    let expected = |world: &World| world.nodes[0].mesh.has_reachable_members(world.now());
    for index in [1, 2] {
        world.nodes[index].mesh.begin_shutdown();
        world.settle(index);
    }
    world.deliver();
    world.down = vec![1, 2];
    assert!(!expected(&world), "they have just said so");
    // It stops too, and saves that.
    world.nodes[0].mesh.begin_shutdown();
    world.settle(0);
    world.restart(0);
    assert!(expected(&world), "that may be long ago");
    world.run(15 * 60);
    assert!(!expected(&world), "but is believed in the end");
    world.restart(0);
    world.down = vec![2];
    world.restart(1);
    world.run(60);
    world.nodes[1].mesh.begin_shutdown();
    world.settle(1);
    world.deliver();
    assert!(!expected(&world), "one that was heard knows of the other");
}
