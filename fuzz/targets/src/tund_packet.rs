//! `tund`'s data path, with whatever may come from the bridge and from the interface.
//!
//! The input is a list of things that happen to a node with a few peers, each of which has a data path of its own
//! at the other end: their messages arrive, or are lost, repeated, reordered, damaged.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use boringtun::x25519::{PublicKey, StaticSecret};
use i2plan_ipc::api::tund::Interface;
use i2plan_proto::destination::Destination;
use i2plan_testing as testing;
use i2plan_tund::interface::Subnets;
use i2plan_tund::session::SessionId;
use i2plan_tund::tunnel::{AllowedIps, MAX_MESSAGE, MAX_PACKET, PeerConfig, Tunnel};

use crate::{Seeds, seed};

/// The node, as which it is a peer to the others.
const ME: u8 = 9;

/// Those others.
const PEERS: [u8; 3] = [1, 2, 3];

/// One of them, whose own interface has another's address.
const IMPOSTOR: u8 = 3;
const CLAIMED: u8 = 4;

/// Datagrams that may go at once: 16 at the common rate, to each of those that report ten until a report comes, handshakes
/// and reports; and what a path has proven to take.
const MAX_BURST: usize = 128;

/// Runs the target.
pub fn run(input: &[u8]) {
    let world = play(input);
    let _ = (world.node.peer_stats(world.now), world.node.drops());
}

/// How long the key that a peer had before is accepted; looked at four times a second.
const OVERLAP: Duration = Duration::from_millis(600_250);

fn play(input: &[u8]) -> World {
    let mut choices = Unstructured::new(input);
    let mut world = World::new();
    // Ends with the input.
    while !choices.is_empty() && world.step(&mut choices).is_ok() {}
    world
}

struct World {
    now: Instant,
    node: Tunnel,
    others: Vec<Tunnel>,
    /// The peers that the node has at present.
    present: Vec<PeerConfig>,
    /// What the others have sent to it, and by which of them.
    inbound: Vec<Vec<u8>>,
    /// What it has sent.
    outbound: Vec<Vec<u8>>,
    /// Packets that the others have put into their interfaces.
    queued: Vec<(u8, Vec<u8>)>,
    /// When a peer's key was last changed.
    rekeyed_at: Option<Instant>,
    /// Those of them that have come out of the node's.
    arrived: BTreeSet<usize>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let present = PEERS.map(peer).to_vec();
        let node = tunnel(ME, present.clone(), now);
        let (others, inbound, outbound, queued) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            now,
            node,
            others,
            present,
            inbound,
            outbound,
            queued,
            rekeyed_at: None,
            arrived: BTreeSet::new(),
        }
    }

    /// The others come to be when they are needed: not every input has a part for them.
    fn meet(&mut self) {
        if self.others.is_empty() {
            let me = PeerConfig { keepalive: 0, ..peer(ME) };
            self.others = PEERS.iter().map(|number| tunnel(*number, vec![me.clone()], self.now)).collect();
        }
    }

    /// Lets something happen.
    fn step(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        match choices.arbitrary::<u8>()? % 12 {
            0 => {
                let message = any_bytes(choices)?;
                self.deliver(&message);
            }
            1 => {
                // Looks like WireGuard's.
                let (kind, index) = (choices.arbitrary::<u8>()? % 6, choices.arbitrary::<u16>()?);
                let head = [u32::from(kind).to_le_bytes(), u32::from(index).to_le_bytes()].concat();
                let mut message = any_bytes(choices)?;
                message.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
                self.deliver(&message);
            }
            2 => {
                let packet = any_bytes(choices)?;
                self.take_packet(&packet);
            }
            3 => {
                let number = choices.arbitrary::<u8>()?;
                let packet = any_packet(choices, ME, number)?;
                self.take_packet(&packet);
            }
            4 => {
                self.meet();
                let (which, claims) = (choices.arbitrary::<u8>()?, choices.arbitrary::<u8>()?);
                let number = PEERS[usize::from(which) % PEERS.len()];
                let source = if claims == 0 { number } else { claims };
                let mut packet = any_packet(choices, source, ME)?;
                // Each is another, so that none can be taken for another that came.
                packet.extend_from_slice(&self.queued.len().to_be_bytes());
                set_length(&mut packet);
                let other = &mut self.others[usize::from(which) % PEERS.len()];
                other.handle_packet(&packet, self.now);
                self.queued.push((number, packet));
            }
            5 => self.exchange(),
            6 => {
                // Again, or damaged.
                let (index, at) = (choices.arbitrary::<u8>()?, choices.arbitrary::<u16>()?);
                let (flip, cut) = (choices.arbitrary::<u8>()?, choices.arbitrary::<u8>()?);
                let Some(message) = self.inbound.get(usize::from(index) % self.inbound.len().max(1)) else {
                    return Ok(());
                };
                let mut message = message.clone();
                message.truncate(message.len().saturating_sub(usize::from(cut)));
                if let Some(byte) = message.get_mut(usize::from(at)) {
                    *byte ^= flip;
                }
                self.deliver(&message);
            }
            7 => {
                // An echo of the node's own.
                let index = choices.arbitrary::<u8>()?;
                let Some(message) = self.outbound.get(usize::from(index) % self.outbound.len().max(1)) else {
                    return Ok(());
                };
                let message = message.clone();
                self.deliver(&message);
            }
            8 => self.pass(Duration::from_millis(choices.arbitrary::<u16>()?.into())),
            9 => self.pass(Duration::from_secs(choices.arbitrary::<u8>()?.into())),
            10 => self.change_peers(choices)?,
            _ => {
                let id = format!("s-{}", choices.arbitrary::<u8>()?);
                self.node.set_session(SessionId::new(id).expect("a session's id"), self.now);
            }
        }
        self.send();
        Ok(())
    }

    /// A datagram comes from the bridge. What it lets through, a peer has really sent, once, in its own name.
    fn deliver(&mut self, message: &[u8]) {
        let Some(packet) = self.node.handle_datagram(message, self.now) else { return };
        assert!(packet.len() <= MAX_PACKET.max(message.len()));
        let sent = self.queued.iter().position(|(_, queued)| queued == packet);
        let sent = sent.expect("a packet came out that nobody sent");
        assert!(self.arrived.insert(sent), "a packet came out twice");
        let (number, _) = &self.queued[sent];
        let sender = self.present.iter().find(|present| present.node == peer(*number).node);
        let sender = sender.expect("a packet came from one who is no peer any more");
        let overlaps = self.rekeyed_at.is_some_and(|at| self.now.duration_since(at) <= OVERLAP);
        assert!(
            sender.public_key == peer(*number).public_key || overlaps,
            "the key before is not accepted any more"
        );
        let (source, destination) = endpoints(packet).expect("only IP comes out");
        assert!(sender.allowed_ips.contains(source));
        assert!(addresses(ME).contains(&destination), "a packet for somebody else came out");
    }

    /// A packet comes from the interface. If it is answered, then to its sender.
    fn take_packet(&mut self, packet: &[u8]) {
        let Some(answer) = self.node.handle_packet(packet, self.now) else { return };
        assert!(answer.len() <= 1280);
        let (there, back) = (endpoints(packet), endpoints(answer));
        assert_eq!(there.map(|(source, destination)| (destination, source)), back);
    }

    /// The node sends what it may send now: WireGuard messages, to its peers.
    fn send(&mut self) {
        let mut count = 0;
        while let Some(datagram) = self.node.poll_datagram(self.now) {
            count += 1;
            assert!(count <= MAX_BURST, "the router is flooded");
            let end = datagram.iter().position(|byte| *byte == b'\n').expect("a header");
            let (header, message) = (&datagram[..end], &datagram[end + 1..]);
            let to_peer = |peer: &PeerConfig| {
                let endpoint = peer.endpoint.as_ref().expect("a member is somewhere");
                header.ends_with(endpoint.to_base64().as_bytes())
            };
            assert!(header.starts_with(b"3.0 s") && self.present.iter().any(to_peer));
            assert!(matches!(message.first(), Some(1..=4)) && message.len() <= MAX_MESSAGE);
            self.outbound.push(message.to_vec());
        }
    }

    /// Everything that is under way arrives, in both directions.
    fn exchange(&mut self) {
        self.meet();
        for _ in 0..4 {
            self.pass(Duration::from_millis(20));
            for message in std::mem::take(&mut self.outbound) {
                for other in &mut self.others {
                    other.handle_datagram(&message, self.now);
                }
            }
            let first = self.inbound.len();
            for other in &mut self.others {
                while let Some(datagram) = other.poll_datagram(self.now) {
                    let end = datagram.iter().position(|byte| *byte == b'\n').expect("a header");
                    self.inbound.push(datagram[end + 1..].to_vec());
                }
            }
            for index in first..self.inbound.len() {
                let message = self.inbound[index].clone();
                self.deliver(&message);
            }
            self.send();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.node.handle_timeout(self.now);
        // What is due now may turn out to be nothing, but not again and again.
        let due = |node: &Tunnel, now| node.poll_timeout(now) <= now;
        let idle = !due(&self.node, self.now) || self.node.poll_datagram(self.now).is_some();
        assert!(idle || !due(&self.node, self.now), "it would run without end");
        for other in &mut self.others {
            other.handle_timeout(self.now);
        }
    }

    fn change_peers(&mut self, choices: &mut Unstructured<'_>) -> Result<()> {
        let mut wanted = Vec::new();
        for number in PEERS {
            let change = choices.arbitrary::<u8>()?;
            if change & 1 != 0 {
                continue;
            }
            let mut peer = peer(number);
            let [IpAddr::V4(mut ipv4), IpAddr::V6(mut ipv6)] = addresses(number) else {
                unreachable!("one of each")
            };
            if change & 2 != 0 {
                peer.public_key = public_key(number + 100);
            }
            if change & 4 != 0 {
                peer.endpoint = Some(destination(number + 100).into());
            }
            if change & 8 != 0 {
                ipv4 = Ipv4Addr::new(10, 42, 0, number + 100);
            }
            if change & 16 != 0 {
                peer.keepalive = 0;
            }
            if change & 32 != 0 {
                // Such a table is refused as a whole.
                let IpAddr::V6(first) = addresses(PEERS[0])[1] else { unreachable!("one of each") };
                ipv6 = first;
            }
            peer.allowed_ips = AllowedIps::Member(ipv4, ipv6);
            wanted.push(peer);
        }
        if self.node.set_peers(wanted.clone(), self.now).is_ok() {
            let key = |peers: &[PeerConfig], node| {
                peers.iter().find(|peer| peer.node == node).map(|peer| peer.public_key)
            };
            if wanted.iter().any(|new| key(&self.present, new.node).is_some_and(|old| old != new.public_key))
            {
                self.rekeyed_at = Some(self.now);
            }
            self.present = wanted;
        }
        Ok(())
    }
}

fn tunnel(number: u8, peers: Vec<PeerConfig>, now: Instant) -> Tunnel {
    let own = if number == IMPOSTOR { CLAIMED } else { number };
    let [IpAddr::V4(ipv4), IpAddr::V6(ipv6)] = addresses(own) else { unreachable!("one of each") };
    let interface = Interface {
        name: "i2plan0".to_owned(),
        network: testing::charter(0).network(),
        ipv4,
        ipv4_prefix: 16,
        ipv6,
        ipv6_prefix: 64,
        mtu: 1280,
    };
    let mut tunnel = Tunnel::new(StaticSecret::from([number; 32]), Some(Subnets::of(&interface)), now);
    // Told some time ago: of two that have just learned of each other, one waits for the other.
    let told = now.checked_sub(Duration::from_secs(20)).expect("a machine that has been up for a while");
    tunnel.set_peers(peers, told).expect("peers that can be told apart");
    tunnel.set_session(SessionId::new("s".to_owned()).expect("a session's id"), now);
    tunnel
}

/// A member: everything about it follows from its number.
fn peer(number: u8) -> PeerConfig {
    let [IpAddr::V4(ipv4), IpAddr::V6(ipv6)] = addresses(number) else { unreachable!("one of each") };
    PeerConfig {
        node: testing::node(number),
        public_key: public_key(number),
        preshared_key: None,
        endpoint: Some(destination(number).into()),
        allowed_ips: AllowedIps::Member(ipv4, ipv6),
        keepalive: 25,
        takes_reports: true,
    }
}

fn public_key(number: u8) -> [u8; 32] {
    // Made once: a sanitizer makes it slow.
    static MADE: LazyLock<Vec<[u8; 32]>> = LazyLock::new(|| {
        let public_key = |number| PublicKey::from(&StaticSecret::from([number; 32])).to_bytes();
        (0..128).map(public_key).collect()
    });
    MADE[usize::from(number)]
}

fn destination(number: u8) -> Destination {
    testing::destination(number)
}

fn addresses(number: u8) -> [IpAddr; 2] {
    let ipv6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
    [Ipv4Addr::new(10, 42, 0, number).into(), ipv6.into()]
}

/// Source and destination of an IP packet.
fn endpoints(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| packet.get(at..)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes));
    let v6 = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

/// Some bytes of the input, repeated up to a length.
fn any_bytes(choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (len, pattern) = (choices.arbitrary::<u16>()?, choices.arbitrary::<u8>()?);
    let pattern = choices.bytes(usize::from(pattern).min(choices.len()))?;
    Ok(pattern.iter().copied().cycle().take(usize::from(len) % (MAX_MESSAGE + 100)).collect())
}

/// A packet between two members, of either family.
fn any_packet(choices: &mut Unstructured<'_>, source: u8, destination: u8) -> Result<Vec<u8>> {
    let (v4, len) = (choices.arbitrary::<bool>()?, choices.arbitrary::<u16>()?);
    let mut packet = if v4 { vec![0; 12] } else { vec![0; 8] };
    packet[0] = if v4 { 0x45 } else { 0x60 };
    for number in [source, destination] {
        match addresses(number)[usize::from(!v4)] {
            IpAddr::V4(address) => packet.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => packet.extend_from_slice(&address.octets()),
        }
    }
    packet.resize(packet.len() + usize::from(len) % 2000, 0x55);
    set_length(&mut packet);
    Ok(packet)
}

fn set_length(packet: &mut [u8]) {
    let len = u16::try_from(packet.len()).expect("a short packet");
    match packet[0] >> 4 {
        4 => packet[2..4].copy_from_slice(&len.to_be_bytes()),
        _ => packet[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    // See `World::step` for what the numbers mean: 4 lets a peer send a packet, 5 carries everything across.
    let there: &[u8] = &[3, 1, 1, 40, 0];
    let back: &[u8] = &[4, 0, 0, 1, 40, 0];
    let back_v6: &[u8] = &[4, 1, 0, 0, 0, 4];
    let spoofed: &[u8] = &[4, 2, CLAIMED, 1, 40, 0];
    let across: &[u8] = &[5];
    let script = |parts: &[&[u8]]| parts.concat();
    vec![
        seed("both-ways", script(&[there, back, across, there, back_v6, across])),
        seed("repeated", script(&[back, across, back, across, &[6, 5, 0, 0, 0, 0], &[6, 4, 0, 0, 0, 0]])),
        seed("damaged", script(&[back, across, &[6, 0, 60, 0, 1, 0, 6, 1, 20, 0, 0, 9]])),
        seed("spoofed", script(&[across, spoofed, across])),
        seed("echo", script(&[there, &[7, 0, 7, 1]])),
        seed("removed", script(&[back, across, &[10, 1, 0, 0], back, across, &[10, 0, 0, 0], across])),
        seed("rekeyed", script(&[back, across, &[10, 2, 16, 0], back, across])),
        seed("refused-peers", script(&[&[10, 0, 32, 0], back, across])),
        seed("moved", script(&[back, across, &[10, 12, 4, 0], there, across, &[11, 7], there, across])),
        seed("idle", script(&[across, &[9, 30, 9, 130, 9, 200], across, there, across])),
        seed("no-way", script(&[&[3, 77, 1, 9, 0], &[3, 77, 0, 0, 5], &[2, 60, 0, 2, 0x45, 0]])),
        seed("initiation", script(&[&[1, 1, 0, 0, 148, 0, 3, 1, 2, 3], &[1, 2, 0, 1, 92, 0, 1, 9]])),
        seed(
            "data",
            script(&[
                across,
                &[1, 4, 0, 0, 80, 0, 16, 4, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
            ]),
        ),
        seed("cookie", script(&[across, &[1, 3, 0, 0, 64, 0, 2, 1, 2]])),
        seed("flood", script(&[&[3, 1, 1, 208, 7].repeat(60), &[8, 100, 0], across])),
        seed("garbage", script(&[&[0, 255, 35, 7, 1, 2, 3, 4, 5, 6, 7], &[2, 255, 35, 2, 0x60, 0]])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the target would prove nothing of what comes out.
    #[test]
    fn packets_come_through() {
        for (name, expected) in [("both-ways", 2), ("repeated", 2), ("spoofed", 0), ("rekeyed", 2)] {
            let seeds = seeds();
            let (_, input) = seeds.iter().find(|(seed, _)| seed == name).expect("a seed");
            assert_eq!(play(input).arrived.len(), expected, "{name}");
        }
    }
}
