//! What `docs/troubleshooting.md` quotes is what the programs say.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

/// How messages begin that are of `wg` or the system, are put together word by word, or are commands.
const OTHERS: [&str; 6] = [
    "Unable to ",
    "cannot read FILE: No such file",
    "config reload",
    "Landlock is in force not at all",
    "the session's first descriptor is",
    "this is not an invite code: there is no i2plan://",
];

fn read(directory: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Of a text over several lines, each but the last ends with a backslash.
            for line in text.lines() {
                sources.push_str(line.trim_start().trim_end_matches('\\'));
                if !line.ends_with('\\') {
                    sources.push('\n');
                }
            }
        }
    }
}

/// What stands between the places of a message that are filled in, which are capitals and numbers here, and between the
/// messages of which it is put together.
fn parts(message: &str) -> Vec<String> {
    let is_place = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_filled_in = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, ':' | '=');
        word.chars().all(is_filled_in) && !["I", "SAM", "TCP", "UDP", "MTU"].contains(&word)
    };
    let words: Vec<_> = message.split(' ').collect();
    let parts = words.split(|word| is_place(word)).map(|words| words.join(" "));
    let joined: Vec<_> = parts.map(|part| part.replace(", and ", "; ").replace(": ", "; ")).collect();
    let each = joined.iter().flat_map(|part| part.split("; "));
    let each = each.map(|part| part.trim_matches([':', ';', ',', ' ']).to_owned());
    each.filter(|part| part.len() > 3).collect()
}

#[test]
fn messages_that_are_quoted_are_those_of_the_programs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = String::new();
    for crate_of in std::fs::read_dir(&root).unwrap() {
        let source = crate_of.unwrap().path().join("src");
        if source.is_dir() {
            read(&source, &mut sources);
        }
    }
    let sources = sources.replace("\\\"", "\"");
    let page = std::fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let symptoms = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let mut count = 0;
    for quoted in symptoms.flat_map(|symptom| symptom.split('`').skip(1).step_by(2)) {
        if OTHERS.iter().any(|other| quoted.starts_with(other)) {
            continue;
        }
        for part in parts(quoted) {
            count += 1;
            assert!(sources.contains(&part), "{part:?} of {quoted:?} is nowhere");
        }
    }
    assert!(count > 100, "{count}");
}
