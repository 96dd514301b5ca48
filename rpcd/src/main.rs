//! `i2plan-rpcd`.

use std::path::PathBuf;
use std::process::ExitCode;

use i2plan_config::Config;
use i2plan_ipc::administrator::socket_beside;
use i2plan_ipc::daemon::program::{self, End, Parsed};
use i2plan_ipc::daemon::{activation, hardening, logging};
use i2plan_ipc::paths;
use i2plan_ipc::version::build;
use i2plan_rpcd::server::{Options, run};

/// Exit status where `rpc.enabled` is false. The unit has it in `RestartPreventExitStatus=`: to start it again changes
/// nothing.
const DISABLED: u8 = 3;

const HELP: &str = "\
i2plan-rpcd: JSON-RPC 2.0 and metrics for an i2plan node, over a unix socket and HTTP on loopback

Usage: i2plan-rpcd [OPTIONS]

Started by a service manager or by `i2planctl up`, which hand it its listening socket.

Options:
      --config FILE        configuration (default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if one exists)
      --state DIR          state directory (default: $STATE_DIRECTORY, or rpc/ in node.data_dir)
      --meshd-socket PATH  (default: /run/i2plan/meshd.sock)
      --keyd-socket PATH   where orders go, if rpc.orders is set (default: keyd-control.sock beside meshd's socket)
      --listen PATH        make the listening socket, if none is handed over
  -h, --help
  -V, --version

Environment: the configuration's variables, and I2PLAN_LOG (error, warn, info, debug, or target=level,...).

Exit status: 2 if the command line or the configuration is wrong, 3 if rpc.enabled is false, 1 for other failures.
";

fn main() -> ExitCode {
    program::run(build!(), "i2plan-rpcd", HELP, parse(), start)
}

struct Args {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    meshd: PathBuf,
    keyd: Option<PathBuf>,
    listen: Option<PathBuf>,
}

fn parse() -> Result<Parsed<Args>, lexopt::Error> {
    let args = Args {
        config: None,
        state: std::env::var_os("STATE_DIRECTORY").map(PathBuf::from),
        meshd: paths::system_socket(paths::MESHD_SOCKET),
        keyd: None,
        listen: None,
    };
    program::parse(std::env::args_os().skip(1), args, |args, name, parser| {
        match name {
            "config" => args.config = Some(parser.value()?.into()),
            "state" => args.state = Some(parser.value()?.into()),
            "meshd-socket" => args.meshd = parser.value()?.into(),
            "keyd-socket" => args.keyd = Some(parser.value()?.into()),
            "listen" => args.listen = Some(parser.value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn start(args: Args) -> Result<(), End> {
    hardening::harden()?;
    logging::init()?;
    let config = Config::load(args.config.as_deref())?;
    if !config.rpc_enabled {
        activation::refuse_waiting();
        return Err(End::usage("rpc.enabled is false in the configuration").with_status(DISABLED));
    }
    let listener = activation::listener(args.listen.as_deref())?;
    let state = args.state.unwrap_or_else(|| config.data_dir.join("rpc"));
    let keyd = args.keyd.unwrap_or_else(|| socket_beside(&args.meshd));
    let orders = config.rpc_orders.then_some(keyd);
    let options = Options {
        meshd: args.meshd,
        orders,
        tcp: config.rpc_tcp_address,
        state,
        metrics: config.metrics_listen,
    };
    program::runtime()?.block_on(run(options, listener))
}
