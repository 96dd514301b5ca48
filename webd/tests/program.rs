//! `i2plan-webd` as a program: how it ends where it is switched off, and pages at a unix socket.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use data_encoding::BASE64;
use i2plan_ipc::Role;
use i2plan_ipc::api::webd::{CreateLink, Link, WebdApi};
use i2plan_ipc::client::{Client, Endpoint};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_i2plan-webd");

/// Its unit.
const UNIT: &str = include_str!("../../packaging/systemd/i2plan-webd.service");

/// Passes standard input on as systemd passes a listening socket.
const ACTIVATE: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\"";

fn switched_off(mut command: Command) -> Output {
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
    command.env("I2PLAN_WEB_ENABLED", "false").output().unwrap()
}

#[test]
fn systemd_takes_the_end_for_final_where_it_is_switched_off() {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null());
    let output = switched_off(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("web.enabled is false"), "{said}");
    let status = output.status.code().unwrap();
    assert_eq!(status, 3);
    assert!(UNIT.lines().any(|line| line == format!("RestartPreventExitStatus={status}")));
}

#[test]
fn connections_that_wait_are_closed_where_it_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut waiting = UnixStream::connect(&path).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ACTIVATE, PROGRAM]).stdin(OwnedFd::from(listener.try_clone().unwrap()));
    let output = switched_off(command);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    // The socket itself is still open, as systemd has it.
    waiting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
}

#[test]
fn connections_to_the_socket_of_the_pages_are_closed_where_it_is_switched_off() {
    const ACTIVATE_TWO: &str = "exec 3<&0 4<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:i2plan-webd.socket exec \"$0\"";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut waiting = UnixStream::connect(&path).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ACTIVATE_TWO, PROGRAM]).stdin(OwnedFd::from(listener.try_clone().unwrap()));
    assert_eq!(switched_off(command).status.code(), Some(3));
    waiting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
}

/// Completes the command of one that serves.
fn serving<'a>(dir: &Path, listen: &str, command: &'a mut Command) -> &'a mut Command {
    command.args(["--listen".as_ref(), dir.join("web.sock").as_os_str()]);
    command.args(["--meshd-socket".as_ref(), dir.join("meshd.sock").as_os_str()]);
    command.env("HOME", "/nonexistent").env("I2PLAN_WEB_ENABLED", "true").env("I2PLAN_WEB_LISTEN", listen)
}

/// One that serves, and ends with this.
struct Webd {
    process: Child,
    dir: TempDir,
    log: Receiver<String>,
}

impl Drop for Webd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Webd {
    /// Starts it, without a `meshd`, and waits until it serves.
    fn start(dir: TempDir, listen: &str, variables: &[(&str, PathBuf)]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.env_clear().stdin(Stdio::null()).envs(variables.iter().cloned());
        Self::run(dir, listen, command)
    }

    fn run(dir: TempDir, listen: &str, mut command: Command) -> Self {
        let mut process = serving(dir.path(), listen, &mut command).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, log) = channel();
        // What nobody waits for is read, too, or it would stop.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let webd = Self { process, dir, log };
        webd.until_logged("web pages");
        webd
    }

    fn until_logged(&self, what: &str) {
        while !self.log.recv_timeout(Duration::from_secs(30)).expect(what).contains(what) {}
    }

    fn hang_up(&self) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::HUP).unwrap();
    }

    fn link(&self) -> Link {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::resolved(&self.dir.path().join("web.sock"), Role::Webd);
            let mut webd = Client::<WebdApi>::connect(endpoint, Role::Client).await.unwrap();
            webd.call(CreateLink { control: true }).await.unwrap()
        })
    }
}

/// The answers to requests at a unix socket.
fn ask(socket: &Path, requests: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    String::from_utf8_lossy(&answers).into_owned()
}

fn get(path: &str, host: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")
}

fn last(path: &str, host: &str, headers: &str) -> String {
    get(path, host, &format!("{headers}Connection: close\r\n"))
}

#[test]
fn pages_at_a_unix_socket_have_links_hosts_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    let socket: PathBuf = dir.path().join("http.sock");
    // One that nobody listens at any more is in its place.
    drop(UnixListener::bind(&socket).unwrap());
    let webd = Webd::start(dir, &format!("unix:{}", socket.display()), &[]);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let status = |path: &str, host: &str, headers: &str| {
        let answer = ask(&socket, &last(path, host, headers));
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        (code.unwrap_or(0), answer)
    };
    for host in ["localhost:8080", "127.0.0.1:9000", "[::1]", "localhost"] {
        assert_eq!(status("/", host, "").0, 401, "{host}");
    }
    for host in ["evil.example:8080", "evil.example", "192.0.2.1:8080", "localhost.evil.example"] {
        assert_eq!(status("/", host, "").0, 403, "{host}");
    }

    let link = webd.link();
    assert_eq!(link.socket.as_deref(), socket.to_str());
    let path = link.url.expose().strip_prefix("http://localhost:8080").unwrap();
    let (opened, answer) = status(path, "localhost:8080", "");
    assert_eq!(opened, 303, "{answer}");
    let (_, cookie) = answer.split_once("set-cookie: ").unwrap();
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert!(cookie.starts_with("Cookie: i2plan-8080="), "{cookie}");
    assert_eq!(status(path, "localhost:8080", "").0, 403, "a link is good once");
    // With the session, the node is asked, which is not there.
    assert_eq!(status("/peers", "localhost:8080", &cookie).0, 502);
    assert_eq!(status("/peers", "localhost:9000", &cookie).0, 401, "it is the cookie of another node");
    // Sessions are held to what they may ask a second.
    let flood =
        get("/live-not", "localhost:8080", &cookie).repeat(99) + &last("/", "localhost:8080", &cookie);
    assert!(ask(&socket, &flood).contains("HTTP/1.1 429 "));
}

#[test]
fn links_name_the_socket_that_was_handed_over() {
    const ACTIVATE_PAGES: &str =
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$0\" \"$@\"";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handed-over.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new("/bin/sh");
    command.env_clear().args(["-c", ACTIVATE_PAGES, PROGRAM]).stdin(OwnedFd::from(listener));
    let listen = format!("unix:{}", dir.path().join("http.sock").display());
    let webd = Webd::run(dir, &listen, command);
    assert_eq!(webd.link().socket.as_deref(), path.to_str());
}

#[test]
fn pages_take_no_socket_away_and_go_where_nobody_else_can_put_one() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("used.sock")).unwrap();
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    for (path, why) in [
        ("used.sock", "something listens there already"),
        // That of links is made before.
        ("web.sock", "something listens there already"),
        ("open/http.sock", "can be written to by others"),
    ] {
        let listen = format!("unix:{}", dir.path().join(path).display());
        let mut command = Command::new(PROGRAM);
        let output = serving(dir.path(), &listen, command.env_clear()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("web.listen: ") && text.contains(why), "{text}");
        assert!(text.contains("i2plan-webd-http.socket must be enabled"), "{text}");
    }
    drop(listener);
}

/// Puts a new certificate for `node.example`, which expires in this year, and its key in the place of what is there.
fn certify(dir: &Path, year: i32) -> CertificateDer<'static> {
    let mut params = rcgen::CertificateParams::new(["node.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    replace(dir, "web.crt", "CERTIFICATE", &certificate);
    replace(dir, "web.key", "PRIVATE KEY", &key.serialize_der());
    certificate
}

fn replace(dir: &Path, name: &str, label: &str, der: &[u8]) {
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der));
    let new = dir.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, dir.join(name)).unwrap();
}

/// Whether who answers at a unix socket has this certificate.
fn has_certificate(socket: &Path, certificate: &CertificateDer<'static>) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("node.example").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    while client.is_handshaking() {
        if client.complete_io(&mut stream).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_renewed_certificate_is_read_at_a_signal_and_a_wrong_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, socket) = (dir.path().to_owned(), dir.path().join("http.sock"));
    let first = certify(&directory, 2021);
    let files = [("TLS_CERTIFICATE", "web.crt"), ("TLS_KEY", "web.key")]
        .map(|(key, name)| (key, directory.join(name)));
    let files = files.map(|(key, path)| (format!("I2PLAN_WEB_{key}"), path));
    let variables: Vec<_> = files.iter().map(|(key, path)| (key.as_str(), path.clone())).collect();
    let webd = Webd::start(dir, &format!("unix:{}", socket.display()), &variables);
    webd.until_logged("the certificate of the web pages has expired (2021-01-01");
    let fingerprint = webd.link().fingerprint;

    let second = certify(&directory, 2200);
    webd.hang_up();
    webd.until_logged("read the certificate again");
    assert!(has_certificate(&socket, &second));
    assert_ne!(webd.link().fingerprint, fingerprint);

    // The certificate of another key.
    replace(&directory, "web.crt", "CERTIFICATE", &first);
    webd.hang_up();
    webd.until_logged("the certificate is still the one before");
    assert!(has_certificate(&socket, &second) && !has_certificate(&socket, &first));
}
