//! The supervisor's errors as a user sees them.

use i2plan_ipc::ErrorKind;
use i2plan_supervisor::launch::LaunchError;
use i2plan_supervisor::layout::{Directory, LayoutError};
use i2plan_supervisor::maintenance::MaintenanceError;
use i2plan_supervisor::users::{DEFAULT_GROUP, UserError, control_group};
use i2plan_supervisor::{DaemonError, ProgramError, StartError};

use crate::failure::Failure;

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        let hint = match &error {
            UserError::Missing { names } => {
                let mut hint =
                    "create what is missing, or name other users (see `i2planctl up --help`):".to_owned();
                for name in names {
                    hint += &format!("\nuseradd --system --user-group --shell /usr/sbin/nologin {name}");
                }
                if control_group(None) == Ok(0) {
                    hint +=
                        &format!("\ngroupadd --system {DEFAULT_GROUP}    # its members may control the node");
                }
                hint
            }
            UserError::Root { daemon, .. } => format!("name an unprivileged user with --{daemon}-user"),
            UserError::Shared { .. } => {
                "the daemons are protected from each other by having a user each: name different ones"
                    .to_owned()
            }
            UserError::NoGroup { name } => {
                format!("create it with `groupadd --system {name}`, or name another with --group")
            }
        };
        Self::invalid(error.to_string()).with_hint(hint)
    }
}

/// The option that names a directory, or the user whom it belongs to.
fn option(directory: Directory) -> &'static str {
    match directory {
        Directory::Run => "--runtime-dir",
        Directory::Data => "--data-dir",
        Directory::Keyd => "--keyd-user",
        Directory::Meshd => "--meshd-user",
        Directory::Rpc => "--rpc-user",
        Directory::Router => "--router-user",
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        let invalid = Self::invalid(error.to_string());
        let conflict = Self::new(ErrorKind::Conflict, error.to_string());
        match error {
            LayoutError::Path { .. } | LayoutError::Io { .. } => invalid,
            LayoutError::Untrusted { directory, path, source } => Self::invalid(format!(
                "{} cannot be used ({}): {source}",
                path.display(),
                option(directory)
            ))
            .with_hint("name a path in a directory that only root can write to, as those above it"),
            LayoutError::GiveAway { .. } => {
                invalid.with_hint("in a user namespace, only users that are mapped into it can be used")
            }
            LayoutError::NotDirectory { directory, .. } => invalid
                .with_hint(format!("name the directory itself with {}, not a link to it", option(directory))),
            LayoutError::Owner { directory, path, expected, .. } => invalid.with_hint(format!(
                "choose another with {}, or change the owner if you trust what is in it: `chown -R {expected} {}`",
                option(directory),
                path.display()
            )),
            LayoutError::Open { path, expected, .. } | LayoutError::Closed { path, expected, .. } => invalid
                .with_hint(format!("`chmod {expected:03o} {}`, if you trust what is in it", path.display())),
            LayoutError::NodeRuns { run, pid } => Self::new(
                ErrorKind::Conflict,
                format!("a node runs on {} already: i2planctl with process id {pid}", run.display()),
            )
            .with_hint("see `i2planctl status`; for a second node choose another --runtime-dir and --data-dir"),
            LayoutError::StateInUse { .. } => conflict
                .with_hint("choose another directory with --data-dir, or stop the other i2planctl"),
            LayoutError::Listen { .. } => {
                invalid.with_hint("choose another directory with --runtime-dir; its path must be short")
            }
            LayoutError::SocketPlace { .. } => {
                invalid.with_hint("leave rpc.socket out, or name a path in a directory of root's")
            }
            LayoutError::NotSocket { .. } => {
                invalid.with_hint("move it away, or choose another directory with --runtime-dir")
            }
            LayoutError::SocketInUse { .. } => conflict.with_hint(
                "does i2plan run as a service? stop it and its sockets first, or choose another --runtime-dir and --data-dir",
            ),
        }
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::CurrentProgram(_) => Self::internal(error.to_string()),
            ProgramError::Missing { .. } => Self::invalid(error.to_string())
                .with_hint("install all of i2plan's programs in one directory"),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::NotRoot => Self::new(ErrorKind::Denied, error.to_string())
                .with_hint("run it with sudo or doas: `sudo i2planctl up`"),
            StartError::Layout(error) => error.into(),
            StartError::Program(error) => error.into(),
            StartError::Config { source, .. } => Self::invalid(format!("--config is no path: {source}")),
            StartError::Static(_) => Self::invalid(error.to_string()).with_hint("use fewer peers"),
            StartError::Runtime | StartError::Share(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let invalid = Self::invalid(error.to_string());
        match error {
            DaemonError::Sealed => {
                invalid.with_hint("start the node with --ask-passphrase, or with --passphrase-fd N")
            }
            DaemonError::WrongPassphrase => {
                invalid.with_hint("start the node again with the right one; the keys are unchanged")
            }
            DaemonError::Refused { daemon, .. } => {
                invalid.with_hint(format!("see the message of i2plan-{daemon} above"))
            }
            DaemonError::Unsupervised { .. } => Self::internal(error.to_string()),
        }
    }
}

impl From<MaintenanceError> for Failure {
    fn from(error: MaintenanceError) -> Self {
        match error {
            MaintenanceError::NoState { .. } => Self::new(ErrorKind::NotFound, error.to_string())
                .with_hint("name the directory with --data-dir, as for `i2planctl up`"),
            MaintenanceError::Running { .. } => Self::new(ErrorKind::Conflict, error.to_string())
                .with_hint("stop it first, and start it again afterwards"),
            MaintenanceError::Layout(error) => error.into(),
            MaintenanceError::Program(error) => error.into(),
            MaintenanceError::WrongPassphrase => Self::invalid(error.to_string())
                .with_hint("try again with the right one; the keys are unchanged"),
            MaintenanceError::Refused(message) => Self::invalid(message),
            MaintenanceError::Start(_) | MaintenanceError::Failed(_) => Self::internal(error.to_string()),
        }
    }
}

/// The exit code is that of [`EXIT_STATUS`](i2plan_supervisor::launch::EXIT_STATUS).
impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let failure = Self::usage(error.to_string());
        match error {
            LaunchError::Capabilities { .. } => {
                failure.with_hint("i2plan needs CAP_NET_ADMIN, which a container's root may lack")
            }
            LaunchError::Execute { .. } => {
                failure.with_hint("install i2plan's programs where every user can reach and execute them")
            }
            LaunchError::Arguments(_) | LaunchError::Step { .. } | LaunchError::SupervisorEnded => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use i2plan_supervisor::launch;

    use super::*;

    #[test]
    fn missing_users_come_with_the_commands_that_make_them() {
        let names = vec!["no-such-a".to_owned(), "no-such-b".to_owned()];
        let failure = Failure::from(UserError::Missing { names });
        assert_eq!(failure.message, "the users no-such-a, no-such-b are missing");
        let hint = failure.hint.unwrap();
        let commands: Vec<_> = hint.lines().filter(|line| line.starts_with("useradd --system ")).collect();
        assert_eq!(commands.len(), 2);
        assert!(commands[0].ends_with(" no-such-a") && commands[1].ends_with(" no-such-b"));
    }

    #[test]
    fn the_option_that_names_another_user_is_told() {
        let failure = Failure::from(UserError::Root { daemon: "meshd", name: "root".to_owned() });
        assert!(failure.hint.unwrap().contains("--meshd-user"));
    }

    #[test]
    fn a_launcher_that_fails_exits_as_the_supervisor_expects() {
        assert_eq!(Failure::from(LaunchError::SupervisorEnded).exit_code(), launch::EXIT_STATUS);
    }
}
