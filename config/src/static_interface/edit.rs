//! How a peer gets into the file of an interface or out of it, and all else in it stays as it is.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::wg_quick::{meaning, section_of};
use super::{
    Format, InterfaceFile, Peer, Problem, StaticConfig, StaticConfigError, TooManyPeers, import, key_of,
    key_text,
};
use crate::save::replace;

/// Why a file was not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// It cannot be read, or is wrong as it is.
    #[error(transparent)]
    File(#[from] StaticConfigError),
    /// The peer cannot be one of its peers.
    #[error("{}: {problem}", path.display())]
    Peer {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: Problem,
    },
    /// It would have too many.
    #[error("{}: {source}", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// How many.
        source: TooManyPeers,
    },
    /// It has no such peer.
    #[error("{} has no such peer", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The peer is its only one.
    #[error("{} has no other peer, and an interface has one at least", path.display())]
    LastPeer {
        /// The file.
        path: PathBuf,
    },
    /// The file has a form that is not changed here.
    #[error("{} has a form that this program does not change: edit it by hand", path.display())]
    Form {
        /// The file.
        path: PathBuf,
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

impl InterfaceFile {
    /// Adds a peer. After a crash at any moment the file holds the old content or the new one. TOML names the file of the
    /// preshared key. Returns what the file says then.
    ///
    /// # Errors
    /// [`EditError`]; the file is as it was then.
    pub fn add_peer(
        &self,
        peer: &Peer,
        preshared_key_file: Option<&Path>,
        routers: &[IpAddr],
    ) -> Result<StaticConfig, EditError> {
        let mut wanted = self.load(routers)?;
        wanted.peers.push(peer.clone());
        let too_many = |source| EditError::TooMany { path: self.path.clone(), source };
        wanted.to_static("").map_err(too_many)?;
        self.save(routers, &wanted, |text| {
            let section = match self.format {
                Format::WgQuick => section(peer),
                Format::Toml | Format::Configuration => {
                    Zeroizing::new(import::section(peer, preshared_key_file))
                }
            };
            Some(with_section(text, &section))
        })?;
        Ok(wanted)
    }

    /// Removes the peer with this public key, as [`InterfaceFile::add_peer`] adds one.
    ///
    /// # Errors
    /// [`EditError`]; the file is as it was then.
    pub fn remove_peer(&self, public_key: &[u8; 32], routers: &[IpAddr]) -> Result<StaticConfig, EditError> {
        let mut wanted = self.load(routers)?;
        let before = wanted.peers.len();
        wanted.peers.retain(|peer| peer.public_key != *public_key);
        match (before == wanted.peers.len(), wanted.peers.is_empty()) {
            (true, _) => return Err(EditError::NotFound { path: self.path.clone() }),
            (false, true) => return Err(EditError::LastPeer { path: self.path.clone() }),
            (false, false) => {}
        }
        self.save(routers, &wanted, |text| without_peer(self.format, text, public_key))?;
        Ok(wanted)
    }

    /// Changes the text, if it says what is wanted then.
    fn save(
        &self,
        routers: &[IpAddr],
        wanted: &StaticConfig,
        change: impl FnOnce(&str) -> Option<Zeroizing<String>>,
    ) -> Result<(), EditError> {
        let path = &self.path;
        let form = || EditError::Form { path: path.clone() };
        let before = self.read()?;
        let after = change(&before).ok_or_else(form)?;
        let parsed = self.parse(&after, routers).map_err(|faults| match faults.into_iter().next() {
            // What was put in otherwise than the rest of the file has it.
            Some((_, Problem::Toml(_))) | None => form(),
            Some((_, problem)) => EditError::Peer { path: path.clone(), problem },
        })?;
        if (&parsed.interface, &parsed.peers) != (&wanted.interface, &wanted.peers)
            || other_sections(self.format, &before) != other_sections(self.format, &after)
        {
            return Err(form());
        }
        replace(path, &after).map_err(|source| EditError::Write { path: path.clone(), source })
    }
}

/// What a configuration file says beside the interface.
fn other_sections(format: Format, text: &str) -> Vec<(String, Result<String, String>)> {
    if format != Format::Configuration {
        return Vec::new();
    }
    let entries = crate::file::entries(text).unwrap_or_default().into_iter();
    entries.map(|entry| (entry.name, entry.value)).collect()
}

/// The text with a section at its end.
fn with_section(text: &str, section: &str) -> Zeroizing<String> {
    // All at once: a text that grows leaves keys where it was.
    let mut after = Zeroizing::new(String::with_capacity(text.len() + section.len() + 2));
    after.push_str(text);
    if !text.is_empty() && !text.ends_with('\n') {
        after.push('\n');
    }
    after.push('\n');
    after.push_str(section);
    after
}

/// The section of a peer, as wg-quick(8) has it.
pub(super) fn section(peer: &Peer) -> Zeroizing<String> {
    let Peer { public_key, preshared_key, allowed_ips, endpoint, keepalive } = peer;
    let endpoint = endpoint.as_ref().map(ToString::to_string);
    let allowed = allowed_ips
        .iter()
        .map(|prefix| format!("{}/{}", prefix.address(), prefix.length()))
        .collect::<Vec<_>>()
        .join(", ");
    let room = allowed.len() + endpoint.as_ref().map_or(0, String::len) + 512;
    let mut section = Zeroizing::new(String::with_capacity(room));
    section.push_str("[Peer]\nPublicKey = ");
    section.push_str(&key_text(public_key));
    if let Some(key) = preshared_key {
        section.push_str("\nPresharedKey = ");
        section.push_str(&key_text(&key.0));
    }
    section.push_str("\nAllowedIPs = ");
    section.push_str(&allowed);
    if let Some(endpoint) = endpoint {
        section.push_str("\nEndpoint = ");
        section.push_str(&endpoint);
    }
    if let Some(seconds) = keepalive {
        // A string takes all.
        let _ = write!(section, "\nPersistentKeepalive = {seconds}");
    }
    section.push('\n');
    section
}

/// The text without the section of a peer, and without the comment that stands right above it.
fn without_peer(format: Format, text: &str, public_key: &[u8; 32]) -> Option<Zeroizing<String>> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_header = |line: &str| meaning(line).starts_with('[');
    let is_peer = |line: &str| match format {
        Format::WgQuick => section_of(meaning(line)) == Some("Peer"),
        Format::Toml | Format::Configuration => {
            let name = meaning(line).strip_prefix("[[").and_then(|line| line.strip_suffix("]]"));
            name.is_some_and(|name| name.trim() == "peer")
        }
    };
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let is_key = |line: &str| {
        let (key, value) = meaning(line).split_once('=').unwrap_or_default();
        let is_name = match format {
            Format::WgQuick => key.trim().eq_ignore_ascii_case("PublicKey"),
            Format::Toml | Format::Configuration => key.trim() == "public_key",
        };
        let value = value.trim().trim_matches(['"', '\'']);
        is_name && key_of(value).is_some_and(|key| key.0 == *public_key)
    };
    let at = lines.iter().position(|line| is_key(line))?;
    let mut start = lines[..at].iter().rposition(|line| is_header(line)).filter(|at| is_peer(lines[*at]))?;
    let next = lines[at..].iter().position(|line| is_header(line)).map(|more| at + more);
    let mut end = next.unwrap_or(lines.len());
    // What stands right above a section belongs to it.
    while next.is_some() && is_comment(lines[end - 1]) {
        end -= 1;
    }
    while start > 0 && is_comment(lines[start - 1]) {
        start -= 1;
    }
    // The empty lines between it and what follows, or what is before it.
    while next.is_none() && start > 0 && lines[start - 1].trim().is_empty() {
        start -= 1;
    }
    let mut after = Zeroizing::new(String::with_capacity(text.len()));
    lines[..start].iter().chain(&lines[end..]).for_each(|line| after.push_str(line));
    Some(after)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use i2plan_ipc::secret::SecretKey;

    use super::super::{public_key, wg_quick};
    use super::*;

    /// One that `wg genkey` makes.
    const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

    fn peer(number: u8) -> Peer {
        Peer {
            public_key: public_key(&SecretKey([number; 32])),
            preshared_key: None,
            allowed_ips: vec![format!("10.9.{number}.0/24").parse().unwrap()],
            endpoint: None,
            keepalive: None,
        }
    }

    fn section(number: u8) -> String {
        let key = key_text(&peer(number).public_key);
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.9.{number}.0/24\n", key.as_str())
    }

    fn interface() -> String {
        format!("# of the office\n[Interface]\nPrivateKey = {PRIVATE} # mine\nAddress = 10.9.0.1/24\n")
    }

    #[test]
    fn what_is_added_is_removed_again_and_all_else_stays() {
        let before = format!("{}\n{}", interface(), section(2));
        let after = with_section(&before, &super::section(&peer(3)));
        assert_eq!(*after, format!("{before}\n{}", section(3)));
        assert_eq!(*without_peer(Format::WgQuick, &after, &peer(3).public_key).unwrap(), before);
        assert_eq!(without_peer(Format::WgQuick, &before, &peer(3).public_key), None);
    }

    #[test]
    fn a_peer_goes_with_the_comment_above_it() {
        let text = format!(
            "{}\n# the second\n{}# its own remark\n\n# the third\n{}\n# the fourth\n{}",
            interface(),
            section(2),
            section(3),
            section(4)
        );
        let without =
            |number| without_peer(Format::WgQuick, &text, &peer(number).public_key).unwrap().to_string();
        let expected = format!("{}\n# the third\n{}\n# the fourth\n{}", interface(), section(3), section(4));
        assert_eq!(without(2), expected);
        assert!(without(3).contains("its own remark\n\n# the fourth\n"));
        assert!(without(4).ends_with(&section(3)));
    }

    #[test]
    fn all_that_a_peer_has_is_written() {
        let full = Peer {
            preshared_key: Some(SecretKey([7; 32])),
            allowed_ips: vec!["10.8.0.0/16".parse().unwrap(), "fd09::7/128".parse().unwrap()],
            endpoint: Some(format!("{}.b32.i2p", "a".repeat(52)).parse().unwrap()),
            keepalive: Some(0),
            ..peer(2)
        };
        let text = with_section(&interface(), &super::section(&full));
        assert_eq!(wg_quick::parse(&text, &[]).unwrap().peers, [full]);
    }

    #[test]
    fn a_file_is_changed_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg0.conf");
        let text = format!("{}\n{}", interface(), section(2));
        std::fs::write(&path, &text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let router = [IpAddr::from([10, 1, 2, 3])];
        let file = InterfaceFile::new(path.clone());
        assert_eq!(file.add_peer(&peer(3), None, &router).unwrap().peers.len(), 2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let content = std::fs::read_to_string(&path).unwrap();
        let other = Peer { allowed_ips: vec!["10.9.3.7/32".parse().unwrap()], ..peer(4) };
        let captures = Peer { allowed_ips: vec!["10.1.0.0/16".parse().unwrap()], ..peer(4) };
        for (wrong, says) in [(peer(3), "duplicate"), (other, "overlaps"), (captures, "captures the route")] {
            let error = file.add_peer(&wrong, None, &router).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(matches!(file.remove_peer(&[9; 32], &router), Err(EditError::NotFound { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        file.remove_peer(&peer(3).public_key, &router).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let last = file.remove_peer(&peer(2).public_key, &router);
        assert!(matches!(last, Err(EditError::LastPeer { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn toml_is_changed_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let secret = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, PRIVATE).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path
        };
        let (private, preshared) = (secret("key"), secret("psk"));
        let interface = format!(
            "# mine\n[interface] # this\nprivate_key_file = '{}'\naddresses = ['10.9.0.1/24']\n",
            private.display()
        );
        let old = |number| import::section(&peer(number), None);
        let text = format!(
            "[node]\nname = \"a\"\n\n{interface}\n# the second\n{}\n# of the mesh\n[mesh]\nmax_peers = 5\n",
            old(2)
        );
        let path = dir.path().join("config.toml");
        std::fs::write(&path, &text).unwrap();
        let file = InterfaceFile::configuration(path.clone());
        let content = || std::fs::read_to_string(&path).unwrap();
        let with_key = Peer { preshared_key: key_of(PRIVATE), keepalive: Some(7), ..peer(3) };
        assert_eq!(
            file.add_peer(&with_key, Some(&preshared), &[]).unwrap().peers,
            [peer(2), with_key.clone()]
        );
        assert_eq!(content(), format!("{text}\n{}", import::section(&with_key, Some(&preshared))));
        assert!(!content().contains(PRIVATE));
        // What could not be read back is not written.
        let without_file = file.add_peer(
            &Peer { public_key: peer(4).public_key, allowed_ips: Vec::new(), ..with_key.clone() },
            None,
            &[],
        );
        assert!(matches!(without_file, Err(EditError::Form { .. })), "{without_file:?}");
        let told = file.add_peer(&peer(3), None, &[]).unwrap_err().to_string();
        assert!(told.contains("peer.public_key: this peer is a duplicate of the one on line "), "{told}");
        file.remove_peer(&with_key.public_key, &[]).unwrap();
        assert_eq!(content(), text);
        file.add_peer(&peer(3), None, &[]).unwrap();
        file.remove_peer(&peer(2).public_key, &[]).unwrap();
        assert_eq!(
            content(),
            format!(
                "[node]\nname = \"a\"\n\n{interface}\n# of the mesh\n[mesh]\nmax_peers = 5\n\n{}",
                old(3)
            )
        );
        assert!(matches!(file.remove_peer(&peer(3).public_key, &[]), Err(EditError::LastPeer { .. })));
        // A value of another section changes nothing of the interface.
        crate::save::save(&path, "mesh.max_peers", "7").unwrap();
        assert_eq!(file.load(&[]).unwrap().peers, [peer(3)]);
        // Another form than sections is left to people.
        let inline = format!(
            "peer = [{{ public_key = '{}', allowed_ips = [] }}]\n{interface}",
            key_text(&peer(2).public_key).as_str()
        );
        std::fs::write(&path, &inline).unwrap();
        assert!(matches!(file.add_peer(&peer(3), None, &[]), Err(EditError::Form { .. })));
        assert_eq!(content(), inline);
    }
}
