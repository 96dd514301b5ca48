//! SAM v3, the protocol of an I2P router's bridge for applications, as far as i2plan speaks it. No I/O.
//!
//! Source: the I2P project's SAM v3 specification.
//!
//! * [`session`]: greeting the bridge and opening a session. That is `keyd`'s part, because the request carries the
//!   destination's private key; `meshd` gets the connection afterwards.
//! * [`connection`]: the connection of an open session, and its [`mod@line`]s.
//! * [`datagram`]: datagrams to and from the bridge.
//! * [`self_test`]: whether what an open session sends to itself comes back.

pub mod connection;
pub mod datagram;
pub mod line;
pub mod self_test;
pub mod session;
