//! Orders: what an administrator has `keyd` sign, and this node distributes.
//!
//! A request that ends a membership, or delegates much, is answered with the order and its evidence. What `keyd` has
//! signed comes back by [`Mesh::enact`](super::Mesh::enact), from anybody who may control the node, and is checked as if it had come from a
//! stranger.

use std::ops::ControlFlow;

use i2plan_ipc::api::keyd::PinnedNetwork;
use i2plan_ipc::api::meshd::{self, ToOrder};
use i2plan_ipc::api::order::{Executed, MAX_CHAINS, MAX_COUNTED, Order};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::InviteId;
use i2plan_proto::membership::{Chain, ChainLink};
use i2plan_proto::record::Record;

use super::context::Context;
use super::endings::Ending;
use super::error::MeshError;
use super::local_member::LocalMember;
use super::publication::Refresh;
use super::situation::{Departure, Standing};
use super::state::Membership;
use super::{CommandId, Now};

impl Context {
    /// Answers a command with the order that it takes.
    pub(super) fn propose(
        &mut self,
        command: CommandId,
        order: Order,
        below: Vec<Signed<Record>>,
        founded: bool,
    ) {
        self.answer(command, Ok(meshd::Reply::ToOrder(Box::new(ToOrder { order, below, founded }))));
    }

    /// `keyd` may not know yet that this node's membership has ended; without that it signs for no other network.
    pub(super) fn note_former_ending(&mut self) {
        if let Some(ending) = self.former_ending.clone() {
            self.note_ending(&ending);
        }
    }
}

impl LocalMember {
    /// A user revokes a membership.
    pub(super) fn revoke(&mut self, cx: &mut Context, command: CommandId, node: &str) {
        let chain = match self.revocable(cx, node) {
            Ok(chain) => chain,
            Err(error) => return cx.answer(command, Err(error)),
        };
        let record = self.members.get(chain.subject()).map(|member| Box::new((*member.record).clone()));
        let record = record.filter(|record| record.value.chain == chain);
        let below = self.records_below(|link| Some(link) == chain.last().map(ChainLink::id));
        let chains =
            [chain.clone()].into_iter().chain(self.others_than(cx, &chain)).take(MAX_CHAINS).collect();
        cx.propose(command, Order::Revoke { chains, record }, below, false);
    }

    /// A user revokes the memberships of an invite's users.
    pub(super) fn propose_revoking_users(&mut self, cx: &mut Context, command: CommandId, invite: InviteId) {
        let given = self.addresses.delegations.iter().filter(|delegated| delegated.invite == invite);
        let certificates: Vec<_> = given
            .filter_map(|delegated| delegated.certificate.as_ref().map(|certificate| certificate.value.id()))
            .collect();
        let below = self.records_below(|link| certificates.contains(link));
        cx.propose(command, Order::RevokeInvite(invite), below, false);
    }

    /// Records of members whose chains contain one of these certificates above their own, as many as `keyd` counts.
    fn records_below(
        &self,
        is_above: impl Fn(&i2plan_proto::membership::CertificateId) -> bool,
    ) -> Vec<Signed<Record>> {
        let is_below = |chain: &Chain| {
            let above = chain.links().split_last().map_or(&[][..], |(_, above)| above);
            above.iter().any(|link| is_above(link.id()))
        };
        let below = self.members.iter().filter(|member| is_below(&member.record.value.chain));
        below.take(MAX_COUNTED).map(|member| (*member.record).clone()).collect()
    }

    /// A user lets the users of an invite join.
    pub(super) fn allow_invite(&mut self, cx: &mut Context, command: CommandId, id: &str) {
        let invite =
            self.invites.issued().iter().find(|invite| invite.grant.value.key.id().to_string() == id);
        match invite.map(|invite| invite.grant.clone()) {
            Some(grant) => cx.propose(command, Order::AllowInvite(grant), Vec::new(), false),
            None => cx.answer(command, Err(MeshError::UnknownInvite)),
        }
    }

    /// A user wants this node to leave its network.
    pub(super) fn leave(&mut self, cx: &mut Context, command: CommandId) {
        let Membership { charter, chain, .. } = &self.membership;
        let order = Order::Leave(Box::new(chain.clone()), charter.value.clone());
        cx.propose(command, order, Vec::new(), false);
    }

    /// `keyd` has carried out an order.
    pub(super) fn enact(
        &mut self,
        cx: &mut Context,
        command: CommandId,
        executed: Executed,
        now: Now,
    ) -> Standing {
        if let Err(error) = self.check(cx, &executed) {
            cx.answer(command, Err(error));
            return ControlFlow::Continue(());
        }
        match executed {
            Executed::Revocations(revocations) => {
                return self.handle_revocations(cx, revocations, command, now);
            }
            Executed::Resignation(resignation) => {
                self.announce_departure(cx, &Ending::Resignation(resignation).item(), now);
                return ControlFlow::Break(Departure::Resigned(command));
            }
            Executed::Invite { code, grant } => self.add_invite(cx, command, (code, grant), false),
            Executed::Membership(certificate) => self.handle_extension(cx, certificate, command, now),
            Executed::Recovered(_) => self.confirm_recovery(cx, command),
            Executed::Forgotten(_) | Executed::Allowed(_) => {
                cx.answer(command, Err(MeshError::NothingToDistribute));
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether this node has signed this in its network.
    fn check(&self, cx: &Context, executed: &Executed) -> Result<(), MeshError> {
        let membership = &self.membership;
        let (charter, me) = (&membership.charter.value, cx.me.node);
        let unsigned = |error: &dyn std::fmt::Display| MeshError::Foreign(error.to_string());
        let own = |signer: &NodeId| {
            if *signer == me { Ok(()) } else { Err(unsigned(&"another node has signed it")) }
        };
        match executed {
            Executed::Revocations(revocations) => {
                if revocations.is_empty() || revocations.len() > MAX_CHAINS {
                    return Err(MeshError::RevocationCount);
                }
                for revocation in revocations {
                    own(&revocation.value.issuer)?;
                    revocation.verify_for(charter).map_err(|error| unsigned(&error))?;
                }
            }
            Executed::Resignation(resignation) => {
                own(resignation.value.chain.subject())?;
                resignation.verify_for(charter).map_err(|error| unsigned(&error))?;
                // One of a membership before is known to others.
                if resignation.value.voids(&membership.chain).is_none() {
                    return Err(MeshError::EarlierMembership);
                }
            }
            Executed::Invite { grant, .. } => {
                own(&grant.value.inviter)?;
                grant.verify().map_err(|error| unsigned(&error))?;
                let is_known =
                    self.invites.issued().iter().any(|known| known.grant.value.key == grant.value.key);
                if is_known || grant.value.network != charter.network() {
                    return Err(MeshError::KnownInvite);
                }
                if self.invites.is_full() {
                    return Err(MeshError::TooManyInvites);
                }
            }
            Executed::Membership(certificate) => {
                own(&certificate.value.issuer)?;
                certificate.verify().map_err(|error| unsigned(&error))?;
                if certificate.value.network != charter.network() {
                    return Err(MeshError::OtherNetwork);
                }
            }
            Executed::Forgotten(_) | Executed::Allowed(_) | Executed::Recovered(_) => {}
        }
        Ok(())
    }

    /// `keyd` signs for another place in a network than this node has, and says which: this node's state is old, or that
    /// membership has ended and keyd does not know.
    pub(super) fn handle_pinned(&mut self, cx: &mut Context, pinned: PinnedNetwork, now: Now) {
        let PinnedNetwork { charter, chain } = pinned;
        if self.network() != charter.network() || *chain.subject() != cx.me.node {
            return;
        }
        if let Some((_, ending)) = self.members.endings().against(&chain) {
            let ending = ending.clone();
            cx.note_ending(&ending);
        } else if self.adopt(cx, &chain)
            && let Refresh::Due(_) = self.publication.refresh
        {
            self.publication.refresh = Refresh::Due(now.monotonic);
        }
    }

    /// Chains by which the subject of another is a member too, since this node has invited it more than once.
    fn others_than(&self, cx: &Context, chain: &Chain) -> Vec<Chain> {
        let membership = &self.membership;
        let subject = chain.subject();
        let active = self
            .addresses
            .delegations
            .iter()
            .filter(|other| other.subject == *subject && other.ended_at.is_none());
        // Since it has invited the subject this node may have been granted more addresses.
        let before = chain.parent().filter(|parent| *parent.subject() == cx.me.node);
        let own: Vec<&Chain> = [&membership.chain].into_iter().chain(&before).collect();
        let chains = active.filter_map(|other| {
            let certificate = other.certificate.as_ref()?;
            let parent = own.iter().find(|parent| parent.id() == certificate.value.parent)?;
            Some(parent.appended(certificate))
        });
        chains.filter(|other| other.id() != chain.id()).collect()
    }

    /// The chain of a member that this node may revoke.
    fn revocable(&self, cx: &Context, node: &str) -> Result<Chain, MeshError> {
        let id: NodeId = node.parse().map_err(|_| MeshError::UnknownMember(node.to_owned()))?;
        if id == cx.me.node {
            return Err(MeshError::RevokesItself);
        }
        let membership = &self.membership;
        let known = self.members.get(&id).map(|member| member.record.value.chain.clone());
        // One that this node has invited and that is not heard of any more can be revoked too.
        let invited = || {
            let delegated =
                self.addresses.delegations.of(&id).filter(|delegated| delegated.ended_at.is_none())?;
            Some(membership.chain.appended(delegated.certificate.as_ref()?))
        };
        let chain = known.or_else(invited).ok_or_else(|| MeshError::UnknownMember(id.short()))?;
        if chain.is_ancestor(&cx.me.node) {
            return Ok(chain);
        }
        Err(MeshError::MayNotRevoke)
    }
}
