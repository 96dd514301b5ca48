//! A transport at a bridge that a test plays, for what no router does on demand.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::net::Ipv4Addr;

use i2plan_transport::{Config, Datagram, Endpoint, Keys, Login, SendError, State, Style, Transport};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const GREETING: &str = "HELLO REPLY RESULT=OK VERSION=3.1\n";

struct Bridge {
    listener: TcpListener,
    udp: UdpSocket,
}

/// A connection to the bridge.
struct Session {
    stream: BufReader<TcpStream>,
    /// What has been said on it.
    said: Vec<String>,
}

impl Session {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        self.said.push(line.clone());
        line
    }

    async fn answer(&mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

impl Bridge {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener, udp }
    }

    fn config(&self, keys: &Keys, style: Style) -> Config {
        let bridge = self.listener.local_addr().unwrap();
        let udp_port = Some(self.udp.local_addr().unwrap().port());
        Config { bridge, udp_port, ..Config::new(keys.clone(), style) }
    }

    /// Takes a connection, and answers its first two lines so.
    async fn accept(&self, answer: &str) -> Session {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut session = Session { stream: BufReader::new(stream), said: Vec::new() };
        session.line().await;
        session.answer(GREETING).await;
        session.line().await;
        session.answer(answer).await;
        session
    }

    /// Takes a connection, and lets what the transport sends to itself come back to it.
    async fn open(&self, keys: &Keys) -> Session {
        let mut session = self.accept("SESSION STATUS RESULT=OK DESTINATION=x\n").await;
        let local = keys.destination().to_base64();
        let (header, payload, from) = self.sent().await;
        assert!(header.ends_with(&local), "{header}");
        let raw = session.said[1].contains("STYLE=RAW");
        let forwarded = if raw { payload } else { [local.as_bytes(), b"\n", &payload].concat() };
        self.udp.send_to(&forwarded, from).await.unwrap();
        let hash = keys.destination().hash().b32();
        assert_eq!(session.line().await, format!("NAMING LOOKUP NAME={hash}\n"));
        session.answer(&format!("NAMING REPLY RESULT=OK NAME={hash} VALUE={local}\n")).await;
        session
    }

    /// The next datagram that is sent: its header, its payload, and from where.
    async fn sent(&self) -> (String, Vec<u8>, std::net::SocketAddr) {
        let mut buffer = [0; 4096];
        let (len, from) = self.udp.recv_from(&mut buffer).await.unwrap();
        let end = buffer.iter().position(|byte| *byte == b'\n').unwrap();
        (String::from_utf8_lossy(&buffer[..end]).into_owned(), buffer[end + 1..len].to_vec(), from)
    }
}

#[tokio::test]
async fn a_session_that_the_router_ends_is_opened_again_under_the_same_destination() {
    let (bridge, keys, peer) = (Bridge::start().await, Keys::generate(), Keys::generate());
    let login = Some(Login::new("user", "s3cret").unwrap());
    let config = Config { login, ..bridge.config(&keys, Style::Datagram) };
    let mut transport = Transport::start(config).unwrap();
    let to = Endpoint::Hash(peer.destination().hash());
    assert_eq!(transport.send(&to, b"x"), Err(SendError::Down));
    let (mut session, ()) = tokio::join!(bridge.open(&keys), transport.up());
    assert!(session.said[0].ends_with(" USER=user PASSWORD=s3cret\n"), "{}", session.said[0]);
    assert!(session.said[1].contains(keys.expose()));

    // By its name, which is looked up once.
    transport.send(&to, b"hello").unwrap();
    let name = peer.destination().hash().b32();
    assert_eq!(session.line().await, format!("NAMING LOOKUP NAME={name}\n"));
    let value = peer.destination().to_base64();
    session.answer(&format!("NAMING REPLY RESULT=OK NAME={name} VALUE={value}\n")).await;
    let (header, payload, from) = loop {
        let sent = bridge.sent().await;
        // Another probe of the self-test may have been on its way.
        if sent.1 == b"hello" {
            break sent;
        }
    };
    assert!(header.starts_with("3.0 i2plan-") && header.ends_with(&value) && payload == b"hello");
    bridge.udp.send_to(format!("{value}\nhello back").as_bytes(), from).await.unwrap();
    let expected = Datagram { from: Some(peer.destination().clone()), payload: b"hello back".to_vec() };
    assert_eq!(transport.recv().await, Some(expected));

    let mut state = transport.state();
    state.mark_unchanged();
    let id = |session: &Session| session.said[1].split(' ').nth(3).unwrap().to_owned();
    let before = id(&session);
    drop(session);
    state.changed().await.unwrap();
    assert!(matches!(&*state.borrow(), State::Down { error, .. } if error.contains("closed")));
    let (session, ()) = tokio::join!(bridge.open(&keys), transport.up());
    assert!(session.said[1].contains(keys.expose()) && id(&session) != before);
    transport.send(&to, b"again").unwrap();

    let (mut session, ()) = tokio::join!(async { session }, transport.close());
    assert_eq!(session.line().await, "QUIT\n");
}

#[tokio::test]
async fn why_there_is_no_session_is_told_without_the_keys() {
    let (bridge, keys) = (Bridge::start().await, Keys::generate());
    let transport = Transport::start(bridge.config(&keys, Style::Raw)).unwrap();
    let mut state = transport.state();
    let repeated = format!("SESSION STATUS RESULT=I2P_ERROR MESSAGE=\"{}\"\n", keys.expose());
    for (answer, words, retry) in [
        ("SESSION STATUS RESULT=DUPLICATED_DEST\n", "DUPLICATED_DEST", 3.0..4.6),
        (&repeated, "I2P_ERROR", 1.0..1.6),
        ("", "closed the connection", 2.0..3.1),
    ] {
        drop(bridge.accept(answer).await);
        let down = state.wait_for(|state| matches!(state, State::Down { .. })).await.unwrap().clone();
        let State::Down { error, retry: told } = down else { unreachable!() };
        assert!(error.contains(words) && !error.contains(&keys.expose()[..50]), "{error}");
        assert!(retry.contains(&told.as_secs_f64()), "{error}: {told:?}");
        state.wait_for(|state| *state == State::Opening).await.unwrap();
    }
}
