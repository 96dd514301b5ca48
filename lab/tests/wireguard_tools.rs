//! A node's interface as the `wg` of wireguard-tools shows it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::{Output, Spawn};
use lab::testing::sandboxed;
use lab::traffic::reach;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Where `wg` looks for interfaces that are not the kernel's.
const SOCKETS: &str = "/run/wireguard";

/// How long daemons may take to come back, or to notice something.
const SOON: Duration = Duration::from_secs(60);

/// How long `wg` may take, which asks one process on the same machine.
const ANSWER: Duration = Duration::from_secs(30);

/// The socket of a node's interface.
fn socket(node: &Node) -> PathBuf {
    Path::new(&node.path("wireguard")).join("i2plan0.sock")
}

/// Runs `wg` on a node, where its sockets are in their usual place.
async fn wg(node: &Node, args: &[&str]) -> Result<Output, Failure> {
    let script = format!("mkdir -p {SOCKETS} && mount --bind \"$0\" {SOCKETS} && exec wg \"$@\"");
    let words = ["--mount", "sh", "-c", &script].map(OsString::from);
    let args = args.iter().map(OsString::from);
    let args = words.into_iter().chain([node.path("wireguard")]).chain(args);
    let run = Spawn::new(Path::new("/usr/bin/unshare"), args).namespace(Some(&node.name)).output("");
    tokio::time::timeout(ANSWER, run).await.map_err(|_| node.failure("`wg` does not end"))?
}

/// What it prints. It must work, and say nothing on standard error.
async fn shown(node: &Node, args: &[&str]) -> Result<String, Failure> {
    let output = wg(node, args).await?;
    assert!(output.status.success() && output.stderr.is_empty(), "wg {args:?}: {output:?}");
    Ok(output.stdout)
}

/// The node's only peer, as `i2planctl peers` tells it.
async fn peer(node: &Node) -> Result<Value, Failure> {
    let peers =
        node.ctl_json::<Value>(&["peers"], "").await?.map_err(|error| node.failure(&error.message))?;
    assert_eq!(peers["peers"].as_array().unwrap().len(), 1, "{peers}");
    Ok(peers["peers"][0].clone())
}

#[test]
fn wg_shows_the_interface_and_cannot_change_it() {
    if !Path::new("/usr/bin/wg").exists() {
        eprintln!("skipped: there is no /usr/bin/wg; install wireguard-tools");
        return;
    }
    sandboxed(LAB, "wg_shows_the_interface_and_cannot_change_it", async || {
        let mut lab = Lab::with_nodes(2).await?;
        let [one, two] = &lab.nodes[..] else { panic!("two nodes") };
        let found = socket(one).metadata()?;
        assert_eq!((found.uid(), found.permissions().mode() & 0o777), (0, 0o600));
        let none = wg(one, &["show", "i2plan0"]).await?;
        assert_eq!(none.stderr, "Unable to access interface: No such device\n", "{none:?}");

        two.join_by(one).await?;
        reach(two, one).await?;
        reach(one, two).await?;
        values_are_those_of_i2planctl(one).await?;
        values_are_those_of_i2planctl(two).await?;
        nothing_can_be_changed(one).await?;
        reach(one, two).await?;
        clients_that_are_silent_do_not_hold_up_packets(one, two).await?;

        // The interface outlives tund, and the socket is there for the next process.
        let tund = one.daemon_pid("tund").await?;
        lab::process::signal(tund, nix::sys::signal::Signal::SIGKILL)?;
        let answers = async |node: &Node| Ok(wg(node, &["show", "i2plan0", "peers"]).await?.status.success());
        one.until("tund answers wg again", SOON, answers).await?;

        let path = socket(one);
        lab.nodes[0].stop_daemons().await?;
        assert!(!path.exists(), "the socket is left");
        lab.stop().await
    });
}

/// What `wg show all dump` and `i2planctl peers` tell of counters and the handshake, for the tunnel is idle.
async fn counters(node: &Node) -> Result<[[u64; 3]; 2], Failure> {
    let dump = shown(node, &["show", "all", "dump"]).await?;
    let row: Vec<_> = dump.lines().nth(1).unwrap().split('\t').collect();
    let theirs = [row[5], row[6], row[7]].map(|number| number.parse().unwrap());
    let peer = peer(node).await?;
    let ago = peer["last_handshake"].as_u64();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let handshake = ago.map_or(0, |ago| now - ago);
    Ok([theirs, [handshake, peer["rx_bytes"].as_u64().unwrap(), peer["tx_bytes"].as_u64().unwrap()]])
}

async fn values_are_those_of_i2planctl(node: &Node) -> Result<(), Failure> {
    // meshd asks for them every few seconds, and a keepalive may come in between.
    let agree = async |node: &Node| {
        let [[wg_handshake, wg @ ..], [handshake, ctl @ ..]] = counters(node).await?;
        Ok(wg == ctl && wg.iter().all(|count| *count > 0) && wg_handshake.abs_diff(handshake) <= 5)
    };
    node.until("wg and i2planctl tell the same", SOON, agree).await?;

    let peer = peer(node).await?;
    let text = |key: &str| peer[key].as_str().unwrap().to_owned();
    let dump = shown(node, &["show", "all", "dump"]).await?;
    let rows: Vec<Vec<&str>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    let [interface, shown_peer] = &rows[..] else { panic!("an interface and a peer: {dump}") };
    // Private key, public key, port, mark.
    assert_eq!(interface[..], ["i2plan0", "(none)", "(none)", "0", "off"]);
    let [name, key, psk, endpoint, allowed, _, _, _, keepalive] = shown_peer[..] else {
        panic!("a peer has nine columns: {dump}")
    };
    assert_eq!((name, psk, endpoint), ("i2plan0", "(none)", "(none)"));
    assert_eq!((key, keepalive), (&*text("public_key"), "25"));
    assert_eq!(allowed, format!("{}/32,{}/128", text("ipv4"), text("ipv6")));

    let pretty = shown(node, &["show"]).await?;
    let allowed = format!("  allowed ips: {}/32, {}/128\n", text("ipv4"), text("ipv6"));
    assert!(pretty.starts_with(&format!("interface: i2plan0\n\npeer: {key}\n{allowed}")), "{pretty}");
    assert!(pretty.contains("\n  latest handshake: ") && pretty.contains("\n  transfer: "), "{pretty}");
    assert!(pretty.ends_with("\n  persistent keepalive: every 25 seconds\n"), "{pretty}");

    let conf = shown(node, &["showconf", "i2plan0"]).await?;
    let allowed = format!("AllowedIPs = {}/32, {}/128", text("ipv4"), text("ipv6"));
    let expected = format!("[Interface]\n\n[Peer]\nPublicKey = {key}\n{allowed}\nPersistentKeepalive = 25\n");
    assert_eq!(conf.trim(), expected.trim());
    assert_eq!(shown(node, &["show", "interfaces"]).await?, "i2plan0\n");
    Ok(())
}

async fn nothing_can_be_changed(node: &Node) -> Result<(), Failure> {
    let key = peer(node).await?["public_key"].as_str().unwrap().to_owned();
    for args in [
        &["set", "i2plan0", "peer", &key, "remove"][..],
        &["set", "i2plan0", "peer", &key, "allowed-ips", "10.42.0.77/32"],
        &["set", "i2plan0", "peer", &key, "persistent-keepalive", "1"],
        &["set", "i2plan0", "listen-port", "51820"],
        &["set", "i2plan0", "fwmark", "1"],
    ] {
        let output = wg(node, args).await?;
        assert_eq!(output.stderr, "Unable to modify interface: Operation not supported\n", "{args:?}");
        assert!(!output.status.success());
    }
    values_are_those_of_i2planctl(node).await
}

async fn clients_that_are_silent_do_not_hold_up_packets(node: &Node, other: &Node) -> Result<(), Failure> {
    let silent: Vec<_> = (0..100).map(|_| UnixStream::connect(socket(node))).collect::<Result<_, _>>()?;
    reach(node, other).await?;
    // Nor does that last: they are dropped.
    let answers = async |node: &Node| Ok(wg(node, &["show", "i2plan0", "peers"]).await?.status.success());
    node.until("wg is answered", SOON, answers).await?;
    drop(silent);
    Ok(())
}
