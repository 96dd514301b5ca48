//! A client of one daemon.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::User;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::api::{Api, Call};
use crate::error::{ApiError, ErrorKind};
use crate::frame::{FrameError, Header, encode_body};
use crate::hello::{Hello, HelloReply, MAX_HELLO, PROTOCOL, Reply, Request, Role};
use crate::socket::{FrameSocket, SocketError};
use crate::version::Version;

/// How long a daemon may take to accept a connection and answer the handshake. Long, because under socket
/// activation the first connection starts it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Wait before a socket at which too many are waiting is tried again. The daemon takes in some thousand in this
/// time.
const CONNECT_RETRY: Duration = Duration::from_millis(20);

/// Added to a request's own deadline, so that the daemon's answer that it took too long still arrives.
const MARGIN: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The socket cannot be opened.
    #[error("cannot connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else listens on the socket. Nothing was sent there.
    #[error(
        "user {owner} listens on {}, where root or the user {expected} is expected; nothing was sent there",
        path.display()
    )]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// The name of the daemon's user.
        expected: String,
        /// The user.
        owner: u32,
    },
    /// The connection broke or the daemon broke the protocol.
    #[error("lost the connection to {daemon}: {reason}")]
    Broken {
        /// The daemon.
        daemon: Role,
        /// How.
        reason: String,
    },
    /// The daemon has answered another request.
    #[error("unexpected reply from {daemon}")]
    Unexpected {
        /// The daemon.
        daemon: Role,
    },
    /// The daemon does not answer.
    #[error("{daemon} does not answer")]
    Timeout {
        /// The daemon.
        daemon: Role,
    },
    /// The daemon speaks another version of the protocol.
    #[error(
        "{daemon} (version {theirs}) and this program (version {}) do not speak the same protocol version; \
         they were not installed together or the daemon was not restarted after an upgrade",
        Version::current().version
    )]
    Version {
        /// The daemon.
        daemon: Role,
        /// Its version.
        theirs: String,
    },
    /// The daemon answered with an error.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// The same for a caller of the caller.
    #[must_use]
    pub fn into_api(self) -> ApiError {
        let kind = match &self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Denied
            }
            Self::Stranger { .. } => ErrorKind::Denied,
            Self::Connect { .. } | Self::Broken { .. } => ErrorKind::Unavailable,
            Self::Unexpected { .. } => ErrorKind::Internal,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Version { .. } => ErrorKind::Version,
            Self::Api(error) => return error.clone(),
        };
        ApiError::new(kind, self.to_string())
    }
}

/// A socket, and who may listen there.
///
/// A client sends secrets, such as invite codes, and believes the answers. The kernel tells it who listens: root, whose
/// sockets a supervisor (systemd, `i2planctl up`) hands to the daemons; the daemon's own user, if it makes the socket
/// itself; or the client's own user.
#[derive(Debug, Clone)]
pub struct Endpoint {
    path: PathBuf,
    /// Whom else to take for the daemon. If none, the user that has its name, looked up when it is needed.
    users: Option<Vec<u32>>,
}

impl Endpoint {
    /// One for a daemon, which cannot look users up in its sandbox and does so here.
    #[must_use]
    pub fn resolved(path: &Path, daemon: Role) -> Self {
        Self::of_users(path, named(&user_of(daemon)).into_iter().collect::<Vec<_>>())
    }

    /// One where these users may listen too.
    #[must_use]
    pub fn of_users(path: &Path, users: impl Into<Vec<u32>>) -> Self {
        Self { path: path.to_owned(), users: Some(users.into()) }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks who listens at the other end of a connection, where the user of this name may.
    ///
    /// # Errors
    /// [`ClientError::Stranger`], or [`ClientError::Connect`] if the system does not tell.
    pub fn check(&self, stream: &UnixStream, expected: &str) -> Result<(), ClientError> {
        let path = || self.path.clone();
        let owner = match stream.peer_cred() {
            Ok(credentials) => credentials.uid(),
            Err(source) => return Err(ClientError::Connect { path: path(), source }),
        };
        let is_expected = || match &self.users {
            Some(users) => users.contains(&owner),
            None => named(expected) == Some(owner),
        };
        if owner == 0 || owner == rustix::process::geteuid().as_raw() || is_expected() {
            return Ok(());
        }
        Err(ClientError::Stranger { path: path(), expected: expected.to_owned(), owner })
    }
}

impl<P: Into<PathBuf>> From<P> for Endpoint {
    fn from(path: P) -> Self {
        Self { path: path.into(), users: None }
    }
}

/// The user that a daemon runs as where it is installed.
fn user_of(daemon: Role) -> String {
    format!("i2plan-{daemon}")
}

fn named(user: &str) -> Option<u32> {
    User::from_name(user).ok().flatten().map(|user| user.uid.as_raw())
}

/// The first frame of a connection, for a program that wants no more than to be answered.
///
/// # Errors
/// [`FrameError`], which does not happen.
pub fn greeting(role: Role) -> Result<Vec<u8>, FrameError> {
    let body = encode_body(&Hello { protocol: PROTOCOL, role, version: Version::current() })?;
    let header = Header { len: body.len(), fds: 0 }.encode(MAX_HELLO)?;
    Ok([&header, &body[..]].concat())
}

/// A connection to one daemon. Requests go one after the other.
#[derive(Debug)]
pub struct Client<A> {
    socket: FrameSocket,
    daemon: HelloReply,
    next_id: u64,
    /// A reply is outstanding that nobody waits for any more: the connection is out of step.
    broken: bool,
    api: std::marker::PhantomData<A>,
}

impl<A: Api> Client<A> {
    /// Connects to the daemon at a socket.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(endpoint: impl Into<Endpoint>, role: Role) -> Result<Self, ClientError> {
        let endpoint = endpoint.into();
        let stream = timeout(CONNECT_DEADLINE, connect(&endpoint.path))
            .await
            .map_err(|_| ClientError::Timeout { daemon: A::DAEMON })?
            .map_err(|source| ClientError::Connect { path: endpoint.path.clone(), source })?;
        endpoint.check(&stream, &user_of(A::DAEMON))?;
        let mut socket = FrameSocket::new(stream);
        let hello = Hello { protocol: PROTOCOL, role, version: Version::current() };
        let handshake = async {
            let sent = socket.send(&hello, &[], MAX_HELLO).await;
            // A daemon that has too many connections says so, and does not wait to be greeted.
            match (socket.recv::<HelloReply>(MAX_HELLO).await, sent) {
                (Ok(reply), _) => Ok(reply),
                (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            }
        };
        let (daemon, _) = timeout(CONNECT_DEADLINE, handshake)
            .await
            .map_err(|_| ClientError::Timeout { daemon: A::DAEMON })?
            .map_err(Self::broke)?;
        if daemon.protocol != PROTOCOL {
            return Err(ClientError::Version { daemon: A::DAEMON, theirs: daemon.version.version });
        }
        if let Some(refusal) = daemon.refused {
            return Err(refusal.into());
        }
        if daemon.role != A::DAEMON {
            let reason = format!("{} listens there", daemon.role);
            return Err(ClientError::Broken { daemon: A::DAEMON, reason });
        }
        Ok(Self { socket, daemon, next_id: 1, broken: false, api: std::marker::PhantomData })
    }

    /// What the daemon said of itself.
    #[must_use]
    pub fn daemon(&self) -> &HelloReply {
        &self.daemon
    }

    /// Whether the connection is of no use any more, after an error or a call that was given up.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]; after any but [`ClientError::Api`] the connection is broken.
    pub async fn call<C: Call<Api = A>>(&mut self, call: C) -> Result<C::Reply, ClientError> {
        self.call_with_fds(call, &[]).await
    }

    /// Asks with file descriptors, which the daemon gets duplicates of.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_with_fds<C: Call<Api = A>>(
        &mut self,
        call: C,
        fds: &[BorrowedFd<'_>],
    ) -> Result<C::Reply, ClientError> {
        if self.broken {
            return Err(Self::broke(SocketError::Closed));
        }
        let id = self.next_id;
        self.next_id += 1;
        let request: A::Request = call.into();
        let deadline = A::terms(&request).deadline + MARGIN;
        // Until the reply is in: also if this future is dropped half-way.
        self.broken = true;
        let exchange = async {
            self.socket.send(&Request { id, body: request }, fds, A::MAX_REQUEST).await?;
            self.socket.recv::<Reply<A::Reply>>(A::MAX_REPLY).await
        };
        let (reply, fds) = timeout(deadline, exchange)
            .await
            .map_err(|_| ClientError::Timeout { daemon: A::DAEMON })?
            .map_err(Self::broke)?;
        if reply.id != id {
            let reason = format!("reply {} came for request {id}", reply.id);
            return Err(ClientError::Broken { daemon: A::DAEMON, reason });
        }
        let answer = match reply.result {
            Ok(reply) => Ok(C::reply(reply, fds)?),
            Err(error) => Err(error.into()),
        };
        self.broken = false;
        answer
    }

    fn broke(error: SocketError) -> ClientError {
        ClientError::Broken { daemon: A::DAEMON, reason: error.to_string() }
    }
}

/// Connects, also while the daemon has more waiting to be accepted than the kernel queues.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(CONNECT_RETRY).await,
            result => return result,
        }
    }
}

/// A client that connects when it is first used, and again after the connection broke.
#[derive(Debug)]
pub struct DaemonLink<A> {
    endpoint: Endpoint,
    role: Role,
    client: tokio::sync::Mutex<Option<Client<A>>>,
}

impl<A: Api> DaemonLink<A> {
    /// A link to the daemon at a socket.
    #[must_use]
    pub fn new(endpoint: impl Into<Endpoint>, role: Role) -> Self {
        Self { endpoint: endpoint.into(), role, client: tokio::sync::Mutex::new(None) }
    }

    /// A connection of one's own, for a call that takes long.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(&self) -> Result<Client<A>, ClientError> {
        Client::connect(self.endpoint.clone(), self.role).await
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// [`ClientError`] if it cannot be reached.
    pub async fn daemon(&self) -> Result<HelloReply, ClientError> {
        let mut slot = self.client.lock().await;
        Ok(self.connected(&mut slot).await?.daemon().clone())
    }

    /// Asks. If the connection turns out to have broken since it was last used, the request is not repeated:
    /// the caller knows whether it may be.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<C: Call<Api = A>>(&self, call: C) -> Result<C::Reply, ClientError> {
        self.call_with_fds(call, &[]).await
    }

    /// Asks with file descriptors.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call_with_fds<C: Call<Api = A>>(
        &self,
        call: C,
        fds: &[BorrowedFd<'_>],
    ) -> Result<C::Reply, ClientError> {
        let mut slot = self.client.lock().await;
        self.connected(&mut slot).await?.call_with_fds(call, fds).await
    }

    async fn connected<'a>(&self, slot: &'a mut Option<Client<A>>) -> Result<&'a mut Client<A>, ClientError> {
        if slot.as_ref().is_some_and(Client::is_broken) {
            *slot = None;
        }
        match slot {
            Some(client) => Ok(client),
            None => Ok(slot.insert(self.connect().await?)),
        }
    }
}
