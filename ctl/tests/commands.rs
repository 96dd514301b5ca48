//! The program against a node that says what the test wants.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::io::{BufRead as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{PROGRAM, command, copy_program, need_root, open_dir, stderr, stdout};
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::{
    Ban, BanReason, ConfigChange, Conflict, ControlDestination, Counters, Cursor, Daemon, Event, EventKind,
    Events, Former, Grant, Invite, InviteState, IssuedInvite, JoinStep, Keys, KeysProblem, Liveness,
    MeshdApi, MessageCounts, Network, Peer, Reply, Request, Route, Sam, SessionHealth, SessionName,
    SessionState, Setting, Source, Status, Tunnel, WireGuardKey, WriteCounts,
};
use i2plan_ipc::api::tund::{Drops, Handshakes, HostUse, InterfaceFault, Overlap};
use i2plan_ipc::fixtures;
use i2plan_ipc::frame::{HEADER_LEN, Header, encode_body};
use i2plan_ipc::hello::{HelloReply, Landlock, PROTOCOL};
use i2plan_ipc::histogram::Histogram;
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::server::{Answer, ConnectionLimits, Service, serve};
use i2plan_ipc::version::{self, Version};
use i2plan_ipc::{ApiError, ErrorKind, Role};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::invite::InviteSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

/// Room for a hello, bytes.
const MAX_HELLO: usize = 4096;

const SECRET: &str = "i2plan://the-secret";

/// Answers each request with one fixed reply, or every request with an error.
struct FakeMeshd {
    error: Option<ApiError>,
    network: Option<Network>,
    /// Its addresses are another's, or its membership was revoked.
    status: fn(&mut Status),
    /// The only code that leads anywhere.
    code: String,
    /// The host uses addresses of every network.
    overlaps: bool,
    /// An invite was revoked with its members.
    members_revoked: Arc<AtomicBool>,
}

impl Service for FakeMeshd {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        // The network itself could be joined.
        if let Some(error) = self.error.as_ref().filter(|_| !matches!(request, Request::CheckNetwork { .. }))
        {
            return Err(error.clone());
        }
        Ok(match request {
            Request::Status => {
                let mut status = status(self.network.clone());
                (self.status)(&mut status);
                Reply::Status(Box::new(status))
            }
            Request::Peers => Reply::Peers(vec![
                peer("zoe"),
                peer("anna"),
                Peer {
                    ipv4: "10.42.0.3".parse().unwrap(),
                    inviters: vec!["founder".to_owned(), "anna".to_owned()],
                    ..peer("below")
                },
            ]),
            Request::Ping { .. } => Reply::Pinged { milliseconds: 41 },
            Request::Keys => Reply::Keys(Box::new(keys(self.network.is_some()))),
            Request::CreateInvite { expires_in, max_uses, addresses, .. } => Reply::Invite(Invite {
                invite: SecretText::new(SECRET.to_owned()),
                id: "inviteid".to_owned(),
                expires_at: 1_800_000_000 + expires_in,
                max_uses,
                addresses: addresses.unwrap_or(if max_uses == Some(1) { 16 } else { 1 }),
                network: "networkid".to_owned(),
                founded: true,
            }),
            Request::RecoverKeys => Reply::KeysRecovered { delegations: 3 },
            Request::CheckNetwork { subnet, .. } if self.overlaps => {
                return Err(ApiError::conflict(format!("the host uses addresses of {subnet}")));
            }
            Request::CheckNetwork { .. } => Reply::Acceptable,
            Request::RotateKey => match keys(true).wireguard {
                Some(key) => Reply::Rotated(WireGuardKey { epoch: 2, ..key }),
                None => return Err(ApiError::internal("a member has a key")),
            },
            Request::ListInvites => Reply::Invites(vec![issued(InviteState::Open)]),
            Request::RevokeInvite { id, with_members } if id == "inviteid" => {
                self.members_revoked.store(with_members, Ordering::Relaxed);
                Reply::InviteRevoked(issued(InviteState::Revoked))
            }
            Request::RevokeInvite { .. } => {
                return Err(ApiError::new(ErrorKind::NotFound, "this node has made no invite with this id"));
            }
            Request::Grant { node_id, addresses } => Reply::Granted(Grant {
                node_id,
                ranges: vec!["10.42.0.16/28".to_owned(), "10.42.8.0/26".to_owned()],
                addresses: 16 + u64::from(addresses),
            }),
            Request::Routes => {
                let (ipv4, name) = ("10.42.0.9".parse().unwrap(), "alpha".to_owned());
                Reply::Routes(vec![Route { ipv4, name, hops: Some(0), last_seen: None, ..route() }, route()])
            }
            Request::Counters => Reply::Counters(Box::new(Counters {
                started_at: 1_800_000_000,
                messages: MessageCounts { sent: 7, ..MessageCounts::default() },
                handshakes: Handshakes::default(),
                state_writes: WriteCounts::default(),
                rounds: Histogram::default(),
                sends: Histogram::default(),
                events: Vec::new(),
            })),
            Request::ListBans => Reply::Bans(vec![ban("mallory", None)]),
            Request::AddBan { node_id, duration, .. } => Reply::BanAdded(ban(&node_id, duration)),
            Request::RemoveBan { node_id } => Reply::BanRemoved(ban(&node_id, None)),
            Request::Revoke { node_id } => Reply::Revoked(vec![node_id, "below".to_owned()]),
            Request::AllowInvite { .. } | Request::Enact(_) => {
                return Err(ApiError::invalid("this node takes no orders"));
            }
            Request::Leave => Reply::Left("networkid".to_owned()),
            Request::Join { invite } if invite.expose() == self.code => Reply::Joined(network()),
            Request::Join { .. } => return Err(ApiError::invalid("that is another code")),
            Request::Events { after, wait, .. } => {
                let happened = events();
                let end = Cursor { run: 1, number: happened.len() as u64 };
                match after {
                    None => events_from(Cursor { run: 1, number: 0 }, Vec::new(), false),
                    Some(Cursor { number: 0, .. }) => events_from(end, happened, false),
                    // Once it has missed something.
                    Some(place) if place == end => {
                        events_from(Cursor { number: end.number + 1, ..end }, Vec::new(), true)
                    }
                    Some(place) => {
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                        events_from(place, Vec::new(), false)
                    }
                }
            }
            Request::Config => Reply::Config(vec![setting()]),
            Request::SetConfig { key, .. } if key != "node.name" => {
                return Err(ApiError::new(ErrorKind::NotFound, "there is no such key"));
            }
            Request::SetConfig { key, value } => Reply::ConfigChanged(vec![ConfigChange {
                key,
                before: Some("alpha".to_owned()),
                after: Some(value),
                restart: false,
            }]),
            Request::Reload => Reply::ConfigChanged(Vec::new()),
        }
        .into())
    }
}

fn setting() -> Setting {
    Setting {
        key: "node.name".to_owned(),
        variable: "I2PLAN_NODE_NAME".to_owned(),
        value: Some("alpha".to_owned()),
        source: Source::File { path: "/etc/i2plan/config.toml".to_owned(), line: 3 },
        live: true,
        pending: None,
    }
}

fn events_from(next: Cursor, events: Vec<Event>, lost: bool) -> Reply {
    Reply::Events(Box::new(Events { events, next, lost, traffic: None }))
}

/// One of each kind.
fn events() -> Vec<Event> {
    let text = str::to_owned;
    let (node_id, name) = (|| text("abcdefghij"), || text("anna"));
    let all = [
        EventKind::NetworkJoined {
            network: text("networkid"),
            name: text("office"),
            ipv4: text("10.42.7.9"),
        },
        EventKind::NetworkLeft { network: text("networkid"), revoked: true },
        EventKind::AddressChanged { ipv4: text("10.42.7.10") },
        EventKind::MemberAdded { node_id: node_id(), name: name() },
        EventKind::MemberChanged { node_id: node_id(), name: name() },
        EventKind::MemberRemoved { node_id: node_id(), name: name() },
        EventKind::MemberLiveness { node_id: node_id(), name: name(), liveness: Liveness::Away },
        EventKind::TunnelUp { node_id: node_id(), name: name() },
        EventKind::TunnelDown { node_id: node_id(), name: name() },
        EventKind::InviteCreated { id: text("inviteid") },
        EventKind::InviteUsed { id: text("inviteid"), node_id: node_id() },
        EventKind::InviteRevoked { id: text("inviteid") },
        EventKind::BanAdded { node_id: node_id(), name: Some(name()), reason: BanReason::Manual },
        EventKind::BanRemoved { node_id: node_id(), name: None },
        EventKind::Session {
            session: SessionName::Data,
            state: SessionState::Down,
            error: Some(text("gone")),
        },
        EventKind::SessionHealth {
            session: SessionName::Control,
            health: SessionHealth::Replacing,
            silent: 42,
            replaced: false,
        },
        EventKind::DaemonUp { daemon: text("keyd") },
        EventKind::DaemonDown { daemon: text("keyd"), error: text("gone") },
        EventKind::HostOverlap { overlaps: vec![text("10.42.0.0/16 overlaps")] },
        EventKind::InterfaceUp { interface: text("i2plan0") },
        EventKind::KeyRotated { epoch: 2 },
        EventKind::ConfigChanged { key: text("node.name"), value: text("beta") },
        EventKind::JoinProgress { step: JoinStep::Asking },
        EventKind::Log { level: text("warn"), target: text("meshd"), message: text("a \x1b[2J line") },
    ];
    let numbered = all.into_iter().zip(0..);
    numbered.map(|(kind, number)| Event { number, at: 1_800_000_000_000 + number, kind }).collect()
}

fn network() -> Network {
    Network {
        id: "networkid".to_owned(),
        founder: false,
        inviters: vec!["founder".to_owned()],
        ranges: vec!["10.42.7.9/32".to_owned()],
        addresses: 1,
        addresses_left: 0,
        conflicts: vec![Conflict {
            node_id: "abcdefghijklm".to_owned(),
            name: Some("web".to_owned()),
            range: "10.42.3.16/28".to_owned(),
        }],
        ..fixtures::network()
    }
}

fn status(network: Option<Network>) -> Status {
    // Of the same build as the program that is tested.
    version::set(version::build!());
    let daemon = |name, error: Option<&str>| Daemon {
        pid: error.is_none().then(std::process::id),
        version: error.is_none().then(Version::current),
        landlock: error.is_none().then_some(Landlock::Full),
        error: error.map(str::to_owned),
        ..fixtures::daemon(name)
    };
    let status = fixtures::status();
    Status {
        uptime: 61,
        network,
        sam: Sam { version: Some("3.2".to_owned()), fallback: Some(fixtures::session()), ..status.sam },
        tunnel: Tunnel {
            drops: Some(Drops::default()),
            overlaps: vec![Overlap {
                prefix: "10.42.0.0/16".to_owned(),
                kind: HostUse::Route,
                host_prefix: "10.0.0.0/8".to_owned(),
                interface: Some("vpn".to_owned()),
            }],
            faults: vec![InterfaceFault::Mtu { found: 1500 }],
            ..status.tunnel
        },
        daemons: vec![daemon("tund", None), daemon("keyd", Some("gone"))],
        // No warning: keyd is down, which says it.
        keys: vec![KeysProblem::Refused {
            request: "sign this node's record".to_owned(),
            count: 3,
            error: "its clock".to_owned(),
            remedy: None,
        }],
        ..status
    }
}

fn keys(member: bool) -> Keys {
    Keys {
        node_id: "nodeid".to_owned(),
        sealed: true,
        control: ControlDestination { b32: "x.b32.i2p".to_owned(), base64: "AAAA".to_owned() },
        network: member.then(|| "networkid".to_owned()),
        wireguard: member.then(|| WireGuardKey {
            public_key: "key=".to_owned(),
            epoch: 1,
            not_before: 1_800_000_000,
            not_after: 1_800_086_400,
        }),
    }
}

fn peer(name: &str) -> Peer {
    Peer {
        ipv4: "10.42.0.1".parse().unwrap(),
        ranges: vec!["10.42.0.1/32".to_owned()],
        last_handshake: Some(10),
        tx_bytes: 2048,
        ..fixtures::peer(name, name)
    }
}

fn issued(state: InviteState) -> IssuedInvite {
    IssuedInvite {
        id: "inviteid".to_owned(),
        state,
        created_at: 1_800_000_000,
        expires_at: 1_800_003_600,
        max_uses: Some(2),
        addresses: 4,
        used_by: vec!["anna".to_owned(), "zoe".to_owned()],
    }
}

fn route() -> Route {
    Route {
        ipv4: "10.42.0.1".parse().unwrap(),
        ipv6: "fd12::2".parse().unwrap(),
        ranges: vec!["10.42.0.0/28".to_owned()],
        node_id: "anna".to_owned(),
        name: "anna".to_owned(),
        hops: Some(1),
        via: None,
        last_seen: Some(1_800_000_000),
        created: 1_800_000_000,
    }
}

fn ban(node: &str, duration: Option<u64>) -> Ban {
    Ban {
        node_id: node.to_owned(),
        name: Some(node.to_owned()),
        reason: BanReason::Manual,
        description: "noise".to_owned(),
        created_at: 1_800_000_000,
        expires_at: duration.map(|duration| 1_800_000_000 + duration),
        strikes: 0,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A code that is good for so many seconds.
fn code(expires_in: i64) -> String {
    let invite = i2plan_proto::invite::Invite {
        network: NetworkId([1; 32]),
        name: "office".parse().unwrap(),
        subnet: Ipv4Subnet::DEFAULT,
        inviter: NodeId([2; 32]),
        control: DestinationHash([3; 32]),
        secret: InviteSecret([4; 32]),
        expires_at: now().saturating_add_signed(expires_in),
    };
    invite.to_code().to_string()
}

/// A node, and the program beside it.
struct Setup {
    dir: TempDir,
    code: String,
    members_revoked: Arc<AtomicBool>,
    _runtime: Option<Runtime>,
}

impl Setup {
    /// Without a node.
    fn empty() -> Self {
        Self { dir: open_dir(), code: code(3600), members_revoked: Arc::default(), _runtime: None }
    }

    fn node(error: Option<ApiError>, network: Option<Network>) -> Self {
        Self::with_status(error, network, |_| {})
    }

    fn with_status(error: Option<ApiError>, network: Option<Network>, status: fn(&mut Status)) -> Self {
        Self::with(error, network, status, false)
    }

    fn with(
        error: Option<ApiError>,
        network: Option<Network>,
        status: fn(&mut Status),
        overlaps: bool,
    ) -> Self {
        let setup = Self::empty();
        let runtime = Runtime::new().unwrap();
        let listener = {
            let _context = runtime.enter();
            UnixListener::bind(setup.socket()).unwrap()
        };
        let members_revoked = setup.members_revoked.clone();
        let code = setup.code.clone();
        let service = FakeMeshd { error, network, status, code, overlaps, members_revoked };
        let access = Access::new([(Role::Client, Who::Anyone)]);
        runtime.spawn(serve(listener, Arc::new(service), access, ConnectionLimits::default()));
        Self { _runtime: Some(runtime), ..setup }
    }

    fn healthy() -> Self {
        Self::node(None, Some(network()))
    }

    fn failing(error: ApiError) -> Self {
        Self::node(Some(error), None)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("meshd.sock")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_with_input(args, "")
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(PROGRAM);
        command.args(args).env("I2PLAN_SOCKET", self.socket());
        command
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever refuses its command line does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
}

/// In which process of this program another user listens, and where.
const LISTEN: &str = "TEST_LISTEN_AT";

#[test]
#[ignore = "no test: the next one runs it as another user"]
fn somebody_who_listens() {
    let Some(path) = std::env::var_os(LISTEN) else { return };
    let listener = StdListener::bind(path).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        let mut text = Vec::new();
        let _ = stream.unwrap().read_to_end(&mut text);
        println!("heard {}", text.len());
    }
}

#[test]
fn nothing_is_said_to_a_socket_of_another_user() {
    need_root();
    let setup = Setup::empty();
    let (theirs, helper) = (setup.dir.path().join("theirs"), setup.dir.path().join("helper"));
    let run = theirs.join(".i2plan/run");
    std::fs::create_dir_all(&run).unwrap();
    for directory in [&theirs, &run] {
        std::os::unix::fs::chown(directory, Some(54_999), Some(54_999)).unwrap();
    }
    common::copy_executable(&std::env::current_exe().unwrap(), &helper);
    for name in ["meshd.sock", "rpc.sock"] {
        let socket = run.join(name);
        let mut listener = std::process::Command::new(&helper)
            .args(["--exact", "somebody_who_listens", "--ignored", "--nocapture"])
            .env(LISTEN, &socket)
            .uid(54_999)
            .gid(54_999)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(listener.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "listening"));
        let args: &[&str] = if name == "rpc.sock" { &["rpc", "status"] } else { &["join"] };
        let mut child = command(PROGRAM)
            .args(args)
            .env("I2PLAN_SOCKET", &socket)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(setup.code.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{said}");
        let expected =
            format!("error: the user 54999 (54999) listens on {}, and no daemon", socket.display());
        assert!(said.starts_with(&expected) && said.contains("unset I2PLAN_SOCKET"), "{said}");
        assert_eq!(lines.next().unwrap(), "heard 0");
        listener.kill().unwrap();
        listener.wait().unwrap();
    }

    // As after `sudo -E`: the home directory of another user is none of root's.
    let output = command(PROGRAM).arg("status").env("HOME", &theirs).output().unwrap();
    assert!(!stderr(&output).contains("theirs"), "{}", stderr(&output));
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", stdout(output)))
}

/// The error for a person and the same as JSON, in the same words.
fn assert_fails(setup: &Setup, args: &[&str], exit_code: i32, kind: &str, message: &str, hint: &str) {
    let human = setup.run(args);
    assert_eq!(human.status.code(), Some(exit_code), "{args:?}: {}", stderr(&human));
    assert_eq!(stdout(&human), "");
    let lines: Vec<_> = stderr(&human).lines().collect();
    assert!(lines[0].starts_with(&format!("error: {message}")), "{}", lines[0]);
    assert!(lines[1].starts_with("hint: ") && lines[1].contains(hint), "{}", lines[1]);

    let machine = setup.run(&[args, &["--json"]].concat());
    assert_eq!(machine.status.code(), Some(exit_code));
    assert_eq!(stderr(&machine), "");
    let error = &json(&machine)["error"];
    assert_eq!(error["kind"], kind);
    assert_eq!(format!("error: {}", error["message"].as_str().unwrap()), lines[0]);
    assert!(error["hint"].as_str().unwrap().contains(hint));
}

#[test]
fn status_for_people_and_programs() {
    let setup = Setup::node(None, None);
    let output = setup.run(&["status"]);
    // The node answered, in whatever state it is.
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.starts_with("warning: keyd does not answer: gone\n   hint: "), "{text}");
    for line in ["Node          alpha", "  uptime      1m 1s", "I2P router    SAM 3.2 at 127.0.0.1:7656"] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing in {text}");
    }

    let value = json(&setup.run(&["--json", "status"]));
    assert_eq!(
        (&value["name"], &value["network"], &value["uptime"]),
        (&json!("alpha"), &Value::Null, &json!(61))
    );
    assert_eq!(value["sam"]["control"]["state"], "up");
    assert_eq!(value["warnings"][0]["message"], "keyd does not answer: gone");
}

#[test]
fn peers_for_people_and_programs() {
    let setup = Setup::healthy();
    let output = setup.run(&["peers"]);
    assert_eq!(
        stdout(&output),
        "NAME   IPV4       IPV6     STATE  HANDSHAKE  HEARD  RTT   RX       TX  DROPS\n\
         anna   10.42.0.1  fd12::2  up       10s ago      -    -  0 B  2.0 KiB  0\n\
         below  10.42.0.3  fd12::2  up       10s ago      -    -  0 B  2.0 KiB  0\n\
         zoe    10.42.0.1  fd12::2  up       10s ago      -    -  0 B  2.0 KiB  0\n"
    );
    // What is wrong with the node stands beside the list.
    assert!(stderr(&output).starts_with("warning: keyd does not answer: gone\n"), "{}", stderr(&output));
    let value = json(&setup.run(&["peers", "--json"]));
    let names: Vec<_> = value["peers"].as_array().unwrap().iter().map(|peer| &peer["name"]).collect();
    assert_eq!(names, ["anna", "below", "zoe"]);
    assert_eq!(value["peers"][1]["inviters"], json!(["founder", "anna"]));
}

#[test]
fn metrics_are_printed_and_are_no_json() {
    let setup = Setup::healthy();
    let output = setup.run(&["metrics"]);
    let text = stdout(&output);
    assert!(text.contains("\ni2plan_peers_total 3\n"), "{text}");
    assert!(text.contains("\ni2plan_messages_sent_total 7\n"), "{text}");
    assert_eq!(setup.run(&["metrics", "--json"]).status.code(), Some(2));
}

#[test]
fn all_about_a_member_is_shown_by_name_and_by_address() {
    let setup = Setup::healthy();
    let output = setup.run(&["peers", "below"]);
    let text = stdout(&output);
    for line in ["Name           below\n", "Invited by     founder, anna (anna) (from the founder down)\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(stdout(&setup.run(&["whois", "10.42.0.3"])), text);
    assert_eq!(stdout(&setup.run(&["peers", "-v"])).matches("Name  ").count(), 3);
    assert_eq!(stdout(&setup.run(&["whois", "10.42.7.9"])), "this node, alpha\n");
    assert_eq!(json(&setup.run(&["peers", "zo", "--json"]))["peers"][0]["name"], "zoe");
    let unknown = ["whois", "10.42.99.1"];
    assert_fails(&setup, &unknown, 1, "not_found", "no member has \"10.42.99.1\"", "10.42.0.0/16");
    assert_eq!(setup.run(&["peers", "--watch", "--json"]).status.code(), Some(2));
}

#[test]
fn the_tree_shows_who_invited_whom() {
    let setup = Setup::healthy();
    let output = setup.command(&["tree"]).env("LC_ALL", "C").output().unwrap();
    assert_eq!(
        stdout(&output),
        "founder  (not known here)\n|- alpha  10.42.7.9  (this node)\n|- anna  10.42.0.1  up\n\
         |  `- below  10.42.0.3  up\n`- zoe  10.42.0.1  up\n"
    );
    let tree = json(&setup.run(&["tree", "--json"]));
    assert_eq!(tree["tree"][0]["name"], Value::Null);
    assert_eq!(tree["tree"][0]["invited"][1]["invited"][0]["name"], "below");
    assert_eq!(Setup::node(None, None).run(&["tree"]).status.code(), Some(5));
}

#[test]
fn what_has_happened_is_told_and_no_more() {
    let setup = Setup::healthy();
    let output = setup.run(&["events", "--since", "10m"]);
    assert!(output.status.success());
    let shown = events().len() - 1;
    assert_eq!(stdout(&output).lines().count(), shown, "{}", stdout(&output));
    assert_eq!(stdout(&setup.run(&["events", "--since", "10m", "--log"])).lines().count(), shown + 1);
    // And followed where that is asked for.
    let output = setup.run(&["events", "--since", "10m", "--follow", "-n", "2"]);
    assert_eq!(stdout(&output).lines().count(), 2);
}

#[test]
fn a_value_is_saved_where_the_node_does_not_run_too() {
    need_root();
    let setup = Setup::empty();
    let home = setup.dir.path().join("home");
    std::fs::create_dir_all(home.join(".i2plan")).unwrap();
    let config = home.join(".i2plan/config.toml");
    std::fs::write(&config, "# mine\n[mesh]\nmax_peers = 5\n").unwrap();
    let set = |key: &str, value: &str| {
        setup.command(&["config", "set", key, value, "--save"]).env("HOME", &home).output().unwrap()
    };
    let output = set("mesh.max_peers", "7");
    assert!(output.status.success() && stderr(&output).contains("does not run"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "# mine\n[mesh]\nmax_peers = 7\n");
    let refused = set("mesh.max_peers", "0");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("mesh.max_peers: "), "{}", stderr(&refused));
}

#[test]
fn routes_for_people_and_programs() {
    let setup = Setup::healthy();
    assert_eq!(
        stdout(&setup.run(&["routes", "--absolute"])),
        "IPV4       IPV6     RANGE         NAME               HOPS  VIA  LAST SEEN             CREATED\n\
         10.42.0.1  fd12::2  10.42.0.0/28  anna                  1  -    2027-01-15T08:00:00Z  2027-01-15T08:00:00Z\n\
         10.42.0.9  fd12::2  10.42.0.0/28  alpha (this node)     0  -    -                     2027-01-15T08:00:00Z\n"
    );
    assert_eq!(json(&setup.run(&["routes", "--json"]))["routes"][0]["hops"], 1);
}

#[test]
fn bans_for_people_and_programs() {
    let setup = Setup::healthy();
    let add = setup.run(&["ban", "add", "anna", "--reason", "noise", "--duration", "1h"]);
    assert_eq!(stdout(&add), "banned anna (anna) until 2027-01-15T09:00:00Z\n");
    assert_eq!(stdout(&setup.run(&["ban", "add", "zo"])), "banned zoe (zoe) until the ban is lifted\n");
    let list = setup.run(&["ban", "list", "--absolute"]);
    let list = stdout(&list);
    assert!(list.contains("mallory  mallory  by hand  lifted  2027-01-15T08:00:00Z  noise\n"), "{list}");
    assert_eq!(json(&setup.run(&["ban", "list", "--json"]))["bans"][0]["reason"], "manual");
    let remove = setup.run(&["ban", "remove", "mallory"]);
    assert_eq!(stdout(&remove), "mallory (mallory) is not banned any more\n");
    assert_fails(&setup, &["ban", "add", "nobody"], 1, "not_found", "no member \"nobody\" is known", "peers");
    // Both members have this address here.
    assert_fails(&setup, &["ban", "add", "10.42.0.1"], 1, "invalid", "\"10.42.0.1\" is ambiguous", "node id");
    assert_eq!(setup.run(&["ban", "add", "anna", "--duration", "0"]).status.code(), Some(2));
}

#[test]
fn invites_are_listed_shown_and_revoked() {
    let setup = Setup::healthy();
    let relative = setup.run(&["invite", "list"]);
    assert!(stdout(&relative).contains("  in "), "{}", stdout(&relative));
    let list = setup.run(&["invite", "list", "--absolute"]);
    let list = stdout(&list);
    assert!(
        list.contains("inviteid  open   2 of 2          4  2027-01-15T09:00:00Z  2027-01-15T08:00:00Z\n"),
        "{list}"
    );
    let show = setup.run(&["invite", "show", "inviteid"]);
    assert!(
        stdout(&show).contains("\naddresses  4 for each node\n")
            && stdout(&show).ends_with("used by    zoe\n")
    );
    let revoke = setup.run(&["invite", "revoke", "inviteid"]);
    assert_eq!(stdout(&revoke), "invite inviteid is revoked\n");
    assert_eq!(
        stderr(&revoke),
        "the 2 nodes that have used it stay members; --with-members revokes memberships too\n"
    );
    assert!(!setup.members_revoked.load(Ordering::Relaxed));
    assert_eq!(json(&setup.run(&["invite", "revoke", "inviteid", "--json"]))["invite"]["state"], "revoked");
    let missing = ["invite", "show", "other"];
    assert_fails(&setup, &missing, 1, "not_found", "this node has made no invite", "invite list");
    assert_eq!(setup.run(&["invite", "revoke", "other"]).status.code(), Some(1));
}

#[test]
fn an_invite_is_revoked_with_its_members_only_when_that_is_confirmed() {
    let setup = Setup::healthy();
    let revoke = ["invite", "revoke", "invite", "--with-members"];
    assert_fails(&setup, &revoke, 2, "usage", "this cannot be undone", "--yes");
    assert!(!setup.members_revoked.load(Ordering::Relaxed));
    let output = setup.run(&[&revoke[..], &["--yes"]].concat());
    assert_eq!(
        (stdout(&output), stderr(&output)),
        ("invite inviteid is revoked, with the memberships of the 2 nodes that have used it\n", "")
    );
    assert!(setup.members_revoked.load(Ordering::Relaxed));
}

#[test]
fn a_member_is_granted_more_addresses() {
    let setup = Setup::healthy();
    let output = setup.run(&["grant", "anna", "--addresses", "64"]);
    assert_eq!(stdout(&output), "anna holds 80 addresses: 10.42.0.16/28, 10.42.8.0/26\n");
    let grant = &json(&setup.run(&["--json", "grant", "anna", "--addresses", "64"]))["grant"];
    assert_eq!((&grant["node_id"], &grant["addresses"]), (&json!("anna"), &json!(80)));
    let nobody = ["grant", "nobody", "--addresses", "64"];
    assert_fails(&setup, &nobody, 1, "not_found", "no member \"nobody\" is known", "peers");
    // Refused before a node is asked.
    for args in [&["grant", "anna"][..], &["grant", "anna", "--addresses", "12"]] {
        assert_eq!(Setup::empty().run(args).status.code(), Some(2), "{args:?}");
    }
    let denied = ApiError::denied("only the member that has invited a node can grant it addresses");
    let other = Setup::failing(denied.with_hint("run this command on web"));
    assert_fails(&other, &["grant", "anna", "--addresses", "1"], 4, "denied", "only the member", "on web");
}

#[test]
fn status_says_how_a_node_comes_back() {
    let displaced = Setup::with_status(None, Some(network()), |status| {
        status.network.as_mut().unwrap().displaced_by = Some("abcdefghijklm".to_owned());
    });
    let output = displaced.run(&["status"]);
    let text = stdout(&output);
    assert!(
        text.contains(
            "warning: web has given this node's addresses to another member as well, which keeps them\n   \
             hint: run `i2planctl leave` and join again with a new invite\n"
        ),
        "{text}"
    );
    assert!(!text.contains("twice"), "{text}");

    let revoked = Setup::with_status(None, None, |status| {
        status.former = Some(Former {
            network: "networkid".to_owned(),
            revoked_by: "founder".to_owned(),
            along_with: None,
            revoked_at: 1_800_000_000,
        });
    });
    let output = revoked.run(&["status"]);
    let text = stdout(&output);
    assert!(
        text.contains(
            "its membership was revoked by founder at 2027-01-15T08:00:00Z\n   hint: ask for a new invite"
        ) && text.contains("kept as meshd/state.1 in the data directory"),
        "{text}"
    );
}

#[test]
fn status_shows_addresses_and_those_that_were_given_out_twice() {
    let setup = Setup::healthy();
    let output = setup.run(&["status"]);
    let text = stdout(&output);
    assert!(text.contains("\n  addresses   1, so that this node cannot invite\n"), "{text}");
    assert!(
        text.contains("warning: web has given out 10.42.3.16/28 twice; perhaps its backup was restored\n"),
        "{text}"
    );
    let doctor = json(&setup.run(&["doctor", "--json"]));
    let found = |message: &str| {
        let mut findings = doctor["findings"].as_array().unwrap().iter();
        findings.find(|finding| finding["message"].as_str().unwrap().contains(message)).cloned()
    };
    assert_eq!(found("twice").unwrap()["level"], "note");
    assert_eq!(found("has founded"), None);
}

#[test]
fn what_cannot_be_undone_is_not_done_by_accident() {
    let setup = Setup::healthy();
    for command in [&["leave"][..], &["revoke", "anna"]] {
        assert_fails(&setup, command, 2, "usage", "this cannot be undone", "--yes");
    }
    assert_eq!(stdout(&setup.run(&["leave", "--yes"])), "left network office (networkid)\n");
    let revoked = setup.run(&["revoke", "anna", "--yes"]);
    assert_eq!(stdout(&revoked), "anna is revoked: 2 members out\nanna\nbelow\n");
    assert_eq!(
        json(&setup.run(&["revoke", "anna", "--yes", "--json"])),
        json!({ "revoked": ["anna", "below"] })
    );
    // One that this node has invited and whose record it does not know.
    let unknown = NodeId([9; 32]).to_string();
    let revoked = json(&setup.run(&["revoke", &unknown, "--yes", "--json"]));
    assert_eq!(revoked, json!({ "revoked": [unknown, "below"] }));
    assert_eq!(setup.run(&["revoke", "nobody", "--yes"]).status.code(), Some(1));
    let alone = Setup::node(None, None);
    assert_eq!(alone.run(&["leave", "--yes"]).status.code(), Some(5));
}

#[test]
fn keys_for_people_and_programs() {
    let setup = Setup::healthy();
    assert_eq!(
        stdout(&setup.run(&["key", "status"])),
        "Node       nodeid\n\
         Keys       sealed with a passphrase\n\
         WireGuard  epoch 1, valid from 2027-01-15T08:00:00Z until 2027-01-16T08:00:00Z\n"
    );
    assert_eq!(
        json(&setup.run(&["key", "status", "--json"])),
        json!({
            "node_id": "nodeid",
            "sealed": true,
            "wireguard": { "epoch": 1, "not_before": 1_800_000_000, "not_after": 1_800_086_400 },
        })
    );
    let text = setup.run(&["key", "export-public"]);
    assert!(stdout(&text).contains("\ncontrol      x.b32.i2p\ndestination  AAAA\n"), "{}", stdout(&text));
    assert_eq!(
        json(&setup.run(&["key", "export-public", "--json"])),
        json!({
            "node_id": "nodeid",
            "control": { "b32": "x.b32.i2p", "base64": "AAAA" },
            "network": "networkid",
            "wireguard_public_key": "key=",
        })
    );

    let fresh = Setup::node(None, None);
    assert_eq!(json(&fresh.run(&["key", "status", "--json"]))["wireguard"], Value::Null);
    assert_eq!(json(&fresh.run(&["key", "export-public", "--json"]))["network"], Value::Null);
}

#[test]
fn an_invite_is_alone_on_standard_output() {
    let setup = Setup::healthy();
    let output = setup.run(&["invite", "create", "--expires", "7d", "--uses", "5"]);
    assert_eq!(stdout(&output), format!("{SECRET}\n"));
    assert_eq!(
        stderr(&output),
        "founded network networkid\n\
         invite inviteid: 5 uses, 1 address for each node, expires 2027-01-22T08:00:00Z\n\
         keep it secret: any node that has this code can join\n"
    );
    let output = setup.run(&["invite", "create", "--addresses", "1024"]);
    assert!(
        stderr(&output).contains("invite inviteid: 1 use, 1024 addresses, expires"),
        "{}",
        stderr(&output)
    );

    let output = setup.run(&["invite", "create", "--json"]);
    assert_eq!(
        json(&output),
        json!({
            "invite": SECRET,
            "id": "inviteid",
            "expires_at": 1_800_086_400,
            "max_uses": 1,
            "addresses": 16,
            "network": "networkid",
            "founded": true,
        })
    );
}

#[test]
fn an_invite_whose_code_nobody_gets_is_revoked() {
    let setup = Setup::healthy();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for (stdout, args) in [
        (Stdio::from(full.try_clone().unwrap()), &["invite", "create"][..]),
        (Stdio::from(full), &["invite", "create", "--json"]),
        (Stdio::from(closed), &["invite", "create"]),
    ] {
        let output = setup.command(args).stdout(stdout).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let json = args.contains(&"--json");
        assert!(json || stderr(&output).contains("and the invite is revoked: "), "{}", stderr(&output));
        assert!(!stderr(&output).contains(SECRET));
    }
}

#[test]
fn unlimited_invites_come_with_a_warning() {
    let setup = Setup::healthy();
    let output = setup.run(&["invite", "create", "--uses", "-1"]);
    assert_eq!(stdout(&output), format!("{SECRET}\n"));
    assert!(stderr(&output).starts_with("warning: any number of nodes can join"), "{}", stderr(&output));
    assert!(stderr(&output).contains("any number of uses"));
    assert_eq!(json(&setup.run(&["invite", "create", "--uses=-1", "--json"]))["max_uses"], Value::Null);
}

#[test]
fn invites_without_use_or_time_are_refused() {
    // There is no node: it is refused before one is asked.
    let setup = Setup::empty();
    let create = ["invite", "create", "--uses", "0"];
    assert_fails(&setup, &create, 2, "usage", "an invite with 0 uses invites nobody", "-1 for any number");
    for args in [["--uses", "-2"], ["--expires", "0"], ["--expires", "1w"], ["--addresses", "12"]] {
        let output = setup.run(&[&["invite", "create"], args.as_slice()].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn join_takes_the_code_from_a_pipe_and_from_a_file() {
    let setup = Setup::healthy();
    let output = setup.run_with_input(&["join", "--yes"], &format!("  {}\n", setup.code));
    assert_eq!(
        stdout(&output),
        "joined network office (networkid)\nIPv4       10.42.7.9 in 10.42.0.0/16\nIPv6       fd12::1\n\
         addresses  1, so that this node cannot invite\nmembers    3\n"
    );
    assert!(stderr(&output).starts_with("joining network "), "{}", stderr(&output));
    assert!(!stderr(&output).contains(&setup.code));

    let file = setup.dir.path().join("invite.txt");
    std::fs::write(&file, &setup.code).unwrap();
    let output = setup.run(&["join", "--yes", "--json", "--file", file.to_str().unwrap()]);
    assert_eq!(stderr(&output), "");
    assert_eq!(json(&output)["network"]["ipv4"], "10.42.7.9");

    let output = setup.run_with_input(&["join", "--yes", "--file", "-"], &setup.code);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn join_refuses_a_code_as_an_argument_and_does_not_repeat_it() {
    let setup = Setup::healthy();
    for args in [vec!["join", &setup.code], vec!["join", "--socket", &setup.code], vec![&setup.code]] {
        let output = setup.run(&args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).starts_with("error: an invite code is not taken on the command line"));
        assert!(!stderr(&output).contains(&setup.code[10..30]));
    }
    let output = setup.run(&["join", "--json", &setup.code]);
    assert_eq!(json(&output)["error"]["kind"], "usage");
    assert!(!stdout(&output).contains(&setup.code[10..30]));
}

#[test]
fn join_checks_the_code_before_it_asks_the_node() {
    let setup = Setup::empty();
    for (input, message) in [
        ("", "error: no invite code was given"),
        ("https://example.org/", "error: this is not an invite code"),
        (&setup.code[..100], "error: the invite code is truncated"),
        (&setup.code.replace("i2plan://", "i2plan://A"), "error: the invite code is damaged"),
        (&code(-7200), "error: the invite expired at "),
        (&"x".repeat(70_000), "error: cannot read standard input: it is far too long"),
    ] {
        let output = setup.run_with_input(&["join", "--yes"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).starts_with(message), "{}", stderr(&output));
    }
    let output = setup.run(&["join", "--file", "/nonexistent/invite"]);
    assert!(stderr(&output).starts_with("error: cannot read /nonexistent/invite: "), "{}", stderr(&output));
}

#[test]
fn join_asks_first_and_says_so_without_a_terminal() {
    let setup = Setup::node(None, None);
    let output = setup.run_with_input(&["join"], &setup.code);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.starts_with("error: there is no terminal to ask on") && said.contains("--yes"), "{said}");
    assert_eq!(stdout(&output), "");
}

#[test]
fn join_refuses_a_network_of_which_the_host_uses_addresses() {
    let setup = Setup::with(None, None, |_| {}, true);
    let output = setup.run_with_input(&["join", "--yes"], &setup.code);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).starts_with("error: the host uses addresses of 10."), "{}", stderr(&output));
}

#[test]
fn join_says_what_helps_when_the_inviter_is_silent() {
    let setup = Setup::failing(ApiError::timeout("the inviter did not answer"));
    let output = setup.run_with_input(&["join", "--yes", "--json"], &setup.code);
    assert_eq!(output.status.code(), Some(6));
    let error = &json(&output)["error"];
    assert_eq!(
        (&error["kind"], &error["message"]),
        (&json!("timeout"), &json!("the inviter did not answer"))
    );
    assert!(error["hint"].as_str().unwrap().contains("must be up and connected"));
}

#[test]
fn errors_of_the_node_decide_the_exit_code() {
    for (error, code, kind) in [
        (ApiError::invalid("no"), 1, "invalid"),
        (ApiError::internal("no"), 1, "internal"),
        (ApiError::denied("no"), 4, "denied"),
        (ApiError::conflict("no"), 5, "conflict"),
        (ApiError::timeout("no"), 6, "timeout"),
        (ApiError::unavailable("no"), 6, "unavailable"),
    ] {
        let setup = Setup::failing(error.with_hint("the node's advice"));
        assert_fails(&setup, &["peers"], code, kind, "no", "the node's advice");
    }
}

#[test]
fn no_socket_means_not_running() {
    let setup = Setup::empty();
    assert_fails(
        &setup,
        &["status"],
        3,
        "unreachable",
        "i2plan is not running: there is no socket",
        "i2planctl up",
    );
}

#[test]
fn a_socket_that_nobody_listens_on_means_not_running() {
    let setup = Setup::empty();
    drop(StdListener::bind(setup.socket()).unwrap());
    assert_fails(
        &setup,
        &["peers"],
        3,
        "unreachable",
        "i2plan is not running: nobody listens",
        "see its log",
    );
}

#[test]
fn a_socket_of_others_is_denied() {
    need_root();
    let setup = Setup::healthy();
    let program = copy_program(setup.dir.path());
    let run = |mode| {
        std::fs::set_permissions(setup.socket(), std::fs::Permissions::from_mode(mode)).unwrap();
        let mut command = command(&program);
        command.args(["status", "--json"]).env("I2PLAN_SOCKET", setup.socket()).uid(54_321).gid(54_321);
        command.output().unwrap()
    };
    let output = run(0o600);
    assert_eq!(output.status.code(), Some(4));
    let error = &json(&output)["error"];
    assert_eq!(error["kind"], "denied");
    assert!(error["message"].as_str().unwrap().starts_with("user 54321 may not open "), "{error}");
    assert_eq!(error["hint"], "use sudo: only root may control this node");

    std::os::unix::fs::chown(setup.socket(), None, Some(54_322)).unwrap();
    let hint = json(&run(0o660))["error"]["hint"].to_string();
    assert!(hint.contains("sudo usermod -aG 54322 54321"), "{hint}");
}

/// The next connection, its hello read.
fn accept(listener: &StdListener) -> StdStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).unwrap();
    let mut hello = vec![0; Header::decode(header, MAX_HELLO).unwrap().len];
    stream.read_exact(&mut hello).unwrap();
    stream
}

/// Says hello like a daemon that was installed at another time.
fn answer_from_another_time(listener: &StdListener) {
    let reply = HelloReply {
        protocol: PROTOCOL + 1,
        role: Role::Meshd,
        pid: 1,
        version: Version { version: "9.9.9".to_owned(), commit: "x".to_owned(), built_at: 0 },
        landlock: Landlock::None,
        refused: None,
    };
    let body = encode_body(&reply).unwrap();
    let mut stream = accept(listener);
    stream.write_all(&Header { len: body.len(), fds: 0 }.encode(MAX_HELLO).unwrap()).unwrap();
    stream.write_all(&body).unwrap();
}

#[test]
fn another_protocol_version_is_named() {
    let setup = Setup::empty();
    let listener = StdListener::bind(setup.socket()).unwrap();
    let daemon = std::thread::spawn(move || (0..2).for_each(|_| answer_from_another_time(&listener)));
    assert_fails(
        &setup,
        &["status"],
        1,
        "version",
        "meshd is version 9.9.9 and i2planctl is version",
        "restart",
    );
    daemon.join().unwrap();
}

#[test]
fn a_broken_connection_is_named() {
    let setup = Setup::empty();
    let listener = StdListener::bind(setup.socket()).unwrap();
    let daemon = std::thread::spawn(move || (0..2).for_each(|_| drop(accept(&listener))));
    assert_fails(&setup, &["status"], 3, "unreachable", "lost the connection to meshd", "try again");
    daemon.join().unwrap();
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let setup = Setup::empty();
    for args in [&["--nonsense"][..], &["frobnicate"], &[], &["invite"], &["up", "--socket", "/x"]] {
        let output = setup.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(stdout(&output), "");
        assert!(!output.stderr.is_empty());
    }
    let output = setup.run(&["frobnicate", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "");
    assert_eq!(json(&output)["error"]["kind"], "usage");
    assert_eq!(json(&output)["error"]["message"], "unrecognized subcommand 'frobnicate'");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let setup = Setup::empty();
    let output = setup.run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("Exit status:\n  0  done\n"), "{}", stdout(&output));
    assert!(!stdout(&output).contains("__launch"));

    let output = setup.run(&["--version"]);
    let line = stdout(&output);
    assert!(line.starts_with(concat!("i2planctl ", env!("CARGO_PKG_VERSION"), " (commit ")), "{line}");
    assert!(line.contains(", built 20"), "{line}");
    let value = json(&setup.run(&["--version", "--json"]));
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
    assert!(value["commit"].is_string() && value["built_at"].is_u64());
}

#[test]
fn a_rotated_key_is_shown() {
    let setup = Setup::healthy();
    assert_eq!(
        stdout(&setup.run(&["key", "rotate"])),
        "WireGuard  epoch 2, valid from 2027-01-15T08:00:00Z until 2027-01-16T08:00:00Z\n           key=\n"
    );
    let key = &json(&setup.run(&["--json", "key", "rotate"]))["wireguard"];
    assert_eq!((&key["epoch"], &key["public_key"]), (&json!(2), &json!("key=")));
}

#[test]
fn events_are_told_until_there_are_enough() {
    let setup = Setup::healthy();
    let output = setup.run(&["events", "-n", "4"]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3], "2027-01-15T08:00:00Z  anna (abcdefghij) is a member");

    // Those of the fake node lie in what is ahead.
    let output = setup.run(&["events", "--since", "1m", "-n", "1"]);
    assert_eq!(stdout(&output).lines().count(), 1);

    // Log lines are told to those who ask for them, and drive no terminal.
    let all = events().len();
    let output = setup.run(&["events", "--log", "-n", &all.to_string()]);
    assert_eq!(stdout(&output).lines().count(), all);
    assert!(stdout(&output).ends_with("warn meshd: a \u{fffd}[2J line\n"));
}

#[test]
fn events_that_were_missed_are_told_to_be() {
    let setup = Setup::healthy();
    let mut child = command(PROGRAM)
        .args(["events", "--json"])
        .env("I2PLAN_SOCKET", setup.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let values = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let missed = values.take(events().len()).last().unwrap();
    assert_eq!(missed["event"], "events_missed");
    assert!(missed["at"].is_u64());
    // The reader has gone, and nothing more happens.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_goes_on_stops_when_nobody_reads() {
    let setup = Setup::healthy();
    for args in [&["events", "--log"][..], &["routes"], &["status", "--json"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(PROGRAM)
            .args(args)
            .env("I2PLAN_SOCKET", setup.socket())
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn the_configuration_is_shown_and_changed() {
    let setup = Setup::healthy();
    let output = setup.run(&["config", "show"]);
    assert_eq!(stdout(&output).lines().nth(1), Some("node.name  alpha  /etc/i2plan/config.toml:3  live"));
    assert_eq!(stdout(&setup.run(&["config", "get", "node.name"])), "alpha\n");
    assert_fails(
        &setup,
        &["config", "get", "node.nam"],
        1,
        "not_found",
        "unknown key node.nam; did you mean node.name?",
        "config show",
    );
    let output = setup.run(&["config", "set", "node.name", "beta"]);
    assert_eq!(stdout(&output), "node.name: alpha → beta\n");
    assert!(stderr(&output).contains("until the node is started again"));
    assert_eq!(setup.run(&["config", "set", "node.nam", "beta"]).status.code(), Some(1));
    let output = setup.run(&["config", "reload"]);
    assert_eq!((stdout(&output), stderr(&output)), ("", "nothing has changed\n"));
}

#[test]
fn a_configuration_file_is_checked_without_a_node() {
    let setup = Setup::empty();
    let file = setup.dir.path().join("config.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[i2p]\ntunnel_length = 2\n").unwrap();
    assert_eq!(stdout(&setup.run(&["config", "check", path])), format!("{path} is valid\n"));
    std::fs::write(&file, stdout(&setup.run(&["config", "example"]))).unwrap();
    assert_eq!(setup.run(&["config", "check", path]).status.code(), Some(0));
    std::fs::write(&file, "[i2p]\ntunnel_length = 9\n").unwrap();
    let message = format!("{path}:2: i2p.tunnel_length: ");
    assert_fails(&setup, &["config", "check", path], 1, "invalid", &message, "config example");
    let missing = ["config", "check", "/nonexistent/config.toml"];
    assert_fails(&setup, &missing, 1, "invalid", "cannot read /nonexistent/config.toml", "example");
}

/// A file of wg-quick whose faults are on these lines, if they are replaced.
fn wg_quick(lines: &[(usize, &str)]) -> String {
    let endpoint = DestinationHash([7; 32]).b32();
    let good = [
        "[Interface]".to_owned(),
        format!("PrivateKey = {WG_PRIVATE}"),
        "Address = 10.9.0.1/24".to_owned(),
        "ListenPort = 51820".to_owned(),
        "[Peer]".to_owned(),
        "PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned(),
        "AllowedIPs = 10.9.0.2/32".to_owned(),
        format!("Endpoint = {endpoint}"),
    ];
    let line = |(at, line): (usize, String)| {
        lines.iter().find(|(number, _)| *number == at + 1).map_or(line, |(_, line)| (*line).to_owned())
    };
    good.into_iter().enumerate().map(|it| line(it) + "\n").collect()
}

const WG_PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";

#[test]
fn a_file_of_wg_quick_is_checked_and_all_its_faults_are_told() {
    let setup = Setup::empty();
    let file = setup.dir.path().join("wg0.conf");
    let path = file.to_str().unwrap();
    let write = |text: &str| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&wg_quick(&[]));
    let output = setup.run(&["config", "check", path]);
    assert_eq!(stdout(&output), format!("{path} is valid\n"), "{}", stderr(&output));
    assert_eq!(stderr(&output), format!("{path}:4: ListenPort is ignored: i2plan listens on no UDP port\n"));
    let checked = json(&setup.run(&["--json", "config", "check", path]));
    assert_eq!((&checked["format"], &checked["ignored"][0]["line"]), (&json!("wg-quick"), &json!(4)));

    write(&wg_quick(&[(3, "Address = 10.9.0.1/33"), (4, "PostUp = x"), (8, "Endpoint = 203.0.113.7:51820")]));
    let output = setup.run(&["config", "check", path]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    let told = stderr(&output);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 6, "{told}");
    assert_eq!(lines[2], format!("error: {path}:4: PostUp: i2plan runs no commands from a configuration"));
    assert!(lines[4].ends_with("i2plan does not carry WireGuard over UDP"), "{told}");
    assert!(lines.iter().skip(1).step_by(2).all(|line| line.starts_with("hint: ")), "{told}");
    let document = json(&setup.run(&["--json", "config", "check", path]));
    let message = document["error"]["message"].as_str().unwrap();
    assert_eq!(message.matches(path).count(), 3, "{message}");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(setup.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = setup.run(&["config", "check", path]);
    assert!(stderr(&output).contains("2: others than the owner can read this file"), "{}", stderr(&output));

    // The router is where the configuration says.
    write(&wg_quick(&[(7, "AllowedIPs = 192.0.2.0/24")]));
    let mut remote = setup.command(&["config", "check", path]);
    let output = remote.env("I2PLAN_SAM_ADDRESS", "192.0.2.9:7656").output().unwrap();
    assert!(
        stderr(&output).contains("captures the route to the I2P router, at 192.0.2.9"),
        "{}",
        stderr(&output)
    );
}

/// Writes a file of wg-quick with a preshared key.
fn write_wg_quick(setup: &Setup) -> PathBuf {
    let file = setup.dir.path().join("wg0.conf");
    let text = format!("# of the office\n{}PresharedKey = {WG_PRIVATE}\n", wg_quick(&[]));
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[test]
fn a_file_of_wg_quick_is_imported_without_its_keys() {
    let setup = Setup::empty();
    let file = write_wg_quick(&setup);
    let file = file.to_str().unwrap();
    let path = |name: &str| setup.dir.path().join(name);
    let printed = setup.run(&["wg", "import", file, "--style", "raw"]);
    let toml = stdout(&printed);
    let key = path("wg0.key");
    let interface =
        format!("# of the office\n[interface]\nprivate_key_file = \"{}\"\naddresses", key.display());
    assert!(toml.starts_with(&interface) && toml.contains("style = \"raw\""), "{toml}{}", stderr(&printed));
    assert!(!format!("{toml}{}", stderr(&printed)).contains(WG_PRIVATE));
    assert!(stderr(&printed).contains("wg0.conf:5: ListenPort is ignored"), "{}", stderr(&printed));
    for name in ["wg0.key", "wg0-peer1.psk"] {
        assert_eq!(path(name).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(path(name)).unwrap(), format!("{WG_PRIVATE}\n"));
    }
    // What is printed is a configuration, beside other keys too.
    std::fs::write(path("config.toml"), format!("[i2p]\ntunnel_length = 2\n\n{toml}")).unwrap();
    let config = path("config.toml");
    let config = config.to_str().unwrap();
    let checked = setup.run(&["config", "check", config]);
    assert_eq!(stdout(&checked), format!("{config} is valid\n"), "{}", stderr(&checked));

    // No file is overwritten, and no key is left behind.
    std::fs::remove_file(&key).unwrap();
    let message = format!("{config} exists, and is not overwritten");
    assert_fails(&setup, &["wg", "import", file, "--output", config], 1, "invalid", &message, "--output");
    assert!(!key.exists());
    std::fs::write(&key, "mine").unwrap();
    let message = format!("{} exists, and is not overwritten", key.display());
    assert_fails(&setup, &["wg", "import", file], 1, "invalid", &message, "--key-dir");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "mine");
    // A wrong file is refused as by `config check`.
    std::fs::write(file, wg_quick(&[(3, "Address = 10.9.0.1/33")])).unwrap();
    let [checked, imported] =
        [["config", "check", file], ["wg", "import", file]].map(|args| setup.run(&args));
    assert_eq!((stderr(&imported), imported.status.code()), (stderr(&checked), Some(1)));
    assert!(stderr(&checked).contains("wg0.conf:3: Address: "), "{}", stderr(&checked));
}

#[test]
fn an_interface_in_toml_is_checked_and_all_its_faults_are_told() {
    let setup = Setup::empty();
    let config = setup.dir.path().join("config.toml");
    let path = config.to_str().unwrap();
    let text = "[interface]\nprivate_key_file = \"/nonexistent/key\"\naddresses = [\"10.9.0.1/33\"]\nmtuu = 1280\n\n\
                [[peer]]\npublic_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nendpoint = \"203.0.113.7:51820\"\n";
    std::fs::write(&config, text).unwrap();
    let told = setup.run(&["config", "check", path]);
    let told = stderr(&told);
    let lines: Vec<_> = told.lines().filter(|line| !line.starts_with("hint: ")).collect();
    let expected = [
        "2: interface.private_key_file: /nonexistent: ",
        "3: interface.addresses: \"10.9.0.1/33\" is no IP address",
        "4: unknown key mtuu in [interface]; did you mean mtu?",
        "8: peer.endpoint: a clearnet endpoint",
    ];
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(&format!("error: {path}:{expected}")), "{line}");
    }
    // The other sections are checked as ever.
    std::fs::write(&config, format!("{text}[i2p]\ntunnel_length = 9\n")).unwrap();
    let message = format!("{path}:10: i2p.tunnel_length: ");
    assert_fails(&setup, &["config", "check", path], 1, "invalid", &message, "config example");
}

#[test]
fn options_of_up_for_static_peers_are_checked_before_anything_starts() {
    need_root();
    let setup = Setup::empty();
    let key = setup.dir.path().join("private.key");
    std::fs::write(&key, WG_PRIVATE).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = key.to_str().unwrap();
    let all = [
        "up",
        "--address",
        "10.9.0.1/24",
        "--private-key-file",
        key,
        "--peer-public-key",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        "--peer-allowed-ips",
        "10.9.0.2/32",
    ];
    let with = |more: &[&'static str]| [&all[..], more].concat();
    let message = "--peer-endpoint: a clearnet endpoint";
    assert_fails(
        &setup,
        &with(&["--peer-endpoint", "203.0.113.7:51820"]),
        1,
        "invalid",
        message,
        "NAME.b32.i2p",
    );
    let message = "--static names an interface, and so do the other options";
    assert_fails(&setup, &with(&["--static", "wg0"]), 2, "usage", message, "--static");
    assert_fails(&setup, &["up", "--style", "raw"], 2, "usage", "--style is for an interface", "--wg");
    let none = ["--static", "none-such", "up"];
    assert_fails(
        &setup,
        &none,
        1,
        "not_found",
        "there is no /etc/i2plan/static/none-such.conf",
        "config.toml",
    );
    // One is not complete without the others.
    for args in [&all[..5], &all[..7], &["up", "--interface", "wg1"]] {
        assert_eq!(setup.run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn keys_are_as_those_of_wg() {
    let setup = Setup::empty();
    let key = |args: &[&str], input: &str| {
        let output = setup.run_with_input(args, input);
        assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
        let key = stdout(&output).strip_suffix('\n').unwrap().to_owned();
        assert_eq!(key.len(), 44);
        key
    };
    let private = key(&["wg", "genkey"], "");
    assert_ne!(private, key(&["wg", "genkey"], ""));
    assert_ne!(key(&["wg", "genpsk"], ""), key(&["wg", "genpsk"], ""));
    // What `wg pubkey` prints of it.
    let public = key(&["wg", "pubkey"], &format!("{WG_PRIVATE}\n"));
    assert_eq!(public, "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=");
    assert_eq!(json(&setup.run_with_input(&["--json", "wg", "pubkey"], WG_PRIVATE))["public_key"], public);
    for input in
        ["", "short", &format!("{WG_PRIVATE}x"), &format!("{WG_PRIVATE}\n{WG_PRIVATE}\n"), &"A".repeat(44)]
    {
        let output = setup.run_with_input(&["wg", "pubkey"], input);
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""), "{input:?}");
        assert!(!stderr(&output).contains(&WG_PRIVATE[..20]), "{}", stderr(&output));
    }
    // The other tool takes this one's keys, and makes the same of them.
    let other =
        std::process::Command::new("wg").arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut other) = other else {
        return eprintln!("not compared with `wg pubkey`: there is no wg; install wireguard-tools");
    };
    writeln!(other.stdin.take().unwrap(), "{private}").unwrap();
    let theirs = other.wait_with_output().unwrap();
    assert_eq!(stdout(&theirs).trim_end(), key(&["wg", "pubkey"], &private));
}

#[test]
fn a_key_in_a_file_that_all_can_read_is_warned_of() {
    let setup = Setup::empty();
    let path = setup.dir.path().join("private.key");
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        for (command, secret) in [("genkey", true), ("genpsk", true), ("pubkey", false)] {
            let file = std::fs::File::create(&path).unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            let mut child = setup
                .command(&["wg", command])
                .stdin(Stdio::piped())
                .stdout(file)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let _ = writeln!(child.stdin.take().unwrap(), "{WG_PRIVATE}");
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            assert_eq!(stderr(&output).starts_with("warning: "), warned && secret, "{mode:o} {command}");
        }
    }
}

#[test]
fn versions_of_all_programs() {
    let setup = Setup::healthy();
    let output = setup.run(&["version", "--all"]);
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert!(lines[0].starts_with("i2planctl 0."), "{lines:?}");
    assert!(
        lines[1].starts_with("tund      0.") && lines[2] == "keyd      does not answer: gone",
        "{lines:?}"
    );
    assert_eq!(setup.run(&["version"]).stdout, setup.run(&["--version"]).stdout);
}

#[test]
fn an_address_is_pinged_without_a_node() {
    // Root may have the socket for it wherever a user may not.
    need_root();
    let setup = Setup::empty();
    for address in ["127.0.0.1", "::1"] {
        let output = setup.run(&["--json", "ping", address, "-c", "3", "-i", "10ms"]);
        let value = json(&output);
        assert_eq!((&value["sent"], &value["received"]), (&json!(3), &json!(3)), "{value}");
        assert_eq!(output.status.code(), Some(0));
        assert!(value["times"]["p99"].is_f64());
    }
    let output = setup.run(&["ping", "127.0.0.1", "-c", "2", "-i", "10ms"]);
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines[0], "PING 127.0.0.1: 56 bytes of data");
    assert!(lines[1].starts_with("reply from 127.0.0.1: seq=0 time="), "{lines:?}");
    assert!(lines[4].starts_with("2 requests sent, 2 received, 0% lost, in "), "{lines:?}");
    assert!(lines[5].starts_with("round trip: min "), "{lines:?}");
    let other = ["ping", "127.0.0.1", "-6"];
    assert_fails(&setup, &other, 2, "usage", "127.0.0.1 is an address of the other kind", "-6");
}

#[test]
fn what_does_not_answer_is_an_exit_status() {
    need_root();
    let setup = Setup::healthy();
    // In a namespace of its own, where no way leads anywhere.
    let ping = |args: &[&str]| {
        let mut command = command("unshare");
        command.args(["--net", PROGRAM]).args(args).args(["anna", "-c", "1", "-w", "200ms"]);
        command.env("I2PLAN_SOCKET", setup.socket()).output().unwrap()
    };
    let output = ping(&["ping"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).starts_with("PING anna (10.42.0.1): "), "{}", stdout(&output));
    assert!(stderr(&output).starts_with("hint: "));
    assert!(stdout(&output).contains("not sent: seq=0: network is unreachable"), "{}", stdout(&output));
    let output = ping(&["--json", "ping", "-6"]);
    assert_eq!(output.status.code(), Some(1));
    let value = json(&output);
    assert_eq!((&value["target"]["address"], &value["received"]), (&json!("fd12::2"), &json!(0)));
    assert_fails(&setup, &["ping", "nobody"], 1, "not_found", "no member \"nobody\"", "i2planctl peers");
}

#[test]
fn an_interrupted_ping_sums_up() {
    need_root();
    let mut child = command(PROGRAM)
        .args(["ping", "127.0.0.1", "-i", "1m"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.starts_with("reply from ")));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(lines.any(|line| line.starts_with("1 request sent, 1 received, 0% lost")));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn users_without_the_right_to_ping_are_told_how_to_get_it() {
    need_root();
    let dir = open_dir();
    let program = copy_program(dir.path());
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap();
    let last: u32 = range.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut command = command(&program);
    command.args(["--json", "ping", "127.0.0.1", "-c", "1"]).uid(54_321).gid(54_321);
    let output = command.output().unwrap();
    if last >= 54_321 {
        assert_eq!(json(&output)["received"], 1);
        return;
    }
    assert_eq!(output.status.code(), Some(4));
    let error = &json(&output)["error"];
    assert_eq!(error["message"], "this user may not send echo requests");
    assert!(error["hint"].as_str().unwrap().contains("ping_group_range=\"54321 54321\""), "{error}");
}

#[test]
fn the_shell_completes_commands_and_names() {
    let setup = Setup::healthy();
    let script = setup.run(&["completions", "bash"]);
    assert!(stdout(&script).contains("complete -o nospace"), "{}", stdout(&script));
    assert!(stdout(&script).contains("I2PLAN_COMPLETE=\"bash\""), "{}", stdout(&script));
    let complete = |socket: PathBuf, line: &[&str]| {
        let output = command(PROGRAM)
            .args([&["--", "i2planctl"], line].concat())
            .env("I2PLAN_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", line.len().to_string())
            .env("_CLAP_IFS", "\n")
            .env("I2PLAN_SOCKET", socket)
            .output()
            .unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{line:?}");
        stdout(&output).lines().map(str::trim_end).map(str::to_owned).collect::<Vec<_>>()
    };
    let here = || setup.socket();
    assert_eq!(complete(here(), &["sta"]), ["status"]);
    assert_eq!(complete(here(), &["ping", "an"]), ["anna"]);
    assert_eq!(complete(here(), &["ban", "remove", ""])[0], "mallory");
    assert_eq!(complete(here(), &["invite", "show", "inv"]), ["inviteid"]);
    assert_eq!(complete(here(), &["config", "get", "node"]), ["node.name", "node.data_dir"]);
    let socket = setup.socket();
    let named = complete("/nonexistent".into(), &["--socket", socket.to_str().unwrap(), "revoke", "z"]);
    assert_eq!(named, ["zoe"]);
    // Nobody has names, and nobody complains.
    assert_eq!(complete("/nonexistent".into(), &["ping", "an"]), Vec::<String>::new());
    let commands = complete(here(), &[""]);
    assert!(commands.iter().any(|word| word == "peers") && !commands.iter().any(|word| word == "__launch"));
}

#[test]
fn a_member_that_joins_again_by_the_same_code_is_one_already() {
    let joined = Network { id: NetworkId([1; 32]).to_string(), ..network() };
    let setup = Setup::node(None, Some(joined));
    let output = setup.run_with_input(&["join", "--yes"], &setup.code);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).starts_with("this node is a member of the invite's network already"));
    // Also when the invite has expired since.
    let output = setup.run_with_input(&["join", "--yes", "--json"], &code(-60));
    assert_eq!(json(&output)["already_member"], true);
}

#[test]
fn joining_shows_its_steps() {
    let setup = Setup::healthy();
    let output = setup.run_with_input(&["join", "--yes"], &setup.code);
    // The fake node tells of a tunnel among all else, so that nothing is waited for.
    assert!(stderr(&output).ends_with("the first tunnel to a member is up\n"), "{}", stderr(&output));
}

#[test]
fn the_doctor_works_without_a_node() {
    let setup = Setup::empty();
    let config = setup.dir.path().join("config.toml");
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::write(&config, format!("[i2p]\nsam_address = \"127.0.0.1:{port}\"\n")).unwrap();
    let doctor = ["doctor", "--config", config.to_str().unwrap(), "--json"];
    let output = setup.run(&doctor);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), ""));
    let report = json(&output);
    assert_eq!(report["healthy"], false);
    let finding = |subject: &str| {
        let findings = report["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["subject"] == subject).unwrap()
    };
    assert!(finding("node")["message"].as_str().unwrap().starts_with("i2plan is not running"));
    assert_eq!(finding("config")["level"], "ok");
    let router = format!("no SAM bridge at 127.0.0.1:{port}: nothing listens there");
    assert_eq!(finding("router")["message"], router.as_str());
    assert!(finding("clock")["level"] != "problem");

    std::fs::write(&config, "[i2p]\nsam_adress = \"x\"\n").unwrap();
    let output = setup.run(&doctor[..3]);
    let text = stdout(&output);
    assert!(text.contains("PROBLEM  config   ") && text.contains("config.toml:2: "), "{text}");
}

/// Whether two values have the same keys everywhere. What is null can be anything.
fn same_form(documented: &Value, printed: &Value, at: &str) -> Result<(), String> {
    match (documented, printed) {
        (Value::Null, _) | (_, Value::Null) => Ok(()),
        (Value::Object(documented), Value::Object(printed)) => {
            if !documented.keys().eq(printed.keys()) {
                let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
                return Err(format!("{at}: {:?} is not {:?}", keys(documented), keys(printed)));
            }
            documented
                .iter()
                .try_for_each(|(key, value)| same_form(value, &printed[key], &format!("{at}.{key}")))
        }
        (Value::Array(documented), Value::Array(printed)) => match (documented.first(), printed.first()) {
            (Some(documented), Some(printed)) => same_form(documented, printed, &format!("{at}[]")),
            _ => Err(format!("{at}: an example without an element proves nothing")),
        },
        (documented, printed) => {
            let same = std::mem::discriminant(documented) == std::mem::discriminant(printed);
            if same { Ok(()) } else { Err(format!("{at}: {documented} is not {printed}")) }
        }
    }
}

#[test]
fn json_is_as_documented() {
    need_root();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md")).unwrap();
    let setup = Setup::healthy();
    let config = setup.dir.path().join("config.toml");
    std::fs::write(&config, "").unwrap();
    let config = config.to_str().unwrap();
    let wg_quick = write_wg_quick(&setup);
    let wg_quick = wg_quick.to_str().unwrap();
    let mut undocumented: Vec<&str> = Vec::new();
    for (heading, more) in [
        ("status", &[][..]),
        ("doctor", &[]),
        ("peers", &[]),
        ("whois", &["10.42.0.3"]),
        ("routes", &[]),
        ("names", &[]),
        ("ping", &["127.0.0.1", "-c", "1"]),
        ("invite create", &[]),
        ("invite list", &[]),
        ("invite show", &["inviteid"]),
        ("join", &[]),
        ("leave", &["--yes"]),
        ("grant", &["anna", "--addresses", "64"]),
        ("revoke", &["anna", "--yes"]),
        ("ban list", &[]),
        ("ban add", &["anna"]),
        ("key status", &[]),
        ("key rotate", &[]),
        ("key export-public", &[]),
        ("config show", &[]),
        ("config set", &["node.name", "beta"]),
        ("config check", &[config]),
        ("config example", &[]),
        ("wg genkey", &[]),
        ("wg import", &[wg_quick]),
        ("completions", &["bash"]),
        ("version", &[]),
        ("version --all", &[]),
    ] {
        let Some((_, section)) = text.split_once(&format!("## `i2planctl {heading}`\n")) else {
            undocumented.push(heading);
            continue;
        };
        let example = section.split("```json\n").nth(1).and_then(|block| block.split("```").next()).unwrap();
        let example: Value =
            serde_json::from_str(example).unwrap_or_else(|error| panic!("{heading}: {error}"));
        let args: Vec<_> =
            ["--json"].into_iter().chain(heading.split(' ')).chain(more.iter().copied()).collect();
        let printed = json(&setup.run_with_input(&args, &setup.code));
        same_form(&example, &printed, heading).unwrap();
    }
    assert_eq!(undocumented, Vec::<&str>::new());

    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let output = setup.run(&["events", "--json", "--log", "-n", &events().len().to_string()]);
    assert_eq!(stdout(&output).lines().count(), events().len());
    for line in stdout(&output).lines() {
        let Value::Object(mut event) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        let name = event.remove("event").unwrap();
        let name = format!("`{}`", name.as_str().unwrap());
        event.remove("number").and(event.remove("at")).unwrap();
        let row = rows.iter().find(|row| row.split('|').nth(1).unwrap().contains(&name));
        let row = row.unwrap_or_else(|| panic!("{name} is not documented"));
        for key in event.keys() {
            assert!(row.contains(&format!("`{key}`")), "{key} of {name} is not documented");
        }
    }
}
