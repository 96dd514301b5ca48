//! Finding out whether members are there: pings, answers to them, and what is said of those that do not answer.

use std::time::Duration;

use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd;
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::message::{Addressee, GOOD_LEN, Gossip, Item, MAX_ITEMS, Message};
use i2plan_proto::record::Record;
use i2plan_proto::suspicion::Suspicion;
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use tracing::{debug, info};

use crate::core::context::{Context, PingForUser};
use crate::core::detector::{Acked, Task};
use crate::core::error::MeshError;
use crate::core::local_member::LocalMember;
use crate::core::members::{CONFIRMATIONS, Member};
use crate::core::requests::Pending;
use crate::core::rumors::Topic;
use crate::core::{CommandId, Now};

/// Through how many others a member is pinged that has not answered for long.
const FEW_RELAYS: usize = 3;

/// Members that are asked to see whether this node hears any.
const ASKED: usize = 3;

/// So many of all members check a suspicion for themselves.
const CONFIRMERS: u64 = 6;

/// A member is told again of what others say of it after this at the earliest.
const TELL_SUSPECTED: Duration = Duration::from_secs(10);

/// Members of which it is noted at once that they have given a sign of life. They do so again.
const MAX_AWAKE: usize = 64;

/// Says who the sender is, and where: it may be at a destination that the receiver does not know.
fn own_record(own: Signed<Record>) -> Gossip {
    Gossip { entries: Vec::new(), items: vec![Item::Record(Box::new(own))] }
}

impl LocalMember {
    pub(super) fn detect(&mut self, cx: &mut Context, now: Now) {
        if !cx.budget.allows(now.monotonic) {
            self.detector.postpone_probe(now.monotonic);
        }
        let (members, bans) = (&self.members, &self.bans);
        let member = |place| {
            let member = members.at_place(place).filter(|member| !bans.is_banned(&member.node()))?;
            Some((member.node(), *member.record.control()))
        };
        for task in self.detector.handle_timeout(now.monotonic, || members.places(), member, &mut cx.rng) {
            match task {
                Task::Ping { node, number, relays, introduces } => {
                    self.ping(cx, node, number, relays, introduces, now);
                }
                Task::Unreached { node, since } => self.handle_unreached(cx, node, since, now),
            }
        }
    }

    /// Looks whether these members are there, out of turn.
    pub(crate) fn probe_members(&mut self, cx: &mut Context, nodes: &[NodeId], now: Now) {
        for node in nodes {
            if let Some(member) = self.members.get(node).filter(|member| !member.is_away())
                && !self.bans.is_banned(node)
            {
                self.detector.begin(*node, *member.record.control(), now.monotonic, &mut cx.rng);
            }
        }
    }

    /// Looks whether one that is held to be out of reach is there again. It may not know what is said of it, nor where this
    /// node is, and until it is probed in turn can take hours.
    pub(super) fn ping_unreachable(&mut self, cx: &mut Context, now: Now) {
        let suspicion_timeout = cx.settings.suspicion_timeout();
        let unreachable = |member: &&Member| {
            self.members.liveness(member, now.monotonic, suspicion_timeout) == meshd::Liveness::Unreachable
                && !self.bans.is_banned(&member.node())
        };
        let Some(own) = self.publication.record.clone() else { return };
        let one = self.members.suspects().filter(unreachable).choose(&mut cx.rng);
        let Some(control) = one.map(|member| member.way(&mut cx.rng)) else { return };
        let number = cx.rng.random();
        cx.counts.reconnections += 1;
        self.send(cx, &control, &Message::Ping(number, own_record(own)), now);
    }

    fn ping(
        &mut self,
        cx: &mut Context,
        node: NodeId,
        number: u64,
        relays: usize,
        introduces: bool,
        now: Now,
    ) {
        let Some(member) = self.members.get(&node) else { return };
        let control = member.way(&mut cx.rng);
        cx.counts.reconnections += u64::from(self.liveness(cx, member, now) == meshd::Liveness::Unreachable);
        // That it does not answer is known, and most that do not are down.
        let relays = if member.contact().unreached { relays.min(FEW_RELAYS) } else { relays };
        let mut gossip = self.some_gossip(cx, GOOD_LEN / 2, now);
        if let Some(own) =
            self.publication.record.clone().filter(|_| introduces && gossip.items.len() < MAX_ITEMS)
        {
            gossip.items.push(Item::Record(Box::new(own)));
        }
        self.note_asked(cx, &node, now);
        self.send(cx, &control, &Message::Ping(number, gossip), now);
        let reachable =
            |member: &Member| member.node() != node && !member.contact().unreached && !member.is_away();
        for relay in self.draw(cx, relays, reachable) {
            self.detector.asked_relay(number, relay.hash());
            self.send(cx, &relay, &Message::PingRequest(number, node, Gossip::default()), now);
        }
    }

    /// Pings a member for a user. One that answers is there, whatever else is known of it.
    pub(crate) fn ping_for_user(&mut self, cx: &mut Context, command: CommandId, node: &str, now: Now) {
        let member = self.known_node(cx, node).and_then(|node| {
            let Some(own) = self.publication.record.clone() else { return Err(MeshError::NotPublished) };
            if self.bans.is_banned(&node) {
                return Err(MeshError::Banned);
            }
            // It may know this node by another destination, or not yet.
            Ok((node, own_record(own)))
        });
        let (node, gossip) = match member {
            Ok(member) => member,
            Err(error) => return cx.answer(command, Err(error)),
        };
        let Some(member) = self.members.get(&node) else { return };
        let control = member.way(&mut cx.rng);
        let number = cx.rng.random();
        cx.pings.insert(number, PingForUser { command, node, sent: now.monotonic });
        self.send(cx, &control, &Message::Ping(number, gossip), now);
    }

    /// Asks a few members for an answer, to see whether this node hears any. They learn who asks: this node may be at a
    /// destination that they do not know.
    pub(crate) fn ask_members(&mut self, cx: &mut Context, now: Now) {
        let Some(own) = self.publication.record.clone() else { return };
        if !cx.budget.allows(now.monotonic) {
            return;
        }
        let reachable = self.members.iter().any(|member| !member.is_away());
        for target in self.draw(cx, ASKED, |member| !reachable || !member.is_away()) {
            let gossip = own_record(own.clone());
            let number = cx.rng.random();
            cx.asked = true;
            self.send(cx, &target, &Message::Ping(number, gossip), now);
        }
    }

    /// Notes that a member was asked for an answer, if one is to be expected.
    fn note_asked(&self, cx: &mut Context, node: &NodeId, now: Now) {
        let expected = |member: &Member| !member.is_away() || !self.knows_who_is_away(now.monotonic);
        cx.asked |= self.members.get(node).is_some_and(expected);
    }

    /// A probe has failed.
    fn handle_unreached(&mut self, cx: &mut Context, node: NodeId, since: Duration, now: Now) {
        let alone = self.members.len() < 2;
        // Who has not heard of anybody meanwhile is cut off itself, and says nothing of others.
        let cut_off = self.members.last_heard().is_none_or(|heard| heard <= since);
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.is_away() || member.contact().last_heard.is_some_and(|heard| heard > since) {
            return;
        }
        if !std::mem::replace(&mut member.contact_mut().unreached, true) {
            info!(node = %node.short(), name = %member.record.value.name, "a member does not answer");
        }
        if cut_off && !alone {
            debug!("nobody answers: this node is cut off itself");
            return;
        }
        let sequence = member.sequence();
        let confirmers: Vec<NodeId> =
            member.suspicions().map(|suspicion| suspicion.value.confirmer).collect();
        let asked = |pending: &Pending| matches!(pending, Pending::Suspicion(value) if value.subject == node);
        let network = self.network();
        if confirmers.contains(&cx.me.node) || confirmers.len() >= CONFIRMATIONS {
            // Some may have missed what was said of it.
            for confirmer in confirmers {
                let block = self.block_of(&confirmer);
                self.rumors.add(Topic::Suspicion(node, confirmer), block, now.monotonic);
            }
            return;
        }
        if cx.pending.values().any(asked) {
            return;
        }
        let suspicion = Suspicion {
            network,
            confirmer: cx.me.node,
            subject: node,
            sequence,
            issued_at: now.unix.as_secs(),
        };
        cx.ask(Pending::Suspicion(suspicion.clone()), keyd::Request::SignAccusation(suspicion));
    }

    /// The own suspicion is signed.
    pub(crate) fn handle_signed_suspicion(
        &mut self,
        cx: &mut Context,
        suspicion: Signed<Suspicion>,
        now: Now,
    ) {
        let topic = Topic::Suspicion(suspicion.value.subject, suspicion.value.confirmer);
        if self.members.merge_suspicion(suspicion, &cx.me.node, now.monotonic) {
            self.rumors.add(topic, None, now.monotonic);
            self.update_liveness(cx, false, now);
        }
    }

    pub(crate) fn handle_ping(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        (number, to): (u64, Addressee),
        now: Now,
    ) {
        // Strangers learn nothing.
        if self.publication.record.is_some() && self.members.is_member(&from.hash()) {
            let asker = self.asker(&from.hash());
            if cx.budget.may_answer(&asker, now.monotonic) {
                let own =
                    self.publication.record.clone().filter(|_| Addressee::from(cx.control().hash()) != to);
                let gossip = match own {
                    // Who asks at a destination that this node has left does not know whose the answer is.
                    Some(own) => own_record(own),
                    None => self.some_gossip(cx, GOOD_LEN / 2, now),
                };
                self.reply(cx, from, &Message::Ack(number, gossip), now);
            } else {
                let message = Message::Ack(number, Gossip::default()).to_datagram(from);
                if cx.budget.acknowledges(&asker, message.len(), now.monotonic) {
                    cx.queue_datagram(from, message, false, now);
                }
            }
        }
    }

    pub(crate) fn handle_ping_request(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        number: u64,
        node: &NodeId,
        now: Now,
    ) {
        if !self.members.is_member(&from.hash()) || self.bans.is_banned(node) {
            return;
        }
        let Some(member) = self.members.get(node) else { return };
        let (control, hash) = (member.way(&mut cx.rng), *member.record.control());
        let asker = self.asker(&from.hash());
        if cx.budget.may_answer(&asker, now.monotonic)
            && let Some(own) =
                self.detector.handle_ping_request(hash, *from, asker, number, now.monotonic, &mut cx.rng)
        {
            cx.answer_for(&asker, &control, &Message::Ping(own, Gossip::default()), now);
        }
    }

    pub(crate) fn handle_ack(&mut self, cx: &mut Context, from: &Destination, number: u64, now: Now) {
        // A member may answer from another of its destinations than it was asked at.
        let from = from.hash();
        if let Some(ping) = cx.pings.get(&number) {
            if self.members.at(&from).any(|node| node == ping.node) {
                let rtt = now.monotonic.saturating_sub(ping.sent);
                if let Some(member) = self.members.get_mut(&ping.node) {
                    member.contact_mut().rtt = Some(rtt);
                }
                let milliseconds = u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX);
                cx.answer(ping.command, Ok(meshd::Reply::Pinged { milliseconds }));
                cx.pings.remove(&number);
            }
            return;
        }
        let there = self.members.at(&from).filter_map(|node| self.members.get(&node));
        let controls = [from].into_iter().chain(there.flat_map(|member| member.record.controls()));
        let acked = controls
            .map(|control| self.detector.handle_ack(&control, number, now.monotonic))
            .find(|acked| !matches!(acked, Acked::Unknown));
        match acked.unwrap_or(Acked::Unknown) {
            Acked::Directly { node, rtt } => {
                if let Some(member) = self.members.get_mut(&node) {
                    member.contact_mut().rtt = Some(rtt);
                }
            }
            Acked::Through { node } => {
                let relay = self.members.at(&from).next();
                if let Some(member) = self.members.get_mut(&node) {
                    debug!(node = %node.short(), "a member is reached through another only");
                    member.saw(now.unix.as_secs());
                    let contact = member.contact_mut();
                    contact.via = relay;
                    contact.unreached = false;
                }
            }
            Acked::Errand { to, number } => {
                self.reply(cx, &to, &Message::Ack(number, Gossip::default()), now);
            }
            Acked::Unknown => {}
        }
    }

    /// Whether this node is one of those who check a member that others could not reach. By lot, and a lot that is
    /// cast anew for each statement of the member.
    pub(super) fn is_confirmer(&self, cx: &Context, subject: &NodeId, sequence: u64) -> bool {
        let members = self.members.len() as u64 + 1;
        let lot = |id: &NodeId| u64::from_be_bytes(*id.0.first_chunk().expect("an id has 32 bytes"));
        let draw = (lot(&cx.me.node) ^ lot(subject)).wrapping_add(sequence);
        draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < (CONFIRMERS << 32) / members
    }

    /// A control message came from a destination.
    pub(crate) fn heard(&mut self, cx: &mut Context, control: &DestinationHash, now: Now) {
        for node in self.members.heard(control, now.monotonic, now.unix.as_secs()) {
            self.detector.heard(&node);
            self.note_awake(node);
            self.repeat_grant(cx, &node, now);
            if self.members.doubt(&node, now.monotonic) {
                info!("a part of the network that did not answer is there again");
                continue;
            }
            // What others say of it is told to it, so that it can answer.
            let Some(member) = self.members.get_mut(&node) else { continue };
            if member.contact().told_at.is_some_and(|told| now.monotonic < told + TELL_SUSPECTED) {
                continue;
            }
            let items: Vec<Item> = member.suspicions().cloned().map(Item::Suspicion).collect();
            if !items.is_empty() {
                member.contact_mut().told_at = Some(now.monotonic);
                let to = *member.record.value.control;
                self.send_items(cx, &to, items, now);
            }
        }
    }

    /// A member has given a sign of life.
    pub(super) fn note_awake(&mut self, node: NodeId) {
        if self.awake.len() < MAX_AWAKE {
            self.awake.insert(node);
        }
    }
}
