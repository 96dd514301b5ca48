//! `i2planctl key change-passphrase`.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Output;

use command_fds::{CommandFdExt as _, FdMapping};
use i2plan_config::Config;
use i2plan_ipc::passphrase::Passphrase;
use serde_json::json;
use tokio::process::Command;

use crate::args::ChangePassphrase;
use crate::failure::{Failure, Kind};
use crate::output;
use crate::passphrase::{self, Given};
use crate::supervisor::backoff::LOCKED;
use crate::supervisor::daemon::{filled_pipe, find_program, hand_over};
use crate::supervisor::launch::{LISTEN_FD, Launch};
use crate::supervisor::layout;
use crate::supervisor::users::{self, Account};

/// The exit code of `keyd` when another one uses the keys.
const BUSY: i32 = 4;

/// Seals the keys of a stopped node with a new passphrase, or unseals them.
///
/// # Errors
/// If this is not root, the node runs, a passphrase is missing or wrong, or the keys cannot be stored.
pub async fn run(json: bool, args: ChangePassphrase, given: Given) -> Result<(), Failure> {
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
        let arguments = Launch::arguments(
            self.user,
            false,
            std::process::id(),
            &["new-passphrase"],
            program.as_os_str(),
            &arguments,
        );
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
