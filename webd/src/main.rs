//! `i2plan-webd`.

use std::path::PathBuf;
use std::process::ExitCode;

use i2plan_config::Config;
use i2plan_ipc::daemon::activation::{self, ActivationError};
use i2plan_ipc::daemon::program::{self, End, Parsed};
use i2plan_ipc::daemon::{hardening, logging};
use i2plan_ipc::paths;
use i2plan_ipc::version::build;
use i2plan_webd::server::{Listeners, Options, run};

/// Exit status where `web.enabled` is false. The unit has it in `RestartPreventExitStatus=`: to start it again changes
/// nothing.
const DISABLED: u8 = 3;

const HELP: &str = "\
i2plan-webd: web pages for an i2plan node, over HTTP on loopback or a unix socket, or HTTPS

Usage: i2plan-webd [OPTIONS]

Started by a service manager or by `i2planctl up`, which hand it its listening socket.

Options:
      --config FILE        configuration (default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if one exists)
      --meshd-socket PATH  (default: /run/i2plan/meshd.sock)
      --listen PATH        make the listening socket, if none is handed over
  -h, --help
  -V, --version

SIGHUP: reads the files of web.tls_certificate and web.tls_key again.

Environment: the configuration's variables, and I2PLAN_LOG (error, warn, info, debug, or target=level,...).

Exit status: 2 if the command line or the configuration is wrong, 3 if web.enabled is false, 1 for other failures.
";

fn main() -> ExitCode {
    program::run(build!(), "i2plan-webd", HELP, parse(), start)
}

struct Args {
    config: Option<PathBuf>,
    meshd: PathBuf,
    listen: Option<PathBuf>,
}

fn parse() -> Result<Parsed<Args>, lexopt::Error> {
    let args = Args { config: None, meshd: paths::system_socket(paths::MESHD_SOCKET), listen: None };
    program::parse(std::env::args_os().skip(1), args, |args, name, parser| {
        match name {
            "config" => args.config = Some(parser.value()?.into()),
            "meshd-socket" => args.meshd = parser.value()?.into(),
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
    if !config.web_enabled {
        activation::refuse_waiting();
        return Err(End::usage("web.enabled is false in the configuration").with_status(DISABLED));
    }
    let socket = config.web_listen.socket();
    let (control, pages) =
        activation::listener_and(args.listen.as_deref(), "http", socket).map_err(|error| match error {
            ActivationError::BindNamed { .. } => End::usage(format!(
                "web.listen: {error}; for services, i2plan-webd-http.socket must be enabled and started"
            )),
            error => error.into(),
        })?;
    let tls = match (config.web_tls_certificate, config.web_tls_key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(End::usage("web.tls_certificate is set, and web.tls_key is not: set both or none"));
        }
        (None, Some(_)) => {
            return Err(End::usage("web.tls_key is set, and web.tls_certificate is not: set both or none"));
        }
    };
    let options =
        Options { meshd: args.meshd, address: config.web_listen, tls, token: config.web_token_file };
    program::runtime()?.block_on(run(options, Listeners { control, pages }))
}
