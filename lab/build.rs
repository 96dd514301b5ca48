//! Tells in which profile this is built, for the daemons to be built in the same.

use std::path::{Component, Path};

fn main() {
    // What cargo says in PROFILE is debug or release, also for profiles that inherit from them. The directory that it
    // makes for a build script is TARGET/PROFILE/build/….
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    let names: Vec<_> = Path::new(&out)
        .components()
        .filter_map(|component| if let Component::Normal(name) = component { name.to_str() } else { None })
        .collect();
    let directory =
        names.iter().rposition(|name| *name == "build").and_then(|at| names.get(at.checked_sub(1)?));
    let profile = match directory.copied() {
        Some("debug") => "dev",
        Some(directory) => directory,
        None => panic!("{} is in no build directory of cargo", Path::new(&out).display()),
    };
    println!("cargo::rustc-env=LAB_PROFILE={profile}");
    println!("cargo::rerun-if-changed=build.rs");
}
