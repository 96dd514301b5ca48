//! Reads the host's networks by rtnetlink(7).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::TryStreamExt as _;
use i2plan_ipc::api::tund::HostUse;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::time::timeout;

use super::prefix::{HostNetwork, Prefix};

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

    pub(super) async fn read(&self) -> io::Result<Vec<HostNetwork>> {
        let read = async { self.dump().await.map_err(io::Error::other) };
        timeout(DEADLINE, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn dump(&self) -> Result<Vec<HostNetwork>, rtnetlink::Error> {
        let mut names = Names::new();
        let mut links = self.0.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let name = link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            names.extend(name.map(|name| (link.header.index, name)));
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
        Ok(networks)
    }
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
