//! Data paths of static interfaces that talk with each other in memory.

use std::net::IpAddr;

use i2plan_ipc::secret::SecretKey;
use i2plan_proto::endpoint::AnyDestination;

use super::ip::tests::udp;
use super::tests::{destination, keys, session};
use super::*;

/// The peer with number `seed`, which has 10.`seed`.0.0/16, at this destination if that is known.
fn peer(seed: u8, at: Option<AnyDestination>) -> PeerConfig {
    let public_key = keys(seed).public.to_bytes();
    PeerConfig {
        node: NodeId(public_key),
        public_key,
        preshared_key: None,
        endpoint: at.map(PeerDestination::Static),
        allowed_ips: AllowedIps::Networks(vec![format!("10.{seed}.0.0/16").parse().unwrap()]),
        keepalive: 25,
        takes_reports: false,
    }
}

/// As other implementations make them: a null certificate.
fn foreign(seed: u8) -> AnyDestination {
    AnyDestination::from_i2p(&[&[seed; 384][..], &[0, 0, 0]].concat()).unwrap()
}

fn at(seed: u8) -> AnyDestination {
    destination(seed).into()
}

/// A host behind the interface with this number.
fn host(seed: u8, number: u8) -> IpAddr {
    [10, seed, 0, number].into()
}

struct Interface {
    tunnel: Tunnel,
    now: Instant,
}

impl Interface {
    fn new(seed: u8, peer: PeerConfig) -> Self {
        let now = Instant::now();
        let mut tunnel = Tunnel::new(StaticSecret::from([seed; 32]), None, now);
        tunnel.set_session(session(), now);
        let mut interface = Self { tunnel, now };
        interface.has(peer);
        interface
    }

    /// Has this peer, and begins a handshake with it without leaving that to it.
    fn has(&mut self, peer: PeerConfig) {
        self.tunnel.change_peers(vec![peer], &[], self.now);
        self.tunnel.begin_all(self.now);
    }

    /// What it sends now: to whom, and the message.
    fn sends(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut sent = Vec::new();
        loop {
            self.now += Duration::from_millis(300);
            self.tunnel.handle_timeout(self.now);
            let Some(datagram) = self.tunnel.poll_datagram(self.now) else { return sent };
            let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
            let to = str::from_utf8(&datagram[..end]).unwrap().strip_prefix("3.0 s ").unwrap();
            sent.push((to.to_owned(), datagram[end + 1..].to_vec()));
        }
    }

    /// Takes a message that this destination has signed, or nobody.
    fn takes(&mut self, from: Option<&AnyDestination>, message: &[u8]) -> Option<Vec<u8>> {
        let line =
            from.map_or_else(Vec::new, |from| format!("{} FROM_PORT=0\n", from.to_base64()).into_bytes());
        self.tunnel.handle_datagram(&[&line, message].concat(), self.now).map(<[u8]>::to_vec)
    }

    fn queues(&mut self, packet: &[u8]) {
        assert_eq!(self.tunnel.handle_packet(packet, self.now), None);
    }
}

/// Carries messages until both are silent; the first is at this destination. Returns what came out at the second.
fn converse(one: &mut Interface, from: &AnyDestination, two: &mut Interface) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    loop {
        let (there, back) = (one.sends(), two.sends());
        if there.is_empty() && back.is_empty() {
            return arrived;
        }
        for (_, message) in there {
            arrived.extend(two.takes(Some(from), &message));
        }
        for (_, message) in back {
            one.takes(Some(&at(2)), &message);
        }
    }
}

/// Two that have shaken hands; the second was not told where the first is.
fn connected() -> (Interface, Interface) {
    let (mut one, mut two) = (Interface::new(1, peer(2, Some(at(2)))), Interface::new(2, peer(1, None)));
    assert!(two.sends().is_empty(), "it has nowhere to send to");
    converse(&mut one, &foreign(1), &mut two);
    (one, two)
}

#[test]
fn packets_go_between_the_networks_behind_both() {
    let (mut one, mut two) = connected();
    let packet = udp(host(1, 7), host(2, 9));
    one.queues(&packet);
    assert_eq!(converse(&mut one, &foreign(1), &mut two), [packet]);
    // Back to where the first has called from.
    two.queues(&udp(host(2, 9), host(1, 7)));
    assert_eq!(two.sends()[0].0, foreign(1).to_base64());
    // Nobody has this network, and nobody may send from another's.
    assert!(one.tunnel.handle_packet(&udp(host(1, 7), host(3, 1)), one.now).is_some());
    one.queues(&udp(host(2, 1), host(2, 9)));
    let (_, spoofed) = one.sends().remove(0);
    assert_eq!(two.takes(Some(&foreign(1)), &spoofed), None);
    assert_eq!(two.tunnel.static_reports(two.now)[0].stats.rx_drops, 1);
}

#[test]
fn a_peer_is_followed_by_its_authenticated_messages_alone() {
    let (mut one, mut two) = connected();
    let goes_to = |two: &mut Interface| {
        two.queues(&udp(host(2, 9), host(1, 7)));
        two.sends().remove(0).0
    };
    assert!(two.tunnel.take_moved() && !two.tunnel.take_moved(), "what is kept of it follows it");
    let packet = udp(host(1, 7), host(2, 9));
    one.queues(&packet);
    let (_, message) = one.sends().remove(0);
    // Damaged, and what was never its message.
    let mut damaged = message.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(two.takes(Some(&foreign(8)), &damaged), None);
    assert_eq!(two.takes(Some(&foreign(8)), &[4, 0, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(goes_to(&mut two), foreign(1).to_base64());
    assert!(!two.tunnel.take_moved());
    assert_eq!(two.takes(Some(&foreign(8)), &message), Some(packet.clone()));
    assert!(two.tunnel.take_moved());
    assert_eq!(goes_to(&mut two), foreign(8).to_base64());
    // A copy that somebody else sends moves nothing.
    assert_eq!(two.takes(Some(&foreign(9)), &message), None);
    // Neither does one without a sender, which is taken all the same.
    one.queues(&packet);
    let (_, message) = one.sends().remove(0);
    assert_eq!(two.takes(None, &message), Some(packet));
    assert_eq!(goes_to(&mut two), foreign(8).to_base64());
    // What the administrator says of it otherwise does not move it either.
    two.tunnel.change_peers(vec![PeerConfig { keepalive: 7, ..peer(1, None) }], &[], two.now);
    assert_eq!(goes_to(&mut two), foreign(8).to_base64());
}

#[test]
fn only_the_same_preshared_key_makes_a_session() {
    let with = |peer: PeerConfig, key: u8| PeerConfig {
        preshared_key: Some(Box::new(SecretKey([key; 32]))),
        ..peer
    };
    let arrives = |one: u8, two: u8| {
        let mut one = Interface::new(1, with(peer(2, Some(at(2))), one));
        let mut two = Interface::new(2, with(peer(1, None), two));
        one.queues(&udp(host(1, 7), host(2, 9)));
        let arrived = converse(&mut one, &foreign(1), &mut two);
        let report = two.tunnel.static_reports(two.now).remove(0);
        assert!(report.has_preshared_key);
        arrived.len()
    };
    assert_eq!((arrives(7, 7), arrives(7, 8)), (1, 0));
    // One that is changed at both ends takes the place of the one before.
    let (mut one, mut two) = connected();
    one.has(with(peer(2, None), 5));
    two.has(with(peer(1, None), 5));
    converse(&mut one, &foreign(1), &mut two);
    let packet = udp(host(1, 7), host(2, 9));
    one.queues(&packet);
    assert_eq!(converse(&mut one, &foreign(1), &mut two), [packet]);
}
