//! What Linux leaves to the reader and the writer of an interface with offloads: packets that are cut into segments
//! after they were read ([`split()`]) and put together before they are written ([`Coalescer`]). So one system call and one
//! way through the kernel's network stack is for many packets of a connection.
//!
//! Each packet is preceded by a header (Linux, include/uapi/linux/virtio_net.h, `virtio_net_hdr`). Nothing here does input
//! or output.

mod checksum;
mod coalesce;
mod split;
#[cfg(test)]
pub(crate) mod tests;

pub use coalesce::Coalescer;
pub use split::{MalformedPacket, split};

use crate::tunnel::ip::{IPV4_HEADER, IPV6_HEADER};

/// Bytes before each packet, in both directions.
pub const HEADER_LEN: usize = 10;

/// Longest packet with its header, bytes.
const MAX_READ: usize = HEADER_LEN + u16::MAX as usize;

/// Room for what is read from an interface, and for a segment of it.
#[derive(Debug)]
pub struct ReadBuffer {
    /// Room for the longest packet with its header.
    pub read: Box<[u8]>,
    segment: Vec<u8>,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self { read: vec![0; MAX_READ].into(), segment: Vec::new() }
    }
}

impl ReadBuffer {
    /// Hands on each packet of what was read, of this length.
    ///
    /// # Errors
    /// As [`split()`].
    pub fn split(&mut self, len: usize, take: impl FnMut(&[u8])) -> Result<(), MalformedPacket> {
        split(&mut self.read[..len], &mut self.segment, take)
    }
}

/// The header of a packet that is complete as it is.
pub const NO_OFFLOAD: [u8; HEADER_LEN] = [0; HEADER_LEN];

/// Flag: the checksum field has the sum of the pseudo-header alone.
const NEEDS_CHECKSUM: u8 = 1;

/// How it is cut into segments.
const WHOLE: u8 = 0;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
/// Beside one of these for TCP: the first segment alone keeps CWR (RFC 3168, section 6.1.2).
const ECN: u8 = 0x80;

/// Protocol numbers of IP.
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Flags of TCP (RFC 9293, section 3.1), and where they and the other fields are in its header.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
const TCP_SEQUENCE: usize = 4;
const TCP_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_MIN: usize = 20;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;
const UDP_HEADER: usize = 8;

/// What the kernel says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    flags: u8,
    kind: u8,
    /// Payload of each segment but the last, bytes.
    segment: u16,
    /// Where the transport header begins.
    checksum_start: u16,
    /// Where the checksum is in that.
    checksum_offset: u16,
}

impl Header {
    fn decode(bytes: [u8; HEADER_LEN]) -> Self {
        let [flags, kind, _, _, s0, s1, start0, start1, offset0, offset1] = bytes;
        Self {
            flags,
            kind,
            segment: u16::from_ne_bytes([s0, s1]),
            checksum_start: u16::from_ne_bytes([start0, start1]),
            checksum_offset: u16::from_ne_bytes([offset0, offset1]),
        }
    }

    /// With the length of the packet's headers.
    fn encode(self, headers: u16) -> [u8; HEADER_LEN] {
        let [h0, h1] = headers.to_ne_bytes();
        let [s0, s1] = self.segment.to_ne_bytes();
        let [start0, start1] = self.checksum_start.to_ne_bytes();
        let [offset0, offset1] = self.checksum_offset.to_ne_bytes();
        [self.flags, self.kind, h0, h1, s0, s1, start0, start1, offset0, offset1]
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes the length into an IP header, and the checksum into one of IPv4 of `header` bytes.
fn set_length(packet: &mut [u8], header: usize) {
    // A packet is not longer than fits: it has been read or put together as one.
    let len = packet.len();
    if packet[0] >> 4 == 4 {
        put16(packet, 2, len as u16);
        packet[10..12].fill(0);
        let sum = checksum::complement(checksum::add(0, &packet[..header]));
        packet[10..12].copy_from_slice(&sum);
    } else {
        put16(packet, 4, (len - IPV6_HEADER) as u16);
    }
}
