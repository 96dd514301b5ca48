//! Files that nobody but root and the own user can change or put another in the place of.
//!
//! A program that runs as root obeys its configuration and writes its log where it is told. If another user can write to
//! the file, or to a directory on the way to it, that user decides what root does.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use thiserror::Error;

/// Most symbolic links on the way to a file, as for Linux.
const MAX_LINKS: u32 = 40;

/// Most bytes of a file that is read whole. The configuration of an interface with 10,000 static peers has 2 MB.
const MAX_TEXT: u64 = 16 * 1024 * 1024;

/// Permission bits.
const WRITABLE: u32 = 0o022;
const OTHERS: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// Mode of a log file that is made: its group may be given to those who read logs.
const LOG_MODE: u32 = 0o640;

/// Why a file is not used. `path` is it, or the directory or link on the way to it that is wrong.
#[derive(Debug, Error)]
pub enum Untrusted {
    /// It cannot be opened or looked at.
    #[error("{}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, who could change it: `chown {own} {}` if you trust what is there, or use a place \
         of {}",
        path.display(), path.display(), name(*own)
    )]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it has to be.
        own: u32,
    },
    /// Others can write to it.
    #[error(
        "{} can be written to by others than its owner (mode {mode:03o}): `chmod go-w {}` if you trust what is \
         there, or use another place",
        path.display(), path.display()
    )]
    Writable {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others can read it, and it holds a secret.
    #[error(
        "{} can be read by others than its owner (mode {mode:03o}): `chmod go= {}`", path.display(), path.display()
    )]
    Readable {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is of a wrong kind.
    #[error("{} is {found}, and must be a regular file: name another", path.display())]
    Kind {
        /// What.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It has more than one name, in a directory where everybody can give it one.
    #[error("{} has another name elsewhere (a hard link): remove it, or name another", path.display())]
    Link {
        /// What.
        path: PathBuf,
    },
}

impl Untrusted {
    /// Returns whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a configuration file: a regular file of root or the own user, which nobody else can change.
///
/// # Errors
/// [`Untrusted`]; [`Untrusted::Io`] also for what is no UTF-8, or longer than 16 MiB.
pub fn read(path: &Path) -> Result<String, Untrusted> {
    let (path, _) = regular_file(path)?;
    let failed = |source| Untrusted::Io { path: path.clone(), source };
    // No other user can have changed the file since.
    let mut bytes = Vec::new();
    File::open(&path).and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_TEXT {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, "the file is longer than 16 MiB");
        return Err(failed(source));
    }
    decode(bytes).map_err(failed)
}

/// The text of a file.
///
/// # Errors
/// Where it is not UTF-8, and what it may be.
pub fn decode(bytes: Vec<u8>) -> io::Result<String> {
    let is_wide = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    String::from_utf8(bytes).map_err(|error| {
        let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let before = String::from_utf8_lossy(&bytes[..at]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let what = if is_wide {
            "it is UTF-16 text".to_owned()
        } else {
            format!("line {line}, column {column}: the byte 0x{:02x} is not UTF-8", bytes[at])
        };
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}; save the file as UTF-8"))
    })
}

/// Returns where the links of a path lead, through directories that only root and the own user can change.
///
/// # Errors
/// [`Untrusted`].
pub fn real_path(path: &Path) -> Result<PathBuf, Untrusted> {
    regular_file(path).map(|(path, _)| path)
}

/// Opens a file with a secret: as in [`read`], and no other user may read it.
///
/// # Errors
/// [`Untrusted`].
pub fn open_secret(path: &Path) -> Result<File, Untrusted> {
    let (path, found) = regular_file(path)?;
    if found.mode() & OTHERS != 0 {
        return Err(Untrusted::Readable { path, mode: found.mode() & 0o777 });
    }
    File::open(&path).map_err(|source| Untrusted::Io { path, source })
}

fn regular_file(path: &Path) -> Result<(PathBuf, Metadata), Untrusted> {
    let (path, found) = resolve(path)?;
    if !found.is_file() {
        return Err(Untrusted::Kind { path, found: kind(&found) });
    }
    check_owner(&path, &found)?;
    check_mode(&path, &found)?;
    Ok((path, found))
}

/// Opens a log file for appending, and makes it if it is not there. It is no link, device or pipe, and nobody but root and
/// the own user can put one in its place.
///
/// # Errors
/// [`Untrusted`].
pub fn append(path: &Path) -> Result<File, Untrusted> {
    let name =
        path.file_name().ok_or_else(|| Untrusted::Kind { path: path.to_owned(), found: "a directory" })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (directory, found) = resolve(parent)?;
    check_directory(&directory, &found)?;
    // Where everybody can make files, others than the own ones may have been laid there.
    let shared = found.mode() & WRITABLE != 0;
    let path = directory.join(name);
    let failed = |source| Untrusted::Io { path: path.clone(), source };
    // Before it is opened, which does things to a device.
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => return Err(Untrusted::Kind { path, found: kind(&found) }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let harmless = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(&path, flags | harmless, Mode::from_raw_mode(LOG_MODE));
    let file = File::from(file.map_err(|error| failed(error.into()))?);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Untrusted::Kind { path, found: kind(&found) });
    }
    if shared && found.uid() != local_uid() {
        return Err(Untrusted::Owner { path, owner: found.uid(), own: local_uid() });
    }
    if shared && found.nlink() != 1 {
        return Err(Untrusted::Link { path });
    }
    Ok(file)
}

/// Checks that nobody but root and the own user can put anything in the place of what is in a directory.
///
/// # Errors
/// [`Untrusted`].
pub fn directory(path: &Path) -> Result<(), Untrusted> {
    let (path, found) = resolve(path)?;
    check_directory(&path, &found)
}

/// Returns the home directory whose files count: `HOME`, except for root, who may have been left that of another user
/// (`sudo -E`) and then has the one of the user database.
#[must_use]
pub fn home() -> Option<PathBuf> {
    let home = std::env::home_dir();
    if local_uid() != 0 {
        return home;
    }
    let is_roots = |home: &PathBuf| home.metadata().is_ok_and(|found| found.uid() == 0);
    home.filter(is_roots).or_else(|| User::from_uid(Uid::from_raw(0)).ok().flatten().map(|root| root.dir))
}

/// Follows a path to what it leads to, through directories and links that only root and the own user can change.
fn resolve(path: &Path) -> Result<(PathBuf, Metadata), Untrusted> {
    let absolute =
        std::path::absolute(path).map_err(|source| Untrusted::Io { path: path.to_owned(), source })?;
    let mut rest = parts(&absolute);
    let mut found = PathBuf::from("/");
    let mut metadata = look(&found)?;
    let mut links = 0;
    while let Some(part) = rest.pop() {
        check_directory(&found, &metadata)?;
        if part == ".." {
            found.pop();
            metadata = look(&found)?;
            continue;
        }
        let next = found.join(&part);
        let next_metadata = look(&next)?;
        if next_metadata.is_symlink() {
            check_owner(&next, &next_metadata)?;
            links += 1;
            let target = if links > MAX_LINKS { Err(io::Error::from(Errno::LOOP)) } else { next.read_link() };
            let target = target.map_err(|source| Untrusted::Io { path: next, source })?;
            if target.is_absolute() {
                found = PathBuf::from("/");
                metadata = look(&found)?;
            }
            rest.extend(parts(&target));
            continue;
        }
        found = next;
        metadata = next_metadata;
    }
    Ok((found, metadata))
}

/// The names in a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

fn look(path: &Path) -> Result<Metadata, Untrusted> {
    path.symlink_metadata().map_err(|source| Untrusted::Io { path: path.to_owned(), source })
}

/// Others must not be able to put something in the place of what is in this directory. A sticky one lets them do that
/// with what is theirs alone.
fn check_directory(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    if !found.is_dir() {
        return Err(Untrusted::Io { path: path.to_owned(), source: io::ErrorKind::NotADirectory.into() });
    }
    check_owner(path, found)?;
    if found.mode() & STICKY == 0 { check_mode(path, found) } else { Ok(()) }
}

fn check_mode(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    if found.mode() & WRITABLE == 0 {
        return Ok(());
    }
    Err(Untrusted::Writable { path: path.to_owned(), mode: found.mode() & 0o7777 })
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    // Whoever has the root directory can change everything. In a user namespace of an unprivileged user that is root, who
    // has no number there.
    let owner = found.uid();
    if [0, local_uid(), look(Path::new("/"))?.uid()].contains(&owner) {
        return Ok(());
    }
    Err(Untrusted::Owner { path: path.to_owned(), owner, own: local_uid() })
}

fn local_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn name(uid: u32) -> &'static str {
    if uid == 0 { "root's" } else { "root's or your own" }
}

fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_file() => "a regular file",
        () => "a device",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use tempfile::TempDir;

    use super::*;

    const OTHER: u32 = 54_999;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory with a file of each name.
    fn files(names: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "text").unwrap();
            mode(&dir.path().join(name), 0o640);
        }
        dir
    }

    /// The path in an error, below the directory.
    fn culprit(dir: &TempDir, error: &Untrusted) -> String {
        let (Untrusted::Io { path, .. }
        | Untrusted::Owner { path, .. }
        | Untrusted::Writable { path, .. }
        | Untrusted::Readable { path, .. }
        | Untrusted::Kind { path, .. }
        | Untrusted::Link { path }) = error;
        path.strip_prefix(dir.path().canonicalize().unwrap()).unwrap().display().to_string()
    }

    #[test]
    fn what_others_can_write_to_is_not_read() {
        let dir = files(&["file", "open"]);
        let (file, open) = (dir.path().join("file"), dir.path().join("open"));
        assert_eq!(read(&file).unwrap(), "text");
        for bits in [0o660, 0o606] {
            mode(&open, bits);
            let error = read(&open).unwrap_err();
            assert_eq!(culprit(&dir, &error), "open");
            assert!(error.to_string().contains(&format!("(mode {bits:03o}): `chmod go-w /")), "{error}");
        }
        mode(dir.path(), 0o775);
        let error = read(&file).unwrap_err();
        assert!(matches!(error, Untrusted::Writable { mode: 0o775, .. }) && culprit(&dir, &error).is_empty());
        // As /tmp is.
        mode(dir.path(), 0o1777);
        assert_eq!(read(&file).unwrap(), "text");
        assert!(read(&dir.path().join("none")).unwrap_err().is_not_found());
        assert!(matches!(read(dir.path()), Err(Untrusted::Kind { found: "a directory", .. })));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let dir = files(&["file"]);
        let path = dir.path().join("file");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(MAX_TEXT).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MAX_TEXT);
        file.set_len(MAX_TEXT + 1).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.ends_with("file: the file is longer than 16 MiB"), "{error}");
    }

    #[test]
    fn what_belongs_to_others_is_not_read_and_links_are_followed_with_care() {
        if local_uid() != 0 {
            // Giving files away takes root, as in CI.
            return;
        }
        let dir = files(&["file", "theirs"]);
        let [file, theirs, link] = ["file", "theirs", "link"].map(|name| dir.path().join(name));
        chown(&theirs, Some(OTHER), None).unwrap();
        let error = read(&theirs).unwrap_err();
        assert!(
            error.to_string().contains("belongs to user 54999") && error.to_string().contains("`chown 0 /")
        );
        symlink("file", &link).unwrap();
        assert_eq!(read(&link).unwrap(), "text");
        rustix::fs::chownat(
            rustix::fs::CWD,
            &link,
            Some(rustix::fs::Uid::from_raw(OTHER)),
            None,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
        assert_eq!(culprit(&dir, &read(&link).unwrap_err()), "link");

        // A directory of another user on the way, also behind a link and with a way back.
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::fs::copy(&file, home.join("file")).unwrap();
        chown(&home, Some(OTHER), None).unwrap();
        symlink("home/file", dir.path().join("into")).unwrap();
        for path in ["home/file", "into", "home/../file"] {
            assert_eq!(culprit(&dir, &read(&dir.path().join(path)).unwrap_err()), "home", "{path}");
        }
        symlink("round", dir.path().join("round")).unwrap();
        assert!(matches!(read(&dir.path().join("round")), Err(Untrusted::Io { .. })));
    }

    #[test]
    fn a_log_is_a_regular_file_in_a_safe_place() {
        let dir = files(&["file"]);
        let at = |name: &str| dir.path().join(name);
        writeln!(append(&at("new")).unwrap(), "line").unwrap();
        assert_eq!(at("new").metadata().unwrap().mode() & 0o777 & !LOG_MODE, 0);
        writeln!(append(&at("new")).unwrap(), "line").unwrap();
        assert_eq!(std::fs::read_to_string(at("new")).unwrap(), "line\nline\n");

        symlink("file", at("link")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        for (name, kind) in
            [("link", "a symbolic link"), ("dangling", "a symbolic link"), ("fifo", "a named pipe")]
        {
            let error = append(&at(name)).unwrap_err();
            assert!(error.to_string().contains(&format!("/{name} is {kind}, and must be")), "{error}");
        }
        assert!(!at("nothing").exists());
        assert!(matches!(append(Path::new("/dev/null")), Err(Untrusted::Kind { found: "a device", .. })));
        assert!(append(&at("no/file")).unwrap_err().is_not_found());
        for bits in [0o770, 0o707] {
            mode(dir.path(), bits);
            assert!(matches!(append(&at("file")), Err(Untrusted::Writable { .. })));
        }
    }

    #[test]
    fn where_everybody_can_make_files_a_log_is_the_own_users() {
        let dir = files(&["own", "theirs"]);
        mode(dir.path(), 0o1777);
        append(&dir.path().join("own")).unwrap();
        std::fs::hard_link(dir.path().join("own"), dir.path().join("other-name")).unwrap();
        assert!(matches!(append(&dir.path().join("own")), Err(Untrusted::Link { .. })));
        if local_uid() == 0 {
            let theirs = dir.path().join("theirs");
            chown(&theirs, Some(OTHER), None).unwrap();
            // Linux refuses to open it where fs.protected_regular is set.
            let error = append(&theirs).unwrap_err();
            assert!(matches!(error, Untrusted::Owner { owner: OTHER, .. } | Untrusted::Io { .. }), "{error}");
        }
    }
}
