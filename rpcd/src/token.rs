//! What a client has to show at the TCP listener: a token from a file that only the gateway's user and root can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
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
    /// The file cannot be read or made.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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
        let path = directory.join(FILE);
        let failed = |source| TokenError::Io { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(directory, &path).map_err(failed)?;
                File::open(&path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open { path, mode });
        }
        let mut text = Zeroizing::new(vec![0; LONGEST + 2]);
        let mut len = 0;
        loop {
            match file.read(&mut text[len..]).map_err(failed)? {
                0 => break,
                count => len += count,
            }
        }
        let token = text[..len].trim_ascii();
        // What a bearer token may consist of (RFC 6750).
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        if !(SHORTEST..=LONGEST).contains(&token.len()) || !token.iter().all(fits) {
            return Err(TokenError::Content { path });
        }
        Ok(Self(Zeroizing::new(token.to_vec())))
    }

    /// Whether this is it. How long that takes says nothing but whether the length is right.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

/// Writes a new token: after a crash at any moment there is all of it, or none.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
    let text = Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes) + "\n");
    let new = path.with_extension("new");
    // What is left of an attempt before may have another mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    #[test]
    fn a_token_is_made_once_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token.new"), "half").unwrap();
        Token::load_or_make(dir.path()).unwrap();
        assert_eq!(read(&dir.path().join(FILE)).len(), 43);
    }

    #[test]
    fn a_token_that_is_none_or_open_is_refused_and_left() {
        let dir = tempfile::tempdir().unwrap();
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
