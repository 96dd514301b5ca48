//! `i2planctl key new` and `i2planctl key check`.

use std::process::{Command, ExitCode};

use i2plan_ipc::ErrorKind;
use i2plan_supervisor::maintenance::StoppedNode;
use i2plan_supervisor::{Programs, users};
use serde_json::json;

use super::confirm::{can_ask, confirm};
use super::key::{CheckKeys, NewKeys};
use crate::failure::Failure;
use crate::output;

/// Gives a stopped node a new identity.
///
/// # Errors
/// If this is not root, the node runs, it was not confirmed, or the directories cannot be renamed.
pub fn run(json: bool, args: NewKeys) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(ErrorKind::Denied, "only root can set the state of a node aside")
            .with_hint("run it with sudo or doas: `sudo i2planctl key new`"));
    }
    can_ask(args.yes)?;
    let data = args.stopped.data_dir()?;
    let node = StoppedNode::lock(&data, users::keyd(&args.keyd_user)?, Programs::beside_this()?)?;
    let consequences = format!(
        "the node in {} will be another one: its keys and its membership are set aside, and it makes new keys when it is \
         started; to join a network it needs an invite",
        data.display()
    );
    confirm(&consequences, "new", args.yes)?;
    let aside = node.set_aside()?;
    let aside: Vec<_> = aside.iter().map(|path| path.display().to_string()).collect();
    if json {
        return output::json::print(&json!({ "set_aside": aside }));
    }
    if aside.is_empty() {
        return output::print("there were no keys: the node makes some when it is started\n");
    }
    output::print(&format!("set aside as {}; start the node, and join with an invite\n", aside.join(" and ")))
}

/// Has `keyd` tell whether it can read the keys in a directory. It does that as the user who owns them.
///
/// # Errors
/// If `keyd` cannot be started.
pub fn check(json: bool, args: CheckKeys) -> Result<ExitCode, Failure> {
    if json {
        return Err(Failure::usage("`key check` prints what keyd says, and --json prints for programs")
            .with_hint("leave --json out, and see the exit status"));
    }
    let directory = match args.directory {
        Some(directory) => directory,
        None => args.stopped.data_dir()?.join("keyd"),
    };
    let mut keyd = Command::new(Programs::beside_this()?.find("keyd")?);
    keyd.arg("--store").arg(directory).arg("--check");
    if let Some(descriptor) = args.passphrase_fd {
        keyd.arg("--passphrase-fd").arg(descriptor.to_string());
    }
    let status = keyd.status().map_err(|error| Failure::internal(format!("cannot start keyd: {error}")))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
