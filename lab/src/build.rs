//! Builds the daemons and finds what was built.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::Failure;

/// The programs of a node, each in a package of the same name.
pub const PROGRAMS: [&str; 9] = [
    "i2planctl",
    "i2plan-keyd",
    "i2plan-connector",
    "i2plan-meshd",
    "i2plan-tund",
    "i2plan-rpcd",
    "i2plan-webd",
    "i2plan-named",
    "i2plan-routerd",
];

/// The profile in which this program was built.
pub const PROFILE: &str = env!("LAB_PROFILE");

/// How often it is said how far the build is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Builds the programs of a node, in the profile in which this program was built. Returns where they are.
///
/// The laboratory is selected with them, though none of its programs is: cargo unites the features that the selected
/// packages ask of a dependency, and with other features than the laboratory's it would compile most of it again.
///
/// # Errors
/// If cargo is not there or the build fails; what cargo says goes to standard error.
pub fn build() -> Result<BTreeMap<String, PathBuf>, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(["build", "--message-format=json-render-diagnostics", "--profile", PROFILE])
        .args(["--package", env!("CARGO_PKG_NAME")]);
    // What cargo tells the program that it runs is not for another cargo: build scripts that look at it would
    // run anew, and with them half of the build.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_", "OUT_DIR"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    for program in PROGRAMS {
        command.args(["--package", program, "--bin", program]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
        Failure::new(format!("cannot run cargo to build the daemons ({error}): install a Rust toolchain"))
    })?;
    let found = match child.stdout.take() {
        Some(stdout) => executables(BufReader::new(stdout))?,
        None => BTreeMap::new(),
    };
    if !child.wait()?.success() {
        return Err(Failure::new("the daemons cannot be built; see cargo's messages above"));
    }
    for program in PROGRAMS {
        if !found.contains_key(program) {
            return Err(Failure::new(format!("cargo did not say where it put {program}")));
        }
    }
    Ok(found)
}

/// The executables that cargo tells of. Says on standard error how far it is, as cargo does on terminals alone.
fn executables(messages: impl BufRead) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let (started, compiled) = (Instant::now(), AtomicUsize::new(0));
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // In here, so that the other end is gone when this function returns, however it does.
            let waiting = waiting;
            while waiting.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let (count, seconds) = (compiled.load(Ordering::Relaxed), started.elapsed().as_secs());
                eprintln!("building the daemons: {count} crates compiled in {seconds} s");
            }
        });
        let _done = done;
        let mut found = BTreeMap::new();
        for line in messages.lines() {
            let message: serde_json::Value = serde_json::from_str(&line?).unwrap_or_default();
            if message["reason"] == "compiler-artifact" && message["fresh"] == false {
                compiled.fetch_add(1, Ordering::Relaxed);
            }
            if let (Some(name), Some(path)) =
                (message["target"]["name"].as_str(), message["executable"].as_str())
            {
                found.insert(name.to_owned(), PathBuf::from(path));
            }
        }
        Ok(found)
    })
}
