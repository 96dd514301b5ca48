//! QR codes drawn with characters.

use std::fmt::Write as _;

use clap::ValueEnum;
use i2plan_present::qr::Qr;
use i2plan_proto::address::Ipv4Subnet;
use i2plan_proto::destination::DestinationHash;
use i2plan_proto::identity::{NetworkId, NodeId};
use i2plan_proto::invite::{Invite, InviteSecret};
use i2plan_proto::membership::NetworkName;
use i2plan_proto::record::NodeName;
use zeroize::Zeroizing;

/// What the modules of a code are drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Half blocks: two modules a character, one above the other
    Blocks,
    /// ASCII: two characters a module
    Ascii,
}

/// Dark and light, which have to be that on every terminal, whatever its theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Of the 256 colours, the black and the white that themes do not change.
    Fixed,
    /// Of the first eight.
    Basic,
}

impl Ink {
    /// Dark and light as numbers of colours.
    #[must_use]
    pub fn colours(self) -> (u8, u8) {
        match self {
            Self::Fixed => (16, 231),
            Self::Basic => (0, 7),
        }
    }

    /// What the terminal of this process has, going by its environment.
    #[must_use]
    pub fn of_terminal() -> Self {
        if crossterm::style::available_color_count() > 8 { Self::Fixed } else { Self::Basic }
    }
}

/// What the locale of this process can show.
impl Default for Style {
    fn default() -> Self {
        if shows_utf8() { Self::Blocks } else { Self::Ascii }
    }
}

/// Whether the locale of this process shows UTF-8.
#[must_use]
pub fn shows_utf8() -> bool {
    is_utf8(|name| std::env::var(name).ok())
}

/// Whether the locale's encoding is UTF-8, as setlocale(3) reads the environment.
#[must_use]
pub fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()))
        .unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A QR code that is drawn with characters.
pub trait Drawn {
    /// Columns and rows that it takes.
    fn size(&self, style: Style) -> (usize, usize);

    /// A row of what it is drawn with: characters to be drawn dark, and whether the ground behind them is dark
    /// too. So a dark cell is dark all over, also where a font leaves gaps between its blocks.
    fn row(&self, style: Style, row: usize) -> impl Iterator<Item = (&'static str, bool)>;

    /// All of it, with the sequences that set its colours. Those stay with `NO_COLOR` too: without them the
    /// code would be light on dark on half of all terminals, and many readers take none such.
    fn draw(&self, style: Style, ink: Ink) -> Zeroizing<String>;
}

impl Drawn for Qr {
    fn size(&self, style: Style) -> (usize, usize) {
        let edge = self.edge();
        match style {
            Style::Blocks => (edge, edge.div_ceil(2)),
            Style::Ascii => (2 * edge, edge),
        }
    }

    fn row(&self, style: Style, row: usize) -> impl Iterator<Item = (&'static str, bool)> {
        let edge = self.edge();
        (0..edge).map(move |x| match style {
            Style::Blocks => match (self.is_dark(x, 2 * row), self.is_dark(x, 2 * row + 1)) {
                (true, true) => ("█", true),
                (true, false) => ("▀", false),
                (false, true) => ("▄", false),
                (false, false) => (" ", false),
            },
            Style::Ascii if self.is_dark(x, row) => ("##", true),
            Style::Ascii => ("  ", false),
        })
    }

    fn draw(&self, style: Style, ink: Ink) -> Zeroizing<String> {
        let (dark, light) = ink.colours();
        let (foreground, on_dark, on_light) = match ink {
            Ink::Fixed => {
                (format!("\x1b[38;5;{dark}m"), format!("\x1b[48;5;{dark}m"), format!("\x1b[48;5;{light}m"))
            }
            Ink::Basic => (format!("\x1b[3{dark}m"), format!("\x1b[4{dark}m"), format!("\x1b[4{light}m")),
        };
        let (columns, rows) = self.size(style);
        // No more than a character and a change of colour each; it must not grow, which leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(rows * (columns * 16 + 40)));
        for row in 0..rows {
            text.push_str(&foreground);
            let mut ground = None;
            for (symbol, dark) in self.row(style, row) {
                if ground.replace(dark) != Some(dark) {
                    text.push_str(if dark { &on_dark } else { &on_light });
                }
                text.push_str(symbol);
            }
            let _ = writeln!(text, "\x1b[0m");
        }
        text
    }
}

/// An invite code of nobody: all are of the same length.
#[must_use]
pub fn blank_code() -> Zeroizing<String> {
    let (network, inviter) = (NetworkId([0; 32]), NodeId([0; 32]));
    let (control, secret) = (DestinationHash([0; 32]), InviteSecret([0; 32]));
    let subnet = Ipv4Subnet::DEFAULT;
    let name = NetworkName::of_founder(&NodeName::of_host("node"));
    Invite { network, name, subnet, inviter, control, secret, expires_at: 0 }.to_code()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pixels of a character, across and down.
    const CELL: (usize, usize) = (6, 12);

    /// What an independent reader makes of a picture of the screen.
    ///
    /// `cell` gives a character with the brightness of its ink and of the ground behind it.
    pub(crate) fn read(
        columns: usize,
        rows: usize,
        cell: impl Fn(usize, usize) -> (char, u8, u8),
    ) -> Vec<String> {
        let pixel = |x: usize, y: usize| {
            let (symbol, ink, ground) = cell(x / CELL.0, y / CELL.1);
            let upper = y % CELL.1 < CELL.1 / 2;
            match symbol {
                '█' => ink,
                '▀' if upper => ink,
                '▄' if !upper => ink,
                // Any other character covers some of its cell.
                ' ' | '▀' | '▄' => ground,
                _ if (x + y).is_multiple_of(2) => ink,
                _ => ground,
            }
        };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(columns * CELL.0, rows * CELL.1, pixel);
        image.detect_grids().iter().filter_map(|grid| grid.decode().ok()).map(|(_, text)| text).collect()
    }

    /// Shows it on a terminal that has this ground by itself, and reads it from there.
    fn show(text: &str, columns: usize, rows: usize, dark_terminal: bool) -> Vec<String> {
        let size = |count: usize| u16::try_from(count).unwrap().try_into().unwrap();
        let mut terminal = vt100::Parser::new(size(rows + 3), size(columns + 5), 0);
        terminal.process(text.replace('\n', "\r\n").as_bytes());
        let brightness = |colour, own| match colour {
            vt100::Color::Idx(0 | 16) => 0,
            vt100::Color::Idx(7) => 220,
            vt100::Color::Idx(231) => 255,
            vt100::Color::Default => own,
            other => panic!("{other:?}"),
        };
        let (paper, ink) = if dark_terminal { (20, 200) } else { (240, 40) };
        read(columns + 5, rows + 3, |x, y| {
            let at = |count: usize| u16::try_from(count).unwrap();
            let cell = terminal.screen().cell(at(y), at(x)).unwrap();
            let symbol = cell.contents().chars().next().unwrap_or(' ');
            (symbol, brightness(cell.fgcolor(), ink), brightness(cell.bgcolor(), paper))
        })
    }

    #[test]
    fn an_invite_is_read_from_dark_and_light_terminals() {
        let code = blank_code();
        let qr = Qr::new(&code).unwrap();
        for style in [Style::Blocks, Style::Ascii] {
            for ink in [Ink::Fixed, Ink::Basic] {
                for dark_terminal in [false, true] {
                    let (columns, rows) = qr.size(style);
                    let found = show(&qr.draw(style, ink), columns, rows, dark_terminal);
                    assert_eq!(found, [code.as_str()], "{style:?} {ink:?} {dark_terminal}");
                }
            }
        }
    }

    #[test]
    fn an_invite_fits_most_terminals() {
        let qr = Qr::new(&blank_code()).unwrap();
        assert_eq!(qr.size(Style::Blocks), (61, 31));
        assert_eq!(qr.size(Style::Ascii), (122, 61));
    }

    #[test]
    fn what_no_code_holds_is_none() {
        assert!(Qr::new(&"x".repeat(2953)).is_some());
        assert!(Qr::new(&"x".repeat(2954)).is_none());
    }

    #[test]
    fn the_locale_says_what_can_be_shown() {
        let with = |variables: &'static [(&str, &str)]| {
            is_utf8(|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LANG", "C"), ("LC_CTYPE", "C.utf8")]));
        assert!(with(&[("LC_ALL", ""), ("LANG", "en_US.UTF-8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!with(&[("LANG", "de_DE@euro")]));
        assert!(!with(&[]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_text_is_read(text in "[ -~]{1,300}") {
            let qr = Qr::new(&text).unwrap();
            let (columns, rows) = qr.size(Style::Blocks);
            prop_assert_eq!(show(&qr.draw(Style::Blocks, Ink::Fixed), columns, rows, true), [text]);
        }
    }
}
