//! The router's directory: its keys, and the routers that it knows.

use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::state_dir::{StateDir, StateDirError};
use thiserror::Error;
use tracing::{info, warn};

use crate::identity::{self, Identity, IdentityError};
use crate::known::{self, KnownRouters};

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
    #[error(transparent)]
    Directory(#[from] StateDirError),
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
    directory: StateDir,
}

impl Store {
    /// Takes hold of the directory, which must exist.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { directory: StateDir::open(path)? })
    }

    /// The router's keys, made if there are none.
    ///
    /// # Errors
    /// [`StoreError`] if there is a file that holds none, which is left as it is; or if new ones are not safely on
    /// disk.
    pub fn identity(&self) -> Result<Identity, StoreError> {
        let wrong = |source| StoreError::Identity { path: self.directory.path(KEYS), source };
        if let Some(bytes) = self.directory.read(KEYS, identity::MAX_LEN as u64)? {
            return Identity::from_bytes(&bytes).map_err(wrong);
        }
        let identity = Identity::generate().map_err(wrong)?;
        self.directory.create(KEYS, &identity.to_bytes())?;
        info!("this is a new router");
        Ok(identity)
    }

    /// The routers of the network with this id that are known. A list that cannot be read is put aside: it can be
    /// learnt again.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read at all.
    pub fn known(&self, network: u8) -> Result<KnownRouters, StoreError> {
        let known = match self.directory.read(ROUTERS, known::MAX_LEN) {
            Ok(None) => return Ok(KnownRouters::none(network)),
            Ok(Some(bytes)) => KnownRouters::from_bytes(&bytes, network).map_err(|error| error.to_string()),
            Err(error @ StateDirError::TooLarge { .. }) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        known.or_else(|error| {
            let (path, aside) = (self.directory.path(ROUTERS), self.directory.path(DAMAGED));
            warn!(file = %path.display(), aside = %aside.display(), error, "put the known routers aside");
            self.directory.rename(ROUTERS, DAMAGED)?;
            Ok(KnownRouters::none(network))
        })
    }

    /// Replaces the known routers.
    ///
    /// # Errors
    /// [`StoreError`] if they are not safely on disk; the old ones are there then.
    pub fn save(&self, known: &KnownRouters) -> Result<(), StoreError> {
        Ok(self.directory.replace(ROUTERS, &known.to_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

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
        assert!(matches!(store.identity(), Err(StoreError::Directory(StateDirError::TooOpen { .. }))));
    }

    #[test]
    fn a_damaged_list_is_put_aside() {
        let dir = directory();
        let store = Store::open(dir.path()).unwrap();
        assert!(store.known(2).unwrap().is_empty());
        store.save(&KnownRouters::none(2)).unwrap();
        assert!(store.known(2).unwrap().is_empty());
        let path = dir.path().join(ROUTERS);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(known::MAX_LEN + 1).unwrap();
        assert!(store.known(2).unwrap().is_empty());
        assert_eq!(dir.path().join(DAMAGED).metadata().unwrap().len(), known::MAX_LEN + 1);
        store.save(&KnownRouters::none(2)).unwrap();
        std::fs::write(&path, "half a li").unwrap();
        assert!(store.known(2).unwrap().is_empty());
        assert_eq!(std::fs::read(dir.path().join(DAMAGED)).unwrap(), b"half a li");
        assert!(!path.exists());
    }

    #[test]
    fn the_directory_is_one_process_own() {
        let dir = directory();
        let first = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Directory(StateDirError::InUse { .. }))));
        drop(first);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(
            Store::open(dir.path()),
            Err(StoreError::Directory(StateDirError::TooOpen { mode: 0o750, .. }))
        ));
    }
}
