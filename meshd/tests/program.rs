//! `i2plan-meshd` as a program: what it says of a configuration or an environment that is wrong, and how it logs.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program with an environment of its own, in a directory in which it finds neither keyd nor tund.
fn meshd(dir: &Path, config: &str, variables: &[(&str, &str)]) -> Command {
    let file = dir.join("config.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_i2plan-meshd"));
    command.env_clear().env("I2PLAN_NODE_NAME", "test").envs(variables.iter().copied());
    command.arg("--config").arg(file).arg("--state").arg(dir).arg("--listen").arg(dir.join("meshd.sock"));
    command.arg("--keyd-socket").arg(dir.join("keyd.sock")).arg("--tund-socket").arg(dir.join("tund.sock"));
    command.stdin(Stdio::null());
    command
}

fn run(config: &str, variables: &[(&str, &str)]) -> Output {
    let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
    meshd(dir.path(), config, variables).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_is_wrong_is_named_and_it_does_not_start() {
    for (config, variables, says) in [
        (
            "[mesh]\nmax_pears = 1",
            &[][..],
            "config.toml:2: unknown key mesh.max_pears; did you mean mesh.max_peers?",
        ),
        (
            "",
            &[("I2PLAN_MAX_PEERS", "many")],
            "environment variable I2PLAN_MAX_PEERS=\"many\": a number of peers",
        ),
        ("", &[("I2PLAN_MAX_PEER", "7")], "I2PLAN_MAX_PEER is unknown; did you mean I2PLAN_MAX_PEERS?"),
        ("", &[("I2PLAN_LOG", "debgu")], "environment variable I2PLAN_LOG=\"debgu\": \"debgu\" is no level"),
        ("", &[("DEBUG_I2P", "loud")], "environment variable DEBUG_I2P=\"loud\": debug, warn or error"),
        ("", &[("WARNFAIL_I2P", "1")], "environment variable WARNFAIL_I2P=\"1\": true or false"),
    ] {
        let output = run(config, variables);
        assert_eq!(output.status.code(), Some(2), "{config} {variables:?}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

#[test]
fn a_warning_is_fatal_where_that_is_wanted_and_lines_are_json_where_they_should_be() {
    // It does not find keyd, which is its first warning.
    let output = run("", &[("WARNFAIL_I2P", "true"), ("I2PLAN_LOG_FORMAT", "json")]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let (lines, end) = text.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(end, "WARNFAIL_I2P is set: a warning ends this process");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["message"]), (&"warn".into(), &"keyd is not there".into()));
    assert!(last["fields"]["error"].as_str().unwrap().contains("keyd.sock"), "{last}");
}

#[test]
fn the_journal_gets_priorities() {
    let output = run("", &[("WARNFAIL_I2P", "true"), ("I2PLAN_LOG_FORMAT", "journal")]);
    assert!(stderr(&output).lines().any(|line| line.starts_with("<4>i2plan_meshd")), "{}", stderr(&output));
    // Of its own accord only where its standard error goes there.
    let output = run("", &[("WARNFAIL_I2P", "true"), ("JOURNAL_STREAM", "1:1"), ("NO_COLOR", "1")]);
    assert!(stderr(&output).contains(" WARN i2plan_meshd"), "{}", stderr(&output));
}
