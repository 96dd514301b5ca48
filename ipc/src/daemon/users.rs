//! Users by name or number.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};
use thiserror::Error;

/// No user of that name.
#[derive(Debug, Error)]
#[error("there is no user {0:?} on this system; create it or give a numeric user id")]
pub struct UnknownUser(String);

/// The id of a user given by number or name.
///
/// # Errors
/// [`UnknownUser`].
pub fn user_id(user: &str) -> Result<u32, UnknownUser> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    match User::from_name(user) {
        Ok(Some(found)) => Ok(Uid::as_raw(found.uid)),
        _ => Err(UnknownUser(user.to_owned())),
    }
}

/// Makes this process, which runs as root, one of the user who owns a directory, and works in that directory: the user
/// need not be let into those above it.
///
/// # Errors
/// If the directory is not there, belongs to root, or the system refuses.
pub fn become_owner(directory: &Path) -> io::Result<()> {
    let found = directory.symlink_metadata()?;
    if found.uid() == 0 {
        let why = "it belongs to root: give it and its files to the user that keyd runs as, with chown";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    std::env::set_current_dir(directory)?;
    setgroups(&[])?;
    setgid(Gid::from_raw(found.gid()))?;
    Ok(setuid(Uid::from_raw(found.uid()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_go_by_name_and_number() {
        assert_eq!(user_id("root").unwrap(), 0);
        assert_eq!(user_id("4711").unwrap(), 4711);
        assert!(user_id("no-such-user-here").is_err());
    }
}
