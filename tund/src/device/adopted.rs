//! An interface that another process has made and set up.

#![allow(unsafe_code, reason = "asking the TUN driver takes an ioctl that no library offers")]

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};

use i2plan_ipc::api::tund::{Interface, StaticInterface};
use rustix::fs::{FileType, fstat, major, minor};
use tun::AbstractDevice as _;

use super::Device;

/// The number of the TUN driver's device (Linux, admin-guide/devices.txt).
const DRIVER: (u32, u32) = (10, 200);

/// What an interface is made with that carries IP packets and nothing before them.
const FLAGS: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI;

/// All that it could be made with.
const ALL_FLAGS: libc::c_int =
    libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;

/// An interface, as far as the kernel's word for it goes.
#[derive(Debug)]
pub struct Adopted {
    fd: OwnedFd,
    name: String,
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
        if flags & ALL_FLAGS != FLAGS {
            return Err(format!("the interface {name} is of another kind than this daemon makes"));
        }
        let fd = fd.try_clone().map_err(|error| error.to_string())?;
        Ok(Self { fd, name })
    }

    /// The interface, if it is the one that is wanted: by its name, in this network namespace, with the address and
    /// the MTU.
    ///
    /// # Errors
    /// How it differs.
    pub fn into_device(self, interface: &Interface) -> Result<Device, String> {
        self.open(&interface.name, interface.mtu, Some(interface.ipv4.into()))
    }

    /// The same of an interface with static peers, by its name and MTU.
    ///
    /// # Errors
    /// How it differs.
    pub fn into_static(self, interface: &StaticInterface) -> Result<Device, String> {
        self.open(&interface.name, interface.mtu, None)
    }

    fn open(self, wanted: &str, wanted_mtu: u16, wanted_address: Option<IpAddr>) -> Result<Device, String> {
        let Self { fd, name } = self;
        if name != wanted {
            return Err(format!("the interface is {name}, not {wanted}"));
        }
        let mut configuration = tun::configure();
        configuration.raw_fd(fd.into_raw_fd()).tun_name(&name).mtu(wanted_mtu);
        let tun = tun::create(&configuration).map_err(|error| error.to_string())?;
        let here = |error: tun::Error| format!("there is no such interface {name} here: {error}");
        if let Some(wanted) = wanted_address {
            let address = tun.address().map_err(here)?;
            if address != wanted {
                return Err(format!("{name} has the address {address}, not {wanted}"));
            }
        }
        let mtu = tun.mtu().map_err(here)?;
        if mtu != wanted_mtu {
            return Err(format!("{name} has an MTU of {mtu}, not {wanted_mtu}"));
        }
        tun.set_nonblock().map_err(|error| error.to_string())?;
        Ok(Device::new(tun, name.clone()))
    }
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
