//! WireGuard over I2P, for a program with a WireGuard device of its own: datagrams to and from other destinations through
//! the SAM bridge of an I2P router. No daemon of i2plan is needed.
//!
//! A [`Transport`] keeps a session open under one destination. It sends datagrams to [`Endpoint`]s, and receives those
//! that others send to its destination: in the [repliable](Style::Datagram) style with the sender's destination, which the
//! router has checked, in the [raw](Style::Raw) style without.
//!
//! ```no_run
//! use i2plan_transport::{Config, Endpoint, Keys, Style, Transport};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Transient; `text.parse()` reads keys that were saved.
//! let keys = Keys::generate();
//! let mut transport = Transport::start(Config::new(keys, Style::Datagram))?;
//! println!("my endpoint is {}", transport.destination().hash().b32());
//! transport.up().await;
//! let peer: Endpoint = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst.b32.i2p".parse()?;
//! transport.send(&peer, b"a WireGuard message")?;
//! while let Some(datagram) = transport.recv().await {
//!     println!("{:?} sends {} bytes", datagram.from, datagram.payload.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/boringtun.rs` runs WireGuard through it. One WireGuard message is one datagram. In the repliable style a
//! device may take [`Datagram::from`] of a packet that it has authenticated for its peer's endpoint: that is how WireGuard
//! roams. With the raw style it needs the endpoints of all its peers, and datagrams are about 450 bytes shorter. Both
//! ends must have the same style.
//!
//! # What it does for a device
//! * It finds the UDP port of the bridge, and counts as [up](State::Up) when the session has carried a datagram to itself.
//! * It looks up the destinations of `….b32.i2p` endpoints once, and addresses datagrams in the form that all routers take.
//! * It opens a session again that is lost, under the same destination, after a time that depends on the
//!   [cause](retry::Cause).
//!
//! # What it does not do
//! * It does not encrypt: I2P does between destinations, WireGuard between peers. Raw datagrams are not authenticated.
//! * It does not pace: a bridge drops what is too much for it without a word.
//! * It does not find out that a session which is open has ceased to carry datagrams: a device that is not answered for
//!   long can [renew](Transport::renew) it.
//! * It keeps the private keys of its destination in the memory of the program.
//!
//! # Parts
//! [`Core`] is the state machine of a transport without its sockets, for another runtime than tokio; SAM's codec is in
//! `i2plan_proto::sam`. [`retry`], [`self_test`], [`control`] and [`udp`] are for programs that get their sessions in
//! another way, as i2plan's own daemon does.

mod config;
pub mod control;
mod core;
mod open;
pub mod retry;
pub mod self_test;
mod transport;
pub mod udp;

pub use i2plan_proto::endpoint::{AnyDestination, Endpoint, EndpointError};
pub use i2plan_proto::sam::session::{Style, Tunnels};

pub use self::config::{Config, ConfigError, Keys, KeysError, Login};
pub use self::core::{Core, Datagram, MAX_PAYLOAD, SendError};
pub use self::open::OpenError;
pub use self::transport::{Sender, State, Transport};
