//! Taking in what others say: records, liveness, suspicions and ends of memberships.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use i2plan_ipc::api::keyd::Statement;
use i2plan_ipc::api::meshd::EventKind;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{BadSignature, NodeId, Signable as _, Signed};
use i2plan_proto::liveness::{LivenessMessage, Presence};
use i2plan_proto::membership::Chain;
use i2plan_proto::message::{Gossip, Item, Message};
use i2plan_proto::record::{Record, RecordError};
use i2plan_proto::suspicion::Suspicion;
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::{debug, info, warn};

use super::schedule::Comparison;
use crate::core::Now;
use crate::core::budget::block;
use crate::core::compare::{has_more, nothing};
use crate::core::context::Context;
use crate::core::endings::Ending;
use crate::core::local_member::{FORGET_AFTER, LocalMember};
use crate::core::members::{EndingMerge, Member, Merge, RecordMerge};
use crate::core::rumors::Topic;
use crate::core::shares::AddressInBlock;
use crate::core::situation::{Departure, Standing};
use crate::core::verified::VerifiedRecord;

/// How long other members' records may be newer in memory than on disk. They can be had again by gossip.
const SAVE_RECORDS_AFTER: Duration = Duration::from_secs(5);

/// How long only their liveness messages may be. With each the whole state is written.
const SAVE_LIVENESS_AFTER: Duration = Duration::from_secs(10 * 60);

/// A node that was started again leaves because its membership has ended after this at the earliest, if no member has
/// told it of a newer one until then.
const LEAVE_AFTER: Duration = Duration::from_secs(45);

impl LocalMember {
    pub(crate) fn handle_gossip(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        gossip: Gossip,
        now: Now,
    ) -> Standing {
        for item in gossip.items {
            self.handle_item(cx, item, from, now)?;
        }
        let wanted = gossip.entries.iter().filter_map(|theirs| {
            let mine = self.members.index().get(&theirs.position()).unwrap_or(nothing(theirs.node));
            has_more(theirs, &mine).then_some(mine)
        });
        let wanted: Vec<_> = wanted.collect();
        self.ask_for(cx, from, wanted, now);
        ControlFlow::Continue(())
    }

    /// Takes in something that a member has sent.
    fn handle_item(&mut self, cx: &mut Context, item: Item, from: &Destination, now: Now) -> Standing {
        match item {
            Item::Record(record) => self.handle_record(cx, *record, from, now),
            Item::Liveness(liveness_message) => self.handle_liveness(cx, liveness_message, now),
            Item::Suspicion(suspicion) => self.handle_suspicion(cx, suspicion, now),
            Item::Revocation(revocation) => {
                return self.handle_ending(cx, Ending::Revocation(revocation), now);
            }
            Item::Resignation(resignation) => {
                return self.handle_ending(cx, Ending::Resignation(resignation), now);
            }
        }
        ControlFlow::Continue(())
    }

    fn handle_record(&mut self, cx: &mut Context, record: Signed<Record>, from: &Destination, now: Now) {
        let membership = &self.membership;
        let charter = &membership.charter.value;
        let value = &record.value;
        let node = value.node;
        let is_local = node == cx.me.node;
        // Most records are known already; only news costs a verification.
        let news = if is_local { cx.counter < value.sequence } else { self.members.is_newer(value) };
        if !news || value.network() != charter.network() || !is_timely(value, now) {
            return;
        }
        let before = self.members.get(&node).map(|member| &member.record);
        let certificates = self.members.certificates();
        let is_known = |id: &_, signature: &_| certificates.is_known(id, signature);
        let record = match VerifiedRecord::new_except(record, charter, before, is_known) {
            Ok(record) => record,
            Err(error) => {
                debug!(%error, node = %node.short(), "dropped a record");
                let forged = RecordError::BadSignature(BadSignature { what: Record::WHAT });
                return self.strike_signer(cx, error != forged, &node, now);
            }
        };
        self.rumors.answered(&node);
        if is_local {
            return self.handle_local_record(cx, &record);
        }
        let value = &record.value;
        let (name, sequence, chain) = (value.name.clone(), value.sequence, value.chain.clone());
        let ipv4 = record.ipv4();
        let is_new = self.members.get(&node).is_none();
        let share = charter.subnet.share_of(ipv4);
        match self.members.merge_record(record, now.monotonic, now.unix.as_secs()) {
            RecordMerge::Known => {}
            RecordMerge::Refused => debug!(node = %node.short(), "dropped a record: no room, or too soon"),
            RecordMerge::Ended => {
                // It is not known where this comes from that the membership has ended.
                if let Some((_, ending)) = self.members.endings().against(&chain) {
                    let news = Message::news(vec![ending.item()]);
                    self.reply(cx, from, &news, now);
                }
            }
            RecordMerge::Falls { holder, range, issuer } => {
                self.note_conflict(&chain, range, issuer, now);
                // Who sends it learns who has the addresses.
                let items = self.items_beyond(cx, &nothing(holder));
                if !items.is_empty() {
                    self.reply(cx, from, &Message::news(items), now);
                }
            }
            RecordMerge::News { fallen, out } => {
                if is_new {
                    info!(node = %node.short(), %name, %ipv4, "learned of a member");
                    self.announcer.compare_soon(now.monotonic);
                    let members = self.members.len();
                    self.rumors.add_newcomer(node, share, members, now.monotonic, &mut cx.rng);
                } else {
                    debug!(node = %node.short(), sequence, "learned a newer record");
                    let place = AddressInBlock { block: share, address: ipv4.to_bits() };
                    if self.rumors.is_record_passed_on(place, now.monotonic) {
                        self.rumors.add(Topic::Record(node), Some(share), now.monotonic);
                    }
                }
                for other in &out {
                    warn!(
                        node = %other.short(), holder = %node.short(), %ipv4,
                        "a member has lost its addresses: they were delegated twice"
                    );
                    self.forget(other);
                }
                self.note_fallen(&fallen, &chain);
                self.heard(cx, &from.hash(), now);
                self.note_awake(node);
                self.save_by(now.monotonic + SAVE_RECORDS_AFTER);
                cx.peers_version += 1;
            }
        }
        self.learn_delegation(cx, &chain, now);
    }

    fn handle_liveness(&mut self, cx: &mut Context, liveness_message: Signed<LivenessMessage>, now: Now) {
        let membership = &self.membership;
        let node = liveness_message.value.node;
        let is_local = node == cx.me.node;
        let news = if is_local {
            cx.counter < liveness_message.value.sequence
        } else {
            self.members.is_later(&liveness_message.value)
        };
        if !news || liveness_message.value.network != membership.charter.value.network() {
            return;
        }
        if let Err(error) = liveness_message.verify() {
            debug!(%error, node = %node.short(), "dropped a liveness message");
            return;
        }
        self.rumors.answered(&node);
        if is_local {
            return cx.note_local_statement(
                liveness_message.value.sequence,
                Statement::Liveness(liveness_message),
            );
        }
        let presence = liveness_message.value.presence;
        if self.members.merge_liveness_message(liveness_message, now.monotonic) == Merge::News {
            if let Some(member) = self.members.get_mut(&node) {
                member.saw(now.unix.as_secs());
                let name = &member.record.value.name;
                debug!(node = %node.short(), %name, ?presence, "learned a newer liveness message");
            }
            match presence {
                Presence::Present => self.note_awake(node),
                Presence::Away => cx.counts.departures_received += 1,
            }
            self.save_by(now.monotonic + SAVE_LIVENESS_AFTER);
            let share = self.block_of(&node);
            let address = self.members.get(&node).map(|member| member.record.ipv4().to_bits());
            let place = share.zip(address).map(|(block, address)| AddressInBlock { block, address });
            if place.is_some_and(|place| self.rumors.is_liveness_message_passed_on(place, now.monotonic)) {
                self.rumors.add(Topic::Liveness(node), share, now.monotonic);
            }
        }
    }

    fn handle_suspicion(&mut self, cx: &mut Context, suspicion: Signed<Suspicion>, now: Now) {
        let membership = &self.membership;
        // Its time is information: the clock at fault may be the confirmer's or this node's.
        let Suspicion { network, confirmer, subject, sequence, issued_at: _ } = suspicion.value;
        if network != membership.charter.value.network() {
            return;
        }
        let against_me = subject == cx.me.node;
        let news = if against_me {
            self.local_sequence().is_some_and(|latest| sequence >= latest)
        } else {
            confirmer != cx.me.node && self.members.is_suspicion_needed(&suspicion.value, now.monotonic)
        };
        if !news {
            return;
        }
        if let Err(error) = suspicion.verify() {
            debug!(%error, node = %confirmer.short(), "dropped a suspicion");
            return;
        }
        if against_me {
            return self.handle_local_suspicion(cx, confirmer, sequence, now);
        }
        if !self.members.merge_suspicion(suspicion, &cx.me.node, now.monotonic) {
            return;
        }
        let block = self.block_of(&confirmer);
        self.rumors.add(Topic::Suspicion(subject, confirmer), block, now.monotonic);
        if self.is_confirmer(cx, &subject, sequence)
            && let Some(member) = self.members.get(&subject)
        {
            let control = *member.record.control();
            self.detector.begin(subject, control, now.monotonic, &mut cx.rng);
        }
    }

    fn handle_ending(&mut self, cx: &mut Context, ending: Ending, now: Now) -> Standing {
        let charter = self.charter();
        if ending.chain().network() != charter.network() || self.members.endings().get(&ending.id()).is_some()
        {
            return ControlFlow::Continue(());
        }
        if let Err(error) = ending.verify(charter) {
            debug!(%error, node = %ending.signer().short(), "dropped the end of a membership");
            self.strike_signer(cx, ending.is_signed(), &ending.signer().clone(), now);
            return ControlFlow::Continue(());
        }
        self.rumors.answered(&ending.id());
        let chain = ending.chain().clone();
        self.end_memberships(cx, ending, now);
        self.learn_delegation(cx, &chain, now);
        self.standing(now)
    }

    /// Takes in how memberships have ended. Whether this node's own is among them is left to
    /// [`LocalMember::standing`].
    pub(crate) fn end_memberships(&mut self, cx: &mut Context, ending: Ending, now: Now) -> EndingMerge {
        let (id, issuer) = (ending.id(), *ending.signer());
        // Nobody speaks to those that are out any more, so some tell them while they know where.
        let tells = issuer == cx.me.node || self.is_confirmer(cx, &id, 0);
        let is_out = |member: &&Member| tells && ending.voids(&member.record.value.chain).is_some();
        let places: HashMap<NodeId, Destination> = self
            .members
            .iter()
            .filter(is_out)
            .map(|member| (member.node(), *member.record.value.control))
            .collect();
        let signer = self.members.place_of_signer(&ending);
        let merged = self.members.merge_ending(ending.clone());
        match &merged {
            EndingMerge::Known => {}
            EndingMerge::Full => debug!(node = %issuer.short(), "no room for the end of a membership"),
            EndingMerge::News(out) => {
                match &ending {
                    Ending::Revocation(_) => {
                        info!(node = %issuer.short(), members = out.len(), "a membership was revoked");
                    }
                    Ending::Resignation(_) => {
                        cx.counts.departures_received += 1;
                        info!(node = %issuer.short(), "a member has left the network");
                    }
                }
                for node in out {
                    self.forget(node);
                    if let Some(to) = places.get(node).filter(|_| *node != issuer) {
                        self.send_items(cx, to, vec![ending.item()], now);
                    }
                }
                if signer.is_none_or(|signer| self.rumors.is_ending_passed_on(signer, now.monotonic)) {
                    self.rumors.add(Topic::Ending(id), block(&signer), now.monotonic);
                }
                self.end_delegations(cx, now);
                cx.note_if_delegated(&ending);
                // Others can tell it again.
                self.save_by(now.monotonic + SAVE_RECORDS_AFTER);
                cx.peers_version += 1;
            }
        }
        merged
    }

    /// Whether this node is still a member. That is decided by the chain in its newest record, to which it has consented,
    /// and by that alone; so a node that may have forgotten a newer one asks others first.
    pub(super) fn standing(&self, now: Now) -> Standing {
        let may_be_old = match self.comparisons.since_start {
            Comparison::Waiting(announced) => announced.is_none_or(|at| now.monotonic < at + LEAVE_AFTER),
            other => !other.is_done(now.monotonic),
        };
        if may_be_old {
            return ControlFlow::Continue(());
        }
        match self.members.endings().against(&self.membership.chain) {
            Some((_, ending)) => ControlFlow::Break(Departure::Ended(Box::new(ending.clone()))),
            None => ControlFlow::Continue(()),
        }
    }

    /// A node is no member any more.
    fn forget(&mut self, node: &NodeId) {
        self.detector.forget(node);
        self.rumors.drop_topic(&Topic::Record(*node));
    }

    /// A record of this node that it does not remember: the chain of its newest record is its own.
    fn handle_local_record(&mut self, cx: &mut Context, record: &VerifiedRecord) {
        let chain = &record.value.chain;
        if self.members.endings().against(chain).is_none() {
            self.adopt(cx, chain);
        }
        cx.note_local_statement(record.value.sequence, Statement::Record(Box::new((**record).clone())));
    }

    /// This node has consented to a chain that it does not remember, and goes on with that. True if it
    /// had another.
    pub(crate) fn adopt(&mut self, cx: &mut Context, chain: &Chain) -> bool {
        if self.membership.chain == *chain {
            return false;
        }
        warn!("this node's state is older than its newest record: it goes on with the membership of that");
        let before = self.ipv4();
        self.membership.chain = chain.clone();
        self.members.set_local_chain(chain.clone());
        let ipv4 = self.ipv4();
        if ipv4 != before {
            cx.events.push(EventKind::AddressChanged { ipv4: ipv4.to_string() });
        }
        self.addresses.displaced = None;
        cx.peers_version += 1;
        true
    }

    /// A statement that no honest node signs is an offence of its signer, if that has really signed it.
    fn strike_signer(&mut self, cx: &mut Context, is_signed: bool, node: &NodeId, now: Now) {
        if is_signed {
            self.strike(cx, node, now);
        }
    }
}

/// Whether a record is of a time that can be: not signed in the future, with a WireGuard key that has begun and is not
/// over for long. If not, this node's clock may be at fault, so it is no offence.
pub(crate) fn is_timely(record: &Record, now: Now) -> bool {
    let unix = now.unix.as_secs();
    let certificate = &record.wireguard.value;
    let latest = unix.saturating_add(WireGuardCertificate::CLOCK_TOLERANCE);
    record.issued_at <= latest
        && certificate.not_before <= latest
        && unix <= certificate.not_after.saturating_add(FORGET_AFTER.as_secs())
}
