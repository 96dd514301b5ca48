//! What the kernel has handed over as one packet, cut into those that go over the wire.

use super::{
    CWR, ECN, FIN, HEADER_LEN, Header, IPV4_HEADER, IPV6_HEADER, NEEDS_CHECKSUM, PROTOCOL_TCP, PROTOCOL_UDP,
    PSH, TCP_CHECKSUM, TCP_FLAGS, TCP_MIN, TCP_OFFSET, TCP_SEQUENCE, TCP_V4, TCP_V6, UDP, UDP_CHECKSUM,
    UDP_HEADER, UDP_LENGTH, WHOLE, be16, be32, checksum, put16, set_length,
};

/// A header that does not fit its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the offload header does not fit the packet")]
pub struct MalformedPacket;

/// Hands on each packet of what was read from an interface, which begins with its header. `segment` is room for one.
///
/// # Errors
/// [`MalformedPacket`]; nothing was handed on then.
pub fn split(
    read: &mut [u8],
    segment: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]),
) -> Result<(), MalformedPacket> {
    let (header, packet) = read.split_first_chunk_mut::<HEADER_LEN>().ok_or(MalformedPacket)?;
    let header = Header::decode(*header);
    let start = usize::from(header.checksum_start);
    if header.kind == WHOLE {
        if header.flags & NEEDS_CHECKSUM != 0 {
            complete_checksum(packet, start, start + usize::from(header.checksum_offset))?;
        }
        take(packet);
        return Ok(());
    }
    let whole = Whole::parse(packet, &header)?;
    let (headers, payload) = packet.split_at(whole.headers);
    let segments = payload.chunks(usize::from(header.segment));
    let last = segments.len() - 1;
    for (number, payload) in segments.enumerate() {
        segment.clear();
        segment.extend_from_slice(headers);
        segment.extend_from_slice(payload);
        whole.complete(segment, number, number == last, header.segment);
        take(segment);
    }
    Ok(())
}

/// The checksum of a packet whose field has the sum of the pseudo-header.
fn complete_checksum(packet: &mut [u8], start: usize, at: usize) -> Result<(), MalformedPacket> {
    if start > at || at + 2 > packet.len() {
        return Err(MalformedPacket);
    }
    let sum = checksum::complement_not_zero(checksum::add(0, &packet[start..]));
    packet[at..at + 2].copy_from_slice(&sum);
    Ok(())
}

/// A packet to be cut.
struct Whole {
    protocol: u8,
    /// Where the transport header begins and ends.
    transport: usize,
    headers: usize,
}

impl Whole {
    /// Of the header's lengths that of all headers is not looked at: for packets that the host forwards it is another
    /// one (wireguard-go, tun/offload_linux.go).
    fn parse(packet: &[u8], header: &Header) -> Result<Self, MalformedPacket> {
        let transport = usize::from(header.checksum_start);
        let version = packet.first().map(|first| first >> 4);
        let has_ip_header = match version {
            Some(4) => transport == usize::from(packet[0] & 0x0f) * 4 && transport >= IPV4_HEADER,
            Some(6) => transport >= IPV6_HEADER,
            _ => false,
        };
        let protocol = match (header.kind & !ECN, version) {
            (TCP_V4, Some(4)) | (TCP_V6, Some(6)) => PROTOCOL_TCP,
            (UDP, _) => PROTOCOL_UDP,
            _ => return Err(MalformedPacket),
        };
        let transport_len = if protocol == PROTOCOL_TCP {
            let offset = packet.get(transport + TCP_OFFSET).map_or(0, |byte| usize::from(byte >> 4) * 4);
            Some(offset).filter(|offset| *offset >= TCP_MIN)
        } else {
            Some(UDP_HEADER)
        };
        let headers = transport + transport_len.ok_or(MalformedPacket)?;
        let whole = Self { protocol, transport, headers };
        let has_payload = packet.len() > headers && packet.len() <= usize::from(u16::MAX);
        if has_ip_header && has_payload && header.segment > 0 { Ok(whole) } else { Err(MalformedPacket) }
    }

    /// Makes a segment of what has the headers of the whole packet before its own payload.
    fn complete(&self, segment: &mut [u8], number: usize, is_last: bool, payload: u16) {
        let Self { protocol, transport, .. } = *self;
        if segment[0] >> 4 == 4 {
            // Fewer than the payload has bytes.
            let id = be16(segment, 4).wrapping_add(number as u16);
            put16(segment, 4, id);
        }
        set_length(segment, transport);
        let sum = checksum::pseudo_header(segment, protocol, segment.len() - transport);
        let segment = &mut segment[transport..];
        let at = if protocol == PROTOCOL_TCP {
            let sequence = be32(segment, TCP_SEQUENCE).wrapping_add(number as u32 * u32::from(payload));
            segment[TCP_SEQUENCE..TCP_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
            if number > 0 {
                segment[TCP_FLAGS] &= !CWR;
            }
            if !is_last {
                segment[TCP_FLAGS] &= !(FIN | PSH);
            }
            TCP_CHECKSUM
        } else {
            let len = segment.len() as u16;
            put16(segment, UDP_LENGTH, len);
            UDP_CHECKSUM
        };
        segment[at..at + 2].fill(0);
        let sum = checksum::complement_not_zero(checksum::add(sum, segment));
        segment[at..at + 2].copy_from_slice(&sum);
    }
}
