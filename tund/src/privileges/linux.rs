//! Gives up every privilege, and keeps memory off the disk.

use std::io;
use std::path::Path;

use caps::{CapSet, Capability};
use thiserror::Error;

/// Privileges that cannot be got rid of; a process must not go on with them.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// It runs as root.
    #[error("refusing to run as root: run as a user of its own, with CAP_NET_ADMIN as an ambient capability")]
    Root,
    /// The system refuses to take them.
    #[error("cannot give up privileges: {0}")]
    Drop(#[from] caps::errors::CapsError),
    /// They cannot be read back.
    #[error("cannot check that privileges are gone: {0}")]
    Check(#[from] io::Error),
    /// They are still there.
    #[error("privileges are still there after giving them up: {0}")]
    Left(String),
}

impl PrivilegeError {
    /// Whether it was started as a user as which it never runs.
    #[must_use]
    pub fn is_wrong_user(&self) -> bool {
        matches!(self, Self::Root)
    }
}

/// Makes sure that the process is not root's. The capability that it needs is what it was started with.
///
/// # Errors
/// [`PrivilegeError::Root`]; the daemon must not go on then.
pub fn start() -> Result<(), PrivilegeError> {
    if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return Err(PrivilegeError::Root);
    }
    Ok(())
}

/// Empties all capability sets of this thread and makes sure that no thread of the process has any left.
///
/// The bounding set limits what executing a file may give; emptying it takes `CAP_SETPCAP`, which this daemon
/// is not started with. `no_new_privs`, which is set at the start, says the same: executing gives nothing.
///
/// # Errors
/// [`PrivilegeError`]; a daemon must not go on then.
pub fn drop_all() -> Result<(), PrivilegeError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)?;
    }
    // Capabilities belong to threads. There should be but one; a second would keep its own.
    for thread in std::fs::read_dir("/proc/self/task")? {
        check_status(&thread?.path().join("status"))?;
    }
    Ok(())
}

fn check_status(path: &Path) -> Result<(), PrivilegeError> {
    match left(&std::fs::read_to_string(path)?) {
        None => Ok(()),
        Some(line) => Err(PrivilegeError::Left(line)),
    }
}

/// The first capability set in a `status` file (`proc(5)`) that is not empty, or not there.
fn left(status: &str) -> Option<String> {
    ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].into_iter().find_map(|set| {
        let Some(line) = status.lines().find(|line| line.starts_with(set)) else {
            return Some(format!("{set} unknown"));
        };
        let empty = line[set.len()..].trim().bytes().all(|digit| digit == b'0');
        (!empty).then(|| line.replace('\t', " "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found() {
        let empty = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                     CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";
        assert_eq!(left(empty), None);
        let permitted = empty.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000001000");
        assert_eq!(left(&permitted).unwrap(), "CapPrm: 0000000000001000");
        assert_eq!(left(&empty.replace("CapAmb", "CapXyz")).unwrap(), "CapAmb: unknown");
    }
}
