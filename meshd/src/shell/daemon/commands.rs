//! What clients ask of the daemon.

use std::sync::Arc;

use i2plan_config::ConfigError;
use i2plan_ipc::ApiError;
use i2plan_ipc::api::meshd::{Command, ConfigChange, EventKind, Reply};
use i2plan_proto::address::Ipv4Subnet;
use tracing::{error, info, warn};

use super::{Daemon, has_directory, settings};
use crate::core::{CommandId, Mesh, Now};
use crate::shell::host::{self, Question};
use crate::shell::service::{LoopRequest, ReplySender};

/// How a request goes on after `tund` has answered a question about the host.
pub(super) type Checked = Box<dyn FnOnce(&mut Daemon) + Send>;

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
            Err(error @ ConfigError::Read { .. })
                if !self.sees_config && has_directory(self.config.current().path()) =>
            {
                warn!(%error, "the directory of the configuration was made after the start");
                self.must_restart = true;
                Err(ApiError::unavailable(
                    "meshd starts again to read the configuration, whose directory is new",
                )
                .with_hint("what is in force then, the configuration that is shown says"))
            }
            Err(error) => {
                error!(%error, "the configuration cannot be used; the one before stays in force");
                let hint = match error {
                    ConfigError::Read { .. } => "see that meshd's user may read it",
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
                self.event_log.push(EventKind::ConfigChanged { key: key.clone(), value: after.to_owned() });
            }
        }
        let now = self.now();
        if changes.iter().any(|change| !change.restart)
            && let Some(mesh) = &mut self.mesh
        {
            mesh.reconfigure(settings(self.config.current()), now);
        }
    }

    pub(super) fn on_request(&mut self, request: LoopRequest) {
        match request {
            LoopRequest::Query(query, answer) => self.on_query(query, answer),
            LoopRequest::Command(command, answer) => self.on_command(command, answer),
            LoopRequest::Traffic(answer) => {
                let _ = answer.send(self.traffic());
            }
        }
    }

    /// Carries out a command. Here as elsewhere, a caller that has gone does not want its answer.
    fn on_command(&mut self, command: Command, answer: ReplySender) {
        let member_of = self.mesh.as_ref().and_then(Mesh::subnet);
        match command {
            Command::SetConfig { key, value } => {
                let _ = answer.send(self.set_config(&key, &value).map(Reply::ConfigChanged));
            }
            Command::Reload => {
                let _ = answer.send(self.reload().map(Reply::ConfigChanged));
            }
            Command::CreateInvite { expires_in, max_uses, addresses, subnet, name } => {
                let name = match host::network_name(name.as_deref(), member_of.is_some()) {
                    Ok(name) => name,
                    Err(error) => {
                        let _ = answer.send(Err(error));
                        return;
                    }
                };
                let question = host::invite_question(subnet.as_deref(), self.config.current(), member_of);
                self.check_host(question, answer, move |daemon, subnet, answer| {
                    daemon.have_mesh(answer, |mesh, id, now| {
                        if let Some(subnet) = subnet {
                            mesh.prefer_subnet(subnet);
                        }
                        if let Some(name) = name {
                            mesh.name_network(name);
                        }
                        mesh.create_invite(id, expires_in, max_uses, addresses, now);
                    });
                });
            }
            Command::Join { invite } => {
                let question = host::join_question(invite.expose(), self.config.current(), member_of);
                self.check_host(question, answer, move |daemon, _, answer| {
                    daemon.have_mesh(answer, |mesh, id, now| mesh.join(id, invite.expose(), now));
                });
            }
            Command::RotateKey => self.have_mesh(answer, Mesh::rotate_key),
            Command::RecoverKeys => self.have_mesh(answer, Mesh::recover_keys),
            Command::RevokeInvite { id: invite, with_members } => {
                self.have_mesh(answer, |mesh, id, now| mesh.revoke_invite(id, &invite, with_members, now));
            }
            Command::AllowInvite { id: invite } => {
                self.have_mesh(answer, |mesh, id, _| mesh.allow_invite(id, &invite));
            }
            Command::Grant { node_id, addresses } => {
                self.have_mesh(answer, |mesh, id, now| mesh.grant(id, &node_id, addresses, now));
            }
            Command::AddBan { node_id, description, duration } => {
                self.have_mesh(answer, |mesh, id, now| {
                    mesh.add_ban(id, &node_id, description, duration, now);
                });
            }
            Command::RemoveBan { node_id } => {
                self.have_mesh(answer, |mesh, id, _| mesh.remove_ban(id, &node_id));
            }
            Command::Enact(executed) => {
                self.have_mesh(answer, |mesh, id, now| mesh.enact(id, *executed, now));
            }
            Command::Revoke { node_id } => self.have_mesh(answer, |mesh, id, _| mesh.revoke(id, &node_id)),
            Command::Leave => self.have_mesh(answer, |mesh, id, _| mesh.leave(id)),
        }
    }

    /// Goes on once `tund` has found a subnet that the host has room for, if that is in question.
    pub(super) fn check_host(
        &mut self,
        question: Result<Option<Question>, ApiError>,
        answer: ReplySender,
        then: impl FnOnce(&mut Self, Option<Ipv4Subnet>, ReplySender) + Send + 'static,
    ) {
        match question {
            Ok(None) => then(self, None, answer),
            Ok(Some(question)) => {
                let (tund, checked) = (Arc::clone(&self.tund), self.checked_sender.clone());
                tokio::spawn(async move {
                    let subnet = host::ask(&tund, question).await;
                    let go_on = move |daemon: &mut Self| match subnet {
                        Ok(subnet) => then(daemon, Some(subnet), answer),
                        Err(error) => {
                            let _ = answer.send(Err(error));
                        }
                    };
                    let _ = checked.send(Box::new(go_on)).await;
                });
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// Has the mesh carry out a command, which it answers under the number that it gets.
    pub(super) fn have_mesh(&mut self, answer: ReplySender, act: impl FnOnce(&mut Mesh, CommandId, Now)) {
        let now = self.now();
        let Some(mesh) = &mut self.mesh else {
            let _ = answer.send(Err(without_identity()));
            return;
        };
        let id = self.next_command;
        self.next_command += 1;
        self.waiting.insert(id, answer);
        act(mesh, id, now);
    }
}

/// The answer to a request about the mesh while there is none.
pub(super) fn without_identity() -> ApiError {
    ApiError::unavailable("keyd is not reachable, so this node does not know its own identity")
        .with_hint("see that i2plan-keyd runs, and its log")
}
