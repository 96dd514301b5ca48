//! Arbitrary input.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn arbitrary_datagrams_change_nothing(payload in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut world = World::new(2);
        let _ = world.invite(0, Some(1)).unwrap();
        let (from, now) = (world.nodes[1].identity.control, world.now());
        world.nodes[0].mesh.handle_datagram(&from, &payload, now);
        let turn = world.nodes[0].mesh.poll_turn();
        prop_assert!(turn.actions.is_empty() && !turn.save);
    }
}
