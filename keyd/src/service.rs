//! The requests, answered.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::keyd::{
    Identity, KeydApi, OpenSession, Reply, Request, SessionKind, SessionOpened, WireGuardLease,
};
use i2plan_ipc::bridge::Bridge;
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::invite::InviteSecret;
use tracing::info;

use crate::dialing::Dialing;
use crate::keys::Keys;
use crate::policy::Signer;
use crate::session;

/// `keyd`, to its clients.
#[derive(Debug)]
pub struct Keyd {
    signer: Mutex<Signer>,
    /// Whether the keys are sealed on disk.
    sealed: bool,
    dialing: Dialing,
}

impl Keyd {
    /// Serves these keys, which are `sealed` on disk or not; sessions are opened at this SAM bridge alone.
    #[must_use]
    pub fn new(keys: Keys, sealed: bool, bridge: Bridge) -> Self {
        Self { signer: Mutex::new(Signer::new(keys)), sealed, dialing: Dialing::new(bridge) }
    }

    fn signer(&self) -> MutexGuard<'_, Signer> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_session(&self, request: OpenSession) -> Result<Answer<Reply>, ApiError> {
        session::check_request(&request)?;
        let connection = self.dialing.dial().await?;
        let keys = match request.kind {
            SessionKind::Control => self.signer().keys().control().clone(),
            SessionKind::Data | SessionKind::Substitute => {
                let mut nonce = [0; 32];
                getrandom::fill(&mut nonce).map_err(no_randomness)?;
                self.signer().keys().ephemeral(nonce)
            }
        };
        let opened = session::open(&request, connection, &keys.private_key()).await?;
        info!(kind = ?request.kind, "opened a session");
        let session::Opened { connection, version } = opened;
        let reply = Reply::SessionOpened(SessionOpened { destination: keys.public(), version });
        Ok(Answer { reply, fds: vec![connection.stream, connection.datagrams] })
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
            Request::OpenSession(request) => return self.open_session(request).await,
            Request::Connector => Reply::Connector(self.dialing.connector()),
            Request::AwaitOrder(connector) => {
                self.dialing.next_order(connector).await.map_or(Reply::Done, Reply::Order)
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
