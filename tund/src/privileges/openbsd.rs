//! From root to a user of its own, as OpenBSD's daemons do it.
//!
//! Only root can make an interface, and which one is known only when meshd says so. Until then the process runs
//! as its user, who is whom its files and connections belong to, with root as its saved user id. It becomes root
//! for the time of making the interface, in which it does nothing else, and then never again.

use nix::unistd::{Uid, User, getuid, seteuid, setgroups, setresgid, setresuid};
use thiserror::Error;
use tracing::error;

/// Whom this daemon runs as; by this name keyd knows it, unless it is told another.
const USER: &str = "i2plan-tund";

const ROOT: Uid = Uid::from_raw(0);

/// Privileges that are not what they should be; a process must not go on with them.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// It is not started as root.
    #[error("only root can make the interface: start it as root, and it becomes {USER}")]
    NotRoot,
    /// There is nobody to become.
    #[error("there is no user {USER} on this system; create it")]
    NoUser,
    /// The user that it should become is root, or has root's group.
    #[error("the user {USER} is root or has root's group; it must be a user of its own")]
    UserIsRoot,
    /// The system refuses.
    #[error("cannot change to another user: {0}")]
    Change(#[from] nix::Error),
    /// Root is still at hand.
    #[error("privileges are still there after giving them up")]
    Left,
}

impl PrivilegeError {
    /// Whether it was started as a user as which it never runs, or has no user to become.
    #[must_use]
    pub fn is_wrong_user(&self) -> bool {
        matches!(self, Self::NotRoot | Self::NoUser | Self::UserIsRoot)
    }
}

/// Becomes the daemon's user, with root at hand.
///
/// # Errors
/// [`PrivilegeError`]; the daemon must not go on then.
pub fn start() -> Result<(), PrivilegeError> {
    if getuid() != ROOT || !Uid::effective().is_root() {
        return Err(PrivilegeError::NotRoot);
    }
    let user = User::from_name(USER)?.ok_or(PrivilegeError::NoUser)?;
    if user.uid == ROOT || user.gid.as_raw() == 0 {
        return Err(PrivilegeError::UserIsRoot);
    }
    setgroups(&[user.gid])?;
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, ROOT)?;
    Ok(())
}

/// Does something as root.
///
/// # Errors
/// [`PrivilegeError::Change`] if root has been given up; it is not done then.
pub(crate) fn as_root<T>(work: impl FnOnce() -> T) -> Result<T, PrivilegeError> {
    /// Also when the work panics.
    struct BackTo(Uid);

    impl Drop for BackTo {
        fn drop(&mut self) {
            if let Err(reason) = seteuid(self.0) {
                error!(%reason, "cannot give up root again");
                std::process::abort();
            }
        }
    }

    let _back = BackTo(getuid());
    seteuid(ROOT)?;
    Ok(work())
}

/// Gives up root for good, and makes sure of it.
///
/// # Errors
/// [`PrivilegeError`]; the daemon must not go on then.
pub fn drop_all() -> Result<(), PrivilegeError> {
    let user = getuid();
    setresuid(user, user, user)?;
    if user == ROOT || seteuid(ROOT).is_ok() { Err(PrivilegeError::Left) } else { Ok(()) }
}
