//! Certificates for WireGuard keys: which key belongs to which node, and until when.
//!
//! A WireGuard key is an X25519 key (RFC 7748), which cannot sign. So that no node can have another's key certified as its
//! own, each is made from an Ed25519 key ([`WireGuardSecret`]): the private keys are the same number, and the public
//! Ed25519 key, which the certificate names, is converted to the public X25519 key by everyone (RFC 7748, section 4.1).
//! With the Ed25519 key the node proves that it has the private key.

use ed25519_dalek::{SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signature, Signed};

/// The seed of a WireGuard key. Wiped when dropped, never printed.
pub struct WireGuardSecret(SigningKey);

impl std::fmt::Debug for WireGuardSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WireGuardSecret(…)")
    }
}

impl WireGuardSecret {
    /// The key that is made from this seed.
    #[must_use]
    pub fn new(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The X25519 private key.
    #[must_use]
    pub fn private_key(&self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new(self.0.to_scalar_bytes());
        // As RFC 7748, section 5, and every X25519 implementation does; so that all show the same key.
        key[0] &= 248;
        key[31] = key[31] & 127 | 64;
        key
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn signing_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The public key, and its proof that it is this node's.
    #[must_use]
    pub fn proven(&self, network: NetworkId, node: NodeId) -> ProvenKey {
        ProvenKey { signing_key: self.signing_key(), proof: Possession { network, node }.sign(&self.0) }
    }
}

/// What a WireGuard key signs.
struct Possession {
    network: NetworkId,
    node: NodeId,
}

impl Signable for Possession {
    const DOMAIN: &'static str = "i2plan wireguard possession v1";
    const WHAT: &'static str = "proof of a WireGuard key";
}

impl Codec for Possession {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.node.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { network: NetworkId::decode(reader)?, node: NodeId::decode(reader)? })
    }
}

/// A WireGuard certificate is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireGuardError {
    /// A signature is wrong.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// What it names is no key.
    #[error("the WireGuard certificate names something that is no key")]
    NoKey,
}

/// A WireGuard key, and the proof that a node has the private half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenKey {
    /// The Ed25519 public key from which the WireGuard key follows.
    pub signing_key: [u8; 32],
    /// Its signature on network and node.
    pub proof: Signature,
}

impl ProvenKey {
    /// The X25519 public key; zero, which no node has, if the other is no key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        VerifyingKey::from_bytes(&self.signing_key).map_or([0; 32], |key| key.to_montgomery().to_bytes())
    }
}

impl Codec for ProvenKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.signing_key);
        self.proof.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { signing_key: reader.array("WireGuard key")?, proof: Signature::decode(reader)? })
    }
}

/// A node's word that a WireGuard key is its own for one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireGuardCertificate {
    /// The network in which the key is used.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
    /// The key.
    pub key: ProvenKey,
    /// The key's epoch, named by the minute since 1970 in which it began.
    pub epoch: u32,
    /// Unix time in seconds from which the key may be used.
    pub not_before: u64,
    /// Unix time in seconds after which it may not.
    pub not_after: u64,
}

impl WireGuardCertificate {
    /// How long after its epoch's beginning a key may be used at most, seconds. Keys are replaced sooner; this is
    /// for a node whose `meshd` is away.
    pub const MAX_AGE: u64 = 30 * 24 * 60 * 60;

    /// How far the clocks of two members may be apart before a fresh certificate is refused, seconds.
    pub const CLOCK_TOLERANCE: u64 = 24 * 60 * 60;

    /// The X25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.public_key()
    }

    /// The epoch that begins at `now`, Unix time in seconds.
    #[must_use]
    pub fn epoch_at(now: u64) -> u32 {
        u32::try_from(now / 60).unwrap_or(u32::MAX)
    }

    /// When an epoch began, Unix time in seconds.
    #[must_use]
    pub fn begins_at(epoch: u32) -> u64 {
        u64::from(epoch) * 60
    }

    /// Whether the certificate is for a longer time than any key may be used.
    #[must_use]
    pub fn lasts_too_long(&self) -> bool {
        self.not_after.saturating_sub(self.not_before) > Self::MAX_AGE
    }

    /// Whether the key may be used at `now`, Unix time in seconds.
    #[must_use]
    pub fn is_valid_at(&self, now: u64) -> bool {
        Self::is_valid_between(self.not_before, self.not_after, now)
    }

    /// Whether a key with this validity may be used at `now`, Unix times in seconds.
    #[must_use]
    pub fn is_valid_between(not_before: u64, not_after: u64, now: u64) -> bool {
        not_before <= now.saturating_add(Self::CLOCK_TOLERANCE) && now <= not_after
    }
}

impl Signed<WireGuardCertificate> {
    /// Checks the node's signature and the proof that it has the key.
    ///
    /// # Errors
    /// [`WireGuardError`].
    pub fn verify_key(&self) -> Result<(), WireGuardError> {
        let WireGuardCertificate { network, node, key, .. } = &self.value;
        if key.public_key() == [0; 32] {
            return Err(WireGuardError::NoKey);
        }
        self.verify()?;
        Possession { network: *network, node: *node }.verify(&NodeId(key.signing_key), &key.proof)?;
        Ok(())
    }
}

impl Signable for WireGuardCertificate {
    const DOMAIN: &'static str = "i2plan wireguard v2";
    const WHAT: &'static str = "WireGuard certificate";
}

impl SelfSigned for WireGuardCertificate {
    fn signer(&self) -> &NodeId {
        &self.node
    }
}

impl Codec for WireGuardCertificate {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.node.encode(out);
        self.key.encode(out);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.not_before.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            node: NodeId::decode(reader)?,
            key: ProvenKey::decode(reader)?,
            epoch: reader.u32("epoch")?,
            not_before: reader.u64("start of validity")?,
            not_after: reader.u64("end of validity")?,
        })
    }
}

serde_as_bytes!(WireGuardCertificate);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Signed;
    use crate::testing;

    #[test]
    fn validity_has_two_ends() {
        let certificate = testing::wireguard_certificate(1).value;
        assert!(certificate.is_valid_at(certificate.not_before));
        assert!(certificate.is_valid_at(certificate.not_after));
        assert!(!certificate.is_valid_at(certificate.not_after + 1));
        assert!(!certificate.is_valid_at(certificate.not_before - WireGuardCertificate::CLOCK_TOLERANCE - 1));
    }

    #[test]
    fn a_certificate_of_another_node_does_not_verify() {
        let mut certificate = testing::wireguard_certificate(1);
        assert_eq!(certificate.verify(), Ok(()));
        certificate.value.node = testing::node(2);
        assert!(certificate.verify().is_err());
    }

    #[test]
    fn a_key_is_certified_for_who_has_it() {
        let right = testing::wireguard_certificate(1);
        assert_eq!(right.verify_key(), Ok(()));
        // Another certifies it as its own, with the proof of whose it is.
        let stolen = WireGuardCertificate { node: testing::node(2), ..right.value.clone() };
        let stolen = testing::signed(stolen, 2);
        assert_eq!(stolen.verify(), Ok(()));
        assert!(matches!(stolen.verify_key(), Err(WireGuardError::BadSignature(_))));
        // Or in another network.
        let network = NetworkId([1; 32]);
        let elsewhere = testing::signed(WireGuardCertificate { network, ..right.value.clone() }, 1);
        assert!(elsewhere.verify_key().is_err());
        for no_key in [[0; 32], [0xff; 32]] {
            let key = ProvenKey { signing_key: no_key, ..right.value.key };
            let none = testing::signed(WireGuardCertificate { key, ..right.value.clone() }, 1);
            assert!(none.verify_key().is_err(), "{no_key:?}");
        }
    }

    /// The conversion of the public key agrees with that of the private one, in the test vector of RFC 8032, section 7.1.
    #[test]
    fn both_halves_are_converted_alike() {
        let hex = |text: &str| -> [u8; 32] {
            data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
        };
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let secret = WireGuardSecret::new(&Zeroizing::new(seed));
        assert_eq!(
            secret.signing_key(),
            hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        );
        let key = ProvenKey { signing_key: secret.signing_key(), proof: Signature([0; 64]) };
        assert_eq!(key.public_key(), hex("d85e07ec22b0ad881537c2f44d662d1a143cf830c57aca4305d85c7a90f6b62e"));
        assert_eq!(
            *secret.private_key(),
            hex("307c83864f2833cb427a2ef1c00a013cfdff2768d980c0a3a520f006904de94f")
        );
    }

    #[test]
    fn a_seed_does_not_print() {
        let secret = WireGuardSecret::new(&Zeroizing::new([7; 32]));
        assert_eq!(format!("{secret:?}"), "WireGuardSecret(…)");
    }

    proptest! {
        #[test]
        fn encodings_read_back(seed: u8) {
            testing::round_trips(&testing::wireguard_certificate(seed))?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            testing::decodes_canonically::<Signed<WireGuardCertificate>>(&bytes)?;
        }
    }
}
