//! What may be typed on the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::failure::{EXIT_CODES, Failure};
#[cfg(target_os = "linux")]
use crate::supervisor::launch::Launch;

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

    /// Check the node and the walls around its daemons, and say what to mend
    #[command(after_help = DOCTOR_HELP)]
    Doctor,

    /// List the other members of the network
    #[command(after_help = PEERS_HELP)]
    Peers,

    /// Show the routing table
    #[command(after_help = ROUTES_HELP)]
    Routes,

    /// Make, list and revoke invites
    #[command(subcommand, arg_required_else_help = true)]
    Invite(InviteCommand),

    /// Join a network with an invite code
    #[command(after_help = JOIN_HELP)]
    Join(Join),

    /// Have nothing to do with a member: cut its tunnel and its messages, on this node alone
    #[command(subcommand, arg_required_else_help = true)]
    Ban(BanCommand),

    /// Take a member's membership back, for good and for the whole network
    #[command(after_help = REVOKE_HELP)]
    Revoke(Revoke),

    /// Leave the network for good
    #[command(after_help = LEAVE_HELP)]
    Leave(Leave),

    /// Show this node's keys, and change the passphrase that seals them
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),

    /// Run a node in the foreground: start its three daemons and keep them running
    #[command(after_help = UP_HELP)]
    Up(Box<Up>),

    /// The last steps of a daemon's process before it becomes the daemon.
    #[cfg(target_os = "linux")]
    #[command(name = "__launch", hide = true)]
    Launch(Launch),
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
        /// The invite's id
        id: String,
    },

    /// Make one useless
    Revoke {
        /// The invite's id
        id: String,
    },
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
        /// The member: name, node id or the beginning of one
        node: String,
    },
}

/// `i2planctl ban add`
#[derive(Debug, clap::Args)]
pub struct BanAdd {
    /// The member: name, address, node id or the beginning of one
    pub node: String,

    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// For how long: 90s, 30m, 24h, 7d or plain seconds [default: until it is lifted]
    #[arg(long, value_name = "DURATION", value_parser = crate::commands::ban::parse_duration)]
    pub duration: Option<Duration>,
}

/// `i2planctl revoke`
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// The member: name, address, node id or the beginning of one
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

/// `i2planctl invite create`
#[derive(Debug, clap::Args)]
pub struct InviteCreate {
    /// How long it is good for: 90s, 30m, 24h, 7d or plain seconds
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_expiry)]
    pub expires: Duration,

    /// How many nodes may use it; -1 for any number
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub uses: i64,
}

/// `i2planctl key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show whether the keys are sealed, and the WireGuard key's epoch and validity
    Status,

    /// Begin a new epoch of the WireGuard key now, without interrupting traffic
    #[command(after_help = ROTATE_HELP)]
    Rotate,

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

    /// Taken only to be refused with an explanation.
    #[arg(hide = true)]
    pub code: Vec<OsString>,
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
    #[arg(long, value_name = "DIR", default_value = "/run/i2plan")]
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

const ROTATE_HELP: &str = "\
Keys are rotated every seven days by themselves. The key before is accepted for ten minutes more, while the other \
members learn of the new one; sessions go on meanwhile. Once a minute at most.";

const DOCTOR_HELP: &str = "\
What is said of a daemon's walls is what the kernel reports in /proc, and for Landlock what the daemon reports.

The exit status is 1 if there is something to mend; findings marked `note` need not be.";

const ROUTES_HELP: &str = "\
HOPS is 1 for a member that answers this node itself, 2 for one that answers through another (VIA) only, and - for \
one that cannot be reached. Packets of the tunnel always go directly. A member without IPv4 address has to give way \
to another that claims the same.";

const REVOKE_HELP: &str = "\
Only the network's founder and those over whom the member was invited can. All who were invited over it, directly or \
not, are out with it; others can invite those again. The revoked identity cannot come back.";

const LEAVE_HELP: &str = "\
The others are told. The node keeps its identity, and can join this or another network with a new invite.";

const PEERS_HELP: &str = "\
A peer is up while its last WireGuard handshake is at most three minutes old. One that is not is away if it has \
said that it shuts down, and unreachable if several members could not reach it. HEARD is its last control message, \
RTT how long its last answer to one took. DROPS are packets that waited too long to be sent to it (tx), or came from it and were not accepted \
(rx).";

const INVITE_CREATE_HELP: &str = "\
The code alone is printed on standard output, all else on standard error. Whoever has it can join: \
send it over a channel that others do not read.

Examples:
  i2planctl invite create
  i2planctl invite create --expires 7d --uses 5
  i2planctl invite create > invite.txt";

const JOIN_HELP: &str = "\
The code is asked for, or read from standard input if that is no terminal. It is not taken as an \
argument: every user of a machine can read those.

Examples:
  i2planctl join
  i2planctl join --file invite.txt
  ssh other-node i2planctl invite create | i2planctl join";

const CHANGE_PASSPHRASE_HELP: &str = "\
Needs root, and a node that does not run. What is not read from a descriptor is asked for. The old passphrase \
still opens copies that were made before, such as backups.

Examples:
  sudo i2planctl key change-passphrase
  sudo i2planctl key change-passphrase --new-passphrase-fd 3 3< passphrase.txt
  sudo i2planctl key change-passphrase --remove";

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
  sudo i2planctl up --keyd-user 990 --meshd-user 991 --tund-user 992";

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

fn parse_expiry(text: &str) -> Result<Duration, String> {
    match i2plan_meshd::config::parse_duration(text) {
        Some(Duration::ZERO) => Err("an invite that has expired invites nobody".to_owned()),
        Some(duration) => Ok(duration),
        None => {
            Err("write a number with s, m, h or d, such as 90s, 30m, 24h or 7d, or plain seconds".to_owned())
        }
    }
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
