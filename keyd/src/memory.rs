//! What `keyd` remembers beside the keys, so that no `meshd` can have it sign what contradicts what it has signed before:
//! its counter, the epochs of the WireGuard key, its place in a network, and the addresses that it has delegated.
//!
//! Without I/O: [`Disk`] is where it is kept. What is small and changes is replaced as a whole ([`Memory`]); delegations
//! are appended one by one ([`Delegations`]), each before its certificate leaves the process.

use std::fmt;
use std::io;

use i2plan_proto::address::AddressRanges;
use i2plan_proto::codec::{Codec, DecodeError, Reader};
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::invite::InviteId;
use i2plan_proto::membership::{CertificateId, Chain, Charter, Delegation};
use i2plan_proto::revocation::Revoked;
use i2plan_proto::wireguard::WireGuardCertificate;
use sha2::{Digest as _, Sha256};

/// Numbers that are reserved on disk at once.
pub const BLOCK: u64 = 1024;

/// Epochs of the WireGuard key that are remembered: the one in force, the one before it, which peers may still use, and
/// one that a clock that was ahead has begun.
pub const MAX_EPOCHS: usize = 3;

/// Delegations that are remembered at most. At a start, old ones that have ended are forgotten.
pub const MAX_DELEGATIONS: usize = 16_384;

/// Invites that an administrator has allowed and that are remembered at most. The oldest are forgotten first.
const MAX_ALLOWED: usize = 1024;

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// Delegations that have ended, and ones that later certificates have replaced, that are kept at a start at most.
const MAX_ENDED: usize = 4096;

/// Revocations by this node that are remembered: the oldest are forgotten first.
pub const MAX_REVOKED: usize = 1024;

const VERSION: u8 = 2;

/// Flag: the memory has a [`Budget`].
const HAS_BUDGET: u8 = 0x80;

/// Bytes before the content of an entry.
const HEADER_LEN: usize = 4;

/// Bytes of the checksum of an entry.
const SUM_LEN: usize = 8;

/// Where the memory is kept.
pub trait Disk: fmt::Debug + Send {
    /// Replaces what was saved last. After a crash at any moment the old or the new content is there.
    ///
    /// # Errors
    /// If the content is not safely on disk.
    fn save(&mut self, content: &[u8]) -> io::Result<()>;

    /// Adds an entry to the row of those that were appended.
    ///
    /// # Errors
    /// If the entry is not safely on disk.
    fn append(&mut self, entry: &[u8]) -> io::Result<()>;
}

/// No disk: for a simulation, which keeps what it wants to keep.
#[derive(Debug, Clone, Copy)]
pub struct Volatile;

impl Disk for Volatile {
    fn save(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// An epoch of the WireGuard key that was certified.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch {
    /// For this network.
    pub network: NetworkId,
    /// Its number, which says when it began.
    pub number: u32,
    /// Mixed into the key: without it a later thief of the master secret cannot derive the key.
    pub salt: [u8; 32],
    /// Until when its certificate is valid, Unix time in seconds.
    pub end: u64,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.number)
    }
}

impl Epoch {
    /// When it began, Unix time in seconds.
    #[must_use]
    pub fn begins_at(&self) -> u64 {
        WireGuardCertificate::begins_at(self.number)
    }
}

/// The network whose member this node is, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Its charter.
    pub charter: Charter,
    /// The newest chain of which this node has signed a record.
    pub chain: Chain,
}

impl Pinned {
    /// Whether a certificate of this chain is newer than the other's of the same issuer.
    #[must_use]
    pub fn is_newer(&self, other: &Self) -> bool {
        let mut both = self.chain.links().iter().zip(other.chain.links());
        self.charter == other.charter && both.any(|(mine, theirs)| mine.serial > theirs.serial)
    }
}

/// The addresses that were delegated without an order in a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// When the day began, Unix time in seconds.
    pub since: u64,
    /// Addresses that were delegated since.
    pub used: u64,
}

impl Budget {
    /// The budget at this time, Unix time in seconds. A day that began at a time to come begins now: a clock that was
    /// ahead, or that is set back, neither lifts the limit nor locks it for longer than a day.
    #[must_use]
    pub fn at(self, now: u64) -> Self {
        match now.checked_sub(self.since) {
            None => Self { since: now, ..self },
            Some(passed) if passed >= DAY => Self { since: now, used: 0 },
            Some(_) => self,
        }
    }
}

/// What is remembered apart from delegations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Numbers up to this one may have been given out.
    pub reserved: u64,
    /// Whether all delegations of this node in its network are remembered.
    pub remembers: bool,
    /// The network, once a record was signed for it.
    pub pinned: Option<Pinned>,
    /// The newest epochs, the oldest first.
    pub epochs: Vec<Epoch>,
    /// What was delegated today without an order.
    pub budget: Budget,
}

impl Memory {
    /// That of keys that have just been made.
    #[must_use]
    pub fn new() -> Self {
        Self { reserved: 0, remembers: true, pinned: None, epochs: Vec::new(), budget: Budget::default() }
    }

    /// That of keys whose memory is gone.
    #[must_use]
    pub fn lost() -> Self {
        Self { remembers: false, ..Self::new() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Epoch {
    fn encode(&self, out: &mut Vec<u8>) {
        self.network.encode(out);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.end.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            network: NetworkId::decode(reader)?,
            number: reader.u32("epoch")?,
            salt: reader.array("salt")?,
            end: reader.u64("end of an epoch")?,
        })
    }
}

impl Codec for Memory {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.reserved.to_be_bytes());
        let has_budget = if self.budget == Budget::default() { 0 } else { HAS_BUDGET };
        out.push(u8::from(self.remembers) | u8::from(self.pinned.is_some()) << 1 | has_budget);
        if let Some(Pinned { charter, chain }) = &self.pinned {
            charter.encode(out);
            chain.encode(out);
        }
        out.push(u8::try_from(self.epochs.len()).expect("there are three epochs at most"));
        self.epochs.iter().for_each(|epoch| epoch.encode(out));
        if self.budget != Budget::default() {
            out.extend_from_slice(&self.budget.since.to_be_bytes());
            out.extend_from_slice(&self.budget.used.to_be_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "memory of keyd";
        match reader.u8(what)? {
            VERSION => {}
            version => return Err(DecodeError::Version { what, version }),
        }
        let reserved = reader.u64("counter")?;
        let flags = reader.u8(what)?;
        let pinned = if flags & 2 == 2 {
            Some(Pinned { charter: Charter::decode(reader)?, chain: Chain::decode(reader)? })
        } else {
            None
        };
        let count = usize::from(reader.u8("epochs")?);
        if flags & !(3 | HAS_BUDGET) != 0 || count > MAX_EPOCHS {
            return Err(DecodeError::Invalid { what, why: "out of bounds" });
        }
        let epochs = (0..count).map(|_| Epoch::decode(reader)).collect::<Result<_, _>>()?;
        let budget = if flags & HAS_BUDGET == 0 {
            Budget::default()
        } else {
            Budget { since: reader.u64("beginning of a day")?, used: reader.u64("addresses")? }
        };
        Ok(Self { reserved, remembers: flags & 1 == 1, pinned, epochs, budget })
    }
}

/// Addresses that this node has delegated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegated {
    /// What its certificate states.
    pub grant: Delegation,
    /// This node's own certificate, under which it was issued.
    pub parent: CertificateId,
    /// The membership has ended.
    pub ended: bool,
    /// A later certificate for the same member and addresses counts in its place.
    pub superseded: bool,
}

impl Delegated {
    /// A delegation by a certificate that was just signed.
    #[must_use]
    pub fn new(parent: CertificateId, grant: Delegation) -> Self {
        Self { grant, parent, ended: false, superseded: false }
    }

    /// Whether its member holds the addresses.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.ended && !self.superseded
    }
}

/// A change of the delegations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryChange {
    /// There is one more.
    Delegated(CertificateId, Delegation),
    /// The one with this serial number has ended.
    Ended(u64),
    /// All are forgotten: they were of another network.
    Cleared,
    /// An administrator has allowed an invite.
    Allowed(InviteId),
    /// This node has revoked certificates.
    Revoked(Revoked),
}

impl Codec for MemoryChange {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Delegated(parent, grant) => {
                out.push(1);
                parent.encode(out);
                grant.encode(out);
            }
            Self::Ended(serial) => {
                out.push(2);
                out.extend_from_slice(&serial.to_be_bytes());
            }
            Self::Cleared => out.push(3),
            Self::Allowed(invite) => {
                out.push(16);
                invite.encode(out);
            }
            Self::Revoked(revoked) => {
                out.push(4);
                revoked.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "entry";
        match reader.u8(what)? {
            1 => Ok(Self::Delegated(CertificateId::decode(reader)?, Delegation::decode(reader)?)),
            2 => Ok(Self::Ended(reader.u64("serial number")?)),
            3 => Ok(Self::Cleared),
            16 => Ok(Self::Allowed(InviteId::decode(reader)?)),
            4 => Ok(Self::Revoked(Revoked::decode(reader)?)),
            _ => Err(DecodeError::Invalid { what, why: "unknown kind" }),
        }
    }
}

impl MemoryChange {
    /// Its form on disk: length, its complement, content, checksum.
    #[must_use]
    pub fn framed(&self) -> Vec<u8> {
        let content = self.to_bytes();
        let len = u16::try_from(content.len()).expect("an entry has a few hundred bytes");
        let mut out = len.to_be_bytes().to_vec();
        out.extend_from_slice(&(!len).to_be_bytes());
        out.extend_from_slice(&content);
        out.extend_from_slice(&Sha256::digest(&content)[..SUM_LEN]);
        out
    }

    /// The first of these entries, and how many bytes it has; none if the bytes end before it does.
    fn first(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let damaged = |why| DecodeError::Invalid { what: "entry", why };
        let mut reader = Reader::new(bytes);
        let (Ok(len), Ok(complement)) = (reader.array("length"), reader.array("length")) else {
            return Ok(None);
        };
        let len = u16::from_be_bytes(len);
        if len != !u16::from_be_bytes(complement) {
            return Err(damaged("its length is damaged"));
        }
        let (Ok(content), Ok(sum)) = (reader.bytes(len.into(), "entry"), reader.array::<SUM_LEN>("checksum"))
        else {
            return Ok(None);
        };
        if Sha256::digest(content)[..SUM_LEN] != sum {
            return Err(damaged("its checksum does not match"));
        }
        Ok(Some((Self::from_bytes(content)?, HEADER_LEN + content.len() + SUM_LEN)))
    }
}

/// What was read of a row of entries.
#[derive(Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The delegations.
    pub delegations: Delegations,
    /// The bytes of whole entries. What follows was being written when the process ended.
    pub whole: usize,
    /// Something in the midst of the row is damaged: what follows is not to be read.
    pub is_damaged: bool,
}

/// All delegations of this node in its network, what it has revoked, and the invites that an administrator has allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delegations {
    delegated: Vec<Delegated>,
    /// The oldest first.
    revoked: Vec<Revoked>,
    /// The oldest first.
    allowed: Vec<InviteId>,
}

impl Delegations {
    /// Reads the entries that were appended, one after the other.
    #[must_use]
    pub fn replay(bytes: &[u8]) -> Replayed {
        let mut replayed = Replayed { delegations: Self::default(), whole: 0, is_damaged: false };
        loop {
            let rest = &bytes[replayed.whole..];
            match MemoryChange::first(rest) {
                Ok(Some((entry, len))) => {
                    replayed.delegations.apply(&entry);
                    replayed.whole += len;
                }
                Ok(None) => break,
                // A crash may leave zeros where the last entry was to be.
                Err(_) => {
                    replayed.is_damaged = rest.iter().any(|byte| *byte != 0);
                    break;
                }
            }
        }
        replayed
    }

    /// The entries that lead to these delegations, without those that do not matter any more.
    #[must_use]
    pub fn compacted(&self) -> Vec<MemoryChange> {
        // Counted apart: certificates that replace others cost `meshd` nothing, and must not push out those that have ended,
        // which an invite's uses are counted by.
        let skipped = |ended| {
            let of_kind = |other: &&Delegated| !other.is_active() && other.ended == ended;
            self.delegated.iter().filter(of_kind).count().saturating_sub(MAX_ENDED)
        };
        let mut skip = [skipped(false), skipped(true)];
        let mut entries: Vec<MemoryChange> =
            self.allowed.iter().copied().map(MemoryChange::Allowed).collect();
        for delegated in &self.delegated {
            let skip = &mut skip[usize::from(delegated.ended)];
            if !delegated.is_active() && *skip > 0 {
                *skip -= 1;
                continue;
            }
            entries.push(MemoryChange::Delegated(delegated.parent, delegated.grant.clone()));
            if delegated.ended {
                entries.push(MemoryChange::Ended(delegated.grant.serial));
            }
        }
        entries.extend(self.revoked.iter().cloned().map(MemoryChange::Revoked));
        entries
    }

    /// What this node has revoked, the oldest first; at most [`MAX_REVOKED`].
    #[must_use]
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }

    /// Takes in a change.
    pub fn apply(&mut self, entry: &MemoryChange) {
        match entry {
            MemoryChange::Delegated(parent, grant) => {
                let is_before = |other: &&mut Delegated| {
                    other.grant.subject == grant.subject
                        && other.grant.serial < grant.serial
                        && other.grant.ranges.overlap(&grant.ranges)
                };
                self.delegated.iter_mut().filter(is_before).for_each(|other| other.superseded = true);
                let mut delegated = Delegated::new(*parent, grant.clone());
                // Found in another's chain after a later one.
                delegated.superseded = self.delegated.iter().any(|other| {
                    other.grant.subject == grant.subject
                        && other.grant.serial > grant.serial
                        && other.grant.ranges.overlap(&grant.ranges)
                });
                self.delegated.push(delegated);
            }
            MemoryChange::Ended(serial) => {
                let ended = self.delegated.iter_mut().filter(|delegated| delegated.grant.serial == *serial);
                ended.for_each(|delegated| delegated.ended = true);
            }
            MemoryChange::Cleared => *self = Self::default(),
            MemoryChange::Allowed(invite) => {
                if self.allowed.len() >= MAX_ALLOWED {
                    self.allowed.remove(0);
                }
                self.allowed.push(*invite);
            }
            MemoryChange::Revoked(revoked) => {
                self.revoked.retain(|other| other != revoked);
                self.revoked.push(revoked.clone());
                let excess = self.revoked.len().saturating_sub(MAX_REVOKED);
                self.revoked.drain(..excess);
            }
        }
    }

    /// Whether an administrator has allowed an invite.
    #[must_use]
    pub fn is_allowed(&self, invite: &InviteId) -> bool {
        self.allowed.contains(invite)
    }

    /// So many, of nobody in particular.
    #[cfg(test)]
    pub(crate) fn filled(count: usize, like: &Delegated) -> Self {
        Self { delegated: vec![like.clone(); count], ..Self::default() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.delegated.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delegated.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Delegated> {
        self.delegated.iter()
    }

    /// The one whose certificate has this serial number.
    #[must_use]
    pub fn with_serial(&self, serial: u64) -> Option<&Delegated> {
        self.delegated.iter().find(|delegated| delegated.grant.serial == serial)
    }

    /// The newest that a member was given with an invite.
    #[must_use]
    pub fn with_invite(&self, subject: &NodeId, invite: &InviteId) -> Option<&Delegated> {
        let given =
            |delegated: &&Delegated| delegated.grant.subject == *subject && delegated.grant.invite == *invite;
        self.delegated.iter().filter(given).max_by_key(|delegated| delegated.grant.serial)
    }

    /// The one that a member holds these addresses by.
    #[must_use]
    pub fn held(&self, subject: &NodeId, ranges: &AddressRanges) -> Option<&Delegated> {
        self.delegated.iter().find(|delegated| {
            delegated.is_active()
                && delegated.grant.subject == *subject
                && delegated.grant.ranges.address() == ranges.address()
        })
    }

    /// How many members have used an invite.
    #[must_use]
    pub fn users(&self, invite: &InviteId) -> usize {
        let mut users: Vec<_> =
            self.delegated.iter().filter(|delegated| delegated.grant.invite == *invite).collect();
        users.sort_unstable_by_key(|delegated| delegated.grant.subject);
        users.dedup_by_key(|delegated| delegated.grant.subject);
        users.len()
    }

    /// Other members' delegations of some of these addresses.
    pub fn of_others<'a>(
        &'a self,
        subject: &'a NodeId,
        ranges: &'a AddressRanges,
    ) -> impl Iterator<Item = &'a Delegated> {
        self.delegated
            .iter()
            .filter(move |other| other.grant.subject != *subject && other.grant.ranges.overlap(ranges))
    }
}

#[cfg(test)]
mod tests {
    use i2plan_testing as testing;
    use proptest::prelude::*;

    use super::*;

    fn epoch(number: u32) -> Epoch {
        Epoch { network: testing::charter(0).network(), number, salt: [7; 32], end: 99 }
    }

    fn memory() -> Memory {
        let pinned = Pinned { charter: testing::charter(0), chain: testing::chain(3) };
        let epochs = vec![epoch(1), epoch(2)];
        let budget = Budget { since: 7, used: 9 };
        Memory { reserved: 2048, remembers: true, pinned: Some(pinned), epochs, budget }
    }

    fn entries() -> Vec<MemoryChange> {
        let parent = testing::chain(0).id();
        vec![
            MemoryChange::Delegated(parent, testing::delegation(0, 1)),
            MemoryChange::Delegated(parent, testing::delegation(0, 2)),
            MemoryChange::Allowed(testing::invite(1).id()),
            MemoryChange::Ended(testing::delegation(0, 1).serial),
        ]
    }

    fn written(entries: &[MemoryChange]) -> Vec<u8> {
        entries.iter().flat_map(MemoryChange::framed).collect()
    }

    #[test]
    fn the_memory_reads_back() {
        for memory in [memory(), Memory::new(), Memory::lost()] {
            assert_eq!(Memory::from_bytes(&memory.to_bytes()), Ok(memory));
        }
    }

    #[test]
    fn salts_do_not_print() {
        assert!(!format!("{:?}", memory()).contains("7, 7"));
    }

    #[test]
    fn entries_read_back_up_to_one_that_a_crash_cut_short() {
        let bytes = written(&entries());
        let whole = Delegations::replay(&bytes);
        assert_eq!((whole.delegations.len(), whole.whole, whole.is_damaged), (2, bytes.len(), false));
        assert_eq!(whole.delegations.iter().filter(|delegated| delegated.ended).count(), 1);
        let last = entries()[3].framed().len();
        for cut in 1..last {
            let replayed = Delegations::replay(&bytes[..bytes.len() - cut]);
            assert_eq!((replayed.whole, replayed.is_damaged), (bytes.len() - last, false), "{cut}");
            assert!(replayed.delegations.iter().all(Delegated::is_active));
        }
    }

    #[test]
    fn a_damaged_entry_is_told_from_one_that_was_cut_short() {
        let bytes = written(&entries());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Delegations::replay(&damaged).is_damaged, "{at}");
        }
        let filled = [bytes.as_slice(), &[0; 100]].concat();
        let replayed = Delegations::replay(&filled);
        assert_eq!((replayed.whole, replayed.is_damaged), (bytes.len(), false));
    }

    #[test]
    fn what_is_compacted_reads_back() {
        let all = Delegations::replay(&written(&entries())).delegations;
        assert_eq!(Delegations::replay(&written(&all.compacted())).delegations, all);
        let mut cleared = all.clone();
        cleared.apply(&MemoryChange::Cleared);
        assert!(cleared.is_empty() && cleared.compacted().is_empty());
    }

    #[test]
    fn certificates_that_were_replaced_push_out_none_that_have_ended() {
        let parent = testing::chain(0).id();
        let ended = Delegated { ended: true, ..Delegated::new(parent, testing::delegation(0, 1)) };
        let replaced = Delegated { superseded: true, ..Delegated::new(parent, testing::delegation(0, 2)) };
        let mut all = Delegations::filled(3 * MAX_ENDED, &replaced);
        all.delegated.insert(0, ended);
        let compacted = all.compacted();
        assert_eq!(compacted.len(), 2 + MAX_ENDED);
        assert!(matches!(compacted[1], MemoryChange::Ended(_)));
    }

    #[test]
    fn a_day_begins_anew_with_a_clock_that_is_set_back_but_not_with_nothing_used() {
        let budget = Budget { since: 1_000_000, used: 5 };
        assert_eq!(budget.at(1_000_000 + DAY - 1), budget);
        assert_eq!(budget.at(1_000_000 + DAY), Budget { since: 1_000_000 + DAY, used: 0 });
        let back = budget.at(10);
        assert_eq!(back, Budget { since: 10, used: 5 });
        assert_eq!(back.at(10 + DAY).used, 0);
    }

    #[test]
    fn allowed_invites_are_few() {
        let mut delegations = Delegations::default();
        let invite = |number: usize| InviteId(std::array::from_fn(|at| number.to_be_bytes()[at % 8]));
        (0..=MAX_ALLOWED).for_each(|number| delegations.apply(&MemoryChange::Allowed(invite(number))));
        assert!(!delegations.is_allowed(&invite(0)) && delegations.is_allowed(&invite(MAX_ALLOWED)));
    }

    #[test]
    fn a_later_certificate_supersedes_whatever_comes_first() {
        let parent = testing::chain(0).id();
        let first = testing::delegation(0, 1);
        let later = Delegation { serial: first.serial + 5, ..first.clone() };
        for order in [[&first, &later], [&later, &first]] {
            let mut delegations = Delegations::default();
            order
                .iter()
                .for_each(|grant| delegations.apply(&MemoryChange::Delegated(parent, (*grant).clone())));
            let held = delegations.held(&first.subject, &first.ranges).unwrap();
            assert_eq!(held.grant.serial, later.serial);
            assert_eq!(delegations.users(&first.invite), 1);
        }
    }

    #[test]
    fn the_oldest_revocations_are_forgotten_first() {
        let mut delegations = Delegations::default();
        let revoked = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            Revoked::Invite(InviteId(id))
        };
        for number in 0..=MAX_REVOKED {
            delegations.apply(&MemoryChange::Revoked(revoked(number)));
        }
        assert_eq!(delegations.revoked().len(), MAX_REVOKED);
        assert_eq!(delegations.revoked().first(), Some(&revoked(1)));
        let bytes: Vec<u8> = delegations.compacted().iter().flat_map(MemoryChange::framed).collect();
        assert_eq!(Delegations::replay(&bytes).delegations, delegations);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Memory::from_bytes(&bytes);
            let _ = Delegations::replay(&bytes);
        }
    }
}
