//! The host's own networks, which an interface of the mesh must not take packets from.
//!
//! * [`prefix`]: what overlaps what.
//! * `linux`, `openbsd`: how the system tells its addresses and routes.
//! * [`resolvers`]: its name servers.

use std::net::IpAddr;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{HostUse, Interface, Overlap};
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet, ipv6_of};
use i2plan_proto::identity::NetworkId;
use thiserror::Error;

use self::prefix::{HostNetwork, Prefix, overlaps};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "openbsd")]
mod openbsd;
pub mod prefix;
pub mod resolvers;

#[cfg(target_os = "linux")]
use linux::Reader;
#[cfg(target_os = "openbsd")]
use openbsd::Reader;

/// Addresses of the mesh that the host uses otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the host uses addresses of this network: {}{}", first, and_more(*more))]
pub struct OverlapError {
    /// What overlaps, the most telling first.
    pub first: Overlap,
    /// How many more do.
    pub more: usize,
}

fn and_more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", and {count} more") }
}

impl From<OverlapError> for ApiError {
    fn from(error: OverlapError) -> Self {
        Self::conflict(error.to_string()).with_hint(
            "free these addresses on this host or use a network with another subnet; to give the mesh the host's packets \
             for them, the administrator sets tun.allow_overlap",
        )
    }
}

/// Knows what the host uses, and whether the mesh may overlap it.
pub struct Host {
    reader: Reader,
    resolvers: Vec<IpAddr>,
    allow_overlap: bool,
}

impl Host {
    /// Opens what the host's networks are asked through, and reads its name servers. Within a runtime, and before the
    /// sandbox closes: the socket is kept, since afterwards there is no other.
    ///
    /// # Errors
    /// If the system has no socket to give.
    pub fn open(allow_overlap: bool) -> std::io::Result<Self> {
        Ok(Self { reader: Reader::open()?, resolvers: resolvers::read(), allow_overlap })
    }

    /// Whether the administrator lets the mesh overlap the host's networks.
    #[must_use]
    pub fn allows_overlap(&self) -> bool {
        self.allow_overlap
    }

    /// All networks that the host uses, those of the mesh's own interface too. `bridge` are the SAM bridge's addresses, as far
    /// as they are known.
    ///
    /// # Errors
    /// If the system does not tell.
    pub async fn networks(&self, bridge: &[IpAddr]) -> Result<Vec<HostNetwork>, ApiError> {
        let mut networks = self.reader.read().await.map_err(|error| {
            ApiError::internal(format!("cannot read the host's addresses and routes: {error}"))
        })?;
        let resolvers = self.resolvers.iter().map(|resolver| (HostUse::Resolver, *resolver));
        let bridge = bridge.iter().map(|ip| (HostUse::SamBridge, *ip));
        networks.extend(
            resolvers
                .chain(bridge)
                .map(|(kind, address)| HostNetwork::new(kind, Prefix::host(address), None)),
        );
        Ok(networks)
    }
}

/// The prefixes of an interface.
#[must_use]
pub fn prefixes_of(interface: &Interface) -> Vec<Prefix> {
    vec![
        Prefix::new(interface.ipv4.into(), interface.ipv4_prefix).network(),
        Prefix::new(interface.ipv6.into(), interface.ipv6_prefix).network(),
    ]
}

/// The prefixes of a network. Its id is not known before it is founded, and as good as random then.
#[must_use]
pub fn prefixes_of_network(subnet: Ipv4Subnet, network: Option<NetworkId>) -> Vec<Prefix> {
    let ipv4 = subnet.range();
    let ipv6 =
        network.map(|network| Prefix::new(ipv6_of(&network, ipv4.first()).into(), IPV6_PREFIX).network());
    [Prefix::new(ipv4.first().into(), ipv4.prefix())].into_iter().chain(ipv6).collect()
}

/// Checks that the host uses none of these addresses otherwise than through the mesh's own interface.
///
/// # Errors
/// [`OverlapError`].
pub fn check(
    prefixes: &[Prefix],
    interface: Option<&str>,
    networks: &[HostNetwork],
) -> Result<(), OverlapError> {
    let mut found = overlaps(prefixes, interface, networks).into_iter();
    match found.next() {
        None => Ok(()),
        Some(first) => Err(OverlapError { first, more: found.len() }),
    }
}
