//! What a process reads from a unix socket: the header of a frame, and every message of every API.
//!
//! The first byte says which; what follows is parsed.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use i2plan_ipc::api::Api;
use i2plan_ipc::api::order::{Executed, Order, OrderTarget, OrderToken, PreparedOrder};
use i2plan_ipc::api::{keyd, meshd, tund, webd};
use i2plan_ipc::frame::{HEADER_LEN, Header, MAX_FDS, decode_body, encode_body};
use i2plan_ipc::hello::{Hello, HelloReply, Landlock, PROTOCOL, Reply, Request};
use i2plan_ipc::histogram::Histogram;
use i2plan_ipc::secret::{SecretKey, SecretText};
use i2plan_ipc::version::Version;
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::endpoint::Endpoint;
use i2plan_proto::liveness::Presence;
use i2plan_proto::prefix::Prefix;
use i2plan_testing as testing;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Seeds, seed};

const KINDS: u8 = 11;

/// Runs the target.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % KINDS {
        0 => header(rest),
        1 => drop(message::<Hello>(rest)),
        2 => drop(message::<HelloReply>(rest)),
        3 => request::<keyd::KeydApi>(rest),
        4 => drop(message::<Reply<keyd::Reply>>(rest)),
        5 => request::<meshd::MeshdApi>(rest),
        6 => drop(message::<Reply<meshd::Reply>>(rest)),
        7 => request::<tund::TundApi>(rest),
        8 => drop(message::<Reply<tund::Reply>>(rest)),
        9 => request::<webd::WebdApi>(rest),
        _ => drop(message::<Reply<webd::Reply>>(rest)),
    }
}

/// No header makes the reader allocate more than its limit, and it is the only one of its frame.
fn header(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else { return };
    for max in [4096, keyd::KeydApi::MAX_REQUEST, meshd::MeshdApi::MAX_REPLY, tund::TundApi::MAX_REQUEST] {
        if let Ok(header) = Header::decode(*bytes, max) {
            assert!(header.len <= max && header.fds <= MAX_FDS, "{header:?} is over the limit of {max}");
            assert_eq!(header.encode(max).as_ref(), Ok(bytes));
        }
    }
}

/// What can be read can be sent on, and is understood there as it was here.
fn message<T: Serialize + DeserializeOwned>(body: &[u8]) -> Option<T> {
    let value = decode_body::<T>(body).ok()?;
    let sent = encode_body(&value).expect("what was read can be encoded");
    let read = decode_body::<T>(&sent).expect("what was encoded can be read");
    assert_eq!(encode_body(&read).as_ref(), Ok(&sent));
    Some(value)
}

/// Every request has its place in the table of who may ask what.
fn request<A: Api>(body: &[u8]) {
    let Some(Request { body, .. }) = message::<Request<A::Request>>(body) else { return };
    assert!(!A::allows(Role::Keyd, &body), "keyd asks nothing of anybody");
    assert!(!A::allows(Role::Client, &body) || A::DAEMON != Role::Tund, "users have nothing to do with tund");
    let others = [Role::Meshd, Role::Tund, Role::Connector].map(|role| A::allows(role, &body));
    assert!(!A::allows(Role::Client, &body) || others == [false; 3], "what is for users is for no daemon");
    let terms = A::terms(&body);
    assert!(terms.fds <= MAX_FDS);
    assert!(terms.deadline > Duration::ZERO);
}

/// What a fuzzer should begin with.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = vec![seed("header", [0, 0, 0, 1, 0, 2]), seed("header-limit", [0, 0, 0, 64, 0, 4])];
    let mut put = |kind: u8, name: &str, body: Result<i2plan_ipc::frame::Body, _>| {
        let body = body.expect("messages can be encoded");
        seeds.push(seed(name, [&[kind], body.as_slice()].concat()));
    };
    let hello = Hello { protocol: PROTOCOL, role: Role::Meshd, version: version() };
    put(1, "hello", encode_body(&hello));
    let refused = Some(ApiError::denied("no").with_hint("ask"));
    let reply = HelloReply {
        protocol: PROTOCOL,
        role: Role::Keyd,
        pid: 7,
        version: version(),
        landlock: Landlock::Full,
        refused,
    };
    put(2, "hello-refused", encode_body(&reply));
    for (name, body) in keyd_requests() {
        put(3, &format!("keyd-{name}"), encode_body(&Request { id: 1, body }));
    }
    for (name, body) in keyd_replies() {
        put(4, &format!("keyd-reply-{name}"), encode_body(&Reply { id: 1, result: Ok(body) }));
    }
    let failed: Result<keyd::Reply, _> = Err(ApiError::invalid("the clock is wrong").with_hint("set it"));
    put(4, "keyd-error", encode_body(&Reply { id: 1, result: failed }));
    for (name, body) in meshd_requests() {
        put(5, &format!("meshd-{name}"), encode_body(&Request { id: 2, body }));
    }
    for (name, body) in meshd_replies() {
        put(6, &format!("meshd-reply-{name}"), encode_body(&Reply { id: 2, result: Ok(body) }));
    }
    for (name, body) in tund_requests() {
        put(7, &format!("tund-{name}"), encode_body(&Request { id: 3, body }));
    }
    for (name, body) in tund_replies() {
        put(8, &format!("tund-reply-{name}"), encode_body(&Reply { id: 3, result: Ok(body) }));
    }
    for (name, body) in [
        ("sessions", webd::Request::Sessions),
        ("certificate-expiry", webd::Request::CertificateExpiry),
        ("create-link", webd::Request::CreateLink { control: true }),
        ("end-sessions", webd::Request::EndSessions { id: Some("1".to_owned()) }),
    ] {
        put(9, &format!("webd-{name}"), encode_body(&Request { id: 4, body }));
    }
    let url = SecretText::new("http://127.0.0.1:8080/login?token=x".to_owned());
    let link = webd::Link { url, expires_in: 300, control: false, fingerprint: None, socket: None };
    let session = webd::Session { id: "1".to_owned(), control: true, age: 1, idle: 0, expires_in: u64::MAX };
    for (name, body) in [
        ("sessions", webd::Reply::Sessions(vec![session])),
        ("link", webd::Reply::Link(link)),
        ("ended", webd::Reply::Ended(1)),
        ("certificate-expiry", webd::Reply::CertificateExpiry(Some(u64::MAX))),
    ] {
        put(10, &format!("webd-reply-{name}"), encode_body(&Reply { id: 4, result: Ok(body) }));
    }
    // A field that nobody knows, which holds lists in lists in lists.
    let mut nested = vec![5, 0x83, 0xa2, b'i', b'd', 1, 0xa1, b'x'];
    nested.extend_from_slice(&[0x91; 2000]);
    nested.push(0xc0);
    seeds.push(seed("nested", nested));
    seeds
}

fn version() -> Version {
    Version { version: "0.1.0".to_owned(), commit: "0123456".to_owned(), built_at: testing::NOW }
}

fn keyd_requests() -> Vec<(&'static str, keyd::Request)> {
    let network = testing::charter(0).network();
    let open = keyd::OpenSession {
        kind: keyd::SessionKind::Data,
        id: "i2plan-1".to_owned(),
        tunnel_length: 1,
        tunnel_length_variance: 0,
        tunnel_quantity: 3,
        tunnel_backup_quantity: 0,
        over_tcp: false,
    };
    let charter = testing::charter(0);
    let create = keyd::CreateInvite {
        network,
        name: charter.name.clone(),
        subnet: charter.subnet,
        expires_at: testing::NOW + 3600,
        uses: testing::grant(2).value.uses,
        addresses: 16,
    };
    let certify = keyd::CertifyMember {
        grant: testing::grant(1),
        request: testing::join_request(1),
        parent: testing::chain(1).id(),
        ranges: testing::ranges(2),
        replaces: true,
    };
    let extend = keyd::ExtendMember {
        certificate: testing::membership(1, 2),
        parent: testing::chain(1).id(),
        ranges: testing::ranges(2),
    };
    let signed = testing::record(1).value;
    let record = keyd::NewRecord {
        charter: charter.clone(),
        chain: signed.chain,
        name: signed.name,
        control: signed.control.destination,
        data: signed.data.destination,
        wireguard: signed.wireguard,
    };
    let order = |order| keyd::Request::PrepareOrder(Box::new(order));
    let body = Box::new(testing::join_request(0).body.value);
    vec![
        ("identity", keyd::Request::Identity),
        ("open-session", keyd::Request::OpenSession(open)),
        ("connector", keyd::Request::Connector),
        ("await-order", keyd::Request::AwaitOrder(connector())),
        ("connected", keyd::Request::Connected(7)),
        (
            "not-connected",
            keyd::Request::NotConnected(keyd::NotConnected {
                order: 7,
                reason: keyd::DialError::System(111),
            }),
        ),
        ("sign-charter", keyd::Request::SignCharter(testing::charter(0))),
        ("sign-record", keyd::Request::SignRecord(Box::new(record))),
        ("sign-pulse", keyd::Request::SignPulse { network, life: Presence::Away }),
        ("note-record", keyd::Request::Note(keyd::Statement::Record(Box::new(testing::record(2))))),
        (
            "note-resignation",
            keyd::Request::Note(keyd::Statement::Resignation(Box::new(testing::resignation(3)))),
        ),
        ("recover", keyd::Request::Recover(vec![testing::membership(0, 1)])),
        ("sign-accusation", keyd::Request::SignAccusation(testing::suspicion(1, 2).value)),
        ("pinned", keyd::Request::Pinned),
        ("order-revoke", keyd::Request::PrepareOrder(Box::new(revoke()))),
        ("order-revoke-invite", order(Order::RevokeInvite(testing::invite(1).id()))),
        ("order-leave", order(Order::Leave(Box::new(testing::chain(3)), charter))),
        ("order-invite", order(Order::CreateInvite(create.clone()))),
        ("order-allow", order(Order::AllowInvite(testing::grant(1)))),
        ("order-extend", order(Order::Extend(Box::new(extend.clone())))),
        ("order-recover", order(Order::Recover)),
        ("count-below", keyd::Request::CountBelow(vec![testing::record(3)])),
        ("confirm", keyd::Request::ConfirmOrder(OrderToken([7; 16]))),
        ("sign-join", keyd::Request::SignJoin { body, control: testing::destination(0) }),
        ("create-invite", keyd::Request::CreateInvite(create)),
        ("certify-member", keyd::Request::CertifyMember(Box::new(certify))),
        ("extend-member", keyd::Request::ExtendMember(Box::new(extend))),
        ("certify-wireguard", keyd::Request::CertifyWireGuard { network, rotate: true }),
        ("trust-anchor", keyd::Request::TrustAnchor(network)),
        ("lease-wireguard", keyd::Request::LeaseWireGuard { network, epoch: 7 }),
    ]
}

fn revoke() -> Order {
    Order::Revoke { chains: vec![testing::chain(3)], record: Some(Box::new(testing::record(3))) }
}

/// What an order signs.
fn executed() -> Executed {
    Executed::Revocations(vec![testing::revocation(0, 3), testing::invite_revocation(1)])
}

fn connector() -> keyd::Connector {
    keyd::Connector { pid: 7, version: version(), landlock: Landlock::Full }
}

fn keyd_replies() -> Vec<(&'static str, keyd::Reply)> {
    let identity = keyd::Identity {
        node: testing::node(1),
        control: testing::destination(1),
        sealed: true,
        remembers: true,
    };
    let code = SecretText::new(testing::invite(1).to_code().to_string());
    let anchor = keyd::TrustAnchor {
        epoch: 1,
        not_after: testing::NOW,
        charter: testing::charter(0),
        chain: testing::chain(1),
        revoked: testing::revocation(0, 2).value.revoked().into_iter().collect(),
    };
    let lease = keyd::WireGuardLease { private_key: SecretKey([7; 32]), anchor: anchor.clone() };
    let pinned = keyd::PinnedNetwork { charter: testing::charter(0), chain: testing::chain(3) };
    let target = OrderTarget::Member {
        network: testing::charter(0).network(),
        node: testing::node(3),
        name: None,
        address: Ipv4Addr::new(10, 42, 0, 3),
        below: 2,
    };
    let prepared = PreparedOrder { token: OrderToken([7; 16]), target };
    let opened = keyd::SessionOpened {
        destination: testing::destination(101),
        version: "3.3".to_owned(),
        min_tunnel_length: 1,
    };
    vec![
        ("identity", keyd::Reply::Identity(identity)),
        ("session", keyd::Reply::SessionOpened(opened)),
        ("connector", keyd::Reply::Connector(Some(connector()))),
        ("order", keyd::Reply::Order(7)),
        ("done", keyd::Reply::Done),
        ("record", keyd::Reply::Record(Box::new(testing::record_with_primary(1)))),
        ("signature", keyd::Reply::Signature(testing::signed_charter(0).signature)),
        ("invite", keyd::Reply::Invite { code, grant: testing::grant(1) }),
        ("membership", keyd::Reply::Membership(testing::membership(1, 2))),
        ("wireguard", keyd::Reply::WireGuardCertificate(testing::wireguard_certificate(1))),
        ("trust-anchor", keyd::Reply::TrustAnchor(Box::new(anchor))),
        ("lease", keyd::Reply::WireGuardLease(Box::new(lease))),
        ("static-key", keyd::Reply::StaticKey(SecretKey([7; 32]))),
        ("needs-order", keyd::Reply::NeedsOrder),
        ("pinned", keyd::Reply::Pinned(Some(Box::new(pinned)))),
        ("prepared", keyd::Reply::OrderPrepared(Box::new(prepared))),
        ("executed", keyd::Reply::OrderExecuted(Box::new(executed()))),
    ]
}

fn meshd_requests() -> Vec<(&'static str, meshd::Request)> {
    let invite = SecretText::new(testing::invite(1).to_code().to_string());
    vec![
        ("status", meshd::Request::Status),
        ("peers", meshd::Request::Peers),
        (
            "create-invite",
            meshd::Request::CreateInvite {
                expires_in: 3600,
                max_uses: Some(1),
                addresses: Some(16),
                subnet: Some("10.9.0.0/16".to_owned()),
                name: Some("office".to_owned()),
            },
        ),
        ("revoke-invite", meshd::Request::RevokeInvite { id: "a2".to_owned(), with_members: true }),
        ("grant", meshd::Request::Grant { node_id: testing::node(2).to_string(), addresses: 16 }),
        ("enact", meshd::Request::Enact(Box::new(executed()))),
        ("join", meshd::Request::Join { invite }),
        ("events", meshd::Request::Events { after: Some(cursor(7)), wait: 30_000, traffic: true }),
        ("config", meshd::Request::Config),
        ("set-config", meshd::Request::SetConfig { key: "mesh.max_peers".to_owned(), value: "7".to_owned() }),
        ("reload", meshd::Request::Reload),
        ("ping", meshd::Request::Ping { node_id: testing::node(2).to_string() }),
        ("counters", meshd::Request::Counters),
    ]
}

fn meshd_replies() -> Vec<(&'static str, meshd::Reply)> {
    let to_order = meshd::ToOrder { order: revoke(), below: vec![testing::record(4)], founded: false };
    let network = meshd::Network {
        id: testing::charter(0).network().to_string(),
        name: "office".to_owned(),
        founder: true,
        inviters: Vec::new(),
        subnet: "10.42.0.0/16".to_owned(),
        ipv4: Ipv4Addr::new(10, 42, 0, 1),
        ipv6: Ipv6Addr::LOCALHOST,
        ranges: vec!["10.42.0.0/16".to_owned()],
        addresses: 65_536,
        addresses_left: 65_500,
        displaced_by: Some(testing::node(3).to_string()),
        conflicts: vec![meshd::Conflict {
            node_id: testing::node(3).to_string(),
            name: None,
            range: "10.42.3.16/28".to_owned(),
        }],
        members: 2,
    };
    let peer = meshd::Peer {
        node_id: testing::node(2).to_string(),
        name: "web".to_owned(),
        ipv4: Ipv4Addr::new(10, 42, 0, 2),
        ipv6: Ipv6Addr::LOCALHOST,
        public_key: "AAAA".to_owned(),
        endpoint: testing::destination(2).hash().b32(),
        ranges: vec!["10.42.0.2/32".to_owned()],
        depth: 1,
        inviters: vec![testing::node(0).to_string()],
        member_since: 1_799_000_000,
        signed_at: 1_800_000_000,
        liveness: meshd::Liveness::Present,
        banned: false,
        rtt: Some(7),
        last_heard: Some(1),
        last_handshake: None,
        tx_packets: 1,
        tx_bytes: 2,
        rx_packets: 3,
        rx_bytes: 4,
        queue_drops: 5,
        rx_drops: 6,
    };
    let grant = meshd::Grant {
        node_id: testing::node(2).to_string(),
        ranges: vec!["10.42.0.2/32".to_owned(), "10.42.3.16/28".to_owned()],
        addresses: 17,
    };
    vec![
        ("joined", meshd::Reply::Joined(network)),
        ("granted", meshd::Reply::Granted(grant)),
        ("peers", meshd::Reply::Peers(vec![peer])),
        ("to-order", meshd::Reply::ToOrder(Box::new(to_order))),
        ("events", meshd::Reply::Events(Box::new(events()))),
        ("config", meshd::Reply::Config(settings())),
        ("config-changed", meshd::Reply::ConfigChanged(vec![change()])),
        ("counters", meshd::Reply::Counters(Box::new(counters()))),
    ]
}

fn counters() -> meshd::Counters {
    meshd::Counters {
        started_at: 1_800_000_000,
        messages: meshd::MessageCounts {
            sent: 1,
            received: 2,
            limited: 3,
            pings: 4,
            comparisons: 5,
            news: 6,
            announcements: 7,
            reconnections: 8,
            returns: 9,
            departures_sent: 10,
            departures_received: 11,
        },
        handshakes: tund::Handshakes { initiated: 8, received: 9, ..tund::Handshakes::default() },
        state_writes: meshd::WriteCounts { count: 6, failed: 7, micros: 8 },
        rounds: Histogram::default(),
        sends: Histogram::default(),
        events: vec![("member_added".to_owned(), u64::MAX)],
    }
}

fn cursor(number: u64) -> meshd::Cursor {
    meshd::Cursor { run: u64::MAX, number }
}

/// One of each kind.
fn events() -> meshd::Events {
    use meshd::EventKind;
    let (node_id, name) = (testing::node(2).to_string(), "web".to_owned());
    let (network, id) = (testing::charter(0).network().to_string(), "0123456789abcdef".to_owned());
    let (daemon, error) = ("keyd".to_owned(), "gone".to_owned());
    let (ipv4, key, value) = ("10.42.0.1".to_owned(), "node.name".to_owned(), "web".to_owned());
    let all = vec![
        EventKind::NetworkJoined { network: network.clone(), name: "office".to_owned(), ipv4: ipv4.clone() },
        EventKind::NetworkLeft { network, revoked: true },
        EventKind::AddressChanged { ipv4 },
        EventKind::MemberAdded { node_id: node_id.clone(), name: name.clone() },
        EventKind::MemberChanged { node_id: node_id.clone(), name: name.clone() },
        EventKind::MemberRemoved { node_id: node_id.clone(), name: name.clone() },
        EventKind::MemberLiveness {
            node_id: node_id.clone(),
            name: name.clone(),
            liveness: meshd::Liveness::Suspected,
        },
        EventKind::TunnelUp { node_id: node_id.clone(), name: name.clone() },
        EventKind::TunnelDown { node_id: node_id.clone(), name: name.clone() },
        EventKind::InviteCreated { id: id.clone() },
        EventKind::InviteUsed { id: id.clone(), node_id: node_id.clone() },
        EventKind::InviteRevoked { id },
        EventKind::BanAdded {
            node_id: node_id.clone(),
            name: Some(name),
            reason: meshd::BanReason::InvalidMessages,
        },
        EventKind::BanRemoved { node_id: node_id.clone(), name: None },
        EventKind::Session {
            session: meshd::SessionName::Fallback,
            state: meshd::SessionState::Opening,
            error: Some(error.clone()),
        },
        EventKind::SessionHealth {
            session: meshd::SessionName::Control,
            health: meshd::SessionHealth::Replacing,
            silent: 42,
            replaced: true,
        },
        EventKind::DaemonUp { daemon: daemon.clone() },
        EventKind::DaemonDown { daemon, error },
        EventKind::InterfaceUp { interface: "i2plan0".to_owned() },
        EventKind::KeyRotated { epoch: u32::MAX },
        EventKind::ConfigChanged { key, value },
        EventKind::JoinProgress { step: meshd::JoinStep::Asking },
        EventKind::Log {
            level: "warn".to_owned(),
            target: "i2plan_meshd".to_owned(),
            message: "a b=1".to_owned(),
        },
    ];
    let number = |(number, kind)| meshd::Event { number, at: testing::NOW * 1000, kind };
    let peer = meshd::PeerTraffic { node_id, tx_bytes: 1, rx_bytes: 2, last_handshake: Some(3), rtt: None };
    meshd::Events {
        events: (7..).zip(all).map(number).collect(),
        next: cursor(29),
        lost: true,
        traffic: Some(meshd::Traffic { at: 1, peers: vec![peer] }),
    }
}

fn settings() -> Vec<meshd::Setting> {
    use meshd::Source;
    let sources = [
        Source::Default,
        Source::File { path: "/etc/i2plan/config.toml".to_owned(), line: 3 },
        Source::Environment,
        Source::Runtime,
    ];
    let setting = |source| meshd::Setting {
        key: "node.name".to_owned(),
        variable: "I2PLAN_NODE_NAME".to_owned(),
        value: Some("web".to_owned()),
        source,
        live: true,
        pending: None,
    };
    sources.into_iter().map(setting).collect()
}

fn change() -> meshd::ConfigChange {
    let (key, after) = ("node.name".to_owned(), Some("web".to_owned()));
    meshd::ConfigChange { key, before: None, after, restart: false }
}

fn tund_requests() -> Vec<(&'static str, tund::Request)> {
    let interface =
        tund::NewInterface { name: "i2plan0".to_owned(), network: testing::charter(0).network(), mtu: 1280 };
    let member = |depth| tund::Member { record: Box::new(testing::record(depth)), keepalive: 25 };
    let endings = vec![
        tund::Ending::Revocation(Box::new(testing::revocation(0, 2))),
        tund::Ending::Resignation(Box::new(testing::resignation(1))),
    ];
    vec![
        ("configure", tund::Request::Configure(interface, 7)),
        ("attach", tund::Request::AttachSession(session())),
        ("take", tund::Request::TakeSessions),
        ("begin-sync", tund::Request::BeginSync),
        ("members", tund::Request::Members(vec![member(1), member(3)])),
        ("endings", tund::Request::Endings(endings)),
        ("keepalives", tund::Request::Keepalives(vec![(testing::node(1), 0)])),
        ("remove", tund::Request::Remove(vec![testing::node(1)])),
        ("stats", tund::Request::Stats),
        ("test", tund::Request::TestSession(vec![testing::node(1)])),
        ("static-peers", tund::Request::StaticPeers),
        ("found", tund::Request::Found(Endpoint::Destination(testing::destination(101).into()))),
    ]
}

fn tund_replies() -> Vec<(&'static str, tund::Reply)> {
    let configured = tund::Configured { interface: "i2plan0".to_owned(), public_key: [1; 32], epoch: 1 };
    let taken = tund::Taken { refused: vec![testing::node(1)], reason: Some("the key".to_owned()) };
    vec![
        ("configured", tund::Reply::Configured(configured)),
        ("done", tund::Reply::Done),
        ("taken", tund::Reply::Taken(taken)),
        ("sessions", tund::Reply::Sessions { data: Some(session()), control: None }),
        ("static-peers", tund::Reply::StaticPeers(vec![static_peer()])),
    ]
}

fn static_peer() -> tund::StaticPeerReport {
    tund::StaticPeerReport {
        endpoint: Some((testing::destination(101).hash(), true)),
        allowed_ips: vec![Prefix::new(Ipv4Addr::new(10, 9, 0, 0).into(), 24)],
        keepalive: 25,
        has_preshared_key: true,
        stats: tund::PeerStats {
            node: testing::node(1),
            last_handshake: Some(7),
            tx_packets: 1,
            tx_bytes: 2,
            rx_packets: 3,
            rx_bytes: 4,
            queue_drops: 5,
            rx_drops: 6,
            unanswered: 7,
        },
    }
}

fn session() -> tund::Session {
    tund::Session { id: "i2plan-1".to_owned(), destination: testing::destination(101) }
}
