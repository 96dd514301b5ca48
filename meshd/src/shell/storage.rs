//! The state file: written whole, replaced at once.

use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::state_dir::{StateDir, StateDirError};
use i2plan_proto::identity::NodeId;
use thiserror::Error;

use crate::core::state::{State, StateError};

/// Why there is no state to start from.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The directory or a file in it cannot be used.
    #[error(transparent)]
    Directory(#[from] StateDirError),
    /// The file is not this node's state.
    #[error("cannot use {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StateError,
    },
}

impl From<StorageError> for End {
    fn from(error: StorageError) -> Self {
        Self::failed(error)
    }
}

/// The file's name in its directory.
const NAME: &str = "state";

/// The file that says whether the router may go on with a permanent destination when its session is closed.
const LINGERS: &str = "router-lingers";

/// What it says then.
const YES: &[u8] = b"yes\n";

/// Longest state that is read, bytes. More than one can hold: 10,000 members, 10,000 endings and 16,384 delegations of
/// 4 KiB at most, and 1000 invites of 32 KiB.
const MAX_LEN: u64 = 256 * 1024 * 1024;

/// How many states of networks that this node was removed from are kept.
const SET_ASIDE: u32 = 3;

/// The directory that holds the state of one node, held by one process.
#[derive(Debug)]
pub(super) struct Storage {
    directory: StateDir,
}

impl Storage {
    /// Takes hold of the directory, which must exist.
    ///
    /// # Errors
    /// [`StorageError::Directory`].
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        Ok(Self { directory: StateDir::open(path)? })
    }

    /// The state of `node`, fresh if none was ever saved.
    ///
    /// # Errors
    /// [`StorageError`] if there is a file that is not this node's state. It is left as it is.
    pub(super) fn load(&self, node: &NodeId) -> Result<State, StorageError> {
        let Some(bytes) = self.directory.read(NAME, MAX_LEN)? else { return Ok(State::new(*node)) };
        State::from_bytes(&bytes, node)
            .map_err(|source| StorageError::State { path: self.directory.path(NAME), source })
    }

    /// Keeps the state as it was saved last, beside those that were kept before it: `state.1` is the newest of three.
    ///
    /// # Errors
    /// If it is not safely on disk under its new name.
    pub(super) fn set_aside(&self) -> Result<(), StateDirError> {
        let name = |number: u32| format!("{NAME}.{number}");
        for number in (1..SET_ASIDE).rev() {
            self.directory.rename(&name(number), &name(number + 1))?;
        }
        match self.directory.read(NAME, MAX_LEN)? {
            Some(bytes) => self.directory.replace(&name(1), &bytes),
            None => Ok(()),
        }
    }

    /// Replaces the state: after a crash at any moment the file holds either the old or the new one.
    ///
    /// # Errors
    /// If the new state is not safely on disk.
    pub(super) fn save(&self, bytes: &[u8]) -> Result<(), StateDirError> {
        self.directory.replace(NAME, bytes)
    }

    /// See [`router_lingers`].
    pub(super) fn router_lingers(&self) -> bool {
        router_lingers(&self.directory)
    }

    /// See [`note_router_lingers`].
    ///
    /// # Errors
    /// If it is not safely on disk.
    pub(super) fn note_router_lingers(&self, lingers: bool) -> Result<(), StateDirError> {
        note_router_lingers(&self.directory, lingers)
    }
}

/// Whether the router may go on with the permanent destination of a session that was closed just before this process
/// began.
pub(super) fn router_lingers(directory: &StateDir) -> bool {
    directory.read(LINGERS, 16).is_ok_and(|said| said.is_some_and(|said| *said == *YES))
}

/// Keeps that for the next process.
///
/// # Errors
/// If it is not safely on disk.
pub(super) fn note_router_lingers(directory: &StateDir, lingers: bool) -> Result<(), StateDirError> {
    if lingers == router_lingers(directory) {
        return Ok(());
    }
    directory.replace(LINGERS, if lingers { YES } else { b"no\n" })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn node() -> NodeId {
        NodeId([7; 32])
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = directory();
        let storage = Storage::open(dir.path()).unwrap();
        assert_eq!(storage.load(&node()).unwrap(), State::new(node()));
        storage.save(&State::new(node()).to_bytes()).unwrap();
        assert_eq!(storage.load(&node()).unwrap(), State::new(node()));
    }

    #[test]
    fn that_the_router_lingers_is_known_to_the_next_process() {
        let dir = directory();
        for lingers in [false, true, true, false, false] {
            Storage::open(dir.path()).unwrap().note_router_lingers(lingers).unwrap();
            assert_eq!(Storage::open(dir.path()).unwrap().router_lingers(), lingers);
        }
    }

    #[test]
    fn an_interrupted_save_leaves_the_old_state() {
        let dir = directory();
        let storage = Storage::open(dir.path()).unwrap();
        storage.save(&State::new(node()).to_bytes()).unwrap();
        std::fs::write(dir.path().join("state.new"), b"half of a sta").unwrap();
        assert_eq!(storage.load(&node()).unwrap(), State::new(node()));
        storage.save(&State::new(node()).to_bytes()).unwrap();
        assert!(!dir.path().join("state.new").exists());
    }

    #[test]
    fn the_last_three_states_are_set_aside() {
        let dir = directory();
        let storage = Storage::open(dir.path()).unwrap();
        storage.set_aside().unwrap();
        for number in 0..5u64 {
            storage.save(&State { counter: number, ..State::new(node()) }.to_bytes()).unwrap();
            storage.set_aside().unwrap();
        }
        storage.save(&State::new(node()).to_bytes()).unwrap();
        let counter = |name: &str| {
            let bytes = std::fs::read(dir.path().join(name)).unwrap();
            State::from_bytes(&bytes, &node()).unwrap().counter
        };
        assert_eq!(["state.1", "state.2", "state.3", "state"].map(counter), [4, 3, 2, 0]);
        assert!(!dir.path().join("state.4").exists());
    }

    #[test]
    fn a_damaged_state_is_an_error_and_stays() {
        let dir = directory();
        let storage = Storage::open(dir.path()).unwrap();
        storage.save(b"something else").unwrap();
        assert!(matches!(
            storage.load(&node()),
            Err(StorageError::State { source: StateError::Foreign, .. })
        ));
        assert_eq!(std::fs::read(dir.path().join("state")).unwrap(), b"something else");
    }

    #[test]
    fn two_processes_do_not_share_a_state() {
        let dir = directory();
        let _first = Storage::open(dir.path()).unwrap();
        assert!(matches!(
            Storage::open(dir.path()),
            Err(StorageError::Directory(StateDirError::InUse { .. }))
        ));
    }

    #[test]
    fn state_that_is_open_to_others_or_too_large_is_refused() {
        let dir = directory();
        let storage = Storage::open(dir.path()).unwrap();
        storage.save(&State::new(node()).to_bytes()).unwrap();
        let path = dir.path().join(NAME);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = storage.load(&node()).unwrap_err();
        assert!(matches!(error, StorageError::Directory(StateDirError::TooOpen { .. })), "{error}");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(MAX_LEN + 1).unwrap();
        let error = storage.load(&node()).unwrap_err();
        assert!(matches!(error, StorageError::Directory(StateDirError::TooLarge { .. })), "{error}");
    }
}
