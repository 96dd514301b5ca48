//! The methods: one table, by which calls are dispatched and which `rpc.discover` describes.
//!
//! Results are what `i2planctl --json` prints, with counts, with the values of settings in their types, and with what
//! programs otherwise would look for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use i2plan_config::{Kind, find as find_key};
use i2plan_ipc::ErrorKind;
use i2plan_ipc::api::Call;
use i2plan_ipc::api::meshd::{
    AddBan, Ban, ConfigChange, CreateInvite, DEFAULT_EXPIRY, Events, GetConfig, GetKeys, GetStatus, Grant,
    GrantAddresses, Invite, IssuedInvite, Join, Keys, Leave, ListBans, ListInvites, ListPeers, ListRoutes,
    MeshdApi, Network, Peer, PingMember, PollEvents, RecoverKeys, Reload, RemoveBan, Reply, Request, Revoke,
    RevokeInvite, RotateKey, Route, Session, SessionState, SetConfig, Setting, Source, Status, WireGuardKey,
    max_uses,
};
use i2plan_ipc::client::ClientError;
use i2plan_ipc::hello::Landlock;
use i2plan_ipc::version::Version;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::error::{Code, Error};
use super::message::Json;
use super::params::{
    self, InviteCode, InviteId, InviteToRevoke, Key, KeyValue, Member, NewBan, NewGrant, NewInvite, Nothing,
    Poll,
};

/// What a call comes to.
pub enum Dispatch {
    /// The description of the methods is asked for.
    Describe,
    /// The node must be asked.
    Ask(Ask),
}

/// A question for the node, and what its answer means.
pub struct Ask {
    /// The question.
    pub request: Request,
    read: Box<dyn FnOnce(Reply) -> Result<Json, Error> + Send>,
}

impl Ask {
    /// A question, and how its result is made of the answer.
    fn new<C, T>(call: C, result: impl FnOnce(C::Reply) -> Result<T, Error> + Send + 'static) -> Self
    where
        C: Call<Api = MeshdApi>,
        T: Serialize,
    {
        let read = |reply| json(&result(C::reply(reply, Vec::new()).map_err(ClientError::into_api)?)?);
        Self { request: call.into(), read: Box::new(read) }
    }

    /// The result, from the node's answer.
    ///
    /// # Errors
    /// If what was asked for is not in it.
    pub fn finish(self, reply: Reply) -> Result<Json, Error> {
        (self.read)(reply)
    }
}

/// One method.
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// The names of its parameters in the order of their positions.
    pub params: fn() -> &'static [&'static str],
    /// The schema of its parameters, an object.
    pub takes: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of its result.
    pub gives: fn(&mut SchemaGenerator) -> Schema,
    begin: fn(Option<&RawValue>) -> Result<Dispatch, Error>,
}

/// The method with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// Begins a call.
///
/// # Errors
/// If there is no such method, or the parameters do not fit it.
pub fn begin(name: &str, params: Option<&RawValue>) -> Result<Dispatch, Error> {
    match find(name) {
        Some(method) => (method.begin)(params),
        None => Err(Error::new(Code::MethodNotFound, "there is none of this name")
            .with_hint("`rpc.discover` tells which there are")),
    }
}

/// A result as JSON.
///
/// # Errors
/// If it has no form in JSON.
pub fn json<T: Serialize>(result: &T) -> Result<Json, Error> {
    let text = serde_json::to_vec(result);
    text.map(Zeroizing::new).map_err(|_| Error::new(ErrorKind::Internal, "the result cannot be written"))
}

macro_rules! methods {
    ($(
        $(#[doc = $summary:literal])+
        $name:literal ($params:ident: $takes:ty) -> $gives:ty = $call:expr, $reply:ident => $result:expr;
    )*) => {
        /// All of them but `rpc.discover`, which stands at the end of the list.
        pub const METHODS: &[Method] = &[$(
            Method {
                name: $name,
                summary: concat!($($summary),+).trim_ascii(),
                params: params::names::<$takes>,
                takes: <$takes>::json_schema,
                gives: SchemaGenerator::subschema_for::<$gives>,
                begin: |params| {
                    let $params: $takes = params::read(params)?;
                    Ok(Dispatch::Ask(Ask::new($call, move |$reply| -> Result<$gives, Error> { Ok($result) })))
                },
            },
        )* DISCOVER];
    };
}

const DISCOVER: Method = Method {
    name: "rpc.discover",
    summary: "This description.",
    params: params::names::<Nothing>,
    takes: Nothing::json_schema,
    gives: SchemaGenerator::subschema_for::<BTreeMap<String, Value>>,
    begin: |params| {
        params::read::<Nothing>(params)?;
        Ok(Dispatch::Describe)
    },
};

methods! {
    /// The state of the node.
    "status" (_params: Nothing) -> NodeStatus = GetStatus, status => NodeStatus::of(status);
    /// The versions of the gateway and of the node's daemons; null for one that does not answer.
    "version" (_params: Nothing) -> Versions = GetStatus, status => versions(status);
    /// The other members of the network.
    "peers.list" (_params: Nothing) -> Peers = ListPeers, peers => Peers { total: peers.len(), peers };
    /// Joins a network by an invite, as invite.accept does. Takes up to three minutes.
    "peers.connect" (params: InviteCode) -> Joined =
        Join { invite: params.invite_code }, network => Joined { network };
    /// The routing table.
    "routes.list" (_params: Nothing) -> Routes = ListRoutes, routes => Routes { total: routes.len(), routes };
    /// Makes an invite, whose code is a secret; the first one on a fresh node founds the network.
    /// An unlimited one, or one for more than 256 addresses, is an order, which rpc.orders must allow.
    "invite.create" (params: NewInvite) -> Invite =
        CreateInvite {
            expires_in: params.expiry.map_or(DEFAULT_EXPIRY, |expiry| expiry.0).as_secs(),
            max_uses: max_uses(params.max_uses.unwrap_or(1)).map_err(Error::of_parameter)?,
            addresses: params.addresses,
            subnet: params.subnet,
            name: params.name,
        },
        invite => invite.done()?;
    /// Joins a network by an invite. Takes up to three minutes.
    "invite.accept" (params: InviteCode) -> Joined =
        Join { invite: params.invite_code }, network => Joined { network };
    /// The invites that this node has made.
    "invite.list" (_params: Nothing) -> Invites = ListInvites, invites => Invites { invites };
    /// One of them.
    "invite.show" (params: InviteId) -> OneInvite = ListInvites, invites => one_invite(invites, &params.id)?;
    /// Revokes an invite, and with_members the memberships of the nodes that have used it.
    /// The latter is an order, which rpc.orders must allow.
    "invite.revoke" (params: InviteToRevoke) -> OneInvite =
        RevokeInvite { id: params.id, with_members: params.with_members.unwrap_or(false) },
        invite => OneInvite { invite: invite.done()? };
    /// The bans in force.
    "bans.list" (_params: Nothing) -> Bans = ListBans, bans => Bans { bans };
    /// Bans a member on this node.
    "bans.add" (params: NewBan) -> OneBan =
        AddBan {
            node_id: params.node_id,
            description: params.description.unwrap_or_default(),
            duration: params.duration.map(|duration| duration.0.as_secs()),
        },
        ban => OneBan { ban };
    /// Lifts a ban.
    "bans.remove" (params: Member) -> OneBan = RemoveBan { node_id: params.node_id }, ban => OneBan { ban };
    /// Delegates more addresses to a member that this node has invited.
    "members.grant" (params: NewGrant) -> Granted =
        GrantAddresses { node_id: params.node_id, addresses: params.addresses },
        grant => Granted { grant: grant.done()? };
    /// Revokes a member's certificate: it and the members below it are out of the network.
    /// It is an order, which rpc.orders must allow.
    "members.revoke" (params: Member) -> Revoked =
        Revoke { node_id: params.node_id }, revoked => Revoked { revoked: revoked.done()? };
    /// Leaves the network.
    /// It is an order, which rpc.orders must allow.
    "network.leave" (_params: Nothing) -> Left = Leave, left => Left { left: left.done()? };
    /// Asks a member for an answer over I2P. The tunnel to it has no part in that: ping its address for that.
    "peers.ping" (params: Member) -> Pinged =
        PingMember { node_id: params.node_id }, milliseconds => Pinged { milliseconds };
    /// The public half of the node's keys, and whether they are sealed.
    "key.status" (_params: Nothing) -> Keys = GetKeys, keys => keys;
    /// Completes keyd's memory of what this node has delegated, which was lost, from what other members know.
    /// It is an order, which rpc.orders must allow.
    "key.recover" (_params: Nothing) -> Recovered =
        RecoverKeys, delegations => Recovered { delegations: delegations.done()? };
    /// Begins a new epoch of the WireGuard key.
    "key.rotate" (_params: Nothing) -> Rotated = RotateKey, wireguard => Rotated { wireguard };
    /// The configuration in force.
    "config.list" (_params: Nothing) -> Settings =
        GetConfig, settings => Settings { settings: settings.into_iter().map(TypedSetting::of).collect() };
    /// One key of it; without a key the values of all, by key.
    "config.get" (params: Key) -> Found = GetConfig, settings => find_setting(settings, params.key.as_deref())?;
    /// Changes a key until meshd ends, if it can be changed at run time.
    "config.set" (params: KeyValue) -> Changes =
        SetConfig { key: params.key, value: params.value.0 }, changes => Changes { changes };
    /// Has the configuration file read again.
    "config.reload" (_params: Nothing) -> Changes = Reload, changes => Changes { changes };
    /// What happened after a cursor in the event log; waits for something if nothing has.
    "events.poll" (params: Poll) -> Events =
        PollEvents {
            after: params.after,
            wait: params.wait.map_or(0, |wait| wait.0),
            traffic: params.traffic.unwrap_or(false),
        },
        events => events;
}

macro_rules! results {
    ($($(#[doc = $doc:literal])+ $name:ident { $($field:ident: $type:ty),* })*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Serialize, JsonSchema)]
            struct $name { $($field: $type),* }
        )*
    };
}

results! {
    /// The other members.
    Peers { peers: Vec<Peer>, total: usize }
    /// The routing table.
    Routes { routes: Vec<Route>, total: usize }
    /// A network, and the node's place in it.
    Joined { network: Network }
    /// Invites.
    Invites { invites: Vec<IssuedInvite> }
    /// An invite.
    OneInvite { invite: IssuedInvite }
    /// Bans.
    Bans { bans: Vec<Ban> }
    /// A ban.
    OneBan { ban: Ban }
    /// What a member holds.
    Granted { grant: Grant }
    /// The nodes that are no members any more.
    Revoked { revoked: Vec<String> }
    /// The network's id.
    Left { left: String }
    /// How long a member's answer took.
    Pinged { milliseconds: u64 }
    /// The new key.
    Rotated { wireguard: WireGuardKey }
    /// How many delegations keyd remembers.
    Recovered { delegations: u64 }
    /// The configuration.
    Settings { settings: Vec<TypedSetting> }
    /// What is different now.
    Changes { changes: Vec<ConfigChange> }
    /// Versions by program.
    Versions { rpcd: Gateway, daemons: BTreeMap<String, Option<Version>> }
}

/// What a node is doing.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Its sessions are not both open yet, or no more.
    Starting,
    /// They are.
    Running,
}

/// The state of a node.
#[derive(Serialize, JsonSchema)]
struct NodeStatus {
    #[serde(flatten)]
    status: Status,
    state: State,
    /// Members of the network besides this one.
    peer_count: u64,
    /// The node's IPv4 address in the network; null if it is in none.
    tunnel_ip: Option<Ipv4Addr>,
    /// Where control messages reach it, `….b32.i2p`; null while that is not known.
    i2p_destination: Option<String>,
}

impl NodeStatus {
    fn of(status: Status) -> Self {
        let is_up = |session: &Session| session.state == SessionState::Up;
        let is_static = status.static_interface.is_some();
        let runs = is_up(&status.sam.data) && (is_static || is_up(&status.sam.control));
        Self {
            state: if runs { State::Running } else { State::Starting },
            peer_count: status.network.as_ref().map_or(0, |network| network.members.saturating_sub(1)),
            tunnel_ip: status.network.as_ref().map(|network| network.ipv4),
            i2p_destination: status.sam.control.destination.clone(),
            status,
        }
    }
}

/// A value of the configuration: what stands between the commas of a list are its elements.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
enum Typed {
    Flag(bool),
    Number(i64),
    Text(String),
    List(Vec<String>),
}

impl Typed {
    /// The value of a key in its type; what is none of that type, such as `auto`, is text.
    fn of(key: &str, text: String) -> Self {
        let kind = find_key(key).map_or(Kind::Text, |known| known.kind);
        match kind {
            Kind::Flag => text.parse().map_or(Self::Text(text), Self::Flag),
            Kind::Number => text.parse().map_or(Self::Text(text), Self::Number),
            Kind::List => Self::List(text.split(',').map(|element| element.trim().to_owned()).collect()),
            Kind::Text => Self::Text(text),
        }
    }
}

/// One key of the configuration.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Setting")]
struct TypedSetting {
    /// `section.key`.
    key: String,
    /// The variable that sets it.
    variable: String,
    /// The value in force; null where there is none by default.
    value: Option<Typed>,
    /// Where that comes from.
    source: Source,
    /// Whether it can be changed without a restart.
    live: bool,
    /// A value that the file or the environment has now and that counts only after a restart.
    pending: Option<Typed>,
}

impl TypedSetting {
    fn of(setting: Setting) -> Self {
        let Setting { key, variable, value, source, live, pending } = setting;
        let typed = |text: Option<String>| text.map(|text| Typed::of(&key, text));
        Self { value: typed(value), pending: typed(pending), key, variable, source, live }
    }
}

/// A key of the configuration, or the values of all.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Found {
    One(TypedSetting),
    All(BTreeMap<String, Option<Typed>>),
}

/// The gateway itself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Gateway {
    /// Its build.
    #[serde(flatten)]
    pub version: Version,
    /// Its process id.
    pub pid: u32,
    /// How far it has restricted itself with Landlock.
    pub landlock: Landlock,
}

fn versions(status: Status) -> Versions {
    let daemons = status.daemons.into_iter().map(|daemon| (daemon.name, daemon.version)).collect();
    let rpcd = Gateway {
        version: Version::current(),
        pid: std::process::id(),
        landlock: Landlock::of_this_process(),
    };
    Versions { rpcd, daemons }
}

fn one_invite(invites: Vec<IssuedInvite>, id: &str) -> Result<OneInvite, Error> {
    let found = invites.into_iter().find(|invite| invite.id == id);
    found.map(|invite| OneInvite { invite }).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "this node has made no invite with this id")
            .with_hint("`invite.list` tells which it has made")
    })
}

fn find_setting(settings: Vec<Setting>, key: Option<&str>) -> Result<Found, Error> {
    let mut settings = settings.into_iter().map(TypedSetting::of);
    let Some(key) = key else {
        return Ok(Found::All(settings.map(|setting| (setting.key, setting.value)).collect()));
    };
    settings.find(|setting| setting.key == key).map(Found::One).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the configuration has no such key")
            .with_hint("`config.list` tells which there are")
    })
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::api::meshd::InviteState;
    use serde_json::json;

    use super::*;

    fn call(name: &str, params: &Value) -> Result<Dispatch, Error> {
        begin(name, Some(&serde_json::value::to_raw_value(params).unwrap()))
    }

    fn ask(name: &str, params: &Value) -> Ask {
        match call(name, params) {
            Ok(Dispatch::Ask(ask)) => ask,
            Ok(Dispatch::Describe) => panic!("{name} asks nobody"),
            Err(error) => panic!("{name}: {error:?}"),
        }
    }

    #[test]
    fn names_are_unique_and_unknown_ones_are_told() {
        for method in METHODS {
            assert_eq!(METHODS.iter().filter(|other| other.name == method.name).count(), 1);
            assert!(method.summary.ends_with('.'), "{}", method.name);
        }
        let error = begin("statuss", None).err().unwrap();
        assert_eq!(error.code, Code::MethodNotFound);
    }

    #[test]
    fn an_invite_is_for_a_day_and_one_use_unless_asked_otherwise() {
        let request = |params| ask("invite.create", &params).request;
        let invite = |params| match request(params) {
            Request::CreateInvite { expires_in, max_uses, addresses, .. } => {
                (expires_in, max_uses, addresses)
            }
            _ => panic!("another request"),
        };
        assert_eq!(invite(json!({})), (86_400, Some(1), None));
        assert_eq!(invite(json!(["7d", -1])), (7 * 86_400, None, None));
        assert_eq!(invite(json!([60.0, -1.0])), (60, None, None));
        assert_eq!(invite(json!({ "addresses": 16 })), (86_400, Some(1), Some(16)));
        let bad = [
            json!({ "max_uses": 0 }),
            json!({ "max_uses": -2 }),
            json!({ "expiry": 0 }),
            json!({ "addresses": -1 }),
        ];
        for bad in bad {
            assert_eq!(
                call("invite.create", &bad).err().unwrap().code,
                Code::Api(ErrorKind::Invalid),
                "{bad}"
            );
        }
    }

    #[test]
    fn members_go_with_an_invite_only_where_that_is_asked_for() {
        let revoke = |params| match ask("invite.revoke", &params).request {
            Request::RevokeInvite { id, with_members } => (id, with_members),
            _ => panic!("another request"),
        };
        assert_eq!(revoke(json!(["i"])), ("i".to_owned(), false));
        assert_eq!(revoke(json!({ "id": "i", "with_members": true })), ("i".to_owned(), true));
    }

    #[test]
    fn a_grant_needs_a_member_and_a_number() {
        let granting = ask("members.grant", &json!({ "node_id": "n", "addresses": 64 }));
        assert!(
            matches!(&granting.request, Request::Grant { node_id, addresses: 64 } if node_id == "n"),
            "{:?}",
            granting.request
        );
        let grant = Grant { node_id: "n".to_owned(), ranges: vec!["10.42.8.0/26".to_owned()], addresses: 64 };
        let result = granting.finish(Reply::Granted(grant)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&result).unwrap()["grant"]["addresses"], 64);
        // In JSON these are the same number.
        assert!(matches!(
            ask("members.grant", &json!(["n", 64.0])).request,
            Request::Grant { addresses: 64, .. }
        ));
        for bad in [json!({ "node_id": "n" }), json!(["n", 0.5]), json!(["n", -1]), json!(["n", 5e9])] {
            assert_eq!(
                call("members.grant", &bad).err().unwrap().code,
                Code::Api(ErrorKind::Invalid),
                "{bad}"
            );
        }
    }

    #[test]
    fn codes_reach_the_node_and_no_debug_output() {
        for name in ["invite.accept", "peers.connect"] {
            let Request::Join { invite } = ask(name, &json!({ "invite_code": "i2plan://x" })).request else {
                panic!("{name}")
            };
            assert_eq!(invite.expose(), "i2plan://x");
            assert!(!format!("{invite:?}").contains("i2plan"));
        }
    }

    #[test]
    fn one_of_many_is_found_or_said_not_to_be_there() {
        let setting = |key: &str| Setting {
            key: key.to_owned(),
            variable: String::new(),
            value: None,
            source: Source::Default,
            live: true,
            pending: None,
        };
        let reply = || Reply::Config(vec![setting("a.b"), setting("c.d")]);
        let found = ask("config.get", &json!(["c.d"])).finish(reply()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&found).unwrap()["key"], "c.d");
        let all = ask("config.get", &json!({})).finish(reply()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&all).unwrap(), json!({ "a.b": null, "c.d": null }));
        let error = ask("config.get", &json!(["c"])).finish(reply()).unwrap_err();
        assert_eq!(error.code, Code::Api(ErrorKind::NotFound));

        let invite = IssuedInvite {
            id: "i".to_owned(),
            state: InviteState::Open,
            created_at: 1,
            expires_at: 2,
            max_uses: None,
            addresses: 1,
            used_by: Vec::new(),
        };
        let reply = || Reply::Invites(vec![invite.clone()]);
        let found = ask("invite.show", &json!({ "id": "i" })).finish(reply()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&found).unwrap()["invite"]["state"], "open");
        assert!(ask("invite.show", &json!({ "id": "x" })).finish(reply()).is_err());
    }

    #[test]
    fn values_of_the_configuration_have_their_types() {
        for (key, text, expected) in [
            ("node.name", "123", json!("123")),
            ("mesh.max_peers", "80", json!(80)),
            ("i2p.tunnel_length_variance", "-2", json!(-2)),
            ("i2p.sam_udp_port", "auto", json!("auto")),
            ("rpc.orders", "false", json!(false)),
            ("mesh.peer_timeout", "300s", json!("300s")),
            ("mesh.accept_subnets", "any", json!(["any"])),
            ("mesh.accept_subnets", "10.0.0.0/8, 192.168.0.0/16", json!(["10.0.0.0/8", "192.168.0.0/16"])),
            ("of.another_version", "true", json!("true")),
        ] {
            let setting = Setting {
                key: key.to_owned(),
                variable: String::new(),
                value: Some(text.to_owned()),
                source: Source::Default,
                live: true,
                pending: Some(text.to_owned()),
            };
            let result = |params| {
                let found = ask("config.get", &params).finish(Reply::Config(vec![setting.clone()])).unwrap();
                serde_json::from_slice::<Value>(&found).unwrap()
            };
            let one = result(json!([key]));
            assert_eq!((&one["value"], &one["pending"]), (&expected, &expected), "{key}");
            assert_eq!(result(json!([])), json!({ key: expected }));
        }
    }

    #[test]
    fn another_answer_is_a_fault() {
        let error = ask("status", &json!({})).finish(Reply::Left(String::new())).unwrap_err();
        assert_eq!(error.code, Code::Api(ErrorKind::Internal));
    }
}
