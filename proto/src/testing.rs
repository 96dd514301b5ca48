//! What properties are about and say, and the values of the crate `i2plan-testing`.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::codec::Codec;
use crate::destination::Destination;
use crate::identity::NodeId;
use crate::{
    address, codec, destination, identity, invite, join, liveness, membership, record, revocation, suspicion,
    wireguard,
};

#[path = "../testing/values.rs"]
mod values;

pub use values::*;

pub(crate) fn any_node() -> impl Strategy<Value = NodeId> {
    any::<u8>().prop_map(node)
}

pub(crate) fn any_destination() -> impl Strategy<Value = Destination> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(padding, signing_key)| Destination { padding, signing_key })
}

/// A value decodes from its encoding, and its encoding cut anywhere does not.
pub(crate) fn round_trips<T: Codec + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = value.to_bytes();
    let decoded = T::from_bytes(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    for len in 0..bytes.len() {
        prop_assert!(T::from_bytes(&bytes[..len]).is_err(), "cut to {} bytes", len);
    }
    Ok(())
}

/// Bytes that decode are the encoding of what they decode to.
pub(crate) fn decodes_canonically<T: Codec>(bytes: &[u8]) -> Result<(), TestCaseError> {
    decode_canonically::<T>(bytes);
    Ok(())
}
