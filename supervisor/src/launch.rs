//! The last steps of a daemon's process before it becomes the daemon.
//!
//! The supervisor starts its launcher, a program that calls [`intercept`] first, with the daemon's listening sockets
//! from descriptor 3 on. There the process gives up what the daemon shall not have, and then executes the daemon, so
//! that the supervisor watches the daemon itself.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::Mode;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::thread::{set_keep_capabilities, set_no_new_privs};
use thiserror::Error;

use crate::users::Account;

/// The first argument of a launcher.
const COMMAND: &str = "__launch";

/// Exit status of a launcher that could not become the daemon. It is that of a daemon with a wrong configuration: at the
/// first start the supervisor gives up, because this fails until somebody does something about it.
pub const EXIT_STATUS: u8 = 2;

/// The first descriptor that is passed (`sd_listen_fds(3)`).
pub(crate) const LISTEN_FD: i32 = 3;

/// Variables that reach a daemon, besides those that start with [`PREFIX`].
const VARIABLES: [&str; 9] = [
    "PATH",
    "LANG",
    "TZ",
    "NO_COLOR",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "RUST_BACKTRACE",
    "DEBUG_I2P",
    "WARNFAIL_I2P",
];

/// What i2plan's own variables start with.
const PREFIX: &str = "I2PLAN_";

/// Why a launcher could not become the daemon.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The arguments are not those that a supervisor gives.
    #[error("wrong arguments for {COMMAND}: {0}")]
    Arguments(String),
    /// The system refuses a step.
    #[error("cannot {step}: {reason}")]
    Step {
        /// What was to be done, such as "leave all groups".
        step: String,
        /// Why it was not.
        reason: String,
    },
    /// The daemon's capabilities are not to be had.
    #[error("cannot set the {set} capabilities: {reason}")]
    Capabilities {
        /// Which of the sets.
        set: &'static str,
        /// Why not.
        reason: String,
    },
    /// The supervisor ended meanwhile.
    #[error("the supervisor has ended")]
    SupervisorEnded,
    /// The daemon's user cannot execute the daemon.
    #[error("user {uid} cannot execute {}: {source}", program.display())]
    Execute {
        /// The user's id.
        uid: u32,
        /// The daemon's executable.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Becomes a daemon if the supervisor started this process for that, else does nothing.
///
/// The launcher ([`Programs::launcher`](crate::Programs::launcher)) calls this first in `main`, with its arguments as
/// they are, its own name among them: before it starts a thread, because privileges are given up for the calling thread
/// alone, and before it opens anything. If it fails, the launcher says why on standard error and exits with
/// [`EXIT_STATUS`].
///
/// # Errors
/// [`LaunchError`] if this process cannot become the daemon. Part of its privileges may be gone then.
pub fn intercept(arguments: impl IntoIterator<Item = OsString>) -> Result<(), LaunchError> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next().is_none_or(|first| first != COMMAND) {
        return Ok(());
    }
    let launch = Launch::parse(arguments).map_err(|error| LaunchError::Arguments(error.to_string()))?;
    prepare(&launch)?;
    Err(execute(launch))
}

/// How to become a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    /// As whom.
    pub(crate) user: Account,
    /// The one capability to keep.
    pub(crate) capability: Option<Capability>,
    /// Process id of the supervisor.
    pub(crate) parent: u32,
    /// The name of each descriptor that is passed: listening sockets, then what it has kept for the daemon.
    pub(crate) passed: Vec<String>,
    /// The daemon's executable.
    pub(crate) program: OsString,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
}

impl Launch {
    /// The arguments by which a launcher is told this.
    pub(crate) fn into_arguments(self) -> Vec<OsString> {
        let mut out: Vec<OsString> = vec![COMMAND.into()];
        out.push(format!("--uid={}", self.user.uid).into());
        out.push(format!("--gid={}", self.user.gid).into());
        out.extend(self.capability.map(|capability| format!("--capability={capability}").into()));
        out.push(format!("--parent={}", self.parent).into());
        out.extend(self.passed.iter().map(|name| format!("--passed={name}").into()));
        out.extend(["--".into(), self.program]);
        out.extend(self.arguments);
        out
    }

    /// Reads what follows [`COMMAND`].
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let (mut uid, mut gid, mut parent) = (None, None, None);
        let (mut capability, mut passed) = (None, Vec::new());
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("uid") => uid = Some(parser.value()?.parse()?),
                Long("gid") => gid = Some(parser.value()?.parse()?),
                Long("capability") => capability = Some(parser.value()?.parse()?),
                Long("parent") => parent = Some(parser.value()?.parse()?),
                Long("passed") => passed.push(parser.value()?.string()?),
                Value(program) => {
                    let missing = |option| format!("{option} is missing");
                    return Ok(Self {
                        user: Account {
                            uid: uid.ok_or_else(|| missing("--uid"))?,
                            gid: gid.ok_or_else(|| missing("--gid"))?,
                        },
                        capability,
                        parent: parent.ok_or_else(|| missing("--parent"))?,
                        passed,
                        program,
                        arguments: parser.raw_args()?.collect(),
                    });
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Err("no program is named".into())
    }
}

fn prepare(launch: &Launch) -> Result<(), LaunchError> {
    // Out of the terminal's reach: an interrupt typed there is for the supervisor, which stops the daemons in
    // their order, and a daemon that was taken over shall not type into the administrator's shell.
    setsid().map_err(|error| cannot("leave the terminal's session", error))?;
    std::env::set_current_dir("/").map_err(|error| cannot("change to /", error))?;
    umask(Mode::from_raw_mode(0o077));
    close_inherited(launch.passed.len())
        .map_err(|error| cannot("close what the supervisor's caller left open", error))?;
    // For keys, which shall not get into swap. A container's root may not be allowed to; the daemons say so.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    drop_privileges(launch)?;
    // Only now: a change of user clears it.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| cannot("ask to be ended with the supervisor", error))?;
    if getppid().map(Pid::as_raw_pid) != i32::try_from(launch.parent).ok() {
        return Err(LaunchError::SupervisorEnded);
    }
    Ok(())
}

/// Closes all descriptors but the standard ones and so many that are passed. This program opens its own close-on-exec,
/// but whoever started the supervisor may have left it others, which are root's and none of a daemon's business.
fn close_inherited(passed: usize) -> io::Result<()> {
    let first = LISTEN_FD + i32::try_from(passed).unwrap_or(0);
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for fd in open.into_iter().filter(|fd| *fd >= first) {
        // The listing's own descriptor is among them, and closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// From root to a user with no capabilities, or only the one that it needs.
///
/// The order matters: the bounding set needs CAP_SETPCAP and so comes before the change of user, and so does
/// the inheritable set, which may not hold more than the bounding set. The change of user empties the
/// permitted set unless told to keep it, and always the effective and the ambient one.
fn drop_privileges(launch: &Launch) -> Result<(), LaunchError> {
    let keep: CapsHashSet = launch.capability.into_iter().collect();
    for capability in caps::all().difference(&keep).copied() {
        // One that this kernel does not have is not in the set.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| cannot(&format!("give up {capability}"), error))?;
        }
    }
    let set = |set, name| {
        caps::set(None, set, &keep)
            .map_err(|error| LaunchError::Capabilities { set: name, reason: error.to_string() })
    };
    set(CapSet::Inheritable, "inheritable")?;
    set_keep_capabilities(launch.capability.is_some()).map_err(|error| cannot("keep capabilities", error))?;

    let (uid, gid) = (Uid::from_raw(launch.user.uid), Gid::from_raw(launch.user.gid));
    setgroups(&[]).map_err(|error| cannot("leave all groups", error))?;
    setresgid(gid, gid, gid).map_err(|error| cannot(&format!("change to group {gid}"), error))?;
    setresuid(uid, uid, uid).map_err(|error| cannot(&format!("change to user {uid}"), error))?;

    set(CapSet::Permitted, "permitted")?;
    set(CapSet::Effective, "effective")?;
    set(CapSet::Ambient, "ambient")?;
    set_no_new_privs(true).map_err(|error| cannot("give up new privileges", error))
}

fn execute(launch: Launch) -> LaunchError {
    let names = &launch.passed;
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| reaches_daemon(name)));
    if !names.is_empty() {
        command
            .env("LISTEN_PID", std::process::id().to_string())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
    }
    let source = command.exec();
    LaunchError::Execute { uid: launch.user.uid, program: launch.program.into(), source }
}

fn reaches_daemon(variable: &OsStr) -> bool {
    VARIABLES.iter().any(|name| variable == *name)
        || variable.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

fn cannot(step: &str, error: impl Display) -> LaunchError {
    LaunchError::Step { step: step.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_variables_reach_a_daemon() {
        for (name, reaches) in [
            ("PATH", true),
            ("I2PLAN_LOG", true),
            ("NOTIFY_SOCKET", true),
            ("LD_PRELOAD", false),
            ("HOME", false),
            ("XI2PLAN_", false),
            ("LISTEN_FDS", false),
        ] {
            assert_eq!(reaches_daemon(OsStr::new(name)), reaches, "{name}");
        }
    }

    fn launch() -> Launch {
        Launch {
            user: Account { uid: 1, gid: 2 },
            capability: Some(Capability::CAP_NET_ADMIN),
            parent: 3,
            passed: vec!["listener".to_owned(), "a".to_owned()],
            program: "/bin/d".into(),
            arguments: ["--store", "/x", "--json", "--"].map(OsString::from).to_vec(),
        }
    }

    #[test]
    fn arguments_read_back() {
        let mut line = launch().into_arguments().into_iter();
        assert_eq!(line.next().unwrap(), COMMAND);
        assert_eq!(Launch::parse(line).unwrap(), launch());
    }

    #[test]
    fn arguments_that_are_incomplete_or_unknown_are_refused() {
        let line = launch().into_arguments();
        for left_out in ["--uid=1", "--gid=2", "--parent=3", "/bin/d"] {
            let line = line.iter().skip(1).filter(|argument| *argument != left_out);
            // Without the program its first argument would be taken for it.
            let line = line.take_while(|argument| left_out != "/bin/d" || *argument != "--store");
            assert!(Launch::parse(line.cloned()).is_err(), "{left_out}");
        }
        assert!(Launch::parse(["--shell".into()].into_iter()).is_err());
    }

    #[test]
    fn a_process_with_other_arguments_is_left_alone() {
        for line in [&["program"][..], &["program", "up"], &["program", "up", COMMAND], &[]] {
            intercept(line.iter().map(OsString::from)).unwrap();
        }
    }
}
