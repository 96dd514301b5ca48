//! `i2plan-webd` as a program: how it ends where it is switched off.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
