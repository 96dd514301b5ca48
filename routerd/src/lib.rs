//! i2plan's optional I2P router, for machines without one: emissary as a process of its own.
//!
//! * [`identity`]: the router's own keys.
//! * [`known`]: the other routers that it knows, no I/O.
//! * [`seed`]: where it learns of the first of them.
//! * [`store`]: the files that it keeps these in.
//! * [`runtime`]: what emissary needs of its surroundings; [`router`]: starts it on that.
//! * [`daemon`]: the process around the router.
//! * [`sandbox`]: what the process may do.

pub mod daemon;
pub mod identity;
pub mod known;
pub mod router;
pub mod runtime;
pub mod sandbox;
pub mod seed;
pub mod store;
#[cfg(test)]
pub mod testing;

/// The id of the I2P network that everybody means (I2P's common structures specification, `netId`).
pub const PUBLIC_NETWORK: u8 = 2;

/// How often emissary tells of its state, in seconds. When it does, it forgets what each tunnel that it carries
/// for others has carried until then; and two minutes after a tunnel's beginning it ends those that have carried
/// nothing that it remembers. With a time shorter than that nearly every tunnel with little traffic would end, and
/// the routers at its ends would not know for the rest of its ten minutes (emissary-core 0.4).
pub const EVENTS_EVERY: usize = 125;
