//! Who a node is, which network it is in, and what it signs.

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::codec::{Codec, DecodeError, Reader};

/// Lower-case base32 without padding (RFC 4648), the alphabet that I2P uses for `.b32.i2p` names too.
pub(crate) const BASE32: data_encoding::Encoding = data_encoding::BASE32_NOPAD_NOCASE;

/// SHA-256 over a domain tag and some parts, for everything that i2plan derives by hashing.
///
/// The parts have fixed lengths wherever this is used, so their concatenation is unambiguous.
pub(crate) fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(tag.as_bytes());
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The first ten characters: enough for a person to tell members apart, not for a decision.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(10);
                text
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::identity::BASE32.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::codec::DecodeError;

            fn from_str(text: &str) -> Result<Self, $crate::codec::DecodeError> {
                let invalid = $crate::codec::DecodeError::Invalid { what: $what, why: "not base32 of the right length" };
                let bytes = $crate::identity::BASE32.decode(text.as_bytes()).map_err(|_| invalid.clone())?;
                Ok(Self(bytes.try_into().map_err(|_| invalid)?))
            }
        }

        impl $crate::codec::Codec for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }

            fn decode(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                reader.array($what).map(Self)
            }
        }

        $crate::codec::serde_as_bytes!($name);
    };
}
pub(crate) use byte_id;

byte_id!(
    /// A node: its Ed25519 identity key (RFC 8032). Written as base32.
    NodeId,
    32,
    "node id"
);

byte_id!(
    /// A network: the hash of its charter. Written as base32.
    NetworkId,
    32,
    "network id"
);

byte_id!(
    /// An Ed25519 signature.
    Signature,
    64,
    "signature"
);

/// A signature does not belong to what it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature on the {what} is not its signer's")]
pub struct BadSignature {
    /// The structure that was checked.
    pub what: &'static str,
}

/// A structure that an identity key may sign.
///
/// What is signed is [`Signable::DOMAIN`], a NUL byte and the encoding: a signature on one kind of structure
/// is none on another, whatever their bytes.
pub trait Signable: Codec {
    /// Separates this structure's signatures from all others; ends in a version.
    const DOMAIN: &'static str;
    /// What to call it in messages to people.
    const WHAT: &'static str;

    /// The bytes to be signed.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(Self::DOMAIN.as_bytes());
        bytes.push(0);
        self.encode(&mut bytes);
        bytes
    }

    /// Signs with `key`.
    fn sign(&self, key: &SigningKey) -> Signature {
        Signature(key.sign(&self.signed_bytes()).to_bytes())
    }

    /// Checks that `signature` on this structure was made by `signer`.
    ///
    /// # Errors
    /// [`BadSignature`] if it was not, or if `signer` is no Ed25519 key or a weak one.
    fn verify(&self, signer: &NodeId, signature: &Signature) -> Result<(), BadSignature> {
        let bad = BadSignature { what: Self::WHAT };
        let key = VerifyingKey::from_bytes(&signer.0).map_err(|_| bad)?;
        // Strict: no weak keys and one encoding of each signature, so that all nodes agree on what is valid.
        key.verify_strict(&self.signed_bytes(), &ed25519_dalek::Signature::from_bytes(&signature.0))
            .map_err(|_| bad)
    }
}

/// A structure and the signature that its signer put on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// What was signed.
    pub value: T,
    /// By whom follows from the value.
    pub signature: Signature,
}

/// A structure that names its own signer.
pub trait SelfSigned: Signable {
    /// Whose signature it carries.
    fn signer(&self) -> &NodeId;
}

impl<T: SelfSigned> Signed<T> {
    /// Checks the signature against the signer that the value names.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self) -> Result<(), BadSignature> {
        self.value.verify(self.value.signer(), &self.signature)
    }
}

impl<T: Codec> Codec for Signed<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.value.encode(out);
        self.signature.encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { value: T::decode(reader)?, signature: Signature::decode(reader)? })
    }
}

impl<T: Codec> serde::Serialize for Signed<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de, T: Codec> serde::Deserialize<'de> for Signed<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::codec::deserialize_bytes(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn ids_read_back_from_their_text() {
        let id = testing::node(7);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 52);
        assert!("abc".parse::<NodeId>().is_err());
        assert!("!".repeat(52).parse::<NodeId>().is_err());
    }

    #[test]
    fn the_zero_key_signs_nothing() {
        // The all-zero point is of small order: with a lax check a forged signature would verify under it.
        let charter = testing::charter(1);
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(charter.verify(&NodeId([0; 32]), &Signature(forged)).is_err());
    }
}
