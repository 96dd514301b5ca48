//! Namespaces around everything that the laboratory starts.
//!
//! A run consists of two processes of this program. The outer one makes new PID, mount, network and IPC
//! namespaces and starts the inner one as PID 1 of the new PID namespace. All routers, daemons, interfaces and
//! files of the run exist only in there: when the inner process ends, in whatever way, the kernel kills every
//! process of the namespace, and with the last of them mounts, files and interfaces are gone. The inner
//! process dies with the outer one: by a signal, and because a pipe between them breaks.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Pid, Uid, geteuid, getgid, getuid};

use crate::Failure;

/// Set for the inner process.
const INNER: &str = "I2PLAN_LAB_INNER";

/// Everything that a run writes is below this directory, on a file system of its own.
pub const DIRECTORY: &str = "/run/i2plan-lab";

/// Uids and gids that a run needs in its user namespace.
const IDS: u32 = 65_536;

/// The id of the inner process in the namespace of the outer one.
static OUTER_PID: OnceLock<String> = OnceLock::new();

/// The beginning of a command that runs another in the sandbox, from a terminal outside of it.
#[must_use]
pub fn entrance() -> String {
    format!("nsenter --all --target {}", OUTER_PID.get().map_or("PID", String::as_str))
}

/// Where the programs are during a run.
#[must_use]
pub fn bin() -> PathBuf {
    Path::new(DIRECTORY).join("bin")
}

/// Whether this process is the inner one.
#[must_use]
pub fn is_inner() -> bool {
    std::env::var_os(INNER).is_some()
}

/// Runs a program as the inner process, in namespaces of its own, and waits for it. The program must call
/// [`enter`] first.
///
/// # Errors
/// If this machine lacks something; the message is one line that says what.
pub fn run(program: &Path, args: &[OsString], variables: &[(&str, OsString)]) -> Result<ExitStatus, Failure> {
    check_tun()?;
    if !geteuid().is_root() {
        enter_user_namespace()?;
    }
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC;
    unshare(flags).map_err(|error| {
        Failure::new(format!(
            "cannot make namespaces ({error}): run as root, or where user namespaces are allowed"
        ))
    })?;
    // Blocked before the inner process exists, so that none is missed; it unblocks them for itself.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let mut command = Command::new(program);
    command.args(args).env(INNER, "1").stdin(Stdio::piped());
    for (name, value) in variables {
        command.env(name, value);
    }
    let mut inner = command.spawn()?;
    // Held until the end: the inner process ends when it breaks.
    let lifeline = inner.stdin.take();
    let status = wait(&mut inner, &signals)?;
    drop(lifeline);
    Ok(status)
}

/// Waits for the inner process and hands it signals: the first asks it to stop, the second kills it.
fn wait(inner: &mut Child, signals: &SigSet) -> Result<ExitStatus, Failure> {
    let pid = Pid::from_raw(i32::try_from(inner.id()).map_err(|_| Failure::new("an impossible process id"))?);
    let mut asked = false;
    loop {
        if let Some(status) = inner.try_wait()? {
            return Ok(status);
        }
        match signals.wait()? {
            Signal::SIGCHLD => {}
            // From the terminal the inner process gets it too; twice is no harm.
            _ if asked => kill(pid, Signal::SIGKILL)?,
            _ => {
                asked = true;
                kill(pid, Signal::SIGTERM)?;
            }
        }
    }
}

/// What the inner process does first: see to it that it ends with the outer one, and prepare the file systems.
///
/// # Errors
/// If the kernel refuses.
pub fn enter() -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    SigSet::all().thread_unblock()?;
    // Should the outer process have died before the line above, this pipe is broken already.
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    })?;
    // This /proc is still the outer one's.
    let outer = std::fs::read_link("/proc/self")?;
    OUTER_PID.get_or_init(|| outer.display().to_string());
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        none,
    )?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))?;
    std::fs::create_dir(DIRECTORY)?;
    std::fs::set_permissions(DIRECTORY, std::fs::Permissions::from_mode(0o755))?;
    if !tun_is_open() {
        // Some images have the device for root only. Here, and here alone, others may open it too.
        mount(
            Some("tmpfs"),
            "/dev/net",
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            Some("mode=0755"),
        )?;
        mknod("/dev/net/tun", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200))?;
        std::fs::set_permissions("/dev/net/tun", std::fs::Permissions::from_mode(0o666))?;
    }
    Ok(())
}

/// Prints the ends of the logs of everything that ran, to standard error: with the sandbox they are gone.
pub fn print_logs() {
    for log in logs(Path::new(DIRECTORY)) {
        eprintln!("--- the end of {}\n{}", log.display(), crate::tail(&log));
    }
}

/// The log files directly in this directory and in each node's.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let entries = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let own = entries(directory);
    let nodes = own.iter().filter(|path| path.is_dir()).flat_map(|path| entries(path));
    let all = nodes.chain(own.iter().cloned());
    let mut logs: Vec<_> = all.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

fn check_tun() -> Result<(), Failure> {
    let missing = "there is no /dev/net/tun: load the kernel's tun module (modprobe tun), or give this container the device";
    if !Path::new("/dev/net/tun").exists() {
        return Err(Failure::new(missing));
    }
    if !geteuid().is_root() && !tun_is_open() {
        return Err(Failure::new(
            "/dev/net/tun is for root only: run as root, or make it mode 0666 as udev does",
        ));
    }
    Ok(())
}

fn tun_is_open() -> bool {
    std::fs::metadata("/dev/net/tun").is_ok_and(|found| found.permissions().mode() & 0o006 == 0o006)
}

/// Makes a user namespace in which this user is root and has a range of users to give to daemons.
fn enter_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (getuid(), getgid());
    let subuid = range("/etc/subuid", uid)?;
    let subgid = range("/etc/subgid", uid)?;
    for tool in ["newuidmap", "newgidmap"] {
        if find(tool).is_none() {
            return Err(Failure::new(format!(
                "{tool} is missing: install it (package uidmap), or run as root"
            )));
        }
    }
    // The maps must be written from outside the namespace, so a shell waits there for the word to do it.
    let script = format!(
        "read -r word && newuidmap {0} 0 {uid} 1 1 {subuid} {1} && newgidmap {0} 0 {gid} 1 1 {subgid} {1}",
        std::process::id(),
        IDS - 1,
    );
    let mut mapper = Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).spawn()?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        Failure::new(format!("user namespaces are not allowed here ({error}): run as root, or allow them"))
    })?;
    if let Some(mut word) = mapper.stdin.take() {
        io::Write::write_all(&mut word, b"go\n")?;
    }
    if !mapper.wait()?.success() {
        return Err(Failure::new("newuidmap or newgidmap refused to map this user's ids: run as root"));
    }
    nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
    nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    Ok(())
}

/// The first id of this user's range in /etc/subuid or /etc/subgid.
fn range(file: &str, uid: Uid) -> Result<u32, Failure> {
    let missing = || {
        Failure::new(format!(
            "this user has no {} ids in {file}: add a line like `name:100000:65536` (usermod --add-subuids), or run as root",
            IDS - 1
        ))
    };
    let text = std::fs::read_to_string(file).map_err(|_| missing())?;
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    find_range(&text, name.as_deref(), uid.as_raw()).ok_or_else(missing)
}

fn find_range(text: &str, name: Option<&str>, uid: u32) -> Option<u32> {
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        let ours = Some(owner) == name || owner == uid;
        (ours && count >= IDS - 1).then_some(start)
    })
}

/// A program in the path.
pub(crate) fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(tool)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "alice:100000:65536\nbob:1:10\n1002:200000:65535\n";
        assert_eq!(find_range(text, Some("alice"), 1000), Some(100_000));
        assert_eq!(find_range(text, None, 1002), Some(200_000));
        // Too few.
        assert_eq!(find_range(text, Some("bob"), 1001), None);
        assert_eq!(find_range("nonsense", Some("alice"), 1000), None);
    }
}
