//! What the process may do on OpenBSD.
//!
//! | time | promises |
//! | --- | --- |
//! | until it listens | none |
//! | from then on | those below |

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge};

/// Before anybody is heard or answered.
///
/// `unix` is for `i2planctl` and meshd, `inet` for what comes to its TCP listener, `recvfd` for descriptors that
/// clients pass and that are closed.
///
/// # Errors
/// [`SandboxError`]; the process must not go on then.
pub fn before_serving() -> Result<(), SandboxError> {
    pledge("stdio unix inet recvfd")
}
