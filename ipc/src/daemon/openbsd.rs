//! The sandbox that a daemon sets up for itself, on OpenBSD: pledge(2) and unveil(2).
//!
//! What each daemon may do stands in its own `sandbox/openbsd.rs`. Both can only be made narrower later, and
//! both belong to the whole process. The kernel kills a process that breaks a promise (SIGABRT).

#![allow(unsafe_code, reason = "two system calls; the crates that wrap them are not kept up")]

use std::ffi::{CString, NulError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;

use thiserror::Error;

/// The sandbox could not be set up.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel does not take the promises: one is unknown, or was not made before.
    #[error("cannot pledge {promises:?}: {source}")]
    Pledge {
        /// All of them.
        promises: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not unveil the path: its directory is not there, or unveiling is over.
    #[error("cannot unveil {}: {source}", path.display())]
    Unveil {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not end the unveiling.
    #[error("cannot lock what is unveiled: {0}")]
    Lock(io::Error),
}

/// Promises to make no other system calls than those of these groups, separated by spaces. What this process
/// executes, where it may, makes its own promises.
///
/// # Errors
/// [`SandboxError::Pledge`]; a daemon must not go on then.
pub fn pledge(promises: &str) -> Result<(), SandboxError> {
    let made = c_string(promises.as_bytes()).and_then(|text| {
        // SAFETY: the text ends with a NUL byte and outlives the call, which only reads it; no pointer at all
        // is how the call is told that it shall leave the promises for executed programs alone.
        result(unsafe { libc::pledge(text.as_ptr(), ptr::null()) })
    });
    made.map_err(|source| SandboxError::Pledge { promises: promises.to_owned(), source })
}

/// Lets this process see this file, or all that is below this directory, with these permissions: `r` to read,
/// `w` to write, `x` to execute, `c` to make and remove. The first call hides everything else.
///
/// # Errors
/// [`SandboxError::Unveil`]; a daemon must not go on then.
pub fn unveil(path: &Path, permissions: &str) -> Result<(), SandboxError> {
    let seen = c_string(path.as_os_str().as_bytes()).and_then(|path| {
        let permissions = c_string(permissions.as_bytes())?;
        // SAFETY: both texts end with a NUL byte and outlive the call, which only reads them.
        result(unsafe { libc::unveil(path.as_ptr(), permissions.as_ptr()) })
    });
    seen.map_err(|source| SandboxError::Unveil { path: path.to_owned(), source })
}

/// Ends the unveiling: from now on nothing more can be made visible.
///
/// # Errors
/// [`SandboxError::Lock`]; a daemon must not go on then.
pub fn unveil_lock() -> Result<(), SandboxError> {
    // SAFETY: two null pointers are how the call is told to lock; it reads nothing.
    result(unsafe { libc::unveil(ptr::null(), ptr::null()) }).map_err(SandboxError::Lock)
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|error: NulError| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn result(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
