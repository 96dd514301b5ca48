//! Gives up the capability that the process is started with.

use caps::errors::CapsError;
use caps::{CapSet, CapsHashSet, clear, read};

/// Empties all capability sets of this thread, the only one, and makes sure of it. `no_new_privs`, which is set at the
/// start, keeps others from coming.
///
/// # Errors
/// What the system refuses, or that something is left; the process must not go on then.
pub fn drop_all() -> Result<(), CapsError> {
    let sets = [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted];
    for set in sets {
        clear(None, set)?;
    }
    match sets.into_iter().map(|set| read(None, set)).collect::<Result<Vec<_>, _>>()? {
        left if left.iter().all(CapsHashSet::is_empty) => Ok(()),
        left => Err(format!("privileges are still there after giving them up: {left:?}").into()),
    }
}
