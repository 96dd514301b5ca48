//! What lies over the page.

use i2plan_present::qr::Qr;
use i2plan_present::text::{clean, fit, wrap};
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget as _};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::details;
use super::text::put;
use super::theme::Theme;
use crate::failure::Failure;
use crate::output::qr::{self, Drawn as _};
use crate::tui::app::{App, Overlay};
use crate::tui::form::Form;

pub(super) fn draw(app: &App, overlay: &Overlay, frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    match overlay {
        Overlay::Help { scroll } => draw_text(app, overlay, "Keys", *scroll, frame, area),
        Overlay::Peer { scroll, .. } => draw_text(app, overlay, "Member", *scroll, frame, area),
        Overlay::Invite { scroll, .. } => draw_text(app, overlay, "Invite", *scroll, frame, area),
        Overlay::Ban { scroll, .. } => draw_text(app, overlay, "Ban", *scroll, frame, area),
        Overlay::Entry { scroll, .. } => draw_text(app, overlay, "Event", *scroll, frame, area),
        Overlay::Form(form) => draw_form(form, frame, area, theme),
        Overlay::Confirm { question, .. } => {
            let width = usize::from(box_width(area));
            let mut lines: Vec<_> = wrap(&clean(question), width).into_iter().map(Line::from).collect();
            lines.push(Line::default());
            lines.push(Line::styled("y yes   n no", theme.title()));
            draw_box("Sure?", lines, frame, area);
        }
        Overlay::Failure(failure) => {
            let mut lines = failure_lines(failure, usize::from(box_width(area)), theme);
            lines.push(Line::default());
            lines.push(Line::styled("any key goes on", theme.title()));
            draw_box("That did not work", lines, frame, area);
        }
        Overlay::Code { .. } => {}
    }
}

/// What a box has room for between its borders.
fn box_width(area: Rect) -> u16 {
    area.width.saturating_sub(2).min(68)
}

fn failure_lines(failure: &Failure, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines: Vec<_> = wrap(&clean(&failure.message), width)
        .into_iter()
        .map(|line| Line::styled(line, theme.bad()))
        .collect();
    let hint = failure.hint.iter().flat_map(|hint| hint.lines());
    lines.extend(hint.flat_map(|line| wrap(&clean(line), width)).map(Line::from));
    lines
}

/// Lines in a box in the middle; where it lies, without its borders.
fn draw_box(title: &str, lines: Vec<Line<'static>>, frame: &mut Frame<'_>, area: Rect) -> Rect {
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    // Borders only where there is room for them.
    let bordered = area.height >= height.saturating_add(2);
    let wanted = if bordered { height + 2 } else { height.min(area.height) };
    let place = area.centered(Constraint::Length(box_width(area) + 2), Constraint::Length(wanted));
    frame.render_widget(Clear, place);
    let block = if bordered { Block::bordered().title(format!(" {title} ")) } else { Block::new() };
    let inner = block.inner(place);
    frame.render_widget(block, place);
    // The last lines are those that say what to do.
    let skipped = lines.len().saturating_sub(usize::from(inner.height));
    frame.render_widget(Paragraph::new(lines.into_iter().skip(skipped).collect::<Vec<_>>()), inner);
    inner
}

/// A text over all of the page.
fn draw_text(app: &App, overlay: &Overlay, title: &str, scroll: usize, frame: &mut Frame<'_>, area: Rect) {
    frame.render_widget(Clear, area);
    let bordered = area.height >= 5;
    let title = format!(" {title}: Esc closes it ");
    let block = if bordered { Block::bordered().title(title) } else { Block::new() };
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let lines = details::lines(app, overlay);
    let scroll = scroll.min(lines.len().saturating_sub(usize::from(inner.height)));
    frame.render_widget(Paragraph::new(lines.into_iter().skip(scroll).collect::<Vec<_>>()), inner);
}

fn draw_form(form: &Form, frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    const LABEL: usize = 10;
    let width = usize::from(box_width(area));
    let room = width.saturating_sub(LABEL).max(1);
    let mut lines = Vec::new();
    let mut cursor = (0, 0);
    for (number, field) in form.fields.iter().enumerate() {
        let current = number == form.current;
        let scroll = field.input.visual_scroll(room.saturating_sub(1));
        if current {
            cursor = (LABEL + field.input.visual_cursor().max(scroll) - scroll, lines.len());
        }
        let value = clean(field.input.value()).into_owned();
        let mut skipped = 0;
        let visible: String = value
            .chars()
            .skip_while(|c| {
                let before = skipped;
                skipped += c.width().unwrap_or(0);
                before < scroll
            })
            .collect();
        let style = if current { theme.title() } else { Style::new() };
        lines.push(Line::from(vec![
            Span::styled(format!("{:<LABEL$}", field.label), style),
            Span::raw(fit(&visible, room)),
        ]));
        if current {
            let help = format!("{:LABEL$}{}", "", field.help);
            lines.push(Line::styled(fit(&help, width), theme.quiet()));
        }
    }
    if let Some(failure) = &form.failure {
        lines.extend(failure_lines(failure, width, theme));
    }
    let foot = if form.is_waiting() {
        "asking the node …   Esc closes this"
    } else {
        "Enter goes on   Esc closes this"
    };
    lines.push(Line::styled(foot, theme.title()));
    let count = lines.len();
    let inner = draw_box(form.title(), lines, frame, area);
    let skipped = count.saturating_sub(usize::from(inner.height));
    if let (Some(y), false) = (cursor.1.checked_sub(skipped), form.is_waiting() || inner.is_empty()) {
        let x = u16::try_from(cursor.0).unwrap_or(0).min(inner.width.saturating_sub(1));
        frame.set_cursor_position((inner.x + x, inner.y + u16::try_from(y).unwrap_or(0)));
    }
}

/// An invite's code, on all of the screen: it needs the room.
pub(super) fn code(app: &App, id: &str, seconds: u64, frame: &mut Frame<'_>, theme: Theme) {
    let area = frame.area();
    let Some(code) = app.code(id) else {
        return put(frame.buffer_mut(), area, "this invite is not open any more", theme.title());
    };
    let foot = Rect { y: area.bottom() - 1, height: 1, ..area };
    let buf = frame.buffer_mut();
    put(buf, foot, &format!("any key hides it   c copies it   hidden in {seconds} s"), theme.title());
    let room = Rect { height: area.height - 1, ..area };
    let style = if app.look.utf8 { qr::Style::Blocks } else { qr::Style::Ascii };
    let Some(qr) = Qr::new(code.expose()) else { return };
    let (columns, rows) = qr.size(style);
    if columns > usize::from(room.width) || rows > usize::from(room.height) {
        let text = format!(
            "The QR code takes {columns} columns and {} lines, and the terminal has {} and {}: make the window \
             larger or its font smaller. This is the code:",
            rows + 1,
            area.width,
            area.height
        );
        let mut lines: Vec<_> = wrap(&text, room.width.into())
            .into_iter()
            .map(|line| Line::styled(line, theme.quiet()))
            .collect();
        lines.extend(wrap(code.expose(), room.width.into()).into_iter().map(Line::from));
        return Paragraph::new(lines).render(room, buf);
    }
    let (dark, light) = app.look.ink.colours();
    let (dark, light) = (Color::Indexed(dark), Color::Indexed(light));
    let left = (usize::from(room.width) - columns) / 2;
    for row in 0..rows {
        let mut x = area.x + u16::try_from(left).unwrap_or(0);
        let y = area.y + u16::try_from(row).unwrap_or(0);
        for (symbol, on_dark) in qr.row(style, row) {
            let style = Style::new().fg(dark).bg(if on_dark { dark } else { light });
            (x, _) = buf.set_stringn(x, y, symbol, symbol.width(), style);
        }
    }
}
