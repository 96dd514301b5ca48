//! `i2planctl up`.

use std::path::PathBuf;

use i2plan_ipc::paths;
use i2plan_proto::sam::session::Style;

#[cfg(target_os = "linux")]
pub mod run;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
For Linux machines without systemd, and for development. Needs root to make the tunnel and to start each daemon \
as a user of its own; the daemons themselves run without privileges, and tund with CAP_NET_ADMIN until the \
tunnel is up.

A daemon that ends is started again, after a wait that grows from 0.2 to 30 seconds. SIGINT and SIGTERM stop \
all in order; a second SIGINT ends them at once.

With a passphrase the keys of a new node are sealed, and sealed keys are opened. It is asked for once, and kept \
in memory for when keyd is started again.

Examples:
  sudo i2planctl up
  sudo i2planctl up --ask-passphrase
  sudo i2planctl up --config node.toml --data-dir /srv/i2plan
  sudo i2planctl up --wg /etc/wireguard/wg0.conf
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

    /// Run an interface with static peers in place of a member of a mesh: this file of wg-quick(8) says what it and its
    /// peers are, with endpoints in I2P, and its name is the interface's
    #[arg(long, value_name = "FILE")]
    pub wg: Option<PathBuf>,

    /// With --wg, the style of the datagrams, which must be the same at both ends: repliable or raw
    #[arg(long, value_name = "STYLE", default_value = "repliable", requires = "wg")]
    pub style: Style,

    /// Where the daemons keep their state [default: node.data_dir, /var/lib/i2plan; with --wg, its name in
    /// /var/lib/i2plan-static]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the daemons' sockets are [default: /run/i2plan; with --wg, its name in /run/i2plan-static]
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
