//! What requests and replies are on a socket, byte for byte: processes of one version of the protocol must understand
//! each other, whatever build they are of.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fmt::Debug;
use std::net::Ipv4Addr;

use i2plan_ipc::api::order::{Executed, Order, OrderTarget, OrderToken, PreparedOrder};
use i2plan_ipc::api::{keyd, meshd, tund, webd};
use i2plan_ipc::frame::{decode_body, encode_body};
use i2plan_ipc::hello::{Landlock, Reply, Request};
use i2plan_ipc::remedy::{AskInviter, OrderWanted};
use i2plan_ipc::secret::{SecretKey, SecretText};
use i2plan_ipc::version::Version;
use i2plan_ipc::{ApiError, ErrorKind, Remedy};
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::endpoint::Endpoint;
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::invite::InviteId;
use i2plan_proto::liveness::Presence;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Compares what each message is encoded as with what it should be, and reads it back.
#[track_caller]
fn are_encoded_as<T: Serialize + DeserializeOwned + Debug>(messages: Vec<(T, &str)>) {
    for (message, expected) in messages {
        let body = encode_body(&message).unwrap();
        assert_eq!(body.escape_ascii().to_string(), expected, "{message:?}");
        let read = decode_body::<T>(&body).unwrap();
        assert_eq!(encode_body(&read).unwrap(), body, "{message:?}");
    }
}

fn network() -> NetworkId {
    NetworkId(*b"a network of 32 bytes, as an id.")
}

fn node() -> NodeId {
    NodeId(*b"a node's identity, 32 bytes long")
}

fn version() -> Version {
    Version { version: "1.2".to_owned(), commit: "c0".to_owned(), built_at: 7 }
}

#[test]
fn requests_to_keyd() {
    let connector = keyd::Connector { pid: 7, version: version(), landlock: Landlock::Full };
    let open = keyd::OpenSession {
        kind: keyd::SessionKind::Data,
        id: "x".to_owned(),
        tunnel_length: 1,
        tunnel_length_variance: 0,
        tunnel_quantity: 2,
        tunnel_backup_quantity: 0,
        over_tcp: false,
    };
    are_encoded_as(vec![
        (keyd::Request::Identity, r"\xa8Identity"),
        (
            keyd::Request::OpenSession(open),
            r"\x81\xabOpenSession\x87\xa4kind\xa4data\xa2id\xa1x\xadtunnel_length\x01\xb6tunnel_length_variance\x00\xaftunnel_quantity\x02\xb6tunnel_backup_quantity\x00\xa8over_tcp\xc2",
        ),
        (
            keyd::Request::AwaitOrder(connector),
            r"\x81\xaaAwaitOrder\x83\xa3pid\x07\xa7version\x83\xa7version\xa31.2\xa6commit\xa2c0\xa8built_at\x07\xa8landlock\xa4full",
        ),
        (keyd::Request::Connected(7), r"\x81\xa9Connected\x07"),
        (
            keyd::Request::NotConnected(keyd::NotConnected { order: 7, reason: keyd::DialError::TimedOut }),
            r"\x81\xacNotConnected\x82\xa5order\x07\xa6reason\xa9timed_out",
        ),
        (
            keyd::Request::SignPulse { network: network(), life: Presence::Away },
            r"\x81\xa9SignPulse\x82\xa7network\xc4 a network of 32 bytes, as an id.\xa4life\xc4\x01\x01",
        ),
        (keyd::Request::Recover(Vec::new()), r"\x81\xa7Recover\x90"),
        (keyd::Request::Pinned, r"\xa6Pinned"),
        (
            keyd::Request::PrepareOrder(Box::new(Order::RevokeInvite(InviteId([65; 16])))),
            r"\x81\xacPrepareOrder\x81\xacRevokeInvite\xc4\x10AAAAAAAAAAAAAAAA",
        ),
        (
            keyd::Request::ConfirmOrder(OrderToken([66; 16])),
            r"\x81\xacConfirmOrder\xdc\x00\x10BBBBBBBBBBBBBBBB",
        ),
        (
            keyd::Request::CertifyWireGuard { network: network(), rotate: true },
            r"\x81\xb0CertifyWireGuard\x82\xa7network\xc4 a network of 32 bytes, as an id.\xa6rotate\xc3",
        ),
        (keyd::Request::TrustAnchor(network()), r"\x81\xabTrustAnchor\xc4 a network of 32 bytes, as an id."),
        (
            keyd::Request::LeaseWireGuard { network: network(), epoch: 300 },
            r"\x81\xaeLeaseWireGuard\x82\xa7network\xc4 a network of 32 bytes, as an id.\xa5epoch\xcd\x01,",
        ),
        (keyd::Request::LeaseStatic, r"\xabLeaseStatic"),
    ]);
}

#[test]
fn replies_of_keyd() {
    let address = Ipv4Addr::new(10, 42, 0, 3);
    let target = OrderTarget::Pinned { network: network(), address };
    let prepared = PreparedOrder { token: OrderToken([66; 16]), target };
    are_encoded_as(vec![
        (keyd::Reply::Connector(None), r"\x81\xa9Connector\xc0"),
        (keyd::Reply::Order(7), r"\x81\xa5Order\x07"),
        (keyd::Reply::Done, r"\xa4Done"),
        (keyd::Reply::NeedsOrder, r"\xaaNeedsOrder"),
        (
            keyd::Reply::StaticKey(SecretKey([68; 32])),
            r"\x81\xa9StaticKey\xc4 DDDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD",
        ),
        (keyd::Reply::Pinned(None), r"\x81\xa6Pinned\xc0"),
        (
            keyd::Reply::OrderPrepared(Box::new(prepared)),
            r"\x81\xadOrderPrepared\x82\xa5token\xdc\x00\x10BBBBBBBBBBBBBBBB\xa6target\x81\xa6Pinned\x82\xa7network\xc4 a network of 32 bytes, as an id.\xa7address\x94\n*\x00\x03",
        ),
        (
            keyd::Reply::OrderExecuted(Box::new(Executed::Forgotten(network()))),
            r"\x81\xadOrderExecuted\x81\xa9Forgotten\xc4 a network of 32 bytes, as an id.",
        ),
        (keyd::Reply::Noted(keyd::Noted::Foreign), r"\x81\xa5Noted\xa7Foreign"),
        (
            keyd::Reply::Recovered { known: 3, complete: true },
            r"\x81\xa9Recovered\x82\xa5known\x03\xa8complete\xc3",
        ),
    ]);
}

#[test]
fn requests_to_meshd() {
    let (node_id, id) = ("n".to_owned(), "i".to_owned());
    let subnet = Some("10.9.0.0/16".to_owned());
    let name = Some("office".to_owned());
    let create =
        meshd::Request::CreateInvite { expires_in: 3600, max_uses: None, addresses: Some(16), subnet, name };
    let after = Some(meshd::Cursor { run: u64::MAX, number: 7 });
    are_encoded_as(vec![
        (meshd::Request::Status, r"\xa6Status"),
        (
            meshd::Request::CheckNetwork { network: "w".to_owned(), subnet: "s".to_owned() },
            r"\x81\xacCheckNetwork\x82\xa7network\xa1w\xa6subnet\xa1s",
        ),
        (
            create,
            r"\x81\xacCreateInvite\x85\xaaexpires_in\xcd\x0e\x10\xa8max_uses\xc0\xa9addresses\x10\xa6subnet\xab10.9.0.0/16\xa4name\xa6office",
        ),
        (
            meshd::Request::RevokeInvite { id, with_members: true },
            r"\x81\xacRevokeInvite\x82\xa2id\xa1i\xacwith_members\xc3",
        ),
        (
            meshd::Request::Grant { node_id: node_id.clone(), addresses: 16 },
            r"\x81\xa5Grant\x82\xa7node_id\xa1n\xa9addresses\x10",
        ),
        (
            meshd::Request::AddBan { node_id, description: "d".to_owned(), duration: Some(300) },
            r"\x81\xa6AddBan\x83\xa7node_id\xa1n\xabdescription\xa1d\xa8duration\xcd\x01,",
        ),
        (meshd::Request::Leave, r"\xa5Leave"),
        (meshd::Request::Counters, r"\xa8Counters"),
        (meshd::Request::Ping { node_id: "n".to_owned() }, r"\x81\xa4Ping\x81\xa7node_id\xa1n"),
        (meshd::Request::Enact(Box::new(Executed::Recovered(3))), r"\x81\xa5Enact\x81\xa9Recovered\x03"),
        (
            meshd::Request::Join { invite: SecretText::new("code".to_owned()) },
            r"\x81\xa4Join\x81\xa6invite\xa4code",
        ),
        (
            meshd::Request::Events { after, wait: 30_000, traffic: true },
            r"\x81\xa6Events\x83\xa5after\x82\xa3run\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa6number\x07\xa4wait\xcdu0\xa7traffic\xc3",
        ),
        (
            meshd::Request::SetConfig { key: "k".to_owned(), value: "v".to_owned() },
            r"\x81\xa9SetConfig\x82\xa3key\xa1k\xa5value\xa1v",
        ),
    ]);
}

#[test]
fn replies_of_meshd() {
    let next = meshd::Cursor { run: 1, number: 2 };
    let event = meshd::Event { number: 1, at: 9, kind: meshd::EventKind::KeyRotated { epoch: 4 } };
    let events = meshd::Events { events: vec![event], next, lost: false, traffic: None };
    let to_order = meshd::ToOrder { order: Order::Recover, below: Vec::new(), founded: true };
    are_encoded_as(vec![
        (meshd::Reply::Peers(Vec::new()), r"\x81\xa5Peers\x90"),
        (meshd::Reply::Acceptable, r"\xaaAcceptable"),
        (
            meshd::Reply::ToOrder(Box::new(to_order)),
            r"\x81\xa7ToOrder\x83\xa5order\xa7Recover\xa5below\x90\xa7founded\xc3",
        ),
        (meshd::Reply::Revoked(vec!["n".to_owned()]), r"\x81\xa7Revoked\x91\xa1n"),
        (meshd::Reply::Left("w".to_owned()), r"\x81\xa4Left\xa1w"),
        (meshd::Reply::Pinged { milliseconds: 3 }, r"\x81\xa6Pinged\x81\xacmilliseconds\x03"),
        (meshd::Reply::KeysRecovered { delegations: 3 }, r"\x81\xadKeysRecovered\x81\xabdelegations\x03"),
        (
            meshd::Reply::Events(Box::new(events)),
            r"\x81\xa6Events\x84\xa6events\x91\x84\xa6number\x01\xa2at\t\xa5event\xabkey_rotated\xa5epoch\x04\xa4next\x82\xa3run\x01\xa6number\x02\xa4lost\xc2\xa7traffic\xc0",
        ),
    ]);
}

#[test]
fn requests_to_tund() {
    let interface = tund::NewInterface { name: "i2plan0".to_owned(), network: network(), mtu: 1280 };
    let limits = tund::Limits { tunnels: 7, drain: std::time::Duration::from_millis(1500) };
    let subnet = "10.9.0.0/16".parse().unwrap();
    are_encoded_as(vec![
        (
            tund::Request::Configure(interface, 7),
            r"\x81\xa9Configure\x92\x83\xa4name\xa7i2plan0\xa7network\xc4 a network of 32 bytes, as an id.\xa3mtu\xcd\x05\x00\x07",
        ),
        (tund::Request::TakeSessions, r"\xacTakeSessions"),
        (
            tund::Request::TestSession(vec![node()]),
            r"\x81\xabTestSession\x91\xc4 a node\'s identity, 32 bytes long",
        ),
        (
            tund::Request::Keepalives(vec![(node(), 25)]),
            r"\x81\xaaKeepalives\x91\x92\xc4 a node\'s identity, 32 bytes long\x19",
        ),
        (tund::Request::Remove(vec![node()]), r"\x81\xa6Remove\x91\xc4 a node\'s identity, 32 bytes long"),
        (
            tund::Request::Limits(limits),
            r"\x81\xa6Limits\x82\xa7tunnels\x07\xa5drain\x82\xa4secs\x01\xa5nanos\xce\x1d\xcde\x00",
        ),
        (
            tund::Request::CheckNetwork(subnet, Some(network())),
            r"\x81\xacCheckNetwork\x92\xc4\x05\n\t\x00\x00\x10\xc4 a network of 32 bytes, as an id.",
        ),
        (tund::Request::FindSubnet(subnet), r"\x81\xaaFindSubnet\xc4\x05\n\t\x00\x00\x10"),
        (tund::Request::StaticPeers, r"\xabStaticPeers"),
        (
            tund::Request::Found(Endpoint::Hash(DestinationHash([0; 32]))),
            r"\x81\xa5Found\xd9<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b32.i2p",
        ),
    ]);
}

#[test]
fn replies_of_tund() {
    let configured = tund::Configured { interface: "i2plan0".to_owned(), public_key: [67; 32], epoch: 1 };
    let taken = tund::Taken { refused: vec![node()], reason: Some("r".to_owned()) };
    are_encoded_as(vec![
        (
            tund::Reply::Configured(configured),
            r"\x81\xaaConfigured\x83\xa9interface\xa7i2plan0\xaapublic_key\xdc\x00 CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\xa5epoch\x01",
        ),
        (tund::Reply::Done, r"\xa4Done"),
        (tund::Reply::Tested(true), r"\x81\xa6Tested\xc3"),
        (
            tund::Reply::Taken(taken),
            r"\x81\xa5Taken\x82\xa7refused\x91\xc4 a node\'s identity, 32 bytes long\xa6reason\xa1r",
        ),
        (tund::Reply::StaticPeers(Vec::new()), r"\x81\xabStaticPeers\x90"),
        (tund::Reply::Subnet("10.9.0.0/16".parse().unwrap()), r"\x81\xa6Subnet\xc4\x05\n\t\x00\x00\x10"),
        (
            tund::Reply::Sessions { data: None, control: None },
            r"\x81\xa8Sessions\x82\xa4data\xc0\xa7control\xc0",
        ),
    ]);
}

#[test]
fn what_a_static_interface_is() {
    let peer = tund::StaticPeer {
        public_key: [67; 32],
        preshared_key: None,
        endpoint: None,
        allowed_ips: vec!["10.9.0.2/32".parse().unwrap(), "fd09::/64".parse().unwrap()],
        keepalive: 25,
    };
    let interface = tund::StaticInterface {
        name: "wg0".to_owned(),
        addresses: vec!["10.9.0.1/24".parse().unwrap()],
        mtu: 1280,
        table: Some(254),
        peers: vec![peer],
    };
    are_encoded_as(vec![(
        interface,
        r"\x85\xa4name\xa3wg0\xa9addresses\x91\xab10.9.0.1/24\xa3mtu\xcd\x05\x00\xa5table\xcc\xfe\xa5peers\x91\x85\xaapublic_key\xdc\x00 CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC\xadpreshared_key\xc0\xa8endpoint\xc0\xaballowed_ips\x92\xa810.9.0.2\xa9fd09::/64\xa9keepalive\x19",
    )]);
}

#[test]
fn requests_to_webd_and_its_replies() {
    are_encoded_as(vec![
        (webd::Request::Sessions, r"\xa8Sessions"),
        (webd::Request::CertificateExpiry, r"\xb1CertificateExpiry"),
        (webd::Request::CreateLink { control: true }, r"\x81\xaaCreateLink\x81\xa7control\xc3"),
        (webd::Request::EndSessions { id: None }, r"\x81\xabEndSessions\x81\xa2id\xc0"),
    ]);
    let url = SecretText::new("u".to_owned());
    are_encoded_as(vec![
        (webd::Reply::Ended(2), r"\x81\xa5Ended\x02"),
        (webd::Reply::CertificateExpiry(Some(3)), r"\x81\xb1CertificateExpiry\x03"),
        (
            webd::Reply::Link(webd::Link {
                url,
                expires_in: 300,
                control: false,
                fingerprint: None,
                socket: Some("/s".to_owned()),
            }),
            r"\x81\xa4Link\x85\xa3url\xa1u\xaaexpires_in\xcd\x01,\xa7control\xc2\xabfingerprint\xc0\xa6socket\xa2/s",
        ),
    ]);
}

#[test]
fn requests_by_their_types() {
    are_encoded_as(vec![
        (meshd::GetStatus.into(), r"\xa6Status"),
        (
            meshd::GrantAddresses { node_id: "n".to_owned(), addresses: 16 }.into(),
            r"\x81\xa5Grant\x82\xa7node_id\xa1n\xa9addresses\x10",
        ),
        (
            meshd::Request::from(meshd::Enact(Box::new(Executed::Recovered(3)))),
            r"\x81\xa5Enact\x81\xa9Recovered\x03",
        ),
    ]);
    let failure = keyd::NotConnected { order: 7, reason: keyd::DialError::TimedOut };
    are_encoded_as(vec![
        (keyd::Request::from(keyd::Connected(7)), r"\x81\xa9Connected\x07"),
        (failure.into(), r"\x81\xacNotConnected\x82\xa5order\x07\xa6reason\xa9timed_out"),
    ]);
}

#[test]
fn envelopes() {
    are_encoded_as(vec![(
        Request { id: 1, body: meshd::Request::Status },
        r"\x82\xa2id\x01\xa4body\xa6Status",
    )]);
    let refused = ApiError { kind: ErrorKind::NotFound, message: "m".to_owned(), remedy: None };
    are_encoded_as(vec![
        (Reply { id: 1, result: Ok(tund::Reply::Done) }, r"\x82\xa2id\x01\xa6result\x81\xa2Ok\xa4Done"),
        (
            Reply { id: 300, result: Err(refused) },
            r"\x82\xa2id\xcd\x01,\xa6result\x81\xa3Err\x83\xa4kind\xa9not_found\xa7message\xa1m\xa6remedy\xc0",
        ),
    ]);
}

#[test]
fn remedies() {
    let ask = AskInviter { inviter: "a".to_owned(), node: "b".to_owned(), addresses: 16 };
    let order = OrderWanted::Revoke { node: "b".to_owned() };
    are_encoded_as(vec![
        (Remedy::LeaveFirst, r"\x81\xa4name\xableave_first"),
        (Remedy::advice("w"), r"\x82\xa4name\xa6advice\xa4text\xa1w"),
        (
            Remedy::AskInviter(ask),
            r"\x84\xa4name\xabask_inviter\xa7inviter\xa1a\xa4node\xa1b\xa9addresses\x10",
        ),
        (
            Remedy::GiveOrder { order },
            r"\x82\xa4name\xaagive_order\xa5order\x82\xa4name\xa6revoke\xa4node\xa1b",
        ),
    ]);
    // One that is not known makes the message another's.
    assert!(decode_body::<Remedy>(b"\x81\xa4name\xa1x").is_err());
}
