//! `i2planctl whois`.

use std::net::IpAddr;
use std::path::Path;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::Status;
use i2plan_ipc::member::LookupError;
use i2plan_present::owner::{Owner, find};
use i2plan_present::peer::describe;
use serde_json::json;

use super::completions;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Says which member has an address of the network, or holds the range that it is in. A WireGuard key, a destination \
(….b32.i2p), a name or a node id finds the member too.

Examples:
  i2planctl whois 10.42.7.9
  i2planctl whois fd12:3456:789a::a2a:709";

/// `i2planctl whois`
#[derive(Debug, clap::Args)]
pub struct Whois {
    /// The address
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub address: String,
}

/// Says which member has an address.
///
/// # Errors
/// If no known member has it, or the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool, dates: bool, args: &Whois) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let (status, peers) = (node.status().await?, node.peers().await?);
    let asked = args.address.trim();
    let owner = match find(&status, &peers, asked) {
        Some(owner) => owner,
        None => match node.find_among(&peers, asked).await {
            Ok(member) => peers
                .iter()
                .find(|peer| peer.node_id == member.node_id)
                .map(Owner::Member)
                .ok_or_else(|| Failure::internal("the member that was found is gone"))?,
            Err(LookupError::ThisNode { .. }) => Owner::Local,
            Err(LookupError::Unknown { .. }) => return Err(unknown(&status, asked)),
            Err(error) => return Err(error.into()),
        },
    };
    let look = output::look(dates);
    let (member, holds) = match owner {
        Owner::Local | Owner::LocalHolder => (None, owner == Owner::LocalHolder),
        Owner::Member(peer) => (Some(peer), false),
        Owner::Holder(peer) => (Some(peer), true),
    };
    if json {
        return output::json::print(
            &json!({ "member": member, "this_node": member.is_none(), "unused": holds }),
        );
    }
    if holds {
        output::note(&format!(
            "no known member has {asked}: it can be given to a node that this one invites"
        ));
    }
    match member {
        Some(peer) => output::print(&describe(peer, &peers, &status, look.times)),
        None => output::print(&format!("this node, {}\n", status.name)),
    }
}

fn unknown(status: &Status, asked: &str) -> Failure {
    let hint = match (&status.network, asked.parse::<IpAddr>()) {
        (None, _) => "this node is in no network".to_owned(),
        (Some(network), Ok(IpAddr::V4(_))) => {
            format!("the network has {}; `i2planctl peers` lists its members", network.subnet)
        }
        _ => "`i2planctl peers` lists the members".to_owned(),
    };
    Failure::new(ErrorKind::NotFound, format!("no member has {asked:?}")).with_hint(hint)
}
