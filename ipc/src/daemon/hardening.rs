//! What no daemon needs and none keeps: core dumps, being traced, new privileges.

use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// All memory, now and later; where the system can, only what is really used.
#[cfg(target_os = "linux")]
const ALL: MlockAllFlags = MlockAllFlags::CURRENT.union(MlockAllFlags::FUTURE).union(MlockAllFlags::ONFAULT);
#[cfg(not(target_os = "linux"))]
const ALL: MlockAllFlags = MlockAllFlags::CURRENT.union(MlockAllFlags::FUTURE);

/// How the limit on locked memory is lifted.
#[cfg(target_os = "linux")]
const LIFT: &str =
    "start with no limit on locked memory (`ulimit -l unlimited`; systemd: LimitMEMLOCK=infinity)";
#[cfg(not(target_os = "linux"))]
const LIFT: &str = "set memorylocked to infinity in login.conf(5)";

/// The kernel refuses to take privileges from this process.
#[derive(Debug, Error)]
#[error("cannot give up privileges: {0}")]
pub struct HardenError(#[from] io::Error);

/// Call first in main, before any secret is read: no core dump of this process, no access to its memory
/// through `/proc` or `ptrace(2)` by others of its user, no privilege gained by executing anything.
///
/// On OpenBSD this is the core dump alone: there only a parent may trace, and executing is for the sandbox to forbid.
///
/// # Errors
/// If the kernel refuses; a daemon must not go on then.
pub fn harden() -> Result<(), HardenError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(io::Error::from)?;
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .and_then(|()| rustix::thread::set_no_new_privs(true))
            .map_err(io::Error::from)?;
    }
    Ok(())
}

/// Keeps all memory of this process out of swap; for daemons that hold keys. A daemon goes on without, with a
/// warning.
pub fn lock_memory() {
    // Not tried under a limit: memory that cannot be locked could then not be had at all.
    if let Some(limit) = getrlimit(Resource::Memlock).current {
        tracing::warn!(limit, "memory is not locked, so keys could be swapped out: {LIFT}");
    } else if let Err(error) = mlockall(ALL) {
        tracing::warn!(%error, "cannot lock memory, so keys could be swapped out: do without swap");
    }
}
