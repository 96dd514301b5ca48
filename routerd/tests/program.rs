//! `i2plan-routerd` as a program: what it says of what is wrong, before it speaks with anybody.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(state: &Path, config: &str, variables: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_i2plan-routerd"));
    command.env_clear().env("I2PLAN_NODE_NAME", "test").envs(variables.iter().copied());
    command.arg("--config").arg(file).arg("--state").arg(state).stdin(Stdio::null()).output().unwrap()
}

fn state() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// No reseed server is asked in a test.
const ALONE: &str = "[router]\nreseed = false\n";

#[test]
fn what_is_wrong_is_named_and_it_does_not_start() {
    let network = "I2PLAN_LAB_ROUTER_NETWORK";
    for (config, variables, status, says) in [
        (
            "router.sede = '/x'",
            &[][..],
            2,
            "config.toml:1: unknown key router.sede; did you mean router.seed?",
        ),
        ("router.port = 80", &[], 2, "router.port: a port from 1024 to 65535, or 0, is expected"),
        ("router.seed = 'x'", &[], 2, "router.seed: an absolute path is expected"),
        ("", &[("I2PLAN_ROUTER_ADDRESS", "::1")], 2, "I2PLAN_ROUTER_ADDRESS=\"::1\": an IPv4 address"),
        (
            ALONE,
            &[("I2PLAN_SAM_ADDRESS", "192.0.2.1:7656")],
            2,
            "i2p.sam_address is 192.0.2.1:7656, and the router's",
        ),
        (
            ALONE,
            &[("I2PLAN_SAM_ADDRESS", "[::1]:7656")],
            2,
            "i2p.sam_address is [::1]:7656, and the router's",
        ),
        (ALONE, &[], 2, "no other router is known: name a seed (router.seed)"),
        (ALONE, &[("I2PLAN_ROUTER_SEED", "/nonexistent/seed")], 2, "cannot read the seed /nonexistent/seed"),
        // The public network is none for tests.
        (ALONE, &[(network, "2")], 2, "I2PLAN_LAB_ROUTER_NETWORK=\"2\": the id of a private network"),
        (ALONE, &[(network, "x")], 2, "I2PLAN_LAB_ROUTER_NETWORK=\"x\": the id of a private network"),
        // A private network has no reseed servers.
        (
            "",
            &[(network, "99")],
            2,
            "this router is one of a private network for tests: it gives no anonymity",
        ),
    ] {
        let output = run(state().path(), config, variables);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(says), "{says:?} is missing in {said:?}");
        assert_eq!(output.status.code(), Some(status), "{config} {variables:?}");
    }
}

#[test]
fn keys_that_are_damaged_are_told_and_left() {
    let (state, seed) = (state(), tempfile::tempdir().unwrap());
    let keys = state.path().join("router.keys");
    std::fs::write(&keys, "something else").unwrap();
    std::fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    std::fs::write(seed.path().join("README"), "no router").unwrap();
    let output = run(state.path(), ALONE, &[("I2PLAN_ROUTER_SEED", seed.path().to_str().unwrap())]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("router.keys: this is no file of a router's keys"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&keys).unwrap(), b"something else");
}
