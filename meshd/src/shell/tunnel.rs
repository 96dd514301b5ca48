//! Keeps `tund` as it should be: whatever restarts, it is told again what it has to do.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use i2plan_ipc::api::Call;
use i2plan_ipc::api::tund::{
    self, AttachSession, BeginSync, Configure, Configured, EndSync, GetStats, GiveUp, Interface, KeepControl,
    Limits, MAX_BATCH, NoteAlive, RemoveMembers, SetKeepalives, Stats, TakeSessions, TellEndings,
    TellMembers, TundApi,
};
use i2plan_ipc::client::{Client, ClientError, DaemonLink};
use i2plan_ipc::hello::HelloReply;
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::warn_limited;
use i2plan_proto::identity::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::sessions::Open;
use crate::core::Peer;
use crate::core::state::Ending;

/// How often counters are fetched, which also shows that `tund` is alive.
const POLL: Duration = Duration::from_secs(1);

/// Wait before `tund` is sought again.
const RETRY: Duration = Duration::from_millis(500);

/// What `tund` cannot do is asked of it again after [`POLL`], then ever later up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Batches of members that are told before it is looked whether others are wanted: a ban is not to wait for thousands.
const BATCHES: usize = 8;

/// Nodes in one request at most, where only these are named.
const MAX_NODES: usize = 1024;

/// After this a member that `tund` has not admitted is told again.
const REFUSED_RETRY: Duration = Duration::from_secs(30);

/// For how long `tund` is waited for with sessions that it may have kept, before others are opened.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long `tund` may take to start again after it has given up its interface, before it counts as away.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// How memberships have ended, by id.
    pub(super) endings: Arc<Vec<KnownEnding>>,
}

/// The end of a membership, with its id.
type KnownEnding = (NodeId, Arc<Ending>);

/// What `tund` is doing.
#[derive(Debug, Clone, Default)]
pub(super) struct TundReport {
    pub(super) daemon: Option<HelloReply>,
    pub(super) configured: Option<Configured>,
    /// As what it was configured.
    pub(super) interface: Option<Interface>,
    pub(super) stats: Option<Stats>,
    pub(super) error: Option<String>,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

/// What `tund` is to be told, as it changes.
pub(super) struct TundInput {
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
    link: Arc<DaemonLink<TundApi>>,
    mut input: TundInput,
    report: watch::Sender<TundReport>,
    adopt: Adopt,
) {
    let mut adopt = Some(adopt);
    let started = Instant::now();
    let mut gave_up = None;
    loop {
        let error = match link.connect().await {
            Ok(mut client) => {
                report.send_modify(|report| report.daemon = Some(client.daemon().clone()));
                let Err(error) = serve(&mut client, &mut input, &report, &mut adopt, &mut gave_up).await;
                error
            }
            Err(error) => error,
        };
        debug!(%error, "tund is not there");
        // If both restart, tund comes back with the sessions from the fd store.
        if started.elapsed() > ADOPT_TIMEOUT {
            adopt = None;
        }
        // It ends because it was told to give up its interface, and nothing is wrong.
        let planned = gave_up.is_some_and(|at: Instant| at.elapsed() < GIVE_UP_TIMEOUT);
        let error = (!planned).then(|| error.to_string());
        report.send_replace(TundReport { error, ..TundReport::default() });
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
    members: AppliedMembers,
}

/// What this connection's `tund` has been told of members.
#[derive(Default)]
struct AppliedMembers {
    begun: bool,
    /// All that there was has been told once.
    complete: bool,
    /// The sequence number of each member's record, and its keepalive.
    members: HashMap<NodeId, (u64, u16)>,
    endings: HashSet<NodeId>,
    /// Members that it has not admitted, and when they are told again.
    refused: HashMap<NodeId, Instant>,
    /// What was wanted when all had been told.
    done_peers: Option<Arc<Vec<Peer>>>,
    done_endings: Option<Arc<Vec<KnownEnding>>>,
    /// The log's lines about what `tund` refuses, since the first of them.
    refusals: LogLimit,
    first_refusal: Option<Instant>,
}

async fn serve(
    client: &mut Client<TundApi>,
    input: &mut TundInput,
    report: &watch::Sender<TundReport>,
    adopt: &mut Option<Adopt>,
    gave_up: &mut Option<Instant>,
) -> Result<std::convert::Infallible, ClientError> {
    if adopt.is_some() {
        take_sessions(client, adopt).await?;
    }
    let mut applied = Applied::default();
    let (mut error, mut more) = (None, false);
    let (mut again, mut wait) = (Instant::now(), POLL);
    loop {
        let changed = input.desired.has_changed().unwrap_or(true);
        let wanted = input.desired.borrow_and_update().clone();
        if error.is_none() || changed || Instant::now() >= again {
            (more, error) = match apply(client, &wanted, &mut applied, report, gave_up).await {
                Ok(more) => (more, None),
                Err(ClientError::Api(error)) => (false, Some(error)),
                Err(error) => return Err(error),
            };
            again = Instant::now() + wait;
            wait = if error.is_some() { LONGEST_RETRY.min(wait * 2) } else { POLL };
        }
        let stats = client.call(GetStats).await?;
        let problem = stats.problem.clone();
        let error = error.as_ref().or(problem.as_ref());
        report.send_modify(|report| {
            if let Some(error) = error
                && report.error.as_deref() != Some(error.message.as_str())
            {
                warn!(%error, "tund cannot do what it should");
            }
            report.error = error.map(|error| error.message.clone());
            report.hint = error.and_then(i2plan_ipc::ApiError::hint);
            report.stats = Some(stats);
        });
        if more {
            continue;
        }
        let awakened = tokio::select! {
            _ = input.desired.changed() => None,
            awakened = input.awakened.recv() => awakened,
            () = sleep(POLL) => None,
        };
        for nodes in awakened.iter().flat_map(|nodes| nodes.chunks(MAX_NODES)) {
            client.call(NoteAlive(nodes.to_vec())).await?;
        }
    }
}

/// Returns whether there is more to be told, without waiting for anything.
async fn apply(
    client: &mut Client<TundApi>,
    wanted: &Desired,
    applied: &mut Applied,
    report: &watch::Sender<TundReport>,
    gave_up: &mut Option<Instant>,
) -> Result<bool, ClientError> {
    hand_over(client, wanted.session.as_ref(), &mut applied.session, AttachSession).await?;
    hand_over(client, wanted.control.as_ref(), &mut applied.control, KeepControl).await?;
    if let Some(limits) = wanted.limits
        && applied.limits != Some(limits)
    {
        client.call(limits).await?;
        applied.limits = Some(limits);
    }
    if let Some(interface) = &wanted.interface
        && applied.interface.as_ref() != Some(interface)
    {
        let configured = client.call(Configure(interface.0.to_new(), interface.1)).await?;
        info!(interface = %configured.interface, "the tunnel interface is up");
        report.send_modify(|report| {
            report.configured = Some(configured);
            report.interface = Some(interface.0.clone());
        });
        applied.interface = Some(interface.clone());
    }
    if wanted.interface.is_none() && applied.interface.take().is_some() {
        *gave_up = Some(Instant::now());
        client.call(GiveUp).await?;
        report.send_modify(|report| {
            report.configured = None;
            report.interface = None;
        });
        applied.members = AppliedMembers::default();
    }
    // Without an interface there is nobody to have peers.
    if applied.interface.is_none() {
        return Ok(false);
    }
    applied.members.tell(client, wanted).await
}

/// Passes a session that `tund` does not have yet.
async fn hand_over<C: Call<Api = TundApi>>(
    client: &mut Client<TundApi>,
    wanted: Option<&Arc<Open>>,
    applied: &mut Option<Arc<Open>>,
    call: impl FnOnce(tund::Session) -> C,
) -> Result<(), ClientError> {
    if let Some(session) = wanted
        && !applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, session))
    {
        let call = call(tund::Session { id: session.id.clone(), destination: session.destination });
        client.call_with_fds(call, &[session.udp.as_fd(), session.tcp.as_fd()]).await?;
        *applied = Some(Arc::clone(session));
    }
    Ok(())
}

impl AppliedMembers {
    /// Tells what `tund` has not been told yet, or a part of it; whether there is more.
    async fn tell(&mut self, client: &mut Client<TundApi>, wanted: &Desired) -> Result<bool, ClientError> {
        let now = Instant::now();
        let is_done = self.done_peers.as_ref().is_some_and(|peers| Arc::ptr_eq(peers, &wanted.peers))
            && self.done_endings.as_ref().is_some_and(|endings| Arc::ptr_eq(endings, &wanted.endings));
        if is_done && self.refused.values().all(|again| now < *again) {
            return Ok(false);
        }
        if !self.begun {
            client.call(BeginSync).await?;
            self.begun = true;
        }
        self.tell_endings(client, &wanted.endings).await?;
        self.remove_others(client, &wanted.peers).await?;
        if self.tell_members(client, &wanted.peers, now).await? {
            return Ok(true);
        }
        if !self.complete {
            client.call(EndSync).await?;
            self.complete = true;
            // What was in their way may have gone.
            self.refused.values_mut().for_each(|again| *again = now);
        }
        self.done_peers = Some(Arc::clone(&wanted.peers));
        self.done_endings = Some(Arc::clone(&wanted.endings));
        Ok(false)
    }

    async fn tell_endings(
        &mut self,
        client: &mut Client<TundApi>,
        endings: &[KnownEnding],
    ) -> Result<(), ClientError> {
        let new: Vec<_> = endings.iter().filter(|(id, _)| !self.endings.contains(id)).collect();
        for batch in new.chunks(MAX_BATCH) {
            let told = batch.iter().map(|(_, ending)| match &**ending {
                Ending::Revocation(revocation) => tund::Ending::Revocation(revocation.clone()),
                Ending::Resignation(resignation) => tund::Ending::Resignation(resignation.clone()),
            });
            let taken = client.call(TellEndings(told.collect())).await?;
            if let Some(reason) = taken.reason {
                let count = taken.refused.len();
                let at = self.first_refusal.get_or_insert_with(Instant::now).elapsed();
                warn_limited!(
                    self.refusals,
                    at,
                    &reason,
                    count,
                    "tund does not take in the ends of memberships"
                );
            }
            self.endings.extend(batch.iter().map(|(id, _)| *id));
        }
        if self.endings.len() > endings.len() {
            let wanted: HashSet<_> = endings.iter().map(|(id, _)| *id).collect();
            self.endings.retain(|id| wanted.contains(id));
        }
        Ok(())
    }

    /// Has those gone that are not wanted any more.
    async fn remove_others(
        &mut self,
        client: &mut Client<TundApi>,
        peers: &[Peer],
    ) -> Result<(), ClientError> {
        let wanted: HashSet<_> = peers.iter().map(|peer| peer.node).collect();
        let gone: Vec<_> = self.members.keys().filter(|node| !wanted.contains(node)).copied().collect();
        for nodes in gone.chunks(MAX_NODES) {
            client.call(RemoveMembers(nodes.to_vec())).await?;
            for node in nodes {
                self.members.remove(node);
            }
        }
        self.refused.retain(|node, _| wanted.contains(node));
        Ok(())
    }

    async fn tell_members(
        &mut self,
        client: &mut Client<TundApi>,
        peers: &[Peer],
        now: Instant,
    ) -> Result<bool, ClientError> {
        let (mut keepalives, mut members) = (Vec::new(), Vec::new());
        for peer in peers {
            let known = self.members.get(&peer.node);
            let is_newer = known.is_none_or(|(sequence, _)| *sequence < peer.record.value.sequence);
            if is_newer && self.refused.get(&peer.node).is_none_or(|again| *again <= now) {
                members.push(peer);
            } else if known.is_some_and(|(_, keepalive)| *keepalive != peer.keepalive) {
                keepalives.push((peer.node, peer.keepalive));
            }
        }
        for batch in keepalives.chunks(MAX_NODES) {
            client.call(SetKeepalives(batch.to_vec())).await?;
            for (node, keepalive) in batch {
                self.members.entry(*node).and_modify(|known| known.1 = *keepalive);
            }
        }
        for batch in members.chunks(MAX_BATCH).take(BATCHES) {
            let told = batch.iter().map(|peer| tund::Member {
                record: Box::new((*peer.record).clone()),
                keepalive: peer.keepalive,
            });
            let taken = client.call(TellMembers(told.collect())).await?;
            if let Some(reason) = taken.reason {
                let count = taken.refused.len();
                let at = self.first_refusal.get_or_insert_with(Instant::now).elapsed();
                warn_limited!(self.refusals, at, &reason, count, "tund does not admit members");
            }
            for peer in batch {
                if taken.refused.contains(&peer.node) {
                    self.refused.insert(peer.node, now + REFUSED_RETRY);
                } else {
                    self.refused.remove(&peer.node);
                    self.members.insert(peer.node, (peer.record.value.sequence, peer.keepalive));
                }
            }
        }
        Ok(members.len() > MAX_BATCH * BATCHES)
    }
}

async fn take_sessions(client: &mut Client<TundApi>, adopt: &mut Option<Adopt>) -> Result<(), ClientError> {
    let [data, control] = client.call(TakeSessions).await?;
    let Some(adopt) = adopt.take() else { return Ok(()) };
    for (stored, adopt) in [(data, adopt.data), (control, adopt.control)] {
        let Some((session, [udp, tcp])) = stored else { continue };
        info!(session = session.id, "took back a session from tund");
        let _ = adopt.send(Open { id: session.id, udp, tcp, destination: session.destination });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::OwnedFd;
    use std::sync::Mutex;

    use i2plan_ipc::access::{Access, Who};
    use i2plan_ipc::api::tund::Request;
    use i2plan_ipc::server::{Answer, Service, serve};
    use i2plan_ipc::{ApiError, Role};
    use i2plan_testing as testing;
    use tokio::net::UnixListener;

    use super::*;
    use crate::core::VerifiedRecord;

    /// In the place of `tund`: notes what it is told, and does not admit some.
    #[derive(Default)]
    struct Fake(Mutex<(Vec<String>, BTreeSet<NodeId>)>);

    impl Service for Fake {
        type Api = TundApi;

        async fn call(
            &self,
            _: Role,
            request: Request,
            _: Vec<OwnedFd>,
        ) -> Result<Answer<tund::Reply>, ApiError> {
            let (heard, refusing) = &mut *self.0.lock().unwrap();
            let mut taken = tund::Taken::default();
            heard.push(match request {
                Request::Members(members) => {
                    let nodes = members.iter().map(|member| member.record.value.node);
                    taken.refused = nodes.filter(|node| refusing.contains(node)).collect();
                    taken.reason = (!taken.refused.is_empty()).then(|| "not now".to_owned());
                    format!("{} members", members.len())
                }
                Request::Endings(endings) => format!("{} endings", endings.len()),
                Request::Remove(nodes) => format!("{} removed", nodes.len()),
                Request::Keepalives(nodes) => format!("{} keepalives", nodes.len()),
                Request::BeginSync => "begin".to_owned(),
                Request::EndSync => "end".to_owned(),
                _ => return Err(ApiError::invalid("this is not about members")),
            });
            Ok(
                match heard.last().is_some_and(|last| last.ends_with("members") || last.ends_with("endings"))
                {
                    true => tund::Reply::Taken(taken).into(),
                    false => tund::Reply::Done.into(),
                },
            )
        }
    }

    fn peer(depth: u8, sequence: u64, keepalive: u16) -> Peer {
        let mut record = testing::record(depth).value;
        record.sequence = sequence;
        let record = VerifiedRecord::new(testing::signed(record, depth), &testing::charter(0)).unwrap();
        Peer { node: record.value.node, record, keepalive }
    }

    fn desired(peers: Vec<Peer>, endings: u8) -> Desired {
        let ending = |depth| Ending::Resignation(Box::new(testing::resignation(depth)));
        let endings = (0..endings).map(|depth| (ending(depth).id(), Arc::new(ending(depth)))).collect();
        Desired { peers: Arc::new(peers), endings: Arc::new(endings), ..Desired::default() }
    }

    #[tokio::test]
    async fn members_are_told_once_and_what_was_refused_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, fake) = (dir.path().join("tund.sock"), Arc::new(Fake::default()));
        let access = Access::new([(Role::Meshd, Who::User(rustix::process::geteuid().as_raw()))]);
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(serve(
            listener,
            Arc::clone(&fake),
            access,
            i2plan_ipc::server::ConnectionLimits::default(),
        ));
        let mut client = Client::<TundApi>::connect(&path, Role::Meshd).await.unwrap();
        let mut told = AppliedMembers::default();
        let mut tell = async |wanted: &Desired, refusing: &[u8], later: Duration| {
            fake.0.lock().unwrap().1 = refusing.iter().map(|depth| testing::node(*depth)).collect();
            told.refused.values_mut().for_each(|again| *again -= later);
            assert!(!told.tell(&mut client, wanted).await.unwrap());
            std::mem::take(&mut fake.0.lock().unwrap().0).join(", ")
        };
        let now = Duration::ZERO;
        let first = desired(vec![peer(1, 1, 25), peer(2, 1, 25)], 1);
        assert_eq!(tell(&first, &[2], now).await, "begin, 1 endings, 2 members, end");
        // What was in the way of the one that was not admitted may have gone with the end.
        assert_eq!(tell(&first, &[2], now).await, "1 members");
        assert_eq!(tell(&first, &[2], now).await, "");
        assert_eq!(tell(&first, &[], REFUSED_RETRY).await, "1 members");
        assert_eq!(tell(&first, &[], REFUSED_RETRY).await, "");
        // A newer record, another keepalive, an ending, and one who is not wanted any more.
        let newer = desired(vec![peer(1, 2, 25), peer(3, 1, 0)], 2);
        assert_eq!(tell(&newer, &[], now).await, "1 endings, 1 removed, 2 members");
        let quiet = desired(vec![peer(1, 2, 0), peer(3, 1, 0)], 1);
        assert_eq!(tell(&quiet, &[], now).await, "1 keepalives");
        // One whose newer record is not admitted is still there, to be removed.
        let changed = desired(vec![peer(1, 3, 0), peer(3, 1, 0)], 1);
        assert_eq!(tell(&changed, &[1], now).await, "1 members");
        assert_eq!(tell(&desired(vec![peer(3, 1, 0)], 1), &[1], now).await, "1 removed");
    }
}
