//! `i2planctl key`.

use std::fmt::Write as _;
use std::path::Path;

use i2plan_ipc::api::meshd::{Keys, RecoverKeys};
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::version::utc;
use serde_json::json;

use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::text::clean;

/// Shows the state of the node's keys.
///
/// # Errors
/// If the node does not answer.
pub async fn status(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let keys = ask(socket).await?;
    if json {
        let wireguard = keys.wireguard.as_ref().map(
            |key| json!({ "epoch": key.epoch, "not_before": key.not_before, "not_after": key.not_after }),
        );
        let value = json!({ "node_id": keys.node_id, "sealed": keys.sealed, "wireguard": wireguard });
        return output::json::print(&value);
    }
    output::print(&render_status(&keys))
}

/// Completes keyd's memory of what this node has delegated.
///
/// # Errors
/// If the node does not answer, nothing was lost, or it was not confirmed.
pub async fn recover(socket: Option<&Path>, json: bool, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let consequences = |_: &OrderTarget| {
        Ok("addresses of members that are not among these may be given out again".to_owned())
    };
    let delegations = orders::carry_out(&mut node, RecoverKeys, consequences, "recover", yes).await?.reply;
    if json {
        return output::json::print(&json!({ "delegations": delegations }));
    }
    output::print(&format!(
        "keyd remembers {delegations} delegations again; the node can certify new members\n"
    ))
}

/// Begins a new epoch of the WireGuard key.
///
/// # Errors
/// If the node does not answer, is in no network, or has just done so.
pub async fn rotate(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let key = node.rotate_key().await?;
    if json {
        return output::json::print(&json!({ "wireguard": key }));
    }
    output::print(&format!(
        "WireGuard  epoch {}, valid from {} until {}\n           {}\n",
        key.epoch,
        utc(key.not_before),
        utc(key.not_after),
        clean(&key.public_key)
    ))
}

/// Prints the public keys.
///
/// # Errors
/// If the node does not answer.
pub async fn export_public(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let keys = ask(socket).await?;
    if json {
        let value = json!({
            "node_id": keys.node_id,
            "control": keys.control,
            "network": keys.network,
            "wireguard_public_key": keys.wireguard.map(|key| key.public_key),
        });
        return output::json::print(&value);
    }
    output::print(&render_public(&keys))
}

async fn ask(socket: Option<&Path>) -> Result<Keys, Failure> {
    let mut node = daemon::connect(socket).await?;
    Ok(node.keys().await?)
}

fn render_status(keys: &Keys) -> String {
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

fn render_public(keys: &Keys) -> String {
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
