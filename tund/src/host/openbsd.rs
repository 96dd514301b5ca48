//! Reads the host's addresses by getifaddrs(3). Routes that lead elsewhere than to an interface's own network are not
//! looked at.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use i2plan_ipc::api::tund::HostUse;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use tokio::sync::Notify;

use super::Found;
use super::prefix::{HostNetwork, Prefix};

/// Asks the system; there is nothing to be kept open.
pub(super) struct Reader;

impl Reader {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn read(&self) -> io::Result<Found> {
        let mut networks = Vec::new();
        for found in getifaddrs()? {
            let Some(address) = found.address.as_ref().and_then(ip) else { continue };
            let length = prefix_length(
                address,
                found.netmask.as_ref().and_then(ip),
                found.broadcast.as_ref().and_then(ip),
            );
            let interface = Some(found.interface_name);
            networks.push(HostNetwork::new(HostUse::Address, Prefix::new(address, length), interface));
        }
        Ok(Found { networks, links: HashMap::new() })
    }
}

/// Nothing tells of changes: the host is looked at from time to time.
pub(super) fn watch(_: Arc<Notify>) -> io::Result<()> {
    Ok(())
}

/// The length of an address's prefix. A mask whose structure the kernel has shortened cannot be read: then the broadcast
/// address says how long it is at least, and of IPv6 it is what it nearly always is.
fn prefix_length(address: IpAddr, mask: Option<IpAddr>, broadcast: Option<IpAddr>) -> u8 {
    let length = match (address, mask, broadcast) {
        (IpAddr::V4(_), Some(IpAddr::V4(mask)), _) => mask.to_bits().leading_ones(),
        (IpAddr::V6(_), Some(IpAddr::V6(mask)), _) => mask.to_bits().leading_ones(),
        (IpAddr::V4(_), _, Some(IpAddr::V4(broadcast))) => 32 - broadcast.to_bits().trailing_ones(),
        (IpAddr::V4(_), ..) => 32,
        (IpAddr::V6(_), ..) => 64,
    };
    length as u8
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
    ipv4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}
