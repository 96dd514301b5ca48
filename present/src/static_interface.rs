//! Interfaces with static peers, and what is wrong with them.

use i2plan_ipc::Role;
use i2plan_ipc::api::meshd::{SessionState, StaticPeer, Status};

use super::look::{Look, Times, Tone};
use super::peer::{DataPath, SESSION_LIFETIME, UNKNOWN, drops_of};
use super::status::{Warning, of_the_bridge};
use super::table::{Column, Rendered, Table};
use super::text::clean;
use super::units;

const COLUMNS: &[Column] = &[
    Column::text("PEER").shrinks_to(12),
    Column::text("ALLOWED IPS").shrinks_to(14),
    Column::text("STATE"),
    Column::number("HANDSHAKE").dispensable(1),
    Column::number("RX"),
    Column::number("TX"),
    Column::text("ENDPOINT").dispensable(2),
    Column::number("KEEPALIVE").dispensable(4),
    Column::text("PSK").dispensable(5),
    Column::text("DROPS").dispensable(3).optional(),
];

/// Handshakes in vain after which something is said.
const IN_VAIN: u32 = 3;

/// A table of static peers.
#[must_use]
pub fn render_peers(peers: &[StaticPeer], path: DataPath, look: &Look) -> Rendered {
    let mut table = Table::new(COLUMNS);
    for peer in peers {
        let endpoint = peer.endpoint.clone().unwrap_or_default();
        let state = state_by(peer, path);
        table.row([
            peer.public_key.clone(),
            peer.allowed_ips.join(","),
            state.to_owned(),
            handshake(peer, look.times),
            units::bytes(peer.rx_bytes),
            units::bytes(peer.tx_bytes),
            if peer.resolved || endpoint.is_empty() { endpoint } else { format!("({endpoint})") },
            if peer.keepalive == 0 { "off".to_owned() } else { peer.keepalive.to_string() },
            if peer.preshared_key { "yes" } else { "no" }.to_owned(),
            drops(peer),
        ]);
        match state {
            "up" => table.tint("STATE", Tone::Good),
            "not found" | "no answer" => table.tint("STATE", Tone::Warn),
            "idle" | "no endpoint" => table.tint("STATE", Tone::Quiet),
            _ => {}
        }
    }
    table.render(look)
}

/// All about a peer, as lines of labels and values.
#[must_use]
pub fn details(peer: &StaticPeer, path: DataPath, times: Times) -> String {
    let counted =
        |bytes, packets| format!("{} in {}", units::bytes(bytes), units::counted(packets, "packet"));
    let keepalive = match peer.keepalive {
        0 => "off".to_owned(),
        seconds => units::duration(seconds.into()),
    };
    let fields = [
        ("Key", peer.public_key.clone()),
        ("State", state_by(peer, path).to_owned()),
        ("  handshake", handshake(peer, times)),
        ("  unanswered", peer.unanswered.to_string()),
        ("Allowed IPs", peer.allowed_ips.join(", ")),
        ("Endpoint", units::or_dash(peer.endpoint.clone())),
        ("Keepalive", keepalive),
        ("Preshared key", if peer.preshared_key { "yes" } else { "no" }.to_owned()),
        ("Received", counted(peer.rx_bytes, peer.rx_packets)),
        ("Sent", counted(peer.tx_bytes, peer.tx_packets)),
        ("Dropped", drops_of(peer.queue_drops, peer.rx_drops)),
    ];
    fields.iter().map(|(label, value)| format!("{label:<15}{}\n", clean(value))).collect()
}

/// How many of the peers have a tunnel, in a line.
#[must_use]
pub fn summary(peers: &[StaticPeer], path: DataPath) -> String {
    let up = peers.iter().filter(|peer| state_by(peer, path) == "up").count();
    format!("tunnels to {up} of {} are up", units::counted(peers.len() as u64, "static peer"))
}

/// The peers that a text means: a key or the beginning of one, an address that is one of its allowed IPs as it stands
/// there, or its endpoint.
#[must_use]
pub fn find<'a>(peers: &'a [StaticPeer], text: &str) -> Vec<&'a StaticPeer> {
    let by = |matches: &dyn Fn(&StaticPeer) -> bool| peers.iter().filter(|peer| matches(peer)).collect();
    let exact: Vec<_> = by(&|peer| {
        peer.endpoint.as_deref() == Some(text) || peer.allowed_ips.iter().any(|allowed| allowed == text)
    });
    if exact.is_empty() && !text.is_empty() { by(&|peer| peer.public_key.starts_with(text)) } else { exact }
}

fn handshake(peer: &StaticPeer, times: Times) -> String {
    let now = match times {
        Times::From(now) => now,
        Times::Dates => super::look::now(),
    };
    times.ago(peer.last_handshake, now)
}

/// The beginning of a peer's key.
#[must_use]
pub fn short(peer: &StaticPeer) -> String {
    peer.public_key.chars().take(10).collect()
}

/// A peer in a line.
#[must_use]
pub fn describe(peer: &StaticPeer) -> String {
    let handshake = match peer.last_handshake {
        Some(age) => format!(", last handshake {} ago", units::duration(age)),
        None => String::new(),
    };
    format!("{}: {}{handshake}", peer.allowed_ips.join(", "), state(peer))
}

fn is_up(peer: &StaticPeer) -> bool {
    peer.last_handshake.is_some_and(|age| age <= SESSION_LIFETIME)
}

fn state(peer: &StaticPeer) -> &'static str {
    match peer {
        _ if is_up(peer) => "up",
        StaticPeer { endpoint: None, .. } => "no endpoint",
        StaticPeer { resolved: false, .. } => "not found",
        StaticPeer { unanswered: 1.., .. } => "no answer",
        _ => "idle",
    }
}

/// As [`state`], as far as it is known.
fn state_by(peer: &StaticPeer, path: DataPath) -> &'static str {
    if path.counted && path.connected { state(peer) } else { UNKNOWN }
}

fn drops(peer: &StaticPeer) -> String {
    match (peer.queue_drops, peer.rx_drops) {
        (0, 0) => String::new(),
        (tx, rx) => drops_of(tx, rx),
    }
}

/// The session, if it is down, or the router itself.
#[must_use]
pub fn of_the_session(status: &Status) -> Option<Warning> {
    // Without the connector none is opened; that it is away is said of it.
    let connector = status.daemons.iter().find(|daemon| daemon.name == Role::Connector.to_string());
    let session = &status.sam.data;
    if connector.is_some_and(|connector| connector.error.is_some()) || session.state != SessionState::Down {
        return None;
    }
    let reason = session.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    Some(if status.sam.version.is_none() {
        of_the_bridge(&status.sam.address, session.error.as_deref())
    } else {
        Warning {
            message: format!("the session is down{reason}"),
            hint: "it is tried again; if this continues, see the logs of meshd and of the I2P router"
                .to_owned(),
        }
    })
}

/// Peers that cannot be reached, each with what may be the cause.
#[must_use]
pub fn of_the_peers(status: &Status) -> Vec<Warning> {
    let Some(interface) = &status.static_interface else { return Vec::new() };
    if status.sam.data.state != SessionState::Up {
        return Vec::new();
    }
    let warning = |peer: &StaticPeer| {
        let (name, style) = (short(peer), &interface.style);
        let (message, hint) = match peer {
            _ if is_up(peer) => return None,
            StaticPeer { endpoint: Some(endpoint), resolved: false, .. } => (
                format!("the router does not find the destination of peer {name}, {endpoint}"),
                "see that the peer runs, and that its endpoint is right: there, `i2planctl --static NAME endpoint`"
                    .to_owned(),
            ),
            StaticPeer { rx_drops: 1.., .. } => (
                format!("messages of peer {name} come and cannot be decrypted"),
                "compare the keys of both ends: PublicKey here with the peer's private key, and PresharedKey".to_owned(),
            ),
            StaticPeer { unanswered: IN_VAIN.., .. } => (
                format!("peer {name} does not answer handshakes"),
                format!(
                    "see that the peer runs, that its PublicKey here and this interface's there are right, as is \
                     PresharedKey, and that both ends have the style {style}"
                ),
            ),
            _ => return None,
        };
        Some(Warning { message, hint })
    };
    interface.peers.iter().filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> StaticPeer {
        StaticPeer {
            public_key: "HgDrdsI0hbCs8IXPYKkSgQ2sHFkgXkSzCM5hYkPk7ho=".to_owned(),
            endpoint: Some("abc.b32.i2p".to_owned()),
            resolved: true,
            allowed_ips: vec!["10.9.0.2".to_owned(), "10.2.0.0/16".to_owned()],
            keepalive: 25,
            preshared_key: true,
            last_handshake: Some(7),
            unanswered: 0,
            tx_packets: 1,
            tx_bytes: 2048,
            rx_packets: 3,
            rx_bytes: 4,
            queue_drops: 0,
            rx_drops: 0,
        }
    }

    #[test]
    fn a_peer_is_a_row() {
        let away =
            StaticPeer { endpoint: None, resolved: false, last_handshake: None, keepalive: 0, ..peer() };
        let Rendered { text, .. } = render_peers(&[peer(), away], DataPath::KNOWN, &Look::default());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][1..3], ["10.9.0.2,10.2.0.0/16", "up"]);
        assert!(rows[1].ends_with(&["abc.b32.i2p", "25", "yes"]), "{text}");
        assert!(rows[2].ends_with(&["off", "yes"]) && text.contains("no endpoint"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        let down = DataPath { counted: true, connected: false };
        assert_eq!(state_by(&peer(), down), UNKNOWN);
        assert_eq!(summary(&[peer()], DataPath::KNOWN), "tunnels to 1 of 1 static peer are up");
        assert_eq!(summary(&[peer(), peer()], down), "tunnels to 0 of 2 static peers are up");
    }

    #[test]
    fn a_peer_is_found_by_its_key_its_addresses_and_its_endpoint() {
        let other = StaticPeer {
            public_key: "Hhfrm7U8cPGOAwcEEhT9c2FU2xJDzmVOg8bNAXjfDQs=".to_owned(),
            endpoint: None,
            allowed_ips: vec!["10.3.0.0/16".to_owned()],
            ..peer()
        };
        let peers = [peer(), other];
        let found =
            |text| find(&peers, text).into_iter().map(|peer| peer.allowed_ips.len()).collect::<Vec<_>>();
        assert_eq!(found("HgDrd"), [2]);
        assert_eq!(found("10.3.0.0/16"), [1]);
        assert_eq!(found("abc.b32.i2p"), [2]);
        assert_eq!(found("H"), [2, 1]);
        assert!(found("").is_empty() && found("10.9").is_empty());
    }

    #[test]
    fn all_about_a_peer_names_its_key_and_endpoint() {
        let text = details(&peer(), DataPath::KNOWN, Times::From(1_800_000_000));
        for line in [
            "Key            HgDrdsI0hbCs8IXPYKkSgQ2sHFkgXkSzCM5hYkPk7ho=\n",
            "  handshake    7s ago\n",
            "Endpoint       abc.b32.i2p\n",
            "Keepalive      25s\n",
            "Sent           2.0 KiB in 1 packet\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn the_state_says_what_is_in_the_way() {
        let of = |change: fn(&mut StaticPeer)| {
            let mut peer = StaticPeer { last_handshake: None, ..peer() };
            change(&mut peer);
            state(&peer)
        };
        assert_eq!(of(|peer| peer.last_handshake = Some(SESSION_LIFETIME)), "up");
        assert_eq!(of(|peer| peer.last_handshake = Some(SESSION_LIFETIME + 1)), "idle");
        assert_eq!(of(|peer| peer.resolved = false), "not found");
        assert_eq!(of(|peer| peer.unanswered = 1), "no answer");
    }
}
