//! The names of members on the hosts of whole nodes, on a private I2P network.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use lab::Failure;
use lab::netns::within;
use lab::node::{Lab, Node, credentials, process_of};
use lab::process::Spawn;
use lab::testing::sandboxed;
use lab::traffic::reach;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

const TIMEOUT: Duration = Duration::from_secs(60);

/// How long an answer is waited for where there is to be one.
const ANSWER: Duration = Duration::from_secs(10);

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

/// Asks over UDP, from a node's namespace.
fn ask(node: &Node, server: IpAddr, name: &str, kind: RecordType) -> Result<io::Result<Message>, Failure> {
    let query = query(name, kind);
    within(&node.name, move || {
        let asked = || {
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.connect(SocketAddr::new(server, 53))?;
            socket.send(&query)?;
            let mut buffer = [0; 600];
            let len = socket.recv(&mut buffer)?;
            Ok(Message::from_vec(&buffer[..len]).unwrap())
        };
        Ok::<io::Result<Message>, Failure>(asked())
    })
}

/// Asks over TCP.
fn ask_tcp(node: &Node, server: IpAddr, name: &str) -> Result<io::Result<Message>, Failure> {
    let query = query(name, RecordType::A);
    within(&node.name, move || {
        let asked = || {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, 53), ANSWER)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(&u16::try_from(query.len()).unwrap().to_be_bytes())?;
            stream.write_all(&query)?;
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            let mut answer = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut answer)?;
            Ok(Message::from_vec(&answer).unwrap())
        };
        Ok::<io::Result<Message>, Failure>(asked())
    })
}

/// Connects to a port over TCP, from a node's namespace.
fn connect(node: &Node, server: IpAddr, port: u16) -> Result<io::Result<TcpStream>, Failure> {
    within(&node.name, move || {
        let connected = TcpStream::connect_timeout(&SocketAddr::new(server, port), ANSWER);
        Ok::<io::Result<TcpStream>, Failure>(connected)
    })
}

fn data(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

/// Waits until a name has this address on a node, or none.
async fn until(node: &Node, server: IpAddr, name: &str, expected: Option<Ipv4Addr>) -> Result<(), Failure> {
    node.until(&format!("{name} is {expected:?}"), TIMEOUT, async |node| {
        let Ok(answer) = ask(node, server, name, RecordType::A)? else { return Ok(false) };
        let code = if expected.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        Ok(answer.metadata.response_code == code && data(&answer) == expected)
    })
    .await
}

/// What the host's own resolver says, where it asks `server`.
async fn getent(node: &Node, server: IpAddr, name: &str) -> Result<String, Failure> {
    let file = node.path("resolv.conf");
    std::fs::write(&file, format!("nameserver {server}\n"))?;
    let script = "mount --bind \"$0\" /etc/resolv.conf && getent hosts \"$1\"";
    let args = ["--mount".into(), "sh".into(), "-c".into(), script.into(), file, name.into()];
    let spawn = Spawn::new(Path::new("/usr/bin/unshare"), args.map(|arg: OsString| arg));
    Ok(spawn.namespace(Some(&node.name)).output("").await?.stdout)
}

#[test]
fn members_have_names_on_their_hosts_and_on_no_others() {
    sandboxed(LAB, "members_have_names_on_their_hosts_and_on_no_others", async || {
        let mut lab = Lab::with_nodes(2).await?;
        lab.nodes[0].configure("[names]\nenabled = true\n").await?;
        lab.ready().await?;
        let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
        // It waits for a network, with the right to listen on one port.
        let waiting = credentials(process_of(one.names_uid)?)?;
        assert_eq!(waiting, (one.names_uid, 1 << 10));
        let joined = two.join_by(one).await?;
        reach(two, one).await?;
        let network = one.network().await?;
        let (server, server6) = (IpAddr::from(network.ipv4), IpAddr::from(network.ipv6));
        let name = format!("n2.{}.internal.", network.name);
        until(one, server, &name, Some(joined.ipv4)).await?;
        assert_eq!(credentials(process_of(one.names_uid)?)?, (one.names_uid, 0));

        // Both addresses, UDP and TCP, all kinds of records.
        for server in [server, server6] {
            let answer = ask(one, server, &name, RecordType::AAAA)??;
            assert_eq!(data(&answer), [joined.ipv6.to_string()]);
            assert_eq!(data(&ask_tcp(one, server, &name)??), [joined.ipv4.to_string()]);
            for address in [IpAddr::from(joined.ipv4), joined.ipv6.into()] {
                let pointer = Name::from(address).to_ascii();
                assert_eq!(data(&ask(one, server, &pointer, RecordType::PTR)??), [name.as_str()]);
            }
            let foreign = ask(one, server, "example.com.", RecordType::A)??;
            assert_eq!(foreign.metadata.response_code, ResponseCode::Refused);
        }
        let hosts = getent(one, server, name.trim_end_matches('.')).await?;
        assert!(hosts.contains(&joined.ipv6.to_string()) && hosts.contains("n2."), "{hosts:?}");
        // The node knows it by its connection, the kernel says which process it is, and that is confined.
        let versions = one.ctl(&["version", "--all"], "").await?.stdout;
        assert!(
            versions.lines().any(|line| line.starts_with("named ") && line.contains("commit")),
            "{versions}"
        );
        let report: Value = serde_json::from_str(&one.ctl(&["--json", "doctor"], "").await?.stdout).unwrap();
        assert_eq!(report["walls"]["named"]["uid"], one.names_uid, "{report}");

        let listed = one.ctl_json::<Value>(&["names"], "").await?.unwrap();
        assert_eq!(listed["names"][1]["label"], "n2", "{listed}");

        // A file of hosts has the names from when they are written until they are removed.
        let file = std::path::PathBuf::from(one.path("hosts"));
        std::fs::write(&file, "127.0.0.1 localhost\n")?;
        for (option, has) in [("--write", true), ("--remove", false)] {
            let path = file.to_str().unwrap();
            let done = one.ctl(&["names", "hosts", option, "--file", path], "").await?;
            assert!(done.status.success(), "{}", done.stderr);
            let text = std::fs::read_to_string(&file)?;
            let line = format!("{} {} ", joined.ipv4, name.trim_end_matches('.'));
            assert!(text.starts_with("127.0.0.1 localhost\n") && text.contains(&line) == has, "{text}");
        }

        // The other member reaches the host, and not its name server.
        for server in [server, server6] {
            let query = query(&name, RecordType::A);
            let asked = within(&two.name, move || {
                let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
                socket.connect(SocketAddr::new(server, 53))?;
                socket.send(&query)?;
                socket.set_nonblocking(true)?;
                Ok::<_, Failure>(socket)
            })?;
            // What is sent later arrives, and is answered.
            let closed = connect(two, server, 54)?.unwrap_err();
            assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "{closed}");
            reach(two, one).await?;
            assert_eq!(asked.recv(&mut [0; 600]).unwrap_err().kind(), ErrorKind::WouldBlock);
            let closed = ask_tcp(two, server, &name)?.unwrap_err();
            assert_ne!(closed.kind(), ErrorKind::WouldBlock, "it is still open");
        }

        // A member that calls itself as another gets nothing of it.
        let own = format!("n1.{}.internal.", network.name);
        until(one, server, &own, Some(network.ipv4)).await?;
        let renamed = two.ctl(&["config", "set", "node.name", "N1"], "").await?;
        assert!(renamed.status.success(), "{}", renamed.stderr);
        until(one, server, &own, None).await?;
        let [a, b, c, d] = network.ipv4.octets();
        let full = format!("n1-{a}-{b}-{c}-{d}.{}.internal.", network.name);
        until(one, server, &full, Some(network.ipv4)).await?;

        // Nothing listens once the node has stopped.
        lab.nodes[0].stop_daemons().await?;
        let one = &lab.nodes[0];
        assert!(connect(one, server, 53)?.is_err());
        assert!(process_of(one.names_uid).is_err());
        lab.nodes[1].stop_daemons().await
    });
}
