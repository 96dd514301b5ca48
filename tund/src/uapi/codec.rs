//! What is asked by WireGuard's configuration protocol, and what is answered, without I/O.
//!
//! Source: "Cross-platform Userspace Implementation", <https://www.wireguard.com/xplatform/>, "Configuration
//! Protocol". A request is `get=1` or `set=1`, lines of `key=value`, and an empty line; so is an answer, whose last
//! key is `errno`.

use std::fmt::Write as _;
use std::mem::take;
use std::time::Duration;

use i2plan_ipc::secret::SecretKey;
use i2plan_proto::endpoint::{Endpoint, EndpointError};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::host::prefix::Prefix;

/// Longest line of a request, bytes. The longest that there is has a destination of 1024 bytes in base64.
pub const MAX_LINE: usize = 1536;

/// Longest request, bytes: a thousand peers with some allowed IPs each.
pub const MAX_REQUEST: usize = 256 * 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `get=1`: say what the interface and its peers are.
    Get,
    /// `set=1`: change something.
    Set(Change),
}

/// What is to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The private key of the interface. None if it stays as it is: also for zeros, by which `wg setconf` and `wg
    /// syncconf` say that their file has none.
    pub private_key: Option<SecretKey>,
    /// Have no other peers.
    pub replace_peers: bool,
    /// Change these peers, in this order.
    pub peers: Vec<PeerChange>,
}

/// What is to be changed of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    /// The peer's public key.
    pub public_key: [u8; 32],
    /// Remove the peer.
    pub remove: bool,
    /// Change nothing if there is no such peer.
    pub update_only: bool,
    /// The preshared key; zeros for none. None if it stays as it is.
    pub preshared_key: Option<SecretKey>,
    /// Where it takes packets, in I2P, which `wg` cannot express and i2plan's own commands can. None if it stays as it is.
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives, 0 for none. None if it stays as it is.
    pub keepalive: Option<u16>,
    /// Remove the peer's allowed IPs before those below are added.
    pub replace_allowed_ips: bool,
    /// Allowed IPs to add, as networks.
    pub allowed_ips: Vec<Prefix>,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// It does not begin with an operation.
    #[error("neither get=1 nor set=1")]
    Operation,
    /// A line is no `key=value`, or longer than any that has a meaning.
    #[error("a line that is no key=value, or too long")]
    Line,
    /// A key that the protocol does not have at this place.
    #[error("a key that is unknown at this place")]
    Key,
    /// A value is not what its key can have.
    #[error("{0}: a value that it cannot have")]
    Value(&'static str),
    /// A key of the protocol that an interface of i2plan does not have.
    #[error("{0} cannot be set")]
    Unsupported(&'static str),
    /// It is longer than [`MAX_REQUEST`]. What follows is no request.
    #[error("longer than {MAX_REQUEST} bytes")]
    TooLong,
}

/// A request that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct BadRequest {
    /// What is wrong with it.
    pub error: RequestError,
    /// It begins with `set=1`.
    pub is_set: bool,
}

impl BadRequest {
    /// The error number of the answer.
    #[must_use]
    pub fn errno(self) -> i32 {
        let errno = match self.error {
            RequestError::Unsupported(_) => libc::EOPNOTSUPP,
            RequestError::TooLong => libc::E2BIG,
            RequestError::Operation | RequestError::Line | RequestError::Key | RequestError::Value(_) => {
                libc::EINVAL
            }
        };
        if self.is_set { set_errno(errno) } else { errno }
    }
}

/// The error number of an answer to `set=1`: `wg` takes it with the sign of wireguard-go's answers, and that of an
/// answer to `get=1` without.
#[must_use]
pub fn set_errno(errno: i32) -> i32 {
    -errno
}

/// Reads requests from a connection. It holds one line and what it has understood of one request.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come of a line. It may hold a key.
    line: Zeroizing<Vec<u8>>,
    /// Bytes of this request.
    len: usize,
    request: Option<Request>,
    /// What was wrong first. What follows in the request is skipped.
    error: Option<RequestError>,
}

impl Decoder {
    /// Takes bytes off the front of `input`, to the end of a request at most, and returns the request that ends there.
    ///
    /// # Errors
    /// [`BadRequest`], at the end of the request that is wrong. After [`RequestError::TooLong`] the connection is of no
    /// use any more.
    pub fn handle_bytes(&mut self, input: &mut &[u8]) -> Option<Result<Request, BadRequest>> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            self.len += 1;
            if self.len > MAX_REQUEST {
                let Self { request, .. } = take(self);
                return Some(Err(bad(RequestError::TooLong, request.as_ref())));
            }
            match byte {
                b'\n' if self.line.is_empty() => {
                    let Self { request, error, .. } = take(self);
                    return Some(match error {
                        Some(error) => Err(bad(error, request.as_ref())),
                        None => request.ok_or(bad(RequestError::Operation, None)),
                    });
                }
                b'\n' => {
                    let line = take(&mut self.line);
                    if self.error.is_none() {
                        self.error = self.handle_line(&line).err();
                    }
                }
                _ if self.line.len() < MAX_LINE => {
                    if self.line.is_empty() {
                        // All at once: a vector that grows leaves its bytes where it was.
                        self.line.reserve_exact(MAX_LINE);
                    }
                    self.line.push(*byte);
                }
                _ => {
                    self.error.get_or_insert(RequestError::Line);
                }
            }
        }
        None
    }

    fn handle_line(&mut self, line: &[u8]) -> Result<(), RequestError> {
        let line = std::str::from_utf8(line).map_err(|_| RequestError::Line)?;
        let (key, value) = line.split_once('=').ok_or(RequestError::Line)?;
        match &mut self.request {
            None => {
                self.request = Some(match (key, value) {
                    ("get", "1") => Request::Get,
                    ("set", "1") => Request::Set(Change::default()),
                    _ => return Err(RequestError::Operation),
                });
                Ok(())
            }
            Some(Request::Get) => Err(RequestError::Key),
            Some(Request::Set(wanted)) => change(wanted, key, value),
        }
    }
}

fn bad(error: RequestError, request: Option<&Request>) -> BadRequest {
    BadRequest { error, is_set: matches!(request, Some(Request::Set(_))) }
}

/// Takes one line of `set=1`.
fn change(wanted: &mut Change, key: &str, value: &str) -> Result<(), RequestError> {
    if key == "public_key" {
        let public_key = key_of(value).ok_or(RequestError::Value("public_key"))?;
        wanted.peers.push(PeerChange {
            public_key: public_key.0,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        });
        return Ok(());
    }
    let flag = |key| if value == "true" { Ok(true) } else { Err(RequestError::Value(key)) };
    let Some(peer) = wanted.peers.last_mut() else {
        match key {
            "private_key" => {
                let private_key = key_of(value).ok_or(RequestError::Value("private_key"))?;
                wanted.private_key = Some(private_key).filter(|key| key.0 != [0; 32]);
            }
            // There is no port, whatever is wanted.
            "listen_port" => drop(number::<u16>(value).ok_or(RequestError::Value("listen_port"))?),
            "fwmark" if number::<u32>(value) == Some(0) => {}
            "fwmark" => return Err(RequestError::Unsupported("fwmark")),
            "replace_peers" => wanted.replace_peers = flag("replace_peers")?,
            _ => return Err(RequestError::Key),
        }
        return Ok(());
    };
    match key {
        "remove" => peer.remove = flag("remove")?,
        "update_only" => peer.update_only = flag("update_only")?,
        "replace_allowed_ips" => {
            peer.replace_allowed_ips = flag("replace_allowed_ips")?;
            // Those before it in the request, too.
            peer.allowed_ips.clear();
        }
        "preshared_key" => {
            peer.preshared_key = Some(key_of(value).ok_or(RequestError::Value("preshared_key"))?);
        }
        "persistent_keepalive_interval" => {
            peer.keepalive = Some(number(value).ok_or(RequestError::Value("persistent_keepalive_interval"))?);
        }
        "allowed_ip" => {
            // `wg` always writes the length.
            let prefix: Option<Prefix> = value.parse().ok().filter(|_| value.contains('/'));
            peer.allowed_ips.push(prefix.ok_or(RequestError::Value("allowed_ip"))?.network());
        }
        "protocol_version" if value == "1" => {}
        "protocol_version" => return Err(RequestError::Value("protocol_version")),
        "endpoint" => match value.parse() {
            Ok(endpoint) => peer.endpoint = Some(endpoint),
            // An IP address with a port, which no peer has.
            Err(EndpointError::Clearnet) => return Err(RequestError::Unsupported("endpoint")),
            Err(_) => return Err(RequestError::Value("endpoint")),
        },
        _ => return Err(RequestError::Key),
    }
    Ok(())
}

/// A key of 64 hexadecimal digits.
fn key_of(value: &str) -> Option<SecretKey> {
    let digits = value.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut key = SecretKey([0; 32]);
    for (byte, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(key)
}

/// A number of decimal digits alone.
fn number<T: std::str::FromStr>(value: &str) -> Option<T> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits)
}

/// What is told of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its public key.
    pub public_key: [u8; 32],
    /// The addresses that it may use.
    pub allowed_ips: Vec<Prefix>,
    /// Seconds between keepalives, 0 for none.
    pub keepalive: u16,
    /// How long ago the last handshake was completed, if there was one.
    pub last_handshake: Option<Duration>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// Writes what is told of an interface, before its peers. Its private key is not told; `wg` would derive the public one
/// from it.
pub fn write_interface(out: &mut String) {
    out.push_str("listen_port=0\n");
}

/// Writes what is told of a peer at this time since 1970. It has no endpoint that the protocol can express.
pub fn write_peer(out: &mut String, peer: &PeerStatus, now: Duration) {
    let PeerStatus { public_key, allowed_ips, keepalive, last_handshake, rx_bytes, tx_bytes } = peer;
    out.push_str("public_key=");
    for byte in public_key {
        line(out, format_args!("{byte:02x}"));
    }
    let handshake = last_handshake.map_or(Duration::ZERO, |ago| now.saturating_sub(ago));
    line(out, format_args!("\nprotocol_version=1\nlast_handshake_time_sec={}\n", handshake.as_secs()));
    line(out, format_args!("last_handshake_time_nsec={}\n", handshake.subsec_nanos()));
    line(out, format_args!("tx_bytes={tx_bytes}\nrx_bytes={rx_bytes}\n"));
    line(out, format_args!("persistent_keepalive_interval={keepalive}\n"));
    for prefix in allowed_ips {
        line(out, format_args!("allowed_ip={}/{}\n", prefix.address(), prefix.length()));
    }
}

/// Writes the end of an answer: the number of an error, 0 for none.
pub fn write_end(out: &mut String, errno: i32) {
    line(out, format_args!("errno={errno}\n\n"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    /// What comes of one request.
    fn read(text: &str) -> Result<Request, RequestError> {
        let mut input = text.as_bytes();
        let result = Decoder::default().handle_bytes(&mut input).expect("the request has an end");
        assert!(input.is_empty(), "{:?} is left", String::from_utf8_lossy(input));
        result.map_err(|bad| {
            let sign = if text.starts_with("set=1") { -1 } else { 1 };
            assert_eq!(bad.errno().signum(), sign, "{text:?}");
            bad.error
        })
    }

    fn change_of(lines: &str) -> Result<Change, RequestError> {
        match read(&format!("set=1\n{lines}\n"))? {
            Request::Set(change) => Ok(change),
            Request::Get => panic!("set=1 was asked"),
        }
    }

    fn set(lines: &str) -> Result<Vec<PeerChange>, RequestError> {
        change_of(lines).map(|change| change.peers)
    }

    fn peer(text: &str) -> Result<PeerChange, RequestError> {
        set(&format!("public_key={KEY}\n{text}")).map(|mut peers| peers.remove(0))
    }

    #[test]
    fn what_wg_set_sends_is_understood() {
        let psk = "0".repeat(64);
        let peers = set(&format!(
            "public_key={KEY}\nupdate_only=true\npreshared_key={psk}\nreplace_allowed_ips=true\n\
             allowed_ip=10.0.0.9/24\nallowed_ip=fd00::1/128\npersistent_keepalive_interval=25\n\
             public_key={psk}\nremove=true\nprotocol_version=1\n"
        ))
        .unwrap();
        assert_eq!(peers.len(), 2);
        let first = &peers[0];
        assert_eq!((first.public_key[0], first.public_key[31]), (0xb8, 0x33));
        assert_eq!((first.update_only, first.remove, first.replace_allowed_ips), (true, false, true));
        assert_eq!((first.preshared_key.clone(), first.keepalive), (Some(SecretKey([0; 32])), Some(25)));
        let networks: Vec<_> = first.allowed_ips.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/24", "fd00::1"]);
        assert_eq!((peers[1].remove, peers[1].keepalive, &peers[1].preshared_key), (true, None, &None));
    }

    #[test]
    fn what_wg_setconf_says_of_the_interface_is_understood() {
        let zero = "0".repeat(64);
        let change = change_of(&format!(
            "private_key={zero}\nlisten_port=51820\nfwmark=0\nreplace_peers=true\npublic_key={KEY}\n"
        ));
        let change = change.unwrap();
        assert_eq!((change.private_key, change.replace_peers, change.peers.len()), (None, true, 1));
        let change = change_of(&format!("private_key={KEY}\n")).unwrap();
        assert!(change.private_key.is_some_and(|key| key.0[0] == 0xb8));
    }

    #[test]
    fn an_endpoint_in_i2p_is_taken() {
        let name = format!("{}.b32.i2p", "a".repeat(52));
        let peer = peer(&format!("endpoint={name}\n")).unwrap();
        assert_eq!(peer.endpoint.map(|endpoint| endpoint.to_string()), Some(name));
    }

    #[test]
    fn replacing_allowed_ips_removes_those_before_it() {
        let peer =
            peer("allowed_ip=10.0.0.1/32\nreplace_allowed_ips=true\nallowed_ip=10.0.0.2/32\n").unwrap();
        assert_eq!(peer.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.2"]);
    }

    #[test]
    fn what_is_wrong_has_its_error_and_number() {
        use RequestError::{Key, Line, Operation, Unsupported, Value};
        for (text, error, errno) in [
            ("\n", Operation, libc::EINVAL),
            ("get=2\n\n", Operation, libc::EINVAL),
            ("put=1\n\n", Operation, libc::EINVAL),
            ("get=1\nset=1\n\n", Key, libc::EINVAL),
            ("get=1\nx\n\n", Line, libc::EINVAL),
            ("set=1\nremove=true\n\n", Key, libc::EINVAL),
            ("set=1\nprivate_key=00\n\n", Value("private_key"), libc::EINVAL),
            ("set=1\nlisten_port=65536\n\n", Value("listen_port"), libc::EINVAL),
            ("set=1\nfwmark=1\n\n", Unsupported("fwmark"), libc::EOPNOTSUPP),
            ("set=1\nreplace_peers=false\n\n", Value("replace_peers"), libc::EINVAL),
            ("set=1\npublic_key=00\n\n", Value("public_key"), libc::EINVAL),
        ] {
            assert_eq!(read(text), Err(error), "{text:?}");
            assert_eq!(BadRequest { error, is_set: false }.errno(), errno);
        }
        for (line, error) in [
            ("remove=false", Value("remove")),
            ("update_only=1", Value("update_only")),
            ("replace_allowed_ips=", Value("replace_allowed_ips")),
            ("preshared_key=zz", Value("preshared_key")),
            ("persistent_keepalive_interval=65536", Value("persistent_keepalive_interval")),
            ("persistent_keepalive_interval=+1", Value("persistent_keepalive_interval")),
            ("persistent_keepalive_interval=off", Value("persistent_keepalive_interval")),
            ("allowed_ip=10.0.0.1", Value("allowed_ip")),
            ("allowed_ip=10.0.0.1/33", Value("allowed_ip")),
            ("allowed_ip=fd00::/129", Value("allowed_ip")),
            ("allowed_ip=10.0.0.1/+8", Value("allowed_ip")),
            ("protocol_version=2", Value("protocol_version")),
            ("endpoint=127.0.0.1:1", Unsupported("endpoint")),
            ("endpoint=[fd00::1]:1", Unsupported("endpoint")),
            ("endpoint=abc.b32.i2p", Value("endpoint")),
            ("listen_port=1", Key),
            ("comment=x", Key),
        ] {
            assert_eq!(peer(&format!("{line}\n")), Err(error), "{line}");
        }
    }

    #[test]
    fn a_wrong_request_is_skipped_to_its_end_and_the_next_is_read() {
        let long = "x".repeat(5000);
        let text = format!("set=1\n{long}\nendpoint=1\n\nget=1\n\n");
        let mut input = text.as_bytes();
        let mut decoder = Decoder::default();
        assert_eq!(
            decoder.handle_bytes(&mut input),
            Some(Err(BadRequest { error: RequestError::Line, is_set: true }))
        );
        assert_eq!(decoder.handle_bytes(&mut input), Some(Ok(Request::Get)));
        assert_eq!(decoder.handle_bytes(&mut input), None);
    }

    #[test]
    fn a_request_without_end_is_given_up() {
        let mut decoder = Decoder::default();
        let junk = vec![b'x'; MAX_REQUEST + 1];
        let mut input = &junk[..MAX_REQUEST];
        assert_eq!(decoder.handle_bytes(&mut input), None);
        assert!(decoder.line.capacity() <= 2 * MAX_LINE);
        let error = RequestError::TooLong;
        let given_up = Some(Err(BadRequest { error, is_set: false }));
        assert_eq!(decoder.handle_bytes(&mut &junk[MAX_REQUEST..]), given_up);
    }

    #[test]
    fn secrets_do_not_print() {
        let peer = peer(&format!("preshared_key={}\n", "7".repeat(64))).unwrap();
        assert!(!format!("{peer:?}").contains("119"), "{peer:?}");
    }

    #[test]
    fn an_answer_is_as_the_protocol_says() {
        let peer = PeerStatus {
            public_key: [0xab; 32],
            allowed_ips: vec![
                Prefix::host([10, 42, 0, 2].into()),
                Prefix::new("fd00::".parse().unwrap(), 64),
            ],
            keepalive: 25,
            last_handshake: Some(Duration::from_millis(1500)),
            rx_bytes: 1,
            tx_bytes: 2,
        };
        let mut out = String::new();
        write_interface(&mut out);
        write_peer(&mut out, &peer, Duration::from_secs(1_000));
        write_end(&mut out, 0);
        let key = "ab".repeat(32);
        let expected = format!(
            "listen_port=0\npublic_key={key}\nprotocol_version=1\nlast_handshake_time_sec=998\n\
             last_handshake_time_nsec=500000000\ntx_bytes=2\nrx_bytes=1\npersistent_keepalive_interval=25\n\
             allowed_ip=10.42.0.2/32\nallowed_ip=fd00::/64\nerrno=0\n\n"
        );
        assert_eq!(out, expected);

        let mut out = String::new();
        write_peer(&mut out, &PeerStatus { last_handshake: None, ..peer }, Duration::from_secs(1_000));
        assert!(out.contains("\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n"), "{out}");
    }

    fn changes() -> impl Strategy<Value = PeerChange> {
        let prefix = (any::<std::net::IpAddr>(), any::<u8>())
            .prop_map(|(address, length)| Prefix::new(address, length).network());
        (
            any::<([u8; 32], bool, bool, bool)>(),
            any::<Option<[u8; 32]>>(),
            any::<Option<u16>>(),
            prop::collection::vec(prefix, 0..4),
        )
            .prop_map(
                |((public_key, remove, update_only, replace_allowed_ips), psk, keepalive, allowed_ips)| {
                    let preshared_key = psk.map(SecretKey);
                    PeerChange {
                        public_key,
                        remove,
                        update_only,
                        preshared_key,
                        endpoint: None,
                        keepalive,
                        replace_allowed_ips,
                        allowed_ips,
                    }
                },
            )
    }

    /// A request as `wg` writes it.
    fn write(peers: &[PeerChange]) -> String {
        let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut text = "set=1\n".to_owned();
        for peer in peers {
            text += &format!("public_key={}\n", hex(&peer.public_key));
            for (key, set) in [
                ("remove", peer.remove),
                ("update_only", peer.update_only),
                ("replace_allowed_ips", peer.replace_allowed_ips),
            ] {
                text += &if set { format!("{key}=true\n") } else { String::new() };
            }
            let psk = peer.preshared_key.as_ref().map(|key| format!("preshared_key={}\n", hex(&key.0)));
            text += &psk.unwrap_or_default();
            let keepalive = peer.keepalive.map(|value| format!("persistent_keepalive_interval={value}\n"));
            text += &keepalive.unwrap_or_default();
            for prefix in &peer.allowed_ips {
                text += &format!("allowed_ip={}/{}\n", prefix.address(), prefix.length());
            }
        }
        text + "\n"
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_whatever_pieces(
            peers in prop::collection::vec(changes(), 0..4),
            pieces in prop::collection::vec(1_usize..200, 1..50),
        ) {
            let text = write(&peers);
            let mut rest = text.as_bytes();
            let mut decoder = Decoder::default();
            let mut pieces = pieces.into_iter().cycle();
            let request = loop {
                let (mut piece, after) = rest.split_at(pieces.next().unwrap_or(1).min(rest.len()));
                rest = after;
                if let Some(result) = decoder.handle_bytes(&mut piece) {
                    prop_assert!(piece.is_empty());
                    break result;
                }
            };
            prop_assert!(rest.is_empty());
            prop_assert_eq!(request, Ok(Request::Set(Change { peers, ..Change::default() })));
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..500),
            lines in "[a-z_=0-9./:\n]{0,300}",
        ) {
            let mut decoder = Decoder::default();
            for mut input in [&bytes[..], b"\n\n", lines.as_bytes()] {
                while !input.is_empty() {
                    let before = input.len();
                    let _ = decoder.handle_bytes(&mut input);
                    prop_assert!(input.len() < before);
                }
            }
        }
    }
}
