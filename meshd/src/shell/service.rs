//! The control API: hands users' requests to the daemon's loop and their answers back.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::api::meshd::{Command, MeshdApi, Poll, Query, Reply, Request, Sorted, Traffic};
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use tokio::sync::{mpsc, oneshot};

use super::event_log::EventLog;

/// Where the reply to a user goes.
pub(super) type ReplySender = oneshot::Sender<Result<Reply, ApiError>>;

/// What the daemon's loop is asked, and where the answer goes.
#[derive(Debug)]
pub(super) enum LoopRequest {
    /// By a user.
    Query(Query, ReplySender),
    /// By a user.
    Command(Command, ReplySender),
    /// For somebody who follows the node.
    Traffic(oneshot::Sender<Traffic>),
}

/// The listening side of the control API.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) commands: mpsc::Sender<LoopRequest>,
    pub(super) event_log: Arc<EventLog>,
}

impl Control {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> LoopRequest) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let stopping = || ApiError::unavailable("meshd is stopping");
        self.commands.send(request(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}

impl Service for Control {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        let reply = match request.into() {
            Sorted::Query(query) => self.ask(|answer| LoopRequest::Query(query, answer)).await??,
            Sorted::Command(command) => self.ask(|answer| LoopRequest::Command(command, answer)).await??,
            // Whoever waits for events waits here, and not in the loop.
            Sorted::Poll(Poll::Events { after, wait, traffic }) => {
                let mut events = self.event_log.read(after, Duration::from_millis(wait)).await;
                if traffic {
                    events.traffic = Some(self.ask(LoopRequest::Traffic).await?);
                }
                Reply::Events(Box::new(events))
            }
        };
        Ok(reply.into())
    }
}
