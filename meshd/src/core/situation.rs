//! The situations in which a node can be, and the ways from one to another.

use std::ops::ControlFlow;

use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, EventKind, JoinStep};
use i2plan_proto::identity::{Signature, Signed};
use i2plan_proto::join::Welcome;
use i2plan_proto::membership::{Chain, Charter, NetworkName};
use i2plan_proto::revocation::Target;
use rand::RngExt as _;
use tracing::{info, warn};

use super::addresses::delegations::{Delegations, Holding};
use super::endings::Ending;
use super::error::MeshError;
use super::invites::InviteWish;
use super::invites::joining::Joining;
use super::local_member::LocalMember;
use super::requests::Pending;
use super::state::{Former, Membership};
use super::{Action, CommandId, Mesh, Now};

/// What a node is to a network.
pub(super) enum Situation {
    /// It is in none, and on its way into none.
    Outside,
    /// `keyd` signs the charter of the one that it founds.
    Founding(Box<Founding>),
    /// It asks an inviter for a membership.
    Joining(Box<Joining>),
    /// It is a member.
    Member(Box<LocalMember>),
}

/// A network that this node founds, and the invite that it is founded for.
pub(super) struct Founding {
    charter: Charter,
    wish: InviteWish,
}

/// How this node's membership has ended.
#[derive(Debug)]
pub(super) enum Departure {
    /// By a statement that others know.
    Ended(Box<Ending>),
    /// By its own resignation, for a user.
    Resigned(CommandId),
}

/// Whether this node is still a member ([`LocalMember::standing`]). If it is not, it does nothing more about an event, and
/// [`Mesh::apply`] follows.
pub(super) type Standing = ControlFlow<Departure>;

impl Mesh {
    /// The network, as one of its members sees it, if this node is one.
    pub(super) fn member(&self) -> Option<&LocalMember> {
        match &self.situation {
            Situation::Member(member) => Some(member),
            Situation::Outside | Situation::Founding(_) | Situation::Joining(_) => None,
        }
    }

    /// From outside: founds a network.
    pub(super) fn found(&mut self, wish: InviteWish, now: Now) {
        let cx = &mut self.cx;
        let subnet = cx.settings.subnet;
        let holding = Holding { subnet, ranges: subnet.range().into(), inherited: Vec::new() };
        if let Err(error) =
            wish.check_addresses(&holding, &Delegations::default(), (&cx.settings.name, None), now)
        {
            return cx.answer(wish.command, Err(error));
        }
        let chosen = cx.network_name.take();
        let charter = Charter {
            founder: cx.me.node,
            name: chosen.unwrap_or_else(|| NetworkName::of_founder(&cx.settings.name)),
            subnet,
            founded_at: now.unix.as_secs(),
            nonce: cx.rng.random(),
        };
        cx.ask(Pending::Charter, keyd::Request::SignCharter(charter.clone()));
        self.situation = Situation::Founding(Box::new(Founding { charter, wish }));
    }

    /// From founding: `keyd` has signed the charter, and the invite follows; or it has not.
    pub(super) fn handle_charter(&mut self, reply: Result<Signature, MeshError>, now: Now) {
        let situation = std::mem::replace(&mut self.situation, Situation::Outside);
        let Situation::Founding(founding) = situation else { return self.situation = situation };
        let Founding { charter, wish } = *founding;
        let charter = reply.and_then(|signature| {
            let charter = Signed { value: charter, signature };
            let verified = charter.verify();
            verified.map_err(|_| MeshError::OtherIdentity).map(|()| charter)
        });
        match charter {
            Err(error) => self.cx.answer(wish.command, Err(error)),
            Ok(charter) => {
                let chain = Chain::founder(&charter.value);
                let mut member = self.begin_membership(charter, chain, now);
                member.ask_invite(&mut self.cx, wish, true);
                self.situation = Situation::Member(member);
            }
        }
    }

    /// From outside: looks for an inviter.
    pub(super) fn begin_joining(&mut self, joining: Joining) {
        let cx = &mut self.cx;
        cx.note_former_ending();
        let waiting = &joining.waiting;
        info!(invite = %waiting.invite, inviter = %joining.inviter().short(), "joining a network");
        cx.events.push(EventKind::JoinProgress { step: JoinStep::LookingUp });
        cx.actions.push_back(Action::LookUp(waiting.control));
        self.situation = Situation::Joining(Box::new(joining));
    }

    /// From joining: it has failed.
    pub(super) fn give_up_joining(&mut self, error: &MeshError) {
        let situation = std::mem::replace(&mut self.situation, Situation::Outside);
        let Situation::Joining(joining) = situation else { return self.situation = situation };
        for command in joining.waiting.commands {
            self.cx.answer(command, Err(error.clone()));
        }
    }

    /// From joining: the inviter has sent a membership, which has been checked. Who waits is answered when the first record
    /// is published.
    pub(super) fn enter(&mut self, welcome: Welcome, now: Now) {
        let situation = std::mem::replace(&mut self.situation, Situation::Outside);
        let Situation::Joining(joining) = situation else { return self.situation = situation };
        self.cx.events.push(EventKind::JoinProgress { step: JoinStep::Admitted });
        let mut member = self.begin_membership(welcome.charter, welcome.chain, now);
        member.entering = Some(joining.waiting);
        member.take_welcome(&self.cx, welcome.records, now);
        self.situation = Situation::Member(member);
    }

    /// A new membership.
    fn begin_membership(&mut self, charter: Signed<Charter>, chain: Chain, now: Now) -> Box<LocalMember> {
        let cx = &mut self.cx;
        let ipv4 = chain.address(&charter.value.subnet);
        info!(network = %charter.value.network().short(), name = %charter.value.name, %ipv4, "this node is a member");
        let (network, name) = (charter.value.network().to_string(), charter.value.name.to_string());
        cx.events.push(EventKind::NetworkJoined { network, name, ipv4: ipv4.to_string() });
        cx.former = None;
        cx.former_ending = None;
        cx.unsaved = true;
        cx.peers_version += 1;
        let mut member = LocalMember::new(Membership { charter, chain, epoch: None }, cx, now);
        member.start_refresh(cx);
        Box::new(member)
    }

    /// After an event: if this node's membership has ended with it, everything about the network is forgotten, and who waits
    /// for something in it is answered.
    pub(super) fn apply(&mut self, standing: Standing, now: Now) {
        let ControlFlow::Break(departure) = standing else { return };
        let situation = std::mem::replace(&mut self.situation, Situation::Outside);
        let Situation::Member(member) = situation else { return self.situation = situation };
        let (cx, network) = (&mut self.cx, member.network());
        let revoked = matches!(departure, Departure::Ended(_));
        cx.events.push(EventKind::NetworkLeft { network: network.to_string(), revoked });
        // What keyd is still asked for is of the network that was.
        let pending: Vec<CommandId> =
            cx.pending.drain().filter_map(|(_, pending)| pending.command()).collect();
        let entering = member.entering.iter().flat_map(|waiting| &waiting.commands).copied();
        for command in pending.into_iter().chain(member.publication.rotating).chain(entering) {
            cx.answer(command, Err(MeshError::HasLeft));
        }
        cx.outside_since = now.monotonic;
        cx.unsaved = true;
        cx.peers_version += 1;
        match departure {
            Departure::Resigned(command) => {
                info!(%network, "this node has left the network");
                cx.answer(command, Ok(meshd::Reply::Left(network.to_string())));
            }
            Departure::Ended(ending) => {
                let subject = match &*ending {
                    Ending::Revocation(revocation) => match &revocation.value.target {
                        Target::Certificate(chain) => *chain.subject(),
                        Target::Invite(..) => cx.me.node,
                    },
                    Ending::Resignation(_) => *ending.signer(),
                };
                let issuer = *ending.signer();
                warn!(
                    issuer = %issuer.short(),
                    subject = %subject.short(),
                    "this node's membership has ended: it has left the network"
                );
                // The state is set aside, so that an administrator can recover it.
                cx.set_aside = true;
                cx.note_ending(&ending);
                cx.former = Some(Former { network, issuer, subject, revoked_at: ending.issued_at() });
                cx.former_ending = Some(*ending);
            }
        }
    }
}
