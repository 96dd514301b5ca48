//! What is in the packages.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Where the documentation is installed.
const DOC: &str = "usr/share/doc/i2plan";

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the Debian package's documentation consists of: where each file is installed, and where it comes from.
fn documentation() -> BTreeMap<PathBuf, PathBuf> {
    let manifest = fs::read_to_string(here().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let mut files = BTreeMap::new();
    for asset in assets {
        let [source, target] = [0, 1].map(|index| asset[index].as_str().unwrap());
        if !target.starts_with(DOC) {
            continue;
        }
        let source = here().join(source);
        let sources = match source.file_name().unwrap().to_str().unwrap().strip_prefix('*') {
            Some(end) => {
                let entries =
                    fs::read_dir(source.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
                entries.filter(|path| path.is_file() && path.to_string_lossy().ends_with(end)).collect()
            }
            None => vec![source],
        };
        for source in sources {
            files.insert(Path::new(target).join(source.file_name().unwrap()), source);
        }
    }
    files
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            component => normal.push(component),
        }
    }
    normal
}

/// The files that a page links to.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or_default())
}

#[test]
fn what_the_documentation_links_to_is_in_the_package() {
    let files = documentation();
    let mut count = 0;
    for (installed, source) in
        files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "md"))
    {
        for link in links(&fs::read_to_string(source).unwrap()) {
            let target = normal(&installed.parent().unwrap().join(link));
            assert!(files.contains_key(&target), "{} links to {link}", installed.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

/// The anchor of a heading, as code hosts make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The lines of a page that are not code, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

#[test]
fn links_within_the_documentation_lead_to_headings() {
    let files = documentation();
    let pages: BTreeMap<_, _> = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|end| end == "md"))
        .map(|(path, source)| (path, fs::read_to_string(source).unwrap()))
        .collect();
    let (mut dead, mut count) = (Vec::new(), 0);
    for (path, page) in &pages {
        let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets.filter(|(target, _)| !target.contains("://")) {
            let Some((file, wanted)) = target.split_once('#') else { continue };
            let of =
                if file.is_empty() { (*path).clone() } else { normal(&path.parent().unwrap().join(file)) };
            let mut headings = prose(&pages[&of]).filter_map(|(_, line)| line.strip_prefix('#'));
            let is_there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == wanted);
            let is_marked = pages[&of].contains(&format!("<a id=\"{wanted}\">"));
            if !is_there && !is_marked {
                dead.push(format!("{} links to {target}", path.display()));
            }
            count += 1;
        }
    }
    assert_eq!(dead, [""; 0]);
    assert!(count > 20, "only {count} links were found");
}

/// A part of a page that is lost takes the beginning or the end of a table with it.
#[test]
fn tables_of_the_documentation_are_whole() {
    for source in documentation().values().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let page = fs::read_to_string(source).unwrap();
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let lines: Vec<_> = prose(&page).collect();
        for (index, (number, line)) in lines.iter().enumerate() {
            let starts = |at: usize| lines.get(at).is_some_and(|(_, line)| line.starts_with('|'));
            if !line.starts_with('|') {
                continue;
            }
            let place = format!("{}:{number}", source.display());
            if index > 0 && starts(index - 1) {
                assert_eq!(columns(line), columns(lines[index - 1].1), "{place} has other columns");
            } else {
                assert!(starts(index + 1) && lines[index + 1].1.starts_with("| --"), "{place} has no head");
            }
        }
    }
}

#[test]
fn both_packages_have_the_same_documentation() {
    let manifest = fs::read_to_string(here().join("Cargo.toml")).unwrap();
    for source in documentation().values() {
        let source = normal(source);
        let root = here().parent().unwrap();
        let (own, all) =
            (source.strip_prefix(root).unwrap(), source.parent().unwrap().strip_prefix(root).unwrap());
        let kind = own.extension().unwrap_or_default().display();
        let ways = [
            own.display().to_string(),
            format!("{}/*", all.display()),
            format!("{}/*.{kind}", all.display()),
        ];
        assert!(
            ways.iter().any(|way| manifest.contains(&format!("source = \"{way}\""))),
            "{}",
            own.display()
        );
    }
}

/// What the generator adds for a version of systemd: each file's path and text.
fn generated(version: &str) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let (bin, out) = (directory.path().join("bin"), directory.path().join("out"));
    fs::create_dir(&bin).unwrap();
    let systemctl = bin.join("systemctl");
    fs::write(&systemctl, format!("#!/bin/sh\necho 'systemd {version}'\necho +PAM\n")).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let generator = here().join("generators/i2plan-generator");
    let status = Command::new(generator).arg(&out).arg(&out).arg(&out).env("PATH", path).status().unwrap();
    assert!(status.success());
    let mut files = BTreeMap::new();
    for unit in fs::read_dir(&out).into_iter().flatten() {
        let unit = unit.unwrap();
        for file in fs::read_dir(unit.path()).unwrap() {
            let file = file.unwrap();
            let name = format!("{}/{}", unit.file_name().display(), file.file_name().display());
            files.insert(name, fs::read_to_string(file.path()).unwrap());
        }
    }
    files
}

#[test]
fn settings_that_only_newer_versions_of_systemd_know_are_added_for_those() {
    assert_eq!(generated("252 (252.39-1~deb12u2)"), BTreeMap::new());
    let restart = "[Service]\nRestartSteps=6\nRestartMaxDelaySec=30s\n";
    let some = generated("254.5");
    assert_eq!((some.len(), some["i2plan-keyd.service.d/systemd-254.conf"].as_str()), (8, restart));
    let all = generated("257 (257.9-1~deb13u1)");
    let users = "[Service]\nPrivateUsers=identity\n";
    assert_eq!((all.len(), all["i2plan-rpcd.service.d/systemd-257.conf"].as_str()), (12, users));
}

#[test]
fn units_have_no_settings_that_the_oldest_systemd_does_not_know() {
    for entry in fs::read_dir(here().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        for setting in ["RestartSteps=", "RestartMaxDelaySec=", "PrivateUsers=identity"] {
            let has = fs::read_to_string(&path).unwrap().lines().any(|line| line.starts_with(setting));
            assert!(!has, "{}: {setting}", path.display());
        }
    }
}
