//! A SAM control connection as a state machine: bytes in, lines out.

use std::collections::VecDeque;

use crate::destination::{DestinationHash, base64};
use crate::endpoint::AnyDestination;
use thiserror::Error;

use super::line::{self, Line, LineError, MAX_LINE};

/// Lookups that may wait for their turn.
const MAX_LOOKUPS: usize = 64;

/// Lookups that were given up, and may still be answered.
const MAX_GIVEN_UP: usize = 8;

/// A lookup is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was looked up.
    pub hash: DestinationHash,
    /// The destination, or why there is none.
    pub destination: Result<AnyDestination, String>,
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

/// A connection to a bridge, on which a session is open.
///
/// Lookups go one at a time: a bridge may lose a command that comes before it has answered the last.
#[derive(Debug, Default)]
pub struct Connection {
    input: Vec<u8>,
    output: VecDeque<String>,
    lookups: VecDeque<DestinationHash>,
    given_up: VecDeque<DestinationHash>,
}

impl Connection {
    /// Asks for the destination with this hash; false if too many lookups wait already.
    pub fn look_up(&mut self, hash: DestinationHash) -> bool {
        if self.lookups.contains(&hash) {
            return true;
        }
        if self.lookups.len() >= MAX_LOOKUPS {
            return false;
        }
        self.lookups.push_back(hash);
        if self.lookups.len() == 1 {
            self.output.push_back(line::lookup(&hash.b32()));
        }
        true
    }

    /// The lookup that the bridge is to answer next.
    #[must_use]
    pub fn current(&self) -> Option<&DestinationHash> {
        self.lookups.front()
    }

    /// Gives up the [current](Self::current) lookup: the bridge takes too long to answer it. The next one is sent. The
    /// answer, should it come after all, is taken.
    pub fn give_up(&mut self) -> Option<Found> {
        let hash = self.lookups.pop_front()?;
        if self.given_up.len() >= MAX_GIVEN_UP {
            self.given_up.pop_front();
        }
        self.given_up.push_back(hash);
        self.send_next();
        Some(Found { hash, destination: Err("the router does not answer the look-up".to_owned()) })
    }

    fn send_next(&mut self) {
        if let Some(next) = self.lookups.front() {
            self.output.push_back(line::lookup(&next.b32()));
        }
    }

    /// Whether nothing is under way: no lookup waits, and no line is in pieces.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && self.lookups.is_empty()
    }

    /// The next line to send.
    pub fn poll_output(&mut self) -> Option<String> {
        self.output.pop_front()
    }

    /// Takes in what the bridge has sent.
    ///
    /// # Errors
    /// [`ConnectionError`]: the connection is to be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Found>, ConnectionError> {
        self.input.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            // Also if it came in one piece: how the bytes are cut must not matter.
            if end > MAX_LINE {
                return Err(ConnectionError::TooLong);
            }
            let line: Vec<u8> = self.input.drain(..=end).collect();
            found.extend(self.on_line(Line::parse(&line[..end])?)?);
        }
        if self.input.len() > MAX_LINE {
            return Err(ConnectionError::TooLong);
        }
        Ok(found)
    }

    fn on_line(&mut self, line: Line) -> Result<Option<Found>, ConnectionError> {
        match line {
            Line::Naming { name, destination } => {
                let is_current = self.lookups.front().is_some_and(|hash| name == hash.b32());
                let hash = if is_current {
                    self.lookups.pop_front()
                } else {
                    let late = self.given_up.iter().position(|hash| name == hash.b32());
                    late.and_then(|place| self.given_up.remove(place))
                };
                let hash = hash.ok_or(ConnectionError::Unexpected)?;
                if is_current {
                    self.send_next();
                }
                let destination = destination.and_then(|text| checked(&text, &hash));
                Ok(Some(Found { hash, destination }))
            }
            Line::SessionStatus(reason) => Err(ConnectionError::Ended(reason)),
            Line::Ping(text) => {
                self.output.push_back(line::pong(&text));
                Ok(None)
            }
            Line::Other => Err(ConnectionError::Unexpected),
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

    #[test]
    fn lookups_wait_for_each_other() {
        let (one, two) = (destination(1), destination(2));
        let mut connection = Connection::default();
        assert!(
            connection.look_up(one.hash())
                && connection.look_up(two.hash())
                && connection.look_up(one.hash())
        );
        assert_eq!(connection.poll_output(), Some(line::lookup(&one.hash().b32())));
        assert_eq!(connection.poll_output(), None);
        let found = connection.receive(reply(&one.hash().b32(), &one).as_bytes());
        assert_eq!(found, Ok(vec![Found { hash: one.hash(), destination: Ok(one.into()) }]));
        assert_eq!(connection.poll_output(), Some(line::lookup(&two.hash().b32())));
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
        connection.poll_output();
        let given_up = connection.give_up().unwrap();
        assert!(given_up.hash == one.hash() && given_up.destination.is_err());
        assert_eq!(connection.poll_output(), Some(line::lookup(&two.hash().b32())));
        // A late answer is one, once.
        let late = reply(&one.hash().b32(), &one);
        let found = connection.receive(late.as_bytes());
        assert_eq!(found, Ok(vec![Found { hash: one.hash(), destination: Ok(one.into()) }]));
        let found = connection.receive(reply(&two.hash().b32(), &two).as_bytes());
        assert_eq!(found, Ok(vec![Found { hash: two.hash(), destination: Ok(two.into()) }]));
        assert_eq!(connection.poll_output(), None);
        assert_eq!(connection.receive(late.as_bytes()), Err(ConnectionError::Unexpected));
    }

    #[test]
    fn a_router_cannot_pass_off_another_destination() {
        let (one, two) = (destination(1), destination(2));
        let mut connection = Connection::default();
        connection.look_up(one.hash());
        let found = connection.receive(reply(&one.hash().b32(), &two).as_bytes()).unwrap();
        assert!(matches!(&found[..], [Found { destination: Err(_), .. }]));
        connection.look_up(one.hash());
        assert_eq!(
            connection.receive(reply("other.b32.i2p", &one).as_bytes()),
            Err(ConnectionError::Unexpected)
        );
    }

    #[test]
    fn pings_are_answered_and_ends_noticed() {
        let mut connection = Connection::default();
        assert_eq!(connection.receive(b"PING 7\n"), Ok(vec![]));
        assert_eq!(connection.poll_output().as_deref(), Some("PONG 7\n"));
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

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10)) {
            let mut connection = Connection::default();
            for chunk in chunks {
                if connection.receive(&chunk).is_err() {
                    break;
                }
            }
        }
    }
}
