//! What followers of the events are told.

use super::*;

#[test]
fn followers_are_told_how_a_node_enters_and_leaves() {
    let mut world = World::new(2);
    let code = world.invite(0, Some(1)).unwrap();
    assert_eq!(world.told(0), ["joined", "invite"]);
    world.join(1, code.expose()).unwrap();
    assert_eq!(world.told(1), ["LookingUp", "Asking", "Admitted", "joined", "0 added: node-1"]);
    world.run(60);
    assert_eq!(world.told(0), ["invite used by 1", "1 added: node-2"]);
    assert_eq!(world.told(1), [""; 0]);

    let id = world.nodes[0].mesh.invite_reports(world.now())[0].id.clone();
    for _ in 0..2 {
        world.command(0, |mesh, now| mesh.revoke_invite(0, &id, false, now)).unwrap();
    }
    world.command(0, |mesh, now| mesh.rotate_key(0, now)).unwrap();
    world.run(1);
    assert_eq!(world.told(0), ["invite revoked", "key rotated"]);
    world.restart(0);
    world.run(60);
    assert_eq!(world.told(0), [""; 0], "what was known before is no news");
    assert_eq!(world.told(1), ["0 changed: node-1"], "its new key, once");

    world.command(1, |mesh, _| mesh.leave(0)).unwrap();
    world.run(1);
    assert_eq!(world.told(0), ["1 removed"]);
    assert_eq!(world.told(1), ["left, revoked false"]);
}

#[test]
fn followers_are_told_of_members_and_bans() {
    let mut world = World::network(&[0, 0]);
    (0..3).for_each(|index| drop(world.told(index)));
    let now = world.now();
    world.nodes[1].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(2) }, now);
    world.run(60);
    assert_eq!(world.told(0), ["1 changed: renamed"]);

    world.down = vec![1];
    world.run(600);
    assert_eq!(world.told(0), ["1 Suspected", "1 Unreachable"]);
    world.down.clear();
    world.run(120);
    assert_eq!(world.told(0), ["1 Present"]);
    assert!(world.nodes[1].mesh.begin_shutdown());
    world.settle(1);
    world.run(1);
    assert_eq!(world.told(0), ["1 Away"]);
    let [counts, of_the_other] = [0, 1].map(|index| world.nodes[index].mesh.message_counts());
    assert!(counts.reconnections > 0 && of_the_other.departures_sent > 0, "{counts:?} {of_the_other:?}");
    assert_eq!((counts.returns, counts.departures_received, counts.departures_sent), (1, 1, 0));

    let node = world.node(1).to_string();
    let ban = |mesh: &mut Mesh, now| mesh.add_ban(0, &node, String::new(), Some(30), now);
    world.command(0, ban).unwrap();
    world.command(0, |mesh, _| mesh.remove_ban(0, &node)).unwrap();
    world.command(0, ban).unwrap();
    world.run(60);
    let banned = ["1 banned: Manual renamed", "1 not banned renamed"];
    assert_eq!(world.told(0), [banned, banned].concat());
    world.command(0, |mesh, _| mesh.revoke(0, &node)).unwrap();
    world.run(60);
    assert_eq!(world.told(0), ["1 removed"]);
    assert_eq!(world.told(2).last().map(String::as_str), Some("1 removed"));
    assert_eq!(world.told(1).last().map(String::as_str), Some("left, revoked true"));
}
