//! Work on the keys of a node that does not run.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Output;

use command_fds::{CommandFdExt as _, FdMapping};
use i2plan_ipc::daemon::logging;
use i2plan_ipc::passphrase::Passphrase;
use thiserror::Error;
use tokio::process::Command;

use crate::backoff::LOCKED;
use crate::daemon::{filled_pipe, hand_over};
use crate::launch::{LISTEN_FD, Launch};
use crate::layout::{self, LayoutError};
use crate::programs::{ProgramError, Programs};
use crate::users::Account;

/// The exit code of `keyd` when another one uses the keys.
const BUSY: i32 = 4;

/// Why the keys were not changed.
#[derive(Debug, Error)]
pub enum MaintenanceError {
    /// There is no state.
    #[error("no node keeps its state in {}", data.display())]
    NoState {
        /// The directory.
        data: PathBuf,
    },
    /// The node runs.
    #[error("the node that keeps its state in {} runs", data.display())]
    Running {
        /// The directory of its state.
        data: PathBuf,
    },
    /// The state cannot be locked.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// `keyd` or its launcher is missing.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// `keyd` cannot be started.
    #[error("cannot start keyd: {0}")]
    Start(io::Error),
    /// The keys are sealed with another passphrase.
    #[error("the passphrase does not open the node's keys")]
    WrongPassphrase,
    /// `keyd` says why it has not done it.
    #[error("{0}")]
    Refused(String),
    /// `keyd` has not done it, and does not say why.
    #[error("keyd did not do it: {0}")]
    Failed(std::process::ExitStatus),
}

/// A node that does not run, and cannot be started while this exists. Each method runs `keyd`, as its user.
#[derive(Debug)]
pub struct StoppedNode {
    data: PathBuf,
    user: Account,
    programs: Programs,
    /// The directory, open and locked.
    directory: File,
}

/// A directory's name with a number behind it.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

impl StoppedNode {
    /// Takes the node that keeps its state in `data`, and whose `keyd` runs as `user` ([`keyd`](crate::users::keyd)).
    ///
    /// # Errors
    /// [`MaintenanceError`] if there is none, or it runs.
    pub fn lock(data: &Path, user: Account, programs: Programs) -> Result<Self, MaintenanceError> {
        // keyd works in the root directory.
        let data = layout::absolute(data)?;
        if !data.exists() {
            return Err(MaintenanceError::NoState { data });
        }
        match layout::try_lock(&data)? {
            Some(directory) => Ok(Self { data, user, programs, directory }),
            None => Err(MaintenanceError::Running { data }),
        }
    }

    /// Sets the keys aside, with what `keyd` has signed and the state of `meshd`, which are of no use without them: the
    /// directories of both get another name. The node makes new keys when it is started. Returns the new names.
    ///
    /// # Errors
    /// [`MaintenanceError`], also if a daemon runs; then all is as before.
    pub fn set_aside(&self) -> Result<Vec<PathBuf>, MaintenanceError> {
        let directories = ["keyd", "meshd"].map(|name| self.data.join(name));
        let found: Vec<_> = directories.into_iter().filter(|path| path.symlink_metadata().is_ok()).collect();
        // A daemon of a service locks its directory, and not that above it.
        let mut locks = Vec::new();
        for path in &found {
            let Some(lock) = layout::try_lock(path)? else {
                return Err(MaintenanceError::Running { data: self.data.clone() });
            };
            locks.push(lock);
        }
        let is_free =
            |number: &u32| found.iter().all(|path| numbered(path, *number).symlink_metadata().is_err());
        let number = (1..).find(is_free).unwrap_or(u32::MAX);
        let mut renamed: Vec<PathBuf> = Vec::new();
        for path in &found {
            let to = numbered(path, number);
            if let Err(error) = std::fs::rename(path, &to) {
                for (from, to) in found.iter().zip(&renamed) {
                    let _ = std::fs::rename(to, from);
                }
                return Err(LayoutError::io("rename", path, error).into());
            }
            renamed.push(to);
        }
        self.directory.sync_all().map_err(|error| LayoutError::io("synchronise", &self.data, error))?;
        Ok(renamed)
    }

    /// Returns whether the keys are sealed with a passphrase.
    ///
    /// # Errors
    /// [`MaintenanceError`] if `keyd` cannot tell.
    pub async fn is_sealed(&self) -> Result<bool, MaintenanceError> {
        let output = self.keyd("--check", None, None).await?;
        match output.status.code() {
            Some(0) => Ok(false),
            Some(LOCKED) => Ok(true),
            _ => Err(self.explain(&output)),
        }
    }

    /// Seals the keys with `new`, and returns what `keyd` says about it. `old` opens them, if they are sealed.
    ///
    /// # Errors
    /// [`MaintenanceError`] if they are unchanged.
    pub async fn seal(&self, old: Option<&Passphrase>, new: &Passphrase) -> Result<String, MaintenanceError> {
        self.change("--change-passphrase", old, Some(new)).await
    }

    /// Has the keys sealed no more, and returns what `keyd` says about it. `old` opens them, if they are sealed.
    ///
    /// # Errors
    /// [`MaintenanceError`] if they are unchanged.
    pub async fn unseal(&self, old: Option<&Passphrase>) -> Result<String, MaintenanceError> {
        self.change("--remove-passphrase", old, None).await
    }

    async fn change(
        &self,
        what: &str,
        old: Option<&Passphrase>,
        new: Option<&Passphrase>,
    ) -> Result<String, MaintenanceError> {
        let output = self.keyd(what, old, new).await?;
        if !output.status.success() {
            return Err(self.explain(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn keyd(
        &self,
        what: &str,
        passphrase: Option<&Passphrase>,
        new: Option<&Passphrase>,
    ) -> Result<Output, MaintenanceError> {
        let program = self.programs.find("keyd")?;
        let mut arguments: Vec<OsString> = vec!["--store".into(), self.data.join("keyd").into(), what.into()];
        if passphrase.is_some() {
            arguments.extend(["--passphrase-fd", "0"].map(Into::into));
        }
        // The place of the listening socket, of which there is none: the one more descriptor that is left open.
        let other: OwnedFd = match new {
            Some(new) => {
                arguments.extend(["--new-passphrase-fd".into(), LISTEN_FD.to_string().into()]);
                filled_pipe(new.expose()).map_err(MaintenanceError::Start)?.into()
            }
            None => File::open("/dev/null").map_err(MaintenanceError::Start)?.into(),
        };
        let launch = Launch {
            user: self.user,
            capability: None,
            parent: std::process::id(),
            passed: vec!["new-passphrase".to_owned()],
            program: program.into(),
            arguments,
        };
        let mut command = Command::new(&self.programs.launcher);
        command
            .args(launch.into_arguments())
            .stdin(hand_over(passphrase).map_err(MaintenanceError::Start)?)
            // Not what it would log otherwise, but what it says to whoever asked for this.
            .env(logging::VARIABLE, "error")
            .kill_on_drop(true)
            .fd_mappings(vec![FdMapping { parent_fd: other, child_fd: LISTEN_FD }])
            .map_err(|error| MaintenanceError::Start(io::Error::other(error)))?;
        command.output().await.map_err(MaintenanceError::Start)
    }

    /// Why it did not do it.
    fn explain(&self, output: &Output) -> MaintenanceError {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let message = said.strip_prefix("i2plan-keyd: ").unwrap_or(said);
        match output.status.code() {
            Some(BUSY) => MaintenanceError::Running { data: self.data.clone() },
            Some(LOCKED) => MaintenanceError::WrongPassphrase,
            _ if message.is_empty() => MaintenanceError::Failed(output.status),
            _ => MaintenanceError::Refused(message.to_owned()),
        }
    }
}
