//! Whether members are there.

use super::*;

/// With each save the whole state is written: what a member may say every few seconds must not lead to that.
#[test]
fn words_of_others_on_their_lives_are_saved_rarely_and_records_soon() {
    let mut world = World::new(3);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(30);
    let disk = world.nodes[0].disk.clone();
    for _ in 0..20 {
        let presence = i2plan_proto::liveness::Presence::Present;
        world.nodes[1]
            .act(|member, cx| member.sign_liveness_message(cx, presence, LivenessReason::Suspected));
        world.settle(1);
        world.run(10);
    }
    let sequence = world.nodes[0].mesh.sequence_of(&world.nodes[1].identity.node);
    assert_eq!(sequence, world.nodes[1].member().local_sequence());
    assert_eq!(world.nodes[0].disk, disk);
    world.join(2, code.expose()).unwrap();
    world.run(10);
    let me = world.nodes[0].identity.node;
    let state = State::from_bytes(&world.nodes[0].disk, &me).unwrap();
    assert_eq!(state.members.len(), 2);
}

#[test]
fn a_user_learns_whether_a_member_answers() {
    let mut world = World::network(&[0, 0]);
    let node = world.node(1);
    let ping = |world: &mut World| {
        let now = world.now();
        world.nodes[0].mesh.ping(0, &node.to_string(), now);
        world.settle(0);
        world.run(11);
        world.nodes[0].answers.pop().expect("an answer")
    };
    assert!(matches!(ping(&mut world), Ok(meshd::Reply::Pinged { .. })));
    world.down = vec![1];
    assert_eq!(ping(&mut world).unwrap_err().kind, ErrorKind::Timeout);
    world.down.clear();
    world.command(0, |mesh, now| mesh.add_ban(0, &node.to_string(), String::new(), None, now)).unwrap();
    assert_eq!(ping(&mut world).unwrap_err(), MeshError::Banned.into());
    assert!(world.nodes[0].answers.is_empty());
}

#[test]
fn a_member_that_is_off_is_found_out_and_welcomed_back() {
    for count in [1, 2, 5] {
        let mut world = World::network(&vec![0; count]);
        world.down = vec![count];
        world.run(400);
        for here in 0..count {
            assert_eq!(
                world.liveness(here, count),
                Some(meshd::Liveness::Unreachable),
                "of {count}, seen by {here}"
            );
            // It stays a peer, so that a packet can wake it; it is only not called all the time.
            let peers = world.nodes[here].mesh.peers(world.now());
            let peer = peers.iter().find(|peer| peer.node == world.node(count)).unwrap();
            assert_eq!(peer.keepalive, 0);
        }
        world.down.clear();
        world.restart(count);
        world.run(60);
        for here in 0..count {
            assert_eq!(
                world.liveness(here, count),
                Some(meshd::Liveness::Present),
                "of {count}, seen by {here}"
            );
        }
    }
}

#[test]
fn a_node_whose_disk_is_full_still_answers() {
    let mut world = World::network(&[0, 0, 0]);
    world.nodes[1].disk_full = true;
    let banned = world.node(3).to_string();
    let ban = |mesh: &mut Mesh, now: Now| mesh.add_ban(1, &banned, String::new(), None, now);
    // From here on there is something to save at all times.
    world.command(1, ban).unwrap_err();
    let disk = world.nodes[1].disk.clone();
    for _ in 0..20 {
        world.run(60);
        for other in [0, 2] {
            assert_eq!(world.liveness(other, 1), Some(meshd::Liveness::Present), "seen by {other}");
        }
    }
    assert_eq!(world.nodes[1].disk, disk);
}

#[test]
fn loss_alone_makes_nobody_unreachable() {
    let mut world = World::network(&[0, 0, 1, 1, 2]);
    world.lose_every = 4;
    for _ in 0..120 {
        world.run(30);
        for here in 0..6 {
            for there in 0..6 {
                assert_ne!(world.liveness(here, there), Some(meshd::Liveness::Unreachable));
            }
        }
    }
}

#[test]
fn whoever_is_cut_off_suspects_nobody() {
    let mut world = World::network(&[0, 0, 0]);
    world.severed = vec![(3, 0), (3, 1), (3, 2)];
    world.run(600);
    let mesh = &world.nodes[3].mesh;
    assert!(mesh.member().unwrap().members.iter().all(|member| member.suspicions().next().is_none()));
}

#[test]
fn one_that_some_cannot_reach_is_reached_through_others() {
    let mut world = World::network(&[0, 0, 0]);
    world.severed = vec![(0, 1)];
    world.run(600);
    assert_ne!(world.liveness(0, 1), Some(meshd::Liveness::Unreachable));
    let routes = world.nodes[0].mesh.routes(world.now());
    let route = routes.iter().find(|route| route.node_id == world.node(1).to_string()).unwrap();
    assert_eq!(route.hops, Some(2));
    assert!(route.via.is_some());
    let local: Vec<_> = routes.iter().filter(|route| route.hops == Some(0)).collect();
    let [local] = local[..] else { panic!("{routes:?}") };
    assert_eq!((&local.node_id, &local.via, local.last_seen), (&world.node(0).to_string(), &None, None));
    assert_eq!(Some(local.ipv4), world.nodes[0].mesh.local_address());
    // And its news comes through them.
    let now = world.now();
    world.nodes[1].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(2) }, now);
    world.run(60);
    let reports = world.nodes[0].mesh.peer_reports(world.now());
    assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"));
}

#[test]
fn signs_of_life_are_told_once_and_of_the_living() {
    let mut world = World::network(&[0, 0]);
    world.nodes[0].mesh.poll_awake();
    world.down = vec![2];
    world.run(120);
    assert_eq!(world.nodes[0].mesh.poll_awake(), [world.node(1)].into());
    assert!(world.nodes[0].mesh.poll_awake().is_empty());
}

#[test]
fn lies_about_a_member_are_refuted() {
    let mut world = World::network(&[0, 0, 0, 0]);
    for round in 0..5 {
        for liar in [2, 3, 4] {
            let suspicion = world.suspicion(liar, 1);
            world.hand(liar, 0, &suspicion);
        }
        for _ in 0..60 {
            world.run(1);
            assert_ne!(world.liveness(0, 1), Some(meshd::Liveness::Unreachable), "round {round}");
        }
        assert_eq!(world.liveness(0, 1), Some(meshd::Liveness::Present), "round {round}");
    }
}

/// Before it was answered like that of many, one liar had all members tell each other an answer to each of its lies.
#[test]
fn what_one_alone_says_of_a_member_is_not_worth_an_answer() {
    let mut world = World::network(&[0, 0, 0, 0]);
    world.run(60);
    let before = world.nodes[1].member().local_sequence();
    let suspicion = world.suspicion(4, 1);
    world.severed = vec![(0, 1)];
    world.time += Duration::from_secs(1);
    world.hand(4, 0, &suspicion);
    world.run(20);
    assert_eq!(world.liveness(0, 1), Some(meshd::Liveness::Suspected));
    assert!(world.nodes[1].member().local_sequence() == before, "it has answered");
    // Nobody confirms it, and it is forgotten.
    world.run(640);
    assert_eq!(world.liveness(0, 1), Some(meshd::Liveness::Present));
    assert!(world.nodes[1].member().local_sequence() == before, "it has answered");
    // Nor is it when one joins in whom nobody knows; but when a second member does.
    let stranger = NodeId(SigningKey::from_bytes(&[99; 32]).verifying_key().to_bytes());
    let (first, second) = (world.node(4), world.node(2));
    let (now, sequence) = (world.time, before.unwrap());
    let members = &mut world.nodes[1].member_mut().members;
    assert!(!members.suspect_local(first, sequence, sequence, now));
    assert!(!members.suspect_local(stranger, sequence, sequence, now));
    assert!(members.suspect_local(second, sequence, sequence, now));
}

#[test]
fn who_shuts_down_says_so_and_who_returns_is_there() {
    let mut world = World::network(&[0, 0]);
    assert!(world.nodes[2].mesh.begin_shutdown());
    world.settle(2);
    assert!(world.nodes[2].mesh.is_shut_down());
    world.down = vec![2];
    world.run(5);
    assert_eq!(world.liveness(0, 2), Some(meshd::Liveness::Away));
    assert_eq!(world.liveness(1, 2), Some(meshd::Liveness::Away));
    world.run(600);
    assert_eq!(world.liveness(0, 2), Some(meshd::Liveness::Away));
    world.down.clear();
    world.restart(2);
    world.run(10);
    assert_eq!(world.liveness(0, 2), Some(meshd::Liveness::Present));
}

#[test]
fn halves_that_were_cut_off_find_together_again() {
    let mut world = World::network(&[0, 0, 1, 1, 2]);
    for here in [0, 1, 2] {
        for there in [3, 4, 5] {
            world.severed.push((here, there));
        }
    }
    world.run(600);
    let now = world.now();
    world.nodes[5].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(6) }, now);
    world.settle(5);
    world.run(10);
    world.severed.clear();
    world.run(300);
    for here in 0..6 {
        for there in (0..6).filter(|there| *there != here) {
            assert_eq!(world.liveness(here, there), Some(meshd::Liveness::Present), "{there} seen by {here}");
        }
    }
    let reports = world.nodes[0].mesh.peer_reports(world.now());
    assert!(reports.iter().any(|(_, peer)| peer.name == "renamed"));
}

#[test]
fn those_that_fell_silent_together_are_thought_to_be_back_together() {
    let mut world = World::network(&[0; 19]);
    let (here, there): (Vec<usize>, Vec<usize>) = ((0..10).collect(), (10..20).collect());
    for here in &here {
        world.severed.extend(there.iter().map(|there| (*here, *there)));
    }
    let silent = |world: &World| {
        there.iter().filter(|there| world.liveness(0, **there) == Some(meshd::Liveness::Unreachable)).count()
    };
    let noticed = (0..60).any(|_| {
        world.run(60);
        silent(&world) == 10
    });
    assert!(noticed);
    world.severed.clear();
    // One statement of one of them, and of nobody it is claimed any more.
    let ping = Message::Ping(1, Gossip::default());
    world.hand(10, 0, &ping);
    assert_eq!(silent(&world), 0);
    // What is said of them elsewhere, from before, does not count here.
    let suspicions = [world.suspicion(1, 11), world.suspicion(2, 11), world.suspicion(3, 11)];
    for (suspicion, confirmer) in suspicions.iter().zip(1..) {
        world.hand(confirmer, 0, suspicion);
    }
    world.run(100);
    assert_eq!(world.liveness(0, 11), Some(meshd::Liveness::Present));
}

#[test]
fn one_liar_makes_nobody_think_that_the_network_is_split() {
    let mut world = World::network(&[0; 12]);
    for subject in 2..13 {
        let suspicion = world.suspicion(1, subject);
        world.hand(1, 0, &suspicion);
    }
    let mesh = &mut world.nodes[0].mesh;
    assert!(mesh.member().unwrap().members.suspects().count() >= 8);
    assert!(!mesh.member().unwrap().members.is_split());
    let now = world.time;
    let subject = world.node(2);
    assert!(!world.nodes[0].member_mut().members.doubt(&subject, now));
}
