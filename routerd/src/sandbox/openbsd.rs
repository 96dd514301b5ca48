//! What the router may do on OpenBSD.
//!
//! | time | promises |
//! | --- | --- |
//! | until it has its keys and its seed | none |
//! | from then on | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge};

/// In the program that fetches a seed, before it asks anybody.
///
/// # Errors
/// [`SandboxError`]; it must not go on then.
pub fn before_fetching() -> Result<(), SandboxError> {
    pledge("stdio rpath inet dns")
}

/// Before any other router is heard or answered.
///
/// `rpath wpath cpath` are for its directory, `inet` is for other routers and the SAM bridge's clients, `unix` for
/// its supervisor. Which files and ports these are is for its user and for pf(4) to limit.
///
/// # Errors
/// [`SandboxError`]; the router must not go on then.
pub fn before_the_network(_: &Path, _: [u16; 2]) -> Result<(), SandboxError> {
    pledge("stdio rpath wpath cpath inet unix")
}
