//! The gateway's process, and its unix socket: one document a line, answered by one line each; or HTTP.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use i2plan_http::{ANSWER_DEADLINE, REQUEST_DEADLINE};
use i2plan_ipc::ByteSocket;
use i2plan_ipc::daemon::activation::into_tokio;
use i2plan_ipc::daemon::descriptors;
use i2plan_ipc::daemon::notify::{Supervisor, Watchdog};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::daemon::signals::Signals;
use i2plan_ipc::daemon::tasks::Tasks;
use i2plan_ipc::server::accept;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, join};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::gateway::{Caller, Gateway};
use super::http::{self, LocalConnection, TCP_USER};
use super::lines::{Lines, Next};
use super::message::{Id, Json, failure, too_long};
use super::metrics;
use super::metrics::http::Exporter;
use super::sandbox;
use super::token::{FILE, Token};

/// Bytes that are read at once.
const CHUNK: usize = 8192;

/// What the gateway is told at its start.
#[derive(Debug)]
pub struct Options {
    /// `meshd`'s socket.
    pub meshd: PathBuf,
    /// `keyd`'s socket for orders, if `rpc.orders` lets the gateway give them.
    pub orders: Option<PathBuf>,
    /// `rpc.tcp_address`: where to listen besides.
    pub tcp: Option<SocketAddr>,
    /// Where the token for that is kept.
    pub state: PathBuf,
    /// `metrics.listen`: where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// If it cannot start.
pub async fn run(options: Options, listener: StdUnixListener) -> Result<(), End> {
    let mut signals = Signals::new()?;
    let supervisor = Supervisor::of_this_process();
    descriptors::refuse(&listener);
    let listener = into_tokio(listener)?;
    let gateway = Gateway::new(&options.meshd, &[TCP_USER], options.orders.as_deref());
    let tcp = match options.tcp {
        None => None,
        Some(address) => {
            let token = Token::load_or_make(&options.state).map_err(End::failed)?;
            let listener = listen(address, "rpc.tcp_address").await?;
            info!(%address, token = %options.state.join(FILE).display(), "JSON-RPC over HTTP");
            Some((listener, token))
        }
    };
    let metrics = match options.metrics {
        None => None,
        Some(address) => {
            let listener = listen(address, "metrics.listen").await?;
            info!(%address, "metrics over HTTP");
            Some((listener, Exporter::new(&options.meshd, gateway.durations())))
        }
    };
    sandbox::before_serving()?;
    supervisor.ready();
    let mut tasks = Tasks::default();
    tasks.spawn("socket", serve(listener, Arc::clone(&gateway)));
    if let Some((listener, token)) = tcp {
        tasks.spawn("HTTP", http::serve(listener, token, gateway));
    }
    if let Some((listener, exporter)) = metrics {
        tasks.spawn("metrics", metrics::http::serve(listener, exporter));
    }
    let mut watchdog = Watchdog::of_this_process();
    loop {
        tokio::select! {
            _ = signals.next() => break,
            ended = tasks.ended() => return Err(ended.into()),
            () = watchdog.due() => supervisor.alive(),
        }
    }
    supervisor.stopping(Duration::ZERO);
    Ok(())
}

/// Listens where a configuration key says so.
async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, End> {
    TcpListener::bind(address)
        .await
        .map_err(|error| End::failed(format!("cannot listen on {address} ({key}): {error}")))
}

async fn serve(listener: UnixListener, gateway: Arc<Gateway>) {
    loop {
        let stream = accept(|| listener.accept()).await;
        let peer = stream.peer_cred();
        let socket = Arc::new(ByteSocket::new(stream));
        let Ok(uid) = peer.map(|peer| peer.uid()) else { continue };
        match gateway.enter(uid) {
            Ok(caller) => {
                let caller = caller.at(Arc::clone(&socket));
                tokio::spawn(async move {
                    if let Err(error) = converse(&socket, caller).await {
                        debug!(uid, %error, "dropped a connection");
                    }
                });
            }
            Err(error) => {
                debug!(uid, "refused a connection: too many are open");
                socket.write_at_once(&line(failure(Id::NULL, &error)));
            }
        }
    }
}

/// Answers HTTP if that is what comes first, and lines otherwise. No JSON begins with a capital letter, and each method
/// of HTTP does.
async fn converse(mut socket: &ByteSocket, caller: Caller) -> io::Result<()> {
    let mut chunk = Zeroizing::new([0; CHUNK]);
    let count = socket.read(&mut *chunk).await?;
    if chunk[0].is_ascii_uppercase() {
        let stream = join((&chunk[..count]).chain(socket), socket);
        return i2plan_http::answer(stream, LocalConnection(caller)).await.map_err(io::Error::other);
    }
    let mut lines = Lines::default();
    lines.push(&chunk[..count]);
    let mut deadline = None;
    loop {
        match lines.take() {
            Next::Document(document) => {
                deadline = None;
                answer(socket, caller.answer(&document).await).await?;
                continue;
            }
            Next::TooLong => return answer(socket, Some(failure(Id::NULL, &too_long()))).await,
            Next::Partial => {}
        }
        let room = lines.room().min(CHUNK);
        let reading = socket.read(&mut chunk[..room]);
        let count = if lines.is_partial() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + REQUEST_DEADLINE);
            timeout_at(deadline, reading).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        } else {
            reading.await?
        };
        if count == 0 {
            return match lines.finish() {
                Some(document) => answer(socket, caller.answer(&document).await).await,
                None => Ok(()),
            };
        }
        lines.push(&chunk[..count]);
    }
}

async fn answer(mut socket: &ByteSocket, answer: Option<Json>) -> io::Result<()> {
    let Some(answer) = answer.map(line) else { return Ok(()) };
    timeout(ANSWER_DEADLINE, socket.write_all(&answer))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn line(answer: Json) -> Json {
    let mut line = Zeroizing::new(Vec::with_capacity(answer.len() + 1));
    line.extend_from_slice(&answer);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tokio::task::yield_now;

    use super::*;

    const DESCRIBE: &str = r#"{"jsonrpc":"2.0","id":7,"method":"rpc.discover"}"#;

    /// What the socket answers to these pieces, to the end.
    async fn exchange(pieces: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpc.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = tokio::spawn(serve(listener, Gateway::new("/nonexistent".as_ref(), &[], None)));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            // It is read before the next.
            for _ in 0..10 {
                yield_now().await;
            }
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    fn post(headers: &str, body: &str) -> String {
        format!("POST / HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn http_is_told_from_lines_by_its_first_letter() {
        let right = "Content-Type: application/json\r\n";
        let close = format!("{right}Connection: close\r\n");
        let (one, last) = (post(right, DESCRIBE), post(&close, DESCRIBE));
        for pieces in [&[one.as_str(), &last][..], &[&one[..1], &one[1..30], &one[30..], &last]] {
            let answer = exchange(pieces).await;
            assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
            assert_eq!(answer.matches("\"openrpc\"").count(), 2, "{answer}");
        }
        // Only what comes first is looked at.
        let answer = exchange(&["P", "\n\n"]).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn http_has_the_rules_of_the_tcp_listener_but_for_host_and_token() {
        let json = "Content-Type: application/json\r\n";
        let long = format!("\"{}\"", "x".repeat(70_000));
        for (request, expected) in [
            (post(json, DESCRIBE).replace("POST", "GET"), 405),
            (post(json, DESCRIBE).replace("/ ", "/rpc "), 404),
            (post("", DESCRIBE), 415),
            (post("Content-Type: text/plain\r\n", DESCRIBE), 415),
            (post(&format!("{json}Content-Encoding: gzip\r\n"), DESCRIBE), 415),
            // Its end is not read.
            (post(json, &long)[..200].to_owned(), 413),
        ] {
            let answer = exchange(&[&request]).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn who_says_no_more_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rpc.sock");
        let _serving = tokio::spawn(serve(
            UnixListener::bind(&path).unwrap(),
            Gateway::new(&dir.path().join("meshd.sock"), &[], None),
        ));
        // Its client waits.
        let _meshd = UnixListener::bind(dir.path().join("meshd.sock")).unwrap();
        let status = DESCRIBE.replace("rpc.discover", "status");
        for request in [format!("{status}\n"), post("Content-Type: application/json\r\n", &status)] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("\"id\":7"), "{request}: {answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_not_waited_for() {
        assert_eq!(exchange(&["POST / HTTP/1.1\r\n"]).await, "");
    }
}
