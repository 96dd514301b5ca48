//! Styles that can be read on dark and on light grounds: the terminal's own colours of text and ground, and of
//! the others only those that stand out from both. No colour says what no word says.

use ratatui::style::{Color, Modifier, Style};

/// Styles, with or without colours.
#[derive(Debug, Clone, Copy)]
pub(in crate::tui) struct Theme {
    pub(in crate::tui) colour: bool,
}

impl Theme {
    fn coloured(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    pub(super) fn doubtful(self) -> Style {
        self.coloured(Color::Magenta)
    }

    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn graph(self) -> Style {
        self.coloured(Color::Green)
    }

    pub(super) fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn alarm(self) -> Style {
        self.bad().add_modifier(Modifier::REVERSED)
    }
}
