//! The listening socket of a daemon: handed over by a supervisor, or made here.

#![allow(unsafe_code, reason = "taking over an inherited descriptor")]

use std::fs::Permissions;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a daemon has no socket to listen on.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// The supervisor handed over something else than one listening unix socket.
    #[error("the supervisor passed {0}; exactly one listening unix socket is expected")]
    Unexpected(String),
    /// Neither handed over nor named.
    #[error("no listening socket: start this daemon by its supervisor, or name a path with --listen")]
    Missing,
    /// It could not be made.
    #[error("cannot listen on {path}: {source}")]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The socket that a supervisor passed by the protocol of `sd_listen_fds(3)`, or else one bound to `path`
/// with mode 0660.
///
/// # Errors
/// [`ActivationError`].
pub fn listener(path: Option<&Path>) -> Result<UnixListener, ActivationError> {
    let passed = sd_notify::listen_fds().map_err(|error| ActivationError::Unexpected(error.to_string()))?;
    let passed: Vec<_> = passed.collect();
    match (passed.as_slice(), path) {
        ([], None) => Err(ActivationError::Missing),
        ([], Some(path)) => {
            bind(path).map_err(|source| ActivationError::Bind { path: path.to_owned(), source })
        }
        ([fd], _) => {
            // SAFETY: the supervisor opened this descriptor for this process alone (LISTEN_PID was checked),
            // and this function, called once at the start of main, is the only taker.
            let fd = unsafe { OwnedFd::from_raw_fd(*fd) };
            let listens = rustix::net::sockopt::socket_acceptconn(&fd).unwrap_or(false);
            let is_unix = rustix::net::sockopt::socket_domain(&fd)
                .is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX);
            if !listens || !is_unix {
                return Err(ActivationError::Unexpected("something else".to_owned()));
            }
            Ok(UnixListener::from(fd))
        }
        (fds, _) => Err(ActivationError::Unexpected(format!("{} descriptors", fds.len()))),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // A socket file that outlived its daemon stands in the way; anything else there is not ours to remove.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is in the way",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_but_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(bind(&path).unwrap());
        drop(bind(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}
