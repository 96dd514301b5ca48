//! SAM v3, the protocol of an I2P router's bridge for applications, as far as i2plan speaks it. No I/O.
//!
//! Source: the I2P project's SAM v3 specification. Greeting and opening the session is `keyd`'s, because that request
//! carries the destination's private key; `meshd` gets the connection afterwards.

pub mod connection;
pub mod datagram;
pub mod line;
