//! Tells the supervisor how the daemon does: the protocol of `sd_notify(3)`.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The supervisor's ear. Opened at the start: behind its walls a daemon makes no sockets.
#[derive(Debug)]
pub struct Supervisor(Option<UnixDatagram>);

impl Supervisor {
    /// Connects to the socket that `NOTIFY_SOCKET` names, if it is set. A supervisor that cannot be reached is
    /// a warning: the daemon can do its work.
    #[must_use]
    pub fn connect() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name),
            None => SocketAddr::from_pathname(&name),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                tracing::warn!(%error, "cannot reach the supervisor that NOTIFY_SOCKET names");
                Self(None)
            }
        }
    }

    /// Says that the daemon answers.
    pub fn ready(&self) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(b"READY=1\n")
        {
            tracing::warn!(%error, "cannot tell the supervisor that this daemon is ready");
        }
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "abstract socket names are Linux's alone"))
}
