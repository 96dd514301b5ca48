//! Text in a part of the screen.

use i2plan_present::text::fit;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Puts a line of text, cut where it is too long.
/// The text as far as it fits.
pub(super) fn put(buf: &mut Buffer, area: Rect, text: &str, style: Style) {
    if !area.is_empty() {
        buf.set_stringn(area.x, area.y, fit(text, area.width.into()), area.width.into(), style);
    }
}

/// Gives an area a style, with nothing in it.
pub(super) fn fill(buf: &mut Buffer, area: Rect, style: Style) {
    for y in area.y..area.bottom() {
        buf.set_stringn(area.x, y, " ".repeat(area.width.into()), area.width.into(), style);
    }
}

/// A graph of one line.
pub(super) fn spark(values: &[Option<u64>]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().flatten().max().copied().unwrap_or(0).max(1);
    let bar = |value: &Option<u64>| match value {
        None => ' ',
        Some(value) => {
            BARS[usize::try_from(u128::from(*value) * 7 / u128::from(highest)).unwrap_or(7).min(7)]
        }
    };
    values.iter().map(bar).collect()
}
