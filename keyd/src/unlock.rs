//! Where the passphrase comes from: a descriptor that is named, a credential of the service manager, or else
//! the terminal.

use std::fs::File;
use std::future::Future;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use i2plan_ipc::passphrase::{Passphrase, PassphraseError, inherited};
use i2plan_ipc::secret::SecretKey;

/// The name of systemd's credential with the passphrase (`LoadCredential=passphrase:…`).
const PASSPHRASE: &str = "passphrase";

/// The name of systemd's credential with the password of the SAM bridge, and of the descriptor with it.
pub const SAM_PASSWORD: &str = "sam-password";

/// The name of the descriptor with the WireGuard private key of a static interface.
pub const WIREGUARD_KEY: &str = "wireguard-key";

/// A descriptor with a passphrase in it, taken over from whoever started this process.
#[derive(Debug)]
pub struct Descriptor {
    fd: OwnedFd,
    number: i32,
}

impl Descriptor {
    /// Takes it over, as [`inherited`] does and under the same conditions.
    ///
    /// # Errors
    /// If it is not open.
    pub fn take(number: i32) -> Result<Self, PassphraseError> {
        let fd = inherited(number)
            .map_err(|source| PassphraseError::Io { from: format!("descriptor {number}"), source })?;
        Ok(Self { fd, number })
    }

    /// Reads it, and closes it.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn read(self) -> Result<Passphrase, PassphraseError> {
        Passphrase::read(File::from(self.fd), &format!("descriptor {}", self.number))
    }
}

/// The passphrase in `directory`, which systemd names in `CREDENTIALS_DIRECTORY`; none if there is no such file.
///
/// # Errors
/// [`PassphraseError`].
pub fn credential(directory: &Path) -> Result<Option<Passphrase>, PassphraseError> {
    named(directory, PASSPHRASE)
}

/// The password of the SAM bridge: from a descriptor that the supervisor passes, or else the credential in `directory`;
/// none if there is neither.
///
/// # Errors
/// [`PassphraseError`].
pub fn sam_password(
    passed: Option<OwnedFd>,
    directory: Option<&Path>,
) -> Result<Option<Passphrase>, PassphraseError> {
    match (passed, directory) {
        (Some(fd), _) => Passphrase::read(File::from(fd), SAM_PASSWORD).map(Some),
        (None, Some(directory)) => named(directory, SAM_PASSWORD),
        (None, None) => Ok(None),
    }
}

/// The WireGuard private key in a descriptor that the supervisor passes: its 32 bytes.
///
/// # Errors
/// If it holds fewer or more.
pub fn wireguard_key(passed: OwnedFd) -> io::Result<SecretKey> {
    let mut file = File::from(passed);
    let mut key = SecretKey([0; 32]);
    file.read_exact(&mut key.0)?;
    match file.read(&mut [0])? {
        0 => Ok(key),
        _ => Err(io::Error::other("more than a key")),
    }
}

fn named(directory: &Path, name: &str) -> Result<Option<Passphrase>, PassphraseError> {
    let path = directory.join(name);
    let from = path.display().to_string();
    match File::open(&path) {
        Ok(file) => Passphrase::read(file, &from).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PassphraseError::Io { from, source }),
    }
}

/// Asks for the passphrase of keys that are sealed; none if there is no terminal.
///
/// # Errors
/// [`PassphraseError`].
pub async fn ask(interrupted: impl Future) -> Result<Option<Passphrase>, PassphraseError> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    Passphrase::ask("Passphrase of the key store", interrupted).await.map(Some)
}

/// Asks for the passphrase to seal keys with; none if there is no terminal.
///
/// # Errors
/// [`PassphraseError`].
pub async fn ask_new(interrupted: impl Future) -> Result<Option<Passphrase>, PassphraseError> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    Passphrase::ask_new("New passphrase for the key store", interrupted).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_used_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(credential(dir.path()).unwrap().is_none());
        std::fs::write(dir.path().join(PASSPHRASE), "from systemd\n").unwrap();
        assert_eq!(credential(dir.path()).unwrap().unwrap().expose(), b"from systemd");
        std::fs::write(dir.path().join(PASSPHRASE), "\n").unwrap();
        assert!(matches!(credential(dir.path()), Err(PassphraseError::Empty)));
        assert!(sam_password(None, Some(dir.path())).unwrap().is_none());
        assert!(sam_password(None, None).unwrap().is_none());
        std::fs::write(dir.path().join(SAM_PASSWORD), "of the bridge\n").unwrap();
        assert_eq!(sam_password(None, Some(dir.path())).unwrap().unwrap().expose(), b"of the bridge");
        let (reader, writer) = io::pipe().unwrap();
        io::Write::write_all(&mut { writer }, b"passed").unwrap();
        let passed = sam_password(Some(reader.into()), Some(dir.path()));
        assert_eq!(passed.unwrap().unwrap().expose(), b"passed");
    }

    #[test]
    fn a_key_has_32_bytes() {
        let read = |bytes: &[u8]| {
            let (reader, mut writer) = io::pipe().unwrap();
            io::Write::write_all(&mut writer, bytes).unwrap();
            drop(writer);
            wireguard_key(reader.into())
        };
        assert_eq!(read(&[7; 32]).unwrap(), SecretKey([7; 32]));
        assert!(read(&[7; 31]).is_err() && read(&[7; 33]).is_err());
    }
}
