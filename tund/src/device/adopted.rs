//! An interface that another process has made and set up.

#![allow(unsafe_code, reason = "asking the TUN driver takes an ioctl that no library offers")]

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};

use i2plan_ipc::api::tund::{Interface, StaticInterface};
use rustix::fs::{FileType, fstat, major, minor};
use rustix::net::{AddressFamily, SocketType, socket};
use tun::AbstractDevice as _;

use super::Device;

/// The number of the TUN driver's device (Linux, admin-guide/devices.txt).
const DRIVER: (u32, u32) = (10, 200);

/// What an interface is made with that carries IP packets.
const FLAGS: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI;

/// What it is made with besides if they have headers, as they had not in earlier builds.
const HEADERS: libc::c_int = libc::IFF_VNET_HDR;

/// All that it could be made with.
const ALL_FLAGS: libc::c_int =
    libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// An interface, as far as the kernel's word for it goes.
#[derive(Debug)]
pub struct Adopted {
    fd: OwnedFd,
    name: String,
    has_headers: bool,
}

impl Adopted {
    /// Asks the kernel whether this is an interface.
    ///
    /// # Errors
    /// What it is or lacks.
    pub fn new(fd: &OwnedFd) -> Result<Self, String> {
        let stat = fstat(fd).map_err(|error| error.to_string())?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if !is_device || (major(stat.st_rdev), minor(stat.st_rdev)) != DRIVER {
            return Err("it is not of the TUN driver".to_owned());
        }
        let (name, flags) =
            name_and_flags(fd).map_err(|error| format!("it has no interface any more: {error}"))?;
        if flags & ALL_FLAGS & !HEADERS != FLAGS {
            return Err(format!("the interface {name} is of another kind than this daemon makes"));
        }
        let fd = fd.try_clone().map_err(|error| error.to_string())?;
        Ok(Self { fd, name, has_headers: flags & HEADERS != 0 })
    }

    /// The interface, if it is the one that is wanted: by its name, in this network namespace, with the address and
    /// the MTU.
    ///
    /// # Errors
    /// How it differs.
    pub fn into_device(self, interface: &Interface) -> Result<Device, String> {
        self.open(&interface.name, interface.mtu, Some((interface.ipv4, interface.ipv6)))
    }

    /// The same of an interface with static peers, by its name and MTU.
    ///
    /// # Errors
    /// How it differs.
    pub fn into_static(self, interface: &StaticInterface) -> Result<Device, String> {
        self.open(&interface.name, interface.mtu, None)
    }

    fn open(
        self,
        wanted: &str,
        wanted_mtu: u16,
        addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Result<Device, String> {
        let Self { fd, name, has_headers } = self;
        if name != wanted {
            return Err(format!("the interface is {name}, not {wanted}"));
        }
        let mut configuration = tun::configure();
        configuration.raw_fd(fd.into_raw_fd()).tun_name(&name).mtu(wanted_mtu);
        let tun = tun::create(&configuration).map_err(|error| error.to_string())?;
        let here = |error: tun::Error| format!("there is no such interface {name} here: {error}");
        if let Some((wanted, _)) = addresses {
            let address = tun.address().map_err(here)?;
            if address != IpAddr::V4(wanted) {
                return Err(format!("{name} has the address {address}, not {wanted}"));
            }
        }
        let mtu = tun.mtu().map_err(here)?;
        if mtu != wanted_mtu {
            return Err(format!("{name} has an MTU of {mtu}, not {wanted_mtu}"));
        }
        if !is_up(&name).map_err(|error| format!("there is no such interface {name} here: {error}"))? {
            return Err(format!("{name} is down"));
        }
        if let Some((_, wanted)) = addresses.filter(|(_, ipv6)| lacks_ipv6(&name, *ipv6)) {
            return Err(format!("{name} has not the address {wanted}"));
        }
        tun.set_nonblock().map_err(|error| error.to_string())?;
        Ok(Device::new(tun, name.clone(), has_headers))
    }
}

/// Has the kernel hand over packets of TCP and UDP that are to be cut into segments, whose checksums are not complete, and
/// take such.
pub(super) fn set_offloads(device: &Device) -> io::Result<()> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // Linux before 6.2 has none for UDP.
    set_offload(device, tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6).or_else(|_| set_offload(device, tcp))
}

fn set_offload(device: &Device, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes its argument by value (Linux, drivers/net/tun.c, `TUNSETOFFLOAD`).
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether an interface is switched on.
fn is_up(name: &str) -> io::Result<bool> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all bits zero are a value of this structure of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last stays zero, and ends the name.
    for (to, byte) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = byte.cast_signed();
    }
    // SAFETY: the call reads the name and writes the flags of one such structure (netdevice(7)), which outlives it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: for this call the kernel has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags.cast_unsigned()) & libc::IFF_UP != 0)
}

/// Whether an interface that may have IPv6 addresses has lost its own.
fn lacks_ipv6(name: &str, address: Ipv6Addr) -> bool {
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    let is_on = std::fs::read_to_string(switch).is_ok_and(|value| value.trim() == "0");
    let address: String = address.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    // A line is the address, index, prefix, scope, flags and name (Linux, net/ipv6/addrconf.c, `if6_seq_show`).
    let has = |line: &str| line.starts_with(&address) && line.ends_with(&format!(" {name}"));
    is_on && std::fs::read_to_string("/proc/self/net/if_inet6").is_ok_and(|found| !found.lines().any(has))
}

/// The name of a TUN descriptor's interface and what it was made with.
fn name_and_flags(fd: &OwnedFd) -> io::Result<(String, libc::c_int)> {
    // SAFETY: all bits zero are a value of this structure of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one such structure (Linux, drivers/net/tun.c, `TUNGETIFF`), which outlives it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = request.ifr_name.map(libc::c_char::cast_unsigned);
    let name = CStr::from_bytes_until_nul(&bytes).map_err(io::Error::other)?;
    // SAFETY: for this call the kernel has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name.to_string_lossy().into_owned(), libc::c_int::from(flags.cast_unsigned())))
}
