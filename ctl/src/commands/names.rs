//! `i2planctl names`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use i2plan_config::save::replace;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::{Network, Status};
use i2plan_ipc::api::tund::check_interface_name;
use i2plan_ipc::names::{MemberLabels, domain, of_members};
use i2plan_present::table::{Column, Rendered, Table};
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet};
use i2plan_proto::membership::NetworkName;
use serde_json::json;

use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
A member has the name that it has chosen for itself, in lower case, below NETWORK.internal. Where two members have \
chosen the same, neither has it alone: each name then ends in the member's address, and that form every member has \
always (web-10-42-0-7.office.internal). A name proves nothing of who a member is.

With names.enabled = true, i2plan-named answers for these names at the node's addresses, on this host alone. \
`names resolvectl` prints the commands that have systemd-resolved ask it; where that does not run, `names hosts` \
makes lines for /etc/hosts.

Examples:
  i2planctl names
  i2planctl names resolvectl | sudo sh
  sudo i2planctl names hosts --write          # for names like web.office.internal; --short for web, too";

const COLUMNS: &[Column] = &[
    Column::text("NAME"),
    Column::text("IPV4"),
    Column::text("IPV6").dispensable(1),
    Column::text("CALLS ITSELF").dispensable(2),
];

/// The file of the host's own names.
const HOSTS: &str = "/etc/hosts";

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
    /// Print the commands that have systemd-resolved ask i2plan-named, until the interface goes
    Resolvectl,

    /// Print the names as lines of /etc/hosts, write them there, or remove them
    Hosts(Hosts),
}

/// `i2planctl names hosts`
#[derive(Debug, clap::Args)]
pub struct Hosts {
    /// Put them into the file, in a marked block, in place of those that are there
    #[arg(long, conflicts_with = "remove")]
    pub write: bool,

    /// Take the block out of the file
    #[arg(long)]
    pub remove: bool,

    /// Also names without a domain: a member can then have a name that this host looks up elsewhere otherwise
    #[arg(long, conflicts_with = "remove")]
    pub short: bool,

    /// The interface of the node whose block is removed, if the node does not run
    #[arg(long, value_name = "NAME", requires = "remove")]
    pub interface: Option<String>,

    /// The file
    #[arg(long, value_name = "FILE", default_value = HOSTS)]
    pub file: PathBuf,
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
    let mut node = daemon::connect(socket).await?;
    let status = node.status().await?;
    let members = of_members(&status, &node.peers().await?);
    let network = status.network.as_ref().ok_or_else(|| {
        Failure::new(ErrorKind::Conflict, "this node is in no network, so that there are no names")
            .with_hint("join one, or create an invite")
    })?;
    network.name.parse::<NetworkName>().map_err(|_| unbelievable())?;
    match &args.command {
        None if json => list_json(network, &members),
        None => list(network, &members),
        Some(NamesCommand::Resolvectl) => {
            let commands = resolvectl(interface(&status)?, network);
            if json {
                return output::json::print(&json!({ "commands": commands }));
            }
            output::print(&format!("{}\n", commands.join("\n")))
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

/// For what a node says that cannot be. A shell and a file that root writes are not to get it.
fn unbelievable() -> Failure {
    Failure::internal("the node says names of its network or interface that these cannot have")
}

fn resolvectl(interface: &str, network: &Network) -> [String; 2] {
    // Without `~`, a name of one label is looked up in the domain too.
    let mut domains = domain(network);
    for reverse in reverse_domains(network) {
        let _ = write!(domains, " '~{reverse}'");
    }
    [
        format!("resolvectl dns {interface} {} {}", network.ipv4, network.ipv6),
        format!("resolvectl domain {interface} {domains}"),
    ]
}

/// The domains of a network's addresses: as many whole octets, or digits of IPv6, as its prefix has begun.
fn reverse_domains(network: &Network) -> Vec<String> {
    let mut domains = Vec::new();
    if let Ok(subnet) = network.subnet.parse::<Ipv4Subnet>() {
        let octets = usize::from(subnet.prefix().div_ceil(8));
        let step = 1u32 << (32 - 8 * octets);
        let range = subnet.range();
        let mut first = range.first().to_bits();
        while first <= range.last().to_bits() {
            let octets = &first.to_be_bytes()[..octets];
            let labels: Vec<_> = octets.iter().rev().map(ToString::to_string).collect();
            domains.push(format!("{}.in-addr.arpa", labels.join(".")));
            first += step;
        }
    }
    let bytes = &network.ipv6.octets()[..usize::from(IPV6_PREFIX / 8)];
    let digits: Vec<_> = bytes.iter().rev().map(|byte| format!("{:x}.{:x}", byte & 0xf, byte >> 4)).collect();
    domains.push(format!("{}.ip6.arpa", digits.join(".")));
    domains
}

/// Lines for a file of hosts.
fn lines(network: &Network, members: &[MemberLabels], with_short: bool) -> String {
    let domain = domain(network);
    let mut out = String::new();
    for member in members {
        let mut names = String::new();
        for label in member.short.iter().chain([&member.full]) {
            let _ = write!(names, " {label}.{domain}");
        }
        if let Some(short) = member.short.as_ref().filter(|_| with_short) {
            let _ = write!(names, " {short}");
        }
        for address in member.addresses() {
            let _ = writeln!(out, "{address}{names}");
        }
    }
    out
}

fn marks(interface: &str) -> [String; 2] {
    [format!("# i2plan {interface}: begin"), format!("# i2plan {interface}: end")]
}

fn block(interface: &str, lines: &str) -> String {
    let [begin, end] = marks(interface);
    format!("{begin}\n{lines}{end}\n")
}

/// A text without the blocks of this interface. One without an end is left: nobody knows where it ends.
fn without_blocks(text: &str, interface: &str) -> String {
    let [begin, end] = marks(interface);
    let (mut out, mut held) = (String::new(), None::<String>);
    for line in text.split_inclusive('\n') {
        match (&mut held, line.trim_end()) {
            (None, mark) if mark == begin => held = Some(line.to_owned()),
            (None, _) => out.push_str(line),
            (Some(_), mark) if mark == end => held = None,
            (Some(block), _) => block.push_str(line),
        }
    }
    out + &held.unwrap_or_default()
}

fn with_block(text: &str, interface: &str, block: &str) -> String {
    let mut text = without_blocks(text, interface);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + block
}

/// Takes the block of an interface out of a file; whether there was one.
///
/// # Errors
/// If the file cannot be read or written.
pub fn remove_block(file: &Path, interface: &str) -> Result<bool, Failure> {
    change(file, |text| {
        let without = without_blocks(text, interface);
        (without != text).then_some(without)
    })
}

/// Takes the block of an interface out of the host's own file, as far as that can be done.
pub fn remove_at_the_end(interface: &str) {
    if let Err(failure) = remove_block(Path::new(HOSTS), interface) {
        output::note(&failure.to_string());
    }
}

/// Writes a file anew; whether it is another.
fn change(file: &Path, edit: impl FnOnce(&str) -> Option<String>) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| {
        Failure::internal(format!("{}: {error}", file.display())).with_hint(
            "run this as root; where the file is mounted by itself, as in containers, it cannot be replaced",
        )
    };
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(failed)?,
    };
    let Some(changed) = edit(&text).filter(|changed| *changed != text) else { return Ok(false) };
    replace(file, &changed).map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_replaces_its_own_and_leaves_the_rest() {
        let mine = "127.0.0.1 localhost\n";
        let first = with_block(mine, "i2plan0", &block("i2plan0", "10.42.0.1 web\n"));
        assert_eq!(first, format!("{mine}# i2plan i2plan0: begin\n10.42.0.1 web\n# i2plan i2plan0: end\n"));
        let both = with_block(&first, "i2plan1", &block("i2plan1", "10.43.0.1 web\n"));
        let again = with_block(&both, "i2plan0", &block("i2plan0", "10.42.0.2 db\n"));
        assert!(!again.contains("10.42.0.1") && again.contains("10.42.0.2") && again.contains("10.43.0.1"));
        let without = without_blocks(&without_blocks(&again, "i2plan0"), "i2plan1");
        assert_eq!(without, mine);
        assert_eq!(
            with_block("no end", "a", &block("a", "")),
            "no end\n# i2plan a: begin\n# i2plan a: end\n"
        );
    }

    #[test]
    fn what_follows_a_block_without_an_end_stays() {
        let broken = "# i2plan a: begin\n10.42.0.1 web\n127.0.0.1 localhost\n";
        assert_eq!(without_blocks(broken, "a"), broken);
    }

    #[test]
    fn a_file_is_changed_if_it_has_a_block() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        assert!(!remove_block(&file, "a").unwrap());
        assert!(!file.exists());
        std::fs::write(&file, "127.0.0.1 localhost\n# i2plan a: begin\n# i2plan a: end\n").unwrap();
        assert!(remove_block(&file, "a").unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "127.0.0.1 localhost\n");
        assert!(!remove_block(&file, "a").unwrap());
    }

    #[test]
    fn a_name_without_a_domain_is_written_if_it_is_asked_for() {
        let (ipv4, ipv6) = ("10.42.0.7".parse().unwrap(), "fd12::7".parse().unwrap());
        let (name, full) = ("web".to_owned(), "web-10-42-0-7".to_owned());
        let member = MemberLabels { short: Some(name.clone()), name, full, ipv4, ipv6 };
        let network = network("10.42.0.0/16");
        let whole = "web.office.internal web-10-42-0-7.office.internal";
        let written = lines(&network, std::slice::from_ref(&member), false);
        assert_eq!(written, format!("10.42.0.7 {whole}\nfd12::7 {whole}\n"));
        let written = lines(&network, &[member], true);
        assert_eq!(written, format!("10.42.0.7 {whole} web\nfd12::7 {whole} web\n"));
    }

    fn network(subnet: &str) -> Network {
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

    #[test]
    fn systemd_resolved_is_told_where_to_ask_for_what() {
        assert_eq!(
            resolvectl("i2plan0", &network("10.42.0.0/16")),
            [
                "resolvectl dns i2plan0 10.42.0.1 fd12:3456:789a:bc00::a2a:1",
                "resolvectl domain i2plan0 office.internal '~42.10.in-addr.arpa' \
                 '~0.0.c.b.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa'",
            ]
        );
    }

    #[test]
    fn a_subnet_between_two_octets_has_domains_of_whole_ones() {
        let domains = reverse_domains(&network("10.42.4.0/22"));
        let expected = ["4.42.10", "5.42.10", "6.42.10", "7.42.10"].map(|of| format!("{of}.in-addr.arpa"));
        assert_eq!(domains[..4], expected);
        assert_eq!(domains.len(), 5);
        assert_eq!(reverse_domains(&network("10.0.0.0/8"))[0], "10.in-addr.arpa");
        assert_eq!(reverse_domains(&network("192.168.255.248/29")).len(), 9);
    }
}
