//! A SAM bridge between nodes on one machine that does as little as it can: it has no rate, no timer, and no queue but
//! those of its sockets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::gettid;
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::i2p::sam::bind_bridge;
use crate::node::processor_time;
use crate::path::sam::Bridge;
use crate::path::serve;

/// Longest datagram, with the line before it.
const MAX_DATAGRAM: usize = 1 << 16;

/// The bridges of some namespaces, which reach each other. Each copies datagrams in a thread of its own, until the
/// process ends.
#[derive(Debug, Clone, Default)]
pub struct NullBridge(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    connections: AtomicU64,
    /// How often sessions may have changed.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    sessions: Bridge,
    /// Where each end has its datagrams from.
    sockets: Vec<Arc<UdpSocket>>,
    threads: Vec<i32>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NullBridge {
    /// Becomes the SAM bridge of a network namespace.
    ///
    /// # Errors
    /// If there is no such namespace, or it has a bridge.
    pub fn attach(&self, namespace: &str) -> Result<(), Failure> {
        let (listener, socket) = bind_bridge(namespace)?;
        self.add_end(listener, socket)
    }

    fn add_end(&self, listener: std::net::TcpListener, socket: UdpSocket) -> Result<(), Failure> {
        socket.set_nonblocking(false)?;
        let (listener, socket) = (TcpListener::from_std(listener)?, Arc::new(socket));
        let mut state = self.0.state();
        let end = state.sockets.len();
        state.sockets.push(Arc::clone(&socket));
        let shared = Arc::clone(&self.0);
        let copy = move || {
            shared.state().threads.push(gettid().as_raw());
            copy(end, &socket, &shared);
        };
        std::thread::Builder::new().name("null bridge".to_owned()).spawn(copy)?;
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(control(end, stream, Arc::clone(&shared)));
            }
        });
        Ok(())
    }

    /// Processor time that copying has taken, seconds.
    ///
    /// # Errors
    /// If a thread has ended.
    pub fn processor_time(&self) -> Result<f64, Failure> {
        let threads = self.0.state().threads.clone();
        threads.iter().map(|thread| processor_time(&format!("self/task/{thread}"))).sum()
    }
}

/// Serves a control connection.
async fn control(end: usize, stream: TcpStream, shared: Arc<Shared>) {
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
    let changed = || shared.changes.fetch_add(1, Ordering::Release);
    let answer = |line: &str| {
        let answer = shared.state().sessions.handle_line(end, connection, line);
        changed();
        answer
    };
    // A connection that breaks is one that ends.
    let _ = serve(stream, answer).await;
    shared.state().sessions.handle_end(connection);
    changed();
}

/// Where what begins with a line goes.
struct Route {
    /// With its end.
    line: Vec<u8>,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    changes: u64,
}

/// Copies what comes to an end's socket.
fn copy(end: usize, socket: &UdpSocket, shared: &Shared) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut route: Option<Route> = None;
    loop {
        // An error is that of a datagram before, which no program took.
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let (datagram, changes) = (&buffer[..len], shared.changes.load(Ordering::Acquire));
        let known =
            route.as_ref().filter(|route| route.changes == changes && datagram.starts_with(&route.line));
        // A program that is gone, or does not read, loses datagrams.
        if let Some(route) = known {
            let _ = route.socket.send_to(&datagram[route.line.len()..], route.to);
            continue;
        }
        let state = shared.state();
        let Some(line) = datagram.iter().position(|byte| *byte == b'\n') else { continue };
        if let Some((to_end, to)) = state.sessions.raw_route(end, &datagram[..line]) {
            let socket = Arc::clone(&state.sockets[to_end]);
            let _ = socket.send_to(&datagram[line + 1..], to);
            route = Some(Route { line: datagram[..=line].to_vec(), socket, to, changes });
        } else if let Some(datagram) = state.sessions.handle_datagram(end, datagram) {
            let _ = state.sockets[datagram.to].send_to(&datagram.bytes, datagram.forward_to);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use i2plan_proto::destination::{Destination, base64};
    use i2plan_proto::sam::datagram;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    use super::*;

    fn destination(seed: u8) -> Destination {
        Destination { padding: [seed; 32], signing_key: [seed; 32] }
    }

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    }

    /// Opens a session that is forwarded to a socket, once its destination is free. It ends with what is returned.
    async fn open(bridge: SocketAddr, seed: u8, forward_to: &UdpSocket) -> TcpStream {
        let key = base64().encode(&[&destination(seed).to_i2p()[..], &[0; 64]].concat());
        let port = forward_to.local_addr().unwrap().port();
        loop {
            let mut stream = BufReader::new(TcpStream::connect(bridge).await.unwrap());
            let create =
                format!("SESSION CREATE STYLE=RAW ID=s DESTINATION={key} HOST=127.0.0.1 PORT={port}\n");
            stream.write_all(create.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_line(&mut answer).await.unwrap();
            if answer.contains("RESULT=OK") {
                return stream.into_inner();
            }
            assert!(answer.contains("DUPLICATED"), "{answer}");
        }
    }

    #[tokio::test]
    async fn datagrams_are_copied_to_the_session_that_there_is() {
        let bridge = NullBridge::default();
        let ends = [(); 2].map(|()| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let (control, socket) = (listener.local_addr().unwrap(), socket());
            let datagrams = socket.local_addr().unwrap();
            socket.set_read_timeout(None).unwrap();
            bridge.add_end(listener, socket).unwrap();
            (control, datagrams)
        });
        let (near, far, later) = (socket(), socket(), socket());
        let _near_session = open(ends[0].0, 1, &near).await;
        let far_session = open(ends[1].0, 2, &far).await;
        let passes = |to: &UdpSocket, payload: &[u8]| {
            near.send_to(&datagram::encode("s", &destination(2), payload), ends[0].1).unwrap();
            let mut buffer = [0; 100];
            let (len, from) = to.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (payload, ends[1].1));
        };
        // The second way is remembered from the first.
        passes(&far, b"first");
        passes(&far, b"second");
        drop(far_session);
        let _later_session = open(ends[1].0, 2, &later).await;
        passes(&later, b"third");
    }
}
