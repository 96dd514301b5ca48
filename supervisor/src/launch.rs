//! The last steps of a daemon's process before it becomes the daemon.
//!
//! The supervisor starts `i2planctl __launch …` in the daemon's place, with its listening sockets from descriptor 3 on. It gives up what the daemon shall not have, and then executes the daemon in the same process,
//! so that the supervisor watches the daemon itself.

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

use super::users::Account;
use crate::failure::Failure;

/// The hidden command's name.
pub const COMMAND: &str = "__launch";

/// The first descriptor that is passed (`sd_listen_fds(3)`).
pub const LISTEN_FD: i32 = 3;

/// Variables that reach a daemon, besides those that start with [`PREFIX`].
const VARIABLES: [&str; 8] =
    ["PATH", "LANG", "TZ", "NO_COLOR", "NOTIFY_SOCKET", "RUST_BACKTRACE", "DEBUG_I2P", "WARNFAIL_I2P"];

/// What i2plan's own variables start with.
const PREFIX: &str = "I2PLAN_";

/// How to become a daemon.
#[derive(Debug, clap::Args)]
pub struct Launch {
    /// User id.
    #[arg(long)]
    uid: u32,
    /// Group id.
    #[arg(long)]
    gid: u32,
    /// Keep CAP_NET_ADMIN, and nothing else.
    #[arg(long)]
    net_admin: bool,
    /// Process id of the supervisor.
    #[arg(long)]
    parent: i32,
    /// The name of each descriptor that is passed: listening sockets, then what it has kept for the daemon.
    #[arg(long = "passed")]
    passed: Vec<String>,
    /// The daemon's executable.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Launch {
    /// The arguments by which a copy of this program is told to become `program`.
    #[must_use]
    pub fn arguments(
        user: Account,
        net_admin: bool,
        parent: u32,
        passed: &[&str],
        program: &OsStr,
        arguments: &[OsString],
    ) -> Vec<OsString> {
        let mut out: Vec<OsString> = vec![COMMAND.into()];
        out.push(format!("--uid={}", user.uid).into());
        out.push(format!("--gid={}", user.gid).into());
        if net_admin {
            out.push("--net-admin".into());
        }
        out.push(format!("--parent={parent}").into());
        out.extend(passed.iter().map(|name| format!("--passed={name}").into()));
        out.push("--".into());
        out.push(program.to_owned());
        out.extend_from_slice(arguments);
        out
    }
}

/// Becomes the daemon; returns only if it cannot.
#[must_use]
pub fn run(launch: Launch) -> Failure {
    // As for a daemon with a wrong configuration: at the first start the supervisor gives up, because this
    // goes on failing until somebody does something about it.
    prepare(&launch).map_or_else(|failure| failure, |()| execute(&launch))
}

fn prepare(launch: &Launch) -> Result<(), Failure> {
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
    if getppid().map(Pid::as_raw_pid) != Some(launch.parent) {
        return Err(Failure::usage("the supervisor has ended"));
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
fn drop_privileges(launch: &Launch) -> Result<(), Failure> {
    let mut keep = CapsHashSet::new();
    if launch.net_admin {
        keep.insert(Capability::CAP_NET_ADMIN);
    }
    for capability in caps::all().difference(&keep).copied() {
        // One that this kernel does not have is not in the set.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| cannot(&format!("give up {capability}"), error))?;
        }
    }
    let set = |set, what| {
        caps::set(None, set, &keep).map_err(|error| {
            cannot(&format!("set the {what} capabilities"), error)
                .with_hint("i2plan needs CAP_NET_ADMIN, which a container's root may lack")
        })
    };
    set(CapSet::Inheritable, "inheritable")?;
    set_keep_capabilities(launch.net_admin).map_err(|error| cannot("keep capabilities", error))?;

    let (uid, gid) = (Uid::from_raw(launch.uid), Gid::from_raw(launch.gid));
    setgroups(&[]).map_err(|error| cannot("leave all groups", error))?;
    setresgid(gid, gid, gid).map_err(|error| cannot(&format!("change to group {gid}"), error))?;
    setresuid(uid, uid, uid).map_err(|error| cannot(&format!("change to user {uid}"), error))?;

    set(CapSet::Permitted, "permitted")?;
    set(CapSet::Effective, "effective")?;
    set(CapSet::Ambient, "ambient")?;
    set_no_new_privs(true).map_err(|error| cannot("give up new privileges", error))
}

fn execute(launch: &Launch) -> Failure {
    let Some((program, arguments)) = launch.command.split_first() else {
        return Failure::usage("no program is named");
    };
    let names = &launch.passed;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(std::env::vars_os().filter(|(name, _)| reaches_daemon(name)));
    if !names.is_empty() {
        command
            .env("LISTEN_PID", std::process::id().to_string())
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
    }
    let error = command.exec();
    let program = PathBuf::from(program);
    Failure::usage(format!("user {} cannot execute {}: {error}", launch.uid, program.display()))
        .with_hint("install i2plan's programs where every user can reach and execute them")
}

fn reaches_daemon(variable: &OsStr) -> bool {
    VARIABLES.iter().any(|name| variable == *name)
        || variable.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

fn cannot(what: &str, error: impl Display) -> Failure {
    Failure::usage(format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

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

    #[test]
    fn arguments_read_back() {
        let arguments: Vec<OsString> = ["--store", "/x", "--json", "--"].map(OsString::from).to_vec();
        let line = Launch::arguments(
            Account { uid: 1, gid: 2 },
            true,
            3,
            &["listener", "a"],
            OsStr::new("/bin/d"),
            &arguments,
        );
        let args = Args::parse_from(std::iter::once(OsString::from("i2planctl")).chain(line));
        let Command::Launch(launch) = args.command else { panic!("another command") };
        assert_eq!((launch.uid, launch.gid, launch.net_admin, launch.parent), (1, 2, true, 3));
        assert_eq!(launch.passed, ["listener", "a"]);
        assert!(!args.json);
        assert_eq!(launch.command[0], "/bin/d");
        assert_eq!(launch.command[1..], arguments[..]);
    }
}
