//! The state file: written whole, replaced at once.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::durable;
use i2plan_proto::identity::NodeId;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::core::state::{State, StateError};

/// Why there is no state to start from.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}: {source}; this takes a directory of its own user, writable and with room", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another meshd", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not this node's state.
    #[error("cannot use {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: StateError,
    },
}

/// How many states of networks that this node was removed from are kept.
const SET_ASIDE: u32 = 3;

/// The directory that holds the state of one node, held by one process.
#[derive(Debug)]
pub(super) struct Storage {
    path: PathBuf,
    /// Held open: it carries the lock on the directory.
    directory: File,
}

impl Storage {
    /// Takes hold of the directory, which must exist.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be opened or another process holds it.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let directory =
            File::open(path).map_err(|source| StorageError::Io { path: path.to_owned(), source })?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StorageError::InUse { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), directory })
    }

    /// The state of `node`, fresh if none was ever saved.
    ///
    /// # Errors
    /// [`StorageError`] if there is a file that is not this node's state. It is left as it is.
    pub(super) fn load(&self, node: &NodeId) -> Result<State, StorageError> {
        let path = self.path.join("state");
        match std::fs::read(&path) {
            Ok(bytes) => {
                State::from_bytes(&bytes, node).map_err(|source| StorageError::State { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::new(*node)),
            Err(source) => Err(StorageError::Io { path, source }),
        }
    }

    /// Keeps the state as it was saved last, beside those that were kept before it: `state.1` is the newest of three.
    ///
    /// # Errors
    /// If it is not safely on disk under its new name.
    pub(super) fn set_aside(&self) -> io::Result<()> {
        let path = |number: u32| self.path.join(format!("state.{number}"));
        for number in (1..SET_ASIDE).rev() {
            match std::fs::rename(path(number), path(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match std::fs::read(self.path.join("state")) {
            Ok(bytes) => durable::replace(&self.directory, &self.path, "state.1", &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the state: after a crash at any moment the file holds either the old or the new one.
    ///
    /// # Errors
    /// If the new state is not safely on disk.
    pub(super) fn save(&self, bytes: &[u8]) -> io::Result<()> {
        durable::replace(&self.directory, &self.path, "state", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId([7; 32])
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        assert_eq!(storage.load(&node()).unwrap(), State::new(node()));
        storage.save(&State::new(node()).to_bytes()).unwrap();
        assert_eq!(storage.load(&node()).unwrap(), State::new(node()));
    }

    #[test]
    fn an_interrupted_save_leaves_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        storage.save(&State::new(node()).to_bytes()).unwrap();
        std::fs::write(dir.path().join("state.new"), b"half of a sta").unwrap();
        assert_eq!(storage.load(&node()).unwrap(), State::new(node()));
        storage.save(&State::new(node()).to_bytes()).unwrap();
        assert!(!dir.path().join("state.new").exists());
    }

    #[test]
    fn the_last_three_states_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("state"), b"something else").unwrap();
        assert!(matches!(
            storage.load(&node()),
            Err(StorageError::State { source: StateError::Foreign, .. })
        ));
        assert_eq!(std::fs::read(dir.path().join("state")).unwrap(), b"something else");
    }

    #[test]
    fn two_processes_do_not_share_a_state() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Storage::open(dir.path()).unwrap();
        assert!(matches!(Storage::open(dir.path()), Err(StorageError::InUse { .. })));
    }
}
