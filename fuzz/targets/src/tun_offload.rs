//! What `tund` reads from an interface with offloads, and packets that it puts together for one.

use i2plan_tund::offload::{Coalescer, HEADER_LEN, NO_OFFLOAD, split};

use crate::{Seeds, seed};

/// Longest packet of an interface, bytes.
const MAX_PACKET: usize = 9000;

/// Runs the target: on the input as what was read, on the packets that it was cut into, and on packets in it, each
/// preceded by its length.
pub fn run(input: &[u8]) {
    let read = &input[..input.len().min(HEADER_LEN + usize::from(u16::MAX))];
    put_together(&cut(read).unwrap_or_default());
    let mut packets = Vec::new();
    let mut rest = input;
    while let Some((len, after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
        let (packet, after) = after.split_at(len);
        packets.push(packet.to_vec());
        rest = after;
    }
    packets.retain(|packet| packet.len() <= MAX_PACKET);
    put_together(&packets);
}

/// What is written comes apart as the packets that it was made of.
fn put_together(packets: &[Vec<u8>]) {
    let (mut coalescer, mut written, mut counted) = (Coalescer::default(), Vec::new(), 0);
    let mut write = |header: &[u8; HEADER_LEN], packet: &[u8], count| {
        assert!(packet.len() <= usize::from(u16::MAX));
        counted += count;
        written.extend(cut(&[header, packet].concat()).expect("it was made here"));
    };
    for packet in packets {
        coalescer.push(packet, &mut write);
    }
    coalescer.flush(&mut write);
    assert_eq!(counted, packets.len());
    let sorted = |packets: &[Vec<u8>]| {
        let mut packets: Vec<_> = packets.iter().map(|packet| comparable(packet)).collect();
        packets.sort();
        packets
    };
    assert_eq!(sorted(&written), sorted(packets));
}

fn cut(read: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    split(&mut read.to_vec(), &mut Vec::new(), |packet| packets.push(packet.to_vec())).ok()?;
    Some(packets)
}

/// Without IPv4's identification, which says nothing of packets that are no fragments, and checksums, which have two
/// forms.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let transport = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
            20
        }
        _ => 40,
    };
    if let Some(checksum) = packet.get_mut(transport + 16..transport + 18) {
        checksum.fill(0);
    }
    packet
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let v4 = [0x45, 0, 0, 80, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2];
    let v6 = [&[0x60, 0, 0, 0, 0, 60, 6, 64][..], &[0xfd; 16], &[0xfc; 16]].concat();
    let tcp = [0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    let header = |kind: u8, payload: u16, start: u16, offset: u16| {
        let numbers = [start + 20, payload, start, offset].map(u16::to_ne_bytes);
        [&[1, kind][..], numbers.as_flattened()].concat()
    };
    let whole_v4 = [&header(1, 15, 20, 16)[..], &v4, &tcp, &[7; 40]].concat();
    let whole_v6 = [&header(4, 15, 40, 16)[..], &v6, &tcp, &[7; 40]].concat();
    let udp = [&header(5, 10, 40, 6)[..], &v6, &[0x10, 0, 0x20, 0, 0, 38, 0, 0], &[7; 30]].concat();
    let packets: Vec<u8> = [&whole_v4, &whole_v6]
        .into_iter()
        .flat_map(|whole| cut(whole).expect("it can be cut"))
        .flat_map(|packet| [&(packet.len() as u16).to_be_bytes()[..], &packet].concat())
        .collect();
    vec![
        seed("tcp-v4", whole_v4),
        seed("tcp-v6", whole_v6),
        seed("udp", udp),
        seed("whole", [&NO_OFFLOAD[..], &v4, &tcp].concat()),
        seed("checksum", [&header(0, 0, 20, 16)[..], &v4, &tcp].concat()),
        seed("packets", packets),
    ]
}
