//! `i2planctl peers`.

use std::path::Path;

use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::peer::{render, sort};
use crate::present::table::Rendered;

/// Lists the other members.
///
/// # Errors
/// If the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let mut peers = node.peers().await?;
    sort(&mut peers);
    if json {
        return output::json::print(&serde_json::json!({ "peers": peers }));
    }
    if peers.is_empty() {
        output::note("no other members are known; invite one: `i2planctl invite create`");
        return Ok(());
    }
    let Rendered { text, left_out } = render(&peers, output::terminal_width());
    output::print(&text)?;
    if !left_out.is_empty() {
        output::note(&format!("({} not shown: the terminal is too narrow)", left_out.join(", ")));
    }
    Ok(())
}
