//! Who may use an address.
//!
//! A certificate delegates a range of addresses to a member ([`Chain`]); a member's address is the first of its range. Of
//! two certificates for common addresses one stands, by the rule of [`i2plan_proto::certificates`], which
//! [`Members`](super::members::Members) applies to each record; whose certificate falls is no member, or has to join
//! again if it is this node. Of the members that are left each has its address and its WireGuard key for itself
//! ([`Mesh::peers`]).
//!
//! `delegations`: what this node has delegated itself.

use std::collections::HashSet;
use std::time::Duration;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::meshd;
use i2plan_proto::address::AddressRange;
use i2plan_proto::identity::NodeId;
use i2plan_proto::membership::{CertificateId, Chain};
use i2plan_proto::wireguard::WireGuardCertificate;
use tracing::warn;

use super::invites::InviteWish;
use super::members::Member;
use super::state::Delegated;
use super::verified::Peer;
use super::{Mesh, Now};
use delegations::Holding;

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

impl Mesh {
    /// The WireGuard peers that this node should have.
    #[must_use]
    pub fn peers(&self, now: Now) -> Vec<Peer> {
        // A key and an address belong to one node. Who claims another's, this node's own included, is no peer.
        let mut keys: HashSet<[u8; 32]> = self.published_key().into_iter().collect();
        let mut addresses: HashSet<_> = self.local_address().into_iter().collect();
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
                    self.members.life(member, now.monotonic, self.settings.suspicion_timeout()),
                    meshd::Life::Present | meshd::Life::Suspected
                );
                Peer {
                    node: member.node(),
                    record: member.record.clone(),
                    keepalive: if there { self.settings.keepalive } else { 0 },
                }
            })
            .collect()
    }

    /// Whether a node is among the [`Mesh::peers`], unless it claims a key that is another's.
    #[must_use]
    pub fn has_peer(&self, node: &NodeId, now: Now) -> bool {
        self.members.get(node).is_some_and(|member| self.is_peer(member, now))
    }

    /// Whether this node has something to do with a member, and it has a key. By a clock by which this node's own key is not
    /// valid either, nobody's is over: `tund` admits nobody new then.
    fn is_peer(&self, member: &Member, now: Now) -> bool {
        let is_valid = |certificate: &WireGuardCertificate| certificate.is_valid_at(now.unix.as_secs());
        !self.bans.is_banned(&member.node())
            && (is_valid(&member.record.value.wireguard.value)
                || self.published_certificate().is_some_and(|own| !is_valid(own)))
    }

    /// What this node holds.
    pub(super) fn holding(&self) -> Option<Holding> {
        let membership = self.membership.as_ref()?;
        let subnet = membership.charter.value.subnet;
        let certificates = self.members.certificates();
        let is_inherited = |delegated: &&Delegated| {
            let certificate = delegated.certificate.as_ref().filter(|_| delegated.ended_at.is_some());
            certificate.is_some_and(|certificate| certificates.is_used(&certificate.value.id()))
        };
        let inherited = self.delegations.iter().filter(is_inherited);
        let inherited = inherited.flat_map(|delegated| delegated.ranges.iter().copied()).collect();
        Some(Holding { subnet, ranges: membership.chain.ranges(&subnet), inherited })
    }

    /// What this node holds, or will hold when it has founded its network.
    pub(super) fn holding_to_be(&self) -> Holding {
        let subnet = self.settings.subnet;
        let founded = Holding { subnet, ranges: subnet.range().into(), inherited: Vec::new() };
        self.holding().unwrap_or(founded)
    }

    /// Addresses for each user of an invite.
    pub(super) fn addresses_for(&self, wish: &InviteWish) -> u32 {
        let is_single = wish.uses.limit() == Some(1);
        let usual = if is_single { self.holding_to_be().default_size() } else { 1 };
        wish.addresses.unwrap_or(usual)
    }

    /// Whether there are addresses for all users of an invite.
    pub(super) fn check_addresses(&self, wish: &InviteWish, now: Now) -> Result<(), ApiError> {
        let holding = self.holding_to_be();
        let size = self.addresses_for(wish);
        if !size.is_power_of_two() {
            let (less, more) = (1u64 << size.max(1).ilog2(), u64::from(size).next_power_of_two());
            return Err(ApiError::invalid(format!("addresses: {size} is not a power of two"))
                .with_hint(format!("use {less} or {more}")));
        }
        if holding.ranges.size() == 1 {
            let error = ApiError::denied("this node holds 1 address and cannot invite");
            return Err(match self.inviter_name() {
                Some(name) => error.with_hint(format!(
                    "ask {name}, who invited it, to run `i2planctl grant {} --addresses 16`",
                    self.settings.name
                )),
                None => error,
            });
        }
        let free = self.delegations.free(&holding, size, now.unix.as_secs());
        let uses = u64::from(wish.uses.limit().unwrap_or(1));
        if uses > free {
            let left = self.delegations.free(&holding, 1, now.unix.as_secs());
            let message = format!(
                "{uses} times {size} addresses are more than this node has left to delegate: {left}, in {free} ranges of {size}"
            );
            let hint = match self.inviter_name() {
                Some(name) => format!(
                    "give each fewer with `--addresses`, or ask {name}, who invited this node, to run `i2planctl grant {} --addresses {size}`",
                    self.settings.name
                ),
                None => "give each fewer with `--addresses`, or revoke members that are gone: their addresses can be delegated again after 30 days".to_owned(),
            };
            return Err(ApiError::conflict(message).with_hint(hint));
        }
        Ok(())
    }

    /// Addresses were seen to be delegated twice.
    pub(super) fn note_conflict(&mut self, chain: &Chain, range: AddressRange, issuer: NodeId, now: Now) {
        let seen_at = now.monotonic;
        let known = self.conflicts.iter_mut().find(|known| known.issuer == issuer && known.range == range);
        match known {
            Some(known) => known.seen_at = seen_at,
            None => {
                let of_issuer = self.conflicts.iter().filter(|known| known.issuer == issuer).count();
                // One that goes on delegating its addresses twice is told of no more.
                if of_issuer >= MAX_CONFLICTS_OF_ISSUER {
                    return;
                }
                let issuer_name = self.name_of(&issuer).unwrap_or_else(|| issuer.short());
                warn!(
                    node = %chain.subject().short(),
                    "{issuer_name} has given out {range} twice; perhaps its backup was restored"
                );
                if self.conflicts.len() >= MAX_CONFLICTS {
                    self.conflicts.pop_front();
                }
                self.conflicts.push_back(Conflict { issuer, range, seen_at });
            }
        }
    }

    /// These certificates do not stand against those of a chain.
    pub(super) fn note_fallen(&mut self, fallen: &[CertificateId], chain: &Chain) {
        let Some(membership) = &self.membership else { return };
        let own = membership.chain.issued().find(|(_, link)| fallen.contains(link.id()));
        if let Some((issuer, _)) = own {
            warn!(
                node = %chain.subject().short(),
                "this node's addresses were given to another member as well, which keeps them: this node has to join again"
            );
            self.displaced = Some(*issuer);
        }
    }
}
