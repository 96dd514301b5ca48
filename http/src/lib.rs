//! What the HTTP listeners of i2plan's daemons have in common: HTTP/1.1 on TCP and on unix sockets, for connections
//! of which anybody on this host can open as many as the system lets them; and the same on other connections ([`answer`]).
//!
//! Each connection has deadlines for what it sends and for what it reads. Connections that have not shown that they may
//! be here are [`Unauthenticated`], of which there are [`MAX_UNAUTHENTICATED`] at most. Who is served for how much
//! after that is for the daemon to say.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use i2plan_ipc::server::accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Sleep, sleep, timeout};
use tracing::debug;

/// Connections that have not shown yet that they may be here. One more pushes one of them out, chosen at random: all
/// come from the same address, and a flood must not be able to tell when it has pushed out everybody else. Who shows it
/// immediately gets in, and who takes a moment has a chance each time that it tries (as with `MaxStartups` in
/// `sshd_config(5)`).
pub const MAX_UNAUTHENTICATED: usize = 64;

/// How long a request may take from its first byte to its last.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// How long an answer may take to be read.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of a request's head, at most.
const MAX_HEAD: usize = 8192;

/// Answers the requests of one connection.
pub trait Service: Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;

    /// Answers a request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Where connections come in.
pub trait Listener: Send + Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Accepts the next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Serves for as long as the process lives; `open` makes the service of a connection.
pub async fn serve<S: Service>(listener: impl Listener, open: impl Fn(Unauthenticated) -> S) {
    serve_over(listener, |stream| ready(Ok(stream)), open).await;
}

/// As [`serve`], where HTTP goes over what `secure` makes of a connection, within [`REQUEST_DEADLINE`].
pub async fn serve_over<S, L, T, F>(
    listener: L,
    secure: impl Fn(WriteTimeout<L::Stream>) -> F,
    open: impl Fn(Unauthenticated) -> S,
) where
    S: Service,
    L: Listener,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let waiting = Arc::new(Mutex::default());
    for number in 0.. {
        let stream = accept(|| async { listener.next().await.map(|stream| (stream, ())) }).await;
        let service = open(Unauthenticated { number, waiting: Arc::clone(&waiting) });
        let place = Unauthenticated { number, waiting: Arc::clone(&waiting) };
        let task = tokio::spawn(converse(secure(WriteTimeout::new(stream)), service, place));
        if let Some((_, pushed_out)) = admit(&mut lock(&waiting), (number, task.abort_handle())) {
            pushed_out.abort();
        }
        // A request that has come already is read before others are let in.
        yield_now().await;
    }
}

/// Connections that have not shown yet that they may be here, by their numbers.
type Waiting = Mutex<Vec<(u64, AbortHandle)>>;

/// A connection's place among those that have not shown yet that they may be here, which ends with this at the latest.
#[derive(Debug)]
pub struct Unauthenticated {
    number: u64,
    waiting: Arc<Waiting>,
}

impl Unauthenticated {
    /// Notes that the connection may be here: it is not pushed out any more.
    pub fn leave(&self) {
        lock(&self.waiting).retain(|(other, _)| *other != self.number);
    }

    fn is_waiting(&self) -> bool {
        lock(&self.waiting).iter().any(|(other, _)| *other == self.number)
    }
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        self.leave();
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

async fn converse<T: AsyncRead + AsyncWrite + Unpin>(
    securing: impl Future<Output = io::Result<T>>,
    service: impl Service,
    place: Unauthenticated,
) {
    let serving = async {
        let stream = timeout(REQUEST_DEADLINE, securing).await??;
        respond(stream, service, false).await.map_err(io::Error::other)
    };
    tokio::select! {
        result = serving => if let Err(error) = result {
            debug!(%error, "dropped an HTTP connection");
        },
        () = async {
            sleep(REQUEST_DEADLINE).await;
            if !place.is_waiting() {
                std::future::pending::<()>().await;
            }
        } => {}
    }
}

/// Answers the requests of one connection until it ends, each within its deadlines. A peer that says no more is answered
/// all the same; whether it has hung up is for the service to find out.
///
/// # Errors
/// If the peer breaks a rule, or the connection.
pub async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, service: impl Service) -> hyper::Result<()> {
    respond(WriteTimeout::new(stream), service, true).await
}

/// `half_close`: whether the end of what the peer sends is not that of the connection.
async fn respond(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: impl Service,
    half_close: bool,
) -> hyper::Result<()> {
    let service = Arc::new(service);
    let serving = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .half_close(half_close)
        .serve_connection(TokioIo::new(stream), serving)
        .await
}

/// The only value of a header; none if it is missing or there several times.
#[must_use]
pub fn one(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a `Host` names the listener on this port by a name that only this machine has. A web page whose own name
/// leads here says that name.
#[must_use]
pub fn is_here(host: &str, port: u16) -> bool {
    host.rsplit_once(':').is_some_and(|(name, given)| is_loopback(name) && given.parse() == Ok(port))
}

/// Whether the name in a `Host` is one that only this machine has.
#[must_use]
pub fn is_loopback(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(address) => {
            address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() && address.is_loopback())
        }
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() && address.is_loopback())
        }
    }
}

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than it may be.
    TooLong,
    /// It does not arrive whole in time.
    TooSlow,
    /// The connection broke, or the framing is wrong.
    Broken,
}

impl BodyError {
    /// The status that says so.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads the body of a request, of at most `most` bytes.
///
/// # Errors
/// [`BodyError`].
pub async fn read(body: Incoming, most: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > most as u64 {
        return Err(BodyError::TooLong);
    }
    match timeout(REQUEST_DEADLINE, Limited::new(body, most).collect()).await {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLong),
        Ok(Err(_)) => Err(BodyError::Broken),
    }
}

/// A stream that breaks when the other side does not read for [`ANSWER_DEADLINE`].
#[derive(Debug)]
pub struct WriteTimeout<T> {
    stream: T,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> WriteTimeout<T> {
    fn new(stream: T) -> Self {
        Self { stream, waiting: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match pin!(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => {
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(ANSWER_DEADLINE)));
                task::ready!(waiting.as_mut().poll(cx));
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
}
