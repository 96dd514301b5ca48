//! Where a router learns of the first others.
//!
//! * here: a file or directory that somebody has given it.
//! * [`fetch`]: I2P's reseed servers.
//! * [`su3`], [`signers`]: the signed bundles that these give, and whose are believed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::known::{InfoError, KnownRouters, MAX_INFO};

pub mod fetch;
pub mod signers;
pub mod su3;

/// Files that are looked at, at most.
const MAX_FILES: usize = 20_000;

/// How deep directories are looked into: routers keep their lists as `netDb/rX/routerInfo-….dat`.
const MAX_DEPTH: usize = 2;

/// Why a seed is of no use.
#[derive(Debug, Error)]
pub enum SeedError {
    /// It cannot be read.
    #[error("cannot read the seed {} (router.seed): {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a bundle that is not to be believed.
    #[error("cannot use the seed {} (router.seed): {source}", path.display())]
    Bundle {
        /// What.
        path: PathBuf,
        /// Why not.
        source: su3::BundleError,
    },
    /// There is no router in it.
    #[error(
        "there is no router of this network in the seed {} (router.seed): {count} files were looked at{}",
        path.display(),
        last.map(|error| format!(", the last: {error}")).unwrap_or_default()
    )]
    Empty {
        /// What.
        path: PathBuf,
        /// Files that were looked at.
        count: usize,
        /// What is wrong with the last of them.
        last: Option<InfoError>,
    },
}

/// Learns of the routers in a file with one router info, a directory of such files, or a bundle that a reseed server
/// has signed. Returns how many they are. `now` is in seconds since 1970.
///
/// # Errors
/// [`SeedError`] if it cannot be read or is not rightly signed, or there are none.
pub fn read(path: &Path, known: &mut KnownRouters, now: u64) -> Result<usize, SeedError> {
    let mut seed = Seed { files: 0, learnt: 0, last: None };
    match bundle(path)? {
        Some(bytes) => {
            let routers = su3::open(&bytes, |signer| signers::key(signer, now));
            let wrong = |source| SeedError::Bundle { path: path.to_owned(), source };
            routers.map_err(wrong)?.1.iter().for_each(|router| seed.learn(router, known));
        }
        None => seed.look(path, 0, known).map_err(|(path, source)| SeedError::Read { path, source })?,
    }
    if seed.learnt == 0 {
        return Err(SeedError::Empty { path: path.to_owned(), count: seed.files, last: seed.last });
    }
    Ok(seed.learnt)
}

/// The content of a file, if it is a bundle.
fn bundle(path: &Path) -> Result<Option<Vec<u8>>, SeedError> {
    let read = || {
        if !path.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(su3::MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes.starts_with(su3::MAGIC).then_some(bytes))
    };
    read().map_err(|source| SeedError::Read { path: path.to_owned(), source })
}

struct Seed {
    files: usize,
    learnt: usize,
    last: Option<InfoError>,
}

impl Seed {
    fn look(
        &mut self,
        path: &Path,
        depth: usize,
        known: &mut KnownRouters,
    ) -> Result<(), (PathBuf, io::Error)> {
        let failed = |source| (path.to_owned(), source);
        if !path.metadata().map_err(failed)?.is_dir() {
            return self.file(path, known).map_err(failed);
        }
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if hidden || self.files >= MAX_FILES || !(kind.is_file() || kind.is_dir() && depth < MAX_DEPTH) {
                continue;
            }
            self.look(&entry.path(), depth + 1, known)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, known: &mut KnownRouters) -> io::Result<()> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_INFO as u64 + 1).read_to_end(&mut bytes)?;
        self.learn(&bytes, known);
        Ok(())
    }

    fn learn(&mut self, info: &[u8], known: &mut KnownRouters) {
        self.files += 1;
        match known.learn(info) {
            Ok(()) => self.learnt += 1,
            Err(error) => self.last = Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NETWORK, info};

    /// May 2025.
    const NOW: u64 = 1_747_000_000;

    #[test]
    fn routers_are_found_in_files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (of_one, nested) = (dir.path().join("one.dat"), dir.path().join("rA"));
        std::fs::create_dir(&nested).unwrap();
        std::fs::write(&of_one, info(1, NETWORK, 5)).unwrap();
        std::fs::write(nested.join("routerInfo-A.dat"), info(2, NETWORK, 5)).unwrap();
        std::fs::write(dir.path().join("README"), "not a router").unwrap();
        std::fs::write(dir.path().join(".hidden"), info(3, NETWORK, 5)).unwrap();
        let mut known = KnownRouters::none(NETWORK);
        assert_eq!(read(&of_one, &mut known, NOW).unwrap(), 1);
        assert_eq!(read(dir.path(), &mut known, NOW).unwrap(), 2);
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn a_seed_without_a_router_is_an_error_that_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = KnownRouters::none(NETWORK);
        let missing = read(&dir.path().join("missing"), &mut known, NOW).unwrap_err();
        assert!(matches!(missing, SeedError::Read { .. }), "{missing}");
        std::fs::write(dir.path().join("foreign"), info(1, 2, 5)).unwrap();
        let empty = read(dir.path(), &mut known, NOW).unwrap_err().to_string();
        assert!(
            empty.contains("1 files were looked at, the last: this is a router of the I2P network 2"),
            "{empty}"
        );
        assert!(known.is_empty());
    }

    #[test]
    fn a_bundle_must_be_signed_by_somebody_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i2pseeds.su3");
        std::fs::write(&path, su3::tests::bundle("somebody@mail.i2p", NOW, &[])).unwrap();
        let error = read(&path, &mut KnownRouters::none(NETWORK), NOW).unwrap_err().to_string();
        assert!(
            error.ends_with("signed by \"somebody@mail.i2p\", who is nobody whose bundles are believed"),
            "{error}"
        );
    }
}
