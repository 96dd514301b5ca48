//! The inviter's side: who may become a member.

use i2plan_ipc::api::keyd::{self, CertifyMember};
use i2plan_ipc::api::meshd::What;
use i2plan_proto::codec::Codec as _;
use i2plan_proto::destination::Destination;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::join::{self, JoinReply, JoinRequest, Refusal, Welcome};
use i2plan_proto::membership::{self, MAX_DEPTH};
use i2plan_proto::message::{self, Message};
use tracing::{debug, info, warn};

use super::invites::Verdict;
use super::{Mesh, Now, Pending};

/// Join requests that may wait for `keyd` at once.
const MAX_CERTIFYING: usize = 32;

impl Mesh {
    pub(super) fn on_join_request(&mut self, from: &Destination, request: &JoinRequest, now: Now) {
        let Some(membership) = &self.membership else { return };
        let body = &request.body.value;
        let meant_for_me = body.network == membership.charter.value.network() && body.inviter == self.me.node;
        if !meant_for_me || body.control != from.hash() {
            debug!("dropped a join request that is not for this node or not from its sender");
            return;
        }
        if !self.ingress.admit_join(now.monotonic) {
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
        if self.pending.values().any(same) {
            return;
        }
        let verdict = if self.members.is_expelled(&body.joiner) {
            Verdict::Refuse(Refusal::Expelled)
        } else if membership.chain.depth() >= MAX_DEPTH {
            Verdict::Refuse(Refusal::TooDeep)
        } else if self.own.is_none() || self.pending.values().filter(certifying).count() >= MAX_CERTIFYING {
            Verdict::Refuse(Refusal::Busy)
        } else {
            self.invites.use_by(&body.invite, body.joiner, now.unix)
        };
        match verdict {
            // Anybody can ask with an invite of their own making, and none of that need be in the log.
            Verdict::Refuse(Refusal::Unknown) => {
                debug!(invite = %body.invite.id(), "refused a joiner: there is no such invite");
                let refusal = Refusal::Unknown;
                self.send(
                    from,
                    &Message::JoinReply(JoinReply::Refused { invite: body.invite, refusal }),
                    now,
                );
            }
            Verdict::Refuse(refusal) => {
                info!(invite = %body.invite.id(), joiner = %body.joiner.short(), "refused a joiner: {refusal}");
                self.send(
                    from,
                    &Message::JoinReply(JoinReply::Refused { invite: body.invite, refusal }),
                    now,
                );
            }
            Verdict::Certify { grant, counted } => {
                if counted {
                    info!(invite = %body.invite.id(), joiner = %body.joiner.short(), "an invite is used");
                    let id = body.invite.id().to_string();
                    self.events.push(What::InviteUsed { id, node_id: body.joiner.to_string() });
                    // Saved before keyd is asked, hence before the joiner can learn of its certificate.
                    self.unsaved = true;
                }
                let certify = CertifyMember { grant, request: request.clone() };
                let pending = Pending::Member { to: *from, joiner: body.joiner };
                self.ask(pending, keyd::Request::CertifyMember(Box::new(certify)));
            }
        }
    }

    /// Sends a joiner its certificate and what it needs to start.
    pub(super) fn welcome(
        &mut self,
        to: &Destination,
        certificate: &Signed<membership::Membership>,
        joiner: &NodeId,
        now: Now,
    ) {
        let (Some(membership), Some(own)) = (&self.membership, &self.own) else { return };
        let chain = match membership.chain.extended(certificate) {
            Ok(chain) => chain,
            Err(error) => {
                warn!(%error, "keyd's certificate does not continue this node's chain");
                return;
            }
        };
        let mut welcome = Welcome { charter: membership.charter.clone(), chain, records: vec![own.clone()] };
        let mut room =
            message::MAX_LEN.saturating_sub(message::HEADER_LEN + 3 + welcome.charter.to_bytes().len());
        room = room.saturating_sub(welcome.chain.to_bytes().len() + own.to_bytes().len());
        let others =
            self.members.sample(join::MAX_RECORDS - 1, |member| member.node() != *joiner, &mut self.rng);
        for record in others.into_iter().map(|member| &member.record) {
            let len = record.to_bytes().len();
            if len < room {
                room -= len;
                welcome.records.push((**record).clone());
            }
        }
        self.send(to, &Message::JoinReply(JoinReply::Welcome(Box::new(welcome))), now);
    }
}
