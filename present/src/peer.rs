//! The other members.

use i2plan_ipc::Role;
use i2plan_ipc::api::meshd::{Liveness, Peer, SessionState, Status};

use super::look::{Look, Times, Tone};
use super::member::{Names, label};
use super::table::{Column, Rendered, Table};
use super::text::clean;
use super::units;

/// What is shown for what is not known.
pub(crate) const UNKNOWN: &str = "?";

/// WireGuard's REJECT_AFTER_TIME, seconds: a session is dead when it gets that old without a new handshake.
pub(crate) const SESSION_LIFETIME: u64 = 180;

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

/// What of the data path is known: without it, what was counted and how old sessions are says nothing of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPath {
    /// `tund` answers: what it has counted is known.
    pub counted: bool,
    /// The session for data is up: members can be reached.
    pub connected: bool,
}

impl DataPath {
    /// All is known.
    pub const KNOWN: Self = Self { counted: true, connected: true };

    /// As the node reports it.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let tund = status.daemons.iter().find(|daemon| daemon.name == Role::Tund.to_string());
        Self {
            counted: tund.is_none_or(|tund| tund.version.is_some()),
            connected: status.sam.data.state == SessionState::Up,
        }
    }
}

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
    pub fn new(peer: &Peer, names: &Names, path: DataPath, times: Times) -> Self {
        let now = match times {
            Times::From(now) => now,
            Times::Dates => super::look::now(),
        };
        let counted = |text: String| if path.counted { text } else { UNKNOWN.to_owned() };
        Self {
            name: names.label(&peer.name, &peer.node_id),
            ipv4: peer.ipv4.to_string(),
            ipv6: peer.ipv6.to_string(),
            ranges: ranges(&peer.ranges),
            state: state_by(peer, path),
            handshake: counted(times.ago(peer.last_handshake, now)),
            heard: times.ago(peer.last_heard, now),
            rtt: units::or_dash(peer.rtt.map(units::milliseconds)),
            received: counted(units::bytes(peer.rx_bytes)),
            sent: counted(units::bytes(peer.tx_bytes)),
            drops: counted(drops(peer)),
        }
    }
}

/// The names of members, to tell those of one name apart.
#[must_use]
pub fn names<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> Names {
    Names::of(peers.into_iter().map(|peer| peer.name.as_str()))
}

/// A table of members.
#[must_use]
pub fn render(peers: &[Peer], path: DataPath, look: &Look) -> Rendered {
    let names = names(peers);
    let mut table = Table::new(COLUMNS);
    for peer in peers {
        let row = Row::new(peer, &names, path, look.times);
        let tone = tone(row.state);
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
        if let Some(tone) = tone {
            table.tint("STATE", tone);
        }
    }
    table.render(look)
}

/// What a state means.
fn tone(state: &str) -> Option<Tone> {
    match state {
        "up" => Some(Tone::Good),
        "down" | "unreachable" => Some(Tone::Warn),
        "banned" => Some(Tone::Bad),
        "away" | "no tunnel" => Some(Tone::Quiet),
        _ => None,
    }
}

/// How many of the members have a tunnel, in a line.
#[must_use]
pub fn summary(peers: &[Peer], path: DataPath) -> String {
    let up = peers.iter().filter(|peer| state_by(peer, path) == "up").count();
    let banned = peers.iter().filter(|peer| peer.banned).count();
    let members = units::counted(peers.len() as u64, "other member");
    let banned = if banned > 0 { format!(", {banned} banned") } else { String::new() };
    format!("tunnels to {up} of {members} are up{banned}")
}

/// All about a member, as lines of labels and values.
#[must_use]
pub fn describe(peer: &Peer, peers: &[Peer], status: &Status, times: Times) -> String {
    let row = Row::new(peer, &Names::of([]), DataPath::of(status), times);
    let called = |node_id: &String| {
        if status.node_id.as_ref() == Some(node_id) {
            return "this node".to_owned();
        }
        let known = peers.iter().find(|other| other.node_id == *node_id);
        label(known.map_or("", |known| known.name.as_str()), node_id)
    };
    let inviters: Vec<_> = peer.inviters.iter().map(called).collect();
    let invited = if inviters.is_empty() {
        "nobody: it has founded the network".to_owned()
    } else {
        let way = if inviters.len() > 1 { " (from the founder down)" } else { "" };
        format!("{}{way}", inviters.join(", "))
    };
    let counted = |bytes: &str, packets| format!("{bytes} in {}", units::counted(packets, "packet"));
    let fields = [
        ("Name", peer.name.clone()),
        ("  node id", peer.node_id.clone()),
        ("State", row.state.to_owned()),
        ("  handshake", row.handshake),
        ("  heard", row.heard),
        ("  round trip", row.rtt),
        ("Addresses", format!("{}, {}", peer.ipv4, peer.ipv6)),
        ("  holds", peer.ranges.join(", ")),
        ("  allowed IPs", format!("{}/32, {}/128", peer.ipv4, peer.ipv6)),
        ("Key", peer.public_key.clone()),
        ("Endpoint", peer.endpoint.clone()),
        ("Received", counted(&row.received, peer.rx_packets)),
        ("Sent", counted(&row.sent, peer.tx_packets)),
        ("Dropped", row.drops),
        ("Invited by", invited),
        ("Member since", times.at(peer.member_since)),
        ("Last signed", times.at(peer.signed_at)),
    ];
    fields.iter().map(|(label, value)| format!("{label:<15}{}\n", clean(value))).collect()
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

/// As [`state`], as far as it is known.
#[must_use]
pub fn state_by(peer: &Peer, path: DataPath) -> &'static str {
    let state = state(peer);
    let needs_path = matches!(state, "up" | "down" | "no tunnel");
    if needs_path && !(path.counted && path.connected) { UNKNOWN } else { state }
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
        None => "no tunnel",
    }
}

/// Packets to and from a member that were dropped.
#[must_use]
pub fn drops(peer: &Peer) -> String {
    drops_of(peer.queue_drops, peer.rx_drops)
}

pub(crate) fn drops_of(queue_drops: u64, rx_drops: u64) -> String {
    match (queue_drops, rx_drops) {
        (0, 0) => "0".to_owned(),
        (tx, 0) => format!("{tx} tx"),
        (0, rx) => format!("{rx} rx"),
        (tx, rx) => format!("{tx} tx, {rx} rx"),
    }
}

#[cfg(test)]
mod tests {
    use i2plan_ipc::fixtures;

    use super::*;
    use crate::status::tests::status;

    fn look(width: Option<usize>) -> Look {
        Look { width, times: Times::From(1_800_000_000), ..Look::default() }
    }

    fn peer(name: &str, node_id: &str) -> Peer {
        Peer {
            ipv4: "10.42.7.9".parse().unwrap(),
            ipv6: "fd12:3456:789a:bcde::1".parse().unwrap(),
            ranges: vec!["10.42.7.9/32".to_owned()],
            last_heard: Some(3),
            rtt: Some(1200),
            last_handshake: Some(45),
            tx_packets: 1,
            tx_bytes: 1536,
            rx_packets: 2,
            rx_bytes: 20 << 20,
            ..fixtures::peer(node_id, name)
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
            render(&peers(), DataPath::KNOWN, &look(None)).text,
            "\
NAME                           IPV4       IPV6                    STATE      HANDSHAKE   HEARD      RTT      RX       TX  DROPS
alpha-with-a-rather-long-name  10.42.7.9  fd12:3456:789a:bcde::1  up           45s ago  3s ago  1200 ms  20 MiB  1.5 KiB  0
zeta (a)                       10.42.7.9  fd12:3456:789a:bcde::1  down       1h 6m ago  3s ago  1200 ms  20 MiB  1.5 KiB  3 tx, 1 rx
zeta (b)                       10.42.7.9  fd12:3456:789a:bcde::1  no tunnel          -       -  1200 ms  20 MiB  1.5 KiB  0
zz                             10.42.7.9  fd12:3456:789a:bcde::1  away               -  3s ago        -  20 MiB  1.5 KiB  0
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
        let text = render(&peers, DataPath::KNOWN, &look(None)).text;
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
        assert_eq!(render(&peers, DataPath::KNOWN, &look(Some(110))).left_out, ["RANGE"]);
        assert!(
            render(&peers, DataPath::KNOWN, &look(Some(80)))
                .text
                .lines()
                .all(|line| line.chars().count() <= 80)
        );
    }

    #[test]
    fn a_narrow_terminal_still_shows_name_address_and_state() {
        let rendered = render(&peers(), DataPath::KNOWN, &look(Some(62)));
        assert_eq!(rendered.left_out, ["RTT", "IPV6", "DROPS", "HEARD"]);
        assert_eq!(
            rendered.text.lines().nth(1),
            Some("alpha-with-…  10.42.7.9  up           45s ago  20 MiB  1.5 KiB")
        );
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let member = peer("web", "a");
        let row = |path| Row::new(&member, &names([]), path, Times::From(0));
        let without_tund = row(DataPath { counted: false, connected: true });
        assert_eq!((without_tund.state, without_tund.handshake.as_str()), ("?", "?"));
        assert_eq!((without_tund.received.as_str(), without_tund.heard.as_str()), ("?", "3s ago"));
        let without_session = row(DataPath { counted: true, connected: false });
        assert_eq!((without_session.state, without_session.handshake.as_str()), ("?", "45s ago"));
        let banned = Peer { banned: true, ..member.clone() };
        assert_eq!(state_by(&banned, DataPath { counted: false, connected: false }), "banned");
        let peers = [member, banned];
        assert_eq!(summary(&peers, DataPath::KNOWN), "tunnels to 1 of 2 other members are up, 1 banned");
        assert_eq!(
            summary(&peers[..1], DataPath { counted: true, connected: false }),
            "tunnels to 0 of 1 other member are up"
        );
    }

    #[test]
    fn all_about_a_member_names_its_inviters() {
        let founder = Peer { inviters: Vec::new(), ..peer("alpha", "founder") };
        let own = "own".to_owned();
        let inviters = vec!["founder".to_owned(), own.clone()];
        let (member, status) =
            (Peer { inviters, ..peer("web", "a") }, Status { node_id: Some(own), ..status() });
        let peers = [founder.clone(), member.clone()];
        let text = describe(&member, &peers, &status, Times::From(1_799_086_400));
        for line in [
            "Name           web\n",
            "  allowed IPs  10.42.7.9/32, fd12:3456:789a:bcde::1/128\n",
            "Endpoint       x.b32.i2p\n",
            "Received       20 MiB in 2 packets\n",
            "Invited by     alpha (founder), this node (from the founder down)\n",
            "Member since   1d ago\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let text = describe(&founder, &peers, &status, Times::Dates);
        assert!(text.contains("Invited by     nobody: it has founded the network\n"), "{text}");
    }
}
