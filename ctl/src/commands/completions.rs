//! Completion in the shell, of the names that the node knows too: `i2planctl completions` prints a script that runs
//! this program with a variable set, which then answers with what could be typed next.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use i2plan_config::KEYS;
use i2plan_ipc::api::meshd::{Ban, Peer};
use i2plan_ipc::client::ClientError;
use i2plan_ipc::{ApiError, Node};
use i2plan_present::ban;
use i2plan_present::member::Names;
use i2plan_present::text::clean;
use serde_json::json;

use crate::daemon::socket_path;
use crate::failure::Failure;
use crate::output;

/// What `--help` adds.
pub(crate) const HELP: &str = "\
Members, invites and keys of the configuration are asked of the node, if it runs and this user may ask.

Examples:
  source <(i2planctl completions bash)                     # in ~/.bashrc
  source <(i2planctl completions zsh)                      # in ~/.zshrc, after compinit
  i2planctl completions fish > ~/.config/fish/completions/i2planctl.fish";

/// Set by the scripts.
const VARIABLE: &str = "I2PLAN_COMPLETE";

/// Whoever types does not wait longer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Shells that a script can be had for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// The Bourne-again shell.
    Bash,
    /// The Z shell.
    Zsh,
    /// Fish.
    Fish,
    /// Elvish.
    Elvish,
}

/// Answers a script, if it is one that has run this program.
#[must_use]
pub fn answer(argv: &[OsString], command: fn() -> clap::Command) -> bool {
    if std::env::var_os(VARIABLE).is_none() {
        return false;
    }
    let directory = std::env::current_dir().ok();
    // A line that cannot be completed completes to nothing: an error would land in the line that is being typed.
    let _ = CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .try_complete(argv.iter().cloned(), directory.as_deref());
    true
}

/// Prints the script.
///
/// # Errors
/// If it cannot be written.
pub fn print(shell: Shell, json: bool) -> Result<(), Failure> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Elvish => "elvish",
    };
    let unknown = || Failure::internal(format!("there is no script for {name}"));
    let mut script = Vec::new();
    Shells::builtins()
        .completer(name)
        .ok_or_else(unknown)?
        .write_registration(VARIABLE, "i2planctl", "i2planctl", "i2planctl", &mut script)
        .map_err(|_| unknown())?;
    let script = String::from_utf8(script).map_err(|_| unknown())?;
    if json {
        output::json::print(&json!({ "shell": name, "script": script }))
    } else {
        output::print_as_it_is(&script)
    }
}

/// The members that can be named.
#[must_use]
pub fn members() -> Vec<CompletionCandidate> {
    ask(async |mut node| {
        let peers = node.peers().await?;
        let names = Names::of(peers.iter().map(|peer| peer.name.as_str()));
        let word = |peer: &Peer| word(&names, Some(&peer.name), &peer.node_id);
        Ok(peers.iter().map(|peer| (word(peer), peer.ipv4.to_string())).collect())
    })
}

/// Those that are banned.
#[must_use]
pub fn banned() -> Vec<CompletionCandidate> {
    ask(async |mut node| {
        let bans = node.bans().await?;
        let names = ban::names(&bans);
        let word = |ban: &Ban| word(&names, ban.name.as_ref(), &ban.node_id);
        Ok(bans.iter().map(|ban| (word(ban), ban.description.clone())).collect())
    })
}

/// What names a member without doubt: its name, or its node id if that has none or others are called so too.
fn word(names: &Names, name: Option<&String>, node_id: &str) -> String {
    name.filter(|name| !names.is_repeated(name)).map_or_else(|| node_id.to_owned(), String::clone)
}

/// The ids of invites.
#[must_use]
pub fn invites() -> Vec<CompletionCandidate> {
    ask(async |mut node| {
        let invites = node.invites().await?.into_iter();
        Ok(invites.map(|invite| (invite.id, format!("used {} times", invite.used_by.len()))).collect())
    })
}

/// The keys of the configuration.
#[must_use]
pub fn settings() -> Vec<CompletionCandidate> {
    KEYS.iter().map(|key| CompletionCandidate::new(key.name)).collect()
}

/// Asks the node for words, each with what helps to choose. A node that is not there has none.
fn ask(
    question: impl AsyncFnOnce(Node) -> Result<Vec<(String, String)>, ClientError>,
) -> Vec<CompletionCandidate> {
    let answer = async {
        let node = Node::connect(&socket_path(socket_in(std::env::args_os()).as_deref())).await?;
        question(node).await
    };
    let answer = async {
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(|_| Err(ApiError::timeout("").into()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let words = runtime.ok().and_then(|runtime| runtime.block_on(answer).ok()).unwrap_or_default();
    let help = |text: &str| (!text.is_empty()).then(|| clean(text).into_owned().into());
    words
        .into_iter()
        .filter(|(word, _)| *word == clean(word) && !word.starts_with('-'))
        .map(|(word, text)| CompletionCandidate::new(word).help(help(&text)))
        .collect()
}

/// The socket that the line which is being typed names, or the environment.
fn socket_in(line: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut words = line.skip_while(|word| word != "--").skip(1);
    let mut found = None;
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--socket") => found = words.next(),
            Some(word) => found = word.strip_prefix("--socket=").map(OsString::from).or(found),
            None => {}
        }
    }
    found.or_else(|| std::env::var_os("I2PLAN_SOCKET")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(line: &str) -> Option<PathBuf> {
        socket_in(line.split(' ').map(OsString::from))
    }

    #[test]
    fn members_of_one_name_are_completed_by_their_ids() {
        let names = Names::of(["web", "WEB", "db"]);
        let word = |name: Option<&str>| word(&names, name.map(str::to_owned).as_ref(), "id");
        assert_eq!(
            (word(Some("web")), word(Some("db")), word(None)),
            ("id".into(), "db".into(), "id".into())
        );
    }

    #[test]
    fn the_socket_of_the_line_is_asked() {
        assert_eq!(socket("i2planctl -- i2planctl --socket /x ping w"), Some("/x".into()));
        assert_eq!(socket("i2planctl -- i2planctl ping --socket=/y w"), Some("/y".into()));
    }
}
