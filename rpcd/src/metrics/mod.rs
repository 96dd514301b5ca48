//! The state of a node as metrics for Prometheus, in its text exposition format, version 0.0.4.
//!
//! That format and no other: Prometheus reads it as well as OpenMetrics, and node_exporter's textfile collector reads
//! it alone. [`gather`] asks a node, [`render`] writes; the families and what they mean are one list, which
//! `docs/metrics.md` repeats.
//!
//! * [`text`]: the format.
//! * [`http`]: the listener.

use std::collections::BTreeMap;

use i2plan_ipc::Node;
use i2plan_ipc::api::meshd::{
    Ban, Counters, InviteState, IssuedInvite, Keys, Liveness, Peer, Session, SessionHealth, SessionState,
    StaticPeer, Status,
};
use i2plan_ipc::api::tund::{Drops, Handshakes};
use i2plan_ipc::client::ClientError;
use i2plan_ipc::version::Version;

use self::text::{Kind, Text};

pub mod http;
pub mod text;

/// Members with metrics of their own, at most, whatever `mesh.max_peers` is: the number of series stays bounded.
pub const MAX_PEERS: usize = 1000;

/// WireGuard's REJECT_AFTER_TIME, seconds: a session is dead when it gets that old without a new handshake.
const SESSION_LIFETIME: u64 = 180;

/// What a node says of itself at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its state.
    pub status: Status,
    /// What it has counted.
    pub counters: Counters,
    /// The other members.
    pub peers: Vec<Peer>,
    /// The number of routes.
    pub routes: usize,
    /// Its bans.
    pub bans: Vec<Ban>,
    /// The invites that it remembers.
    pub invites: Vec<IssuedInvite>,
    /// Its keys, once `keyd` has told them.
    pub keys: Option<Keys>,
}

/// Asks a node.
///
/// # Errors
/// [`ClientError`] if it does not answer.
pub async fn gather(node: &mut Node) -> Result<Snapshot, ClientError> {
    Ok(Snapshot {
        status: node.status().await?,
        counters: node.counters().await?,
        peers: node.peers().await?,
        routes: known(node.routes().await)?.unwrap_or_default().len(),
        bans: known(node.bans().await)?.unwrap_or_default(),
        invites: known(node.invites().await)?.unwrap_or_default(),
        keys: known(node.keys().await)?,
    })
}

/// None if the node answers that it cannot say: it has no identity before `keyd` has told it.
fn known<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Api(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The metrics of a node; without a snapshot those of one whose `meshd` does not answer.
#[must_use]
pub fn render(snapshot: Option<&Snapshot>) -> Text {
    let mut out = Text::default();
    out.gauge("i2plan_up", "Whether meshd answers.", u64::from(snapshot.is_some()));
    if let Some(snapshot) = snapshot {
        daemons(&mut out, &snapshot.status);
        node(&mut out, snapshot);
        sessions(&mut out, &snapshot.status);
        handshakes(&mut out, &snapshot.counters.handshakes);
        let drops = |out: &mut Text| drops(out, snapshot.status.tunnel.drops.unwrap_or_default());
        if let Some(interface) = &snapshot.status.static_interface {
            events(&mut out, &snapshot.counters);
            drops(&mut out);
            static_peers(&mut out, &interface.peers);
        } else {
            mesh(&mut out, snapshot);
            counters(&mut out, &snapshot.counters);
            drops(&mut out);
            peers(&mut out, &snapshot.peers);
        }
    }
    out
}

fn daemons(out: &mut Text, status: &Status) {
    let up = status.daemons.iter().map(|daemon| {
        (vec![("daemon", daemon.name.clone())], u64::from(daemon.version.is_some() && daemon.error.is_none()))
    });
    let what = "Whether a daemon answers and can do what it should, by daemon.";
    out.family("i2plan_daemon_up", Kind::Gauge, what, up);
    let build = |name: &str, version: &Version| {
        let labels = vec![
            ("daemon", name.to_owned()),
            ("version", version.version.clone()),
            ("commit", version.commit.clone()),
        ];
        (labels, 1)
    };
    let builds =
        status.daemons.iter().filter_map(|daemon| Some(build(&daemon.name, daemon.version.as_ref()?)));
    out.family("i2plan_build_info", Kind::Gauge, "1, with the build of each daemon that answers.", builds);
}

fn node(out: &mut Text, snapshot: &Snapshot) {
    let Snapshot { status, counters, keys, .. } = snapshot;
    out.gauge("i2plan_start_time_seconds", "When meshd started, in seconds since 1970.", counters.started_at);
    let network = status.network.as_ref();
    out.gauge("i2plan_member", "Whether the node is a member of a network.", u64::from(network.is_some()));
    let interface = status.tunnel.interface.is_some();
    out.gauge("i2plan_interface_up", "Whether the tunnel interface is up.", u64::from(interface));
    let problems = status.keys.len() as u64;
    out.gauge("i2plan_key_problems", "Things that are wrong with the node's keys.", problems);
    if let Some(network) = network {
        out.gauge("i2plan_addresses", "Addresses that the node holds.", network.addresses);
        out.gauge(
            "i2plan_addresses_left",
            "Addresses that it can still delegate to members that it invites.",
            network.addresses_left,
        );
        let conflicts = network.conflicts.len() as u64;
        out.gauge("i2plan_address_conflicts", "Address ranges that were delegated twice.", conflicts);
    }
    if let Some(wireguard) = keys.as_ref().and_then(|keys| keys.wireguard.as_ref()) {
        out.gauge(
            "i2plan_wireguard_key_expiry_time_seconds",
            "When the WireGuard key that is published expires, in seconds since 1970.",
            wireguard.not_after,
        );
    }
}

fn sessions(out: &mut Text, status: &Status) {
    let sam = &status.sam;
    let is_up = |session: &Session| session.state == SessionState::Up;
    let is_healthy = |session: &Session| is_up(session) && session.health == SessionHealth::Fine;
    // A static interface has one session.
    let control = Some(&sam.control).filter(|_| status.static_interface.is_none());
    let healthy = sam.fallback.as_ref().or(control).into_iter().chain([&sam.data]).all(is_healthy);
    out.gauge(
        "i2plan_i2p_healthy",
        "Whether both SAM sessions are up and carry traffic as far as is known.",
        u64::from(healthy),
    );
    let all = || {
        let fallback = sam.fallback.as_ref().map(|session| ("fallback", session));
        control.map(|session| ("control", session)).into_iter().chain([("data", &sam.data)]).chain(fallback)
    };
    let label = |name: &str| vec![("session", name.to_owned())];
    let up = all().map(|(name, session)| (label(name), u64::from(is_up(session))));
    out.family("i2plan_session_up", Kind::Gauge, "Whether a SAM session is up, by session.", up);
    let silent = all().map(|(name, session)| (label(name), session.silent.unwrap_or_default()));
    let what = "For how long an answer has been due through a SAM session; 0 while nothing is amiss.";
    out.family("i2plan_session_silent_seconds", Kind::Gauge, what, silent);
}

fn mesh(out: &mut Text, snapshot: &Snapshot) {
    let Snapshot { peers, routes, bans, invites, .. } = snapshot;
    out.gauge("i2plan_peers_total", "Other members of the network that the node knows.", peers.len() as u64);
    let connected = peers.iter().filter(|peer| is_connected(peer)).count() as u64;
    out.gauge("i2plan_peers_connected", "Members with a live WireGuard session.", connected);
    let by_liveness = [
        ("present", Liveness::Present),
        ("suspected", Liveness::Suspected),
        ("unreachable", Liveness::Unreachable),
        ("away", Liveness::Away),
    ];
    let by_liveness = by_liveness.map(|(name, liveness)| {
        let count = peers.iter().filter(|peer| peer.liveness == liveness).count() as u64;
        (vec![("liveness", name.to_owned())], count)
    });
    out.family("i2plan_peers", Kind::Gauge, "Members by liveness, as far as is known.", by_liveness);
    out.gauge("i2plan_routes_total", "Routes in the routing table.", *routes as u64);
    out.gauge("i2plan_banned_peers_total", "Bans in force.", bans.len() as u64);
    let by_state = [
        ("open", InviteState::Open),
        ("expired", InviteState::Expired),
        ("used_up", InviteState::UsedUp),
        ("revoked", InviteState::Revoked),
    ];
    let by_state = by_state.map(|(name, state)| {
        let count = invites.iter().filter(|invite| invite.state == state).count() as u64;
        (vec![("state", name.to_owned())], count)
    });
    out.family("i2plan_invites", Kind::Gauge, "Invites that the node remembers, by state.", by_state);
}

/// Whether there is a live WireGuard session with it.
fn is_connected(peer: &Peer) -> bool {
    !peer.banned && peer.last_handshake.is_some_and(|age| age <= SESSION_LIFETIME)
}

fn counters(out: &mut Text, counters: &Counters) {
    let Counters { messages, state_writes, rounds, sends, events, .. } = counters;
    let event = |name: &str| events.iter().find(|(event, _)| event == name).map_or(0, |(_, count)| *count);
    for (name, what, count) in [
        ("i2plan_messages_sent_total", "Control messages sent.", messages.sent),
        ("i2plan_messages_received_total", "Control messages received from the router.", messages.received),
        (
            "i2plan_ratelimit_rejections_total",
            "Control messages that were dropped because too many came.",
            messages.limited,
        ),
        (
            "i2plan_gossip_heartbeats_sent_total",
            "Pings sent to members, to see whether they are there.",
            messages.pings,
        ),
        (
            "i2plan_antientropy_rounds_total",
            "Comparisons of all that is known, begun with a member.",
            messages.comparisons,
        ),
        (
            "i2plan_gossip_rounds_total",
            "Rounds in which the node has told members that it is there.",
            messages.announcements,
        ),
        (
            "i2plan_gossip_messages_received_total",
            "Messages with news that came, and were not dropped because there were too many.",
            messages.news,
        ),
        (
            "i2plan_gossip_leaves_sent_total",
            "Messages in which the node has told members that it stops or leaves the network.",
            messages.departures_sent,
        ),
        (
            "i2plan_gossip_leaves_received_total",
            "News that a member stops or has left the network.",
            messages.departures_received,
        ),
        (
            "i2plan_reconnection_attempts_total",
            "Pings sent to members that count as unreachable.",
            messages.reconnections,
        ),
        (
            "i2plan_reconnection_successes_total",
            "Members that counted as unreachable and are there again.",
            messages.returns,
        ),
        ("i2plan_gossip_peers_discovered_total", "Members that became known.", event("member_added")),
        (
            "i2plan_gossip_peers_pruned_total",
            "Members that left, were revoked or were forgotten.",
            event("member_removed"),
        ),
        ("i2plan_tunnels_begun_total", "WireGuard sessions with members that began.", event("tunnel_up")),
        ("i2plan_tunnels_ended_total", "WireGuard sessions with members that ran out.", event("tunnel_down")),
        ("i2plan_state_writes_total", "Attempts to write the state to the disk.", state_writes.count),
        ("i2plan_state_write_failures_total", "Attempts of these that failed.", state_writes.failed),
    ] {
        out.counter(name, what, count);
    }
    out.seconds(
        "i2plan_state_write_seconds_total",
        Kind::Counter,
        "Time that these attempts took together.",
        [(Vec::new(), u128::from(state_writes.micros))],
    );
    for (name, what, durations) in [
        (
            "i2plan_gossip_round_duration_seconds",
            "From the decision on a round to when its messages were passed on.",
            rounds,
        ),
        (
            "i2plan_message_send_duration_seconds",
            "Passing a control message on: to the system, or to a queue for its connection or a look-up.",
            sends,
        ),
    ] {
        out.histogram(name, what, durations);
    }
    self::events(out, counters);
}

fn events(out: &mut Text, counters: &Counters) {
    let events = counters.events.iter().map(|(name, count)| (vec![("event", name.clone())], *count));
    let what = "Events since meshd started, by their name in the event log.";
    out.family("i2plan_events_total", Kind::Counter, what, events);
}

fn handshakes(out: &mut Text, handshakes: &Handshakes) {
    let Handshakes { initiated, received, succeeded, failed, durations } = handshakes;
    for (name, what, count) in [
        ("i2plan_handshakes_initiated_total", "WireGuard handshakes that the node has begun.", initiated),
        (
            "i2plan_handshakes_received_total",
            "Those that peers have begun and the node has answered.",
            received,
        ),
        (
            "i2plan_handshakes_succeeded_total",
            "Those that were completed, whoever has begun them.",
            succeeded,
        ),
        (
            "i2plan_handshakes_failed_total",
            "Those that were not completed before the node began another.",
            failed,
        ),
    ] {
        out.counter(name, what, *count);
    }
    let what = "Time from a handshake message of the node to the answer.";
    out.histogram("i2plan_handshake_duration_seconds", what, durations);
}

fn drops(out: &mut Text, drops: Drops) {
    let Drops { no_route, no_session, send_failed, unknown, rate_limited, no_tunnel, interface_full } = drops;
    let by_reason = [
        ("no_route", no_route),
        ("no_session", no_session),
        ("send_failed", send_failed),
        ("unknown", unknown),
        ("rate_limited", rate_limited),
        ("no_tunnel", no_tunnel),
        ("interface_full", interface_full),
    ];
    let by_reason = by_reason.map(|(name, count)| (vec![("reason", name.to_owned())], count));
    let what = "Packets that belong to no peer and were dropped, by reason.";
    out.family("i2plan_drops_total", Kind::Counter, what, by_reason);
}

/// A peer with metrics of its own.
struct Series<'a> {
    /// The node id of a member, or the key of a static peer.
    id: &'a str,
    is_connected: bool,
    last_handshake: Option<u64>,
    /// As [`COUNTS`] has them.
    counts: [u64; 6],
}

/// The families of what is counted of a peer.
const COUNTS: [(&str, &str); 6] = [
    ("i2plan_peer_sent_bytes_total", "Bytes of WireGuard packets sent, by peer."),
    ("i2plan_peer_received_bytes_total", "Bytes of WireGuard packets received, by peer."),
    ("i2plan_peer_sent_packets_total", "WireGuard packets sent, by peer."),
    ("i2plan_peer_received_packets_total", "WireGuard packets received, by peer."),
    ("i2plan_peer_queue_drops_total", "Packets dropped before they were sent, by peer."),
    ("i2plan_peer_receive_drops_total", "Packets received and not accepted, by peer."),
];

/// The families that members and static peers both have.
fn series(out: &mut Text, peers: &[Series<'_>]) {
    let label = |peer: &Series<'_>| vec![("peer", peer.id.to_owned())];
    let connected = peers.iter().map(|peer| (label(peer), u64::from(peer.is_connected)));
    let what = "Whether there is a live WireGuard session with a member, by peer.";
    out.family("i2plan_peer_connected", Kind::Gauge, what, connected);
    for (index, (name, what)) in COUNTS.into_iter().enumerate() {
        let counts = peers.iter().map(|peer| (label(peer), peer.counts[index]));
        out.family(name, Kind::Counter, what, counts);
    }
    let handshake = peers.iter().filter_map(|peer| Some((label(peer), peer.last_handshake?)));
    let what = "Time since the last WireGuard handshake, by peer.";
    out.family("i2plan_peer_last_handshake_seconds", Kind::Gauge, what, handshake);
}

/// Static peers, of which there are as many as the file has.
fn static_peers(out: &mut Text, peers: &[StaticPeer]) {
    let is_connected = |peer: &StaticPeer| peer.last_handshake.is_some_and(|age| age <= SESSION_LIFETIME);
    out.gauge("i2plan_peers_total", "Other members of the network that the node knows.", peers.len() as u64);
    let connected = peers.iter().filter(|peer| is_connected(peer)).count() as u64;
    out.gauge("i2plan_peers_connected", "Members with a live WireGuard session.", connected);
    let all: Vec<_> = peers
        .iter()
        .take(MAX_PEERS)
        .map(|peer| Series {
            id: &peer.public_key,
            is_connected: is_connected(peer),
            last_handshake: peer.last_handshake,
            counts: [
                peer.tx_bytes,
                peer.rx_bytes,
                peer.tx_packets,
                peer.rx_packets,
                peer.queue_drops,
                peer.rx_drops,
            ],
        })
        .collect();
    series(out, &all);
}

/// Members with traffic or a session, which are as many as there are tunnels, and [`MAX_PEERS`] at most.
fn peers(out: &mut Text, peers: &[Peer]) {
    let has_tunnel = |peer: &&Peer| {
        peer.last_handshake.is_some() || peer.tx_packets > 0 || peer.rx_packets > 0 || peer.queue_drops > 0
    };
    // In the order of their ids, so that the same ones are left out each time.
    let shown: BTreeMap<&str, &Peer> =
        peers.iter().filter(has_tunnel).map(|peer| (peer.node_id.as_str(), peer)).collect();
    let left_out = shown.len().saturating_sub(MAX_PEERS) as u64;
    let shown: Vec<_> = shown.into_values().take(MAX_PEERS).collect();
    out.gauge(
        "i2plan_peers_without_series",
        "Members with a tunnel that are left out of the families by peer, of which each has 1000 series at most.",
        left_out,
    );
    let label = |peer: &Peer| vec![("peer", peer.node_id.clone())];
    let info = shown.iter().map(|peer| {
        let mut labels = label(peer);
        labels.extend([("name", peer.name.clone()), ("ipv4", peer.ipv4.to_string())]);
        (labels, 1)
    });
    let what = "1, with the name and the address of each member that the other families by peer have.";
    out.family("i2plan_peer_info", Kind::Gauge, what, info);
    let all: Vec<_> = shown
        .iter()
        .map(|peer| Series {
            id: &peer.node_id,
            is_connected: is_connected(peer),
            last_handshake: peer.last_handshake,
            counts: [
                peer.tx_bytes,
                peer.rx_bytes,
                peer.tx_packets,
                peer.rx_packets,
                peer.queue_drops,
                peer.rx_drops,
            ],
        })
        .collect();
    series(out, &all);
    let rtt = shown.iter().filter_map(|peer| Some((label(peer), u128::from(peer.rtt?) * 1000)));
    let what = "Round trip of the last control message that a member answered, by peer.";
    out.seconds("i2plan_peer_round_trip_seconds", Kind::Gauge, what, rtt);
    let heard = shown.iter().filter_map(|peer| Some((label(peer), peer.last_heard?)));
    let what = "Time since a member's last control message, by peer.";
    out.family("i2plan_peer_last_heard_seconds", Kind::Gauge, what, heard);
}

#[cfg(test)]
mod tests;
