//! `i2planctl version` and `--version`.

use std::path::Path;

use i2plan_ipc::version::Version;
use i2plan_present::status::describe_version;
use serde_json::json;

use super::rpc;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// Prints version, commit and build time.
///
/// # Errors
/// If it cannot be written.
pub fn run(json: bool) -> Result<(), Failure> {
    let version = Version::current();
    if json { output::json::print(&version) } else { output::print(&format!("i2planctl {version}\n")) }
}

/// Prints those of this program and of the daemons that run.
///
/// # Errors
/// If the node does not answer.
pub async fn all(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let socket = daemon::socket_path(socket);
    let mut node = daemon::connect(Some(&socket)).await?;
    let status = node.status().await?;
    let optional = rpc::Optional::of(&mut node, &status, &socket).await;
    let daemons = rpc::with_optional(&optional, status.daemons).await;
    let own = Version::current();
    if json {
        let daemons: Vec<_> = daemons
            .iter()
            .map(|daemon| json!({ "name": daemon.name, "version": daemon.version, "error": daemon.error }))
            .collect();
        return output::json::print(&json!({ "i2planctl": own, "daemons": daemons }));
    }
    let lines: String = daemons.iter().map(describe_version).collect();
    output::print(&format!("i2planctl {own}\n{lines}"))
}
