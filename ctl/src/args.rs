//! What may be typed on the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use i2plan_ipc::paths;
use i2plan_proto::address::Ipv4Subnet;

use crate::commands::completions;
use crate::failure::{EXIT_CODES, Failure};
use crate::output::qr::Style;
use crate::ping::series::Plan;

/// Control an i2plan node: WireGuard over I2P.
#[derive(Debug, Parser)]
#[command(name = "i2planctl", version, after_help = EXIT_CODES)]
pub struct Args {
    /// Print JSON, errors too: {"error":{"kind","message","hint"}}
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,

    /// The node's control socket [default: /run/i2plan/meshd.sock, else ~/.i2plan/run/meshd.sock]
    #[arg(
        long,
        global = true,
        display_order = 101,
        value_name = "PATH",
        env = "I2PLAN_SOCKET",
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the state of the node: what is wrong first, and what to do about it
    #[command(after_help = "The exit status is 0 if the node answered, whatever state it is in.")]
    Status,

    /// Check the node and the sandboxes of its daemons, and say what to fix
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),

    /// List the other members of the network
    #[command(after_help = PEERS_HELP)]
    Peers,

    /// Show the routing table
    #[command(after_help = ROUTES_HELP)]
    Routes,

    /// Send echo requests to a member through the tunnel, and tell loss and round-trip times
    #[command(after_help = PING_HELP)]
    Ping(Ping),

    /// Stream the events of the node
    #[command(after_help = EVENTS_HELP)]
    Events(EventsArgs),

    /// Make, list and revoke invites
    #[command(subcommand, arg_required_else_help = true)]
    Invite(InviteCommand),

    /// Join a network with an invite code
    #[command(after_help = JOIN_HELP)]
    Join(Join),

    /// Ban a member on this node: cut its tunnel and its messages
    #[command(subcommand, arg_required_else_help = true)]
    Ban(BanCommand),

    /// Watch and control the node on the whole terminal
    #[command(after_help = TUI_HELP)]
    Tui,

    /// Delegate more addresses to a member that this node has invited
    #[command(after_help = GRANT_HELP)]
    Grant(Grant),

    /// Revoke a member's certificate: it and the members below it are out of the network
    #[command(after_help = REVOKE_HELP)]
    Revoke(Revoke),

    /// Leave the network
    #[command(after_help = LEAVE_HELP)]
    Leave(Leave),

    /// Show this node's keys, and change the passphrase that seals them
    #[command(subcommand, arg_required_else_help = true, alias = "keys")]
    Key(KeyCommand),

    /// Show, change and check the configuration
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),

    /// Print what a shell needs to complete this program's commands, and the names of members
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: completions::Shell,
    },

    /// Print version, commit and build time
    Version {
        /// Those of the daemons that run, too
        #[arg(long)]
        all: bool,
    },

    /// Call a method of the node's JSON-RPC interface
    #[command(after_help = RPC_HELP)]
    Rpc(Rpc),

    /// Run a node in the foreground: start its daemons and keep them running
    #[command(after_help = UP_HELP)]
    Up(Box<Up>),
}

/// `i2planctl invite …`
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// Make an invite; the first one on a fresh node founds the network
    #[command(after_help = INVITE_CREATE_HELP)]
    Create(InviteCreate),

    /// List the invites that this node has made
    List,

    /// Show one of them, and who has used it; the code itself is not kept
    Show {
        /// The invite's id, or the beginning of it
        #[arg(add = ArgValueCandidates::new(completions::invites))]
        id: String,
    },

    /// Let the users of an invite join although this node has delegated 256 addresses today
    Allow(InviteAllow),

    /// Revoke an invite: no other node can join with it
    #[command(after_help = INVITE_REVOKE_HELP)]
    Revoke(InviteRevoke),
}

/// `i2planctl ban …`
#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// Ban a member
    Add(BanAdd),

    /// List the bans
    List,

    /// Lift a ban
    Remove {
        /// The member: name, address, node id or the beginning of one
        #[arg(add = ArgValueCandidates::new(completions::banned))]
        node: String,
    },
}

/// `i2planctl ban add`
#[derive(Debug, clap::Args)]
pub struct BanAdd {
    /// The member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: String,

    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// For how long: 90s, 30m, 24h, 7d or plain seconds [default: until it is lifted]
    #[arg(long, value_name = "DURATION", value_parser = crate::commands::ban::parse_duration)]
    pub duration: Option<Duration>,
}

/// `i2planctl invite revoke`
#[derive(Debug, clap::Args)]
pub struct InviteRevoke {
    /// The invite's id, or the beginning of it
    #[arg(add = ArgValueCandidates::new(completions::invites))]
    pub id: String,

    /// Revoke the memberships of the nodes that have used it, too
    #[arg(long)]
    pub with_members: bool,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl grant`
#[derive(Debug, clap::Args)]
pub struct Grant {
    /// The member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: String,

    /// How many more addresses, a power of two
    #[arg(long, value_name = "N", value_parser = parse_addresses)]
    pub addresses: u32,

    /// Do not ask, where that takes an order: more than 256 addresses a day
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl invite allow`
#[derive(Debug, clap::Args)]
pub struct InviteAllow {
    /// The invite's id, or the beginning of it
    #[arg(add = ArgValueCandidates::new(completions::invites))]
    pub id: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
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

/// `i2planctl revoke`
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The member: name, address, node id or the beginning of one
    #[arg(add = ArgValueCandidates::new(completions::members))]
    pub node: String,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl leave`
#[derive(Debug, clap::Args)]
pub struct Leave {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl doctor`
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Configuration file [default: ~/.i2plan/config.toml, else /etc/i2plan/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the daemons keep their state [default: node.data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `i2planctl ping`
#[derive(Debug, clap::Args)]
pub struct Ping {
    /// The member: name, address, node id or the beginning of one; or any address
    #[arg(value_name = "MEMBER", add = ArgValueCandidates::new(completions::members))]
    pub target: String,

    /// Stop after so many requests; with --deadline, after so many replies [default: at Ctrl-C]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,

    /// Time between requests: 0.5, 200ms, 1s or 1m, at least 10ms
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,

    /// How long a reply may take, at most 5m
    #[arg(short = 'W', long, value_name = "TIME", default_value = "10s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// Stop after this time, whatever was answered
    #[arg(short = 'w', long, value_name = "TIME", value_parser = parse_time)]
    pub deadline: Option<Duration>,

    /// Use the member's IPv4 address
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Use the member's IPv6 address
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

impl Ping {
    /// What is to be sent.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan { count: self.count, interval: self.interval, timeout: self.timeout, deadline: self.deadline }
    }
}

/// `i2planctl events`
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Tell first what has happened in this time, as far as the node remembers it: 90s, 30m, 24h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    pub since: Option<Duration>,

    /// Stop after so many events
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,

    /// Tell the lines of meshd's log too
    #[arg(long)]
    pub log: bool,
}

/// `i2planctl config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show all keys with their values, where those come from, and whether they can be changed at run time
    #[command(after_help = CONFIG_SHOW_HELP)]
    Show,

    /// Print the value of one key
    Get {
        /// The key, such as node.name
        #[arg(add = ArgValueCandidates::new(completions::settings))]
        key: String,
    },

    /// Change a key until the node is started again
    Set {
        /// The key, such as node.name
        #[arg(add = ArgValueCandidates::new(completions::settings))]
        key: String,

        /// The value, as it would stand in the environment
        value: String,
    },

    /// Have the node read its file again, as SIGHUP does
    Reload,

    /// Check a configuration file, without a node
    Check {
        /// The file [default: ~/.i2plan/config.toml, else /etc/i2plan/config.toml]
        file: Option<PathBuf>,
    },

    /// Print a configuration file with every key and its default in comments
    Example,
}

/// `i2planctl invite create`
#[derive(Debug, clap::Args)]
pub struct InviteCreate {
    /// How long it is good for: 90s, 30m, 24h, 7d or plain seconds
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_expiry)]
    pub expires: Duration,

    /// How many nodes may use it; -1 for any number
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub uses: i64,

    /// How many addresses each node gets, a power of two: its own, and the rest for nodes that it invites
    /// [default: 1/256 of this node's, at most 16; 1 if several may use the invite]
    #[arg(long, value_name = "N", value_parser = parse_addresses)]
    pub addresses: Option<u32>,

    /// The IPv4 subnet of the network that the first invite founds [default: mesh.tunnel_subnet, or one of which this
    /// host uses no address]
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Option<Ipv4Subnet>,

    /// Draw it as a QR code too: on a terminal, or anywhere if it is said with what
    #[arg(long, value_name = "STYLE", num_args = 0..=1, require_equals = true)]
    pub qr: Option<Option<Style>>,

    /// Do not ask, where that takes an order: for an unlimited invite, or more than 256 addresses
    #[arg(long)]
    pub yes: bool,
}

/// `i2planctl key …`
#[derive(Debug, Subcommand)]
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

    /// Print the public keys: identity, control destination, network, WireGuard
    #[command(name = "export-public")]
    ExportPublic,

    /// Seal the keys of a stopped node with a new passphrase, or unseal them
    #[command(name = "change-passphrase", after_help = CHANGE_PASSPHRASE_HELP)]
    ChangePassphrase(ChangePassphrase),
}

/// `i2planctl key change-passphrase`
#[derive(Debug, clap::Args)]
pub struct ChangePassphrase {
    /// Configuration file [default: /etc/i2plan/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the daemons keep their state [default: node.data_dir, /var/lib/i2plan]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

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

/// `i2planctl join`
#[derive(Debug, clap::Args)]
pub struct Join {
    /// Read the invite code from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Taken only to be refused with an explanation.
    #[arg(hide = true)]
    pub code: Vec<OsString>,
}

/// `i2planctl rpc`
#[derive(Debug, clap::Args)]
pub struct Rpc {
    /// The method; rpc.discover describes all of them
    pub method: String,

    /// Its parameters, a JSON object or array; - reads them from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    pub params: Option<String>,
}

/// `i2planctl up`
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Configuration file [default: ~/.i2plan/config.toml or /etc/i2plan/config.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Write the log here instead of to standard error; SIGHUP opens the file again
    #[arg(long, value_name = "FILE", env = "I2PLAN_LOG_FILE")]
    pub log_file: Option<PathBuf>,

    /// Where the daemons keep their state [default: node.data_dir, /var/lib/i2plan]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the daemons' sockets are
    #[arg(long, value_name = "DIR", default_value = paths::RUN_DIR)]
    pub runtime_dir: PathBuf,

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

const RECOVER_HELP: &str = "\
keyd remembers which addresses this node has delegated to the members that it has invited, so that it never certifies \
two members for one address. If its files `memory` or `delegations` are lost or damaged, it certifies no new members \
until this command has told it what other members know, and you have confirmed that this is all. Run it while they are \
reachable, and compare what it shows with what you know: addresses of a member that is not among those may be given out \
again.";

const FORGET_NETWORK_HELP: &str = "\
keyd signs for one network alone, and changes it when this node has left or was revoked. Where meshd's state is lost, \
nobody can leave for it: this command makes keyd ready for the next network. Members of the network before are not told.";

const ROTATE_HELP: &str = "\
Keys are rotated every seven days by themselves. The key before is accepted for ten minutes more, while the other \
members learn of the new one; sessions go on meanwhile. Once a minute at most.";

const DOCTOR_HELP: &str = "\
Works without a node that answers too: it then looks for what keeps it from running. What is said of a daemon's sandbox \
is what the kernel reports in /proc, and for Landlock what the daemon reports. With sudo it sees more.

The exit status is 1 if there is something to fix; findings marked `note` need not be.";

const PING_HELP: &str = "\
Needs no privileges where net.ipv4.ping_group_range has the user's group, as it has on most systems, and root \
elsewhere. With an address no node needs to run here.

The exit status is 0 if anything was answered, and 1 if nothing was.

Examples:
  i2planctl ping web
  i2planctl ping web -6 -c 10 -i 0.2
  i2planctl ping web -c 1 -w 1m        # wait until it answers";

const EVENTS_HELP: &str = "\
Begins with what happens next, or with --since, and goes on until Ctrl-C, also while the node is away. It says so \
when it has missed something. The node remembers its last 1024 events, since meshd was started. With --json each \
event is one line.

Examples:
  i2planctl events
  i2planctl events --since 10m --log
  i2planctl events --json | jq --unbuffered 'select(.event == \"member_life\")'";

const CONFIG_SHOW_HELP: &str = "\
FROM is a line of the file, a variable of the environment, `config set`, or default. What is changed `at restart` \
counts only after the node was started again.";

const COMPLETIONS_HELP: &str = "\
Members, invites and keys of the configuration are asked of the node, if it runs and this user may ask.

Examples:
  source <(i2planctl completions bash)                     # in ~/.bashrc
  source <(i2planctl completions zsh)                      # in ~/.zshrc, after compinit
  i2planctl completions fish > ~/.config/fish/completions/i2planctl.fish";

const ROUTES_HELP: &str = "\
HOPS is 1 for a member that answers this node itself, 2 for one that answers through another (VIA) only, and - for \
one that cannot be reached. Packets of the tunnel always go directly. RANGE is shown if a member holds more than one \
address.";

const GRANT_HELP: &str = "\
The member keeps its address and those that it has delegated. It can delegate the new ones to nodes that it invites, \
as soon as it has received its new certificate. A member holds four ranges at most.

Examples:
  i2planctl grant web --addresses 64";

const REVOKE_HELP: &str = "\
Only the network's founder and the member's other inviters can. The members below it, which it has invited directly or \
not, are out with it. What is revoked is the certificate, not the identity: any member can invite the node again. Its \
addresses are not delegated to another node for 30 days.";

const INVITE_REVOKE_HELP: &str = "\
The nodes that have used it stay members. With --with-members, their memberships and those of the members below them \
end too; the nodes can be invited again.

Examples:
  i2planctl invite revoke mq4xk2
  i2planctl invite revoke mq4xk2 --with-members";

const TUI_HELP: &str = "\
Press ? there for the keys. A secret is on the screen only when it was asked for, and not for long.";

const LEAVE_HELP: &str = "\
The others are told. The node keeps its identity, and can join this or another network with a new invite.";

const PEERS_HELP: &str = "\
A peer is up while its last WireGuard handshake is at most three minutes old. One that is not is away if it has \
said that it shuts down, and unreachable if several members could not reach it. HEARD is its last control message, \
RTT how long its last answer to one took. DROPS are packets that waited too long to be sent to it (tx), or came from it \
and were not accepted (rx). RANGE is shown if a member holds more than one address: others are for nodes that it invites.";

const INVITE_CREATE_HELP: &str = "\
The code alone is printed on standard output, all else on standard error. Whoever has it can join: \
send it over a channel that others do not read. An unlimited one, and one for more than 256 addresses, is an order: keyd \
says what it will sign, and asks.

Examples:
  i2planctl invite create
  i2planctl invite create --expires 7d --uses 5
  i2planctl invite create --addresses 1024      # for a deputy, which can invite many nodes
  i2planctl invite create --subnet 10.9.0.0/16  # the first one: founds a network
  i2planctl invite create --qr
  i2planctl invite create > invite.txt";

const JOIN_HELP: &str = "\
The code is asked for, or read from standard input if that is no terminal. It is not taken as an \
argument: every user of a machine can read those.

The network and its subnet are shown first, and a question is asked: packets of this host for the subnet go to the \
network's members from then on. Nothing is joined if the host uses addresses of the subnet, or mesh.accept_subnets does \
not contain it.

Examples:
  i2planctl join
  i2planctl join --file invite.txt
  ssh other-node i2planctl invite create | i2planctl join
  i2planctl join --yes < invite.txt             # in a script";

const CHANGE_PASSPHRASE_HELP: &str = "\
Needs root, and a node that does not run. What is not read from a descriptor is asked for. The old passphrase \
still opens copies that were made before, such as backups.

Examples:
  sudo i2planctl key change-passphrase
  sudo i2planctl key change-passphrase --new-passphrase-fd 3 3< passphrase.txt
  sudo i2planctl key change-passphrase --remove";

const RPC_HELP: &str = "\
Prints the result as JSON. The socket is rpc.sock beside the control socket, unless --socket names another.

An invite code is a secret: give it on standard input.

Examples:
  i2planctl rpc status
  i2planctl rpc bans.add '{\"node_id\": \"…\", \"duration\": \"1h\"}'
  i2planctl rpc events.poll '[null, 10000]'
  i2planctl rpc invite.accept - < params.json";

const UP_HELP: &str = "\
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
  sudo i2planctl up --keyd-user 990 --meshd-user 991 --tund-user 992 --connector-user 993 --rpc-user 994";

/// No time on the command line is longer.
const MAX_TIME: Duration = Duration::from_secs(366 * 86_400);

/// What a command line comes to.
#[derive(Debug)]
pub enum Parsed {
    /// A command to run.
    Run(Args),
    /// A text to print: the help that was asked for.
    Print(String),
    /// The version was asked for.
    Version,
    /// It is wrong, as clap explains.
    Misused(clap::Error),
}

/// Reads the command line.
///
/// # Errors
/// [`Failure::usage`] for what is refused with an explanation of its own, and for all that is wrong where JSON
/// is asked for.
pub fn parse(argv: Vec<OsString>) -> Result<Parsed, Failure> {
    // Before clap, whose messages repeat what they complain about.
    if argv.iter().skip(1).any(|arg| may_be_code(arg)) {
        return Err(code_on_command_line());
    }
    let json = asks_for_json(&argv);
    let result = Args::command()
        .try_get_matches_from(argv)
        .and_then(|matches| Ok((matches.value_source("socket"), Args::from_arg_matches(&matches)?)));
    match result {
        Ok((_, Args { command: Command::Join(Join { code, .. }), .. })) if !code.is_empty() => {
            Err(code_on_command_line())
        }
        Ok((Some(ValueSource::CommandLine), Args { command: Command::Up(_), .. })) => {
            Err(Failure::usage("--socket names the socket of a running node, and up starts one")
                .with_hint("choose where it makes its sockets with --runtime-dir"))
        }
        Ok((_, args)) => Ok(Parsed::Run(args)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp => Ok(Parsed::Print(error.render().to_string())),
            ErrorKind::DisplayVersion => Ok(Parsed::Version),
            _ if json => Err(json_failure(&error)),
            _ => Ok(Parsed::Misused(error)),
        },
    }
}

/// Whether `--json` is on the command line, right or wrong as that is.
#[must_use]
pub fn asks_for_json(argv: &[OsString]) -> bool {
    argv.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Whether an argument looks like an invite code or the larger part of one.
fn may_be_code(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy().to_ascii_lowercase();
    let is_base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // A code is some 250 characters long, and no id or user name is half of that.
    text.contains("i2plan:/") || text.split(|c| !is_base64url(c)).any(|run| run.len() >= 100)
}

fn code_on_command_line() -> Failure {
    Failure::usage(
        "an invite code is not taken on the command line: every user of this machine can see it there, \
         and the shell keeps it in its history",
    )
    .with_hint(
        "run `i2planctl join` and paste the code when asked, or use `--file FILE` or a pipe; \
         if others use this machine, have a new invite made",
    )
}

fn json_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message: Vec<_> = message.lines().map(str::trim).collect();
    let message = message.join(" ");
    Failure::usage(message.trim_start_matches("error: ")).with_hint("see `i2planctl --help`")
}

/// Seconds, with a fraction, or with a unit from ms to d.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number of seconds such as 0.5, or one with ms, s, m or h".to_owned();
    let seconds = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let seconds = plain.then(|| text.parse().ok()).flatten();
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    };
    let time = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => millis.parse().ok().map(Duration::from_millis),
        (None, Some(text)) => seconds(text),
        (None, None) => seconds(text).or_else(|| i2plan_config::parse_duration(text)),
    };
    time.filter(|time| *time <= MAX_TIME).ok_or_else(wrong)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        short if short < Duration::from_millis(10) => Err("at least 10ms".to_owned()),
        interval => Ok(interval),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_time(text)? {
        long if long > Duration::from_secs(300) => Err("at most 5m".to_owned()),
        timeout => Ok(timeout),
    }
}

pub(crate) fn parse_expiry(text: &str) -> Result<Duration, String> {
    match i2plan_config::parse_duration(text) {
        Some(Duration::ZERO) => Err("an invite that has expired invites nobody".to_owned()),
        Some(duration) => Ok(duration),
        None => Err(HOW_LONG.to_owned()),
    }
}

/// How a duration is written.
pub(crate) const HOW_LONG: &str =
    "write a number with s, m, h or d, such as 90s, 30m, 24h or 7d, or plain seconds";

/// A number of addresses.
///
/// # Errors
/// What to write in its place.
pub(crate) fn parse_addresses(text: &str) -> Result<u32, String> {
    let number = text.parse().map_err(|_| "write a power of two, such as 1, 16 or 1024".to_owned())?;
    match number {
        0 => Err("a node needs at least 1".to_owned()),
        number if u32::is_power_of_two(number) => Ok(number),
        number => {
            let (less, more) = (1u64 << number.ilog2(), 1u64 << (number.ilog2() + 1));
            Err(format!("{number} is not a power of two; use {less} or {more}"))
        }
    }
}

fn parse_since(text: &str) -> Result<Duration, String> {
    i2plan_config::parse_duration(text).ok_or_else(|| HOW_LONG.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(line: &str) -> Result<Parsed, Failure> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn the_definitions_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_go_before_and_after_the_command() {
        for line in ["i2planctl --json --socket /x status", "i2planctl status --json --socket /x"] {
            let Ok(Parsed::Run(args)) = parse_text(line) else { panic!("{line}") };
            assert!(args.json);
            assert_eq!(args.socket, Some("/x".into()));
        }
    }

    #[test]
    fn durations_of_invites() {
        assert_eq!(parse_expiry("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_expiry("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(parse_expiry("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["0", "0h", "1w", "-1h", "", "1.5h", "99999999999999999999"] {
            assert!(parse_expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_a_power_of_two() {
        for (text, number) in [("1", 1), ("16", 16), ("2147483648", 1 << 31)] {
            assert_eq!(parse_addresses(text), Ok(number));
        }
        assert_eq!(parse_addresses("12").unwrap_err(), "12 is not a power of two; use 8 or 16");
        let largest = parse_addresses("4294967295").unwrap_err();
        assert!(largest.ends_with("use 2147483648 or 4294967296"), "{largest}");
        for wrong in ["0", "-1", "", "x", "1.5", "/28", "4294967296"] {
            assert!(parse_addresses(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_of_a_ping() {
        for (text, millis) in [("0.5", 500), ("200ms", 200), ("1s", 1000), ("1.5s", 1500), ("2m", 120_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "ms", "s", "-1", "1e3", "inf", "nan", "1x", "99999999999999999999"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
        assert!(parse_interval("9ms").is_err() && parse_timeout("6m").is_err());
    }

    #[test]
    fn a_code_is_refused_anywhere_and_not_repeated() {
        let run = "Ab-_9".repeat(24);
        for line in [
            "join i2plan://secret".to_owned(),
            "join I2Plan://secret".to_owned(),
            "join secret".to_owned(),
            "join -- secret".to_owned(),
            "i2plan://secret".to_owned(),
            "status --socket=i2plan://secret".to_owned(),
            "join --file i2plan://secret".to_owned(),
            "jion secret i2plan://secret".to_owned(),
            format!("accept {run}"),
            format!("--json accept {run}"),
        ] {
            let failure = parse_text(&format!("i2planctl {line}")).expect_err(&line);
            assert_eq!(failure.exit_code(), 2);
            let text = format!("{failure:?}");
            assert!(text.contains("is not taken on the command line"), "{line}");
            assert!(!text.contains("secret") && !text.contains(&run), "{line}");
        }
    }

    #[test]
    fn names_and_paths_are_no_codes() {
        for arg in
            ["/home/someone/i2plan/invite.txt", "i2plan-keyd", "ihzchh5kkxzrmaldd6ljxvnjw3n75nmevm2b3sqt"]
        {
            assert!(!may_be_code(OsStr::new(arg)), "{arg}");
        }
    }

    #[test]
    fn up_takes_no_socket() {
        assert!(parse_text("i2planctl up --socket /x").is_err());
    }
}
