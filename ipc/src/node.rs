//! A running node, for programs that use one: what `i2planctl` does, and what embeds i2plan.
//!
//! [`Node`] asks and changes; [`EventStream`] streams events, and says when something was missed. Both speak to the
//! node's `meshd` over its socket, so the program needs no privilege but that of opening the socket: root has it, and
//! members of the group `i2plan` if there is one.
//!
//! ```no_run
//! # async fn example() -> Result<(), i2plan_ipc::client::ClientError> {
//! use i2plan_ipc::node::{Node, Notice};
//!
//! let mut node = Node::connect("/run/i2plan/meshd.sock".as_ref()).await?;
//! println!("{} has been up for {} s", node.status().await?.name, node.status().await?.uptime);
//! let mut events = node.events();
//! loop {
//!     match events.next().await {
//!         // At the beginning, and after something was missed: ask for all that you show.
//!         Notice::Resync => println!("{} peers", node.peers().await?.len()),
//!         Notice::Event(event) => println!("{event:?}"),
//!         Notice::Traffic(_) => {}
//!         Notice::Lost(why) => println!("the node does not answer: {why}"),
//!     }
//! }
//! # }
//! ```
//!
//! # Start and stop
//!
//! A node is several processes, each with its own user. A program starts them as root: on Linux with the crate
//! `i2plan-supervisor`, or with `i2planctl up`, which runs the daemons until it is asked to stop by SIGTERM:
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use i2plan_ipc::Node;
//! use std::process::Command;
//! use std::time::Duration;
//!
//! let mut node = Command::new("i2planctl").args(["up", "--runtime-dir", "/run/game"]).spawn()?;
//! let mut api = loop {
//!     match Node::connect("/run/game/meshd.sock".as_ref()).await {
//!         Ok(api) => break api,
//!         Err(_) if node.try_wait()?.is_none() => tokio::time::sleep(Duration::from_millis(100)).await,
//!         Err(error) => return Err(std::io::Error::other(error)),
//!     }
//! };
//! let invite = api.create_invite(Duration::from_secs(3600), Some(1), None, None, None).await;
//! // …
//! let pid = rustix::process::Pid::from_child(&node);
//! rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
//! node.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/watch.rs` is a program that shows a node and follows it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::sleep;

use crate::api::Call;
use crate::api::meshd::{
    AddBan, Answered, Ban, CheckNetwork, ConfigChange, Counters, CreateInvite, Cursor, Enact, Event, Events,
    GetConfig, GetCounters, GetKeys, GetStatus, Grant, GrantAddresses, Invite, IssuedInvite, Join, Keys,
    ListBans, ListInvites, ListPeers, ListRoutes, MAX_EVENT_WAIT, MeshdApi, Network, Peer, PingMember,
    PollEvents, Reload, RemoveBan, RevokeInvite, RotateKey, Route, SetConfig, Setting, Status, Traffic,
    WireGuardKey,
};
use crate::api::order::{Executed, Order};
use crate::client::{Client, ClientError, Endpoint};
use crate::error::ApiError;
use crate::hello::{HelloReply, Role};
use crate::member::{Candidate, LookupError, look_up};
use crate::remedy::Remedy;
use crate::secret::SecretText;

/// How long an event stream waits before it seeks a node again that has gone.
const RECONNECT: Duration = Duration::from_millis(500);

/// Shortest interval in which traffic is told: the node itself learns of it once a second.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A connection to a node. Requests go one after the other; for an event stream beside them there is
/// [`Node::events`], which has a connection of its own. After an error other than the node's own answer
/// ([`ClientError::Api`]), and after a call that was given up, the connection is of no use any more: connect again.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    client: Client<MeshdApi>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $result:ty = $call:expr $(, $done:ident)?;)*) => {
        impl Node {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError`].
                pub async fn $name(&mut self, $($arg: $type),*) -> Result<$result, ClientError> {
                    let reply = self.client.call($call).await?;
                    $(let reply = reply.$done()?;)?
                    Ok(reply)
                }
            )*
        }
    };
}

calls! {
    /// The state of the node.
    status() -> Status = GetStatus;
    /// The other members.
    peers() -> Vec<Peer> = ListPeers;
    /// The public half of the node's keys.
    keys() -> Keys = GetKeys;
    /// What was counted since `meshd` started.
    counters() -> Counters = GetCounters;
    /// Asks a member for an answer over I2P; returns how many milliseconds that took.
    ping(node_id: String) -> u64 = PingMember { node_id };
    /// The routing table.
    routes() -> Vec<Route> = ListRoutes;
    /// Makes an invite that is good for `expires_in` and `max_uses` uses, none for any number, and delegates `addresses`
    /// to each user, none for the usual number. The first founds a network with `subnet`, none for one that is free.
    create_invite(
        expires_in: Duration,
        max_uses: Option<u32>,
        addresses: Option<u32>,
        subnet: Option<String>,
        name: Option<String>
    ) -> Invite = CreateInvite { expires_in: expires_in.as_secs(), max_uses, addresses, subnet, name }, done;
    /// Checks that this node could join a network: that the configuration accepts its subnet, and the host uses none of
    /// its addresses.
    check_network(network: String, subnet: String) -> () = CheckNetwork { network, subnet };
    /// The invites that the node has made.
    invites() -> Vec<IssuedInvite> = ListInvites;
    /// Revokes an invite; those that have used it stay members.
    revoke_invite(id: String) -> IssuedInvite = RevokeInvite { id, with_members: false }, done;
    /// Delegates more addresses to a member that this node has invited.
    grant(node_id: String, addresses: u32) -> Grant = GrantAddresses { node_id, addresses }, done;
    /// Joins a network; takes up to three minutes.
    join(invite: SecretText) -> Network = Join { invite };
    /// The bans in force.
    bans() -> Vec<Ban> = ListBans;
    /// Bans a member, for a while or without end.
    add_ban(node_id: String, description: String, duration: Option<Duration>) -> Ban =
        AddBan { node_id, description, duration: duration.map(|duration| duration.as_secs()) };
    /// Lifts a ban.
    remove_ban(node_id: String) -> Ban = RemoveBan { node_id };
    /// Begins a new epoch of the WireGuard key.
    rotate_key() -> WireGuardKey = RotateKey;
    /// The configuration in force.
    config() -> Vec<Setting> = GetConfig;
    /// Changes a key of the configuration until `meshd` ends.
    set_config(key: String, value: String) -> Vec<ConfigChange> = SetConfig { key, value };
    /// Has the configuration file read again.
    reload() -> Vec<ConfigChange> = Reload;
}

impl Node {
    /// Connects to the node whose `meshd` listens at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_to(path.into()).await
    }

    /// Connects to the node whose `meshd` listens at an endpoint.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect_to(endpoint: Endpoint) -> Result<Self, ClientError> {
        let path = endpoint.path().to_owned();
        Ok(Self { path, client: Client::connect(endpoint, Role::Client).await? })
    }

    /// Finds the member that a text means, by the rule of [`look_up`].
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn find_member(&mut self, text: &str) -> Result<Peer, LookupError> {
        let mut peers = self.peers().await?;
        let found = self.find_among(&peers, text).await?;
        let place = peers.iter().position(|peer| peer.node_id == found.node_id);
        place
            .map(|place| peers.swap_remove(place))
            .ok_or_else(|| ClientError::from(ApiError::internal("the member that was found is gone")).into())
    }

    /// As [`Node::find_member`], among members that are known already.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn find_among(&mut self, members: &[Peer], text: &str) -> Result<Candidate, LookupError> {
        match look_up(members.iter().map(Candidate::from).collect(), text) {
            Err(LookupError::Unknown { text })
                if look_up(vec![Candidate::from(&self.status().await?)], &text).is_ok() =>
            {
                Err(LookupError::ThisNode { text })
            }
            found => found,
        }
    }

    /// Finds the banned node that a text means, or else the member. Returns its node id.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn find_banned(&mut self, text: &str) -> Result<String, LookupError> {
        let bans = self.bans().await?;
        let members = self.peers().await?;
        match look_up(bans.iter().map(|ban| Candidate::of_ban(ban, &members)).collect(), text) {
            Ok(found) => Ok(found.node_id),
            // A member that is not banned: meshd says so.
            Err(LookupError::Unknown { .. }) => {
                self.find_among(&members, text).await.map(|found| found.node_id)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a request, as the other functions do: also one that may take an order ([`crate::administrator`]).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<C: Call<Api = MeshdApi>>(&mut self, call: C) -> Result<C::Reply, ClientError> {
        self.client.call(call).await
    }

    /// Hands over what `keyd` has signed by an order. The reply is that to the request that has led to the order.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enact<C: Call<Api = MeshdApi>>(
        &mut self,
        executed: Executed,
    ) -> Result<C::Reply, ClientError> {
        let reply = self.client.call(Enact(Box::new(executed))).await?;
        C::reply(reply, Vec::new())
    }

    /// Where the node's `meshd` listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.path
    }

    /// What the node said of itself.
    #[must_use]
    pub fn daemon(&self) -> &HelloReply {
        self.client.daemon()
    }

    /// Whether the connection is of no use any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.client.is_broken()
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> EventStream {
        EventStream::new(&self.path)
    }
}

impl<T> Answered<T> {
    /// What was done, for a program that gives no orders.
    ///
    /// # Errors
    /// [`needs_order`].
    pub fn done(self) -> Result<T, ApiError> {
        match self {
            Self::Done(done) => Ok(done),
            Self::ToOrder(proposed) => Err(needs_order(&proposed.order)),
        }
    }
}

/// The error for a program that gives no orders.
#[must_use]
pub fn needs_order(order: &Order) -> ApiError {
    ApiError::denied("keyd does this only by an order of an administrator")
        .with_remedy(Remedy::GiveOrder { order: order.into() })
}

/// What an event stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The stream has begun, has missed something, or the node is back: what is known of it is to be asked for
    /// (again). Events that follow may tell of what the answers contain already.
    Resync,
    /// Something happened.
    Event(Event),
    /// The traffic up to now.
    Traffic(Traffic),
    /// The node cannot be reached, for this reason; the stream goes on seeking it, without another word until it is
    /// there.
    Lost(String),
}

/// An answer, and the connection over which it came.
type Polled = (Option<Client<MeshdApi>>, Result<Events, ClientError>);

/// What happens at a node. It finds the node again when that was away, and says so.
///
/// The node keeps the last [`EVENTS_KEPT`](crate::api::meshd::EVENTS_KEPT) events for all who follow it and nothing for
/// each: whoever reads more slowly than things happen gets a [`Notice::Resync`] in place of what it has missed.
pub struct EventStream {
    endpoint: Endpoint,
    client: Option<Client<MeshdApi>>,
    after: Option<Cursor>,
    /// Told next.
    notices: VecDeque<Notice>,
    traffic: Option<Duration>,
    away: bool,
    /// The question that is not answered yet, which outlives a caller of [`EventStream::next`] that gives up.
    asking: Option<Pin<Box<dyn Future<Output = Polled> + Send>>>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, after, away, .. } = self;
        f.debug_struct("EventStream")
            .field("path", &endpoint.path())
            .field("after", after)
            .field("away", away)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    /// The events of the node whose `meshd` listens at `path`, from the first [`EventStream::next`] on. The node need
    /// not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::at(path.into())
    }

    /// The same, of a socket that certain users may listen on.
    #[must_use]
    pub fn at(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            client: None,
            after: None,
            notices: VecDeque::new(),
            traffic: None,
            away: false,
            asking: None,
        }
    }

    /// Has the traffic told too: with events, and at least once in this interval. The node itself counts once a second.
    #[must_use]
    pub fn with_traffic(mut self, interval: Duration) -> Self {
        self.traffic = Some(interval.max(MIN_INTERVAL));
        self
    }

    /// Has what the node remembers told first: up to [`EVENTS_KEPT`](crate::api::meshd::EVENTS_KEPT) events.
    #[must_use]
    pub fn with_past(mut self) -> Self {
        // A cursor of no run stands before all that is there.
        self.after = Some(Cursor { run: 0, number: 0 });
        self
    }

    /// What happens next. It is cancel-safe: if it is given up, as in `tokio::select!`, nothing is lost.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return notice;
            }
            let request = self.request();
            let asking = self.asking.get_or_insert_with(|| {
                let pause = if self.away { RECONNECT } else { Duration::ZERO };
                Box::pin(ask(self.client.take(), self.endpoint.clone(), request, pause))
            });
            let (client, result) = asking.await;
            self.asking = None;
            self.client = client;
            match result {
                Ok(events) => self.take(events),
                Err(error) => {
                    self.client = None;
                    if !std::mem::replace(&mut self.away, true) {
                        return Notice::Lost(error.to_string());
                    }
                }
            }
        }
    }

    fn request(&self) -> PollEvents {
        let longest = self.traffic.unwrap_or(Duration::from_millis(MAX_EVENT_WAIT));
        // The first answer comes at once: it says where the stream begins, or that the node is back.
        let wait = if self.after.is_none() || self.away { Duration::ZERO } else { longest };
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        PollEvents { after: self.after, wait, traffic: self.traffic.is_some() }
    }

    fn take(&mut self, events: Events) {
        if std::mem::take(&mut self.away) || self.after.is_none() || events.lost {
            self.notices.push_back(Notice::Resync);
        }
        self.after = Some(events.next);
        self.notices.extend(events.events.into_iter().map(Notice::Event));
        self.notices.extend(events.traffic.map(Notice::Traffic));
    }
}

async fn ask(
    client: Option<Client<MeshdApi>>,
    endpoint: Endpoint,
    request: PollEvents,
    pause: Duration,
) -> Polled {
    sleep(pause).await;
    let client = match client {
        Some(client) if !client.is_broken() => Ok(client),
        _ => Client::connect(endpoint, Role::Client).await,
    };
    match client {
        Ok(mut client) => {
            let result = client.call(request).await;
            (Some(client), result)
        }
        Err(error) => (None, Err(error)),
    }
}
