//! `i2plan-named`: a name server for the host of a node, which knows the members of the node's network.
//!
//! A process of its own, and an ordinary client of `meshd`: what parses DNS messages of everybody on this host has none
//! of `meshd`'s rights but those of the control group. It answers for the network's domain and for its addresses,
//! refuses all else, and asks no other server. It holds no key, writes nothing down and reads no file while it serves.
//!
//! Without I/O:
//! * [`zone`]: what is answered.
//!
//! Around it, on Linux alone:
//! * `server`: the process.
//! * `listen`: its sockets.
//! * `node`: what it asks the node.
//! * `sandbox`, `privileges`: what the process may do.

#[cfg(target_os = "linux")]
pub mod listen;
#[cfg(target_os = "linux")]
pub mod node;
#[cfg(target_os = "linux")]
pub mod privileges;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(target_os = "linux")]
pub mod server;
pub mod zone;
