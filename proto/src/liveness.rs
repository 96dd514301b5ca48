//! Liveness messages: what a member says of its presence between two records.

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{NetworkId, NodeId, SelfSigned, Signable};

/// Whether a member says that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there: whoever suspects it is wrong.
    Present,
    /// It is shut down and means to come back.
    Away,
}

/// A liveness message of a member. Signed by the member, so that anyone may pass it on; of its liveness messages and
/// records the one with the highest sequence number counts.
///
/// The incarnation numbers of SWIM (Das, Gupta and Motivala, 2002, section 4.2), with a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivenessMessage {
    /// The network.
    pub network: NetworkId,
    /// The member.
    pub node: NodeId,
    /// From the same row as its records' sequence numbers.
    pub sequence: u64,
    /// How it is.
    pub presence: Presence,
}

impl Signable for LivenessMessage {
    const DOMAIN: &'static str = "i2plan pulse v1";
    const WHAT: &'static str = "liveness message";
}

impl SelfSigned for LivenessMessage {
    fn signer(&self) -> &NodeId {
        &self.node
    }
}

impl Codec for Presence {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Present => 0,
            Self::Away => 1,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "liveness message";
        match reader.u8(what)? {
            0 => Ok(Self::Present),
            1 => Ok(Self::Away),
            _ => Err(DecodeError::Invalid { what, why: "unknown presence" }),
        }
    }
}

impl Codec for LivenessMessage {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.node.encode(out);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        self.presence.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            node: NodeId::decode(reader)?,
            sequence: reader.u64("sequence number")?,
            presence: Presence::decode(reader)?,
        })
    }
}

serde_as_bytes!(Presence, LivenessMessage);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Signed;
    use crate::testing;

    proptest! {
        #[test]
        fn encodings_read_back(seed: u8) {
            testing::round_trips(&testing::liveness_message(seed))?;
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            testing::decodes_canonically::<Signed<LivenessMessage>>(&bytes)?;
        }

        #[test]
        fn one_flipped_bit_breaks_a_liveness_message(seed: u8, bit: prop::sample::Index) {
            let mut bytes = testing::liveness_message(seed).to_bytes();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(flipped) = Signed::<LivenessMessage>::from_bytes(&bytes) {
                prop_assert!(flipped.verify().is_err());
            }
        }
    }
}
