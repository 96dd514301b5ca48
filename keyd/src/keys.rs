//! A node's keys, and their form on disk.

use std::fmt;

use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::codec::{DecodeError, Reader};
use i2plan_proto::destination::{Destination, DestinationProof, base64};
use i2plan_proto::identity::{NodeId, Signable as _, Signature};
use i2plan_proto::wireguard::WireGuardSecret;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::memory::Epoch;

const MAGIC: &[u8; 11] = b"i2plan keys";
const VERSION: u8 = 1;
/// Of a file that holds an imported WireGuard key, too.
const IMPORTED_VERSION: u8 = 2;
const SUM_LEN: usize = 32;

/// Bytes of a key file: magic, version, identity, control destination, master secret, time, checksum.
const LEN: usize = MAGIC.len() + 1 + 32 + 64 + 32 + 8 + SUM_LEN;

/// Bytes of a key file with an imported WireGuard key, before the checksum.
const IMPORTED_LEN: usize = LEN + 32;

/// Random bytes of which keys are made.
pub const RANDOM_LEN: usize = 128;

/// Bytes of the encryption key in a destination's private key file, for encryption type 0.
const ENCRYPTION_KEY_LEN: usize = 256;

/// The private half of an I2P destination. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DestinationKeys {
    padding: [u8; 32],
    seed: [u8; 32],
}

impl fmt::Debug for DestinationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DestinationKeys(…)")
    }
}

impl DestinationKeys {
    /// The destination.
    #[must_use]
    pub fn public(&self) -> Destination {
        let signing_key = SigningKey::from_bytes(&self.seed).verifying_key().to_bytes();
        Destination { padding: self.padding, signing_key }
    }

    /// Signs that a member uses the destination.
    #[must_use]
    pub fn prove(&self, proof: &DestinationProof) -> Signature {
        proof.sign(&SigningKey::from_bytes(&self.seed))
    }

    /// What SAM calls the private key, in I2P's base64: the destination, the private encryption key, the seed of
    /// the signing key. The encryption key has been out of use since lease sets carry their own; it only has to
    /// be there.
    #[must_use]
    pub fn private_key(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        bytes.extend_from_slice(&self.public().to_i2p());
        let mut unused = Zeroizing::new([0; ENCRYPTION_KEY_LEN]);
        Hkdf::<Sha256>::new(None, &self.seed)
            .expand(b"i2plan unused destination encryption key v1", unused.as_mut())
            .expect("256 bytes are fewer than HKDF-SHA256 can give");
        bytes.extend_from_slice(unused.as_ref());
        bytes.extend_from_slice(&self.seed);
        let mut text = Zeroizing::new(String::with_capacity(1024));
        base64().encode_append(&bytes, &mut text);
        text
    }
}

/// Every long-term private key of a node. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    identity: [u8; 32],
    control: DestinationKeys,
    /// All WireGuard keys and all destinations for data are derived from it.
    master: [u8; 32],
    created_at: u64,
    /// The WireGuard key of a static interface, if it does not come from the master secret.
    imported: Option<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(of node {})", self.node().short())
    }
}

/// Why a file is not a key file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// It is something else.
    #[error("it is not a key file of i2plan")]
    Foreign,
    /// It was written by another version.
    #[error("it has version {0}, which this version of i2plan does not know; use the version that wrote it")]
    Version(u8),
    /// It ends too early.
    #[error("it is truncated: only {0} bytes are left; restore it from a backup")]
    Truncated(usize),
    /// It is not as it was written.
    #[error("it is damaged: its checksum does not match; restore it from a backup")]
    Damaged,
}

impl Keys {
    /// Fresh keys from this randomness.
    #[must_use]
    pub fn generate(random: &Zeroizing<[u8; RANDOM_LEN]>, now: u64) -> Self {
        let part = |index: usize| std::array::from_fn(|byte| random[index * 32 + byte]);
        Self {
            identity: part(0),
            control: DestinationKeys { padding: part(1), seed: part(2) },
            master: part(3),
            created_at: now,
            imported: None,
        }
    }

    /// The identity key.
    #[must_use]
    pub fn identity(&self) -> SigningKey {
        SigningKey::from_bytes(&self.identity)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.identity().verifying_key().to_bytes())
    }

    /// The destination for control messages.
    #[must_use]
    pub fn control(&self) -> &DestinationKeys {
        &self.control
    }

    /// A destination for data, or in place of the control destination. The nonce becomes its padding, so that it
    /// can be recognised without being remembered.
    #[must_use]
    pub fn ephemeral(&self, nonce: [u8; 32]) -> DestinationKeys {
        let mut keys = DestinationKeys { padding: nonce, seed: [0; 32] };
        Hkdf::<Sha256>::new(None, &self.master)
            .expand_multi_info(&[b"i2plan data destination v1\0", &nonce], &mut keys.seed)
            .expect("32 bytes are fewer than HKDF-SHA256 can give");
        keys
    }

    /// Whether a destination is one of this node's that [`Self::ephemeral`] gives.
    #[must_use]
    pub fn is_own_ephemeral(&self, destination: &Destination) -> bool {
        self.ephemeral(destination.padding).public() == *destination
    }

    /// The WireGuard key of an epoch.
    #[must_use]
    pub fn wireguard(&self, epoch: &Epoch) -> WireGuardSecret {
        let mut seed = Zeroizing::new([0; 32]);
        let number = epoch.number.to_be_bytes();
        let info: [&[u8]; 3] = [b"i2plan wireguard v3\0", &epoch.network.0, &number];
        Hkdf::<Sha256>::new(Some(&epoch.salt), &self.master)
            .expand_multi_info(&info, seed.as_mut())
            .expect("32 bytes are fewer than HKDF-SHA256 can give");
        WireGuardSecret::new(&seed)
    }

    /// The WireGuard private key of an epoch, for the process that uses it.
    #[must_use]
    pub fn wireguard_private(&self, epoch: &Epoch) -> SecretKey {
        SecretKey(*self.wireguard(epoch).private_key())
    }

    /// The WireGuard private key of a static interface: the one that was imported, or else one of this node's own.
    #[must_use]
    pub fn static_private(&self) -> SecretKey {
        if let Some(imported) = &self.imported {
            return SecretKey(*imported);
        }
        let mut seed = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, &self.master)
            .expand(b"i2plan static wireguard v1", seed.as_mut())
            .expect("32 bytes are fewer than HKDF-SHA256 can give");
        SecretKey(*WireGuardSecret::new(&seed).private_key())
    }

    /// Takes this WireGuard private key for a static interface. Returns whether that is another one than before.
    pub fn import_static(&mut self, key: &SecretKey) -> bool {
        let is_other = self.static_private() != *key;
        if is_other {
            self.imported = Some(key.0);
        }
        is_other
    }

    /// The content of a key file.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(IMPORTED_LEN));
        out.extend_from_slice(MAGIC);
        out.push(if self.imported.is_some() { IMPORTED_VERSION } else { VERSION });
        out.extend_from_slice(&self.identity);
        out.extend_from_slice(&self.control.padding);
        out.extend_from_slice(&self.control.seed);
        out.extend_from_slice(&self.master);
        out.extend_from_slice(&self.created_at.to_be_bytes());
        if let Some(imported) = &self.imported {
            out.extend_from_slice(imported);
        }
        let sum = Sha256::digest(&*out);
        out.extend_from_slice(&sum);
        out
    }

    /// Reads the content of a key file.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeysError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(KeysError::Foreign)?;
        let len = match rest.first() {
            None => return Err(KeysError::Truncated(bytes.len())),
            Some(&VERSION) => LEN,
            Some(&IMPORTED_VERSION) => IMPORTED_LEN,
            Some(version) => return Err(KeysError::Version(*version)),
        };
        if bytes.len() < len {
            return Err(KeysError::Truncated(bytes.len()));
        }
        let (body, sum) = bytes.split_last_chunk::<SUM_LEN>().ok_or(KeysError::Damaged)?;
        if bytes.len() != len || Sha256::digest(body).as_slice() != sum {
            return Err(KeysError::Damaged);
        }
        Self::decode(&body[MAGIC.len() + 1..], len == IMPORTED_LEN).map_err(|_| KeysError::Damaged)
    }

    fn decode(body: &[u8], is_imported: bool) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let identity = reader.array("identity")?;
        let control = DestinationKeys { padding: reader.array("padding")?, seed: reader.array("seed")? };
        let master = reader.array("master secret")?;
        let created_at = reader.u64("time")?;
        let imported = is_imported.then(|| reader.array("static key")).transpose()?;
        let keys = Self { identity, control, master, created_at, imported };
        reader.finish()?;
        Ok(keys)
    }
}

#[cfg(test)]
pub(crate) fn test_keys(seed: u8) -> Keys {
    let random =
        Zeroizing::new(std::array::from_fn(|index| u8::try_from(index).unwrap_or(0).wrapping_mul(3) ^ seed));
    Keys::generate(&random, 1_800_000_000)
}

#[cfg(test)]
mod tests {
    use i2plan_proto::identity::NetworkId;
    use proptest::prelude::*;

    use super::*;

    fn with_imported() -> Keys {
        let mut keys = test_keys(1);
        assert!(keys.import_static(&SecretKey([9; 32])));
        keys
    }

    #[test]
    fn files_read_back() {
        let keys = test_keys(1);
        assert_eq!((keys.to_bytes().len(), with_imported().to_bytes().len()), (LEN, IMPORTED_LEN));
        assert_eq!(Keys::from_bytes(&keys.to_bytes()), Ok(keys));
        assert_eq!(Keys::from_bytes(&with_imported().to_bytes()), Ok(with_imported()));
    }

    #[test]
    fn every_truncation_is_an_error() {
        for bytes in [test_keys(1).to_bytes(), with_imported().to_bytes()] {
            for len in 0..bytes.len() {
                let error = Keys::from_bytes(&bytes[..len]).unwrap_err();
                let expected = if len < MAGIC.len() { KeysError::Foreign } else { KeysError::Truncated(len) };
                assert_eq!(error, expected, "{len}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        for bytes in [test_keys(1).to_bytes(), with_imported().to_bytes()] {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Keys::from_bytes(&flipped).is_err(), "{bit}");
            }
        }
    }

    #[test]
    fn a_static_interface_has_the_imported_key_or_one_of_its_own() {
        let own = test_keys(1).static_private();
        assert_eq!(own, test_keys(1).static_private());
        assert_ne!(own, test_keys(2).static_private());
        assert_eq!(with_imported().static_private(), SecretKey([9; 32]));
        // What is there already is no news, be it imported or not.
        assert!(!with_imported().import_static(&SecretKey([9; 32])));
        let mut keys = test_keys(1);
        assert!(!keys.import_static(&own));
        assert_eq!(keys, test_keys(1));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = test_keys(1).to_bytes();
        bytes[MAGIC.len()] = 9;
        assert_eq!(Keys::from_bytes(&bytes), Err(KeysError::Version(9)));
        assert_eq!(Keys::from_bytes(b"something else"), Err(KeysError::Foreign));
    }

    #[test]
    fn wireguard_keys_differ_by_network_epoch_and_salt_and_are_stable() {
        let keys = test_keys(1);
        let epoch = Epoch { network: NetworkId([1; 32]), number: 1, salt: [3; 32], end: 0 };
        let key = |keys: &Keys, epoch: &Epoch| keys.wireguard_private(epoch);
        assert_eq!(key(&keys, &epoch), key(&keys, &epoch));
        assert_ne!(key(&keys, &epoch), key(&keys, &Epoch { network: NetworkId([2; 32]), ..epoch.clone() }));
        assert_ne!(key(&keys, &epoch), key(&keys, &Epoch { number: 2, ..epoch.clone() }));
        assert_ne!(key(&keys, &epoch), key(&keys, &Epoch { salt: [4; 32], ..epoch.clone() }));
        assert_ne!(key(&keys, &epoch), key(&test_keys(2), &epoch));
    }

    #[test]
    fn a_sam_private_key_has_the_form_that_routers_expect() {
        let keys = test_keys(1);
        let bytes = base64().decode(keys.control().private_key().as_bytes()).unwrap();
        assert_eq!(bytes.len(), 391 + 256 + 32);
        assert_eq!(bytes[..391], keys.control().public().to_i2p());
        let seed: [u8; 32] = bytes[391 + 256..].try_into().unwrap();
        assert_eq!(
            SigningKey::from_bytes(&seed).verifying_key().to_bytes(),
            keys.control().public().signing_key
        );
    }

    #[test]
    fn ephemeral_destinations_are_recognised() {
        let keys = test_keys(1);
        let mut destination = keys.ephemeral([7; 32]).public();
        assert!(keys.is_own_ephemeral(&destination));
        assert!(!test_keys(2).is_own_ephemeral(&destination));
        assert_ne!(destination, keys.ephemeral([8; 32]).public());
        destination.padding = [8; 32];
        assert!(!keys.is_own_ephemeral(&destination));
    }

    #[test]
    fn keys_do_not_print() {
        let keys = test_keys(1);
        assert_eq!(format!("{keys:?}"), format!("Keys(of node {})", keys.node().short()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Keys::from_bytes(&bytes);
            let _ = Keys::from_bytes(&[MAGIC.as_slice(), &[VERSION], &bytes].concat());
        }
    }
}
