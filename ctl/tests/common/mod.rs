//! What the tests of the program share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_i2planctl");

/// A directory that every user can pass through.
pub(crate) fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A copy of the program that every user can execute, wherever the original is.
pub(crate) fn copy_program(dir: &Path) -> PathBuf {
    let copy = dir.join("i2planctl");
    copy_executable(Path::new(PROGRAM), &copy);
    copy
}

/// Copies in another process: a file that this one has open for writing while another test starts a process
/// cannot be executed until that process has closed it.
pub(crate) fn copy_executable(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "0755"]).args([from, to]).status().unwrap();
    assert!(status.success());
}

/// The program with nothing of the caller's environment that could change what it does.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("I2PLAN_")) {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").env("LANG", "C.UTF-8");
    command
}

pub(crate) fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root: it starts processes of other users");
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
