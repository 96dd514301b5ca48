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
//! | run/meshd.sock | root:group | 0660 | root and the group can control the node; 0600 without a group, and rpcd's |
//! | run/rpc.sock | root:group | 0660 | likewise |
//!
//! `keyd` and `tund` check their peers' credentials besides.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_ipc::daemon::trusted;
use i2plan_ipc::paths;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::net::sockopt;
use tokio::net::{UnixDatagram, UnixStream};

use super::users::{Account, Accounts};
use crate::failure::{Failure, Kind};

const ROOT: Account = Account { uid: 0, gid: 0 };

/// Holds the lock of the runtime directory, and the process id of who holds it.
const LOCK_FILE: &str = "supervisor.lock";

/// How often it is looked again whether a socket's last listener has gone, and how long between.
const LISTENER_CHECKS: u32 = 10;
const LISTENER_PAUSE: Duration = Duration::from_millis(200);

/// The directories of a node, taken for this process alone.
#[derive(Debug)]
pub struct Directories {
    /// Where the daemons keep their state.
    pub data: PathBuf,
    /// Where their sockets are.
    pub run: PathBuf,
    _locks: [File; 2],
}

impl Directories {
    /// Makes or checks them.
    ///
    /// # Errors
    /// If they cannot be made, are open to others, belong to others, or are in use by another supervisor.
    pub fn prepare(data: &Path, run: &Path, accounts: &Accounts) -> Result<Self, Failure> {
        let (data, run) = (absolute(data)?, absolute(run)?);
        umask_for_directories();
        directory(&run, ROOT, 0o755, "--runtime-dir")?;
        let run_lock = lock_runtime(&run)?;
        directory(&data, ROOT, 0o711, "--data-dir")?;
        let data_lock = lock_data(&data)?;
        directory(&data.join("keyd"), accounts.keyd, 0o700, "--keyd-user")?;
        directory(&data.join("meshd"), accounts.meshd, 0o700, "--meshd-user")?;
        if let Some(rpc) = accounts.rpc {
            directory(&data.join("rpc"), rpc, 0o700, "--rpc-user")?;
        }
        if let Some(router) = accounts.router {
            directory(&data.join("routerd"), router, 0o700, "--router-user")?;
        }
        Ok(Self { data, run, _locks: [run_lock, data_lock] })
    }
}

/// The listening sockets of the daemons, whose files are removed when this is dropped.
#[derive(Debug)]
pub struct Sockets {
    /// `keyd`'s for `meshd`.
    pub keyd_meshd: Socket,
    /// `keyd`'s for `tund`.
    pub keyd_tund: Socket,
    /// `keyd`'s for the connector.
    pub keyd_connector: Socket,
    /// `keyd`'s for orders.
    pub keyd_control: Socket,
    /// `meshd`'s.
    pub meshd: Socket,
    /// `tund`'s.
    pub tund: Socket,
    /// `rpcd`'s, if it runs.
    pub rpc: Option<Socket>,
}

impl Sockets {
    /// Makes them. `rpc` is where `rpcd` shall listen, which may give orders or not.
    ///
    /// # Errors
    /// If they cannot be made, or somebody listens there already.
    pub async fn listen(
        run: &Path,
        rpc: &Path,
        accounts: &Accounts,
        group: u32,
        rpc_orders: bool,
    ) -> Result<Self, Failure> {
        let Accounts { meshd, tund, connector, .. } = *accounts;
        let control_mode = if group == 0 { 0o600 } else { 0o660 };
        let for_group = Account { uid: 0, gid: group };
        // Without a group rpcd gets in as the owner; root does anyway.
        let owner =
            accounts.rpc.filter(|_| group == 0).map_or(for_group, |rpc| Account { uid: rpc.uid, gid: 0 });
        Ok(Self {
            keyd_meshd: Socket::listen(run.join(paths::KEYD_MESHD_SOCKET), meshd, 0o600).await?,
            keyd_tund: Socket::listen(run.join(paths::KEYD_TUND_SOCKET), tund, 0o600).await?,
            keyd_connector: Socket::listen(run.join(paths::KEYD_CONNECTOR_SOCKET), connector, 0o600).await?,
            tund: Socket::listen(run.join(paths::TUND_SOCKET), meshd, 0o600).await?,
            keyd_control: {
                let owner = if rpc_orders { owner } else { for_group };
                Socket::listen(run.join(paths::KEYD_CONTROL_SOCKET), owner, control_mode).await?
            },
            meshd: Socket::listen(run.join(paths::MESHD_SOCKET), owner, control_mode).await?,
            rpc: match accounts.rpc {
                None => None,
                Some(_) => {
                    let path = run.join(rpc);
                    safe_parent(&path)?;
                    Some(Socket::listen(path, for_group, control_mode).await?)
                }
            },
        })
    }
}

/// Only root may be able to put something else in the place of a socket that root makes.
fn safe_parent(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(path);
    let safe =
        parent.metadata().is_ok_and(|found| found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0);
    if safe && trusted::directory(parent).is_ok() {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "cannot listen on {} (rpc.socket): {} is no directory that root alone can write to",
        path.display(),
        parent.display()
    ))
    .with_hint("leave rpc.socket out, or name a path in a directory of root's"))
}

/// A listening socket and its file.
#[derive(Debug)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    async fn listen(path: PathBuf, owner: Account, mode: u32) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::invalid(format!("cannot listen on {}: {error}", path.display()))
                .with_hint("choose another directory with --runtime-dir; its path must be short")
        };
        remove_stale(&path).await?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let socket = Self { path: path.clone(), listener };
        // Until here only root could connect, by the umask.
        chown(&path, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        Ok(socket)
    }

    /// A descriptor of the same socket.
    ///
    /// # Errors
    /// If the system has none to give.
    pub fn share(&self) -> Result<OwnedFd, Failure> {
        let socket = self.listener.try_clone();
        socket
            .map(OwnedFd::from)
            .map_err(|error| Failure::internal(format!("cannot share a socket: {error}")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A socket by which one daemon tells how it does (sd_notify(3)). Its file is removed when this is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    /// Where it is.
    pub path: PathBuf,
    /// The socket, which tells who sends.
    pub socket: UnixDatagram,
}

impl NotifySocket {
    /// Makes one for a daemon with this user. Within a runtime.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bind(path: PathBuf, owner: Account) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::invalid(format!("cannot listen on {}: {error}", path.display()))
                .with_hint("choose another directory with --runtime-dir; its path must be short")
        };
        // The lock of the directory says that nobody else is using it.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = Self { socket: UnixDatagram::bind(&path).map_err(failed)?, path: path.clone() };
        sockopt::set_socket_passcred(&socket.socket, true).map_err(|error| failed(error.into()))?;
        chown(&path, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(socket)
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket file that nobody listens on any more.
async fn remove_stale(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::FileTypeExt as _;
    let shown = path.display();
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(Failure::invalid(format!("{shown} is in the way: it is no socket"))
                .with_hint("move it away, or choose another directory with --runtime-dir"));
        }
        Err(_) => return Ok(()),
    }
    // The daemons of a supervisor that was killed may still be on their way out.
    for _ in 0..LISTENER_CHECKS {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return std::fs::remove_file(path)
                    .map_err(|error| Failure::invalid(format!("cannot remove {shown}: {error}")));
            }
            _ => tokio::time::sleep(LISTENER_PAUSE).await,
        }
    }
    Err(Failure::new(Kind::Conflict, format!("something listens on {shown} already")).with_hint(
        "does i2plan run as a service? stop it and its sockets first, or choose another --runtime-dir and --data-dir",
    ))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::invalid(format!("{} is no path: {error}", path.display())))
}

/// Directories above ours are made readable for all, whatever the caller's umask, so that the daemons' users
/// get through them.
fn umask_for_directories() {
    rustix::process::umask(Mode::from_raw_mode(0o022));
}

/// A directory with this owner and mode: made, or found so, or empty and root's to give away. What is found
/// otherwise is not changed, because who had access until now may have left something there.
fn directory(path: &Path, owner: Account, mode: u32, option: &str) -> Result<(), Failure> {
    let shown = path.display();
    let failed = |error: io::Error| Failure::invalid(format!("cannot make the directory {shown}: {error}"));
    if let Some(parent) = path.parent() {
        // What is made below is root's; what is there already may not be.
        if let Some(there) = parent.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) {
            trusted::directory(there).map_err(|error| {
                Failure::invalid(format!("{shown} cannot be used ({option}): {error}"))
                    .with_hint("name a path in a directory that only root can write to, as those above it")
            })?;
        }
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = path.symlink_metadata().map_err(failed)?;
            let fits = check_directory(path, &found, owner, mode, option);
            let free = found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 && is_empty(path);
            if fits.is_ok() || !free {
                return fits;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    chown(path, Some(owner.uid), Some(owner.gid)).map_err(|error| {
        Failure::invalid(format!("cannot give {shown} to user {}: {error}", owner.uid))
            .with_hint("in a user namespace, only users that are mapped into it can be used")
    })?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn check_directory(
    path: &Path,
    found: &Metadata,
    owner: Account,
    mode: u32,
    option: &str,
) -> Result<(), Failure> {
    let shown = path.display();
    if !found.is_dir() {
        return Err(Failure::invalid(format!("{shown} is no directory"))
            .with_hint(format!("name the directory itself with {option}, not a link to it")));
    }
    if found.uid() != owner.uid {
        return Err(Failure::invalid(format!(
            "{shown} belongs to user {}, and must belong to user {}",
            found.uid(),
            owner.uid
        ))
        .with_hint(format!(
            "choose another with {option}, or change the owner if you trust what is in it: \
             `chown -R {} {shown}`",
            owner.uid
        )));
    }
    // Others may look where they must pass, but write nowhere, and look nowhere else.
    let too_open = found.mode() & 0o077 & if mode & 0o077 == 0 { 0o077 } else { 0o022 };
    let too_closed = mode & 0o011 & !found.mode();
    if too_open | too_closed != 0 {
        let how = if too_open != 0 { "open to other users" } else { "closed to the daemons" };
        return Err(Failure::invalid(format!("{shown} is {how}: its mode is {:03o}", found.mode() & 0o777))
            .with_hint(format!("`chmod {mode:03o} {shown}`, if you trust what is in it")));
    }
    Ok(())
}

fn lock_runtime(run: &Path) -> Result<File, Failure> {
    let path = run.join(LOCK_FILE);
    let failed = |error: io::Error| Failure::invalid(format!("cannot lock {}: {error}", path.display()));
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        let _ = (&file).take(20).read_to_string(&mut holder);
        return Err(Failure::new(
            Kind::Conflict,
            format!("a node runs on {} already: i2planctl with process id {}", run.display(), holder.trim()),
        )
        .with_hint("see `i2planctl status`; for a second node choose another --runtime-dir and --data-dir"));
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}

fn lock_data(data: &Path) -> Result<File, Failure> {
    try_lock(data)?.ok_or_else(|| {
        let shown = data.display();
        Failure::new(Kind::Conflict, format!("another node keeps its state in {shown}"))
            .with_hint("choose another directory with --data-dir, or stop the other i2planctl")
    })
}

/// Takes the state of a node that does not run, so that it cannot be started meanwhile.
///
/// # Errors
/// If there is none, or the node runs.
pub fn lock_stopped(data: &Path) -> Result<File, Failure> {
    if !data.exists() {
        return Err(Failure::new(Kind::NotFound, format!("no node keeps its state in {}", data.display()))
            .with_hint("name the directory with --data-dir, as for `i2planctl up`"));
    }
    try_lock(data)?.ok_or_else(|| running(data))
}

/// The node is up and should not be.
#[must_use]
pub fn running(data: &Path) -> Failure {
    Failure::new(Kind::Conflict, format!("the node that keeps its state in {} runs", data.display()))
        .with_hint("stop it first, and start it again afterwards")
}

/// The lock of a state directory; none if another process has it.
fn try_lock(data: &Path) -> Result<Option<File>, Failure> {
    let shown = data.display();
    let directory = open(data, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Failure::invalid(format!("cannot open {shown}: {error}")))?;
    let locked = flock(&directory, FlockOperation::NonBlockingLockExclusive);
    Ok(locked.is_ok().then(|| File::from(directory)))
}
