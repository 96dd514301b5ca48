//! What no daemon needs and none keeps: core dumps, being traced, new privileges.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
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
