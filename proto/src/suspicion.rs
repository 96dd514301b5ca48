//! A member's suspicion that another cannot be reached.

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{NetworkId, NodeId, SelfSigned, Signable};

/// A member could reach another neither itself nor through others. Signed by the confirmer, so that nobody's
/// suspicion can be made up by somebody else; one alone decides nothing in a network of more than a few.
///
/// The suspicion of SWIM (Das, Gupta and Motivala, 2002, section 4.2), with a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// The network.
    pub network: NetworkId,
    /// Who could not reach the other.
    pub confirmer: NodeId,
    /// Who was not reached.
    pub subject: NodeId,
    /// The sequence number of the subject's latest statement (record or liveness message) that the confirmer knew. A
    /// later one refutes the suspicion.
    pub sequence: u64,
    /// Unix time in seconds.
    pub issued_at: u64,
}

impl Signable for Suspicion {
    const DOMAIN: &'static str = "i2plan accusation v1";
    const WHAT: &'static str = "suspicion";
}

impl SelfSigned for Suspicion {
    fn signer(&self) -> &NodeId {
        &self.confirmer
    }
}

impl Codec for Suspicion {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.confirmer.encode(out);
        self.subject.encode(out);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.issued_at.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            confirmer: NodeId::decode(reader)?,
            subject: NodeId::decode(reader)?,
            sequence: reader.u64("sequence number")?,
            issued_at: reader.u64("suspicion time")?,
        })
    }
}

serde_as_bytes!(Suspicion);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Signed;
    use crate::testing;

    proptest! {
        #[test]
        fn encodings_read_back(confirmer: u8, subject: u8) {
            testing::round_trips(&testing::suspicion(confirmer, subject))?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            testing::decodes_canonically::<Signed<Suspicion>>(&bytes)?;
        }

        #[test]
        fn one_flipped_bit_breaks_a_suspicion(confirmer: u8, bit: prop::sample::Index) {
            let mut bytes = testing::suspicion(confirmer, 3).to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Signed::<Suspicion>::from_bytes(&bytes) {
                prop_assert!(flipped.verify().is_err());
            }
        }
    }
}
