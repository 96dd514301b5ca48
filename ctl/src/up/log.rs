//! The log file: where lines go in place of a terminal or journal.
//!
//! The daemons cannot open it, being other users in sandboxes. This program opens it, again after it was moved away
//! (SIGHUP), where nobody but root can have put another in its place ([`trusted::append`]).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_supervisor::Sink;

use super::NAME;
use crate::failure::Failure;

/// A log file by its name.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// The file that is to be written from the next line on.
    next: Arc<Mutex<Option<File>>>,
}

/// The open file.
#[derive(Debug)]
pub struct LogSink {
    file: File,
    next: Arc<Mutex<Option<File>>>,
    failing: bool,
}

impl LogFile {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<(Self, LogSink), Failure> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = trusted::append(&path).map_err(|error| {
            Failure::invalid(format!("cannot write the log file {}: {error}", path.display()))
                .with_hint(
                    "name another with --log-file or I2PLAN_LOG_FILE: its directory must exist, and only root may be \
                     able to write to it and to those above",
                )
        })?;
        let next = Arc::default();
        Ok((Self { path, next: Arc::clone(&next) }, LogSink { file, next, failing: false }))
    }

    /// Has the file of that name written from now on, as after the one before was moved away.
    ///
    /// # Errors
    /// If it cannot be opened: the one before goes on being used.
    pub fn reopen(&self) -> Result<(), Untrusted> {
        let file = trusted::append(&self.path)?;
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }
}

impl Sink for LogSink {
    /// A disk that is full costs lines, and stops nobody.
    fn write(&mut self, lines: &str) {
        if let Some(file) = self.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.file = file;
        }
        let result = self.file.write_all(lines.as_bytes());
        if let Err(error) = &result
            && !self.failing
        {
            let _ = writeln!(io::stderr(), "{NAME}: cannot write the log file: {error}");
        }
        self.failing = result.is_err();
    }
}
