//! One daemon's process: started, watched, started again, stopped.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use i2plan_ipc::daemon::logging;
use i2plan_ipc::notification::Notification;
use i2plan_ipc::passphrase::Passphrase;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::backoff::{Backoff, LOCKED, Verdict};
use super::ear::{Ear, Refusal};
use super::event::{Event, Events, describe};
use super::launch::{LISTEN_FD, Launch};
use super::relay::{Printed, Relay};
use super::users::Account;
use crate::failure::Failure;

/// How long a daemon may take to stop by itself, beyond what it is granted for its last work.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Whether a daemon shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// It shall.
    Run,
    /// It shall stop, and may take its time.
    Stop,
    /// It shall stop at once.
    Kill,
}

/// A daemon to run.
#[derive(Debug)]
pub struct Daemon {
    /// `keyd`, `connector`, `meshd`, `tund`, `rpcd` or `routerd`.
    pub name: &'static str,
    /// Its executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Whom it runs as.
    pub user: Account,
    /// Whether it keeps CAP_NET_ADMIN.
    pub net_admin: bool,
    /// Its listening sockets with their names. They stay open here, so that connections wait while the daemon is restarted.
    pub sockets: Vec<(&'static str, OwnedFd)>,
    /// Where it tells how it does, and has descriptors kept from one process to the next.
    pub ear: Ear,
    /// The signal by which it is told that it shall end for good.
    pub farewell: Signal,
    /// How its log lines look, if the environment does not say.
    pub log_format: Option<&'static str>,
    /// What it finds on its standard input, at every start anew.
    pub passphrase: Option<Passphrase>,
    /// How long it may take to finish its work when it is asked to stop.
    pub last_work: Duration,
    /// This program, which launches it.
    pub launcher: PathBuf,
    /// Changes when it shall read its configuration again; none if it has none.
    pub hangup: Option<watch::Receiver<()>>,
}

impl Daemon {
    /// Keeps the daemon running until it shall stop.
    ///
    /// # Errors
    /// If it cannot be started as it is configured.
    pub async fn supervise(mut self, mut goal: watch::Receiver<Goal>, events: Events) -> Result<(), Failure> {
        let daemon = self.name;
        let mut backoff = Backoff::default();
        loop {
            backoff.started(Instant::now());
            let (how, code) = match self.start(&events.lines) {
                Ok((mut child, printed)) => {
                    if let Some(pid) = child.id() {
                        events.tell(&Event::Started { daemon, pid });
                    }
                    let number = child.id().unwrap_or(0);
                    let status = loop {
                        tokio::select! {
                            status = child.wait() => break status,
                            heard = self.ear.listen(number) => note(daemon, heard, &events),
                            () = stopping(&mut goal) => {
                                let time = STOP_DEADLINE + self.last_work;
                                let how = ended(&stop(&mut child, self.farewell, &mut goal, time).await);
                                printed.finish().await;
                                events.tell(&Event::Stopped { daemon, how });
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
                    while let Some(heard) = self.ear.hear(number) {
                        note(daemon, heard, &events);
                    }
                    printed.finish().await;
                    (ended(&status), status.ok().and_then(|status| status.code()))
                }
                Err(error) => (format!("cannot be started: {error}"), None),
            };
            match backoff.ended(code, Instant::now(), jitter()) {
                Verdict::GiveUp => return Err(self.refusal(code, &how)),
                Verdict::RestartAfter(wait) => {
                    events.tell(&Event::Ended { daemon, how, restart_in: tenths(wait) });
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = stopping(&mut goal) => return Ok(()),
                    }
                }
            }
        }
    }

    /// What to tell when it cannot run as it is configured.
    fn refusal(&self, code: Option<i32>, how: &str) -> Failure {
        let name = self.name;
        match (code.filter(|_| name == "keyd"), &self.passphrase) {
            (Some(LOCKED), None) => Failure::invalid("the node's keys are sealed with a passphrase")
                .with_hint("start the node with --ask-passphrase, or with --passphrase-fd N"),
            (Some(LOCKED), Some(_)) => Failure::invalid("the passphrase does not open the node's keys")
                .with_hint("start the node again with the right one; the keys are unchanged"),
            _ => Failure::invalid(format!("{name} cannot run: {how}"))
                .with_hint(format!("see the message of i2plan-{name} above")),
        }
    }

    /// Starts it, with nothing of this program's terminal: what it prints is copied from a pipe.
    fn start(&self, lines: &Relay) -> io::Result<(Child, Printed)> {
        let passed = self.sockets.iter().map(|(name, fd)| (*name, fd));
        let passed = passed.chain(self.ear.stored().iter().map(|stored| (stored.name.as_str(), &stored.fd)));
        let (names, fds): (Vec<_>, Vec<_>) = passed.unzip();
        let arguments: Vec<OsString> = Launch::arguments(
            self.user,
            self.net_admin,
            std::process::id(),
            &names,
            self.program.as_os_str(),
            &self.arguments,
        );
        let (pipe, printed) = lines.pipe(self.name)?;
        let mut command = Command::new(&self.launcher);
        command
            .args(arguments)
            .stdin(hand_over(self.passphrase.as_ref())?)
            .stdout(pipe.try_clone()?)
            .stderr(pipe)
            .kill_on_drop(true)
            .env("NOTIFY_SOCKET", self.ear.path());
        if let Some(format) = self.log_format {
            command.env(logging::FORMAT_VARIABLE, format);
        }
        let mappings: io::Result<Vec<_>> = (LISTEN_FD..)
            .zip(fds)
            .map(|(child_fd, fd)| Ok(FdMapping { parent_fd: fd.try_clone()?, child_fd }))
            .collect();
        command.fd_mappings(mappings?).map_err(io::Error::other)?;
        // The command holds the writing end until it is dropped, which must not outlive the process.
        let child = command.spawn()?;
        Ok((child, printed))
    }
}

/// A standard input with a passphrase in it, or none.
///
/// # Errors
/// If there is no pipe to be had.
pub fn hand_over(passphrase: Option<&Passphrase>) -> io::Result<Stdio> {
    let Some(passphrase) = passphrase else { return Ok(Stdio::null()) };
    Ok(filled_pipe(passphrase)?.into())
}

/// The reading end of a pipe that holds a passphrase and nothing else. A pipe has room for far more than the
/// longest, so nothing waits for the reader.
///
/// # Errors
/// If there is no pipe to be had.
pub fn filled_pipe(passphrase: &Passphrase) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(passphrase.expose())?;
    Ok(reader)
}

/// The executable of a daemon: beside this program, or where packages put it.
///
/// # Errors
/// If it is in neither place.
pub fn find_program(launcher: &std::path::Path, name: &OsStr) -> Result<PathBuf, Failure> {
    let beside = launcher.with_file_name(name);
    let packaged = std::path::Path::new("/usr/libexec/i2plan").join(name);
    match [&beside, &packaged].into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            let (name, beside, packaged) = (name.display(), beside.display(), packaged.display());
            Err(Failure::invalid(format!("{name} is missing: there is no {beside} and no {packaged}"))
                .with_hint("install all of i2plan's programs in one directory"))
        }
    }
}

fn note(daemon: &'static str, heard: Result<Notification, Refusal>, events: &Events) {
    if let Err(refusal) = heard {
        events.tell(&Event::Refused { daemon, what: refusal.to_string() });
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
    farewell: Signal,
    goal: &mut watch::Receiver<Goal>,
    deadline: Duration,
) -> io::Result<ExitStatus> {
    if let Some(pid) = pid(child).filter(|_| *goal.borrow() != Goal::Kill) {
        let _ = kill(pid, farewell);
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
