//! Values for tests: deterministic from a small number, rightly signed.

use std::fmt::Debug;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::address::Ipv4Subnet;
use crate::codec::Codec;
use crate::destination::Destination;
use crate::identity::{NodeId, Signable, Signed};
use crate::invite::{Invite, InviteGrant, InviteSecret, Uses};
use crate::join::{JoinBody, JoinReply, JoinRequest, Welcome};
use crate::membership::{Chain, Charter, Membership};
use crate::record::Record;
use crate::wireguard::WireGuardCertificate;

const NOW: u64 = 1_800_000_000;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed.wrapping_add(1); 32])
}

pub(crate) fn node(seed: u8) -> NodeId {
    NodeId(key(seed).verifying_key().to_bytes())
}

pub(crate) fn any_node() -> impl Strategy<Value = NodeId> {
    any::<u8>().prop_map(node)
}

fn signed<T: Signable>(value: T, seed: u8) -> Signed<T> {
    let signature = value.sign(&key(seed));
    Signed { value, signature }
}

pub(crate) fn destination(seed: u8) -> Destination {
    Destination { padding: [seed; 32], signing_key: [seed ^ 0xff; 32] }
}

pub(crate) fn any_destination() -> impl Strategy<Value = Destination> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(padding, signing_key)| Destination { padding, signing_key })
}

pub(crate) fn charter(seed: u8) -> Charter {
    Charter { founder: node(seed), subnet: Ipv4Subnet::DEFAULT, founded_at: NOW }
}

pub(crate) fn signed_charter(seed: u8) -> Signed<Charter> {
    signed(charter(seed), seed)
}

/// A certificate in the network of node 0.
pub(crate) fn membership(issuer: u8, subject: u8) -> Signed<Membership> {
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
pub(crate) fn chain(depth: u8) -> Chain {
    (0..depth).fold(Chain::founder(node(0)), |chain, issuer| {
        chain.extended(&membership(issuer, issuer + 1)).expect("the next certificate")
    })
}

pub(crate) fn wireguard_certificate(seed: u8) -> Signed<WireGuardCertificate> {
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
pub(crate) fn record(depth: u8) -> Signed<Record> {
    let record = Record {
        node: node(depth),
        sequence: 42,
        issued_at: NOW,
        name: format!("node-{depth}").parse().expect("a valid name"),
        control: destination(depth),
        data: destination(depth + 100),
        ipv4: Ipv4Subnet::DEFAULT.address_of(&node(depth), 0),
        wireguard: wireguard_certificate(depth),
        chain: chain(depth),
    };
    signed(record, depth)
}

pub(crate) fn invite(seed: u8) -> Invite {
    Invite {
        network: charter(0).network(),
        inviter: node(seed),
        control: destination(seed).hash(),
        secret: InviteSecret([seed ^ 0x55; 32]),
        expires_at: NOW + 86_400,
    }
}

pub(crate) fn grant(seed: u8) -> Signed<InviteGrant> {
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
pub(crate) fn join_request(inviter: u8) -> JoinRequest {
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
pub(crate) fn welcome(depth: u8) -> JoinReply {
    JoinReply::Welcome(Box::new(Welcome {
        charter: signed_charter(0),
        chain: chain(depth),
        records: vec![record(depth.saturating_sub(1)); 2],
    }))
}

/// A value decodes from its encoding, and its encoding cut anywhere does not.
pub(crate) fn round_trips<T: Codec + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = value.to_bytes();
    let decoded = T::from_bytes(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    for len in 0..bytes.len() {
        prop_assert!(T::from_bytes(&bytes[..len]).is_err(), "cut to {} bytes", len);
    }
    Ok(())
}

/// Bytes that decode are the encoding of what they decode to.
pub(crate) fn decodes_canonically<T: Codec>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = T::from_bytes(bytes) {
        let encoded = value.to_bytes();
        prop_assert_eq!(encoded.as_slice(), bytes);
    }
    Ok(())
}
