//! The pages that are lists.

use i2plan_ipc::api::meshd::Route;
use i2plan_ipc::version::utc;
use i2plan_present::event::Level;
use i2plan_present::look::Times;
use i2plan_present::member::Names;
use i2plan_present::peer::DataPath;
use i2plan_present::text::{clean, wrap};
use i2plan_present::{ban, invite, peer, route, units};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget as _};

use super::table::{Column, Table};
use super::text::put;
use super::theme::Theme;
use crate::tui::app::App;
use crate::tui::rows::{PeerRow, SortBy};

const PEERS: &[Column] = &[
    Column::rest("NAME", 12, 0),
    Column::text("IPV4", 15, 0),
    Column::text("STATE", 11, 0),
    Column::number("HANDSHAKE", 11, 2),
    Column::number("RTT", 8, 1),
    Column::number("RX", 8, 3),
    Column::number("TX", 8, 4),
    Column::number("RX/S", 8, 5),
    Column::number("TX/S", 8, 6),
    Column::text("IPV6", 39, 7),
];

const ROUTES: &[Column] = &[
    Column::rest("NAME", 12, 0),
    Column::text("IPV4", 15, 0),
    Column::number("HOPS", 4, 0),
    Column::rest("VIA", 8, 2),
    Column::text("LAST SEEN", 20, 1),
    Column::text("SINCE", 20, 4),
    Column::text("IPV6", 39, 3),
];

const INVITES: &[Column] = &[
    Column::rest("ID", 26, 0),
    Column::text("STATE", 8, 0),
    Column::text("EXPIRES", 20, 1),
    Column::text("USES", 15, 3),
    Column::text("CODE", 4, 2),
    Column::text("CREATED", 20, 4),
];

const BANS: &[Column] = &[
    Column::rest("NAME", 10, 0),
    Column::text("NODE", 9, 2),
    Column::text("WHY", 16, 1),
    Column::text("UNTIL", 20, 0),
    Column::rest("REASON", 10, 3),
];

const EVENTS: &[Column] = &[Column::text("TIME", 9, 1), Column::text("WHAT", 5, 2), Column::rest("", 10, 0)];
/// A line above the rows if some of them are not shown; the area that is left.
fn draw_filter(buf: &mut Buffer, area: Rect, theme: Theme, filter: &str, shown: usize, of: usize) -> Rect {
    if filter.is_empty() || area.height < 3 {
        return area;
    }
    let [line, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    put(buf, line, &format!("{shown} of {of} with {:?}; Esc shows all", clean(filter)), theme.quiet());
    rest
}

fn draw_empty(buf: &mut Buffer, area: Rect, theme: Theme, known: bool, filter: &str, text: &str) {
    let text = match known {
        false => "asking the node …",
        true if filter.is_empty() => text,
        true => "there is none such",
    };
    Paragraph::new(wrap(text, area.width.into()).into_iter().map(Line::from).collect::<Vec<_>>())
        .style(theme.quiet())
        .render(area, buf);
}

pub(super) fn peers(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let list = &app.peers;
    let area = draw_filter(buf, area, theme, list.filter(), list.len(), list.items().len());
    if list.len() == 0 {
        let text = "no other members are known; invite one on page 4";
        return draw_empty(buf, area, theme, list.is_known(), list.filter(), text);
    }
    let column = match app.sort {
        SortBy::Name => 0,
        SortBy::Address => 1,
        SortBy::State => 2,
        SortBy::Handshake => 3,
        SortBy::Rtt => 4,
        SortBy::Received => 5,
        SortBy::Sent => 6,
    };
    // The marks point to where the larger ones are.
    let down = matches!(app.sort, SortBy::Received | SortBy::Sent) != app.reverse;
    let table =
        Table { columns: PEERS, sorted: Some((column, down)), count: list.len(), selected: list.place() };
    let names = peer::names(list.items().iter().map(|row| &row.peer));
    let path = app.status.as_ref().map_or(DataPath::KNOWN, |(status, _)| DataPath::of(status));
    let known = (path, times(app));
    table.draw(buf, area, theme, |place| {
        list.row(place).map(|row| peer_cells(row, &names, known, theme)).unwrap_or_default()
    });
}

/// Times are as far from now as the screen shows them.
fn times(app: &App) -> Times {
    Times::From(app.now.unix / 1000)
}

fn peer_cells(
    row: &PeerRow,
    names: &Names,
    (path, times): (DataPath, Times),
    theme: Theme,
) -> Vec<(String, Style)> {
    let cells = peer::Row::new(&row.peer, names, path, times);
    let style = match cells.state {
        "up" => theme.good(),
        "banned" | "unreachable" => theme.bad(),
        _ => Style::new(),
    };
    let rate = |rate: Option<u64>| units::or_dash(rate.map(units::bytes));
    let plain = |text: String| (text, Style::new());
    vec![
        plain(cells.name),
        plain(cells.ipv4),
        (cells.state.to_owned(), style),
        plain(cells.handshake),
        plain(cells.rtt),
        plain(cells.received),
        plain(cells.sent),
        plain(rate(row.rate.map(|(rx, _)| rx))),
        plain(rate(row.rate.map(|(_, tx)| tx))),
        plain(cells.ipv6),
    ]
}

pub(super) fn routes(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let list = &app.routes;
    let area = draw_filter(buf, area, theme, list.filter(), list.len(), list.items().len());
    if list.len() == 0 {
        return draw_empty(buf, area, theme, list.is_known(), list.filter(), "this node is in no network");
    }
    let table = Table { columns: ROUTES, sorted: None, count: list.len(), selected: list.place() };
    let names = route::names(list.items());
    let cells = |route: &Route| {
        let cells = route::Row::new(route, &names, |node_id| list.find(node_id), times(app));
        let style = if route.hops.is_none() { theme.bad() } else { Style::new() };
        let plain = |text: String| (text, Style::new());
        vec![
            plain(cells.name),
            plain(cells.ipv4),
            (cells.hops, style),
            plain(cells.via),
            plain(cells.last_seen),
            plain(cells.created),
            plain(cells.ipv6),
        ]
    };
    table.draw(buf, area, theme, |place| list.row(place).map(cells).unwrap_or_default());
}

pub(super) fn invites(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let list = &app.invites;
    let area = draw_filter(buf, area, theme, list.filter(), list.len(), list.items().len());
    if list.len() == 0 {
        let text = "this node has made no invites that it remembers; n makes one";
        return draw_empty(buf, area, theme, list.is_known(), list.filter(), text);
    }
    let table = Table { columns: INVITES, sorted: None, count: list.len(), selected: list.place() };
    table.draw(buf, area, theme, |place| {
        let Some(issued) = list.row(place) else { return Vec::new() };
        let code = if app.code(&issued.id).is_some() { "here" } else { "-" };
        let row = invite::Row::new(issued, times(app));
        let cells = [row.id, row.state.to_owned(), row.expires, row.uses, code.to_owned(), row.created];
        cells.map(|cell| (cell, Style::new())).to_vec()
    });
}

pub(super) fn bans(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let list = &app.bans;
    let area = draw_filter(buf, area, theme, list.filter(), list.len(), list.items().len());
    if list.len() == 0 {
        return draw_empty(
            buf,
            area,
            theme,
            list.is_known(),
            list.filter(),
            "nobody is banned; a bans a member",
        );
    }
    let names = ban::names(list.items());
    let table = Table { columns: BANS, sorted: None, count: list.len(), selected: list.place() };
    table.draw(buf, area, theme, |place| {
        let Some(ban) = list.row(place) else { return Vec::new() };
        let row = ban::Row::new(ban, &names, times(app));
        let cells = [row.name, row.node_id, row.reason, row.until, row.description];
        cells.map(|cell| (cell, Style::new())).to_vec()
    });
}

pub(super) fn events(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let entries: Vec<_> = app.entries().collect();
    let filter = &app.log_filter;
    let area = draw_filter(buf, area, theme, filter, entries.len(), app.log.len());
    if entries.is_empty() {
        return draw_empty(buf, area, theme, true, filter, "nothing has happened yet");
    }
    let last = entries.len() - 1;
    let selected =
        app.entry.map_or(last, |number| entries.partition_point(|entry| entry.number < number).min(last));
    let mut columns = EVENTS.to_vec();
    columns[2] = Column::rest(app.show.title(), 10, 0);
    let table = Table { columns: &columns, sorted: None, count: entries.len(), selected };
    table.draw(buf, area, theme, |place| {
        let Some(entry) = entries.get(place) else { return Vec::new() };
        let style = match entry.level {
            Level::Info => Style::new(),
            Level::Warn => theme.doubtful(),
            Level::Error => theme.bad(),
        };
        let time = utc(entry.at / 1000);
        let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time).to_owned();
        vec![(time, theme.quiet()), (entry.label().to_owned(), style), (entry.text.clone(), style)]
    });
}
