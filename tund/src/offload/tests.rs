use proptest::prelude::*;

use super::*;

const V4: [u8; 20] = [0x45, 2, 0, 0, 0xff, 0xff, 0x40, 0, 64, PROTOCOL_TCP, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2];

/// A packet with right checksums, and headers of 52 or 72 bytes.
pub(crate) fn tcp(is_v4: bool, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = if is_v4 {
        V4.to_vec()
    } else {
        let mut header = vec![0x60, 0x20, 0, 0, 0, 0, PROTOCOL_TCP, 64];
        header.extend([0xfd; 15].iter().chain(&[1]).chain(&[0xfd; 15]).chain(&[2]));
        header
    };
    let transport = packet.len();
    packet.extend([0x10, 0, 0x20, 0]);
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.extend(payload);
    set_length(&mut packet, transport);
    let sum = checksum::pseudo_header(&packet, PROTOCOL_TCP, packet.len() - transport);
    let sum = checksum::complement_not_zero(checksum::add(sum, &packet[transport..]));
    packet[transport + TCP_CHECKSUM..transport + TCP_CHECKSUM + 2].copy_from_slice(&sum);
    packet
}

fn set_identification(packet: &mut [u8], id: u16) {
    put16(packet, 4, id);
    set_length(packet, IPV4_HEADER);
}

/// The header of a packet of TCP over IPv4 that is to be cut into segments of so much payload.
pub(crate) fn segments_of(payload: u16) -> [u8; HEADER_LEN] {
    let header = Header {
        flags: NEEDS_CHECKSUM,
        kind: TCP_V4,
        segment: payload,
        checksum_start: 20,
        checksum_offset: TCP_CHECKSUM as u16,
    };
    header.encode(52)
}

fn cut(header: [u8; HEADER_LEN], packet: &[u8]) -> Result<Vec<Vec<u8>>, MalformedPacket> {
    let mut packets = Vec::new();
    let mut read = [&header[..], packet].concat();
    split(&mut read, &mut Vec::new(), |packet| packets.push(packet.to_vec()))?;
    Ok(packets)
}

/// What is written of these packets.
fn coalesced(packets: &[Vec<u8>]) -> Vec<([u8; HEADER_LEN], Vec<u8>, usize)> {
    let (mut coalescer, mut written) = (Coalescer::default(), Vec::new());
    for packet in packets {
        coalescer.push(packet, |header, packet, count| written.push((*header, packet.to_vec(), count)));
    }
    coalescer.flush(|header, packet, count| written.push((*header, packet.to_vec(), count)));
    written
}

fn packets_of(written: &[([u8; HEADER_LEN], Vec<u8>, usize)]) -> Vec<Vec<u8>> {
    written.iter().flat_map(|(header, packet, _)| cut(*header, packet).unwrap()).collect()
}

/// How many packets each of what was written has.
fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
    coalesced(packets).iter().map(|(_, _, count)| *count).collect()
}

#[test]
fn what_was_put_together_is_cut_into_the_same_packets() {
    for is_v4 in [true, false] {
        let sequences = [u32::MAX - 1_000, 199, 1_399, 2_599];
        let payloads = [vec![1; 1_200], vec![2; 1_200], vec![3; 1_200], vec![4; 7]];
        let mut packets: Vec<_> = sequences
            .iter()
            .zip(&payloads)
            .map(|(sequence, payload)| {
                tcp(is_v4, *sequence, ACK | if payload.len() < 1_200 { PSH } else { 0 }, payload)
            })
            .collect();
        if is_v4 {
            for (number, packet) in packets.iter_mut().enumerate() {
                set_identification(packet, 0xffff_u16.wrapping_add(number as u16));
            }
        }
        let written = coalesced(&packets);
        let [(header, whole, 4)] = &written[..] else { panic!("{written:?}") };
        assert_eq!(Header::decode(*header).segment, 1_200);
        assert_eq!(whole.len(), packets.iter().map(Vec::len).sum::<usize>() - 3 * (packets[0].len() - 1_200));
        assert_eq!(packets_of(&written), packets, "v4: {is_v4}");
    }
}

#[test]
fn flags_are_on_the_segments_that_they_belong_to() {
    let whole = tcp(true, 5, FIN | PSH | ACK | CWR, &[1; 30]);
    let header = Header {
        flags: NEEDS_CHECKSUM,
        kind: TCP_V4 | ECN,
        segment: 10,
        checksum_start: 20,
        checksum_offset: TCP_CHECKSUM as u16,
    };
    let segments = cut(header.encode(52), &whole).unwrap();
    let expected = [(5, ACK | CWR), (15, ACK), (25, ACK | PSH | FIN)].map(|(sequence, flags)| {
        let mut segment = tcp(true, sequence, flags, &[1; 10]);
        set_identification(&mut segment, 0xffff_u16.wrapping_add((sequence / 10) as u16));
        segment
    });
    assert_eq!(segments, expected);
}

#[test]
fn datagrams_are_cut() {
    let mut whole = V4.to_vec();
    whole[9] = PROTOCOL_UDP;
    whole.extend([0x10, 0, 0x20, 0, 0, 33, 0, 0]);
    whole.extend([7; 25]);
    set_length(&mut whole, IPV4_HEADER);
    let header = Header {
        flags: NEEDS_CHECKSUM,
        kind: UDP,
        segment: 10,
        checksum_start: 20,
        checksum_offset: UDP_CHECKSUM as u16,
    };
    let segments = cut(header.encode(28), &whole).unwrap();
    assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [38, 38, 33]);
    for segment in &segments {
        assert_eq!(usize::from(be16(segment, 2)), segment.len());
        assert_eq!(usize::from(be16(segment, 24)), segment.len() - 20);
        assert!(checksum::is_valid(checksum::add(0, &segment[..20])));
        let sum = checksum::pseudo_header(segment, PROTOCOL_UDP, segment.len() - 20);
        assert!(checksum::is_valid(checksum::add(sum, &segment[20..])));
    }
}

#[test]
fn checksums_that_the_kernel_has_begun_are_completed() {
    let complete = tcp(false, 1, ACK, &[1, 2, 3]);
    let mut begun = complete.clone();
    let sum = checksum::fold(checksum::pseudo_header(&begun, PROTOCOL_TCP, begun.len() - 40));
    begun[56..58].copy_from_slice(&sum);
    let header = Header {
        flags: NEEDS_CHECKSUM,
        kind: WHOLE,
        segment: 0,
        checksum_start: 40,
        checksum_offset: TCP_CHECKSUM as u16,
    };
    assert_eq!(cut(header.encode(0), &begun), Ok(vec![complete.clone()]));
    assert_eq!(cut(NO_OFFLOAD, &begun), Ok(vec![begun]));
    for (checksum_start, checksum_offset) in [(40, 60), (u16::MAX, 0), (40, u16::MAX)] {
        let header = Header { checksum_start, checksum_offset, ..header };
        assert_eq!(cut(header.encode(0), &complete), Err(MalformedPacket));
    }
}

#[test]
fn what_a_receiver_could_tell_apart_stays_apart() {
    let first = tcp(true, 0, ACK, &[1; 10]);
    let next = |flags, payload: &[u8]| tcp(true, 10, flags, payload);
    assert_eq!(counts(&[first.clone(), next(ACK, &[1; 10])]), [2]);
    // Other sequence numbers, flags, lengths, acknowledgements, windows, options.
    assert_eq!(counts(&[first.clone(), tcp(true, 11, ACK, &[1; 10])]), [1, 1]);
    assert_eq!(counts(&[first.clone(), next(ACK, &[1; 11])]), [1, 1]);
    for flags in [ACK | FIN, ACK | ECE, ACK | CWR, 0, ACK | 4, ACK | 0x20] {
        assert_eq!(counts(&[first.clone(), next(flags, &[1; 10])]), [1, 1], "{flags:#x}");
    }
    assert_eq!(counts(&[first.clone(), next(ACK, &[])]), [1, 1]);
    assert_eq!(counts(&[tcp(true, 0, ACK | PSH, &[1; 10]), next(ACK, &[1; 10])]), [1, 1]);
    assert_eq!(counts(&[first.clone(), next(ACK, &[1; 9]), tcp(true, 19, ACK, &[1; 9])]), [2, 1]);
    let marked = |at: usize, value: u8| {
        let mut packet = next(ACK, &[1; 10]);
        packet[at] = value;
        // With a right checksum of its own.
        packet[36..38].fill(0);
        set_length(&mut packet, IPV4_HEADER);
        let sum = checksum::pseudo_header(&packet, PROTOCOL_TCP, packet.len() - 20);
        let sum = checksum::complement_not_zero(checksum::add(sum, &packet[20..]));
        packet[36..38].copy_from_slice(&sum);
        packet
    };
    assert_eq!(counts(&[first.clone(), marked(1, 2)]), [2], "the mark is the same");
    // The congestion mark, may-fragment, the time to live, a port, the acknowledgement, the window, an option.
    for (at, value) in [(1, 3), (6, 0), (8, 63), (20, 0x11), (31, 8), (34, 0), (47, 2)] {
        assert_eq!(counts(&[first.clone(), marked(at, value)]), [1, 1], "{at}");
    }
    // Wrong checksums: the receiver shall see that they are.
    for at in [10, 36, 60] {
        let mut wrong = next(ACK, &[1; 10]);
        wrong[at] ^= 1;
        assert_eq!(counts(&[first.clone(), wrong.clone()]), [1, 1], "{at}");
        assert_eq!(counts(&[wrong, tcp(true, 20, ACK, &[1; 10])]), [1, 1], "{at}");
    }
}

#[test]
fn connections_are_put_together_side_by_side_and_keep_their_order() {
    let of = |port: u8, sequence, flags, payload: &[u8]| {
        let mut packet = tcp(true, sequence, flags, payload);
        packet[21] = port;
        packet[36..38].fill(0);
        let sum = checksum::pseudo_header(&packet, PROTOCOL_TCP, packet.len() - 20);
        let sum = checksum::complement_not_zero(checksum::add(sum, &packet[20..]));
        packet[36..38].copy_from_slice(&sum);
        packet
    };
    let packets = [
        of(1, 0, ACK, &[1; 10]),
        of(2, 0, ACK, &[2; 10]),
        of(1, 10, ACK, &[3; 10]),
        of(2, 10, ACK, &[4; 10]),
        of(2, 20, ACK | FIN, &[]),
        of(1, 20, ACK, &[5; 10]),
    ];
    let written = coalesced(&packets);
    assert_eq!(written.iter().map(|(_, _, count)| *count).collect::<Vec<_>>(), [2, 1, 3]);
    assert_eq!(written[1].1, packets[4]);
    // More connections than there is room for.
    let many: Vec<_> = (0..20).map(|port| of(port, 0, ACK, &[1; 10])).collect();
    let mut written: Vec<_> = coalesced(&many).into_iter().map(|(_, packet, _)| packet).collect();
    written.sort();
    assert_eq!(written, many);
}

#[test]
fn no_packet_is_longer_than_ip_allows() {
    let packets: Vec<_> = (0..60).map(|number| tcp(true, number * 1_200, ACK, &[1; 1_200])).collect();
    let written = coalesced(&packets);
    assert!(written.len() == 2 && written.iter().all(|(_, packet, _)| packet.len() <= 65_535));
}

proptest! {
    #[test]
    fn nothing_that_is_read_makes_it_panic(mut read: Vec<u8>, kind in 0_u8..8, version in 0_u8..8) {
        if let Some(first) = read.get_mut(1) {
            *first = kind;
        }
        if let Some(first) = read.get_mut(HEADER_LEN) {
            *first = version << 4 | 5;
        }
        let _ = split(&mut read, &mut Vec::new(), |_| {});
    }

    #[test]
    fn what_is_written_is_what_was_pushed(
        lens in prop::collection::vec(0_usize..40, 1..30),
        flags in prop::collection::vec(0_usize..8, 30),
    ) {
        let mut sequence = 0;
        let packets: Vec<_> = lens
            .iter()
            .zip(flags)
            .map(|(len, flag)| {
                let flags = ACK | [0, 0, 0, 0, 0, PSH, FIN, ECE][flag];
                let mut packet = tcp(true, sequence, flags, &vec![*len as u8; *len]);
                set_identification(&mut packet, 0);
                sequence += *len as u32;
                packet
            })
            .collect();
        let mut written = packets_of(&coalesced(&packets));
        for packet in &mut written {
            set_identification(packet, 0);
        }
        prop_assert_eq!(written, packets);
    }
}
