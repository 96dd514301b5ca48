//! JSON-RPC over HTTP/1.1 on loopback and on the unix socket: a document is the body of a POST to `/`.
//!
//! At the unix socket the file's permissions say who may ask, and no browser can connect. On loopback every user of the
//! machine can connect, and so can a web page in a browser on it. Hence the token, a `Host` that is loopback (a page
//! whose name leads here says its own), no `Origin` (browsers send one with every POST), and a content type that
//! browsers do not send unasked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use i2plan_http::{BodyError, Service, Unauthenticated, is_here, one, read};
use i2plan_ipc::ErrorKind;
use i2plan_ipc::rate::{Bucket, Quota};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tracing::warn;

use super::error::{Code, Error};
use super::gateway::{Caller, Gateway};
use super::message::{Id, Json, MAX_DOCUMENT, failure, too_long};
use super::token::Token;

/// In whose name all connections are that have shown the token. No user has this number: it means "no change" to
/// the system.
pub const TCP_USER: u32 = u32::MAX;

/// How often a wrong token is told in the log.
const WARNINGS: Quota = Quota::every(Duration::from_secs(60), 3);

/// An answer, whole.
pub type Answer = Response<Full<Bytes>>;

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, token: Token, gateway: Arc<Gateway>) {
    let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
    let server =
        Arc::new(HttpServer { gateway, token, port, started: Instant::now(), warnings: Mutex::default() });
    let open = |place| HttpConnection { server: Arc::clone(&server), place, caller: Mutex::default() };
    i2plan_http::serve(listener, open).await;
}

/// What all connections share.
struct HttpServer {
    gateway: Arc<Gateway>,
    token: Token,
    port: u16,
    started: Instant,
    warnings: Mutex<Bucket>,
}

impl HttpServer {
    fn warn(&self) {
        if lock(&self.warnings).try_take(WARNINGS, self.started.elapsed()) {
            warn!("refused a TCP connection that did not show the token");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct HttpConnection {
    server: Arc<HttpServer>,
    place: Unauthenticated,
    /// Once it has shown the token.
    caller: Mutex<Option<Arc<Caller>>>,
}

impl Service for HttpConnection {
    type Body = Full<Bytes>;

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let refusal = check(&head.uri, &head.headers, self.server.port, &self.server.token);
        if let Err(refusal) = refusal {
            if refusal.status == StatusCode::UNAUTHORIZED {
                self.server.warn();
            }
            return refusal.answer();
        }
        match self.enter() {
            Ok(caller) => exchange(&caller, &head, body).await,
            Err(error) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error).answer(),
        }
    }
}

/// A connection at the unix socket, and whose it is.
pub(super) struct LocalConnection(pub(super) Caller);

impl Service for LocalConnection {
    type Body = Full<Bytes>;

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        match head.uri.path() {
            "/" => exchange(&self.0, &head, body).await,
            _ => Refusal::wrong_path().answer(),
        }
    }
}

/// Answers the document in the body of a request by who may ask.
pub async fn exchange(caller: &Caller, head: &Parts, body: Incoming) -> Answer {
    if let Err(refusal) = check_form(&head.method, &head.headers) {
        return refusal.answer();
    }
    let document = match read(body, MAX_DOCUMENT).await {
        Ok(document) => document,
        Err(error) => return refuse_body(error).answer(),
    };
    match caller.answer(&document).await {
        Some(answer) => response(StatusCode::OK, answer),
        None => empty(StatusCode::NO_CONTENT),
    }
}

impl HttpConnection {
    fn enter(&self) -> Result<Arc<Caller>, Error> {
        let mut caller = lock(&self.caller);
        if let Some(caller) = &*caller {
            return Ok(Arc::clone(caller));
        }
        self.place.leave();
        Ok(Arc::clone(caller.insert(Arc::new(self.server.gateway.enter(TCP_USER)?))))
    }
}

/// Why a request is not looked at.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: Box<Error>,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    /// With this error.
    #[must_use]
    pub fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error: Box::new(error), header: None }
    }

    fn invalid(status: StatusCode, what: &str) -> Self {
        Self::new(status, Error::new(Code::InvalidRequest, what))
    }

    /// Of who may not ask.
    #[must_use]
    pub fn denied(status: StatusCode, what: &str) -> Self {
        Self::new(status, Error::new(ErrorKind::Denied, what))
    }

    /// Of who does not show the token; `hint` says how that is done.
    #[must_use]
    pub fn without_token(hint: &str) -> Self {
        let error = Error::new(ErrorKind::Denied, "the token is missing, or another").with_hint(hint);
        Self { header: Some((WWW_AUTHENTICATE, "Bearer")), ..Self::new(StatusCode::UNAUTHORIZED, error) }
    }

    fn wrong_path() -> Self {
        Self::invalid(StatusCode::NOT_FOUND, "the path is /")
    }

    /// Of another method than this one.
    #[must_use]
    pub fn wrong_method(expected: &'static str) -> Self {
        let what = format!("{expected} is expected");
        let refusal = Self::invalid(StatusCode::METHOD_NOT_ALLOWED, &what);
        Self { header: Some((ALLOW, expected)), ..refusal }
    }

    /// The end of the connection, too.
    #[must_use]
    pub fn answer(self) -> Answer {
        let mut response = response(self.status, failure(Id::NULL, &self.error));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Whether the request comes from a program that may ask.
fn check(uri: &Uri, headers: &HeaderMap, port: u16, token: &Token) -> Result<(), Refusal> {
    let host = one(headers, HOST).and_then(|host| host.to_str().ok());
    if uri.authority().is_some() || !host.is_some_and(|host| is_here(host, port)) {
        let what = "a Host that is a loopback address or localhost, with the port, is expected";
        return Err(Refusal::denied(StatusCode::FORBIDDEN, what));
    }
    if headers.contains_key(ORIGIN) {
        return Err(Refusal::denied(StatusCode::FORBIDDEN, "web pages are not served"));
    }
    if !shows(headers, token) {
        let hint = "send `Authorization: Bearer …` with the token from the gateway's state directory";
        return Err(Refusal::without_token(hint));
    }
    if uri.path() != "/" {
        return Err(Refusal::wrong_path());
    }
    Ok(())
}

/// Whether the body can be a document.
fn check_form(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if method != Method::POST {
        return Err(Refusal::wrong_method("POST"));
    }
    let kind = one(headers, CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let what = "Content-Type: application/json is expected";
        return Err(Refusal::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    if headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        let refusal =
            Refusal::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, "no Content-Encoding is understood");
        return Err(Refusal { header: Some((ACCEPT_ENCODING, "identity")), ..refusal });
    }
    Ok(())
}

/// Whether a request shows the token.
#[must_use]
pub fn shows(headers: &HeaderMap, token: &Token) -> bool {
    one(headers, AUTHORIZATION).and_then(bearer).is_some_and(|shown| token.is(shown))
}

/// What follows `Bearer` (RFC 6750, with the scheme in any case as RFC 9110 has it).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn refuse_body(why: BodyError) -> Refusal {
    let error = match why {
        BodyError::TooLong => too_long(),
        BodyError::TooSlow => Error::new(ErrorKind::Timeout, "the request did not arrive whole in time"),
        BodyError::Broken => Error::new(Code::InvalidRequest, "the body cannot be read"),
    };
    Refusal::new(why.status(), error)
}

fn response(status: StatusCode, body: Json) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_owner(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_guard_refuses_by_itself() {
        let dir = crate::token::tests::directory();
        let token = Token::load_or_make(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("token")).unwrap();
        let right = [
            ("host", "localhost:80".to_owned()),
            ("authorization", format!("Bearer {}", text.trim())),
            ("content-type", "application/json; charset=utf-8".to_owned()),
        ];
        let status = |method: Method,
                      uri: &str,
                      change: &[(&'static str, Option<&str>)],
                      twice: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in &right {
                headers.insert(*name, value.parse().unwrap());
            }
            for (name, value) in change {
                match value {
                    Some(value) => drop(headers.insert(*name, value.parse().unwrap())),
                    None => drop(headers.remove(*name)),
                }
            }
            for (name, value) in twice {
                headers.append(*name, value.parse().unwrap());
            }
            let checked = check(&uri.parse().unwrap(), &headers, 80, &token);
            match checked.and_then(|()| check_form(&method, &headers)) {
                Ok(()) => 200,
                Err(refusal) => refusal.answer().status().as_u16(),
            }
        };
        let post = |change: &[(&'static str, Option<&str>)]| status(Method::POST, "/", change, &[]);
        assert_eq!(post(&[]), 200);
        assert_eq!(post(&[("authorization", Some(&right[1].1.replace("Bearer", "bearer")))]), 200);
        for (change, expected) in [
            (("host", None), 403),
            (("host", Some("example.org:80")), 403),
            (("origin", Some("http://localhost:80")), 403),
            (("origin", Some("null")), 403),
            (("authorization", None), 401),
            (("authorization", Some("Bearer x")), 401),
            (("authorization", Some("Bearer ")), 401),
            (("authorization", Some(text.trim())), 401),
            (("authorization", Some("Basic eDp5")), 401),
            (("content-type", None), 415),
            (("content-type", Some("text/plain")), 415),
            (("content-type", Some("application/jsonp")), 415),
            (("content-encoding", Some("gzip")), 415),
            (("content-encoding", Some("identity")), 200),
        ] {
            assert_eq!(post(&[change]), expected, "{change:?}");
        }
        assert_eq!(status(Method::POST, "/", &[], &[("host", "example.org:80")]), 403);
        assert_eq!(status(Method::POST, "/", &[], &[("authorization", "Bearer x")]), 401);
        assert_eq!(status(Method::POST, "http://localhost:80/", &[], &[]), 403);
        assert_eq!(status(Method::POST, "/rpc", &[], &[]), 404);
        assert_eq!(status(Method::GET, "/", &[], &[]), 405);
        assert_eq!(status(Method::OPTIONS, "/", &[("authorization", None)], &[]), 401);
    }
}
