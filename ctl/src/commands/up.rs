//! `i2planctl up`.

use std::io;

use i2plan_config::Config;
use i2plan_ipc::daemon::logging;

use crate::args::Up;
use crate::failure::{Failure, Kind};
use crate::passphrase::{self, Given};
use crate::supervisor::event::Events;
use crate::supervisor::log::LogFile;
use crate::supervisor::relay::{Relay, Stream};
use crate::supervisor::users::{Accounts, control_group};
use crate::supervisor::{self, Node};

/// Runs a node in the foreground.
///
/// # Errors
/// If this is not root, users or programs are missing, the configuration is wrong, or another node is in the
/// way.
pub async fn run(json: bool, args: Up, given: Given) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            Kind::Denied,
            "only root can make the tunnel and start each daemon as a user of its own",
        )
        .with_hint("run it with sudo or doas: `sudo i2planctl up`"));
    }
    let group = control_group(args.group.as_deref())?;
    let config = Config::load(args.config.as_deref()).map_err(|error| {
        Failure::invalid(error.to_string()).with_hint("correct the configuration, then start again")
    })?;
    logging::check().map_err(|error| Failure::invalid(error.to_string()).with_hint("correct or unset it"))?;
    let rpc_user = config.rpc_enabled.then_some(args.rpc_user.as_str());
    let router_user = (args.router || config.router_enabled).then_some(args.router_user.as_str());
    let accounts = Accounts::find(
        &args.keyd_user,
        &args.meshd_user,
        &args.tund_user,
        &args.connector_user,
        rpc_user,
        router_user,
    )?;
    // meshd is another user, with another home.
    let file = args.config.or_else(|| config.path().exists().then(|| config.path().to_owned()));
    let data = args.data_dir.unwrap_or(config.data_dir);
    let passphrase = match given.passphrase {
        None if args.ask_passphrase => {
            // keyd tells what its keys are; here it is only a question of asking once or twice.
            let is_new = !data.join("keyd/keys").exists();
            Some(if is_new {
                passphrase::ask_new("--passphrase-fd").await?
            } else {
                passphrase::ask().await?
            })
        }
        given => given,
    };
    let path = args.log_file.filter(|path| !path.as_os_str().is_empty());
    let stream = |stream: io::Result<Stream>| {
        stream.map_err(|error| Failure::internal(format!("cannot duplicate a standard stream: {error}")))
    };
    // The daemons see a pipe and do not know where it leads.
    let log_format = (path.is_none() && logging::goes_to_journal() && !logging::format_is_chosen())
        .then_some(logging::JOURNAL_FORMAT);
    // Dropped last: the writers write what is left.
    let (json_lines, _json_writer) =
        json.then(|| Ok::<_, Failure>(Relay::start(stream(Stream::stdout())?))).transpose()?.unzip();
    let (log, (lines, _writer)) = match path {
        Some(path) => {
            let (log, sink) = LogFile::open(&path)?;
            (Some(log), Relay::start(sink))
        }
        None => (None, Relay::start(stream(Stream::stderr())?)),
    };
    let node = Node {
        config: file,
        data,
        run: args.runtime_dir,
        accounts,
        group,
        sam_address: config.sam_address,
        sam_udp_port: config.sam_udp_port,
        tunnel_length: config.tunnel_length,
        interface: config.interface,
        allow_overlap: config.allow_overlap,
        rpc_orders: config.rpc_orders,
        rpc_socket: config.rpc_socket,
        passphrase,
        log_format,
        shutdown_timeout: config.shutdown_timeout,
        drain_timeout: config.drain_timeout,
    };
    supervisor::run(&node, &Events { lines, json: json_lines }, log.as_ref()).await
}
