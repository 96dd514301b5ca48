//! The daemons of a node, running.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::daemon::{Daemon, DaemonError, Goal, Observer};
use crate::error::StartError;
use crate::event::DaemonEvent;
use crate::layout::{Directories, Sockets};
use crate::node::{Node, daemons};
use crate::relay::Relay;

/// A node whose daemons run. The crate's documentation says how it is used.
///
/// Dropping it kills the daemons that still run, removes their sockets and unlocks the directories.
#[derive(Debug)]
pub struct Supervisor {
    /// In the order of their start.
    running: Vec<Running>,
    failed: mpsc::Receiver<DaemonError>,
    hangup: watch::Sender<()>,
    _sockets: Sockets,
    _directories: Directories,
}

impl Supervisor {
    /// Makes the directories and sockets of a node, and starts its daemons.
    ///
    /// What the daemons print goes to `lines`. `observer` is called with what happens to them; it must not wait.
    ///
    /// # Errors
    /// [`StartError`]. A daemon that ends after its start is no such error: it is started again, or
    /// [`failure`](Self::failure) tells that it cannot run.
    pub async fn start(
        node: &Node,
        lines: &Relay,
        observer: impl Fn(&DaemonEvent) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NotRoot);
        }
        if !Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::CurrentThread) {
            return Err(StartError::Runtime);
        }
        let directories = Directories::prepare(&node.data, &node.run, &node.accounts)?;
        let sockets = Sockets::listen(&directories.run, node).await?;
        if let Err(error) = &sockets.wireguard {
            let what = format!("`wg show` does not find its interface: {error}");
            observer(&DaemonEvent::Refused { daemon: "tund", what });
        }
        let (hangup, _) = watch::channel(());
        let (sender, failed) = mpsc::channel(1);
        let observer: Observer = Arc::new(observer);
        let running = daemons(node, &directories, &sockets, &hangup)?
            .into_iter()
            .map(|daemon| Running::start(daemon, lines.clone(), Arc::clone(&observer), sender.clone()))
            .collect();
        Ok(Self { running, failed, hangup, _sockets: sockets, _directories: directories })
    }

    /// Waits until a daemon cannot run, and tells why. The others run on: the caller stops them. Can be cancelled and
    /// called again.
    pub async fn failure(&mut self) -> DaemonError {
        match self.failed.recv().await {
            Some(error) => error,
            // All are stopped.
            None => std::future::pending().await,
        }
    }

    /// Has `meshd` read its configuration again.
    pub fn reload(&self) {
        self.hangup.send_replace(());
    }

    /// Stops the daemons one after the other, the last that was started first, and waits for their ends. Each has the
    /// time that the [`Node`] grants for its last work, and five seconds. Can be cancelled and called again.
    pub async fn stop(&mut self) {
        while let Some(last) = self.running.last_mut() {
            last.goal.send_if_modified(|goal| {
                let shall_stop = *goal == Goal::Run;
                if shall_stop {
                    *goal = Goal::Stop;
                }
                shall_stop
            });
            let _ = (&mut last.task).await;
            self.running.pop();
        }
    }

    /// Ends the daemons at once that still run. Those of a caller who waits for [`stop`](Self::stop) do not take their
    /// time any more.
    pub fn kill(&self) {
        for daemon in &self.running {
            daemon.goal.send_replace(Goal::Kill);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A daemon that is being supervised.
#[derive(Debug)]
struct Running {
    goal: watch::Sender<Goal>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(daemon: Daemon, lines: Relay, observer: Observer, failed: mpsc::Sender<DaemonError>) -> Self {
        let (goal, shall) = watch::channel(Goal::Run);
        let name = daemon.name;
        let supervising = tokio::spawn(daemon.supervise(shall, lines, observer));
        let task = tokio::spawn(async move {
            // A panic ends the daemon's process too, which a node cannot be left without.
            let result = supervising.await.unwrap_or_else(|error| {
                Err(DaemonError::Unsupervised { daemon: name, reason: error.to_string() })
            });
            if let Err(error) = result {
                // Full if another has failed before: one is enough to stop all.
                let _ = failed.try_send(error);
            }
        });
        Self { goal, task }
    }
}
