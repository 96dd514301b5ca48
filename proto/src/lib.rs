//! What i2plan's nodes sign, send each other and hand out as invites.
//!
//! Types and codecs only: nothing here reads a clock, draws randomness or touches a socket, so the same
//! code runs in `keyd` (which parses everything before it signs), in `meshd`, in tests and under a fuzzer.
//!
//! * [`codec`]: the strict binary encoding shared by all of them. It is canonical: bytes that decode encode
//!   to themselves, so a signature over a decoded value is a signature over the bytes that were received.
//! * [`identity`]: node and network identities, signatures with domain separation.
//! * [`destination`]: I2P destinations, as nodes make them, and [`endpoint`]: any, as people write them.
//! * [`address`]: a node's addresses in the mesh, and [`prefix`]: any IP prefix.
//! * [`invite`]: invite codes, and the grant by which an inviter's `keyd` recognises its own invites.
//! * [`membership`]: the founder's charter, and certificates chained to the founder.
//! * [`certificates`]: those of known members, and which of two stands that delegate the same addresses.
//! * [`wireguard`]: certificates for WireGuard keys.
//! * [`record`]: what a member publishes about itself, and [`liveness`]: its liveness message.
//! * [`suspicion`]: a member's suspicion that another cannot be reached.
//! * [`revocation`]: the end of a membership.
//! * [`join`]: the exchange by which an invite becomes a membership.
//! * [`message`]: the datagrams on the control destination.
//! * [`path_report`]: what a receiver of datagrams tells their sender, inside WireGuard.
//! * [`sam`]: the protocol of the I2P router's bridge.

pub mod address;
pub mod certificates;
pub mod codec;
pub mod destination;
pub mod endpoint;
pub mod identity;
pub mod invite;
pub mod join;
pub mod liveness;
pub mod membership;
pub mod message;
pub mod path_report;
pub mod prefix;
pub mod record;
pub mod revocation;
pub mod sam;
pub mod suspicion;
pub mod wireguard;

#[cfg(test)]
pub mod testing;
