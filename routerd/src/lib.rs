//! i2plan's optional I2P router, for machines without one: emissary as a process of its own.
//!
//! * [`identity`]: the router's own keys.
//! * [`known`]: the other routers that it knows, no I/O.
//! * [`seed`]: where it learns of the first of them.
//! * [`store`]: the files that it keeps these in.
//! * [`runtime`]: what emissary needs of its surroundings.
//! * [`daemon`]: the process around the router.
//! * [`walls`]: what the process may do.

pub mod daemon;
pub mod identity;
pub mod known;
pub mod runtime;
pub mod seed;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod walls;

/// The id of the I2P network that everybody means (I2P's common structures specification, `netId`).
pub const PUBLIC_NETWORK: u8 = 2;
