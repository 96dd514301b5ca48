//! `i2planctl peers`.

use std::path::Path;

use i2plan_ipc::api::meshd::{Liveness, Peer};

use super::member::Names;
use crate::daemon;
use crate::failure::Failure;
use crate::output::table::{Column, Rendered, Table};
use crate::output::{self, units};

/// WireGuard's REJECT_AFTER_TIME, seconds: a session is dead when it gets that old without a new handshake.
const SESSION_LIFETIME: u64 = 180;

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

/// Lists the other members.
///
/// # Errors
/// If the node does not answer.
pub async fn run(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let mut node = daemon::connect(socket).await?;
    let mut peers = node.peers().await?;
    sort(&mut peers);
    if json {
        return output::json::print(&serde_json::json!({ "peers": peers }));
    }
    if peers.is_empty() {
        output::note("no other members are known; invite one: `i2planctl invite create`");
        return Ok(());
    }
    let Rendered { text, left_out } = render(&peers, output::terminal_width());
    output::print(&text)?;
    if !left_out.is_empty() {
        output::note(&format!("({} not shown: the terminal is too narrow)", left_out.join(", ")));
    }
    Ok(())
}

/// By name; names may repeat, ids do not.
fn sort(peers: &mut [Peer]) {
    peers.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
}

fn render(peers: &[Peer], width: Option<usize>) -> Rendered {
    let names = Names::of(peers.iter().map(|peer| peer.name.as_str()));
    let mut table = Table::new(COLUMNS);
    for peer in peers {
        table.row([
            names.label(&peer.name, &peer.node_id),
            peer.ipv4.to_string(),
            peer.ipv6.to_string(),
            ranges(&peer.ranges),
            state(peer).to_owned(),
            ago(peer.last_handshake),
            ago(peer.last_heard),
            peer.rtt.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt} ms")),
            units::bytes(peer.rx_bytes),
            units::bytes(peer.tx_bytes),
            drops(peer),
        ]);
    }
    table.render(width)
}

/// The address ranges that a member holds, in a table; none for a single address, which has a column of its own.
pub(crate) fn ranges(ranges: &[String]) -> String {
    match ranges {
        [] => String::new(),
        [range] if range.ends_with("/32") => String::new(),
        [range] => range.clone(),
        [range, others @ ..] => format!("{range} +{}", others.len()),
    }
}

/// Whether there is a live WireGuard session with it.
pub(super) fn is_up(peer: &Peer) -> bool {
    !peer.banned && peer.last_handshake.is_some_and(|age| age <= SESSION_LIFETIME)
}

pub(crate) fn state(peer: &Peer) -> &'static str {
    match peer.last_handshake {
        _ if peer.banned => "banned",
        _ if is_up(peer) => "up",
        _ if peer.liveness == Liveness::Away => "away",
        _ if peer.liveness == Liveness::Unreachable => "unreachable",
        Some(_) => "down",
        None => "never up",
    }
}

pub(crate) fn ago(age: Option<u64>) -> String {
    age.map_or_else(|| "never".to_owned(), |age| units::duration(age) + " ago")
}

pub(crate) fn drops(peer: &Peer) -> String {
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
