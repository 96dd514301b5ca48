//! The control session and what comes through it, and what is done where nobody can be reached.

use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::api::keyd::SessionKind;
use i2plan_ipc::api::meshd::{EventKind, SessionName, SessionState};
use i2plan_proto::destination::Destination;
use i2plan_proto::sam;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::Daemon;
use super::status::HEARD_LATELY;
use crate::core::Now;
use crate::shell::observer;
use crate::shell::sessions::{self, Open, Update};
use crate::shell::stall::Health;

/// How long members may speak without shaking hands, the first time.
pub(super) const DATA_STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long members may leave this node without an answer after the control session was opened, the first time: a few
/// round trips of a slow path.
pub(super) const CONTROL_STALL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a fallback session lasts. By then the members' routers have forgotten
/// what they knew of that (ECIES-X25519: after 8 to 10 minutes; emissary 0.4 looks every other minute).
pub(super) const FALLBACK_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What is known of one SAM session.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SessionStatus {
    pub(super) state: SessionState,
    pub(super) error: Option<String>,
}

/// An open session for control messages.
pub(super) struct ControlSession {
    pub(super) open: Arc<Open>,
    pub(super) socket: Arc<UdpSocket>,
}

impl ControlSession {
    pub(super) fn send(&self, to: &Destination, message: &[u8]) {
        let datagram = sam::datagram::encode(&self.open.id, to, message);
        if let Err(error) = sessions::send(&self.socket, &datagram) {
            debug!(%error, "a control message was not sent");
        }
    }
}

/// A session under a fallback destination, which ends with this.
pub(super) struct FallbackSession {
    pub(super) task: JoinHandle<()>,
    pub(super) until: Duration,
    pub(super) status: SessionStatus,
    pub(super) session: Option<ControlSession>,
}

impl Drop for FallbackSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    /// Does something about sessions through which nobody can be reached.
    pub(super) fn listen(&mut self) {
        self.listen_for_handshakes();
        self.listen_for_members();
    }

    pub(super) fn listen_for_members(&mut self) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else { return };
        if self.fallback.as_ref().is_some_and(|fallback| fallback.until <= now.monotonic) {
            info!("the control session replaces the fallback session");
            self.fallback = None;
            let (session, state) = (SessionName::Fallback, SessionState::Down);
            self.event_log.push(EventKind::Session { session, state, error: None });
            self.control_since = now.monotonic;
            mesh.handle_fallback(None, now);
            mesh.handle_control_session(now);
        }
        let health = Health {
            expected: self.control.is_some() && self.fallback.is_none() && mesh.has_reachable_members(),
            works: mesh.last_heard().is_some_and(|heard| heard > self.control_since),
        };
        if self.control_stalls.handle_health(health, now.monotonic) {
            warn!("no member answers: opening a session under a fallback destination");
            self.open_fallback(now);
            return;
        }
        // One that is there already may be of no more use to whom this node asks now.
        let is_opening = self.fallback.as_ref().is_some_and(|fallback| fallback.session.is_none());
        if mesh.needs_fallback() && self.control.is_some() && !is_opening {
            warn!("the inviter does not answer: it is to be asked from another destination too");
            mesh.handle_fallback(None, now);
            self.open_fallback(now);
        }
    }

    /// Has a session opened under a new fallback destination, in place of the one that there may be.
    pub(super) fn open_fallback(&mut self, now: Now) {
        let (kind, adopt) = (SessionKind::Fallback, oneshot::channel().1);
        let keep = sessions::keep(self.sessions.clone(), kind, None, adopt, Arc::new(Notify::new()));
        self.fallback = Some(FallbackSession {
            task: tokio::spawn(keep),
            until: now.monotonic + FALLBACK_LIFETIME,
            status: SessionStatus { state: SessionState::Down, error: None },
            session: None,
        });
    }

    /// Opens the session for data again if nobody shakes hands through it.
    pub(super) fn listen_for_handshakes(&mut self) {
        let Some(mesh) = &self.mesh else { return };
        let now = self.now();
        let tunnel = self.tunnel_report.borrow();
        // In a large network nobody shakes hands unasked.
        let unasked = || {
            let there = self.tunnel.borrow().peers.iter().filter(|peer| peer.keepalive > 0).count();
            u32::try_from(there).is_ok_and(|there| there <= mesh.max_peers())
        };
        let called = || tunnel.stats.iter().flat_map(|stats| &stats.peers).any(|peer| peer.unanswered > 0);
        let health = Health {
            expected: self.data_status.state == SessionState::Up
                && tunnel.configured.is_some()
                && (unasked() || called())
                && mesh.last_heard().is_some_and(|heard| now.monotonic < heard + HEARD_LATELY),
            works: observer::sessions(tunnel.stats.as_ref()).next().is_some(),
        };
        if !health.expected || health.works {
            self.data_renewal.cancel();
        }
        if self.data_stalls.handle_health(health, now.monotonic) {
            let yields = mesh.has_heard_smaller(now.monotonic.saturating_sub(HEARD_LATELY));
            self.data_renewal.handle_stall(yields, now.monotonic, &mut rand::rng());
        }
        if self.data_renewal.poll_due(now.monotonic) {
            warn!("members speak to this node, but none shakes hands: the data session is opened again");
            self.renew_data.notify_one();
        }
    }

    pub(super) fn on_update(&mut self, update: Update) {
        let now = self.now();
        match update {
            Update::Version(version) => self.sam_version = Some(version),
            Update::State { kind, state, error } => {
                let status = match (kind, &mut self.fallback) {
                    (SessionKind::Control, _) => &mut self.control_status,
                    (SessionKind::Data, _) => &mut self.data_status,
                    (SessionKind::Fallback, Some(fallback)) => &mut fallback.status,
                    // From a task that has been ended.
                    (SessionKind::Fallback, None) => return,
                };
                // The reason of the last failure is of use until the session is up again.
                let error =
                    if state == SessionState::Opening { error.or(status.error.take()) } else { error };
                let before = std::mem::replace(status, SessionStatus { state, error });
                if before != *status {
                    let session = match kind {
                        SessionKind::Control => SessionName::Control,
                        SessionKind::Fallback => SessionName::Fallback,
                        SessionKind::Data => SessionName::Data,
                    };
                    self.event_log.push(EventKind::Session { session, state, error: status.error.clone() });
                }
                match (kind, state, &mut self.fallback) {
                    (_, SessionState::Up, _) => {}
                    (SessionKind::Control, ..) => self.control = None,
                    (SessionKind::Fallback, _, Some(fallback)) => fallback.session = None,
                    _ => {}
                }
            }
            Update::Control(SessionKind::Fallback, open, socket) => {
                let destination = open.destination;
                if let (Some(fallback), Some(mesh)) = (&mut self.fallback, &mut self.mesh) {
                    fallback.session = Some(ControlSession { open, socket });
                    mesh.handle_fallback(Some(destination), now);
                }
            }
            Update::Control(_, open, socket) => {
                self.tunnel.send_modify(|desired| desired.control = Some(Arc::clone(&open)));
                self.control = Some(ControlSession { open, socket });
                self.control_since = now.monotonic;
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_control_session(now);
                }
            }
            Update::Data(session) => {
                self.data_destination = Some(session.destination);
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_data_session(session.destination);
                }
                self.tunnel.send_modify(|desired| desired.session = Some(session));
            }
            Update::Datagram { from, payload } => {
                if let Some(mesh) = &mut self.mesh {
                    let work = || mesh.handle_datagram(&from, &payload, now);
                    self.containment.handle(|| from.hash(), now.monotonic, work);
                }
            }
            Update::Found { hash, destination } => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_lookup(hash, destination, now);
                }
            }
        }
    }

    pub(super) fn send(&self, to: &Destination, message: &[u8], as_control: bool) {
        let fallback = self.fallback.as_ref().and_then(|fallback| fallback.session.as_ref());
        match fallback.filter(|_| !as_control).or(self.control.as_ref()) {
            Some(session) => session.send(to, message),
            None => debug!("a control message was not sent: the session is down"),
        }
    }
}
