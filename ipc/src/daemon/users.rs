//! Users by name or number.

use nix::unistd::{Uid, User};
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
