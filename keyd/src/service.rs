//! The requests, answered.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::keyd::{KeydApi, OpenSession, Reply, Request, SessionKind, SessionOpened};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use tracing::info;

use crate::dialing::Dialing;
use crate::orders::Orders;
use crate::policy::Signer;
use crate::session::{self, Login};

/// What is refused.
const MESH: &str = "a mesh";
const STATIC: &str = "a static interface";

/// What the keys are for. Those of one purpose are never used for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A member of a mesh.
    Mesh,
    /// An interface with static peers: nothing is signed.
    Static,
}

/// `keyd`, to its clients.
#[derive(Debug)]
pub struct Keyd {
    signer: Mutex<Signer>,
    dialing: Dialing,
    /// Hops that a session's tunnels have at least, in each direction.
    min_tunnel_length: u8,
    /// What the bridge is told, if it wants a user and a password.
    login: Option<Login>,
    purpose: Purpose,
    orders: Mutex<Orders>,
    started: Instant,
}

impl Keyd {
    /// Has this signer answer; sessions are opened at this SAM bridge alone, with tunnels of so many hops at least in each
    /// direction.
    #[must_use]
    pub fn new(
        signer: Signer,
        bridge: Bridge,
        min_tunnel_length: u8,
        login: Option<Login>,
        purpose: Purpose,
    ) -> Self {
        Self {
            signer: Mutex::new(signer),
            dialing: Dialing::new(bridge),
            min_tunnel_length,
            login,
            purpose,
            orders: Mutex::default(),
            started: Instant::now(),
        }
    }

    fn signer(&self) -> MutexGuard<'_, Signer> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_session(&self, request: OpenSession) -> Result<Answer<Reply>, ApiError> {
        let request = session::checked(request, self.min_tunnel_length)?;
        let (of_mesh, of_static) = match request.kind {
            SessionKind::Control | SessionKind::Data => (true, false),
            SessionKind::Fallback => (true, true),
            SessionKind::StaticRaw | SessionKind::StaticRepliable => (false, true),
        };
        match self.purpose {
            Purpose::Mesh if !of_mesh => return Err(self.not_for(STATIC)),
            Purpose::Static if !of_static => return Err(self.not_for(MESH)),
            Purpose::Mesh | Purpose::Static => {}
        }
        let connection = self.dialing.dial().await?;
        let keys = match request.kind {
            SessionKind::Control | SessionKind::StaticRaw | SessionKind::StaticRepliable => {
                self.signer().keys().control().clone()
            }
            SessionKind::Data | SessionKind::Fallback => {
                let nonce = random()?;
                self.signer().keys().ephemeral(nonce)
            }
        };
        let opened = session::open(&request, connection, &keys.private_key(), self.login.as_ref()).await?;
        info!(kind = ?request.kind, "opened a session");
        let session::Opened { connection, version } = opened;
        let reply = Reply::SessionOpened(SessionOpened {
            destination: keys.public(),
            version,
            min_tunnel_length: self.min_tunnel_length,
        });
        Ok(Answer { reply, fds: vec![connection.stream, connection.datagrams] })
    }

    fn not_for(&self, what: &str) -> ApiError {
        let purpose = match self.purpose {
            Purpose::Mesh => MESH,
            Purpose::Static => STATIC,
        };
        ApiError::conflict(format!("these keys are for {purpose}, and are not used for {what}"))
    }
}

fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut random = [0; N];
    getrandom::fill(&mut random)
        .map_err(|error| ApiError::internal(format!("the system gives no randomness: {error}")))?;
    Ok(random)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

impl Service for Keyd {
    type Api = KeydApi;

    async fn call(&self, _: Role, request: Request, fds: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        let reply = match request {
            Request::OpenSession(request) => return self.open_session(request).await,
            Request::Connector => Reply::Connector(self.dialing.connector()),
            Request::AwaitOrder(connector) => {
                self.dialing.next_request(connector).await.map_or(Reply::Done, Reply::Order)
            }
            Request::Connected(order) => {
                let fds = fds.try_into().map_err(|_| ApiError::invalid("a connection is two descriptors"))?;
                self.dialing.connected(order, fds)?;
                Reply::Done
            }
            Request::NotConnected(failure) => {
                self.dialing.not_connected(failure);
                Reply::Done
            }
            Request::LeaseStatic if self.purpose == Purpose::Static => {
                Reply::StaticKey(self.signer().keys().static_private())
            }
            Request::LeaseStatic => return Err(self.not_for(STATIC)),
            Request::Identity => self.signer().answer(Request::Identity, random()?, now())?,
            _ if self.purpose == Purpose::Static => return Err(self.not_for(MESH)),
            signed => self.signer().answer(signed, random()?, now())?,
        };
        Ok(reply.into())
    }

    async fn call_on(
        &self,
        connection: u64,
        role: Role,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer<Reply>, ApiError> {
        let is_order =
            matches!(request, Request::PrepareOrder(_) | Request::CountBelow(_) | Request::ConfirmOrder(_));
        if is_order && self.purpose == Purpose::Static {
            return Err(self.not_for(MESH));
        }
        let since = self.started.elapsed();
        let prepared = match request {
            Request::PrepareOrder(order) => {
                self.orders().prepare(connection, *order, &self.signer(), random()?, since)?
            }
            Request::CountBelow(records) => {
                self.orders().count(connection, &records, &self.signer(), since)?
            }
            Request::ConfirmOrder(token) => {
                let random = (random()?, since);
                let mut orders = self.orders();
                let executed = orders.confirm(connection, token, &mut self.signer(), random, now())?;
                return Ok(Reply::OrderExecuted(Box::new(executed)).into());
            }
            other => return self.call(role, other, fds).await,
        };
        Ok(Reply::OrderPrepared(Box::new(prepared)).into())
    }

    fn on_closed(&self, connection: u64) {
        self.orders().forget(connection);
    }
}
