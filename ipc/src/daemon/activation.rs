//! The listening socket of a daemon: handed over by a supervisor, or made here.

#![allow(unsafe_code, reason = "taking over an inherited descriptor")]

use std::fs::Permissions;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, listen, socket_with, sockopt,
};
use thiserror::Error;

use super::notify::Supervisor;
use super::trusted;

/// Connections that may wait to be accepted; the standard library's number.
const BACKLOG: i32 = 128;

/// Why a daemon has no socket to listen on.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// What the supervisor says of the descriptors that it passes cannot be understood.
    #[error("the supervisor passes descriptors in a way that cannot be understood: {0}")]
    Unclear(io::Error),
    /// Neither handed over nor named.
    #[error("no listening socket: start this daemon by its supervisor, or name a path with --listen")]
    Missing,
    /// The same for one of several.
    #[error(
        "no listening socket that is called {name:?}: start this daemon by its supervisor, or use --listen"
    )]
    MissingNamed {
        /// Its name.
        name: &'static str,
    },
    /// It could not be made.
    #[error("cannot listen on {path}: {source}")]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The same for one of several.
    #[error("cannot listen on {path}: {source}; no socket that is called {name:?} was handed over for it")]
    BindNamed {
        /// Its name.
        name: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What a supervisor passed by the protocol of `sd_listen_fds(3)`.
#[derive(Debug)]
pub struct Passed {
    /// The listening socket.
    pub listener: UnixListener,
    /// Another that was asked for by its name, if it was passed.
    pub named: Option<UnixListener>,
    /// What comes from the fd store, or is of no use.
    pub stored: Vec<StoredFd>,
}

/// A descriptor that is not the listening socket.
#[derive(Debug)]
pub struct StoredFd {
    /// The name that it was stored by.
    pub name: String,
    /// The descriptor.
    pub fd: OwnedFd,
}

/// What the supervisor passed. Sockets that activate a daemon come first, whatever their name; if the first
/// descriptor is no listening unix socket, one is bound to `path`, with mode 0660. A listening socket that is called
/// `named` (`LISTEN_FDNAMES`; systemd: `FileDescriptorName=`) is taken out before, and may be missing.
///
/// # Errors
/// [`ActivationError`].
pub fn passed(path: Option<&Path>, named: Option<&str>) -> Result<Passed, ActivationError> {
    sort(take()?, path, named)
}

fn take() -> Result<Vec<StoredFd>, ActivationError> {
    let fds = sd_notify::listen_fds_with_names().map_err(ActivationError::Unclear)?;
    // SAFETY: the supervisor opened these descriptors for this process alone (LISTEN_PID was checked), and this
    // function, called once at the start of main by one of its callers, is the only taker.
    Ok(fds.map(|(fd, name)| StoredFd { name, fd: unsafe { OwnedFd::from_raw_fd(fd) } }).collect())
}

fn sort(
    mut passed: Vec<StoredFd>,
    path: Option<&Path>,
    named: Option<&str>,
) -> Result<Passed, ActivationError> {
    let at = passed.iter().position(|passed| Some(&*passed.name) == named && is_listener(&passed.fd));
    let named = at.map(|at| passed.remove(at).fd.into());
    if passed.first().is_some_and(|first| is_listener(&first.fd)) {
        let listener = passed.remove(0).fd.into();
        return Ok(Passed { listener, named, stored: passed });
    }
    let path = path.ok_or(ActivationError::Missing)?;
    let listener = bind(path).map_err(|source| ActivationError::Bind { path: path.to_owned(), source })?;
    Ok(Passed { listener, named, stored: passed })
}

fn is_listener(fd: &OwnedFd) -> bool {
    sockopt::socket_acceptconn(fd).unwrap_or(false)
        && sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
}

impl StoredFd {
    /// Closes it, here and in the supervisor's store, and says why.
    pub fn refuse(self, supervisor: &Supervisor, reason: &str) {
        tracing::warn!(name = self.name, reason, "dropped a descriptor that was passed to this process");
        // The last close of a socket that lingers would wait for the other end.
        let _ = sockopt::set_socket_linger(&self.fd, None);
        supervisor.forget(&self.name);
    }
}

/// The listening socket of a daemon that has nothing stored.
///
/// # Errors
/// [`ActivationError`].
pub fn listener(path: Option<&Path>) -> Result<UnixListener, ActivationError> {
    passed(path, None).map(|passed| nothing_stored(passed).0)
}

fn nothing_stored(passed: Passed) -> (UnixListener, Option<UnixListener>) {
    for stored in passed.stored {
        stored.refuse(Supervisor::of_this_process(), "this daemon has nothing stored");
    }
    (passed.listener, passed.named)
}

/// As [`listener`], and a second listening socket, which is called `name` and else bound to `second`, in a directory where
/// only root and the own user can put another in its place.
///
/// # Errors
/// [`ActivationError`].
pub fn listener_and(
    path: Option<&Path>,
    name: &'static str,
    second: Option<&Path>,
) -> Result<(UnixListener, Option<UnixListener>), ActivationError> {
    let (listener, named) = nothing_stored(passed(path, Some(name))?);
    let second = match (named, second) {
        (None, Some(path)) => Some(bind_in_safety(path).map_err(|source| ActivationError::BindNamed {
            name,
            path: path.to_owned(),
            source,
        })?),
        (named, _) => named,
    };
    Ok((listener, second))
}

fn bind_in_safety(path: &Path) -> io::Result<UnixListener> {
    trusted::directory(path.parent().unwrap_or(path)).map_err(io::Error::other)?;
    bind(path)
}

/// Closes the connections that wait at sockets that were handed over: for them systemd would start this daemon again.
pub fn refuse_waiting() {
    let passed = take().unwrap_or_default();
    for listener in passed.into_iter().filter(|passed| is_listener(&passed.fd)) {
        let listener = UnixListener::from(listener.fd);
        if listener.set_nonblocking(true).is_ok() {
            while listener.accept().is_ok() {}
        }
    }
}

/// The listening sockets of a daemon that has several and nothing stored, by the names that its supervisor gives them
/// (`LISTEN_FDNAMES`; systemd: `FileDescriptorName=`). One that was not passed is bound to the path beside its name, with
/// mode 0660.
///
/// # Errors
/// [`ActivationError`].
///
/// Also returns the descriptors that are called like `others`, as far as there are such.
pub fn listeners_and<const N: usize, const M: usize>(
    wanted: [(&'static str, Option<PathBuf>); N],
    others: [&str; M],
) -> (Result<[UnixListener; N], ActivationError>, [Option<OwnedFd>; M]) {
    match take() {
        Ok(mut passed) => {
            let others = others.map(|name| take_named(&mut passed, name));
            (sort_by_name(passed, wanted), others)
        }
        Err(error) => (Err(error), others.map(|_| None)),
    }
}

/// Takes the descriptor with this name out of those that were passed, if there is one.
pub fn take_named(passed: &mut Vec<StoredFd>, name: &str) -> Option<OwnedFd> {
    let at = passed.iter().position(|passed| passed.name == name)?;
    Some(passed.remove(at).fd)
}

fn sort_by_name<const N: usize>(
    mut passed: Vec<StoredFd>,
    wanted: [(&'static str, Option<PathBuf>); N],
) -> Result<[UnixListener; N], ActivationError> {
    let mut found = Vec::with_capacity(N);
    for (name, path) in wanted {
        let at = passed.iter().position(|passed| passed.name == name && is_listener(&passed.fd));
        found.push(match (at, path) {
            (Some(at), _) => passed.remove(at).fd.into(),
            (None, Some(path)) => bind(&path).map_err(|source| ActivationError::Bind { path, source })?,
            (None, None) => return Err(ActivationError::MissingNamed { name }),
        });
    }
    for stored in passed {
        stored.refuse(Supervisor::of_this_process(), "it has a name that this daemon gives to nothing");
    }
    // As many as are wanted, or this is not reached.
    found.try_into().map_err(|_| ActivationError::Missing)
}

/// Takes a listening socket into the runtime.
///
/// # Errors
/// If the system refuses.
pub fn into_tokio(listener: UnixListener) -> io::Result<tokio::net::UnixListener> {
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // A socket file that outlived its daemon stands in the way; anything else there is not ours to remove.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && has_listener(path)? => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "something listens there already"));
        }
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is in the way",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens nobody can connect, whatever the umask.
    std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Returns whether something listens at a unix socket.
fn has_listener(path: &Path) -> io::Result<bool> {
    // Where too many connections wait already, this one must not.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(matches!(connect(&socket, &SocketAddrUnix::new(path)?), Ok(()) | Err(Errno::AGAIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, fd: impl Into<OwnedFd>) -> StoredFd {
        StoredFd { name: name.to_owned(), fd: fd.into() }
    }

    #[test]
    fn the_listening_socket_comes_first_and_what_is_stored_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let listening = |name: &str| UnixListener::bind(dir.path().join(name)).unwrap();
        let file = || std::fs::File::open("/dev/null").unwrap();

        let passed =
            sort(vec![stored("i2plan.socket", listening("a")), stored("tun", file())], None, None).unwrap();
        assert_eq!(passed.stored.len(), 1);
        assert_eq!(passed.stored[0].name, "tun");

        // One from the store does not take its place.
        let late = vec![stored("tun", file()), stored("x", listening("b"))];
        assert!(matches!(sort(late, None, None), Err(ActivationError::Missing)));
        let late = vec![stored("tun", file()), stored("x", listening("c"))];
        let passed = sort(late, Some(&dir.path().join("own")), None).unwrap();
        assert_eq!(passed.stored.len(), 2);
        assert!(passed.listener.local_addr().unwrap().as_pathname().unwrap().ends_with("own"));

        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(sort(vec![stored("a", tcp)], None, None), Err(ActivationError::Missing)));
    }

    #[test]
    fn a_socket_that_is_asked_for_by_name_is_not_taken_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let listening = |name: &str| stored(name, UnixListener::bind(dir.path().join(name)).unwrap());
        let file = || std::fs::File::open("/dev/null").unwrap();
        for order in [["wireguard", "i2plan.socket"], ["i2plan.socket", "wireguard"]] {
            let _ = order.map(|name| std::fs::remove_file(dir.path().join(name)));
            let passed = order.map(listening).into_iter().chain([stored("wireguard", file())]).collect();
            let passed = sort(passed, None, Some("wireguard")).unwrap();
            let ends = |listener: &UnixListener, name| {
                listener.local_addr().unwrap().as_pathname().unwrap().ends_with(name)
            };
            assert!(ends(&passed.listener, "i2plan.socket"));
            assert!(passed.named.is_some_and(|named| ends(&named, "wireguard")));
            // What is no listening socket is not one by its name.
            assert_eq!(passed.stored.len(), 1);
        }
        let _ = std::fs::remove_file(dir.path().join("i2plan.socket"));
        let passed = sort(vec![listening("i2plan.socket")], None, Some("wireguard")).unwrap();
        assert!(passed.named.is_none());
    }

    #[test]
    fn several_sockets_go_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let listening = |name: &str| stored(name, UnixListener::bind(at(name)).unwrap());
        let file = stored("c", std::fs::File::open("/dev/null").unwrap());
        let wanted = [("a", None), ("b", None), ("c", Some(at("made")))];
        let found = sort_by_name(vec![file, listening("b"), listening("x"), listening("a")], wanted).unwrap();
        let name = |listener: &UnixListener| {
            listener.local_addr().unwrap().as_pathname().unwrap().file_name().unwrap().to_owned()
        };
        assert_eq!(found.map(|listener| name(&listener)), ["a", "b", "made"]);

        let missing = sort_by_name(Vec::new(), [("a", Some(at("a-made"))), ("b", None)]);
        assert!(matches!(missing, Err(ActivationError::MissingNamed { name: "b" })));
    }

    #[test]
    fn what_is_refused_leaves_the_store() {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let supervisor = Supervisor::hearing(Some(near));
        stored("evil", std::fs::File::open("/dev/null").unwrap()).refuse(&supervisor, "it is foreign");
        let mut buffer = [0; 100];
        let len = far.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"FDSTOREREMOVE=1\nFDNAME=evil\n");
    }

    #[test]
    fn a_stale_socket_is_replaced_but_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(bind(&path).unwrap());
        drop(bind(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

        // Nor is one taken away from a process that listens there, whether or not it accepts connections.
        let listener = bind(&path).unwrap();
        // One connection each that waits there.
        for _ in 0..2 * BACKLOG {
            assert!(has_listener(&path).unwrap());
        }
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);

        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_second_socket_is_made_where_others_cannot_put_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(bind_in_safety(&path).unwrap());
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let error = bind_in_safety(&path).unwrap_err().to_string();
        assert!(error.contains("can be written to by others than its owner (mode 777)"), "{error}");
    }
}
