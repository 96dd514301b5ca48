//! How memberships have ended: revocations and resignations. They are remembered, so that whom they concern does not come
//! back with an old record.
//!
//! There is no list of expelled identities. An ending counts against a record if it makes a certificate void that the
//! record's own chain contains ([`Endings::against`]). What can be said is bounded: of each signer there is one revocation
//! for each address that it holds, of those that have had an address [`MAX_RESIGNATIONS`] resignations, and of all of them
//! [`MAX_ENDINGS`], shared by address. The set does not depend on the order in which its members arrived, as long as it is
//! not full.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::codec::{Codec, DecodeError, Reader};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::InviteId;
use i2plan_proto::membership::{Chain, Charter};
use i2plan_proto::message::Item;
use i2plan_proto::revocation::{Resignation, Revocation, RevocationError, Target};
use sha2::{Digest as _, Sha256};

use super::shares::AddressInBlock;

/// Endings that are remembered at most. Those by the founder always have room.
const MAX_ENDINGS: usize = 10_000;

/// Resignations of members with one address that are remembered. An honest inviter gives an address to another a month
/// after the one before has left; a liar can have ever new identities leave.
const MAX_RESIGNATIONS: usize = 16;

/// The end of a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By the founder or an inviter.
    Revocation(Box<Signed<Revocation>>),
    /// By the member.
    Resignation(Box<Signed<Resignation>>),
}

/// What an ending is about. Of two about the same the one that covers more counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    /// Certificates of this issuer for a range that starts with this address.
    Certificate { signer: NodeId, issuer: NodeId, first: Ipv4Addr },
    /// The users of an invite.
    Invite { signer: NodeId, invite: InviteId },
    /// The founder's own membership.
    Founder(NodeId),
}

impl Ending {
    /// What names it where members compare what they know.
    #[must_use]
    pub fn id(&self) -> NodeId {
        let mut hash = Sha256::new();
        hash.update(b"i2plan ending id v1\0");
        hash.update(self.item().to_bytes());
        NodeId(hash.finalize().into())
    }

    /// Who has signed it.
    #[must_use]
    pub fn signer(&self) -> &NodeId {
        match self {
            Self::Revocation(revocation) => &revocation.value.issuer,
            Self::Resignation(resignation) => resignation.value.chain.subject(),
        }
    }

    /// The chain that shows that its signer may say so.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        match self {
            Self::Revocation(revocation) => revocation.value.target.chain(),
            Self::Resignation(resignation) => &resignation.value.chain,
        }
    }

    /// When it was signed, by its signer's clock, Unix time in seconds.
    #[must_use]
    pub fn issued_at(&self) -> u64 {
        match self {
            Self::Revocation(revocation) => revocation.value.issued_at,
            Self::Resignation(resignation) => resignation.value.issued_at,
        }
    }

    /// The first certificate of a chain that it makes void.
    #[must_use]
    pub fn voids(&self, chain: &Chain) -> Option<usize> {
        match self {
            Self::Revocation(revocation) => revocation.value.voids(chain),
            Self::Resignation(resignation) => resignation.value.voids(chain),
        }
    }

    /// Checks it for a network.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn verify(&self, charter: &Charter) -> Result<(), RevocationError> {
        match self {
            Self::Revocation(revocation) => revocation.verify_for(charter),
            Self::Resignation(resignation) => resignation.verify_for(charter),
        }
    }

    /// Whether its signer has really signed it, whatever it says.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        match self {
            Self::Revocation(revocation) => revocation.verify().is_ok(),
            Self::Resignation(resignation) => resignation.verify().is_ok(),
        }
    }

    /// How it is told to others.
    #[must_use]
    pub fn item(&self) -> Item {
        match self {
            Self::Revocation(revocation) => Item::Revocation(revocation.clone()),
            Self::Resignation(resignation) => Item::Resignation(resignation.clone()),
        }
    }

    fn subject(&self) -> Subject {
        let signer = *self.signer();
        let invite = match self {
            Self::Revocation(revocation) => match &revocation.value.target {
                Target::Invite(_, invite) => Some(*invite),
                Target::Certificate(_) => None,
            },
            Self::Resignation(_) => None,
        };
        match (invite, self.chain().issued().last()) {
            (Some(invite), _) => Subject::Invite { signer, invite },
            (None, Some((issuer, link))) => {
                // A later resignation covers the earlier ones from the same issuer, whatever the addresses were.
                let first = match self {
                    Self::Revocation(_) => link.ranges.address(),
                    Self::Resignation(_) => Ipv4Addr::UNSPECIFIED,
                };
                Subject::Certificate { signer, issuer: *issuer, first }
            }
            (None, None) => Subject::Founder(signer),
        }
    }

    /// Whose certificates it may make void.
    fn issuer(&self) -> NodeId {
        match self.subject() {
            Subject::Certificate { issuer, .. } => issuer,
            Subject::Invite { signer, .. } | Subject::Founder(signer) => signer,
        }
    }

    /// Which of two about the same is kept: the one of the later certificate, or, to have a rule, the one with the
    /// smaller id.
    fn rank(&self, id: NodeId) -> (u64, std::cmp::Reverse<NodeId>) {
        (self.chain().last().map_or(0, |link| link.serial), std::cmp::Reverse(id))
    }

    /// The number of the first certificate of its chain that others may not have made void, if it is to count.
    pub(super) fn depth(&self) -> usize {
        match self.subject() {
            // What it ends may have been ended by others too.
            Subject::Certificate { .. } => self.chain().depth() - 1,
            Subject::Invite { .. } | Subject::Founder(_) => self.chain().depth(),
        }
    }
}

impl Codec for Ending {
    fn encode(&self, out: &mut Vec<u8>) {
        self.item().encode(out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match Item::decode(reader)? {
            Item::Revocation(revocation) => Ok(Self::Revocation(revocation)),
            Item::Resignation(resignation) => Ok(Self::Resignation(resignation)),
            _ => Err(DecodeError::Invalid { what: "end of a membership", why: "it is something else" }),
        }
    }
}

/// What became of an ending that was to be remembered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is remembered now, in place of these.
    New {
        /// Its own id.
        id: NodeId,
        /// What it has displaced: about the same, or about memberships that have ended with this one.
        displaced: Vec<NodeId>,
    },
    /// It says no more than what is remembered.
    Known,
    /// There is no room for more by its signer.
    Full,
}

/// All endings.
#[derive(Debug)]
pub(super) struct Endings {
    room: usize,
    /// Shared with what tells them to `tund`.
    by_id: BTreeMap<NodeId, Arc<Ending>>,
    by_subject: HashMap<Subject, NodeId>,
    /// By whose certificates they may make void.
    by_issuer: HashMap<NodeId, BTreeSet<NodeId>>,
    by_signer: HashMap<NodeId, BTreeSet<NodeId>>,
    /// By the address of the signer, except those of the founder.
    by_place: BTreeMap<AddressInBlock, BTreeSet<NodeId>>,
}

impl Default for Endings {
    fn default() -> Self {
        Self::with_room(MAX_ENDINGS)
    }
}

impl Endings {
    /// None yet, and so many at most.
    pub(super) fn with_room(room: usize) -> Self {
        Self {
            room,
            by_id: BTreeMap::new(),
            by_subject: HashMap::new(),
            by_issuer: HashMap::new(),
            by_signer: HashMap::new(),
            by_place: BTreeMap::new(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Ending> {
        self.by_id.values().map(|ending| &**ending)
    }

    /// All of them by their ids.
    pub(super) fn shared(&self) -> Vec<(NodeId, Arc<Ending>)> {
        self.by_id.iter().map(|(id, ending)| (*id, Arc::clone(ending))).collect()
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Ending> {
        self.by_id.get(id).map(|ending| &**ending)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The ending that makes a certificate of a chain void, the one nearest to the founder, and which certificate.
    pub(super) fn against(&self, chain: &Chain) -> Option<(usize, &Ending)> {
        if self.by_id.is_empty() {
            return None;
        }
        let issuers = chain.ancestors().chain([chain.subject()]);
        let ids = issuers.filter_map(|issuer| self.by_issuer.get(issuer)).flatten();
        let endings = ids.filter_map(|id| self.get(id));
        endings
            .filter_map(|ending| Some((ending.voids(chain)?, ending)))
            .min_by_key(|(at, ending)| (*at, ending.id()))
    }

    /// Remembers an ending, which has been verified for the network of this subnet.
    pub(super) fn add(&mut self, ending: Ending, subnet: &Ipv4Subnet) -> Added {
        let (id, subject) = (ending.id(), ending.subject());
        if self.by_id.contains_key(&id) {
            return Added::Known;
        }
        if self.against(ending.chain()).is_some_and(|(at, _)| at < ending.depth()) {
            // Whom it concerns is out already, or its signer is.
            return Added::Known;
        }
        let mut displaced = Vec::new();
        if let Some(other) = self.by_subject.get(&subject).copied() {
            let better = self.by_id.get(&other).is_none_or(|known| ending.rank(id) > known.rank(other));
            if !better {
                return Added::Known;
            }
            self.remove(&other, subnet);
            displaced.push(other);
        }
        let (signer, place) = (*ending.signer(), place_of_signer(&ending, subnet));
        self.insert(id, ending, subnet);
        if let Some(last) = self.surplus(&signer, place, subnet) {
            self.remove(&last, subnet);
            displaced.push(last);
        }
        while self.by_id.len() > self.room {
            let Some(last) = self.of_fullest() else { break };
            self.remove(&last, subnet);
            displaced.push(last);
        }
        if !self.by_id.contains_key(&id) {
            return Added::Full;
        }
        // What was said about those that are out with this one is not needed any more.
        let Some(ending) = self.by_id.get(&id) else { return Added::Full };
        let is_moot = |other: &&Ending| ending.voids(other.chain()).is_some_and(|at| at < other.depth());
        let moot: Vec<NodeId> = self.iter().filter(is_moot).map(Ending::id).collect();
        for other in moot {
            self.remove(&other, subnet);
            displaced.push(other);
        }
        Added::New { id, displaced }
    }

    /// Returns an ending that is one too many: of a signer's revocations, of which there is one for each address that it
    /// holds, or of the resignations from one address.
    ///
    /// The chain of each revocation states how many addresses the signer held when it signed. The revocations with the
    /// most addresses come first, and a revocation is kept if fewer come before it than its chain states addresses. So all
    /// members keep the same ones, in whatever order they arrive.
    fn surplus(&self, signer: &NodeId, place: Option<AddressInBlock>, subnet: &Ipv4Subnet) -> Option<NodeId> {
        let is_resignation = |id: &&NodeId| matches!(self.get(id), Some(Ending::Resignation(_)));
        let held = |id: &NodeId| {
            let ranges = self.get(id).and_then(|ending| ending.chain().ranges_of(signer, subnet));
            ranges.map_or(0, |ranges| ranges.size())
        };
        let of_signer = self.by_signer.get(signer).into_iter().flatten();
        let mut revocations: Vec<(u64, NodeId)> =
            of_signer.filter(|id| !is_resignation(id)).map(|id| (held(id), *id)).collect();
        // Stable: they are in the order of their ids, and mostly state the same number.
        revocations.sort_by_key(|(held, _)| std::cmp::Reverse(*held));
        let surplus = (0..).zip(revocations).find(|(before, (held, _))| before >= held);
        if let Some((_, (_, id))) = surplus {
            return Some(id);
        }
        let there = place.and_then(|place| self.by_place.get(&place)).into_iter().flatten();
        let resignations: Vec<&NodeId> = there.filter(is_resignation).collect();
        if resignations.len() <= MAX_RESIGNATIONS {
            return None;
        }
        // The earliest: what the later ones have replaced is out in any case.
        let rank = |id: &NodeId| self.by_id.get(id).map(|ending| ending.rank(*id));
        resignations.into_iter().copied().min_by_key(rank)
    }

    /// An ending of the address with the most, in the block with the most.
    fn of_fullest(&self) -> Option<NodeId> {
        let mut blocks: BTreeMap<u32, usize> = BTreeMap::new();
        for (place, ids) in &self.by_place {
            *blocks.entry(place.block).or_default() += ids.len();
        }
        let (block, _) = blocks.into_iter().max_by_key(|(_, count)| *count)?;
        let (first, last) =
            (AddressInBlock { block, address: 0 }, AddressInBlock { block, address: u32::MAX });
        let (_, ids) = self.by_place.range(first..=last).max_by_key(|(_, ids)| ids.len())?;
        ids.last().copied()
    }

    fn insert(&mut self, id: NodeId, ending: Ending, subnet: &Ipv4Subnet) {
        self.by_subject.insert(ending.subject(), id);
        self.by_issuer.entry(ending.issuer()).or_default().insert(id);
        self.by_signer.entry(*ending.signer()).or_default().insert(id);
        if let Some(place) = place_of_signer(&ending, subnet) {
            self.by_place.entry(place).or_default().insert(id);
        }
        self.by_id.insert(id, Arc::new(ending));
    }

    fn remove(&mut self, id: &NodeId, subnet: &Ipv4Subnet) {
        fn take(ids: Option<&mut BTreeSet<NodeId>>, id: &NodeId) -> bool {
            ids.is_some_and(|ids| {
                ids.remove(id);
                ids.is_empty()
            })
        }
        let Some(ending) = self.by_id.remove(id) else { return };
        if self.by_subject.get(&ending.subject()) == Some(id) {
            self.by_subject.remove(&ending.subject());
        }
        let issuer = ending.issuer();
        if take(self.by_issuer.get_mut(&issuer), id) {
            self.by_issuer.remove(&issuer);
        }
        if take(self.by_signer.get_mut(ending.signer()), id) {
            self.by_signer.remove(ending.signer());
        }
        if let Some(place) = place_of_signer(&ending, subnet)
            && take(self.by_place.get_mut(&place), id)
        {
            self.by_place.remove(&place);
        }
    }
}

/// The address of an ending's signer; none for the founder, whose endings always have room.
pub(super) fn place_of_signer(ending: &Ending, subnet: &Ipv4Subnet) -> Option<AddressInBlock> {
    let is_signer = |subject: &NodeId| subject == ending.signer();
    let link = ending.chain().links().iter().find(|link| is_signer(&link.subject))?;
    let address = link.ranges.address();
    Some(AddressInBlock { block: subnet.share_of(address), address: address.to_bits() })
}

#[cfg(test)]
mod tests {
    use i2plan_proto::address::{AddressRange, AddressRanges};
    use i2plan_proto::membership::Delegation;
    use i2plan_testing as testing;

    use super::*;

    const SUBNET: Ipv4Subnet = Ipv4Subnet::DEFAULT;

    fn revocation(issuer: u8, depth: u8) -> Ending {
        Ending::Revocation(Box::new(testing::revocation(issuer, depth)))
    }

    fn resignation(depth: u8) -> Ending {
        Ending::Resignation(Box::new(testing::resignation(depth)))
    }

    /// The chain of a member that another, of that depth, has certified with a single address of its own.
    fn below(depth: u8, number: u32) -> Chain {
        let chain = testing::chain(depth);
        let first = chain.address(&SUBNET).to_bits() + 1 + number;
        let ranges: AddressRanges = AddressRange::of_size(first, 1).unwrap().into();
        let mut subject = [0x55; 32];
        subject[..4].copy_from_slice(&number.to_be_bytes());
        let grant =
            Delegation { subject: NodeId(subject), ranges, serial: 7, ..testing::delegation(depth, depth) };
        chain.extended(&testing::signed(chain.certificate(grant), depth)).unwrap()
    }

    fn revoked_below(signer: u8, depth: u8, number: u32) -> Ending {
        let target = Target::Certificate(below(depth, number));
        let revocation = Revocation { issuer: testing::node(signer), target, issued_at: 0 };
        Ending::Revocation(Box::new(testing::signed(revocation, signer)))
    }

    #[test]
    fn whatever_the_order_the_same_is_remembered() {
        let all = [revocation(0, 2), revocation(1, 3), revocation(0, 3), resignation(3), resignation(1)];
        let ids = |order: &[usize]| {
            let mut endings = Endings::default();
            for index in order {
                endings.add(all[*index].clone(), &SUBNET);
            }
            endings.by_id.keys().copied().collect::<Vec<_>>()
        };
        let expected = ids(&[0, 1, 2, 3, 4]);
        assert_eq!(expected.len(), 2, "what is said of those below the revoked node 2 is moot");
        for order in [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [3, 1, 4, 2, 0]] {
            assert_eq!(ids(&order), expected, "{order:?}");
        }
    }

    #[test]
    fn a_revoked_member_revokes_no_one() {
        let mut endings = Endings::default();
        assert!(matches!(endings.add(revocation(0, 1), &SUBNET), Added::New { .. }));
        assert_eq!(endings.add(revocation(1, 2), &SUBNET), Added::Known);
        assert_eq!(endings.len(), 1);
    }

    #[test]
    fn a_signer_has_as_many_entries_as_addresses() {
        // Node 7 holds a /23. What its inviter says of those below it is another's.
        let mut own = Endings::default();
        for number in 0..400 {
            assert!(matches!(own.add(revoked_below(7, 7, number), &SUBNET), Added::New { .. }));
            assert_eq!(own.add(revoked_below(7, 7, number), &SUBNET), Added::Known);
            own.add(revoked_below(6, 7, number), &SUBNET);
        }
        let invites = (0..200u8).map(|number| {
            let target = Target::Invite(testing::chain(7), testing::invite(number).id());
            let revocation = Revocation { issuer: testing::node(7), target, issued_at: 0 };
            Ending::Revocation(Box::new(testing::signed(revocation, 7)))
        });
        invites.for_each(|ending| drop(own.add(ending, &SUBNET)));
        assert_eq!(own.by_signer[&testing::node(7)].len(), 512);
        assert_eq!(own.by_signer[&testing::node(6)].len(), 400);
    }

    /// It was granted more addresses between its revocations.
    #[test]
    fn which_entries_a_signer_has_does_not_depend_on_their_order() {
        let more = testing::chain(7);
        let ranges = AddressRange::of_size(more.address(&SUBNET).to_bits(), 2).unwrap().into();
        let grant = Delegation { ranges, serial: 7, ..testing::delegation(6, 7) };
        let less = testing::chain(6);
        let less = less.extended(&testing::signed(less.certificate(grant), 6)).unwrap();
        let revoked = |chain: &Chain, number: u8| {
            let target = Target::Invite(chain.clone(), testing::invite(number).id());
            let revocation = Revocation { issuer: testing::node(7), target, issued_at: 0 };
            Ending::Revocation(Box::new(testing::signed(revocation, 7)))
        };
        let mut all: Vec<Ending> = (0..3).map(|number| revoked(&less, number)).collect();
        all.push(revoked(&more, 3));
        let ids = |all: &[Ending]| {
            let mut endings = Endings::default();
            all.iter().for_each(|ending| drop(endings.add(ending.clone(), &SUBNET)));
            endings.by_id.keys().copied().collect::<Vec<_>>()
        };
        let first = ids(&all);
        assert_eq!(first.len(), 2);
        for _ in 1..all.len() {
            all.rotate_left(1);
            assert_eq!(ids(&all), first);
        }
    }

    #[test]
    fn a_full_table_takes_from_the_block_with_most_entries_and_never_from_the_founder() {
        let room = 300;
        let mut endings = Endings::with_room(room);
        for number in 0..20 {
            endings.add(revoked_below(0, 7, number), &SUBNET);
        }
        // Node 2 holds 16,384 addresses.
        for number in 0..400 {
            endings.add(revoked_below(2, 2, number), &SUBNET);
        }
        assert_eq!(endings.len(), room);
        assert_eq!(endings.by_signer[&testing::node(0)].len(), 20);
        assert!(matches!(endings.add(revoked_below(5, 7, 30), &SUBNET), Added::New { .. }));
        assert!(matches!(endings.add(revoked_below(0, 7, 40), &SUBNET), Added::New { .. }));
        assert_eq!(endings.len(), room);
        assert_eq!(endings.by_place.len(), 2);
        // With the member that filled it everything of its own goes, and what was said of those below it.
        endings.add(revocation(0, 2), &SUBNET);
        assert_eq!(endings.len(), 1);
    }

    #[test]
    fn encodings_read_back() {
        for ending in [revocation(0, 3), resignation(2)] {
            assert_eq!(Ending::from_bytes(&ending.to_bytes()), Ok(ending));
        }
        let liveness_message = Item::Liveness(testing::liveness_message(1));
        assert!(Ending::from_bytes(&liveness_message.to_bytes()).is_err());
    }
}
