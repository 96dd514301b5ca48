//! What happens to the daemons.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use i2plan_ipc::daemon::panics::EXIT_STATUS;
use i2plan_ipc::daemon::program::RESTART;
use nix::sys::signal::Signal;
use serde::Serialize;

/// Something that happened to a daemon. As text it is a line for a log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DaemonEvent {
    /// A daemon was started.
    Started {
        /// Which.
        daemon: &'static str,
        /// Its process id.
        pid: u32,
    },
    /// A daemon ended that should not have.
    Ended {
        /// Which.
        daemon: &'static str,
        /// How.
        how: String,
        /// Seconds until it is started again.
        restart_in: f64,
    },
    /// A daemon that worked says nothing any more, and is killed.
    Hung {
        /// Which.
        daemon: &'static str,
        /// Seconds since it was heard.
        silent_for: u64,
    },
    /// A daemon was stopped.
    Stopped {
        /// Which.
        daemon: &'static str,
        /// How it ended.
        how: String,
    },
    /// A daemon asked for something that it did not get.
    Refused {
        /// Which.
        daemon: &'static str,
        /// What, and why not.
        what: String,
    },
}

impl std::fmt::Display for DaemonEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started { daemon, pid } => write!(f, "{daemon} started, pid {pid}"),
            Self::Ended { daemon, how, restart_in } => {
                write!(f, "{daemon} {how}; starting it again in {restart_in:.1} s")
            }
            Self::Hung { daemon, silent_for } => {
                write!(f, "{daemon} hangs: it has been silent for {silent_for} s; killing it")
            }
            Self::Refused { daemon, what } => write!(f, "{daemon}: {what}"),
            Self::Stopped { daemon, how } => write!(f, "{daemon} stopped: it {how}"),
        }
    }
}

/// How a process ended.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(RESTART) => "asks to be started again".to_owned(),
        (Some(code), _) if code == i32::from(EXIT_STATUS) => format!("panicked (exit code {code})"),
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("an unknown signal", Signal::as_str);
            let meaning = match Signal::try_from(number) {
                Ok(Signal::SIGSYS) => ": it made a system call that its sandbox forbids",
                Ok(Signal::SIGABRT) => ": it found a fault in itself, or ran out of memory",
                _ => "",
            };
            format!("was killed by {name} ({number}){meaning}")
        }
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named() {
        let status = |raw| describe(ExitStatus::from_raw(raw));
        assert_eq!(status(3 << 8), "exited with code 3");
        assert_eq!(status(75 << 8), "asks to be started again");
        assert_eq!(status(101 << 8), "panicked (exit code 101)");
        assert_eq!(status(9), "was killed by SIGKILL (9)");
        assert_eq!(status(31), "was killed by SIGSYS (31): it made a system call that its sandbox forbids");
        assert_eq!(status(64), "was killed by an unknown signal (64)");
    }

    #[test]
    fn events_are_one_line() {
        let event =
            DaemonEvent::Ended { daemon: "tund", how: "exited with code 1".to_owned(), restart_in: 0.2 };
        assert_eq!(event.to_string(), "tund exited with code 1; starting it again in 0.2 s");
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"event":"ended","daemon":"tund","how":"exited with code 1","restart_in":0.2}"#
        );
    }
}
