//! The connection to `meshd`, and what to do when there is none.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use i2plan_config::{Config, ConfigError};
use i2plan_ipc::administrator::socket_beside;
use i2plan_ipc::client::ClientError;
use i2plan_ipc::daemon::trusted;
use i2plan_ipc::paths;
use i2plan_ipc::version::Version;
use i2plan_ipc::{ErrorKind, Node};
use nix::unistd::{Gid, Group, Uid, User};

use crate::failure::{Failure, Kind};
use crate::services;

/// Where a user's own node has it, in the home directory.
pub const USER_SOCKET: &str = ".i2plan/run/meshd.sock";

/// How long a node may take to answer before it is looked into why it does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the node at `socket`, or to the one that runs here.
///
/// # Errors
/// If there is none, with what to do about it.
pub async fn connect(socket: Option<&Path>) -> Result<Node, Failure> {
    let path = socket_path(socket);
    let mut connecting = pin!(Node::connect(&path));
    if let Ok(node) = tokio::time::timeout(PATIENCE, &mut connecting).await {
        return Ok(node?);
    }
    // Connections wait at the socket while nothing takes them.
    match why_not_started(&path) {
        Some(failure) => Err(failure),
        None => Ok(connecting.await?),
    }
}

/// What keeps the `meshd` of a socket from starting, if it can be seen from here.
fn why_not_started(path: &Path) -> Option<Failure> {
    let system = path == paths::system_socket(paths::MESHD_SOCKET);
    let services = system && services::are_installed();
    let file = Some(Path::new(paths::CONFIG_FILE)).filter(|file| services && file.exists());
    let wrong = match Config::load(file) {
        // What is wrong with variables here need not be wrong where the node runs.
        Err(error @ ConfigError::File { .. }) if system => Some(error.to_string()),
        _ => None,
    };
    if let Some(error) = wrong {
        return Some(
            Failure::new(Kind::Unreachable, format!("meshd does not start: {error}"))
                .with_hint("correct it; the daemon is started again within half a minute"),
        );
    }
    let reason = services.then(|| services::why_not_running("meshd")).flatten()?;
    Some(
        Failure::new(Kind::Unreachable, format!("meshd does not start: {reason}"))
            .with_hint("see `journalctl -u i2plan-meshd`"),
    )
}

/// Where the control socket is: at `socket`, or that of the node that runs here.
#[must_use]
pub fn socket_path(socket: Option<&Path>) -> PathBuf {
    socket.map_or_else(default_socket, Path::to_owned)
}

/// The socket of the node that runs here, unless one is named.
#[must_use]
pub fn default_socket() -> PathBuf {
    let home = trusted::home().map(|home| home.join(USER_SOCKET));
    choose_socket(paths::system_socket(paths::MESHD_SOCKET), home, |path| path.symlink_metadata().is_ok())
}

/// The system's socket; a user's own only where there is no other.
fn choose_socket(system: PathBuf, user: Option<PathBuf>, exists: impl Fn(&Path) -> bool) -> PathBuf {
    match user {
        Some(user) if !exists(&system) && exists(&user) => user,
        _ => system,
    }
}

/// What to tell a user who gets no answer.
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect { path, source } => explain_connect(&path, &source),
            ClientError::Stranger { path, owner, .. } => explain_stranger(&path, owner),
            ClientError::Broken { .. } => Failure::new(Kind::Unreachable, error.to_string()).with_hint(
                "the daemon may just have been restarted: try again; if that does not help, see its log",
            ),
            ClientError::Unexpected { .. } => Failure::internal(error.to_string()),
            ClientError::Timeout { .. } => Failure::new(ErrorKind::Timeout, error.to_string()).with_hint(
                "it runs but is stuck, or just starting: try again; if that does not help, see its log and restart it",
            ),
            ClientError::Version { daemon, theirs } => Failure::new(
                ErrorKind::Version,
                format!(
                    "{daemon} is version {theirs} and i2planctl is version {}, and they do not understand each other",
                    Version::current().version
                ),
            )
            .with_hint("restart i2plan's daemons after an upgrade, and use the i2planctl that came with them"),
            ClientError::Api(error) => Self::from(error),
        }
    }
}

/// What to tell a user who cannot open a socket of the node.
#[must_use]
pub fn explain_connect(path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound if socket_beside(path).exists() => {
            let removed =
                format!("there is no socket {shown}, though another of the node's is beside where it was");
            Failure::new(Kind::Unreachable, removed).with_hint(restart_hint(services::are_installed()))
        }
        io::ErrorKind::NotFound => Failure::new(
            Kind::Unreachable,
            format!("i2plan is not running: there is no socket {shown}"),
        )
        .with_hint(format!(
            "start the node with `{}`; if its socket is elsewhere, name it with --socket or I2PLAN_SOCKET",
            services::start_command()
        )),
        io::ErrorKind::ConnectionRefused
            if path.metadata().is_ok_and(|found| !found.file_type().is_socket()) =>
        {
            Failure::new(Kind::Unreachable, format!("{shown} is no socket"))
                .with_hint("name the node's control socket, meshd.sock, with --socket or I2PLAN_SOCKET")
        }
        io::ErrorKind::ConnectionRefused => {
            Failure::new(Kind::Unreachable, format!("i2plan is not running: nobody listens on {shown}"))
                .with_hint(format!(
                    "the node was stopped or has crashed: see its log, and start it with `{}`",
                    services::start_command()
                ))
        }
        io::ErrorKind::PermissionDenied => {
            let owner = path.metadata().ok().map(|file| (file.gid(), file.mode()));
            explain_denied(path, owner)
        }
        _ => Failure::new(Kind::Unreachable, format!("cannot connect to {shown}: {error}"))
            .with_hint("name the node's control socket with --socket or I2PLAN_SOCKET"),
    }
}

/// How to have a socket back that was removed while the node ran.
fn restart_hint(services: bool) -> &'static str {
    if services {
        "it was removed while the node ran: `sudo systemctl restart i2plan-meshd.socket`"
    } else {
        "it was removed while the node ran: stop `i2planctl up`, and start it again"
    }
}

/// What to tell a user whose words another user would have heard.
fn explain_stranger(path: &Path, owner: u32) -> Failure {
    let user = User::from_uid(Uid::from_raw(owner)).ok().flatten();
    let name = user.map_or_else(|| owner.to_string(), |user| user.name);
    let shown = path.display();
    Failure::new(
        ErrorKind::Denied,
        format!("the user {name} ({owner}) listens on {shown}, and no daemon of i2plan: nothing was sent there"),
    )
    .with_hint(format!(
        "name the node's socket with --socket, or unset I2PLAN_SOCKET; if the node is that user's own, run this as {name}"
    ))
}

/// Who may open the socket, going by its group and mode.
fn explain_denied(path: &Path, owner: Option<(u32, u32)>) -> Failure {
    const GROUP_MAY_CONNECT: u32 = 0o020;
    let me = User::from_uid(Uid::effective())
        .ok()
        .flatten()
        .map_or_else(|| Uid::effective().to_string(), |user| user.name);
    let hint = match owner {
        Some((gid, mode)) if gid != 0 && mode & GROUP_MAY_CONNECT != 0 => {
            let group = Group::from_gid(Gid::from_raw(gid))
                .ok()
                .flatten()
                .map_or_else(|| gid.to_string(), |group| group.name);
            format!(
                "use sudo, or join the group {group}: `sudo usermod -aG {group} {me}`, then log out and in again"
            )
        }
        _ => "use sudo: only root may control this node".to_owned(),
    };
    Failure::new(ErrorKind::Denied, format!("user {me} may not open {}", path.display())).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::{ApiError, Role};

    use super::*;

    #[test]
    fn the_system_node_comes_first() {
        let (system, user) = (PathBuf::from("/s"), PathBuf::from("/u"));
        let choose = |existing: &[&str]| {
            let existing: Vec<_> = existing.iter().map(Path::new).collect();
            choose_socket(system.clone(), Some(user.clone()), |path| existing.contains(&path))
        };
        assert_eq!(choose(&["/s", "/u"]), system);
        assert_eq!(choose(&["/u"]), user);
        assert_eq!(choose(&[]), system);
    }

    #[test]
    fn a_silent_daemon_is_a_timeout() {
        let failure = Failure::from(ClientError::Timeout { daemon: Role::Meshd });
        assert_eq!(failure.exit_code(), 6);
        assert_eq!(failure.message, "meshd does not answer");
        assert!(failure.hint.is_some());
    }

    #[test]
    fn a_socket_that_was_removed_is_told_apart_from_a_node_that_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(paths::MESHD_SOCKET);
        let missing = || explain_connect(&path, &io::ErrorKind::NotFound.into());
        assert!(missing().message.starts_with("i2plan is not running"), "{:?}", missing());
        std::fs::write(socket_beside(&path), "").unwrap();
        assert!(missing().message.starts_with("there is no socket"), "{:?}", missing());
        assert!(missing().hint.unwrap().starts_with("it was removed while the node ran"));
    }

    #[test]
    fn the_daemons_own_errors_are_kept() {
        let error = ApiError::conflict("already a member").with_hint("leave first");
        let failure = Failure::from(ClientError::from(error));
        assert_eq!(failure.exit_code(), 5);
        assert_eq!(
            (failure.message.as_str(), failure.hint.as_deref()),
            ("already a member", Some("leave first"))
        );
    }

    #[test]
    fn who_may_open_the_socket_is_told() {
        let hint = |owner| explain_denied(Path::new("/s"), owner).hint.unwrap();
        assert!(hint(Some((54_321, 0o140_660))).contains("-aG 54321 "));
        assert!(hint(Some((0, 0o140_600))).contains("only root"));
        assert!(hint(Some((54_321, 0o140_600))).contains("only root"));
        assert!(hint(None).contains("sudo"));
    }
}
