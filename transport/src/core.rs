//! A transport as a state machine: when its session is opened, what the bridge is sent, and what has come.
//!
//! Nothing here reads a clock: time is what has passed since some moment that the caller has fixed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::Duration;

use i2plan_proto::destination::DestinationHash;
use i2plan_proto::endpoint::{AnyDestination, Endpoint};
use i2plan_proto::sam::connection::Found;
use i2plan_proto::sam::datagram;
use i2plan_proto::sam::self_test::PROBE;
use i2plan_proto::sam::session::Style;
use thiserror::Error;

use crate::retry::{Cause, Release, Retry, jittered};

/// Longest payload of a datagram, bytes.
pub const MAX_PAYLOAD: usize = 31 * 1024;

/// Endpoints whose destinations are looked up at a time.
const MAX_ASKED: usize = 64;

/// Datagrams that wait for the destination of an endpoint.
const MAX_HELD: usize = 4;

/// Destinations that are remembered.
const MAX_KNOWN: usize = 1024;

/// How long a router is not asked again for a destination that it has not found.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A datagram that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The destination that has signed it, in the repliable style; none in the raw style.
    pub from: Option<AnyDestination>,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// No session is open.
    #[error("no session is open")]
    Down,
    /// The router has not found the destination, a few seconds ago at most.
    #[error("the router does not find the destination of {}: {reason}", hash.b32())]
    NotFound {
        /// What was looked up.
        hash: DestinationHash,
        /// What the router says.
        reason: String,
    },
    /// So many destinations are looked up already.
    #[error("the destinations of {MAX_ASKED} endpoints are being looked up already")]
    Busy,
    /// The payload does not fit into a datagram.
    #[error("a datagram carries 1 to {MAX_PAYLOAD} bytes, not {0}")]
    Size(usize),
    /// The socket does not take it.
    #[error("the socket to the router does not take it: {0}")]
    Io(io::ErrorKind),
}

#[derive(Debug)]
enum Phase {
    Waiting {
        until: Duration,
    },
    /// A session is to be opened.
    Due,
    Opening,
    Up {
        id: String,
        since: Duration,
    },
}

/// What is known of an endpoint of which the hash was given.
#[derive(Debug)]
enum Known {
    /// Its destination, in base64.
    Found(String),
    /// It is looked up, and these payloads wait for it.
    Asked(VecDeque<Vec<u8>>),
    NotFound {
        reason: String,
        until: Duration,
    },
}

/// A transport without its sockets.
#[derive(Debug)]
pub struct Core {
    style: Style,
    destination: AnyDestination,
    phase: Phase,
    retry: Retry,
    release: Release,
    known: HashMap<DestinationHash, Known>,
    lookups: VecDeque<DestinationHash>,
    output: VecDeque<Vec<u8>>,
}

impl Core {
    /// A transport under this destination. Its session is to be opened.
    #[must_use]
    pub fn new(style: Style, destination: AnyDestination) -> Self {
        Self {
            style,
            destination,
            phase: Phase::Due,
            retry: Retry::default(),
            release: Release::default(),
            known: HashMap::new(),
            lookups: VecDeque::new(),
            output: VecDeque::new(),
        }
    }

    /// Whether a session is to be opened: asked for once, and answered with [`Core::handle_opened`] or
    /// [`Core::handle_failure`].
    pub fn poll_open(&mut self) -> bool {
        let due = matches!(self.phase, Phase::Due);
        if due {
            self.phase = Phase::Opening;
        }
        due
    }

    /// The router has said that a session is open, or has not answered, within this time.
    pub fn handle_answer(&mut self, took: Duration) {
        self.release.handle_answer(took);
    }

    /// A session with this id is open, and tested.
    pub fn handle_opened(&mut self, id: String, now: Duration) {
        self.phase = Phase::Up { id, since: now };
    }

    /// No session could be opened, or the one that was open has ended. Returns in how long the next is opened; `random`,
    /// from 0 to 1, keeps transports that lose a router together from coming back together.
    pub fn handle_failure(&mut self, cause: Cause, now: Duration, random: f64) -> Duration {
        let lasted = match self.phase {
            Phase::Up { since, .. } => now.saturating_sub(since),
            _ => Duration::ZERO,
        };
        self.release.handle_closed(now);
        let wait = jittered(self.retry.handle_failure(cause, lasted), random).max(self.release.wait(now));
        self.phase = Phase::Waiting { until: now + wait };
        self.forget_session();
        wait
    }

    /// The session was ended, for another to be opened in its place.
    pub fn handle_renewal(&mut self, now: Duration) {
        self.release.handle_closed(now);
        self.phase = match self.release.wait(now) {
            Duration::ZERO => Phase::Due,
            wait => Phase::Waiting { until: now + wait },
        };
        self.forget_session();
    }

    fn forget_session(&mut self) {
        // Answers come over the session that has asked. A hash has one destination for ever.
        self.known.retain(|_, known| matches!(known, Known::Found(_)));
        self.lookups.clear();
        self.output.clear();
    }

    /// When [`Core::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            _ => None,
        }
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Waiting { until } if until <= now) {
            self.phase = Phase::Due;
        }
    }

    /// Has a payload sent: see [`Core::poll_transmit`] and [`Core::poll_lookup`]. It waits for its destination if that
    /// has to be looked up; of several that wait for one, the oldest are lost.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&mut self, to: &Endpoint, payload: &[u8], now: Duration) -> Result<(), SendError> {
        let Phase::Up { id, .. } = &self.phase else { return Err(SendError::Down) };
        if !(1..=MAX_PAYLOAD).contains(&payload.len()) {
            return Err(SendError::Size(payload.len()));
        }
        let hash = match to {
            Endpoint::Destination(destination) => {
                self.output.push_back(datagram::encode_to(id, &destination.to_base64(), payload));
                return Ok(());
            }
            Endpoint::Hash(hash) => *hash,
        };
        match self.known.get_mut(&hash) {
            Some(Known::Found(destination)) => {
                self.output.push_back(datagram::encode_to(id, destination, payload));
            }
            Some(Known::Asked(held)) => {
                if held.len() >= MAX_HELD {
                    held.pop_front();
                }
                held.push_back(payload.to_owned());
            }
            Some(Known::NotFound { reason, until }) if now < *until => {
                return Err(SendError::NotFound { hash, reason: reason.clone() });
            }
            _ => {
                // Those that were not found are worth nothing any more.
                self.known
                    .retain(|_, known| !matches!(known, Known::NotFound { until, .. } if *until <= now));
                let asked = self.known.values().filter(|known| !matches!(known, Known::Found(_))).count();
                if asked >= MAX_ASKED {
                    return Err(SendError::Busy);
                }
                self.known.insert(hash, Known::Asked(VecDeque::from([payload.to_owned()])));
                self.lookups.push_back(hash);
            }
        }
        Ok(())
    }

    /// The next destination that the router is to look up.
    pub fn poll_lookup(&mut self) -> Option<DestinationHash> {
        self.lookups.pop_front()
    }

    /// The next datagram for the bridge.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.output.pop_front()
    }

    /// A lookup is done.
    pub fn handle_found(&mut self, found: Found, now: Duration) {
        let Found { hash, destination } = found;
        let known = match destination {
            Ok(destination) => Known::Found(destination.to_base64()),
            Err(reason) => Known::NotFound { reason, until: now + ASK_AGAIN },
        };
        let is_found = matches!(known, Known::Found(_));
        if is_found && self.known.len() >= MAX_KNOWN {
            let old = self.known.iter().find(|(_, known)| matches!(known, Known::Found(_)));
            if let Some(old) = old.map(|(hash, _)| *hash) {
                self.known.remove(&old);
            }
        }
        // What nothing waits for is the answer to a lookup that was given up.
        if !is_found && !matches!(self.known.get(&hash), Some(Known::Asked(_))) {
            return;
        }
        let before = self.known.insert(hash, known);
        if let (Phase::Up { id, .. }, Some(Known::Asked(held)), Some(Known::Found(destination))) =
            (&self.phase, before, self.known.get(&hash))
        {
            let held = held.iter().map(|payload| datagram::encode_to(id, destination, payload));
            self.output.extend(held);
        }
    }

    /// What the bridge has forwarded, unless it carries nothing or was not sent to this transport. An empty datagram is
    /// no message of WireGuard, and a call without one to some implementations.
    #[must_use]
    pub fn handle_datagram(&self, forwarded: &[u8]) -> Option<Datagram> {
        let datagram = match self.style {
            Style::Raw => Datagram { from: None, payload: forwarded.to_owned() },
            Style::Datagram => {
                let received = datagram::decode_any(forwarded).ok()?;
                Datagram { from: Some(received.from), payload: received.payload.to_owned() }
            }
        };
        // A probe of the self-test that comes late.
        let is_probe = datagram.payload.starts_with(PROBE)
            && datagram.from.as_ref().is_none_or(|from| *from == self.destination);
        (!is_probe && !datagram.payload.is_empty()).then_some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use i2plan_proto::destination::base64;
    use proptest::prelude::*;

    use super::*;
    use crate::Keys;

    const ZERO: Duration = Duration::ZERO;

    fn destination(seed: u8) -> AnyDestination {
        let certificate: &[u8] = if seed.is_multiple_of(2) { &[0, 0, 0] } else { &[5, 0, 4, 0, 7, 0, 0] };
        AnyDestination::from_i2p(&[&[seed; 384][..], certificate].concat()).unwrap()
    }

    fn up(style: Style) -> Core {
        let mut core = Core::new(style, destination(0));
        assert!(core.poll_open());
        core.handle_opened("s-1".to_owned(), ZERO);
        core
    }

    fn found(number: u8) -> Found {
        Found { hash: destination(number).hash(), destination: Ok(destination(number)) }
    }

    fn by_hash(number: u8) -> Endpoint {
        Endpoint::Hash(destination(number).hash())
    }

    fn sent(core: &mut Core) -> Vec<String> {
        std::iter::from_fn(|| core.poll_transmit()).map(|sent| String::from_utf8(sent).unwrap()).collect()
    }

    /// Opens no session until `end`, each attempt failing for this cause. Returns when it was tried, in seconds.
    fn attempts(core: &mut Core, cause: Cause, end: u64) -> Vec<u64> {
        let (mut now, mut tried) = (ZERO, Vec::new());
        while now < Duration::from_secs(end) {
            if core.poll_open() {
                tried.push(now.as_secs());
                assert!(!core.poll_open(), "one attempt at a time");
                core.handle_failure(cause, now, 0.0);
            }
            now = core.poll_timeout().unwrap();
            core.handle_timeout(now.checked_sub(Duration::from_millis(1)).unwrap());
            assert!(!core.poll_open(), "no attempt before its time");
            core.handle_timeout(now);
        }
        tried
    }

    #[test]
    fn sessions_are_tried_again_by_what_is_in_their_way() {
        let core = || Core::new(Style::Raw, destination(0));
        assert_eq!(attempts(&mut core(), Cause::NoBridge, 10), [0, 2, 4, 6, 8]);
        assert_eq!(attempts(&mut core(), Cause::Duplicate, 10), [0, 3, 6, 9]);
        assert_eq!(attempts(&mut core(), Cause::Other, 100), [0, 1, 3, 7, 15, 31, 61, 91]);
    }

    #[test]
    fn a_session_that_lasted_is_opened_again_soon_and_what_was_found_is_kept() {
        let mut core = Core::new(Style::Raw, destination(0));
        attempts(&mut core, Cause::Other, 100);
        let since = Duration::from_secs(200);
        assert!(core.poll_open());
        core.handle_opened("s-1".to_owned(), since);
        core.send(&by_hash(1), b"x", since).unwrap();
        core.send(&by_hash(2), b"x", since).unwrap();
        core.handle_found(found(1), since);
        let lost = since + Duration::from_secs(100);
        assert_eq!(core.handle_failure(Cause::Other, lost, 0.0), Duration::from_secs(1));
        assert_eq!(core.send(&by_hash(1), b"x", lost), Err(SendError::Down));
        core.handle_timeout(core.poll_timeout().unwrap());
        assert!(core.poll_open());
        core.handle_opened("s-2".to_owned(), lost);
        assert_eq!(core.poll_timeout(), None);
        // What was asked of the session before is asked again.
        while core.poll_lookup().is_some() {}
        core.send(&by_hash(1), b"y", lost).unwrap();
        core.send(&by_hash(2), b"y", lost).unwrap();
        assert_eq!(core.poll_lookup(), Some(destination(2).hash()));
        assert_eq!(sent(&mut core), [format!("3.0 s-2 {}\ny", destination(1).to_base64())]);
    }

    #[test]
    fn a_session_is_renewed_when_the_router_has_let_go_of_its_destination() {
        let mut core = up(Style::Raw);
        core.handle_answer(Duration::from_secs(20));
        core.handle_renewal(Duration::from_secs(30));
        assert!(!core.poll_open());
        assert_eq!(core.poll_timeout(), Some(Duration::from_secs(36)));
        core.handle_timeout(Duration::from_secs(36));
        assert!(core.poll_open());
        core.handle_answer(Duration::from_millis(200));
        core.handle_answer(Duration::from_millis(200));
        core.handle_opened("s-2".to_owned(), Duration::from_secs(37));
        core.handle_renewal(Duration::from_secs(40));
        assert_eq!(core.send(&by_hash(1), b"x", ZERO), Err(SendError::Down));
        assert!(core.poll_open() && !core.poll_open());
    }

    #[test]
    fn datagrams_wait_for_their_destination_and_are_addressed_in_base64() {
        let mut core = up(Style::Datagram);
        for payload in ["1", "2", "3", "4", "5"] {
            core.send(&by_hash(1), payload.as_bytes(), ZERO).unwrap();
        }
        assert_eq!(sent(&mut core), [""; 0]);
        assert_eq!((core.poll_lookup(), core.poll_lookup()), (Some(destination(1).hash()), None));
        core.handle_found(found(1), ZERO);
        core.send(&by_hash(1), b"6", ZERO).unwrap();
        core.send(&Endpoint::Destination(destination(1)), b"7", ZERO).unwrap();
        let header = format!("3.0 s-1 {}\n", destination(1).to_base64());
        assert_eq!(
            sent(&mut core),
            ["2", "3", "4", "5", "6", "7"].map(|payload| format!("{header}{payload}"))
        );
        assert_eq!(core.poll_lookup(), None);
    }

    #[test]
    fn a_destination_that_is_not_found_is_asked_for_again_later() {
        let mut core = up(Style::Raw);
        core.send(&by_hash(1), b"x", ZERO).unwrap();
        core.poll_lookup();
        let hash = destination(1).hash();
        core.handle_found(Found { hash, destination: Err("KEY_NOT_FOUND".to_owned()) }, ZERO);
        let error = core.send(&by_hash(1), b"x", ZERO).unwrap_err().to_string();
        assert!(error.contains(&hash.b32()) && error.contains("KEY_NOT_FOUND"), "{error}");
        assert_eq!(core.poll_lookup(), None);
        core.send(&by_hash(1), b"y", ASK_AGAIN).unwrap();
        assert_eq!(core.poll_lookup(), Some(hash));
        core.handle_found(found(1), ASK_AGAIN);
        assert_eq!(sent(&mut core).len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut core = up(Style::Raw);
        let hash = |number: usize| DestinationHash(std::array::from_fn(|at| (number >> (at % 8 * 8)) as u8));
        for number in 0..MAX_ASKED {
            core.send(&Endpoint::Hash(hash(number)), b"x", ZERO).unwrap();
        }
        assert_eq!(core.send(&by_hash(1), b"x", ZERO), Err(SendError::Busy));
        for number in 0..2 * MAX_KNOWN {
            core.handle_found(Found { hash: hash(number), destination: Ok(destination(1)) }, ZERO);
        }
        assert!(core.known.len() <= MAX_KNOWN, "{}", core.known.len());
        for size in [0, MAX_PAYLOAD + 1] {
            let to = Endpoint::Destination(destination(1));
            assert_eq!(core.send(&to, &vec![0; size], ZERO), Err(SendError::Size(size)));
        }
    }

    #[test]
    fn what_comes_has_its_sender_in_the_repliable_style_alone() {
        for options in ["", " FROM_PORT=0 TO_PORT=0"] {
            let forwarded = format!("{}{options}\nhello", destination(1).to_base64());
            let datagram = up(Style::Datagram).handle_datagram(forwarded.as_bytes());
            let expected = Datagram { from: Some(destination(1)), payload: b"hello".to_vec() };
            assert_eq!(datagram, Some(expected));
        }
        let datagram = up(Style::Raw).handle_datagram(b"hello");
        assert_eq!(datagram, Some(Datagram { from: None, payload: b"hello".to_vec() }));
        assert_eq!(up(Style::Datagram).handle_datagram(b"hello"), None);
        let empty = format!("{}\n", destination(1).to_base64());
        assert_eq!(up(Style::Datagram).handle_datagram(empty.as_bytes()), None);
        assert_eq!(up(Style::Raw).handle_datagram(b""), None);
    }

    #[test]
    fn late_probes_are_not_delivered_and_those_of_others_are() {
        let probe = [PROBE, &[7; 16]].concat();
        assert_eq!(up(Style::Raw).handle_datagram(&probe), None);
        let from = |number| [destination(number).to_base64().as_bytes(), b"\n", &probe].concat();
        assert_eq!(up(Style::Datagram).handle_datagram(&from(0)), None);
        assert!(up(Style::Datagram).handle_datagram(&from(1)).is_some());
    }

    proptest! {
        #[test]
        fn every_destination_is_addressed_by_its_base64_and_read_back(
            key_type in 0_u16..12,
            excess in prop::collection::vec(any::<u8>(), 0..520),
            seed in any::<u8>(),
            payload in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            let len = (4 + excess.len()) as u16;
            let certificate = [&[5][..], &len.to_be_bytes(), &key_type.to_be_bytes(), &[0, 0], &excess].concat();
            let bytes = [&[seed; 384][..], &certificate].concat();
            let Ok(to) = AnyDestination::from_i2p(&bytes) else { return Ok(()) };
            let mut core = up(Style::Datagram);
            core.send(&Endpoint::Hash(to.hash()), &payload, ZERO).unwrap();
            core.handle_found(Found { hash: to.hash(), destination: Ok(to.clone()) }, ZERO);
            let datagram = core.poll_transmit().unwrap();
            let forwarded = datagram.strip_prefix(b"3.0 s-1 ").unwrap();
            let text = base64().encode(&bytes);
            prop_assert!(forwarded.starts_with(text.as_bytes()));
            let expected = Datagram { from: Some(to.clone()), payload };
            prop_assert_eq!(core.handle_datagram(forwarded), Some(expected));
            prop_assert_eq!(text.parse(), Ok(Endpoint::Destination(to)));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            for style in [Style::Raw, Style::Datagram] {
                let _ = up(style).handle_datagram(&bytes);
            }
        }

        #[test]
        fn one_session_at_a_time_however_it_goes(steps in prop::collection::vec((0..5_u8, 0..100_u64), 0..100)) {
            let mut core = Core::new(Style::Raw, Keys::generate().destination().clone());
            let (mut now, mut open) = (ZERO, false);
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 if open => core.handle_opened("s".to_owned(), now),
                    1 if open => {
                        let wait = core.handle_failure(Cause::Other, now, 0.9);
                        prop_assert!(wait <= Duration::from_secs(45), "{wait:?}");
                        open = false;
                    }
                    2 => drop(core.send(&by_hash(1), b"x", now)),
                    _ => {
                        core.handle_timeout(now);
                        let due = core.poll_open();
                        prop_assert!(!(due && open));
                        open |= due;
                    }
                }
                prop_assert_eq!(core.poll_timeout().is_some(), !open && !matches!(core.phase, Phase::Due));
            }
        }
    }
}
