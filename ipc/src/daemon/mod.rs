//! What every daemon does at its start, before its own work.

pub mod activation;
pub mod hardening;
pub mod logging;
pub mod users;

/// Tells the supervisor that the daemon answers (`READY=1` of `sd_notify(3)`); nothing if there is none.
pub fn notify_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot tell the supervisor that this daemon is ready");
    }
}
