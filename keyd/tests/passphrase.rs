//! The program and its passphrase: from where it takes one, and what it does to the keys with it.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tempfile::TempDir;

const ONE: &str = "correct horse";
const TWO: &str = "battery staple";

/// So long a test waits for what never comes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whom keyd runs as in these tests: it refuses to be root.
const USER: u32 = 54_321;

/// The program, a directory for its keys, and files to redirect its input from.
struct TestStore {
    dir: TempDir,
}

impl TestStore {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let place = Self { dir };
        // In another process: a file that this one has open for writing while another test starts a process
        // cannot be executed until that process has closed it.
        let copied = Command::new("install")
            .args(["-m", "0755", env!("CARGO_BIN_EXE_i2plan-keyd")])
            .arg(place.path("i2plan-keyd"))
            .status();
        assert!(copied.unwrap().success());
        std::fs::create_dir(place.path("store")).unwrap();
        std::fs::set_permissions(place.path("store"), Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(place.path("store"), Some(USER), Some(USER)).unwrap();
        }
        for (name, text) in [
            ("one", format!("{ONE}\n")),
            ("two", TWO.to_owned()),
            ("empty", "\n".to_owned()),
            ("none", String::new()),
        ] {
            std::fs::write(place.path(name), text).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn keys(&self) -> Vec<u8> {
        std::fs::read(self.path("store/keys")).unwrap()
    }

    /// keyd with the content of one file as descriptor 5 and of another as descriptor 6.
    fn command(&self, five: &str, six: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "five=$1 six=$2; shift 2; exec \"$0\" \"$@\" 5<\"$five\" 6<\"$six\""])
            .arg(self.path("i2plan-keyd"))
            .args([self.path(five), self.path(six)])
            .arg("--store")
            .arg(self.path("store"))
            .args(args)
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.command("one", "two", args).output().unwrap();
        assert_tells_no_secret(&output);
        output
    }

    /// The start of a node. It has no socket to listen on and so ends with exit status 2, but only after it has
    /// read or made its keys.
    fn start(&self, args: &[&str]) -> Output {
        self.run(
            &[&["--meshd-user", "54322", "--tund-user", "54323", "--connector-user", "54324"], args].concat(),
        )
    }

    fn has_started(&self, args: &[&str]) {
        let output = self.start(args);
        assert!(stderr(&output).contains("no listening socket"), "{}", stderr(&output));
    }

    /// With sealed keys.
    fn sealed() -> Self {
        let place = Self::new();
        place.has_started(&["--passphrase-fd", "5"]);
        place
    }

    /// What `--check` finds.
    fn check(&self, args: &[&str]) -> String {
        let output = self.run(&[&["--check"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn assert_tells_no_secret(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        assert!(!text.contains("horse") && !text.contains("staple"), "{text}");
    }
}

fn assert_fails(output: &Output, status: i32, message: &str) {
    assert_eq!(output.status.code(), Some(status), "{}", stderr(output));
    assert!(stderr(output).contains(message), "{message:?} is not in {}", stderr(output));
}

#[test]
fn keys_are_sealed_if_there_is_a_passphrase() {
    let plain = TestStore::new();
    plain.has_started(&[]);
    assert!(plain.check(&[]).ends_with("are not sealed\n"));

    let sealed = TestStore::sealed();
    assert!(sealed.check(&["--passphrase-fd", "5"]).ends_with("are sealed\n"));
    assert_eq!(sealed.path("store/keys").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    sealed.has_started(&["--passphrase-fd", "5"]);
}

#[test]
fn root_checks_the_keys_of_a_backup_as_their_owner() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be another user, as in CI.
        return;
    }
    let place = TestStore::new();
    place.has_started(&[]);
    // Where only root gets, as in /root.
    let closed = place.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    std::fs::rename(place.path("store"), closed.join("keyd")).unwrap();
    let check = || {
        let mut command = Command::new(place.path("i2plan-keyd"));
        command.arg("--store").arg(closed.join("keyd")).arg("--check").stdin(Stdio::null()).output().unwrap()
    };
    let output = check();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("are not sealed\n"));
    // Root does nothing else with them, and what root owns nobody but root could read.
    let mut other = Command::new(place.path("i2plan-keyd"));
    let refused = other.arg("--store").arg(closed.join("keyd")).arg("--remove-passphrase").output().unwrap();
    assert_fails(&refused, 2, "must not run as root");
    chown(closed.join("keyd/keys"), Some(0), Some(0)).unwrap();
    assert_fails(&check(), 1, "belongs to user 0, and must belong to user 54321: run `chown 54321 ");
    chown(closed.join("keyd"), Some(0), Some(0)).unwrap();
    assert_fails(&check(), 1, "it belongs to root");
}

#[test]
fn sealed_keys_without_their_passphrase_have_their_own_exit_status() {
    let place = TestStore::sealed();
    let before = place.keys();
    for args in [&[][..], &["--check"], &["--change-passphrase", "--new-passphrase-fd", "6"]] {
        assert_fails(&place.start(args), 3, "the keys are sealed and there is no passphrase");
        let wrong = [args, &["--passphrase-fd", "6"]].concat();
        if !args.contains(&"--new-passphrase-fd") {
            assert_fails(&place.start(&wrong), 3, "the passphrase does not open it");
        }
    }
    assert_eq!(place.keys(), before);
}

#[test]
fn no_keys_are_made_with_a_passphrase_that_is_none() {
    let place = TestStore::new();
    for (file, status, message) in [
        ("empty", 3, "the passphrase is empty"),
        ("none", 3, "the passphrase is empty"),
        ("long", 3, "longer than 1024 bytes"),
    ] {
        std::fs::write(place.path("long"), [b'x'; 5000]).unwrap();
        let args = [
            "--meshd-user",
            "54322",
            "--tund-user",
            "54323",
            "--connector-user",
            "54324",
            "--passphrase-fd",
            "5",
        ];
        assert_fails(&place.command(file, "two", &args).output().unwrap(), status, message);
    }
    assert_fails(&place.start(&["--passphrase-fd", "9"]), 2, "descriptor 9");
    assert_fails(&place.start(&["--passphrase-fd", "1"]), 2, "descriptor 1");
    assert_fails(&place.start(&["--passphrase-fd", "secret?"]), 2, "see --help");
    assert!(!place.path("store/keys").exists());
}

#[test]
fn standard_input_is_a_descriptor_like_others() {
    let place = TestStore::sealed();
    let mut command = place.command("none", "none", &["--check", "--passphrase-fd", "0"]);
    command.stdin(File::open(place.path("one")).unwrap());
    assert!(command.output().unwrap().status.success());
}

#[test]
fn a_credential_of_systemd_opens_the_keys() {
    let place = TestStore::sealed();
    let check = |directory: &Path| {
        let mut command = place.command("none", "none", &["--check"]);
        command.env("CREDENTIALS_DIRECTORY", directory).output().unwrap()
    };
    let credentials = place.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    // Other credentials than this one are none.
    assert_fails(&check(&credentials), 3, "there is no passphrase");
    std::fs::write(credentials.join("passphrase"), ONE).unwrap();
    assert!(check(&credentials).status.success());
    std::fs::write(credentials.join("passphrase"), TWO).unwrap();
    assert_fails(&check(&credentials), 3, "the passphrase does not open it");
}

#[test]
fn the_passphrase_comes_changes_and_goes_and_the_node_stays() {
    let place = TestStore::new();
    place.has_started(&[]);
    let node = |text: &str| text.split(' ').nth(4).unwrap().to_owned();
    let first = node(&place.check(&[]));
    assert!(first.len() > 20, "{first}");

    let changed = place.run(&["--change-passphrase", "--new-passphrase-fd", "5"]);
    assert!(changed.status.success(), "{}", stderr(&changed));
    assert_eq!(node(&place.check(&["--passphrase-fd", "5"])), first);

    let changed = place.run(&["--change-passphrase", "--passphrase-fd", "5", "--new-passphrase-fd", "6"]);
    assert!(changed.status.success(), "{}", stderr(&changed));
    assert_fails(&place.run(&["--check", "--passphrase-fd", "5"]), 3, "does not open");
    assert_eq!(node(&place.check(&["--passphrase-fd", "6"])), first);

    let removed = place.run(&["--remove-passphrase", "--passphrase-fd", "6"]);
    assert!(removed.status.success(), "{}", stderr(&removed));
    assert_eq!(place.check(&[]), format!("the keys of node {first} are not sealed\n"));
    let mut left: Vec<_> =
        std::fs::read_dir(place.path("store")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["delegations", "keys", "memory"]);
    assert_eq!(place.path("store/keys").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_change_that_cannot_be_made_leaves_the_keys_as_they_are() {
    let place = TestStore::sealed();
    let before = place.keys();
    let change = ["--change-passphrase", "--passphrase-fd", "5", "--new-passphrase-fd", "6"];
    let empty = place.command("one", "empty", &change).output().unwrap();
    assert_fails(&empty, 2, "new passphrase: the passphrase is empty");
    assert_fails(&place.run(&change[..3]), 2, "there is no new passphrase");
    for args in [
        &["--change-passphrase", "--remove-passphrase"][..],
        &["--check", "--new-passphrase-fd", "6"],
        &["--change-passphrase", "--passphrase-fd", "5", "--new-passphrase-fd", "5"],
    ] {
        assert_fails(&place.run(args), 2, "see --help");
    }

    // As another keyd does while it serves them.
    let directory = File::open(place.path("store")).unwrap();
    flock(&directory, FlockOperation::NonBlockingLockExclusive).unwrap();
    for args in [&change[..], &["--remove-passphrase", "--passphrase-fd", "5"], &["--check"]] {
        assert_fails(&place.run(args), 4, "is in use by another process");
    }
    assert_eq!(place.keys(), before);
}

#[test]
fn what_cannot_be_read_is_named_and_never_replaced() {
    let place = TestStore::sealed();
    let whole = place.keys();
    let version = |bytes: &[u8]| [&bytes[..11], &[9], &bytes[12..]].concat();
    let damaged = |bytes: &[u8]| [&bytes[..100], &[!bytes[100]], &bytes[101..]].concat();
    for (bytes, message) in [
        (
            whole[..200].to_vec(),
            "it is sealed and truncated: only 200 bytes are left; restore it from a backup",
        ),
        (damaged(&whole), "it is sealed and damaged"),
        (version(&whole), "it is sealed in version 9, which this version of i2plan does not know"),
        (b"something else".to_vec(), "it is not a key file of i2plan"),
        (Vec::new(), "it is not a key file of i2plan"),
    ] {
        std::fs::write(place.path("store/keys"), &bytes).unwrap();
        for args in [
            &["--passphrase-fd", "5"][..],
            &["--check", "--passphrase-fd", "5"],
            &["--change-passphrase", "--passphrase-fd", "5", "--new-passphrase-fd", "6"],
            &["--remove-passphrase", "--passphrase-fd", "5"],
        ] {
            assert_fails(&place.start(args), 1, message);
            assert_eq!(place.keys(), bytes);
        }
    }
}

#[test]
fn maintenance_makes_no_keys() {
    let place = TestStore::new();
    for args in
        [&["--check"][..], &["--remove-passphrase"], &["--change-passphrase", "--new-passphrase-fd", "6"]]
    {
        assert_fails(&place.run(args), 1, "there is no key store in ");
        assert!(!place.path("store/keys").exists());
    }
}

/// keyd on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    terminal: OwnedFd,
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(place: &TestStore, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
        let mut command = place.command("none", "none", args);
        command
            .stdin(terminal.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(terminal.try_clone().unwrap());
        let child = command.spawn().unwrap();
        drop(command);
        let master = File::from(master);
        let (sender, shown) = channel();
        let mut reader = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, master, terminal, shown, seen: String::new() }
    }

    /// Reads on until this is shown.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.seen.contains(text) {
            match self.shown.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} is not shown, but {:?}", self.seen);
                }
            }
        }
        // What is shown next is new.
        self.seen = self.seen.split_once(text).unwrap().1.to_owned();
    }

    /// Types what nobody must see.
    fn type_secretly(&mut self, text: &str) {
        assert!(!self.echoes());
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Its exit status, and what it has shown at last.
    fn end(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        assert!(self.echoes(), "the terminal shows again what is typed");
        // The last words are on their way.
        let marker = "\x02end\x03";
        File::from(self.terminal.try_clone().unwrap()).write_all(marker.as_bytes()).unwrap();
        let mut all = std::mem::take(&mut self.seen);
        while !all.contains(marker) {
            all += &String::from_utf8_lossy(&self.shown.recv_timeout(TIMEOUT).unwrap());
        }
        assert!(!all.contains("horse") && !all.contains("staple"), "{all}");
        (status.code().unwrap_or(-1), all)
    }
}

#[test]
fn a_terminal_is_asked_and_shows_nothing_of_the_answer() {
    let place = TestStore::sealed();
    let mut terminal = Terminal::start(&place, &["--check"]);
    terminal.wait_for("Passphrase of the key store: ");
    terminal.type_secretly(&format!("{ONE}\n"));
    assert_eq!(terminal.end().0, 0);

    let mut terminal = Terminal::start(&place, &["--check"]);
    terminal.wait_for("Passphrase of the key store: ");
    terminal.type_secretly("another horse\n");
    let (status, text) = terminal.end();
    assert_eq!(status, 3);
    assert!(text.contains("the passphrase does not open it"), "{text}");
}

#[test]
fn a_new_passphrase_is_asked_for_twice() {
    let place = TestStore::new();
    let args = ["--meshd-user", "54322", "--tund-user", "54323", "--connector-user", "54324"];
    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("New passphrase for the key store: ");
    terminal.type_secretly(&format!("{ONE}\n"));
    terminal.wait_for("The same again: ");
    terminal.type_secretly(&format!("{TWO}\n"));
    let (status, text) = terminal.end();
    assert_eq!(status, 3);
    assert!(text.contains("the two passphrases differ"), "{text}");

    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("New passphrase for the key store: ");
    terminal.type_secretly("\n");
    let (status, text) = terminal.end();
    assert_eq!(status, 3);
    assert!(text.contains("the passphrase is empty"), "{text}");
    assert!(!place.path("store/keys").exists());

    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("New passphrase for the key store: ");
    terminal.type_secretly(&format!("{ONE}\n"));
    terminal.wait_for("The same again: ");
    terminal.type_secretly(&format!("{ONE}\n"));
    let (_, text) = terminal.end();
    assert!(text.contains("no listening socket"), "{text}");
    assert!(place.check(&["--passphrase-fd", "5"]).ends_with("are sealed\n"));
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let place = TestStore::sealed();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let mut terminal = Terminal::start(&place, &["--check"]);
        terminal.wait_for("Passphrase of the key store: ");
        assert!(!terminal.echoes());
        kill_process(Pid::from_child(&terminal.child), signal).unwrap();
        let (status, text) = terminal.end();
        assert_eq!(status, 1);
        assert!(text.contains("interrupted"), "{text}");
    }
}
