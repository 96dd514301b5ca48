//! What the node says of its network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use i2plan_ipc::api::meshd::{
    Cursor, EventKind, GetStatus, ListPeers, MAX_EVENT_WAIT, MeshdApi, PollEvents, Status,
};
use i2plan_ipc::client::{Client, ClientError, Endpoint};
use i2plan_ipc::log_limit::LogLimit;
use i2plan_ipc::names::of_members;
use i2plan_ipc::{Role, warn_limited};
use i2plan_proto::address::Ipv4Subnet;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::zone::Zone;

/// Shortest time between two questions for all members, of which there may be thousands.
const PAUSE: Duration = Duration::from_secs(2);

/// How long it is waited before a node that does not answer is asked again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Where a node's names are told, and of which network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The network's id.
    pub network: String,
    /// The node's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

impl Place {
    /// That of a node; none if it is in no network.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let network = status.network.as_ref()?;
        Some(Self { network: network.id.clone(), ipv4: network.ipv4, ipv6: network.ipv6 })
    }

    /// The addresses.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }
}

/// Waits until the node is in a network.
pub async fn wait_for_network(meshd: Endpoint) -> Place {
    let mut failures = Failures::default();
    loop {
        let found = async {
            let mut events = Events::begin(&meshd).await?;
            loop {
                if let Some(place) = Place::of(&events.client.call(GetStatus).await?) {
                    return Ok::<_, ClientError>(place);
                }
                events.next().await?;
            }
        };
        match found.await {
            Ok(place) => return place,
            Err(error) => failures.note(&error).await,
        }
    }
}

/// Keeps the names up to date. Ends when they are not for `place` any more.
pub async fn follow(meshd: Endpoint, place: Place, zone: watch::Sender<Option<Arc<Zone>>>) {
    let mut failures = Failures::default();
    loop {
        let followed = async {
            let mut events = Events::begin(&meshd).await?;
            while let Some(found) = ask_zone(&mut events.client, &place).await? {
                zone.send_replace(Some(Arc::new(found)));
                sleep(PAUSE).await;
                events.next().await?;
            }
            Ok::<_, ClientError>(())
        };
        match followed.await {
            Ok(()) => return,
            // What was known stays as far as is known.
            Err(error) => failures.note(&error).await,
        }
    }
}

/// The events of a node, over a connection that also other questions go over.
struct Events {
    client: Client<MeshdApi>,
    after: Cursor,
}

impl Events {
    /// From now on: what is asked after this is no older.
    async fn begin(meshd: &Endpoint) -> Result<Self, ClientError> {
        let mut client = Client::connect(meshd.clone(), Role::Named).await?;
        let now = client.call(PollEvents { after: None, wait: 0, traffic: false }).await?;
        Ok(Self { client, after: now.next })
    }

    /// Waits until something happens after which names may be others.
    async fn next(&mut self) -> Result<(), ClientError> {
        loop {
            let request = PollEvents { after: Some(self.after), wait: MAX_EVENT_WAIT, traffic: false };
            let events = self.client.call(request).await?;
            self.after = events.next;
            if events.lost || events.events.iter().any(|event| matters(&event.kind)) {
                return Ok(());
            }
        }
    }
}

/// Tells of a node that does not answer, once for each reason in an hour, and waits.
struct Failures {
    started: Instant,
    limit: LogLimit,
}

impl Default for Failures {
    fn default() -> Self {
        Self { started: Instant::now(), limit: LogLimit::default() }
    }
}

impl Failures {
    async fn note(&mut self, error: &ClientError) {
        warn_limited!(self.limit, self.started.elapsed(), &error.to_string(), "meshd does not answer");
        sleep(RECONNECT).await;
    }
}

/// Whether names may be others after this.
fn matters(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::NetworkJoined { .. }
            | EventKind::NetworkLeft { .. }
            | EventKind::AddressChanged { .. }
            | EventKind::MemberAdded { .. }
            | EventKind::MemberChanged { .. }
            | EventKind::MemberRemoved { .. }
            | EventKind::BanAdded { .. }
            | EventKind::BanRemoved { .. }
            | EventKind::ConfigChanged { .. }
    )
}

/// The names; none if they are of another network, or the node has another address.
async fn ask_zone(node: &mut Client<MeshdApi>, place: &Place) -> Result<Option<Zone>, ClientError> {
    let status = node.call(GetStatus).await?;
    let Some(network) = status.network.as_ref().filter(|_| Place::of(&status).as_ref() == Some(place)) else {
        return Ok(None);
    };
    let peers = node.call(ListPeers).await?;
    // meshd says only what is one.
    let subnet: Ipv4Subnet = network.subnet.parse().unwrap_or(Ipv4Subnet::DEFAULT);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let serial = u32::try_from(since_1970.as_secs() & u64::from(u32::MAX)).unwrap_or_default();
    let members = of_members(&status, &peers);
    debug!(members = members.len(), "names");
    Ok(Some(Zone::new(&network.name, subnet, network.ipv6, &members, serial)))
}
