//! Two and more data paths that talk with each other in memory.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use i2plan_ipc::api::tund;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::NetworkId;
use i2plan_proto::path_report::PathReport;
use proptest::prelude::*;

use super::ip::tests::udp;
use super::*;

/// The member with number `seed`: everything about it follows from that.
pub(super) fn peer(seed: u8) -> PeerConfig {
    let (ipv4, ipv6) = member(seed);
    PeerConfig {
        node: NodeId([seed; 32]),
        public_key: keys(seed).public.to_bytes(),
        preshared_key: None,
        endpoint: Some(destination(seed).into()),
        allowed_ips: AllowedIps::Member(ipv4, ipv6),
        keepalive: 0,
        takes_reports: false,
    }
}

/// Its addresses.
pub(super) fn member(seed: u8) -> (Ipv4Addr, Ipv6Addr) {
    ([10, 42, 0, seed].into(), [0xfd00, 0, 0, 0, 0, 0, 0, seed.into()].into())
}

pub(super) fn destination(seed: u8) -> Destination {
    Destination { padding: [seed; 32], signing_key: [!seed; 32] }
}

pub(super) fn keys(seed: u8) -> Keys {
    Keys::new(StaticSecret::from([seed; 32]))
}

pub(super) fn session() -> SessionId {
    SessionId::new("s".to_owned()).unwrap()
}

pub(super) fn subnets(seed: u8) -> Subnets {
    let (ipv4, ipv6) = member(seed);
    Subnets::of(&tund::Interface {
        name: "i2plan0".to_owned(),
        network: NetworkId([0; 32]),
        ipv4,
        ipv4_prefix: 16,
        ipv6,
        ipv6_prefix: 64,
        mtu: 1280,
    })
}

fn v4(seed: u8) -> IpAddr {
    member(seed).0.into()
}

fn v6(seed: u8) -> IpAddr {
    member(seed).1.into()
}

/// A node with a session, whose clock the test moves.
struct Node {
    seed: u8,
    tunnel: Tunnel,
    now: Instant,
}

impl Node {
    fn new(seed: u8, peers: &[u8]) -> Self {
        let now = Instant::now();
        let mut tunnel = Tunnel::new(StaticSecret::from([seed; 32]), Some(subnets(seed)), now);
        tunnel.set_peers(peers.iter().map(|seed| peer(*seed)).collect(), now).unwrap();
        tunnel.set_session(session(), now);
        Self { seed, tunnel, now }
    }

    /// Everything that it would send, paced: for whom, and the WireGuard message.
    fn sends(&mut self) -> Vec<(Destination, Vec<u8>)> {
        let mut sent = Vec::new();
        loop {
            self.now += Duration::from_millis(1);
            self.tunnel.handle_timeout(self.now);
            let Some(datagram) = self.tunnel.poll_datagram(self.now) else { break };
            let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
            let line = str::from_utf8(&datagram[..end]).unwrap();
            let destination = line.strip_prefix("3.0 s ").unwrap();
            let bytes = i2plan_proto::destination::base64().decode(destination.as_bytes()).unwrap();
            sent.push((Destination::from_i2p(&bytes).unwrap(), datagram[end + 1..].to_vec()));
        }
        sent
    }

    fn takes(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.tunnel.handle_datagram(message, self.now).map(<[u8]>::to_vec)
    }

    fn queues(&mut self, packet: &[u8]) {
        assert_eq!(self.tunnel.handle_packet(packet, self.now), None);
    }

    /// None if there is nothing to tell.
    fn find_stats(&self, seed: u8) -> Option<PeerStats> {
        let stats = self.tunnel.peer_stats(self.now);
        stats.into_iter().find(|stats| stats.node == peer(seed).node)
    }

    fn stats_of(&self, seed: u8) -> PeerStats {
        self.find_stats(seed).unwrap()
    }
}

/// What came out at either end of a conversation, and every message of it.
#[derive(Default)]
struct Talk {
    at_one: Vec<Vec<u8>>,
    at_two: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
}

/// Carries messages between two nodes until both are silent.
fn converse(one: &mut Node, two: &mut Node) -> Talk {
    let mut talk = Talk::default();
    loop {
        let (there, back) = (one.sends(), two.sends());
        if there.is_empty() && back.is_empty() {
            return talk;
        }
        for (destination, message) in there {
            assert_eq!(destination, self::destination(two.seed));
            talk.at_two.extend(two.takes(&message));
            talk.messages.push(message);
        }
        for (destination, message) in back {
            assert_eq!(destination, self::destination(one.seed));
            talk.at_one.extend(one.takes(&message));
            talk.messages.push(message);
        }
    }
}

fn connected() -> (Node, Node) {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
    one.queues(&udp(v4(1), v4(2)));
    converse(&mut one, &mut two);
    (one, two)
}

/// One data message from `one` to `two`.
fn data(one: &mut Node, packet: &[u8]) -> Vec<u8> {
    one.queues(packet);
    let mut sent = one.sends();
    assert_eq!(sent.len(), 1);
    sent.remove(0).1
}

#[test]
fn packets_cross_in_both_families_and_directions() {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
    let there = [udp(v4(1), v4(2)), udp(v6(1), v6(2))];
    for packet in &there {
        one.queues(packet);
    }
    let Talk { at_two, messages, .. } = converse(&mut one, &mut two);
    assert_eq!(at_two, there);
    // Initiation, response, the keepalive that confirms, two packets.
    assert_eq!(messages.iter().map(|message| message[0]).collect::<Vec<_>>(), [1, 2, 4, 4, 4]);

    let back = [udp(v4(2), v4(1)), udp(v6(2), v6(1))];
    for packet in &back {
        two.queues(packet);
    }
    assert_eq!(converse(&mut one, &mut two).at_one, back);

    let [first, second] = [&one, &two].map(|node| node.tunnel.handshakes());
    assert_eq!((first.initiated, first.received, first.succeeded, first.durations.count), (1, 0, 1, 1));
    assert_eq!((second.initiated, second.received, second.succeeded, second.durations.count), (0, 1, 1, 1));
    assert_eq!((first.failed, second.failed), (0, 0));
    let (one, two) = (one.stats_of(2), two.stats_of(1));
    assert_eq!((one.tx_packets, one.rx_packets), (4, 3));
    assert_eq!((one.tx_packets, one.rx_packets), (two.rx_packets, two.tx_packets));
    assert_eq!((one.tx_bytes, one.rx_bytes), (two.rx_bytes, two.tx_bytes));
    assert_eq!((one.last_handshake, two.last_handshake), (Some(0), Some(0)));
    assert_eq!((one.rx_drops, two.rx_drops), (0, 0));
}

#[test]
fn a_tunnel_that_is_kept_open_opens_unasked_and_stays_alive() {
    let (mut one, mut two) = (Node::new(1, &[]), Node::new(2, &[1]));
    one.tunnel.set_peers(vec![PeerConfig { keepalive: 25, ..peer(2) }], one.now).unwrap();
    let Talk { messages, .. } = converse(&mut one, &mut two);
    assert_eq!(messages.len(), 3);
    one.now += Duration::from_secs(24);
    assert_eq!(one.sends().len(), 0);
    one.now += Duration::from_secs(1);
    assert_eq!(one.sends().len(), 1);
}

#[test]
fn the_side_that_began_an_idle_session_renews_it() {
    let kept_open = |seed| vec![PeerConfig { keepalive: 25, ..peer(seed) }];
    let (mut one, mut two) = (Node::new(1, &[]), Node::new(2, &[]));
    one.tunnel.set_peers(kept_open(2), one.now).unwrap();
    two.now += Duration::from_secs(1);
    for (_, initiation) in one.sends() {
        two.tunnel.set_peers(kept_open(1), two.now).unwrap();
        two.takes(&initiation);
    }
    converse(&mut one, &mut two);
    for (node, kinds) in [(&mut one, vec![4, 1]), (&mut two, vec![4])] {
        node.now += Duration::from_secs(125);
        assert_eq!(node.sends().iter().map(|(_, message)| message[0]).collect::<Vec<_>>(), kinds);
    }
}

/// Two nodes that have just learned of each other, with packets for each other; the first is to begin.
fn acquainted() -> (Node, Node) {
    let (first, second) = if peer(1).public_key < peer(2).public_key { (1, 2) } else { (2, 1) };
    let (mut one, mut two) = (Node::new(first, &[]), Node::new(second, &[]));
    for (node, other) in [(&mut one, second), (&mut two, first)] {
        let now = node.now;
        node.tunnel.set_peers(vec![PeerConfig { keepalive: 25, ..peer(other) }], now).unwrap();
        node.queues(&udp(v4(node.seed), v4(other)));
    }
    (one, two)
}

#[test]
fn one_side_begins_though_both_could() {
    let (mut one, mut two) = acquainted();
    assert_eq!(two.sends().len(), 0);
    let Talk { at_one, at_two, messages } = converse(&mut one, &mut two);
    assert_eq!((at_one.len(), at_two.len()), (1, 1));
    assert_eq!(messages.iter().filter(|message| message[0] == 1).count(), 1);
}

#[test]
fn a_node_that_has_lost_its_interface_and_kept_its_session_waits_for_nobody() {
    let (first, second) = if peer(1).public_key < peer(2).public_key { (1, 2) } else { (2, 1) };
    for is_known in [false, true] {
        let mut node = Node::new(second, &[]);
        if is_known {
            node.tunnel.begin_with_newcomers(node.now);
        }
        node.tunnel.set_peers(vec![PeerConfig { keepalive: 25, ..peer(first) }], node.now).unwrap();
        assert_eq!(node.sends().len(), usize::from(is_known));
        // Whom it learns of later it lets begin, as others do.
        node.now += YIELD;
        node.sends();
        let later = (3..40).find(|seed| peer(*seed).public_key < peer(second).public_key).unwrap();
        let more = vec![peer(first), PeerConfig { keepalive: 25, ..peer(later) }];
        node.tunnel.set_peers(more, node.now).unwrap();
        assert!(node.sends().iter().all(|(to, _)| *to != destination(later)));
    }
}

#[test]
fn a_side_that_was_to_wait_begins_when_nothing_comes() {
    let (mut one, mut two) = acquainted();
    one.sends();
    // What waited meanwhile is not wanted any more.
    two.now += YIELD;
    two.queues(&udp(v4(two.seed), v4(one.seed)));
    let Talk { at_one, at_two, .. } = converse(&mut one, &mut two);
    assert_eq!((at_one.len(), at_two.len()), (1, 1));
}

#[test]
fn a_handshake_that_comes_before_its_sender_is_known_is_answered_when_it_is() {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[]));
    one.queues(&udp(v4(1), v4(2)));
    assert_eq!(converse(&mut one, &mut two).at_two.len(), 0);
    two.tunnel.set_peers(vec![peer(1)], two.now).unwrap();
    let Talk { at_two, messages, .. } = converse(&mut one, &mut two);
    assert_eq!((at_two.len(), messages[0][0]), (1, 2));
}

/// A node that knows these members as being there, and has tunnels with so many at once.
fn limited(seed: u8, peers: impl Iterator<Item = u8>, tunnels: usize) -> Node {
    let mut node = Node::new(seed, &[]);
    node.tunnel.set_limit(tunnels, node.now);
    let peers = peers.map(|seed| PeerConfig { keepalive: 25, ..peer(seed) }).collect();
    node.tunnel.set_peers(peers, node.now).unwrap();
    node.now += YIELD;
    node
}

/// With how many peers a node has the state of a tunnel.
fn linked(node: &Node) -> usize {
    node.tunnel.peers.iter().filter(|peer| peer.is_linked()).count()
}

#[test]
fn tunnels_with_all_are_kept_while_there_is_room_and_with_none_beyond() {
    let mut node = limited(100, 1..=5, 5);
    assert_eq!((node.sends().len(), linked(&node)), (5, 5));
    let mut node = limited(100, 1..=6, 5);
    node.now += Duration::from_secs(1000);
    assert_eq!((node.sends().len(), linked(&node)), (0, 0));
    // A packet opens one.
    node.queues(&udp(v4(100), v4(6)));
    assert_eq!((node.sends().len(), linked(&node)), (1, 1));
    // Members that are not there do not count.
    let mut peers: Vec<_> = (1..=6).map(|seed| PeerConfig { keepalive: 25, ..peer(seed) }).collect();
    peers[0].keepalive = 0;
    node.tunnel.set_peers(peers, node.now).unwrap();
    assert_eq!(node.sends().len(), 4);
}

#[test]
fn all_members_are_reached_through_few_tunnels() {
    let mut node = limited(100, 1..=12, 3);
    for round in 0..3 {
        for seed in 1..=12 {
            let mut other = limited(seed, [100].into_iter(), 50);
            node.queues(&udp(v4(100), v4(seed)));
            let Talk { at_two, .. } = converse(&mut node, &mut other);
            assert_eq!(at_two.len(), 1, "member {seed} in round {round}");
            assert!(linked(&node) <= 6);
            node.now += Duration::from_secs(31);
        }
    }
}

/// Addresses of one block are what one member can have invented.
#[test]
fn a_busy_block_of_addresses_leaves_a_tunnel_to_another() {
    let mut node = limited(100, (16..32).chain([40]), 4);
    let busy = |node: &mut Node| {
        for seed in 16..32 {
            node.queues(&udp(v4(100), v4(seed)));
        }
    };
    busy(&mut node);
    assert_eq!(node.sends().len(), 4);
    let mut other = limited(40, [100].into_iter(), 50);
    for second in 0..300 {
        busy(&mut node);
        node.queues(&udp(v4(100), v4(40)));
        let mut arrived = 0;
        for _ in 0..3 {
            for (destination, message) in node.sends() {
                // The members of the block do not answer.
                if destination == self::destination(40) {
                    arrived += usize::from(other.takes(&message).is_some());
                }
            }
            for (_, message) in other.sends() {
                node.takes(&message);
            }
        }
        assert_eq!(arrived, 1, "after {second} s");
        node.now += Duration::from_secs(1);
        other.now += Duration::from_secs(1);
    }
}

#[test]
fn a_tunnel_that_gives_way_goes_on_without_another_handshake() {
    let mut node = limited(100, 1..=3, 1);
    let mut one = limited(1, [100].into_iter(), 50);
    assert_eq!(exchange(&mut node, &mut one), 2);
    node.now += Duration::from_secs(31);
    node.queues(&udp(v4(100), v4(2)));
    assert_eq!(node.sends().len(), 1, "the beginning of a handshake with the other");
    // Neither keepalives nor handshakes go to the first any more, but what it sends arrives, and it is answered.
    one.queues(&udp(v4(1), v4(100)));
    for (_, message) in one.sends() {
        assert!(node.takes(&message).is_some());
    }
    node.queues(&udp(v4(100), v4(1)));
    let sent: Vec<u8> = node.sends().iter().map(|(_, message)| message[0]).collect();
    assert_eq!(sent, [4]);
}

#[test]
fn a_member_that_calls_waits_for_its_turn_and_is_called_back() {
    let mut node = limited(100, 1..=3, 1);
    let mut one = limited(1, [100].into_iter(), 50);
    let mut two = limited(2, [100].into_iter(), 50);
    assert_eq!(exchange(&mut node, &mut one), 2);
    two.queues(&udp(v4(2), v4(100)));
    let Talk { at_one, .. } = converse(&mut node, &mut two);
    assert_eq!((at_one.len(), node.tunnel.drops().no_tunnel), (0, 1));
    // The first is busy all the time; the second has said nothing more.
    for _ in 0..59 {
        pass(&mut node, &mut one, Duration::from_secs(1));
        assert_eq!(exchange(&mut node, &mut one), 2);
    }
    node.now += Duration::from_secs(2);
    two.now += Duration::from_secs(61);
    let called = node.sends();
    assert_eq!(called.iter().filter(|(to, message)| *to == destination(2) && message[0] == 1).count(), 1);
    for (to, message) in called {
        assert!(to == destination(1) || two.takes(&message).is_none());
    }
    assert_eq!(exchange(&mut node, &mut two), 2);
}

#[test]
fn a_handshake_in_anothers_name_takes_no_tunnel() {
    let mut node = limited(100, 1..=3, 1);
    let mut one = limited(1, [100].into_iter(), 50);
    assert_eq!(exchange(&mut node, &mut one), 2);
    node.now += Duration::from_secs(100);
    // Whoever knows the node's public key can write any static key into a handshake, but not prove that it is theirs.
    let mut forged = initiation_to(2, keys(100).public);
    let honest = forged.clone();
    forged[100] ^= 1;
    node.takes(&forged);
    node.sends();
    let has_two = |node: &Node| node.find_stats(2).is_some_and(|stats| stats.rx_packets > 0);
    assert!(!has_two(&node) && linked(&node) == 1);
    node.takes(&honest);
    assert!(has_two(&node));
}

#[test]
fn ten_thousand_members_cost_no_more_than_the_limit() {
    let mut node = limited(100, [].into_iter(), 50);
    let many = (0..MAX_PEERS).map(|number| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let address = u32::from_be_bytes([10, 42, 0, 0]) + 1000 + u32::try_from(number).unwrap();
        let ipv6 = u128::from(member(0).1) + u128::from(address);
        PeerConfig {
            node: NodeId(key),
            public_key: key,
            allowed_ips: AllowedIps::Member(address.into(), ipv6.into()),
            keepalive: 25,
            ..peer(1)
        }
    });
    let many: Vec<_> = many.collect();
    node.tunnel.set_peers(many.clone(), node.now).unwrap();
    for round in 0..30 {
        for peer in many.iter().skip(round).step_by(100) {
            let AllowedIps::Member(ipv4, _) = peer.allowed_ips else { unreachable!("a member") };
            node.queues(&udp(v4(100), ipv4.into()));
        }
        assert!(node.sends().len() <= 50);
        assert!(linked(&node) <= 50, "nobody answers, so nobody's session goes on");
        node.now += Duration::from_secs(40);
    }
}

#[test]
fn a_peer_that_does_not_answer_is_called_ever_later_whatever_is_sent_to_it() {
    let mut one = Node::new(1, &[2]);
    let began = one.now;
    let mut called = Vec::new();
    while one.now < began + Duration::from_secs(1800) {
        one.now += Duration::from_millis(500);
        one.queues(&udp(v4(1), v4(2)));
        called.extend(one.sends().iter().map(|_| one.now - began));
    }
    assert!((10..=14).contains(&called.len()), "{called:?}");
    let gaps: Vec<_> = called.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(301)), "{gaps:?}");
    assert!(gaps.windows(2).all(|pair| pair[1] + Duration::from_secs(70) > pair[0]), "{gaps:?}");
    assert_eq!(one.stats_of(2).unanswered as usize, called.len());
    let handshakes = one.tunnel.handshakes();
    assert_eq!((handshakes.initiated, handshakes.failed + 1), (called.len() as u64, called.len() as u64));
    // Whoever hears of it elsewhere says so, and it is called again at once.
    one.now += Duration::from_secs(10);
    one.tunnel.note_alive(&[peer(2).node, peer(7).node], one.now);
    one.queues(&udp(v4(1), v4(2)));
    assert_eq!(one.sends().len(), 1);
}

#[test]
fn a_peer_that_is_not_wanted_is_not_called() {
    let mut one = Node::new(1, &[2]);
    one.queues(&udp(v4(1), v4(2)));
    let mut called = 0;
    for _ in 0..1000 {
        one.now += Duration::from_secs(1);
        called += one.sends().len();
    }
    // For as long as WireGuard would: at 0, 2, 5, about 10, 20 and 41 s, and 81 s or not any more.
    assert!((5..=7).contains(&called), "{called}");
    assert_eq!(linked(&one), 0);
}

#[test]
fn a_peer_that_moves_before_there_is_a_session_is_approached_anew() {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
    one.queues(&udp(v4(1), v4(2)));
    assert_eq!(one.sends().len(), 1);
    // The initiation went to where the peer is not; the next goes out at once and not after five seconds.
    let elsewhere = Destination { padding: [9; 32], signing_key: [9; 32] };
    one.tunnel
        .set_peers(vec![PeerConfig { endpoint: Some(elsewhere.into()), keepalive: 25, ..peer(2) }], one.now)
        .unwrap();
    one.now += YIELD;
    let sent = one.sends();
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [elsewhere]);
    assert!(two.takes(&sent[0].1).is_none());
    assert_eq!(two.sends().len(), 1);
}

#[test]
fn strangers_are_not_answered() {
    let (mut stranger, mut two) = (Node::new(3, &[2]), Node::new(2, &[1]));
    stranger.queues(&udp(v4(3), v4(2)));
    let Talk { at_two, messages, .. } = converse(&mut stranger, &mut two);
    assert_eq!((at_two.len(), messages.len()), (0, 1));
    assert_eq!(two.tunnel.drops().unknown, 1);
}

#[test]
fn a_handshake_for_another_key_is_unknown() {
    let (mut one, mut three) = (Node::new(1, &[2]), Node::new(3, &[1]));
    one.queues(&udp(v4(1), v4(2)));
    let (_, message) = one.sends().remove(0);
    assert_eq!(three.takes(&message), None);
    assert_eq!(three.tunnel.drops().unknown, 1);
}

#[test]
fn replays_are_dropped() {
    let (mut one, mut two) = connected();
    let message = data(&mut one, &udp(v4(1), v4(2)));
    assert!(two.takes(&message).is_some());
    assert!(two.takes(&message).is_none());
    assert_eq!(two.stats_of(1).rx_drops, 1);
}

#[test]
fn a_replayed_handshake_is_dropped() {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
    one.queues(&udp(v4(1), v4(2)));
    let (_, initiation) = one.sends().remove(0);
    two.takes(&initiation);
    assert_eq!(two.sends().len(), 1);
    two.takes(&initiation);
    assert_eq!(two.sends().len(), 0);
    assert_eq!(two.stats_of(1).rx_drops, 1);
}

#[test]
fn a_peer_speaks_for_itself_and_to_this_node_alone() {
    let (mut one, mut two) = (Node::new(1, &[2, 9]), Node::new(2, &[1, 3]));
    one.queues(&udp(v4(1), v4(2)));
    converse(&mut one, &mut two);
    let before = two.stats_of(1);
    let spoofed = [udp(v4(3), v4(2)), udp(v6(3), v6(2)), udp(v4(2), v4(2))];
    for packet in &spoofed {
        // Its own interface lets it.
        let source = ip::endpoints(packet).unwrap().source;
        let seed = if [v4(3), v6(3)].contains(&source) { 3 } else { 2 };
        one.tunnel.subnets = Some(subnets(seed));
        let message = data(&mut one, packet);
        assert_eq!(two.takes(&message), None);
    }
    one.tunnel.subnets = Some(subnets(1));
    // To somebody behind this node: sent by a peer that routes another's address this way.
    let mut routed = peer(2);
    routed.allowed_ips = AllowedIps::Member([10, 42, 0, 77].into(), member(2).1);
    one.tunnel.set_peers(vec![routed], one.now).unwrap();
    let message = data(&mut one, &udp(v4(1), "10.42.0.77".parse().unwrap()));
    assert_eq!(two.takes(&message), None);

    let after = two.stats_of(1);
    assert_eq!((after.rx_drops - before.rx_drops, after.rx_packets - before.rx_packets), (4, 0));
}

#[test]
fn what_this_node_has_not_sent_does_not_go() {
    let (mut one, _two) = connected();
    let report = PathReport {
        epoch: 1,
        packets: 1,
        bytes: 100,
        index: 0,
        counter: 0,
        arrival: 0,
        held: 0,
        earlier: Vec::new(),
    };
    for packet in [udp(v4(3), v4(2)), udp(v6(3), v6(2)), udp(v4(2), v4(2)), report.to_packet()] {
        one.queues(&packet);
        assert_eq!(one.sends().len(), 0);
    }
    assert_eq!(one.tunnel.drops().no_route, 4);
}

/// One direction of a path: a bottleneck behind a queue of a second, then a delay.
struct Route {
    /// Bytes a second.
    rate: f64,
    free_at: Instant,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// How long the last datagram waited.
    wait: Duration,
}

impl Route {
    const DELAY: Duration = Duration::from_millis(150);

    fn new(rate: f64, now: Instant) -> Self {
        Self { rate, free_at: now, under_way: VecDeque::new(), wait: Duration::ZERO }
    }

    fn enter(&mut self, message: &[u8], now: Instant) {
        self.free_at = self.free_at.max(now);
        self.wait = self.free_at - now;
        if self.wait <= Duration::from_secs(1) {
            self.free_at += Duration::from_secs_f64(message.len() as f64 / self.rate);
            self.under_way.push_back((self.free_at + Self::DELAY, message.to_vec()));
        }
    }

    fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.under_way.pop_front_if(|(time, _)| *time <= now).map(|(_, message)| message)
    }
}

/// Two nodes over a path, the first of which has bulk data for the second.
struct Stretch {
    now: Instant,
    nodes: [Tunnel; 2],
    routes: [Route; 2],
    /// Messages that each has sent.
    sent: [usize; 2],
    /// Bytes of packets that came out at the second.
    arrived: usize,
}

impl Stretch {
    /// Each knows of the other whether it reports.
    fn new(reports: [bool; 2]) -> Self {
        let now = Instant::now();
        let nodes = [1, 2].map(|seed| {
            let mut tunnel = Tunnel::new(StaticSecret::from([seed; 32]), Some(subnets(seed)), now);
            let takes_reports = reports[usize::from(2 - seed)];
            tunnel.set_peers(vec![PeerConfig { takes_reports, ..peer(3 - seed) }], now).unwrap();
            tunnel.set_session(session(), now);
            tunnel
        });
        let routes = [Route::new(500_000.0, now), Route::new(500_000.0, now)];
        Self { now: now + YIELD, nodes, routes, sent: [0; 2], arrived: 0 }
    }

    /// Lets time pass, with so many bytes a second offered.
    fn run(&mut self, time: Duration, offered: f64) {
        let mut packet = udp(v4(1), v4(2));
        packet.resize(1280, 7);
        packet[2..4].copy_from_slice(&1280u16.to_be_bytes());
        let (until, mut due) = (self.now + time, 0.0);
        while self.now < until {
            self.now += Duration::from_millis(1);
            due += offered / 1000.0;
            while due > 1280.0 {
                due -= 1280.0;
                self.nodes[0].handle_packet(&packet, self.now);
            }
            for from in 0..2 {
                self.nodes[from].handle_timeout(self.now);
                while let Some(datagram) = self.nodes[from].poll_datagram(self.now) {
                    let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
                    self.routes[from].enter(&datagram[end + 1..], self.now);
                    self.sent[from] += 1;
                }
                while let Some(message) = self.routes[from].leave(self.now) {
                    let packet = self.nodes[1 - from].handle_datagram(&message, self.now);
                    self.arrived += packet.map_or(0, <[u8]>::len);
                }
            }
        }
    }

    /// Bytes a second that arrive meanwhile.
    fn goodput(&mut self, time: Duration, offered: f64) -> f64 {
        let before = self.arrived;
        self.run(time, offered);
        (self.arrived - before) as f64 / time.as_secs_f64()
    }
}

#[test]
fn a_tunnel_follows_the_path_to_a_peer_that_reports() {
    let seconds = Duration::from_secs;
    let mut stretch = Stretch::new([true; 2]);
    stretch.run(seconds(10), 1e6);
    let goodput = stretch.goodput(seconds(20), 1e6);
    assert!(goodput > 0.9 * 500_000.0, "{goodput}");
    assert!(stretch.routes[0].wait < Duration::from_millis(300), "{:?}", stretch.routes[0].wait);
    // A path that becomes slower has a short queue soon, and all of it is used.
    stretch.routes[0].rate = 125_000.0;
    stretch.run(seconds(5), 1e6);
    assert!(stretch.routes[0].wait < Duration::from_millis(300), "{:?}", stretch.routes[0].wait);
    let goodput = stretch.goodput(seconds(20), 1e6);
    assert!(goodput > 0.85 * 125_000.0, "{goodput}");
    // One that is interrupted is used again.
    stretch.routes[0].rate = 0.01;
    stretch.run(seconds(3), 1e6);
    stretch.routes[0] = Route::new(500_000.0, stretch.now);
    stretch.run(seconds(10), 1e6);
    let goodput = stretch.goodput(seconds(10), 1e6);
    assert!(goodput > 0.9 * 500_000.0, "{goodput}");
}

#[test]
fn reports_cost_little_and_nothing_when_idle() {
    let mut stretch = Stretch::new([true; 2]);
    stretch.run(Duration::from_secs(60), 400_000.0);
    let [there, back] = stretch.sent;
    assert!(there > 15_000 && (100..there / 16).contains(&back), "{there} {back}");
    stretch.run(Duration::from_secs(100), 0.0);
    let sent = stretch.sent;
    stretch.run(Duration::from_secs(600), 0.0);
    assert_eq!(stretch.sent, sent);
}

#[test]
fn a_peer_that_does_not_report_gets_none_and_all_that_the_common_rate_allows() {
    let mut stretch = Stretch::new([true, false]);
    stretch.routes = [1e7, 1e7].map(|rate| Route::new(rate, stretch.now));
    stretch.run(Duration::from_secs(1), 100_000.0);
    let goodput = stretch.goodput(Duration::from_secs(5), 4e6);
    assert!(goodput > 3.5e6, "{goodput}");
    // What the second reports is for nobody.
    let stats = &stretch.nodes[0].peer_stats(stretch.now)[0];
    assert!(stats.rx_drops > 10, "{stats:?}");
    let mut stretch = Stretch::new([false, true]);
    stretch.run(Duration::from_secs(5), 100_000.0);
    // One that is said to report and does not is sent little, but never nothing.
    assert!(
        (50_000..300_000).contains(&stretch.arrived) && stretch.sent[1] < 5,
        "{} {:?}",
        stretch.arrived,
        stretch.sent
    );
}

#[test]
fn damage_is_dropped() {
    let (mut one, mut two) = connected();
    let mut message = data(&mut one, &udp(v4(1), v4(2)));
    *message.last_mut().unwrap() ^= 1;
    assert_eq!(two.takes(&message), None);
    assert_eq!(two.stats_of(1).rx_drops, 1);
    // A session that does not exist, of a peer that does.
    message[4] ^= 0x55;
    assert_eq!(two.takes(&message), None);
    assert_eq!(two.tunnel.drops().unknown, 1);
}

#[test]
fn peers_that_stay_the_same_keep_their_sessions() {
    let (mut one, mut two) = connected();
    let moved = PeerConfig { endpoint: peer(8).endpoint, ..peer(2) };
    one.tunnel.set_peers(vec![peer(3), moved], one.now).unwrap();
    one.queues(&udp(v4(1), v4(2)));
    let (destination, message) = one.sends().remove(0);
    assert_eq!(destination, self::destination(8));
    assert!(two.takes(&message).is_some(), "no new handshake");
}

/// A node's keys and how its peers know it, in an epoch.
fn rotate(node: &mut Node, epoch: u8) {
    node.tunnel.rotate(StaticSecret::from([node.seed ^ epoch; 32]), node.now);
}

fn hears_of(node: &mut Node, seed: u8, epoch: u8) {
    let public_key = keys(seed ^ epoch).public.to_bytes();
    node.tunnel.set_peers(vec![PeerConfig { public_key, keepalive: 25, ..peer(seed) }], node.now).unwrap();
}

/// Has packets wait from `one` to `two`, and lets time pass for both, with what they send each other on the way. Returns
/// how many of them arrive.
fn arrive(one: &mut Node, two: &mut Node, packets: usize, time: Duration) -> usize {
    for _ in 0..packets {
        one.queues(&udp(v4(one.seed), v4(two.seed)));
    }
    let (mut arrived, until) = (0, one.now + time);
    while one.now < until {
        let (there, back) = (one.sends(), two.sends());
        arrived += there.iter().filter(|(_, message)| two.takes(message).is_some()).count();
        for (_, message) in back {
            one.takes(&message);
        }
        two.now = one.now;
    }
    arrived
}

/// A peer as it is known when it has another SAM session, under this destination.
fn elsewhere(seed: u8, destination: u8) -> Vec<PeerConfig> {
    vec![PeerConfig { endpoint: peer(destination).endpoint, keepalive: 25, ..peer(seed) }]
}

#[test]
fn another_session_carries_little_until_the_peer_answers_through_it() {
    let (mut one, mut two) = connected();
    assert_eq!(arrive(&mut one, &mut two, 50, Duration::from_millis(100)), 50);
    one.tunnel.set_session(session(), one.now);
    for _ in 0..50 {
        one.queues(&udp(v4(1), v4(2)));
    }
    assert_eq!(one.sends().len(), 1, "the rest waits");
    // Nobody answers: some still go in every second.
    let silent = arrive(&mut one, &mut two, 0, Duration::from_secs(2));
    assert!((6..=9).contains(&silent), "{silent}");
    // What still comes through the session before is no answer.
    two.queues(&udp(v4(2), v4(1)));
    for (_, message) in two.sends() {
        assert!(one.tunnel.handle_late_datagram(&message, one.now).is_some());
    }
    assert!(arrive(&mut one, &mut two, 20, Duration::from_millis(100)) <= 1);
    two.queues(&udp(v4(2), v4(1)));
    assert!(arrive(&mut one, &mut two, 20, Duration::from_millis(100)) > 20);
}

#[test]
fn a_handshake_opens_a_session_to_all_that_waits() {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
    assert_eq!(arrive(&mut one, &mut two, 50, Duration::from_millis(100)), 50);
    // The other has had its answer too.
    assert_eq!(arrive(&mut two, &mut one, 50, Duration::from_millis(100)), 50);
}

#[test]
fn a_peer_elsewhere_gets_little_until_it_answers_and_is_greeted() {
    let (mut one, mut two) = connected();
    two.tunnel.set_session(session(), two.now);
    one.tunnel.set_peers(elsewhere(2, 8), one.now).unwrap();
    one.now += TICK;
    let greeting = one.sends();
    assert_eq!(greeting.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [destination(8)]);
    // The other, which has not sent anything yet, sends packets at last: with the greeting as an answer all go.
    assert_eq!(two.sends().len(), 0);
    two.queues(&udp(v4(2), v4(1)));
    let first = two.sends();
    assert_eq!(first.len(), 1);
    two.takes(&greeting[0].1);
    // It confirms that, so that traffic of one direction alone is free too.
    let confirmation = two.sends();
    assert_eq!(confirmation.len(), 1);
    one.takes(&confirmation[0].1);
    assert_eq!(arrive(&mut one, &mut two, 50, Duration::from_millis(100)), 50);
    assert_eq!(arrive(&mut two, &mut one, 50, Duration::from_millis(100)), 50);
}

/// Two that have opened other sessions at the same time, and learn that of each other at the same time.
#[test]
fn of_two_with_new_sessions_one_sends_first() {
    let (first, second) = if peer(1).public_key < peer(2).public_key { (1, 2) } else { (2, 1) };
    for traffic in [false, true] {
        let (mut one, mut two) = (Node::new(first, &[second]), Node::new(second, &[first]));
        assert_eq!(arrive(&mut one, &mut two, 1, Duration::from_millis(100)), 1);
        for node in [&mut one, &mut two] {
            node.tunnel.set_session(session(), node.now);
        }
        for (node, other) in [(&mut one, second), (&mut two, first)] {
            node.tunnel.set_peers(elsewhere(other, 8), node.now).unwrap();
            if traffic {
                node.queues(&udp(v4(node.seed), v4(other)));
            }
            node.now += TICK;
        }
        assert_eq!(two.sends().len(), 0, "it leaves it to the other");
        let sent = one.sends();
        assert!(!sent.is_empty());
        two.takes(&sent[0].1);
        two.now += TICK;
        assert_eq!(two.sends().len(), usize::from(traffic), "not any more");
        two.now += YIELD_TO_FIRST;
        // Its keepalive is not due again.
        assert_eq!(two.sends().len(), 0);
    }
    // One that hears nothing does not wait for ever.
    let (mut one, mut two) = (Node::new(first, &[second]), Node::new(second, &[first]));
    assert_eq!(arrive(&mut one, &mut two, 1, Duration::from_millis(100)), 1);
    two.tunnel.set_session(session(), two.now);
    two.tunnel.set_peers(elsewhere(first, 8), two.now).unwrap();
    two.now += YIELD_TO_FIRST;
    assert_eq!(two.sends().len(), 1);
}

/// Sends one packet each way, and says how many arrive.
fn exchange(one: &mut Node, two: &mut Node) -> usize {
    one.queues(&udp(v4(one.seed), v4(two.seed)));
    two.queues(&udp(v4(two.seed), v4(one.seed)));
    let Talk { at_one, at_two, .. } = converse(one, two);
    at_one.len() + at_two.len()
}

/// Time passes for both, and with it what is due.
fn pass(one: &mut Node, two: &mut Node, time: Duration) {
    one.now += time;
    two.now += time;
    converse(one, two);
}

#[test]
fn a_rotation_loses_no_packet_whoever_hears_of_it_when() {
    let (mut one, mut two) = connected();
    rotate(&mut one, 0x40);
    // The other does not know yet.
    for _ in 0..3 {
        assert_eq!(exchange(&mut one, &mut two), 2);
        pass(&mut one, &mut two, Duration::from_secs(1));
    }
    hears_of(&mut two, 1, 0x40);
    for _ in 0..5 {
        assert_eq!(exchange(&mut one, &mut two), 2);
        pass(&mut one, &mut two, Duration::from_secs(1));
    }
    // By now they use the new key: without the old one all goes on.
    one.tunnel.previous = None;
    assert_eq!(exchange(&mut one, &mut two), 2);
    assert_eq!((one.stats_of(2).rx_drops, two.stats_of(1).rx_drops), (0, 0));
}

#[test]
fn both_may_rotate_at_once() {
    let (mut one, mut two) = connected();
    rotate(&mut one, 0x40);
    rotate(&mut two, 0x40);
    assert_eq!(exchange(&mut one, &mut two), 2);
    hears_of(&mut one, 2, 0x40);
    assert_eq!(exchange(&mut one, &mut two), 2);
    hears_of(&mut two, 1, 0x40);
    for _ in 0..5 {
        assert_eq!(exchange(&mut one, &mut two), 2);
        pass(&mut one, &mut two, Duration::from_secs(1));
    }
    for node in [&one, &two] {
        let (other, current) = (3 - node.seed, keys(node.seed ^ 0x40).public);
        let theirs = keys(other ^ 0x40).public.to_bytes();
        assert!(node.tunnel.peers.iter().all(|peer| peer.slot_of(&current, &theirs).is_some()));
    }
}

#[test]
fn a_key_is_refused_when_its_time_is_over_and_a_peer_that_was_away_comes_back() {
    let (mut one, mut two) = connected();
    rotate(&mut one, 0x40);
    let old = initiation_to(2, keys(1).public);
    let shown = |node: &mut Node, message: &[u8]| {
        node.takes(message);
        node.sends().iter().any(|(_, answer)| answer[0] == 2)
    };
    assert!(shown(&mut one, &old), "within the overlap the old key is answered for");
    // The other is away for as long as the overlap lasts.
    one.now += OVERLAP;
    one.sends();
    assert!(one.tunnel.previous.is_none(), "the old key is wiped");
    let old = initiation_to(2, keys(1).public);
    let unknown = one.tunnel.drops().unknown;
    assert!(!shown(&mut one, &old));
    assert_eq!(one.tunnel.drops().unknown, unknown + 1);
    // It comes back, learns of the new key, and all is well.
    two.now += OVERLAP;
    hears_of(&mut two, 1, 0x40);
    pass(&mut one, &mut two, YIELD);
    assert_eq!(exchange(&mut one, &mut two), 2);
}

#[test]
fn a_peers_key_before_is_refused_after_the_overlap() {
    let (mut one, mut two) = connected();
    hears_of(&mut two, 1, 0x40);
    let message = data(&mut one, &udp(v4(1), v4(2)));
    assert!(two.takes(&message).is_some(), "what was under way arrives");
    two.now += OVERLAP;
    two.sends();
    let message = data(&mut one, &udp(v4(1), v4(2)));
    assert_eq!(two.takes(&message), None);
}

#[test]
fn many_rotations_leave_two_keys() {
    let (mut one, mut two) = connected();
    for epoch in 1..20 {
        rotate(&mut one, epoch << 2);
        // The others never hear of it: what they have goes on.
        assert_eq!(exchange(&mut one, &mut two), 2, "{epoch}");
    }
}

#[test]
fn a_removed_peer_is_cut_off_at_once() {
    let (mut one, mut two) = connected();
    let message = data(&mut one, &udp(v4(1), v4(2)));
    two.queues(&udp(v4(2), v4(1)));
    two.tunnel.set_peers(vec![], two.now).unwrap();
    assert_eq!(two.takes(&message), None);
    assert_eq!(two.sends().len(), 0);
    assert!(two.tunnel.handle_packet(&udp(v4(2), v4(1)), two.now).is_some(), "unreachable");
    assert_eq!((two.tunnel.drops().no_route, two.tunnel.drops().unknown), (1, 1));
}

#[test]
fn a_wrong_set_of_peers_changes_nothing() {
    let (mut one, mut two) = connected();
    let twice = vec![peer(3), peer(3)];
    assert!(one.tunnel.set_peers(twice, one.now).is_err());
    let message = data(&mut one, &udp(v4(1), v4(2)));
    assert!(two.takes(&message).is_some());
}

#[test]
fn without_a_session_nothing_is_queued() {
    let now = Instant::now();
    let mut tunnel = Tunnel::new(StaticSecret::from([1; 32]), Some(subnets(1)), now);
    tunnel.set_peers(vec![PeerConfig { keepalive: 1, ..peer(2) }], now).unwrap();
    assert!(tunnel.handle_packet(&udp(v4(1), v4(2)), now).is_some(), "unreachable");
    tunnel.handle_timeout(now + Duration::from_secs(10));
    assert_eq!(tunnel.drops().no_session, 1);
    tunnel.set_session(session(), now);
    assert_eq!(tunnel.poll_datagram(now), None);
}

#[test]
fn another_session_readdresses_what_waits() {
    let mut one = Node::new(1, &[2]);
    one.queues(&udp(v4(1), v4(2)));
    one.tunnel.set_session(SessionId::new("t".to_owned()).unwrap(), one.now);
    assert!(one.tunnel.poll_datagram(one.now).unwrap().starts_with(b"3.0 t "));
}

/// The first message of a handshake of node `from` with node 1, which it knows by this key.
fn initiation_to(from: u8, key: PublicKey) -> Vec<u8> {
    let mut node = Node::new(from, &[]);
    let known = PeerConfig { public_key: key.to_bytes(), ..peer(1) };
    node.tunnel.set_peers(vec![known], node.now).unwrap();
    node.now += YIELD;
    node.queues(&udp(v4(from), v4(1)));
    node.sends().remove(0).1
}

/// The first message of a handshake, as a peer that has just started sends it.
fn initiation(from: u8) -> Vec<u8> {
    let mut one = Node::new(from, &[2]);
    one.queues(&udp(v4(from), v4(2)));
    one.sends().remove(0).1
}

#[test]
fn handshakes_are_limited() {
    let mut two = Node::new(2, &[1]);
    for _ in 0..HANDSHAKES_PER_SECOND + 10 {
        two.takes(&initiation(3));
    }
    assert_eq!((two.tunnel.drops().unknown, two.tunnel.drops().rate_limited), (HANDSHAKES_PER_SECOND, 10));
}

#[test]
fn handshakes_of_one_peer_are_limited_and_leave_others_theirs() {
    let mut two = Node::new(2, &[1, 3]);
    for _ in 0..30 {
        two.takes(&initiation(1));
    }
    assert_eq!((two.tunnel.drops().rate_limited, two.sends().len()), (20, 10));
    two.takes(&initiation(3));
    assert_eq!(two.sends().len(), 1);
}

#[test]
fn handshakes_in_a_peers_name_do_not_use_up_its_own() {
    let mut two = Node::new(2, &[1]);
    let (mut forged, own) = (initiation(1), initiation(1));
    // Of another key agreement the static key can be decrypted and the proof cannot.
    forged[100] ^= 1;
    for _ in 0..30 {
        two.takes(&forged);
    }
    assert_eq!((two.tunnel.drops().rate_limited, two.sends().len()), (0, 0));
    two.takes(&own);
    assert_eq!(two.sends().len(), 1);
}

#[test]
fn a_node_that_is_flooded_with_handshakes_can_begin_its_own() {
    let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
    two.now += YIELD;
    two.queues(&udp(v4(2), v4(1)));
    let (_, own) = two.sends().remove(0);
    for _ in 0..HANDSHAKES_PER_SECOND + 10 {
        two.takes(&initiation(3));
    }
    assert_eq!(two.tunnel.drops().rate_limited, 10);
    one.takes(&own);
    let Talk { at_one, .. } = converse(&mut one, &mut two);
    assert_eq!(at_one, [udp(v4(2), v4(1))]);
}

#[test]
fn unreachables_are_limited() {
    let mut one = Node::new(1, &[]);
    let answers = (0..1_000).filter(|_| one.tunnel.handle_packet(&udp(v4(1), v4(2)), one.now).is_some());
    assert_eq!(answers.count(), UNREACHABLES_PER_SECOND as usize);
    one.now += Duration::from_secs(2);
    one.tunnel.handle_timeout(one.now);
    assert!(one.tunnel.handle_packet(&udp(v4(1), v4(2)), one.now).is_some());
}

#[test]
fn the_longest_packet_fits() {
    let (mut one, mut two) = connected();
    let mut packet = udp(v4(1), v4(2));
    packet.resize(MAX_PACKET, 7);
    packet[2..4].copy_from_slice(&u16::try_from(MAX_PACKET).unwrap().to_be_bytes());
    let message = data(&mut one, &packet);
    assert_eq!(message.len(), MAX_MESSAGE);
    assert_eq!(two.takes(&message), Some(packet.clone()));
    packet.push(0);
    assert!(one.tunnel.handle_packet(&packet, one.now).is_some(), "unreachable");
    assert_eq!(two.takes(&[4; MAX_MESSAGE + 1]), None);
}

#[test]
fn what_a_peer_encrypts_that_is_no_packet_is_dropped() {
    // A peer that runs other software can put anything into its messages.
    let (mut one, mut two) = connected();
    let mut short = udp(v4(1), v4(2));
    short[2..4].copy_from_slice(&7u16.to_be_bytes());
    let mut long = udp(v4(1), v4(2));
    long[2..4].copy_from_slice(&700u16.to_be_bytes());
    for packet in [short, long] {
        let message = data(&mut one, &packet);
        assert_eq!(two.takes(&message), None);
    }
    assert_eq!(two.stats_of(1).rx_drops, 2);
}

/// Messages that look like WireGuard's: a type and, often, an index that exists.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![0usize..2000, Just(148), Just(92), Just(64), Just(32)];
    (len, 0u8..6, prop_oneof![Just(0u32), 0u32..1024, any::<u32>()], any::<[u8; 32]>()).prop_map(
        |(len, kind, index, noise)| {
            let mut message: Vec<u8> = noise.iter().copied().cycle().take(len).collect();
            let head = [&u32::from(kind).to_le_bytes()[..], &index.to_le_bytes()].concat();
            for (byte, value) in message.iter_mut().zip(head) {
                *byte = value;
            }
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_no_panic_and_no_way_in(
        messages in prop::collection::vec(prop_oneof![any_message(), prop::collection::vec(any::<u8>(), 0..2000)], 1..40),
    ) {
        let (_, mut two) = connected();
        for message in &messages {
            prop_assert_eq!(two.takes(message), None);
            two.tunnel.handle_packet(message, two.now);
        }
        two.sends();
    }

    #[test]
    fn changed_messages_are_no_panic_and_no_way_in(
        at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>(),
    ) {
        let (mut one, mut two) = connected();
        let message = data(&mut one, &udp(v4(1), v4(2)));
        prop_assert_eq!(two.takes(&message[..cut.index(message.len())]), None);
        let mut changed = message.clone();
        changed[at.index(message.len())] ^= flip;
        prop_assert_eq!(two.takes(&changed), None);
        prop_assert_eq!(two.takes(&message), Some(udp(v4(1), v4(2))));
    }

    #[test]
    fn changed_handshakes_are_no_panic_and_connect_nobody(
        which in 0usize..3, at in any::<prop::sample::Index>(), flip in 1u8..=255,
    ) {
        let (mut one, mut two) = (Node::new(1, &[2]), Node::new(2, &[1]));
        one.queues(&udp(v4(1), v4(2)));
        for step in 0..3 {
            let sent = if step % 2 == 0 { one.sends() } else { two.sends() };
            let Some((_, mut message)) = sent.into_iter().next() else { break };
            if step == which {
                let at = at.index(message.len());
                // The two halves of MAC2 are not checked: there are no cookies.
                if message[0] != 4 && at >= message.len() - 16 {
                    return Ok(());
                }
                message[at] ^= flip;
            }
            if step % 2 == 0 { two.takes(&message) } else { one.takes(&message) };
        }
        prop_assert_eq!(two.find_stats(1).and_then(|stats| stats.last_handshake), None);
    }
}
