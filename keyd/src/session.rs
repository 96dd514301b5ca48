//! Opens SAM sessions. The request carries a destination's private key, so it is written here, on a connection
//! that `meshd` has made and greeted on.
//!
//! Whoever holds the other end of that connection reads the key. A `meshd` that has been taken over could pass
//! one end of a connection and keep the other; therefore the descriptor must be a TCP connection to the one
//! address at which this node's router listens, as `keyd` itself was told at its start. It could still read the
//! router's answer, which repeats the key, from its own descriptor of the connection: SAM has no other place for it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use i2plan_ipc::api::keyd::{OpenSession, SessionKind};
use i2plan_ipc::{ApiError, ErrorKind};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// Longest answer that is read, bytes. It repeats the private key.
const MAX_ANSWER: usize = 4096;

/// Opens a session on a connection to the bridge at `sam`, and lets go of the connection.
///
/// # Errors
/// If the connection is not to the bridge, the request is out of bounds, or the router refuses.
pub async fn open(
    request: &OpenSession,
    connection: OwnedFd,
    private_key: &Zeroizing<String>,
    sam: SocketAddr,
) -> Result<(), ApiError> {
    check_request(request)?;
    check_connection(&connection, sam)?;
    let io = |error: std::io::Error| {
        ApiError::unavailable(format!("the connection to the SAM bridge failed: {error}"))
    };
    let stream = std::net::TcpStream::from(connection);
    stream.set_nonblocking(true).map_err(io)?;
    let mut stream = TcpStream::from_std(stream).map_err(io)?;
    // The bridge forwards to the address from which this host reaches it.
    let host = stream.local_addr().map_err(io)?.ip().to_string();
    stream.write_all(line(request, &host, private_key).as_bytes()).await.map_err(io)?;
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    // Byte by byte: what follows the line is meshd's to read.
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(_) if answer.len() >= MAX_ANSWER => {
                return Err(ApiError::unavailable("the SAM bridge's answer has no end"));
            }
            Ok(byte) => answer.push(byte),
            // Some routers end the connection instead of the line.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(io(error)),
        }
    }
    read_answer(&answer)
}

fn check_request(request: &OpenSession) -> Result<(), ApiError> {
    let id = &request.id;
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(ApiError::invalid("a session's id has 1 to 64 letters, digits and hyphens"));
    }
    if request.port == 0 || request.tunnel_length > 7 || !(1..=16).contains(&request.tunnel_quantity) {
        return Err(ApiError::invalid(
            "the session's port, tunnel length (0 to 7) or quantity (1 to 16) is out of bounds",
        ));
    }
    Ok(())
}

fn check_connection(connection: &OwnedFd, sam: SocketAddr) -> Result<(), ApiError> {
    let denied = |found: String| {
        ApiError::denied(format!(
            "keyd opens sessions on connections to the SAM bridge at {sam} only, not on {found}"
        ))
        .with_hint("meshd and keyd must be given the same SAM address")
    };
    let stream = socket_type(connection).is_ok_and(|kind| kind == SocketType::STREAM);
    let internet = socket_domain(connection)
        .is_ok_and(|domain| domain == AddressFamily::INET || domain == AddressFamily::INET6);
    if !stream || !internet {
        return Err(denied("something else than a TCP connection".to_owned()));
    }
    let peer = getpeername(connection).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
    match peer {
        Some(peer) if peer == sam => Ok(()),
        Some(peer) => Err(denied(format!("one to {peer}"))),
        None => Err(denied("one that is not connected".to_owned())),
    }
}

/// The `SESSION CREATE` line.
fn line(request: &OpenSession, host: &str, private_key: &Zeroizing<String>) -> Zeroizing<String> {
    let OpenSession { kind, id, port, tunnel_length, tunnel_quantity } = request;
    let style = match kind {
        SessionKind::Control | SessionKind::Substitute => "DATAGRAM",
        SessionKind::Data => "RAW",
    };
    let options = format!(
        "PORT={port} HOST={host} inbound.length={tunnel_length} outbound.length={tunnel_length} \
         inbound.quantity={tunnel_quantity} outbound.quantity={tunnel_quantity} i2cp.leaseSetEncType=4"
    );
    let parts =
        ["SESSION CREATE STYLE=", style, " ID=", id, " DESTINATION=", private_key, " ", &options, "\n"];
    let mut line = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| line.push_str(part));
    line
}

/// What the router said, without repeating any of it that could be a key.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if it is anything but that the session is open.
pub fn read_answer(answer: &[u8]) -> Result<(), ApiError> {
    let text = String::from_utf8_lossy(answer);
    let text = Zeroizing::new(text.into_owned());
    if text.trim().is_empty() {
        return Err(ApiError::unavailable("the router closed the connection instead of opening a session"));
    }
    let Some(rest) = text.strip_prefix("SESSION STATUS ") else {
        return Err(ApiError::unavailable("the router answered something else than SESSION STATUS"));
    };
    let result = rest.split_whitespace().find_map(|word| word.strip_prefix("RESULT=")).unwrap_or_default();
    let hint = match result {
        "OK" => return Ok(()),
        "DUPLICATED_DEST" | "DUPLICATE_DEST" => "the router has not let go of the session before yet",
        "DUPLICATED_ID" | "DUPLICATE_ID" => "the router has not let go of the session's id yet",
        "INVALID_KEY" => "the router does not take keys of this kind; see that it is up to date",
        "I2P_ERROR" => "see the router's log",
        _ => {
            return Err(ApiError::unavailable(
                "the router refused to open a session, for a reason unknown to SAM",
            ));
        }
    };
    Err(ApiError::new(ErrorKind::Unavailable, format!("the router refused to open a session: {result}"))
        .with_hint(hint))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use proptest::prelude::*;
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    fn request() -> OpenSession {
        OpenSession {
            kind: SessionKind::Data,
            id: "s-1".to_owned(),
            port: 4000,
            tunnel_length: 1,
            tunnel_quantity: 3,
        }
    }

    fn key() -> Zeroizing<String> {
        Zeroizing::new("THEKEY".to_owned())
    }

    /// Opens a session at a listener that answers with this.
    async fn open_with(answer: &'static [u8]) -> (Result<(), ApiError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sam = listener.local_addr().unwrap();
        let bridge = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut line = String::new();
            BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
            stream.write_all(answer).await.unwrap();
            line
        });
        let connection = TcpStream::connect(sam).await.unwrap();
        let passed = connection.as_fd().try_clone_to_owned().unwrap();
        let result = open(&request(), passed, &key(), sam).await;
        (result, bridge.await.unwrap())
    }

    #[tokio::test]
    async fn the_line_is_as_specified() {
        let (result, line) = open_with(b"SESSION STATUS RESULT=OK DESTINATION=THEKEY\n").await;
        assert_eq!(result, Ok(()));
        assert_eq!(
            line,
            "SESSION CREATE STYLE=RAW ID=s-1 DESTINATION=THEKEY PORT=4000 HOST=127.0.0.1 inbound.length=1 \
             outbound.length=1 inbound.quantity=3 outbound.quantity=3 i2cp.leaseSetEncType=4\n"
        );
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_left_for_meshd() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sam = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SESSION STATUS RESULT=OK DESTINATION=x\nPING 1\n").await.unwrap();
        });
        let mut connection = TcpStream::connect(sam).await.unwrap();
        let passed = connection.as_fd().try_clone_to_owned().unwrap();
        open(&request(), passed, &key(), sam).await.unwrap();
        let mut rest = [0; 7];
        connection.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"PING 1\n");
    }

    #[tokio::test]
    async fn refusals_are_told_and_never_the_key() {
        for (answer, expected) in [
            (&b"SESSION STATUS RESULT=DUPLICATED_DEST\n"[..], "DUPLICATED_DEST"),
            // As emissary ends it: without a line's end.
            (b"SESSION STATUS RESULT=DUPLICATE_DEST", "DUPLICATE_DEST"),
            (b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"THEKEY\"\n", "I2P_ERROR"),
            (b"SESSION STATUS RESULT=THEKEY\n", "unknown to SAM"),
            (b"THEKEY\n", "something else"),
            (b"", "closed the connection"),
        ] {
            let (result, _) = open_with(answer).await;
            let error = result.unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert!(!format!("{error:?}").contains("THEKEY"));
        }
    }

    #[tokio::test]
    async fn the_key_goes_to_the_bridge_alone() {
        // A listener of an intruder, at another port than the bridge's.
        let intruder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bridge = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = TcpStream::connect(intruder.local_addr().unwrap()).await.unwrap();
        let passed = connection.as_fd().try_clone_to_owned().unwrap();
        let error = open(&request(), passed, &key(), bridge.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        drop(connection);
        let (mut stream, _) = intruder.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert!(got.is_empty());

        // One end of a pair of sockets, the other of which the intruder holds.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = open(&request(), theirs.into(), &key(), bridge.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0; 10]).unwrap(), 0);
    }

    #[tokio::test]
    async fn nothing_can_be_slipped_into_the_line() {
        for id in ["", "a b", "a\nQUIT", &"x".repeat(65)] {
            let request = OpenSession { id: id.to_owned(), ..request() };
            assert_eq!(check_request(&request).unwrap_err().kind, ErrorKind::Invalid);
        }
        assert!(check_request(&OpenSession { tunnel_length: 8, ..request() }).is_err());
        assert!(check_request(&OpenSession { tunnel_quantity: 0, ..request() }).is_err());
        assert!(check_request(&OpenSession { port: 0, ..request() }).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_answers_are_no_panic(answer in prop::collection::vec(any::<u8>(), 0..200), text in "SESSION STATUS .*") {
            let _ = read_answer(&answer);
            let _ = read_answer(text.as_bytes());
        }
    }
}
