//! A member's record.

use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::DestinationRole;
use i2plan_proto::identity::Signed;
use i2plan_proto::record::{NodeName, Record};
use i2plan_testing as testing;

use crate::{Seeds, seed};

/// Runs the target.
pub fn run(input: &[u8]) {
    if let Some(record) = testing::decode_canonically::<Signed<Record>>(input) {
        check(&record);
    }
}

/// A record that verifies is one that its node has signed, bit for bit; of any record what people are shown is
/// fit to be shown.
pub(crate) fn check(record: &Signed<Record>) {
    let value = &record.value;
    let name = value.name.to_string();
    assert_eq!(name.parse::<NodeName>().as_ref(), Ok(&value.name));
    assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    for now in [0, value.issued_at, value.wireguard.value.not_after, u64::MAX] {
        let _ = value.wireguard.value.is_valid_at(now);
    }
    assert!(record.verify_for(&testing::charter(9)).is_err(), "no member of that network signs here");
    let charter = testing::charter(0);
    if record.verify_for(&charter).is_ok() {
        let signer = (0..=8).find(|number| testing::node(*number) == value.node);
        let signer = signer.expect("a record of a node that never was");
        let known =
            [testing::record(signer), testing::record_with_primary(signer), testing::largest_record()];
        assert!(known.contains(record), "a record was forged");
        assert!(charter.subnet.is_host(value.ipv4(&charter)));
        for (destination, role) in value.destinations() {
            let proof = destination.verify(&charter.network(), &value.node, role);
            assert_eq!(proof, Ok(()), "a destination that has not agreed");
        }
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds: Seeds =
        [0, 1, 2, 8].map(|depth| seed(format!("depth-{depth}"), testing::record(depth).to_bytes())).into();
    let mut stolen = testing::record(2);
    stolen.value.chain = testing::chain(3);
    seeds.push(seed("stolen", testing::signed(stolen.value, 2).to_bytes()));
    let mut foreign = testing::record(2);
    foreign.value.wireguard = testing::wireguard_certificate(3);
    seeds.push(seed("foreign", testing::signed(foreign.value, 2).to_bytes()));
    let mut directed = testing::record(2);
    directed.value.control = testing::proven(3, 3, DestinationRole::Primary);
    seeds.push(seed("anothers-destination", testing::signed(directed.value, 2).to_bytes()));
    seeds.push(seed("primary", testing::record_with_primary(2).to_bytes()));
    seeds.push(seed("largest", testing::largest_record().to_bytes()));
    seeds
}
