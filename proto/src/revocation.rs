//! Taking a membership back.

use thiserror::Error;

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{BadSignature, NetworkId, NodeId, SelfSigned, Signable, Signed};
use crate::membership::{Chain, ChainError};

/// The word of the founder, or of a member in whose chain of invitations another stands, that the other is no
/// member any more.
///
/// It is for good, and it holds for all whose chain leads over the one revoked: their certificates rest on the
/// signature of a key that is not trusted any more, and nobody can tell which of them were made before that was
/// known. They can be invited again by others; the revoked identity cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Who revokes.
    pub issuer: NodeId,
    /// The chain of the member that is revoked: it shows that the issuer may.
    pub chain: Chain,
    /// Unix time in seconds.
    pub issued_at: u64,
}

/// Why a revocation does not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// The chain does not show a member of the network.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A signature is wrong.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// Neither the founder nor one over whom the member was invited.
    #[error("only the founder and those over whom a member was invited can revoke it")]
    NotEntitled,
}

impl Revocation {
    /// Who is no member any more.
    #[must_use]
    pub fn subject(&self) -> &NodeId {
        self.chain.subject()
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.chain.network()
    }
}

impl Signed<Revocation> {
    /// Checks the revocation as a member of `network` must before it acts on it.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn verify_for(&self, network: &NetworkId) -> Result<(), RevocationError> {
        if !self.value.chain.is_ancestor(&self.value.issuer) {
            return Err(RevocationError::NotEntitled);
        }
        self.verify()?;
        self.value.chain.verify(network)?;
        Ok(())
    }
}

impl Signable for Revocation {
    const DOMAIN: &'static str = "i2plan revocation v1";
    const WHAT: &'static str = "revocation";
}

impl SelfSigned for Revocation {
    fn signer(&self) -> &NodeId {
        &self.issuer
    }
}

impl Codec for Revocation {
    fn encode(&self, out: &mut Vec<u8>) {
        self.issuer.encode(out);
        self.chain.encode(out);
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            issuer: NodeId::decode(reader)?,
            chain: Chain::decode(reader)?,
            issued_at: reader.u64("revocation time")?,
        })
    }
}

serde_as_bytes!(Revocation);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn only_those_above_may_revoke() {
        let network = testing::charter(0).network();
        for issuer in 0..3 {
            assert_eq!(testing::revocation(issuer, 3).verify_for(&network), Ok(()), "{issuer}");
        }
        // Neither the member itself, who can leave, nor one below or beside it.
        for issuer in [3, 4, 9] {
            let revocation = testing::revocation(issuer, 3);
            assert_eq!(revocation.verify_for(&network), Err(RevocationError::NotEntitled), "{issuer}");
        }
        // The founder cannot be revoked: nobody is above.
        assert_eq!(testing::revocation(0, 0).verify_for(&network), Err(RevocationError::NotEntitled));
    }

    #[test]
    fn it_is_for_one_network() {
        let foreign = testing::charter(1).network();
        let error = testing::revocation(1, 3).verify_for(&foreign);
        assert_eq!(error, Err(RevocationError::Chain(ChainError::WrongNetwork)));
    }

    proptest! {
        #[test]
        fn encodings_read_back(issuer: u8, depth in 0u8..=8) {
            testing::round_trips(&testing::revocation(issuer, depth))?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            testing::decodes_canonically::<Signed<Revocation>>(&bytes)?;
        }

        #[test]
        fn one_flipped_bit_breaks_a_revocation(depth in 1u8..=4, bit: prop::sample::Index) {
            let revocation = testing::revocation(0, depth);
            let network = revocation.value.network();
            let mut bytes = revocation.to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Signed::<Revocation>::from_bytes(&bytes) {
                prop_assert!(flipped.verify_for(&network).is_err());
            }
        }
    }
}
