//! Reads the host's addresses by getifaddrs(3). Routes that lead elsewhere than to an interface's own network are not
//! looked at.

use std::io;
use std::net::IpAddr;

use i2plan_ipc::api::tund::HostUse;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::prefix::{HostNetwork, Prefix};

/// Asks the system; there is nothing to be kept open.
pub(super) struct Reader;

impl Reader {
    #[expect(clippy::unnecessary_wraps, reason = "on Linux it takes a socket")]
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unused_async, reason = "on Linux the kernel is waited for")]
    pub(super) async fn read(&self) -> io::Result<Vec<HostNetwork>> {
        let mut networks = Vec::new();
        for found in getifaddrs()? {
            let Some(address) = found.address.as_ref().and_then(ip) else { continue };
            let length = found.netmask.as_ref().and_then(ip).map_or(u8::MAX, |mask| match mask {
                IpAddr::V4(mask) => mask.to_bits().leading_ones() as u8,
                IpAddr::V6(mask) => mask.to_bits().leading_ones() as u8,
            });
            let interface = Some(found.interface_name);
            networks.push(HostNetwork::new(HostUse::Address, Prefix::new(address, length), interface));
        }
        Ok(networks)
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
    ipv4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}
