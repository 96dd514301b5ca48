//! `i2planctl tree`.

use std::path::Path;

use i2plan_ipc::ErrorKind;
use serde_json::json;

use crate::daemon;
use crate::failure::Failure;
use crate::output;
use i2plan_present::tree::{grow, render};

/// What `--help` adds.
pub(crate) const HELP: &str = "\
The founder is at the top; below each member stand those that it has invited. Revoking a member puts those below it out \
too. A member whose record this node has not is shown by the beginning of its node id.";

/// Shows who was invited by whom.
///
/// # Errors
/// If the node does not answer, or is in no network.
pub async fn run(socket: Option<&Path>, json: bool, dates: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let status = node.status().await?;
    if status.network.is_none() {
        return Err(Failure::new(ErrorKind::Conflict, "this node is in no network")
            .with_hint("found one with `i2planctl invite create`, or join one with `i2planctl join`"));
    }
    let tree = grow(&status, &node.peers().await?);
    if json {
        return output::json::print(&json!({ "tree": tree }));
    }
    output::print(&render(&tree, &output::look(dates), usize::MAX))
}
