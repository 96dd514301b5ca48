//! What is printed, and how.
//!
//! Everything printed goes through [`print()`], [`note`] and [`json`], which let nothing through that drives a terminal.
//! Text of others that becomes part of a line goes through [`clean`](i2plan_present::text::clean) besides.

use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use i2plan_present::look::{Look, Times, now};
use i2plan_present::text::lines;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

pub mod json;
pub mod qr;

/// Whether nobody reads standard output any more.
static READER_IS_GONE: AtomicBool = AtomicBool::new(false);

/// Whether a reader of standard output has seen enough, such as `head`: what goes on and on can stop then.
#[must_use]
pub fn reader_is_gone() -> bool {
    READER_IS_GONE.load(Ordering::Relaxed)
}

/// Waits for Ctrl-C, which ends the program no more from the call on, and not only when it is waited for.
///
/// # Errors
/// If signals cannot be listened for.
pub fn interrupt() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))?;
    Ok(async move {
        interrupts.recv().await;
    })
}

/// Waits until nobody reads standard output any more, if that is a pipe.
pub async fn reader_leaves() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own, which waits in the kernel for what cannot be asked for otherwise, and ends with the program.
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Err(Errno::INTR) => {}
                Err(_) => return,
                Ok(_) => break,
            }
        }
        let _ = sender.send(());
    });
    if receiver.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Writes lines to standard output. A reader who has seen enough is no failure.
///
/// # Errors
/// If it cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    print_as_it_is(&lines(text))
}

/// As [`print()`], for a text with nothing of others in it, which may drive the terminal.
///
/// # Errors
/// If it cannot be written.
pub fn print_as_it_is(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            READER_IS_GONE.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(error) => Err(Failure::internal(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes a line to standard error; without anybody there to read it, nothing is lost. It is one write, so that
/// lines of other processes do not come in between.
pub fn note(text: &str) {
    let _ = io::stderr().write_all(format!("{}\n", lines(text)).as_bytes());
}

/// How what is printed looks on standard output, with times as dates if that is asked for.
#[must_use]
pub fn look(dates: bool) -> Look {
    let times = if dates { Times::Dates } else { Times::From(now()) };
    Look { width: terminal_width(), colour: has_colour(&io::stdout()), drawing: qr::shows_utf8(), times }
}

/// Whether a stream is a terminal that shows colours, and nobody wants none (<https://no-color.org>).
#[must_use]
pub fn has_colour(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

/// The columns of the terminal that standard output is, if it is one.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    width_of(io::stdout())
}

/// The columns of a terminal.
#[must_use]
pub fn width_of(stream: impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    // A serial line does not know its size.
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
