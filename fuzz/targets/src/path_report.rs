//! What a peer reports of the datagrams that have come from this node.

use i2plan_proto::codec::Codec;
use i2plan_proto::path_report::{EarlierArrival, PathReport};

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    if let Ok(report) = PathReport::from_packet(input) {
        assert!(PathReport::is_packet(input));
        assert_eq!(report.to_packet(), input, "a report has one packet");
    }
    if let Ok(report) = PathReport::from_bytes(input) {
        assert_eq!(report.to_bytes(), input, "a report has one encoding");
        assert!(report.packets > report.earlier.len() as u64);
        assert_eq!(PathReport::from_packet(&report.to_packet()), Ok(report));
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let report = PathReport {
        epoch: 0x0102_0304,
        packets: 1000,
        bytes: 1_312_000,
        index: 0x0500_0006,
        counter: 1023,
        arrival: 0xffff_fff0,
        held: 160,
        earlier: vec![EarlierArrival { distance: 4, age: 28 }, EarlierArrival { distance: 9, age: 63 }],
    };
    let first = PathReport { packets: 1, bytes: 32, counter: 0, earlier: Vec::new(), ..report.clone() };
    vec![
        seed("packet", report.to_packet()),
        seed("first", first.to_packet()),
        seed("content", report.to_bytes()),
        seed("truncated", &report.to_bytes()[..40]),
    ]
}
