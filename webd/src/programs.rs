//! What programs ask for: JSON-RPC at `/rpc` and metrics at `/metrics`, by the library of `rpcd`.
//!
//! A program shows the token of `web.token_file`, or the cookie of a session. With the token it is served as by `rpcd`:
//! without an `Origin`, which browsers send with every POST. With a cookie it may be a web page: the `Origin` of a POST
//! must be the page's own, and the header `X-CSRF-Token` must carry what the session's forms send.

use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use i2plan_rpcd::error::{Code, Error};
use i2plan_rpcd::gateway::{Caller, Gateway};
pub use i2plan_rpcd::http::Answer;
use i2plan_rpcd::http::{Refusal, TCP_USER, exchange};
use i2plan_rpcd::metrics::http::Exporter;
use i2plan_rpcd::metrics::text;
use i2plan_rpcd::token::Token;

use super::sessions::{Entered, Refused};

/// The header with the token against forged requests.
pub const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");

/// In whose name the first session calls, and below it the others. No user has these numbers, nor [`TCP_USER`], who has
/// shown the token.
const FIRST_SESSION: u32 = TCP_USER - 1;

/// What all connections share.
#[derive(Debug)]
pub struct Programs {
    gateway: Arc<Gateway>,
    exporter: Arc<Exporter>,
    token: Option<Token>,
}

impl Programs {
    /// For the node with this socket of `meshd`, and the token of `web.token_file`.
    #[must_use]
    pub fn new(meshd: &Path, token: Option<Token>) -> Self {
        let gateway = Gateway::new(meshd, &[TCP_USER], None);
        let exporter = Exporter::new(meshd, gateway.durations());
        Self { gateway, exporter, token }
    }

    /// The token, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Admits a session, for one request; without one, who has shown the token.
    ///
    /// # Errors
    /// If there are too many.
    pub fn admit(&self, session: Option<&Entered>) -> Result<Arc<Caller>, Refusal> {
        let user = session.map_or(TCP_USER, |session| FIRST_SESSION - session.number);
        let caller = self.gateway.enter(user);
        let caller = caller.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
        let views = session.is_some_and(|session| !session.control);
        Ok(Arc::new(if views { caller.to_view() } else { caller }))
    }

    /// Answers who was admitted.
    pub async fn answer(&self, caller: &Caller, head: &Parts, body: Incoming) -> Answer {
        match (head.uri.path(), &head.method) {
            ("/metrics", &Method::GET) => {
                let mut answer = Response::new(Full::new(self.exporter.text().await));
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
                answer
            }
            ("/metrics", _) => Refusal::wrong_method("GET").answer(),
            _ => exchange(caller, head, body).await,
        }
    }
}

/// The answer to who shows neither the token nor the cookie of a session.
#[must_use]
pub fn stranger() -> Refusal {
    Refusal::without_token(
        "send `Authorization: Bearer …` with the token from web.token_file, or the cookie of a session",
    )
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let too_much = |what: &str| Error::new(Code::RateLimited, what);
        match refused {
            Refused::Unknown => stranger(),
            Refused::TooFast(_) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                too_much("this session asks more than 20 times a second"),
            ),
            Refused::Crowded => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, too_much("this session has too many connections"))
            }
        }
    }
}
