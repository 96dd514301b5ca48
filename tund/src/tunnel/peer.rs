//! One peer: its WireGuard tunnel and what is done with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use i2plan_ipc::rate::Bucket;
use i2plan_proto::destination::base64;
use i2plan_proto::endpoint::AnyDestination;
use i2plan_proto::path_report::PathReport;
use tracing::{debug, info};

use super::ip;
use super::message::{
    MAX_FORWARDED_LINE, data_index, is_exhausted, is_initiation, is_response, sender_index,
};
use super::pacer::Pacer;
use super::peer_config::{PeerConfig, PeerDestination};
use super::retry::Retry;
use crate::interface::Subnets;
use crate::session::SessionId;

/// Room for what boringtun writes without a packet: a handshake initiation is the longest.
const MAX_HANDSHAKE: usize = 148;

/// After which the side that began a session renews it (WireGuard, section 6.1).
const REKEY_AFTER: Duration = Duration::from_secs(120);

/// How long a node leaves it to a new peer to begin, if the peer's key is the smaller one. Both learn of each
/// other at about the same time. Handshakes that cross are not only one too many: their datagrams are the
/// first between two destinations, and where these cross, some routers (emissary 0.4) never agree on a session
/// of their own and encrypt every datagram as if it were the first, at a third of the speed, or send what the other
/// cannot read. As long as a router may take to find a destination that is new.
pub(super) const YIELD: Duration = Duration::from_secs(15);

/// The same for a static peer, which may be anything and is mostly there before.
const STATIC_YIELD: Duration = Duration::from_secs(5);

/// How long a WireGuard key goes on being accepted after another has taken its place: for the others to learn of
/// that, and for what was encrypted under the one before. More than WireGuard's sessions live without a new handshake
/// (180 s) and gossip takes.
pub(super) const OVERLAP: Duration = Duration::from_secs(600);

/// What goes with the private key into every tunnel.
pub(super) struct Keys {
    pub(super) private: StaticSecret,
    pub(super) public: PublicKey,
    /// For the tunnels, which count again what has passed the common limit already.
    pub(super) no_limit: Arc<RateLimiter>,
}

/// WireGuard between one key of this node and one of a peer.
struct Pairing {
    tunn: Tunn,
    /// What the receiver indexes of its sessions begin with: twice the peer's number, and which of two it is.
    slot: u32,
    local: PublicKey,
    theirs: [u8; 32],
    /// This side began the present session, so it renews it.
    initiator: bool,
    /// The receiver index that was given out in answer to a handshake and has not been used yet.
    unconfirmed: Option<u32>,
    /// When this side last sent a handshake message whose answer is still to come.
    asked_at: Option<Instant>,
}

impl Pairing {
    fn new(slot: u32, keys: &Keys, peer: &PeerConfig) -> Self {
        let (theirs, limiter) = (peer.public_key, Some(Arc::clone(&keys.no_limit)));
        let preshared = peer.preshared_key.as_ref().map(|key| key.0);
        let tunn = Tunn::new(keys.private.clone(), PublicKey::from(theirs), preshared, None, slot, limiter);
        Self { tunn, slot, local: keys.public, theirs, initiator: false, unconfirmed: None, asked_at: None }
    }

    /// Whether packets can be encrypted. boringtun tells only by the age of the session that it would use.
    fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Begins a handshake: `anew`, or only if none is going on.
    fn shake_hands(&mut self, number: u32, anew: bool, pacer: &mut Pacer, now: Instant) {
        let mut buffer = [0; MAX_HANDSHAKE];
        if let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(&mut buffer, anew)
        {
            pacer.push_control(number, message.to_vec());
            self.note_asked(pacer, now);
        }
    }

    /// A handshake message was sent whose answer is to come.
    fn note_asked(&mut self, pacer: &mut Pacer, now: Instant) {
        if self.asked_at.replace(now).is_some() {
            pacer.note_failed_handshake();
        }
    }

    /// Sends what boringtun has queued: keepalives that it wanted to send without a session.
    fn drain(&mut self, number: u32, pacer: &mut Pacer) {
        let mut buffer = [0; MAX_HANDSHAKE];
        while let TunnResult::WriteToNetwork(message) = self.tunn.decapsulate(None, &[], &mut buffer) {
            pacer.push_control(number, message.to_vec());
        }
    }
}

/// The peer that a slot belongs to.
pub(super) fn peer_of(slot: u32) -> u32 {
    slot >> 1
}

/// How long packets for a peer are a reason to call it again (WireGuard, section 6.1: REKEY_ATTEMPT_TIME).
const WANTED: Duration = Duration::from_secs(90);

/// How long it is left to a peer that has begun a handshake to finish or repeat it (WireGuard, section 6.1:
/// REKEY_TIMEOUT).
const EXPECT: Duration = Duration::from_secs(5);

/// A peer.
pub(super) struct Peer {
    /// Its place in the table, which is part of the receiver indexes of its sessions.
    pub(super) number: u32,
    pub(super) config: PeerConfig,
    pub(super) counters: Counters,
    /// What goes before each datagram to it; empty until there is one. It is longer than all the rest.
    header: Vec<u8>,
    /// There is a SAM session.
    attached: bool,
    pub(super) last_handshake: Option<Instant>,
    /// Counts the handshakes that it begins.
    pub(super) initiations: Bucket,
    pub(super) retry: Retry,
    /// A tunnel with it is opened unasked and kept open.
    pub(super) kept: bool,
    /// Before this, the peer is to begin.
    yields_until: Instant,
    /// Until then there is a reason to call it.
    wanted_until: Option<Instant>,
    /// Its tunnel. Few of many peers have one.
    link: Option<Box<Link>>,
}

/// The tunnel with a peer.
struct Link {
    /// Of the newest keys of both.
    current: Pairing,
    /// Of the keys before, until the time: make before break.
    previous: Option<(Pairing, Instant)>,
    /// There is a WireGuard session to send through.
    open: bool,
    keepalive_at: Instant,
}

/// See [`i2plan_ipc::api::tund::PeerStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) rx_drops: u64,
}

/// What a message was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'a> {
    /// Nothing that goes further.
    Done,
    /// A packet for the interface.
    Packet(&'a [u8]),
    /// What the peer has got.
    Report(PathReport),
    /// The beginning of a handshake, which this answers: to be passed to [`Peer::answer`].
    Handshake(Vec<u8>),
}

/// Why a message for a peer is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such session, any more or at all: the index may have been anyone's.
    NoSession,
    /// It cannot be decrypted, came before, or holds a packet that the peer may not send here.
    Bad,
}

impl Link {
    /// Both pairings, the newest first.
    fn pairings(&mut self) -> impl Iterator<Item = &mut Pairing> {
        let previous = self.previous.as_mut().map(|(pairing, _)| pairing);
        [Some(&mut self.current), previous].into_iter().flatten()
    }

    fn pairing(&mut self, slot: u32) -> Option<&mut Pairing> {
        self.pairings().find(|pairing| pairing.slot == slot)
    }

    /// The pairing through which packets can go.
    fn sending(&mut self) -> Option<&mut Pairing> {
        self.pairings().find(|pairing| pairing.has_session())
    }

    fn close(&mut self, number: u32, pacer: &mut Pacer) {
        self.open = false;
        pacer.hold(number);
    }
}

impl Peer {
    pub(super) fn new(number: u32, config: PeerConfig, keys: &Keys, now: Instant) -> Self {
        Self {
            number,
            counters: Counters::default(),
            header: Vec::new(),
            attached: false,
            last_handshake: None,
            initiations: Bucket::default(),
            retry: Retry::new(salt(&config, keys)),
            kept: false,
            yields_until: yields_until(&config, keys, now),
            wanted_until: None,
            link: None,
            config,
        }
    }

    /// Has a tunnel with it, which is still to be opened. One that there is goes on.
    pub(super) fn link(&mut self, keys: &Keys, now: Instant) {
        let (slot, config) = (self.number << 1, &self.config);
        self.link.get_or_insert_with(|| {
            let current = Pairing::new(slot, keys, config);
            Box::new(Link { current, previous: None, open: false, keepalive_at: now })
        });
    }

    /// Forgets the tunnel with it.
    pub(super) fn unlink(&mut self, pacer: &mut Pacer) {
        self.link = None;
        self.header = Vec::new();
        pacer.hold(self.number);
    }

    pub(super) fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether there is a session to send through.
    pub(super) fn is_open(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.open)
    }

    /// Whether the tunnel is of use. Without a slot it is as long as its session lasts.
    pub(super) fn needs_link(&mut self, has_slot: bool, now: Instant) -> bool {
        let wanted = self.kept || self.is_wanted(now) || now < self.yields_until;
        let Some(link) = &mut self.link else { return false };
        link.sending().is_some() || has_slot && wanted
    }

    fn is_wanted(&self, now: Instant) -> bool {
        self.wanted_until.is_some_and(|until| now < until)
    }

    /// Whether there is anything to tell of it.
    pub(super) fn is_of_note(&self) -> bool {
        let Counters { tx_packets, rx_packets, rx_drops, .. } = self.counters;
        self.is_linked() || (tx_packets, rx_packets, rx_drops) != (0, 0, 0)
    }

    /// Takes over what is asked of the peer from now on. Another key takes the place of the one before when there
    /// is a session under it.
    pub(super) fn reconfigure(&mut self, config: PeerConfig, keys: &Keys, now: Instant) {
        let same_key = (self.config.public_key, &self.config.preshared_key)
            == (config.public_key, &config.preshared_key);
        if self.config.keepalive != config.keepalive {
            self.hasten_keepalive(now);
            self.retry.note_alive();
        }
        self.config = config;
        if !same_key {
            self.retry.note_alive();
            self.pair(keys, now);
        }
    }

    /// Begins anew: what was sent so far went to where the peer is not any more.
    pub(super) fn start_over(&mut self, keys: &Keys, now: Instant) {
        self.retry = Retry::new(salt(&self.config, keys));
        if self.is_open() {
            return;
        }
        if let Some(link) = &mut self.link {
            link.current = Pairing::new(link.current.slot, keys, &self.config);
        }
        self.yields_until = yields_until(&self.config, keys, now);
    }

    /// Begins a handshake at the next chance.
    pub(super) fn begin(&mut self, now: Instant) {
        self.yields_until = now;
        self.wanted_until = Some(now + WANTED);
    }

    /// Goes on with the newest keys of both. What there is of a session goes on meanwhile, for a while.
    pub(super) fn pair(&mut self, keys: &Keys, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let kept = if link.current.has_session() {
            let fresh = Pairing::new(link.current.slot ^ 1, keys, &self.config);
            let before = std::mem::replace(&mut link.current, fresh);
            link.previous = Some((before, now + OVERLAP));
            true
        } else {
            link.current = Pairing::new(link.current.slot, keys, &self.config);
            link.previous.is_some()
        };
        // One of the two begins; the other does if nothing comes.
        self.yields_until = if kept { yields_until(&self.config, keys, now) } else { now };
        self.retry = Retry::new(salt(&self.config, keys));
        self.wanted_until = Some(now + WANTED);
    }

    /// The slot of the pairing of these two keys.
    pub(super) fn slot_of(&self, local: &PublicKey, theirs: &[u8; 32]) -> Option<u32> {
        let link = self.link.as_ref()?;
        let previous = link.previous.as_ref().map(|(pairing, _)| pairing);
        let mut pairings = [Some(&link.current), previous].into_iter().flatten();
        pairings
            .find(|pairing| pairing.local == *local && pairing.theirs == *theirs)
            .map(|pairing| pairing.slot)
    }

    /// The key that it had before, while that is accepted.
    pub(super) fn previous_key(&self) -> Option<[u8; 32]> {
        let previous = self.link.as_ref().and_then(|link| link.previous.as_ref());
        previous.map(|(pairing, _)| pairing.theirs)
    }

    /// Counts an accepted message.
    pub(super) fn count_received(&mut self, len: usize) {
        self.counters.rx_packets += 1;
        self.counters.rx_bytes += len as u64;
    }

    /// Notes whether there is a SAM session, that it is another one, or that the peer is elsewhere.
    pub(super) fn attach(&mut self, attached: bool) {
        self.attached = attached;
        self.header = Vec::new();
    }

    /// What addresses its datagrams within a SAM session (SAM v3, "repliable and raw datagrams"); empty while it is not
    /// known where it is.
    pub(super) fn header(&mut self, session: &SessionId) -> &[u8] {
        if let (true, Some(endpoint)) = (self.header.is_empty(), &self.config.endpoint) {
            let endpoint = endpoint.to_base64();
            self.header = format!("3.0 {} {endpoint}\n", session.as_str()).into_bytes();
        }
        &self.header
    }

    /// An authenticated message of a static peer has come from this destination, in I2P's base64: it takes packets there
    /// from now on, as in WireGuard (section 2.1). Returns whether that is another one.
    pub(super) fn roam(&mut self, sender: &[u8]) -> bool {
        let line = self.header.strip_suffix(b"\n").and_then(|line| line.strip_suffix(sender));
        if line.is_some_and(|line| line.ends_with(b" ")) || !self.config.allowed_ips.is_static() {
            return false;
        }
        let destination = base64().decode(sender).ok();
        let destination = destination.and_then(|bytes| AnyDestination::from_i2p(&bytes).ok());
        let Some(destination) = destination.filter(|_| sender.len() < MAX_FORWARDED_LINE / 2) else {
            return false;
        };
        let endpoint = Some(PeerDestination::Static(destination));
        if self.config.endpoint == endpoint {
            return false;
        }
        self.config.endpoint = endpoint;
        self.header = Vec::new();
        info!(
            peer = self.config.node.short(),
            "packets come from another destination, and go there from now on"
        );
        true
    }

    /// Calls the peer, now or when it may be, if packets for it cannot be sent or only under keys from before.
    pub(super) fn want_session(&mut self, pacer: &mut Pacer, now: Instant) {
        let Some(link) = &self.link else { return };
        if link.open && link.previous.is_none() || link.current.has_session() {
            return;
        }
        self.wanted_until = Some(now + WANTED);
        self.call(pacer, now);
    }

    /// Begins a handshake, if one may go.
    fn call(&mut self, pacer: &mut Pacer, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let is_addressed = self.attached && self.config.endpoint.is_some();
        if !is_addressed || now < self.yields_until || !self.retry.is_due(now) {
            return;
        }
        self.retry.note_called(now);
        link.current.shake_hands(self.number, true, pacer, now);
    }

    /// Begins a handshake, whether or not there is a session, to see whether the peer answers.
    pub(super) fn test(&mut self, pacer: &mut Pacer, now: Instant) {
        if let Some(link) = self.link.as_mut().filter(|_| self.attached) {
            link.current.shake_hands(self.number, true, pacer, now);
        }
    }

    /// Encrypts a packet into `out`, which is large enough for it. None without a session.
    pub(super) fn encrypt(&mut self, packet: &[u8], out: &mut [u8], pacer: &mut Pacer) -> Option<usize> {
        let link = self.link.as_mut()?;
        // Asked now, because without a session boringtun would queue the packet behind the pacer's back.
        let Some(pairing) = link.sending() else {
            link.close(self.number, pacer);
            return None;
        };
        match pairing.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Handles a message for one of its pairings. What comes out is in `buffer`.
    pub(super) fn receive<'a>(
        &mut self,
        slot: u32,
        message: &[u8],
        subnets: Option<&Subnets>,
        buffer: &'a mut [u8],
        pacer: &mut Pacer,
        now: Instant,
    ) -> Result<Received<'a>, Refused> {
        if is_exhausted(message) {
            return Err(Refused::Bad);
        }
        let number = self.number;
        let pairing = self.link.as_mut().and_then(|link| link.pairing(slot)).ok_or(Refused::NoSession)?;
        match pairing.tunn.decapsulate(None, message, buffer) {
            TunnResult::Done => {
                self.note_session(slot, message, pacer, now);
                Ok(Received::Done)
            }
            TunnResult::WriteToNetwork(answer) if is_response(answer) => {
                Ok(Received::Handshake(answer.to_vec()))
            }
            TunnResult::WriteToNetwork(confirmation) => {
                pacer.push_control(number, confirmation.to_vec());
                pairing.drain(number, pacer);
                self.note_session(slot, message, pacer, now);
                Ok(Received::Done)
            }
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                self.note_session(slot, message, pacer, now);
                // A report has no source: it is the peer's by the session that it came through.
                if self.config.takes_reports && PathReport::is_packet(packet) {
                    return PathReport::from_packet(packet).map(Received::Report).map_err(|_| Refused::Bad);
                }
                // Cryptokey routing: a peer speaks for its own addresses alone. And a member to this node alone, not
                // through it to wherever this host would forward.
                let endpoints = ip::endpoints(packet).ok_or(Refused::Bad)?;
                let own = self.config.allowed_ips.contains(endpoints.source);
                if own && subnets.is_none_or(|subnets| subnets.is_local(endpoints.destination)) {
                    Ok(Received::Packet(packet))
                } else {
                    Err(Refused::Bad)
                }
            }
            TunnResult::Err(
                WireGuardError::NoCurrentSession
                | WireGuardError::WrongIndex
                | WireGuardError::UnexpectedPacket,
            ) => Err(Refused::NoSession),
            TunnResult::Err(_) => Err(Refused::Bad),
        }
    }

    /// The peer has begun a handshake and is to finish it.
    pub(super) fn expect_session(&mut self, now: Instant) {
        self.retry.note_alive();
        self.yields_until = self.yields_until.max(now + EXPECT);
    }

    /// Answers the handshake that the peer has begun.
    pub(super) fn answer(&mut self, slot: u32, answer: Vec<u8>, pacer: &mut Pacer, now: Instant) {
        let Some(pairing) = self.link.as_mut().and_then(|link| link.pairing(slot)) else { return };
        pairing.unconfirmed = sender_index(&answer);
        pairing.asked_at = Some(now);
        pacer.push_control(self.number, answer);
        pairing.drain(self.number, pacer);
    }

    /// Notes that a message went to or came from the peer: the next keepalive can wait.
    pub(super) fn defer_keepalive(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.keepalive_at = now + Duration::from_secs(self.config.keepalive.into());
        }
    }

    /// Sends a keepalive, or calls a peer that is to be kept, as soon as may be.
    pub(super) fn hasten_keepalive(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.keepalive_at = now;
        }
    }

    /// Whether this node lets the peer go first where both could, since the peer's key is the smaller one.
    pub(super) fn yields(&self, keys: &Keys) -> bool {
        yields(&self.config, keys)
    }

    /// After the first answer, shows the peer that it has reached this node, so that it need not hold packets back any
    /// more. A handshake shows that by itself.
    pub(super) fn confirm_answer(&mut self, pacer: &mut Pacer, now: Instant) {
        if self.last_handshake != Some(now) && self.is_open() {
            let mut buffer = [0; MAX_HANDSHAKE];
            if let Some(len) = self.encrypt(&[], &mut buffer, pacer) {
                pacer.push_control(self.number, buffer[..len].to_vec());
            }
        }
    }

    /// Does what is due by the clock. Without a SAM session that is only to forget old keys; without a `slot`, what
    /// there is of a session is neither kept alive nor renewed.
    pub(super) fn tick(&mut self, attached: bool, has_slot: bool, pacer: &mut Pacer, now: Instant) {
        let number = self.number;
        let wanted = self.kept || self.is_wanted(now);
        let Some(link) = &mut self.link else { return };
        if link.previous.as_ref().is_some_and(|(_, end)| *end <= now) {
            debug!(peer = self.config.node.short(), "the keys before are not accepted any more");
            link.previous = None;
        }
        let mut buffer = [0; MAX_HANDSHAKE];
        for pairing in link.pairings() {
            let renews = has_slot && pairing.has_session();
            if let TunnResult::WriteToNetwork(message) = pairing.tunn.update_timers(&mut buffer)
                && attached
            {
                // boringtun would call every five seconds.
                if is_initiation(message) {
                    if !renews || !self.retry.is_due(now) {
                        continue;
                    }
                    self.retry.note_called(now);
                    pairing.note_asked(pacer, now);
                }
                pacer.push_control(number, message.to_vec());
            }
        }
        if link.open && link.sending().is_none() {
            debug!(peer = self.config.node.short(), "the session has ended");
            link.close(number, pacer);
        }
        if link.open {
            pacer.set_reports(number, self.config.takes_reports, now);
        }
        if !attached || !has_slot {
            return;
        }
        if wanted && !link.current.has_session() {
            self.call(pacer, now);
        }
        if self.kept && self.link.as_ref().is_some_and(|link| link.open && link.keepalive_at <= now) {
            self.defer_keepalive(now);
            self.keep_alive(pacer, now);
        }
    }

    /// boringtun's own persistent keepalive cannot be changed once set and gives up with the handshake; this
    /// one, as the kernel's, does not.
    fn keep_alive(&mut self, pacer: &mut Pacer, now: Instant) {
        let mut buffer = [0; MAX_HANDSHAKE];
        if let Some(len) = self.encrypt(&[], &mut buffer, pacer) {
            pacer.push_control(self.number, buffer[..len].to_vec());
        }
        // boringtun renews sessions that carry data; this is for those that are kept open without.
        let age = self.last_handshake.map(|time| now.saturating_duration_since(time));
        let Some(link) = &mut self.link else { return };
        if link.current.initiator && age.is_some_and(|age| age >= REKEY_AFTER) && self.retry.is_due(now) {
            self.retry.note_called(now);
            link.current.shake_hands(self.number, false, pacer, now);
        }
    }

    /// After an accepted message: notes the handshake that it completed, and lets waiting packets go.
    fn note_session(&mut self, slot: u32, message: &[u8], pacer: &mut Pacer, now: Instant) {
        self.retry.note_alive();
        let Some(link) = &mut self.link else { return };
        let Some(pairing) = link.pairing(slot) else { return };
        let answered = is_response(message);
        let confirmed = pairing.unconfirmed.is_some() && data_index(message) == pairing.unconfirmed;
        if answered || confirmed {
            pairing.initiator = answered;
            pairing.unconfirmed = None;
            pacer.note_handshake();
            if let Some(asked_at) = pairing.asked_at.take() {
                pacer.note_round_trip(self.number, now.saturating_duration_since(asked_at));
            }
            self.retry.note_answered();
            if self.last_handshake.replace(now).is_none() {
                info!(peer = self.config.node.short(), "connected");
            } else {
                debug!(peer = self.config.node.short(), "renewed the session");
            }
        }
        if link.current.has_session() {
            self.wanted_until = None;
        }
        if !link.open && link.sending().is_some() {
            link.open = true;
            pacer.open(self.number);
            pacer.set_reports(self.number, self.config.takes_reports, now);
        }
    }
}

fn yields(peer: &PeerConfig, keys: &Keys) -> bool {
    peer.public_key < keys.public.to_bytes()
}

/// Until when a peer that this node has just been told of is to begin.
fn yields_until(peer: &PeerConfig, keys: &Keys, now: Instant) -> Instant {
    let wait = if peer.allowed_ips.is_static() { STATIC_YIELD } else { YIELD };
    if yields(peer, keys) { now + wait } else { now }
}

/// Makes what this node does towards a peer differ from what others do.
fn salt(peer: &PeerConfig, keys: &Keys) -> u64 {
    let first = |key: &[u8; 32]| u64::from_le_bytes(*key.first_chunk().expect("a key has 32 bytes"));
    first(&peer.public_key) ^ first(keys.public.as_bytes()).rotate_left(1)
}
