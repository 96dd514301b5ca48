//! What a client has to show at a TCP listener: a token from a file that only the daemon's user and root can read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use i2plan_ipc::daemon::state_dir::{StateDir, StateDirError};
use i2plan_ipc::daemon::trusted::{Untrusted, open_secret};
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
        "{} holds no token: a line of {SHORTEST} to {LONGEST} letters, digits and -._~+/= is expected; {remedy}",
        path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A file that an administrator has made cannot be used.
    #[error(transparent)]
    File(#[from] Untrusted),
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
        let content =
            || TokenError::Content { path: state.path(FILE), remedy: "remove it, and the gateway makes one" };
        Self::parse(&text).ok_or_else(content)
    }

    /// The token in a file that an administrator has made.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        // In one piece: a growing buffer would leave copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(LONGEST + 3));
        open_secret(path)?
            .take((LONGEST + 3) as u64)
            .read_to_end(&mut text)
            .map_err(|source| Untrusted::Io { path: path.to_owned(), source })?;
        let remedy = "make one with `openssl rand -hex 32`";
        Self::parse(&text).ok_or_else(|| TokenError::Content { path: path.to_owned(), remedy })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let token = text.trim_ascii();
        // What a bearer token may consist of (RFC 6750).
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        let is_one = (SHORTEST..=LONGEST).contains(&token.len()) && token.iter().all(fits);
        is_one.then(|| Self(Zeroizing::new(token.to_vec())))
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
    fn one_of_an_administrator_is_read_where_nobody_else_can() {
        let dir = directory();
        let path = dir.path().join("web.token");
        assert!(Token::read(&path).is_err());
        for (text, mode, is_taken) in [
            ("x".repeat(32) + "\n", 0o600, true),
            ("x".repeat(256), 0o400, true),
            ("x".repeat(32), 0o640, false),
            ("x".repeat(31), 0o600, false),
            ("x".repeat(257), 0o600, false),
            ("x".repeat(1000), 0o600, false),
        ] {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, &text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let token = Token::read(&path);
            assert_eq!(
                token.is_ok_and(|token| token.is(text.trim().as_bytes())),
                is_taken,
                "{mode:o} {text}"
            );
        }
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
