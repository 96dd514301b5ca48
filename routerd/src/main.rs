//! `i2plan-routerd`.

use std::path::PathBuf;
use std::process::ExitCode;

use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::daemon::{hardening, logging};
use i2plan_ipc::version::Version;
use i2plan_meshd::config::Config;
use i2plan_routerd::daemon::{Options, now, run};
use i2plan_routerd::seed::fetch;
use i2plan_routerd::{PUBLIC_NETWORK, walls};

const HELP: &str = "\
i2plan-routerd: an I2P router of the node's own, for machines without one

Usage: i2plan-routerd [OPTIONS]

Started by a service manager, or by `i2planctl up --router`. Its SAM bridge is at i2p.sam_address.

Options:
      --config FILE        configuration (default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if it exists)
      --state DIR          state directory (default: $STATE_DIRECTORY, or routerd/ in node.data_dir)
      --fetch-seed         ask I2P's reseed servers and print what they give, as the router itself has it done
  -h, --help
  -V, --version

Exit status: 1 failed; 2 the command line or the configuration is wrong, or there is no seed.

Environment: the configuration's variables, and those of the log: I2PLAN_LOG (error, warn, info, debug, or
target=level,...), I2PLAN_LOG_FORMAT (text, json, journal), DEBUG_I2P, WARNFAIL_I2P, NO_COLOR.
";

/// Exit status for a command line or configuration that cannot be right.
const USAGE: u8 = 2;

/// The id of a private network for tests. In the laboratory's part of the environment, so that nobody sets it by
/// mistake: such a router gives no anonymity.
const NETWORK_VARIABLE: &str = "I2PLAN_LAB_ROUTER_NETWORK";

fn main() -> ExitCode {
    let args = match parse() {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return fail(USAGE, &format!("{error}; see --help")),
    };
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, message)) => fail(status, &message),
    }
}

fn fail(status: u8, message: &str) -> ExitCode {
    eprintln!("i2plan-routerd: {message}");
    Supervisor::of_this_process().status(message);
    ExitCode::from(status)
}

struct Args {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    fetch_seed: bool,
}

fn parse() -> Result<Option<Args>, lexopt::Error> {
    use lexopt::prelude::*;
    let state = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    let mut args = Args { config: None, state, fetch_seed: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") => args.config = Some(parser.value()?.into()),
            Long("state") => args.state = Some(parser.value()?.into()),
            Long("fetch-seed") => args.fetch_seed = true,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Short('V') | Long("version") => {
                println!("i2plan-routerd {}", Version::current());
                return Ok(None);
            }
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(args))
}

fn start(args: Args) -> Result<(), (u8, String)> {
    let usage = |error: &dyn std::fmt::Display| (USAGE, error.to_string());
    let failed = |error: &dyn std::fmt::Display| (1, error.to_string());
    hardening::harden().map_err(|error| failed(&format!("cannot give up privileges: {error}")))?;
    logging::init().map_err(|error| usage(&error))?;
    if args.fetch_seed {
        walls::before_fetching().map_err(|error| failed(&error))?;
        return fetch::run(now()).map_err(|error| failed(&error));
    }
    let config = Config::load(args.config.as_deref()).map_err(|error| usage(&error))?;
    let options = Options {
        state: args.state.unwrap_or_else(|| config.data_dir.join("routerd")),
        network: network().map_err(|error| usage(&error))?,
        sam: config.sam_address,
        port: config.router_port,
        address: config.router_address,
        seed: config.router_seed,
        reseed: config.router_reseed,
        bandwidth: config.router_bandwidth,
        transit: config.router_transit,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(run(options)).map_err(|error| {
        let status = if error.is_about_the_configuration() { USAGE } else { 1 };
        (status, error.to_string())
    })
}

fn network() -> Result<u8, String> {
    let Some(value) = std::env::var_os(NETWORK_VARIABLE) else { return Ok(PUBLIC_NETWORK) };
    match value.to_string_lossy().parse() {
        Ok(id) if id != PUBLIC_NETWORK => Ok(id),
        _ => Err(format!(
            "environment variable {NETWORK_VARIABLE}={value:?}: the id of a private network for tests is expected, \
             0 to 255 and not {PUBLIC_NETWORK}; unset it for the I2P network"
        )),
    }
}
