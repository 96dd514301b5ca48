//! `i2plan-keyd`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use i2plan_ipc::Role;
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::daemon::notify::Supervisor;
use i2plan_ipc::daemon::{activation, hardening, logging, users};
use i2plan_ipc::server::{Limits, serve};
use i2plan_ipc::version::Version;
use i2plan_keyd::service::Keyd;
use i2plan_keyd::store::Store;
use i2plan_keyd::walls;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

const HELP: &str = "\
i2plan-keyd: holds the private keys of an i2plan node, and signs

Usage: i2plan-keyd [OPTIONS]

Started by a service manager or by `i2planctl up`, which hand it its listening socket.

Options:
      --store DIR            directory of the keys (default: $STATE_DIRECTORY, or /var/lib/i2plan/keyd)
      --sam-address IP:PORT  the only SAM bridge that sessions are opened at (default: 127.0.0.1:7656)
      --meshd-user USER      name or number of the user that meshd runs as (default: i2plan-meshd)
      --tund-user USER       name or number of the user that tund runs as (default: i2plan-tund)
      --listen PATH          make the listening socket, if none is handed over
  -h, --help
  -V, --version

Environment: I2PLAN_LOG (error, warn, info, debug, or target=level,...).
";

/// Exit status for a command line that cannot be right.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = match parse() {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return fail((USAGE, format!("{error}; see --help"))),
    };
    start(args).map_or_else(fail, |()| ExitCode::SUCCESS)
}

fn fail((status, message): (u8, String)) -> ExitCode {
    eprintln!("i2plan-keyd: {message}");
    ExitCode::from(status)
}

struct Args {
    store: PathBuf,
    sam: SocketAddr,
    meshd: String,
    tund: String,
    listen: Option<PathBuf>,
}

fn parse() -> Result<Option<Args>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut args = Args {
        store: std::env::var_os("STATE_DIRECTORY")
            .map_or_else(|| "/var/lib/i2plan/keyd".into(), PathBuf::from),
        sam: SocketAddr::from(([127, 0, 0, 1], 7656)),
        meshd: "i2plan-meshd".to_owned(),
        tund: "i2plan-tund".to_owned(),
        listen: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("store") => args.store = parser.value()?.into(),
            Long("sam-address") => args.sam = parser.value()?.parse()?,
            Long("meshd-user") => args.meshd = parser.value()?.string()?,
            Long("tund-user") => args.tund = parser.value()?.string()?,
            Long("listen") => args.listen = Some(parser.value()?.into()),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Short('V') | Long("version") => {
                println!("i2plan-keyd {}", Version::current());
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
    let own = rustix::process::geteuid().as_raw();
    let meshd = users::user_id(&args.meshd).map_err(|error| usage(&error))?;
    let tund = users::user_id(&args.tund).map_err(|error| usage(&error))?;
    if own == 0 {
        return Err(usage(
            &"it must not run as root: start it by `i2planctl up` or a service, as a user of its own",
        ));
    }
    if meshd == tund || meshd == own || tund == own {
        return Err(usage(&"keyd, meshd and tund must run as three different users"));
    }
    hardening::lock_memory();
    let supervisor = Supervisor::connect();
    let listener = activation::listener(args.listen.as_deref()).map_err(|error| usage(&error))?;
    walls::before_the_store(&args.store).map_err(|error| failed(&error))?;
    let store = Store::open(&args.store).map_err(|error| failed(&error))?;
    let keys = match store.load().map_err(|error| failed(&error))? {
        Some(keys) => keys,
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            let keys = store.create(now).map_err(|error| failed(&error))?;
            info!(node = %keys.node(), "made the keys of a new node");
            keys
        }
    };
    info!(node = %keys.node(), "ready");
    let access = Access::new([(Role::Meshd, Who::User(meshd)), (Role::Tund, Who::User(tund))]);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime
        .block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            walls::before_serving().map_err(std::io::Error::other)?;
            supervisor.ready();
            tokio::select! {
                () = serve(listener, Arc::new(Keyd::new(keys, args.sam)), access, Limits::default()) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            Ok::<_, std::io::Error>(())
        })
        .map_err(|error| failed(&error))
}
