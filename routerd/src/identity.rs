//! The keys by which other routers know this one.
//!
//! The file is a magic word, the keys in MessagePack, and SHA-256 of both: keys that differ in a bit are another
//! router's, and nothing else would tell.

use emissary_core::crypto::{SigningPrivateKey, StaticPrivateKey};
use emissary_core::primitives::RouterIdentity;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::runtime::Tokio;

/// What the file begins with: what it is, and its version.
const MAGIC: &[u8] = b"i2plan-router-keys\x01";

/// Bytes of the hash at its end.
const HASH_LEN: usize = 32;

/// Longest file that is read, bytes.
pub const MAX_LEN: usize = 4096;

/// Why bytes are no router's keys.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdentityError {
    /// They begin in another way.
    #[error("this is no file of a router's keys, or one of another version")]
    Foreign,
    /// They are not what was written.
    #[error("the file is damaged: restore it from a backup, or remove it to become another router")]
    Damaged,
    /// The system gave no randomness for new keys.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// A router's keys.
#[derive(PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Identity {
    /// X25519, for messages to this router.
    pub(crate) encryption: [u8; 32],
    /// Ed25519, for what it says of itself.
    pub(crate) signing: [u8; 32],
    /// X25519, for NTCP2.
    pub(crate) ntcp2: [u8; 32],
    /// For hiding NTCP2's handshakes.
    pub(crate) ntcp2_iv: [u8; 16],
    /// X25519, for SSU2.
    pub(crate) ssu2: [u8; 32],
    /// For hiding SSU2's handshakes.
    pub(crate) ssu2_intro: [u8; 32],
    /// The public part, with its random padding, whose hash is the router's id.
    pub(crate) public: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// A new router's.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`].
    pub fn generate() -> Result<Self, IdentityError> {
        let mut random = Zeroizing::new([0u8; 176]);
        getrandom::fill(random.as_mut()).map_err(IdentityError::Randomness)?;
        let part = |at: usize| std::array::from_fn(|index| random[at + index]);
        let (encryption, signing) = (part(0), part(32));
        let public = RouterIdentity::from_keys::<Tokio>(
            &StaticPrivateKey::from_bytes(encryption),
            &SigningPrivateKey::from(signing),
        );
        Ok(Self {
            encryption,
            signing,
            ntcp2: part(64),
            ssu2: part(96),
            ssu2_intro: part(128),
            ntcp2_iv: std::array::from_fn(|index| random[160 + index]),
            public: public.map_err(|_| IdentityError::Damaged)?.serialize().to_vec(),
        })
    }

    /// What stands in its file.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it, so that no part is left behind by a move.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN));
        bytes.extend_from_slice(MAGIC);
        // Writing into memory does not fail.
        let _ = rmp_serde::encode::write(&mut *bytes, self);
        let hash = Sha256::digest(&*bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// What a file holds.
    ///
    /// # Errors
    /// [`IdentityError`] if it is no router's keys, or not whole.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        if !bytes.starts_with(MAGIC) {
            return Err(IdentityError::Foreign);
        }
        let (content, hash) = bytes.split_last_chunk::<HASH_LEN>().ok_or(IdentityError::Damaged)?;
        if Sha256::digest(content).as_slice() != hash {
            return Err(IdentityError::Damaged);
        }
        let keys = content.get(MAGIC.len()..).ok_or(IdentityError::Damaged)?;
        let identity: Self = rmp_serde::from_slice(keys).map_err(|_| IdentityError::Damaged)?;
        // emissary takes it for granted.
        RouterIdentity::parse(&identity.public).map_err(|_| IdentityError::Damaged)?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let identity = Identity::generate().unwrap();
        let bytes = identity.to_bytes();
        assert!(bytes.len() < MAX_LEN);
        assert!(Identity::from_bytes(&bytes).unwrap() == identity);
        assert!(identity != Identity::generate().unwrap());
        assert_eq!(format!("{identity:?}"), "Identity { .. }");
    }

    #[test]
    fn no_bit_may_differ_and_no_byte_be_missing() {
        let bytes = Identity::generate().unwrap().to_bytes();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(Identity::from_bytes(&other).is_err(), "byte {at}");
            let expected = if at < MAGIC.len() { IdentityError::Foreign } else { IdentityError::Damaged };
            assert_eq!(Identity::from_bytes(&bytes[..at]).err(), Some(expected), "{at} bytes");
        }
    }
}
