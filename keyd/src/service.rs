//! The requests, answered.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::keyd::{KeydApi, Reply, Request, SessionKind};
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use tracing::info;

use crate::policy::Signer;
use crate::session;

/// `keyd`, to its clients.
#[derive(Debug)]
pub struct Keyd {
    signer: Mutex<Signer>,
    sam: SocketAddr,
}

impl Keyd {
    /// Has this signer answer; sessions are opened at the SAM bridge at this address alone.
    #[must_use]
    pub fn new(signer: Signer, sam: SocketAddr) -> Self {
        Self { signer: Mutex::new(signer), sam }
    }

    fn signer(&self) -> MutexGuard<'_, Signer> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_session(
        &self,
        request: i2plan_ipc::api::keyd::OpenSession,
        fds: Vec<OwnedFd>,
    ) -> Result<Reply, ApiError> {
        let connection = fds.into_iter().next().ok_or_else(|| ApiError::invalid("no connection came"))?;
        let keys = match request.kind {
            SessionKind::Control => self.signer().keys().control().clone(),
            SessionKind::Data | SessionKind::Substitute => {
                let mut nonce = [0; 32];
                getrandom::fill(&mut nonce).map_err(no_randomness)?;
                self.signer().keys().ephemeral(nonce)
            }
        };
        session::open(&request, connection, &keys.private_key(), self.sam).await?;
        info!(kind = ?request.kind, "opened a session");
        Ok(Reply::SessionOpened(keys.public()))
    }
}

fn no_randomness(error: getrandom::Error) -> ApiError {
    ApiError::internal(format!("the system gives no randomness: {error}"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

impl Service for Keyd {
    type Api = KeydApi;

    async fn call(&self, _: Role, request: Request, fds: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        if let Request::OpenSession(request) = request {
            return Ok(self.open_session(request, fds).await?.into());
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(no_randomness)?;
        Ok(self.signer().answer(request, random, now())?.into())
    }
}
