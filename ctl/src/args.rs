//! What may be typed on the command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use i2plan_ipc::api::tund::check_interface_name;

use crate::commands::ban::BanCommand;
use crate::commands::config::ConfigCommand;
use crate::commands::doctor::{self, Doctor};
use crate::commands::endpoint::{self, EndpointArgs};
use crate::commands::events::{self, EventsArgs};
use crate::commands::grant::{self, Grant};
use crate::commands::invite::InviteCommand;
use crate::commands::join::{self, Join};
use crate::commands::key::KeyCommand;
use crate::commands::leave::{self, Leave};
use crate::commands::metrics;
use crate::commands::names::{self, Names};
#[cfg(target_os = "linux")]
use crate::commands::peer::{self, PeerCommand};
use crate::commands::peers::{self, Peers};
use crate::commands::ping::{self, Ping};
use crate::commands::revoke::{self, Revoke};
use crate::commands::rpc::{self, Rpc};
use crate::commands::up::{self, Up};
use crate::commands::web::{self, Web};
use crate::commands::wg::{self, WgCommand};
use crate::commands::whois::{self, Whois};
use crate::commands::{completions, routes, status, tree};
use crate::failure::{EXIT_CODES, Failure};
use crate::tui;

/// Control an i2plan node: WireGuard over I2P.
#[derive(Debug, Parser)]
#[command(name = "i2planctl", version, after_help = EXIT_CODES)]
pub struct Args {
    /// Print JSON, errors too: {"error":{"kind","message","hint"}}
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,

    /// Show times as dates, not as how long ago they were
    #[arg(long, global = true, display_order = 100)]
    pub absolute: bool,

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

    /// The interface with static peers of this name, in place of the node
    #[arg(
        long = "static",
        global = true,
        display_order = 102,
        value_name = "NAME",
        value_parser = interface_name
    )]
    pub static_interface: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the state of the node: what is wrong first, and what to do about it
    #[command(after_help = status::HELP)]
    Status,

    /// Check the node and the sandboxes of its daemons, and say what to fix
    #[command(after_help = doctor::HELP)]
    Doctor(Doctor),

    /// List the other members of the network, or the peers of a static interface
    #[command(after_help = peers::HELP)]
    Peers(Peers),

    /// Show who was invited by whom
    #[command(after_help = tree::HELP)]
    Tree,

    /// Say which member has an address
    #[command(after_help = whois::HELP)]
    Whois(Whois),

    /// Change the peers of an interface with static peers
    #[cfg(target_os = "linux")]
    #[command(subcommand, after_help = peer::HELP)]
    Peer(PeerCommand),

    /// Print where an interface with static peers takes packets, for its peers' files
    #[command(after_help = endpoint::HELP)]
    Endpoint(EndpointArgs),

    /// Show the routing table
    #[command(after_help = routes::HELP)]
    Routes,

    /// List the names of the members in the DNS, and tell them to this host
    #[command(after_help = names::HELP)]
    Names(Names),

    /// Send echo requests to a member through the tunnel, and tell loss and round-trip times
    #[command(after_help = ping::HELP)]
    Ping(Ping),

    /// Stream the events of the node
    #[command(after_help = events::HELP)]
    Events(EventsArgs),

    /// Make, list and revoke invites
    #[command(subcommand, arg_required_else_help = true)]
    Invite(InviteCommand),

    /// Join a network with an invite code
    #[command(after_help = join::HELP)]
    Join(Join),

    /// Ban a member on this node: cut its tunnel and its messages
    #[command(subcommand, arg_required_else_help = true)]
    Ban(BanCommand),

    /// Watch and control the node on the whole terminal
    #[command(after_help = tui::HELP)]
    Tui,

    /// Delegate more addresses to a member that this node has invited
    #[command(after_help = grant::HELP)]
    Grant(Grant),

    /// Revoke a member's certificate: it and the members below it are out of the network
    #[command(after_help = revoke::HELP)]
    Revoke(Revoke),

    /// Leave the network
    #[command(after_help = leave::HELP)]
    Leave(Leave),

    /// Show this node's keys, and change the passphrase that seals them
    #[command(subcommand, arg_required_else_help = true, alias = "keys")]
    Key(KeyCommand),

    /// Show, change and check the configuration
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),

    /// Make WireGuard keys, as `wg` does
    #[command(subcommand, arg_required_else_help = true, after_help = wg::HELP)]
    Wg(WgCommand),

    /// Print what a shell needs to complete this program's commands, and the names of members
    #[command(after_help = completions::HELP)]
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
    #[command(after_help = rpc::HELP)]
    Rpc(Rpc),

    /// Print a link to the web pages of the node, list their sessions, and end them
    #[command(after_help = web::HELP)]
    Web(Web),

    /// Print the metrics of the node, in Prometheus' text format
    #[command(after_help = metrics::HELP)]
    Metrics,

    /// Run a node in the foreground: start its daemons and keep them running
    #[command(after_help = up::HELP)]
    Up(Box<Up>),
}

/// The name of an interface, which is part of a path.
pub(crate) fn interface_name(name: &str) -> Result<String, String> {
    check_interface_name(name).map(|()| name.to_owned())
}

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
    let first = argv.iter().skip(1).find(|arg| !arg.to_string_lossy().starts_with('-')).cloned();
    let first = first.unwrap_or_default();
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
            ErrorKind::InvalidSubcommand if of_others(&first).is_some() => {
                let (name, hint) = of_others(&first).unwrap_or_default();
                Err(Failure::usage(format!("there is no command {name}")).with_hint(hint))
            }
            _ if json => Err(json_failure(&error)),
            _ => Ok(Parsed::Misused(error)),
        },
    }
}

/// A command that other such programs have, and what does the same here.
fn of_others(name: &OsStr) -> Option<(&'static str, &'static str)> {
    const COMMANDS: [(&str, &str); 8] = [
        ("ip", "`i2planctl status` shows this node's addresses, `i2planctl peers` those of the others"),
        (
            "down",
            "stop the node where it runs: `sudo systemctl stop i2plan.target`, or Ctrl-C in `i2planctl up`",
        ),
        (
            "stop",
            "stop the node where it runs: `sudo systemctl stop i2plan.target`, or Ctrl-C in `i2planctl up`",
        ),
        (
            "start",
            "`sudo systemctl start i2plan.target` where the daemons are services, else `sudo i2planctl up`",
        ),
        (
            "logs",
            "`journalctl -u 'i2plan-*'` where the daemons are services, else what `i2planctl up` prints",
        ),
        ("log", "`journalctl -u 'i2plan-*'` where the daemons are services, else what `i2planctl up` prints"),
        ("list", "`i2planctl peers` lists the members, `i2planctl invite list` the invites"),
        ("show", "`i2planctl peers -v` shows all about the members, `i2planctl status` the node"),
    ];
    COMMANDS.into_iter().find(|(command, _)| name == *command)
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
    fn a_static_interface_is_named() {
        let Ok(Parsed::Run(args)) = parse_text("i2planctl --static wg0 peers") else { panic!("a command") };
        assert_eq!(args.static_interface.as_deref(), Some("wg0"));
        // It becomes a part of a path.
        assert!(matches!(parse_text("i2planctl --static ../x peers"), Ok(Parsed::Misused(_))));
        assert!(matches!(parse_text("i2planctl --static wg0 up"), Ok(Parsed::Run(_))));
        assert!(
            matches!(parse_text("i2planctl up --interface wg1"), Ok(Parsed::Misused(_))),
            "without a peer"
        );
        assert!(matches!(parse_text("i2planctl up --wg x.conf --style tcp"), Ok(Parsed::Misused(_))));
    }

    #[test]
    fn commands_of_other_programs_lead_to_those_that_do_the_same() {
        for (name, hint) in [("down", "systemctl stop"), ("logs", "journalctl"), ("ip", "i2planctl status")] {
            let failure = parse_text(&format!("i2planctl {name}")).expect_err(name);
            assert_eq!(
                (failure.exit_code(), failure.message.as_str()),
                (2, format!("there is no command {name}").as_str())
            );
            assert!(failure.hint.unwrap().contains(hint), "{name}");
        }
        // What other commands take is not meant.
        assert!(matches!(parse_text("i2planctl invite down"), Ok(Parsed::Misused(_))));
        assert!(matches!(parse_text("i2planctl sttaus"), Ok(Parsed::Misused(_))));
        assert!(matches!(parse_text("i2planctl invite list"), Ok(Parsed::Run(_))));
    }

    #[test]
    fn up_takes_no_socket() {
        assert!(parse_text("i2planctl up --socket /x").is_err());
    }
}
