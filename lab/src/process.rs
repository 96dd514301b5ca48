//! Processes of the laboratory.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::sandbox::bin;
use crate::{Failure, machines, netns};

/// A process to be.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<OsString>,
    namespace: Option<String>,
    log: Option<PathBuf>,
    new_group: bool,
    reads: bool,
    variables: Vec<(&'static str, String)>,
}

/// What a process left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Spawn {
    /// A program with arguments.
    #[must_use]
    pub fn new(program: &Path, args: impl IntoIterator<Item = OsString>) -> Self {
        Self {
            program: program.to_owned(),
            args: args.into_iter().collect(),
            namespace: None,
            log: None,
            new_group: true,
            reads: false,
            variables: Vec::new(),
        }
    }

    /// Another process of this program.
    #[must_use]
    pub fn this_program(args: impl IntoIterator<Item = OsString>) -> Self {
        Self::new(&current_program(), args)
    }

    /// Runs it in a node's network namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: Option<&str>) -> Self {
        self.namespace = namespace.map(ToOwned::to_owned);
        self
    }

    /// Appends what it writes on standard error, and on standard output unless that is read, to a file.
    #[must_use]
    pub fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Leaves it in this program's process group, for one that makes itself a session.
    #[must_use]
    pub fn same_group(mut self) -> Self {
        self.new_group = false;
        self
    }

    /// Lets it read what [`Child::say`] says.
    #[must_use]
    pub fn reads(mut self) -> Self {
        self.reads = true;
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn command(&self) -> Result<Command, Failure> {
        let mut command = match &self.namespace {
            None => Command::new(&self.program),
            Some(namespace) => {
                // Another process of this program enters the namespace and becomes the program.
                let mut command = Command::new(current_program());
                command.arg("__in").arg(namespace).arg(&self.program);
                command
            }
        };
        let stdin = if self.reads { Stdio::piped() } else { Stdio::null() };
        command.args(&self.args).stdin(stdin).kill_on_drop(true);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Ctrl-C at a terminal is for the laboratory, which then takes its processes down in order.
        if self.new_group {
            command.process_group(0);
        }
        if let Some(log) = &self.log {
            let file = File::options().append(true).create(true).open(log)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        Ok(command)
    }

    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(self) -> Result<Child, Failure> {
        let child = spawn(&mut self.command()?, self.namespace.as_deref())?;
        Ok(Child { pid: child.id().unwrap_or(0), child, lines: None })
    }

    /// Starts it, to read what it prints.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn wait_for_line(self) -> Result<Child, Failure> {
        let mut child = spawn(self.command()?.stdout(Stdio::piped()), self.namespace.as_deref())?;
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Child { pid: child.id().unwrap_or(0), child, lines })
    }

    /// Runs it to its end with this input.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn output(self, input: &str) -> Result<Output, Failure> {
        let mut command = self.command()?;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input has its reasons.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}

/// Starts a process; where the node is a machine with a PID namespace of its own, in that.
fn spawn(command: &mut Command, namespace: Option<&str>) -> Result<tokio::process::Child, Failure> {
    let Some(machine) = namespace.and_then(|name| File::open(machines::path(name, "pid")).ok()) else {
        return Ok(command.spawn()?);
    };
    let own = File::open("/proc/thread-self/ns/pid")?;
    setns(machine, CloneFlags::CLONE_NEWPID)?;
    let child = command.spawn();
    // Without this the thread could start no other.
    setns(own, CloneFlags::CLONE_NEWPID)?;
    Ok(child?)
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    child: tokio::process::Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line that it prints.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn first_line(&mut self) -> Result<String, Failure> {
        let lines = self.lines.as_mut().ok_or_else(|| Failure::new("its output goes to a file"))?;
        lines.next_line().await?.ok_or_else(|| Failure::new("it ended without a word"))
    }

    /// The next line that it prints, as JSON.
    ///
    /// # Errors
    /// If it has ended or prints something else.
    pub async fn next_json<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let line = self.first_line().await?;
        serde_json::from_str(&line)
            .map_err(|error| Failure::new(format!("{line:?} was not expected ({error})")))
    }

    /// Says a line to it.
    ///
    /// # Errors
    /// If it does not [read](Spawn::reads).
    pub async fn say(&mut self, line: &str) -> Result<(), Failure> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Failure::new("it reads nothing"))?;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        Ok(self.child.wait().await?)
    }

    /// Kills it, with no chance to say that it leaves.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn stop(&mut self) -> Result<ExitStatus, Failure> {
        if self.child.try_wait()?.is_none() {
            signal(self.pid, Signal::SIGTERM)?;
        }
        Ok(self.child.wait().await?)
    }
}

/// Sends a signal to a process of this laboratory.
///
/// # Errors
/// If there is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    let pid = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 1)
        .ok_or_else(|| Failure::new("not a process to signal"))?;
    Ok(kill(Pid::from_raw(pid), signal)?)
}

/// Becomes another program, in a network namespace. Returns only if that fails.
#[must_use]
pub fn become_in(namespace: &str, program: &OsString, args: &[OsString]) -> Failure {
    if let Err(failure) = netns::enter(namespace) {
        return failure;
    }
    let error = std::process::Command::new(program).args(args).exec();
    Failure::new(format!("cannot run {}: {error}", program.display()))
}

/// This program or, in a test, the laboratory's program.
pub(crate) fn current_program() -> PathBuf {
    // Where it is installed it has a name by which people recognize it.
    let installed = Some(bin().join("lab")).filter(|program| program.exists());
    let named = std::env::var_os("I2PLAN_LAB_PROGRAM").map(PathBuf::from);
    named.or(installed).unwrap_or_else(|| "/proc/self/exe".into())
}
