//! What the connector may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until the bridge's host name is resolved | as its user | any | all |
//! | from then on | none | to the SAM bridge's port | those below |

use std::net::SocketAddr;

use i2plan_ipc::daemon::sandbox::{Argument, Files, SandboxError, Syscalls, enter};

/// Before anybody is connected to. The bridge is at one of these addresses, at this port.
///
/// # Errors
/// [`SandboxError`]; the connector must not go on then.
pub fn before_connecting(bridge: &[SocketAddr], port: u16) -> Result<(), SandboxError> {
    let files = Files::none().and_connect(port);
    let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
    let mut syscalls = Syscalls::base()
        // keyd; the bridge, by TCP and UDP, and that TCP does not wait for more.
        .and_socket(libc::AF_UNIX, libc::SOCK_STREAM)
        .and(&[libc::SYS_connect])
        .and_if(
            libc::SYS_setsockopt,
            &[Argument::Is(1, argument(libc::IPPROTO_TCP)), Argument::Is(2, argument(libc::TCP_NODELAY))],
        );
    for (family, is_used) in [
        (libc::AF_INET, bridge.iter().any(SocketAddr::is_ipv4)),
        (libc::AF_INET6, bridge.iter().any(SocketAddr::is_ipv6)),
    ] {
        if is_used {
            syscalls = syscalls.and_socket(family, libc::SOCK_STREAM).and_socket(family, libc::SOCK_DGRAM);
        }
    }
    enter(&files, syscalls)
}
