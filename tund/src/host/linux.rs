//! Reads the host's networks by rtnetlink(7).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use i2plan_ipc::api::tund::HostUse;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia,
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::prefix::{HostNetwork, Prefix};
use super::{Found, Link};

/// How long the kernel may take to tell all.
const DEADLINE: Duration = Duration::from_secs(5);

/// The names of interfaces, by their index.
type Names = HashMap<u32, String>;

/// Asks the kernel, through a socket that stays open: the kernel lets a process without capabilities ask for what
/// everybody may know, and change nothing.
pub(super) struct Reader(Handle);

impl Reader {
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        // Ends when the handle is gone.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    pub(super) async fn read(&self) -> io::Result<Found> {
        let read = async { self.dump().await.map_err(io::Error::other) };
        timeout(DEADLINE, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn dump(&self) -> Result<Found, rtnetlink::Error> {
        let mut names = Names::new();
        let mut states = HashMap::new();
        let mut links = self.0.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let name = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            if let Some(name) = name {
                states.insert(name.clone(), of_the_link(&link));
                names.insert(link.header.index, name);
            }
        }
        let mut networks = Vec::new();
        let mut addresses = self.0.address().get().execute();
        while let Some(address) = addresses.try_next().await? {
            networks.extend(of_the_address(&address, &names));
        }
        for of_family in
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let mut routes = std::pin::pin!(self.0.route().get(of_family).execute());
            while let Some(route) = routes.try_next().await? {
                networks.extend(of_the_route(&route, &names));
            }
        }
        Ok(Found { networks, links: states })
    }
}

/// Tells when the host's links, addresses or routes change, through a socket that the kernel writes to without being
/// asked.
pub(super) fn watch(changed: Arc<Notify>) -> io::Result<()> {
    const GROUPS: [MulticastGroup; 6] = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv6Ifinfo,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
    tokio::spawn(connection);
    tokio::spawn(async move {
        // The connection lives as long as this.
        let _handle = handle;
        while messages.next().await.is_some() {
            changed.notify_one();
        }
    });
    Ok(())
}

/// What a link is, as far as it can be wrong.
fn of_the_link(message: &LinkMessage) -> Link {
    let mut link = Link { is_up: message.header.flags.contains(LinkFlags::Up), mtu: None, has_ipv6: false };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::AfSpecUnspec(families) => {
                let ipv6 = families.iter().filter_map(|family| match family {
                    AfSpecUnspec::Inet6(ipv6) => Some(ipv6),
                    _ => None,
                });
                link.has_ipv6 = ipv6.flatten().any(|attribute| {
                    matches!(attribute, AfSpecInet6::DevConf(settings) if settings.disable_ipv6 == 0)
                });
            }
            _ => {}
        }
    }
    link
}

/// An address, and the network at whose other end it is.
fn of_the_address(message: &AddressMessage, names: &Names) -> Vec<HostNetwork> {
    let (mut network, mut own) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => network = Some(*address),
            AddressAttribute::Local(address) => own = Some(*address),
            _ => {}
        }
    }
    let interface = names.get(&message.header.index);
    // Of a point-to-point link the prefix is the other end's.
    let (network, peer) = match (own, network) {
        (Some(own), Some(peer)) if own != peer => (Prefix::host(own), Some(peer)),
        (Some(address), _) | (None, Some(address)) => (Prefix::new(address, message.header.prefix_len), None),
        (None, None) => return Vec::new(),
    };
    let peer = peer.map(|peer| Prefix::new(peer, message.header.prefix_len));
    let of = |prefix| HostNetwork::new(HostUse::Address, prefix, interface.cloned());
    [network].into_iter().chain(peer).map(of).collect()
}

/// What a route leads to, and its gateways.
fn of_the_route(message: &RouteMessage, names: &Names) -> Vec<HostNetwork> {
    let header = &message.header;
    let kind = match header.kind {
        RouteType::Unicast => HostUse::Route,
        // The kernel's own stand for addresses, which are known. Others have whole networks end at this host.
        RouteType::Local if header.protocol != RouteProtocol::Kernel => HostUse::Route,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => HostUse::NullRoute,
        _ => return Vec::new(),
    };
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Vec::new(),
    };
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => address_of(address),
        _ => None,
    });
    let prefix = Prefix::new(destination.unwrap_or(unspecified), header.destination_prefix_length);
    let mut networks = Vec::new();
    let mut hop = |index: Option<u32>, attributes: &[RouteAttribute]| {
        let interface = index.and_then(|index| names.get(&index)).cloned();
        networks.extend(
            attributes
                .iter()
                .filter_map(gateway_of)
                .map(|gateway| HostNetwork::new(HostUse::Gateway, Prefix::host(gateway), interface.clone())),
        );
        networks.push(HostNetwork::new(kind, prefix, interface));
    };
    let interface = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let hops = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    match hops {
        Some(hops) => hops.iter().for_each(|next| hop(Some(next.interface_index), &next.attributes)),
        None => hop(interface, &message.attributes),
    }
    networks
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => address_of(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
