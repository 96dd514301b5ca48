//! `i2planctl version` and `--version`.

use std::path::Path;

use i2plan_ipc::api::meshd::Daemon;
use i2plan_ipc::version::Version;
use serde_json::json;

use super::rpc;
use super::status::complaint;
use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::text::clean;

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
    let daemons = node.status().await?.daemons;
    let daemons = rpc::with_gateway(&mut node, &socket, daemons).await;
    let own = Version::current();
    if json {
        let daemons: Vec<_> = daemons
            .iter()
            .map(|daemon| json!({ "name": daemon.name, "version": daemon.version, "error": daemon.error }))
            .collect();
        return output::json::print(&json!({ "i2planctl": own, "daemons": daemons }));
    }
    let lines: String = daemons.iter().map(describe).collect();
    output::print(&format!("i2planctl {own}\n{lines}"))
}

fn describe(daemon: &Daemon) -> String {
    let Daemon { name, version, error, .. } = daemon;
    let state = match (version, error) {
        (Some(version), _) => version.to_string(),
        (None, Some(_)) => {
            let complaint = complaint(daemon).unwrap_or_default();
            complaint.strip_prefix(name.as_str()).unwrap_or(&complaint).trim_start().to_owned()
        }
        (None, None) => "does not answer".to_owned(),
    };
    format!("{:<9} {}\n", clean(name), clean(&state))
}
