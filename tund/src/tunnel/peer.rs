//! One peer: its WireGuard tunnel and what is done with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use i2plan_ipc::api::tund;
use i2plan_ipc::rate::Bucket;
use tracing::{debug, info};

use super::ip;
use super::message::{data_index, is_exhausted, is_response, sender_index};
use super::pacer::Pacer;
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
    own: PublicKey,
    theirs: [u8; 32],
    /// This side began the present session, so it renews it.
    initiator: bool,
    /// The receiver index that was given out in answer to a handshake and has not been used yet.
    unconfirmed: Option<u32>,
}

impl Pairing {
    fn new(slot: u32, keys: &Keys, theirs: [u8; 32]) -> Self {
        let limiter = Some(Arc::clone(&keys.no_limit));
        let tunn = Tunn::new(keys.private.clone(), PublicKey::from(theirs), None, None, slot, limiter);
        Self { tunn, slot, own: keys.public, theirs, initiator: false, unconfirmed: None }
    }

    /// Whether packets can be encrypted. boringtun tells only by the age of the session that it would use.
    fn has_session(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Begins a handshake, unless one is going on.
    fn shake_hands(&mut self, number: u32, pacer: &mut Pacer) {
        let mut buffer = [0; MAX_HANDSHAKE];
        if let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(&mut buffer, false)
        {
            pacer.push_control(number, message.to_vec());
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

/// A peer.
pub(super) struct Peer {
    /// Its place in the table, which is part of the receiver indexes of its sessions.
    pub(super) number: u32,
    pub(super) config: tund::Peer,
    pub(super) counters: Counters,
    /// What goes before each datagram to it; empty without a SAM session.
    pub(super) header: Vec<u8>,
    pub(super) last_handshake: Option<Instant>,
    /// Counts the handshakes that it begins.
    pub(super) initiations: Bucket,
    /// Of the newest keys of both.
    current: Pairing,
    /// Of the keys before, until the time: make before break.
    previous: Option<(Pairing, Instant)>,
    /// There is a WireGuard session to send through.
    open: bool,
    keepalive_at: Option<Instant>,
    /// Before this, the peer is to begin.
    yields_until: Instant,
    /// Packets wait for a handshake that this side has not begun yet.
    wanted: bool,
}

/// See [`tund::PeerStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) rx_drops: u64,
}

/// Why a message for a peer is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no such session, any more or at all: the index may have been anyone's.
    NoSession,
    /// It cannot be decrypted, came before, or holds a packet that the peer may not send here.
    Bad,
}

impl Peer {
    pub(super) fn new(number: u32, config: tund::Peer, keys: &Keys, now: Instant) -> Self {
        let yields_until = yields_until(&config, keys, now);
        Self {
            number,
            current: Pairing::new(number << 1, keys, config.public_key),
            previous: None,
            counters: Counters::default(),
            header: Vec::new(),
            last_handshake: None,
            initiations: Bucket::default(),
            open: false,
            // A tunnel that is to be kept open is opened unasked.
            keepalive_at: (config.keepalive > 0).then_some(yields_until),
            yields_until,
            wanted: false,
            config,
        }
    }

    /// Takes over what is asked of the peer from now on. Another key takes the place of the one before when there
    /// is a session under it.
    pub(super) fn reconfigure(&mut self, config: tund::Peer, keys: &Keys, now: Instant) {
        let same_key = self.config.public_key == config.public_key;
        if self.config.keepalive != config.keepalive {
            self.keepalive_at = (config.keepalive > 0).then_some(now);
        }
        self.config = config;
        if !same_key {
            self.pair(keys, now);
        }
    }

    /// Begins anew: what was sent so far went to where the peer is not any more.
    pub(super) fn start_over(&mut self, keys: &Keys, now: Instant) {
        if self.open {
            return;
        }
        self.current = Pairing::new(self.current.slot, keys, self.config.public_key);
        self.yields_until = yields_until(&self.config, keys, now);
        self.hasten_keepalive(now);
    }

    /// Goes on with the newest keys of both. What there is of a session goes on meanwhile, for a while.
    pub(super) fn pair(&mut self, keys: &Keys, now: Instant) {
        let kept = if self.current.has_session() {
            let fresh = Pairing::new(self.current.slot ^ 1, keys, self.config.public_key);
            let before = std::mem::replace(&mut self.current, fresh);
            self.previous = Some((before, now + OVERLAP));
            true
        } else {
            self.current = Pairing::new(self.current.slot, keys, self.config.public_key);
            self.previous.is_some()
        };
        // One of the two begins; the other does if nothing comes.
        self.yields_until = if kept { yields_until(&self.config, keys, now) } else { now };
        self.wanted = true;
    }

    /// The slot of the pairing of these two keys.
    pub(super) fn slot_of(&self, own: &PublicKey, theirs: &[u8; 32]) -> Option<u32> {
        let previous = self.previous.as_ref().map(|(pairing, _)| pairing);
        let mut pairings = [Some(&self.current), previous].into_iter().flatten();
        pairings.find(|pairing| pairing.own == *own && pairing.theirs == *theirs).map(|pairing| pairing.slot)
    }

    /// The key that it had before, while that is accepted.
    pub(super) fn previous_key(&self) -> Option<[u8; 32]> {
        self.previous.as_ref().map(|(pairing, _)| pairing.theirs)
    }

    /// The pairing through which packets can go, the newest first.
    fn sending(&mut self) -> Option<&mut Pairing> {
        let previous = self.previous.as_mut().map(|(pairing, _)| pairing);
        [Some(&mut self.current), previous].into_iter().flatten().find(|pairing| pairing.has_session())
    }

    /// Counts an accepted message.
    pub(super) fn count_received(&mut self, len: usize) {
        self.counters.rx_packets += 1;
        self.counters.rx_bytes += len as u64;
    }

    /// Addresses its datagrams within a SAM session (SAM v3, "repliable and raw datagrams").
    pub(super) fn render_header(&mut self, session: Option<&SessionId>) {
        self.header = session.map_or_else(Vec::new, |id| {
            format!("3.0 {} {}\n", id.as_str(), self.config.endpoint.to_base64()).into_bytes()
        });
    }

    /// The addresses that it may use.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        addresses(&self.config)
    }

    /// Begins a handshake if a packet cannot be sent without.
    pub(super) fn want_session(&mut self, pacer: &mut Pacer, now: Instant) {
        if self.open {
            return;
        }
        self.wanted = now < self.yields_until;
        if !self.wanted {
            self.current.shake_hands(self.number, pacer);
        }
    }

    /// Encrypts a packet into `out`, which is large enough for it. None without a session.
    pub(super) fn encrypt(&mut self, packet: &[u8], out: &mut [u8], pacer: &mut Pacer) -> Option<usize> {
        // Asked now, because without a session boringtun would queue the packet behind the pacer's back.
        let Some(pairing) = self.sending() else {
            self.close(pacer);
            return None;
        };
        match pairing.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Handles a message for one of its pairings. A packet for the interface comes out, decrypted in `buffer`.
    pub(super) fn receive<'a>(
        &mut self,
        slot: u32,
        message: &[u8],
        subnets: &Subnets,
        buffer: &'a mut [u8],
        pacer: &mut Pacer,
        now: Instant,
    ) -> Result<Option<&'a [u8]>, Refused> {
        if is_exhausted(message) {
            return Err(Refused::Bad);
        }
        let number = self.number;
        let pairing = pairing(&mut self.current, &mut self.previous, slot).ok_or(Refused::NoSession)?;
        match pairing.tunn.decapsulate(None, message, buffer) {
            TunnResult::Done => {
                self.note_session(slot, message, pacer, now);
                Ok(None)
            }
            TunnResult::WriteToNetwork(answer) => {
                if is_response(answer) {
                    pairing.unconfirmed = sender_index(answer);
                }
                pacer.push_control(number, answer.to_vec());
                pairing.drain(number, pacer);
                self.note_session(slot, message, pacer, now);
                Ok(None)
            }
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                self.note_session(slot, message, pacer, now);
                // Cryptokey routing: a peer speaks for its own addresses alone. And to this node alone, not
                // through it to wherever this host would forward.
                let endpoints = ip::endpoints(packet).ok_or(Refused::Bad)?;
                let own = self.addresses().any(|address| address == endpoints.source);
                if own && subnets.is_own(endpoints.destination) {
                    Ok(Some(packet))
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

    /// Notes that a message went to or came from the peer: the next keepalive can wait.
    pub(super) fn defer_keepalive(&mut self, now: Instant) {
        self.keepalive_at = match self.config.keepalive {
            0 => None,
            seconds => Some(now + Duration::from_secs(seconds.into())),
        };
    }

    /// Sends a keepalive as soon as may be.
    pub(super) fn hasten_keepalive(&mut self, now: Instant) {
        self.keepalive_at = self.keepalive_at.map(|_| now.max(self.yields_until));
    }

    /// Does what is due by the clock. Without a SAM session that is only to forget old keys.
    pub(super) fn tick(&mut self, attached: bool, pacer: &mut Pacer, now: Instant) {
        if self.previous.as_ref().is_some_and(|(_, end)| *end <= now) {
            debug!(peer = self.name(), "the keys before are not accepted any more");
            self.previous = None;
        }
        let mut buffer = [0; MAX_HANDSHAKE];
        let previous = self.previous.as_mut().map(|(pairing, _)| pairing);
        for pairing in [Some(&mut self.current), previous].into_iter().flatten() {
            if let TunnResult::WriteToNetwork(message) = pairing.tunn.update_timers(&mut buffer)
                && attached
            {
                pacer.push_control(self.number, message.to_vec());
            }
        }
        if self.open && self.sending().is_none() {
            debug!(peer = self.name(), "the session has ended");
            self.close(pacer);
            self.hasten_keepalive(now);
        }
        if attached && self.wanted && self.yields_until <= now {
            self.wanted = false;
            if !self.current.has_session() {
                self.current.shake_hands(self.number, pacer);
            }
        }
        if attached && self.keepalive_at.is_some_and(|time| time <= now) {
            self.defer_keepalive(now);
            self.keep_alive(pacer, now);
        }
    }

    /// boringtun's own persistent keepalive cannot be changed once set and gives up with the handshake; this
    /// one, as the kernel's, does not.
    fn keep_alive(&mut self, pacer: &mut Pacer, now: Instant) {
        if !self.current.has_session() {
            self.current.shake_hands(self.number, pacer);
        }
        if !self.open {
            return;
        }
        let mut buffer = [0; MAX_HANDSHAKE];
        if let Some(len) = self.encrypt(&[], &mut buffer, pacer) {
            pacer.push_control(self.number, buffer[..len].to_vec());
        }
        // boringtun renews sessions that carry data; this is for those that are kept open without.
        let age = self.last_handshake.map(|time| now.saturating_duration_since(time));
        if self.current.initiator && age.is_some_and(|age| age >= REKEY_AFTER) {
            self.current.shake_hands(self.number, pacer);
        }
    }

    /// After an accepted message: notes the handshake that it completed, and lets waiting packets go.
    fn note_session(&mut self, slot: u32, message: &[u8], pacer: &mut Pacer, now: Instant) {
        let Some(pairing) = pairing(&mut self.current, &mut self.previous, slot) else { return };
        let answered = is_response(message);
        let confirmed = pairing.unconfirmed.is_some() && data_index(message) == pairing.unconfirmed;
        if answered || confirmed {
            pairing.initiator = answered;
            pairing.unconfirmed = None;
            if self.last_handshake.replace(now).is_none() {
                info!(peer = self.name(), "connected");
            } else {
                debug!(peer = self.name(), "renewed the session");
            }
        }
        if !self.open && self.sending().is_some() {
            self.open = true;
            self.wanted = false;
            pacer.open(self.number);
        }
    }

    fn close(&mut self, pacer: &mut Pacer) {
        self.open = false;
        pacer.hold(self.number);
    }

    /// For messages to people.
    fn name(&self) -> String {
        self.config.node.short()
    }
}

/// The addresses that a peer may use.
pub(super) fn addresses(peer: &tund::Peer) -> impl Iterator<Item = IpAddr> + use<> {
    peer.ipv4.map(IpAddr::V4).into_iter().chain([IpAddr::V6(peer.ipv6)])
}

/// The pairing with this slot.
fn pairing<'a>(
    current: &'a mut Pairing,
    previous: &'a mut Option<(Pairing, Instant)>,
    slot: u32,
) -> Option<&'a mut Pairing> {
    let previous = previous.as_mut().map(|(pairing, _)| pairing);
    [Some(current), previous].into_iter().flatten().find(|pairing| pairing.slot == slot)
}

/// Until when a peer that this node has just been told of is to begin.
fn yields_until(peer: &tund::Peer, keys: &Keys, now: Instant) -> Instant {
    if peer.public_key < keys.public.to_bytes() { now + YIELD } else { now }
}
