//! How a test gets into the sandbox.
//!
//! A test cannot enter namespaces itself: its process runs other tests too. So it runs its own program again,
//! as the sandbox's inner process, to do just this test.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::i2p::kind::Routers;
use crate::node::PROGRAMS_VARIABLE;
use crate::{Failure, build, netns, sandbox};

/// The laboratory's program, for a test binary that is not it.
pub const PROGRAM_VARIABLE: &str = "I2PLAN_LAB_PROGRAM";

/// A test that waits for what never comes must fail rather than hang. On emissary's routers; on others it has
/// [longer](Routers::patience).
const DEADLINE: Duration = Duration::from_secs(600);

/// Says that a test is skipped, and why: past the harness, which shows nothing of a test that passes.
pub fn skip(name: &str, why: &Failure) {
    // Nobody is left to tell if that fails.
    let _ = io::stderr().write_all(format!("test {name} SKIPPED: {why}\n").as_bytes());
}

/// Runs `body` in the sandbox, on a network of its own. To be called by a test with its own full name, and with
/// the path of the `lab` program (`env!("CARGO_BIN_EXE_lab")`).
///
/// # Panics
/// If the body fails, or the sandbox cannot be made: the message says what is missing.
pub fn sandboxed(lab: &str, name: &str, body: impl AsyncFnOnce() -> Result<(), Failure>) {
    sandboxed_within(lab, name, DEADLINE, body);
}

/// The same for a test that takes longer than others: its deadline is this one.
///
/// # Panics
/// As [`sandboxed`].
pub fn sandboxed_within(
    lab: &str,
    name: &str,
    deadline: Duration,
    body: impl AsyncFnOnce() -> Result<(), Failure>,
) {
    if sandbox::is_inner() {
        let _logs = LogsOfPanics;
        let result =
            sandbox::enter().map_err(|failure| failure.during("entering the sandbox")).and_then(|()| {
                let deadline = deadline * Routers::from_env()?.patience();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    tokio::time::timeout(deadline, body()).await.unwrap_or_else(|_| {
                        let minutes = deadline.as_secs() / 60;
                        Err(Failure::new(format!("the test was not done after {minutes} minutes")))
                    })
                })
            });
        if let Err(failure) = result {
            panic!("{failure}");
        }
        return;
    }
    // More of them than the machine has cores for would make each other late.
    let alone = take_turns();
    let run = || {
        let programs =
            serde_json::to_string(&build::build()?).map_err(|error| Failure::new(error.to_string()))?;
        let test = std::env::current_exe()?;
        let mut command = Command::new(lab);
        command.arg("__sandbox").arg(test).args([
            name,
            "--exact",
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        Ok::<_, Failure>(command.env(PROGRAM_VARIABLE, lab).env(PROGRAMS_VARIABLE, programs).output()?)
    };
    let output = run();
    drop(alone);
    match output {
        Ok(output) => {
            // Through the test harness, which shows it if the test fails.
            print!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "the test failed in the sandbox ({})", output.status);
        }
        Err(failure) => panic!("{failure}"),
    }
}

/// How long an answer over TCP is waited for.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A connection to a port of a namespace's loopback. It blocks.
///
/// # Errors
/// If there is no such namespace, or nobody listens.
pub fn tcp(namespace: &str, port: u16) -> io::Result<TcpStream> {
    let connect = move || TcpStream::connect(("127.0.0.1", port)).map_err(Failure::from);
    let stream =
        netns::within(namespace, connect).map_err(|failure| io::Error::other(failure.to_string()))?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    Ok(stream)
}

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Its status line and headers.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl HttpAnswer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends a request to a port of a namespace's loopback, and reads to the end of the connection. It blocks.
///
/// # Errors
/// If nobody listens, or the answer is not HTTP.
pub fn http(namespace: &str, port: u16, request: &str) -> io::Result<HttpAnswer> {
    let mut stream = tcp(namespace, port)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("{answer:?}")))?;
    Ok(HttpAnswer { status, head: head.to_owned(), body: body.to_owned() })
}

/// Prints the logs of a run that ends in a panic, as a failed test does.
struct LogsOfPanics;

impl Drop for LogsOfPanics {
    fn drop(&mut self) {
        if std::thread::panicking() {
            sandbox::print_logs();
        }
    }
}

/// Waits until fewer than two other tests of this checkout are in the sandbox: their routers and daemons wait more than
/// they work. Files that are there anyway carry the locks.
fn take_turns() -> Option<Flock<File>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    loop {
        for place in ["Cargo.toml", "src/lib.rs"] {
            match Flock::lock(File::open(root.join(place)).ok()?, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Some(lock),
                Err((_, Errno::EWOULDBLOCK)) => {}
                Err(_) => return None,
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
