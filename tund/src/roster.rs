//! The members with whom there may be tunnels: what is kept of their records once these are verified.
//!
//! Nothing that `meshd` says is believed. The network and this node's own chain come from `keyd`; of others only what a
//! record says that is signed by its node, for a key with whose private half its node has signed too, under a chain of
//! certificates that leads to the founder and that nobody who may has revoked. Of two that claim an address that an issuer
//! has delegated twice the same one stands as everywhere in the mesh ([`Certificates::contest`]).
//!
//! A record is verified when it comes, not when a packet first needs it: until then all its 1 to 3 KB would have to be
//! kept for ten thousand members, and whether another has a better claim to its addresses is known only when all claims are
//! verified. That takes some 50 µs for each of six signatures and for each certificate of its chain that is new, so the
//! caller lets the data path have its turn between two records. What is kept is `RosterEntry`, and each certificate once
//! for all chains that it is in: a kilobyte for a member with its certificate and the indexes.
//! Nothing here does input or output or reads a clock.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use i2plan_ipc::api::keyd::TrustAnchor;
use i2plan_ipc::api::tund::{Ending, Member};
use i2plan_proto::address::ipv6_of;
use i2plan_proto::certificates::{Certificates, Contest};
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::NodeId;
use i2plan_proto::membership::{CertificateId, Chain, Charter, Delegation, Issued};
use i2plan_proto::record::RecordError;
use i2plan_proto::revocation::{RevocationError, Revoked, Verdict};
use i2plan_proto::wireguard::WireGuardCertificate;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::tunnel::{AllowedIps, MAX_PEERS, PeerConfig};

/// Endings that are kept at most; `meshd` remembers fewer.
const MAX_ENDINGS: usize = 16_384;

/// Members that are held against the endings in one turn of the data path.
pub const SLICE: usize = 256;

/// In place of the round in which an ending was told: this node has signed it, and no `meshd` can withhold it.
const LOCAL: u32 = u32::MAX;

/// What is kept of a member's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RosterEntry {
    sequence: u64,
    public_key: [u8; 32],
    endpoint: Destination,
    not_before: u64,
    not_after: u64,
    /// The last certificate of its chain, from which its address follows.
    certificate: CertificateId,
    keepalive: u16,
    reports: bool,
    /// When it was last told.
    round: u32,
}

impl RosterEntry {
    fn is_valid_at(&self, now: u64) -> bool {
        WireGuardCertificate::is_valid_between(self.not_before, self.not_after, now)
    }
}

/// What the next process of this node goes on with. All of it was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembers {
    certificates: Vec<(CertificateId, Delegation)>,
    entries: Vec<(NodeId, RosterEntry)>,
}

/// Why a member is not admitted, or an ending not taken in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    /// The record is not to be believed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The ending is not to be believed.
    #[error(transparent)]
    Ending(#[from] RevocationError),
    /// It is this node's own.
    #[error("the record is this node's own")]
    Local,
    /// Its WireGuard certificate is not valid by the clock.
    #[error("the WireGuard key's certificate is not valid at this time")]
    NotValidNow,
    /// Its chain is void.
    #[error("a membership in the chain has ended")]
    Ended,
    /// Another has the better claim to the addresses.
    #[error("{0} holds the addresses")]
    Held(String),
    /// Another has the key.
    #[error("the WireGuard key is that of {0}")]
    KeyOfAnother(String),
    /// There are as many as there may be.
    #[error("there is no room for more")]
    Full,
}

/// What the data path is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Members that are new or different.
    pub set: Vec<PeerConfig>,
    /// Members that are gone.
    pub removed: Vec<NodeId>,
}

/// The members.
#[derive(Debug)]
pub struct Roster {
    charter: Charter,
    chain: Chain,
    /// The validity of this node's own key, Unix time in seconds.
    local_validity: (u64, u64),
    certificates: Certificates,
    entries: HashMap<NodeId, RosterEntry>,
    by_key: HashMap<[u8; 32], NodeId>,
    /// By whom they are about, with the round in which they were last told.
    endings: HashMap<NodeId, HashMap<Verdict, u32>>,
    /// How many of them were told.
    told_endings: usize,
    /// What this node has revoked itself.
    revoked: Vec<Revoked>,
    round: u32,
    is_syncing: bool,
    changed: BTreeSet<NodeId>,
    /// An ending has come since all members were last held against the endings.
    has_new_endings: bool,
}

impl Roster {
    /// The members that another process has kept, as far as they stand, for the network of an anchor.
    #[must_use]
    pub fn new(anchor: &TrustAnchor, kept: StoredMembers, now: u64) -> Self {
        let mut certificates = Certificates::default();
        certificates.add(&anchor.chain);
        let mut roster = Self {
            charter: anchor.charter.clone(),
            chain: anchor.chain.clone(),
            local_validity: (0, 0),
            certificates,
            entries: HashMap::new(),
            by_key: HashMap::new(),
            endings: HashMap::new(),
            told_endings: 0,
            revoked: Vec::new(),
            round: 0,
            is_syncing: false,
            changed: BTreeSet::new(),
            has_new_endings: false,
        };
        roster.certificates.import(&Chain::founder(&anchor.charter), kept.certificates);
        for (node, entry) in kept.entries.into_iter().take(MAX_PEERS) {
            let is_founder = node == anchor.charter.founder;
            if is_founder || roster.certificates.hold(entry.certificate) {
                roster.by_key.insert(entry.public_key, node);
                roster.entries.insert(node, RosterEntry { round: 0, ..entry });
                roster.changed.insert(node);
            }
        }
        roster.certificates.prune();
        roster.trust(anchor, now);
        let all = roster.nodes();
        roster.sweep(&all);
        roster
    }

    /// Goes by what `keyd` says from now on. The network must be the same.
    pub fn trust(&mut self, anchor: &TrustAnchor, now: u64) {
        self.local_validity = (WireGuardCertificate::begins_at(anchor.epoch), anchor.not_after);
        if self.chain != anchor.chain {
            self.certificates.remove(&self.chain);
            self.certificates.add(&anchor.chain);
            self.chain = anchor.chain.clone();
        }
        if self.revoked != anchor.revoked {
            self.revoked.clone_from(&anchor.revoked);
            self.forget_endings(|round| round != LOCAL);
            let by = *self.chain.subject();
            for what in &anchor.revoked {
                let verdict = Verdict::Revoked { by, what: what.clone() };
                self.endings.entry(*verdict.about()).or_default().insert(verdict, LOCAL);
            }
            self.count_endings();
            self.has_new_endings = true;
        }
        self.expire(now);
    }

    /// Whether the clock is wrong, as far as can be seen from this node's own key. Then nobody is admitted, and nobody is
    /// out because of the time.
    #[must_use]
    pub fn is_clock_suspect(&self, now: u64) -> bool {
        let (not_before, not_after) = self.local_validity;
        !WireGuardCertificate::is_valid_between(not_before, not_after, now)
    }

    /// Removes those whose key may not be used any more.
    fn expire(&mut self, now: u64) {
        if self.is_clock_suspect(now) {
            return;
        }
        let is_over = |(node, entry): (&NodeId, &RosterEntry)| (!entry.is_valid_at(now)).then_some(*node);
        let over: Vec<_> = self.entries.iter().filter_map(is_over).collect();
        self.remove(&over);
    }

    /// All is told again from here on.
    pub fn begin_sync(&mut self) {
        self.round = (self.round + 1) % LOCAL;
        self.is_syncing = true;
    }

    /// What was not told again goes.
    pub fn end_sync(&mut self) {
        if !std::mem::take(&mut self.is_syncing) {
            return;
        }
        let round = self.round;
        self.forget_endings(|told| told == round || told == LOCAL);
        self.count_endings();
        let gone = self.entries.iter().filter(|(_, entry)| entry.round != round);
        let gone: Vec<_> = gone.map(|(node, _)| *node).collect();
        self.remove(&gone);
    }

    fn forget_endings(&mut self, is_kept: impl Fn(u32) -> bool) {
        self.endings.values_mut().for_each(|verdicts| verdicts.retain(|_, round| is_kept(*round)));
        self.endings.retain(|_, verdicts| !verdicts.is_empty());
    }

    fn count_endings(&mut self) {
        let rounds = self.endings.values().flat_map(HashMap::values);
        self.told_endings = rounds.filter(|round| **round != LOCAL).count();
    }

    /// Whether what there is is being told from the start, and so not all of it is known.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.is_syncing
    }

    /// Takes in the end of a membership. Whom it concerns is out with the next [`Roster::sweep`].
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn take_ending(&mut self, ending: &Ending) -> Result<(), NotAdmitted> {
        let verdict = match ending {
            Ending::Revocation(revocation) => revocation.value.verdict(),
            Ending::Resignation(resignation) => Some(resignation.value.verdict()),
        };
        let Some(verdict) = verdict else { return Err(RevocationError::NotEntitled.into()) };
        let round = self.round;
        let known = self.endings.get_mut(verdict.about()).and_then(|verdicts| verdicts.get_mut(&verdict));
        if let Some(told) = known {
            // A verdict says all that counts of an ending: this one is proven.
            if *told != LOCAL {
                *told = round;
            }
            return Ok(());
        }
        if self.told_endings >= MAX_ENDINGS {
            return Err(NotAdmitted::Full);
        }
        match ending {
            Ending::Revocation(revocation) => revocation.verify_for(&self.charter)?,
            Ending::Resignation(resignation) => resignation.verify_for(&self.charter)?,
        }
        self.endings.entry(*verdict.about()).or_default().insert(verdict, round);
        self.told_endings += 1;
        self.has_new_endings = true;
        Ok(())
    }

    /// Takes in a member's record, if it is newer than what is known of it.
    ///
    /// # Errors
    /// [`NotAdmitted`]. What was known of the member before stays.
    pub fn take_member(&mut self, member: &Member, now: u64) -> Result<(), NotAdmitted> {
        let Member { record, keepalive } = member;
        let (record, round) = (&record.value, self.round);
        let node = record.node;
        if node == *self.chain.subject() {
            return Err(NotAdmitted::Local);
        }
        if self.entries.get(&node).is_some_and(|known| record.sequence <= known.sequence) {
            self.set_keepalive(&node, *keepalive);
            if let Some(known) = self.entries.get_mut(&node) {
                known.round = round;
            }
            return Ok(());
        }
        let WireGuardCertificate { not_before, not_after, .. } = record.wireguard.value;
        if !record.wireguard.value.is_valid_at(now) {
            return Err(NotAdmitted::NotValidNow);
        }
        if self.is_void(&node, &record.chain.path()) {
            return Err(NotAdmitted::Ended);
        }
        if self.entries.len() >= MAX_PEERS && !self.entries.contains_key(&node) {
            return Err(NotAdmitted::Full);
        }
        // That its issuer has signed the content of a certificate is what counts here, not with which signature.
        let certificates = &self.certificates;
        member.record.verify_except(&self.charter, None, |id, _| certificates.is_used(id))?;
        let public_key = record.wireguard.value.public_key();
        if let Some(other) = self.by_key.get(&public_key).filter(|other| **other != node) {
            return Err(NotAdmitted::KeyOfAnother(other.short()));
        }
        let own = self.chain.address(&self.charter.subnet);
        if record.ipv4(&self.charter) == own {
            return Err(NotAdmitted::Held(self.chain.subject().short()));
        }
        self.resolve(&node, &record.chain)?;
        let before = self.entries.get(&node).map(|before| (before.certificate, before.public_key));
        self.certificates.add(&record.chain);
        if let Some((certificate, key)) = before {
            self.certificates.release(certificate);
            self.by_key.remove(&key);
        }
        let entry = RosterEntry {
            sequence: record.sequence,
            public_key,
            endpoint: *record.data,
            not_before,
            not_after,
            certificate: record.chain.id(),
            keepalive: *keepalive,
            reports: record.takes_reports,
            round,
        };
        self.by_key.insert(public_key, node);
        self.entries.insert(node, entry);
        self.changed.insert(node);
        Ok(())
    }

    /// Holds the chain of a member against those of the others: either it does not stand, or others are out.
    fn resolve(&mut self, node: &NodeId, chain: &Chain) -> Result<(), NotAdmitted> {
        // A member has one chain, that of its newest record: the one before contests nothing.
        let before = self.entries.get(node).map(|entry| entry.certificate);
        let before = before.map(|certificate| {
            let copied = self.certificates.copied(certificate);
            self.certificates.release(certificate);
            copied
        });
        let contest = self.certificates.contest(chain, None);
        if let Some(before) = before {
            self.certificates.put_back(before);
        }
        match contest {
            Contest::Falls { holder, .. } => Err(NotAdmitted::Held(holder.short())),
            Contest::Stands { falls, .. } if falls.is_empty() => Ok(()),
            Contest::Stands { falls, .. } => {
                let is_below = |(other, entry): (&NodeId, &RosterEntry)| {
                    let path = self.certificates.path(entry.certificate);
                    (other != node && path.iter().any(|issued| falls.contains(issued.id))).then_some(*other)
                };
                let out: Vec<_> = self.entries.iter().filter_map(is_below).collect();
                self.remove(&out);
                Ok(())
            }
        }
    }

    /// Whether an ending says something against a chain.
    fn is_void(&self, subject: &NodeId, path: &[Issued<'_>]) -> bool {
        let about = path.iter().map(|issued| issued.issuer).chain([subject]);
        let mut verdicts = about.filter_map(|node| self.endings.get(node)).flat_map(HashMap::keys);
        verdicts.any(|verdict| verdict.voids(path).is_some())
    }

    /// All members, for [`Roster::sweep`] in slices, if endings have come since that was last done.
    #[must_use]
    pub fn to_sweep(&mut self) -> Vec<NodeId> {
        if std::mem::take(&mut self.has_new_endings) { self.nodes() } else { Vec::new() }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.entries.keys().copied().collect()
    }

    /// Removes those of these members whose chains are void.
    pub fn sweep(&mut self, nodes: &[NodeId]) {
        let is_void = |node: &&NodeId| {
            let entry = self.entries.get(*node);
            entry.is_some_and(|entry| self.is_void(node, &self.certificates.path(entry.certificate)))
        };
        let out: Vec<_> = nodes.iter().filter(is_void).copied().collect();
        self.remove(&out);
    }

    /// Has another keepalive for a member, if it is known.
    pub fn set_keepalive(&mut self, node: &NodeId, keepalive: u16) {
        if let Some(known) = self.entries.get_mut(node).filter(|known| known.keepalive != keepalive) {
            known.keepalive = keepalive;
            self.changed.insert(*node);
        }
    }

    /// Forgets members.
    pub fn remove(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            let Some(entry) = self.entries.remove(node) else { continue };
            self.certificates.release(entry.certificate);
            self.by_key.remove(&entry.public_key);
            self.changed.insert(*node);
        }
    }

    /// What has changed since this was asked last.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for node in std::mem::take(&mut self.changed) {
            match self.entries.get(&node) {
                Some(entry) => changes.set.push(self.peer(node, entry)),
                None => changes.removed.push(node),
            }
        }
        changes
    }

    fn peer(&self, node: NodeId, entry: &RosterEntry) -> PeerConfig {
        let ipv4 = self.address(entry);
        PeerConfig {
            node,
            public_key: entry.public_key,
            preshared_key: None,
            endpoint: Some(entry.endpoint.into()),
            allowed_ips: AllowedIps::Member(ipv4, ipv6_of(&self.chain.network(), ipv4)),
            keepalive: entry.keepalive,
            takes_reports: entry.reports,
        }
    }

    fn address(&self, entry: &RosterEntry) -> Ipv4Addr {
        let path = self.certificates.path(entry.certificate);
        path.last().map_or(self.charter.subnet.founder_address(), |last| last.grant.ranges.address())
    }

    /// What the next process goes on with.
    #[must_use]
    pub fn to_stored(&self) -> StoredMembers {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(node, entry)| (*node, RosterEntry { round: 0, ..entry.clone() }))
            .collect();
        entries.sort_unstable_by_key(|(node, _)| *node);
        StoredMembers { certificates: self.certificates.export(), entries }
    }
}

#[cfg(test)]
pub(crate) mod tests;
