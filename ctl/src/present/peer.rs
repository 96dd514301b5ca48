//! The other members.

use i2plan_ipc::api::meshd::{Liveness, Peer};

use super::member::Names;
use super::table::{Column, Rendered, Table};
use super::units;

/// WireGuard's REJECT_AFTER_TIME, seconds: a session is dead when it gets that old without a new handshake.
pub const SESSION_LIFETIME: u64 = 180;

const COLUMNS: &[Column] = &[
    Column::text("NAME").shrinks_to(12),
    Column::text("IPV4"),
    Column::text("IPV6").dispensable(4),
    Column::text("RANGE").dispensable(6).optional(),
    Column::text("STATE"),
    Column::number("HANDSHAKE").dispensable(1),
    Column::number("HEARD").dispensable(2),
    Column::number("RTT").dispensable(5),
    Column::number("RX"),
    Column::number("TX"),
    Column::text("DROPS").dispensable(3),
];

/// By name; names may repeat, ids do not.
pub fn sort(peers: &mut [Peer]) {
    peers.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
}

/// What a list shows of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name, with its short node id if others have the same.
    pub name: String,
    /// Its IPv4 address.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
    /// The address ranges that it holds; empty for a single address.
    pub ranges: String,
    /// What it is to this node at present.
    pub state: &'static str,
    /// How long ago the last WireGuard handshake was.
    pub handshake: String,
    /// How long ago its last control message came.
    pub heard: String,
    /// How long its last answer to a control message took.
    pub rtt: String,
    /// Bytes received from it.
    pub received: String,
    /// Bytes sent to it.
    pub sent: String,
    /// Packets that were dropped.
    pub drops: String,
}

impl Row {
    /// The row of a member in a list with these names.
    #[must_use]
    pub fn new(peer: &Peer, names: &Names) -> Self {
        Self {
            name: names.label(&peer.name, &peer.node_id),
            ipv4: peer.ipv4.to_string(),
            ipv6: peer.ipv6.to_string(),
            ranges: ranges(&peer.ranges),
            state: state(peer),
            handshake: units::ago(peer.last_handshake),
            heard: units::ago(peer.last_heard),
            rtt: units::or_dash(peer.rtt.map(units::milliseconds)),
            received: units::bytes(peer.rx_bytes),
            sent: units::bytes(peer.tx_bytes),
            drops: drops(peer),
        }
    }
}

/// The names of members, to tell those of one name apart.
#[must_use]
pub fn names<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> Names {
    Names::of(peers.into_iter().map(|peer| peer.name.as_str()))
}

/// A table of members, none of its lines wider than `width` if that is given.
#[must_use]
pub fn render(peers: &[Peer], width: Option<usize>) -> Rendered {
    let names = names(peers);
    let mut table = Table::new(COLUMNS);
    for peer in peers {
        let row = Row::new(peer, &names);
        table.row([
            row.name,
            row.ipv4,
            row.ipv6,
            row.ranges,
            row.state.to_owned(),
            row.handshake,
            row.heard,
            row.rtt,
            row.received,
            row.sent,
            row.drops,
        ]);
    }
    table.render(width)
}

/// The address ranges that a member holds, in a table; none for a single address, which has a column of its own.
#[must_use]
pub fn ranges(ranges: &[String]) -> String {
    match ranges {
        [] => String::new(),
        [range] if range.ends_with("/32") => String::new(),
        [range] => range.clone(),
        [range, others @ ..] => format!("{range} +{}", others.len()),
    }
}

/// Whether there is a live WireGuard session with it.
#[must_use]
pub fn is_up(peer: &Peer) -> bool {
    !peer.banned && peer.last_handshake.is_some_and(|age| age <= SESSION_LIFETIME)
}

/// What a member is to this node at present, in a word or two.
#[must_use]
pub fn state(peer: &Peer) -> &'static str {
    match peer.last_handshake {
        _ if peer.banned => "banned",
        _ if is_up(peer) => "up",
        _ if peer.liveness == Liveness::Away => "away",
        _ if peer.liveness == Liveness::Unreachable => "unreachable",
        Some(_) => "down",
        None => "never up",
    }
}

/// Packets to and from a member that were dropped.
#[must_use]
pub fn drops(peer: &Peer) -> String {
    match (peer.queue_drops, peer.rx_drops) {
        (0, 0) => "0".to_owned(),
        (tx, 0) => format!("{tx} tx"),
        (0, rx) => format!("{rx} rx"),
        (tx, rx) => format!("{tx} tx, {rx} rx"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, node_id: &str) -> Peer {
        Peer {
            node_id: node_id.to_owned(),
            name: name.to_owned(),
            ipv4: "10.42.7.9".parse().unwrap(),
            ipv6: "fd12:3456:789a:bcde::1".parse().unwrap(),
            public_key: "key".to_owned(),
            endpoint: "x.b32.i2p".to_owned(),
            ranges: vec!["10.42.7.9/32".to_owned()],
            depth: 1,
            inviters: vec!["founder".to_owned()],
            signed_at: 1_800_000_000,
            liveness: Liveness::Present,
            banned: false,
            last_heard: Some(3),
            rtt: Some(1200),
            last_handshake: Some(45),
            tx_packets: 1,
            tx_bytes: 1536,
            rx_packets: 2,
            rx_bytes: 20 << 20,
            queue_drops: 0,
            rx_drops: 0,
        }
    }

    fn peers() -> Vec<Peer> {
        let mut peers = vec![
            Peer { last_handshake: None, last_heard: None, ..peer("zeta", "b") },
            Peer { last_handshake: Some(4000), queue_drops: 3, rx_drops: 1, ..peer("zeta", "a") },
            peer("alpha-with-a-rather-long-name", "c"),
            Peer { last_handshake: None, liveness: Liveness::Away, rtt: None, ..peer("zz", "d") },
        ];
        sort(&mut peers);
        peers
    }

    #[test]
    fn a_table_sorted_by_name() {
        assert_eq!(
            render(&peers(), None).text,
            "\
NAME                           IPV4       IPV6                    STATE     HANDSHAKE   HEARD      RTT      RX       TX  DROPS
alpha-with-a-rather-long-name  10.42.7.9  fd12:3456:789a:bcde::1  up          45s ago  3s ago  1200 ms  20 MiB  1.5 KiB  0
zeta (a)                       10.42.7.9  fd12:3456:789a:bcde::1  down      1h 6m ago  3s ago  1200 ms  20 MiB  1.5 KiB  3 tx, 1 rx
zeta (b)                       10.42.7.9  fd12:3456:789a:bcde::1  never up      never   never  1200 ms  20 MiB  1.5 KiB  0
zz                             10.42.7.9  fd12:3456:789a:bcde::1  away          never  3s ago        -  20 MiB  1.5 KiB  0
"
        );
    }

    #[test]
    fn a_member_with_several_addresses_shows_their_range() {
        let with = |ranges: &[&str], id| Peer {
            ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
            ..peer("web", id)
        };
        let peers = [
            with(&["10.42.7.9/32"], "a"),
            with(&["10.42.7.16/28"], "b"),
            with(&["10.42.7.16/28", "10.42.64.0/18"], "c"),
        ];
        let text = render(&peers, None).text;
        assert_eq!(
            text,
            "\
NAME     IPV4       IPV6                    RANGE             STATE  HANDSHAKE   HEARD      RTT      RX       TX  DROPS
web (a)  10.42.7.9  fd12:3456:789a:bcde::1  -                 up       45s ago  3s ago  1200 ms  20 MiB  1.5 KiB  0
web (b)  10.42.7.9  fd12:3456:789a:bcde::1  10.42.7.16/28     up       45s ago  3s ago  1200 ms  20 MiB  1.5 KiB  0
web (c)  10.42.7.9  fd12:3456:789a:bcde::1  10.42.7.16/28 +1  up       45s ago  3s ago  1200 ms  20 MiB  1.5 KiB  0
"
        );
        // It takes no room from what was there before.
        assert_eq!(render(&peers, Some(110)).left_out, ["RANGE"]);
        assert!(render(&peers, Some(80)).text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_narrow_terminal_still_shows_name_address_and_state() {
        let rendered = render(&peers(), Some(62));
        assert_eq!(rendered.left_out, ["RTT", "IPV6", "DROPS", "HEARD"]);
        assert_eq!(
            rendered.text.lines().nth(1),
            Some("alpha-with-a…  10.42.7.9  up          45s ago  20 MiB  1.5 KiB")
        );
    }
}
