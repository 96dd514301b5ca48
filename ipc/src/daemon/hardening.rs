//! What no daemon needs and none keeps: core dumps, being traced, new privileges.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

/// Call first in main, before any secret is read: no core dump of this process, no access to its memory
/// through `/proc` or `ptrace(2)` by others of its user, no privilege gained by executing anything.
///
/// # Errors
/// If the kernel refuses; a daemon must not go on then.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Keeps all memory of this process out of swap; for daemons that hold keys. A daemon goes on without, with a
/// warning.
pub fn lock_memory() {
    // Not tried under a limit: memory that cannot be locked could then not be had at all.
    if let Some(limit) = getrlimit(Resource::Memlock).current {
        tracing::warn!(
            limit,
            "memory is not locked, so keys could be swapped out: start with LimitMEMLOCK=infinity"
        );
    } else if let Err(error) =
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
    {
        tracing::warn!(%error, "cannot lock memory, so keys could be swapped out: do without swap");
    }
}
