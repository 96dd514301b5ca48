//! `i2planctl metrics`.

use std::path::Path;

use i2plan_rpcd::metrics::{gather, render};

use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
The format is Prometheus' text format, as node_exporter's textfile collector reads it. To have Prometheus ask the node \
itself, set metrics.listen in the configuration.";

/// Prints the metrics of the node.
///
/// # Errors
/// If the node does not answer, or JSON is asked for.
pub async fn run(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    if json {
        return Err(Failure::usage("metrics are not JSON: they are in Prometheus' text format").with_hint(
            "leave --json out; `i2planctl --json status` and `--json peers` have the same figures",
        ));
    }
    let mut node = daemon::connect(socket).await?;
    let snapshot = gather(&mut node).await?;
    output::print(&render(Some(&snapshot)).finish())
}
