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
/// `rpath wpath cpath` are for the state file and the configuration, `unix sendfd recvfd` are for clients and the other
/// daemons. What goes through the sockets to the SAM bridge is in `stdio`: they are connected. Which files these are is
/// for meshd's user to limit.
///
/// # Errors
/// [`SandboxError`]; meshd must not go on then.
pub fn before_serving(_: &Path, _: &Path) -> Result<(), SandboxError> {
    pledge("stdio rpath wpath cpath unix sendfd recvfd")
}
