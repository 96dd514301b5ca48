//! SAM v3, the protocol of an I2P router's bridge for applications, as far as i2plan speaks it. No I/O.
//!
//! Source: the I2P project's SAM v3 specification. The session itself is opened by `keyd`, on the connection
//! that this side has prepared, because the request carries the destination's private key.

pub mod connection;
pub mod datagram;
pub mod line;

/// The UDP port of a bridge; routers agree on it and it is rarely configured.
pub const UDP_PORT: u16 = 7655;
