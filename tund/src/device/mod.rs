//! The TUN interface: made and set up, then read and written. One file for each system, all with the same
//! [`create`] and [`Device`].

#[cfg(target_os = "linux")]
mod adopted;
#[cfg(any(target_os = "openbsd", test))]
mod bsd;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "linux")]
pub use adopted::Adopted;
#[cfg(target_os = "linux")]
pub use linux::{Device, create, create_static};
#[cfg(target_os = "openbsd")]
pub use openbsd::{Device, create};
