//! What meshd may do on OpenBSD.
//!
//! | time | promises |
//! | --- | --- |
//! | until configuration and socket are there | none |
//! | from then on | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge};

/// Before anybody is heard or answered.
///
/// `rpath wpath cpath` are for the state file and the configuration, `inet` is for the SAM bridge, `unix sendfd recvfd` are for clients
/// and the other daemons. Which files and ports these are is for meshd's user and for pf(4) to limit.
///
/// # Errors
/// [`SandboxError`]; meshd must not go on then.
pub fn before_serving(_: &Path, _: &Path, _: u16) -> Result<(), SandboxError> {
    pledge("stdio rpath wpath cpath inet unix sendfd recvfd")
}
