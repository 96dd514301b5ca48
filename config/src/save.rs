//! How a value gets into the file, and all else in it stays as it is.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::trusted;
use thiserror::Error;

use super::{Config, ConfigError, Location, find, unknown};
use crate::file;

/// The mode of a file that is made.
const MODE: u32 = 0o644;

/// Why a value was not saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// There is no such key.
    #[error("{0}")]
    UnknownKey(String),
    /// The value cannot be that of the key.
    #[error("{key}: {message}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The file cannot be read, or is wrong as it is.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The key stands in the file in a form that is not changed here.
    #[error("{} has {key} in a form that this program does not change: edit it by hand", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Gives a key a value in a file, which is made if it is not there. After a crash at any moment the file holds the old
/// content or the new one.
///
/// # Errors
/// [`SaveError`]; the file is as it was then.
pub fn save(path: &Path, name: &str, value: &str) -> Result<(), SaveError> {
    let key = find(name).ok_or_else(|| SaveError::UnknownKey(unknown(name)))?;
    (key.check)(value).map_err(|message| SaveError::Value { key: key.name, message })?;
    let failed = |source| SaveError::Write { path: path.to_owned(), source };
    let location = Location::new(path.to_owned(), false, PathBuf::new());
    let before = location.read()?;
    Config::from_parts(path, &before, |_| None)?;
    let after = edit(&before, key.parts(), value);
    // What was made is read as it will be: it must say this, and all else as before.
    let entries = |text: &str| -> Vec<_> {
        let entries = file::entries(text).unwrap_or_default().into_iter();
        let mut entries: Vec<_> = entries.map(|entry| (entry.name, entry.value)).collect();
        entries.retain(|(name, _)| name != key.name);
        entries.sort();
        entries
    };
    let written = file::entries(&after).unwrap_or_default();
    let says = written.iter().any(|entry| entry.name == key.name && entry.value.as_deref() == Ok(value));
    let sections =
        |text: &str| entries(text).into_iter().filter(|(_, value)| value.is_ok()).collect::<Vec<_>>();
    if !says || sections(&before) != sections(&after) {
        return Err(SaveError::Form { path: path.to_owned(), key: key.name });
    }
    // It may need another key beside it.
    Config::from_parts(path, &after, |_| None)?;
    replace(path, &after).map_err(failed)
}

/// The text with a key that has this value: in the place of the one that it had, or else in its section.
fn edit(text: &str, (section, name): (&str, &str), value: &str) -> String {
    // A number that would be read back as another text is none: -0, 007.
    let is_plain = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    let value = if is_plain || matches!(value, "true" | "false") {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    };
    if let Some(at) = file::value_of(text, section, name) {
        return format!("{}{value}{}", &text[..at.start], &text[at.end..]);
    }
    let line = format!("{name} = {value}\n");
    let mut at = 0;
    for found in text.split_inclusive('\n') {
        at += found.len();
        let header = found.split('#').next().unwrap_or_default().trim();
        let header = header.strip_prefix('[').and_then(|header| header.strip_suffix(']'));
        if header.is_some_and(|header| header.trim() == section) {
            let gap = if found.ends_with('\n') { "" } else { "\n" };
            return format!("{}{gap}{line}{}", &text[..at], &text[at..]);
        }
    }
    let gap = match text {
        "" => "",
        _ if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}[{section}]\n{line}")
}

/// Puts a file with this text in the place of the one that a path leads to, with its owner and mode; a new one has mode
/// 0644.
///
/// # Errors
/// If it cannot be written, or others than root and the own user can change where the path leads.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let target = match trusted::real_path(path) {
        Err(error) if error.is_not_found() => path.to_owned(),
        found => found.map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))?,
    };
    let parent = target.parent().unwrap_or(Path::new("/"));
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = parent.join(name);
    let found = target.metadata().ok();
    // What a crash has left.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
    let write = || {
        if let Some(found) = &found {
            file.set_permissions(Permissions::from_mode(found.mode() & 0o7777))?;
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (found.uid(), found.gid()) {
                fchown(&file, Some(found.uid()), Some(found.gid()))?;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &target)?;
        File::open(parent)?.sync_all()
    };
    let mut write = write;
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}

/// Makes a file with this text and mode, unless there is one. After a crash it holds the whole text, or is not there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], or why it cannot be written.
pub(crate) fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = parent.join(name);
    // What a crash has left.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    let mut write = || {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Unlike renaming, this fails if there is one.
        std::fs::hard_link(&new, path)
    };
    let result = write();
    std::fs::remove_file(&new)?;
    result?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_put_where_it_belongs() {
        let edit = |text, value| edit(text, ("mesh", "max_peers"), value);
        for (before, after) in [
            ("", "[mesh]\nmax_peers = 7\n"),
            ("# mine", "# mine\n\n[mesh]\nmax_peers = 7\n"),
            ("[node]\nname = 'a'\n", "[node]\nname = 'a'\n\n[mesh]\nmax_peers = 7\n"),
            ("[mesh] # all\n#max_peers = 50\n", "[mesh] # all\nmax_peers = 7\n#max_peers = 50\n"),
            ("[mesh]", "[mesh]\nmax_peers = 7\n"),
            ("[mesh]\nmax_peers=1 # few\n[node]\n", "[mesh]\nmax_peers=7 # few\n[node]\n"),
            ("mesh.max_peers = \"5\"\n", "mesh.max_peers = 7\n"),
            ("mesh = { max_peers = 5 }\n", "mesh = { max_peers = 7 }\n"),
        ] {
            assert_eq!(edit(before, "7"), after, "{before:?}");
        }
    }

    #[test]
    fn a_file_is_changed_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        save(&path, "node.name", "web-1").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[node]\nname = \"web-1\"\n");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        save(&path, "mesh.heartbeat_interval", "45s").unwrap();
        save(&path, "node.name", "web-2").unwrap();
        let text = "[node]\nname = \"web-2\"\n\n[mesh]\nheartbeat_interval = \"45s\"\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for (key, value, says) in [
            ("mesh.max_peers", "0", "mesh.max_peers: "),
            ("mesh.max_pers", "5", "did you mean mesh.max_peers?"),
        ] {
            let error = save(&path, key, value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        // A link stays one.
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink("config.toml", &link).unwrap();
        save(&link, "mesh.max_peers", "5").unwrap();
        assert!(link.symlink_metadata().unwrap().file_type().is_symlink());
        assert!(std::fs::read_to_string(&path).unwrap().contains("max_peers = 5\n"));
        // A file that is wrong already is not made right by the way.
        let before = std::fs::read_to_string(&path).unwrap();
        let error = save(&path, "web.listen", "0.0.0.0:8080").unwrap_err().to_string();
        assert!(error.contains("web.allow_remote"), "it needs other keys beside it: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        std::fs::write(&path, "[nod]\nname = 1\n").unwrap();
        assert!(matches!(save(&path, "node.name", "a"), Err(SaveError::File(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[nod]\nname = 1\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn names_that_look_like_numbers_are_read_back() {
        for name in ["-0", "-07", "007", "7", "-7", "0", "true"] {
            let config =
                Config::from_parts(Path::new("c"), &edit("", ("node", "name"), name), |_| None).unwrap();
            assert_eq!(config.name.as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn any_name_that_can_be_one_is_read_back(name in "[a-zA-Z0-9_.-]{1,63}", before in "(\\[mesh\\]\nmax_peers = 5\n)?(#[a-z ]*\n)?") {
            prop_assume!(name.parse::<i2plan_proto::record::NodeName>().is_ok());
            let text = edit(&before, ("node", "name"), &name);
            let config = Config::from_parts(Path::new("c"), &text, |_| None).unwrap();
            prop_assert_eq!(config.name.as_str(), name);
        }
    }
}
