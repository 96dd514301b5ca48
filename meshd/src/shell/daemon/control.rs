//! The control session and what comes through it, and what is done where nobody can be reached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use i2plan_ipc::api::keyd::SessionKind;
use i2plan_ipc::api::meshd::{EventKind, SessionHealth, SessionName, SessionState};
use i2plan_ipc::api::tund::{self, PeerStats};
use i2plan_ipc::warn_limited;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::NodeId;
use i2plan_transport::retry::Release;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::Daemon;
use super::status::HEARD_LATELY;
use crate::core::{Mesh, Now, Peer};
use crate::shell::control_path::Path;
use crate::shell::introductions::{Introductions, Verdict};
use crate::shell::pair_health::{PairActions, Traffic};
use crate::shell::session_health::{self, HealthAction, IdleAction, Patience};
use crate::shell::sessions::{self, ControlSender, Open, Renewal, Update};
use crate::shell::sleep;

/// For control messages: a round trip of a slow path or two each. A session that is opened in vain costs less than one
/// that is waited for: where a node has begun anew, other members' routers often hold on to what was before.
pub(super) const CONTROL_PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(4),
    fresh: Duration::from_secs(2),
    questions: Duration::from_secs(3),
};

/// For WireGuard. One that has nothing to say answers after ten seconds, but to a handshake at once.
pub(super) const DATA_PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(8),
    fresh: Duration::from_secs(4),
    questions: Duration::from_secs(5),
};

/// So many handshakes with a member in vain say that not only the first was lost.
const IN_VAIN: u32 = 2;

/// Members that are looked up before the session for data is used for them; others of a large network are not.
const INTRODUCED: usize = 64;

/// How long after the host has slept a session for data that is of no use is this node's to replace.
const WAKING: Duration = Duration::from_secs(30);

/// Members that are called to test the session for data.
const CALLED: usize = 3;

/// What a datagram to itself says.
const ECHO: &[u8] = b"i2plan echo";

/// How long the control session may be missing when there is one for data. i2pd 2.45.1 at times does not publish the lease
/// set of a destination for minutes, and goes on with it when the session is opened again; another one is spared that.
const MISSING: Duration = Duration::from_secs(20);

/// How long a router may be asked for the control session when it has opened another meanwhile. i2pd 2.45.1 looks every 20 s
/// whether a session's tunnels are there, and never answers where the destination was stopped: a request for it that was
/// given up stops it once its tunnels are there.
const UNANSWERED: Duration = Duration::from_secs(65);

/// How long a fallback session lasts. By then the members' routers have forgotten
/// what they knew of that (ECIES-X25519: after 8 to 10 minutes; emissary 0.4 looks every other minute).
pub(super) const FALLBACK_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What is known of one SAM session.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::shell) struct SessionStatus {
    pub(in crate::shell) state: SessionState,
    pub(in crate::shell) error: Option<String>,
}

/// An open session for control messages.
pub(super) struct ControlSession {
    pub(super) open: Arc<Open>,
    sender: ControlSender,
    lookups: mpsc::Sender<DestinationHash>,
    introductions: Introductions,
    /// Another is opened in its place, whose messages go in the other way.
    is_left: bool,
}

impl ControlSession {
    fn new(open: Arc<Open>, sender: ControlSender, lookups: mpsc::Sender<DestinationHash>) -> Self {
        Self { open, sender, lookups, introductions: Introductions::default(), is_left: false }
    }

    /// Whether its messages go over its TCP connection.
    pub(super) fn is_over_tcp(&self) -> bool {
        matches!(self.sender, ControlSender::Tcp(_))
    }

    /// Sends a message, as soon as the router knows where to.
    fn send(&mut self, to: &Destination, message: &[u8], now: Duration) {
        // There a look-up would hold up all other messages, for seconds where the destination is not found.
        if self.is_over_tcp() {
            return self.send_now(to, message);
        }
        match self.introductions.handle_send(to, message, now) {
            Verdict::Send => self.send_now(to, message),
            Verdict::Held => {}
            Verdict::LookUp => {
                if self.lookups.try_send(to.hash()).is_err() {
                    self.handle_found(&to.hash(), false, now);
                }
            }
        }
    }

    fn handle_found(&mut self, hash: &DestinationHash, found: bool, now: Duration) {
        for (to, message) in self.introductions.handle_found(hash, found, now) {
            self.send_now(&to, &message);
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        for (to, message) in self.introductions.handle_timeout(now) {
            self.send_now(&to, &message);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.introductions.poll_timeout()
    }

    fn send_now(&self, to: &Destination, message: &[u8]) {
        self.sender.send(&self.open.id, to, message);
    }
}

/// A session under a fallback destination, which ends with this.
pub(super) struct FallbackSession {
    pub(super) task: JoinHandle<()>,
    pub(super) until: Duration,
    pub(super) status: SessionStatus,
    pub(super) session: Option<ControlSession>,
    lookups: mpsc::Sender<DestinationHash>,
    /// When it works the control session is to be opened anew: nothing has been heard through that.
    pub(super) replaces: bool,
    /// Since when it is open.
    pub(super) since: Option<Duration>,
}

impl Drop for FallbackSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What users were last told of a session: how it is, and which one it was, if there was one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ToldHealth {
    health: SessionHealth,
    opened: Option<u64>,
}

/// Whether it is left to another node to replace its session for data. After a sleep it is not: the others were there all
/// the time, and do not replace theirs.
fn yields(mesh: &Mesh, slept_until: Option<Duration>, now: Now) -> bool {
    slept_until.is_none_or(|until| now.monotonic >= until + WAKING)
        && mesh.has_heard_smaller(now.monotonic.saturating_sub(HEARD_LATELY))
}

impl Daemon {
    /// Looks whether the sessions carry traffic, and does something about those that do not.
    pub(super) fn watch_sessions(&mut self) {
        let now = self.now();
        if let Some(asleep) = self.sleep.handle_time(sleep::since_boot()) {
            info!(
                seconds = asleep.as_secs(),
                "the host was asleep, or this process stopped: the sessions are tested"
            );
            self.slept_until = Some(now.monotonic);
            self.pair_health.handle_resumed(now.monotonic);
            self.one_way_test.forget();
            self.control_health.handle_resumed(now.monotonic);
            self.data_health.handle_resumed(now.monotonic);
            if let Some(mesh) = &mut self.mesh {
                mesh.ask_members(now);
                // Their WireGuard sessions have ended meanwhile; that this node's have too it finds out too late.
                let members = mesh.heard_members(tund::MAX_BATCH, now);
                self.test_data(members);
            }
            // It takes some routers up to a minute: longer than to find out whether it is needed.
            if self.data_session.is_some() && !self.pair_health.is_settled(|_, _| true, now.monotonic) {
                self.data_renewal.handle_prepared(now.monotonic);
                let _ = self.renew_data.try_send(Renewal::Prepare);
            }
        }
        self.end_introductions(now);
        self.end_fallback(now);
        self.watch_opening(now);
        self.watch_idle(now);
        self.watch_control(now);
        self.watch_data(now);
        self.watch_path(now);
        self.tell_health();
    }

    /// Goes over from TCP to UDP when that works, and to TCP when only the fallback session is heard through, which has that.
    fn watch_path(&mut self, now: Now) {
        let fallback = self.fallback.as_ref().and_then(|fallback| fallback.session.as_ref());
        let fallback_over_tcp = fallback.is_some_and(ControlSession::is_over_tcp);
        let Some(session) = &mut self.control else { return };
        let path = self.sessions.path();
        let other = match session.is_over_tcp() {
            true if path.works() => "UDP",
            false if fallback_over_tcp && path.next(false, now.monotonic) == Path::Tcp => "TCP",
            _ => return,
        };
        if !std::mem::replace(&mut session.is_left, true) {
            info!("the bridge is heard over {other}: the control session is opened anew, to use it");
            let _ = self.renew_control.try_send(Renewal::Open);
        }
    }

    /// Gives up an attempt at the control session that the router will not answer.
    fn watch_opening(&mut self, now: Now) {
        if self.control_status.state != SessionState::Opening {
            self.control_unanswered = None;
        } else if self.data_status.state == SessionState::Up {
            self.control_unanswered.get_or_insert(now.monotonic);
        }
        if self.control_unanswered.take_if(|since| now.monotonic >= *since + UNANSWERED).is_some() {
            info!("the router opens other sessions, but not the one for control: it is asked again");
            let _ = self.renew_control.try_send(Renewal::Retry);
        }
    }

    /// Tests the control session while no member is reachable. Otherwise [`Daemon::watch_control`] asks members.
    fn watch_idle(&mut self, now: Now) {
        let Some(session) = &self.control else { return };
        if self.fallback.is_some() || self.mesh.as_ref().is_some_and(|mesh| mesh.has_reachable_members(now)) {
            return;
        }
        match self.idle_test.poll_action(now.monotonic) {
            Some(IdleAction::TestItself) => session.send_now(&session.open.destination, ECHO),
            Some(IdleAction::Reopen) => {
                info!("nothing that the control session sends to itself comes back: it is opened anew");
                let _ = self.renew_control.try_send(Renewal::Open);
            }
            None => {}
        }
    }

    fn watch_control(&mut self, now: Now) {
        let Some(mesh) = &mut self.mesh else { return };
        if let Some(answered) = mesh.last_answered() {
            self.one_way_test.handle_answered(answered);
        }
        if self.one_way_test.poll_question(now.monotonic) {
            mesh.ask_members(now);
        }
        if mesh.poll_asked() {
            self.control_health.handle_sent(now.monotonic);
            self.one_way_test.handle_asked(now.monotonic);
        }
        // What is heard of members that do not hear this node counts for nothing.
        let heard = mesh.last_heard().filter(|_| !self.one_way_test.is_one_way(now.monotonic));
        if let Some(heard) = heard {
            self.control_health.handle_heard(heard);
            if let Some(fallback) = &mut self.fallback
                && fallback.since.is_some_and(|since| heard > since)
                && std::mem::take(&mut fallback.replaces)
            {
                info!("members answer through the fallback session: the control session is opened anew");
                let _ = self.renew_control.try_send(Renewal::Open);
            }
        }
        if !mesh.has_reachable_members(now) {
            self.control_health.handle_nobody_expected();
            self.one_way_test.forget();
        }
        self.control_health.handle_timeout(now.monotonic);
        while let Some(action) = self.control_health.poll_action() {
            match action {
                HealthAction::TestItself => {
                    let fallback = self.fallback.as_ref().and_then(|fallback| fallback.session.as_ref());
                    if let Some(session) = fallback.or(self.control.as_ref()) {
                        session.send_now(&session.open.destination, ECHO);
                    }
                }
                HealthAction::TestMembers => {
                    if let Some(mesh) = &mut self.mesh {
                        mesh.ask_members(now);
                    }
                }
                HealthAction::Replace => {
                    info!("no member answers: opening a session under a fallback destination");
                    self.open_fallback(true, now);
                }
                HealthAction::Keep => {
                    let opening = |fallback: &mut FallbackSession| fallback.session.is_none();
                    if self.fallback.take_if(opening).is_some() {
                        info!("members answer again: no fallback session is needed");
                        self.note_no_fallback(now);
                    }
                }
            }
        }
        let is_missing = self.control.is_none()
            && self.fallback.is_none()
            && self.data_status.state == SessionState::Up
            && self.mesh.as_ref().is_some_and(|mesh| mesh.has_reachable_members(now));
        if !is_missing {
            self.control_missing = None;
        } else if now.monotonic >= *self.control_missing.get_or_insert(now.monotonic) + MISSING {
            info!("the control session does not open: opening a session under a fallback destination");
            self.open_fallback(false, now);
        }
        // One that is there already may be of no more use to whom this node asks now.
        let is_opening = self.fallback.as_ref().is_some_and(|fallback| fallback.session.is_none());
        if let Some(mesh) = &mut self.mesh
            && mesh.needs_fallback()
            && self.control.is_some()
            && !is_opening
        {
            warn!("the inviter does not answer: it is to be asked from another destination too");
            mesh.handle_fallback(None, now);
            self.open_fallback(false, now);
        }
    }

    fn end_fallback(&mut self, now: Now) {
        if self.fallback.take_if(|fallback| fallback.until <= now.monotonic).is_some() {
            info!("the control session replaces the fallback session");
            self.note_no_fallback(now);
            match self.control {
                Some(_) => self.control_health.handle_up(),
                None => self.control_health.handle_down(),
            }
        }
    }

    fn note_no_fallback(&mut self, now: Now) {
        let (session, state) = (SessionName::Fallback, SessionState::Down);
        self.event_log.push(EventKind::Session { session, state, error: None });
        if let Some(mesh) = &mut self.mesh {
            mesh.handle_fallback(None, now);
            mesh.handle_control_session(now);
        }
    }

    /// Has a session opened under a new fallback destination, in place of the one that there may be.
    fn open_fallback(&mut self, replaces: bool, now: Now) {
        let (kind, adopt, renewals) = (SessionKind::Fallback, oneshot::channel().1, mpsc::channel(1).1);
        let (lookups, lookup_queue) = mpsc::channel(64);
        let release = Release::default();
        let keep = sessions::keep(self.sessions.clone(), kind, release, lookup_queue, adopt, renewals);
        self.fallback = Some(FallbackSession {
            task: tokio::spawn(keep),
            until: now.monotonic + FALLBACK_LIFETIME,
            status: SessionStatus { state: SessionState::Down, error: None },
            session: None,
            lookups,
            replaces,
            since: None,
        });
    }

    /// The health of the session for data, of which `tund` tells.
    fn watch_data(&mut self, now: Now) {
        let Some(mesh) = &self.mesh else { return };
        let tunnel = self.tunnel_report.borrow();
        let stats = tunnel.stats.as_ref();
        let attached = stats.and_then(|stats| stats.session.clone());
        if attached != self.data_session {
            match attached {
                Some(_) => self.data_health.handle_up(),
                None => self.data_health.handle_down(),
            }
            self.data_renewal.handle_session();
            self.pair_health.handle_session();
            self.data_session = attached;
        }
        // In a large network nobody shakes hands unasked.
        let unasked = || {
            let there = self.tunnel.borrow().peers.iter().filter(|peer| peer.keepalive > 0).count();
            u32::try_from(there).is_ok_and(|there| there > 0 && there <= mesh.max_peers())
        };
        let called = || stats.iter().flat_map(|stats| &stats.peers).any(|peer| peer.unanswered > 0);
        // Where members are not heard over control, that is what is looked into first.
        let expected = self.data_session.is_some()
            && (unasked() || called())
            && mesh.last_heard().is_some_and(|heard| now.monotonic < heard + HEARD_LATELY);
        let at = |age: u64| now.monotonic.saturating_sub(Duration::from_millis(age));
        if let Some(heard) = stats.and_then(|stats| stats.heard) {
            self.data_health.handle_heard(at(heard));
            self.data_renewal.handle_heard();
            self.sessions.path().handle_udp(at(heard));
        }
        match stats.and_then(|stats| stats.unanswered).filter(|_| expected) {
            Some(unanswered) => {
                self.data_health.handle_sent(at(unanswered));
                let heard = |node| mesh.is_there(node, now.monotonic.saturating_sub(HEARD_LATELY));
                let mut peers = stats.iter().flat_map(|stats| &stats.peers);
                if peers.any(|peer| peer.unanswered >= IN_VAIN && heard(&peer.node)) {
                    self.data_health.handle_urgent();
                }
            }
            None if !expected => self.data_health.handle_nobody_expected(),
            None => {}
        }
        drop(tunnel);
        self.data_health.handle_timeout(now.monotonic);
        while let Some(action) = self.data_health.poll_action() {
            match action {
                HealthAction::TestItself => self.test_data(Vec::new()),
                HealthAction::TestMembers => {
                    let members = self.mesh.as_ref().map(|mesh| mesh.heard_members(CALLED, now));
                    self.test_data(members.unwrap_or_default());
                }
                HealthAction::Replace => {
                    let yields = self.mesh.as_ref().is_some_and(|mesh| yields(mesh, self.slept_until, now));
                    self.data_renewal.handle_stall(yields, now.monotonic, &mut rand::rng());
                }
                // If it has begun it goes on while a tunnel is silent.
                HealthAction::Keep => self.data_renewal.cancel(),
            }
        }
        if let Some(in_vain) = self.data_renewal.poll_due(now.monotonic) {
            info!(
                "members speak to this node, but do not answer in their tunnels: another session for data is opened"
            );
            let _ = self.renew_data.try_send(Renewal::Open);
            if in_vain && self.control.is_some() && self.fallback.is_none() {
                info!(
                    "members do not learn of this node's sessions for data: control messages go from a fallback destination"
                );
                self.open_fallback(true, now);
            }
        }
    }

    /// The health of each tunnel, while the session as a whole is well.
    pub(super) fn watch_pairs(&mut self) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else { return };
        if self.data_session.is_none() {
            return;
        }
        let tunnel = self.tunnel_report.borrow();
        let peers = tunnel.stats.iter().flat_map(|stats| &stats.peers);
        let traffic = peers.map(|peer| {
            let PeerStats { tx_packets, tx_bytes, rx_packets, rx_bytes, .. } = *peer;
            (peer.node, Traffic { tx_packets, tx_bytes, rx_packets, rx_bytes })
        });
        self.pair_health.handle_traffic(traffic, now.monotonic);
        drop(tunnel);
        let is_there = |node: &_, since| mesh.is_there(node, since);
        let is_fine = self.data_health.health().0 == SessionHealth::Fine;
        let is_settled = is_fine && self.pair_health.is_settled(is_there, now.monotonic);
        if self.data_renewal.poll_unneeded(is_settled, now.monotonic) {
            debug!("the session for data carries traffic: no other is needed");
            let _ = self.renew_data.try_send(Renewal::Keep);
        }
        if !is_fine {
            return;
        }
        let PairActions { probe, mut shake_hands, renew } =
            self.pair_health.poll_actions(is_there, now.monotonic);
        mesh.probe_members(&probe, now);
        if renew {
            let yields = yields(mesh, self.slept_until, now);
            self.data_renewal.handle_stall(yields, now.monotonic, &mut rand::rng());
        }
        if !shake_hands.is_empty() {
            debug!(count = shake_hands.len(), "members are there, and silent in their tunnels");
            shake_hands.truncate(tund::MAX_BATCH);
            self.test_data(shake_hands);
        }
    }

    /// The session for data is open. `tund` gets it when the router has looked for those with whom there are tunnels, or
    /// after a moment: what is sent to them then arrives.
    fn begin_attaching(&mut self, session: Arc<Open>, now: Now) {
        self.data_introductions = Introductions::default();
        for peer in self.tunnel.borrow().peers.iter().filter(|peer| peer.keepalive > 0).take(INTRODUCED) {
            let hash = peer.record.value.data.destination.hash();
            if self.data_introductions.handle_need(hash, now.monotonic) == Verdict::LookUp
                && self.data_lookups.try_send(hash).is_err()
            {
                self.data_introductions.handle_found(&hash, false, now.monotonic);
            }
        }
        self.attaching = Some(session);
    }

    /// Leaves those out for a moment whom the router does not know yet; members whose destination is another than before
    /// stay as they were. The first time all are told: `tund` may have tunnels with them.
    pub(super) fn introduce(&mut self, peers: Vec<Peer>, now: Now) -> Vec<Peer> {
        if self.peers_version.is_none() {
            return peers;
        }
        let before = Arc::clone(&self.tunnel.borrow().peers);
        let before: HashMap<_, _> = before.iter().map(|peer| (peer.node, peer)).collect();
        self.introducing = false;
        let mut left = INTRODUCED;
        let is_open = self.data_status.state == SessionState::Up;
        let introduced = peers.into_iter().filter_map(|peer| {
            let data = peer.record.value.data.destination;
            let old = before.get(&peer.node);
            let is_known = old.is_some_and(|old| old.record.value.data.destination == data);
            if is_known || peer.keepalive == 0 || left == 0 || !is_open {
                return Some(peer);
            }
            left -= 1;
            let verdict = self.data_introductions.handle_need(data.hash(), now.monotonic);
            if verdict == Verdict::Send
                || verdict == Verdict::LookUp && self.data_lookups.try_send(data.hash()).is_err()
            {
                return Some(peer);
            }
            self.introducing = true;
            old.map(|old| (*old).clone())
        });
        introduced.collect()
    }

    /// Goes on with what has waited for look-ups.
    fn end_introductions(&mut self, now: Now) {
        self.data_introductions.handle_timeout(now.monotonic);
        if self.data_introductions.is_done()
            && let Some(session) = self.attaching.take()
        {
            self.tunnel.send_modify(|desired| desired.session = Some(session));
        }
        let fallback = self.fallback.as_mut().and_then(|fallback| fallback.session.as_mut());
        for session in self.control.iter_mut().chain(fallback) {
            session.handle_timeout(now.monotonic);
        }
    }

    /// Has `tund` test the session for data.
    fn test_data(&self, members: Vec<NodeId>) {
        let (tund, tested) = (Arc::clone(&self.tund), self.tested_sender.clone());
        tokio::spawn(async move {
            // A tund that is away is told of otherwise.
            if let Ok(came) = tund.call(tund::TestSession(members)).await {
                let _ = tested.send(came).await;
            }
        });
    }

    /// How the sessions for control messages and for data are, and for how many seconds an answer has been due.
    pub(super) fn session_health(&self) -> [(SessionHealth, Option<u64>); 2] {
        let now = self.started.elapsed();
        let [control, mut data] = [&self.control_health, &self.data_health].map(|health| {
            let (health, since) = health.health();
            (health, since.map(|since| now.saturating_sub(since).as_secs()))
        });
        if let Some(since) = self.data_renewal.replacing() {
            // It may be for one tunnel.
            data = (SessionHealth::Replacing, data.1.or(Some(now.saturating_sub(since).as_secs())));
        } else if data.0 == SessionHealth::Replacing && self.data_renewal.poll_timeout().is_some() {
            // It is left to the other side for a moment.
            data.0 = SessionHealth::Testing;
        }
        [control, data]
    }

    /// Tells users what has become of the sessions' health.
    fn tell_health(&mut self) {
        let found = self.session_health();
        let opened = [&self.control_health, &self.data_health].map(session_health::SessionHealth::opened);
        for (at, session) in [SessionName::Control, SessionName::Data].into_iter().enumerate() {
            let ((health, silent), opened) = (found[at], opened[at]);
            let before = std::mem::replace(&mut self.told_health[at], ToldHealth { health, opened });
            if before.health == health {
                continue;
            }
            let silent = silent.unwrap_or_default();
            // Of one that is not there its state is told.
            let Some(number) = opened else { continue };
            let replaced = health == SessionHealth::Fine && before.opened != Some(number);
            match health {
                SessionHealth::Fine if replaced => {
                    info!(?session, "another session was opened in the place of the silent one");
                }
                // A mere test was passed. Members who are silent at will could have that told all the time.
                SessionHealth::Fine if before.health == SessionHealth::Testing => {
                    debug!(?session, "the session carries traffic");
                }
                SessionHealth::Fine => info!(?session, "the session carries traffic again"),
                // Mostly it is a peer that has gone.
                SessionHealth::Testing => {
                    debug!(?session, seconds = silent, "nothing is heard: the session is tested");
                }
                SessionHealth::Replacing => {
                    let reason = format!("{session:?}: no answer");
                    warn_limited!(
                        self.silence_limit,
                        self.started.elapsed(),
                        &reason,
                        seconds = silent,
                        "nothing is heard through a session: another is opened in its place"
                    );
                }
            }
            self.event_log.push(EventKind::SessionHealth { session, health, silent, replaced });
        }
    }

    pub(super) fn on_update(&mut self, update: Update) {
        let now = self.now();
        match update {
            Update::Answered(kind, version) => {
                self.sam_version = Some(version);
                let waits = self.control_status.state == SessionState::Opening;
                match kind {
                    SessionKind::Control => self.control_unanswered = None,
                    SessionKind::Data | SessionKind::Fallback if waits => {
                        self.control_unanswered.get_or_insert(now.monotonic);
                    }
                    // Of another kind of interface.
                    SessionKind::StaticRaw | SessionKind::StaticRepliable => {}
                    SessionKind::Data | SessionKind::Fallback => {}
                }
            }
            Update::State { kind, state, error } => {
                let status = match (kind, &mut self.fallback) {
                    (SessionKind::Control, _) => &mut self.control_status,
                    (SessionKind::Data | SessionKind::StaticRaw | SessionKind::StaticRepliable, _) => {
                        &mut self.data_status
                    }
                    (SessionKind::Fallback, Some(fallback)) => &mut fallback.status,
                    // From a task that has been ended.
                    (SessionKind::Fallback, None) => return,
                };
                // The reason of the last failure is of use until the session is up again.
                let error =
                    if state == SessionState::Opening { error.or(status.error.take()) } else { error };
                let before = std::mem::replace(status, SessionStatus { state, error });
                if let (SessionKind::Control, Some(mesh)) = (kind, &mut self.mesh) {
                    mesh.handle_control_state(state, status.error.as_deref(), now);
                }
                if before != *status {
                    let session = match kind {
                        SessionKind::Control => SessionName::Control,
                        SessionKind::Fallback => SessionName::Fallback,
                        SessionKind::Data | SessionKind::StaticRaw | SessionKind::StaticRepliable => {
                            SessionName::Data
                        }
                    };
                    self.event_log.push(EventKind::Session { session, state, error: status.error.clone() });
                }
                match (kind, state, &mut self.fallback) {
                    (_, SessionState::Up, _) => {}
                    (SessionKind::Control, ..) => {
                        self.control = None;
                        self.idle_test.handle_down();
                    }
                    (SessionKind::Fallback, _, Some(fallback)) => fallback.session = None,
                    _ => {}
                }
                let fallback = self.fallback.as_ref().and_then(|fallback| fallback.session.as_ref());
                if self.control.is_none() && fallback.is_none() {
                    self.control_health.handle_down();
                    self.one_way_test.forget();
                }
            }
            Update::Held(destination) => {
                self.data_destination = Some(destination);
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_data_session(destination);
                }
            }
            Update::Control(SessionKind::Fallback, open, sender) => {
                let destination = open.destination;
                if let (Some(fallback), Some(mesh)) = (&mut self.fallback, &mut self.mesh) {
                    fallback.session = Some(ControlSession::new(open, sender, fallback.lookups.clone()));
                    fallback.since = Some(now.monotonic);
                    self.control_health.handle_up();
                    mesh.handle_fallback(Some(destination), now);
                }
            }
            Update::Control(_, open, sender) => {
                let session = ControlSession::new(open, sender, self.lookups.clone());
                // What a restarted process does not know of a connection is what is under way on it.
                let kept = (!session.is_over_tcp()).then(|| Arc::clone(&session.open));
                self.tunnel.send_modify(|desired| desired.control = kept);
                self.control = Some(session);
                self.idle_test.handle_up(now.monotonic);
                if self.fallback.as_ref().is_none_or(|fallback| fallback.session.is_none()) {
                    self.control_health.handle_up();
                }
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_control_session(now);
                }
            }
            Update::Data(session) => {
                self.data_destination = Some(session.destination);
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_data_session(session.destination);
                }
                self.begin_attaching(session, now);
            }
            Update::Datagram { kind, from, payload } => {
                if kind == SessionKind::Control {
                    self.idle_test.handle_heard(now.monotonic);
                }
                if let Some(mesh) = &mut self.mesh {
                    let work = || mesh.handle_datagram(&from, &payload, now);
                    self.containment.handle(|| from.hash(), now.monotonic, work);
                    // Opening a control session anew that members reach cuts them off.
                    if kind == SessionKind::Control
                        && mesh.last_heard() == Some(now.monotonic)
                        && let Some(fallback) = &mut self.fallback
                    {
                        fallback.replaces = false;
                    }
                }
            }
            Update::Echo => {
                self.control_health.handle_test_result(true, now.monotonic);
                self.idle_test.handle_echo(now.monotonic);
            }
            Update::Lingers(lingers) => {
                if let Err(error) = self.storage.note_router_lingers(lingers) {
                    debug!(%error, "cannot note how the router closes sessions");
                }
            }
            Update::Found { kind: SessionKind::Data, hash, destination } => {
                self.data_introductions.handle_found(&hash, destination.is_ok(), now.monotonic);
            }
            Update::Found { kind, hash, destination } => {
                let destination = destination.and_then(|destination| {
                    Destination::try_from(&destination).map_err(|error| error.to_string())
                });
                let session = match kind {
                    SessionKind::Fallback => {
                        self.fallback.as_mut().and_then(|fallback| fallback.session.as_mut())
                    }
                    _ => self.control.as_mut(),
                };
                if let Some(session) = session {
                    session.handle_found(&hash, destination.is_ok(), now.monotonic);
                }
                if let Some(mesh) = &mut self.mesh {
                    mesh.handle_lookup(hash, destination, now);
                }
            }
        }
    }

    pub(super) fn send(&mut self, to: &Destination, message: &[u8], as_control: bool) {
        let (now, began) = (self.now().monotonic, Instant::now());
        let fallback = self.fallback.as_mut().and_then(|fallback| fallback.session.as_mut());
        match fallback.filter(|_| !as_control).or(self.control.as_mut()) {
            Some(session) => {
                session.send(to, message, now);
                self.sends.observe(began.elapsed());
            }
            None => debug!("a control message was not sent: the session is down"),
        }
    }
}
