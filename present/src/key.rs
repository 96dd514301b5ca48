//! The keys of a node.

use std::fmt::Write as _;

use i2plan_ipc::api::meshd::Keys;
use i2plan_ipc::version::utc;

use super::text::clean;

/// Whether the keys are sealed, and the WireGuard key's epoch and validity.
#[must_use]
pub fn render_status(keys: &Keys) -> String {
    let sealed = if keys.sealed { "sealed with a passphrase" } else { "not sealed" };
    let mut out = format!("Node       {}\nKeys       {sealed}\n", clean(&keys.node_id));
    // Writing to a string does not fail.
    let _ = match &keys.wireguard {
        Some(key) => writeln!(
            out,
            "WireGuard  epoch {}, valid from {} until {}",
            key.epoch,
            utc(key.not_before),
            utc(key.not_after)
        ),
        None => writeln!(out, "WireGuard  no key is published yet"),
    };
    out
}

/// The public keys, as lines of labels and values.
#[must_use]
pub fn render_public(keys: &Keys) -> String {
    let none = "none yet";
    let wireguard = keys.wireguard.as_ref().map_or(none, |key| &key.public_key);
    [
        ("node", keys.node_id.as_str()),
        ("control", &keys.control.b32),
        ("destination", &keys.control.base64),
        ("network", keys.network.as_deref().unwrap_or(none)),
        ("wireguard", wireguard),
    ]
    .iter()
    .fold(String::new(), |out, (label, value)| out + &format!("{label:<13}{}\n", clean(value)))
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::{ControlDestination, WireGuardKey};

    use super::*;

    fn keys() -> Keys {
        Keys {
            node_id: "nodeid".to_owned(),
            sealed: true,
            control: ControlDestination { b32: "x.b32.i2p".to_owned(), base64: "AAAA".to_owned() },
            network: None,
            wireguard: None,
        }
    }

    #[test]
    fn a_fresh_node_has_no_wireguard_key() {
        assert_eq!(
            render_status(&keys()),
            "Node       nodeid\nKeys       sealed with a passphrase\nWireGuard  no key is published yet\n"
        );
        assert_eq!(
            render_public(&keys()),
            "node         nodeid\ncontrol      x.b32.i2p\ndestination  AAAA\nnetwork      none yet\n\
             wireguard    none yet\n"
        );
    }

    #[test]
    fn a_member_shows_its_key_and_its_end() {
        let wireguard = Some(WireGuardKey {
            public_key: "key=".to_owned(),
            epoch: 3,
            not_before: 1_800_000_000,
            not_after: 1_800_086_400,
        });
        let keys = Keys { sealed: false, network: Some("networkid".to_owned()), wireguard, ..keys() };
        let text = render_status(&keys);
        assert!(text.contains("Keys       not sealed\n"), "{text}");
        assert!(
            text.ends_with("epoch 3, valid from 2027-01-15T08:00:00Z until 2027-01-16T08:00:00Z\n"),
            "{text}"
        );
        assert!(render_public(&keys).ends_with("network      networkid\nwireguard    key=\n"));
    }
}
