//! The directory of a daemon's state, and files in it that a crash leaves whole.
//!
//! New content is written to a file of the same name with `.new` after it, synchronised, and put in the place of the old;
//! then the directory is synchronised. After a crash at any moment the file holds either the old content or the new one.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, linkat, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

/// Modes of the directory and of the files in it.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why a state directory, or a file in it, is not used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// It cannot be opened, read or written.
    #[error(
        "cannot use {}: {source}; state takes a directory of the daemon's own user, not a link, writable and with room",
        path.display()
    )]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to user {owner}, and must belong to user {own}: run `chown {own} {}` if you trust what is in it",
        path.display(), path.display()
    )]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        own: u32,
    },
    /// Others may read or write it.
    #[error("{} is open to others (mode {mode:04o}): run `chmod {fix:04o} {}`", path.display(), path.display())]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        fix: u32,
    },
    /// A file has more bytes than the daemon ever writes.
    #[error(
        "cannot use {}: it has {len} bytes, and {max} are the most; restore it from a backup, or move it elsewhere",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        len: u64,
        /// The most that are read.
        max: u64,
    },
    /// Another process holds the directory.
    #[error("{} is in use by another process: stop that one, or name another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDirError {
    /// Returns whether there is no such directory.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The directory of one daemon's state, held by one process. It and its files belong to that process's user, and nobody
/// else can read or write them.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held open: it carries the lock.
    directory: File,
}

impl StateDir {
    /// Opens a directory and locks it until this is dropped.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(|error| failed(path, error))?;
        let directory = File::from(directory);
        check(&directory, path, DIRECTORY_MODE)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), directory }),
            Err(Errno::WOULDBLOCK) => Err(StateDirError::InUse { path: path.to_owned() }),
            Err(error) => Err(failed(path, error)),
        }
    }

    /// As [`StateDir::open`], and makes the directory if only its parent is there.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn open_or_make(path: &Path) -> Result<Self, StateDirError> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path, error)),
            _ => Self::open(path),
        }
    }

    /// Returns the path of a file, for messages.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file of at most `max` bytes; none if there is no such file.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn read(&self, name: &str, max: u64) -> Result<Option<Zeroizing<Vec<u8>>>, StateDirError> {
        let Some(mut file) = self.open_with(name, OFlags::RDONLY)? else { return Ok(None) };
        let len = file.metadata().map_err(|error| self.failed(name, error))?.len();
        if len > max {
            return Err(StateDirError::TooLarge { path: self.path(name), len, max });
        }
        // In one piece: a growing buffer would leave copies of secrets behind.
        let mut content = Zeroizing::new(vec![0; usize::try_from(len).unwrap_or(usize::MAX)]);
        file.read_exact(&mut content).map_err(|error| self.failed(name, error))?;
        Ok(Some(content))
    }

    /// Opens a file for reading and writing in place; none if there is no such file.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn open_file(&self, name: &str) -> Result<Option<File>, StateDirError> {
        self.open_with(name, OFlags::RDWR)
    }

    fn open_with(&self, name: &str, access: OFlags) -> Result<Option<File>, StateDirError> {
        match openat(&self.directory, name, access | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                check(&file, &self.path(name), FILE_MODE)?;
                Ok(Some(file))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// Gives a file new content, or makes it.
    ///
    /// # Errors
    /// [`StateDirError::Io`]; the old content is there then, unless only the directory could not be synchronised.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), StateDirError> {
        let replace = || {
            let new = self.write_new(name, content)?;
            renameat(&self.directory, &new, &self.directory, name)?;
            self.directory.sync_all()
        };
        replace().map_err(|error| self.failed(name, error))
    }

    /// Makes a file that is not there. After a crash at any moment there is either none or a whole one.
    ///
    /// # Errors
    /// [`StateDirError::Io`], also if there is such a file.
    pub fn create(&self, name: &str, content: &[u8]) -> Result<(), StateDirError> {
        let create = || {
            let new = self.write_new(name, content)?;
            // Unlike a rename, a link does not replace a file that is there.
            linkat(&self.directory, &new, &self.directory, name, AtFlags::empty())?;
            unlinkat(&self.directory, &new, AtFlags::empty())?;
            self.directory.sync_all()
        };
        create().map_err(|error| self.failed(name, error))
    }

    /// Returns the name of the file that holds the content, on disk.
    fn write_new(&self, name: &str, content: &[u8]) -> io::Result<String> {
        // It may have another mode, or be the file itself under a second name.
        self.remove_new(name)?;
        let new = new_name(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.directory, &new, flags, Mode::from_raw_mode(FILE_MODE))?);
        file.write_all(content)?;
        file.sync_all()?;
        Ok(new)
    }

    /// Removes what a [`StateDir::replace`] or [`StateDir::create`] of this file has left that failed or was interrupted.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn clear(&self, name: &str) -> Result<(), StateDirError> {
        self.remove_new(name).map_err(|error| self.failed(&new_name(name), error))
    }

    fn remove_new(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, new_name(name), AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Gives a file another name, in the place of what has that one. Returns whether there was such a file. The next
    /// [`StateDir::replace`] or [`StateDir::create`] has it on disk.
    ///
    /// # Errors
    /// [`StateDirError::Io`].
    pub fn rename(&self, from: &str, to: &str) -> Result<bool, StateDirError> {
        match renameat(&self.directory, from, &self.directory, to) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed(from, error)),
        }
    }

    fn failed(&self, name: &str, error: impl Into<io::Error>) -> StateDirError {
        failed(&self.path(name), error)
    }
}

fn new_name(name: &str) -> String {
    format!("{name}.new")
}

fn failed(path: &Path, error: impl Into<io::Error>) -> StateDirError {
    let (path, source, own) = (path.to_owned(), error.into(), geteuid().as_raw());
    // What root has restored belongs to root, and cannot even be opened.
    let is_denied = source.kind() == io::ErrorKind::PermissionDenied;
    match path.symlink_metadata() {
        Ok(found) if is_denied && found.uid() != own => {
            StateDirError::Owner { path, owner: found.uid(), own }
        }
        _ => StateDirError::Io { path, source },
    }
}

/// Checks that nobody but this user can get at it.
fn check(file: &File, path: &Path, fix: u32) -> Result<(), StateDirError> {
    let found = file.metadata().map_err(|error| failed(path, error))?;
    let own = geteuid().as_raw();
    if found.uid() != own {
        return Err(StateDirError::Owner { path: path.to_owned(), owner: found.uid(), own });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateDirError::TooOpen { path: path.to_owned(), mode, fix });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use tempfile::TempDir;

    use super::*;

    const OTHER: u32 = 54_999;

    /// A directory with a file in it.
    fn made() -> (TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open_or_make(&dir.path().join("state")).unwrap();
        state.replace("file", b"old").unwrap();
        (dir, state)
    }

    fn content(state: &StateDir) -> Vec<u8> {
        state.read("file", 100).unwrap().unwrap().to_vec()
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_written_is_read_and_is_its_users_alone() {
        let (_dir, state) = made();
        assert!(state.read("none", 100).unwrap().is_none() && state.open_file("none").unwrap().is_none());
        assert_eq!(content(&state), b"old");
        // What is left of an attempt before may have any mode.
        let new = state.path("file.new");
        std::fs::write(&new, "half").unwrap();
        set_mode(&new, 0o666);
        state.replace("file", b"new").unwrap();
        assert_eq!(content(&state), b"new");
        assert_eq!((mode(&state.path), mode(&state.path("file"))), (DIRECTORY_MODE, FILE_MODE));
        assert!(!new.exists());
    }

    #[test]
    fn a_file_is_made_once() {
        let (_dir, state) = made();
        assert!(state.create("file", b"new").is_err());
        assert_eq!(content(&state), b"old");
        state.create("other", b"whole").unwrap();
        assert!(state.create("other", b"new").is_err());
        assert_eq!(**state.read("other", 100).unwrap().unwrap(), *b"whole");
        assert_eq!(mode(&state.path("other")), FILE_MODE);
        assert!(state.rename("other", "aside").unwrap() && !state.rename("other", "aside").unwrap());
        assert!(state.path("aside").exists());
    }

    #[test]
    fn a_second_name_that_a_crash_left_does_not_lead_to_the_file() {
        let (_dir, state) = made();
        std::fs::hard_link(state.path("file"), state.path("file.new")).unwrap();
        std::fs::create_dir(state.path("other.new")).unwrap();
        assert!(state.replace("other", b"new").is_err());
        state.replace("file", b"new").unwrap();
        assert_eq!(content(&state), b"new");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_crash_at_any_step_leaves_the_old_content_or_the_new() {
        use i2plan_testing::crash::{WriteStep, crash_after};

        for step in WriteStep::ALL {
            let (_dir, state) = made();
            // What a crash before has left, too.
            std::fs::write(state.path("file.new"), "half of an earlier").unwrap();
            let replaced = crash_after(step, || state.replace("file", b"new"));
            assert_eq!(replaced.is_ok(), step == WriteStep::Renamed, "{step:?}");
            let expected: &[u8] = if step == WriteStep::Renamed { b"new" } else { b"old" };
            assert_eq!(content(&state), expected, "{step:?}");
            state.replace("file", b"later").unwrap();
            assert_eq!(content(&state), b"later", "{step:?}");

            let made = crash_after(step, || state.create("made", b"whole"));
            let found = state.read("made", 100).unwrap();
            assert_eq!(
                (made.is_ok(), found.is_some()),
                (step == WriteStep::Renamed, made.is_ok()),
                "{step:?}"
            );
            assert!(found.is_none_or(|found| **found == *b"whole"));
        }
    }

    #[test]
    fn what_others_can_read_or_write_is_refused_with_the_command_to_run() {
        let (_dir, state) = made();
        let (path, file) = (state.path.clone(), state.path("file"));
        for bits in [0o640, 0o602, 0o610] {
            set_mode(&file, bits);
            let error = state.read("file", 100).unwrap_err();
            let said = format!("(mode {bits:04o}): run `chmod 0600 {}`", file.display());
            assert!(error.to_string().contains(&said), "{error}");
            assert!(state.open_file("file").is_err());
        }
        drop(state);
        for bits in [0o750, 0o701, 0o1777] {
            set_mode(&path, bits);
            let error = StateDir::open(&path).unwrap_err();
            let said = format!("(mode {bits:04o}): run `chmod 0700 {}`", path.display());
            assert!(error.to_string().contains(&said), "{error}");
        }
    }

    #[test]
    fn what_belongs_to_another_user_is_refused_with_the_command_to_run() {
        if geteuid().as_raw() != 0 {
            // Giving files away takes root, as in CI.
            return;
        }
        let (_dir, state) = made();
        let (path, file) = (state.path.clone(), state.path("file"));
        chown(&file, Some(OTHER), None).unwrap();
        let error = state.read("file", 100).unwrap_err().to_string();
        assert!(error.contains("belongs to user 54999") && error.contains("`chown 0 /"), "{error}");
        assert!(state.open_file("file").is_err());
        // Another user than root is not even let in.
        let error = failed(&file, Errno::ACCESS);
        assert!(matches!(error, StateDirError::Owner { owner: OTHER, own: 0, .. }), "{error}");
        assert!(matches!(failed(&file, Errno::NOSPC), StateDirError::Io { .. }));
        drop(state);
        chown(&path, Some(OTHER), None).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, StateDirError::Owner { owner: OTHER, own: 0, .. }), "{error}");
    }

    #[test]
    fn what_is_too_large_is_refused_and_stays() {
        let (_dir, state) = made();
        let error = state.read("file", 2).unwrap_err();
        assert!(matches!(error, StateDirError::TooLarge { len: 3, max: 2, .. }), "{error}");
        assert_eq!(state.read("file", 3).unwrap().unwrap().len(), 3);
    }

    #[test]
    fn links_are_not_followed() {
        let (dir, state) = made();
        symlink("file", state.path("link")).unwrap();
        assert!(state.read("link", 100).is_err() && state.open_file("link").is_err());
        assert!(state.create("link", b"new").is_err());
        state.replace("link", b"new").unwrap();
        assert_eq!(content(&state), b"old");
        drop(state);
        let link = dir.path().join("link");
        symlink("state", &link).unwrap();
        assert!(StateDir::open(&link).is_err() && StateDir::open_or_make(&link).is_err());
    }

    #[test]
    fn one_process_holds_a_directory() {
        let (dir, state) = made();
        assert!(matches!(StateDir::open(&state.path), Err(StateDirError::InUse { .. })));
        let path = state.path.clone();
        drop(state);
        StateDir::open(&path).unwrap();
        let missing = dir.path().join("none");
        assert!(StateDir::open(&missing).unwrap_err().is_not_found() && !missing.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_sandbox_lets_state_be_read_and_replaced() {
        use std::process::Command;

        use crate::daemon::sandbox::{Allowed, Files, Syscalls, enter};

        /// The child's directory.
        const CHILD: &str = "I2PLAN_STATE_DIR_TEST";

        if let Some(path) = std::env::var_os(CHILD) {
            let state = StateDir::open(path.as_ref()).unwrap();
            enter(&Files::none().and(path.as_ref(), Allowed::Keep), Syscalls::base().and_files()).unwrap();
            state.replace("file", b"new").unwrap();
            assert!(state.rename("file", "aside").unwrap());
            state.replace("file", &state.read("aside", 100).unwrap().unwrap()).unwrap();
            std::process::exit(7);
        }
        let (_dir, state) = made();
        std::fs::write(state.path("file.new"), "half").unwrap();
        let path = state.path.clone();
        drop(state);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "daemon::state_dir::tests::the_sandbox_lets_state_be_read_and_replaced";
        let output = command.args(["--exact", name, "--nocapture"]).env(CHILD, &path).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert_eq!(content(&StateDir::open(&path).unwrap()), b"new");
    }
}
