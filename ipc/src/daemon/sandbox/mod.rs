//! The sandbox that a daemon sets up for itself, on Linux: a seccomp filter and Landlock.
//!
//! What each daemon may do stands in its own `sandbox/linux.rs`, on top of what all three do ([`Syscalls::base`]).
//! Both can only be made narrower later, never wider, and nothing that the process does lifts them. Both belong to the
//! thread that sets them and to those that it starts, so they are set up while there is
//! only one; seccomp's is put on all.

mod files;
mod syscalls;

use std::io;

use thiserror::Error;

pub use files::{Allowed, Files};
pub use syscalls::{Argument, Syscalls};

use crate::hello::Landlock;

/// The sandbox could not be set up.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The system call filter cannot be built or is refused.
    #[error("cannot filter system calls: {0}")]
    Seccomp(String),
    /// Landlock is there, but refuses.
    #[error("cannot restrict the use of files: {0}")]
    Landlock(String),
    /// A path that is to be allowed is not there.
    #[error("cannot open {}: {source}", path.display())]
    Path {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Sets up both parts of the sandbox. What a kernel does not have is left out with a warning.
///
/// # Errors
/// [`SandboxError`] if a part that the kernel has cannot be set up. A daemon must not go on then.
pub fn enter(files: &Files, syscalls: Syscalls) -> Result<(), SandboxError> {
    restrict_files(files)?;
    syscalls.install()
}

/// Sets up Landlock alone: for the time before a daemon has read what it needs.
///
/// # Errors
/// As [`enter`].
pub fn restrict_files(files: &Files) -> Result<(), SandboxError> {
    let landlock = files.restrict()?;
    if landlock != Landlock::Full {
        tracing::warn!(
            ?landlock,
            "this kernel does not have all of Landlock: user ids and modes alone protect other files from this process"
        );
    }
    landlock.note();
    Ok(())
}
