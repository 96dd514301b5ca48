//! What happens at a node: to its daemons, and in its network.

use std::path::Path;

use i2plan_ipc::api::meshd::Event;
use i2plan_ipc::node::{EventStream, Notice};
use i2plan_supervisor::DaemonEvent;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::node::State;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Happening {
    /// In the network, or to this node in it: members that come, change and go, tunnels, invites, bans, sessions,
    /// warnings.
    Mesh(Event),
    /// To a daemon: it was started, has ended, or was stopped.
    Daemon(DaemonEvent),
    /// The state of the node has changed.
    State(State),
    /// Events may have been missed, so many if that is known: the reader was too slow, or `meshd` was started again. What is
    /// known of the node is to be asked for again.
    Missed(Option<u64>),
}

/// What happens at a node. Whoever reads more slowly than things happen is told how much was missed.
#[derive(Debug)]
pub struct Happenings {
    mesh: EventStream,
    daemons: Option<broadcast::Receiver<DaemonEvent>>,
    state: watch::Receiver<State>,
    /// The number of the next event in the network, once one was seen.
    next: Option<u64>,
    begun: bool,
    missed: u64,
}

impl Happenings {
    pub(crate) fn new(
        socket: &Path,
        daemons: broadcast::Receiver<DaemonEvent>,
        state: watch::Receiver<State>,
    ) -> Self {
        Self {
            mesh: EventStream::new(socket),
            daemons: Some(daemons),
            state,
            next: None,
            begun: false,
            missed: 0,
        }
    }

    /// Events that were missed, as far as their number is known.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The next. Can be cancelled. When the node has stopped, nothing more comes.
    pub async fn next(&mut self) -> Happening {
        loop {
            tokio::select! {
                biased;
                event = of_daemons(&mut self.daemons) => match event {
                    Ok(event) => return Happening::Daemon(event),
                    Err(RecvError::Lagged(count)) => {
                        self.missed += count;
                        return Happening::Missed(Some(count));
                    }
                    Err(RecvError::Closed) => self.daemons = None,
                },
                Ok(()) = self.state.changed() => {
                    return Happening::State(self.state.borrow_and_update().clone());
                }
                notice = self.mesh.next() => {
                    if let Some(happening) = self.of_mesh(notice) {
                        return happening;
                    }
                }
            }
        }
    }

    fn of_mesh(&mut self, notice: Notice) -> Option<Happening> {
        match notice {
            Notice::Event(event) => {
                // A smaller number is of another run of meshd.
                self.missed += self.next.map_or(0, |next| event.number.saturating_sub(next));
                self.next = Some(event.number + 1);
                Some(Happening::Mesh(event))
            }
            Notice::Resync if !std::mem::replace(&mut self.begun, true) => None,
            Notice::Resync => Some(Happening::Missed(None)),
            // That a daemon is away is told of the daemon.
            Notice::Lost(_) | Notice::Traffic(_) => None,
        }
    }
}

/// The next event of the daemons; never, if there is none any more.
async fn of_daemons(
    daemons: &mut Option<broadcast::Receiver<DaemonEvent>>,
) -> Result<DaemonEvent, RecvError> {
    match daemons {
        Some(daemons) => daemons.recv().await,
        None => std::future::pending().await,
    }
}
