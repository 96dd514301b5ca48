//! The terminal while it is drawn on, and as it was before.

use std::io::{self, Write as _};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use data_encoding::BASE64;
use i2plan_ipc::daemon::panics::EXIT_STATUS;
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};
use zeroize::Zeroizing;

/// Whether the terminal is not as it was.
static OPEN: AtomicBool = AtomicBool::new(false);

static HOOK: Once = Once::new();

/// The terminal of this process, drawn on until dropped. A panic anywhere in the process ends it too, after
/// the terminal was restored, so that what it says can be read.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Screen {
    /// Begins.
    ///
    /// # Errors
    /// If the terminal cannot be set up.
    pub fn open() -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                let was_open = restore();
                before(panic);
                if was_open {
                    std::process::exit(EXIT_STATUS.into());
                }
            }));
        });
        // Colours are chosen by who draws, who knows of NO_COLOR.
        crossterm::style::force_color_output(true);
        Ok(Self { terminal: enter()? })
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// If the terminal does not tell them.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Draws.
    ///
    /// # Errors
    /// If the terminal does not take it.
    pub fn draw(&mut self, view: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(view).map(|_| ())
    }

    /// Puts a text on the terminal's clipboard (OSC 52), where the terminal allows that.
    ///
    /// # Errors
    /// If the terminal does not take it.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        let mut sequence = Zeroizing::new(String::with_capacity(text.len() * 2 + 16));
        sequence.push_str("\x1b]52;c;");
        BASE64.encode_append(text.as_bytes(), &mut sequence);
        sequence.push('\x07');
        let mut out = io::stdout();
        out.write_all(sequence.as_bytes())?;
        out.flush()
    }

    /// Lends the terminal to others while `meanwhile` runs.
    ///
    /// # Errors
    /// If the terminal cannot be set up again.
    pub fn leave(&mut self, meanwhile: impl FnOnce()) -> io::Result<()> {
        restore();
        meanwhile();
        self.terminal = enter()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Takes the terminal over, with nothing on it.
fn enter() -> io::Result<Terminal<CrosstermBackend<io::Stdout>>> {
    enable_raw_mode()?;
    OPEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All), EnableBracketedPaste)
        .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())))
        .inspect_err(|_| {
            restore();
        })
}

/// Leaves the terminal as it was; whether it was not.
fn restore() -> bool {
    let was_open = OPEN.swap(false, Ordering::SeqCst);
    if was_open {
        // A terminal that has gone needs nothing.
        let _ = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
    was_open
}
