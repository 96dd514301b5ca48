//! `keyd`: who this node is, and what the core asks of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use i2plan_ipc::api::keyd::{self, GetConnector, GetIdentity, KeydApi};
use i2plan_ipc::client::{Client, ClientError, DaemonLink, Endpoint};
use i2plan_ipc::daemon::program::End;
use i2plan_ipc::hello::HelloReply;
use i2plan_ipc::{ApiError, Role};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::{DAEMON_ATTEMPTS, DAEMON_RETRY, Daemon, settings};
use crate::core::{Mesh, Ticket};

/// How often `keyd` is asked whether it is there.
pub(super) const KEYD_POLL: Duration = Duration::from_secs(2);

/// How often `keyd` is asked about the connector while that is missing: `status` and `doctor` must not report it as missing
/// once it is there.
pub(super) const CONNECTOR_POLL: Duration = Duration::from_millis(200);

/// What is known of `keyd`, and by it of the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shell) struct KeydReport {
    /// Why it is not there, if it is not.
    pub(in crate::shell) daemon: Result<HelloReply, String>,
    pub(in crate::shell) connector: Option<keyd::Connector>,
}

impl Daemon {
    pub(super) fn on_identity(&mut self, me: keyd::Identity) -> Result<(), End> {
        match self.me {
            Some(known) if (known.node, known.control) == (me.node, me.control) => {
                // Keys may be sealed while keyd is away.
                self.me = Some(me);
                return Ok(());
            }
            Some(_) => {
                // Not to be fixed by going on: what this process knows belongs to the other identity.
                error!("keyd has come back with another identity");
                return Err(End::failed("keyd has come back with another identity"));
            }
            None => {}
        }
        let state = self.storage.load(&me.node)?;
        let settings = settings(self.config.current());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(End::failed)?;
        info!(node = %me.node, control = %me.control.hash().b32(), "this node is known to keyd");
        self.me = Some(me);
        let now = self.now();
        let mut mesh = Mesh::new(me, settings, state, seed, now);
        let control = &self.control_status;
        mesh.handle_control_state(control.state, control.error.as_deref(), now);
        if let Some(destination) = self.data_destination {
            mesh.handle_data_session(destination);
        }
        self.mesh = Some(mesh);
        Ok(())
    }
}

/// Asks `keyd`, again while it cannot be reached: all that is asked of it may be asked twice.
pub(super) async fn ask(
    keyd: Arc<DaemonLink<KeydApi>>,
    ticket: Ticket,
    request: keyd::Request,
    answers: mpsc::Sender<(Ticket, Result<keyd::Reply, ApiError>)>,
) {
    let mut attempt = 1;
    let reply = loop {
        match keyd.call(request.clone()).await {
            Ok(reply) => break Ok(reply),
            Err(ClientError::Api(error)) => break Err(error),
            Err(error) if attempt >= DAEMON_ATTEMPTS => break Err(error.into_api()),
            Err(error) => {
                debug!(%error, "keyd is not there; asking again");
                attempt += 1;
                sleep(DAEMON_RETRY).await;
            }
        }
    };
    let _ = answers.send((ticket, reply)).await;
}

/// Looks after `keyd`: tells who the node is, and whether it is there.
pub(in crate::shell) async fn watch_keyd(
    keyd: Endpoint,
    report: watch::Sender<KeydReport>,
    identity: mpsc::Sender<keyd::Identity>,
) {
    loop {
        let error = match watch_connection(&keyd, &report, &identity).await {
            Err(error) => error,
            Ok(never) => match never {},
        };
        let error = error.to_string();
        if report.borrow().daemon.as_ref().err() != Some(&error) {
            warn!(%error, "keyd is not there");
        }
        let _ = report.send_replace(KeydReport { daemon: Err(error), connector: None });
        sleep(DAEMON_RETRY).await;
    }
}

pub(super) async fn watch_connection(
    keyd: &Endpoint,
    report: &watch::Sender<KeydReport>,
    identity: &mpsc::Sender<keyd::Identity>,
) -> Result<Infallible, ClientError> {
    let mut client = Client::<KeydApi>::connect(keyd.clone(), Role::Meshd).await?;
    loop {
        let me = client.call(GetIdentity).await?;
        let _ = identity.send(me).await;
        let connector = client.call(GetConnector).await?;
        let pause = if connector.is_some() { KEYD_POLL } else { CONNECTOR_POLL };
        let found = KeydReport { daemon: Ok(client.daemon().clone()), connector };
        report.send_if_modified(|report| {
            let changed = *report != found;
            *report = found;
            changed
        });
        sleep(pause).await;
    }
}
