//! `i2planctl` as people and programs use it: against whole nodes, and against what is broken.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use i2plan_ipc::escape::is_unsafe;
use lab::i2p::router::SAM;
use lab::node::{Lab, Node};
use lab::process::{Output, signal};
use lab::testing::sandboxed;
use lab::traffic::reach;
use lab::{Failure, netns};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long a daemon may take to come back, or to notice something.
const SOON: Duration = Duration::from_secs(30);

/// How long a node may take to work again after a router came back.
const RECOVERY: Duration = Duration::from_secs(150);

/// What a command prints for people. It must work, and say nothing on standard error.
async fn text(node: &Node, args: &[&str]) -> Result<String, Failure> {
    let output = node.ctl(args, "").await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(node.failure(&format!("`i2planctl {}`: {}{}", args.join(" "), output.stdout, output.stderr)))
}

/// What it prints for programs.
async fn value(node: &Node, args: &[&str]) -> Result<Value, Failure> {
    node.ctl_json::<Value>(args, "").await?.map_err(|error| node.failure(&error.message))
}

/// What the doctor finds, whatever the exit status, which must fit.
async fn doctor(node: &Node) -> Result<Value, Failure> {
    let output = run_doctor(node, true).await?;
    let report: Value = serde_json::from_str(&output.stdout)
        .map_err(|error| node.failure(&format!("{error}: {}{}", output.stdout, output.stderr)))?;
    let expected = if report["healthy"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(expected), "{report}");
    Ok(report)
}

async fn run_doctor(node: &Node, json: bool) -> Result<Output, Failure> {
    let (config, state) = (node.config(), node.path("state"));
    let args =
        ["doctor", "--config", config.to_str().unwrap(), "--data-dir", state.to_str().unwrap(), "--json"];
    node.ctl(&args[..if json { 6 } else { 5 }], "").await
}

/// The messages of what is to be fixed; each must come with a hint.
fn problems(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let problems = findings.filter(|finding| finding["level"] == "problem");
    problems
        .map(|finding| {
            assert!(finding["hint"].is_string(), "{finding}");
            format!("{}: {}", finding["subject"].as_str().unwrap(), finding["message"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn a_tool_for_the_whole_life_of_a_node() {
    sandboxed(LAB, "a_tool_for_the_whole_life_of_a_node", async || {
        let mut lab = Lab::with_nodes(2).await?;
        join_is_interrupted_and_resumed(&lab.nodes[0], &lab.nodes[1]).await?;
        reach(&lab.nodes[1], &lab.nodes[0]).await?;
        reach(&lab.nodes[0], &lab.nodes[1]).await?;
        commands_print_what_is_so(&lab.nodes[0], &lab.nodes[1]).await?;
        a_revoked_node_is_told_how_to_come_back(&lab.nodes[0], &lab.nodes[1]).await?;
        past_events_are_told(&lab.nodes[1]).await?;
        events_are_followed_over_a_crash(&lab.nodes[0]).await?;
        the_doctor_names_open_files_and_sockets(&lab.nodes[0]).await?;
        a_node_without_router_says_so(&mut lab).await?;
        a_stopped_node_says_so(&mut lab.nodes[1]).await?;
        lab.stop().await
    });
}

async fn join_is_interrupted_and_resumed(inviter: &Node, joiner: &Node) -> Result<(), Failure> {
    let code = inviter.invite(&[]).await?;
    let file = PathBuf::from(joiner.path("invite.txt"));
    std::fs::write(&file, &code)?;
    let args = ["join", "--yes", "--file", file.to_str().unwrap()];

    // The inviter does not answer while the first attempt lasts.
    let meshd = inviter.freeze(&["meshd"]).await?;
    let log = PathBuf::from(joiner.path("join.log"));
    let mut first = joiner.start_ctl(&args, &log)?;
    let says = |what: &'static str| async move |_: &Node| Ok(std::fs::read_to_string(&log)?.contains(what));
    joiner.until("it asks the inviter", SOON, says("asking it")).await?;
    signal(first.pid(), Signal::SIGINT)?;
    let status = first.wait().await?;
    let said = std::fs::read_to_string(joiner.path("join.log"))?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.starts_with("joining network ") && said.contains("looking for the inviter"), "{said}");
    assert!(said.contains("error: interrupted, but the node goes on joining\nhint: "), "{said}");

    // The second waits for the same end.
    let again = joiner.ctl(&args, "");
    let wake = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        meshd.thaw()
    };
    let (again, woken) = tokio::join!(again, wake);
    woken?;
    let again = again?;
    assert!(again.status.success(), "{}{}", again.stdout, again.stderr);
    let network = joiner.network().await?;
    assert!(
        again.stdout.starts_with(&format!("joined network {} ({})\n", network.name, network.id)),
        "{}",
        again.stdout
    );
    assert!(again.stderr.ends_with("the first tunnel to a member is up\n"), "{}", again.stderr);

    // And by a third it is a member already.
    let third = value(joiner, &args).await?;
    assert_eq!((&third["already_member"], &third["network"]["id"]), (&json!(true), &json!(network.id)));
    let invites = value(inviter, &["invite", "list"]).await?;
    assert_eq!(invites["invites"][0]["state"], "used_up");
    Ok(())
}

async fn commands_print_what_is_so(one: &Node, two: &Node) -> Result<(), Failure> {
    let (network, other) = (one.network().await?, two.network().await?);

    let status = text(one, &["status"]).await?;
    assert!(status.starts_with(&format!("Node          {}\n", one.name)), "{status}");
    assert!(
        status.contains("\nInterface     i2plan0\n") && status.contains("\n  control     up "),
        "{status}"
    );
    assert_eq!(value(one, &["status"]).await?["warnings"], json!([]));

    // meshd asks tund for the state of its tunnels once a second.
    let up = async |one: &Node| Ok(text(one, &["peers"]).await?.contains("  up  "));
    one.until("it sees the tunnel", SOON, up).await?;
    let peers = text(one, &["peers"]).await?;
    let row = peers.lines().nth(1).unwrap();
    assert!(
        row.starts_with(&format!("{}    {}  ", two.name, other.ipv4)) && row.contains("  up  "),
        "{peers}"
    );
    let peers = value(one, &["peers"]).await?;
    assert_eq!(peers["peers"][0]["name"], two.name.as_str());
    let node_id = peers["peers"][0]["node_id"].as_str().unwrap().to_owned();

    let routes = value(one, &["routes"]).await?;
    let hops = |node: &str| {
        let mut routes = routes["routes"].as_array().unwrap().iter();
        routes.find(|route| route["name"] == node).map(|route| route["hops"].clone())
    };
    assert_eq!((hops(&one.name), hops(&two.name)), (Some(Value::from(0)), Some(Value::from(1))));
    assert!(text(one, &["routes"]).await?.contains(&other.ipv4.to_string()));

    // By name, by the beginning of the id, by address; both families.
    let named = text(one, &["ping", &two.name, "-c", "2", "-i", "0.2"]).await?;
    assert!(named.starts_with(&format!("PING {} ({}): ", two.name, other.ipv4)), "{named}");
    assert!(named.contains("2 requests sent, 2 received, 0% lost") && named.contains("median"), "{named}");
    let sixth = value(one, &["ping", &node_id[..12], "-6", "-c", "1"]).await?;
    assert_eq!((&sixth["target"]["address"], &sixth["received"]), (&json!(other.ipv6), &json!(1)));
    let silent = one.ctl(&["--json", "ping", "10.42.255.254", "-c", "1", "-w", "1"], "").await?;
    assert_eq!(silent.status.code(), Some(1), "{}{}", silent.stdout, silent.stderr);

    let versions = text(one, &["version", "--all"]).await?;
    assert_eq!(versions.lines().count(), 6, "{versions}");
    let key = value(one, &["key", "status"]).await?;
    assert!(
        key["wireguard"]["epoch"].is_u64()
            && text(one, &["key", "export-public"]).await?.contains("wireguard")
    );

    let created = value(two, &["invite", "create", "--uses", "3", "--expires", "1h"]).await?;
    let id = created["id"].as_str().unwrap();
    assert!(text(two, &["invite", "show", id]).await?.contains("uses       0 of 3\n"));
    assert_eq!(text(two, &["invite", "revoke", id]).await?, format!("invite {id} is revoked\n"));

    // More addresses, without another of its own.
    assert!(status.contains("  addresses   65536 in 10.42.0.0/16, "), "{status}");
    let granted = text(one, &["grant", &two.name, "--addresses", "64"]).await?;
    assert!(
        granted.starts_with(&format!("{} holds 80 addresses: {}/28, ", two.name, other.ipv4)),
        "{granted}"
    );
    two.until("it holds them", SOON, async |two| {
        Ok(value(two, &["status"]).await?["network"]["addresses"] == json!(80))
    })
    .await?;
    assert_eq!(two.network().await?.ipv4, other.ipv4);
    one.until("its inviter shows them", SOON, async |one| {
        Ok(text(one, &["peers"]).await?.contains(&format!("  {}/28 +1  ", other.ipv4)))
    })
    .await?;

    let banned = value(one, &["ban", "add", &two.name, "--reason", "noise"]).await?;
    assert_eq!(banned["ban"]["node_id"], node_id.as_str());
    assert!(text(one, &["ban", "list"]).await?.contains("noise"));
    assert!(text(one, &["peers"]).await?.contains("  banned  "));
    assert!(text(one, &["ban", "remove", &two.name]).await?.ends_with("is not banned any more\n"));
    reach(one, two).await?;

    one.until("it sees the tunnel", SOON, up).await?;
    let report = doctor(one).await?;
    assert_eq!(problems(&report), Vec::<String>::new(), "{report}");
    let of = |subject: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["subject"] == subject).collect::<Vec<_>>()
    };
    // The router of a laboratory is this laboratory's program.
    assert!(of("router")[0]["message"].as_str().unwrap().contains(", of lab (pid "), "{report}");
    assert_eq!(of("members")[0]["message"], "tunnels to 1 of 1 members are up");
    assert_eq!(of("files")[0]["level"], "ok", "{report}");
    let people = run_doctor(one, false).await?;
    assert!(
        people.status.success() && people.stdout.starts_with("ok       router   SAM "),
        "{}",
        people.stdout
    );
    assert_eq!(network.members, 2);
    Ok(())
}

async fn a_revoked_node_is_told_how_to_come_back(one: &Node, two: &Node) -> Result<(), Failure> {
    let revoked = text(one, &["revoke", &two.name, "--yes"]).await?;
    assert!(revoked.starts_with(&format!("{} is revoked: 1 member out\n", two.name)), "{revoked}");
    let out = async |two: &Node| Ok(value(two, &["status"]).await?["network"].is_null());
    two.until("it knows that it is out", SOON, out).await?;
    let status = text(two, &["status"]).await?;
    assert!(
        status.contains("warning: this node is out of network ")
            && status.contains(": its membership was revoked by ")
            && status.contains("\n   hint: ask for a new invite and run `i2planctl join`; ")
            && status.contains("kept as meshd/state.1 in the data directory\n"),
        "{status}"
    );
    assert!(two.state("meshd").join("state.1").exists());
    assert_eq!(doctor(two).await?["healthy"], false);

    two.join(&one.invite(&[]).await?).await?.map_err(|error| two.failure(&error.message))?;
    // tund starts anew for another network.
    let fine = async |two: &Node| Ok(value(two, &["status"]).await?["warnings"] == json!([]));
    two.until("nothing is wrong", SOON, fine).await?;
    reach(two, one).await?;
    reach(one, two).await
}

async fn past_events_are_told(node: &Node) -> Result<(), Failure> {
    let told = text(node, &["events", "--since", "1h", "-n", "1"]).await?;
    // Which daemon or session is there first is nobody's to say.
    assert!(told.ends_with(" answers\n") || told.contains("session is"), "the beginning: {told}");
    Ok(())
}

async fn events_are_followed_over_a_crash(node: &Node) -> Result<(), Failure> {
    let log = PathBuf::from(node.path("events.log"));
    let mut events = node.start_ctl(&["--json", "events"], &log)?;
    let mut next = async |event: &str| loop {
        let told: Value = events.next_json().await?;
        if told["event"] == event {
            return Ok::<_, Failure>(told);
        }
    };
    // The stream begins at some moment after its program was started: something happens until it is told.
    let begin = async {
        loop {
            value(node, &["invite", "create"]).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        told = next("invite_created") => assert!(told?["number"].is_u64()),
        never = begin => return never,
    }
    let meshd = node.daemon_pid("meshd").await?;
    signal(meshd, Signal::SIGKILL)?;
    assert!(next("node_lost").await?["error"].is_string());
    next("node_back").await?;
    node.until("meshd is back", SOON, async |node| Ok(node.daemon_pid("meshd").await? != meshd)).await?;
    let created = value(node, &["invite", "create"]).await?;
    assert_eq!(next("invite_created").await?["id"], created["id"]);
    node.ready().await
}

async fn the_doctor_names_open_files_and_sockets(node: &Node) -> Result<(), Failure> {
    let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
    let healthy = async |node: &Node| Ok(problems(&doctor(node).await?).is_empty());
    node.until("nothing is to be fixed", RECOVERY, healthy).await?;
    let socket = node.socket();
    set(&socket, 0o666)?;
    let state = node.state("keyd");
    set(&state, 0o755)?;
    let found = problems(&doctor(node).await?);
    let (socket_text, state_text) = (socket.display().to_string(), state.display().to_string());
    assert_eq!(
        found,
        [
            format!("meshd: every user of this machine may connect to {socket_text}"),
            format!("keyd: {state_text} is open to others"),
        ]
    );
    set(&socket, 0o660)?;
    set(&state, 0o700)?;
    assert_eq!(problems(&doctor(node).await?), Vec::<String>::new());
    Ok(())
}

async fn a_node_without_router_says_so(lab: &mut Lab) -> Result<(), Failure> {
    lab.kill_router(0).await?;
    let node = &lab.nodes[0];
    node.until("it sees that its router is gone", SOON, async |node| {
        Ok(node.status().await?.sam.control.state != "up")
    })
    .await?;
    let report = doctor(node).await?;
    let router = "router: no SAM bridge at 127.0.0.1:7656: nothing listens there";
    assert!(problems(&report).iter().any(|problem| problem == router), "{report}");
    let people = run_doctor(node, false).await?;
    assert_eq!(people.status.code(), Some(1));
    let hint = "hint: start the I2P router and enable its SAM bridge";
    assert!(people.stdout.contains(hint), "{}", people.stdout);
    assert!(text(node, &["status"]).await?.starts_with("warning: "));
    lab.restart_router(0).await?;
    let node = &lab.nodes[0];
    node.until("nothing is to be fixed", RECOVERY, async |node| Ok(problems(&doctor(node).await?).is_empty()))
        .await
}

/// Anybody on the host can listen at the router's port while the router does not run.
#[test]
fn what_answers_in_the_routers_place_drives_no_terminal() {
    sandboxed(LAB, "what_answers_in_the_routers_place_drives_no_terminal", async || {
        let mut lab = Lab::with_nodes(1).await?;
        lab.kill_router(0).await?;
        let node = &lab.nodes[0];
        let listener = netns::within(&node.name, || Ok(std::net::TcpListener::bind(SAM)?))?;
        std::thread::spawn(move || {
            let answer =
                b"HELLO REPLY RESULT=I2P_ERROR MESSAGE=\"forged\x1b]0;t\x07\xc2\x9b2J\xe2\x80\xae\"\n";
            for mut connection in listener.incoming().map_while(Result::ok) {
                let _ = connection.read(&mut [0; 100]).and_then(|_| connection.write_all(answer));
            }
        });
        node.until("its status tells of the answer", SOON, async |node| {
            Ok(text(node, &["status"]).await?.contains("I2P_ERROR"))
        })
        .await?;
        let doctors = run_doctor(node, false).await?.stdout;
        let told = [text(node, &["status"]).await?, doctors, std::fs::read_to_string(node.log())?];
        for text in told {
            assert!(text.contains("refuses SAM 3.0 to 3.3: I2P_ERROR"), "{text}");
            // Of what it says keyd passes on no more than that.
            assert!(!text.contains("forged"), "{text}");
            assert!(!text.contains(|char| char != '\n' && is_unsafe(char)), "{text:?}");
        }
        lab.stop().await
    });
}

async fn a_stopped_node_says_so(node: &mut Node) -> Result<(), Failure> {
    node.stop_daemons().await?;
    let output = node.ctl(&["peers"], "").await?;
    assert_eq!(output.status.code(), Some(3));
    assert!(
        output.stderr.starts_with("error: i2plan is not running: there is no socket "),
        "{}",
        output.stderr
    );
    let report = doctor(node).await?;
    let found = problems(&report);
    assert!(found.iter().any(|problem| problem.starts_with("node: i2plan is not running")), "{found:?}");
    assert_eq!(found.len(), 1, "and nothing that follows from it: {found:?}");
    // What can be told without a node is told.
    let findings = report["findings"].as_array().unwrap().iter();
    let fine: Vec<_> = findings
        .filter(|finding| finding["level"] == "ok")
        .map(|finding| finding["subject"].as_str().unwrap())
        .collect();
    for subject in ["config", "router", "tun"] {
        assert!(fine.contains(&subject), "{report}");
    }

    // A configuration that no daemon starts with.
    let config = node.config();
    let good = std::fs::read_to_string(&config)?;
    std::fs::write(&config, good.replace("tunnel_length", "tunnel_lenght"))?;
    let found = problems(&doctor(node).await?);
    assert!(
        found.iter().any(|problem| problem.starts_with("config: ") && problem.contains(":6: ")),
        "{found:?}"
    );
    let check = node.ctl(&["config", "check", config.to_str().unwrap()], "").await?;
    assert_eq!(check.status.code(), Some(1), "{}", check.stderr);
    std::fs::write(&config, good)?;
    assert!(text(node, &["config", "check", config.to_str().unwrap()]).await?.ends_with(" is valid\n"));
    node.start_daemons()?;
    node.ready().await
}
