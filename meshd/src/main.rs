//! `i2plan-meshd`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use i2plan_config::Config;
use i2plan_ipc::Role;
use i2plan_ipc::client::Endpoint;
use i2plan_ipc::daemon::program::{self, End, Parsed};
use i2plan_ipc::daemon::{activation, hardening, logging, users};
use i2plan_ipc::paths;
use i2plan_ipc::version::build;
use i2plan_meshd::shell::daemon::{Options, run};
use i2plan_meshd::shell::event_log::EventLog;
use i2plan_meshd::shell::static_interface;
use i2plan_proto::sam::session::Style;
use lexopt::ValueExt as _;

const HELP: &str = "\
i2plan-meshd: SAM sessions, gossip, invites and the control API of an i2plan node

Usage: i2plan-meshd [OPTIONS]

Started by a service manager or by `i2planctl up`, which hand it its listening socket.

Options:
      --config FILE        configuration (default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if it exists)
      --state DIR          state directory (default: $STATE_DIRECTORY, or meshd/ in node.data_dir)
      --keyd-socket PATH   (default: /run/i2plan/keyd-meshd.sock)
      --tund-socket PATH   (default: /run/i2plan/tund.sock)
      --named-user USER    user of named, by name or number, who may look and change nothing (default: i2plan-names, if
                           it exists)
      --listen PATH        make the listening socket, if none is handed over
      --static STYLE       keep the session of an interface with static peers, in the style repliable or raw, and run no
                           mesh
  -h, --help
  -V, --version

Exit status: 1 failed; 2 the command line or the configuration is wrong.

Environment: the configuration's variables, and those of the log: I2PLAN_LOG (error, warn, info, debug, or
target=level,...), I2PLAN_LOG_FORMAT (text, json, journal), DEBUG_I2P, WARNFAIL_I2P, NO_COLOR.
SIGHUP: reads the configuration again.
";

fn main() -> ExitCode {
    program::run(build!(), "i2plan-meshd", HELP, parse(), start)
}

struct Args {
    config: Option<PathBuf>,
    state: Option<PathBuf>,
    keyd: PathBuf,
    tund: PathBuf,
    named: String,
    listen: Option<PathBuf>,
    static_style: Option<Style>,
}

fn parse() -> Result<Parsed<Args>, lexopt::Error> {
    let args = Args {
        config: None,
        state: std::env::var_os("STATE_DIRECTORY").map(PathBuf::from),
        keyd: paths::system_socket(paths::KEYD_MESHD_SOCKET),
        tund: paths::system_socket(paths::TUND_SOCKET),
        named: "i2plan-names".to_owned(),
        listen: None,
        static_style: None,
    };
    program::parse(std::env::args_os().skip(1), args, |args, name, parser| {
        match name {
            "config" => args.config = Some(parser.value()?.into()),
            "state" => args.state = Some(parser.value()?.into()),
            "keyd-socket" => args.keyd = parser.value()?.into(),
            "tund-socket" => args.tund = parser.value()?.into(),
            "named-user" => args.named = parser.value()?.string()?,
            "listen" => args.listen = Some(parser.value()?.into()),
            "static" => args.static_style = Some(parser.value()?.parse()?),
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn start(args: Args) -> Result<(), End> {
    hardening::harden()?;
    let mut run_id = [0; 8];
    getrandom::fill(&mut run_id).map_err(End::failed)?;
    // Below 2^53, where a program that has no other numbers than JavaScript's knows it exactly.
    let event_log = Arc::new(EventLog::new(u64::from_ne_bytes(run_id) >> 11));
    let followed = Arc::clone(&event_log);
    logging::init_with(move |line| followed.push_line(line))?;
    let config = Config::load(args.config.as_deref())?;
    for note in config.notes() {
        tracing::warn!("{note}");
    }
    if config.has_interface() && args.static_style.is_none() {
        tracing::warn!(
            "the interface with static peers in the configuration is not run: this is a member of a mesh"
        );
    }
    let listener = activation::listener(args.listen.as_deref())?;
    let state = args.state.unwrap_or_else(|| config.data_dir.join("meshd"));
    let keyd = Endpoint::resolved(&args.keyd, Role::Keyd);
    let tund = Endpoint::resolved(&args.tund, Role::Tund);
    let named = users::user_id(&args.named).ok();
    let options = Options { config, state, keyd, tund, named, event_log };
    let runtime = program::runtime()?;
    match args.static_style {
        Some(style) => runtime.block_on(static_interface::run(options, style, listener)),
        None => runtime.block_on(run(options, listener)),
    }
}
