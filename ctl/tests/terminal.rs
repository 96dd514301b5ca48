//! What the program does on a terminal.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{PROGRAM, command, open_dir, stderr};
use i2plan_ipc::access::{Access, Who};
use i2plan_ipc::api::meshd::{Invite, MeshdApi, Reply, Request};
use i2plan_ipc::secret::SecretText;
use i2plan_ipc::server::{Answer, ConnectionLimits, Service, serve};
use i2plan_ipc::{ApiError, Role};
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::invite::InviteSecret;
use pty_process::Size;
use pty_process::blocking::{Command, open};
use rustix::termios::{LocalModes, tcgetattr};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

/// Tells the test program that it is to be what runs on a terminal.
const INNER: &str = "I2PLAN_TEST_INNER";

fn code() -> String {
    let (network, inviter) = (NetworkId([1; 32]), NodeId([2; 32]));
    let (control, secret) = (DestinationHash([3; 32]), InviteSecret([4; 32]));
    let (subnet, expires_at) = (Ipv4Subnet::DEFAULT, 1 << 33);
    let name = "office".parse().unwrap();
    let invite = i2plan_proto::invite::Invite { network, name, subnet, inviter, control, secret, expires_at };
    invite.to_code().to_string()
}

/// Makes invites.
struct Inviter;

impl Service for Inviter {
    type Api = MeshdApi;

    async fn call(&self, _: Role, request: Request, _: Vec<OwnedFd>) -> Result<Answer<Reply>, ApiError> {
        let Request::CreateInvite { max_uses, .. } = request else { return Err(ApiError::invalid("no")) };
        let (id, network) = ("id".to_owned(), "net".to_owned());
        let invite = SecretText::new(code());
        let (expires_at, addresses) = (1 << 33, 16);
        Ok(Reply::Invite(Invite { invite, id, expires_at, max_uses, addresses, network, founded: false })
            .into())
    }
}

struct Node {
    dir: TempDir,
    _runtime: Runtime,
}

impl Node {
    fn new() -> Self {
        let (dir, runtime) = (open_dir(), Runtime::new().unwrap());
        let context = runtime.enter();
        let listener = UnixListener::bind(dir.path().join("meshd.sock")).unwrap();
        let access = Access::new([(Role::Client, Who::Anyone)]);
        runtime.spawn(serve(listener, Arc::new(Inviter), access, ConnectionLimits::default()));
        drop(context);
        Self { dir, _runtime: runtime }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("meshd.sock")
    }
}

/// What came of a program on a terminal.
struct Shown {
    status: ExitStatus,
    emulator: vt100::Parser,
    /// All that it wrote.
    text: String,
    /// Lines are edited and shown by the terminal when it has ended.
    restored: bool,
}

/// Runs a program on a terminal of its own, to its end.
fn on_terminal(program: &Path, args: &[&str], variables: &[(&str, &str)], columns: u16, rows: u16) -> Shown {
    let (mut pty, pts) = open().unwrap();
    pty.resize(Size::new(rows, columns)).unwrap();
    let mut command = Command::new(program).args(args).env_remove("NO_COLOR").env_remove("I2PLAN_SOCKET");
    for (name, value) in [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")].iter().chain(variables) {
        command = command.env(name, value);
    }
    let mut child = command.spawn(pts).unwrap();
    let mut text = Vec::new();
    let mut bytes = [0; 8192];
    // Linux answers with an error when nobody is at the other end any more.
    while let Ok(count @ 1..) = pty.read(&mut bytes) {
        text.extend_from_slice(&bytes[..count]);
    }
    let modes = tcgetattr(&pty).unwrap().local_modes;
    let mut emulator = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0);
    emulator.process(&text);
    Shown {
        status: child.wait().unwrap(),
        emulator,
        text: String::from_utf8(text).unwrap(),
        restored: modes.contains(LocalModes::ICANON | LocalModes::ECHO),
    }
}

fn invite(node: &Node, more: &[&str], variables: &[(&str, &str)], columns: u16, rows: u16) -> Shown {
    let socket = node.socket();
    let args = [&["--socket", socket.to_str().unwrap(), "invite", "create"], more].concat();
    on_terminal(Path::new(PROGRAM), &args, variables, columns, rows)
}

/// What an independent reader finds on the screen; the terminal is dark.
fn qr_codes(emulator: &vt100::Parser) -> Vec<String> {
    const CELL: (usize, usize) = (6, 12);
    let screen = emulator.screen();
    let (rows, columns) = screen.size();
    let brightness = |colour| match colour {
        vt100::Color::Idx(7 | 231) => 255,
        _ => 0,
    };
    let pixel = |x: usize, y: usize| {
        let at = |count: usize| u16::try_from(count).unwrap();
        let cell = screen.cell(at(y / CELL.1), at(x / CELL.0)).unwrap();
        let upper = y % CELL.1 < CELL.1 / 2;
        match cell.contents() {
            "▀" if upper => brightness(cell.fgcolor()),
            "▄" if !upper => brightness(cell.fgcolor()),
            "█" => brightness(cell.fgcolor()),
            _ => brightness(cell.bgcolor()),
        }
    };
    let (width, height) = (usize::from(columns.get()) * CELL.0, usize::from(rows.get()) * CELL.1);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
    image.detect_grids().iter().filter_map(|grid| grid.decode().ok()).map(|(_, text)| text).collect()
}

#[test]
fn a_qr_code_is_read_from_the_terminal() {
    let node = Node::new();
    for (variables, columns, rows) in [
        (&[][..], 61, 32),
        (&[], 80, 40),
        // Colours of a QR code are no decoration.
        (&[("NO_COLOR", "1")], 80, 40),
        (&[("TERM", "vt220")], 80, 40),
        (&[("LC_ALL", "C")], 122, 62),
    ] {
        let shown = invite(&node, &["--qr"], variables, columns, rows);
        assert!(shown.status.success(), "{}", shown.text);
        assert_eq!(
            qr_codes(&shown.emulator),
            [code()],
            "{variables:?}\n{}",
            shown.emulator.screen().contents()
        );
        assert!(shown.text.contains(&code()));
    }
}

#[test]
fn a_terminal_too_small_for_a_qr_code_is_told_before_an_invite_is_made() {
    let node = Node::new();
    let shown = invite(&node, &["--qr"], &[], 80, 24);
    assert_eq!(shown.status.code(), Some(1));
    assert!(
        shown.text.contains("takes 61 columns and 32 lines, and the terminal has 80 and 24"),
        "{}",
        shown.text
    );
    assert!(!shown.text.contains("i2plan://"));
    // In ASCII it takes more, and what to do about it is said.
    let shown = invite(&node, &["--qr"], &[("LC_ALL", "C")], 100, 40);
    assert!(shown.text.contains("takes 122 columns") && shown.text.contains("--qr=blocks"), "{}", shown.text);
    // Said so, it is drawn.
    assert!(invite(&node, &["--qr=blocks"], &[], 80, 24).status.success());
}

#[test]
fn a_qr_code_is_drawn_into_a_pipe_only_if_it_is_said_how() {
    let node = Node::new();
    let run = |args: &[&str]| {
        let args = [&["invite", "create"], args].concat();
        command(PROGRAM).args(args).env("I2PLAN_SOCKET", node.socket()).stdin(Stdio::null()).output().unwrap()
    };
    let refused = run(&["--qr"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--qr=ascii"), "{}", stderr(&refused));
    assert!(refused.stdout.is_empty());
    let drawn = run(&["--qr=ascii"]);
    assert!(drawn.status.success() && drawn.stdout.is_ascii());
    assert_eq!(drawn.stdout.iter().filter(|byte| **byte == b'\n').count(), 62);
    assert_eq!(run(&["--qr", "--json"]).status.code(), Some(2));
    assert_eq!(run(&["--qr=colour"]).status.code(), Some(2));
}

/// Types at the prompt of `join` under a shell that echoes, and returns all that was shown.
fn type_a_code(socket: &Path, pieces: &[&str]) -> String {
    let (mut pty, pts) = open().unwrap();
    pty.resize(Size::new(24, 80)).unwrap();
    let script = "\"$0\" --socket \"$1\" join; echo status $?; sleep 0.3; echo over";
    let args = ["-c", script, PROGRAM, socket.to_str().unwrap()];
    let mut child = Command::new("/bin/sh").args(args).env("TERM", "dumb").spawn(pts).unwrap();
    let mut shown = String::new();
    let mut bytes = [0; 8192];
    let mut typed = false;
    while let Ok(count @ 1..) = pty.read(&mut bytes) {
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        if shown.contains("(it is not shown)") && !std::mem::replace(&mut typed, true) {
            for piece in pieces {
                pty.write_all(piece.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    child.wait().unwrap();
    shown
}

#[test]
fn a_code_that_is_pasted_in_pieces_is_read_whole_and_never_shown() {
    let dir = open_dir();
    let nowhere = dir.path().join("meshd.sock");
    let code = code();
    let secret = &code[150..];
    let with_blank_line = format!("Invite:\n\n{}\n{}\n\nrm x\n", &code[..76], &code[76..]);
    for pieces in
        [&[&code[..100], "\n", &code[100..], "\n"][..], &[&code[..], "\n", "and more\n"], &[&with_blank_line]]
    {
        let shown = type_a_code(&nowhere, pieces);
        assert!(shown.contains("i2plan is not running") && shown.contains("status 3"), "{shown}");
        assert!(!shown.contains(secret) && !shown.contains("rm x") && !shown.contains("and more"), "{shown}");
    }
    // An empty line ends it, and damage is told when the paste is over.
    let shown = type_a_code(&nowhere, &[&code[..100], "\n\n"]);
    assert!(shown.contains("is truncated") && shown.contains("status 1"), "{shown}");
    let damaged = format!("{}\n", code.replace('A', "B"));
    let shown = type_a_code(&nowhere, &[&damaged, "\n"]);
    assert!(shown.contains("is damaged") && !shown.contains(secret), "{shown}");
}

#[test]
fn errors_have_a_colour_where_that_is_wanted() {
    let dir = open_dir();
    let nowhere = dir.path().join("meshd.sock");
    let args = ["--socket", nowhere.to_str().unwrap(), "status"];
    for (variables, is_coloured) in [
        (&[][..], true),
        (&[("NO_COLOR", "1")], false),
        (&[("NO_COLOR", "")], true),
        (&[("TERM", "dumb")], false),
    ] {
        let shown = on_terminal(Path::new(PROGRAM), &args, variables, 80, 24);
        assert_eq!(shown.text.starts_with("\x1b[1;31merror:\x1b[0m"), is_coloured, "{:?}", shown.text);
        assert_eq!(shown.text.contains('\x1b'), is_coloured, "{:?}", shown.text);
    }
}

#[test]
fn the_tui_says_what_it_needs() {
    let node = Node::new();
    let run = |args: &[&str]| {
        command(PROGRAM).args(args).env("I2PLAN_SOCKET", node.socket()).stdin(Stdio::null()).output().unwrap()
    };
    let refused = run(&["tui"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("ssh -t"), "{}", stderr(&refused));
    assert_eq!(run(&["tui", "--json"]).status.code(), Some(2));
    let program = Path::new(PROGRAM);
    let shown = on_terminal(program, &["tui"], &[("TERM", "dumb")], 80, 24);
    assert_eq!(shown.status.code(), Some(2), "{}", shown.text);
    // A node that is not there is an error as it is for every command, with the terminal as it was.
    let nowhere = node.dir.path().join("nowhere");
    let shown = on_terminal(program, &["--socket", nowhere.to_str().unwrap(), "tui"], &[], 80, 24);
    assert_eq!(shown.status.code(), Some(3), "{}", shown.text);
    assert!(shown.text.contains("i2plan is not running") && !shown.text.contains("\x1b[?"), "{}", shown.text);
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    const NAME: &str = "a_panic_leaves_the_terminal_as_it_was";
    if let Ok(place) = std::env::var(INNER) {
        let mut screen = i2planctl::tui::screen::Screen::open().unwrap();
        screen.draw(|frame| frame.render_widget("in the middle of it", frame.area())).unwrap();
        match place.as_str() {
            // Where nobody would wait for it.
            "thread" => std::thread::spawn(|| panic!("the reason")).join().unwrap(),
            _ => panic!("the reason"),
        }
        return;
    }
    let program = std::env::current_exe().unwrap();
    for place in ["main", "thread"] {
        let args = [NAME, "--exact", "--nocapture", "--test-threads=1"];
        let shown = on_terminal(&program, &args, &[(INNER, place)], 80, 24);
        assert!(shown.text.contains("\x1b[?1049h"), "{}", shown.text);
        assert!(shown.restored, "{place}");
        let screen = shown.emulator.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
        assert!(screen.contents().contains("the reason"), "{}", screen.contents());
        assert!(!screen.contents().contains("in the middle of it"));
        assert_eq!(shown.status.code(), Some(101));
    }
}
