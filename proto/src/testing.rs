//! Values for tests and fuzz targets: deterministic from a small number, rightly signed.

#[cfg(test)]
use std::fmt::Debug;

use ed25519_dalek::SigningKey;
#[cfg(test)]
use proptest::prelude::*;
#[cfg(test)]
use proptest::test_runner::TestCaseError;

use crate::accusation::Accusation;
use crate::address::Ipv4Subnet;
use crate::codec::Codec;
use crate::destination::Destination;
use crate::identity::{NodeId, Signable, Signed};
use crate::invite::{Invite, InviteGrant, InviteSecret, Uses};
use crate::join::{JoinBody, JoinReply, JoinRequest, Welcome};
use crate::membership::{Chain, Charter, Membership};
use crate::pulse::{Life, Pulse};
use crate::record::Record;
use crate::revocation::Revocation;
use crate::wireguard::WireGuardCertificate;

/// When all of them are made, Unix time in seconds.
pub const NOW: u64 = 1_800_000_000;

/// The identity key of a node.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed.wrapping_add(1); 32])
}

/// The node with that key.
pub fn node(seed: u8) -> NodeId {
    NodeId(key(seed).verifying_key().to_bytes())
}

#[cfg(test)]
pub(crate) fn any_node() -> impl Strategy<Value = NodeId> {
    any::<u8>().prop_map(node)
}

/// A value with the signature of a node on it.
pub fn signed<T: Signable>(value: T, seed: u8) -> Signed<T> {
    let signature = value.sign(&key(seed));
    Signed { value, signature }
}

/// A destination; that for control of a node is of its own number, that for data of a hundred more.
pub fn destination(seed: u8) -> Destination {
    Destination { padding: [seed; 32], signing_key: [seed ^ 0xff; 32] }
}

#[cfg(test)]
pub(crate) fn any_destination() -> impl Strategy<Value = Destination> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(padding, signing_key)| Destination { padding, signing_key })
}

/// The charter of the network that a node founds.
pub fn charter(seed: u8) -> Charter {
    Charter { founder: node(seed), subnet: Ipv4Subnet::DEFAULT, founded_at: NOW }
}

/// The same, signed.
pub fn signed_charter(seed: u8) -> Signed<Charter> {
    signed(charter(seed), seed)
}

/// A certificate in the network of node 0.
pub fn membership(issuer: u8, subject: u8) -> Signed<Membership> {
    let membership = Membership {
        network: charter(0).network(),
        issuer: node(issuer),
        subject: node(subject),
        invite: invite(issuer).id(),
        issued_at: NOW,
    };
    signed(membership, issuer)
}

/// The chain from node 0 over 1, 2, … to node `depth`.
pub fn chain(depth: u8) -> Chain {
    (0..depth).fold(Chain::founder(node(0)), |chain, issuer| {
        chain.extended(&membership(issuer, issuer + 1)).expect("the next certificate")
    })
}

/// The certificate of a node's WireGuard key in the network of node 0.
pub fn wireguard_certificate(seed: u8) -> Signed<WireGuardCertificate> {
    let certificate = WireGuardCertificate {
        network: charter(0).network(),
        node: node(seed),
        public_key: [seed; 32],
        epoch: 1,
        not_before: NOW,
        not_after: NOW + 1000,
    };
    signed(certificate, seed)
}

/// The record of node `depth` in the network of node 0.
pub fn record(depth: u8) -> Signed<Record> {
    let record = Record {
        node: node(depth),
        sequence: 42,
        issued_at: NOW,
        name: format!("node-{depth}").parse().expect("a valid name"),
        control: destination(depth),
        home: None,
        data: destination(depth + 100),
        ipv4: Ipv4Subnet::DEFAULT.address_of(&node(depth), 0),
        wireguard: wireguard_certificate(depth),
        chain: chain(depth),
    };
    signed(record, depth)
}

/// The same, of a node that takes control messages elsewhere for now.
pub fn record_with_home(depth: u8) -> Signed<Record> {
    let record = record(depth).value;
    let home = Some(Box::new(record.control));
    signed(Record { control: destination(depth + 150), home, ..record }, depth)
}

/// A pulse of a node in the network of node 0.
pub fn pulse(seed: u8) -> Signed<Pulse> {
    let life = [Life::Present, Life::Away, Life::Gone][usize::from(seed % 3)];
    let pulse = Pulse { network: charter(0).network(), node: node(seed), sequence: 43, life };
    signed(pulse, seed)
}

/// An accusation in the network of node 0.
pub fn accusation(accuser: u8, subject: u8) -> Signed<Accusation> {
    let accusation = Accusation {
        network: charter(0).network(),
        accuser: node(accuser),
        subject: node(subject),
        sequence: 42,
        issued_at: NOW,
    };
    signed(accusation, accuser)
}

/// The revocation of node `depth` in the network of node 0.
pub fn revocation(issuer: u8, depth: u8) -> Signed<Revocation> {
    signed(Revocation { issuer: node(issuer), chain: chain(depth), issued_at: NOW }, issuer)
}

/// An invite of a node into the network of node 0.
pub fn invite(seed: u8) -> Invite {
    Invite {
        network: charter(0).network(),
        inviter: node(seed),
        control: destination(seed).hash(),
        secret: InviteSecret([seed ^ 0x55; 32]),
        expires_at: NOW + 86_400,
    }
}

/// The grant of that invite, for as many uses as the node's number; without limit for node 0.
pub fn grant(seed: u8) -> Signed<InviteGrant> {
    let uses = std::num::NonZeroU32::new(u32::from(seed)).map_or(Uses::Unlimited, Uses::Limited);
    let grant = InviteGrant {
        network: charter(0).network(),
        inviter: node(seed),
        key: invite(seed).secret.key(),
        created_at: NOW,
        expires_at: NOW + 86_400,
        uses,
    };
    signed(grant, seed)
}

/// Node `inviter` + 1 asks node `inviter`.
pub fn join_request(inviter: u8) -> JoinRequest {
    let invite = invite(inviter);
    let body = JoinBody {
        network: invite.network,
        inviter: invite.inviter,
        invite: invite.secret.key(),
        joiner: node(inviter + 1),
        control: destination(inviter + 1).hash(),
        issued_at: NOW,
    };
    let proof = body.prove(&invite.secret.signing_key());
    JoinRequest { body: signed(body, inviter + 1), proof }
}

/// Node `depth` is welcomed.
pub fn welcome(depth: u8) -> JoinReply {
    JoinReply::Welcome(Box::new(Welcome {
        charter: signed_charter(0),
        chain: chain(depth),
        records: vec![record(depth.saturating_sub(1)); 2],
    }))
}

/// A value decodes from its encoding, and its encoding cut anywhere does not.
#[cfg(test)]
pub(crate) fn round_trips<T: Codec + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = value.to_bytes();
    let decoded = T::from_bytes(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    for len in 0..bytes.len() {
        prop_assert!(T::from_bytes(&bytes[..len]).is_err(), "cut to {} bytes", len);
    }
    Ok(())
}

/// The value that bytes are the encoding of, if they are of one.
///
/// # Panics
/// If they decode to a value with another encoding.
pub fn decode_canonically<T: Codec>(bytes: &[u8]) -> Option<T> {
    let value = T::from_bytes(bytes).ok()?;
    assert_eq!(value.to_bytes(), bytes, "what decodes must be the one encoding of its value");
    Some(value)
}

/// Bytes that decode are the encoding of what they decode to.
#[cfg(test)]
pub(crate) fn decodes_canonically<T: Codec>(bytes: &[u8]) -> Result<(), TestCaseError> {
    decode_canonically::<T>(bytes);
    Ok(())
}
