//! The control API: hands users' requests to the daemon's loop and their answers back.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::{self, Command, MeshdApi, Poll, Query, Reply, Request, Sorted, Traffic};
use i2plan_ipc::hello::Hello;
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
    commands: mpsc::Sender<LoopRequest>,
    event_log: Arc<EventLog>,
    /// The connections of `named`, and what it is: only who calls it would know otherwise.
    named: Mutex<Vec<(u64, meshd::Daemon)>>,
}

/// Who may ask what: the mode and group of the socket file say who may control this node. `named`'s user, who is in the
/// group, may only look.
pub(super) fn access(named: Option<u32>) -> Access {
    let named: Vec<_> = named.into_iter().collect();
    let looks = named.iter().map(|user| (Role::Named, Who::User(*user)));
    Access::new(looks.chain([(Role::Client, Who::AnyoneBut(named.clone()))]).collect::<Vec<_>>())
}

impl Control {
    pub(super) fn new(commands: mpsc::Sender<LoopRequest>, event_log: Arc<EventLog>) -> Self {
        Self { commands, event_log, named: Mutex::default() }
    }

    /// Adds `named` to the daemons of the node's state, if it is connected.
    fn with_named(&self, mut reply: Reply) -> Reply {
        if let Reply::Status(status) = &mut reply {
            status.daemons.extend(lock(&self.named).last().map(|(_, daemon)| daemon.clone()));
        }
        reply
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> LoopRequest) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let stopping = || ApiError::unavailable("meshd is stopping");
        self.commands.send(request(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }
}

/// No panic leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service for Control {
    type Api = MeshdApi;

    fn on_opened(&self, connection: u64, client: &Hello, pid: Option<u32>) {
        if client.role == Role::Named {
            let daemon = meshd::Daemon {
                name: client.role.to_string(),
                pid,
                version: Some(client.version.clone()),
                landlock: None,
                error: None,
                hint: None,
            };
            lock(&self.named).push((connection, daemon));
        }
    }

    fn on_closed(&self, connection: u64) {
        lock(&self.named).retain(|(other, _)| *other != connection);
    }

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
        Ok(self.with_named(reply).into())
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::ErrorKind;
    use i2plan_ipc::access::Credentials;
    use i2plan_ipc::api::Api as _;
    use i2plan_ipc::api::meshd::{
        GetConfig, GetStatus, ListInvites, ListPeers, PollEvents, Reload, RotateKey,
    };

    use i2plan_ipc::hello::PROTOCOL;
    use i2plan_ipc::version::Version;

    use super::*;

    #[test]
    fn named_may_look_at_members_and_no_more() {
        let access = access(Some(7));
        let user = |uid| Credentials { uid, gid: 0, pid: None };
        assert!(access.check(Role::Named, user(7)).is_ok());
        assert_eq!(access.check(Role::Client, user(7)).unwrap_err().kind, ErrorKind::Denied);
        assert!(access.check(Role::Client, user(8)).is_ok());
        assert!(access.check(Role::Named, user(8)).is_err());

        let asks = |request: Request| MeshdApi::allows(Role::Named, &request);
        let poll = PollEvents { after: None, wait: 0, traffic: false };
        assert!(asks(GetStatus.into()) && asks(ListPeers.into()) && asks(poll.into()));
        for refused in [GetConfig.into(), ListInvites.into(), RotateKey.into(), Reload.into()] {
            assert!(MeshdApi::allows(Role::Client, &refused) && !asks(refused));
        }
    }

    #[test]
    fn named_is_among_the_daemons_while_it_is_connected() {
        let (commands, _requests) = mpsc::channel(1);
        let control = Control::new(commands, Arc::new(EventLog::new(1)));
        let hello = |role| Hello { protocol: PROTOCOL, role, version: Version::current() };
        let listed = || lock(&control.named).iter().map(|(_, daemon)| daemon.pid).collect::<Vec<_>>();
        control.on_opened(1, &hello(Role::Client), Some(6));
        assert!(listed().is_empty(), "others say nothing of themselves");
        control.on_opened(2, &hello(Role::Named), Some(7));
        control.on_closed(1);
        assert_eq!(listed(), [Some(7)]);
        control.on_closed(2);
        assert!(listed().is_empty());
    }
}
