//! Whose turn it is, and the connections to `meshd`.
//!
//! To `meshd` the gateway is one user, who gets 32 connections and 100 requests a second. What it takes in is below
//! that, and is shared between its own users by the rule that `meshd` has for its own ([`ConnectionLimits`]).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use i2plan_ipc::administrator::Prepared;
use i2plan_ipc::api::RequestKind;
use i2plan_ipc::api::meshd::{MeshdApi, Reply, Request, ToOrder};
use i2plan_ipc::client::{Client, ClientError, Endpoint};
use i2plan_ipc::connection_quota::{ConnectionLimits, ConnectionPermit, ConnectionQuota};
use i2plan_ipc::node::needs_order;
use i2plan_ipc::rate::Quota;
use i2plan_ipc::{ApiError, ByteSocket, ErrorKind, Node, Role};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::discover;
use super::error::{Code, Error};
use super::members;
use super::message::{Answers, Call, Document, Id, Item, Json, failure, read, success};
use super::methods::{self, Dispatch};
use super::metrics::http::Durations;

/// Connections of clients, and what they may ask: 50 calls a second and 100 at once of one user.
const CLIENTS: ConnectionLimits = ConnectionLimits { shared: 64, reserved: 4, requests: Quota::new(50, 100) };

/// Calls at once that change something or wait. Each has a connection to `meshd`.
const SLOW: ConnectionLimits = ConnectionLimits { shared: 16, reserved: 0, requests: Quota::new(50, 100) };

/// Calls at once that read. They share as many connections.
const READERS: usize = 8;

/// How long a call waits for its turn.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Most bytes of the answers to a batch, before the last of them.
const MAX_ANSWERS: usize = 16 * 1024 * 1024;

/// All that clients share.
#[derive(Debug)]
pub struct Gateway {
    meshd: Endpoint,
    clients: Arc<ConnectionQuota>,
    slow: Arc<ConnectionQuota>,
    readers: Semaphore,
    idle: Mutex<Vec<Client<MeshdApi>>>,
    /// Where orders go, if this program may give them.
    orders: Option<Endpoint>,
    durations: Durations,
}

impl Gateway {
    /// To the `meshd` that listens at this path. `named` are users with reserved connections, besides root. If it gives
    /// orders, that is `keyd`'s socket for them.
    #[must_use]
    pub fn new(meshd: &Path, named: &[u32], orders: Option<&Path>) -> Arc<Self> {
        Arc::new(Self {
            meshd: Endpoint::resolved(meshd, Role::Meshd),
            clients: ConnectionQuota::new(CLIENTS, named.iter().copied()),
            slow: ConnectionQuota::new(SLOW, std::iter::empty()),
            readers: Semaphore::new(READERS),
            idle: Mutex::default(),
            orders: orders.map(|keyd| Endpoint::resolved(keyd, Role::Keyd)),
            durations: Durations::default(),
        })
    }

    /// How long the calls took so far.
    #[must_use]
    pub fn durations(&self) -> Durations {
        Arc::clone(&self.durations)
    }

    /// Admits a connection of this user.
    ///
    /// # Errors
    /// If it has too many.
    pub fn enter(self: &Arc<Self>, uid: u32) -> Result<Caller, Error> {
        let permit = self.clients.enter(uid).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "too many connections are open, of this user or in all")
                .with_hint("close some, or try again later")
        })?;
        Ok(Caller { gateway: Arc::clone(self), uid, permit, socket: None, views: false })
    }

    async fn ask(&self, uid: u32, mut request: Request) -> Result<Reply, Error> {
        match request.terms().kind {
            RequestKind::Query => {
                let _permit = self.readers.acquire().await;
                if let Some(mut client) = self.take_idle() {
                    match client.call(request.clone()).await {
                        // meshd has been started again since it was last used: reading again does no harm.
                        Err(ClientError::Broken { .. }) => {}
                        result => {
                            self.put_back(client);
                            return Ok(result?);
                        }
                    }
                }
                let mut client = self.connect().await?;
                let result = client.call(request).await;
                self.put_back(client);
                Ok(result?)
            }
            RequestKind::Command | RequestKind::Poll => {
                let _place = self.slow.enter(uid).ok_or_else(|| {
                    let busy = "too many calls that change something or wait, of this user or in all";
                    ApiError::unavailable(busy).with_hint("wait for the answers to those before")
                })?;
                let mut node = Node::connect_to(self.meshd.clone()).await?;
                let named = members::resolve(&mut node, &mut request).await?;
                match node.call(request.clone()).await? {
                    Reply::ToOrder(proposed) => self.order(node, &request, *proposed, named.as_deref()).await,
                    reply => Ok(reply),
                }
            }
        }
    }

    /// Gives an order, if root's configuration lets this program do so. `named` is what the caller has written in place
    /// of a node id.
    async fn order(
        &self,
        mut meshd: Node,
        asked: &Request,
        proposed: ToOrder,
        named: Option<&str>,
    ) -> Result<Reply, Error> {
        let Some(keyd) = &self.orders else {
            return Err(needs_order(&proposed.order).into());
        };
        let prepared = Prepared::new(keyd.clone(), asked, &proposed).await?;
        if let Some(named) = named {
            members::verify(prepared.target(), named)?;
        }
        let mut reply = meshd.enact::<Request>(prepared.confirm(Some).await?).await?;
        if let Reply::Invite(invite) = &mut reply {
            invite.founded |= proposed.founded;
        }
        Ok(reply)
    }

    async fn connect(&self) -> Result<Client<MeshdApi>, ClientError> {
        Client::connect(self.meshd.clone(), Role::Client).await
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
    permit: ConnectionPermit,
    socket: Option<Arc<ByteSocket>>,
    /// Whether it may only look.
    views: bool,
}

impl Caller {
    /// That it is at this connection: when it hangs up, what only waits for it is called off.
    #[must_use]
    pub fn at(self, socket: Arc<ByteSocket>) -> Self {
        Self { socket: Some(socket), ..self }
    }

    /// That it may call nothing that changes the node or has it send something.
    #[must_use]
    pub fn to_view(self) -> Self {
        Self { views: true, ..self }
    }

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
                let started = Instant::now();
                let result = match turn {
                    Ok(()) => self.call(&call).await,
                    Err(error) => Err(error),
                };
                self.gateway
                    .durations
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .observe(started.elapsed());
                let id = call.id?;
                Some(result.map_or_else(|error| failure(id, &error), |result| success(id, &result)))
            }
        }
    }

    async fn turn(&self) -> Result<(), Error> {
        timeout(TIMEOUT, self.permit.turn()).await.map_err(|_| {
            Error::new(Code::RateLimited, "this user asks more than 50 calls a second")
                .with_hint("wait a moment, or ask on fewer connections")
        })
    }

    async fn call(&self, call: &Call<'_>) -> Result<Json, Error> {
        let ask = match methods::begin(&call.method, call.params)? {
            Dispatch::Describe => return methods::json(&discover::document()),
            Dispatch::Ask(ask) => ask,
        };
        if self.views && !is_view(&ask.request) {
            return Err(Error::new(ErrorKind::Denied, "this caller may not change anything"));
        }
        let asking = self.gateway.ask(self.uid, ask.request.clone());
        let reply = match (&self.socket, ask.request.terms().kind) {
            (Some(socket), RequestKind::Poll) => tokio::select! {
                reply = asking => reply,
                // Nobody reads that.
                () = socket.hung_up() => Err(ApiError::unavailable("the caller has hung up").into()),
            },
            _ => asking.await,
        };
        ask.finish(reply?)
    }
}

/// Whether a request tells only what the node knows.
fn is_view(request: &Request) -> bool {
    match request.terms().kind {
        RequestKind::Query => !matches!(request, Request::Ping { .. }),
        RequestKind::Poll => true,
        RequestKind::Command => false,
    }
}

/// The answer to a request of a batch that has enough answers already. It is not done.
fn give_up(item: &Item<'_>) -> Option<Json> {
    let error = Error::new(ErrorKind::Unavailable, "the answers to the requests before are too long")
        .with_hint("send it again, in a document of its own");
    match item {
        Item::Refused(id, error) => Some(failure(*id, error)),
        Item::Call(call) => call.id.map(|id| failure(id, &error)),
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::Connect { .. } | ClientError::Broken { .. } => {
                "is the node up? see its log, then try again"
            }
            ClientError::Stranger { .. } => "start rpcd with the socket of the node's meshd (--meshd-socket)",
            ClientError::Timeout { .. } => "the node is stuck, or just starting: try again, and see its log",
            ClientError::Version { .. } => "restart all of the node's daemons after an upgrade",
            ClientError::Unexpected { .. } | ClientError::Api(_) => return error.into_api().into(),
        };
        Self::from(error.into_api()).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicU64, Ordering};

    use i2plan_ipc::access::{Access, Who};
    use i2plan_ipc::api::meshd::{Cursor, Events, Grant, Peer, Status};
    use i2plan_ipc::fixtures::{self, ban};
    use i2plan_ipc::server::{Answer, Service, serve};
    use serde_json::{Value, json};
    use tokio::net::UnixListener;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::methods::METHODS;

    /// Knows no peers, and has nothing to tell.
    #[derive(Default)]
    struct Nothing {
        left: AtomicU64,
    }

    impl Service for Nothing {
        type Api = MeshdApi;

        async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
            match request {
                Request::Peers => Ok(Reply::Peers(Vec::new()).into()),
                Request::Leave => {
                    let before = self.left.fetch_add(1, Ordering::Relaxed);
                    Ok(Reply::Left(before.to_string()).into())
                }
                Request::Events { wait, .. } => {
                    sleep(Duration::from_millis(wait)).await;
                    let next = Cursor { run: 1, number: 0 };
                    let events = Events { events: Vec::new(), next, lost: false, traffic: None };
                    Ok(Reply::Events(Box::new(events)).into())
                }
                _ => Err(ApiError::conflict("not now").with_hint("later")),
            }
        }
    }

    fn begin(path: &Path) -> (Arc<Nothing>, tokio::task::JoinHandle<()>) {
        let service = Arc::new(Nothing::default());
        let access = Access::new([(Role::Client, Who::Anyone)]);
        let listener = UnixListener::bind(path).unwrap();
        (Arc::clone(&service), tokio::spawn(serve(listener, service, access, Default::default())))
    }

    async fn answer(caller: &Caller, document: &Value) -> Value {
        let answer = caller.answer(document.to_string().as_bytes()).await.expect("an answer");
        serde_json::from_slice(&answer).unwrap()
    }

    fn request(method: &str, params: Value) -> Value {
        json!({ "jsonrpc": "2.0", "method": method, "params": params, "id": 1 })
    }

    #[tokio::test]
    async fn calls_are_done_in_their_order_and_notifications_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let (_, _serving) = begin(&path);
        let caller = Gateway::new(&path, &[], None).enter(1000).unwrap();
        let leave = request("network.leave", json!({}));
        let mut notified = leave.clone();
        notified.as_object_mut().unwrap().remove("id");
        assert!(caller.answer(notified.to_string().as_bytes()).await.is_none());
        let answers =
            answer(&caller, &json!([leave, notified, 7, leave, request("status", json!({}))])).await;
        let results: Vec<_> =
            answers.as_array().unwrap().iter().map(|answer| answer["result"]["left"].clone()).collect();
        assert_eq!(results, [json!("1"), Value::Null, json!("3"), Value::Null]);
        let error = json!({ "code": -32_003, "message": "not now", "data": { "kind": "conflict", "hint": "later", "remedy": null } });
        assert_eq!(answers[3]["error"], error);
    }

    /// A node id, base32 of 32 bytes.
    fn id(number: u8) -> String {
        char::from(b'a' + number).to_string().repeat(51) + "a"
    }

    fn member(number: u8, name: &str) -> Peer {
        Peer { ipv4: [10, 42, 0, number].into(), ..fixtures::peer(&id(number), name) }
    }

    /// A node called alpha, with members, and a ban of one that has left.
    #[derive(Default)]
    struct Mesh {
        lists: AtomicU64,
    }

    impl Service for Mesh {
        type Api = MeshdApi;

        async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
            Ok(match request {
                Request::Status => {
                    Reply::Status(Box::new(Status { node_id: Some(id(1)), ..fixtures::status() }))
                }
                Request::Peers => {
                    self.lists.fetch_add(1, Ordering::Relaxed);
                    Reply::Peers(vec![member(2, "web"), member(3, "db"), member(4, "DB")])
                }
                Request::ListBans => Reply::Bans(vec![ban(&id(9), "mallory")]),
                Request::AddBan { node_id, .. } => Reply::BanAdded(ban(&node_id, "")),
                Request::RemoveBan { node_id } if node_id == id(9) => Reply::BanRemoved(ban(&node_id, "")),
                Request::Grant { node_id, .. } => {
                    Reply::Granted(Grant { node_id, ranges: Vec::new(), addresses: 16 })
                }
                Request::Revoke { node_id } => Reply::Revoked(vec![node_id]),
                _ => return Err(ApiError::new(ErrorKind::NotFound, "it is not banned")),
            }
            .into())
        }
    }

    #[tokio::test]
    async fn members_are_named_as_on_the_command_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let mesh = Arc::new(Mesh::default());
        let access = Access::new([(Role::Client, Who::Anyone)]);
        let listener = UnixListener::bind(&path).unwrap();
        let _serving = tokio::spawn(serve(listener, Arc::clone(&mesh), access, Default::default()));
        let caller = Gateway::new(&path, &[], None).enter(1000).unwrap();
        for named in ["web", "Web", &id(2)[..8], "10.42.0.2"] {
            let added = answer(&caller, &request("bans.add", json!({ "node_id": named }))).await;
            assert_eq!(added["result"]["ban"]["node_id"], id(2), "{named}: {added}");
        }
        let granted = answer(&caller, &request("members.grant", json!(["web", 16]))).await;
        assert_eq!(granted["result"]["grant"]["node_id"], id(2), "{granted}");
        let revoked = answer(&caller, &request("members.revoke", json!(["web"]))).await;
        assert_eq!(revoked["result"]["revoked"], json!([id(2)]), "{revoked}");
        // One that is no member any more can be named too where it is banned.
        let removed = answer(&caller, &request("bans.remove", json!(["mallory"]))).await;
        assert_eq!(removed["result"]["ban"]["node_id"], id(9), "{removed}");
        for (method, params, code) in [
            ("bans.add", json!(["db"]), -32_602),
            ("bans.add", json!(["nobody"]), -32_002),
            ("bans.add", json!([""]), -32_002),
            ("bans.add", json!(["mallory"]), -32_002),
            ("bans.add", json!(["alpha"]), -32_602),
            ("bans.remove", json!(["web"]), -32_002),
        ] {
            let refused = answer(&caller, &request(method, params.clone())).await;
            assert_eq!(refused["error"]["code"], code, "{method} {params}: {refused}");
        }
        let several = answer(&caller, &request("bans.add", json!(["db"]))).await;
        let message = several["error"]["message"].as_str().unwrap();
        for candidate in [format!("db ({}, 10.42.0.3)", id(3)), format!("DB ({}, 10.42.0.4)", id(4))] {
            assert!(message.contains(&candidate), "{message}");
        }
        // A node id needs no look at the members, and need not be one of theirs.
        let before = mesh.lists.load(Ordering::Relaxed);
        let added = answer(&caller, &request("bans.add", json!([id(7).to_uppercase()]))).await;
        assert_eq!(added["result"]["ban"]["node_id"], id(7).to_uppercase(), "{added}");
        assert_eq!(mesh.lists.load(Ordering::Relaxed), before);
    }

    #[tokio::test]
    async fn who_may_only_look_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let (meshd, _serving) = begin(&path);
        let gateway = Gateway::new(&path, &[], None);
        let caller = gateway.enter(1000).unwrap().to_view();
        for method in METHODS {
            let params = match method.name {
                "config.get" | "events.poll" | "invite.create" => json!({}),
                _ if (method.params)().is_empty() => json!({}),
                "peers.connect" | "invite.accept" => json!(["i2plan://x"]),
                "invite.show" | "invite.revoke" => json!(["id"]),
                "members.grant" => json!(["web", 16]),
                "config.set" => json!(["node.name", "x"]),
                _ => json!(["web"]),
            };
            let answer = answer(&caller, &request(method.name, params)).await;
            let views = [
                "status",
                "version",
                "peers.list",
                "routes.list",
                "invite.list",
                "invite.show",
                "bans.list",
                "key.status",
                "config.list",
                "config.get",
                "events.poll",
                "rpc.discover",
            ];
            let is_denied = answer["error"]["code"] == -32_001;
            assert_eq!(is_denied, !views.contains(&method.name), "{}: {answer}", method.name);
        }
        assert_eq!(meshd.left.load(Ordering::Relaxed), 0);
    }

    /// One that ends with all its connections.
    fn begin_apart(path: &Path) -> tokio::runtime::Runtime {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let _ = begin(path);
        drop(_inside);
        runtime
    }

    #[tokio::test]
    async fn a_meshd_that_was_restarted_is_asked_again_and_one_that_is_away_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let gateway = Gateway::new(&path, &[], None);
        let caller = gateway.enter(1000).unwrap();
        let peers = request("peers.list", json!([]));
        for _ in 0..2 {
            let meshd = begin_apart(&path);
            assert_eq!(answer(&caller, &peers).await["result"], json!({ "peers": [], "total": 0 }));
            assert_eq!(gateway.idle.lock().unwrap().len(), 1, "the connection is kept");
            // Its connections are closed when this is over, and not before.
            let end = move || meshd.shutdown_timeout(Duration::from_secs(60));
            tokio::task::spawn_blocking(end).await.unwrap();
            std::fs::remove_file(&path).unwrap();
        }
        let error = answer(&caller, &peers).await["error"].clone();
        assert_eq!(
            (&error["code"], &error["data"]["kind"]),
            (&json!(-32_004), &json!("unavailable")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn who_waits_for_events_leaves_others_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let (_, _serving) = begin(&path);
        let gateway = Gateway::new(&path, &[], None);
        let poll = |wait: u64| request("events.poll", json!({ "wait": wait }));
        let mut waiting = Vec::new();
        for _ in 0..12 {
            let caller = gateway.enter(1000).unwrap();
            let poll = poll(3000);
            waiting.push(tokio::spawn(async move { answer(&caller, &poll).await }));
        }
        let started = Instant::now();
        sleep(Duration::from_millis(500)).await;
        let other = gateway.enter(1001).unwrap();
        assert!(answer(&other, &poll(0)).await["result"].is_object());
        assert!(answer(&other, &request("peers.list", json!([]))).await["result"].is_object());
        assert!(started.elapsed() < Duration::from_secs(3), "it did not wait for the others");
        let mut refused = 0;
        for task in waiting {
            let answer = task.await.unwrap();
            refused += u32::from(answer["error"]["code"] == -32_004);
        }
        assert_eq!(refused, 4, "half of the connections are one user's");
    }

    #[tokio::test]
    async fn who_hangs_up_gives_its_place_back_and_who_says_no_more_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.sock");
        let (_, _serving) = begin(&path);
        let gateway = Gateway::new(&path, &[], None);
        let mut tasks = Vec::new();
        for whole in [false, true] {
            let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
            let caller = gateway.enter(1000).unwrap().at(Arc::new(ByteSocket::new(near)));
            let poll = request("events.poll", json!({ "wait": 3000 }));
            tasks.push(tokio::spawn(async move { answer(&caller, &poll).await }));
            if whole {
                drop(far);
            } else {
                tokio::io::AsyncWriteExt::shutdown(&mut far).await.unwrap();
                tasks.push(tokio::spawn(async move {
                    sleep(Duration::from_secs(10)).await;
                    drop(far);
                    Value::Null
                }));
            }
        }
        let started = Instant::now();
        let gone = tasks.pop().unwrap().await.unwrap();
        assert!(gone["error"]["message"] == "the caller has hung up", "{gone}");
        assert!(started.elapsed() < Duration::from_millis(2900), "it did not wait for what happens");
        let told = tasks.swap_remove(0).await.unwrap();
        assert!(told["result"].is_object(), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_far_too_much_is_told_so() {
        let gateway = Gateway::new("/nonexistent".as_ref(), &[], None);
        let callers: Vec<_> = (0..30).map(|_| gateway.enter(1000).unwrap()).collect();
        let unknown = request("nothing", json!([]));
        let asking = callers.into_iter().map(|caller| {
            let batch = Value::from(vec![unknown.clone(); 50]);
            tokio::spawn(async move { answer(&caller, &batch).await })
        });
        let mut codes = std::collections::BTreeMap::new();
        for task in asking.collect::<Vec<_>>() {
            for answer in task.await.unwrap().as_array().unwrap() {
                *codes.entry(answer["error"]["code"].as_i64().unwrap()).or_insert(0) += 1;
            }
        }
        // Fifty a second: with thirty in line the last would wait 600 ms.
        assert!(codes[&-32_601] >= 100 && codes[&-32_006] > 0, "{codes:?}");
        assert_eq!(codes.values().sum::<i32>(), 1500);
    }

    #[tokio::test]
    async fn connections_are_shared() {
        let gateway = Gateway::new("/nonexistent".as_ref(), &[7], None);
        let held: Vec<_> = std::iter::from_fn(|| gateway.enter(1000).ok()).collect();
        assert_eq!(held.len(), 32);
        let error = gateway.enter(1000).unwrap_err();
        assert_eq!(error.code, Code::Api(ErrorKind::Unavailable));
        assert!(gateway.enter(1001).is_ok() && gateway.enter(0).is_ok() && gateway.enter(7).is_ok());
    }
}
