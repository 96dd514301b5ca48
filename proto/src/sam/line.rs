//! The lines of a SAM control connection.

use std::collections::BTreeMap;

use thiserror::Error;

/// Longest line that is read, bytes. A naming reply carries a destination of 524 characters or a little more.
pub const MAX_LINE: usize = 4096;

/// What a bridge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `NAMING REPLY`: a name and its destination in base64, or why there is none.
    Naming {
        /// The name that was asked for.
        name: String,
        /// Its destination.
        destination: Result<String, String>,
    },
    /// `SESSION STATUS` after the session was opened: it is over.
    SessionStatus(String),
    /// `PING` with what a `PONG` must repeat.
    Ping(String),
    /// `DATAGRAM RECEIVED`: a payload of `len` bytes follows.
    Datagram {
        /// The sender's destination in base64.
        from: String,
        /// Length of the payload, bytes.
        len: usize,
    },
    /// Anything else.
    Other,
}

/// A line that no bridge should send.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the SAM bridge sent a line that is not SAM: {0}")]
pub struct LineError(&'static str);

/// `NAMING LOOKUP`.
#[must_use]
pub fn lookup(name: &str) -> String {
    debug_assert!(!name.contains([' ', '\n']), "names are b32 names");
    format!("NAMING LOOKUP NAME={name}\n")
}

/// `PONG`, repeating what the `PING` said.
#[must_use]
pub fn pong(text: &str) -> String {
    format!("PONG{text}\n")
}

impl Line {
    /// Reads one line, without its end.
    ///
    /// # Errors
    /// [`LineError`] if it is not UTF-8 or its values are not well-formed.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let line =
            std::str::from_utf8(line).map_err(|_| LineError("it is not UTF-8"))?.trim_end_matches('\r');
        if let Some(text) = line.strip_prefix("PING")
            && (text.is_empty() || text.starts_with(' '))
        {
            return Ok(Self::Ping(text.to_owned()));
        }
        let (topic, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut values = match (topic, kind) {
            ("NAMING", "REPLY") | ("SESSION", "STATUS") | ("DATAGRAM", "RECEIVED") => pairs(rest)?,
            _ => return Ok(Self::Other),
        };
        if topic == "DATAGRAM" {
            let from = values.remove("DESTINATION").ok_or(LineError("DESTINATION is missing"))?;
            let len = values.remove("SIZE").and_then(|size| size.parse().ok());
            return Ok(Self::Datagram { from, len: len.ok_or(LineError("SIZE is no number"))? });
        }
        let result = values.remove("RESULT").ok_or(LineError("RESULT is missing"))?;
        let failure = match values.remove("MESSAGE") {
            Some(message) => format!("{result}: {message}"),
            None => result.clone(),
        };
        Ok(match topic {
            "NAMING" => {
                let name = values.remove("NAME").ok_or(LineError("NAME is missing"))?;
                let destination = match values.remove("VALUE") {
                    Some(value) if result == "OK" => Ok(value),
                    _ => Err(failure),
                };
                Self::Naming { name, destination }
            }
            _ => Self::SessionStatus(failure),
        })
    }
}

/// `KEY=VALUE KEY="quoted value" KEY`, separated by spaces.
fn pairs(mut text: &str) -> Result<BTreeMap<String, String>, LineError> {
    let mut pairs = BTreeMap::new();
    loop {
        text = text.trim_start_matches(' ');
        if text.is_empty() {
            return Ok(pairs);
        }
        let end = text.find([' ', '=']).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        let (value, rest) = match rest.strip_prefix('=') {
            None => (String::new(), rest),
            Some(rest) => match rest.strip_prefix('"') {
                Some(rest) => quoted(rest)?,
                None => {
                    let (value, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
                    (value.to_owned(), rest)
                }
            },
        };
        pairs.insert(key.to_owned(), value);
        text = rest;
    }
}

/// A value after its opening quote, up to the closing one; a backslash keeps the next character as it is.
fn quoted(text: &str) -> Result<(String, &str), LineError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(char),
        }
    }
    Err(LineError("a quote is not closed"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_of_routers_are_understood() {
        let parse = |line: &str| Line::parse(line.as_bytes()).unwrap();
        assert_eq!(
            parse("NAMING REPLY RESULT=OK NAME=x.b32.i2p VALUE=AAAA~-==\r"),
            Line::Naming { name: "x.b32.i2p".to_owned(), destination: Ok("AAAA~-==".to_owned()) }
        );
        assert_eq!(
            parse("NAMING REPLY RESULT=KEY_NOT_FOUND NAME=x MESSAGE=\"not \\\"there\\\"\""),
            Line::Naming {
                name: "x".to_owned(),
                destination: Err("KEY_NOT_FOUND: not \"there\"".to_owned())
            }
        );
        assert_eq!(
            parse("SESSION STATUS RESULT=I2P_ERROR MESSAGE=gone"),
            Line::SessionStatus("I2P_ERROR: gone".to_owned())
        );
        assert_eq!(parse("PING"), Line::Ping(String::new()));
        assert_eq!(parse("PING 12 x"), Line::Ping(" 12 x".to_owned()));
        assert_eq!(pong(" 12 x"), "PONG 12 x\n");
        assert_eq!(
            parse("DATAGRAM RECEIVED DESTINATION=AAAA SIZE=70 FROM_PORT=0 TO_PORT=0"),
            Line::Datagram { from: "AAAA".to_owned(), len: 70 }
        );
        assert_eq!(parse("STREAM STATUS RESULT=OK"), Line::Other);
    }

    #[test]
    fn broken_lines_are_errors() {
        for line in [
            "NAMING REPLY",
            "NAMING REPLY RESULT=OK VALUE=x",
            "NAMING REPLY RESULT=\"OK",
            "SESSION STATUS x",
            "DATAGRAM RECEIVED SIZE=1",
            "DATAGRAM RECEIVED DESTINATION=x SIZE=-1",
        ] {
            assert!(Line::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Line::parse(&[0xff, 0xfe]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(NAMING REPLY|SESSION STATUS|DATAGRAM RECEIVED) .*") {
            let _ = Line::parse(&bytes);
            let _ = Line::parse(text.as_bytes());
        }

        #[test]
        fn quoted_values_read_back(value in "[^\\r\\n]*") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("NAMING REPLY RESULT=OK NAME=\"{escaped}\" VALUE=v");
            prop_assert_eq!(
                Line::parse(line.as_bytes()),
                Ok(Line::Naming { name: value, destination: Ok("v".to_owned()) })
            );
        }
    }
}
