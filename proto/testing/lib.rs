//! What tests and fuzz targets of several crates use: the values of `proto`'s own tests, and crashes.

use i2plan_proto::{
    address, codec, destination, identity, invite, join, liveness, membership, record, revocation, suspicion,
    wireguard,
};

#[cfg(target_os = "linux")]
pub mod crash;
mod values;

pub use values::*;
