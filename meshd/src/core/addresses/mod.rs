//! Who may use an address.
//!
//! * A certificate delegates a range of addresses to a member; the first of them is the member's own
//!   ([`VerifiedRecord::ipv4`](super::verified::VerifiedRecord::ipv4)).
//! * Of two chains with certificates for common addresses one stands ([`contest`], which
//!   [`Members`](super::members::Members) asks for each record). Who has no chain that stands is no member; this node is
//!   then told to join again ([`LocalMember::note_fallen`]).
//! * Of the members that are left each has its address and its WireGuard key for itself ([`LocalMember::peers`]).
//! * What this node may delegate is what it holds ([`LocalMember::holding`]) and has not delegated ([`delegations`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use i2plan_ipc::api::meshd;
use i2plan_proto::address::AddressRange;
use i2plan_proto::certificates::{Certificates, Contest};
use i2plan_proto::identity::NodeId;
use i2plan_proto::membership::{CertificateId, Chain};
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::warn;

use super::Now;
use super::context::Context;
use super::local_member::LocalMember;
use super::members::Member;
use super::state::Delegated;
use super::verified::Peer;
use delegations::{Delegations, Holding};

pub(super) mod delegations;

/// How many of them one issuer may have delegated.
const MAX_CONFLICTS_OF_ISSUER: usize = 2;

/// Addresses delegated twice of which this node remembers that at most.
const MAX_CONFLICTS: usize = 16;

/// How long after it was last seen users are told that addresses are delegated twice.
pub(super) const CONFLICT_LASTS: Duration = Duration::from_secs(3600);

/// That an issuer has delegated addresses twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) issuer: NodeId,
    pub(super) range: AddressRange,
    /// When it was last seen, on the monotonic clock.
    pub(super) seen_at: Duration,
}

/// Whether a member's chain stands against those of all others, and what falls against it. `before` is the chain that the
/// member has among the certificates.
pub(super) fn contest(certificates: &mut Certificates, chain: &Chain, before: Option<&Chain>) -> Contest {
    // A member has one chain, that of its newest record: the one before contests nothing.
    if let Some(before) = before {
        certificates.remove(before);
    }
    let contest = certificates.contest(chain, before);
    if let Some(before) = before {
        certificates.add(before);
    }
    contest
}

/// Whether a chain that was remembered stands, and nothing falls against it.
pub(super) fn is_uncontested(certificates: &Certificates, chain: &Chain) -> bool {
    matches!(certificates.contest(chain, None), Contest::Stands { falls, .. } if falls.is_empty())
}

/// The addresses that this node has delegated, and what was seen of those that were delegated twice.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// What this node has delegated.
    pub(super) delegations: Delegations,
    /// Members whose records do not have the certificate that this node has issued for them last, and when they are told
    /// of it again.
    open_grants: HashMap<NodeId, Duration>,
    /// Addresses that were seen to be delegated twice.
    pub(super) conflicts: VecDeque<Conflict>,
    /// Who has delegated this node's addresses to another member as well, against which this node's chain does not stand.
    pub(super) displaced: Option<NodeId>,
}

impl Addresses {
    pub(super) fn new(delegated: Vec<Delegated>, open_grants: HashMap<NodeId, Duration>) -> Self {
        Self { delegations: Delegations::new(delegated), open_grants, ..Self::default() }
    }
}

impl LocalMember {
    /// The WireGuard peers that this node should have.
    pub(super) fn peers(&self, cx: &Context, now: Now) -> Vec<Peer> {
        // A key and an address belong to one node. Who claims another's, this node's own included, is no peer.
        let mut keys: HashSet<[u8; 32]> = self.publication.key().into_iter().collect();
        let mut addresses = HashSet::from([self.ipv4()]);
        let members = self.members.iter().filter(|member| {
            self.is_peer(member, now)
                && !addresses.contains(&member.record.ipv4())
                && keys.insert(member.record.wireguard_key())
                && addresses.insert(member.record.ipv4())
        });
        members
            .map(|member| {
                // Who is not there is not called all the time; a packet for it still calls it.
                let there = matches!(
                    self.liveness(cx, member, now),
                    meshd::Liveness::Present | meshd::Liveness::Suspected
                );
                Peer {
                    node: member.node(),
                    record: member.record.clone(),
                    keepalive: if there { cx.settings.keepalive } else { 0 },
                }
            })
            .collect()
    }

    /// Whether a node is among the [`LocalMember::peers`], unless it claims a key that is another's.
    pub(super) fn has_peer(&self, node: &NodeId, now: Now) -> bool {
        self.members.get(node).is_some_and(|member| self.is_peer(member, now))
    }

    /// Whether this node has something to do with a member, and it has a key. By a clock by which this node's own key is not
    /// valid either, nobody's is over: `tund` admits nobody new then.
    fn is_peer(&self, member: &Member, now: Now) -> bool {
        let is_valid = |certificate: &WireGuardCertificate| certificate.is_valid_at(now.unix.as_secs());
        !self.bans.is_banned(&member.node())
            && (is_valid(&member.record.value.wireguard.value)
                || self.publication.certificate().is_some_and(|own| !is_valid(own)))
    }

    /// What this node holds.
    pub(super) fn holding(&self) -> Holding {
        let subnet = self.charter().subnet;
        let certificates = self.members.certificates();
        let is_inherited = |delegated: &&Delegated| {
            let certificate = delegated.certificate.as_ref().filter(|_| delegated.ended_at.is_some());
            certificate.is_some_and(|certificate| certificates.is_used(&certificate.value.id()))
        };
        let inherited = self.addresses.delegations.iter().filter(is_inherited);
        let inherited = inherited.flat_map(|delegated| delegated.ranges.iter().copied()).collect();
        Holding { subnet, ranges: self.membership.chain.ranges(&subnet), inherited }
    }

    /// Addresses were seen to be delegated twice.
    pub(super) fn note_conflict(&mut self, chain: &Chain, range: AddressRange, issuer: NodeId, now: Now) {
        let seen_at = now.monotonic;
        let known =
            self.addresses.conflicts.iter_mut().find(|known| known.issuer == issuer && known.range == range);
        match known {
            Some(known) => known.seen_at = seen_at,
            None => {
                let of_issuer =
                    self.addresses.conflicts.iter().filter(|known| known.issuer == issuer).count();
                // One that goes on delegating its addresses twice is told of no more.
                if of_issuer >= MAX_CONFLICTS_OF_ISSUER {
                    return;
                }
                let issuer_name = self.name_of(&issuer).unwrap_or_else(|| issuer.short());
                warn!(
                    node = %chain.subject().short(),
                    "{issuer_name} has given out {range} twice; perhaps its backup was restored"
                );
                if self.addresses.conflicts.len() >= MAX_CONFLICTS {
                    self.addresses.conflicts.pop_front();
                }
                self.addresses.conflicts.push_back(Conflict { issuer, range, seen_at });
            }
        }
    }

    /// These certificates do not stand against those of a chain.
    pub(super) fn note_fallen(&mut self, fallen: &[CertificateId], chain: &Chain) {
        let membership = &self.membership;
        let own = membership.chain.issued().find(|(_, link)| fallen.contains(link.id()));
        if let Some((issuer, _)) = own {
            warn!(
                node = %chain.subject().short(),
                "this node's addresses were given to another member as well, which keeps them: this node has to join again"
            );
            self.addresses.displaced = Some(*issuer);
        }
    }
}
