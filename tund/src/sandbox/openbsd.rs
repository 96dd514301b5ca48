//! What tund may do on OpenBSD, and when.
//!
//! | time | user | promises |
//! | --- | --- | --- |
//! | until the socket is there and the users are looked up | its own, root at hand | none |
//! | until the interface is up | its own, root at hand | to make an interface |
//! | from then on | its own | to move packets, and to ask keyd for the next key |

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge};

/// Before meshd is answered.
///
/// `route` is to look at the host's addresses, `rpath wpath` are for tun(4), `proc exec` for ifconfig(8) and route(8), `id` is to become root for that time
/// and to give root up afterwards.
///
/// # Errors
/// [`SandboxError`]; tund must not go on then.
pub fn before_the_interface() -> Result<(), SandboxError> {
    pledge("stdio route rpath wpath unix sendfd recvfd proc exec id")
}

/// Once the interface is up.
///
/// # Errors
/// [`SandboxError`]; tund must not go on then.
pub fn before_packets() -> Result<(), SandboxError> {
    pledge("stdio route unix sendfd recvfd")
}
