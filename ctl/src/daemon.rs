//! The connection to `meshd`, and what to do when there is none.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use i2plan_ipc::client::ClientError;
use i2plan_ipc::daemon::trusted;
use i2plan_ipc::paths;
use i2plan_ipc::version::Version;
use i2plan_ipc::{ErrorKind, Node};
use nix::unistd::{Gid, Group, Uid, User};

use crate::failure::{Failure, Kind};

/// Where a user's own node has it, in the home directory.
pub const USER_SOCKET: &str = ".i2plan/run/meshd.sock";

/// A connection to the node at `socket`, or to the one that runs here.
///
/// # Errors
/// If there is none, with what to do about it.
pub async fn connect(socket: Option<&Path>) -> Result<Node, Failure> {
    Ok(Node::connect(&socket_path(socket)).await?)
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
        io::ErrorKind::NotFound => {
            Failure::new(Kind::Unreachable, format!("i2plan is not running: there is no socket {shown}"))
                .with_hint(
                    "start the node, as a service or with `sudo i2planctl up`; if its socket is elsewhere, \
                     name it with --socket or I2PLAN_SOCKET",
                )
        }
        io::ErrorKind::ConnectionRefused
            if path.metadata().is_ok_and(|found| !found.file_type().is_socket()) =>
        {
            Failure::new(Kind::Unreachable, format!("{shown} is no socket"))
                .with_hint("name the node's control socket, meshd.sock, with --socket or I2PLAN_SOCKET")
        }
        io::ErrorKind::ConnectionRefused => {
            Failure::new(Kind::Unreachable, format!("i2plan is not running: nobody listens on {shown}"))
                .with_hint(
                    "the node was stopped or has crashed: see its log, and start it as a service or with \
                     `sudo i2planctl up`",
                )
        }
        io::ErrorKind::PermissionDenied => {
            let owner = path.metadata().ok().map(|file| (file.gid(), file.mode()));
            explain_denied(path, owner)
        }
        _ => Failure::new(Kind::Unreachable, format!("cannot connect to {shown}: {error}"))
            .with_hint("name the node's control socket with --socket or I2PLAN_SOCKET"),
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
