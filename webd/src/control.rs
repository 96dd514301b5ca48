//! The unix socket, at which `i2planctl web` asks for links. Who can open it controls the node anyway.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use i2plan_ipc::api::webd::{Link, Reply, Request, WebdApi};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, ErrorKind, Role};
use tracing::info;

use super::http::Web;
use super::sessions::LINK_LIFETIME;

/// Answers at the socket.
#[derive(Debug)]
pub struct Control {
    /// The sessions.
    pub web: Arc<Web>,
}

impl Service for Control {
    type Api = WebdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        let now = self.web.now();
        let mut sessions = self.web.sessions();
        Ok(match request {
            Request::Sessions => Reply::Sessions(sessions.list(now)),
            Request::CertificateExpiry => {
                Reply::CertificateExpiry(self.web.site().tls().and_then(|tls| tls.expires()))
            }
            Request::CreateLink { control } => {
                let token = sessions.create_link(control, random()?, now);
                let site = self.web.site();
                let url = format!("{}/login?token={}", site.url(), *token);
                info!(control, "made a link");
                let url = SecretText::new(url);
                let fingerprint = site.tls().and_then(|tls| tls.fingerprint());
                let socket = site.address().socket().map(|path| path.display().to_string());
                Reply::Link(Link { url, expires_in: LINK_LIFETIME.as_secs(), control, fingerprint, socket })
            }
            Request::EndSessions { id } => {
                let ended = sessions.end(id.as_deref());
                if id.is_some() && ended == 0 {
                    return Err(ApiError::new(ErrorKind::NotFound, "there is no session with this id"));
                }
                self.web.live().changed();
                info!(count = ended, "ended sessions");
                Reply::Ended(ended)
            }
        }
        .into())
    }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| ApiError::internal(format!("the system gives no randomness: {error}")))?;
    Ok(bytes)
}
