//! `i2plan-rpcd`.

use std::path::PathBuf;
use std::process::ExitCode;

use i2plan_ipc::daemon::{activation, hardening, logging};
use i2plan_ipc::version::Version;
use i2plan_meshd::config::Config;
use i2planctl::rpc::server::{Options, run};

const HELP: &str = "\
i2plan-rpcd: JSON-RPC 2.0 for an i2plan node, over a unix socket and HTTP on loopback

Usage: i2plan-rpcd [OPTIONS]

Started by a service manager or by `i2planctl up`, which hand it its listening socket.

Options:
      --config FILE        configuration (default: /etc/i2plan/config.toml, if it exists)
      --state DIR          state directory (default: $STATE_DIRECTORY, or rpc/ in node.data_dir)
      --meshd-socket PATH  (default: /run/i2plan/meshd.sock)
      --listen PATH        make the listening socket, if none is handed over
  -h, --help
  -V, --version

Environment: the configuration's variables, and I2PLAN_LOG (error, warn, info, debug, or target=level,...).
";

/// Exit status for a command line or configuration that cannot be right.
const USAGE: u8 = 2;

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
    eprintln!("i2plan-rpcd: {message}");
    ExitCode::from(status)
}

struct Args {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    meshd: PathBuf,
    listen: Option<PathBuf>,
}

fn parse() -> Result<Option<Args>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut args = Args {
        config: None,
        state: std::env::var_os("STATE_DIRECTORY").map(PathBuf::from),
        meshd: "/run/i2plan/meshd.sock".into(),
        listen: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") => args.config = Some(parser.value()?.into()),
            Long("state") => args.state = Some(parser.value()?.into()),
            Long("meshd-socket") => args.meshd = parser.value()?.into(),
            Long("listen") => args.listen = Some(parser.value()?.into()),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Short('V') | Long("version") => {
                println!("i2plan-rpcd {}", Version::current());
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
    let config = Config::load(args.config.as_deref()).map_err(|error| usage(&error))?;
    if !config.rpc_enabled {
        return Err(usage(&"rpc.enabled is false in the configuration"));
    }
    let listener = activation::listener(args.listen.as_deref()).map_err(|error| usage(&error))?;
    let state = args.state.unwrap_or_else(|| config.data_dir.join("rpc"));
    let options = Options { meshd: args.meshd, tcp: config.rpc_tcp_address, state };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(run(listener, options)).map_err(|error| failed(&error))
}
