//! How a peer gets into a file of wg-quick(8) or out of it, and all else in it stays as it is.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use i2plan_ipc::daemon::trusted;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    Peer, Problem, TooManyPeers, WgQuick, WgQuickError, key_of, key_text, load, meaning, parse, section_of,
};
use crate::save::replace;

/// Why a file was not changed.
#[derive(Debug, Error)]
pub enum EditError {
    /// It cannot be read, or is wrong as it is.
    #[error(transparent)]
    File(#[from] WgQuickError),
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

/// Adds a peer to a file. After a crash at any moment the file holds the old content or the new one. Returns what it says.
///
/// # Errors
/// [`EditError`]; the file is as it was then.
pub fn add_peer(path: &Path, peer: &Peer, routers: &[IpAddr]) -> Result<WgQuick, EditError> {
    let mut wanted = load(path, routers)?;
    wanted.peers.push(peer.clone());
    wanted.to_static("").map_err(|source| EditError::TooMany { path: path.to_owned(), source })?;
    save(path, routers, &wanted, |text| Some(with_peer(text, peer)))?;
    Ok(wanted)
}

/// Removes the peer with this public key from a file, as [`add_peer`] adds one.
///
/// # Errors
/// [`EditError`]; the file is as it was then.
pub fn remove_peer(path: &Path, public_key: &[u8; 32], routers: &[IpAddr]) -> Result<WgQuick, EditError> {
    let mut wanted = load(path, routers)?;
    let before = wanted.peers.len();
    wanted.peers.retain(|peer| peer.public_key != *public_key);
    match (before == wanted.peers.len(), wanted.peers.is_empty()) {
        (true, _) => return Err(EditError::NotFound { path: path.to_owned() }),
        (false, true) => return Err(EditError::LastPeer { path: path.to_owned() }),
        (false, false) => {}
    }
    save(path, routers, &wanted, |text| without_peer(text, public_key))?;
    Ok(wanted)
}

/// Changes the text of a file, if it says what is wanted then.
fn save(
    path: &Path,
    routers: &[IpAddr],
    wanted: &WgQuick,
    change: impl FnOnce(&str) -> Option<Zeroizing<String>>,
) -> Result<(), EditError> {
    let form = || EditError::Form { path: path.to_owned() };
    let failed = |source| WgQuickError::Read { path: path.to_owned(), source };
    let before = Zeroizing::new(trusted::read(path).map_err(failed)?);
    let after = change(&before).ok_or_else(form)?;
    let parsed = parse(&after, routers).map_err(|faults| match faults.into_iter().next() {
        Some((_, problem)) => EditError::Peer { path: path.to_owned(), problem },
        None => form(),
    })?;
    let says = |file: &WgQuick| (file.interface.clone(), file.peers.clone());
    if says(&parsed) != says(wanted) {
        return Err(form());
    }
    replace(path, &after).map_err(|source| EditError::Write { path: path.to_owned(), source })
}

/// The text with a peer at its end.
fn with_peer(text: &str, peer: &Peer) -> Zeroizing<String> {
    let Peer { public_key, preshared_key, allowed_ips, endpoint, keepalive } = peer;
    let endpoint = endpoint.as_ref().map(ToString::to_string);
    let allowed = allowed_ips
        .iter()
        .map(|prefix| format!("{}/{}", prefix.address(), prefix.length()))
        .collect::<Vec<_>>()
        .join(", ");
    // All at once: a text that grows leaves keys where it was.
    let room = text.len() + allowed.len() + endpoint.as_ref().map_or(0, String::len) + 512;
    let mut after = Zeroizing::new(String::with_capacity(room));
    after.push_str(text);
    if !text.is_empty() && !text.ends_with('\n') {
        after.push('\n');
    }
    after.push_str("\n[Peer]\nPublicKey = ");
    after.push_str(&key_text(public_key));
    if let Some(key) = preshared_key {
        after.push_str("\nPresharedKey = ");
        after.push_str(&key_text(&key.0));
    }
    after.push_str("\nAllowedIPs = ");
    after.push_str(&allowed);
    if let Some(endpoint) = endpoint {
        after.push_str("\nEndpoint = ");
        after.push_str(&endpoint);
    }
    if let Some(seconds) = keepalive {
        // A string takes all.
        let _ = write!(after, "\nPersistentKeepalive = {seconds}");
    }
    after.push('\n');
    after
}

/// The text without the section of a peer, and without the comment that stands right above it.
fn without_peer(text: &str, public_key: &[u8; 32]) -> Option<Zeroizing<String>> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_header = |line: &str| meaning(line).starts_with('[');
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    let is_key = |line: &str| {
        let (key, value) = meaning(line).split_once('=').unwrap_or_default();
        key.trim().eq_ignore_ascii_case("PublicKey")
            && key_of(value.trim()).is_some_and(|key| key.0 == *public_key)
    };
    let at = lines.iter().position(|line| is_key(line))?;
    let mut start = lines[..at].iter().rposition(|line| is_header(line))?;
    if section_of(meaning(lines[start])) != Some("Peer") {
        return None;
    }
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

    use super::super::public_key;
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
        let after = with_peer(&before, &peer(3));
        assert_eq!(*after, format!("{before}\n{}", section(3)));
        assert_eq!(*without_peer(&after, &peer(3).public_key).unwrap(), before);
        assert_eq!(without_peer(&before, &peer(3).public_key), None);
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
        let without = |number| without_peer(&text, &peer(number).public_key).unwrap().to_string();
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
        let text = with_peer(&interface(), &full);
        assert_eq!(parse(&text, &[]).unwrap().peers, [full]);
    }

    #[test]
    fn a_file_is_changed_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg0.conf");
        let text = format!("{}\n{}", interface(), section(2));
        std::fs::write(&path, &text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let router = [IpAddr::from([10, 1, 2, 3])];
        assert_eq!(add_peer(&path, &peer(3), &router).unwrap().peers.len(), 2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let file = std::fs::read_to_string(&path).unwrap();
        let other = Peer { allowed_ips: vec!["10.9.3.7/32".parse().unwrap()], ..peer(4) };
        let captures = Peer { allowed_ips: vec!["10.1.0.0/16".parse().unwrap()], ..peer(4) };
        for (wrong, says) in [(peer(3), "duplicate"), (other, "overlaps"), (captures, "captures the route")] {
            let error = add_peer(&path, &wrong, &router).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(matches!(remove_peer(&path, &[9; 32], &router), Err(EditError::NotFound { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), file);
        remove_peer(&path, &peer(3).public_key, &router).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let last = remove_peer(&path, &peer(2).public_key, &router);
        assert!(matches!(last, Err(EditError::LastPeer { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
