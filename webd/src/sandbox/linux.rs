//! What the process may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until it listens and has its token, certificate and key | as its user | any | all |
//! | from then on | with TLS, reading: the directories of certificate and key | what comes to its listener | an event loop, and unix sockets to ask meshd; with TLS, reading files |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Files, SandboxError, Syscalls, enter};

/// Before anybody is heard or answered. `renewed` are the files that are read again: by their directories, because a new
/// file takes the place of the old one.
///
/// # Errors
/// [`SandboxError`]; the process must not go on then.
pub fn before_serving(renewed: &[&Path]) -> Result<(), SandboxError> {
    let mut syscalls =
        Syscalls::base().and_socket(libc::AF_UNIX, libc::SOCK_STREAM).and(&[libc::SYS_connect]);
    let mut files = Files::none();
    for path in renewed {
        // Also where the file is a link.
        let real = path.canonicalize().ok();
        for directory in [Some(*path), real.as_deref()].into_iter().flatten().filter_map(Path::parent) {
            files = files.and(directory, Allowed::Read);
        }
    }
    if !renewed.is_empty() {
        syscalls = syscalls.and_reading();
    }
    enter(&files, syscalls)
}
