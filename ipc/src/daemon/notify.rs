//! Tells the supervisor how the daemon does, and has it keep descriptors: the protocol of `sd_notify(3)`.
//!
//! The crate `sd-notify` reads what the supervisor sets in the environment (here and in [`super::activation`]). Its `notify`
//! makes a socket for each message, which the sandbox forbids; so the messages are in [`crate::notification`], which also
//! reads them for `i2planctl up`, and the socket is made once, here.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::notification::{Notification, Store};

/// How long a message may wait for a supervisor that does not read.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Where the supervisor receives sd_notify messages. Opened at the start: in its sandbox a daemon makes no sockets.
#[derive(Debug)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// The status that it was told last.
    status: Mutex<String>,
}

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names, if it is set; connected to when this is first asked for.
    #[must_use]
    pub fn of_this_process() -> &'static Self {
        static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();
        SUPERVISOR.get_or_init(Self::connect)
    }

    /// One that hears through this socket, or none.
    #[must_use]
    pub fn hearing(socket: Option<UnixDatagram>) -> Self {
        Self { socket, status: Mutex::default() }
    }

    /// A supervisor that cannot be reached is a warning: the daemon can do its work.
    fn connect() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::hearing(None) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name),
            None => SocketAddr::from_pathname(&name),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.set_write_timeout(Some(TIMEOUT))?;
            Ok(socket)
        });
        let socket = socket.inspect_err(|error| {
            tracing::warn!(%error, "cannot reach the supervisor that NOTIFY_SOCKET names");
        });
        Self::hearing(socket.ok())
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Says that the daemon answers.
    pub fn ready(&self) {
        self.tell(&Notification { ready: true, ..Notification::default() });
    }

    /// Says that the configuration is being read anew; [`Supervisor::ready`] says that it has been.
    pub fn reloading(&self) {
        // By the C library: rustix asks the kernel first, with a call that the daemons' sandboxes do not let through.
        let now = nix::time::ClockId::CLOCK_MONOTONIC.now().map(Duration::from).unwrap_or_default();
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.tell(&Notification { reloading: Some(micros), ..Notification::default() });
    }

    /// Says that the daemon ends, which may take so long.
    pub fn stopping(&self, extension: Duration) {
        let extend_timeout = (!extension.is_zero()).then_some(extension);
        self.tell(&Notification { stopping: true, extend_timeout, ..Notification::default() });
    }

    /// Says how the daemon does, and what to do about it; once, until it is something else.
    pub fn status(&self, status: &str) {
        let mut told = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != status {
            status.clone_into(&mut told);
            self.tell(&Notification { status: Some(status.to_owned()), ..Notification::default() });
        }
    }

    /// Says why the daemon cannot start yet, and that it goes on trying, at the latest after `pause`.
    pub fn waiting(&self, status: &str, pause: Duration) {
        self.status(status);
        let extend_timeout = Some(pause.saturating_mul(4));
        self.tell(&Notification { extend_timeout, ..Notification::default() });
    }

    /// Says that the daemon still does its work.
    pub fn alive(&self) {
        self.tell(&Notification { watchdog: true, ..Notification::default() });
    }

    /// Has a descriptor kept for the daemon's next process, under this name beside others of it. With `poll`, until
    /// it reports an error or its end.
    pub fn keep(&self, name: &str, fd: BorrowedFd<'_>, poll: bool) {
        let store = Some(Store::Keep { name: name.to_owned(), poll });
        self.send(&Notification { store, ..Notification::default() }, &[fd]);
    }

    /// Has the descriptors with this name kept no longer.
    pub fn forget(&self, name: &str) {
        let store = Some(Store::Forget { name: name.to_owned() });
        self.tell(&Notification { store, ..Notification::default() });
    }

    fn tell(&self, notification: &Notification) {
        self.send(notification, &[]);
    }

    fn send(&self, notification: &Notification, fds: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let message = notification.encode();
        let parts = [IoSlice::new(message.as_bytes())];
        if let Err(error) = sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            tracing::warn!(%error, "cannot tell the supervisor how this daemon does");
        }
    }
}

/// Returns whenever the supervisor wants to hear of the daemon next; never, if it does not.
#[derive(Debug)]
pub struct Watchdog(Option<tokio::time::Interval>);

impl Watchdog {
    /// As the environment says. Within a runtime.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::within(sd_notify::watchdog_enabled())
    }

    /// Twice in the time that the supervisor waits.
    fn within(limit: Option<Duration>) -> Self {
        Self(limit.filter(|limit| !limit.is_zero()).map(|limit| {
            let mut interval = tokio::time::interval(limit / 2);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Waits for the next time.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_when_it_changes() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let supervisor = Supervisor::hearing(Some(near));
        for status in ["a", "a", "b", "a"] {
            supervisor.status(status);
        }
        far.set_nonblocking(true).unwrap();
        let mut buffer = [0; 100];
        let mut heard = Vec::new();
        while let Ok(len) = far.recv(&mut buffer) {
            heard.push(Notification::parse(&buffer[..len]).status.unwrap());
        }
        assert_eq!(heard, ["a", "b", "a"]);
    }

    #[test]
    fn a_reload_is_told_with_its_time() {
        let (near, far) = UnixDatagram::pair().unwrap();
        Supervisor::hearing(Some(near)).reloading();
        let mut buffer = [0; 100];
        let len = far.recv(&mut buffer).unwrap();
        assert!(Notification::parse(&buffer[..len]).reloading.unwrap() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_twice_in_its_time() {
        let mut watchdog = Watchdog::within(Some(Duration::from_secs(3)));
        watchdog.due().await;
        let fed = tokio::time::Instant::now();
        watchdog.due().await;
        assert_eq!(fed.elapsed(), Duration::from_millis(1500));
        for none in [None, Some(Duration::ZERO)] {
            let mut watchdog = Watchdog::within(none);
            assert!(tokio::time::timeout(Duration::from_secs(3600), watchdog.due()).await.is_err());
        }
    }
}
