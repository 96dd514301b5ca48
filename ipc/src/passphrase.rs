//! Passphrases: where they come from, and how they are held.

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write as _};
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};
use std::pin::pin;

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::terminal::Silence;

/// Longest passphrase, bytes.
pub const MAX_LEN: usize = 1024;

/// A passphrase: 1 to [`MAX_LEN`] bytes, none of them a line feed. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(Vec<u8>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Why there is no passphrase.
#[derive(Debug, Error)]
pub enum PassphraseError {
    /// It has no characters.
    #[error("the passphrase is empty")]
    Empty,
    /// It is longer than [`MAX_LEN`].
    #[error("the passphrase is longer than {MAX_LEN} bytes")]
    TooLong,
    /// A new one was typed differently the second time.
    #[error("the two passphrases differ")]
    Different,
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// It could not be read.
    #[error("cannot read the passphrase from {from}: {source}")]
    Io {
        /// From where.
        from: String,
        /// Why not.
        source: io::Error,
    },
}

impl Passphrase {
    /// The line up to its end.
    ///
    /// # Errors
    /// If it is empty or too long.
    pub fn new(line: &[u8]) -> Result<Self, PassphraseError> {
        let text = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match text.len() {
            0 => Err(PassphraseError::Empty),
            1..=MAX_LEN => Ok(Self(text.to_vec())),
            _ => Err(PassphraseError::TooLong),
        }
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Reads to the end of the first line, or of the input. `from` names the input in errors.
    ///
    /// # Errors
    /// [`PassphraseError`]; endless input is too long.
    pub fn read(mut input: impl Read, from: &str) -> Result<Self, PassphraseError> {
        let mut line = Line::default();
        while !line.is_complete() {
            match input.read(line.room()) {
                Ok(0) => break,
                Ok(count) => line.len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(PassphraseError::Io { from: from.to_owned(), source }),
            }
        }
        Self::new(line.bytes())
    }

    /// Asks on the terminal that standard input is, which does not show what is typed. When `interrupted` comes
    /// first, the terminal is as it was.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub async fn ask(prompt: &str, interrupted: impl Future) -> Result<Self, PassphraseError> {
        let failed = |source| PassphraseError::Io { from: "the terminal".to_owned(), source };
        let silence = Silence::new().map_err(failed)?;
        let _ = write!(io::stderr(), "{prompt}: ");
        let line = tokio::select! {
            line = typed() => line.map_err(failed),
            _ = interrupted => Err(PassphraseError::Interrupted),
        };
        drop(silence);
        let _ = writeln!(io::stderr());
        Self::new(line?.bytes())
    }

    /// Asks for a new passphrase, twice: nobody sees what is typed.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub async fn ask_new(prompt: &str, interrupted: impl Future) -> Result<Self, PassphraseError> {
        let mut interrupted = pin!(interrupted);
        let first = Self::ask(prompt, interrupted.as_mut()).await?;
        let second = Self::ask("The same again", interrupted).await?;
        if first == second { Ok(first) } else { Err(PassphraseError::Different) }
    }
}

/// A line that is being read, in memory that neither grows nor outlives it.
struct Line {
    buffer: Zeroizing<Vec<u8>>,
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { buffer: Zeroizing::new(vec![0; MAX_LEN + 1]), len: 0 }
    }
}

impl Line {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// It has its end, or is too long.
    fn is_complete(&self) -> bool {
        self.len == self.buffer.len() || self.bytes().contains(&b'\n')
    }
}

/// The next line of the terminal. It is read in a thread of its own, which an interrupt can leave behind: a
/// blocked read cannot be called off.
async fn typed() -> io::Result<Line> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Line::default();
        let read = loop {
            match rustix::io::read(io::stdin(), line.room()) {
                Ok(0) => break Ok(line),
                Ok(count) => line.len += count,
                Err(Errno::INTR) => {}
                Err(error) => break Err(error.into()),
            }
            if line.is_complete() {
                break Ok(line);
            }
        };
        let _ = sender.send(read);
    });
    receiver.await.map_err(io::Error::other)?
}

/// Takes over a descriptor that whoever started this process has left open for it, and named. Only before this
/// process opens anything itself, and once for each: else it could be another one's by then.
///
/// # Errors
/// If it is not open, or is where this process writes to.
#[allow(unsafe_code, reason = "taking over an inherited descriptor")]
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    match number {
        0 => {
            // The number itself stays taken: nothing that is opened later shall pass for standard input.
            let input = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
            rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
            Ok(input)
        }
        1 | 2 => Err(io::Error::new(io::ErrorKind::InvalidInput, "that is where messages go")),
        3.. => {
            // SAFETY: it is only asked whether there is such a descriptor, which ends with an error if not.
            let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
            let flags = fcntl_getfd(borrowed)?;
            fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
            // SAFETY: it is open, and was so before this process opened anything; nobody else takes it.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        }
        _ => Err(Errno::BADF.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Passphrase, PassphraseError> {
        Passphrase::read(input, "here")
    }

    #[test]
    fn the_first_line_counts() {
        for input in [&b"a b"[..], b"a b\n", b"a b\nand more\n"] {
            assert_eq!(read(input).unwrap().expose(), b"a b");
        }
        assert_eq!(read(b" \r\n").unwrap().expose(), b" \r", "nothing but the line's end is cut off");
    }

    #[test]
    fn none_is_refused() {
        for input in [&b""[..], b"\n", b"\nx"] {
            assert!(matches!(read(input), Err(PassphraseError::Empty)));
        }
    }

    #[test]
    fn the_length_is_bounded() {
        let longest = [vec![b'x'; MAX_LEN], b"\n".to_vec()].concat();
        assert_eq!(read(&longest).unwrap().expose().len(), MAX_LEN);
        assert_eq!(read(&longest[..MAX_LEN]).unwrap().expose().len(), MAX_LEN);
        assert!(matches!(read(&[b'x'; MAX_LEN + 1]), Err(PassphraseError::TooLong)));
        assert!(matches!(Passphrase::read(io::repeat(b'x'), "here"), Err(PassphraseError::TooLong)));
    }

    #[test]
    fn input_may_come_in_pieces() {
        let pieces = (&b"ab"[..]).chain(&b"cd"[..]).chain(&b"\nef"[..]);
        assert_eq!(Passphrase::read(pieces, "here").unwrap().expose(), b"abcd");
    }

    #[test]
    fn passphrases_do_not_print() {
        assert_eq!(format!("{:?}", read(b"secret").unwrap()), "Passphrase(…)");
    }

    #[test]
    fn descriptors_that_cannot_be_it_are_refused() {
        for number in [-1, 1, 2, 1 << 20] {
            assert!(inherited(number).is_err(), "{number}");
        }
    }
}
