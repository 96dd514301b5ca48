//! The file that holds the keys.
//!
//! It is written once, when the node comes to be, and never replaced: a file that cannot be read is an error
//! for a person to mend, not a reason to become another node.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{Keys, KeysError, RANDOM_LEN};

/// The file's name in its directory.
const NAME: &str = "keys";

/// The file's name while it is being written.
const PARTIAL: &str = "keys.new";

/// Longest file that is read, bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory or the file cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} is open to others (mode {mode:04o}): run `chmod {mend:04o} {}`", path.display(), path.display())]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        mend: u32,
    },
    /// It is somebody else's.
    #[error("{} belongs to user {owner}, and this is user {own}: run `chown {own} {}` if it should not", path.display(), path.display())]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        own: u32,
    },
    /// Another process has it.
    #[error("{} is in use by another keyd", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not a key file.
    #[error("cannot use {}: {source}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeysError,
    },
    /// The system gave no randomness for new keys.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// The directory of a key file, held by one process.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Held open: it carries the lock on the directory.
    directory: File,
}

impl Store {
    /// Takes hold of a directory, which is made if its parent is there.
    ///
    /// # Errors
    /// [`StoreError`] if it is not this user's, is open to others, or is held by another process.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error)),
        }
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits();
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags).unwrap_or(0))
            .open(path)
            .map_err(io)?;
        check(&directory, path, 0o700)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), directory })
    }

    /// The keys, if there are any.
    ///
    /// # Errors
    /// [`StoreError`] if there is a file that cannot be used. It is left as it is.
    pub fn load(&self) -> Result<Option<Keys>, StoreError> {
        let path = self.path.join(NAME);
        let io = |source| StoreError::Io { path: path.clone(), source };
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        check(&file, &path, 0o600)?;
        // In one piece: a growing buffer would leave copies of keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_LEN).unwrap_or(0)));
        file.take(MAX_LEN).read_to_end(&mut bytes).map_err(io)?;
        Keys::from_bytes(&bytes).map(Some).map_err(|source| StoreError::Keys { path, source })
    }

    /// Makes keys and stores them. After a crash at any moment there is either no key file or a whole one.
    ///
    /// # Errors
    /// [`StoreError`] if they are not safely on disk, or if there are keys already.
    pub fn create(&self, now: u64) -> Result<Keys, StoreError> {
        let mut random = Zeroizing::new([0; RANDOM_LEN]);
        getrandom::fill(random.as_mut()).map_err(StoreError::Randomness)?;
        let keys = Keys::generate(&random, now);
        let partial = self.path.join(PARTIAL);
        let write = || {
            // What an interrupted attempt has left holds keys that nobody has seen.
            match std::fs::remove_file(&partial) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
            file.write_all(&keys.to_bytes())?;
            file.sync_all()?;
            // Unlike a rename, a link does not replace a file that is there.
            std::fs::hard_link(&partial, self.path.join(NAME))?;
            std::fs::remove_file(&partial)?;
            self.directory.sync_all()
        };
        let written = write();
        if written.is_err() {
            // It holds keys that are of no use to anybody.
            let _ = std::fs::remove_file(&partial);
        }
        written.map_err(|source| StoreError::Io { path: self.path.join(NAME), source })?;
        Ok(keys)
    }
}

/// Only this user may get at it.
fn check(file: &File, path: &Path, mend: u32) -> Result<(), StoreError> {
    let found = file.metadata().map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        return Err(StoreError::Owner { path: path.to_owned(), owner: found.uid(), own });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::TooOpen { path: path.to_owned(), mode, mend });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyd");
        Place { _dir: dir, path }
    }

    #[test]
    fn keys_are_made_once() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        assert!(store.load().unwrap().is_none());
        let keys = store.create(1).unwrap();
        assert_eq!(store.load().unwrap(), Some(keys.clone()));
        assert!(store.create(2).is_err());
        assert_eq!(store.load().unwrap(), Some(keys));
        let mode = |name| std::fs::metadata(place.path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode(NAME)), (0o700, 0o600));
        assert!(!place.path.join(PARTIAL).exists());
    }

    #[test]
    fn an_interrupted_creation_is_begun_again() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        for content in [&b""[..], b"i2plan keys", &[0; 500]] {
            std::fs::write(place.path.join(PARTIAL), content).unwrap();
            assert!(store.load().unwrap().is_none());
        }
        let keys = store.create(1).unwrap();
        assert_eq!(store.load().unwrap(), Some(keys));
    }

    #[test]
    fn a_crash_after_the_link_leaves_whole_keys() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        let keys = store.create(1).unwrap();
        std::fs::hard_link(place.path.join(NAME), place.path.join(PARTIAL)).unwrap();
        assert_eq!(store.load().unwrap(), Some(keys));
    }

    #[test]
    fn what_others_can_read_is_refused_with_the_mend() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        store.create(1).unwrap();
        let file = place.path.join(NAME);
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let message = store.load().unwrap_err().to_string();
        assert!(message.contains("chmod 0600"), "{message}");
        drop(store);
        std::fs::set_permissions(&place.path, Permissions::from_mode(0o755)).unwrap();
        let message = Store::open(&place.path).unwrap_err().to_string();
        assert!(message.contains("chmod 0700"), "{message}");
    }

    #[test]
    fn a_damaged_file_stays_as_it_is() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        store.create(1).unwrap();
        let file = place.path.join(NAME);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[50] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Keys { source: KeysError::Damaged, .. })));
        assert!(store.create(2).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }

    #[test]
    fn links_are_not_followed() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        let elsewhere = place.path.join("elsewhere");
        std::fs::write(&elsewhere, b"x").unwrap();
        std::os::unix::fs::symlink(&elsewhere, place.path.join(NAME)).unwrap();
        assert!(store.load().is_err());
        assert!(store.create(1).is_err());
    }

    #[test]
    fn two_processes_do_not_share_a_store() {
        let place = place();
        let _first = Store::open(&place.path).unwrap();
        assert!(matches!(Store::open(&place.path), Err(StoreError::InUse { .. })));
    }
}
