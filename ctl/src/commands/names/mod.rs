//! `i2planctl names`.

use std::path::Path;

use clap::Subcommand;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::{Network, Status};
use i2plan_ipc::api::tund::check_interface_name;
#[cfg(target_os = "linux")]
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::names::{MemberLabels, domain, of_members};
use i2plan_present::table::{Column, Rendered, Table};
use i2plan_proto::membership::NetworkName;
use serde_json::json;

use crate::daemon;
use crate::failure::Failure;
use crate::output;

pub mod hosts;
#[cfg(target_os = "linux")]
pub mod resolved;

use hosts::{Hosts, block, change, lines, remove_block, with_block};
#[cfg(target_os = "linux")]
use resolved::Settings;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
A member has the name that it has chosen for itself, in lower case, below NETWORK.internal. Where two members have \
chosen the same, neither has it alone: each name then ends in the member's address, and that form every member has \
always (web-10-42-0-7.office.internal). A name proves nothing of who a member is.

With names.enabled = true, i2plan-named answers for these names at the node's addresses, on this host alone. \
Where systemd-resolved runs, services and `i2planctl up` have it ask there; `names resolvectl` prints the commands for \
that. Where it does not run, `names hosts` makes lines for /etc/hosts.

Examples:
  i2planctl names
  i2planctl names resolvectl
  sudo i2planctl names hosts --write          # for names like web.office.internal; --short for web, too";

const COLUMNS: &[Column] = &[
    Column::text("NAME"),
    Column::text("IPV4"),
    Column::text("IPV6").dispensable(1),
    Column::text("CALLS ITSELF").dispensable(2),
];

/// `i2planctl names`
#[derive(Debug, clap::Args)]
pub struct Names {
    /// What to do in place of listing them.
    #[command(subcommand)]
    pub command: Option<NamesCommand>,
}

/// `i2planctl names …`
#[derive(Debug, Subcommand)]
pub enum NamesCommand {
    /// Have systemd-resolved ask i2plan-named until the interface goes: print the commands, or run them
    #[cfg(target_os = "linux")]
    Resolvectl(Resolvectl),

    /// Print the names as lines of /etc/hosts, write them there, or remove them
    Hosts(Hosts),
}

/// `i2planctl names resolvectl`
#[cfg(target_os = "linux")]
#[derive(Debug, clap::Args)]
pub struct Resolvectl {
    /// Run them, again whenever the interface is made anew or the network changes, and take the settings back at the end
    #[arg(long)]
    pub follow: bool,
}

/// Lists the names of the members, or tells them to the host.
///
/// # Errors
/// If the node does not answer or is in no network, or the file cannot be written.
pub async fn run(socket: Option<&Path>, json: bool, args: &Names) -> Result<(), Failure> {
    if let Some(NamesCommand::Hosts(Hosts { remove: true, interface: Some(interface), file, .. })) =
        &args.command
    {
        return removed(json, remove_block(file, interface)?);
    }
    #[cfg(target_os = "linux")]
    if let Some(NamesCommand::Resolvectl(Resolvectl { follow: true })) = &args.command {
        let mut signals = Signals::new()
            .map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))?;
        let end = async {
            signals.next().await;
        };
        resolved::follow(socket, output::note, end).await;
        return Ok(());
    }
    let mut node = daemon::connect(socket).await?;
    let status = node.status().await?;
    let members = of_members(&status, &node.peers().await?);
    let network = status.network.as_ref().ok_or_else(|| {
        Failure::new(ErrorKind::Conflict, "this node is in no network, so that there are no names")
            .with_hint("join one, or create an invite")
    })?;
    believe(network)?;
    match &args.command {
        None if json => list_json(network, &members),
        None => list(network, &members),
        #[cfg(target_os = "linux")]
        Some(NamesCommand::Resolvectl(_)) => {
            let commands = Settings::of(&status, network)?.to_string();
            if json {
                return output::json::print(&json!({ "commands": commands.lines().collect::<Vec<_>>() }));
            }
            output::print(&commands)
        }
        Some(NamesCommand::Hosts(Hosts { remove: true, file, .. })) => {
            removed(json, remove_block(file, interface(&status)?)?)
        }
        Some(NamesCommand::Hosts(Hosts { write: true, file, short, .. })) => {
            let interface = interface(&status)?;
            let block = block(interface, &lines(network, &members, *short));
            change(file, |text| Some(with_block(text, interface, &block)))?;
            if json {
                return output::json::print(&json!({ "written": members.len() }));
            }
            output::note(&format!(
                "wrote the names of {} members into {}; `names hosts --remove` takes them out, as does the end of \
                 `i2planctl up`",
                members.len(),
                file.display()
            ));
            Ok(())
        }
        Some(NamesCommand::Hosts(Hosts { short, .. })) => {
            let lines = lines(network, &members, *short);
            if json {
                return output::json::print(&json!({ "hosts": lines }));
            }
            output::print(&lines)
        }
    }
}

fn removed(json: bool, removed: bool) -> Result<(), Failure> {
    if json {
        return output::json::print(&json!({ "removed": removed }));
    }
    output::note(if removed { "the names are removed" } else { "there were none" });
    Ok(())
}

fn list_json(network: &Network, members: &[MemberLabels]) -> Result<(), Failure> {
    let names: Vec<_> = members
        .iter()
        .map(|member| {
            json!({
                "name": member.name, "label": member.label(), "full_label": member.full,
                "ipv4": member.ipv4, "ipv6": member.ipv6,
            })
        })
        .collect();
    output::json::print(&json!({ "domain": domain(network), "names": names }))
}

fn list(network: &Network, members: &[MemberLabels]) -> Result<(), Failure> {
    let domain = domain(network);
    let mut table = Table::new(COLUMNS);
    for member in members {
        table.row([
            format!("{}.{domain}", member.label()),
            member.ipv4.to_string(),
            member.ipv6.to_string(),
            member.name.clone(),
        ]);
    }
    let Rendered { text, left_out } = table.render(&output::look(false));
    output::print(&text)?;
    if !left_out.is_empty() {
        output::note(&format!("({} not shown: the terminal is too narrow)", left_out.join(", ")));
    }
    Ok(())
}

/// The interface, which is there.
fn interface(status: &Status) -> Result<&str, Failure> {
    let interface = status.tunnel.interface.as_deref().ok_or_else(|| {
        Failure::new(ErrorKind::Conflict, "the tunnel interface is not up")
            .with_hint("see what `i2planctl status` says of it")
    })?;
    check_interface_name(interface).map_err(|_| unbelievable())?;
    Ok(interface)
}

/// Sees that the network can have the name that a node says it has.
fn believe(network: &Network) -> Result<(), Failure> {
    network.name.parse::<NetworkName>().map(drop).map_err(|_| unbelievable())
}

/// For what a node says that cannot be. A shell and a file that root writes are not to get it.
fn unbelievable() -> Failure {
    Failure::internal("the node says names of its network or interface that these cannot have")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn network(subnet: &str) -> Network {
        Network {
            id: String::new(),
            name: "office".to_owned(),
            founder: true,
            inviters: Vec::new(),
            subnet: subnet.to_owned(),
            ipv4: "10.42.0.1".parse().unwrap(),
            ipv6: "fd12:3456:789a:bc00::a2a:1".parse().unwrap(),
            ranges: Vec::new(),
            addresses: 1,
            addresses_left: 0,
            displaced_by: None,
            conflicts: Vec::new(),
            members: 1,
        }
    }
}
