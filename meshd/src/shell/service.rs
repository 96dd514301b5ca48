//! The control API: hands users' requests to the daemon's loop and their answers back.

use std::os::fd::OwnedFd;

use i2plan_ipc::api::meshd::{MeshdApi, Reply, Request};
use i2plan_ipc::server::{Answer, Service};
use i2plan_ipc::{ApiError, Role};
use tokio::sync::{mpsc, oneshot};

/// A user's request and where its answer goes.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Reply, ApiError>>,
}

/// The listening side of the control API.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) commands: mpsc::Sender<Command>,
}

impl Service for Control {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        let (answer, answered) = oneshot::channel();
        let stopping = || ApiError::unavailable("meshd is stopping");
        self.commands.send(Command { request, answer }).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?.map(Answer::from)
    }
}
