//! Opens SAM sessions. The request carries a destination's private key, and so does the router's answer. Both are
//! exchanged here, on a connection that the connector has made and that `meshd` gets only afterwards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use i2plan_ipc::api::keyd::{OpenSession, SessionKind};
use i2plan_ipc::bridge::Unfinished;
use i2plan_ipc::passphrase::Passphrase;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::sam::line::Line;
use i2plan_proto::sam::session::{
    GreetingError, HELLO, NewSession, SessionError, Style, Tunnels, hello_with_login, read_answer,
    read_greeting,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::dialing::Connection;

/// Most hops of a tunnel in each direction.
pub const MAX_TUNNEL_LENGTH: u8 = 7;

/// Most tunnels of a session in each direction, in use or in reserve.
const MAX_TUNNELS: u8 = 16;

/// Most hops that a tunnel is longer or shorter by chance.
const MAX_VARIANCE: u8 = 2;

/// Longest line that is read, bytes. The answer to `SESSION CREATE` repeats the private key.
const MAX_LINE: usize = 4096;

/// How long the bridge may take to greet.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// What a bridge with `sam.auth` wants to be told.
#[derive(Debug)]
pub struct Login {
    user: String,
    password: Passphrase,
}

impl Login {
    /// Checks that both can be said to a bridge.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if not.
    pub fn new(user: String, password: Passphrase) -> Result<Self, ApiError> {
        let login = Self { user, password };
        login.hello().map(|_| login)
    }

    fn hello(&self) -> Result<Zeroizing<String>, ApiError> {
        let password = std::str::from_utf8(self.password.expose())
            .map_err(|_| ApiError::invalid("the password of the SAM bridge is not UTF-8"))?;
        hello_with_login(&self.user, password).map_err(|error| ApiError::invalid(error.to_string()))
    }
}

/// A session that is open.
#[derive(Debug)]
pub struct Opened {
    /// What it goes through.
    pub connection: Connection,
    /// The version of SAM that the bridge speaks.
    pub version: String,
}

/// Opens a session on a connection to the bridge. If this is given up, the router is told so.
///
/// # Errors
/// If the request is out of bounds, the connection breaks, or the router refuses.
pub async fn open(
    request: &OpenSession,
    connection: Connection,
    private_key: &Zeroizing<String>,
    login: Option<&Login>,
) -> Result<Opened, ApiError> {
    let io =
        |error: io::Error| ApiError::unavailable(format!("the connection to the SAM bridge failed: {error}"));
    let Connection { stream, datagrams } = connection;
    let datagrams = std::net::UdpSocket::from(datagrams);
    datagrams.set_nonblocking(true).map_err(io)?;
    // The bridge forwards to where datagrams to it come from.
    let forward_to = (!request.over_tcp).then(|| datagrams.local_addr()).transpose().map_err(io)?;
    let stream = std::net::TcpStream::from(stream);
    stream.set_nonblocking(true).map_err(io)?;
    let mut stream = TcpStream::from_std(stream).map_err(io)?;

    let hello = match login {
        Some(login) => login.hello()?,
        None => Zeroizing::new(HELLO.to_owned()),
    };
    let greeting = async {
        stream.write_all(hello.as_bytes()).await?;
        read_line(&mut stream).await
    };
    let greeting = timeout(GREETING_DEADLINE, greeting).await;
    let greeting = greeting.map_err(|_| ApiError::timeout("the SAM bridge does not greet"))?.map_err(io)?;
    if greeting.is_empty() {
        return Err(ApiError::unavailable("the SAM bridge closed the connection at the handshake"));
    }
    let version = read_greeting(&greeting).map_err(not_greeted)?;

    let line = new_session(request, forward_to).line(private_key);
    stream.write_all(line.as_bytes()).await.map_err(io)?;
    let mut stream = Unfinished::new(stream);
    let answer = skip_datagrams(stream.stream()).await.map_err(io)?;
    read_answer(&answer).map_err(refused)?;
    let stream = OwnedFd::from(stream.finish().into_std().map_err(io)?);
    Ok(Opened { connection: Connection { stream, datagrams: datagrams.into() }, version })
}

/// One line, without its end. Byte by byte: what follows it is `meshd`'s to read.
async fn read_line(stream: &mut TcpStream) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(line),
            Ok(_) if line.len() >= MAX_LINE => return Err(io::Error::other("it sends a line without end")),
            Ok(byte) => line.push(byte),
            // Some routers end the connection instead of the line.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(line),
            Err(error) => return Err(error),
        }
    }
}

/// The first line that announces no datagram, as by [`read_line`]. Others may send to the session before the router says that
/// it is open.
async fn skip_datagrams(stream: &mut TcpStream) -> io::Result<Zeroizing<Vec<u8>>> {
    loop {
        let line = read_line(stream).await?;
        // Any other line may carry the private key, and is not to be copied.
        if !line.starts_with(b"DATAGRAM RECEIVED ") {
            return Ok(line);
        }
        let Ok(Line::Datagram { len, .. }) = Line::parse(&line) else { return Ok(line) };
        for _ in 0..len {
            stream.read_u8().await?;
        }
    }
}

/// Checks what a request says of the session, and gives its tunnels `min_length` hops at least: shorter ones show others
/// where the node is, and who asks is `meshd`.
///
/// # Errors
/// [`ErrorKind::Invalid`] if it is out of bounds.
pub fn checked(request: OpenSession, min_length: u8) -> Result<OpenSession, ApiError> {
    let id = &request.id;
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(ApiError::invalid("a session's id has 1 to 64 letters, digits and hyphens"));
    }
    let in_bounds = request.tunnel_length <= MAX_TUNNEL_LENGTH
        && request.tunnel_length_variance.unsigned_abs() <= MAX_VARIANCE
        && (1..=MAX_TUNNELS).contains(&request.tunnel_quantity)
        && request.tunnel_backup_quantity <= MAX_TUNNELS;
    if !in_bounds {
        return Err(ApiError::invalid(
            "the session's tunnel length (0 to 7), its variance (-2 to 2), or the quantity of tunnels (1 to 16) or of \
             backups (0 to 16) is out of bounds",
        ));
    }
    let tunnel_length = request.tunnel_length.max(min_length);
    // What chance takes away must leave the fewest.
    let spare = i8::try_from(tunnel_length - min_length).unwrap_or(i8::MAX);
    let tunnel_length_variance = request.tunnel_length_variance.max(-spare);
    Ok(OpenSession { tunnel_length, tunnel_length_variance, ..request })
}

fn new_session(request: &OpenSession, forward_to: Option<SocketAddr>) -> NewSession<'_> {
    let style = match request.kind {
        SessionKind::Control | SessionKind::Fallback | SessionKind::StaticRepliable => Style::Datagram,
        SessionKind::Data | SessionKind::StaticRaw => Style::Raw,
    };
    NewSession {
        style,
        id: &request.id,
        forward_to,
        tunnels: Tunnels {
            length: request.tunnel_length,
            length_variance: request.tunnel_length_variance,
            quantity: request.tunnel_quantity,
            backup_quantity: request.tunnel_backup_quantity,
        },
    }
}

fn not_greeted(error: GreetingError) -> ApiError {
    let said = ApiError::unavailable(format!("the SAM bridge did not greet back: {error}"));
    match error {
        GreetingError::LoginRequired => said.with_hint("set i2p.sam_user and i2p.sam_password_file"),
        GreetingError::LoginRefused => {
            said.with_hint("correct i2p.sam_user, or the password in i2p.sam_password_file")
        }
        GreetingError::Refused(_) | GreetingError::NotSam => said,
    }
}

fn refused(error: SessionError) -> ApiError {
    let hint = match error {
        SessionError::Refused("DUPLICATED_DEST" | "DUPLICATE_DEST") => {
            "the router has not let go of the session before yet"
        }
        SessionError::Refused("DUPLICATED_ID" | "DUPLICATE_ID") => {
            "the router has not let go of the session's id yet"
        }
        SessionError::Refused("INVALID_KEY") => {
            "the router does not take keys of this kind; see that it is up to date"
        }
        SessionError::Refused(_) => "see the router's log",
        SessionError::Closed | SessionError::NotStatus | SessionError::Unknown => {
            return ApiError::unavailable(error.to_string());
        }
    };
    let kind = match error {
        // Which can be over in a moment.
        SessionError::Refused("DUPLICATED_DEST" | "DUPLICATE_DEST" | "DUPLICATED_ID" | "DUPLICATE_ID") => {
            ErrorKind::Conflict
        }
        _ => ErrorKind::Unavailable,
    };
    ApiError::new(kind, error.to_string()).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    const GREETING: &[u8] = b"HELLO REPLY RESULT=OK VERSION=3.2\n";

    fn request() -> OpenSession {
        OpenSession {
            kind: SessionKind::Data,
            id: "s-1".to_owned(),
            tunnel_length: 1,
            tunnel_length_variance: 0,
            tunnel_quantity: 3,
            tunnel_backup_quantity: 0,
            over_tcp: false,
        }
    }

    fn key() -> Zeroizing<String> {
        Zeroizing::new("THEKEY".to_owned())
    }

    /// Opens a session at a bridge that answers with these; also what the bridge has read, and the UDP socket's address.
    async fn open_with(
        greeting: &'static [u8],
        answer: &'static [u8],
    ) -> (Result<Opened, ApiError>, Vec<String>, SocketAddr) {
        open_as(None, greeting, answer).await
    }

    /// The same, as a user.
    async fn open_as(
        login: Option<&Login>,
        greeting: &'static [u8],
        answer: &'static [u8],
    ) -> (Result<Opened, ApiError>, Vec<String>, SocketAddr) {
        ask(&request(), login, greeting, answer).await
    }

    /// The same for another session.
    async fn ask(
        request: &OpenSession,
        login: Option<&Login>,
        greeting: &'static [u8],
        answer: &'static [u8],
    ) -> (Result<Opened, ApiError>, Vec<String>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let bridge = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut lines = vec![String::new(), String::new()];
            for (line, answer) in lines.iter_mut().zip([greeting, answer]) {
                stream.read_line(line).await.unwrap();
                stream.write_all(answer).await.unwrap();
            }
            lines
        });
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = datagrams.local_addr().unwrap();
        let connection = Connection { stream: stream.into(), datagrams: datagrams.into() };
        let result = open(request, connection, &key(), login).await;
        (result, bridge.await.unwrap(), local)
    }

    #[tokio::test]
    async fn the_lines_are_as_specified() {
        let answer = b"SESSION STATUS RESULT=OK DESTINATION=THEKEY\n";
        let (result, lines, local) = open_with(GREETING, answer).await;
        assert_eq!(result.unwrap().version, "3.2");
        let create = format!(
            "SESSION CREATE STYLE=RAW ID=s-1 DESTINATION=THEKEY PORT={} HOST=127.0.0.1 inbound.length=1 \
             outbound.length=1 inbound.quantity=3 outbound.quantity=3 i2cp.leaseSetEncType=4 \
             crypto.ratchet.inboundTags=1024\n",
            local.port()
        );
        assert_eq!(lines, ["HELLO VERSION MIN=3.0 MAX=3.3\n", create.as_str()]);
    }

    #[tokio::test]
    async fn where_the_bridge_forwards_nothing_datagrams_may_come_before_its_answer() {
        let request = OpenSession { kind: SessionKind::Control, over_tcp: true, ..request() };
        let answer = b"DATAGRAM RECEIVED DESTINATION=AAAA SIZE=8\nSESSION\nSESSION STATUS RESULT=OK DESTINATION=THEKEY\n";
        let (result, lines, _) = ask(&request, None, GREETING, answer).await;
        result.unwrap();
        let create = "SESSION CREATE STYLE=DATAGRAM ID=s-1 DESTINATION=THEKEY inbound.length=1 outbound.length=1 \
                      inbound.quantity=3 outbound.quantity=3 i2cp.leaseSetEncType=4\n";
        assert_eq!(lines[1], create);
    }

    #[tokio::test]
    async fn a_bridge_that_wants_a_password_is_told_it_and_only_the_bridge() {
        let password = Passphrase::new(b"s3cret").unwrap();
        let login = Login::new("i2plan".to_owned(), password).unwrap();
        let answer = b"SESSION STATUS RESULT=OK DESTINATION=THEKEY\n";
        let (result, lines, _) = open_as(Some(&login), GREETING, answer).await;
        result.unwrap();
        assert_eq!(lines[0], "HELLO VERSION MIN=3.0 MAX=3.3 USER=i2plan PASSWORD=s3cret\n");
        let refusal = b"HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"Authorization failed\"\n";
        let (result, ..) = open_as(Some(&login), refusal, b"").await;
        let said = format!("{:?} {login:?}", result.unwrap_err());
        assert!(said.contains("i2p.sam_password_file") && !said.contains("s3cret"), "{said}");
        let refusal = b"HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"USER and PASSWORD required\"\n";
        let (result, lines, _) = open_with(refusal, b"").await;
        assert!(format!("{:?}", result.unwrap_err()).contains("i2p.sam_user"));
        assert!(!lines.concat().contains("THEKEY"));
    }

    #[test]
    fn what_cannot_be_said_in_a_line_is_no_login() {
        for (user, password) in [("", &b"x"[..]), ("a\nb", b"x"), ("a", b"\xff"), ("a", b"b\rc")] {
            let error = Login::new(user.to_owned(), Passphrase::new(password).unwrap()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
        }
    }

    #[tokio::test]
    async fn a_router_that_builds_tunnels_is_told_that_nobody_waits_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, mut bridge) = (stream, BufReader::new(listener.accept().await.unwrap().0));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let opening = tokio::spawn(async move {
            open(&request(), Connection { stream: stream.into(), datagrams }, &key(), None).await
        });
        let mut said = String::new();
        bridge.read_line(&mut said).await.unwrap();
        bridge.write_all(GREETING).await.unwrap();
        bridge.read_line(&mut said).await.unwrap();
        assert!(said.contains("SESSION CREATE"));
        opening.abort();
        said.clear();
        bridge.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "QUIT\n");
    }

    #[tokio::test]
    async fn meshd_gets_what_follows_the_answer_and_nothing_of_it() {
        let answer = b"SESSION STATUS RESULT=OK DESTINATION=THEKEY\nPING 1\n";
        let (result, ..) = open_with(GREETING, answer).await;
        let stream = std::net::TcpStream::from(result.unwrap().connection.stream);
        stream.set_nonblocking(false).unwrap();
        let mut rest = String::new();
        io::Read::read_to_string(&mut &stream, &mut rest).unwrap();
        assert_eq!(rest, "PING 1\n");
    }

    #[tokio::test]
    async fn the_key_is_said_to_a_bridge_that_has_greeted_alone() {
        for (greeting, expected) in [
            (&b"HELLO REPLY RESULT=NOVERSION\n"[..], "NOVERSION"),
            (b"220 mail.example ESMTP\n", "no SAM bridge"),
            (b"\n", "closed the connection"),
        ] {
            let (result, lines, _) = open_with(greeting, b"").await;
            let error = result.unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert!(!lines.concat().contains("THEKEY"));
        }
    }

    #[tokio::test]
    async fn refusals_are_told_and_never_the_key() {
        for (answer, expected) in [
            (&b"SESSION STATUS RESULT=DUPLICATED_DEST\n"[..], "DUPLICATED_DEST"),
            // As emissary ends it: without a line's end.
            (b"SESSION STATUS RESULT=DUPLICATE_DEST", "DUPLICATE_DEST"),
            (b"SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"THEKEY\"\n", "I2P_ERROR"),
            (b"SESSION STATUS RESULT=THEKEY\n", "unknown to SAM"),
            (b"THEKEY\n", "unexpected reply"),
            (b"", "closed the connection"),
            (&[b'x'; MAX_LINE + 1], "without end"),
        ] {
            let (result, ..) = open_with(GREETING, answer).await;
            let error = result.unwrap_err();
            assert!(error.message.contains(expected), "{error}");
            assert!(!format!("{error:?}").contains("THEKEY"));
        }
    }

    #[test]
    fn nothing_can_be_slipped_into_the_line() {
        for id in ["", "a b", "a\nQUIT", &"x".repeat(65)] {
            let request = OpenSession { id: id.to_owned(), ..request() };
            assert_eq!(checked(request, 1).unwrap_err().kind, ErrorKind::Invalid);
        }
        assert!(checked(OpenSession { tunnel_length: 8, ..request() }, 1).is_err());
        assert!(checked(OpenSession { tunnel_quantity: 0, ..request() }, 1).is_err());
        assert!(checked(OpenSession { tunnel_quantity: 17, ..request() }, 1).is_err());
        assert!(checked(OpenSession { tunnel_backup_quantity: 17, ..request() }, 1).is_err());
        for variance in [-3, 3, i8::MIN, i8::MAX] {
            assert!(checked(OpenSession { tunnel_length_variance: variance, ..request() }, 1).is_err());
        }
    }

    #[test]
    fn tunnels_are_no_shorter_than_configured() {
        for (wanted, configured, hops) in [(0, 1, 1), (0, 3, 3), (1, 3, 3), (2, 1, 2), (0, 0, 0)] {
            let request = checked(OpenSession { tunnel_length: wanted, ..request() }, configured).unwrap();
            let line = new_session(&request, None).line(&key());
            for direction in ["inbound", "outbound"] {
                assert!(line.contains(&format!("{direction}.length={hops} ")), "{}", *line);
            }
        }
    }

    #[test]
    fn chance_makes_no_tunnel_shorter_than_configured() {
        for (wanted, variance, configured, expected) in
            [(3, -2, 1, -2), (2, -2, 1, -1), (1, -2, 3, 0), (1, 2, 1, 2), (1, 0, 1, 0)]
        {
            let request = OpenSession {
                tunnel_length: wanted,
                tunnel_length_variance: variance,
                tunnel_backup_quantity: 4,
                ..request()
            };
            let request = checked(request, configured).unwrap();
            assert_eq!(request.tunnel_length_variance, expected);
            let line = new_session(&request, None).line(&key());
            for direction in ["inbound", "outbound"] {
                let said = line.contains(&format!("{direction}.lengthVariance={expected}"));
                assert_eq!(said, expected != 0, "{}", *line);
                assert!(line.contains(&format!("{direction}.backupQuantity=4")), "{}", *line);
            }
        }
    }
}
