//! Tables that fit the terminal.

use std::collections::HashMap;

use unicode_width::UnicodeWidthStr as _;

use super::look::{Look, Tone};
use super::text::{clean, fit};

const GAP: &str = "  ";

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Numbers are set to the right.
    pub right: bool,
    /// The width down to which its cells may be cut, if they may.
    pub shrinks_to: Option<usize>,
    /// Whether it can be left out where the terminal is too narrow; the highest goes first.
    pub dispensable: Option<u8>,
    /// Left out if all its cells are empty; an empty cell is shown as `-` otherwise.
    pub optional: bool,
}

impl Column {
    /// A column of text that is always shown whole.
    #[must_use]
    pub const fn text(title: &'static str) -> Self {
        Self { title, right: false, shrinks_to: None, dispensable: None, optional: false }
    }

    /// A column of numbers that is always shown whole.
    #[must_use]
    pub const fn number(title: &'static str) -> Self {
        Self { right: true, ..Self::text(title) }
    }

    /// The same, whose cells may be cut to `width`.
    #[must_use]
    pub const fn shrinks_to(self, width: usize) -> Self {
        Self { shrinks_to: Some(width), ..self }
    }

    /// The same, which can be left out; the highest `rank` goes first.
    #[must_use]
    pub const fn dispensable(self, rank: u8) -> Self {
        Self { dispensable: Some(rank), ..self }
    }

    /// The same, which is left out if all its cells are empty.
    #[must_use]
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// Columns and rows.
#[derive(Debug)]
pub struct Table<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<String>>,
    /// Of some rows, a cell and what it means.
    tones: HashMap<usize, (usize, Tone)>,
}

/// A table as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The lines.
    pub text: String,
    /// Headings of columns for which there was no room.
    pub left_out: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// An empty table.
    #[must_use]
    pub fn new(columns: &'a [Column]) -> Self {
        Self { columns, rows: Vec::new(), tones: HashMap::new() }
    }

    /// Adds a row with one cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().map(|cell| clean(&cell).into_owned()).collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Gives the cell under a heading of the last row its meaning.
    pub fn tint(&mut self, title: &str, tone: Tone) {
        let column = self.columns.iter().position(|column| column.title == title);
        if let (Some(column), Some(row)) = (column, self.rows.len().checked_sub(1)) {
            self.tones.insert(row, (column, tone));
        }
    }

    /// The table's lines, none wider than the terminal.
    #[must_use]
    pub fn render(&self, look: &Look) -> Rendered {
        let Look { width, colour, .. } = *look;
        let is_used = |index: &usize| {
            !self.columns[*index].optional || self.rows.iter().any(|row| !row[*index].is_empty())
        };
        let mut shown: Vec<usize> = (0..self.columns.len()).filter(is_used).collect();
        let mut left_out = Vec::new();
        let widths = loop {
            let mut widths: Vec<usize> = shown.iter().map(|&index| self.natural_width(index)).collect();
            let total = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
            let Some(mut excess) = width.map(|width| total.saturating_sub(width)) else { break widths };
            for (width, &index) in widths.iter_mut().zip(&shown) {
                let least = self.columns[index].shrinks_to.unwrap_or(*width).min(*width);
                let cut = excess.min(*width - least);
                *width -= cut;
                excess -= cut;
            }
            let victim = (0..shown.len())
                .filter(|&place| self.columns[shown[place]].dispensable.is_some())
                .max_by_key(|&place| self.columns[shown[place]].dispensable);
            match victim {
                Some(place) if excess > 0 => left_out.push(self.columns[shown.remove(place)].title),
                _ => break widths,
            }
        };
        let titles = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let mut text = String::new();
        for (number, row) in std::iter::once(&titles).chain(&self.rows).enumerate() {
            let tone = number.checked_sub(1).and_then(|row| self.tones.get(&row)).filter(|_| colour);
            let cells: Vec<_> = shown
                .iter()
                .zip(&widths)
                .map(|(&index, &width)| {
                    let Column { right, optional, .. } = self.columns[index];
                    let cell = if optional && row[index].is_empty() { "-" } else { &row[index] };
                    pad(&fit(cell, width), width, right)
                })
                .collect();
            let line = cells.join(GAP);
            let fits = width.is_none_or(|width| line.trim_end().width() <= width);
            match tone
                .and_then(|(column, tone)| Some((shown.iter().position(|index| index == column)?, tone)))
            {
                Some((place, tone)) if fits => {
                    let paint = |(index, cell): (usize, String)| {
                        let end = cell.trim_end().len();
                        if index == place { tone.paint(&cell[..end], true) + &cell[end..] } else { cell }
                    };
                    let cells: Vec<_> = cells.into_iter().enumerate().map(paint).collect();
                    text.push_str(&cells.join(GAP));
                }
                _ => text.push_str(&width.map_or_else(|| line.clone(), |width| fit(line.trim_end(), width))),
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        Rendered { text, left_out }
    }

    fn natural_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[index].width());
        cells.chain([self.columns[index].title.width()]).max().unwrap_or(0)
    }
}

fn pad(text: &str, width: usize, right: bool) -> String {
    let space = " ".repeat(width.saturating_sub(text.width()));
    if right { space + text } else { text.to_owned() + &space }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: &[Column] = &[
        Column::text("NAME").shrinks_to(5),
        Column::text("LONG").dispensable(1),
        Column::text("LONGER").dispensable(2),
        Column::number("RX"),
    ];

    fn table() -> Table<'static> {
        let mut table = Table::new(COLUMNS);
        table.row(["東京のノード", "x", "y", "1 B"].map(str::to_owned));
        table.row(["a", "xx", "yyyyyyyyyy", "1.0 KiB"].map(str::to_owned));
        table
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let rendered = table().render(&Look::default());
        assert_eq!(
            rendered.text,
            "NAME          LONG  LONGER           RX\n\
             東京のノード  x     y               1 B\n\
             a             xx    yyyyyyyyyy  1.0 KiB\n"
        );
        assert!(rendered.left_out.is_empty());
    }

    #[test]
    fn cells_are_cut_before_columns_go() {
        let rendered = table().render(&Look { width: Some(34), ..Look::default() });
        assert_eq!(rendered.text.lines().nth(1), Some("東京の…  x     y               1 B"));
        assert!(rendered.left_out.is_empty());
        let rendered = table().render(&Look { width: Some(20), ..Look::default() });
        assert_eq!(rendered.text.lines().nth(1), Some("東京…  x         1 B"));
        assert_eq!(rendered.left_out, ["LONGER"]);
    }

    #[test]
    fn a_cell_has_the_colour_of_what_it_means_and_the_others_stay_in_line() {
        let mut table = table();
        table.tint("LONG", Tone::Bad);
        let plain = table.render(&Look::default()).text;
        let coloured = table.render(&Look { colour: true, ..Look::default() }).text;
        assert!(coloured.contains("  \x1b[1;31mxx\x1b[0m    yyyyyyyyyy  "), "{coloured:?}");
        assert_eq!(coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", ""), plain);
        table.tint("NONE", Tone::Bad);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        const ONE: &[Column] = &[Column::text("X")];
        let mut table = Table::new(ONE);
        table.row(["a\x1b]0;b\u{202e}\n".to_owned()]);
        assert_eq!(table.render(&Look::default()).text, "X\na\u{fffd}]0;b\u{fffd}\u{fffd}\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(cells in prop::collection::vec(".*", 4), width in 0usize..60) {
            let mut table = Table::new(COLUMNS);
            table.row(cells);
            for line in table.render(&Look { width: Some(width), ..Look::default() }).text.lines() {
                prop_assert!(line.width() <= width, "{:?}", line);
            }
        }
    }
}
