//! `i2planctl config`.

use std::io;
use std::path::{Path, PathBuf};

use clap_complete::engine::ArgValueCandidates;
use i2plan_config::save::{self, SaveError};
use i2plan_config::static_interface::wg_quick::is_wg_quick;
use i2plan_config::static_interface::{Format, InterfaceFile, StaticConfig};
use i2plan_config::{Config, unknown};
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::meshd::{ConfigChange, Source};
use i2plan_present::setting::{describe, render};
use i2plan_present::text::clean;
use serde_json::json;

use super::completions;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::wireguard;

/// What `--help` adds to `show`.
const SHOW_HELP: &str = "\
FROM is a line of the file, a variable of the environment, `config set`, or default. What is changed `at restart` \
counts only after the node was started again.";

/// What `--help` adds to `set`.
const SET_HELP: &str = "\
With --save the file that the node reads gets the value, or /etc/i2plan/config.toml if the node does not run; a key that \
cannot be changed at run time counts after a restart then. What else stands in the file stays as it is.

Example:
  sudo i2planctl config set mesh.max_peers 80 --save";

/// What `--help` adds to `check`.
const CHECK_HELP: &str = "\
A file whose first section is [Interface] or [Peer] is checked as one of wg-quick(8), with endpoints in I2P: \
NAME.b32.i2p or a destination in base64. `i2planctl up --wg FILE` runs it.

TOML, a file whose name ends in .toml, may have [interface] and [[peer]] in the place of it. They are checked too, with the \
files of keys that they name, which takes the rights to read these. In /etc/i2plan/static nothing else may stand in a file.";

/// `i2planctl config …`
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Show all keys with their values, where those come from, and whether they can be changed at run time
    #[command(after_help = SHOW_HELP)]
    Show,

    /// Print the value of one key
    Get {
        /// The key, such as node.name
        #[arg(add = ArgValueCandidates::new(completions::settings))]
        key: String,
    },

    /// Change a key until the node is started again, or for good with --save
    #[command(after_help = SET_HELP)]
    Set {
        /// The key, such as node.name
        #[arg(add = ArgValueCandidates::new(completions::settings))]
        key: String,

        /// The value, as it would stand in the environment
        value: String,

        /// Write it into the configuration file too, so that it outlasts a restart
        #[arg(long)]
        save: bool,
    },

    /// Have the node read its file again, as SIGHUP does
    Reload,

    /// Check a configuration file, or the file of an interface with static peers, without a node
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The file [default: ~/.i2plan/config.toml, else /etc/i2plan/config.toml]
        file: Option<PathBuf>,
    },

    /// Print a configuration file with every key and its default in comments
    Example,
}

/// Shows the configuration in force.
///
/// # Errors
/// If the node does not answer.
pub async fn show(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let settings = daemon::connect(socket).await?.config().await?;
    if json {
        return output::json::print(&json!({ "settings": settings }));
    }
    output::print_as_it_is(&render(&settings, &output::look(true)))
}

/// Prints the value of one key.
///
/// # Errors
/// If there is no such key.
pub async fn get(socket: Option<&Path>, json: bool, key: &str) -> Result<(), Failure> {
    let settings = daemon::connect(socket).await?.config().await?;
    let Some(setting) = settings.iter().find(|setting| setting.key == key) else {
        return Err(Failure::new(ErrorKind::NotFound, clean(&unknown(key)))
            .with_hint("`i2planctl config show` lists all keys"));
    };
    if json {
        return output::json::print(&json!({ "setting": setting }));
    }
    output::print(&format!("{}\n", clean(setting.value.as_deref().unwrap_or_default())))
}

/// Changes a key until the node is started again, or for good if it is to be saved.
///
/// # Errors
/// If the value is bad, the key cannot be changed at run time, or the file cannot be written.
pub async fn set(
    socket: Option<&Path>,
    json: bool,
    key: &str,
    value: &str,
    save: bool,
) -> Result<(), Failure> {
    if save {
        return save_value(socket, json, key, value).await;
    }
    let mut node = daemon::connect(socket).await?;
    let changes = node.set_config(key.to_owned(), value.to_owned()).await?;
    tell(json, &changes, "it has this value already")?;
    if !json && changes.iter().any(|change| !change.restart) {
        output::note("this holds until the node is started again; --save writes it into the file");
    }
    Ok(())
}

/// Writes a key into the file that the node reads, and has the node read it.
async fn save_value(socket: Option<&Path>, json: bool, key: &str, value: &str) -> Result<(), Failure> {
    let node = match daemon::connect(socket).await {
        Ok(mut node) => Some((node.status().await?.config, node)),
        Err(failure) if failure.kind == Kind::Unreachable => None,
        Err(failure) => return Err(failure),
    };
    let file = match &node {
        Some((file, _)) => PathBuf::from(file),
        None => load(None)?.path().to_owned(),
    };
    save::save(&file, key, value).map_err(|error| {
        let failure = Failure::invalid(error.to_string());
        match error {
            SaveError::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                failure.with_hint("run it with sudo or doas: only root can change the node's file")
            }
            _ => failure.with_hint("`i2planctl config show` lists all keys"),
        }
    })?;
    let Some((_, mut node)) = node else {
        output::note("the node does not run: this counts when it is started");
        return tell(json, &[], &format!("{} has the value", file.display()));
    };
    let mut changes = node.reload().await?;
    let settings = node.config().await?;
    let setting = settings.iter().find(|setting| setting.key == key);
    match setting.map(|setting| (&setting.source, setting)) {
        Some((Source::Environment, setting)) => output::note(&format!(
            "{} is set in the node's environment and wins over the file: unset it, and restart the node",
            setting.variable
        )),
        // What was set before lasts until the node is started again.
        Some((Source::Runtime, setting)) if setting.live => {
            changes.extend(node.set_config(key.to_owned(), value.to_owned()).await?);
        }
        _ => {}
    }
    tell(json, &changes, &format!("{} has the value, and the node too", file.display()))
}

/// Has the node read its file again.
///
/// # Errors
/// If something in the file is wrong; the node then goes on as before.
pub async fn reload(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let changes = daemon::connect(socket).await?.reload().await?;
    tell(json, &changes, "nothing has changed")
}

/// Checks a file, with the environment as it is here, without a node.
///
/// # Errors
/// What is wrong in it, with its line.
pub fn check(json: bool, file: Option<&Path>) -> Result<(), Failure> {
    if let Some(path) = file {
        let found = wireguard::file_at(path.to_owned());
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        // What cannot be read is said below.
        let is_wg_quick = || found.read().is_ok_and(|text| is_wg_quick(&text));
        if found.format == Format::Toml || !is_toml && is_wg_quick() {
            return check_interface(json, &found);
        }
    }
    let config = load(file)?;
    config.notes().iter().for_each(|note| output::note(note));
    let file = config.path();
    if !file.exists() {
        return Err(Failure::new(ErrorKind::NotFound, format!("there is no {}", file.display()))
            .with_hint("name a file, or do without: all keys have defaults"));
    }
    if config.has_interface() {
        let file = InterfaceFile::configuration(file.to_owned());
        wireguard::load(json, &file, &wireguard::routers(&config))?;
    }
    if json {
        return output::json::print(&json!({ "file": file.to_string_lossy(), "valid": true }));
    }
    output::print(&format!("{} is valid\n", file.display()))
}

/// Checks the file of an interface. It must not capture the routes to the router that `config.toml` names.
fn check_interface(json: bool, file: &InterfaceFile) -> Result<(), Failure> {
    let StaticConfig { ignored, .. } = wireguard::load(json, file, &wireguard::routers(&load(None)?))?;
    let path = file.path.display();
    if json {
        let ignored: Vec<_> =
            ignored.iter().map(|(line, what)| json!({ "line": line, "message": what.to_string() })).collect();
        return output::json::print(&json!({
            "file": file.path.to_string_lossy(),
            "valid": true,
            "format": if file.format == Format::WgQuick { "wg-quick" } else { "toml" },
            "ignored": ignored,
        }));
    }
    for (line, what) in &ignored {
        output::note(&format!("{path}:{line}: {what}"));
    }
    output::print(&format!("{path} is valid\n"))
}

/// Reads a configuration.
fn load(file: Option<&Path>) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| {
        Failure::invalid(error.to_string())
            .with_hint("`i2planctl config example` shows all keys, with their values")
    })
}

/// Prints a file that sets nothing, with every key and its default in comments.
///
/// # Errors
/// If it cannot be written.
pub fn example(json: bool) -> Result<(), Failure> {
    let text = Config::example();
    if json { output::json::print(&json!({ "example": text })) } else { output::print(&text) }
}

fn tell(json: bool, changes: &[ConfigChange], nothing: &str) -> Result<(), Failure> {
    if json {
        return output::json::print(&json!({ "changes": changes }));
    }
    if changes.is_empty() {
        output::note(nothing);
        return Ok(());
    }
    output::print(&changes.iter().map(describe).collect::<String>())
}
