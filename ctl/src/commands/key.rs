//! `i2planctl key`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Output;

use command_fds::{CommandFdExt as _, FdMapping};
use i2plan_ipc::api::meshd::{Keys, Reply, Request};
use i2plan_ipc::passphrase::Passphrase;
use i2plan_ipc::version::utc;
use i2plan_meshd::config::Config;
use serde_json::json;
use tokio::process::Command;

use crate::args::ChangePassphrase;
use crate::daemon;
use crate::failure::{Failure, Kind};
use crate::output::{self, clean};
use crate::passphrase::{self, Given};
use crate::supervisor::backoff::LOCKED;
use crate::supervisor::daemon::{filled_pipe, find_program, hand_over};
use crate::supervisor::launch::{LISTEN_FD, Launch};
use crate::supervisor::layout;
use crate::supervisor::users::{self, Account};

/// The exit code of `keyd` when another one uses the keys.
const BUSY: i32 = 4;

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
    let mut client = daemon::connect(socket).await?;
    match daemon::ask(&mut client, Request::Keys).await? {
        Reply::Keys(keys) => Ok(*keys),
        _ => Err(daemon::unexpected()),
    }
}

fn render_status(keys: &Keys) -> String {
    let sealed = if keys.sealed { "sealed with a passphrase" } else { "not sealed" };
    let mut out = format!("Node       {}\nKeys       {sealed}\n", clean(&keys.node_id));
    // Writing to a string does not fail.
    let _ = match &keys.wireguard {
        Some(key) => writeln!(
            out,
            "WireGuard  epoch {}, valid from {} until {}",
            key.epoch,
            utc(key.not_before),
            utc(key.not_after)
        ),
        None => writeln!(out, "WireGuard  no key is published yet"),
    };
    out
}

fn render_public(keys: &Keys) -> String {
    let none = "none yet";
    let wireguard = keys.wireguard.as_ref().map_or(none, |key| &key.public_key);
    [
        ("node", keys.node_id.as_str()),
        ("control", &keys.control.b32),
        ("destination", &keys.control.base64),
        ("network", keys.network.as_deref().unwrap_or(none)),
        ("wireguard", wireguard),
    ]
    .iter()
    .fold(String::new(), |out, (label, value)| out + &format!("{label:<13}{}\n", clean(value)))
}

/// Seals the keys of a stopped node with a new passphrase, or unseals them.
///
/// # Errors
/// If this is not root, the node runs, a passphrase is missing or wrong, or the keys cannot be stored.
pub async fn change_passphrase(json: bool, args: ChangePassphrase, given: Given) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Kind::Denied, "only root can act for the user that holds the keys")
            .with_hint("run it with sudo or doas: `sudo i2planctl key change-passphrase`"));
    }
    let user = users::keyd(&args.keyd_user)?;
    let data = match args.data_dir {
        Some(data) => data,
        None => {
            let config = Config::load(args.config.as_deref()).map_err(|error| {
                Failure::invalid(error.to_string()).with_hint("correct the configuration, or use --data-dir")
            })?;
            config.data_dir
        }
    };
    // keyd works in the root directory.
    let data = std::path::absolute(&data)
        .map_err(|error| Failure::invalid(format!("--data-dir is no path: {error}")))?;
    let _lock = layout::lock_stopped(&data)?;
    let keyd = Keyd { user, data: &data };

    let check = keyd.run("--check", None, None).await?;
    let was_sealed = match check.status.code() {
        Some(0) => false,
        Some(LOCKED) => true,
        _ => return Err(keyd.explain(&check)),
    };
    let old = match given.passphrase {
        None if was_sealed => Some(passphrase::ask().await?),
        given => given.filter(|_| was_sealed),
    };
    let output = if args.remove {
        keyd.run("--remove-passphrase", old.as_ref(), None).await?
    } else {
        let new = match given.new {
            Some(new) => new,
            None => passphrase::ask_new("--new-passphrase-fd").await?,
        };
        keyd.run("--change-passphrase", old.as_ref(), Some(&new)).await?
    };
    if !output.status.success() {
        return Err(keyd.explain(&output));
    }
    if json {
        return output::json::print(&json!({ "sealed": !args.remove }));
    }
    output::print(&String::from_utf8_lossy(&output.stdout))
}

/// `keyd` for maintenance.
struct Keyd<'a> {
    user: Account,
    data: &'a Path,
}

impl Keyd<'_> {
    async fn run(
        &self,
        what: &str,
        passphrase: Option<&Passphrase>,
        new: Option<&Passphrase>,
    ) -> Result<Output, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::internal(format!("cannot start keyd: {error}"));
        let launcher = std::env::current_exe().map_err(|error| failed(&error))?;
        let program = find_program(&launcher, "i2plan-keyd".as_ref())?;
        let mut arguments: Vec<OsString> = vec!["--store".into(), self.data.join("keyd").into(), what.into()];
        if passphrase.is_some() {
            arguments.extend(["--passphrase-fd", "0"].map(Into::into));
        }
        // The place of the listening socket, of which there is none: the one more descriptor that is left open.
        let other: OwnedFd = match new {
            Some(new) => {
                arguments.extend(["--new-passphrase-fd".into(), LISTEN_FD.to_string().into()]);
                filled_pipe(new).map_err(|error| failed(&error))?.into()
            }
            None => File::open("/dev/null").map_err(|error| failed(&error))?.into(),
        };
        let arguments =
            Launch::arguments(self.user, false, std::process::id(), program.as_os_str(), &arguments);
        let mut command = Command::new(&launcher);
        command
            .args(arguments)
            .stdin(hand_over(passphrase).map_err(|error| failed(&error))?)
            // Not what it would log otherwise, but what it says to whoever asked for this.
            .env("I2PLAN_LOG", "error")
            .kill_on_drop(true)
            .fd_mappings(vec![FdMapping { parent_fd: other, child_fd: LISTEN_FD }])
            .map_err(|error| failed(&error))?;
        command.output().await.map_err(|error| failed(&error))
    }

    /// Why it did not do it.
    fn explain(&self, output: &Output) -> Failure {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let message = said.strip_prefix("i2plan-keyd: ").unwrap_or(said);
        match output.status.code() {
            Some(BUSY) => layout::running(self.data),
            Some(LOCKED) => Failure::invalid("the passphrase does not open the node's keys")
                .with_hint("try again with the right one; the keys are unchanged"),
            _ if message.is_empty() => Failure::internal(format!("keyd did not do it: {}", output.status)),
            _ => Failure::invalid(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::{ControlDestination, WireGuardKey};

    use super::*;

    fn keys() -> Keys {
        Keys {
            node_id: "nodeid".to_owned(),
            sealed: true,
            control: ControlDestination { b32: "x.b32.i2p".to_owned(), base64: "AAAA".to_owned() },
            network: None,
            wireguard: None,
        }
    }

    #[test]
    fn a_fresh_node_has_no_wireguard_key() {
        assert_eq!(
            render_status(&keys()),
            "Node       nodeid\nKeys       sealed with a passphrase\nWireGuard  no key is published yet\n"
        );
        assert_eq!(
            render_public(&keys()),
            "node         nodeid\ncontrol      x.b32.i2p\ndestination  AAAA\nnetwork      none yet\n\
             wireguard    none yet\n"
        );
    }

    #[test]
    fn a_member_shows_its_key_and_its_end() {
        let wireguard = Some(WireGuardKey {
            public_key: "key=".to_owned(),
            epoch: 3,
            not_before: 1_800_000_000,
            not_after: 1_800_086_400,
        });
        let keys = Keys { sealed: false, network: Some("networkid".to_owned()), wireguard, ..keys() };
        let text = render_status(&keys);
        assert!(text.contains("Keys       not sealed\n"), "{text}");
        assert!(
            text.ends_with("epoch 3, valid from 2027-01-15T08:00:00Z until 2027-01-16T08:00:00Z\n"),
            "{text}"
        );
        assert!(render_public(&keys).ends_with("network      networkid\nwireguard    key=\n"));
    }
}
