//! The log file: what the supervisor and its daemons print on standard error, in place of a terminal or journal.
//!
//! The daemons cannot open it, being other users behind walls, and so could not open it again after it was moved away.
//! They write into a pipe; a thread of the supervisor writes on, into whatever file is there since it was last told.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::failure::Failure;

/// How long the last lines may take at the end. Only a file system that is stuck takes longer.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A log file. Until it is dropped, what is printed on standard error goes there.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
    /// Standard error as it was.
    before: OwnedFd,
    /// Hangs up when all has been written.
    written: Receiver<()>,
}

impl LogFile {
    /// Opens the file, and sends standard error there.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn start(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = open(&path).map_err(|error| {
            Failure::invalid(format!("cannot write the log file {}: {error}", path.display()))
                .with_hint("name another with --log-file or I2PLAN_LOG_FILE; its directory must exist")
        })?;
        let internal = |error: io::Error| Failure::internal(format!("cannot redirect the log: {error}"));
        let file = Arc::new(Mutex::new(file));
        let before = io::stderr().as_fd().try_clone_to_owned().map_err(internal)?;
        let complaints = before.try_clone().map(File::from).map_err(internal)?;
        let (reader, writer) = io::pipe().map_err(internal)?;
        rustix::stdio::dup2_stderr(&writer).map_err(|error| internal(error.into()))?;
        let (done, written) = channel();
        let target = Arc::clone(&file);
        std::thread::spawn(move || {
            copy(reader, &target, complaints);
            drop(done);
        });
        Ok(Self { path, file, before, written })
    }

    /// Writes into the file of that name from now on, as after the one before was moved away.
    ///
    /// # Errors
    /// If it cannot be opened: the one before goes on being used.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        // With this the last writing end is gone, if the daemons are.
        let _ = rustix::stdio::dup2_stderr(&self.before);
        let _ = self.written.recv_timeout(LAST_LINES);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Writes what comes until nothing can come any more. A disk that is full costs lines, and stops nobody.
fn copy(mut reader: PipeReader, file: &Mutex<File>, mut complaints: File) {
    let mut buffer = [0; 8192];
    let mut failing = false;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let result = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&buffer[..count]);
        if let Err(error) = &result
            && !failing
        {
            let _ = writeln!(complaints, "i2planctl: cannot write the log file: {error}");
        }
        failing = result.is_err();
    }
}
