//! The terminal, the node and the clock around what is shown.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use i2plan_ipc::Role;
use i2plan_ipc::api::RequestKind;
use i2plan_ipc::api::meshd::{MeshdApi, Request};
use i2plan_ipc::client::{ClientError, DaemonLink};
use i2plan_ipc::node::EventStream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{MissedTickBehavior, interval};

use super::app::{App, Effect, Input, Look, Now};
use super::screen::Screen;
use super::view;
use crate::daemon;
use crate::failure::Failure;
use crate::output::qr::{Ink, is_utf8};

/// How often traffic is told and times go on.
const SECOND: Duration = Duration::from_secs(1);

/// What may wait to be taken in; whoever brings more waits too.
const QUEUE: usize = 256;

/// Shows the node on the whole terminal, until the user wants no more.
///
/// # Errors
/// If this is no terminal, or the node is not there in the beginning.
pub async fn run(socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let terminal = std::env::var("TERM").unwrap_or_default();
    if json {
        return Err(Failure::usage("the tui is for people, and --json prints for programs")
            .with_hint("`i2planctl status`, `peers`, `routes` and others print JSON"));
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::usage("the tui needs a terminal as standard input and output")
            .with_hint("over ssh, ask for one with `ssh -t`; scripts use the other commands with --json"));
    }
    if terminal == "dumb" {
        return Err(Failure::usage("the tui cannot draw on this terminal: TERM is dumb")
            .with_hint("set TERM to what the terminal is; if it is dumb, use the other commands"));
    }
    // A node that is not there is an error now, and waited for later.
    drop(daemon::connect(socket).await?);
    let failed = |error: io::Error| Failure::internal(format!("cannot draw on the terminal: {error}"));
    let mut screen = Screen::open().map_err(failed)?;
    let result = show(&mut screen, &daemon::socket_path(socket)).await;
    drop(screen);
    result.map_err(failed)
}

fn look() -> Look {
    let variable = |name: &str| std::env::var(name).ok();
    let colour = variable("NO_COLOR").is_none_or(|value| value.is_empty());
    Look { utf8: is_utf8(variable), colour, ink: Ink::of_terminal() }
}

async fn show(screen: &mut Screen, path: &Path) -> io::Result<()> {
    let (sender, mut inputs) = mpsc::channel(QUEUE);
    // A notice that is waited for must not be called off: the connection would be of no use any more.
    let notices = sender.clone();
    let mut stream = EventStream::new(path).with_traffic(SECOND);
    tokio::spawn(async move { while notices.send(Input::Notice(stream.next().await)).await.is_ok() {} });
    let node = Node { link: Arc::new(DaemonLink::new(path, Role::Client)), answers: sender };

    let mut terminal = crossterm::event::EventStream::new();
    let mut ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()?;
    let mut continued = signal(SignalKind::from_raw(Signal::SIGCONT as i32))?;
    let mut ticks = interval(SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let started = Instant::now();
    let now = || Now {
        running: started.elapsed(),
        unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    };
    let mut app = App::new(look(), screen.size()?);
    loop {
        screen.draw(|frame| view::draw(&app, frame))?;
        let ended = futures::future::select_all(ends.iter_mut().map(|end| Box::pin(end.recv())));
        let first = tokio::select! {
            input = inputs.recv() => input,
            event = terminal.next() => match event {
                Some(event) => Some(Input::Terminal(event?)),
                // The terminal has gone.
                None => return Ok(()),
            },
            _ = ticks.tick() => Some(Input::Tick),
            _ = continued.recv() => {
                // Whoever had the terminal meanwhile has left it in another mode.
                screen.leave(|| ())?;
                None
            }
            _ = ended => return Ok(()),
        };
        // Much may have come at once: it is drawn once.
        let more = std::iter::from_fn(|| inputs.try_recv().ok()).take(QUEUE);
        for input in first.into_iter().chain(more).collect::<Vec<_>>() {
            for command in app.update(input, now()) {
                match command {
                    Effect::Ask(request) => node.ask(request),
                    Effect::Copy(code) => screen.copy(code.expose())?,
                    Effect::Suspend => screen.leave(suspend)?,
                    Effect::Quit => return Ok(()),
                }
            }
        }
    }
}

/// Stops this process and those that belong to it, as the terminal would, until the shell has it go on.
fn suspend() {
    let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
}

/// Asks the node, and has the answer come in as the other inputs do.
struct Node {
    link: Arc<DaemonLink<MeshdApi>>,
    answers: Sender<Input>,
}

impl Node {
    fn ask(&self, request: Request) {
        let (link, answers) = (Arc::clone(&self.link), self.answers.clone());
        tokio::spawn(async move {
            let result = if request.terms().kind != RequestKind::Command {
                match link.call(request.clone()).await {
                    // Of a meshd that was started again since.
                    Err(ClientError::Broken { .. }) => link.call(request.clone()).await,
                    result => result,
                }
            } else {
                // On a connection of its own: it can take long, and must not be asked twice.
                match link.connect().await {
                    Ok(mut client) => client.call(request.clone()).await,
                    Err(error) => Err(error),
                }
            };
            // If nobody is there any more, the program is about to end.
            let _ = answers.send(Input::Answer(request, result.map_err(Failure::from))).await;
        });
    }
}
