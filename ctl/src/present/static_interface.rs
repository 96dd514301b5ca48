//! Interfaces with static peers, and what is wrong with them.

use i2plan_ipc::Role;
use i2plan_ipc::api::meshd::{SessionState, StaticPeer, Status};

use super::peer::SESSION_LIFETIME;
use super::status::Warning;
use super::table::{Column, Rendered, Table};
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

/// A table of static peers, none of its lines wider than `width` if that is given.
#[must_use]
pub fn render_peers(peers: &[StaticPeer], width: Option<usize>) -> Rendered {
    let mut table = Table::new(COLUMNS);
    for peer in peers {
        let endpoint = peer.endpoint.clone().unwrap_or_default();
        table.row([
            peer.public_key.clone(),
            peer.allowed_ips.join(","),
            state(peer).to_owned(),
            units::ago(peer.last_handshake),
            units::bytes(peer.rx_bytes),
            units::bytes(peer.tx_bytes),
            if peer.resolved || endpoint.is_empty() { endpoint } else { format!("({endpoint})") },
            if peer.keepalive == 0 { "off".to_owned() } else { peer.keepalive.to_string() },
            if peer.preshared_key { "yes" } else { "no" }.to_owned(),
            drops(peer),
        ]);
    }
    table.render(width)
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

fn drops(peer: &StaticPeer) -> String {
    match (peer.queue_drops, peer.rx_drops) {
        (0, 0) => String::new(),
        (tx, rx) => format!("tx {tx} rx {rx}"),
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
    let address = &status.sam.address;
    Some(if status.sam.version.is_none() {
        Warning {
            message: format!("no I2P router answers at {address}{reason}"),
            hint: format!(
                "start the I2P router and enable its SAM bridge; if that is not at {address}, set i2p.sam_address"
            ),
        }
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
        let Rendered { text, .. } = render_peers(&[peer(), away], None);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][1..3], ["10.9.0.2,10.2.0.0/16", "up"]);
        assert!(rows[1].ends_with(&["abc.b32.i2p", "25", "yes"]), "{text}");
        assert!(rows[2].ends_with(&["off", "yes"]) && text.contains("no endpoint"), "{text}");
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
