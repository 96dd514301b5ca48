//! The certificates in the chains of known members, and which of two stands that delegate the same addresses.
//!
//! That an issuer delegates addresses twice is no offence: its state may have been restored from a backup. The
//! certificate with the lower serial number stands, unless a later one says that it replaces the earlier ones. What
//! counts is the serial number of the first certificate by which a member holds its addresses: that stays the same when
//! it is granted more.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::address::AddressRange;
use crate::identity::{NodeId, Signature};
use crate::membership::{CertificateId, Chain, Delegation, Issued, Membership};

/// Addresses that two certificates delegate change their holder at most once in this time.
const SETTLED: Duration = Duration::from_secs(3600);

/// Changes of holders that are remembered at most. When there are more, none is made until some are forgotten.
const MAX_CHANGES: usize = 4096;

/// Where a certificate is kept: by issuer, range and id, so that those for a range are found together.
type Key = (NodeId, AddressRange, CertificateId);

/// What is known of a certificate wherever it occurs.
#[derive(Debug, Clone)]
struct Used {
    /// None for one that another process has verified.
    signature: Option<Signature>,
    /// The certificate of its issuer.
    parent: CertificateId,
    issuer: NodeId,
    grant: Delegation,
    /// In how many chains it is.
    count: u32,
}

/// The certificates of one known chain, apart from the others.
#[derive(Debug)]
pub struct Copied(Vec<(CertificateId, Used)>);

/// Whether a chain stands against the known ones.
#[derive(Debug, PartialEq, Eq)]
pub enum Contest {
    /// It does, and members whose chains contain one of these certificates do not.
    Stands {
        /// Certificates that do not stand.
        falls: Vec<CertificateId>,
        /// Addresses that change their holder because an issuer has delegated them twice.
        contested: Vec<AddressRange>,
    },
    /// This certificate of a known chain stands against one in it.
    Falls {
        /// Which.
        to: CertificateId,
        /// Its subject.
        holder: NodeId,
        /// The addresses.
        range: AddressRange,
        /// Who has delegated them twice.
        issuer: NodeId,
    },
}

/// The certificates of known chains.
#[derive(Debug, Default)]
pub struct Certificates {
    used: HashMap<CertificateId, Box<Used>>,
    by_range: BTreeSet<Key>,
    /// When addresses last changed their holder, on the monotonic clock.
    changes: HashMap<AddressRange, Duration>,
}

impl Certificates {
    /// Whether a certificate with this signature is in a known chain, and so has been verified.
    #[must_use]
    pub fn is_known(&self, id: &CertificateId, signature: &Signature) -> bool {
        self.used.get(id).is_some_and(|used| used.signature == Some(*signature))
    }

    /// Whether a certificate is in a known chain: its issuer has signed it, with whichever signature.
    #[must_use]
    pub fn is_used(&self, id: &CertificateId) -> bool {
        self.used.contains_key(id)
    }

    /// A verified chain is known now.
    pub fn add(&mut self, chain: &Chain) {
        let mut parent = CertificateId::from(chain.network());
        for ((id, signature), (issuer, link)) in chain.signatures().zip(chain.issued()) {
            let (signature, issuer, grant) = (Some(*signature), *issuer, (**link).clone());
            self.put(*id, Used { signature, parent, issuer, grant, count: 1 });
            parent = *id;
        }
    }

    /// A certificate is in so many known chains more.
    fn put(&mut self, id: CertificateId, used: Used) {
        if let Some(known) = self.used.get_mut(&id) {
            known.count += used.count;
            return;
        }
        let keys = used.grant.ranges.iter().map(|range| (used.issuer, *range, id));
        self.by_range.extend(keys);
        self.used.insert(id, Box::new(used));
    }

    /// A chain is not known any more.
    pub fn remove(&mut self, chain: &Chain) {
        self.release(chain.id());
    }

    /// The chain that ends with this certificate is not known any more.
    pub fn release(&mut self, id: CertificateId) {
        let mut next = id;
        while let Some(used) = self.used.get_mut(&next) {
            let (id, parent) = (next, used.parent);
            used.count = used.count.saturating_sub(1);
            if used.count == 0
                && let Some(used) = self.used.remove(&id)
            {
                for range in used.grant.ranges.iter() {
                    self.by_range.remove(&(used.issuer, *range, id));
                }
            }
            next = parent;
        }
    }

    /// The chain that ends with this certificate, to be put back after it was released.
    #[must_use]
    pub fn copied(&self, id: CertificateId) -> Copied {
        let copied = self.upwards(id).map(|(id, used)| (*id, Used { count: 1, ..used.clone() }));
        Copied(copied.collect())
    }

    /// A chain is known again.
    pub fn put_back(&mut self, chain: Copied) {
        chain.0.into_iter().for_each(|(id, used)| self.put(id, used));
    }

    fn upwards(&self, id: CertificateId) -> impl Iterator<Item = (&CertificateId, &Used)> {
        let known = |id: &CertificateId| self.used.get_key_value(id).map(|(id, used)| (id, &**used));
        std::iter::successors(known(&id), move |(_, used)| known(&used.parent))
    }

    /// The certificates of the known chain that ends with this one, that of the member nearest to the founder first.
    #[must_use]
    pub fn path(&self, id: CertificateId) -> Vec<Issued<'_>> {
        let upwards = self.upwards(id);
        let mut path: Vec<_> =
            upwards.map(|(id, used)| Issued { issuer: &used.issuer, id, grant: &used.grant }).collect();
        path.reverse();
        path
    }

    /// All certificates, each after its issuer's, for another process of the same node.
    #[must_use]
    pub fn export(&self) -> Vec<(CertificateId, Delegation)> {
        let mut order: Vec<_> =
            self.used.iter().map(|(id, used)| (self.upwards(*id).count(), *id, used)).collect();
        order.sort_unstable_by_key(|(depth, id, _)| (*depth, *id));
        order.into_iter().map(|(.., used)| (used.parent, used.grant.clone())).collect()
    }

    /// Takes in what another process has exported of a network. They count as verified, but are in no known chain yet:
    /// see [`Certificates::hold`] and [`Certificates::prune`].
    pub fn import(&mut self, founder: &Chain, exported: Vec<(CertificateId, Delegation)>) {
        let network = founder.network();
        for (parent, grant) in exported {
            let issuer = match self.used.get(&parent) {
                Some(used) => used.grant.subject,
                None if parent == network.into() => *founder.subject(),
                None => continue,
            };
            let id = Membership { network, parent, issuer, grant: grant.clone() }.id();
            self.put(id, Used { signature: None, parent, issuer, grant, count: 0 });
        }
    }

    /// The chain that ends with this certificate, which was imported, is known. False if it was not.
    pub fn hold(&mut self, id: CertificateId) -> bool {
        let ids: Vec<_> = self.upwards(id).map(|(id, _)| *id).collect();
        for id in &ids {
            self.used.entry(*id).and_modify(|used| used.count += 1);
        }
        !ids.is_empty()
    }

    /// Forgets what was imported and is in no known chain.
    pub fn prune(&mut self) {
        let used = &mut self.used;
        used.retain(|_, used| used.count > 0);
        self.by_range.retain(|(.., id)| used.contains_key(id));
    }

    /// The certificates of an issuer for addresses of a range.
    fn overlapping(
        &self,
        issuer: NodeId,
        range: AddressRange,
    ) -> impl Iterator<Item = (&CertificateId, &Delegation)> {
        let exactly = move |range: AddressRange| {
            let (first, last) = (CertificateId([0; 32]), CertificateId([0xff; 32]));
            self.by_range.range((issuer, range, first)..=(issuer, range, last))
        };
        // Aligned ranges that overlap lie within each other: the wider ones by each shorter prefix, the narrower ones
        // between its first address and its last.
        let wider = (0..range.prefix()).map(move |prefix| range.widened(prefix)).flat_map(exactly);
        let last = AddressRange::new(range.last(), 32).unwrap_or(range);
        let (from, to) = ((issuer, range, CertificateId([0; 32])), (issuer, last, CertificateId([0xff; 32])));
        let within = self.by_range.range(from..=to).filter(move |(_, other, _)| range.covers(other));
        wider.chain(within).filter_map(|(.., id)| Some((id, &self.used.get(id)?.grant)))
    }

    /// Whether a known certificate is worthless without one of these.
    fn is_below(&self, id: &CertificateId, above: &[CertificateId]) -> bool {
        let parent_of = |id: &CertificateId| self.used.get(id).map(|used| used.parent);
        std::iter::successors(parent_of(id), parent_of).any(|parent| above.contains(&parent))
    }

    /// Whether a chain stands against the known ones. Certificates of the same subject do not contest each other. Two
    /// chains contest each other where they part: below a certificate that does not stand nothing does. Otherwise each
    /// of two chains could stand against the other. `before` is the chain that the same member had until now.
    #[must_use]
    pub fn contest(&self, chain: &Chain, before: Option<&Chain>) -> Contest {
        let (mut falls, mut contested) = (Vec::new(), Vec::new());
        for (issuer, link) in chain.issued() {
            // A chain that is known has contested others when it was new.
            let had = before.is_some_and(|before| before.links().iter().any(|known| known.id() == link.id()));
            let is_new = !had && !self.used.contains_key(link.id());
            for range in link.ranges.iter() {
                for (id, known) in self.overlapping(*issuer, *range) {
                    if known.subject == link.subject || id == link.id() || self.is_below(id, &falls) {
                        continue;
                    }
                    let replaces = link.replaces && known.since < link.since;
                    let is_replaced = known.replaces && link.since < known.since;
                    let is_earlier = (link.since, link.subject) < (known.since, known.subject);
                    if is_replaced || !replaces && !is_earlier {
                        let (to, holder) = (*id, known.subject);
                        return Contest::Falls { to, holder, range: *range, issuer: *issuer };
                    }
                    falls.push(*id);
                    if !replaces && is_new {
                        contested.push(*range);
                    }
                }
            }
        }
        Contest::Stands { falls, contested }
    }

    /// Whether contested addresses may change their holder now; then it is noted that they do.
    pub fn may_change(&mut self, ranges: &[AddressRange], now: Duration) -> bool {
        if ranges.is_empty() {
            return true;
        }
        self.changes.retain(|_, changed| now < *changed + SETTLED);
        let settled = |range: &AddressRange| self.changes.keys().any(|other| other.overlaps(range));
        if ranges.iter().any(settled) || self.changes.len() >= MAX_CHANGES {
            return false;
        }
        self.changes.extend(ranges.iter().map(|range| (*range, now)));
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::testing;

    use super::*;

    /// The chain of a node that node 0 has certified.
    fn certified(subject: u8, first: [u8; 4], prefix: u8, serial: u64, replaces: bool) -> Chain {
        let founder = testing::chain(0);
        let ranges = AddressRange::new(first.into(), prefix).unwrap().into();
        let grant = Delegation { ranges, serial, since: serial, replaces, ..testing::delegation(0, subject) };
        founder.extended(&testing::signed(founder.certificate(grant), 0)).unwrap()
    }

    fn stands(known: &[&Chain], chain: &Chain) -> Option<usize> {
        let mut certificates = Certificates::default();
        known.iter().for_each(|chain| certificates.add(chain));
        match certificates.contest(chain, None) {
            Contest::Stands { falls, .. } => Some(falls.len()),
            Contest::Falls { .. } => None,
        }
    }

    #[test]
    fn the_lower_serial_stands_whatever_comes_first() {
        let first = certified(1, [10, 42, 3, 16], 28, 5, false);
        let second = certified(2, [10, 42, 3, 0], 24, 9, false);
        assert_eq!(stands(&[&first], &second), None);
        assert_eq!(stands(&[&second], &first), Some(1));
        let third = certified(3, [10, 42, 3, 20], 32, 7, false);
        assert_eq!(stands(&[&second], &third), Some(1));
        assert_eq!(stands(&[&first], &third), None);
        // Beside it, and for the same subject, there is no contest.
        assert_eq!(stands(&[&first], &certified(2, [10, 42, 3, 32], 28, 9, false)), Some(0));
        assert_eq!(stands(&[&first], &certified(1, [10, 42, 3, 0], 24, 9, false)), Some(0));
    }

    #[test]
    fn of_two_with_one_serial_one_stands() {
        let (one, two) =
            (certified(1, [10, 42, 3, 16], 28, 5, false), certified(2, [10, 42, 3, 16], 28, 5, false));
        assert_ne!(stands(&[&one], &two).is_some(), stands(&[&two], &one).is_some());
    }

    #[test]
    fn what_replaces_stands_against_what_was_before() {
        let before = certified(1, [10, 42, 3, 16], 28, 5, false);
        let after = certified(2, [10, 42, 3, 16], 28, 9, true);
        assert_eq!(stands(&[&before], &after), Some(1));
        assert_eq!(stands(&[&after], &before), None);
        // Not against what comes later.
        let later = certified(3, [10, 42, 3, 16], 28, 12, false);
        assert_eq!(stands(&[&after], &later), None);
        assert_eq!(stands(&[&later], &after), Some(1));
        assert_eq!(stands(&[&after], &certified(3, [10, 42, 3, 16], 28, 12, true)), Some(1));
    }

    #[test]
    fn a_chain_does_not_stand_against_one_that_stands_against_it() {
        // Node 1 has two certificates: by node 0, and by node 2, whose addresses were its own. Under the second it has
        // issued the earlier certificate.
        let under = |chain: &Chain, issuer: u8, subject: u8, prefix: u8, serial: u64| {
            let ranges = AddressRange::new([10, 42, 3, 32].into(), prefix).unwrap().into();
            let grant = Delegation { ranges, serial, since: serial, ..testing::delegation(issuer, subject) };
            chain.extended(&testing::signed(chain.certificate(grant), issuer)).unwrap()
        };
        let one = under(&certified(1, [10, 42, 3, 0], 24, 5, false), 1, 3, 28, 9);
        let other = certified(2, [10, 42, 3, 0], 24, 7, false);
        let other = under(&under(&other, 2, 1, 27, 1), 1, 4, 28, 6);
        assert_eq!(stands(&[&one], &other), None);
        assert_eq!(stands(&[&other], &one), Some(1));
    }

    #[test]
    fn addresses_that_have_changed_their_holder_do_not_change_it_again() {
        let first = certified(1, [10, 42, 3, 16], 28, 5, false);
        let second = certified(2, [10, 42, 3, 16], 28, 9, false);
        let contested = |known: &[&Chain]| {
            let mut certificates = Certificates::default();
            known.iter().for_each(|chain| certificates.add(chain));
            match certificates.contest(&first, None) {
                Contest::Stands { falls, contested } => (falls.len(), contested.len()),
                Contest::Falls { .. } => panic!("it is the earlier"),
            }
        };
        assert_eq!(contested(&[&second]), (1, 1));
        // As where the second is this node's own.
        assert_eq!(contested(&[&second, &first]), (1, 0));
    }

    /// Otherwise it would lose to one that has come between, which its own certificate before stands against, and so
    /// on.
    #[test]
    fn a_member_that_was_granted_more_stands_as_before() {
        let first = certified(1, [10, 42, 3, 16], 28, 5, false);
        let between = certified(2, [10, 42, 3, 16], 28, 7, false);
        let founder = testing::chain(0);
        let grant = (*first.last().unwrap()).clone();
        let grant = Delegation { serial: 9, ..(*grant).clone() };
        let more = founder.extended(&testing::signed(founder.certificate(grant), 0)).unwrap();
        assert_eq!(stands(&[&more], &between), None);
        assert_eq!(stands(&[&between], &more), Some(1));
    }

    #[test]
    fn a_chain_that_is_gone_contests_nothing() {
        let first = certified(1, [10, 42, 3, 16], 28, 5, false);
        let mut certificates = Certificates::default();
        certificates.add(&first);
        certificates.add(&first);
        certificates.remove(&first);
        let second = certified(2, [10, 42, 3, 16], 28, 9, false);
        assert!(matches!(certificates.contest(&second, None), Contest::Falls { .. }));
        certificates.remove(&first);
        assert!(matches!(certificates.contest(&second, None), Contest::Stands { .. }));
        assert!(certificates.by_range.is_empty() && certificates.used.is_empty());
    }

    #[test]
    fn another_process_goes_on_with_what_was_exported() {
        let mut certificates = Certificates::default();
        (1..=4).for_each(|depth| certificates.add(&testing::chain(depth)));
        certificates.add(&certified(9, [10, 42, 3, 16], 28, 5, false));
        let mut other = Certificates::default();
        other.import(&testing::chain(0), certificates.export());
        assert!(other.hold(testing::chain(4).id()) && !other.hold(testing::chain(5).id()));
        assert_eq!(other.path(testing::chain(4).id()), testing::chain(4).path());
        other.prune();
        assert_eq!((other.used.len(), other.by_range.len()), (4, 4));
        let copied = other.copied(testing::chain(4).id());
        other.release(testing::chain(4).id());
        assert!(other.used.is_empty() && other.by_range.is_empty());
        other.put_back(copied);
        assert_eq!(other.path(testing::chain(3).id()), testing::chain(3).path());
        // What was not verified with this signature here is not known by it.
        let chain = testing::chain(4);
        let (id, signature) = chain.signatures().last().unwrap();
        assert!(other.is_used(id) && !other.is_known(id, signature));
    }

    #[test]
    fn contested_addresses_change_their_holder_once_an_hour() {
        let mut certificates = Certificates::default();
        let range = AddressRange::new([10, 42, 3, 16].into(), 28).unwrap();
        let within = AddressRange::new([10, 42, 3, 20].into(), 32).unwrap();
        assert!(certificates.may_change(&[range], Duration::from_secs(1)));
        assert!(!certificates.may_change(&[within], Duration::from_secs(3600)));
        assert!(certificates.may_change(&[], Duration::from_secs(3600)));
        assert!(certificates.may_change(&[within], Duration::from_secs(3601)));
        assert!(!certificates.may_change(&[range], Duration::from_secs(3602)));
    }
}
