//! `keyd`'s key file.
//!
//! If the first byte is odd, what follows is taken for what stands between the file's head and its checksum.

use i2plan_ipc::secret::SecretKey;
use i2plan_keyd::keys::{Keys, KeysError, RANDOM_LEN};
use i2plan_testing as testing;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{Seeds, seed};

const HEAD: &[u8] = b"i2plan keys\x01";

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    if kind & 1 == 0 {
        check(rest);
    } else {
        let body = [HEAD, rest].concat();
        check(&[body.as_slice(), &Sha256::digest(&body)].concat());
    }
}

/// A file that is taken is the one file of its keys; what is refused is called what it is.
fn check(file: &[u8]) {
    match Keys::from_bytes(file) {
        Ok(keys) => {
            assert_eq!(keys.to_bytes().as_slice(), file);
            assert!(keys.is_own_ephemeral(&keys.ephemeral([1; 32]).public()));
            assert_eq!(format!("{keys:?}"), format!("Keys(of node {})", keys.node().short()));
        }
        Err(KeysError::Foreign) => assert!(!file.starts_with(&HEAD[..HEAD.len() - 1])),
        Err(KeysError::Version(version)) => {
            assert_eq!(file.get(HEAD.len() - 1), Some(&version));
            assert!(![1, 2].contains(&version));
        }
        Err(KeysError::Truncated(len)) => assert_eq!(len, file.len()),
        Err(KeysError::Damaged) => assert!(file.starts_with(&HEAD[..HEAD.len() - 1])),
    }
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let random = Zeroizing::new(std::array::from_fn::<u8, RANDOM_LEN, _>(|index| index as u8));
    let mut keys = Keys::generate(&random, testing::NOW);
    let file = keys.to_bytes();
    keys.import_static(&SecretKey([7; 32]));
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let body = &file[HEAD.len()..file.len() - 32];
    let mut later = file.to_vec();
    later[HEAD.len() - 1] = 9;
    vec![
        seed("whole", with(0, &file)),
        seed("imported", with(0, &keys.to_bytes())),
        seed("truncated", with(0, &file[..100])),
        seed("longer", with(0, &[&file[..], &[0]].concat())),
        seed("later", with(0, &later)),
        seed("foreign", with(0, b"-----BEGIN OPENSSH PRIVATE KEY-----")),
        seed("body", with(1, body)),
        seed("body-short", with(1, &body[..80])),
        seed("body-long", with(1, &[body, &[0; 8]].concat())),
    ]
}
