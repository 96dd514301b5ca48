//! A member's record.

use i2plan_proto::codec::Codec as _;
use i2plan_proto::identity::Signed;
use i2plan_proto::record::{NodeName, Record};
use i2plan_proto::testing;

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
    assert_eq!(NodeName::of_member(&name).as_ref(), Ok(&value.name));
    assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    assert_eq!(value.ipv6().octets()[0], 0xfd);
    for now in [0, value.issued_at, value.wireguard.value.not_after, u64::MAX] {
        let _ = value.wireguard.value.is_valid_at(now);
    }
    assert!(
        record.verify_for(&testing::charter(9).network()).is_err(),
        "no member of that network signs here"
    );
    if record.verify_for(&testing::charter(0).network()).is_ok() {
        let signer = (0..=8).find(|number| testing::node(*number) == value.node);
        let signer = signer.expect("a record of a node that never was");
        assert_eq!(*record, testing::record(signer), "a record was forged");
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
    seeds
}
