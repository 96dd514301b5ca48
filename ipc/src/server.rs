//! The listening side: accepts connections, checks who asks what, answers.

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::access::{Access, Credentials};
use crate::api::Api;
use crate::error::ApiError;
use crate::hello::{Hello, HelloReply, Landlock, MAX_HELLO, PROTOCOL, Reply, Request, Role};
use crate::socket::{FrameSocket, SocketError};
use crate::version::Version;

/// How long a client may take to say hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// How long accepting pauses when the system refuses it, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections a daemon holds at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// Of one user.
    pub connections_per_user: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, connections_per_user: 32 }
    }
}

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
}

/// Serves connections for as long as the process lives.
pub async fn serve<S: Service>(listener: UnixListener, service: Arc<S>, access: Access, limits: Limits) {
    let counters = Arc::new(Connections { limits, by_user: Mutex::default() });
    let access = Arc::new(access);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        let peer = Credentials { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
        let Some(slot) = counters.enter(peer.uid) else {
            debug!(uid = peer.uid, "refused a connection: too many are open");
            continue;
        };
        let (service, access) = (Arc::clone(&service), Arc::clone(&access));
        tokio::spawn(async move {
            let _slot = slot;
            match converse(&*service, stream, peer, &access).await {
                Ok(()) | Err(SocketError::Closed) => {}
                Err(error) => debug!(uid = peer.uid, %error, "dropped a connection"),
            }
        });
    }
}

async fn converse<S: Service>(
    service: &S,
    stream: UnixStream,
    peer: Credentials,
    access: &Access,
) -> Result<(), SocketError> {
    let mut socket = FrameSocket::new(stream);
    let hello =
        timeout(HELLO_DEADLINE, socket.recv::<Hello>(MAX_HELLO)).await.map_err(|_| SocketError::Stalled)?;
    let (hello, _) = hello?;
    let refused = if hello.protocol == PROTOCOL {
        access.check(hello.role, peer).err()
    } else {
        Some(ApiError::new(
            crate::ErrorKind::Version,
            format!("this daemon speaks protocol version {PROTOCOL}"),
        ))
    };
    if let Some(refusal) = &refused {
        warn!(uid = peer.uid, pid = peer.pid, role = %hello.role, protocol = hello.protocol, "refused a connection: {refusal}");
    }
    let stop = refused.is_some();
    let reply = HelloReply {
        protocol: PROTOCOL,
        role: S::Api::DAEMON,
        pid: std::process::id(),
        version: Version::current(),
        landlock: Landlock::of_this_process(),
        refused,
    };
    socket.send(&reply, &[], MAX_HELLO).await?;
    if stop {
        return Ok(());
    }
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
        let (result, fds) = match answer(service, hello.role, body, fds).await {
            Ok(Answer { reply, fds }) => (Ok(reply), fds),
            Err(error) => (Err(error), Vec::new()),
        };
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        socket.send(&Reply { id, result }, &fds, S::Api::MAX_REPLY).await?;
    }
}

async fn answer<S: Service>(
    service: &S,
    role: Role,
    request: <S::Api as Api>::Request,
    fds: Vec<OwnedFd>,
) -> Result<Answer<<S::Api as Api>::Reply>, ApiError> {
    if !S::Api::allows(role, &request) {
        return Err(ApiError::denied(format!("{role} may not ask this of {}", S::Api::DAEMON)));
    }
    let expected = S::Api::fds(&request);
    if fds.len() != expected {
        return Err(ApiError::invalid(format!(
            "{expected} file descriptors are expected, {} came",
            fds.len()
        )));
    }
    timeout(S::Api::deadline(&request), service.call(role, request, fds))
        .await
        .unwrap_or_else(|_| Err(ApiError::timeout(format!("{} took too long", S::Api::DAEMON))))
}

/// Counts open connections.
struct Connections {
    limits: Limits,
    by_user: Mutex<HashMap<u32, usize>>,
}

impl Connections {
    fn enter(self: &Arc<Self>, uid: u32) -> Option<Slot> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = by_user.values().sum();
        let own = by_user.get(&uid).copied().unwrap_or(0);
        if all >= self.limits.connections || own >= self.limits.connections_per_user {
            return None;
        }
        by_user.insert(uid, own + 1);
        Some(Slot { counters: Arc::clone(self), uid })
    }
}

/// Holds the place of one connection.
struct Slot {
    counters: Arc<Connections>,
    uid: u32,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_user = self.counters.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_user.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}
