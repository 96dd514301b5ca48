//! `i2plan-routerd`.

use std::path::PathBuf;
use std::process::ExitCode;

use i2plan_config::Config;
use i2plan_ipc::bridge::UDP_PORT;
use i2plan_ipc::daemon::program::{self, End, Parsed};
use i2plan_ipc::daemon::{hardening, logging};
use i2plan_ipc::version::build;
use i2plan_routerd::daemon::{self, Options, now, run};
use i2plan_routerd::seed::fetch;
use i2plan_routerd::{PUBLIC_NETWORK, sandbox};

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

/// The id of a private network for tests. In the laboratory's part of the environment, so that nobody sets it by
/// mistake: such a router gives no anonymity.
const NETWORK_VARIABLE: &str = "I2PLAN_LAB_ROUTER_NETWORK";

fn main() -> ExitCode {
    program::run(build!(), "i2plan-routerd", HELP, parse(), start)
}

struct Args {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    fetch_seed: bool,
}

fn parse() -> Result<Parsed<Args>, lexopt::Error> {
    let state = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    let args = Args { config: None, state, fetch_seed: false };
    program::parse(std::env::args_os().skip(1), args, |args, name, parser| {
        match name {
            "config" => args.config = Some(parser.value()?.into()),
            "state" => args.state = Some(parser.value()?.into()),
            "fetch-seed" => args.fetch_seed = true,
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn start(args: Args) -> Result<(), End> {
    hardening::harden()?;
    logging::init()?;
    if args.fetch_seed {
        sandbox::before_fetching()?;
        return fetch::run(now()).map_err(End::failed);
    }
    let config = Config::load(args.config.as_deref())?;
    let options = Options {
        state: args.state.unwrap_or_else(|| config.data_dir.join("routerd")),
        network: network().map_err(End::usage)?,
        sam: daemon::sam(&config.sam_address)?,
        sam_udp_port: config.sam_udp_port.unwrap_or(UDP_PORT),
        port: config.router_port,
        address: config.router_address,
        seed: config.router_seed,
        reseed: config.router_reseed,
        bandwidth: config.router_bandwidth,
        transit: config.router_transit,
    };
    Ok(program::runtime()?.block_on(run(options))?)
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
