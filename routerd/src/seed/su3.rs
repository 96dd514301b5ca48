//! Signed bundles of routers, as I2P's reseed servers give them (I2P's specification of SU3 files): a header, and a
//! zip archive of router infos.

use std::io::{Cursor, Read as _};

use rsa::{Pkcs1v15Sign, PublicKey};
use sha2::{Digest as _, Sha512};
use thiserror::Error;
use zip::ZipArchive;

use crate::known::MAX_INFO;

/// What a file begins with.
pub const MAGIC: &[u8] = b"I2Psu3";

/// Longest bundle, bytes. Real ones have about a tenth.
pub const MAX_LEN: usize = 1 << 20;

/// Bytes of the header before the version.
const HEADER: usize = 40;

/// The one kind of signature that bundles have: RSA with SHA-512.
pub const RSA_SHA512: u16 = 6;

/// The kind of file: a zip archive.
pub const ZIP: u8 = 0;

/// The kind of content: router infos.
pub const RESEED: u8 = 3;

/// Routers in a bundle, at most.
const MAX_ROUTERS: usize = 1000;

/// Why a bundle is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BundleError {
    /// It is not built as a bundle is.
    #[error("this is no bundle of routers")]
    Malformed,
    /// It is something else, or signed in a way that bundles are not.
    #[error("this is an SU3 file, but no bundle of routers")]
    Other,
    /// Its signer is nobody who signs bundles.
    #[error("signed by {0:?}, who is nobody whose bundles are believed")]
    Signer(String),
    /// It is not as its signer has signed it.
    #[error("not what {0} has signed")]
    Signature(String),
}

/// A bundle, in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// Who says to have signed it.
    pub signer: &'a str,
    /// When it was made, seconds since 1970, by its maker's clock.
    pub made: u64,
    /// The archive.
    pub archive: &'a [u8],
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// Takes a bundle apart. Nothing in it is to be believed before it is [verified](Self::verify).
    ///
    /// # Errors
    /// [`BundleError::Malformed`] and [`BundleError::Other`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let header = bytes.get(..HEADER).ok_or(BundleError::Malformed)?;
        if !header.starts_with(MAGIC) {
            return Err(BundleError::Malformed);
        }
        let number =
            |at: usize, len: usize| header[at..at + len].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let length = |at, len| usize::try_from(number(at, len)).map_err(|_| BundleError::Malformed);
        let (signature_len, version_len) = (length(10, 2)?, length(13, 1)?);
        let (signer_len, content_len) = (length(15, 1)?, length(16, 8)?);
        if number(8, 2) != u64::from(RSA_SHA512) || header[25] != ZIP || header[27] != RESEED {
            return Err(BundleError::Other);
        }
        let mut rest = &bytes[HEADER..];
        let mut take = |len: usize| {
            let (part, after) = rest.split_at_checked(len).ok_or(BundleError::Malformed)?;
            rest = after;
            Ok(part)
        };
        let version = take(version_len)?;
        let signer = std::str::from_utf8(take(signer_len)?).map_err(|_| BundleError::Malformed)?;
        let archive = take(content_len)?;
        let signature = take(signature_len)?;
        if !rest.is_empty() {
            return Err(BundleError::Malformed);
        }
        let signed = &bytes[..bytes.len() - signature_len];
        // Of bundles it is the time, in digits, filled up with NULs.
        let digits = version.split(|byte| *byte == 0).next().unwrap_or_default();
        let made = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        Ok(Self { signer, made: made.ok_or(BundleError::Malformed)?, archive, signed, signature })
    }

    /// That it is signed by one whose key is known.
    ///
    /// # Errors
    /// [`BundleError::Signer`] and [`BundleError::Signature`].
    pub fn verify(&self, key: impl Fn(&str) -> Option<PublicKey>) -> Result<(), BundleError> {
        let signer = || self.signer.to_owned();
        let key = key(self.signer).ok_or_else(|| BundleError::Signer(signer()))?;
        // The hash is padded as it is, without the name of its kind.
        key.verify(Pkcs1v15Sign::new_unprefixed(), &Sha512::digest(self.signed), self.signature)
            .map_err(|_| BundleError::Signature(signer()))
    }
}

/// When a bundle was made, and the files in it, if it is rightly signed.
///
/// # Errors
/// [`BundleError`].
pub fn open(
    bytes: &[u8],
    key: impl Fn(&str) -> Option<PublicKey>,
) -> Result<(u64, Vec<Vec<u8>>), BundleError> {
    let bundle = Bundle::parse(bytes)?;
    bundle.verify(key)?;
    Ok((bundle.made, unpack(bundle.archive)?))
}

/// What is in an archive: the content of each file, cut off where it is longer than a router info.
///
/// # Errors
/// [`BundleError::Malformed`] if it is no archive.
pub fn unpack(archive: &[u8]) -> Result<Vec<Vec<u8>>, BundleError> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(|_| BundleError::Malformed)?;
    let mut files = Vec::new();
    for index in 0..archive.len().min(MAX_ROUTERS) {
        let Ok(file) = archive.by_index(index) else { continue };
        let mut content = Vec::new();
        if file.take(MAX_INFO as u64 + 1).read_to_end(&mut content).is_ok() {
            files.push(content);
        }
    }
    Ok(files)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rsa::PrivateKey;

    use super::*;
    use crate::testing::{archive, unsigned};

    /// Half as long as those of I2P's signers, and so made in less time.
    static KEY: LazyLock<PrivateKey> =
        LazyLock::new(|| PrivateKey::new(&mut rsa::rand_core::UnwrapErr(getrandom::SysRng), 2048).unwrap());

    const SIGNER: &str = "test@mail.i2p";

    pub(crate) fn key() -> PublicKey {
        KEY.to_public_key()
    }

    fn signers(signer: &str) -> Option<PublicKey> {
        (signer == SIGNER).then(key)
    }

    /// A bundle as a reseed server makes it.
    pub(crate) fn bundle(signer: &str, made: u64, files: &[&[u8]]) -> Vec<u8> {
        let bytes = unsigned(signer, made, 256, files);
        let signature = KEY.sign(Pkcs1v15Sign::new_unprefixed(), &Sha512::digest(&bytes)).unwrap();
        [bytes, signature].concat()
    }

    #[test]
    fn what_is_signed_is_unpacked() {
        let long = vec![7; MAX_INFO + 9];
        let bytes = bundle(SIGNER, 1_745_582_702, &[b"one", b"", &long]);
        let (made, files) = open(&bytes, signers).unwrap();
        assert_eq!(made, 1_745_582_702);
        assert_eq!(files, [b"one".to_vec(), Vec::new(), long[..MAX_INFO + 1].to_vec()]);
    }

    #[test]
    fn no_bit_of_it_may_differ() {
        let bytes = bundle(SIGNER, 5, &[b"one"]);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(open(&other, signers).is_err(), "byte {at}");
            assert!(open(&bytes[..at], signers).is_err(), "{at} bytes");
        }
        assert_eq!(open(&[&bytes[..], &[0]].concat(), signers), Err(BundleError::Malformed));
        assert!(matches!(open(&bundle("x", 5, &[]), signers), Err(BundleError::Signer(name)) if name == "x"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bundle_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..100usize, byte: u8
        ) {
            let _ = Bundle::parse(&[MAGIC, &bytes].concat());
            let _ = unpack(&bytes);
            let mut archive = archive(&[b"one", b"two"]);
            if let Some(place) = archive.get_mut(at) {
                *place = byte;
            }
            let _ = unpack(&archive);
        }
    }
}
