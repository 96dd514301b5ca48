//! What an emissary router needs of its surroundings, on tokio.
//!
//! The runtime that emissary ships is not used: it brings an HTTP client with OpenSSL, and asks for the
//! default route's interface, which a network namespace of the laboratory does not have.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emissary_core::runtime::{
    AsyncRead, AsyncWrite, Counter, Gauge, Histogram, Instant, JoinSet, MetricType, MetricsHandle, Runtime,
    TcpListener, TcpStream, UdpSocket,
};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use futures::Stream;
use rand::{CryptoRng, RngExt};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net;
use tokio::time::{Sleep, sleep, timeout};

/// How long a router may take to reach another.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// MTU of the laboratory's links, bytes.
const MTU: usize = 1500;

/// Tokio as emissary sees it.
#[derive(Debug, Clone, Copy)]
pub struct Tokio;

fn failed(error: &std::io::Error) -> emissary_core::Error {
    emissary_core::Error::Custom(error.to_string())
}

/// A TCP connection.
#[derive(Debug)]
pub struct Tcp(net::TcpStream);

impl Tcp {
    fn new(stream: net::TcpStream) -> Option<Self> {
        stream.set_nodelay(true).ok()?;
        Some(Self(stream))
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<emissary_core::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let result = ready!(Pin::new(&mut self.get_mut().0).poll_read(cx, &mut buffer));
        Poll::Ready(result.map(|()| buffer.filled().len()).map_err(|error| failed(&error)))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<emissary_core::Result<usize>> {
        let result = ready!(Pin::new(&mut self.get_mut().0).poll_write(cx, bytes));
        Poll::Ready(result.map_err(|error| failed(&error)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<emissary_core::Result<()>> {
        let result = ready!(Pin::new(&mut self.get_mut().0).poll_flush(cx));
        Poll::Ready(result.map_err(|error| failed(&error)))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<emissary_core::Result<()>> {
        let result = ready!(Pin::new(&mut self.get_mut().0).poll_shutdown(cx));
        Poll::Ready(result.map_err(|error| failed(&error)))
    }
}

impl TcpStream for Tcp {
    async fn connect(address: SocketAddr) -> Option<Self> {
        let stream = timeout(DIAL_DEADLINE, net::TcpStream::connect(address)).await.ok()?.ok()?;
        Self::new(stream)
    }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener(net::TcpListener);

impl TcpListener<Tcp> for Listener {
    async fn bind(address: SocketAddr) -> Option<Self> {
        // Tokio sets SO_REUSEADDR, so that a restarted router gets its port back.
        net::TcpListener::bind(address).await.ok().map(Self)
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Tcp, SocketAddr)>> {
        loop {
            // One connection that fails at once says nothing about the next.
            if let Ok((stream, address)) = ready!(self.0.poll_accept(cx))
                && let Some(stream) = Tcp::new(stream)
            {
                return Poll::Ready(Some((stream, address)));
            }
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }
}

/// A UDP socket.
#[derive(Debug, Clone)]
pub struct Udp {
    socket: Arc<net::UdpSocket>,
    mtu: usize,
}

impl UdpSocket for Udp {
    async fn bind(address: SocketAddr) -> Option<Self> {
        Self::bind_with_mtu(address, MTU).await
    }

    async fn bind_with_mtu(address: SocketAddr, mtu: usize) -> Option<Self> {
        let socket = net::UdpSocket::bind(address).await.ok()?;
        Some(Self { socket: Arc::new(socket), mtu })
    }

    async fn send_to(&mut self, bytes: &[u8], target: SocketAddr) -> Option<usize> {
        self.socket.send_to(bytes, target).await.ok()
    }

    async fn recv_from(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await.ok()
    }

    fn poll_send_to(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
        target: SocketAddr,
    ) -> Poll<Option<usize>> {
        Poll::Ready(ready!(self.socket.poll_send_to(cx, bytes, target)).ok())
    }

    fn poll_recv_from(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Option<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        loop {
            // An error here is the echo of an earlier send to a closed port; the socket itself lives on.
            if let Ok(source) = ready!(self.socket.poll_recv_from(cx, &mut buffer)) {
                return Poll::Ready(Some((buffer.filled().len(), source)));
            }
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    fn mtu(&self) -> usize {
        self.mtu
    }
}

/// Futures that run together.
#[derive(Debug)]
pub struct Tasks<T> {
    set: tokio::task::JoinSet<T>,
    /// Who polled while there was nothing to wait for.
    idle: Option<Waker>,
}

impl<T: Send + 'static> JoinSet<T> for Tasks<T> {
    fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    fn len(&self) -> usize {
        self.set.len()
    }

    fn push<F>(&mut self, future: F)
    where
        F: Future<Output = T> + Send + 'static,
        F::Output: Send,
    {
        self.set.spawn(future);
        if let Some(waker) = self.idle.take() {
            waker.wake();
        }
    }
}

impl<T: Send + 'static> Stream for Tasks<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            match self.set.poll_join_next(cx) {
                Poll::Ready(Some(Ok(value))) => return Poll::Ready(Some(value)),
                // A task that panicked has no value; the others go on.
                Poll::Ready(Some(Err(_))) => {}
                // The set is empty, not finished: more may be pushed.
                Poll::Ready(None) | Poll::Pending => {
                    self.idle = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}

/// A moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment(std::time::Instant);

impl Instant for Moment {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Metrics that nobody reads.
#[derive(Debug, Clone, Copy)]
pub struct Unmeasured;

impl Counter for Unmeasured {
    fn increment(&mut self, _: usize) {}

    fn increment_with_label(&mut self, _: usize, _: &'static str, _: &'static str) {}
}

impl Gauge for Unmeasured {
    fn increment(&mut self, _: usize) {}

    fn decrement(&mut self, _: usize) {}
}

impl Histogram for Unmeasured {
    fn record(&mut self, _: f64) {}
}

impl MetricsHandle for Unmeasured {
    fn counter(&self, _: &'static str) -> impl Counter {
        Self
    }

    fn gauge(&self, _: &'static str) -> impl Gauge {
        Self
    }

    fn histogram(&self, _: &'static str) -> impl Histogram {
        Self
    }
}

impl Runtime for Tokio {
    type TcpStream = Tcp;
    type UdpSocket = Udp;
    type TcpListener = Listener;
    type JoinSet<T: Send + 'static> = Tasks<T>;
    type MetricsHandle = Unmeasured;
    type Instant = Moment;
    type Timer = Pin<Box<Sleep>>;

    fn spawn<F>(future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        tokio::spawn(future);
    }

    fn time_since_epoch() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn now() -> Moment {
        Moment(std::time::Instant::now())
    }

    fn rng() -> impl CryptoRng + RngExt {
        rand::rng()
    }

    fn join_set<T: Send + 'static>() -> Tasks<T> {
        Tasks { set: tokio::task::JoinSet::new(), idle: None }
    }

    fn register_metrics(_: Vec<MetricType>, _: Option<u16>) -> Unmeasured {
        Unmeasured
    }

    fn timer(duration: Duration) -> Self::Timer {
        Box::pin(sleep(duration))
    }

    fn delay(duration: Duration) -> impl Future<Output = ()> + Send {
        sleep(duration)
    }

    fn gzip_compress(bytes: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes.as_ref()).ok()?;
        encoder.finish().ok()
    }

    fn gzip_decompress(bytes: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let mut decoder = GzDecoder::new(Vec::new());
        decoder.write_all(bytes.as_ref()).ok()?;
        decoder.finish().ok()
    }
}
