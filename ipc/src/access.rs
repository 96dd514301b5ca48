//! Who may connect as what.

use crate::error::ApiError;
use crate::hello::Role;

/// The credentials of a connected process, from the kernel (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Process id, where the system tells it.
    pub pid: Option<i32>,
}

/// Whose processes a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Those of one user.
    User(u32),
    /// Whoever can open the socket: the mode and group of the socket file decide.
    Anyone,
    /// As [`Who::Anyone`], except for these users.
    AnyoneBut(Vec<u32>),
}

/// The roles that a daemon's socket accepts, and from whom.
#[derive(Debug, Clone)]
pub struct Access(Vec<(Role, Who)>);

impl Access {
    /// The table.
    #[must_use]
    pub fn new(rules: impl Into<Vec<(Role, Who)>>) -> Self {
        Self(rules.into())
    }

    /// The users that it names.
    pub(crate) fn users(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|(_, who)| match who {
            Who::User(uid) => Some(*uid),
            Who::Anyone | Who::AnyoneBut(_) => None,
        })
    }

    /// Whether a process with these credentials may connect as `role`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`], naming role and user.
    pub fn check(&self, role: Role, credentials: Credentials) -> Result<(), ApiError> {
        let allowed = self.0.iter().any(|(for_role, who)| {
            *for_role == role
                && match who {
                    Who::User(uid) => *uid == credentials.uid,
                    Who::Anyone => true,
                    Who::AnyoneBut(uids) => !uids.contains(&credentials.uid),
                }
        });
        if allowed {
            return Ok(());
        }
        Err(ApiError::denied(format!("user {} may not connect here as {role}", credentials.uid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_needs_its_user() {
        let access = Access::new([(Role::Meshd, Who::User(1)), (Role::Tund, Who::User(2))]);
        let user = |uid| Credentials { uid, gid: 0, pid: None };
        assert!(access.check(Role::Meshd, user(1)).is_ok());
        assert!(access.check(Role::Tund, user(1)).is_err());
        assert!(access.check(Role::Client, user(1)).is_err());
        // Being root is no role.
        assert!(access.check(Role::Meshd, user(0)).is_err());
    }

    #[test]
    fn some_may_be_refused() {
        let access = Access::new([(Role::Client, Who::AnyoneBut(vec![1, 2]))]);
        let user = |uid| Credentials { uid, gid: 0, pid: None };
        assert!(access.check(Role::Client, user(0)).is_ok());
        assert!(access.check(Role::Client, user(3)).is_ok());
        for uid in [1, 2] {
            assert!(access.check(Role::Client, user(uid)).is_err());
        }
        assert!(access.check(Role::Meshd, user(3)).is_err());
    }
}
