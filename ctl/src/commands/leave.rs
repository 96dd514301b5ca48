//! `i2planctl leave`.

use std::path::Path;

use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd;
use i2plan_ipc::api::order::OrderTarget;
use i2plan_present::text::clean;
use serde_json::json;

use super::confirm::can_ask;
use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
The others are told. The node keeps its identity, and can join this or another network with a new invite.";

/// `i2planctl leave`
#[derive(Debug, clap::Args)]
pub struct Leave {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Leaves the network.
///
/// # Errors
/// If the node is in none, or it was not confirmed.
pub async fn run(socket: Option<&Path>, json: bool, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let status = node.status().await?;
    let Some(network) = &status.network else {
        return Err(Failure::new(ErrorKind::Conflict, "this node is in no network")
            .with_hint("if keyd still signs for one, `i2planctl key forget-network` has it forget that"));
    };
    let name = network.name.clone();
    let consequences = "this node will be out of its network, and forget it: invites, bans and members too; those that \
                        it has invited stay members; to come back it needs a new invite";
    can_ask(yes)?;
    let text = |_: &OrderTarget| Ok(consequences.to_owned());
    let network = orders::carry_out(&mut node, meshd::Leave, text, &status.name, yes).await?.reply;
    if json {
        return output::json::print(&json!({ "left": network }));
    }
    output::print(&format!("left network {} ({})\n", clean(&name), clean(&network)))
}
