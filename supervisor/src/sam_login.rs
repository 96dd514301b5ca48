//! What the SAM bridge wants to know of the node.

use std::path::PathBuf;

use i2plan_config::Config;
use i2plan_ipc::daemon::trusted::{Untrusted, open_secret};
use i2plan_ipc::passphrase::{Passphrase, PassphraseError};
use thiserror::Error;

/// The user and the password of a bridge that wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamLogin {
    /// `i2p.sam_user`.
    pub user: String,
    /// The first line of `i2p.sam_password_file`.
    pub password: Passphrase,
}

/// Why there is no login.
#[derive(Debug, Error)]
pub enum SamLoginError {
    /// There is a user and no password.
    #[error("i2p.sam_user is set, and i2p.sam_password_file is not: set both or none")]
    NoPassword,
    /// There is a password and no user.
    #[error("i2p.sam_password_file is set, and i2p.sam_user is not: set both or none")]
    NoUser,
    /// The file is not to be used.
    #[error("i2p.sam_password_file: {0}")]
    File(#[from] Untrusted),
    /// There is no password in the file.
    #[error("i2p.sam_password_file: {}: no password in the first line: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: PassphraseError,
    },
}

impl SamLogin {
    /// Reads what the configuration says; none if it says nothing.
    ///
    /// # Errors
    /// [`SamLoginError`].
    pub fn read(config: &Config) -> Result<Option<Self>, SamLoginError> {
        let (user, path) = match (&config.sam_user, &config.sam_password_file) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(SamLoginError::NoPassword),
            (None, Some(_)) => return Err(SamLoginError::NoUser),
            (Some(user), Some(path)) => (user.clone(), path),
        };
        let password = Passphrase::read(open_secret(path)?, "the file")
            .map_err(|source| SamLoginError::Password { path: path.clone(), source })?;
        Ok(Some(Self { user, password }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Result<Option<SamLogin>, SamLoginError> {
        let config = Config::from_parts(Path::new("c"), &format!("[i2p]\n{text}"), |_| None);
        SamLogin::read(&config.unwrap())
    }

    #[test]
    fn a_login_is_a_user_and_a_file_that_is_secret() {
        // Not below a directory that others can write to.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "s3cret\nmore\n").unwrap();
        let both = format!("sam_user = \"me\"\nsam_password_file = \"{}\"", path.display());
        for mode in [0o640, 0o604, 0o622] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&both).unwrap_err();
            assert!(error.to_string().contains("chmod"), "{error}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let login = read(&both).unwrap().unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("me", &b"s3cret"[..]));
        assert!(!format!("{login:?}").contains("s3cret"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&both), Err(SamLoginError::Password { .. })));
        assert!(matches!(read("sam_user = \"me\""), Err(SamLoginError::NoPassword)));
        assert!(matches!(read("sam_password_file = \"/x\""), Err(SamLoginError::NoUser)));
        assert!(read("").unwrap().is_none());
    }
}
