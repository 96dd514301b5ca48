//! Rows of a list, of which only those on the screen are made.

use i2plan_present::text::{clean, fit};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr as _;

use super::theme::Theme;

const GAP: u16 = 1;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    /// Its width, or the least if it takes what is left.
    width: u16,
    takes_rest: bool,
    right: bool,
    /// The highest is left out first where there is no room; 0 never.
    rank: u8,
}

impl Column {
    pub(super) const fn text(title: &'static str, width: u16, rank: u8) -> Self {
        Self { title, width, takes_rest: false, right: false, rank }
    }

    pub(super) const fn number(title: &'static str, width: u16, rank: u8) -> Self {
        Self { right: true, ..Self::text(title, width, rank) }
    }

    /// Takes what the others leave.
    pub(super) const fn rest(title: &'static str, least: u16, rank: u8) -> Self {
        Self { takes_rest: true, ..Self::text(title, least, rank) }
    }
}

/// Which columns fit, and how wide they are.
fn arrange(columns: &[Column], width: u16) -> Vec<(usize, u16)> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| {
        let gaps = u16::try_from(shown.len().saturating_sub(1)).unwrap_or(0) * GAP;
        shown.iter().map(|&at| columns[at].width).sum::<u16>() + gaps
    };
    while needed(&shown) > width {
        let victim = (0..shown.len()).filter(|&place| columns[shown[place]].rank > 0);
        let Some(place) = victim.max_by_key(|&place| columns[shown[place]].rank) else { break };
        shown.remove(place);
    }
    let mut rest = width.saturating_sub(needed(&shown));
    let mut takers = u16::try_from(shown.iter().filter(|&&at| columns[at].takes_rest).count()).unwrap_or(0);
    let mut result = Vec::with_capacity(shown.len());
    for at in shown {
        let mut width = columns[at].width;
        if let (true, Some(share)) = (columns[at].takes_rest, rest.checked_div(takers)) {
            width += share;
            rest -= share;
            takers -= 1;
        }
        result.push((at, width));
    }
    result
}

/// The first of the rows on the screen: the selected one is in the middle, but at the ends of the list.
pub(super) fn first_row(selected: usize, count: usize, visible: usize) -> usize {
    selected.saturating_sub(visible / 2).min(count.saturating_sub(visible))
}

/// The table as such.
#[derive(Debug)]
pub(super) struct Table<'a> {
    pub(super) columns: &'a [Column],
    /// The column by which it is sorted, and whether downwards.
    pub(super) sorted: Option<(usize, bool)>,
    pub(super) count: usize,
    pub(super) selected: usize,
}

impl Table<'_> {
    /// Draws it; `row` gives the cells of a row by its place, one for each column.
    pub(super) fn draw(
        &self,
        buf: &mut Buffer,
        area: Rect,
        theme: Theme,
        row: impl Fn(usize) -> Vec<(String, Style)>,
    ) {
        if area.is_empty() {
            return;
        }
        let widths = arrange(self.columns, area.width);
        let titled = area.height > 1;
        if titled {
            let titles = self.columns.iter().enumerate().map(|(at, column)| {
                let mark = match self.sorted {
                    Some((by, true)) if by == at => "▼",
                    Some((by, false)) if by == at => "▲",
                    _ => "",
                };
                (format!("{}{mark}", column.title), theme.title())
            });
            self.line(buf, Rect { height: 1, ..area }, &widths, &titles.collect::<Vec<_>>());
        }
        let rows = Rect { y: area.y + u16::from(titled), height: area.height - u16::from(titled), ..area };
        let first = first_row(self.selected, self.count, rows.height.into());
        for (y, place) in (rows.y..rows.bottom()).zip(first..self.count) {
            let line = Rect { y, height: 1, ..rows };
            self.line(buf, line, &widths, &row(place));
            if place == self.selected {
                buf.set_style(line, theme.selected());
            }
        }
    }

    fn line(&self, buf: &mut Buffer, area: Rect, widths: &[(usize, u16)], cells: &[(String, Style)]) {
        let mut x = area.x;
        for &(at, width) in widths {
            let Some((text, style)) = cells.get(at) else { continue };
            let width = width.min(area.right().saturating_sub(x));
            let text = fit(&clean(text), width.into());
            let space = width.saturating_sub(u16::try_from(text.width()).unwrap_or(width));
            let start = if self.columns[at].right { x + space } else { x };
            buf.set_stringn(start, area.y, text, width.into(), *style);
            x = x.saturating_add(width + GAP);
            if x >= area.right() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_by_their_rank_and_the_rest_is_shared() {
        let columns = [
            Column::rest("A", 5, 0),
            Column::text("B", 10, 1),
            Column::number("C", 4, 2),
            Column::rest("D", 5, 0),
        ];
        assert_eq!(arrange(&columns, 37), [(0, 10), (1, 10), (2, 4), (3, 10)]);
        assert_eq!(arrange(&columns, 26), [(0, 7), (1, 10), (3, 7)]);
        assert_eq!(arrange(&columns, 12), [(0, 5), (3, 6)]);
        // Even if not all fit that must be there.
        assert_eq!(arrange(&columns, 3), [(0, 5), (3, 5)]);
    }

    #[test]
    fn only_the_rows_on_the_screen_are_made() {
        let made = std::cell::RefCell::new(Vec::new());
        let area = Rect::new(0, 0, 20, 11);
        let table =
            Table { columns: &[Column::rest("A", 5, 0)], sorted: None, count: 1_000_000, selected: 700 };
        table.draw(&mut Buffer::empty(area), area, Theme { colour: true }, |place| {
            made.borrow_mut().push(place);
            Vec::new()
        });
        assert_eq!(made.into_inner(), (695..705).collect::<Vec<_>>());
    }

    #[test]
    fn the_selected_row_is_always_on_the_screen() {
        for visible in 1..8 {
            for count in 1..20 {
                for selected in 0..count {
                    let first = first_row(selected, count, visible);
                    assert!((first..first + visible).contains(&selected), "{selected} {count} {visible}");
                    assert!(first == 0 || first + visible <= count);
                }
            }
        }
    }
}
