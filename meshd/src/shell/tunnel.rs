//! Keeps `tund` as it should be: whatever restarts, it is told again what it has to do.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{self, Configured, Interface, Limits, Peer, Request, Stats, TundApi};
use i2plan_ipc::client::{Client, ClientError, Link};
use i2plan_ipc::hello::HelloReply;
use i2plan_proto::identity::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::sessions::Open;

/// How often counters are fetched, which also shows that `tund` is alive.
const POLL: Duration = Duration::from_secs(1);

/// Wait before `tund` is sought again.
const RETRY: Duration = Duration::from_millis(500);

/// What `tund` cannot do is asked of it again after [`POLL`], then ever later up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// For how long `tund` is waited for with sessions that it may have kept, before others are opened.
const ADOPT_PATIENCE: Duration = Duration::from_secs(5);

/// What `tund` should be doing.
#[derive(Debug, Clone, Default)]
pub(super) struct Desired {
    pub(super) limits: Option<Limits>,
    /// With the epoch of the WireGuard key.
    pub(super) interface: Option<(Interface, u32)>,
    pub(super) session: Option<Arc<Open>>,
    /// The control session, to be kept for this process.
    pub(super) control: Option<Arc<Open>>,
    pub(super) peers: Arc<Vec<Peer>>,
}

/// What `tund` is doing.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) daemon: Option<HelloReply>,
    pub(super) configured: Option<Configured>,
    /// As what it was configured.
    pub(super) interface: Option<Interface>,
    pub(super) stats: Option<Stats>,
    pub(super) error: Option<String>,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

/// What `tund` is to be told.
pub(super) struct Told {
    pub(super) desired: watch::Receiver<Desired>,
    /// Members that do not answer `tund`, and have given a sign of life.
    pub(super) awakened: mpsc::Receiver<Vec<NodeId>>,
}

/// Where the sessions go that `tund` has kept from before.
pub(super) struct Adopt {
    pub(super) data: oneshot::Sender<Open>,
    pub(super) control: oneshot::Sender<Open>,
}

/// Keeps `tund` as it is told.
pub(super) async fn keep(
    link: Arc<Link<TundApi>>,
    mut told: Told,
    report: watch::Sender<Report>,
    adopt: Adopt,
) {
    let mut adopt = Some(adopt);
    let started = Instant::now();
    loop {
        let error = match link.connect().await {
            Ok(mut client) => {
                report.send_modify(|report| report.daemon = Some(client.daemon().clone()));
                let Err(error) = serve(&mut client, &mut told, &report, &mut adopt).await;
                error
            }
            Err(error) => error,
        };
        debug!(%error, "tund is not there");
        // If both restart, tund comes back with the sessions that its supervisor has kept.
        if started.elapsed() > ADOPT_PATIENCE {
            adopt = None;
        }
        report.send_replace(Report { error: Some(error.to_string()), ..Report::default() });
        sleep(RETRY).await;
    }
}

/// What this connection's `tund` has been told.
#[derive(Default)]
struct Applied {
    limits: Option<Limits>,
    interface: Option<(Interface, u32)>,
    session: Option<Arc<Open>>,
    control: Option<Arc<Open>>,
    peers: Option<Arc<Vec<Peer>>>,
}

async fn serve(
    client: &mut Client<TundApi>,
    told: &mut Told,
    report: &watch::Sender<Report>,
    adopt: &mut Option<Adopt>,
) -> Result<std::convert::Infallible, ClientError> {
    if adopt.is_some() {
        take_sessions(client, adopt).await?;
    }
    let mut applied = Applied::default();
    let mut error = None;
    let (mut again, mut wait) = (Instant::now(), POLL);
    loop {
        let changed = told.desired.has_changed().unwrap_or(true);
        let wanted = told.desired.borrow_and_update().clone();
        if error.is_none() || changed || Instant::now() >= again {
            error = match apply(client, &wanted, &mut applied, report).await {
                Ok(()) => None,
                Err(ClientError::Api(error)) => Some(error),
                Err(error) => return Err(error),
            };
            again = Instant::now() + wait;
            wait = if error.is_some() { LONGEST_RETRY.min(wait * 2) } else { POLL };
        }
        let stats = match client.call(Request::Stats).await? {
            tund::Reply::Stats(stats) => Some(stats),
            _ => None,
        };
        report.send_modify(|report| {
            if let Some(error) = &error
                && report.error.as_deref() != Some(error.message.as_str())
            {
                warn!(%error, "tund cannot do what it should");
            }
            report.error = error.as_ref().map(|error| error.message.clone());
            report.hint = error.as_ref().and_then(|error| error.hint.clone());
            report.stats = stats;
        });
        let awakened = tokio::select! {
            _ = told.desired.changed() => None,
            awakened = told.awakened.recv() => awakened,
            () = sleep(POLL) => None,
        };
        if let Some(nodes) = awakened {
            client.call(Request::Alive(nodes)).await?;
        }
    }
}

async fn apply(
    client: &mut Client<TundApi>,
    wanted: &Desired,
    applied: &mut Applied,
    report: &watch::Sender<Report>,
) -> Result<(), ClientError> {
    for (wanted, applied, request) in [
        (&wanted.session, &mut applied.session, Request::AttachSession as fn(tund::Session) -> Request),
        (&wanted.control, &mut applied.control, Request::KeepControl),
    ] {
        if let Some(session) = wanted
            && !applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, session))
        {
            let request = request(tund::Session { id: session.id.clone(), destination: session.destination });
            client.call_with_fds(request, &[session.udp.as_fd(), session.tcp.as_fd()]).await?;
            *applied = Some(Arc::clone(session));
        }
    }
    if let Some(limits) = wanted.limits
        && applied.limits != Some(limits)
    {
        client.call(Request::Limits(limits)).await?;
        applied.limits = Some(limits);
    }
    if let Some(interface) = &wanted.interface
        && applied.interface.as_ref() != Some(interface)
    {
        let request = Request::Configure(interface.0.clone(), interface.1);
        let tund::Reply::Configured(configured) = client.call(request).await? else {
            return Err(unexpected());
        };
        info!(interface = %configured.interface, epoch = configured.epoch, "the tunnel interface is up");
        report.send_modify(|report| {
            report.configured = Some(configured);
            report.interface = Some(interface.0.clone());
        });
        applied.interface = Some(interface.clone());
    }
    if wanted.interface.is_none() && applied.interface.take().is_some() {
        client.call(Request::GiveUp).await?;
        report.send_modify(|report| {
            report.configured = None;
            report.interface = None;
        });
        applied.peers = None;
    }
    // Without an interface there is nobody to have peers.
    if applied.interface.is_some()
        && !applied.peers.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, &wanted.peers))
    {
        client.call(Request::SetPeers(wanted.peers.as_ref().clone())).await?;
        applied.peers = Some(Arc::clone(&wanted.peers));
    }
    Ok(())
}

async fn take_sessions(client: &mut Client<TundApi>, adopt: &mut Option<Adopt>) -> Result<(), ClientError> {
    let (reply, fds) = client.call_with_fds(Request::TakeSessions, &[]).await?;
    let tund::Reply::Sessions { data, control } = reply else { return Err(unexpected()) };
    let Some(adopt) = adopt.take() else { return Ok(()) };
    let mut fds = fds.into_iter();
    for (session, adopt) in [(data, adopt.data), (control, adopt.control)] {
        let Some(session) = session else { continue };
        let (Some(udp), Some(tcp)) = (fds.next(), fds.next()) else { return Err(unexpected()) };
        info!(session = session.id, "took back a session that tund has kept");
        let _ = adopt.send(Open { id: session.id, udp, tcp, destination: session.destination });
    }
    Ok(())
}

fn unexpected() -> ClientError {
    ClientError::Api(ApiError::internal("tund gave an answer to another question"))
}
