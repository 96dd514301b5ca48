//! What the daemon tells of itself.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use i2plan_ipc::Role;
use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, Query, Reply};
use i2plan_ipc::api::tund::Handshakes;
use i2plan_ipc::hello::{HelloReply, Landlock};
use i2plan_ipc::version::Version;
use i2plan_proto::destination::DestinationHash;

use super::Daemon;
use super::commands::without_identity;
use super::control::{ControlSession, SessionStatus};
use super::keyd_link::KeydReport;
use crate::core::{Mesh, describe_key};
use crate::shell::host;
use crate::shell::service::ReplySender;
use crate::shell::tunnel::TundReport;

/// How long making the interface takes at most, unless something is wrong.
const MAKING: Duration = Duration::from_secs(10);

/// How long after a control message a member counts as speaking.
pub(super) const HEARD_LATELY: Duration = Duration::from_secs(60);

impl Daemon {
    pub(super) fn on_query(&mut self, query: Query, answer: ReplySender) {
        let now = self.now();
        let mesh = self.mesh.as_ref().ok_or_else(without_identity);
        let reply = match query {
            Query::Status => Ok(Reply::Status(Box::new(self.status()))),
            Query::Peers => Ok(Reply::Peers(self.peers())),
            Query::Config => Ok(Reply::Config(self.config.settings())),
            Query::Counters => Ok(Reply::Counters(Box::new(self.counters()))),
            Query::Keys => match (&self.me, mesh) {
                (Some(me), Ok(mesh)) => Ok(Reply::Keys(Box::new(public_keys(me, mesh)))),
                _ => Err(without_identity()),
            },
            Query::Routes => mesh.map(|mesh| Reply::Routes(mesh.routes(now))),
            Query::ListBans => mesh.map(|mesh| Reply::Bans(mesh.ban_reports())),
            Query::ListInvites => mesh.map(|mesh| Reply::Invites(mesh.invite_reports(now))),
            Query::Ping { node_id } => {
                return self.have_mesh(answer, |mesh, id, now| mesh.ping(id, &node_id, now));
            }
            Query::CheckNetwork { network, subnet } => {
                let question = host::network_question(&network, &subnet, self.config.current());
                return self.check_host(question.map(Some), answer, |_, _, answer| {
                    let _ = answer.send(Ok(Reply::Acceptable));
                });
            }
        };
        // A caller that has gone does not want its answer.
        let _ = answer.send(reply);
    }

    pub(super) fn status(&self) -> meshd::Status {
        let tunnel = self.tunnel_report.borrow();
        let session = |status: &SessionStatus, destination: Option<DestinationHash>| meshd::Session {
            state: status.state,
            destination: destination.map(|hash| hash.b32()),
            error: status.error.clone(),
            health: meshd::SessionHealth::Fine,
            silent: None,
            over_tcp: false,
        };
        let over_tcp = |session: meshd::Session, open: Option<&ControlSession>| meshd::Session {
            over_tcp: open.is_some_and(ControlSession::is_over_tcp),
            ..session
        };
        let [control_health, data_health] = self.session_health();
        let with_health =
            |session: meshd::Session, (health, silent)| meshd::Session { health, silent, ..session };
        let published = self.mesh.as_ref().and_then(Mesh::published_key);
        let mut tunnel_error = tunnel.error.clone();
        if let (Some(configured), Some(published)) = (&tunnel.configured, published)
            && configured.public_key != published
        {
            tunnel_error =
                Some("tund uses another WireGuard key than this node has published; restart it".to_owned());
        }
        let tunnel_hint = tunnel.hint.clone().filter(|_| tunnel_error == tunnel.error);
        let keyd = self.keyd_report.borrow();
        let unsaved = self.unsaved.as_ref().map(|error| format!("cannot save the state: {error}"));
        meshd::Status {
            name: self.config.current().name.to_string(),
            node_id: self.me.map(|me| me.node.to_string()),
            uptime: self.started.elapsed().as_secs(),
            config: self.config.current().path().to_string_lossy().into_owned(),
            network: self.mesh.as_ref().and_then(|mesh| mesh.network_status(self.now())),
            former: self.mesh.as_ref().and_then(Mesh::former_status),
            keys: self.mesh.as_ref().map(|mesh| mesh.keys_problems(self.now())).unwrap_or_default(),
            sam: meshd::Sam {
                address: self.sessions.bridge.address.to_string(),
                version: self.sam_version.clone(),
                control: with_health(
                    over_tcp(
                        session(&self.control_status, self.me.map(|me| me.control.hash())),
                        self.control.as_ref(),
                    ),
                    control_health,
                ),
                fallback: self.fallback.as_ref().map(|fallback| {
                    let open = fallback.session.as_ref().map(|session| session.open.destination.hash());
                    over_tcp(session(&fallback.status, open), fallback.session.as_ref())
                }),
                data: with_health(
                    session(&self.data_status, self.data_destination.map(|data| data.hash())),
                    data_health,
                ),
            },
            tunnel: meshd::Tunnel {
                interface: tunnel.configured.as_ref().map(|configured| configured.interface.clone()),
                mtu: tunnel.stats.as_ref().and_then(|stats| stats.mtu).unwrap_or(self.config.current().mtu),
                public_key: tunnel
                    .configured
                    .as_ref()
                    .map(|configured| data_encoding::BASE64.encode(&configured.public_key)),
                drops: tunnel.stats.as_ref().map(|stats| stats.drops),
                overlaps: tunnel.stats.as_ref().map(|stats| stats.overlaps.clone()).unwrap_or_default(),
                without_ipv6: tunnel.stats.as_ref().is_some_and(|stats| stats.without_ipv6),
                faults: tunnel.stats.as_ref().map(|stats| stats.faults.clone()).unwrap_or_default(),
                making: tunnel.configured.is_none()
                    && self.mesh.as_ref().is_some_and(|mesh| mesh.network().is_some())
                    && self.interface_missing.is_none_or(|since| since.elapsed() < MAKING),
            },
            daemons: daemons(&keyd, unsaved, tunnel.daemon.as_ref(), (tunnel_error, tunnel_hint)),
            static_interface: None,
        }
    }

    fn counters(&self) -> meshd::Counters {
        meshd::Counters {
            started_at: started_at(self.started),
            messages: self.mesh.as_ref().map(Mesh::message_counts).unwrap_or_default(),
            handshakes: handshakes(&self.tunnel_report.borrow()),
            state_writes: self.state_writes,
            rounds: self.rounds,
            sends: self.sends,
            events: self.event_log.counts(),
        }
    }

    pub(super) fn traffic(&self) -> meshd::Traffic {
        let tunnel = self.tunnel_report.borrow();
        let stats = tunnel.stats.iter().flat_map(|stats| &stats.peers);
        let peers = stats.filter(|peer| peer.tx_packets > 0 || peer.rx_packets > 0);
        let peers = peers.map(|peer| meshd::PeerTraffic {
            node_id: peer.node.to_string(),
            tx_bytes: peer.tx_bytes,
            rx_bytes: peer.rx_bytes,
            last_handshake: peer.last_handshake,
            rtt: self.mesh.as_ref().and_then(|mesh| mesh.rtt_of(&peer.node)).map(millis),
        });
        meshd::Traffic { at: millis(self.started.elapsed()), peers: peers.collect() }
    }

    fn peers(&self) -> Vec<meshd::Peer> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let tunnel = self.tunnel_report.borrow();
        let stats = tunnel.stats.iter().flat_map(|stats| &stats.peers);
        let stats: HashMap<_, _> = stats.map(|peer| (peer.node, peer)).collect();
        let reports = mesh.peer_reports(self.now()).into_iter();
        reports
            .map(|(node, mut peer)| {
                if let Some(stats) = stats.get(&node) {
                    peer.last_handshake = stats.last_handshake;
                    peer.tx_packets = stats.tx_packets;
                    peer.tx_bytes = stats.tx_bytes;
                    peer.rx_packets = stats.rx_packets;
                    peer.rx_bytes = stats.rx_bytes;
                    peer.queue_drops = stats.queue_drops;
                    peer.rx_drops = stats.rx_drops;
                }
                peer
            })
            .collect()
    }
}

/// The handshakes that `tund` has counted.
pub(in crate::shell) fn handshakes(tunnel: &TundReport) -> Handshakes {
    tunnel.stats.as_ref().map(|stats| stats.handshakes).unwrap_or_default()
}

/// The daemons, with what is wrong with this one, and with `tund` and what to do about that.
pub(in crate::shell) fn daemons(
    keyd: &KeydReport,
    own_error: Option<String>,
    tund: Option<&HelloReply>,
    (tund_error, tund_hint): (Option<String>, Option<String>),
) -> Vec<meshd::Daemon> {
    let daemon = |role: Role, hello: Option<&HelloReply>, error: Option<String>| meshd::Daemon {
        name: role.to_string(),
        pid: hello.map(|hello| hello.pid),
        version: hello.map(|hello| hello.version.clone()),
        landlock: hello.map(|hello| hello.landlock),
        error,
        hint: None,
    };
    vec![
        daemon(Role::Keyd, keyd.daemon.as_ref().ok(), keyd.daemon.as_ref().err().cloned()),
        meshd::Daemon {
            name: Role::Connector.to_string(),
            pid: keyd.connector.as_ref().map(|connector| connector.pid),
            version: keyd.connector.as_ref().map(|connector| connector.version.clone()),
            landlock: keyd.connector.as_ref().map(|connector| connector.landlock),
            // Without keyd nobody knows.
            error: (keyd.daemon.is_ok() && keyd.connector.is_none())
                .then(|| "it is not connected to keyd".to_owned()),
            hint: None,
        },
        meshd::Daemon {
            name: Role::Meshd.to_string(),
            pid: Some(std::process::id()),
            version: Some(Version::current()),
            landlock: Some(Landlock::of_this_process()),
            error: own_error,
            hint: None,
        },
        meshd::Daemon { hint: tund_hint, ..daemon(Role::Tund, tund, tund_error) },
    ]
}

/// The public half of the node's keys.
fn public_keys(me: &keyd::Identity, mesh: &Mesh) -> meshd::Keys {
    meshd::Keys {
        node_id: me.node.to_string(),
        sealed: me.sealed,
        control: meshd::ControlDestination { b32: me.control.hash().b32(), base64: me.control.to_base64() },
        network: mesh.network().map(|network| network.to_string()),
        wireguard: mesh.published_certificate().map(describe_key),
    }
}

/// The Unix time in seconds at which something was that is this long ago by the monotonic clock.
pub(in crate::shell) fn started_at(started: Instant) -> u64 {
    let at = SystemTime::now().checked_sub(started.elapsed());
    at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default().as_secs()
}

pub(in crate::shell) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
