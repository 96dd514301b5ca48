//! The file that holds the keys, sealed with a passphrase or not.
//!
//! It is written once, when the node comes to be: a file that cannot be read is an error for a person to fix,
//! not a reason to become another node. Nothing replaces it but [`Store::replace`], which is for changing the
//! passphrase of keys that were read from it.

use std::io;
use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::state_dir::{StateDir, StateDirError};
use i2plan_ipc::passphrase::Passphrase;
use i2plan_proto::codec::DecodeError;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{Keys, KeysError, RANDOM_LEN};
use crate::seal::{self, Cost, SealError, Sealed};

mod memory;

pub use memory::MemoryFiles;

/// The file's name in its directory.
const NAME: &str = "keys";

/// Longest file that is read, bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The directory or a file in it cannot be used.
    #[error(transparent)]
    Directory(#[from] StateDirError),
    /// The file is not a key file.
    #[error("cannot use {}: {source}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeysError,
    },
    /// The file is not a sealed key file, or could not be sealed.
    #[error("cannot use {}: {source}", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SealError,
    },
    /// What is remembered beside the keys was written by another version.
    #[error(
        "cannot use {}: {source}; use the version that wrote it, or move keyd's and meshd's directories elsewhere to start as \
         a node without a network",
        path.display()
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: DecodeError,
    },
    /// A file has more bytes than it ever should. It stays as it is.
    #[error("cannot use {}: it has {len} bytes, and {max} are the most; move it elsewhere, start keyd, and then have its memory recovered", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        len: u64,
        /// The most that are read.
        max: u64,
    },
    /// There is no file.
    #[error("there is no key store in {}: name the directory of one with --store", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The system gave no randomness for new keys.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// What a key file holds.
#[derive(Debug)]
pub enum StoredKeys {
    /// Keys.
    Plain(Keys),
    /// Keys that are sealed.
    Sealed(Sealed),
}

/// How keys are to be sealed.
#[derive(Debug, Clone, Copy)]
pub struct Seal<'a> {
    passphrase: &'a Passphrase,
    cost: Cost,
}

impl<'a> Seal<'a> {
    /// With a passphrase.
    #[must_use]
    pub fn new(passphrase: &'a Passphrase) -> Self {
        Self { passphrase, cost: Cost::DEFAULT }
    }
}

/// The directory of a key file, held by one process.
#[derive(Debug)]
pub struct Store {
    directory: StateDir,
}

impl Store {
    /// Takes hold of a directory, which is made if its parent is there.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { directory: StateDir::open_or_make(path)? })
    }

    /// Takes hold of a directory that is there.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::Missing`].
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        match StateDir::open(path) {
            Err(error) if error.is_not_found() => Err(StoreError::Missing { path: path.to_owned() }),
            directory => Ok(Self { directory: directory? }),
        }
    }

    /// What the file holds, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] if there is a file that cannot be used. It is left as it is.
    pub fn load(&self) -> Result<Option<StoredKeys>, StoreError> {
        let Some(bytes) = self.directory.read(NAME, MAX_LEN)? else { return Ok(None) };
        let path = self.directory.path(NAME);
        let stored = if seal::is_sealed(&bytes) {
            StoredKeys::Sealed(
                Sealed::from_bytes(&bytes).map_err(|source| StoreError::Seal { path, source })?,
            )
        } else {
            StoredKeys::Plain(Keys::from_bytes(&bytes).map_err(|source| StoreError::Keys { path, source })?)
        };
        // An interrupted change of the passphrase may have left the keys beside it, and under no passphrase. With
        // the file itself whole they are not needed.
        self.clear();
        Ok(Some(stored))
    }

    /// The keys that were sealed.
    ///
    /// # Errors
    /// [`StoreError::Seal`] if it is another passphrase.
    pub fn unseal(&self, sealed: &Sealed, passphrase: &Passphrase) -> Result<Keys, StoreError> {
        sealed.open(passphrase).map_err(|source| StoreError::Seal { path: self.directory.path(NAME), source })
    }

    /// What goes into the file.
    fn content(&self, keys: &Keys, how: Option<Seal<'_>>) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let Some(Seal { passphrase, cost }) = how else { return Ok(keys.to_bytes()) };
        let mut random = [0; seal::RANDOM_LEN];
        getrandom::fill(&mut random).map_err(StoreError::Randomness)?;
        seal::seal(keys, passphrase, cost, &random)
            .map(Zeroizing::new)
            .map_err(|source| StoreError::Seal { path: self.directory.path(NAME), source })
    }

    /// Writes these keys in the place of the file that they were read from. After a crash at any moment there is
    /// either the old file or the new one, whole.
    ///
    /// # Errors
    /// [`StoreError`]; the old file is still there then, unless only the directory could not be synchronised.
    pub fn replace(&self, keys: &Keys, how: Option<Seal<'_>>) -> Result<(), StoreError> {
        let content = self.content(keys, how)?;
        Ok(self.directory.replace(NAME, &content).inspect_err(|_| self.clear())?)
    }

    /// Removes what a failed attempt to write keys has left.
    fn clear(&self) {
        let _ = self.directory.clear(NAME);
    }

    /// Makes keys and stores them. After a crash at any moment there is either no key file or a whole one.
    ///
    /// # Errors
    /// [`StoreError`] if they are not safely on disk, or if there are keys already.
    pub fn create(&self, now: u64, how: Option<Seal<'_>>) -> Result<Keys, StoreError> {
        let mut random = Zeroizing::new([0; RANDOM_LEN]);
        getrandom::fill(random.as_mut()).map_err(StoreError::Randomness)?;
        let keys = Keys::generate(&random, now);
        let content = self.content(&keys, how)?;
        // Before there are keys: with them it would count as lost.
        let path = self.directory.path(NAME);
        if path.symlink_metadata().is_ok() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(StateDirError::Io { path, source }.into());
        }
        self.make_memory(&keys.node())?;
        self.directory.create(NAME, &content).inspect_err(|_| self.clear())?;
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PARTIAL: &str = "keys.new";

    struct TestStore {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    fn place() -> TestStore {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyd");
        TestStore { _dir: dir, path }
    }

    /// The keys of a file that is not sealed.
    fn plain(store: &Store) -> Keys {
        match store.load().unwrap() {
            Some(StoredKeys::Plain(keys)) => keys,
            other => panic!("{other:?}"),
        }
    }

    /// The keys of a file that is sealed with this passphrase.
    fn unsealed(store: &Store, passphrase: &Passphrase) -> Result<Keys, StoreError> {
        match store.load().unwrap() {
            Some(StoredKeys::Sealed(sealed)) => store.unseal(&sealed, passphrase),
            other => panic!("{other:?}"),
        }
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text.as_bytes()).unwrap()
    }

    fn cheap(passphrase: &Passphrase) -> Option<Seal<'_>> {
        Some(Seal { passphrase, cost: Cost::LEAST })
    }

    #[test]
    fn sealed_keys_are_made_once_and_open_with_their_passphrase() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        let (right, wrong) = (passphrase("right"), passphrase("wrong"));
        let keys = store.create(1, cheap(&right)).unwrap();
        assert_eq!(unsealed(&store, &right).unwrap(), keys);
        let before = std::fs::read(place.path.join(NAME)).unwrap();
        let error = unsealed(&store, &wrong).unwrap_err();
        assert!(matches!(error, StoreError::Seal { source: SealError::Passphrase, .. }), "{error}");
        assert!(store.create(2, None).is_err() && store.create(2, cheap(&wrong)).is_err());
        assert_eq!(std::fs::read(place.path.join(NAME)).unwrap(), before);
        let mode = std::fs::metadata(place.path.join(NAME)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn passphrases_come_change_and_go() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        let (one, two) = (passphrase("one"), passphrase("two"));
        let keys = store.create(1, None).unwrap();
        store.replace(&keys, cheap(&one)).unwrap();
        assert_eq!(unsealed(&store, &one).unwrap(), keys);
        store.replace(&keys, cheap(&two)).unwrap();
        assert!(unsealed(&store, &one).is_err());
        assert_eq!(unsealed(&store, &two).unwrap(), keys);
        store.replace(&keys, None).unwrap();
        assert_eq!(plain(&store), keys);
        let mode = std::fs::metadata(place.path.join(NAME)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(!place.path.join(PARTIAL).exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_crash_at_any_step_leaves_the_old_file_or_the_new_one() {
        use i2plan_testing::crash::{WriteStep, crash_after};

        let place = place();
        let store = Store::open(&place.path).unwrap();
        let (old, new) = (passphrase("old"), passphrase("new"));
        let keys = store.create(1, cheap(&old)).unwrap();
        let before = std::fs::read(place.path.join(NAME)).unwrap();
        let content = store.content(&keys, cheap(&new)).unwrap();
        for last in WriteStep::ALL {
            // What a half-written file of an earlier crash is, too.
            std::fs::write(place.path.join(PARTIAL), &content[..50]).unwrap();
            let replaced = crash_after(last, || store.directory.replace(NAME, &content));
            assert_eq!(replaced.is_ok(), last == WriteStep::Renamed);
            let found = std::fs::read(place.path.join(NAME)).unwrap();
            assert_eq!(found, if last == WriteStep::Renamed { content.to_vec() } else { before.clone() });
            let right = if last == WriteStep::Renamed { &new } else { &old };
            assert_eq!(unsealed(&store, right).unwrap(), keys, "{last:?}");
            assert!(!place.path.join(PARTIAL).exists(), "the next start clears up after {last:?}");
        }
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_file() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        let keys = store.create(1, None).unwrap();
        std::fs::create_dir(place.path.join(PARTIAL)).unwrap();
        assert!(store.replace(&keys, cheap(&passphrase("x"))).is_err());
        assert_eq!(plain(&store), keys);
    }

    #[test]
    fn what_a_crash_left_is_kept_while_the_file_itself_is_damaged() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        store.create(1, cheap(&passphrase("x"))).unwrap();
        let mut bytes = std::fs::read(place.path.join(NAME)).unwrap();
        std::fs::write(place.path.join(PARTIAL), &bytes).unwrap();
        bytes[100] ^= 1;
        std::fs::write(place.path.join(NAME), &bytes).unwrap();
        let error = store.load().unwrap_err();
        assert!(matches!(error, StoreError::Seal { source: SealError::Damaged, .. }), "{error}");
        assert!(place.path.join(PARTIAL).exists());
        assert!(store.create(2, None).is_err());
        assert_eq!(std::fs::read(place.path.join(NAME)).unwrap(), bytes);
    }

    #[test]
    fn a_store_that_is_not_there_is_not_made_for_maintenance() {
        let place = place();
        assert!(matches!(Store::open_existing(&place.path), Err(StoreError::Missing { .. })));
        assert!(!place.path.exists());
    }

    #[test]
    fn keys_are_made_once() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        assert!(store.load().unwrap().is_none());
        let keys = store.create(1, None).unwrap();
        assert_eq!(plain(&store), keys);
        assert!(store.create(2, None).is_err());
        assert_eq!(plain(&store), keys);
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
        let keys = store.create(1, None).unwrap();
        assert_eq!(plain(&store), keys);
    }

    #[test]
    fn a_crash_after_the_link_leaves_whole_keys() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        let keys = store.create(1, None).unwrap();
        std::fs::hard_link(place.path.join(NAME), place.path.join(PARTIAL)).unwrap();
        assert_eq!(plain(&store), keys);
    }

    #[test]
    fn what_others_can_read_is_refused_with_the_remedy() {
        let place = place();
        let store = Store::open(&place.path).unwrap();
        store.create(1, None).unwrap();
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
        store.create(1, None).unwrap();
        let file = place.path.join(NAME);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[50] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Keys { source: KeysError::Damaged, .. })));
        assert!(store.create(2, None).is_err());
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
        assert!(store.create(1, None).is_err());
    }

    #[test]
    fn two_processes_do_not_share_a_store() {
        let place = place();
        let _first = Store::open(&place.path).unwrap();
        assert!(matches!(Store::open(&place.path), Err(StoreError::Directory(StateDirError::InUse { .. }))));
    }
}
