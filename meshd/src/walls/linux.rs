//! What meshd may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until configuration and socket are there | as its user | any | all |
//! | from then on | its state directory; reading, the configuration's directory | to the SAM bridge's port | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Argument, Files, SandboxError, Syscalls, enter};

/// The kind of a socket without its flags.
const KIND: u64 = 0xf;

/// Before anybody is heard or answered. The configuration is read again when it has changed: by its directory, because
/// editors put a new file in the place of the old one.
///
/// # Errors
/// [`SandboxError`]; meshd must not go on then.
pub fn before_serving(state: &Path, config: &Path, sam_port: u16) -> Result<(), SandboxError> {
    let mut files = Files::none().and(state, Allowed::Keep).and_connect(sam_port);
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
