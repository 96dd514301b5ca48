//! `i2planctl routes`.

use std::path::Path;

use i2plan_present::route::render;
use i2plan_present::table::Rendered;

use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
HOPS is 0 for this node, 1 for a member that answers it itself, 2 for one that answers through another (VIA) only, and - for \
one that cannot be reached or is banned here. Packets of the tunnel always go directly. RANGE is shown if a member holds more than one \
address.";

/// Shows the routing table.
///
/// # Errors
/// If the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool, dates: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let mut routes = node.routes().await?;
    routes.sort_by_key(|route| (route.ipv4, route.ipv6));
    if json {
        return output::json::print(&serde_json::json!({ "routes": routes }));
    }
    if routes.is_empty() {
        output::note("this node is in no network");
        return Ok(());
    }
    let Rendered { text, left_out } = render(&routes, &output::look(dates));
    output::print_as_it_is(&text)?;
    if !left_out.is_empty() {
        output::note(&format!("({} not shown: the terminal is too narrow)", left_out.join(", ")));
    }
    Ok(())
}
