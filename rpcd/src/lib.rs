//! `i2plan-rpcd`: a gateway between programs that speak JSON-RPC 2.0 and a node.
//!
//! The gateway, `i2plan-rpcd`, is a process of its own and an ordinary client of `meshd`: what parses JSON and HTTP
//! from anybody has none of `meshd`'s rights but those of the control group.
//!
//! Without I/O:
//! * [`message`]: what a document asks, and how it is answered, by the specification.
//! * [`error`]: the error codes.
//! * [`methods`]: the methods, one table for dispatch and description.
//! * [`params`]: what they take.
//! * [`discover`]: the OpenRPC description of that table.
//! * [`lines`]: where a document ends in a stream.
//!
//! Around it:
//! * [`gateway`]: whose turn it is, and the connections to `meshd`.
//! * [`members`]: whom callers mean by a name.
//! * [`server`]: the process, and the unix socket.
//! * [`http`]: the TCP listener.
//! * [`metrics`]: the state of a node for Prometheus, and the listener for that.
//! * [`token`]: what a client has to show there.
//! * [`sandbox`]: what the process may do.

pub mod discover;
pub mod error;
pub mod gateway;
pub mod http;
pub mod lines;
pub mod members;
pub mod message;
pub mod methods;
pub mod metrics;
pub mod params;
pub mod sandbox;
pub mod server;
pub mod token;
