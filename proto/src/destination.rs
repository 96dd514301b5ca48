//! I2P destinations, as i2plan makes and stores them.
//!
//! Source: the I2P common structures specification (destination, key certificate) and proposal 161
//! (compressible padding): 256 bytes of encryption key field, 128 bytes of signing key field with the Ed25519
//! key at its end, and a key certificate. The encryption key field has been out of use since lease sets carry
//! their own keys, so it and the padding repeat one random block of 32 bytes.

use std::fmt;

use data_encoding::{Encoding, Specification};
use sha2::{Digest as _, Sha256};

use crate::codec::{Codec, DecodeError, Reader, serde_as_bytes};
use crate::identity::{BadSignature, NetworkId, NodeId, Signable, Signature, byte_id};

/// Length of a destination with an Ed25519 signing key, bytes.
pub const DESTINATION_LEN: usize = 391;

const PADDING_LEN: usize = 352;
/// Certificate of type 5 (key), 4 bytes long: signature type 7 (Ed25519), encryption type 0. Type 4 (X25519)
/// is refused by some Java clients in this place and means nothing there.
const CERTIFICATE: [u8; 7] = [5, 0, 4, 0, 7, 0, 0];

/// An I2P destination with an Ed25519 signing key and compressible padding: 64 bytes determine it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The block that fills the encryption key field and the padding.
    pub padding: [u8; 32],
    /// The Ed25519 public key.
    pub signing_key: [u8; 32],
}

byte_id!(
    /// SHA-256 of a destination: what a `.b32.i2p` name spells.
    DestinationHash,
    32,
    "destination hash"
);

impl DestinationHash {
    /// The host name, `….b32.i2p`.
    #[must_use]
    pub fn b32(&self) -> String {
        format!("{self}.b32.i2p")
    }
}

/// I2P's base64: `-` and `~` for `+` and `/`, padded.
#[must_use]
pub fn base64() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~");
    spec.padding = Some('=');
    spec.encoding().expect("64 distinct symbols and a padding character")
}

/// The hash of a destination's bytes, whatever its key types.
#[must_use]
pub fn hash_of(destination: &[u8]) -> DestinationHash {
    DestinationHash(Sha256::digest(destination).into())
}

impl Destination {
    /// The 391 bytes that routers know.
    #[must_use]
    pub fn to_i2p(&self) -> [u8; DESTINATION_LEN] {
        let mut bytes = [0; DESTINATION_LEN];
        for chunk in bytes[..PADDING_LEN].chunks_exact_mut(32) {
            chunk.copy_from_slice(&self.padding);
        }
        bytes[PADDING_LEN..PADDING_LEN + 32].copy_from_slice(&self.signing_key);
        bytes[PADDING_LEN + 32..].copy_from_slice(&CERTIFICATE);
        bytes
    }

    /// Reads the bytes that routers know.
    ///
    /// # Errors
    /// [`DecodeError`] if they are not a destination of the kind that i2plan makes.
    pub fn from_i2p(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "destination";
        let mut reader = Reader::new(bytes);
        let padding = reader.bytes(PADDING_LEN, what)?;
        let signing_key = reader.array(what)?;
        let certificate: [u8; 7] = reader.array(what)?;
        reader.finish()?;
        if certificate != CERTIFICATE {
            return Err(DecodeError::Invalid { what, why: "not an Ed25519 destination" });
        }
        let block: [u8; 32] = *padding.first_chunk().expect("352 bytes are more than 32");
        if padding.chunks(32).any(|chunk| chunk != block) {
            return Err(DecodeError::Invalid { what, why: "its padding does not repeat" });
        }
        Ok(Self { padding: block, signing_key })
    }

    /// I2P's base64 of the 391 bytes: how SAM names a destination.
    #[must_use]
    pub fn to_base64(&self) -> String {
        base64().encode(&self.to_i2p())
    }

    /// Its hash, which is its address.
    #[must_use]
    pub fn hash(&self) -> DestinationHash {
        hash_of(&self.to_i2p())
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({})", self.hash().short())
    }
}

impl Codec for Destination {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.padding);
        out.extend_from_slice(&self.signing_key);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { padding: reader.array("destination")?, signing_key: reader.array("destination")? })
    }
}

serde_as_bytes!(Destination);

/// What a member uses a destination for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationRole {
    /// Control messages.
    Primary,
    /// Control messages, while others cannot reach the primary destination.
    Fallback,
    /// WireGuard packets.
    Data,
}

impl Codec for DestinationRole {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Primary => 0,
            Self::Fallback => 1,
            Self::Data => 2,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "role of a destination";
        match reader.u8(what)? {
            0 => Ok(Self::Primary),
            1 => Ok(Self::Fallback),
            2 => Ok(Self::Data),
            _ => Err(DecodeError::Invalid { what, why: "unknown" }),
        }
    }
}

/// A statement that a member uses a destination, signed by the destination: otherwise a member could have all others
/// send their messages to somebody else.
///
/// The sender of a repliable datagram signs the payload alone with the same key. What is signed here begins with a letter
/// and a control message with a version number below 32, so neither is mistaken for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationProof {
    /// The network.
    pub network: NetworkId,
    /// The member.
    pub node: NodeId,
    /// What for.
    pub role: DestinationRole,
    /// The destination.
    pub destination: Destination,
}

impl Signable for DestinationProof {
    const DOMAIN: &'static str = "i2plan destination v1";
    const WHAT: &'static str = "proof of a destination";
}

impl Codec for DestinationProof {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        self.node.encode(out);
        self.role.encode(out);
        self.destination.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            node: NodeId::decode(reader)?,
            role: DestinationRole::decode(reader)?,
            destination: Destination::decode(reader)?,
        })
    }
}

/// A destination and the signature of its key on a [`DestinationProof`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenDestination {
    /// The destination.
    pub destination: Destination,
    /// Its signature.
    pub proof: Signature,
}

impl ProvenDestination {
    /// A destination whose proof is still to be made.
    #[must_use]
    pub fn unproven(destination: Destination) -> Self {
        Self { destination, proof: Signature([0; 64]) }
    }

    /// Checks that the destination has signed that `node` uses it so.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(
        &self,
        network: &NetworkId,
        node: &NodeId,
        role: DestinationRole,
    ) -> Result<(), BadSignature> {
        let proof = DestinationProof { network: *network, node: *node, role, destination: self.destination };
        proof.verify(&NodeId(self.destination.signing_key), &self.proof)
    }
}

impl std::ops::Deref for ProvenDestination {
    type Target = Destination;

    fn deref(&self) -> &Destination {
        &self.destination
    }
}

impl Codec for ProvenDestination {
    fn encode(&self, out: &mut Vec<u8>) {
        self.destination.encode(out);
        self.proof.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { destination: Destination::decode(reader)?, proof: Signature::decode(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::BASE32;
    use crate::testing;

    #[test]
    fn base64_is_the_dialect_of_i2p() {
        assert_eq!(base64().encode(&[0xff, 0xff, 0xff]), "~~~~");
        assert_eq!(base64().encode(&[0xfb, 0xef, 0xbe]), "----");
        assert_eq!(testing::destination(1).to_base64().len(), 524);
    }

    #[test]
    fn a_b32_name_is_the_hash_in_lower_case() {
        let name = DestinationHash(std::array::from_fn(|index| index as u8 * 7)).b32();
        let (hash, host) = name.split_at(52);
        assert_eq!(host, ".b32.i2p");
        assert!(hash.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)));
        assert_eq!(BASE32.decode(hash.as_bytes()).unwrap()[..3], [0, 7, 14]);
    }

    #[test]
    fn destinations_of_other_kinds_are_refused() {
        let mut bytes = testing::destination(1).to_i2p();
        bytes[40] ^= 1;
        assert!(Destination::from_i2p(&bytes).is_err());
        let mut bytes = testing::destination(1).to_i2p();
        bytes[DESTINATION_LEN - 3] = 1;
        assert!(Destination::from_i2p(&bytes).is_err());
    }

    #[test]
    fn a_proof_is_for_one_member_network_and_role() {
        let proven = testing::proven(1, 1, DestinationRole::Data);
        let (network, node) = (testing::charter(0).network(), testing::node(1));
        assert_eq!(proven.verify(&network, &node, DestinationRole::Data), Ok(()));
        assert!(proven.verify(&network, &node, DestinationRole::Primary).is_err());
        assert!(proven.verify(&network, &testing::node(2), DestinationRole::Data).is_err());
        assert!(proven.verify(&testing::charter(1).network(), &node, DestinationRole::Data).is_err());
        let other = ProvenDestination { destination: testing::destination(2), ..proven };
        assert!(other.verify(&network, &node, DestinationRole::Data).is_err());
        assert!(ProvenDestination::unproven(*proven).verify(&network, &node, DestinationRole::Data).is_err());
    }

    proptest! {
        #[test]
        fn both_encodings_read_back(destination in testing::any_destination()) {
            prop_assert_eq!(Destination::from_i2p(&destination.to_i2p()), Ok(destination));
            prop_assert_eq!(Destination::from_bytes(&destination.to_bytes()), Ok(destination));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = Destination::from_i2p(&bytes);
        }
    }
}
