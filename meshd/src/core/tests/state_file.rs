//! The state file.

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
    assert_eq!((state.invites.len(), state.members.len()), (1, 2));
    assert_eq!(State::from_bytes(&state.to_bytes(), &state.node), Ok(state.clone()));
    let other = identity(9).1.node;
    assert!(matches!(State::from_bytes(&state.to_bytes(), &other), Err(StateError::OtherNode { .. })));
}

/// A file of each version from the first that is read on, as that version has written it.
const STORED: [&[u8]; 1] = [include_bytes!("state-5.bin")];

#[test]
fn the_stored_examples_are_read() {
    for bytes in STORED {
        let state = State::from_bytes(bytes, &identity(1).1.node).unwrap();
        assert_eq!((state.invites.len(), state.members.len(), state.delegations.len()), (1, 2, 2));
        assert_eq!(state.membership.as_ref().unwrap().charter.value.founder, state.node);
        // What was read is written in the present version, and read again.
        assert_eq!(State::from_bytes(&state.to_bytes(), &state.node), Ok(state));
    }
    let newest = STORED[STORED.len() - 1];
    let state = State::from_bytes(newest, &identity(1).1.node).unwrap();
    assert_eq!(
        state.to_bytes(),
        newest,
        "the format has changed: give it a new version, and store an example of it"
    );
}

#[test]
#[ignore = "writes the example of a new version, which `the_stored_examples_are_read` is then to name"]
fn write_the_example_of_a_new_version() {
    let bytes = full_state().to_bytes();
    let name = format!("{}/src/core/tests/state-{}.bin", env!("CARGO_MANIFEST_DIR"), bytes[12]);
    std::fs::write(name, bytes).unwrap();
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
fn a_membership_that_does_not_verify_is_an_error() {
    let state = full_state();
    let mut forged = state.clone();
    forged.membership.as_mut().unwrap().charter.signature = Signature([1; 64]);
    assert!(matches!(State::from_bytes(&forged.to_bytes(), &state.node), Err(StateError::Damaged(_))));
}

#[test]
fn an_earlier_version_says_what_to_do() {
    let state = full_state();
    let mut bytes = state.to_bytes();
    for version in [2, 3, 4] {
        bytes[12] = version;
        let error = State::from_bytes(&bytes, &state.node).unwrap_err();
        assert_eq!(error, StateError::Outdated(version));
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}

#[test]
fn a_later_version_is_named() {
    let state = full_state();
    let mut bytes = state.to_bytes();
    bytes[12] = 9;
    assert_eq!(State::from_bytes(&bytes, &state.node), Err(StateError::Version(9)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let node = identity(1).1.node;
        let _ = State::from_bytes(&bytes, &node);
    }
}
