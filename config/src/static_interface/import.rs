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
                waiting.push(format!("# {comment}").trim_end().to_owned() + "\n");
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use i2plan_proto::destination::DestinationHash;
    use i2plan_proto::endpoint::Endpoint;
    use proptest::prelude::*;

    use super::super::{InterfaceFile, KeyFileError, clamp, edit, public_key, sections, wg_quick};
    use super::*;

    /// One that `wg genkey` makes.
    const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn key(number: u8) -> String {
        key_text(&public_key(&SecretKey([number; 32]))).to_string()
    }

    fn file() -> String {
        format!(
            "# of the office\n\n#  since May\n[Interface]\nPrivateKey = {PRIVATE} # mine\nAddress = 10.9.0.1/24, fd09::1/64\n\
             #PrivateKey = {PRIVATE}\nListenPort = 1\n# of all\n\n# the second\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.9.0.2/32\nPresharedKey = {PRIVATE}\n\n[Peer]\n# the third\nPublicKey = {}\n",
            key(2),
            key(3)
        )
    }

    fn import(text: &str, directory: &Path) -> Import {
        let content = wg_quick::parse(text, &[]).unwrap();
        Import::new(text, &content, None, Some(Style::Raw), directory, "wg0")
    }

    #[test]
    fn a_file_becomes_toml_with_its_comments_and_without_its_keys() {
        let import = import(&file(), Path::new("/etc/i2plan/static"));
        let expected = format!(
            "# of the office\n# since May\n# mine\n# of all\n[interface]\n\
             private_key_file = \"/etc/i2plan/static/wg0.key\"\naddresses = [\"10.9.0.1/24\", \"fd09::1/64\"]\n\
             style = \"raw\"\n\n# the second\n[[peer]]\npublic_key = \"{}\"\n\
             preshared_key_file = \"/etc/i2plan/static/wg0-peer1.psk\"\nallowed_ips = [\"10.9.0.2/32\"]\n\n# the third\n\
             [[peer]]\npublic_key = \"{}\"\nallowed_ips = []\n",
            key(2),
            key(3)
        );
        assert_eq!(import.toml, expected);
        assert_eq!((import.left_out, import.keys.len()), (vec![7], 2));
    }

    #[test]
    fn files_are_made_and_none_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let import = import(&file(), dir.path());
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        // The last one that is made is in the way: no other is left behind.
        let output = dir.path().join("wg0.toml");
        std::fs::write(&output, "mine").unwrap();
        assert!(matches!(import.write(Some(&output)), Err(ImportError::Exists(path)) if path == output));
        assert_eq!(
            (names(), std::fs::read_to_string(&output).unwrap().as_str()),
            (vec!["wg0.toml".to_owned()], "mine")
        );
        std::fs::remove_file(&output).unwrap();
        import.write(Some(&output)).unwrap();
        assert_eq!(names(), ["wg0-peer1.psk", "wg0.key", "wg0.toml"]);
        for (path, mode) in [("wg0.key", 0o600), ("wg0-peer1.psk", 0o600), ("wg0.toml", 0o644)] {
            let found = dir.path().join(path).metadata().unwrap();
            // As the umask allows.
            assert_eq!((found.mode() & 0o777 & !mode, found.nlink()), (0, 1), "{path}");
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("wg0.key")).unwrap(), format!("{PRIVATE}\n"));
        let content = InterfaceFile::new(output.clone()).load(&[]).unwrap();
        assert_eq!(content.peers, wg_quick::parse(&file(), &[]).unwrap().peers);
        // Keys that are there already stay, and another key is not overwritten.
        std::fs::remove_file(&output).unwrap();
        import.write(Some(&output)).unwrap();
        std::fs::remove_file(&output).unwrap();
        std::fs::write(dir.path().join("wg0.key"), key(2)).unwrap();
        assert!(
            matches!(import.write(Some(&output)), Err(ImportError::Exists(path)) if path.ends_with("wg0.key"))
        );
        assert_eq!(std::fs::read_to_string(dir.path().join("wg0.key")).unwrap(), key(2));
        assert_eq!(names().len(), 2);
    }

    #[test]
    fn a_file_of_a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let import = import(&file(), dir.path());
        let output = dir.path().join("wg0.toml");
        import.write(Some(&output)).unwrap();
        let key = dir.path().join("wg0.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let told = InterfaceFile::new(output).load(&[]).unwrap_err().to_string();
        let says = format!(":6: interface.private_key_file: {} can be read by others", key.display());
        assert!(told.contains(&says), "{told}");
    }

    /// An interface with peers, as a file of wg-quick can have it.
    fn content() -> impl Strategy<Value = StaticConfig> {
        let secret = || any::<[u8; 32]>().prop_map(SecretKey);
        let peer = (
            proptest::option::of(secret()),
            any::<bool>(),
            proptest::option::of(any::<[u8; 32]>().prop_map(|hash| Endpoint::Hash(DestinationHash(hash)))),
            proptest::option::of(any::<u16>()),
        );
        let interface = (
            secret(),
            proptest::collection::vec(1_u8..=254, 1..3),
            proptest::option::of(1280_u16..=7200),
            prop_oneof![Just(Table::Auto), Just(Table::Off), (1_u32..=254).prop_map(Table::Number)],
        );
        (interface, proptest::collection::vec(peer, 1..5)).prop_map(
            |((mut private_key, hosts, mtu, table), peers)| {
                clamp(&mut private_key);
                let address = |host| Prefix::new(IpAddr::from([10, 9, 0, host]), 24);
                let peer = |(number, (preshared_key, has_ips, endpoint, keepalive))| {
                    let four = Prefix::new(IpAddr::from([10, 8, number, 0]), 24);
                    let six = Prefix::new(IpAddr::from([0xfd09_u16, number.into(), 0, 0, 0, 0, 0, 0]), 64);
                    Peer {
                        public_key: public_key(&SecretKey([number; 32])),
                        preshared_key,
                        allowed_ips: if has_ips { vec![four, six] } else { Vec::new() },
                        endpoint,
                        keepalive,
                    }
                };
                StaticConfig {
                    interface: super::super::Interface {
                        name: None,
                        style: None,
                        private_key,
                        addresses: hosts.into_iter().map(address).collect(),
                        mtu,
                        table,
                    },
                    peers: (1..).zip(peers).map(peer).collect(),
                    ignored: Vec::new(),
                }
            },
        )
    }

    /// The text of a file of wg-quick(8) that says this.
    fn written(content: &StaticConfig, comment: &str) -> String {
        let interface = &content.interface;
        let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
        let mut text = format!(
            "[Interface] # {comment}\nPrivateKey = {}\nAddress = {}\n",
            key_text(&interface.private_key.0).as_str(),
            addresses.join(",")
        );
        if let Some(mtu) = interface.mtu {
            text += &format!("MTU = {mtu}\n");
        }
        match interface.table {
            Table::Auto => {}
            Table::Off => text += "Table = off\n",
            Table::Number(number) => text += &format!("Table = {number}\n"),
        }
        for peer in &content.peers {
            text += &format!("# {comment}\n{}", edit::section(peer).as_str());
        }
        text
    }

    proptest! {
        #[test]
        fn the_toml_means_what_the_file_of_wg_quick_does(content in content(), comment in "\\PC{0,60}") {
            let text = written(&content, &comment);
            let parsed = wg_quick::parse(&text, &[]).unwrap();
            prop_assert_eq!(&parsed, &content);
            let import = Import::new(&text, &parsed, None, None, Path::new("/keys"), "wg0");
            let read = |path: &Path| {
                let found = import.keys.iter().find(|(known, _)| known == path);
                found.map(|(_, key)| key.clone()).ok_or_else(|| KeyFileError::NoKey(path.to_owned()))
            };
            let again = sections::parse(&import.toml, Some("wg0"), &[], &read).unwrap();
            prop_assert_eq!(again, content);
            for (_, key) in &import.keys {
                prop_assert!(!import.toml.contains(key_text(&key.0).as_str()));
            }
        }
    }
}
