//! What meshd may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until configuration and socket are there | as its user | any | all |
//! | from then on | its state directory | to the SAM bridge's port | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Argument, Files, SandboxError, Syscalls, enter};

/// The kind of a socket without its flags.
const KIND: u64 = 0xf;

/// Before anybody is heard or answered.
///
/// # Errors
/// [`SandboxError`]; meshd must not go on then.
pub fn before_serving(state: &Path, sam_port: u16) -> Result<(), SandboxError> {
    enter(&Files::none().and(state, Allowed::Keep).and_connect(sam_port), syscalls())
}

fn syscalls() -> Syscalls {
    let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
    let mut syscalls = Syscalls::base().and(&[
        // The state file: read once, then written anew and put in the place of the old one. Landlock says where.
        libc::SYS_openat,
        libc::SYS_renameat,
        libc::SYS_fsync,
        libc::SYS_statx,
        libc::SYS_newfstatat,
        libc::SYS_lseek,
        // The SAM bridge by TCP and UDP; keyd and tund by their sockets.
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_setsockopt,
    ]);
    #[cfg(target_arch = "x86_64")]
    {
        syscalls = syscalls.and(&[libc::SYS_rename, libc::SYS_open]);
    }
    // No raw, packet or netlink sockets.
    for (family, kind) in [
        (libc::AF_UNIX, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_DGRAM),
        (libc::AF_INET6, libc::SOCK_STREAM),
        (libc::AF_INET6, libc::SOCK_DGRAM),
    ] {
        syscalls = syscalls.and_if(
            libc::SYS_socket,
            &[Argument::Is(0, argument(family)), Argument::Masked(1, KIND, argument(kind))],
        );
    }
    syscalls
}
