//! Builds the daemons and finds what was built.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failure;

/// The packages that the programs of a node are in.
const PACKAGES: [&str; 7] = [
    "i2planctl",
    "i2plan-keyd",
    "i2plan-connector",
    "i2plan-meshd",
    "i2plan-tund",
    "i2plan-rpcd",
    "i2plan-routerd",
];

/// The programs of a node.
pub const PROGRAMS: [&str; 7] = [
    "i2planctl",
    "i2plan-keyd",
    "i2plan-connector",
    "i2plan-meshd",
    "i2plan-tund",
    "i2plan-rpcd",
    "i2plan-routerd",
];

/// Builds the programs of a node, in the profile in which this program was built. Returns where they are.
///
/// # Errors
/// If cargo is not there or the build fails; what cargo says goes to standard error.
pub fn build() -> Result<BTreeMap<String, PathBuf>, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(["build", "--message-format=json-render-diagnostics"]);
    // What cargo tells the program that it runs is not for another cargo: build scripts that look at it would
    // run anew, and with them half of the build.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| {
        Failure::new(format!("cannot run cargo to build the daemons ({error}): install a Rust toolchain"))
    })?;
    let mut found = BTreeMap::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let message: serde_json::Value = serde_json::from_str(&line?).unwrap_or_default();
            if let (Some(name), Some(path)) =
                (message["target"]["name"].as_str(), message["executable"].as_str())
            {
                found.insert(name.to_owned(), PathBuf::from(path));
            }
        }
    }
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
