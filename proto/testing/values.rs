//! Values for tests and fuzz targets: deterministic from a small number, correctly signed.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::address::{AddressRange, AddressRanges, Ipv4Subnet};
use super::codec::Codec;
use super::destination::{Destination, DestinationProof, DestinationRole, ProvenDestination};
use super::identity::{NodeId, Signable, Signed};
use super::invite::{Invite, InviteGrant, InviteSecret, Uses};
use super::join::{JoinBody, JoinReply, JoinRequest, Welcome};
use super::liveness::{LivenessMessage, Presence};
use super::membership::{Chain, Charter, Delegation, MAX_DEPTH, Membership, NetworkName};
use super::record::Record;
use super::revocation::{Resignation, Revocation, Target};
use super::suspicion::Suspicion;
use super::wireguard::{WireGuardCertificate, WireGuardSecret};

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

/// A value with the signature of a node on it.
pub fn signed<T: Signable>(value: T, seed: u8) -> Signed<T> {
    let signature = value.sign(&key(seed));
    Signed { value, signature }
}

/// A destination; that for control of a node is of its own number, that for data of a hundred more.
pub fn destination(seed: u8) -> Destination {
    Destination { padding: [seed; 32], signing_key: destination_key(seed).verifying_key().to_bytes() }
}

/// The key of that destination.
pub fn destination_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed ^ 0xff; 32])
}

/// A destination, and its proof that a node uses it in the network of node 0.
pub fn proven(destination: u8, node: u8, role: DestinationRole) -> ProvenDestination {
    let proof = DestinationProof {
        network: charter(0).network(),
        node: self::node(node),
        role,
        destination: self::destination(destination),
    };
    ProvenDestination { destination: proof.destination, proof: proof.sign(&destination_key(destination)) }
}

/// What all networks are called.
pub fn network_name() -> NetworkName {
    "office".parse().expect("a name")
}

/// The charter of the network that a node founds.
pub fn charter(seed: u8) -> Charter {
    Charter {
        founder: node(seed),
        name: network_name(),
        subnet: Ipv4Subnet::DEFAULT,
        founded_at: NOW,
        nonce: [seed; 16],
    }
}

/// The same, signed.
pub fn signed_charter(seed: u8) -> Signed<Charter> {
    signed(charter(seed), seed)
}

/// The addresses of node `depth` of a chain: the upper half of those of the node before it.
pub fn ranges(depth: u8) -> AddressRanges {
    let prefix = (16 + depth).min(30);
    let first = 0x0a2a_ffff & (u32::MAX << (32 - u32::from(prefix)));
    AddressRange::new(first.into(), prefix).expect("an aligned range").into()
}

/// What the certificate of a node says of another.
pub fn delegation(issuer: u8, subject: u8) -> Delegation {
    Delegation {
        subject: node(subject),
        invite: invite(issuer).id(),
        ranges: ranges(subject),
        serial: 5 + u64::from(subject),
        since: 5 + u64::from(subject),
        replaces: false,
        issued_at: NOW,
    }
}

/// A certificate in the network of node 0, by a node of a chain.
pub fn membership(issuer: u8, subject: u8) -> Signed<Membership> {
    signed(chain(issuer).certificate(delegation(issuer, subject)), issuer)
}

/// The chain from node 0 over 1, 2, … to node `depth`.
pub fn chain(depth: u8) -> Chain {
    static CHAINS: LazyLock<Vec<Chain>> = LazyLock::new(|| {
        let mut chains = vec![Chain::founder(&charter(0))];
        for issuer in 0..MAX_DEPTH as u8 {
            let chain = &chains[usize::from(issuer)];
            let certificate = signed(chain.certificate(delegation(issuer, issuer + 1)), issuer);
            chains.push(chain.extended(&certificate).expect("the next certificate"));
        }
        chains
    });
    CHAINS[usize::from(depth)].clone()
}

/// A node's WireGuard key.
pub fn wireguard_secret(seed: u8) -> WireGuardSecret {
    WireGuardSecret::new(&Zeroizing::new([seed ^ 0xaa; 32]))
}

/// The certificate of a node's WireGuard key in the network of node 0.
pub fn wireguard_certificate(seed: u8) -> Signed<WireGuardCertificate> {
    let certificate = WireGuardCertificate {
        network: charter(0).network(),
        node: node(seed),
        key: wireguard_secret(seed).proven(charter(0).network(), node(seed)),
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
        control: proven(depth, depth, DestinationRole::Primary),
        primary: None,
        takes_reports: false,
        data: proven(depth + 100, depth, DestinationRole::Data),
        wireguard: wireguard_certificate(depth),
        chain: chain(depth),
    };
    signed(record, depth)
}

/// The same, of a node that takes control messages elsewhere for now.
pub fn record_with_primary(depth: u8) -> Signed<Record> {
    let record = record(depth).value;
    let primary = Some(Box::new(record.control));
    let control = proven(depth + 150, depth, DestinationRole::Fallback);
    signed(Record { control, primary, ..record }, depth)
}

/// The largest record: of the deepest chain, with four ranges in each certificate, the longest name and a fallback
/// destination.
pub fn largest_record() -> Signed<Record> {
    let mut chain = Chain::founder(&charter(0));
    for issuer in 0..MAX_DEPTH as u8 {
        let issuers = ranges(issuer).address().to_bits();
        let single = |number| AddressRange::of_size(issuers + number, 1).expect("an address");
        let all = ranges(issuer + 1).iter().copied().chain([2, 3, 4].map(single)).collect();
        let ranges = AddressRanges::new(all).expect("four ranges that lie apart");
        let grant = Delegation { ranges, ..delegation(issuer, issuer + 1) };
        chain = chain.extended(&signed(chain.certificate(grant), issuer)).expect("the next certificate");
    }
    let deepest = MAX_DEPTH as u8;
    let name = "n".repeat(63).parse().expect("a valid name");
    signed(Record { name, chain, ..record_with_primary(deepest).value }, deepest)
}

/// A liveness message of a node in the network of node 0.
pub fn liveness_message(seed: u8) -> Signed<LivenessMessage> {
    let presence = [Presence::Present, Presence::Away][usize::from(seed % 2)];
    let liveness_message =
        LivenessMessage { network: charter(0).network(), node: node(seed), sequence: 43, presence };
    signed(liveness_message, seed)
}

/// A suspicion in the network of node 0.
pub fn suspicion(confirmer: u8, subject: u8) -> Signed<Suspicion> {
    let suspicion = Suspicion {
        network: charter(0).network(),
        confirmer: node(confirmer),
        subject: node(subject),
        sequence: 42,
        issued_at: NOW,
    };
    signed(suspicion, confirmer)
}

/// The revocation of node `depth` in the network of node 0.
pub fn revocation(issuer: u8, depth: u8) -> Signed<Revocation> {
    signed(
        Revocation { issuer: node(issuer), target: Target::Certificate(chain(depth)), issued_at: NOW },
        issuer,
    )
}

/// The resignation of node `depth` in the network of node 0.
pub fn resignation(depth: u8) -> Signed<Resignation> {
    signed(Resignation { chain: chain(depth), last_serial: 100, issued_at: NOW }, depth)
}

/// The revocation of the invite of node `depth`, with the memberships of those that have used it.
pub fn invite_revocation(depth: u8) -> Signed<Revocation> {
    let target = Target::Invite(chain(depth), invite(depth).id());
    signed(Revocation { issuer: node(depth), target, issued_at: NOW }, depth)
}

/// An invite of a node into the network of node 0.
pub fn invite(seed: u8) -> Invite {
    Invite {
        network: charter(0).network(),
        name: network_name(),
        subnet: charter(0).subnet,
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
        addresses: 16,
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

/// The value that bytes are the encoding of, if they are of one.
///
/// # Panics
/// If they decode to a value with another encoding.
pub fn decode_canonically<T: Codec>(bytes: &[u8]) -> Option<T> {
    let value = T::from_bytes(bytes).ok()?;
    assert_eq!(value.to_bytes(), bytes, "what decodes must be the one encoding of its value");
    Some(value)
}
