//! TOML from a file of wg-quick(8), and the keys that go into files of their own.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_ipc::secret::SecretKey;
use i2plan_proto::prefix::Prefix;
use i2plan_proto::sam::session::Style;
use thiserror::Error;
use zeroize::Zeroizing;

use super::wg_quick::{meaning, section_of};
use super::{Peer, StaticConfig, Table, key_text, read_key};
use crate::save::create;

/// Longest run of characters of base64 in a comment that is kept: a key has 43 or more, with or without what fills it up.
const MAX_RUN: usize = 39;

/// Mode of a file with a key, and of one without.
const KEY_MODE: u32 = 0o600;
const MODE: u32 = 0o644;

/// What a file of wg-quick(8) becomes.
#[derive(Debug)]
pub struct Import {
    /// `[interface]` and `[[peer]]`.
    pub toml: String,
    /// The files of keys that it names.
    pub keys: Vec<(PathBuf, SecretKey)>,
    /// Lines with comments that are not kept, because they may hold keys.
    pub left_out: Vec<usize>,
}

/// Why files were not made. None is left behind.
#[derive(Debug, Error)]
pub enum ImportError {
    /// Others could put something in their place.
    #[error(transparent)]
    Directory(#[from] Untrusted),
    /// There is one already.
    #[error("{} exists, and is not overwritten", _0.display())]
    Exists(PathBuf),
    /// One cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Import {
    /// Converts the text of a file, which means `content`. The interface gets this name and this style, if there is one; the
    /// keys' files are in `directory`, and their names begin with `stem`.
    #[must_use]
    pub fn new(
        text: &str,
        content: &StaticConfig,
        name: Option<&str>,
        style: Option<Style>,
        directory: &Path,
        stem: &str,
    ) -> Self {
        let (comments, left_out) = comments(text);
        let mut comments = comments.into_iter();
        let mut above = || comments.next().unwrap_or_default().concat();
        let interface = &content.interface;
        let private = directory.join(format!("{stem}.key"));
        let mut toml = above() + "[interface]\n";
        let mut line = |key: &str, value: &str| {
            // A string takes all.
            let _ = writeln!(toml, "{key} = {value}");
        };
        if let Some(name) = name {
            line("name", &quoted(name));
        }
        line("private_key_file", &quoted(&private.to_string_lossy()));
        line("addresses", &list(&interface.addresses));
        if let Some(mtu) = interface.mtu {
            line("mtu", &mtu.to_string());
        }
        match interface.table {
            Table::Auto => {}
            Table::Off => line("table", "\"off\""),
            Table::Number(number) => line("table", &number.to_string()),
        }
        if let Some(style) = style {
            line("style", &quoted(&style.to_string()));
        }
        let mut keys = vec![(private, interface.private_key.clone())];
        for (peer, number) in content.peers.iter().zip(1..) {
            let preshared = peer.preshared_key.as_ref().map(|key| {
                let path = directory.join(format!("{stem}-peer{number}.psk"));
                keys.push((path.clone(), key.clone()));
                path
            });
            toml = toml + "\n" + &above() + &section(peer, preshared.as_deref());
        }
        Self { toml, keys, left_out }
    }

    /// Writes the keys, and the TOML if it is to be in a file. What exists is not overwritten; a file that holds the key
    /// already stays. Each file is there as a whole or not at all, even after a crash.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn write(&self, output: Option<&Path>) -> Result<(), ImportError> {
        let mut made = Vec::new();
        let result = self.write_all(output, &mut made);
        if result.is_err() {
            for path in made {
                let _ = std::fs::remove_file(path);
            }
        }
        result
    }

    fn write_all(&self, output: Option<&Path>, made: &mut Vec<PathBuf>) -> Result<(), ImportError> {
        let mut write = |path: &Path, text: &str, mode| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            trusted::directory(parent.unwrap_or(Path::new(".")))?;
            match create(path, text, mode) {
                Ok(()) => made.push(path.to_owned()),
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(ImportError::Exists(path.to_owned()));
                }
                Err(source) => return Err(ImportError::Write { path: path.to_owned(), source }),
            }
            Ok(())
        };
        for (path, key) in &self.keys {
            if read_key(path).is_ok_and(|found| found == *key) {
                continue;
            }
            let mut text = Zeroizing::new(String::with_capacity(64));
            text.push_str(&key_text(&key.0));
            text.push('\n');
            write(path, &text, KEY_MODE)?;
        }
        output.map_or(Ok(()), |output| write(output, &self.toml, MODE))
    }
}

/// The section of a peer in TOML.
pub(super) fn section(peer: &Peer, preshared_key_file: Option<&Path>) -> String {
    let mut section = format!("[[peer]]\npublic_key = \"{}\"\n", key_text(&peer.public_key).as_str());
    let mut line = |key: &str, value: &str| {
        // A string takes all.
        let _ = writeln!(section, "{key} = {value}");
    };
    if let Some(path) = preshared_key_file {
        line("preshared_key_file", &quoted(&path.to_string_lossy()));
    }
    line("allowed_ips", &list(&peer.allowed_ips));
    if let Some(endpoint) = &peer.endpoint {
        line("endpoint", &quoted(&endpoint.to_string()));
    }
    if let Some(seconds) = peer.keepalive {
        line("persistent_keepalive", &seconds.to_string());
    }
    section
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(prefixes: &[Prefix]) -> String {
    let prefixes = prefixes.iter().map(|prefix| format!("\"{}/{}\"", prefix.address(), prefix.length()));
    format!("[{}]", prefixes.collect::<Vec<_>>().join(", "))
}

/// The comments of the interface and of each peer, as lines, and the lines of those that are not kept.
fn comments(text: &str) -> (Vec<Vec<String>>, Vec<usize>) {
    let mut of_interface = Vec::new();
    let mut of_peers: Vec<Vec<String>> = Vec::new();
    let mut left_out = Vec::new();
    // Those that belong to the section that comes next, unless more of this one comes.
    let mut waiting: Vec<String> = Vec::new();
    let mut section = None;
    for (line, number) in text.lines().zip(1..) {
        let (before, comment) =
            line.split_once('#').map_or((line, None), |(before, comment)| (before, Some(comment)));
        let next = section_of(meaning(line));
        section = next.or(section);
        if next == Some("Peer") {
            of_peers.push(Vec::new());
        }
        let is_blank = line.trim().is_empty();
        if next.is_some() || section.is_some() && (is_blank || !before.trim().is_empty()) {
            let place = match section {
                Some("Peer") => of_peers.last_mut().unwrap_or(&mut of_interface),
                _ => &mut of_interface,
            };
            place.append(&mut waiting);
        }
        match comment.map(str::trim) {
            Some(comment) if may_hold_key(comment) => left_out.push(number),
            Some(comment) => {
                waiting.push(format!("# {comment}\n").replace("#  ", "# ").replace("# \n", "#\n"))
            }
            None => {}
        }
    }
    let last = if section == Some("Peer") { of_peers.last_mut() } else { None };
    last.unwrap_or(&mut of_interface).append(&mut waiting);
    of_peers.insert(0, of_interface);
    (of_peers, left_out)
}

/// Whether a comment may hold a key, in base64 or in hexadecimal digits, or what no comment of TOML can.
fn may_hold_key(comment: &str) -> bool {
    let of_key = |char: char| char.is_ascii_alphanumeric() || "+/=-_~".contains(char);
    comment.split(|char| !of_key(char)).any(|run| run.len() > MAX_RUN)
        || comment.contains(|char: char| char.is_control() && char != '\t')
}
