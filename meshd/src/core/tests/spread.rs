//! How news reaches those whom it has missed.

use super::*;
use crate::core::rumors::Topic;
use crate::core::shares::AddressInBlock;

#[test]
fn who_delegates_addresses_twice_all_the_time_hides_nobody_else_who_does() {
    let mut world = World::new(1);
    world.invite(0, None).unwrap();
    let now = world.now();
    let member = world.nodes[0].member_mut();
    let chain = member.membership.chain.clone();
    let range = |number: u8| AddressRange::new([10, 42, 7, number].into(), 32).unwrap();
    member.note_conflict(&chain, range(0), NodeId([1; 32]), now);
    for number in 1..100 {
        member.note_conflict(&chain, range(number), NodeId([2; 32]), now);
    }
    let issuers: Vec<NodeId> = member.addresses.conflicts.iter().map(|conflict| conflict.issuer).collect();
    assert_eq!(issuers, [NodeId([1; 32]), NodeId([2; 32]), NodeId([2; 32])]);
}

/// Before members introduced themselves, those who did not know each other yet suspected each other by the hundred when
/// many joined at once, and all had to tell each other the answers.
#[test]
fn one_that_does_not_know_who_asks_is_told() {
    let mut world = World::network(&[0, 0]);
    let (stranger, there) = (world.nodes[2].identity.control, world.node(2));
    world.nodes[1].member_mut().members.remove(&there);
    let ping = Message::Ping(1, Gossip::default());
    world.give(&stranger, 1, &ping);
    assert!(world.nodes[1].mesh.poll_turn().actions.is_empty());
    let own = world.nodes[2].member().publication.record.clone().unwrap();
    let gossip = Gossip { entries: Vec::new(), items: vec![Item::Record(Box::new(own))] };
    world.give(&stranger, 1, &Message::Ping(2, gossip));
    let acks = world.nodes[1].mesh.poll_turn().actions.into_iter().filter(|action| match action {
        Action::Send { to, message, .. } => {
            let message = Datagram::from_bytes(message).unwrap().message;
            *to == stranger && matches!(message, Message::Ack(2, _))
        }
        _ => false,
    });
    assert_eq!(acks.count(), 1);
    // And by one's own probe: the first ping goes unanswered.
    world.nodes[1].member_mut().members.remove(&there);
    world.down = vec![0];
    world.run(120);
    assert_eq!(world.liveness(1, 2), Some(meshd::Liveness::Present));
}

#[test]
fn who_was_away_while_others_joined_and_one_was_revoked_catches_up_within_a_minute() {
    let mut world = World::new(7);
    let code = world.invite(0, None).unwrap();
    for index in 1..=3 {
        world.join(index, code.expose()).unwrap();
    }
    world.run(60);
    world.down = vec![2];
    for index in 4..7 {
        world.join(index, code.expose()).unwrap();
    }
    let revoked = world.node(3).to_string();
    assert!(world.command(0, |mesh, _| mesh.revoke(1, &revoked)).is_ok());
    world.run(60);
    world.down.clear();
    world.restart(2);
    world.run(60);
    assert_eq!(world.members(2), 6);
    assert!((4..7).all(|there| world.has_peer(2, there)) && !world.has_peer(2, 3));
}

/// At 20 % loss rumors miss one in a hundred, who then waited for comparisons, of which every third finds what it should.
#[test]
fn whom_rumors_have_missed_finds_what_was_news_in_the_next_message() {
    let mut world = World::network(&[0, 0, 0]);
    // Of the joins, too.
    world.run(240);
    let gossip_in_answer = |world: &mut World, message: &Message| {
        let from = world.nodes[2].identity.control;
        world.give(&from, 0, message);
        let actions = world.nodes[0].mesh.poll_turn().actions;
        let messages = actions.into_iter().filter_map(|action| match action {
            Action::Send { to, message, .. } if to == from => Datagram::from_bytes(&message).ok(),
            _ => None,
        });
        // It is told besides that others have not reached it.
        let answer = messages.map(|datagram| datagram.message).find(|message| message.kind() != "news");
        answer.unwrap().gossip().cloned().unwrap()
    };
    let ping = Message::Ping(1, Gossip::default());
    assert_eq!(gossip_in_answer(&mut world, &ping), Gossip::default());
    world.down.push(2);
    let now = world.now();
    world.nodes[1].mesh.reconfigure(Settings { name: "renamed".parse().unwrap(), ..settings(2) }, now);
    world.settle(1);
    world.command(3, |mesh, _| mesh.leave(1)).unwrap();
    world.run(120);
    // Nobody tells it any more.
    assert_eq!(world.nodes[0].member().rumors.poll_timeout(), None);
    let renamed = world.nodes[0].member().members.index().get(&Position::member(world.node(1))).unwrap();
    let different = Content::Fingerprint { count: 4, sum: [1; 16] };
    for message in
        [ping.clone(), Message::Compare(vec![Range { end: None, content: different }], Gossip::default())]
    {
        let gossip = gossip_in_answer(&mut world, &message);
        let ending = world.nodes[0].member().members.endings().iter().next().unwrap().id();
        let ending = world.nodes[0].member().members.index().get(&Position::ending(ending)).unwrap();
        assert_eq!((gossip.entries.len(), gossip.items.len()), (2, 0));
        assert!(gossip.entries.contains(&renamed) && gossip.entries.contains(&ending));
    }
    world.run(120);
    assert_eq!(gossip_in_answer(&mut world, &ping), Gossip::default());
}

/// Routers that have not agreed on a session yet bear little, and i2pd takes five datagrams a second (`first_contacts`).
#[test]
fn to_members_that_do_not_answer_few_datagrams_go_and_one_by_one() {
    let mut world = World::network(&[0, 0]);
    let mut now = world.clock(0);
    let mesh = &mut world.nodes[0].mesh;
    mesh.handle_control_session(now);
    let (start, mut last, mut total) = (now.monotonic, HashMap::<_, Duration>::new(), 0);
    while now.monotonic < start + Duration::from_secs(60) {
        mesh.handle_timeout(now);
        for action in mesh.poll_turn().actions {
            let Action::Send { to, .. } = action else { continue };
            let before = last.insert(to.hash(), now.monotonic);
            let distance = before.map(|before| now.monotonic - before);
            assert!(distance.is_none_or(|distance| distance >= Duration::from_millis(250)), "{distance:?}");
            total += 1;
        }
        let wait = mesh.poll_timeout().unwrap().saturating_sub(now.monotonic).max(Duration::from_millis(1));
        now = Now { monotonic: now.monotonic + wait, unix: now.unix + wait };
    }
    // Five announcements of two to both, comparisons and pings: one a second.
    assert_eq!(last.len(), 2);
    assert!((20..60).contains(&total), "{total}");
}

/// The members whose records a node sends as news.
fn told_records(world: &mut World, index: usize) -> Vec<NodeId> {
    let actions = world.nodes[index].mesh.poll_turn().actions;
    let messages = actions.into_iter().filter_map(|action| match action {
        Action::Send { message, .. } => Some(Datagram::from_bytes(&message).unwrap().message),
        _ => None,
    });
    let items =
        messages.filter(|message| message.kind() == "news").filter_map(|message| message.gossip().cloned());
    let records = items.flat_map(|gossip| gossip.items).filter_map(|item| match item {
        Item::Record(record) => Some(record.value.node),
        _ => None,
    });
    records.collect()
}

/// The place of a member, of whose address block a node has heard very much.
fn make_noise(world: &mut World, here: usize, of: NodeId) -> AddressInBlock {
    let now = world.time;
    world.nodes[here].act(|member, _| {
        let other = member.members.get(&of).unwrap();
        let (block, address) = (member.members.share_of(other), other.record.ipv4().to_bits());
        let place = AddressInBlock { block, address };
        (0..100).for_each(|_| _ = member.rumors.is_record_passed_on(place, now));
        place
    })
}

/// Blocks that state much used up the bytes before a join was told.
#[test]
fn while_bytes_are_short_only_quiet_blocks_are_told_of() {
    let mut world = World::network(&[0, 0, 0]);
    world.run(240);
    let (noisy, quiet) = (world.node(1), world.node(2));
    let noise = make_noise(&mut world, 0, noisy);
    let now = world.time;
    world.nodes[0].act(|member, cx| {
        cx.budget.charge_comparison(40_000, now);
        cx.budget.charge(10_000, now);
        assert!(cx.budget.allows(now) && !cx.budget.has_reserve(now));
        let block = member.members.share_of(member.members.get(&quiet).unwrap());
        member.rumors.add(Topic::Record(noisy), Some(noise.block), now);
        member.rumors.add(Topic::Record(quiet), Some(block), now);
    });
    let mut told = |seconds| {
        world.time += Duration::from_secs(seconds);
        let now = world.now();
        world.nodes[0].mesh.handle_timeout(now);
        told_records(&mut world, 0)
    };
    let first = told(1);
    assert!(first.contains(&quiet) && !first.contains(&noisy), "{first:?}");
    assert!((0..30).any(|_| told(1).contains(&noisy)));
}

/// What others want of blocks that state much left no bytes for the answer to one who wants a join.
#[test]
fn what_quiet_blocks_have_stated_is_sent_to_one_that_has_had_its_share() {
    let mut world = World::network(&[0, 0, 0]);
    world.run(240);
    let (noisy, quiet, from) = (world.node(1), world.node(2), world.nodes[3].identity.control);
    make_noise(&mut world, 0, noisy);
    let now = world.time;
    world.nodes[0].act(|member, cx| {
        let asker = member.asker(&from.hash());
        while cx.budget.answers(&asker, false, 1000, now) {}
    });
    let want = |node| Message::Want(vec![Entry { node, record: 0, liveness: 0, ended: false }]);
    world.give(&from, 0, &want(noisy));
    world.give(&from, 0, &want(quiet));
    assert_eq!(told_records(&mut world, 0), [quiet]);
}

/// Who says that it knows many more makes a node compare more often only while that is new: else members that lie would
/// use up what it has to say by itself.
#[test]
fn only_one_that_is_new_catches_up_because_others_say_so() {
    let mut world = World::network(&[0, 0]);
    let mut compared_in_a_minute = || {
        let (mut now, mut compared) = (world.clock(0), 0);
        let liar = world.nodes[1].identity.control;
        for _ in 0..60 {
            let content = Content::Fingerprint { count: u16::MAX, sum: [1; 16] };
            let boundary = Range { end: Some(Position::ENDINGS), content };
            let lie = Message::Compare(vec![boundary], Gossip::default());
            world.give(&liar, 0, &lie);
            now = Now {
                monotonic: now.monotonic + Duration::from_secs(1),
                unix: now.unix + Duration::from_secs(1),
            };
            world.time += Duration::from_secs(1);
            world.nodes[0].mesh.handle_timeout(now);
            for action in world.nodes[0].mesh.poll_turn().actions {
                let Action::Send { to, message, .. } = action else { continue };
                let compares = Datagram::from_bytes(&message).unwrap().message.kind() == "compare";
                // To the liar answers go too.
                compared += usize::from(compares && to == world.nodes[2].identity.control);
            }
        }
        world.run(40 * 60);
        compared
    };
    let (new, old) = (compared_in_a_minute(), compared_in_a_minute());
    assert!(new >= 12 && old <= new / 2, "{new} and {old}");
}
