//! Attacks on the sandbox of each daemon, from inside: every attempt fails, and how is written here.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum as _;
use lab::Failure;
use lab::i2p::PORT;
use lab::intruder::{Attempt, Outcome, Seat};
use lab::node::{Lab, Node, process_of};
use lab::process::{Spawn, signal};
use lab::sandbox::bin;
use lab::testing::sandboxed;
use nix::errno::Errno;
use nix::sys::signal::Signal;

/// How long an interface may take to come up, or a daemon to come back.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// The node's daemons, in the order of their users here.
const DAEMONS: [&str; 4] = ["keyd", "meshd", "tund", "connector"];

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How an attempt may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It works.
    Done,
    /// The kernel answers with an error.
    Refused(Errno),
    /// The seccomp filter kills the process.
    Killed,
}

use End::{Done, Killed, Refused};

/// What an attempt is aimed at.
#[derive(Debug, Clone, Copy, Default)]
struct Target<'a> {
    path: Option<&'a Path>,
    pid: Option<u32>,
    port: Option<u16>,
}

fn at(path: &Path) -> Target<'_> {
    Target { path: Some(path), ..Target::default() }
}

fn of(pid: u32) -> Target<'static> {
    Target { pid: Some(pid), ..Target::default() }
}

fn to(port: u16) -> Target<'static> {
    Target { port: Some(port), ..Target::default() }
}

const NOTHING: Target<'static> = Target { path: None, pid: None, port: None };

/// Which of a node's users sits in a seat, and which state directory is its own.
fn user(seat: Seat) -> Option<(usize, &'static str)> {
    match seat {
        Seat::Free => None,
        Seat::KeydStarting | Seat::Keyd => Some((0, "keyd")),
        Seat::Connector => Some((5, "connector")),
        Seat::Meshd => Some((1, "meshd")),
        Seat::TundStarting | Seat::Tund => Some((2, "tund")),
        Seat::Rpcd => Some((3, "rpc")),
        Seat::Webd | Seat::WebdTls => Some((6, "web")),
        Seat::NamedStarting | Seat::Named => Some((7, "named")),
        Seat::RouterdFetching | Seat::Routerd => Some((4, "routerd")),
    }
}

/// Starts an intruder in the node's network namespace; as the daemon's user by the supervisor's own launcher,
/// or as root.
async fn intrude(
    node: &Node,
    seat: Seat,
    attempt: Attempt,
    target: Target<'_>,
    as_user: Option<u32>,
) -> Result<End, Failure> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(uid) = as_user {
        // These are in the control group, which is how they get in at meshd.
        let clients = [Seat::Rpcd, Seat::Webd, Seat::WebdTls, Seat::NamedStarting, Seat::Named];
        let gid = if clients.contains(&seat) { node.group } else { uid };
        args.extend(["__launch".into(), format!("--uid={uid}").into(), format!("--gid={gid}").into()]);
        let capability = match seat {
            Seat::TundStarting => Some("CAP_NET_ADMIN"),
            Seat::NamedStarting => Some("CAP_NET_BIND_SERVICE"),
            _ => None,
        };
        args.extend(capability.map(|capability| format!("--capability={capability}").into()));
        args.extend([format!("--parent={}", std::process::id()).into(), "--".into()]);
        args.push(bin().join("lab").into());
    }
    let name = |value: clap::builder::PossibleValue| OsString::from(value.get_name().to_owned());
    args.push("__intrude".into());
    args.push(name(seat.to_possible_value().unwrap()));
    args.push(name(attempt.to_possible_value().unwrap()));
    if let Some(path) = target.path {
        args.extend(["--path".into(), path.into()]);
    }
    if let Some(pid) = target.pid {
        args.extend(["--pid".into(), pid.to_string().into()]);
    }
    if let Some(port) = target.port {
        args.extend(["--port".into(), port.to_string().into()]);
    }
    if let Some((_, daemon)) = user(seat) {
        args.extend(["--own".into(), node.state(daemon).into(), "--config".into(), node.config().into()]);
    }
    let program = if as_user.is_some() { bin().join("i2planctl") } else { bin().join("lab") };
    let output = Spawn::new(&program, args).namespace(Some(&node.name)).same_group().output("").await?;
    if output.status.signal() == Some(Signal::SIGSYS as i32) {
        return Ok(Killed);
    }
    if !output.status.success() {
        return Err(Failure::new(format!("{seat:?} {attempt:?}: {} {}", output.status, output.stderr)));
    }
    match output.stdout.trim() {
        // Another program has taken its place.
        "" => Ok(Done),
        line => Ok(match serde_json::from_str(line).map_err(|error| Failure::new(error.to_string()))? {
            Outcome::Done => Done,
            Outcome::Refused(number) => Refused(Errno::from_raw(number)),
        }),
    }
}

async fn check(node: &Node, seat: Seat, attempts: &[(Attempt, Target<'_>, End)]) -> Result<(), Failure> {
    let [keyd, meshd, tund] = node.uids;
    let uids =
        [keyd, meshd, tund, node.rpc_uid, node.router_uid, node.connector_uid, node.web_uid, node.names_uid];
    let uid = user(seat).map(|(index, _)| uids[index]);
    for (attempt, target, expected) in attempts {
        let end = intrude(node, seat, *attempt, *target, uid).await?;
        println!("{seat:?} {attempt:?} {target:?}: {end:?}");
        assert_eq!(end, *expected, "{seat:?} {attempt:?} {target:?}");
    }
    Ok(())
}

/// Attempts that no daemon's work needs, so that each daemon's filter kills the process. The first list ends
/// for root, outside every sandbox, as it should: the attempts do what they say.
fn never() -> Vec<(Attempt, Target<'static>)> {
    [
        Attempt::Execute,
        Attempt::Fork,
        Attempt::Thread,
        Attempt::PacketSocket,
        Attempt::UserNamespace,
        Attempt::NetworkNamespace,
        Attempt::BecomeRoot,
        Attempt::ExecutableMapping,
        Attempt::MakeExecutable,
        Attempt::MemoryFile,
        Attempt::Ring,
        Attempt::Bpf,
        Attempt::Keyring,
        Attempt::CoreDump,
    ]
    .map(|attempt| (attempt, NOTHING))
    .into()
}

#[test]
fn nothing_gets_out_of_the_sandbox() {
    sandboxed(LAB, "nothing_gets_out_of_the_sandbox", async || {
        let mut lab = Lab::start().await?;
        lab.add_node_with_routerd(true).await?.ready().await?;
        let node = &lab.nodes[0];
        let router = process_of(node.router_uid)?;
        let mut pids = Vec::new();
        for daemon in DAEMONS {
            pids.push(node.daemon_pid(daemon).await?);
        }
        let others =
            |own: usize| pids.iter().enumerate().filter(move |(index, _)| *index != own).map(|(_, pid)| *pid);

        let passwd = Path::new("/etc/passwd");
        let keys = node.state("keyd").join("keys");
        assert!(keys.exists(), "there is a key to steal at {}", keys.display());
        let outside = Path::new("/tmp/i2plan-intruder");
        let slash = Path::new("/");
        let new = node.state("meshd").join("new");
        let sockets = ["keyd-meshd", "keyd-tund", "keyd-connector", "keyd-control", "meshd", "tund"]
            .map(|name| node.socket().with_file_name(format!("{name}.sock")));
        let [keyd_for_meshd, keyd_for_tund, keyd_for_connector, keyd_control, meshd_socket, tund_socket] =
            &sockets;
        // A port that somebody listens on besides the SAM bridge: the router's own.
        let other_port = to(PORT);
        let files = |end| {
            vec![
                (Attempt::ReadFile, at(passwd), end),
                (Attempt::ReadFile, at(&keys), end),
                (Attempt::WriteFile, at(outside), end),
                (Attempt::ListDirectory, at(slash), end),
            ]
        };
        let processes = |own: usize, file: End, calls: End| {
            let mut attempts = Vec::new();
            for pid in others(own) {
                attempts.push((Attempt::ReadMemoryFile, of(pid), file));
                for attempt in [Attempt::ReadMemory, Attempt::Trace, Attempt::Signal] {
                    attempts.push((attempt, of(pid), calls));
                }
            }
            attempts
        };
        let sockets_of_the_network = |end| {
            vec![
                (Attempt::ConnectTcp, to(7656), end),
                (Attempt::ConnectTcp, other_port, end),
                (Attempt::ListenTcp, to(4242), end),
                (Attempt::Udp, NOTHING, end),
                (Attempt::RawSocket, NOTHING, end),
                (Attempt::NetlinkSocket, NOTHING, end),
            ]
        };
        let killed =
            || never().into_iter().map(|(attempt, target)| (attempt, target, Killed)).collect::<Vec<_>>();

        // Without a sandbox all of it works, or this test would show nothing.
        let mut free = files(Done);
        free.extend(processes(usize::MAX, Done, Done));
        free.extend(sockets_of_the_network(Done));
        free.extend(never().into_iter().map(|(attempt, target)| (attempt, target, Done)));
        free.extend([
            (Attempt::Capability, NOTHING, Done),
            (Attempt::Mount, at(Path::new("/mnt")), Done),
            (Attempt::MakeDirectory, at(&new), Done),
            (Attempt::ConnectUnix, at(keyd_for_meshd), Done),
            (Attempt::ConnectUnix, at(keyd_for_connector), Done),
            (Attempt::ConnectUnix, at(keyd_control), Done),
            (Attempt::ConnectUnix, at(tund_socket), Done),
            (Attempt::SealableMemoryFile, NOTHING, Done),
        ]);
        check(node, Seat::Free, &free).await?;
        std::fs::remove_dir(&new)?;

        let [keyd, meshd, tund] = node.uids;
        let uids = [keyd, meshd, tund, node.connector_uid];
        // The same user, without a sandbox: a daemon's memory is closed to it by the kernel, as not dumpable.
        for (own, pid) in pids.iter().enumerate() {
            for attempt in [Attempt::ReadMemoryFile, Attempt::ReadMemory, Attempt::Trace] {
                let end = intrude(node, Seat::Free, attempt, of(*pid), Some(uids[own])).await?;
                let refused = [Refused(Errno::EACCES), Refused(Errno::EPERM)];
                assert!(refused.contains(&end), "the user of {own} {attempt:?}: {end:?}");
            }
        }

        // keyd, before it has read its keys: no filter yet, but no file, network or program.
        let mut starting = vec![
            (Attempt::ReadFile, at(passwd), Refused(Errno::EACCES)),
            (Attempt::ReadFile, at(&keys), Done),
            (Attempt::WriteFile, at(outside), Refused(Errno::EACCES)),
            (Attempt::ListDirectory, at(slash), Refused(Errno::EACCES)),
            (Attempt::Execute, NOTHING, Refused(Errno::EACCES)),
            (Attempt::ConnectTcp, to(7656), Refused(Errno::EACCES)),
            (Attempt::ListenTcp, to(4242), Refused(Errno::EACCES)),
            (Attempt::Capability, NOTHING, Refused(Errno::EPERM)),
            (Attempt::BecomeRoot, NOTHING, Refused(Errno::EPERM)),
            (Attempt::CoreDump, NOTHING, Refused(Errno::EPERM)),
        ];
        starting.extend(others(0).map(|pid| (Attempt::Signal, of(pid), Refused(Errno::EPERM))));
        check(node, Seat::KeydStarting, &starting).await?;

        // keyd, tund, rpcd, webd and named at work: every attempt is the last.
        let seats = [
            (Seat::Keyd, 0),
            (Seat::Tund, 2),
            (Seat::Rpcd, usize::MAX),
            (Seat::Webd, usize::MAX),
            (Seat::Named, usize::MAX),
        ];
        for (seat, own) in seats {
            check(node, seat, &files(Killed)).await?;
            check(node, seat, &processes(own, Killed, Killed)).await?;
            check(node, seat, &sockets_of_the_network(Killed)).await?;
            check(node, seat, &killed()).await?;
            let more = [
                (Attempt::Capability, NOTHING, Killed),
                (Attempt::Mount, at(Path::new("/mnt")), Killed),
                (Attempt::MakeDirectory, at(&new), Killed),
            ];
            check(node, seat, &more).await?;
        }
        for socket in &sockets {
            check(node, Seat::Keyd, &[(Attempt::ConnectUnix, at(socket), Killed)]).await?;
        }
        check(node, Seat::Keyd, &[(Attempt::SealableMemoryFile, NOTHING, Killed)]).await?;
        // tund has its supervisor keep its state in one.
        check(node, Seat::Tund, &[(Attempt::SealableMemoryFile, NOTHING, Done)]).await?;
        // tund asks keyd for its key, and nobody else for anything.
        let connections = [
            (Attempt::ConnectUnix, at(keyd_for_tund), Done),
            (Attempt::ConnectUnix, at(keyd_for_meshd), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(keyd_for_connector), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(keyd_control), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(meshd_socket), Refused(Errno::EACCES)),
        ];
        check(node, Seat::Tund, &connections).await?;
        // rpcd, webd and named ask meshd.
        let connections = [
            (Attempt::ConnectUnix, at(keyd_for_meshd), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(tund_socket), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(meshd_socket), Done),
        ];
        check(node, Seat::Rpcd, &connections).await?;
        check(node, Seat::Webd, &connections).await?;
        check(node, Seat::Named, &connections).await?;
        // webd with TLS, besides: reading the directory of its certificate and key.
        check(node, Seat::WebdTls, &connections).await?;
        check(node, Seat::WebdTls, &files(Refused(Errno::EACCES))).await?;
        check(node, Seat::WebdTls, &processes(usize::MAX, Refused(Errno::EACCES), Killed)).await?;
        check(node, Seat::WebdTls, &sockets_of_the_network(Killed)).await?;
        check(node, Seat::WebdTls, &killed()).await?;
        let config = node.config();
        let more = [
            (Attempt::ReadFile, at(&config), Done),
            (Attempt::WriteFile, at(&config), Refused(Errno::EACCES)),
            (Attempt::Capability, NOTHING, Killed),
            (Attempt::Mount, at(Path::new("/mnt")), Killed),
            (Attempt::MakeDirectory, at(&new), Killed),
        ];
        check(node, Seat::WebdTls, &more).await?;

        // named with its capability: its sockets, and no more.
        check(node, Seat::NamedStarting, &files(Killed)).await?;
        check(node, Seat::NamedStarting, &processes(usize::MAX, Killed, Killed)).await?;
        check(node, Seat::NamedStarting, &killed()).await?;
        check(node, Seat::NamedStarting, &connections).await?;
        let starting = [
            (Attempt::ConnectTcp, to(7656), Refused(Errno::EACCES)),
            (Attempt::ConnectTcp, other_port, Refused(Errno::EACCES)),
            (Attempt::ListenTcp, to(53), Done),
            (Attempt::ListenTcp, to(4242), Refused(Errno::EACCES)),
            (Attempt::Udp, NOTHING, Done),
            (Attempt::RawSocket, NOTHING, Killed),
            (Attempt::NetlinkSocket, NOTHING, Killed),
            (Attempt::SealableMemoryFile, NOTHING, Killed),
            (Attempt::Capability, NOTHING, Refused(Errno::EPERM)),
            (Attempt::Mount, at(Path::new("/mnt")), Killed),
            (Attempt::MakeDirectory, at(&new), Killed),
        ];
        check(node, Seat::NamedStarting, &starting).await?;

        // The connector at work: the SAM bridge and keyd, and no file.
        check(node, Seat::Connector, &files(Killed)).await?;
        check(node, Seat::Connector, &processes(3, Killed, Killed)).await?;
        check(node, Seat::Connector, &killed()).await?;
        let connector = [
            (Attempt::ConnectTcp, to(7656), Done),
            (Attempt::ConnectTcp, other_port, Refused(Errno::EACCES)),
            (Attempt::ListenTcp, to(4242), Killed),
            // Connected sockets alone: this one is bound.
            (Attempt::Udp, NOTHING, Killed),
            (Attempt::RawSocket, NOTHING, Killed),
            (Attempt::NetlinkSocket, NOTHING, Killed),
            (Attempt::ConnectUnix, at(keyd_for_connector), Done),
            (Attempt::ConnectUnix, at(keyd_for_meshd), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(keyd_for_tund), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(meshd_socket), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(tund_socket), Refused(Errno::EACCES)),
            (Attempt::SealableMemoryFile, NOTHING, Killed),
            (Attempt::Capability, NOTHING, Killed),
            (Attempt::Mount, at(Path::new("/mnt")), Killed),
            (Attempt::MakeDirectory, at(&new), Killed),
        ];
        check(node, Seat::Connector, &connector).await?;

        // meshd at work: its state directory, its configuration and the other daemons; no network.
        check(node, Seat::Meshd, &files(Refused(Errno::EACCES))).await?;
        check(node, Seat::Meshd, &processes(1, Refused(Errno::EACCES), Killed)).await?;
        check(node, Seat::Meshd, &killed()).await?;
        check(node, Seat::Meshd, &sockets_of_the_network(Killed)).await?;
        let config = node.config();
        let meshd = [
            (Attempt::WriteFile, at(&new), Done),
            (Attempt::ReadFile, at(&config), Done),
            (Attempt::WriteFile, at(&config), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(keyd_for_meshd), Done),
            (Attempt::ConnectUnix, at(keyd_for_tund), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(keyd_for_connector), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(keyd_control), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(tund_socket), Done),
            (Attempt::ConnectUnix, at(meshd_socket), Refused(Errno::EACCES)),
            (Attempt::SealableMemoryFile, NOTHING, Killed),
            (Attempt::Capability, NOTHING, Killed),
            (Attempt::Mount, at(Path::new("/mnt")), Killed),
            (Attempt::MakeDirectory, at(&new), Killed),
        ];
        check(node, Seat::Meshd, &meshd).await?;

        // tund with its capability: what an interface needs, and no more.
        check(node, Seat::TundStarting, &files(Refused(Errno::EACCES))).await?;
        check(node, Seat::TundStarting, &processes(2, Refused(Errno::EACCES), Killed)).await?;
        check(node, Seat::TundStarting, &killed()).await?;
        let starting = [
            (Attempt::ConnectTcp, to(7656), Killed),
            (Attempt::ListenTcp, to(4242), Killed),
            (Attempt::RawSocket, NOTHING, Killed),
            (Attempt::NetlinkSocket, NOTHING, Done),
            (Attempt::SealableMemoryFile, NOTHING, Done),
            (Attempt::Capability, NOTHING, Refused(Errno::EPERM)),
            (Attempt::Mount, at(Path::new("/mnt")), Killed),
            (Attempt::MakeDirectory, at(&new), Killed),
        ];
        check(node, Seat::TundStarting, &starting).await?;

        // Before routerd, the program that fetches its seed: what everybody may read, and web servers.
        let router_keys = node.state("routerd").join("router.keys");
        let mut fetching = vec![
            (Attempt::ReadFile, at(passwd), Done),
            (Attempt::ReadFile, at(&router_keys), Refused(Errno::EACCES)),
            (Attempt::WriteFile, at(outside), Refused(Errno::EACCES)),
            (Attempt::ListDirectory, at(slash), Refused(Errno::EACCES)),
            (Attempt::Execute, NOTHING, Refused(Errno::EACCES)),
            (Attempt::ConnectTcp, to(7656), Refused(Errno::EACCES)),
            // Nobody listens there.
            (Attempt::ConnectTcp, to(443), Refused(Errno::ECONNREFUSED)),
            (Attempt::ListenTcp, to(4242), Refused(Errno::EACCES)),
            (Attempt::ConnectUnix, at(meshd_socket), Refused(Errno::EACCES)),
            (Attempt::Capability, NOTHING, Refused(Errno::EPERM)),
            (Attempt::BecomeRoot, NOTHING, Refused(Errno::EPERM)),
            (Attempt::CoreDump, NOTHING, Refused(Errno::EPERM)),
        ];
        for attempt in [Attempt::ReadMemoryFile, Attempt::ReadMemory, Attempt::Trace, Attempt::Signal] {
            let refused = if attempt == Attempt::ReadMemoryFile { Errno::EACCES } else { Errno::EPERM };
            fetching.push((attempt, of(router), Refused(refused)));
        }
        check(node, Seat::RouterdFetching, &fetching).await?;

        // routerd: its directory, and the network, but no other listener than its own, and no daemon.
        check(node, Seat::Routerd, &files(Refused(Errno::EACCES))).await?;
        check(node, Seat::Routerd, &processes(usize::MAX, Refused(Errno::EACCES), Killed)).await?;
        check(node, Seat::Routerd, &killed()).await?;
        let (own, new) = (node.state("routerd").join("new"), node.state("routerd").join("directory"));
        let routerd = [
            (Attempt::WriteFile, at(&own), Done),
            (Attempt::ReadFile, at(&config), Refused(Errno::EACCES)),
            (Attempt::ConnectTcp, to(7656), Done),
            (Attempt::ConnectTcp, other_port, Done),
            (Attempt::ListenTcp, to(4242), Refused(Errno::EACCES)),
            // The router itself is there already.
            (Attempt::ListenTcp, other_port, Refused(Errno::EADDRINUSE)),
            (Attempt::Udp, NOTHING, Done),
            (Attempt::RawSocket, NOTHING, Killed),
            (Attempt::NetlinkSocket, NOTHING, Killed),
            (Attempt::ConnectUnix, at(keyd_for_meshd), Killed),
            (Attempt::ConnectUnix, at(tund_socket), Killed),
            (Attempt::ConnectUnix, at(meshd_socket), Killed),
            (Attempt::SealableMemoryFile, NOTHING, Killed),
            (Attempt::Capability, NOTHING, Killed),
            (Attempt::Mount, at(Path::new("/mnt")), Killed),
            (Attempt::MakeDirectory, at(&new), Killed),
        ];
        check(node, Seat::Routerd, &routerd).await?;
        for attempt in [Attempt::ReadMemoryFile, Attempt::ReadMemory, Attempt::Trace] {
            let end = intrude(node, Seat::Free, attempt, of(router), Some(node.router_uid)).await?;
            assert!([Refused(Errno::EACCES), Refused(Errno::EPERM)].contains(&end), "{attempt:?}: {end:?}");
        }

        // None of that has harmed the node.
        assert_eq!(process_of(node.router_uid)?, router);
        for (daemon, pid) in DAEMONS.into_iter().zip(&pids) {
            assert_eq!(node.daemon_pid(daemon).await?, *pid);
        }
        lab.stop().await
    });
}

#[test]
fn the_doctor_sees_the_sandboxes_and_a_breach_is_told() {
    sandboxed(LAB, "the_doctor_sees_the_sandboxes_and_a_breach_is_told", async || {
        let mut lab = Lab::start().await?;
        lab.add_node().await?.ready().await?;
        let node = &lab.nodes[0];
        // Founds a network, so that the interface comes up and tund gives up its capability.
        node.invite(&[]).await?;
        node.until("the interface is up", GIVEN_UP, async |node| {
            Ok(node.status().await?.tunnel.interface.is_some())
        })
        .await?;
        let report = node.ctl(&["--json", "doctor"], "").await?;
        println!("{}", report.stdout);
        let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
        assert_eq!(report["healthy"], true);
        let [keyd, meshd, tund] = node.uids;
        for (daemon, uid) in DAEMONS.into_iter().zip([keyd, meshd, tund, node.connector_uid]) {
            let sandbox = &report["walls"][daemon];
            assert_eq!(sandbox["uid"], uid, "{daemon}");
            assert_eq!(sandbox["pid"], node.daemon_pid(daemon).await?, "{daemon}");
            assert_eq!(sandbox["confirmed"], daemon != "connector", "{daemon}");
            assert_eq!(sandbox["capabilities"], "0000000000000000", "{daemon}");
            assert_eq!(sandbox["landlock"], "full", "{daemon}");
            assert_eq!(sandbox["dumpable"], false, "{daemon}");
            assert_eq!(
                (&sandbox["seccomp"], &sandbox["no_new_privs"]),
                (&true.into(), &true.into()),
                "{daemon}"
            );
        }

        assert_eq!(report["walls"]["rpcd"]["confirmed"], true);
        // Being asked who it is is nothing to warn of.
        assert!(!std::fs::read_to_string(node.log())?.contains("refused a connection"));

        // As the kernel ends a process that makes a forbidden call.
        let breached = node.daemon_pid("keyd").await?;
        signal(breached, Signal::SIGSYS)?;
        node.until("keyd is back", GIVEN_UP, async |node| Ok(node.daemon_pid("keyd").await? != breached))
            .await?;
        let log = std::fs::read_to_string(node.log())?;
        assert!(
            log.contains("keyd was killed by SIGSYS (31): it made a system call that its sandbox forbids")
        );
        lab.stop().await
    });
}
