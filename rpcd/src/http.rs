//! JSON-RPC over HTTP/1.1 on loopback: a document is the body of a POST to `/`.
//!
//! Every user of the machine can connect, and so can a web page in a browser on it. Hence the token, a `Host` that is
//! loopback (a page whose name leads here says its own), no `Origin` (browsers send one with every POST), and a content
//! type that browsers do not send unasked.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use i2plan_ipc::ErrorKind;
use i2plan_ipc::rate::{Bucket, Quota};
use i2plan_ipc::server::accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::{debug, warn};

use super::error::{Code, Error};
use super::gateway::{Caller, Gateway};
use super::limits::{ANSWER_DEADLINE, DOCUMENT_DEADLINE};
use super::message::{Id, Json, MAX_DOCUMENT, failure, too_long};
use super::token::Token;

/// In whose name all connections are that have shown the token. No user has this number: it means "no change" to
/// the system.
pub const TCP_USER: u32 = u32::MAX;

/// Connections that have not shown the token yet. One more pushes one of them out, chosen at random: all come from the same
/// address, and a flood must not be able to tell when it has pushed out everybody else. Who shows the token immediately gets
/// in, and who takes a moment has a chance each time that it tries (as with `MaxStartups` in `sshd_config(5)`).
const MAX_UNAUTHENTICATED: usize = 64;

/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 8192;

/// How often a wrong token is told in the log.
const WARNINGS: Quota = Quota::every(Duration::from_secs(60), 3);

type Answer = Response<Full<Bytes>>;

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, token: Token, gateway: Arc<Gateway>) {
    let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
    let server = Arc::new(HttpServer {
        gateway,
        token,
        port,
        started: Instant::now(),
        warnings: Mutex::default(),
        unauthenticated: Mutex::default(),
    });
    for number in 0.. {
        let stream = accept(|| listener.accept()).await;
        let connection =
            Arc::new(HttpConnection { server: Arc::clone(&server), number, caller: Mutex::default() });
        let task = tokio::spawn(converse(stream, connection));
        server.add_unauthenticated(number, task.abort_handle());
        // A request that has come already is read before others are let in.
        yield_now().await;
    }
}

/// What all connections share.
struct HttpServer {
    gateway: Arc<Gateway>,
    token: Token,
    port: u16,
    started: Instant,
    warnings: Mutex<Bucket>,
    unauthenticated: Mutex<Vec<(u64, AbortHandle)>>,
}

impl HttpServer {
    fn add_unauthenticated(&self, number: u64, task: AbortHandle) {
        if let Some((_, pushed_out)) = admit(&mut lock(&self.unauthenticated), (number, task)) {
            pushed_out.abort();
        }
    }

    fn is_waiting(&self, number: u64) -> bool {
        lock(&self.unauthenticated).iter().any(|(other, _)| *other == number)
    }

    fn leave(&self, number: u64) {
        lock(&self.unauthenticated).retain(|(other, _)| *other != number);
    }

    fn warn(&self) {
        if lock(&self.warnings).try_take(WARNINGS, self.started.elapsed()) {
            warn!("refused a TCP connection that did not show the token");
        }
    }
}

/// Has one more wait; which one must go for it.
fn admit<T>(waiting: &mut Vec<T>, newcomer: T) -> Option<T> {
    let pushed_out = (waiting.len() >= MAX_UNAUTHENTICATED).then(|| {
        // Without randomness it is any.
        let index = getrandom::u32().unwrap_or_default() as usize % waiting.len();
        waiting.swap_remove(index)
    });
    waiting.push(newcomer);
    pushed_out
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct HttpConnection {
    server: Arc<HttpServer>,
    number: u64,
    /// Once it has shown the token.
    caller: Mutex<Option<Arc<Caller>>>,
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.server.leave(self.number);
    }
}

async fn converse(stream: TcpStream, connection: Arc<HttpConnection>) {
    let serving = {
        let connection = Arc::clone(&connection);
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(DOCUMENT_DEADLINE)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(WriteTimeout { stream, waiting: None }), service)
    };
    tokio::select! {
        result = serving => if let Err(error) = result {
            debug!(%error, "dropped a TCP connection");
        },
        () = async {
            sleep(DOCUMENT_DEADLINE).await;
            if !connection.server.is_waiting(connection.number) {
                std::future::pending::<()>().await;
            }
        } => {}
    }
}

impl HttpConnection {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let refusal = check(&head.method, &head.uri, &head.headers, self.server.port, &self.server.token);
        if let Err(refusal) = refusal {
            if refusal.status == StatusCode::UNAUTHORIZED {
                self.server.warn();
            }
            return refusal.answer();
        }
        let caller = match self.enter() {
            Ok(caller) => caller,
            Err(error) => return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error).answer(),
        };
        let document = match read(body).await {
            Ok(document) => document,
            Err(refusal) => return refusal.answer(),
        };
        match caller.answer(&document).await {
            Some(answer) => response(StatusCode::OK, answer),
            None => empty(StatusCode::NO_CONTENT),
        }
    }

    fn enter(&self) -> Result<Arc<Caller>, Error> {
        let mut caller = lock(&self.caller);
        if let Some(caller) = &*caller {
            return Ok(Arc::clone(caller));
        }
        self.server.leave(self.number);
        Ok(Arc::clone(caller.insert(Arc::new(self.server.gateway.enter(TCP_USER)?))))
    }
}

/// Why a request is not looked at.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: Box<Error>,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error: Box::new(error), header: None }
    }

    fn invalid(status: StatusCode, what: &str) -> Self {
        Self::new(status, Error::new(Code::InvalidRequest, what))
    }

    fn denied(status: StatusCode, what: &str) -> Self {
        Self::new(status, Error::new(ErrorKind::Denied, what))
    }

    /// The end of the connection, too.
    fn answer(self) -> Answer {
        let mut response = response(self.status, failure(Id::NULL, &self.error));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Whether the request comes from a program that may ask.
fn check(
    method: &Method,
    uri: &hyper::Uri,
    headers: &HeaderMap,
    port: u16,
    token: &Token,
) -> Result<(), Refusal> {
    let one = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    let host = one(HOST).and_then(|host| host.to_str().ok());
    if uri.authority().is_some() || !host.is_some_and(|host| is_here(host, port)) {
        let what = "a Host that is a loopback address or localhost, with the port, is expected";
        return Err(Refusal::denied(StatusCode::FORBIDDEN, what));
    }
    if headers.contains_key(ORIGIN) {
        return Err(Refusal::denied(StatusCode::FORBIDDEN, "web pages are not served"));
    }
    if !one(AUTHORIZATION).and_then(bearer).is_some_and(|shown| token.is(shown)) {
        let refusal = Refusal::denied(StatusCode::UNAUTHORIZED, "the token is missing, or another");
        let hint = "send `Authorization: Bearer …` with the token from the gateway's state directory";
        let error = Box::new(refusal.error.with_hint(hint));
        return Err(Refusal { error, header: Some((WWW_AUTHENTICATE, "Bearer")), ..refusal });
    }
    if uri.path() != "/" {
        return Err(Refusal::invalid(StatusCode::NOT_FOUND, "the path is /"));
    }
    if method != Method::POST {
        let refusal = Refusal::invalid(StatusCode::METHOD_NOT_ALLOWED, "POST is expected");
        return Err(Refusal { header: Some((ALLOW, "POST")), ..refusal });
    }
    let kind = one(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let what = "Content-Type: application/json is expected";
        return Err(Refusal::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    Ok(())
}

/// Whether a `Host` names this listener by a name that only this machine has.
fn is_here(host: &str, port: u16) -> bool {
    let Some((name, given)) = host.rsplit_once(':') else { return false };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let loopback = match bare {
        Some(address) => {
            address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() && address.is_loopback())
        }
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() && address.is_loopback())
        }
    };
    loopback && given.parse() == Ok(port)
}

/// What follows `Bearer` (RFC 6750, with the scheme in any case as RFC 9110 has it).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let longer = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, too_long());
    if body.size_hint().lower() > MAX_DOCUMENT as u64 {
        return Err(longer());
    }
    let body = timeout(DOCUMENT_DEADLINE, Limited::new(body, MAX_DOCUMENT).collect()).await;
    let body = body.map_err(|_| {
        let error = Error::new(ErrorKind::Timeout, "the request did not arrive whole in time");
        Refusal::new(StatusCode::REQUEST_TIMEOUT, error)
    })?;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(longer()),
        Err(_) => Err(Refusal::invalid(StatusCode::BAD_REQUEST, "the body cannot be read")),
    }
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

/// A stream that breaks when the other side does not read.
struct WriteTimeout {
    stream: TcpStream,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for WriteTimeout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for WriteTimeout {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match pin!(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => {
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(ANSWER_DEADLINE)));
                ready!(waiting.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            done => {
                self.waiting = None;
                done
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_here() {
        for host in ["127.0.0.1:80", "127.1.2.3:80", "localhost:80", "LocalHost:80", "[::1]:80"] {
            assert!(is_here(host, 80), "{host}");
        }
        for host in [
            "localhost",
            "127.0.0.1",
            "127.0.0.1:81",
            "localhost.:80",
            "::1:80",
            "[127.0.0.1]:80",
            "[::2]:80",
            "192.0.2.1:80",
            "example.org:80",
            "localhost.example.org:80",
            "127.0.0.1.example.org:80",
            ":80",
            "",
        ] {
            assert!(!is_here(host, 80), "{host}");
        }
    }

    #[test]
    fn a_flood_cannot_tell_when_all_others_are_pushed_out() {
        let arrivals = 2 * MAX_UNAUTHENTICATED;
        let survives = || {
            let mut waiting: Vec<_> = (1..MAX_UNAUTHENTICATED).collect();
            assert_eq!(admit(&mut waiting, 0), None);
            for other in 0..arrivals {
                assert!(admit(&mut waiting, MAX_UNAUTHENTICATED + other).is_some());
            }
            assert_eq!(waiting.len(), MAX_UNAUTHENTICATED);
            waiting.contains(&0)
        };
        // 1/e² of them on average.
        let survivors = (0..2000).filter(|_| survives()).count();
        assert!((100..600).contains(&survivors), "{survivors} of 2000");
    }

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
            match check(&method, &uri.parse().unwrap(), &headers, 80, &token) {
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
