//! Notes from which commit and when the programs were built.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let committed = git(&["log", "-1", "--format=%ct"]);
    let dirty =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let commit =
        commit.map_or_else(|| "unknown".to_owned(), |id| if dirty { format!("{id}-dirty") } else { id });
    println!("cargo::rustc-env=I2PLAN_COMMIT={commit}");

    // The convention of reproducible-builds.org: a builder that sets it gets the same bytes every time, and so does one
    // that builds a commit as it is.
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let time = std::env::var("SOURCE_DATE_EPOCH").ok().or(committed.filter(|_| !dirty));
    let time = time.and_then(|seconds| seconds.parse().ok());
    let time =
        time.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()));
    println!("cargo::rustc-env=I2PLAN_BUILD_TIME={time}");

    // HEAD changes with the branch, its log with every commit.
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
