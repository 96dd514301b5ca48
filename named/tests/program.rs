//! `i2plan-named` as a program: how it ends where it is switched off, or has no node to ask.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_i2plan-named");

/// Its unit.
const UNIT: &str = include_str!("../../packaging/systemd/i2plan-named.service");

/// Runs it as another user than root, as which it does not start.
fn run(enabled: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("/usr/bin/setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=54329", "--regid=54329", "--clear-groups"]);
    }
    command.arg(PROGRAM).args(arguments).env_clear().env("HOME", "/nonexistent");
    command.env("I2PLAN_NAMES_ENABLED", enabled).output().unwrap()
}

#[test]
fn systemd_takes_the_end_for_final_where_it_is_switched_off() {
    let output = run("false", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("names.enabled is false"), "{said}");
    let status = output.status.code().unwrap();
    assert_eq!(status, 3);
    assert!(UNIT.lines().any(|line| line == format!("RestartPreventExitStatus={status}")));
}
