//! The commit of a build and its time, as a macro.
//!
//! A build script would have to belong to a library, and each commit would build anew all that uses that library. What
//! a macro names belongs to the crate that calls it: a commit builds the main functions of the programs, and links.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use proc_macro::TokenStream;

/// The commit and the time of a build, `(&'static str, u64)`.
///
/// The commit is the short hash, with `-dirty` if the tree had changes, or `unknown`. The time is a Unix time in
/// seconds, that of the commit. `SOURCE_DATE_EPOCH` replaces it (reproducible-builds.org), and without git it is that
/// of the last change of `Cargo.lock`: programs of one build carry one time, and a commit built twice is the same bytes.
#[proc_macro]
pub fn build(_: TokenStream) -> TokenStream {
    let dir = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(&dir).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };

    let dirty =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let mut commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if dirty {
        commit.push_str("-dirty");
    }

    let time = std::env::var("SOURCE_DATE_EPOCH").ok().or_else(|| git(&["log", "-1", "--format=%ct"]));
    let time = time.and_then(|seconds| seconds.parse().ok()).unwrap_or_else(lock_file_changed);

    // What the compiler has read, cargo looks at before it decides that there is nothing to build. HEAD changes with
    // the branch, its log with every commit.
    let read = ["HEAD", "logs/HEAD"]
        .iter()
        .filter_map(|name| dir.join(git(&["rev-parse", "--git-path", name])?).canonicalize().ok())
        .map(|path| format!("const _: &[u8] = ::core::include_bytes!({path:?});"));
    let read: String = read.collect();
    let expression = format!(
        "{{ {read} const _: Option<&str> = ::core::option_env!(\"SOURCE_DATE_EPOCH\"); ({commit:?}, {time}u64) }}"
    );
    expression.parse().unwrap_or_default()
}

fn lock_file_changed() -> u64 {
    let lock = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));
    let changed = lock.metadata().and_then(|metadata| metadata.modified());
    changed.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs())
}
