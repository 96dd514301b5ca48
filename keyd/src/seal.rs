//! Keys sealed with a passphrase, and their form on disk.
//!
//! The content of an unsealed key file, encrypted by XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under a key
//! that Argon2id (RFC 9106) makes of the passphrase. All that stands before the ciphertext is authenticated with
//! it. The checksum at the end needs no passphrase: it tells damage from a wrong one.
//!
//! | bytes | what |
//! | --- | --- |
//! | 11 | magic |
//! | 1 | version |
//! | 4, 4, 4 | Argon2's memory in KiB, passes, lanes; big-endian, as all numbers |
//! | 16 | salt |
//! | 24 | nonce |
//! | 4 | length of the ciphertext with its tag |
//! | … | ciphertext, tag |
//! | 32 | SHA-256 of all before |

use argon2::{Algorithm, Argon2, Block, Params};
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, Tag, XChaCha20Poly1305, XNonce};
use i2plan_ipc::passphrase::Passphrase;
use i2plan_proto::codec::{DecodeError, Reader};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{Keys, KeysError};

const MAGIC: &[u8; 11] = b"i2plan seal";
const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const SUM_LEN: usize = 32;

/// Bytes before the ciphertext.
const HEADER_LEN: usize = MAGIC.len() + 1 + 3 * 4 + SALT_LEN + NONCE_LEN + 4;

/// Random bytes of which salt and nonce are made.
pub const RANDOM_LEN: usize = SALT_LEN + NONCE_LEN;

/// Most memory that a file may ask for, KiB: 1 GiB.
const MAX_MEMORY: u32 = 1 << 20;

/// Most passes and lanes that a file may ask for.
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// What it costs to try a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// RFC 9106's second recommended option: 64 MiB, 3 passes, 4 lanes.
    pub const DEFAULT: Self = Self { memory: 64 * 1024, passes: 3, lanes: 4 };

    /// The least that Argon2 allows.
    #[cfg(test)]
    pub(crate) const LEAST: Self = Self { memory: 8, passes: 1, lanes: 1 };

    /// Argon2's parameters, if a file may ask for that much.
    fn params(self) -> Option<Params> {
        let bounded =
            self.memory <= MAX_MEMORY && (1..=MAX_PASSES).contains(&self.passes) && self.lanes <= MAX_LANES;
        // It refuses no lanes, and less memory than the lanes need.
        bounded.then(|| Params::new(self.memory, self.passes, self.lanes, Some(32)).ok()).flatten()
    }
}

/// Why a sealed file gives no keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// It was written by another version.
    #[error(
        "it is sealed in version {0}, which this version of i2plan does not know; use the version that wrote it"
    )]
    Version(u8),
    /// It ends too early.
    #[error("it is sealed and truncated: only {0} bytes are left; restore it from a backup")]
    Truncated(usize),
    /// It is not as it was written.
    #[error("it is sealed and damaged: its checksum does not match; restore it from a backup")]
    Damaged,
    /// It asks for more than any file that i2plan writes.
    #[error(
        "it asks for {memory} KiB of memory, {passes} passes and {lanes} lanes to be opened, which is out of \
         bounds; restore it from a backup"
    )]
    Cost {
        /// KiB.
        memory: u32,
        /// Argon2's passes.
        passes: u32,
        /// Argon2's lanes.
        lanes: u32,
    },
    /// There is not enough memory.
    #[error("there are no {0} KiB of memory to open it; free some, then try again")]
    Memory(u32),
    /// It does not open.
    #[error("the passphrase does not open it; try again, the file is unchanged")]
    Passphrase,
    /// It opened, but there are no keys in it.
    #[error("what is sealed in it cannot be used: {0}")]
    Content(KeysError),
}

/// A sealed key file, not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Whole, and as it was written.
    bytes: Vec<u8>,
    header: Header,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    cost: Cost,
    salt: [u8; SALT_LEN],
    nonce: [u8; NONCE_LEN],
    /// Bytes of ciphertext and tag.
    len: u32,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        for number in [self.cost.memory, self.cost.passes, self.cost.lanes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.len.to_be_bytes());
        out
    }

    fn decode(fields: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(fields);
        let cost = Cost {
            memory: reader.u32("memory")?,
            passes: reader.u32("passes")?,
            lanes: reader.u32("lanes")?,
        };
        let header = Self {
            cost,
            salt: reader.array("salt")?,
            nonce: reader.array("nonce")?,
            len: reader.u32("length")?,
        };
        reader.finish()?;
        Ok(header)
    }

    /// The key that the passphrase makes. The cost has been checked, or is this program's own.
    fn cipher(&self, passphrase: &Passphrase) -> Result<XChaCha20Poly1305, SealError> {
        let Cost { memory, passes, lanes } = self.cost;
        let params = self.cost.params().ok_or(SealError::Cost { memory, passes, lanes })?;
        let mut blocks = Zeroizing::new(Vec::new());
        // Memory that is not there is an error, not the end of the process.
        blocks.try_reserve_exact(params.block_count()).map_err(|_| SealError::Memory(memory))?;
        blocks.resize(params.block_count(), Block::default());
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_into_with_memory(
                passphrase.expose(),
                &self.salt,
                key.as_mut(),
                blocks.as_mut_slice(),
            )
            .expect("the lengths of passphrase, salt and key are within Argon2's");
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}

/// Whether this is the content of a sealed key file, be it whole or not.
#[must_use]
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The content of a sealed key file.
///
/// # Errors
/// If there is not enough memory.
pub fn seal(
    keys: &Keys,
    passphrase: &Passphrase,
    cost: Cost,
    random: &[u8; RANDOM_LEN],
) -> Result<Vec<u8>, SealError> {
    // Encrypted in place, so no copy of the keys is left behind.
    let mut content = keys.to_bytes();
    let header = Header {
        cost,
        salt: std::array::from_fn(|index| random[index]),
        nonce: std::array::from_fn(|index| random[SALT_LEN + index]),
        len: u32::try_from(content.len() + TAG_LEN).expect("a key file is short"),
    };
    let mut out = header.encode();
    let tag = header
        .cipher(passphrase)?
        .encrypt_inout_detached(&XNonce::from(header.nonce), &out, content.as_mut_slice().into())
        .expect("a key file is far shorter than what the cipher can encrypt");
    out.extend_from_slice(&content);
    out.extend_from_slice(&tag);
    let sum = Sha256::digest(&out);
    out.extend_from_slice(&sum);
    Ok(out)
}

impl Sealed {
    /// Reads the content of a sealed key file, as far as that needs no passphrase.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        match bytes.get(MAGIC.len()) {
            None => return Err(SealError::Truncated(bytes.len())),
            Some(&VERSION) => {}
            Some(version) => return Err(SealError::Version(*version)),
        }
        let fields = bytes.get(MAGIC.len() + 1..HEADER_LEN).ok_or(SealError::Truncated(bytes.len()))?;
        let header = Header::decode(fields).map_err(|_| SealError::Damaged)?;
        let len = usize::try_from(header.len).map_err(|_| SealError::Damaged)?;
        let whole = HEADER_LEN.saturating_add(len).saturating_add(SUM_LEN);
        if bytes.len() < whole {
            return Err(SealError::Truncated(bytes.len()));
        }
        let (body, sum) = bytes.split_last_chunk::<SUM_LEN>().ok_or(SealError::Damaged)?;
        if !is_sealed(bytes) || bytes.len() != whole || Sha256::digest(body).as_slice() != sum {
            return Err(SealError::Damaged);
        }
        let Cost { memory, passes, lanes } = header.cost;
        if header.cost.params().is_none() {
            return Err(SealError::Cost { memory, passes, lanes });
        }
        Ok(Self { bytes: bytes.to_vec(), header })
    }

    /// The keys.
    ///
    /// # Errors
    /// [`SealError::Passphrase`] if it is another one, or the file was forged; others if there is not enough
    /// memory, or what was sealed are no keys.
    pub fn open(&self, passphrase: &Passphrase) -> Result<Keys, SealError> {
        let (header, rest) = self.bytes.split_at(HEADER_LEN);
        let sealed = &rest[..rest.len() - SUM_LEN];
        let (content, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(SealError::Damaged)?;
        let mut content = Zeroizing::new(content.to_vec());
        self.header
            .cipher(passphrase)?
            .decrypt_inout_detached(
                &XNonce::from(self.header.nonce),
                header,
                content.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| SealError::Passphrase)?;
        Keys::from_bytes(&content).map_err(SealError::Content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::test_keys;

    const RANDOM: [u8; RANDOM_LEN] = [7; RANDOM_LEN];

    fn passphrase(text: &[u8]) -> Passphrase {
        Passphrase::new(text).unwrap()
    }

    fn sealed() -> Vec<u8> {
        seal(&test_keys(1), &passphrase(b"right"), Cost::LEAST, &RANDOM).unwrap()
    }

    fn open(bytes: &[u8], text: &[u8]) -> Result<Keys, SealError> {
        Sealed::from_bytes(bytes)?.open(&passphrase(text))
    }

    /// Changes the file and makes its checksum fit again, as somebody who forges it would.
    fn forge(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = sealed();
        bytes.truncate(bytes.len() - SUM_LEN);
        change(&mut bytes);
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    #[test]
    fn the_passphrase_opens_it_and_no_other_does() {
        let bytes = sealed();
        assert!(is_sealed(&bytes) && !is_sealed(&test_keys(1).to_bytes()));
        assert_eq!(open(&bytes, b"right"), Ok(test_keys(1)));
        for other in [&b"wrong"[..], b"right ", b"Right", b"righ", b"right\0"] {
            assert_eq!(open(&bytes, other), Err(SealError::Passphrase));
        }
    }

    #[test]
    fn the_parameters_of_new_files_are_those_of_the_rfc() {
        let params = Cost::DEFAULT.params().unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (65_536, 3, 4));
    }

    #[test]
    fn nothing_of_the_keys_shows() {
        let (plain, bytes) = (test_keys(1).to_bytes(), sealed());
        for part in plain.windows(8) {
            assert!(!bytes.windows(8).any(|found| found == part));
        }
    }

    #[test]
    fn every_truncation_is_named() {
        let bytes = sealed();
        for len in MAGIC.len()..bytes.len() {
            assert_eq!(Sealed::from_bytes(&bytes[..len]), Err(SealError::Truncated(len)), "{len}");
        }
        assert_eq!(Sealed::from_bytes(&[&bytes[..], b"x"].concat()), Err(SealError::Damaged));
    }

    #[test]
    fn every_flipped_bit_is_an_error_before_the_passphrase_is_tried() {
        let bytes = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Sealed::from_bytes(&flipped).is_err(), "{bit}");
        }
    }

    #[test]
    fn every_forged_bit_of_what_is_authenticated_is_found() {
        let numbers = MAGIC.len() + 1..MAGIC.len() + 1 + 3 * 4;
        let len = HEADER_LEN - 4..HEADER_LEN;
        for index in numbers.end..sealed().len() - SUM_LEN {
            if len.contains(&index) {
                continue;
            }
            for bit in 0..8 {
                let forged = forge(|bytes| bytes[index] ^= 1 << bit);
                assert_eq!(open(&forged, b"right"), Err(SealError::Passphrase), "{index}, {bit}");
            }
        }
        // Numbers that are as good as those that were sealed with, and give the same key for none of them.
        for (field, value) in [(0, 9), (0, 16), (1, 2)] {
            let forged = forge(|bytes| bytes[numbers.start + 4 * field + 3] = value);
            assert_eq!(open(&forged, b"right"), Err(SealError::Passphrase), "{field} = {value}");
        }
    }

    /// The key is the right one here, so that nothing but the tag can tell.
    #[test]
    fn the_header_is_authenticated_itself() {
        let bytes = sealed();
        let mut file = Sealed::from_bytes(&bytes).unwrap();
        for index in 0..HEADER_LEN {
            file.bytes[index] ^= 1;
            assert_eq!(file.open(&passphrase(b"right")), Err(SealError::Passphrase), "{index}");
            file.bytes[index] ^= 1;
        }
        assert_eq!(file.open(&passphrase(b"right")), Ok(test_keys(1)));
    }

    #[test]
    fn a_file_cannot_ask_for_more_than_the_bounds() {
        let with = |memory: u32, passes: u32, lanes: u32| {
            let forged = forge(|bytes| {
                let numbers = [memory.to_be_bytes(), passes.to_be_bytes(), lanes.to_be_bytes()].concat();
                bytes[MAGIC.len() + 1..][..12].copy_from_slice(&numbers);
            });
            Sealed::from_bytes(&forged)
        };
        for (memory, passes, lanes) in [
            (MAX_MEMORY + 1, 1, 1),
            (u32::MAX, 1, 1),
            (8, MAX_PASSES + 1, 1),
            (8, u32::MAX, 1),
            (1024, 1, MAX_LANES + 1),
            (u32::MAX, u32::MAX, u32::MAX),
            (8, 0, 1),
            (8, 1, 0),
            (7, 1, 1),
            (15, 1, 2),
            (0, 0, 0),
        ] {
            assert_eq!(with(memory, passes, lanes), Err(SealError::Cost { memory, passes, lanes }));
        }
        assert!(with(MAX_MEMORY, MAX_PASSES, MAX_LANES).is_ok());
    }

    #[test]
    fn a_later_version_is_named() {
        let forged = forge(|bytes| bytes[MAGIC.len()] = 2);
        assert_eq!(Sealed::from_bytes(&forged), Err(SealError::Version(2)));
    }

    #[test]
    fn a_short_ciphertext_is_an_error() {
        let forged = forge(|bytes| {
            bytes.truncate(HEADER_LEN);
            bytes[HEADER_LEN - 4..].copy_from_slice(&0u32.to_be_bytes());
        });
        assert_eq!(open(&forged, b"right"), Err(SealError::Damaged));
    }

    proptest! {
        #[test]
        fn every_sealed_file_opens_with_its_passphrase_alone(
            seed: u8,
            random: [[u8; 8]; RANDOM_LEN / 8],
            right in "[^\n\0]{1,40}",
            wrong in "[^\n\0]{1,40}",
        ) {
            let random = std::array::from_fn(|index| random[index / 8][index % 8]);
            let keys = test_keys(seed);
            let bytes = seal(&keys, &passphrase(right.as_bytes()), Cost::LEAST, &random).unwrap();
            prop_assert_eq!(open(&bytes, right.as_bytes()), Ok(keys));
            if wrong != right {
                prop_assert_eq!(open(&bytes, wrong.as_bytes()), Err(SealError::Passphrase));
            }
        }

        #[test]
        fn arbitrary_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Sealed::from_bytes(&bytes).is_err());
            prop_assert!(Sealed::from_bytes(&[MAGIC.as_slice(), &[VERSION], &bytes].concat()).is_err());
        }
    }
}
