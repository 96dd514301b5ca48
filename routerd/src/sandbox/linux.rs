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
//! Other routers are at any address and port, so that this sandbox is open to the network. Landlock
//! cannot tell addresses apart, and says nothing of UDP.

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Files, SandboxError, Syscalls, enter, restrict_files};

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
    Syscalls::base()
        // What it knows of other routers.
        .and_files()
        // Other routers, and the SAM bridge's clients. No unix, raw, packet or netlink sockets.
        .and_socket(libc::AF_INET, libc::SOCK_STREAM)
        .and_socket(libc::AF_INET, libc::SOCK_DGRAM)
        .and_socket(libc::AF_INET6, libc::SOCK_STREAM)
        .and_socket(libc::AF_INET6, libc::SOCK_DGRAM)
        .and(&[libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_setsockopt])
}
