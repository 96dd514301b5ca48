//! What keyd may do, and when.
//!
//! | time | files | system calls |
//! | --- | --- | --- |
//! | until the socket is there and the users are looked up | as its user | all |
//! | until the keys are read or made | its store; credentials of the service manager | all |
//! | while it serves | none; those of its memory are open | an event loop over what it has: nothing that opens, connects, starts or executes |

use std::path::Path;

use i2plan_ipc::daemon::sandbox::{Allowed, Files, SandboxError, Syscalls, enter, restrict_files};

/// Before the keys are read or made: nothing but the store can be opened, and the service manager's `credentials`.
///
/// # Errors
/// [`SandboxError`]; keyd must not go on then.
pub fn before_the_store(store: &Path, credentials: Option<&Path>) -> Result<(), SandboxError> {
    let mut files = Files::none().and(store, Allowed::Keep);
    // Where there is no such directory, there is no passphrase in it; that is said when one is needed.
    if let Some(credentials) = credentials.filter(|path| path.is_dir()) {
        files = files.and(credentials, Allowed::Read);
    }
    restrict_files(&files)
}

/// Before anybody is answered. What keyd does from here on is to take connections, among them those to the SAM
/// bridge that meshd passes to it, and to answer: the base is all that it takes.
///
/// # Errors
/// [`SandboxError`]; keyd must not go on then.
pub fn before_serving() -> Result<(), SandboxError> {
    enter(&Files::none(), Syscalls::base().and_open_files())
}
