//! `i2planctl doctor`.
//!
//! * `clock`: whether the time can be right.
//! * `files`: directories, sockets and devices, and who may use them.
//! * `process`: which processes the daemons are.
//! * `router`: the I2P router's SAM bridge.
//! * `sandbox`: what keeps the daemons in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use i2plan_config::{Config, ConfigError};
use i2plan_ipc::api::meshd::{Liveness, Peer, SessionHealth, SessionState, Status};
use i2plan_ipc::bridge::BridgeAddress;
use i2plan_ipc::version::Version;
use i2plan_present::finding::{Finding, Level, render};
use i2plan_present::member::short;
use i2plan_present::peer::is_up;
use i2plan_present::static_interface;
use i2plan_present::status::{
    of_the_addresses, of_the_conflicts, of_the_daemons, of_the_host, of_the_interface, of_the_keys,
    of_the_link, of_the_membership, of_the_sessions,
};
use serde::Serialize;

use self::router::Bridge;
use self::sandbox::Sandbox;
use super::rpc::{self, with_gateway};
use crate::daemon::{self, socket_path};
use crate::failure::Failure;
use crate::output;

mod clock;
mod files;
mod process;
mod router;
mod sandbox;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Works without a node that answers too: it then looks for what keeps it from running. What is said of a daemon's sandbox \
is what the kernel reports in /proc, and for Landlock what the daemon reports. With sudo it sees more.

The exit status is 1 if there is something to fix; findings marked `note` need not be.";

/// `i2planctl doctor`
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Configuration file [default: ~/.i2plan/config.toml, else /etc/i2plan/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the daemons keep their state [default: node.data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Exit status if there is something to fix.
const UNWELL: u8 = 1;

/// A part of its network's addresses that makes a member a deputy of the founder, which can go on inviting.
const DEPUTY_PART: u64 = 64;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    healthy: bool,
    findings: &'a [Finding],
    /// What the kernel says of each daemon that could be looked at.
    #[serde(rename = "walls")]
    sandboxes: &'a HashMap<String, Sandbox>,
}

/// What the node says of itself.
struct Answers {
    status: Status,
    peers: Vec<Peer>,
    /// Which processes answer at the daemons' sockets.
    processes: process::Confirmed,
}

/// Checks the node, whether it answers or not.
///
/// # Errors
/// If the findings cannot be written.
pub async fn run(socket: Option<&Path>, json: bool, args: &Doctor) -> Result<ExitCode, Failure> {
    let socket = socket_path(socket);
    let answers = ask(&socket).await;
    let mut findings = Vec::new();
    let mut sandboxes = HashMap::new();
    let mut of_the_clocks = None;
    let config = Config::load(args.config.as_deref());
    let data_dir =
        args.data_dir.clone().or_else(|| config.as_ref().ok().map(|config| config.data_dir.clone()));
    match &answers {
        Ok(Answers { status, peers, processes }) => {
            let bridge = Bridge::probe(status.sam.address.clone()).await;
            findings.extend(of_the_node(status, &Version::current(), &bridge));
            findings.extend(of_the_members(status, peers));
            findings.extend(
                of_the_conflicts(status)
                    .into_iter()
                    .map(|found| Finding::note("members", found.message, found.hint)),
            );
            findings.extend(of_the_founder(status, peers));
            if status.tunnel.without_ipv6 {
                findings.push(Finding::note(
                    "tun",
                    "IPv6 is switched off on this host: members are reached by IPv4 alone",
                    "if it is to be used, set net.ipv6.conf.all.disable_ipv6 to 0 and restart i2plan-tund",
                ));
            }
            of_the_clocks = clock::compare(peers);
            let (found, in_the_sandbox) = sandbox::look(status, bridge.own_router(), processes);
            sandboxes = found;
            findings.extend(in_the_sandbox);
            // What is wrong with variables here need not be wrong where the node runs.
            if matches!(config, Err(ConfigError::File { .. })) {
                findings.push(of_the_config(&config));
            }
        }
        Err(failure) => {
            let hint = failure.hint.clone().unwrap_or_else(|| "see the log of i2plan-meshd".to_owned());
            findings.push(Finding::problem("node", failure.message.clone(), hint));
            findings.push(of_the_config(&config));
            let address = config.as_ref().map_or(BridgeAddress::DEFAULT, |config| config.sam_address.clone());
            findings.push(of_the_router(&Bridge::probe(address.to_string()).await, false));
        }
    }
    let interface_is_up = answers.is_ok_and(|answers| answers.status.tunnel.interface.is_some());
    findings.extend(files::check(
        &socket,
        data_dir.as_deref(),
        interface_is_up,
        sandbox::common_user(&sandboxes),
    ));
    findings.push(clock::check());
    findings.extend(of_the_clocks);

    // What is to be fixed comes first, and all else in the order in which it was looked for.
    findings.sort_by_key(|finding| finding.level != Level::Problem);

    let healthy = findings.iter().all(|finding| finding.level != Level::Problem);
    if json {
        output::json::print(&Report { healthy, findings: &findings, sandboxes: &sandboxes })?;
    } else {
        output::print_as_it_is(&render(&findings, &output::look(false)))?;
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
}

async fn ask(socket: &Path) -> Result<Answers, Failure> {
    let mut node = daemon::connect(Some(socket)).await?;
    let mut status = node.status().await?;
    status.daemons = with_gateway(&mut node, socket, status.daemons).await;
    let rpcd = rpc::gateway_socket(&mut node, socket).await.zip(rpc::question().ok());
    let processes = process::ask(socket, rpcd).await;
    Ok(Answers { status, peers: node.peers().await?, processes })
}

fn of_the_config(config: &Result<Config, ConfigError>) -> Finding {
    match config {
        Ok(config) if config.path().exists() => {
            Finding::ok("config", format!("{} is valid", config.path().display()))
        }
        Ok(_) => Finding::ok("config", "there is no file: all keys have their defaults"),
        Err(error) => Finding::problem(
            "config",
            error.to_string(),
            "correct it, and see with `i2planctl config check`; no daemon starts with it",
        ),
    }
}

/// What the router's bridge showed. One that the node speaks with need not be in reach from here.
fn of_the_router(bridge: &Bridge, node_speaks_with_it: bool) -> Finding {
    let Bridge { address, version, hangs, wants_login, program } = bridge;
    let hint = format!(
        "start the I2P router and enable its SAM bridge, or i2plan-routerd if there is none; if that is not at \
         {address}, set i2p.sam_address"
    );
    let of_program = program.as_ref().map(|program| format!(", of {program}")).unwrap_or_default();
    match version {
        Ok(version) => {
            let program = of_program;
            Finding::ok("router", format!("SAM {version} at {address}{program}"))
        }
        // This program has no password; whether the node has it shows in its sessions.
        Err(_) if *wants_login && node_speaks_with_it => Finding::ok(
            "router",
            format!("a SAM bridge with a password at {address}{of_program}, with which the node speaks"),
        ),
        Err(_) if *wants_login => Finding::problem(
            "router",
            format!(
                "the SAM bridge at {address}{of_program} wants a user and a password, and the node does not get in"
            ),
            "set i2p.sam_user and i2p.sam_password_file (for services I2PLAN_SAM_USER and keyd's credential \
             sam-password), or switch sam.auth off in the router",
        ),
        Err(error) if *hangs => Finding::problem(
            "router",
            format!("the SAM bridge at {address}{of_program} takes connections, and {error}"),
            "the I2P router hangs or is overloaded: see its log, and restart it",
        ),
        Err(error) if node_speaks_with_it => Finding::note(
            "router",
            format!("the node speaks with the bridge at {address}, and this program cannot: {error}"),
            "run this where the node runs",
        ),
        Err(error) => Finding::problem("router", format!("no SAM bridge at {address}: {error}"), hint),
    }
}

fn of_the_node(status: &Status, own: &Version, bridge: &Bridge) -> Vec<Finding> {
    let sam = &status.sam;
    let is_static = status.static_interface.is_some();
    // A static interface has one.
    let sessions = &[&sam.data, &sam.control][..if is_static { 1 } else { 2 }];
    let speaks = sam.version.is_some() && sessions.iter().any(|session| session.state != SessionState::Down);
    let mut findings = vec![of_the_router(bridge, speaks)];
    let mut warnings = of_the_daemons(status, own);
    // If there is no bridge, that has been said.
    if findings[0].level != Level::Problem {
        if is_static {
            warnings.extend(static_interface::of_the_session(status));
        } else {
            warnings.extend(of_the_sessions(status));
        }
    }
    warnings.extend(static_interface::of_the_peers(status));
    warnings.extend(of_the_membership(status));
    warnings.extend(of_the_keys(status));
    warnings.extend(of_the_addresses(status));
    warnings.extend(of_the_interface(status));
    warnings.extend(of_the_link(status));
    warnings.extend(of_the_host(status));
    findings.extend(warnings.into_iter().map(|found| Finding::problem("node", found.message, found.hint)));
    if findings[0].level == Level::Problem {
        // What the node believes of its sessions is nothing then.
    } else if sessions.iter().all(|session| session.state == SessionState::Up) {
        // One through which nothing comes has been told of.
        if sessions.iter().all(|session| session.health != SessionHealth::Replacing) {
            let up = if is_static { "the session is up" } else { "both sessions are up" };
            findings.push(Finding::ok("router", format!("the I2P tunnels are built: {up}")));
        }
    } else if sessions.iter().any(|session| session.state == SessionState::Opening)
        && status.daemons.iter().all(|daemon| daemon.error.is_none())
    {
        findings.push(Finding::note(
            "router",
            "the router is building I2P tunnels for this node's sessions",
            "wait; a router that has just started needs some minutes",
        ));
    }
    if findings.iter().all(|finding| finding.level != Level::Problem) {
        let network = match &status.network {
            _ if is_static => "an interface with static peers, and no mesh".to_owned(),
            Some(network) => {
                let (name, id) = (&network.name, short(&network.id));
                format!("a member of {name} ({id}), {} members known", network.members)
            }
            None => "in no network yet".to_owned(),
        };
        let node = format!("all daemons answer and are of one build; {network}");
        findings.push(Finding::ok("node", node));
    }
    findings
}

fn of_the_members(status: &Status, peers: &[Peer]) -> Option<Finding> {
    status.network.as_ref()?;
    if status.sam.data.state != SessionState::Up {
        // Handshakes were made, and nothing gets through: what is wrong has been said.
        return None;
    }
    let there = peers.iter().filter(|peer| !peer.banned && peer.liveness != Liveness::Away).count();
    let up = peers.iter().filter(|peer| is_up(peer)).count();
    if there > 0 && up == 0 {
        return Some(Finding::note(
            "members",
            format!("there is no tunnel to any of the {there} members"),
            "`i2planctl peers` shows who was heard; a tunnel is made when there is traffic: `i2planctl ping NAME`",
        ));
    }
    Some(Finding::ok("members", format!("tunnels to {up} of {there} members are up")))
}

/// What a founder is to see to: without its keys no node can be invited from its own addresses.
fn of_the_founder(status: &Status, peers: &[Peer]) -> Option<Finding> {
    let network = status.network.as_ref().filter(|network| network.founder)?;
    let enough = (network.addresses / DEPUTY_PART).max(2);
    let deputy = peers.iter().find(|peer| addresses(peer) >= enough);
    let backup = "keep a backup of this node's data directory, where no one else can read it";
    let (message, hint) = match deputy {
        Some(deputy) => (
            format!("this node has founded its network; {} can invite if it is lost", deputy.name),
            backup.to_owned(),
        ),
        None => (
            "this node has founded its network, and no other member can invite many nodes if it is lost"
                .to_owned(),
            format!("{backup}, and make a member its deputy: `i2planctl grant NODE --addresses {enough}`"),
        ),
    };
    Some(Finding::note("node", message, hint))
}

/// The number of addresses that a member holds.
fn addresses(peer: &Peer) -> u64 {
    let prefixes = peer.ranges.iter().filter_map(|range| range.rsplit_once('/')?.1.parse::<u32>().ok());
    prefixes.map(|prefix| 1u64 << 32u32.saturating_sub(prefix)).sum()
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::{Conflict, Network, Sam, Session, Tunnel};

    use super::router::Program;
    use super::*;

    fn bridge(version: Result<&str, &str>) -> Bridge {
        Bridge {
            address: BridgeAddress::DEFAULT.to_string(),
            version: version.map(str::to_owned).map_err(str::to_owned),
            hangs: false,
            wants_login: false,
            program: Some(Program::new("i2pd", 7)),
        }
    }

    #[test]
    fn a_bridge_is_named_with_its_program() {
        let found = of_the_router(&bridge(Ok("3.2")), false);
        assert_eq!(
            (found.level, found.message.as_str()),
            (Level::Ok, "SAM 3.2 at 127.0.0.1:7656, of i2pd (pid 7)")
        );
        let found = of_the_router(&bridge(Err("nothing listens there")), false);
        assert_eq!(found.level, Level::Problem);
        assert!(found.hint.is_some_and(|hint| hint.contains("i2p.sam_address")));
        // One in another network namespace.
        assert_eq!(of_the_router(&bridge(Err("nothing listens there")), true).level, Level::Note);
        let locked = Bridge { wants_login: true, ..bridge(Err("it wants a user and a password")) };
        let found = of_the_router(&locked, false);
        assert_eq!(found.level, Level::Problem);
        assert!(found.hint.is_some_and(|hint| hint.contains("i2p.sam_user") && !hint.contains("enable")));
        assert_eq!(of_the_router(&locked, true).level, Level::Ok);
        // One that is stopped in the middle of its work: the node's sessions stay open for long.
        let stopped = Bridge { hangs: true, ..bridge(Err("it does not answer within 3 s")) };
        assert_eq!(of_the_router(&stopped, true).level, Level::Problem);
    }

    #[test]
    fn a_wrong_file_is_a_problem_and_none_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[node]\nnmae = \"x\"\n").unwrap();
        let found = of_the_config(&Config::load(Some(&file)));
        assert_eq!(found.level, Level::Problem);
        assert!(found.message.contains("config.toml:2: "), "{}", found.message);
        std::fs::write(&file, "").unwrap();
        assert_eq!(of_the_config(&Config::load(Some(&file))).level, Level::Ok);
    }

    fn founder() -> Status {
        let session = || Session {
            state: SessionState::Up,
            destination: None,
            error: None,
            health: SessionHealth::Fine,
            silent: None,
            over_tcp: false,
        };
        Status {
            name: "alpha".to_owned(),
            node_id: Some("node".to_owned()),
            uptime: 1,
            config: "/etc/i2plan/config.toml".to_owned(),
            network: Some(Network {
                id: "net".to_owned(),
                name: "office".to_owned(),
                founder: true,
                inviters: Vec::new(),
                subnet: "10.42.0.0/16".to_owned(),
                ipv4: "10.42.0.1".parse().unwrap(),
                ipv6: "fd12::1".parse().unwrap(),
                ranges: vec!["10.42.0.0/16".to_owned()],
                addresses: 65_536,
                addresses_left: 65_518,
                displaced_by: None,
                conflicts: Vec::new(),
                members: 2,
            }),
            former: None,
            sam: Sam {
                address: BridgeAddress::DEFAULT.to_string(),
                version: Some("3.2".to_owned()),
                control: session(),
                fallback: None,
                data: session(),
            },
            tunnel: Tunnel {
                interface: Some("i2plan0".to_owned()),
                mtu: 1280,
                public_key: None,
                drops: None,
                overlaps: Vec::new(),
                without_ipv6: false,
                faults: Vec::new(),
            },
            daemons: Vec::new(),
            keys: Vec::new(),
            static_interface: None,
        }
    }

    fn member(ranges: &[&str]) -> Peer {
        Peer {
            node_id: "web".to_owned(),
            name: "web".to_owned(),
            ipv4: "10.42.64.0".parse().unwrap(),
            ipv6: "fd12::2".parse().unwrap(),
            public_key: String::new(),
            endpoint: String::new(),
            ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
            depth: 1,
            inviters: vec!["node".to_owned()],
            member_since: 1_799_000_000,
            signed_at: 0,
            liveness: Liveness::Present,
            banned: false,
            last_heard: None,
            rtt: None,
            last_handshake: None,
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            queue_drops: 0,
            rx_drops: 0,
        }
    }

    #[test]
    fn a_founder_is_advised_to_have_a_backup_and_a_deputy() {
        let found = of_the_founder(&founder(), &[member(&["10.42.64.0/28"])]).unwrap();
        assert_eq!(found.level, Level::Note);
        assert!(found.message.contains("no other member can invite many nodes"), "{}", found.message);
        let hint = found.hint.unwrap();
        assert!(hint.contains("backup") && hint.contains("grant NODE --addresses 1024"), "{hint}");
        // Several ranges count together.
        let deputy = member(&["10.42.64.0/28", "10.42.68.0/22"]);
        let found = of_the_founder(&founder(), &[deputy]).unwrap();
        assert!(found.message.ends_with("web can invite if it is lost"), "{}", found.message);
        assert!(found.hint.is_some_and(|hint| hint.contains("backup") && !hint.contains("grant")));
        let mut other = founder();
        other.network.as_mut().unwrap().founder = false;
        assert_eq!(of_the_founder(&other, &[]), None);
    }

    #[test]
    fn addresses_that_another_keeps_are_a_problem() {
        let mut status = founder();
        let levels = |status: &Status| {
            of_the_node(status, &Version::current(), &bridge(Ok("3.2")))
                .iter()
                .map(|found| found.level)
                .max_by_key(|level| *level as u8)
        };
        assert_eq!(levels(&status), Some(Level::Ok));
        status.network.as_mut().unwrap().conflicts =
            vec![Conflict { node_id: "web".to_owned(), name: None, range: "10.42.64.0/28".to_owned() }];
        assert_eq!(levels(&status), Some(Level::Ok), "a conflict among others is no problem of this node");
        status.network.as_mut().unwrap().displaced_by = Some("web".to_owned());
        assert_eq!(levels(&status), Some(Level::Problem));
    }
}
