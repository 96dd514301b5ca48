//! Packets of TCP connections that follow each other, put together.

use super::{
    ACK, ECE, HEADER_LEN, Header, IPV4_HEADER, IPV6_HEADER, NEEDS_CHECKSUM, NO_OFFLOAD, PROTOCOL_TCP, PSH,
    TCP_CHECKSUM, TCP_FLAGS, TCP_MIN, TCP_OFFSET, TCP_SEQUENCE, TCP_V4, TCP_V6, be16, be32, checksum,
    set_length,
};

/// Connections of which packets are put together at a time.
const MAX_PENDING: usize = 8;

/// The bits of IPv4 that say that more fragments follow, and where this one is (RFC 791, section 3.1).
const FRAGMENT: u16 = 0x3fff;

/// Longest packet, bytes.
const MAX_PACKET: usize = u16::MAX as usize;

/// Puts packets together that are written to an interface one after the other. Only what the kernel's own receive
/// offload would put together is (Linux, net/ipv4/tcp_offload.c, `tcp_gro_receive`): packets of one connection whose
/// headers differ in nothing that a receiver may look at, congestion marks among it, and whose checksums are right.
#[derive(Debug, Default)]
pub struct Coalescer {
    pending: Vec<Pending>,
    /// Which makes room for another connection.
    next: usize,
}

/// What is to be written of a connection.
#[derive(Debug, Default)]
struct Pending {
    packet: Vec<u8>,
    /// Packets in it; none if it is of no connection.
    count: usize,
    transport: usize,
    headers: usize,
    /// Payload of the first.
    segment: usize,
    /// The sequence number of the next.
    sequence: u32,
    /// Nothing may follow a shorter packet, or one with PSH.
    is_closed: bool,
}

/// A TCP packet that is no fragment.
struct Tcp {
    transport: usize,
    /// Where its payload begins, if it is one that can be put together with others.
    headers: Option<usize>,
}

impl Coalescer {
    /// Takes the next packet. What cannot wait for others is written: a header, what follows it, and how many packets
    /// that are.
    pub fn push(&mut self, packet: &[u8], mut write: impl FnMut(&[u8; HEADER_LEN], &[u8], usize)) {
        let Some(tcp) = Tcp::parse(packet) else {
            return write(&NO_OFFLOAD, packet, 1);
        };
        let known = self.pending.iter().position(|pending| pending.is_of(packet, tcp.transport));
        if let Some(pending) = known.map(|known| &mut self.pending[known]) {
            if tcp.headers.is_some_and(|headers| pending.append(packet, headers)) {
                return;
            }
            // Nothing overtakes within a connection.
            pending.write(&mut write);
        }
        match tcp.headers {
            Some(headers) => self.room(known, &mut write).start(packet, tcp.transport, headers),
            None => write(&NO_OFFLOAD, packet, 1),
        }
    }

    /// Writes all that waits.
    pub fn flush(&mut self, mut write: impl FnMut(&[u8; HEADER_LEN], &[u8], usize)) {
        for pending in &mut self.pending {
            pending.write(&mut write);
        }
    }

    fn room(
        &mut self,
        known: Option<usize>,
        write: &mut impl FnMut(&[u8; HEADER_LEN], &[u8], usize),
    ) -> &mut Pending {
        let free = known.or_else(|| self.pending.iter().position(|pending| pending.count == 0));
        let index = free.unwrap_or_else(|| {
            if self.pending.len() < MAX_PENDING {
                self.pending.push(Pending::default());
                return self.pending.len() - 1;
            }
            self.next = (self.next + 1) % MAX_PENDING;
            self.next
        });
        let pending = &mut self.pending[index];
        pending.write(write);
        pending
    }
}

impl Pending {
    fn start(&mut self, packet: &[u8], transport: usize, headers: usize) {
        self.packet.extend_from_slice(packet);
        self.count = 1;
        (self.transport, self.headers) = (transport, headers);
        self.segment = packet.len() - headers;
        self.sequence = be32(packet, transport + TCP_SEQUENCE).wrapping_add(self.segment as u32);
        self.is_closed = packet[transport + TCP_FLAGS] & PSH != 0;
    }

    /// Whether a TCP packet is of the same connection: with the same addresses and ports.
    fn is_of(&self, packet: &[u8], transport: usize) -> bool {
        let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
        self.count > 0
            && (self.transport, self.packet[0] >> 4) == (transport, packet[0] >> 4)
            && self.packet[addresses.clone()] == packet[addresses]
            && self.packet[transport..transport + 4] == packet[transport..transport + 4]
    }

    /// Adds a packet of the same connection. Returns whether it could be.
    fn append(&mut self, packet: &[u8], headers: usize) -> bool {
        let (transport, payload) = (self.transport, &packet[headers..]);
        let follows = !self.is_closed
            && headers == self.headers
            && payload.len() <= self.segment
            && self.packet.len() + payload.len() <= MAX_PACKET
            && be32(packet, transport + TCP_SEQUENCE) == self.sequence;
        if !follows || !self.has_headers_of(packet) || !is_valid(packet, transport) {
            return false;
        }
        if self.count == 1 && !is_valid(&self.packet, transport) {
            return false;
        }
        let flags = packet[transport + TCP_FLAGS];
        self.packet[transport + TCP_FLAGS] |= flags & PSH;
        self.packet.extend_from_slice(payload);
        self.count += 1;
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        self.is_closed = payload.len() < self.segment || flags & PSH != 0;
        true
    }

    /// Whether headers as long as its own are the same but for lengths, IPv4's identification, checksums, sequence number
    /// and PSH.
    fn has_headers_of(&self, packet: &[u8]) -> bool {
        let (transport, headers) = (self.transport, self.headers);
        let same = |from: usize, to: usize| self.packet[from..to] == packet[from..to];
        let ip = if packet[0] >> 4 == 4 {
            same(0, 2) && same(6, 10) && same(12, transport)
        } else {
            same(0, 4) && same(6, transport)
        };
        let flags = transport + TCP_FLAGS;
        ip && same(transport, transport + TCP_SEQUENCE)
            && same(transport + TCP_SEQUENCE + 4, flags)
            && (self.packet[flags] | PSH) == (packet[flags] | PSH)
            && same(flags + 1, transport + TCP_CHECKSUM)
            && same(transport + TCP_CHECKSUM + 2, headers)
    }

    /// Writes it, if there is anything.
    fn write(&mut self, write: &mut impl FnMut(&[u8; HEADER_LEN], &[u8], usize)) {
        let Self { packet, count, transport, headers, segment, .. } = self;
        match count {
            0 => return,
            1 => write(&NO_OFFLOAD, packet, 1),
            _ => {
                set_length(packet, *transport);
                // The kernel completes it.
                let sum = checksum::pseudo_header(packet, PROTOCOL_TCP, packet.len() - *transport);
                let at = *transport + TCP_CHECKSUM;
                packet[at..at + 2].copy_from_slice(&checksum::fold(sum));
                let header = Header {
                    flags: NEEDS_CHECKSUM,
                    kind: if packet[0] >> 4 == 4 { TCP_V4 } else { TCP_V6 },
                    // All of them are parts of one packet.
                    segment: *segment as u16,
                    checksum_start: *transport as u16,
                    checksum_offset: TCP_CHECKSUM as u16,
                };
                write(&header.encode(*headers as u16), packet, *count);
            }
        }
        packet.clear();
        *count = 0;
    }
}

impl Tcp {
    fn parse(packet: &[u8]) -> Option<Self> {
        let (least, transport, protocol, len) = match packet.first()? >> 4 {
            4 if packet.len() >= IPV4_HEADER && be16(packet, 6) & FRAGMENT == 0 => {
                (IPV4_HEADER, usize::from(packet[0] & 0x0f) * 4, packet[9], usize::from(be16(packet, 2)))
            }
            6 if packet.len() >= IPV6_HEADER => {
                (IPV6_HEADER, IPV6_HEADER, packet[6], IPV6_HEADER + usize::from(be16(packet, 4)))
            }
            _ => return None,
        };
        if protocol != PROTOCOL_TCP || transport < least || packet.len() < transport + TCP_MIN {
            return None;
        }
        let headers = transport + usize::from(packet[transport + TCP_OFFSET] >> 4) * 4;
        let flags = packet[transport + TCP_FLAGS];
        let joins = len == packet.len()
            && transport == least
            && headers >= transport + TCP_MIN
            && headers < packet.len()
            && flags & ACK != 0
            && flags & !(ACK | PSH | ECE) == 0;
        Some(Self { transport, headers: joins.then_some(headers) })
    }
}

/// Whether the checksums of a TCP packet are right.
fn is_valid(packet: &[u8], transport: usize) -> bool {
    let ip = packet[0] >> 4 == 6 || checksum::is_valid(checksum::add(0, &packet[..transport]));
    let sum = checksum::pseudo_header(packet, PROTOCOL_TCP, packet.len() - transport);
    ip && checksum::is_valid(checksum::add(sum, &packet[transport..]))
}
