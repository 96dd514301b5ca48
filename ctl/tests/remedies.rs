//! Only what people read names commands: the libraries and daemons, which other programs use too, give a typed remedy.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use i2plan_present::remedy::{examples, sentence};

/// What people read in texts that are no errors: the daemons' `--help`, and the configuration's example.
const FOR_PEOPLE: [&str; 4] = [
    "Started by a service manager",
    "fd store (systemd: FileDescriptorStoreMax=16; i2planctl up)",
    "# After a change: `systemctl reload i2plan-meshd`, or SIGHUP to `i2planctl up`",
    "# An interface with static peers, which `i2planctl up` runs",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn libraries_and_daemons_name_no_command() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for package in
        ["proto", "ipc", "config", "keyd", "connector", "meshd", "tund", "rpcd", "routerd", "supervisor"]
    {
        sources(&workspace.join(package).join("src"), &mut files);
    }
    assert!(files.len() > 100, "{} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in product.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
            let named = line.contains("i2planctl") && !FOR_PEOPLE.iter().any(|text| line.contains(text));
            assert!(!named, "{}: {line}", file.display());
        }
    }
}

#[test]
fn the_commands_are_those_that_there_are() {
    for remedy in examples() {
        let text = sentence(&remedy);
        for command in text.split('`').filter(|part| part.starts_with("i2planctl ")) {
            let parsed = i2planctl::command().try_get_matches_from(command.split(' '));
            let known = parsed.map(drop).map_err(|error| error.kind());
            // Sentences leave out what only the reader knows.
            let whole = matches!(known, Ok(()) | Err(clap::error::ErrorKind::MissingRequiredArgument));
            assert!(whole, "{command}: {known:?}");
        }
    }
}
