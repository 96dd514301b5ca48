//! Where lines go that go to no log file.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;

use i2plan_ipc::daemon::logging;
use i2plan_supervisor::Sink;

/// A terminal, a pipe or a file that this program was started with.
#[derive(Debug)]
pub struct Stream {
    file: File,
    coloured: bool,
}

impl Stream {
    /// Standard output.
    ///
    /// # Errors
    /// If the system has no descriptor to give.
    pub fn stdout() -> io::Result<Self> {
        Self::of(io::stdout(), false)
    }

    /// Standard error, in colours if that is a terminal.
    ///
    /// # Errors
    /// If the system has no descriptor to give.
    pub fn stderr() -> io::Result<Self> {
        Self::of(io::stderr(), logging::is_coloured())
    }

    fn of(stream: impl AsFd, coloured: bool) -> io::Result<Self> {
        // By a descriptor of its own: whoever else prints does not wait for the same lock.
        Ok(Self { file: stream.as_fd().try_clone_to_owned()?.into(), coloured })
    }
}

impl Sink for Stream {
    fn write(&mut self, line: &str) {
        // Where nobody listens there is nobody to tell so.
        let _ = if self.coloured {
            self.file.write_all(logging::colour(line).as_bytes())
        } else {
            self.file.write_all(line.as_bytes())
        };
    }
}
