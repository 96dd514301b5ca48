//! The control connection of an open session.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::sam::connection::{Connection, Received};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

/// How long the router may take to answer a lookup, before another one is sent.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long may be waited until a router has taken the word that a session is over.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A repliable datagram to a destination in I2P's base64.
pub type Outgoing = (String, Vec<u8>);

/// Reads a control connection until it ends, and makes lookups over it.
#[derive(Debug)]
pub struct Control {
    connection: Connection,
    received: VecDeque<Received>,
    pending: Option<(DestinationHash, Instant)>,
    started: Instant,
}

impl Default for Control {
    fn default() -> Self {
        Self::new(Connection::default(), Instant::now())
    }
}

impl Control {
    /// Goes on with a connection, whose times count from this instant.
    pub(crate) fn new(connection: Connection, started: Instant) -> Self {
        Self { connection, received: VecDeque::new(), pending: None, started }
    }

    /// Makes the lookups that are asked for, and sends datagrams where the connection carries any. Returns the next thing
    /// that comes.
    ///
    /// Not to be called again on a stream on which a call was cancelled.
    ///
    /// # Errors
    /// If the session has ended, with the reason.
    pub async fn next(
        &mut self,
        stream: &mut TcpStream,
        lookups: &mut mpsc::Receiver<DestinationHash>,
        datagrams: &mut mpsc::Receiver<Outgoing>,
    ) -> io::Result<Received> {
        let mut buffer = [0; 2048];
        loop {
            if let Some(received) = self.received.pop_front() {
                return Ok(received);
            }
            while let Some(output) = self.connection.poll_output(self.started.elapsed()) {
                stream.write_all(&output).await?;
            }
            let again = self.connection.poll_timeout().map(|at| self.started + at);
            let current = self.connection.current().copied();
            if self.pending.map(|(hash, _)| hash) != current {
                self.pending = current.map(|hash| (hash, Instant::now() + LOOKUP_TIMEOUT));
            }
            tokio::select! {
                count = stream.read(&mut buffer) => match count? {
                    0 => return Err(io::Error::other("the router closed the session")),
                    count => self.received.extend(self.connection.receive(&buffer[..count]).map_err(io::Error::other)?),
                },
                () = wait_for(self.pending.map(|(_, until)| until)) => {
                    self.received.extend(self.connection.give_up().map(Received::Found));
                }
                () = wait_for(again) => {}
                Some(hash) = lookups.recv() => {
                    if !self.connection.look_up(hash) {
                        debug!("dropped a lookup: too many are waiting");
                    }
                }
                Some((to, payload)) = datagrams.recv() => {
                    if !self.connection.send(&to, &payload) {
                        debug!("dropped a datagram: too many are waiting");
                    }
                }
            }
        }
    }
}

/// Ends a session. Its connection is shut down for all who hold it; where that alone is not noticed, the word is.
pub async fn quit(stream: &mut TcpStream) {
    let said = async {
        stream.write_all(b"QUIT\n").await?;
        stream.shutdown().await
    };
    if !matches!(timeout(QUIT_TIMEOUT, said).await, Ok(Ok(()))) {
        debug!("a session's connection was not ended in order");
    }
}

/// Returns at this time, and never if there is none.
pub(crate) async fn wait_for(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
