//! What an emissary router needs of its surroundings, on tokio: no thread, no file, no program.
//!
//! The runtime that emissary ships is not used: it brings an HTTP client with OpenSSL, and asks for the
//! default route's interface, which no sandbox lets through.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emissary_core::runtime::{
    AsyncRead, AsyncWrite, Counter, Gauge, Histogram, Instant, JoinSet, MetricType, MetricsHandle, Runtime,
    TcpListener, TcpStream, UdpSocket,
};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::Stream;
use i2plan_ipc::daemon::panics::contain;
use rand::{CryptoRng, RngExt};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};
use tracing::error;

/// How long a router may take to reach another.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// MTU of links, bytes, where nothing else is said.
const MTU: usize = 1500;

/// How long accepting pauses when the system refuses it, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest that other routers' compressed bytes may become, bytes. I2P's messages have at most 64 KiB.
const MAX_DECOMPRESSED: u64 = 1 << 20;

/// Whether a part of a router in this process has ended by a panic.
static BROKEN: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Returns when a part of a router in this process has panicked. The others go on without it, and so not rightly.
pub async fn broken() {
    // The sender is never dropped.
    let _ = BROKEN.subscribe().wait_for(|broken| *broken).await;
}

/// A part of a router. If it panics, that is logged, and it ends without a value.
struct Part<F>(Pin<Box<F>>);

impl<F: Future> Part<F> {
    fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Part<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        contain(|| self.0.as_mut().poll(cx)).map_or_else(
            |panicked| {
                error!(location = %panicked.location, error = %panicked.message, "a part of the router panicked");
                Poll::Ready(None)
            },
            |poll| poll.map(Some),
        )
    }
}

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
pub struct Listener {
    listener: net::TcpListener,
    pause: Option<Pin<Box<Sleep>>>,
}

impl TcpListener<Tcp> for Listener {
    async fn bind(address: SocketAddr) -> Option<Self> {
        // Tokio sets SO_REUSEADDR, so that a restarted router gets its port back.
        let listener = net::TcpListener::bind(address).await.ok()?;
        Some(Self { listener, pause: None })
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Tcp, SocketAddr)>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                // One connection that fails at once says nothing about the next.
                Ok((stream, address)) => {
                    if let Some(stream) = Tcp::new(stream) {
                        return Poll::Ready(Some((stream, address)));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }
}

/// A datagram that the system does not take, as while there is no network, is one that is lost on its way. emissary
/// would give the socket up.
fn sent_or_lost(sent: std::io::Result<usize>, bytes: &[u8]) -> usize {
    sent.unwrap_or(bytes.len())
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
        Some(sent_or_lost(self.socket.send_to(bytes, target).await, bytes))
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
        Poll::Ready(Some(sent_or_lost(ready!(self.socket.poll_send_to(cx, bytes, target)), bytes)))
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
    set: tokio::task::JoinSet<Option<T>>,
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
        self.set.spawn(Part::new(future));
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
                Poll::Ready(Some(Ok(Some(value)))) => return Poll::Ready(Some(value)),
                // A task that panicked has no value; the others go on.
                Poll::Ready(Some(Ok(None) | Err(_))) => {}
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
        tokio::spawn(async move {
            if Part::new(future).await.is_none() {
                BROKEN.send_replace(true);
            }
        });
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
        let mut plain = Vec::new();
        GzDecoder::new(bytes.as_ref()).take(MAX_DECOMPRESSED + 1).read_to_end(&mut plain).ok()?;
        (plain.len() as u64 <= MAX_DECOMPRESSED).then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_a_bomb_does_not() {
        let plain = b"i2plan".repeat(1000);
        let packed = Tokio::gzip_compress(&plain).unwrap();
        assert_eq!(Tokio::gzip_decompress(&packed).unwrap(), plain);
        let most = usize::try_from(MAX_DECOMPRESSED).unwrap();
        let packed = Tokio::gzip_compress(vec![0; most]).unwrap();
        assert_eq!(Tokio::gzip_decompress(&packed).unwrap().len(), most);
        let bomb = Tokio::gzip_compress(vec![0; most + 1]).unwrap();
        assert_eq!(Tokio::gzip_decompress(&bomb), None);
        assert_eq!(Tokio::gzip_decompress(&packed[..packed.len() / 2]), None);
    }

    #[tokio::test]
    async fn a_datagram_that_cannot_be_sent_is_lost_and_the_socket_is_not() {
        let mut socket = Udp::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let here = socket.local_address().unwrap();
        // No system sends to port 0.
        let nowhere = "127.0.0.1:0".parse().unwrap();
        assert_eq!(socket.send_to(b"lost", nowhere).await, Some(4));
        let lost = std::future::poll_fn(|cx| Pin::new(&mut socket).poll_send_to(cx, b"lost", nowhere));
        assert_eq!(lost.await, Some(4));
        socket.send_to(b"sent", here).await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(socket.recv_from(&mut buffer).await, Some((4, here)));
    }

    #[tokio::test]
    async fn of_futures_that_run_together_one_may_panic() {
        let mut tasks = Tokio::join_set();
        tasks.push(async { panic!("one ends") });
        tasks.push(async { 1 });
        tasks.push(async {
            tokio::task::yield_now().await;
            2
        });
        let mut values = Vec::new();
        while values.len() < 2 {
            values.extend(futures::StreamExt::next(&mut tasks).await);
        }
        values.sort_unstable();
        assert_eq!(values, [1, 2]);
    }

    #[tokio::test]
    async fn a_panic_of_a_part_is_told() {
        Tokio::spawn(async { 1 });
        Tokio::spawn(async { panic!("a part ends") });
        timeout(Duration::from_secs(5), broken()).await.unwrap();
    }
}
