//! `i2plan-webd` as a program: how it ends where it is switched off, and pages at a unix socket.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use i2plan_ipc::Role;
use i2plan_ipc::api::webd::{CreateLink, Link, WebdApi};
use i2plan_ipc::client::{Client, Endpoint};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_i2plan-webd");

/// Its unit.
const UNIT: &str = include_str!("../../packaging/systemd/i2plan-webd.service");

/// Passes standard input on as systemd passes a listening socket.
const ACTIVATE: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\"";

fn switched_off(mut command: Command) -> Output {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
    command.env("I2PLAN_WEB_ENABLED", "false").output().unwrap()
}

#[test]
fn systemd_takes_the_end_for_final_where_it_is_switched_off() {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null());
    let output = switched_off(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("web.enabled is false"), "{said}");
    let status = output.status.code().unwrap();
    assert_eq!(status, 3);
    assert!(UNIT.lines().any(|line| line == format!("RestartPreventExitStatus={status}")));
}

#[test]
fn connections_that_wait_are_closed_where_it_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut waiting = UnixStream::connect(&path).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ACTIVATE, PROGRAM]).stdin(OwnedFd::from(listener.try_clone().unwrap()));
    let output = switched_off(command);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    // The socket itself is still open, as systemd has it.
    waiting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
}

#[test]
fn connections_to_the_socket_of_the_pages_are_closed_where_it_is_switched_off() {
    const ACTIVATE_TWO: &str = "exec 3<&0 4<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:i2plan-webd.socket exec \"$0\"";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut waiting = UnixStream::connect(&path).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ACTIVATE_TWO, PROGRAM]).stdin(OwnedFd::from(listener.try_clone().unwrap()));
    assert_eq!(switched_off(command).status.code(), Some(3));
    waiting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
}

/// One that serves, and ends with this.
struct Webd {
    process: Child,
    dir: TempDir,
}

impl Drop for Webd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Webd {
    /// Starts it, without a `meshd`, and waits until it serves.
    fn start(dir: TempDir, listen: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null()).stderr(Stdio::piped());
        command.args(["--listen".as_ref(), dir.path().join("web.sock").as_os_str()]);
        command.args(["--meshd-socket".as_ref(), dir.path().join("meshd.sock").as_os_str()]);
        command.env("I2PLAN_WEB_ENABLED", "true").env("I2PLAN_WEB_LISTEN", listen);
        let mut process = command.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let started = log.by_ref().map_while(Result::ok).any(|line| line.contains("web pages"));
        // What it says after that is read, too, or it would stop.
        std::thread::spawn(move || log.for_each(drop));
        let webd = Self { process, dir };
        assert!(started, "it does not serve");
        webd
    }

    fn link(&self) -> Link {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::resolved(&self.dir.path().join("web.sock"), Role::Webd);
            let mut webd = Client::<WebdApi>::connect(endpoint, Role::Client).await.unwrap();
            webd.call(CreateLink { control: true }).await.unwrap()
        })
    }
}

/// The answers to requests at a unix socket.
fn ask(socket: &Path, requests: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    String::from_utf8_lossy(&answers).into_owned()
}

fn get(path: &str, host: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
}

fn last(path: &str, host: &str, headers: &str) -> String {
    get(path, host, &format!("{headers}Connection: close\r\n"))
}

#[test]
fn pages_at_a_unix_socket_have_links_hosts_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    let socket: PathBuf = dir.path().join("http.sock");
    // One that nobody listens at any more is in its place.
    drop(UnixListener::bind(&socket).unwrap());
    let webd = Webd::start(dir, &format!("unix:{}", socket.display()));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let status = |path: &str, host: &str, headers: &str| {
        let answer = ask(&socket, &last(path, host, headers));
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.unwrap_or(0), answer)
    };
    for host in ["localhost:8080", "127.0.0.1:9000", "[::1]", "localhost"] {
        assert_eq!(status("/", host, "").0, 401, "{host}");
    }
    for host in ["evil.example:8080", "evil.example", "192.0.2.1:8080", "localhost.evil.example"] {
        assert_eq!(status("/", host, "").0, 403, "{host}");
    }

    let link = webd.link();
    assert_eq!(link.socket.as_deref(), socket.to_str());
    let path = link.url.expose().strip_prefix("http://localhost:8080").unwrap();
    let (opened, answer) = status(path, "localhost:8080", "");
    assert_eq!(opened, 303, "{answer}");
    let (_, cookie) = answer.split_once("set-cookie: ").unwrap();
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert!(cookie.starts_with("Cookie: i2plan-8080="), "{cookie}");
    assert_eq!(status(path, "localhost:8080", "").0, 403, "a link is good once");
    // With the session, the node is asked, which is not there.
    assert_eq!(status("/peers", "localhost:8080", &cookie).0, 502);
    assert_eq!(status("/peers", "localhost:9000", &cookie).0, 401, "it is the cookie of another node");
    // Sessions are held to what they may ask a second.
    let flood =
        get("/live-not", "localhost:8080", &cookie).repeat(99) + &last("/", "localhost:8080", &cookie);
    assert!(ask(&socket, &flood).contains("HTTP/1.1 429 "));
}
