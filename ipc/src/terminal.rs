//! The terminal that standard input is.

use std::io;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Keeps the terminal from showing what is typed, until dropped. What was typed before, and what is left unread
/// after, is thrown away: it is no secret for whoever reads next.
#[derive(Debug)]
pub struct Silence(Termios);

impl Silence {
    /// Begins it.
    ///
    /// # Errors
    /// If standard input is no terminal.
    pub fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // These keys would leave the terminal to others as it is; the interrupt is for the caller to see to.
        for key in [SpecialCodeIndex::VQUIT, SpecialCodeIndex::VSUSP] {
            silent.special_codes[key] = 0;
        }
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
