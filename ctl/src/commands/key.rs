//! `i2planctl key`.

use std::path::{Path, PathBuf};

use i2plan_config::Config;
use i2plan_ipc::ErrorKind;
use i2plan_ipc::administrator::{Prepared, socket_beside};
use i2plan_ipc::api::meshd::{Keys, RecoverKeys};
use i2plan_ipc::api::order::{Executed, OrderTarget};
use i2plan_ipc::version::utc;
use i2plan_present::key::{render_public, render_status};
use i2plan_present::order::describe;
use i2plan_present::text::clean;
use serde_json::json;

use super::confirm::{can_ask, confirm};
use super::orders;
use crate::daemon;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds to `rotate`.
const ROTATE_HELP: &str = "\
Keys are rotated every seven days by themselves. The key before is accepted for ten minutes more, while the other \
members learn of the new one; sessions go on meanwhile. Once a minute at most.";

/// What `--help` adds to `recover`.
const RECOVER_HELP: &str = "\
keyd remembers which addresses this node has delegated to the members that it has invited, so that it never certifies \
two members for one address. If its files `memory` or `delegations` are lost or damaged, it certifies no new members \
until this command has told it what other members know, and you have confirmed that this is all. Run it while they are \
reachable, and compare what it shows with what you know: addresses of a member that is not among those may be given out \
again.";

/// What `--help` adds to `forget-network`.
const FORGET_NETWORK_HELP: &str = "\
keyd signs for one network alone, and changes it when this node has left or was revoked. Where meshd's state is lost, \
nobody can leave for it: this command makes keyd ready for the next network. Members of the network before are not told.";

/// What `--help` adds to `new`.
const NEW_HELP: &str = "\
Needs root, and a node that does not run. The directories keyd and meshd of its state get a number behind their names, \
and the node makes new keys when it is started; it is in no network then. What is set aside is the old node: whoever \
puts it back has that again. The members of its network are not told: one of the old node's inviters can revoke it.

For a node that was revoked or has left this is not needed: it can be invited again.";

/// What `--help` adds to `check`.
const CHECK_HELP: &str = "\
Run it as root: the keys are read as the user who owns the directory. Those of a node that runs are in use, and are not \
checked.

Example:
  sudo i2planctl key check /mnt/backup/keyd";

/// What `--help` adds to `change-passphrase`.
const CHANGE_PASSPHRASE_HELP: &str = "\
Needs root, and a node that does not run. What is not read from a descriptor is asked for. The old passphrase \
still opens copies that were made before, such as backups.

Examples:
  sudo i2planctl key change-passphrase
  sudo i2planctl key change-passphrase --new-passphrase-fd 3 3< passphrase.txt
  sudo i2planctl key change-passphrase --remove";

/// `i2planctl key …`
#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Show whether the keys are sealed, and the WireGuard key's epoch and validity
    Status,

    /// Begin a new epoch of the WireGuard key now, without interrupting traffic
    #[command(after_help = ROTATE_HELP)]
    Rotate,

    /// Complete keyd's memory of the addresses that this node has delegated, after it was lost
    #[command(after_help = RECOVER_HELP)]
    Recover(Recover),

    /// Have keyd forget the network that it signs for, where meshd does not know of it any more
    #[command(name = "forget-network", after_help = FORGET_NETWORK_HELP)]
    ForgetNetwork(ForgetNetwork),

    /// Give a stopped node a new identity: set its keys and its membership aside
    #[command(after_help = NEW_HELP)]
    New(NewKeys),

    /// Tell whether stored keys can be read, such as those of a backup, and are sealed
    #[command(after_help = CHECK_HELP)]
    Check(CheckKeys),

    /// Print the public keys: identity, control destination, network, WireGuard
    #[command(name = "export-public")]
    ExportPublic,

    /// Seal the keys of a stopped node with a new passphrase, or unseal them
    #[command(name = "change-passphrase", after_help = CHANGE_PASSPHRASE_HELP)]
    ChangePassphrase(ChangePassphrase),
}

/// Which stopped node.
#[derive(Debug, clap::Args)]
pub struct Stopped {
    /// Configuration file [default: /etc/i2plan/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the daemons keep their state [default: node.data_dir, /var/lib/i2plan]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Stopped {
    /// The directory of its state.
    ///
    /// # Errors
    /// If the configuration is wrong.
    pub fn data_dir(self) -> Result<PathBuf, Failure> {
        if let Some(data) = self.data_dir {
            return Ok(data);
        }
        let config = Config::load(self.config.as_deref()).map_err(|error| {
            Failure::invalid(error.to_string()).with_hint("correct the configuration, or use --data-dir")
        })?;
        Ok(config.data_dir)
    }
}

/// `i2planctl key new`
#[derive(Debug, clap::Args)]
pub struct NewKeys {
    /// The node.
    #[command(flatten)]
    pub stopped: Stopped,

    /// User that holds the keys, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-keyd")]
    pub keyd_user: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl key check`
#[derive(Debug, clap::Args)]
pub struct CheckKeys {
    /// The directory of the keys [default: keyd in the node's data directory]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// The node, if no directory is named.
    #[command(flatten)]
    pub stopped: Stopped,

    /// Read the passphrase of sealed keys from this descriptor; else it is asked for
    #[arg(long, value_name = "N")]
    pub passphrase_fd: Option<i32>,
}

/// `i2planctl key recover`
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl key forget-network`
#[derive(Debug, clap::Args)]
pub struct ForgetNetwork {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl key change-passphrase`
#[derive(Debug, clap::Args)]
pub struct ChangePassphrase {
    /// The node.
    #[command(flatten)]
    pub stopped: Stopped,

    /// User that holds the keys, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-keyd")]
    pub keyd_user: String,

    /// Read the present passphrase from this descriptor, up to the end of the line
    #[arg(long, value_name = "N")]
    pub passphrase_fd: Option<i32>,

    /// Read the new passphrase from this descriptor
    #[arg(long, value_name = "N")]
    pub new_passphrase_fd: Option<i32>,

    /// Store the keys unsealed
    #[arg(long, conflicts_with = "new_passphrase_fd")]
    pub remove: bool,
}

/// Shows the state of the node's keys.
///
/// # Errors
/// If the node does not answer.
pub async fn status(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let keys = ask(socket).await?;
    if json {
        let wireguard = keys.wireguard.as_ref().map(
            |key| json!({ "epoch": key.epoch, "not_before": key.not_before, "not_after": key.not_after }),
        );
        let value = json!({ "node_id": keys.node_id, "sealed": keys.sealed, "wireguard": wireguard });
        return output::json::print(&value);
    }
    output::print(&render_status(&keys))
}

/// Completes keyd's memory of what this node has delegated.
///
/// # Errors
/// If the node does not answer, nothing was lost, or it was not confirmed.
pub async fn recover(socket: Option<&Path>, json: bool, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let consequences = |_: &OrderTarget| {
        Ok("addresses of members that are not among these may be given out again".to_owned())
    };
    let delegations = orders::carry_out(&mut node, RecoverKeys, consequences, "recover", yes).await?.reply;
    if json {
        return output::json::print(&json!({ "delegations": delegations }));
    }
    output::print(&format!(
        "keyd remembers {delegations} delegations again; the node can certify new members\n"
    ))
}

/// Begins a new epoch of the WireGuard key.
///
/// # Errors
/// If the node does not answer, is in no network, or has just done so.
pub async fn rotate(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let key = node.rotate_key().await?;
    if json {
        return output::json::print(&json!({ "wireguard": key }));
    }
    output::print(&format!(
        "WireGuard  epoch {}, valid from {} until {}\n           {}\n",
        key.epoch,
        utc(key.not_before),
        utc(key.not_after),
        clean(&key.public_key)
    ))
}

/// Prints the public keys.
///
/// # Errors
/// If the node does not answer.
pub async fn export_public(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let keys = ask(socket).await?;
    if json {
        let value = json!({
            "node_id": keys.node_id,
            "control": keys.control,
            "network": keys.network,
            "wireguard_public_key": keys.wireguard.map(|key| key.public_key),
        });
        return output::json::print(&value);
    }
    output::print(&render_public(&keys))
}

async fn ask(socket: Option<&Path>) -> Result<Keys, Failure> {
    let mut node = daemon::connect(socket).await?;
    Ok(node.keys().await?)
}

/// Has `keyd` forget the network that it is pinned to.
///
/// # Errors
/// If `meshd` is in that network, or it was not confirmed.
pub async fn forget_network(socket: Option<&Path>, json: bool, yes: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let network = node.status().await?.network.map(|network| network.id);
    can_ask(yes)?;
    let order = Prepared::to_forget(socket_beside(node.socket())).await?;
    if let OrderTarget::Pinned { network: pinned, .. } = order.target()
        && network == Some(pinned.to_string())
    {
        return Err(Failure::new(
            ErrorKind::Conflict,
            "this node is a member of the network that keyd would forget",
        )
        .with_hint("`i2planctl leave` leaves it"));
    }
    let consequences =
        "its members are not told, and keep this node among them; keyd then signs for the next network";
    confirm(&format!("{}\n{consequences}", describe(order.target())), "forget", yes)?;
    let forgotten = |executed| match executed {
        Executed::Forgotten(network) => Some(network),
        _ => None,
    };
    let network = order.confirm(forgotten).await?;
    if json {
        return output::json::print(&json!({ "forgotten": network.to_string() }));
    }
    output::print(&format!("keyd has forgotten network {network}\n"))
}
