//! i2plan's isolated daemon: holds every long-term private key of a node, and signs.
//!
//! * [`keys`]: the keys, what is derived from them, and their form on disk. No I/O.
//! * [`memory`]: what is remembered beside the keys: the counter, the delegations, the epochs. No I/O.
//! * [`policy`]: what is checked before anything is signed. No I/O.
//! * [`orders`]: orders of an administrator that wait to be confirmed. No I/O.
//! * [`seal`]: keys sealed with a passphrase, and their form on disk. No I/O.
//! * [`store`]: the file that holds the keys.
//! * [`unlock`]: where the passphrase comes from.
//! * [`dialing`]: connections to the SAM bridge, which the connector makes.
//! * [`session`]: opens SAM sessions on them.
//! * [`service`]: the requests, answered.
//! * [`sandbox`]: what the process may do.

pub mod dialing;
pub mod keys;
pub mod memory;
pub mod orders;
pub mod policy;
pub mod sandbox;
pub mod seal;
pub mod service;
pub mod session;
pub mod store;
pub mod unlock;
