//! Echo requests and replies (RFC 792, RFC 4443).

use std::net::IpAddr;

/// Bytes of an echo request's payload, as `ping` sends.
pub const PAYLOAD: usize = 56;

const HEADER: usize = 8;

/// What tells the replies to one program's requests from all others: it stands in the payload, because the kernel
/// chooses the identifier of a socket without privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; 8]);

/// An echo request. The kernel fills in the checksum of ICMPv6.
#[must_use]
pub fn request(target: IpAddr, token: Token, sequence: u16) -> Vec<u8> {
    let kind = if target.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0, token.0[0], token.0[1]];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&token.0);
    packet.resize(HEADER + PAYLOAD, 0x5a);
    if target.is_ipv4() {
        let checksum = checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The sequence number of a reply to a request with this token, if that is what the bytes are. `header` tells that an
/// IPv4 header may come first, as it does on raw sockets.
#[must_use]
pub fn reply(packet: &[u8], target: IpAddr, token: Token, header: bool) -> Option<u16> {
    let skipped = if header && target.is_ipv4() { usize::from(packet.first()? & 0xf) * 4 } else { 0 };
    let kind = if target.is_ipv4() { 0 } else { 129 };
    let packet = packet.get(skipped..)?;
    let (icmp, payload) = packet.split_first_chunk::<HEADER>()?;
    let whole = icmp[0] == kind && icmp[1] == 0 && payload.len() == PAYLOAD && payload.starts_with(&token.0);
    whole.then_some(u16::from_be_bytes([icmp[6], icmp[7]]))
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: Token = Token(*b"a token!");

    fn target(ipv4: bool) -> IpAddr {
        if ipv4 { [192, 0, 2, 1].into() } else { [0xfd12, 0, 0, 0, 0, 0, 0, 1].into() }
    }

    /// What the target makes of a request.
    fn answer(ipv4: bool, sequence: u16) -> Vec<u8> {
        let mut packet = request(target(ipv4), TOKEN, sequence);
        packet[0] = if ipv4 { 0 } else { 129 };
        packet
    }

    #[test]
    fn requests_have_a_right_checksum() {
        let request = request(target(true), TOKEN, 9);
        assert_eq!(checksum(&request), 0);
        assert_eq!((request.len(), request[0]), (64, 8));
    }

    #[test]
    fn only_a_reply_to_this_program_counts() {
        for ipv4 in [true, false] {
            let good = answer(ipv4, 300);
            assert_eq!(reply(&good, target(ipv4), TOKEN, false), Some(300));
            assert_eq!(reply(&good, target(ipv4), Token(*b"another!"), false), None);
            assert_eq!(reply(&good[..good.len() - 1], target(ipv4), TOKEN, false), None);
            assert_eq!(reply(&good, target(!ipv4), TOKEN, false), None);
            assert_eq!(reply(&request(target(ipv4), TOKEN, 1), target(ipv4), TOKEN, false), None);
        }
    }

    #[test]
    fn raw_sockets_show_the_header_of_ipv4_alone() {
        let raw = [&[0x45; 20][..], &answer(true, 7)].concat();
        assert_eq!(reply(&raw, target(true), TOKEN, true), Some(7));
        assert_eq!(reply(&answer(false, 7), target(false), TOKEN, true), Some(7));
        // A length of header that reaches beyond the end.
        assert_eq!(reply(&[0x4f; 30], target(true), TOKEN, true), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..120), ipv4: bool, header: bool) {
            let _ = reply(&bytes, target(ipv4), TOKEN, header);
        }

        #[test]
        fn every_sequence_number_comes_back(sequence: u16, ipv4: bool) {
            prop_assert_eq!(reply(&answer(ipv4, sequence), target(ipv4), TOKEN, false), Some(sequence));
        }
    }
}
