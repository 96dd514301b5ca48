//! What clients ask of the daemon.

use std::sync::Arc;

use i2plan_config::ConfigError;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::keyd;
use i2plan_ipc::api::meshd::{self, ConfigChange, What};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{Daemon, settings};
use crate::core::{Mesh, describe_key};
use crate::shell::host::{self, Checked};
use crate::shell::service::Command;

impl Daemon {
    /// A user changes a key.
    pub(super) fn set_config(&mut self, key: &str, value: &str) -> Result<Vec<ConfigChange>, ApiError> {
        let changes = self.config.set(key, value)?;
        self.on_config_changed(&changes);
        Ok(changes)
    }

    /// Reads the configuration again; what is wrong with it leaves everything as it is.
    pub(super) fn reload(&mut self) -> Result<Vec<ConfigChange>, ApiError> {
        match self.config.reload() {
            Ok(changes) => {
                info!(changes = changes.len(), "the configuration was read again");
                self.on_config_changed(&changes);
                Ok(changes)
            }
            Err(error) => {
                error!(%error, "the configuration cannot be used; the one before stays in force");
                let hint = match error {
                    ConfigError::Read { .. } => {
                        "see that meshd's user may read it; if its directory was made after meshd started, restart meshd"
                    }
                    _ => "the configuration before stays in force; correct the file and try again",
                };
                Err(ApiError::invalid(error.to_string()).with_hint(hint))
            }
        }
    }

    pub(super) fn on_config_changed(&mut self, changes: &[ConfigChange]) {
        for ConfigChange { key, before, after, restart } in changes {
            let (before, after) = (before.as_deref().unwrap_or("none"), after.as_deref().unwrap_or("none"));
            if *restart {
                warn!(key, before, after, "a key has another value, which counts only after a restart");
            } else {
                info!(key, before, after, "a key of the configuration has changed");
                self.row.push(What::ConfigChanged { key: key.clone(), value: after.to_owned() });
            }
        }
        let now = self.now();
        if changes.iter().any(|change| !change.restart)
            && let Some(mesh) = &mut self.mesh
        {
            mesh.reconfigure(settings(self.config.current()), now);
        }
    }

    pub(super) fn on_command(&mut self, command: Command) {
        let (request, answer) = match command {
            Command::Request(request, answer) => (request, answer),
            Command::Traffic(answer) => {
                let _ = answer.send(self.traffic());
                return;
            }
        };
        // A caller that has gone does not want its answer.
        match request {
            meshd::Request::Status => {
                let _ = answer.send(Ok(meshd::Reply::Status(Box::new(self.status()))));
                return;
            }
            meshd::Request::Peers => {
                let _ = answer.send(Ok(meshd::Reply::Peers(self.peers())));
                return;
            }
            meshd::Request::Config => {
                let _ = answer.send(Ok(meshd::Reply::Config(self.config.settings())));
                return;
            }
            meshd::Request::SetConfig { key, value } => {
                let result = self.set_config(&key, &value);
                let _ = answer.send(result.map(meshd::Reply::ConfigChanged));
                return;
            }
            meshd::Request::Reload => {
                let _ = answer.send(self.reload().map(meshd::Reply::ConfigChanged));
                return;
            }
            _ => {}
        }
        let member_of = self.mesh.as_ref().and_then(Mesh::subnet);
        match host::question(&request, self.config.current(), member_of) {
            Ok(None) => self.have_mesh_do(request, answer),
            Ok(Some(question)) => {
                let (tund, checked) = (Arc::clone(&self.tund), self.checked_sender.clone());
                tokio::spawn(host::ask(tund, question, request, answer, checked));
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// The host has room for the network that a request is about, or has not.
    pub(super) fn on_checked(&mut self, checked: Checked) {
        let Checked { request, answer, subnet } = checked;
        match (subnet, &request) {
            (Err(error), _) => {
                let _ = answer.send(Err(error));
            }
            (Ok(_), meshd::Request::CheckNetwork { .. }) => {
                let _ = answer.send(Ok(meshd::Reply::Acceptable));
            }
            (Ok(subnet), _) => {
                if let (Some(mesh), meshd::Request::CreateInvite { .. }) = (&mut self.mesh, &request) {
                    mesh.prefer_subnet(subnet);
                }
                self.have_mesh_do(request, answer);
            }
        }
    }

    /// Carries out a request that is about the mesh.
    pub(super) fn have_mesh_do(
        &mut self,
        request: meshd::Request,
        answer: oneshot::Sender<Result<meshd::Reply, ApiError>>,
    ) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else {
            let error =
                ApiError::unavailable("keyd is not reachable, so this node does not know its own identity")
                    .with_hint("see that i2plan-keyd runs, and its log");
            let _ = answer.send(Err(error));
            return;
        };
        let report = match (&request, &self.me) {
            (meshd::Request::Keys, Some(me)) => Some(meshd::Reply::Keys(Box::new(public_keys(me, mesh)))),
            (meshd::Request::Routes, _) => Some(meshd::Reply::Routes(mesh.routes(now))),
            (meshd::Request::ListBans, _) => Some(meshd::Reply::Bans(mesh.ban_reports())),
            (meshd::Request::ListInvites, _) => Some(meshd::Reply::Invites(mesh.invite_reports(now))),
            _ => None,
        };
        if let Some(report) = report {
            let _ = answer.send(Ok(report));
            return;
        }
        let id = self.next_command;
        self.next_command += 1;
        self.waiting.insert(id, answer);
        match request {
            // Its subnet has been seen to.
            meshd::Request::CreateInvite { expires_in, max_uses, addresses, subnet: _ } => {
                mesh.create_invite(id, expires_in, max_uses, addresses, now);
            }
            meshd::Request::RotateKey => mesh.rotate_key(id, now),
            meshd::Request::RecoverKeys => mesh.recover_keys(id, now),
            meshd::Request::Join { invite } => mesh.join(id, invite.expose(), now),
            meshd::Request::RevokeInvite { id: invite, with_members } => {
                mesh.revoke_invite(id, &invite, with_members, now);
            }
            meshd::Request::Grant { node_id, addresses } => mesh.grant(id, &node_id, addresses, now),
            meshd::Request::AddBan { node_id, description, duration } => {
                mesh.add_ban(id, &node_id, description, duration, now);
            }
            meshd::Request::RemoveBan { node_id } => mesh.remove_ban(id, &node_id),
            meshd::Request::AllowInvite { id: invite } => mesh.allow_invite(id, &invite),
            meshd::Request::Enact(executed) => mesh.enact(id, *executed, now),
            meshd::Request::Revoke { node_id } => mesh.revoke(id, &node_id),
            meshd::Request::Leave => mesh.leave(id),
            // Answered above, or where they are received.
            meshd::Request::Events { .. }
            | meshd::Request::CheckNetwork { .. }
            | meshd::Request::Status
            | meshd::Request::Peers
            | meshd::Request::Config
            | meshd::Request::SetConfig { .. }
            | meshd::Request::Reload
            | meshd::Request::Keys
            | meshd::Request::Routes
            | meshd::Request::ListBans
            | meshd::Request::ListInvites => {}
        }
    }
}

/// The public half of the node's keys.
pub(super) fn public_keys(me: &keyd::Identity, mesh: &Mesh) -> meshd::Keys {
    meshd::Keys {
        node_id: me.node.to_string(),
        sealed: me.sealed,
        control: meshd::ControlDestination { b32: me.control.hash().b32(), base64: me.control.to_base64() },
        network: mesh.network().map(|network| network.to_string()),
        wireguard: mesh.published_certificate().map(describe_key),
    }
}
