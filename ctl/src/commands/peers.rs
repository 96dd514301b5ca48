//! `i2planctl peers`.

use std::path::Path;

use i2plan_ipc::api::meshd::StaticPeer;

use crate::daemon;
use crate::failure::Failure;
use crate::output;
use crate::present::peer::{render, sort};
use crate::present::static_interface;
use crate::present::table::Rendered;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
A peer is up while its last WireGuard handshake is at most three minutes old. One that is not is away if it has \
said that it shuts down, and unreachable if several members could not reach it. HEARD is its last control message, \
RTT how long its last answer to one took. DROPS are packets that waited too long to be sent to it (tx), or came from it \
and were not accepted (rx). RANGE is shown if a member holds more than one address: others are for nodes that it invites.

Of an interface with static peers ENDPOINT is where packets for a peer go, and in brackets if the router has not found \
it yet.";

/// Lists the other members.
///
/// # Errors
/// If the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    if let Some(interface) = node.status().await?.static_interface {
        return list_static(json, &interface.peers);
    }
    let mut peers = node.peers().await?;
    sort(&mut peers);
    if json {
        return output::json::print(&serde_json::json!({ "peers": peers }));
    }
    if peers.is_empty() {
        output::note("no other members are known; invite one: `i2planctl invite create`");
        return Ok(());
    }
    show(&render(&peers, output::terminal_width()))
}

/// Lists the peers of a static interface.
fn list_static(json: bool, peers: &[StaticPeer]) -> Result<(), Failure> {
    if json {
        return output::json::print(&serde_json::json!({ "static_peers": peers }));
    }
    show(&static_interface::render_peers(peers, output::terminal_width()))
}

fn show(Rendered { text, left_out }: &Rendered) -> Result<(), Failure> {
    output::print(text)?;
    if !left_out.is_empty() {
        output::note(&format!("({} not shown: the terminal is too narrow)", left_out.join(", ")));
    }
    Ok(())
}
