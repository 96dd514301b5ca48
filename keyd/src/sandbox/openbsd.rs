//! What keyd may do on OpenBSD, and when.
//!
//! | time | files | promises |
//! | --- | --- | --- |
//! | until the socket is there and the users are looked up | as its user | none |
//! | until the keys are read or made | its store | none |
//! | while it serves | none | those below |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge, unveil, unveil_lock};

/// Before the keys are read or made: nothing but the store can be opened, and the service manager's `credentials`.
///
/// # Errors
/// [`SandboxError`]; keyd must not go on then.
pub fn before_the_store(store: &Path, credentials: Option<&Path>) -> Result<(), SandboxError> {
    unveil(store, "rwc")?;
    if let Some(credentials) = credentials.filter(|path| path.is_dir()) {
        unveil(credentials, "r")?;
    }
    unveil_lock()
}

/// Before anybody is answered.
///
/// `unix` is to accept connections and to ask whose they are; there is no path that it could connect to.
/// `recvfd` is for the connections to the SAM bridge that meshd passes.
///
/// # Errors
/// [`SandboxError`]; keyd must not go on then.
pub fn before_serving() -> Result<(), SandboxError> {
    pledge("stdio unix recvfd")
}
