//! What the process may do, and when.
//!
//! | time | capability | files | TCP | system calls |
//! | --- | --- | --- | --- | --- |
//! | until it has read its configuration | `CAP_NET_BIND_SERVICE` | as its user | any | all |
//! | until the node is in a network | `CAP_NET_BIND_SERVICE` | none | listening on port 53 | to ask meshd, and to make its four sockets |
//! | from then on | none | none | what comes to its listeners | an event loop, and unix sockets to ask meshd |

use i2plan_ipc::daemon::sandbox::{Files, SandboxError, Syscalls, enter};

use crate::server::PORT;

/// Before meshd is asked.
///
/// # Errors
/// [`SandboxError`]; the process must not go on then.
pub fn before_the_address() -> Result<(), SandboxError> {
    let mut syscalls = serving();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_STREAM] {
            syscalls = syscalls.and_socket(family, kind);
        }
    }
    let syscalls = syscalls.and(&[
        // The four sockets.
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_setsockopt,
        // Giving up the capability, and looking whether it is gone.
        libc::SYS_capget,
        libc::SYS_capset,
        // The sandbox that follows.
        libc::SYS_prctl,
        libc::SYS_seccomp,
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ]);
    enter(&Files::none().and_listen(PORT), syscalls)
}

/// Before a query is read.
///
/// # Errors
/// [`SandboxError`]; the process must not go on then.
pub fn before_serving() -> Result<(), SandboxError> {
    enter(&Files::none(), serving())
}

fn serving() -> Syscalls {
    Syscalls::base().and_socket(libc::AF_UNIX, libc::SOCK_STREAM).and(&[libc::SYS_connect])
}
