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
use i2plan_ipc::api::meshd::{Peer, Status};
use i2plan_ipc::api::webd::expiry_warning;
use i2plan_ipc::bridge::BridgeAddress;
use i2plan_ipc::version::Version;
use i2plan_present::doctor;
use i2plan_present::finding::{Finding, Level, render, sort};
use i2plan_present::look::now;
use i2plan_present::status::{Warning, of_the_bridge};
use serde::Serialize;

use self::router::Bridge;
use self::sandbox::Sandbox;
use super::rpc::{self, Optional, with_optional};
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
    /// When the certificate of the web pages expires, if there is one.
    expires: Option<u64>,
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
        Ok(Answers { status, peers, processes, expires }) => {
            findings.extend(expires.and_then(|expires| of_the_certificate(expires, now())));
            let bridge = Bridge::probe(status.sam.address.clone()).await;
            let of_the_bridge = of_the_router(&bridge, doctor::speaks(status));
            findings.extend(doctor::examine(status, peers, &Version::current(), Some(of_the_bridge)));
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

    sort(&mut findings);
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
    let optional = Optional::of(&mut node, &status, socket).await;
    status.daemons = with_optional(&optional, status.daemons).await;
    let expires = match &optional.webd {
        Some(webd) => rpc::certificate_expiry(webd).await,
        None => None,
    };
    let rpcd = optional.rpcd.zip(rpc::question().ok());
    let processes = process::ask(socket, rpcd, optional.webd).await;
    Ok(Answers { status, peers: node.peers().await?, processes, expires })
}

/// What is to be said of a certificate of the web pages that expires then.
fn of_the_certificate(expires: u64, now: u64) -> Option<Finding> {
    let level = if expires <= now { Level::Problem } else { Level::Note };
    let hint = "renew it in the files of web.tls_certificate and web.tls_key, then `systemctl reload i2plan-webd`, or \
                send SIGHUP to `i2planctl up`";
    expiry_warning(expires, now).map(|message| Finding::new(level, "webd", message, Some(hint.to_owned())))
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
        Err(error) => {
            let Warning { message, hint } = of_the_bridge(address, Some(error));
            Finding::problem("router", message, hint)
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn a_certificate_is_told_of_before_and_after_it_expires() {
        const DAY: u64 = 24 * 60 * 60;
        let level = |days: u64| of_the_certificate(100 * DAY, days * DAY).map(|found| found.level);
        assert_eq!(
            [85, 86, 99, 100, 200].map(level),
            [None, Some(Level::Note), Some(Level::Note), Some(Level::Problem), Some(Level::Problem)]
        );
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
}
