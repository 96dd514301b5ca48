//! The router's directory: its keys, and the routers that it knows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::durable;
use rustix::fs::{FlockOperation, OFlags, flock};
use thiserror::Error;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::identity::{self, Identity, IdentityError};
use crate::known::{self, Known};

/// The file of the keys.
const KEYS: &str = "router.keys";

/// The file of the known routers.
const ROUTERS: &str = "netdb";

/// Where a list of routers is put that cannot be read.
const DAMAGED: &str = "netdb.damaged";

/// Why there is nothing to start from.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another i2plan-routerd", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("{} is open to others (mode {mode:04o}): run `chmod go= {}`", path.display(), path.display())]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file does not hold keys.
    #[error("cannot use {}: {source}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: IdentityError,
    },
}

/// The directory of one router, held by one process.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Held open: it carries the lock on the directory.
    directory: File,
}

impl Store {
    /// Takes hold of the directory, which must exist.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be opened, is open to others, or is held by another process.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        let directory = File::open(path).map_err(io)?;
        check(&directory, path)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), directory })
    }

    /// The router's keys, made if there are none.
    ///
    /// # Errors
    /// [`StoreError`] if there is a file that holds none, which is left as it is; or if new ones are not safely on
    /// disk.
    pub fn identity(&self) -> Result<Identity, StoreError> {
        let path = self.path.join(KEYS);
        let wrong = |source| StoreError::Identity { path: path.clone(), source };
        if let Some(bytes) = self.read(KEYS, identity::MAX_LEN as u64)? {
            return Identity::from_bytes(&bytes).map_err(wrong);
        }
        let identity = Identity::generate().map_err(wrong)?;
        self.replace(KEYS, &identity.to_bytes())?;
        info!("this is a new router");
        Ok(identity)
    }

    /// The routers of the network with this id that are known. A list that cannot be read is put aside: it can be
    /// learnt again.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read at all.
    pub fn known(&self, network: u8) -> Result<Known, StoreError> {
        let Some(bytes) = self.read(ROUTERS, known::MAX_LEN)? else { return Ok(Known::none(network)) };
        match Known::from_bytes(&bytes, network) {
            Ok(known) => Ok(known),
            Err(error) => {
                let path = self.path.join(ROUTERS);
                let aside = self.path.join(DAMAGED);
                warn!(file = %path.display(), aside = %aside.display(), %error, "put the known routers aside");
                std::fs::rename(&path, aside).map_err(|source| StoreError::Io { path, source })?;
                Ok(Known::none(network))
            }
        }
    }

    /// Replaces the known routers.
    ///
    /// # Errors
    /// [`StoreError`] if they are not safely on disk; the old ones are there then.
    pub fn save(&self, known: &Known) -> Result<(), StoreError> {
        self.replace(ROUTERS, &known.to_bytes())
    }

    /// What a file holds, up to so many bytes; none if there is no such file.
    fn read(&self, name: &str, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.path.join(name);
        let io = |source| StoreError::Io { path: path.clone(), source };
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        check(&file, &path)?;
        let len = file.metadata().map_err(io)?.len().min(most);
        // In one piece: a growing buffer would leave copies of keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1));
        file.take(most).read_to_end(&mut bytes).map_err(io)?;
        Ok(Some(bytes))
    }

    /// After a crash at any moment the file holds either the old or the new content.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        durable::replace(&self.directory, &self.path, name, bytes)
            .map_err(|source| StoreError::Io { path: self.path.join(name), source })
    }
}

/// That nobody else can read or write it.
fn check(file: &File, path: &Path) -> Result<(), StoreError> {
    let found = file.metadata().map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    if found.mode() & 0o077 != 0 {
        return Err(StoreError::TooOpen { path: path.to_owned(), mode: found.mode() & 0o7777 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn a_router_stays_itself() {
        let dir = directory();
        let identity = Store::open(dir.path()).unwrap().identity().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.identity().unwrap() == identity);
        let keys = dir.path().join(KEYS);
        assert_eq!(keys.metadata().unwrap().mode() & 0o777, 0o600);
        // What an interrupted attempt has left is in nobody's way.
        std::fs::write(dir.path().join("router.keys.new"), "half").unwrap();
        assert!(store.identity().unwrap() == identity);
    }

    #[test]
    fn damaged_keys_are_an_error_and_stay() {
        let dir = directory();
        let store = Store::open(dir.path()).unwrap();
        store.identity().unwrap();
        let keys = dir.path().join(KEYS);
        let whole = std::fs::read(&keys).unwrap();
        for bad in [&whole[..whole.len() / 2], &b"something else"[..], b""] {
            std::fs::write(&keys, bad).unwrap();
            let error = store.identity().unwrap_err();
            assert!(matches!(error, StoreError::Identity { .. }), "{error}");
            assert_eq!(std::fs::read(&keys).unwrap(), bad);
        }
        std::fs::write(&keys, &whole).unwrap();
        std::fs::set_permissions(&keys, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.identity(), Err(StoreError::TooOpen { .. })));
    }

    #[test]
    fn a_damaged_list_is_put_aside() {
        let dir = directory();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.known(2).unwrap().is_empty());
        store.save(&Known::none(2)).unwrap();
        assert!(store.known(2).unwrap().is_empty());
        std::fs::write(dir.path().join(ROUTERS), "half a li").unwrap();
        assert!(store.known(2).unwrap().is_empty());
        assert_eq!(std::fs::read(dir.path().join(DAMAGED)).unwrap(), b"half a li");
        assert!(!dir.path().join(ROUTERS).exists());
    }

    #[test]
    fn the_directory_is_one_process_own() {
        let dir = directory();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse { .. })));
        drop(first);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::TooOpen { mode: 0o750, .. })));
    }
}
