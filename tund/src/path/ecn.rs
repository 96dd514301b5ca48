//! Explicit congestion notification in inner packets (RFC 3168).

const CE: u8 = 3;

/// Marks a packet that its sender allows to be marked. False if it must be dropped to tell its sender anything.
///
/// The mark is set before encryption: datagrams to a bridge have no IP header of ours that a router on the way could
/// mark, so that there is nothing to copy at either end (RFC 6040).
pub(super) fn mark(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => mark_v4(packet),
        Some(6) if packet.len() >= 40 => mark_v6(packet),
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> bool {
    if packet[1] & CE == 0 {
        return false;
    }
    let before = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] |= CE;
    let after = u16::from_be_bytes([packet[0], packet[1]]);
    // RFC 1624, equation 3.
    let checksum = u16::from_be_bytes([packet[10], packet[11]]);
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    true
}

fn mark_v6(packet: &mut [u8]) -> bool {
    // The traffic class lies across the first two bytes; its lowest two bits are those.
    if packet[1] >> 4 & CE == 0 {
        return false;
    }
    packet[1] |= CE << 4;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ecn: u8, id: u16) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0xb8 | ecn, 0, 20, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2];
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        let checksum = !sum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn sum(bytes: &[u8]) -> u16 {
        let mut sum: u32 =
            bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn marked_packets_stay_valid() {
        for ecn in 1..=3 {
            for id in 0..=u16::MAX {
                let mut packet = v4(ecn, id);
                assert!(mark(&mut packet));
                assert_eq!((packet[1], sum(&packet)), (0xb8 | CE, 0xffff));
            }
            let mut packet = vec![0; 40];
            packet[..4].copy_from_slice(&[0x6a, ecn << 4 | 0x8f, 0xff, 0xff]);
            assert!(mark(&mut packet));
            assert_eq!(packet[..4], [0x6a, 0xbf, 0xff, 0xff]);
        }
    }

    #[test]
    fn what_may_not_be_marked_is_untouched() {
        for packet in
            [v4(0, 1), [&[0x6f, 0xcf][..], &[0xff; 38]].concat(), vec![0x45, 1], vec![0x65; 39], vec![]]
        {
            let mut marked = packet.clone();
            assert!(!mark(&mut marked));
            assert_eq!(marked, packet);
        }
    }
}
