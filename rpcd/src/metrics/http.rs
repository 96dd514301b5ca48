//! Metrics over HTTP/1.1 on loopback: `GET /metrics`, for everybody who can connect.
//!
//! A web page in a browser on this host can connect too, but cannot read the answer: its own name is another `Host`,
//! and no header allows another origin to read.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use i2plan_http::{Service, Unauthenticated, is_here, one};
use i2plan_ipc::client::{ClientError, Endpoint};
use i2plan_ipc::histogram::Histogram;
use i2plan_ipc::{Node, Role};
use tokio::net::TcpListener;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::text::CONTENT_TYPE as TEXT;
use super::{Snapshot, gather, render};

/// For how long an answer is given again: however many ask, `meshd` is asked once in that time.
const FRESH: Duration = Duration::from_secs(1);

/// How long `meshd` may take to answer all questions; Prometheus waits ten seconds.
const DEADLINE: Duration = Duration::from_secs(8);

/// The methods' durations, as the gateway counts them.
pub type Durations = Arc<Mutex<Histogram>>;

/// The metrics of the node that `meshd` at this socket runs.
#[derive(Debug)]
pub struct Exporter {
    meshd: Endpoint,
    durations: Durations,
    last: AsyncMutex<Option<(Instant, Bytes)>>,
}

impl Exporter {
    /// Of the node with this socket of `meshd`.
    #[must_use]
    pub fn new(meshd: &Path, durations: Durations) -> Arc<Self> {
        let meshd = Endpoint::resolved(meshd, Role::Meshd);
        Arc::new(Self { meshd, durations, last: AsyncMutex::default() })
    }

    /// The text, of now or of up to a second ago.
    pub async fn text(&self) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return text.clone();
        }
        let asked = timeout(DEADLINE, self.ask()).await;
        let snapshot = asked.unwrap_or(Err(ClientError::Timeout { daemon: Role::Meshd }));
        let snapshot = snapshot.inspect_err(|error| debug!(%error, "no metrics")).ok();
        let mut out = render(snapshot.as_ref());
        let durations = *self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        out.histogram("i2plan_rpc_request_duration_seconds", "Durations of calls over JSON-RPC.", &durations);
        let text = Bytes::from(out.finish());
        *last = Some((Instant::now(), text.clone()));
        text
    }

    async fn ask(&self) -> Result<Snapshot, ClientError> {
        gather(&mut Node::connect_to(self.meshd.clone()).await?).await
    }
}

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, exporter: Arc<Exporter>) {
    let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
    i2plan_http::serve(listener, |_place| Connection { exporter: Arc::clone(&exporter), port, _place }).await;
}

/// A connection. It stays among those that may be pushed out: nobody shows anything here.
struct Connection {
    exporter: Arc<Exporter>,
    port: u16,
    _place: Unauthenticated,
}

impl Service for Connection {
    type Body = Full<Bytes>;

    async fn answer(&self, request: Request<Incoming>) -> Response<Self::Body> {
        let host = one(request.headers(), HOST).and_then(|host| host.to_str().ok());
        if request.uri().authority().is_some() || !host.is_some_and(|host| is_here(host, self.port)) {
            return refuse(
                StatusCode::FORBIDDEN,
                "a Host that is a loopback address or localhost is expected\n",
            );
        }
        if request.uri().path() != "/metrics" {
            return refuse(StatusCode::NOT_FOUND, "the path is /metrics\n");
        }
        if request.method() != Method::GET {
            let refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, "GET is expected\n");
            return with(refusal, ALLOW, "GET");
        }
        with(Response::new(Full::new(self.exporter.text().await)), CONTENT_TYPE, TEXT)
    }
}

fn refuse(status: StatusCode, what: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(what.as_bytes())));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut response: Response<Full<Bytes>>, name: HeaderName, value: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
