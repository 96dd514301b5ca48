//! `i2planctl key`.

use std::path::Path;

use i2plan_ipc::api::meshd::{Keys, RecoverKeys};
use i2plan_ipc::api::order::OrderTarget;
use i2plan_ipc::version::utc;
use serde_json::json;

use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::key::{render_public, render_status};
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
