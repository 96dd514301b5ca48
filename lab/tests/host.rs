//! Faults of the host around a node: the doctor names each first, with what puts it right.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use lab::node::{Lab, Node};
use lab::process::{Output, Spawn};
use lab::testing::sandboxed;
use lab::{Failure, netns};
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long a fault may stay unseen, and what was put right be told.
const SEEN: Duration = Duration::from_secs(40);

/// How long a router or a daemon takes to come back.
const BACK: Duration = Duration::from_secs(150);

/// Runs a line of shell on the node's machine.
async fn sh(node: &Node, line: &str) -> Result<Output, Failure> {
    let args = ["-c", line].map(OsString::from);
    Spawn::new(Path::new("/bin/sh"), args).namespace(Some(&node.name)).output("").await
}

async fn must(node: &Node, line: &str) -> Result<(), Failure> {
    let output = sh(node, line).await?;
    if output.status.success() { Ok(()) } else { Err(node.failure(&format!("`{line}`: {}", output.stderr))) }
}

async fn findings(node: &Node) -> Result<Vec<Value>, Failure> {
    let (config, state) = (node.config(), node.path("state"));
    let args =
        ["doctor", "--config", config.to_str().unwrap(), "--data-dir", state.to_str().unwrap(), "--json"];
    let output = node.ctl(&args, "").await?;
    let report: Value = serde_json::from_str(&output.stdout)
        .map_err(|error| node.failure(&format!("{error}: {}{}", output.stdout, output.stderr)))?;
    Ok(report["findings"].as_array().unwrap().clone())
}

/// What the doctor says first, if it is to be fixed: what is wrong, and what to do.
async fn first_problem(node: &Node) -> Result<Option<(String, String)>, Failure> {
    let first = &findings(node).await?[0];
    let text = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
    Ok((first["level"] == "problem").then(|| (text("message"), text("hint"))))
}

/// Waits until the doctor names this first. Returns what it says to do.
async fn is_first(node: &Node, what: &str) -> Result<String, Failure> {
    node.until(&format!("the doctor says first: {what}"), SEEN, async |node| {
        Ok(first_problem(node).await?.is_some_and(|(message, _)| message.contains(what)))
    })
    .await?;
    Ok(first_problem(node).await?.map(|(_, hint)| hint).unwrap_or_default())
}

async fn is_well(node: &Node, within: Duration) -> Result<(), Failure> {
    node.until("nothing is to be fixed", within, async |node| Ok(first_problem(node).await?.is_none())).await
}

/// The command in a remedy, as it is printed.
fn command(remedy: &str) -> &str {
    remedy.split('`').nth(1).unwrap_or_else(|| panic!("no command in {remedy:?}"))
}

/// A fault that a line of shell makes, and that the printed remedy undoes.
async fn is_found_and_undone(node: &Node, fault: &str, told: &str) -> Result<(), Failure> {
    must(node, fault).await?;
    // Some remedies uncover what hid behind the first fault: the kernel takes addresses from a link that goes down.
    let mut remedy = is_first(node, told).await?;
    for _ in 0..3 {
        must(node, command(&remedy)).await?;
        let done = remedy.clone();
        node.until("the next finding comes", SEEN, async |node| {
            Ok(first_problem(node).await?.is_none_or(|(_, hint)| hint != done))
        })
        .await?;
        match first_problem(node).await? {
            None => return Ok(()),
            Some((_, hint)) => remedy = hint,
        }
    }
    is_well(node, SEEN).await
}

/// What others do to the interface.
async fn of_the_interface(node: &Node) -> Result<(), Failure> {
    for (fault, told) in [
        ("ip link set i2plan0 down", "i2plan0: it is down"),
        ("ip link set i2plan0 mtu 1400", "i2plan0: its MTU is 1400"),
        ("ip -6 address flush dev i2plan0 scope global", "i2plan0: it has lost its IPv6 address"),
        ("ip -4 address flush dev i2plan0", "i2plan0: it has lost its IPv4 address"),
    ] {
        is_found_and_undone(node, fault, told).await.map_err(|error| error.during(fault))?;
    }
    let events = node.ctl(&["events", "--since", "10m"], "").await?.stdout;
    assert!(events.contains("another program has changed the interface: it is down"), "{events}");
    assert!(events.contains("the interface is as it should be again"), "{events}");
    Ok(())
}

/// Another network of the host with addresses of the mesh.
async fn of_the_networks(node: &Node, other: &Node) -> Result<(), Failure> {
    let ends = [(&*node.name, [10, 42, 131, 1].into()), (&*other.name, [10, 42, 131, 2].into())];
    netns::link("cni0", ends, 24)?;
    let remedy = is_first(node, "10.42.131.1/24 of cni0").await?;
    assert!(remedy.contains("free these addresses"), "{remedy}");
    netns::unlink(&node.name, "cni0")?;
    is_well(node, SEEN).await?;

    // No fault of the node, and told as none.
    must(node, "echo 1 > /proc/sys/net/ipv6/conf/i2plan0/disable_ipv6").await?;
    node.until("IPv6 is told to be off", SEEN, async |node| {
        let found = findings(node).await?;
        Ok(found.iter().any(|finding| {
            finding["level"] == "note"
                && finding["message"].as_str().unwrap().contains("IPv6 is switched off")
        }))
    })
    .await?;
    assert_eq!(first_problem(node).await?, None);
    must(node, "echo 0 > /proc/sys/net/ipv6/conf/i2plan0/disable_ipv6").await?;
    let remedy = is_first(node, "it has lost its IPv6 address").await?;
    must(node, command(&remedy)).await?;
    is_well(node, SEEN).await
}

/// State that root has put back.
async fn of_the_files(node: &Node) -> Result<(), Failure> {
    for (daemon, file) in [("keyd", "keys"), ("meshd", "state")] {
        let path = node.state(daemon).join(file);
        let found = path.metadata()?;
        chown(&path, Some(0), Some(0))?;
        let told = format!("{} belongs to user 0", path.display());
        let remedy = is_first(node, &told).await?;
        must(node, command(&remedy)).await?;
        assert_eq!(path.metadata()?.uid(), found.uid());
        is_well(node, SEEN).await?;

        let mut open = found.permissions();
        open.set_mode(0o644);
        std::fs::set_permissions(&path, open)?;
        let remedy = is_first(node, &format!("{} is open to others", path.display())).await?;
        must(node, command(&remedy)).await?;
        is_well(node, SEEN).await?;
    }
    let written = std::fs::read_to_string(node.config())?;
    std::fs::write(node.config(), format!("{written}\n[mehs]\nmax_peers = 5\n"))?;
    let remedy = is_first(node, "unknown key mehs.max_peers; did you mean mesh.max_peers?").await?;
    assert!(remedy.contains("`i2planctl config check`"), "{remedy}");
    std::fs::write(node.config(), written)?;
    is_well(node, SEEN).await
}

/// What the node runs on.
async fn of_the_processes(lab: &mut Lab) -> Result<(), Failure> {
    let tund = lab.nodes[0].freeze(&["tund"]).await?;
    is_first(&lab.nodes[0], "tund does not answer").await?;
    tund.thaw()?;
    is_well(&lab.nodes[0], BACK).await?;
    lab.kill_router(0).await?;
    let remedy = is_first(&lab.nodes[0], "no SAM bridge at").await?;
    assert!(remedy.contains("start the I2P router"), "{remedy}");
    lab.restart_router(0).await?;
    is_well(&lab.nodes[0], BACK).await
}

#[test]
fn the_doctor_names_faults_of_the_host_first_and_its_remedies_work() {
    sandboxed(LAB, "the_doctor_names_faults_of_the_host_first_and_its_remedies_work", async || {
        let mut lab = Lab::with_nodes(2).await?;
        let [node, other] = &lab.nodes[..] else { panic!("two nodes") };
        node.invite(&["--name", "office"]).await?;
        assert_eq!(node.network().await?.name, "office");
        node.until("its interface is up", SEEN, async |node| {
            Ok(node.status().await?.tunnel.interface.is_some())
        })
        .await?;
        is_well(node, SEEN).await?;
        of_the_interface(node).await?;
        of_the_networks(node, other).await?;
        of_the_files(node).await?;
        of_the_processes(&mut lab).await?;
        lab.stop().await
    });
}
