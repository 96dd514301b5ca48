//! `i2planctl grant`.

use std::path::Path;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::api::meshd::GrantAddresses;
use i2plan_ipc::api::order::OrderTarget;
use i2plan_present::member::describe;
use i2plan_present::text::clean;
use i2plan_present::units;
use serde_json::json;

use super::completions;
use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::values::parse_addresses;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
The member keeps its address and those that it has delegated. It can delegate the new ones to nodes that it invites, \
as soon as it has received its new certificate. A member holds four ranges at most.

Examples:
  i2planctl grant web --addresses 64";

/// `i2planctl grant`
#[derive(Debug, clap::Args)]
pub struct Grant {
    /// The member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: String,

    /// How many more addresses, a power of two
    #[arg(long, value_name = "N", value_parser = parse_addresses)]
    pub addresses: u32,

    /// Do not ask, where that takes an order: more than 256 addresses a day
    #[arg(long)]
    pub yes: bool,
}

/// Delegates more addresses to a member that this node has invited.
///
/// # Errors
/// If there is no such member, this node has not invited it, or has too few addresses left.
pub async fn run(socket: Option<&Path>, json: bool, args: &Grant) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let member = node.find_member(&args.node).await?;
    let request = GrantAddresses { node_id: member.node_id, addresses: args.addresses };
    let text = |target: &OrderTarget| {
        // The record, which has the name, is no part of the evidence.
        let named = orders::meant(target, &args.node).or_else(|failure| match target {
            OrderTarget::Grant { node, .. } if !args.yes => orders::meant(target, &node.to_string()),
            _ => Err(failure),
        })?;
        Ok(format!("{}: this node delegates more than 256 addresses today", describe(&named)))
    };
    let grant = orders::carry_out(&mut node, request, text, &member.name, args.yes).await?.reply;
    if json {
        return output::json::print(&json!({ "grant": grant }));
    }
    output::print(&format!(
        "{} holds {}: {}\n",
        clean(&member.name),
        units::addresses(grant.addresses),
        clean(&grant.ranges.join(", "))
    ))
}
