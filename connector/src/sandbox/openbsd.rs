//! What the connector may do on OpenBSD.

use std::net::SocketAddr;

use i2plan_ipc::daemon::sandbox::{SandboxError, pledge};

/// Before anybody is connected to.
///
/// `inet` is for the SAM bridge, `unix sendfd` are for keyd. Which ports these are is for pf(4) to limit.
///
/// # Errors
/// [`SandboxError`]; the connector must not go on then.
pub fn before_connecting(_: &[SocketAddr], _: u16) -> Result<(), SandboxError> {
    pledge("stdio inet unix sendfd")
}
