//! Members with whom this node, or the whole network, has nothing to do any more; and leaving it oneself.

use i2plan_ipc::api::{keyd, meshd};
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::destination::{Destination, DestinationHash};
use i2plan_proto::identity::{NodeId, Signed};
use i2plan_proto::pulse::Life;
use i2plan_proto::revocation::Revocation;
use tracing::{info, warn};

use super::bans::{Ban, Offence};
use super::members::Members;
use super::own::Farewell;
use super::{CommandId, Mesh, Now, Pending, Refresh};

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
            self.on_bans_changed();
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
                self.on_bans_changed();
                Ok(meshd::Reply::BanRemoved(self.ban_report(&ban)))
            }
            None => Err(ApiError::new(ErrorKind::NotFound, "this node has banned no such member")
                .with_hint("`i2planctl ban list` shows whom it has")),
        };
        self.answer(command, reply);
    }

    pub(super) fn on_bans_changed(&mut self) {
        self.unsaved = true;
        self.peers_version += 1;
    }

    /// A member has done what no honest one does.
    pub(super) fn strike(&mut self, from: &Destination, offence: Offence, now: Now) {
        let culprits: Vec<NodeId> = self.members.at(&from.hash()).collect();
        for node in culprits {
            if let Some(ban) = self.bans.strike(node, offence, now) {
                warn!(node = %node.short(), reason = ?ban.reason, strikes = ban.strikes, "a member is banned");
                self.on_bans_changed();
            }
        }
    }

    /// Whether nothing that comes from a destination is looked at: all who say that it is theirs are banned.
    pub(super) fn is_shut_out(&self, control: &DestinationHash) -> bool {
        let mut owners = self.members.at(control).peekable();
        owners.peek().is_some() && owners.all(|node| self.bans.is_banned(&node))
    }

    /// A user takes a member's membership back.
    pub fn revoke(&mut self, command: CommandId, node: &str, now: Now) {
        let chain = self.known_node(node).and_then(|node| {
            let member = self.members.get(&node);
            member.map(|member| member.record.value.chain.clone()).ok_or_else(|| unknown(&node.short()))
        });
        let chain = chain.and_then(|chain| {
            if chain.is_ancestor(&self.me.node) {
                return Ok(chain);
            }
            Err(ApiError::denied(
                "only the network's founder and those over whom the member was invited can revoke it",
            )
            .with_hint("`i2planctl ban add` makes this node have nothing to do with it"))
        });
        match chain {
            Err(error) => self.answer(command, Err(error)),
            Ok(chain) => {
                let issued_at = now.unix.as_secs();
                let revocation = Revocation { issuer: self.me.node, chain, issued_at };
                let pending = Pending::Revocation(Box::new(revocation.clone()), command);
                self.ask(pending, keyd::Request::SignRevocation(Box::new(revocation)));
            }
        }
    }

    /// The revocation that a user wanted is signed.
    pub(super) fn on_revocation(&mut self, revocation: Signed<Revocation>, command: CommandId, now: Now) {
        let out = self.revoke_here(revocation, now);
        let out = out.iter().map(ToString::to_string).collect();
        self.gossip(now);
        self.answer(command, Ok(meshd::Reply::Revoked(out)));
    }

    /// A user wants this node to leave its network.
    pub fn leave(&mut self, command: CommandId, now: Now) {
        let leaving =
            |pending: &Pending| matches!(pending, Pending::Pulse(_, Farewell::Leave(_) | Farewell::ShutDown));
        if self.membership.is_none() {
            self.answer(command, Err(ApiError::conflict("this node is in no network")));
        } else if self.pending.values().any(leaving) {
            self.answer(command, Err(ApiError::conflict("this node is leaving already")));
        } else {
            self.sign_pulse(Life::Gone, Farewell::Leave(command), now);
        }
    }

    /// Tells others that this node shuts down. True if there is somebody to tell, and [`Mesh::is_shut_down`] will
    /// say when that is done.
    pub fn begin_shutdown(&mut self, now: Now) -> bool {
        self.own.is_some() && self.members.len() > 0 && self.sign_pulse(Life::Away, Farewell::ShutDown, now)
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
        self.refresh = Refresh::Waiting;
        self.stale = false;
        self.rotate = false;
        self.members = Members::default();
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
    fn known_node(&self, node: &str) -> Result<NodeId, ApiError> {
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

fn unknown(node: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("no member with the node id {node} is known"))
        .with_hint("`i2planctl peers` shows the members")
}
