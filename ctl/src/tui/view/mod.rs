//! How it looks: from what is known to what is on the screen, and nothing else.

use i2plan_ipc::escape::is_unsafe;
use i2plan_present::text::clean;
use i2plan_present::units;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr as _;

use self::text::{fill, put};
use self::theme::Theme;
use super::app::{App, NodeLink, Overlay, Tab};

pub(super) mod details;
mod keys;
mod overlay;
mod pages;
mod status;
mod table;
mod text;
mod theme;

/// Draws all of it.
pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.is_empty() {
        return;
    }
    let theme = Theme { colour: app.look.colour };
    if let Some(Overlay::Code { id, until }) = &app.overlay {
        overlay::code(app, id, until.saturating_sub(app.now.running).as_secs(), frame, theme);
    } else {
        draw_page(app, frame, theme);
    }
    keep_safe(frame.buffer_mut());
    if !app.look.utf8 {
        in_ascii(frame.buffer_mut());
    }
}

/// Whatever a view has put there, no cell drives the terminal.
fn keep_safe(buf: &mut Buffer) {
    for cell in &mut buf.content {
        if cell.symbol().contains(is_unsafe) {
            cell.set_symbol("\u{fffd}");
        }
    }
}

fn draw_page(app: &App, frame: &mut Frame<'_>, theme: Theme) {
    let area = frame.area();
    let away = matches!(app.link, NodeLink::Away { .. });
    // What goes first where there is no room: the title, the tabs, the keys.
    let rows = |wanted: bool| Constraint::Length(u16::from(wanted));
    let parts = [
        rows(area.height >= 12),
        rows(area.height >= 4),
        rows(away && area.height >= 3),
        Constraint::Min(0),
        rows(area.height >= 2),
    ];
    let [title, tabs, banner, body, foot] = Layout::vertical(parts).areas(area);
    let buf = frame.buffer_mut();
    draw_title(app, buf, title, theme);
    draw_tabs(app, buf, tabs, theme);
    if let NodeLink::Away { since, reason } = &app.link {
        let time = units::duration(app.now.running.saturating_sub(*since).as_secs());
        let text = format!(" The node does not answer for {time}; this is how it was. {}", clean(reason));
        fill(buf, banner, theme.alarm());
        put(buf, banner, &text, theme.alarm());
    }
    match app.tab {
        Tab::Status => status::draw(app, buf, body, theme),
        Tab::Peers => pages::peers(app, buf, body, theme),
        Tab::Routes => pages::routes(app, buf, body, theme),
        Tab::Invites => pages::invites(app, buf, body, theme),
        Tab::Bans => pages::bans(app, buf, body, theme),
        Tab::Events => pages::events(app, buf, body, theme),
    }
    draw_foot(app, frame, foot, theme);
    if let Some(overlay) = &app.overlay {
        overlay::draw(app, overlay, frame, body, theme);
    }
}

fn draw_title(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    fill(buf, area, theme.selected());
    let state = match &app.link {
        NodeLink::Connecting => "connecting ",
        NodeLink::Up => "connected ",
        NodeLink::Away { .. } => "does not answer ",
    };
    let mut left = " i2plan".to_owned();
    if let Some((status, _)) = &app.status {
        left += &format!("  {}", clean(&status.name));
        if let Some(network) = &status.network {
            left += &format!("  {}", network.ipv4);
        }
    }
    let [left_area, right_area] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(state.len() as u16)]).areas(area);
    put(buf, left_area, &left, theme.selected().patch(theme.title()));
    put(buf, right_area, state, theme.selected());
}

fn draw_tabs(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let count = |tab| match tab {
        Tab::Peers if app.peers.is_known() => format!(" {}", app.peers.items().len()),
        Tab::Invites if app.invites.is_known() => format!(" {}", app.invites.items().len()),
        Tab::Bans if app.bans.is_known() => format!(" {}", app.bans.items().len()),
        _ => String::new(),
    };
    let full = Tab::ALL.map(|tab| format!(" {} {}{} ", tab as usize + 1, tab.title(), count(tab)));
    let short = Tab::ALL.map(|tab| format!(" {} ", tab.title()));
    let width = |tabs: &[String; 6]| tabs.iter().map(|tab| tab.width()).sum::<usize>();
    let room = usize::from(area.width);
    let tabs = match () {
        () if width(&full) <= room => full,
        () if width(&short) <= room => short,
        () => {
            let tab = app.tab;
            let text =
                format!("← {}{} →  page {} of {}", tab.title(), count(tab), tab as usize + 1, Tab::ALL.len());
            return put(buf, area, &text, theme.title());
        }
    };
    let mut x = area.x;
    for (tab, text) in Tab::ALL.into_iter().zip(tabs) {
        let style = if tab == app.tab { theme.title().patch(theme.selected()) } else { Style::new() };
        let left = usize::from(area.right().saturating_sub(x));
        if left > 0 && area.height > 0 {
            (x, _) = buf.set_stringn(x, area.y, &text, left, style);
        }
    }
}

fn draw_foot(app: &App, frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    if area.is_empty() {
        return;
    }
    if app.filtering {
        let text = format!("/{}", clean(app.shown_filter()));
        let width = u16::try_from(text.width()).unwrap_or(u16::MAX);
        put(frame.buffer_mut(), area, &text, theme.title());
        frame.set_cursor_position((area.x + width.min(area.width - 1), area.y));
        return;
    }
    let buf = frame.buffer_mut();
    if let Some(message) = &app.message {
        let style = if message.bad { theme.bad() } else { theme.title() };
        return put(buf, area, &clean(&message.text), style);
    }
    let keys = [("?", "keys"), ("q", "quit")].iter().chain(keys::hints(app.tab));
    let mut line = Line::default();
    for (key, what) in keys {
        let spans = [Span::styled((*key).to_owned(), theme.title()), Span::raw(format!(" {what}  "))];
        let width: usize = spans.iter().map(Span::width).sum();
        if line.width() + width > usize::from(area.width) + 2 {
            break;
        }
        line.spans.extend(spans);
    }
    buf.set_line(area.x, area.y, &line, area.width);
}

/// Replaces what a terminal without UTF-8 cannot show.
fn in_ascii(buf: &mut Buffer) {
    for cell in &mut buf.content {
        let Some(c) = cell.symbol().chars().next().filter(|c| !c.is_ascii()) else { continue };
        cell.set_char(match c {
            '─' | '━' => '-',
            '│' | '┃' => '|',
            '┌' | '┐' | '└' | '┘' => '+',
            '▁' | '▂' => '.',
            '▃' | '▄' => ':',
            '▅' | '▆' => '|',
            '▇' | '█' => '#',
            '…' => '~',
            '←' => '<',
            '→' => '>',
            '▲' | '↑' => '^',
            '▼' | '↓' => 'v',
            _ => '?',
        });
    }
}
