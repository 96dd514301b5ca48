//! The requests, answered.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::keyd::{Identity, KeydApi, Reply, Request, SessionKind, WireGuardLease};
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::invite::InviteSecret;
use tracing::info;

use crate::keys::Keys;
use crate::policy::Signer;
use crate::session;

/// `keyd`, to its clients.
#[derive(Debug)]
pub struct Keyd {
    signer: Mutex<Signer>,
    /// Whether the keys are sealed on disk.
    sealed: bool,
    sam: SocketAddr,
}

impl Keyd {
    /// Serves these keys, which are `sealed` on disk or not; sessions are opened at the SAM bridge at this
    /// address alone.
    #[must_use]
    pub fn new(keys: Keys, sealed: bool, sam: SocketAddr) -> Self {
        Self { signer: Mutex::new(Signer::new(keys)), sealed, sam }
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
        let now = now();
        let reply = match request {
            Request::OpenSession(request) => self.open_session(request, fds).await?,
            Request::Identity => {
                let signer = self.signer();
                let keys = signer.keys();
                Reply::Identity(Identity {
                    node: keys.node(),
                    control: keys.control().public(),
                    sealed: self.sealed,
                })
            }
            Request::SignCharter(charter) => Reply::Signature(self.signer().sign_charter(&charter, now)?),
            Request::SignRecord(record, charter) => {
                Reply::Record(Box::new(self.signer().sign_record(*record, &charter, now)?))
            }
            Request::SignPulse(pulse) => Reply::Signature(self.signer().sign_pulse(&pulse, now)?),
            Request::SignAccusation(accusation) => {
                Reply::Signature(self.signer().sign_accusation(&accusation, now)?)
            }
            Request::SignRevocation(revocation, charter) => {
                Reply::Signature(self.signer().sign_revocation(&revocation, &charter, now)?)
            }
            Request::SignResignation(resignation, charter) => {
                Reply::Signature(self.signer().sign_resignation(&resignation, &charter)?)
            }
            Request::SignJoin { body, control } => {
                Reply::Signature(self.signer().sign_join(&body, &control, now)?)
            }
            Request::CreateInvite(wish) => {
                let mut secret = InviteSecret([0; 32]);
                getrandom::fill(&mut secret.0).map_err(no_randomness)?;
                let (code, grant) = self.signer().create_invite(&wish, secret, now)?;
                Reply::Invite { code, grant }
            }
            Request::CertifyMember(certify) => {
                let membership = self.signer().certify_member(&certify, now)?;
                info!(invite = %membership.value.grant.invite, member = %membership.value.grant.subject.short(), "certified a member");
                Reply::Membership(membership)
            }
            Request::ExtendMember(extend) => {
                let membership = self.signer().extend_member(&extend, now)?;
                info!(member = %membership.value.grant.subject.short(), "delegated more addresses to a member");
                Reply::Membership(membership)
            }
            Request::CertifyWireGuard { network, epoch } => {
                Reply::WireGuardCertificate(self.signer().certify_wireguard(network, epoch, now)?)
            }
            Request::LeaseWireGuard { network, epoch } => {
                let private_key = self.signer().lease_wireguard(&network, epoch, now)?;
                info!(network = %network.short(), epoch, "leased a WireGuard key");
                Reply::WireGuardLease(WireGuardLease { private_key, epoch })
            }
        };
        Ok(reply.into())
    }
}
