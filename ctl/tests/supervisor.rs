//! `i2planctl up` with small scripts in the daemons' places.
//!
//! A script tells what it finds on standard error and then waits for its end. The supervisor copies it, and ends after
//! all of them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{command, copy_executable, copy_program, need_root, open_dir, stderr};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pty_process::blocking::Pty;
use tempfile::TempDir;

const KEYD: u32 = 54_321;
const MESHD: u32 = 54_322;
const TUND: u32 = 54_323;
const GROUP: u32 = 54_324;
const RPC: u32 = 54_325;
const ROUTER: u32 = 54_326;
const CONNECTOR: u32 = 54_327;

const PASSPHRASE: &str = "correct horse";

/// So long a test waits for what never comes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Tells one line: name, pid, and what a daemon must find right.
const REPORT: &str = r#"#!/bin/sh
name=${0##*/i2plan-}
status=/proc/$$/status
field() { echo $(grep "^$1:" $status | cut -d: -f2); }
report() {
  echo "report $name pid=$$ uid=$(field Uid) gid=$(field Gid) groups=[$(field Groups)]" \
    "inh=$(field CapInh) prm=$(field CapPrm) eff=$(field CapEff) bnd=$(field CapBnd) amb=$(field CapAmb)" \
    "nnp=$(field NoNewPrivs) umask=$(umask) cwd=$(pwd)" \
    "fds=$LISTEN_FDS mine=$([ "$LISTEN_PID" = $$ ] && echo yes) fd3=$(readlink /proc/$$/fd/3 | cut -d: -f1)" \
    "fd9=$([ -e /proc/$$/fd/9 ] && echo open)" \
    "session=$(cut -d' ' -f6 /proc/$$/stat)" \
    "env=[$(cut -z -d= -f1 /proc/$$/environ | tr '\0' ' ')]" "args=[$*]"
}
# One write, and no complaints in between if it is stopped half-way.
line=$(report "$@" 2>/dev/null)
echo "$line" >&2
"#;

const WAIT: &str = "exec sleep 1000\n";

struct Node {
    dir: TempDir,
    child: Child,
    lines: Receiver<String>,
}

/// A directory with the program and scripts in the daemons' places.
fn install(keyd: &str, meshd: &str, tund: &str) -> TempDir {
    need_root();
    let dir = open_dir();
    copy_program(dir.path());
    for (name, script) in [("keyd", keyd), ("connector", WAIT), ("meshd", meshd), ("tund", tund)] {
        install_script(&dir, name, script);
    }
    dir
}

fn install_script(dir: &TempDir, name: &str, script: &str) {
    let path = dir.path().join(format!("i2plan-{name}"));
    let source = path.with_extension("sh");
    std::fs::write(&source, format!("{REPORT}{script}")).unwrap();
    copy_executable(&source, &path);
}

fn up(dir: &TempDir) -> Command {
    up_with_sockets_in(dir, "run")
}

fn up_with_sockets_in(dir: &TempDir, run: &str) -> Command {
    let mut command = up_without_group(dir, run);
    command.args(["--group", "54324"]);
    command
}

fn up_without_group(dir: &TempDir, run: &str) -> Command {
    // A caller that leaves a descriptor open, and one with a passphrase.
    let mut command = command("/bin/sh");
    std::fs::write(dir.path().join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    command
        .args(["-c", "exec \"$0\" \"$@\" 9</etc/passwd 8<\"$PASSPHRASE_FILE\""])
        .env("PASSPHRASE_FILE", dir.path().join("passphrase"))
        .arg(dir.path().join("i2planctl"))
        .args(["up", "--keyd-user", "54321", "--meshd-user", "54322", "--tund-user", "54323"])
        .args(["--connector-user", "54327"])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg("--runtime-dir")
        .arg(dir.path().join(run))
        .arg("--wireguard-dir")
        .arg(dir.path().join("wireguard"))
        .env("I2PLAN_NODE_NAME", "test")
        .env("I2PLAN_SAM_ADDRESS", "127.0.0.1:7")
        .env("I2PLAN_SAM_UDP_PORT", "9")
        .env("I2PLAN_TUNNEL_LENGTH", "2")
        .env("I2PLAN_INTERFACE", "mesh7")
        .env("I2PLAN_RPC_ENABLED", dir.path().join("i2plan-rpcd").exists().to_string())
        .env("LD_SECRET", "x")
        .env("LISTEN_PID", "1")
        .env("NOTIFY_SOCKET", "/n")
        .stdin(Stdio::null());
    command
}

impl Node {
    fn start(dir: TempDir) -> Self {
        Self::start_with(dir, &[])
    }

    fn start_with(dir: TempDir, args: &[&str]) -> Self {
        let mut command = up(&dir);
        command.args(args);
        Self::run(dir, command)
    }

    fn run(dir: TempDir, mut up: Command) -> Self {
        let mut child = up.stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stderr.take().unwrap());
        Self { dir, child, lines }
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The next line that starts so.
    fn line(&self, start: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("no line starts with {start:?}"));
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// The reports of all four, by name.
    fn reports(&self) -> [String; 4] {
        let mut reports = [(); 4].map(|()| self.line("report "));
        reports.sort();
        reports
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// All lines until nobody is left who could write one.
    fn rest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return lines,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("somebody lives on: {lines:?}"),
            }
        }
    }
}

/// The lines that come out of a pipe or a terminal.
fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        // Linux ends a terminal that nobody has open any more with an error.
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                break;
            }
        }
    });
    lines
}

/// Starts a program on a terminal of its own.
fn on_terminal(command: &Command) -> (Pty, Child) {
    let (pty, pts) = pty_process::blocking::open().unwrap();
    pty.resize(pty_process::Size::new(24, 200)).unwrap();
    let mut inner = pty_process::blocking::Command::new(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        inner = match value {
            Some(value) => inner.env(name, value),
            None => inner.env_remove(name),
        };
    }
    (pty, inner.spawn(pts).unwrap())
}

/// Waits until something is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid_in(report: &str) -> Pid {
    let pid = report.split_once("pid=").unwrap().1.split(' ').next().unwrap();
    Pid::from_raw(pid.parse().unwrap())
}

#[test]
fn daemons_start_with_what_they_need_and_nothing_else() {
    let node = Node::start(install(WAIT, WAIT, WAIT));
    let (none, net_admin) = ("0000000000000000", "0000000000001000");
    let run = node.run_dir();
    let data = node.dir.path().join("data");
    let (run, data) = (run.display(), data.display());
    let arguments = [
        format!("--sam-address 127.0.0.1:7 --sam-udp-port 9 --keyd-socket {run}/keyd-connector.sock"),
        format!(
            "--store {data}/keyd --sam-address 127.0.0.1:7 --sam-udp-port 9 --tunnel-length 2 --meshd-user {MESHD} \
             --tund-user {TUND} --connector-user {CONNECTOR}"
        ),
        format!("--state {data}/meshd --keyd-socket {run}/keyd-meshd.sock --tund-socket {run}/tund.sock"),
        format!(
            "--keyd-socket {run}/keyd-tund.sock --meshd-user {MESHD} --sam-address 127.0.0.1:7 --sam-udp-port 9 \
             --interface mesh7"
        ),
    ];
    let expected = [
        ("connector", CONNECTOR, none, "fds= mine= fd3"),
        ("keyd", KEYD, none, "fds=4 mine=yes fd3=socket"),
        ("meshd", MESHD, none, "fds=1 mine=yes fd3=socket"),
        ("tund", TUND, net_admin, "fds=2 mine=yes fd3=socket"),
    ];
    for ((report, (name, uid, caps, fds)), arguments) in node.reports().iter().zip(expected).zip(arguments) {
        let pid = pid_in(report);
        for part in [
            format!("report {name} "),
            format!("uid={uid} {uid} {uid} {uid} gid={uid} {uid} {uid} {uid} groups=[]"),
            format!("inh={caps} prm={caps} eff={caps} bnd={caps} amb={caps} nnp=1"),
            format!("umask=0077 cwd=/ {fds}"),
            " fd9= ".to_owned(),
            format!("session={pid} "),
            format!("args=[{arguments}]"),
        ] {
            assert!(report.contains(&part), "{part:?} is missing in {report:?}");
        }
        for (variable, there) in
            [("I2PLAN_NODE_NAME", true), ("NOTIFY_SOCKET", true), ("LD_SECRET", false), ("HOME", false)]
        {
            assert_eq!(report.contains(&format!("{variable} ")), there, "{variable} in {report:?}");
        }
    }
}

#[test]
fn directories_and_sockets_have_their_owners_and_modes() {
    let node = Node::start(install(WAIT, WAIT, WAIT));
    node.reports();
    for (path, uid, gid, mode) in [
        ("data", 0, 0, 0o711),
        ("data/keyd", KEYD, KEYD, 0o700),
        ("data/meshd", MESHD, MESHD, 0o700),
        ("run", 0, 0, 0o755),
        ("run/keyd-meshd.sock", MESHD, MESHD, 0o600),
        ("run/keyd-tund.sock", TUND, TUND, 0o600),
        ("run/keyd-connector.sock", CONNECTOR, CONNECTOR, 0o600),
        ("run/tund.sock", MESHD, MESHD, 0o600),
        ("run/keyd-control.sock", 0, GROUP, 0o660),
        ("run/meshd.sock", 0, GROUP, 0o660),
        ("wireguard/mesh7.sock", 0, 0, 0o600),
    ] {
        let found = node.dir.path().join(path).metadata().unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (uid, gid, mode), "{path}");
    }
}

#[test]
fn the_gateway_is_in_the_control_group_and_its_token_is_its_own() {
    for (group, gid, control, gateway) in [
        ("54324", GROUP, (0, GROUP, 0o660), (0, GROUP, 0o660)),
        // Without a group it gets in as the owner.
        ("root", RPC, (RPC, 0, 0o600), (0, 0, 0o600)),
    ] {
        let dir = install(WAIT, WAIT, WAIT);
        install_script(&dir, "rpcd", WAIT);
        let mut up = up_without_group(&dir, "run");
        up.args(["--rpc-user", "54325", "--group", group]);
        let node = Node::run(dir, up);
        let report = node.line("report rpcd ");
        let none = "0000000000000000";
        let (data, run) = (node.dir.path().join("data"), node.run_dir());
        let run = run.display();
        for part in [
            format!("uid={RPC} {RPC} {RPC} {RPC} gid={gid} {gid} {gid} {gid} groups=[]"),
            format!("inh={none} prm={none} eff={none} bnd={none} amb={none} nnp=1"),
            format!(
                "args=[--state {}/rpc --meshd-socket {run}/meshd.sock --keyd-socket {run}/keyd-control.sock]",
                data.display()
            ),
        ] {
            assert!(report.contains(&part), "{part:?} is missing in {report:?}");
        }
        for (path, expected) in
            [("data/rpc", (RPC, RPC, 0o700)), ("run/meshd.sock", control), ("run/rpc.sock", gateway)]
        {
            let found = node.dir.path().join(path).metadata().unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), expected, "{path}");
        }
    }
}

#[test]
fn a_router_is_started_if_it_is_wanted_and_is_passed_nothing() {
    for (flag, variable) in [(true, "false"), (false, "true")] {
        let dir = install(WAIT, WAIT, WAIT);
        install_script(&dir, "routerd", WAIT);
        let mut up = up(&dir);
        up.args(["--router-user", "54326"]).env("I2PLAN_ROUTER_ENABLED", variable);
        if flag {
            up.arg("--router");
        }
        let node = Node::run(dir, up);
        let report = node.line("report routerd ");
        let none = "0000000000000000";
        let data = node.dir.path().join("data");
        for part in [
            format!(
                "uid={ROUTER} {ROUTER} {ROUTER} {ROUTER} gid={ROUTER} {ROUTER} {ROUTER} {ROUTER} groups=[]"
            ),
            format!("inh={none} prm={none} eff={none} bnd={none} amb={none} nnp=1"),
            "fds= mine= fd3".to_owned(),
            " fd9= ".to_owned(),
            format!("args=[--state {}/routerd]", data.display()),
        ] {
            assert!(report.contains(&part), "{part:?} is missing in {report:?}");
        }
        let found = data.join("routerd").metadata().unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (ROUTER, 0o700));
    }
}

#[test]
fn no_address_but_loopback_is_listened_on() {
    let dir = install(WAIT, WAIT, WAIT);
    for address in ["0.0.0.0:7650", "192.0.2.1:7650", "[::]:7650", "localhost:7650", "127.0.0.1"] {
        let output = up(&dir).env("I2PLAN_RPC_TCP_ADDRESS", address).stderr(Stdio::piped()).output().unwrap();
        let said = stderr(&output);
        assert!(said.contains(&format!("I2PLAN_RPC_TCP_ADDRESS={address:?}: ")), "{said}");
        assert!(!output.status.success());
    }
}

#[test]
fn the_web_interface_gets_in_at_meshd_and_keyd_refuses_its_orders() {
    const WEB: u32 = 54_328;
    for (group, control, own) in [
        ("54324", (0, GROUP, 0o660), (0, GROUP, 0o660)),
        // Without a group it gets in by its own.
        ("root", (0, WEB, 0o660), (0, 0, 0o600)),
    ] {
        let dir = install(WAIT, WAIT, WAIT);
        install_script(&dir, "webd", WAIT);
        let mut up = up_without_group(&dir, "run");
        up.env("I2PLAN_WEB_ENABLED", "true").args(["--web-user", "54328", "--group", group]);
        // At a unix socket, in the place of one that another run has left.
        let pages = dir.path().join("run/web-http.sock");
        std::fs::create_dir_all(pages.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&pages).unwrap());
        up.env("I2PLAN_WEB_LISTEN", format!("unix:{}", pages.display()));
        let node = Node::run(dir, up);
        let reports = [(); 5].map(|()| node.line("report "));
        let report = |start| reports.iter().find(|report| report.starts_with(start)).unwrap();
        let keyd = report("report keyd ");
        assert!(keyd.contains("--refuse 54328"), "{keyd}");
        let webd = report("report webd ");
        assert!(webd.contains(&format!("uid={WEB} {WEB} {WEB} {WEB} ")), "{webd}");
        assert!(
            webd.contains(&format!("args=[--meshd-socket {}/meshd.sock]", node.run_dir().display())),
            "{webd}"
        );
        for (path, expected) in
            [("run/meshd.sock", control), ("run/web.sock", own), ("run/web-http.sock", own)]
        {
            let found = node.dir.path().join(path).metadata().unwrap();
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), expected, "{path}");
        }
    }
}

#[test]
fn the_name_server_may_listen_on_its_port_and_look_at_meshd() {
    const NAMES: u32 = 54_329;
    // Without a group it gets in by its own.
    for (group, gid) in [("54324", GROUP), ("root", NAMES)] {
        let dir = install(WAIT, WAIT, WAIT);
        install_script(&dir, "named", WAIT);
        let mut up = up_without_group(&dir, "run");
        up.env("I2PLAN_NAMES_ENABLED", "true").args(["--names-user", "54329", "--group", group]);
        let node = Node::run(dir, up);
        let reports = [(); 5].map(|()| node.line("report "));
        let report = |start| reports.iter().find(|report| report.starts_with(start)).unwrap();
        assert!(report("report keyd ").contains("--refuse 54329"));
        assert!(report("report meshd ").contains("--named-user 54329"));
        let (named, caps) = (report("report named "), "0000000000000400");
        for part in [
            format!("uid={NAMES} {NAMES} {NAMES} {NAMES} gid={gid} {gid} {gid} {gid} groups=[]"),
            format!("inh={caps} prm={caps} eff={caps} bnd={caps} amb={caps} nnp=1"),
            "fds= ".to_owned(),
            format!("args=[--meshd-socket {}/meshd.sock]", node.run_dir().display()),
        ] {
            assert!(named.contains(&part), "{part:?} is missing in {named:?}");
        }
        let socket = node.dir.path().join("run/meshd.sock").metadata().unwrap();
        assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o777), (0, gid, 0o660));
    }
}

#[test]
fn a_socket_where_others_can_write_is_refused() {
    let dir = install(WAIT, WAIT, WAIT);
    install_script(&dir, "rpcd", WAIT);
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let output = up(&dir)
        .args(["--rpc-user", "54325"])
        .env("I2PLAN_RPC_SOCKET", open.join("rpc.sock"))
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(stderr(&output).contains("rpc.socket"), "{}", stderr(&output));
    assert!(!output.status.success() && !open.join("rpc.sock").exists());
}

#[test]
fn a_killed_daemon_comes_back_and_its_socket_never_goes() {
    let node = Node::start(install(WAIT, WAIT, WAIT));
    let [_, _, meshd, _] = node.reports();
    kill(pid_in(&meshd), Signal::SIGKILL).unwrap();
    let ended = node.line("i2planctl: meshd was killed by SIGKILL (9); starting it again in 0.");
    // Nobody accepts now or ever in this test: the connection waits in the socket.
    UnixStream::connect(node.run_dir().join("meshd.sock"))
        .unwrap_or_else(|error| panic!("{error} after {ended}"));
    let again = node.line("report meshd ");
    assert_ne!(pid_in(&again), pid_in(&meshd));
}

/// Has a descriptor kept in its first process, tells of it in the second, and forgets it there.
const KEEP: &str =
    "exec \"${0%/*}/helper\" --exact daemon_that_has_a_descriptor_kept --ignored --nocapture\n";

#[test]
#[ignore = "no test: the next one runs it in a daemon's place"]
fn daemon_that_has_a_descriptor_kept() {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    let (Ok(socket), Ok(names)) = (std::env::var("NOTIFY_SOCKET"), std::env::var("LISTEN_FDNAMES")) else {
        return;
    };
    let supervisor = std::os::unix::net::UnixDatagram::unbound().unwrap();
    supervisor.connect(socket).unwrap();
    let mut content = String::new();
    if names == "listener:wireguard:kept" {
        let mut kept = std::fs::File::open("/proc/self/fd/5").unwrap();
        kept.read_to_string(&mut content).unwrap();
        supervisor.send(b"FDSTOREREMOVE=1\nFDNAME=kept").unwrap();
    } else {
        let file = rustix::fs::memfd_create(c"kept", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(file);
        write!(file, "by {}", std::process::id()).unwrap();
        file.rewind().unwrap();
        let fds = [file.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let parts = [std::io::IoSlice::new(b"READY=1\nFDSTORE=1\nFDNAME=kept")];
        rustix::net::sendmsg(&supervisor, &parts, &mut control, rustix::net::SendFlags::empty()).unwrap();
    }
    eprintln!("kept pid={} names=[{names}] content=[{content}]", std::process::id());
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_daemon_has_kept_is_there_for_its_next_process() {
    let dir = install(WAIT, WAIT, KEEP);
    copy_executable(&std::env::current_exe().unwrap(), &dir.path().join("helper"));
    let node = Node::start(dir);
    let first = node.line("kept ");
    assert!(first.ends_with("names=[listener:wireguard] content=[]"), "{first}");
    kill(pid_in(&first), Signal::SIGKILL).unwrap();
    let second = node.line("kept ");
    let expected = format!("names=[listener:wireguard:kept] content=[by {}]", pid_in(&first));
    assert!(second.ends_with(&expected), "{second}");
    kill(pid_in(&second), Signal::SIGKILL).unwrap();
    let third = node.line("kept ");
    assert!(third.ends_with("names=[listener:wireguard] content=[]"), "{third}");
}

#[test]
fn a_daemon_that_works_and_falls_silent_is_killed_and_comes_back() {
    let dir = install(WAIT, WAIT, KEEP);
    copy_executable(&std::env::current_exe().unwrap(), &dir.path().join("helper"));
    let node = Node::start(dir);
    let first = node.line("kept ");
    node.line("i2planctl: tund hangs: it has been silent for 30 s; killing it");
    node.line("i2planctl: tund was killed by SIGKILL (9); starting it again in 0.");
    let second = node.line("kept ");
    assert!(second.ends_with(&format!("content=[by {}]", pid_in(&first))), "{second}");
}

#[test]
fn others_do_not_speak_for_a_daemon() {
    let node = Node::start(install(WAIT, WAIT, WAIT));
    node.reports();
    // Root may open the socket, but is not the daemon.
    let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
    stranger.send_to(b"FDSTOREREMOVE=1\nFDNAME=tun", node.run_dir().join("tund.notify")).unwrap();
    let refused = node.line("i2planctl: tund: ");
    assert_eq!(
        refused,
        format!("i2planctl: tund: what process {} said in its name is not heard", std::process::id())
    );
}

#[test]
fn terminate_stops_all_in_order_and_removes_the_sockets() {
    let mut node = Node::start(install(WAIT, WAIT, WAIT));
    node.reports();
    node.signal(Signal::SIGTERM);
    assert_eq!(
        node.rest(),
        [
            "i2planctl: stopping: SIGTERM came",
            "i2planctl: meshd stopped: it was killed by SIGTERM (15)",
            "i2planctl: tund stopped: it was killed by SIGINT (2)",
            "i2planctl: connector stopped: it was killed by SIGTERM (15)",
            "i2planctl: keyd stopped: it was killed by SIGTERM (15)",
        ]
    );
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let left: Vec<_> =
        std::fs::read_dir(node.run_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["supervisor.lock"]);
}

/// Says when it is to read its configuration again.
const HEARS: &str =
    "trap 'echo \"report again\" >&2' HUP\necho 'report ready' >&2\nwhile :; do sleep 0.1; done\n";

#[test]
fn hangup_has_meshd_read_its_configuration_and_nobody_else() {
    let mut node = Node::start(install(WAIT, HEARS, WAIT));
    node.line("report ready");
    node.signal(Signal::SIGHUP);
    node.line("i2planctl: SIGHUP came: the configuration is read again");
    node.line("report again");
    node.signal(Signal::SIGTERM);
    assert!(!node.rest().iter().any(|line| line.contains("starting it again")));
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

#[test]
fn hangup_while_meshd_is_down_does_not_end_its_next_process() {
    let node = Node::start(install(WAIT, HEARS, WAIT));
    // It waits longer after each end, at last for seconds.
    for _ in 0..5 {
        kill(pid_in(&node.line("report meshd ")), Signal::SIGKILL).unwrap();
        node.line("i2planctl: meshd was killed by SIGKILL (9); starting it again in ");
    }
    node.signal(Signal::SIGHUP);
    node.line("i2planctl: SIGHUP came");
    node.line("report ready");
    node.signal(Signal::SIGTERM);
    let rest = node.rest();
    let mut rest = rest.iter();
    assert!(!rest.any(|line| line.contains("starting it again") || line == "report again"), "{rest:?}");
}

/// Waits until a file has such a line.
fn wait_for_line(path: &std::path::Path, start: &str) -> String {
    let mut text = String::new();
    wait_until(start, || {
        text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.starts_with(start))
    });
    text
}

#[test]
fn hangup_opens_the_log_file_again() {
    let dir = install(WAIT, HEARS, WAIT);
    let log = dir.path().join("log");
    let mut node = Node::start_with(dir, &["--log-file", log.to_str().unwrap()]);
    for line in ["report keyd ", "report connector ", "report tund ", "report meshd ", "report ready"] {
        wait_for_line(&log, line);
    }
    // As logrotate does.
    let old = log.with_extension("1");
    std::fs::rename(&log, &old).unwrap();
    node.signal(Signal::SIGHUP);
    wait_for_line(&log, "report again");
    node.signal(Signal::SIGTERM);
    assert_eq!(node.rest(), [""; 0], "standard error gets nothing");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let (before, after) = (std::fs::read_to_string(&old).unwrap(), std::fs::read_to_string(&log).unwrap());
    assert_eq!(before.matches("report ").count() - 1, 4, "{before}");
    assert!(after.starts_with("i2planctl: SIGHUP came"), "{after}");
    assert!(after.ends_with("i2planctl: keyd stopped: it was killed by SIGTERM (15)\n"), "{after}");
    assert_eq!(std::fs::metadata(&log).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_log_file_that_cannot_be_written_is_an_error_that_names_it() {
    let dir = install(WAIT, WAIT, WAIT);
    let output = up(&dir).env("I2PLAN_LOG_FILE", "/nonexistent/log").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write the log file /nonexistent/log: "), "{}", stderr(&output));
}

/// A directory of another user's.
fn of_another(dir: &TempDir) -> PathBuf {
    let theirs = dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(MESHD), Some(MESHD)).unwrap();
    theirs
}

#[test]
fn a_log_file_that_another_user_can_replace_is_refused() {
    let dir = install(WAIT, WAIT, WAIT);
    let theirs = of_another(&dir);
    std::os::unix::fs::symlink(dir.path().join("target"), theirs.join("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let whose = format!("{} belongs to user {MESHD}", theirs.display());
    for (file, why) in [
        (theirs.join("link"), whose.as_str()),
        (theirs.join("log"), &whose),
        // The start does not wait for who reads it.
        (dir.path().join("fifo"), "is a named pipe, and must be a regular file"),
    ] {
        let mut child = up(&dir).arg("--log-file").arg(&file).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("it is refused", || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot write the log file {}: ", file.display())), "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert!(!dir.path().join("target").exists() && !theirs.join("log").exists());
}

#[test]
fn state_and_sockets_are_kept_where_no_other_user_can_replace_them() {
    let dir = install(WAIT, WAIT, WAIT);
    let theirs = of_another(&dir);
    let output = up_with_sockets_in(&dir, "theirs/deep/below").output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("below cannot be used (--runtime-dir): "), "{said}");
    assert!(said.contains(&format!("{} belongs to user {MESHD}", theirs.display())), "{said}");
    assert!(!theirs.join("deep").exists());
}

#[test]
fn a_link_in_the_place_of_the_log_file_is_not_followed_at_a_hangup() {
    let dir = install(WAIT, HEARS, WAIT);
    let [log, old, target] = ["log", "log.1", "target"].map(|name| dir.path().join(name));
    let node = Node::start_with(dir, &["--log-file", log.to_str().unwrap()]);
    wait_for_line(&log, "report ready");
    std::fs::rename(&log, &old).unwrap();
    std::os::unix::fs::symlink(&target, &log).unwrap();
    node.signal(Signal::SIGHUP);
    let text = wait_for_line(&old, "i2planctl: SIGHUP came: the log file cannot be opened again");
    assert!(text.contains("log is a symbolic link"), "{text}");
    wait_for_line(&old, "report again");
    assert!(!target.exists());
}

#[test]
fn the_configuration_of_another_user_is_not_read() {
    let dir = install(WAIT, WAIT, WAIT);
    let theirs = of_another(&dir);
    let config = theirs.join(".i2plan/config.toml");
    std::fs::create_dir(config.parent().unwrap()).unwrap();
    std::fs::write(&config, "of another user").unwrap();
    // As after `sudo -E`.
    let i2planctl = dir.path().join("i2planctl");
    let check = |args: &[&str]| {
        command(&i2planctl).env("HOME", &theirs).args(["config", "check"]).args(args).output().unwrap()
    };
    let output = check(&[]);
    assert!(!format!("{output:?}").contains("theirs"), "{}", stderr(&output));

    let output = check(&[config.to_str().unwrap()]);
    let why = format!("{} belongs to user {MESHD}, who could change it: `chown 0 ", theirs.display());
    assert!(stderr(&output).contains(&why), "{}", stderr(&output));
    let output = up(&dir).arg("--config").arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&why), "{}", stderr(&output));

    let open = dir.path().join("open.toml");
    std::fs::write(&open, "").unwrap();
    std::fs::set_permissions(&open, Permissions::from_mode(0o664)).unwrap();
    let output = check(&[open.to_str().unwrap()]);
    assert!(stderr(&output).contains(&format!("`chmod go-w {}`", open.display())), "{}", stderr(&output));
}

#[test]
fn a_second_signal_ends_a_daemon_that_does_not_stop() {
    let stubborn = "trap '' TERM\necho 'report deaf' >&2\nexec sleep 1000\n";
    let mut node = Node::start(install(WAIT, stubborn, WAIT));
    node.line("report deaf");
    node.signal(Signal::SIGTERM);
    node.line("i2planctl: stopping: SIGTERM came");
    node.signal(Signal::SIGINT);
    assert!(node.rest().contains(&"i2planctl: meshd stopped: it was killed by SIGKILL (9)".to_owned()));
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

#[test]
fn daemons_do_not_outlive_a_supervisor_that_is_killed() {
    let mut node = Node::start(install(WAIT, WAIT, WAIT));
    let reports = node.reports();
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    for report in reports {
        wait_until(&report, || kill(pid_in(&report), None).is_err());
    }
    // What it left behind is no obstacle.
    let dir = std::mem::replace(&mut node.dir, open_dir());
    let next = Node::start(dir);
    next.reports();
}

#[test]
fn a_daemon_that_refuses_its_configuration_stops_everything() {
    let refusing = "echo 'i2plan-tund: bad option' >&2; exit 2\n";
    let mut node = Node::start(install(WAIT, WAIT, refusing));
    let lines = node.rest();
    assert_eq!(node.child.wait().unwrap().code(), Some(1));
    // What else comes are the last words of the scripts that were stopped.
    let last: Vec<_> =
        lines.iter().filter(|line| line.starts_with("error: ") || line.starts_with("hint: ")).collect();
    assert_eq!(
        last,
        ["error: tund cannot run: exited with code 2", "hint: see the message of i2plan-tund above"]
    );
    assert!(lines.contains(&"i2plan-tund: bad option".to_owned()));
}

#[test]
fn a_daemon_that_its_user_cannot_execute_is_named() {
    let dir = install(WAIT, WAIT, WAIT);
    std::fs::set_permissions(dir.path().join("i2plan-keyd"), Permissions::from_mode(0o700)).unwrap();
    let mut node = Node::start(dir);
    let lines = node.rest();
    assert_eq!(node.child.wait().unwrap().code(), Some(1));
    assert!(lines.iter().any(|line| line.starts_with("error: user 54321 cannot execute ")), "{lines:?}");
}

/// Tells what its standard descriptors are, whether it can read from what it prints to, and whether it has a terminal.
const TERMINALS: &str = r#"
exec 5>&2
for fd in 0 1 2; do kinds="$kinds $(readlink /proc/$$/fd/$fd | cut -d: -f1)"; done
line="terminals $name:$kinds read=[$(timeout 1 head -c 1 <&2 2>&1 | tr -d '\n')] tty=$( (: </dev/tty) 2>/dev/null && echo yes)"
echo "$line" >&2
exec sleep 1000
"#;

#[test]
fn no_daemon_holds_the_terminal_of_the_supervisor() {
    let dir = install(TERMINALS, TERMINALS, TERMINALS);
    let (mut pty, child) = on_terminal(&up(&dir));
    // What an administrator types ahead.
    std::io::Write::write_all(&mut pty, b"secret\n").unwrap();
    let node = Node { dir, child, lines: lines_of(pty) };
    for _ in 0..3 {
        let line = node.line("terminals ");
        assert!(line.contains(": /dev/null pipe pipe read=[") && line.ends_with(" tty="), "{line}");
        assert!(!line.contains("read=[s"), "{line}");
    }
}

#[test]
fn a_daemon_drives_no_terminal() {
    let evil = "printf 'evil \\033]0;title\\007\\2332J\\342\\200\\256 \\377\\r\\n%70000s\\n' x >&2\nexec sleep 1000\n";
    let node = Node::start(install(WAIT, evil, WAIT));
    assert_eq!(node.line("evil "), "evil \\u{1b}]0;title\\u{7}\\x9b2J\\u{202e} \\xff\\r");
    let long = node.line("    ");
    assert!(long.len() < 10_000 && long.ends_with("… (61808 bytes more)"), "{}", long.len());
}

#[test]
fn a_terminal_that_is_stopped_holds_up_no_daemon_and_what_is_lost_is_counted() {
    // The pipe is not waited for; a line for which it has no room is written again.
    let flood = "i=0\nwhile [ $i -lt 2000 ]; do\n\
                 until printf '%1000s\\n' x 1>&2 2>/dev/null; do :; done; i=$((i+1))\ndone\n\
                 exec 9<>\"${0%/*}/done\"\necho flooded >&9\nexec sleep 1000\n";
    let dir = install(WAIT, flood, WAIT);
    let done = dir.path().join("done");
    std::fs::write(&done, "").unwrap();
    std::fs::set_permissions(&done, Permissions::from_mode(0o666)).unwrap();
    let (pty, child) = on_terminal(&up(&dir));
    // Nobody reads the terminal, as after Ctrl-S.
    wait_until("the flood passes", || std::fs::read_to_string(&done).unwrap() == "flooded\n");
    let mut node = Node { dir, child, lines: lines_of(pty) };
    let is_notice = |line: &str| line.ends_with(" lines of meshd were dropped: the output is too slow");
    while !is_notice(&node.line("i2planctl: ")) {}
    node.signal(Signal::SIGTERM);
    node.line("i2planctl: keyd stopped: ");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_supervisor_is_refused() {
    let node = Node::start(install(WAIT, WAIT, WAIT));
    node.reports();
    let output = up(&node.dir).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let pid = node.child.id();
    assert!(
        stderr(&output).contains(&format!("already: i2planctl with process id {pid}\n")),
        "{}",
        stderr(&output)
    );

    // Another place for its sockets does not make it another node.
    let output = up_with_sockets_in(&node.dir, "run2").output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).starts_with("error: another node keeps its state in "), "{}", stderr(&output));
}

/// A state directory for keyd that was there before.
fn existing_store(dir: &TempDir, uid: u32, mode: u32) -> PathBuf {
    let keyd = dir.path().join("data/keyd");
    std::fs::create_dir_all(&keyd).unwrap();
    std::fs::set_permissions(&keyd, Permissions::from_mode(mode)).unwrap();
    std::os::unix::fs::chown(&keyd, Some(uid), Some(uid)).unwrap();
    keyd
}

#[test]
fn a_state_directory_of_others_is_refused() {
    for (uid, mode, message) in
        [(KEYD, 0o755, "is open to other users: its mode is 755"), (MESHD, 0o700, "belongs to user 54322")]
    {
        let dir = install(WAIT, WAIT, WAIT);
        existing_store(&dir, uid, mode);
        let output = up(&dir).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[test]
fn an_empty_directory_of_root_is_taken_and_a_full_one_refused() {
    let dir = install(WAIT, WAIT, WAIT);
    let keyd = existing_store(&dir, 0, 0o755);
    std::fs::write(keyd.join("something"), "").unwrap();
    let output = up(&dir).output().unwrap();
    assert!(stderr(&output).contains("belongs to user 0"), "{}", stderr(&output));

    std::fs::remove_file(keyd.join("something")).unwrap();
    let node = Node::start(dir);
    node.reports();
    let found = keyd.metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (KEYD, 0o700));
}

#[test]
fn others_are_told_that_root_is_needed() {
    need_root();
    let dir = install(WAIT, WAIT, WAIT);
    use std::os::unix::process::CommandExt as _;
    let output = up(&dir).uid(KEYD).gid(KEYD).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).starts_with("error: only root can "), "{}", stderr(&output));
    assert!(stderr(&output).contains("`sudo i2planctl up`"));
}

#[test]
fn a_wrong_configuration_is_named() {
    let dir = install(WAIT, WAIT, WAIT);
    let output = up(&dir).env("I2PLAN_SAM_ADDRESS", "nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("I2PLAN_SAM_ADDRESS=\"nowhere\""), "{}", stderr(&output));
}

/// Tells what is on its standard input and nothing else, and waits for its end.
const READ: &str = "echo \"input $name [$(cat)]\" >&2\nexec sleep 1000\n";

#[test]
fn keyd_gets_the_passphrase_at_every_start_and_the_others_never() {
    let node = Node::start_with(install(READ, READ, READ), &["--passphrase-fd", "8"]);
    let mut found = [node.line("input "), node.line("input "), node.line("input ")];
    found.sort();
    assert_eq!(found, [&format!("input keyd [{PASSPHRASE}]"), "input meshd []", "input tund []"]);

    let reports = Node::start_with(install(WAIT, WAIT, WAIT), &["--passphrase-fd", "8"]);
    let [connector, keyd, meshd, tund] = reports.reports();
    assert!(keyd.ends_with("--passphrase-fd 0]"), "{keyd}");
    for report in [&connector, &keyd, &meshd, &tund] {
        assert!(!report.contains("horse"), "{report}");
    }
    assert!(!meshd.contains("passphrase-fd") && !tund.contains("passphrase-fd"));

    let read_again = Node::start_with(install(READ, WAIT, WAIT), &["--passphrase-fd", "8"]);
    let first = read_again.line("report keyd ");
    assert_eq!(read_again.line("input keyd "), format!("input keyd [{PASSPHRASE}]"));
    kill(pid_in(&first), Signal::SIGKILL).unwrap();
    assert_eq!(read_again.line("input keyd "), format!("input keyd [{PASSPHRASE}]"));
}

#[test]
fn sealed_keys_end_up_with_the_options_that_open_them() {
    let locked = "echo 'i2plan-keyd: sealed' >&2; exit 3\n";
    for (args, message, hint) in [
        (
            &[][..],
            "error: the node's keys are sealed with a passphrase",
            "--ask-passphrase, or with --passphrase-fd",
        ),
        (
            &["--passphrase-fd", "8"],
            "error: the passphrase does not open the node's keys",
            "the keys are unchanged",
        ),
    ] {
        let mut node = Node::start_with(install(locked, WAIT, WAIT), args);
        let lines = node.rest();
        assert_eq!(node.child.wait().unwrap().code(), Some(1));
        assert!(lines.contains(&message.to_owned()), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("hint: ") && line.contains(hint)), "{lines:?}");
        let starts = lines.iter().filter(|line| line.starts_with("i2planctl: keyd started")).count();
        assert_eq!(starts, 1, "{lines:?}");
    }
}

#[test]
fn up_needs_a_passphrase_where_it_is_asked_for_one() {
    let dir = install(WAIT, WAIT, WAIT);
    for (args, code, message) in [
        (&["--passphrase-fd", "7"][..], 2, "error: --passphrase-fd 7 cannot be used: "),
        (&["--passphrase-fd", "1"], 2, "error: --passphrase-fd 1 cannot be used: "),
        (&["--passphrase-fd", "0"], 1, "error: the passphrase is empty"),
        (&["--ask-passphrase"], 2, "error: standard input is no terminal"),
        (&["--ask-passphrase", "--passphrase-fd", "8"], 2, "error: the argument "),
    ] {
        let output = up(&dir).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with(message), "{}", stderr(&output));
    }
}

/// In keyd's place for maintenance: tells what it was given. Its keys are sealed with [`PASSPHRASE`].
const MAINTAIN: &str = r#"
old=$(cat)
case "$*" in
  *--check*) [ -z "$old" ] && exit 3 ;;
  *--new-passphrase-fd*) new=$(cat <&3) ;;
esac
[ "$old" = "correct horse" ] || exit 3
echo "changed to [$new] by $(id -u)"
"#;

/// `i2planctl key change-passphrase` for the node of [`up`].
fn change(dir: &TempDir, args: &[&str]) -> Command {
    let mut command = command("/bin/sh");
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("old"), PASSPHRASE).unwrap();
    std::fs::write(dir.path().join("new"), "battery staple\n").unwrap();
    command
        .args(["-c", "old=$1 new=$2; shift 2; exec \"$0\" \"$@\" 5<\"$old\" 3<\"$new\""])
        .arg(dir.path().join("i2planctl"))
        .args([dir.path().join("old"), dir.path().join("new")])
        .args(["key", "change-passphrase", "--keyd-user", "54321", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(args)
        .stdin(Stdio::null());
    command
}

#[test]
fn the_passphrase_is_changed_by_keyd_as_its_user() {
    let dir = install(MAINTAIN, WAIT, WAIT);
    let both = ["--passphrase-fd", "5", "--new-passphrase-fd", "3"];
    let output = change(&dir, &both).output().unwrap();
    assert_eq!(common::stdout(&output), "changed to [battery staple] by 54321\n", "{}", stderr(&output));
    assert!(!stderr(&output).contains("staple"));

    let output = change(&dir, &["--remove", "--passphrase-fd", "5", "--json"]).output().unwrap();
    assert_eq!(common::stdout(&output), "{\n  \"sealed\": false\n}\n", "{}", stderr(&output));

    // What is not given is asked for, and there is no terminal here.
    for args in [&both[..2], &both[2..]] {
        let output = change(&dir, args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).starts_with("error: standard input is no terminal"), "{}", stderr(&output));
    }

    let output = change(&dir, &["--passphrase-fd", "3", "--new-passphrase-fd", "5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: the passphrase does not open "), "{}", stderr(&output));
}

#[test]
fn the_passphrase_of_a_running_node_is_not_changed() {
    let dir = install("exit 4\n", WAIT, WAIT);
    let both = ["--passphrase-fd", "5", "--new-passphrase-fd", "3"];
    // keyd was started by somebody else.
    let output = change(&dir, &both).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains(" runs\nhint: stop it first"), "{}", stderr(&output));

    let node = Node::start(install(WAIT, WAIT, WAIT));
    node.reports();
    let output = change(&node.dir, &both).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains(" runs\nhint: stop it first"), "{}", stderr(&output));

    let other = install(WAIT, WAIT, WAIT);
    let mut command = change(&other, &both);
    std::fs::remove_dir(other.path().join("data")).unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: no node keeps its state in "), "{}", stderr(&output));
}

#[test]
fn a_stopped_node_gets_a_new_identity_and_the_old_one_is_set_aside() {
    let dir = install(MAINTAIN, WAIT, WAIT);
    let data = dir.path().join("data");
    for name in ["keyd", "meshd", "keyd.1"] {
        std::fs::create_dir_all(data.join(name)).unwrap();
        std::fs::write(data.join(name).join("file"), name).unwrap();
    }
    let new = |args: &[&str]| {
        let mut command = command(dir.path().join("i2planctl").to_str().unwrap());
        command.args(["key", "new", "--keyd-user", "54321", "--data-dir"]).arg(&data).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    };
    // Not by accident, and not while a daemon of a service has its directory.
    assert_eq!(new(&[]).status.code(), Some(2));
    let held = std::fs::File::open(data.join("keyd")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let output = new(&["--yes"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains(" runs\nhint: stop it first"), "{}", stderr(&output));
    drop(held);
    let output = new(&["--yes"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(common::stdout(&output).contains("keyd.2 and "), "{}", common::stdout(&output));
    let content = |name: &str| std::fs::read_to_string(data.join(name).join("file")).unwrap();
    assert_eq!(["keyd.1", "keyd.2", "meshd.2"].map(content), ["keyd.1", "keyd", "meshd"]);
    assert!(!data.join("keyd").exists() && !data.join("meshd").exists());
}

#[test]
fn only_root_changes_a_passphrase() {
    use std::os::unix::process::CommandExt as _;
    let dir = install(MAINTAIN, WAIT, WAIT);
    let output = change(&dir, &["--remove"]).uid(KEYD).gid(KEYD).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("`sudo i2planctl key change-passphrase`"), "{}", stderr(&output));
}
