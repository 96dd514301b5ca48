//! A node's own router in the hands of an attacker: a SAM bridge that hands on what no member has sent, in their names.

use std::sync::Arc;
use std::time::Duration;

use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::{Destination, base64};
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::invite::InviteSecret;
use i2plan_proto::join::{JoinBody, JoinReply, JoinRequest};
use i2plan_proto::message::{Datagram, Message};
use i2plan_proto::sam::self_test::PROBE;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::member::nonsense;
use super::world::{Tried, World};
use crate::Failure;
use crate::attack::network::{node, now, random_key, signed};
use crate::i2p::router::SAM;
use crate::i2p::sam::bind_bridge;
use crate::node::Node;
use crate::traffic::reach;

/// How long the node may take to come to the bridge, and to find its router again.
const SESSIONS: Duration = Duration::from_secs(120);

/// How often each piece is handed on in each member's name.
const TIMES: usize = 10;

/// The bridge, in the namespace of a node.
struct Bridge {
    listener: TcpListener,
    socket: Arc<UdpSocket>,
    /// What the node sends, other than what it tests its sessions with.
    sent: mpsc::UnboundedReceiver<Vec<u8>>,
    echo: tokio::task::JoinHandle<()>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.echo.abort();
    }
}

/// Answers a node's self-tests as a router does, and hands on all else that it sends.
async fn echo(socket: Arc<UdpSocket>, sent: mpsc::UnboundedSender<Vec<u8>>) {
    let mut buffer = vec![0; 32 * 1024];
    while let Ok((len, node)) = socket.recv_from(&mut buffer).await {
        let Some(end) = buffer[..len].iter().position(|byte| *byte == b'\n') else { continue };
        let (header, payload) = (String::from_utf8_lossy(&buffer[..end]), &buffer[end + 1..len]);
        if !payload.starts_with(PROBE) {
            let _ = sent.send(payload.to_vec());
            continue;
        }
        let mut words = header.split(' ').skip(1);
        let (session, destination) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let sender = if session.contains("-data-") { String::new() } else { format!("{destination}\n") };
        let _ = socket.send_to(&[sender.as_bytes(), payload].concat(), node).await;
    }
}

/// A session for control messages that the node has opened: its destination, and its port.
struct Control {
    destination: Destination,
    port: u16,
}

impl Bridge {
    fn start(namespace: &str) -> Result<Self, Failure> {
        let (listener, socket) = bind_bridge(namespace)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let (sender, sent) = mpsc::unbounded_channel();
        let echo = tokio::spawn(echo(Arc::clone(&socket), sender));
        Ok(Self { listener: TcpListener::from_std(listener)?, socket, sent, echo })
    }

    /// Serves the node until it has opened a session for this destination.
    async fn session_of(
        &self,
        wanted: &Destination,
        held: &mut Vec<tokio::task::JoinHandle<()>>,
    ) -> Result<Control, Failure> {
        let (opened, mut sessions) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted?;
                    let opened = opened.clone();
                    held.push(tokio::spawn(async move {
                        // The node ends the connection when it likes.
                        let _ = serve(stream, opened).await;
                    }));
                }
                Some(control) = sessions.recv() => {
                    let control: Control = control;
                    if control.destination == *wanted {
                        return Ok(control);
                    }
                }
            }
        }
    }

    /// Hands a datagram to the node in the name of a destination.
    async fn forward(&self, to: &Control, from: &Destination, payload: &[u8]) -> Result<(), Failure> {
        let mut datagram = format!("{} FROM_PORT=0 TO_PORT=0\n", from.to_base64()).into_bytes();
        datagram.extend_from_slice(payload);
        self.socket.send_to(&datagram, (SAM.ip(), to.port)).await?;
        Ok(())
    }

    /// Waits until the node has got through what it was handed: it refuses a joiner with an invite of the router's making.
    async fn settle(&mut self, to: &Control, network: NetworkId, inviter: NodeId) -> Result<bool, Failure> {
        let (key, secret) = (random_key(), InviteSecret(rand::random()));
        let from = Destination { padding: rand::random(), signing_key: node(&key).0 };
        let body = JoinBody {
            network,
            inviter,
            invite: secret.key(),
            joiner: node(&key),
            control: from.hash(),
            issued_at: now(),
        };
        let proof = body.prove(&secret.signing_key());
        let request = Message::JoinRequest(Box::new(JoinRequest { body: signed(body, &key), proof }));
        for _ in 0..10 {
            self.forward(to, &from, &request.to_datagram(&to.destination)).await?;
            let answer = async {
                while let Some(sent) = self.sent.recv().await {
                    if let Ok(Datagram {
                        message: Message::JoinReply(JoinReply::Refused { invite, .. }), ..
                    }) = Datagram::from_bytes(&sent)
                        && invite == secret.key()
                    {
                        return true;
                    }
                }
                false
            };
            if let Ok(answered) = tokio::time::timeout(Duration::from_secs(2), answer).await {
                return Ok(answered);
            }
        }
        Ok(false)
    }
}

/// Answers as a bridge does, and says which sessions were opened.
async fn serve(stream: TcpStream, opened: mpsc::UnboundedSender<Control>) -> Result<(), Failure> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let value = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
        let answer = if line.starts_with("HELLO") {
            "HELLO REPLY RESULT=OK VERSION=3.3\n".to_owned()
        } else if line.starts_with("SESSION CREATE") {
            let key = value("DESTINATION=").unwrap_or_default();
            let bytes = base64().decode(key.as_bytes()).unwrap_or_default();
            let destination = bytes.get(..i2plan_proto::destination::DESTINATION_LEN).unwrap_or_default();
            if let Ok(destination) = Destination::from_i2p(destination)
                && let Some(port) = value("PORT=").and_then(|port| port.parse().ok())
            {
                let _ = opened.send(Control { destination, port });
            }
            format!("SESSION STATUS RESULT=OK DESTINATION={key}\n")
        } else if line.starts_with("NAMING LOOKUP") {
            let name = value("NAME=").unwrap_or_default();
            format!("NAMING REPLY RESULT=KEY_NOT_FOUND NAME={name}\n")
        } else {
            continue;
        };
        lines.get_mut().write_all(answer.as_bytes()).await?;
    }
}

/// The node ids that a node has banned.
async fn bans(node: &Node) -> Result<Vec<String>, Failure> {
    let bans = node.control().await?.bans().await.map_err(|error| node.failure(&error.to_string()))?;
    Ok(bans.into_iter().map(|ban| ban.node_id).collect())
}

/// The router of one node says garbage and forged statements in the name of every other member.
pub(super) async fn forging_router(world: &mut World) -> Result<Tried, Failure> {
    let victim = 2;
    let attacker = world.attacker(1).await?;
    let records = attacker.station.records(&world.honest[0].1, &world.ids()).await?;
    let network = world.charter()?.network();
    let (id, place) = world.honest[victim];
    let name = world.lab.nodes[victim].name.clone();
    let banned_before = bans(&world.lab.nodes[victim]).await?;
    world.lab.kill_router(victim).await?;
    let mut bridge = Bridge::start(&name)?;
    let mut held = Vec::new();
    let control = tokio::time::timeout(SESSIONS, bridge.session_of(&place, &mut held))
        .await
        .map_err(|_| Failure::new("the node does not come to the forging router"))??;
    let senders: Vec<Destination> = records
        .iter()
        .map(|record| record.value.control.destination)
        .filter(|sender| *sender != place)
        .collect();
    let mut count = 0;
    // As slowly as the node takes it from each, so that it is looked at and not dropped for its rate.
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..TIMES {
        for payload in nonsense(&records, &control.destination) {
            for sender in &senders {
                interval.tick().await;
                bridge.forward(&control, sender, &payload).await?;
                count += 1;
            }
        }
    }
    let heard = bridge.settle(&control, network, id).await?;
    let banned: Vec<_> =
        bans(&world.lab.nodes[victim]).await?.into_iter().filter(|id| !banned_before.contains(id)).collect();
    for task in held {
        task.abort();
    }
    drop(bridge);
    world.lab.restart_router(victim).await?;
    let node = &world.lab.nodes[victim];
    node.until("it has sessions at its own router again", SESSIONS, async |node| {
        Ok(node.status().await?.sessions_are_open())
    })
    .await?;
    for other in world.nodes().iter().filter(|other| other.name != name) {
        reach(node, other).await?;
    }
    // Its destination for data is another now.
    let known = world.before.clone();
    world.look().await?;
    let mut tried = Tried::new(format!("{count} datagrams in the names of {} members", senders.len()))
        .check(banned.is_empty(), format!("the node has banned {}", banned.join(", ")));
    for (before, after) in known.iter().zip(&world.before) {
        let same =
            before.pids == after.pids && before.membership == after.membership && before.bans == after.bans;
        tried = tried.check(same, format!("{before:?} became {after:?}"));
    }
    if !heard {
        return Err(Failure::new("the node does not answer the forging router"));
    }
    Ok(tried)
}
