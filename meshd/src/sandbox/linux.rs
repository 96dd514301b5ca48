//! What meshd may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until configuration and socket are there | as its user | any | all |
//! | from then on | its state directory; reading, the configuration's directory | none but what it is passed | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Files, SandboxError, Syscalls, enter};

/// Before anybody is heard or answered. The configuration is read again when it has changed: by its directory, because
/// editors put a new file in the place of the old one.
///
/// # Errors
/// [`SandboxError`]; meshd must not go on then.
pub fn before_serving(state: &Path, config: &Path) -> Result<(), SandboxError> {
    let mut files = Files::none().and(state, Allowed::Keep);
    // Also where the file is a link.
    let real = config.canonicalize().ok();
    for directory in [Some(config), real.as_deref()].into_iter().flatten().filter_map(Path::parent) {
        if directory.is_dir() {
            files = files.and(directory, Allowed::Read);
        }
    }
    enter(&files, syscalls())
}

fn syscalls() -> Syscalls {
    Syscalls::base()
        // The state file and the configuration.
        .and_files()
        // keyd and tund. The sockets to the SAM bridge come from keyd.
        .and_socket(libc::AF_UNIX, libc::SOCK_STREAM)
        .and(&[libc::SYS_connect])
}
