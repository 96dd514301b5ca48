//! What the process may do on OpenBSD.
//!
//! | time | promises |
//! | --- | --- |
//! | until it listens | none |
//! | from then on | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge};

/// Before anybody is heard or answered.
///
/// `unix` is for `i2planctl` and meshd, `inet` for what comes to its TCP listener, `recvfd` for descriptors that
/// clients pass and that are closed, `rpath` for certificate and key, if there are such: they are read again.
///
/// # Errors
/// [`SandboxError`]; the process must not go on then.
pub fn before_serving(renewed: &[&Path]) -> Result<(), SandboxError> {
    pledge(if renewed.is_empty() { "stdio unix inet recvfd" } else { "stdio rpath unix inet recvfd" })
}
