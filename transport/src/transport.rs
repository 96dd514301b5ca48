//! The transport: a task that keeps a session open, and handles to send and receive through it.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::endpoint::{AnyDestination, Endpoint};
use i2plan_proto::sam::connection::Received;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::config::{Config, ConfigError};
use crate::control::{Control, quit};
use crate::core::{Core, Datagram, SendError};
use crate::open::{Opened, open};
use crate::retry::Cause;
use crate::udp;

/// Datagrams that wait until the program receives them. Those that come then are lost, as with UDP.
const MAX_RECEIVED: usize = 256;

/// Lookups that wait for the task.
const MAX_LOOKUPS: usize = 64;

/// How a transport is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its session is being opened: the router builds tunnels.
    Opening,
    /// Its session is open, and has carried a datagram to itself.
    Up,
    /// It has no session.
    Down {
        /// Why.
        error: String,
        /// In how long the next is opened.
        retry: Duration,
    },
}

/// A transport. It keeps a session open under one destination until it is closed or dropped.
#[derive(Debug)]
pub struct Transport {
    sender: Sender,
    received: mpsc::Receiver<Datagram>,
    state: watch::Receiver<State>,
    renewals: mpsc::Sender<()>,
    destination: AnyDestination,
    task: JoinHandle<()>,
}

/// Sends through a transport. What it sends is lost while that is down, and after its end.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    lookups: mpsc::Sender<DestinationHash>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Core,
    /// That of the open session.
    socket: Option<Arc<UdpSocket>>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what is to be sent.
    fn flush(&self, inner: &mut Inner) -> Result<(), SendError> {
        while let Some(hash) = inner.core.poll_lookup() {
            // There are no more at a time than there is room for.
            let _ = self.lookups.try_send(hash);
        }
        let mut result = Ok(());
        while let Some(datagram) = inner.core.poll_transmit() {
            let socket = inner.socket.as_ref().ok_or(SendError::Down)?;
            result = udp::send(socket, &datagram).map_err(|error| SendError::Io(error.kind()));
        }
        result
    }
}

impl Sender {
    /// Sends a datagram, without waiting: as with UDP, that it was sent does not mean that it arrives.
    ///
    /// The first to the hash of a destination wait until the router has found it.
    ///
    /// # Errors
    /// [`SendError`]. The datagram is lost then.
    pub fn send(&self, to: &Endpoint, payload: &[u8]) -> Result<(), SendError> {
        let mut inner = self.0.lock();
        inner.core.send(to, payload, self.0.now())?;
        self.0.flush(&mut inner)
    }
}

impl Transport {
    /// Begins to open a session, and to open another whenever it is lost. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`]. That there is no router is no error: [`Transport::state`] says so.
    pub fn start(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let (lookups, lookup_queue) = mpsc::channel(MAX_LOOKUPS);
        let (deliver, received) = mpsc::channel(MAX_RECEIVED);
        let (renewals, renewal_queue) = mpsc::channel(1);
        let (tell, state) = watch::channel(State::Opening);
        let destination = config.keys.destination().clone();
        let core = Core::new(config.style, destination.clone());
        let inner = Mutex::new(Inner { core, socket: None });
        let shared = Arc::new(Shared { started: Instant::now(), lookups, inner });
        let sender = Sender(Arc::clone(&shared));
        let keeper = Keeper {
            config,
            shared,
            lookups: lookup_queue,
            renewals: renewal_queue,
            deliver,
            tell,
            udp_port: None,
        };
        Ok(Self { sender, received, state, renewals, destination, task: tokio::spawn(keeper.run()) })
    }

    /// The destination that others send to, and that repliable datagrams come from.
    #[must_use]
    pub fn destination(&self) -> &AnyDestination {
        &self.destination
    }

    /// How it is, and is told of changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until it is up.
    pub async fn up(&mut self) {
        // The task ends after this only.
        let _ = self.state.wait_for(|state| *state == State::Up).await;
    }

    /// Opens another session in the place of the one that is open, under the same destination, and waits until it is up.
    ///
    /// For a device that is not answered for long though the transport is up: a router may hold on to what it has agreed
    /// with a peer's router before that was restarted, and what it sends is not understood then (emissary 0.4).
    pub async fn renew(&mut self) {
        let is_up = *self.state.borrow_and_update() == State::Up;
        if is_up && self.renewals.try_send(()).is_ok() {
            let _ = self.state.changed().await;
        }
        self.up().await;
    }

    /// A handle to send with, for other tasks.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, to: &Endpoint, payload: &[u8]) -> Result<(), SendError> {
        self.sender.send(to, payload)
    }

    /// The next datagram that comes; none if the task has failed. A call that is cancelled loses nothing.
    pub async fn recv(&mut self) -> Option<Datagram> {
        self.received.recv().await
    }

    /// Ends the session, and waits until the router has been told: it gives the destination to another session then. One
    /// that is not up yet is left to end with its connection. A transport that is dropped ends too, in its own time.
    pub async fn close(self) {
        drop(self.received);
        let _ = self.task.await;
    }
}

/// How an open session has ended.
enum Ended {
    Lost(io::Error),
    /// Another is to be opened, for which the router must have let go of it.
    Renewed,
    /// The transport is closed.
    Closed,
}

/// Keeps a session open.
struct Keeper {
    config: Config,
    shared: Arc<Shared>,
    lookups: mpsc::Receiver<DestinationHash>,
    renewals: mpsc::Receiver<()>,
    deliver: mpsc::Sender<Datagram>,
    tell: watch::Sender<State>,
    /// The bridge's UDP port, once a session was tested.
    udp_port: Option<u16>,
}

impl Keeper {
    async fn run(mut self) {
        let closed = self.deliver.clone();
        loop {
            let opened = tokio::select! {
                () = closed.closed() => return,
                opened = self.opened() => opened,
            };
            let Opened { id, mut stream, socket, udp_port } = opened;
            self.udp_port = Some(udp_port);
            let socket = Arc::new(socket);
            // What was wanted of the session before.
            while self.lookups.try_recv().is_ok() || self.renewals.try_recv().is_ok() {}
            {
                let mut inner = self.shared.lock();
                info!(session = id, udp_port, "session opened");
                inner.core.handle_opened(id, self.shared.now());
                inner.socket = Some(Arc::clone(&socket));
            }
            self.tell.send_replace(State::Up);
            let ended = tokio::select! {
                () = closed.closed() => Ended::Closed,
                ended = self.attend(&mut stream, &socket) => ended,
            };
            self.shared.lock().socket = None;
            match ended {
                Ended::Lost(error) => self.fail(Cause::Other, &error.to_string()),
                Ended::Renewed => {
                    self.shared.lock().core.handle_renewal(self.shared.now());
                    quit(&mut stream).await;
                }
                Ended::Closed => return quit(&mut stream).await,
            }
        }
    }

    /// Opens a session, however many attempts that takes.
    async fn opened(&mut self) -> Opened {
        loop {
            let until = self.shared.lock().core.poll_timeout();
            if let Some(until) = until {
                sleep_until(self.shared.started + until).await;
            }
            let due = {
                let core = &mut self.shared.lock().core;
                core.handle_timeout(self.shared.now());
                core.poll_open()
            };
            if !due {
                continue;
            }
            self.tell.send_replace(State::Opening);
            let answered = |took| self.shared.lock().core.handle_answer(took);
            match open(&self.config, self.udp_port, answered, |datagram| self.take(datagram)).await {
                Ok(opened) => return opened,
                Err(error) => self.fail(error.cause(), &error.to_string()),
            }
        }
    }

    fn fail(&self, cause: Cause, error: &str) {
        let retry = self.shared.lock().core.handle_failure(cause, self.shared.now(), rand::random());
        let retry_ms = retry.as_millis();
        let down = State::Down { error: error.to_owned(), retry };
        if *self.tell.borrow() == State::Up {
            warn!(%error, retry_ms, "session lost");
        } else {
            debug!(%error, retry_ms, "no session could be opened");
        }
        self.tell.send_replace(down);
    }

    /// Looks after an open session until it ends.
    async fn attend(&mut self, stream: &mut TcpStream, socket: &UdpSocket) -> Ended {
        let (shared, deliver) = (&self.shared, &self.deliver);
        let lookups = &mut self.lookups;
        let control = async {
            let mut control = Control::default();
            let (_, mut no_datagrams) = mpsc::channel(1);
            loop {
                let Received::Found(found) = control.next(stream, lookups, &mut no_datagrams).await? else {
                    continue;
                };
                let mut inner = shared.lock();
                inner.core.handle_found(found, shared.now());
                if let Err(error) = shared.flush(&mut inner) {
                    debug!(%error, "dropped datagrams that waited for their destination");
                }
            }
        };
        let receive = async {
            let mut buffer = vec![0; udp::MAX_DATAGRAM];
            loop {
                let len = udp::receive(socket, &mut buffer).await?;
                take(shared, deliver, &buffer[..len]);
            }
        };
        let lost: io::Result<Infallible> = tokio::select! {
            lost = control => lost,
            lost = receive => lost,
            Some(()) = self.renewals.recv() => return Ended::Renewed,
        };
        let Err(error) = lost;
        Ended::Lost(error)
    }

    fn take(&self, forwarded: &[u8]) {
        take(&self.shared, &self.deliver, forwarded);
    }
}

/// Delivers a datagram that the bridge has forwarded.
fn take(shared: &Shared, deliver: &mpsc::Sender<Datagram>, forwarded: &[u8]) {
    let datagram = shared.lock().core.handle_datagram(forwarded);
    if let Some(datagram) = datagram
        && deliver.try_send(datagram).is_err()
    {
        debug!("dropped a datagram: too many are waiting");
    }
}
