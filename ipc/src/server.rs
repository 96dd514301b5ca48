//! The listening side: accepts connections, checks who asks what, answers.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::access::{Access, Credentials};
use crate::api::{Api, RequestKind, Terms};
use crate::connection_quota::{ConnectionPermit, ConnectionQuota};
use crate::error::ApiError;
use crate::hello::{Hello, HelloReply, Landlock, MAX_HELLO, PROTOCOL, Reply, Request, Role};
use crate::socket::{FrameSocket, SocketError, close, send_at_once};
use crate::version::Version;

pub use crate::connection_quota::ConnectionLimits;

/// How long a client may take to say hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// How long accepting pauses when the system refuses it, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer, with the descriptors that go with it.
#[derive(Debug)]
pub struct Answer<T> {
    /// The reply.
    pub reply: T,
    /// Descriptors of which the client gets duplicates.
    pub fds: Vec<OwnedFd>,
}

impl<T> From<T> for Answer<T> {
    fn from(reply: T) -> Self {
        Self { reply, fds: Vec::new() }
    }
}

/// What a daemon does.
pub trait Service: Send + Sync + 'static {
    /// Its requests and replies.
    type Api: Api;

    /// Answers one request, from a process that may ask it. The right number of descriptors has come.
    fn call(
        &self,
        role: Role,
        request: <Self::Api as Api>::Request,
        fds: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<Answer<<Self::Api as Api>::Reply>, ApiError>> + Send;

    /// As [`Service::call`], for a daemon that keeps something for a connection. The number is that of no other
    /// connection of this process.
    fn call_on(
        &self,
        connection: u64,
        role: Role,
        request: <Self::Api as Api>::Request,
        fds: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<Answer<<Self::Api as Api>::Reply>, ApiError>> + Send {
        let _ = connection;
        self.call(role, request, fds)
    }

    /// A client is let in on the connection with this number. Its process id is the kernel's word.
    fn on_opened(&self, connection: u64, client: &Hello, pid: Option<u32>) {
        let _ = (connection, client, pid);
    }

    /// The connection with this number has ended.
    fn on_closed(&self, connection: u64) {
        let _ = connection;
    }
}

/// Connections of this process so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Accepts the next connection. Where the system refuses one, it is logged and tried again.
pub async fn accept<S, A, F: Future<Output = io::Result<(S, A)>>>(next: impl Fn() -> F) -> S {
    loop {
        match next().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves connections for as long as the process lives.
pub async fn serve<S: Service>(
    listener: UnixListener,
    service: Arc<S>,
    access: Access,
    limits: ConnectionLimits,
) {
    let quota = ConnectionQuota::new(limits, access.users());
    let access = Arc::new(access);
    loop {
        let stream = accept(|| listener.accept()).await;
        let Ok(peer) = stream.peer_cred() else { continue };
        let peer = Credentials { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
        let Some(permit) = quota.enter(peer.uid) else {
            debug!(uid = peer.uid, "refused a connection: too many are open");
            let refusal = ApiError::unavailable(format!(
                "too many connections to {} are open, of user {} or in all",
                S::Api::DAEMON,
                peer.uid
            ));
            // If it can be said without waiting; it is for the client's comfort.
            let refused = Some(refusal.with_hint("close some, or try again later"));
            let _ = send_at_once(&stream, &hello_reply::<S>(refused), MAX_HELLO);
            close(&stream);
            continue;
        };
        let (service, access) = (Arc::clone(&service), Arc::clone(&access));
        tokio::spawn(async move {
            let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            match converse(&*service, connection, stream, peer, &access, &permit).await {
                Ok(()) | Err(SocketError::Closed) => {}
                Err(error) => debug!(uid = peer.uid, %error, "dropped a connection"),
            }
            service.on_closed(connection);
        });
    }
}

async fn converse<S: Service>(
    service: &S,
    connection: u64,
    stream: UnixStream,
    peer: Credentials,
    access: &Access,
    permit: &ConnectionPermit,
) -> Result<(), SocketError> {
    let mut socket = FrameSocket::new(stream);
    let hello =
        timeout(HELLO_DEADLINE, socket.recv::<Hello>(MAX_HELLO)).await.map_err(|_| SocketError::Stalled)?;
    let (hello, _) = hello?;
    permit.turn().await;
    let refused = if hello.protocol == PROTOCOL {
        access.check(hello.role, peer).err()
    } else {
        Some(ApiError::new(
            crate::ErrorKind::Version,
            format!("this daemon speaks protocol version {PROTOCOL}"),
        ))
    };
    if let Some(refusal) = &refused {
        let Credentials { uid, pid, .. } = peer;
        let (role, protocol) = (hello.role, hello.protocol);
        // `i2planctl doctor` greets every daemon, to see which process answers.
        let trusted = uid == 0 || uid == rustix::process::geteuid().as_raw();
        if trusted && role == Role::Client {
            debug!(uid, pid, %role, protocol, "refused a connection: {refusal}");
        } else {
            warn!(uid, pid, %role, protocol, "refused a connection: {refusal}");
        }
    }
    let stop = refused.is_some();
    socket.send(&hello_reply::<S>(refused), &[], MAX_HELLO).await?;
    if stop {
        return Ok(());
    }
    service.on_opened(connection, &hello, peer.pid.and_then(|pid| u32::try_from(pid).ok()));
    loop {
        let (Request { id, body }, fds) = match socket.recv(S::Api::MAX_REQUEST).await {
            Ok(request) => request,
            Err(SocketError::Frame(error)) => {
                // The frame's number is unknown and so is where the next begins: say why, and close.
                let reply = Reply::<<S::Api as Api>::Reply> {
                    id: 0,
                    result: Err(ApiError::invalid(error.to_string())),
                };
                socket.send(&reply, &[], S::Api::MAX_REPLY).await?;
                return Err(SocketError::Frame(error));
            }
            Err(error) => return Err(error),
        };
        permit.turn().await;
        let terms = S::Api::terms(&body);
        let answer = answer(service, connection, hello.role, terms, body, fds);
        let answer = if terms.kind == RequestKind::Poll {
            // Its permit is free as soon as the client has gone.
            tokio::select! {
                answer = answer => answer,
                () = socket.closed() => return Err(SocketError::Closed),
            }
        } else {
            answer.await
        };
        let (result, fds) = match answer {
            Ok(Answer { reply, fds }) => (Ok(reply), fds),
            Err(error) => (Err(error), Vec::new()),
        };
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        socket.send(&Reply { id, result }, &fds, S::Api::MAX_REPLY).await?;
    }
}

fn hello_reply<S: Service>(refused: Option<ApiError>) -> HelloReply {
    HelloReply {
        protocol: PROTOCOL,
        role: S::Api::DAEMON,
        pid: std::process::id(),
        version: Version::current(),
        landlock: Landlock::of_this_process(),
        refused,
    }
}

async fn answer<S: Service>(
    service: &S,
    connection: u64,
    role: Role,
    terms: Terms,
    request: <S::Api as Api>::Request,
    fds: Vec<OwnedFd>,
) -> Result<Answer<<S::Api as Api>::Reply>, ApiError> {
    if !S::Api::allows(role, &request) {
        return Err(ApiError::denied(format!("{role} may not ask this of {}", S::Api::DAEMON)));
    }
    if fds.len() != terms.fds {
        return Err(ApiError::invalid(format!(
            "{} file descriptors are expected, {} came",
            terms.fds,
            fds.len()
        )));
    }
    timeout(terms.deadline, service.call_on(connection, role, request, fds))
        .await
        .unwrap_or_else(|_| Err(ApiError::timeout(format!("{} took too long", S::Api::DAEMON))))
}
