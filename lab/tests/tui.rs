//! `i2planctl tui` on a terminal, with a real node behind it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::num::NonZeroU16;
use std::process::ExitStatus;
use std::time::Duration;

use data_encoding::BASE64;
use lab::Failure;
use lab::node::{Lab, Node};
use lab::process::signal;
use lab::sandbox::bin;
use lab::testing::sandboxed;
use lab::traffic::reach;
use nix::sys::signal::Signal;
use pty_process::{Command, Pty, Size};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// How long the screen may take to show what happened at this node.
const SOON: Duration = Duration::from_secs(30);

/// How long what happens between two nodes may take.
const LATER: Duration = Duration::from_secs(120);

/// What was put on the clipboard.
#[derive(Default)]
struct Clipboard(Option<String>);

impl vt100::Callbacks for Clipboard {
    fn copy_to_clipboard(&mut self, _: &mut vt100::Screen, _: &[u8], data: &[u8]) {
        self.0 = BASE64.decode(data).ok().and_then(|text| String::from_utf8(text).ok());
    }
}

/// A terminal with the TUI of a node on it.
struct Terminal {
    pty: Pty,
    emulator: vt100::Parser<Clipboard>,
    child: Child,
    /// How it was set before.
    before: Termios,
}

fn size(columns: u16, rows: u16) -> (NonZeroU16, NonZeroU16) {
    (NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap())
}

impl Terminal {
    fn open(node: &Node, columns: u16, rows: u16) -> Result<Self, Failure> {
        let failed = |error: pty_process::Error| Failure::new(format!("no terminal: {error}"));
        let (pty, pts) = pty_process::open().map_err(failed)?;
        pty.resize(Size::new(rows, columns)).map_err(failed)?;
        let before = tcgetattr(&pty).map_err(std::io::Error::from)?;
        let child = Command::new(bin().join("i2planctl"))
            .arg("--socket")
            .arg(node.socket())
            .arg("tui")
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .kill_on_drop(true)
            .spawn(pts)
            .map_err(failed)?;
        let (rows, columns) = size(columns, rows);
        let emulator = vt100::Parser::new_with_callbacks(rows, columns, 0, Clipboard::default());
        Ok(Self { pty, emulator, child, before })
    }

    fn screen(&self) -> &vt100::Screen {
        self.emulator.screen()
    }

    fn shows(&self, text: &str) -> bool {
        self.screen().contents().contains(text)
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::new(format!("{what}; the screen is\n{}", self.screen().contents()))
    }

    async fn press(&mut self, keys: &str) -> Result<(), Failure> {
        Ok(self.pty.write_all(keys.as_bytes()).await?)
    }

    fn resize(&mut self, columns: u16, rows: u16) -> Result<(), Failure> {
        let (new_rows, new_columns) = size(columns, rows);
        self.emulator.screen_mut().set_size(new_rows, new_columns);
        self.pty.resize(Size::new(rows, columns)).map_err(|error| Failure::new(error.to_string()))
    }

    /// Waits until the screen is so.
    async fn until(
        &mut self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + deadline;
        let mut bytes = [0; 8192];
        while !condition(self) {
            match timeout_at(end, self.pty.read(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => self.emulator.process(&bytes[..count]),
                Err(_) => return Err(self.failure(&format!("not in time: {what}"))),
                // Linux's way to say that nobody is at the other end any more.
                _ => return Err(self.failure(&format!("it ended before: {what}"))),
            }
        }
        Ok(())
    }

    async fn shown(&mut self, text: &str, deadline: Duration) -> Result<(), Failure> {
        self.until(&format!("{text:?} is shown"), deadline, |terminal| terminal.shows(text)).await
    }

    async fn gone(&mut self, text: &str, deadline: Duration) -> Result<(), Failure> {
        self.until(&format!("{text:?} is shown no more"), deadline, |terminal| !terminal.shows(text)).await
    }

    /// Waits until it has ended, and the terminal is as it was.
    async fn ended(mut self) -> Result<ExitStatus, Failure> {
        let mut bytes = [0; 8192];
        // Until nobody is at the other end.
        while let Ok(count @ 1..) = self.pty.read(&mut bytes).await {
            self.emulator.process(&bytes[..count]);
        }
        let status = self.child.wait().await?;
        let screen = self.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
        assert_eq!(screen.contents(), "", "nothing is left on the terminal");
        assert!(self.is_restored(), "lines are edited and shown again");
        Ok(status)
    }

    /// Whether lines are edited and shown by the terminal again, as they were before.
    fn is_restored(&self) -> bool {
        let modes = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcgetattr(&self.pty).is_ok_and(|now| now.local_modes & modes == self.before.local_modes & modes)
    }

    /// Seconds that `meshd` has been up, as the first page says it.
    fn uptime(&self) -> Option<u64> {
        let contents = self.screen().contents();
        let (_, rest) = contents.split_once(", up ")?;
        rest.split_once('s')?.0.parse().ok()
    }

    /// The QR codes on the screen, as an independent reader reads them.
    fn qr_codes(&self) -> Vec<String> {
        const CELL: (usize, usize) = (6, 12);
        let (rows, columns) = self.screen().size();
        let (rows, columns) = (usize::from(rows.get()), usize::from(columns.get()));
        let brightness = |colour, own| match colour {
            vt100::Color::Idx(0 | 16) => 0,
            vt100::Color::Idx(7 | 231) => 255,
            _ => own,
        };
        let pixel = |x: usize, y: usize| {
            let at = |count: usize| u16::try_from(count).unwrap();
            let cell = self.screen().cell(at(y / CELL.1), at(x / CELL.0)).unwrap();
            let upper = y % CELL.1 < CELL.1 / 2;
            let ink = match cell.contents() {
                "█" => true,
                "▀" => upper,
                "▄" => !upper,
                _ => false,
            };
            // A dark terminal.
            if ink { brightness(cell.fgcolor(), 200) } else { brightness(cell.bgcolor(), 20) }
        };
        let (width, height) = (columns * CELL.0, rows * CELL.1);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
        image.detect_grids().iter().filter_map(|grid| grid.decode().ok()).map(|(_, text)| text).collect()
    }
}

#[test]
fn a_node_is_watched_and_controlled_from_a_terminal() {
    sandboxed(LAB, "a_node_is_watched_and_controlled_from_a_terminal", async || {
        let lab = Lab::with_nodes(2).await?;
        let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
        let mut terminal = Terminal::open(here, 80, 24)?;
        terminal.shown("connected", SOON).await?;
        terminal.shown("none: found one", SOON).await?;

        // The keys are told.
        terminal.press("?").await?;
        terminal.shown("Everywhere", SOON).await?;
        terminal.press("\x1b").await?;
        terminal.gone("Everywhere", SOON).await?;

        // A first invite founds the network. Its code is shown only when that is asked for.
        terminal.press("4").await?;
        terminal.shown("made no invites", SOON).await?;
        terminal.press("n").await?;
        terminal.shown("New invite", SOON).await?;
        terminal.press("\r").await?;
        terminal.shown("network founded", SOON).await?;
        terminal.shown("0 of 1", SOON).await?;
        assert!(!terminal.shows("i2plan://"));
        terminal.press("v").await?;
        terminal.shown("takes 61 columns and 32 lines, and the terminal has 80 and 24", SOON).await?;
        terminal.resize(100, 40)?;
        terminal.until("a QR code is drawn", SOON, |terminal| terminal.qr_codes().len() == 1).await?;
        let code = terminal.qr_codes().remove(0);
        terminal.press("c").await?;
        terminal
            .until("the code is on the clipboard", SOON, |terminal| {
                terminal.emulator.callbacks().0.as_ref() == Some(&code)
            })
            .await?;
        terminal.press("v").await?;
        terminal.shown("0 of 1", SOON).await?;
        assert!(terminal.qr_codes().is_empty() && !terminal.shows("i2plan://"));

        // Joined by what the reader made of it, the other node is there without a key being pressed.
        there.join(&code).await?.expect("the code on the screen leads into the network");
        terminal.shown("used up", LATER).await?;
        terminal.press("2").await?;
        terminal.shown(&there.name, LATER).await?;
        reach(there, here).await?;
        terminal
            .until("the tunnel is up", LATER, |terminal| {
                let contents = terminal.screen().contents();
                contents.lines().any(|line| line.contains(&there.name) && line.contains(" up "))
            })
            .await?;
        terminal.press("\r").await?;
        terminal.shown("Round trip", SOON).await?;
        terminal.press("\x1b").await?;
        terminal.gone("Round trip", SOON).await?;

        // Traffic is drawn.
        terminal.press("1").await?;
        terminal
            .until("bytes are counted", LATER, |terminal| {
                let contents = terminal.screen().contents();
                let below = contents.lines().skip_while(|line| !line.starts_with("Received")).nth(1);
                // The scale of the graph.
                below.is_some_and(|line| {
                    line.trim_start().starts_with(char::is_numeric) && line.contains("B/s")
                })
            })
            .await?;

        // Banned, and not any more.
        terminal.press("2b").await?;
        terminal.shown("New ban", SOON).await?;
        terminal.press("1h\rtoo loud\r").await?;
        terminal.shown("is banned", SOON).await?;
        terminal.until("the state is shown", SOON, |terminal| terminal.shows(" banned ")).await?;
        terminal.press("5").await?;
        terminal.shown("too loud", SOON).await?;
        terminal.press("x").await?;
        terminal.shown("Lift the ban", SOON).await?;
        terminal.press("y").await?;
        terminal.shown("nobody is banned", SOON).await?;

        // All that is in the events and the log, on terminals of any size.
        terminal.resize(40, 10)?;
        terminal.shown("page 5 of 6", SOON).await?;
        for (key, page) in
            [("1", "Status"), ("2", "Peers"), ("3", "Routes"), ("4", "Invites"), ("6", "Events")]
        {
            terminal.press(key).await?;
            terminal.shown(&format!("← {page}"), SOON).await?;
        }
        terminal.resize(80, 24)?;
        terminal.shown("1 Status", SOON).await?;
        terminal.shown("is banned by hand", SOON).await?;

        // meshd dies, and is started again by its supervisor.
        terminal.press("1").await?;
        signal(here.daemon_pid("meshd").await?, Signal::SIGKILL)?;
        let killed = Instant::now();
        terminal.shown("The node does not answer", SOON).await?;
        terminal.shown("the node answers again", LATER).await?;
        terminal.gone("does not answer", SOON).await?;
        terminal.shown("2 members", LATER).await?;
        // What is shown is of the new one.
        terminal
            .until("meshd has not been up for longer", SOON, |terminal| {
                terminal.uptime().is_some_and(|uptime| uptime <= killed.elapsed().as_secs())
            })
            .await?;
        assert!(!terminal.shows("lost the connection"));

        terminal.press("q").await?;
        assert!(terminal.ended().await?.success());

        // The other ways out leave the terminal as it was too.
        for way in ["\x03", "TERM", "HUP"] {
            let mut terminal = Terminal::open(here, 80, 24)?;
            terminal.shown("connected", SOON).await?;
            assert!(terminal.screen().alternate_screen() && !terminal.is_restored());
            let pid = terminal.child.id().unwrap();
            match way {
                "TERM" => signal(pid, Signal::SIGTERM)?,
                "HUP" => signal(pid, Signal::SIGHUP)?,
                keys => terminal.press(keys).await?,
            }
            assert!(terminal.ended().await?.success(), "{way}");
        }
        lab.stop().await
    });
}
