//! What a client has to show at the TCP listener: a token from a file that only the gateway's user and root can read.

use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use i2plan_ipc::daemon::state_dir::{StateDir, StateDirError};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use zeroize::Zeroizing;

/// The file's name in the gateway's state directory.
pub const FILE: &str = "token";

/// Shortest token, bytes of text: 192 bits in base64.
const SHORTEST: usize = 32;

/// Longest token, bytes.
const LONGEST: usize = 256;

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The directory or the file cannot be used.
    #[error(transparent)]
    Directory(#[from] StateDirError),
    /// The system gave no randomness for a new one.
    #[error("the system gives no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
    /// Others can read it, so that it is a secret no more.
    #[error(
        "{} is open to others: its mode is {mode:03o}; remove it, and the gateway makes a new one",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is in it is no token.
    #[error(
        "{} holds no token: a line of {SHORTEST} to {LONGEST} letters, digits and -._~+/= is expected; remove it, \
         and the gateway makes one",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// The token.
pub struct Token(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token of this directory; a new one if there is none.
    ///
    /// # Errors
    /// [`TokenError`]; what is there is left as it is.
    pub fn load_or_make(directory: &Path) -> Result<Self, TokenError> {
        let state = StateDir::open(directory)?;
        let text = match state.read(FILE, (LONGEST + 2) as u64) {
            Ok(Some(text)) => text,
            Ok(None) => make(&state)?,
            Err(StateDirError::TooOpen { path, mode, .. }) => return Err(TokenError::Open { path, mode }),
            Err(error) => return Err(error.into()),
        };
        let token = text.trim_ascii();
        // What a bearer token may consist of (RFC 6750).
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if !(SHORTEST..=LONGEST).contains(&token.len()) || !token.iter().all(fits) {
            return Err(TokenError::Content { path: state.path(FILE) });
        }
        Ok(Self(Zeroizing::new(token.to_vec())))
    }

    /// Whether this is it. How long that takes says nothing but whether the length is right.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// Writes a new token, and returns the file's content.
fn make(state: &StateDir) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes)?;
    let text = Zeroizing::new((BASE64URL_NOPAD.encode(&*bytes) + "\n").into_bytes());
    state.create(FILE, &text)?;
    Ok(text)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    pub(crate) fn directory() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    #[test]
    fn a_token_is_made_once_for_its_user_alone() {
        let dir = directory();
        let path = dir.path().join(FILE);
        let token = Token::load_or_make(dir.path()).unwrap();
        let text = read(&path);
        assert_eq!((text.len(), path.metadata().unwrap().mode() & 0o777), (43, 0o600));
        assert!(token.is(text.as_bytes()));
        assert!(Token::load_or_make(dir.path()).unwrap().is(text.as_bytes()), "it stays");
        for wrong in ["", &text[1..], &format!("{text}x"), &"x".repeat(43)] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{token:?}").contains(&text));
    }

    #[test]
    fn half_of_one_is_not_taken_for_one() {
        let dir = directory();
        std::fs::write(dir.path().join("token.new"), "half").unwrap();
        Token::load_or_make(dir.path()).unwrap();
        assert_eq!(read(&dir.path().join(FILE)).len(), 43);
    }

    #[test]
    fn a_token_that_is_none_or_open_is_refused_and_left() {
        let dir = directory();
        let path = dir.path().join(FILE);
        for bad in ["", "short", &"x".repeat(257), &format!("{} {}", "x".repeat(20), "x".repeat(20))] {
            std::fs::write(&path, bad).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = Token::load_or_make(dir.path()).unwrap_err().to_string();
            assert!(error.contains("holds no token"), "{error}");
            assert_eq!(read(&path), *bad);
        }
        std::fs::write(&path, "x".repeat(43)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = Token::load_or_make(dir.path()).unwrap_err().to_string();
        assert!(error.contains("its mode is 640"), "{error}");
    }
}
