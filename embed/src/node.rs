//! A node that runs.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::meshd::{Ban, Invite, IssuedInvite, Network, Peer, Route, SessionState, Status};
use i2plan_ipc::client::ClientError;
use i2plan_ipc::node::Node as Client;
use i2plan_ipc::paths::MESHD_SOCKET;
use i2plan_ipc::secret::SecretText;
use i2plan_supervisor::{DaemonError, DaemonEvent, Relay, Sink, Supervisor};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::builder::{Builder, StartError};
use crate::happenings::Happenings;

/// What happens to daemons that is kept for those who have not looked.
const KEPT: usize = 100;

/// How often a node is asked whether it is ready.
const POLL: Duration = Duration::from_millis(200);

/// Whether the daemons run.
#[derive(Debug, Clone)]
pub enum State {
    /// They do; one that ends is started again.
    Running,
    /// They are being stopped.
    Stopping,
    /// They are stopped.
    Stopped,
    /// One cannot run, for this reason, and so all are stopped.
    Failed(Arc<DaemonError>),
}

impl State {
    /// Whether it stays so.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed(_))
    }
}

/// A node whose daemons run. Dropping it kills them; [`Node::stop`] lets them tell the other members.
#[derive(Debug)]
pub struct Node {
    socket: PathBuf,
    client: Mutex<Option<Client>>,
    state: watch::Receiver<State>,
    daemons: broadcast::Sender<DaemonEvent>,
    /// To the thread; closed to have the daemons killed.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Asks the node, and returns what it answers.
macro_rules! ask {
    ($node:ident, $($call:tt)*) => {{
        let mut held = $node.client.lock().await;
        let mut client = match held.take() {
            Some(client) => client,
            None => Client::connect(&$node.socket).await?,
        };
        let result = client.$($call)*.await;
        if !client.is_broken() {
            *held = Some(client);
        }
        result
    }};
}

impl Node {
    /// What a node with this name is to be. In a network it is known by the name.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) async fn start(node: i2plan_supervisor::Node, log: impl Sink) -> Result<Self, StartError> {
        let socket = node.run.join(MESHD_SOCKET);
        let (stop, stopped) = mpsc::channel(1);
        let (state_sender, state) = watch::channel(State::Running);
        let (daemons, _) = broadcast::channel(KEPT);
        let (started, result) = oneshot::channel();
        let observer = daemons.clone();
        // The kernel ends a daemon with the thread that started it: they have one that lives as long as they do.
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(StartError::Thread(error)))),
            };
            runtime.block_on(supervise(node, log, observer, started, stopped, &state_sender));
        };
        let thread = std::thread::Builder::new().name("i2plan".to_owned()).spawn(run);
        let thread = thread.map_err(StartError::Thread)?;
        let gone = || StartError::Thread(std::io::Error::other("it has ended"));
        result.await.map_err(|_| gone())??;
        Ok(Self { socket, client: Mutex::new(None), state, daemons, stop: Some(stop), thread: Some(thread) })
    }

    /// Whether the daemons run.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// What happens from now on.
    #[must_use]
    pub fn happenings(&self) -> Happenings {
        Happenings::new(&self.socket, self.daemons.subscribe(), self.state.clone())
    }

    /// Waits until the node's I2P sessions are open, so that it can found and join networks.
    ///
    /// # Errors
    /// [`ClientError`], if a daemon refuses or it takes too long.
    pub async fn until_ready(&self, limit: Duration) -> Result<(), ClientError> {
        let ready = async {
            loop {
                // A daemon that has just been started may not answer.
                let status = self.status().await;
                let sessions = |status: &Status| [status.sam.control.state, status.sam.data.state];
                match status {
                    Ok(status) if sessions(&status) == [SessionState::Up; 2] => return Ok(()),
                    Err(error @ (ClientError::Api(_) | ClientError::Version { .. })) => return Err(error),
                    _ if self.state().is_over() => {
                        return Err(ApiError::unavailable("the node does not run").into());
                    }
                    _ => sleep(POLL).await,
                }
            }
        };
        let late = || {
            let seconds = limit.as_secs();
            ApiError::unavailable(format!("the I2P sessions were not open after {seconds} s"))
                .with_hint("see that the I2P router runs and its SAM bridge is enabled")
        };
        timeout(limit, ready).await.unwrap_or_else(|_| Err(late().into()))
    }

    /// The state of the node in its network, with what is wrong.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        ask!(self, status())
    }

    /// The other members.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        ask!(self, peers())
    }

    /// The routing table.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn routes(&self) -> Result<Vec<Route>, ClientError> {
        ask!(self, routes())
    }

    /// The node's id; none before its keys are there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_id(&self) -> Result<Option<String>, ClientError> {
        Ok(self.status().await?.node_id)
    }

    /// The node's addresses in its network; none if it is in none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tunnel_ip(&self) -> Result<Option<(Ipv4Addr, Ipv6Addr)>, ClientError> {
        Ok(self.status().await?.network.map(|network| (network.ipv4, network.ipv6)))
    }

    /// The I2P host name at which other members reach it, as `….b32.i2p`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn i2p_address(&self) -> Result<Option<String>, ClientError> {
        Ok(self.status().await?.sam.control.destination)
    }

    /// Makes an invite for so many uses, none for any number. The first founds a network.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_invite(
        &self,
        expires_in: Duration,
        uses: Option<u32>,
    ) -> Result<Invite, ClientError> {
        ask!(self, create_invite(expires_in, uses, None, None, None))
    }

    /// The invites that the node has made.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invites(&self) -> Result<Vec<IssuedInvite>, ClientError> {
        ask!(self, invites())
    }

    /// Revokes an invite. Those that have used it stay members.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_invite(&self, id: &str) -> Result<IssuedInvite, ClientError> {
        ask!(self, revoke_invite(id.to_owned()))
    }

    /// Joins a network by an invite code. May take minutes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn accept_invite(&self, code: SecretText) -> Result<Network, ClientError> {
        // On a connection of its own: other questions do not wait for it.
        self.client().await?.join(code).await
    }

    /// The bans in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bans(&self) -> Result<Vec<Ban>, ClientError> {
        ask!(self, bans())
    }

    /// Bans a member on this node, for a while or without end.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ban(
        &self,
        node_id: &str,
        why: &str,
        duration: Option<Duration>,
    ) -> Result<Ban, ClientError> {
        ask!(self, add_ban(node_id.to_owned(), why.to_owned(), duration))
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unban(&self, node_id: &str) -> Result<Ban, ClientError> {
        ask!(self, remove_ban(node_id.to_owned()))
    }

    /// A connection for all that the node can be asked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket).await
    }

    /// The node's control socket, which `i2planctl --socket` takes.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops the daemons, and waits for their ends: the other members are told, and packets that wait are sent.
    pub async fn stop(mut self) -> State {
        if let Some(stop) = &self.stop {
            let _ = stop.send(()).await;
        }
        let _ = self.state.wait_for(State::is_over).await;
        self.state()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It has little to do: killing, and removing sockets.
            let _ = thread.join();
        }
    }
}

/// Runs the daemons until they are to stop or one cannot run.
async fn supervise(
    node: i2plan_supervisor::Node,
    log: impl Sink,
    observer: broadcast::Sender<DaemonEvent>,
    started: oneshot::Sender<Result<(), StartError>>,
    mut stop: mpsc::Receiver<()>,
    state: &watch::Sender<State>,
) {
    // Dropped last: the writer writes what is left.
    let (lines, _writer) = Relay::start("i2plan", log);
    // Nobody need listen.
    let tell = move |event: &DaemonEvent| drop(observer.send(event.clone()));
    let mut supervisor = match Supervisor::start(&node, &lines, tell).await {
        Ok(supervisor) => supervisor,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    let _ = started.send(Ok(()));
    let end = tokio::select! {
        error = supervisor.failure() => State::Failed(Arc::new(error)),
        asked = stop.recv() => match asked {
            Some(()) => State::Stopped,
            None => {
                drop(supervisor);
                state.send_replace(State::Stopped);
                return;
            }
        },
    };
    state.send_replace(State::Stopping);
    tokio::select! {
        () = supervisor.stop() => {}
        // Nobody waits for it any more.
        () = async { while stop.recv().await.is_some() {} } => supervisor.kill(),
    }
    drop(supervisor);
    state.send_replace(end);
}
