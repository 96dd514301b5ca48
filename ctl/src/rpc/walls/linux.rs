//! What the gateway may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until it listens and has its token | as its user | any | all |
//! | from then on | none | what comes to its listener | an event loop, and unix sockets to ask meshd |

use i2plan_ipc::daemon::sandbox::{Argument, Files, SandboxError, Syscalls, enter};

/// The kind of a socket without its flags.
const KIND: u64 = 0xf;

/// Before anybody is heard or answered.
///
/// # Errors
/// [`SandboxError`]; the gateway must not go on then.
pub fn before_serving() -> Result<(), SandboxError> {
    let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
    let socket =
        [Argument::Is(0, argument(libc::AF_UNIX)), Argument::Masked(1, KIND, argument(libc::SOCK_STREAM))];
    let syscalls = Syscalls::base().and_if(libc::SYS_socket, &socket).and(&[libc::SYS_connect]);
    enter(&Files::none(), syscalls)
}
