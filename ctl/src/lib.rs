//! i2plan's command line.
//!
//! * [`args`]: what may be typed.
//! * [`commands`]: one file for each command.
//! * [`daemon`]: the connection to `meshd`, and what to do when there is none.
//! * [`failure`]: errors as a user sees them, and exit codes.
//! * [`output`]: standard output and standard error, JSON, QR codes.
//! * [`ping`]: echo requests over ICMP.
//! * [`passphrase`]: passphrases on their way to `keyd`.
//! * [`services`]: the node as services of systemd.
//! * [`tui`]: `i2planctl tui`, on the whole terminal.
//! * [`up`]: `i2planctl up`, which runs the daemons of a node (`i2plan_supervisor`); on Linux alone.
//! * [`values`]: durations and numbers as people write them.
//! * [`wireguard`]: descriptions of interfaces with static peers.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use i2plan_ipc::paths::static_socket;
use i2plan_present::look::Tone;
use i2plan_present::text::lines;

use crate::args::{Args, Command, Parsed};
use crate::commands::ban::BanCommand;
use crate::commands::config::ConfigCommand;
use crate::commands::invite::{InviteAllow, InviteCommand};
use crate::commands::key::{ForgetNetwork, KeyCommand};
use crate::failure::Failure;
#[cfg(target_os = "linux")]
use crate::passphrase::Given;

pub mod args;
pub mod commands;
pub mod daemon;
pub mod failure;
pub mod output;
#[cfg(target_os = "linux")]
pub mod passphrase;
pub mod ping;
pub mod services;
pub mod tui;
#[cfg(target_os = "linux")]
pub mod up;
pub mod values;
pub mod wireguard;

/// The command line's definition, for manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the program with the command line `argv`, its own name first.
#[must_use]
pub fn run(argv: Vec<OsString>) -> ExitCode {
    // In a process that the supervisor has started to become a daemon, this does not return unless it fails.
    #[cfg(target_os = "linux")]
    if let Err(error) = i2plan_supervisor::launch::intercept(argv.iter().cloned()) {
        return fail(&error.into(), false);
    }
    if commands::completions::answer(&argv, command) {
        return ExitCode::SUCCESS;
    }
    let json = args::asks_for_json(&argv);
    let result = match args::parse(argv) {
        Ok(Parsed::Run(args)) => execute(args),
        Ok(Parsed::Print(text)) => output::print(&text).map(done),
        Ok(Parsed::Version) => commands::version::run(json).map(done),
        Ok(Parsed::Misused(error)) => {
            // clap writes to standard error, in colour where that is a terminal, and repeats arguments as they are.
            let plain = error.render().to_string();
            match lines(&plain) {
                Cow::Borrowed(_) => drop(error.print()),
                Cow::Owned(cleaned) => output::note(cleaned.trim_end()),
            }
            return ExitCode::from(failure::USAGE);
        }
        Err(failure) => Err(failure),
    };
    match result {
        Ok(status) => status,
        Err(failure) => fail(&failure, json),
    }
}

/// Reports a failure on standard error, or as JSON on standard output.
fn fail(failure: &Failure, json: bool) -> ExitCode {
    // Where nobody listens there is nobody to tell so.
    if json {
        let _ = output::json::print(&serde_json::json!({ "error": failure }));
    } else {
        let mut text = failure.render(output::width_of(std::io::stderr()));
        if let Some(rest) = text.strip_prefix("error:") {
            text = Tone::Bad.paint("error:", output::has_colour(&std::io::stderr())) + rest;
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    ExitCode::from(failure.exit_code())
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

fn execute(args: Args) -> Result<ExitCode, Failure> {
    let Args { json, absolute, socket, static_interface, command } = args;
    let name = static_interface;
    let socket = name.as_deref().map(static_socket).or(socket);
    // Before anything is opened that could have the numbers that the command line names.
    #[cfg(target_os = "linux")]
    let given = match &command {
        Command::Up(up) => Given::take(up.passphrase_fd, None)?,
        Command::Key(KeyCommand::ChangePassphrase(change)) => {
            Given::take(change.passphrase_fd, change.new_passphrase_fd)?
        }
        _ => Given::default(),
    };
    // One thread: the daemons' parent-death signal is bound to the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Doctor(doctor) => return commands::doctor::run(socket.as_deref(), json, &doctor).await,
            Command::Ping(ping) => return commands::ping::run(socket.as_deref(), json, &ping).await,
            Command::Events(events) => commands::events::run(socket.as_deref(), json, &events).await,
            Command::Config(ConfigCommand::Show) => commands::config::show(socket.as_deref(), json).await,
            Command::Config(ConfigCommand::Get { key }) => {
                commands::config::get(socket.as_deref(), json, &key).await
            }
            Command::Config(ConfigCommand::Set { key, value, save }) => {
                commands::config::set(socket.as_deref(), json, &key, &value, save).await
            }
            Command::Config(ConfigCommand::Reload) => commands::config::reload(socket.as_deref(), json).await,
            Command::Config(ConfigCommand::Check { file }) => commands::config::check(json, file.as_deref()),
            Command::Config(ConfigCommand::Example) => commands::config::example(json),
            Command::Wg(command) => commands::wg::run(json, command),
            Command::Completions { shell } => commands::completions::print(shell, json),
            Command::Version { all: false } => commands::version::run(json),
            Command::Version { all: true } => commands::version::all(socket.as_deref(), json).await,
            Command::Endpoint(endpoint) => commands::endpoint::run(socket.as_deref(), json, &endpoint).await,
            Command::Web(web) => commands::web::run(socket.as_deref(), json, &web).await,
            Command::Metrics => commands::metrics::run(socket.as_deref(), json).await,
            Command::Status => commands::status::run(socket.as_deref(), json).await,
            Command::Peers(peers) => commands::peers::run(socket.as_deref(), json, absolute, &peers).await,
            #[cfg(target_os = "linux")]
            Command::Peer(peer) => {
                commands::peer::run(socket.as_deref(), name.as_deref(), json, absolute, peer).await
            }
            Command::Tree => commands::tree::run(socket.as_deref(), json, absolute).await,
            Command::Whois(whois) => commands::whois::run(socket.as_deref(), json, absolute, &whois).await,
            Command::Invite(InviteCommand::Create(create)) => {
                commands::invite::create(socket.as_deref(), json, &create).await
            }
            Command::Invite(InviteCommand::List) => {
                commands::invite::list(socket.as_deref(), json, absolute).await
            }
            Command::Invite(InviteCommand::Show { id }) => {
                commands::invite::show(socket.as_deref(), json, &id).await
            }
            Command::Invite(InviteCommand::Allow(InviteAllow { id, yes })) => {
                commands::invite::allow(socket.as_deref(), json, &id, yes).await
            }
            Command::Invite(InviteCommand::Revoke(revoke)) => {
                commands::invite::revoke(socket.as_deref(), json, &revoke).await
            }
            Command::Names(names) => commands::names::run(socket.as_deref(), json, &names).await,
            Command::Routes => commands::routes::run(socket.as_deref(), json, absolute).await,
            Command::Ban(BanCommand::Add(add)) => {
                commands::ban::add(socket.as_deref(), json, &add).await
            }
            Command::Ban(BanCommand::List) => commands::ban::list(socket.as_deref(), json, absolute).await,
            Command::Ban(BanCommand::Remove { node }) => {
                commands::ban::remove(socket.as_deref(), json, &node).await
            }
            Command::Grant(grant) => commands::grant::run(socket.as_deref(), json, &grant).await,
            Command::Revoke(revoke) => commands::revoke::run(socket.as_deref(), json, &revoke).await,
            Command::Leave(leave) => commands::leave::run(socket.as_deref(), json, leave.yes).await,
            Command::Tui => tui::run(socket.as_deref(), json).await,
            Command::Rpc(rpc) => commands::rpc::run(socket.as_deref(), &rpc).await,
            Command::Join(join) => commands::join::run(socket.as_deref(), json, &join).await,
            Command::Key(KeyCommand::Status) => commands::key::status(socket.as_deref(), json).await,
            Command::Key(KeyCommand::Recover(args)) => {
            commands::key::recover(socket.as_deref(), json, args.yes).await
        }
            Command::Key(KeyCommand::ForgetNetwork(ForgetNetwork { yes })) => {
                commands::key::forget_network(socket.as_deref(), json, yes).await
            }
            #[cfg(target_os = "linux")]
            Command::Key(KeyCommand::New(new)) => commands::new_keys::run(json, new),
            #[cfg(target_os = "linux")]
            Command::Key(KeyCommand::Check(check)) => return commands::new_keys::check(json, check),
            #[cfg(not(target_os = "linux"))]
            Command::Key(KeyCommand::New(_) | KeyCommand::Check(_)) => {
                Err(Failure::invalid("this works on Linux alone").with_hint(
                    "stop the node; move its directories keyd and meshd away for new keys, or run `i2plan-keyd \
                     --store DIR --check` as keyd's user",
                ))
            }
            Command::Key(KeyCommand::Rotate) => commands::key::rotate(socket.as_deref(), json).await,
            Command::Key(KeyCommand::ExportPublic) => {
                commands::key::export_public(socket.as_deref(), json).await
            }
            #[cfg(target_os = "linux")]
            Command::Key(KeyCommand::ChangePassphrase(change)) => {
                commands::change_passphrase::run(json, change, given).await
            }
            #[cfg(not(target_os = "linux"))]
            Command::Key(KeyCommand::ChangePassphrase(_)) => Err(Failure::invalid(
                "`key change-passphrase` works on Linux alone",
            )
            .with_hint("stop the node and run `i2plan-keyd --store DIR --change-passphrase` as keyd's user")),
            #[cfg(target_os = "linux")]
            Command::Up(up) => commands::up::run::run(json, *up, name.as_deref(), given).await,
            #[cfg(not(target_os = "linux"))]
            Command::Up(_) => Err(Failure::invalid("`up` runs a node on Linux alone").with_hint(
                "start i2plan-keyd, i2plan-connector and i2plan-meshd as users of their own and i2plan-tund as \
                 root, all but the connector with --listen",
            )),
        }
        .map(done)
    })
}
