//! A running node, for programs that use one: what `i2planctl` does, and what embeds i2plan.
//!
//! [`Node`] asks and changes; [`EventStream`] tells what happens, and when something was missed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::api::meshd::{
    Ban, ConfigChange, Event, Events, Invite, IssuedInvite, Keys, MeshdApi, Network, Peer, Place, Reply,
    Request, Route, Setting, Status, Traffic, WireGuardKey,
};
use crate::client::{Client, ClientError};
use crate::error::ApiError;
use crate::hello::{HelloReply, Role};
use crate::secret::SecretText;

/// How long an event stream waits before it seeks a node again that has gone.
const RECONNECT: Duration = Duration::from_millis(500);

/// A connection to a node. Requests go one after the other; for an event stream beside them there is
/// [`Node::events`], which has a connection of its own.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    client: Client<MeshdApi>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $result:ty = $request:expr, $reply:pat => $value:expr;)*) => {
        impl Node {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError`].
                pub async fn $name(&mut self, $($arg: $type),*) -> Result<$result, ClientError> {
                    match self.client.call($request).await? {
                        $reply => Ok($value),
                        _ => Err(unexpected()),
                    }
                }
            )*
        }
    };
}

calls! {
    /// The state of the node.
    status() -> Status = Request::Status, Reply::Status(status) => *status;
    /// The other members.
    peers() -> Vec<Peer> = Request::Peers, Reply::Peers(peers) => peers;
    /// The public half of the node's keys.
    keys() -> Keys = Request::Keys, Reply::Keys(keys) => *keys;
    /// The routing table.
    routes() -> Vec<Route> = Request::Routes, Reply::Routes(routes) => routes;
    /// Makes an invite that is good for `expires_in` and so many uses, none for any number.
    create_invite(expires_in: Duration, max_uses: Option<u32>) -> Invite =
        Request::CreateInvite { expires_in: expires_in.as_secs(), max_uses }, Reply::Invite(invite) => invite;
    /// The invites that the node has made.
    invites() -> Vec<IssuedInvite> = Request::ListInvites, Reply::Invites(invites) => invites;
    /// Makes an invite useless.
    revoke_invite(id: String) -> IssuedInvite = Request::RevokeInvite { id }, Reply::InviteRevoked(invite) => invite;
    /// Joins a network; takes up to three minutes.
    join(invite: SecretText) -> Network = Request::Join { invite }, Reply::Joined(network) => network;
    /// Leaves the network for good, and tells which.
    leave() -> String = Request::Leave, Reply::Left(network) => network;
    /// The bans in force.
    bans() -> Vec<Ban> = Request::ListBans, Reply::Bans(bans) => bans;
    /// Bans a member, for a while or without end.
    add_ban(node_id: String, description: String, duration: Option<Duration>) -> Ban =
        Request::AddBan { node_id, description, duration: duration.map(|duration| duration.as_secs()) },
        Reply::BanAdded(ban) => ban;
    /// Lifts a ban.
    remove_ban(node_id: String) -> Ban = Request::RemoveBan { node_id }, Reply::BanRemoved(ban) => ban;
    /// Takes a member's membership back, and tells whose are gone with it.
    revoke(node_id: String) -> Vec<String> = Request::Revoke { node_id }, Reply::Revoked(nodes) => nodes;
    /// Begins a new epoch of the WireGuard key.
    rotate_key() -> WireGuardKey = Request::RotateKey, Reply::Rotated(key) => key;
    /// The configuration in force.
    config() -> Vec<Setting> = Request::Config, Reply::Config(settings) => settings;
    /// Changes a key of the configuration until `meshd` ends.
    set_config(key: String, value: String) -> Vec<ConfigChange> =
        Request::SetConfig { key, value }, Reply::ConfigChanged(changes) => changes;
    /// Has the configuration file read again.
    reload() -> Vec<ConfigChange> = Request::Reload, Reply::ConfigChanged(changes) => changes;
}

impl Node {
    /// Connects to the node whose `meshd` listens at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        Ok(Self { path: path.to_owned(), client: Client::connect(path, Role::Client).await? })
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

fn unexpected() -> ClientError {
    ApiError::internal("meshd answered something else than what was asked").into()
}

/// What an event stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The stream has begun, or has missed something: what is known of the node is to be asked for (again).
    Resync,
    /// Something happened.
    Event(Event),
    /// The traffic up to now.
    Traffic(Traffic),
    /// The node cannot be reached; the stream goes on seeking it.
    Lost(String),
}

/// What happens at a node. It finds the node again when that was away, and says so.
#[derive(Debug)]
pub struct EventStream {
    path: PathBuf,
    client: Option<Client<MeshdApi>>,
    after: Option<Place>,
    waiting: std::collections::VecDeque<Notice>,
    traffic: Option<Duration>,
    away: bool,
}

impl EventStream {
    /// The events of the node whose `meshd` listens at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let waiting = std::collections::VecDeque::new();
        Self { path: path.to_owned(), client: None, after: None, waiting, traffic: None, away: false }
    }

    /// Has the traffic told too, in about this interval.
    #[must_use]
    pub fn with_traffic(mut self, interval: Duration) -> Self {
        self.traffic = Some(interval);
        self
    }

    /// What happens next. Cancelling this loses nothing but, perhaps, one sample of the traffic.
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.waiting.pop_front() {
                return notice;
            }
            match self.ask().await {
                Ok(events) => self.take(events),
                Err(error) => {
                    self.client = None;
                    if !std::mem::replace(&mut self.away, true) {
                        return Notice::Lost(error.to_string());
                    }
                    sleep(RECONNECT).await;
                }
            }
        }
    }

    fn take(&mut self, events: Events) {
        if std::mem::take(&mut self.away) || self.after.is_none() || events.lost {
            self.waiting.push_back(Notice::Resync);
        }
        self.after = Some(events.next);
        self.waiting.extend(events.events.into_iter().map(Notice::Event));
        self.waiting.extend(events.traffic.map(Notice::Traffic));
    }

    async fn ask(&mut self) -> Result<Events, ClientError> {
        if self.client.as_ref().is_none_or(Client::is_broken) {
            self.client = Some(Client::connect(&self.path, Role::Client).await?);
        }
        let Some(client) = &mut self.client else { return Err(unexpected()) };
        // The first answer comes at once: it says where the stream begins.
        let longest = self.traffic.unwrap_or(Duration::from_millis(crate::api::meshd::MAX_EVENT_WAIT));
        let wait = if self.after.is_none() || self.away { Duration::ZERO } else { longest };
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Events { after: self.after, wait, traffic: self.traffic.is_some() };
        match client.call(request).await? {
            Reply::Events(events) => Ok(*events),
            _ => Err(unexpected()),
        }
    }
}
