//! The addresses that this node has delegated to members that it has invited, and those that are left.

use std::time::Duration;

use i2plan_ipc::api::keyd::{self, ExtendMember};
use i2plan_ipc::api::meshd;
use i2plan_proto::address::{AddressRange, AddressRanges, Ipv4Subnet};
use i2plan_proto::codec::{Codec, DecodeError, Reader};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::InviteId;
use i2plan_proto::membership::{Chain, Membership};
use i2plan_proto::message::Message;
use rand::{Rng, RngExt as _};
use tracing::{debug, info};

use crate::core::context::Context;
use crate::core::error::MeshError;
use crate::core::local_member::LocalMember;
use crate::core::requests::Pending;
use crate::core::{CommandId, Now};

/// How often a member that does not use its new addresses yet is told of them, at most.
const REPEAT_GRANT: Duration = Duration::from_secs(15);

/// How long addresses that were in use are not delegated again, unless to the same member: others may not know yet that
/// their holder is gone.
const WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Addresses that a member gets with an invite that does not say how many, at most.
const DEFAULT_SIZE: u64 = 16;

/// A part of the inviter's addresses that a member gets with such an invite at most.
const DEFAULT_PART: u64 = 256;

/// What a member was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// The member.
    pub subject: NodeId,
    /// The invite that it used.
    pub invite: InviteId,
    /// Its addresses.
    pub ranges: AddressRanges,
    /// They were in use before.
    pub replaces: bool,
    /// When it got them, Unix time in seconds.
    pub given_at: u64,
    /// When its membership ended, Unix time in seconds, if it has.
    pub ended_at: Option<u64>,
    /// Its newest certificate, once that is signed.
    pub certificate: Option<Signed<Membership>>,
}

impl Delegated {
    /// The serial number of its certificate; 0 before there is one.
    pub(crate) fn serial(&self) -> u64 {
        self.certificate.as_ref().map_or(0, |certificate| certificate.value.grant.serial)
    }
}

impl Codec for Delegated {
    fn encode(&self, out: &mut Vec<u8>) {
        self.subject.encode(out);
        self.invite.encode(out);
        self.ranges.encode(out);
        out.push(u8::from(self.replaces) | u8::from(self.certificate.is_some()) << 1);
        out.extend_from_slice(&self.given_at.to_be_bytes());
        out.extend_from_slice(&self.ended_at.unwrap_or(0).to_be_bytes());
        if let Some(certificate) = &self.certificate {
            certificate.encode(out);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let subject = NodeId::decode(reader)?;
        let invite = InviteId::decode(reader)?;
        let ranges = AddressRanges::decode(reader)?;
        let flags = reader.u8("delegation")?;
        Ok(Self {
            subject,
            invite,
            ranges,
            replaces: flags & 1 == 1,
            given_at: reader.u64("time")?,
            ended_at: Some(reader.u64("time")?).filter(|time| *time > 0),
            certificate: if flags & 2 == 2 { Some(Signed::decode(reader)?) } else { None },
        })
    }
}

/// There are no addresses to delegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAddresses;

/// What this node holds.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) subnet: Ipv4Subnet,
    pub(crate) ranges: AddressRanges,
    /// Addresses of members that have left, but not of those that they have invited.
    pub(crate) inherited: Vec<AddressRange>,
}

impl Holding {
    /// How many addresses a member gets if the invite does not say how many.
    pub(crate) fn default_size(&self) -> u32 {
        let size = DEFAULT_SIZE.min(self.ranges.size() / DEFAULT_PART).max(1);
        u32::try_from(size).map_or(1, |size| 1 << size.ilog2())
    }

    /// What cannot be delegated in any case: this node's own address, and those that belong to no member.
    fn reserved(&self) -> impl Iterator<Item = AddressRange> {
        let own = self.ranges.address();
        let is_whole = self.ranges.iter().any(|range| *range == self.subnet.range());
        let own = if is_whole { self.subnet.founder_address() } else { own };
        // The network's own address is next to the founder's, and never delegated with it.
        let network = is_whole.then_some(self.subnet.range().first());
        [Some(own), network].into_iter().flatten().filter_map(|address| AddressRange::new(address, 32))
    }
}

/// All delegations of this node.
#[derive(Debug, Default)]
pub(crate) struct Delegations(Vec<Delegated>);

/// A row of free places for ranges of one size.
struct Gap {
    first: u32,
    count: u32,
}

impl Delegations {
    pub(crate) fn new(delegated: Vec<Delegated>) -> Self {
        Self(delegated)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Delegated> {
        self.0.iter()
    }

    /// What a member has been given with an invite.
    pub(crate) fn with_invite(&self, subject: &NodeId, invite: &InviteId) -> Option<&Delegated> {
        self.0.iter().find(|delegated| delegated.subject == *subject && delegated.invite == *invite)
    }

    /// What a member has now, or had last.
    pub(crate) fn of(&self, subject: &NodeId) -> Option<&Delegated> {
        let all = self.0.iter().filter(|delegated| delegated.subject == *subject);
        all.max_by_key(|delegated| (delegated.ended_at.is_none(), delegated.serial()))
    }

    /// Places for ranges of this size that are free, and that may be given out at this time: with those that were in
    /// use before, or without.
    fn gaps(&self, holding: &Holding, size: u32, unix: u64, used_before: bool) -> Vec<Gap> {
        let is_taken = |delegated: &&Delegated| {
            let waits = |ended: u64| unix < ended.saturating_add(WAIT.as_secs());
            !used_before || delegated.ended_at.is_none_or(waits)
        };
        let mut taken: Vec<AddressRange> = holding.reserved().collect();
        if size == 1 {
            taken.extend(AddressRange::new(holding.subnet.range().last(), 32));
        }
        taken.extend(self.0.iter().filter(is_taken).flat_map(|delegated| delegated.ranges.iter()));
        taken.extend(&holding.inherited);
        taken.sort_unstable();
        let mut gaps = Vec::new();
        for range in holding.ranges.iter().filter(|range| range.size() >= size) {
            let start = range.first().to_bits();
            let place = |address: u32| (address.max(start) - start) / size;
            let (mut next, end) = (0, range.size() / size);
            for taken in taken.iter().filter(|taken| taken.overlaps(range)) {
                let first = place(taken.first().to_bits());
                if first > next {
                    gaps.push(Gap { first: start + next * size, count: first - next });
                }
                next = next.max(place(taken.last().to_bits().min(range.last().to_bits())) + 1);
            }
            if end > next {
                gaps.push(Gap { first: start + next * size, count: end - next });
            }
        }
        gaps
    }

    /// How many ranges of this size can be given out at this time.
    pub(crate) fn free(&self, holding: &Holding, size: u32, unix: u64) -> u64 {
        let gaps = self.gaps(holding, size, unix, true);
        gaps.iter().map(|gap| u64::from(gap.count)).sum()
    }

    /// A range of this size that may be given out at this time, and whether it was in use before: drawn by lot, so that
    /// a node whose state was restored from a backup mostly does not give out again what it gave out since.
    fn draw(
        &self,
        holding: &Holding,
        size: u32,
        unix: u64,
        rng: &mut impl Rng,
    ) -> Result<(AddressRange, bool), NoAddresses> {
        for used_before in [false, true] {
            let gaps = self.gaps(holding, size, unix, used_before);
            let count: u64 = gaps.iter().map(|gap| u64::from(gap.count)).sum();
            if count == 0 {
                continue;
            }
            let mut place = u32::try_from(rng.random_range(0..count)).map_err(|_| NoAddresses)?;
            for gap in gaps {
                if place < gap.count {
                    let range = AddressRange::of_size(gap.first + place * size, size);
                    return range.map(|range| (range, used_before)).ok_or(NoAddresses);
                }
                place -= gap.count;
            }
        }
        Err(NoAddresses)
    }

    /// Gives a new member addresses: those that it had before, if they are still free and as many.
    pub(crate) fn give(
        &mut self,
        subject: NodeId,
        invite: InviteId,
        size: u32,
        holding: &Holding,
        unix: u64,
        rng: &mut impl Rng,
    ) -> Result<&Delegated, NoAddresses> {
        let is_others = |ranges: &AddressRanges| {
            let active = self.0.iter().filter(|other| other.subject != subject && other.ended_at.is_none());
            active.into_iter().any(|other| other.ranges.overlap(ranges))
        };
        let before = self.of(&subject).filter(|before| {
            before.ranges.size() == u64::from(size)
                && before.ranges.iter().all(|range| holding.ranges.cover(range))
                && !is_others(&before.ranges)
        });
        let (ranges, used) = match before {
            Some(before) => (before.ranges.clone(), before.replaces),
            None => {
                let (range, used) = self.draw(holding, size, unix, rng)?;
                (range.into(), used)
            }
        };
        let were_others = |other: &Delegated| other.subject != subject && other.ranges.overlap(&ranges);
        let replaces = used || self.0.iter().any(were_others);
        // Who had all of them before has nothing left to lose. Of those who had more, the rest was in use too.
        self.0.retain(|other| {
            let is_over = other.ended_at.is_some() || other.subject == subject;
            !(is_over && other.ranges.iter().all(|range| ranges.cover(range)))
        });
        let delegated = Delegated {
            subject,
            invite,
            ranges,
            replaces,
            given_at: unix,
            ended_at: None,
            certificate: None,
        };
        self.0.push(delegated);
        self.0.last().ok_or(NoAddresses)
    }

    /// The addresses that a member has, and a range of this size more.
    pub(crate) fn more(
        &self,
        ranges: &AddressRanges,
        size: u32,
        holding: &Holding,
        unix: u64,
        rng: &mut impl Rng,
    ) -> Result<AddressRanges, NoAddresses> {
        // Not one that was in use before: the certificate cannot say that it replaces others.
        let gaps = self.gaps(holding, size, unix, false);
        let fresh: u64 = gaps.iter().map(|gap| u64::from(gap.count)).sum();
        if fresh == 0 {
            return Err(NoAddresses);
        }
        let (range, _) = self.draw(holding, size, unix, rng)?;
        AddressRanges::new(ranges.iter().copied().chain([range]).collect()).ok_or(NoAddresses)
    }

    /// A certificate is signed, or was found in a member's chain: it counts from now on if it is newer than what is
    /// known. Whether it has ended is to be looked at then.
    pub(crate) fn learn(&mut self, certificate: Signed<Membership>, unix: u64) -> bool {
        let grant = &certificate.value.grant;
        let same = self.0.iter_mut().filter(|delegated| {
            delegated.subject == grant.subject && delegated.ranges.address() == grant.ranges.address()
        });
        match same.max_by_key(|delegated| delegated.ended_at.is_none()) {
            Some(known) if known.serial() >= grant.serial => return false,
            Some(known) => {
                known.ranges = grant.ranges.clone();
                known.replaces = grant.replaces;
                known.invite = grant.invite;
                known.certificate = Some(certificate);
                // What has ended is the one before.
                known.ended_at = None;
            }
            None => self.0.push(Delegated {
                subject: grant.subject,
                invite: grant.invite,
                ranges: grant.ranges.clone(),
                replaces: grant.replaces,
                given_at: grant.issued_at.min(unix),
                ended_at: None,
                certificate: Some(certificate),
            }),
        }
        true
    }

    /// Forgets what was given before this, Unix time in seconds, and never certified. True if there was any.
    pub(crate) fn remove_unsigned(&mut self, unix: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|delegated| delegated.certificate.is_some() || delegated.given_at > unix);
        self.0.len() != before
    }

    /// Forgets what a member was given and never certified. True if there was any.
    pub(crate) fn remove_unsigned_of(&mut self, subject: &NodeId) -> bool {
        let before = self.0.len();
        self.0.retain(|delegated| delegated.certificate.is_some() || delegated.subject != *subject);
        self.0.len() != before
    }

    /// Ends those of which it is said that their certificates are void. True if there are any.
    pub(crate) fn end(&mut self, is_void: impl Fn(&Signed<Membership>) -> bool, unix: u64) -> bool {
        let mut any = false;
        for delegated in self.0.iter_mut().filter(|delegated| delegated.ended_at.is_none()) {
            let certificate = delegated.certificate.as_ref();
            if certificate.is_some_and(&is_void) {
                delegated.ended_at = Some(unix.max(1));
                any = true;
            }
        }
        any
    }
}

impl LocalMember {
    /// A user wants a member that this node has invited to hold more addresses.
    pub(crate) fn grant(
        &mut self,
        cx: &mut Context,
        command: CommandId,
        node: &str,
        addresses: u32,
        now: Now,
    ) {
        match self.extension(cx, node, addresses, now) {
            Err(error) => cx.answer(command, Err(error)),
            Ok(extend) => {
                let pending = Pending::Extension(command, Box::new(extend.clone()));
                cx.ask(pending, keyd::Request::ExtendMember(Box::new(extend)));
            }
        }
    }

    fn extension(
        &mut self,
        cx: &mut Context,
        node: &str,
        addresses: u32,
        now: Now,
    ) -> Result<ExtendMember, MeshError> {
        let id = self.known_node(cx, node)?;
        let (holding, membership) = (self.holding(), &self.membership);
        if !addresses.is_power_of_two() {
            return Err(MeshError::NotPowerOfTwo(addresses));
        }
        if cx.pending.values().any(|pending| matches!(pending, Pending::Extension(..))) {
            return Err(MeshError::Granting);
        }
        let Some(certificate) =
            self.addresses.delegations.of(&id).and_then(|delegated| delegated.certificate.clone())
        else {
            let inviter = self.members.get(&id).and_then(|member| {
                member
                    .record
                    .value
                    .chain
                    .ancestors()
                    .last()
                    .map(|inviter| self.name_of(inviter).unwrap_or_else(|| inviter.short()))
            });
            return Err(MeshError::MayNotGrant(inviter));
        };
        let ranges = &certificate.value.grant.ranges;
        let parent = membership.chain.id();
        let unix = now.unix.as_secs();
        let delegations = &self.addresses.delegations;
        let ranges = delegations.more(ranges, addresses, &holding, unix, &mut cx.rng);
        let ranges = ranges.map_err(|_| MeshError::NoRange(addresses))?;
        Ok(ExtendMember { certificate, parent, ranges })
    }

    /// A member's certificate for more addresses is signed.
    pub(crate) fn handle_extension(
        &mut self,
        cx: &mut Context,
        certificate: Signed<Membership>,
        command: CommandId,
        now: Now,
    ) {
        let grant = certificate.value.grant.clone();
        cx.counter = cx.counter.max(grant.serial);
        self.addresses.delegations.learn(certificate, now.unix.as_secs());
        cx.unsaved = true;
        info!(node = %grant.subject.short(), addresses = grant.ranges.size(), "delegated more addresses to a member");
        self.addresses.open_grants.insert(grant.subject, Duration::ZERO);
        self.repeat_grant(cx, &grant.subject, now);
        cx.answer(
            command,
            Ok(meshd::Reply::Granted(meshd::Grant {
                node_id: grant.subject.to_string(),
                ranges: grant.ranges.iter().map(ToString::to_string).collect(),
                addresses: grant.ranges.size(),
            })),
        );
    }

    /// Sends a member the certificate that this node has issued for it, as long as its record does not have it.
    pub(crate) fn repeat_grant(&mut self, cx: &mut Context, node: &NodeId, now: Now) {
        if self.addresses.open_grants.get(node).is_none_or(|due| *due > now.monotonic) {
            return;
        }
        let delegated = self.addresses.delegations.of(node);
        let certificate = delegated.and_then(|delegated| delegated.certificate.as_ref());
        let chain = certificate
            .filter(|certificate| certificate.value.parent == self.membership.chain.id())
            .map(|certificate| self.membership.chain.appended(certificate));
        let Some((chain, member)) = chain.zip(self.members.get(node)) else {
            self.addresses.open_grants.remove(node);
            return;
        };
        if member.record.value.chain.last().map(|link| link.serial) >= chain.last().map(|link| link.serial) {
            self.addresses.open_grants.remove(node);
            return;
        }
        let to = *member.record.value.control;
        self.addresses.open_grants.insert(*node, now.monotonic + REPEAT_GRANT);
        self.send(cx, &to, &Message::Grant(Box::new(chain)), now);
    }

    /// The member that has invited this node has delegated more addresses to it.
    pub(crate) fn handle_grant(&mut self, cx: &mut Context, chain: Chain, now: Now) {
        let membership = &mut self.membership;
        let charter = &membership.charter.value;
        let (before, subnet) = (&membership.chain, charter.subnet);
        let (Some(old), Some(new)) = (before.issued().last(), chain.issued().last()) else { return };
        let continues = *chain.subject() == cx.me.node
            && before.ancestors().eq(chain.ancestors())
            && old.1.serial < new.1.serial
            && before.address(&subnet) == chain.address(&subnet)
            && old.1.ranges.iter().all(|range| new.1.ranges.cover(range));
        if !continues || chain.verify(charter).is_err() || self.members.endings().against(&chain).is_some() {
            debug!("dropped a grant that does not extend this node's addresses");
            return;
        }
        info!(addresses = chain.ranges(&subnet).size(), "this node holds more addresses");
        self.members.set_local_chain(chain.clone());
        membership.chain = chain;
        self.addresses.displaced = None;
        cx.unsaved = true;
        self.publication.renew_at(now.monotonic);
    }

    /// Certificates of this node that it does not remember, because its state was restored from a backup, are found in
    /// the chains of others.
    pub(crate) fn learn_delegation(&mut self, cx: &mut Context, chain: &Chain, now: Now) {
        if let Some(certificate) = chain.certificate_by(&cx.me.node) {
            cx.counter = cx.counter.max(certificate.value.grant.serial);
            if self.addresses.delegations.learn(certificate, now.unix.as_secs()) {
                cx.note_certificate(chain);
                cx.unsaved = true;
                self.end_delegations(cx, now);
            }
        }
    }

    /// Notes of the certificates that this node has issued which have ended.
    pub(crate) fn end_delegations(&mut self, cx: &mut Context, now: Now) {
        let membership = &self.membership;
        let endings = self.members.endings();
        let is_void =
            |certificate: &Signed<_>| endings.against(&membership.chain.appended(certificate)).is_some();
        if self.addresses.delegations.end(is_void, now.unix.as_secs()) {
            cx.unsaved = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use i2plan_testing as testing;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const DAY: u64 = 24 * 3600;

    fn node(number: u16) -> NodeId {
        let mut id = [7; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn founder_of(subnet: &str) -> Holding {
        let subnet: Ipv4Subnet = subnet.parse().unwrap();
        Holding { subnet, ranges: subnet.range().into(), inherited: Vec::new() }
    }

    fn member_with(first: &str, prefix: u8) -> Holding {
        let ranges = AddressRange::new(first.parse().unwrap(), prefix).unwrap().into();
        Holding { subnet: Ipv4Subnet::DEFAULT, ranges, inherited: Vec::new() }
    }

    fn rng() -> StdRng {
        StdRng::from_seed([3; 32])
    }

    fn invite() -> InviteId {
        testing::invite(1).id()
    }

    #[test]
    fn defaults_follow_the_inviters_range() {
        let sizes = ["10.0.0.0/8", "10.42.0.0/16", "10.42.0.0/22", "10.42.0.0/24", "10.42.0.0/29"];
        assert_eq!(sizes.map(|subnet| founder_of(subnet).default_size()), [16, 16, 4, 1, 1]);
        assert_eq!(member_with("10.42.3.16", 28).default_size(), 1);
        assert_eq!(member_with("10.42.64.0", 18).default_size(), 16);
    }

    /// Gives out all that there is.
    fn exhaust(holding: &Holding, size: u32) -> Vec<AddressRange> {
        let (mut delegations, mut rng) = (Delegations::default(), rng());
        let free = delegations.free(holding, size, 1);
        let mut all = Vec::new();
        for number in 0.. {
            match delegations.give(node(number), invite(), size, holding, 1, &mut rng) {
                Ok(delegated) => all.extend(delegated.ranges.iter().copied()),
                Err(NoAddresses) => break,
            }
            assert_eq!(delegations.free(holding, size, 1), free - all.len() as u64);
        }
        for (number, range) in all.iter().enumerate() {
            assert!(holding.ranges.cover(range));
            assert!(!all[..number].iter().any(|other| other.overlaps(range)));
        }
        all
    }

    #[test]
    fn a_range_is_given_out_to_the_last_address_and_none_twice() {
        let hosts = |subnet: &str, size| exhaust(&founder_of(subnet), size).len();
        // All hosts but the founder.
        assert_eq!((hosts("10.42.0.0/29", 1), hosts("10.42.0.0/24", 1)), (5, 253));
        assert_eq!((hosts("10.42.0.0/24", 16), hosts("10.42.0.0/24", 2)), (15, 127));
        assert_eq!(exhaust(&member_with("10.42.3.16", 28), 1).len(), 15);
        assert_eq!(exhaust(&member_with("10.42.3.16", 28), 4).len(), 3);
        // The last address of the subnet belongs to none.
        assert_eq!(exhaust(&member_with("10.42.255.240", 28), 1).len(), 14);
        assert_eq!(exhaust(&member_with("10.42.3.16", 32), 1).len(), 0);
    }

    fn certify(subject: NodeId, ranges: &AddressRanges, serial: u64) -> Signed<Membership> {
        let mut certificate = testing::membership(0, 1);
        certificate.value.grant.subject = subject;
        certificate.value.grant.ranges = ranges.clone();
        certificate.value.grant.serial = serial;
        certificate
    }

    /// Otherwise a certificate that was never heard of since, below which somebody has stayed, would stand against it.
    #[test]
    fn the_rest_of_used_addresses_was_in_use_too() {
        let (holding, mut delegations, mut rng) = (founder_of("10.42.0.0/28"), Delegations::default(), rng());
        let before = delegations.give(node(0), invite(), 8, &holding, 1, &mut rng).unwrap().ranges.clone();
        delegations.learn(certify(node(0), &before, 1), 1);
        delegations.end(|_| true, 1);
        let unix = 40 * DAY;
        let mut replaced = 0;
        for number in 1..14 {
            let given =
                delegations.give(node(number), invite(), 1, &holding, unix, &mut rng).unwrap().clone();
            assert_eq!(given.replaces, given.ranges.overlap(&before), "{}", given.ranges.address());
            replaced += usize::from(given.replaces);
            delegations.learn(certify(node(number), &given.ranges, 1 + u64::from(number)), unix);
        }
        // The last of the subnet's addresses belongs to nobody.
        assert_eq!((replaced, delegations.iter().count()), (7, 14));
    }

    /// As where the inviter was restored from a backup that it had made between the two.
    #[test]
    fn one_that_was_invited_again_has_its_addresses() {
        let (holding, mut delegations, mut rng) = (founder_of("10.42.0.0/29"), Delegations::default(), rng());
        let ranges = delegations.give(node(0), invite(), 1, &holding, 1, &mut rng).unwrap().ranges.clone();
        delegations.learn(certify(node(0), &ranges, 1), 1);
        delegations.end(|_| true, 1);
        assert!(delegations.learn(certify(node(0), &ranges, 5), 1));
        assert_eq!(delegations.free(&holding, 1, 40 * DAY), 4);
    }

    #[test]
    fn used_addresses_wait_and_come_last() {
        let (holding, mut delegations, mut rng) = (founder_of("10.42.0.0/29"), Delegations::default(), rng());
        for number in 0..5 {
            delegations.give(node(number), invite(), 1, &holding, 1, &mut rng).unwrap();
        }
        let first = delegations.of(&node(0)).unwrap().ranges.clone();
        let certify = |ranges: &AddressRanges| {
            let mut certificate = testing::membership(0, 1);
            certificate.value.grant.subject = node(0);
            certificate.value.grant.ranges = ranges.clone();
            certificate
        };
        assert!(delegations.learn(certify(&first), 1));
        assert!(!delegations.learn(certify(&first), 1), "nothing new");
        assert!(delegations.end(|certificate| certificate.value.grant.subject == node(0), 100));
        assert!(!delegations.end(|_| true, 100), "there is no certificate of the others yet");
        let mut give = |number, unix| {
            let delegated = delegations.give(node(number), invite(), 1, &holding, unix, &mut rng);
            delegated.map(|delegated| (delegated.ranges.clone(), delegated.replaces))
        };
        assert_eq!(give(7, 99 + 30 * DAY), Err(NoAddresses));
        // Nor as long as there are members that it has invited.
        let inherited = Holding { inherited: first.iter().copied().collect(), ..holding.clone() };
        assert_eq!(delegations.free(&inherited, 1, 100 + 30 * DAY), 0);
        let mut give = |number, unix| {
            let delegated = delegations.give(node(number), invite(), 1, &holding, unix, &mut rng);
            delegated.map(|delegated| (delegated.ranges.clone(), delegated.replaces))
        };
        assert_eq!(give(7, 100 + 30 * DAY), Ok((first, true)));
        assert_eq!(give(8, 1000 + 60 * DAY), Err(NoAddresses));
    }

    #[test]
    fn a_member_that_comes_back_gets_its_addresses_again() {
        let (holding, mut delegations, mut rng) = (founder_of("10.42.0.0/16"), Delegations::default(), rng());
        let first = delegations.give(node(1), invite(), 16, &holding, 1, &mut rng).unwrap().ranges.clone();
        for number in 2..100 {
            delegations.give(node(number), invite(), 16, &holding, 1, &mut rng).unwrap();
        }
        let again = delegations.give(node(1), testing::invite(2).id(), 16, &holding, 5, &mut rng).unwrap();
        assert_eq!(again.ranges, first);
        assert_eq!(delegations.iter().count(), 99);
        let larger = delegations.give(node(1), invite(), 32, &holding, 5, &mut rng).unwrap();
        assert_ne!(larger.ranges, first);
    }

    #[test]
    fn a_restored_backup_rarely_gives_out_the_same_again() {
        let holding = founder_of("10.42.0.0/16");
        let mut drawn = HashSet::new();
        let mut rng = rng();
        for _ in 0..30 {
            drawn.insert(Delegations::default().draw(&holding, 16, 1, &mut rng).unwrap().0);
        }
        assert!(drawn.len() > 25, "{}", drawn.len());
    }

    #[test]
    fn a_member_gets_more_next_to_what_it_has() {
        let (holding, mut delegations, mut rng) = (founder_of("10.42.0.0/16"), Delegations::default(), rng());
        let first = delegations.give(node(1), invite(), 16, &holding, 1, &mut rng).unwrap().ranges.clone();
        let more = delegations.more(&first, 64, &holding, 1, &mut rng).unwrap();
        assert_eq!((more.size(), more.address()), (80, first.address()));
        let ranges = more
            .iter()
            .copied()
            .chain((0..2).map(|number| AddressRange::new([10, 42, 200, number].into(), 32).unwrap()));
        let four = AddressRanges::new(ranges.collect()).unwrap();
        assert_eq!(delegations.more(&four, 1, &holding, 1, &mut rng), Err(NoAddresses));
    }

    #[test]
    fn encodings_read_back() {
        let delegated = Delegated {
            subject: node(1),
            invite: invite(),
            ranges: testing::ranges(3),
            replaces: true,
            given_at: 7,
            ended_at: Some(9),
            certificate: Some(testing::membership(0, 1)),
        };
        let waiting = Delegated { certificate: None, ended_at: None, replaces: false, ..delegated.clone() };
        for delegated in [delegated, waiting] {
            assert_eq!(Delegated::from_bytes(&delegated.to_bytes()), Ok(delegated));
        }
    }
}
