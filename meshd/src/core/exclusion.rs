//! Bans by this node, revocations, and leaving the network.

use i2plan_ipc::api::meshd;
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::pulse::Life;
use i2plan_proto::revocation::{Resignation, Revocation, Target};
use tracing::{info, warn};

use super::addresses::delegations::Delegations;
use super::bans::Ban;
use super::endings::Ending;
use super::gossip::Comparison;
use super::members::{EndingMerge, Members};
use super::own::LivenessReason;
use super::state::Former;
use super::{CommandId, Mesh, Now, Refresh};

impl Mesh {
    /// A user wants nothing to do with a member.
    pub fn add_ban(
        &mut self,
        command: CommandId,
        node: &str,
        description: String,
        duration: Option<u64>,
        now: Now,
    ) {
        let result = self.known_node(node).and_then(|node| {
            let unix = now.unix.as_secs();
            let ban = Ban {
                node,
                reason: meshd::BanReason::Manual,
                description,
                created_at: unix,
                expires_at: duration.map(|duration| unix.saturating_add(duration)),
                strikes: 0,
            };
            self.bans.add(ban.clone())?;
            Ok(ban)
        });
        let reply = result.map(|ban| {
            info!(node = %ban.node.short(), "a member is banned");
            self.note_bans_changed();
            meshd::Reply::BanAdded(self.ban_report(&ban))
        });
        self.answer(command, reply);
    }

    /// A user ends a ban.
    pub fn remove_ban(&mut self, command: CommandId, node: &str) {
        let node: Result<NodeId, _> = node.parse();
        let ban = node.ok().and_then(|node| self.bans.remove(&node));
        let reply = match ban {
            Some(ban) => {
                info!(node = %ban.node.short(), "a ban is lifted");
                self.note_bans_changed();
                Ok(meshd::Reply::BanRemoved(self.ban_report(&ban)))
            }
            None => Err(ApiError::new(ErrorKind::NotFound, "this node has banned no such member")
                .with_hint("`i2planctl ban list` shows whom it has")),
        };
        self.answer(command, reply);
    }

    pub(super) fn note_bans_changed(&mut self) {
        self.unsaved = true;
        self.peers_version += 1;
    }

    /// A member has signed what no honest one signs.
    pub(super) fn strike(&mut self, node: &NodeId, now: Now) {
        if self.members.get(node).is_none() {
            return;
        }
        if let Some(ban) = self.bans.strike(*node, now) {
            warn!(node = %node.short(), reason = ?ban.reason, strikes = ban.strikes, "a member is banned");
            self.note_bans_changed();
        }
    }

    /// Whether nothing that comes from a destination is looked at: a member that is banned uses it. It has signed that
    /// it does, so nobody can have another's destination shut out.
    pub(super) fn is_shut_out(&self, control: &DestinationHash) -> bool {
        // However many others use it too.
        let mut banned = self.bans.iter().filter_map(|ban| self.members.get(&ban.node));
        banned.any(|member| member.is_at(control))
    }

    /// The revocations that a user wanted are signed: of an invite, or of a member's certificates, of which it may have had
    /// several at a time.
    pub(super) fn handle_revocations(
        &mut self,
        revocations: Vec<Signed<Revocation>>,
        command: CommandId,
        now: Now,
    ) {
        let invite = revocations.iter().find_map(|revocation| match &revocation.value.target {
            Target::Invite(_, invite) => Some(invite.to_string()),
            Target::Certificate(_) => None,
        });
        let (mut ended, mut is_full) = (None, false);
        for revocation in revocations {
            match self.end_memberships(Ending::Revocation(Box::new(revocation)), now) {
                EndingMerge::News(out) => ended.get_or_insert_with(Vec::new).extend(out),
                // What another of them says already.
                EndingMerge::Known => {}
                EndingMerge::Full => is_full = true,
            }
        }
        self.unsaved = true;
        let result = match (invite, ended) {
            _ if is_full => Err(ApiError::conflict(
                "the revocation was not accepted: this node has signed as many as it holds addresses",
            )
            .with_hint("ask the founder, or a member that holds more addresses, to revoke it")),
            (Some(invite), _) => {
                self.invites.revoke(&invite, now.unix.as_secs()).map(meshd::Reply::InviteRevoked)
            }
            (None, Some(out)) => Ok(meshd::Reply::Revoked(out.iter().map(ToString::to_string).collect())),
            (None, None) => Err(ApiError::conflict("this membership has ended already")),
        };
        self.gossip(now);
        self.answer(command, result);
    }

    /// This node's resignation is signed.
    pub(super) fn handle_resignation(
        &mut self,
        resignation: Signed<Resignation>,
        command: CommandId,
        now: Now,
    ) {
        self.bid_farewell(&Ending::Resignation(Box::new(resignation)).item(), now);
        let network = self.network().map(|network| network.to_string()).unwrap_or_default();
        info!(%network, "this node has left the network");
        self.reset(false, now);
        self.answer(command, Ok(meshd::Reply::Left(network)));
    }

    /// This node's own membership has ended. Its state is set aside, so that an administrator can recover it.
    pub(super) fn handle_local_ending(&mut self, ending: &Ending, now: Now) {
        let Some(network) = self.network() else { return };
        let subject = match ending {
            Ending::Revocation(revocation) => match &revocation.value.target {
                Target::Certificate(chain) => *chain.subject(),
                Target::Invite(..) => self.me.node,
            },
            Ending::Resignation(_) => *ending.signer(),
        };
        let issuer = *ending.signer();
        warn!(
            issuer = %issuer.short(),
            subject = %subject.short(),
            "this node's membership has ended: it has left the network"
        );
        let former = Former { network, issuer, subject, revoked_at: ending.issued_at() };
        self.set_aside = true;
        self.reset(true, now);
        self.note_ending(ending);
        self.former_ending = Some(ending.clone());
        self.former = Some(former);
    }

    /// Tells others that this node shuts down. True if there is somebody to tell, and [`Mesh::is_shut_down`] will
    /// say when that is done.
    pub fn begin_shutdown(&mut self) -> bool {
        self.own.is_some()
            && self.members.len() > 0
            && self.sign_pulse(Life::Away, LivenessReason::ShuttingDown)
    }

    /// Whether others have been told.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Forgets the network and everything about it.
    pub(super) fn reset(&mut self, revoked: bool, now: Now) {
        if let Some(network) = self.network() {
            self.events.push(meshd::What::NetworkLeft { network: network.to_string(), revoked });
        }
        self.membership = None;
        self.own = None;
        self.own_pulse = None;
        self.is_suspected = false;
        self.refresh = Refresh::Waiting;
        self.stale = false;
        self.rotate = false;
        self.members = Members::default();
        self.delegations = Delegations::default();
        self.displaced = None;
        self.conflicts.clear();
        self.open_grants.clear();
        self.comparison_since_start = Comparison::Done;
        self.invites = super::invites::Invites::new(Vec::new());
        self.bans = super::bans::Bans::new(Vec::new());
        self.rumors = super::rumors::Rumors::new();
        self.detector = super::detector::Detector::new(self.settings.heartbeat, now.monotonic);
        self.announcer = super::gossip::Announcer::new(self.settings.heartbeat, now.monotonic);
        // What keyd is still asked for is of the network that was.
        let gone = || ApiError::conflict("this node has left its network");
        let commands: Vec<CommandId> =
            self.pending.drain().filter_map(|(_, pending)| pending.command()).collect();
        for command in commands.into_iter().chain(self.rotating.take()) {
            self.answer(command, Err(gone()));
        }
        self.unsaved = true;
        self.peers_version += 1;
    }

    /// A member by its node id.
    pub(super) fn known_node(&self, node: &str) -> Result<NodeId, ApiError> {
        let id: NodeId = node.parse().map_err(|_| unknown(node))?;
        if id == self.me.node {
            return Err(ApiError::invalid("this is the node itself"));
        }
        if self.members.get(&id).is_none() {
            return Err(unknown(&id.short()));
        }
        Ok(id)
    }
}

pub(super) fn unknown(node: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("no member with the node id {node} is known"))
        .with_hint("`i2planctl peers` shows the members")
}
