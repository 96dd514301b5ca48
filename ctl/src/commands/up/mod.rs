//! `i2planctl up`.

use std::path::PathBuf;

use i2plan_config::static_interface::DEFAULT_NAME;
use i2plan_ipc::paths;
use i2plan_proto::sam::session::Style;

use crate::args::interface_name;

#[cfg(target_os = "linux")]
pub mod run;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
For Linux machines without systemd, and for development. Needs root to make the tunnel and to start each daemon \
as a user of its own; the daemons themselves run without privileges, and tund with CAP_NET_ADMIN until the \
tunnel is up.

A daemon that ends is started again, after a wait that grows from 0.2 to 30 seconds. SIGINT and SIGTERM stop \
all in order; a second SIGINT ends them at once.

With --static NAME, --wg, the --peer options or a configuration that has [interface] and [[peer]], this is an interface \
with static peers in place of a member of a mesh. --static NAME runs /etc/i2plan/static/NAME.conf or NAME.toml, or the \
interface of this name that the configuration describes.

With a passphrase the keys of a new node are sealed, and sealed keys are opened. It is asked for once, and kept \
in memory for when keyd is started again.

Examples:
  sudo i2planctl up
  sudo i2planctl up --ask-passphrase
  sudo i2planctl up --config node.toml --data-dir /srv/i2plan
  sudo i2planctl up --wg /etc/wireguard/wg0.conf
  sudo i2planctl --static wg0 up
  sudo i2planctl up --address 10.9.0.1/24 --private-key-file private.key --peer-public-key KEY \
      --peer-allowed-ips 10.9.0.2/32 --peer-endpoint NAME.b32.i2p
  sudo i2planctl up --keyd-user 990 --meshd-user 991 --tund-user 992 --connector-user 993 --rpc-user 994";

/// `i2planctl up`
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Configuration file [default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Write the log here instead of to standard error; SIGHUP opens the file again
    #[arg(long, value_name = "FILE", env = "I2PLAN_LOG_FILE")]
    pub log_file: Option<PathBuf>,

    /// Run an interface with static peers in place of a member of a mesh: this file of wg-quick(8), or of TOML if its name
    /// ends in .toml, says what it and its peers are, with endpoints in I2P, and its name is the interface's
    #[arg(long, value_name = "FILE")]
    pub wg: Option<PathBuf>,

    /// With static peers, the style of the datagrams, which must be the same at both ends: repliable or raw [default: that
    /// of the file, else repliable]
    #[arg(long, value_name = "STYLE")]
    pub style: Option<Style>,

    /// An interface without a file.
    #[command(flatten)]
    pub peer: PeerArgs,

    /// Where the daemons keep their state [default: node.data_dir, /var/lib/i2plan; with static peers, the interface's
    /// name in /var/lib/i2plan-static]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the daemons' sockets are [default: /run/i2plan; with static peers, the interface's name in
    /// /run/i2plan-static]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// Where `wg show` looks for the interface; another directory for a second node with the same tun.interface
    #[arg(long, value_name = "DIR", default_value = paths::WIREGUARD_DIR)]
    pub wireguard_dir: PathBuf,

    /// User that holds the keys, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-keyd")]
    pub keyd_user: String,

    /// User that speaks to the I2P router and to you, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-meshd")]
    pub meshd_user: String,

    /// User that runs the tunnel, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-tund")]
    pub tund_user: String,

    /// User that connects to the I2P router, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-connector")]
    pub connector_user: String,

    /// User that answers JSON-RPC unless rpc.enabled is false, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-rpc")]
    pub rpc_user: String,

    /// User that serves web pages if web.enabled is true, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-web")]
    pub web_user: String,

    /// User that answers for the members' names if names.enabled is true, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-names")]
    pub names_user: String,

    /// Run an I2P router too, as router.enabled does: for a machine that has none
    #[arg(long)]
    pub router: bool,

    /// User that runs it, by name or number
    #[arg(long, value_name = "USER", default_value = "i2plan-routerd")]
    pub router_user: String,

    /// Group that may control the node, by name or number [default: i2plan if it exists, else root alone]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Read the passphrase of the keys from this descriptor, up to the end of the line
    #[arg(long, value_name = "N", conflicts_with = "ask_passphrase")]
    pub passphrase_fd: Option<i32>,

    /// Ask for the passphrase of the keys on the terminal
    #[arg(long)]
    pub ask_passphrase: bool,
}

/// An interface with one static peer, without a file that describes it.
#[derive(Debug, clap::Args)]
pub struct PeerArgs {
    /// Run an interface with this one static peer, without a file: its public key, in base64
    #[arg(
        long,
        value_name = "KEY",
        conflicts_with = "wg",
        requires_all = ["address", "private_key_file", "peer_allowed_ips"]
    )]
    pub peer_public_key: Option<String>,

    /// The networks whose addresses the peer may use, with commas between them
    #[arg(long, value_name = "PREFIX", requires = "peer_public_key")]
    pub peer_allowed_ips: Vec<String>,

    /// Where the peer takes packets: NAME.b32.i2p, or a destination in base64 [default: where it sends from]
    #[arg(long, value_name = "ENDPOINT", requires = "peer_public_key")]
    pub peer_endpoint: Option<String>,

    /// Read the peer's preshared key from this file, which no other user can read
    #[arg(long, value_name = "FILE", requires = "peer_public_key")]
    pub peer_preshared_key_file: Option<PathBuf>,

    /// Seconds between keepalives to the peer, 0 for none [default: 25]
    #[arg(long, value_name = "SECONDS", requires = "peer_public_key")]
    pub peer_keepalive: Option<String>,

    /// With --peer-public-key, the interface's addresses with prefix lengths, with commas between them
    #[arg(long, value_name = "PREFIX", requires = "peer_public_key")]
    pub address: Vec<String>,

    /// With --peer-public-key, read the interface's private key from this file, which no other user can read
    #[arg(long, value_name = "FILE", requires = "peer_public_key")]
    pub private_key_file: Option<PathBuf>,

    /// With --peer-public-key, the interface's name
    #[arg(
        long,
        value_name = "NAME",
        default_value = DEFAULT_NAME,
        requires = "peer_public_key",
        value_parser = interface_name
    )]
    pub interface: String,
}
