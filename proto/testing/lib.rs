//! The values that `proto`'s own tests use, for tests and fuzz targets of other crates.

use i2plan_proto::{
    accusation, address, codec, destination, identity, invite, join, membership, pulse, record, revocation,
    wireguard,
};

mod values;

pub use values::*;
