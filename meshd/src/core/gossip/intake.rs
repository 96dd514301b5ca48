//! Taking in what others say: records, liveness, suspicions and ends of memberships.

use std::collections::HashMap;
use std::time::Duration;

use i2plan_ipc::api::keyd::Statement;
use i2plan_ipc::api::meshd::What;
use i2plan_proto::accusation::Accusation;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{BadSignature, NodeId, Signable as _, Signed};
use i2plan_proto::membership::Chain;
use i2plan_proto::message::{Gossip, Item, Message};
use i2plan_proto::pulse::{Life, Pulse};
use i2plan_proto::record::{Record, RecordError};
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::{debug, info, warn};

use super::schedule::Comparison;
use crate::core::budget::block;
use crate::core::compare::{has_more, nothing};
use crate::core::endings::Ending;
use crate::core::members::{EndingMerge, Member, Merge, RecordMerge};
use crate::core::rumors::Topic;
use crate::core::shares::Place;
use crate::core::verified::VerifiedRecord;
use crate::core::{FORGET_AFTER, Mesh, Now, SAVE_PULSES_AFTER, SAVE_RECORDS_AFTER};

/// A node that was started again leaves because its membership has ended after this at the earliest, if no member has
/// told it of a newer one until then.
const LEAVE_AFTER: Duration = Duration::from_secs(45);

impl Mesh {
    pub(crate) fn handle_gossip(&mut self, from: &Destination, gossip: Gossip, now: Now) {
        for item in gossip.items {
            self.take(item, from, now);
        }
        let wanted = gossip.entries.iter().filter_map(|theirs| {
            let mine = self.members.index().get(&theirs.position()).unwrap_or(nothing(theirs.node));
            has_more(theirs, &mine).then_some(mine)
        });
        let wanted: Vec<_> = wanted.collect();
        self.ask_for(from, wanted, now);
    }

    /// Takes in something that a member has sent.
    pub(super) fn take(&mut self, item: Item, from: &Destination, now: Now) {
        match item {
            Item::Record(record) => self.take_record(*record, from, now),
            Item::Pulse(pulse) => self.take_pulse(pulse, now),
            Item::Accusation(accusation) => self.take_accusation(accusation, now),
            Item::Revocation(revocation) => self.take_ending(Ending::Revocation(revocation), now),
            Item::Resignation(resignation) => self.take_ending(Ending::Resignation(resignation), now),
        }
    }

    fn take_record(&mut self, record: Signed<Record>, from: &Destination, now: Now) {
        let Some(membership) = &self.membership else { return };
        let charter = &membership.charter.value;
        let value = &record.value;
        let node = value.node;
        let own = node == self.me.node;
        // Most records are known already; only news costs a verification.
        let news = if own { self.counter < value.sequence } else { self.members.is_newer(value) };
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
                return self.strike_signer(error != forged, &node, now);
            }
        };
        self.rumors.answered(&node);
        if own {
            return self.handle_local_record(&record);
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
                    self.reply(from, &news, now);
                }
            }
            RecordMerge::Falls { holder, range, issuer } => {
                self.note_conflict(&chain, range, issuer, now);
                // Who sends it learns who has the addresses.
                let items = self.items_beyond(&nothing(holder));
                if !items.is_empty() {
                    self.reply(from, &Message::news(items), now);
                }
            }
            RecordMerge::News { fallen, out } => {
                if is_new {
                    info!(node = %node.short(), %name, %ipv4, "learned of a member");
                    self.announcer.compare_soon(now.monotonic);
                    let members = self.members.len();
                    self.rumors.add_newcomer(node, share, members, now.monotonic, &mut self.rng);
                } else {
                    debug!(node = %node.short(), sequence, "learned a newer record");
                    let place = Place { block: share, address: ipv4.to_bits() };
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
                self.heard(&from.hash(), now);
                self.note_awake(node);
                self.save_by(now.monotonic + SAVE_RECORDS_AFTER);
                self.peers_version += 1;
            }
        }
        self.learn_delegation(&chain, now);
    }

    fn take_pulse(&mut self, pulse: Signed<Pulse>, now: Now) {
        let Some(membership) = &self.membership else { return };
        let node = pulse.value.node;
        let own = node == self.me.node;
        let news =
            if own { self.counter < pulse.value.sequence } else { self.members.is_later(&pulse.value) };
        if !news || pulse.value.network != membership.charter.value.network() {
            return;
        }
        if let Err(error) = pulse.verify() {
            debug!(%error, node = %node.short(), "dropped a pulse");
            return;
        }
        self.rumors.answered(&node);
        if own {
            return self.note_local_statement(pulse.value.sequence, Statement::Pulse(pulse));
        }
        let life = pulse.value.life;
        if self.members.merge_pulse(pulse, now.monotonic) == Merge::News {
            if let Some(member) = self.members.get_mut(&node) {
                member.saw(now.unix.as_secs());
                debug!(node = %node.short(), name = %member.record.value.name, ?life, "a member gave a sign");
            }
            if life == Life::Present {
                self.note_awake(node);
            }
            self.save_by(now.monotonic + SAVE_PULSES_AFTER);
            let share = self.block_of(&node);
            let address = self.members.get(&node).map(|member| member.record.ipv4().to_bits());
            let place = share.zip(address).map(|(block, address)| Place { block, address });
            if place.is_some_and(|place| self.rumors.is_pulse_passed_on(place, now.monotonic)) {
                self.rumors.add(Topic::Pulse(node), share, now.monotonic);
            }
        }
    }

    fn take_accusation(&mut self, accusation: Signed<Accusation>, now: Now) {
        let Some(membership) = &self.membership else { return };
        // Its time is information: the clock at fault may be the accuser's or this node's.
        let Accusation { network, accuser, subject, sequence, issued_at: _ } = accusation.value;
        if network != membership.charter.value.network() {
            return;
        }
        let against_me = subject == self.me.node;
        let news = if against_me {
            self.local_sequence().is_some_and(|word| sequence >= word)
        } else {
            accuser != self.me.node && self.members.is_accusable(&accusation.value, now.monotonic)
        };
        if !news {
            return;
        }
        if let Err(error) = accusation.verify() {
            debug!(%error, node = %accuser.short(), "dropped an accusation");
            return;
        }
        if against_me {
            return self.handle_suspicion(accuser, sequence, now);
        }
        if !self.members.merge_accusation(accusation, &self.me.node, now.monotonic) {
            return;
        }
        let block = self.block_of(&accuser);
        self.rumors.add(Topic::Accusation(subject, accuser), block, now.monotonic);
        if self.is_on_jury(&subject, sequence)
            && let Some(member) = self.members.get(&subject)
        {
            let control = *member.record.control();
            self.detector.begin(subject, control, now.monotonic, &mut self.rng);
        }
    }

    fn take_ending(&mut self, ending: Ending, now: Now) {
        let Some(membership) = &self.membership else { return };
        let charter = &membership.charter.value;
        if ending.chain().network() != charter.network() || self.members.endings().get(&ending.id()).is_some()
        {
            return;
        }
        if let Err(error) = ending.verify(charter) {
            debug!(%error, node = %ending.signer().short(), "dropped the end of a membership");
            return self.strike_signer(ending.is_signed(), &ending.signer().clone(), now);
        }
        self.rumors.answered(&ending.id());
        let chain = ending.chain().clone();
        self.end_memberships(ending, now);
        self.learn_delegation(&chain, now);
        self.leave_if_ended(now);
    }

    /// Takes in how memberships have ended. Whether this node's own is among them is left to [`Mesh::leave_if_ended`].
    pub(crate) fn end_memberships(&mut self, ending: Ending, now: Now) -> EndingMerge {
        let (id, issuer) = (ending.id(), *ending.signer());
        // Nobody speaks to those that are out any more, so some tell them while they know where.
        let tells = issuer == self.me.node || self.is_on_jury(&id, 0);
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
                    Ending::Resignation(_) => info!(node = %issuer.short(), "a member has left the network"),
                }
                for node in out {
                    self.forget(node);
                    if let Some(to) = places.get(node).filter(|_| *node != issuer) {
                        self.send_items(to, vec![ending.item()], now);
                    }
                }
                if signer.is_none_or(|signer| self.rumors.is_ending_passed_on(signer, now.monotonic)) {
                    self.rumors.add(Topic::Ending(id), block(&signer), now.monotonic);
                }
                self.end_delegations(now);
                self.note_if_delegated(&ending);
                // Others can tell it again.
                self.save_by(now.monotonic + SAVE_RECORDS_AFTER);
                self.peers_version += 1;
            }
        }
        merged
    }

    /// Leaves the network if this node's membership has ended. That is decided by the chain in its own newest record,
    /// to which it has consented, and by that alone; so a node that may have forgotten a newer one asks others first.
    pub(super) fn leave_if_ended(&mut self, now: Now) -> bool {
        let Some(membership) = &self.membership else { return false };
        let may_be_old = match self.comparison_since_start {
            Comparison::Waiting(announced) => announced.is_none_or(|at| now.monotonic < at + LEAVE_AFTER),
            other => !other.is_done(now.monotonic),
        };
        if may_be_old {
            return false;
        }
        let ending = self.members.endings().against(&membership.chain).map(|(_, ending)| ending.clone());
        if let Some(ending) = &ending {
            self.handle_local_ending(ending, now);
        }
        ending.is_some()
    }

    /// A node is no member any more.
    fn forget(&mut self, node: &NodeId) {
        self.detector.forget(node);
        self.rumors.drop_topic(&Topic::Record(*node));
    }

    /// A record of this node that it does not remember: the chain of its newest record is its own.
    fn handle_local_record(&mut self, record: &VerifiedRecord) {
        let chain = &record.value.chain;
        if self.members.endings().against(chain).is_none() {
            self.adopt(chain);
        }
        self.note_local_statement(record.value.sequence, Statement::Record(Box::new((**record).clone())));
    }

    /// This node has consented to a chain that it does not remember, and goes on with that. True if it
    /// had another.
    pub(crate) fn adopt(&mut self, chain: &Chain) -> bool {
        if let Some(membership) = &mut self.membership
            && membership.chain != *chain
        {
            warn!(
                "this node's state is older than its newest record: it goes on with the membership of that"
            );
            let subnet = membership.charter.value.subnet;
            let ipv4 = chain.address(&subnet);
            let moves = membership.chain.address(&subnet) != ipv4;
            membership.chain = chain.clone();
            self.members.set_own_chain(chain.clone());
            if moves {
                self.events.push(What::AddressChanged { ipv4: ipv4.to_string() });
            }
            self.displaced = None;
            self.peers_version += 1;
            return true;
        }
        false
    }

    /// A statement that no honest node signs is an offence of its signer, if that has really signed it.
    fn strike_signer(&mut self, is_signed: bool, node: &NodeId, now: Now) {
        if is_signed {
            self.strike(node, now);
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
