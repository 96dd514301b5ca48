//! What the process may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until it listens and has its token, certificate and key | as its user | any | all |
//! | from then on | none | what comes to its listener | an event loop, and unix sockets to ask meshd |

use i2plan_ipc::daemon::sandbox::{Files, SandboxError, Syscalls, enter};

/// Before anybody is heard or answered.
///
/// # Errors
/// [`SandboxError`]; the process must not go on then.
pub fn before_serving() -> Result<(), SandboxError> {
    let syscalls = Syscalls::base().and_socket(libc::AF_UNIX, libc::SOCK_STREAM).and(&[libc::SYS_connect]);
    enter(&Files::none(), syscalls)
}
