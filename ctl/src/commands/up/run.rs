//! What `i2planctl up` does.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use i2plan_config::Config;
use i2plan_config::static_interface::options::Options;
use i2plan_config::static_interface::{Format, InterfaceFile, StaticConfig};
use i2plan_ipc::daemon::logging;
use i2plan_ipc::paths;
use i2plan_proto::sam::session::Style;
use i2plan_supervisor::users::{Accounts, UserNames, control_group};
use i2plan_supervisor::{Node, PeerSource, Programs, Relay, SamLogin, StartError, StaticNode, Supervisor};
use tokio::signal::unix::{self, SignalKind, signal};

use super::{PeerArgs, Up};
use crate::commands::names::hosts::remove_at_the_end;
use crate::commands::names::resolved;
use crate::failure::Failure;
use crate::output;
use crate::passphrase::{self, Given};
use crate::up::NAME;
use crate::up::event::{Events, UpEvent};
use crate::up::log::LogFile;
use crate::up::stream::Stream;
use crate::wireguard;

/// Runs a node in the foreground, or the interface with static peers of this name.
///
/// # Errors
/// If this is not root, users or programs are missing, the configuration is wrong, or another node is in the
/// way.
pub async fn run(json: bool, args: Up, name: Option<&str>, given: Given) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::NotRoot.into());
    }
    let group = control_group(args.group.as_deref())?;
    let config = Config::load(args.config.as_deref()).map_err(|error| {
        Failure::invalid(error.to_string()).with_hint("correct the configuration, then start again")
    })?;
    logging::check().map_err(|error| Failure::invalid(error.to_string()).with_hint("correct or unset it"))?;
    let static_node = read_static(json, &args, name, &config)?;
    let has_names = config.names_enabled && static_node.is_none();
    let accounts = Accounts::find(&UserNames {
        keyd: &args.keyd_user,
        meshd: &args.meshd_user,
        tund: &args.tund_user,
        connector: &args.connector_user,
        rpc: (config.rpc_enabled && static_node.is_none()).then_some(&args.rpc_user),
        web: (config.web_enabled && static_node.is_none()).then_some(&args.web_user),
        names: has_names.then_some(&args.names_user),
        router: (args.router || config.router_enabled).then_some(&args.router_user),
    })?;
    let mut node = Node::new(&config, accounts, Programs::beside_this()?);
    node.sam_login = SamLogin::read(&config).map_err(|error| {
        Failure::invalid(error.to_string())
            .with_hint("correct the configuration or the file, then start again")
    })?;
    node.group = group;
    if let Some(StaticNode { interface, .. }) = &static_node {
        node.interface.clone_from(&interface.name);
        node.run = Path::new(paths::STATIC_RUN_DIR).join(&interface.name);
        node.data = Path::new(paths::STATIC_STATE_DIR).join(&interface.name);
    }
    node.static_interface = static_node;
    if let Some(run) = args.runtime_dir {
        node.run = run;
    }
    node.wireguard = args.wireguard_dir;
    if let Some(data) = args.data_dir {
        node.data = data;
    }
    node.passphrase = match given.passphrase {
        None if args.ask_passphrase => {
            // keyd tells what its keys are; here it is only a question of asking once or twice.
            let is_new = !node.data.join("keyd/keys").exists();
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
    node.log_format = (path.is_none() && logging::goes_to_journal() && !logging::format_is_chosen())
        .then_some(logging::JOURNAL_FORMAT);
    // Dropped last: the writers write what is left.
    let (json_lines, _json_writer) =
        json.then(|| Ok::<_, Failure>(Relay::start(NAME, stream(Stream::stdout())?))).transpose()?.unzip();
    let (log, (lines, _writer)) = match path {
        Some(path) => {
            let (log, sink) = LogFile::open(&path)?;
            (Some(log), Relay::start(NAME, sink))
        }
        None => (None, Relay::start(NAME, stream(Stream::stderr())?)),
    };
    let events = Events { lines, json: json_lines };
    let signals = Signals::new()?;
    let observer = events.clone();
    let supervisor =
        Supervisor::start(&node, &events.lines, move |event| observer.tell(&UpEvent::Daemon(event))).await?;
    let meshd = node.run.join(paths::MESHD_SOCKET);
    let names = (has_names && resolved::runs()).then(|| {
        let lines = events.lines.clone();
        // Where the interface goes, so do its settings: nothing is to be taken back.
        tokio::spawn(async move {
            let tell = |text: &str| lines.line(&format!("{NAME}: {text}"));
            resolved::follow(Some(&meshd), tell, std::future::pending()).await;
        })
    });
    let result = supervise(supervisor, signals, &events, log.as_ref()).await;
    if let Some(names) = names {
        names.abort();
    }
    remove_at_the_end(&node.interface);
    result
}

/// Reads what an interface with static peers is to be, if there is to be one.
fn read_static(
    json: bool,
    args: &Up,
    name: Option<&str>,
    config: &Config,
) -> Result<Option<StaticNode>, Failure> {
    let routers = wireguard::routers(config);
    let file = match (&args.wg, &args.peer.peer_public_key, name) {
        (Some(file), _, None) => InterfaceFile::new(file.clone()),
        (Some(_), _, Some(_)) | (None, Some(_), Some(_)) => {
            return Err(Failure::usage("--static names an interface, and so do the other options")
                .with_hint("leave out --static, or --wg and the --peer options"));
        }
        (None, Some(key), None) => {
            let content = read_options(json, &args.peer, key, &routers)?;
            let name = args.peer.interface.clone();
            return static_node(content, &name, args.style, None).map(Some);
        }
        (None, None, Some(name)) => wireguard::find(json, name, config)?,
        (None, None, None) if config.has_interface() => {
            InterfaceFile::configuration(config.path().to_owned())
        }
        (None, None, None) if args.style.is_some() => {
            return Err(Failure::usage("--style is for an interface with static peers")
                .with_hint("name its file with --wg"));
        }
        (None, None, None) => return Ok(None),
    };
    let path = file.path.display();
    let content = wireguard::load(json, &file, &routers)?;
    let name = file.name(&content).map_err(|reason| {
        Failure::invalid(format!("{path}: {reason}"))
            .with_hint("rename the file: the interface is called like it, without .conf or .toml")
    })?;
    for (line, what) in &content.ignored {
        output::note(&format!("{path}:{line}: {what}"));
    }
    if let (Some(in_file), Some(style)) = (content.interface.style, args.style)
        && in_file != style
    {
        return Err(Failure::invalid(format!("{path} has the style {in_file}, and --style is {style}"))
            .with_hint("leave out --style, or change the file"));
    }
    if file.format == Format::Configuration {
        output::note(&format!("{path} describes the interface {name} with static peers: no mesh is run"));
    }
    let (again, of_peers) = (file.clone(), name.clone());
    let peers = move || {
        let read = again.load(&routers).map_err(|error| error.to_string());
        let read = read.and_then(|parsed| parsed.to_static(&of_peers).map_err(|error| error.to_string()));
        read.inspect_err(|error| output::note(&format!("the peers stay as they were at the start: {error}")))
            .ok()
            .map(|interface| interface.peers)
    };
    let style = content.interface.style.or(args.style);
    let node = static_node(content, &name, style, Some(PeerSource(Arc::new(peers))));
    node.map(Some).map_err(|failure| Failure { message: format!("{path}: {}", failure.message), ..failure })
}

/// Reads an interface with one peer from options.
fn read_options(
    json: bool,
    peer: &PeerArgs,
    public_key: &str,
    routers: &[IpAddr],
) -> Result<StaticConfig, Failure> {
    // clap has seen to it that there is one.
    let private_key_file = peer.private_key_file.as_deref().unwrap_or(Path::new(""));
    let options = Options {
        private_key_file,
        addresses: &peer.address,
        public_key,
        preshared_key_file: peer.peer_preshared_key_file.as_deref(),
        allowed_ips: &peer.peer_allowed_ips,
        endpoint: peer.peer_endpoint.as_deref(),
        keepalive: peer.peer_keepalive.as_deref(),
    };
    options.read(routers).map_err(|faults| wireguard::explain(json, &faults))
}

fn static_node(
    content: StaticConfig,
    name: &str,
    style: Option<Style>,
    peers: Option<PeerSource>,
) -> Result<StaticNode, Failure> {
    let interface = content.to_static(name).map_err(|error| Failure::invalid(error.to_string()))?;
    let (private_key, style) = (Some(content.interface.private_key), style.unwrap_or(Style::Datagram));
    Ok(StaticNode { interface, peers, private_key, style })
}

/// Keeps the node running until a signal or a daemon that cannot run stops it.
async fn supervise(
    mut supervisor: Supervisor,
    mut signals: Signals,
    events: &Events,
    log: Option<&LogFile>,
) -> Result<(), Failure> {
    let stopping = |reason: &str| events.tell(&UpEvent::Stopping { reason: reason.to_owned() });
    let result = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Received::Hangup => {
                    let reopened = log.map_or(Ok(()), LogFile::reopen);
                    let error = reopened.err().map(|error| {
                        format!("the log file cannot be opened again, and the old one is used: {error}")
                    });
                    events.tell(&UpEvent::Reloading { error });
                    supervisor.reload();
                }
                Received::Interrupt => {
                    stopping("SIGINT came");
                    break Ok(());
                }
                Received::Terminate => {
                    stopping("SIGTERM came");
                    break Ok(());
                }
            },
            error = supervisor.failure() => {
                stopping(&error.to_string());
                break Err(error.into());
            }
        }
    };
    // An interrupt while the daemons stop is a person at a keyboard who does not want to wait; other signals are also
    // sent twice without meaning anything by it.
    loop {
        tokio::select! {
            () = supervisor.stop() => return result,
            signal = signals.next() => if signal == Received::Interrupt {
                supervisor.kill();
            }
        }
    }
}

/// The signals that this command takes.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.interrupt.recv() => Received::Interrupt,
            _ = self.terminate.recv() => Received::Terminate,
            _ = self.hangup.recv() => Received::Hangup,
        }
    }
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Interrupt,
    Terminate,
    Hangup,
}
