use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use i2plan_ipc::api::meshd::{Daemon, MessageCounts, Sam, StaticStatus, Tunnel, WireGuardKey, WriteCounts};
use i2plan_ipc::api::tund::Handshakes;
use i2plan_ipc::fixtures;
use i2plan_ipc::histogram::Histogram;
use proptest::prelude::*;

use super::*;

/// A family as a parser sees it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    /// Values by the name of the sample and its labels.
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

/// Parses a document strictly: each family is there once, with its help and its type before its samples; no series is
/// there twice; names, labels and escapes are those of the format.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            check_name(name, ":");
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} is there twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, current);
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{kind}");
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (name, labels, value) = parse_sample(line);
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line}: no family"));
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line}");
            if family.kind == "counter" {
                assert!(name.ends_with("_total"), "{name}");
                assert!(value >= 0.0);
            }
            assert!(family.samples.insert((name, labels), value).is_none(), "{line} is there twice");
        }
    }
    families
}

fn check_name(name: &str, more: &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    assert!(!name.is_empty() && name.chars().all(fits), "{name:?}");
    assert!(!name.starts_with(|c: char| c.is_ascii_digit()), "{name:?}");
}

fn parse_sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    check_name(name, ":");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        let mut inner = inner;
        loop {
            let (label, after) = inner.split_once("=\"").expect("a label");
            check_name(label, "");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().expect("the end of the value") {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().expect("an escape").1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("\\{c} is no escape"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            match after[end + 1..].strip_prefix(',') {
                Some(next) => inner = next,
                None => {
                    rest = after[end + 1..].strip_prefix('}').expect("the end of the labels");
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("a value").parse().expect("a number");
    (name.to_owned(), labels, value)
}

fn peer(number: u32, handshake: Option<u64>) -> Peer {
    Peer {
        last_heard: Some(3),
        rtt: Some(1234),
        last_handshake: handshake,
        tx_packets: 1,
        tx_bytes: 2,
        rx_packets: 3,
        rx_bytes: 4,
        queue_drops: 5,
        rx_drops: 6,
        ..fixtures::peer(&format!("node{number:05}"), "w\"e\\b\n")
    }
}

fn snapshot() -> Snapshot {
    let meshd = Daemon {
        version: Some(Version { version: "0.1.0".to_owned(), commit: "c0".to_owned(), built_at: 0 }),
        ..fixtures::daemon("meshd")
    };
    let tund = Daemon { error: Some("gone".to_owned()), ..fixtures::daemon("tund") };
    let silent = Session { health: SessionHealth::Replacing, silent: Some(42), ..fixtures::session() };
    let status = fixtures::status();
    Snapshot {
        status: Status {
            network: Some(fixtures::network()),
            sam: Sam { data: silent, ..status.sam },
            tunnel: Tunnel {
                interface: Some("i2plan0".to_owned()),
                drops: Some(Drops { unknown: 9, ..Drops::default() }),
                ..status.tunnel
            },
            daemons: vec![meshd, tund],
            ..status
        },
        counters: Counters {
            started_at: 1_800_000_000,
            messages: MessageCounts {
                sent: 10,
                received: 11,
                limited: 12,
                pings: 13,
                comparisons: 14,
                news: 15,
                announcements: 16,
                reconnections: 17,
                returns: 18,
                departures_sent: 19,
                departures_received: 20,
            },
            handshakes: Handshakes {
                initiated: 21,
                received: 22,
                succeeded: 23,
                failed: 24,
                ..Handshakes::default()
            },
            state_writes: WriteCounts { count: 2, failed: 1, micros: 1_500_000 },
            rounds: Histogram { count: 25, ..Histogram::default() },
            sends: Histogram { count: 26, ..Histogram::default() },
            events: vec![("member_added".to_owned(), 4), ("tunnel_up".to_owned(), 5)],
        },
        peers: vec![
            peer(1, Some(10)),
            peer(2, Some(500)),
            Peer { tx_packets: 0, rx_packets: 0, queue_drops: 0, ..peer(3, None) },
        ],
        routes: 3,
        bans: Vec::new(),
        invites: Vec::new(),
        keys: Some(Keys {
            node_id: "id".to_owned(),
            sealed: false,
            control: i2plan_ipc::api::meshd::ControlDestination { b32: String::new(), base64: String::new() },
            network: None,
            wireguard: Some(WireGuardKey {
                public_key: String::new(),
                epoch: 1,
                not_before: 0,
                not_after: 1_900_000_000,
            }),
        }),
    }
}

#[test]
fn a_static_interface_has_what_there_is_without_a_mesh() {
    let mut snapshot = snapshot();
    snapshot.status.network = None;
    snapshot.status.sam.control.state = SessionState::Down;
    snapshot.status.sam.data.health = SessionHealth::Fine;
    let static_peer = StaticPeer {
        public_key: "key=".to_owned(),
        endpoint: None,
        resolved: false,
        allowed_ips: Vec::new(),
        keepalive: 25,
        preshared_key: false,
        last_handshake: Some(7),
        unanswered: 0,
        tx_packets: 1,
        tx_bytes: 2,
        rx_packets: 3,
        rx_bytes: 4,
        queue_drops: 5,
        rx_drops: 6,
    };
    snapshot.status.static_interface =
        Some(StaticStatus { style: "raw".to_owned(), destination: None, peers: vec![static_peer] });
    let families = parse(&render(Some(&snapshot)).finish());
    let labels = &[("peer", "key=")][..];
    for (sample, labels, expected) in [
        ("i2plan_i2p_healthy", &[][..], Some(1.0)),
        ("i2plan_member", &[], Some(0.0)),
        ("i2plan_session_up", &[("session", "control")], None),
        ("i2plan_session_up", &[("session", "data")], Some(1.0)),
        ("i2plan_peers_total", &[], Some(1.0)),
        ("i2plan_peers_connected", &[], Some(1.0)),
        ("i2plan_peer_connected", labels, Some(1.0)),
        ("i2plan_peer_received_bytes_total", labels, Some(4.0)),
        ("i2plan_peer_receive_drops_total", labels, Some(6.0)),
        ("i2plan_messages_sent_total", &[], None),
        ("i2plan_drops_total", &[("reason", "unknown")], Some(9.0)),
    ] {
        assert_eq!(value(&families, sample, labels), expected, "{sample}");
    }
}

fn full() -> BTreeMap<String, Family> {
    let mut out = render(Some(&snapshot()));
    let mut durations = Histogram::default();
    durations.observe(Duration::from_millis(3));
    durations.observe(Duration::from_secs(100));
    out.histogram("i2plan_rpc_request_duration_seconds", "Durations of calls over JSON-RPC.", &durations);
    parse(&out.finish())
}

fn value(families: &BTreeMap<String, Family>, sample: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let key = (sample.to_owned(), labels);
    families.values().find_map(|family| family.samples.get(&key).copied())
}

#[test]
fn values_are_those_of_the_node() {
    let families = full();
    for (sample, labels, expected) in [
        ("i2plan_up", &[][..], 1.0),
        ("i2plan_daemon_up", &[("daemon", "meshd")], 1.0),
        ("i2plan_daemon_up", &[("daemon", "tund")], 0.0),
        ("i2plan_start_time_seconds", &[], 1_800_000_000.0),
        ("i2plan_i2p_healthy", &[], 0.0),
        ("i2plan_session_silent_seconds", &[("session", "data")], 42.0),
        ("i2plan_peers_total", &[], 3.0),
        ("i2plan_peers_connected", &[], 1.0),
        ("i2plan_peers", &[("liveness", "present")], 3.0),
        ("i2plan_routes_total", &[], 3.0),
        ("i2plan_banned_peers_total", &[], 0.0),
        ("i2plan_messages_sent_total", &[], 10.0),
        ("i2plan_ratelimit_rejections_total", &[], 12.0),
        ("i2plan_gossip_heartbeats_sent_total", &[], 13.0),
        ("i2plan_antientropy_rounds_total", &[], 14.0),
        ("i2plan_gossip_messages_received_total", &[], 15.0),
        ("i2plan_gossip_rounds_total", &[], 16.0),
        ("i2plan_reconnection_attempts_total", &[], 17.0),
        ("i2plan_reconnection_successes_total", &[], 18.0),
        ("i2plan_gossip_leaves_sent_total", &[], 19.0),
        ("i2plan_gossip_leaves_received_total", &[], 20.0),
        ("i2plan_gossip_round_duration_seconds_count", &[], 25.0),
        ("i2plan_message_send_duration_seconds_count", &[], 26.0),
        ("i2plan_gossip_peers_discovered_total", &[], 4.0),
        ("i2plan_gossip_peers_pruned_total", &[], 0.0),
        ("i2plan_tunnels_begun_total", &[], 5.0),
        ("i2plan_handshakes_initiated_total", &[], 21.0),
        ("i2plan_handshakes_received_total", &[], 22.0),
        ("i2plan_handshakes_succeeded_total", &[], 23.0),
        ("i2plan_handshakes_failed_total", &[], 24.0),
        ("i2plan_state_write_seconds_total", &[], 1.5),
        ("i2plan_drops_total", &[("reason", "unknown")], 9.0),
        ("i2plan_wireguard_key_expiry_time_seconds", &[], 1_900_000_000.0),
        ("i2plan_peer_sent_bytes_total", &[("peer", "node00001")], 2.0),
        ("i2plan_peer_round_trip_seconds", &[("peer", "node00002")], 1.234),
        ("i2plan_peer_connected", &[("peer", "node00002")], 0.0),
        ("i2plan_peer_info", &[("peer", "node00001"), ("name", "w\"e\\b\n"), ("ipv4", "10.42.0.2")], 1.0),
        ("i2plan_rpc_request_duration_seconds_bucket", &[("le", "0.005")], 1.0),
        ("i2plan_rpc_request_duration_seconds_bucket", &[("le", "10")], 1.0),
        ("i2plan_rpc_request_duration_seconds_bucket", &[("le", "+Inf")], 2.0),
        ("i2plan_rpc_request_duration_seconds_sum", &[], 100.003),
        ("i2plan_rpc_request_duration_seconds_count", &[], 2.0),
    ] {
        assert_eq!(value(&families, sample, labels), Some(expected), "{sample} {labels:?}");
    }
    // It never had a tunnel.
    assert_eq!(value(&families, "i2plan_peer_sent_bytes_total", &[("peer", "node00003")]), None);
}

#[test]
fn without_a_node_only_that_is_said() {
    let families = parse(&render(None).finish());
    assert_eq!(families.len(), 1);
    assert_eq!(value(&families, "i2plan_up", &[]), Some(0.0));
}

#[test]
fn however_many_members_there_are_the_series_are_bounded() {
    let many = (0..5000).map(|number| peer(number, Some(1))).collect();
    let families = parse(&render(Some(&Snapshot { peers: many, ..snapshot() })).finish());
    for (name, family) in &families {
        assert!(family.samples.len() <= MAX_PEERS, "{name} has {}", family.samples.len());
    }
    assert_eq!(value(&families, "i2plan_peers_without_series", &[]), Some(4000.0));
    assert_eq!(value(&families, "i2plan_peers_total", &[]), Some(5000.0));
}

/// The table of docs/metrics.md, from the families.
#[test]
fn the_documentation_lists_every_family() {
    let documented: BTreeSet<_> = include_str!("../../../docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `i2plan_"))
        .map(str::to_owned)
        .collect();
    let families = full();
    let expected: BTreeSet<_> = families
        .iter()
        .map(|(name, family)| {
            let labels: BTreeSet<_> = family
                .samples
                .keys()
                .flat_map(|(_, labels)| labels.iter().map(|(label, _)| format!("`{label}`")))
                .filter(|label| label != "`le`")
                .collect();
            let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
            format!("| `{name}` | {} | {labels} | {} |", family.kind, family.help)
        })
        .collect();
    let list = |lines: &BTreeSet<String>| lines.iter().cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(list(&documented), list(&expected));
}

proptest! {
    #[test]
    fn whatever_a_member_calls_itself_the_document_can_be_read(name in ".*") {
        let peers = vec![Peer { name: name.clone(), ..peer(1, Some(1)) }];
        let text = render(Some(&Snapshot { peers, ..snapshot() })).finish();
        // Other line ends than \n are part of a line.
        prop_assume!(!name.contains('\r'));
        let families = parse(&text);
        let labels = [("peer", "node00001"), ("name", name.as_str()), ("ipv4", "10.42.0.2")];
        prop_assert_eq!(value(&families, "i2plan_peer_info", &labels), Some(1.0));
    }
}
