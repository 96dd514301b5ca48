//! A network under attack: its nodes, and what must be the same after an attack as before.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use i2plan_proto::destination::{Destination, base64};
use i2plan_proto::identity::NodeId;
use i2plan_proto::invite::Invite;
use i2plan_proto::membership::Charter;
use i2plan_proto::message::Item;
use i2plan_proto::record::NodeName;
use serde::Serialize;

use super::member::{ATTACKER, Identity, Station};
use crate::Failure;
use crate::attack::network::{node, random_key};
use crate::attack::print;
use crate::node::{Lab, Node};
use crate::progress::Progress;
use crate::traffic::{ping, reach};

/// Nodes in the network.
const NODES: usize = 3;

/// How long news may take to reach a member.
pub(super) const GOSSIP: Duration = Duration::from_secs(60);

/// How long a node is given to answer the attacker after what was sent to it, or to ban it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An attack and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct AttackReport {
    pub(super) attack: String,
    pub(super) succeeded: bool,
    pub(super) detail: String,
}

/// What an attack has done.
pub(super) struct Tried {
    /// What it should not have led to.
    pub(super) effects: Vec<String>,
    /// What was sent, and what was seen.
    pub(super) detail: String,
}

impl Tried {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { effects: Vec::new(), detail: detail.into() }
    }

    pub(super) fn check(mut self, holds: bool, effect: impl Into<String>) -> Self {
        if !holds {
            self.effects.push(effect.into());
        }
        self
    }
}

/// What must be the same after an attack as before, as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) pids: BTreeMap<String, Option<u32>>,
    /// Network, address and ranges.
    pub(super) membership: Option<(String, Ipv4Addr, Vec<String>)>,
    /// Name, address, WireGuard key and destination of each honest member.
    pub(super) members: BTreeMap<String, (String, Ipv4Addr, String, String)>,
    /// The honest member that each of the addresses leads to.
    pub(super) routes: BTreeMap<Ipv4Addr, String>,
    /// Honest members that are banned.
    pub(super) bans: Vec<String>,
}

/// A network under attack.
pub(super) struct World {
    pub(super) lab: Lab,
    pub(super) json: bool,
    pub(super) progress: Progress,
    pub(super) reports: Vec<AttackReport>,
    /// The network's charter, once an attacker has joined.
    pub(super) charter: Option<Charter>,
    /// The honest members, in the order of the laboratory's nodes.
    pub(super) honest: Vec<(NodeId, Destination)>,
    /// What is compared, by node.
    pub(super) before: Vec<View>,
    /// The attackers that are members: they are revoked after each attempt.
    pub(super) attackers: Vec<NodeId>,
}

/// A member that attacks.
pub(super) struct Attacker {
    pub(super) identity: Identity,
    pub(super) station: Station,
    pub(super) name: NodeName,
}

/// A node's id and its destination for control messages.
pub(super) async fn identity(node: &Node) -> Result<(NodeId, Destination), Failure> {
    let keys = node.control().await?.keys().await.map_err(|error| node.failure(&error.to_string()))?;
    let unreadable = || node.failure("its keys cannot be read");
    let id = keys.node_id.parse().map_err(|_| unreadable())?;
    let destination = base64().decode(keys.control.base64.as_bytes()).map_err(|_| unreadable())?;
    Ok((id, Destination::from_i2p(&destination).map_err(|_| unreadable())?))
}

impl World {
    pub(super) async fn start(json: bool) -> Result<Self, Failure> {
        let progress = Progress::new();
        progress.step("starting a private I2P network and its nodes");
        // One node more, which joins later.
        let mut lab = Lab::with_nodes(NODES + 1).await?;
        lab.add_stranger(ATTACKER).await?;
        for node in &lab.nodes {
            let set = node.control().await?.set_config("mesh.heartbeat_interval".into(), "5s".into()).await;
            set.map_err(|error| node.failure(&error.to_string()))?;
        }
        progress.step("joining them");
        for index in 1..NODES {
            lab.nodes[index].join_by(&lab.nodes[index - 1]).await?;
            reach(&lab.nodes[index], &lab.nodes[0]).await?;
        }
        let mut world = Self {
            lab,
            json,
            progress,
            reports: Vec::new(),
            charter: None,
            honest: Vec::new(),
            before: Vec::new(),
            attackers: Vec::new(),
        };
        for index in 0..NODES {
            world.add_honest(index).await?;
        }
        Ok(world)
    }

    /// A node of the laboratory is an honest member.
    pub(super) async fn add_honest(&mut self, index: usize) -> Result<(), Failure> {
        self.honest.push(identity(&self.lab.nodes[index]).await?);
        for node in &self.lab.nodes[..self.honest.len()] {
            node.until("it knows all honest members", GOSSIP, async |node| {
                let peers = node.peers().await?;
                let is_known = |(id, _): &&(NodeId, Destination)| {
                    peers.iter().any(|peer| peer.node_id == id.to_string())
                };
                Ok(self.honest.iter().filter(is_known).count() + 1 == self.honest.len())
            })
            .await?;
        }
        Ok(())
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.lab.nodes[..self.honest.len()]
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.honest.iter().map(|(id, _)| *id).collect()
    }

    /// Where the honest members take control messages.
    pub(super) fn places(&self) -> Vec<Destination> {
        self.honest.iter().map(|(_, destination)| *destination).collect()
    }

    pub(super) fn charter(&self) -> Result<&Charter, Failure> {
        self.charter.as_ref().ok_or_else(|| Failure::new("no attacker has joined yet"))
    }

    /// Makes an attempt and looks at what has come of it.
    pub(super) async fn attempt(
        &mut self,
        attack: &str,
        work: impl AsyncFnOnce(&mut Self) -> Result<Tried, Failure>,
    ) -> Result<(), Failure> {
        self.progress.step(attack);
        self.look().await?;
        let Tried { mut effects, detail } = work(self).await.map_err(|failure| failure.during(attack))?;
        effects.extend(self.differences().await?);
        for (from, to) in self.nodes().iter().zip(self.nodes().iter().cycle().skip(1)) {
            if let Err(failure) = reach(from, to).await {
                effects.push(format!("{} does not reach {}: {failure}", from.name, to.name));
            }
        }
        let succeeded = !effects.is_empty();
        let detail = if succeeded { format!("{}; {detail}", effects.join("; ")) } else { detail };
        let report = AttackReport { attack: attack.to_owned(), succeeded, detail };
        if self.json {
            print(&report)?;
        } else {
            println!(
                "{} {}: {}",
                if succeeded { "SUCCEEDED" } else { "failed   " },
                report.attack,
                report.detail
            );
        }
        self.reports.push(report);
        for attacker in std::mem::take(&mut self.attackers) {
            self.expel(&attacker).await?;
        }
        Ok(())
    }

    /// Notes what is to be the same later.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        let mut views = Vec::new();
        for node in self.nodes() {
            views.push(self.view(node).await?);
        }
        self.before = views;
        Ok(())
    }

    async fn view(&self, node: &Node) -> Result<View, Failure> {
        let failed = |error: i2plan_ipc::client::ClientError| node.failure(&error.to_string());
        let mut control = node.control().await?;
        let status = control.status().await.map_err(failed)?;
        let is_honest = |id: &str| self.honest.iter().any(|(honest, _)| honest.to_string() == id);
        let peers = control.peers().await.map_err(failed)?;
        let routes = control.routes().await.map_err(failed)?;
        let bans = control.bans().await.map_err(failed)?;
        Ok(View {
            pids: status.daemons.into_iter().map(|daemon| (daemon.name, daemon.pid)).collect(),
            membership: status.network.map(|network| (network.id, network.ipv4, network.ranges)),
            members: peers
                .into_iter()
                .filter(|peer| is_honest(&peer.node_id))
                .map(|peer| (peer.node_id, (peer.name, peer.ipv4, peer.public_key, peer.endpoint)))
                .collect(),
            routes: routes
                .into_iter()
                .filter(|route| is_honest(&route.node_id))
                .map(|route| (route.ipv4, route.node_id))
                .collect(),
            bans: bans.into_iter().map(|ban| ban.node_id).filter(|id| is_honest(id)).collect(),
        })
    }

    /// What is not as it was.
    async fn differences(&self) -> Result<Vec<String>, Failure> {
        let mut differences = Vec::new();
        for (node, before) in self.nodes().iter().zip(&self.before) {
            let after = match self.view(node).await {
                Ok(after) => after,
                Err(failure) => {
                    differences.push(failure.to_string());
                    continue;
                }
            };
            if after != *before {
                differences.push(format!("{}: {before:?} became {after:?}", node.name));
            }
        }
        Ok(differences)
    }

    /// An attacker that the founder has invited and whom all honest members know.
    pub(super) async fn attacker(&mut self, addresses: u32) -> Result<Attacker, Failure> {
        let station = Station::open().await?;
        let key = random_key();
        let code = self.lab.nodes[0].invite(&["--addresses", &addresses.to_string()]).await?;
        let invite: Invite = code.parse().map_err(|_| Failure::new("the invite cannot be read"))?;
        let welcome = station.join(&invite, &self.honest[0].1, &key).await?;
        let welcome =
            welcome.map_err(|refusal| Failure::new(format!("the attacker was refused: {refusal}")))?;
        welcome.chain.verify(&welcome.charter.value).map_err(|error| Failure::new(error.to_string()))?;
        self.charter = Some(welcome.charter.value);
        let mut identity = Identity::new(key, welcome.chain);
        identity.control = station.place.clone();
        let name: NodeName = format!("attacker-{:04x}", rand::random::<u16>())
            .parse()
            .map_err(|_| Failure::new("no node name"))?;
        let attacker = Attacker { identity, station, name };
        let record = attacker.identity.item(attacker.identity.record(&attacker.name, 1));
        self.introduce(&attacker, &attacker.identity, record).await?;
        self.attackers.push(attacker.identity.node());
        Ok(attacker)
    }

    /// Tells all honest members a record until they know its node.
    pub(super) async fn introduce(
        &self,
        attacker: &Attacker,
        identity: &Identity,
        record: Item,
    ) -> Result<(), Failure> {
        let id = identity.node().to_string();
        for (node, (_, place)) in self.nodes().iter().zip(&self.honest) {
            node.until("it knows the attacker", GOSSIP, async |node| {
                attacker.station.tell(&[*place], std::slice::from_ref(&record)).await?;
                let known = async |node: &Node| Ok(node.peers().await?.iter().any(|peer| peer.node_id == id));
                Ok(node.until("the record is taken", Duration::from_secs(2), known).await.is_ok())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until all nodes have got through what a destination has sent, or have banned the member that uses it.
    /// Returns how many have banned it.
    pub(super) async fn settle(&self, station: &Station, member: Option<NodeId>) -> Result<usize, Failure> {
        let network = self.charter()?.network();
        let mut banned = 0;
        for (node, (id, place)) in self.nodes().iter().zip(&self.honest) {
            let started = Instant::now();
            loop {
                if let Some(member) = member
                    && self.has_banned(node, &member).await?
                {
                    banned += 1;
                    break;
                }
                if station.is_heard(network, *id, place, Duration::from_secs(4)).await? {
                    let is_banned = match member {
                        Some(member) => self.has_banned(node, &member).await?,
                        None => false,
                    };
                    banned += usize::from(is_banned);
                    break;
                }
                if started.elapsed() > TIMEOUT {
                    return Err(node.failure("it answers the attacker no longer, and has not banned it"));
                }
            }
        }
        Ok(banned)
    }

    pub(super) async fn has_banned(&self, node: &Node, member: &NodeId) -> Result<bool, Failure> {
        let bans = node.control().await?.bans().await.map_err(|error| node.failure(&error.to_string()))?;
        Ok(bans.iter().any(|ban| ban.node_id == member.to_string()))
    }

    /// Which of these members the nodes know.
    pub(super) async fn known(&self, ids: &[NodeId]) -> Result<Vec<String>, Failure> {
        let mut known = Vec::new();
        for node in self.nodes() {
            for peer in node.peers().await? {
                if ids.iter().any(|id| id.to_string() == peer.node_id) {
                    known.push(format!("{} knows {} at {}", node.name, peer.name, peer.ipv4));
                }
            }
        }
        Ok(known)
    }

    /// Has the founder revoke a member, and waits until no node knows it.
    pub(super) async fn expel(&self, member: &NodeId) -> Result<(), Failure> {
        let founder = &self.lab.nodes[0];
        if founder.peers().await?.iter().all(|peer| peer.node_id != member.to_string()) {
            return Ok(());
        }
        founder.revoke(&member.to_string()).await?;
        for node in self.nodes() {
            node.until("it knows the revoked member no longer", GOSSIP, async |node| {
                Ok(node.peers().await?.iter().all(|peer| peer.node_id != member.to_string()))
            })
            .await?;
        }
        Ok(())
    }

    /// Whether an echo comes back from one honest node to another.
    pub(super) async fn pings(&self, from: usize, to: usize) -> Result<bool, Failure> {
        let target = self.lab.nodes[to].address().await?;
        Ok(ping(&self.lab.nodes[from], target, 5, false).await?.received > 0)
    }

    /// An identity of the attacker's making at a place in its own addresses.
    pub(super) fn invented(
        &self,
        attacker: &Attacker,
        number: u32,
        serial: u64,
    ) -> Result<Identity, Failure> {
        let key = random_key();
        let ranges = attacker.identity.spare(self.charter()?, number);
        let chain = attacker.identity.certify(node(&key), ranges, serial, false);
        Ok(Identity::new(key, chain))
    }
}
