//! `i2planctl status`.

use std::path::Path;

use i2plan_ipc::api::meshd::Status;
use i2plan_ipc::version::Version;
use i2plan_present::status::{Warning, render, warnings};
use serde::Serialize;

use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "The exit status is 0 if the node answered, whatever state it is in.";

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a Status,
    warnings: &'a [Warning],
}

/// Shows the state of the node.
///
/// # Errors
/// If the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let status = node.status().await?;
    let warnings = warnings(&status, &Version::current());
    if json {
        output::json::print(&Report { status: &status, warnings: &warnings })
    } else {
        output::print_as_it_is(&render(&status, &warnings, &output::look(false)))
    }
}
