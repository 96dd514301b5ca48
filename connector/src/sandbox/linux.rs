//! What the connector may do.
//!
//! | time | files | TCP | system calls |
//! | --- | --- | --- | --- |
//! | until the command line is read | as its user | any | all |
//! | from then on | none | to the SAM bridge's port | those below |

use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::daemon::sandbox::{Argument, Files, SandboxError, Syscalls, enter};

/// Before anybody is connected to.
///
/// # Errors
/// [`SandboxError`]; the connector must not go on then.
pub fn before_connecting(bridge: &Bridge) -> Result<(), SandboxError> {
    let files = Files::none().and_connect(bridge.address.port());
    let family = if bridge.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let argument = |value: libc::c_int| u64::from(value.cast_unsigned());
    let syscalls = Syscalls::base()
        // keyd; the bridge, by TCP and UDP, and that TCP does not wait for more.
        .and_socket(libc::AF_UNIX, libc::SOCK_STREAM)
        .and_socket(family, libc::SOCK_STREAM)
        .and_socket(family, libc::SOCK_DGRAM)
        .and(&[libc::SYS_connect])
        .and_if(
            libc::SYS_setsockopt,
            &[Argument::Is(1, argument(libc::IPPROTO_TCP)), Argument::Is(2, argument(libc::TCP_NODELAY))],
        );
    enter(&files, syscalls)
}
