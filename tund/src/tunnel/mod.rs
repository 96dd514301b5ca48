//! WireGuard with many peers over one datagram session: what comes from the interface is encrypted, paced and
//! addressed to the bridge; what comes from the bridge is decrypted and checked.
//!
//! Nothing here does input or output or reads a clock: time comes in with each call. (boringtun reads one
//! for its own timers.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{Drops, Handshakes, MTU, PeerStats, StaticPeerReport};
use i2plan_ipc::rate::Quota;
use i2plan_proto::endpoint::Endpoint;
use i2plan_proto::identity::NodeId;

use crate::fd_store::PeerPlace;
use crate::interface::Subnets;
use crate::path::reporter::Content;
use crate::session::SessionId;
use crate::uapi::codec::PeerStatus;
use early_handshakes::EarlyHandshakes;
pub(crate) use message::MAX_FORWARDED_LINE;
use message::{is_initiation, is_response, split_forwarded};
use pacer::{Next, Pacer, YIELD_TO_FIRST};
use peer::{Keys, OVERLAP, Peer, Received, Refused, YIELD, peer_of};
pub use peer_config::{AllowedIps, MAX_PEERS, PeerConfig, PeerDestination};
use peers::Peers;

mod early_handshakes;
pub(crate) mod ip;
mod message;
mod pacer;
mod peer;
mod peer_config;
mod peers;
mod retry;
mod slots;
#[cfg(test)]
mod static_tests;
#[cfg(test)]
mod tests;

/// Longest packet of the interface, bytes.
pub const MAX_PACKET: usize = *MTU.end() as usize;

/// Longest WireGuard message, bytes: header, counter and tag around a packet (WireGuard, section 5.4.6).
pub const MAX_MESSAGE: usize = MAX_PACKET + 32;

/// Room for the line before a datagram: version, session id of up to 64 characters, destination in base64. Those of
/// members have 524 characters.
const MAX_HEADER: usize = MAX_FORWARDED_LINE;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(250);

/// Initiations a second that are looked into, from all peers together, and as many responses. Each costs two X25519
/// operations, some 100 µs, and three more if it is a peer's own; a thousand peers that come back at once are done
/// within their first retries.
///
/// There are no cookies against floods (WireGuard, section 5.3): they prove an IP address, and datagrams from
/// the bridge have no sender. Whoever can pass the MAC1 check, which takes this node's public key, can keep
/// others from shaking hands, but not disturb their sessions. Responses are counted apart, so that this node can
/// still open sessions itself while initiations flood it.
const HANDSHAKES_PER_SECOND: u64 = 500;

/// Initiations of one peer that are answered. An honest one waits five seconds for an answer before it tries again
/// (WireGuard, section 6.1); some at once come from one that restarts, or whose datagrams were held up. Only those
/// that have proven whose they are count: else whoever knows two members' public keys could use up what one has at the
/// other with one datagram a second.
const INITIATIONS: Quota = Quota::new(1, 10);

/// Answers to unreachable destinations a second.
const UNREACHABLES_PER_SECOND: u32 = 100;

/// The data path of one interface.
pub struct Tunnel {
    keys: OwnKeys,
    /// The key before, until the time.
    previous: Option<(OwnKeys, Instant)>,
    /// Those of a mesh; none with static peers.
    subnets: Option<Subnets>,
    session: Option<SessionId>,
    peers: Peers,
    early_handshakes: EarlyHandshakes,
    pacer: Pacer,
    drops: Drops,
    /// When something was last heard through the session that is no beginning of a handshake.
    heard: Option<Instant>,
    /// When the first message was sent after that which calls for an answer.
    unanswered: Option<Instant>,
    unreachables: u32,
    /// A static peer is elsewhere, or another is there.
    moved: bool,
    /// Until when peers that are new here are called without leaving it to them to begin.
    begins_until: Option<Instant>,
    started: Instant,
    next_tick: Instant,
    next_second: Instant,
    /// A datagram to the bridge.
    datagram: Box<[u8]>,
    /// A packet to the interface.
    packet: Box<[u8]>,
}

impl Tunnel {
    /// A data path without session and peers, with this node's WireGuard key, in a mesh with these subnets or with static
    /// peers.
    #[must_use]
    pub fn new(key: StaticSecret, subnets: Option<Subnets>, now: Instant) -> Self {
        Self {
            keys: OwnKeys::new(key),
            previous: None,
            subnets,
            session: None,
            peers: Peers::default(),
            early_handshakes: EarlyHandshakes::default(),
            pacer: Pacer::new(now),
            drops: Drops::default(),
            heard: None,
            unanswered: None,
            unreachables: 0,
            moved: false,
            begins_until: None,
            started: now,
            next_tick: now,
            next_second: now,
            datagram: vec![0; MAX_HEADER + MAX_MESSAGE].into(),
            packet: vec![0; MAX_MESSAGE].into(),
        }
    }

    /// Sends to peers that report at a rate that does not follow their paths, in bytes a second.
    pub fn set_fixed_rate(&mut self, rate: Option<f64>) {
        self.pacer.set_fixed_rate(rate);
    }

    /// Sends through another SAM session from now on.
    pub fn set_session(&mut self, id: SessionId, now: Instant) {
        for peer in self.peers.iter_mut() {
            peer.attach(true);
            self.pacer.await_answer(peer.number, false, now);
            // A router learns of the new session by what comes from it: peers shall not have to wait for that.
            peer.hasten_keepalive(now);
            peer.retry.note_alive();
        }
        self.session = Some(id);
        (self.heard, self.unanswered) = (None, None);
        self.next_tick = now;
    }

    /// How long ago something was last heard through the session that is no beginning of a handshake.
    #[must_use]
    pub fn heard(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|at| now.saturating_duration_since(at))
    }

    /// How long ago the first message was sent after that which calls for an answer.
    #[must_use]
    pub fn unanswered(&self, now: Instant) -> Option<Duration> {
        self.unanswered.map(|at| now.saturating_duration_since(at))
    }

    /// Begins handshakes with these peers, to see whether they answer through the session.
    pub fn test(&mut self, nodes: &[NodeId], now: Instant) {
        for node in nodes {
            if let Some(peer) = self.peers.by_node(node) {
                peer.test(&mut self.pacer, now);
            }
        }
    }

    /// Sends nothing until there is another SAM session.
    pub fn end_session(&mut self) {
        self.session = None;
    }

    /// Uses this WireGuard key from now on. The one before goes on being accepted for a while, and sessions under it
    /// go on until there are new ones.
    pub fn rotate(&mut self, key: StaticSecret, now: Instant) {
        let fresh = OwnKeys::new(key);
        if fresh.keys.public == self.keys.keys.public {
            return;
        }
        let before = std::mem::replace(&mut self.keys, fresh);
        self.previous = Some((before, now + OVERLAP));
        for peer in self.peers.iter_mut() {
            peer.pair(&self.keys.keys, now);
        }
        self.peers.index();
        self.next_tick = now;
    }

    /// Has exactly these peers. Those with the same node and key keep their WireGuard sessions.
    ///
    /// # Errors
    /// [`i2plan_ipc::ErrorKind::Invalid`] if they cannot be told apart; nothing has changed then.
    pub fn set_peers(&mut self, wanted: Vec<PeerConfig>, now: Instant) -> Result<(), ApiError> {
        if let Some(subnets) = &self.subnets {
            peers::check(&wanted, subnets)?;
        }
        let gone = self.peers.all_except(&wanted);
        self.change_peers(wanted, &gone, now);
        Ok(())
    }

    /// Has these peers, new or different, and does not have those. All together can be told apart.
    pub fn change_peers(&mut self, set: Vec<PeerConfig>, removed: &[NodeId], now: Instant) {
        let attached = self.session.is_some();
        self.moved |= self.subnets.is_none();
        let told: Vec<_> = set.iter().map(|peer| peer.node).collect();
        let changed = self.peers.change(set, removed, self.subnets.as_ref(), &self.keys.keys, attached, now);
        for number in changed.gone {
            self.pacer.remove(number);
        }
        if self.begins_until.is_some_and(|until| now < until) {
            for node in told {
                if let Some(peer) = self.peers.by_node(&node) {
                    peer.begin(now);
                }
            }
        }
        for number in changed.moved {
            self.greet_elsewhere(number, now);
        }
        // Handshakes with new peers begin now, not some time later; those that they have begun go on.
        self.next_tick = now;
        for message in self.early_handshakes.take(now, |key| self.peers.by_key(key).is_some()) {
            self.handle_datagram(&message, now);
        }
    }

    /// A peer takes packets elsewhere: it learns there that it can be reached. If it has not answered since this node
    /// has another session itself, the sessions of both are new, and one of the two lets the other send first: first
    /// datagrams that cross keep some routers (emissary 0.4) from agreeing on a session.
    fn greet_elsewhere(&mut self, number: u32, now: Instant) {
        let both_new = !self.pacer.has_answered(number);
        let Some(peer) = self.peers.get_mut(number) else { return };
        let yields = both_new && peer.yields(&self.keys.keys);
        self.pacer.await_answer(number, yields, now);
        peer.hasten_keepalive(if yields { now + YIELD_TO_FIRST } else { now });
    }

    /// Keeps tunnels with so many peers at once; the others have to wait for one.
    pub fn set_limit(&mut self, tunnels: usize, now: Instant) {
        self.peers.set_limit(tunnels, &self.keys.keys, &mut self.pacer, now);
        self.next_tick = now;
    }

    /// These nodes have given a sign of life elsewhere: if they do not answer here, they are called again soon.
    pub fn note_alive(&mut self, nodes: &[NodeId], now: Instant) {
        for node in nodes {
            if let Some(peer) = self.peers.by_node(node) {
                peer.retry.note_alive();
            }
        }
        self.next_tick = now;
    }

    /// Begins handshakes with all peers as soon as there is a session, without leaving it to any of them: they do not
    /// know that this node has lost its WireGuard sessions.
    pub fn begin_all(&mut self, now: Instant) {
        for peer in self.peers.iter_mut() {
            peer.begin(now);
        }
        self.next_tick = now;
    }

    /// As [`Tunnel::begin_all`], with the peers that it is told of in the next seconds.
    pub fn begin_with_newcomers(&mut self, now: Instant) {
        self.begins_until = Some(now + YIELD);
    }

    /// Takes a packet from the interface. What is returned goes back to it: the answer that the destination
    /// cannot be reached.
    ///
    /// A peer would drop what has a source that is not this node's, and a path report is to come from here alone.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) -> Option<&[u8]> {
        let endpoints = ip::endpoints(packet);
        let is_local = |source| self.subnets.as_ref().is_none_or(|subnets| subnets.is_local(source));
        if endpoints.is_some_and(|endpoints| !is_local(endpoints.source)) {
            self.drops.no_route += 1;
            return None;
        }
        let number = endpoints.and_then(|endpoints| self.peers.by_address(endpoints.destination));
        let peer =
            number.filter(|_| packet.len() <= MAX_PACKET).and_then(|number| self.peers.get_mut(number));
        let Some(peer) = peer else {
            self.drops.no_route += 1;
            return self.unreachable(packet);
        };
        if self.session.is_none() {
            self.drops.no_session += 1;
            return self.unreachable(packet);
        }
        let (number, open) = (peer.number, peer.is_open());
        self.pacer.push(number, packet, now);
        if self.peers.claim_slot(number, &self.keys.keys, &mut self.pacer, now) {
            if open {
                self.peers.note_used(number, now);
            }
            self.peers.get_mut(number)?.want_session(&mut self.pacer, now);
        }
        None
    }

    /// Takes a datagram that came through the session. What is returned goes to the interface.
    pub fn handle_datagram(&mut self, message: &[u8], now: Instant) -> Option<&[u8]> {
        self.handle_datagram_of(true, message, now)
    }

    /// Takes a datagram that came through the session before: it says nothing of the present one. What is returned goes
    /// to the interface.
    pub fn handle_late_datagram(&mut self, message: &[u8], now: Instant) -> Option<&[u8]> {
        self.handle_datagram_of(false, message, now)
    }

    fn handle_datagram_of(&mut self, is_present: bool, datagram: &[u8], now: Instant) -> Option<&[u8]> {
        let (sender, message) = match self.subnets {
            Some(_) => (None, datagram),
            None => split_forwarded(datagram),
        };
        let slot = self.slot_of(message, now)?;
        let number = peer_of(slot);
        let peer = self.peers.get_mut(number)?;
        match peer.receive(slot, message, self.subnets.as_ref(), &mut self.packet, &mut self.pacer, now) {
            Ok(received) => {
                peer.count_received(message.len());
                if sender.is_some_and(|sender| peer.roam(sender)) {
                    self.pacer.await_answer(number, false, now);
                    self.moved = true;
                }
                let content = match &received {
                    Received::Packet(_) => Content::Packet,
                    Received::Report(_) => Content::Report,
                    Received::Done | Received::Handshake(_) => Content::Nothing,
                };
                self.pacer.handle_message(number, message, content, now);
                // A handshake that the peer begins says nothing of what was sent to it.
                if is_present && !matches!(received, Received::Handshake(_)) {
                    (self.heard, self.unanswered) = (Some(now), None);
                    if self.pacer.note_received(number) {
                        peer.confirm_answer(&mut self.pacer, now);
                    }
                }
                peer.defer_keepalive(now);
                match received {
                    Received::Done => None,
                    Received::Report(report) => {
                        self.pacer.handle_report(number, &report, now);
                        None
                    }
                    Received::Packet(packet) => {
                        if self.peers.claim_slot(number, &self.keys.keys, &mut self.pacer, now) {
                            self.peers.note_used(number, now);
                        }
                        Some(packet)
                    }
                    Received::Handshake(answer) => {
                        let since = now.saturating_duration_since(self.started);
                        if !peer.initiations.try_take(INITIATIONS, since) {
                            self.drops.rate_limited += 1;
                            return None;
                        }
                        peer.expect_session(now);
                        // Without a slot there is no answer; the peer asks again, and when it is its turn, this
                        // node calls it.
                        if self.peers.claim_slot(number, &self.keys.keys, &mut self.pacer, now) {
                            let peer = self.peers.get_mut(number)?;
                            peer.answer(slot, answer, &mut self.pacer, now);
                        } else {
                            self.drops.no_tunnel += 1;
                        }
                        None
                    }
                }
            }
            Err(Refused::NoSession) => {
                self.drops.unknown += 1;
                None
            }
            Err(Refused::Bad) => {
                peer.counters.rx_drops += 1;
                None
            }
        }
    }

    /// The next datagram to the bridge, if one may go now.
    pub fn poll_datagram(&mut self, now: Instant) -> Option<&[u8]> {
        let session = self.session.as_ref()?;
        let len = loop {
            let next = self.pacer.pop(now)?;
            let (Next::Control(number, bytes) | Next::Data(number, bytes) | Next::Own(number, bytes)) = &next;
            let number = *number;
            let Some(peer) = self.peers.get_mut(number) else { continue };
            // It is not known where it is.
            if peer.header(session).is_empty() {
                continue;
            }
            let (header, body) = self.datagram.split_at_mut(peer.header(session).len());
            let (len, content) = if let Next::Control(..) = next {
                if is_initiation(bytes) {
                    self.unanswered.get_or_insert(now);
                }
                body[..bytes.len()].copy_from_slice(bytes);
                (bytes.len(), Content::Nothing)
            } else {
                let Some(len) = peer.encrypt(bytes, body, &mut self.pacer) else { continue };
                let content = match next {
                    Next::Data(_, packet) => {
                        self.unanswered.get_or_insert(now);
                        self.pacer.recycle(packet);
                        Content::Packet
                    }
                    Next::Own(_, report) if !report.is_empty() => Content::Report,
                    _ => Content::Nothing,
                };
                (len, content)
            };
            self.pacer.note_sent(number, &body[..len], content, now);
            header.copy_from_slice(peer.header(session));
            peer.counters.tx_packets += 1;
            peer.counters.tx_bytes += len as u64;
            peer.defer_keepalive(now);
            break header.len() + len;
        };
        Some(&self.datagram[..len])
    }

    /// When [`Tunnel::handle_timeout`] and [`Tunnel::poll_datagram`] want to be called next.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        let paced = self.session.as_ref().and_then(|_| self.pacer.ready_at(now));
        paced.map_or(self.next_tick, |time| time.min(self.next_tick))
    }

    /// Does what is due by the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        if self.previous.as_ref().is_some_and(|(_, end)| *end <= now) {
            // Wiped as it is dropped.
            self.previous = None;
        }
        for local in [Some(&self.keys), self.previous.as_ref().map(|(local, _)| local)].into_iter().flatten()
        {
            local.initiations.reset_count();
            local.responses.reset_count();
        }
        if now >= self.next_second {
            self.next_second = now + Duration::from_secs(1);
            self.unreachables = 0;
        }
        self.pacer.tick(now);
        self.peers.tick(self.session.is_some(), &self.keys.keys, &mut self.pacer, now);
    }

    /// Notes that the socket would not take so many datagrams.
    pub fn note_send_failed(&mut self, datagrams: usize) {
        self.drops.send_failed += datagrams as u64;
    }

    /// Notes that the interface would not take so many packets.
    pub fn note_interface_full(&mut self, packets: usize) {
        self.drops.interface_full += packets as u64;
    }

    /// Notes a datagram that did not come from the bridge.
    pub fn note_unknown(&mut self) {
        self.drops.unknown += 1;
    }

    /// What was dropped that belongs to no peer.
    #[must_use]
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// The handshakes with all peers.
    #[must_use]
    pub fn handshakes(&self) -> Handshakes {
        self.pacer.handshakes()
    }

    /// Whether all that waited to be sent has been sent or dropped.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.pacer.is_empty()
    }

    /// The counters of each peer that there is anything to tell of.
    #[must_use]
    pub fn peer_stats(&self, now: Instant) -> Vec<PeerStats> {
        let of_note = self.peers.iter().filter(|peer| peer.is_of_note());
        of_note.map(|peer| self.stats_of(peer, now)).collect()
    }

    fn stats_of(&self, peer: &Peer, now: Instant) -> PeerStats {
        PeerStats {
            node: peer.config.node,
            last_handshake: peer.last_handshake.map(|time| now.saturating_duration_since(time).as_secs()),
            tx_packets: peer.counters.tx_packets,
            tx_bytes: peer.counters.tx_bytes,
            rx_packets: peer.counters.rx_packets,
            rx_bytes: peer.counters.rx_bytes,
            queue_drops: self.pacer.dropped(peer.number),
            rx_drops: peer.counters.rx_drops,
            unanswered: peer.retry.unanswered(),
        }
    }

    /// Whether [`Self::static_places`] may differ from what it was when this was last asked.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Where the peers of a static interface are, as far as that is known.
    #[must_use]
    pub fn static_places(&self) -> Vec<PeerPlace> {
        let places = self.peers.iter().filter_map(|peer| match &peer.config.endpoint {
            Some(PeerDestination::Static(destination)) => {
                Some((peer.config.node, Endpoint::Destination(destination.clone())))
            }
            _ => None,
        });
        places.collect()
    }

    /// All peers of a static interface.
    #[must_use]
    pub fn static_reports(&self, now: Instant) -> Vec<StaticPeerReport> {
        let reports = self.peers.iter().map(|peer| StaticPeerReport {
            endpoint: peer.config.endpoint.as_ref().map(|endpoint| (endpoint.hash(), true)),
            allowed_ips: peer.config.allowed_ips.prefixes().collect(),
            keepalive: peer.config.keepalive,
            has_preshared_key: peer.config.preshared_key.is_some(),
            stats: self.stats_of(peer, now),
        });
        reports.collect()
    }

    /// All peers, as `wg` shows them.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let peers = self.peers.iter().map(|peer| PeerStatus {
            public_key: peer.config.public_key,
            allowed_ips: peer.config.allowed_ips.prefixes().collect(),
            keepalive: peer.config.keepalive,
            last_handshake: peer.last_handshake.map(|time| now.saturating_duration_since(time)),
            rx_bytes: peer.counters.rx_bytes,
            tx_bytes: peer.counters.tx_bytes,
        });
        peers.collect()
    }

    /// Which pairing a message concerns. Datagrams from the bridge have no sender: a handshake names it under
    /// encryption, every other message by the receiver index that it was given.
    fn slot_of(&mut self, message: &[u8], now: Instant) -> Option<u32> {
        if message.len() > MAX_MESSAGE {
            self.drops.unknown += 1;
            return None;
        }
        let previous = self.previous.as_ref().map(|(local, _)| local);
        let mut checked = self.keys.check(message);
        let mut local = &self.keys.keys;
        // Whoever has not heard of the new key yet makes its MAC with the one before.
        if let (Err(Some(WireGuardError::InvalidMac)), Some(previous)) = (&checked, previous) {
            checked = previous.check(message);
            local = &previous.keys;
        }
        let slot = match checked {
            Ok(Packet::HandshakeInit(init)) => {
                let half = parse_handshake_anon(&local.private, &local.public, &init).ok();
                let theirs = half.map(|half| half.peer_static_public);
                let number = theirs.and_then(|theirs| self.peers.by_key(&theirs));
                let peer = number.and_then(|number| self.peers.get_mut(number));
                if let (Some(peer), Some(theirs)) = (peer, theirs) {
                    // Whether it is really its handshake is known only when it has been received.
                    peer.link(&self.keys.keys, now);
                    peer.slot_of(&local.public, &theirs)
                } else {
                    if let Some(theirs) = theirs {
                        self.early_handshakes.put(theirs, message, now);
                    }
                    None
                }
            }
            Ok(Packet::HandshakeResponse(response)) => Some(response.receiver_idx >> 8),
            Ok(Packet::PacketCookieReply(reply)) => Some(reply.receiver_idx >> 8),
            // boringtun puts a tunnel's number before the eight bits that count its sessions.
            Ok(Packet::PacketData(data)) => Some(data.receiver_idx >> 8),
            Err(Some(WireGuardError::UnderLoad)) => {
                self.drops.rate_limited += 1;
                return None;
            }
            Err(_) => None,
        };
        let known = slot.filter(|slot| self.peers.get_mut(peer_of(*slot)).is_some());
        if known.is_none() {
            self.drops.unknown += 1;
        }
        known
    }

    fn unreachable(&mut self, packet: &[u8]) -> Option<&[u8]> {
        if self.unreachables >= UNREACHABLES_PER_SECOND {
            return None;
        }
        self.unreachables += 1;
        let answer = ip::unreachable(packet)?;
        let place = self.packet.get_mut(..answer.len())?;
        place.copy_from_slice(&answer);
        Some(place)
    }
}

/// A WireGuard key of this node, and what comes for it.
struct OwnKeys {
    keys: Keys,
    /// Counts the initiations of all peers together.
    initiations: RateLimiter,
    /// Counts the responses of all peers together.
    responses: RateLimiter,
}

impl OwnKeys {
    fn new(private: StaticSecret) -> Self {
        let keys = Keys::new(private);
        Self {
            initiations: RateLimiter::new(&keys.public, HANDSHAKES_PER_SECOND),
            responses: RateLimiter::new(&keys.public, HANDSHAKES_PER_SECOND),
            keys,
        }
    }

    /// What a message is, if it is for this key and within the limit; else why not, if that is an error.
    fn check<'a>(&self, message: &'a [u8]) -> Result<Packet<'a>, Option<WireGuardError>> {
        let limiter = if is_response(message) { &self.responses } else { &self.initiations };
        limiter.verify_packet(None, message, &mut []).map_err(|result| match result {
            TunnResult::Err(error) => Some(error),
            _ => None,
        })
    }
}

impl Keys {
    fn new(private: StaticSecret) -> Self {
        let public = PublicKey::from(&private);
        Self { no_limit: Arc::new(RateLimiter::new(&public, u64::MAX)), public, private }
    }
}
