//! One daemon's process: started, watched, started again, stopped.

use std::ffi::OsString;
use std::io::{self, PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::Capability;
use command_fds::{CommandFdExt as _, FdMapping};
use i2plan_ipc::api::tund::{MAX_STATIC_INTERFACE, StaticInterface};
use i2plan_ipc::daemon::logging;
use i2plan_ipc::frame::encode_body;
use i2plan_ipc::notification::Notification;
use i2plan_ipc::passphrase::Passphrase;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pipe::fcntl_setpipe_size;
use thiserror::Error;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use zeroize::Zeroizing;

use crate::backoff::{Backoff, LOCKED, Verdict};
use crate::error::StartError;
use crate::event::{DaemonEvent, describe};
use crate::launch::{LISTEN_FD, Launch};
use crate::node::PeerSource;
use crate::notify_receiver::{NotifyReceiver, Refusal};
use crate::relay::{Printed, Relay};
use crate::users::Account;

/// How long a daemon may take to stop by itself, beyond what it is granted for its last work.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long a daemon may be silent before it counts as hung and is killed; the longest of `WatchdogSec=` in the units.
const WATCHDOG: Duration = Duration::from_secs(30);

/// The parts in which that time is counted. If this process did not run for a while either, such as while it was
/// stopped by a terminal, one part has passed, and the daemon can be heard before the others have.
const PARTS: u32 = 6;

/// Whether a daemon shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It shall.
    Run,
    /// It shall stop, and may take its time.
    Stop,
    /// It shall stop at once.
    Kill,
}

/// Why a daemon cannot run, and with it the node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DaemonError {
    /// `keyd` needs a passphrase, and [`Node::passphrase`](crate::Node::passphrase) has none.
    #[error("the node's keys are sealed with a passphrase")]
    Sealed,
    /// `keyd` needs another passphrase.
    #[error("the passphrase does not open the node's keys")]
    WrongPassphrase,
    /// A daemon refuses its configuration. It has said why in its log.
    #[error("{daemon} cannot run: {how}")]
    Refused {
        /// Which.
        daemon: &'static str,
        /// How its process ended.
        how: String,
    },
    /// The task that supervises a daemon panicked.
    #[error("the supervision of {daemon} failed: {reason}")]
    Unsupervised {
        /// Which.
        daemon: &'static str,
        /// What happened.
        reason: String,
    },
}

/// Who receives the supervisor's events.
pub(crate) type Observer = Arc<dyn Fn(&DaemonEvent) + Send + Sync>;

/// What a daemon finds behind a descriptor.
#[derive(Debug, Clone)]
pub(crate) enum Piped {
    /// The same at every start.
    Fixed(Zeroizing<Vec<u8>>),
    /// A static interface with the peers that it has when `tund` starts; in the place of those that cannot be read, the
    /// ones that it had first.
    Static(StaticInterface, Option<PeerSource>),
}

impl Piped {
    fn read(&self) -> Zeroizing<Vec<u8>> {
        let (interface, source) = match self {
            Self::Fixed(bytes) => return bytes.clone(),
            Self::Static(interface, source) => (interface, source),
        };
        let read = source.as_ref().and_then(|source| (source.0)());
        let encode = |peers| encode_static(&StaticInterface { peers, ..interface.clone() }).ok();
        // It was encoded before.
        read.and_then(encode).or_else(|| encode(interface.peers.clone())).unwrap_or_default()
    }
}

/// What `tund` is told of a static interface.
///
/// # Errors
/// [`StartError::Static`] if it is too much.
pub(crate) fn encode_static(interface: &StaticInterface) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let encoded = encode_body(interface).map_err(|error| StartError::Static(error.to_string()))?;
    if encoded.len() > MAX_STATIC_INTERFACE {
        return Err(StartError::Static(format!("it takes more than {MAX_STATIC_INTERFACE} bytes")));
    }
    Ok(encoded)
}

/// A daemon to run.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// `keyd`, `connector`, `meshd`, `tund`, `rpcd`, `webd`, `named` or `routerd`.
    pub(crate) name: &'static str,
    /// Its executable.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Whom it runs as.
    pub(crate) user: Account,
    /// The one capability that it keeps.
    pub(crate) capability: Option<Capability>,
    /// Its listening sockets with their names. They stay open here, so that connections wait while the daemon is restarted.
    pub(crate) sockets: Vec<(&'static str, OwnedFd)>,
    /// Receives how it does, and the descriptors that it has kept from one process to the next.
    pub(crate) notify: NotifyReceiver,
    /// The signal by which it is told that it shall end for good.
    pub(crate) stop_signal: Signal,
    /// How its log lines look, if the environment does not say.
    pub(crate) log_format: Option<&'static str>,
    /// What it finds on its standard input, at every start anew.
    pub(crate) passphrase: Option<Passphrase>,
    /// What it finds behind descriptors of these names, at every start anew.
    pub(crate) piped: Vec<(&'static str, Piped)>,
    /// How long it may take to finish its work when it is asked to stop.
    pub(crate) last_work: Duration,
    /// The program that becomes it, by [`intercept`](crate::launch::intercept).
    pub(crate) launcher: PathBuf,
    /// Changes when it shall read its configuration again; none if it has none.
    pub(crate) hangup: Option<watch::Receiver<()>>,
}

impl Daemon {
    /// Keeps the daemon running until it shall stop.
    ///
    /// # Errors
    /// [`DaemonError`] if it cannot be started as it is configured.
    pub(crate) async fn supervise(
        mut self,
        mut goal: watch::Receiver<Goal>,
        lines: Relay,
        observer: Observer,
    ) -> Result<(), DaemonError> {
        let daemon = self.name;
        let mut backoff = Backoff::default();
        loop {
            backoff.started(Instant::now());
            // What starts now reads its configuration anyway, and the signal would end it until it can take it.
            if let Some(hangup) = &mut self.hangup {
                hangup.mark_unchanged();
            }
            let (how, code) = match self.start(&lines) {
                Ok((mut child, printed)) => {
                    if let Some(pid) = child.id() {
                        observer(&DaemonEvent::Started { daemon, pid });
                    }
                    let number = child.id().unwrap_or(0);
                    let mut silence = Silence::new();
                    let status = loop {
                        tokio::select! {
                            status = child.wait() => break status,
                            received = self.notify.receive(number) => {
                                silence.heard(&received);
                                note(daemon, received, &observer);
                            }
                            () = silence.too_long() => {
                                observer(&DaemonEvent::Hung { daemon, silent_for: WATCHDOG.as_secs() });
                                let _ = child.start_kill();
                            }
                            () = stopping(&mut goal) => {
                                let time = STOP_DEADLINE + self.last_work;
                                let how = ended(&stop(&mut child, self.stop_signal, &mut goal, time).await);
                                printed.finish().await;
                                observer(&DaemonEvent::Stopped { daemon, how });
                                return Ok(());
                            }
                            () = hung_up(&mut self.hangup) => {
                                if let Some(pid) = pid(&child) {
                                    let _ = kill(pid, Signal::SIGHUP);
                                }
                            }
                        }
                    };
                    // What it said before its end counts for the next process.
                    while let Some(received) = self.notify.try_receive(number) {
                        note(daemon, received, &observer);
                    }
                    printed.finish().await;
                    (ended(&status), status.ok().and_then(|status| status.code()))
                }
                Err(error) => (format!("cannot be started: {error}"), None),
            };
            match backoff.ended(code, Instant::now(), jitter()) {
                Verdict::GiveUp => return Err(self.refusal(code, how)),
                Verdict::RestartAfter(wait) => {
                    observer(&DaemonEvent::Ended { daemon, how, restart_in: tenths(wait) });
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = stopping(&mut goal) => return Ok(()),
                    }
                }
            }
        }
    }

    /// Why it cannot run as it is configured.
    fn refusal(&self, code: Option<i32>, how: String) -> DaemonError {
        let daemon = self.name;
        match (code.filter(|_| daemon == "keyd"), &self.passphrase) {
            (Some(LOCKED), None) => DaemonError::Sealed,
            (Some(LOCKED), Some(_)) => DaemonError::WrongPassphrase,
            _ => DaemonError::Refused { daemon, how },
        }
    }

    /// Starts it, with nothing of this program's terminal: what it prints is copied from a pipe.
    fn start(&self, lines: &Relay) -> io::Result<(Child, Printed)> {
        let passed = self.sockets.iter().map(|(name, fd)| (*name, fd));
        let passed =
            passed.chain(self.notify.stored().iter().map(|stored| (stored.name.as_str(), &stored.fd)));
        let (mut passed, fds): (Vec<_>, Vec<_>) = passed.map(|(name, fd)| (name.to_owned(), fd)).unzip();
        let pipes = self.piped.iter().map(|(_, content)| filled_pipe(&content.read()).map(OwnedFd::from));
        let pipes = pipes.collect::<io::Result<Vec<_>>>()?;
        passed.extend(self.piped.iter().map(|(name, _)| (*name).to_owned()));
        let launch = Launch {
            user: self.user,
            capability: self.capability,
            parent: std::process::id(),
            passed,
            program: self.program.clone().into(),
            arguments: self.arguments.clone(),
        };
        let (pipe, printed) = lines.pipe(self.name)?;
        let mut command = Command::new(&self.launcher);
        command
            .args(launch.into_arguments())
            .stdin(hand_over(self.passphrase.as_ref())?)
            .stdout(pipe.try_clone()?)
            .stderr(pipe)
            .kill_on_drop(true)
            .env("NOTIFY_SOCKET", self.notify.path())
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        if let Some(format) = self.log_format {
            command.env(logging::FORMAT_VARIABLE, format);
        }
        let mappings: io::Result<Vec<_>> = (LISTEN_FD..)
            .zip(fds.into_iter().chain(&pipes))
            .map(|(child_fd, fd)| Ok(FdMapping { parent_fd: fd.try_clone()?, child_fd }))
            .collect();
        command.fd_mappings(mappings?).map_err(io::Error::other)?;
        // The command holds the writing end until it is dropped, which must not outlive the process.
        let child = command.spawn()?;
        Ok((child, printed))
    }
}

/// How long a daemon that works has said nothing.
struct Silence {
    parts: Interval,
    /// Parts of [`WATCHDOG`] since it was heard; none before it works, and once it ends.
    passed: Option<u32>,
}

impl Silence {
    fn new() -> Self {
        let mut parts = interval(WATCHDOG / PARTS);
        parts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { parts, passed: None }
    }

    /// The daemon has said something.
    fn heard(&mut self, received: &Result<Notification, Refusal>) {
        if let Ok(notification) = received {
            if notification.stopping {
                // What it finishes then may take as long as it needs.
                self.passed = None;
            } else if notification.ready || notification.watchdog {
                self.passed = Some(0);
            }
        }
    }

    /// Returns, once, when the daemon has been silent too long.
    async fn too_long(&mut self) {
        loop {
            self.parts.tick().await;
            if let Some(passed) = &mut self.passed {
                *passed += 1;
                if *passed > PARTS {
                    self.passed = None;
                    return;
                }
            }
        }
    }
}

/// A standard input with a passphrase in it, or none.
///
/// # Errors
/// If there is no pipe to be had.
pub(crate) fn hand_over(passphrase: Option<&Passphrase>) -> io::Result<Stdio> {
    let Some(passphrase) = passphrase else { return Ok(Stdio::null()) };
    Ok(filled_pipe(passphrase.expose())?.into())
}

/// What a pipe has room for unless more is asked for, bytes (pipe(7)).
const PIPE_ROOM: usize = 64 * 1024;

/// The reading end of a pipe that holds this and nothing else. It has room for that, so that nothing waits for the reader.
///
/// # Errors
/// If there is no such pipe to be had.
pub(crate) fn filled_pipe(content: &[u8]) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    if content.len() > PIPE_ROOM {
        fcntl_setpipe_size(&writer, content.len())?;
    }
    writer.write_all(content)?;
    Ok(reader)
}

fn note(daemon: &'static str, received: Result<Notification, Refusal>, observer: &Observer) {
    if let Err(refusal) = received {
        observer(&DaemonEvent::Refused { daemon, what: refusal.to_string() });
    }
}

/// Returns when the daemon shall not run any more.
async fn stopping(goal: &mut watch::Receiver<Goal>) {
    // Without anybody left to say what it shall do, it shall not run either.
    let _ = goal.wait_for(|goal| *goal != Goal::Run).await;
}

/// Returns when the daemon shall read its configuration again.
async fn hung_up(hangup: &mut Option<watch::Receiver<()>>) {
    let came = match hangup {
        Some(hangup) => hangup.changed().await.is_ok(),
        None => false,
    };
    if !came {
        std::future::pending::<()>().await;
    }
}

/// The number of a process that has not been waited for, so that it is still its own.
fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
}

/// Asks the process to stop, and ends it if it does not in time or shall not have any.
async fn stop(
    child: &mut Child,
    stop_signal: Signal,
    goal: &mut watch::Receiver<Goal>,
    deadline: Duration,
) -> io::Result<ExitStatus> {
    if let Some(pid) = pid(child).filter(|_| *goal.borrow() != Goal::Kill) {
        let _ = kill(pid, stop_signal);
        let in_time = tokio::select! {
            status = timeout(deadline, child.wait()) => status.ok(),
            _ = goal.wait_for(|goal| *goal == Goal::Kill) => None,
        };
        if let Some(status) = in_time {
            return status;
        }
    }
    child.start_kill()?;
    child.wait().await
}

fn ended(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => describe(*status),
        Err(error) => format!("cannot be watched: {error}"),
    }
}

fn jitter() -> f64 {
    // Without randomness the waits are merely less spread.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / f64::from(u32::MAX)
}

fn tenths(wait: Duration) -> f64 {
    (wait.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(set: impl FnOnce(&mut Notification)) -> Result<Notification, Refusal> {
        let mut notification = Notification::default();
        set(&mut notification);
        Ok(notification)
    }

    /// Whether the silence is too long within a time.
    async fn is_too_long(silence: &mut Silence, within: Duration) -> bool {
        timeout(within, silence.too_long()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_works_and_falls_silent_has_hung() {
        let mut silence = Silence::new();
        // One that starts may take its time, and only the daemon itself is heard.
        silence.heard(&notification(|told| told.status = Some("waits".to_owned())));
        assert!(!is_too_long(&mut silence, WATCHDOG * 10).await);
        silence.heard(&notification(|told| told.ready = true));
        for _ in 0..10 {
            assert!(!is_too_long(&mut silence, WATCHDOG / 2).await);
            silence.heard(&notification(|told| told.watchdog = true));
        }
        silence.heard(&Err(Refusal::Stranger { pid: 7 }));
        assert!(!is_too_long(&mut silence, WATCHDOG - Duration::from_secs(1)).await);
        assert!(is_too_long(&mut silence, WATCHDOG / 2).await);
        assert!(!is_too_long(&mut silence, WATCHDOG * 10).await, "it is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_stops_may_be_silent() {
        let mut silence = Silence::new();
        silence.heard(&notification(|told| told.watchdog = true));
        silence.heard(&notification(|told| told.stopping = true));
        assert!(!is_too_long(&mut silence, WATCHDOG * 10).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_is_heard_after_this_process_was_stopped() {
        let mut silence = Silence::new();
        silence.heard(&notification(|told| told.watchdog = true));
        tokio::time::advance(WATCHDOG * 100).await;
        assert!(!is_too_long(&mut silence, WATCHDOG / 2).await);
    }
}
