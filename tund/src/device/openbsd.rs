//! Makes the TUN interface with tun(4), ifconfig(8) and route(8). Needs root for that time.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};

use i2plan_ipc::ApiError;
use i2plan_ipc::api::tund::Interface;
use tracing::debug;

use super::bsd;
use crate::offload::{Coalescer, ReadBuffer};
use crate::privileges;

const _: () = assert!(bsd::AF_INET as i32 == libc::AF_INET && bsd::AF_INET6 as i32 == libc::AF_INET6);

/// An interface. It lives as long as this, and does not block.
#[derive(Debug)]
pub struct Device {
    file: File,
    name: String,
}

impl Device {
    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet, and hands it on.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none; any other if the interface is gone.
    pub fn recv(&self, buffer: &mut ReadBuffer, take: impl FnOnce(&[u8])) -> io::Result<()> {
        let mut header = [0; bsd::HEADER_LEN];
        let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(&mut buffer.read)];
        match (&self.file).read_vectored(parts)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            // A packet of no bytes is no packet to anybody.
            len => take(&buffer.read[..len.saturating_sub(bsd::HEADER_LEN)]),
        }
        Ok(())
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// If it is no IP packet, or the interface does not take it.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let header = bsd::header(packet)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no IP packet"))?;
        (&self.file).write_vectored(&[IoSlice::new(&header), IoSlice::new(packet)]).map(drop)
    }

    /// Writes one packet. Returns how many packets the interface did not take.
    pub fn send_soon(&self, packet: &[u8], _pending: &mut Coalescer) -> usize {
        let Err(error) = self.send(packet) else { return 0 };
        debug!(%error, "the interface does not take a packet");
        1
    }

    /// Nothing waits on this system.
    pub fn flush(&self, _pending: &mut Coalescer) -> usize {
        0
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Makes the interface and brings it up.
///
/// # Errors
/// [`ApiError`], saying what is in the way and what helps.
pub async fn create(interface: &Interface) -> Result<Device, ApiError> {
    // Nothing is awaited meanwhile: nothing else runs in this process while it is root.
    privileges::as_root(|| {
        let device = open(interface)?;
        for command in bsd::set_up(&device.name, interface) {
            run(&command)?;
        }
        Ok(device)
    })
    .map_err(|error| ApiError::internal(error.to_string()))?
}

fn open(interface: &Interface) -> Result<Device, ApiError> {
    for name in bsd::candidates(&interface.name) {
        let path = format!("/dev/{name}");
        // Opening the device of an interface that exists would take over one that another program left for
        // itself.
        if exists(&name)? {
            continue;
        }
        let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        match opened {
            Ok(file) => return Ok(Device { file, name }),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ApiError::unavailable(format!("there is no {path} for another interface"))
                    .with_hint(format!("make it: cd /dev && sh MAKEDEV {name}")));
            }
            Err(error) => {
                return Err(ApiError::unavailable(format!("cannot open {path}: {error}")));
            }
        }
    }
    Err(ApiError::conflict(format!("there is no free interface for {}", interface.name))
        .with_hint("stop the program that uses it, or configure another name"))
}

fn exists(name: &str) -> Result<bool, ApiError> {
    output(&bsd::look_for(name)).map(|output| output.status.success())
}

fn run(command: &bsd::ToolCommand) -> Result<(), ApiError> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let arguments = command.arguments.join(" ");
    Err(ApiError::internal(format!("`{} {arguments}` failed: {}", command.program, said.trim())))
}

fn output(command: &bsd::ToolCommand) -> Result<std::process::Output, ApiError> {
    Command::new(command.program)
        .args(&command.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| ApiError::internal(format!("cannot run {}: {error}", command.program)))
}
