//! What a node publishes of itself, and what it remembers.

use super::*;
use crate::core::publication::{ROTATE_EVERY, until_rotation};

#[test]
fn a_restarted_node_is_the_same_and_knows_its_peers() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(10);
    let before = world.nodes[1].mesh.interface();
    world.restart(1);
    assert_eq!(world.nodes[1].mesh.interface(), before);
    assert_eq!(world.nodes[1].mesh.peers(world.now()).len(), 1);
    // Its new record outdoes the old one.
    let old = world.nodes[0]
        .member()
        .members
        .index()
        .get(&Position::member(world.nodes[1].identity.node))
        .map(|entry| entry.record);
    world.run(5);
    assert!(
        world.nodes[0]
            .member()
            .members
            .index()
            .get(&Position::member(world.nodes[1].identity.node))
            .map(|entry| entry.record)
            > old
    );
}

#[test]
fn a_new_data_session_moves_the_endpoint() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(5);
    world.nodes[1].mesh.handle_data_session(destination(2, 9));
    world.settle(1);
    world.run(5);
    assert_eq!(world.nodes[0].mesh.peers(world.now())[0].endpoint(), destination(2, 9));
}

#[test]
fn without_a_data_session_nothing_is_published() {
    let mut world = World::new(2);
    world.nodes[0].mesh.cx.data = None;
    let code = world.invite(0, Some(1)).unwrap();
    assert_eq!(world.join(1, code.expose()).unwrap_err().kind, ErrorKind::Timeout);
    world.nodes[0].mesh.handle_data_session(destination(1, 2));
    world.settle(0);
    world.join(1, code.expose()).unwrap();
}

#[test]
fn a_node_that_lost_its_state_outdoes_its_old_record() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    let saved = world.nodes[1].disk.clone();
    // A record with a number that neither it nor its keyd remembers is still about.
    let number = world.nodes[1].counter.replace(u64::MAX / 2);
    world.nodes[1].act(LocalMember::start_refresh);
    world.settle(1);
    world.run(5);
    world.nodes[1].disk = saved;
    world.nodes[1].counter.set(number);
    world.restart(1);
    world.run(90);
    let node = world.nodes[1].identity.node;
    assert_eq!(
        world.nodes[0].member().members.index().get(&Position::member(node)).map(|entry| entry.record),
        world.nodes[1].member().publication.record.as_ref().map(|own| own.value.sequence)
    );
    let problems = world.nodes[1].mesh.keys_problems(world.now());
    assert!(matches!(problems[..], [meshd::KeysProblem::Foreign { .. }]), "{problems:?}");
}

/// Otherwise it would go on signing below what others know until it is started again.
#[test]
fn a_number_that_keyd_could_not_be_told_is_told_when_it_is_heard_again() {
    let mut world = World::new(1);
    world.invite(0, None).unwrap();
    let now = world.now();
    let liveness_message = LivenessMessage {
        network: world.nodes[0].mesh.network().unwrap(),
        node: world.nodes[0].identity.node,
        sequence: 5000,
        presence: i2plan_proto::liveness::Presence::Present,
    };
    let signature = liveness_message.sign(&world.nodes[0].key);
    let liveness_message = Signed { value: liveness_message, signature };
    let mesh = &mut world.nodes[0].mesh;
    mesh.cx.note_local_statement(5000, keyd::Statement::Liveness(liveness_message.clone()));
    for action in mesh.poll_turn().actions {
        if let Action::Ask(ticket, _) = action {
            mesh.handle_keyd_reply(ticket, Err(ApiError::unavailable("keyd is not there")), now);
        }
    }
    mesh.cx.note_local_statement(5000, keyd::Statement::Liveness(liveness_message));
    world.settle(0);
    assert!(world.nodes[0].counter.get() >= 5000);
}

#[test]
fn a_member_that_cannot_publish_yet_does_not_wake_without_end() {
    let mut world = World::new(2);
    world.nodes[1].mesh.cx.data = None;
    let code = world.invite(0, Some(1)).unwrap();
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    world.run(300);
    assert!(world.nodes[1].mesh.network().is_some() && world.nodes[1].answers.is_empty());
    assert!(world.nodes[1].mesh.poll_timeout().is_none_or(|at| at > world.time));
    // The command is answered once it can.
    world.nodes[1].mesh.handle_data_session(destination(2, 2));
    world.settle(1);
    assert!(matches!(world.nodes[1].answers[..], [Ok(meshd::Reply::Joined(_))]));
}

#[test]
fn settings_change_while_the_mesh_goes_on() {
    let mut world = World::network(&[0, 0, 0]);
    world.run(600);
    let sent_in = |world: &mut World, seconds| {
        let before = world.sent;
        world.run(seconds);
        world.sent - before
    };
    let change = |world: &mut World, change: fn(&mut Settings)| {
        for index in 0..4 {
            let mut settings = settings(u8::try_from(index + 1).unwrap());
            change(&mut settings);
            let now = world.now();
            world.nodes[index].mesh.reconfigure(settings, now);
        }
    };
    let usual = sent_in(&mut world, 600);
    change(&mut world, |settings| {
        settings.heartbeat = Duration::from_secs(5);
        settings.max_peers = 3;
    });
    assert_eq!(world.nodes[0].mesh.max_peers(), 3);
    let often = sent_in(&mut world, 600);
    assert!(often > usual * 4, "{often} after {usual}");
    // A short timeout: one that is off is found out sooner.
    change(&mut world, |settings| {
        settings.heartbeat = Duration::from_secs(5);
        settings.peer_timeout = Duration::from_secs(20);
    });
    world.down = vec![3];
    world.run(60);
    assert_eq!(world.liveness(0, 3), Some(meshd::Liveness::Unreachable));
    world.down.clear();
    world.run(60);
    assert_eq!(world.liveness(0, 3), Some(meshd::Liveness::Present));
    // With next to nothing to spend, what can wait does.
    change(&mut world, |settings| {
        settings.heartbeat = Duration::from_secs(5);
        settings.control_rate = 200;
    });
    let before = world.sent_bytes;
    world.run(600);
    let rate = (world.sent_bytes - before) / 600 / 4;
    // Beside the rate, what had been saved up.
    assert!((150..=220).contains(&rate), "{rate} bytes a second");
    assert_eq!(world.liveness(0, 3), Some(meshd::Liveness::Present));
}

#[test]
fn an_expired_key_is_no_peer() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(2);
    let mut later = world.now();
    later.unix += Duration::from_secs(31 * 86_400);
    // By this clock its own key is over too: it is the clock that is wrong.
    assert_eq!(world.nodes[0].mesh.peers(later).len(), 1);
    let own = world.nodes[0].member_mut().publication.record.as_mut().unwrap();
    own.value.wireguard.value.not_after += 7 * 86_400;
    assert!(world.nodes[0].mesh.peers(later).is_empty());
}

#[test]
fn a_rotated_key_is_saved_before_it_is_published_and_reaches_the_others() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(70);
    let before = world.nodes[0].mesh.published_certificate().cloned().unwrap();
    let now = world.now();
    world.nodes[0].mesh.rotate_key(77, now);
    world.settle(0);
    let after = world.nodes[0].mesh.published_certificate().cloned().unwrap();
    assert!(after.epoch > before.epoch && after.public_key() != before.public_key());
    assert!(
        matches!(world.nodes[0].answers.last(), Some(Ok(meshd::Reply::Rotated(key))) if key.epoch == after.epoch)
    );
    // Again at once is too early.
    world.nodes[0].mesh.rotate_key(78, now);
    world.settle(0);
    assert!(matches!(world.nodes[0].answers.last(), Some(Err(error)) if error.kind == ErrorKind::Conflict));
    world.run(60);
    assert_eq!(world.nodes[1].mesh.peers(world.now())[0].public_key(), after.public_key());
    // A restart goes on with it.
    world.restart(0);
    world.run(60);
    assert_eq!(world.nodes[0].mesh.epoch(), Some(after.epoch));
    assert_eq!(world.nodes[0].mesh.published_key(), Some(after.public_key()));
}

#[test]
fn keys_are_rotated_in_time() {
    let mut world = World::new(1);
    world.invite(0, Some(1)).unwrap();
    let first = world.nodes[0].mesh.epoch().unwrap();
    let begins = Duration::from_secs(WireGuardCertificate::begins_at(first));
    assert!(until_rotation(first, world.now()) <= ROTATE_EVERY);
    let later = |unix| Now { monotonic: Duration::ZERO, unix };
    assert_eq!(until_rotation(first, later(begins + ROTATE_EVERY)), Duration::ZERO);
    // The clock was ahead by a year when the epoch began.
    assert_eq!(until_rotation(first, later(begins - Duration::from_secs(366 * 86_400))), Duration::ZERO);
    // A node that was off for longer than a key lives begins a new one.
    world.time += Duration::from_secs(40 * 86_400);
    world.run(60);
    let next = world.nodes[0].mesh.published_certificate().unwrap();
    assert!(next.epoch > first && next.is_valid_at(world.now().unix.as_secs()));
}
