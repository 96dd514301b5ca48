//! Whose turn it is, and the connections to `meshd`.
//!
//! To `meshd` the gateway is one user, who gets 32 connections and 100 requests a second. What it takes in is below
//! that, and is shared between its own users by the rule that `meshd` has for its own ([`Limits`]).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use i2plan_ipc::api::meshd::{MeshdApi, Reply, Request};
use i2plan_ipc::client::{Client, ClientError};
use i2plan_ipc::places::{Limits, Place, Places};
use i2plan_ipc::rate::Quota;
use i2plan_ipc::{ApiError, Role};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::{Code, Error};
use super::message::{Answers, Call, Document, Id, Item, Json, failure, read, success};
use super::methods::{self, Ask, Reach, Step};

/// Connections of clients, and what they may ask: 50 calls a second and 100 at once of one user.
const CLIENTS: Limits = Limits { shared: 64, reserved: 4, requests: Quota::new(50, 100) };

/// Calls at once that change something or wait. Each has a connection to `meshd`.
const SLOW: Limits = Limits { shared: 16, reserved: 0, requests: Quota::new(50, 100) };

/// Calls at once that read. They share as many connections.
const READERS: usize = 8;

/// How long a call waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes of the answers to a batch, before the last of them.
const MAX_ANSWERS: usize = 16 * 1024 * 1024;

/// All that clients share.
#[derive(Debug)]
pub struct Gateway {
    meshd: PathBuf,
    clients: Arc<Places>,
    slow: Arc<Places>,
    readers: Semaphore,
    idle: Mutex<Vec<Client<MeshdApi>>>,
}

impl Gateway {
    /// To the `meshd` that listens at this path. `named` are users with places of their own, besides root.
    #[must_use]
    pub fn new(meshd: PathBuf, named: &[u32]) -> Arc<Self> {
        Arc::new(Self {
            meshd,
            clients: Places::new(CLIENTS, named.iter().copied()),
            slow: Places::new(SLOW, std::iter::empty()),
            readers: Semaphore::new(READERS),
            idle: Mutex::default(),
        })
    }

    /// A place for a connection of this user.
    ///
    /// # Errors
    /// If it has too many.
    pub fn enter(self: &Arc<Self>, uid: u32) -> Result<Caller, Error> {
        let place = self.clients.enter(uid).ok_or_else(|| {
            Error::new(Code::Unavailable, "too many connections are open, of this user or in all")
                .with_hint("close some, or try again later")
        })?;
        Ok(Caller { gateway: Arc::clone(self), uid, place })
    }

    async fn ask(&self, uid: u32, request: Request, reach: Reach) -> Result<Reply, ClientError> {
        match reach {
            Reach::Read => {
                let _permit = self.readers.acquire().await;
                if let Some(mut client) = self.take_idle() {
                    match client.call(request.clone()).await {
                        // meshd has been started again since it was last used: reading again does no harm.
                        Err(ClientError::Broken { .. }) => {}
                        result => {
                            self.put_back(client);
                            return result;
                        }
                    }
                }
                let mut client = self.connect().await?;
                let result = client.call(request).await;
                self.put_back(client);
                result
            }
            Reach::Slow => {
                let _place = self.slow.enter(uid).ok_or_else(|| {
                    let busy = "too many calls that change something or wait, of this user or in all";
                    ApiError::unavailable(busy).with_hint("wait for the answers to those before")
                })?;
                self.connect().await?.call(request).await
            }
        }
    }

    async fn connect(&self) -> Result<Client<MeshdApi>, ClientError> {
        Client::connect(&self.meshd, Role::Client).await
    }

    fn take_idle(&self) -> Option<Client<MeshdApi>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, client: Client<MeshdApi>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !client.is_broken() && idle.len() < READERS {
            idle.push(client);
        }
    }
}

/// One connection of a client.
#[derive(Debug)]
pub struct Caller {
    gateway: Arc<Gateway>,
    uid: u32,
    place: Place,
}

impl Caller {
    /// Answers a document; none if all in it are notifications.
    pub async fn answer(&self, document: &[u8]) -> Option<Json> {
        match read(document) {
            Err(error) => {
                let error = self.turn().await.err().unwrap_or(error);
                Some(failure(Id::NULL, &error))
            }
            Ok(Document::Single(item)) => self.answer_item(item).await,
            Ok(Document::Batch(items)) => {
                let mut answers = Answers::default();
                for item in items {
                    let answer = if answers.len() > MAX_ANSWERS {
                        give_up(&item)
                    } else {
                        self.answer_item(item).await
                    };
                    answer.into_iter().for_each(|answer| answers.push(answer));
                }
                answers.finish()
            }
        }
    }

    async fn answer_item(&self, item: Item<'_>) -> Option<Json> {
        let turn = self.turn().await;
        match item {
            Item::Refused(id, error) => Some(failure(id, &turn.err().unwrap_or(error))),
            Item::Call(call) => {
                let result = match turn {
                    Ok(()) => self.call(&call).await,
                    Err(error) => Err(error),
                };
                let id = call.id?;
                Some(result.map_or_else(|error| failure(id, &error), |result| success(id, &result)))
            }
        }
    }

    async fn turn(&self) -> Result<(), Error> {
        timeout(PATIENCE, self.place.turn()).await.map_err(|_| {
            Error::new(Code::RateLimited, "this user asks more than 50 calls a second")
                .with_hint("wait a moment, or ask on fewer connections")
        })
    }

    async fn call(&self, call: &Call<'_>) -> Result<Json, Error> {
        let ask = match methods::begin(&call.method, call.params)? {
            Step::Done(result) => return Ok(result),
            Step::Ask(ask) => ask,
        };
        let Ask { request, reach, .. } = &ask;
        let reply = self.gateway.ask(self.uid, request.clone(), *reach).await;
        ask.finish(reply.map_err(explain)?)
    }
}

/// The answer to a request of a batch that has enough answers already. It is not done.
fn give_up(item: &Item<'_>) -> Option<Json> {
    let error = Error::new(Code::Unavailable, "the answers to the requests before are too long")
        .with_hint("send it again, in a document of its own");
    match item {
        Item::Refused(id, error) => Some(failure(*id, error)),
        Item::Call(call) => call.id.map(|id| failure(id, &error)),
    }
}

fn explain(error: ClientError) -> Error {
    let hint = match &error {
        ClientError::Connect { .. } | ClientError::Broken { .. } => {
            "is the node up? see its log, then try again"
        }
        ClientError::Timeout { .. } => "the node is stuck, or just starting: try again, and see its log",
        ClientError::Version { .. } => "restart all of the node's daemons after an upgrade",
        ClientError::Api(error) => return error.clone().into(),
    };
    Error::from(error.into_api()).with_hint(hint)
}
