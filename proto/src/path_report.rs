//! What a node tells a peer of the datagrams that have come from it: how many, which is the newest, and when they came.
//!
//! A report goes through the WireGuard session as an IPv6 packet that no program on a host can send or see: its source
//! is the unspecified address, which belongs to no peer, so that other implementations drop it by cryptokey routing.
//! Counts are cumulative, so that a lost report costs nothing. Nothing is stamped on datagrams: their sender remembers
//! when it sent which, and a report names them by receiver index and WireGuard counter.

use crate::codec::{Codec, DecodeError, Reader, put_list};

/// Units of time in a second: a report counts in sixteenths of a millisecond.
pub const TICKS_PER_SECOND: u32 = 16_000;

/// Longest time that a report may name, in ticks: a minute. What came longer ago says nothing of the path.
pub const MAX_TICKS: u32 = 60 * TICKS_PER_SECOND;

/// Most datagrams whose arrival a report names besides the newest.
pub const MAX_EARLIER: usize = 8;

/// Shortest WireGuard data message, bytes: header, counter and tag (WireGuard, section 5.4.6).
const MIN_MESSAGE: u64 = 32;

/// Longest WireGuard data message, bytes: around a packet of 9000 bytes.
const MAX_MESSAGE: u64 = 9032;

/// First counter that a WireGuard session may not use (WireGuard, section 6.1, Reject-After-Messages).
const END_OF_COUNTERS: u64 = u64::MAX - (1 << 13);

/// What begins the content of the packet.
const MAGIC: [u8; 4] = *b"i2pr";

const VERSION: u8 = 1;

const IPV6_HEADER: usize = 40;

/// IPv6: nothing follows the header (RFC 8200, section 4.7), so that a stack that gets the packet discards it.
const NO_NEXT_HEADER: u8 = 59;

/// `ff12::6932:7072`: a transient multicast group of link-local scope (RFC 4291, section 2.7) that nobody joins.
const GROUP: [u8; 16] = [0xff, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x69, 0x32, 0x70, 0x72];

/// A datagram that came before the newest, and after those of the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierArrival {
    /// How much smaller its counter is than the newest's; it has the same receiver index.
    pub distance: u16,
    /// How long before the newest it came, in ticks.
    pub age: u32,
}

impl Codec for EarlierArrival {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.distance.to_be_bytes());
        out.extend_from_slice(&self.age.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { distance: reader.u16("distance of a datagram")?, age: ticks(reader, "age of a datagram")? })
    }
}

/// What has come from a peer since the receiver began to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathReport {
    /// A random number of the receiver's count. With another number, all counts begin anew.
    pub epoch: u32,
    /// WireGuard data messages that were accepted, of all sessions together.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The receiver index of the newest of them.
    pub index: u32,
    /// The counter of the newest of them.
    pub counter: u64,
    /// When the newest came, in ticks of the receiver's clock, which begins anywhere and wraps.
    pub arrival: u32,
    /// How long after that this report was made, in ticks.
    pub held: u32,
    /// Others, from late to early.
    pub earlier: Vec<EarlierArrival>,
}

impl Codec for PathReport {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.packets.to_be_bytes());
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
        out.extend_from_slice(&self.arrival.to_be_bytes());
        out.extend_from_slice(&self.held.to_be_bytes());
        put_list(out, &self.earlier);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.array::<4>("path report")? != MAGIC {
            return Err(DecodeError::Invalid { what: "path report", why: "it begins with something else" });
        }
        match reader.u8("path report")? {
            VERSION => {}
            version => return Err(DecodeError::Version { what: "path report", version }),
        }
        let report = Self {
            epoch: reader.u32("epoch")?,
            packets: reader.u64("count of packets")?,
            bytes: reader.u64("count of bytes")?,
            index: reader.u32("receiver index")?,
            counter: reader.u64("counter")?,
            arrival: reader.u32("time of arrival")?,
            held: ticks(reader, "age of the newest datagram")?,
            earlier: reader.list(MAX_EARLIER, "earlier datagrams")?,
        };
        report.check()?;
        Ok(report)
    }
}

impl PathReport {
    /// The fields that must fit each other.
    fn check(&self) -> Result<(), DecodeError> {
        let invalid = |what, why| Err(DecodeError::Invalid { what, why });
        if self.earlier.len() as u64 >= self.packets {
            return invalid("count of packets", "it is smaller than the number of named datagrams");
        }
        let shortest = self.packets.saturating_mul(MIN_MESSAGE);
        let longest = self.packets.saturating_mul(MAX_MESSAGE);
        if !(shortest..=longest).contains(&self.bytes) {
            return invalid("count of bytes", "so many packets are shorter or longer");
        }
        if self.counter >= END_OF_COUNTERS {
            return invalid("counter", "no session goes that far");
        }
        let (mut distance, mut age) = (0, 0);
        for earlier in &self.earlier {
            if earlier.distance <= distance || earlier.age < age || u64::from(earlier.distance) > self.counter
            {
                return invalid("earlier datagrams", "they are not in order");
            }
            (distance, age) = (earlier.distance, earlier.age);
        }
        Ok(())
    }

    /// The packet that carries the report through a WireGuard session.
    #[must_use]
    pub fn to_packet(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(Self::MAX_PACKET);
        packet.extend_from_slice(&[0x60, 0, 0, 0, 0, 0, NO_NEXT_HEADER, 0]);
        packet.extend_from_slice(&[0; 16]);
        packet.extend_from_slice(&GROUP);
        self.encode(&mut packet);
        let len = u16::try_from(packet.len() - IPV6_HEADER).expect("a report is short");
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet
    }

    /// Length of the longest [`Self::to_packet`], bytes.
    pub const MAX_PACKET: usize = IPV6_HEADER + 46 + 6 * MAX_EARLIER;

    /// Whether a decrypted packet is addressed as reports are; it is for no program then.
    #[must_use]
    pub fn is_packet(packet: &[u8]) -> bool {
        packet.len() >= IPV6_HEADER
            && packet[0] >> 4 == 6
            && packet[8..24] == [0; 16]
            && packet[24..40] == GROUP
    }

    /// Reads a packet that [`Self::is_packet`].
    ///
    /// # Errors
    /// If it is not the packet of a report.
    pub fn from_packet(packet: &[u8]) -> Result<Self, DecodeError> {
        let content = packet.get(IPV6_HEADER..).ok_or(DecodeError::Truncated { what: "path report" })?;
        let report = Self::from_bytes(content)?;
        if packet != report.to_packet() {
            return Err(DecodeError::Invalid { what: "path report", why: "its packet has another header" });
        }
        Ok(report)
    }
}

/// A time of at most [`MAX_TICKS`].
fn ticks(reader: &mut Reader<'_>, what: &'static str) -> Result<u32, DecodeError> {
    match reader.u32(what)? {
        ticks @ 0..=MAX_TICKS => Ok(ticks),
        _ => Err(DecodeError::Invalid { what, why: "it is longer than a minute" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn example() -> PathReport {
        PathReport {
            epoch: 0x0102_0304,
            packets: 1000,
            bytes: 1_312_000,
            index: 0x0500_0006,
            counter: 1023,
            arrival: 0xffff_fff0,
            held: 160,
            earlier: vec![EarlierArrival { distance: 4, age: 28 }, EarlierArrival { distance: 9, age: 63 }],
        }
    }

    fn any_report() -> impl Strategy<Value = PathReport> {
        let earlier = prop::collection::vec((1u16..1000, 0u32..100_000), 0..=MAX_EARLIER);
        (any::<[u32; 3]>(), 9u64..1 << 40, 32u64..=9032, 8000u64..1 << 60, 0..=MAX_TICKS, earlier).prop_map(
            |([epoch, index, arrival], packets, len, counter, held, steps)| {
                let (mut distance, mut age) = (0, 0);
                let earlier = steps.into_iter().map(|(counters, ticks)| {
                    distance += counters;
                    age += ticks;
                    EarlierArrival { distance, age }
                });
                let earlier = earlier.collect();
                PathReport { epoch, packets, bytes: packets * len, index, counter, arrival, held, earlier }
            },
        )
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let hex = concat!(
            "60000000003a3b00",
            "00000000000000000000000000000000",
            "ff120000000000000000000069327072",
            "6932707201",
            "01020304",
            "00000000000003e8",
            "0000000000140500",
            "05000006",
            "00000000000003ff",
            "fffffff0",
            "000000a0",
            "02",
            "00040000001c",
            "00090000003f",
        );
        let packet = example().to_packet();
        assert_eq!(data_encoding::HEXLOWER.encode(&packet), hex);
        assert!(PathReport::is_packet(&packet));
        assert_eq!(PathReport::from_packet(&packet), Ok(example()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: fn(&mut PathReport)| {
            let mut report = example();
            change(&mut report);
            assert!(PathReport::from_bytes(&report.to_bytes()).is_err(), "{report:?}");
        };
        refused(|report| report.packets = 2);
        refused(|report| report.packets = 50_000);
        refused(|report| report.packets = u64::MAX);
        refused(|report| report.bytes = 9_032_001);
        refused(|report| report.counter = u64::MAX - 8192);
        refused(|report| report.counter = 8);
        refused(|report| report.held = MAX_TICKS + 1);
        refused(|report| report.earlier[1].age = MAX_TICKS + 1);
        refused(|report| report.earlier[1].age = 27);
        refused(|report| report.earlier[1].distance = 4);
        refused(|report| report.earlier[0].distance = 0);
        refused(|report| report.earlier = vec![EarlierArrival { distance: 1, age: 0 }; 9]);
    }

    #[test]
    fn only_a_report_is_a_report() {
        let packet = example().to_packet();
        for at in 0..IPV6_HEADER {
            let mut other = packet.clone();
            other[at] ^= 1;
            assert!(PathReport::from_packet(&other).is_err(), "byte {at}");
        }
        let mut other = packet.clone();
        other[IPV6_HEADER + 4] = 2;
        assert_eq!(
            PathReport::from_packet(&other),
            Err(DecodeError::Version { what: "path report", version: 2 })
        );
        assert!(!PathReport::is_packet(&packet[..39]));
    }

    proptest! {
        #[test]
        fn encodings_read_back(report in any_report()) {
            testing::round_trips(&report)?;
            let packet = report.to_packet();
            prop_assert!(packet.len() <= PathReport::MAX_PACKET && PathReport::is_packet(&packet));
            prop_assert_eq!(PathReport::from_packet(&packet), Ok(report));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix: bool) {
            let bytes = if prefix { [&b"i2pr\x01"[..], &bytes].concat() } else { bytes };
            testing::decodes_canonically::<PathReport>(&bytes)?;
            let _ = PathReport::from_packet(&bytes);
        }
    }
}
