//! How a session is opened: the greeting, the request, and the bridge's answers.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroizing;

/// What a bridge is greeted with that wants no user and password.
pub const HELLO: &str = "HELLO VERSION MIN=3.0 MAX=3.3\n";

/// Longest user or password, bytes.
const MAX_LOGIN: usize = 256;

/// What a bridge that wants a user and a password is greeted with.
///
/// # Errors
/// [`LoginError`] if one of them cannot be said.
pub fn hello_with_login(user: &str, password: &str) -> Result<Zeroizing<String>, LoginError> {
    // Its full length from the start, as in `NewSession::line`; at most every character is escaped.
    let mut line = Zeroizing::new(String::with_capacity(2 * (user.len() + password.len()) + 64));
    line.push_str(HELLO.trim_end());
    for (key, value, what) in [(" USER=", user, "user"), (" PASSWORD=", password, "password")] {
        if !(1..=MAX_LOGIN).contains(&value.len()) || value.chars().any(char::is_control) {
            return Err(LoginError(what));
        }
        line.push_str(key);
        // Older routers know no quotes.
        let plain = value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='));
        if plain {
            line.push_str(value);
            continue;
        }
        line.push('"');
        for char in value.chars() {
            if matches!(char, '"' | '\\') {
                line.push('\\');
            }
            line.push(char);
        }
        line.push('"');
    }
    line.push('\n');
    Ok(line)
}

/// A user or a password that cannot be said in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the {0} of the SAM bridge must have 1 to {MAX_LOGIN} bytes and no control characters")]
pub struct LoginError(&'static str);

/// An answer to [`HELLO`] other than that the bridge agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GreetingError {
    /// The bridge wants a user and a password, and was told none.
    #[error("it wants a user and a password")]
    LoginRequired,
    /// The bridge does not know the user, or the password is another.
    #[error("it does not accept the user or the password")]
    LoginRefused,
    /// The bridge does not take the greeting.
    #[error("it refuses SAM 3.0 to 3.3: {0}")]
    Refused(&'static str),
    /// It is not SAM.
    #[error("what answers there is no SAM bridge")]
    NotSam,
}

/// Returns the version that a bridge has agreed to, from the line (without its end) that answers [`HELLO`].
///
/// # Errors
/// [`GreetingError`].
pub fn read_greeting(line: &[u8]) -> Result<String, GreetingError> {
    let text = std::str::from_utf8(line).map_err(|_| GreetingError::NotSam)?;
    let words = text.trim_end().strip_prefix("HELLO REPLY ").ok_or(GreetingError::NotSam)?;
    let value = |key: &str| words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    // It is printed: nothing but a version gets through.
    let version = value("VERSION").unwrap_or("3.0");
    let sane = version.len() <= 8 && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match value("RESULT") {
        Some("OK") if sane => Ok(version.to_owned()),
        Some("NOVERSION") => Err(GreetingError::Refused("NOVERSION")),
        // Java I2P says so in words alone.
        Some("I2P_ERROR") if words.contains("Authorization") => Err(GreetingError::LoginRefused),
        Some("I2P_ERROR") if words.contains("USER and PASSWORD") => Err(GreetingError::LoginRequired),
        Some("I2P_ERROR") => Err(GreetingError::Refused("I2P_ERROR")),
        _ => Err(GreetingError::NotSam),
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Datagrams without a sender.
    Raw,
    /// Repliable datagrams: signed, with the sender's destination.
    Datagram,
}

/// A text names no style.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a style is `repliable` or `raw`")]
pub struct NoStyle;

impl FromStr for Style {
    type Err = NoStyle;

    fn from_str(text: &str) -> Result<Self, NoStyle> {
        [Self::Raw, Self::Datagram].into_iter().find(|style| style.to_string() == text).ok_or(NoStyle)
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Datagram => "repliable",
        })
    }
}

/// How many session tags of each peer a router is to know in advance (I2CP: `crypto.ratchet.inboundTags`), of a session for
/// tunnel traffic. i2pd knows 24 to 320 otherwise: a host that sleeps while peers send more than that cannot read what comes
/// after it, and the peers' routers go on so.
const INBOUND_TAGS: u32 = 1024;

/// A session to be opened.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    /// What it is for.
    pub style: Style,
    /// Its id: no spaces and no line ends.
    pub id: &'a str,
    /// Where the bridge is to forward datagrams to; if none, they come on the connection, where the router has that.
    pub forward_to: Option<SocketAddr>,
    /// Its tunnels, the same in each direction.
    pub tunnels: Tunnels,
}

/// The tunnels of a session in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnels {
    /// Hops of each.
    pub length: u8,
    /// How many hops more the router adds at random: 0 to as many; if negative, as many more or fewer.
    pub length_variance: i8,
    /// Tunnels in use.
    pub quantity: u8,
    /// Tunnels in reserve.
    pub backup_quantity: u8,
}

impl NewSession<'_> {
    /// Returns the `SESSION CREATE` line for the destination with this private key, as SAM writes it.
    #[must_use]
    pub fn line(&self, private_key: &str) -> Zeroizing<String> {
        let Self { style, id, forward_to, tunnels } = self;
        let Tunnels { length, length_variance, quantity, backup_quantity } = tunnels;
        let forward = forward_to.map(|to| format!("PORT={} HOST={} ", to.port(), to.ip()));
        let forward = forward.unwrap_or_default();
        let (style, tags) = match style {
            Style::Raw => ("RAW", format!(" crypto.ratchet.inboundTags={INBOUND_TAGS}")),
            // Control messages are few, and of many members: tags take memory.
            Style::Datagram => ("DATAGRAM", String::new()),
        };
        let mut options = format!(
            "{forward}inbound.length={length} outbound.length={length} inbound.quantity={quantity} \
             outbound.quantity={quantity} i2cp.leaseSetEncType=4{tags}"
        );
        // These are 0 for every router if they are not said.
        if *length_variance != 0 {
            options += &format!(
                " inbound.lengthVariance={length_variance} outbound.lengthVariance={length_variance}"
            );
        }
        if *backup_quantity != 0 {
            options += &format!(
                " inbound.backupQuantity={backup_quantity} outbound.backupQuantity={backup_quantity}"
            );
        }
        let parts =
            ["SESSION CREATE STYLE=", style, " ID=", id, " DESTINATION=", private_key, " ", &options, "\n"];
        // Its full length from the start: what a string leaves behind when it grows would not be wiped.
        let mut line = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| line.push_str(part));
        line
    }
}

/// Why a session is not open. It repeats nothing of the answer that could be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// There was no answer.
    #[error("the router closed the connection instead of opening a session")]
    Closed,
    /// It is no answer to the request.
    #[error("unexpected reply from the router: not SESSION STATUS")]
    NotStatus,
    /// The router refuses, for a reason that SAM knows.
    #[error("the router refused to open a session: {0}")]
    Refused(&'static str),
    /// The router refuses.
    #[error("the router refused to open a session, for a reason unknown to SAM")]
    Unknown,
}

/// The reasons that SAM knows; emissary spells two of them as no other router does.
const REASONS: [&str; 6] =
    ["DUPLICATED_DEST", "DUPLICATE_DEST", "DUPLICATED_ID", "DUPLICATE_ID", "INVALID_KEY", "I2P_ERROR"];

/// Reads the answer to `SESSION CREATE`, which repeats the private key.
///
/// # Errors
/// [`SessionError`] if it is anything but that the session is open.
pub fn read_answer(answer: &[u8]) -> Result<(), SessionError> {
    let text = Zeroizing::new(String::from_utf8_lossy(answer).into_owned());
    if text.trim().is_empty() {
        return Err(SessionError::Closed);
    }
    let rest = text.strip_prefix("SESSION STATUS ").ok_or(SessionError::NotStatus)?;
    let result = rest.split_whitespace().find_map(|word| word.strip_prefix("RESULT=")).unwrap_or_default();
    if result == "OK" {
        return Ok(());
    }
    let reason = REASONS.into_iter().find(|reason| *reason == result);
    Err(reason.map_or(SessionError::Unknown, SessionError::Refused))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greetings_are_understood() {
        for (line, expected) in [
            ("HELLO REPLY RESULT=OK VERSION=3.2", Ok("3.2".to_owned())),
            ("HELLO REPLY RESULT=OK VERSION=3.3\r", Ok("3.3".to_owned())),
            ("HELLO REPLY RESULT=OK", Ok("3.0".to_owned())),
            ("HELLO REPLY RESULT=NOVERSION", Err(GreetingError::Refused("NOVERSION"))),
            ("HELLO REPLY RESULT=I2P_ERROR MESSAGE=no", Err(GreetingError::Refused("I2P_ERROR"))),
            (
                "HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"USER and PASSWORD required\"",
                Err(GreetingError::LoginRequired),
            ),
            (
                "HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"Authorization failed\"",
                Err(GreetingError::LoginRefused),
            ),
            ("HELLO REPLY RESULT=OK VERSION=\x1b]0;x", Err(GreetingError::NotSam)),
            ("HELLO REPLY", Err(GreetingError::NotSam)),
            ("220 mail.example ESMTP", Err(GreetingError::NotSam)),
            ("", Err(GreetingError::NotSam)),
        ] {
            assert_eq!(read_greeting(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(read_greeting(&[0xff, 0xfe]), Err(GreetingError::NotSam));
    }

    #[test]
    fn users_and_passwords_are_said_in_one_line() {
        let said = |user: &str, password: &str| hello_with_login(user, password).map(|line| line.to_string());
        let start = "HELLO VERSION MIN=3.0 MAX=3.3";
        assert_eq!(said("i2plan", "s3cret!"), Ok(format!("{start} USER=i2plan PASSWORD=s3cret!\n")));
        assert_eq!(said("a b", "q\"\\=ä"), Ok(format!("{start} USER=\"a b\" PASSWORD=\"q\\\"\\\\=ä\"\n")));
        for bad in ["", "a\nQUIT", "\r", "\0", &"x".repeat(MAX_LOGIN + 1)] {
            assert!(said(bad, "x").unwrap_err().to_string().contains("user"), "{bad:?}");
            let error = said("x", bad).unwrap_err().to_string();
            assert!(error.contains("password") && !error.contains("QUIT"), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lines_are_no_panic(
            line in prop::collection::vec(any::<u8>(), 0..200),
            text in "(SESSION STATUS|HELLO REPLY) .*",
        ) {
            for line in [&line[..], text.as_bytes()] {
                let _ = (read_answer(line), read_greeting(line));
            }
        }
    }
}
