//! What of an IP packet matters here: its addresses, and the answer that its destination cannot be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Headers without options, bytes.
pub(crate) const IPV4_HEADER: usize = 20;
pub(crate) const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Source and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// The addresses of an IP packet; none if it is no IP packet.
pub(super) fn endpoints(packet: &[u8]) -> Option<Endpoints> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER => Some(Endpoints {
            source: Ipv4Addr::from(array::<4>(packet, 12)?).into(),
            destination: Ipv4Addr::from(array::<4>(packet, 16)?).into(),
        }),
        6 if packet.len() >= IPV6_HEADER => Some(Endpoints {
            source: Ipv6Addr::from(array::<16>(packet, 8)?).into(),
            destination: Ipv6Addr::from(array::<16>(packet, 24)?).into(),
        }),
        _ => None,
    }
}

/// The ICMP message that tells the sender of `packet` that there is no way to its destination (RFC 792 and
/// RFC 4443: host or address unreachable); none where such messages are forbidden.
///
/// It comes from the destination's own address: a packet with a source that is local to this host, as the
/// interface's address is, would be discarded as forged by the kernel.
pub(super) fn unreachable(packet: &[u8]) -> Option<Vec<u8>> {
    match endpoints(packet)? {
        Endpoints { source: IpAddr::V4(source), destination: IpAddr::V4(destination) } => {
            unreachable_v4(packet, source, destination)
        }
        Endpoints { source: IpAddr::V6(source), destination: IpAddr::V6(destination) } => {
            unreachable_v6(packet, source, destination)
        }
        _ => None,
    }
}

fn unreachable_v4(packet: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Option<Vec<u8>> {
    // RFC 1122, section 3.2.2: never about errors, what goes to many, fragments but the first, or what has
    // no single source.
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    let is_fragment = u16::from_be_bytes(array(packet, 6)?) & 0x1fff != 0;
    let about_error = packet[9] == ICMP && matches!(packet.get(header_len)?, 3 | 4 | 5 | 11 | 12);
    let to_many = destination.is_multicast() || destination.is_broadcast();
    let from_none = source.is_unspecified() || source.is_multicast() || source.is_broadcast();
    if is_fragment || about_error || to_many || from_none {
        return None;
    }
    // RFC 1812, section 4.3.2.3: as much of the packet as fits into 576 bytes.
    let quote = &packet[..packet.len().min(576 - IPV4_HEADER - ICMP_HEADER)];
    let len = IPV4_HEADER + ICMP_HEADER + quote.len();
    let mut reply = Vec::with_capacity(len);
    reply.extend_from_slice(&[0x45, 0]);
    reply.extend_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    reply.extend_from_slice(&[0, 0, 0, 0, 64, ICMP, 0, 0]);
    reply.extend_from_slice(&destination.octets());
    reply.extend_from_slice(&source.octets());
    put_checksum(&mut reply, 0, 10, 0);
    // Type 3, destination unreachable; code 1, host.
    reply.extend_from_slice(&[3, 1, 0, 0, 0, 0, 0, 0]);
    reply.extend_from_slice(quote);
    put_checksum(&mut reply, IPV4_HEADER, IPV4_HEADER + 2, 0);
    Some(reply)
}

fn unreachable_v6(packet: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Option<Vec<u8>> {
    // RFC 4443, section 2.4 (e).
    let about_error = packet[6] == ICMPV6 && packet.get(IPV6_HEADER)? & 0x80 == 0;
    if about_error || destination.is_multicast() || source.is_unspecified() || source.is_multicast() {
        return None;
    }
    let quote = &packet[..packet.len().min(1280 - IPV6_HEADER - ICMP_HEADER)];
    let len = ICMP_HEADER + quote.len();
    let mut reply = Vec::with_capacity(IPV6_HEADER + len);
    reply.extend_from_slice(&[0x60, 0, 0, 0]);
    reply.extend_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    reply.extend_from_slice(&[ICMPV6, 64]);
    reply.extend_from_slice(&destination.octets());
    reply.extend_from_slice(&source.octets());
    // Type 1, destination unreachable; code 3, address.
    reply.extend_from_slice(&[1, 3, 0, 0, 0, 0, 0, 0]);
    reply.extend_from_slice(quote);
    let pseudo_header = sum(&reply[8..IPV6_HEADER]) + u32::try_from(len).ok()? + u32::from(ICMPV6);
    put_checksum(&mut reply, IPV6_HEADER, IPV6_HEADER + 2, pseudo_header);
    Some(reply)
}

/// Writes the internet checksum (RFC 1071) of everything from `from` on to `at`, where there are zeros.
fn put_checksum(bytes: &mut [u8], from: usize, at: usize, initial: u32) {
    let checksum = !fold(sum(&bytes[from..]) + initial);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The sum of the 16-bit words. Packets are far too short for it to overflow.
fn sum(bytes: &[u8]) -> u32 {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    words.sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    ((once >> 16) + (once & 0xffff)) as u16
}

fn array<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A UDP packet with 32 bytes of payload.
    pub(crate) fn udp(source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0];
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0x60, 0, 0, 0, 0, 40, 17, 64];
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet
            }
            _ => panic!("one family"),
        };
        packet.extend_from_slice(&[0; 40]);
        packet
    }

    fn v4() -> Vec<u8> {
        udp("10.42.0.1".parse().unwrap(), "10.42.0.9".parse().unwrap())
    }

    fn v6() -> Vec<u8> {
        udp("fd00::1".parse().unwrap(), "fd00::9".parse().unwrap())
    }

    #[test]
    fn addresses_are_found() {
        let found = endpoints(&v4()).unwrap();
        assert_eq!(
            (found.source.to_string(), found.destination.to_string()),
            ("10.42.0.1".into(), "10.42.0.9".into())
        );
        let found = endpoints(&v6()).unwrap();
        assert_eq!(
            (found.source.to_string(), found.destination.to_string()),
            ("fd00::1".into(), "fd00::9".into())
        );
        assert_eq!(endpoints(&v4()[..19]), None);
        assert_eq!(endpoints(&v6()[..39]), None);
        assert_eq!(endpoints(&[0x50; 60]), None);
    }

    #[test]
    fn unreachable_goes_back_and_quotes_the_packet() {
        for packet in [v4(), v6()] {
            let reply = unreachable(&packet).unwrap();
            let (there, back) = (endpoints(&packet).unwrap(), endpoints(&reply).unwrap());
            assert_eq!((back.source, back.destination), (there.destination, there.source));
            assert!(reply.ends_with(&packet));
        }
    }

    #[test]
    fn checksums_verify() {
        let reply = unreachable(&v4()).unwrap();
        assert_eq!(fold(sum(&reply[..IPV4_HEADER])), 0xffff);
        assert_eq!(fold(sum(&reply[IPV4_HEADER..])), 0xffff);
        let reply = unreachable(&v6()).unwrap();
        let len = u32::try_from(reply.len() - IPV6_HEADER).unwrap();
        assert_eq!(fold(sum(&reply[8..]) + len + u32::from(ICMPV6)), 0xffff);
    }

    #[test]
    fn nothing_is_said_about_errors_fragments_and_groups() {
        for packet in [v4(), v6()] {
            assert_eq!(unreachable(&unreachable(&packet).unwrap()), None);
        }
        let mut fragment = v4();
        fragment[7] = 1;
        assert_eq!(unreachable(&fragment), None);
        assert_eq!(unreachable(&udp("10.42.0.1".parse().unwrap(), "224.0.0.1".parse().unwrap())), None);
        assert_eq!(unreachable(&udp("fd00::1".parse().unwrap(), "ff02::1".parse().unwrap())), None);
        assert_eq!(unreachable(&udp("::".parse().unwrap(), "fd00::1".parse().unwrap())), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1600), version in any::<bool>()) {
            if let Some(first) = bytes.first_mut() {
                *first = if version { 0x60 } else { 0x40 | *first & 0x0f };
            }
            if let Some(reply) = unreachable(&bytes) {
                prop_assert!(reply.len() <= 1280);
                prop_assert!(endpoints(&reply).is_some());
            }
        }
    }
}
