//! Every target over its committed corpus.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use i2plan_fuzz::{TARGETS, Target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// The committed inputs of a target: what it began with, and what was found since. Not what the fuzzer has left
/// there on this machine.
fn inputs(target: &Target) -> Vec<PathBuf> {
    let directory = corpus().join(target.name);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "seed" || kind == "found"));
    files.sort();
    files
}

#[test]
fn no_input_of_the_corpus_breaks_its_target() {
    let mut broken = Vec::new();
    for target in TARGETS {
        for path in inputs(target) {
            let input = fs::read(&path).unwrap();
            // Every one is run, so that all that is broken is named.
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "see the panics above, of {broken:#?}");
}

#[test]
fn the_seeds_are_what_the_program_makes() {
    for target in TARGETS {
        let there: BTreeSet<_> = inputs(target)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "seed"))
            .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
            .collect();
        let made: BTreeSet<_> = (target.seeds)().into_iter().collect();
        assert!(
            there == made,
            "the seeds of {} are out of date: run `cargo run -p i2plan-fuzz --example seeds`",
            target.name
        );
    }
}

#[test]
fn every_corpus_has_a_target_and_every_target_a_program() {
    let names = |directory: PathBuf| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        fs::read_dir(directory).unwrap().map(|entry| stem(entry.unwrap().path())).collect()
    };
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(corpus()), targets);
    assert_eq!(names(corpus().join("../fuzz_targets")), targets);
}
