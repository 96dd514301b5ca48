//! The inviter's side: who may become a member.

use i2plan_ipc::api::keyd::{self, CertifyMember};
use i2plan_ipc::api::meshd::EventKind;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::invite::{InviteGrant, InviteKey};
use i2plan_proto::join::{self, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::membership::{self, MAX_DEPTH};
use i2plan_proto::message::{self, Message};
use tracing::{debug, info, warn};

use crate::core::Now;
use crate::core::context::Context;
use crate::core::local_member::LocalMember;
use crate::core::requests::Pending;
use crate::core::shares::AddressInBlock;

/// Join requests that may wait for `keyd` at once.
const MAX_CERTIFYING: usize = 32;

impl LocalMember {
    pub(crate) fn handle_join_request(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        request: &JoinRequest,
        now: Now,
    ) {
        let membership = &self.membership;
        let body = &request.body.value;
        let meant_for_me = body.network == membership.charter.value.network() && body.inviter == cx.me.node;
        if !meant_for_me || body.control != from.hash() {
            debug!("dropped a join request that is not for this node or not from its sender");
            return;
        }
        if !cx.ingress.admit_join(now.monotonic) {
            debug!("dropped a join request: too many are coming");
            return;
        }
        if let Err(error) = request.verify() {
            debug!(%error, "dropped a join request");
            return;
        }
        let certifying = |pending: &&Pending| matches!(pending, Pending::Member { .. });
        let same =
            |pending: &Pending| matches!(pending, Pending::Member { joiner, .. } if *joiner == body.joiner);
        if cx.pending.values().any(same) {
            return;
        }
        let (joiner, invite, key) = (body.joiner, body.invite.id(), body.invite);
        let busy = self.publication.record.is_none()
            || !self.comparisons.since_start.is_done(now.monotonic)
            || cx.pending.values().filter(certifying).count() >= MAX_CERTIFYING;
        let verdict = if membership.chain.depth() >= MAX_DEPTH {
            Err(Refusal::TooDeep)
        } else if membership.chain.is_ancestor(&joiner) {
            Err(Refusal::Above)
        } else if busy {
            Err(Refusal::Busy)
        } else {
            self.invites.grant(&key, &joiner, now.unix).cloned().and_then(|grant| {
                // It was a member by this invite, and is none any more.
                let before = self.addresses.delegations.with_invite(&joiner, &invite);
                let ended = before.is_some_and(|before| before.ended_at.is_some());
                if ended { Err(Refusal::UsedUp) } else { Ok(grant) }
            })
        };
        match verdict {
            Ok(grant) => self.admit(cx, from, request, grant, now),
            Err(refusal) => self.refuse(cx, from, key, &joiner, refusal, now),
        }
    }

    fn refuse(
        &mut self,
        cx: &mut Context,
        to: &Destination,
        key: InviteKey,
        joiner: &NodeId,
        refusal: Refusal,
        now: Now,
    ) {
        // Anybody can ask with an invite of their own making, and a joiner repeats its request.
        if matches!(refusal, Refusal::Unknown | Refusal::Busy) {
            debug!(invite = %key.id(), "refused a joiner: {refusal}");
        } else {
            info!(invite = %key.id(), joiner = %joiner.short(), "refused a joiner: {refusal}");
        }
        // Who asks need not have an invite.
        cx.answer_for(&None, to, &Message::JoinReply(JoinReply::Refused { invite: key, refusal }), now);
    }

    /// Certifies the holder of an invite, or sends it the certificate that it has.
    fn admit(
        &mut self,
        cx: &mut Context,
        from: &Destination,
        request: &JoinRequest,
        grant: Signed<InviteGrant>,
        now: Now,
    ) {
        let holding = self.holding();
        let membership = &self.membership;
        let body = &request.body.value;
        let (joiner, invite) = (body.joiner, body.invite.id());
        let parent = membership.chain.id();
        if let Some(delegated) = self.addresses.delegations.with_invite(&joiner, &invite)
            && let Some(certificate) = delegated.certificate.clone()
            && certificate.value.parent == parent
        {
            // It may ask as often as it likes.
            let address = certificate.value.grant.ranges.address();
            let place =
                AddressInBlock { block: holding.subnet.share_of(address), address: address.to_bits() };
            if let Some(welcome) = self.welcome(cx, &certificate, &joiner) {
                cx.answer_for(&Some(place), from, &welcome, now);
            }
            return;
        }
        let unix = now.unix.as_secs();
        let size = grant.value.addresses;
        let given = match self.addresses.delegations.with_invite(&joiner, &invite) {
            Some(delegated) => Ok(delegated),
            None => self.addresses.delegations.give(joiner, invite, size, &holding, unix, &mut cx.rng),
        };
        let Ok(given) = given else {
            return self.refuse(cx, from, body.invite, &joiner, Refusal::NoAddresses, now);
        };
        let (ranges, replaces) = (given.ranges.clone(), given.replaces);
        if self.invites.count(&body.invite, joiner) {
            info!(%invite, joiner = %joiner.short(), "an invite is used");
            let id = invite.to_string();
            cx.events.push(EventKind::InviteUsed { id, node_id: joiner.to_string() });
        }
        // Use and addresses are saved before keyd is asked, hence before the joiner can learn of its certificate.
        cx.unsaved = true;
        let certify = CertifyMember { grant, request: request.clone(), parent, ranges, replaces };
        let pending = Pending::Member { to: *from, joiner };
        cx.ask(pending, keyd::Request::CertifyMember(Box::new(certify)));
    }

    /// A joiner's certificate is signed.
    pub(crate) fn handle_certificate(
        &mut self,
        cx: &mut Context,
        to: &Destination,
        certificate: Signed<membership::Membership>,
        joiner: &NodeId,
        now: Now,
    ) {
        cx.counter = cx.counter.max(certificate.value.grant.serial);
        self.addresses.delegations.learn(certificate.clone(), now.unix.as_secs());
        cx.unsaved = true;
        if let Some(welcome) = self.welcome(cx, &certificate, joiner) {
            self.send(cx, to, &welcome, now);
        }
    }

    /// A joiner's certificate and what it needs to start.
    fn welcome(
        &mut self,
        cx: &mut Context,
        certificate: &Signed<membership::Membership>,
        joiner: &NodeId,
    ) -> Option<Message> {
        let (membership, Some(own)) = (&self.membership, &self.publication.record) else { return None };
        let chain = match membership.chain.extended(certificate) {
            Ok(chain) => chain,
            Err(error) => {
                warn!(%error, "keyd's certificate does not continue this node's chain");
                return None;
            }
        };
        let mut welcome = Welcome { charter: membership.charter.clone(), chain, records: vec![own.clone()] };
        let mut room =
            message::MAX_LEN.saturating_sub(message::HEADER_LEN + 3 + welcome.charter.to_bytes().len());
        room = room.saturating_sub(welcome.chain.to_bytes().len() + own.to_bytes().len());
        let others =
            self.members.sample(join::MAX_RECORDS - 1, |member| member.node() != *joiner, &mut cx.rng);
        for record in others.into_iter().map(|member| &member.record) {
            let len = record.to_bytes().len();
            if len < room {
                room -= len;
                welcome.records.push((**record).clone());
            }
        }
        Some(Message::JoinReply(JoinReply::Welcome(Box::new(welcome))))
    }
}
