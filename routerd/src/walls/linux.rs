//! What the router may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until it has its keys and its seed | as its user | any | all |
//! | from then on | its directory | listening at its two ports; connecting to any | those below |
//!
//! The program that fetches a seed may read what the system keeps for everybody (names, certificates, libraries) and
//! connect to TCP ports of DNS and HTTPS; nothing filters its system calls, because which of them the C library makes
//! to find out an address depends on the system.
//!
//! Other routers are at any address and port, so that this wall has a side that is open: to the network. Landlock
//! cannot tell addresses apart, and says nothing of UDP.

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Argument, Files, SandboxError, Syscalls, enter, restrict_files};

/// The kind of a socket without its flags.
const KIND: u64 = 0xf;

/// Where the C library and TLS look: libraries, names, certificates of authorities.
const FOR_EVERYBODY: [&str; 6] =
    ["/etc", "/usr/lib", "/usr/lib64", "/usr/share", "/lib", "/run/systemd/resolve"];

/// The ports of DNS and HTTPS.
const OF_SERVERS: [u16; 2] = [53, 443];

/// In the program that fetches a seed, before it asks anybody.
///
/// # Errors
/// [`SandboxError`]; it must not go on then.
pub fn before_fetching() -> Result<(), SandboxError> {
    let there = FOR_EVERYBODY.iter().map(Path::new).filter(|path| path.exists());
    let files = there.fold(Files::none(), |files, path| files.and(path, Allowed::Read));
    restrict_files(&OF_SERVERS.into_iter().fold(files, Files::and_connect))
}

/// Before any other router is heard or answered. `ports` are the router's own and that of its SAM bridge.
///
/// # Errors
/// [`SandboxError`]; the router must not go on then.
pub fn before_the_network(state: &Path, ports: [u16; 2]) -> Result<(), SandboxError> {
    let files = Files::none().and(state, Allowed::Keep).and_connect_anywhere();
    let files = ports.into_iter().fold(files, Files::and_listen);
    enter(&files, syscalls())
}

fn syscalls() -> Syscalls {
    let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
    let mut syscalls = Syscalls::base().and(&[
        // What it knows of other routers: written anew and put in the place of the old. Landlock says where.
        libc::SYS_openat,
        libc::SYS_renameat,
        libc::SYS_fsync,
        libc::SYS_statx,
        libc::SYS_newfstatat,
        libc::SYS_lseek,
        // Other routers, and the SAM bridge's clients.
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_setsockopt,
    ]);
    #[cfg(target_arch = "x86_64")]
    {
        syscalls = syscalls.and(&[libc::SYS_rename, libc::SYS_open]);
    }
    // No unix, raw, packet or netlink sockets.
    for (family, kind) in [
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
