//! Memory files that nobody can change any more.

use std::io;
use std::os::fd::OwnedFd;

/// A file with these bytes.
///
/// # Errors
/// If the system has none to give.
#[cfg(target_os = "linux")]
pub(super) fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use rustix::io::Errno;

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(c"i2plan", flags | MemfdFlags::NOEXEC_SEAL) {
        // A kernel before Linux 6.3.
        Err(Errno::INVAL) => memfd_create(c"i2plan", flags)?,
        other => other?,
    };
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

/// There are none.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub(super) fn sealed(_: &[u8]) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What is in such a file, if it is one and not longer than `max` bytes.
///
/// # Errors
/// What is wrong with it.
#[cfg(target_os = "linux")]
pub(super) fn read(file: OwnedFd, max: usize) -> Result<Vec<u8>, String> {
    use std::os::unix::fs::FileExt as _;

    use rustix::fs::{SealFlags, fcntl_get_seals};

    let wanted = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    let seals = fcntl_get_seals(&file).map_err(|_| "it is no memory file".to_owned())?;
    if !seals.contains(wanted) {
        return Err("it is not sealed".to_owned());
    }
    let file = std::fs::File::from(file);
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    let len = usize::try_from(len).ok().filter(|len| *len <= max).ok_or("it is too long")?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_sealed_is_read_and_cannot_be_changed() {
        let file = sealed(b"state").unwrap();
        let mut other = std::fs::File::from(file.try_clone().unwrap());
        assert!(other.write_all(b"x").is_err());
        assert!(other.set_len(1).is_err());
        assert_eq!(read(file.try_clone().unwrap(), 5).unwrap(), b"state");
        assert_eq!(read(file, 4).unwrap_err(), "it is too long");
    }

    #[test]
    fn other_files_are_not_read() {
        let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
        let open = rustix::fs::memfd_create(c"x", flags).unwrap();
        assert_eq!(read(open, 100).unwrap_err(), "it is not sealed");
        let device = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(read(device.into(), 100).unwrap_err(), "it is no memory file");
    }
}
