//! The host's own networks, which an interface of the mesh must not take packets from.
//!
//! * [`prefix`]: what overlaps what.
//! * `linux`, `openbsd`: how the system tells its addresses and routes.
//! * [`resolvers`]: its name servers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::{HostUse, Interface, InterfaceFault, Overlap};
use i2plan_proto::address::{IPV6_PREFIX, Ipv4Subnet, ipv6_of};
use i2plan_proto::identity::NetworkId;
use thiserror::Error;
use tokio::sync::Notify;

use self::prefix::{HostNetwork, Prefix, overlaps};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "openbsd")]
mod openbsd;
pub mod prefix;
pub mod resolvers;

#[cfg(target_os = "linux")]
use linux::{Reader, watch};
#[cfg(target_os = "openbsd")]
use openbsd::{Reader, watch};

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

/// The host's networks and links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// All networks that the host uses, those of the mesh's own interface too.
    pub networks: Vec<HostNetwork>,
    /// The links by name; none where the system does not tell.
    pub links: HashMap<String, Link>,
}

impl Found {
    /// Whether an interface has an address.
    #[must_use]
    pub fn has_address(&self, interface: &str, address: IpAddr) -> bool {
        self.networks.iter().any(|network| {
            network.kind == HostUse::Address
                && network.interface.as_deref() == Some(interface)
                && network.prefix.address() == address
        })
    }
}

/// A link, as far as it can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// It is switched on.
    pub is_up: bool,
    /// Bytes.
    pub mtu: Option<u32>,
    /// It may have IPv6 addresses.
    pub has_ipv6: bool,
}

/// Knows what the host uses, and whether the mesh may overlap it.
pub struct Host {
    reader: Reader,
    changed: Arc<Notify>,
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
        let changed = Arc::new(Notify::new());
        watch(Arc::clone(&changed))?;
        Ok(Self { reader: Reader::open()?, changed, resolvers: resolvers::read(), allow_overlap })
    }

    /// Waits until links, addresses or routes have changed since this was last waited for, where the system tells.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the administrator lets the mesh overlap the host's networks.
    #[must_use]
    pub fn allows_overlap(&self) -> bool {
        self.allow_overlap
    }

    /// Reads the host's networks and links. `bridge` are the SAM bridge's addresses, as far as they are known.
    ///
    /// # Errors
    /// If the system does not tell.
    pub async fn read(&self, bridge: &[IpAddr]) -> Result<Found, ApiError> {
        let mut found = self.reader.read().await.map_err(|error| {
            ApiError::internal(format!("cannot read the host's addresses and routes: {error}"))
        })?;
        let resolvers = self.resolvers.iter().map(|resolver| (HostUse::Resolver, *resolver));
        let bridge = bridge.iter().map(|ip| (HostUse::SamBridge, *ip));
        found.networks.extend(
            resolvers
                .chain(bridge)
                .map(|(kind, address)| HostNetwork::new(kind, Prefix::host(address), None)),
        );
        Ok(found)
    }
}

/// How the interface `name` differs from what it should be.
#[must_use]
pub fn faults(interface: &Interface, name: &str, found: &Found) -> Vec<InterfaceFault> {
    // One that is gone ends the data path.
    let Some(link) = found.links.get(name) else { return Vec::new() };
    let mut faults = Vec::new();
    if !link.is_up {
        faults.push(InterfaceFault::Down);
    }
    if let Some(mtu) = link.mtu.filter(|mtu| *mtu != u32::from(interface.mtu)) {
        faults.push(InterfaceFault::Mtu { found: mtu });
    }
    if !found.has_address(name, interface.ipv4.into()) {
        faults.push(InterfaceFault::NoIpv4);
    }
    // The kernel takes IPv6 addresses from a link that goes down.
    if link.is_up && link.has_ipv6 && !found.has_address(name, interface.ipv6.into()) {
        faults.push(InterfaceFault::NoIpv6);
    }
    faults
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_changed_is_named() {
        let interface = Interface {
            name: "i2plan0".to_owned(),
            network: NetworkId([1; 32]),
            ipv4: [10, 42, 3, 4].into(),
            ipv4_prefix: 16,
            ipv6: "fd12:3456:789a::1".parse().unwrap(),
            ipv6_prefix: 64,
            mtu: 1280,
        };
        let address = |text: &str, length, interface: &str| {
            let prefix = Prefix::new(text.parse().unwrap(), length);
            HostNetwork::new(HostUse::Address, prefix, Some(interface.to_owned()))
        };
        let right = Found {
            networks: vec![address("10.42.3.4", 16, "i2plan0"), address("fd12:3456:789a::1", 64, "i2plan0")],
            links: [("i2plan0".to_owned(), Link { is_up: true, mtu: Some(1280), has_ipv6: true })].into(),
        };
        let with = |change: fn(&mut Found, &mut Link)| {
            let mut found = right.clone();
            let mut link = found.links.remove("i2plan0").unwrap();
            change(&mut found, &mut link);
            found.links.insert("i2plan0".to_owned(), link);
            faults(&interface, "i2plan0", &found)
        };
        assert_eq!(with(|_, _| {}), []);
        assert_eq!(with(|_, link| link.mtu = Some(1500)), [InterfaceFault::Mtu { found: 1500 }]);
        assert_eq!(with(|found, _| _ = found.networks.pop()), [InterfaceFault::NoIpv6]);
        assert_eq!(with(|found, _| _ = found.networks.remove(0)), [InterfaceFault::NoIpv4]);
        // A link that is down has no IPv6 addresses, and one where IPv6 is off neither.
        let down = |found: &mut Found, link: &mut Link| (link.is_up, _) = (false, found.networks.pop());
        assert_eq!(with(down), [InterfaceFault::Down]);
        let off = |found: &mut Found, link: &mut Link| (link.has_ipv6, _) = (false, found.networks.pop());
        assert_eq!(with(off), []);
        assert_eq!(faults(&interface, "other0", &right), []);
    }
}
