//! Waiting for the interface.

#![allow(unsafe_code, reason = "registering a descriptor with the runtime")]

use std::io;

use tokio::io::unix::AsyncFd;

use crate::device::Device;

/// Registers the device with the runtime of this thread.
///
/// # Errors
/// If the system refuses.
pub fn register(device: Device) -> io::Result<AsyncFd<Device>> {
    // SAFETY: the device owns its descriptor, always names the same one, and closes it only when dropped;
    // nothing here takes it out of the `AsyncFd`.
    let registered = unsafe { AsyncFd::register(device) };
    registered.map_err(|error| error.into_parts().1)
}
