//! A SAM control connection as a state machine: bytes in, bytes out.
//!
//! Where no UDP passes between a node and its bridge, the connection carries datagrams too. i2pd (2.45.1 and 2.58,
//! `SAMSocket::HandleMessage`) reads it carelessly then: of what it has read at once it discards all that follows a
//! look-up, in the middle of a datagram too, and leaves what follows a datagram until more comes. So one thing goes at a
//! time. It answers look-ups alone; after each datagram one of the session's own name shows that it was taken.

use std::collections::VecDeque;
use std::time::Duration;

use crate::destination::{DestinationHash, base64};
use crate::endpoint::AnyDestination;
use thiserror::Error;

use super::datagram;
use super::line::{self, Line, LineError, MAX_LINE};

/// Lookups that may wait for their turn.
const MAX_LOOKUPS: usize = 64;

/// Lookups that were given up, and may still be answered.
const MAX_GIVEN_UP: usize = 8;

/// Datagrams that may wait for their turn.
const MAX_DATAGRAMS: usize = 64;

/// Longest datagram with its line that is sent, bytes: i2pd has a buffer of 8192 for both.
const MAX_SENT: usize = 8000;

/// Longest datagram that is received, bytes.
const MAX_RECEIVED: usize = 64 * 1024;

/// The name by which every bridge knows the session's own destination.
const OWN_NAME: &str = "ME";

/// How long after a datagram the bridge is asked whether it was taken: long enough for it to be read by itself.
const SETTLE: Duration = Duration::from_millis(10);

/// After this the bridge is asked again, which makes it read on; each further time takes twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Longest time between two such questions.
const LAST_RETRY: Duration = Duration::from_secs(8);

/// How long nothing is sent once a bridge has answered that was asked more than once: it may be about to read the other
/// questions, and would discard what follows them.
const QUIET: Duration = Duration::from_millis(200);

/// A lookup is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was looked up.
    pub hash: DestinationHash,
    /// The destination, or why there is none.
    pub destination: Result<AnyDestination, String>,
}

/// What has come on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A lookup is done.
    Found(Found),
    /// A repliable datagram, in the form in which a bridge forwards it by UDP.
    Datagram(Vec<u8>),
}

/// Why a connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectionError {
    /// The bridge has ended the session.
    #[error("the router ended the session: {0}")]
    Ended(String),
    /// The bridge sent nonsense.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The bridge sent a line without end.
    #[error("the SAM bridge sent a line of over {MAX_LINE} bytes")]
    TooLong,
    /// The bridge answered what was not asked.
    #[error("the SAM bridge sent a line that nothing asked for")]
    Unexpected,
}

/// A connection to a bridge, on which a session is open. Times count from any fixed instant.
///
/// Lookups go one at a time: a bridge may lose a command that comes before it has answered the last.
#[derive(Debug, Default)]
pub struct Connection {
    input: Vec<u8>,
    pongs: VecDeque<String>,
    lookups: VecDeque<DestinationHash>,
    /// The first lookup has been sent.
    is_asked: bool,
    given_up: VecDeque<DestinationHash>,
    datagrams: Option<Datagrams>,
}

/// Datagrams on a connection.
#[derive(Debug, Default)]
struct Datagrams {
    waiting: VecDeque<Vec<u8>>,
    stage: Stage,
    /// One whose line has been read: its header as by UDP, and the length of its payload.
    arriving: Option<(Vec<u8>, usize)>,
}

/// What the bridge is at, where datagrams are sent to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing, as far as is known.
    #[default]
    Ready,
    /// A datagram has been sent to it.
    Sent { ask: Duration },
    /// It is asked whether it has taken what was sent before.
    Asked { again: Duration, interval: Duration },
    /// It has answered, and may be asked what it has answered.
    Answered { more_than_once: bool },
    /// Nothing is sent to it.
    Quiet { until: Duration },
}

impl Connection {
    /// Returns a connection whose session has no UDP: it carries repliable datagrams.
    #[must_use]
    pub fn with_datagrams() -> Self {
        Self { datagrams: Some(Datagrams::default()), ..Self::default() }
    }

    /// Asks for the destination with this hash; false if too many lookups wait already.
    pub fn look_up(&mut self, hash: DestinationHash) -> bool {
        if self.lookups.contains(&hash) {
            return true;
        }
        if self.lookups.len() >= MAX_LOOKUPS {
            return false;
        }
        self.lookups.push_back(hash);
        true
    }

    /// Sends a repliable datagram to a destination in I2P's base64; false if that cannot be: it is too long, too many wait
    /// already, or the connection carries none.
    pub fn send(&mut self, destination: &str, payload: &[u8]) -> bool {
        let Some(datagrams) = &mut self.datagrams else { return false };
        let datagram = datagram::encode_on_connection(destination, payload);
        let is_taken = datagrams.waiting.len() < MAX_DATAGRAMS && datagram.len() <= MAX_SENT;
        if is_taken {
            datagrams.waiting.push_back(datagram);
        }
        is_taken
    }

    /// The lookup that the bridge is to answer next, if it has been sent.
    #[must_use]
    pub fn current(&self) -> Option<&DestinationHash> {
        self.lookups.front().filter(|_| self.is_asked)
    }

    /// Gives up the [current](Self::current) lookup: the bridge takes too long to answer it. The next one is sent. The
    /// answer, should it come after all, is taken.
    pub fn give_up(&mut self) -> Option<Found> {
        let hash = std::mem::take(&mut self.is_asked).then(|| self.lookups.pop_front())??;
        if self.given_up.len() >= MAX_GIVEN_UP {
            self.given_up.pop_front();
        }
        self.given_up.push_back(hash);
        if let Some(datagrams) = &mut self.datagrams {
            datagrams.stage = Stage::Asked { again: Duration::ZERO, interval: FIRST_RETRY };
        }
        Some(Found { hash, destination: Err("the router does not answer the look-up".to_owned()) })
    }

    /// Whether a datagram can be sent before anything else.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let datagrams = self.datagrams.as_ref();
        !self.is_asked && datagrams.is_some_and(|datagrams| datagrams.waiting.is_empty())
    }

    /// Whether nothing is under way: no lookup waits, and no line is in pieces.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.pongs.is_empty() && self.lookups.is_empty()
    }

    /// The next line, or datagram with its line, to send.
    pub fn poll_output(&mut self, now: Duration) -> Option<Vec<u8>> {
        if let Some(pong) = self.pongs.pop_front() {
            return Some(pong.into_bytes());
        }
        if self.is_asked {
            return None;
        }
        if let Some(datagrams) = &mut self.datagrams {
            match datagrams.poll_output(now) {
                Ok(()) => {}
                Err(output) => return output,
            }
        }
        if let Some(next) = self.lookups.front() {
            self.is_asked = true;
            return Some(line::lookup(&next.b32()).into_bytes());
        }
        let datagrams = self.datagrams.as_mut()?;
        let datagram = datagrams.waiting.pop_front()?;
        datagrams.stage = Stage::Sent { ask: now + SETTLE };
        Some(datagram)
    }

    /// When [`Connection::poll_output`] is to be called next though nothing comes.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.datagrams.as_ref().filter(|_| !self.is_asked)?.stage {
            Stage::Ready | Stage::Answered { .. } => None,
            Stage::Sent { ask: at } | Stage::Asked { again: at, .. } | Stage::Quiet { until: at } => Some(at),
        }
    }

    /// Takes in what the bridge has sent.
    ///
    /// # Errors
    /// [`ConnectionError`]: the connection is to be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Received>, ConnectionError> {
        self.input.extend_from_slice(bytes);
        let mut received = Vec::new();
        loop {
            if let Some(datagrams) = &mut self.datagrams
                && let Some((mut datagram, len)) =
                    datagrams.arriving.take_if(|(_, len)| self.input.len() >= *len)
            {
                datagram.extend(self.input.drain(..len));
                received.push(Received::Datagram(datagram));
            }
            if self.datagrams.as_ref().is_some_and(|datagrams| datagrams.arriving.is_some()) {
                return Ok(received);
            }
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else { break };
            // Also if it came in one piece: how the bytes are cut must not matter.
            if end > MAX_LINE {
                return Err(ConnectionError::TooLong);
            }
            let line: Vec<u8> = self.input.drain(..=end).collect();
            received.extend(self.on_line(Line::parse(&line[..end])?)?.map(Received::Found));
        }
        if self.input.len() > MAX_LINE {
            return Err(ConnectionError::TooLong);
        }
        Ok(received)
    }

    fn on_line(&mut self, line: Line) -> Result<Option<Found>, ConnectionError> {
        match (line, &mut self.datagrams) {
            (Line::Naming { name, .. }, Some(datagrams)) if name == OWN_NAME => {
                datagrams.handle_answer();
                Ok(None)
            }
            (Line::Naming { name, destination }, _) => {
                let is_current = self.current().is_some_and(|hash| name == hash.b32());
                let hash = if is_current {
                    self.is_asked = false;
                    self.lookups.pop_front()
                } else {
                    let late = self.given_up.iter().position(|hash| name == hash.b32());
                    late.and_then(|place| self.given_up.remove(place))
                };
                let hash = hash.ok_or(ConnectionError::Unexpected)?;
                let destination = destination.and_then(|text| checked(&text, &hash));
                Ok(Some(Found { hash, destination }))
            }
            (Line::SessionStatus(reason), _) => Err(ConnectionError::Ended(reason)),
            (Line::Ping(text), _) => {
                self.pongs.push_back(line::pong(&text));
                Ok(None)
            }
            (Line::Datagram { from, len }, Some(datagrams)) if len <= MAX_RECEIVED => {
                datagrams.arriving = Some((format!("{from}\n").into_bytes(), len));
                Ok(None)
            }
            (Line::Datagram { .. } | Line::Other, _) => Err(ConnectionError::Unexpected),
        }
    }
}

impl Datagrams {
    /// What is to be sent now, if the bridge cannot be sent what waits.
    fn poll_output(&mut self, now: Duration) -> Result<(), Option<Vec<u8>>> {
        if let Stage::Answered { more_than_once } = self.stage {
            self.stage = if more_than_once { Stage::Quiet { until: now + QUIET } } else { Stage::Ready };
        }
        let interval = match self.stage {
            Stage::Ready | Stage::Answered { .. } => return Ok(()),
            Stage::Quiet { until } if now >= until => {
                self.stage = Stage::Ready;
                return Ok(());
            }
            Stage::Sent { ask } if now >= ask => FIRST_RETRY,
            Stage::Asked { again, interval } if now >= again => (interval * 2).min(LAST_RETRY),
            Stage::Sent { .. } | Stage::Asked { .. } | Stage::Quiet { .. } => return Err(None),
        };
        self.stage = Stage::Asked { again: now + interval, interval };
        Err(Some(line::lookup(OWN_NAME).into_bytes()))
    }

    /// The bridge has said what the session's own destination is.
    fn handle_answer(&mut self) {
        if let Stage::Asked { interval, .. } = self.stage {
            self.stage = Stage::Answered { more_than_once: interval > FIRST_RETRY };
        }
    }
}

/// The destination in a naming reply, if it is the one that was asked for.
fn checked(text: &str, hash: &DestinationHash) -> Result<AnyDestination, String> {
    let bytes = base64().decode(text.as_bytes()).map_err(|_| "the answer is not base64".to_owned())?;
    let (destination, _) = AnyDestination::split_from(&bytes).map_err(|error| error.to_string())?;
    if destination.hash() == *hash {
        Ok(destination)
    } else {
        Err("the answer is another destination".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::destination::Destination;

    fn destination(seed: u8) -> Destination {
        Destination { padding: [seed; 32], signing_key: [4; 32] }
    }

    fn reply(name: &str, destination: &Destination) -> String {
        format!("NAMING REPLY RESULT=OK NAME={name} VALUE={}\n", destination.to_base64())
    }

    fn found_as(destination: &Destination) -> Received {
        Received::Found(Found { hash: destination.hash(), destination: Ok((*destination).into()) })
    }

    fn at(connection: &mut Connection, millis: u64) -> Option<String> {
        let output = connection.poll_output(Duration::from_millis(millis))?;
        Some(String::from_utf8(output).unwrap())
    }

    fn next(connection: &mut Connection) -> Option<String> {
        at(connection, 0)
    }

    #[test]
    fn lookups_wait_for_each_other() {
        let (one, two) = (destination(1), destination(2));
        let mut connection = Connection::default();
        assert!(
            connection.look_up(one.hash())
                && connection.look_up(two.hash())
                && connection.look_up(one.hash())
        );
        assert_eq!(next(&mut connection), Some(line::lookup(&one.hash().b32())));
        assert_eq!(next(&mut connection), None);
        let found = connection.receive(reply(&one.hash().b32(), &one).as_bytes());
        assert_eq!(found, Ok(vec![found_as(&one)]));
        assert_eq!(next(&mut connection), Some(line::lookup(&two.hash().b32())));
        assert!(!connection.is_idle());
        connection.receive(reply(&two.hash().b32(), &two).as_bytes()).unwrap();
        assert!(connection.is_idle());
        connection.receive(b"PI").unwrap();
        assert!(!connection.is_idle());
    }

    #[test]
    fn a_lookup_without_an_answer_does_not_hold_up_the_others() {
        let (one, two) = (destination(1), destination(2));
        let mut connection = Connection::default();
        assert_eq!(connection.give_up(), None);
        connection.look_up(one.hash());
        connection.look_up(two.hash());
        assert_eq!(connection.give_up(), None, "it has not been sent");
        next(&mut connection);
        let given_up = connection.give_up().unwrap();
        assert!(given_up.hash == one.hash() && given_up.destination.is_err());
        assert_eq!(next(&mut connection), Some(line::lookup(&two.hash().b32())));
        // A late answer is one, once.
        let late = reply(&one.hash().b32(), &one);
        let found = connection.receive(late.as_bytes());
        assert_eq!(found, Ok(vec![found_as(&one)]));
        let found = connection.receive(reply(&two.hash().b32(), &two).as_bytes());
        assert_eq!(found, Ok(vec![found_as(&two)]));
        assert_eq!(next(&mut connection), None);
        assert_eq!(connection.receive(late.as_bytes()), Err(ConnectionError::Unexpected));
    }

    #[test]
    fn a_router_cannot_pass_off_another_destination() {
        let (one, two) = (destination(1), destination(2));
        let mut connection = Connection::default();
        connection.look_up(one.hash());
        next(&mut connection);
        let found = connection.receive(reply(&one.hash().b32(), &two).as_bytes()).unwrap();
        assert!(matches!(&found[..], [Received::Found(Found { destination: Err(_), .. })]));
        connection.look_up(one.hash());
        next(&mut connection);
        assert_eq!(
            connection.receive(reply("other.b32.i2p", &one).as_bytes()),
            Err(ConnectionError::Unexpected)
        );
    }

    #[test]
    fn pings_are_answered_and_ends_noticed() {
        let mut connection = Connection::default();
        assert_eq!(connection.receive(b"PING 7\n"), Ok(vec![]));
        assert_eq!(next(&mut connection).as_deref(), Some("PONG 7\n"));
        let ended = connection.receive(b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"no tunnels\"\n");
        assert_eq!(ended, Err(ConnectionError::Ended("I2P_ERROR: no tunnels".to_owned())));
    }

    #[test]
    fn memory_is_bounded() {
        let mut connection = Connection::default();
        assert_eq!(connection.receive(&[b'x'; MAX_LINE + 1]), Err(ConnectionError::TooLong));
        let whole = [&[b'x'; MAX_LINE + 1], &b"\n"[..]].concat();
        assert_eq!(Connection::default().receive(&whole), Err(ConnectionError::TooLong));
        let mut connection = Connection::default();
        let accepted = (0..=255).filter(|seed| connection.look_up(destination(*seed).hash())).count();
        assert_eq!(accepted, MAX_LOOKUPS);
    }

    const ASK: &str = "NAMING LOOKUP NAME=ME\n";
    const OWN: &[u8] = b"NAMING REPLY RESULT=OK NAME=ME VALUE=AAAA\n";

    #[test]
    fn a_datagram_goes_when_the_bridge_has_taken_the_last() {
        let mut connection = Connection::with_datagrams();
        assert!(connection.send("DEST", b"one\n") && connection.send("DEST", b"two"));
        assert_eq!(next(&mut connection).as_deref(), Some("DATAGRAM SEND DESTINATION=DEST SIZE=4\none\n"));
        assert_eq!(at(&mut connection, 9), None);
        assert_eq!(connection.poll_timeout(), Some(SETTLE));
        assert_eq!(at(&mut connection, 10).as_deref(), Some(ASK));
        assert_eq!(at(&mut connection, 11), None);
        assert_eq!(connection.receive(OWN), Ok(vec![]));
        assert_eq!(at(&mut connection, 12).as_deref(), Some("DATAGRAM SEND DESTINATION=DEST SIZE=3\ntwo"));
    }

    #[test]
    fn a_bridge_that_does_not_read_on_is_asked_again_and_then_left_alone_for_a_moment() {
        let mut connection = Connection::with_datagrams();
        connection.send("DEST", b"one");
        connection.send("DEST", b"two");
        assert!(next(&mut connection).is_some());
        let asked: Vec<u64> = (0..20_000).filter(|now| at(&mut connection, *now).is_some()).collect();
        assert_eq!(asked, [10, 510, 1510, 3510, 7510, 15_510]);
        connection.receive(OWN).unwrap();
        assert_eq!(at(&mut connection, 20_000), None);
        connection.receive(OWN).unwrap();
        assert_eq!(connection.poll_timeout(), Some(Duration::from_millis(20_200)));
        assert_eq!(at(&mut connection, 20_199), None);
        assert!(at(&mut connection, 20_200).unwrap().ends_with("two"));
    }

    #[test]
    fn nothing_is_sent_to_a_bridge_that_looks_something_up() {
        let one = destination(1);
        let mut connection = Connection::with_datagrams();
        connection.send("DEST", b"one");
        connection.look_up(one.hash());
        assert!(next(&mut connection).unwrap().contains(&one.hash().b32()));
        assert_eq!((at(&mut connection, 5000), connection.poll_timeout()), (None, None));
        let mut silent = Connection::with_datagrams();
        silent.send("DEST", b"one");
        silent.look_up(one.hash());
        next(&mut silent);
        connection.receive(reply(&one.hash().b32(), &one).as_bytes()).unwrap();
        assert!(at(&mut connection, 5001).unwrap().starts_with("DATAGRAM SEND"));
        // One that may not have answered at all is asked whether it reads.
        silent.give_up().unwrap();
        assert_eq!(at(&mut silent, 20_000).as_deref(), Some(ASK));
        assert_eq!(silent.receive(reply(&one.hash().b32(), &one).as_bytes()), Ok(vec![found_as(&one)]));
        assert_eq!(at(&mut silent, 20_001), None);
        silent.receive(OWN).unwrap();
        assert_eq!(at(&mut silent, 20_002), None);
        assert!(at(&mut silent, 20_202).unwrap().starts_with("DATAGRAM SEND"));
    }

    #[test]
    fn datagrams_are_received_between_lines() {
        let one = destination(1);
        let bytes = [
            b"DATAGRAM RECEIVED DESTINATION=DEST SIZE=8 FROM_PORT=0 TO_PORT=0\none\ntwo\n" as &[u8],
            b"DATAGRAM RECEIVED DESTINATION=DEST SIZE=0\n",
            reply(&one.hash().b32(), &one).as_bytes(),
        ]
        .concat();
        let expected = [
            Received::Datagram(b"DEST\none\ntwo\n".to_vec()),
            Received::Datagram(b"DEST\n".to_vec()),
            found_as(&one),
        ];
        for size in [1, 7, bytes.len()] {
            let mut connection = Connection::with_datagrams();
            connection.look_up(one.hash());
            next(&mut connection);
            let received: Vec<_> =
                bytes.chunks(size).flat_map(|chunk| connection.receive(chunk).unwrap()).collect();
            assert_eq!(received, expected);
            assert!(connection.is_idle());
        }
        assert_eq!(Connection::default().receive(&bytes), Err(ConnectionError::Unexpected));
    }

    #[test]
    fn datagrams_that_wait_are_bounded() {
        let mut connection = Connection::with_datagrams();
        let taken = (0..1000).filter(|_| connection.send("DEST", b"x")).count();
        assert_eq!(taken, MAX_DATAGRAMS);
        assert!(!Connection::with_datagrams().send("DEST", &[0; MAX_SENT]));
        assert!(!Connection::default().send("DEST", b"x"));
        let announced = format!("DATAGRAM RECEIVED DESTINATION=DEST SIZE={}\n", MAX_RECEIVED + 1);
        let received = Connection::with_datagrams().receive(announced.as_bytes());
        assert_eq!(received, Err(ConnectionError::Unexpected));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10)) {
            for mut connection in [Connection::default(), Connection::with_datagrams()] {
                for chunk in &chunks {
                    if connection.receive(chunk).is_err() {
                        break;
                    }
                }
            }
        }
    }
}
