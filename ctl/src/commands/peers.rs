//! `i2planctl peers`.

use std::path::Path;
use std::time::Duration;

use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::api::meshd::{Peer, StaticPeer, Status};
use i2plan_ipc::version::Version;
use i2plan_ipc::{ErrorKind, Node};
use i2plan_present::look::Look;
use i2plan_present::peer::{DataPath, describe, render, sort, summary};
use i2plan_present::static_interface;
use i2plan_present::status::{render_warnings, warnings};
use i2plan_present::table::Rendered;
use i2plan_present::text::clean;
use serde_json::json;
use tokio::time::sleep;

use super::completions;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
A peer is up while its last WireGuard handshake is at most three minutes old. One that is not is away if it has \
said that it shuts down, and unreachable if several members could not reach it. ? is what is not known while this node's \
own session is down or tund does not answer, and - what has not happened since the daemons started. HEARD is its last \
control message, RTT how long its last answer to one took. DROPS are packets that waited too long to be sent to it (tx), \
or came from it and were not accepted (rx). RANGE is shown if a member holds more than one address: others are for nodes \
that it invites.

Examples:
  i2planctl peers
  i2planctl peers web                           # all about one: key, endpoint, inviters
  i2planctl peers --watch

Of an interface with static peers ENDPOINT is where packets for a peer go, and in brackets if the router has not found \
it yet.";

/// How often the list is shown anew.
const INTERVAL: Duration = Duration::from_secs(1);

/// `i2planctl peers`
#[derive(Debug, clap::Args)]
pub struct Peers {
    /// Show all about this member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: Option<String>,

    /// Show all about every member
    #[arg(short, long)]
    pub verbose: bool,

    /// Show the list again every second, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// Lists the other members.
///
/// # Errors
/// If the node does not answer, or there is no such member.
pub async fn run(socket: Option<&Path>, json: bool, dates: bool, args: &Peers) -> Result<(), Failure> {
    if args.watch && json {
        return Err(Failure::usage("--watch shows a list again and again, and --json prints one document")
            .with_hint("follow the node with `i2planctl events --json`"));
    }
    let mut node = daemon::connect(socket).await?;
    if !args.watch {
        let seen = Seen::of(&mut node, args).await?;
        if json {
            return output::json::print(&match &seen.static_peers {
                Some(peers) => json!({ "static_peers": peers }),
                None => json!({ "peers": seen.shown }),
            });
        }
        return seen.print(args, &output::look(dates));
    }
    let mut interrupt = std::pin::pin!(output::interrupt()?);
    while !output::reader_is_gone() {
        let seen = Seen::of(&mut node, args).await?;
        let look = output::look(dates);
        // A pipe gets one list after the other.
        if look.width.is_some() {
            output::print_as_it_is("\x1b[H\x1b[2J")?;
        }
        seen.print(args, &look)?;
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = &mut interrupt => break,
        }
    }
    Ok(())
}

/// What the node has said.
struct Seen {
    status: Status,
    peers: Vec<Peer>,
    /// Those that were asked for.
    shown: Vec<Peer>,
    /// Of an interface with static peers, those that were asked for.
    static_peers: Option<Vec<StaticPeer>>,
}

impl Seen {
    async fn of(node: &mut Node, args: &Peers) -> Result<Self, Failure> {
        let status = node.status().await?;
        if let Some(interface) = &status.static_interface {
            let static_peers = Some(meant(&interface.peers, args.node.as_deref())?);
            return Ok(Self { status, peers: Vec::new(), shown: Vec::new(), static_peers });
        }
        let mut peers = node.peers().await?;
        sort(&mut peers);
        let shown = match &args.node {
            None => peers.clone(),
            Some(text) => {
                let member = node.find_among(&peers, text).await?;
                peers.iter().filter(|peer| peer.node_id == member.node_id).cloned().collect()
            }
        };
        Ok(Self { status, peers, shown, static_peers: None })
    }

    fn print(&self, args: &Peers, look: &Look) -> Result<(), Failure> {
        let Self { status, peers, shown, static_peers } = self;
        // What is wrong explains what stands below it.
        let warnings = warnings(status, &Version::current());
        if !warnings.is_empty() {
            output::note(render_warnings(&warnings, &Look::default()).trim_end());
        }
        let path = DataPath::of(status);
        let in_detail = args.verbose || args.node.is_some();
        if let Some(shown) = static_peers {
            if in_detail {
                let all = shown.iter().map(|peer| static_interface::details(peer, path, look.times));
                return output::print(&all.collect::<Vec<_>>().join("\n"));
            }
            return print_table(
                &static_interface::render_peers(shown, path, look),
                &static_interface::summary(shown, path),
                look,
            );
        }
        if peers.is_empty() {
            output::note(if status.network.is_some() {
                "no other members are known; invite one: `i2planctl invite create`"
            } else {
                "this node is in no network: found one with `i2planctl invite create`, or join one with `i2planctl join`"
            });
            return Ok(());
        }
        if in_detail {
            let all = shown.iter().map(|peer| describe(peer, peers, status, look.times));
            return output::print(&all.collect::<Vec<_>>().join("\n"));
        }
        print_table(&render(shown, path, look), &summary(peers, path), look)
    }
}

fn print_table(Rendered { text, left_out }: &Rendered, summary: &str, look: &Look) -> Result<(), Failure> {
    output::print_as_it_is(text)?;
    if look.width.is_some() {
        output::note(summary);
    }
    if !left_out.is_empty() {
        output::note(&format!("({} not shown: the terminal is too narrow)", left_out.join(", ")));
    }
    Ok(())
}

/// The static peers that are asked for: all, or the one that a text means.
fn meant(peers: &[StaticPeer], text: Option<&str>) -> Result<Vec<StaticPeer>, Failure> {
    let Some(text) = text else { return Ok(peers.to_vec()) };
    match static_interface::find(peers, text)[..] {
        [peer] => Ok(vec![peer.clone()]),
        [] => Err(Failure::new(ErrorKind::NotFound, format!("there is no static peer {}", clean(text)))
            .with_hint("name it by its key, the beginning of that, one of its allowed IPs, or its endpoint")),
        _ => Err(Failure::invalid(format!("{} is the beginning of several keys", clean(text)))
            .with_hint("name it by more of its key")),
    }
}
