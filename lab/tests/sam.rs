//! SAM bridges at all kinds of addresses, and what routers have of SAM.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::time::{Duration, Instant};

use i2plan_proto::destination::{DESTINATION_LEN, base64};
use lab::i2p::kind::Routers;
use lab::i2p::router::{SAM, SamBridge};
use lab::node::{Lab, Node};
use lab::testing::sandboxed;
use lab::traffic::{ping, reach, transfer, until_flowing};
use lab::{Failure, firewall, netns};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Bytes of a transfer.
const BYTES: u64 = 100_000;

/// How long a session may take to be found unusable: to be opened, and to be tested.
const UNUSABLE: Duration = Duration::from_secs(120);

/// How long a router may take to build a session's tunnels; i2pd 2.45.1 looks every 20 s.
const TUNNELS: Duration = Duration::from_secs(90);

/// How many sessions are opened until one works.
const ATTEMPTS: u32 = 5;

/// How long an answer may take that needs no tunnels. Where none comes, the router has none.
const ANSWER: Duration = Duration::from_secs(3);

/// Runs a test, if its routers are installed.
#[expect(clippy::explicit_write, reason = "past the harness, which shows nothing of a test that passes")]
fn on(routers: Routers, name: &str, body: impl AsyncFnOnce() -> Result<(), Failure>) {
    match routers.check() {
        Ok(()) => sandboxed(LAB, name, body),
        Err(missing) => {
            writeln!(std::io::stderr(), "test {name} SKIPPED: {missing}").unwrap();
        }
    }
}

fn at(address: &str, udp_port: u16) -> SamBridge {
    SamBridge { address: address.parse().unwrap(), udp_port }
}

/// The bridges where a node finds its router: by name, by the port that i2pd takes, and by IPv6 where the router forwards
/// to IPv6 addresses.
async fn bridges_are_found(routers: Routers) -> Result<(), Failure> {
    let mut lab = Lab::start_on(routers).await?;
    let third = match routers {
        Routers::I2pd => (at("[::1]:7656", 7655), "[::1]:7656"),
        _ => (at("127.0.0.1:7777", 7655), "bridge.localhost:7777"),
    };
    for (bridge, address) in [
        (at("127.0.0.1:7666", 7665), "127.0.0.1:7666"),
        (at("127.0.0.1:7656", 7655), "localhost:7656"),
        third,
    ] {
        lab.bridge = bridge;
        lab.sam_address = address.to_owned();
        lab.add_node().await?;
    }
    lab.ready().await?;
    let [one, two, three] = &lab.nodes[..] else { panic!("three nodes") };
    for other in [two, three] {
        other.join_by(one).await?;
        reach(other, one).await?;
        assert!(transfer(one, other, other.address().await?, BYTES).await?.intact);
    }
    lab.stop().await
}

/// Waits until the control session is down for a reason in which these words are.
async fn until_down(node: &Node, words: &str) -> Result<(), Failure> {
    node.until(words, UNUSABLE, async |node| {
        let sam = node.status().await?.sam;
        assert_ne!(sam.control.state, "up");
        Ok(sam.control.error.is_some_and(|error| error.contains(words)))
    })
    .await
}

/// A bridge with an odd UDP port, without and with `i2p.sam_udp_port`; and a name that has no address.
async fn a_bridge_that_is_not_found_is_named(routers: Routers) -> Result<(), Failure> {
    let mut lab = Lab::start_on(routers).await?;
    // That of i2pd 2.45.1 cannot be odd.
    let (port, setting) = match routers {
        Routers::I2pd => (7665, "auto"),
        _ => (7999, "7999"),
    };
    lab.bridge = at("127.0.0.1:7666", port);
    lab.sam_address = "127.0.0.1:7666".to_owned();
    lab.add_node().await?;
    let node = &mut lab.nodes[0];
    if routers == Routers::I2pd {
        node.ready().await?;
    } else {
        until_down(
            node,
            "the bridge at 127.0.0.1:7666 answers on TCP, but its UDP port is not 7655 or 7665; set \
             i2p.sam_udp_port",
        )
        .await?;
    }
    let text = std::fs::read_to_string(node.config())?;
    let write = |node: &Node, text: &str| std::fs::write(node.config(), text);
    node.stop_daemons().await?;
    write(node, &text.replace("[i2p]\n", "[i2p]\nsam_udp_port = 7998\n"))?;
    node.start_daemons()?;
    until_down(node, "its UDP port is not 7998; correct i2p.sam_udp_port").await?;
    node.stop_daemons().await?;
    write(node, &text.replace("[i2p]\n", &format!("[i2p]\nsam_udp_port = \"{setting}\"\n")))?;
    node.start_daemons()?;
    node.ready().await?;
    node.stop_daemons().await?;
    // Never in use (RFC 6761, section 6.4).
    write(node, &text.replace("127.0.0.1:7666", "bridge.invalid:7666"))?;
    node.start_daemons()?;
    until_down(node, "the host name of the SAM bridge at bridge.invalid:7666 cannot be resolved").await?;
    lab.stop().await
}

/// A node whose bridge answers on TCP, while a firewall drops the bridge's UDP; then the firewall is opened.
async fn udp_is_blocked(routers: Routers) -> Result<(), Failure> {
    let mut lab = Lab::start_on(routers).await?;
    for _ in 0..2 {
        lab.add_node().await?;
    }
    lab.ready().await?;
    let port = SamBridge::USUAL.udp_port;
    lab.nodes[1].stop_daemons().await?;
    firewall::block(&lab.nodes[1].name, &format!("udp sport {port}")).await?;
    firewall::block(&lab.nodes[1].name, &format!("udp dport {port}")).await?;
    lab.nodes[1].start_daemons()?;
    let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
    let carries = routers != Routers::Emissary;
    if routers == Routers::Java {
        // Nothing shows that UDP does not come back, but that the inviter does not answer.
        let began = Instant::now();
        two.join_by(one).await?;
        println!("joined after {:.1} s", began.elapsed().as_secs_f64());
    }
    if carries {
        let over_tcp = async |node: &Node| {
            let sam = node.status().await?.sam;
            Ok(sam.control.state == "up" && sam.control.over_tcp)
        };
        let began = Instant::now();
        two.until("control goes over TCP", UNUSABLE * 3, over_tcp).await?;
        println!("control over TCP after {:.1} s", began.elapsed().as_secs_f64());
    } else {
        until_down(two, "its UDP port is not 7655").await?;
    }
    let report: Value = serde_json::from_str(&two.ctl(&["--json", "doctor"], "").await?.stdout).unwrap();
    println!("{report:#}");
    let findings = report["findings"].as_array().unwrap();
    let problem = findings.iter().find(|finding| finding["level"] == "problem").unwrap().to_string();
    let expected = if carries { "control messages go over TCP" } else { "its UDP port is not 7655" };
    assert!(problem.contains(expected) && problem.contains("let UDP through"), "{problem}");
    if carries {
        if routers != Routers::Java {
            let began = Instant::now();
            two.join_by(one).await?;
            println!("joined after {:.1} s", began.elapsed().as_secs_f64());
        }
        // Each hears the other time and again.
        for _ in 0..3 {
            for node in [one, two] {
                let began = Instant::now();
                let heard = async |node: &Node| hears(node, began.elapsed()).await;
                node.until("it hears the other over control", UNUSABLE, heard).await?;
            }
        }
        let address = one.address().await?;
        assert_eq!(ping(two, address, 3, false).await?.received, 0, "the firewall is there");
    }
    firewall::open(&two.name).await?;
    let opened = Instant::now();
    let by_udp = async |node: &Node| {
        let status = node.status().await?;
        Ok(status.sessions_are_open() && !status.sam.control.over_tcp)
    };
    two.until("both sessions are open, by UDP", UNUSABLE * 2, by_udp).await?;
    println!("by UDP after {:.1} s", opened.elapsed().as_secs_f64());
    if !carries {
        two.join_by(one).await?;
    }
    for (from, to) in [(one, two), (two, one)] {
        reach(from, to).await?;
        println!("a ping comes back after {:.1} s", opened.elapsed().as_secs_f64());
    }
    assert!(transfer(one, two, two.address().await?, BYTES).await?.intact);
    lab.stop().await
}

/// A node with a member, whose bridge's UDP is dropped from some time on; then the firewall is opened.
async fn udp_is_blocked_later(routers: Routers) -> Result<(), Failure> {
    let mut lab = Lab::start_on(routers).await?;
    for _ in 0..2 {
        lab.add_node().await?;
    }
    lab.ready().await?;
    let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
    two.join_by(one).await?;
    reach(two, one).await?;
    let port = SamBridge::USUAL.udp_port;
    for matching in [format!("udp sport {port}"), format!("udp dport {port}")] {
        firewall::block(&two.name, &matching).await?;
    }
    let began = Instant::now();
    let over_tcp = async |node: &Node| {
        let sam = node.status().await?.sam;
        Ok(sam.control.state == "up" && sam.control.over_tcp)
    };
    two.until("control goes over TCP", UNUSABLE * 4, over_tcp).await?;
    println!("control over TCP after {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let heard = async |node: &Node| hears(node, began.elapsed()).await;
    two.until("it hears the other over control", UNUSABLE, heard).await?;
    firewall::open(&two.name).await?;
    let opened = Instant::now();
    until_flowing([one, two], UNUSABLE).await?;
    println!("traffic flows after {:.1} s", opened.elapsed().as_secs_f64());
    lab.stop().await
}

/// Whether a node has heard its only peer over control in this time.
async fn hears(node: &Node, within: Duration) -> Result<bool, Failure> {
    let peers = node.control().await?.peers().await.map_err(|error| node.failure(&error.to_string()))?;
    let heard = peers.iter().filter_map(|peer| peer.last_heard).min();
    // Whole seconds that have passed: less of them than that.
    Ok(heard.is_some_and(|heard| heard < within.as_secs()))
}

#[test]
fn a_node_without_udp_to_emissary_says_so() {
    let name = "a_node_without_udp_to_emissary_says_so";
    on(Routers::Emissary, name, async || udp_is_blocked(Routers::Emissary).await);
}

#[test]
#[ignore = "takes five minutes: see CONTRIBUTING.md"]
fn a_node_without_udp_to_i2pd_has_control_over_tcp() {
    let name = "a_node_without_udp_to_i2pd_has_control_over_tcp";
    on(Routers::I2pd, name, async || udp_is_blocked(Routers::I2pd).await);
}

#[test]
#[ignore = "takes ten minutes: see CONTRIBUTING.md"]
fn a_node_that_loses_udp_to_i2pd_has_control_over_tcp() {
    let name = "a_node_that_loses_udp_to_i2pd_has_control_over_tcp";
    on(Routers::I2pd, name, async || udp_is_blocked_later(Routers::I2pd).await);
}

#[test]
fn a_node_without_udp_to_java_has_control_over_tcp() {
    let name = "a_node_without_udp_to_java_has_control_over_tcp";
    on(Routers::Java, name, async || udp_is_blocked(Routers::Java).await);
}

#[test]
fn bridges_of_emissary_are_found() {
    let name = "bridges_of_emissary_are_found";
    on(Routers::Emissary, name, async || bridges_are_found(Routers::Emissary).await);
}

#[test]
fn bridges_of_i2pd_are_found() {
    let name = "bridges_of_i2pd_are_found";
    on(Routers::I2pd, name, async || bridges_are_found(Routers::I2pd).await);
}

#[test]
fn a_bridge_of_emissary_that_is_not_found_is_named() {
    let name = "a_bridge_of_emissary_that_is_not_found_is_named";
    on(Routers::Emissary, name, async || a_bridge_that_is_not_found_is_named(Routers::Emissary).await);
}

#[test]
fn a_bridge_of_i2pd_that_is_not_found_is_named() {
    let name = "a_bridge_of_i2pd_that_is_not_found_is_named";
    on(Routers::I2pd, name, async || a_bridge_that_is_not_found_is_named(Routers::I2pd).await);
}

/// A connection to a bridge, and a UDP socket that it may forward to.
struct Client {
    stream: TcpStream,
    udp: UdpSocket,
    id: String,
    /// The session's destination, in base64.
    destination: String,
}

impl Client {
    fn connect(namespace: &str) -> Result<Self, Failure> {
        let (stream, udp) = netns::within(namespace, || {
            let stream = std::net::TcpStream::connect(SAM)?;
            let udp = StdUdpSocket::bind((SAM.ip(), 0))?;
            stream.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((stream, udp))
        })?;
        let id = format!("lab-{:016x}", rand::random::<u64>());
        let (stream, udp) = (TcpStream::from_std(stream)?, UdpSocket::from_std(udp)?);
        Ok(Self { stream, udp, id, destination: String::new() })
    }

    /// Says a line; returns the line that comes, or nothing if none comes in time.
    async fn ask(&mut self, line: &str, within: Duration) -> String {
        let mut reply = Vec::new();
        let read = async {
            self.stream.write_all(line.as_bytes()).await?;
            loop {
                match self.stream.read_u8().await? {
                    b'\n' => return Ok::<_, std::io::Error>(()),
                    byte => reply.push(byte),
                }
            }
        };
        let _ = timeout(within, read).await;
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// A connection that has been greeted.
    async fn greeted(namespace: &str) -> Result<Self, Failure> {
        let mut client = Self::connect(namespace)?;
        let greeting = client.ask("HELLO VERSION MIN=3.0 MAX=3.3\n", ANSWER).await;
        assert!(greeting.contains("RESULT=OK"), "{greeting}");
        Ok(client)
    }

    /// Opens a session; none if the router refuses.
    async fn open(namespace: &str, style: &str, forwarded: bool, hops: u8) -> Result<Option<Self>, Failure> {
        let mut client = Self::greeted(namespace).await?;
        let here = client.udp.local_addr()?;
        let forward =
            if forwarded { format!("PORT={} HOST={} ", here.port(), here.ip()) } else { String::new() };
        let id = &client.id;
        let create = format!(
            "SESSION CREATE STYLE={style} ID={id} DESTINATION=TRANSIENT SIGNATURE_TYPE=7 {forward}\
             inbound.length={hops} outbound.length={hops} inbound.quantity=2 outbound.quantity=2 \
             i2cp.leaseSetEncType=4\n"
        );
        let status = client.ask(&create, TUNNELS).await;
        let key = status.split("DESTINATION=").nth(1).filter(|_| status.contains("RESULT=OK"));
        let Some(key) = key else { return Ok(None) };
        let bytes = base64().decode(key.trim().as_bytes()).unwrap();
        client.destination = base64().encode(&bytes[..DESTINATION_LEN]);
        Ok(Some(client))
    }

    /// Sends datagrams to itself by UDP until one is forwarded.
    async fn forwarded(&self, payload: &str) -> Option<String> {
        let udp = SocketAddr::new(SAM.ip(), SamBridge::USUAL.udp_port);
        let datagram = format!("3.0 {} {}\n{payload}", self.id, self.destination);
        let mut buffer = vec![0; 4096];
        for _ in 0..20 {
            self.udp.send_to(datagram.as_bytes(), udp).await.ok()?;
            if let Ok(Ok(len)) = timeout(Duration::from_secs(1), self.udp.recv(&mut buffer)).await {
                return Some(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
        }
        None
    }

    /// The same by its connection, both ways.
    async fn on_the_connection(&mut self, kind: &str, payload: &str) -> bool {
        let send = format!("{kind} SEND DESTINATION={} SIZE={}\n{payload}", self.destination, payload.len());
        for _ in 0..20 {
            if self.ask(&send, Duration::from_secs(1)).await.starts_with(&format!("{kind} RECEIVED")) {
                return true;
            }
        }
        false
    }
}

/// Opens sessions until one works: those of a router that has just started may never carry anything. Returns the last,
/// if the router opens any, and what has come back of what it sent to itself.
async fn tried(
    node: &str,
    style: &str,
    forwarded: bool,
) -> Result<(Option<Client>, Option<String>), Failure> {
    for attempt in 1.. {
        let Some(mut client) = Client::open(node, style, forwarded, 1).await? else { break };
        let back = if forwarded {
            client.forwarded("hello").await
        } else {
            client.on_the_connection(style, "hello").await.then(String::new)
        };
        if back.is_some() || attempt == ATTEMPTS {
            return Ok((Some(client), back));
        }
    }
    Ok((None, None))
}

/// What a router has, by the words of the table.
async fn features(node: &str) -> Result<BTreeMap<&'static str, String>, Failure> {
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut found = BTreeMap::new();
    let mut client = Client::connect(node)?;
    let greeting = client.ask("HELLO VERSION MIN=3.0 MAX=3.3\n", ANSWER).await;
    let version = greeting.split("VERSION=").nth(1).unwrap_or_default().trim().to_owned();
    found.insert("highest version", version);
    found.insert("`PING`", yes(client.ask("PING 1\n", ANSWER).await.starts_with("PONG")));
    let mut client = Client::connect(node)?;
    let greeting = client.ask("HELLO VERSION MIN=3.0 MAX=3.3 USER=a PASSWORD=b\n", ANSWER).await;
    found.insert("`USER=`", yes(greeting.contains("RESULT=OK")));
    found.insert("a wrong password", yes(!greeting.contains("RESULT=OK")));

    let ((repliable, forwarded), (raw, bare), (on_connection, sent), primary, datagram2, short) = tokio::try_join!(
        tried(node, "DATAGRAM", true),
        tried(node, "RAW", true),
        tried(node, "DATAGRAM", false),
        Client::open(node, "PRIMARY", true, 1),
        Client::open(node, "DATAGRAM2", true, 1),
        Client::open(node, "RAW", true, 0),
    )?;
    found.insert("`STYLE=DATAGRAM` and", yes(repliable.is_some() && raw.is_some()));
    found.insert("datagrams to itself", yes(forwarded.is_some() && bare.as_deref() == Some("hello")));
    found.insert("`FROM_PORT`", yes(forwarded.is_some_and(|forwarded| forwarded.contains(" FROM_PORT="))));
    found.insert("sessions without `PORT`", yes(on_connection.is_some()));
    found.insert("`DATAGRAM SEND`", yes(sent.is_some()));
    found.insert("`STYLE=PRIMARY`", yes(primary.is_some()));
    found.insert("`STYLE=DATAGRAM2`", yes(datagram2.is_some()));
    found.insert("tunnels of no hop", yes(short.is_some()));
    let name = raw.as_ref().map(|raw| raw.destination.clone()).unwrap_or_default();
    let bytes = base64().decode(name.as_bytes()).unwrap_or_default();
    let name = i2plan_proto::destination::hash_of(&bytes).b32();
    let mut looked_up = false;
    for _ in 0..5 {
        let reply =
            Client::greeted(node).await?.ask(&format!("NAMING LOOKUP NAME={name}\n"), ANSWER * 3).await;
        looked_up |= reply.contains("RESULT=OK");
        if looked_up {
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    found.insert("`NAMING LOOKUP` before", yes(looked_up));
    Ok(found)
}

/// The column of the table that begins so, by the words that its rows begin with.
fn column(head: &str) -> BTreeMap<String, String> {
    let table = include_str!("../../docs/sam.md").lines().filter(|line| line.starts_with('|'));
    let mut rows = table.map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    let at = rows.next().unwrap().iter().position(|cell| cell == head).unwrap();
    rows.skip(1).map(|row| (row[2].clone(), row[at].clone())).collect()
}

async fn the_table_is_true(routers: Routers, head: &str) -> Result<(), Failure> {
    let mut lab = Lab::start_on(routers).await?;
    lab.add_stranger("r1").await?;
    let found = features("r1").await?;
    println!("{found:#?}");
    let table = column(head);
    assert_eq!(found.len(), table.len(), "each row is checked");
    for (row, expected) in &table {
        let (feature, value) = found.iter().find(|(feature, _)| row.starts_with(*feature)).unwrap();
        assert_eq!(value, expected, "{feature}");
    }
    lab.stop().await
}

#[test]
fn emissary_has_of_sam_what_the_table_says() {
    let name = "emissary_has_of_sam_what_the_table_says";
    on(Routers::Emissary, name, async || the_table_is_true(Routers::Emissary, "emissary 0.4").await);
}

#[test]
fn i2pd_has_of_sam_what_the_table_says() {
    let name = "i2pd_has_of_sam_what_the_table_says";
    on(Routers::I2pd, name, async || the_table_is_true(Routers::I2pd, "i2pd 2.45.1").await);
}
