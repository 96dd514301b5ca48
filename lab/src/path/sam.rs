//! As much of a SAM bridge (version 3) as nodes use, without input or output: sessions of repliable and raw datagrams
//! that are forwarded, and look-ups of their names.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use i2plan_proto::destination::{DESTINATION_LEN, base64, hash_of};

use super::Datagram;
use crate::i2p::sam::Style;

/// What I2P adds to a repliable datagram: sender and signature, bytes.
const REPLIABLE: usize = DESTINATION_LEN + 64;

/// Sessions at once of all ends.
const MAX_SESSIONS: usize = 64;

/// A session, which ends with its connection.
#[derive(Debug)]
struct Session {
    connection: u64,
    style: Style,
    /// In base64.
    destination: String,
    name: String,
    forward_to: SocketAddr,
}

/// The bridges of all ends of a path.
#[derive(Debug, Default)]
pub struct Bridge {
    /// By end and id.
    sessions: HashMap<(usize, String), Session>,
}

impl Bridge {
    /// Answers a line that came over a connection of an end, without its end; none if it calls for no answer.
    pub fn handle_line(&mut self, end: usize, connection: u64, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let (topic, kind) = (words.next()?, words.next().unwrap_or_default());
        let values: HashMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        match (topic, kind) {
            ("HELLO", _) => Some("HELLO REPLY RESULT=OK VERSION=3.3\n".to_owned()),
            ("PING", _) => Some(format!("PONG{}\n", &line[topic.len()..])),
            ("SESSION", "CREATE") => Some(match self.create(end, connection, &values) {
                Ok(key) => format!("SESSION STATUS RESULT=OK DESTINATION={key}\n"),
                Err(reason) => format!("SESSION STATUS RESULT={reason}\n"),
            }),
            ("NAMING", "LOOKUP") => {
                let name = values.get("NAME").copied().unwrap_or_default();
                Some(match self.destination(connection, name) {
                    Some(value) => format!("NAMING REPLY RESULT=OK NAME={name} VALUE={value}\n"),
                    None => format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME={name}\n"),
                })
            }
            // QUIT, and the PONG that answers no PING.
            _ => None,
        }
    }

    /// A connection has ended, and its sessions with it.
    pub fn handle_end(&mut self, connection: u64) {
        self.sessions.retain(|_, session| session.connection != connection);
    }

    /// Opens a session; returns its private key.
    fn create<'a>(
        &mut self,
        end: usize,
        connection: u64,
        values: &HashMap<&str, &'a str>,
    ) -> Result<&'a str, &'static str> {
        let value = |key: &str| values.get(key).copied().ok_or("I2P_ERROR");
        let style = match value("STYLE")? {
            "RAW" => Style::Raw,
            "DATAGRAM" => Style::Datagram,
            _ => return Err("I2P_ERROR"),
        };
        let host: IpAddr = value("HOST")?.parse().map_err(|_| "I2P_ERROR")?;
        let port: u16 = value("PORT")?.parse().map_err(|_| "I2P_ERROR")?;
        let key = value("DESTINATION")?;
        let bytes = base64().decode(key.as_bytes()).map_err(|_| "INVALID_KEY")?;
        let bytes = bytes.get(..DESTINATION_LEN).ok_or("INVALID_KEY")?;
        let (destination, name) = (base64().encode(bytes), hash_of(bytes).b32());
        let id = (end, value("ID")?.to_owned());
        if self.sessions.contains_key(&id) {
            return Err("DUPLICATED_ID");
        }
        if self.sessions.values().any(|session| session.destination == destination) {
            return Err("DUPLICATED_DEST");
        }
        if self.sessions.len() >= MAX_SESSIONS {
            return Err("I2P_ERROR");
        }
        let forward_to = SocketAddr::new(host, port);
        self.sessions.insert(id, Session { connection, style, destination, name, forward_to });
        Ok(key)
    }

    fn destination(&self, connection: u64, name: &str) -> Option<&str> {
        let is_it = |session: &&Session| match name {
            "ME" => session.connection == connection,
            name => session.name == name,
        };
        self.sessions.values().find(is_it).map(|session| session.destination.as_str())
    }

    /// Reads a datagram of an end, as its program hands it to the bridge; none if it leads nowhere.
    #[must_use]
    pub fn handle_datagram(&self, end: usize, bytes: &[u8]) -> Option<Datagram> {
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let payload = &bytes[line + 1..];
        let (from, to, session) = self.sessions_of(end, &bytes[..line])?;
        let (bytes, len) = match from.style {
            Style::Raw => (payload.to_vec(), payload.len()),
            Style::Datagram => {
                let header = format!("{} FROM_PORT=0 TO_PORT=0\n", from.destination);
                ([header.as_bytes(), payload].concat(), payload.len() + REPLIABLE)
            }
        };
        let counts = from.style == Style::Raw;
        Some(Datagram { to, forward_to: session.forward_to, len, counts, bytes })
    }

    /// Where the payload of raw datagrams of an end goes that begin with this line, without its end: to which end, and
    /// to which address there. None if it leads nowhere or its session is of another style.
    #[must_use]
    pub fn raw_route(&self, end: usize, line: &[u8]) -> Option<(usize, SocketAddr)> {
        let (from, to, session) = self.sessions_of(end, line)?;
        (from.style == Style::Raw).then_some((to, session.forward_to))
    }

    /// The session that a datagram with this line is sent through, and that which it goes to, with the end of that.
    fn sessions_of(&self, end: usize, line: &[u8]) -> Option<(&Session, usize, &Session)> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let (_version, id, target) = (words.next()?, words.next()?, words.next()?);
        let from = self.sessions.get(&(end, id.to_owned()))?;
        let is_target = |session: &&Session| session.destination == target || session.name == target;
        let ((to, _), session) = self.sessions.iter().find(|(_, session)| is_target(session))?;
        (session.style == from.style).then_some((from, *to, session))
    }
}

#[cfg(test)]
mod tests {
    use i2plan_proto::destination::Destination;
    use i2plan_proto::sam::datagram;
    use i2plan_proto::sam::session::{HELLO, NewSession, Tunnels, read_answer, read_greeting};

    use super::*;

    fn destination(seed: u8) -> Destination {
        Destination { padding: [seed; 32], signing_key: [seed; 32] }
    }

    /// What a program says to open a session, as the nodes' library says it.
    fn open(bridge: &mut Bridge, end: usize, connection: u64, style: Style, seed: u8) -> String {
        let key = base64().encode(&[&destination(seed).to_i2p()[..], &[seed; 64]].concat());
        let tunnels = Tunnels { length: 1, length_variance: 0, quantity: 2, backup_quantity: 0 };
        let forward_to = ([127, 0, 0, 1], 4000 + u16::from(seed)).into();
        let id = format!("s-{seed}");
        let session = NewSession { style, id: &id, forward_to: Some(forward_to), tunnels };
        bridge.handle_line(end, connection, session.line(&key).trim_end()).unwrap()
    }

    #[test]
    fn a_session_is_opened_found_and_closed() {
        let mut bridge = Bridge::default();
        let hello = bridge.handle_line(0, 1, HELLO.trim_end()).unwrap();
        assert_eq!(read_greeting(hello.trim_end().as_bytes()).as_deref(), Ok("3.3"));
        assert_eq!(read_answer(open(&mut bridge, 0, 1, Style::Raw, 1).as_bytes()), Ok(()));
        assert!(open(&mut bridge, 0, 2, Style::Raw, 1).contains("DUPLICATED_ID"));
        assert!(open(&mut bridge, 1, 2, Style::Raw, 1).contains("DUPLICATED_DEST"));
        let lookup = format!("NAMING LOOKUP NAME={}", destination(1).hash().b32());
        let found = bridge.handle_line(1, 3, &lookup).unwrap();
        assert!(found.contains(&format!("VALUE={}", destination(1).to_base64())), "{found}");
        bridge.handle_end(1);
        assert!(bridge.handle_line(1, 3, &lookup).unwrap().contains("KEY_NOT_FOUND"));
        assert_eq!(bridge.handle_line(0, 1, "PING 12 x").as_deref(), Some("PONG 12 x\n"));
        assert_eq!(bridge.handle_line(0, 1, ""), None);
    }

    #[test]
    fn datagrams_are_forwarded_as_their_style_wants() {
        let mut bridge = Bridge::default();
        for (end, style, seed) in
            [(0, Style::Raw, 1), (1, Style::Raw, 2), (0, Style::Datagram, 3), (1, Style::Datagram, 4)]
        {
            open(&mut bridge, end, u64::from(seed), style, seed);
        }
        let raw = bridge.handle_datagram(0, &datagram::encode("s-1", &destination(2), b"ab\ncd")).unwrap();
        assert_eq!((raw.to, &raw.bytes[..], raw.len, raw.counts), (1, &b"ab\ncd"[..], 5, true));
        let line = |id: &str, seed: u8| format!("3.0 {id} {}", destination(seed).to_base64());
        assert_eq!(bridge.raw_route(0, line("s-1", 2).as_bytes()), Some((1, raw.forward_to)));
        assert_eq!(bridge.raw_route(0, line("s-3", 4).as_bytes()), None, "needs the sender before it");
        assert_eq!(raw.forward_to.port(), 4002);
        let repliable = bridge.handle_datagram(0, &datagram::encode("s-3", &destination(4), b"ab")).unwrap();
        let received = datagram::decode(&repliable.bytes).unwrap();
        assert_eq!((received.from, received.payload), (destination(3), &b"ab"[..]));
        assert!(!repliable.counts && repliable.len > 400);
        // Another style, another end's session, nobody's destination, no header.
        for (end, bytes) in [
            (0, datagram::encode("s-1", &destination(4), b"x")),
            (1, datagram::encode("s-1", &destination(2), b"x")),
            (0, datagram::encode("s-1", &destination(9), b"x")),
            (0, b"x".to_vec()),
        ] {
            assert!(bridge.handle_datagram(end, &bytes).is_none());
        }
    }

    #[test]
    fn requests_that_cannot_be_served_are_refused() {
        let mut bridge = Bridge::default();
        for line in [
            "SESSION CREATE STYLE=STREAM ID=a DESTINATION=TRANSIENT",
            "SESSION CREATE STYLE=RAW ID=a DESTINATION=TRANSIENT HOST=127.0.0.1 PORT=5",
            "SESSION CREATE STYLE=RAW ID=a DESTINATION=AAAA HOST=127.0.0.1 PORT=x",
            "SESSION CREATE",
        ] {
            let answer = bridge.handle_line(0, 1, line).unwrap();
            assert!(read_answer(answer.as_bytes()).is_err(), "{line}: {answer}");
        }
    }
}
