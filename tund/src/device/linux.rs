//! Makes the TUN interface. Needs `CAP_NET_ADMIN`.

#![allow(unsafe_code, reason = "the library gives its descriptor as a number only")]

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use i2plan_ipc::api::tund::{Interface, StaticInterface};
use i2plan_ipc::{ApiError, ErrorKind};
use i2plan_proto::prefix::Prefix;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily as SocketFamily, SocketType, socket};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::adopted;
use crate::offload::{Coalescer, HEADER_LEN, NO_OFFLOAD, ReadBuffer};

const TUN: &str = "/dev/net/tun";

/// How long the kernel may take over all settings.
const DEADLINE: Duration = Duration::from_secs(5);

/// An interface. It lives as long as this, and does not block.
pub struct Device {
    tun: tun::Device,
    name: String,
    /// Its packets have headers (tun(4), `IFF_VNET_HDR`).
    has_headers: bool,
}

impl Device {
    pub(super) fn new(tun: tun::Device, name: String, has_headers: bool) -> Self {
        Self { tun, name, has_headers }
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads once, and hands on the packets that this has given.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none; any other if the interface is gone.
    pub fn recv(&self, buffer: &mut ReadBuffer, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let len = rustix::io::read(self, &mut *buffer.read)?;
        if !self.has_headers {
            take(&buffer.read[..len]);
        } else if let Err(error) = buffer.split(len, take) {
            warn!(%error, "dropped what came from the interface");
        }
        Ok(())
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// If the interface does not take it.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.write(&NO_OFFLOAD, packet)
    }

    /// Writes one packet, at [`Device::flush`] at the latest. Returns how many packets the interface did not take.
    pub fn send_soon(&self, packet: &[u8], pending: &mut Coalescer) -> usize {
        let mut lost = 0;
        if self.has_headers {
            pending.push(packet, |header, packet, count| lost += self.try_write(header, packet, count));
        } else {
            lost += self.try_write(&NO_OFFLOAD, packet, 1);
        }
        lost
    }

    /// Writes what waits. Returns how many packets the interface did not take.
    pub fn flush(&self, pending: &mut Coalescer) -> usize {
        let mut lost = 0;
        pending.flush(|header, packet, count| lost += self.try_write(header, packet, count));
        lost
    }

    fn try_write(&self, header: &[u8; HEADER_LEN], packet: &[u8], count: usize) -> usize {
        let Err(error) = self.write(header, packet) else { return 0 };
        debug!(%error, "the interface does not take a packet");
        count
    }

    fn write(&self, header: &[u8; HEADER_LEN], packet: &[u8]) -> io::Result<()> {
        if self.has_headers {
            rustix::io::writev(self, &[IoSlice::new(header), IoSlice::new(packet)])?;
        } else {
            rustix::io::write(self, packet)?;
        }
        Ok(())
    }

    /// An interface that is a socket, whose other end is the host.
    #[cfg(test)]
    pub(crate) fn from_socket(socket: std::os::unix::net::UnixDatagram, has_headers: bool) -> Self {
        use std::os::fd::IntoRawFd as _;
        let mut configuration = tun::configure();
        configuration.raw_fd(socket.into_raw_fd());
        Self { tun: tun::create(&configuration).unwrap(), name: "test".to_owned(), has_headers }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device owns the descriptor and lives as long as what is borrowed of it.
        unsafe { BorrowedFd::borrow_raw(self.tun.as_raw_fd()) }
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

/// Makes the interface of a member and brings it up.
///
/// # Errors
/// [`ApiError`], saying what is in the way and what helps.
pub async fn create(interface: &Interface) -> Result<Device, ApiError> {
    let Interface { name, ipv4, ipv4_prefix, ipv6, ipv6_prefix, mtu, .. } = interface;
    let addresses = [Prefix::new((*ipv4).into(), *ipv4_prefix), Prefix::new((*ipv6).into(), *ipv6_prefix)];
    make(&Plan { name, mtu: *mtu, addresses: &addresses, routes: Vec::new(), table: None }).await
}

/// Makes an interface with static peers, with routes to them, and brings it up.
///
/// # Errors
/// As [`create`].
pub async fn create_static(interface: &StaticInterface) -> Result<Device, ApiError> {
    let StaticInterface { name, addresses, mtu, table, peers } = interface;
    let routes: HashSet<_> = peers.iter().flat_map(|peer| &peer.allowed_ips).copied().collect();
    let routes = routes.into_iter().filter(|_| table.is_some()).collect();
    make(&Plan { name, mtu: *mtu, addresses, routes, table: *table }).await
}

/// An interface to be made.
struct Plan<'a> {
    name: &'a str,
    mtu: u16,
    /// With the prefixes of their networks.
    addresses: &'a [Prefix],
    /// What is reached through it besides these networks.
    routes: Vec<Prefix>,
    /// The table of these routes.
    table: Option<u32>,
}

async fn make(interface: &Plan<'_>) -> Result<Device, ApiError> {
    check_driver()?;
    // Opening the name of an interface that exists would take over one that another program left for itself.
    if index_of(interface.name).is_ok() {
        return Err(name_taken(interface.name));
    }
    let mut configuration = tun::configure();
    configuration.tun_name(interface.name).mtu(interface.mtu);
    // The crate sets up IPv4 alone; below, both families are set up alike.
    configuration.platform_config(|platform| {
        platform.ensure_root_privileges(false).vnet_hdr(true);
    });
    let tun = tun::create(&configuration).map_err(|error| match io::Error::from(error) {
        error if error.kind() == io::ErrorKind::PermissionDenied => {
            ApiError::new(ErrorKind::Denied, "tund may not make a network interface")
                .with_hint("start it with CAP_NET_ADMIN as an ambient capability, as its service unit does")
        }
        error if error.kind() == io::ErrorKind::ResourceBusy => name_taken(interface.name),
        error => ApiError::internal(format!("cannot make the interface {}: {error}", interface.name)),
    })?;
    tun.set_nonblock().map_err(|error| ApiError::internal(error.to_string()))?;
    let device = Device::new(tun, interface.name.to_owned(), true);
    if let Err(error) = adopted::set_offloads(&device) {
        debug!(%error, "the interface has no offloads");
    }
    timeout(DEADLINE, set_up(interface))
        .await
        .map_err(|_| ApiError::timeout("the kernel does not answer on the interface"))??;
    Ok(device)
}

fn check_driver() -> Result<(), ApiError> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(TUN) else { return Ok(()) };
    Err(match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ApiError::new(ErrorKind::Denied, format!("{TUN} may not be opened"))
                .with_hint(format!("udev makes it accessible to all by default: chmod 0666 {TUN}"))
        }
        _ => ApiError::unavailable(format!("there are no TUN interfaces here: {TUN}: {error}"))
            .with_hint("load the kernel's tun module: modprobe tun"),
    })
}

fn name_taken(name: &str) -> ApiError {
    ApiError::conflict(format!("there is an interface {name} already"))
        .with_hint("stop the program that made it, or configure another name")
}

fn index_of(name: &str) -> rustix::io::Result<u32> {
    let socket = socket(SocketFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(socket.as_fd(), name)
}

async fn set_up(interface: &Plan<'_>) -> Result<(), ApiError> {
    let failed = |what: &str, error: rtnetlink::Error| {
        ApiError::internal(format!("cannot set {what} of {}: {}", interface.name, reason(&error)))
    };
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| ApiError::internal(format!("cannot open a netlink socket: {error}")))?;
    // Ends when the handle is gone.
    tokio::spawn(connection);
    let index = index_of(interface.name)
        .map_err(|error| ApiError::internal(format!("the interface {} is gone: {error}", interface.name)))?;
    let link = || LinkUnspec::new_with_index(index);

    let quiet = link().mtu(interface.mtu.into()).multicast(false).build();
    handle.link().set(quiet).execute().await.map_err(|error| failed("the MTU", error))?;
    // No link-local address: nobody else is on this link who could be spoken to by one.
    let no_link_local =
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
            In6AddrGenMode::None,
        )])]);
    let no_link_local = link().append_extra_attribute(no_link_local).build();
    if let Err(error) = handle.link().set(no_link_local).execute().await {
        debug!(reason = reason(&error), "the interface keeps its link-local address");
    }
    for address in interface.addresses {
        let what = if address.address().is_ipv4() { "the IPv4 address" } else { "the IPv6 address" };
        match add_address(&handle, index, address.address(), address.length()).await {
            Ok(()) => {}
            Err(error) if address.address().is_ipv6() && is_without_ipv6(&error) => {
                warn!(
                    interface = interface.name,
                    "IPv6 is switched off on this host; the interface has IPv4 only here"
                );
            }
            Err(error) => return Err(failed(what, error)),
        }
    }
    handle.link().set(link().up().build()).execute().await.map_err(|error| failed("the state", error))?;
    // To the networks of its addresses there are routes already.
    let is_reached = |route: &Prefix| interface.addresses.iter().any(|address| address.network() == *route);
    for route in interface.routes.iter().filter(|route| !is_reached(route)) {
        match add_route(&handle, index, *route, interface.table).await {
            Ok(()) => {}
            Err(error) if route.address().is_ipv6() && is_without_ipv6(&error) => {}
            Err(error) => return Err(failed(&format!("the route to {route}"), error)),
        }
    }
    Ok(())
}

async fn add_route(
    handle: &Handle,
    index: u32,
    route: Prefix,
    table: Option<u32>,
) -> Result<(), rtnetlink::Error> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.address(), route.length())
        .expect("a prefix is not longer than its family allows")
        .output_interface(index);
    let builder = match table {
        Some(table) => builder.table_id(table),
        None => builder,
    };
    handle.route().add(builder.build()).execute().await
}

async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(index, address, prefix);
    let header = &mut request.message_mut().header;
    if header.family == AddressFamily::Inet6 {
        // Usable at once: there is nobody on the link to detect a duplicate of.
        header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().abs()),
        _ => None,
    }
}

/// Not compiled in, or switched off by `net.ipv6.conf.*.disable_ipv6`.
fn is_without_ipv6(error: &rtnetlink::Error) -> bool {
    let codes = [Errno::OPNOTSUPP, Errno::AFNOSUPPORT, Errno::ACCESS].map(Errno::raw_os_error);
    errno(error).is_some_and(|code| codes.contains(&code))
}

fn reason(error: &rtnetlink::Error) -> String {
    errno(error).map_or_else(|| error.to_string(), |code| io::Error::from_raw_os_error(code).to_string())
}
