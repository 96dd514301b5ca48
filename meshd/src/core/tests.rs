//! Whole meshes in memory: the real core, a network that delivers or loses, and a signer in place of `keyd`.

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::secret::SecretText;
use i2plan_proto::identity::{Signable, Signature};
use i2plan_proto::invite::{Invite, InviteGrant, InviteSecret};
use i2plan_proto::wireguard::WireGuardCertificate;

use super::*;

const START: Duration = Duration::from_secs(1_800_000_000);

/// A node: its core, and what its `keyd` would hold.
struct Node {
    mesh: Mesh,
    key: SigningKey,
    identity: keyd::Identity,
    disk: Vec<u8>,
    disk_full: bool,
    answers: Vec<Result<meshd::Reply, ApiError>>,
}

/// Nodes and the datagrams between them.
struct World {
    nodes: Vec<Node>,
    time: Duration,
    in_flight: VecDeque<(Destination, Destination, Vec<u8>)>,
    /// Every so many-th datagram is lost; none if zero.
    lose_every: usize,
    sent: usize,
}

fn destination(seed: u8, purpose: u8) -> Destination {
    Destination { padding: [seed; 32], signing_key: [purpose; 32] }
}

fn identity(seed: u8) -> (SigningKey, keyd::Identity) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let node = NodeId(key.verifying_key().to_bytes());
    (key, keyd::Identity { node, control: destination(seed, 1), sealed: false })
}

fn settings(seed: u8) -> Settings {
    Settings {
        name: format!("node-{seed}").parse().unwrap(),
        subnet: Ipv4Subnet::DEFAULT,
        heartbeat: Duration::from_secs(30),
        interface: "i2plan0".to_owned(),
        mtu: 1280,
        keepalive: 25,
    }
}

impl World {
    fn new(count: u8) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            time: Duration::ZERO,
            in_flight: VecDeque::new(),
            lose_every: 0,
            sent: 0,
        };
        for seed in 1..=count {
            let (key, me) = identity(seed);
            let mut mesh = Mesh::new(me, settings(seed), State::new(me.node), [seed; 32], world.now());
            mesh.on_data_session(destination(seed, 2));
            let (disk, answers) = (Vec::new(), Vec::new());
            world.nodes.push(Node { mesh, key, identity: me, disk, disk_full: false, answers });
        }
        world
    }

    fn now(&self) -> Now {
        Now { monotonic: self.time, unix: START + self.time }
    }

    /// Carries out what a node wants done, until it wants nothing more.
    fn settle(&mut self, index: usize) {
        loop {
            let turn = self.nodes[index].mesh.take_turn();
            if turn.save.is_none() && turn.actions.is_empty() {
                return;
            }
            if let Some(state) = turn.save {
                if self.nodes[index].disk_full {
                    let error = ApiError::internal("the disk is full");
                    let now = self.now();
                    for _ in self.nodes[index].mesh.on_save_failed(turn.actions, &error, now) {
                        self.nodes[index].answers.push(Err(error.clone()));
                    }
                    return;
                }
                self.nodes[index].disk = state;
            }
            for action in turn.actions {
                let now = self.now();
                match action {
                    Action::Send { to, message } => {
                        assert!(message.len() <= message::MAX_LEN, "{} bytes", message.len());
                        self.sent += 1;
                        if self.lose_every == 0 || !self.sent.is_multiple_of(self.lose_every) {
                            self.in_flight.push_back((self.nodes[index].identity.control, to, message));
                        }
                    }
                    Action::LookUp(hash) => {
                        let found = self
                            .nodes
                            .iter()
                            .map(|node| node.identity.control)
                            .find(|control| control.hash() == hash);
                        self.nodes[index].mesh.on_found(
                            hash,
                            found.ok_or_else(|| "KEY_NOT_FOUND".to_owned()),
                            now,
                        );
                    }
                    Action::Ask(ticket, request) => {
                        let reply = sign(&self.nodes[index], *request, now);
                        self.nodes[index].mesh.on_keyd(ticket, reply, now);
                    }
                    Action::Answer(_, result) => self.nodes[index].answers.push(*result),
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, message)) = self.in_flight.pop_front() {
            if let Some(index) = self.nodes.iter().position(|node| node.identity.control == to) {
                let now = self.now();
                self.nodes[index].mesh.on_datagram(&from, &message, now);
                self.settle(index);
            }
        }
    }

    /// Lets time pass, second by second.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.deliver();
            self.time += Duration::from_secs(1);
            for index in 0..self.nodes.len() {
                if self.nodes[index].mesh.wake_at().is_some_and(|at| at <= self.time) {
                    let now = self.now();
                    self.nodes[index].mesh.on_time(now);
                    self.settle(index);
                }
            }
        }
        self.deliver();
    }

    fn invite(&mut self, index: usize, uses: Option<u32>) -> Result<SecretText, ApiError> {
        let now = self.now();
        self.nodes[index].mesh.create_invite(0, 3600, uses, now);
        self.settle(index);
        match self.nodes[index].answers.pop().expect("an answer at once") {
            Ok(meshd::Reply::Invite(invite)) => Ok(invite.invite),
            Ok(_) => panic!("another answer"),
            Err(error) => Err(error),
        }
    }

    fn join(&mut self, index: usize, code: &str) -> Result<meshd::Network, ApiError> {
        let now = self.now();
        self.nodes[index].mesh.join(0, code, now);
        self.settle(index);
        for _ in 0..200 {
            if let Some(answer) = self.nodes[index].answers.pop() {
                return match answer {
                    Ok(meshd::Reply::Joined(network)) => Ok(network),
                    Ok(_) => panic!("another answer"),
                    Err(error) => Err(error),
                };
            }
            self.run(1);
        }
        panic!("no answer");
    }

    /// A node forgets all but its disk and its keys.
    fn restart(&mut self, index: usize) {
        let node = &self.nodes[index];
        let state = State::from_bytes(&node.disk, &node.identity.node).unwrap();
        let seed = u8::try_from(index + 1).unwrap();
        let mut mesh = Mesh::new(node.identity, settings(seed), state, [seed; 32], self.now());
        mesh.on_data_session(destination(seed, 2));
        self.nodes[index].mesh = mesh;
        self.settle(index);
    }

    fn members(&self, index: usize) -> u64 {
        self.nodes[index].mesh.network_status().map_or(0, |network| network.members)
    }
}

/// What an honest `keyd` answers.
fn sign(node: &Node, request: keyd::Request, now: Now) -> Result<keyd::Reply, ApiError> {
    let unix = now.unix.as_secs();
    let me = node.identity.node;
    fn signed<T: Signable>(value: T, key: &SigningKey) -> Signed<T> {
        let signature = value.sign(key);
        Signed { value, signature }
    }
    Ok(match request {
        keyd::Request::SignCharter(charter) => keyd::Reply::Signature(charter.sign(&node.key)),
        keyd::Request::SignRecord(record) => keyd::Reply::Signature(record.sign(&node.key)),
        keyd::Request::SignJoin(body) => keyd::Reply::Signature(body.sign(&node.key)),
        keyd::Request::CreateInvite(CreateInvite { network, expires_at, uses }) => {
            let count = u8::try_from(node.mesh.invites.issued().len()).unwrap();
            let secret = InviteSecret([me.0[0] ^ count; 32]);
            let key = secret.key();
            let control = node.identity.control.hash();
            let code = Invite { network, inviter: me, control, secret, expires_at }.to_code();
            let grant = InviteGrant { network, inviter: me, key, created_at: unix, expires_at, uses };
            keyd::Reply::Invite { code: SecretText::new(code.to_string()), grant: signed(grant, &node.key) }
        }
        keyd::Request::CertifyMember(certify) => {
            let membership = i2plan_proto::membership::Membership {
                network: certify.grant.value.network,
                issuer: me,
                subject: certify.request.body.value.joiner,
                invite: certify.grant.value.key.id(),
                issued_at: unix,
            };
            keyd::Reply::Membership(signed(membership, &node.key))
        }
        keyd::Request::CertifyWireGuard { network, epoch } => {
            let epoch = epoch.unwrap_or_else(|| WireGuardCertificate::epoch_at(unix));
            let not_before = WireGuardCertificate::begins_at(epoch);
            let not_after = not_before + WireGuardCertificate::MAX_AGE;
            // A key for each node and epoch.
            let mut public_key = me.0;
            public_key[..4].copy_from_slice(&epoch.to_be_bytes());
            let certificate =
                WireGuardCertificate { network, node: me, public_key, epoch, not_before, not_after };
            keyd::Reply::WireGuardCertificate(signed(certificate, &node.key))
        }
        _ => return Err(ApiError::denied("not for meshd")),
    })
}

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
        assert_eq!(Some(peers[0].endpoint), world.nodes[there].mesh.data);
        assert_eq!(peers[0].ipv4, Some(world.nodes[there].mesh.interface().unwrap().ipv4));
    }
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
    let old = world.nodes[0].mesh.members.sequence(&world.nodes[1].identity.node);
    world.run(5);
    assert!(world.nodes[0].mesh.members.sequence(&world.nodes[1].identity.node) > old);
}

#[test]
fn a_new_data_session_moves_the_endpoint() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(5);
    world.nodes[1].mesh.on_data_session(destination(2, 9));
    world.settle(1);
    world.run(5);
    assert_eq!(world.nodes[0].mesh.peers(world.now())[0].endpoint, destination(2, 9));
}

#[test]
fn without_a_data_session_nothing_is_published() {
    let mut world = World::new(2);
    world.nodes[0].mesh.data = None;
    let code = world.invite(0, Some(1)).unwrap();
    assert_eq!(world.join(1, code.expose()).unwrap_err().kind, ErrorKind::Timeout);
    world.nodes[0].mesh.on_data_session(destination(1, 2));
    world.settle(0);
    world.join(1, code.expose()).unwrap();
}

#[test]
fn a_node_that_lost_its_state_outdoes_its_old_record() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    let saved = world.nodes[1].disk.clone();
    // A record from a clock that was far ahead is still about.
    world.nodes[1].mesh.membership.as_mut().unwrap().last_sequence = u64::MAX / 2;
    world.nodes[1].mesh.start_refresh();
    world.settle(1);
    world.run(5);
    world.nodes[1].disk = saved;
    world.restart(1);
    world.run(90);
    let node = world.nodes[1].identity.node;
    assert_eq!(
        world.nodes[0].mesh.members.sequence(&node),
        world.nodes[1].mesh.own.as_ref().map(|own| own.value.sequence)
    );
}

#[test]
fn strangers_get_no_digest_answered_and_forged_records_are_dropped() {
    let mut world = World::new(2);
    let _ = world.invite(0, Some(1)).unwrap();
    let now = world.now();
    let stranger = world.nodes[1].identity.control;
    let digest = Message::Digest(message::Digest { complete: true, entries: vec![] });
    world.nodes[0].mesh.on_datagram(&stranger, &digest.to_bytes(), now);
    assert!(world.nodes[0].mesh.take_turn().actions.is_empty());

    let mut record = world.nodes[0].mesh.own.clone().unwrap();
    record.value.sequence += 1;
    record.value.control = stranger;
    record.signature = Signature([1; 64]);
    world.nodes[0].mesh.on_datagram(&stranger, &Message::Records(vec![record]).to_bytes(), now);
    let turn = world.nodes[0].mesh.take_turn();
    assert!(turn.actions.is_empty() && turn.save.is_none());
}

#[test]
fn a_claim_to_anothers_destination_takes_nothing_from_it() {
    let mut world = World::new(3);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    // One member says that it takes control messages where another does, and then no longer.
    let (honest, own) = (world.nodes[1].identity.control, world.nodes[2].identity.control);
    for control in [honest, own] {
        let mut record = world.nodes[2].mesh.own.clone().unwrap();
        record.value.sequence += 1_000_000 + u64::from(control == own);
        record.value.control = control;
        record.signature = record.value.sign(&world.nodes[2].key);
        let now = world.now();
        world.nodes[0].mesh.on_datagram(&own, &Message::Records(vec![record]).to_bytes(), now);
        world.nodes[0].mesh.take_turn();
    }
    let now = world.now();
    let digest = Message::Digest(message::Digest { complete: true, entries: vec![] });
    world.nodes[0].mesh.on_datagram(&honest, &digest.to_bytes(), now);
    let answered = |action: &Action| matches!(action, Action::Send { to, .. } if *to == honest);
    assert!(world.nodes[0].mesh.take_turn().actions.iter().any(answered));
}

#[test]
fn a_member_that_cannot_publish_yet_does_not_wake_without_end() {
    let mut world = World::new(2);
    world.nodes[1].mesh.data = None;
    let code = world.invite(0, Some(1)).unwrap();
    let now = world.now();
    world.nodes[1].mesh.join(0, code.expose(), now);
    world.settle(1);
    world.run(300);
    assert!(world.nodes[1].mesh.network().is_some() && world.nodes[1].answers.is_empty());
    assert!(world.nodes[1].mesh.wake_at().is_none_or(|at| at > world.time));
    // The command is answered once it can.
    world.nodes[1].mesh.on_data_session(destination(2, 2));
    world.settle(1);
    assert!(matches!(world.nodes[1].answers[..], [Ok(meshd::Reply::Joined(_))]));
}

#[test]
fn strangers_in_crowds_do_not_keep_members_from_being_heard() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(10);
    let now = world.now();
    let digest = Message::Digest(message::Digest { complete: true, entries: vec![] }).to_bytes();
    for padding in 0..=u8::MAX {
        for signing_key in 10..=u8::MAX {
            let stranger = destination(padding, signing_key);
            world.nodes[0].mesh.on_datagram(&stranger, &digest, now);
        }
    }
    assert!(world.nodes[0].mesh.take_turn().actions.is_empty());
    let member = world.nodes[1].identity.control;
    world.nodes[0].mesh.on_datagram(&member, &digest, now);
    assert_eq!(world.nodes[0].mesh.take_turn().actions.len(), 1, "the member's digest is answered");
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

#[test]
fn of_two_claims_to_an_address_the_smaller_id_has_it() {
    let mut world = World::new(3);
    let code = world.invite(0, None).unwrap();
    world.join(1, code.expose()).unwrap();
    world.join(2, code.expose()).unwrap();
    world.run(60);
    let claimed = world.nodes[1].mesh.interface().unwrap().ipv4;
    world.nodes[2].mesh.membership.as_mut().unwrap().ipv4 = claimed;
    world.nodes[2].mesh.start_refresh();
    world.settle(2);
    world.run(60);
    let winner = world.nodes[1].identity.node.min(world.nodes[2].identity.node);
    for peer in world.nodes[0].mesh.peers(world.now()) {
        assert_eq!(peer.ipv4, (peer.node == winner).then_some(claimed));
    }
}

#[test]
fn an_expired_key_is_no_peer() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    world.join(1, code.expose()).unwrap();
    world.run(2);
    let mut later = world.now();
    later.unix += Duration::from_secs(31 * 86_400);
    assert!(world.nodes[0].mesh.peers(later).is_empty());
}

mod state_file {
    use proptest::prelude::*;

    use super::*;
    use crate::core::state::StateError;

    fn full_state() -> State {
        let mut world = World::new(3);
        let code = world.invite(0, Some(3)).unwrap();
        world.join(1, code.expose()).unwrap();
        world.join(2, code.expose()).unwrap();
        world.run(10);
        world.nodes[0].mesh.state()
    }

    #[test]
    fn states_read_back_and_know_their_node() {
        let state = full_state();
        assert_eq!((state.invites.len(), state.records.len()), (1, 2));
        assert_eq!(State::from_bytes(&state.to_bytes(), &state.node), Ok(state.clone()));
        let other = identity(9).1.node;
        assert!(matches!(State::from_bytes(&state.to_bytes(), &other), Err(StateError::OtherNode { .. })));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let state = full_state();
        let bytes = state.to_bytes();
        for len in 0..bytes.len() {
            assert!(State::from_bytes(&bytes[..len], &state.node).is_err(), "{len}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let state = full_state();
        let mut bytes = state.to_bytes();
        bytes[12] = 2;
        assert_eq!(State::from_bytes(&bytes, &state.node), Err(StateError::Version(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let node = identity(1).1.node;
            let _ = State::from_bytes(&bytes, &node);
        }
    }
}

mod robustness {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_datagrams_change_nothing(payload in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut world = World::new(2);
            let _ = world.invite(0, Some(1)).unwrap();
            let (from, now) = (world.nodes[1].identity.control, world.now());
            world.nodes[0].mesh.on_datagram(&from, &payload, now);
            let turn = world.nodes[0].mesh.take_turn();
            prop_assert!(turn.actions.is_empty() && turn.save.is_none());
        }
    }
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
    assert!(after.epoch > before.epoch && after.public_key != before.public_key);
    assert!(
        matches!(world.nodes[0].answers.last(), Some(Ok(meshd::Reply::Rotated(key))) if key.epoch == after.epoch)
    );
    // Again at once is too early.
    world.nodes[0].mesh.rotate_key(78, now);
    world.settle(0);
    assert!(matches!(world.nodes[0].answers.last(), Some(Err(error)) if error.kind == ErrorKind::Conflict));
    world.run(60);
    assert_eq!(world.nodes[1].mesh.peers(world.now())[0].public_key, after.public_key);
    // A restart goes on with it.
    world.restart(0);
    world.run(60);
    assert_eq!(world.nodes[0].mesh.epoch(), Some(after.epoch));
    assert_eq!(world.nodes[0].mesh.published_key(), Some(after.public_key));
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
