//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use i2plan_config::Config;
use i2plan_ipc::daemon::program::{self, End, Parsed};
use i2plan_ipc::daemon::{hardening, logging};
use i2plan_ipc::paths;
use i2plan_ipc::version::build;
use i2plan_named::server::run;

/// Exit status where `names.enabled` is false. The unit has it in `RestartPreventExitStatus=`: to start it again changes
/// nothing.
const DISABLED: u8 = 3;

const HELP: &str = "\
i2plan-named: a name server for the host of an i2plan node, which knows the members of its network

Usage: i2plan-named [OPTIONS]

Started by a service manager or by `i2planctl up`, with CAP_NET_BIND_SERVICE, which it gives up once it listens on port
53 of the node's addresses.

Options:
      --config FILE        configuration (default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if one exists)
      --meshd-socket PATH  (default: /run/i2plan/meshd.sock)
  -h, --help
  -V, --version

Environment: the configuration's variables, and I2PLAN_LOG (error, warn, info, debug, or target=level,...).

Exit status: 2 if the command line or the configuration is wrong, 3 if names.enabled is false, 75 if the node has another
address and the next process is to listen there, 1 for other failures.
";

pub(crate) fn main() -> ExitCode {
    program::run(build!(), "i2plan-named", HELP, parse(), start)
}

struct Args {
    config: Option<PathBuf>,
    meshd: PathBuf,
}

fn parse() -> Result<Parsed<Args>, lexopt::Error> {
    let args = Args { config: None, meshd: paths::system_socket(paths::MESHD_SOCKET) };
    program::parse(std::env::args_os().skip(1), args, |args, name, parser| {
        match name {
            "config" => args.config = Some(parser.value()?.into()),
            "meshd-socket" => args.meshd = parser.value()?.into(),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn start(args: Args) -> Result<(), End> {
    hardening::harden()?;
    logging::init()?;
    program::refuse_root()?;
    let config = Config::load(args.config.as_deref())?;
    if !config.names_enabled {
        return Err(End::usage("names.enabled is false in the configuration").with_status(DISABLED));
    }
    program::runtime()?.block_on(run(&args.meshd))
}
