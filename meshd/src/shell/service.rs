//! The control API: hands users' requests to the daemon's loop and their answers back.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::api::meshd::{MeshdApi, Reply, Request, Traffic};
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use tokio::sync::{mpsc, oneshot};

use super::row::Row;

/// What the daemon's loop is asked, and where the answer goes.
#[derive(Debug)]
pub(super) enum Command {
    /// By a user.
    Request(Request, oneshot::Sender<Result<Reply, ApiError>>),
    /// For somebody who follows the node.
    Traffic(oneshot::Sender<Traffic>),
}

/// The listening side of the control API.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) row: Arc<Row>,
}

impl Control {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let stopping = || ApiError::unavailable("meshd is stopping");
        self.commands.send(command(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}

impl Service for Control {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        // Whoever waits for events waits here, and not in the loop.
        if let Request::Events { after, wait, traffic } = request {
            let mut events = self.row.read(after, Duration::from_millis(wait)).await;
            if traffic {
                events.traffic = Some(self.ask(Command::Traffic).await?);
            }
            return Ok(Reply::Events(Box::new(events)).into());
        }
        self.ask(|answer| Command::Request(request, answer)).await?.map(Answer::from)
    }
}
