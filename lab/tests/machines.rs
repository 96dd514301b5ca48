//! `lab network`, as a person uses it: from another terminal, with the commands that it prints.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use lab::process::signal;
use nix::sys::signal::Signal;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// What the doctor says of a machine on which no node runs yet: of the router, and of what a node needs.
/// It sees its own processes alone: one first one, and one that goes on when the script ends.
const SCRIPT: &str = "i2planctl doctor | grep SAM; hostname; id -u i2plan-tund; \
    cat /proc/[0-9]*/cmdline | tr \"\\0\" \" \" | grep -o [_]_init | wc -l; sleep 600 >/dev/null 2>&1 & pidof sleep | wc -w; \
    touch /etc/i2plan/i2plan-lab-test && ls /etc/i2plan";

#[test]
fn machines_have_what_a_node_needs_and_keep_it_to_themselves() {
    let mut network = Command::new(LAB)
        .args(["network", "--machines", "2"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(network.stdout.take().unwrap()).lines().map_while(Result::ok);
    let commands: Vec<_> = lines.filter(|line| line.trim_start().starts_with("nsenter ")).take(2).collect();
    let run = |command: &str| {
        let output =
            Command::new("sh").args(["-c", &format!("{command} sh -c '{SCRIPT}'")]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let said: Vec<_> = commands.iter().map(|command| run(command)).collect();
    signal(network.id(), Signal::SIGINT).unwrap();
    network.wait().unwrap();
    for (said, name) in said.iter().zip(["n1", "n2"]) {
        assert!(said.contains("SAM 3.") && said.contains(" at 127.0.0.1:7656"), "{said}");
        assert!(said.contains(&format!("\n{name}\n")), "its host name: {said}");
        assert!(said.contains("\n1\n1\n"), "its own processes: {said}");
        assert!(said.ends_with("\ni2plan-lab-test\n"), "its own /etc: {said}");
    }
    assert_eq!(said.len(), 2, "{commands:?}");
    assert!(!Path::new("/etc/i2plan/i2plan-lab-test").exists(), "what is written there stays there");
}
