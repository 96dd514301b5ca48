//! A file of wg-quick(8), and the TOML that it becomes.

use std::net::IpAddr;
use std::path::Path;

use i2plan_config::static_interface::import::Import;
use i2plan_config::static_interface::wg_quick::{is_wg_quick, parse};
use i2plan_config::static_interface::{KeyFileError, StaticConfig, Table, key_text, public_key, sections};
use i2plan_proto::prefix::Prefix;

use crate::{Seeds, seed};

const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Runs the target.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let lines = text.lines().count().max(1);
    match parse(&text, &[ROUTER]) {
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.is_sorted_by_key(|(line, _)| *line));
            for (line, problem) in faults {
                let told = problem.to_string();
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
                assert!(!told.contains(char::is_control), "not one line of text: {told:?}");
                assert!(told.len() < 300 && !problem.remedy().is_empty());
            }
        }
        Ok(file) => {
            assert!(is_wg_quick(&text));
            let private = key_text(&file.interface.private_key.0);
            assert!(!format!("{file:?}").contains(private.as_str()), "the private key is printed");
            assert!(!file.interface.addresses.is_empty());
            check_import(&text, &file);
            let own = public_key(&file.interface.private_key);
            for (at, peer) in file.peers.iter().enumerate() {
                assert_ne!(peer.public_key, own);
                assert_ne!(peer.public_key, file.interface.private_key.0);
                for other in &file.peers[at + 1..] {
                    assert_ne!(peer.public_key, other.public_key);
                    let both = peer.allowed_ips.iter().zip(other.allowed_ips.iter().cycle());
                    assert!(both.clone().all(|(one, other)| !one.overlaps(other)));
                }
                for prefix in &peer.allowed_ips {
                    let captures = prefix.length() <= 1 && prefix.address().is_ipv4()
                        || prefix.overlaps(&Prefix::host(ROUTER));
                    assert!(!captures || file.interface.table != Table::Auto, "{prefix}");
                }
                if let Some(endpoint) = &peer.endpoint {
                    assert_eq!(endpoint.to_string().parse().as_ref(), Ok(endpoint));
                }
            }
        }
    }
}

/// What it becomes in TOML has the same meaning, and no key in it.
fn check_import(text: &str, file: &StaticConfig) {
    let import = Import::new(text, file, None, None, Path::new("/keys"), "wg0");
    let read = |path: &Path| {
        let found = import.keys.iter().find(|(known, _)| known == path);
        found.map(|(_, key)| key.clone()).ok_or_else(|| KeyFileError::NoKey(path.to_owned()))
    };
    let again = sections::parse(&import.toml, Some("wg0"), &[ROUTER], &read).expect("TOML that is right");
    assert_eq!((&again.interface, &again.peers), (&file.interface, &file.peers));
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let private = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    let public = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let b32 = format!("{}.b32.i2p", "a".repeat(52));
    let destination = format!("{}AAAA", "A".repeat(512));
    let interface = format!("[Interface]\nPrivateKey = {private}\nAddress = 10.9.0.1/24, fd09::1/64\n");
    let peer = format!("[Peer]\nPublicKey = {public}\nAllowedIPs = 10.9.0.2/32\nEndpoint = {b32}\n");
    vec![
        seed("empty", ""),
        seed("small", format!("{interface}{peer}")),
        seed(
            "full",
            format!(
                "# a tunnel\n{interface}MTU = 1280\nTable = off\nListenPort = 51820\nFwMark = 0\nSaveConfig = false\n\n\
                 {peer}PresharedKey = {private}\nPersistentKeepalive = 25\n"
            ),
        ),
        seed("destination", format!("{interface}[Peer]\nPublicKey = {public}\nEndpoint = {destination}\n")),
        seed("clearnet", format!("{interface}[Peer]\nPublicKey = {public}\nEndpoint = 203.0.113.7:51820\n")),
        seed("commands", format!("{interface}DNS = 10.9.0.1\nPostUp = x\nPreDown = y\n{peer}")),
        seed("duplicate", format!("{interface}{peer}{peer}")),
        seed(
            "overlap",
            format!("{interface}{peer}[Peer]\nPublicKey = {private}\nAllowedIPs = 10.9.0.0/24\n"),
        ),
        seed(
            "default-route",
            format!("{interface}[Peer]\nPublicKey = {public}\nAllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/0\n"),
        ),
        seed("public-key", format!("[Interface]\nPrivateKey = {public}\nAddress = 10.9.0.1\n{peer}")),
        seed("outside", "PrivateKey = x\n[Peers]\n[Interface\n"),
    ]
}
