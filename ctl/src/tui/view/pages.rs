//! The pages that are lists.

use i2plan_ipc::api::meshd::Route;
use i2plan_ipc::version::utc;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget as _};

use super::table::{Column, Table};
use super::theme::Theme;
use super::{details, put};
use crate::commands::ban::reason;
use crate::commands::member::Names;
use crate::commands::{ban, invite, peers};
use crate::output::{clean, units};
use crate::tui::app::node::PeerRow;
use crate::tui::app::{App, SortBy};
use crate::tui::events::{Level, LogEntry, LogKind};

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
    Paragraph::new(details::wrap(text, area.width.into()).into_iter().map(Line::from).collect::<Vec<_>>())
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
    let names = Names::of(list.items().iter().map(|row| row.peer.name.as_str()));
    table.draw(buf, area, theme, |place| {
        list.row(place).map(|row| peer_cells(row, &names, theme)).unwrap_or_default()
    });
}

fn peer_cells(row: &PeerRow, names: &Names, theme: Theme) -> Vec<(String, Style)> {
    let peer = &row.peer;
    let state = peers::state(peer);
    let style = match state {
        "up" => theme.good(),
        "banned" | "unreachable" => theme.bad(),
        _ => Style::new(),
    };
    let rate = |rate: Option<u64>| rate.map_or_else(|| "-".to_owned(), units::bytes);
    let plain = |text: String| (text, Style::new());
    vec![
        plain(names.label(&peer.name, &peer.node_id)),
        plain(peer.ipv4.to_string()),
        (state.to_owned(), style),
        plain(peers::ago(peer.last_handshake)),
        plain(details::rtt(peer.rtt)),
        plain(units::bytes(peer.rx_bytes)),
        plain(units::bytes(peer.tx_bytes)),
        plain(rate(row.rate.map(|(rx, _)| rx))),
        plain(rate(row.rate.map(|(_, tx)| tx))),
        plain(peer.ipv6.to_string()),
    ]
}

pub(super) fn routes(app: &App, buf: &mut Buffer, area: Rect, theme: Theme) {
    let list = &app.routes;
    let area = draw_filter(buf, area, theme, list.filter(), list.len(), list.items().len());
    if list.len() == 0 {
        return draw_empty(buf, area, theme, list.is_known(), list.filter(), "no other members are known");
    }
    let table = Table { columns: ROUTES, sorted: None, count: list.len(), selected: list.place() };
    let names = Names::of(list.items().iter().map(|route| route.name.as_str()));
    let cells = |route: &Route| {
        let style = if route.hops.is_none() { theme.bad() } else { Style::new() };
        let via = |via: &String| {
            list.find(via).map_or_else(|| via.clone(), |route| names.label(&route.name, &route.node_id))
        };
        let via = route.via.as_ref().map(via);
        let dash = || "-".to_owned();
        let plain = |text: String| (text, Style::new());
        vec![
            plain(names.label(&route.name, &route.node_id)),
            plain(route.ipv4.to_string()),
            (route.hops.map_or_else(dash, |hops| hops.to_string()), style),
            plain(via.unwrap_or_else(dash)),
            plain(route.last_seen.map_or_else(|| "never".to_owned(), utc)),
            plain(utc(route.created)),
            plain(route.ipv6.to_string()),
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
        let cells = [
            issued.id.clone(),
            invite::state(issued).to_owned(),
            utc(issued.expires_at),
            invite::uses(issued),
            code.to_owned(),
            utc(issued.created_at),
        ];
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
        let Some(row) = list.row(place) else { return Vec::new() };
        let cells = [
            ban::name(row, &names),
            row.node_id.clone(),
            reason(row),
            row.expires_at.map_or_else(|| "lifted".to_owned(), utc),
            row.description.clone(),
        ];
        cells.map(|cell| (cell, Style::new())).to_vec()
    });
}

/// What sort of entry it is, in a word.
pub(super) fn kind(entry: &LogEntry) -> &'static str {
    match (entry.kind, entry.level) {
        (LogKind::Event, _) => "event",
        (LogKind::Local, _) => "here",
        (LogKind::Log, Level::Info) => "info",
        (LogKind::Log, Level::Warn) => "warn",
        (LogKind::Log, Level::Error) => "error",
    }
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
        vec![(time, theme.quiet()), (kind(entry).to_owned(), style), (entry.text.clone(), style)]
    });
}
