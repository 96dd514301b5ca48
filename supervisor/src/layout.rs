//! The directories and sockets of a node, with the owners and modes that keep its daemons apart.
//!
//! | what | owner | mode | so that |
//! | --- | --- | --- | --- |
//! | data | root | 0711 | nobody can put another directory in the place of these: |
//! | data/keyd | keyd | 0700 | the keys are keyd's alone |
//! | data/meshd | meshd | 0700 | |
//! | data/rpc | rpcd | 0700 | the token is rpcd's alone |
//! | data/routerd | routerd | 0700 | the router's keys are its alone |
//! | run | root | 0755 | nobody can put another socket in the place of these: |
//! | run/keyd-meshd.sock | meshd | 0600 | only meshd can connect, and take up connections |
//! | run/keyd-tund.sock | tund | 0600 | only tund can |
//! | run/keyd-connector.sock | connector | 0600 | only the connector can |
//! | run/keyd-control.sock | root:group | 0660 | root and the group can give orders; keyd refuses the daemons' users |
//! | run/tund.sock | meshd | 0600 | only meshd can connect |
//! | run/*.notify | the daemon | 0600 | only a daemon tells how it does |
//! | run/meshd.sock | root:group | 0660 | root and the group can control the node; without a group it is rpcd's, and webd's and named's by one of their own groups |
//! | run/rpc.sock, run/web.sock | root:group | 0660 | likewise |
//! | the unix socket of `web.listen` | root:group | 0660 | root and the group can pass browsers' connections on to webd |
//! | /var/run/wireguard/NAME.sock | root | 0600 | root alone can ask about the interface by `wg show` |
//!
//! `keyd` and `tund` check their peers' credentials besides.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_ipc::daemon::trusted::{self, Untrusted};
use i2plan_ipc::paths;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::net::sockopt;
use thiserror::Error;
use tokio::net::{UnixDatagram, UnixStream};

use crate::node::Node;
use crate::users::{Account, Accounts, ROOT};

/// Holds the lock of the runtime directory, and the process id of who holds it.
const LOCK_FILE: &str = "supervisor.lock";

/// How often it is looked again whether a socket's last listener has gone, and how long between.
const LISTENER_CHECKS: u32 = 10;
const LISTENER_PAUSE: Duration = Duration::from_millis(200);

/// A directory of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// Where the sockets are.
    Run,
    /// Where the daemons keep their state.
    Data,
    /// `keyd`'s.
    Keyd,
    /// `meshd`'s.
    Meshd,
    /// `rpcd`'s.
    Rpc,
    /// `routerd`'s.
    Router,
}

/// Why a node's directories and sockets cannot be used.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A path has no absolute form.
    #[error("{} is no path: {source}", path.display())]
    Path {
        /// It.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system refuses something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done, such as "lock".
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// Others than root can put something else in the place of a directory.
    #[error("{} cannot be used: {source}", path.display())]
    Untrusted {
        /// Which.
        directory: Directory,
        /// Its path.
        path: PathBuf,
        /// Who can, and where.
        source: Untrusted,
    },
    /// A directory cannot be made a user's; in a user namespace only mapped users can be used.
    #[error("cannot give {} to user {uid}: {source}", path.display())]
    GiveAway {
        /// Its path.
        path: PathBuf,
        /// The user's id.
        uid: u32,
        /// Why not.
        source: io::Error,
    },
    /// Something else is there, maybe a link.
    #[error("{} is no directory", path.display())]
    NotDirectory {
        /// Which directory should be there.
        directory: Directory,
        /// Its path.
        path: PathBuf,
    },
    /// A directory belongs to another user, who may have left something there.
    #[error("{} belongs to user {found}, and must belong to user {expected}", path.display())]
    Owner {
        /// Which.
        directory: Directory,
        /// Its path.
        path: PathBuf,
        /// Whose it is.
        found: u32,
        /// Whose it must be.
        expected: u32,
    },
    /// Others can look into a directory or write to it.
    #[error("{} is open to other users: its mode is {found:03o}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// What they should be.
        expected: u32,
    },
    /// The daemons cannot pass through a directory.
    #[error("{} is closed to the daemons: its mode is {found:03o}", path.display())]
    Closed {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
        /// What they should be.
        expected: u32,
    },
    /// Another supervisor uses the directory of the sockets.
    #[error("a node runs on {} already: process {pid} supervises it", run.display())]
    NodeRuns {
        /// The directory.
        run: PathBuf,
        /// The process id of that supervisor.
        pid: String,
    },
    /// Another supervisor uses the state.
    #[error("another node keeps its state in {}", data.display())]
    StateInUse {
        /// The directory.
        data: PathBuf,
    },
    /// A socket cannot be made; its path may be too long.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than root can put something else in the place of a socket.
    #[error("cannot listen on {} ({what}): {} is no directory that root alone can write to", path.display(), parent(path).display())]
    SocketPlace {
        /// Where it was to be.
        path: PathBuf,
        /// Which it is.
        what: &'static str,
    },
    /// Something that is no socket is in the place of one.
    #[error("{} is in the way: it is no socket", path.display())]
    NotSocket {
        /// Its path.
        path: PathBuf,
    },
    /// Another process listens on a socket of the node, such as a daemon that runs as a service.
    #[error("something listens on {} already", path.display())]
    SocketInUse {
        /// Its path.
        path: PathBuf,
    },
}

impl LayoutError {
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    fn listen(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Listen { path: path.to_owned(), source: source.into() }
    }
}

/// The directories of a node, taken for this process alone.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Where the daemons keep their state.
    pub(crate) data: PathBuf,
    /// Where their sockets are.
    pub(crate) run: PathBuf,
    _locks: [File; 2],
}

impl Directories {
    /// Makes or checks them.
    ///
    /// # Errors
    /// [`LayoutError`] if they cannot be made, are open to others, belong to others, or are in use by another supervisor.
    pub(crate) fn prepare(data: &Path, run: &Path, accounts: &Accounts) -> Result<Self, LayoutError> {
        let (data, run) = (absolute(data)?, absolute(run)?);
        umask_for_directories();
        prepare(&run, Directory::Run, ROOT, 0o755)?;
        let run_lock = lock_runtime(&run)?;
        prepare(&data, Directory::Data, ROOT, 0o711)?;
        let data_lock = try_lock(&data)?.ok_or_else(|| LayoutError::StateInUse { data: data.clone() })?;
        prepare(&data.join("keyd"), Directory::Keyd, accounts.keyd, 0o700)?;
        prepare(&data.join("meshd"), Directory::Meshd, accounts.meshd, 0o700)?;
        if let Some(rpc) = accounts.rpc {
            prepare(&data.join("rpc"), Directory::Rpc, rpc, 0o700)?;
        }
        if let Some(router) = accounts.router {
            prepare(&data.join("routerd"), Directory::Router, router, 0o700)?;
        }
        Ok(Self { data, run, _locks: [run_lock, data_lock] })
    }
}

/// The listening sockets of the daemons, whose files are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// `keyd`'s for `meshd`.
    pub(crate) keyd_meshd: Socket,
    /// `keyd`'s for `tund`.
    pub(crate) keyd_tund: Socket,
    /// `keyd`'s for the connector.
    pub(crate) keyd_connector: Socket,
    /// `keyd`'s for orders.
    pub(crate) keyd_control: Socket,
    /// `meshd`'s.
    pub(crate) meshd: Socket,
    /// `tund`'s.
    pub(crate) tund: Socket,
    /// `rpcd`'s, if it runs.
    pub(crate) rpc: Option<Socket>,
    /// `webd`'s, if it runs.
    pub(crate) web: Option<Socket>,
    /// `webd`'s for browsers, if it runs and the pages are at a unix socket.
    pub(crate) web_pages: Option<Socket>,
    /// `tund`'s for `wg`; why there is none, if it cannot be made. The node runs without it.
    pub(crate) wireguard: Result<Socket, LayoutError>,
}

impl Sockets {
    /// Makes them, those without a place of their own in `run`.
    ///
    /// # Errors
    /// [`LayoutError`] if they cannot be made, or somebody listens there already.
    pub(crate) async fn listen(run: &Path, node: &Node) -> Result<Self, LayoutError> {
        let Node { accounts, group, .. } = node;
        let (Accounts { meshd, tund, connector, .. }, group) = (*accounts, *group);
        let control_mode = if group == 0 { 0o600 } else { 0o660 };
        let for_group = Account { uid: 0, gid: group };
        // Without a group rpcd gets in as the owner, and webd and named by a group of theirs; root does anyway.
        let owner =
            accounts.rpc.filter(|_| group == 0).map_or(for_group, |rpc| Account { uid: rpc.uid, gid: 0 });
        let (meshd_owner, meshd_mode) = match accounts.clients_gid().filter(|_| group == 0) {
            Some(gid) => (Account { gid, ..owner }, 0o660),
            None => (owner, control_mode),
        };
        Ok(Self {
            keyd_meshd: Socket::listen(run.join(paths::KEYD_MESHD_SOCKET), meshd, 0o600).await?,
            keyd_tund: Socket::listen(run.join(paths::KEYD_TUND_SOCKET), tund, 0o600).await?,
            keyd_connector: Socket::listen(run.join(paths::KEYD_CONNECTOR_SOCKET), connector, 0o600).await?,
            tund: Socket::listen(run.join(paths::TUND_SOCKET), meshd, 0o600).await?,
            keyd_control: {
                let owner = if node.rpc_orders { owner } else { for_group };
                Socket::listen(run.join(paths::KEYD_CONTROL_SOCKET), owner, control_mode).await?
            },
            meshd: Socket::listen(run.join(paths::MESHD_SOCKET), meshd_owner, meshd_mode).await?,
            rpc: match accounts.rpc {
                None => None,
                Some(_) => {
                    let path = run.join(&node.rpc_socket);
                    check_place(&path, "rpc.socket")?;
                    Some(Socket::listen(path, for_group, control_mode).await?)
                }
            },
            web: match accounts.web {
                None => None,
                Some(_) => Some(Socket::listen(run.join(paths::WEB_SOCKET), for_group, control_mode).await?),
            },
            web_pages: match node.web_socket.as_ref().filter(|_| accounts.web.is_some()) {
                None => None,
                Some(path) => {
                    check_place(path, "web.listen")?;
                    Some(Socket::listen(path.clone(), for_group, control_mode).await?)
                }
            },
            wireguard: Socket::for_wg(node.wireguard.join(format!("{}.sock", node.interface))).await,
        })
    }
}

/// Only root may be able to put something else in the place of a socket that root makes.
fn check_place(path: &Path, what: &'static str) -> Result<(), LayoutError> {
    let parent = parent(path);
    let safe =
        parent.metadata().is_ok_and(|found| found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0);
    if safe && trusted::directory(parent).is_ok() {
        return Ok(());
    }
    Err(LayoutError::SocketPlace { path: path.to_owned(), what })
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// A listening socket and its file.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Where it is.
    pub(crate) path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    async fn listen(path: PathBuf, owner: Account, mode: u32) -> Result<Self, LayoutError> {
        remove_stale(&path).await?;
        let listener = UnixListener::bind(&path).map_err(|error| LayoutError::listen(&path, error))?;
        let socket = Self { path, listener };
        // Until here only root could connect, by the umask.
        give(&socket.path, owner, mode).map_err(|error| LayoutError::listen(&socket.path, error))?;
        Ok(socket)
    }

    /// The socket where `wg` looks for the interface. Other programs have theirs in the same directory.
    async fn for_wg(path: PathBuf) -> Result<Self, LayoutError> {
        let directory = parent(&path);
        std::fs::create_dir_all(directory)
            .map_err(|error| LayoutError::io("make the directory", directory, error))?;
        check_place(&path, "where `wg` looks")?;
        Self::listen(path, ROOT, 0o600).await
    }

    /// A descriptor of the same socket.
    ///
    /// # Errors
    /// If the system has none to give.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone().map(OwnedFd::from)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A socket by which one daemon tells how it does (sd_notify(3)). Its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The socket, which tells who sends.
    pub(crate) socket: UnixDatagram,
}

impl NotifySocket {
    /// Makes one for a daemon with this user. Within a runtime.
    ///
    /// # Errors
    /// [`LayoutError::Listen`] if it cannot be made.
    pub(crate) fn bind(path: PathBuf, owner: Account) -> Result<Self, LayoutError> {
        // The lock of the directory says that nobody else is using it.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LayoutError::listen(&path, error));
            }
            _ => {}
        }
        let socket = UnixDatagram::bind(&path).map_err(|error| LayoutError::listen(&path, error))?;
        let socket = Self { path, socket };
        sockopt::set_socket_passcred(&socket.socket, true)
            .map_err(io::Error::from)
            .and_then(|()| give(&socket.path, owner, 0o600))
            .map_err(|error| LayoutError::listen(&socket.path, error))?;
        Ok(socket)
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Gives a file an owner and a mode.
fn give(path: &Path, owner: Account, mode: u32) -> io::Result<()> {
    chown(path, Some(owner.uid), Some(owner.gid))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Removes a socket file that nobody listens on any more.
async fn remove_stale(path: &Path) -> Result<(), LayoutError> {
    use std::os::unix::fs::FileTypeExt as _;
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(LayoutError::NotSocket { path: path.to_owned() }),
        Err(_) => return Ok(()),
    }
    // The daemons of a supervisor that was killed may still be on their way out.
    for _ in 0..LISTENER_CHECKS {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return std::fs::remove_file(path).map_err(|error| LayoutError::io("remove", path, error));
            }
            _ => tokio::time::sleep(LISTENER_PAUSE).await,
        }
    }
    Err(LayoutError::SocketInUse { path: path.to_owned() })
}

/// The same path from the root on.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, LayoutError> {
    std::path::absolute(path).map_err(|source| LayoutError::Path { path: path.to_owned(), source })
}

/// Directories above ours are made readable for all, whatever the caller's umask, so that the daemons' users
/// get through them.
fn umask_for_directories() {
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// A directory with this owner and mode: made, or found so, or empty and root's to give away. What is found
/// otherwise is not changed, because who had access until now may have left something there.
fn prepare(path: &Path, directory: Directory, owner: Account, mode: u32) -> Result<(), LayoutError> {
    let failed = |error: io::Error| LayoutError::io("make the directory", path, error);
    if let Some(parent) = path.parent() {
        // What is made below is root's; what is there already may not be.
        if let Some(there) = parent.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) {
            trusted::directory(there).map_err(|source| LayoutError::Untrusted {
                directory,
                path: path.to_owned(),
                source,
            })?;
        }
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = path.symlink_metadata().map_err(failed)?;
            let fits = check(path, &found, directory, owner, mode);
            let free = found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 && is_empty(path);
            if fits.is_ok() || !free {
                return fits;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    chown(path, Some(owner.uid), Some(owner.gid)).map_err(|source| LayoutError::GiveAway {
        path: path.to_owned(),
        uid: owner.uid,
        source,
    })?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn check(
    path: &Path,
    found: &Metadata,
    directory: Directory,
    owner: Account,
    expected: u32,
) -> Result<(), LayoutError> {
    let path = || path.to_owned();
    if !found.is_dir() {
        return Err(LayoutError::NotDirectory { directory, path: path() });
    }
    if found.uid() != owner.uid {
        return Err(LayoutError::Owner { directory, path: path(), found: found.uid(), expected: owner.uid });
    }
    // Others may look where they must pass, but write nowhere, and look nowhere else.
    let found = found.mode() & 0o777;
    if found & 0o077 & if expected & 0o077 == 0 { 0o077 } else { 0o022 } != 0 {
        return Err(LayoutError::Open { path: path(), found, expected });
    }
    if expected & 0o011 & !found != 0 {
        return Err(LayoutError::Closed { path: path(), found, expected });
    }
    Ok(())
}

fn lock_runtime(run: &Path) -> Result<File, LayoutError> {
    let path = run.join(LOCK_FILE);
    let failed = |error: io::Error| LayoutError::io("lock", &path, error);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = (&file).take(20).read_to_string(&mut holder);
        return Err(LayoutError::NodeRuns { run: run.to_owned(), pid: holder.trim().to_owned() });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

/// The lock of a state directory; none if another process has it.
pub(crate) fn try_lock(data: &Path) -> Result<Option<File>, LayoutError> {
    let directory = open(data, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| LayoutError::io("open", data, error))?;
    let locked = flock(&directory, FlockOperation::NonBlockingLockExclusive);
    Ok(locked.is_ok().then(|| File::from(directory)))
}
