//! `i2planctl peer`.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use i2plan_config::Config;
use i2plan_config::static_interface::edit::EditError;
use i2plan_config::static_interface::{
    InterfaceFile, Peer, Problem, StaticConfig, Table, key_of, key_text, public_key, read_key,
};
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::Status;
use i2plan_ipc::api::tund::StaticPeer;
use i2plan_ipc::paths;
use i2plan_present::text::clean;
use i2plan_proto::endpoint::Endpoint;
use i2plan_proto::prefix::Prefix;
use serde_json::json;

use super::peers::{self, Peers};
use super::static_routes;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::wireguard::{self, Socket};

/// What `--help` adds.
pub(crate) const HELP: &str = "\
A peer that is added or removed is at once a peer of the running interface or none, and stays so: the interface's file is \
changed too, and all else in it stays as it is. It is run as root.

Examples:
  sudo i2planctl --static wg0 peer add KEY --allowed-ips 10.9.0.3/32 --endpoint NAME.b32.i2p
  sudo i2planctl --static wg0 peer remove KEY
  i2planctl --static wg0 peer list";

/// `i2planctl peer …`
#[derive(Debug, clap::Subcommand)]
pub enum PeerCommand {
    /// Add a peer to an interface with static peers, and to its file
    Add(Box<Add>),

    /// Remove a peer from an interface with static peers, and from its file
    Remove(Remove),

    /// List the peers, as `i2planctl peers` does
    List,
}

/// `i2planctl peer add`
#[derive(Debug, clap::Args)]
pub struct Add {
    /// The peer's public key, in base64
    #[arg(value_name = "KEY", value_parser = key)]
    pub public_key: [u8; 32],

    /// The networks whose addresses it may use, with commas between them
    #[arg(long, value_name = "PREFIX", required = true, value_delimiter = ',')]
    pub allowed_ips: Vec<Prefix>,

    /// Where it takes packets: NAME.b32.i2p, or a destination in base64 [default: where it sends from]
    #[arg(long)]
    pub endpoint: Option<Endpoint>,

    /// Seconds between keepalives, 0 for none [default: 25]
    #[arg(long, value_name = "SECONDS")]
    pub keepalive: Option<u16>,

    /// Read the preshared key from this file, which no other user can read; TOML names it, a file of wg-quick gets the key
    #[arg(long, value_name = "FILE")]
    pub preshared_key_file: Option<PathBuf>,

    #[command(flatten)]
    place: Place,
}

/// `i2planctl peer remove`
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The peer's public key, or the beginning of it
    #[arg(value_name = "KEY")]
    pub peer: String,

    #[command(flatten)]
    place: Place,
}

/// Where an interface is found.
#[derive(Debug, clap::Args)]
struct Place {
    /// The interface's file [default: its name in /etc/i2plan/static with .conf or .toml, else the configuration]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Where `wg` looks for the interface
    #[arg(long, value_name = "DIR", default_value = paths::WIREGUARD_DIR)]
    wireguard_dir: PathBuf,
}

fn key(text: &str) -> Result<[u8; 32], &'static str> {
    key_of(text).map(|key| key.0).ok_or("a key of WireGuard is 44 characters of base64")
}

/// Adds, removes or lists peers of the interface of this name.
///
/// # Errors
/// If there is none, its file is wrong or cannot be written, or the running interface does not take the change.
pub async fn run(
    socket: Option<&Path>,
    name: Option<&str>,
    json: bool,
    dates: bool,
    command: PeerCommand,
) -> Result<(), Failure> {
    match command {
        PeerCommand::List => {
            let all = Peers { node: None, verbose: false, watch: false };
            peers::run(socket, json, dates, &all).await
        }
        PeerCommand::Add(add) => {
            let add = *add;
            let preshared_key_file = add.preshared_key_file.as_deref().map(std::path::absolute).transpose();
            let preshared_key_file = preshared_key_file
                .map_err(|error| Failure::internal(format!("there is no current directory: {error}")))?;
            let preshared_key = preshared_key_file.as_deref().map(read_key).transpose().map_err(|error| {
                Failure::invalid(error.to_string())
                    .with_hint("make one with `umask 077; i2planctl wg genpsk > FILE`")
            })?;
            let peer = Peer {
                public_key: add.public_key,
                preshared_key,
                allowed_ips: add.allowed_ips.into_iter().map(Prefix::network).collect(),
                endpoint: add.endpoint,
                keepalive: add.keepalive,
            };
            let interface = Interface::find(socket, name, json, add.place).await?;
            let file = interface
                .file
                .add_peer(&peer, preshared_key_file.as_deref(), &interface.routers)
                .map_err(explain)?;
            let wanted =
                file.to_static(&interface.name).map_err(|error| Failure::invalid(error.to_string()))?;
            let added = wanted.peers.iter().find(|added| added.public_key == peer.public_key);
            interface.tell(json, &file, added, &peer).await
        }
        PeerCommand::Remove(remove) => {
            let interface = Interface::find(socket, name, json, remove.place).await?;
            let peer = interface.meant(&remove.peer)?;
            let file = interface.file.remove_peer(&peer.public_key, &interface.routers).map_err(explain)?;
            interface.tell(json, &file, None, &peer).await
        }
    }
}

/// An interface whose peers are to be changed.
struct Interface {
    name: String,
    file: InterfaceFile,
    content: StaticConfig,
    socket: Socket,
    routers: Vec<std::net::IpAddr>,
    /// What it says of itself, if it runs.
    status: Option<Status>,
}

impl Interface {
    async fn find(
        socket: Option<&Path>,
        name: Option<&str>,
        json: bool,
        place: Place,
    ) -> Result<Self, Failure> {
        let unnamed = || {
            Failure::usage("no interface with static peers is named")
                .with_hint("name it: `i2planctl --static NAME peer …`")
        };
        let status = match daemon::connect(socket).await {
            Ok(mut node) => Some(node.status().await?),
            Err(failure) if failure.kind == Kind::Unreachable && name.is_some() => None,
            Err(failure) if failure.kind == Kind::Unreachable => return Err(unnamed()),
            Err(failure) => return Err(failure),
        };
        if status.as_ref().is_some_and(|status| status.static_interface.is_none()) {
            return Err(Failure::new(ErrorKind::Conflict, "the peers of a mesh are its members").with_hint(
                "invite one with `i2planctl invite create`, or name an interface: `i2planctl --static NAME peer …`",
            ));
        }
        let running = status.as_ref().and_then(|status| status.tunnel.interface.clone());
        let of_running = status.as_ref().map(|status| PathBuf::from(&status.config));
        let of_running = of_running.filter(|config| config.exists());
        let config =
            Config::load(of_running.as_deref()).map_err(|error| Failure::invalid(error.to_string()))?;
        let routers = wireguard::routers(&config);
        let known = name.map(str::to_owned).or(running);
        let file = match (place.file, &known) {
            (Some(file), _) => wireguard::file_at(file),
            (None, Some(name)) => wireguard::find(json, name, &config)?,
            (None, None) => return Err(unnamed()),
        };
        let content = wireguard::load(json, &file, &routers)?;
        // It may be on its way up.
        let name = known.map_or_else(|| file.name(&content), Ok).map_err(|_| unnamed())?;
        let own = BASE64.encode(&public_key(&content.interface.private_key));
        let of_running = status.as_ref().and_then(|status| status.tunnel.public_key.as_ref());
        if of_running.is_some_and(|of_running| *of_running != own) {
            return Err(Failure::invalid(format!(
                "{} is not the file of the running {name}",
                file.path.display()
            ))
            .with_hint("name the one that it was started with: --file FILE"));
        }
        let socket = Socket::new(&place.wireguard_dir, &name);
        Ok(Self { name, file, content, socket, routers, status })
    }

    /// The peer of the file that a text means.
    fn meant(&self, text: &str) -> Result<Peer, Failure> {
        let found = self.content.peers.iter().filter(|peer| key_text(&peer.public_key).starts_with(text));
        match found.collect::<Vec<_>>()[..] {
            [peer] => Ok(peer.clone()),
            [] => Err(Failure::new(
                ErrorKind::NotFound,
                format!("{} has no peer {}", self.file.path.display(), clean(text)),
            )
            .with_hint("one that `wg set` has added, `wg set NAME peer KEY remove` removes")),
            _ => Err(Failure::invalid(format!("{} is the beginning of several keys", clean(text)))
                .with_hint("name it by more of its key")),
        }
    }

    /// Has the running interface do what its file says of a peer: have it as it is there, or not.
    async fn tell(
        &self,
        json: bool,
        file: &StaticConfig,
        wanted: Option<&StaticPeer>,
        peer: &Peer,
    ) -> Result<(), Failure> {
        let done = if wanted.is_some() { "has the peer" } else { "does not have the peer any more" };
        let said = format!("{} {done}", self.file.path.display());
        let runs = self.status.is_some();
        if runs {
            let told = match wanted {
                Some(peer) => self.socket.add(peer).await,
                None => self.socket.remove(&peer.public_key).await,
            };
            told.map_err(|failure| {
                let message = format!("{said}, and the running interface was not told: {}", failure.message);
                Failure::new(failure.kind, message).with_hint(
                    "run this as root; what the file says counts when the interface is started again",
                )
            })?;
            self.set_routes(file, wanted, peer).await;
        }
        if json {
            return output::json::print(
                &json!({ "file": self.file.path.to_string_lossy(), "running": runs }),
            );
        }
        if !runs {
            output::note("the interface does not run: this counts when it is started");
        }
        output::print(&format!("{}\n", clean(&said)))
    }

    /// Makes the routes to a peer, or removes those that no other peer needs.
    async fn set_routes(&self, file: &StaticConfig, wanted: Option<&StaticPeer>, peer: &Peer) {
        let table = match file.interface.table {
            Table::Auto => None,
            Table::Number(table) => Some(table),
            Table::Off => return,
        };
        let is_reached = |route: &Prefix| {
            let of_another = file.peers.iter().filter(|other| other.public_key != peer.public_key);
            file.interface.addresses.iter().any(|address| address.network() == *route)
                || of_another.flat_map(|other| &other.allowed_ips).any(|other| other == route)
        };
        for route in peer.allowed_ips.iter().filter(|route| !is_reached(route)) {
            let set = static_routes::set(&self.name, *route, table, wanted.is_some());
            if let Err(error) = set.await {
                let what = if wanted.is_some() { "made" } else { "removed" };
                output::note(&format!("the route to {route} was not {what}: {error}"));
            }
        }
    }
}

fn explain(error: EditError) -> Failure {
    let failure = Failure::invalid(error.to_string());
    match &error {
        EditError::Peer { problem: Problem::DuplicatePeer(..), .. } => failure
            .with_hint("remove it first, if it is to be another: `i2planctl --static NAME peer remove KEY`"),
        EditError::Peer { problem, .. } => failure.with_hint(problem.remedy()),
        EditError::LastPeer { .. } => failure.with_hint("add another first, or stop the interface"),
        EditError::Write { .. } => failure.with_hint("run it as root"),
        _ => failure,
    }
}
