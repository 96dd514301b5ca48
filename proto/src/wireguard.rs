//! Certificates for WireGuard keys: which key belongs to which node, and until when.

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{NetworkId, NodeId, SelfSigned, Signable};

/// A node's word that a WireGuard key is its own for one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireGuardCertificate {
    /// The network in which the key is used.
    pub network: NetworkId,
    /// The node.
    pub node: NodeId,
    /// The X25519 public key.
    pub public_key: [u8; 32],
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

    /// Whether the key may be used at `now`, Unix time in seconds.
    #[must_use]
    pub fn is_valid_at(&self, now: u64) -> bool {
        self.not_before <= now.saturating_add(Self::CLOCK_TOLERANCE) && now <= self.not_after
    }
}

impl Signable for WireGuardCertificate {
    const DOMAIN: &'static str = "i2plan wireguard v1";
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
        out.extend_from_slice(&self.public_key);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.not_before.to_be_bytes());
        out.extend_from_slice(&self.not_after.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            node: NodeId::decode(reader)?,
            public_key: reader.array("WireGuard key")?,
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
