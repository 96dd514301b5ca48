//! A private I2P network and machines on it, on which a person runs nodes by hand.
//!
//! A machine is a network namespace, a PID namespace with an I2P router, and mount and UTS namespaces with a host name,
//! users for the daemons, and `/etc`, `/proc`, `/var/lib` and directories below `/run` of its own: what a node uses if it is
//! told nothing else.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use i2plan_ipc::paths;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};

use crate::node::{FIRST_UID, Lab};
use crate::process::current_program;
use crate::progress::Progress;
use crate::sandbox::{self, DIRECTORY, bin};
use crate::{Failure, netns};

/// The daemons' users.
const USERS: [&str; 8] = [
    "i2plan-keyd",
    "i2plan-meshd",
    "i2plan-tund",
    "i2plan-connector",
    "i2plan-rpc",
    "i2plan-web",
    "i2plan-names",
    "i2plan-routerd",
];

/// The group that may control a node.
const GROUP: &str = "i2plan";

/// Starts them in the sandbox, says how to get there, and leaves them running.
///
/// # Errors
/// If something does not start.
pub async fn run(machines: u8) -> Result<(), Failure> {
    let progress = Progress::new();
    progress.step("starting a private I2P network");
    let mut lab = Lab::start().await?;
    RUN.iter().try_for_each(std::fs::create_dir)?;
    let names: Vec<_> = (1..=machines).map(|number| format!("n{number}")).collect();
    let mut commands = Vec::new();
    for name in &names {
        progress.step(format!("starting the I2P router of {name}"));
        make(name).map_err(|failure| failure.during(&format!("making the machine {name}")))?;
        commands.push(lab.add_stranger(name).await?.command());
    }
    progress.done();
    let enter = sandbox::entrance();
    println!("An I2P network is running, with {machines} machines on it. Ctrl-C takes all of it down.");
    println!(
        "On each machine an I2P router has its SAM bridge at 127.0.0.1:7656, and i2planctl is in the path."
    );
    println!("In other terminals, as the same user, as often as you like:\n");
    for name in &names {
        println!("  {enter} {} __machine {name}", bin().join("lab").display());
    }
    println!("\nA router that was killed is started again, in the foreground, on its machine:\n");
    for (name, command) in names.iter().zip(commands) {
        println!("  {name}: {command}");
    }
    // Those who read this from a pipe wait for it.
    std::io::stdout().flush()?;
    std::future::pending().await
}

/// Where the sockets of a node and of interfaces with static peers are if they are told nothing else, and where `wg` looks
/// for a machine's interfaces.
const RUN: [&str; 3] = [paths::RUN_DIR, paths::STATIC_RUN_DIR, "/run/wireguard"];

/// Where a namespace of a machine can be entered; the network's is where [`netns`] keeps it.
pub(crate) fn path(machine: &str, namespace: &str) -> PathBuf {
    Path::new(DIRECTORY).join(machine).join(namespace)
}

fn make(machine: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(path(machine, "home"))?;
    let name = machine.to_owned();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
        sethostname(&name)?;
        for directory in ["/etc", "/var/lib"] {
            of_its_own(Path::new(directory), &name)?;
        }
        for directory in RUN {
            tmpfs(Path::new(directory))?;
        }
        add_users()?;
        // `i2planctl names hosts --write` follows a link, and would write into the host's.
        add_lines("/etc/hosts", std::iter::empty())?;
        std::fs::create_dir("/etc/i2plan")?;
        // Before there is another /proc.
        let namespaces = [File::open("/proc/thread-self/ns/mnt")?, File::open("/proc/thread-self/ns/uts")?];
        Ok::<_, Failure>((namespaces, start_init()?))
    });
    let ([mounts, uts], init) = thread.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked")))?;
    symlink(format!("/proc/{init}/ns/pid"), path(machine, "pid"))?;
    for (namespace, file) in [("mnt", mounts), ("uts", uts)] {
        // What keeps it alive is a descriptor of this process, which ends with all the others. A mount would be
        // made by chance alone: the kernel wants that the other mount namespace has the greater number, and gives
        // numbers to each CPU in batches.
        let kept = format!("/proc/{}/fd/{}", std::process::id(), file.into_raw_fd());
        symlink(kept, path(machine, namespace))?;
    }
    Ok(())
}

/// Starts the process that a PID namespace of its own lives as long as, and in which it is number 1. Returns its number
/// here.
fn start_init() -> Result<u32, Failure> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let mut init =
        Command::new(current_program()).arg("__init").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    if let Some(stdout) = init.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    if said.is_empty() { Err(Failure::new("a machine's first process has ended")) } else { Ok(init.id()) }
}

/// What a machine's first process does: it mounts a `/proc` that shows the machine's processes, and waits for those whose
/// parents have ended. Returns only if that fails.
///
/// # Errors
/// If the kernel refuses.
pub fn init() -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)?;
    println!("ready");
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        signals.wait()?;
    }
}

fn tmpfs(target: &Path) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some("mode=0755"))?)
}

/// Puts a directory in the place of another: what is in that can be seen, and what is written does not reach it.
fn of_its_own(directory: &Path, machine: &str) -> Result<(), Failure> {
    let name = directory.as_os_str().to_string_lossy().replace('/', "_");
    let host = path(machine, &format!("host{name}"));
    std::fs::create_dir(&host)?;
    mount(Some(directory), &host, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    tmpfs(directory)?;
    for entry in std::fs::read_dir(&host)? {
        let entry = entry?;
        // What an installed i2plan has there is no business of a machine's.
        if entry.file_name() == "i2plan" {
            continue;
        }
        // A link that is relative leads where it led only from its own place.
        let target = std::fs::read_link(entry.path()).unwrap_or_else(|_| entry.path());
        symlink(target, directory.join(entry.file_name()))?;
    }
    Ok(())
}

/// Adds the daemons' users to those of the host, unless they are there.
fn add_users() -> Result<(), Failure> {
    let ids = || USERS.into_iter().zip(FIRST_UID..);
    let passwd = ids().map(|(name, id)| (name, format!("{name}:x:{id}:{id}::/:/usr/sbin/nologin")));
    let gid = FIRST_UID + 9;
    let groups = ids()
        .map(|(name, id)| (name, format!("{name}:x:{id}:")))
        .chain([(GROUP, format!("{GROUP}:x:{gid}:i2plan-rpc"))]);
    add_lines("/etc/passwd", passwd)?;
    add_lines("/etc/group", groups)
}

fn add_lines<'a>(file: &str, lines: impl Iterator<Item = (&'a str, String)>) -> Result<(), Failure> {
    let mut text = std::fs::read_to_string(file)?;
    for (name, line) in lines {
        if !text.lines().any(|found| found.split(':').next() == Some(name)) {
            text = format!("{}\n{line}\n", text.trim_end());
        }
    }
    // The link to the host's file gives way.
    let _ = std::fs::remove_file(file);
    Ok(std::fs::write(file, text)?)
}

/// Runs a program on a machine, without one a shell, and waits for it.
///
/// # Errors
/// If there is no such machine, or the program cannot be run.
pub fn run_on(machine: &str, command: &[OsString]) -> Result<ExitStatus, Failure> {
    enter(machine).map_err(|failure| failure.during(&format!("entering {machine}")))?;
    let shell: OsString = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program, args) = command.split_first().unwrap_or((&shell, &[]));
    let mut search = bin().into_os_string();
    search.push(OsStr::new(":"));
    search.push(std::env::var_os("PATH").unwrap_or_default());
    let home = path(machine, "home");
    let mut command = Command::new(program);
    command.args(args).env("PATH", search).env("HOME", &home).current_dir(home);
    // A PID namespace is entered by children alone.
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot run {}: {error}", program.display())))?;
    // Not before there is a child, which would begin with them blocked; one that has ended meanwhile is seen below.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|_| Failure::new("an impossible process id"))?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        // What is typed at the terminal reaches the child without this process.
        if let signal @ (Signal::SIGTERM | Signal::SIGHUP) = signals.wait()? {
            kill(pid, signal)?;
        }
    }
}

fn enter(machine: &str) -> Result<(), Failure> {
    netns::enter(machine)?;
    // Opened before the other files are out of sight.
    let [uts, processes, mounts] =
        ["uts", "pid", "mnt"].map(|namespace| File::open(path(machine, namespace)));
    setns(uts?, CloneFlags::CLONE_NEWUTS)?;
    setns(processes?, CloneFlags::CLONE_NEWPID)?;
    Ok(setns(mounts?, CloneFlags::CLONE_NEWNS)?)
}
