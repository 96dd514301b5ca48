//! What is printed, and how.

//!
//! Everything printed goes through [`print()`], [`note`] and [`json`], which let nothing through that drives a terminal. Who
//! puts a text of others into a line calls [`clean`] besides, so that it stays in that line and is no longer than it
//! should be.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use i2plan_ipc::escape::is_unsafe;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

pub mod json;
pub mod qr;
pub mod table;
pub mod units;

/// Most characters of one text of others.
const MAX_TEXT: usize = 2000;

/// What stands in the place of a character that is not shown.
const REPLACEMENT: &str = "\u{fffd}";

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

/// The columns of the terminal that standard output is, if it is one.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A serial line does not know its size.
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// The text without what would drive a terminal, reorder its line or hide in it, and cut if it is long: names and
/// reasons come from other programs and other people's nodes.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    let cut = text.char_indices().nth(MAX_TEXT).map(|(at, _)| format!("{}…", &text[..at]));
    match cut {
        None => without(text, is_unsafe),
        Some(cut) => Cow::Owned(without(&cut, is_unsafe).into_owned()),
    }
}

/// The same of several lines, whose number and length are known.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    without(text, |char| char != '\n' && is_unsafe(char))
}

fn without(text: &str, must_go: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.contains(&must_go) {
        Cow::Owned(text.replace(&must_go, REPLACEMENT))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_drives_the_terminal_or_fills_it() {
        let evil = "\x1b]0;x\x07\u{9b}2J\u{7f}\u{202e}\u{200b}\u{feff}\n";
        assert_eq!(clean(evil), "\u{fffd}]0;x\u{fffd}\u{fffd}2J".to_owned() + &REPLACEMENT.repeat(5));
        assert_eq!(lines("a\x1b[2J\n\u{200e}b\n"), "a\u{fffd}[2J\n\u{fffd}b\n");
        let long = clean(&"é".repeat(5000)).into_owned();
        assert_eq!((long.chars().count(), long.chars().last()), (MAX_TEXT + 1, Some('…')));
        assert!(matches!(clean("東京 🦀"), Cow::Borrowed(_)));
    }
}
